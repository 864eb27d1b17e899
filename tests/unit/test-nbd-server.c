/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Life cycle of NBD exports and the server: refusals of block-export-add, hard
 * removal under load, the limit of connections, and stopping in any state.
 */
#include <string.h>

#include "core/error.h"
#include "core/util.h"
#include "harness.h"
#include "io/channel-socket.h"
#include "nbd-peer.h"
#include "server/nbd/nbd-private.h"

static void
open_with_export(BfNbdFixture *fix)
{
    bf_nbd_fixture_co_open(fix);
    bf_nbd_fixture_co_add_null(fix, "n0");
    bf_nbd_fixture_co_export(fix, "e0", "n0", true);
}

/* Adds an export that must be refused with this text. */
static void
expect_refusal(BfNbdFixture *fix, const BfBlockExportOptions *options,
               const char *text)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(bf_nbd_export_co_add(&fix->server, fix->table, fix->graph,
                                        options, NULL, NULL, &error));
    g_assert_error(error, BF_ERROR, BF_ERROR_GENERIC);
    g_assert_cmpstr(error->message, ==, text);
}

static void
test_refusals_of_block_export_add(void *arg)
{
    BfBlockExportOptionsNbd nbd = {.name = (char *)"x"};
    BfBlockExportOptions options = {
        .id = (char *)"9",
        .node_name = (char *)"nope",
        .u.nbd = &nbd,
    };
    BfBlockDirtyBitmapOrStr bitmap = {.u.str = (char *)"b0"};
    BfBlockExportIothreads iothreads = {.u.str = (char *)"t0"};
    BfBlockDirtyBitmapOrStr *items[] = {&bitmap};
    BfBlockDirtyBitmapOrStrList bitmaps = {.len = 1, .items = items};
    BfNbdServer *server = NULL;
    BfNbdFixture fix = {.deleted = 0};

    open_with_export(&fix);
    expect_refusal(&fix, &options, "Invalid block export id");
    options.id = (char *)"e0";
    expect_refusal(&fix, &options, "Block export id 'e0' is already in use");
    options.id = (char *)"e1";
    expect_refusal(&fix, &options,
                   "Cannot find device='' nor node-name='nope'");
    options.node_name = (char *)"n0";
    options.iothread = &iothreads;
    expect_refusal(&fix, &options, "iothread \"t0\" not found");
    options.iothread = NULL;
    nbd.name = (char *)"e0";
    expect_refusal(&fix, &options, "NBD server already has export named 'e0'");
    nbd.name = (char *)"e1";
    nbd.bitmaps = &bitmaps;
    expect_refusal(&fix, &options, "Bitmap 'b0' is not found");
    nbd.bitmaps = NULL;
    server = g_steal_pointer(&fix.server);
    expect_refusal(&fix, &options, "NBD server not running");
    fix.server = server;
    g_assert_null(bf_export_table_find(fix.table, "e1"));
    bf_nbd_fixture_co_close(&fix);
}

