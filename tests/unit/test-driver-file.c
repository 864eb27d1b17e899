/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The file driver on real files: data, sizes, zeroes, extents, pipes. */
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block-harness.h"
#include "core/util.h"
#include "harness.h"

/* A file node "f0" with one handle on the first worker. */
typedef struct Fixture {
    BfGraph *graph;
    BfRoot *root;
    BfHandle *handle;
    char *path;
    uint64_t size;
    bool writable;
} Fixture;

typedef void TestFn(Fixture *f);

typedef struct OnWorker {
    Fixture *fixture;
    TestFn *fn;
} OnWorker;

static void
co_run_on_worker(void *arg)
{
    OnWorker *run = arg;

    run->fn(run->fixture);
}

static void
fixture_co_open(Fixture *f, BfBlockdevOptions *options)
{
    BfLoop *loop;

    f->graph = bf_test_graph_new();
    bf_test_co_add(f->graph, options);
    f->root = bf_test_co_root(f->graph, "f0",
                              BF_PERM_CONSISTENT_READ | BF_PERM_WRITE);
    loop = bf_root_pick_loop(f->root, bf_test_loops()->workers, BF_TEST_WORKERS,
                             0);
    f->handle = bf_handle_co_new(f->root, loop);
}

static void
fixture_co_close(Fixture *f)
{
    bf_root_co_free(f->root);
    bf_graph_co_free(f->graph);
    g_free(f->path);
}

/* Runs @fn on a worker, with a file of @size bytes. */
static void
co_with_file(uint64_t size, bool direct, bool unmap, TestFn *fn)
{
    Fixture f = {.path = bf_test_file_new(size), .size = size};
    OnWorker run = {&f, fn};
    BfBlockdevOptions *options = bf_test_file("f0", f.path);

    if (direct) {
        bf_test_set_direct(options);
    }
    if (unmap) {
        options->has_discard = true;
        options->discard = BF_BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    }
    fixture_co_open(&f, options);
    bf_test_co_on(bf_test_loops()->workers[0], co_run_on_worker, &run);
    fixture_co_close(&f);
}

static void
fill(uint8_t *buf, size_t bytes, unsigned seed)
{
    for (size_t i = 0; i < bytes; i++) {
        buf[i] = (uint8_t)(i * 7 + i / 251 + seed);
    }
}

static void
co_write_and_read_back(Fixture *f, uint64_t offset, size_t bytes,
                       unsigned flags)
{
    g_autofree uint8_t *out = g_malloc(bytes);
    g_autofree uint8_t *in = g_malloc0(bytes);

    fill(out, bytes, (unsigned)offset);
    g_assert_cmpint(bf_test_co_write(f->handle, offset, out, bytes, flags), ==,
                    0);
    g_assert_cmpint(bf_test_co_read(f->handle, offset, in, bytes), ==, 0);
    g_assert_cmpmem(in, bytes, out, bytes);
}

static void
check_round_trips(Fixture *f)
{
    co_write_and_read_back(f, 0, 4096, 0);
    co_write_and_read_back(f, 4096, 65536, 0);
    co_write_and_read_back(f, 4096, 1024 * 1024, 0);
    co_write_and_read_back(f, 8192, 4096, BF_IO_FUA);
    co_write_and_read_back(f, 1, 1, 0);
    co_write_and_read_back(f, 511, 1026, 0);
    co_write_and_read_back(f, 100001, 300007, BF_IO_FUA);
    co_write_and_read_back(f, 3 * 1024 * 1024 - 5, 2 * 1024 * 1024 + 77, 0);
    g_assert_cmpint(bf_handle_co_flush(f->handle), ==, 0);
}

static void
test_round_trips(void *arg)
{
    co_with_file(8 * BF_MIB, false, false, check_round_trips);
}

static void
test_round_trips_direct(void *arg)
{
    co_with_file(8 * BF_MIB, true, false, check_round_trips);
}

static void
check_far_offsets(Fixture *f)
{
    co_write_and_read_back(f, 3 * 1024 * BF_GIB, 4096, 0);
    co_write_and_read_back(f, f->size - 512, 512, 0);
}

static void
test_reaches_far_offsets(void *arg)
{
    co_with_file(5 * 1024 * BF_GIB, false, false, check_far_offsets);
}

