/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Addresses: listening and connecting sockets, and addresses as text. Names
 * are looked up on the thread pool, and so are the paths of UNIX sockets, whose
 * file system may not answer; everything else here is quick enough for a loop.
 * Turning a schema address into socket addresses is in address-resolve.c.
 */
#include "io/address.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "core/error.h"
#include "core/loop.h"
#include "core/util.h"
#include "server/io/address-private.h"

/* A range with port 0 is tried again when a chosen port is in use by the other
 * IP version. */
#define ANY_PORT_ATTEMPTS 16
/* How long to wait before connecting to a UNIX socket with a full queue. */
#define BUSY_RETRY_NS (10 * BF_NS_PER_MS)

static void
close_all(GArray *fds)
{
    for (unsigned i = 0; i < fds->len; i++) {
        close(g_array_index(fds, int, i));
    }
    g_array_set_size(fds, 0);
}

static int
new_socket(const BfSockaddr *where, GError **error)
{
    int fd =
        socket(where->addr.ss_family,
               SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, where->protocol);

    if (fd < 0) {
        bf_set_errno(error, errno, "Failed to create socket");
    }
    return fd;
}

/* Binds. Returns 0 or -errno, and the socket. */
static int
bind_to(const BfSockaddr *where, int *ret_fd)
{
    const int on = 1;
    bf_autofd fd =
        socket(where->addr.ss_family,
               SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, where->protocol);

    if (fd < 0) {
        return -errno;
    }
    if (where->addr.ss_family == AF_INET6) {
        /* So that IPv4 has a socket of its own on every system. */
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
    }
    if (where->addr.ss_family != AF_UNIX) {
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    }
    if (bind(fd, (const struct sockaddr *)&where->addr, where->len) < 0) {
        return -errno;
    }
    *ret_fd = bf_steal_fd(&fd);
    return 0;
}

/* Binds and listens. Returns 0 or -errno, and the socket. */
static int
listen_on(const BfSockaddr *where, int *ret_fd)
{
    bf_autofd fd = -1;
    int ret = bind_to(where, &fd);

    if (ret == 0 && listen(fd, SOMAXCONN) < 0) {
        ret = -errno;
    }
    if (ret == 0) {
        *ret_fd = bf_steal_fd(&fd);
    }
    return ret;
}

static uint16_t
bound_port(int fd)
{
    BfSockaddr local = {.len = sizeof(local.addr)};

    if (getsockname(fd, (struct sockaddr *)&local.addr, &local.len) < 0) {
        return 0;
    }
    return bf_sockaddr_get_port(&local);
}

/*
 * Listens on all of @list at one port; 0 takes the port that the first one is
 * given. Returns 0 if at least one socket could be made, then *ret_in_use says
 * whether another failed because its port is taken; otherwise the first error.
 */
static int
listen_at_port(GArray *list, uint16_t port, GArray *fds, bool *ret_in_use)
{
    int first_error = 0;

    *ret_in_use = false;
    for (unsigned i = 0; i < list->len; i++) {
        BfSockaddr where = g_array_index(list, BfSockaddr, i);
        int fd = -1;
        int ret = 0;

        bf_sockaddr_set_port(&where, port);
        ret = listen_on(&where, &fd);
        if (ret == 0) {
            g_array_append_val(fds, fd);
            port = port != 0 ? port : bound_port(fd);
            continue;
        }
        *ret_in_use |= ret == -EADDRINUSE;
        first_error = first_error != 0 ? first_error : ret;
    }
    return fds->len > 0 ? 0 : first_error;
}

static void
set_listen_error(GError **error, const BfInetSocketAddress *inet, int err)
{
    if (err == EADDRINUSE) {
        bf_set_errno(error, err, "Failed to find an available port");
    } else {
        bf_set_errno(error, err, "Failed to bind socket to '%s:%s'", inet->host,
                     inet->port);
    }
}

