/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Jobs: the table, the states, and the verbs that users apply.
 *
 * A state changes on main only, in bf_job_set_status(), which knows what may
 * follow what. What co_run needs to know (cancelled, pausing, speed) is kept in
 * atomics that are stored before a kick is sent to its loop; so whoever checks
 * them right before going to sleep misses nothing.
 */
#include "core/error.h"
#include "core/util.h"
#include "job-private.h"

#define BIT(status) (1u << BF_JOB_STATUS_##status)

/* What may follow each state. */
static const unsigned transitions[] = {
    [BF_JOB_STATUS_UNDEFINED] = BIT(CREATED),
    [BF_JOB_STATUS_CREATED] = BIT(RUNNING) | BIT(ABORTING) | BIT(NULL),
    [BF_JOB_STATUS_RUNNING] =
        BIT(PAUSED) | BIT(READY) | BIT(WAITING) | BIT(ABORTING),
    [BF_JOB_STATUS_PAUSED] = BIT(RUNNING),
    [BF_JOB_STATUS_READY] = BIT(STANDBY) | BIT(WAITING) | BIT(ABORTING),
    [BF_JOB_STATUS_STANDBY] = BIT(READY),
    [BF_JOB_STATUS_WAITING] = BIT(PENDING) | BIT(ABORTING),
    [BF_JOB_STATUS_PENDING] = BIT(ABORTING) | BIT(CONCLUDED),
    [BF_JOB_STATUS_ABORTING] = BIT(CONCLUDED),
    [BF_JOB_STATUS_CONCLUDED] = BIT(NULL),
    [BF_JOB_STATUS_NULL] = 0,
};

#define AT_WORK                                                                \
    (BIT(CREATED) | BIT(RUNNING) | BIT(PAUSED) | BIT(READY) | BIT(STANDBY))

typedef struct Verb {
    const char *name;
    unsigned allowed; /* states */
} Verb;

static const Verb verb_cancel = {"cancel",
                                 AT_WORK | BIT(WAITING) | BIT(PENDING)};
static const Verb verb_pause = {"pause", AT_WORK};
static const Verb verb_resume = {"resume", AT_WORK};
static const Verb verb_set_speed = {"set-speed", AT_WORK};
static const Verb verb_change = {"change", AT_WORK};
static const Verb verb_complete = {"complete", BIT(READY) | BIT(STANDBY)};
static const Verb verb_finalize = {"finalize", BIT(PENDING)};
static const Verb verb_dismiss = {"dismiss", BIT(CONCLUDED)};

static bool
check_verb(const BfJob *job, const Verb *verb, GError **error)
{
    bf_assert_main();
    if (((verb->allowed >> job->status) & 1) == 0) {
        bf_set_error(error,
                     "Job '%s' in state '%s' cannot accept command verb '%s'",
                     job->id, bf_job_status_str(job->status), verb->name);
        return false;
    }
    return true;
}

/* The table. */

BfJobTable *
bf_job_table_new(const BfJobEvents *events, void *opaque)
{
    BfJobTable *table = g_new0(BfJobTable, 1);

    table->events = events;
    table->opaque = opaque;
    table->jobs = bf_registry_new();
    return table;
}

void
bf_job_table_free(BfJobTable *table)
{
    if (table == NULL) {
        return;
    }
    g_assert(bf_registry_size(table->jobs) == 0);
    bf_registry_free(table->jobs);
    g_free(table);
}

static bool
is_visible(const BfJob *job)
{
    return !job->internal && job->status != BF_JOB_STATUS_UNDEFINED;
}

BfJob *
bf_job_table_find(BfJobTable *table, const char *id)
{
    BfJob *job = bf_registry_find(table->jobs, id);

    return job != NULL && is_visible(job) ? job : NULL;
}

static BfJobUse
get_use(const BfJob *job, const BfNode *node)
{
    return job->ops->use_of != NULL && job->status != BF_JOB_STATUS_CONCLUDED
               ? job->ops->use_of(job, node)
               : BF_JOB_USE_NONE;
}

const char *
bf_job_table_find_user(BfJobTable *table, const BfNode *node)
{
    g_autoptr(GPtrArray) jobs = bf_registry_list(table->jobs);

    for (unsigned i = 0; i < jobs->len; i++) {
        const BfJob *job = g_ptr_array_index(jobs, i);

        if (get_use(job, node) != BF_JOB_USE_NONE) {
            return job->id;
        }
    }
    return NULL;
}

