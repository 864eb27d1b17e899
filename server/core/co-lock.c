/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks for coroutines of one loop. A waiter lives on the stack of the
 * coroutine that waits; a lock is handed to the first waiter, not set free, so
 * that late comers cannot overtake.
 */
#include "core/co-lock.h"

#include <glib.h>

typedef struct BfCoWaiter {
    struct BfCoWaiter *next;
    BfCo *co;
} BfCoWaiter;

void
bf_co_queue_co_wait(BfCoQueue *queue)
{
    BfCoWaiter waiter = {.co = bf_co_self()};

    g_assert(waiter.co != NULL);
    if (queue->head == NULL) {
        queue->tail = &queue->head;
    }
    *queue->tail = &waiter;
    queue->tail = &waiter.next;
    bf_co_suspend();
}

bool
bf_co_queue_wake_one(BfCoQueue *queue)
{
    BfCoWaiter *waiter = queue->head;

    if (waiter == NULL) {
        return false;
    }
    queue->head = waiter->next;
    bf_co_wake(waiter->co);
    return true;
}

void
bf_co_queue_wake_all(BfCoQueue *queue)
{
    while (bf_co_queue_wake_one(queue)) {
        /* nothing else to do for each */
    }
}

bool
bf_co_queue_is_empty(const BfCoQueue *queue)
{
    return queue->head == NULL;
}

void
bf_co_mutex_co_lock(BfCoMutex *mutex)
{
    if (!mutex->locked) {
        mutex->locked = true;
        return;
    }
    bf_co_queue_co_wait(&mutex->waiters);
    /* The one who unlocked left it locked, for us. */
    g_assert(mutex->locked);
}

void
bf_co_mutex_unlock(BfCoMutex *mutex)
{
    g_assert(mutex->locked);
    if (!bf_co_queue_wake_one(&mutex->waiters)) {
        mutex->locked = false;
    }
}

void
bf_wait_group_add(BfWaitGroup *group, unsigned n)
{
    g_assert(group->count <= G_MAXUINT - n);
    group->count += n;
}

void
bf_wait_group_done(BfWaitGroup *group)
{
    g_assert(group->count > 0);
    if (--group->count == 0) {
        bf_co_queue_wake_all(&group->waiters);
    }
}

void
bf_wait_group_co_wait(BfWaitGroup *group)
{
    while (group->count > 0) {
        bf_co_queue_co_wait(&group->waiters);
    }
}