static void
check_range_errors(Fixture *f)
{
    uint8_t buf[1024] = {0};
    BfExtents extents;

    g_assert_cmpint(bf_test_co_read(f->handle, f->size, buf, 1), ==, -EINVAL);
    g_assert_cmpint(bf_test_co_read(f->handle, f->size - 1, buf, 2), ==,
                    -EINVAL);
    g_assert_cmpint(bf_test_co_read(f->handle, UINT64_MAX, buf, 2), ==,
                    -EINVAL);
    g_assert_cmpint(bf_test_co_write(f->handle, f->size, buf, 1, 0), ==,
                    -EINVAL);
    g_assert_cmpint(
        bf_handle_co_write_zeroes(f->handle, f->size - 1, UINT64_MAX, 0), ==,
        -EINVAL);
    g_assert_cmpint(bf_handle_co_discard(f->handle, UINT64_MAX, 5, 0), ==,
                    -EINVAL);
    bf_extents_init(&extents, 8);
    g_assert_cmpint(bf_handle_co_extents(f->handle, f->size, 1, &extents), ==,
                    -EINVAL);
    bf_extents_clear(&extents);
    g_assert_cmpint(bf_test_co_read(f->handle, f->size, buf, 0), ==, 0);
}

static void
test_refuses_ranges_outside(void *arg)
{
    co_with_file(1 * BF_MIB, false, false, check_range_errors);
}

static void
check_odd_size(Fixture *f)
{
    uint64_t size = bf_handle_size(f->handle);
    uint8_t buf[1024];

    g_assert_cmpuint(size, ==, 1000448);
    memset(buf, 0xff, sizeof(buf));
    g_assert_cmpint(bf_test_co_read(f->handle, size - 1024, buf, 1024), ==, 0);
    g_assert_true(bf_mem_is_zero(buf, sizeof(buf)));
    /* Up to the end of the node, beyond the end of the file. */
    co_write_and_read_back(f, size - 1024, 1024, 0);
    co_write_and_read_back(f, size - 3, 3, 0);
    co_write_and_read_back(f, 0, 1000000, 0);
    g_assert_cmpint(bf_handle_co_write_zeroes(f->handle, 0, size, 0), ==, 0);
    g_assert_cmpint(bf_test_co_read(f->handle, size - 1024, buf, 1024), ==, 0);
    g_assert_true(bf_mem_is_zero(buf, sizeof(buf)));
}

static void
assert_size_at_most(const char *path, off_t size)
{
    struct stat st;

    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, <=, size);
}

static void
check_odd_size_stays(Fixture *f)
{
    check_odd_size(f);
    assert_size_at_most(f->path, 1000448);
}

static void
test_odd_size_is_rounded_up(void *arg)
{
    co_with_file(1000001, false, false, check_odd_size_stays);
}

static void
test_odd_size_is_rounded_up_direct(void *arg)
{
    co_with_file(1000001, true, false, check_odd_size_stays);
}

static BfExtents
co_map(Fixture *f, uint64_t offset, uint64_t bytes, size_t max)
{
    BfExtents extents;

    bf_extents_init(&extents, max);
    g_assert_cmpint(bf_handle_co_extents(f->handle, offset, bytes, &extents),
                    ==, 0);
    g_assert_cmpuint(extents.len, >=, 1);
    g_assert_cmpuint(extents.bytes, <=, bytes);
    return extents;
}

static void
check_extents(Fixture *f)
{
    const unsigned hole = BF_EXTENT_HOLE | BF_EXTENT_ZERO;
    BfExtents extents;

    co_write_and_read_back(f, 256 * BF_KIB, 128 * BF_KIB, 0);
    extents = co_map(f, 0, f->size, 16);
    g_assert_cmpuint(extents.len, ==, 3);
    g_assert_cmpuint(extents.items[0].bytes, ==, 256 * BF_KIB);
    g_assert_cmpuint(extents.items[0].flags, ==, hole);
    g_assert_cmpuint(extents.items[1].bytes, ==, 128 * BF_KIB);
    g_assert_cmpuint(extents.items[1].flags, ==, 0);
    g_assert_cmpuint(extents.items[2].flags, ==, hole);
    g_assert_cmpuint(extents.bytes, ==, f->size);
    bf_extents_clear(&extents);

    extents = co_map(f, 100, 10, 16);
    g_assert_cmpuint(extents.len, ==, 1);
    g_assert_cmpuint(extents.items[0].bytes, ==, 10);
    bf_extents_clear(&extents);

    extents = co_map(f, 0, f->size, 2);
    g_assert_cmpuint(extents.len, ==, 2);
    g_assert_cmpuint(extents.bytes, ==, 384 * BF_KIB);
    bf_extents_clear(&extents);
}

