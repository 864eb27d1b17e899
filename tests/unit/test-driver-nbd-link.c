/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd: opening, losing and closing connections, on a clock that the tests move,
 * so that every limit of time is tried out at no cost.
 */
#include <errno.h>
#include <string.h>

#include "core/util.h"
#include "harness.h"
#include "nbd-script.h"

/* With a reconnect-delay of so many seconds. */
static void
co_open(BfNbdUse *fix, unsigned delay)
{
    BfBlockdevOptions *options = NULL;

    bf_nbd_script_open(&fix->script);
    options = bf_nbd_script_options(&fix->script);
    options->u.nbd->reconnect_delay = delay;
    bf_nbd_use_co_begin(fix, options);
}

/* Moves the clock, second by second, until @op has ended; returns how far. */
static unsigned
co_pass_time_until_done(BfNbdOp *op)
{
    unsigned seconds = 0;

    while (!op->done) {
        bf_test_advance(BF_NS_PER_SEC);
        seconds++;
    }
    return seconds;
}

/* Moves the clock until a connection is there that is made again. */
static BfChannel *
co_peer_again(BfNbdUse *fix, unsigned index)
{
    while (fix->script.n_peers <= index) {
        bf_test_advance(10 * BF_NS_PER_MS);
    }
    return fix->script.peers[index];
}

/* Adding a node, in the background. */
typedef struct Adding {
    BfGraph *graph;
    BfBlockdevOptions *options; /* owned */
    GError *error;
    bool ok;
    bool done;
    BfCoQueue ended;
} Adding;

static void
add_co_run(void *arg)
{
    Adding *adding = arg;

    adding->ok = bf_graph_co_blockdev_add(adding->graph, adding->options,
                                          &adding->error);
    adding->done = true;
    bf_co_queue_wake_all(&adding->ended);
}

static void
add_start(Adding *adding, BfGraph *graph, BfBlockdevOptions *options)
{
    *adding = (Adding){.graph = graph, .options = options};
    bf_co_spawn(add_co_run, adding);
}

static void
add_co_wait(Adding *adding)
{
    while (!adding->done) {
        bf_co_queue_co_wait(&adding->ended);
    }
    bf_blockdev_options_free(adding->options);
}

static void
add_co_pass_time(Adding *adding)
{
    while (!adding->done) {
        bf_test_advance(BF_NS_PER_SEC);
    }
    add_co_wait(adding);
}

/* Losing the connection. */

static void
test_requests_are_sent_again(void *arg)
{
    BfNbdUse fix;
    uint8_t buf[4096];
    uint8_t data[4096];
    BfNbdOp write = {.kind = NBD_OP_WRITE, .bytes = sizeof(data), .buf = data};
    BfNbdOp read = {
        .kind = NBD_OP_READ, .offset = 8192, .bytes = sizeof(buf), .buf = buf};
    g_autoptr(GByteArray) payload = g_byte_array_new();
    BfNbdRequest request;
    BfChannel *peer = NULL;

    co_open(&fix, 10);
    memset(data, 0x33, sizeof(data));
    bf_nbd_op_start(&write, fix.handle);
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_WRITE);
    bf_nbd_op_start(&read, fix.handle);
    request = bf_nbd_script_co_request(peer, NULL);
    /* A part of the reply is here when it happens. */
    bf_nbd_script_co_data(peer, request.cookie, 0, 8192, 1, 2048);
    bf_nbd_script_drop(&fix.script, 0);

    peer = co_peer_again(&fix, 1);
    for (unsigned i = 0; i < 2; i++) {
        request = bf_nbd_script_co_request(peer, payload);
        if (request.command == BF_NBD_COMMAND_READ) {
            bf_nbd_script_co_data(peer, request.cookie, BF_NBD_CHUNK_DONE, 8192,
                                  2, 4096);
        } else {
            bf_nbd_script_co_simple(peer, request.cookie, 0, NULL, 0);
        }
    }
    g_assert_cmpint(bf_nbd_op_co_wait(&read), ==, 0);
    g_assert_cmpint(bf_nbd_op_co_wait(&write), ==, 0);
    g_assert_cmpmem(payload->data, payload->len, data, sizeof(data));
    g_assert_cmpuint(buf[0], ==, 2);
    bf_nbd_use_co_close(&fix);
}

