/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * copy-before-write: before a change reaches its child, what the range held is
 * copied to a target, once for each cluster. So child and target together still
 * show the moment at which the filter was put in, which snapshot-access reads.
 *
 * All state belongs to the home loop. What is still to be copied is in @todo; a
 * copy takes its clusters from there before it begins and puts them back if it
 * fails, and whoever meets a copy under way waits for it. Copies of different
 * clusters run at the same time, as many as there is memory for.
 */
#include "copy-before-write-private.h"

#include <errno.h>
#include <inttypes.h>

#include "block/filter.h"
#include "block/graph.h"
#include "block/request.h"
#include "core/co-io.h"
#include "core/error.h"
#include "core/util.h"

/* Size of a cluster if neither the target nor the user wants a larger one. */
#define CLUSTER_DEFAULT 65536
#define CLUSTER_MAX (64 * BF_MIB)

/* Most bytes in one copy, unless a cluster is larger. */
#define COPY_MAX (1 * BF_MIB)

/* Most bytes that are being copied at once, unless a cluster is larger, and
 * most copies for one change, so that a large one does not starve others. */
#define COPYING_MAX (64 * BF_MIB)
#define CHANGE_COPIES_MAX 16

/* So often a change waits for a copy that its target loses again. */
#define COPY_TRIES 5

static void
range_add(BfCbwRange **list, BfCbwRange *range, uint64_t start, uint64_t end)
{
    *range = (BfCbwRange){.next = *list, .start = start, .end = end};
    *list = range;
}

static void
range_remove(BfCbwRange **list, BfCbwRange *range)
{
    while (*list != range) {
        list = &(*list)->next;
    }
    *list = range->next;
    bf_co_queue_wake_all(&range->waiters);
}

/* Waits until nothing in @list overlaps. Returns false if it never did. */
static bool
co_wait_range(BfCbwRange **list, uint64_t start, uint64_t end)
{
    BfCbwRange *range = *list;

    while (range != NULL && (range->start >= end || start >= range->end)) {
        range = range->next;
    }
    if (range == NULL) {
        return false;
    }
    bf_co_queue_co_wait(&range->waiters);
    return true;
}

/* --- Copying. --- */

static int
co_copy_data(BfCbwNode *self, void *buf, uint64_t offset, uint64_t bytes)
{
    BfIoVec vec;
    int ret;

    bf_iovec_init_buf(&vec, buf, bytes);
    ret = bf_node_co_read(self->base.file, offset, &vec, 0);
    if (ret < 0) {
        return ret;
    }
    return bf_iovec_is_zero(&vec)
               ? bf_node_co_write_zeroes(self->target, offset, bytes,
                                         BF_IO_MAY_UNMAP)
               : bf_node_co_write(self->target, offset, &vec, 0);
}

/* Copies whole clusters that were taken from @todo. */
static int
co_copy_taken(BfCbwNode *self, uint64_t offset, uint64_t bytes)
{
    void *buf = bf_buffer_new(bytes);
    BfCbwRange range;
    int ret;

    if (buf == NULL) {
        bf_bitmap_put_back(self->todo, offset, bytes);
        return -ENOMEM;
    }
    range_add(&self->copies, &range, offset, offset + bytes);
    self->copying += bytes;
    ret = co_copy_data(self, buf, offset, bytes);
    bf_cbw_look_for_loss(self);
    if (ret == 0 && !range.has_lost) {
        bf_cbw_note_copied(self, offset, bytes);
    } else {
        bf_bitmap_put_back(self->todo, offset, bytes);
    }
    self->copying -= bytes;
    range_remove(&self->copies, &range);
    bf_co_queue_wake_all(&self->room);
    bf_buffer_free(buf, bytes);
    return ret;
}

/* What one change has copied; on the stack of its coroutine. */
typedef struct Change {
    BfCbwNode *self;
    int ret; /* of the first copy that failed */
    unsigned copies;
    BfCoQueue ended;
} Change;

typedef struct Piece {
    Change *change;
    uint64_t offset;
    uint64_t bytes;
} Piece;

static void
piece_co_run(void *arg)
{
    Piece piece = *(Piece *)arg;
    Change *change = piece.change;
    int ret = co_copy_taken(change->self, piece.offset, piece.bytes);

    change->ret = change->ret == 0 ? ret : change->ret;
    change->copies--;
    bf_co_queue_wake_all(&change->ended);
}

static uint64_t
copy_max(const BfCbwNode *self)
{
    return MAX(COPY_MAX, self->cluster);
}

