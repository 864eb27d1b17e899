/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Character devices: where the connections of monitors come from.
 *
 * A device has either a listener, or a coroutine that connects and, if asked
 * to, connects again when the connection has ended. Connections that come
 * before bf_chardev_start() wait in @pending.
 */
#include "qmp/chardev.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>

#include "core/co-lock.h"
#include "core/error.h"
#include "core/loop.h"
#include "core/util.h"
#include "io/address.h"
#include "io/channel-socket.h"
#include "io/listener.h"
#include "qmp/chardev-private.h"

/* How long one attempt to connect may take. */
#define CONNECT_TIMEOUT_NS (30 * BF_NS_PER_SEC)

struct BfChardev {
    BfChardevConfig *config; /* owned */
    char *where;             /* owned: the address with the port chosen */
    BfListener *listener;    /* (nullable) owned */
    GQueue pending;          /* of Connection, owned */
    BfChardevFn *connected;  /* (nullable): set by start */
    void *opaque;
    BfRingbuf *ring;   /* (nullable) owned */
    BfChardevTls *tls; /* (nullable) owned */
    BfCancel closing;
    BfCoQueue changed; /* a client came, a connection ended, closing */
    BfWaitGroup group; /* the coroutine that connects */
    bool is_closing;
    bool needs_connection; /* connecting devices: there is none */
};

/* A connection that nobody has taken yet. */
typedef struct Connection {
    BfChannel *channel;
    char *peer;
} Connection;

static void
connection_free(Connection *connection)
{
    bf_channel_free(connection->channel);
    g_free(connection->peer);
    g_free(connection);
}

/* A BfChardevFn. */
static void
deliver(void *opaque, BfChannel *channel, const char *peer)
{
    BfChardev *chardev = opaque;
    Connection *connection = NULL;

    if (chardev->connected != NULL) {
        chardev->connected(chardev->opaque, channel, peer);
        return;
    }
    connection = g_new0(Connection, 1);
    connection->channel = channel;
    connection->peer = g_strdup(peer);
    g_queue_push_tail(&chardev->pending, connection);
}

/* Clients that cannot be served yet wait in the queue of the kernel. A BfFn. */
static void
accept_if_there_is_room(void *opaque)
{
    BfChardev *chardev = opaque;

    if (chardev->listener != NULL) {
        bf_listener_set_paused(
            chardev->listener,
            chardev->connected == NULL ||
                (chardev->tls != NULL && bf_chardev_tls_is_full(chardev->tls)));
    }
}

static void
accepted(void *opaque, int fd, int domain)
{
    BfChardev *chardev = opaque;
    g_autofree char *peer = bf_socket_peer_to_string(fd);
    BfChannel *channel = bf_channel_socket_new_known(fd, domain);

    if (chardev->tls != NULL) {
        bf_chardev_tls_start(chardev->tls, channel, peer);
        accept_if_there_is_room(chardev);
    } else {
        deliver(chardev, channel, peer);
    }
}

/* A descriptor that can be read while a client waits at any of @fds. */
static int
watch_listeners(const GArray *fds, GError **error)
{
    struct epoll_event event = {.events = EPOLLIN};
    bf_autofd watch_fd = epoll_create1(EPOLL_CLOEXEC);

    for (unsigned i = 0; watch_fd >= 0 && i < fds->len; i++) {
        if (epoll_ctl(watch_fd, EPOLL_CTL_ADD, g_array_index(fds, int, i),
                      &event) < 0) {
            bf_set_errno(error, errno, "cannot wait for a client");
            return -1;
        }
    }
    if (watch_fd < 0) {
        bf_set_errno(error, errno, "cannot wait for a client");
    }
    return bf_steal_fd(&watch_fd);
}

/* Waits for the first client; ended by signals and by the end of the start. */
static bool
co_wait_for_client(BfChardev *chardev, const BfChardevContext *context,
                   int watch_fd, GError **error)
{
    g_autofree char *text = bf_chardev_describe(chardev);
    int ret = 0;

    g_message("waiting for a client on %s", text);
    ret = bf_co_poll(watch_fd, POLLIN, BF_FOREVER, context->cancel);
    if (ret < 0) {
        bf_set_errno(error, -ret, "chardev '%s': waiting for a client",
                     chardev->config->id);
        return false;
    }
    return true;
}

