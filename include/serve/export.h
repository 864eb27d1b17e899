/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exports: nodes that are offered to clients. On main; _co_ functions suspend.
 *
 * The table owns the exports. An export is "closing" from
 * bf_export_start_close() until its last client is gone; then it is freed, its
 * id is free again, and the table's deleted callback is called.
 */
#pragma once

#include <stdbool.h>

#include "block/handle.h"
#include "schema/types.h"

typedef struct BfExport BfExport;

/**
 * BfExportTable: all exports of a daemon, by id
 */
typedef struct BfExportTable BfExportTable;

/**
 * BfExportTable: all exports of a daemon, of any kind
 */

/**
 * BfExportEvents: upward notices of an export table
 * @deleted: an export is gone and its id is free; called on main
 */
typedef struct BfExportEvents {
    void (*deleted)(void *opaque, const char *id);
} BfExportEvents;

/**
 * bf_export_table_new:
 * @graph: borrowed: lives longer than the table
 * @events: borrowed constant
 * @opaque: passed to @events
 *
 * Returns: (transfer full): an empty table
 */
BfExportTable *bf_export_table_new(BfGraph *graph, const BfExportEvents *events,
                                   void *opaque);

/**
 * bf_export_table_free:
 * @table: (nullable): empty
 */
void bf_export_table_free(BfExportTable *table);

/**
 * bf_export_table_find:
 * @table: the table
 * @id: (nullable): an id
 *
 * Returns: (transfer none) (nullable): the export, closing or not
 */
BfExport *bf_export_table_find(BfExportTable *table, const char *id);

/**
 * bf_export_table_list:
 * @table: the table
 *
 * Returns: (transfer full): the exports, oldest first; a snapshot
 */
GPtrArray *bf_export_table_list(BfExportTable *table);

/**
 * bf_export_id:
 * @exp: an export
 *
 * Returns: (transfer none): its id
 */
const char *bf_export_id(const BfExport *exp);

/**
 * bf_export_type:
 * @exp: an export
 *
 * Returns: its kind
 */
BfBlockExportType bf_export_type(const BfExport *exp);

/**
 * bf_export_node_name:
 * @exp: an export
 *
 * Returns: (transfer none): name of the node it offers
 */
const char *bf_export_node_name(const BfExport *exp);

/**
 * bf_export_node:
 * @exp: an export
 *
 * Returns: (transfer none) (nullable): the node it offers; NULL while it is
 * being freed
 */
BfNode *bf_export_node(const BfExport *exp);

/**
 * bf_export_save:
 * @exp: an export
 *
 * Returns: (transfer full): options that make it anew, on the node that it is
 * on now; what jobs have put between is not meant
 */
BfBlockExportOptions *bf_export_save(const BfExport *exp);

/**
 * bf_export_throttle_group:
 * @exp: an export
 *
 * Returns: (transfer none) (nullable): id of the group that limits its clients
 */
const char *bf_export_throttle_group(const BfExport *exp);

/**
 * bf_export_is_closing:
 * @exp: an export
 *
 * Returns: true once bf_export_start_close() was called
 */
bool bf_export_is_closing(const BfExport *exp);

/**
 * bf_export_count_clients:
 * @exp: an export
 *
 * Returns: clients that have reached transmission
 */
unsigned bf_export_count_clients(const BfExport *exp);

/**
 * bf_export_uses_loop:
 * @exp: an export
 * @loop: any loop
 *
 * Returns: true if it was made for @loop (iothread) or has a client there
 */
bool bf_export_uses_loop(const BfExport *exp, const BfLoop *loop);

/**
 * bf_export_table_find_loop_user:
 * @table: the table
 * @loop: any loop
 *
 * Returns: (transfer none) (nullable): id of an export for which
 * bf_export_uses_loop() holds, also of one that is being added
 */
const char *bf_export_table_find_loop_user(BfExportTable *table,
                                           const BfLoop *loop);

/**
 * bf_export_stats:
 * @exp: an export
 * @ret_stats: (out): what all its clients did since it was made
 */
void bf_export_stats(BfExport *exp, BfIoStats *ret_stats);

/**
 * bf_export_start_close:
 * @exp: an export that is not closing
 *
 * Takes it off the lists, shuts its clients' connections down, and lets it end
 * by itself: the deleted callback tells when.
 */
void bf_export_start_close(BfExport *exp);

/**
 * bf_export_co_close:
 * @exp: an export that is not closing
 *
 * Like bf_export_start_close(), but waits until it is gone if it has no
 * clients. It does not wait for clients, which may take long to leave.
 */
void bf_export_co_close(BfExport *exp);

/**
 * bf_export_table_co_close_all:
 * @table: the table
 *
 * Closes every export and waits until all are gone.
 */
void bf_export_table_co_close_all(BfExportTable *table);
