/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * drive-backup: a backup to a file that nobody has opened yet.
 */
#include <string.h>

#include "block/backup.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/job-kind.h"
#include "core/error.h"

static bool
co_make_file(const BfDriveBackup *options, uint64_t size, GError **error)
{
    BfBlockdevCreateOptionsFile file = {.filename = options->target,
                                        .size = size};
    const BfBlockdevCreateOptions create = {.driver = BF_BLOCKDEV_DRIVER_FILE,
                                            .u.file = &file};

    return bf_driver_file.co_create(NULL, &create, error);
}

BfNode *
bf_backup_co_open_target(BfGraph *graph, const BfDriveBackup *options,
                         GError **error)
{
    const BfNode *source = bf_graph_find_node(graph, options->device);
    BfBlockdevOptionsFile file = {.filename = options->target,
                                  .locking = BF_ON_OFF_AUTO_AUTO,
                                  .drop_cache = true};
    const BfBlockdevOptions node = {
        .driver = BF_BLOCKDEV_DRIVER_FILE,
        .has_discard = true,
        .discard = BF_BLOCKDEV_DISCARD_OPTIONS_UNMAP,
        .active = true,
        .u.file = &file,
    };

    bf_assert_main();
    if (source == NULL) {
        bf_set_error(error, "Cannot find device='%s' nor node-name='%s'",
                     options->device, options->device);
        return NULL;
    }
    if (options->format != NULL && strcmp(options->format, "raw") != 0) {
        bf_set_error(error, "Unknown file format '%s'; only 'raw' is supported",
                     options->format);
        return NULL;
    }
    if (options->mode == BF_NEW_IMAGE_MODE_ABSOLUTE_PATHS &&
        !co_make_file(options, source->size, error)) {
        return NULL;
    }
    return bf_graph_co_open_hidden(graph, &node, error);
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
