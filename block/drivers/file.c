/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * file and host_device: data operations. What the page cache can answer is done
 * inline, everything else goes through the loop's io_uring; a loop must never
 * wait for storage. Fields are read by all loops and change while drained;
 * what is learnt on the way is in relaxed atomics.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "block/request.h"
#include "core/co-io.h"
#include "core/util.h"
#include "file-private.h"

/* Larger buffered writes go through the ring, where they do not hold up
 * others. */
#define INLINE_WRITE_MAX (1 * BF_MIB)

#define CACHE_PAGE 4096

/* Memory for one piece of a request whose buffers O_DIRECT does not take. */
#define BOUNCE_MAX (1 * BF_MIB)

#ifndef SYS_cachestat
#define SYS_cachestat 451 /* the same on all architectures; Linux 6.5 */
#endif

/* include/uapi/linux/mman.h */
struct cachestat_range {
    uint64_t off;
    uint64_t len;
};

struct cachestat_result {
    uint64_t nr_cache;
    uint64_t nr_dirty;
    uint64_t nr_writeback;
    uint64_t nr_evicted;
    uint64_t nr_recently_evicted;
};

/* Only file systems that are known to be local keep the promise not to wait. */
static inline BfCoIoFlags
ring_flags(const BfFileNode *self)
{
    return self->desc.local ? 0 : BF_CO_IO_ON_WORKER;
}

/* Reading. */

/* The rest of a read, from @done on, by the ring. */
static int
co_read_ring(BfFileNode *self, uint64_t offset, BfIoVec *vec, size_t done)
{
    while (done < vec->bytes) {
        BfIoVec rest;
        ssize_t n;

        bf_iovec_init_slice(&rest, vec, done, vec->bytes - done);
        n = bf_co_readv(self->desc.fd, rest.iov, rest.niov, offset + done,
                        ring_flags(self));
        bf_iovec_clear(&rest);
        if (n < 0) {
            return (int)n;
        }
        done += (size_t)n;
        /* A direct read that ends inside a block has met the end. */
        if (n == 0 || (self->desc.direct && done % self->desc.align != 0)) {
            bf_iovec_fill(vec, done, vec->bytes - done, 0);
            return 0;
        }
    }
    return 0;
}

static int
co_read_bounced(BfFileNode *self, uint64_t offset, BfIoVec *vec)
{
    size_t size = MIN(vec->bytes, BOUNCE_MAX);
    void *buf = bf_buffer_new(size);
    int ret = 0;

    if (buf == NULL) {
        return -ENOMEM;
    }
    for (size_t done = 0; ret == 0 && done < vec->bytes; done += size) {
        size_t n = MIN(size, vec->bytes - done);
        BfIoVec piece;

        bf_iovec_init_buf(&piece, buf, n);
        ret = co_read_ring(self, offset + done, &piece, 0);
        if (ret == 0) {
            bf_iovec_write(vec, done, buf, n);
        }
    }
    bf_buffer_free(buf, size);
    return ret;
}

static int
file_co_read(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    BfFileNode *self = (BfFileNode *)node;
    ssize_t n;

    if (G_UNLIKELY(self->desc.direct)) {
        return bf_iovec_is_aligned(vec, self->desc.buffer_align)
                   ? co_read_ring(self, offset, vec, 0)
                   : co_read_bounced(self, offset, vec);
    }
    if (G_UNLIKELY(!self->desc.local ||
                   bf_atomic_load(&self->no_nowait) != 0)) {
        if (!self->desc.in_memory) {
            return co_read_ring(self, offset, vec, 0);
        }
        n = preadv(self->desc.fd, vec->iov, vec->niov, (off_t)offset);
    } else {
        n = preadv2(self->desc.fd, vec->iov, vec->niov, (off_t)offset,
                    RWF_NOWAIT);
    }
    if (G_LIKELY(n == (ssize_t)vec->bytes)) {
        return 0;
    }
    if (n < 0 && errno == EOPNOTSUPP) {
        bf_atomic_store(&self->no_nowait, 1);
    }
    /* An error comes up again, from the ring. */
    return co_read_ring(self, offset, vec, n > 0 ? (size_t)n : 0);
}