static void
test_id_is_free_after_the_event(void *arg)
{
    BfNbdFixture fix = {.deleted = 0};
    BfExport *exp = NULL;
    BfChannel *peer = NULL;

    open_with_export(&fix);
    exp = bf_export_table_find(fix.table, "e0");
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    g_assert_cmpuint(bf_export_count_clients(exp), ==, 1);
    bf_export_start_close(exp);
    g_assert_true(bf_export_is_closing(exp));
    bf_nbd_peer_co_expect_end(peer);
    bf_channel_free(peer);
    bf_export_table_co_wait_closed(fix.table);
    g_assert_cmpuint(fix.deleted, ==, 1);
    bf_nbd_fixture_co_export(&fix, "e0", "n0", false);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_closing_export_can_be_asked(void *arg)
{
    BfNbdFixture fix = {.deleted = 0};
    unsigned asked = 0;

    open_with_export(&fix);
    bf_export_start_close(bf_export_table_find(fix.table, "e0"));
    while (fix.deleted == 0) {
        BfExport *exp = bf_export_table_find(fix.table, "e0");
        BfIoStats stats;

        g_assert_cmpstr(bf_export_node_name(exp), ==, "n0");
        bf_export_stats(exp, &stats);
        g_assert_false(bf_export_uses_loop(exp, bf_test_loops()->main));
        g_assert_null(
            bf_export_table_find_loop_user(fix.table, bf_test_loops()->main));
        asked++;
        bf_co_yield();
    }
    g_assert_cmpuint(asked, >, 0);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_hard_removal_with_requests_in_flight(void *arg)
{
    BfFaultRule rule = {
        .op = BF_FAULT_OP_ANY,
        .errno_ = (char *)"",
        .delay_ms = 30,
        .probability = 50,
    };
    const uint8_t data[4096] = {1};
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peers[4];

    bf_nbd_fixture_co_open(&fix);
    bf_nbd_fixture_co_add_null(&fix, "n0");
    bf_nbd_fixture_co_add_fault(&fix, "n1", "n0", &rule);
    bf_nbd_fixture_co_export(&fix, "e0", "n1", true);
    for (unsigned i = 0; i < G_N_ELEMENTS(peers); i++) {
        peers[i] = bf_nbd_peer_co_go(&fix, "e0", false);
        for (unsigned n = 0; n < 20; n++) {
            bf_nbd_peer_co_request(peers[i], BF_NBD_COMMAND_READ, 0, n, 0,
                                   65536);
            bf_nbd_peer_co_request(peers[i], BF_NBD_COMMAND_WRITE, 0, n, 0,
                                   sizeof(data));
            /* The last one stops in the middle of a write. */
            bf_nbd_peer_co_send(peers[i], data, n == 19 ? 100 : sizeof(data));
        }
    }
    bf_export_start_close(bf_export_table_find(fix.table, "e0"));
    bf_export_table_co_wait_closed(fix.table);
    g_assert_cmpuint(fix.deleted, ==, 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(peers); i++) {
        bf_channel_free(peers[i]);
    }
    bf_nbd_fixture_co_close(&fix);
}

static void
test_stop_closes_clients_in_negotiation(void *arg)
{
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *silent = NULL;
    BfChannel *greeted = NULL;

    open_with_export(&fix);
    silent = bf_nbd_peer_connect(&fix);
    greeted = bf_nbd_peer_co_greet(&fix);
    bf_nbd_fixture_co_close(&fix);
    g_assert_cmpuint(fix.deleted, ==, 1);
    bf_nbd_peer_co_expect_end(greeted);
    bf_channel_free(greeted);
    bf_channel_free(silent);
}

static void
test_stop_races_with_clients(void *arg)
{
    for (unsigned round = 0; round < 50; round++) {
        BfNbdFixture fix = {.deleted = 0};
        BfChannel *peers[8];

        open_with_export(&fix);
        for (unsigned i = 0; i < G_N_ELEMENTS(peers); i++) {
            peers[i] = bf_nbd_peer_connect(&fix);
            bf_nbd_peer_co_send(peers[i], "\0\0\0\3", 4);
            bf_nbd_peer_co_send_go(peers[i], BF_NBD_OPTION_GO, "e0");
            bf_nbd_peer_co_request(peers[i], BF_NBD_COMMAND_READ, 0, 1, 0,
                                   65536);
        }
        bf_co_sleep_ns(round * 10 * BF_NS_PER_US);
        bf_nbd_fixture_co_close(&fix);
        for (unsigned i = 0; i < G_N_ELEMENTS(peers); i++) {
            bf_channel_free(peers[i]);
        }
    }
}

static int
connect_to(const BfSocketAddress *address)
{
    g_autoptr(GError) error = NULL;
    int fd =
        bf_address_co_connect(address, NULL, NULL, BF_FOREVER, NULL, &error);

    g_assert_no_error(error);
    return fd;
}

/* A server on a socket of its own instead of the fixture's. */
static void
co_listen(BfNbdFixture *fix, const BfSocketAddress *address)
{
    g_autoptr(GError) error = NULL;

    bf_nbd_server_co_stop(g_steal_pointer(&fix->server));
    fix->config.first.address = address;
    fix->server = bf_nbd_server_co_start(&fix->config, &error);
    g_assert_no_error(error);
}

/* A server with the export "e0" at a UNIX socket. */
static void
open_listening(BfNbdFixture *fix, BfSocketAddress *address)
{
    BfUnixSocketAddress *unix_address = g_new0(BfUnixSocketAddress, 1);

    unix_address->path = bf_test_temp_path();
    address->type = BF_SOCKET_ADDRESS_TYPE_UNIX;
    address->u.unix_ = unix_address;
    bf_nbd_fixture_co_open(fix);
    bf_nbd_fixture_co_add_null(fix, "n0");
    co_listen(fix, address);
    bf_nbd_fixture_co_export(fix, "e0", "n0", false);
}

static void
close_listening(BfNbdFixture *fix, BfSocketAddress *address)
{
    bf_nbd_fixture_co_close(fix);
    g_assert_false(g_file_test(address->u.unix_->path, G_FILE_TEST_EXISTS));
    g_free(address->u.unix_->path);
    g_free(address->u.unix_);
}

static void
co_wait_for_length(const GQueue *queue, unsigned length)
{
    while (queue->length != length) {
        bf_co_yield();
    }
}

static BfChannel *
co_connected(const BfSocketAddress *address)
{
    return bf_channel_socket_new(connect_to(address));
}

static void
co_expect_greeting(BfChannel *peer)
{
    uint8_t greeting[BF_NBD_GREETING_BYTES];

    bf_nbd_peer_co_recv(peer, greeting, sizeof(greeting));
    bf_nbd_peer_co_send(peer, "\0\0\0\3", 4);
}

/* A peer that is known to be silent after the greeting. */
static BfChannel *
co_silent(BfNbdFixture *fix, const BfSocketAddress *address)
{
    BfChannel *peer = co_connected(address);
    uint8_t greeting[BF_NBD_GREETING_BYTES];
    const BfNbdClient *client = NULL;

    bf_nbd_peer_co_recv(peer, greeting, sizeof(greeting));
    client = g_queue_peek_tail(&fix->server->clients);
    while (bf_peer_wait_since(&client->wait) == BF_PEER_WAIT_NONE) {
        bf_co_yield();
    }
    return peer;
}

static BfChannel *
co_greeted(const BfSocketAddress *address)
{
    BfChannel *peer = co_connected(address);

    co_expect_greeting(peer);
    return peer;
}

static void
co_expect_choice(BfChannel *peer)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();
    uint32_t type = BF_NBD_REPLY_INFO;

    while (type == BF_NBD_REPLY_INFO) {
        type = bf_nbd_peer_co_reply(peer, BF_NBD_OPTION_GO, payload);
    }
    g_assert_cmphex(type, ==, BF_NBD_REPLY_ACK);
}

static void
co_choose(BfChannel *peer)
{
    bf_nbd_peer_co_send_go(peer, BF_NBD_OPTION_GO, "e0");
    co_expect_choice(peer);
}

static void
test_connections_above_the_limit_wait(void *arg)
{
    BfNbdFixture fix = {.config.first.max_connections = 2};
    BfSocketAddress address = {0};
    BfChannel *peers[5];

    open_listening(&fix, &address);
    for (unsigned i = 0; i < G_N_ELEMENTS(peers); i++) {
        peers[i] = co_connected(&address);
        if (i < 2) {
            co_expect_greeting(peers[i]);
            co_choose(peers[i]);
        }
    }
    /* One is known to wait, the others are in the kernel's queue. */
    co_wait_for_length(&fix.server->lobby.waiting, 1);
    g_assert_cmpuint(fix.server->clients.length, ==, 2);
    for (unsigned i = 2; i < G_N_ELEMENTS(peers); i++) {
        bf_nbd_peer_co_leave(peers[i - 2]);
        co_expect_greeting(peers[i]);
        co_choose(peers[i]);
        g_assert_cmpuint(fix.server->lobby.places_used, ==, 2);
    }
    bf_nbd_peer_co_leave(peers[3]);
    bf_nbd_peer_co_leave(peers[4]);
    close_listening(&fix, &address);
}

static void
test_choice_above_the_limit_waits(void *arg)
{
    BfNbdFixture fix = {
        .config.first = {.max_connections = 1, .handshake_max_seconds = 10}};
    BfSocketAddress address = {0};
    BfChannel *first;
    BfChannel *second;
    BfChannel *third;
    BfChannel *silent;

    open_listening(&fix, &address);
    first = co_greeted(&address);
    second = co_greeted(&address);
    third = co_greeted(&address);
    silent = co_greeted(&address);
    co_choose(first);
    bf_nbd_peer_co_send_go(second, BF_NBD_OPTION_GO, "e0");
    co_wait_for_length(&fix.server->lobby.place_queue, 1);
    bf_nbd_peer_co_send_go(third, BF_NBD_OPTION_GO, "e0");
    co_wait_for_length(&fix.server->lobby.place_queue, 2);

    /* That time is not theirs. */
    bf_test_advance(100 * BF_NS_PER_SEC);
    bf_nbd_peer_co_expect_end(silent);
    g_assert_cmpuint(fix.server->lobby.place_queue.length, ==, 2);
    bf_nbd_peer_co_leave(first);
    co_expect_choice(second);
    g_assert_cmpuint(fix.server->lobby.places_used, ==, 1);
    g_assert_cmpuint(fix.server->lobby.place_queue.length, ==, 1);

    /* The last one waits until the server is stopped. */
    bf_channel_free(silent);
    close_listening(&fix, &address);
    bf_nbd_peer_co_expect(third, BF_NBD_OPTION_GO, BF_NBD_REPLY_ERR_SHUTDOWN,
                          "the server is shutting down");
    bf_nbd_peer_co_expect_end(third);
    bf_channel_free(second);
    bf_channel_free(third);
}

/* Its clock stands still while it waits, and does not start anew. */
static void
test_wait_for_a_place_does_not_cost_time(void *arg)
{
    BfNbdFixture fix = {
        .config.first = {.max_connections = 1, .handshake_max_seconds = 10}};
    BfSocketAddress address = {0};
    const BfNbdClient *client = NULL;
    BfChannel *user;
    BfChannel *late;

    open_listening(&fix, &address);
    bf_nbd_fixture_co_export(&fix, "e1", "n0", false);
    user = co_greeted(&address);
    late = co_silent(&fix, &address);
    client = g_queue_peek_tail(&fix.server->clients);
    co_choose(user);
    bf_test_advance(9 * BF_NS_PER_SEC);
    bf_nbd_peer_co_send(late, "\0\0\0\3", 4);
    bf_nbd_peer_co_send_go(late, BF_NBD_OPTION_GO, "e1");
    co_wait_for_length(&fix.server->lobby.place_queue, 1);
    bf_test_advance(100 * BF_NS_PER_SEC);
    g_assert_cmpuint(fix.server->lobby.place_queue.length, ==, 1);

    /* What it waits for goes, so it is in negotiation again. */
    bf_export_start_close(bf_export_table_find(fix.table, "e1"));
    bf_nbd_peer_co_leave(user);
    bf_nbd_peer_co_expect(late, BF_NBD_OPTION_GO, BF_NBD_REPLY_ERR_UNKNOWN,
                          "export 'e1' not present");
    while (bf_peer_wait_since(&client->wait) == BF_PEER_WAIT_NONE) {
        bf_co_yield();
    }
    bf_test_advance(BF_NS_PER_SEC - 1);
    g_assert_false(client->timed_out);
    bf_test_advance(1);
    bf_nbd_peer_co_expect_end(late);
    bf_channel_free(late);
    close_listening(&fix, &address);
}

static void
test_silent_peers_make_room(void *arg)
{
    BfNbdFixture fix = {.config.first.max_connections = 1};
    BfSocketAddress address = {0};
    BfChannel *silent;
    BfChannel *slow;
    BfChannel *third;
    BfNbdLobby *lobby;

    open_listening(&fix, &address);
    lobby = &fix.server->lobby;
    lobby->negotiating_max = 2;
    silent = co_silent(&fix, &address);
    bf_test_advance(BF_NS_PER_SEC / 4);
    slow = co_silent(&fix, &address);

    /* The third waits until the first one has had its time, no longer. */
    third = co_connected(&address);
    co_wait_for_length(&lobby->waiting, 1);
    bf_test_advance(BF_NS_PER_SEC * 3 / 4 - 1);
    g_assert_cmpuint(lobby->n_dropped, ==, 0);
    bf_test_advance(1);
    bf_nbd_peer_co_expect_end(silent);
    co_expect_greeting(third);
    g_assert_cmpuint(lobby->negotiating.length, ==, 2);

    /* Who has chosen an export is not in negotiation any more. */
    bf_nbd_peer_co_send(slow, "\0\0\0\3", 4);
    co_choose(slow);
    g_assert_cmpuint(lobby->negotiating.length, ==, 1);
    bf_test_advance(100 * BF_NS_PER_SEC);
    g_assert_cmpuint(fix.server->clients.length, ==, 2);
    bf_nbd_peer_co_leave(slow);
    bf_channel_free(silent);
    bf_channel_free(third);
    close_listening(&fix, &address);
}

static void
test_too_many_that_wait_are_turned_away(void *arg)
{
    BfNbdFixture fix = {.config.first.max_connections = 1};
    BfSocketAddress address = {0};
    BfChannel *silent;
    BfChannel *second;
    BfChannel *third;

    open_listening(&fix, &address);
    fix.server->lobby.negotiating_max = 1;
    fix.server->lobby.waiting_max = 1;
    silent = co_silent(&fix, &address);
    second = co_connected(&address);
    co_wait_for_length(&fix.server->lobby.waiting, 1);
    third = co_connected(&address);
    bf_nbd_peer_co_expect_end(second);
    g_assert_cmpuint(fix.server->lobby.waiting.length, ==, 1);
    bf_test_advance(BF_NS_PER_SEC);
    co_expect_greeting(third);
    bf_nbd_peer_co_expect_end(silent);
    bf_channel_free(silent);
    bf_channel_free(second);
    bf_channel_free(third);
    close_listening(&fix, &address);
}

static void
test_clients_spread_over_the_workers(void *arg)
{
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peers[6];

    open_with_export(&fix);
    for (unsigned i = 0; i < G_N_ELEMENTS(peers); i++) {
        peers[i] = bf_nbd_peer_co_go(&fix, "e0", false);
        bf_nbd_peer_co_request(peers[i], BF_NBD_COMMAND_FLUSH, 0, 0, 0, 0);
        g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(peers[i], 0);
        g_assert_cmpuint(reply.error, ==, 0);
    }
    g_assert_cmpuint(fix.server->load[0], ==, 3);
    g_assert_cmpuint(fix.server->load[1], ==, 3);
    g_assert_true(bf_export_uses_loop(bf_export_table_find(fix.table, "e0"),
                                      bf_test_loops()->workers[0]));
    for (unsigned i = 0; i < G_N_ELEMENTS(peers); i++) {
        bf_nbd_peer_co_leave(peers[i]);
    }
    bf_nbd_fixture_co_close(&fix);
}

int
main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* splice has no MSG_NOSIGNAL */
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/serve/nbd/export/refusals",
                test_refusals_of_block_export_add);
    bf_test_add("/serve/nbd/export/id-is-free-after-the-event",
                test_id_is_free_after_the_event);
    bf_test_add("/serve/nbd/export/closing-export-can-be-asked",
                test_closing_export_can_be_asked);
    bf_test_add("/serve/nbd/export/hard-removal-with-requests-in-flight",
                test_hard_removal_with_requests_in_flight);
    bf_test_add("/serve/nbd/server/stop-closes-clients-in-negotiation",
                test_stop_closes_clients_in_negotiation);
    bf_test_add("/serve/nbd/server/stop-races-with-clients",
                test_stop_races_with_clients);
    bf_test_add("/serve/nbd/server/connections-above-the-limit-wait",
                test_connections_above_the_limit_wait);
    bf_test_add_fake("/serve/nbd/server/choice-above-the-limit-waits",
                     test_choice_above_the_limit_waits);
    bf_test_add_fake("/serve/nbd/server/wait-for-a-place-does-not-cost-time",
                     test_wait_for_a_place_does_not_cost_time);
    bf_test_add_fake("/serve/nbd/server/silent-peers-make-room",
                     test_silent_peers_make_room);
    bf_test_add_fake("/serve/nbd/server/too-many-that-wait-are-turned-away",
                     test_too_many_that_wait_are_turned_away);
    bf_test_add("/serve/nbd/server/clients-spread-over-the-workers",
                test_clients_spread_over_the_workers);
    return g_test_run();
}
