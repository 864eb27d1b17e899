/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the requests of a connection have come to.
 *
 * The connection's loop is the only one that counts, so counting takes neither
 * a lock nor a locked instruction; main reads at any time and waits for nobody.
 * That is why it reads numbers that need not fit together exactly.
 */
#pragma once

#include "core/atomic.h"
#include "core/histogram.h"
#include "nbd-private.h"

/* Kinds are commands; DISC, which has no reply, stands for those that there are
 * not. */
#define NBD_STATS_KINDS (BF_NBD_COMMAND_BLOCK_STATUS + 1)
#define NBD_STATS_INVALID BF_NBD_COMMAND_DISC

/* Requests of one kind that were answered. */
typedef struct BfNbdKindStats {
    BfAtomicU64 requests;
    BfAtomicU64 failed; /* of them */
    BfAtomicU64 bytes;  /* of those that succeeded */
    BfAtomicU64 time_ns;
    BfHistogram latency;
} BfNbdKindStats;

struct BfNbdStats {
    BfAtomicPtr kinds[NBD_STATS_KINDS]; /* BfNbdKindStats, once there are any:
                                           most clients use few kinds */
    BfAtomicU64 in_flight;              /* as of the client */
    BfAtomicU64 arrived_ns;             /* as of the client */
};

/* Something has come from the peer. On the client's loop. */
static inline void
bf_nbd_stats_arrived(BfNbdClient *client)
{
    client->arrived_ns = bf_loop_now_ns();
    bf_atomic_store(&client->stats->arrived_ns, client->arrived_ns);
}

/* A request has been answered: @result is 0 or -errno. On the client's loop. */
void bf_nbd_stats_done(const BfNbdTask *task, int result);

/* Begins to count for a client that has an export. On main. */
void bf_nbd_stats_begin(BfNbdClient *client);

/* Adds what a client has counted to the past of its export. On main, when no
 * loop has the client any more. */
void bf_nbd_stats_retire(BfNbdClient *client);

/* Accepts NULL. */
void bf_nbd_stats_free(BfNbdStats *stats);

/* Requests of all kinds, and those that failed. Any thread. */
uint64_t bf_nbd_stats_requests(const BfNbdStats *stats);
uint64_t bf_nbd_stats_failed(const BfNbdStats *stats);

/* What queries tell. Any thread; on main. */
BfNbdRequests *bf_nbd_stats_query(const BfNbdStats *stats);
BfNbdRequests *bf_nbd_stats_query_export(const BfNbdExport *exp,
                                         uint64_t *ret_failed);
