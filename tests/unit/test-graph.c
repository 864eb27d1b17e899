/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The graph: names, references, permissions, refusals, replacing, queries. */
#include <string.h>

#include "block-harness.h"
#include "block/driver.h"
#include "core/util.h"
#include "harness.h"

#define READ_WRITE (BF_PERM_CONSISTENT_READ | BF_PERM_WRITE)

static void
test_names_are_checked(void *arg)
{
    BfGraph *graph = bf_test_graph_new();

    bf_test_co_add_fails(graph, bf_test_null(NULL, 512),
                         "'node-name' must be specified for the root node");
    bf_test_co_add_fails(graph, bf_test_null("", 512), "Invalid node-name: ''");
    bf_test_co_add_fails(graph, bf_test_null("9x", 512),
                         "Invalid node-name: '9x'");
    bf_test_co_add_fails(graph, bf_test_null("#block1", 512),
                         "Invalid node-name: '#block1'");
    bf_test_co_add_fails(graph,
                         bf_test_null("abcdefghijklmnopqrstuvwxyz012345", 512),
                         "Node name too long");
    bf_test_co_add(graph, bf_test_null("abcdefghijklmnopqrstuvwxyz01234", 512));
    bf_test_co_add(graph, bf_test_null("n0", 512));
    bf_test_co_add_fails(graph, bf_test_null("n0", 512),
                         "Duplicate nodes with node-name='n0'");
    bf_graph_co_free(graph);
}

static void
test_add_leaves_nothing_behind_on_failure(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfBlockdevOptions *options =
        bf_test_raw("r0", bf_test_ref_new(bf_test_null("n0", 1024)));

    options->u.raw->offset = 2048;
    bf_test_co_add_fails(graph, options,
                         "Offset (2048) cannot be greater than size of the "
                         "containing file (1024)");
    g_assert_null(bf_graph_find_node(graph, "n0"));
    g_assert_null(bf_graph_find_node(graph, "r0"));
    bf_test_co_add_fails(graph, bf_test_raw("r0", bf_test_ref_str("n0")),
                         "Cannot find device='n0' nor node-name='n0'");
    bf_test_co_add(graph, bf_test_null("n0", 1024));
    bf_graph_co_free(graph);
}

static void
test_del_refuses_in_order(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    GError *error = NULL;
    BfRoot *root;

    bf_test_co_add(graph, bf_test_null("n0", 1024));
    bf_test_co_add(graph, bf_test_raw("r0", bf_test_ref_str("n0")));
    bf_test_co_add(
        graph, bf_test_raw("r1", bf_test_ref_new(bf_test_null("n1", 1024))));
    g_assert_false(bf_graph_co_blockdev_del(graph, "zz", &error));
    bf_test_assert_error(&error, "Failed to find node with node-name='zz'");
    g_assert_false(bf_graph_co_blockdev_del(graph, "n0", &error));
    bf_test_assert_error(&error, "Block device n0 is in use by node 'r0'");
    g_assert_false(bf_graph_co_blockdev_del(graph, "n1", &error));
    bf_test_assert_error(&error, "Node n1 is not owned by the monitor");
    root = bf_test_co_root(graph, "n1", BF_PERM_CONSISTENT_READ);
    g_assert_false(bf_graph_co_blockdev_del(graph, "n1", &error));
    bf_test_assert_error(&error, "Node n1 is in use by test");
    bf_root_co_free(root);

    bf_test_co_del(graph, "r1");
    g_assert_null(bf_graph_find_node(graph, "n1"));
    bf_test_co_del(graph, "r0");
    g_assert_nonnull(bf_graph_find_node(graph, "n0"));
    bf_test_co_del(graph, "n0");
    bf_test_co_add(graph, bf_test_null("n0", 1024));
    bf_graph_co_free(graph);
}

static void
test_conflict_names_both_users(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfNode *node = bf_test_co_add(graph, bf_test_null("n0", 1024));
    GError *error = NULL;
    BfRoot *a =
        bf_root_co_new(graph, node, "export 'e0'", READ_WRITE | BF_PERM_RESIZE,
                       BF_PERM_CONSISTENT_READ, &error);
    BfRoot *b;

    g_assert_no_error(error);
    b = bf_root_co_new(graph, node, "export 'e1'", READ_WRITE, BF_PERM_ALL,
                       &error);
    g_assert_null(b);
    bf_test_assert_error(
        &error, "Permission conflict on node 'n0': permissions 'write' are "
                "both required by export 'e1' (uses node 'n0' as 'root' child) "
                "and unshared by export 'e0' (uses node 'n0' as 'root' "
                "child).");
    /* Nothing has stayed of the one that was refused. */
    bf_root_co_free(a);
    b = bf_root_co_new(graph, node, "export 'e1'", READ_WRITE, BF_PERM_ALL,
                       &error);
    g_assert_nonnull(b);
    bf_root_co_free(b);
    bf_graph_co_free(graph);
}