bool
bf_job_table_check_node(BfJobTable *table, const BfNode *node,
                        const BfJobOps *ops, bool shared, GError **error)
{
    g_autoptr(GPtrArray) jobs = bf_registry_list(table->jobs);

    bf_assert_main();
    for (unsigned i = 0; i < jobs->len; i++) {
        const BfJob *job = g_ptr_array_index(jobs, i);
        const BfJobUse use = get_use(job, node);

        if (use == BF_JOB_USE_ALONE ||
            (use == BF_JOB_USE_SHARED && !(shared && job->ops == ops))) {
            bf_set_error(error,
                         "Node '%s' is busy: block device is in use by block "
                         "job: %s",
                         bf_node_name(node), bf_job_type_str(job->ops->type));
            return false;
        }
    }
    return true;
}

const char *
bf_job_table_find_loop_user(BfJobTable *table, const BfLoop *loop)
{
    g_autoptr(GPtrArray) jobs = bf_registry_list(table->jobs);

    for (unsigned i = 0; i < jobs->len; i++) {
        const BfJob *job = g_ptr_array_index(jobs, i);

        if (job->loop == loop && job->status != BF_JOB_STATUS_CONCLUDED) {
            return job->id;
        }
    }
    return NULL;
}

static int64_t
progress_done(const BfJob *job)
{
    return (int64_t)MIN(bf_atomic_load(&job->done), (uint64_t)INT64_MAX);
}

static int64_t
progress_total(const BfJob *job)
{
    uint64_t total;

    if (!bf_add_u64(bf_atomic_load(&job->done), bf_atomic_load(&job->remaining),
                    &total)) {
        return INT64_MAX;
    }
    return (int64_t)MIN(total, (uint64_t)INT64_MAX);
}

static BfJobInfo *
query_job(const BfJob *job)
{
    BfJobInfo *info = g_new0(BfJobInfo, 1);

    info->id = g_strdup(job->id);
    info->type = job->ops->type;
    info->status = job->status;
    info->current_progress = progress_done(job);
    info->total_progress = progress_total(job);
    info->error = job->error != NULL ? g_strdup(job->error->message) : NULL;
    return info;
}

BfJobInfoList *
bf_job_table_query(BfJobTable *table)
{
    g_autoptr(GPtrArray) jobs = bf_registry_list(table->jobs);
    BfJobInfoList *list = g_new0(BfJobInfoList, 1);

    bf_assert_main();
    list->items = g_new0(BfJobInfo *, jobs->len + 1);
    for (unsigned i = jobs->len; i > 0; i--) {
        const BfJob *job = g_ptr_array_index(jobs, i - 1);

        if (is_visible(job)) {
            list->items[list->len++] = query_job(job);
        }
    }
    return list;
}

static BfBlockJobInfo *
query_block_job(BfJob *job)
{
    BfBlockJobInfo *info = g_new0(BfBlockJobInfo, 1);

    info->type = job->ops->type;
    info->device = g_strdup(job->id);
    info->len = progress_total(job);
    info->offset = progress_done(job);
    info->busy = job->is_running && bf_atomic_load(&job->resting) == 0 &&
                 job->status != BF_JOB_STATUS_PAUSED &&
                 job->status != BF_JOB_STATUS_STANDBY;
    info->paused = bf_job_wants_pause(job);
    info->speed = (int64_t)bf_atomic_load(&job->speed);
    info->io_status = job->io_status;
    info->ready = job->status == BF_JOB_STATUS_READY ||
                  job->status == BF_JOB_STATUS_STANDBY;
    info->status = job->status;
    info->auto_finalize = !job->manual_finalize;
    info->auto_dismiss = !job->manual_dismiss;
    info->error = job->error != NULL ? g_strdup(job->error->message) : NULL;
    info->progress = g_new0(BfBlockJobProgress, 1);
    bf_job_watch_query(job, info->progress);
    if (job->ops->query != NULL) {
        job->ops->query(job, info);
    }
    return info;
}

