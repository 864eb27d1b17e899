/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Dirty bitmaps, against a model of one byte for each granule. */
#include <string.h>
#include <sys/stat.h>

#include "block-harness.h"
#include "block/bitmap.h"
#include "block/driver.h"
#include "core/atomic.h"
#include "core/util.h"
#include "harness.h"

static BfBitmap *
bitmap_new(uint64_t size, uint32_t granularity)
{
    g_autoptr(GError) error = NULL;
    BfBitmap *bitmap = bf_bitmap_new("b", size, granularity, &error);

    g_assert_no_error(error);
    g_assert_nonnull(bitmap);
    return bitmap;
}

static void
test_refuses_bad_granularity(void)
{
    const uint32_t bad[] = {0, 1, 256, 511, 513, 3 << 20};

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        GError *error = NULL;

        g_assert_null(bf_bitmap_new("b", BF_MIB, bad[i], &error));
        bf_test_assert_error(&error, "Granularity must be power of 2*");
    }
}

static void
test_refuses_what_needs_too_much_memory(void)
{
    GError *error = NULL;

    g_assert_null(bf_bitmap_new("b", (uint64_t)INT64_MAX, 512, &error));
    bf_test_assert_error(&error, "a bitmap of * needs too much memory*");
}

static void
test_set_rounds_outwards(void)
{
    g_autoptr(BfBitmap) bitmap = bitmap_new(1000000, 4096);
    uint64_t offset, bytes;

    bf_bitmap_set(bitmap, 4095, 2);
    g_assert_cmpuint(bf_bitmap_count(bitmap), ==, 8192);
    bf_bitmap_set(bitmap, 999999, UINT64_MAX);
    g_assert_true(bf_bitmap_get(bitmap, 999999));
    g_assert_true(bf_bitmap_next_dirty(bitmap, 8192, 1 << 30, &offset, &bytes));
    g_assert_cmpuint(offset, ==, 999424);
    g_assert_cmpuint(bytes, ==, 1000000 - 999424);
    bf_bitmap_set(bitmap, 1000000, 5);
    bf_bitmap_clear(bitmap);
    g_assert_cmpuint(bf_bitmap_count(bitmap), ==, 0);
    g_assert_false(bf_bitmap_next_dirty(bitmap, 0, 1000000, &offset, &bytes));
}

static void
test_disabled_is_not_set(void)
{
    g_autoptr(BfBitmap) bitmap = bitmap_new(BF_MIB, 4096);

    bf_bitmap_set_enabled(bitmap, false);
    bf_bitmap_set(bitmap, 0, 4096);
    g_assert_cmpuint(bf_bitmap_count(bitmap), ==, 0);
    g_assert_false(bf_bitmap_is_enabled(bitmap));
}

#define MODEL_GRANULES 1000

static void
compare_with_model(const BfBitmap *bitmap, const uint8_t *model)
{
    uint8_t seen[MODEL_GRANULES] = {0};
    uint64_t offset = 0;
    uint64_t bytes;
    unsigned count = 0;

    while (bf_bitmap_next_dirty(bitmap, offset, UINT64_MAX, &offset, &bytes)) {
        for (uint64_t i = 0; i < bytes; i += 512) {
            seen[(offset + i) / 512] = 1;
        }
        offset += bytes;
    }
    g_assert_cmpmem(seen, sizeof(seen), model, MODEL_GRANULES);
    for (unsigned i = 0; i < MODEL_GRANULES; i++) {
        count += model[i];
        g_assert_cmpint(bf_bitmap_get(bitmap, i * 512), ==, model[i]);
    }
    g_assert_cmpuint(bf_bitmap_count(bitmap), ==, count * 512);
}

static void
test_equals_model(void)
{
    g_autoptr(BfBitmap) bitmap = bitmap_new(MODEL_GRANULES * 512, 512);
    uint8_t model[MODEL_GRANULES] = {0};

    for (unsigned round = 0; round < 300; round++) {
        unsigned start = (unsigned)g_test_rand_int_range(0, MODEL_GRANULES);
        unsigned len =
            (unsigned)g_test_rand_int_range(1, round % 3 == 0 ? 200 : 5);

        len = MIN(len, MODEL_GRANULES - start);
        if (g_test_rand_int_range(0, 3) > 0) {
            bf_bitmap_set(bitmap, start * 512 + 7, len * 512 - 7);
            memset(model + start, 1, len);
        } else {
            bf_bitmap_clear_range(bitmap, start * 512, len * 512);
            memset(model + start, 0, len);
        }
        compare_with_model(bitmap, model);
    }
}

