/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Monitors on character devices: connections, events, descriptors, the end. */
#include "qmp/monitors.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/co-io.h"
#include "core/co-lock.h"
#include "core/error.h"
#include "core/util.h"
#include "harness.h"
#include "io/channel-socket.h"
#include "qmp-peer.h"
#include "qmp/chardev.h"
#include "qmp/event.h"

/* A monitor on a UNIX socket, without a daemon. */
typedef struct Fixture {
    BfMonitors *monitors;
    char *path;
    unsigned n_quits;
} Fixture;

static void
count_quit(void *opaque)
{
    ((Fixture *)opaque)->n_quits++;
}

static bool
co_add(Fixture *fixture, const char *chardev, const char *id, GError **error)
{
    const BfMonitorOptions options = {.chardev = (char *)id,
                                      .mode = BF_MONITOR_MODE_CONTROL};

    return bf_monitors_co_chardev_add(fixture->monitors, chardev, error) &&
           bf_monitors_co_monitor_add(fixture->monitors, &options, error);
}

static void
co_setup(Fixture *fixture)
{
    g_autofree char *text = NULL;

    *fixture = (Fixture){.monitors = bf_monitors_new(bf_test_loops()->main),
                         .path = bf_test_temp_path()};
    text = g_strdup_printf("socket,id=m,path=%s,server=on,wait=off",
                           fixture->path);
    bf_monitors_set_quit_fn(fixture->monitors, count_quit, fixture);
    g_assert_true(co_add(fixture, text, "m", NULL));
    bf_monitors_start(fixture->monitors);
}

static void
co_teardown(Fixture *fixture)
{
    g_assert_true(bf_monitors_co_close(fixture->monitors));
    g_assert_false(g_file_test(fixture->path, G_FILE_TEST_EXISTS));
    bf_monitors_free(fixture->monitors);
    g_free(fixture->path);
}

static void
emit(Fixture *fixture, const char *id)
{
    bf_monitors_export_events()->deleted(fixture->monitors, id);
}

static void
co_takes_single_bytes_and_joined_requests(void *arg)
{
    static const char request[] = "{\"execute\": \"query-chardev\"}";
    Fixture fixture;
    BfTestPeer peer;

    co_setup(&fixture);
    bf_test_peer_co_connect(&peer, fixture.path);
    bf_test_peer_co_negotiate(&peer);
    for (unsigned i = 0; request[i] != '\0'; i++) {
        char byte[2] = {request[i], '\0'};

        bf_test_peer_co_send(&peer, byte);
        bf_co_yield();
    }
    bf_test_peer_co_expect_like(&peer, "{\"return\": [{\"label\": \"m\", "
                                       "\"filename\": \"unix:*,server=on\", "
                                       "\"frontend-open\": true}]}");
    bf_test_peer_co_send(&peer, "{'execute':'x','id':1}{'execute':'y','id':2}"
                                "{'id':3}");
    bf_test_peer_co_expect_like(&peer, "{\"error\": *command x has*\"id\": 1}");
    bf_test_peer_co_expect_like(&peer, "{\"error\": *command y has*\"id\": 2}");
    bf_test_peer_co_expect_like(&peer, "{\"error\": *lacks*\"id\": 3}");
    bf_test_peer_clear(&peer);
    co_teardown(&fixture);
}

static void
co_half_closed_client_gets_its_reply(void *arg)
{
    Fixture fixture;
    BfTestPeer peer;

    co_setup(&fixture);
    bf_test_peer_co_connect(&peer, fixture.path);
    bf_test_peer_co_send(&peer, "{'execute':'qmp_capabilities'}{'id':1}");
    shutdown(peer.fd, SHUT_WR);
    bf_test_peer_co_expect_like(&peer, "{\"QMP\": *");
    bf_test_peer_co_expect(&peer, "{\"return\": {}}");
    bf_test_peer_co_expect_like(&peer, "*\"id\": 1}");
    bf_test_peer_co_expect(&peer, NULL);
    bf_test_peer_clear(&peer);
    co_teardown(&fixture);
}

