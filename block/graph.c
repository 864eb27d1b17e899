/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The graph: its users (roots), and the changes that are more than opening a
 * tree. Each change takes the mutex, makes a plan, and commits it in one step.
 */
#include "block/graph.h"

#include "block-private.h"
#include "block/request.h"
#include "core/error.h"
#include "core/util.h"

BfGraph *
bf_graph_new(const BfGraphConfig *config)
{
    BfGraph *graph = g_new0(BfGraph, 1);

    bf_assert_main();
    g_assert(config->n_workers > 0);
    graph->config = *config;
    graph->config.workers =
        g_memdup2(config->workers, config->n_workers * sizeof(BfLoop *));
    graph->main_loop = bf_loop_self();
    graph->names = bf_registry_new();
    graph->nodes = g_ptr_array_new();
    graph->roots = g_ptr_array_new();
    graph->hurries = g_ptr_array_new();
    return graph;
}

static bool
is_held_outside(const BfNode *node, GPtrArray *orphans)
{
    if (node->monitor_owned || node->pins > 0 ||
        g_ptr_array_find(orphans, node, NULL)) {
        return true;
    }
    for (unsigned i = 0; i < node->parents->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->parents, i);

        if (edge->parent == NULL ||
            !g_ptr_array_find(orphans, edge->parent, NULL)) {
            return true;
        }
    }
    return false;
}

/* What goes when @top goes: children that nobody else holds, parents first. */
static void
collect_orphans(BfNode *top, GPtrArray *orphans)
{
    g_ptr_array_add(orphans, top);
    for (unsigned i = 0; i < top->edges->len; i++) {
        const BfEdge *edge = g_ptr_array_index(top->edges, i);

        if (edge->child != NULL && !is_held_outside(edge->child, orphans)) {
            collect_orphans(edge->child, orphans);
        }
    }
}

/* Unlinks the nodes and gives back what they needed of those that remain. */
static void
co_take_out(BfGraph *graph, GPtrArray *orphans)
{
    BfPlan plan;

    bf_plan_init(&plan, graph);
    for (unsigned i = 0; i < orphans->len; i++) {
        BfNode *node = g_ptr_array_index(orphans, i);

        g_ptr_array_remove(graph->nodes, node);
        for (unsigned j = 0; j < node->edges->len; j++) {
            bf_plan_move(&plan, g_ptr_array_index(node->edges, j), NULL);
        }
    }
    bf_plan_co_release(&plan);
}

/* Those that somebody still looks at are closed by him. */
static void
co_close_all(BfGraph *graph, GPtrArray *orphans)
{
    for (unsigned i = 0; i < orphans->len; i++) {
        BfNode *node = g_ptr_array_index(orphans, i);

        if (node->pins > 0) {
            node->retired = true;
            graph->leaving++;
        } else {
            bf_node_co_close(node);
        }
    }
}

static void
co_close_retired(BfNode *node)
{
    BfGraph *graph = node->graph;

    bf_node_co_close(node);
    graph->leaving--;
    bf_co_queue_wake_all(&graph->left);
}

/* Made inline by a node that is gone, and used by nobody any more. */
static bool
is_orphan(const BfNode *node)
{
    return node->registered && node->parents->len == 0 &&
           !node->monitor_owned && node->pins == 0;
}

bool
bf_node_check_there(const BfNode *node, GError **error)
{
    if (!node->registered) {
        bf_set_error(error, "Node '%s' has been closed meanwhile", node->name);
    }
    return node->registered;
}

void
bf_node_co_unpin(BfNode *node)
{
    BfGraph *graph = node->graph;

    bf_assert_main();
    g_assert(node->pins > 0);
    if (node->pins > 1 || node->parents->len > 0 || node->monitor_owned) {
        node->pins--;
        return;
    }
    if (!node->retired) {
        bf_graph_co_lock(graph);
        node->pins--;
        if (is_orphan(node)) {
            bf_graph_co_close_orphan(graph, node);
            return;
        }
        bf_graph_unlock(graph);
    } else {
        node->pins--;
    }
    if (node->retired && node->pins == 0) {
        co_close_retired(node);
    }
}

