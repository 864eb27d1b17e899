/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finds out whether a target reads as zeroes, while data is copied to it: a
 * target that was just made needs none. Only zeroes wait for the answer.
 *
 * What this copy writes meanwhile shows in the answers. It is marked before it
 * is written, so what is not marked and not zero was there before.
 */
#include "copy-private.h"

/* Most questions: one for each 4 GiB of an NBD server. */
#define PROBE_MAX 4096

/* What one answer may tell. */
#define PROBE_EXTENTS 64

/* Has this copy written, or is it about to write, all of [@offset, @end)? */
static bool
is_ours(const BfCopy *copy, uint64_t offset, uint64_t end)
{
    uint64_t pos = 0, bytes = 0;

    while (offset < end) {
        if (!bf_bitmap_next_dirty(copy->written, offset, end, &pos, &bytes) ||
            pos > offset) {
            return false;
        }
        offset = pos + bytes;
    }
    return true;
}

/* How far from @offset on the target reads as zeroes but for what is ours. */
static uint64_t
co_find_zeroes_end(const BfCopy *copy, uint64_t offset)
{
    BfHandle *target = copy->config.target;
    uint64_t size = bf_handle_size(target);
    BfExtents extents;

    bf_extents_init(&extents, PROBE_EXTENTS);
    if (bf_handle_co_extents(target, offset, size - offset, &extents) == 0) {
        for (size_t i = 0; i < extents.len; i++) {
            uint64_t end = offset + extents.items[i].bytes;

            if ((extents.items[i].flags & BF_EXTENT_ZERO) == 0 &&
                !is_ours(copy, offset, MIN(end, size))) {
                break;
            }
            offset = end;
        }
    }
    bf_extents_clear(&extents);
    return offset;
}

static bool
co_is_zero(const BfCopy *copy)
{
    const BfJob *job = copy->config.job;
    uint64_t size = bf_handle_size(copy->config.target);
    uint64_t offset = 0;

    for (unsigned i = 0; i < PROBE_MAX && offset < size; i++) {
        uint64_t end = co_find_zeroes_end(copy, offset);

        if (end == offset || bf_job_is_cancelled(job) ||
            bf_job_wants_pause(job)) {
            return false;
        }
        offset = end;
    }
    return offset >= size;
}

static void
probe_co_run(void *arg)
{
    BfCopy *copy = arg;

    copy->is_target_zero = co_is_zero(copy);
    copy->probing = false;
    copy->in_flight--;
    bf_co_queue_wake_all(&copy->probed);
    bf_co_queue_wake_all(&copy->changed);
}

void
bf_copy_start_probe(BfCopy *copy)
{
    bf_assert_loop(copy->config.job->loop);
    g_assert(copy->written != NULL && !copy->is_target_zero && !copy->probing);
    copy->probing = true;
    copy->in_flight++; /* until it has ended nothing is settled */
    bf_co_spawn(probe_co_run, copy);
}

bool
bf_copy_co_is_zero_there(BfCopy *copy, uint64_t offset, uint64_t bytes)
{
    uint64_t dirty_offset, dirty_bytes;

    while (copy->probing) {
        bf_co_queue_co_wait(&copy->probed);
    }
    return copy->is_target_zero && copy->written != NULL &&
           !bf_bitmap_next_dirty(copy->written, offset, offset + bytes,
                                 &dirty_offset, &dirty_bytes);
}
