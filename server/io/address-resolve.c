/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From schema addresses to addresses of the system, and both to text for
 * messages and logs.
 */
#include "server/io/address-private.h"

#include <errno.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>

#include <linux/vm_sockets.h>

#include "core/error.h"
#include "core/loop.h"
#include "core/util.h"
#include "io/address.h"

/* Largest entry of a user or group that is read. */
#define ID_ENTRY_MAX_BYTES ((size_t)1 << 20)

uint16_t
bf_sockaddr_get_port(const BfSockaddr *where)
{
    switch (where->addr.ss_family) {
    case AF_INET:
        return ntohs(((const struct sockaddr_in *)&where->addr)->sin_port);
    case AF_INET6:
        return ntohs(((const struct sockaddr_in6 *)&where->addr)->sin6_port);
    default:
        return 0;
    }
}

void
bf_sockaddr_set_port(BfSockaddr *where, uint16_t port)
{
    if (where->addr.ss_family == AF_INET) {
        ((struct sockaddr_in *)&where->addr)->sin_port = htons(port);
    } else if (where->addr.ss_family == AF_INET6) {
        ((struct sockaddr_in6 *)&where->addr)->sin6_port = htons(port);
    }
}

bool
bf_address_is_abstract(const BfUnixSocketAddress *address)
{
    return address->abstract;
}

bool
bf_sockaddr_from_unix(const BfUnixSocketAddress *address, BfSockaddr *ret_where,
                      GError **error)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    size_t skip = address->abstract ? 1 : 0; /* a zero byte in front */
    size_t len = strlen(address->path);
    size_t room = sizeof(un.sun_path) - 1; /* for the zero before or after */

    if (len == 0) {
        bf_set_error(error, "UNIX socket path is empty");
        return false;
    }
    if (len > room) {
        bf_set_error(error,
                     "UNIX socket path '%s' is too long: it has %zu bytes, at "
                     "most %zu are possible",
                     address->path, len, room);
        return false;
    }
    memcpy(un.sun_path + skip, address->path, len);
    memset(ret_where, 0, sizeof(*ret_where));
    memcpy(&ret_where->addr, &un, sizeof(un));
    ret_where->len = sizeof(un);
    if (address->abstract && address->tight) {
        ret_where->len = offsetof(struct sockaddr_un, sun_path) + skip + len;
    }
    return true;
}

static bool
parse_u32(const char *what, const char *text, unsigned *ret_value,
          GError **error)
{
    guint64 value = 0;

    if (!g_ascii_string_to_unsigned(text, 10, 0, UINT32_MAX, &value, NULL)) {
        bf_set_error(error, "Failed to parse %s '%s': not a number", what,
                     text);
        return false;
    }
    *ret_value = value;
    return true;
}

bool
bf_sockaddr_from_vsock(const BfVsockSocketAddress *address,
                       BfSockaddr *ret_where, GError **error)
{
    struct sockaddr_vm vm = {.svm_family = AF_VSOCK};

    if (!parse_u32("cid", address->cid, &vm.svm_cid, error) ||
        !parse_u32("port", address->port, &vm.svm_port, error)) {
        return false;
    }
    memset(ret_where, 0, sizeof(*ret_where));
    memcpy(&ret_where->addr, &vm, sizeof(vm));
    ret_where->len = sizeof(vm);
    return true;
}

/* A name lookup on its way through the thread pool. */
typedef struct Lookup {
    const char *host; /* (nullable) */
    const char *port;
    struct addrinfo hints;
    struct addrinfo *result;
    int ret;
    int saved_errno; /* if @ret is EAI_SYSTEM */
} Lookup;

static void
lookup(void *arg)
{
    Lookup *self = arg;

    self->ret =
        getaddrinfo(self->host, self->port, &self->hints, &self->result);
    self->saved_errno = errno;
}

static bool
choose_family(const BfInetSocketAddress *inet, int *ret_family, GError **error)
{
    bool wants_v4 = inet->has_ipv4 && inet->ipv4;
    bool wants_v6 = inet->has_ipv6 && inet->ipv6;
    bool denies_v4 = inet->has_ipv4 && !inet->ipv4;
    bool denies_v6 = inet->has_ipv6 && !inet->ipv6;

    if (denies_v4 && denies_v6) {
        bf_set_error(error, "Cannot disable IPv4 and IPv6 at same time");
        return false;
    }
    if (wants_v4 && wants_v6) {
        *ret_family = AF_UNSPEC;
    } else if (wants_v6 || denies_v4) {
        *ret_family = AF_INET6;
    } else if (wants_v4 || denies_v6) {
        *ret_family = AF_INET;
    } else {
        *ret_family = AF_UNSPEC;
    }
    return true;
}

