/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes sure that a job ends which was cancelled by force, or has failed, while
 * what it reads from does not answer.
 *
 * The source has other users, too, and their requests are not to fail because
 * of a job; so it gets some time, and as long as reads of the job come back, or
 * there are none and the job waits for something else, it is left alone. After
 * that it does not answer them either. All on main.
 */
#include "job-private.h"

#include "core/util.h"

/* How long nothing may come back from the source. */
#define SILENCE_NS (5 * BF_NS_PER_SEC)

static uint64_t
count_answers(BfRoot *root)
{
    BfIoStats stats;

    bf_root_stats(root, &stats);
    return stats.read_ops + stats.failed_ops;
}

static void
count_requests(void *arg)
{
    BfJobEnds *ends = arg;

    ends->source_requests = bf_handle_in_flight(ends->source_handle);
}

/* The job has its ends as long as its source is watched, and the handle lives
 * until its loop has run all that was sent before. */
static bool
co_is_waiting(BfJob *job)
{
    BfJobEnds ends = {.source_handle = NULL};

    if (job->watches_source) {
        job->ops->ends(job, &ends);
    }
    if (ends.source_handle != NULL) {
        bf_co_call(job->loop, count_requests, &ends);
    }
    return job->watches_source && ends.source_requests > 0;
}

static void
co_look(void *arg)
{
    BfJob *job = arg;
    BfRoot *root = job->ops->source_root(job);
    uint64_t answers = root != NULL ? count_answers(root) : 0;

    if (root != NULL && answers == job->answers && co_is_waiting(job)) {
        bf_node_cancel_requests(bf_root_node(root));
    }
    job->answers = answers;
    bf_job_unref(job);
}

static void
look(void *arg)
{
    BfJob *job = arg;

    bf_timer_start(&job->answers_timer, SILENCE_NS, look, job);
    bf_co_spawn(co_look, bf_job_ref(job));
}

void
bf_job_source_start(BfJob *job)
{
    BfRoot *root =
        job->ops->source_root != NULL ? job->ops->source_root(job) : NULL;

    if (root != NULL && !job->watches_source) {
        job->watches_source = true;
        job->answers = count_answers(root);
        bf_timer_start(&job->answers_timer, SILENCE_NS, look, job);
    }
}

void
bf_job_source_stop(BfJob *job)
{
    job->watches_source = false;
    bf_timer_stop(&job->answers_timer);
}
