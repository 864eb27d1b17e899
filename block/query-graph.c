/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The graph of nodes and their users, in the shape of
 * x-debug-query-block-graph. Numbers of nodes are valid in one reply only.
 */
#include "block-private.h"
#include "block/graph.h"

/* A reply being made. @ids are numbers by node, root, or job id. */
typedef struct Picture {
    BfXDbgBlockGraph *graph; /* owned */
    GHashTable *ids;
    GHashTable *job_ids;
} Picture;

static unsigned
add_node(Picture *picture, BfXDbgBlockGraphNodeType type, const char *name)
{
    BfXDbgBlockGraphNodeList *list = picture->graph->nodes;
    BfXDbgBlockGraphNode *node = bf_type_new(&bf_x_dbg_block_graph_node_type);

    list->items[list->len++] = node;
    node->id = list->len;
    node->type = type;
    node->name = g_strdup(name);
    return (unsigned)node->id;
}

/* The number that a root has as a user: that of its job, or one of its own. */
static unsigned
add_user(Picture *picture, const BfRoot *root)
{
    gpointer known = NULL;
    unsigned id;

    if (root->job_id == NULL) {
        return add_node(picture, BF_X_DBG_BLOCK_GRAPH_NODE_TYPE_BLOCK_BACKEND,
                        root->description);
    }
    known = g_hash_table_lookup(picture->job_ids, root->job_id);
    if (known != NULL) {
        return GPOINTER_TO_UINT(known);
    }
    id = add_node(picture, BF_X_DBG_BLOCK_GRAPH_NODE_TYPE_BLOCK_JOB,
                  root->job_id);
    g_hash_table_insert(picture->job_ids, root->job_id, GUINT_TO_POINTER(id));
    return id;
}

static BfBlockPermissionList *
permissions(unsigned perm)
{
    static const struct {
        BfPerm bit;
        BfBlockPermission name;
    } all[] = {
        {BF_PERM_CONSISTENT_READ, BF_BLOCK_PERMISSION_CONSISTENT_READ},
        {BF_PERM_WRITE, BF_BLOCK_PERMISSION_WRITE},
        {BF_PERM_WRITE_UNCHANGED, BF_BLOCK_PERMISSION_WRITE_UNCHANGED},
        {BF_PERM_RESIZE, BF_BLOCK_PERMISSION_RESIZE},
    };
    BfBlockPermissionList *list = bf_type_new(&bf_block_permission_list_type);

    list->items = g_new0(BfBlockPermission, G_N_ELEMENTS(all));
    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
        if ((perm & all[i].bit) != 0) {
            list->items[list->len++] = all[i].name;
        }
    }
    return list;
}

static void
add_edge(Picture *picture, gconstpointer parent, const BfEdge *edge,
         const char *name)
{
    BfXDbgBlockGraphEdgeList *list = picture->graph->edges;
    BfXDbgBlockGraphEdge *info;

    /* One that is being made or unmade has no child, or an unlisted one. */
    if (edge->child == NULL ||
        !g_hash_table_contains(picture->ids, edge->child)) {
        return;
    }
    info = bf_type_new(&bf_x_dbg_block_graph_edge_type);
    info->parent = GPOINTER_TO_UINT(g_hash_table_lookup(picture->ids, parent));
    info->child =
        GPOINTER_TO_UINT(g_hash_table_lookup(picture->ids, edge->child));
    info->name = g_strdup(name);
    info->perm = permissions(edge->perm);
    info->shared_perm = permissions(edge->shared);
    list->items[list->len++] = info;
}

/* Returns the number of edges at most. */
static unsigned
add_all_nodes(Picture *picture, const BfGraph *graph)
{
    unsigned n_edges = graph->roots->len;

    for (unsigned i = graph->nodes->len; i > 0; i--) {
        const BfNode *node = g_ptr_array_index(graph->nodes, i - 1);
        unsigned id = add_node(
            picture, BF_X_DBG_BLOCK_GRAPH_NODE_TYPE_BLOCK_DRIVER, node->name);

        g_hash_table_insert(picture->ids, (gpointer)node, GUINT_TO_POINTER(id));
        n_edges += node->edges->len;
    }
    for (unsigned i = graph->roots->len; i > 0; i--) {
        const BfRoot *root = g_ptr_array_index(graph->roots, i - 1);
        unsigned id = add_user(picture, root);

        g_hash_table_insert(picture->ids, (gpointer)root, GUINT_TO_POINTER(id));
    }
    return n_edges;
}

static void
add_all_edges(Picture *picture, const BfGraph *graph)
{
    for (unsigned i = graph->nodes->len; i > 0; i--) {
        const BfNode *node = g_ptr_array_index(graph->nodes, i - 1);

        for (unsigned j = 0; j < node->edges->len; j++) {
            const BfEdge *edge = g_ptr_array_index(node->edges, j);

            add_edge(picture, node, edge, edge->name);
        }
    }
    for (unsigned i = graph->roots->len; i > 0; i--) {
        const BfRoot *root = g_ptr_array_index(graph->roots, i - 1);

        add_edge(picture, root, &root->edge,
                 root->role != NULL ? root->role : root->edge.name);
    }
}

BfXDbgBlockGraph *
bf_graph_co_query_picture(BfGraph *graph)
{
    g_autoptr(GHashTable) ids = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) job_ids = g_hash_table_new(g_str_hash, g_str_equal);
    Picture picture = {
        .graph = bf_type_new(&bf_x_dbg_block_graph_type),
        .ids = ids,
        .job_ids = job_ids,
    };
    unsigned n_edges;

    bf_assert_main();
    picture.graph->nodes = bf_type_new(&bf_x_dbg_block_graph_node_list_type);
    picture.graph->nodes->items =
        g_new0(BfXDbgBlockGraphNode *, graph->nodes->len + graph->roots->len);
    n_edges = add_all_nodes(&picture, graph);
    picture.graph->edges = bf_type_new(&bf_x_dbg_block_graph_edge_list_type);
    picture.graph->edges->items = g_new0(BfXDbgBlockGraphEdge *, n_edges);
    add_all_edges(&picture, graph);
    return picture.graph;
}
