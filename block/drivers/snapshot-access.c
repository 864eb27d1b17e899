/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * snapshot-access: shows the past that its child, a copy-before-write node,
 * keeps, for a backup program that reads it over NBD. A discard tells that a
 * range was read and need not be kept any more.
 */
#include <errno.h>

#include "block/driver.h"
#include "block/filter.h"
#include "core/error.h"

static bool
check_child(const BfNode *child, GError **error)
{
    if (child->driver->co_snapshot_read == NULL) {
        bf_set_error(error,
                     "Node '%s' of driver '%s' keeps no snapshot; give the "
                     "name of a copy-before-write node that is no job's",
                     child->name, child->driver->name);
        return false;
    }
    return true;
}

static bool
access_co_open(BfNode *node, const BfBlockdevOptions *options,
               BfOpenContext *ctx, GError **error)
{
    if (!bf_node_co_open_child(node, ctx, options->u.snapshot_access->file,
                               error) ||
        !check_child(node->file, error)) {
        return false;
    }
    bf_filter_refresh(node);
    return true;
}

static int
access_co_read(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    BfNode *child = node->file;

    /* A job may have put its own filter between. */
    return child->driver->co_snapshot_read != NULL
               ? child->driver->co_snapshot_read(child, offset, vec)
               : -ENOTSUP;
}

static int
access_co_write(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    return -EPERM; /* the past does not change */
}

static int
access_co_discard(BfNode *node, uint64_t offset, uint64_t bytes)
{
    BfNode *child = node->file;

    return child->driver->co_snapshot_discard != NULL
               ? child->driver->co_snapshot_discard(child, offset, bytes)
               : -ENOTSUP;
}

static int
access_co_extents(BfNode *node, uint64_t offset, uint64_t bytes,
                  BfExtents *extents)
{
    BfNode *child = node->file;

    return child->driver->co_snapshot_extents != NULL
               ? child->driver->co_snapshot_extents(child, offset, bytes,
                                                    extents)
               : -ENOTSUP;
}

static bool
access_co_reopen_prepare(BfNode *node, const BfBlockdevOptions *options,
                         const BfNode *file, GError **error)
{
    return check_child(file, error) &&
           bf_node_check_new_size(node, file->size, error);
}

/* The filter reads for us by permissions of its own. */
static void
access_child_perm(const BfNode *node, const char *edge, unsigned *perm,
                  unsigned *shared)
{
    *perm = 0;
    *shared = BF_PERM_ALL;
}

const BfDriver bf_driver_snapshot_access = {
    .name = "snapshot-access",
    .kind = BF_BLOCKDEV_DRIVER_SNAPSHOT_ACCESS,
    .node_size = sizeof(BfNode),
    .co_open = access_co_open,
    .co_read = access_co_read,
    .co_write = access_co_write,
    .co_discard = access_co_discard,
    .co_extents = access_co_extents,
    .refresh = bf_filter_refresh,
    .co_reopen_prepare = access_co_reopen_prepare,
    .child_perm = access_child_perm,
};