static void
co_wait_for_room(Change *change)
{
    BfCbwNode *self = change->self;

    while (change->copies >= CHANGE_COPIES_MAX) {
        bf_co_queue_co_wait(&change->ended);
    }
    while (self->copying > 0 && self->copying + copy_max(self) > COPYING_MAX) {
        bf_co_queue_co_wait(&self->room);
    }
}

/* Starts copies of all that is left to be copied, each once; the last, which is
 * the only one of most changes, needs no coroutine of its own. */
static void
co_copy_pieces(Change *change, uint64_t start, uint64_t end)
{
    BfBitmap *todo = change->self->todo;
    Piece piece = {.change = change};
    uint64_t next, bytes;

    while (change->ret == 0) {
        co_wait_for_room(change);
        if (change->ret != 0 ||
            !bf_bitmap_take(todo, start, end, copy_max(change->self),
                            &piece.offset, &piece.bytes)) {
            return;
        }
        change->copies++;
        start = piece.offset + piece.bytes;
        if (bf_bitmap_next_dirty(todo, start, end, &next, &bytes)) {
            bf_co_spawn(piece_co_run, &piece);
        } else {
            piece_co_run(&piece);
        }
    }
}

/* Copies what is left to be copied of whole clusters; what others have begun is
 * waited for, and tried again if it fails. What the target has lost meanwhile
 * is left again. */
static int
co_copy(BfCbwNode *self, uint64_t start, uint64_t end)
{
    Change change = {.self = self};

    do {
        co_copy_pieces(&change, start, end);
        while (change.copies > 0) {
            bf_co_queue_co_wait(&change.ended);
        }
    } while (change.ret == 0 && co_wait_range(&self->copies, start, end));
    return change.ret;
}

/* A copy that its request may leave behind when the time is up. */
typedef struct TimedCopy {
    BfCbwNode *self;
    uint64_t start;
    uint64_t end;
    int ret;
    bool done;
    bool left; /* nobody waits any more */
    BfCancel ended;
} TimedCopy;

static void
timed_copy_co_run(void *arg)
{
    TimedCopy *copy = arg;

    copy->ret = co_copy(copy->self, copy->start, copy->end);
    if (copy->left) {
        bf_node_end_work(&copy->self->base);
        g_free(copy);
    } else {
        copy->done = true;
        bf_cancel_fire(&copy->ended);
    }
}

static int
co_copy_until(BfCbwNode *self, uint64_t start, uint64_t end,
              uint64_t deadline_ns)
{
    const uint64_t now_ns = bf_loop_now_ns();
    TimedCopy *copy;
    int ret;

    if (deadline_ns == BF_FOREVER) {
        return co_copy(self, start, end);
    }
    if (now_ns >= deadline_ns) {
        return -ETIMEDOUT;
    }
    copy = g_new0(TimedCopy, 1);
    copy->self = self;
    copy->start = start;
    copy->end = end;
    bf_co_spawn(timed_copy_co_run, copy);
    if (!copy->done) {
        bf_co_sleep_cancel(deadline_ns - now_ns, &copy->ended);
    }
    if (copy->done) {
        ret = copy->ret;
        g_free(copy);
        return ret;
    }
    copy->left = true;
    bf_node_begin_work(&self->base);
    return -ETIMEDOUT;
}

/* Is a copy missing that the child can still give? */
static bool
is_todo(BfCbwNode *self, uint64_t start, uint64_t end)
{
    uint64_t next, bytes;

    bf_cbw_look_for_loss(self);
    return !self->broken &&
           bf_bitmap_next_dirty(self->todo, start, end, &next, &bytes);
}

static int
co_save_range(BfCbwNode *self, uint64_t start, uint64_t end)
{
    const uint64_t deadline_ns = self->timeout_ns == 0
                                     ? BF_FOREVER
                                     : bf_loop_now_ns() + self->timeout_ns;
    unsigned tries = 0;
    int ret = 0;

    do {
        ret = tries++ < COPY_TRIES
                  ? co_copy_until(self, start, end, deadline_ns)
                  : -EIO;
        if (ret < 0 && self->on_error == BF_ON_CBW_ERROR_BREAK_GUEST_WRITE) {
            return ret;
        }
        if (ret < 0) {
            g_autofree char *reason = g_strdup_printf(
                "old data could not be copied to the target '%s': %s",
                self->target->name, g_strerror(-ret));

            bf_cbw_break(self, reason);
        }
        while (co_wait_range(&self->frozen, start, end)) {
        }
    } while (is_todo(self, start, end));
    return 0;
}