static bool
co_open_server(BfChardev *chardev, const BfChardevContext *context,
               GError **error)
{
    const BfChardevConfig *config = chardev->config;
    const BfSocketAddress *address = config->address;
    const char *path = NULL;
    GArray *fds = NULL;
    bf_autofd watch_fd = -1;

    if (!bf_address_co_listen(address, context->take_fd,
                              context->take_fd_opaque, &fds, error)) {
        return false;
    }
    if (config->wait) {
        watch_fd = watch_listeners(fds, error);
    }
    chardev->where = bf_socket_local_to_string(g_array_index(fds, int, 0));
    if (address->type == BF_SOCKET_ADDRESS_TYPE_UNIX &&
        !address->u.unix_->abstract) {
        path = address->u.unix_->path;
    }
    chardev->listener = bf_listener_new(fds, path, accepted, chardev);
    accept_if_there_is_room(chardev);
    return !config->wait ||
           (watch_fd >= 0 &&
            co_wait_for_client(chardev, context, watch_fd, error));
}

/* The name that a server has to prove. */
static const char *
tls_hostname(const BfChardev *chardev)
{
    const BfSocketAddress *address = chardev->config->address;

    return address->type == BF_SOCKET_ADDRESS_TYPE_INET ? address->u.inet->host
                                                        : NULL;
}

static bool
co_connect(BfChardev *chardev, const BfChardevContext *context, GError **error)
{
    int fd = bf_address_co_connect(chardev->config->address, context->take_fd,
                                   context->take_fd_opaque, CONNECT_TIMEOUT_NS,
                                   context->cancel, error);
    g_autofree char *peer = NULL;
    BfChannel *channel = NULL;

    if (fd < 0) {
        return false;
    }
    peer = bf_socket_peer_to_string(fd);
    channel = bf_channel_socket_new(fd);
    if (chardev->tls != NULL) {
        channel = bf_chardev_tls_co_connect(chardev->tls, channel,
                                            tls_hostname(chardev), error);
    }
    if (channel == NULL) {
        return false;
    }
    chardev->needs_connection = false;
    deliver(chardev, channel, peer);
    return true;
}

/* Connects whenever there is no connection. */
static void
reconnect_co_run(void *arg)
{
    BfChardev *chardev = arg;
    const BfChardevContext context = {.cancel = &chardev->closing};
    const uint64_t pause_ns = chardev->config->reconnect_ms * BF_NS_PER_MS;

    while (!chardev->is_closing) {
        g_autoptr(GError) error = NULL;

        if (!chardev->needs_connection) {
            bf_co_queue_co_wait(&chardev->changed);
            continue;
        }
        if (!co_connect(chardev, &context, &error)) {
            g_info("chardev '%s': %s", chardev->config->id, error->message);
            bf_co_sleep_cancel(pause_ns, &chardev->closing);
        }
    }
    bf_wait_group_done(&chardev->group);
}

static bool
co_open_client(BfChardev *chardev, const BfChardevContext *context,
               GError **error)
{
    chardev->where = bf_address_to_string(chardev->config->address);
    if (chardev->config->reconnect_ms == 0) {
        return co_connect(chardev, context, error);
    }
    chardev->needs_connection = true;
    bf_wait_group_add(&chardev->group, 1);
    bf_co_spawn_later(reconnect_co_run, chardev);
    return true;
}

static bool
co_open_socket(BfChardev *chardev, const BfChardevContext *context,
               GError **error)
{
    const BfChardevConfig *config = chardev->config;

    if (config->tls_creds != NULL) {
        chardev->tls =
            bf_chardev_tls_new(context->objects, config, deliver,
                               accept_if_there_is_room, chardev, error);
        if (chardev->tls == NULL) {
            return false;
        }
    }
    return config->server ? co_open_server(chardev, context, error)
                          : co_open_client(chardev, context, error);
}

