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
 * bf_loop_recvs:
 *
 * Returns: (transfer none): the receives that the calling thread's loop tries
 * as long as it looks for work; it gives them to its ring before it does
 * anything else
 */
BfTryRecvs *bf_loop_recvs(void);