/* What was in the pipe is gone; its owner knows where it came from. */
static void
test_write_from_a_pipe_is_not_sent_again(void *arg)
{
    BfNbdUse fix;
    uint8_t data[4096] = {1};
    BfNbdOp piped = {
        .kind = NBD_OP_WRITE_PIPE, .bytes = sizeof(data), .buf = data};
    BfNbdOp plain = {.kind = NBD_OP_WRITE,
                     .offset = sizeof(data),
                     .bytes = sizeof(data),
                     .buf = data};
    BfNbdRequest request;
    BfChannel *peer = NULL;

    co_open(&fix, 10);
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    bf_nbd_op_start(&piped, fix.handle);
    bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_WRITE);
    bf_nbd_op_start(&plain, fix.handle);
    bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_WRITE);
    bf_nbd_script_drop(&fix.script, 0);
    g_assert_cmpint(bf_nbd_op_co_wait(&piped), ==, -EIO);

    peer = co_peer_again(&fix, 1);
    request = bf_nbd_script_co_request(peer, NULL);
    g_assert_cmpuint(request.offset, ==, plain.offset);
    bf_nbd_script_co_simple(peer, request.cookie, 0, NULL, 0);
    g_assert_cmpint(bf_nbd_op_co_wait(&plain), ==, 0);
    bf_nbd_use_co_close(&fix);
}

/* What was lost together does not come back in the same instant. */
static void
test_attempts_are_spread(void *arg)
{
    const unsigned n = 8;
    BfNbdUse fix;
    BfBlockdevOptions *options = NULL;
    unsigned ms = 0;

    bf_nbd_script_open(&fix.script);
    fix.script.flags |= BF_NBD_EXPORT_MULTI_CONN;
    options = bf_nbd_script_options(&fix.script);
    options->u.nbd->has_connections = true;
    options->u.nbd->connections = n;
    options->u.nbd->reconnect_delay = 60;
    bf_nbd_use_co_begin(&fix, options);
    bf_nbd_script_co_peer(&fix.script, n - 1);
    bf_test_advance(0); /* the client knows of all of them */
    for (unsigned i = 0; i < n; i++) {
        bf_nbd_script_drop(&fix.script, i);
    }
    bf_test_advance(0);
    g_assert_cmpuint(fix.script.n_accepted, ==, n);
    for (; fix.script.n_peers < 2 * n; ms++) {
        bf_test_advance(BF_NS_PER_MS);
    }
    g_assert_cmpuint(ms, >, 1);
    bf_nbd_use_co_close(&fix);
}

static void
test_requests_wait_for_the_delay_only(void *arg)
{
    BfNbdUse fix;
    uint8_t buf[512];
    BfNbdOp op = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};
    BfNbdOp next = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};
    BfChannel *peer = NULL;
    unsigned seconds = 0;

    co_open(&fix, 10);
    bf_nbd_script_co_peer(&fix.script, 0);
    bf_nbd_script_co_stop(&fix.script);
    bf_nbd_op_start(&op, fix.handle);
    bf_nbd_script_drop(&fix.script, 0);
    seconds = co_pass_time_until_done(&op);
    g_assert_cmpuint(seconds, >=, 10);
    g_assert_cmpint(op.ret, ==, -EIO);
    /* From then on they fail at once. */
    bf_nbd_op_start(&next, fix.handle);
    g_assert_cmpint(bf_nbd_op_co_wait(&next), ==, -EIO);
    /* Until it is back. */
    bf_nbd_script_restart(&fix.script);
    while (fix.script.n_peers < 2) {
        bf_test_advance(BF_NS_PER_SEC);
    }
    peer = bf_nbd_script_co_peer(&fix.script, 1);
    do {
        bf_nbd_op_start(&next, fix.handle);
        bf_test_advance(0);
    } while (next.done);
    bf_nbd_script_co_data(peer,
                          bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_READ),
                          BF_NBD_CHUNK_DONE, 0, 1, sizeof(buf));
    g_assert_cmpint(bf_nbd_op_co_wait(&next), ==, 0);
    bf_nbd_use_co_close(&fix);
}

