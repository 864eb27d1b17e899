/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs, as commands and the daemon see them: long operations that have a
 * state, can be paused and cancelled, and end alone or together with others.
 * What makes a kind of job is in block/job-kind.h.
 *
 * On main but for what says otherwise; _co_ functions suspend. The caller of
 * one keeps nothing alive by it: look the job up again afterwards. Functions
 * that take a verb fail if the job's state does not allow it ("Job 'j' in
 * state 'running' cannot accept command verb 'complete'").
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "block/node.h"
#include "schema/types.h"

/**
 * BfJob: a job; see block/job-kind.h
 */
typedef struct BfJob BfJob;

/**
 * BfJobTable: all jobs of a daemon, by id
 */
typedef struct BfJobTable BfJobTable;

/**
 * BfJobTxn: jobs that end together: when one fails or is cancelled, so are all
 */
typedef struct BfJobTxn BfJobTxn;

/**
 * BfJobNotice: what an event about a block job tells
 * @type: kind of the job
 * @id: its id; borrowed for the call
 * @len: bytes to do, as far as is known
 * @offset: bytes done
 * @speed: limit in bytes per second, or 0
 * @error: (nullable): why it failed; borrowed for the call
 */
typedef struct BfJobNotice {
    BfJobType type;
    const char *id;
    uint64_t len;
    uint64_t offset;
    uint64_t speed;
    const char *error;
} BfJobNotice;

/**
 * BfJobEvents: upward notices of a job table; called on main, must not suspend
 * @status_changed: a job has another state
 * @completed: a block job ended, well or with an error
 * @cancelled: a block job was aborted
 * @ready: a block job can be completed
 * @pending: a block job waits for finalize
 * @failed_request: a request of a block job failed
 * @progress: (nullable): how a block job gets on; at its interval
 * @stalled: (nullable): a block job does not get on, or does again, as its
 *     progress says; the ends are there if they are known
 */
typedef struct BfJobEvents {
    void (*status_changed)(void *opaque, const char *id, BfJobStatus status);
    void (*completed)(void *opaque, const BfJobNotice *notice);
    void (*cancelled)(void *opaque, const BfJobNotice *notice);
    void (*ready)(void *opaque, const BfJobNotice *notice);
    void (*pending)(void *opaque, const BfJobNotice *notice);
    void (*failed_request)(void *opaque, const char *id,
                           BfIoOperationType operation,
                           BfBlockErrorAction action);
    void (*progress)(void *opaque, const BfJobNotice *notice,
                     const BfBlockJobProgress *progress);
    void (*stalled)(void *opaque, const BfJobNotice *notice,
                    const BfBlockJobProgress *progress,
                    const BfBlockJobEnd *source, const BfBlockJobEnd *target);
} BfJobEvents;

/* Shortest interval of progress events. */
#define BF_JOB_INTERVAL_MIN_MS 100u

/* How long nothing may be done before a job counts as stalled, at first. */
#define BF_JOB_STALL_SECONDS 10u

/**
 * bf_job_table_new:
 * @events: (nullable): borrowed constant
 * @opaque: passed to @events
 *
 * Returns: (transfer full): an empty table
 */
BfJobTable *bf_job_table_new(const BfJobEvents *events, void *opaque);

/**
 * bf_job_table_free:
 * @table: (nullable): empty
 */
void bf_job_table_free(BfJobTable *table);

/**
 * bf_job_table_co_cancel_all:
 * @table: the table
 *
 * Aborts all jobs and dismisses those that have concluded; returns when the
 * last is gone. How long that takes depends on the storage of the jobs: the
 * caller must have a limit of its own.
 */
void bf_job_table_co_cancel_all(BfJobTable *table);

/**
 * bf_job_table_find:
 * @table: the table
 * @id: an id
 *
 * Returns: (transfer none) (nullable): the job; internal ones are not found
 */
BfJob *bf_job_table_find(BfJobTable *table, const char *id);

/**
 * bf_job_table_find_user:
 * @table: the table
 * @node: a node
 *
 * Returns: (transfer none) (nullable): id of a job that works on @node
 */
const char *bf_job_table_find_user(BfJobTable *table, const BfNode *node);