/* Writing. */

static void
truncate_tail(void *arg)
{
    const BfFileNode *self = arg;

    /* Nothing is lost if this fails: the bytes behind the end are zeroes. */
    if (ftruncate(self->desc.fd, (off_t)self->base.size) < 0) {
        return;
    }
}

/* The rest of a write, from @done on, by the ring. */
static int
co_write_ring(BfFileNode *self, uint64_t offset, const BfIoVec *vec,
              size_t done, int rw_flags)
{
    while (done < vec->bytes) {
        BfIoVec rest;
        ssize_t n;

        bf_iovec_init_slice(&rest, vec, done, vec->bytes - done);
        bf_atomic_add(&self->pace.elsewhere, 1);
        n = bf_co_writev(self->desc.fd, rest.iov, rest.niov, offset + done,
                         rw_flags, ring_flags(self));
        bf_atomic_add(&self->pace.elsewhere, UINT64_MAX);
        bf_iovec_clear(&rest);
        if (n <= 0) {
            /* A sync's error is told once only; see file_co_flush(). */
            if (n == -EIO && rw_flags != 0) {
                bf_atomic_store(&self->flush_error, EIO);
            }
            return n < 0 ? (int)n : -ENOSPC;
        }
        done += (size_t)n;
    }
    return 0;
}

static int
co_write_bounced(BfFileNode *self, uint64_t offset, const BfIoVec *vec,
                 int rw_flags)
{
    size_t size = MIN(vec->bytes, BOUNCE_MAX);
    void *buf = bf_buffer_new(size);
    int ret = 0;

    if (buf == NULL) {
        return -ENOMEM;
    }
    for (size_t done = 0; ret == 0 && done < vec->bytes; done += size) {
        size_t n = MIN(size, vec->bytes - done);
        BfIoVec piece;

        bf_iovec_read(vec, done, buf, n);
        bf_iovec_init_buf(&piece, buf, n);
        ret = co_write_ring(self, offset + done, &piece, 0, rw_flags);
    }
    bf_buffer_free(buf, size);
    return ret;
}

static int
co_write_direct(BfFileNode *self, uint64_t offset, const BfIoVec *vec,
                int rw_flags)
{
    int ret = bf_iovec_is_aligned(vec, self->desc.buffer_align)
                  ? co_write_ring(self, offset, vec, 0, rw_flags)
                  : co_write_bounced(self, offset, vec, rw_flags);

    if (ret == 0 && offset + vec->bytes > self->base.size) {
        /* The padding of the last block must not make the disk grow. */
        bf_node_co_offload(&self->base, truncate_tail, self);
    }
    return ret;
}

/*
 * Whole pages only: a part of a page that is not cached would have to be read
 * first. Returns the time, or 0 if the write is not for now or not inline.
 */
static inline uint64_t
may_write_inline(const BfFileNode *self, uint64_t offset, size_t bytes)
{
    uint64_t now_ns;

    if (!self->desc.local || self->desc.kind != FILE_REGULAR ||
        bytes > INLINE_WRITE_MAX ||
        ((offset | bytes) & (CACHE_PAGE - 1)) != 0) {
        return 0;
    }
    now_ns = bf_loop_now_ns();
    return bf_file_pace_allows(&self->pace, now_ns) ? now_ns : 0;
}

/* How often this thread has given up the processor in order to wait. */
static long
count_waits(void)
{
    struct rusage usage;

    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;
}

/* An inline write, and what was counted when it began. */
typedef struct InlineWrite {
    BfFileTurn turn;
    long waits;
} InlineWrite;

static inline void
inline_begin(const BfFileNode *self, InlineWrite *inl, uint64_t start_ns)
{
    inl->turn = bf_file_pace_begin(&self->pace, start_ns);
    inl->waits = inl->turn.watch ? count_waits() : 0;
}

