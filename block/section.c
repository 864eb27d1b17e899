/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sections: several changes of the graph as one. The coroutine that has begun
 * a section holds the graph's mutex, and what it calls meanwhile nests; what
 * is brought to rest in a section stays so until its end.
 */
#include "block-private.h"
#include "block/graph.h"
#include "core/util.h"

struct BfSection {
    BfCo *owner;
    unsigned depth; /* nested locks */
    BfDrain drain;
};

static bool
is_ours(const BfGraph *graph)
{
    return graph->section != NULL && graph->section->owner == bf_co_self();
}

void
bf_graph_co_lock(BfGraph *graph)
{
    bf_assert_main();
    if (is_ours(graph)) {
        graph->section->depth++;
    } else {
        bf_co_mutex_co_lock(&graph->change);
    }
}

void
bf_graph_unlock(BfGraph *graph)
{
    if (is_ours(graph)) {
        g_assert(graph->section->depth > 0);
        graph->section->depth--;
    } else {
        bf_co_mutex_unlock(&graph->change);
    }
}

void
bf_graph_co_section_begin(BfGraph *graph)
{
    if (is_ours(graph)) {
        graph->section->depth++;
        return;
    }
    bf_graph_co_lock(graph);
    graph->section = g_new0(BfSection, 1);
    graph->section->owner = bf_co_self();
    bf_drain_init(&graph->section->drain, graph);
}

bool
bf_graph_co_section_drain(BfGraph *graph, GPtrArray *nodes, GError **error)
{
    g_assert(is_ours(graph));
    return bf_drain_co_add(&graph->section->drain, nodes, error);
}

bool
bf_graph_co_section_drain_node(BfGraph *graph, BfNode *node, GError **error)
{
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();

    g_ptr_array_add(nodes, node);
    return bf_graph_co_section_drain(graph, nodes, error);
}

void
bf_graph_co_section_end(BfGraph *graph)
{
    g_assert(is_ours(graph));
    if (graph->section->depth > 0) {
        graph->section->depth--;
        return;
    }
    bf_drain_co_end(&graph->section->drain);
    g_clear_pointer(&graph->section, g_free);
    bf_graph_unlock(graph);
}

bool
bf_graph_is_in_section(const BfGraph *graph)
{
    return is_ours(graph);
}

void
bf_section_add_root(BfRoot *root)
{
    BfDrain *drain = bf_section_drain(root->graph);

    if (drain != NULL) {
        root->drained = true;
        g_ptr_array_add(drain->roots, root);
    }
}

void
bf_section_forget_root(BfRoot *root)
{
    BfDrain *drain = bf_section_drain(root->graph);

    if (drain != NULL) {
        g_ptr_array_remove_fast(drain->roots, root);
    }
}

void
bf_section_co_forget_node(BfNode *node)
{
    BfDrain *drain = node->graph->section != NULL && is_ours(node->graph)
                         ? bf_section_drain(node->graph)
                         : NULL;

    if (drain == NULL || !g_ptr_array_remove_fast(drain->nodes, node)) {
        return;
    }
    if (drain->name == node->name) {
        drain->name = "";
    }
    if (node->driver->co_drain_end != NULL) {
        node->driver->co_drain_end(node);
    }
}

BfDrain *
bf_section_drain(BfGraph *graph)
{
    return graph->section != NULL ? &graph->section->drain : NULL;
}
