/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * null-co and null-aio: no storage. Writes are dropped and reads give zeroes,
 * all after an optional delay. The file to copy when writing a new driver.
 */
#include <inttypes.h>

#include "block/driver.h"
#include "core/co-io.h"
#include "core/error.h"
#include "core/util.h"

#define NULL_LATENCY_MAX_NS (10 * BF_NS_PER_SEC)

typedef struct BfNullNode {
    BfNode base; /* first: a BfNode pointer converts to this */
    uint64_t latency_ns;
    bool read_zeroes;
} BfNullNode;

static const BfBlockdevOptionsNull *
null_options(const BfBlockdevOptions *options)
{
    return options->driver == BF_BLOCKDEV_DRIVER_NULL_AIO ? options->u.null_aio
                                                          : options->u.null_co;
}

static bool
null_co_open(BfNode *node, const BfBlockdevOptions *options, BfOpenContext *ctx,
             GError **error)
{
    const BfBlockdevOptionsNull *opts = null_options(options);
    BfNullNode *self = (BfNullNode *)node;

    if (opts->size < 0) {
        bf_set_error(error, "Parameter 'size' expects a non-negative value");
        return false;
    }
    if (opts->latency_ns > NULL_LATENCY_MAX_NS) {
        bf_set_error(error, "latency-ns is above %" PRIu64,
                     NULL_LATENCY_MAX_NS);
        return false;
    }
    /* The caller checks that it is not too large, as for every driver. */
    node->size = (uint64_t)opts->size;
    self->latency_ns = opts->latency_ns;
    self->read_zeroes = opts->read_zeroes;
    return true;
}

static int
co_delay(const BfNode *node)
{
    const BfNullNode *self = (const BfNullNode *)node;

    return bf_co_sleep_ns(self->latency_ns);
}

static int
null_co_read(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    /* Old buffer contents could be another client's data. */
    bf_iovec_fill(vec, 0, vec->bytes, 0);
    return co_delay(node);
}

static int
null_co_write(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    return co_delay(node);
}

static int
null_co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes,
                     BfIoFlags flags)
{
    return co_delay(node);
}

static int
null_co_discard(BfNode *node, uint64_t offset, uint64_t bytes)
{
    return co_delay(node);
}

static int
null_co_flush(BfNode *node)
{
    return 0; /* nothing is kept, so nothing can be lost */
}

static int
null_co_extents(BfNode *node, uint64_t offset, uint64_t bytes,
                BfExtents *extents)
{
    const BfNullNode *self = (const BfNullNode *)node;

    bf_extents_append(extents, bytes,
                      self->read_zeroes ? BF_EXTENT_HOLE | BF_EXTENT_ZERO : 0);
    return 0;
}

static void
null_query(BfNode *node, BfNodeInfo *info)
{
    const BfNullNode *self = (const BfNullNode *)node;
    const BfBlockdevOptionsNull *opts = null_options(node->options);

    if ((uint64_t)opts->size == BF_GIB && !self->read_zeroes) {
        info->filename = g_strdup_printf("%s://", node->driver->name);
    }
    info->has_actual_size = true;
    info->actual_size = 0;
}

/* The two differ in name only. Any loop: no field changes after open. */
#define NULL_OPERATIONS                                                        \
    .node_size = sizeof(BfNullNode), .any_loop = true, .fixed_options = true,  \
    .fua = true, .co_open = null_co_open, .co_read = null_co_read,             \
    .co_write = null_co_write, .co_write_zeroes = null_co_write_zeroes,        \
    .co_discard = null_co_discard, .co_flush = null_co_flush,                  \
    .co_extents = null_co_extents, .query = null_query

const BfDriver bf_driver_null_co = {
    .name = "null-co",
    .kind = BF_BLOCKDEV_DRIVER_NULL_CO,
    NULL_OPERATIONS,
};

const BfDriver bf_driver_null_aio = {
    .name = "null-aio",
    .kind = BF_BLOCKDEV_DRIVER_NULL_AIO,
    NULL_OPERATIONS,
};
