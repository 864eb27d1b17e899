/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks for coroutines of one loop. They order coroutines, not threads: an
 * object here is used on one loop only. Only the _co_ functions suspend.
 * All are embedded in their owner; all zero is the initial state.
 */
#pragma once

#include "core/coroutine.h"

/**
 * BfCoQueue: coroutines that wait for something, first come first served
 *
 * Fields are private.
 */
typedef struct BfCoQueue {
    struct BfCoWaiter *head;
    struct BfCoWaiter **tail; /* NULL while the queue has never been used */
} BfCoQueue;

/**
 * bf_co_queue_co_wait:
 * @queue: where to wait
 *
 * Suspends until woken. The caller checks its condition again.
 */
void bf_co_queue_co_wait(BfCoQueue *queue);

/**
 * bf_co_queue_wake_one:
 * @queue: a queue
 *
 * Returns: false if nobody waited
 */
bool bf_co_queue_wake_one(BfCoQueue *queue);

/**
 * bf_co_queue_wake_all:
 * @queue: a queue
 */
void bf_co_queue_wake_all(BfCoQueue *queue);

/**
 * bf_co_queue_is_empty:
 * @queue: a queue
 *
 * Returns: true if nobody waits
 */
bool bf_co_queue_is_empty(const BfCoQueue *queue);

/**
 * BfCoMutex: mutual exclusion between coroutines, fair
 */
typedef struct BfCoMutex {
    bool locked;
    BfCoQueue waiters;
} BfCoMutex;

/**
 * bf_co_mutex_co_lock:
 * @mutex: not held by the caller
 */
void bf_co_mutex_co_lock(BfCoMutex *mutex);

/**
 * bf_co_mutex_unlock:
 * @mutex: held by the caller
 */
void bf_co_mutex_unlock(BfCoMutex *mutex);

/**
 * BfWaitGroup: counts things under way and lets coroutines wait for none
 */
typedef struct BfWaitGroup {
    unsigned count;
    BfCoQueue waiters;
} BfWaitGroup;

/**
 * bf_wait_group_add:
 * @group: a group
 * @n: how many more things are under way
 */
void bf_wait_group_add(BfWaitGroup *group, unsigned n);

/**
 * bf_wait_group_done:
 * @group: with a count above 0
 *
 * One thing less; wakes the waiters when none is left.
 */
void bf_wait_group_done(BfWaitGroup *group);

/**
 * bf_wait_group_co_wait:
 * @group: a group
 *
 * Suspends until the count is 0.
 */
void bf_wait_group_co_wait(BfWaitGroup *group);
