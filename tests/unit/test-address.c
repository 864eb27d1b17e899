/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Listening, connecting and accepting, over UNIX sockets and TCP. */
#include "io/address.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "core/error.h"
#include "core/util.h"
#include "harness.h"
#include "io/listener.h"
#include "io/peer-wait.h"
#include "server/io/address-private.h"

static BfSocketAddress *
unix_address(const char *path)
{
    BfSocketAddress *address = bf_type_new(&bf_socket_address_type);

    address->type = BF_SOCKET_ADDRESS_TYPE_UNIX;
    address->u.unix_ = bf_type_new(&bf_unix_socket_address_type);
    address->u.unix_->path = g_strdup(path);
    address->u.unix_->tight = true;
    return address;
}

static BfSocketAddress *
inet_address(const char *host, const char *port)
{
    BfSocketAddress *address = bf_type_new(&bf_socket_address_type);

    address->type = BF_SOCKET_ADDRESS_TYPE_INET;
    address->u.inet = bf_type_new(&bf_inet_socket_address_type);
    address->u.inet->host = g_strdup(host);
    address->u.inet->port = g_strdup(port);
    return address;
}

static BfSocketAddress *
fd_address(const char *name)
{
    BfSocketAddress *address = bf_type_new(&bf_socket_address_type);

    address->type = BF_SOCKET_ADDRESS_TYPE_FD;
    address->u.fd = bf_type_new(&bf_fd_socket_address_type);
    address->u.fd->str = g_strdup(name);
    return address;
}

/* A listener that keeps the connections it accepts. */
typedef struct Server {
    BfListener *listener;
    GArray *connections; /* int */
} Server;

static void
keep(void *opaque, int fd, int domain)
{
    g_array_append_val(((Server *)opaque)->connections, fd);
}

static bool
server_co_start(Server *server, const BfSocketAddress *address, GError **error)
{
    GArray *fds = NULL;
    const char *path = address->type == BF_SOCKET_ADDRESS_TYPE_UNIX
                           ? address->u.unix_->path
                           : NULL;

    if (!bf_address_co_listen(address, NULL, NULL, &fds, error)) {
        return false;
    }
    server->connections = g_array_new(false, false, sizeof(int));
    server->listener = bf_listener_new(fds, path, keep, server);
    return true;
}

static void
server_co_stop(Server *server)
{
    bf_listener_co_free(server->listener);
    for (unsigned i = 0; i < server->connections->len; i++) {
        close(g_array_index(server->connections, int, i));
    }
    g_array_unref(server->connections);
}

static void
server_co_wait(Server *server, unsigned count)
{
    while (server->connections->len < count) {
        bf_co_sleep_ns(BF_NS_PER_MS);
    }
}

static int
co_connect(const BfSocketAddress *address, GError **error)
{
    return bf_address_co_connect(address, NULL, NULL, 5 * BF_NS_PER_SEC, NULL,
                                 error);
}

static void
co_unix_connects_and_unlinks(void *arg)
{
    g_autofree char *path = bf_test_temp_path();
    g_autoptr(BfSocketAddress) address = unix_address(path);
    g_autoptr(GError) error = NULL;
    Server server = {0};
    bf_autofd fd = -1;
    g_autofree char *peer = NULL;

    g_assert_true(server_co_start(&server, address, &error));
    fd = co_connect(address, &error);
    g_assert_no_error(error);
    g_assert_cmpint(fd, >=, 0);
    server_co_wait(&server, 1);
    peer = bf_socket_peer_to_string(g_array_index(server.connections, int, 0));
    g_assert_true(g_str_has_prefix(peer, "unix pid "));
    server_co_stop(&server);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
}

static void
co_unix_refuses_live_server(void *arg)
{
    g_autofree char *path = bf_test_temp_path();
    g_autoptr(BfSocketAddress) address = unix_address(path);
    g_autoptr(GError) error = NULL;
    Server server = {0};
    GArray *fds = NULL;

    g_assert_true(server_co_start(&server, address, NULL));
    g_assert_false(bf_address_co_listen(address, NULL, NULL, &fds, &error));
    g_assert_nonnull(strstr(error->message, "another server is listening"));
    server_co_stop(&server);
}

