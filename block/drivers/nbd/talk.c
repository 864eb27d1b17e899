/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The messages of a handshake as a client sees them: greeting, options, their
 * replies, and the change to TLS (NBD proto.md, "Option haggling").
 *
 * Exactly the bytes of each message are read, so nothing that came in the clear
 * can be taken for something said inside of TLS. Each reply has a limit of
 * length; the callers limit their number and the time.
 */
#include <inttypes.h>

#include "core/error.h"
#include "core/util.h"
#include "io/channel-tls.h"
#include "nbd-private.h"
#include "talk-private.h"

/* Longest payload of a reply; protocol texts have 4096 bytes at most. */
#define REPLY_BYTES_MAX (64 * 1024)

/* What of a server's text is shown. */
#define TEXT_SHOWN_MAX 200

char *
bf_nbdc_clean_text(const char *text, size_t len)
{
    char *clean = bf_show_peer_text(text, MIN(len, TEXT_SHOWN_MAX), ' ');

    g_strstrip(clean);
    if (*clean == '\0') {
        g_clear_pointer(&clean, g_free);
    }
    return clean;
}

bool
bf_nbdc_talk_co_read(BfNbdcTalk *talk, void *buf, size_t len, const char *what,
                     GError **error)
{
    talk->in_step = false;
    switch (bf_channel_co_read_exact(talk->channel, buf, len, error)) {
    case BF_READ_DONE:
        talk->in_step = true;
        return true;
    case BF_READ_EOF:
        bf_set_error(error, "the server closed the connection before %s", what);
        return false;
    default:
        g_prefix_error(error, "Failed to read %s: ", what);
        return false;
    }
}

static char *
reply_name(const BfNbdcTalk *talk)
{
    return g_strdup_printf("the reply to option %u (%s)", talk->option,
                           bf_nbd_option_name(talk->option));
}

/*
 * A server that turns us away tells why and closes: by an alert, if it does not
 * accept our certificate. Whether that is seen first, or that nothing can be
 * sent any more, is a matter of luck, and the alert says more.
 */
static void
co_hear_why(const BfNbdcTalk *talk, GError **error)
{
    g_autofree char *what = reply_name(talk);
    g_autoptr(GError) reason = NULL;
    uint8_t byte;

    if (error != NULL && bf_channel_co_read_exact(talk->channel, &byte, 1,
                                                  &reason) == BF_READ_FAILED) {
        g_clear_error(error);
        g_propagate_prefixed_error(error, g_steal_pointer(&reason),
                                   "Failed to read %s: ", what);
    }
}

bool
bf_nbdc_talk_co_send(BfNbdcTalk *talk, BfNbdOption option, const void *data,
                     size_t len, GError **error)
{
    uint8_t head[BF_NBD_OPTION_BYTES];
    struct iovec iov[2] = {
        {.iov_base = head, .iov_len = sizeof(head)},
        {.iov_base = (void *)data, .iov_len = len},
    };

    bf_nbd_put_option(
        head, &(BfNbdOptionHeader){.option = option, .length = (uint32_t)len});
    talk->option = option;
    if (!bf_channel_co_writev_all(talk->channel, iov, 2, error)) {
        talk->in_step = false;
        g_prefix_error(error,
                       "Failed to send option %u (%s): ", (unsigned)option,
                       bf_nbd_option_name(option));
        co_hear_why(talk, error);
        return false;
    }
    return true;
}

/* Reads one reply to the option that was sent last. */
bool
bf_nbdc_talk_co_reply(BfNbdcTalk *talk, GError **error)
{
    g_autofree char *what = reply_name(talk);
    uint8_t head[BF_NBD_OPTION_REPLY_BYTES];

    if (!bf_nbdc_talk_co_read(talk, head, sizeof(head), what, error)) {
        return false;
    }
    talk->in_step = false;
    if (!bf_nbd_parse_option_reply(head, &talk->reply)) {
        bf_set_error(error, "%s has a bad magic number 0x%016" PRIx64, what,
                     bf_get_be64(head));
        return false;
    }
    if (talk->reply.option != talk->option) {
        bf_set_error(error, "%s is for option %u instead", what,
                     talk->reply.option);
        return false;
    }
    if (talk->reply.length > REPLY_BYTES_MAX) {
        bf_set_error(error, "%s is too long: %u bytes, at most %u are taken",
                     what, talk->reply.length, REPLY_BYTES_MAX);
        return false;
    }
    g_byte_array_set_size(talk->payload, talk->reply.length);
    if (talk->reply.length > 0 &&
        !bf_nbdc_talk_co_read(talk, talk->payload->data, talk->reply.length,
                              what, error)) {
        return false;
    }
    talk->in_step = true;
    if (talk->reply.type == BF_NBD_REPLY_ACK && talk->reply.length != 0) {
        bf_set_error(error, "%s is an acknowledgement with %u bytes of data",
                     what, talk->reply.length);
        return false;
    }
    return true;
}