/* The system takes the lower 16 bits of any number. */
static bool
check_port(const char *port, GError **error)
{
    if (*port == '\0') {
        bf_set_error(error, "port not specified");
        return false;
    }
    if (g_ascii_strtoull(port, NULL, 10) > UINT16_MAX) {
        bf_set_error(error, "port '%s' is not between 0 and %u", port,
                     UINT16_MAX);
        return false;
    }
    return true;
}

static GArray *
list_results(const struct addrinfo *results, const BfInetSocketAddress *inet)
{
    GArray *list = g_array_new(false, true, sizeof(BfSockaddr));

    for (const struct addrinfo *info = results; info != NULL;
         info = info->ai_next) {
        BfSockaddr one = {.len = info->ai_addrlen};

        memcpy(&one.addr, info->ai_addr, info->ai_addrlen);
        one.protocol = inet->mptcp ? IPPROTO_MPTCP : 0;
        one.keep_alive = inet->keep_alive;
        g_array_append_val(list, one);
    }
    return list;
}

GArray *
bf_address_co_resolve_inet(const BfInetSocketAddress *inet, bool passive,
                           GError **error)
{
    Lookup work = {
        .host = *inet->host != '\0' ? inet->host : NULL,
        .port = inet->port,
        .hints = {.ai_socktype = SOCK_STREAM,
                  .ai_flags = passive ? AI_PASSIVE : 0},
    };
    GArray *list = NULL;

    if (!choose_family(inet, &work.hints.ai_family, error) ||
        !check_port(inet->port, error)) {
        return NULL;
    }
    if (inet->numeric) {
        work.hints.ai_flags |= AI_NUMERICHOST | AI_NUMERICSERV;
    }
    if (inet->has_to) {
        work.hints.ai_flags |= AI_NUMERICSERV; /* a range needs a number */
    }
    bf_co_offload(bf_loop_lane(bf_loop_self(), BF_POOL_LANE_NAMES), lookup,
                  &work);
    if (work.ret != 0) {
        bf_set_error(error, "address resolution failed for %s:%s: %s",
                     inet->host, inet->port,
                     work.ret == EAI_SYSTEM ? g_strerror(work.saved_errno)
                                            : gai_strerror(work.ret));
        return NULL;
    }
    list = list_results(work.result, inet);
    freeaddrinfo(work.result);
    g_assert(list->len > 0);
    return list;
}

static char *
host_port_to_string(const char *host, const char *port)
{
    return strchr(host, ':') != NULL ? g_strdup_printf("[%s]:%s", host, port)
                                     : g_strdup_printf("%s:%s", host, port);
}

char *
bf_address_to_string(const BfSocketAddress *address)
{
    switch (address->type) {
    case BF_SOCKET_ADDRESS_TYPE_INET:
        return host_port_to_string(address->u.inet->host,
                                   address->u.inet->port);
    case BF_SOCKET_ADDRESS_TYPE_UNIX:
        return g_strdup_printf("unix:%s%s",
                               address->u.unix_->abstract ? "@" : "",
                               address->u.unix_->path);
    case BF_SOCKET_ADDRESS_TYPE_VSOCK:
        return g_strdup_printf("vsock:%s:%s", address->u.vsock->cid,
                               address->u.vsock->port);
    case BF_SOCKET_ADDRESS_TYPE_FD:
        return g_strdup_printf("fd:%s", address->u.fd->str);
    default:
        g_assert_not_reached();
    }
}

static char *
unix_to_string(const struct sockaddr_un *un, socklen_t len)
{
    size_t room = len - offsetof(struct sockaddr_un, sun_path);
    g_autofree char *path = NULL;

    if (len <= offsetof(struct sockaddr_un, sun_path)) {
        return g_strdup("unix");
    }
    if (un->sun_path[0] != '\0') {
        return g_strdup_printf("unix:%.*s", (int)room, un->sun_path);
    }
    /* Abstract names may hold any bytes. */
    path = g_strndup(un->sun_path + 1, room - 1);
    return g_strdup_printf("unix:@%s", path);
}

