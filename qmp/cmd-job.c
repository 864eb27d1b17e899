/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP commands on jobs. There are two families: job-* for all jobs, and
 * block-job-* for those that work on nodes; they differ in how they name a job
 * and in the error for one that does not exist.
 */
#include "block/create.h"
#include "block/job.h"
#include "core/error.h"
#include "qmp/dispatch.h"
#include "qmp/gen-commands.h"

static BfJob *
find_job(BfQmpCall *call, const char *id, GError **error)
{
    BfJob *job = bf_job_table_find(call->daemon->jobs, id);

    if (job == NULL) {
        bf_set_error(error, "Job not found");
    }
    return job;
}

static BfJob *
find_block_job(BfQmpCall *call, const char *id, GError **error)
{
    BfJob *job = bf_job_table_find(call->daemon->jobs, id);

    if (job == NULL || !bf_job_is_block_job(job)) {
        g_set_error(error, BF_ERROR, BF_ERROR_DEVICE_NOT_ACTIVE,
                    "Block job '%s' not found", id);
        return NULL;
    }
    return job;
}

bool
bf_qmp_co_query_jobs(BfQmpCall *call, BfJobInfoList **ret_value, GError **error)
{
    *ret_value = bf_job_table_query(call->daemon->jobs);
    return true;
}

bool
bf_qmp_co_job_pause(BfQmpCall *call, const BfJobPauseArgs *args, GError **error)
{
    BfJob *job = find_job(call, args->id, error);

    return job != NULL && bf_job_pause(job, error);
}

bool
bf_qmp_co_job_resume(BfQmpCall *call, const BfJobResumeArgs *args,
                     GError **error)
{
    BfJob *job = find_job(call, args->id, error);

    return job != NULL && bf_job_resume(job, error);
}

bool
bf_qmp_co_job_cancel(BfQmpCall *call, const BfJobCancelArgs *args,
                     GError **error)
{
    BfJob *job = find_job(call, args->id, error);

    return job != NULL && bf_job_co_cancel(job, true, error);
}

bool
bf_qmp_co_job_complete(BfQmpCall *call, const BfJobCompleteArgs *args,
                       GError **error)
{
    BfJob *job = find_job(call, args->id, error);

    return job != NULL && bf_job_co_complete(job, error);
}

bool
bf_qmp_co_job_dismiss(BfQmpCall *call, const BfJobDismissArgs *args,
                      GError **error)
{
    BfJob *job = find_job(call, args->id, error);

    return job != NULL && bf_job_dismiss(job, error);
}

bool
bf_qmp_co_job_finalize(BfQmpCall *call, const BfJobFinalizeArgs *args,
                       GError **error)
{
    BfJob *job = find_job(call, args->id, error);

    return job != NULL && bf_job_co_finalize(job, error);
}

bool
bf_qmp_co_query_block_jobs(BfQmpCall *call, BfBlockJobInfoList **ret_value,
                           GError **error)
{
    *ret_value = bf_job_table_query_block(call->daemon->jobs);
    return true;
}

bool
bf_qmp_co_block_job_set_speed(BfQmpCall *call,
                              const BfBlockJobSetSpeedArgs *args,
                              GError **error)
{
    BfJob *job = find_block_job(call, args->device, error);

    return job != NULL && bf_job_set_speed(job, args->speed, error);
}

bool
bf_qmp_co_block_job_cancel(BfQmpCall *call, const BfBlockJobCancelArgs *args,
                           GError **error)
{
    BfJob *job = find_block_job(call, args->device, error);

    if (job == NULL) {
        return false;
    }
    if (bf_job_is_user_paused(job) && !args->force) {
        bf_set_error(error, "The block job for device '%s' is currently paused",
                     args->device);
        return false;
    }
    return bf_job_co_cancel(job, args->force, error);
}

bool
bf_qmp_co_block_job_pause(BfQmpCall *call, const BfBlockJobPauseArgs *args,
                          GError **error)
{
    BfJob *job = find_block_job(call, args->device, error);

    return job != NULL && bf_job_pause(job, error);
}

bool
bf_qmp_co_block_job_resume(BfQmpCall *call, const BfBlockJobResumeArgs *args,
                           GError **error)
{
    BfJob *job = find_block_job(call, args->device, error);

    return job != NULL && bf_job_resume(job, error);
}

bool
bf_qmp_co_block_job_complete(BfQmpCall *call,
                             const BfBlockJobCompleteArgs *args, GError **error)
{
    BfJob *job = find_block_job(call, args->device, error);

    return job != NULL && bf_job_co_complete(job, error);
}

bool
bf_qmp_co_block_job_dismiss(BfQmpCall *call, const BfBlockJobDismissArgs *args,
                            GError **error)
{
    BfJob *job = find_block_job(call, args->id, error);

    return job != NULL && bf_job_dismiss(job, error);
}

bool
bf_qmp_co_block_job_finalize(BfQmpCall *call,
                             const BfBlockJobFinalizeArgs *args, GError **error)
{
    BfJob *job = find_block_job(call, args->id, error);

    return job != NULL && bf_job_co_finalize(job, error);
}

bool
bf_qmp_co_block_job_change(BfQmpCall *call, const BfBlockJobChangeOptions *args,
                           GError **error)
{
    BfJob *job = find_block_job(call, args->id, error);

    return job != NULL && bf_job_co_change(job, args, error);
}

bool
bf_qmp_co_blockdev_create(BfQmpCall *call, const BfBlockdevCreateArgs *args,
                          GError **error)
{
    return bf_create_start(call->daemon->jobs, call->daemon->graph,
                           args->job_id, args->options, error);
}

bool
bf_qmp_co_block_job_set_progress(BfQmpCall *call,
                                 const BfBlockJobSetProgressArgs *args,
                                 GError **error)
{
    BfJob *job = find_block_job(call, args->device, error);

    return job != NULL &&
           bf_job_set_progress(
               job, args->has_interval_ms ? &args->interval_ms : NULL,
               args->has_stall_timeout ? &args->stall_timeout : NULL, error);
}
