/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The request layer: read-modify-write from several loops against a model,
 * fallbacks for zeroes, FUA, requests that are too large for a driver.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "block-harness.h"
#include "core/iovec.h"
#include "core/util.h"
#include "harness.h"

#define READ_WRITE (BF_PERM_CONSISTENT_READ | BF_PERM_WRITE)

#define WRITERS 4
#define STRIPE 37 /* bytes; odd, so that every block has all writers */
#define FILE_BYTES (256 * 1024)
#define ROUNDS 60

/*
 * Writer i owns every fourth stripe and writes nothing else, so that the model
 * needs no order between writers; but nearly every sector is shared.
 */
typedef struct Writer {
    BfHandle *handle;
    BfLoop *loop;
    unsigned index;
    uint8_t *model; /* shared; each writes its own stripes */
    unsigned seed;
    unsigned running; /* coroutines of this writer */
    bool stopped;
} Writer;

static unsigned
next_random(Writer *writer)
{
    writer->seed = writer->seed * 1103515245 + 12345;
    return writer->seed >> 8;
}

static void
co_write_stripe(Writer *writer, unsigned stripe)
{
    uint64_t offset = (uint64_t)stripe * STRIPE;
    uint8_t buf[STRIPE];
    unsigned bytes = 1 + next_random(writer) % STRIPE;
    unsigned kind = next_random(writer) % 8;

    if (kind == 0) {
        memset(buf, 0, bytes);
        memset(writer->model + offset, 0, bytes);
        g_assert_cmpint(
            bf_handle_co_write_zeroes(writer->handle, offset, bytes, 0), ==, 0);
        return;
    }
    memset(buf, (int)(next_random(writer) % 256), bytes);
    memcpy(writer->model + offset, buf, bytes);
    g_assert_cmpint(bf_test_co_write(writer->handle, offset, buf, bytes,
                                     kind == 1 ? BF_IO_FUA : 0),
                    ==, 0);
}

static void
writer_co_run(void *arg)
{
    Writer *writer = arg;
    /* Coroutines of one writer share its stripes: every second is mine. */
    unsigned half = writer->running++;

    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned stripes = FILE_BYTES / STRIPE / (2 * WRITERS);
        unsigned n = next_random(writer) % MIN(stripes, 40u);

        co_write_stripe(writer, (n * 2 + half) * WRITERS + writer->index);
    }
    if (--writer->running == 0) {
        writer->stopped = true;
    }
}

static void
writer_start(void *arg)
{
    bf_co_spawn(writer_co_run, arg);
    bf_co_spawn(writer_co_run, arg);
}

static void
writer_co_wait(void *arg)
{
    Writer *writer = arg;

    while (!writer->stopped) {
        bf_co_yield();
    }
}

static void
compare_file(const char *path, const uint8_t *model)
{
    g_autofree char *contents = NULL;
    size_t len;

    g_assert_true(g_file_get_contents(path, &contents, &len, NULL));
    g_assert_cmpuint(len, ==, FILE_BYTES);
    g_assert_cmpint(memcmp(contents, model, FILE_BYTES), ==, 0);
}

