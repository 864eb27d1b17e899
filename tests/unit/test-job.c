/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs: every verb in every state, all sequences of events, transactions,
 * errors and the rate, with a kind of job that does what the test says.
 */
#include <errno.h>
#include <string.h>

#include "block-harness.h"
#include "block/job-kind.h"
#include "core/error.h"
#include "core/util.h"
#include "harness.h"
#include "job-harness.h"

/* Each state with a job of its own, and a second one that keeps it there. */
typedef struct Case {
    BfTestJob *job;
    BfTestJob *other;
} Case;

static void
co_reach(Case *c, BfJobStatus status)
{
    g_autoptr(BfJobTxn) txn = bf_job_txn_new();

    c->job = bf_test_job_make(&bf_test_job_ops, "j", true, txn);
    if (status == BF_JOB_STATUS_CREATED) {
        bf_job_created(&c->job->base);
        return;
    }
    if (status == BF_JOB_STATUS_WAITING) {
        c->other = bf_test_job_start("other", true, txn);
    }
    bf_job_start(&c->job->base);
    switch (status) {
    case BF_JOB_STATUS_READY:
    case BF_JOB_STATUS_STANDBY:
        bf_test_job_give(c->job, BF_TEST_ORDER_READY);
        bf_test_job_co_wait_status(c->job, BF_JOB_STATUS_READY);
        break;
    case BF_JOB_STATUS_WAITING:
    case BF_JOB_STATUS_PENDING:
        bf_test_job_give(c->job, BF_TEST_ORDER_FINISH);
        break;
    case BF_JOB_STATUS_ABORTING:
        c->job->block_abort = true;
        bf_test_job_give(c->job, BF_TEST_ORDER_FAIL);
        break;
    case BF_JOB_STATUS_CONCLUDED:
        bf_test_job_give(c->job, BF_TEST_ORDER_FAIL);
        break;
    default:
        break;
    }
    if (status == BF_JOB_STATUS_PAUSED || status == BF_JOB_STATUS_STANDBY) {
        g_assert_true(bf_job_pause(&c->job->base, NULL));
    }
    bf_test_job_co_wait_status(c->job, status);
}

static void
leave(Case *c)
{
    if (c->job->is_blocked) {
        bf_co_queue_wake_all(&c->job->gate);
    }
}

typedef struct VerbCase {
    const char *name;
    unsigned allowed; /* states */
} VerbCase;

#define S(status) (1u << BF_JOB_STATUS_##status)
#define WORK (S(CREATED) | S(RUNNING) | S(PAUSED) | S(READY) | S(STANDBY))

static const VerbCase verb_cases[] = {
    {"cancel", WORK | S(WAITING) | S(PENDING)},
    {"pause", WORK & ~(S(PAUSED) | S(STANDBY))},
    {"resume", S(PAUSED) | S(STANDBY)},
    {"set-speed", WORK},
    {"change", WORK},
    {"complete", S(READY) | S(STANDBY)},
    {"finalize", S(PENDING)},
    {"dismiss", S(CONCLUDED)},
};

static bool
co_apply(BfJob *job, const char *verb, GError **error)
{
    const BfBlockJobChangeOptions options = {.id = (char *)"j",
                                             .type = BF_JOB_TYPE_BACKUP};

    switch (verb[0]) {
    case 'p':
        return bf_job_pause(job, error);
    case 'r':
        return bf_job_resume(job, error);
    case 's':
        return bf_job_set_speed(job, 1024, error);
    case 'f':
        return bf_job_co_finalize(job, error);
    case 'd':
        return bf_job_dismiss(job, error);
    default:
        return strcmp(verb, "cancel") == 0 ? bf_job_co_cancel(job, true, error)
               : strcmp(verb, "change") == 0
                   ? bf_job_co_change(job, &options, error)
                   : bf_job_co_complete(job, error);
    }
}

