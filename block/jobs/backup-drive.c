/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * drive-backup: a backup to a file that nobody has opened yet.
 */
#include "block/backup.h"
#include "block/drive-target.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/job-kind.h"
#include "core/error.h"

BfNode *
bf_backup_co_open_target(BfGraph *graph, const BfDriveBackup *options,
                         GError **error)
{
    const BfDriveTarget target = {
        .device = options->device,
        .filename = options->target,
        .format = options->format,
        .mode = options->mode,
        .sync = options->sync,
    };

    return bf_drive_co_open_target(graph, &target, error);
}

BfJob *
bf_backup_co_prepare_drive(BfGraph *graph, BfJobTable *table,
                           const BfDriveBackup *options, BfNode *target,
                           BfJobTxn *txn, GError **error)
{
    const BfBlockdevBackup backup = {
        .job_id = options->job_id,
        .device = options->device,
        .sync = options->sync,
        .speed = options->speed,
        .throttle_group = options->throttle_group,
        .bitmap = options->bitmap,
        .has_bitmap_mode = options->has_bitmap_mode,
        .bitmap_mode = options->bitmap_mode,
        .compress = options->compress,
        .on_source_error = options->on_source_error,
        .on_target_error = options->on_target_error,
        .auto_finalize = options->auto_finalize,
        .auto_dismiss = options->auto_dismiss,
        .filter_node_name = options->filter_node_name,
        .discard_source = options->discard_source,
        .x_perf = options->x_perf,
        .target = target->name,
    };

    return bf_backup_co_prepare(graph, table, &backup, txn, error);
}

bool
bf_backup_co_start_drive(BfGraph *graph, BfJobTable *table,
                         const BfDriveBackup *options, GError **error)
{
    BfNode *target = bf_backup_co_open_target(graph, options, error);
    BfJob *job = NULL;

    if (target == NULL) {
        return false;
    }
    bf_graph_co_section_begin(graph);
    job =
        bf_backup_co_prepare_drive(graph, table, options, target, NULL, error);
    if (job != NULL) {
        bf_job_start(job);
    }
    bf_graph_co_section_end(graph);
    bf_graph_co_release_hidden(graph, target);
    return job != NULL;
}
