/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * quorum: keeps the same data in several children. A read counts the versions
 * that it gets and returns the one that enough children agree on; a change is
 * done when enough children have made it. The rules, events and limits are
 * those that QEMU has.
 *
 * All requests run on the home loop. The list of children changes only while
 * the node is drained. Changes that overlap go to the children one after the
 * other, since each child might order them its own way, and so do a change and
 * a vote: it would find what some children have done and others have not.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/driver.h"
#include "block/request.h"
#include "core/co-lock.h"
#include "core/error.h"
#include "core/util.h"

/* Most children; each request makes one for each of them. */
#define CHILDREN_MAX 64

/* Longest request: a read has a buffer for each child. */
#define TRANSFER_MAX (1 * BF_MIB)

#define SECTOR 512

typedef struct QuorumChild {
    BfNode *node; /* borrowed; the slot of its edge */
} QuorumChild;

/* A range under way; on the stack of its request. */
typedef struct Span {
    struct Span *younger;
    struct Span *older;
    uint64_t start;
    uint64_t end;
    bool changes;
    BfCoQueue waiters;
} Span;

typedef struct BfQuorumNode {
    BfNode base;
    Span *spans;         /* the youngest one */
    GPtrArray *children; /* of QuorumChild, owned */
    unsigned next_name;
    unsigned threshold;
    bool blkverify;
    bool rewrite;
    bool fifo;
} BfQuorumNode;

/* A request to all children. */
typedef struct Fan {
    BfQuorumNode *self;
    BfQuorumOpType type;
    uint64_t offset;
    uint64_t bytes;
    BfIoVec *vec; /* of a write; NULL: zeroes */
    BfIoFlags flags;
    BfWaitGroup running;
} Fan;

/* The part of one child. */
typedef struct Part {
    Fan *fan;
    BfNode *child;
    void *buf; /* owned: what was read */
    char *hash;
    int ret;
} Part;

static BfNode *
child_at(const BfQuorumNode *self, unsigned i)
{
    return ((QuorumChild *)g_ptr_array_index(self->children, i))->node;
}

/* --- Order. --- */

static Span *
find_older_conflict(const Span *span)
{
    for (Span *o = span->older; o != NULL; o = o->older) {
        if ((span->changes || o->changes) && o->start < span->end &&
            span->start < o->end) {
            return o;
        }
    }
    return NULL;
}

/* Waits only for older ones, so there is no circle. */
static void
span_co_begin(BfQuorumNode *self, Span *span, uint64_t offset, uint64_t bytes,
              bool changes)
{
    Span *conflict;

    bf_assert_loop(self->base.home);
    *span = (Span){
        .older = self->spans,
        .start = offset,
        .end = offset + bytes,
        .changes = changes,
    };
    if (span->older != NULL) {
        span->older->younger = span;
    }
    self->spans = span;
    while ((conflict = find_older_conflict(span)) != NULL) {
        bf_co_queue_co_wait(&conflict->waiters);
    }
}

static void
span_end(BfQuorumNode *self, Span *span)
{
    if (span->younger != NULL) {
        span->younger->older = span->older;
    } else {
        self->spans = span->older;
    }
    if (span->older != NULL) {
        span->older->younger = span->younger;
    }
    bf_co_queue_wake_all(&span->waiters);
}

/* --- Events. --- */

static uint64_t
sectors_of(const Fan *fan)
{
    return (fan->offset + fan->bytes + SECTOR - 1) / SECTOR -
           fan->offset / SECTOR;
}

static void
report_bad(const Fan *fan, const BfNode *child, int ret)
{
    bf_node_report_quorum_bad(&fan->self->base, fan->type, child, ret,
                              fan->offset / SECTOR, sectors_of(fan));
}

static void
report_failure(const Fan *fan)
{
    bf_node_report_quorum_failure(&fan->self->base, fan->offset / SECTOR,
                                  sectors_of(fan));
}

/* --- A request to all. --- */

static int
co_run_part(const Part *part)
{
    const Fan *fan = part->fan;
    BfIoVec vec;

    if (fan->type == BF_QUORUM_OP_TYPE_FLUSH) {
        return bf_node_co_flush(part->child);
    }
    if (fan->type == BF_QUORUM_OP_TYPE_READ) {
        bf_iovec_init_buf(&vec, part->buf, fan->bytes);
        return bf_node_co_read(part->child, fan->offset, &vec, 0);
    }
    return fan->vec != NULL ? bf_node_co_write(part->child, fan->offset,
                                               fan->vec, fan->flags)
                            : bf_node_co_write_zeroes(part->child, fan->offset,
                                                      fan->bytes, fan->flags);
}

