/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reopen, resize, and other changes of nodes that stay. A reopen collects all
 * nodes it concerns (those given, and children made inline that follow their
 * parent), lets each driver prepare, makes one plan, and commits all in one
 * step.
 */
#include <inttypes.h>

#include "block-private.h"
#include "block/bitmap.h"
#include "block/graph.h"
#include "block/request.h"
#include "core/error.h"
#include "core/util.h"

typedef struct ReopenItem {
    BfNode *node;
    const BfBlockdevOptions *options; /* borrowed */
    BfNodeSettings settings;
    bool has_settings;
    bool prepared;
} ReopenItem;

typedef struct Reopen {
    BfGraph *graph;
    GPtrArray *items; /* owned */
} Reopen;

static ReopenItem *
find_item(const Reopen *reopen, const BfNode *node)
{
    for (unsigned i = 0; i < reopen->items->len; i++) {
        ReopenItem *item = g_ptr_array_index(reopen->items, i);

        if (item->node == node) {
            return item;
        }
    }
    return NULL;
}

static bool add_item(Reopen *reopen, BfNode *node,
                     const BfBlockdevOptions *options, GError **error);

/* Finds the child that @ref gives to @edge. */
static bool
resolve_child(Reopen *reopen, BfEdge *edge, const BfBlockdevRef *ref,
              GError **error)
{
    BfNode *now = edge->child;
    const BfBlockdevOptions *options;

    edge->next = now;
    if (ref->kind == BF_BLOCKDEV_REF_KIND_STR) {
        edge->next = bf_graph_require_node(reopen->graph, ref->u.str, error);
        if (edge->next != NULL && edge->next == bf_node_below_jobs(now)) {
            edge->next = now;
        }
        return edge->next != NULL;
    }
    options = ref->u.object;
    if (!now->inherits || options->driver != now->driver->kind ||
        (options->node_name != NULL &&
         !g_str_equal(options->node_name, now->name))) {
        bf_set_error(error,
                     "Cannot change the '%s' link of node '%s' to new "
                     "options; add a node first and give its name",
                     edge->name, edge->parent->name);
        return false;
    }
    return add_item(reopen, now, options, error);
}

/* Children that the new options do not speak of stay; so do all of a node that
 * only follows, whose own options may name one that it does not have any more.
 */
static bool
resolve_children(Reopen *reopen, const ReopenItem *item, GError **error)
{
    bool follows = item->options == item->node->options;

    for (unsigned i = 0; i < item->node->edges->len; i++) {
        BfEdge *edge = g_ptr_array_index(item->node->edges, i);
        const BfBlockdevRef *ref =
            follows ? NULL : bf_options_child_ref(item->options, edge->name);

        edge->next = edge->child;
        if (ref != NULL && !resolve_child(reopen, edge, ref, error)) {
            return false;
        }
    }
    return true;
}

static bool
add_item(Reopen *reopen, BfNode *node, const BfBlockdevOptions *options,
         GError **error)
{
    ReopenItem *item;

    if (find_item(reopen, node) != NULL) {
        bf_set_error(error, "Node '%s' is given more than once", node->name);
        return false;
    }
    if (options->driver != node->driver->kind) {
        bf_set_error(error,
                     "Cannot change the option 'driver': node '%s' has '%s'",
                     node->name, node->driver->name);
        return false;
    }
    if (node->driver->fixed_options &&
        !bf_options_check_same(node->options, options, error)) {
        return false;
    }
    item = g_new0(ReopenItem, 1);
    item->node = node;
    item->options = options;
    g_ptr_array_add(reopen->items, item);
    return resolve_children(reopen, item, error);
}

/* The node that made @node inline, while no other one has it as well. */
static BfNode *
inheriting_parent(const BfNode *node)
{
    const BfEdge *edge;

    if (!node->inherits || node->parents->len != 1) {
        return NULL;
    }
    edge = g_ptr_array_index(node->parents, 0);
    return edge->parent;
}

/* Parents first, because children may take their settings from them. */
static const BfNodeSettings *
compute_settings(Reopen *reopen, ReopenItem *item)
{
    const BfNode *parent = inheriting_parent(item->node);
    const BfNodeSettings *from = NULL;

    if (!item->has_settings) {
        if (parent != NULL) {
            ReopenItem *above = find_item(reopen, parent);

            from = above != NULL ? compute_settings(reopen, above)
                                 : &parent->settings;
        }
        bf_node_effective_settings(item->options, from, &item->settings);
        item->has_settings = true;
    }
    return &item->settings;
}

static bool
add_followers_of(Reopen *reopen, const BfNode *node, GError **error)
{
    for (unsigned i = 0; i < node->edges->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->edges, i);
        BfNode *child = edge->child;

        if (child == edge->next && inheriting_parent(child) == node &&
            find_item(reopen, child) == NULL &&
            !add_item(reopen, child, child->options, error)) {
            return false;
        }
    }
    return true;
}

