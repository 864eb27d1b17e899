/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What core/co-io.c needs of the loop beyond its public face.
 */
#pragma once

#include "core/loop.h"
#include "core/ring.h"
#include "try-recv-private.h"

/**
 * bf_loop_ring:
 *
 * Returns: (transfer none): the ring of the calling thread's loop, which must
 * have one
 */
BfRing *bf_loop_ring(void);

/**
 * bf_loop_start_recv:
 * @recv: a receive without flags; copied
 *
 * Starts it on the calling thread's loop: it is tried as long as the loop looks
 * for work, and goes to its ring before the loop does anything else.
 */
void bf_loop_start_recv(const BfTryRecv *recv);

/**
 * bf_loop_cancel:
 * @op: an operation that the calling thread's loop has started
 *
 * Like bf_ring_cancel().
 */
void bf_loop_cancel(BfRingOp *op);
