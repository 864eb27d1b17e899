/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a node's requests have come to: counted by the request layer, read by
 * queries.
 *
 * Each loop counts in a slot of its own, in cache lines that no other loop
 * writes, so that counting costs additions and nobody waits; main adds the
 * slots up when it is asked.
 */
#pragma once

#include "block/driver.h"
#include "core/atomic.h"
#include "core/loop.h"

/* Writes of zeroes are writes. Discards that the node's settings tell it to
 * drop are for its users like others. */
typedef enum BfStatsKind {
    BF_STATS_READ,
    BF_STATS_WRITE,
    BF_STATS_UNMAP,
    BF_STATS_UNMAP_DROPPED,
    BF_STATS_FLUSH,
} BfStatsKind;

#define BF_STATS_KINDS 5

/* Requests of one kind: what has succeeded, but for the last two. */
typedef struct BfStatsSums {
    BfAtomicU64 ops;
    BfAtomicU64 bytes;
    BfAtomicU64 time_ns; /* from begin to end, all added up */
    BfAtomicU64 failed;
    BfAtomicU64 invalid; /* refused before anything was done */
} BfStatsSums;

/* One loop's. */
typedef struct BfStatsSlot {
    BfStatsSums sums[BF_STATS_KINDS];
    BfAtomicU64 highest; /* end of the write that went furthest, bytes */
    BfAtomicU64 last_ns; /* when a request has last succeeded; 0: never */
} BfStatsSlot;

struct BfNodeStats {
    BfAtomicPtr slots[BF_LOOP_NUMBER_SHARED + 1]; /* owned; by loop number */
};

/* A request that was let through has ended. @ret -ENOTSUP is none at all, as
 * the caller does it in another way. */
void bf_stats_done(BfNode *node, BfStatsKind kind, uint64_t offset,
                   uint64_t bytes, uint64_t begun_ns, int ret);

/* A write has ended at @end, and is beyond the node's threshold. */
void bf_node_pass_write_threshold(BfNode *node, uint64_t end);

/* A request was refused. Returns @ret. */
int bf_stats_refused(BfNode *node, BfStatsKind kind, int ret);

BfNodeStats *bf_stats_new(void);
void bf_stats_free(BfNodeStats *stats);
