/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Watches block jobs at work: how fast they copy, how fast there is more to
 * copy, when they could be done, and whether they move at all.
 *
 * Only what co_run counts in the job's atomics is looked at, from a timer on
 * main, so that a job that hangs is watched as well as one that does not. What
 * a job has to do grows when writers make more dirty; that growth is the
 * dirtying rate.
 */
#include "block/handle.h"
#include "core/error.h"
#include "core/util.h"
#include "job-private.h"

#define TICK_MAX_MS 1000

/* Weight of the past in the rates, of 8. */
#define PAST_WEIGHT 5

static uint64_t
total_of(const BfJob *job)
{
    return bf_atomic_load(&job->done) + bf_atomic_load(&job->remaining);
}

/* At work, or others wait for it, and nothing but the storage keeps it from
 * going on. */
static bool
is_pushing(const BfJob *job)
{
    if (bf_atomic_load(&job->held) > 0) {
        return true;
    }
    return (job->status == BF_JOB_STATUS_RUNNING ||
            job->status == BF_JOB_STATUS_READY) &&
           (bf_atomic_load(&job->remaining) > 0 ||
            bf_atomic_load(&job->flushing) > 0) &&
           bf_atomic_load(&job->resting) == 0 && !bf_job_wants_pause(job);
}

static uint64_t
mean(uint64_t before, uint64_t now)
{
    return before == 0 ? now
                       : before / 8 * PAST_WEIGHT + now / 8 * (8 - PAST_WEIGHT);
}

static uint64_t
per_second(uint64_t bytes, uint64_t ns)
{
    return (uint64_t)((unsigned __int128)bytes * BF_NS_PER_SEC / MAX(ns, 1));
}

static void
sample(BfJob *job, uint64_t now)
{
    BfJobWatch *watch = &job->watch;
    const uint64_t elapsed = now - watch->sampled_ns;
    const uint64_t done = bf_atomic_load(&job->done);
    const uint64_t let_go = bf_atomic_load(&job->let_go);
    const uint64_t total = total_of(job);
    const bool pushing = is_pushing(job);

    /* How long it has pushed before it is first seen to is not known. */
    if (done != watch->done || let_go != watch->let_go || !pushing ||
        !watch->was_pushing) {
        watch->moved_ns = now;
    }
    watch->was_pushing = pushing;
    if (elapsed == 0) {
        return;
    }
    watch->copy_rate =
        mean(watch->copy_rate, per_second(done - watch->done, elapsed));
    watch->dirty_rate = mean(
        watch->dirty_rate,
        per_second(total > watch->total ? total - watch->total : 0, elapsed));
    watch->sampled_ns = now;
    watch->done = done;
    watch->let_go = let_go;
    watch->total = MAX(total, watch->total);
}

void
bf_job_watch_query(const BfJob *job, BfBlockJobProgress *ret_progress)
{
    const BfJobWatch *watch = &job->watch;
    const uint64_t remaining = bf_atomic_load(&job->remaining);
    const bool ahead = !watch->stalled && watch->copy_rate > watch->dirty_rate;

    *ret_progress = (BfBlockJobProgress){
        .done = bf_atomic_load(&job->done),
        .remaining = remaining,
        .copy_rate = watch->copy_rate,
        .dirty_rate = watch->dirty_rate,
        .converging = remaining == 0 || ahead,
        .stalled = watch->stalled,
        .idle_ms = job->is_running && watch->was_pushing && is_pushing(job)
                       ? (bf_loop_now_ns() - watch->moved_ns) / BF_NS_PER_MS
                       : 0,
    };
    if (remaining == 0 || (ahead && job->is_running)) {
        ret_progress->has_estimated_ms = true;
        ret_progress->estimated_ms =
            remaining == 0 ? 0
                           : (uint64_t)((unsigned __int128)remaining * 1000 /
                                        (watch->copy_rate - watch->dirty_rate));
    }
}

static void
emit_progress(BfJob *job)
{
    const BfJobTable *table = job->table;
    BfBlockJobProgress progress;
    BfJobNotice notice;

    if (table->events == NULL || table->events->progress == NULL) {
        return;
    }
    bf_job_make_notice(job, &notice);
    bf_job_watch_query(job, &progress);
    table->events->progress(table->opaque, &notice, &progress);
}

/* Stalls. */

static void
count_requests(void *arg)
{
    BfJobEnds *ends = arg;

    ends->source_requests = bf_handle_in_flight(ends->source_handle);
    ends->target_requests = bf_handle_in_flight(ends->target_handle);
}