static void
check_refusal(const VerbCase *verb, BfJobStatus status, GError **error)
{
    g_autofree char *pattern =
        g_strdup_printf("Job 'j' in state '%s' cannot accept command verb '%s'",
                        bf_job_status_str(status), verb->name);

    if (strcmp(verb->name, "resume") == 0) {
        g_clear_pointer(&pattern, g_free);
        pattern = g_strdup("Can't resume a job that was not paused");
    } else if (strcmp(verb->name, "pause") == 0 &&
               (status == BF_JOB_STATUS_PAUSED ||
                status == BF_JOB_STATUS_STANDBY)) {
        g_clear_pointer(&pattern, g_free);
        pattern = g_strdup("Job is already paused");
    }
    bf_test_assert_error(error, pattern);
}

static void
test_verbs_by_state(void *arg)
{
    for (BfJobStatus status = BF_JOB_STATUS_CREATED;
         status < BF_JOB_STATUS_NULL; status++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(verb_cases); i++) {
            const VerbCase *verb = &verb_cases[i];
            GError *error = NULL;
            Case c = {.job = NULL};
            bool ok = false;

            bf_test_jobs_new();
            co_reach(&c, status);
            bf_job_ref(&c.job->base);
            ok = co_apply(&c.job->base, verb->name, &error);
            g_assert_cmpint(ok, ==, (verb->allowed >> status) & 1);
            if (!ok) {
                check_refusal(verb, status, &error);
                g_assert_cmpint(c.job->base.status, ==, status);
            }
            leave(&c);
            bf_job_co_abandon(&c.job->base); /* if it is not started */
            bf_job_unref(&c.job->base);
            bf_test_jobs_co_free();
        }
    }
}

static void
test_automatic_end(void *arg)
{
    BfTestJob *self = NULL;

    bf_test_jobs_new();
    self = bf_test_job_start("j", false, NULL);
    bf_test_jobs_take_events("j:created j:running ");
    bf_test_job_give(self, BF_TEST_ORDER_FINISH);
    bf_test_jobs_co_wait_gone("j");
    bf_test_jobs_take_events(
        "j:waiting j:pending j:COMPLETED() j:concluded j:null ");
    g_assert_cmpstr(bf_test_jobs_calls(), ==,
                    "j:prepare j:commit j:clean j:free ");
    bf_test_job_start("j", false, NULL); /* the id is free */
    bf_test_jobs_co_free();
}

static void
test_manual_end(void *arg)
{
    BfTestJob *self = NULL;

    bf_test_jobs_new();
    self = bf_test_job_start("j", true, NULL);
    bf_test_job_give(self, BF_TEST_ORDER_FINISH);
    bf_test_jobs_co_wait_event("PENDING");
    bf_test_jobs_take_events(
        "j:created j:running j:waiting j:pending j:PENDING ");
    g_assert_true(bf_job_co_finalize(&self->base, NULL));
    bf_test_jobs_take_events("j:COMPLETED() j:concluded ");
    g_assert_true(bf_job_dismiss(&self->base, NULL));
    bf_test_jobs_take_events("j:null ");
    bf_test_jobs_co_free();
}

static void
test_failure(void *arg)
{
    g_autoptr(BfBlockJobInfoList) list = NULL;
    BfTestJob *self = NULL;

    bf_test_jobs_new();
    self = bf_test_job_start("j", true, NULL);
    bf_test_job_give(self, BF_TEST_ORDER_FAIL);
    bf_test_job_co_wait_status(self, BF_JOB_STATUS_CONCLUDED);
    bf_test_jobs_take_events("j:created j:running j:aborting j:COMPLETED(boom) "
                             "j:concluded ");
    g_assert_cmpstr(bf_test_jobs_calls(), ==, "j:abort j:clean ");
    list = bf_job_table_query_block(bf_test_jobs_table());
    g_assert_cmpuint(list->len, ==, 1);
    g_assert_cmpstr(list->items[0]->error, ==, "boom");
    g_assert_false(list->items[0]->busy);
    bf_test_jobs_co_free();
}

