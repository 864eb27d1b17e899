/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Notices of jobs as QMP events.
 */
#include "block/job.h"
#include "qmp/event.h"
#include "qmp/monitors-private.h"
#include "qmp/monitors.h"

static void
status_changed(void *opaque, const char *id, BfJobStatus status)
{
    bf_monitors_emit(opaque, BF_EVENT_JOB_STATUS_CHANGE,
                     bf_event_build_job_status_change(id, status));
}

static void
completed(void *opaque, const BfJobNotice *notice)
{
    bf_monitors_emit(opaque, BF_EVENT_BLOCK_JOB_COMPLETED,
                     bf_event_build_block_job_completed(
                         notice->type, notice->id, (int64_t)notice->len,
                         (int64_t)notice->offset, (int64_t)notice->speed,
                         notice->error));
}

static void
cancelled(void *opaque, const BfJobNotice *notice)
{
    bf_monitors_emit(opaque, BF_EVENT_BLOCK_JOB_CANCELLED,
                     bf_event_build_block_job_cancelled(
                         notice->type, notice->id, (int64_t)notice->len,
                         (int64_t)notice->offset, (int64_t)notice->speed));
}

static void
ready(void *opaque, const BfJobNotice *notice)
{
    bf_monitors_emit(opaque, BF_EVENT_BLOCK_JOB_READY,
                     bf_event_build_block_job_ready(
                         notice->type, notice->id, (int64_t)notice->len,
                         (int64_t)notice->offset, (int64_t)notice->speed));
}

static void
pending(void *opaque, const BfJobNotice *notice)
{
    bf_monitors_emit(
        opaque, BF_EVENT_BLOCK_JOB_PENDING,
        bf_event_build_block_job_pending(notice->type, notice->id));
}

static void
failed_request(void *opaque, const char *id, BfIoOperationType operation,
               BfBlockErrorAction action)
{
    bf_monitors_emit(opaque, BF_EVENT_BLOCK_JOB_ERROR,
                     bf_event_build_block_job_error(id, operation, action));
}

static void
progressed(void *opaque, const BfJobNotice *notice,
           const BfBlockJobProgress *progress)
{
    bf_monitors_emit(
        opaque, BF_EVENT_BLOCK_JOB_PROGRESS,
        bf_event_build_block_job_progress(notice->type, notice->id, progress));
}

static void
stalled(void *opaque, const BfJobNotice *notice,
        const BfBlockJobProgress *progress, const BfBlockJobEnd *source,
        const BfBlockJobEnd *target)
{
    bf_monitors_emit(opaque, BF_EVENT_BLOCK_JOB_STALLED,
                     bf_event_build_block_job_stalled(
                         notice->type, notice->id, progress, source, target));
}

const BfJobEvents *
bf_monitors_job_events(void)
{
    static const BfJobEvents events = {
        .status_changed = status_changed,
        .completed = completed,
        .cancelled = cancelled,
        .ready = ready,
        .pending = pending,
        .failed_request = failed_request,
        .progress = progressed,
        .stalled = stalled,
    };

    return &events;
}
