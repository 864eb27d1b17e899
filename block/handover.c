/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hand-over: how a job gets into the graph and out of it. At the end all users
 * come to rest but for the job itself, which copies what is left; then the
 * users move, in the same section, so that nobody sees a moment between.
 */
#include "block/handover.h"

#include "block-private.h"
#include "core/util.h"

void
bf_root_set_inner(BfRoot *root, const char *job_id, const char *role)
{
    bf_assert_main();
    g_assert(root->job_id == NULL);
    root->job_id = g_strdup(job_id);
    root->role = g_strdup(role);
    root->inner = true;
    root->fixed = true;
}

/* Moves the users of @from to @to, but for @to itself and what is fixed. */
static void
plan_move_users(BfPlan *plan, BfNode *from, BfNode *to, const BfNode *except)
{
    g_autoptr(GPtrArray) edges = g_ptr_array_copy(from->parents, NULL, NULL);

    for (unsigned i = 0; i < edges->len; i++) {
        BfEdge *edge = g_ptr_array_index(edges, i);
        bool stays = edge->root != NULL
                         ? edge->root->fixed
                         : edge->parent == to || edge->parent == except;

        if (!stays) {
            bf_plan_move(plan, edge, to);
        }
    }
}

static BfNode *
filter_new(BfGraph *graph, const BfDriver *driver, const char *name,
           const BfNode *below, GError **error)
{
    BfNode *filter = bf_node_new(graph, driver, name, error);

    if (filter != NULL) {
        filter->home = below->home;
        filter->active = below->active;
        filter->settings.discard_unmap = true; /* the node below decides */
        filter->pins = 1; /* the job's, until the hand-over */
        bf_node_add_edge(filter, "file", &filter->file);
    }
    return filter;
}

static void
filter_drop(BfNode *filter)
{
    bf_drain_forget_hurried(filter); /* who left meanwhile has seen it */
    bf_registry_remove(filter->graph->names, filter->name);
    bf_node_free(filter);
}

BfNode *
bf_graph_co_insert_filter(BfGraph *graph, const BfDriver *driver,
                          const char *name, BfNode *below, GError **error)
{
    BfNode *filter;
    BfPlan plan;

    bf_assert_main();
    below->pins++;
    bf_graph_co_lock(graph);
    filter = filter_new(graph, driver, name, below, error);
    if (filter != NULL) {
        g_ptr_array_add(graph->nodes, filter);
        bf_plan_init(&plan, graph);
        bf_plan_move(&plan, g_ptr_array_index(filter->edges, 0), below);
        plan_move_users(&plan, below, filter, NULL);
        if (bf_plan_co_prepare(&plan, error)) {
            filter->registered = true;
            bf_plan_co_commit(&plan);
            bf_plan_co_finish(&plan);
        } else {
            g_ptr_array_remove(graph->nodes, filter);
            g_clear_pointer(&filter, filter_drop);
        }
    }
    bf_graph_unlock(graph);
    bf_node_co_unpin(below);
    return filter;
}

/* The roots' claims go when the plan is committed. */
static void
plan_give_back(const BfHandOver *h, bool back)
{
    for (size_t i = 0; i < h->n_roots; i++) {
        BfEdge *edge = &h->roots[i]->edge;

        edge->perm_plan = back ? edge->perm : 0;
        edge->shared_plan = back ? edge->shared : BF_PERM_ALL;
    }
}

static bool
co_move_all(BfGraph *graph, const BfHandOver *h, GError **error)
{
    BfPlan plan;

    bf_plan_init(&plan, graph);
    plan_give_back(h, false);
    for (size_t i = 0; i < h->n_moves; i++) {
        plan_move_users(&plan, h->moves[i].from, h->moves[i].to, h->filter);
    }
    /* What the filter has claimed goes with it. */
    for (unsigned i = 0; i < h->filter->edges->len; i++) {
        bf_plan_move(&plan, g_ptr_array_index(h->filter->edges, i), NULL);
    }
    if (!bf_plan_co_prepare(&plan, error)) {
        plan_give_back(h, true);
        return false;
    }
    for (size_t i = 0; i < h->n_roots; i++) {
        h->roots[i]->edge.perm = 0;
        h->roots[i]->edge.shared = BF_PERM_ALL;
    }
    /* Who looks around while drivers give locks back must not find it. */
    h->filter->registered = false;
    bf_plan_co_commit(&plan);
    bf_plan_co_finish(&plan);
    return true;
}

static void
set_exempt(BfGraph *graph, const BfHandOver *h, bool exempt)
{
    for (size_t i = 0; i < h->n_roots; i++) {
        h->roots[i]->exempt = exempt;
    }
    graph->exempting = exempt;
}

static bool
co_hand_over_in_section(BfGraph *graph, const BfHandOver *h, GError **error)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    bool ok;

    g_ptr_array_add(nodes, h->filter);
    for (size_t i = 0; i < h->n_moves; i++) {
        g_ptr_array_add(nodes, h->moves[i].from);
        g_ptr_array_add(nodes, h->moves[i].to);
    }
    set_exempt(graph, h, true);
    ok = bf_graph_co_section_drain(graph, nodes, error) &&
         (h->co_last_pass == NULL || h->co_last_pass(h->arg, error));
    set_exempt(graph, h, false);
    /* Now the job's own roots, and what the drivers do by themselves. */
    return ok && bf_graph_co_section_drain(graph, nodes, error) &&
           co_move_all(graph, h, error);
}

bool
bf_graph_co_hand_over(BfGraph *graph, const BfHandOver *h, GError **error)
{
    bool ok;

    bf_assert_main();
    bf_graph_co_section_begin(graph);
    ok = co_hand_over_in_section(graph, h, error);
    if (ok && h->done != NULL) {
        h->done(h->arg);
    }
    if (ok) {
        g_assert(h->filter->parents->len == 0);
        h->filter->pins--;
        bf_graph_co_lock(graph); /* which the closing unlocks */
        bf_graph_co_close_orphan(graph, h->filter);
    }
    bf_graph_co_section_end(graph);
    return ok;
}

/* What jobs want to know. */

bool
bf_node_is_top(const BfNode *node)
{
    for (unsigned i = 0; i < node->parents->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->parents, i);

        if (edge->parent != NULL) {
            return false;
        }
    }
    return true;
}

bool
bf_node_shows(const BfNode *node, const BfNode *wanted)
{
    if (node == wanted) {
        return true;
    }
    for (unsigned i = 0; node->driver->is_filter && i < node->edges->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->edges, i);

        if (edge->child != NULL && bf_node_shows(edge->child, wanted)) {
            return true;
        }
    }
    return false;
}

BfLoop *
bf_root_pick_copy_loop(const BfRoot *source, const BfRoot *target)
{
    BfGraph *graph = source->graph;
    const BfGraphConfig *config = &graph->config;

    if (!target->node->any_loop || target->node->limits.alignment > 1) {
        return target->node->home;
    }
    return source->node->any_loop
               ? config->workers[graph->next_home++ % config->n_workers]
               : source->node->home;
}