static bool
open_stdio(BfChardev *chardev, GError **error)
{
    BfChannel *channel = bf_channel_stdio_new(chardev->config->signal, error);

    chardev->where = g_strdup("stdio");
    if (channel == NULL) {
        return false;
    }
    deliver(chardev, channel, "stdio");
    return true;
}

static bool
open_ring(BfChardev *chardev, GError **error)
{
    chardev->where =
        g_strdup(bf_chardev_backend_kind_str(chardev->config->kind));
    chardev->ring = bf_ringbuf_new(chardev->config->ring_bytes, error);
    return chardev->ring != NULL;
}

static bool
co_open_backend(BfChardev *chardev, const BfChardevContext *context,
                GError **error)
{
    switch (chardev->config->kind) {
    case BF_CHARDEV_BACKEND_KIND_SOCKET:
        return co_open_socket(chardev, context, error);
    case BF_CHARDEV_BACKEND_KIND_STDIO:
        return open_stdio(chardev, error);
    case BF_CHARDEV_BACKEND_KIND_NULL:
        chardev->where = g_strdup("null");
        return true;
    case BF_CHARDEV_BACKEND_KIND_RINGBUF:
    case BF_CHARDEV_BACKEND_KIND_MEMORY:
        return open_ring(chardev, error);
    default:
        g_assert_not_reached();
    }
}

BfChardev *
bf_chardev_co_open(BfChardevConfig *config, const BfChardevContext *context,
                   GError **error)
{
    BfChardev *chardev = g_new0(BfChardev, 1);

    bf_assert_main();
    chardev->config = config;
    g_queue_init(&chardev->pending);
    if (!co_open_backend(chardev, context, error)) {
        bf_chardev_co_free(chardev);
        return NULL;
    }
    return chardev;
}

void
bf_chardev_co_free(BfChardev *chardev)
{
    if (chardev == NULL) {
        return;
    }
    chardev->is_closing = true;
    bf_cancel_fire(&chardev->closing);
    bf_co_queue_wake_all(&chardev->changed);
    if (chardev->tls != NULL) {
        bf_chardev_tls_close(chardev->tls);
    }
    bf_wait_group_co_wait(&chardev->group);
    bf_listener_co_free(g_steal_pointer(&chardev->listener));
    bf_chardev_tls_co_free(chardev->tls);
    g_queue_clear_full(&chardev->pending, (GDestroyNotify)connection_free);
    bf_chardev_config_free(chardev->config);
    bf_ringbuf_free(chardev->ring);
    g_free(chardev->where);
    g_free(chardev);
}

void
bf_chardev_start(BfChardev *chardev, BfChardevFn *connected, void *opaque)
{
    Connection *connection = NULL;

    bf_assert_main();
    g_assert(chardev->connected == NULL);
    chardev->connected = connected;
    chardev->opaque = opaque;
    while ((connection = g_queue_pop_head(&chardev->pending)) != NULL) {
        connected(opaque, g_steal_pointer(&connection->channel),
                  connection->peer);
        connection_free(connection);
    }
    accept_if_there_is_room(chardev);
}

void
bf_chardev_disconnected(BfChardev *chardev)
{
    if (chardev->config->reconnect_ms > 0) {
        chardev->needs_connection = true;
        bf_co_queue_wake_all(&chardev->changed);
    }
}

void
bf_chardev_release_objects(BfChardev *chardev)
{
    if (chardev->tls != NULL) {
        bf_chardev_tls_release(chardev->tls);
    }
}

const BfChardevConfig *
bf_chardev_get_config(const BfChardev *chardev)
{
    return chardev->config;
}

BfRingbuf *
bf_chardev_get_ringbuf(BfChardev *chardev)
{
    return chardev->ring;
}

char *
bf_chardev_describe(const BfChardev *chardev)
{
    return g_strdup_printf("%s%s", chardev->where,
                           chardev->config->server ? ",server=on" : "");
}
