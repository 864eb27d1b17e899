/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From requests to replies: form, state, ids, and deep or big texts. */
#include "qmp/dispatch.h"

#include <string.h>
#include <sys/socket.h>

#include "core/util.h"
#include "harness.h"
#include "io/channel-socket.h"
#include "qmp-peer.h"
#include "qmp/gen-commands.h"
#include "qmp/monitor.h"

/* A client of a set of monitors that has no daemon. */
typedef struct Fixture {
    BfMonitors *monitors;
    BfPoolLane *lane;
    BfTestPeer peer;
    bool ended;
} Fixture;

static void
on_changed(void *opaque)
{
}

static void
on_ended(void *opaque)
{
    ((Fixture *)opaque)->ended = true;
}

static void
setup(Fixture *fixture, BfJsonStyle style)
{
    int fds[2];

    *fixture = (Fixture){.monitors = bf_monitors_new(bf_test_loops()->main),
                         .lane = bf_pool_lane_new("test", 1)};
    g_assert_cmpint(
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
        ==, 0);
    bf_test_peer_init(&fixture->peer, fds[0]);
    bf_monitor_client_start(&(BfMonitorClientConfig){
        .call = {.monitors = fixture->monitors},
        .channel = bf_channel_socket_new(fds[1]),
        .name = "test",
        .lane = fixture->lane,
        .style = style,
        .changed = on_changed,
        .ended = on_ended,
        .opaque = fixture,
    });
}

static void
co_teardown(Fixture *fixture)
{
    bf_test_peer_clear(&fixture->peer);
    while (!fixture->ended) {
        bf_co_next_turn();
    }
    bf_pool_lane_free(fixture->lane);
    bf_monitors_free(fixture->monitors);
}

#define GENERIC(desc)                                                          \
    "{\"error\": {\"class\": \"GenericError\", \"desc\": \"" desc "\"}}"
#define NOT_FOUND(desc)                                                        \
    "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"" desc "\"}}"

static const struct {
    const char *request;
    const char *reply;
} form_cases[] = {
    {"[]", GENERIC("QMP input must be a JSON object")},
    {"'x' ", GENERIC("QMP input must be a JSON object")},
    {"null ", GENERIC("QMP input must be a JSON object")},
    {"{}", GENERIC("QMP input lacks member 'execute'")},
    {"{'execute':1}", GENERIC("QMP input member 'execute' must be a string")},
    {"{'execute':18446744073709551615}",
     GENERIC("QMP input member 'execute' must be a string")},
    {"{'exec-oob':'quit'}",
     GENERIC("QMP input member 'exec-oob' is unexpected")},
    {"{'execute':'quit','arguments':[]}",
     GENERIC("QMP input member 'arguments' must be an object")},
    {"{'execute':'quit','foo':1}",
     GENERIC("QMP input member 'foo' is unexpected")},
    {"{'execute':'nope'}", NOT_FOUND("The command nope has not been found")},
    {"{'execute':'quit\\u0000'}",
     NOT_FOUND("The command quit has not been found")},
    {"{'execute':'qmp_capabilities'}",
     NOT_FOUND("Capabilities negotiation is already complete, command "
               "ignored")},
    {"{'execute':'query-version','arguments':{'x':1}}",
     GENERIC("Parameter 'x' is unexpected")},
    {"}", GENERIC("JSON parse error, expecting value")},
    {"{'a':1,'a':2,'id':3}", GENERIC("JSON parse error, duplicate key")},
    {"\001", GENERIC("JSON parse error, stray '\\u0001'")},
};

static void
co_wrong_form_is_told(void *arg)
{
    Fixture fixture;

    setup(&fixture, BF_JSON_STYLE_COMPACT);
    bf_test_peer_co_negotiate(&fixture.peer);
    for (unsigned i = 0; i < G_N_ELEMENTS(form_cases); i++) {
        bf_test_peer_co_ask(&fixture.peer, form_cases[i].request,
                            form_cases[i].reply);
    }
    co_teardown(&fixture);
}

