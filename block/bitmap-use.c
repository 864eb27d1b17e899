/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Uses of dirty bitmaps by exports and jobs. A root without permissions keeps
 * the node, its size and so the bitmap; the "busy" mark keeps commands off.
 */
#include "block-private.h"
#include "block/bitmap-ops.h"
#include "core/error.h"
#include "core/util.h"

struct BfBitmapUse {
    BfRoot *root; /* owned: fixed */
    BfBitmap *bitmap;
};

BfBitmapUse *
bf_bitmap_co_use(BfNode *node, BfBitmap *bitmap, const char *description,
                 GError **error)
{
    BfGraph *graph = node->graph;
    BfBitmapUse *use;
    BfRoot *root;

    /* Else it could be one that a transaction has made and takes back. */
    g_assert(bf_graph_is_in_section(graph));
    if (!bf_bitmap_check(bitmap, BF_BITMAP_CHECK_USE, error)) {
        return NULL;
    }
    if (node->options == NULL) { /* it goes with its job, and users move */
        bf_set_error(error,
                     "Bitmap '%s' is on node '%s', which a job has made and "
                     "takes away when it ends; add the bitmap to a node below",
                     bf_bitmap_name(bitmap), node->name);
        return NULL;
    }
    bf_bitmap_set_state(bitmap, BF_BITMAP_BUSY, true);
    root = bf_root_co_new_fixed(graph, node, description, error);
    if (root == NULL) {
        bf_bitmap_set_state(bitmap, BF_BITMAP_BUSY, false);
        return NULL;
    }
    use = g_new0(BfBitmapUse, 1);
    use->root = root;
    use->bitmap = bitmap;
    return use;
}

BfBitmap *
bf_bitmap_use_bitmap(const BfBitmapUse *use)
{
    return use->bitmap;
}

bool
bf_bitmap_use_co_freeze(BfBitmapUse *use, GError **error)
{
    BfNode *node = bf_root_node(use->root);
    BfGraph *graph = node->graph;
    bool ok;

    bf_graph_co_section_begin(graph);
    ok = bf_graph_co_section_drain_node(graph, node, error) &&
         bf_bitmap_freeze(use->bitmap, error);
    bf_graph_co_section_end(graph);
    return ok;
}

void
bf_bitmap_use_co_thaw(BfBitmapUse *use, bool keep)
{
    BfGraph *graph = bf_root_node(use->root)->graph;

    bf_assert_main();
    bf_graph_co_section_begin(graph);
    bf_bitmap_thaw(use->bitmap, keep);
    bf_graph_co_section_end(graph);
}

void
bf_bitmap_co_unuse(BfBitmapUse *use)
{
    if (use == NULL) {
        return;
    }
    bf_assert_main();
    if (bf_bitmap_is_frozen(use->bitmap)) {
        bf_bitmap_use_co_thaw(use, true);
    }
    bf_bitmap_set_state(use->bitmap, BF_BITMAP_BUSY, false);
    bf_root_co_free(use->root);
    g_free(use);
}
