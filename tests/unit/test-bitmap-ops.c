/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Changes and uses of the bitmaps of nodes: all or nothing, busy, frozen. */
#include <string.h>

#include "block-harness.h"
#include "block/bitmap-ops.h"
#include "core/util.h"
#include "harness.h"

#define READ_WRITE (BF_PERM_CONSISTENT_READ | BF_PERM_WRITE)

static BfBlockDirtyBitmap
name_of(const char *node, const char *name)
{
    return (BfBlockDirtyBitmap){.node = (char *)node, .name = (char *)name};
}

static void
co_add(BfGraph *graph, const char *node, const char *name)
{
    const BfBlockDirtyBitmapAdd add = {
        .node = (char *)node,
        .name = (char *)name,
        .has_granularity = true,
        .granularity = 512,
    };
    const BfBitmapAction action = {
        .kind = BF_BITMAP_ACTION_ADD,
        .u.add = &add,
    };
    g_autoptr(GError) error = NULL;

    bf_bitmap_co_apply(graph, &action, 1, &error);
    g_assert_no_error(error);
}

static BfBitmap *
find(BfGraph *graph, const char *node, const char *name)
{
    return bf_node_find_bitmap(bf_graph_find_node(graph, node), name);
}

static bool
co_do(BfGraph *graph, BfBitmapActionKind kind, const char *node,
      const char *name, GError **error)
{
    BfBlockDirtyBitmap one = name_of(node, name);
    const BfBitmapAction action = {.kind = kind, .u.one = &one};

    return bf_bitmap_co_apply(graph, &action, 1, error);
}

static void
co_fails(BfGraph *graph, BfBitmapActionKind kind, const char *name,
         const char *message)
{
    GError *error = NULL;

    g_assert_false(co_do(graph, kind, "n0", name, &error));
    bf_test_assert_error(&error, message);
}

static void
test_refusals_come_in_order(void *arg)
{
    const char *busy = "Bitmap 'b' is currently in use by another operation "
                       "and cannot be used";
    const char *readonly = "Bitmap 'b' is readonly and cannot be modified";
    const char *broken = "Bitmap 'b' is inconsistent and cannot be used";
    BfGraph *graph = bf_test_graph_new();
    BfBitmap *bitmap;

    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    co_fails(graph, BF_BITMAP_ACTION_CLEAR, "b", "Dirty bitmap 'b' not found");
    co_add(graph, "n0", "b");
    bitmap = find(graph, "n0", "b");
    bf_bitmap_set_state(bitmap, BF_BITMAP_BUSY, true);
    bf_bitmap_set_state(bitmap, BF_BITMAP_READ_ONLY, true);
    bf_bitmap_set_state(bitmap, BF_BITMAP_INCONSISTENT, true);
    for (unsigned kind = BF_BITMAP_ACTION_REMOVE;
         kind <= BF_BITMAP_ACTION_DISABLE; kind++) {
        co_fails(graph, kind, "b", busy);
    }
    bf_bitmap_set_state(bitmap, BF_BITMAP_BUSY, false);
    co_fails(graph, BF_BITMAP_ACTION_REMOVE, "b", readonly);
    co_fails(graph, BF_BITMAP_ACTION_CLEAR, "b", readonly);
    co_fails(graph, BF_BITMAP_ACTION_ENABLE, "b", broken);
    bf_bitmap_set_state(bitmap, BF_BITMAP_READ_ONLY, false);
    co_fails(graph, BF_BITMAP_ACTION_CLEAR, "b", broken);
    co_fails(graph, BF_BITMAP_ACTION_DISABLE, "b", broken);
    g_assert_true(co_do(graph, BF_BITMAP_ACTION_REMOVE, "n0", "b", NULL));
    bf_graph_co_free(graph);
}

