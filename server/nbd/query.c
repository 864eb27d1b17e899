/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What queries tell of the server and its clients. On main; nothing here waits:
 * of a client that a loop has, only what main owns, what does not change any
 * more and what is counted by atomics is looked at.
 */
#include "core/error.h"
#include "core/util.h"
#include "nbd-private.h"
#include "stats-private.h"

static BfNbdClientState
state_of(const BfNbdClient *client)
{
    if (client->killed) {
        return BF_NBD_CLIENT_STATE_CLOSING;
    }
    return client->stats != NULL ? BF_NBD_CLIENT_STATE_ACTIVE
                                 : BF_NBD_CLIENT_STATE_NEGOTIATING;
}

/* Of a client whose negotiation has ended, so that main knows what came out. */
static void
describe_use(const BfNbdClient *client, BfNbdClientInfo *info)
{
    const BfNbdStats *stats = client->stats;
    const uint64_t arrived_ns = bf_atomic_load(&stats->arrived_ns);
    const uint64_t now_ns = bf_loop_now_ns();

    info->export_id = g_strdup(bf_export_id(&client->exp->base));
    info->tls = bf_nbd_client_tls_copy(client->tls_info);
    if (client->loop != NULL) {
        info->thread = g_strdup(bf_loop_name(client->home));
    }
    info->has_idle_ns = true;
    info->idle_ns = now_ns - MIN(now_ns, arrived_ns);
    info->has_in_flight = true;
    info->in_flight = (uint32_t)bf_atomic_load(&stats->in_flight);
    info->has_failed_requests = true;
    info->failed_requests = bf_nbd_stats_failed(stats);
    info->requests = bf_nbd_stats_query(stats);
}

static BfNbdClientInfo *
describe_client(const BfNbdClient *client)
{
    BfNbdClientInfo *info = bf_type_new(&bf_nbd_client_info_type);

    info->connection = client->id;
    info->peer = g_strdup(client->peer);
    info->state = state_of(client);
    info->since_ns = client->since_wall_ns;
    info->listener = g_strdup(client->listener->id);
    if (client->stats != NULL) {
        describe_use(client, info);
    }
    return info;
}

BfNbdClientInfoList *
bf_nbd_server_query_clients(BfNbdServer *server, const BfExport *exp)
{
    BfNbdClientInfoList *list = bf_type_new(&bf_nbd_client_info_list_type);

    bf_assert_main();
    if (server == NULL) {
        return list;
    }
    list->items = g_new0(BfNbdClientInfo *, server->clients.length);
    for (GList *l = server->clients.head; l != NULL; l = l->next) {
        const BfNbdClient *client = l->data;

        if (exp == NULL || (client->exp != NULL && &client->exp->base == exp)) {
            list->items[list->len++] = describe_client(client);
        }
    }
    return list;
}

static BfNbdClient *
find_client(const BfNbdServer *server, uint64_t connection)
{
    for (GList *l = server->clients.head; l != NULL; l = l->next) {
        BfNbdClient *client = l->data;

        if (client->id == connection) {
            return client;
        }
    }
    return NULL;
}

BfNbdClientInfo *
bf_nbd_server_co_drop(BfNbdServer *server, uint64_t connection, GError **error)
{
    BfNbdClient *client = NULL;
    BfNbdClientInfo *info = NULL;

    bf_assert_main();
    if (server == NULL) {
        bf_set_error(error, "NBD server not running");
        return NULL;
    }
    client = find_client(server, connection);
    if (client == NULL) {
        bf_set_error(error,
                     "There is no connection %" G_GUINT64_FORMAT
                     "; query-nbd-clients lists those that there are",
                     connection);
        return NULL;
    }
    if (client->killed) {
        bf_set_error(error,
                     "Connection %" G_GUINT64_FORMAT " is being closed already",
                     connection);
        return NULL;
    }
    info = describe_client(client);
    bf_nbd_client_co_cut(client);
    return info;
}

static BfNbdListenerInfo *
describe_listener(const BfNbdListener *listener)
{
    BfNbdListenerInfo *info = bf_type_new(&bf_nbd_listener_info_type);

    info->id = g_strdup(listener->id);
    info->addresses = bf_socket_address_list_copy(listener->addresses);
    info->tls_creds = g_strdup(listener->tls_creds_id);
    info->has_tls_mode = listener->tls_creds != NULL;
    info->tls_mode = listener->tls_mode;
    info->tls_authz = g_strdup(listener->tls_authz);
    info->handshake_max_seconds = listener->handshake_max_seconds;
    info->max_connections = listener->max_connections;
    info->max_connections_per_address = listener->max_per_address;
    info->idle_max_seconds = listener->idle_max_seconds;
    info->clients = listener->n_clients;
    info->waiting = listener->n_waiting;
    return info;
}

BfNbdListenerInfo *
bf_nbd_server_query_listener(const BfNbdServer *server, const char *id)
{
    const BfNbdListener *listener = bf_nbd_listeners_find(server, id);

    bf_assert_main();
    return listener != NULL ? describe_listener(listener) : NULL;
}

static BfNbdListenerInfoList *
describe_listeners(const BfNbdServer *server)
{
    BfNbdListenerInfoList *list = bf_type_new(&bf_nbd_listener_info_list_type);

    list->len = server->listeners->len;
    list->items = g_new0(BfNbdListenerInfo *, list->len);
    for (unsigned i = 0; i < server->listeners->len; i++) {
        list->items[i] =
            describe_listener(g_ptr_array_index(server->listeners, i));
    }
    return list;
}

BfNbdServerInfo *
bf_nbd_server_query(const BfNbdServer *server)
{
    BfNbdServerInfo *info = bf_type_new(&bf_nbd_server_info_type);
    const BfNbdListener *first = NULL;

    bf_assert_main();
    if (server == NULL) {
        return info;
    }
    first = server->first;
    info->running = true;
    info->addresses = bf_socket_address_list_copy(first->addresses);
    info->tls_creds = g_strdup(first->tls_creds_id);
    info->has_tls_mode = first->tls_creds != NULL;
    info->tls_mode = first->tls_mode;
    info->tls_authz = g_strdup(first->tls_authz);
    info->has_handshake_max_seconds = true;
    info->handshake_max_seconds = first->handshake_max_seconds;
    info->has_max_connections = true;
    info->max_connections = first->max_connections;
    info->has_max_connections_per_address = true;
    info->max_connections_per_address = first->max_per_address;
    info->has_idle_max_seconds = true;
    info->idle_max_seconds = first->idle_max_seconds;
    info->listeners = describe_listeners(server);
    info->has_clients = true;
    info->clients = server->clients.length;
    info->has_waiting = true;
    info->waiting = server->lobby.waiting.length;
    info->has_negotiating = true;
    info->negotiating = server->lobby.negotiating.length;
    info->has_exports = true;
    info->exports = server->exports->len;
    return info;
}