static void
co_events_go_to_negotiated_clients(void *arg)
{
    Fixture fixture;
    BfTestPeer first;
    BfTestPeer second;

    co_setup(&fixture);
    bf_test_peer_co_connect(&first, fixture.path);
    bf_test_peer_co_connect(&second, fixture.path);
    bf_test_peer_co_negotiate(&first);
    bf_test_peer_co_expect_like(&second, "{\"QMP\": *");
    emit(&fixture, "e0");
    bf_test_peer_co_expect_like(
        &first, "{\"timestamp\": {\"seconds\": *, \"microseconds\": *}, "
                "\"event\": \"BLOCK_EXPORT_DELETED\", \"data\": "
                "{\"id\": \"e0\"}}");
    bf_test_peer_co_ask(&second, "{'execute':'qmp_capabilities'}",
                        "{\"return\": {}}");
    emit(&fixture, "e1");
    bf_test_peer_co_expect_like(&first, "*\"e1\"*");
    bf_test_peer_co_expect_like(&second, "*\"e1\"*");
    bf_test_peer_clear(&first);
    bf_test_peer_clear(&second);
    co_teardown(&fixture);
}

static void
co_client_that_reads_no_events_is_cut_off(void *arg)
{
    g_autofree char *id = g_strnfill(60000, 'e');
    Fixture fixture;
    BfTestPeer peer;
    char c;

    co_setup(&fixture);
    bf_test_peer_co_connect(&peer, fixture.path);
    bf_test_peer_co_negotiate(&peer);
    g_test_expect_message("bf-qmp", G_LOG_LEVEL_WARNING,
                          "*disconnected, because it has not read*");
    for (unsigned i = 0; i < 200; i++) {
        emit(&fixture, id);
    }
    g_test_assert_expected_messages();
    bf_co_sleep_ns(BF_NS_PER_MS);
    while (bf_channel_co_read(peer.channel, &c, 1, NULL) > 0) {
    }
    bf_test_peer_clear(&peer);
    co_teardown(&fixture);
}

static void
co_descriptors_get_names(void *arg)
{
    Fixture fixture;
    BfTestPeer peer;
    bf_autofd file = bf_test_temp_file(10);

    co_setup(&fixture);
    bf_test_peer_co_connect(&peer, fixture.path);
    bf_test_peer_co_negotiate(&peer);
    bf_test_peer_co_send(&peer,
                         "{'execute':'getfd','arguments':{'fdname':'x'}}");
    bf_test_peer_co_expect_like(&peer,
                                "*No file descriptor supplied via SCM_RIGHTS*");
    /* With the text, before it, and again for the same name. */
    bf_test_peer_send_fd(
        &peer, "{'execute':'getfd','arguments':{'fdname':'x'}}", file);
    bf_test_peer_co_expect(&peer, "{\"return\": {}}");
    bf_test_peer_send_fd(&peer, " ", file);
    bf_test_peer_co_ask(&peer, "{'execute':'getfd','arguments':{'fdname':'x'}}",
                        "{\"return\": {}}");
    bf_test_peer_send_fd(
        &peer, "{'execute':'getfd','arguments':{'fdname':'1'}}", file);
    bf_test_peer_co_expect_like(&peer,
                                "*expects a name not starting with a digit*");
    bf_test_peer_co_ask(&peer,
                        "{'execute':'closefd','arguments':{'fdname':'x'}}",
                        "{\"return\": {}}");
    bf_test_peer_co_send(&peer,
                         "{'execute':'closefd','arguments':{'fdname':'x'}}");
    bf_test_peer_co_expect_like(&peer, "*File descriptor named 'x' not found*");
    bf_test_peer_clear(&peer);
    co_teardown(&fixture);
}

static void
co_too_many_clients_are_told(void *arg)
{
    const unsigned limit = 64;
    g_autofree BfTestPeer *peers = g_new0(BfTestPeer, limit);
    Fixture fixture;
    BfTestPeer last;

    co_setup(&fixture);
    for (unsigned i = 0; i < limit; i++) {
        bf_test_peer_co_connect(&peers[i], fixture.path);
        bf_test_peer_co_expect_like(&peers[i], "{\"QMP\": *");
    }
    bf_test_peer_co_connect(&last, fixture.path);
    bf_test_peer_co_expect_like(&last, "{\"error\": *limit*");
    bf_test_peer_co_expect(&last, NULL);
    bf_test_peer_clear(&last);
    for (unsigned i = 0; i < limit; i++) {
        bf_test_peer_clear(&peers[i]);
    }
    co_teardown(&fixture);
}

static void
close_later_co_run(void *arg)
{
    Fixture *fixture = arg;

    g_assert_true(bf_monitors_co_close(fixture->monitors));
    fixture->n_quits += 100;
}

