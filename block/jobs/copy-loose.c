/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copy engine's care for what the target has acknowledged and not yet made
 * stable.
 *
 * A flush that fails says that some of it may be gone, and one that succeeds
 * afterwards says nothing about it: storage tells each loss once. A server that
 * was started anew while we were away tells nothing at all. So all that was
 * written since the last flush that did not fail is copied again. It is known
 * as what was ever written within one run from the lowest to the highest byte
 * since that flush, which is cheap to keep; too much of it costs only time.
 * Ranges that are held meanwhile may have been written in part: they are copied
 * again when they are let go.
 * What a user of the source has overwritten since cannot be copied again; then
 * the job must fail.
 */
#include <errno.h>

#include "copy-private.h"
#include "core/util.h"

static void
run_add(BfCopyRun *run, uint64_t start, uint64_t end)
{
    if (start >= end) {
        return;
    }
    if (run->start >= run->end) {
        *run = (BfCopyRun){start, end};
    } else {
        run->start = MIN(run->start, start);
        run->end = MAX(run->end, end);
    }
}

void
bf_copy_note_loose(BfCopy *copy, const BfCopyRange *range)
{
    uint64_t bytes = range->end - range->start;

    bf_bitmap_put_back(copy->touched, range->start, bytes);
    run_add(&copy->loose, range->start, range->end);
    if (range->has_lost) {
        bf_bitmap_put_back(copy->config.dirty, range->start, bytes);
    }
}

void
bf_copy_note_overwritten(BfCopy *copy, uint64_t start, uint64_t end)
{
    run_add(&copy->overwritten, start, end);
}

void
bf_copy_flush_begins(BfCopy *copy)
{
    copy->in_flush = copy->loose;
    copy->loose = (BfCopyRun){0};
}

static void
copy_again(BfCopy *copy, BfCopyRun lost)
{
    uint64_t offset = lost.start;
    uint64_t bytes = 0;

    while (offset < lost.end &&
           bf_bitmap_next_dirty(copy->touched, offset, lost.end, &offset,
                                &bytes)) {
        bf_bitmap_put_back(copy->config.dirty, offset, bytes);
        offset += bytes;
    }
}

/* What came while the flush was under way may be lost as well, and what is
 * still under way. */
static BfCopyRun
find_lost(const BfCopy *copy)
{
    BfCopyRun lost = copy->loose;

    run_add(&lost, copy->in_flush.start, copy->in_flush.end);
    for (const BfCopyRange *r = copy->newest; r != NULL; r = r->older) {
        run_add(&lost, r->start, r->end);
    }
    return lost;
}

static void
mark_held_ranges(BfCopy *copy)
{
    for (BfCopyRange *r = copy->newest; r != NULL; r = r->older) {
        r->has_lost = true;
    }
}

static bool
is_overwritten(const BfCopy *copy, BfCopyRun run)
{
    return run.start < copy->overwritten.end &&
           copy->overwritten.start < run.end;
}

/* That a server was away may mean nothing; a job that has no way to copy again
 * does not fail for that. */
int
bf_copy_flush_ended(BfCopy *copy, int ret)
{
    const BfCopyRun lost = find_lost(copy);
    uint64_t losses = bf_handle_last_loss(copy->config.target);
    bool was_away = losses > copy->losses;

    copy->losses = losses;
    copy->has_lost |= ret < 0 || was_away;
    if (ret == 0 && (!was_away || is_overwritten(copy, lost))) {
        return 0;
    }
    copy->loose = (BfCopyRun){0};
    copy->is_beyond_repair = is_overwritten(copy, lost);
    if (!copy->is_beyond_repair) {
        copy_again(copy, lost);
        mark_held_ranges(copy);
    }
    if (ret == 0) {
        return -EAGAIN;
    }
    bf_copy_note_error(copy, -ret);
    return ret;
}
