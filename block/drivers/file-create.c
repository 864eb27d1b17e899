/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * file: making images.
 *
 * A file that exists is emptied, as a new image has nothing of the old one;
 * but only if no node of ours is on it, whatever its name there, and its locks
 * show that nobody else relies on its contents. One that did not exist is
 * removed again if something fails.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/graph.h"
#include "block/job-kind.h"
#include "core/co-io.h"
#include "core/error.h"
#include "core/thread-pool.h"
#include "core/util.h"
#include "file-private.h"

#ifndef FS_NOCOW_FL
#define FS_NOCOW_FL 0x00800000
#endif

/* Between two looks at whether the job is paused or cancelled. */
#define ALLOCATE_BYTES (256 * BF_MIB)
#define WRITE_BYTES ((size_t)1 * BF_MIB)

#define FDSET_PREFIX "/dev/fdset/"

/* What the calls on a thread of the pool share. */
typedef struct Create {
    const BfBlockdevCreateOptionsFile *options;
    BfGraph *graph;
    int fd;       /* owned; -1 before it is open */
    dev_t device; /* which file it is, with @inode */
    ino_t inode;
    bool is_new; /* the file did not exist */
    bool failed; /* to be removed if it is new */
    GError *error;
} Create;

static bool
open_file(Create *self)
{
    const char *path = self->options->filename;
    const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK;
    struct stat st;

    self->fd = open(path, flags | O_EXCL, 0644);
    self->is_new = self->fd >= 0;
    if (self->fd < 0) {
        self->fd = open(path, flags, 0644);
    }
    if (self->fd < 0 || fstat(self->fd, &st) != 0) {
        bf_set_errno(&self->error, errno, "Could not create '%s'", path);
        return false;
    }
    if (!S_ISREG(st.st_mode)) {
        bf_set_error(&self->error,
                     "Could not create '%s': it exists and is not a regular "
                     "file",
                     path);
        return false;
    }
    self->device = st.st_dev;
    self->inode = st.st_ino;
    return true;
}

static bool
empty_file(Create *self)
{
    const BfBlockdevCreateOptionsFile *options = self->options;
    int attributes = 0;

    if (ftruncate(self->fd, 0) != 0) {
        bf_set_errno(&self->error, errno, "Could not truncate '%s'",
                     options->filename);
        return false;
    }
    /* Only for file systems that copy on write; others refuse, and need not. */
    if (options->nocow && ioctl(self->fd, FS_IOC_GETFLAGS, &attributes) == 0) {
        attributes |= FS_NOCOW_FL;
        if (ioctl(self->fd, FS_IOC_SETFLAGS, &attributes) != 0) {
            g_debug("no nocow for '%s': %s", options->filename,
                    strerror(errno));
        }
    }
    if (options->size > INT64_MAX ||
        ftruncate(self->fd, (off_t)options->size) != 0) {
        bf_set_errno(&self->error, options->size > INT64_MAX ? EFBIG : errno,
                     "Could not resize '%s' to %" PRIu64 " bytes",
                     options->filename, options->size);
        return false;
    }
    return true;
}

static void
run_open(void *arg)
{
    Create *self = arg;

    self->failed = !open_file(self);
}

static void
run_empty(void *arg)
{
    Create *self = arg;

    self->failed =
        !file_lock_to_create(self->fd, self->options->filename, &self->error) ||
        !empty_file(self);
}

/* On main. A node without users has no locks. */
static void
check_no_node(void *arg)
{
    Create *self = arg;
    const BfNode *node =
        bf_graph_find_on_file(self->graph, self->device, self->inode);

    self->failed = node != NULL;
    if (node != NULL) {
        bf_set_error(&self->error,
                     "'%s' is in use by node '%s'; give another path or remove "
                     "that node first",
                     self->options->filename, bf_node_name(node));
    }
}

static void
run_close(void *arg)
{
    Create *self = arg;

    if (self->failed && self->is_new) {
        unlink(self->options->filename);
    }
    if (self->fd >= 0) {
        close(self->fd);
    }
}

