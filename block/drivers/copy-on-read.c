/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * copy-on-read: has data that a read finds in a backing image written to the
 * image above it. A child without a backing image has all of its data itself,
 * so reads pass; the permission to write unchanged data is held all the same,
 * as what is below may change.
 */
#include "block/driver.h"
#include "block/filter.h"
#include "block/request.h"
#include "core/error.h"

static bool
is_below(const BfNode *node, const BfNode *bottom)
{
    return node != NULL && (node == bottom || is_below(node->file, bottom));
}

static bool
check_bottom(BfNode *node, const BfNode *file, const char *name, GError **error)
{
    const BfNode *bottom;

    if (name == NULL) {
        return true;
    }
    bottom = bf_graph_find_node(node->graph, name);
    if (bottom == NULL) {
        bf_set_error(error, "Bottom node '%s' not found", name);
        return false;
    }
    if (!is_below(file, bottom)) {
        bf_set_error(error, "Bottom node '%s' is not in the chain of node '%s'",
                     name, file->name);
        return false;
    }
    return true;
}

static bool
cor_co_open(BfNode *node, const BfBlockdevOptions *options, BfOpenContext *ctx,
            GError **error)
{
    const BfBlockdevOptionsCor *opts = options->u.copy_on_read;

    if (!bf_node_co_open_child(node, ctx, opts->file, error) ||
        !check_bottom(node, node->file, opts->bottom, error)) {
        return false;
    }
    bf_filter_refresh(node);
    return true;
}

static bool
cor_co_reopen_prepare(BfNode *node, const BfBlockdevOptions *options,
                      const BfNode *file, GError **error)
{
    return check_bottom(node, file, options->u.copy_on_read->bottom, error) &&
           bf_node_check_new_size(node, file->size, error);
}

static void
cor_child_perm(const BfNode *node, const char *edge, unsigned *perm,
               unsigned *shared)
{
    *shared |= BF_PERM_WRITE_UNCHANGED;
    if (node->active && !bf_node_settings_to_be(node)->read_only) {
        *perm |= BF_PERM_WRITE_UNCHANGED;
    }
}

const BfDriver bf_driver_copy_on_read = {
    .name = "copy-on-read",
    .kind = BF_BLOCKDEV_DRIVER_COPY_ON_READ,
    .node_size = sizeof(BfNode),
    .any_loop = true, /* it has no fields */
    .is_filter = true,
    .fua = true,
    .fua_zeroes = true,
    .co_open = cor_co_open,
    .co_read = bf_filter_co_read,
    .co_write = bf_filter_co_write,
    .co_flush = bf_filter_co_flush,
    .co_write_zeroes = bf_filter_co_write_zeroes,
    .co_discard = bf_filter_co_discard,
    .co_extents = bf_filter_co_extents,
    .co_cache = bf_filter_co_cache,
    .co_read_pipe = bf_filter_co_read_pipe,
    .refresh = bf_filter_refresh,
    .co_resize = bf_filter_co_resize,
    .co_reopen_prepare = cor_co_reopen_prepare,
    .child_perm = cor_child_perm,
};