BfBlockJobInfoList *
bf_job_table_query_block(BfJobTable *table)
{
    g_autoptr(GPtrArray) jobs = bf_registry_list(table->jobs);
    BfBlockJobInfoList *list = g_new0(BfBlockJobInfoList, 1);

    bf_assert_main();
    list->items = g_new0(BfBlockJobInfo *, jobs->len + 1);
    for (unsigned i = jobs->len; i > 0; i--) {
        BfJob *job = g_ptr_array_index(jobs, i - 1);

        if (is_visible(job) && job->ops->is_block_job) {
            list->items[list->len++] = query_block_job(job);
        }
    }
    return list;
}

/* Making and ending. */

bool
bf_job_init(BfJob *job, const BfJobOps *ops, BfJobTable *table,
            const BfJobSettings *settings, BfJobTxn *txn, GError **error)
{
    g_autofree char *id = NULL;

    bf_assert_main();
    if (table->closing) {
        bf_set_error(error, "The daemon is about to end; no job is started");
        return false;
    }
    if (settings->id != NULL && !bf_id_is_wellformed(settings->id)) {
        bf_set_error(error, "Invalid job ID '%s'", settings->id);
        return false;
    }
    if (settings->speed < 0) {
        bf_set_error(error, "Parameter 'speed' expects a non-negative value");
        return false;
    }
    id = settings->id != NULL ? g_strdup(settings->id)
                              : g_strdup_printf("#job%u", table->last_internal);
    if (!bf_registry_add(table->jobs, id, job)) {
        bf_set_error(error, "Job ID '%s' already in use", id);
        return false;
    }
    table->last_internal += settings->id == NULL;
    job->ops = ops;
    job->table = table;
    job->id = g_steal_pointer(&id);
    job->refs = 1;
    job->internal = settings->id == NULL;
    job->manual_finalize = settings->manual_finalize;
    job->manual_dismiss = settings->manual_dismiss;
    job->watch.stall_seconds = BF_JOB_STALL_SECONDS;
    bf_atomic_store(&job->speed, (uint64_t)settings->speed);
    job->txn = txn != NULL ? txn : bf_job_txn_new();
    bf_job_txn_add(job->txn, job);
    if (txn == NULL) {
        bf_job_txn_unref(job->txn); /* its jobs keep it */
    }
    return true;
}

BfJob *
bf_job_ref(BfJob *job)
{
    bf_assert_main();
    job->refs++;
    return job;
}

void
bf_job_unref(BfJob *job)
{
    if (job == NULL || --job->refs > 0) {
        return;
    }
    bf_assert_main();
    if (job->ops->free != NULL) {
        job->ops->free(job);
    }
    g_clear_error(&job->error);
    g_free(job->id);
    g_free(job);
}

void
bf_job_set_status(BfJob *job, BfJobStatus status)
{
    const BfJobTable *table = job->table;

    bf_assert_main();
    if (job->status == status) {
        return;
    }
    g_assert(((transitions[job->status] >> status) & 1) != 0);
    job->status = status;
    if (!job->internal && table->events != NULL) {
        table->events->status_changed(table->opaque, job->id, status);
    }
}

void
bf_job_make_notice(const BfJob *job, BfJobNotice *ret_notice)
{
    *ret_notice = (BfJobNotice){
        .type = job->ops->type,
        .id = job->id,
        .len = (uint64_t)progress_total(job),
        .offset = (uint64_t)progress_done(job),
        .speed = bf_atomic_load(&job->speed),
        .error = job->error != NULL ? job->error->message : NULL,
    };
}

void
bf_job_created(BfJob *job)
{
    bf_job_set_status(job, BF_JOB_STATUS_CREATED);
}

void
bf_job_forget(BfJob *job)
{
    BfJobTable *table = job->table;

    if (job->status != BF_JOB_STATUS_UNDEFINED) {
        bf_job_set_status(job, BF_JOB_STATUS_NULL);
    }
    bf_registry_remove(table->jobs, job->id);
    bf_job_unref(job);
    bf_co_queue_wake_all(&table->changed);
}

void
bf_job_drop(BfJob *job)
{
    bf_assert_main();
    g_assert(!job->started);
    bf_job_txn_remove(job->txn, job);
    bf_job_forget(job);
}

typedef struct Run {
    BfJob *job;
    bool ok;
    GError *error;
} Run;

static void
co_run_on_loop(void *arg)
{
    Run *run = arg;

    run->ok = bf_job_co_pause_point(run->job) &&
              run->job->ops->co_run(run->job, &run->error);
}

static void
do_nothing(void *arg)
{
}

