/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests to a node. The first function of each kind is the short way of an
 * aligned request on a plain node; everything rare is in functions of its own.
 *
 * Where a node's alignment is above 1, every change runs on the home loop and
 * is tracked, oldest first: a read-modify-write waits for all older changes
 * that overlap, and all younger ones wait for it. Waiting only for older ones
 * makes a circle impossible.
 */
#include "block/request.h"

#include "block/bitmap.h"
#include "core/util.h"
#include "stats-private.h"

/* Most memory that one unaligned request or zero fallback takes. */
#define BOUNCE_MAX (1 * BF_MIB)

/* A change under way on a node with an alignment above 1. */
struct BfTracked {
    BfTracked *younger;
    BfTracked *older;
    uint64_t start;
    uint64_t end;
    bool exclusive; /* reads and writes back what it does not own */
    BfCoQueue waiters;
};

static inline bool
is_aligned(const BfNode *node, uint64_t offset, uint64_t bytes)
{
    return ((offset | bytes) & (node->alignment - 1)) == 0;
}

/* BfNode.tracked is the youngest; the list goes on by ->older. Its members lie
 * on stacks far apart, so it is walked only if there is something to find. */
static BfTracked *
find_older_conflict(const BfNode *node, const BfTracked *t)
{
    if (G_LIKELY(node->n_exclusive == 0)) {
        return NULL;
    }
    for (BfTracked *o = t->older; o != NULL; o = o->older) {
        if ((t->exclusive || o->exclusive) && o->start < t->end &&
            t->start < o->end) {
            return o;
        }
    }
    return NULL;
}

static void
track_co_begin(BfNode *node, BfTracked *t, uint64_t offset, uint64_t bytes)
{
    BfTracked *conflict;

    bf_assert_loop(node->home);
    *t = (BfTracked){
        .start = bf_align_down(offset, node->alignment),
        .end = bf_align_up(offset + bytes, node->alignment),
        .exclusive = !is_aligned(node, offset, bytes),
        .older = node->tracked,
    };
    if (t->older != NULL) {
        t->older->younger = t;
    }
    node->tracked = t;
    node->n_exclusive += t->exclusive;
    while ((conflict = find_older_conflict(node, t)) != NULL) {
        bf_co_queue_co_wait(&conflict->waiters);
    }
}

static void
track_end(BfNode *node, BfTracked *t)
{
    node->n_exclusive -= t->exclusive;
    if (t->younger != NULL) {
        t->younger->older = t->older;
    } else {
        node->tracked = t->older;
    }
    if (t->older != NULL) {
        t->older->younger = t->younger;
    }
    bf_co_queue_wake_all(&t->waiters);
}

static inline bool
is_unmarked(const BfBitmap *bitmap, BfIoFlags flags)
{
    return (flags & BF_IO_UNMARKED) != 0 && bf_bitmap_is_filtered(bitmap);
}

static inline void
mark_dirty(BfNode *node, uint64_t offset, uint64_t bytes, BfIoFlags flags)
{
    if (G_LIKELY(node->n_bitmaps == 0)) {
        return;
    }
    for (unsigned i = 0; i < node->n_bitmaps; i++) {
        if (!is_unmarked(node->bitmaps[i], flags)) {
            bf_bitmap_set(node->bitmaps[i], offset, bytes);
        }
    }
}

/*
 * After the change: who has taken the mark while it was under way (a job that
 * copies) may have read old data. Failed changes may have done a part.
 */
static inline void
mark_dirty_again(BfNode *node, uint64_t offset, uint64_t bytes, BfIoFlags flags)
{
    if (G_LIKELY(node->n_bitmaps == 0)) {
        return;
    }
    for (unsigned i = 0; i < node->n_bitmaps; i++) {
        if (!is_unmarked(node->bitmaps[i], flags)) {
            bf_bitmap_set_after(node->bitmaps[i], offset, bytes);
        }
    }
}