static void
co_quit_is_answered_before_the_end(void *arg)
{
    Fixture fixture;
    BfTestPeer peer;

    co_setup(&fixture);
    bf_test_peer_co_connect(&peer, fixture.path);
    bf_test_peer_co_negotiate(&peer);
    bf_test_peer_co_send(&peer, "{'execute':'quit','id':7}");
    while (fixture.n_quits == 0) {
        bf_co_sleep_ns(BF_NS_PER_MS);
    }
    bf_co_spawn_later(close_later_co_run, &fixture);
    bf_test_peer_co_expect(&peer, "{\"return\": {}, \"id\": 7}");
    bf_test_peer_co_expect(&peer, NULL);
    bf_test_peer_clear(&peer);
    while (fixture.n_quits < 100) {
        bf_co_sleep_ns(BF_NS_PER_MS);
    }
    g_assert_cmpint(fixture.n_quits, ==, 101);
    bf_monitors_free(fixture.monitors);
    g_free(fixture.path);
}

static void
co_stopped_set_begins_no_command_but_sends_events(void *arg)
{
    Fixture fixture;
    BfTestPeer peer;

    co_setup(&fixture);
    bf_test_peer_co_connect(&peer, fixture.path);
    bf_test_peer_co_negotiate(&peer);
    g_assert_true(bf_monitors_co_stop(fixture.monitors));
    bf_test_peer_co_send(&peer, "{'execute':'quit'}");
    bf_co_sleep_ns(5 * BF_NS_PER_MS);
    emit(&fixture, "e");
    bf_test_peer_co_expect_like(&peer, "*BLOCK_EXPORT_DELETED*");
    g_assert_cmpint(fixture.n_quits, ==, 0);
    co_teardown(&fixture);
    bf_test_peer_co_expect(&peer, NULL);
    bf_test_peer_clear(&peer);
}

static void
co_reconnecting_client_comes_back(void *arg)
{
    Fixture fixture = {.monitors = bf_monitors_new(bf_test_loops()->main),
                       .path = bf_test_temp_path()};
    g_autofree char *text =
        g_strdup_printf("socket,id=m,path=%s,reconnect-ms=1", fixture.path);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    bf_autofd server =
        socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    g_assert_true(co_add(&fixture, text, "m", NULL));
    bf_monitors_start(fixture.monitors);
    bf_co_sleep_ns(3 * BF_NS_PER_MS);
    g_strlcpy(un.sun_path, fixture.path, sizeof(un.sun_path));
    g_assert_cmpint(bind(server, (struct sockaddr *)&un, sizeof(un)), ==, 0);
    g_assert_cmpint(listen(server, 4), ==, 0);
    for (unsigned i = 0; i < 2; i++) {
        BfTestPeer peer;

        bf_test_peer_init(&peer, bf_test_co_accept(server, NULL));
        bf_test_peer_co_negotiate(&peer);
        bf_test_peer_clear(&peer);
    }
    unlink(fixture.path);
    co_teardown(&fixture);
}

static void
cancel_later_co_run(void *arg)
{
    bf_co_sleep_ns(2 * BF_NS_PER_MS);
    bf_monitors_cancel_wait(arg);
}

static void
co_wait_for_client_can_be_cancelled(void *arg)
{
    Fixture fixture = {.monitors = bf_monitors_new(bf_test_loops()->main),
                       .path = bf_test_temp_path()};
    g_autofree char *text =
        g_strdup_printf("socket,id=m,path=%s,server=on", fixture.path);
    g_autoptr(GError) error = NULL;

    bf_co_spawn_later(cancel_later_co_run, fixture.monitors);
    g_assert_false(bf_monitors_co_chardev_add(fixture.monitors, text, &error));
    g_assert_error(error, BF_ERROR, BF_ERROR_GENERIC);
    co_teardown(&fixture);
}

static void
connect_later_co_run(void *arg)
{
    bf_test_peer_co_connect_soon(((void **)arg)[0], ((void **)arg)[1]);
}

static void
co_wait_ends_with_first_client(void *arg)
{
    Fixture fixture = {.monitors = bf_monitors_new(bf_test_loops()->main),
                       .path = bf_test_temp_path()};
    g_autofree char *text =
        g_strdup_printf("socket,id=m,path=%s,server=on", fixture.path);
    BfTestPeer peer;
    void *connect_args[] = {&peer, fixture.path};

    bf_co_spawn_later(connect_later_co_run, connect_args);
    g_assert_true(co_add(&fixture, text, "m", NULL));
    bf_monitors_start(fixture.monitors);
    bf_test_peer_co_negotiate(&peer);
    bf_test_peer_clear(&peer);
    co_teardown(&fixture);
}