static void
co_job(void *arg)
{
    BfJob *job = arg;
    Run run = {.job = job};

    bf_co_call(job->loop, co_run_on_loop, &run);
    job->is_running = false;
    bf_job_watch_stop(job);
    /* Kicks that are under way refer to the job. */
    bf_co_call(job->loop, do_nothing, NULL);
    job->error = run.error;
    bf_job_co_completed(job, run.ok);
    bf_job_unref(job);
}

static void
co_abandon(void *arg)
{
    BfJob *job = arg;

    bf_job_co_abandon(job);
    bf_job_unref(job);
}

void
bf_job_start(BfJob *job)
{
    bf_assert_main();
    if (job->status == BF_JOB_STATUS_UNDEFINED) {
        bf_job_created(job);
    }
    if (job->status != BF_JOB_STATUS_CREATED) {
        return;
    }
    bf_job_ref(job);
    if (job->txn->aborted) {
        bf_co_spawn(co_abandon, job);
        return;
    }
    g_assert(job->loop != NULL);
    job->started = true;
    job->is_running = true;
    bf_job_set_status(job, BF_JOB_STATUS_RUNNING);
    bf_job_watch_start(job);
    bf_co_spawn(co_job, job);
}

void
bf_job_kick_from_main(BfJob *job)
{
    if (job->is_running) {
        bf_job_kick(job);
    }
}

static void
clear_pause(BfJob *job)
{
    job->user_paused = false;
    job->io_status = BF_BLOCK_DEVICE_IO_STATUS_OK;
    bf_atomic_store(&job->pausing, 0);
}

/* Its last steps that may fail are under way. */
static bool
is_finalizing(const BfJob *job)
{
    return job->started && job->txn != NULL && job->txn->finalizing;
}

void
bf_job_mark_cancelled(BfJob *job)
{
    if (bf_job_is_cancelled(job) || (job->txn != NULL && job->txn->committed)) {
        return;
    }
    bf_atomic_store(&job->cancelled, 1);
    clear_pause(job);
    if (job->is_running || is_finalizing(job)) {
        if (job->ops->aborted != NULL) {
            job->ops->aborted(job);
        }
        bf_job_source_start(job);
    }
    bf_job_kick_from_main(job);
}

static bool
is_left(const BfJob *job)
{
    return job->started && job->status >= BF_JOB_STATUS_WAITING;
}

/* A transaction ends in one place; this one is done when the job is gone. */
void
bf_job_co_abandon(BfJob *job)
{
    BfJobTxn *txn = job->txn;

    bf_assert_main();
    if (job->started || job->status != BF_JOB_STATUS_CREATED) {
        return;
    }
    bf_job_ref(job);
    txn->refs++;
    bf_job_mark_cancelled(job);
    bf_job_txn_co_abort(txn);
    while (job->status != BF_JOB_STATUS_NULL) {
        bf_co_queue_co_wait(&txn->changed);
    }
    bf_job_txn_unref(txn);
    bf_job_unref(job);
}

/* One step towards an empty table. Returns false if there was none to make, as
 * for a job that is not started: what it uses is not ours to give back before
 * its owner starts or abandons it. */
static bool
co_end(BfJob *job)
{
    switch (job->status) {
    case BF_JOB_STATUS_CONCLUDED:
        bf_job_forget(job);
        return true;
    case BF_JOB_STATUS_WAITING:
    case BF_JOB_STATUS_PENDING:
        return bf_job_co_cancel(job, true, NULL) &&
               job->status == BF_JOB_STATUS_CONCLUDED;
    default:
        return false;
    }
}

/* Jobs that work end together; the others one by one. */
static bool
co_end_all(GPtrArray *jobs)
{
    bool progress = false;

    for (unsigned i = 0; i < jobs->len; i++) {
        BfJob *job = bf_job_ref(g_ptr_array_index(jobs, i));

        if (!is_left(job)) {
            bf_job_mark_cancelled(job);
        }
    }
    for (unsigned i = 0; i < jobs->len; i++) {
        BfJob *job = g_ptr_array_index(jobs, i);

        progress |= co_end(job) || job->status == BF_JOB_STATUS_NULL;
        bf_job_unref(job);
    }
    return progress;
}

void
bf_job_table_co_cancel_all(BfJobTable *table)
{
    bf_assert_main();
    table->closing = true;
    while (bf_registry_size(table->jobs) > 0) {
        g_autoptr(GPtrArray) jobs = bf_registry_list(table->jobs);

        if (!co_end_all(jobs)) {
            bf_co_queue_co_wait(&table->changed);
        }
    }
}