void
bf_graph_co_close_orphan(BfGraph *graph, BfNode *top)
{
    g_autoptr(GPtrArray) orphans = g_ptr_array_new();

    collect_orphans(top, orphans);
    graph->leaving++;
    for (unsigned i = 0; i < orphans->len; i++) {
        ((BfNode *)g_ptr_array_index(orphans, i))->registered = false;
    }
    bf_drain_co_end_work(graph, orphans);
    co_take_out(graph, orphans);
    bf_graph_unlock(graph);
    co_close_all(graph, orphans);
    graph->leaving--;
    bf_co_queue_wake_all(&graph->left);
}

/* The first of @node's users that is a root, or any user; NULL if none. */
static const BfEdge *
find_user(const BfNode *node)
{
    for (unsigned i = 0; i < node->parents->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->parents, i);

        if (edge->root != NULL) {
            return edge;
        }
    }
    return node->parents->len > 0 ? g_ptr_array_index(node->parents, 0) : NULL;
}

static bool
check_unused(const BfNode *node, GError **error)
{
    const BfEdge *user = find_user(node);
    g_autofree char *text = user != NULL ? bf_edge_user_text(user) : NULL;

    if (user != NULL && user->root != NULL) {
        bf_set_error(error, "Node %s is in use by %s", node->name, text);
        return false;
    }
    if (node->pins > 0) {
        bf_set_error(error, "Node %s is in use", node->name);
        return false;
    }
    if (!node->monitor_owned) {
        bf_set_error(error, "Node %s is not owned by the monitor", node->name);
        return false;
    }
    if (user != NULL) {
        bf_set_error(error, "Block device %s is in use by %s", node->name,
                     text);
        return false;
    }
    return true;
}

bool
bf_graph_co_blockdev_del(BfGraph *graph, const char *node_name, GError **error)
{
    BfNode *node;

    bf_assert_main();
    bf_graph_co_lock(graph);
    node = bf_graph_require_named(graph, node_name, error);
    if (node == NULL || !check_unused(node, error)) {
        bf_graph_unlock(graph);
        return false;
    }
    node->monitor_owned = false;
    bf_graph_co_close_orphan(graph, node);
    return true;
}

/* A node that no other one holds, and that is not leaving. */
static BfNode *
find_top(BfGraph *graph)
{
    for (unsigned i = graph->nodes->len; i > 0; i--) {
        BfNode *node = g_ptr_array_index(graph->nodes, i - 1);

        if (node->parents->len == 0 && node->registered) {
            return node;
        }
    }
    return NULL;
}

/* The mutex is held. Nodes that are leaving may hold others. */
static void
co_close_nodes(BfGraph *graph)
{
    for (;;) {
        BfNode *node = find_top(graph);

        if (node != NULL) {
            node->monitor_owned = false;
            bf_graph_co_close_orphan(graph, node);
        } else if (graph->leaving > 0) {
            bf_graph_unlock(graph);
            bf_co_queue_co_wait(&graph->left);
        } else {
            return;
        }
        bf_graph_co_lock(graph);
    }
}

void
bf_graph_co_free(BfGraph *graph)
{
    if (graph == NULL) {
        return;
    }
    bf_assert_main();
    g_assert(graph->roots->len == 0);
    bf_graph_co_lock(graph);
    co_close_nodes(graph);
    g_assert(bf_registry_size(graph->names) == 0);
    bf_registry_free(graph->names);
    g_ptr_array_unref(graph->nodes);
    g_ptr_array_unref(graph->roots);
    g_assert(graph->hurries->len == 0);
    g_ptr_array_unref(graph->hurries);
    g_free((void *)graph->config.workers);
    g_free(graph);
}

BfLoop *
bf_graph_pick_loop(BfGraph *graph)
{
    const BfGraphConfig *config = &graph->config;

    return config->workers[graph->next_home++ % config->n_workers];
}

/* Roots. */

