/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mirror_top: the mirror job's filter above its source. It passes everything
 * on; in the mode write-blocking it sends writes to the job's loop, where they
 * go to both sides.
 *
 * There a write holds its range, so that no copy of older data can overtake it,
 * and its own marks are left out. What it covers is clean before it begins:
 * whoever writes there meanwhile, past the filter, marks it again.
 */
#include <errno.h>

#include "block/filter.h"
#include "block/request.h"
#include "core/util.h"
#include "mirror-private.h"

typedef struct BfMirrorTopNode {
    BfNode base;
    BfMirror *mirror; /* changes while drained */
} BfMirrorTopNode;

void
bf_mirror_top_set_job(BfNode *filter, BfMirror *mirror)
{
    ((BfMirrorTopNode *)filter)->mirror = mirror;
}

static BfNode *
top_copies_to(const BfNode *node)
{
    const BfMirror *mirror = ((const BfMirrorTopNode *)node)->mirror;

    return mirror != NULL ? mirror->target : NULL;
}

static bool
is_active(const BfNode *node)
{
    const BfMirror *mirror = ((const BfMirrorTopNode *)node)->mirror;

    return mirror != NULL && bf_atomic_load(&mirror->is_active) != 0;
}

static int
co_write_both(BfNode *node, uint64_t offset, uint64_t bytes, BfIoVec *vec,
              BfIoFlags flags)
{
    BfMirrorWrite write = {
        .mirror = ((BfMirrorTopNode *)node)->mirror,
        .offset = offset,
        .bytes = bytes,
        .vec = vec,
        .flags = flags,
    };

    bf_co_call(write.mirror->base.loop, bf_mirror_write_co_run, &write);
    return write.ret;
}

static int
top_co_write(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    return is_active(node) ? co_write_both(node, offset, vec->bytes, vec, flags)
                           : bf_node_co_write(node->file, offset, vec, flags);
}

static int
top_co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes,
                    BfIoFlags flags)
{
    return is_active(node)
               ? co_write_both(node, offset, bytes, NULL, flags)
               : bf_node_co_write_zeroes(node->file, offset, bytes, flags);
}

static int
top_co_write_pipe(BfNode *node, uint64_t offset, uint64_t bytes, int pipe_fd)
{
    return is_active(node)
               ? -EOPNOTSUPP
               : bf_node_co_write_pipe(node->file, offset, bytes, pipe_fd);
}

const BfDriver bf_driver_mirror_top = {
    .name = "mirror_top",
    .kind = (BfBlockdevDriver)-1, /* none that a user can ask for */
    .node_size = sizeof(BfMirrorTopNode),
    .any_loop = true, /* fields change only while drained */
    .close_flushes = true,
    .fua = true,
    .fua_zeroes = true,
    .is_filter = true,
    .co_read = bf_filter_co_read,
    .co_write = top_co_write,
    .co_flush = bf_filter_co_flush,
    .co_write_zeroes = top_co_write_zeroes,
    /* What is read afterwards is for the source to say; it is copied later. */
    .co_discard = bf_filter_co_discard,
    .co_extents = bf_filter_co_extents,
    .co_cache = bf_filter_co_cache,
    .co_read_pipe = bf_filter_co_read_pipe,
    .co_write_pipe = top_co_write_pipe,
    .refresh = bf_filter_refresh,
    .copies_to = top_copies_to,
};

/* Both sides; on the job's loop. */

typedef struct SourceWrite {
    BfMirrorWrite *write;
    BfIoFlags flags;
    int ret;
} SourceWrite;

static void
source_co_write(void *arg)
{
    SourceWrite *source = arg;
    BfMirrorWrite *w = source->write;
    BfNode *node = w->mirror->source;

    source->ret =
        w->vec != NULL
            ? bf_node_co_write(node, w->offset, w->vec, source->flags)
            : bf_node_co_write_zeroes(node, w->offset, w->bytes, source->flags);
}

static int
co_write_source(BfMirrorWrite *w, BfIoFlags flags)
{
    SourceWrite source = {.write = w, .flags = flags};
    BfNode *node = w->mirror->source;

    if (bf_node_writes_at_home(node) && node->home != w->mirror->base.loop) {
        bf_co_call(node->home, source_co_write, &source);
    } else {
        source_co_write(&source);
    }
    return source.ret;
}

static int
co_write_target(BfMirrorWrite *w)
{
    BfMirror *mirror = w->mirror;
    BfIoFlags flags = w->flags & BF_IO_FUA;

    if (w->vec != NULL) {
        bf_copy_note_written(mirror->copy, w->offset, w->bytes);
        bf_copy_charge(mirror->copy, w->bytes);
        return bf_handle_co_write(mirror->target_handle, w->offset, w->vec,
                                  flags);
    }
    if ((mirror->config.flags & BF_COPY_UNMAP) != 0) {
        flags |= w->flags & (BF_IO_MAY_UNMAP | BF_IO_KEEP_HOLES);
    }
    return bf_handle_co_write_zeroes(mirror->target_handle, w->offset, w->bytes,
                                     flags);
}

/* What the write replaces as a whole need not be copied any more. */
static void
clear_covered(const BfMirrorWrite *w)
{
    BfBitmap *dirty = w->mirror->dirty;
    uint64_t granularity = bf_bitmap_granularity(dirty);
    uint64_t end = w->offset + w->bytes;
    uint64_t start = bf_align_up(w->offset, granularity);

    if (end != bf_bitmap_size(dirty)) {
        end = bf_align_down(end, granularity);
    }
    if (start < end) {
        bf_bitmap_clear_range(dirty, start, end - start);
    }
}

static int
co_write_in_range(BfMirrorWrite *w)
{
    BfMirror *mirror = w->mirror;
    int ret, target_ret;

    if (bf_atomic_load(&mirror->is_active) == 0 ||
        bf_copy_has_error(mirror->copy)) {
        return co_write_source(w, w->flags);
    }
    clear_covered(w);
    bf_copy_hold_write(mirror->copy, w->bytes);
    ret = co_write_source(w, w->flags | BF_IO_UNMARKED);
    target_ret = ret == 0 ? co_write_target(w) : 0;
    if (ret < 0 || target_ret < 0) {
        bf_bitmap_put_back(mirror->dirty, w->offset, w->bytes);
    }
    bf_copy_let_write_go(mirror->copy, w->bytes, ret == 0 && target_ret == 0);
    if (target_ret < 0) {
        bf_copy_note_error(mirror->copy, -target_ret);
        if (mirror->is_running) {
            bf_job_kick(&mirror->base);
        }
    }
    return ret;
}

void
bf_mirror_write_co_run(void *arg)
{
    BfMirrorWrite *w = arg;
    BfCopyRange range;

    bf_copy_co_begin_range(w->mirror->copy, &range, w->offset, w->bytes);
    w->ret = co_write_in_range(w);
    bf_copy_end_range(w->mirror->copy, &range);
}
