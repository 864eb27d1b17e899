/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a job's co_run calls, on the job's loop: pausing, sleeping, the rate,
 * progress, and what happens after failed requests.
 */
#include <errno.h>

#include "core/util.h"
#include "job-private.h"

/* As much work as fits into this time may run ahead of the speed. */
#define RATE_SLICE_NS (100 * BF_NS_PER_MS)

/* How long an ignored error waits: the first time, at most, and how long
 * nothing must fail for it to be the first time again. */
#define IGNORE_MIN_NS (100 * BF_NS_PER_MS)
#define IGNORE_MAX_NS (5 * BF_NS_PER_SEC)
#define IGNORE_RESET_NS (10 * BF_NS_PER_SEC)

/* Longest time that a timer takes. */
#define WAIT_MAX_NS (UINT64_C(1) << 61)

struct BfJobSleeper {
    BfJobSleeper *next;
    BfJobSleeper **at;
    BfCancel kick;
};

bool
bf_job_is_cancelled(const BfJob *job)
{
    return bf_atomic_load(&job->cancelled) != 0;
}

bool
bf_job_wants_pause(const BfJob *job)
{
    return bf_atomic_load(&job->pausing) != 0;
}

static void
wake_sleepers(void *arg)
{
    BfJob *job = arg;

    for (BfJobSleeper *it = job->sleepers; it != NULL; it = it->next) {
        bf_cancel_fire(&it->kick);
    }
}

static void
kick_on_main(void *arg)
{
    bf_job_kick_from_main(arg);
}

void
bf_job_kick(BfJob *job)
{
    BfLoop *here = bf_loop_self();

    if (here == job->loop) {
        wake_sleepers(job);
    } else if (here == bf_loop_get_main(here)) {
        bf_loop_post(job->loop, wake_sleepers, job);
    } else {
        /* Main knows whether the job still runs. */
        bf_loop_post(bf_loop_get_main(here), kick_on_main, job);
    }
}

static void
co_rest(BfJob *job, uint64_t ns)
{
    BfJobSleeper sleeper = {.next = job->sleepers, .at = &job->sleepers};

    if (sleeper.next != NULL) {
        sleeper.next->at = &sleeper.next;
    }
    job->sleepers = &sleeper;
    bf_atomic_add(&job->resting, 1);
    bf_co_sleep_cancel(ns == BF_FOREVER ? ns : MIN(ns, WAIT_MAX_NS),
                       &sleeper.kick);
    bf_atomic_add(&job->resting, UINT64_MAX);
    *sleeper.at = sleeper.next;
    if (sleeper.next != NULL) {
        sleeper.next->at = sleeper.at;
    }
}

static void
note_paused(void *arg)
{
    BfJob *job = arg;

    if (!bf_job_wants_pause(job) || bf_job_is_cancelled(job)) {
        return;
    }
    if (job->status == BF_JOB_STATUS_RUNNING) {
        bf_job_set_status(job, BF_JOB_STATUS_PAUSED);
    } else if (job->status == BF_JOB_STATUS_READY) {
        bf_job_set_status(job, BF_JOB_STATUS_STANDBY);
    }
}

static void
note_resumed(void *arg)
{
    BfJob *job = arg;

    if (job->status == BF_JOB_STATUS_PAUSED) {
        bf_job_set_status(job, BF_JOB_STATUS_RUNNING);
    } else if (job->status == BF_JOB_STATUS_STANDBY) {
        bf_job_set_status(job, BF_JOB_STATUS_READY);
    }
}

bool
bf_job_co_pause_point(BfJob *job)
{
    BfLoop *main_loop = bf_loop_get_main(job->loop);

    bf_assert_loop(job->loop);
    while (bf_job_wants_pause(job) && !bf_job_is_cancelled(job)) {
        if (job->in_pause++ == 0) {
            bf_co_call(main_loop, note_paused, job);
        }
        while (bf_job_wants_pause(job) && !bf_job_is_cancelled(job)) {
            co_rest(job, BF_FOREVER);
        }
        if (--job->in_pause == 0) {
            bf_co_call(main_loop, note_resumed, job);
        }
    }
    return !bf_job_is_cancelled(job);
}

bool
bf_job_co_sleep(BfJob *job, uint64_t ns)
{
    bf_assert_loop(job->loop);
    if (ns > 0 && !bf_job_is_cancelled(job) && !bf_job_wants_pause(job)) {
        co_rest(job, ns);
    }
    return bf_job_co_pause_point(job);
}