/* What has to happen before a change; when it returns 0, the snapshot does not
 * need the child any more for this range. */
static int
co_before_change(BfNode *node, uint64_t offset, uint64_t bytes)
{
    BfCbwNode *self = (BfCbwNode *)node;
    uint64_t start;
    uint64_t end;
    int ret;

    bf_assert_loop(node->home);
    if (self->broken || offset >= self->size) {
        return 0;
    }
    start = bf_align_down(offset, self->cluster);
    end = MIN(bf_align_up(offset + bytes, self->cluster), self->size);
    ret = co_save_range(self, start, end);
    if (ret == 0) {
        bf_bitmap_put_back(self->changed, start, end - start);
    }
    return ret;
}

/* --- The snapshot. --- */

/* Where [@offset, @offset + *@bytes) is; shortened to what is at one place.
 * The caller has looked for losses. */
static int
find_place(BfCbwNode *self, uint64_t offset, uint64_t *bytes,
           bool *ret_in_target)
{
    uint64_t end = offset + *bytes;
    uint64_t start;
    uint64_t run;

    if (self->broken || end > self->size ||
        !bf_bitmap_next_dirty(self->accessible, offset, end, &start, &run) ||
        start > offset || run < *bytes) {
        return -EACCES;
    }
    *ret_in_target = false;
    if (bf_bitmap_next_dirty(self->done, offset, end, &start, &run)) {
        *ret_in_target = start == offset;
        *bytes = start == offset ? run : start - offset;
    }
    return 0;
}

/* Until the reader is through, no change reaches the range in the child. */
static int
co_read_place(BfCbwNode *self, uint64_t offset, BfIoVec *vec, bool in_target)
{
    BfCbwRange range;
    int ret;

    if (in_target) {
        return bf_node_co_read(self->target, offset, vec, 0);
    }
    range_add(&self->frozen, &range, offset, offset + vec->bytes);
    ret = bf_node_co_read(self->base.file, offset, vec, 0);
    range_remove(&self->frozen, &range);
    return ret;
}

static int
cbw_co_snapshot_read(BfNode *node, uint64_t offset, BfIoVec *vec)
{
    BfCbwNode *self = (BfCbwNode *)node;
    size_t done = 0;

    while (done < vec->bytes) {
        uint64_t losses = bf_cbw_look_for_loss(self);
        uint64_t bytes = vec->bytes - done;
        bool in_target;
        BfIoVec part;
        int ret = find_place(self, offset + done, &bytes, &in_target);

        if (ret < 0) {
            return ret;
        }
        bf_iovec_init_slice(&part, vec, done, bytes);
        ret = co_read_place(self, offset + done, &part, in_target);
        bf_iovec_clear(&part);
        if (ret < 0) {
            return ret;
        }
        /* It may have waited for a target that came back without its data. */
        done += in_target && bf_cbw_look_for_loss(self) != losses ? 0 : bytes;
    }
    /* What was read is of the past only if no change went on without it. */
    return self->broken ? -EACCES : 0;
}

static int
co_extents_at_place(BfCbwNode *self, uint64_t offset, uint64_t bytes,
                    BfExtents *extents, bool in_target)
{
    BfCbwRange range;
    int ret;

    if (in_target) {
        return bf_node_co_extents(self->target, offset, bytes, extents);
    }
    range_add(&self->frozen, &range, offset, offset + bytes);
    ret = bf_node_co_extents(self->base.file, offset, bytes, extents);
    range_remove(&self->frozen, &range);
    return ret;
}

static int
cbw_co_snapshot_extents(BfNode *node, uint64_t offset, uint64_t bytes,
                        BfExtents *extents)
{
    BfCbwNode *self = (BfCbwNode *)node;
    uint64_t known = extents->bytes;
    uint64_t losses;
    bool in_target = false;
    int ret = 0;

    do {
        uint64_t part = bytes;

        bf_extents_clip(extents, known);
        losses = bf_cbw_look_for_loss(self);
        ret = find_place(self, offset, &part, &in_target);
        if (ret == 0) {
            ret = co_extents_at_place(self, offset, part, extents, in_target);
        }
    } while (ret == 0 && in_target && bf_cbw_look_for_loss(self) != losses);
    return self->broken ? -EACCES : ret;
}

/* The reader has no use for the range any more: it is neither kept nor saved.
 */