static void
co_unix_takes_dead_path_over(void *arg)
{
    g_autofree char *path = bf_test_temp_path();
    g_autoptr(BfSocketAddress) address = unix_address(path);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    Server server = {0};
    bf_autofd dead = socket(AF_UNIX, SOCK_STREAM, 0);

    g_strlcpy(un.sun_path, path, sizeof(un.sun_path));
    g_assert_cmpint(bind(dead, (struct sockaddr *)&un, sizeof(un)), ==, 0);
    g_assert_true(server_co_start(&server, address, NULL));
    server_co_stop(&server);
}

static void
co_unix_keeps_other_files(void *arg)
{
    g_autofree char *path = bf_test_temp_path();
    g_autoptr(BfSocketAddress) address = unix_address(path);
    g_autoptr(GError) error = NULL;
    GArray *fds = NULL;

    g_assert_true(g_file_set_contents(path, "precious", -1, NULL));
    g_assert_false(bf_address_co_listen(address, NULL, NULL, &fds, &error));
    g_assert_nonnull(strstr(error->message, "no socket"));
    g_assert_true(g_file_test(path, G_FILE_TEST_IS_REGULAR));
}

static void
co_unix_leaves_replaced_path(void *arg)
{
    g_autofree char *path = bf_test_temp_path();
    g_autoptr(BfSocketAddress) address = unix_address(path);
    Server server = {0};

    g_assert_true(server_co_start(&server, address, NULL));
    g_assert_cmpint(unlink(path), ==, 0);
    g_assert_true(g_file_set_contents(path, "other", -1, NULL));
    server_co_stop(&server);
    g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS));
}

static void
co_unix_names_problems(void *arg)
{
    g_autofree char *long_path = g_strnfill(108, 'a');
    const struct {
        const char *path;
        const char *text;
    } cases[] = {
        {"", "UNIX socket path is empty"},
        {long_path, "is too long"},
        {"/nonexistent/x",
         "Failed to bind socket to /nonexistent/x: No such file or directory"},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(BfSocketAddress) address = unix_address(cases[i].path);
        g_autoptr(GError) error = NULL;
        GArray *fds = NULL;

        g_assert_false(bf_address_co_listen(address, NULL, NULL, &fds, &error));
        g_assert_nonnull(strstr(error->message, cases[i].text));
    }
}

static void
co_abstract_name_works(void *arg)
{
    g_autofree char *name = g_strdup_printf("bf-test-%d", getpid());
    g_autoptr(BfSocketAddress) address = unix_address(name);
    g_autoptr(GError) error = NULL;
    GArray *fds = NULL;
    bf_autofd fd = -1;
    g_autofree char *text = NULL;

    address->u.unix_->abstract = true;
    g_assert_true(bf_address_co_listen(address, NULL, NULL, &fds, &error));
    g_assert_false(g_file_test(name, G_FILE_TEST_EXISTS));
    fd = co_connect(address, &error);
    g_assert_no_error(error);
    text = bf_socket_local_to_string(g_array_index(fds, int, 0));
    g_assert_cmpstr(text + strlen("unix:@"), ==, name);
    close(g_array_index(fds, int, 0));
    g_array_unref(fds);
}

static int
tcp_option(int fd, int level, int option)
{
    int value = -1;
    socklen_t len = sizeof(value);

    g_assert_cmpint(getsockopt(fd, level, option, &value, &len), ==, 0);
    return value;
}

static char *
port_of(BfSocketAddress *address, GArray *fds)
{
    g_autofree char *text =
        bf_socket_local_to_string(g_array_index(fds, int, 0));

    g_free(address->u.inet->port);
    address->u.inet->port = g_strdup(strrchr(text, ':') + 1);
    return g_steal_pointer(&text);
}

static void
co_tcp_port_is_in_its_range(void *arg)
{
    const char *const ports[] = {"65536", "99999", "-1"};

    for (unsigned i = 0; i < G_N_ELEMENTS(ports); i++) {
        g_autoptr(BfSocketAddress) address =
            inet_address("127.0.0.1", ports[i]);
        g_autofree char *wanted =
            g_strdup_printf("port '%s' is not between 0 and 65535", ports[i]);
        g_autoptr(GError) error = NULL;
        GArray *fds = NULL;

        g_assert_false(bf_address_co_listen(address, NULL, NULL, &fds, &error));
        g_assert_cmpstr(error->message, ==, wanted);
        g_clear_error(&error);
        g_assert_cmpint(co_connect(address, &error), ==, -1);
        g_assert_cmpstr(error->message, ==, wanted);
    }
}