static void
co_hammer(bool through_raw)
{
    g_autofree char *path = bf_test_file_new(FILE_BYTES);
    g_autofree uint8_t *model = g_malloc0(FILE_BYTES);
    BfGraph *graph = bf_test_graph_new();
    BfRoot *root;
    Writer writers[WRITERS];

    bf_test_co_add(graph, bf_test_set_direct(bf_test_file("f0", path)));
    if (through_raw) {
        bf_test_co_add(graph, bf_test_raw("r0", bf_test_ref_str("f0")));
    }
    root = bf_test_co_root(graph, through_raw ? "r0" : "f0", READ_WRITE);
    g_assert_cmpuint(bf_root_limits(root)->alignment, >, 1);
    for (unsigned i = 0; i < WRITERS; i++) {
        BfLoop *loop = bf_test_loops()->workers[i % BF_TEST_WORKERS];

        g_assert_true(bf_root_pick_loop(root, bf_test_loops()->workers,
                                        BF_TEST_WORKERS,
                                        i % BF_TEST_WORKERS) == loop);
        writers[i] = (Writer){
            .handle = bf_handle_co_new(root, loop),
            .loop = loop,
            .index = i,
            .model = model,
            .seed = (unsigned)g_test_rand_int(),
        };
        bf_loop_post(loop, writer_start, &writers[i]);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        bf_test_co_on(writers[i].loop, writer_co_wait, &writers[i]);
    }
    compare_file(path, model);
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

static void
test_interleaved_odd_writes_equal_model(void *arg)
{
    co_hammer(false);
}

static void
test_interleaved_odd_writes_through_raw(void *arg)
{
    co_hammer(true);
}

/*
 * Whole blocks against odd ranges inside of them, from different loops. Either
 * may be last; but what lies beside the odd range was written by the whole
 * block only, so a read-modify-write that puts older bytes there is found.
 */
#define BLOCKS 64
#define BLOCK_ROUNDS 25
#define ODD_START 100
#define ODD_BYTES 57

typedef struct BlockWriter {
    BfHandle *handle;
    BfLoop *loop;
    uint32_t block_bytes;
    uint8_t value;
    bool whole;
    unsigned next;
    unsigned left;
} BlockWriter;

static void
co_write_block(void *arg)
{
    BlockWriter *writer = arg;
    uint64_t offset = (uint64_t)writer->next++ * writer->block_bytes;
    size_t bytes = writer->whole ? writer->block_bytes : ODD_BYTES;
    g_autofree uint8_t *buf = g_malloc(bytes);

    memset(buf, writer->value, bytes);
    g_assert_cmpint(bf_test_co_write(writer->handle,
                                     offset + (writer->whole ? 0 : ODD_START),
                                     buf, bytes, 0),
                    ==, 0);
    writer->left--;
}

static void
start_blocks(void *arg)
{
    BlockWriter *writer = arg;

    writer->next = 0;
    writer->left = BLOCKS;
    for (unsigned i = 0; i < BLOCKS; i++) {
        bf_co_spawn(co_write_block, writer);
    }
}

static void
co_wait_blocks(void *arg)
{
    BlockWriter *writer = arg;

    while (writer->left > 0) {
        bf_co_yield();
    }
}

static void
check_blocks(const char *path, uint32_t block_bytes, uint8_t whole, uint8_t odd)
{
    g_autofree char *contents = NULL;

    g_assert_true(g_file_get_contents(path, &contents, NULL, NULL));
    for (unsigned block = 0; block < BLOCKS; block++) {
        const uint8_t *b = (const uint8_t *)contents + block * block_bytes;

        for (unsigned i = 0; i < block_bytes; i++) {
            bool inside = i >= ODD_START && i < ODD_START + ODD_BYTES;

            g_assert_true(b[i] == whole || (inside && b[i] == odd));
            g_assert_true(!inside || b[i] == b[ODD_START]);
        }
    }
}

static void
test_whole_blocks_against_odd_ranges(void *arg)
{
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfGraph *graph = bf_test_graph_new();
    BlockWriter writers[2] = {{.whole = true}, {.whole = false}};
    uint32_t block_bytes;
    BfRoot *root;

    bf_test_co_add(graph, bf_test_set_direct(bf_test_file("f0", path)));
    root = bf_test_co_root(graph, "f0", READ_WRITE);
    block_bytes = bf_root_limits(root)->alignment;
    g_assert_cmpuint(block_bytes, >=, 512);
    g_assert_cmpuint(block_bytes, <=, BF_MIB / BLOCKS);
    for (unsigned i = 0; i < 2; i++) {
        writers[i].loop = bf_test_loops()->workers[i];
        writers[i].handle = bf_handle_co_new(root, writers[i].loop);
        writers[i].block_bytes = block_bytes;
    }
    for (unsigned round = 0; round < BLOCK_ROUNDS; round++) {
        writers[0].value = (uint8_t)(2 * round + 1);
        writers[1].value = (uint8_t)(2 * round + 2);
        for (unsigned i = 0; i < 2; i++) {
            bf_loop_post(writers[i].loop, start_blocks, &writers[i]);
        }
        for (unsigned i = 0; i < 2; i++) {
            bf_test_co_on(writers[i].loop, co_wait_blocks, &writers[i]);
        }
        check_blocks(path, block_bytes, writers[0].value, writers[1].value);
    }
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

/* A handle at the place where a test's requests run. */
typedef struct Case {
    BfHandle *handle;
    const char *path;
} Case;

static void
co_on_handle(const char *name, BfGraph *graph, BfFn *fn, const char *path)
{
    BfRoot *root = bf_test_co_root(graph, name, READ_WRITE);
    BfLoop *loop =
        bf_root_pick_loop(root, bf_test_loops()->workers, BF_TEST_WORKERS, 0);
    Case c = {bf_handle_co_new(root, loop), path};

    bf_test_co_on(loop, fn, &c);
    bf_root_co_free(root);
}

/* "x0" over "f0", whose one rule lets @op fail with @error_name. */
static BfGraph *
co_graph_with_fault(const char *path, BfFaultOp op, const char *error_name)
{
    BfGraph *graph = bf_test_graph_new();
    BfBlockdevOptions *options;

    bf_test_co_add(graph, bf_test_file("f0", path));
    options = bf_test_fault("x0", bf_test_ref_str("f0"), 1);
    options->u.fault->rules->items[0]->op = op;
    g_free(options->u.fault->rules->items[0]->errno_);
    options->u.fault->rules->items[0]->errno_ = g_strdup(error_name);
    bf_test_co_add(graph, options);
    return graph;
}

static void
co_zero_by_writing(void *arg)
{
    Case *c = arg;
    g_autofree uint8_t *buf = g_malloc(3 * BF_MIB);

    memset(buf, 0xaa, 3 * BF_MIB);
    g_assert_cmpint(bf_test_co_write(c->handle, 0, buf, 3 * BF_MIB, 0), ==, 0);
    g_assert_cmpint(
        bf_handle_co_write_zeroes(c->handle, 5, 2 * BF_MIB, BF_IO_NO_FALLBACK),
        ==, -ENOTSUP);
    g_assert_cmpint(bf_test_co_read(c->handle, 0, buf, 3 * BF_MIB), ==, 0);
    for (size_t i = 0; i < 3 * BF_MIB; i++) {
        g_assert_cmpuint(buf[i], ==, 0xaa);
    }
    g_assert_cmpint(
        bf_handle_co_write_zeroes(c->handle, 5, 2 * BF_MIB, BF_IO_FUA), ==, 0);
    g_assert_cmpint(bf_test_co_read(c->handle, 0, buf, 3 * BF_MIB), ==, 0);
    g_assert_cmpuint(buf[4], ==, 0xaa);
    g_assert_true(bf_mem_is_zero(buf + 5, 2 * BF_MIB));
    g_assert_cmpuint(buf[2 * BF_MIB + 5], ==, 0xaa);
}

static void
test_zeroes_fall_back_to_writing(void *arg)
{
    g_autofree char *path = bf_test_file_new(4 * BF_MIB);
    BfGraph *graph =
        co_graph_with_fault(path, BF_FAULT_OP_WRITE_ZEROES, "EOPNOTSUPP");

    co_on_handle("x0", graph, co_zero_by_writing, path);
    bf_graph_co_free(graph);
}

static void
co_discard_unsupported(void *arg)
{
    Case *c = arg;

    g_assert_cmpint(bf_handle_co_discard(c->handle, 0, 65536, 0), ==, 0);
}

static void
test_discard_is_a_hint(void *arg)
{
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfGraph *graph =
        co_graph_with_fault(path, BF_FAULT_OP_DISCARD, "EOPNOTSUPP");

    co_on_handle("x0", graph, co_discard_unsupported, path);
    bf_graph_co_free(graph);
}

/* The parts of blocks at both ends are read, changed and written back. */
static void
co_zero_unaligned_direct(void *arg)
{
    Case *c = arg;
    g_autofree uint8_t *buf = g_malloc(65536);

    memset(buf, 0x55, 65536);
    g_assert_cmpint(bf_test_co_write(c->handle, 0, buf, 65536, 0), ==, 0);
    g_assert_cmpint(bf_handle_co_write_zeroes(c->handle, 1000, 50001, 0), ==,
                    0);
    g_assert_cmpint(bf_test_co_read(c->handle, 0, buf, 65536), ==, 0);
    g_assert_cmpuint(buf[999], ==, 0x55);
    g_assert_true(bf_mem_is_zero(buf + 1000, 50001));
    g_assert_cmpuint(buf[51001], ==, 0x55);
    g_assert_cmpint(bf_handle_co_write_zeroes(c->handle, 52000, 7, 0), ==, 0);
    g_assert_cmpint(bf_test_co_read(c->handle, 51999, buf, 9), ==, 0);
    g_assert_cmpuint(buf[0], ==, 0x55);
    g_assert_true(bf_mem_is_zero(buf + 1, 7));
    g_assert_cmpuint(buf[8], ==, 0x55);
}

static void
test_zeroes_of_odd_ranges_on_direct(void *arg)
{
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfGraph *graph = bf_test_graph_new();

    bf_test_co_add(graph, bf_test_set_direct(bf_test_file("f0", path)));
    co_on_handle("f0", graph, co_zero_unaligned_direct, path);
    bf_graph_co_free(graph);
}

/* Many small and misplaced pieces of memory, as a client may cause them. */
static void
co_scattered(void *arg)
{
    Case *c = arg;
    g_autofree uint8_t *out = g_malloc(100000);
    g_autofree uint8_t *in = g_malloc0(100000);
    BfIoVec vec;

    for (size_t i = 0; i < 100000; i++) {
        out[i] = (uint8_t)(i % 253);
    }
    bf_iovec_init(&vec);
    for (size_t i = 0; i < 1000; i++) {
        bf_iovec_add(&vec, out + i * 100, 100);
    }
    g_assert_cmpint(bf_handle_co_write(c->handle, 777, &vec, 0), ==, 0);
    bf_iovec_clear(&vec);
    bf_iovec_init(&vec);
    for (size_t i = 0; i < 1000; i++) {
        bf_iovec_add(&vec, in + i * 100, 100);
    }
    g_assert_cmpint(bf_handle_co_read(c->handle, 777, &vec, 0), ==, 0);
    bf_iovec_clear(&vec);
    g_assert_cmpmem(in, 100000, out, 100000);
}

static void
test_scattered_buffers(void *arg)
{
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfGraph *graph = bf_test_graph_new();

    bf_test_co_add(graph, bf_test_set_direct(bf_test_file("f0", path)));
    co_on_handle("f0", graph, co_scattered, path);
    bf_test_co_del(graph, "f0");
    bf_test_co_add(graph, bf_test_file("f0", path));
    co_on_handle("f0", graph, co_scattered, path);
    bf_graph_co_free(graph);
}

/* A request with FUA fails if the flush behind it does. */
static void
co_flush_fails(void *arg)
{
    Case *c = arg;

    g_assert_cmpint(bf_handle_co_flush(c->handle), ==, -EIO);
    g_assert_cmpint(bf_handle_co_write_zeroes(c->handle, 0, 4096, BF_IO_FUA),
                    ==, -EIO);
}

static void
test_flush_errors_reach_fua(void *arg)
{
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfGraph *graph = co_graph_with_fault(path, BF_FAULT_OP_FLUSH, "EIO");

    co_on_handle("x0", graph, co_flush_fails, path);
    bf_graph_co_free(graph);
}

static void
co_nothing_fails(void *arg)
{
    Case *c = arg;
    uint8_t buf[512] = {1};

    g_assert_cmpint(bf_handle_co_flush(c->handle), ==, 0);
    g_assert_cmpint(bf_test_co_write(c->handle, 0, buf, 512, BF_IO_FUA), ==, 0);
}

static void
test_no_flush_flushes_nothing(void *arg)
{
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfGraph *graph = co_graph_with_fault(path, BF_FAULT_OP_FLUSH, "EIO");
    BfBlockdevOptions *options = bf_test_raw("r0", bf_test_ref_str("x0"));

    options->cache = g_new0(BfBlockdevCacheOptions, 1);
    options->cache->has_no_flush = true;
    options->cache->no_flush = true;
    bf_test_co_add(graph, options);
    co_on_handle("r0", graph, co_nothing_fails, path);
    bf_graph_co_free(graph);
}

static void
co_do_what_is_refused(void *arg)
{
    Case *c = arg;
    uint8_t buf[512] = {0};

    g_assert_cmpint(bf_test_co_read(c->handle, BF_MIB, buf, 512), ==, -EINVAL);
    g_assert_cmpint(bf_test_co_write(c->handle, BF_MIB - 1, buf, 512, 0), ==,
                    -EINVAL);
    g_assert_cmpint(bf_handle_co_discard(c->handle, 1, BF_MIB, 0), ==, -EINVAL);
    g_assert_cmpint(bf_test_co_write(c->handle, 512, buf, 512, 0), ==, 0);
    g_assert_cmpint(bf_test_co_read(c->handle, 0, buf, 0), ==, 0);
}

static void
test_refused_requests_count_apart(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    g_autoptr(BfBlockStatsList) list = NULL;
    const BfBlockDeviceStats *stats;

    bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    co_on_handle("n0", graph, co_do_what_is_refused, NULL);
    list = bf_graph_co_query_stats(graph, true);
    g_assert_cmpuint(list->len, ==, 1);
    g_assert_cmpstr(list->items[0]->node_name, ==, "n0");
    stats = list->items[0]->stats;
    g_assert_cmpint(stats->invalid_rd_operations, ==, 1);
    g_assert_cmpint(stats->invalid_wr_operations, ==, 1);
    g_assert_cmpint(stats->invalid_unmap_operations, ==, 1);
    g_assert_cmpint(stats->failed_rd_operations, ==, 0);
    g_assert_cmpint(stats->wr_operations, ==, 1);
    g_assert_cmpint(stats->rd_operations, ==, 0);
    g_assert_cmpint(stats->wr_highest_offset, ==, 1024);
    bf_graph_co_free(graph);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/request/rmw/interleaved-odd-writes-equal-model",
                test_interleaved_odd_writes_equal_model);
    bf_test_add("/block/request/rmw/interleaved-odd-writes-through-raw",
                test_interleaved_odd_writes_through_raw);
    bf_test_add("/block/request/rmw/whole-blocks-against-odd-ranges",
                test_whole_blocks_against_odd_ranges);
    bf_test_add("/block/request/zeroes/fall-back-to-writing",
                test_zeroes_fall_back_to_writing);
    bf_test_add("/block/request/zeroes/odd-ranges-on-direct",
                test_zeroes_of_odd_ranges_on_direct);
    bf_test_add("/block/request/discard/is-a-hint", test_discard_is_a_hint);
    bf_test_add("/block/request/iovec/scattered-buffers",
                test_scattered_buffers);
    bf_test_add("/block/request/flush/errors-reach-fua",
                test_flush_errors_reach_fua);
    bf_test_add("/block/request/flush/no-flush-flushes-nothing",
                test_no_flush_flushes_nothing);
    bf_test_add("/block/request/stats/refused-requests-count-apart",
                test_refused_requests_count_apart);
    return g_test_run();
}
