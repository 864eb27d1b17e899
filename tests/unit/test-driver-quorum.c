/* SPDX-License-Identifier: GPL-2.0-or-later */
/* quorum, and with it what holds for all nodes with several children. */
#include <string.h>

#include "block-harness.h"
#include "block/driver.h"
#include "block/graph.h"
#include "core/util.h"
#include "harness.h"

#define READ_WRITE (BF_PERM_CONSISTENT_READ | BF_PERM_WRITE)

static BfBlockdevOptions *
quorum(const char *name, BfBlockdevRef *a, BfBlockdevRef *b, BfBlockdevRef *c,
       int64_t threshold)
{
    BfBlockdevOptions *options =
        bf_test_options(BF_BLOCKDEV_DRIVER_QUORUM, name);
    BfBlockdevRefList *children = g_new0(BfBlockdevRefList, 1);

    children->items = g_new0(BfBlockdevRef *, 3);
    children->items[0] = a;
    children->items[1] = b;
    children->items[2] = c;
    children->len = c != NULL ? 3 : 2;
    options->u.quorum = g_new0(BfBlockdevOptionsQuorum, 1);
    options->u.quorum->children = children;
    options->u.quorum->vote_threshold = threshold;
    return options;
}

typedef struct Io {
    BfHandle *handle;
    BfRoot *root;
} Io;

static void
co_write_and_read(void *arg)
{
    Io *io = arg;
    uint8_t buf[1000];

    memset(buf, 7, sizeof(buf));
    g_assert_cmpint(bf_test_co_write(io->handle, 333, buf, sizeof(buf), 0), ==,
                    0);
    memset(buf, 0, sizeof(buf));
    g_assert_cmpint(bf_test_co_read(io->handle, 333, buf, sizeof(buf)), ==, 0);
    g_assert_cmpuint(buf[0], ==, 7);
    g_assert_cmpuint(buf[999], ==, 7);
    g_assert_cmpint(bf_handle_co_flush(io->handle), ==, 0);
}

/* The children's trees were tied to loops of their own, and are in use. */
static void
test_children_get_one_home(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    const BfTestLoops *loops = bf_test_loops();
    const char *const names[] = {"x0", "x1", "x2"};
    BfRoot *users[3];
    Io io;

    for (unsigned i = 0; i < 3; i++) {
        g_autofree char *path = bf_test_file_new(BF_MIB);

        bf_test_co_add(
            graph, bf_test_fault(names[i],
                                 bf_test_ref_new(bf_test_file(NULL, path)), 0));
        users[i] = bf_test_co_root(graph, names[i], BF_PERM_CONSISTENT_READ);
        bf_handle_co_new(users[i], loops->workers[i % 2]);
    }
    bf_test_co_add(graph,
                   quorum("q0", bf_test_ref_str("x0"), bf_test_ref_str("x1"),
                          bf_test_ref_str("x2"), 2));
    io.root = bf_test_co_root(graph, "q0", READ_WRITE);
    for (unsigned i = 0; i < 2; i++) {
        io.handle = bf_handle_co_new(io.root, loops->workers[i]);
        bf_test_co_on(loops->workers[i], co_write_and_read, &io);
    }
    for (unsigned i = 0; i < 3; i++) {
        g_assert_true(bf_graph_find_node(graph, names[i])->home ==
                      bf_root_node(io.root)->home);
        bf_root_co_free(users[i]);
    }
    bf_root_co_free(io.root);
    bf_graph_co_free(graph);
}

static void
test_shared_child_goes_with_its_last_parent(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    GError *error = NULL;

    bf_test_co_add(
        graph, quorum("q0", bf_test_ref_new(bf_test_null("n0", BF_MIB)),
                      bf_test_ref_new(bf_test_null("n1", BF_MIB)), NULL, 1));
    /* Both links lead to n0, and n1 is closed. */
    g_assert_true(bf_test_co_reopen(
        graph,
        quorum("q0", bf_test_ref_str("n0"), bf_test_ref_str("n0"), NULL, 1),
        &error));
    g_assert_no_error(error);
    g_assert_null(bf_graph_find_node(graph, "n1"));
    bf_test_co_del(graph, "q0");
    g_assert_null(bf_graph_find_node(graph, "n0"));
    bf_graph_co_free(graph);
}

static void
test_json_shows_all_children(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    g_autoptr(BfBlockDeviceInfoList) list = NULL;

    bf_test_co_add(graph,
                   quorum("q0", bf_test_ref_new(bf_test_null(NULL, 512)),
                          bf_test_ref_new(bf_test_null(NULL, 512)), NULL, 2));
    list = bf_graph_co_query(graph, false);
    g_assert_cmpstr(
        list->items[0]->file, ==,
        "json:{\"driver\": \"quorum\", \"vote-threshold\": 2, \"children\": ["
        "{\"driver\": \"null-co\", \"size\": 512}, "
        "{\"driver\": \"null-co\", \"size\": 512}]}");
    bf_graph_co_free(graph);
}

/* Each level refers to the one below twice. */
static void
test_many_paths_are_refused(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    g_autoptr(GError) error = NULL;
    g_autofree char *below = g_strdup("n0");

    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    for (unsigned i = 1; error == NULL; i++) {
        char *name = g_strdup_printf("q%u", i);
        g_autoptr(BfBlockdevOptions) options = quorum(
            name, bf_test_ref_str(below), bf_test_ref_str(below), NULL, 1);

        g_assert_cmpuint(i, <, 16);
        bf_graph_co_blockdev_add(graph, options, &error);
        g_free(below);
        below = name;
    }
    g_assert_true(
        g_pattern_match_simple("*more than 4096 nodes", error->message));
    bf_graph_co_free(graph);
}

static void
test_sizes_must_be_equal(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    GError *error = NULL;

    bf_test_co_add_fails(
        graph,
        quorum("q0", bf_test_ref_new(bf_test_null("n0", BF_MIB)),
               bf_test_ref_new(bf_test_null("n1", 512)), NULL, 1),
        "The children differ in size*");
    bf_test_co_add(graph, bf_test_null("n2", 512));
    bf_test_co_add(
        graph, quorum("q0", bf_test_ref_new(bf_test_null("n0", BF_MIB)),
                      bf_test_ref_new(bf_test_null("n1", BF_MIB)), NULL, 1));
    g_assert_false(bf_graph_co_change_child(graph, "q0", NULL, "n2", &error));
    bf_test_assert_error(&error, "The children differ in size*");
    g_assert_true(
        bf_graph_co_change_child(graph, "q0", "children.0", NULL, &error));
    g_assert_null(bf_graph_find_node(graph, "n0"));
    bf_graph_co_free(graph);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/quorum/children-get-one-home",
                test_children_get_one_home);
    bf_test_add("/block/quorum/shared-child-goes-with-its-last-parent",
                test_shared_child_goes_with_its_last_parent);
    bf_test_add("/block/quorum/json-shows-all-children",
                test_json_shows_all_children);
    bf_test_add("/block/quorum/many-paths-are-refused",
                test_many_paths_are_refused);
    bf_test_add("/block/quorum/sizes-must-be-equal", test_sizes_must_be_equal);
    return g_test_run();
}