/* Every kind of change, then one that fails: nothing has happened. */
static void
test_failure_takes_all_back(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfBlockDirtyBitmap a = name_of("n0", "a");
    BfBlockDirtyBitmap b = name_of("n0", "b");
    BfBlockDirtyBitmap c = name_of("n0", "c");
    BfBlockDirtyBitmap none = name_of("n0", "none");
    BfBlockDirtyBitmapAdd again = {.node = a.node, .name = a.name};
    BfBlockDirtyBitmapOrStr from = {
        .kind = BF_BLOCK_DIRTY_BITMAP_OR_STR_KIND_STR,
        .u.str = b.name,
    };
    BfBlockDirtyBitmapOrStr *items[] = {&from};
    BfBlockDirtyBitmapOrStrList list = {.len = 1, .items = items};
    BfBlockDirtyBitmapMerge merge = {
        .node = c.node,
        .target = c.name,
        .bitmaps = &list,
    };
    const BfBitmapAction actions[] = {
        {.kind = BF_BITMAP_ACTION_REMOVE, .u.one = &a},
        {.kind = BF_BITMAP_ACTION_ADD, .u.add = &again},
        {.kind = BF_BITMAP_ACTION_MERGE, .u.merge = &merge},
        {.kind = BF_BITMAP_ACTION_CLEAR, .u.one = &b},
        {.kind = BF_BITMAP_ACTION_DISABLE, .u.one = &b},
        {.kind = BF_BITMAP_ACTION_REMOVE, .u.one = &c},
        {.kind = BF_BITMAP_ACTION_ENABLE, .u.one = &none},
    };
    BfBitmap *old[3];
    GError *error = NULL;

    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    for (unsigned i = 0; i < 3; i++) {
        const char *name = ((const char *[]){"a", "b", "c"})[i];

        co_add(graph, "n0", name);
        old[i] = find(graph, "n0", name);
        bf_bitmap_set(old[i], i * 4096, 512);
    }
    g_assert_false(
        bf_bitmap_co_apply(graph, actions, G_N_ELEMENTS(actions), &error));
    bf_test_assert_error(&error, "Dirty bitmap 'none' not found");
    for (unsigned i = 0; i < 3; i++) {
        const char *name = ((const char *[]){"a", "b", "c"})[i];

        g_assert_true(find(graph, "n0", name) == old[i]);
        g_assert_cmpuint(bf_bitmap_count(old[i]), ==, 512);
        g_assert_true(bf_bitmap_get(old[i], i * 4096));
        g_assert_true(bf_bitmap_is_enabled(old[i]));
    }
    /* Without the last one they all take effect. */
    g_assert_true(
        bf_bitmap_co_apply(graph, actions, G_N_ELEMENTS(actions) - 1, &error));
    g_assert_cmpuint(bf_bitmap_granularity(find(graph, "n0", "a")), ==, 65536);
    g_assert_cmpuint(bf_bitmap_count(old[1]), ==, 0);
    g_assert_false(bf_bitmap_is_enabled(old[1]));
    g_assert_null(find(graph, "n0", "c"));
    bf_graph_co_free(graph);
}

static BfBitmapUse *
co_use(BfGraph *graph, const char *name, GError **error)
{
    BfBitmapUse *use = NULL;
    BfBitmap *bitmap;
    BfNode *node;

    bf_graph_co_section_begin(graph);
    bitmap = bf_bitmap_lookup(graph, "n0", name, &node, error);
    if (bitmap != NULL) {
        use = bf_bitmap_co_use(node, bitmap, "job 'j'", error);
    }
    bf_graph_co_section_end(graph);
    return use;
}

static void
test_used_bitmap_is_kept(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    GError *error = NULL;
    BfBitmapUse *use;

    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    co_add(graph, "n0", "b");
    use = co_use(graph, "b", &error);
    g_assert_no_error(error);
    g_assert_null(co_use(graph, "b", &error));
    bf_test_assert_error(&error, "Bitmap 'b' is currently in use by *");
    g_assert_false(bf_graph_co_blockdev_del(graph, "n0", &error));
    bf_test_assert_error(&error, "Node n0 is in use by job 'j'");
    bf_bitmap_co_unuse(use);
    g_assert_true(co_do(graph, BF_BITMAP_ACTION_CLEAR, "n0", "b", &error));
    bf_test_co_del(graph, "n0");
    bf_graph_co_free(graph);
}

/* Writers on two loops, each on its half, until they are told to stop. */
typedef struct Writer {
    BfHandle *handle;
    uint64_t start;
    unsigned n;     /* writes that have begun */
    unsigned ended; /* coroutines */
} Writer;

static void
co_write_some(void *arg)
{
    Writer *writer = arg;
    uint8_t buf[512] = {1};

    for (unsigned i = 0; i < 64; i++) {
        uint64_t offset = writer->start + (writer->n++ % 512) * 512;

        g_assert_cmpint(bf_test_co_write(writer->handle, offset, buf, 512, 0),
                        ==, 0);
        if (i % 16 == 0) {
            bf_co_yield();
        }
    }
    writer->ended++;
}

typedef struct Look {
    const Writer *writer;
    unsigned ended;
} Look;

static void
look_here(void *arg)
{
    Look *look = arg;

    look->ended = look->writer->ended;
}

static void
co_wait_ended(BfLoop *loop, const Writer *writer, unsigned n)
{
    Look look = {.writer = writer};

    while (look.ended < n) {
        bf_test_co_on(loop, look_here, &look);
    }
}

static void
spawn_writer(void *arg)
{
    bf_co_spawn(co_write_some, arg);
}

