/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Transactions: several changes of bitmaps and starts of jobs as one, at one
 * point in time. On main; _co_ functions suspend.
 */
#pragma once

#include "block/job.h"

/**
 * bf_transaction_co_run:
 * @graph: the graph
 * @jobs: the table of jobs
 * @options: as from transaction
 * @error: set on failure: that of the first action that failed
 *
 * Does all actions, in their order, or none.
 *
 * Returns: false on failure
 */
bool bf_transaction_co_run(BfGraph *graph, BfJobTable *jobs,
                           const BfTransaction *options, GError **error);