static void
part_co_run(void *arg)
{
    Part *part = arg;

    part->ret = co_run_part(part);
    if (part->ret < 0) {
        report_bad(part->fan, part->child, part->ret);
    }
    bf_wait_group_done(&part->fan->running);
}

/* The error that most parts ended with, the first one of several. */
static int
common_error(const Part *parts, unsigned n)
{
    int winner = -EIO;
    unsigned most = 0;

    for (unsigned i = 0; i < n; i++) {
        unsigned count = 0;

        for (unsigned j = 0; j < n; j++) {
            count += parts[j].ret == parts[i].ret;
        }
        if (parts[i].ret < 0 && count > most) {
            most = count;
            winner = parts[i].ret;
        }
    }
    return winner;
}

/* Sends @fan to all children and waits. Returns 0 if enough have succeeded. */
static int
co_ask_all(Fan *fan, Part *parts)
{
    const BfQuorumNode *self = fan->self;
    unsigned n = self->children->len;
    unsigned succeeded = 0;

    bf_wait_group_add(&fan->running, n);
    for (unsigned i = 0; i < n; i++) {
        parts[i].fan = fan;
        parts[i].child = child_at(self, i);
        bf_co_spawn(part_co_run, &parts[i]);
    }
    bf_wait_group_co_wait(&fan->running);
    for (unsigned i = 0; i < n; i++) {
        succeeded += parts[i].ret == 0;
    }
    if (succeeded >= self->threshold) {
        return 0;
    }
    if (fan->type != BF_QUORUM_OP_TYPE_FLUSH) {
        report_failure(fan);
    }
    return common_error(parts, n);
}

/* --- Reading. --- */

static bool
have_same_data(const Fan *fan, const Part *a, const Part *b)
{
    return memcmp(a->buf, b->buf, fan->bytes) == 0;
}

/* The first part that has data, or NULL if others have different data. */
static const Part *
find_unanimous(const Fan *fan, const Part *parts, unsigned n)
{
    const Part *first = NULL;

    for (unsigned i = 0; i < n; i++) {
        if (parts[i].ret < 0) {
            continue;
        }
        if (first == NULL) {
            first = &parts[i];
        } else if (!have_same_data(fan, first, &parts[i])) {
            return NULL;
        }
    }
    return first;
}

static unsigned
count_votes(const Part *parts, unsigned n, const char *hash)
{
    unsigned votes = 0;

    for (unsigned i = 0; i < n; i++) {
        votes += parts[i].hash != NULL && g_str_equal(parts[i].hash, hash);
    }
    return votes;
}

/* The first of those that have the same version? */
static bool
begins_version(const Part *parts, unsigned i)
{
    return parts[i].hash != NULL && count_votes(parts, i, parts[i].hash) == 0;
}

/* The version with most votes, of several the one that was found last, as in
 * QEMU; or NULL if it has too few. */
static const Part *
hold_vote(const Fan *fan, Part *parts, unsigned n)
{
    const Part *winner = NULL;
    unsigned most = 0;

    for (unsigned i = 0; i < n; i++) {
        if (parts[i].ret == 0) {
            parts[i].hash = g_compute_checksum_for_data(
                G_CHECKSUM_SHA256, parts[i].buf, fan->bytes);
        }
    }
    for (unsigned i = n; i-- > 0;) {
        if (begins_version(parts, i)) {
            unsigned votes = count_votes(parts, n, parts[i].hash);

            if (votes > most) {
                most = votes;
                winner = &parts[i];
            }
        }
    }
    return most >= fan->self->threshold ? winner : NULL;
}

static void
co_treat_loser(Fan *fan, const Part *loser, const Part *winner)
{
    BfIoVec vec;

    report_bad(fan, loser->child, 0);
    if (fan->self->rewrite) {
        /* It is no worse than before if this fails. */
        bf_iovec_init_buf(&vec, winner->buf, fan->bytes);
        bf_node_co_write(loser->child, fan->offset, &vec, 0);
    }
}

/* Names those that were outvoted, and mends them if that is wanted: one version
 * after the other, and in each, from the last to the first, as QEMU does. */
static void
co_treat_losers(Fan *fan, const Part *parts, unsigned n, const Part *winner)
{
    for (unsigned i = n; i-- > 0;) {
        if (!begins_version(parts, i) ||
            g_str_equal(parts[i].hash, winner->hash)) {
            continue;
        }
        for (unsigned j = n; j-- > i;) {
            if (parts[j].hash != NULL &&
                g_str_equal(parts[j].hash, parts[i].hash)) {
                co_treat_loser(fan, &parts[j], winner);
            }
        }
    }
}

