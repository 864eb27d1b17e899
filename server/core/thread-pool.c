/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The thread pool. A lane is a queue with a lock and up to its limit of
 * threads; the last thread that ends after bf_pool_lane_free() frees it. The
 * queue is one of flows, each with its own work behind its first: a flow whose
 * first is taken goes to the end of the queue.
 * Plain pthread locks, because ThreadSanitizer cannot see into GLib's.
 */
#include "core/thread-pool.h"

#include <errno.h>
#include <signal.h>
#include <time.h>

#include "core/iovec.h"
#include "thread-pool-private.h"

/* A thread without work ends after this long. */
#define IDLE_SECONDS 10

struct BfPoolLane {
    char *name;
    unsigned max_threads;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wake;
    BfPoolWork *head; /* first work of the flow whose turn it is */
    BfPoolWork *tail; /* first work of the last flow */
    unsigned queued;
    unsigned threads;
    unsigned idle; /* of them, waiting for work */
    bool closing;
};

typedef struct OwnedWork {
    BfPoolWork work;
    void (*fn)(void *arg);
    void *arg;
} OwnedWork;

int
bf_thread_start(const char *name, void *(*fn)(void *arg), void *arg,
                pthread_t *ret_thread)
{
    sigset_t block;
    sigset_t old;
    char cut[16];
    int err;

    sigfillset(&block);
    sigdelset(&block, SIGSEGV);
    sigdelset(&block, SIGBUS);
    sigdelset(&block, SIGFPE);
    sigdelset(&block, SIGILL);
    sigdelset(&block, SIGTRAP);
    sigdelset(&block, SIGABRT);
    sigdelset(&block, SIGSYS);
    pthread_sigmask(SIG_SETMASK, &block, &old);
    err = pthread_create(ret_thread, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (err == 0) {
        g_strlcpy(cut, name, sizeof(cut));
        pthread_setname_np(*ret_thread, cut);
    }
    return err;
}

BfPoolLane *
bf_pool_lane_new(const char *name, unsigned max_threads)
{
    BfPoolLane *lane = g_new0(BfPoolLane, 1);
    pthread_condattr_t attr;

    g_assert(max_threads >= 1 && max_threads <= 1024);
    lane->name = g_strdup(name);
    lane->max_threads = max_threads;
    pthread_mutex_init(&lane->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&lane->wake, &attr);
    pthread_condattr_destroy(&attr);
    return lane;
}

static void
lane_destroy(BfPoolLane *lane)
{
    pthread_cond_destroy(&lane->wake);
    pthread_mutex_destroy(&lane->lock);
    g_free(lane->name);
    g_free(lane);
}

void
bf_pool_lane_free(BfPoolLane *lane)
{
    bool last;

    if (lane == NULL) {
        return;
    }
    pthread_mutex_lock(&lane->lock);
    g_assert(!lane->closing);
    lane->closing = true;
    last = lane->threads == 0;
    pthread_cond_broadcast(&lane->wake);
    pthread_mutex_unlock(&lane->lock);
    if (last) {
        lane_destroy(lane);
    }
}

/* @first: first work of a flow that is not in the queue */
static void
append_flow(BfPoolLane *lane, BfPoolWork *first)
{
    first->flow_up = NULL;
    *(lane->head == NULL ? &lane->head : &lane->tail->flow_up) = first;
    lane->tail = first;
}

static void
append(BfPoolLane *lane, BfPoolWork *work)
{
    BfPoolWork *first = lane->head;

    while (first != NULL && first->flow != work->flow) {
        first = first->flow_up;
    }
    work->next = NULL;
    if (first != NULL) {
        first->last->next = work;
        first->last = work;
    } else {
        work->last = work;
        append_flow(lane, work);
    }
    lane->queued++;
}

static BfPoolWork *
pop(BfPoolLane *lane)
{
    BfPoolWork *work = lane->head;

    if (work == NULL) {
        return NULL;
    }
    lane->head = work->flow_up;
    lane->queued--;
    if (work->next != NULL) {
        work->next->last = work->last;
        append_flow(lane, work->next);
    }
    return work;
}

/* Waits for work; the lock is held. Returns NULL when the thread is to end. */
static BfPoolWork *
wait_for_work(BfPoolLane *lane)
{
    struct timespec until;
    int err = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += IDLE_SECONDS;
    lane->idle++;
    while (lane->head == NULL && !lane->closing && err != ETIMEDOUT) {
        err = pthread_cond_timedwait(&lane->wake, &lane->lock, &until);
    }
    lane->idle--;
    return pop(lane);
}

static void *
lane_thread(void *arg)
{
    BfPoolLane *lane = arg;
    BfPoolWork *work;
    bool last;

    pthread_mutex_lock(&lane->lock);
    while ((work = wait_for_work(lane)) != NULL) {
        pthread_mutex_unlock(&lane->lock);
        work->fn(work->arg);
        pthread_mutex_lock(&lane->lock);
    }
    lane->threads--;
    last = lane->closing && lane->threads == 0;
    pthread_mutex_unlock(&lane->lock);
    if (last) {
        lane_destroy(lane);
    }
    bf_buffer_trim();
    return NULL;
}

/* Starts one more thread if it can be had; the lock is held. */
static void
start_thread(BfPoolLane *lane)
{
    pthread_t thread;

    if (bf_thread_start(lane->name, lane_thread, lane, &thread) == 0) {
        pthread_detach(thread);
        lane->threads++;
    }
}

bool
bf_pool_lane_push_work(BfPoolLane *lane, BfPoolWork *work)
{
    bool taken;
    bool wake;

    pthread_mutex_lock(&lane->lock);
    g_assert(!lane->closing);
    if (lane->queued >= lane->idle && lane->threads < lane->max_threads) {
        start_thread(lane);
    }
    /* Those that are there do it, perhaps later; without any, nobody does. */
    taken = lane->threads > 0;
    if (taken) {
        append(lane, work);
    }
    wake = lane->idle > 0;
    pthread_mutex_unlock(&lane->lock);
    if (wake) {
        pthread_cond_signal(&lane->wake);
    }
    return taken;
}

static void
run_owned(void *arg)
{
    OwnedWork *owned = arg;

    owned->fn(owned->arg);
    g_free(owned);
}

bool
bf_pool_lane_push(BfPoolLane *lane, void (*fn)(void *arg), void *arg)
{
    OwnedWork *owned = g_new0(OwnedWork, 1);
    bool taken;

    owned->fn = fn;
    owned->arg = arg;
    owned->work.fn = run_owned;
    owned->work.arg = owned;
    taken = bf_pool_lane_push_work(lane, &owned->work);
    if (!taken) {
        g_free(owned);
    }
    return taken;
}

unsigned
bf_pool_lane_queued(BfPoolLane *lane)
{
    unsigned queued;

    pthread_mutex_lock(&lane->lock);
    queued = lane->queued;
    pthread_mutex_unlock(&lane->lock);
    return queued;
}
