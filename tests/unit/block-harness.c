/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The harness of the block layer's tests. */
#include "block-harness.h"

#include <fcntl.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "harness.h"

static int fdset_fd = -1;

void
bf_test_set_fdset(int fd)
{
    fdset_fd = fd;
}

static int
open_fdset(void *opaque, const char *path, int flags, GError **error)
{
    if (fdset_fd < 0 || !g_str_equal(path, "/dev/fdset/1")) {
        bf_set_error(error, "no fd set '%s'", path);
        return -1;
    }
    return fcntl(fdset_fd, F_DUPFD_CLOEXEC, 3);
}

static const char *throttle_id;
static BfThrottleGroup *throttle_group;

void
bf_test_set_throttle_group(const char *id, BfThrottleGroup *group)
{
    throttle_id = id;
    throttle_group = group;
}

static BfThrottleGroup *
find_throttle_group(void *opaque, const char *id)
{
    return g_strcmp0(id, throttle_id) == 0 ? throttle_group : NULL;
}

BfGraph *
bf_test_graph_new(void)
{
    const BfGraphConfig config = {
        .workers = bf_test_loops()->workers,
        .n_workers = BF_TEST_WORKERS,
        .allow_faults = true,
        .open_fdset = open_fdset,
        .find_throttle_group = find_throttle_group,
    };

    return bf_graph_new(&config);
}

BfBlockdevOptions *
bf_test_options(BfBlockdevDriver driver, const char *name)
{
    BfBlockdevOptions *options = g_new0(BfBlockdevOptions, 1);

    options->driver = driver;
    options->node_name = g_strdup(name);
    return options;
}

BfBlockdevOptions *
bf_test_file(const char *name, const char *path)
{
    BfBlockdevOptions *options = bf_test_options(BF_BLOCKDEV_DRIVER_FILE, name);

    options->u.file = g_new0(BfBlockdevOptionsFile, 1);
    options->u.file->filename = g_strdup(path);
    options->u.file->locking = BF_ON_OFF_AUTO_AUTO;
    options->u.file->drop_cache = true;
    return options;
}

BfBlockdevOptions *
bf_test_raw(const char *name, BfBlockdevRef *file)
{
    BfBlockdevOptions *options = bf_test_options(BF_BLOCKDEV_DRIVER_RAW, name);

    options->u.raw = g_new0(BfBlockdevOptionsRaw, 1);
    options->u.raw->file = file;
    return options;
}

BfBlockdevOptions *
bf_test_fault(const char *name, BfBlockdevRef *image, unsigned n_rules)
{
    BfBlockdevOptions *options =
        bf_test_options(BF_BLOCKDEV_DRIVER_FAULT, name);
    BfFaultRuleList *rules = g_new0(BfFaultRuleList, 1);

    options->u.fault = g_new0(BfBlockdevOptionsFault, 1);
    options->u.fault->image = image;
    options->u.fault->has_seed = true;
    options->u.fault->seed = 1;
    options->u.fault->rules = rules;
    rules->len = n_rules;
    rules->items = g_new0(BfFaultRule *, n_rules);
    for (unsigned i = 0; i < n_rules; i++) {
        rules->items[i] = g_new0(BfFaultRule, 1);
        rules->items[i]->errno_ = g_strdup("EIO");
        rules->items[i]->probability = 100;
    }
    return options;
}

BfBlockdevOptions *
bf_test_null(const char *name, uint64_t size)
{
    BfBlockdevOptions *options =
        bf_test_options(BF_BLOCKDEV_DRIVER_NULL_CO, name);

    options->u.null_co = g_new0(BfBlockdevOptionsNull, 1);
    options->u.null_co->size = size;
    return options;
}

BfBlockdevOptions *
bf_test_set_direct(BfBlockdevOptions *options)
{
    options->cache = g_new0(BfBlockdevCacheOptions, 1);
    options->cache->has_direct = true;
    options->cache->direct = true;
    return options;
}

BfBlockdevRef *
bf_test_ref_str(const char *name)
{
    BfBlockdevRef *ref = g_new0(BfBlockdevRef, 1);

    ref->kind = BF_BLOCKDEV_REF_KIND_STR;
    ref->u.str = g_strdup(name);
    return ref;
}

BfBlockdevRef *
bf_test_ref_new(BfBlockdevOptions *options)
{
    BfBlockdevRef *ref = g_new0(BfBlockdevRef, 1);

    ref->kind = BF_BLOCKDEV_REF_KIND_OBJECT;
    ref->u.object = options;
    return ref;
}

BfNode *
bf_test_co_add(BfGraph *graph, BfBlockdevOptions *options)
{
    G_GNUC_UNUSED g_autoptr(BfBlockdevOptions) owned = options;
    g_autoptr(GError) error = NULL;
    bool ok = bf_graph_co_blockdev_add(graph, options, &error);

    g_assert_no_error(error);
    g_assert_true(ok);
    return bf_graph_find_node(graph, options->node_name);
}

void
bf_test_co_add_fails(BfGraph *graph, BfBlockdevOptions *options,
                     const char *message)
{
    G_GNUC_UNUSED g_autoptr(BfBlockdevOptions) owned = options;
    GError *error = NULL;

    g_assert_false(bf_graph_co_blockdev_add(graph, options, &error));
    bf_test_assert_error(&error, message);
}

void
bf_test_co_del(BfGraph *graph, const char *name)
{
    g_autoptr(GError) error = NULL;
    bool ok = bf_graph_co_blockdev_del(graph, name, &error);

    g_assert_no_error(error);
    g_assert_true(ok);
}

bool
bf_test_co_reopen(BfGraph *graph, BfBlockdevOptions *options, GError **error)
{
    BfBlockdevOptionsList list = {.len = 1, .items = &options};
    bool ok = bf_graph_co_reopen(graph, &list, error);

    bf_blockdev_options_free(options);
    return ok;
}

void
bf_test_assert_error(GError **error, const char *message)
{
    g_assert_nonnull(*error);
    g_assert_true((*error)->domain == BF_ERROR);
    if (!g_pattern_match_simple(message, (*error)->message)) {
        g_error("'%s' does not fit '%s'", (*error)->message, message);
    }
    g_clear_error(error);
}

BfRoot *
bf_test_co_root(BfGraph *graph, const char *node_name, unsigned perm)
{
    g_autoptr(GError) error = NULL;
    BfNode *node = bf_graph_find_node(graph, node_name);
    BfRoot *root;

    g_assert_nonnull(node);
    root = bf_root_co_new(graph, node, "test", perm,
                          BF_PERM_ALL & ~(unsigned)BF_PERM_RESIZE, &error);
    g_assert_no_error(error);
    g_assert_nonnull(root);
    return root;
}

void
bf_test_co_on(BfLoop *loop, BfFn *fn, void *arg)
{
    bf_co_call(loop, fn, arg);
}

int
bf_test_co_read(BfHandle *handle, uint64_t offset, void *buf, size_t bytes)
{
    BfIoVec vec;

    bf_iovec_init_buf(&vec, buf, bytes);
    return bf_handle_co_read(handle, offset, &vec, 0);
}

int
bf_test_co_write(BfHandle *handle, uint64_t offset, const void *buf,
                 size_t bytes, unsigned flags)
{
    BfIoVec vec;

    bf_iovec_init_buf(&vec, (void *)buf, bytes);
    return bf_handle_co_write(handle, offset, &vec, flags);
}

char *
bf_test_file_new(uint64_t bytes)
{
    char *path = bf_test_temp_path();
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(ftruncate(fd, (off_t)bytes), ==, 0);
    close(fd);
    return path;
}