static uint64_t
time_of(uint64_t bytes, uint64_t speed)
{
    unsigned __int128 ns = (unsigned __int128)bytes * BF_NS_PER_SEC / speed;

    return (uint64_t)MIN(ns, (unsigned __int128)WAIT_MAX_NS);
}

static uint64_t
bytes_of(uint64_t ns, uint64_t speed)
{
    unsigned __int128 bytes = (unsigned __int128)ns * speed / BF_NS_PER_SEC;

    return (uint64_t)MIN(bytes, (unsigned __int128)UINT64_MAX);
}

/* What was taken at another speed stays taken, so that changes of speed let
 * nothing through; but nobody waits longer than a slice for it. */
static void
follow_speed(BfJob *job)
{
    const uint64_t speed = bf_atomic_load(&job->speed);
    const uint64_t now = bf_loop_now_ns();
    uint64_t ahead_ns;

    if (speed != job->rate_speed) {
        ahead_ns = job->rate_free_ns - MIN(job->rate_free_ns, now);
        if (speed != 0 && job->rate_speed != 0) {
            ahead_ns = time_of(bytes_of(ahead_ns, job->rate_speed), speed);
        }
        job->rate_speed = speed;
        job->rate_free_ns = now + MIN(ahead_ns, RATE_SLICE_NS);
    }
    job->rate_free_ns = MAX(job->rate_free_ns, now);
}

uint64_t
bf_job_rate_slice(BfJob *job)
{
    bf_assert_loop(job->loop);
    follow_speed(job);
    return job->rate_speed == 0 ? UINT64_MAX
                                : bytes_of(RATE_SLICE_NS, job->rate_speed);
}

uint64_t
bf_job_rate_wait(BfJob *job, uint64_t bytes, uint64_t in_flight)
{
    const uint64_t slice = bf_job_rate_slice(job);
    const uint64_t now = bf_loop_now_ns();
    uint64_t due_ns, wait_ns;

    if (slice == UINT64_MAX) {
        return 0;
    }
    /* After a wait of this much there is a slice's worth of room. */
    due_ns = job->rate_free_ns - MIN(job->rate_free_ns, now) +
             MIN(time_of(bytes, job->rate_speed), RATE_SLICE_NS);
    wait_ns = due_ns - MIN(due_ns, RATE_SLICE_NS);
    if (in_flight > 0 && (in_flight >= slice || bytes > slice - in_flight)) {
        wait_ns = MAX(wait_ns, RATE_SLICE_NS);
    }
    return wait_ns;
}

void
bf_job_take_rate(BfJob *job, uint64_t bytes)
{
    if (bf_job_rate_slice(job) != UINT64_MAX) {
        job->rate_free_ns =
            MIN(job->rate_free_ns + time_of(bytes, job->rate_speed),
                bf_loop_now_ns() + WAIT_MAX_NS);
    }
}

bool
bf_job_co_limit_rate(BfJob *job, uint64_t bytes)
{
    uint64_t wait_ns;

    while ((wait_ns = bf_job_rate_wait(job, bytes, 0)) > 0) {
        if (!bf_job_co_sleep(job, wait_ns)) {
            return false;
        }
    }
    bf_job_take_rate(job, bytes);
    return !bf_job_is_cancelled(job);
}

void
bf_job_set_remaining(BfJob *job, uint64_t bytes)
{
    bf_atomic_store(&job->remaining, bytes);
}

void
bf_job_add_remaining(BfJob *job, uint64_t bytes)
{
    bf_atomic_add(&job->remaining, bytes);
}

void
bf_job_add_done(BfJob *job, uint64_t bytes)
{
    bf_atomic_add(&job->done, bytes);
    bf_atomic_add(&job->remaining, -bytes);
}

void
bf_job_note_flush(BfJob *job, bool begins)
{
    bf_atomic_add(&job->flushing, begins ? 1 : UINT64_MAX);
}

void
bf_job_hold_write(BfJob *job, uint64_t bytes)
{
    bf_atomic_add(&job->held, 1);
    bf_atomic_add(&job->held_bytes, bytes);
}

void
bf_job_let_write_go(BfJob *job, uint64_t bytes)
{
    bf_atomic_add(&job->held_bytes, -bytes);
    bf_atomic_add(&job->held, UINT64_MAX);
    bf_atomic_add(&job->let_go, 1);
}

