/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loops: a thread with one io_uring, a run queue of coroutines, timers and an
 * inbox for other threads.
 *
 * Each turn runs the inbox, then the run queue until it is empty, then submits
 * and, if nothing is runnable, waits for completions, messages or the next
 * timer. bf_loop_post() may be called from any thread; bf_co_call() from any
 * coroutine; everything else from the loop's own thread.
 */
#pragma once

#include "core/clock.h"
#include "core/coroutine.h"
#include "core/thread-pool.h"

/**
 * BfLoop: a thread that runs coroutines
 */
typedef struct BfLoop BfLoop;

/**
 * bf_loop_new_main:
 * @clock: borrowed: lives longer than every loop
 * @error: set on failure: io_uring is missing or forbidden, with the way out
 *
 * Makes the calling thread the main thread of a family of loops.
 *
 * Returns: (transfer full): the loop, or NULL
 */
BfLoop *bf_loop_new_main(BfClock *clock, GError **error);

/**
 * bf_loop_new_worker:
 * @main_loop: the family's main loop, which is the calling thread's
 * @name: thread name, at most 15 bytes are shown
 * @error: set on failure
 *
 * Starts a thread that runs a loop.
 *
 * Returns: (transfer full): the loop, running, or NULL
 */
BfLoop *bf_loop_new_worker(BfLoop *main_loop, const char *name, GError **error);

/**
 * bf_loop_free:
 * @loop: (nullable): on main: a worker, which is told to stop and joined, or
 *     main itself, the last one, not running any more
 *
 * All coroutines of the loop must have ended (asserted), except those that
 * wait for a thread of the pool that never came back.
 */
void bf_loop_free(BfLoop *loop);

/**
 * bf_loop_run:
 * @loop: the main loop
 *
 * Runs turns until bf_loop_stop().
 */
void bf_loop_run(BfLoop *loop);

/**
 * bf_loop_stop:
 * @loop: the main loop; on its thread
 *
 * Makes bf_loop_run() return at the end of this turn.
 */
void bf_loop_stop(BfLoop *loop);

/**
 * bf_loop_self:
 *
 * Returns: (transfer none) (nullable): the calling thread's loop
 */
BfLoop *bf_loop_self(void);

/**
 * bf_loop_get_main:
 * @loop: any loop
 *
 * Returns: (transfer none): the main loop of its family
 */
BfLoop *bf_loop_get_main(BfLoop *loop);

/* Loops have numbers below this one; all that come later have it. */
#define BF_LOOP_NUMBER_SHARED 31

/**
 * bf_loop_number:
 *
 * For statistics that each loop keeps for itself: a small number that no other
 * loop of the family has at the same time, unless it is
 * %BF_LOOP_NUMBER_SHARED.
 *
 * Returns: the number of the calling thread's loop
 */
unsigned bf_loop_number(void);

/**
 * bf_loop_name:
 * @loop: any loop
 *
 * Returns: (transfer none): "main" or the name given
 */
const char *bf_loop_name(const BfLoop *loop);

/**
 * bf_loop_lane:
 * @loop: any loop
 * @kind: which of the family's shared lanes
 *
 * Returns: (transfer none): a lane of the thread pool, for bf_co_offload()
 */
BfPoolLane *bf_loop_lane(BfLoop *loop, BfPoolLaneKind kind);

/**
 * bf_loop_set_poll_max_ns:
 * @loop: any loop; any thread
 * @max_ns: nanoseconds; 0, as at first, for never
 *
 * Allows @loop to look for work for up to @max_ns before it sleeps, when its
 * latest waits were that short: faster for clients that have one request in
 * flight, at some processor time. That long only while one peer that has all of
 * its answers may ask for more, and for a third of it otherwise. Without effect
 * where there is only one processor, or with a fake clock.
 */
void bf_loop_set_poll_max_ns(BfLoop *loop, uint64_t max_ns);

/**
 * bf_loop_now_ns:
 *
 * Returns: the time of the current loop's clock, nanoseconds, not cached
 */
uint64_t bf_loop_now_ns(void);

/**
 * bf_loop_tidy:
 *
 * Gives back what the current loop has kept for coroutines to come and did not
 * need for a second or more. A loop without anything to do does that, and more,
 * by itself; this is for one that is never without. To call it often is cheap.
 */
void bf_loop_tidy(void);

/**
 * bf_loop_sleeps:
 *
 * Returns: how often the current loop has had nothing to do and gone to sleep
 */
uint64_t bf_loop_sleeps(void);

/**
 * bf_loop_post:
 * @loop: any loop
 * @fn: runs on @loop's thread, not in a coroutine; it may bf_co_spawn()
 * @arg: handed over with what it points to
 *
 * Tells @loop to run @fn soon. Messages of one sender arrive in order.
 */
void bf_loop_post(BfLoop *loop, BfFn *fn, void *arg);

/**
 * bf_co_next_turn:
 *
 * Lets the loop look after everything else first, I/O that has completed by
 * then included.
 */
void bf_co_next_turn(void);

/**
 * bf_co_call:
 * @loop: any loop, the current one too
 * @fn: the body
 * @arg: passed to @fn; may be on the caller's stack
 *
 * Runs @fn(@arg) as a coroutine on @loop and suspends the calling coroutine
 * until it has returned. Allocates nothing but the coroutine.
 */
void bf_co_call(BfLoop *loop, BfFn *fn, void *arg);

/**
 * bf_co_offload:
 * @lane: limits how many threads work for the same thing
 * @fn: runs on a thread of the pool; it may block, and must not use any loop
 *     function but bf_loop_post()
 * @arg: passed to @fn; may be on the caller's stack
 *
 * Suspends the calling coroutine until @fn has returned.
 */
void bf_co_offload(BfPoolLane *lane, BfFn *fn, void *arg);

/**
 * bf_co_offload_for:
 * @lane: as for bf_co_offload()
 * @flow: whom the work is for: flows take turns at the threads of a lane
 * @fn: as for bf_co_offload()
 * @arg: alike
 *
 * Does what bf_co_offload() does, for work that others can cause a lot of.
 */
void bf_co_offload_for(BfPoolLane *lane, uint64_t flow, BfFn *fn, void *arg);

/* bf_assert_loop: the caller runs on @l's thread */
#define bf_assert_loop(l) g_assert(bf_loop_self() == (l))

/* bf_assert_main: the caller runs on the main thread */
#define bf_assert_main()                                                       \
    g_assert(bf_loop_self() != NULL &&                                         \
             bf_loop_self() == bf_loop_get_main(bf_loop_self()))

/**
 * BfTimer: calls a function once at a time; embedded in its owner
 *
 * The fields are private to the loop. All zero is a timer that is not running.
 */
typedef struct BfTimer {
    uint64_t deadline_ns;
    uint64_t seq; /* orders timers of one deadline */
    BfFn *fn;
    void *arg;
    unsigned heap_index; /* 1-based place in the loop's heap; 0: not running */
} BfTimer;

/**
 * bf_timer_start:
 * @timer: not running
 * @delay_ns: nanoseconds from now, at most 2^62
 * @fn: runs on this loop, not in a coroutine
 * @arg: passed to @fn
 *
 * Starts @timer on the current loop.
 */
void bf_timer_start(BfTimer *timer, uint64_t delay_ns, BfFn *fn, void *arg);

/**
 * bf_timer_stop:
 * @timer: running or not; on the loop that started it
 *
 * Afterwards @fn does not run any more.
 */
void bf_timer_stop(BfTimer *timer);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfLoop, bf_loop_free)
