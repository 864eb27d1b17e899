/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fault: rules choose requests, and what becomes of them. */
#include <string.h>

#include "block-harness.h"
#include "core/util.h"
#include "harness.h"

typedef struct Io {
    BfHandle *handle;
    int failures;
    int first_error;
} Io;

static BfFaultRule *
first_rule(BfBlockdevOptions *options)
{
    return options->u.fault->rules->items[0];
}

static BfBlockdevOptions *
options_for(BfFaultOp op)
{
    BfBlockdevOptions *options = bf_test_fault("x0", bf_test_ref_str("f0"), 1);

    first_rule(options)->op = op;
    return options;
}

/* Runs @fn at the home of a fault node with @options over a file. */
static void
co_with_fault(BfBlockdevOptions *options, BfFn *fn, Io *io)
{
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfGraph *graph = bf_test_graph_new();
    BfRoot *root;
    BfLoop *loop;

    bf_test_co_add(graph, bf_test_file("f0", path));
    bf_test_co_add(graph, options);
    root =
        bf_test_co_root(graph, "x0", BF_PERM_CONSISTENT_READ | BF_PERM_WRITE);
    loop = bf_test_loops()->workers[0];
    io->handle = bf_handle_co_new(root, loop);
    bf_test_co_on(loop, fn, io);
    /* From a loop that is not its home as well. */
    loop = bf_test_loops()->workers[1];
    io->handle = bf_handle_co_new(root, loop);
    bf_test_co_on(loop, fn, io);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

static void
co_ten_reads(void *arg)
{
    Io *io = arg;
    uint8_t buf[512];

    for (unsigned i = 0; i < 10; i++) {
        int ret = bf_test_co_read(io->handle, i * 512, buf, 512);

        io->failures += ret < 0;
        io->first_error = io->first_error != 0 ? io->first_error : ret;
    }
}

static void
test_after_and_count(void *arg)
{
    BfBlockdevOptions *options = options_for(BF_FAULT_OP_READ);
    Io io = {0};

    first_rule(options)->after = 3;
    first_rule(options)->count = 4;
    g_free(first_rule(options)->errno_);
    first_rule(options)->errno_ = g_strdup("ENOSPC");
    co_with_fault(options, co_ten_reads, &io);
    g_assert_cmpint(io.failures, ==, 4);
    g_assert_cmpint(io.first_error, ==, -ENOSPC);
}

static void
test_range(void *arg)
{
    BfBlockdevOptions *options = options_for(BF_FAULT_OP_ANY);
    Io io = {0};

    first_rule(options)->has_offset = true;
    first_rule(options)->offset = 1023;
    first_rule(options)->has_bytes = true;
    first_rule(options)->bytes = 2;
    co_with_fault(options, co_ten_reads, &io);
    g_assert_cmpint(io.failures, ==, 2 * 2);
}

static void
test_other_operations_pass(void *arg)
{
    Io io = {0};

    co_with_fault(options_for(BF_FAULT_OP_WRITE), co_ten_reads, &io);
    g_assert_cmpint(io.failures, ==, 0);
}

static void
test_probability_follows_the_seed(void *arg)
{
    int before = -1;

    for (unsigned i = 0; i < 2; i++) {
        BfBlockdevOptions *options = options_for(BF_FAULT_OP_READ);
        Io io = {0};

        first_rule(options)->probability = 40;
        options->u.fault->seed = 12345;
        co_with_fault(options, co_ten_reads, &io);
        g_assert_cmpint(io.failures, >, 0);
        g_assert_cmpint(io.failures, <, 20);
        g_assert_true(before < 0 || before == io.failures);
        before = io.failures;
    }
}

static void
co_short_write(void *arg)
{
    Io *io = arg;
    uint8_t buf[1024];

    memset(buf, 0x11, sizeof(buf));
    g_assert_cmpint(bf_test_co_write(io->handle, 0, buf, 1024, 0), ==, -EIO);
    g_assert_cmpint(bf_test_co_read(io->handle, 0, buf, 1024), ==, 0);
    g_assert_cmpuint(buf[511], ==, 0x11);
    g_assert_cmpuint(buf[512], ==, 0);
}

static void
test_short_writes_the_first_half(void *arg)
{
    BfBlockdevOptions *options = options_for(BF_FAULT_OP_WRITE);
    Io io = {0};

    first_rule(options)->short_ = true;
    co_with_fault(options, co_short_write, &io);
}

/* Each sector is either old or new, and both occur. */
static void
co_torn_write(void *arg)
{
    Io *io = arg;
    uint8_t buf[64 * 512];
    unsigned written = 0;

    memset(buf, 0x11, sizeof(buf));
    g_assert_cmpint(bf_test_co_write(io->handle, 0, buf, sizeof(buf), 0), ==,
                    -EIO);
    g_assert_cmpint(bf_test_co_read(io->handle, 0, buf, sizeof(buf)), ==, 0);
    for (unsigned i = 0; i < sizeof(buf); i += 512) {
        g_assert_cmpuint(buf[i], ==, buf[i + 511]);
        written += buf[i] == 0x11;
    }
    g_assert_cmpuint(written, >, 5);
    if (io->failures++ == 0) {
        g_assert_cmpuint(written, <, 59);
    }
}

static void
test_torn_writes_some_sectors(void *arg)
{
    BfBlockdevOptions *options = options_for(BF_FAULT_OP_WRITE);
    Io io = {0};

    first_rule(options)->torn = true;
    co_with_fault(options, co_torn_write, &io);
}

static void
test_bad_rules_are_refused(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfBlockdevOptions *options;

    bf_test_co_add(graph, bf_test_null("f0", BF_MIB));
    options = options_for(BF_FAULT_OP_ANY);
    g_free(first_rule(options)->errno_);
    first_rule(options)->errno_ = g_strdup("EWHAT");
    bf_test_co_add_fails(graph, options, "'EWHAT' is not the name of an errno");
    options = options_for(BF_FAULT_OP_ANY);
    first_rule(options)->probability = 101;
    bf_test_co_add_fails(graph, options, "probability is above 100");
    options = options_for(BF_FAULT_OP_ANY);
    first_rule(options)->delay_ms = UINT64_MAX;
    bf_test_co_add_fails(graph, options, "delay-ms is above *");
    bf_graph_co_free(graph);
}

static void
test_needs_to_be_allowed(void *arg)
{
    const BfGraphConfig config = {
        .workers = bf_test_loops()->workers,
        .n_workers = BF_TEST_WORKERS,
    };
    BfGraph *graph = bf_graph_new(&config);

    bf_test_co_add(graph, bf_test_null("f0", BF_MIB));
    bf_test_co_add_fails(graph, options_for(BF_FAULT_OP_ANY),
                         "Driver 'fault' is for tests only*");
    bf_graph_co_free(graph);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/fault/after-and-count", test_after_and_count);
    bf_test_add("/block/fault/range", test_range);
    bf_test_add("/block/fault/other-operations-pass",
                test_other_operations_pass);
    bf_test_add("/block/fault/probability-follows-the-seed",
                test_probability_follows_the_seed);
    bf_test_add("/block/fault/short-writes-the-first-half",
                test_short_writes_the_first_half);
    bf_test_add("/block/fault/torn-writes-some-sectors",
                test_torn_writes_some_sectors);
    bf_test_add("/block/fault/bad-rules-are-refused",
                test_bad_rules_are_refused);
    bf_test_add("/block/fault/needs-to-be-allowed", test_needs_to_be_allowed);
    return g_test_run();
}
