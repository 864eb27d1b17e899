/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When a loop looks for work for some microseconds before it sleeps.
 *
 * To sleep and be woken costs more than the whole rest of a small request, and
 * somebody who has one request in flight at a time pays it for each. But time
 * spent on looking in vain is taken from others, so a loop looks only after
 * several short sleeps in a row, and each time in vain makes it ask for more of
 * them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/ring.h"
#include "try-recv-private.h"

/**
 * BfPollRule: what one loop has seen of its waits
 * @max_ns: longest look, nanoseconds; 0 for none. Any thread may set it
 *     (atomic)
 * @short_sleeps: short sleeps and looks with success since the last long one
 * @needed: how many of these it takes to look
 *
 * All zeroes is a rule that never looks. But for @max_ns it belongs to the
 * loop's thread.
 */
typedef struct BfPollRule {
    uint64_t max_ns;
    unsigned short_sleeps;
    unsigned needed;
} BfPollRule;

/**
 * bf_poll_time_ns:
 * @rule: a rule
 *
 * Returns: how long to look now, nanoseconds; 0 to sleep at once
 */
uint64_t bf_poll_time_ns(const BfPollRule *rule);

/**
 * bf_poll_look:
 * @rule: a rule
 * @ring: the loop's; what was prepared is submitted
 * @recvs: the loop's: receives that are tried, too
 * @inbox: a word that is not NULL when others have sent something (atomic)
 * @time_ns: for how long to look, nanoseconds
 *
 * Looks for work without sleep, and remembers whether it was there.
 *
 * Returns: whether there is some
 */
bool bf_poll_look(BfPollRule *rule, BfRing *ring, BfTryRecvs *recvs,
                  void *const *inbox, uint64_t time_ns);

/**
 * bf_poll_looked:
 * @rule: a rule
 * @found: whether there was work within the time
 *
 * Part of bf_poll_look().
 */
void bf_poll_looked(BfPollRule *rule, bool found);

/**
 * bf_poll_slept:
 * @rule: a rule
 * @ns: how long the loop slept without having looked, nanoseconds
 */
void bf_poll_slept(BfPollRule *rule, uint64_t ns);
