/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What core/co-io.c needs of the loop beyond its public face.
 */
#pragma once

#include "core/loop.h"
#include "core/ring.h"

/**
 * bf_loop_ring:
 *
 * Returns: (transfer none): the ring of the calling thread's loop, which must
 * have one
 */
BfRing *bf_loop_ring(void);
