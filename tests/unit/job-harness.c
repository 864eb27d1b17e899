/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A kind of job that does what a test says. On main but for its co_run.
 */
#include "job-harness.h"

#include <string.h>

#include "core/error.h"
#include "harness.h"

static GString *events;
static GString *calls;
static BfCoQueue changed;
static BfJobTable *table;

static void
note_status(void *opaque, const char *id, BfJobStatus status)
{
    g_string_append_printf(events, "%s:%s ", id, bf_job_status_str(status));
    bf_co_queue_wake_all(&changed);
}

static void
note_completed(void *opaque, const BfJobNotice *notice)
{
    g_string_append_printf(events, "%s:COMPLETED(%s) ", notice->id,
                           notice->error != NULL ? notice->error : "");
}

static void
note_cancelled(void *opaque, const BfJobNotice *notice)
{
    g_string_append_printf(events, "%s:CANCELLED ", notice->id);
}

static void
note_ready(void *opaque, const BfJobNotice *notice)
{
    g_string_append_printf(events, "%s:READY ", notice->id);
    bf_co_queue_wake_all(&changed);
}

static void
note_pending(void *opaque, const BfJobNotice *notice)
{
    g_string_append_printf(events, "%s:PENDING ", notice->id);
    bf_co_queue_wake_all(&changed);
}

static void
note_error(void *opaque, const char *id, BfIoOperationType operation,
           BfBlockErrorAction action)
{
    g_string_append_printf(events, "%s:ERROR(%s,%s) ", id,
                           bf_io_operation_type_str(operation),
                           bf_block_error_action_str(action));
    bf_co_queue_wake_all(&changed);
}

static const BfJobEvents test_events = {
    .status_changed = note_status,
    .completed = note_completed,
    .cancelled = note_cancelled,
    .ready = note_ready,
    .pending = note_pending,
    .failed_request = note_error,
};

static bool
test_co_run(BfJob *job, GError **error)
{
    BfTestJob *self = (BfTestJob *)job;

    bf_assert_loop(job->loop);
    for (;;) {
        switch (bf_atomic_load(&self->order)) {
        case BF_TEST_ORDER_FINISH:
            return true;
        case BF_TEST_ORDER_FAIL:
            bf_set_error(error, "boom");
            return false;
        case BF_TEST_ORDER_READY:
            bf_job_co_set_ready(job);
            if (bf_atomic_load(&self->soft) != 0) {
                return true;
            }
            break;
        case BF_TEST_ORDER_ERROR:
            bf_atomic_add(&self->tries, 1);
            if (!bf_job_co_error(job, self->action, false, self->err)) {
                bf_set_error(error, "%s", strerror(self->err));
                return false;
            }
            continue;
        default:
            break;
        }
        if (!bf_job_co_sleep(job, BF_FOREVER)) {
            return false;
        }
    }
}

static void
co_wait_gate(BfTestJob *self)
{
    self->is_blocked = true;
    bf_co_queue_wake_all(&changed);
    bf_co_queue_co_wait(&self->gate);
    self->is_blocked = false;
}

static bool
test_co_prepare(BfJob *job, GError **error)
{
    BfTestJob *self = (BfTestJob *)job;

    bf_assert_main();
    g_string_append_printf(calls, "%s:prepare ", job->id);
    if (self->block_prepare) {
        co_wait_gate(self);
    }
    if (self->prepare_fails) {
        bf_set_error(error, "not today");
        return false;
    }
    return true;
}

static void
test_co_commit(BfJob *job)
{
    g_string_append_printf(calls, "%s:commit ", job->id);
}

static void
test_co_abort(BfJob *job)
{
    BfTestJob *self = (BfTestJob *)job;

    g_string_append_printf(calls, "%s:abort ", job->id);
    if (self->block_abort) {
        co_wait_gate(self);
    }
}

static void
test_co_clean(BfJob *job)
{
    g_string_append_printf(calls, "%s:clean ", job->id);
}

static void
test_free(BfJob *job)
{
    g_string_append_printf(calls, "%s:free ", job->id);
}

static bool
test_soft(BfJob *job)
{
    BfTestJob *self = (BfTestJob *)job;

    if (job->status != BF_JOB_STATUS_READY &&
        job->status != BF_JOB_STATUS_STANDBY) {
        return false;
    }
    bf_atomic_store(&self->soft, 1);
    return true;
}

static bool
test_co_complete(BfJob *job, GError **error)
{
    return test_soft(job);
}

static bool
test_co_change(BfJob *job, const BfBlockJobChangeOptions *options,
               GError **error)
{
    return true;
}

const BfJobOps bf_test_job_ops = {
    .type = BF_JOB_TYPE_BACKUP,
    .is_block_job = true,
    .co_run = test_co_run,
    .co_prepare = test_co_prepare,
    .co_commit = test_co_commit,
    .co_abort = test_co_abort,
    .co_clean = test_co_clean,
    .free = test_free,
    .co_complete = test_co_complete,
    .soft_cancel = test_soft,
    .co_change = test_co_change,
};

void
bf_test_jobs_new(void)
{
    events = g_string_new(NULL);
    calls = g_string_new(NULL);
    changed = (BfCoQueue){.head = NULL};
    table = bf_job_table_new(&test_events, NULL);
}

void
bf_test_jobs_co_free(void)
{
    bf_job_table_co_cancel_all(table);
    bf_job_table_free(table);
    g_string_free(events, TRUE);
    g_string_free(calls, TRUE);
}

BfTestJob *
bf_test_job_make(const BfJobOps *ops, const char *id, bool manual,
                 BfJobTxn *txn)
{
    g_autoptr(GError) error = NULL;
    BfTestJob *self = g_new0(BfTestJob, 1);
    const BfJobSettings settings = {
        .id = id, .manual_finalize = manual, .manual_dismiss = manual};
    bool ok = bf_job_init(&self->base, ops, table, &settings, txn, &error);

    g_assert_no_error(error);
    g_assert_true(ok);
    self->base.loop = bf_test_loops()->workers[0];
    return self;
}

BfTestJob *
bf_test_job_start(const char *id, bool manual, BfJobTxn *txn)
{
    BfTestJob *self = bf_test_job_make(&bf_test_job_ops, id, manual, txn);

    bf_job_start(&self->base);
    return self;
}

void
bf_test_job_give(BfTestJob *self, BfTestOrder order)
{
    bf_atomic_store(&self->order, order);
    bf_job_kick(&self->base);
}

void
bf_test_job_co_wait_status(const BfTestJob *self, BfJobStatus status)
{
    while (self->base.status != status) {
        bf_co_queue_co_wait(&changed);
    }
}

void
bf_test_jobs_co_wait_event(const char *text)
{
    while (strstr(events->str, text) == NULL) {
        bf_co_queue_co_wait(&changed);
    }
}

void
bf_test_jobs_co_wait_gone(const char *id)
{
    while (bf_job_table_find(table, id) != NULL) {
        bf_co_queue_co_wait(&changed);
    }
    bf_co_yield(); /* whoever ended it returns */
}

void
bf_test_jobs_take_events(const char *expected)
{
    g_assert_cmpstr(events->str, ==, expected);
    g_string_truncate(events, 0);
}

BfJobTable *
bf_test_jobs_table(void)
{
    return table;
}

const char *
bf_test_jobs_calls(void)
{
    return calls->str;
}

void
bf_test_jobs_drop_events(void)
{
    g_string_truncate(events, 0);
}
