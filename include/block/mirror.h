/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mirror job: brings a target to the contents of a source that is in use,
 * keeps it there, and at the end moves the source's users to it, or leaves it
 * as a copy of one point in time. On main; _co_ functions suspend.
 */
#pragma once

#include "block/job.h"
#include "block/node.h"

/**
 * bf_mirror_co_start:
 * @graph: the graph
 * @table: where the job goes
 * @options: what to do; the schema has the limits
 * @error: set on failure; nothing remains then
 *
 * Starts a job. Its filter is above the source on return.
 *
 * Returns: false on failure
 */
bool bf_mirror_co_start(BfGraph *graph, BfJobTable *table,
                        const BfBlockdevMirror *options, GError **error);

/**
 * bf_mirror_co_start_drive:
 * @graph: the graph
 * @table: where the job goes
 * @options: what to do; the schema has the limits
 * @error: set on failure; nothing remains then but the file, if it was made
 *
 * Starts a job to a file, which is made or opened for it.
 *
 * Returns: false on failure
 */
bool bf_mirror_co_start_drive(BfGraph *graph, BfJobTable *table,
                              const BfDriveMirror *options, GError **error);
