/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How many operations a copy has under way at once.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/**
 * BfCopyTune: what was seen of a copy's operations
 * @depth: how many there may be at once
 * @was_full: set by the owner: there were as many, and more to do
 * @is_starting: nothing had to wait in queues yet
 * @start_left: operations that are still to end and may each make room for one
 * @since_ns: when this window of measurement began
 * @ended: operations that have ended in it
 * @took_ns: what these took together
 * @quickest_ns: what the quickest took, lately
 * @probed_ns: when that was found out
 * @probe_left: operations that are still to end until it is found out again
 * @probe_before: @depth before that
 */
typedef struct BfCopyTune {
    unsigned depth;
    bool was_full;
    bool is_starting;
    unsigned start_left;
    uint64_t since_ns;
    unsigned ended;
    uint64_t took_ns;
    uint64_t quickest_ns;
    uint64_t probed_ns;
    unsigned probe_left;
    unsigned probe_before;
} BfCopyTune;

/**
 * bf_copy_tune_init:
 * @tune: (out): to be set up
 */
void bf_copy_tune_init(BfCopyTune *tune);

/**
 * bf_copy_tune_ended:
 * @tune: of the copy
 * @took_ns: how long an operation took, nanoseconds
 * @now_ns: when it ended
 */
void bf_copy_tune_ended(BfCopyTune *tune, uint64_t took_ns, uint64_t now_ns);