/* A bitmap that is frozen and thawed while writes go on loses none. */
static void
freeze_and_thaw(bool keep)
{
    BfGraph *graph = bf_test_graph_new();
    BfNode *node = bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    BfRoot *root = bf_test_co_root(graph, "n0", READ_WRITE);
    Writer writers[BF_TEST_WORKERS] = {0};
    GError *error = NULL;
    BfBitmapUse *use;
    BfBitmap *bitmap;
    uint64_t before;

    co_add(graph, "n0", "b");
    bitmap = find(graph, "n0", "b");
    bf_bitmap_set(bitmap, BF_MIB - 512, 512);
    for (unsigned i = 0; i < BF_TEST_WORKERS; i++) {
        BfLoop *loop = bf_test_loops()->workers[i];

        writers[i].start = i * (BF_MIB / 4);
        writers[i].handle = bf_handle_co_new(root, loop);
        bf_loop_post(loop, spawn_writer, &writers[i]);
    }
    use = co_use(graph, "b", &error);
    g_assert_true(bf_bitmap_use_co_freeze(use, &error));
    before = bf_bitmap_count(bitmap);
    for (unsigned i = 0; i < BF_TEST_WORKERS; i++) {
        bf_loop_post(bf_test_loops()->workers[i], spawn_writer, &writers[i]);
    }
    g_assert_cmpuint(bf_bitmap_count(bitmap), ==, before);
    bf_bitmap_use_co_thaw(use, keep);
    bf_bitmap_co_unuse(use);
    for (unsigned i = 0; i < BF_TEST_WORKERS; i++) {
        co_wait_ended(bf_test_loops()->workers[i], &writers[i], 2);
    }
    bf_root_co_free(root);
    g_assert_cmpint(bf_bitmap_get(bitmap, BF_MIB - 512), ==, keep);
    for (unsigned i = 0; i < BF_TEST_WORKERS; i++) {
        g_assert_cmpuint(writers[i].n, ==, 128);
        for (unsigned n = keep ? 0 : 64; n < 128; n++) {
            g_assert_true(bf_bitmap_get(bitmap, writers[i].start + n * 512));
        }
    }
    g_assert_true(bf_node_find_bitmap(node, "b") == bitmap);
    bf_graph_co_free(graph);
}

static void
test_thaw_keeps_all_after_a_failure(void *arg)
{
    freeze_and_thaw(true);
}

static void
test_thaw_has_only_new_marks_after_success(void *arg)
{
    freeze_and_thaw(false);
}

static void
test_disabled_bitmap_stays_clean_while_frozen(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfRoot *root;
    BfBitmap *bitmap;
    BfBitmapUse *use;
    Writer writer = {0};

    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    root = bf_test_co_root(graph, "n0", READ_WRITE);
    co_add(graph, "n0", "b");
    bitmap = find(graph, "n0", "b");
    bf_bitmap_set(bitmap, 0, 512);
    g_assert_true(co_do(graph, BF_BITMAP_ACTION_DISABLE, "n0", "b", NULL));
    use = co_use(graph, "b", NULL);
    g_assert_true(bf_bitmap_use_co_freeze(use, NULL));
    writer.handle = bf_handle_co_new(root, bf_test_loops()->workers[0]);
    bf_test_co_on(bf_test_loops()->workers[0], co_write_some, &writer);
    g_assert_cmpuint(bf_bitmap_count(bitmap), ==, 512);
    bf_bitmap_co_unuse(use);
    g_assert_cmpuint(bf_bitmap_count(bitmap), ==, 512);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

/* The same bits as the reference has: words of 64 granules, little endian. */
static void
test_checksum_is_of_the_words(void *arg)
{
    g_autoptr(BfBitmap) bitmap = bf_bitmap_new("b", 65 * 512, 512, NULL);
    uint8_t bytes[16] = {[0] = 2, [8] = 1};
    g_autofree char *expected =
        g_compute_checksum_for_data(G_CHECKSUM_SHA256, bytes, sizeof(bytes));
    g_autofree char *sum = NULL;

    bf_bitmap_set(bitmap, 512, 512);
    bf_bitmap_set(bitmap, 64 * 512, 512);
    sum = bf_bitmap_sha256(bitmap);
    g_assert_cmpstr(sum, ==, expected);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/bitmap-ops/refusals-come-in-order",
                test_refusals_come_in_order);
    bf_test_add("/block/bitmap-ops/failure-takes-all-back",
                test_failure_takes_all_back);
    bf_test_add("/block/bitmap-ops/used-bitmap-is-kept",
                test_used_bitmap_is_kept);
    bf_test_add("/block/bitmap-ops/thaw-keeps-all-after-a-failure",
                test_thaw_keeps_all_after_a_failure);
    bf_test_add("/block/bitmap-ops/thaw-has-only-new-marks-after-success",
                test_thaw_has_only_new_marks_after_success);
    bf_test_add("/block/bitmap-ops/disabled-bitmap-stays-clean-while-frozen",
                test_disabled_bitmap_stays_clean_while_frozen);
    bf_test_add("/block/bitmap-ops/checksum-is-of-the-words",
                test_checksum_is_of_the_words);
    return g_test_run();
}