/* One aligned piece of an unaligned read: through @buf. */
static int
co_read_bounced(BfNode *node, void *buf, uint64_t offset, BfIoVec *vec,
                size_t done, size_t bytes)
{
    uint64_t start = bf_align_down(offset, node->alignment);
    uint64_t end = bf_align_up(offset + bytes, node->alignment);
    BfIoVec bounce;
    int ret;

    bf_iovec_init_buf(&bounce, buf, end - start);
    ret = node->driver->co_read(node, start, &bounce, 0);
    if (ret == 0) {
        bf_iovec_write(vec, done, (char *)buf + (offset - start), bytes);
    }
    return ret;
}

/* The most bytes of a bounced piece that starts at @offset. */
static size_t
bounce_piece(const BfNode *node, uint64_t offset, size_t bytes)
{
    size_t max = BOUNCE_MAX;

    if (node->limits.max_transfer != 0) {
        max = MIN(max, node->limits.max_transfer);
    }
    return MIN(bytes, max - (offset & (node->alignment - 1)));
}

static size_t
bounce_size(const BfNode *node, uint64_t offset, size_t bytes)
{
    uint64_t start = bf_align_down(offset, node->alignment);

    return MIN(BOUNCE_MAX,
               bf_align_up(offset + bytes, node->alignment) - start);
}

static int
co_read_unaligned(BfNode *node, uint64_t offset, BfIoVec *vec)
{
    size_t buf_size = bounce_size(node, offset, vec->bytes);
    void *buf = bf_buffer_new(buf_size);
    size_t done = 0;
    int ret = 0;

    if (buf == NULL) {
        return -ENOMEM;
    }
    while (ret == 0 && done < vec->bytes) {
        size_t n = bounce_piece(node, offset + done, vec->bytes - done);

        ret = co_read_bounced(node, buf, offset + done, vec, done, n);
        done += n;
    }
    bf_buffer_free(buf, buf_size);
    return ret;
}

static int
co_read_split(BfNode *node, uint64_t offset, BfIoVec *vec)
{
    size_t done = 0;
    int ret = 0;

    while (ret == 0 && done < vec->bytes) {
        size_t n = MIN(vec->bytes - done, node->limits.max_transfer);
        BfIoVec part;

        bf_iovec_init_slice(&part, vec, done, n);
        ret = node->driver->co_read(node, offset + done, &part, 0);
        bf_iovec_clear(&part);
        done += n;
    }
    return ret;
}

static inline bool
fits_max_transfer(const BfNode *node, size_t bytes)
{
    return node->limits.max_transfer == 0 || bytes <= node->limits.max_transfer;
}

static inline int
co_read(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    if (G_UNLIKELY(!is_aligned(node, offset, vec->bytes))) {
        return co_read_unaligned(node, offset, vec);
    }
    if (G_UNLIKELY(!fits_max_transfer(node, vec->bytes))) {
        return co_read_split(node, offset, vec);
    }
    return node->driver->co_read(node, offset, vec, flags);
}

int
bf_node_co_read(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    const uint64_t bytes = vec->bytes;
    uint64_t begun_ns;
    int ret;

    if (G_UNLIKELY(!bf_range_fits(offset, bytes, node->size))) {
        return bf_stats_refused(node, BF_STATS_READ, -EINVAL);
    }
    if (G_UNLIKELY(bytes == 0)) {
        return 0;
    }
    begun_ns = bf_loop_now_ns();
    ret = co_read(node, offset, vec, flags);
    bf_stats_done(node, BF_STATS_READ, offset, bytes, begun_ns, ret);
    return ret;
}

/* Is the node open to changes, and is the range inside of it? */
static inline int
check_change(BfNode *node, BfStatsKind kind, uint64_t offset, uint64_t bytes)
{
    if (G_UNLIKELY(node->settings.read_only || !node->active)) {
        return bf_stats_refused(node, kind, -EPERM);
    }
    if (G_UNLIKELY(!bf_range_fits(offset, bytes, node->size))) {
        return bf_stats_refused(node, kind, -EINVAL);
    }
    return 0;
}

static int co_flush(BfNode *node);

