/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Asks a server for its exports and what there is to know of each (NBD
 * proto.md, NBD_OPT_LIST, NBD_OPT_INFO, NBD_OPT_LIST_META_CONTEXT).
 */
#include "block/nbd-list.h"

#include "core/error.h"
#include "core/util.h"
#include "io/channel-socket.h"
#include "talk-private.h"

/* A server that never ends must not fill the memory. */
#define OFFERS_MAX 10000
#define CONTEXTS_MAX 1000
#define INFOS_MAX 64

#define LIST_MAX_NS (120 * BF_NS_PER_SEC)

/* With the name as the server spells it. */
typedef struct Offer {
    BfNbdOffer base; /* first: a BfNbdOffer pointer converts to this */
    GByteArray *name;
} Offer;

static void
offer_free(void *data)
{
    Offer *offer = data;

    g_free(offer->base.name);
    g_free(offer->base.description);
    g_clear_pointer(&offer->base.contexts, g_ptr_array_unref);
    g_byte_array_unref(offer->name);
    g_free(offer);
}

static BfNbdString
name_of(const BfNbdOffer *offer)
{
    const GByteArray *name = ((const Offer *)offer)->name;

    return (BfNbdString){.data = (const char *)name->data, .len = name->len};
}

static char *
show(BfNbdString text)
{
    return bf_show_peer_text(text.data, text.len, '?');
}

static bool
set_too_many(const BfNbdcTalk *talk, unsigned max, GError **error)
{
    bf_set_error(error, "more than %u replies to option %u (%s)", max,
                 talk->option, bf_nbd_option_name(talk->option));
    return false;
}

static bool
take_server(const BfNbdcTalk *talk, GPtrArray *offers, GError **error)
{
    BfNbdString name;
    BfNbdString description;
    Offer *offer = NULL;

    if (talk->reply.type != BF_NBD_REPLY_SERVER ||
        !bf_nbd_parse_server(talk->payload->data, talk->payload->len, &name,
                             &description)) {
        return bf_nbdc_talk_set_unexpected(talk, error);
    }
    offer = g_new0(Offer, 1);
    offer->base.name = show(name);
    offer->name = g_byte_array_new();
    g_byte_array_append(offer->name, (const uint8_t *)name.data, name.len);
    g_ptr_array_add(offers, offer);
    return true;
}

static bool
co_list(BfNbdcTalk *talk, GPtrArray *offers, GError **error)
{
    if (!bf_nbdc_talk_co_send(talk, BF_NBD_OPTION_LIST, NULL, 0, error)) {
        return false;
    }
    for (unsigned i = 0; i <= OFFERS_MAX; i++) {
        if (!bf_nbdc_talk_co_reply(talk, error)) {
            return false;
        }
        if (talk->reply.type == BF_NBD_REPLY_ACK) {
            return true;
        }
        if (bf_nbdc_talk_is_refused(talk)) {
            return bf_nbdc_talk_set_refused(talk, error);
        }
        if (!take_server(talk, offers, error)) {
            return false;
        }
    }
    return set_too_many(talk, OFFERS_MAX, error);
}

static bool
take_info(const BfNbdcTalk *talk, BfNbdOffer *offer, GError **error)
{
    BfNbdString text;
    uint16_t type = 0;

    if (talk->reply.type != BF_NBD_REPLY_INFO ||
        !bf_nbd_parse_info(talk->payload->data, talk->payload->len, &type,
                           &offer->info, &text)) {
        return bf_nbdc_talk_set_unexpected(talk, error);
    }
    offer->has_info |= type == BF_NBD_INFO_EXPORT;
    if (type == BF_NBD_INFO_DESCRIPTION) {
        g_free(offer->description);
        offer->description = text.len > 0 ? show(text) : NULL;
    }
    return true;
}

/* A server may refuse to tell; then the name is all there is. */
static bool
co_ask_info(BfNbdcTalk *talk, BfNbdOffer *offer, GError **error)
{
    const uint16_t wanted[] = {BF_NBD_INFO_DESCRIPTION, BF_NBD_INFO_BLOCK_SIZE};
    g_autoptr(GByteArray) data = g_byte_array_new();

    bf_nbd_append_go(data, name_of(offer), wanted, G_N_ELEMENTS(wanted));
    if (!bf_nbdc_talk_co_send(talk, BF_NBD_OPTION_INFO, data->data, data->len,
                              error)) {
        return false;
    }
    for (unsigned i = 0; i <= INFOS_MAX; i++) {
        if (!bf_nbdc_talk_co_reply(talk, error)) {
            return false;
        }
        if (talk->reply.type == BF_NBD_REPLY_ACK ||
            bf_nbdc_talk_is_refused(talk)) {
            offer->has_info &= talk->reply.type == BF_NBD_REPLY_ACK;
            return true;
        }
        if (!take_info(talk, offer, error)) {
            return false;
        }
    }
    return set_too_many(talk, INFOS_MAX, error);
}