static void
test_extents_show_holes(void *arg)
{
    co_with_file(1 * BF_MIB, false, false, check_extents);
}

static void
check_unmap(Fixture *f)
{
    uint8_t buf[4096];
    BfExtents extents;

    co_write_and_read_back(f, 0, 1 * BF_MIB, 0);
    g_assert_cmpint(bf_handle_co_write_zeroes(f->handle, 0, 64 * BF_KIB, 0), ==,
                    0);
    g_assert_cmpint(bf_handle_co_write_zeroes(f->handle, 128 * BF_KIB + 5,
                                              64 * BF_KIB, BF_IO_FUA),
                    ==, 0);
    g_assert_cmpint(
        bf_handle_co_write_zeroes(f->handle, 512 * BF_KIB, 128 * BF_KIB,
                                  BF_IO_MAY_UNMAP | BF_IO_NO_FALLBACK),
        ==, 0);
    g_assert_cmpint(
        bf_handle_co_discard(f->handle, 768 * BF_KIB, 128 * BF_KIB, 0), ==, 0);
    g_assert_cmpint(bf_test_co_read(f->handle, 128 * BF_KIB + 5, buf, 4096), ==,
                    0);
    g_assert_true(bf_mem_is_zero(buf, 4096));
    g_assert_cmpint(bf_test_co_read(f->handle, 128 * BF_KIB, buf, 5), ==, 0);
    g_assert_false(bf_mem_is_zero(buf, 5));

    extents = co_map(f, 512 * BF_KIB, 512 * BF_KIB, 16);
    g_assert_cmpuint(extents.len, ==, 4);
    g_assert_cmpuint(extents.items[0].bytes, ==, 128 * BF_KIB);
    g_assert_cmpuint(extents.items[0].flags, ==,
                     BF_EXTENT_HOLE | BF_EXTENT_ZERO);
    g_assert_cmpuint(extents.items[2].bytes, ==, 128 * BF_KIB);
    bf_extents_clear(&extents);
}

static void
test_zeroes_and_discard_unmap(void *arg)
{
    co_with_file(1 * BF_MIB, false, true, check_unmap);
}

static void
test_zeroes_and_discard_unmap_direct(void *arg)
{
    co_with_file(1 * BF_MIB, true, true, check_unmap);
}

static void
check_discard_ignored(Fixture *f)
{
    uint8_t buf[4096];
    struct stat st;

    co_write_and_read_back(f, 0, 1 * BF_MIB, 0);
    g_assert_cmpint(bf_handle_co_discard(f->handle, 0, 512 * BF_KIB, BF_IO_FUA),
                    ==, 0);
    g_assert_cmpint(bf_test_co_read(f->handle, 0, buf, 4096), ==, 0);
    g_assert_false(bf_mem_is_zero(buf, 4096));
    g_assert_cmpint(
        bf_handle_co_write_zeroes(f->handle, 0, 1 * BF_MIB, BF_IO_MAY_UNMAP),
        ==, 0);
    g_assert_cmpint(stat(f->path, &st), ==, 0);
    g_assert_cmpint(st.st_blocks, >=, (blkcnt_t)(BF_MIB / 512));
}

static void
test_discard_ignore_keeps_data(void *arg)
{
    co_with_file(1 * BF_MIB, false, false, check_discard_ignored);
}

static blkcnt_t
blocks_of(Fixture *f)
{
    struct stat st;

    g_assert_cmpint(stat(f->path, &st), ==, 0);
    return st.st_blocks;
}

