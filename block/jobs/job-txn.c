/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How jobs end: alone or together.
 *
 * Every job has a transaction, most one of their own. A transaction is ended by
 * one coroutine only: the one that set aborting or finalizing. Others flag
 * what they want (a cancelled job) and leave it to that one.
 */
#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "job-private.h"

BfJobTxn *
bf_job_txn_new(void)
{
    BfJobTxn *txn = g_new0(BfJobTxn, 1);

    bf_assert_main();
    txn->refs = 1;
    txn->jobs = g_ptr_array_new();
    return txn;
}

void
bf_job_txn_unref(BfJobTxn *txn)
{
    if (txn == NULL || --txn->refs > 0) {
        return;
    }
    bf_assert_main();
    g_assert(txn->jobs->len == 0);
    g_ptr_array_unref(txn->jobs);
    g_free(txn);
}

void
bf_job_txn_add(BfJobTxn *txn, BfJob *job)
{
    g_ptr_array_insert(txn->jobs, 0, job);
    txn->refs++;
}

void
bf_job_txn_remove(BfJobTxn *txn, BfJob *job)
{
    g_ptr_array_remove(txn->jobs, job);
    job->txn = NULL;
    bf_co_queue_wake_all(&txn->changed);
    bf_job_txn_unref(txn);
}

/* The jobs of @txn, each with a reference, as they come and go meanwhile. */
static GPtrArray *
hold_jobs(BfJobTxn *txn)
{
    GPtrArray *jobs = g_ptr_array_new_with_free_func(
        (GDestroyNotify)(void (*)(void))bf_job_unref);

    for (unsigned i = 0; i < txn->jobs->len; i++) {
        g_ptr_array_add(jobs, bf_job_ref(g_ptr_array_index(txn->jobs, i)));
    }
    return jobs;
}

static bool
has_failed(const BfJob *job)
{
    return job->error != NULL || bf_job_is_cancelled(job);
}

static void
set_aborting(BfJob *job)
{
    if (job->error == NULL) {
        bf_set_error(&job->error, "%s", strerror(ECANCELED));
    }
    bf_job_set_status(job, BF_JOB_STATUS_ABORTING);
}

static void
emit_end(const BfJob *job)
{
    const BfJobTable *table = job->table;
    BfJobNotice notice;

    if (!job->started || !job->ops->is_block_job || job->internal ||
        table->events == NULL) {
        return;
    }
    bf_job_make_notice(job, &notice);
    if (bf_job_is_cancelled(job)) {
        table->events->cancelled(table->opaque, &notice);
    } else {
        table->events->completed(table->opaque, &notice);
    }
}

/* The end of one job; those of its transaction agree on how. */
static void
co_conclude(BfJob *job)
{
    const bool failed = has_failed(job);

    if (failed) {
        set_aborting(job);
        bf_job_source_start(job);
    }
    if (failed && job->ops->co_abort != NULL) {
        job->ops->co_abort(job);
    } else if (!failed && job->ops->co_commit != NULL) {
        job->ops->co_commit(job);
    }
    bf_job_source_stop(job); /* nothing is read any more */
    if (job->ops->co_clean != NULL) {
        job->ops->co_clean(job);
    }
    emit_end(job);
    bf_job_set_status(job, BF_JOB_STATUS_CONCLUDED);
    if (!job->manual_dismiss || !job->started || job->internal) {
        /* The id is free before whoever waits for the transaction sees it. */
        bf_job_forget(bf_job_ref(job));
        bf_job_txn_remove(job->txn, job);
        bf_job_unref(job);
    } else {
        bf_job_txn_remove(job->txn, job);
        bf_co_queue_wake_all(&job->table->changed);
    }
}

static bool
is_any_running(const BfJobTxn *txn)
{
    for (unsigned i = 0; i < txn->jobs->len; i++) {
        const BfJob *job = g_ptr_array_index(txn->jobs, i);

        if (job->started && job->status < BF_JOB_STATUS_WAITING) {
            return true;
        }
    }
    return false;
}