static void
test_prepare_fails(void *arg)
{
    BfTestJob *self = NULL;

    bf_test_jobs_new();
    self = bf_test_job_make(&bf_test_job_ops, "j", false, NULL);
    self->prepare_fails = true;
    bf_job_start(&self->base);
    bf_test_job_give(self, BF_TEST_ORDER_FINISH);
    bf_test_jobs_co_wait_gone("j");
    bf_test_jobs_take_events(
        "j:created j:running j:waiting j:pending j:aborting "
        "j:COMPLETED(not today) j:concluded j:null ");
    g_assert_cmpstr(bf_test_jobs_calls(), ==,
                    "j:prepare j:abort j:clean j:free ");
    bf_test_jobs_co_free();
}

static void
test_cancel_while_paused(void *arg)
{
    BfTestJob *self = NULL;

    bf_test_jobs_new();
    self = bf_test_job_start("j", false, NULL);
    g_assert_true(bf_job_pause(&self->base, NULL));
    bf_test_job_co_wait_status(self, BF_JOB_STATUS_PAUSED);
    g_assert_true(bf_job_co_cancel(&self->base, true, NULL));
    bf_test_jobs_co_wait_gone("j");
    bf_test_jobs_take_events(
        "j:created j:running j:paused j:running j:aborting "
        "j:CANCELLED j:concluded j:null ");
    bf_test_jobs_co_free();
}

static void
test_soft_cancel_completes(void *arg)
{
    BfTestJob *self = NULL;

    bf_test_jobs_new();
    self = bf_test_job_start("j", false, NULL);
    bf_test_job_give(self, BF_TEST_ORDER_READY);
    bf_test_jobs_co_wait_event("READY");
    bf_test_jobs_take_events("j:created j:running j:ready j:READY ");
    g_assert_true(bf_job_co_cancel(&self->base, false, NULL));
    bf_test_jobs_co_wait_gone("j");
    bf_test_jobs_take_events(
        "j:waiting j:pending j:COMPLETED() j:concluded j:null ");

    self = bf_test_job_start("k", false, NULL);
    g_assert_true(bf_job_co_cancel(&self->base, false, NULL));
    bf_test_jobs_co_wait_gone("k");
    bf_test_jobs_take_events(
        "k:created k:running k:aborting k:CANCELLED k:concluded "
        "k:null ");
    bf_test_jobs_co_free();
}

static void
test_complete_in_standby(void *arg)
{
    BfTestJob *self = NULL;

    bf_test_jobs_new();
    self = bf_test_job_start("j", false, NULL);
    bf_test_job_give(self, BF_TEST_ORDER_READY);
    bf_test_job_co_wait_status(self, BF_JOB_STATUS_READY);
    g_assert_true(bf_job_pause(&self->base, NULL));
    bf_test_job_co_wait_status(self, BF_JOB_STATUS_STANDBY);
    g_assert_true(bf_job_co_complete(&self->base, NULL));
    g_assert_cmpint(self->base.status, ==, BF_JOB_STATUS_STANDBY);
    g_assert_true(bf_job_resume(&self->base, NULL));
    bf_test_jobs_co_wait_gone("j");
    bf_test_jobs_take_events(
        "j:created j:running j:ready j:READY j:standby j:ready "
        "j:waiting j:pending j:COMPLETED() j:concluded j:null ");
    bf_test_jobs_co_free();
}

static void
test_group_succeeds(void *arg)
{
    g_autoptr(BfJobTxn) txn = bf_job_txn_new();
    BfTestJob *a = NULL;
    BfTestJob *b = NULL;

    bf_test_jobs_new();
    a = bf_test_job_start("a", false, txn);
    b = bf_test_job_start("b", true, txn);
    bf_test_jobs_take_events("a:created a:running b:created b:running ");
    bf_test_job_give(a, BF_TEST_ORDER_FINISH);
    bf_test_job_co_wait_status(a, BF_JOB_STATUS_WAITING);
    bf_test_job_give(b, BF_TEST_ORDER_FINISH);
    bf_test_jobs_co_wait_event("PENDING");
    bf_test_jobs_take_events(
        "a:waiting b:waiting b:pending b:PENDING a:pending ");
    g_assert_true(bf_job_co_finalize(&a->base, NULL));
    bf_test_jobs_take_events(
        "b:COMPLETED() b:concluded a:COMPLETED() a:concluded a:null ");
    g_assert_cmpstr(bf_test_jobs_calls(), ==,
                    "b:prepare a:prepare b:commit b:clean a:commit a:clean "
                    "a:free ");
    bf_test_jobs_co_free();
}

