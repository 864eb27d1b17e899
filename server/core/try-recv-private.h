/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Receives that a loop tries by itself while it looks for work, before it gives
 * them to the ring.
 *
 * A peer that has one request in flight at a time sends the next one some
 * microseconds after our reply. To have the ring wait for it costs a system
 * call to start that, work of the sender's when the bytes come, and another
 * call to get them; a loop that is awake anyway gets them with one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/ring.h"

/* More are not worth it: each look tries them all. */
#define BF_TRY_RECVS_MAX 4

/**
 * BfTryRecv: one receive
 * @op: its operation; whoever started it waits for its @done
 * @fd: a stream socket
 * @buf: where the bytes go
 * @len: room there, at least 1
 * @flags: 0 or MSG_PEEK
 * @soon: it is likely to have a result within microseconds
 */
typedef struct BfTryRecv {
    BfRingOp *op;
    int fd;
    void *buf;
    size_t len;
    int flags;
    bool soon;
} BfTryRecv;

/**
 * BfTryRecvs: those of a loop
 * @items: the receives, in no order
 * @count: how many there are
 * @waits: how many have begun and not ended, the ring's included
 *
 * All zeroes is an empty set. It belongs to the loop's thread.
 */
typedef struct BfTryRecvs {
    BfTryRecv items[BF_TRY_RECVS_MAX];
    unsigned count;
    unsigned waits;
} BfTryRecvs;

/**
 * bf_try_recvs_begin:
 * @recvs: a set
 * @ring: the loop's, which gets the receive if the set has no room
 * @recv: a receive; copied
 */
void bf_try_recvs_begin(BfTryRecvs *recvs, BfRing *ring, const BfTryRecv *recv);

/**
 * bf_try_recvs_end:
 * @recvs: a set
 *
 * Called once for each that was begun, after its @done.
 */
void bf_try_recvs_end(BfTryRecvs *recvs);

/**
 * bf_try_recvs_soon:
 * @recvs: a set
 *
 * With several peers it pays to let requests come together: to answer each at
 * once would wake a common client for each.
 *
 * Returns: whether just one receive waits, and is likely to have a result
 * within microseconds
 */
bool bf_try_recvs_soon(const BfTryRecvs *recvs);

/**
 * bf_try_recvs_look:
 * @recvs: a set
 *
 * Tries each once. Those that have a result, which may be an error or the end,
 * leave the set, and their @done is called with it.
 *
 * Returns: whether there were any
 */
bool bf_try_recvs_look(BfTryRecvs *recvs);

/**
 * bf_try_recvs_start:
 * @recvs: a set; empty afterwards
 * @ring: the loop's, which gets all of them
 */
void bf_try_recvs_start(BfTryRecvs *recvs, BfRing *ring);