static int
co_choose(Fan *fan, Part *parts, unsigned n, BfIoVec *vec)
{
    const Part *winner = find_unanimous(fan, parts, n);

    if (winner == NULL && fan->self->blkverify) {
        bf_node_notice(&fan->self->base, true,
                       "the contents of the children of quorum differ between "
                       "%" PRIu64 " and %" PRIu64,
                       fan->offset, fan->offset + fan->bytes);
    } else if (winner == NULL) {
        winner = hold_vote(fan, parts, n);
    }
    if (winner == NULL) {
        report_failure(fan);
        return -EIO;
    }
    bf_iovec_write(vec, 0, winner->buf, fan->bytes);
    if (winner->hash != NULL) {
        co_treat_losers(fan, parts, n, winner);
    }
    return 0;
}

static void
parts_free(Part *parts, unsigned n, size_t bytes)
{
    for (unsigned i = 0; i < n; i++) {
        bf_buffer_free(parts[i].buf, bytes);
        g_free(parts[i].hash);
    }
    g_free(parts);
}

static int
co_read_all(BfQuorumNode *self, uint64_t offset, BfIoVec *vec)
{
    unsigned n = self->children->len;
    Part *parts = g_new0(Part, n);
    int ret = 0;
    Fan fan = {
        .self = self,
        .type = BF_QUORUM_OP_TYPE_READ,
        .offset = offset,
        .bytes = vec->bytes,
    };

    for (unsigned i = 0; i < n && ret == 0; i++) {
        parts[i].buf = bf_buffer_new(vec->bytes);
        ret = parts[i].buf != NULL ? 0 : -ENOMEM;
    }
    if (ret == 0) {
        ret = co_ask_all(&fan, parts);
    }
    if (ret == 0) {
        ret = co_choose(&fan, parts, n, vec);
    }
    parts_free(parts, n, vec->bytes);
    return ret;
}

/* One child after the other, until one can. */
static int
co_read_first(BfQuorumNode *self, uint64_t offset, BfIoVec *vec)
{
    const Fan fan = {
        .self = self,
        .type = BF_QUORUM_OP_TYPE_READ,
        .offset = offset,
        .bytes = vec->bytes,
    };
    int ret = -EIO;

    for (unsigned i = 0; i < self->children->len; i++) {
        ret = bf_node_co_read(child_at(self, i), offset, vec, 0);
        if (ret == 0) {
            break;
        }
        report_bad(&fan, child_at(self, i), ret);
    }
    return ret;
}

static int
quorum_co_read(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    BfQuorumNode *self = (BfQuorumNode *)node;
    Span span;
    int ret;

    if (self->fifo) {
        return co_read_first(self, offset, vec);
    }
    span_co_begin(self, &span, offset, vec->bytes, false);
    ret = co_read_all(self, offset, vec);
    span_end(self, &span);
    return ret;
}

/* --- Other requests. --- */

static int
co_tell_all(BfQuorumNode *self, Fan *fan)
{
    unsigned n = self->children->len;
    Part *parts = g_new0(Part, n);
    int ret;

    fan->self = self;
    ret = co_ask_all(fan, parts);
    parts_free(parts, n, 0);
    return ret;
}

static int
co_change_all(BfQuorumNode *self, Fan *fan)
{
    Span span;
    int ret;

    span_co_begin(self, &span, fan->offset, fan->bytes, true);
    ret = co_tell_all(self, fan);
    span_end(self, &span);
    return ret;
}

static int
quorum_co_write(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    Fan fan = {
        .type = BF_QUORUM_OP_TYPE_WRITE,
        .offset = offset,
        .bytes = vec->bytes,
        .vec = vec,
        .flags = flags,
    };

    return co_change_all((BfQuorumNode *)node, &fan);
}

static int
quorum_co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes,
                       BfIoFlags flags)
{
    Fan fan = {
        .type = BF_QUORUM_OP_TYPE_WRITE,
        .offset = offset,
        .bytes = bytes,
        /* Some children could and others could not. */
        .flags = flags & ~(unsigned)BF_IO_NO_FALLBACK,
    };

    if ((flags & BF_IO_NO_FALLBACK) != 0) {
        return -ENOTSUP;
    }
    return co_change_all((BfQuorumNode *)node, &fan);
}

/* While it is being closed its children may have gone, and after a failed
 * open there are only those before the one that failed. */
static bool
is_whole(const BfQuorumNode *self)
{
    for (unsigned i = 0; self->children != NULL && i < self->children->len;
         i++) {
        if (child_at(self, i) == NULL) {
            return false;
        }
    }
    return self->children != NULL && self->children->len > 0;
}