static BfRoot *
root_alloc(BfGraph *graph, const char *description, unsigned perm,
           unsigned shared)
{
    BfRoot *root = g_new0(BfRoot, 1);

    root->graph = graph;
    root->description = g_strdup(description);
    root->handles = g_ptr_array_new();
    root->edge.name = g_strdup("root");
    root->edge.root = root;
    root->edge.slot = &root->node;
    root->edge.perm_plan = perm;
    root->edge.shared_plan = shared;
    return root;
}

static void
root_free(BfRoot *root)
{
    g_ptr_array_unref(root->handles);
    g_free(root->edge.name);
    g_free(root->description);
    g_free(root->job_id);
    g_free(root->role);
    g_free(root);
}

/* The caller holds the mutex. */
static BfRoot *
co_root_add(BfGraph *graph, BfNode *node, const char *description,
            unsigned perm, unsigned shared, bool allow_inactive, GError **error)
{
    BfRoot *root;
    BfPlan plan;

    if (!node->active && !allow_inactive &&
        (perm & (BF_PERM_WRITE | BF_PERM_WRITE_UNCHANGED)) != 0) {
        bf_set_error(error,
                     "Permission 'write' unavailable on inactive node: "
                     "%s needs it on '%s'; use blockdev-set-active first",
                     description, node->name);
        return NULL;
    }
    root = root_alloc(graph, description, perm, shared);
    root->allow_inactive = allow_inactive;
    bf_plan_init(&plan, graph);
    bf_plan_move(&plan, &root->edge, node);
    if (!bf_plan_co_prepare(&plan, error)) {
        root_free(root);
        return NULL;
    }
    root->edge.perm = perm;
    root->edge.shared = shared;
    g_ptr_array_add(graph->roots, root);
    bf_section_add_root(root);
    bf_plan_co_commit(&plan);
    bf_plan_co_finish(&plan);
    return root;
}

static BfRoot *
root_co_new(BfGraph *graph, BfNode *node, const char *description,
            unsigned perm, unsigned shared, bool allow_inactive, GError **error)
{
    BfRoot *root = NULL;

    bf_assert_main();
    g_assert(node->registered);
    node->pins++;
    bf_graph_co_lock(graph);
    if (bf_node_check_there(node, error)) {
        root = co_root_add(graph, node, description, perm, shared,
                           allow_inactive, error);
    }
    bf_graph_unlock(graph);
    bf_node_co_unpin(node);
    return root;
}

BfRoot *
bf_root_co_new_inactive(BfGraph *graph, BfNode *node, const char *description,
                        unsigned perm, unsigned shared, GError **error)
{
    return root_co_new(graph, node, description, perm, shared, true, error);
}

BfRoot *
bf_root_co_new(BfGraph *graph, BfNode *node, const char *description,
               unsigned perm, unsigned shared, GError **error)
{
    return root_co_new(graph, node, description, perm, shared, false, error);
}

BfRoot *
bf_root_co_new_fixed(BfGraph *graph, BfNode *node, const char *description,
                     GError **error)
{
    BfRoot *root = bf_root_co_new(graph, node, description, 0,
                                  BF_PERM_ALL & ~BF_PERM_RESIZE, error);

    if (root != NULL) {
        root->fixed = true;
    }
    return root;
}

void
bf_root_co_free(BfRoot *root)
{
    BfGraph *graph;
    BfNode *node;
    BfPlan plan;

    if (root == NULL) {
        return;
    }
    bf_assert_main();
    if (root->handles->len > 0 && root->hurried == NULL) {
        root->hurried = bf_drain_hurry_begin(root->node);
    }
    while (root->handles->len > 0) {
        bf_handle_co_free(g_ptr_array_index(root->handles, 0));
    }
    if (root->hurried != NULL) {
        bf_drain_hurry_end(root->graph, root->hurried);
    }
    graph = root->graph;
    bf_graph_co_lock(graph);
    node = root->node;
    g_ptr_array_remove(graph->roots, root);
    bf_section_forget_root(root);
    bf_plan_init(&plan, graph);
    bf_plan_move(&plan, &root->edge, NULL);
    bf_plan_co_release(&plan);
    root_free(root);
    if (is_orphan(node)) {
        bf_graph_co_close_orphan(graph, node);
    } else {
        bf_graph_unlock(graph);
    }
}

