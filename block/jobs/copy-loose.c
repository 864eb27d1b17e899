/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copy engine's care for what the target has acknowledged and not yet made
 * stable.
 *
 * A flush that fails says that some of it may be gone, and one that succeeds
 * afterwards says nothing about it: storage tells each loss once. A server that
 * was started anew while we were away tells nothing at all. So all that was
 * written since the last flush that did not fail is copied again. Ranges that
 * are held meanwhile may have been written in part: their users are told, and
 * copy them again.
 * What a user of the source has overwritten since cannot be copied again where
 * it matters what was there before; then the job must fail. Nobody but we knows
 * what is missing then, so it never ends well.
 */
#include <errno.h>

#include "copy-private.h"
#include "core/util.h"

void
bf_copy_note_loose(BfCopy *copy, const BfCopyRange *range)
{
    uint64_t bytes = range->end - range->start;

    bf_bitmap_put_back(copy->loose, range->start, bytes);
    if (range->has_lost) {
        bf_copy_put_back(copy, range->start, bytes);
    }
}

void
bf_copy_note_overwritten(BfCopy *copy, uint64_t offset, uint64_t bytes)
{
    if (copy->overwritten != NULL) {
        bf_bitmap_put_back(copy->overwritten, offset, bytes);
        copy->is_exposed = true;
    }
}

void
bf_copy_flush_begins(BfCopy *copy)
{
    BfBitmap *covered = copy->loose;

    copy->loose = copy->in_flush;
    copy->in_flush = covered;
    bf_bitmap_clear(copy->loose);
    copy->is_exposed = false;
    copy->flushed_ns = bf_loop_now_ns();
}

/* Is there something in @lost that the source does not have any more? */
static bool
find_overwritten(BfCopy *copy, const BfBitmap *lost)
{
    uint64_t offset = 0, pos = 0;
    uint64_t bytes = 0, n = 0;

    while (copy->overwritten != NULL &&
           bf_bitmap_next_dirty(lost, offset, copy->size, &offset, &bytes)) {
        if (bf_bitmap_next_dirty(copy->overwritten, offset, offset + bytes,
                                 &pos, &n)) {
            copy->beyond_offset = pos;
            copy->beyond_repair = n;
            return true;
        }
        offset += bytes;
    }
    return false;
}

/* What came while the flush was under way may be lost as well. */
static void
copy_again(BfCopy *copy, const BfBitmap *lost)
{
    uint64_t offset = 0;
    uint64_t bytes = 0;

    while (bf_bitmap_next_dirty(lost, offset, copy->size, &offset, &bytes)) {
        bf_copy_put_back(copy, offset, bytes);
        offset += bytes;
    }
}

static void
mark_held_ranges(BfCopy *copy)
{
    for (BfCopyRange *r = copy->newest; r != NULL; r = r->older) {
        r->has_lost = true;
    }
}

int
bf_copy_flush_ended(BfCopy *copy, int ret)
{
    uint64_t last_loss = bf_handle_last_loss(copy->config.target);
    bool was_away = last_loss > copy->last_loss;

    copy->last_loss = last_loss;
    if (ret == 0 && !was_away) {
        return 0;
    }
    copy->has_lost = true;
    if (find_overwritten(copy, copy->in_flush) ||
        find_overwritten(copy, copy->loose)) {
        ret = ret < 0 ? ret : -EIO;
    } else {
        copy_again(copy, copy->in_flush);
        copy_again(copy, copy->loose);
        bf_bitmap_clear(copy->loose);
        mark_held_ranges(copy);
    }
    if (ret == 0) {
        return -EAGAIN;
    }
    bf_copy_note_error(copy, -ret);
    return ret;
}