static char *
sockaddr_to_string(const struct sockaddr_storage *addr, socklen_t len)
{
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];

    if (addr->ss_family == AF_UNIX) {
        return unix_to_string((const struct sockaddr_un *)addr, len);
    }
    if (addr->ss_family == AF_VSOCK) {
        const struct sockaddr_vm *vm = (const struct sockaddr_vm *)addr;

        return g_strdup_printf("vsock:%u:%u", vm->svm_cid, vm->svm_port);
    }
    if (getnameinfo((const struct sockaddr *)addr, len, host, sizeof(host),
                    port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return g_strdup("unknown");
    }
    return host_port_to_string(host, port);
}

static BfPeerSource
source_of_ipv6(const struct in6_addr *addr)
{
    BfPeerSource source = {.family = AF_INET6};

    if (IN6_IS_ADDR_V4MAPPED(addr)) {
        source.family = AF_INET;
        source.value = bf_get_be32(addr->s6_addr + 12);
    } else {
        source.value = bf_get_be64(addr->s6_addr);
    }
    return source;
}

BfPeerSource
bf_sockaddr_source(const struct sockaddr_storage *addr)
{
    BfPeerSource source = {.family = addr->ss_family};

    if (addr->ss_family == AF_INET) {
        source.value = ntohl(((struct sockaddr_in *)addr)->sin_addr.s_addr);
    } else if (addr->ss_family == AF_INET6) {
        source = source_of_ipv6(&((struct sockaddr_in6 *)addr)->sin6_addr);
    } else if (addr->ss_family == AF_VSOCK) {
        source.value = ((struct sockaddr_vm *)addr)->svm_cid;
    }
    return source;
}

int
bf_socket_domain(int fd)
{
    int domain = AF_UNSPEC;
    socklen_t len = sizeof(domain);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0
               ? domain
               : AF_UNSPEC;
}

/* The process that has connected to a UNIX socket; NULL if it is not told. */
static char *
describe_process(int fd, BfPeerSource *ret_source)
{
    struct ucred cred;
    socklen_t len = sizeof(cred);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0) {
        return NULL;
    }
    *ret_source = (BfPeerSource){.family = AF_UNIX, .value = cred.uid};
    return g_strdup_printf("unix pid %d uid %u", cred.pid, cred.uid);
}

char *
bf_socket_describe_peer(int fd, int domain, BfPeerSource *ret_source)
{
    struct sockaddr_storage addr = {.ss_family = AF_UNSPEC};
    socklen_t len = sizeof(addr);
    char *text = NULL;

    /* Its address is mostly empty, and never looked at. */
    if (domain == AF_UNIX &&
        (text = describe_process(fd, ret_source)) != NULL) {
        return text;
    }
    if (getpeername(fd, (struct sockaddr *)&addr, &len) < 0) {
        *ret_source = (BfPeerSource){.family = AF_UNSPEC};
        return g_strdup("unknown");
    }
    *ret_source = bf_sockaddr_source(&addr);
    if (addr.ss_family == AF_UNIX &&
        (text = describe_process(fd, ret_source)) != NULL) {
        return text;
    }
    return sockaddr_to_string(&addr, len);
}

char *
bf_socket_peer_to_string(int fd)
{
    BfPeerSource source;

    return bf_socket_describe_peer(fd, AF_UNSPEC, &source);
}

char *
bf_socket_local_to_string(int fd)
{
    struct sockaddr_storage addr = {.ss_family = AF_UNSPEC};
    socklen_t len = sizeof(addr);

    if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0) {
        return g_strdup("unknown");
    }
    return sockaddr_to_string(&addr, len);
}

static BfUnixSocketAddress *
unix_address(const struct sockaddr_un *un, socklen_t len)
{
    const size_t begin = offsetof(struct sockaddr_un, sun_path);
    BfUnixSocketAddress *address = NULL;

    if (len <= begin) {
        return NULL; /* it has no name */
    }
    address = bf_type_new(&bf_unix_socket_address_type);
    address->abstract = un->sun_path[0] == '\0';
    address->tight = true;
    if (address->abstract) {
        /* Such names may hold any bytes; a text ends at the first NUL. */
        g_autofree char *name = g_strndup(un->sun_path + 1, len - begin - 1);

        address->path = g_utf8_make_valid(name, -1);
        address->tight = strlen(name) == len - begin - 1;
    } else {
        g_autofree char *path = g_strndup(un->sun_path, len - begin);

        address->path = g_utf8_make_valid(path, -1);
    }
    return address;
}