BfNode *
bf_root_node(BfRoot *root)
{
    return root->node;
}

BfNode *
bf_root_node_to_be(BfRoot *root)
{
    return root->edge.child;
}

uint64_t
bf_root_size(BfRoot *root)
{
    return root->node->size;
}

const BfLimits *
bf_root_limits(BfRoot *root)
{
    return &root->node->limits;
}

BfLoop *
bf_root_pick_loop(BfRoot *root, BfLoop *const *workers, unsigned n_workers,
                  unsigned wanted)
{
    g_assert(wanted < n_workers);
    return root->node->any_loop ? workers[wanted] : root->node->home;
}

/* Other changes. */

bool
bf_graph_co_replace_node(BfGraph *graph, BfNode *from, BfNode *to,
                         GError **error)
{
    g_autoptr(GPtrArray) edges = NULL;
    BfPlan plan;
    bool ok;

    bf_assert_main();
    g_assert(from->registered && to->registered && from != to);
    from->pins++;
    to->pins++;
    bf_graph_co_lock(graph);
    bf_plan_init(&plan, graph);
    edges = g_ptr_array_copy(from->parents, NULL, NULL);
    for (unsigned i = 0; i < edges->len; i++) {
        BfEdge *edge = g_ptr_array_index(edges, i);

        if (edge->parent != to && (edge->root == NULL || !edge->root->fixed)) {
            bf_plan_move(&plan, edge, to);
        }
    }
    ok = bf_plan_co_prepare(&plan, error);
    if (ok) {
        bf_plan_co_commit(&plan);
        bf_plan_co_finish(&plan);
    }
    bf_graph_unlock(graph);
    bf_node_co_unpin(from);
    bf_node_co_unpin(to);
    return ok;
}

BfNode *
bf_node_below_jobs(BfNode *node)
{
    while (node != NULL && node->options == NULL && node->driver->is_filter) {
        node = node->file;
    }
    return node;
}

BfThrottleMember *
bf_graph_join_throttle_group(BfGraph *graph, const char *id, const char *user,
                             BfLoop *loop, GError **error)
{
    const BfGraphConfig *config = &graph->config;
    BfThrottleGroup *group =
        config->find_throttle_group != NULL
            ? config->find_throttle_group(config->opaque, id)
            : NULL;

    if (group == NULL) {
        bf_set_error(error, "Throttle group '%s' does not exist", id);
        return NULL;
    }
    return bf_throttle_member_new(group, user, loop);
}

BfNode *
bf_graph_require_device(BfGraph *graph, const char *device, const char *name,
                        GError **error)
{
    BfNode *node = name != NULL ? bf_graph_find_node(graph, name) : NULL;

    if (node == NULL) {
        /* There are no devices; their names stand for nodes. */
        bf_set_error(error, "Cannot find device='%s' nor node-name='%s'",
                     device != NULL ? device : "", name != NULL ? name : "");
    }
    return node;
}

BfNode *
bf_graph_require_node(BfGraph *graph, const char *name, GError **error)
{
    return bf_graph_require_device(graph, name, name, error);
}

BfNode *
bf_graph_require_named(BfGraph *graph, const char *node_name, GError **error)
{
    BfNode *node = bf_graph_find_node(graph, node_name);

    if (node == NULL) {
        bf_set_error(error, "Failed to find node with node-name='%s'",
                     node_name);
    }
    return node;
}

BfNode *
bf_graph_find_on_file(BfGraph *graph, dev_t device, ino_t inode)
{
    bf_assert_main();
    for (unsigned i = 0; i < graph->nodes->len; i++) {
        BfNode *node = g_ptr_array_index(graph->nodes, i);

        if (node->driver->is_on_file != NULL &&
            node->driver->is_on_file(node, device, inode)) {
            return node;
        }
    }
    return NULL;
}