static void
test_merge_joins_granularities(void)
{
    g_autoptr(BfBitmap) fine = bitmap_new(BF_MIB, 512);
    g_autoptr(BfBitmap) coarse = bitmap_new(BF_MIB, 65536);
    g_autoptr(BfBitmap) other = bitmap_new(2 * BF_MIB, 512);
    GError *error = NULL;

    bf_bitmap_set(fine, 70000, 10);
    bf_bitmap_set(coarse, 0, 1);
    g_assert_true(bf_bitmap_merge(coarse, fine, NULL));
    g_assert_cmpuint(bf_bitmap_count(coarse), ==, 2 * 65536);
    bf_bitmap_set_enabled(fine, false);
    g_assert_true(bf_bitmap_merge(fine, coarse, NULL));
    g_assert_cmpuint(bf_bitmap_count(fine), ==, 2 * 65536);
    g_assert_false(bf_bitmap_merge(fine, other, &error));
    bf_test_assert_error(&error, "Bitmaps are of different sizes *");
}

static void
test_resize_keeps_and_adds_clean(void)
{
    g_autoptr(BfBitmap) bitmap = bitmap_new(100 * 512, 512);
    GError *error = NULL;

    bf_bitmap_set(bitmap, 0, 100 * 512);
    bf_bitmap_resize(bitmap, 50 * 512);
    g_assert_cmpuint(bf_bitmap_count(bitmap), ==, 50 * 512);
    g_assert_true(bf_bitmap_reserve(bitmap, 1000 * 512, NULL));
    g_assert_cmpuint(bf_bitmap_size(bitmap), ==, 50 * 512);
    bf_bitmap_resize(bitmap, 1000 * 512);
    g_assert_cmpuint(bf_bitmap_count(bitmap), ==, 50 * 512);
    g_assert_false(bf_bitmap_get(bitmap, 50 * 512));
    g_assert_false(bf_bitmap_reserve(bitmap, UINT64_C(1) << 60, &error));
    bf_test_assert_error(&error, "a bitmap of * needs too much memory *");
    bf_bitmap_resize(bitmap, 100000 * 512); /* without a reserve */
    bf_bitmap_set(bitmap, 99999 * 512, 512);
    g_assert_cmpuint(bf_bitmap_count(bitmap), ==, 51 * 512);
}

static void
set_every_other(void *arg)
{
    BfBitmap *bitmap = arg;
    bool odd = bf_loop_self() == bf_test_loops()->workers[1];

    for (uint64_t i = odd; i < 4096; i += 2) {
        bf_bitmap_set(bitmap, i * 512, 512);
    }
}

/* Two loops set interleaved bits; none may get lost. */
static void
test_set_from_two_loops(void *arg)
{
    g_autoptr(BfBitmap) bitmap = bitmap_new(4096 * 512, 512);

    bf_loop_post(bf_test_loops()->workers[0], set_every_other, bitmap);
    bf_test_co_on(bf_test_loops()->workers[1], set_every_other, bitmap);
    bf_test_co_on(bf_test_loops()->workers[0], set_every_other, bitmap);
    g_assert_cmpuint(bf_bitmap_count(bitmap), ==, 4096 * 512);
}

typedef struct Writes {
    BfHandle *handle;
} Writes;

static void
co_write_here_and_there(void *arg)
{
    Writes *writes = arg;
    uint8_t buf[600] = {1};

    g_assert_cmpint(bf_test_co_write(writes->handle, 1000, buf, 600, 0), ==, 0);
    g_assert_cmpint(bf_handle_co_write_zeroes(writes->handle, 65536, 4096, 0),
                    ==, 0);
    g_assert_cmpint(bf_test_co_read(writes->handle, 131072, buf, 600), ==, 0);
    g_assert_cmpint(bf_test_co_write(writes->handle, 2 * BF_MIB, buf, 600, 0),
                    ==, -EINVAL);
}