static inline void
inline_end(BfFileNode *self, const InlineWrite *inl)
{
    uint64_t end_ns = bf_loop_now_ns();

    if (G_UNLIKELY(bf_file_pace_is_slow(&inl->turn, end_ns)) &&
        !self->desc.in_memory) {
        bf_file_pace_judge(&self->pace, &inl->turn, end_ns,
                           inl->turn.watch ? count_waits() - inl->waits : 0);
    }
    bf_file_pace_note_end(&self->pace, end_ns);
}

/* Returns bytes written, or 0. */
static size_t
write_inline(BfFileNode *self, uint64_t offset, const BfIoVec *vec,
             uint64_t start_ns)
{
    InlineWrite inl;
    ssize_t n;

    inline_begin(self, &inl, start_ns);
    n = pwritev(self->desc.fd, vec->iov, vec->niov, (off_t)offset);
    inline_end(self, &inl);
    return n > 0 ? (size_t)n : 0; /* an error comes up again, from the ring */
}

static int
file_co_write(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    BfFileNode *self = (BfFileNode *)node;
    int rw_flags = (flags & BF_IO_FUA) != 0 ? RWF_DSYNC : 0;
    size_t done = 0;
    uint64_t start_ns;

    if (G_UNLIKELY(self->desc.direct)) {
        return co_write_direct(self, offset, vec, rw_flags);
    }
    start_ns = rw_flags == 0 ? may_write_inline(self, offset, vec->bytes) : 0;
    if (start_ns != 0) {
        done = write_inline(self, offset, vec, start_ns);
        if (G_LIKELY(done == vec->bytes)) {
            return 0;
        }
    }
    return co_write_ring(self, offset, vec, done, rw_flags);
}

/*
 * When a flush fails, the kernel drops the error once it was reported, and it
 * may have dropped the pages as well, so that the next flush would succeed
 * although data is missing. Who asks again must not be told that all is well;
 * only opening the file anew, by a decision of the administrator, ends this.
 */
static int
file_co_flush(BfNode *node)
{
    BfFileNode *self = (BfFileNode *)node;
    uint64_t old = bf_atomic_load(&self->flush_error);
    int ret;

    if (old != 0) {
        return -(int)old;
    }
    if (self->desc.fd < 0 || !self->desc.writable) {
        return 0;
    }
    ret = bf_co_fdatasync(self->desc.fd);
    if (self->desc.kind == FILE_CHAR && (ret == -EINVAL || ret == -EROFS)) {
        return 0; /* a device without a cache */
    }
    if (ret < 0) {
        bf_atomic_store(&self->flush_error, (uint64_t)-ret);
    }
    return ret;
}

/* Zeroes and discard. */

static bool
is_unsupported(int ret)
{
    return ret == -EOPNOTSUPP || ret == -ENOSYS || ret == -ENOTTY ||
           ret == -ENODEV;
}

/* fallocate(), unless @unsupported says that it does not know @mode. */
static int
co_try_fallocate(BfFileNode *self, BfAtomicU64 *unsupported, int mode,
                 uint64_t offset, uint64_t bytes)
{
    int ret;

    if (bf_atomic_load(unsupported) != 0) {
        return -ENOTSUP;
    }
    ret = bf_co_fallocate(self->desc.fd, mode, offset, bytes);
    if (is_unsupported(ret)) {
        bf_atomic_store(unsupported, 1);
        return -ENOTSUP;
    }
    return ret;
}

static int
co_punch(BfFileNode *self, uint64_t offset, uint64_t bytes)
{
    return co_try_fallocate(self, &self->no_punch,
                            FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset,
                            bytes);
}

/* Zeroes @bytes at @offset, with room for them. */
static int
co_zero_allocated(BfFileNode *self, uint64_t offset, uint64_t bytes,
                  BfIoFlags flags)
{
    int ret = -ENOTSUP;

    /* Block devices without a command for it would be written by the kernel:
     * right, but not fast. */
    if (self->desc.kind == FILE_REGULAR || (flags & BF_IO_NO_FALLBACK) == 0) {
        ret = co_try_fallocate(self, &self->no_zero_range, FALLOC_FL_ZERO_RANGE,
                               offset, bytes);
    }
    if (ret == -ENOTSUP && self->desc.kind == FILE_REGULAR) {
        /* tmpfs and others: a hole, and room for it again. */
        ret = co_punch(self, offset, bytes);
        if (ret == 0) {
            ret = bf_co_fallocate(self->desc.fd, 0, offset, bytes);
            ret = is_unsupported(ret) ? 0 : ret;
        }
    }
    return ret;
}

