/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sections: several changes as one, what waits meanwhile, and failures. */
#include <string.h>

#include "block-harness.h"
#include "core/util.h"
#include "harness.h"

#define READ_WRITE (BF_PERM_CONSISTENT_READ | BF_PERM_WRITE)

typedef struct Write {
    BfHandle *handle;
    int ret;
    bool done;
} Write;

static void
co_write_one(void *arg)
{
    Write *write = arg;
    uint8_t buf[512] = {1};

    write->ret = bf_test_co_write(write->handle, 0, buf, sizeof(buf), 0);
    write->done = true;
}

static void
start_here(void *arg)
{
    bf_co_spawn(co_write_one, arg);
}

typedef struct Look {
    const Write *write;
    bool done;
} Look;

static void
look_here(void *arg)
{
    Look *look = arg;

    look->done = look->write->done;
}

static bool
co_is_done(const Write *write)
{
    Look look = {.write = write};

    bf_test_co_on(bf_test_loops()->workers[0], look_here, &look);
    return look.done;
}

static void
co_assert_ends(const Write *write)
{
    while (!co_is_done(write)) {
        bf_co_yield();
    }
    g_assert_cmpint(write->ret, ==, 0);
}

static void
co_drain_in_section(BfGraph *graph, BfNode *node)
{
    g_autoptr(GError) error = NULL;
    bool ok = bf_graph_co_section_drain_node(graph, node, &error);

    g_assert_no_error(error);
    g_assert_true(ok);
}