static void
test_requests_fail_at_once_without_delay(void *arg)
{
    BfNbdUse fix;
    uint8_t buf[512];
    BfNbdOp op = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};

    co_open(&fix, 0);
    bf_nbd_op_start(&op, fix.handle);
    bf_nbd_script_co_expect(bf_nbd_script_co_peer(&fix.script, 0),
                            BF_NBD_COMMAND_READ);
    bf_nbd_script_drop(&fix.script, 0);
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, -EIO);
    /* Connecting goes on without anybody asking. */
    while (fix.script.n_peers < 2) {
        bf_test_advance(BF_NS_PER_MS);
    }
    bf_nbd_use_co_close(&fix);
}

/* A server that is about to end has time to do so. */
static void
test_idle_link_comes_back_after_a_pause(void *arg)
{
    BfNbdUse fix;
    uint8_t buf[512];
    BfNbdOp op = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};
    BfChannel *peer = NULL;
    unsigned ms = 0;

    co_open(&fix, 0);
    bf_nbd_script_co_peer(&fix.script, 0);
    bf_nbd_script_drop(&fix.script, 0);
    for (; fix.script.n_peers < 2; ms++) {
        bf_test_advance(BF_NS_PER_MS);
    }
    g_assert_cmpuint(ms, >=, 500);
    /* Who comes meanwhile waits for it, and not as long. */
    bf_nbd_script_drop(&fix.script, 1);
    bf_test_advance(BF_NS_PER_MS);
    bf_nbd_op_start(&op, fix.handle);
    for (ms = 0; fix.script.n_peers < 3; ms++) {
        bf_test_advance(BF_NS_PER_MS);
    }
    g_assert_cmpuint(ms, <, 500);
    peer = bf_nbd_script_co_peer(&fix.script, 2);
    bf_nbd_script_co_data(peer,
                          bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_READ),
                          BF_NBD_CHUNK_DONE, 0, 1, sizeof(buf));
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, 0);
    /* One attempt is enough to know better. */
    bf_nbd_script_co_stop(&fix.script);
    bf_nbd_script_drop(&fix.script, 2);
    bf_test_advance(BF_NS_PER_MS);
    bf_nbd_op_start(&op, fix.handle);
    for (ms = 0; !op.done; ms++) {
        bf_test_advance(BF_NS_PER_MS);
    }
    g_assert_cmpuint(ms, <, 500);
    g_assert_cmpint(op.ret, ==, -EIO);
    bf_nbd_use_co_close(&fix);
}

/* The request may be what kills the server. */
static void
test_request_that_no_connection_survives(void *arg)
{
    BfNbdUse fix;
    uint8_t buf[512];
    BfNbdOp op = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};
    unsigned n = 0;

    co_open(&fix, 3600);
    bf_nbd_op_start(&op, fix.handle);
    while (!op.done) {
        if (n < fix.script.n_peers) {
            bf_nbd_script_co_expect(fix.script.peers[n], BF_NBD_COMMAND_READ);
            bf_nbd_script_drop(&fix.script, n++);
        }
        bf_test_advance(BF_NS_PER_SEC / 10);
    }
    g_assert_cmpint(op.ret, ==, -EIO);
    g_assert_cmpuint(n, ==, 8);
    bf_nbd_use_co_close(&fix);
}