static void
emit_stalled(BfJob *job, const BfJobEnds *ends)
{
    const BfJobTable *table = job->table;
    BfBlockJobProgress progress;
    BfBlockJobEnd source = {0};
    BfBlockJobEnd target = {0};
    BfJobNotice notice;

    if (table->events == NULL || table->events->stalled == NULL) {
        return;
    }
    bf_job_make_notice(job, &notice);
    bf_job_watch_query(job, &progress);
    if (ends != NULL) {
        source.node_name = (char *)ends->source_name;
        source.requests = ends->source_requests;
        target.node_name = (char *)ends->target_name;
        target.requests = ends->target_requests;
    }
    table->events->stalled(table->opaque, &notice, &progress,
                           ends != NULL ? &source : NULL,
                           ends != NULL ? &target : NULL);
}

static void
co_tell_stall(void *arg)
{
    BfJob *job = arg;
    g_autofree char *source_name = NULL;
    g_autofree char *target_name = NULL;
    BfJobEnds ends = {.source_handle = NULL};

    if (job->is_running && job->ops->ends != NULL) {
        job->ops->ends(job, &ends);
    }
    if (ends.source_handle != NULL) {
        source_name = g_strdup(ends.source_name);
        target_name = g_strdup(ends.target_name);
        ends.source_name = source_name;
        ends.target_name = target_name;
        /* The handles live until co_run has returned and its loop has run all
         * that was sent before. */
        bf_co_call(job->loop, count_requests, &ends);
    }
    if (job->watch.stalled && job->is_running) {
        emit_stalled(job, ends.source_handle != NULL ? &ends : NULL);
    }
    bf_job_unref(job);
}

static void
look_for_stall(BfJob *job, uint64_t now)
{
    BfJobWatch *watch = &job->watch;
    const uint64_t limit_ns = watch->stall_seconds * BF_NS_PER_SEC;
    const bool stalled = limit_ns > 0 && now - watch->moved_ns >= limit_ns;

    if (stalled == watch->stalled) {
        return;
    }
    watch->stalled = stalled;
    if (stalled) {
        bf_co_spawn(co_tell_stall, bf_job_ref(job));
    } else {
        emit_stalled(job, NULL);
    }
}

/* Ticks. */

static void tick(void *arg);

static void
start_timer(BfJob *job)
{
    const uint64_t ms = job->watch.interval_ms;

    bf_timer_start(&job->watch.timer,
                   (ms > 0 ? MIN(ms, TICK_MAX_MS) : TICK_MAX_MS) * BF_NS_PER_MS,
                   tick, job);
}

static void
tick(void *arg)
{
    BfJob *job = arg;
    BfJobWatch *watch = &job->watch;
    const uint64_t now = bf_loop_now_ns();

    start_timer(job);
    sample(job, now);
    look_for_stall(job, now);
    if (watch->interval_ms > 0 &&
        now - watch->told_ns >= watch->interval_ms * BF_NS_PER_MS) {
        watch->told_ns = now;
        emit_progress(job);
    }
}

void
bf_job_watch_start(BfJob *job)
{
    BfJobWatch *watch = &job->watch;

    if (!job->ops->is_block_job || job->internal) {
        return;
    }
    watch->sampled_ns = watch->moved_ns = watch->told_ns = bf_loop_now_ns();
    watch->done = bf_atomic_load(&job->done);
    watch->total = total_of(job);
    watch->was_pushing = true;
    start_timer(job);
}

void
bf_job_watch_stop(BfJob *job)
{
    bf_timer_stop(&job->watch.timer);
    job->watch.stalled = false;
}

bool
bf_job_set_progress(BfJob *job, const uint32_t *interval_ms,
                    const uint32_t *stall_seconds, GError **error)
{
    BfJobWatch *watch = &job->watch;

    bf_assert_main();
    if (interval_ms != NULL && *interval_ms != 0 &&
        *interval_ms < BF_JOB_INTERVAL_MIN_MS) {
        bf_set_error(error,
                     "Parameter 'interval-ms' expects 0 or a value of at "
                     "least %u",
                     BF_JOB_INTERVAL_MIN_MS);
        return false;
    }
    if (interval_ms != NULL) {
        watch->interval_ms = *interval_ms;
    }
    if (stall_seconds != NULL) {
        watch->stall_seconds = *stall_seconds;
    }
    if (job->is_running) {
        bf_timer_stop(&watch->timer);
        start_timer(job);
    }
    return true;
}
