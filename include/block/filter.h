/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operations of a filter that pass a request to BfNode.file as it is; for the
 * tables of drivers, beside what a filter does itself. Contracts and threads
 * are those of the operations of BfDriver (block/driver.h).
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
