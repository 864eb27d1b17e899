/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client's side of the handshake: greeting, TLS, extended headers or
 * structured replies, a metadata context, and the choice of the export (NBD
 * proto.md, "Option haggling").
 *
 * Exactly the bytes of each message are read, so nothing that came in the clear
 * can be taken for something said inside of TLS. The server may say anything:
 * each reply has a limit of length and each option one of replies; the caller
 * limits the time.
 */
#include <inttypes.h>

#include "core/error.h"
#include "core/util.h"
#include "io/channel-tls.h"
#include "nbd-private.h"
#include "talk-private.h"

/* Most replies to one option. */
#define REPLIES_MAX 64
#define LIST_REPLIES_MAX 100000

/* Largest smallest block, as the protocol has it. */
#define MIN_BLOCK_MAX 65536

static BfNbdString
as_string(const char *text)
{
    return (BfNbdString){.data = text, .len = (uint32_t)strlen(text)};
}

/* Takes the id of the context, which must be the one that was asked for. */
static bool
take_context(const BfNbdcTalk *talk, BfNbdcExport *exp, GError **error)
{
    const char *wanted = talk->target->context;
    BfNbdString name;

    if (!bf_nbd_parse_meta_context(talk->payload->data, talk->payload->len,
                                   &exp->context_id, &name)) {
        bf_set_error(error, "the server's answer about a metadata context is "
                            "too short");
        return false;
    }
    if (exp->has_context) {
        bf_set_error(error, "the server selects more than the one metadata "
                            "context that was asked for");
        return false;
    }
    if (name.len != strlen(wanted) ||
        memcmp(name.data, wanted, name.len) != 0) {
        g_autofree char *text = bf_nbdc_clean_text(name.data, name.len);

        bf_set_error(error,
                     "the server selects the metadata context '%s' instead "
                     "of '%s'",
                     text != NULL ? text : "", wanted);
        return false;
    }
    exp->has_context = true;
    return true;
}

static bool
talk_co_select_context(BfNbdcTalk *talk, BfNbdcExport *exp, GError **error)
{
    g_autoptr(GByteArray) data = g_byte_array_new();
    const BfNbdString query = as_string(talk->target->context);

    bf_nbd_append_meta(data, as_string(talk->target->name), &query, 1);
    if (!bf_nbdc_talk_co_send(talk, BF_NBD_OPTION_SET_META_CONTEXT, data->data,
                              data->len, error)) {
        return false;
    }
    for (;;) {
        if (!bf_nbdc_talk_co_reply(talk, error)) {
            return false;
        }
        if (talk->reply.type == BF_NBD_REPLY_ACK) {
            return true;
        }
        if (bf_nbdc_talk_is_refused(talk)) {
            exp->has_context = false;
            return true; /* GO has the better message if it fails, too */
        }
        if (talk->reply.type != BF_NBD_REPLY_META_CONTEXT) {
            return bf_nbdc_talk_set_unexpected(talk, error);
        }
        if (!take_context(talk, exp, error)) {
            return false;
        }
    }
}

static bool
check_block_sizes(const BfNbdExportInfo *info, GError **error)
{
    if (info->min_block == 0 || info->min_block > MIN_BLOCK_MAX ||
        (info->min_block & (info->min_block - 1)) != 0) {
        bf_set_error(error,
                     "the server's smallest block of %u bytes is not a power "
                     "of two up to %u",
                     info->min_block, MIN_BLOCK_MAX);
        return false;
    }
    if (info->preferred_block < info->min_block ||
        (info->preferred_block & (info->preferred_block - 1)) != 0) {
        bf_set_error(error,
                     "the server's preferred block of %u bytes is not a power "
                     "of two from its smallest of %u on",
                     info->preferred_block, info->min_block);
        return false;
    }
    if (info->max_block < info->min_block) {
        bf_set_error(error,
                     "the server's largest block of %u bytes is below its "
                     "smallest of %u",
                     info->max_block, info->min_block);
        return false;
    }
    return true;
}

static bool
check_export(const BfNbdcExport *exp, GError **error)
{
    const BfNbdExportInfo *info = &exp->info;

    if ((info->flags & BF_NBD_EXPORT_HAS_FLAGS) == 0) {
        bf_set_error(error,
                     "the server's transmission flags 0x%04x are not valid",
                     info->flags);
        return false;
    }
    if (info->size > INT64_MAX) {
        bf_set_error(error,
                     "the server says that the export has %" PRIu64
                     " bytes, which is too large",
                     info->size);
        return false;
    }
    if (info->min_block != 0 && info->size % info->min_block != 0) {
        bf_set_error(error,
                     "the export's size of %" PRIu64
                     " bytes is no multiple of the server's smallest block "
                     "of %u",
                     info->size, info->min_block);
        return false;
    }
    return true;
}

