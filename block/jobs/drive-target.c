/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The targets of drive-backup and drive-mirror: files that nobody has opened
 * yet, and that are closed when the job, or who uses them afterwards, is done.
 */
#include "block/drive-target.h"

#include <string.h>

#include "block/driver.h"
#include "block/graph.h"
#include "core/error.h"

static bool
co_make_file(BfGraph *graph, const BfDriveTarget *target, uint64_t size,
             GError **error)
{
    BfBlockdevCreateOptionsFile file = {.filename = (char *)target->filename,
                                        .size = size};
    const BfBlockdevCreateOptions create = {.driver = BF_BLOCKDEV_DRIVER_FILE,
                                            .u.file = &file};

    return bf_driver_file.co_create(graph, NULL, &create, error);
}

static BfNode *
co_open_file(BfGraph *graph, const BfDriveTarget *target, GError **error)
{
    BfBlockdevOptionsFile file = {.filename = (char *)target->filename,
                                  .locking = BF_ON_OFF_AUTO_AUTO,
                                  .drop_cache = true};
    const BfBlockdevOptions node = {
        .driver = BF_BLOCKDEV_DRIVER_FILE,
        .node_name = (char *)target->node_name,
        .has_discard = true,
        .discard = BF_BLOCKDEV_DISCARD_OPTIONS_UNMAP,
        .u.file = &file,
    };

    return bf_graph_co_open_hidden(graph, &node, error);
}

BfNode *
bf_drive_co_open_target(BfGraph *graph, const BfDriveTarget *target,
                        GError **error)
{
    BfNode *source = bf_graph_require_node(graph, target->device, error);

    bf_assert_main();
    if (source == NULL) {
        return NULL;
    }
    if (target->format != NULL && strcmp(target->format, "raw") != 0) {
        bf_set_error(error, "Unknown file format '%s'; only 'raw' is supported",
                     target->format);
        return NULL;
    }
    if (target->mode == BF_NEW_IMAGE_MODE_ABSOLUTE_PATHS &&
        target->sync == BF_MIRROR_SYNC_MODE_NONE) {
        bf_set_error(error,
                     "Sync mode 'none' needs an image that has the rest, and "
                     "a new one has nothing; use mode 'existing', or sync mode "
                     "'full'");
        return NULL;
    }
    if (target->mode == BF_NEW_IMAGE_MODE_ABSOLUTE_PATHS &&
        !co_make_file(graph, target, source->size, error)) {
        return NULL;
    }
    return co_open_file(graph, target, error);
}