static BfInetSocketAddress *
inet_address(const struct sockaddr_storage *addr, socklen_t len)
{
    BfInetSocketAddress *address = NULL;
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];

    if (getnameinfo((const struct sockaddr *)addr, len, host, sizeof(host),
                    port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return NULL;
    }
    address = bf_type_new(&bf_inet_socket_address_type);
    address->host = g_strdup(host);
    address->port = g_strdup(port);
    address->numeric = true;
    return address;
}

static BfVsockSocketAddress *
vsock_address(const struct sockaddr_vm *vm)
{
    BfVsockSocketAddress *address = bf_type_new(&bf_vsock_socket_address_type);

    address->cid = g_strdup_printf("%u", vm->svm_cid);
    address->port = g_strdup_printf("%u", vm->svm_port);
    return address;
}

BfSocketAddress *
bf_socket_local_address(int fd)
{
    struct sockaddr_storage addr = {.ss_family = AF_UNSPEC};
    socklen_t len = sizeof(addr);
    g_autoptr(BfSocketAddress) address = bf_type_new(&bf_socket_address_type);

    if (getsockname(fd, (struct sockaddr *)&addr, &len) < 0) {
        return NULL;
    }
    switch (addr.ss_family) {
    case AF_UNIX:
        address->type = BF_SOCKET_ADDRESS_TYPE_UNIX;
        address->u.unix_ = unix_address((const struct sockaddr_un *)&addr, len);
        break;
    case AF_VSOCK:
        address->type = BF_SOCKET_ADDRESS_TYPE_VSOCK;
        address->u.vsock = vsock_address((const struct sockaddr_vm *)&addr);
        break;
    default:
        address->type = BF_SOCKET_ADDRESS_TYPE_INET;
        address->u.inet = inet_address(&addr, len);
        break;
    }
    return address->u.any_branch != NULL ? g_steal_pointer(&address) : NULL;
}

bool
bf_unix_access_is_given(const BfUnixSocketAddress *address)
{
    return address->mode != NULL || address->owner != NULL ||
           address->group != NULL;
}

/* The number of a user or group. The buffer grows with the entry's size. */
static bool
find_id(const char *name, bool is_group, unsigned *ret_id, GError **error)
{
    guint64 number = 0;

    if (g_ascii_string_to_unsigned(name, 10, 0, UINT32_MAX - 1, &number,
                                   NULL)) {
        *ret_id = (unsigned)number;
        return true;
    }
    for (size_t len = 4096; len <= ID_ENTRY_MAX_BYTES; len *= 4) {
        g_autofree char *buf = g_malloc(len);
        struct passwd user;
        struct passwd *found_user = NULL;
        struct group group;
        struct group *found_group = NULL;
        int ret = is_group ? getgrnam_r(name, &group, buf, len, &found_group)
                           : getpwnam_r(name, &user, buf, len, &found_user);

        if (found_user != NULL || found_group != NULL) {
            *ret_id = is_group ? group.gr_gid : user.pw_uid;
            return true;
        }
        if (ret != ERANGE) {
            break;
        }
    }
    bf_set_error(error, "there is no %s '%s' for a UNIX socket",
                 is_group ? "group" : "user", name);
    return false;
}

bool
bf_unix_access_read(const BfUnixSocketAddress *address,
                    BfUnixAccess *ret_access, GError **error)
{
    BfUnixAccess access = {.owner = (uid_t)-1, .group = (gid_t)-1};
    guint64 mode = 0;

    if (address->abstract && bf_unix_access_is_given(address)) {
        bf_set_error(error,
                     "abstract UNIX socket '%s': mode, owner and group "
                     "are for those with a path",
                     address->path);
        return false;
    }
    if (address->mode != NULL &&
        !g_ascii_string_to_unsigned(address->mode, 8, 0, 0777, &mode, NULL)) {
        bf_set_error(error,
                     "mode '%s' of a UNIX socket is not an octal number up to "
                     "0777",
                     address->mode);
        return false;
    }
    access.has_mode = address->mode != NULL;
    access.mode = (mode_t)mode;
    if ((address->owner != NULL &&
         !find_id(address->owner, false, &access.owner, error)) ||
        (address->group != NULL &&
         !find_id(address->group, true, &access.group, error))) {
        return false;
    }
    *ret_access = access;
    return true;
}