/* A flush belongs behind a change whose driver has no FUA of its own. */
static int
co_finish_fua(BfNode *node, int ret, BfIoFlags flags)
{
    if (ret == 0 && (flags & BF_IO_FUA) != 0) {
        return co_flush(node);
    }
    return ret;
}

/* Fills the part of an aligned block that the request does not change. */
static int
co_read_block(BfNode *node, char *buf, uint64_t buf_start, uint64_t block)
{
    BfIoVec vec;

    bf_iovec_init_buf(&vec, buf + (block - buf_start), node->alignment);
    return node->driver->co_read(node, block, &vec, 0);
}

/* One aligned piece of an unaligned write; the range is held exclusively. */
static int
co_modify_bounced(BfNode *node, char *buf, uint64_t offset, const BfIoVec *vec,
                  size_t done, size_t bytes, BfIoFlags flags)
{
    uint64_t start = bf_align_down(offset, node->alignment);
    uint64_t end = bf_align_up(offset + bytes, node->alignment);
    uint64_t last = end - node->alignment;
    BfIoVec bounce;
    int ret = 0;

    if (offset > start) {
        ret = co_read_block(node, buf, start, start);
    }
    if (ret == 0 && offset + bytes < end && (last > start || offset == start)) {
        ret = co_read_block(node, buf, start, last);
    }
    if (ret < 0) {
        return ret;
    }
    if (vec != NULL) {
        bf_iovec_read(vec, done, buf + (offset - start), bytes);
    } else {
        memset(buf + (offset - start), 0, bytes);
    }
    bf_iovec_init_buf(&bounce, buf, end - start);
    return node->driver->co_write(node, start, &bounce, flags);
}

/* @vec NULL writes zeroes. The caller has tracked the range. */
static int
co_write_bounced(BfNode *node, uint64_t offset, const BfIoVec *vec,
                 uint64_t bytes, BfIoFlags flags)
{
    size_t buf_size = bounce_size(node, offset, MIN(bytes, BOUNCE_MAX));
    char *buf = bf_buffer_new(buf_size);
    uint64_t done = 0;
    int ret = 0;

    if (buf == NULL) {
        return -ENOMEM;
    }
    while (ret == 0 && done < bytes) {
        size_t n =
            bounce_piece(node, offset + done, MIN(bytes - done, BOUNCE_MAX));

        ret = co_modify_bounced(node, buf, offset + done, vec, done, n, flags);
        done += n;
    }
    bf_buffer_free(buf, buf_size);
    return ret;
}

static int
co_write_split(BfNode *node, uint64_t offset, const BfIoVec *vec,
               BfIoFlags flags)
{
    size_t done = 0;
    int ret = 0;

    while (ret == 0 && done < vec->bytes) {
        size_t n = MIN(vec->bytes - done, node->limits.max_transfer);
        BfIoVec part;

        bf_iovec_init_slice(&part, vec, done, n);
        ret = node->driver->co_write(node, offset + done, &part, flags);
        bf_iovec_clear(&part);
        done += n;
    }
    return ret;
}

/* Any data, on a node that tracks its changes. */
static int
co_write_tracked(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    BfTracked tracked;
    int ret;

    track_co_begin(node, &tracked, offset, vec->bytes);
    if (tracked.exclusive) {
        ret = co_write_bounced(node, offset, vec, vec->bytes, flags);
    } else if (!fits_max_transfer(node, vec->bytes)) {
        ret = co_write_split(node, offset, vec, flags);
    } else {
        ret = node->driver->co_write(node, offset, vec, flags);
    }
    track_end(node, &tracked);
    return ret;
}

static int
co_write_data(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    if (G_UNLIKELY(node->alignment > 1)) {
        return co_write_tracked(node, offset, vec, flags);
    }
    if (G_UNLIKELY(!fits_max_transfer(node, vec->bytes))) {
        return co_write_split(node, offset, vec, flags);
    }
    return node->driver->co_write(node, offset, vec, flags);
}

static int co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes,
                           BfIoFlags flags);

