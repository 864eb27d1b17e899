/* SPDX-License-Identifier: GPL-2.0-or-later */
/* copy-before-write and snapshot-access: the past stays readable, or fails. */
#include <errno.h>
#include <string.h>

#include "block-harness.h"
#include "block/driver.h"
#include "block/graph.h"
#include "block/handover.h"
#include "core/co-lock.h"
#include "core/util.h"
#include "harness.h"

#define READ_WRITE (BF_PERM_CONSISTENT_READ | BF_PERM_WRITE)
#define SIZE (2 * BF_MIB)
#define CLUSTER 65536

typedef struct Fixture {
    BfGraph *graph;
    BfRoot *disk;
    BfRoot *past;
    BfHandle *disk_handle;
    BfHandle *past_handle;
    uint8_t *before; /* owned: the disk at the beginning */
} Fixture;

static BfBlockdevOptions *
cbw(const char *name, const char *file, const char *target)
{
    BfBlockdevOptions *options =
        bf_test_options(BF_BLOCKDEV_DRIVER_COPY_BEFORE_WRITE, name);

    options->u.copy_before_write = g_new0(BfBlockdevOptionsCbw, 1);
    options->u.copy_before_write->file = bf_test_ref_str(file);
    options->u.copy_before_write->target = bf_test_ref_str(target);
    options->has_discard = true;
    options->discard = BF_BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    return options;
}

static BfBlockdevOptions *
snapshot_access(const char *name, const char *file)
{
    BfBlockdevOptions *options =
        bf_test_options(BF_BLOCKDEV_DRIVER_SNAPSHOT_ACCESS, name);

    options->u.snapshot_access = g_new0(BfBlockdevOptionsGenericFormat, 1);
    options->u.snapshot_access->file = bf_test_ref_str(file);
    options->has_discard = true;
    options->discard = BF_BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    return options;
}

static BfBlockdevOptions *
with_discard(BfBlockdevOptions *options)
{
    options->has_discard = true;
    options->discard = BF_BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    return options;
}

static char *
noise_file(uint8_t *ret_data)
{
    char *path = bf_test_file_new(SIZE);
    g_autoptr(GRand) rand = g_rand_new_with_seed(7);

    for (size_t i = 0; i < SIZE; i++) {
        ret_data[i] = (uint8_t)(1 + g_rand_int(rand) % 255);
    }
    g_assert_true(
        g_file_set_contents(path, (const char *)ret_data, SIZE, NULL));
    return path;
}

/* f0 is the disk, t0 the target (behind x0 if @rules), c0 the filter. */
static void
co_set_up(Fixture *f, BfBlockdevOptions *filter, unsigned n_rules)
{
    g_autofree char *target = bf_test_file_new(SIZE);
    g_autofree char *disk = NULL;
    BfLoop *loop;

    f->before = g_malloc(SIZE);
    disk = noise_file(f->before);
    f->graph = bf_test_graph_new();
    bf_test_co_add(f->graph, with_discard(bf_test_file("f0", disk)));
    bf_test_co_add(f->graph, with_discard(bf_test_file("t0", target)));
    bf_test_co_add(f->graph,
                   bf_test_fault("x0", bf_test_ref_str("t0"), n_rules));
    bf_test_co_add(f->graph, filter);
    bf_test_co_add(f->graph, snapshot_access("s0", "c0"));
    f->disk = bf_test_co_root(f->graph, "c0", READ_WRITE);
    f->past = bf_test_co_root(f->graph, "s0", READ_WRITE);
    loop = bf_test_loops()->workers[0];
    f->disk_handle = bf_handle_co_new(f->disk, loop);
    f->past_handle = bf_handle_co_new(f->past, loop);
}

static void
co_tear_down(Fixture *f)
{
    bf_root_co_free(f->disk);
    bf_root_co_free(f->past);
    bf_graph_co_free(f->graph);
    g_free(f->before);
}

static void
co_check_past(Fixture *f, uint64_t offset, size_t bytes)
{
    g_autofree uint8_t *buf = g_malloc(bytes);

    g_assert_cmpint(bf_test_co_read(f->past_handle, offset, buf, bytes), ==, 0);
    g_assert_cmpint(memcmp(buf, f->before + offset, bytes), ==, 0);
}

/* One of several that work at the same time. */
typedef struct Worker {
    Fixture *fixture;
    unsigned seed;
    BfWaitGroup *running;
} Worker;

