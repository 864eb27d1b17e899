/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a job does to the graph: puts a filter above the node that it works on,
 * and at its end hands the users of nodes over to other nodes. Everything runs
 * on main; _co_ functions suspend.
 */
#pragma once

#include "block/driver.h"
#include "block/handle.h"

/**
 * bf_root_set_inner:
 * @root: a root of a job
 * @job_id: the job's id
 * @role: what the node is to it, for example "target"
 *
 * Requests of other roots may wait for requests of this one, so a drain brings
 * it to rest after all others. It also stays when its node is replaced.
 */
void bf_root_set_inner(BfRoot *root, const char *job_id, const char *role);

/**
 * bf_graph_co_insert_filter:
 * @graph: the graph
 * @driver: passes everything on to BfNode.file; has no co_open and no options
 * @name: (nullable): name of the filter; NULL makes one up
 * @below: an existing node
 * @error: set on failure: a bad name, storage that does not answer
 *
 * Puts a new node between @below and its users. It stays until it is taken out
 * by bf_graph_co_hand_over(), even if it has no users left.
 *
 * Returns: (transfer none): the filter, or NULL
 */
BfNode *bf_graph_co_insert_filter(BfGraph *graph, const BfDriver *driver,
                                  const char *name, BfNode *below,
                                  GError **error);

/**
 * BfGraphMove: all users of a node get another one
 * @from: a node
 * @to: another one
 */
typedef struct BfGraphMove {
    BfNode *from;
    BfNode *to;
} BfGraphMove;

/**
 * BfHandOver: the end of a job that has a filter
 * @filter: is taken out and closed
 * @moves: whose users are moved, in this order; those of @filter must be among
 *     them. The filter itself and roots that are fixed do not move
 * @n_moves: how many
 * @roots: the job's own: they work while all else is at rest, and give their
 *     permissions back when the users are moved
 * @n_roots: how many
 * @co_last_pass: (nullable): does the job's last requests while all else is at
 *     rest; none is under way when it succeeds. A failure calls all off
 * @done: (nullable): the users have moved and are still at rest
 * @arg: passed to @co_last_pass and @done
 */
typedef struct BfHandOver {
    BfNode *filter;
    const BfGraphMove *moves;
    size_t n_moves;
    BfRoot *const *roots;
    size_t n_roots;
    bool (*co_last_pass)(void *arg, GError **error);
    void (*done)(void *arg);
    void *arg;
} BfHandOver;

/**
 * bf_graph_co_hand_over:
 * @graph: the graph
 * @hand_over: what to do
 * @error: set on failure; nothing has changed, and all goes on as before
 *
 * Returns: false on failure
 */
bool bf_graph_co_hand_over(BfGraph *graph, const BfHandOver *hand_over,
                           GError **error);

/**
 * bf_node_is_top:
 * @node: a node
 *
 * Returns: true if no other node is above it
 */
bool bf_node_is_top(const BfNode *node);

/**
 * bf_node_shows:
 * @node: a node
 * @wanted: a node
 *
 * Returns: true if what is read from @node is what @wanted has: they are the
 * same, or only filters are between them
 */
bool bf_node_shows(const BfNode *node, const BfNode *wanted);

/**
 * bf_node_co_outlast_requests:
 * @node: a node that did not come to rest in time, and that stays
 *
 * Waits until what is in the way now is over: the oldest request of each
 * handle, in all that is linked with @node. To be called before the next
 * attempt, as each one holds the mutex of the graph for the whole of its time.
 */
void bf_node_co_outlast_requests(BfNode *node);

/**
 * bf_root_pick_copy_loop:
 * @source: a root that is read
 * @target: a root that is written
 *
 * Returns: (transfer none): the loop on which handles of both go best
 */
BfLoop *bf_root_pick_copy_loop(const BfRoot *source, const BfRoot *target);
