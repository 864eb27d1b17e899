/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * throttle: passes requests on to its child when its group of limits lets them.
 * Its member of the group belongs to the home loop, so all requests run there.
 */
#include "block/driver.h"
#include "block/filter.h"
#include "block/graph.h"
#include "block/request.h"
#include "core/error.h"

typedef struct BfThrottleNode {
    BfNode base;
    BfThrottleMember *member;  /* owned */
    BfThrottleMember *next;    /* owned: of a reopen that is being prepared */
    BfThrottleMember *retired; /* owned: has been replaced */
    unsigned hurries;          /* main */
} BfThrottleNode;

static BfThrottleMember *
join_group(BfNode *node, const char *id, GError **error)
{
    g_autofree char *user = g_strdup_printf("node '%s'", node->name);

    return bf_graph_join_throttle_group(node->graph, id, user, node->home,
                                        error);
}

static bool
throttle_co_open(BfNode *node, const BfBlockdevOptions *options,
                 BfOpenContext *ctx, GError **error)
{
    const BfBlockdevOptionsThrottle *opts = options->u.throttle;
    BfThrottleNode *self = (BfThrottleNode *)node;

    if (!bf_node_co_open_child(node, ctx, opts->file, error)) {
        return false;
    }
    self->member = join_group(node, opts->throttle_group, error);
    if (self->member == NULL) {
        return false;
    }
    bf_filter_refresh(node);
    return true;
}

static void
throttle_co_close(BfNode *node)
{
    BfThrottleNode *self = (BfThrottleNode *)node;

    bf_throttle_member_co_free(self->member);
    g_assert(self->next == NULL && self->retired == NULL);
}

static void
co_wait(BfNode *node, bool is_write, uint64_t bytes)
{
    bf_throttle_member_co_wait(((BfThrottleNode *)node)->member, is_write,
                               bytes);
}

static int
throttle_co_read(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    co_wait(node, false, vec->bytes);
    return bf_node_co_read(node->file, offset, vec, flags);
}

static int
throttle_co_write(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    co_wait(node, true, vec->bytes);
    return bf_node_co_write(node->file, offset, vec, flags);
}

static int
throttle_co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes,
                         BfIoFlags flags)
{
    co_wait(node, true, bytes);
    return bf_node_co_write_zeroes(node->file, offset, bytes, flags);
}

static int
throttle_co_discard(BfNode *node, uint64_t offset, uint64_t bytes)
{
    co_wait(node, true, bytes);
    return bf_node_co_discard(node->file, offset, bytes, 0);
}

/* A large request costs less than several small ones. */
static void
throttle_refresh(BfNode *node)
{
    bf_filter_refresh(node);
    node->limits.counts_requests = true;
}

static void
throttle_hurry(BfNode *node, bool begin)
{
    BfThrottleNode *self = (BfThrottleNode *)node;

    if (begin ? self->hurries++ == 0 : --self->hurries == 0) {
        bf_throttle_member_hurry(self->member, begin);
    }
}

static void
throttle_co_drain_end(BfNode *node)
{
    BfThrottleNode *self = (BfThrottleNode *)node;

    bf_throttle_member_co_free(g_steal_pointer(&self->retired));
    bf_throttle_member_co_move(self->member, node->home);
}

static bool
throttle_co_reopen_prepare(BfNode *node, const BfBlockdevOptions *options,
                           const BfNode *file, GError **error)
{
    BfThrottleNode *self = (BfThrottleNode *)node;

    if (!bf_node_check_new_size(node, file->size, error)) {
        return false;
    }
    self->next = join_group(node, options->u.throttle->throttle_group, error);
    return self->next != NULL;
}

static void
throttle_reopen_commit(BfNode *node)
{
    BfThrottleNode *self = (BfThrottleNode *)node;

    self->retired = self->member;
    self->member = g_steal_pointer(&self->next);
    if (self->hurries > 0) {
        bf_throttle_member_hurry(self->member, true);
    }
}

static void
throttle_co_reopen_abort(BfNode *node)
{
    BfThrottleNode *self = (BfThrottleNode *)node;

    bf_throttle_member_co_free(g_steal_pointer(&self->next));
}

const BfDriver bf_driver_throttle = {
    .name = "throttle",
    .kind = BF_BLOCKDEV_DRIVER_THROTTLE,
    .node_size = sizeof(BfThrottleNode),
    .is_filter = true,
    .fua = true,
    .fua_zeroes = true,
    .co_open = throttle_co_open,
    .co_close = throttle_co_close,
    .co_read = throttle_co_read,
    .co_write = throttle_co_write,
    .co_flush = bf_filter_co_flush,
    .co_write_zeroes = throttle_co_write_zeroes,
    .co_discard = throttle_co_discard,
    .co_extents = bf_filter_co_extents,
    .co_cache = bf_filter_co_cache,
    .hurry = throttle_hurry,
    .co_drain_end = throttle_co_drain_end,
    .refresh = throttle_refresh,
    .co_resize = bf_filter_co_resize,
    .co_reopen_prepare = throttle_co_reopen_prepare,
    .reopen_commit = throttle_reopen_commit,
    .co_reopen_abort = throttle_co_reopen_abort,
};