static bool
take_context(const BfNbdcTalk *talk, BfNbdOffer *offer, GError **error)
{
    BfNbdString name;
    uint32_t id = 0;

    if (talk->reply.type != BF_NBD_REPLY_META_CONTEXT ||
        !bf_nbd_parse_meta_context(talk->payload->data, talk->payload->len, &id,
                                   &name)) {
        return bf_nbdc_talk_set_unexpected(talk, error);
    }
    g_ptr_array_add(offer->contexts, show(name));
    return true;
}

static bool
co_ask_contexts(BfNbdcTalk *talk, BfNbdOffer *offer, GError **error)
{
    g_autoptr(GByteArray) data = g_byte_array_new();

    offer->contexts = g_ptr_array_new_with_free_func(g_free);
    bf_nbd_append_meta(data, name_of(offer), NULL, 0);
    if (!bf_nbdc_talk_co_send(talk, BF_NBD_OPTION_LIST_META_CONTEXT, data->data,
                              data->len, error)) {
        return false;
    }
    for (unsigned i = 0; i <= CONTEXTS_MAX; i++) {
        if (!bf_nbdc_talk_co_reply(talk, error)) {
            return false;
        }
        if (talk->reply.type == BF_NBD_REPLY_ACK ||
            bf_nbdc_talk_is_refused(talk)) {
            return true;
        }
        if (!take_context(talk, offer, error)) {
            return false;
        }
    }
    return set_too_many(talk, CONTEXTS_MAX, error);
}

static bool
co_ask_all(BfNbdcTalk *talk, BfChannel **channel, GPtrArray *offers,
           GError **error)
{
    uint16_t flags = 0;
    bool structured = false;

    if (!bf_nbdc_talk_co_greet(talk, &flags, error)) {
        return false;
    }
    if ((flags & BF_NBD_HANDSHAKE_FIXED) == 0) {
        bf_set_error(error, "the server does not support fixed newstyle "
                            "negotiation, without which nothing can be listed");
        talk->in_step = false;
        return false;
    }
    if (talk->target->creds != NULL &&
        !bf_nbdc_talk_co_start_tls(talk, channel, error)) {
        return false;
    }
    if (!bf_nbdc_talk_co_ask(talk, BF_NBD_OPTION_STRUCTURED_REPLY, &structured,
                             error) ||
        !co_list(talk, offers, error)) {
        return false;
    }
    for (unsigned i = 0; i < offers->len; i++) {
        BfNbdOffer *offer = g_ptr_array_index(offers, i);

        if (!co_ask_info(talk, offer, error) ||
            (structured && offer->has_info &&
             !co_ask_contexts(talk, offer, error))) {
            return false;
        }
    }
    return true;
}

/* --- With a limit of time. --- */

typedef struct Deadline {
    BfTimer timer;
    BfChannel *socket; /* borrowed */
    bool expired;
} Deadline;

static void
deadline_expired(void *arg)
{
    Deadline *deadline = arg;

    deadline->expired = true;
    bf_channel_shutdown(deadline->socket);
}

static bool
co_talk(const BfNbdcTarget *target, int fd, GPtrArray *offers, GError **error)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();
    BfChannel *channel = bf_channel_socket_new(fd);
    Deadline deadline = {.socket = channel};
    BfNbdcTalk talk = {
        .channel = channel, .target = target, .payload = payload};
    bool ok = false;

    bf_timer_start(&deadline.timer, LIST_MAX_NS, deadline_expired, &deadline);
    ok = co_ask_all(&talk, &channel, offers, error);
    if (talk.in_step) {
        bf_nbdc_talk_co_send(&talk, BF_NBD_OPTION_ABORT, NULL, 0, NULL);
    }
    bf_timer_stop(&deadline.timer);
    if (channel != NULL) {
        bf_channel_free(channel);
    }
    if (!ok && deadline.expired) {
        g_prefix_error(error, "the server takes longer than %u seconds: ",
                       (unsigned)(LIST_MAX_NS / BF_NS_PER_SEC));
    }
    return ok;
}

GPtrArray *
bf_nbd_list_co_run(const BfSocketAddress *address, BfTlsCreds *creds,
                   const char *hostname, GError **error)
{
    g_autoptr(GPtrArray) offers = g_ptr_array_new_with_free_func(offer_free);
    g_autofree char *server = bf_address_to_string(address);
    BfNbdcTarget target = {
        .server = server,
        .name = (char *)"",
        .creds = creds,
        .hostname = (char *)hostname,
    };
    int fd = bf_address_co_connect(address, NULL, NULL, NBDC_CONNECT_MAX_NS,
                                   NULL, error);

    if (fd < 0) {
        return NULL;
    }
    if (!co_talk(&target, fd, offers, error)) {
        g_prefix_error(error, "NBD server '%s': ", server);
        return NULL;
    }
    return g_steal_pointer(&offers);
}
