/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Listeners of the NBD server: where it listens, and what is demanded of the
 * clients that come in there. One comes and goes with the server, others are
 * added and removed while it runs; all clients see the same exports.
 *
 * A client holds its listener, so that what was demanded of it stays the same
 * when the listener is removed. On main; _co_ functions suspend.
 */
#include "core/error.h"
#include "core/registry.h"
#include "io/listener.h"
#include "nbd-private.h"

/* Each takes at least a descriptor and a coroutine. */
#define LISTENERS_MAX 64

char *
bf_nbd_listener_creds_user(const char *id)
{
    return id == NULL ? g_strdup("the NBD server")
                      : g_strdup_printf("listener '%s' of the NBD server", id);
}

BfNbdListener *
bf_nbd_listener_new(BfNbdServer *server, const BfNbdListenerConfig *config)
{
    BfNbdListener *listener = g_new0(BfNbdListener, 1);

    listener->server = server;
    listener->id = g_strdup(config->id);
    if (config->tls_creds != NULL) {
        listener->tls_creds = bf_tls_creds_ref(config->tls_creds);
    }
    listener->tls_creds_id = g_strdup(config->tls_creds_id);
    listener->tls_authz = g_strdup(config->tls_authz);
    listener->tls_mode = config->tls_mode;
    listener->handshake_max_seconds = config->handshake_max_seconds;
    listener->max_connections = config->max_connections;
    listener->max_per_address = config->max_per_address;
    listener->idle_max_seconds = config->idle_max_seconds;
    listener->refs = 1;
    return listener;
}

BfNbdListener *
bf_nbd_listener_ref(BfNbdListener *listener)
{
    listener->refs++;
    return listener;
}

void
bf_nbd_listener_unref(BfNbdListener *listener)
{
    if (--listener->refs > 0) {
        return;
    }
    g_assert(listener->socket == NULL);
    g_assert(listener->n_clients == 0);
    g_assert(listener->n_waiting == 0 && listener->places_used == 0);
    bf_tls_creds_unref(listener->tls_creds);
    g_free(listener->tls_creds_id);
    g_free(listener->tls_authz);
    g_free(listener->address);
    bf_socket_address_list_free(listener->addresses);
    g_free(listener->id);
    g_free(listener);
}

/* What sockets are bound to, for queries. */
static BfSocketAddressList *
list_addresses(const GArray *fds)
{
    BfSocketAddressList *list = bf_type_new(&bf_socket_address_list_type);

    list->items = g_new0(BfSocketAddress *, fds->len);
    for (unsigned i = 0; i < fds->len; i++) {
        BfSocketAddress *address =
            bf_socket_local_address(g_array_index(fds, int, i));

        if (address != NULL) {
            list->items[list->len++] = address;
        }
    }
    return list;
}

/* The same for logs: with the ports that were chosen. */
static char *
addresses_to_string(const GArray *fds)
{
    GString *text = g_string_new(NULL);

    for (unsigned i = 0; i < fds->len; i++) {
        g_autofree char *local =
            bf_socket_local_to_string(g_array_index(fds, int, i));

        g_string_append_printf(text, "%s%s", i > 0 ? ", " : "", local);
    }
    return g_string_free(text, FALSE);
}

static void
log_listening(const BfNbdListener *listener, int fd)
{
    g_autofree char *local = bf_socket_local_to_string(fd);
    const char *tls = listener->tls_creds == NULL ? ""
                      : listener->tls_mode == BF_NBD_TLS_MODE_IMMEDIATE
                          ? " (TLS from the first byte)"
                          : " (TLS required)";

    if (listener->id == NULL) {
        g_message("NBD server listening on %s%s", local, tls);
    } else {
        g_message("NBD server listening on %s%s, by listener '%s'", local, tls,
                  listener->id);
    }
}

bool
bf_nbd_listener_co_open(BfNbdListener *listener,
                        const BfNbdListenerConfig *config, GError **error)
{
    BfNbdServer *server = listener->server;
    const char *path = NULL;
    GArray *fds = NULL;

    if (!bf_address_co_listen(config->address, config->take_fd,
                              config->take_fd_opaque, &fds, error)) {
        return false;
    }
    if (config->address->type == BF_SOCKET_ADDRESS_TYPE_UNIX) {
        const BfUnixSocketAddress *addr = config->address->u.unix_;

        path = addr->abstract ? NULL : addr->path;
    }
    for (unsigned i = 0; i < fds->len; i++) {
        log_listening(listener, g_array_index(fds, int, i));
    }
    listener->address = addresses_to_string(fds);
    listener->addresses = list_addresses(fds);
    listener->socket =
        bf_listener_new(fds, path, bf_nbd_lobby_accept, listener);
    g_ptr_array_add(server->listeners, bf_nbd_listener_ref(listener));
    return true;
}