static void
co_tcp_sets_options(void *arg)
{
    g_autoptr(BfSocketAddress) address = inet_address("127.0.0.1", "0");
    g_autoptr(GError) error = NULL;
    Server server = {0};
    GArray *fds = NULL;
    bf_autofd fd = -1;
    int accepted = -1;
    g_autofree char *text = NULL;

    g_assert_true(bf_address_co_listen(address, NULL, NULL, &fds, &error));
    text = port_of(address, fds);
    server.connections = g_array_new(false, false, sizeof(int));
    server.listener = bf_listener_new(fds, NULL, keep, &server);
    fd = co_connect(address, &error);
    g_assert_no_error(error);
    server_co_wait(&server, 1);
    accepted = g_array_index(server.connections, int, 0);
    g_assert_cmpint(tcp_option(fd, IPPROTO_TCP, TCP_NODELAY), ==, 1);
    g_assert_cmpint(tcp_option(accepted, IPPROTO_TCP, TCP_NODELAY), ==, 1);
    g_assert_cmpint(tcp_option(accepted, SOL_SOCKET, SO_KEEPALIVE), ==, 1);
    g_assert_cmpint(fcntl(accepted, F_GETFL) & O_NONBLOCK, !=, 0);
    g_assert_cmpint(fcntl(accepted, F_GETFD) & FD_CLOEXEC, !=, 0);
    server_co_stop(&server);
}

/* What the user says of silent peers, for both ends of a connection. */
static void
co_tcp_bears_silence_as_told(void *arg)
{
    const struct {
        int option;
        int value;
    } wanted[] = {
        {TCP_KEEPCNT, 5},
        {TCP_KEEPIDLE, 70},
        {TCP_KEEPINTVL, 8},
        {TCP_USER_TIMEOUT, 4321},
    };
    g_autoptr(BfSocketAddress) address = inet_address("127.0.0.1", "0");
    BfInetSocketAddress *inet = address->u.inet;
    g_autoptr(GError) error = NULL;
    Server server = {0};
    GArray *fds = NULL;
    bf_autofd fd = -1;
    g_autofree char *text = NULL;

    inet->has_keep_alive_count = inet->has_keep_alive_idle = true;
    inet->has_keep_alive_interval = inet->has_user_timeout_ms = true;
    inet->keep_alive_count = 5;
    inet->keep_alive_idle = 70;
    inet->keep_alive_interval = 8;
    inet->user_timeout_ms = 4321;
    g_assert_true(bf_address_co_listen(address, NULL, NULL, &fds, &error));
    text = port_of(address, fds);
    server.connections = g_array_new(false, false, sizeof(int));
    server.listener = bf_listener_new(fds, NULL, keep, &server);
    fd = co_connect(address, &error);
    g_assert_no_error(error);
    server_co_wait(&server, 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(wanted); i++) {
        const int ends[] = {fd, g_array_index(server.connections, int, 0)};

        for (unsigned n = 0; n < G_N_ELEMENTS(ends); n++) {
            g_assert_cmpint(tcp_option(ends[n], IPPROTO_TCP, wanted[i].option),
                            ==, wanted[i].value);
        }
    }
    inet->keep_alive_count = 128;
    g_assert_cmpint(co_connect(address, &error), ==, -1);
    g_assert_cmpstr(error->message, ==,
                    "keep-alive-count is 128, but can be 127 at most");
    server_co_wait(&server, 2);
    server_co_stop(&server);
}

static void
co_tcp_range_skips_ports_in_use(void *arg)
{
    g_autoptr(BfSocketAddress) address = inet_address("127.0.0.1", "0");
    g_autoptr(GError) error = NULL;
    GArray *first = NULL;
    GArray *second = NULL;
    GArray *third = NULL;
    g_autofree char *text = NULL;
    guint64 port = 0;

    g_assert_true(bf_address_co_listen(address, NULL, NULL, &first, NULL));
    text = port_of(address, first);
    g_assert_false(bf_address_co_listen(address, NULL, NULL, &third, &error));
    g_assert_cmpstr(error->message, ==,
                    "Failed to find an available port: Address already in use");
    port = g_ascii_strtoull(address->u.inet->port, NULL, 10);
    address->u.inet->has_to = true;
    address->u.inet->to = MIN(port + 20, UINT16_MAX);
    g_assert_true(bf_address_co_listen(address, NULL, NULL, &second, NULL));
    close(g_array_index(first, int, 0));
    close(g_array_index(second, int, 0));
    g_array_unref(first);
    g_array_unref(second);
}