/* Out: the first data in [@pos, @end); where nothing can be known, all is. */
typedef struct DataCall {
    int fd;
    uint64_t pos;
    uint64_t end;
    uint64_t data_end;
} DataCall;

static void
find_data(void *arg)
{
    DataCall *call = arg;
    off_t data = lseek(call->fd, (off_t)call->pos, SEEK_DATA);
    off_t hole = -1;

    if (data < 0 && errno == ENXIO) {
        call->pos = call->end;
    } else if (data >= (off_t)call->pos) {
        call->pos = MIN((uint64_t)data, call->end);
        hole = lseek(call->fd, data, SEEK_HOLE);
    }
    call->data_end =
        hole > (off_t)call->pos ? MIN((uint64_t)hole, call->end) : call->end;
}

/* Holes are zeroes already. */
static int
co_zero_data(BfNode *node, uint64_t offset, uint64_t bytes, BfIoFlags flags)
{
    BfFileNode *self = (BfFileNode *)node;
    DataCall call = {
        .fd = self->desc.fd,
        .pos = offset,
        .end = offset + bytes,
    };
    int ret = 0;

    while (ret == 0 && call.pos < call.end) {
        bf_node_co_offload(node, find_data, &call);
        if (call.pos < call.data_end) {
            ret = co_zero_allocated(self, call.pos, call.data_end - call.pos,
                                    flags);
        }
        call.pos = call.data_end;
    }
    return ret;
}

static int
file_co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes,
                     BfIoFlags flags)
{
    BfFileNode *self = (BfFileNode *)node;
    int ret = -ENOTSUP;

    if ((flags & BF_IO_MAY_UNMAP) != 0) {
        ret = co_punch(self, offset, bytes);
    } else if ((flags & BF_IO_KEEP_HOLES) != 0 &&
               self->desc.kind == FILE_REGULAR) {
        ret = co_zero_data(node, offset, bytes, flags);
    }
    return ret == -ENOTSUP ? co_zero_allocated(self, offset, bytes, flags)
                           : ret;
}

typedef struct DiscardCall {
    int fd;
    uint64_t range[2];
    int ret;
} DiscardCall;

static void
discard_device(void *arg)
{
    DiscardCall *call = arg;

    call->ret = ioctl(call->fd, BLKDISCARD, call->range) < 0 ? -errno : 0;
}

static int
file_co_discard(BfNode *node, uint64_t offset, uint64_t bytes)
{
    BfFileNode *self = (BfFileNode *)node;
    DiscardCall call = {.fd = self->desc.fd, .range = {offset, bytes}};

    if (self->desc.kind != FILE_BLOCK) {
        return co_punch(self, offset, bytes);
    }
    if (bf_atomic_load(&self->no_discard) != 0) {
        return -ENOTSUP;
    }
    bf_node_co_offload(node, discard_device, &call);
    if (is_unsupported(call.ret)) {
        bf_atomic_store(&self->no_discard, 1);
        return -ENOTSUP;
    }
    return call.ret;
}

/* Extents. */

typedef struct ExtentsCall {
    int fd;
    uint64_t offset;
    uint64_t bytes;
    uint64_t block; /* all of these are multiples of it */
    BfExtents *extents;
} ExtentsCall;

#define HOLE_FLAGS (BF_EXTENT_HOLE | BF_EXTENT_ZERO)

/*
 * Appends the hole and the data that begin at @pos. Returns where they end, or
 * @end if that is all there is to know. The file may change meanwhile, so no
 * answer of lseek() is taken to fit the one before. The file may end within a
 * block, which is data then.
 */