/* Every byte counts, and so does having nothing to say. */
static void
test_silent_connection_is_lost(void *arg)
{
    BfNbdUse fix;
    BfBlockdevOptions *options = NULL;
    uint8_t buf[512];
    BfNbdOp op = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};
    BfChannel *peer = NULL;
    uint64_t cookie = 0;
    unsigned seconds = 0;

    bf_nbd_script_open(&fix.script);
    options = bf_nbd_script_options(&fix.script);
    options->u.nbd->silence_timeout = 20;
    bf_nbd_use_co_begin(&fix, options);
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    for (unsigned i = 0; i < 100; i++) {
        bf_test_advance(BF_NS_PER_SEC);
    }
    g_assert_cmpuint(fix.script.n_accepted, ==, 1);
    bf_nbd_op_start(&op, fix.handle);
    cookie = bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_READ);
    for (unsigned i = 0; i < 15; i++) {
        bf_test_advance(BF_NS_PER_SEC);
    }
    g_assert_false(op.done);
    bf_nbd_script_co_data(peer, cookie, BF_NBD_CHUNK_DONE, 0, 1, sizeof(buf));
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, 0);
    bf_nbd_op_start(&op, fix.handle);
    bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_READ);
    seconds = co_pass_time_until_done(&op);
    g_assert_cmpuint(seconds, >=, 20);
    g_assert_cmpint(op.ret, ==, -EIO);
    bf_nbd_use_co_close(&fix);
}

/* It is asked again for the reconnect delay, however often that is. */
static void
test_server_that_only_accepts(void *arg)
{
    BfNbdUse fix;
    BfBlockdevOptions *options = NULL;
    uint8_t buf[512];
    BfNbdOp op = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};
    unsigned seconds = 0;

    bf_nbd_script_open(&fix.script);
    options = bf_nbd_script_options(&fix.script);
    options->u.nbd->silence_timeout = 2;
    options->u.nbd->reconnect_delay = 30;
    bf_nbd_use_co_begin(&fix, options);
    bf_nbd_op_start(&op, fix.handle);
    seconds = co_pass_time_until_done(&op);
    g_assert_cmpuint(seconds, >=, 32);
    g_assert_cmpuint(seconds, <, 64);
    g_assert_cmpint(op.ret, ==, -EIO);
    bf_nbd_use_co_close(&fix);
}

static void
test_other_export_at_the_same_place(void *arg)
{
    BfNbdUse fix;
    uint8_t buf[512];
    BfNbdOp op = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};

    co_open(&fix, 20);
    bf_nbd_script_co_peer(&fix.script, 0);
    fix.script.size /= 2;
    bf_nbd_op_start(&op, fix.handle);
    bf_nbd_script_drop(&fix.script, 0);
    co_peer_again(&fix, 1);
    co_pass_time_until_done(&op);
    g_assert_cmpint(op.ret, ==, -EIO);
    g_assert_cmpuint(fix.script.n_peers, >, 1);
    bf_nbd_use_co_close(&fix);
}

static void
test_cancelled_requests_fail(void *arg)
{
    BfNbdUse fix;
    uint8_t buf[512];
    BfNbdOp op = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};
    BfNbdOp held = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};

    co_open(&fix, 3600);
    bf_nbd_op_start(&op, fix.handle);
    bf_nbd_script_co_expect(bf_nbd_script_co_peer(&fix.script, 0),
                            BF_NBD_COMMAND_READ);
    bf_node_cancel_requests(bf_graph_find_node(fix.graph, "n0"));
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, -EIO);
    /* Also those that wait for a connection. */
    co_peer_again(&fix, 1);
    bf_nbd_script_co_stop(&fix.script);
    bf_nbd_script_drop(&fix.script, 1);
    bf_nbd_op_start(&held, fix.handle);
    bf_test_advance(0);
    bf_node_cancel_requests(bf_graph_find_node(fix.graph, "n0"));
    g_assert_cmpint(bf_nbd_op_co_wait(&held), ==, -EIO);
    bf_nbd_use_co_close(&fix);
}

/* Not those that others wait for. */
static void
test_cancelled_requests_of_one_of_two_users(void *arg)
{
    BfNbdUse fix;
    uint8_t buf[512];
    BfNbdOp op = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};
    BfRoot *other = NULL;

    co_open(&fix, 3600);
    other = bf_test_co_root(fix.graph, "n0", BF_PERM_CONSISTENT_READ);
    bf_nbd_op_start(&op, fix.handle);
    bf_nbd_script_co_expect(bf_nbd_script_co_peer(&fix.script, 0),
                            BF_NBD_COMMAND_READ);
    bf_root_abort(fix.root);
    bf_root_cancel_requests(fix.root);
    bf_test_advance(BF_NS_PER_SEC);
    g_assert_false(op.done);
    bf_root_abort(other);
    bf_root_cancel_requests(other);
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, -EIO);
    bf_root_co_free(other);
    bf_nbd_use_co_close(&fix);
}

