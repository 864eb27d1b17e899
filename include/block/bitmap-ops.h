/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What commands, transactions, exports and jobs do with the dirty bitmaps of
 * nodes. Everything runs on main; _co_ functions suspend.
 *
 * A change of a bitmap is prepared, and has its effect, inside of a section
 * (see block/graph.h) whose nodes are at rest; it is then committed or taken
 * back, several of them in the reverse order, before the section ends.
 */
#pragma once

#include "block/bitmap.h"
#include "block/graph.h"
#include "schema/types.h"

/* Longest name of a bitmap that users make, bytes. */
#define BF_BITMAP_NAME_MAX 1023

/**
 * BfBitmapActionKind: what is done to a bitmap
 */
typedef enum BfBitmapActionKind {
    BF_BITMAP_ACTION_ADD,
    BF_BITMAP_ACTION_REMOVE,
    BF_BITMAP_ACTION_CLEAR,
    BF_BITMAP_ACTION_ENABLE,
    BF_BITMAP_ACTION_DISABLE,
    BF_BITMAP_ACTION_MERGE,
} BfBitmapActionKind;

/**
 * BfBitmapAction: one change, as in the command of that name
 * @kind: which one
 * @u: borrowed: add, merge, or one for all others
 */
typedef struct BfBitmapAction {
    BfBitmapActionKind kind;
    union {
        const BfBlockDirtyBitmapAdd *add;
        const BfBlockDirtyBitmapMerge *merge;
        const BfBlockDirtyBitmap *one;
    } u;
} BfBitmapAction;

/**
 * BfBitmapChange: a change that can still be taken back
 */
typedef struct BfBitmapChange BfBitmapChange;

/**
 * bf_bitmap_co_prepare:
 * @graph: a graph, in a section of this coroutine
 * @action: what to do
 * @error: set on failure; nothing has changed then
 *
 * Checks in the order of the command, brings the nodes concerned to rest until
 * the end of the section, and does it. Actions that follow see the effect.
 *
 * Returns: (transfer full): the change, for bf_bitmap_change_commit() or
 * bf_bitmap_change_abort(), or NULL
 */
BfBitmapChange *bf_bitmap_co_prepare(BfGraph *graph,
                                     const BfBitmapAction *action,
                                     GError **error);

/**
 * bf_bitmap_change_commit:
 * @change: (transfer full): in the section in which it was made
 *
 * Makes a change final.
 */
void bf_bitmap_change_commit(BfBitmapChange *change);

/**
 * bf_bitmap_change_abort:
 * @change: (transfer full): in the section in which it was made; later ones
 *     are aborted already
 *
 * Takes a change back: all is exactly as before it.
 */
void bf_bitmap_change_abort(BfBitmapChange *change);

/**
 * bf_bitmap_action_add_nodes:
 * @graph: the graph
 * @action: what is to be done
 * @nodes: (inout): gets the nodes that it concerns, as far as they exist
 *
 * For who does several actions: draining all nodes first spares a wait for
 * each, and no one sees the first actions done and the last ones not.
 */
void bf_bitmap_action_add_nodes(BfGraph *graph, const BfBitmapAction *action,
                                GPtrArray *nodes);

/**
 * bf_bitmap_co_apply:
 * @graph: the graph
 * @actions: what to do, in this order
 * @n_actions: how many
 * @error: set on failure; nothing has changed then
 *
 * Does all actions as one, or none, in a section of its own.
 *
 * Returns: false on failure
 */
bool bf_bitmap_co_apply(BfGraph *graph, const BfBitmapAction *actions,
                        size_t n_actions, GError **error);

/**
 * bf_bitmap_co_sha256:
 * @graph: the graph
 * @which: the bitmap
 * @error: set on failure
 *
 * Returns: (transfer full): the checksum of x-debug-block-dirty-bitmap-sha256,
 * or NULL
 */
char *bf_bitmap_co_sha256(BfGraph *graph, const BfBlockDirtyBitmap *which,
                          GError **error);

/**
 * bf_bitmap_lookup:
 * @graph: the graph
 * @node_name: name of a node
 * @name: of one of its bitmaps
 * @ret_node: (out) (nullable): the node
 * @error: set on failure, in the words of the bitmap commands
 *
 * Returns: (transfer none): the bitmap, or NULL
 */
BfBitmap *bf_bitmap_lookup(BfGraph *graph, const char *node_name,
                           const char *name, BfNode **ret_node, GError **error);

/**
 * bf_bitmap_find_through:
 * @node: where to start
 * @name: of a bitmap
 * @ret_node: (out): the node that has it
 *
 * Looks at @node and then at what it shows unchanged: through filters and down
 * the chain of backing images.
 *
 * Returns: (transfer none) (nullable): the bitmap
 */
BfBitmap *bf_bitmap_find_through(BfNode *node, const char *name,
                                 BfNode **ret_node);

/**
 * BfBitmapUse: a bitmap that an export or a job uses
 *
 * While it is used it is "busy": commands neither change nor remove it, its
 * node is neither deleted nor resized, and no one else can use it. Its
 * readers may be on any thread; they see bits come only while it is enabled
 * and not frozen.
 */
typedef struct BfBitmapUse BfBitmapUse;

/**
 * bf_bitmap_co_use:
 * @node: the node of @bitmap
 * @bitmap: a bitmap that was found in the section that the caller is in
 * @description: what the user calls itself, as for bf_root_co_new()
 * @error: set on failure: it is in use or inconsistent
 *
 * Returns: (transfer full): the use, or NULL
 */
BfBitmapUse *bf_bitmap_co_use(BfNode *node, BfBitmap *bitmap,
                              const char *description, GError **error);

/**
 * bf_bitmap_use_bitmap:
 * @use: a use
 *
 * Returns: (transfer none): its bitmap
 */
BfBitmap *bf_bitmap_use_bitmap(const BfBitmapUse *use);

/**
 * bf_bitmap_use_co_freeze:
 * @use: a use whose bitmap is not frozen
 * @error: set on failure: too little memory, storage that does not answer
 *
 * Keeps what readers see of the bitmap as it is now; if it is enabled, writes
 * go to a hidden successor. In a section it takes effect at the same point in
 * time as all else in it.
 *
 * Returns: false on failure
 */
bool bf_bitmap_use_co_freeze(BfBitmapUse *use, GError **error);

/**
 * bf_bitmap_use_co_thaw:
 * @use: a use whose bitmap is frozen
 * @keep: true: what was frozen is still dirty, and what was written since as
 *     well (the job has failed); false: only what was written since (it has
 *     copied all that was frozen)
 *
 * Ends the freeze. Writes may be under way; none of their marks is lost. Waits
 * for who reads the bitmap in a section.
 */
void bf_bitmap_use_co_thaw(BfBitmapUse *use, bool keep);

/**
 * bf_bitmap_co_unuse:
 * @use: (transfer full) (nullable): its bitmap is thawed, with everything kept,
 *     if it still is frozen
 *
 * Gives the bitmap back.
 */
void bf_bitmap_co_unuse(BfBitmapUse *use);