/* The range is checked and not empty, as in all that follow. */
static inline int
co_write(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    BfIoFlags passed = flags;
    int ret;

    mark_dirty(node, offset, vec->bytes, flags);
    if (G_UNLIKELY((flags & BF_IO_FUA) != 0 &&
                   (!node->driver->fua || node->limits.no_fua ||
                    node->settings.no_flush))) {
        passed &= ~(unsigned)BF_IO_FUA;
    } else {
        flags &= ~(unsigned)BF_IO_FUA;
    }
    if (G_UNLIKELY(node->settings.detect_zeroes !=
                   BF_BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF) &&
        bf_iovec_is_zero(vec)) {
        passed |= node->settings.detect_zeroes ==
                          BF_BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP
                      ? BF_IO_MAY_UNMAP
                      : 0;
        return co_write_zeroes(node, offset, vec->bytes, passed | flags);
    }
    ret = co_write_data(node, offset, vec, passed & ~BF_IO_UNMARKED);
    mark_dirty_again(node, offset, vec->bytes, flags);
    return G_LIKELY((flags & BF_IO_FUA) == 0) ? ret
                                              : co_finish_fua(node, ret, flags);
}

int
bf_node_co_write(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    const uint64_t bytes = vec->bytes;
    uint64_t begun_ns;
    int ret = check_change(node, BF_STATS_WRITE, offset, bytes);

    if (ret < 0 || bytes == 0) {
        return ret;
    }
    begun_ns = bf_loop_now_ns();
    ret = co_write(node, offset, vec, flags);
    bf_stats_done(node, BF_STATS_WRITE, offset, bytes, begun_ns, ret);
    return ret;
}

/* Writes a buffer of zeroes again and again. */
static int
co_write_zero_buffers(BfNode *node, uint64_t offset, uint64_t bytes,
                      BfIoFlags flags)
{
    size_t buf_size = MIN(bytes, BOUNCE_MAX);
    void *buf = bf_buffer_new(buf_size);
    int ret = 0;

    if (buf == NULL) {
        return -ENOMEM;
    }
    memset(buf, 0, buf_size);
    for (uint64_t done = 0; ret == 0 && done < bytes; done += buf_size) {
        BfIoVec vec;

        bf_iovec_init_buf(&vec, buf, MIN(bytes - done, buf_size));
        ret = co_write_data(node, offset + done, &vec, flags);
    }
    bf_buffer_free(buf, buf_size);
    return ret;
}

/* The aligned middle of a zero request, by the driver's own means. */
static int
co_zero_aligned(BfNode *node, uint64_t offset, uint64_t bytes, BfIoFlags flags)
{
    BfTracked tracked;
    int ret;

    if (node->alignment > 1) {
        track_co_begin(node, &tracked, offset, bytes);
    }
    ret = node->driver->co_write_zeroes(node, offset, bytes, flags);
    if (node->alignment > 1) {
        track_end(node, &tracked);
    }
    return ret;
}

static int
co_zero_range(BfNode *node, uint64_t offset, uint64_t bytes, BfIoFlags flags)
{
    uint64_t align = MAX(node->alignment, node->zero_alignment);
    uint64_t end = offset + bytes;
    uint64_t start = bf_align_up(offset, align);
    uint64_t stop = end == node->size ? end : bf_align_down(end, align);
    BfIoFlags fua = flags & BF_IO_FUA;
    int ret = -ENOTSUP;

    if (node->driver->co_write_zeroes != NULL && start < stop) {
        ret = co_zero_aligned(node, start, stop - start, flags);
    } else if (start >= stop) {
        /* Less than a block: writing it is as fast as it gets. */
        return co_write_zero_buffers(node, offset, bytes, fua);
    }
    if (ret == -ENOTSUP && (flags & BF_IO_NO_FALLBACK) == 0) {
        return co_write_zero_buffers(node, offset, bytes, fua);
    }
    if (ret == 0 && start > offset) {
        ret = co_write_zero_buffers(node, offset, start - offset, fua);
    }
    if (ret == 0 && end > stop) {
        ret = co_write_zero_buffers(node, stop, end - stop, fua);
    }
    return ret;
}