static void
test_group_fails(void *arg)
{
    g_autoptr(BfJobTxn) txn = bf_job_txn_new();
    BfTestJob *a = NULL;
    BfTestJob *b = NULL;

    bf_test_jobs_new();
    a = bf_test_job_start("a", false, txn);
    b = bf_test_job_start("b", false, txn);
    bf_test_job_start("c", false, txn);
    bf_test_job_give(a, BF_TEST_ORDER_FINISH);
    bf_test_job_co_wait_status(a, BF_JOB_STATUS_WAITING);
    bf_test_jobs_drop_events();
    bf_test_job_give(b, BF_TEST_ORDER_FAIL);
    bf_test_jobs_co_wait_gone("a");
    bf_test_jobs_take_events(
        "b:aborting c:aborting c:CANCELLED c:concluded c:null "
        "b:COMPLETED(boom) b:concluded b:null "
        "a:aborting a:CANCELLED a:concluded a:null ");
    bf_test_jobs_co_free();
}

static void
test_cancel_pending_group(void *arg)
{
    g_autoptr(BfJobTxn) txn = bf_job_txn_new();
    BfTestJob *a = NULL;
    BfTestJob *b = NULL;

    bf_test_jobs_new();
    a = bf_test_job_start("a", true, txn);
    b = bf_test_job_start("b", true, txn);
    bf_test_job_give(a, BF_TEST_ORDER_FINISH);
    bf_test_job_give(b, BF_TEST_ORDER_FINISH);
    bf_test_job_co_wait_status(a, BF_JOB_STATUS_PENDING);
    bf_test_jobs_drop_events();
    g_assert_true(bf_job_co_cancel(&a->base, true, NULL));
    bf_test_jobs_take_events("b:aborting b:CANCELLED b:concluded "
                             "a:aborting a:CANCELLED a:concluded ");
    bf_test_jobs_co_free();
}

static void
co_finalize(void *arg)
{
    BfTestJob *self = arg;

    bf_job_co_finalize(&self->base, NULL);
}

static void
test_cancel_during_prepare(void *arg)
{
    GError *error = NULL;
    BfTestJob *self = NULL;

    bf_test_jobs_new();
    self = bf_test_job_make(&bf_test_job_ops, "j", true, NULL);
    self->block_prepare = true;
    bf_job_start(&self->base);
    bf_test_job_give(self, BF_TEST_ORDER_FINISH);
    bf_test_jobs_co_wait_event("PENDING");
    bf_test_jobs_drop_events();
    bf_co_spawn(co_finalize, self);
    g_assert_true(self->is_blocked);
    g_assert_false(bf_job_co_finalize(&self->base, &error));
    bf_test_assert_error(&error, "*being finalized*");
    g_assert_true(bf_job_co_cancel(&self->base, true, NULL));
    bf_test_jobs_take_events("");
    bf_co_queue_wake_all(&self->gate);
    bf_test_job_co_wait_status(self, BF_JOB_STATUS_CONCLUDED);
    bf_test_jobs_take_events("j:aborting j:CANCELLED j:concluded ");
    bf_test_jobs_co_free();
}

static void
test_rolled_back(void *arg)
{
    g_autoptr(BfJobTxn) txn = bf_job_txn_new();
    BfTestJob *a = NULL;
    BfTestJob *b = NULL;

    bf_test_jobs_new();
    a = bf_test_job_make(&bf_test_job_ops, "a", true, txn);
    b = bf_test_job_make(&bf_test_job_ops, "b", true, txn);
    bf_job_created(&a->base);
    bf_job_ref(&a->base);
    bf_job_ref(&b->base);
    bf_job_co_abandon(&a->base);
    bf_test_jobs_take_events("a:created a:aborting a:concluded a:null ");
    bf_job_start(&b->base); /* too late for this transaction */
    bf_test_job_co_wait_status(b, BF_JOB_STATUS_NULL);
    bf_test_jobs_take_events("b:created b:aborting b:concluded b:null ");
    bf_job_unref(&a->base);
    bf_job_unref(&b->base);
    a = bf_test_job_make(&bf_test_job_ops, "a", true, NULL);
    bf_job_drop(&a->base);
    bf_test_jobs_take_events("");
    bf_test_jobs_co_free();
}

