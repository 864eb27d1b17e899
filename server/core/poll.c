/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When a loop looks for work before it sleeps: see poll-private.h.
 */
#include "poll-private.h"

#include <glib.h>

#include "clock-private.h"
#include "core/util.h"

#define NEEDED_MIN 4
#define NEEDED_MAX 4096
/* Going to sleep and waking up are part of a sleep, but not of a look. */
#define SLEEP_FACTOR 2
/* In vain costs as much as four successes gain: this holds on looking where
 * two of three succeed. */
#define IN_VAIN_FACTOR 4

/* The clock and receives are dearer than a look. */
#define LOOKS_PER_TIME 16
#define LOOKS_PER_RECV 4

uint64_t
bf_poll_time_ns(const BfPollRule *rule)
{
    uint64_t max_ns = __atomic_load_n(&rule->max_ns, __ATOMIC_RELAXED);

    return rule->short_sleeps >= MAX(rule->needed, NEEDED_MIN) ? max_ns : 0;
}

void
bf_poll_looked(BfPollRule *rule, bool found)
{
    if (found) {
        rule->needed = MAX(rule->needed / 2, NEEDED_MIN);
        return;
    }
    rule->needed =
        MIN(MAX(rule->needed, NEEDED_MIN) * IN_VAIN_FACTOR, NEEDED_MAX);
    rule->short_sleeps = 0;
}

void
bf_poll_slept(BfPollRule *rule, uint64_t ns)
{
    uint64_t max_ns = __atomic_load_n(&rule->max_ns, __ATOMIC_RELAXED);

    if (ns / SLEEP_FACTOR > max_ns) {
        rule->short_sleeps = 0;
    } else if (rule->short_sleeps < NEEDED_MAX) {
        rule->short_sleeps++;
    }
}

/* Leaves the processor to the core's other thread for a moment. */
static void
relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static bool
look(const BfRing *ring, BfTryRecvs *recvs, void *const *inbox)
{
    unsigned looks = recvs->count > 0 ? LOOKS_PER_RECV : LOOKS_PER_TIME;

    if (bf_try_recvs_look(recvs)) {
        return true;
    }
    for (unsigned i = 0; i < looks; i++) {
        if (bf_ring_has_work(ring) ||
            __atomic_load_n(inbox, __ATOMIC_RELAXED) != NULL) {
            return true;
        }
        relax();
    }
    return false;
}

bool
bf_poll_look(BfPollRule *rule, BfRing *ring, BfTryRecvs *recvs,
             void *const *inbox, uint64_t time_ns)
{
    uint64_t end_ns = bf_clock_system_ns() + time_ns;
    bool found;

    bf_ring_submit(ring);
    do {
        found = look(ring, recvs, inbox);
    } while (!found && bf_clock_system_ns() < end_ns);
    bf_poll_looked(rule, found);
    return found;
}