static void
co_monitors_name_problems(void *arg)
{
    static const char *const cases[][3] = {
        {"socket,id=z,path=/nonexistent/x,server=on,wait=off", "z",
         "Failed to add chardev 'z': Failed to bind socket to /nonexistent/x: "
         "No such file or directory"},
        {"null,id=a", "b", "chardev \"b\" not found"},
        {"null,id=a", "a", "Chardev with id 'a' already exists"},
        {"null,id=c", "m", "chardev 'm' is in use by another monitor"},
    };
    Fixture fixture;

    co_setup(&fixture);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_false(co_add(&fixture, cases[i][0], cases[i][1], &error));
        g_assert_cmpstr(error->message, ==, cases[i][2]);
    }
    g_assert_cmpint(bf_monitors_count(fixture.monitors), ==, 1);
    co_teardown(&fixture);
}

static void
test_chardev_options_are_checked(void)
{
    static const char *const cases[][2] = {
        {"socket,path=/x", "chardev: no id specified"},
        {"socket,id=a", "*exactly one of*"},
        {"socket,id=a,path=/x,host=h,port=1", "*exactly one of*"},
        {"socket,id=a,host=h", "chardev: socket: no port given"},
        {"socket,id=a,path=/x,port=1", "*go with 'host'*"},
        {"socket,id=a,path=/x,wait=off", "'wait' option is incompatible*"},
        {"socket,id=a,path=/x,server,reconnect=1", "'reconnect' option is*"},
        {"socket,id=a,path=/x,server=maybe", "*'server' expects 'on' or*"},
        {"socket,id=a,path=/x,server,tls-authz=t", "*requires 'tls-creds'*"},
        {"socket,id=a,path=/x,tls-creds=t,tls-authz=t", "*client connect mode"},
        {"pty,id=a", "*pty*"},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(BfChardevConfig) config =
            bf_chardev_config_parse(cases[i][0], &error);

        g_assert_null(config);
        if (!g_pattern_match_simple(cases[i][1], error->message)) {
            g_error("'%s' is not like '%s'", error->message, cases[i][1]);
        }
    }
}

static void
test_chardev_options_are_read(void)
{
    g_autoptr(BfChardevConfig) config =
        bf_chardev_config_parse("socket,id=a,path=/x,,y,server,wait=off", NULL);
    g_autoptr(BfChardevConfig) tcp = bf_chardev_config_parse(
        "socket,id=b,host=h,port=http,ipv6=off,reconnect=2", NULL);

    g_assert_nonnull(config);
    g_assert_cmpstr(config->address->u.unix_->path, ==, "/x,y");
    g_assert_true(config->server);
    g_assert_false(config->wait);
    g_assert_nonnull(tcp);
    g_assert_cmpint(tcp->reconnect_ms, ==, 2000);
    g_assert_true(tcp->address->u.inet->has_ipv6);
    g_assert_false(tcp->address->u.inet->ipv6);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qmp/chardev/parse/options-are-checked",
                    test_chardev_options_are_checked);
    g_test_add_func("/qmp/chardev/parse/options-are-read",
                    test_chardev_options_are_read);
    bf_test_add("/qmp/monitor/takes-single-bytes-and-joined-requests",
                co_takes_single_bytes_and_joined_requests);
    bf_test_add("/qmp/monitor/half-closed-client-gets-its-reply",
                co_half_closed_client_gets_its_reply);
    bf_test_add("/qmp/monitor/events-go-to-negotiated-clients",
                co_events_go_to_negotiated_clients);
    bf_test_add("/qmp/monitor/client-that-reads-no-events-is-cut-off",
                co_client_that_reads_no_events_is_cut_off);
    bf_test_add("/qmp/monitor/descriptors-get-names", co_descriptors_get_names);
    bf_test_add("/qmp/monitors/too-many-clients-are-told",
                co_too_many_clients_are_told);
    bf_test_add("/qmp/monitors/quit-is-answered-before-the-end",
                co_quit_is_answered_before_the_end);
    bf_test_add("/qmp/monitors/stopped-set-sends-events",
                co_stopped_set_begins_no_command_but_sends_events);
    bf_test_add("/qmp/monitors/reconnecting-client-comes-back",
                co_reconnecting_client_comes_back);
    bf_test_add("/qmp/monitors/wait-for-client-can-be-cancelled",
                co_wait_for_client_can_be_cancelled);
    bf_test_add("/qmp/monitors/wait-ends-with-first-client",
                co_wait_ends_with_first_client);
    bf_test_add("/qmp/monitors/name-problems", co_monitors_name_problems);
    return g_test_run();
}
