/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Children that come and go: what quorum nodes allow, and what they tell.
 */
#include <string.h>

#include "block-private.h"
#include "block/graph.h"
#include "core/error.h"

/* What a quorum node tells main; owned by the message. */
typedef struct QuorumNotice {
    BfGraph *graph;
    bool is_failure;
    BfQuorumOpType type;
    char *name;
    int ret;
    uint64_t sector;
    uint64_t count;
} QuorumNotice;

static void
deliver(void *arg)
{
    QuorumNotice *notice = arg;
    const BfGraphConfig *config = &notice->graph->config;

    if (config->node_events != NULL && notice->is_failure) {
        config->node_events->quorum_failure(config->node_events_opaque,
                                            notice->name, notice->sector,
                                            notice->count);
    } else if (config->node_events != NULL) {
        config->node_events->quorum_bad(
            config->node_events_opaque, notice->type,
            notice->ret < 0 ? g_strerror(-notice->ret) : NULL, notice->name,
            notice->sector, notice->count);
    }
    g_free(notice->name);
    g_free(notice);
}

static void
send_notice(BfNode *node, const QuorumNotice *notice)
{
    QuorumNotice *copy = g_memdup2(notice, sizeof(*notice));

    copy->graph = node->graph;
    bf_loop_post(node->graph->main_loop, deliver, copy);
}

void
bf_node_report_quorum_bad(BfNode *node, BfQuorumOpType type,
                          const BfNode *child, int ret, uint64_t sector,
                          uint64_t count)
{
    const QuorumNotice notice = {
        .type = type,
        .name = g_strdup(child->name),
        .ret = ret,
        .sector = sector,
        .count = count,
    };

    send_notice(node, &notice);
}

void
bf_node_report_quorum_failure(BfNode *node, uint64_t sector, uint64_t count)
{
    const QuorumNotice notice = {
        .is_failure = true,
        .name = g_strdup(node->name),
        .sector = sector,
        .count = count,
    };

    send_notice(node, &notice);
}

static bool
co_add_child(BfGraph *graph, BfNode *parent, BfNode *child, GError **error)
{
    g_autofree char *name = NULL;
    BfNode **slot;
    BfEdge *edge;
    BfPlan plan;

    if (parent->driver->add_child == NULL) {
        bf_set_error(error, "The node %s does not support adding a child",
                     parent->name);
        return false;
    }
    if (child->parents->len > 0) {
        bf_set_error(error, "The node %s already has a parent", child->name);
        return false;
    }
    slot = parent->driver->add_child(parent, child, &name, error);
    if (slot == NULL) {
        return false;
    }
    edge = bf_node_add_edge(parent, name, slot);
    bf_plan_init(&plan, graph);
    bf_plan_touch(&plan, parent);
    bf_plan_move(&plan, edge, child);
    if (!bf_plan_co_prepare(&plan, error)) {
        g_ptr_array_remove(parent->edges, edge);
        g_free(slot);
        return false;
    }
    *slot = child;
    parent->driver->child_added(parent, slot);
    bf_plan_co_commit(&plan);
    bf_plan_co_finish(&plan);
    return true;
}

static bool
co_remove_child(BfGraph *graph, BfNode *parent, const char *name,
                GError **error)
{
    BfEdge *edge = bf_node_find_edge(parent, name);
    BfNode *child;
    BfPlan plan;

    if (edge == NULL) {
        bf_set_error(error, "Node '%s' does not have child '%s'", parent->name,
                     name);
        return false;
    }
    if (parent->driver->check_remove == NULL) {
        bf_set_error(error, "The node %s does not support removing a child",
                     parent->name);
        return false;
    }
    if (!parent->driver->check_remove(parent, error)) {
        return false;
    }
    child = edge->child;
    bf_plan_init(&plan, graph);
    bf_plan_touch(&plan, parent);
    bf_plan_move(&plan, edge, NULL);
    if (!bf_plan_co_prepare(&plan, error)) {
        return false;
    }
    bf_plan_co_commit(&plan);
    parent->driver->child_removed(parent, edge->slot);
    g_ptr_array_remove(parent->edges, edge);
    bf_node_refresh_up(parent);
    bf_plan_co_finish(&plan);
    if (child->parents->len == 0 && !child->monitor_owned && child->pins == 0) {
        bf_graph_co_close_orphan(graph, child);
        bf_graph_co_lock(graph);
    }
    return true;
}

bool
bf_graph_co_change_child(BfGraph *graph, const char *parent_name,
                         const char *child, const char *node_name,
                         GError **error)
{
    BfNode *parent;
    BfNode *node = NULL;
    bool ok = false;

    bf_assert_main();
    if ((child == NULL) == (node_name == NULL)) {
        bf_set_error(error, child != NULL
                                ? "The parameters child and node are in "
                                  "conflict"
                                : "Either child or node must be specified");
        return false;
    }
    bf_graph_co_lock(graph);
    parent = bf_graph_require_node(graph, parent_name, error);
    if (parent != NULL && child != NULL) {
        ok = co_remove_child(graph, parent, child, error);
    } else if (parent != NULL) {
        node = bf_graph_find_node(graph, node_name);
        if (node == NULL) {
            bf_set_error(error, "Node '%s' not found", node_name);
        } else {
            ok = co_add_child(graph, parent, node, error);
        }
    }
    bf_graph_unlock(graph);
    return ok;
}