static void
test_permissions_reach_through_filters(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfNode *node = bf_test_co_add(graph, bf_test_null("n0", 1024));
    GError *error = NULL;
    BfRoot *writer;

    bf_test_co_add(graph, bf_test_raw("r0", bf_test_ref_str("n0")));
    bf_test_co_add(graph, bf_test_raw("r1", bf_test_ref_str("r0")));
    writer = bf_test_co_root(graph, "r1", READ_WRITE);
    g_assert_null(bf_root_co_new(graph, node, "job 'j'",
                                 BF_PERM_CONSISTENT_READ,
                                 BF_PERM_CONSISTENT_READ, &error));
    bf_test_assert_error(&error,
                         "*permissions 'write' are both required by node 'r0' "
                         "*unshared by job 'j'*");
    bf_root_co_free(writer);
    bf_graph_co_free(graph);
}

/* Requests of other loops look at the limits meanwhile. */
static void
test_locks_leave_the_limits_alone(void *arg)
{
    const uint32_t mark = 12345 * 512;
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfGraph *graph = bf_test_graph_new();
    BfRoot *reader;
    BfRoot *writer;
    BfNode *raw;

    bf_test_co_add(graph, bf_test_file("f0", path));
    raw = bf_test_co_add(graph, bf_test_raw("r0", bf_test_ref_str("f0")));
    reader = bf_test_co_root(graph, "r0", BF_PERM_CONSISTENT_READ);
    /* Whoever writes the limits anew takes them from the file. */
    raw->limits.max_transfer = mark;
    writer = bf_test_co_root(graph, "f0", READ_WRITE);
    g_assert_cmpuint(raw->limits.max_transfer, ==, mark);
    bf_root_co_free(writer);
    g_assert_cmpuint(raw->limits.max_transfer, ==, mark);
    bf_root_co_free(reader);
    bf_graph_co_free(graph);
}

static void
test_read_only_node_refuses_writers(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfBlockdevOptions *options = bf_test_null("n0", 1024);
    GError *error = NULL;
    BfNode *raw;

    options->has_read_only = true;
    options->read_only = true;
    bf_test_co_add(graph, options);
    raw = bf_test_co_add(graph, bf_test_raw("r0", bf_test_ref_str("n0")));
    g_assert_true(bf_node_is_read_only(raw));
    g_assert_null(
        bf_root_co_new(graph, raw, "x", READ_WRITE, BF_PERM_ALL, &error));
    bf_test_assert_error(&error, "Block node 'n0' is read-only and cannot "
                                 "support node 'r0'*");
    bf_graph_co_free(graph);
}

static void
test_settings_are_checked(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfBlockdevOptions *options = bf_test_null("n0", 1024);

    options->detect_zeroes = BF_BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP;
    bf_test_co_add_fails(graph, options, "setting detect-zeroes to unmap*");
    options = bf_test_null("n0", 1024);
    options->has_force_share = true;
    options->force_share = true;
    bf_test_co_add_fails(graph, options, "force-share=on can only be used*");
    bf_test_co_add_fails(graph, bf_test_null("n0", INT64_MAX),
                         "The size of node 'n0' *");
    bf_graph_co_free(graph);
}

static BfBlockdevOptions *
deep_tree(unsigned depth)
{
    BfBlockdevOptions *options = bf_test_null(NULL, 1024);

    for (unsigned i = 0; i < depth; i++) {
        options = bf_test_raw(i == depth - 1 ? "top" : NULL,
                              bf_test_ref_new(options));
    }
    return options;
}

static void
test_depth_is_limited(void *arg)
{
    BfGraph *graph = bf_test_graph_new();

    bf_test_co_add(graph, deep_tree(20));
    bf_test_co_del(graph, "top");
    bf_test_co_add_fails(graph, deep_tree(200), "The tree of nodes is deeper*");
    bf_graph_co_free(graph);
}

