/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The argument of --chardev. Its notation is older than that of the other
 * options, but it goes through the same readers; what the schema cannot say,
 * which options go together, is checked here.
 */
#include "qmp/chardev.h"

#include "core/error.h"
#include "qmp/gen-json.h"
#include "qmp/keyval.h"

#define RECONNECT_MAX_MS UINT64_C(3600000)

static bool
check_addresses(const BfChardevSocket *socket, GError **error)
{
    if ((socket->path != NULL) + (socket->host != NULL) +
            (socket->fd != NULL) !=
        1) {
        bf_set_error(error, "chardev: socket: exactly one of 'path', 'host' "
                            "and 'fd' is required");
        return false;
    }
    if (socket->host != NULL && socket->port == NULL) {
        bf_set_error(error, "chardev: socket: no port given");
        return false;
    }
    if (socket->host == NULL && (socket->port != NULL || socket->has_to ||
                                 socket->has_ipv4 || socket->has_ipv6)) {
        bf_set_error(error, "chardev: socket: 'port', 'to', 'ipv4' and 'ipv6' "
                            "go with 'host'");
        return false;
    }
    if (socket->path == NULL && socket->abstract) {
        bf_set_error(error, "chardev: socket: 'abstract' goes with 'path'");
        return false;
    }
    return true;
}

static bool
check_modes(const BfChardevSocket *socket, GError **error)
{
    if (socket->has_wait && !socket->server) {
        bf_set_error(error, "'wait' option is incompatible with socket in "
                            "client connect mode");
        return false;
    }
    if (socket->has_reconnect && socket->has_reconnect_ms) {
        bf_set_error(error, "'reconnect' and 'reconnect-ms' exclude each "
                            "other");
        return false;
    }
    if ((socket->has_reconnect || socket->has_reconnect_ms) &&
        (socket->server || socket->fd != NULL)) {
        bf_set_error(error, "'%s' option is incompatible with %s",
                     socket->has_reconnect ? "reconnect" : "reconnect-ms",
                     socket->server ? "socket in server listen mode" : "'fd'");
        return false;
    }
    if (socket->reconnect > RECONNECT_MAX_MS / 1000 ||
        socket->reconnect_ms > RECONNECT_MAX_MS) {
        bf_set_error(error, "chardev: socket: to reconnect once an hour is the "
                            "least");
        return false;
    }
    return true;
}

static BfUnixSocketAddress *
make_unix_address(const BfChardevSocket *socket)
{
    BfUnixSocketAddress *address = bf_type_new(&bf_unix_socket_address_type);

    address->path = g_strdup(socket->path);
    address->abstract = socket->abstract;
    address->tight = socket->tight;
    return address;
}

static BfInetSocketAddress *
make_inet_address(const BfChardevSocket *socket)
{
    BfInetSocketAddress *inet = bf_type_new(&bf_inet_socket_address_type);

    inet->host = g_strdup(socket->host);
    inet->port = g_strdup(socket->port);
    inet->has_to = socket->has_to;
    inet->to = socket->to;
    inet->has_ipv4 = socket->has_ipv4;
    inet->ipv4 = socket->ipv4;
    inet->has_ipv6 = socket->has_ipv6;
    inet->ipv6 = socket->ipv6;
    return inet;
}

static BfSocketAddress *
make_address(const BfChardevSocket *socket)
{
    BfSocketAddress *address = bf_type_new(&bf_socket_address_type);

    if (socket->path != NULL) {
        address->type = BF_SOCKET_ADDRESS_TYPE_UNIX;
        address->u.unix_ = make_unix_address(socket);
    } else if (socket->host != NULL) {
        address->type = BF_SOCKET_ADDRESS_TYPE_INET;
        address->u.inet = make_inet_address(socket);
    } else {
        address->type = BF_SOCKET_ADDRESS_TYPE_FD;
        address->u.fd = bf_type_new(&bf_fd_socket_address_type);
        address->u.fd->str = g_strdup(socket->fd);
    }
    return address;
}

static bool
read_socket(BfChardevConfig *config, const BfChardevSocket *socket,
            GError **error)
{
    if (!check_addresses(socket, error) || !check_modes(socket, error)) {
        return false;
    }
    config->address = make_address(socket);
    config->server = socket->server;
    config->wait = socket->has_wait ? socket->wait : socket->server;
    config->reconnect_ms = socket->has_reconnect
                               ? UINT64_C(1000) * socket->reconnect
                               : socket->reconnect_ms;
    return true;
}

static bool
read_backend(BfChardevConfig *config, const BfChardevOptions *options,
             GError **error)
{
    switch (options->backend) {
    case BF_CHARDEV_BACKEND_KIND_SOCKET:
        return read_socket(config, options->u.socket, error);
    case BF_CHARDEV_BACKEND_KIND_STDIO:
        config->signal = options->u.stdio->signal;
        return true;
    case BF_CHARDEV_BACKEND_KIND_NULL:
        return true;
    default:
        g_assert_not_reached();
    }
}

static BfChardevOptions *
parse_options(const char *text, GError **error)
{
    BfReadMode mode = BF_READ_MODE_KEYVAL;
    BfChardevOptions *options = NULL;
    const char *id = NULL;
    json_t *value =
        bf_keyval_parse(text, "backend", BF_KEYVAL_FLAT, &mode, error);

    if (value == NULL) {
        return NULL;
    }
    id = json_string_value(json_object_get(value, "id"));
    if (id == NULL || *id == '\0') {
        bf_set_error(error, "chardev: no id specified");
    } else {
        options = bf_chardev_options_from_json(value, mode, error);
    }
    json_decref(value);
    return options;
}

BfChardevConfig *
bf_chardev_config_parse(const char *text, GError **error)
{
    g_autoptr(BfChardevOptions) options = parse_options(text, error);
    g_autoptr(BfChardevConfig) config = NULL;

    if (options == NULL) {
        return NULL;
    }
    config = g_new0(BfChardevConfig, 1);
    config->kind = options->backend;
    config->id = g_strdup(options->id);
    return read_backend(config, options, error) ? g_steal_pointer(&config)
                                                : NULL;
}

void
bf_chardev_config_free(BfChardevConfig *config)
{
    if (config != NULL) {
        bf_socket_address_free(config->address);
        g_free(config->id);
        g_free(config);
    }
}

const char *
bf_chardev_help(void)
{
    return "Available chardev backend types:\n"
           "  null\n"
           "  socket\n"
           "  stdio\n";
}
