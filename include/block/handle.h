/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Handles: how exports and jobs reach a node's data.
 *
 * A root (made on main) is a user's claim on a node: its permissions, and the
 * point where the node below can be replaced. A root has any number of
 * handles, one for each loop or connection of the user. A handle belongs to
 * one loop: it counts requests in flight, parks new ones while the graph
 * changes, and keeps statistics. Functions on a BfHandle run on its loop,
 * those on a BfRoot on main; _co_ functions suspend.
 *
 * Requests may have any offset and length within the node; alignment, splitting
 * and read-modify-write happen below. They return 0 or -errno:
 * -EINVAL a range outside of the node, -ENOSPC, -EIO, -EPERM (no permission,
 * read-only or inactive node), -ENOTSUP (with BF_IO_NO_FALLBACK), -ESHUTDOWN
 * (the root is being closed by force).
 */
#pragma once

#include "block/extents.h"
#include "block/node.h"
#include "core/iovec.h"
#include "core/loop.h"

/**
 * BfRoot: a user's claim on a node; see above
 */
typedef struct BfRoot BfRoot;

/**
 * BfHandle: the data path of a root on one loop; see above
 */
typedef struct BfHandle BfHandle;

/**
 * BfIoFlags: how a request is to be done
 * @BF_IO_FUA: stable before it returns
 * @BF_IO_MAY_UNMAP: zeroes: the range may be deallocated
 * @BF_IO_NO_FALLBACK: zeroes: fail with -ENOTSUP rather than write zeroes
 */
typedef enum BfIoFlags {
    BF_IO_FUA = 1 << 0,
    BF_IO_MAY_UNMAP = 1 << 1,
    BF_IO_NO_FALLBACK = 1 << 2,
} BfIoFlags;

/**
 * BfIoStats: what went through; on query summed over a root's handles. Times
 * are since the epoch, 0 for never, and of what has succeeded: writes, zeroes
 * and discards, and flushes.
 */
typedef struct BfIoStats {
    uint64_t read_ops, read_bytes;
    uint64_t write_ops, write_bytes;
    uint64_t zero_ops, zero_bytes;
    uint64_t discard_ops, discard_bytes;
    uint64_t flush_ops;
    uint64_t failed_ops;
    uint64_t last_change_ns, last_flush_ns;
} BfIoStats;

/**
 * bf_root_co_new:
 * @graph: the graph of @node
 * @node: what the user wants to reach
 * @description: what the user calls itself in errors, for example
 *     "export 'e0'"; copied
 * @perm: permissions needed, BfPerm bits
 * @shared: permissions that others may have, BfPerm bits
 * @error: set on failure: a permission conflict that names both users
 *
 * Returns: (transfer full): the root, or NULL
 */
BfRoot *bf_root_co_new(BfGraph *graph, BfNode *node, const char *description,
                       unsigned perm, unsigned shared, GError **error);

/**
 * bf_root_co_new_inactive:
 * @graph: the graph of @node
 * @node: what the user wants to reach
 * @description: as for bf_root_co_new(), like the rest
 * @perm: permissions needed, BfPerm bits
 * @shared: permissions that others may have, BfPerm bits
 * @error: set on failure
 *
 * Like bf_root_co_new() for a user who can live with an inactive node: its
 * writes fail with -EPERM meanwhile.
 *
 * Returns: (transfer full): the root, or NULL
 */
BfRoot *bf_root_co_new_inactive(BfGraph *graph, BfNode *node,
                                const char *description, unsigned perm,
                                unsigned shared, GError **error);

/**
 * bf_root_co_new_fixed:
 * @graph: the graph of @node
 * @node: a node
 * @description: as for bf_root_co_new()
 * @error: set on failure
 *
 * Makes a root that only keeps @node as it is: without permissions, but the
 * node is neither deleted nor resized meanwhile. It stays with @node when other
 * users are moved by bf_graph_co_replace_node().
 *
 * Returns: (transfer full): the root, or NULL
 */