static bool
co_listen_inet(const BfInetSocketAddress *inet, GArray *fds, GError **error)
{
    g_autoptr(GArray) list = bf_address_co_resolve_inet(inet, true, error);
    uint16_t first = 0;
    uint16_t last = 0;

    if (list == NULL) {
        return false;
    }
    first = bf_sockaddr_get_port(&g_array_index(list, BfSockaddr, 0));
    last = inet->has_to ? inet->to : first;
    if (last < first) {
        bf_set_error(error, "'to' is %u, below the port %u", last, first);
        return false;
    }
    for (unsigned i = 0; i < ANY_PORT_ATTEMPTS; i++) {
        for (unsigned port = first; port <= last; port++) {
            bool in_use = false;
            int ret = listen_at_port(list, port, fds, &in_use);
            bool is_last_try =
                port == last && (first != 0 || i + 1 == ANY_PORT_ATTEMPTS);

            if (ret == 0 && (!in_use || is_last_try)) {
                return true;
            }
            close_all(fds);
            if (ret != 0 && ret != -EADDRINUSE) {
                set_listen_error(error, inet, -ret);
                return false;
            }
        }
        if (first != 0) {
            break;
        }
    }
    set_listen_error(error, inet, EADDRINUSE);
    return false;
}

/*
 * Whether the socket file at @path was left behind by a server that has ended.
 * Nothing else is ever removed.
 */
static bool
path_is_dead(const BfSockaddr *where, const char *path, GError **error)
{
    struct stat st;
    bf_autofd fd = -1;
    int ret = 0;

    if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode)) {
        bf_set_error(error,
                     "Failed to bind socket to %s: a file that is no socket "
                     "has this name",
                     path);
        return false;
    }
    fd = new_socket(where, error);
    if (fd < 0) {
        return false;
    }
    ret = connect(fd, (const struct sockaddr *)&where->addr, where->len);
    if (ret < 0 && (errno == ECONNREFUSED || errno == ENOENT)) {
        return true;
    }
    if (ret == 0 || errno == EAGAIN || errno == EINPROGRESS) {
        bf_set_error(error,
                     "Failed to bind socket to %s: another server is "
                     "listening there; stop it or choose another path",
                     path);
    } else {
        bf_set_errno(error, errno,
                     "Failed to bind socket to %s: Address already in use, "
                     "and whether a server is listening there is unknown",
                     path);
    }
    return false;
}

/* Something to be done on a thread of its own: no more than a path is known of
 * the file system, so it must not share one with anybody. */
static void
co_run_aside(BfFn *fn, void *arg)
{
    BfPoolLane *lane = bf_pool_lane_new("unix-socket", 1);

    bf_co_offload(lane, fn, arg);
    bf_pool_lane_free(lane);
}

/* Making a UNIX socket that listens. */
typedef struct UnixListen {
    const BfUnixSocketAddress *address;
    int fd; /* -1 on failure */
    GError *error;
} UnixListen;

/* Nobody can connect before it listens, so nobody slips in meanwhile. */
static bool
set_access(const char *path, const BfUnixAccess *access, GError **error)
{
    if ((access->owner != (uid_t)-1 || access->group != (gid_t)-1) &&
        lchown(path, access->owner, access->group) < 0) {
        bf_set_errno(error, errno, "cannot change the owner of '%s'", path);
        return false;
    }
    if (access->has_mode && chmod(path, access->mode) < 0) {
        bf_set_errno(error, errno, "cannot change the mode of '%s'", path);
        return false;
    }
    return true;
}

static bool
try_listen_unix(const BfUnixSocketAddress *address, int *ret_fd, GError **error)
{
    BfUnixAccess access;
    BfSockaddr where;
    bf_autofd fd = -1;
    int ret = 0;

    if (!bf_sockaddr_from_unix(address, &where, error) ||
        !bf_unix_access_read(address, &access, error)) {
        return false;
    }
    ret = bind_to(&where, &fd);
    if (ret == -EADDRINUSE && !bf_address_is_abstract(address)) {
        if (!path_is_dead(&where, address->path, error)) {
            return false;
        }
        (void)unlink(address->path);
        ret = bind_to(&where, &fd);
    }
    if (ret < 0) {
        bf_set_errno(error, -ret, "Failed to bind socket to %s", address->path);
        return false;
    }
    if (bf_unix_access_is_given(address) &&
        !set_access(address->path, &access, error)) {
        (void)unlink(address->path);
        return false;
    }
    if (listen(fd, SOMAXCONN) < 0) {
        bf_set_errno(error, errno, "Failed to listen on %s", address->path);
        return false;
    }
    *ret_fd = bf_steal_fd(&fd);
    return true;
}

static void
listen_unix(void *arg)
{
    UnixListen *job = arg;

    job->fd = -1;
    try_listen_unix(job->address, &job->fd, &job->error);
}