static int
co_write_zeroes(int fd, uint64_t offset, size_t bytes, void *zeroes)
{
    while (bytes > 0) {
        const struct iovec iov = {.iov_base = zeroes, .iov_len = bytes};
        ssize_t n = bf_co_writev(fd, &iov, 1, offset, 0, BF_CO_IO_ON_WORKER);

        if (n <= 0) {
            return n < 0 ? (int)n : -EIO;
        }
        offset += (uint64_t)n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* Gives the file its space; stops between two portions if the job shall end. */
static int
co_preallocate(BfJob *job, const Create *self, bool write)
{
    const uint64_t size = self->options->size;
    g_autofree void *zeroes = write ? g_malloc0(WRITE_BYTES) : NULL;
    uint64_t offset = 0;

    while (offset < size) {
        uint64_t n = MIN(size - offset, write ? WRITE_BYTES : ALLOCATE_BYTES);
        int ret = 0;

        if (!bf_job_co_pause_point(job)) {
            return -ECANCELED;
        }
        ret = write ? co_write_zeroes(self->fd, offset, n, zeroes)
                    : bf_co_fallocate(self->fd, 0, offset, n);
        if (ret == -EOPNOTSUPP && !write) {
            return co_preallocate(job, self, true);
        }
        if (ret < 0) {
            return ret;
        }
        if (offset >= bf_atomic_load(&job->done)) {
            bf_job_add_done(job, n);
        }
        offset += n;
    }
    return bf_co_fdatasync(self->fd);
}

static bool
check_options(const BfBlockdevCreateOptionsFile *options, GError **error)
{
    if (g_str_has_prefix(options->filename, FDSET_PREFIX)) {
        bf_set_error(error,
                     "'%s' is a descriptor that is open already; give the path "
                     "of the image to create",
                     options->filename);
        return false;
    }
    if (options->preallocation == BF_PREALLOC_MODE_METADATA) {
        bf_set_error(error, "Unsupported preallocation mode: metadata");
        return false;
    }
    return true;
}

static bool
co_fill(BfJob *job, Create *self, GError **error)
{
    int ret = 0;

    if (self->options->preallocation != BF_PREALLOC_MODE_OFF) {
        ret = co_preallocate(
            job, self, self->options->preallocation == BF_PREALLOC_MODE_FULL);
    }
    if (ret < 0 && ret != -ECANCELED) {
        bf_set_errno(error, -ret, "Could not preallocate data for '%s'",
                     self->options->filename);
    }
    return ret == 0;
}

/* Opens and empties it, if nobody uses it. */
static void
co_prepare(BfPoolLane *lane, Create *self)
{
    bf_co_offload(lane, run_open, self);
    if (!self->failed) {
        bf_co_call(bf_loop_get_main(bf_loop_self()), check_no_node, self);
    }
    if (!self->failed) {
        bf_co_offload(lane, run_empty, self);
    }
}

bool
file_co_create(BfGraph *graph, BfJob *job,
               const BfBlockdevCreateOptions *options, GError **error)
{
    g_autoptr(BfPoolLane) lane = bf_pool_lane_new("file-create", 1);
    Create self = {.options = options->u.file, .graph = graph, .fd = -1};
    const bool fills = self.options->preallocation != BF_PREALLOC_MODE_OFF;

    if (!check_options(self.options, error)) {
        return false;
    }
    g_assert(job != NULL || !fills);
    if (job != NULL) {
        bf_job_set_remaining(job, fills ? self.options->size : 1);
    }
    co_prepare(lane, &self);
    if (self.error != NULL) {
        g_propagate_error(error, self.error);
    } else {
        self.failed = !co_fill(job, &self, error);
    }
    bf_co_offload(lane, run_close, &self);
    if (!self.failed && !fills && job != NULL) {
        bf_job_add_done(job, 1);
    }
    return !self.failed;
}