static void
check_holes_kept(Fixture *f)
{
    const uint64_t size = 4 * BF_MIB;
    blkcnt_t blocks;

    co_write_and_read_back(f, 1 * BF_MIB, 64 * BF_KIB, 0);
    co_write_and_read_back(f, 3 * BF_MIB, 64 * BF_KIB, 0);
    blocks = blocks_of(f);
    g_assert_cmpint(
        bf_handle_co_write_zeroes(f->handle, 4096, size - 4096,
                                  BF_IO_MAY_UNMAP | BF_IO_NO_FALLBACK),
        ==, 0);
    g_assert_cmpint(blocks_of(f), ==, blocks);
    for (uint64_t offset = 1 * BF_MIB; offset < size; offset += 2 * BF_MIB) {
        uint8_t buf[64 * BF_KIB];

        g_assert_cmpint(bf_test_co_read(f->handle, offset, buf, sizeof(buf)),
                        ==, 0);
        g_assert_true(bf_mem_is_zero(buf, sizeof(buf)));
    }
    g_assert_cmpint(bf_handle_co_write_zeroes(f->handle, 0, size, 0), ==, 0);
    g_assert_cmpint(blocks_of(f), >=, (blkcnt_t)(size / 512));
}

static void
test_discard_ignore_keeps_holes(void *arg)
{
    co_with_file(4 * BF_MIB, false, false, check_holes_kept);
}

static void
check_pipe(Fixture *f)
{
    const size_t bytes = 64 * BF_KIB;
    g_autofree uint8_t *out = g_malloc(bytes);
    g_autofree uint8_t *in = g_malloc(bytes);
    int fds[2];
    int ret;

    g_assert_cmpint(pipe2(fds, O_CLOEXEC), ==, 0);
    fcntl(fds[1], F_SETPIPE_SZ, (int)bytes * 2);
    fill(out, bytes, 3);
    g_assert_cmpint(bf_test_co_write(f->handle, 4096, out, bytes, 0), ==, 0);
    ret = bf_handle_co_read_pipe(f->handle, 4096, bytes, fds[1]);
    if (ret != -EOPNOTSUPP) { /* a file system that cannot */
        g_assert_cmpint(ret, ==, 0);
        g_assert_cmpint(read(fds[0], in, bytes), ==, (ssize_t)bytes);
        g_assert_cmpmem(in, bytes, out, bytes);
    }
    close(fds[0]);
    close(fds[1]);
}

static void
test_read_pipe_gives_the_data(void *arg)
{
    co_with_file(1 * BF_MIB, false, false, check_pipe);
}

/* Puts @len bytes into a new pipe and writes them from there. */
static int
co_write_from_pipe(Fixture *f, uint64_t offset, const uint8_t *data, size_t len,
                   int *ret_left)
{
    int fds[2];
    int ret;

    g_assert_cmpint(pipe2(fds, O_CLOEXEC | O_NONBLOCK), ==, 0);
    fcntl(fds[1], F_SETPIPE_SZ, (int)len * 2);
    g_assert_cmpint(write(fds[1], data, len), ==, (ssize_t)len);
    ret = bf_handle_co_write_pipe(f->handle, offset, len, fds[0]);
    g_assert_cmpint(ioctl(fds[0], FIONREAD, ret_left), ==, 0);
    close(fds[0]);
    close(fds[1]);
    return ret;
}

static void
check_write_pipe(Fixture *f)
{
    const size_t bytes = 64 * BF_KIB;
    g_autofree uint8_t *out = g_malloc(bytes);
    g_autofree uint8_t *in = g_malloc(bytes);
    int left;
    int ret;

    fill(out, bytes, 5);
    ret = co_write_from_pipe(f, 8192, out, bytes, &left);
    if (ret != -EOPNOTSUPP) { /* a file system that cannot */
        g_assert_cmpint(ret, ==, 0);
        g_assert_cmpint(left, ==, 0);
        g_assert_cmpint(bf_test_co_read(f->handle, 8192, in, bytes), ==, 0);
        g_assert_cmpmem(in, bytes, out, bytes);
    }
    /* What is refused stays in the pipe. */
    ret = co_write_from_pipe(f, 8192 + 512, out, bytes, &left);
    g_assert_cmpint(ret, ==, -EOPNOTSUPP);
    g_assert_cmpint(left, ==, (int)bytes);
    ret = co_write_from_pipe(f, 1 * BF_MIB - 4096, out, bytes, &left);
    g_assert_cmpint(ret, ==, -EINVAL);
}

