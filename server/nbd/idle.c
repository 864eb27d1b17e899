/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The end of clients that hold a place without using it: those that ask for
 * nothing, and those that do not take their replies. Off by default.
 *
 * A timer looks at the connection several times within the limit, so requests
 * cost nothing for it. It counts looks rather than time: a daemon that was
 * itself stopped for a while does not blame its clients. On the client's loop.
 */
#include "core/util.h"
#include "transmit-private.h"

/* Looks within the limit. A client has to go when so many in a row have seen it
 * so, which is an eighth later at most. */
#define LOOKS 8

static void
start_timer(BfNbdClient *client, BfFn *fn)
{
    bf_timer_start(&client->limit_timer,
                   client->listener->idle_max_seconds * BF_NS_PER_SEC / LOOKS,
                   fn, client);
}

/* A write whose payload has not come yet waits for the peer, not the peer for
 * it. */
static bool
has_work(const BfNbdClient *client)
{
    return client->writing || client->in_flight > (client->receiving ? 1u : 0u);
}

static void
expire(BfNbdClient *client, BfNbdClientDisconnectReason reason)
{
    client->expired_for = reason;
    client->expired = true;
    if (reason == BF_NBD_CLIENT_DISCONNECT_REASON_IDLE) {
        bf_nbd_reply_bye(client);
    } else {
        /* What is left of a reply cannot be said any more. */
        bf_channel_shutdown(client->channel);
    }
}

static void
look(void *arg)
{
    BfNbdClient *client = arg;
    const uint64_t sent = client->channel->sent;
    const bool stuck = client->writing && sent == client->seen_sent;
    const bool idle =
        !has_work(client) && client->arrived_ns == client->seen_arrived_ns;

    if (client->closing || client->broken) {
        return; /* it ends already */
    }
    client->seen_sent = sent;
    client->seen_arrived_ns = client->arrived_ns;
    client->stuck_looks = stuck ? client->stuck_looks + 1 : 0;
    client->idle_looks = idle ? client->idle_looks + 1 : 0;
    if (client->stuck_looks == LOOKS) {
        expire(client, BF_NBD_CLIENT_DISCONNECT_REASON_STALLED);
    } else if (client->idle_looks == LOOKS) {
        expire(client, BF_NBD_CLIENT_DISCONNECT_REASON_IDLE);
    } else {
        start_timer(client, look);
    }
}

void
bf_nbd_idle_start(BfNbdClient *client)
{
    if (client->listener->idle_max_seconds > 0) {
        client->seen_sent = client->channel->sent;
        start_timer(client, look);
    }
}

void
bf_nbd_idle_stop(BfNbdClient *client)
{
    bf_timer_stop(&client->limit_timer);
}
