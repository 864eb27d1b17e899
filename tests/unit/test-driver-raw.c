/* SPDX-License-Identifier: GPL-2.0-or-later */
/* raw: windows onto a file, and what they refuse. */
#include <string.h>

#include "block-harness.h"
#include "block/driver.h"
#include "core/util.h"
#include "harness.h"

#define READ_WRITE (BF_PERM_CONSISTENT_READ | BF_PERM_WRITE)

static BfBlockdevOptions *
window(const char *name, const char *file, uint64_t offset, uint64_t size)
{
    BfBlockdevOptions *options = bf_test_raw(name, bf_test_ref_str(file));

    options->u.raw->offset = offset;
    options->u.raw->has_size = size != 0;
    options->u.raw->size = size;
    return options;
}

typedef struct Io {
    BfHandle *handle;
    const char *path;
} Io;

static void
co_use_window(void *arg)
{
    Io *io = arg;
    uint8_t buf[8192];
    BfExtents extents;

    memset(buf, 0x77, sizeof(buf));
    g_assert_cmpuint(bf_handle_size(io->handle), ==, 65536);
    g_assert_cmpint(bf_test_co_write(io->handle, 0, buf, 8192, 0), ==, 0);
    g_assert_cmpint(bf_test_co_write(io->handle, 65535, buf, 1, BF_IO_FUA), ==,
                    0);
    g_assert_cmpint(bf_test_co_write(io->handle, 65535, buf, 2, 0), ==,
                    -EINVAL);
    g_assert_cmpint(bf_handle_co_write_zeroes(io->handle, 4096, 4096, 0), ==,
                    0);
    g_assert_cmpint(bf_handle_co_discard(io->handle, 0, 4096, 0), ==, 0);
    g_assert_cmpint(bf_handle_co_cache(io->handle, 0, 4096), ==, 0);
    g_assert_cmpint(bf_handle_co_flush(io->handle), ==, 0);
    bf_extents_init(&extents, 10);
    g_assert_cmpint(bf_handle_co_extents(io->handle, 0, 65536, &extents), ==,
                    0);
    g_assert_cmpuint(extents.bytes, ==, 65536);
    bf_extents_clear(&extents);
}

static void
test_window_moves_requests(void *arg)
{
    g_autofree char *path = bf_test_file_new(BF_MIB);
    g_autofree char *contents = NULL;
    BfGraph *graph = bf_test_graph_new();
    BfRoot *root;
    Io io;

    bf_test_co_add(graph, bf_test_file("f0", path));
    bf_test_co_add(graph, window("r0", "f0", 1000, 65536));
    root = bf_test_co_root(graph, "r0", READ_WRITE);
    io.handle = bf_handle_co_new(root, bf_test_loops()->workers[0]);
    bf_test_co_on(bf_test_loops()->workers[0], co_use_window, &io);
    bf_root_co_free(root);
    bf_graph_co_free(graph);

    g_assert_true(g_file_get_contents(path, &contents, NULL, NULL));
    g_assert_cmpint(contents[999], ==, 0);
    g_assert_cmpint(contents[1000], ==, 0x77);
    g_assert_cmpint(contents[5095], ==, 0x77);
    g_assert_cmpint(contents[5096], ==, 0);
    g_assert_cmpint(contents[1000 + 65535], ==, 0x77);
    g_assert_cmpint(contents[1000 + 65536], ==, 0);
}

static void
test_bad_windows_are_refused(void *arg)
{
    BfGraph *graph = bf_test_graph_new();

    bf_test_co_add(graph, bf_test_null("n0", 1000448));
    bf_test_co_add_fails(
        graph, window("r0", "n0", 512, 2000000),
        "The sum of offset (512) and size (2000000) has to be smaller or equal "
        "to the  actual size of the containing file (1000448)");
    bf_test_co_add_fails(graph, window("r0", "n0", 512, INT64_MAX - 511),
                         "The sum of offset *");
    bf_test_co_add_fails(graph, window("r0", "n0", 512, UINT64_MAX - 511),
                         "Parameter 'size' expects a non-negative value");
    bf_test_co_add_fails(graph, window("r0", "n0", 5, 511),
                         "Specified size is not multiple of 512");
    bf_test_co_add_fails(graph, window("r0", "n0", INT64_MAX, 0),
                         "Offset (9223372036854775807) cannot be greater*");
    bf_test_co_add_fails(graph, window("r0", "n0", UINT64_MAX, 0),
                         "Parameter 'offset' expects a non-negative value");
    bf_graph_co_free(graph);
}

