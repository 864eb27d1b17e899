/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Active or not: an inactive node writes nothing and holds no locks, so that
 * another program may have the image. A node follows the last of its parents
 * that becomes inactive; making it active makes its children active.
 */
#include "block-private.h"
#include "block/graph.h"
#include "block/request.h"
#include "core/error.h"

bool
bf_node_has_active_parent(const BfNode *node)
{
    for (unsigned i = 0; i < node->parents->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->parents, i);

        if (edge->parent != NULL && edge->parent->active) {
            return true;
        }
    }
    return false;
}

/* May the users of @node be cut off from it? */
static bool
check_users(const BfNode *node, const char *what, GError **error)
{
    const unsigned writing =
        BF_PERM_WRITE | BF_PERM_WRITE_UNCHANGED | BF_PERM_RESIZE;

    for (unsigned i = 0; i < node->parents->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->parents, i);

        if (edge->root != NULL && (edge->perm & writing) != 0 &&
            !edge->root->allow_inactive) {
            bf_set_error(error,
                         "Failed to inactivate %s: Operation not permitted: "
                         "%s may write to node '%s'",
                         what, edge->root->description, node->name);
            return false;
        }
    }
    return true;
}

static void
activate_down(BfNode *node, GPtrArray *changed)
{
    if (!node->active) {
        node->active = true;
        g_ptr_array_add(changed, node);
        for (unsigned i = 0; i < node->edges->len; i++) {
            const BfEdge *edge = g_ptr_array_index(node->edges, i);

            activate_down(edge->child, changed);
        }
    }
}

/* Parents come before their children in @changed. */
static bool
inactivate_down(BfNode *node, const char *what, GPtrArray *changed,
                GError **error)
{
    if (!node->active || bf_node_has_active_parent(node)) {
        return true;
    }
    if (!check_users(node, what, error)) {
        return false;
    }
    node->active = false;
    g_ptr_array_add(changed, node);
    for (unsigned i = 0; i < node->edges->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->edges, i);

        if (!inactivate_down(edge->child, what, changed, error)) {
            return false;
        }
    }
    return true;
}

static void
set_flags(const GPtrArray *nodes, bool active)
{
    for (unsigned i = 0; i < nodes->len; i++) {
        ((BfNode *)g_ptr_array_index(nodes, i))->active = active;
    }
}

static void
flush_co_node(void *arg)
{
    BfNode *node = arg;

    bf_node_co_flush(node);
}

/* What was written is the next program's from now on. */
static void
co_flush_all(const GPtrArray *nodes)
{
    for (unsigned i = 0; i < nodes->len; i++) {
        BfNode *node = g_ptr_array_index(nodes, i);

        bf_co_call(node->any_loop ? bf_loop_self() : node->home, flush_co_node,
                   node);
    }
}

/* Sets the flags below @tops; on failure they are as before. */
static bool
co_change_flags(const GPtrArray *tops, bool active, const char *what,
                GPtrArray *changed, GError **error)
{
    bool ok = true;

    for (unsigned i = 0; i < tops->len && ok; i++) {
        BfNode *top = g_ptr_array_index(tops, i);

        if (active) {
            activate_down(top, changed);
        } else {
            ok = inactivate_down(top, what, changed, error);
        }
    }
    if (!active) {
        set_flags(changed, true);
        if (ok) {
            co_flush_all(changed);
            set_flags(changed, false);
        }
    }
    return ok;
}

/* All is at rest. */
static bool
co_set_drained(BfGraph *graph, const GPtrArray *tops, bool active,
               const char *what, GError **error)
{
    g_autoptr(GPtrArray) changed = g_ptr_array_new();
    BfPlan plan;

    if (!co_change_flags(tops, active, what, changed, error)) {
        return false;
    }
    bf_plan_init(&plan, graph);
    plan.is_drained_already = true;
    if (!bf_plan_co_prepare(&plan, error)) {
        set_flags(changed, !active);
        return false;
    }
    bf_plan_co_commit(&plan);
    bf_plan_co_finish(&plan);
    for (unsigned i = 0; i < changed->len && active; i++) {
        BfNode *node = g_ptr_array_index(changed, i);

        if (node->driver->co_invalidate != NULL) {
            node->driver->co_invalidate(node);
        }
    }
    return true;
}

/* The mutex is held. */
static bool
co_set_all(BfGraph *graph, GPtrArray *tops, bool active, const char *what,
           GError **error)
{
    BfDrain drain;
    bool ok;

    if (tops->len == 0) {
        return true;
    }
    if (!bf_drain_co_begin(&drain, graph, tops, error)) {
        return false;
    }
    ok = co_set_drained(graph, tops, active, what, error);
    bf_drain_co_end(&drain);
    return ok;
}

bool
bf_node_co_set_active(BfNode *node, bool active, GError **error)
{
    BfGraph *graph = node->graph;
    g_autoptr(GPtrArray) tops = g_ptr_array_new();
    bool ok = true;

    bf_assert_main();
    node->pins++;
    bf_graph_co_lock(graph);
    if (!active && bf_node_has_active_parent(node)) {
        bf_set_error(error, "Node has active parent node");
        ok = false;
    } else if (node->active != active) {
        g_ptr_array_add(tops, node);
        ok = co_set_all(graph, tops, active, "node", error);
    }
    bf_graph_unlock(graph);
    node->pins--;
    return ok;
}

bool
bf_graph_co_set_all_active(BfGraph *graph, bool active, GError **error)
{
    g_autoptr(GPtrArray) tops = g_ptr_array_new();
    bool ok;

    bf_assert_main();
    bf_graph_co_lock(graph);
    for (unsigned i = 0; i < graph->nodes->len; i++) {
        BfNode *node = g_ptr_array_index(graph->nodes, i);

        if (node->registered && node->active != active &&
            (active || !bf_node_has_active_parent(node))) {
            g_ptr_array_add(tops, node);
        }
    }
    ok = co_set_all(graph, tops, active, "all nodes", error);
    bf_graph_unlock(graph);
    return ok;
}

bool
bf_node_co_activate(BfNode *node, GError **error)
{
    return bf_node_co_set_active(node, true, error);
}
