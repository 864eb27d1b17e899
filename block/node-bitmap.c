/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The dirty bitmaps of nodes: which ones writes have to mark. The list changes
 * only while the node is at rest.
 */
#include "block-private.h"
#include "block/bitmap.h"
#include "core/error.h"
#include "core/util.h"

BfBitmap *
bf_node_find_bitmap(BfNode *node, const char *name)
{
    for (unsigned i = 0; i < node->n_bitmaps; i++) {
        if (g_strcmp0(bf_bitmap_name(node->bitmaps[i]), name) == 0) {
            return node->bitmaps[i];
        }
    }
    return NULL;
}

void
bf_node_attach_bitmap(BfNode *node, BfBitmap *bitmap, unsigned position)
{
    g_assert(position <= node->n_bitmaps);
    node->bitmaps = g_renew(BfBitmap *, node->bitmaps, node->n_bitmaps + 1);
    memmove(node->bitmaps + position + 1, node->bitmaps + position,
            (node->n_bitmaps - position) * sizeof(BfBitmap *));
    node->bitmaps[position] = bitmap;
    node->n_bitmaps++;
}

unsigned
bf_node_detach_bitmap(BfNode *node, const BfBitmap *bitmap)
{
    unsigned i = 0;

    while (i < node->n_bitmaps && node->bitmaps[i] != bitmap) {
        i++;
    }
    g_assert(i < node->n_bitmaps);
    node->n_bitmaps--;
    memmove(node->bitmaps + i, node->bitmaps + i + 1,
            (node->n_bitmaps - i) * sizeof(BfBitmap *));
    return i;
}

/* Brings @node to rest; bf_graph_co_section_end() is due in any case. */
static bool
co_begin_change(BfNode *node, GError **error)
{
    bool ok;

    bf_assert_main();
    node->pins++;
    bf_graph_co_section_begin(node->graph);
    ok = bf_graph_co_section_drain_node(node->graph, node, error);
    bf_node_co_unpin(node);
    return ok;
}

static bool
check_new_bitmap(BfNode *node, const BfBitmap *bitmap, GError **error)
{
    const char *name = bf_bitmap_name(bitmap);

    if (name != NULL && bf_node_find_bitmap(node, name) != NULL) {
        bf_set_error(error, "Bitmap already exists: %s", name);
        return false;
    }
    if (bf_bitmap_size(bitmap) != node->size) {
        bf_set_error(error, "Bitmap '%s' is not of the size of node '%s'",
                     name != NULL ? name : "", node->name);
        return false;
    }
    return true;
}

bool
bf_node_co_add_bitmap(BfNode *node, BfBitmap *bitmap, GError **error)
{
    bool ok =
        co_begin_change(node, error) && check_new_bitmap(node, bitmap, error);

    if (ok) {
        bf_node_attach_bitmap(node, bitmap, node->n_bitmaps);
    }
    bf_graph_co_section_end(node->graph);
    return ok;
}

BfBitmap *
bf_node_co_remove_bitmap(BfNode *node, const char *name, GError **error)
{
    BfBitmap *bitmap = NULL;

    if (co_begin_change(node, error)) {
        bitmap = bf_node_find_bitmap(node, name);
        if (bitmap == NULL) {
            bf_set_error(error, "Dirty bitmap '%s' not found", name);
        } else {
            bf_node_detach_bitmap(node, bitmap);
        }
    }
    bf_graph_co_section_end(node->graph);
    return bitmap;
}

bool
bf_node_co_detach_bitmap(BfNode *node, BfBitmap *bitmap, GError **error)
{
    bool ok = co_begin_change(node, error);

    if (ok) {
        bf_node_detach_bitmap(node, bitmap);
    }
    bf_graph_co_section_end(node->graph);
    return ok;
}
