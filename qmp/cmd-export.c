/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP commands on exports and on the NBD server.
 */
#include "block/graph.h"
#include "block/node.h"
#include "core/error.h"
#include "qmp/dispatch.h"
#include "qmp/gen-commands.h"

/* The nested form of an address as the flat one; all is borrowed. */
static void
flatten_address(const BfSocketAddressLegacy *legacy, BfSocketAddress *ret_flat)
{
    ret_flat->type = legacy->type;
    switch (legacy->type) {
    case BF_SOCKET_ADDRESS_TYPE_INET:
        ret_flat->u.inet = legacy->u.inet->data;
        break;
    case BF_SOCKET_ADDRESS_TYPE_UNIX:
        ret_flat->u.unix_ = legacy->u.unix_->data;
        break;
    case BF_SOCKET_ADDRESS_TYPE_VSOCK:
        ret_flat->u.vsock = legacy->u.vsock->data;
        break;
    case BF_SOCKET_ADDRESS_TYPE_FD:
        ret_flat->u.fd = legacy->u.fd->data;
        break;
    default:
        g_assert_not_reached();
    }
}

static bool
co_listen(BfQmpCall *call, const BfNbdServerOptions *options, GError **error)
{
    BfDaemon *daemon = call->daemon;

    if (!bf_daemon_co_nbd_start(daemon, options, bf_qmp_call_take_fd, call,
                                error)) {
        return false;
    }
    bf_daemon_find_listening(daemon, options->id)->fd_passed =
        call->client != NULL;
    return true;
}

bool
bf_qmp_co_nbd_server_start(BfQmpCall *call, const BfNbdServerStartArgs *args,
                           GError **error)
{
    BfSocketAddress addr = {0};
    const BfNbdServerOptions options = {
        .addr = &addr,
        .handshake_max_seconds = args->handshake_max_seconds,
        .tls_creds = args->tls_creds,
        .tls_mode = args->tls_mode,
        .tls_authz = args->tls_authz,
        .max_connections = args->max_connections,
        .max_connections_per_address = args->max_connections_per_address,
        .idle_max_seconds = args->idle_max_seconds,
    };

    flatten_address(args->addr, &addr);
    return co_listen(call, &options, error);
}

bool
bf_qmp_co_nbd_server_add_listener(BfQmpCall *call,
                                  const BfNbdServerAddListenerArgs *args,
                                  BfNbdListenerInfo **ret_value, GError **error)
{
    const BfNbdServerOptions options = {
        .id = args->id,
        .addr = args->addr,
        .handshake_max_seconds = args->handshake_max_seconds,
        .tls_creds = args->tls_creds,
        .tls_mode = args->tls_mode,
        .tls_authz = args->tls_authz,
        .max_connections = args->max_connections,
        .max_connections_per_address = args->max_connections_per_address,
        .idle_max_seconds = args->idle_max_seconds,
    };

    if (!co_listen(call, &options, error)) {
        return false;
    }
    *ret_value =
        bf_nbd_server_query_listener(call->daemon->nbd_server, args->id);
    return true;
}

bool
bf_qmp_co_nbd_server_remove_listener(BfQmpCall *call,
                                     const BfNbdServerRemoveListenerArgs *args,
                                     GError **error)
{
    return bf_daemon_co_nbd_unlisten(
        call->daemon, args->id, args->mode == BF_NBD_LISTENER_REMOVE_MODE_HARD,
        error);
}

bool
bf_qmp_co_nbd_server_stop(BfQmpCall *call, GError **error)
{
    return bf_daemon_co_nbd_stop(call->daemon, error);
}

bool
bf_qmp_co_block_export_add(BfQmpCall *call, const BfBlockExportOptions *args,
                           GError **error)
{
    return bf_daemon_co_export_add(call->daemon, args, error);
}

/* A list of one bitmap, all of it borrowed. */
typedef struct OneBitmap {
    BfBlockDirtyBitmapOrStr bitmap;
    BfBlockDirtyBitmapOrStr *items[1];
    BfBlockDirtyBitmapOrStrList list;
} OneBitmap;

static BfBlockDirtyBitmapOrStrList *
make_bitmap_list(OneBitmap *one, char *name)
{
    if (name == NULL) {
        return NULL;
    }
    one->bitmap.kind = BF_BLOCK_DIRTY_BITMAP_OR_STR_KIND_STR;
    one->bitmap.u.str = name;
    one->items[0] = &one->bitmap;
    one->list.len = 1;
    one->list.items = one->items;
    return &one->list;
}

bool
bf_qmp_co_nbd_server_add(BfQmpCall *call, const BfNbdServerAddOptions *args,
                         GError **error)
{
    const BfNode *node =
        bf_graph_require_node(call->daemon->graph, args->device, error);
    char *name = args->name != NULL ? args->name : args->device;
    OneBitmap one = {.list = {0}};
    BfBlockExportOptionsNbd nbd = {
        .name = name,
        .description = args->description,
        .tls_authz = args->tls_authz,
        .bitmaps = make_bitmap_list(&one, args->bitmap),
    };
    BfBlockExportOptions options = {
        .type = BF_BLOCK_EXPORT_TYPE_NBD,
        .id = name,
        .node_name = args->device,
        .writable = args->writable,
        .throttle_group = args->throttle_group,
        .u.nbd = &nbd,
    };

    if (node == NULL) {
        return false;
    }
    /* Unlike block-export-add, this command never fails for a wish to write. */
    options.writable = args->writable && !bf_node_is_read_only(node);
    return bf_daemon_co_export_add(call->daemon, &options, error);
}

