/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * raw: a window onto its child; the whole of it by default. It aligns nothing
 * itself, so that read-modify-write happens in one place only, below.
 */
#include <inttypes.h>

#include "block/driver.h"
#include "block/filter.h"
#include "block/request.h"
#include "core/error.h"
#include "core/util.h"

typedef struct BfRawNode {
    BfNode base;
    uint64_t offset;
    uint64_t window; /* bytes, or 0: up to the end of the child */
    bool fixed;      /* @window holds */
    bool next_fixed; /* after a reopen that is being prepared */
    uint64_t next_offset;
    uint64_t next_window;
} BfRawNode;

static bool
is_not_negative(const char *name, int64_t value, GError **error)
{
    if (value < 0) {
        bf_set_error(error, "Parameter '%s' expects a non-negative value",
                     name);
    }
    return value >= 0;
}

/* Checks a window against a child; the texts are those that QEMU has. */
static bool
check_window(const BfBlockdevOptionsRaw *opts, uint64_t real_size,
             GError **error)
{
    if (!is_not_negative("offset", opts->offset, error) ||
        !is_not_negative("size", opts->has_size ? opts->size : 0, error)) {
        return false;
    }
    if ((uint64_t)opts->offset > real_size) {
        bf_set_error(error,
                     "Offset (%" PRId64 ") cannot be greater than size of the "
                     "containing file (%" PRIu64 ")",
                     opts->offset, real_size);
        return false;
    }
    if (!opts->has_size) {
        return true;
    }
    if ((uint64_t)opts->size > real_size - (uint64_t)opts->offset) {
        bf_set_error(error,
                     "The sum of offset (%" PRId64 ") and size (%" PRId64
                     ") has to be smaller or equal to the  actual size of the "
                     "containing file (%" PRIu64 ")",
                     opts->offset, opts->size, real_size);
        return false;
    }
    if (opts->size % 512 != 0) {
        bf_set_error(error, "Specified size is not multiple of 512");
        return false;
    }
    return true;
}

static uint64_t
rest_behind(const BfNode *child, uint64_t offset)
{
    uint64_t rest = child->size > offset ? child->size - offset : 0;

    return bf_align_down(rest, 512);
}

/* What is told upwards is the child's, as far as the offset keeps it true. */
static void
raw_refresh(BfNode *node)
{
    const BfRawNode *self = (const BfRawNode *)node;
    const BfNode *child = node->file;

    node->size = self->fixed ? self->window : rest_behind(child, self->offset);
    node->limits = child->limits;
    if ((self->offset & (node->limits.preferred - 1)) != 0) {
        node->limits.preferred = node->limits.alignment;
    }
}

static bool
raw_co_open(BfNode *node, const BfBlockdevOptions *options, BfOpenContext *ctx,
            GError **error)
{
    const BfBlockdevOptionsRaw *opts = options->u.raw;
    BfRawNode *self = (BfRawNode *)node;

    if (!bf_node_co_open_child(node, ctx, opts->file, error) ||
        !check_window(opts, node->file->size, error)) {
        return false;
    }
    self->offset = opts->offset;
    self->fixed = opts->has_size;
    self->window = opts->size;
    raw_refresh(node);
    return true;
}

static inline uint64_t
below(const BfNode *node, uint64_t offset)
{
    return ((const BfRawNode *)node)->offset + offset;
}

static int
raw_co_read(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    return bf_node_co_read(node->file, below(node, offset), vec, flags);
}

static int
raw_co_write(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    return bf_node_co_write(node->file, below(node, offset), vec, flags);
}

static int
raw_co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes,
                    BfIoFlags flags)
{
    return bf_node_co_write_zeroes(node->file, below(node, offset), bytes,
                                   flags);
}

static int
raw_co_discard(BfNode *node, uint64_t offset, uint64_t bytes)
{
    return bf_node_co_discard(node->file, below(node, offset), bytes, 0);
}

static int
raw_co_extents(BfNode *node, uint64_t offset, uint64_t bytes,
               BfExtents *extents)
{
    return bf_node_co_extents(node->file, below(node, offset), bytes, extents);
}

static int
raw_co_cache(BfNode *node, uint64_t offset, uint64_t bytes)
{
    return bf_node_co_cache(node->file, below(node, offset), bytes);
}

static int
raw_co_read_pipe(BfNode *node, uint64_t offset, uint64_t bytes, int pipe_fd)
{
    return bf_node_co_read_pipe(node->file, below(node, offset), bytes,
                                pipe_fd);
}

static int
raw_co_write_pipe(BfNode *node, uint64_t offset, uint64_t bytes, int pipe_fd)
{
    return bf_node_co_write_pipe(node->file, below(node, offset), bytes,
                                 pipe_fd);
}

static bool
raw_co_resize(BfNode *node, uint64_t size, GError **error)
{
    const BfRawNode *self = (const BfRawNode *)node;
    uint64_t child_size;

    if (self->fixed) {
        bf_set_error(error, "Cannot resize fixed-size raw disks");
        return false;
    }
    if (!bf_add_u64(size, self->offset, &child_size)) {
        bf_set_error(error, "Disk size too large for the chosen offset");
        return false;
    }
    return bf_node_co_resize(node->file, child_size, error);
}

static bool
raw_co_reopen_prepare(BfNode *node, const BfBlockdevOptions *options,
                      const BfNode *file, GError **error)
{
    const BfBlockdevOptionsRaw *opts = options->u.raw;
    BfRawNode *self = (BfRawNode *)node;
    uint64_t size;

    if (!check_window(opts, file->size, error)) {
        return false;
    }
    size =
        opts->has_size ? (uint64_t)opts->size : rest_behind(file, opts->offset);
    if (!bf_node_check_new_size(node, size, error)) {
        return false;
    }
    self->next_offset = opts->offset;
    self->next_fixed = opts->has_size;
    self->next_window = opts->size;
    return true;
}

static void
raw_reopen_commit(BfNode *node)
{
    BfRawNode *self = (BfRawNode *)node;

    self->offset = self->next_offset;
    self->fixed = self->next_fixed;
    self->window = self->next_window;
}

/* A window must not end behind its child, nor begin there, whether somebody
 * uses it or not. */
static void
raw_child_perm(const BfNode *node, const char *edge, unsigned *perm,
               unsigned *shared)
{
    const BfRawNode *self = (const BfRawNode *)node;
    bool is_planned = node->settings_plan != NULL;

    if ((is_planned ? self->next_fixed : self->fixed) ||
        (is_planned ? self->next_offset : self->offset) > 0) {
        *shared &= ~(unsigned)BF_PERM_RESIZE;
    }
}

const BfDriver bf_driver_raw = {
    .name = "raw",
    .kind = BF_BLOCKDEV_DRIVER_RAW,
    .node_size = sizeof(BfRawNode),
    .any_loop = true, /* fields change only while drained */
    .fua = true,
    .fua_zeroes = true,
    .co_open = raw_co_open,
    .co_read = raw_co_read,
    .co_write = raw_co_write,
    .co_write_zeroes = raw_co_write_zeroes,
    .co_discard = raw_co_discard,
    .co_flush = bf_filter_co_flush,
    .co_extents = raw_co_extents,
    .co_cache = raw_co_cache,
    .co_read_pipe = raw_co_read_pipe,
    .co_write_pipe = raw_co_write_pipe,
    .refresh = raw_refresh,
    .co_resize = raw_co_resize,
    .co_reopen_prepare = raw_co_reopen_prepare,
    .reopen_commit = raw_reopen_commit,
    .child_perm = raw_child_perm,
};