static bool
co_listen_unix(const BfUnixSocketAddress *address, GArray *fds, GError **error)
{
    UnixListen job = {.address = address};

    co_run_aside(listen_unix, &job);
    if (job.fd < 0) {
        g_propagate_error(error, job.error);
        return false;
    }
    g_array_append_val(fds, job.fd);
    return true;
}

static bool
listen_vsock(const BfVsockSocketAddress *address, GArray *fds, GError **error)
{
    BfSockaddr where;
    int fd = -1;
    int ret = 0;

    if (!bf_sockaddr_from_vsock(address, &where, error)) {
        return false;
    }
    ret = listen_on(&where, &fd);
    if (ret < 0) {
        bf_set_errno(error, -ret, "Failed to bind socket to vsock %s:%s",
                     address->cid, address->port);
        return false;
    }
    g_array_append_val(fds, fd);
    return true;
}

static int
socket_option(int fd, int option)
{
    int value = -1;
    socklen_t len = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, option, &value, &len) == 0 ? value : -1;
}

static void
set_tcp_options(int fd, bool keep_alive)
{
    const int on = 1;
    int domain = socket_option(fd, SO_DOMAIN);

    if (domain == AF_INET || domain == AF_INET6) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        if (keep_alive) {
            (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
        }
    }
}

/* Takes a descriptor over from somebody else; it may be anything. */
static int
adopt_socket(const char *name, BfTakeFd *take_fd, void *opaque, bool listening,
             GError **error)
{
    bf_autofd fd = -1;
    struct stat st;

    if (take_fd == NULL) {
        bf_set_error(error, "addresses of type 'fd' cannot be used here");
        return -1;
    }
    fd = take_fd(opaque, name, error);
    if (fd < 0) {
        return -1;
    }
    if (fstat(fd, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        bf_set_error(error, "File descriptor '%s' is not a socket", name);
        return -1;
    }
    if (socket_option(fd, SO_TYPE) != SOCK_STREAM) {
        bf_set_error(error, "File descriptor '%s' is not a stream socket",
                     name);
        return -1;
    }
    if ((socket_option(fd, SO_ACCEPTCONN) == 1) != listening) {
        bf_set_error(error,
                     listening
                         ? "File descriptor '%s' is not a listening socket"
                         : "File descriptor '%s' is a listening socket",
                     name);
        return -1;
    }
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
        bf_set_errno(error, errno, "File descriptor '%s' cannot be used", name);
        return -1;
    }
    if (!listening) {
        set_tcp_options(fd, false);
    }
    return bf_steal_fd(&fd);
}

/* Before anybody can be accepted. */
static bool
set_all_tcp_options(GArray *fds, const BfInetSocketAddress *inet,
                    GError **error)
{
    for (unsigned i = 0; i < fds->len; i++) {
        if (!bf_tcp_options_set(g_array_index(fds, int, i), inet, error)) {
            close_all(fds);
            return false;
        }
    }
    return true;
}

bool
bf_address_co_listen(const BfSocketAddress *address, BfTakeFd *take_fd,
                     void *opaque, GArray **ret_fds, GError **error)
{
    g_autoptr(GArray) fds = g_array_new(false, false, sizeof(int));
    bool ok = false;
    int fd = -1;

    switch (address->type) {
    case BF_SOCKET_ADDRESS_TYPE_INET:
        ok = co_listen_inet(address->u.inet, fds, error) &&
             set_all_tcp_options(fds, address->u.inet, error);
        break;
    case BF_SOCKET_ADDRESS_TYPE_UNIX:
        ok = co_listen_unix(address->u.unix_, fds, error);
        break;
    case BF_SOCKET_ADDRESS_TYPE_VSOCK:
        ok = listen_vsock(address->u.vsock, fds, error);
        break;
    case BF_SOCKET_ADDRESS_TYPE_FD:
        fd = adopt_socket(address->u.fd->str, take_fd, opaque, true, error);
        ok = fd >= 0;
        if (ok) {
            g_array_append_val(fds, fd);
        }
        break;
    default:
        g_assert_not_reached();
    }
    if (ok) {
        *ret_fds = g_steal_pointer(&fds);
    }
    return ok;
}

/* Connecting to the path of a UNIX socket. */
typedef struct UnixConnect {
    const BfSockaddr *where;
    int fd;
    int ret;
} UnixConnect;

static void
connect_unix(void *arg)
{
    UnixConnect *job = arg;

    job->ret = connect(job->fd, (const struct sockaddr *)&job->where->addr,
                       job->where->len) == 0
                   ? 0
                   : -errno;
}