/* Children made inline follow, even if nobody speaks of them. */
static bool
add_followers(Reopen *reopen, GError **error)
{
    for (unsigned i = 0; i < reopen->items->len; i++) {
        ReopenItem *item = g_ptr_array_index(reopen->items, i);

        compute_settings(reopen, item);
        if (!add_followers_of(reopen, item->node, error)) {
            return false;
        }
    }
    return true;
}

static bool
collect_items(Reopen *reopen, const BfBlockdevOptionsList *list, GError **error)
{
    for (size_t i = 0; i < list->len; i++) {
        const BfBlockdevOptions *options = list->items[i];
        BfNode *node;

        if (options->node_name == NULL) {
            bf_set_error(error, "node-name not specified");
            return false;
        }
        node = bf_graph_require_named(reopen->graph, options->node_name, error);
        if (node == NULL || !add_item(reopen, node, options, error)) {
            return false;
        }
    }
    return add_followers(reopen, error);
}

static void
forget_next(Reopen *reopen)
{
    for (unsigned i = 0; i < reopen->items->len; i++) {
        ReopenItem *item = g_ptr_array_index(reopen->items, i);

        for (unsigned j = 0; j < item->node->edges->len; j++) {
            BfEdge *edge = g_ptr_array_index(item->node->edges, j);

            edge->next = NULL;
        }
    }
}

/* What BfNode.file is to be. */
static BfNode *
next_file(const BfNode *node)
{
    for (unsigned i = 0; i < node->edges->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->edges, i);

        if (edge->slot == &node->file) {
            return edge->next;
        }
    }
    return NULL;
}

static void
co_abort_drivers(Reopen *reopen)
{
    for (unsigned i = 0; i < reopen->items->len; i++) {
        ReopenItem *item = g_ptr_array_index(reopen->items, i);

        if (item->prepared && item->node->driver->co_reopen_abort != NULL) {
            item->node->driver->co_reopen_abort(item->node);
        }
        item->node->settings_plan = NULL;
    }
}

static bool
co_prepare_drivers(Reopen *reopen, GError **error)
{
    for (unsigned i = 0; i < reopen->items->len; i++) {
        ReopenItem *item = g_ptr_array_index(reopen->items, i);
        BfNode *node = item->node;

        node->settings_plan = &item->settings;
        node->size_plan = node->size;
        if (!bf_node_check_settings(&item->settings, error) ||
            (node->driver->co_reopen_prepare != NULL &&
             !node->driver->co_reopen_prepare(node, item->options,
                                              next_file(node), error))) {
            return false;
        }
        item->prepared = true;
    }
    return true;
}

/* What the node was made of, as it is shown and compared from now on. */
static void
commit_item(ReopenItem *item)
{
    BfNode *node = item->node;
    BfBlockdevOptions *options = bf_blockdev_options_copy(item->options);

    bf_blockdev_options_free(node->options);
    node->options = options;
    node->settings = item->settings;
    node->settings_plan = NULL;
    if (node->driver->reopen_commit != NULL) {
        node->driver->reopen_commit(node);
    }
}

static void
plan_edges(BfPlan *plan, const BfNode *node, GPtrArray *left_behind)
{
    for (unsigned i = 0; i < node->edges->len; i++) {
        BfEdge *edge = g_ptr_array_index(node->edges, i);

        if (edge->next != edge->child) {
            g_ptr_array_add(left_behind, edge->child);
            bf_plan_move(plan, edge, edge->next);
        }
    }
}

static void
plan_items(Reopen *reopen, BfPlan *plan, GPtrArray *left_behind)
{
    for (unsigned i = 0; i < reopen->items->len; i++) {
        ReopenItem *item = g_ptr_array_index(reopen->items, i);

        bf_plan_touch(plan, item->node);
        plan_edges(plan, item->node, left_behind);
    }
}

/* The mutex is held. @left_behind gets the nodes that have lost a parent. */
static bool
co_reopen_locked(Reopen *reopen, const BfBlockdevOptionsList *list,
                 GPtrArray *left_behind, GError **error)
{
    BfPlan plan;

    if (!collect_items(reopen, list, error)) {
        return false;
    }
    if (!co_prepare_drivers(reopen, error)) {
        co_abort_drivers(reopen);
        return false;
    }
    bf_plan_init(&plan, reopen->graph);
    plan_items(reopen, &plan, left_behind);
    if (!bf_plan_co_prepare(&plan, error)) {
        co_abort_drivers(reopen);
        g_ptr_array_set_size(left_behind, 0);
        return false;
    }
    for (unsigned i = 0; i < reopen->items->len; i++) {
        commit_item(g_ptr_array_index(reopen->items, i));
    }
    bf_plan_co_commit(&plan);
    for (unsigned i = 0; i < reopen->items->len; i++) {
        ReopenItem *item = g_ptr_array_index(reopen->items, i);

        bf_node_refresh_up(item->node);
    }
    bf_plan_co_finish(&plan);
    return true;
}