static void
test_error_actions(void *arg)
{
    BfTestJob *self = NULL;

    bf_test_jobs_new();
    self = bf_test_job_start("j", false, NULL);
    self->err = ENOSPC;
    self->action = BF_BLOCK_ERROR_ACTION_STOP;
    bf_test_jobs_take_events("j:created j:running ");
    bf_test_job_give(self, BF_TEST_ORDER_ERROR);
    bf_test_job_co_wait_status(self, BF_JOB_STATUS_PAUSED);
    bf_test_jobs_take_events("j:ERROR(write,stop) j:paused ");
    g_assert_true(bf_job_is_user_paused(&self->base));
    g_assert_cmpint(self->base.io_status, ==,
                    BF_BLOCK_DEVICE_IO_STATUS_NOSPACE);
    g_assert_true(bf_job_resume(&self->base, NULL));
    g_assert_cmpint(self->base.io_status, ==, BF_BLOCK_DEVICE_IO_STATUS_OK);
    bf_test_jobs_co_wait_event("j:running j:ERROR(write,stop) j:paused ");
    bf_test_jobs_drop_events();
    self->action = BF_BLOCK_ERROR_ACTION_REPORT;
    g_assert_true(bf_job_resume(&self->base, NULL));
    bf_test_jobs_co_wait_gone("j");
    bf_test_jobs_take_events(
        "j:running j:ERROR(write,report) j:aborting "
        "j:COMPLETED(No space left on device) j:concluded j:null ");
    bf_test_jobs_co_free();
}

/* The fake clock stands still: the second try comes when it is moved. */
static void
test_ignored_errors_back_off(void *arg)
{
    BfTestJob *self = NULL;

    bf_test_jobs_new();
    self = bf_test_job_start("j", false, NULL);
    self->err = EIO;
    self->action = BF_BLOCK_ERROR_ACTION_IGNORE;
    bf_test_jobs_take_events("j:created j:running ");
    bf_test_job_give(self, BF_TEST_ORDER_ERROR);
    for (unsigned i = 1; i <= 5; i++) {
        while (bf_atomic_load(&self->tries) < i ||
               bf_atomic_load(&self->base.resting) == 0) {
            bf_test_advance(0);
        }
        g_assert_cmpuint(bf_atomic_load(&self->tries), ==, i);
        bf_test_advance((100 * BF_NS_PER_MS) << (i - 1));
    }
    bf_job_co_cancel(&self->base, true, NULL);
    bf_test_jobs_co_wait_gone("j");
    bf_test_jobs_co_free();
}

static bool
run_rate(BfJob *job, GError **error)
{
    const uint64_t start_ns = bf_loop_now_ns();

    for (unsigned i = 0; i < 64; i++) {
        if (!bf_job_co_limit_rate(job, 64 * BF_KIB)) {
            return false;
        }
    }
    bf_atomic_store(&((BfTestJob *)job)->tries, bf_loop_now_ns() - start_ns);
    return true;
}

static void
test_rate_is_kept(void *arg)
{
    static const BfJobOps ops = {
        .type = BF_JOB_TYPE_BACKUP, .is_block_job = true, .co_run = run_rate};
    BfTestJob *self = NULL;

    bf_test_jobs_new();
    self = bf_test_job_make(&ops, "j", true, NULL);
    g_assert_true(bf_job_set_speed(&self->base, 0, NULL) == false);
    bf_job_created(&self->base);
    g_assert_true(bf_job_set_speed(&self->base, 8 * BF_MIB, NULL));
    bf_job_start(&self->base);
    bf_test_job_co_wait_status(self, BF_JOB_STATUS_PENDING);
    /* 4 MiB at 8 MiB/s take half a second; the last slice need not wait. */
    g_assert_cmpuint(bf_atomic_load(&self->tries), >=, 400 * BF_NS_PER_MS);
    bf_test_jobs_co_free();
}

