/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The backup job's filter above its source: what is about to be overwritten is
 * copied to the target first. All else passes through.
 */
#include <errno.h>

#include "backup-private.h"
#include "block/filter.h"
#include "block/request.h"
#include "core/util.h"

/* How long a write may wait for the copy of what it replaces, and of how much
 * of that: a request may be of any length, and the target slow. */
#define BEFORE_LIMIT_NS (30 * BF_NS_PER_SEC)
#define BEFORE_BYTES (16 * BF_MIB)

typedef struct BfBackupTopNode {
    BfNode base;
    BfBackup *backup; /* changes while drained */
} BfBackupTopNode;

void
bf_backup_top_set_job(BfNode *filter, BfBackup *backup)
{
    ((BfBackupTopNode *)filter)->backup = backup;
}

static BfNode *
top_copies_to(const BfNode *node)
{
    const BfBackup *backup = ((const BfBackupTopNode *)node)->backup;

    return backup != NULL ? backup->target : NULL;
}

/* Whoever wrote past the filter would change what is to be copied. */
static void
top_child_perm(const BfNode *node, const char *edge, unsigned *perm,
               unsigned *shared)
{
    *perm |= BF_PERM_CONSISTENT_READ;
    *shared &= ~(unsigned)(BF_PERM_WRITE | BF_PERM_RESIZE);
}

static void
co_before(BfNode *node, uint64_t offset, uint64_t bytes)
{
    BfBackup *backup = ((BfBackupTopNode *)node)->backup;

    if (backup != NULL) {
        bf_backup_co_before_write(backup, offset, bytes);
    }
}

static int
top_co_write(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    co_before(node, offset, vec->bytes);
    return bf_node_co_write(node->file, offset, vec, flags);
}

static int
top_co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes,
                    BfIoFlags flags)
{
    co_before(node, offset, bytes);
    return bf_node_co_write_zeroes(node->file, offset, bytes, flags);
}

static int
top_co_discard(BfNode *node, uint64_t offset, uint64_t bytes)
{
    co_before(node, offset, bytes);
    return bf_node_co_discard(node->file, offset, bytes, 0);
}

static int
top_co_write_pipe(BfNode *node, uint64_t offset, uint64_t bytes, int pipe_fd)
{
    co_before(node, offset, bytes);
    return bf_node_co_write_pipe(node->file, offset, bytes, pipe_fd);
}

const BfDriver bf_driver_backup_top = {
    .name = "copy-before-write",
    .kind = (BfBlockdevDriver)-1, /* none that a user can ask for */
    .node_size = sizeof(BfBackupTopNode),
    .any_loop = true, /* fields change only while drained */
    .close_flushes = true,
    .fua = true,
    .fua_zeroes = true,
    .is_filter = true,
    .co_read = bf_filter_co_read,
    .co_write = top_co_write,
    .co_flush = bf_filter_co_flush,
    .co_write_zeroes = top_co_write_zeroes,
    .co_discard = top_co_discard,
    .co_extents = bf_filter_co_extents,
    .co_cache = bf_filter_co_cache,
    .co_read_pipe = bf_filter_co_read_pipe,
    .co_write_pipe = top_co_write_pipe,
    .refresh = bf_filter_refresh,
    .copies_to = top_copies_to,
    .child_perm = top_child_perm,
};

/* The copy, on the job's loop. */

typedef struct Before {
    BfBackup *backup;
    uint64_t offset;
    uint64_t bytes;
    BfTimer timer;
} Before;

static void
break_off(BfBackup *backup, int err)
{
    if (bf_atomic_load(&backup->is_over) == 0) {
        bf_atomic_store(&backup->is_over, 1);
        backup->broken = err;
        bf_job_kick(&backup->base);
    }
}

/* The job is there as long as the write is. */
static void
let_go_on_main(void *arg)
{
    bf_backup_let_go(arg);
}

static void
time_is_up(void *arg)
{
    BfBackup *backup = ((const Before *)arg)->backup;

    break_off(backup, ETIMEDOUT);
    bf_loop_post(bf_loop_get_main(backup->base.loop), let_go_on_main, backup);
}

/* A write is not held up by a backup that fails, nor for long by one that does
 * not get on: it is the backup that ends. */
static void
before_co_run(void *arg)
{
    Before *before = arg;
    BfBackup *backup = before->backup;
    const uint64_t end = before->offset + before->bytes;
    uint64_t pos = before->offset;

    while (pos < end && bf_atomic_load(&backup->is_over) == 0) {
        uint64_t next =
            MIN(bf_align_down(pos, BEFORE_BYTES) + BEFORE_BYTES, end);
        int ret;

        bf_timer_start(&before->timer, BEFORE_LIMIT_NS, time_is_up, before);
        ret = bf_copy_co_before_write(backup->copy, pos, next - pos);
        bf_timer_stop(&before->timer);
        if (ret < 0) {
            break_off(backup, -ret);
        }
        pos = next;
    }
}

static bool
is_planned(const BfBackup *backup, uint64_t offset, uint64_t bytes)
{
    const BfBitmap *plan = backup->plan;
    uint64_t end = offset + bytes;

    if (plan == NULL) {
        return true;
    }
    offset = bf_align_down(offset, bf_bitmap_granularity(plan));
    for (; offset < end; offset += bf_bitmap_granularity(plan)) {
        if (bf_bitmap_get(plan, offset)) {
            return true;
        }
    }
    return false;
}

void
bf_backup_co_before_write(BfBackup *backup, uint64_t offset, uint64_t bytes)
{
    Before before = {.backup = backup, .offset = offset, .bytes = bytes};

    if (bytes > 0 && bf_atomic_load(&backup->is_over) == 0 &&
        is_planned(backup, offset, bytes)) {
        bf_co_call(backup->base.loop, before_co_run, &before);
    }
}
