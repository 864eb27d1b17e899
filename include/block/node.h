/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Block nodes and the graph they form, as the control plane sees them.
 *
 * Everything here runs on main; _co_ functions suspend. Changes are serialised
 * by the graph itself and take effect in one step; on failure nothing changed.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/loop.h"
#include "crypto/tls-creds.h"
#include "schema/types.h"

typedef struct BfNode BfNode;

/**
 * BfGraph: all nodes of a daemon, and who uses them
 */
typedef struct BfGraph BfGraph;

typedef struct BfThrottleGroup BfThrottleGroup;

/**
 * BfPerm: what a user of a node may do, or lets others do
 */
typedef enum BfPerm {
    BF_PERM_CONSISTENT_READ = 1 << 0,
    BF_PERM_WRITE = 1 << 1,
    BF_PERM_WRITE_UNCHANGED = 1 << 2,
    BF_PERM_RESIZE = 1 << 3,
    BF_PERM_ALL = (1 << 4) - 1,
} BfPerm;

/**
 * BfLimits: what a node asks of requests
 * @alignment: power of two, 1..65536; other requests are read-modify-write
 * @preferred: power of two, at least @alignment: best request size
 * @max_transfer: most bytes of one read or write, a multiple of @alignment; 0
 *     has no limit
 * @long_zeroes: a power of two: most bytes that may be zeroed at once with
 *     %BF_IO_NO_FALLBACK, because that is done or refused at once; 0 if the
 *     node does not say so
 * @keeps_pipes: what came through a pipe may still be read, and written, after
 *     its request has failed
 * @no_fua: has no FUA of its own, though others of its driver may: a flush
 *     follows
 * @counts_requests: requests are paid for one by one, so one should not be made
 *     of several
 */
typedef struct BfLimits {
    uint32_t alignment;
    uint32_t preferred;
    uint32_t max_transfer;
    uint64_t long_zeroes;
    bool keeps_pipes;
    bool no_fua;
    bool counts_requests;
} BfLimits;

/**
 * BfNodeEvents: upward notices of nodes
 * @quorum_bad: a child of a quorum node has failed (@error is text) or has
 *     other data than most (NULL)
 * @quorum_failure: too few children of a quorum node agree
 * @write_threshold: a write has gone @exceeded bytes beyond @threshold
 */
typedef struct BfNodeEvents {
    void (*quorum_bad)(void *opaque, BfQuorumOpType type, const char *error,
                       const char *child, uint64_t sector, uint64_t count);
    void (*quorum_failure)(void *opaque, const char *node, uint64_t sector,
                           uint64_t count);
    void (*write_threshold)(void *opaque, const char *node, uint64_t exceeded,
                            uint64_t threshold);
} BfNodeEvents;

/**
 * BfGraphConfig: what a graph needs from its owner
 * @workers: loops that nodes may live on; borrowed: live longer than the graph
 * @n_workers: at least 1
 * @allow_faults: nodes of the "fault" driver may be made
 * @open_fdset: opens "/dev/fdset/N" with open(2) @flags; returns a descriptor
 *     (transfer full) or -1 with @error
 * @take_tls_creds: (nullable): the client credentials with an id, for @user
 *     (for example "node 'n0'"), which keeps the object until it is released;
 *     (transfer full), or NULL with @error
 * @release_tls_creds: the reverse
 * @check_peer: (nullable): may @node be a client of the server behind the
 *     connected socket @fd, of its export @name? Sets @ret_own if that server
 *     is this daemon; false with @error if it would wait for itself. On main
 * @notice: (nullable): tells an administrator about a node; any thread
 * @find_throttle_group: finds a group by the id of its object, or returns NULL
 * @find_exported: (nullable): finds the node behind an export of our own NBD
 *     server as it is planned to be, or returns NULL. On main
 * @opaque: passed to all of them
 * @node_events: (nullable): borrowed constant: upward notices on main
 * @node_events_opaque: passed to @node_events
 */
typedef struct BfGraphConfig {
    BfLoop *const *workers;
    unsigned n_workers;
    bool allow_faults;
    int (*open_fdset)(void *opaque, const char *path, int flags,
                      GError **error);
    BfTlsCreds *(*take_tls_creds)(void *opaque, const char *id,
                                  const char *user, GError **error);
    void (*release_tls_creds)(void *opaque, const char *id, const char *user);
    bool (*check_peer)(void *opaque, BfNode *node, int fd, const char *name,
                       bool *ret_own, GError **error);
    void (*notice)(void *opaque, bool is_problem, const char *text);
    BfThrottleGroup *(*find_throttle_group)(void *opaque, const char *id);
    BfNode *(*find_exported)(void *opaque, const char *name);
    void *opaque;
    const BfNodeEvents *node_events;
    void *node_events_opaque;
} BfGraphConfig;

