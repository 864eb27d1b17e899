/* SPDX-License-Identifier: GPL-2.0-or-later */
/* null-co: zeroes whatever was written, after the delay asked for. */
#include <string.h>

#include "block-harness.h"
#include "core/util.h"
#include "harness.h"

typedef struct Io {
    BfHandle *handle;
    bool done;
} Io;

static void
co_write_and_read(void *arg)
{
    Io *io = arg;
    uint8_t buf[4096];

    memset(buf, 0xff, sizeof(buf));
    g_assert_cmpint(bf_test_co_write(io->handle, 0, buf, sizeof(buf), 0), ==,
                    0);
    g_assert_cmpint(bf_test_co_read(io->handle, 0, buf, sizeof(buf)), ==, 0);
    g_assert_true(bf_mem_is_zero(buf, sizeof(buf)));
    g_assert_cmpint(bf_handle_co_write_zeroes(io->handle, 0, 4096, 0), ==, 0);
    g_assert_cmpint(bf_handle_co_flush(io->handle), ==, 0);
    io->done = true;
}

static void
test_reads_are_zeroes(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfRoot *root;
    Io io = {0};

    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    root = bf_test_co_root(graph, "n0", BF_PERM_WRITE);
    io.handle = bf_handle_co_new(root, bf_test_loops()->workers[1]);
    bf_test_co_on(bf_test_loops()->workers[1], co_write_and_read, &io);
    g_assert_true(io.done);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

static void
start(void *arg)
{
    bf_co_spawn(co_write_and_read, arg);
}

static void
test_latency_delays_each_request(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfBlockdevOptions *options = bf_test_null("n0", BF_MIB);
    BfRoot *root;
    Io io = {0};

    options->u.null_co->latency_ns = BF_NS_PER_SEC;
    bf_test_co_add(graph, options);
    root = bf_test_co_root(graph, "n0", BF_PERM_WRITE);
    /* On main, whose turns the test can see. */
    io.handle = bf_handle_co_new(root, bf_test_loops()->main);
    start(&io);
    for (unsigned i = 0; i < 3; i++) {
        g_assert_false(io.done);
        bf_test_advance(BF_NS_PER_SEC);
    }
    g_assert_true(io.done);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

static void
test_latency_has_a_limit(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfBlockdevOptions *options = bf_test_null("n0", BF_MIB);

    options->u.null_co->latency_ns = UINT64_MAX;
    bf_test_co_add_fails(graph, options, "latency-ns is above *");
    bf_graph_co_free(graph);
}

static void
test_size_is_not_negative(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfBlockdevOptions *options = bf_test_null("n0", BF_MIB);

    options->u.null_co->size = -1;
    bf_test_co_add_fails(graph, options,
                         "Parameter 'size' expects a non-negative value");
    bf_graph_co_free(graph);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/null/reads-are-zeroes", test_reads_are_zeroes);
    bf_test_add("/block/null/latency-has-a-limit", test_latency_has_a_limit);
    bf_test_add("/block/null/size-is-not-negative", test_size_is_not_negative);
    bf_test_add_fake("/block/null/latency-delays-each-request",
                     test_latency_delays_each_request);
    return g_test_run();
}