bool
bf_nbdc_talk_is_refused(const BfNbdcTalk *talk)
{
    return (talk->reply.type & BF_NBD_REPLY_ERROR_BIT) != 0;
}

bool
bf_nbdc_talk_set_unexpected(const BfNbdcTalk *talk, GError **error)
{
    bf_set_error(error, "unexpected reply of type %u to option %u (%s)",
                 talk->reply.type, talk->option,
                 bf_nbd_option_name(talk->option));
    return false;
}

/* What a refusal means for the user. */
static char *
explain_refusal(const BfNbdcTalk *talk)
{
    const char *option = bf_nbd_option_name(talk->option);

    switch (talk->reply.type) {
    case BF_NBD_REPLY_ERR_UNKNOWN:
        return g_strdup_printf("Requested export not available: '%s'",
                               talk->target->name);
    case BF_NBD_REPLY_ERR_TLS_REQD:
        return g_strdup_printf(
            "TLS negotiation required before option %u (%s): the server "
            "requires TLS; %s",
            talk->option, option,
            talk->target->creds == NULL
                ? "give tls-creds, the id of TLS credentials of endpoint client"
                : "it does not see that TLS is on");
    case BF_NBD_REPLY_ERR_POLICY:
        return g_strdup_printf("Denied by server for option %u (%s)",
                               talk->option, option);
    default:
        return g_strdup_printf("Refused by server for option %u (%s): %s",
                               talk->option, option,
                               bf_nbd_option_error_name(talk->reply.type));
    }
}

/* The last reply is a refusal: makes it an error. */
bool
bf_nbdc_talk_set_refused(const BfNbdcTalk *talk, GError **error)
{
    g_autofree char *meaning = explain_refusal(talk);
    g_autofree char *text = bf_nbdc_clean_text(
        (const char *)talk->payload->data, talk->payload->len);

    bf_set_error(error, "%s%s%s%s%s", meaning,
                 talk->option == BF_NBD_OPTION_STARTTLS
                     ? "; nothing is sent without TLS because tls-creds are "
                       "given"
                     : "",
                 text != NULL ? " (server reported: " : "",
                 text != NULL ? text : "", text != NULL ? ")" : "");
    return false;
}

/* An option without data that is answered by yes or no. */
bool
bf_nbdc_talk_co_ask(BfNbdcTalk *talk, BfNbdOption option, bool *ret_yes,
                    GError **error)
{
    if (!bf_nbdc_talk_co_send(talk, option, NULL, 0, error) ||
        !bf_nbdc_talk_co_reply(talk, error)) {
        return false;
    }
    if (talk->reply.type != BF_NBD_REPLY_ACK &&
        !bf_nbdc_talk_is_refused(talk)) {
        return bf_nbdc_talk_set_unexpected(talk, error);
    }
    *ret_yes = talk->reply.type == BF_NBD_REPLY_ACK;
    return true;
}

bool
bf_nbdc_talk_co_start_tls(BfNbdcTalk *talk, BfChannel **channel, GError **error)
{
    bool yes = false;

    if (!bf_nbdc_talk_co_ask(talk, BF_NBD_OPTION_STARTTLS, &yes, error)) {
        return false;
    }
    if (!yes) {
        return bf_nbdc_talk_set_refused(talk, error);
    }
    talk->in_step = false;
    /* It takes the plain channel over, even when it fails. */
    *channel = bf_channel_tls_co_new(*channel, talk->target->creds,
                                     talk->target->hostname, error);
    talk->channel = *channel;
    talk->in_step = *channel != NULL;
    return talk->in_step;
}

bool
bf_nbdc_talk_co_greet(BfNbdcTalk *talk, uint16_t *ret_flags, GError **error)
{
    uint8_t greeting[BF_NBD_GREETING_BYTES];
    uint8_t answer[4];
    uint32_t flags = 0;

    if (!bf_nbdc_talk_co_read(talk, greeting, sizeof(greeting), "the greeting",
                              error)) {
        return false;
    }
    talk->in_step = false;
    if (bf_nbd_is_oldstyle_greeting(greeting)) {
        bf_set_error(error, "the server speaks the old protocol without "
                            "options (oldstyle), which is not supported; have "
                            "it serve newstyle");
        return false;
    }
    if (!bf_nbd_parse_greeting(greeting, ret_flags)) {
        bf_set_error(error,
                     "the greeting is not that of an NBD server (0x%016" PRIx64
                     " 0x%016" PRIx64 ")",
                     bf_get_be64(greeting), bf_get_be64(greeting + 8));
        return false;
    }
    flags = *ret_flags & (BF_NBD_HANDSHAKE_FIXED | BF_NBD_HANDSHAKE_NO_ZEROES);
    talk->no_zeroes = (flags & BF_NBD_HANDSHAKE_NO_ZEROES) != 0;
    bf_put_be32(answer, flags);
    if (!bf_channel_co_write_all(talk->channel, answer, sizeof(answer),
                                 error)) {
        g_prefix_error(error, "Failed to answer the greeting: ");
        return false;
    }
    talk->in_step = true;
    return true;
}