static int
cbw_co_snapshot_discard(BfNode *node, uint64_t offset, uint64_t bytes)
{
    BfCbwNode *self = (BfCbwNode *)node;
    uint64_t end = MIN(offset + bytes, self->size);
    uint64_t start = bf_align_up(offset, self->cluster);

    end = end == self->size ? end : bf_align_down(end, self->cluster);
    if (start >= end) {
        return 0;
    }
    bf_bitmap_clear_range(self->accessible, start, end - start);
    while (co_wait_range(&self->copies, start, end)) {
    }
    bf_bitmap_clear_range(self->todo, start, end - start);
    bf_bitmap_clear_range(self->done, start, end - start);
    return bf_node_co_discard(self->target, start, end - start, 0);
}

/* --- Opening. --- */

static bool
check_target(BfCbwNode *self, const BfBlockdevOptionsCbw *opts, GError **error)
{
    const BfNode *node = &self->base;
    uint64_t wanted = opts->has_min_cluster_size ? opts->min_cluster_size : 1;

    if ((wanted & (wanted - 1)) != 0 || wanted == 0 || wanted > CLUSTER_MAX) {
        bf_set_error(
            error,
            "min-cluster-size needs to be a power of 2, at most %" PRIu64,
            (uint64_t)CLUSTER_MAX);
        return false;
    }
    if (self->target == node->file) {
        bf_set_error(error, "The target '%s' is the file itself",
                     self->target->name);
        return false;
    }
    if (self->target->size < node->file->size) {
        bf_set_error(error,
                     "The target '%s' (%" PRIu64
                     " bytes) is smaller than '%s' (%" PRIu64 " bytes)",
                     self->target->name, self->target->size, node->file->name,
                     node->file->size);
        return false;
    }
    self->cluster = (uint32_t)MAX(wanted, CLUSTER_DEFAULT);
    self->cluster = MAX(self->cluster, self->target->limits.alignment);
    self->cluster = MAX(self->cluster, node->file->limits.alignment);
    self->size = node->file->size;
    return true;
}

static BfBitmap *
find_bitmap(BfGraph *graph, const BfBlockDirtyBitmap *name, BfNode **ret_node,
            GError **error)
{
    BfNode *node = bf_graph_find_node(graph, name->node);
    BfBitmap *bitmap;

    if (node == NULL) {
        bf_set_error(error, "Node '%s' not found", name->node);
        return NULL;
    }
    bitmap = bf_node_find_bitmap(node, name->name);
    if (bitmap == NULL) {
        bf_set_error(error, "Dirty bitmap '%s' not found", name->name);
    }
    *ret_node = node;
    return bitmap;
}

/* Only what the user's bitmap has is saved; it is read while nobody sets it. */
static bool
co_take_bitmap(BfCbwNode *self, const BfBlockDirtyBitmap *name, GError **error)
{
    BfGraph *graph = self->base.graph;
    BfBitmap *bitmap;
    BfNode *node;
    bool ok;

    bf_graph_co_section_begin(graph);
    bitmap = find_bitmap(graph, name, &node, error);
    ok = bitmap != NULL && bf_graph_co_section_drain_node(graph, node, error) &&
         bf_bitmap_merge(self->todo, bitmap, error);
    bf_graph_co_section_end(graph);
    return ok;
}

static bool
co_make_bitmaps(BfCbwNode *self, const BfBlockdevOptionsCbw *opts,
                GError **error)
{
    BfBitmap **const all[] = {&self->todo, &self->done, &self->changed,
                              &self->accessible};

    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
        *all[i] = bf_bitmap_new(NULL, self->size, self->cluster, error);
        if (*all[i] == NULL) {
            return false;
        }
    }
    if (opts->bitmap == NULL) {
        bf_bitmap_put_back(self->todo, 0, self->size);
    } else if (!co_take_bitmap(self, opts->bitmap, error)) {
        return false;
    }
    return bf_bitmap_merge(self->accessible, self->todo, error);
}

static void
set_policy(BfCbwNode *self, const BfBlockdevOptionsCbw *opts)
{
    self->on_error = opts->on_cbw_error;
    self->timeout_ns = opts->cbw_timeout * BF_NS_PER_SEC;
}

static bool
cbw_co_open(BfNode *node, const BfBlockdevOptions *options, BfOpenContext *ctx,
            GError **error)
{
    const BfBlockdevOptionsCbw *opts = options->u.copy_before_write;
    BfCbwNode *self = (BfCbwNode *)node;

    if (!bf_node_co_open_child(node, ctx, opts->file, error) ||
        !bf_node_co_open_child_as(node, ctx, opts->target, "target",
                                  &self->target, error) ||
        !check_target(self, opts, error) ||
        !co_make_bitmaps(self, opts, error)) {
        return false;
    }
    bf_cbw_target_init(self);
    set_policy(self, opts);
    bf_filter_refresh(node);
    return true;
}

