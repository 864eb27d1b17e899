/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes of dirty bitmaps. Each is done when it is prepared and keeps what is
 * needed to take it back: contents are swapped, so that a change costs as
 * much memory as the bitmap until it is final. Nobody reads or marks a bitmap
 * meanwhile: its node is at rest, and it is not busy.
 */
#include "block/bitmap-ops.h"

#include "block-private.h"
#include "core/error.h"
#include "core/util.h"

/* Bitmaps from this size on are merged off the main loop, bytes of bits. */
#define INLINE_BYTES_MAX (256 * BF_KIB)

struct BfBitmapChange {
    BfBitmapActionKind kind;
    BfNode *node;     /* borrowed: the section keeps it */
    BfBitmap *bitmap; /* the node's; owned once it was taken off */
    BfBitmap *old;    /* (nullable) owned: what was in it */
    unsigned position;
    bool was_enabled;
};

BfBitmap *
bf_bitmap_lookup(BfGraph *graph, const char *node_name, const char *name,
                 BfNode **ret_node, GError **error)
{
    BfNode *node = bf_graph_find_node(graph, node_name);
    BfBitmap *bitmap;

    if (node == NULL) {
        bf_set_error(error, "Node '%s' not found", node_name);
        return NULL;
    }
    bitmap = bf_node_find_bitmap(node, name);
    if (bitmap == NULL) {
        bf_set_error(error, "Dirty bitmap '%s' not found", name);
        return NULL;
    }
    if (ret_node != NULL) {
        *ret_node = node;
    }
    return bitmap;
}

BfBitmap *
bf_bitmap_find_through(BfNode *node, const char *name, BfNode **ret_node)
{
    while (node != NULL) {
        BfBitmap *bitmap = bf_node_find_bitmap(node, name);

        if (bitmap != NULL) {
            *ret_node = node;
            return bitmap;
        }
        node = node->driver->is_filter ? node->file : NULL;
    }
    return NULL;
}

static BfBitmapChange *
change_new(BfBitmapActionKind kind, BfNode *node, BfBitmap *bitmap)
{
    BfBitmapChange *change = g_new0(BfBitmapChange, 1);

    change->kind = kind;
    change->node = node;
    change->bitmap = bitmap;
    return change;
}

/* The checks of block-dirty-bitmap-add that need a node. */
static BfBitmap *
make_bitmap(BfNode *node, const BfBlockDirtyBitmapAdd *add, GError **error)
{
    uint32_t granularity =
        add->has_granularity ? add->granularity : BF_BITMAP_GRANULARITY_DEFAULT;

    if (!bf_bitmap_check_granularity(granularity, error)) {
        return NULL;
    }
    if (add->persistent) {
        /* No driver has a place for bitmaps. */
        bf_set_errno(error, ENOTSUP, "Can't store persistent bitmaps to %s",
                     node->name);
        return NULL;
    }
    if (bf_node_find_bitmap(node, add->name) != NULL) {
        bf_set_error(error, "Bitmap already exists: %s", add->name);
        return NULL;
    }
    if (strlen(add->name) > BF_BITMAP_NAME_MAX) {
        bf_set_error(error, "Bitmap name too long: %s", add->name);
        return NULL;
    }
    if (node->n_bitmaps >= BITMAPS_MAX) {
        bf_set_error(error, "Node '%s' has %d bitmaps, which is the most",
                     node->name, BITMAPS_MAX);
        return NULL;
    }
    return bf_bitmap_new(add->name, node->size, granularity, error);
}

static BfBitmapChange *
co_add(BfGraph *graph, const BfBlockDirtyBitmapAdd *add, GError **error)
{
    g_autoptr(BfBitmap) bitmap = NULL;
    BfNode *node;

    if (*add->name == '\0') {
        bf_set_error(error, "Bitmap name cannot be empty");
        return NULL;
    }
    node = bf_graph_require_node(graph, add->node, error);
    if (node == NULL) {
        return NULL;
    }
    bitmap = make_bitmap(node, add, error);
    if (bitmap == NULL || !bf_graph_co_section_drain_node(graph, node, error)) {
        return NULL;
    }
    bf_bitmap_set_enabled(bitmap, !add->disabled);
    bf_node_attach_bitmap(node, bitmap, node->n_bitmaps);
    return change_new(BF_BITMAP_ACTION_ADD, node, g_steal_pointer(&bitmap));
}

/* Swaps the contents of the bitmap with those of @with, which has the same
 * form; the change keeps them. */
static void
replace_contents(BfBitmapChange *change, BfBitmap *with)
{
    bf_bitmap_swap(change->bitmap, with);
    change->old = with;
}