static uint64_t
append_hole_and_data(ExtentsCall *call, uint64_t pos, uint64_t end)
{
    off_t data = lseek(call->fd, (off_t)pos, SEEK_DATA);
    off_t hole = 0;
    uint64_t start = 0;
    uint64_t stop = 0;

    if (data < 0 && errno == ENXIO) {
        bf_extents_append(call->extents, end - pos, HOLE_FLAGS);
        return end;
    }
    if (data < 0 || (uint64_t)data < pos) {
        bf_extents_append(call->extents, end - pos, 0);
        return end;
    }
    data = MIN(data, (off_t)end);
    start = bf_align_down((uint64_t)data, call->block);
    if (!bf_extents_append(call->extents, start - pos, HOLE_FLAGS) ||
        start == end) {
        return end;
    }
    hole = lseek(call->fd, data, SEEK_HOLE);
    stop =
        hole <= data ? end : MIN(bf_align_up((uint64_t)hole, call->block), end);
    return bf_extents_append(call->extents, stop - start, 0) ? stop : end;
}

static void
seek_extents(void *arg)
{
    ExtentsCall *call = arg;
    uint64_t pos = call->offset;
    uint64_t end = call->offset + call->bytes;

    while (pos < end) {
        pos = append_hole_and_data(call, pos, end);
    }
}

static int
file_co_extents(BfNode *node, uint64_t offset, uint64_t bytes,
                BfExtents *extents)
{
    const BfFileNode *self = (const BfFileNode *)node;
    ExtentsCall call = {
        .fd = self->desc.fd,
        .offset = offset,
        .bytes = bytes,
        .block = node->alignment,
        .extents = extents,
    };

    if (self->desc.kind != FILE_REGULAR) {
        bf_extents_append(extents, bytes, 0);
        return 0;
    }
    bf_node_co_offload(node, seek_extents, &call);
    return 0;
}

/* Reading ahead, and reading without copying. */

typedef struct AdviseCall {
    int fd;
    uint64_t offset;
    uint64_t bytes;
} AdviseCall;

static void
advise_will_need(void *arg)
{
    const AdviseCall *call = arg;

    posix_fadvise(call->fd, (off_t)call->offset, (off_t)call->bytes,
                  POSIX_FADV_WILLNEED);
}

static int
file_co_cache(BfNode *node, uint64_t offset, uint64_t bytes)
{
    const BfFileNode *self = (const BfFileNode *)node;
    AdviseCall call = {self->desc.fd, offset, bytes};

    if (!self->desc.direct) {
        bf_node_co_offload(node, advise_will_need, &call);
    }
    return 0;
}

/* Is the last byte readable at once? Then read-ahead has got there. */
static bool
is_byte_cached(const BfFileNode *self, uint64_t offset)
{
    char byte;
    struct iovec iov = {&byte, 1};

    return preadv2(self->desc.fd, &iov, 1, (off_t)offset, RWF_NOWAIT) == 1;
}

/* 1: all of it is in the page cache; 0: not; or -errno: cannot tell. */
static int
ask_page_cache(BfFileNode *self, uint64_t offset, uint64_t bytes)
{
    struct cachestat_range range = {offset, bytes};
    struct cachestat_result result;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t pages =
        (bf_align_up(offset + bytes, page) - bf_align_down(offset, page)) /
        page;

    if (bf_atomic_load(&self->no_cachestat) != 0) {
        return -ENOSYS;
    }
    if (syscall(SYS_cachestat, self->desc.fd, &range, &result, 0) < 0) {
        bf_atomic_store(&self->no_cachestat, 1);
        return -errno;
    }
    return result.nr_cache >= pages &&
           (self->desc.in_memory || is_byte_cached(self, offset + bytes - 1));
}

