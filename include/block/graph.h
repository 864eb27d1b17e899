/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes of the graph that jobs, bitmaps and commands build on; block/node.h
 * has the basic ones. Everything runs on main; _co_ functions suspend. Each
 * takes effect in one step while all users of the nodes are drained, or fails
 * and nothing changed.
 */
#pragma once

#include <sys/types.h>

#include "block/bitmap.h"
#include "block/node.h"
#include "block/throttle.h"

/**
 * bf_graph_require_node:
 * @graph: the graph
 * @name: of a node, where a user may give a device or a node
 * @error: set on failure: there is none
 *
 * Returns: (transfer none): the node, or NULL
 */
BfNode *bf_graph_require_node(BfGraph *graph, const char *name, GError **error);

/**
 * bf_graph_require_device:
 * @graph: the graph
 * @device: (nullable): what the user gave as a device; in the message
 * @name: (nullable): the name that counts
 * @error: set on failure: there is no such node
 *
 * bf_graph_require_node() where a user gives both apart.
 *
 * Returns: (transfer none): the node, or NULL
 */
BfNode *bf_graph_require_device(BfGraph *graph, const char *device,
                                const char *name, GError **error);

/**
 * bf_graph_require_named:
 * @graph: the graph
 * @node_name: where a user must give a node, and nothing else will do
 * @error: set on failure: there is none
 *
 * Returns: (transfer none): the node, or NULL
 */
BfNode *bf_graph_require_named(BfGraph *graph, const char *node_name,
                               GError **error);

/**
 * bf_graph_find_on_file:
 * @graph: the graph
 * @device: of the file system
 * @inode: of the file
 *
 * Returns: (transfer none) (nullable): a node that is on this file, whether
 *     anybody uses it or not
 */
BfNode *bf_graph_find_on_file(BfGraph *graph, dev_t device, ino_t inode);

/**
 * bf_node_below_jobs:
 * @node: (nullable): a node
 *
 * Returns: (transfer none) (nullable): what is below the filters that jobs have
 * put there, as users see it
 */
BfNode *bf_node_below_jobs(BfNode *node);

/**
 * BfSavedNode: what makes a node anew
 * @name: owned: of the node
 * @options: (nullable): owned: for blockdev-add, as the node is now; its inline
 *     children are in it. NULL if there is a @problem
 * @problem: (nullable): owned: why nothing can make it anew, in words
 */
typedef struct BfSavedNode {
    char *name;
    BfBlockdevOptions *options;
    char *problem;
} BfSavedNode;

/**
 * bf_graph_save:
 * @graph: the graph
 * @used: (element-type BfNode): nodes that are needed although no monitor may
 *     own them
 *
 * Tells how to make all nodes of the monitor, and @used, anew. What jobs have
 * put into the graph is not in it. Never suspends.
 *
 * Returns: (transfer full) (element-type BfSavedNode): nodes after those that
 * they refer to, else oldest first
 */
GPtrArray *bf_graph_save(BfGraph *graph, const GPtrArray *used);

/**
 * BfSavedState: what users have given to a node after it was made
 * @name: owned: of the node
 * @has_own_name: it was made with that name, so that it has it again
 * @write_threshold: bytes; 0 for none
 * @bitmaps: (nullable): owned: names of its dirty bitmaps, as "'a', 'b'"
 */
typedef struct BfSavedState {
    char *name;
    bool has_own_name;
    uint64_t write_threshold;
    char *bitmaps;
} BfSavedState;

/**
 * bf_graph_save_state:
 * @graph: the graph
 *
 * Tells what users have given to nodes and bf_graph_save() does not tell. Never
 * suspends.
 *
 * Returns: (transfer full) (element-type BfSavedState): the nodes that have
 * something, oldest first
 */
GPtrArray *bf_graph_save_state(BfGraph *graph);

/**
 * bf_graph_join_throttle_group:
 * @graph: the graph
 * @id: of a throttle-group object
 * @user: what the new member calls itself, for example "export 'e0'"
 * @loop: where it waits
 * @error: set on failure: there is no such group
 *
 * The object is not deleted while it has members.
 *
 * Returns: (transfer full): a member of the group, or NULL
 */
BfThrottleMember *bf_graph_join_throttle_group(BfGraph *graph, const char *id,
                                               const char *user, BfLoop *loop,
                                               GError **error);

/**
 * bf_graph_co_query_stats:
 * @graph: the graph
 * @nodes: all nodes; else devices, of which there are none
 *
 * Returns: (transfer full): what query-blockstats returns, oldest first
 */
BfBlockStatsList *bf_graph_co_query_stats(BfGraph *graph, bool nodes);

/**
 * bf_graph_co_query_picture:
 * @graph: the graph
 *
 * Returns: (transfer full): what x-debug-query-block-graph returns
 */
BfXDbgBlockGraph *bf_graph_co_query_picture(BfGraph *graph);

/**
 * bf_node_set_write_threshold:
 * @node: a node
 * @offset: bytes; 0 for none
 *
 * The first write that ends beyond @offset is told to the graph's owner.
 */
void bf_node_set_write_threshold(BfNode *node, uint64_t offset);

/**
 * bf_graph_co_replace_node:
 * @graph: the graph
 * @from: a node
 * @to: another one
 * @error: set on failure: permissions, a cycle, storage that does not answer
 *
 * Moves all users of @from to @to, but not @to itself: so a filter whose child
 * is @from is put between @from and its users, and by calling it the other way
 * round is taken out again.
 *
 * Returns: false on failure
 */