static void
co_inet_names_problems(void *arg)
{
    g_autoptr(BfSocketAddress) address = inet_address("no.such.invalid", "1");
    g_autoptr(GError) error = NULL;
    g_autoptr(GError) error2 = NULL;
    GArray *fds = NULL;

    address->u.inet->numeric = true;
    g_assert_false(bf_address_co_listen(address, NULL, NULL, &fds, &error));
    g_assert_cmpstr(error->message, ==,
                    "address resolution failed for no.such.invalid:1: Name or "
                    "service not known");
    address->u.inet->has_ipv4 = true;
    address->u.inet->has_ipv6 = true;
    g_assert_false(bf_address_co_listen(address, NULL, NULL, &fds, &error2));
    g_assert_cmpstr(error2->message, ==,
                    "Cannot disable IPv4 and IPv6 at same time");
}

static void
co_connect_names_the_address(void *arg)
{
    g_autofree char *path = bf_test_temp_path();
    g_autofree char *text = g_strdup_printf(
        "Failed to connect to '%s': No such file or directory", path);
    g_autoptr(BfSocketAddress) address = unix_address(path);
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(co_connect(address, &error), ==, -1);
    g_assert_cmpstr(error->message, ==, text);
}

static int
take_dup(void *opaque, const char *name, GError **error)
{
    return fcntl(*(int *)opaque, F_DUPFD, 3);
}

static void
co_fd_must_be_a_listening_socket(void *arg)
{
    g_autoptr(BfSocketAddress) address = fd_address("99");
    bf_autofd file = bf_test_temp_file(0);
    bf_autofd sock = socket(AF_UNIX, SOCK_STREAM, 0);
    g_autoptr(GError) error = NULL;
    GArray *fds = NULL;

    g_assert_false(
        bf_address_co_listen(address, take_dup, &file, &fds, &error));
    g_assert_cmpstr(error->message, ==, "File descriptor '99' is not a socket");
    g_assert_false(bf_address_co_listen(address, take_dup, &sock, &fds, NULL));
    g_assert_false(bf_address_co_listen(address, NULL, NULL, &fds, NULL));
    g_assert_cmpint(listen(sock, 1), ==, -1); /* it was never bound */
}

static void
co_paused_listener_leaves_clients_waiting(void *arg)
{
    g_autofree char *path = bf_test_temp_path();
    g_autoptr(BfSocketAddress) address = unix_address(path);
    Server server = {0};
    bf_autofd fd = -1;

    g_assert_true(server_co_start(&server, address, NULL));
    bf_listener_set_paused(server.listener, true);
    fd = co_connect(address, NULL);
    g_assert_cmpint(fd, >=, 0);
    bf_co_sleep_ns(20 * BF_NS_PER_MS);
    g_assert_cmpint(server.connections->len, ==, 0);
    bf_listener_set_paused(server.listener, false);
    server_co_wait(&server, 1);
    server_co_stop(&server);
}

static void
test_addresses_have_a_text(void)
{
    g_autoptr(BfSocketAddress) unix_addr = unix_address("/run/x");
    g_autoptr(BfSocketAddress) v4 = inet_address("host", "10809");
    g_autoptr(BfSocketAddress) v6 = inet_address("::1", "10809");
    g_autoptr(BfSocketAddress) fd = fd_address("s");
    g_autofree char *a = bf_address_to_string(unix_addr);
    g_autofree char *b = bf_address_to_string(v4);
    g_autofree char *c = bf_address_to_string(v6);
    g_autofree char *d = bf_address_to_string(fd);

    g_assert_cmpstr(a, ==, "unix:/run/x");
    g_assert_cmpstr(b, ==, "host:10809");
    g_assert_cmpstr(c, ==, "[::1]:10809");
    g_assert_cmpstr(d, ==, "fd:s");
}

static BfPeerSource
source_of(const char *text)
{
    struct sockaddr_storage addr = {.ss_family = AF_INET};

    if (inet_pton(AF_INET, text, &((struct sockaddr_in *)&addr)->sin_addr) !=
        1) {
        addr.ss_family = AF_INET6;
        g_assert_cmpint(inet_pton(AF_INET6, text,
                                  &((struct sockaddr_in6 *)&addr)->sin6_addr),
                        ==, 1);
    }
    return bf_sockaddr_source(&addr);
}

static bool
has_one_source(const char *a, const char *b)
{
    BfPeerSource x = source_of(a);
    BfPeerSource y = source_of(b);

    return x.family == y.family && x.value == y.value;
}