/* Children that were made inline and have lost their parent go. */
static void
co_close_left_behind(BfGraph *graph, GPtrArray *left_behind)
{
    /* Others may change the graph while one of them is closed. */
    for (unsigned i = 0; i < left_behind->len; i++) {
        BfNode *node = g_ptr_array_index(left_behind, i);

        node->inherits = false;
        node->pins++;
    }
    for (unsigned i = 0; i < left_behind->len; i++) {
        BfNode *node = g_ptr_array_index(left_behind, i);

        if (--node->pins == 0 && node->parents->len == 0 &&
            !node->monitor_owned) {
            bf_graph_co_close_orphan(graph, node);
            bf_graph_co_lock(graph);
        }
    }
}

bool
bf_graph_co_reopen(BfGraph *graph, const BfBlockdevOptionsList *options,
                   GError **error)
{
    g_autoptr(GPtrArray) items = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GPtrArray) left_behind = g_ptr_array_new();
    Reopen reopen = {.graph = graph, .items = items};
    bool ok;

    bf_assert_main();
    bf_graph_co_lock(graph);
    ok = co_reopen_locked(&reopen, options, left_behind, error);
    forget_next(&reopen);
    if (ok) {
        co_close_left_behind(graph, left_behind);
    }
    bf_graph_unlock(graph);
    return ok;
}

/* Sizes. */

/* The sizes of those above follow, and the bitmaps of all with them. */
static bool
reserve_bitmaps_up(BfNode *node, uint64_t size, GError **error)
{
    for (unsigned i = 0; i < node->n_bitmaps; i++) {
        if (!bf_bitmap_reserve(node->bitmaps[i], size, error)) {
            g_prefix_error(error, "Bitmap '%s' of node '%s': ",
                           bf_bitmap_name(node->bitmaps[i]), node->name);
            return false;
        }
    }
    for (unsigned i = 0; i < node->parents->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->parents, i);

        if (edge->parent != NULL &&
            !reserve_bitmaps_up(edge->parent, size, error)) {
            return false;
        }
    }
    return true;
}

static bool
check_new_size(const BfNode *node, uint64_t size, unsigned shared,
               GError **error)
{
    if (size == node->size || (shared & BF_PERM_RESIZE) != 0) {
        return true;
    }
    bf_set_error(error,
                 "The size of node '%s' would change from %" PRIu64
                 " to %" PRIu64 ", which its users do not allow",
                 node->name, node->size, size);
    return false;
}

bool
bf_node_check_new_size(BfNode *node, uint64_t size, GError **error)
{
    node->size_plan = size;
    return check_new_size(node, size, node->shared, error) &&
           reserve_bitmaps_up(node, size, error);
}

bool
bf_node_check_planned_size(const BfNode *node, GError **error)
{
    return node->settings_plan == NULL ||
           check_new_size(node, node->size_plan, node->shared_perm_plan, error);
}

/* Resize. */

bool
bf_node_co_resize(BfNode *node, uint64_t size, GError **error)
{
    if (node->settings.read_only || !node->active) {
        bf_set_error(error, "Image is read-only");
        return false;
    }
    if (node->driver->co_resize == NULL) {
        bf_set_error(error, "Image format driver does not support resize");
        return false;
    }
    if (!reserve_bitmaps_up(node, size, error) ||
        !node->driver->co_resize(node, size, error)) {
        return false;
    }
    node->size = bf_align_up(node->size, 512);
    bf_node_refresh_up(node);
    return true;
}

/* The permission to resize is held while it is done, as any user would. */
bool
bf_graph_co_resize(BfGraph *graph, BfNode *node, uint64_t size, GError **error)
{
    const unsigned perm = BF_PERM_RESIZE | BF_PERM_WRITE;
    BfRoot *root;
    BfPlan plan;
    bool ok;

    bf_assert_main();
    if (size > INT64_MAX - BF_MIB) {
        bf_set_error(error, "Parameter 'size' is too large");
        return false;
    }
    if (bf_node_is_read_only(node) || !node->active) {
        bf_set_error(error, "Image is read-only");
        return false;
    }
    root = bf_root_co_new(graph, node, "command 'block_resize'", perm,
                          BF_PERM_ALL, error);
    if (root == NULL) {
        return false;
    }
    bf_graph_co_lock(graph);
    bf_plan_init(&plan, graph);
    bf_plan_touch(&plan, node);
    ok = bf_plan_co_prepare(&plan, error);
    if (ok) {
        ok = bf_node_co_resize(node, size, error);
        bf_plan_co_commit(&plan);
        bf_plan_co_finish(&plan);
    }
    bf_graph_unlock(graph);
    bf_root_co_free(root);
    return ok;
}
