/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clocks: the time without a clock, and how a loop hears that a fake one was
 * moved.
 */
#pragma once

#include "core/clock.h"

/**
 * BfClockWatch: someone to tell when a fake clock moves
 * @fn: called with the clock's lock held, on the thread that moves the clock;
 *     must be quick and must not call the clock
 * @arg: passed to @fn
 *
 * Embedded in its owner.
 */
typedef struct BfClockWatch {
    void (*fn)(void *arg);
    void *arg;
    struct BfClockWatch *next;
} BfClockWatch;

/**
 * bf_clock_system_ns:
 *
 * Returns: what a system clock says
 */
uint64_t bf_clock_system_ns(void);

/**
 * bf_clock_watch:
 * @clock: a clock
 * @watch: with @fn and @arg set; stays until bf_clock_unwatch()
 */
void bf_clock_watch(BfClock *clock, BfClockWatch *watch);

/**
 * bf_clock_unwatch:
 * @clock: a clock
 * @watch: was given to bf_clock_watch(); its @fn does not run any more
 */
void bf_clock_unwatch(BfClock *clock, BfClockWatch *watch);
