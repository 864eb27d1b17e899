/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP commands on dirty bitmaps. Each is one action, which the block layer
 * checks and does; transactions do several of them as one.
 */
#include "block/bitmap-ops.h"
#include "qmp/dispatch.h"
#include "qmp/gen-commands.h"

static bool
co_apply_one(BfQmpCall *call, BfBitmapActionKind kind,
             const BfBlockDirtyBitmap *args, GError **error)
{
    const BfBitmapAction action = {.kind = kind, .u.one = args};

    return bf_bitmap_co_apply(call->daemon->graph, &action, 1, error);
}

bool
bf_qmp_co_block_dirty_bitmap_add(BfQmpCall *call,
                                 const BfBlockDirtyBitmapAdd *args,
                                 GError **error)
{
    const BfBitmapAction action = {
        .kind = BF_BITMAP_ACTION_ADD,
        .u.add = args,
    };

    return bf_bitmap_co_apply(call->daemon->graph, &action, 1, error);
}

bool
bf_qmp_co_block_dirty_bitmap_remove(BfQmpCall *call,
                                    const BfBlockDirtyBitmap *args,
                                    GError **error)
{
    return co_apply_one(call, BF_BITMAP_ACTION_REMOVE, args, error);
}

bool
bf_qmp_co_block_dirty_bitmap_clear(BfQmpCall *call,
                                   const BfBlockDirtyBitmap *args,
                                   GError **error)
{
    return co_apply_one(call, BF_BITMAP_ACTION_CLEAR, args, error);
}

bool
bf_qmp_co_block_dirty_bitmap_enable(BfQmpCall *call,
                                    const BfBlockDirtyBitmap *args,
                                    GError **error)
{
    return co_apply_one(call, BF_BITMAP_ACTION_ENABLE, args, error);
}

bool
bf_qmp_co_block_dirty_bitmap_disable(BfQmpCall *call,
                                     const BfBlockDirtyBitmap *args,
                                     GError **error)
{
    return co_apply_one(call, BF_BITMAP_ACTION_DISABLE, args, error);
}

bool
bf_qmp_co_block_dirty_bitmap_merge(BfQmpCall *call,
                                   const BfBlockDirtyBitmapMerge *args,
                                   GError **error)
{
    const BfBitmapAction action = {
        .kind = BF_BITMAP_ACTION_MERGE,
        .u.merge = args,
    };

    return bf_bitmap_co_apply(call->daemon->graph, &action, 1, error);
}

bool
bf_qmp_co_x_debug_block_dirty_bitmap_sha256(BfQmpCall *call,
                                            const BfBlockDirtyBitmap *args,
                                            BfBlockDirtyBitmapSha256 **ret,
                                            GError **error)
{
    char *sum = bf_bitmap_co_sha256(call->daemon->graph, args, error);

    if (sum == NULL) {
        return false;
    }
    *ret = g_new0(BfBlockDirtyBitmapSha256, 1);
    (*ret)->sha256 = sum;
    return true;
}