BfRoot *bf_root_co_new_fixed(BfGraph *graph, BfNode *node,
                             const char *description, GError **error);

/**
 * bf_root_co_free:
 * @root: (nullable): all its handles are freed
 *
 * Gives the permissions back. On return the files are unlocked if this was the
 * last user.
 */
void bf_root_co_free(BfRoot *root);

/**
 * bf_root_abort:
 * @root: a root
 *
 * Makes parked and new requests fail with -ESHUTDOWN, for hard removal.
 */
void bf_root_abort(BfRoot *root);

/**
 * bf_root_cancel_requests:
 * @root: a root that was aborted
 *
 * Makes requests under way fail with -EIO, where a driver can, rather than wait
 * for storage that does not answer. What others use too is left alone, unless
 * they were aborted themselves.
 */
void bf_root_cancel_requests(BfRoot *root);

/**
 * bf_root_node:
 * @root: a root
 *
 * Returns: (transfer none): the node it leads to now
 */
BfNode *bf_root_node(BfRoot *root);

/**
 * bf_root_node_to_be:
 * @root: a root
 *
 * Returns: (transfer none) (nullable): the node it leads to when the change
 *     that is being planned, if any, has been made
 */
BfNode *bf_root_node_to_be(BfRoot *root);

/**
 * bf_root_size:
 * @root: a root
 *
 * Returns: size of its node, bytes
 */
uint64_t bf_root_size(BfRoot *root);

/**
 * bf_root_limits:
 * @root: a root
 *
 * Returns: (transfer none): alignment and largest transfer of its node
 */
const BfLimits *bf_root_limits(BfRoot *root);

/**
 * bf_root_stats:
 * @root: a root
 * @ret_stats: (out): the sum over its handles, those freed included
 */
void bf_root_stats(BfRoot *root, BfIoStats *ret_stats);

/**
 * bf_root_pick_loop:
 * @root: a root
 * @workers: the daemon's worker loops; at least one
 * @n_workers: how many
 * @wanted: index of the least loaded worker
 *
 * Returns: (transfer none): the loop that a new handle of @root should live on:
 * workers[wanted] if the tree below allows any, else its home loop
 */
BfLoop *bf_root_pick_loop(BfRoot *root, BfLoop *const *workers,
                          unsigned n_workers, unsigned wanted);

/**
 * bf_handle_co_new:
 * @root: a root; the caller runs on main
 * @loop: from bf_root_pick_loop()
 *
 * Returns: (transfer full): a handle for @loop
 */
BfHandle *bf_handle_co_new(BfRoot *root, BfLoop *loop);

/**
 * bf_handle_co_free:
 * @handle: (nullable): the caller runs on main; requests that are still in
 *     flight are waited for
 */
void bf_handle_co_free(BfHandle *handle);

/**
 * bf_handle_co_free_idle:
 * @handle: alike; its loop has seen that bf_handle_in_flight() was 0, and has
 *     started nothing since, so it is not visited
 */
void bf_handle_co_free_idle(BfHandle *handle);

/**
 * bf_handle_in_flight:
 * @handle: a handle
 *
 * Returns: number of requests that have begun and not ended, parked ones too
 */
unsigned bf_handle_in_flight(const BfHandle *handle);

/**
 * bf_handle_last_loss:
 * @handle: a handle
 *
 * Tells whether writes may be lost although no flush has failed: a number that
 * is larger than before if, by the end of the last flush, a server went away
 * that had acknowledged some and not flushed them. Of the node and all below it
 * that writes go to. A child that is added counts from its own beginning.
 *
 * Returns: that number
 */
uint64_t bf_handle_last_loss(const BfHandle *handle);

/**
 * bf_handle_size:
 * @handle: a handle
 *
 * Returns: size of the node, bytes
 */
uint64_t bf_handle_size(const BfHandle *handle);

/**
 * bf_handle_limits:
 * @handle: a handle
 *
 * Returns: (transfer none): alignment and largest transfer of the node
 */
const BfLimits *bf_handle_limits(const BfHandle *handle);

