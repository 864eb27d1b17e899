/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the loop needs of the coroutines of its thread: to run those that are
 * ready, and to end. All for the calling thread; called by the loop itself,
 * never from a coroutine.
 */
#pragma once

#include <stdbool.h>

/**
 * bf_sched_has_ready:
 *
 * Returns: true if the run queue is not empty
 */
bool bf_sched_has_ready(void);

/**
 * bf_sched_run:
 * @max: how many coroutines to resume at most
 *
 * Resumes coroutines from the run queue, in order, until it is empty or @max
 * were resumed.
 *
 * Returns: how many were resumed
 */
unsigned bf_sched_run(unsigned max);

/**
 * bf_sched_count:
 *
 * Returns: coroutines of this thread that have not ended
 */
unsigned bf_sched_count(void);

/**
 * bf_sched_idle_count:
 *
 * Returns: stacks of this thread that nobody uses
 */
unsigned bf_sched_idle_count(void);

/**
 * bf_sched_trim_spare:
 *
 * Gives back those that nobody has used since it was called before.
 */
void bf_sched_trim_spare(void);

/**
 * bf_sched_trim:
 *
 * Gives the idle stacks of this thread back to the system.
 */
void bf_sched_trim(void);
