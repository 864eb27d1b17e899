/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operations of a filter that leave all to BfNode.file; for the tables of
 * drivers, beside what a filter does itself. Contracts and threads are those of
 * the operations of BfDriver (block/driver.h).
 */
#pragma once

#include "block/driver.h"

/**
 * bf_filter_co_read:
 * @node: a filter
 * @offset: bytes
 * @vec: filled
 * @flags: passed on
 *
 * Returns: 0 or -errno
 */
int bf_filter_co_read(BfNode *node, uint64_t offset, BfIoVec *vec,
                      BfIoFlags flags);

/**
 * bf_filter_co_write:
 * @node: a filter
 * @offset: bytes
 * @vec: the data
 * @flags: passed on
 *
 * Returns: 0 or -errno
 */
int bf_filter_co_write(BfNode *node, uint64_t offset, BfIoVec *vec,
                       BfIoFlags flags);

/**
 * bf_filter_co_write_zeroes:
 * @node: a filter
 * @offset: bytes
 * @bytes: length
 * @flags: passed on
 *
 * Returns: 0 or -errno
 */
int bf_filter_co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes,
                              BfIoFlags flags);

/**
 * bf_filter_co_discard:
 * @node: a filter
 * @offset: bytes
 * @bytes: length
 *
 * Returns: 0 or -errno
 */
int bf_filter_co_discard(BfNode *node, uint64_t offset, uint64_t bytes);

/**
 * bf_filter_co_flush:
 * @node: a filter; its child may be gone already
 *
 * Returns: 0 or -errno
 */
int bf_filter_co_flush(BfNode *node);

/**
 * bf_filter_co_extents:
 * @node: a filter
 * @offset: bytes
 * @bytes: length
 * @extents: (inout): appended to
 *
 * Returns: 0 or -errno
 */
int bf_filter_co_extents(BfNode *node, uint64_t offset, uint64_t bytes,
                         BfExtents *extents);

/**
 * bf_filter_co_cache:
 * @node: a filter
 * @offset: bytes
 * @bytes: length
 *
 * Returns: 0 or -errno
 */
int bf_filter_co_cache(BfNode *node, uint64_t offset, uint64_t bytes);

/**
 * bf_filter_co_read_pipe:
 * @node: a filter
 * @offset: bytes
 * @bytes: length
 * @pipe_fd: write end of a pipe
 *
 * Returns: 0 or -errno
 */
int bf_filter_co_read_pipe(BfNode *node, uint64_t offset, uint64_t bytes,
                           int pipe_fd);

/**
 * bf_filter_refresh:
 * @node: a filter; gets size and limits of its child
 */
void bf_filter_refresh(BfNode *node);

/**
 * bf_filter_co_resize:
 * @node: a filter
 * @size: bytes
 * @error: set on failure
 *
 * Returns: whether the child has the size now
 */
bool bf_filter_co_resize(BfNode *node, uint64_t size, GError **error);