static void
co_random_requests(void *arg)
{
    Worker *worker = arg;
    Fixture *f = worker->fixture;
    g_autoptr(GRand) rand = g_rand_new_with_seed(worker->seed);
    g_autofree uint8_t *buf = g_malloc0(4 * CLUSTER);

    for (unsigned i = 0; i < 60; i++) {
        uint64_t offset = g_rand_int_range(rand, 0, SIZE - 4 * CLUSTER);
        size_t bytes = g_rand_int_range(rand, 1, 4 * CLUSTER);
        int ret = 0;

        switch (g_rand_int_range(rand, 0, 5)) {
        case 0:
            ret = bf_handle_co_write_zeroes(f->disk_handle, offset, bytes,
                                            BF_IO_MAY_UNMAP);
            break;
        case 1:
            ret = bf_handle_co_discard(f->disk_handle, offset, bytes, 0);
            break;
        case 2:
            co_check_past(f, offset, bytes);
            break;
        default:
            ret = bf_test_co_write(f->disk_handle, offset, buf, bytes, 0);
            break;
        }
        g_assert_cmpint(ret, ==, 0);
    }
    bf_wait_group_done(worker->running);
}

static void
co_random_load(void *arg)
{
    Worker workers[8];
    BfWaitGroup running = {0};

    for (unsigned i = 0; i < G_N_ELEMENTS(workers); i++) {
        workers[i] = (Worker){arg, i + 1, &running};
        bf_wait_group_add(&running, 1);
        bf_co_spawn(co_random_requests, &workers[i]);
    }
    bf_wait_group_co_wait(&running);
    co_check_past(arg, 0, SIZE);
}

static void
test_past_is_kept_under_load(void *arg)
{
    Fixture f;

    co_set_up(&f, cbw("c0", "f0", "x0"), 0);
    bf_test_co_on(bf_test_loops()->workers[0], co_random_load, &f);
    co_tear_down(&f);
}

static void
co_once_for_each_cluster(void *arg)
{
    Fixture *f = arg;
    uint8_t buf[512] = {0};

    for (unsigned i = 0; i < 10; i++) {
        g_assert_cmpint(bf_test_co_write(f->disk_handle, i * 512, buf, 512, 0),
                        ==, 0);
    }
    /* The second cluster cannot be copied. */
    g_assert_cmpint(bf_test_co_write(f->disk_handle, CLUSTER, buf, 512, 0), ==,
                    -EIO);
    co_check_past(f, 0, SIZE);
    g_assert_cmpint(bf_test_co_read(f->disk_handle, CLUSTER, buf, 512), ==, 0);
    g_assert_cmpint(memcmp(buf, f->before + CLUSTER, 512), ==, 0);
}

/* The target takes one write, and then no more. */
static void
test_change_fails_without_a_copy(void *arg)
{
    Fixture f;
    BfBlockdevOptions *fault;
    GError *error = NULL;

    co_set_up(&f, cbw("c0", "f0", "x0"), 0);
    fault = bf_test_fault("x0", bf_test_ref_str("t0"), 1);
    fault->u.fault->rules->items[0]->op = BF_FAULT_OP_WRITE;
    fault->u.fault->rules->items[0]->after = 1;
    g_assert_true(bf_test_co_reopen(f.graph, fault, &error));
    bf_test_co_on(bf_test_loops()->workers[0], co_once_for_each_cluster, &f);
    co_tear_down(&f);
}

static void
co_break_snapshot(void *arg)
{
    Fixture *f = arg;
    uint8_t buf[512] = {0};

    co_check_past(f, 0, SIZE);
    g_assert_cmpint(bf_test_co_write(f->disk_handle, 0, buf, 512, 0), ==, 0);
    g_assert_cmpint(bf_test_co_read(f->past_handle, SIZE / 2, buf, 512), ==,
                    -EACCES);
    g_assert_cmpint(bf_test_co_write(f->disk_handle, 0, buf, 512, 0), ==, 0);
}

static void
test_snapshot_breaks_instead_of_the_change(void *arg)
{
    Fixture f;
    BfBlockdevOptions *options = cbw("c0", "f0", "x0");

    options->u.copy_before_write->on_cbw_error = BF_ON_CBW_ERROR_BREAK_SNAPSHOT;
    co_set_up(&f, options, 1);
    bf_test_co_on(bf_test_loops()->workers[0], co_break_snapshot, &f);
    co_tear_down(&f);
}

