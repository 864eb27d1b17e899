/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copy engine, asked by a filter: copies the old data of a range before
 * somebody writes there.
 *
 * While it waits for others it holds no range: an operation that begins behind
 * one would have taken its granules from the bitmap, and the filter would take
 * them for copied. When nobody is in the range, all its dirty granules are
 * taken at once, without suspending between the look and the taking.
 */
#include <errno.h>

#include "copy-private.h"
#include "core/util.h"

typedef struct Piece {
    uint64_t offset;
    uint64_t bytes;
} Piece;

static BfCopyRange *
find_overlap(const BfCopy *copy, uint64_t start, uint64_t end)
{
    for (BfCopyRange *range = copy->newest; range != NULL;
         range = range->older) {
        if (range->start < end && start < range->end) {
            return range;
        }
    }
    return NULL;
}

static void
co_wait_for_others(BfCopy *copy, uint64_t start, uint64_t end)
{
    BfCopyRange *other = NULL;

    while ((other = find_overlap(copy, start, end)) != NULL) {
        bf_co_queue_co_wait(&other->waiters);
    }
    if (copy->span.pos < end && start < copy->span.end) {
        bf_copy_release_span(copy);
    }
}

static GArray *
take_pieces(BfCopy *copy, uint64_t start, uint64_t end)
{
    GArray *pieces = g_array_new(FALSE, FALSE, sizeof(Piece));
    Piece piece;

    while (bf_bitmap_take(copy->config.dirty, start, end, copy->piece_max,
                          &piece.offset, &piece.bytes)) {
        g_array_append_val(pieces, piece);
        start = piece.offset + piece.bytes;
    }
    return pieces;
}

static int
co_copy_pieces(BfCopy *copy, const GArray *pieces)
{
    bool is_read = false;
    int ret = 0;

    for (unsigned i = 0; i < pieces->len; i++) {
        const Piece *piece = &g_array_index(pieces, Piece, i);

        if (ret == 0) {
            bf_copy_charge(copy, piece->bytes);
            ret = bf_copy_co_move(copy, piece->offset, piece->bytes, &is_read);
        }
        copy->bytes_in_flight -= piece->bytes;
        if (ret < 0) {
            bf_bitmap_put_back(copy->config.dirty, piece->offset, piece->bytes);
        } else {
            bf_copy_note_done(copy, piece->bytes);
            copy->unflushed += piece->bytes;
        }
    }
    return ret;
}

/* The rest of the range was copied before, and must not be copied again. */
static void
note_pieces_loose(BfCopy *copy, const GArray *pieces, bool has_lost)
{
    for (unsigned i = 0; i < pieces->len; i++) {
        const Piece *piece = &g_array_index(pieces, Piece, i);
        const BfCopyRange range = {
            .start = piece->offset,
            .end = piece->offset + piece->bytes,
            .has_lost = has_lost,
        };

        bf_copy_note_loose(copy, &range);
    }
}

/* Counted as under way from the beginning, so that the copy does not settle
 * before it. */
static int
co_copy_dirty(BfCopy *copy, uint64_t start, uint64_t end, bool *ret_has_lost)
{
    g_autoptr(GArray) pieces = NULL;
    BfCopyRange range;
    int ret = 0;

    *ret_has_lost = false;
    co_wait_for_others(copy, start, end);
    pieces = take_pieces(copy, start, end);
    if (pieces->len == 0) {
        return 0;
    }
    for (unsigned i = 0; i < pieces->len; i++) {
        copy->bytes_in_flight += g_array_index(pieces, Piece, i).bytes;
    }
    bf_copy_co_begin_range(copy, &range, start, end - start);
    ret = co_copy_pieces(copy, pieces);
    note_pieces_loose(copy, pieces, range.has_lost);
    *ret_has_lost = range.has_lost;
    bf_copy_leave_range(copy, &range);
    return ret;
}

/* What was lost before the write begins is still there to be copied. */
static int
co_copy_before(BfCopy *copy, uint64_t start, uint64_t end)
{
    bool again = true;
    int ret = 0;

    while (ret == 0 && again) {
        ret = co_copy_dirty(copy, start, end, &again);
    }
    return ret;
}

int
bf_copy_co_before_write(BfCopy *copy, uint64_t offset, uint64_t bytes)
{
    const uint64_t start = bf_align_down(offset, copy->granularity);
    const uint64_t end =
        MIN(bf_align_up(offset + bytes, copy->granularity), copy->size);
    int ret = 0;

    bf_assert_loop(copy->config.job->loop);
    copy->in_flight++;
    bf_job_hold_write(copy->config.job, 0);
    ret = co_copy_before(copy, start, end);
    bf_copy_note_overwritten(copy, start, end - start);
    bf_job_let_write_go(copy->config.job, 0);
    copy->in_flight--;
    bf_co_queue_wake_all(&copy->changed);
    return ret;
}
