/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mirror job under writes from several loops, through its filter and past
 * it, compared byte by byte.
 */
#include "block/mirror.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "block-harness.h"
#include "block/bitmap.h"
#include "core/atomic.h"
#include "core/util.h"
#include "harness.h"
#include "job-harness.h"

#define READ_WRITE (BF_PERM_CONSISTENT_READ | BF_PERM_WRITE)
#define SIZE (2 * BF_MIB + 512)
#define WRITES 150

typedef struct Writer {
    BfHandle *handle;
    uint64_t random;
    BfAtomicU64 writes;
    bool done;
} Writer;

typedef struct Fixture {
    BfGraph *graph;
    char *paths[2];
    BfRoot *guest;
} Fixture;

static uint64_t
next_random(Writer *writer, uint64_t below)
{
    writer->random = writer->random * 6364136223846793005u + 1442695041u;
    return (writer->random >> 33) % below;
}

static void
writer_co_write(Writer *writer)
{
    uint64_t offset = next_random(writer, SIZE - 1);
    uint64_t wanted = 1 + next_random(writer, 150000);
    uint64_t bytes = MIN(wanted, SIZE - offset);
    g_autofree char *buf = NULL;

    switch (next_random(writer, 8)) {
    case 0:
        g_assert_cmpint(bf_handle_co_write_zeroes(writer->handle, offset, bytes,
                                                  BF_IO_MAY_UNMAP),
                        ==, 0);
        break;
    case 1:
        g_assert_cmpint(bf_handle_co_discard(writer->handle, offset, bytes, 0),
                        ==, 0);
        break;
    default:
        buf = g_malloc(bytes);
        memset(buf, (int)(1 + next_random(writer, 255)), bytes);
        g_assert_cmpint(bf_test_co_write(writer->handle, offset, buf, bytes, 0),
                        ==, 0);
    }
}

static void
writer_co_work(void *arg)
{
    Writer *writer = arg;

    for (unsigned i = 0; i < WRITES; i++) {
        writer_co_write(writer);
        bf_atomic_add(&writer->writes, 1);
        if (i % 16 == 0) {
            bf_co_yield();
        }
    }
}

static void
writer_co_run(void *arg)
{
    Writer *writer = arg;
    BfLoop *loop = bf_test_loops()->workers[writer->random % 2];

    bf_co_call(loop, writer_co_work, writer);
    writer->done = true;
}

static void
writer_start(Writer *writer, BfRoot *root, unsigned number)
{
    *writer = (Writer){
        .handle = bf_handle_co_new(root, bf_test_loops()->workers[number % 2]),
        .random = (uint64_t)g_test_rand_int() * 2 + number % 2,
    };
    bf_co_spawn(writer_co_run, writer);
}

static BfBlockdevOptions *
file_options(const char *name, const char *path, bool direct)
{
    BfBlockdevOptions *options = bf_test_file(name, path);

    options->has_discard = true;
    options->discard = BF_BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    return direct ? bf_test_set_direct(options) : options;
}

static void
fixture_init(Fixture *f, bool direct)
{
    bf_test_jobs_new();
    f->graph = bf_test_graph_new();
    f->paths[0] = bf_test_file_new(SIZE);
    f->paths[1] = bf_test_file_new(SIZE);
    bf_test_co_add(f->graph, file_options("src", f->paths[0], direct));
    bf_test_co_add(f->graph, file_options("dst", f->paths[1], false));
    f->guest = bf_test_co_root(f->graph, "src", READ_WRITE);
}

static void
fixture_clear(Fixture *f)
{
    bf_test_jobs_co_free();
    bf_root_co_free(f->guest);
    bf_graph_co_free(f->graph);
    g_free(f->paths[0]);
    g_free(f->paths[1]);
}

static void
co_start(Fixture *f, BfMirrorCopyMode mode, uint32_t granularity)
{
    g_autoptr(GError) error = NULL;
    BfBlockdevMirror options = {
        .job_id = (char *)"m",
        .device = (char *)"src",
        .target = (char *)"dst",
        .sync = BF_MIRROR_SYNC_MODE_FULL,
        .granularity = granularity,
        .copy_mode = mode,
        .unmap = true,
        .auto_finalize = true,
        .auto_dismiss = true,
    };
    bool ok =
        bf_mirror_co_start(f->graph, bf_test_jobs_table(), &options, &error);

    g_assert_no_error(error);
    g_assert_true(ok);
}

static void
co_finish(bool pivot)
{
    BfJob *job = bf_job_table_find(bf_test_jobs_table(), "m");
    BfTestJob *view = (BfTestJob *)job;
    GError *error = NULL;

    bf_test_job_co_wait_status(view, BF_JOB_STATUS_READY);
    if (pivot) {
        g_assert_true(bf_job_co_complete(job, &error));
    } else {
        g_assert_true(bf_job_co_cancel(job, false, &error));
    }
    bf_test_jobs_co_wait_gone("m");
}

static char *
read_file(const char *path)
{
    char *data = NULL;
    gsize length = 0;

    g_assert_true(g_file_get_contents(path, &data, &length, NULL));
    g_assert_cmpuint(length, ==, SIZE);
    return data;
}

static void
compare_files(const Fixture *f)
{
    g_autofree char *source = read_file(f->paths[0]);
    g_autofree char *target = read_file(f->paths[1]);

    for (uint64_t i = 0; i < SIZE; i++) {
        if (source[i] != target[i]) {
            g_error("byte %" G_GUINT64_FORMAT " is %d in the source and %d in "
                    "the target",
                    i, source[i], target[i]);
        }
    }
}

