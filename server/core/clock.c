/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Clocks. A fake clock is moved by tests on any thread, while loops read it on
 * theirs: the time is atomic, the list of watchers has a lock.
 */
#include "core/clock.h"

#include <pthread.h>
#include <sys/prctl.h>
#include <time.h>

#include "clock-private.h"
#include "core/util.h"

#define FAKE_START_NS BF_NS_PER_SEC

/* Short sleeps, of which the one that is over soonest tells the most: others
 * may have been at work after the rest. */
#define NAPS 8
#define NAP_NS 20000

struct BfClock {
    bool fake;
    uint64_t fake_now_ns; /* atomic */
    pthread_mutex_t lock; /* guards watches */
    BfClockWatch *watches;
};

static BfClock *
clock_new(bool fake)
{
    BfClock *clock = g_new0(BfClock, 1);

    clock->fake = fake;
    clock->fake_now_ns = FAKE_START_NS;
    pthread_mutex_init(&clock->lock, NULL);
    return clock;
}

BfClock *
bf_clock_new_system(void)
{
    return clock_new(false);
}

BfClock *
bf_clock_new_fake(void)
{
    return clock_new(true);
}

void
bf_clock_free(BfClock *clock)
{
    if (clock == NULL) {
        return;
    }
    g_assert(clock->watches == NULL);
    pthread_mutex_destroy(&clock->lock);
    g_free(clock);
}

uint64_t
bf_clock_system_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * BF_NS_PER_SEC + (uint64_t)now.tv_nsec;
}

uint64_t
bf_clock_now_ns(const BfClock *clock)
{
    return clock->fake ? __atomic_load_n(&clock->fake_now_ns, __ATOMIC_SEQ_CST)
                       : bf_clock_system_ns();
}

uint64_t
bf_clock_wall_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    return (uint64_t)now.tv_sec * BF_NS_PER_SEC + (uint64_t)now.tv_nsec;
}

uint64_t
bf_clock_measure_wake_ns(void)
{
    const struct timespec nap = {.tv_nsec = NAP_NS};
    int slack_ns = prctl(PR_GET_TIMERSLACK);
    uint64_t least_ns = UINT64_MAX;

    prctl(PR_SET_TIMERSLACK, 1UL); /* else it may oversleep on purpose */
    for (unsigned i = 0; i < NAPS; i++) {
        uint64_t start_ns = bf_clock_system_ns();

        clock_nanosleep(CLOCK_MONOTONIC, 0, &nap, NULL);
        least_ns = MIN(least_ns, bf_clock_system_ns() - start_ns);
    }
    prctl(PR_SET_TIMERSLACK, (unsigned long)MAX(slack_ns, 0));
    return least_ns - MIN(least_ns, NAP_NS);
}

void
bf_clock_advance(BfClock *clock, uint64_t ns)
{
    g_assert(clock->fake);
    __atomic_add_fetch(&clock->fake_now_ns, ns, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&clock->lock);
    for (BfClockWatch *watch = clock->watches; watch; watch = watch->next) {
        watch->fn(watch->arg);
    }
    pthread_mutex_unlock(&clock->lock);
}

bool
bf_clock_is_fake(const BfClock *clock)
{
    return clock->fake;
}

void
bf_clock_watch(BfClock *clock, BfClockWatch *watch)
{
    pthread_mutex_lock(&clock->lock);
    watch->next = clock->watches;
    clock->watches = watch;
    pthread_mutex_unlock(&clock->lock);
}

void
bf_clock_unwatch(BfClock *clock, BfClockWatch *watch)
{
    pthread_mutex_lock(&clock->lock);
    for (BfClockWatch **place = &clock->watches; *place != NULL;
         place = &(*place)->next) {
        if (*place == watch) {
            *place = watch->next;
            break;
        }
    }
    pthread_mutex_unlock(&clock->lock);
}