static ssize_t
co_splice_some(BfFileNode *self, bool inline_call, uint64_t offset,
               uint64_t bytes, int pipe_fd)
{
    off_t pos = (off_t)offset;
    ssize_t n;

    if (!inline_call) {
        return bf_co_splice(self->desc.fd, pos, pipe_fd, -1, (unsigned)bytes,
                            SPLICE_F_NONBLOCK);
    }
    do {
        n = splice(self->desc.fd, &pos, pipe_fd, NULL, bytes,
                   SPLICE_F_NONBLOCK);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/*
 * The loop does it itself if no page has to be read first; a kernel that
 * cannot tell does it on a thread of its own. A range that is not cached is
 * better read into buffers, because the kernel then knows all that is wanted.
 */
static int
file_co_read_pipe(BfNode *node, uint64_t offset, uint64_t bytes, int pipe_fd)
{
    BfFileNode *self = (BfFileNode *)node;
    uint64_t done = 0;
    int cached;

    if (self->desc.direct || self->desc.kind == FILE_CHAR ||
        !self->desc.local || bytes > G_MAXINT ||
        !bf_range_fits(offset, bytes, self->desc.size)) {
        return -EOPNOTSUPP;
    }
    cached = ask_page_cache(self, offset, bytes);
    if (cached == 0) {
        return -EOPNOTSUPP;
    }
    while (done < bytes) {
        ssize_t n = co_splice_some(self, cached > 0, offset + done,
                                   bytes - done, pipe_fd);

        if (n < 0) {
            return done == 0 && n == -EINVAL ? -EOPNOTSUPP : (int)n;
        }
        if (n == 0) {
            return -EIO; /* the file has become shorter */
        }
        done += (uint64_t)n;
    }
    return 0;
}

/* Writes all that is in the pipe. The kernel takes only what it has written
 * off the pipe. */
static int
splice_inline(const BfFileNode *self, uint64_t offset, uint64_t bytes,
              int pipe_fd)
{
    off_t pos = (off_t)offset;
    uint64_t done = 0;

    while (done < bytes) {
        ssize_t n = splice(pipe_fd, NULL, self->desc.fd, &pos, bytes - done,
                           SPLICE_F_NONBLOCK);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return done == 0 && errno == EINVAL ? -EOPNOTSUPP : -errno;
        }
        if (n == 0) {
            return -EIO;
        }
        done += (uint64_t)n;
    }
    return 0;
}

/* Where an inline write would be right, so is this; the ring gains nothing by
 * it. */
static int
file_co_write_pipe(BfNode *node, uint64_t offset, uint64_t bytes, int pipe_fd)
{
    BfFileNode *self = (BfFileNode *)node;
    uint64_t start_ns =
        self->desc.direct ? 0 : may_write_inline(self, offset, bytes);
    InlineWrite inl;
    int ret;

    if (start_ns == 0) {
        return -EOPNOTSUPP;
    }
    inline_begin(self, &inl, start_ns);
    ret = splice_inline(self, offset, bytes, pipe_fd);
    inline_end(self, &inl);
    return ret;
}

/* What both kinds have in common: all but their names, and making images. */
#define FILE_DRIVER                                                            \
    .node_size = sizeof(BfFileNode),                                           \
    .any_loop = true, /* see the comment at the top */                         \
        .fixed_options = true, .close_flushes = true, .fua = true,             \
    .co_open = file_co_open, .co_close = file_co_close,                        \
    .co_read = file_co_read, .co_write = file_co_write,                        \
    .co_flush = file_co_flush, .co_write_zeroes = file_co_write_zeroes,        \
    .co_discard = file_co_discard, .co_extents = file_co_extents,              \
    .co_cache = file_co_cache, .co_read_pipe = file_co_read_pipe,              \
    .co_write_pipe = file_co_write_pipe, .co_resize = file_co_resize,          \
    .co_reopen_prepare = file_co_reopen_prepare,                               \
    .co_perm_prepare = file_co_perm_prepare,                                   \
    .co_perm_commit = file_co_perm_commit,                                     \
    .co_perm_abort = file_co_perm_abort, .co_invalidate = file_co_invalidate,  \
    .query = file_query

const BfDriver bf_driver_file = {
    .name = "file",
    .kind = BF_BLOCKDEV_DRIVER_FILE,
    .is_on_file = file_is_on_file,
    .co_create = file_co_create,
    FILE_DRIVER,
};

const BfDriver bf_driver_host_device = {
    .name = "host_device",
    .kind = BF_BLOCKDEV_DRIVER_HOST_DEVICE,
    FILE_DRIVER,
};