/**
 * bf_graph_new:
 * @config: copied
 *
 * Returns: (transfer full): an empty graph
 */
BfGraph *bf_graph_new(const BfGraphConfig *config);

/**
 * bf_graph_stop_waiting:
 * @graph: the graph
 *
 * The daemon ends: nothing waits any more for storage that is not there, now
 * and from now on. Requests to storage that answers go on.
 */
void bf_graph_stop_waiting(BfGraph *graph);

/**
 * bf_node_leads_to:
 * @from: a node
 * @to: another one, or the same
 *
 * Looks through nodes that are clients of our own server as well, and follows
 * the copies that jobs make of what is written.
 *
 * Returns: true if requests to @from come to @to
 */
bool bf_node_leads_to(BfNode *from, const BfNode *to);

/**
 * bf_node_check_not_behind:
 * @target: where a job is to write
 * @source: what it is to read
 * @error: set on failure
 *
 * Returns: false if requests to @target come to @source
 */
bool bf_node_check_not_behind(BfNode *target, const BfNode *source,
                              GError **error);

/**
 * bf_node_cancel_requests:
 * @node: a node
 *
 * Makes requests under way in @node and what is below fail, where a driver
 * can, rather than wait for storage that does not answer; for a job that is
 * cancelled by force. The nodes can be used afterwards.
 */
void bf_node_cancel_requests(BfNode *node);

/**
 * bf_graph_co_free:
 * @graph: (nullable): without roots; all nodes are flushed and closed
 */
void bf_graph_co_free(BfGraph *graph);

/**
 * bf_graph_co_blockdev_add:
 * @graph: the graph
 * @options: as from blockdev-add
 * @error: set on failure
 *
 * Opens a tree of nodes; the top one is owned by the monitor.
 *
 * Returns: false on failure
 */
bool bf_graph_co_blockdev_add(BfGraph *graph, const BfBlockdevOptions *options,
                              GError **error);

/**
 * bf_graph_co_blockdev_del:
 * @graph: the graph
 * @node_name: a node owned by the monitor and not in use
 * @error: set on failure
 *
 * Flushes and closes the node and the children that only it has. On return its
 * files are closed and their locks released.
 *
 * Returns: false on failure
 */
bool bf_graph_co_blockdev_del(BfGraph *graph, const char *node_name,
                              GError **error);

/**
 * bf_graph_co_reopen:
 * @graph: the graph
 * @options: the full new options of one or more nodes
 * @error: set on failure
 *
 * Gives nodes new options, all or none; options not given get their defaults.
 *
 * Returns: false on failure
 */
bool bf_graph_co_reopen(BfGraph *graph, const BfBlockdevOptionsList *options,
                        GError **error);

/**
 * bf_graph_co_resize:
 * @graph: the graph
 * @node: a node
 * @size: bytes
 * @error: set on failure
 *
 * Returns: false on failure
 */
bool bf_graph_co_resize(BfGraph *graph, BfNode *node, uint64_t size,
                        GError **error);

/**
 * bf_graph_find_node:
 * @graph: the graph
 * @node_name: (nullable): a name
 *
 * Returns: (transfer none) (nullable): the node
 */
BfNode *bf_graph_find_node(BfGraph *graph, const char *node_name);

/**
 * bf_graph_co_query:
 * @graph: the graph
 * @flat: leave backing chains out
 *
 * Returns: (transfer full): what query-named-block-nodes returns, newest first
 */
BfBlockDeviceInfoList *bf_graph_co_query(BfGraph *graph, bool flat);

/**
 * bf_node_graph:
 * @node: a node
 *
 * Returns: (transfer none): the graph that it is in
 */
BfGraph *bf_node_graph(const BfNode *node);

/**
 * bf_node_name:
 * @node: a node
 *
 * Returns: (transfer none): its name
 */
const char *bf_node_name(const BfNode *node);

/**
 * bf_node_is_read_only:
 * @node: a node
 *
 * Returns: true if it cannot be written
 */
bool bf_node_is_read_only(const BfNode *node);

/**
 * bf_node_is_active:
 * @node: a node
 *
 * Returns: false if it was set inactive
 */
bool bf_node_is_active(const BfNode *node);

/**
 * bf_node_co_activate:
 * @node: an inactive node
 * @error: set on failure
 *
 * Activates @node and its children, as adding an export to it does.
 *
 * Returns: false on failure
 */
bool bf_node_co_activate(BfNode *node, GError **error);
