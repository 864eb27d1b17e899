/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Handles: counting, parking while the graph changes, time limits, abort. */
#include <string.h>

#include "block-harness.h"
#include "core/co-io.h"
#include "core/util.h"
#include "harness.h"

#define READ_WRITE (BF_PERM_CONSISTENT_READ | BF_PERM_WRITE)

/* One request that a test starts on a loop and looks at later. */
typedef struct Started {
    BfHandle *handle;
    uint64_t offset;
    bool writes;
    int ret;
    bool done;
    uint8_t buf[512];
} Started;

static void
co_one_request(void *arg)
{
    Started *s = arg;

    s->ret =
        s->writes
            ? bf_test_co_write(s->handle, s->offset, s->buf, sizeof(s->buf), 0)
            : bf_test_co_read(s->handle, s->offset, s->buf, sizeof(s->buf));
    s->done = true;
}

static void
start_here(void *arg)
{
    bf_co_spawn(co_one_request, arg);
}

/* Starts a request; on return it has run until it first suspended. */
static void
co_start(BfLoop *loop, Started *s)
{
    bf_test_co_on(loop, start_here, s);
}

typedef struct Look {
    const Started *started;
    bool done;
} Look;

static void
look_here(void *arg)
{
    Look *look = arg;

    look->done = look->started->done;
}

static bool
co_is_done(BfLoop *loop, const Started *s)
{
    Look look = {.started = s};

    bf_test_co_on(loop, look_here, &look);
    return look.done;
}

static void
co_wait_done(BfLoop *loop, const Started *s)
{
    while (!co_is_done(loop, s)) {
        bf_co_yield();
    }
}

/* "n0" below the fault node "x0", whose only rule parks reads. */
static BfHandle *
co_parking_handle(BfGraph *graph, BfRoot **ret_root, BfLoop **ret_loop)
{
    BfBlockdevOptions *options;
    BfRoot *root;

    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    options = bf_test_fault("x0", bf_test_ref_str("n0"), 1);
    options->u.fault->rules->items[0]->op = BF_FAULT_OP_READ;
    options->u.fault->rules->items[0]->park = true;
    bf_test_co_add(graph, options);
    root = bf_test_co_root(graph, "x0", READ_WRITE);
    *ret_root = root;
    *ret_loop =
        bf_root_pick_loop(root, bf_test_loops()->workers, BF_TEST_WORKERS, 1);
    return bf_handle_co_new(root, *ret_loop);
}

typedef struct AddBitmap {
    BfNode *node;
    bool ok;
    bool done;
    GError *error;
} AddBitmap;

static void
co_add_bitmap(void *arg)
{
    AddBitmap *add = arg;
    BfBitmap *bitmap = bf_bitmap_new("b", BF_MIB, 65536, NULL);

    add->ok = bf_node_co_add_bitmap(add->node, bitmap, &add->error);
    if (!add->ok) {
        bf_bitmap_free(bitmap);
    }
    add->done = true;
}

static void
co_release_by_reopen(BfGraph *graph)
{
    g_autoptr(GError) error = NULL;
    bool ok = bf_test_co_reopen(
        graph, bf_test_fault("x0", bf_test_ref_str("n0"), 0), &error);

    g_assert_no_error(error);
    g_assert_true(ok);
}

