/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading while a client negotiates: mostly its options come in one piece, and
 * so are received as one.
 *
 * As long as there may be a STARTTLS to come nothing is read ahead: each read
 * asks for exactly the bytes that belong to the current message. So what
 * somebody put behind STARTTLS in plain text goes to the TLS handshake, which
 * fails on it. On the client's loop.
 */
#include <string.h>

#include "core/error.h"
#include "nbd-private.h"

static bool
may_read_ahead(const BfNbdClient *client)
{
    return client->listener->tls_creds == NULL || client->tls;
}

size_t
bf_nbd_ahead_bytes(const BfNbdClient *client)
{
    return client->ahead_end - client->ahead_start;
}

size_t
bf_nbd_ahead_take(BfNbdClient *client, void *buf, size_t len)
{
    const size_t n = MIN(len, bf_nbd_ahead_bytes(client));

    memcpy(buf, client->ahead + client->ahead_start, n);
    client->ahead_start += n;
    return n;
}

ssize_t
bf_nbd_ahead_co_fill(BfNbdClient *client, size_t max, GError **error)
{
    ssize_t n = 0;

    g_assert(bf_nbd_ahead_bytes(client) == 0);
    n = bf_channel_co_read(client->channel, client->ahead,
                           MIN(max, sizeof(client->ahead)), error);
    client->ahead_start = 0;
    client->ahead_end = MAX(n, 0);
    return n;
}

/* Reads 1 to @len bytes; returns as bf_channel_co_read() does. */
static ssize_t
co_read(BfNbdClient *client, void *buf, size_t len, GError **error)
{
    ssize_t n = 0;

    if (!may_read_ahead(client) || len > sizeof(client->ahead)) {
        return bf_channel_co_read(client->channel, buf, len, error);
    }
    n = bf_nbd_ahead_co_fill(client, sizeof(client->ahead), error);
    return n > 0 ? (ssize_t)bf_nbd_ahead_take(client, buf, len) : n;
}

BfReadStatus
bf_nbd_ahead_co_read_exact(BfNbdClient *client, void *buf, size_t len,
                           GError **error)
{
    size_t done = bf_nbd_ahead_take(client, buf, len);

    while (done < len) {
        ssize_t n = co_read(client, (char *)buf + done, len - done, error);

        if (n < 0) {
            return BF_READ_FAILED;
        }
        if (n == 0 && done == 0) {
            return BF_READ_EOF;
        }
        if (n == 0) {
            bf_set_error(error, "the connection ended inside a message");
            return BF_READ_FAILED;
        }
        done += n;
    }
    return BF_READ_DONE;
}