/**
 * bf_job_table_find_loop_user:
 * @table: the table
 * @loop: any loop
 *
 * Returns: (transfer none) (nullable): id of a job that works on @loop
 */
const char *bf_job_table_find_loop_user(BfJobTable *table, const BfLoop *loop);

/**
 * bf_job_table_query:
 * @table: the table
 *
 * Returns: (transfer full): what query-jobs returns, newest first
 */
BfJobInfoList *bf_job_table_query(BfJobTable *table);

/**
 * bf_job_table_query_block:
 * @table: the table
 *
 * Returns: (transfer full): what query-block-jobs returns, newest first
 */
BfBlockJobInfoList *bf_job_table_query_block(BfJobTable *table);

/**
 * bf_job_is_block_job:
 * @job: a job
 *
 * Returns: true if block-job-* commands work on it
 */
bool bf_job_is_block_job(const BfJob *job);

/**
 * bf_job_is_user_paused:
 * @job: a job
 *
 * Returns: true if a user or an error has paused it
 */
bool bf_job_is_user_paused(const BfJob *job);

/**
 * bf_job_pause:
 * @job: a job
 * @error: set on failure
 *
 * Asks it to come to rest, which the status paused or standby tells.
 *
 * Returns: false on failure
 */
bool bf_job_pause(BfJob *job, GError **error);

/**
 * bf_job_resume:
 * @job: a job
 * @error: set on failure: it was not paused by a user or an error
 *
 * Returns: false on failure
 */
bool bf_job_resume(BfJob *job, GError **error);

/**
 * bf_job_co_cancel:
 * @job: a job
 * @force: abort it even if it could end gracefully
 * @error: set on failure
 *
 * Asks it to end. One that is waiting or pending has ended on return, with all
 * of its transaction. One that is not started ends when it is started.
 *
 * Returns: false on failure
 */
bool bf_job_co_cancel(BfJob *job, bool force, GError **error);

/**
 * bf_job_co_complete:
 * @job: a job
 * @error: set on failure: its kind has no such step
 *
 * Asks it to do its last step and end.
 *
 * Returns: false on failure
 */
bool bf_job_co_complete(BfJob *job, GError **error);

/**
 * bf_job_co_finalize:
 * @job: a job that is pending
 * @error: set on failure
 *
 * On return all jobs of its transaction have ended. That one of them has
 * failed in its last step is no failure of this call.
 *
 * Returns: false on failure
 */
bool bf_job_co_finalize(BfJob *job, GError **error);

/**
 * bf_job_dismiss:
 * @job: a job that has concluded
 * @error: set on failure
 *
 * Forgets it.
 *
 * Returns: false on failure
 */
bool bf_job_dismiss(BfJob *job, GError **error);

/**
 * bf_job_set_speed:
 * @job: a job
 * @speed: bytes per second; 0 for no limit
 * @error: set on failure: it is negative
 *
 * Returns: false on failure
 */
bool bf_job_set_speed(BfJob *job, int64_t speed, GError **error);

/**
 * bf_job_set_progress:
 * @job: a block job
 * @interval_ms: (nullable): new interval of progress events; 0 for none
 * @stall_seconds: (nullable): new time without progress after which the job
 *     counts as stalled; 0 for never
 * @error: set on failure: the interval is too short
 *
 * Returns: false on failure
 */
bool bf_job_set_progress(BfJob *job, const uint32_t *interval_ms,
                         const uint32_t *stall_seconds, GError **error);

/**
 * bf_job_co_change:
 * @job: a job
 * @options: what shall change
 * @error: set on failure: its kind is another, or cannot change this
 *
 * Returns: false on failure
 */
bool bf_job_co_change(BfJob *job, const BfBlockJobChangeOptions *options,
                      GError **error);

/**
 * bf_job_txn_new:
 *
 * Returns: (transfer full): a transaction without jobs
 */
BfJobTxn *bf_job_txn_new(void);

/**
 * bf_job_txn_unref:
 * @txn: (nullable): a transaction; its jobs keep it as long as they need it
 */
void bf_job_txn_unref(BfJobTxn *txn);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfJobTable, bf_job_table_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfJobTxn, bf_job_txn_unref)
