/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The running timers of a loop as a binary heap, the next to run first. Each
 * timer knows its place, so that it can be taken out without a search.
 */
#pragma once

#include "core/loop.h"

/**
 * bf_timer_heap_first:
 * @heap: of BfTimer, borrowed
 *
 * Returns: (transfer none) (nullable): the timer with the earliest deadline, of
 *     several the one with the lowest number
 */
BfTimer *bf_timer_heap_first(const GPtrArray *heap);

/**
 * bf_timer_heap_add:
 * @heap: of BfTimer
 * @timer: not in a heap; its deadline and number stay while it is in one
 */
void bf_timer_heap_add(GPtrArray *heap, BfTimer *timer);

/**
 * bf_timer_heap_remove:
 * @heap: of BfTimer
 * @timer: in @heap (asserted)
 */
void bf_timer_heap_remove(GPtrArray *heap, BfTimer *timer);