static void
co_negotiation_comes_first(void *arg)
{
    Fixture fixture;

    setup(&fixture, BF_JSON_STYLE_COMPACT);
    bf_test_peer_co_expect_like(
        &fixture.peer,
        "{\"QMP\": {\"version\": {\"qemu\": {\"major\": 10, \"minor\": 0, "
        "\"micro\": 0}, \"package\": \"blockferry *\"}, \"capabilities\": "
        "[\"oob\"]}}");
    bf_test_peer_co_ask(&fixture.peer, "{'execute':'query-version','id':1}",
                        "{\"error\": {\"class\": \"CommandNotFound\", "
                        "\"desc\": \"Expecting capabilities negotiation with "
                        "'qmp_capabilities'\"}, \"id\": 1}");
    bf_test_peer_co_ask(&fixture.peer, "{'execute':'nope'}",
                        NOT_FOUND("Expecting capabilities negotiation with "
                                  "'qmp_capabilities'"));
    bf_test_peer_co_ask(&fixture.peer, "{}",
                        GENERIC("QMP input lacks member 'execute'"));
    bf_test_peer_co_send(&fixture.peer, "{'execute':'qmp_capabilities',"
                                        "'arguments':{'enable':['foo']}}");
    bf_test_peer_co_expect_like(&fixture.peer, "{\"error\": *foo*}");
    bf_test_peer_co_ask(&fixture.peer, "{'execute':'qmp_capabilities'}",
                        "{\"return\": {}}");
    co_teardown(&fixture);
}

static void
co_ids_are_echoed(void *arg)
{
    static const char *const ids[] = {
        "null",
        "1",
        "\"x\"",
        "{\"a\": [1, {}]}",
        "[]",
        "true",
        "-0.25",
        "\"a,\\\":b\"",
        "18446744073709551615",
        "\"\\\\\"",
        "{\"a,\\\\\": [\":\", \"\\\"\", \"\"]}",
        "\"x\\u00E9\\uD83D\\uDE00y\\u007F\\u00FFz\"",
    };
    Fixture fixture;

    setup(&fixture, BF_JSON_STYLE_COMPACT);
    bf_test_peer_co_negotiate(&fixture.peer);
    for (unsigned i = 0; i < G_N_ELEMENTS(ids); i++) {
        g_autofree char *request =
            g_strdup_printf("{'id':%s,'execute':'query-version'}", ids[i]);
        g_autofree char *pattern =
            g_strdup_printf("{\"return\": {*}, \"id\": %s}", ids[i]);

        bf_test_peer_co_send(&fixture.peer, request);
        bf_test_peer_co_expect_like(&fixture.peer, pattern);
    }
    co_teardown(&fixture);
}

static void
co_oob_is_refused_by_commands(void *arg)
{
    Fixture fixture;

    setup(&fixture, BF_JSON_STYLE_COMPACT);
    bf_test_peer_co_expect_like(&fixture.peer, "{\"QMP\": *");
    bf_test_peer_co_ask(&fixture.peer,
                        "{'execute':'qmp_capabilities',"
                        "'arguments':{'enable':['oob']}}",
                        "{\"return\": {}}");
    bf_test_peer_co_ask(&fixture.peer, "{'exec-oob':'quit'}",
                        GENERIC("The command quit does not support OOB"));
    bf_test_peer_co_ask(&fixture.peer, "{'exec-oob':'nope'}",
                        NOT_FOUND("The command nope has not been found"));
    bf_test_peer_co_ask(&fixture.peer, "{'exec-oob':'quit','execute':'quit'}",
                        GENERIC("QMP input member 'execute' clashes with "
                                "'exec-oob'"));
    co_teardown(&fixture);
}

