/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Harness of the tests of jobs: a table whose notices are kept as text, and a
 * kind of job that does what the test orders.
 */
#pragma once

#include "block/job-kind.h"

/**
 * BfTestOrder: what co_run of a test's job is to do
 * @BF_TEST_ORDER_NONE: wait
 * @BF_TEST_ORDER_FINISH: return true
 * @BF_TEST_ORDER_FAIL: fail with "boom"
 * @BF_TEST_ORDER_READY: become ready, and end when completed
 * @BF_TEST_ORDER_ERROR: a request fails with @err, treated as @action
 */
typedef enum BfTestOrder {
    BF_TEST_ORDER_NONE,
    BF_TEST_ORDER_FINISH,
    BF_TEST_ORDER_FAIL,
    BF_TEST_ORDER_READY,
    BF_TEST_ORDER_ERROR,
} BfTestOrder;

/**
 * BfTestJob: a job of a test
 * @base: the job
 * @order: BfTestOrder
 * @soft: soft_cancel or complete was asked
 * @tries: of requests that fail
 * @action: what is done about them
 * @err: how they fail
 * @prepare_fails: co_prepare does
 * @block_abort: co_abort waits for @gate
 * @block_prepare: so does co_prepare
 * @is_blocked: one of them waits
 * @gate: to be woken
 */
typedef struct BfTestJob {
    BfJob base;
    BfAtomicU64 order;
    BfAtomicU64 soft; /* soft_cancel or complete was asked */
    BfAtomicU64 tries;
    BfBlockErrorAction action;
    int err;
    bool prepare_fails;
    bool block_abort;   /* co_abort waits for @gate */
    bool block_prepare; /* so does co_prepare */
    bool is_blocked;
    BfCoQueue gate;
} BfTestJob;

/* bf_test_job_ops: a block job, of the type backup */
extern const BfJobOps bf_test_job_ops;

/**
 * bf_test_jobs_new:
 *
 * Makes the table and forgets all notices.
 */
void bf_test_jobs_new(void);

/**
 * bf_test_jobs_co_free:
 *
 * Cancels all jobs and frees the table.
 */
void bf_test_jobs_co_free(void);

/**
 * bf_test_jobs_table:
 *
 * Returns: (transfer none): the table
 */
BfJobTable *bf_test_jobs_table(void);

/**
 * bf_test_jobs_calls:
 *
 * Returns: (transfer none): the operations that were called, each with a blank
 */
const char *bf_test_jobs_calls(void);

/**
 * bf_test_jobs_drop_events:
 *
 * Forgets the notices so far.
 */
void bf_test_jobs_drop_events(void);

/**
 * bf_test_jobs_take_events:
 * @expected: the notices since the last call, each with a blank
 */
void bf_test_jobs_take_events(const char *expected);

/**
 * bf_test_job_make:
 * @ops: its kind
 * @id: (nullable): its id
 * @manual: no automatic finalize and dismiss
 * @txn: (nullable): its transaction
 *
 * Returns: (transfer none): a job that is not visible yet
 */
BfTestJob *bf_test_job_make(const BfJobOps *ops, const char *id, bool manual,
                            BfJobTxn *txn);

/**
 * bf_test_job_start:
 * @id: its id
 * @manual: no automatic finalize and dismiss
 * @txn: (nullable): its transaction
 *
 * Returns: (transfer none): a job that runs
 */
BfTestJob *bf_test_job_start(const char *id, bool manual, BfJobTxn *txn);

/**
 * bf_test_job_give:
 * @self: a job that runs
 * @order: what it is to do
 */
void bf_test_job_give(BfTestJob *self, BfTestOrder order);

/**
 * bf_test_job_co_wait_status:
 * @self: a job
 * @status: the state to wait for
 */
void bf_test_job_co_wait_status(const BfTestJob *self, BfJobStatus status);

/**
 * bf_test_jobs_co_wait_event:
 * @text: part of the notices to wait for
 */
void bf_test_jobs_co_wait_event(const char *text);

/**
 * bf_test_jobs_co_wait_gone:
 * @id: of a job whose end is waited for
 */
void bf_test_jobs_co_wait_gone(const char *id);