/**
 * bf_handle_co_read:
 * @handle: a handle
 * @offset: bytes
 * @vec: (inout): filled; its length is the request's
 * @flags: none defined
 *
 * Returns: 0 or -errno
 */
int bf_handle_co_read(BfHandle *handle, uint64_t offset, BfIoVec *vec,
                      unsigned flags);

/**
 * bf_handle_co_write:
 * @handle: a handle whose root has %BF_PERM_WRITE
 * @offset: bytes
 * @vec: the data; unchanged, and must not change until the call returns
 * @flags: %BF_IO_FUA
 *
 * Returns: 0 or -errno
 */
int bf_handle_co_write(BfHandle *handle, uint64_t offset, BfIoVec *vec,
                       unsigned flags);

/**
 * bf_handle_co_write_zeroes:
 * @handle: a handle whose root has %BF_PERM_WRITE
 * @offset: bytes
 * @bytes: length
 * @flags: BfIoFlags
 *
 * Makes the range read as zeroes.
 *
 * Returns: 0 or -errno
 */
int bf_handle_co_write_zeroes(BfHandle *handle, uint64_t offset, uint64_t bytes,
                              unsigned flags);

/**
 * bf_handle_co_discard:
 * @handle: a handle whose root has %BF_PERM_WRITE
 * @offset: bytes
 * @bytes: length
 * @flags: %BF_IO_FUA
 *
 * Hints that the range is not needed; what it reads as afterwards is not
 * defined. Does nothing if the node has discard=ignore.
 *
 * Returns: 0 or -errno
 */
int bf_handle_co_discard(BfHandle *handle, uint64_t offset, uint64_t bytes,
                         unsigned flags);

/**
 * bf_handle_co_flush:
 * @handle: a handle
 *
 * Makes all writes of all users of the node that have returned before stable.
 *
 * Returns: 0 or -errno
 */
int bf_handle_co_flush(BfHandle *handle);

/**
 * bf_handle_co_extents:
 * @handle: a handle
 * @offset: bytes
 * @bytes: length, at least 1
 * @extents: (inout): an empty list; adjacent equal extents are merged
 *
 * Describes the range from @offset on, until @bytes are covered or the list is
 * full; at least one extent.
 *
 * Returns: 0 or -errno
 */
int bf_handle_co_extents(BfHandle *handle, uint64_t offset, uint64_t bytes,
                         BfExtents *extents);

/**
 * bf_handle_co_cache:
 * @handle: a handle
 * @offset: bytes
 * @bytes: length
 *
 * Hints that the range will be read soon.
 *
 * Returns: 0 or -errno
 */
int bf_handle_co_cache(BfHandle *handle, uint64_t offset, uint64_t bytes);

/**
 * bf_handle_co_read_pipe:
 * @handle: a handle
 * @offset: bytes
 * @bytes: length; at most the free room of the pipe
 * @pipe_fd: write end of an empty pipe that can hold @bytes
 *
 * Puts the data into a pipe without copying it. All or nothing: when it fails
 * the pipe may hold a part and is to be closed.
 *
 * Returns: 0, -EOPNOTSUPP when the storage cannot (the pipe is still empty;
 * read with bf_handle_co_read()), or another -errno
 */
int bf_handle_co_read_pipe(BfHandle *handle, uint64_t offset, uint64_t bytes,
                           int pipe_fd);

/**
 * bf_handle_co_write_pipe:
 * @handle: a handle with %BF_PERM_WRITE
 * @offset: bytes
 * @bytes: length
 * @pipe_fd: read end of a pipe that holds exactly @bytes
 *
 * Writes what a pipe holds, with one copy less than from a buffer. When it
 * fails a part may be written, and the pipe may hold the rest and is to be
 * closed.
 *
 * Returns: 0, -EOPNOTSUPP when the storage cannot, or not now (the pipe still
 * holds everything; write with bf_handle_co_write()), or another -errno
 */
int bf_handle_co_write_pipe(BfHandle *handle, uint64_t offset, uint64_t bytes,
                            int pipe_fd);