/* One INFO reply. */
static bool
take_info(const BfNbdcTalk *talk, BfNbdcExport *exp, unsigned *seen,
          GError **error)
{
    BfNbdString text;
    uint16_t type = 0;

    if (!bf_nbd_parse_info(talk->payload->data, talk->payload->len, &type,
                           &exp->info, &text)) {
        bf_set_error(error,
                     "the server's information about the export has a "
                     "wrong length of %u bytes",
                     talk->payload->len);
        return false;
    }
    if (type < 32) {
        *seen |= 1u << type;
    }
    return type != BF_NBD_INFO_BLOCK_SIZE ||
           check_block_sizes(&exp->info, error);
}

/* @ret_known: false if the server does not know GO. */
static bool
talk_co_go(BfNbdcTalk *talk, BfNbdcExport *exp, bool *ret_known, GError **error)
{
    const uint16_t wanted[] = {BF_NBD_INFO_BLOCK_SIZE};
    g_autoptr(GByteArray) data = g_byte_array_new();
    unsigned seen = 0;

    *ret_known = true;
    bf_nbd_append_go(data, as_string(talk->target->name), wanted, 1);
    if (!bf_nbdc_talk_co_send(talk, BF_NBD_OPTION_GO, data->data, data->len,
                              error)) {
        return false;
    }
    for (unsigned i = 0; i < REPLIES_MAX; i++) {
        if (!bf_nbdc_talk_co_reply(talk, error)) {
            return false;
        }
        if (talk->reply.type == BF_NBD_REPLY_ACK) {
            if ((seen & (1u << BF_NBD_INFO_EXPORT)) == 0) {
                bf_set_error(error, "the server accepts option 7 (go) without "
                                    "telling size and flags");
                talk->in_step = false;
                return false;
            }
            talk->in_step = false; /* options are over */
            return true;
        }
        if (talk->reply.type == BF_NBD_REPLY_ERR_UNSUP) {
            *ret_known = false;
            return true;
        }
        if (bf_nbdc_talk_is_refused(talk)) {
            return bf_nbdc_talk_set_refused(talk, error);
        }
        if (talk->reply.type != BF_NBD_REPLY_INFO) {
            return bf_nbdc_talk_set_unexpected(talk, error);
        }
        if (!take_info(talk, exp, &seen, error)) {
            return false;
        }
    }
    bf_set_error(error, "more than %d replies to option 7 (go)", REPLIES_MAX);
    return false;
}

/* EXPORT_NAME has no error reply, so the list tells whether there is one. */
static bool
talk_co_find_in_list(BfNbdcTalk *talk, GError **error)
{
    const char *wanted = talk->target->name;
    bool found = false;

    if (!bf_nbdc_talk_co_send(talk, BF_NBD_OPTION_LIST, NULL, 0, error)) {
        return false;
    }
    for (unsigned i = 0; i < LIST_REPLIES_MAX; i++) {
        BfNbdString name;
        BfNbdString description;

        if (!bf_nbdc_talk_co_reply(talk, error)) {
            return false;
        }
        if (talk->reply.type == BF_NBD_REPLY_ACK && !found) {
            bf_set_error(error, "Requested export not available: '%s'", wanted);
            return false;
        }
        if (talk->reply.type == BF_NBD_REPLY_ACK ||
            talk->reply.type == BF_NBD_REPLY_ERR_UNSUP ||
            talk->reply.type == BF_NBD_REPLY_ERR_POLICY) {
            return true; /* found, or nobody knows */
        }
        if (bf_nbdc_talk_is_refused(talk)) {
            return bf_nbdc_talk_set_refused(talk, error);
        }
        if (talk->reply.type != BF_NBD_REPLY_SERVER ||
            !bf_nbd_parse_server(talk->payload->data, talk->payload->len, &name,
                                 &description)) {
            return bf_nbdc_talk_set_unexpected(talk, error);
        }
        found |= name.len == strlen(wanted) &&
                 memcmp(name.data, wanted, name.len) == 0;
    }
    bf_set_error(error, "more than %d replies to option 3 (list)",
                 LIST_REPLIES_MAX);
    return false;
}