static bool
do_one(BfBitmapChange *change, GError **error)
{
    BfBitmap *empty;

    switch (change->kind) {
    case BF_BITMAP_ACTION_REMOVE:
        change->position = bf_node_detach_bitmap(change->node, change->bitmap);
        break;
    case BF_BITMAP_ACTION_CLEAR:
        empty = bf_bitmap_new_like(change->bitmap, error);
        if (empty == NULL) {
            return false;
        }
        replace_contents(change, empty);
        break;
    case BF_BITMAP_ACTION_ENABLE:
    case BF_BITMAP_ACTION_DISABLE:
        change->was_enabled = bf_bitmap_is_enabled(change->bitmap);
        bf_bitmap_set_enabled(change->bitmap,
                              change->kind == BF_BITMAP_ACTION_ENABLE);
        break;
    case BF_BITMAP_ACTION_ADD:
    case BF_BITMAP_ACTION_MERGE:
        g_assert_not_reached();
    }
    return true;
}

static BfBitmapChange *
co_change_one(BfGraph *graph, BfBitmapActionKind kind,
              const BfBlockDirtyBitmap *one, GError **error)
{
    static const unsigned checks[] = {
        [BF_BITMAP_ACTION_REMOVE] = BF_BITMAP_CHECK_REMOVE,
        [BF_BITMAP_ACTION_CLEAR] = BF_BITMAP_CHECK_CHANGE,
        [BF_BITMAP_ACTION_ENABLE] = BF_BITMAP_CHECK_USE,
        [BF_BITMAP_ACTION_DISABLE] = BF_BITMAP_CHECK_USE,
    };
    BfBitmapChange *change;
    BfBitmap *bitmap;
    BfNode *node;

    bitmap = bf_bitmap_lookup(graph, one->node, one->name, &node, error);
    if (bitmap == NULL || !bf_bitmap_check(bitmap, checks[kind], error) ||
        !bf_graph_co_section_drain_node(graph, node, error)) {
        return NULL;
    }
    change = change_new(kind, node, bitmap);
    if (!do_one(change, error)) {
        g_free(change);
        return NULL;
    }
    return change;
}

typedef struct Merge {
    BfBitmap *into;
    const BfBitmap *from;
    bool ok;
    GError **error;
} Merge;

static void
merge(void *arg)
{
    Merge *m = arg;

    m->ok = bf_bitmap_merge(m->into, m->from, m->error);
}

/* @node is any that has threads. */
static bool
co_merge(BfNode *node, BfBitmap *into, const BfBitmap *from, GError **error)
{
    Merge m = {.into = into, .from = from, .error = error};

    if (MAX(bf_bitmap_bytes(into), bf_bitmap_bytes(from)) > INLINE_BYTES_MAX) {
        bf_node_co_offload(node, merge, &m);
    } else {
        merge(&m);
    }
    return m.ok;
}

static bool
co_merge_source(BfGraph *graph, BfNode *node, BfBitmap *sum,
                const BfBlockDirtyBitmapOrStr *which, GError **error)
{
    const BfBlockDirtyBitmap local = {
        .node = node->name,
        .name = which->kind == BF_BLOCK_DIRTY_BITMAP_OR_STR_KIND_STR
                    ? which->u.str
                    : NULL,
    };
    const BfBlockDirtyBitmap *from =
        local.name != NULL ? &local : which->u.object;
    BfBitmap *bitmap;
    BfNode *owner;

    bitmap = bf_bitmap_lookup(graph, from->node, from->name, &owner, error);
    return bitmap != NULL &&
           bf_bitmap_check(bitmap, BF_BITMAP_CHECK_USE, error) &&
           bf_graph_co_section_drain_node(graph, owner, error) &&
           co_merge(node, sum, bitmap, error);
}

/* The sum is made aside, so that a failure leaves the target alone. */
static BfBitmapChange *
co_merge_all(BfGraph *graph, const BfBlockDirtyBitmapMerge *args,
             GError **error)
{
    g_autoptr(BfBitmap) sum = NULL;
    BfBitmapChange *change;
    BfBitmap *target;
    BfNode *node;

    target = bf_bitmap_lookup(graph, args->node, args->target, &node, error);
    if (target == NULL) {
        return NULL;
    }
    sum = bf_bitmap_new_like(target, error);
    for (size_t i = 0; sum != NULL && i < args->bitmaps->len; i++) {
        if (!co_merge_source(graph, node, sum, args->bitmaps->items[i],
                             error)) {
            return NULL;
        }
    }
    if (sum == NULL ||
        !bf_bitmap_check(target, BF_BITMAP_CHECK_CHANGE, error) ||
        !bf_graph_co_section_drain_node(graph, node, error) ||
        !co_merge(node, sum, target, error)) {
        return NULL;
    }
    change = change_new(BF_BITMAP_ACTION_MERGE, node, target);
    replace_contents(change, g_steal_pointer(&sum));
    return change;
}