static void
test_write_pipe_takes_the_data(void *arg)
{
    co_with_file(1 * BF_MIB, false, false, check_write_pipe);
}

static void
check_cold_pipe(Fixture *f)
{
    const uint64_t bytes = 256 * BF_KIB;
    int fds[2];
    int fd = open(f->path, O_RDWR | O_CLOEXEC);

    co_write_and_read_back(f, 0, 1 * BF_MIB, 0);
    g_assert_cmpint(pipe2(fds, O_CLOEXEC), ==, 0);
    g_assert_cmpint(fdatasync(fd), ==, 0);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    g_assert_cmpint(
        bf_handle_co_read_pipe(f->handle, 512 * BF_KIB, bytes / 8, fds[1]), !=,
        -EIO);
    close(fd);
    close(fds[0]);
    close(fds[1]);
}

static void
test_read_pipe_of_cold_range(void *arg)
{
    co_with_file(1 * BF_MIB, false, false, check_cold_pipe);
}

/* detect-zeroes=unmap turns zeroes into holes. */
static void
check_detect_zeroes(Fixture *f)
{
    g_autofree uint8_t *zeroes = g_malloc0(BF_MIB);
    BfExtents extents;

    co_write_and_read_back(f, 0, 1 * BF_MIB, 0);
    g_assert_cmpint(
        bf_test_co_write(f->handle, 0, zeroes, 512 * BF_KIB, BF_IO_FUA), ==, 0);
    extents = co_map(f, 0, f->size, 16);
    g_assert_cmpuint(extents.len, ==, 2);
    g_assert_cmpuint(extents.items[0].bytes, ==, 512 * BF_KIB);
    g_assert_cmpuint(extents.items[0].flags, ==,
                     BF_EXTENT_HOLE | BF_EXTENT_ZERO);
    bf_extents_clear(&extents);
}

static void
test_detect_zeroes_unmaps(void *arg)
{
    Fixture f = {.path = bf_test_file_new(BF_MIB), .size = BF_MIB};
    OnWorker run = {&f, check_detect_zeroes};
    BfBlockdevOptions *options = bf_test_file("f0", f.path);

    options->has_discard = true;
    options->discard = BF_BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    options->detect_zeroes = BF_BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP;
    fixture_co_open(&f, options);
    bf_test_co_on(bf_test_loops()->workers[0], co_run_on_worker, &run);
    fixture_co_close(&f);
}

static void
check_cold_read(Fixture *f)
{
    g_autofree uint8_t *in = g_malloc(BF_MIB);
    g_autofree uint8_t *out = g_malloc(BF_MIB);
    int fd = open(f->path, O_RDWR | O_CLOEXEC);

    fill(out, BF_MIB, 0);
    co_write_and_read_back(f, 0, BF_MIB, 0);
    g_assert_cmpint(bf_handle_co_flush(f->handle), ==, 0);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    g_assert_cmpint(bf_handle_co_cache(f->handle, 0, 4096), ==, 0);
    g_assert_cmpint(bf_test_co_read(f->handle, 0, in, BF_MIB), ==, 0);
    g_assert_cmpmem(in, BF_MIB, out, BF_MIB);
    close(fd);
}

static void
test_reads_what_is_not_cached(void *arg)
{
    co_with_file(1 * BF_MIB, false, false, check_cold_read);
}

static void
test_fdset_gives_the_file(void *arg)
{
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfGraph *graph = bf_test_graph_new();
    int fd = open(path, O_RDWR | O_CLOEXEC);

    bf_test_set_fdset(fd);
    bf_test_co_add(graph, bf_test_file("f0", "/dev/fdset/1"));
    bf_test_co_add_fails(graph, bf_test_file("f1", "/dev/fdset/2"),
                         "*/dev/fdset/2*");
    bf_graph_co_free(graph);
    bf_test_set_fdset(-1);
    close(fd);
}