/* Verbs. */

bool
bf_job_is_block_job(const BfJob *job)
{
    return job->ops->is_block_job;
}

bool
bf_job_is_user_paused(const BfJob *job)
{
    return job->user_paused;
}

bool
bf_job_pause(BfJob *job, GError **error)
{
    if (!check_verb(job, &verb_pause, error)) {
        return false;
    }
    if (job->user_paused) {
        bf_set_error(error, "Job is already paused");
        return false;
    }
    job->user_paused = true;
    bf_atomic_store(&job->pausing, 1);
    bf_job_kick_from_main(job);
    return true;
}

bool
bf_job_resume(BfJob *job, GError **error)
{
    bf_assert_main();
    if (!job->user_paused) {
        bf_set_error(error, "Can't resume a job that was not paused");
        return false;
    }
    if (!check_verb(job, &verb_resume, error)) {
        return false;
    }
    clear_pause(job);
    bf_job_kick_from_main(job);
    return true;
}

static void
co_cancel_by_force(BfJob *job)
{
    BfJobTxn *txn = job->txn;

    if (txn->committed) {
        return; /* it has succeeded; the events will tell */
    }
    /* One that is not started has an owner, who starts or abandons it. */
    bf_job_mark_cancelled(job);
    if (is_left(job) && !txn->finalizing) {
        bf_job_txn_co_abort(txn);
    }
}

bool
bf_job_co_cancel(BfJob *job, bool force, GError **error)
{
    if (!check_verb(job, &verb_cancel, error)) {
        return false;
    }
    bf_job_ref(job);
    if (!force && job->is_running && !bf_job_is_cancelled(job) &&
        job->ops->soft_cancel != NULL && job->ops->soft_cancel(job)) {
        clear_pause(job);
        bf_job_kick_from_main(job);
    } else {
        co_cancel_by_force(job);
    }
    bf_job_unref(job);
    return true;
}

bool
bf_job_co_complete(BfJob *job, GError **error)
{
    bool ok = false;

    if (!check_verb(job, &verb_complete, error)) {
        return false;
    }
    if (job->ops->co_complete == NULL || bf_job_is_cancelled(job)) {
        bf_set_error(error, "The active block job '%s' cannot be completed",
                     job->id);
        return false;
    }
    bf_job_ref(job);
    ok = job->ops->co_complete(job, error);
    bf_job_kick_from_main(job);
    bf_job_unref(job);
    return ok;
}

bool
bf_job_co_finalize(BfJob *job, GError **error)
{
    if (!check_verb(job, &verb_finalize, error)) {
        return false;
    }
    if (job->txn->finalizing || job->txn->aborting) {
        bf_set_error(error, "Job '%s' is being finalized or cancelled already",
                     job->id);
        return false;
    }
    bf_job_txn_co_finalize(job->txn);
    return true;
}

bool
bf_job_dismiss(BfJob *job, GError **error)
{
    if (!check_verb(job, &verb_dismiss, error)) {
        return false;
    }
    bf_job_forget(job);
    return true;
}

bool
bf_job_set_speed(BfJob *job, int64_t speed, GError **error)
{
    if (!check_verb(job, &verb_set_speed, error)) {
        return false;
    }
    if (speed < 0) {
        bf_set_error(error, "Parameter 'speed' expects a non-negative value");
        return false;
    }
    bf_atomic_store(&job->speed, (uint64_t)speed);
    bf_job_kick_from_main(job);
    return true;
}

bool
bf_job_co_change(BfJob *job, const BfBlockJobChangeOptions *options,
                 GError **error)
{
    bool ok = false;

    if (!check_verb(job, &verb_change, error)) {
        return false;
    }
    if (job->ops->type != options->type) {
        bf_set_error(error, "Job '%s' is '%s' job, not '%s'", job->id,
                     bf_job_type_str(job->ops->type),
                     bf_job_type_str(options->type));
        return false;
    }
    if (job->ops->co_change == NULL) {
        bf_set_error(error, "Job type does not support change");
        return false;
    }
    bf_job_ref(job);
    ok = job->ops->co_change(job, options, error);
    bf_job_kick_from_main(job);
    bf_job_unref(job);
    return ok;
}