BfBitmapChange *
bf_bitmap_co_prepare(BfGraph *graph, const BfBitmapAction *action,
                     GError **error)
{
    g_assert(bf_graph_is_in_section(graph));
    switch (action->kind) {
    case BF_BITMAP_ACTION_ADD:
        return co_add(graph, action->u.add, error);
    case BF_BITMAP_ACTION_MERGE:
        return co_merge_all(graph, action->u.merge, error);
    default:
        return co_change_one(graph, action->kind, action->u.one, error);
    }
}

void
bf_bitmap_change_commit(BfBitmapChange *change)
{
    bf_assert_main();
    if (change->kind == BF_BITMAP_ACTION_REMOVE) {
        bf_bitmap_free(change->bitmap);
    }
    bf_bitmap_free(change->old);
    g_free(change);
}

void
bf_bitmap_change_abort(BfBitmapChange *change)
{
    bf_assert_main();
    switch (change->kind) {
    case BF_BITMAP_ACTION_ADD:
        bf_node_detach_bitmap(change->node, change->bitmap);
        bf_bitmap_free(change->bitmap);
        break;
    case BF_BITMAP_ACTION_REMOVE:
        bf_node_attach_bitmap(change->node, change->bitmap, change->position);
        break;
    case BF_BITMAP_ACTION_CLEAR:
    case BF_BITMAP_ACTION_MERGE:
        bf_bitmap_swap(change->bitmap, change->old);
        break;
    case BF_BITMAP_ACTION_ENABLE:
    case BF_BITMAP_ACTION_DISABLE:
        bf_bitmap_set_enabled(change->bitmap, change->was_enabled);
        break;
    }
    bf_bitmap_free(change->old);
    g_free(change);
}

static void
add_node(BfGraph *graph, const char *name, GPtrArray *nodes)
{
    BfNode *node = bf_graph_find_node(graph, name);

    if (node != NULL) {
        g_ptr_array_add(nodes, node);
    }
}

void
bf_bitmap_action_add_nodes(BfGraph *graph, const BfBitmapAction *action,
                           GPtrArray *nodes)
{
    const BfBlockDirtyBitmapMerge *merge = action->u.merge;

    if (action->kind == BF_BITMAP_ACTION_ADD) {
        add_node(graph, action->u.add->node, nodes);
        return;
    }
    if (action->kind != BF_BITMAP_ACTION_MERGE) {
        add_node(graph, action->u.one->node, nodes);
        return;
    }
    add_node(graph, merge->node, nodes);
    for (size_t i = 0; i < merge->bitmaps->len; i++) {
        const BfBlockDirtyBitmapOrStr *from = merge->bitmaps->items[i];

        if (from->kind != BF_BLOCK_DIRTY_BITMAP_OR_STR_KIND_STR) {
            add_node(graph, from->u.object->node, nodes);
        }
    }
}

static bool
co_drain_all(BfGraph *graph, const BfBitmapAction *actions, size_t n_actions,
             GError **error)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();

    for (size_t i = 0; i < n_actions; i++) {
        bf_bitmap_action_add_nodes(graph, &actions[i], nodes);
    }
    return bf_graph_co_section_drain(graph, nodes, error);
}

bool
bf_bitmap_co_apply(BfGraph *graph, const BfBitmapAction *actions,
                   size_t n_actions, GError **error)
{
    g_autofree BfBitmapChange **changes =
        g_new0(BfBitmapChange *, n_actions + 1);
    size_t done = 0;
    bool ok;

    bf_graph_co_section_begin(graph);
    /* A single one is checked before anything has to wait for it. */
    ok = n_actions == 1 || co_drain_all(graph, actions, n_actions, error);
    while (ok && done < n_actions) {
        changes[done] = bf_bitmap_co_prepare(graph, &actions[done], error);
        if (changes[done] == NULL) {
            break;
        }
        done++;
    }
    ok = ok && done == n_actions;
    if (ok) {
        for (size_t i = 0; i < done; i++) {
            bf_bitmap_change_commit(changes[i]);
        }
    }
    while (!ok && done > 0) {
        bf_bitmap_change_abort(changes[--done]);
    }
    bf_graph_co_section_end(graph);
    return ok;
}

typedef struct Hash {
    const BfBitmap *bitmap;
    char *sum;
} Hash;

static void
hash(void *arg)
{
    Hash *h = arg;

    h->sum = bf_bitmap_sha256(h->bitmap);
}

char *
bf_bitmap_co_sha256(BfGraph *graph, const BfBlockDirtyBitmap *which,
                    GError **error)
{
    Hash h = {0};
    BfNode *node;

    /* Nobody removes it while it is read. */
    bf_graph_co_section_begin(graph);
    h.bitmap = bf_bitmap_lookup(graph, which->node, which->name, &node, error);
    if (h.bitmap != NULL) {
        bf_node_co_offload(node, hash, &h);
    }
    bf_graph_co_section_end(graph);
    return h.sum;
}