bool bf_graph_co_replace_node(BfGraph *graph, BfNode *from, BfNode *to,
                              GError **error);

/**
 * bf_graph_pick_loop:
 * @graph: the graph
 *
 * Returns: (transfer none): a worker loop for what has no node: each in turn
 */
BfLoop *bf_graph_pick_loop(BfGraph *graph);

/**
 * bf_graph_co_open_hidden:
 * @graph: the graph
 * @options: of the new node; without a name it gets an automatic one
 * @error: set on failure
 *
 * Opens a tree of nodes that no monitor owns. It is closed when it has no user
 * any more, but not before bf_graph_co_release_hidden().
 *
 * Returns: (transfer none): the top of it, or NULL
 */
BfNode *bf_graph_co_open_hidden(BfGraph *graph,
                                const BfBlockdevOptions *options,
                                GError **error);

/**
 * bf_graph_co_release_hidden:
 * @graph: the graph
 * @node: from bf_graph_co_open_hidden(), once
 *
 * From now on its users alone keep it; without one it is closed.
 */
void bf_graph_co_release_hidden(BfGraph *graph, BfNode *node);

/**
 * bf_graph_co_section_begin:
 * @graph: the graph
 *
 * Begins a section: until bf_graph_co_section_end() no other coroutine changes
 * the graph, and every function of the graph, of nodes and of roots that this
 * coroutine calls is part of the section. Roots that are made in it come to
 * life at its end: requests through them wait until then, so that the section
 * itself must make none. Sections nest; only the end of the outermost counts.
 */
void bf_graph_co_section_begin(BfGraph *graph);

/**
 * bf_graph_co_section_drain:
 * @graph: a graph, in a section of this coroutine
 * @nodes: BfNode
 * @error: set on failure: storage that does not answer in time
 *
 * Brings all requests to @nodes, and to what is linked with them, to rest until
 * the end of the section. May be called again to add nodes. After a failure
 * the caller takes its changes back and ends the section.
 *
 * Returns: false on failure
 */
bool bf_graph_co_section_drain(BfGraph *graph, GPtrArray *nodes,
                               GError **error);

/**
 * bf_graph_co_section_drain_node:
 * @graph: a graph, in a section of this coroutine
 * @node: a node
 * @error: set on failure
 *
 * bf_graph_co_section_drain() of one node.
 *
 * Returns: false on failure
 */
bool bf_graph_co_section_drain_node(BfGraph *graph, BfNode *node,
                                    GError **error);

/**
 * bf_graph_co_section_end:
 * @graph: a graph, in a section of this coroutine
 *
 * Ends the section; all that was brought to rest goes on.
 */
void bf_graph_co_section_end(BfGraph *graph);

/**
 * bf_graph_is_in_section:
 * @graph: the graph
 *
 * Returns: true if the calling coroutine is in a section of @graph
 */
bool bf_graph_is_in_section(const BfGraph *graph);

/**
 * bf_node_co_add_bitmap:
 * @node: a node
 * @bitmap: (transfer full): on success; of the node's size
 * @error: set on failure: the name is in use, or the node is not idle in time
 *
 * From now on every change of @node marks @bitmap, if it is enabled.
 *
 * Returns: false on failure
 */
bool bf_node_co_add_bitmap(BfNode *node, BfBitmap *bitmap, GError **error);

/**
 * bf_node_co_remove_bitmap:
 * @node: a node
 * @name: of one of its bitmaps
 * @error: set on failure
 *
 * Returns: (transfer full): the bitmap that was taken off, or NULL
 */
BfBitmap *bf_node_co_remove_bitmap(BfNode *node, const char *name,
                                   GError **error);

/**
 * bf_node_co_detach_bitmap:
 * @node: a node
 * @bitmap: one of its bitmaps, hidden or not; the caller's again on success
 * @error: set on failure: the node is not idle in time
 *
 * Takes @bitmap off: writes do not mark it any more.
 *
 * Returns: false on failure
 */
bool bf_node_co_detach_bitmap(BfNode *node, BfBitmap *bitmap, GError **error);

/**
 * bf_node_find_bitmap:
 * @node: a node
 * @name: a name; hidden bitmaps have none
 *
 * Returns: (transfer none) (nullable): its bitmap of that name
 */
BfBitmap *bf_node_find_bitmap(BfNode *node, const char *name);

/**
 * bf_node_co_set_active:
 * @node: a node
 * @active: false: no writing, no locks: another program may have the image
 * @error: set on failure
 *
 * Activating includes its children; deactivating too, but for those that have
 * another active parent. Users that may write forbid it unless they were made
 * by bf_root_co_new_inactive().
 *
 * Returns: false on failure
 */
bool bf_node_co_set_active(BfNode *node, bool active, GError **error);

/**
 * bf_graph_co_change_child:
 * @graph: the graph
 * @parent: name of a node
 * @child: (nullable): name of a link to take away, for example "children.1"
 * @node: (nullable): name of a node to add as a child
 * @error: set on failure
 *
 * What x-blockdev-change does.
 *
 * Returns: false on failure
 */
bool bf_graph_co_change_child(BfGraph *graph, const char *parent,
                              const char *child, const char *node,
                              GError **error);

/**
 * bf_graph_co_set_all_active:
 * @graph: the graph
 * @active: as for bf_node_co_set_active()
 * @error: set on failure; nothing changed
 *
 * Does it to all nodes.
 *
 * Returns: false on failure
 */
bool bf_graph_co_set_all_active(BfGraph *graph, bool active, GError **error);
