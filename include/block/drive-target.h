/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files as targets of jobs: made and opened for a job. On main; suspends.
 */
#pragma once

#include "block/node.h"

/**
 * BfDriveTarget: a file that a job writes
 * @device: name of the node whose size it gets
 * @filename: its path
 * @format: (nullable): raw, or NULL for the same
 * @node_name: (nullable): of its node; NULL makes one up
 * @mode: whether it is made
 * @sync: what the job copies to it
 */
typedef struct BfDriveTarget {
    const char *device;
    const char *filename;
    const char *format;
    const char *node_name;
    BfNewImageMode mode;
    BfMirrorSyncMode sync;
} BfDriveTarget;

/**
 * bf_drive_co_open_target:
 * @graph: the graph
 * @target: what to open
 * @error: set on failure
 *
 * Returns: (transfer none): a hidden node, for bf_graph_co_release_hidden(), or
 * NULL
 */
BfNode *bf_drive_co_open_target(BfGraph *graph, const BfDriveTarget *target,
                                GError **error);
