/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Listeners: one coroutine per socket accepts and hands over.
 *
 * A coroutine that waits for room (paused, or out of descriptors) does not
 * accept, so that clients stay in the kernel's queue. All waits end when
 * @cancel fires; bf_listener_co_free() then waits for the coroutines.
 */
#include "io/listener.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/co-io.h"
#include "core/co-lock.h"
#include "core/loop.h"
#include "core/util.h"
#include "io/address.h"

/* How long to leave clients waiting when accept fails for lack of something. */
#define RETRY_NS BF_NS_PER_SEC

/* So many are accepted in a turn of the loop. */
#define TURN_CLIENTS 8

struct BfListener {
    GArray *fds;       /* owned: int */
    char *unlink_path; /* (nullable) owned: absolute */
    dev_t dev;         /* with @ino: the socket file that is ours */
    ino_t ino;
    BfListenerFn *accepted;
    void *opaque;
    bool is_paused;
    bool is_closing;
    BfCoQueue resumed; /* coroutines that wait for the end of a pause */
    BfCancel cancel;
    BfWaitGroup group; /* the coroutines */
};

/* What one coroutine is started with. */
typedef struct ListenerSocket {
    BfListener *listener;
    int fd;       /* borrowed from the listener */
    int watch_fd; /* readable when clients wait */
    int domain;
} ListenerSocket;

static bool
is_tcp(int domain)
{
    return domain == AF_INET || domain == AF_INET6;
}

/* Not left to be inherited from the listening socket: who has handed us that
 * one may have let connections queue up before. */
static void
prepare_tcp(int fd)
{
    const int on = 1;

    /* None of these fails on a socket; the connection works without. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

/* The listening socket itself does not work any more. */
static bool
is_final(int err)
{
    return err == EBADF || err == EINVAL || err == ENOTSOCK ||
           err == EOPNOTSUPP;
}

/* That nobody waits any more, and errors of a client that left again, are
 * passed over; others take a second. */
static bool
is_about_the_client(int err)
{
    switch (err) {
    case EAGAIN:
    case EINTR:
    case ECONNABORTED:
    case EPERM:
    case EPROTO:
    case ENOPROTOOPT:
    case ENETDOWN:
    case ENETUNREACH:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENONET:
    case ETIMEDOUT:
        return true;
    default:
        return false;
    }
}

/*
 * What a ring waits for it holds on to, for some time also after a process was
 * killed, and its successor would find the address in use. So it is another
 * descriptor that is waited for, which does not hold the socket: epoll's.
 * Without one the socket itself must do. Returns -1 then.
 */
static int
watch_fd_new(int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    bf_autofd watch_fd = epoll_create1(EPOLL_CLOEXEC);

    if (watch_fd < 0 || epoll_ctl(watch_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
        return -1;
    }
    return bf_steal_fd(&watch_fd);
}

/* Accepts one client, if there is one. Returns 0 or -errno. */
static int
accept_one(const ListenerSocket *sock)
{
    BfListener *listener = sock->listener;
    int fd = accept4(sock->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        return -errno;
    }
    if (is_tcp(sock->domain)) {
        prepare_tcp(fd);
    }
    listener->accepted(listener->opaque, fd, sock->domain);
    return 0;
}

/* Accepts those that wait, but leaves others on main their turns. Returns 0 or
 * -errno. */
static int
listener_co_accept(const ListenerSocket *sock)
{
    const BfListener *listener = sock->listener;
    int ret = bf_co_poll(sock->watch_fd >= 0 ? sock->watch_fd : sock->fd,
                         POLLIN, BF_FOREVER, &sock->listener->cancel);

    if (ret >= 0) {
        ret = 0;
    }
    for (unsigned i = 0; ret == 0 && i < TURN_CLIENTS &&
                         !listener->is_closing && !listener->is_paused;
         i++) {
        ret = accept_one(sock);
    }
    return ret;
}

static void
listener_co_run(void *arg)
{
    g_autofree ListenerSocket *sock = arg;
    BfListener *listener = sock->listener;

    sock->watch_fd = watch_fd_new(sock->fd);
    while (!listener->is_closing) {
        int ret;

        if (listener->is_paused) {
            bf_co_queue_co_wait(&listener->resumed);
            continue;
        }
        ret = listener_co_accept(sock);
        if (is_final(-ret)) {
            g_debug("a listening socket ended: %s", g_strerror(-ret));
            break;
        }
        if (ret < 0 && ret != -ECANCELED && !is_about_the_client(-ret)) {
            g_debug("cannot accept: %s", g_strerror(-ret));
            bf_co_sleep_cancel(RETRY_NS, &listener->cancel);
        }
    }
    if (sock->watch_fd >= 0) {
        close(sock->watch_fd);
    }
    bf_wait_group_done(&listener->group);
}

static void
remember_path(BfListener *listener, const char *path)
{
    struct stat st;

    if (path == NULL || stat(path, &st) < 0) {
        return;
    }
    /* The working directory may be another one when it is unlinked. */
    listener->unlink_path = g_canonicalize_filename(path, NULL);
    listener->dev = st.st_dev;
    listener->ino = st.st_ino;
}

/* On a thread: the file system may not answer. */
static void
unlink_own_path(void *arg)
{
    const BfListener *listener = arg;
    struct stat st;

    if (lstat(listener->unlink_path, &st) == 0 && st.st_dev == listener->dev &&
        st.st_ino == listener->ino) {
        (void)unlink(listener->unlink_path);
    }
}

BfListener *
bf_listener_new(GArray *fds, const char *unlink_path, BfListenerFn *accepted,
                void *opaque)
{
    BfListener *listener = g_new0(BfListener, 1);

    bf_assert_main();
    listener->fds = fds;
    listener->accepted = accepted;
    listener->opaque = opaque;
    remember_path(listener, unlink_path);
    bf_wait_group_add(&listener->group, fds->len);
    for (unsigned i = 0; i < fds->len; i++) {
        ListenerSocket *sock = g_new0(ListenerSocket, 1);

        sock->listener = listener;
        sock->fd = g_array_index(fds, int, i);
        sock->domain = bf_socket_domain(sock->fd);
        bf_co_spawn_later(listener_co_run, sock);
    }
    return listener;
}

bool
bf_listener_is_peer(const BfListener *listener, int fd)
{
    for (unsigned i = 0; i < listener->fds->len; i++) {
        if (bf_socket_leads_to(fd, g_array_index(listener->fds, int, i))) {
            return true;
        }
    }
    return false;
}

void
bf_listener_set_paused(BfListener *listener, bool paused)
{
    bf_assert_main();
    listener->is_paused = paused;
    if (!paused) {
        bf_co_queue_wake_all(&listener->resumed);
    }
}

void
bf_listener_co_free(BfListener *listener)
{
    if (listener == NULL) {
        return;
    }
    bf_assert_main();
    listener->is_closing = true;
    bf_cancel_fire(&listener->cancel);
    bf_co_queue_wake_all(&listener->resumed);
    bf_wait_group_co_wait(&listener->group);

    if (listener->unlink_path != NULL) {
        BfPoolLane *lane = bf_pool_lane_new("unix-socket", 1);

        bf_co_offload(lane, unlink_own_path, listener);
        bf_pool_lane_free(lane);
    }
    for (unsigned i = 0; i < listener->fds->len; i++) {
        close(g_array_index(listener->fds, int, i));
    }
    g_array_unref(listener->fds);
    g_free(listener->unlink_path);
    g_free(listener);
}