static void
co_write_in_time(void *arg)
{
    Fixture *f = arg;
    uint8_t buf[512] = {0};

    g_assert_cmpint(bf_test_co_write(f->disk_handle, 0, buf, 512, 0), ==,
                    -ETIMEDOUT);
}

static void
co_check_all_past(void *arg)
{
    co_check_past(arg, 0, SIZE);
}

/* The copy goes on when its request is gone; a change of the graph waits. */
static void
test_timeout_leaves_the_copy_behind(void *arg)
{
    Fixture f;
    BfBlockdevOptions *options = cbw("c0", "f0", "x0");
    GError *error = NULL;
    BfBlockdevOptions *fault;

    options->u.copy_before_write->cbw_timeout = 1;
    co_set_up(&f, options, 0);
    fault = bf_test_fault("x0", bf_test_ref_str("t0"), 1);
    fault->u.fault->rules->items[0]->op = BF_FAULT_OP_WRITE;
    fault->u.fault->rules->items[0]->park = true;
    g_assert_true(bf_test_co_reopen(f.graph, fault, &error));
    bf_test_co_on(bf_test_loops()->workers[0], co_write_in_time, &f);
    g_assert_true(bf_test_co_reopen(
        f.graph, bf_test_fault("x0", bf_test_ref_str("t0"), 0), &error));
    bf_test_co_on(bf_test_loops()->workers[0], co_check_all_past, &f);
    co_tear_down(&f);
}

static void
co_discard_past(void *arg)
{
    Fixture *f = arg;
    uint8_t buf[512] = {0};
    BfExtents extents;

    g_assert_cmpint(bf_handle_co_discard(f->past_handle, 512, 2 * CLUSTER, 0),
                    ==, 0);
    co_check_past(f, 0, CLUSTER);
    g_assert_cmpint(bf_test_co_read(f->past_handle, CLUSTER, buf, 512), ==,
                    -EACCES);
    co_check_past(f, 2 * CLUSTER, CLUSTER);
    g_assert_cmpint(bf_test_co_write(f->past_handle, 0, buf, 512, 0), ==,
                    -EPERM);
    bf_extents_init(&extents, 4);
    g_assert_cmpint(bf_handle_co_extents(f->past_handle, 0, CLUSTER, &extents),
                    ==, 0);
    g_assert_cmpuint(extents.len, ==, 1);
    g_assert_cmpuint(extents.items[0].flags, ==, 0);
    bf_extents_clear(&extents);
}

static void
test_discarded_past_is_gone(void *arg)
{
    Fixture f;

    co_set_up(&f, cbw("c0", "f0", "x0"), 0);
    bf_test_co_on(bf_test_loops()->workers[0], co_discard_past, &f);
    co_tear_down(&f);
}

static void
co_only_the_bitmap(void *arg)
{
    Fixture *f = arg;
    uint8_t buf[512] = {0};

    for (unsigned i = 0; i < 4; i++) {
        g_assert_cmpint(
            bf_test_co_write(f->disk_handle, i * CLUSTER, buf, 512, 0), ==, 0);
    }
    co_check_past(f, CLUSTER, CLUSTER);
    g_assert_cmpint(bf_test_co_read(f->past_handle, 0, buf, 512), ==, -EACCES);
    g_assert_cmpint(
        bf_test_co_read(f->past_handle, CLUSTER + 512, buf, CLUSTER), ==,
        -EACCES);
}

