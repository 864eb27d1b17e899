/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clocks: where loops take the time from. The system clock in the daemon, a
 * hand-driven one in tests, so that no test sleeps. Any thread; none suspends.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

/**
 * BfClock: where loops take the time from
 */
typedef struct BfClock BfClock;

/**
 * bf_clock_new_system:
 *
 * Returns: (transfer full): a clock on CLOCK_MONOTONIC
 */
BfClock *bf_clock_new_system(void);

/**
 * bf_clock_new_fake:
 *
 * Returns: (transfer full): a clock that starts at 1 s and stands still until
 * bf_clock_advance()
 */
BfClock *bf_clock_new_fake(void);

/**
 * bf_clock_free:
 * @clock: (nullable): no loop uses it any more
 */
void bf_clock_free(BfClock *clock);

/**
 * bf_clock_now_ns:
 * @clock: a clock
 *
 * Returns: nanoseconds since an arbitrary start; never goes back
 */
uint64_t bf_clock_now_ns(const BfClock *clock);

/**
 * bf_clock_wall_ns:
 *
 * For statistics: costs next to nothing.
 *
 * Returns: nanoseconds since the epoch, up to some milliseconds old; may go
 * back
 */
uint64_t bf_clock_wall_ns(void);

/**
 * bf_clock_measure_wake_ns:
 *
 * Takes a part of a millisecond, in which the caller sleeps.
 *
 * Returns: nanoseconds that a processor with nothing to do takes to go on when
 * there is something; in a virtual machine often many times what it is without
 */
uint64_t bf_clock_measure_wake_ns(void);

/**
 * bf_clock_advance:
 * @clock: a fake clock
 * @ns: nanoseconds to add
 *
 * Moves the time and makes every loop on this clock look at its timers.
 */
void bf_clock_advance(BfClock *clock, uint64_t ns);

/**
 * bf_clock_is_fake:
 * @clock: a clock
 *
 * Returns: true if only bf_clock_advance() moves it
 */
bool bf_clock_is_fake(const BfClock *clock);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfClock, bf_clock_free)
