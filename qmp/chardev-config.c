/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The argument of --chardev and of chardev-add. The notation of the first is
 * older than that of other options, but it goes through the same readers; what
 * the schema cannot say, which options go together, is checked here.
 */
#include "qmp/chardev.h"

#include "core/error.h"
#include "core/registry.h"
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
    if (socket->path == NULL &&
        (socket->mode != NULL || socket->owner != NULL ||
         socket->group != NULL)) {
        bf_set_error(error, "chardev: socket: 'mode', 'owner' and 'group' go "
                            "with 'path'");
        return false;
    }
    if (socket->path == NULL && socket->abstract) {
        bf_set_error(error, "chardev: socket: 'abstract' goes with 'path'");
        return false;
    }
    return true;
}

/* What both notations have of a socket, but for the address. */
typedef struct SocketModes {
    bool server;
    bool has_wait;
    bool wait_default; /* of a server */
    bool wait;
    bool has_reconnect;
    uint32_t reconnect;
    bool has_reconnect_ms;
    uint32_t reconnect_ms;
    const char *tls_creds;
    const char *tls_authz;
} SocketModes;

#define SOCKET_MODES(socket)                                                   \
    .server = (socket)->server, .has_wait = (socket)->has_wait,                \
    .wait = (socket)->wait, .has_reconnect = (socket)->has_reconnect,          \
    .reconnect = (socket)->reconnect,                                          \
    .has_reconnect_ms = (socket)->has_reconnect_ms,                            \
    .reconnect_ms = (socket)->reconnect_ms, .tls_creds = (socket)->tls_creds,  \
    .tls_authz = (socket)->tls_authz

static bool
check_modes(const SocketModes *modes, bool is_fd, GError **error)
{
    if (modes->has_wait && !modes->server) {
        bf_set_error(error, "'wait' option is incompatible with socket in "
                            "client connect mode");
        return false;
    }
    if (modes->has_reconnect && modes->has_reconnect_ms) {
        bf_set_error(error, "'reconnect' and 'reconnect-ms' exclude each "
                            "other");
        return false;
    }
    if ((modes->has_reconnect || modes->has_reconnect_ms) &&
        (modes->server || is_fd)) {
        bf_set_error(error, "'%s' option is incompatible with %s",
                     modes->has_reconnect ? "reconnect" : "reconnect-ms",
                     modes->server ? "socket in server listen mode" : "'fd'");
        return false;
    }
    if (modes->reconnect > RECONNECT_MAX_MS / 1000 ||
        modes->reconnect_ms > RECONNECT_MAX_MS) {
        bf_set_error(error, "chardev: socket: to reconnect once an hour is the "
                            "least");
        return false;
    }
    return true;
}

/* Accepting what cannot be enforced would let everybody in. */
static bool
check_tls(const SocketModes *modes, GError **error)
{
    if (modes->tls_authz != NULL && modes->tls_creds == NULL) {
        bf_set_error(error,
                     "'tls-authz' option requires 'tls-creds' option: without "
                     "TLS a client proves no name");
        return false;
    }
    if (modes->tls_authz != NULL && !modes->server) {
        bf_set_error(error, "'tls-authz' option is incompatible with socket in "
                            "client connect mode");
        return false;
    }
    return true;
}

static bool
read_modes(BfChardevConfig *config, const SocketModes *modes, GError **error)
{
    if (!check_modes(modes, config->address->type == BF_SOCKET_ADDRESS_TYPE_FD,
                     error)) {
        return false;
    }
    if (!check_tls(modes, error)) {
        return false;
    }
    config->tls_creds = g_strdup(modes->tls_creds);
    config->tls_authz = g_strdup(modes->tls_authz);
    config->server = modes->server;
    config->wait =
        modes->has_wait ? modes->wait : modes->server && modes->wait_default;
    config->reconnect_ms = modes->has_reconnect
                               ? UINT64_C(1000) * modes->reconnect
                               : modes->reconnect_ms;
    return true;
}

