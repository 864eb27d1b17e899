/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the sources of jobs share: the table, transactions and the steps of a
 * job's life. All on main.
 */
#pragma once

#include "block/job-kind.h"
#include "core/registry.h"

struct BfJobTable {
    const BfJobEvents *events; /* (nullable) borrowed constant */
    void *opaque;
    BfRegistry *jobs;  /* BfJob by id, reserved ones included; a reference */
    BfCoQueue changed; /* a job is gone */
    unsigned last_internal;
    bool closing; /* no job is made any more */
};

struct BfJobTxn {
    unsigned refs;
    GPtrArray *jobs;   /* a reference each; newest first */
    BfCoQueue changed; /* a job's co_run has returned, or it concluded */
    bool aborted;      /* its jobs have been cancelled; so will be later ones */
    bool aborting;     /* and somebody is ending them */
    bool finalizing;   /* co_prepare of its jobs runs */
    bool committed;    /* too late to cancel */
};

/* job.c */
void bf_job_set_status(BfJob *job, BfJobStatus status);
void bf_job_make_notice(const BfJob *job, BfJobNotice *ret_notice);
/* Marks it as cancelled by force; co_run ends soon, if it runs. */
void bf_job_mark_cancelled(BfJob *job);
/* The last transition: its id is free and the table's reference gone. */
void bf_job_forget(BfJob *job);
/* Makes the ones that sleep look around. */
void bf_job_kick_from_main(BfJob *job);

/* job-txn.c */
void bf_job_txn_add(BfJobTxn *txn, BfJob *job);
void bf_job_txn_remove(BfJobTxn *txn, BfJob *job);
/* co_run has returned; job->error is set if it failed. */
void bf_job_co_completed(BfJob *job, bool ok);
/* Ends all jobs of @txn as aborted, unless somebody is doing that. */
void bf_job_txn_co_abort(BfJobTxn *txn);
/* All are pending: prepares and ends them. */
void bf_job_txn_co_finalize(BfJobTxn *txn);

/* job-source.c: from the cancelling to the end */
void bf_job_source_start(BfJob *job);
void bf_job_source_stop(BfJob *job);

/* job-watch.c */
void bf_job_watch_start(BfJob *job);
void bf_job_watch_stop(BfJob *job);
void bf_job_watch_query(const BfJob *job, BfBlockJobProgress *ret_progress);