static int
quorum_co_flush(BfNode *node)
{
    BfQuorumNode *self = (BfQuorumNode *)node;
    Fan fan = {.type = BF_QUORUM_OP_TYPE_FLUSH};

    if (!is_whole(self)) {
        return 0;
    }
    return co_tell_all(self, &fan);
}

/* One child that lost something is reason enough to write it again. */
static uint64_t
quorum_last_loss(const BfNode *node)
{
    const BfQuorumNode *self = (const BfQuorumNode *)node;
    uint64_t last = 0;

    for (unsigned i = 0; self->children != NULL && i < self->children->len;
         i++) {
        const BfNode *child = child_at(self, i);

        if (child != NULL) {
            last = MAX(last, bf_node_last_loss(child));
        }
    }
    return last;
}

/* What holds for all children; as far as it holds for each. */
static int
quorum_co_extents(BfNode *node, uint64_t offset, uint64_t bytes,
                  BfExtents *extents)
{
    BfQuorumNode *self = (BfQuorumNode *)node;
    unsigned flags = BF_EXTENT_HOLE | BF_EXTENT_ZERO;

    for (unsigned i = 0; i < self->children->len; i++) {
        BfExtents part;
        int ret;

        bf_extents_init(&part, 1);
        ret = bf_node_co_extents(child_at(self, i), offset, bytes, &part);
        if (ret == 0) {
            flags &= part.items[0].flags;
            bytes = MIN(bytes, part.items[0].bytes);
        } else {
            flags = 0; /* a read will tell */
        }
        bf_extents_clear(&part);
    }
    bf_extents_append(extents, bytes, flags);
    return 0;
}

/* --- Children. --- */

static void
quorum_refresh(BfNode *node)
{
    const BfQuorumNode *self = (const BfQuorumNode *)node;

    node->limits = (BfLimits){.max_transfer = TRANSFER_MAX};
    for (unsigned i = 0; i < self->children->len; i++) {
        const BfNode *child = child_at(self, i);
        const BfLimits *limits;

        if (child == NULL) {
            continue; /* it is going */
        }
        limits = &child->limits;
        node->size = child->size;
        node->limits.alignment = MAX(node->limits.alignment, limits->alignment);
        node->limits.preferred = MAX(node->limits.preferred, limits->preferred);
        node->limits.counts_requests |= limits->counts_requests;
        if (limits->max_transfer != 0) {
            node->limits.max_transfer =
                MIN(node->limits.max_transfer, limits->max_transfer);
        }
    }
}

static bool
check_size(const BfQuorumNode *self, const BfNode *child, GError **error)
{
    const BfNode *first = child_at(self, 0);

    if (first->size != child->size) {
        bf_set_error(error,
                     "The children differ in size: '%s' has %" PRIu64
                     " bytes and '%s' has %" PRIu64,
                     first->name, first->size, child->name, child->size);
        return false;
    }
    return true;
}

static bool
check_options(const BfBlockdevOptionsQuorum *opts, GError **error)
{
    size_t n = opts->children->len;
    bool is_voting = opts->read_pattern == BF_QUORUM_READ_PATTERN_QUORUM;

    if (n < 1) {
        bf_set_error(error, "Number of provided children must be 1 or more");
    } else if (n > CHILDREN_MAX) {
        bf_set_error(error, "More than %d children", CHILDREN_MAX);
    } else if (opts->vote_threshold < 1) {
        bf_set_error(error, "Parameter 'vote-threshold' expects a value >= 1");
    } else if ((uint64_t)opts->vote_threshold > n) {
        bf_set_error(error, "threshold may not exceed children count");
    } else if (is_voting && opts->blkverify &&
               (n != 2 || opts->vote_threshold != 2)) {
        bf_set_error(error, "blkverify=on can only be set if there are "
                            "exactly two files and vote-threshold is 2");
    } else if (is_voting && opts->blkverify && opts->rewrite_corrupted) {
        bf_set_error(error,
                     "rewrite-corrupted=on cannot be used with blkverify=on");
    } else {
        return true;
    }
    return false;
}

static bool
co_open_children(BfQuorumNode *self, const BfBlockdevOptionsQuorum *opts,
                 BfOpenContext *ctx, GError **error)
{
    for (size_t i = 0; i < opts->children->len; i++) {
        QuorumChild *child = g_new0(QuorumChild, 1);
        g_autofree char *name =
            g_strdup_printf("children.%u", self->next_name++);

        g_ptr_array_add(self->children, child);
        if (!bf_node_co_open_child_as(&self->base, ctx,
                                      opts->children->items[i], name,
                                      &child->node, error) ||
            !check_size(self, child->node, error)) {
            return false;
        }
    }
    return true;
}