/* One attempt of @fd, which does not block. Returns 0 or -errno. */
static int
co_try_connect(int fd, const BfSockaddr *where, uint64_t left_ns,
               BfCancel *cancel)
{
    UnixConnect job = {.where = where, .fd = fd};

    if (where->addr.ss_family != AF_UNIX) {
        return bf_co_connect(fd, (const struct sockaddr *)&where->addr,
                             where->len, left_ns, cancel);
    }
    if (cancel != NULL && cancel->fired) {
        return -ECANCELED;
    }
    /* It is connected, or not, at once, but for the path. */
    co_run_aside(connect_unix, &job);
    return job.ret;
}

/* Connects one socket. Returns 0 or -errno. */
static int
co_connect_one(const BfSockaddr *where, uint64_t deadline_ns, BfCancel *cancel,
               int *ret_fd)
{
    bf_autofd fd = new_socket(where, NULL);

    if (fd < 0) {
        return -errno;
    }
    set_tcp_options(fd, where->keep_alive);
    for (;;) {
        uint64_t now_ns = bf_loop_now_ns();
        uint64_t left_ns = deadline_ns == BF_FOREVER ? BF_FOREVER
                           : deadline_ns > now_ns    ? deadline_ns - now_ns
                                                     : 0;
        int ret = -ETIMEDOUT;

        if (left_ns > 0) {
            ret = co_try_connect(fd, where, left_ns, cancel);
        }
        if (ret == -EAGAIN) {
            /* A UNIX server whose queue is full; there is nothing to poll. */
            ret = bf_co_sleep_cancel(MIN(BUSY_RETRY_NS, left_ns), cancel);
            if (ret == 0) {
                continue;
            }
        }
        if (ret == 0) {
            *ret_fd = bf_steal_fd(&fd);
        }
        return ret;
    }
}

/* The socket addresses to try, in order. */
static GArray *
co_resolve(const BfSocketAddress *address, GError **error)
{
    g_autoptr(GArray) list = g_array_new(false, true, sizeof(BfSockaddr));
    BfSockaddr one;
    bool ok = false;

    switch (address->type) {
    case BF_SOCKET_ADDRESS_TYPE_INET:
        return bf_address_co_resolve_inet(address->u.inet, false, error);
    case BF_SOCKET_ADDRESS_TYPE_UNIX:
        if (bf_unix_access_is_given(address->u.unix_)) {
            bf_set_error(error, "mode, owner and group of a UNIX socket are "
                                "for those who listen");
            return NULL;
        }
        ok = bf_sockaddr_from_unix(address->u.unix_, &one, error);
        break;
    case BF_SOCKET_ADDRESS_TYPE_VSOCK:
        ok = bf_sockaddr_from_vsock(address->u.vsock, &one, error);
        break;
    default:
        g_assert_not_reached();
    }
    if (!ok) {
        return NULL;
    }
    g_array_append_val(list, one);
    return g_steal_pointer(&list);
}

/* An address that does not answer must leave time for the others. */
static uint64_t
share_of_time(uint64_t deadline_ns, unsigned n_left)
{
    uint64_t now_ns = bf_loop_now_ns();

    if (deadline_ns == BF_FOREVER || deadline_ns <= now_ns) {
        return deadline_ns;
    }
    return now_ns + (deadline_ns - now_ns) / n_left;
}

/* Takes over a socket that has been connected. */
static int
finish_connect(const BfSocketAddress *address, int connected, GError **error)
{
    bf_autofd fd = connected;

    if (address->type == BF_SOCKET_ADDRESS_TYPE_INET &&
        !bf_tcp_options_set(fd, address->u.inet, error)) {
        return -1;
    }
    return bf_steal_fd(&fd);
}

int
bf_address_co_connect(const BfSocketAddress *address, BfTakeFd *take_fd,
                      void *opaque, uint64_t timeout_ns, BfCancel *cancel,
                      GError **error)
{
    g_autoptr(GArray) list = NULL;
    g_autofree char *text = NULL;
    uint64_t deadline_ns = BF_FOREVER;
    int ret = 0;

    if (address->type == BF_SOCKET_ADDRESS_TYPE_FD) {
        return adopt_socket(address->u.fd->str, take_fd, opaque, false, error);
    }
    if (timeout_ns != BF_FOREVER &&
        !bf_add_u64(bf_loop_now_ns(), timeout_ns, &deadline_ns)) {
        deadline_ns = BF_FOREVER;
    }
    list = co_resolve(address, error);
    if (list == NULL) {
        return -1;
    }
    for (unsigned i = 0; i < list->len && ret != -ECANCELED; i++) {
        int fd = -1;

        ret = co_connect_one(&g_array_index(list, BfSockaddr, i),
                             share_of_time(deadline_ns, list->len - i), cancel,
                             &fd);
        if (ret == 0) {
            return finish_connect(address, fd, error);
        }
    }
    text = address->type == BF_SOCKET_ADDRESS_TYPE_UNIX
               ? g_strdup(address->u.unix_->path)
               : bf_address_to_string(address);
    bf_set_errno(error, -ret, "Failed to connect to '%s'", text);
    return -1;
}