/* One that is still being made finds out when it is started. */
static BfJob *
find_to_conclude(const BfJobTxn *txn)
{
    for (unsigned i = 0; i < txn->jobs->len; i++) {
        BfJob *job = g_ptr_array_index(txn->jobs, i);

        if (job->status != BF_JOB_STATUS_UNDEFINED) {
            return job;
        }
    }
    return NULL;
}

void
bf_job_txn_co_abort(BfJobTxn *txn)
{
    BfJob *job = NULL;

    if (txn->aborting) {
        return;
    }
    txn->aborting = true;
    txn->aborted = true;
    txn->refs++;
    for (unsigned i = 0; i < txn->jobs->len; i++) {
        job = g_ptr_array_index(txn->jobs, i);
        if (!has_failed(job)) {
            bf_job_mark_cancelled(job);
        }
    }
    while (is_any_running(txn)) {
        bf_co_queue_co_wait(&txn->changed);
    }
    while ((job = find_to_conclude(txn)) != NULL) {
        bf_job_ref(job);
        co_conclude(job);
        bf_job_unref(job);
    }
    txn->aborting = false;
    bf_job_txn_unref(txn);
}

/* The last steps that may fail. */
static bool
co_prepare_all(GPtrArray *jobs)
{
    for (unsigned i = 0; i < jobs->len; i++) {
        BfJob *job = g_ptr_array_index(jobs, i);

        if (!has_failed(job) && job->ops->co_prepare != NULL &&
            !job->ops->co_prepare(job, &job->error)) {
            g_assert(has_failed(job));
            set_aborting(job);
        }
        if (has_failed(job)) {
            return false;
        }
    }
    for (unsigned i = 0; i < jobs->len; i++) {
        if (has_failed(g_ptr_array_index(jobs, i))) {
            return false; /* cancelled meanwhile */
        }
    }
    return true;
}

void
bf_job_txn_co_finalize(BfJobTxn *txn)
{
    g_autoptr(GPtrArray) jobs = hold_jobs(txn);

    txn->refs++;
    txn->finalizing = true;
    if (!co_prepare_all(jobs)) {
        txn->finalizing = false;
        bf_job_txn_co_abort(txn);
    } else {
        txn->committed = true;
        for (unsigned i = 0; i < jobs->len; i++) {
            co_conclude(g_ptr_array_index(jobs, i));
        }
    }
    bf_job_txn_unref(txn);
}

void
bf_job_set_final(BfJob *job)
{
    bf_assert_main();
    g_assert(job->txn->jobs->len == 1);
    job->txn->committed = true;
    bf_atomic_store(&job->cancelled, 0);
}

static void
set_pending(BfJob *job)
{
    const BfJobTable *table = job->table;
    BfJobNotice notice;

    bf_job_set_status(job, BF_JOB_STATUS_PENDING);
    if (job->manual_finalize && job->ops->is_block_job && !job->internal &&
        table->events != NULL) {
        bf_job_make_notice(job, &notice);
        table->events->pending(table->opaque, &notice);
    }
}

static void
co_succeeded(BfJob *job)
{
    BfJobTxn *txn = job->txn;
    bool manual = false;

    bf_job_set_status(job, BF_JOB_STATUS_WAITING);
    for (unsigned i = 0; i < txn->jobs->len; i++) {
        const BfJob *other = g_ptr_array_index(txn->jobs, i);

        if (other->status != BF_JOB_STATUS_WAITING) {
            return;
        }
    }
    for (unsigned i = 0; i < txn->jobs->len; i++) {
        BfJob *other = g_ptr_array_index(txn->jobs, i);

        set_pending(other);
        manual |= other->manual_finalize;
    }
    if (!manual) {
        bf_job_txn_co_finalize(txn);
    }
}

void
bf_job_co_completed(BfJob *job, bool ok)
{
    BfJobTxn *txn = job->txn;

    if (ok && !bf_job_is_cancelled(job)) {
        co_succeeded(job);
        return;
    }
    if (job->error == NULL && !bf_job_is_cancelled(job)) {
        bf_set_error(&job->error, "%s", strerror(EIO));
    }
    set_aborting(job);
    bf_co_queue_wake_all(&txn->changed);
    bf_job_txn_co_abort(txn);
}