/* All that a section does takes effect before any request goes on. */
static void
test_requests_wait_for_the_end(void *arg)
{
    BfLoop *loop = bf_test_loops()->workers[0];
    BfGraph *graph = bf_test_graph_new();
    BfNode *node = bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    BfRoot *root = bf_test_co_root(graph, "n0", READ_WRITE);
    Write old = {.handle = bf_handle_co_new(root, loop)};
    Write born = {0};
    BfRoot *other;
    BfNode *filter;

    bf_graph_co_section_begin(graph);
    co_drain_in_section(graph, node);
    bf_test_co_on(loop, start_here, &old);
    filter = bf_test_co_add(graph, bf_test_raw("r0", bf_test_ref_str("n0")));
    g_assert_true(bf_graph_co_replace_node(graph, node, filter, NULL));
    other = bf_test_co_root(graph, "r0", READ_WRITE);
    born.handle = bf_handle_co_new(other, loop);
    bf_test_co_on(loop, start_here, &born);
    bf_graph_co_section_begin(graph);
    bf_graph_co_section_end(graph);
    g_assert_true(bf_graph_is_in_section(graph));
    g_assert_false(co_is_done(&old));
    g_assert_false(co_is_done(&born));
    bf_graph_co_section_end(graph);
    g_assert_false(bf_graph_is_in_section(graph));
    co_assert_ends(&old);
    co_assert_ends(&born);
    g_assert_true(bf_root_node(root) == filter);
    bf_root_co_free(other);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

typedef struct Adder {
    BfGraph *graph;
    bool done;
} Adder;

static void
co_add_null(void *arg)
{
    Adder *adder = arg;

    bf_test_co_add(adder->graph, bf_test_null("late", BF_MIB));
    adder->done = true;
}

static void
test_changes_of_others_wait(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    Adder adder = {.graph = graph};

    bf_graph_co_section_begin(graph);
    bf_co_spawn(co_add_null, &adder);
    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    bf_co_yield();
    g_assert_false(adder.done);
    g_assert_null(bf_graph_find_node(graph, "late"));
    bf_graph_co_section_end(graph);
    while (!adder.done) {
        bf_co_yield();
    }
    g_assert_nonnull(bf_graph_find_node(graph, "late"));
    bf_graph_co_free(graph);
}

/* What was made in a section can be taken down in it. */
static void
test_taking_back_leaves_nothing(void *arg)
{
    BfLoop *loop = bf_test_loops()->workers[0];
    BfGraph *graph = bf_test_graph_new();
    BfNode *node = bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    BfRoot *root = bf_test_co_root(graph, "n0", READ_WRITE);
    Write write = {.handle = bf_handle_co_new(root, loop)};
    BfRoot *other;
    BfNode *filter;

    bf_graph_co_section_begin(graph);
    co_drain_in_section(graph, node);
    bf_test_co_on(loop, start_here, &write);
    filter =
        bf_test_co_add(graph, bf_test_fault("x0", bf_test_ref_str("n0"), 0));
    g_assert_true(bf_graph_co_replace_node(graph, node, filter, NULL));
    other = bf_test_co_root(graph, "x0", BF_PERM_CONSISTENT_READ);
    bf_handle_co_new(other, loop);
    bf_root_co_free(other);
    g_assert_true(bf_graph_co_replace_node(graph, filter, node, NULL));
    bf_test_co_del(graph, "x0");
    g_assert_false(co_is_done(&write));
    bf_graph_co_section_end(graph);
    co_assert_ends(&write);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

static BfHandle *
co_parking_handle(BfGraph *graph, BfRoot **ret_root)
{
    BfBlockdevOptions *options =
        bf_test_fault("x0", bf_test_ref_new(bf_test_null("n1", BF_MIB)), 1);

    options->u.fault->rules->items[0]->op = BF_FAULT_OP_WRITE;
    options->u.fault->rules->items[0]->park = true;
    bf_test_co_add(graph, options);
    *ret_root = bf_test_co_root(graph, "x0", READ_WRITE);
    return bf_handle_co_new(
        *ret_root, bf_root_pick_loop(*ret_root, bf_test_loops()->workers,
                                     BF_TEST_WORKERS, 0));
}

typedef struct Section {
    BfGraph *graph;
    bool ok;
    bool done;
    GError *error;
} Section;

static void
co_drain_both(void *arg)
{
    Section *section = arg;
    BfGraph *graph = section->graph;

    bf_graph_co_section_begin(graph);
    co_drain_in_section(graph, bf_graph_find_node(graph, "n0"));
    section->ok = bf_graph_co_section_drain_node(
        graph, bf_graph_find_node(graph, "x0"), &section->error);
    bf_graph_co_section_end(graph);
    section->done = true;
}

static void
start_on_its_loop(BfHandle *handle, BfLoop *loop, Write *write)
{
    write->handle = handle;
    bf_test_co_on(loop, start_here, write);
}

/* One node comes to rest and another does not: both go on. */
static void
test_failed_drain_resumes_all(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    Section section = {.graph = graph};
    Write stuck = {0};
    Write write = {0};
    BfBlockdevOptions *calm;
    BfRoot *stuck_root;
    BfHandle *handle;
    BfRoot *root;
    BfLoop *loop;

    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    root = bf_test_co_root(graph, "n0", READ_WRITE);
    handle = co_parking_handle(graph, &stuck_root);
    loop = bf_root_pick_loop(stuck_root, bf_test_loops()->workers,
                             BF_TEST_WORKERS, 0);
    start_on_its_loop(handle, loop, &stuck);
    bf_co_spawn(co_drain_both, &section);
    bf_test_advance(11 * BF_NS_PER_SEC);
    while (!section.done) {
        bf_co_yield();
    }
    g_assert_false(section.ok);
    bf_test_assert_error(&section.error,
                         "Requests did not end within 10 seconds (node 'x0'*");
    loop = bf_test_loops()->workers[0];
    start_on_its_loop(bf_handle_co_new(root, loop), loop, &write);
    co_assert_ends(&write);
    calm = bf_test_fault("x0", bf_test_ref_str("n1"), 0);
    g_assert_true(bf_test_co_reopen(graph, calm, NULL));
    bf_root_co_free(stuck_root);
    g_assert_cmpint(stuck.ret, ==, 0);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

/* A fixed root keeps its node, its size and its place. */
static void
test_fixed_root_stays(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfNode *node = bf_test_co_add(graph, bf_test_file("f0", path));
    BfNode *other = bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    BfRoot *root = bf_test_co_root(graph, "f0", BF_PERM_CONSISTENT_READ);
    BfRoot *fixed = bf_root_co_new_fixed(graph, node, "export 'e0'", NULL);
    GError *error = NULL;

    g_assert_nonnull(fixed);
    g_assert_true(bf_graph_co_replace_node(graph, node, other, NULL));
    g_assert_true(bf_root_node(root) == other);
    g_assert_true(bf_root_node(fixed) == node);
    g_assert_false(bf_graph_co_resize(graph, node, 2 * BF_MIB, &error));
    bf_test_assert_error(&error,
                         "Permission conflict on node 'f0': permissions "
                         "'resize' are both required by command 'block_resize'"
                         "*unshared by export 'e0'*");
    g_assert_false(bf_graph_co_blockdev_del(graph, "f0", &error));
    bf_test_assert_error(&error, "Node f0 is in use by export 'e0'");
    bf_root_co_free(fixed);
    bf_test_co_del(graph, "f0");
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/section/requests-wait-for-the-end",
                test_requests_wait_for_the_end);
    bf_test_add("/block/section/changes-of-others-wait",
                test_changes_of_others_wait);
    bf_test_add("/block/section/taking-back-leaves-nothing",
                test_taking_back_leaves_nothing);
    bf_test_add_fake("/block/section/failed-drain-resumes-all",
                     test_failed_drain_resumes_all);
    bf_test_add("/block/section/fixed-root-stays", test_fixed_root_stays);
    return g_test_run();
}
