/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * drive-mirror: a mirror to a file that nobody has opened yet.
 */
#include "block/drive-target.h"
#include "block/graph.h"
#include "block/mirror.h"

bool
bf_mirror_co_start_drive(BfGraph *graph, BfJobTable *table,
                         const BfDriveMirror *options, GError **error)
{
    const BfDriveTarget file = {
        .device = options->device,
        .filename = options->target,
        .format = options->format,
        .node_name = options->node_name,
        .mode = options->mode,
        .sync = options->sync,
    };
    BfBlockdevMirror mirror = {
        .job_id = options->job_id,
        .device = options->device,
        .replaces = options->replaces,
        .sync = options->sync,
        .speed = options->speed,
        .throttle_group = options->throttle_group,
        .granularity = options->granularity,
        .buf_size = options->buf_size,
        .on_source_error = options->on_source_error,
        .on_target_error = options->on_target_error,
        .unmap = options->unmap,
        .copy_mode = options->copy_mode,
        .auto_finalize = options->auto_finalize,
        .auto_dismiss = options->auto_dismiss,
    };
    BfNode *target = bf_drive_co_open_target(graph, &file, error);
    bool ok;

    if (target == NULL) {
        return false;
    }
    mirror.target = (char *)bf_node_name(target);
    ok = bf_mirror_co_start(graph, table, &mirror, error);
    bf_graph_co_release_hidden(graph, target);
    return ok;
}
