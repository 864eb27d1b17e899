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

BfReadStatus
bf_nbd_ahead_co_read_exact(BfNbdClient *client, void *buf, size_t len,
                           GError **error)
{
    size_t done = bf_nbd_ahead_take(client, buf, len);
    BfReadStatus status = BF_READ_DONE;

    if (done == 0 && len > 0 && len <= sizeof(client->ahead) &&
        may_read_ahead(client)) {
        ssize_t n = bf_nbd_ahead_co_fill(client, sizeof(client->ahead), error);

        if (n <= 0) {
            return n < 0 ? BF_READ_FAILED : BF_READ_EOF;
        }
        done = bf_nbd_ahead_take(client, buf, len);
    }
    status = bf_channel_co_read_exact(client->channel, (char *)buf + done,
                                      len - done, error);
    if (status == BF_READ_EOF && done > 0) {
        bf_set_error(error, "the connection ended inside a message");
        return BF_READ_FAILED;
    }
    return status;
}