static void
co_pretty_style_indents(void *arg)
{
    static const char *const lines[] = {"{", "    \"return\": {", "    },",
                                        "    \"id\": 1", "}"};
    Fixture fixture;

    setup(&fixture, BF_JSON_STYLE_PRETTY);
    for (;;) {
        g_autofree char *line = bf_test_peer_co_line(&fixture.peer);

        if (strcmp(line, "}") == 0) {
            break; /* of the greeting */
        }
    }
    bf_test_peer_co_send(&fixture.peer,
                         "{'execute':'qmp_capabilities','id':1}");
    for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++) {
        bf_test_peer_co_expect(&fixture.peer, lines[i]);
    }
    co_teardown(&fixture);
}

/* A query-version with an unexpected argument of @fill bytes or levels. */
static char *
hostile_request(bool deep, size_t fill)
{
    g_autofree char *open = g_strnfill(fill, deep ? '[' : 'x');
    g_autofree char *close = g_strnfill(deep ? fill : 0, ']');

    return g_strdup_printf(
        "{'execute':'query-version','arguments':{'x':%s%s%s%s}}",
        deep ? "" : "'", open, close, deep ? "" : "'");
}

static void
co_deep_and_big_texts_are_read(void *arg)
{
    g_autofree char *deep = hostile_request(true, 1020);
    g_autofree char *too_deep = hostile_request(true, 1100);
    g_autofree char *big = hostile_request(false, 2 * BF_REQUEST_BIG_BYTES);
    Fixture fixture;

    setup(&fixture, BF_JSON_STYLE_COMPACT);
    bf_test_peer_co_negotiate(&fixture.peer);
    bf_test_peer_co_ask(&fixture.peer, deep,
                        GENERIC("Parameter 'x' is unexpected"));
    bf_test_peer_co_ask(&fixture.peer, big,
                        GENERIC("Parameter 'x' is unexpected"));
    bf_test_peer_co_ask(&fixture.peer, too_deep,
                        GENERIC("JSON nesting depth limit exceeded"));
    bf_test_peer_co_send(&fixture.peer, "\n{'execute':'query-version'}");
    bf_test_peer_co_expect_like(&fixture.peer, "{\"return\": *");
    co_teardown(&fixture);
}

static void
co_queries_answer(void *arg)
{
    g_autofree char *expected = NULL;
    Fixture fixture;

    setup(&fixture, BF_JSON_STYLE_COMPACT);
    bf_test_peer_co_negotiate(&fixture.peer);
    bf_test_peer_co_send(&fixture.peer, "{'execute':'query-commands'}");
    bf_test_peer_co_expect_like(&fixture.peer,
                                "{\"return\": [{\"name\": \"*\"quit\"*]}");
    bf_test_peer_co_send(&fixture.peer, "{'execute':'query-qmp-schema'}");
    bf_test_peer_co_expect_like(&fixture.peer,
                                "{\"return\": [{*\"BLOCK_EXPORT_DELETED\"*]}");
    expected = g_strdup_printf("{\"return\": %s, \"id\": [1, \"x\"]}",
                               bf_qmp_introspection);
    bf_test_peer_co_ask(
        &fixture.peer, "{'execute':'query-qmp-schema','id':[1,'x']}", expected);
    bf_test_peer_co_ask(&fixture.peer, "{'execute':'query-chardev'}",
                        "{\"return\": []}");
    co_teardown(&fixture);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/qmp/dispatch/wrong-form-is-told", co_wrong_form_is_told);
    bf_test_add("/qmp/dispatch/negotiation-comes-first",
                co_negotiation_comes_first);
    bf_test_add("/qmp/dispatch/ids-are-echoed", co_ids_are_echoed);
    bf_test_add("/qmp/dispatch/oob-is-refused-by-commands",
                co_oob_is_refused_by_commands);
    bf_test_add("/qmp/dispatch/pretty-style-indents", co_pretty_style_indents);
    bf_test_add("/qmp/dispatch/deep-and-big-texts-are-read",
                co_deep_and_big_texts_are_read);
    bf_test_add("/qmp/dispatch/queries-answer", co_queries_answer);
    return g_test_run();
}