static void
cbw_co_close(BfNode *node)
{
    BfCbwNode *self = (BfCbwNode *)node;

    g_assert(self->copies == NULL && self->frozen == NULL);
    bf_cbw_target_co_clear(self);
    bf_bitmap_free(self->todo);
    bf_bitmap_free(self->done);
    bf_bitmap_free(self->changed);
    bf_bitmap_free(self->accessible);
}

static bool
is_same_bitmap(const BfBlockDirtyBitmap *a, const BfBlockDirtyBitmap *b)
{
    if (a == NULL || b == NULL) {
        return a == b;
    }
    return g_str_equal(a->node, b->node) && g_str_equal(a->name, b->name);
}

/* Another target would not have what was copied so far. */
static bool
cbw_co_reopen_prepare(BfNode *node, const BfBlockdevOptions *options,
                      const BfNode *file, GError **error)
{
    const BfBlockdevOptionsCbw *opts = options->u.copy_before_write;
    const BfBlockdevOptionsCbw *old = node->options->u.copy_before_write;
    const char *changed = NULL;

    if (bf_node_child_to_be(node, "target") != ((BfCbwNode *)node)->target) {
        changed = "target";
    } else if (!is_same_bitmap(opts->bitmap, old->bitmap)) {
        changed = "bitmap";
    } else if (opts->has_min_cluster_size != old->has_min_cluster_size ||
               opts->min_cluster_size != old->min_cluster_size) {
        changed = "min-cluster-size";
    }
    if (changed != NULL) {
        bf_set_error(error, "Cannot change the option '%s'", changed);
        return false;
    }
    return bf_node_check_new_size(node, file->size, error);
}

static void
cbw_reopen_commit(BfNode *node)
{
    set_policy((BfCbwNode *)node, node->options->u.copy_before_write);
}

/*
 * The target is written whatever the users need. Nobody may change the child
 * but through the filter, as soon as somebody uses it.
 */
static void
cbw_child_perm(const BfNode *node, const char *edge, unsigned *perm,
               unsigned *shared)
{
    if (!node->active) {
        return;
    }
    if (g_str_equal(edge, "target")) {
        *perm = BF_PERM_WRITE;
        *shared = BF_PERM_ALL & ~(unsigned)BF_PERM_RESIZE;
    } else if (node->parents->len > 0) {
        *perm |= BF_PERM_CONSISTENT_READ;
        *shared &= ~(unsigned)(BF_PERM_WRITE | BF_PERM_RESIZE);
    }
}

/* --- Requests. --- */

static int
cbw_co_write(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    int ret = co_before_change(node, offset, vec->bytes);

    return ret < 0 ? ret : bf_node_co_write(node->file, offset, vec, flags);
}

static int
cbw_co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes,
                    BfIoFlags flags)
{
    int ret = co_before_change(node, offset, bytes);

    return ret < 0 ? ret
                   : bf_node_co_write_zeroes(node->file, offset, bytes, flags);
}

static int
cbw_co_discard(BfNode *node, uint64_t offset, uint64_t bytes)
{
    int ret = co_before_change(node, offset, bytes);

    return ret < 0 ? ret : bf_node_co_discard(node->file, offset, bytes, 0);
}

const BfDriver bf_driver_copy_before_write = {
    .name = "copy-before-write",
    .kind = BF_BLOCKDEV_DRIVER_COPY_BEFORE_WRITE,
    .node_size = sizeof(BfCbwNode),
    .fua = true,
    .fua_zeroes = true,
    .co_open = cbw_co_open,
    .co_close = cbw_co_close,
    .co_read = bf_filter_co_read,
    .co_write = cbw_co_write,
    .co_flush = bf_filter_co_flush,
    .co_write_zeroes = cbw_co_write_zeroes,
    .co_discard = cbw_co_discard,
    .co_extents = bf_filter_co_extents,
    .co_cache = bf_filter_co_cache,
    .co_read_pipe = bf_filter_co_read_pipe,
    .co_snapshot_read = cbw_co_snapshot_read,
    .co_snapshot_extents = cbw_co_snapshot_extents,
    .co_snapshot_discard = cbw_co_snapshot_discard,
    .refresh = bf_filter_refresh,
    .co_reopen_prepare = cbw_co_reopen_prepare,
    .reopen_commit = cbw_reopen_commit,
    .child_perm = cbw_child_perm,
};