static bool
talk_co_export_name(BfNbdcTalk *talk, BfNbdcExport *exp, GError **error)
{
    uint8_t reply[BF_NBD_EXPORT_NAME_REPLY_BYTES];
    uint8_t zeroes[BF_NBD_EXPORT_NAME_ZEROES_BYTES];
    bool ok =
        bf_nbdc_talk_co_send(talk, BF_NBD_OPTION_EXPORT_NAME,
                             talk->target->name, strlen(talk->target->name),
                             error) &&
        bf_nbdc_talk_co_read(talk, reply, sizeof(reply),
                             "its answer to option 1 (export name); it may not "
                             "have the export",
                             error) &&
        (talk->no_zeroes ||
         bf_nbdc_talk_co_read(talk, zeroes, sizeof(zeroes),
                              "the end of its answer to option 1 (export name)",
                              error));

    talk->in_step = false;
    if (ok) {
        bf_nbd_parse_export_name_reply(reply, &exp->info);
    }
    return ok;
}

/* Extended headers include structured replies. A server that does not know
 * them, or does not want them now, is asked for those alone. */
static bool
talk_co_choose_replies(BfNbdcTalk *talk, BfNbdcExport *exp, GError **error)
{
    if (!bf_nbdc_talk_co_ask(talk, BF_NBD_OPTION_EXTENDED_HEADERS,
                             &exp->extended, error)) {
        return false;
    }
    exp->structured = exp->extended;
    return exp->extended ||
           bf_nbdc_talk_co_ask(talk, BF_NBD_OPTION_STRUCTURED_REPLY,
                               &exp->structured, error);
}

/* For servers that do not know GO. */
static bool
talk_co_choose_by_name(BfNbdcTalk *talk, BfNbdcExport *exp, GError **error)
{
    if (exp->extended) {
        bf_set_error(error, "the server agrees to extended headers, but does "
                            "not know option 7 (go), which they need");
        return false;
    }
    return talk_co_find_in_list(talk, error) &&
           talk_co_export_name(talk, exp, error);
}

/* Everything after the greeting of a server that can haggle. */
static bool
talk_co_haggle(BfNbdcTalk *talk, BfChannel **channel, BfNbdcExport *exp,
               GError **error)
{
    bool go_known = false;

    if (talk->target->creds != NULL &&
        !bf_nbdc_talk_co_start_tls(talk, channel, error)) {
        return false;
    }
    if (!talk_co_choose_replies(talk, exp, error)) {
        return false;
    }
    if (exp->structured && !talk_co_select_context(talk, exp, error)) {
        return false;
    }
    if (!talk_co_go(talk, exp, &go_known, error)) {
        return false;
    }
    if (!go_known && !talk_co_choose_by_name(talk, exp, error)) {
        return false;
    }
    if (talk->target->context_required && !exp->has_context) {
        bf_set_error(error,
                     "the export '%s' has no metadata context '%s', which "
                     "x-dirty-bitmap asks for",
                     talk->target->name, talk->target->context);
        return false;
    }
    return true;
}

static bool
talk_co_run(BfNbdcTalk *talk, BfChannel **channel, BfNbdcExport *exp,
            GError **error)
{
    uint16_t flags = 0;

    if (!bf_nbdc_talk_co_greet(talk, &flags, error)) {
        return false;
    }
    if ((flags & BF_NBD_HANDSHAKE_FIXED) != 0) {
        return talk_co_haggle(talk, channel, exp, error) &&
               check_export(exp, error);
    }
    talk->in_step = false; /* it knows no option to leave by */
    if (talk->target->creds != NULL || talk->target->context_required) {
        bf_set_error(error,
                     "the server does not support fixed newstyle negotiation, "
                     "which %s needs",
                     talk->target->creds != NULL ? "TLS" : "x-dirty-bitmap");
        return false;
    }
    return talk_co_export_name(talk, exp, error) && check_export(exp, error);
}

bool
bf_nbdc_co_negotiate(BfChannel **channel, const BfNbdcTarget *target,
                     BfNbdcExport *ret_exp, GError **error)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();
    BfNbdcExport exp = {.structured = false};
    BfNbdcTalk talk = {
        .channel = *channel, .target = target, .payload = payload};

    if (talk_co_run(&talk, channel, &exp, error)) {
        *ret_exp = exp;
        return true;
    }
    if (talk.in_step) {
        bf_nbdc_talk_co_send(&talk, BF_NBD_OPTION_ABORT, NULL, 0, NULL);
    }
    g_prefix_error(error, "NBD server '%s': ", target->server);
    return false;
}