static int
co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes, BfIoFlags flags)
{
    BfIoFlags passed;
    int ret;

    mark_dirty(node, offset, bytes, flags);
    if (!node->settings.discard_unmap && (flags & BF_IO_MAY_UNMAP) != 0) {
        flags = (flags & ~(unsigned)BF_IO_MAY_UNMAP) | BF_IO_KEEP_HOLES;
    }
    passed = flags & ~(unsigned)BF_IO_UNMARKED;
    if (!node->driver->fua_zeroes || node->limits.no_fua ||
        node->settings.no_flush) {
        passed &= ~(unsigned)BF_IO_FUA;
    } else {
        flags &= ~(unsigned)BF_IO_FUA;
    }
    ret = co_zero_range(node, offset, bytes, passed);
    mark_dirty_again(node, offset, bytes, flags);
    return co_finish_fua(node, ret, flags);
}

int
bf_node_co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes,
                        BfIoFlags flags)
{
    uint64_t begun_ns;
    int ret = check_change(node, BF_STATS_WRITE, offset, bytes);

    if (ret < 0 || bytes == 0) {
        return ret;
    }
    begun_ns = bf_loop_now_ns();
    ret = co_write_zeroes(node, offset, bytes, flags);
    bf_stats_done(node, BF_STATS_WRITE, offset, bytes, begun_ns, ret);
    return ret;
}

/* A discard may do less than asked, so it shrinks to whole blocks. */
static int
co_discard_aligned(BfNode *node, uint64_t offset, uint64_t bytes)
{
    uint64_t align = MAX(node->alignment, node->discard_alignment);
    uint64_t end = offset + bytes;
    uint64_t start = bf_align_up(offset, align);
    BfTracked tracked;
    int ret;

    if (end != node->size) {
        end = bf_align_down(end, align);
    }
    if (start >= end) {
        return 0;
    }
    if (node->alignment > 1) {
        track_co_begin(node, &tracked, start, end - start);
    }
    ret = node->driver->co_discard(node, start, end - start);
    if (node->alignment > 1) {
        track_end(node, &tracked);
    }
    return ret == -ENOTSUP ? 0 : ret;
}

static int
co_discard(BfNode *node, uint64_t offset, uint64_t bytes, BfIoFlags flags)
{
    int ret;

    mark_dirty(node, offset, bytes, flags);
    ret = co_discard_aligned(node, offset, bytes);
    mark_dirty_again(node, offset, bytes, flags);
    return co_finish_fua(node, ret, flags);
}

int
bf_node_co_discard(BfNode *node, uint64_t offset, uint64_t bytes,
                   BfIoFlags flags)
{
    const bool drop =
        !node->settings.discard_unmap || node->driver->co_discard == NULL;
    uint64_t begun_ns;
    int ret = check_change(node, BF_STATS_UNMAP, offset, bytes);

    if (ret < 0 || bytes == 0) {
        return ret;
    }
    begun_ns = bf_loop_now_ns();
    ret = drop ? co_finish_fua(node, 0, flags)
               : co_discard(node, offset, bytes, flags);
    bf_stats_done(node, drop ? BF_STATS_UNMAP_DROPPED : BF_STATS_UNMAP, offset,
                  bytes, begun_ns, ret);
    return ret;
}

static int
co_flush(BfNode *node)
{
    /* An inactive node's data belongs to another process by now. */
    if (node->settings.no_flush || !node->active ||
        node->driver->co_flush == NULL) {
        return 0;
    }
    return node->driver->co_flush(node);
}

/* Widens a range to whole blocks, as far as the node goes. */
static void
widen(const BfNode *node, uint64_t *offset, uint64_t *bytes)
{
    uint64_t end = bf_align_up(*offset + *bytes, node->alignment);

    *offset = bf_align_down(*offset, node->alignment);
    *bytes = MIN(end, node->size) - *offset;
}