static bool
quorum_co_open(BfNode *node, const BfBlockdevOptions *options,
               BfOpenContext *ctx, GError **error)
{
    const BfBlockdevOptionsQuorum *opts = options->u.quorum;
    BfQuorumNode *self = (BfQuorumNode *)node;

    self->children = g_ptr_array_new_with_free_func(g_free);
    if (!check_options(opts, error) ||
        !co_open_children(self, opts, ctx, error)) {
        return false;
    }
    self->threshold = (unsigned)opts->vote_threshold;
    self->fifo = opts->read_pattern == BF_QUORUM_READ_PATTERN_FIFO;
    self->blkverify = !self->fifo && opts->blkverify;
    self->rewrite = !self->fifo && opts->rewrite_corrupted;
    quorum_refresh(node);
    return true;
}

static void
quorum_co_close(BfNode *node)
{
    BfQuorumNode *self = (BfQuorumNode *)node;

    g_clear_pointer(&self->children, g_ptr_array_unref);
}

static bool
quorum_co_reopen_prepare(BfNode *node, const BfBlockdevOptions *options,
                         const BfNode *file, GError **error)
{
    const BfBlockdevOptionsQuorum *opts = options->u.quorum;

    if (opts->children->len != node->options->u.quorum->children->len) {
        bf_set_error(error,
                     "Cannot change the number of 'children' of node "
                     "'%s'; use x-blockdev-change",
                     node->name);
        return false;
    }
    for (size_t i = 0; i < opts->children->len; i++) {
        g_autofree char *name = g_strdup_printf("children.%zu", i);
        const BfNode *child = bf_node_child_to_be(node, name);

        if (child != NULL && child->size != node->size) {
            bf_set_error(error, "The size of child '%s' is not that of '%s'",
                         child->name, node->name);
            return false;
        }
    }
    return true;
}

static BfNode **
quorum_add_child(BfNode *node, const BfNode *child, char **ret_name,
                 GError **error)
{
    BfQuorumNode *self = (BfQuorumNode *)node;
    QuorumChild *added;

    if (self->blkverify) {
        bf_set_error(error, "Cannot add a child to a quorum in blkverify mode");
        return NULL;
    }
    if (self->children->len >= CHILDREN_MAX) {
        bf_set_error(error, "Too many children");
        return NULL;
    }
    if (!check_size(self, child, error)) {
        return NULL;
    }
    added = g_new0(QuorumChild, 1);
    *ret_name = g_strdup_printf("children.%u", self->next_name++);
    return &added->node;
}

static void
quorum_child_added(BfNode *node, BfNode **slot)
{
    g_ptr_array_add(((BfQuorumNode *)node)->children, slot);
}

static bool
quorum_check_remove(BfNode *node, GError **error)
{
    const BfQuorumNode *self = (const BfQuorumNode *)node;

    if (self->children->len <= self->threshold) {
        bf_set_error(error,
                     "The number of children cannot be lower than the vote "
                     "threshold %u",
                     self->threshold);
        return false;
    }
    return true;
}

static void
quorum_child_removed(BfNode *node, BfNode **slot)
{
    g_ptr_array_remove(((BfQuorumNode *)node)->children, slot);
}

/* Nobody else may make the children differ. */
static void
quorum_child_perm(const BfNode *node, const char *edge, unsigned *perm,
                  unsigned *shared)
{
    if (((const BfQuorumNode *)node)->rewrite && node->active) {
        *perm |= BF_PERM_WRITE;
    }
    *shared &= BF_PERM_CONSISTENT_READ | BF_PERM_WRITE_UNCHANGED;
}

const BfDriver bf_driver_quorum = {
    .name = "quorum",
    .kind = BF_BLOCKDEV_DRIVER_QUORUM,
    .node_size = sizeof(BfQuorumNode),
    .fixed_options = true,
    .is_filter = true,
    .co_open = quorum_co_open,
    .co_close = quorum_co_close,
    .co_read = quorum_co_read,
    .co_write = quorum_co_write,
    .co_flush = quorum_co_flush,
    .co_write_zeroes = quorum_co_write_zeroes,
    .co_extents = quorum_co_extents,
    .refresh = quorum_refresh,
    .last_loss = quorum_last_loss,
    .co_reopen_prepare = quorum_co_reopen_prepare,
    .add_child = quorum_add_child,
    .child_added = quorum_child_added,
    .check_remove = quorum_check_remove,
    .child_removed = quorum_child_removed,
    .child_perm = quorum_child_perm,
};
