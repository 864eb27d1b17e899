/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The thread pool: runs calls that block or take long off the loops.
 *
 * Work is queued on lanes. A lane has a limit of threads, so that one stuck
 * storage or name server cannot take the threads of others. Work may belong to
 * a flow, a number that stands for whoever caused it: flows take turns, so that
 * who brings much work does not keep others waiting for more than a turn.
 * Threads start on demand and end when idle. Coroutines use a lane by
 * bf_co_offload() (core/loop.h). Any thread; none suspends.
 */
#pragma once

#include <stdbool.h>

#include <glib.h>

/**
 * BfPoolLane: a queue of work and the threads that do it
 */
typedef struct BfPoolLane BfPoolLane;

/**
 * BfPoolLaneKind: the lanes that every family of loops has
 * @BF_POOL_LANE_CLOSE: closing of descriptors that belong to no node
 * @BF_POOL_LANE_HANDSHAKE: TLS handshake steps; as many threads as processors
 * @BF_POOL_LANE_NAMES: name lookup
 */
typedef enum BfPoolLaneKind {
    BF_POOL_LANE_CLOSE,
    BF_POOL_LANE_HANDSHAKE,
    BF_POOL_LANE_NAMES,
    BF_POOL_LANE_COUNT,
} BfPoolLaneKind;

/**
 * bf_pool_lane_new:
 * @name: thread name, at most 15 bytes are shown
 * @max_threads: 1..1024
 *
 * Returns: (transfer full): a lane without threads
 */
BfPoolLane *bf_pool_lane_new(const char *name, unsigned max_threads);

/**
 * bf_pool_lane_free:
 * @lane: (nullable): no more work is given to it
 *
 * Returns at once. Queued and running work still ends; the last thread frees
 * the lane.
 */
void bf_pool_lane_free(BfPoolLane *lane);

/**
 * bf_pool_lane_push:
 * @lane: a lane
 * @fn: runs on a thread of the lane
 * @arg: passed to @fn
 *
 * Queues work. bf_co_offload() is the usual way in.
 *
 * Returns: false if the lane has no thread and the system gives it none: @fn
 * will not be called
 */
bool bf_pool_lane_push(BfPoolLane *lane, void (*fn)(void *arg), void *arg);

/**
 * bf_pool_lane_queued:
 * @lane: a lane
 *
 * Returns: how much work waits for a thread
 */
unsigned bf_pool_lane_queued(BfPoolLane *lane);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfPoolLane, bf_pool_lane_free)
