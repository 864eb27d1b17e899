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
#include "core/util.h"

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

/* --- Flushes, which storage that hangs must not prolong without end. --- */

/* Flushes of several nodes; freed by whoever is through last. */
typedef struct FlushAll {
    GPtrArray *busy; /* borrowed: nodes whose flush is under way */
    char *failed;    /* owned: name of the first one that cannot, or NULL */
    int ret;
    bool expired;
    bool left; /* nobody waits any more */
    BfCoQueue queue;
} FlushAll;

typedef struct FlushOne {
    FlushAll *all;
    BfNode *node;
    int ret;
} FlushOne;

static void
flush_all_free(FlushAll *all)
{
    g_ptr_array_unref(all->busy);
    g_free(all->failed);
    g_free(all);
}

static void
flush_co_home(void *arg)
{
    FlushOne *one = arg;

    one->ret = bf_node_co_flush(one->node);
}

static void
flush_co_run(void *arg)
{
    FlushOne *one = arg;
    FlushAll *all = one->all;
    BfNode *node = one->node;

    bf_co_call(node->any_loop ? bf_loop_self() : node->home, flush_co_home,
               one);
    if (one->ret < 0 && all->failed == NULL) {
        all->failed = g_strdup(node->name);
        all->ret = one->ret;
    }
    g_free(one);
    g_ptr_array_remove(all->busy, node);
    bf_drain_end_work(node);
    if (!all->left) {
        bf_co_queue_wake_all(&all->queue);
    } else if (all->busy->len == 0) {
        flush_all_free(all);
    }
}

static FlushAll *
start_flushes(const GPtrArray *nodes)
{
    FlushAll *all = g_new0(FlushAll, 1);

    all->busy = g_ptr_array_new();
    for (unsigned i = 0; i < nodes->len; i++) {
        BfNode *node = g_ptr_array_index(nodes, i);

        if (!node->settings.read_only) {
            FlushOne *one = g_new0(FlushOne, 1);

            one->all = all;
            one->node = node;
            g_ptr_array_add(all->busy, node);
            bf_drain_begin_work(node);
            bf_co_spawn_later(flush_co_run, one);
        }
    }
    return all;
}

static void
flush_expired(void *arg)
{
    FlushAll *all = arg;

    all->expired = true;
    bf_co_queue_wake_all(&all->queue);
}

/* What was written is the next program's from now on. A flush that does not
 * end is left to itself; its node cannot be drained or closed before. */
static bool
co_flush_all(const GPtrArray *nodes, const char *what, GError **error)
{
    FlushAll *all = start_flushes(nodes);
    BfTimer timer = {0};
    bool ok = false;

    bf_timer_start(&timer, DRAIN_LIMIT_NS, flush_expired, all);
    while (all->busy->len > 0 && all->failed == NULL && !all->expired) {
        bf_co_queue_co_wait(&all->queue);
    }
    bf_timer_stop(&timer);
    if (all->failed != NULL) {
        bf_set_errno(error, -all->ret,
                     "Failed to inactivate %s: node '%s' cannot flush", what,
                     all->failed);
    } else if (all->busy->len > 0) {
        const BfNode *node = g_ptr_array_index(all->busy, 0);

        bf_set_error(error,
                     "Failed to inactivate %s: the flush of node '%s' did not "
                     "end within %u seconds; try again when the storage "
                     "answers",
                     what, node->name,
                     (unsigned)(DRAIN_LIMIT_NS / BF_NS_PER_SEC));
    } else {
        ok = true;
    }
    all->left = true;
    if (all->busy->len == 0) {
        flush_all_free(all);
    }
    return ok;
}

static void
add_active_below(BfNode *node, GPtrArray *nodes)
{
    if (!node->active || g_ptr_array_find(nodes, node, NULL)) {
        return;
    }
    g_ptr_array_add(nodes, node);
    for (unsigned i = 0; i < node->edges->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->edges, i);

        if (edge->child != NULL) {
            add_active_below(edge->child, nodes);
        }
    }
}

/* Before the mutex is taken, so that storage that hangs holds up nobody else;
 * there is little left to be flushed when all is at rest. */
static bool
co_flush_early(const GPtrArray *tops, const char *what, GError **error)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();

    for (unsigned i = 0; i < tops->len; i++) {
        add_active_below(g_ptr_array_index(tops, i), nodes);
    }
    return co_flush_all(nodes, what, error);
}

/* --- The change. --- */

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
            ok = co_flush_all(changed, what, error);
        }
        if (ok) {
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
            bf_node_refresh_up(node); /* the size may be another one */
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

static bool
check_inactivate(const BfNode *node, GError **error)
{
    if (bf_node_has_active_parent(node)) {
        bf_set_error(error, "Node has active parent node");
        return false;
    }
    return !node->active || check_users(node, "node", error);
}

bool
bf_node_co_set_active(BfNode *node, bool active, GError **error)
{
    BfGraph *graph = node->graph;
    g_autoptr(GPtrArray) tops = g_ptr_array_new();
    bool ok;

    bf_assert_main();
    g_ptr_array_add(tops, node);
    node->pins++;
    ok = active ||
         (check_inactivate(node, error) && co_flush_early(tops, "node", error));
    if (ok) {
        bf_graph_co_lock(graph);
        ok = bf_node_check_there(node, error) &&
             (active || check_inactivate(node, error));
        if (ok && node->active != active) {
            ok = co_set_all(graph, tops, active, "node", error);
        }
        bf_graph_unlock(graph);
    }
    bf_node_co_unpin(node);
    return ok;
}

static void
collect_tops(const BfGraph *graph, bool active, GPtrArray *tops)
{
    for (unsigned i = 0; i < graph->nodes->len; i++) {
        BfNode *node = g_ptr_array_index(graph->nodes, i);

        if (node->registered && node->active != active &&
            (active || !bf_node_has_active_parent(node))) {
            g_ptr_array_add(tops, node);
        }
    }
}

bool
bf_graph_co_set_all_active(BfGraph *graph, bool active, GError **error)
{
    g_autoptr(GPtrArray) tops = g_ptr_array_new();
    bool ok;

    bf_assert_main();
    collect_tops(graph, active, tops);
    if (!active && !co_flush_early(tops, "all nodes", error)) {
        return false;
    }
    bf_graph_co_lock(graph);
    g_ptr_array_set_size(tops, 0);
    collect_tops(graph, active, tops);
    ok = co_set_all(graph, tops, active, "all nodes", error);
    bf_graph_unlock(graph);
    return ok;
}

bool
bf_node_co_activate(BfNode *node, GError **error)
{
    return bf_node_co_set_active(node, true, error);
}