static bool
co_remove_export(BfExportTable *table, const char *id,
                 BfBlockExportRemoveMode mode, GError **error)
{
    BfExport *exp = bf_export_table_find(table, id);

    if (exp == NULL) {
        bf_set_error(error, "Export '%s' is not found", id);
        return false;
    }
    if (bf_export_is_closing(exp)) {
        bf_set_error(error, "Export '%s' is already shutting down", id);
        return false;
    }
    if (mode == BF_BLOCK_EXPORT_REMOVE_MODE_SAFE &&
        bf_export_count_clients(exp) > 0) {
        bf_set_error(error, "export '%s' still in use", id);
        return false;
    }
    /* With clients the reply means "closing", and BLOCK_EXPORT_DELETED "gone".
     * Who has seen that there are none goes on at once: with the same id, or
     * with blockdev-del. */
    bf_export_co_close(exp);
    return true;
}

bool
bf_qmp_co_block_export_del(BfQmpCall *call, const BfBlockExportDelArgs *args,
                           GError **error)
{
    return co_remove_export(call->daemon->exports, args->id, args->mode, error);
}

/* All exports are NBD exports, so their type need not be looked at. */
bool
bf_qmp_co_nbd_server_remove(BfQmpCall *call, const BfNbdServerRemoveArgs *args,
                            GError **error)
{
    return co_remove_export(call->daemon->exports, args->name, args->mode,
                            error);
}

static BfBlockExportStats *
export_stats(BfExport *exp)
{
    BfBlockExportStats *info = g_new0(BfBlockExportStats, 1);
    BfIoStats stats;

    bf_export_stats(exp, &stats);
    info->read_bytes = stats.read_bytes;
    info->read_operations = stats.read_ops;
    info->written_bytes = stats.write_bytes;
    info->write_operations = stats.write_ops;
    info->zeroed_bytes = stats.zero_bytes;
    info->zero_operations = stats.zero_ops;
    info->trimmed_bytes = stats.discard_bytes;
    info->trim_operations = stats.discard_ops;
    info->flush_operations = stats.flush_ops;
    info->has_last_change_ns = stats.last_change_ns != 0;
    info->last_change_ns = stats.last_change_ns;
    info->has_last_flush_ns = stats.last_flush_ns != 0;
    info->last_flush_ns = stats.last_flush_ns;
    return info;
}

bool
bf_qmp_co_query_block_exports(BfQmpCall *call,
                              BfBlockExportInfoList **ret_value, GError **error)
{
    g_autoptr(GPtrArray) exports = bf_export_table_list(call->daemon->exports);
    BfBlockExportInfoList *list = bf_type_new(&bf_block_export_info_list_type);

    list->len = exports->len;
    list->items = g_new0(BfBlockExportInfo *, list->len);
    for (unsigned i = 0; i < exports->len; i++) {
        /* Newest first. */
        BfExport *exp = g_ptr_array_index(exports, exports->len - 1 - i);
        BfBlockExportInfo *info = bf_type_new(&bf_block_export_info_type);

        info->id = g_strdup(bf_export_id(exp));
        info->type = BF_BLOCK_EXPORT_TYPE_NBD;
        info->node_name = g_strdup(bf_export_node_name(exp));
        info->shutting_down = bf_export_is_closing(exp);
        info->clients = bf_export_count_clients(exp);
        info->throttle_group = g_strdup(bf_export_throttle_group(exp));
        info->stats = export_stats(exp);
        info->requests =
            bf_nbd_export_query_requests(exp, &info->stats->failed_operations);
        list->items[i] = info;
    }
    *ret_value = list;
    return true;
}

bool
bf_qmp_co_query_nbd_clients(BfQmpCall *call, const BfQueryNbdClientsArgs *args,
                            BfNbdClientInfoList **ret_value, GError **error)
{
    const BfExport *exp = NULL;

    if (args->export_id != NULL) {
        exp = bf_export_table_find(call->daemon->exports, args->export_id);
        if (exp == NULL) {
            bf_set_error(error, "Export '%s' is not found", args->export_id);
            return false;
        }
    }
    *ret_value = bf_nbd_server_query_clients(call->daemon->nbd_server, exp);
    return true;
}

bool
bf_qmp_co_query_nbd_server(BfQmpCall *call, BfNbdServerInfo **ret_value,
                           GError **error)
{
    *ret_value = bf_nbd_server_query(call->daemon->nbd_server);
    return true;
}

bool
bf_qmp_co_nbd_client_drop(BfQmpCall *call, const BfNbdClientDropArgs *args,
                          BfNbdClientInfo **ret_value, GError **error)
{
    *ret_value = bf_nbd_server_co_drop(call->daemon->nbd_server,
                                       args->connection, error);
    return *ret_value != NULL;
}