/* Opening. */

static void
test_silent_server_is_given_up(void *arg)
{
    BfNbdScript script;
    BfGraph *graph = bf_test_graph_new();
    Adding adding;

    bf_nbd_script_open(&script);
    script.silent = true;
    add_start(&adding, graph, bf_nbd_script_options(&script));
    bf_nbd_script_co_accepted(&script, 1);
    add_co_pass_time(&adding);
    g_assert_false(adding.ok);
    bf_test_assert_error(&adding.error,
                         "NBD server 'unix:*' has not finished the handshake "
                         "within 30 seconds");
    bf_graph_co_free(graph);
    bf_nbd_script_co_close(&script);
}

static void
test_opening_is_tried_again_for_its_time(void *arg)
{
    BfNbdScript script;
    BfGraph *graph = bf_test_graph_new();
    BfBlockdevOptions *options = NULL;
    Adding adding;

    bf_nbd_script_open(&script);
    bf_nbd_script_co_stop(&script);
    options = bf_nbd_script_options(&script);
    options->u.nbd->open_timeout = 5;
    add_start(&adding, graph, options);
    add_co_pass_time(&adding);
    bf_test_assert_error(&adding.error, "Failed to connect to '*");

    options = bf_nbd_script_options(&script);
    options->u.nbd->open_timeout = 5000;
    add_start(&adding, graph, options);
    bf_test_advance(BF_NS_PER_SEC);
    bf_nbd_script_restart(&script);
    add_co_pass_time(&adding);
    g_assert_no_error(adding.error);
    bf_nbd_script_co_peer(&script, 0);
    bf_nbd_script_drop(&script, 0);
    bf_graph_co_free(graph);
    bf_nbd_script_co_close(&script);
}

/* The daemon ends while a node is being opened. */
static void
test_opening_ends_with_the_daemon(void *arg)
{
    for (unsigned silent = 0; silent < 2; silent++) {
        BfNbdScript script;
        BfGraph *graph = bf_test_graph_new();
        BfBlockdevOptions *options = NULL;
        Adding adding;

        bf_nbd_script_open(&script);
        options = bf_nbd_script_options(&script);
        options->u.nbd->open_timeout = 5000;
        script.silent = silent;
        if (silent) {
            add_start(&adding, graph, options);
            bf_nbd_script_co_accepted(&script, 1);
        } else {
            bf_nbd_script_co_stop(&script);
            add_start(&adding, graph, options);
            bf_test_advance(BF_NS_PER_SEC);
        }
        bf_graph_stop_waiting(graph);
        add_co_wait(&adding);
        g_assert_false(adding.ok);
        g_clear_error(&adding.error);
        /* And none begins any more. */
        bf_test_co_add_fails(graph, bf_nbd_script_options(&script),
                             "the daemon is ending");
        bf_graph_co_free(graph);
        bf_nbd_script_co_close(&script);
    }
}

static void
test_held_requests_end_with_the_daemon(void *arg)
{
    BfNbdUse fix;
    uint8_t buf[512];
    BfNbdOp op = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};

    co_open(&fix, 3600);
    bf_nbd_script_co_peer(&fix.script, 0);
    bf_nbd_script_co_stop(&fix.script);
    bf_nbd_script_drop(&fix.script, 0);
    bf_nbd_op_start(&op, fix.handle);
    bf_test_advance(0);
    bf_graph_stop_waiting(fix.graph);
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, -EIO);
    bf_nbd_use_co_close(&fix);
}