static void
note_ready(void *arg)
{
    BfJob *job = arg;
    const BfJobTable *table = job->table;
    const bool is_paused = job->status == BF_JOB_STATUS_PAUSED;
    BfJobNotice notice;

    if (job->was_ready || bf_job_is_cancelled(job)) {
        return;
    }
    job->was_ready = true;
    if (is_paused) {
        bf_job_set_status(job, BF_JOB_STATUS_RUNNING);
    }
    bf_job_set_status(job, BF_JOB_STATUS_READY);
    if (job->ops->is_block_job && !job->internal && table->events != NULL) {
        bf_job_make_notice(job, &notice);
        table->events->ready(table->opaque, &notice);
    }
    if (is_paused) {
        bf_job_set_status(job, BF_JOB_STATUS_STANDBY);
    }
}

void
bf_job_co_set_ready(BfJob *job)
{
    bf_assert_loop(job->loop);
    bf_co_call(bf_loop_get_main(job->loop), note_ready, job);
}

typedef struct Failure {
    BfJob *job;
    BfBlockErrorAction action;
    bool is_read;
    int err;
} Failure;

static void
stop_for(BfJob *job, int err)
{
    job->user_paused = true;
    bf_atomic_store(&job->pausing, 1);
    if (job->io_status == BF_BLOCK_DEVICE_IO_STATUS_OK) {
        job->io_status = err == ENOSPC ? BF_BLOCK_DEVICE_IO_STATUS_NOSPACE
                                       : BF_BLOCK_DEVICE_IO_STATUS_FAILED;
    }
}

static void
note_failure(void *arg)
{
    const Failure *failure = arg;
    BfJob *job = failure->job;
    const BfJobTable *table = job->table;

    /* Of many requests that fail together, the first one tells. */
    if (bf_job_is_cancelled(job) || job->reported ||
        (failure->action == BF_BLOCK_ERROR_ACTION_STOP &&
         job->io_status != BF_BLOCK_DEVICE_IO_STATUS_OK)) {
        return;
    }
    job->reported = failure->action == BF_BLOCK_ERROR_ACTION_REPORT;
    if (!job->internal && table->events != NULL) {
        table->events->failed_request(table->opaque, job->id,
                                      failure->is_read
                                          ? BF_IO_OPERATION_TYPE_READ
                                          : BF_IO_OPERATION_TYPE_WRITE,
                                      failure->action);
    }
    if (failure->action == BF_BLOCK_ERROR_ACTION_STOP) {
        stop_for(job, failure->err);
    }
}

/* Returns true if this failure begins a wait, false if one is under way. */
static bool
begin_ignoring(BfJob *job)
{
    const uint64_t now = bf_loop_now_ns();

    if (now < job->ignore_until_ns) {
        return false;
    }
    if (job->ignore_wait_ns == 0 ||
        now - job->ignore_until_ns >= IGNORE_RESET_NS) {
        job->ignore_wait_ns = IGNORE_MIN_NS;
    } else {
        job->ignore_wait_ns = MIN(2 * job->ignore_wait_ns, IGNORE_MAX_NS);
    }
    job->ignore_until_ns = now + job->ignore_wait_ns;
    return true;
}

bool
bf_job_co_error(BfJob *job, BfBlockErrorAction action, bool is_read, int err)
{
    Failure failure = {
        .job = job, .action = action, .is_read = is_read, .err = err};
    const bool ignoring = action == BF_BLOCK_ERROR_ACTION_IGNORE;
    uint64_t now;

    bf_assert_loop(job->loop);
    if (!ignoring || begin_ignoring(job)) {
        bf_co_call(bf_loop_get_main(job->loop), note_failure, &failure);
    }
    if (action == BF_BLOCK_ERROR_ACTION_REPORT) {
        return false;
    }
    while (ignoring && (now = bf_loop_now_ns()) < job->ignore_until_ns) {
        if (!bf_job_co_sleep(job, job->ignore_until_ns - now)) {
            return false;
        }
    }
    return bf_job_co_pause_point(job);
}

BfBlockErrorAction
bf_job_error_action(BfBlockdevOnError policy, int err)
{
    switch (policy) {
    case BF_BLOCKDEV_ON_ERROR_IGNORE:
        return BF_BLOCK_ERROR_ACTION_IGNORE;
    case BF_BLOCKDEV_ON_ERROR_STOP:
        return BF_BLOCK_ERROR_ACTION_STOP;
    case BF_BLOCKDEV_ON_ERROR_ENOSPC:
    case BF_BLOCKDEV_ON_ERROR_AUTO:
        return err == ENOSPC ? BF_BLOCK_ERROR_ACTION_STOP
                             : BF_BLOCK_ERROR_ACTION_REPORT;
    default:
        return BF_BLOCK_ERROR_ACTION_REPORT;
    }
}
