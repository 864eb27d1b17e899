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
co_start_at(Fixture *f, BfMirrorCopyMode mode, uint32_t granularity,
            int64_t speed)
{
    g_autoptr(GError) error = NULL;
    BfBlockdevMirror options = {
        .job_id = (char *)"m",
        .device = (char *)"src",
        .target = (char *)"dst",
        .sync = BF_MIRROR_SYNC_MODE_FULL,
        .granularity = granularity,
        .speed = speed,
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
co_start(Fixture *f, BfMirrorCopyMode mode, uint32_t granularity)
{
    co_start_at(f, mode, granularity, 0);
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

/* Speed: between nodes without storage, on a clock that the test moves. */

#define SPEED (10 * BF_MIB)
#define SLICE (SPEED / 10)

static BfBlockdevOptions *
null_options(const char *name, uint64_t latency_ns)
{
    BfBlockdevOptions *options = bf_test_null(name, 64 * BF_MIB);

    options->u.null_co->latency_ns = latency_ns;
    return options;
}

static uint64_t
done_bytes(void)
{
    const BfJob *job = bf_job_table_find(bf_test_jobs_table(), "m");

    return bf_atomic_load(&job->done);
}

/* Moves the clock by @ns, until nothing more is done without that. */
static void
advance_until_quiet(uint64_t ns)
{
    uint64_t done = UINT64_MAX;

    bf_test_advance(ns);
    while (done != done_bytes()) {
        done = done_bytes();
        for (unsigned i = 0; i < 20; i++) {
            bf_test_advance(0);
        }
    }
}

/* Copies for a second, in steps of 10 ms, and checks each. */
static uint64_t
co_copy_for_a_second(uint64_t latency_ns)
{
    BfGraph *graph = NULL;
    Fixture f;
    uint64_t done;

    bf_test_jobs_new();
    f.graph = graph = bf_test_graph_new();
    bf_test_co_add(graph, null_options("src", 0));
    bf_test_co_add(graph, null_options("dst", latency_ns));
    co_start_at(&f, BF_MIRROR_COPY_MODE_BACKGROUND, 65536, SPEED);
    advance_until_quiet(0);
    for (uint64_t ms = 10; ms <= 1000; ms += 10) {
        advance_until_quiet(10 * BF_NS_PER_MS);
        g_assert_cmpuint(done_bytes(), <=, SLICE + SPEED * ms / 1000);
    }
    done = done_bytes();
    bf_job_co_cancel(bf_job_table_find(bf_test_jobs_table(), "m"), true, NULL);
    while (bf_job_table_find(bf_test_jobs_table(), "m") != NULL) {
        bf_test_advance(10 * BF_NS_PER_MS);
        bf_co_yield();
    }
    bf_test_jobs_co_free();
    bf_graph_co_free(graph);
    return done;
}

static void
test_speed_lets_no_burst_through(void *arg)
{
    uint64_t done = co_copy_for_a_second(0);

    /* Nor is it slower than it was told to be. */
    g_assert_cmpuint(done, >=, SPEED - SLICE);
}

/* At most a slice is under way: that makes 5 in a second, not 10. */
static void
test_speed_counts_what_is_under_way(void *arg)
{
    uint64_t done = co_copy_for_a_second(200 * BF_NS_PER_MS);

    g_assert_cmpuint(done, <=, 5 * SLICE);
    g_assert_cmpuint(done, >=, 3 * SLICE);
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
    bf_test_add_fake("/block/mirror/speed/lets-no-burst-through",
                     test_speed_lets_no_burst_through);
    bf_test_add_fake("/block/mirror/speed/counts-what-is-under-way",
                     test_speed_counts_what_is_under_way);
    return g_test_run();
}