static void
test_options_that_make_no_sense(void *arg)
{
    BfNbdScript script;
    BfGraph *graph = bf_test_graph_new();
    BfBlockdevOptions *options = NULL;

    bf_nbd_script_open(&script);
    options = bf_nbd_script_options(&script);
    options->u.nbd->has_connections = true;
    options->u.nbd->connections = 17;
    bf_test_co_add_fails(graph, options, "connections is 17, but must be *");
    options = bf_nbd_script_options(&script);
    options->u.nbd->tls_creds = g_strdup("t0");
    bf_test_co_add_fails(graph, options, "No TLS credentials with id 't0'");
    options = bf_nbd_script_options(&script);
    options->u.nbd->tls_hostname = g_strdup("x");
    bf_test_co_add_fails(graph, options, "tls-hostname requires tls-creds");
    options = bf_nbd_script_options(&script);
    options->u.nbd->export = g_strnfill(4097, 'x');
    bf_test_co_add_fails(graph, options, "'export' has 4097 bytes;*");
    g_assert_cmpuint(script.n_accepted, ==, 0);
    bf_graph_co_free(graph);
    bf_nbd_script_co_close(&script);
}

static void
test_read_only_export(void *arg)
{
    BfNbdUse fix;
    BfBlockdevOptions *options = NULL;
    BfGraph *graph = bf_test_graph_new();

    bf_nbd_script_open(&fix.script);
    fix.script.flags = BF_NBD_EXPORT_HAS_FLAGS | BF_NBD_EXPORT_READ_ONLY;
    bf_test_co_add_fails(graph, bf_nbd_script_options(&fix.script),
                         "*export '' is read-only; add read-only=on*");
    options = bf_nbd_script_options(&fix.script);
    options->has_auto_read_only = true;
    options->auto_read_only = true;
    g_assert_true(bf_node_is_read_only(bf_test_co_add(graph, options)));
    bf_graph_co_free(graph);
    bf_nbd_script_co_close(&fix.script);
}

/* Closing. */

static void
co_write_some(BfNbdUse *fix, BfChannel *peer)
{
    uint8_t buf[512] = {1};
    BfNbdOp op = {.kind = NBD_OP_WRITE, .bytes = sizeof(buf), .buf = buf};

    bf_nbd_op_start(&op, fix->handle);
    bf_nbd_script_co_simple(
        peer, bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_WRITE), 0, NULL, 0);
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, 0);
}

/* Whether the connection had something to lose when it broke right behind the
 * reply to a flush, before the flush could go on. */
static bool
co_is_lost_with_reply(uint32_t error)
{
    BfNbdUse fix;
    BfNbdOp op = {.kind = NBD_OP_FLUSH};
    BfChannel *peer = NULL;
    BfNbdSimpleReply reply = {.error = error};
    uint8_t bytes[2 * BF_NBD_SIMPLE_REPLY_BYTES] = {0}; /* the second is bad */
    uint64_t lost = 0;

    co_open(&fix, 0);
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    co_write_some(&fix, peer);
    bf_nbd_op_start(&op, fix.handle);
    reply.cookie = bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_FLUSH);
    bf_nbd_put_simple_reply(bytes, &reply);
    g_assert_true(bf_channel_co_write_all(peer, bytes, sizeof(bytes), NULL));
    bf_nbd_op_co_wait(&op);
    bf_nbd_script_co_expect_end(peer);
    lost = bf_handle_last_loss(fix.handle);
    bf_nbd_use_co_close(&fix);
    return lost > 0;
}

static void
test_answered_flush_leaves_nothing_to_lose(void *arg)
{
    g_assert_false(co_is_lost_with_reply(0));
    g_assert_true(co_is_lost_with_reply(5));
}

/* Deleting a node, in the background. */
static void
del_co_run(void *arg)
{
    Adding *deleting = arg;

    bf_test_co_del(deleting->graph, "n0");
    deleting->done = true;
    bf_co_queue_wake_all(&deleting->ended);
}

