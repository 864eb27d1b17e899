/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Since when a connection has been waiting for its peer: one loop waits, and
 * any thread may look. For whoever has to choose which of many connections may
 * go. None suspends.
 *
 * Only the first waits have a beginning of their own; all later ones seem to
 * have begun with the last of these. So a peer that sends byte by byte is
 * silent after a while, too.
 */
#pragma once

#include "core/atomic.h"

/* Waits with a beginning of their own: plenty for a handshake. */
#define BF_PEER_WAITS_MAX 64

/* Nobody waits for the peer. */
#define BF_PEER_WAIT_NONE UINT64_MAX

/**
 * BfPeerWait: the present wait for a peer
 *
 * Fields are private.
 */
typedef struct BfPeerWait {
    BfAtomicU64 since_ns;
    uint64_t began_ns;
    unsigned n_waits;
} BfPeerWait;

/**
 * bf_peer_wait_begin:
 * @wait: all zero before the first call
 * @now_ns: the time
 *
 * From now on it is the peer's turn.
 */
static inline void
bf_peer_wait_begin(BfPeerWait *wait, uint64_t now_ns)
{
    if (wait->n_waits < BF_PEER_WAITS_MAX) {
        wait->n_waits++;
        wait->began_ns = now_ns;
    }
    bf_atomic_store(&wait->since_ns, wait->began_ns);
}

/**
 * bf_peer_wait_end:
 * @wait: a wait
 *
 * The peer has done what it was waited for.
 */
static inline void
bf_peer_wait_end(BfPeerWait *wait)
{
    bf_atomic_store(&wait->since_ns, BF_PEER_WAIT_NONE);
}

/**
 * bf_peer_wait_since:
 * @wait: a wait
 *
 * Returns: when the present wait began, or %BF_PEER_WAIT_NONE
 */
static inline uint64_t
bf_peer_wait_since(const BfPeerWait *wait)
{
    return bf_atomic_load(&wait->since_ns);
}