static void
test_writes_mark_the_nodes_bitmaps(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfNode *node = bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    BfRoot *root = bf_test_co_root(graph, "n0", BF_PERM_WRITE);
    Writes writes = {
        bf_handle_co_new(root, bf_test_loops()->workers[0]),
    };
    GError *error = NULL;
    BfBitmap *bitmap;

    g_assert_true(bf_node_co_add_bitmap(node, bitmap_new(BF_MIB, 512), &error));
    bitmap = bitmap_new(BF_MIB, 512);
    g_assert_false(bf_node_co_add_bitmap(node, bitmap, &error));
    bf_test_assert_error(&error, "Bitmap already exists: b");
    bf_bitmap_free(bitmap);
    bf_test_co_on(bf_test_loops()->workers[0], co_write_here_and_there,
                  &writes);
    bitmap = bf_node_co_remove_bitmap(node, "b", &error);
    g_assert_nonnull(bitmap);
    g_assert_cmpuint(bf_bitmap_count(bitmap), ==, 3 * 512 + 4096);
    g_assert_true(bf_bitmap_get(bitmap, 1000));
    g_assert_true(bf_bitmap_get(bitmap, 65536));
    bf_bitmap_free(bitmap);
    bf_test_co_on(bf_test_loops()->workers[0], co_write_here_and_there,
                  &writes);
    g_assert_null(bf_node_co_remove_bitmap(node, "b", &error));
    bf_test_assert_error(&error, "Dirty bitmap 'b' not found");
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

static void
test_take_gives_runs(void)
{
    g_autoptr(BfBitmap) bitmap = bitmap_new(100 * 4096 + 100, 4096);
    uint64_t offset, bytes;

    bf_bitmap_set_enabled(bitmap, false);
    bf_bitmap_put_back(bitmap, 10 * 4096, 90 * 4096 + 100);
    g_assert_true(
        bf_bitmap_take(bitmap, 0, UINT64_MAX, 70 * 4096, &offset, &bytes));
    g_assert_cmpuint(offset, ==, 10 * 4096);
    g_assert_cmpuint(bytes, ==, 70 * 4096);
    g_assert_false(bf_bitmap_take(bitmap, 0, 80 * 4096, 4096, &offset, &bytes));
    g_assert_true(bf_bitmap_take(bitmap, 85 * 4096 + 1, UINT64_MAX, 4096,
                                 &offset, &bytes));
    g_assert_cmpuint(offset, ==, 85 * 4096);
    g_assert_cmpuint(bytes, ==, 4096);
    g_assert_true(
        bf_bitmap_take(bitmap, 90 * 4096, UINT64_MAX, BF_MIB, &offset, &bytes));
    g_assert_cmpuint(offset, ==, 90 * 4096);
    g_assert_cmpuint(bytes, ==, 10 * 4096 + 100);
    g_assert_cmpuint(bf_bitmap_count(bitmap), ==, 9 * 4096);
}

#define LIVE_GRANULES 640
#define LIVE_WRITES 30000

/* A disk of one number for each granule, and who writes it. */
typedef struct Live {
    BfBitmap *bitmap;
    BfAtomicU64 data[LIVE_GRANULES];
} Live;

typedef struct LiveWriter {
    Live *live;
    uint64_t random;
} LiveWriter;

static gpointer
write_live(gpointer arg)
{
    LiveWriter *writer = arg;
    Live *live = writer->live;

    for (unsigned i = 0; i < LIVE_WRITES; i++) {
        uint64_t granule;

        writer->random = writer->random * 6364136223846793005u + 1442695041u;
        granule = (writer->random >> 33) % LIVE_GRANULES;
        bf_bitmap_set(live->bitmap, granule * 512, 512);
        bf_atomic_add(&live->data[granule], 1);
        bf_bitmap_set_after(live->bitmap, granule * 512, 512);
    }
    return NULL;
}

/* A consumer that takes and then reads ends with the newest of everything. */
static void
test_take_loses_no_write(void)
{
    g_autoptr(BfBitmap) bitmap = bitmap_new(LIVE_GRANULES * 512, 512);
    g_autofree Live *live = g_new0(Live, 1);
    uint64_t copy[LIVE_GRANULES] = {0};
    GThread *threads[3];
    LiveWriter writers[3];
    uint64_t offset, bytes;

    live->bitmap = bitmap;
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        writers[i] = (LiveWriter){live, (uint64_t)g_test_rand_int()};
        threads[i] = g_thread_new("writer", write_live, &writers[i]);
    }
    for (unsigned round = 0; round < 2000; round++) {
        if (round == 1999) {
            for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
                g_thread_join(threads[i]);
            }
        }
        for (uint64_t pos = 0;
             bf_bitmap_take(bitmap, pos, UINT64_MAX, 8 * 512, &offset, &bytes);
             pos = offset + bytes) {
            for (uint64_t g = offset / 512; g < (offset + bytes) / 512; g++) {
                copy[g] = bf_atomic_load(&live->data[g]);
            }
        }
    }
    for (unsigned g = 0; g < LIVE_GRANULES; g++) {
        g_assert_cmpuint(copy[g], ==, bf_atomic_load(&live->data[g]));
    }
    g_assert_cmpuint(bf_bitmap_count(bitmap), ==, 0);
}

typedef struct LateMark {
    BfHandle *handle;
    int ret;
    bool done;
} LateMark;

static void
co_write_slowly(void *arg)
{
    LateMark *late = arg;
    uint8_t buf[512] = {1};

    late->ret = bf_test_co_write(late->handle, 0, buf, 512, 0);
}

static void
spawn_slow_write(void *arg)
{
    LateMark *late = arg;

    bf_test_co_on(bf_test_loops()->workers[0], co_write_slowly, late);
    late->done = true;
}