static void
co_wait_writers(const Writer *writers, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        while (!writers[i].done) {
            bf_co_yield();
        }
    }
}

/* Writers through the filter, and one past it, while all is copied. */
static void
co_copy_under_load(BfMirrorCopyMode mode, uint32_t granularity, bool direct)
{
    Writer writers[4];
    Fixture f;
    BfRoot *late;

    fixture_init(&f, direct);
    writer_start(&writers[0], f.guest, 0);
    co_start(&f, mode, granularity);
    writer_start(&writers[1], f.guest, 1);
    writer_start(&writers[2], f.guest, 0);
    late = bf_test_co_root(f.graph, "src", READ_WRITE);
    g_assert_true(bf_root_node(late) != bf_root_node(f.guest));
    writer_start(&writers[3], late, 1);
    co_wait_writers(writers, G_N_ELEMENTS(writers));
    co_finish(false);
    compare_files(&f);
    bf_root_co_free(late);
    fixture_clear(&f);
}

static void
test_background_copy_is_exact(void *arg)
{
    co_copy_under_load(BF_MIRROR_COPY_MODE_BACKGROUND, 65536, false);
    co_copy_under_load(BF_MIRROR_COPY_MODE_BACKGROUND, 512, false);
}

static void
test_blocking_copy_is_exact(void *arg)
{
    co_copy_under_load(BF_MIRROR_COPY_MODE_WRITE_BLOCKING, 65536, false);
    co_copy_under_load(BF_MIRROR_COPY_MODE_WRITE_BLOCKING, 4096, false);
}

static void
test_copy_of_an_aligned_source_is_exact(void *arg)
{
    co_copy_under_load(BF_MIRROR_COPY_MODE_WRITE_BLOCKING, 65536, true);
    co_copy_under_load(BF_MIRROR_COPY_MODE_BACKGROUND, 4096, true);
}

static void
test_large_granularity_and_small_buffers(void *arg)
{
    co_copy_under_load(BF_MIRROR_COPY_MODE_BACKGROUND, 64 * BF_MIB, false);
}

/* Those who write during the pivot write to the source before, and to the
 * target afterwards, and lose nothing. */
static void
test_pivot_under_load_loses_nothing(void *arg)
{
    for (unsigned round = 0; round < 4; round++) {
        g_autofree char *before = NULL;
        g_autofree char *after = NULL;
        Writer writers[2];
        Fixture f;
        GError *error = NULL;

        fixture_init(&f, false);
        co_start(&f,
                 round % 2 == 0 ? BF_MIRROR_COPY_MODE_BACKGROUND
                                : BF_MIRROR_COPY_MODE_WRITE_BLOCKING,
                 4096);
        writer_start(&writers[0], f.guest, 0);
        writer_start(&writers[1], f.guest, 1);
        co_finish(true);
        before = read_file(f.paths[0]);
        g_assert_true(bf_root_node(f.guest) ==
                      bf_graph_find_node(f.graph, "dst"));
        /* Nobody has the source any more. */
        g_assert_true(bf_graph_co_blockdev_del(f.graph, "src", &error));
        co_wait_writers(writers, G_N_ELEMENTS(writers));
        after = read_file(f.paths[0]);
        g_assert_cmpmem(before, SIZE, after, SIZE);
        fixture_clear(&f);
    }
}

static void
co_wait_for_writes(const Writer *writer, uint64_t n)
{
    while (!writer->done && bf_atomic_load(&writer->writes) < n) {
        bf_co_yield();
    }
}

/* A drain of both sides while writes to the source wait for the target. */
static void
test_drain_of_both_sides_ends(void *arg)
{
    Writer writers[2];
    Fixture f;

    fixture_init(&f, false);
    co_start(&f, BF_MIRROR_COPY_MODE_WRITE_BLOCKING, 65536);
    writer_start(&writers[0], f.guest, 0);
    writer_start(&writers[1], f.guest, 1);
    while (!writers[0].done) {
        g_autoptr(GPtrArray) nodes = g_ptr_array_new();
        GError *error = NULL;

        g_ptr_array_add(nodes, bf_graph_find_node(f.graph, "src"));
        g_ptr_array_add(nodes, bf_graph_find_node(f.graph, "dst"));
        bf_graph_co_section_begin(f.graph);
        g_assert_true(bf_graph_co_section_drain(f.graph, nodes, &error));
        bf_graph_co_section_end(f.graph);
        co_wait_for_writes(&writers[0], bf_atomic_load(&writers[0].writes) + 5);
    }
    co_wait_writers(writers, G_N_ELEMENTS(writers));
    co_finish(false);
    compare_files(&f);
    fixture_clear(&f);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/mirror/background-copy-is-exact",
                test_background_copy_is_exact);
    bf_test_add("/block/mirror/blocking-copy-is-exact",
                test_blocking_copy_is_exact);
    bf_test_add("/block/mirror/copy-of-an-aligned-source-is-exact",
                test_copy_of_an_aligned_source_is_exact);
    bf_test_add("/block/mirror/large-granularity",
                test_large_granularity_and_small_buffers);
    bf_test_add("/block/mirror/pivot-under-load-loses-nothing",
                test_pivot_under_load_loses_nothing);
    bf_test_add("/block/mirror/drain-of-both-sides-ends",
                test_drain_of_both_sides_ends);
    return g_test_run();
}