static bool
is_any_host(const struct sockaddr_storage *addr)
{
    if (addr->ss_family == AF_INET6) {
        return IN6_IS_ADDR_UNSPECIFIED(
            &((const struct sockaddr_in6 *)addr)->sin6_addr);
    }
    return addr->ss_family == AF_INET &&
           ((const struct sockaddr_in *)addr)->sin_addr.s_addr == INADDR_ANY;
}

static bool
is_same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
    if (a->ss_family != b->ss_family) {
        return false;
    }
    if (a->ss_family == AF_INET6) {
        return IN6_ARE_ADDR_EQUAL(&((const struct sockaddr_in6 *)a)->sin6_addr,
                                  &((const struct sockaddr_in6 *)b)->sin6_addr);
    }
    return ((const struct sockaddr_in *)a)->sin_addr.s_addr ==
           ((const struct sockaddr_in *)b)->sin_addr.s_addr;
}

static bool
is_loopback(const struct sockaddr_storage *addr)
{
    if (addr->ss_family == AF_INET6) {
        return IN6_IS_ADDR_LOOPBACK(
            &((const struct sockaddr_in6 *)addr)->sin6_addr);
    }
    return ntohl(((const struct sockaddr_in *)addr)->sin_addr.s_addr) >> 24 ==
           IN_LOOPBACKNET;
}

/* A host that speaks to itself uses one address, or loopback. */
static bool
is_local_host(const struct sockaddr_storage *peer,
              const struct sockaddr_storage *local)
{
    return is_loopback(peer) || is_same_host(peer, local);
}

/* Paths may be relative, so the process counts, too. */
static bool
unix_leads_to(int fd, const BfSockaddr *peer, const BfSockaddr *listener)
{
    struct ucred cred = {.pid = 0};
    socklen_t len = sizeof(cred);

    return peer->len == listener->len &&
           memcmp(&peer->addr, &listener->addr, peer->len) == 0 &&
           getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 &&
           cred.pid == getpid();
}

bool
bf_socket_leads_to(int fd, int listening)
{
    BfSockaddr peer = {.len = sizeof(peer.addr)};
    BfSockaddr local = {.len = sizeof(local.addr)};
    BfSockaddr listener = {.len = sizeof(listener.addr)};

    if (getpeername(fd, (struct sockaddr *)&peer.addr, &peer.len) < 0 ||
        getsockname(fd, (struct sockaddr *)&local.addr, &local.len) < 0 ||
        getsockname(listening, (struct sockaddr *)&listener.addr,
                    &listener.len) < 0 ||
        peer.addr.ss_family != listener.addr.ss_family) {
        return false;
    }
    if (peer.addr.ss_family == AF_UNIX) {
        return unix_leads_to(fd, &peer, &listener);
    }
    if (peer.addr.ss_family != AF_INET && peer.addr.ss_family != AF_INET6) {
        return false;
    }
    if (bf_sockaddr_get_port(&peer) != bf_sockaddr_get_port(&listener)) {
        return false;
    }
    if (is_any_host(&listener.addr)) {
        return is_local_host(&peer.addr, &local.addr);
    }
    return is_same_host(&peer.addr, &listener.addr);
}

bool
bf_socket_is_loopback(int fd)
{
    BfSockaddr peer = {.len = sizeof(peer.addr)};
    BfSockaddr local = {.len = sizeof(local.addr)};

    if (getpeername(fd, (struct sockaddr *)&peer.addr, &peer.len) < 0 ||
        getsockname(fd, (struct sockaddr *)&local.addr, &local.len) < 0 ||
        (peer.addr.ss_family != AF_INET && peer.addr.ss_family != AF_INET6)) {
        return false;
    }
    return is_local_host(&peer.addr, &local.addr);
}