static void
test_fixed_size_is_not_resized(void *arg)
{
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfGraph *graph = bf_test_graph_new();
    GError *error = NULL;
    BfNode *file = bf_test_co_add(graph, bf_test_file("f0", path));
    BfNode *open = bf_test_co_add(graph, window("r1", "f0", 512, 0));
    BfNode *fixed;
    BfRoot *root;

    g_assert_true(bf_graph_co_resize(graph, open, 8192, &error));
    root = bf_test_co_root(graph, "f0", BF_PERM_CONSISTENT_READ);
    g_assert_cmpuint(bf_root_size(root), ==, 8704);
    bf_root_co_free(root);

    bf_test_co_del(graph, "r1");
    fixed = bf_test_co_add(graph, window("r0", "f0", 512, 1024));
    g_assert_false(bf_graph_co_resize(graph, fixed, 4096, &error));
    bf_test_assert_error(&error, "Cannot resize fixed-size raw disks");
    root = bf_root_co_new(graph, fixed, "x", BF_PERM_CONSISTENT_READ,
                          BF_PERM_ALL, &error);
    g_assert_nonnull(root);
    g_assert_false(bf_graph_co_resize(graph, file, 512, &error));
    bf_test_assert_error(&error, "Permission conflict on node 'f0': *");
    bf_root_co_free(root);
    /* Later users rely on the window just the same. */
    g_assert_false(bf_graph_co_resize(graph, file, 512, &error));
    bf_test_assert_error(&error, "Permission conflict on node 'f0': *");
    bf_test_co_del(graph, "r0");
    g_assert_true(bf_graph_co_resize(graph, file, 512, &error));
    bf_graph_co_free(graph);
}

/* A window and what it is in, both made new by one command. */
static void
test_reopen_keeps_the_window_inside(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    GError *error = NULL;
    BfBlockdevOptions *items[] = {
        window("r1", "r0", 0, 65536),
        window("r0", "n0", 512, 4096),
    };
    const BfBlockdevOptionsList list = {.len = 2, .items = items};
    BfNode *inner;
    BfNode *outer;

    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    inner = bf_test_co_add(graph, window("r0", "n0", 0, 0));
    outer = bf_test_co_add(graph, window("r1", "r0", 0, 0));
    g_assert_false(bf_graph_co_reopen(graph, &list, &error));
    bf_test_assert_error(&error, "The size of node 'r0' would change from "
                                 "1048576 to 4096, which its users do not*");
    g_assert_cmpuint(inner->size, ==, BF_MIB);
    g_assert_cmpuint(outer->size, ==, BF_MIB);
    items[0]->u.raw->has_size = false;
    g_assert_true(bf_graph_co_reopen(graph, &list, &error));
    g_assert_cmpuint(inner->size, ==, 4096);
    g_assert_cmpuint(outer->size, ==, 4096);
    bf_blockdev_options_free(items[0]);
    bf_blockdev_options_free(items[1]);
    bf_graph_co_free(graph);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/raw/window-moves-requests", test_window_moves_requests);
    bf_test_add("/block/raw/bad-windows-are-refused",
                test_bad_windows_are_refused);
    bf_test_add("/block/raw/fixed-size-is-not-resized",
                test_fixed_size_is_not_resized);
    bf_test_add("/block/raw/reopen-keeps-the-window-inside",
                test_reopen_keeps_the_window_inside);
    return g_test_run();
}