static void
test_sources_are_what_one_party_has(void)
{
    BfPeerSource source;
    int fds[2];

    g_assert_true(has_one_source("192.0.2.1", "192.0.2.1"));
    g_assert_true(has_one_source("192.0.2.1", "::ffff:192.0.2.1"));
    g_assert_false(has_one_source("192.0.2.1", "192.0.2.2"));
    g_assert_true(has_one_source("2001:db8:1:2::1", "2001:db8:1:2:f::2"));
    g_assert_false(has_one_source("2001:db8:1:2::1", "2001:db8:1:3::1"));
    g_assert_false(has_one_source("0.0.0.0", "::"));

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==,
                    0);
    g_free(bf_socket_describe_peer(fds[0], AF_UNSPEC, &source));
    g_assert_cmpuint(source.family, ==, AF_UNIX);
    g_assert_cmpuint(source.value, ==, getuid());
    g_assert_cmpint(bf_socket_domain(fds[0]), ==, AF_UNIX);
    g_assert_false(bf_socket_is_loopback(fds[0]));
    g_free(bf_socket_describe_peer(fds[0], AF_UNIX, &source));
    g_assert_cmpuint(source.family, ==, AF_UNIX);
    g_assert_cmpuint(source.value, ==, getuid());
    close(fds[0]);
    close(fds[1]);
    /* Whatever it is, it is answered. */
    g_assert_false(bf_socket_is_loopback(-1));
    g_free(bf_socket_describe_peer(-1, AF_UNSPEC, &source));
    g_assert_cmpuint(source.family, ==, AF_UNSPEC);
    g_free(bf_socket_describe_peer(-1, AF_UNIX, &source));
    g_assert_cmpuint(source.family, ==, AF_UNSPEC);
    g_assert_cmpint(bf_socket_domain(-1), ==, AF_UNSPEC);
}

/* Byte by byte is silence, too, after a while. */
static void
test_late_waits_do_not_begin_anew(void)
{
    BfPeerWait wait = {.n_waits = 0};

    for (uint64_t now = 1; now < 1000; now++) {
        bf_peer_wait_begin(&wait, now);
        g_assert_cmpuint(bf_peer_wait_since(&wait), ==,
                         MIN(now, BF_PEER_WAITS_MAX));
        bf_peer_wait_end(&wait);
        g_assert_cmpuint(bf_peer_wait_since(&wait), ==, BF_PEER_WAIT_NONE);
    }
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/io/address/to-string/has-a-text",
                    test_addresses_have_a_text);
    g_test_add_func("/io/address/source/is-what-one-party-has",
                    test_sources_are_what_one_party_has);
    g_test_add_func("/io/peer-wait/begin/late-ones-do-not-begin-anew",
                    test_late_waits_do_not_begin_anew);
    bf_test_add("/io/address/unix/connects-and-unlinks",
                co_unix_connects_and_unlinks);
    bf_test_add("/io/address/unix/refuses-live-server",
                co_unix_refuses_live_server);
    bf_test_add("/io/address/unix/takes-dead-path-over",
                co_unix_takes_dead_path_over);
    bf_test_add("/io/address/unix/keeps-other-files",
                co_unix_keeps_other_files);
    bf_test_add("/io/address/unix/names-problems", co_unix_names_problems);
    bf_test_add("/io/address/unix/abstract-name-works", co_abstract_name_works);
    bf_test_add("/io/address/tcp/sets-options", co_tcp_sets_options);
    bf_test_add("/io/address/tcp/bears-silence-as-told",
                co_tcp_bears_silence_as_told);
    bf_test_add("/io/address/tcp/port-is-in-its-range",
                co_tcp_port_is_in_its_range);
    bf_test_add("/io/address/tcp/range-skips-ports-in-use",
                co_tcp_range_skips_ports_in_use);
    bf_test_add("/io/address/tcp/names-problems", co_inet_names_problems);
    bf_test_add("/io/address/connect/names-the-address",
                co_connect_names_the_address);
    bf_test_add("/io/address/fd/must-be-a-listening-socket",
                co_fd_must_be_a_listening_socket);
    bf_test_add("/io/listener/unlink/leaves-replaced-path",
                co_unix_leaves_replaced_path);
    bf_test_add("/io/listener/pause/leaves-clients-waiting",
                co_paused_listener_leaves_clients_waiting);
    return g_test_run();
}
