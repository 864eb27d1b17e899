/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes sure that a job ends which was cancelled by force while what it reads
 * from does not answer.
 *
 * The source has other users, too, and their requests are not to fail because
 * of a job; so it gets some time, and as long as reads of the job come back it
 * is left alone. After that it does not answer them either. All on main.
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
look(void *arg)
{
    BfJob *job = arg;
    BfRoot *root = job->ops->source_root(job);
    uint64_t answers;

    if (root == NULL || !bf_job_is_cancelled(job)) {
        return;
    }
    answers = count_answers(root);
    if (answers == job->answers) {
        bf_node_cancel_requests(bf_root_node(root));
    }
    job->answers = answers;
    bf_timer_start(&job->answers_timer, SILENCE_NS, look, job);
}

void
bf_job_source_start(BfJob *job)
{
    BfRoot *root =
        job->ops->source_root != NULL ? job->ops->source_root(job) : NULL;

    if (root != NULL) {
        job->answers = count_answers(root);
        bf_timer_start(&job->answers_timer, SILENCE_NS, look, job);
    }
}

void
bf_job_source_stop(BfJob *job)
{
    bf_timer_stop(&job->answers_timer);
}
