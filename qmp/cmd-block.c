/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP commands on block nodes. The graph checks and serialises; only what is
 * particular to a command's arguments is here.
 */
#include "block/graph.h"
#include "block/job.h"
#include "block/node.h"
#include "core/error.h"
#include "qmp/dispatch.h"
#include "qmp/gen-commands.h"

bool
bf_qmp_co_blockdev_add(BfQmpCall *call, const BfBlockdevOptions *args,
                       GError **error)
{
    return bf_graph_co_blockdev_add(call->daemon->graph, args, error);
}

bool
bf_qmp_co_blockdev_del(BfQmpCall *call, const BfBlockdevDelArgs *args,
                       GError **error)
{
    return bf_graph_co_blockdev_del(call->daemon->graph, args->node_name,
                                    error);
}

bool
bf_qmp_co_blockdev_reopen(BfQmpCall *call, const BfBlockdevReopenArgs *args,
                          GError **error)
{
    return bf_graph_co_reopen(call->daemon->graph, args->options, error);
}

bool
bf_qmp_co_blockdev_set_active(BfQmpCall *call,
                              const BfBlockdevSetActiveArgs *args,
                              GError **error)
{
    BfGraph *graph = call->daemon->graph;
    BfNode *node;

    if (args->node_name == NULL) {
        return bf_graph_co_set_all_active(graph, args->active, error);
    }
    node = bf_graph_require_named(graph, args->node_name, error);
    return node != NULL && bf_node_co_set_active(node, args->active, error);
}

bool
bf_qmp_co_x_blockdev_change(BfQmpCall *call, const BfXBlockdevChangeArgs *args,
                            GError **error)
{
    return bf_graph_co_change_child(call->daemon->graph, args->parent,
                                    args->child, args->node, error);
}

bool
bf_qmp_co_block_resize(BfQmpCall *call, const BfBlockResizeArgs *args,
                       GError **error)
{
    BfNode *node = bf_graph_require_device(
        call->daemon->graph, args->device,
        args->node_name != NULL ? args->node_name : args->device, error);
    const char *job = NULL;

    if (node == NULL) {
        return false;
    }
    if (args->size < 0) {
        bf_set_error(error, "Parameter 'size' expects a >0 size");
        return false;
    }
    job = bf_job_table_find_user(call->daemon->jobs, node);
    if (job != NULL) {
        bf_set_error(error,
                     "Device '%s' is in use by job '%s'; resize it when the "
                     "job has ended",
                     bf_node_name(node), job);
        return false;
    }
    return bf_graph_co_resize(call->daemon->graph, node, args->size, error);
}

bool
bf_qmp_co_query_named_block_nodes(BfQmpCall *call,
                                  const BfQueryNamedBlockNodesArgs *args,
                                  BfBlockDeviceInfoList **ret_value,
                                  GError **error)
{
    *ret_value = bf_graph_co_query(call->daemon->graph, args->flat);
    return true;
}

bool
bf_qmp_co_query_block(BfQmpCall *call, BfBlockInfoList **ret_value,
                      GError **error)
{
    *ret_value = bf_type_new(&bf_block_info_list_type); /* no devices */
    return true;
}

bool
bf_qmp_co_query_blockstats(BfQmpCall *call, const BfQueryBlockstatsArgs *args,
                           BfBlockStatsList **ret_value, GError **error)
{
    *ret_value =
        bf_graph_co_query_stats(call->daemon->graph, args->query_nodes);
    return true;
}

bool
bf_qmp_co_x_debug_query_block_graph(BfQmpCall *call,
                                    BfXDbgBlockGraph **ret_value,
                                    GError **error)
{
    *ret_value = bf_graph_co_query_picture(call->daemon->graph);
    return true;
}

bool
bf_qmp_co_block_set_write_threshold(BfQmpCall *call,
                                    const BfBlockSetWriteThresholdArgs *args,
                                    GError **error)
{
    BfNode *node = bf_graph_find_node(call->daemon->graph, args->node_name);

    if (node == NULL) {
        bf_set_error(error, "Device '%s' not found", args->node_name);
        return false;
    }
    bf_node_set_write_threshold(node, args->write_threshold);
    return true;
}