/* Its clients have what they need of them. */
static void
give_back_creds(const BfNbdListener *listener)
{
    if (listener->tls_creds_id != NULL) {
        g_autofree char *user = bf_nbd_listener_creds_user(listener->id);

        bf_objects_release_tls_creds(listener->server->objects,
                                     listener->tls_creds_id, user);
    }
}

/* Nobody is accepted any more when this first suspends. */
static void
listener_co_close(void *arg)
{
    BfNbdListener *listener = arg;
    BfNbdServer *server = listener->server;

    give_back_creds(listener);
    bf_nbd_lobby_close_waiting(listener);
    bf_listener_co_free(g_steal_pointer(&listener->socket));
    if (listener->id != NULL) {
        g_message("NBD server does not listen on %s any more, by listener "
                  "'%s'",
                  listener->address, listener->id);
    }
    bf_nbd_listener_unref(listener);
    bf_wait_group_done(&server->alive);
}

/* Takes a listener off the list, whose reference the caller has then. */
static void
take_off(BfNbdListener *listener)
{
    g_ptr_array_remove(listener->server->listeners, listener);
    bf_wait_group_add(&listener->server->alive, 1);
}

void
bf_nbd_listeners_start_close(BfNbdServer *server)
{
    while (server->listeners->len > 0) {
        BfNbdListener *listener = g_ptr_array_index(server->listeners, 0);

        take_off(listener);
        bf_co_spawn(listener_co_close, listener);
    }
}

BfNbdListener *
bf_nbd_listeners_find(const BfNbdServer *server, const char *id)
{
    for (unsigned i = 0; i < server->listeners->len; i++) {
        BfNbdListener *listener = g_ptr_array_index(server->listeners, i);

        if (listener->id != NULL && g_str_equal(listener->id, id)) {
            return listener;
        }
    }
    return NULL;
}

bool
bf_nbd_server_co_listen(BfNbdServer *server, const BfNbdListenerConfig *config,
                        GError **error)
{
    BfNbdListener *listener = NULL;
    bool ok = false;

    bf_assert_main();
    if (!bf_id_is_wellformed(config->id)) {
        bf_set_error(error,
                     "Invalid listener id '%s': it must be a letter, then "
                     "letters, digits and '-._'",
                     config->id);
        return false;
    }
    if (bf_nbd_listeners_find(server, config->id) != NULL) {
        bf_set_error(error,
                     "NBD server already has a listener '%s'; choose another "
                     "id, or remove it by nbd-server-remove-listener",
                     config->id);
        return false;
    }
    if (server->listeners->len >= LISTENERS_MAX) {
        bf_set_error(error, "the NBD server can have %d listeners at most",
                     LISTENERS_MAX);
        return false;
    }
    listener = bf_nbd_listener_new(server, config);
    ok = bf_nbd_listener_co_open(listener, config, error);
    bf_nbd_listener_unref(listener);
    return ok;
}

static void
kill_clients(const BfNbdListener *listener, bool hard)
{
    for (GList *l = listener->server->clients.head; l != NULL; l = l->next) {
        BfNbdClient *client = l->data;

        if (client->listener == listener && (hard || client->exp == NULL)) {
            bf_nbd_client_kill(
                client, BF_NBD_CLIENT_DISCONNECT_REASON_LISTENER_REMOVED);
        }
    }
}

bool
bf_nbd_server_co_unlisten(BfNbdServer *server, const char *id, bool hard,
                          GError **error)
{
    BfNbdListener *listener = bf_nbd_listeners_find(server, id);

    bf_assert_main();
    if (listener == NULL) {
        bf_set_error(error,
                     "NBD server has no listener '%s'; query-nbd-server lists "
                     "those that it has",
                     id);
        return false;
    }
    take_off(listener);
    kill_clients(listener, hard);
    listener_co_close(listener);
    return true;
}

bool
bf_nbd_listeners_prove_names(const BfNbdServer *server, const char *tls_authz,
                             GError **error)
{
    bool any_tls = false;

    for (unsigned i = 0; i < server->listeners->len; i++) {
        const BfNbdListener *listener = g_ptr_array_index(server->listeners, i);

        if (listener->tls_creds == NULL) {
            continue;
        }
        any_tls = true;
        g_clear_error(error);
        if (bf_tls_creds_check_identity(listener->tls_creds, error)) {
            return true;
        }
    }
    if (any_tls) {
        g_prefix_error(error,
                       "tls-authz '%s' does not go with the tls-creds of the "
                       "NBD server: ",
                       tls_authz);
    } else {
        bf_set_error(error,
                     "tls-authz '%s' needs an NBD server with tls-creds: "
                     "without TLS its clients prove no name; start the server "
                     "with tls-creds, or leave tls-authz out",
                     tls_authz);
    }
    return false;
}

bool
bf_nbd_listeners_lead_to(const BfNbdServer *server, int fd)
{
    for (unsigned i = 0; i < server->listeners->len; i++) {
        const BfNbdListener *listener = g_ptr_array_index(server->listeners, i);

        if (bf_listener_is_peer(listener->socket, fd)) {
            return true;
        }
    }
    return false;
}