static void
test_bitmap_says_what_is_kept(void *arg)
{
    Fixture f;
    GError *error = NULL;
    BfBitmap *bitmap = bf_bitmap_new("b0", SIZE, CLUSTER / 4, &error);
    BfBlockdevOptions *options;
    BfNode *node;

    co_set_up(&f, cbw("c0", "f0", "x0"), 0);
    bf_root_co_free(f.disk);
    bf_root_co_free(f.past);
    bf_test_co_del(f.graph, "s0");
    bf_test_co_del(f.graph, "c0");
    node = bf_graph_find_node(f.graph, "f0");
    bf_bitmap_set(bitmap, CLUSTER + 100, 1);
    g_assert_true(bf_node_co_add_bitmap(node, bitmap, &error));
    options = cbw("c0", "f0", "x0");
    options->u.copy_before_write->bitmap = g_new0(BfBlockDirtyBitmap, 1);
    options->u.copy_before_write->bitmap->node = g_strdup("f0");
    options->u.copy_before_write->bitmap->name = g_strdup("b1");
    bf_test_co_add_fails(f.graph, bf_blockdev_options_copy(options),
                         "Dirty bitmap 'b1' not found");
    options->u.copy_before_write->bitmap->name[1] = '0';
    bf_test_co_add(f.graph, options);
    bf_test_co_add(f.graph, snapshot_access("s0", "c0"));
    f.disk = bf_test_co_root(f.graph, "c0", READ_WRITE);
    f.past = bf_test_co_root(f.graph, "s0", READ_WRITE);
    f.disk_handle = bf_handle_co_new(f.disk, bf_test_loops()->workers[0]);
    f.past_handle = bf_handle_co_new(f.past, bf_test_loops()->workers[0]);
    bf_test_co_on(bf_test_loops()->workers[0], co_only_the_bitmap, &f);
    co_tear_down(&f);
}

static void
test_bad_options_are_refused(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfBlockdevOptions *options;
    GError *error = NULL;

    bf_test_co_add(graph, bf_test_null("n0", SIZE));
    bf_test_co_add(graph, bf_test_null("small", SIZE / 2));
    bf_test_co_add_fails(graph, cbw("c0", "n0", "small"),
                         "The target 'small' (1048576 bytes) is smaller*");
    bf_test_co_add_fails(graph, cbw("c0", "n0", "zz"),
                         "Cannot find device='zz' nor node-name='zz'");
    options = cbw("c0", "n0", "n0");
    options->u.copy_before_write->has_min_cluster_size = true;
    options->u.copy_before_write->min_cluster_size = 65537;
    bf_test_co_add_fails(graph, options, "min-cluster-size needs to be*");
    bf_test_co_add_fails(graph, snapshot_access("s0", "n0"),
                         "Node 'n0' of driver 'null-co' keeps no snapshot*");
    bf_test_co_add(graph, bf_test_null("n1", SIZE));
    bf_test_co_add(graph, bf_test_null("n2", SIZE));
    bf_test_co_add(graph, cbw("c0", "n0", "n1"));
    g_assert_false(bf_test_co_reopen(graph, cbw("c0", "n0", "n2"), &error));
    bf_test_assert_error(&error, "Cannot change the option 'target'");
    bf_test_co_add_fails(graph, cbw("c1", "n1", "n1"),
                         "The target 'n1' is the file itself");
    bf_graph_co_free(graph);
}

/* A user of the filter keeps others from writing past it. */
static void
test_nobody_writes_past_the_filter(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    GError *error = NULL;
    BfNode *node = bf_test_co_add(graph, bf_test_null("n0", SIZE));
    BfRoot *root;

    bf_test_co_add(graph, bf_test_null("n1", SIZE));
    bf_test_co_add(graph, cbw("c0", "n0", "n1"));
    root = bf_test_co_root(graph, "c0", READ_WRITE);
    g_assert_null(
        bf_root_co_new(graph, node, "x", READ_WRITE, BF_PERM_ALL, &error));
    bf_test_assert_error(&error, "Permission conflict on node 'n0'*");
    bf_root_co_free(root);
    root = bf_root_co_new(graph, node, "x", READ_WRITE, BF_PERM_ALL, &error);
    g_assert_no_error(error);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/copy-before-write/past-is-kept-under-load",
                test_past_is_kept_under_load);
    bf_test_add("/block/copy-before-write/change-fails-without-a-copy",
                test_change_fails_without_a_copy);
    bf_test_add("/block/copy-before-write/snapshot-breaks-instead",
                test_snapshot_breaks_instead_of_the_change);
    bf_test_add("/block/copy-before-write/timeout-leaves-the-copy-behind",
                test_timeout_leaves_the_copy_behind);
    bf_test_add("/block/copy-before-write/bitmap-says-what-is-kept",
                test_bitmap_says_what_is_kept);
    bf_test_add("/block/copy-before-write/bad-options-are-refused",
                test_bad_options_are_refused);
    bf_test_add("/block/copy-before-write/nobody-writes-past-the-filter",
                test_nobody_writes_past_the_filter);
    bf_test_add("/block/snapshot-access/discarded-past-is-gone",
                test_discarded_past_is_gone);
    return g_test_run();
}