static BfUnixSocketAddress *
make_unix_address(const BfChardevSocket *socket)
{
    BfUnixSocketAddress *address = bf_type_new(&bf_unix_socket_address_type);

    address->path = g_strdup(socket->path);
    address->abstract = socket->abstract;
    address->tight = socket->tight;
    address->mode = g_strdup(socket->mode);
    address->owner = g_strdup(socket->owner);
    address->group = g_strdup(socket->group);
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

/* The nested form of an address as the flat one. */
static BfSocketAddress *
unwrap_address(const BfSocketAddressLegacy *legacy)
{
    BfSocketAddress *address = bf_type_new(&bf_socket_address_type);

    address->type = legacy->type;
    switch (legacy->type) {
    case BF_SOCKET_ADDRESS_TYPE_INET:
        address->u.inet = bf_inet_socket_address_copy(legacy->u.inet->data);
        break;
    case BF_SOCKET_ADDRESS_TYPE_UNIX:
        address->u.unix_ = bf_unix_socket_address_copy(legacy->u.unix_->data);
        break;
    case BF_SOCKET_ADDRESS_TYPE_VSOCK:
        address->u.vsock = bf_vsock_socket_address_copy(legacy->u.vsock->data);
        break;
    case BF_SOCKET_ADDRESS_TYPE_FD:
        address->u.fd = bf_fd_socket_address_copy(legacy->u.fd->data);
        break;
    default:
        g_assert_not_reached();
    }
    return address;
}

static bool
read_socket(BfChardevConfig *config, const BfChardevSocket *socket,
            GError **error)
{
    const SocketModes modes = {SOCKET_MODES(socket), .wait_default = true};

    if (!check_addresses(socket, error)) {
        return false;
    }
    config->address = make_address(socket);
    return read_modes(config, &modes, error);
}

static bool
read_options(BfChardevConfig *config, const BfChardevOptions *options,
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
    case BF_CHARDEV_BACKEND_KIND_RINGBUF:
        config->ring_bytes = options->u.ringbuf->size;
        return true;
    case BF_CHARDEV_BACKEND_KIND_MEMORY:
        config->ring_bytes = options->u.memory->size;
        return true;
    default:
        g_assert_not_reached();
    }
}

static bool
read_backend(BfChardevConfig *config, const BfChardevBackend *backend,
             GError **error)
{
    const BfChardevSocketBackend *socket = NULL;

    switch (backend->type) {
    case BF_CHARDEV_BACKEND_KIND_SOCKET:
        socket = backend->u.socket->data;
        config->address = unwrap_address(socket->addr);
        return read_modes(config, &(SocketModes){SOCKET_MODES(socket)}, error);
    case BF_CHARDEV_BACKEND_KIND_STDIO:
        config->signal = backend->u.stdio->data->signal;
        return true;
    case BF_CHARDEV_BACKEND_KIND_NULL:
        return true;
    case BF_CHARDEV_BACKEND_KIND_RINGBUF:
        config->ring_bytes = backend->u.ringbuf->data->size;
        return true;
    case BF_CHARDEV_BACKEND_KIND_MEMORY:
        config->ring_bytes = backend->u.memory->data->size;
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
    } else if (bf_id_check(id, error)) {
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
    return read_options(config, options, error) ? g_steal_pointer(&config)
                                                : NULL;
}

BfChardevConfig *
bf_chardev_config_new(const char *id, const BfChardevBackend *backend,
                      GError **error)
{
    g_autoptr(BfChardevConfig) config = g_new0(BfChardevConfig, 1);

    config->kind = backend->type;
    config->id = g_strdup(id);
    config->backend = bf_chardev_backend_copy(backend);
    return read_backend(config, backend, error) ? g_steal_pointer(&config)
                                                : NULL;
}

void
bf_chardev_config_free(BfChardevConfig *config)
{
    if (config != NULL) {
        bf_socket_address_free(config->address);
        g_free(config->id);
        g_free(config->tls_creds);
        g_free(config->tls_authz);
        bf_chardev_backend_free(config->backend);
        g_free(config);
    }
}

const char *
bf_chardev_help(void)
{
    return "Available chardev backend types:\n"
           "  memory\n"
           "  null\n"
           "  ringbuf\n"
           "  socket\n"
           "  stdio\n";
}