/* Adds what of @wide lies behind its first @skip bytes, @bytes at most. */
static void
add_part(BfExtents *extents, const BfExtents *wide, uint64_t skip,
         uint64_t bytes)
{
    for (size_t i = 0; i < wide->len && bytes > 0; i++) {
        uint64_t n = wide->items[i].bytes;

        if (n <= skip) {
            skip -= n;
            continue;
        }
        n = MIN(n - skip, bytes);
        skip = 0;
        bytes -= n;
        if (!bf_extents_append(extents, n, wide->items[i].flags)) {
            return;
        }
    }
}

/* Storage is asked for whole blocks only. */
static int
co_extents_unaligned(BfNode *node, uint64_t offset, uint64_t bytes,
                     BfExtents *extents)
{
    uint64_t start = offset;
    uint64_t length = bytes;
    BfExtents wide;
    int ret;

    widen(node, &start, &length);
    bf_extents_init(&wide, extents->max);
    ret = node->driver->co_extents(node, start, length, &wide);
    if (ret == 0 && wide.bytes <= offset - start) {
        /* Less than the block; it has to be data then. */
        bf_extents_append(extents, MIN(bytes, start + node->alignment - offset),
                          0);
    } else if (ret == 0) {
        add_part(extents, &wide, offset - start, bytes);
    }
    bf_extents_clear(&wide);
    return ret;
}

int
bf_node_co_flush(BfNode *node)
{
    const uint64_t begun_ns = bf_loop_now_ns();
    int ret = co_flush(node);

    bf_stats_done(node, BF_STATS_FLUSH, 0, 0, begun_ns, ret);
    return ret;
}

int
bf_node_co_extents(BfNode *node, uint64_t offset, uint64_t bytes,
                   BfExtents *extents)
{
    if (bytes == 0 || !bf_range_fits(offset, bytes, node->size)) {
        return -EINVAL;
    }
    if (node->driver->co_extents == NULL) {
        bf_extents_append(extents, bytes, 0);
        return 0;
    }
    if (G_UNLIKELY(!is_aligned(node, offset, bytes))) {
        return co_extents_unaligned(node, offset, bytes, extents);
    }
    return node->driver->co_extents(node, offset, bytes, extents);
}

int
bf_node_co_cache(BfNode *node, uint64_t offset, uint64_t bytes)
{
    if (!bf_range_fits(offset, bytes, node->size)) {
        return -EINVAL;
    }
    if (node->driver->co_cache == NULL || bytes == 0) {
        return 0;
    }
    widen(node, &offset, &bytes);
    return node->driver->co_cache(node, offset, bytes);
}

int
bf_node_co_read_pipe(BfNode *node, uint64_t offset, uint64_t bytes, int pipe_fd)
{
    uint64_t begun_ns;
    int ret;

    if (!bf_range_fits(offset, bytes, node->size)) {
        return bf_stats_refused(node, BF_STATS_READ, -EINVAL);
    }
    if (node->driver->co_read_pipe == NULL || bytes == 0 ||
        !is_aligned(node, offset, bytes)) {
        return -EOPNOTSUPP;
    }
    begun_ns = bf_loop_now_ns();
    ret = node->driver->co_read_pipe(node, offset, bytes, pipe_fd);
    bf_stats_done(node, BF_STATS_READ, offset, bytes, begun_ns, ret);
    return ret;
}

int
bf_node_co_write_pipe(BfNode *node, uint64_t offset, uint64_t bytes,
                      int pipe_fd)
{
    uint64_t begun_ns;
    int ret = check_change(node, BF_STATS_WRITE, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    if (node->driver->co_write_pipe == NULL || bytes == 0 ||
        node->alignment > 1 || !fits_max_transfer(node, bytes) ||
        node->settings.detect_zeroes != BF_BLOCKDEV_DETECT_ZEROES_OPTIONS_OFF) {
        return -EOPNOTSUPP;
    }
    begun_ns = bf_loop_now_ns();
    mark_dirty(node, offset, bytes, 0);
    ret = node->driver->co_write_pipe(node, offset, bytes, pipe_fd);
    mark_dirty_again(node, offset, bytes, 0);
    bf_stats_done(node, BF_STATS_WRITE, offset, bytes, begun_ns, ret);
    return ret;
}
