/* SPDX-License-Identifier: GPL-2.0-or-later */
/* throttle: what counts, changes of group, drains that do not wait for it. */
#include <string.h>

#include "block-harness.h"
#include "core/co-lock.h"
#include "core/util.h"
#include "harness.h"

#define READ_WRITE (BF_PERM_CONSISTENT_READ | BF_PERM_WRITE)

static BfThrottleGroup *
group_of(BfThrottleBucket bucket, uint64_t avg)
{
    BfThrottleConfig config;

    bf_throttle_config_init(&config);
    config.limits[bucket].avg = avg;
    return bf_throttle_group_new(&config);
}

static BfBlockdevOptions *
throttle(const char *name, const char *file, const char *group)
{
    BfBlockdevOptions *options =
        bf_test_options(BF_BLOCKDEV_DRIVER_THROTTLE, name);

    options->u.throttle = g_new0(BfBlockdevOptionsThrottle, 1);
    options->u.throttle->throttle_group = g_strdup(group);
    options->u.throttle->file = bf_test_ref_str(file);
    return options;
}

typedef struct Io {
    BfHandle *handle;
    uint64_t waited_ns;
} Io;

/* Requests of 100 KiB each, of all kinds. */
static void
co_all_kinds(void *arg)
{
    Io *io = arg;
    g_autofree uint8_t *buf = g_malloc0(100 * BF_KIB);
    uint64_t start = bf_loop_now_ns();

    g_assert_cmpint(bf_test_co_write(io->handle, 0, buf, 100 * BF_KIB, 0), ==,
                    0);
    g_assert_cmpint(bf_handle_co_write_zeroes(io->handle, 0, 100 * BF_KIB, 0),
                    ==, 0);
    g_assert_cmpint(bf_handle_co_discard(io->handle, 0, 100 * BF_KIB, 0), ==,
                    0);
    g_assert_cmpint(bf_test_co_read(io->handle, 0, buf, 100 * BF_KIB), ==, 0);
    g_assert_cmpint(bf_handle_co_flush(io->handle), ==, 0);
    io->waited_ns = bf_loop_now_ns() - start;
}

/* Each waits for the one before it: 3 times 100 KiB at 1 MiB a second, less
 * what the bucket holds. */
static void
test_all_kinds_count(void *arg)
{
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfThrottleGroup *group = group_of(BF_THROTTLE_BUCKET_BPS_TOTAL, BF_MIB);
    BfGraph *graph = bf_test_graph_new();
    BfLoop *loop = bf_test_loops()->workers[1];
    BfBlockdevOptions *options;
    BfRoot *root;
    Io io;

    bf_test_set_throttle_group("g0", group);
    bf_test_co_add(graph, bf_test_file("f0", path));
    options = throttle("t0", "f0", "g0");
    options->has_discard = true;
    options->discard = BF_BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    bf_test_co_add(graph, options);
    root = bf_test_co_root(graph, "t0", READ_WRITE);
    io.handle = bf_handle_co_new(root, loop);
    bf_test_co_on(loop, co_all_kinds, &io);
    g_assert_cmpuint(io.waited_ns, >, 190 * BF_NS_PER_MS);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
    bf_throttle_group_free(group);
}

static void
test_group_must_exist(void *arg)
{
    BfGraph *graph = bf_test_graph_new();

    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    bf_test_co_add_fails(graph, throttle("t0", "n0", "nope"),
                         "Throttle group 'nope' does not exist");
    bf_test_co_del(graph, "n0");
    bf_graph_co_free(graph);
}

typedef struct Stuck {
    BfHandle *handle;
    BfWaitGroup running; /* main */
} Stuck;

static void
stuck_ended(void *arg)
{
    Stuck *stuck = arg;

    bf_wait_group_done(&stuck->running);
}

static void
co_read_on(void *arg)
{
    Stuck *stuck = arg;
    uint8_t buf[512];

    g_assert_cmpint(bf_test_co_read(stuck->handle, 0, buf, 512), ==, 0);
    bf_loop_post(bf_test_loops()->main, stuck_ended, stuck);
}

static void
spawn_reads(void *arg)
{
    for (unsigned i = 0; i < 10; i++) {
        bf_co_spawn(co_read_on, arg);
    }
}

/* Ten requests at one in a thousand seconds; on a clock that stands still. */
static void
test_drain_lets_go(void *arg)
{
    BfThrottleGroup *slow = group_of(BF_THROTTLE_BUCKET_IOPS_TOTAL, 1);
    BfThrottleGroup *other = group_of(BF_THROTTLE_BUCKET_IOPS_TOTAL, 1);
    BfGraph *graph = bf_test_graph_new();
    BfLoop *loop = bf_test_loops()->workers[0];
    g_autoptr(GError) error = NULL;
    Stuck stuck = {0};
    BfRoot *root;

    bf_test_set_throttle_group("g0", slow);
    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    bf_test_co_add(graph, throttle("t0", "n0", "g0"));
    root = bf_test_co_root(graph, "t0", READ_WRITE);
    stuck.handle = bf_handle_co_new(root, loop);
    bf_wait_group_add(&stuck.running, 10);
    bf_loop_post(loop, spawn_reads, &stuck);
    bf_test_advance(0);
    g_assert_cmpuint(stuck.running.count, >, 5);
    g_assert_cmpstr(bf_throttle_group_user(slow), ==, "node 't0'");

    bf_test_set_throttle_group("g1", other);
    g_assert_true(bf_test_co_reopen(graph, throttle("t0", "n0", "g1"), &error));
    bf_wait_group_co_wait(&stuck.running);
    g_assert_null(bf_throttle_group_user(slow));
    g_assert_cmpstr(bf_throttle_group_user(other), ==, "node 't0'");

    /* So does the end of their user. */
    bf_wait_group_add(&stuck.running, 10);
    bf_loop_post(loop, spawn_reads, &stuck);
    bf_test_advance(0);
    g_assert_cmpuint(stuck.running.count, >, 5);
    bf_root_abort(root);
    bf_root_co_free(root);
    bf_wait_group_co_wait(&stuck.running);
    bf_graph_co_free(graph);
    bf_throttle_group_free(slow);
    bf_throttle_group_free(other);
}

static void
test_failed_reopen_keeps_the_group(void *arg)
{
    BfThrottleGroup *group = group_of(BF_THROTTLE_BUCKET_IOPS_TOTAL, 1);
    BfGraph *graph = bf_test_graph_new();
    GError *error = NULL;

    bf_test_set_throttle_group("g0", group);
    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    bf_test_co_add(graph, throttle("t0", "n0", "g0"));
    g_assert_false(
        bf_test_co_reopen(graph, throttle("t0", "n0", "zz"), &error));
    bf_test_assert_error(&error, "Throttle group 'zz' does not exist");
    g_assert_false(
        bf_test_co_reopen(graph, throttle("t0", "t0", "g0"), &error));
    bf_test_assert_error(&error, "*would create a cycle*");
    bf_test_co_del(graph, "t0");
    g_assert_null(bf_throttle_group_user(group));
    bf_graph_co_free(graph);
    bf_throttle_group_free(group);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/throttle/all-kinds-count", test_all_kinds_count);
    bf_test_add("/block/throttle/group-must-exist", test_group_must_exist);
    bf_test_add_fake("/block/throttle/drain-lets-go", test_drain_lets_go);
    bf_test_add("/block/throttle/failed-reopen-keeps-the-group",
                test_failed_reopen_keeps_the_group);
    return g_test_run();
}
