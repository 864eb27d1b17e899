/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Work without an allocation of its own, and threads that take no signals.
 */
#pragma once

#include <pthread.h>
#include <stdint.h>

#include "core/thread-pool.h"

/**
 * BfPoolWork: one call to make; embedded in its owner until @fn runs
 */
typedef struct BfPoolWork {
    uint64_t flow;              /* whose it is, 0 for nobody in particular */
    struct BfPoolWork *next;    /* of the same flow */
    struct BfPoolWork *last;    /* of the same flow; valid in its first */
    struct BfPoolWork *flow_up; /* first of the next flow; valid alike */
    void (*fn)(void *arg);
    void *arg;
} BfPoolWork;

/**
 * bf_pool_lane_push_work:
 * @lane: a lane
 * @work: with @flow, @fn and @arg set; not touched any more once @fn was called
 *
 * Never waits.
 *
 * Returns: false if the lane has no thread and none can be had at present: the
 * call will not be made
 */
bool bf_pool_lane_push_work(BfPoolLane *lane, BfPoolWork *work);

/**
 * bf_thread_start:
 * @name: thread name, cut to 15 bytes
 * @fn: the thread's body
 * @arg: passed to @fn
 * @ret_thread: (out): the thread
 *
 * Starts a thread with all signals blocked but those that tell of a fault in
 * it, so that the main thread alone deals with signals.
 *
 * Returns: 0 or a positive errno
 */
int bf_thread_start(const char *name, void *(*fn)(void *arg), void *arg,
                    pthread_t *ret_thread);