static void
test_open_errors_name_the_file(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfBlockdevOptions *options;

    bf_test_co_add_fails(graph, bf_test_file("f0", "/nonexistent/x"),
                         "Could not open '/nonexistent/x': No such file*");
    bf_test_co_add_fails(graph, bf_test_file("f0", "/tmp"),
                         "Could not open '/tmp': Is a directory");
    bf_test_co_add_fails(graph, bf_test_file("f0", "/dev/null"),
                         "'file' driver requires '/dev/null' to be a regular "
                         "file");
    options = bf_test_file("f0", path);
    options->driver = BF_BLOCKDEV_DRIVER_HOST_DEVICE;
    bf_test_co_add_fails(graph, options,
                         "'host_device' driver requires '*' to be either a "
                         "character or block device");
    options = bf_test_file("f0", path);
    options->u.file->aio = BF_BLOCKDEV_AIO_OPTIONS_NATIVE;
    bf_test_co_add_fails(graph, options, "aio=native was specified*");
    g_assert_null(bf_graph_find_node(graph, "f0"));
    bf_test_co_add(graph, bf_test_file("f0", path));
    bf_graph_co_free(graph);
}

static void
test_resize_grows_and_shrinks(void *arg)
{
    g_autofree char *path = bf_test_file_new(BF_MIB);
    BfGraph *graph = bf_test_graph_new();
    BfNode *node = bf_test_co_add(graph, bf_test_file("f0", path));
    BfNode *raw =
        bf_test_co_add(graph, bf_test_raw("r0", bf_test_ref_str("f0")));
    GError *error = NULL;
    struct stat st;
    BfRoot *root;

    g_assert_true(bf_graph_co_resize(graph, node, 2 * BF_MIB, &error));
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 2 * BF_MIB);
    g_assert_true(bf_graph_co_resize(graph, raw, 12345, &error));
    g_assert_no_error(error);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 12345);

    root = bf_test_co_root(graph, "r0", BF_PERM_CONSISTENT_READ);
    g_assert_cmpuint(bf_root_size(root), ==, 12800);
    g_assert_false(bf_graph_co_resize(graph, node, BF_MIB, &error));
    bf_test_assert_error(&error, "Permission conflict on node 'f0': "
                                 "permissions 'resize' are both required by "
                                 "command 'block_resize' (uses node 'f0' as "
                                 "'root' child) and unshared by node 'r0' "
                                 "(uses node 'f0' as 'file' child).");
    bf_root_co_free(root);
    bf_graph_co_free(graph);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/file/round-trips", test_round_trips);
    bf_test_add("/block/file/round-trips-direct", test_round_trips_direct);
    bf_test_add("/block/file/reaches-far-offsets", test_reaches_far_offsets);
    bf_test_add("/block/file/refuses-ranges-outside",
                test_refuses_ranges_outside);
    bf_test_add("/block/file/odd-size-is-rounded-up",
                test_odd_size_is_rounded_up);
    bf_test_add("/block/file/odd-size-is-rounded-up-direct",
                test_odd_size_is_rounded_up_direct);
    bf_test_add("/block/file/extents-show-holes", test_extents_show_holes);
    bf_test_add("/block/file/zeroes-and-discard-unmap",
                test_zeroes_and_discard_unmap);
    bf_test_add("/block/file/zeroes-and-discard-unmap-direct",
                test_zeroes_and_discard_unmap_direct);
    bf_test_add("/block/file/discard-ignore-keeps-data",
                test_discard_ignore_keeps_data);
    bf_test_add("/block/file/discard-ignore-keeps-holes",
                test_discard_ignore_keeps_holes);
    bf_test_add("/block/file/read-pipe-gives-the-data",
                test_read_pipe_gives_the_data);
    bf_test_add("/block/file/write-pipe-takes-the-data",
                test_write_pipe_takes_the_data);
    bf_test_add("/block/file/read-pipe-of-cold-range",
                test_read_pipe_of_cold_range);
    bf_test_add("/block/file/detect-zeroes-unmaps", test_detect_zeroes_unmaps);
    bf_test_add("/block/file/reads-what-is-not-cached",
                test_reads_what_is_not_cached);
    bf_test_add("/block/file/fdset-gives-the-file", test_fdset_gives_the_file);
    bf_test_add("/block/file/open-errors-name-the-file",
                test_open_errors_name_the_file);
    bf_test_add("/block/file/resize-grows-and-shrinks",
                test_resize_grows_and_shrinks);
    return g_test_run();
}
