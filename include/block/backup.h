/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The backup job: copies the contents that a node has at the start of the job,
 * while others go on writing to it. On main; _co_ functions suspend.
 */
#pragma once

#include "block/job.h"

/**
 * bf_backup_co_prepare:
 * @graph: a graph, in a section of this coroutine
 * @table: the table of jobs
 * @options: as from blockdev-backup
 * @txn: (nullable): the transaction of jobs it belongs to
 * @error: set on failure; nothing has changed then
 *
 * Makes a job, for bf_job_start() or bf_job_co_abandon() in the same section.
 * The contents that it copies are those of the section: its source is at rest
 * until the end of it.
 *
 * Returns: (transfer none): the job, or NULL
 */
BfJob *bf_backup_co_prepare(BfGraph *graph, BfJobTable *table,
                            const BfBlockdevBackup *options, BfJobTxn *txn,
                            GError **error);

/**
 * bf_backup_co_start:
 * @graph: the graph
 * @table: the table of jobs
 * @options: as from blockdev-backup
 * @error: set on failure; nothing has changed then
 *
 * Makes a job and starts it.
 *
 * Returns: false on failure
 */
bool bf_backup_co_start(BfGraph *graph, BfJobTable *table,
                        const BfBlockdevBackup *options, GError **error);

/**
 * bf_backup_co_open_target:
 * @graph: the graph
 * @options: as from drive-backup
 * @error: set on failure: no such source, the file cannot be made or opened
 *
 * Makes and opens the target, which may take as long as the storage likes: not
 * to be done in a section.
 *
 * Returns: (transfer none): a hidden node, for bf_graph_co_release_hidden()
 * when the job has been made or not, or NULL
 */
BfNode *bf_backup_co_open_target(BfGraph *graph, const BfDriveBackup *options,
                                 GError **error);

/**
 * bf_backup_co_prepare_drive:
 * @graph: a graph, in a section of this coroutine
 * @table: the table of jobs
 * @options: as from drive-backup
 * @target: from bf_backup_co_open_target()
 * @txn: (nullable): the transaction of jobs it belongs to
 * @error: set on failure; nothing has changed then
 *
 * As bf_backup_co_prepare().
 *
 * Returns: (transfer none): the job, or NULL
 */
BfJob *bf_backup_co_prepare_drive(BfGraph *graph, BfJobTable *table,
                                  const BfDriveBackup *options, BfNode *target,
                                  BfJobTxn *txn, GError **error);

/**
 * bf_backup_co_start_drive:
 * @graph: the graph
 * @table: the table of jobs
 * @options: as from drive-backup
 * @error: set on failure
 *
 * Opens the target, makes a job and starts it.
 *
 * Returns: false on failure
 */
bool bf_backup_co_start_drive(BfGraph *graph, BfJobTable *table,
                              const BfDriveBackup *options, GError **error);