/* At 10 MiB/s a slice is 1 MiB, on a clock that stands still. */
static void
check_waits(BfJob *job)
{
    g_assert_cmpuint(bf_job_rate_slice(job), ==, BF_MIB);
    g_assert_cmpuint(bf_job_rate_wait(job, BF_MIB, 0), ==, 0);
    bf_job_take_rate(job, BF_MIB / 2);
    g_assert_cmpuint(bf_job_rate_wait(job, BF_MIB / 2, 0), ==, 0);
    g_assert_cmpuint(bf_job_rate_wait(job, BF_MIB, 0), ==, 50 * BF_NS_PER_MS);
    bf_job_take_rate(job, BF_MIB / 2);
    g_assert_cmpuint(bf_job_rate_wait(job, 0, 0), ==, 0);
    g_assert_cmpuint(bf_job_rate_wait(job, BF_MIB, 0), ==, 100 * BF_NS_PER_MS);
    /* Larger than a slice: once all that was taken is due. */
    g_assert_cmpuint(bf_job_rate_wait(job, 64 * BF_MIB, 0), ==,
                     100 * BF_NS_PER_MS);
}

static void
check_changes_of_speed(BfJob *job)
{
    bf_job_take_rate(job, 64 * BF_MIB);
    g_assert_cmpuint(bf_job_rate_wait(job, BF_MIB, 0), ==, 6500 * BF_NS_PER_MS);
    bf_atomic_store(&job->speed, 20 * BF_MIB);
    /* A slice is what is held against it, and lets nothing through. */
    g_assert_cmpuint(bf_job_rate_wait(job, 2 * BF_MIB, 0), ==,
                     100 * BF_NS_PER_MS);
    bf_atomic_store(&job->speed, 0);
    g_assert_cmpuint(bf_job_rate_wait(job, BF_GIB, BF_GIB), ==, 0);
    bf_job_take_rate(job, BF_GIB);
    bf_atomic_store(&job->speed, 1);
    g_assert_cmpuint(bf_job_rate_wait(job, 1, 0), ==, 100 * BF_NS_PER_MS);
}

static bool
run_rate_waits(BfJob *job, GError **error)
{
    check_waits(job);
    check_changes_of_speed(job);
    return true;
}

static bool
run_rate_in_flight(BfJob *job, GError **error)
{
    g_assert_cmpuint(bf_job_rate_wait(job, BF_MIB / 2, BF_MIB / 2), ==, 0);
    g_assert_cmpuint(bf_job_rate_wait(job, BF_MIB / 2, BF_MIB / 2 + 1), >, 0);
    g_assert_cmpuint(bf_job_rate_wait(job, 1, BF_GIB), >, 0);
    g_assert_cmpuint(bf_job_rate_wait(job, BF_GIB, 0), ==, 0);
    return true;
}

static void
co_run_at_ten_mib(bool (*co_run)(BfJob *job, GError **error))
{
    const BfJobOps ops = {
        .type = BF_JOB_TYPE_BACKUP, .is_block_job = true, .co_run = co_run};
    BfTestJob *self = NULL;

    bf_test_jobs_new();
    self = bf_test_job_make(&ops, "j", true, NULL);
    bf_job_created(&self->base);
    g_assert_true(bf_job_set_speed(&self->base, 10 * BF_MIB, NULL));
    bf_job_start(&self->base);
    bf_test_job_co_wait_status(self, BF_JOB_STATUS_PENDING);
    bf_test_jobs_co_free();
}

static void
test_rate_waits_are_exact(void *arg)
{
    co_run_at_ten_mib(run_rate_waits);
}

static void
test_rate_counts_what_is_under_way(void *arg)
{
    co_run_at_ten_mib(run_rate_in_flight);
}