static void
test_close_flushes_and_says_good_bye(void *arg)
{
    BfNbdUse fix;
    Adding deleting = {.done = false};
    BfChannel *peer = NULL;

    co_open(&fix, 0);
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    co_write_some(&fix, peer);
    bf_root_co_free(fix.root);
    deleting.graph = fix.graph;
    bf_co_spawn(del_co_run, &deleting);
    bf_nbd_script_co_simple(
        peer, bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_FLUSH), 0, NULL, 0);
    bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_DISC);
    bf_nbd_script_co_expect_end(peer);
    while (!deleting.done) {
        bf_co_queue_co_wait(&deleting.ended);
    }
    bf_graph_co_free(fix.graph);
    bf_nbd_script_co_close(&fix.script);
}

static void
test_close_does_not_wait_for_a_server_that_hangs(void *arg)
{
    BfNbdUse fix;
    Adding deleting = {.done = false};
    BfChannel *peer = NULL;
    unsigned seconds = 0;

    co_open(&fix, 3600);
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    co_write_some(&fix, peer);
    bf_root_co_free(fix.root);
    deleting.graph = fix.graph;
    bf_co_spawn(del_co_run, &deleting);
    bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_FLUSH);
    while (!deleting.done) {
        bf_test_advance(BF_NS_PER_SEC);
        seconds++;
    }
    g_assert_cmpuint(seconds, >=, 5);
    bf_graph_co_free(fix.graph);
    bf_nbd_script_co_close(&fix.script);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add_fake("/block/nbd-link/requests-are-sent-again",
                     test_requests_are_sent_again);
    bf_test_add_fake("/block/nbd-link/write-from-a-pipe-is-not-sent-again",
                     test_write_from_a_pipe_is_not_sent_again);
    bf_test_add_fake("/block/nbd-link/attempts-are-spread",
                     test_attempts_are_spread);
    bf_test_add_fake("/block/nbd-link/requests-wait-for-the-delay-only",
                     test_requests_wait_for_the_delay_only);
    bf_test_add_fake("/block/nbd-link/requests-fail-at-once-without-delay",
                     test_requests_fail_at_once_without_delay);
    bf_test_add_fake("/block/nbd-link/idle-link-comes-back-after-a-pause",
                     test_idle_link_comes_back_after_a_pause);
    bf_test_add_fake("/block/nbd-link/request-that-no-connection-survives",
                     test_request_that_no_connection_survives);
    bf_test_add_fake("/block/nbd-link/silent-connection-is-lost",
                     test_silent_connection_is_lost);
    bf_test_add_fake("/block/nbd-link/server-that-only-accepts",
                     test_server_that_only_accepts);
    bf_test_add_fake("/block/nbd-link/other-export-at-the-same-place",
                     test_other_export_at_the_same_place);
    bf_test_add_fake("/block/nbd-link/cancelled-requests-fail",
                     test_cancelled_requests_fail);
    bf_test_add_fake("/block/nbd-link/cancelled-requests-of-one-of-two-users",
                     test_cancelled_requests_of_one_of_two_users);
    bf_test_add_fake("/block/nbd-link/silent-server-is-given-up",
                     test_silent_server_is_given_up);
    bf_test_add_fake("/block/nbd-link/opening-is-tried-again-for-its-time",
                     test_opening_is_tried_again_for_its_time);
    bf_test_add_fake("/block/nbd-link/opening-ends-with-the-daemon",
                     test_opening_ends_with_the_daemon);
    bf_test_add_fake("/block/nbd-link/held-requests-end-with-the-daemon",
                     test_held_requests_end_with_the_daemon);
    bf_test_add_fake("/block/nbd-link/options-that-make-no-sense",
                     test_options_that_make_no_sense);
    bf_test_add_fake("/block/nbd-link/read-only-export", test_read_only_export);
    bf_test_add_fake("/block/nbd-link/answered-flush-leaves-nothing-to-lose",
                     test_answered_flush_leaves_nothing_to_lose);
    bf_test_add_fake("/block/nbd-link/close-flushes-and-says-good-bye",
                     test_close_flushes_and_says_good_bye);
    bf_test_add_fake("/block/nbd-link/close-does-not-wait-for-a-server",
                     test_close_does_not_wait_for_a_server_that_hangs);
    return g_test_run();
}
