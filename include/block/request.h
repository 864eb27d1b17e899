/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests to a node, for handles and for drivers that have children.
 *
 * These check the range, mark dirty bitmaps, align, split, fall back, and call
 * the driver. They run where the driver's data operations run (see
 * block/driver.h) and never while the node is drained. All suspend and return
 * 0 or -errno; those are the same as in block/handle.h.
 */
#pragma once

#include "block/driver.h"

/**
 * BF_IO_UNMARKED: beside BfIoFlags, for changes by a job's filter: bitmaps that
 * are filtered are not marked. It holds for the node that is called only.
 */
#define BF_IO_UNMARKED (1 << 8)

/**
 * BF_IO_KEEP_HOLES: what %BF_IO_MAY_UNMAP becomes below a node that ignores
 * discards: zeroes free no room, and take none where there is a hole.
 */
#define BF_IO_KEEP_HOLES (1 << 9)

/**
 * bf_node_co_read:
 * @node: a node
 * @offset: bytes
 * @vec: (inout): filled; its length is the request's
 * @flags: none defined
 *
 * Returns: 0 or -errno
 */
int bf_node_co_read(BfNode *node, uint64_t offset, BfIoVec *vec,
                    BfIoFlags flags);

/**
 * bf_node_co_write:
 * @node: a node
 * @offset: bytes
 * @vec: the data
 * @flags: %BF_IO_FUA
 *
 * Returns: 0 or -errno
 */
int bf_node_co_write(BfNode *node, uint64_t offset, BfIoVec *vec,
                     BfIoFlags flags);

/**
 * bf_node_co_write_zeroes:
 * @node: a node
 * @offset: bytes
 * @bytes: length
 * @flags: any
 *
 * Returns: 0 or -errno
 */
int bf_node_co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes,
                            BfIoFlags flags);

/**
 * bf_node_co_discard:
 * @node: a node
 * @offset: bytes
 * @bytes: length
 * @flags: %BF_IO_FUA
 *
 * Returns: 0 or -errno
 */
int bf_node_co_discard(BfNode *node, uint64_t offset, uint64_t bytes,
                       BfIoFlags flags);

/**
 * bf_node_co_flush:
 * @node: a node
 *
 * Returns: 0 or -errno
 */
int bf_node_co_flush(BfNode *node);

/**
 * bf_node_co_extents:
 * @node: a node
 * @offset: bytes
 * @bytes: length, at least 1
 * @extents: (inout): a list with room
 *
 * Returns: 0 or -errno
 */
int bf_node_co_extents(BfNode *node, uint64_t offset, uint64_t bytes,
                       BfExtents *extents);

/**
 * bf_node_co_cache:
 * @node: a node
 * @offset: bytes
 * @bytes: length
 *
 * Returns: 0 or -errno
 */
int bf_node_co_cache(BfNode *node, uint64_t offset, uint64_t bytes);

/**
 * bf_node_co_read_pipe:
 * @node: a node
 * @offset: bytes
 * @bytes: length
 * @pipe_fd: write end of an empty pipe
 *
 * Returns: 0 or -errno, as bf_handle_co_read_pipe()
 */
int bf_node_co_read_pipe(BfNode *node, uint64_t offset, uint64_t bytes,
                         int pipe_fd);

/**
 * bf_node_co_write_pipe:
 * @node: a node
 * @offset: bytes
 * @bytes: length
 * @pipe_fd: read end of a pipe that holds exactly @bytes
 *
 * Returns: 0 or -errno, as bf_handle_co_write_pipe()
 */
int bf_node_co_write_pipe(BfNode *node, uint64_t offset, uint64_t bytes,
                          int pipe_fd);

/**
 * bf_node_last_loss:
 * @node: a node; any loop that has a request under way there, or main
 *
 * Returns: a number that grows when this node or one below it that it writes to
 *     calls bf_node_note_loss(). It may get smaller when the graph changes
 */
uint64_t bf_node_last_loss(const BfNode *node);

/**
 * bf_node_flush_saves:
 * @node: a node; any loop that has a request under way there
 *
 * Returns: whether a flush saves what was written before from being lost with
 *     bf_node_note_loss(). If not, either nothing is lost as long as the daemon
 *     lives, or a flush does not help
 */
bool bf_node_flush_saves(const BfNode *node);

/**
 * bf_node_reads_at_home:
 * @node: a node
 *
 * Returns: true if all requests must run on the home loop
 */
static inline bool
bf_node_reads_at_home(const BfNode *node)
{
    return !node->any_loop;
}

/**
 * bf_node_writes_at_home:
 * @node: a node
 *
 * Read-modify-write must see every overlapping write, so where it can be
 * needed all writes run on one loop.
 *
 * Returns: true if requests that write must run on the home loop
 */
static inline bool
bf_node_writes_at_home(const BfNode *node)
{
    return !node->any_loop || node->limits.alignment > 1;
}