/* What is taken while a write is under way is dirty when it has ended. */
static void
test_write_marks_again_at_its_end(void *arg)
{
    GError *error = NULL;
    BfGraph *graph = bf_test_graph_new();
    BfBlockdevOptions *options = bf_test_null("n0", BF_MIB);
    BfBitmap *bitmap = bf_bitmap_new(NULL, BF_MIB, 512, NULL);
    BfNode *node;
    BfRoot *root;
    LateMark late = {.ret = 1};
    uint64_t offset, bytes;

    options->u.null_co->latency_ns = BF_NS_PER_SEC;
    node = bf_test_co_add(graph, options);
    root = bf_test_co_root(graph, "n0", BF_PERM_WRITE);
    late.handle = bf_handle_co_new(root, bf_test_loops()->workers[0]);
    g_assert_true(bf_node_co_add_bitmap(node, bitmap, &error));
    bf_co_spawn(spawn_slow_write, &late);
    while (!bf_bitmap_take(bitmap, 0, BF_MIB, 512, &offset, &bytes)) {
        bf_co_yield();
    }
    g_assert_false(late.done);
    while (!late.done) {
        bf_test_advance(BF_NS_PER_SEC);
        bf_co_yield();
    }
    g_assert_cmpint(late.ret, ==, 0);
    g_assert_cmpuint(bf_bitmap_count(bitmap), ==, 512);
    g_assert_true(bf_node_co_detach_bitmap(node, bitmap, &error));
    bf_bitmap_free(bitmap);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

/* A bitmap that cannot follow keeps the storage from being changed. */
static void
test_bitmaps_follow_a_resize(void *arg)
{
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfGraph *graph = bf_test_graph_new();
    BfNode *file = bf_test_co_add(graph, bf_test_file("f0", path));
    BfNode *raw =
        bf_test_co_add(graph, bf_test_raw("r0", bf_test_ref_str("f0")));
    GError *error = NULL;
    struct stat st;

    g_assert_true(
        bf_node_co_add_bitmap(file, bitmap_new(BF_MIB, 65536), &error));
    g_assert_true(bf_node_co_add_bitmap(raw, bitmap_new(BF_MIB, 512), &error));
    g_assert_true(bf_graph_co_resize(graph, file, 2 * BF_MIB, &error));
    g_assert_cmpuint(bf_bitmap_size(file->bitmaps[0]), ==, 2 * BF_MIB);
    g_assert_cmpuint(bf_bitmap_size(raw->bitmaps[0]), ==, 2 * BF_MIB);
    g_assert_true(bf_graph_co_resize(graph, raw, 4096, &error));
    g_assert_cmpuint(bf_bitmap_size(file->bitmaps[0]), ==, 4096);
    g_assert_cmpuint(bf_bitmap_size(raw->bitmaps[0]), ==, 4096);

    g_assert_false(bf_graph_co_resize(graph, file, UINT64_C(1) << 44, &error));
    bf_test_assert_error(&error, "Bitmap 'b' of node 'r0': a bitmap of * needs "
                                 "too much memory *");
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 4096);
    g_assert_cmpuint(bf_bitmap_size(file->bitmaps[0]), ==, 4096);
    bf_graph_co_free(graph);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/block/bitmap/new/refuses-bad-granularity",
                    test_refuses_bad_granularity);
    g_test_add_func("/block/bitmap/new/refuses-what-needs-too-much-memory",
                    test_refuses_what_needs_too_much_memory);
    g_test_add_func("/block/bitmap/set/rounds-outwards",
                    test_set_rounds_outwards);
    g_test_add_func("/block/bitmap/set/disabled-is-not-set",
                    test_disabled_is_not_set);
    g_test_add_func("/block/bitmap/next-dirty/equals-model", test_equals_model);
    g_test_add_func("/block/bitmap/merge/joins-granularities",
                    test_merge_joins_granularities);
    g_test_add_func("/block/bitmap/resize/keeps-and-adds-clean",
                    test_resize_keeps_and_adds_clean);
    g_test_add_func("/block/bitmap/take/gives-runs", test_take_gives_runs);
    g_test_add_func("/block/bitmap/take/loses-no-write",
                    test_take_loses_no_write);
    bf_test_add_fake("/block/bitmap/node/write-marks-again-at-its-end",
                     test_write_marks_again_at_its_end);
    bf_test_add("/block/bitmap/set/from-two-loops", test_set_from_two_loops);
    bf_test_add("/block/bitmap/node/writes-mark-the-nodes-bitmaps",
                test_writes_mark_the_nodes_bitmaps);
    bf_test_add("/block/bitmap/follow-a-resize", test_bitmaps_follow_a_resize);
    return g_test_run();
}
