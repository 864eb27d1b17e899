/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Coroutines: functions on their own stack that can suspend.
 *
 * A coroutine belongs to the loop whose thread created it and never changes
 * it. All functions here are for that thread; none but bf_co_suspend()
 * suspends. Stacks have a guard page below, are recycled per loop, and a
 * switch makes no system call. ASan and TSan are told about each switch.
 */
#pragma once

#include <stdbool.h>

/**
 * BfCo: a coroutine that has not ended
 */
typedef struct BfCo BfCo;

/**
 * BfFn: a function and, when it runs as a coroutine, its body
 * @arg: what the caller gave with the function
 */
typedef void BfFn(void *arg);

/**
 * bf_co_spawn:
 * @fn: the body
 * @arg: (nullable): passed to @fn
 *
 * Starts a coroutine on the current loop and runs it at once, until it first
 * suspends or ends; then returns. May be called from a coroutine or from the
 * loop itself. The coroutine is freed when @fn returns.
 */
void bf_co_spawn(BfFn *fn, void *arg);

/**
 * bf_co_spawn_later:
 * @fn: the body
 * @arg: (nullable): passed to @fn
 *
 * Like bf_co_spawn(), but the coroutine is put at the end of the run queue.
 */
void bf_co_spawn_later(BfFn *fn, void *arg);

/**
 * bf_co_self:
 *
 * Returns: (transfer none) (nullable): the running coroutine; NULL when the
 * loop itself runs
 */
BfCo *bf_co_self(void);

/**
 * bf_co_suspend:
 *
 * Suspends the running coroutine until bf_co_wake(). The caller must have
 * stored bf_co_self() where the waker finds it, and must check its condition
 * again afterwards only if it allows several wakers.
 */
void bf_co_suspend(void);

/**
 * bf_co_wake:
 * @co: a suspended coroutine of the current loop
 *
 * Puts @co at the end of the run queue. Waking a coroutine that was woken
 * already and has not run yet is a bug (asserted).
 */
void bf_co_wake(BfCo *co);

/**
 * bf_co_yield:
 *
 * Lets all other runnable coroutines of the loop run first.
 */
void bf_co_yield(void);
