/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Receives that a loop tries by itself: see try-recv-private.h. One that is in
 * the set is unknown to the ring, so whoever cancels it has it started first.
 */
#include "try-recv-private.h"

#include <errno.h>
#include <sys/socket.h>

void
bf_try_recvs_begin(BfTryRecvs *recvs, BfRing *ring, const BfTryRecv *recv)
{
    recvs->waits++;
    if (recvs->count < BF_TRY_RECVS_MAX) {
        recvs->items[recvs->count++] = *recv;
    } else {
        bf_ring_recv(ring, recv->op, recv->fd, recv->buf, recv->len,
                     recv->flags);
    }
}

void
bf_try_recvs_end(BfTryRecvs *recvs)
{
    recvs->waits--;
}

bool
bf_try_recvs_soon(const BfTryRecvs *recvs)
{
    return recvs->waits == 1 && recvs->count == 1 && recvs->items[0].soon;
}

/* True if it has a result. */
static bool
try_one(const BfTryRecv *item, ssize_t *ret_n)
{
    ssize_t n =
        recv(item->fd, item->buf, item->len, item->flags | MSG_DONTWAIT);

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    *ret_n = n < 0 ? -errno : n;
    return true;
}

bool
bf_try_recvs_look(BfTryRecvs *recvs)
{
    bool found = false;

    for (unsigned i = 0; i < recvs->count;) {
        BfRingOp *op = recvs->items[i].op;
        ssize_t n = 0;

        if (!try_one(&recvs->items[i], &n)) {
            i++;
            continue;
        }
        recvs->items[i] = recvs->items[--recvs->count];
        op->done(op, (int)n);
        found = true;
    }
    return found;
}

void
bf_try_recvs_start(BfTryRecvs *recvs, BfRing *ring)
{
    for (unsigned i = 0; i < recvs->count; i++) {
        const BfTryRecv *item = &recvs->items[i];

        bf_ring_recv(ring, item->op, item->fd, item->buf, item->len,
                     item->flags);
    }
    recvs->count = 0;
}
