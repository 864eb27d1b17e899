/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making images. On main; nothing suspends.
 */
#pragma once

#include "block/job.h"

/**
 * bf_create_start:
 * @table: the table of jobs
 * @graph: the graph
 * @job_id: id of the new job
 * @options: what to make; copied
 * @error: set on failure: the driver cannot make images, or the id is bad
 *
 * Starts a job that makes an image. Whether it could is told by the job, which
 * stays until it is dismissed.
 *
 * Returns: false on failure
 */
bool bf_create_start(BfJobTable *table, BfGraph *graph, const char *job_id,
                     const BfBlockdevCreateOptions *options, GError **error);