/* A drain that does not end in time fails, names the request, and resumes. */
static void
test_drain_gives_up_after_its_limit(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    Started parked = {.offset = 4096};
    Started later = {.writes = true};
    AddBitmap add = {0};
    BfRoot *root;
    BfLoop *loop;

    parked.handle = later.handle = co_parking_handle(graph, &root, &loop);
    add.node = bf_root_node(root);
    co_start(loop, &parked);
    bf_co_spawn(co_add_bitmap, &add);
    co_start(loop, &later);
    bf_test_advance(9 * BF_NS_PER_SEC);
    g_assert_false(add.done);
    g_assert_false(co_is_done(loop, &later));
    bf_test_advance(2 * BF_NS_PER_SEC);
    while (!add.done) {
        bf_co_yield();
    }
    g_assert_false(add.ok);
    bf_test_assert_error(&add.error,
                         "Requests did not end within 10 seconds (node 'x0': "
                         "a read of 512 bytes at offset 4096 by test)*");
    co_wait_done(loop, &later);
    g_assert_cmpint(later.ret, ==, 0);
    g_assert_false(co_is_done(loop, &parked));

    co_release_by_reopen(graph);
    co_wait_done(loop, &parked);
    g_assert_cmpint(parked.ret, ==, 0);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

/* "x0" answers reads after three seconds. */
static BfHandle *
co_slow_handle(BfGraph *graph, BfRoot **ret_root, BfLoop **ret_loop)
{
    BfBlockdevOptions *options =
        bf_test_fault("x0", bf_test_ref_new(bf_test_null("n0", BF_MIB)), 1);
    BfFaultRule *rule = options->u.fault->rules->items[0];

    rule->op = BF_FAULT_OP_READ;
    rule->delay_ms = 3000;
    g_free(rule->errno_);
    rule->errno_ = g_strdup("");
    bf_test_co_add(graph, options);
    *ret_root = bf_test_co_root(graph, "x0", READ_WRITE);
    *ret_loop = bf_root_pick_loop(*ret_root, bf_test_loops()->workers,
                                  BF_TEST_WORKERS, 1);
    return bf_handle_co_new(*ret_root, *ret_loop);
}

static void
test_drain_waits_for_requests(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    Started slow = {0};
    Started later = {.writes = true};
    Started born = {.writes = true};
    AddBitmap add = {0};
    BfHandle *extra;
    BfRoot *root;
    BfLoop *loop;

    slow.handle = later.handle = co_slow_handle(graph, &root, &loop);
    add.node = bf_root_node(root);
    co_start(loop, &slow);
    bf_co_spawn(co_add_bitmap, &add);
    co_start(loop, &later);
    /* Handles that are made during a drain are parked as well, and may go. */
    extra = bf_handle_co_new(root, loop);
    born.handle = bf_handle_co_new(root, loop);
    co_start(loop, &born);
    bf_test_advance(2 * BF_NS_PER_SEC);
    bf_handle_co_free(extra);
    g_assert_false(add.done);
    g_assert_false(co_is_done(loop, &later));
    g_assert_false(co_is_done(loop, &born));
    bf_test_advance(2 * BF_NS_PER_SEC);
    while (!add.done) {
        bf_co_yield();
    }
    g_assert_true(add.ok);
    co_wait_done(loop, &slow);
    co_wait_done(loop, &later);
    co_wait_done(loop, &born);
    g_assert_cmpuint(bf_bitmap_count(bf_node_find_bitmap(add.node, "b")), ==,
                     65536);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

/* Hard removal: parked requests end at once, although one is stuck. */
static void
test_abort_ends_parked_requests(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    Started stuck = {0};
    Started parked = {.writes = true};
    Started late = {.writes = true};
    AddBitmap add = {0};
    BfRoot *root;
    BfLoop *loop;

    stuck.handle = parked.handle = late.handle =
        co_parking_handle(graph, &root, &loop);
    add.node = bf_root_node(root);
    co_start(loop, &stuck);
    bf_co_spawn(co_add_bitmap, &add);
    co_start(loop, &parked);
    g_assert_false(co_is_done(loop, &parked));
    bf_root_abort(root);
    co_wait_done(loop, &parked);
    g_assert_cmpint(parked.ret, ==, -ESHUTDOWN);
    co_start(loop, &late);
    co_wait_done(loop, &late);
    g_assert_cmpint(late.ret, ==, -ESHUTDOWN);

    bf_test_advance(11 * BF_NS_PER_SEC);
    while (!add.done) {
        bf_co_yield();
    }
    g_assert_false(add.ok);
    g_clear_error(&add.error);
    co_release_by_reopen(graph);
    co_wait_done(loop, &stuck);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

static void
co_write_once(void *arg)
{
    Started *s = arg;

    s->ret = bf_test_co_write(s->handle, 0, s->buf, sizeof(s->buf), 0);
}

static void
test_writes_need_the_permission(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    Started s = {0};
    BfRoot *root;

    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    root = bf_test_co_root(graph, "n0", BF_PERM_CONSISTENT_READ);
    s.handle = bf_handle_co_new(root, bf_test_loops()->workers[0]);
    bf_test_co_on(bf_test_loops()->workers[0], co_write_once, &s);
    g_assert_cmpint(s.ret, ==, -EPERM);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

static void
co_some_requests(void *arg)
{
    Started *s = arg;

    bf_test_co_read(s->handle, 0, s->buf, 512);
    bf_test_co_read(s->handle, 5, s->buf, 100);
    bf_test_co_write(s->handle, 0, s->buf, 512, 0);
    bf_test_co_write(s->handle, 2 * BF_MIB, s->buf, 512, 0);
    bf_handle_co_write_zeroes(s->handle, 0, 4096, 0);
    bf_handle_co_discard(s->handle, 0, 8192, 0);
    bf_handle_co_flush(s->handle);
}

static void
test_stats_add_up_over_handles(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    Started s = {0};
    BfIoStats stats;
    BfRoot *root;

    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    root = bf_test_co_root(graph, "n0", READ_WRITE);
    for (unsigned i = 0; i < BF_TEST_WORKERS; i++) {
        s.handle = bf_handle_co_new(root, bf_test_loops()->workers[i]);
        bf_test_co_on(bf_test_loops()->workers[i], co_some_requests, &s);
        if (i == 0) {
            bf_handle_co_free(s.handle);
        }
    }
    bf_root_stats(root, &stats);
    g_assert_cmpuint(stats.read_ops, ==, 2 * BF_TEST_WORKERS);
    g_assert_cmpuint(stats.read_bytes, ==, 612 * BF_TEST_WORKERS);
    g_assert_cmpuint(stats.write_ops, ==, 2 * BF_TEST_WORKERS);
    g_assert_cmpuint(stats.zero_bytes, ==, 4096 * BF_TEST_WORKERS);
    g_assert_cmpuint(stats.discard_bytes, ==, 8192 * BF_TEST_WORKERS);
    g_assert_cmpuint(stats.flush_ops, ==, BF_TEST_WORKERS);
    g_assert_cmpuint(stats.failed_ops, ==, BF_TEST_WORKERS);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

/* A client that reads and writes its own stretch and checks what it finds. */
typedef struct Client {
    BfHandle *handle;
    BfLoop *loop;
    uint64_t start;
    bool stop; /* set by a message */
    bool stopped;
    unsigned rounds;
} Client;

static void
client_co_run(void *arg)
{
    Client *client = arg;
    uint8_t out[512];
    uint8_t in[512];

    while (!client->stop) {
        uint64_t offset = client->start + client->rounds % 50 * 512;

        memset(out, (int)(client->rounds % 255 + 1), sizeof(out));
        g_assert_cmpint(
            bf_test_co_write(client->handle, offset, out, sizeof(out), 0), ==,
            0);
        g_assert_cmpint(bf_test_co_read(client->handle, offset, in, sizeof(in)),
                        ==, 0);
        g_assert_cmpmem(in, sizeof(in), out, sizeof(out));
        client->rounds++;
        bf_co_yield();
    }
    client->stopped = true;
}

static void
client_start(void *arg)
{
    bf_co_spawn(client_co_run, arg);
}

static void
client_co_stop(void *arg)
{
    Client *client = arg;

    client->stop = true;
    while (!client->stopped) {
        bf_co_yield();
    }
}

#define CLIENTS 4

static void
co_start_clients(BfRoot *root, Client clients[CLIENTS])
{
    for (unsigned i = 0; i < CLIENTS; i++) {
        BfLoop *loop = bf_root_pick_loop(root, bf_test_loops()->workers,
                                         BF_TEST_WORKERS, i % BF_TEST_WORKERS);

        clients[i] = (Client){
            .loop = loop,
            .handle = bf_handle_co_new(root, loop),
            .start = i * 128 * BF_KIB,
        };
        bf_loop_post(loop, client_start, &clients[i]);
    }
}

/* Lets the clients get on: a trip to each loop. */
static void
co_let_run(Client clients[CLIENTS], unsigned trips)
{
    Started none = {.done = true};

    for (unsigned i = 0; i < trips; i++) {
        co_is_done(clients[i % CLIENTS].loop, &none);
    }
}

static void
co_swap_filter(BfGraph *graph, BfNode *base, BfBlockdevOptions *options)
{
    BfNode *filter = bf_test_co_add(graph, options);
    g_autofree char *name = g_strdup(bf_node_name(filter));
    g_autoptr(GError) error = NULL;

    g_assert_true(bf_graph_co_replace_node(graph, base, filter, &error));
    g_assert_no_error(error);
    g_assert_true(bf_graph_co_replace_node(graph, filter, base, &error));
    g_assert_no_error(error);
    bf_test_co_del(graph, name);
}

/* "fault" is bound to its home loop, "raw" is not: both kinds come and go. */
static void
test_filters_come_and_go_under_io(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfNode *base = bf_test_co_add(graph, bf_test_file("f0", path));
    BfRoot *root = bf_test_co_root(graph, "f0", READ_WRITE);
    Client clients[CLIENTS];

    co_start_clients(root, clients);
    for (unsigned i = 0; i < 30; i++) {
        co_swap_filter(graph, base,
                       bf_test_raw("filter", bf_test_ref_str("f0")));
        co_let_run(clients, 4);
        co_swap_filter(graph, base,
                       bf_test_fault("filter", bf_test_ref_str("f0"), 0));
        co_let_run(clients, 4);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        bf_test_co_on(clients[i].loop, client_co_stop, &clients[i]);
        g_assert_cmpuint(clients[i].rounds, >, 0);
    }
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

/* The same by reopen of the parent, as a manager does it. */
static void
test_reopen_relinks_under_io(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    g_autofree char *path = bf_test_file_new(BF_MIB);
    g_autoptr(GError) error = NULL;
    Client clients[CLIENTS];
    BfRoot *root;

    bf_test_co_add(graph, bf_test_file("f0", path));
    bf_test_co_add(graph, bf_test_raw("r0", bf_test_ref_str("f0")));
    root = bf_test_co_root(graph, "r0", READ_WRITE);
    co_start_clients(root, clients);
    for (unsigned i = 0; i < 30; i++) {
        bf_test_co_add(graph, bf_test_fault("x0", bf_test_ref_str("f0"), 0));
        bf_test_co_reopen(graph, bf_test_raw("r0", bf_test_ref_str("x0")),
                          &error);
        g_assert_no_error(error);
        co_let_run(clients, 4);
        bf_test_co_reopen(graph, bf_test_raw("r0", bf_test_ref_str("f0")),
                          &error);
        g_assert_no_error(error);
        bf_test_co_del(graph, "x0");
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        bf_test_co_on(clients[i].loop, client_co_stop, &clients[i]);
        g_assert_cmpuint(clients[i].rounds, >, 0);
    }
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add_fake("/block/handle/drain/gives-up-after-its-limit",
                     test_drain_gives_up_after_its_limit);
    bf_test_add_fake("/block/handle/drain/waits-for-requests",
                     test_drain_waits_for_requests);
    bf_test_add_fake("/block/handle/abort/ends-parked-requests",
                     test_abort_ends_parked_requests);
    bf_test_add("/block/handle/write/needs-the-permission",
                test_writes_need_the_permission);
    bf_test_add("/block/handle/stats/add-up-over-handles",
                test_stats_add_up_over_handles);
    bf_test_add("/block/handle/filters/come-and-go-under-io",
                test_filters_come_and_go_under_io);
    bf_test_add("/block/handle/filters/reopen-relinks-under-io",
                test_reopen_relinks_under_io);
    return g_test_run();
}
