/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a kind of export is made of; for the implementers of kinds only. Users
 * of exports include serve/export.h.
 *
 * A kind embeds BfExport as the first member of its own struct. Making one:
 * bf_export_co_open() does the checks that all kinds share and reserves the
 * id; then come the kind's own checks; then bf_export_publish(), or
 * bf_export_co_abandon() if they failed. On main; _co_ functions suspend.
 */
#pragma once

#include "block/handle.h"
#include "block/throttle.h"
#include "serve/export.h"

/**
 * BfExportOps: the operations that one kind of export provides
 * @type: the kind, as in the schema
 * @start_close: makes the export unreachable and its clients leave soon; must
 *     not suspend
 * @co_close: (nullable): gives back what it has of the graph; it has no clients
 *     any more
 * @uses_loop: tells whether a client or the configuration is tied to a loop
 * @free: frees the own struct; not the fields of BfExport
 */
typedef struct BfExportOps {
    BfBlockExportType type;
    void (*start_close)(BfExport *exp);
    void (*co_close)(BfExport *exp);
    bool (*uses_loop)(const BfExport *exp, const BfLoop *loop);
    void (*free)(BfExport *exp);
} BfExportOps;

/**
 * BfExport: the base of every export; the first member of its struct
 * @ops: its operations
 * @table: borrowed: lives longer than every export
 * @id: owned
 * @root: (nullable): owned; its claim on the node; NULL while being freed
 * @node_name: (nullable): owned; kept when @root goes
 * @options: owned: what it was made from
 * @throttle: (nullable): owned: what its clients do is charged there, each by a
 *     member beside this one
 * @throttle_group: (nullable): owned: id of the group of @throttle
 * @iothreads: (nullable): owned: BfLoop, borrowed: those that its user has
 *     chosen, at least one
 * @limits: of the node when the export was made
 * @size: bytes, a multiple of 512, when the export was made; fixed if resizing
 *     is not shared: see bf_export_size()
 * @clients: how many are attached; they keep the export alive
 * @writable: clients may change the data
 * @writethrough: every change is stable before it is reported
 * @report_losses: a flush fails after writes may have been lost
 * @allow_resize: the node may be resized
 * @published: on the lists
 * @closing: see bf_export_is_closing()
 * @patience: while it is closing and clients are left
 */
struct BfExport {
    const BfExportOps *ops;
    BfExportTable *table;
    char *id;
    BfRoot *root;
    char *node_name;
    BfBlockExportOptions *options;
    BfThrottleMember *throttle;
    char *throttle_group;
    GPtrArray *iothreads;
    BfLimits limits;
    uint64_t size;
    unsigned clients;
    bool writable;
    bool writethrough;
    bool report_losses;
    bool allow_resize;
    bool published;
    bool closing;
    BfTimer patience;
};

/**
 * BfExportIothreads: how an export finds the loop that its user names
 * @find: (nullable): the loop of an iothread object, NULL if unknown
 * @opaque: passed to @find
 */
typedef struct BfExportIothreads {
    BfLoop *(*find)(void *opaque, const char *id);
    void *opaque;
} BfExportIothreads;

/**
 * bf_export_co_open:
 * @exp: zeroed but for @ops
 * @table: the daemon's table
 * @options: as from block-export-add
 * @iothreads: how to find iothread objects
 * @error: set on failure
 *
 * Checks what all kinds have in common, claims the node and reserves the id.
 *
 * Returns: false on failure; then nothing is left behind and the caller frees
 * @exp
 */
bool bf_export_co_open(BfExport *exp, BfExportTable *table,
                       const BfBlockExportOptions *options,
                       const BfExportIothreads *iothreads, GError **error);

/**
 * bf_export_publish:
 * @exp: after bf_export_co_open(); now owned by its table
 */
void bf_export_publish(BfExport *exp);

/**
 * bf_export_co_abandon:
 * @exp: after bf_export_co_open(), not published
 *
 * Undoes bf_export_co_open(); the caller frees @exp.
 */
void bf_export_co_abandon(BfExport *exp);

/**
 * bf_export_size:
 * @exp: a published export
 *
 * On main. A connection asks its handle instead, whose size changes when none
 * of its requests is under way.
 *
 * Returns: what a new client is told, bytes: a multiple of 512
 */
uint64_t bf_export_size(const BfExport *exp);

/**
 * bf_export_handle_size:
 * @exp: an export
 * @handle: a handle to its node, on whose loop this is called
 *
 * Returns: where requests of its user have to end, bytes
 */
uint64_t bf_export_handle_size(const BfExport *exp, const BfHandle *handle);

/**
 * bf_export_attach:
 * @exp: an export that is not closing
 *
 * One more client.
 */
void bf_export_attach(BfExport *exp);

/**
 * bf_export_detach:
 * @exp: an export with clients; not to be used any more by the caller
 *
 * One client less. A closing export ends after the last one.
 */
void bf_export_detach(BfExport *exp);

/**
 * bf_export_table_co_wait_closed:
 * @table: the table
 *
 * Waits until no export is closing.
 */
void bf_export_table_co_wait_closed(BfExportTable *table);