static void
test_replace_puts_a_filter_in_and_out(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfNode *node = bf_test_co_add(graph, bf_test_null("n0", 1024));
    BfNode *filter =
        bf_test_co_add(graph, bf_test_raw("r0", bf_test_ref_str("n0")));
    BfRoot *root = bf_test_co_root(graph, "n0", READ_WRITE);
    GError *error = NULL;

    g_assert_true(bf_graph_co_replace_node(graph, node, filter, &error));
    g_assert_true(bf_root_node(root) == filter);
    g_assert_false(bf_graph_co_blockdev_del(graph, "r0", &error));
    g_clear_error(&error);
    g_assert_true(bf_graph_co_replace_node(graph, filter, node, &error));
    g_assert_true(bf_root_node(root) == node);
    bf_test_co_del(graph, "r0");
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

static const BfBlockDeviceInfo *
find_info(const BfBlockDeviceInfoList *list, const char *name)
{
    for (size_t i = 0; i < list->len; i++) {
        if (g_str_equal(list->items[i]->node_name, name)) {
            return list->items[i];
        }
    }
    g_assert_not_reached();
}

static void
test_query_shows_nodes_newest_first(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    g_autofree char *path = bf_test_file_new(1000001);
    g_autoptr(BfBlockDeviceInfoList) list = NULL;
    BfBlockdevOptions *options;
    const BfBlockDeviceInfo *info;

    bf_test_co_add(graph, bf_test_file("f0", path));
    bf_test_co_add(graph, bf_test_raw("r0", bf_test_ref_str("f0")));
    options = bf_test_raw("r1", bf_test_ref_new(bf_test_null(NULL, 4096)));
    options->u.raw->offset = 512;
    bf_test_co_add(graph, options);
    list = bf_graph_co_query(graph, false);
    g_assert_cmpuint(list->len, ==, 4);
    g_assert_cmpstr(list->items[0]->node_name, ==, "r1");
    g_assert_true(g_str_has_prefix(list->items[1]->node_name, "#block"));
    g_assert_cmpstr(list->items[3]->node_name, ==, "f0");

    info = find_info(list, "r0");
    g_assert_cmpstr(info->file, ==, path);
    g_assert_cmpstr(info->image->format, ==, "raw");
    g_assert_cmpint(info->image->virtual_size, ==, 1000448);
    g_assert_true(info->image->has_actual_size);
    g_assert_cmpstr(list->items[0]->file, ==,
                    "json:{\"driver\": \"raw\", \"offset\": 512, \"file\": "
                    "{\"driver\": \"null-co\", \"size\": 4096}}");
    bf_graph_co_free(graph);
}

static void
test_inactive_node_refuses_writing(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfBlockdevOptions *options = bf_test_null("n0", 1024);
    GError *error = NULL;
    BfNode *node;
    BfRoot *root;
    BfNode *raw;

    options->has_active = true;
    options->active = false;
    node = bf_test_co_add(graph, options);
    bf_test_co_add_fails(graph, bf_test_raw("r0", bf_test_ref_str("n0")),
                         "Inactive 'n0' can't be a file child of active 'r0'");
    options = bf_test_raw("r0", bf_test_ref_str("n0"));
    options->has_active = true;
    options->active = false;
    raw = bf_test_co_add(graph, options);
    options = bf_test_raw("raw2", bf_test_ref_str("n0"));
    options->has_active = true;
    options->active = false;
    bf_test_co_add(graph, options);
    g_assert_true(bf_node_co_activate(raw, &error));
    g_assert_true(bf_node_is_active(node));
    g_assert_false(bf_node_co_set_active(node, false, &error));
    bf_test_assert_error(&error, "Node has active parent node");
    g_assert_true(bf_node_co_set_active(raw, false, &error));
    g_assert_false(bf_node_is_active(node));
    g_assert_null(
        bf_root_co_new(graph, raw, "job 'j'", READ_WRITE, BF_PERM_ALL, &error));
    bf_test_assert_error(
        &error, "Permission 'write' unavailable on inactive node*job 'j'*");
    root = bf_root_co_new_inactive(graph, raw, "x", READ_WRITE, BF_PERM_ALL,
                                   &error);
    g_assert_true(bf_graph_co_set_all_active(graph, true, &error));
    g_assert_true(bf_node_is_active(node) && bf_node_is_active(raw));
    g_assert_true(bf_graph_co_set_all_active(graph, false, &error));
    g_assert_false(bf_node_is_active(node) || bf_node_is_active(raw));
    bf_root_co_free(root);
    g_assert_true(bf_graph_co_set_all_active(graph, true, &error));
    root = bf_test_co_root(graph, "raw2", READ_WRITE);
    g_assert_false(bf_graph_co_set_all_active(graph, false, &error));
    bf_test_assert_error(&error, "Failed to inactivate all nodes: Operation "
                                 "not permitted: test may write to node "
                                 "'raw2'");
    g_assert_true(bf_node_is_active(node));
    g_assert_false(bf_node_co_set_active(bf_root_node(root), false, &error));
    bf_test_assert_error(&error, "Failed to inactivate node: Operation not "
                                 "permitted*");
    /* A child follows the last of its parents. */
    g_assert_true(bf_node_co_set_active(raw, false, &error));
    g_assert_true(bf_node_is_active(node));
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

typedef struct BadAdd {
    BfGraph *graph;
    bool done;
} BadAdd;

static void
co_add_outside(void *arg)
{
    BadAdd *add = arg;
    BfBlockdevOptions *options = bf_test_raw("r0", bf_test_ref_str("f0"));

    options->u.raw->offset = UINT64_C(1) << 50;
    bf_test_co_add_fails(add->graph, options, "Offset * cannot be greater *");
    add->done = true;
}

/* What failed to open still flushes through the node that it refers to. */
static void
test_failed_add_holds_on_to_references(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfBlockdevOptions *options =
        bf_test_fault("f0", bf_test_ref_new(bf_test_null("n0", 1024)), 1);
    BadAdd add = {.graph = graph};
    GError *error = NULL;
    BfNode *node;

    options->u.fault->rules->items[0]->op = BF_FAULT_OP_FLUSH;
    options->u.fault->rules->items[0]->delay_ms = 600;
    options->u.fault->rules->items[0]->count = 1;
    node = bf_test_co_add(graph, options);
    bf_co_spawn(co_add_outside, &add);
    while (node->pins == 0 && !add.done) {
        bf_co_yield();
    }
    g_assert_false(add.done);
    g_assert_false(bf_graph_co_blockdev_del(graph, "f0", &error));
    bf_test_assert_error(&error, "Node f0 is in use");
    while (!add.done) {
        bf_test_advance(BF_NS_PER_SEC);
    }
    g_assert_cmpuint(node->pins, ==, 0);
    bf_test_co_del(graph, "f0");
    bf_graph_co_free(graph);
}

/* Made inline, it has no owner: it goes with its last user. */
static void
test_inline_child_goes_with_its_last_user(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfRoot *root;

    bf_test_co_add(
        graph, bf_test_raw("r0", bf_test_ref_new(bf_test_null("n0", 1024))));
    root = bf_test_co_root(graph, "n0", BF_PERM_CONSISTENT_READ);
    bf_test_co_del(graph, "r0");
    g_assert_nonnull(bf_graph_find_node(graph, "n0"));
    bf_root_co_free(root);
    g_assert_null(bf_graph_find_node(graph, "n0"));
    bf_test_co_add(graph, bf_test_null("n0", 1024));
    bf_graph_co_free(graph);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/graph/add/names-are-checked", test_names_are_checked);
    bf_test_add("/block/graph/add/leaves-nothing-behind-on-failure",
                test_add_leaves_nothing_behind_on_failure);
    bf_test_add("/block/graph/add/settings-are-checked",
                test_settings_are_checked);
    bf_test_add("/block/graph/add/depth-is-limited", test_depth_is_limited);
    bf_test_add_fake("/block/graph/add/failed-one-holds-on-to-references",
                     test_failed_add_holds_on_to_references);
    bf_test_add("/block/graph/del/refuses-in-order", test_del_refuses_in_order);
    bf_test_add("/block/graph/del/inline-child-goes-with-its-last-user",
                test_inline_child_goes_with_its_last_user);
    bf_test_add("/block/graph/permissions/conflict-names-both-users",
                test_conflict_names_both_users);
    bf_test_add("/block/graph/permissions/reach-through-filters",
                test_permissions_reach_through_filters);
    bf_test_add("/block/graph/permissions/locks-leave-the-limits-alone",
                test_locks_leave_the_limits_alone);
    bf_test_add("/block/graph/permissions/read-only-refuses-writers",
                test_read_only_node_refuses_writers);
    bf_test_add("/block/graph/replace/puts-a-filter-in-and-out",
                test_replace_puts_a_filter_in_and_out);
    bf_test_add("/block/graph/query/shows-nodes-newest-first",
                test_query_shows_nodes_newest_first);
    bf_test_add("/block/graph/active/inactive-node-refuses-writing",
                test_inactive_node_refuses_writing);
    return g_test_run();
}