static void
test_speed_changes_at_once(void *arg)
{
    static const BfJobOps ops = {
        .type = BF_JOB_TYPE_BACKUP, .is_block_job = true, .co_run = run_rate};
    BfTestJob *self = NULL;

    bf_test_jobs_new();
    self = bf_test_job_make(&ops, "j", true, NULL);
    bf_job_created(&self->base);
    g_assert_true(bf_job_set_speed(&self->base, 1, NULL));
    bf_job_start(&self->base);
    while (bf_atomic_load(&self->base.resting) == 0) {
        bf_co_sleep_ns(BF_NS_PER_MS);
    }
    g_assert_true(bf_job_set_speed(&self->base, 0, NULL));
    bf_test_job_co_wait_status(self, BF_JOB_STATUS_PENDING);
    bf_test_jobs_co_free();
}

static void
test_ids_and_queries(void *arg)
{
    static BfJobOps plain;
    g_autofree BfTestJob *bad = g_new0(BfTestJob, 1);
    g_autoptr(BfJobInfoList) jobs = NULL;
    g_autoptr(BfBlockJobInfoList) block_jobs = NULL;
    GError *error = NULL;
    BfJobSettings settings = {.id = "0j"};
    BfTestJob *internal = NULL;

    plain.type = BF_JOB_TYPE_CREATE;
    plain.co_run = bf_test_job_ops.co_run;
    bf_test_jobs_new();
    g_assert_false(bf_job_init(&bad->base, &bf_test_job_ops,
                               bf_test_jobs_table(), &settings, NULL, &error));
    bf_test_assert_error(&error, "Invalid job ID '0j'");
    bf_test_job_start("j", false, NULL);
    settings.id = "j";
    g_assert_false(bf_job_init(&bad->base, &bf_test_job_ops,
                               bf_test_jobs_table(), &settings, NULL, &error));
    bf_test_assert_error(&error, "Job ID 'j' already in use");
    internal = bf_test_job_make(&bf_test_job_ops, NULL, false, NULL);
    bf_job_start(&internal->base);
    g_assert_null(bf_job_table_find(bf_test_jobs_table(), internal->base.id));
    bf_job_start(&bf_test_job_make(&plain, "c", false, NULL)->base);
    bf_test_jobs_take_events("j:created j:running c:created c:running ");

    jobs = bf_job_table_query(bf_test_jobs_table());
    g_assert_cmpuint(jobs->len, ==, 2);
    g_assert_cmpstr(jobs->items[0]->id, ==, "c");
    block_jobs = bf_job_table_query_block(bf_test_jobs_table());
    g_assert_cmpuint(block_jobs->len, ==, 1);
    g_assert_cmpstr(block_jobs->items[0]->device, ==, "j");
    bf_test_jobs_co_free();
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/job/verb/allowed-by-state", test_verbs_by_state);
    bf_test_add("/block/job/end/automatic", test_automatic_end);
    bf_test_add("/block/job/end/manual", test_manual_end);
    bf_test_add("/block/job/end/failure", test_failure);
    bf_test_add("/block/job/end/prepare-fails", test_prepare_fails);
    bf_test_add("/block/job/cancel/while-paused", test_cancel_while_paused);
    bf_test_add("/block/job/cancel/soft-completes", test_soft_cancel_completes);
    bf_test_add("/block/job/cancel/during-prepare", test_cancel_during_prepare);
    bf_test_add("/block/job/complete/in-standby", test_complete_in_standby);
    bf_test_add("/block/job/txn/succeeds-together", test_group_succeeds);
    bf_test_add("/block/job/txn/fails-together", test_group_fails);
    bf_test_add("/block/job/txn/cancel-pending", test_cancel_pending_group);
    bf_test_add("/block/job/txn/rolled-back", test_rolled_back);
    bf_test_add("/block/job/error/stop-and-report", test_error_actions);
    bf_test_add_fake("/block/job/error/ignored-ones-back-off",
                     test_ignored_errors_back_off);
    bf_test_add("/block/job/rate/is-kept", test_rate_is_kept);
    bf_test_add("/block/job/rate/changes-at-once", test_speed_changes_at_once);
    bf_test_add_fake("/block/job/rate/waits-are-exact",
                     test_rate_waits_are_exact);
    bf_test_add_fake("/block/job/rate/counts-what-is-under-way",
                     test_rate_counts_what_is_under_way);
    bf_test_add("/block/job/table/ids-and-queries", test_ids_and_queries);
    return g_test_run();
}
