/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reopen: what may change, what must be repeated, all or nothing. */
#include <string.h>
#include <unistd.h>

#include "block-harness.h"
#include "core/util.h"
#include "harness.h"

#define READ_WRITE (BF_PERM_CONSISTENT_READ | BF_PERM_WRITE)

static void
co_reopen_ok(BfGraph *graph, BfBlockdevOptions *options)
{
    g_autoptr(GError) error = NULL;
    bool ok = bf_test_co_reopen(graph, options, &error);

    g_assert_no_error(error);
    g_assert_true(ok);
}

static void
co_reopen_fails(BfGraph *graph, BfBlockdevOptions *options, const char *message)
{
    GError *error = NULL;

    g_assert_false(bf_test_co_reopen(graph, options, &error));
    bf_test_assert_error(&error, message);
}

static BfBlockdevOptions *
read_only(BfBlockdevOptions *options, bool value)
{
    options->has_read_only = true;
    options->read_only = value;
    return options;
}

static bool
node_is_read_only(BfGraph *graph, const char *name)
{
    return bf_node_is_read_only(bf_graph_find_node(graph, name));
}

static void
test_read_only_comes_and_goes(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfRoot *root;

    bf_test_co_add(graph, read_only(bf_test_file("f0", path), true));
    g_assert_true(node_is_read_only(graph, "f0"));
    co_reopen_ok(graph, bf_test_file("f0", path)); /* the default */
    g_assert_false(node_is_read_only(graph, "f0"));
    root = bf_test_co_root(graph, "f0", READ_WRITE);
    co_reopen_fails(graph, read_only(bf_test_file("f0", path), true),
                    "Block node 'f0' is read-only and cannot support test*");
    g_assert_false(node_is_read_only(graph, "f0"));
    bf_root_co_free(root);
    root = bf_test_co_root(graph, "f0", BF_PERM_CONSISTENT_READ);
    co_reopen_ok(graph, read_only(bf_test_file("f0", path), true));
    g_assert_true(node_is_read_only(graph, "f0"));
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

typedef struct Io {
    BfHandle *handle;
    uint8_t value;
} Io;

static void
co_write_and_check(void *arg)
{
    Io *io = arg;
    uint8_t buf[1000];

    memset(buf, io->value, sizeof(buf));
    g_assert_cmpint(bf_test_co_write(io->handle, 333, buf, sizeof(buf), 0), ==,
                    0);
    memset(buf, 0, sizeof(buf));
    g_assert_cmpint(bf_test_co_read(io->handle, 333, buf, sizeof(buf)), ==, 0);
    g_assert_cmpuint(buf[0], ==, io->value);
    g_assert_cmpuint(buf[999], ==, io->value);
}

static void
test_direct_changes_the_alignment(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfLoop *loop = bf_test_loops()->workers[1];
    BfRoot *root;
    Io io = {.value = 1};

    bf_test_co_add(graph, bf_test_file("f0", path));
    bf_test_co_add(graph, bf_test_raw("r0", bf_test_ref_str("f0")));
    root = bf_test_co_root(graph, "r0", READ_WRITE);
    io.handle = bf_handle_co_new(root, loop);
    g_assert_cmpuint(bf_root_limits(root)->alignment, ==, 1);
    bf_test_co_on(loop, co_write_and_check, &io);
    co_reopen_ok(graph, bf_test_set_direct(bf_test_file("f0", path)));
    g_assert_cmpuint(bf_root_limits(root)->alignment, >, 1);
    io.value = 2;
    bf_test_co_on(loop, co_write_and_check, &io);
    co_reopen_ok(graph, bf_test_file("f0", path));
    g_assert_cmpuint(bf_root_limits(root)->alignment, ==, 1);
    io.value = 3;
    bf_test_co_on(loop, co_write_and_check, &io);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

static void
test_other_options_must_be_repeated(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfBlockdevOptions *options;

    options = bf_test_file("f0", path);
    options->u.file->locking = BF_ON_OFF_AUTO_OFF;
    bf_test_co_add(graph, options);
    co_reopen_fails(graph, bf_test_file("f0", "/x"),
                    "Cannot change the option 'filename'");
    co_reopen_fails(graph, bf_test_file("f0", path),
                    "Option 'locking' cannot be reset to its default value");
    co_reopen_fails(graph, bf_test_null("f0", BF_MIB),
                    "Cannot change the option 'driver': node 'f0' has 'file'");
    co_reopen_fails(graph, bf_test_null("zz", BF_MIB),
                    "Failed to find node with node-name='zz'");
    co_reopen_fails(graph, bf_test_null(NULL, BF_MIB),
                    "node-name not specified");
    bf_test_co_add(graph, bf_test_null("n0", 4096));
    co_reopen_fails(graph, bf_test_null("n0", BF_GIB),
                    "Option 'size' cannot be reset to its default value");
    options = bf_test_null("n0", 4096);
    options->detect_zeroes = BF_BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP;
    co_reopen_fails(graph, options, "setting detect-zeroes to unmap*");
    bf_graph_co_free(graph);
}

static void
test_all_or_nothing(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfBlockdevOptions *items[2];
    BfBlockdevOptionsList list = {.len = 2, .items = items};
    GError *error = NULL;

    bf_test_co_add(graph, bf_test_null("n0", BF_GIB));
    bf_test_co_add(graph, bf_test_null("n1", BF_GIB));
    items[0] = read_only(bf_test_null("n0", BF_GIB), true);
    items[1] = bf_test_null("n1", 512);
    g_assert_false(bf_graph_co_reopen(graph, &list, &error));
    g_clear_error(&error);
    g_assert_false(node_is_read_only(graph, "n0"));
    items[1]->u.null_co->size = BF_GIB;
    g_assert_true(bf_graph_co_reopen(graph, &list, &error));
    g_assert_true(node_is_read_only(graph, "n0"));
    g_assert_false(node_is_read_only(graph, "n1"));
    list.items[1]->driver = BF_BLOCKDEV_DRIVER_NULL_CO;
    g_free(items[1]->node_name);
    items[1]->node_name = g_strdup("n0");
    g_assert_false(bf_graph_co_reopen(graph, &list, &error));
    bf_test_assert_error(&error, "Node 'n0' is given more than once");
    list.len = 0;
    g_assert_true(bf_graph_co_reopen(graph, &list, &error));
    bf_blockdev_options_free(items[0]);
    bf_blockdev_options_free(items[1]);
    bf_graph_co_free(graph);
}

static void
test_inline_children_follow(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    g_autofree char *path = bf_test_file_new(BF_MIB);

    bf_test_co_add(
        graph, bf_test_raw("r0", bf_test_ref_new(bf_test_file("f0", path))));
    co_reopen_ok(graph,
                 read_only(bf_test_raw("r0", bf_test_ref_str("f0")), true));
    g_assert_true(node_is_read_only(graph, "f0"));
    co_reopen_ok(graph, bf_test_raw("r0", bf_test_ref_str("f0")));
    g_assert_false(node_is_read_only(graph, "f0"));
    /* Inline options again: they are the child's, if it is the same. */
    co_reopen_ok(graph,
                 bf_test_raw("r0", bf_test_ref_new(read_only(
                                       bf_test_file("f0", path), true))));
    g_assert_true(node_is_read_only(graph, "f0"));
    co_reopen_fails(
        graph, bf_test_raw("r0", bf_test_ref_new(bf_test_file("f1", path))),
        "Cannot change the 'file' link of node 'r0'*");
    bf_graph_co_free(graph);
}

static void
test_relinking_checks_and_closes(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfRoot *root;

    bf_test_co_add(
        graph, bf_test_raw("r0", bf_test_ref_new(bf_test_null("a", BF_MIB))));
    bf_test_co_add(graph, bf_test_null("b", BF_MIB));
    bf_test_co_add(graph, bf_test_null("small", 4096));
    co_reopen_fails(graph, bf_test_raw("r0", bf_test_ref_str("r0")),
                    "Making 'r0' a file child of 'r0' would create a cycle*");
    co_reopen_fails(graph, bf_test_raw("r0", bf_test_ref_str("zz")),
                    "Cannot find device='zz' nor node-name='zz'");
    root = bf_test_co_root(graph, "r0", READ_WRITE);
    co_reopen_fails(graph, bf_test_raw("r0", bf_test_ref_str("small")),
                    "The size of node 'r0' would change from 1048576 to 4096*");
    co_reopen_ok(graph, bf_test_raw("r0", bf_test_ref_str("b")));
    /* "a" was made inline and has nobody any more. */
    g_assert_null(bf_graph_find_node(graph, "a"));
    bf_root_co_free(root);
    co_reopen_ok(graph, bf_test_raw("r0", bf_test_ref_str("small")));
    bf_test_co_del(graph, "b");
    bf_graph_co_free(graph);
}

/* Opening for reading and writing what root may not write is hard to test; a
 * removed file shows that the open one is used, not its name. */
static void
test_works_after_the_name_is_gone(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    g_autofree char *path = bf_test_file_new(BF_MIB);

    bf_test_co_add(graph, bf_test_file("f0", path));
    g_assert_cmpint(unlink(path), ==, 0);
    co_reopen_ok(graph, read_only(bf_test_file("f0", path), true));
    co_reopen_ok(graph, bf_test_file("f0", path));
    bf_graph_co_free(graph);
}

/* A child that both parents leave is closed, and only once. */
static void
test_two_parents_leave_one_child(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    GError *error = NULL;
    BfBlockdevOptions *items[] = {
        bf_test_raw("a", bf_test_ref_str("d")),
        bf_test_raw("b", bf_test_ref_str("d")),
    };
    const BfBlockdevOptionsList list = {.len = 2, .items = items};

    bf_test_co_add(graph,
                   bf_test_raw("a", bf_test_ref_new(bf_test_null("c", 1024))));
    bf_test_co_add(graph, bf_test_raw("b", bf_test_ref_str("c")));
    bf_test_co_add(graph, bf_test_null("d", 1024));
    g_assert_true(bf_graph_co_reopen(graph, &list, &error));
    g_assert_null(bf_graph_find_node(graph, "c"));
    bf_test_co_del(graph, "a");
    bf_test_co_del(graph, "b");
    bf_test_co_del(graph, "d");
    bf_blockdev_options_free(items[0]);
    bf_blockdev_options_free(items[1]);
    bf_graph_co_free(graph);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/reopen/read-only-comes-and-goes",
                test_read_only_comes_and_goes);
    bf_test_add("/block/reopen/direct-changes-the-alignment",
                test_direct_changes_the_alignment);
    bf_test_add("/block/reopen/other-options-must-be-repeated",
                test_other_options_must_be_repeated);
    bf_test_add("/block/reopen/all-or-nothing", test_all_or_nothing);
    bf_test_add("/block/reopen/inline-children-follow",
                test_inline_children_follow);
    bf_test_add("/block/reopen/relinking-checks-and-closes",
                test_relinking_checks_and_closes);
    bf_test_add("/block/reopen/two-parents-leave-one-child",
                test_two_parents_leave_one_child);
    bf_test_add("/block/reopen/works-after-the-name-is-gone",
                test_works_after_the_name_is_gone);
    return g_test_run();
}
