/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What filters pass on unchanged. A flush may come after the child has left:
 * there is nothing behind the node any more then.
 */
#include "block/filter.h"

#include "block/request.h"

int
bf_filter_co_read(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    return bf_node_co_read(node->file, offset, vec, flags);
}

int
bf_filter_co_write(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    return bf_node_co_write(node->file, offset, vec, flags);
}

int
bf_filter_co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes,
                          BfIoFlags flags)
{
    return bf_node_co_write_zeroes(node->file, offset, bytes, flags);
}

int
bf_filter_co_discard(BfNode *node, uint64_t offset, uint64_t bytes)
{
    return bf_node_co_discard(node->file, offset, bytes, 0);
}

int
bf_filter_co_flush(BfNode *node)
{
    return node->file != NULL ? bf_node_co_flush(node->file) : 0;
}

int
bf_filter_co_extents(BfNode *node, uint64_t offset, uint64_t bytes,
                     BfExtents *extents)
{
    return bf_node_co_extents(node->file, offset, bytes, extents);
}

int
bf_filter_co_cache(BfNode *node, uint64_t offset, uint64_t bytes)
{
    return bf_node_co_cache(node->file, offset, bytes);
}

int
bf_filter_co_read_pipe(BfNode *node, uint64_t offset, uint64_t bytes,
                       int pipe_fd)
{
    return bf_node_co_read_pipe(node->file, offset, bytes, pipe_fd);
}

void
bf_filter_refresh(BfNode *node)
{
    node->size = node->file->size;
    node->limits = node->file->limits;
    node->limits.long_zeroes = 0; /* a filter may have to do more, or wait */
}

bool
bf_filter_co_resize(BfNode *node, uint64_t size, GError **error)
{
    return bf_node_co_resize(node->file, size, error);
}
