/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copy engine's main part: picks what to copy next and starts an operation
 * for it, as long as there is room.
 *
 * What makes it right while others write: granules are taken from the bitmap
 * first, and the source is asked for its zeroes and data only then. A write
 * that holds a range leaves no marks, so zeroes that were found before it ended
 * are looked for again: in what is taken and not begun (the span), and in
 * operations that had to wait for the range.
 */
#include <errno.h>
#include <inttypes.h>

#include "copy-private.h"
#include "core/error.h"
#include "core/util.h"

/* Most granules taken at once, to be asked for zeroes in one go. */
#define SPAN_MAX BF_GIB

/* What is written before the target is flushed while the copy goes on. */
#define FLUSH_BYTES (128 * BF_MIB)

/* How long something may be loose that could not be copied again. */
#define EXPOSED_MAX_NS BF_NS_PER_SEC

/* What is copied without knowing its zeroes, when a question was in vain. */
#define SPAN_BLIND_MAX (16 * BF_MIB)

#define SPAN_EXTENTS 1024
#define TICK_NS (100 * BF_NS_PER_MS)

/* Picking. */

/* Takes the next dirty run and asks the source what is zero in it. */
static bool
co_take_span(BfCopy *copy)
{
    BfBitmap *dirty = copy->config.dirty;
    BfCopySpan *span = &copy->span;
    uint64_t max = MAX(SPAN_MAX, copy->granularity);
    uint64_t offset, bytes, known;
    int ret = -ENOTSUP;

    if (!bf_bitmap_take(dirty, copy->cursor, UINT64_MAX, max, &offset,
                        &bytes)) {
        copy->is_through = true;
        if (!bf_bitmap_take(dirty, 0, copy->cursor, max, &offset, &bytes)) {
            return false;
        }
    }
    copy->cursor = offset + bytes;
    span->pos = span->start = offset;
    span->end = offset + bytes;
    span->index = 0;
    bf_copy_note_taken(copy, bytes);
    bf_extents_clear(&span->extents);
    bf_extents_init(&span->extents, SPAN_EXTENTS);
    /* Zeroes in a small piece are found once it is read. */
    if (bytes >= UNIT_MAX) {
        span->asking = true;
        span->is_stale = false;
        ret = bf_handle_co_extents(copy->config.source, offset, bytes,
                                   &span->extents);
        span->asking = false;
    }
    if (ret < 0 || span->is_stale) {
        bf_extents_clear(&span->extents);
        bf_extents_init(&span->extents, 1);
        /* Asked again for all of it, writers might never let us begin. */
        bf_extents_append(&span->extents,
                          ret < 0 ? bytes : MIN(bytes, SPAN_BLIND_MAX), 0);
        span->is_stale = false;
    }
    known = bf_align_up(offset + span->extents.bytes, copy->granularity);
    if (known < span->end) {
        bf_bitmap_put_back(dirty, known, span->end - known);
        span->end = known;
        /* It may have gone back further meanwhile: see bf_copy_put_back(). */
        copy->cursor = MIN(copy->cursor, known);
    }
    return true;
}

/* The end of the run of extents from span->pos on that are zero, or are not;
 * one that begins the run counts as data if it is too short for zeroes. */
static uint64_t
extents_end(const BfCopySpan *span, bool zero)
{
    const BfExtents *extents = &span->extents;
    uint64_t end = span->start;
    size_t i = span->index;

    if (!zero && i < extents->len) {
        end += extents->items[i++].bytes;
    }
    while (i < extents->len &&
           ((extents->items[i].flags & BF_EXTENT_ZERO) != 0) == zero) {
        end += extents->items[i++].bytes;
    }
    /* What the list does not reach is data. */
    return !zero && i == extents->len ? MAX(end, span->end) : end;
}

static bool
is_zero_at(const BfCopySpan *span)
{
    const BfExtents *extents = &span->extents;

    return span->index < extents->len &&
           (extents->items[span->index].flags & BF_EXTENT_ZERO) != 0;
}

static void
seek_extent(BfCopySpan *span)
{
    const BfExtents *extents = &span->extents;

    while (span->index < extents->len &&
           span->start + extents->items[span->index].bytes <= span->pos) {
        span->start += extents->items[span->index++].bytes;
    }
}

/* Cuts the next piece off the span, which is not empty. */
static uint64_t
next_piece(BfCopy *copy, bool *ret_zeroes)
{
    BfCopySpan *span = &copy->span;
    uint64_t pos = span->pos;
    uint64_t end = pos;

    seek_extent(span);
    if (is_zero_at(span)) {
        end = MIN(extents_end(span, true), span->end);
        if (end < span->end) {
            end = bf_align_down(end, copy->granularity);
        }
        end = MIN(end, pos + MAX(copy->zeroes_max, copy->granularity));
    }
    *ret_zeroes = end > pos;
    if (end <= pos) {
        end = bf_align_up(extents_end(span, false), copy->granularity);
        end = MIN(MIN(end, span->end), pos + copy->piece);
    }
    span->pos = end;
    return end - pos;
}

/* The caller makes sure that there is room. */
static bool
co_start_next(BfCopy *copy)
{
    BfCopySpan *span = &copy->span;
    unsigned before = copy->in_flight;
    uint64_t pos, bytes;
    bool zeroes;

    if (span->pos >= span->end && !co_take_span(copy)) {
        return false;
    }
    if (span->pos >= span->end || bf_job_is_cancelled(copy->config.job)) {
        return true; /* it was released meanwhile, or need not be copied */
    }
    pos = span->pos;
    bytes = next_piece(copy, &zeroes);
    bf_copy_start_op(copy, pos, bytes, zeroes);
    if (copy->in_flight == before) {
        bf_co_yield(); /* all of it ran at once; others want to run, too */
    }
    return true;
}

static bool
has_room(const BfCopy *copy)
{
    return copy->in_flight < copy->tune.depth &&
           (copy->buf_in_flight == 0 ||
            copy->buf_in_flight + copy->unit <= copy->buf_limit);
}

/* Running. */

static void
timer_expired(void *arg)
{
    BfCopy *copy = arg;

    copy->expired = true;
    bf_co_queue_wake_all(&copy->changed);
}

static void
start_timer(BfCopy *copy, uint64_t ns)
{
    copy->expired = false;
    bf_timer_start(&copy->timer, ns, timer_expired, copy);
}

void
bf_copy_co_settle(BfCopy *copy)
{
    bf_copy_release_span(copy);
    if (copy->fetching) {
        /* What it waits for is charged, and used later. */
        bf_throttle_member_hurry_here(copy->config.throttle, true);
        bf_throttle_member_hurry_here(copy->config.throttle, false);
    }
    while (copy->in_flight > 0 || copy->fetching) {
        bf_co_queue_co_wait(&copy->changed);
    }
    bf_copy_update_progress(copy);
}

static void
set_error(const BfCopy *copy, int err, GError **error)
{
    if (copy->beyond_repair == 0) {
        bf_set_error(error, "%s", g_strerror(err));
        return;
    }
    bf_set_errno(error, err,
                 "The target may have lost bytes %" PRIu64 " to %" PRIu64
                 ", which it had not flushed, and the source was overwritten "
                 "there since; start the job anew",
                 copy->beyond_offset,
                 copy->beyond_offset + copy->beyond_repair - 1);
}

/* Asks the job what to do about the failure that was noted. */
static bool
co_deal_with_error(BfCopy *copy, GError **error)
{
    BfJob *job = copy->config.job;
    BfBlockdevOnError policy;
    int err;

    bf_copy_co_settle(copy);
    err = copy->err;
    policy = copy->beyond_repair > 0 ? BF_BLOCKDEV_ON_ERROR_REPORT
             : copy->err_is_read     ? copy->config.on_source_error
                                     : copy->config.on_target_error;
    if (!bf_job_is_cancelled(job) &&
        bf_job_co_error(job, bf_job_error_action(policy, err),
                        copy->err_is_read, err)) {
        copy->err = 0;
        return true;
    }
    if (!bf_job_is_cancelled(job)) {
        set_error(copy, err, error);
    }
    return false;
}

static bool
co_pause(BfCopy *copy)
{
    bf_copy_co_settle(copy);
    return bf_job_co_pause_point(copy->config.job);
}

/* Cuts pieces that fit into what may run ahead of the job's speed. Returns how
 * long to wait for the next one. */
static uint64_t
look_at_rate(BfCopy *copy)
{
    BfJob *job = copy->config.job;
    uint64_t slice = bf_align_down(bf_job_rate_slice(job), copy->granularity);

    copy->piece = MAX(copy->granularity, MIN(copy->piece_max, slice));
    return bf_job_rate_wait(job, copy->piece, copy->buf_in_flight);
}

static void
rate_timer_expired(void *arg)
{
    BfCopy *copy = arg;

    bf_co_queue_wake_all(&copy->changed);
}

/* What is under way goes on meanwhile. */
static bool
co_wait_for_rate(BfCopy *copy, uint64_t wait_ns)
{
    wait_ns = MIN(wait_ns, TICK_NS);
    if (copy->in_flight == 0) {
        return bf_job_co_sleep(copy->config.job, wait_ns);
    }
    bf_timer_start(&copy->rate_timer, wait_ns, rate_timer_expired, copy);
    bf_co_queue_co_wait(&copy->changed);
    bf_timer_stop(&copy->rate_timer);
    return true;
}

static void
flush_co_run(void *arg)
{
    BfCopy *copy = arg;

    int ret = bf_handle_co_flush(copy->config.target);

    copy->flush_ret = bf_copy_flush_ended(copy, ret);
    copy->flushing = false;
    bf_job_note_flush(copy->config.job, false);
    copy->in_flight--;
    bf_co_queue_wake_all(&copy->changed);
}

/* A flush that nobody waits for counts as under way, too. */
static void
start_flush(BfCopy *copy)
{
    copy->flushing = true;
    bf_job_note_flush(copy->config.job, true);
    copy->in_flight++;
    copy->unflushed = 0;
    bf_copy_flush_begins(copy);
    bf_co_spawn(flush_co_run, copy);
}

/* So that the target's disk works while the copy goes on, and little is left to
 * be flushed at its end. A flush just before the end would only have to be
 * waited for, and then another one. */
static bool
wants_flush(const BfCopy *copy)
{
    uint64_t left = bf_atomic_load(&copy->left);
    bool is_near_end = left > 0 && left < FLUSH_BYTES;

    return !copy->flushing &&
           (copy->unflushed >= (is_near_end ? 2 : 1) * FLUSH_BYTES ||
            (copy->is_exposed &&
             bf_loop_now_ns() - copy->flushed_ns >= EXPOSED_MAX_NS));
}

static BfCopyStatus
co_run_until_tick(BfCopy *copy, GError **error)
{
    BfJob *job = copy->config.job;

    while (!copy->expired) {
        bool go_on = !bf_job_is_cancelled(job);
        uint64_t wait_ns;

        if (go_on && copy->err != 0) {
            go_on = co_deal_with_error(copy, error);
        } else if (go_on && bf_job_wants_pause(job)) {
            go_on = co_pause(copy);
        } else if (go_on && wants_flush(copy)) {
            start_flush(copy);
        } else if (go_on && !has_room(copy)) {
            copy->tune.was_full = true;
            bf_co_queue_co_wait(&copy->changed);
        } else if (go_on && (wait_ns = look_at_rate(copy)) > 0) {
            go_on = co_wait_for_rate(copy, wait_ns);
        } else if (go_on && !bf_copy_has_credit(copy)) {
            bf_co_queue_co_wait(&copy->changed);
        } else if (go_on && !co_start_next(copy)) {
            if (copy->in_flight == 0) {
                return BF_COPY_CLEAN;
            }
            bf_co_queue_co_wait(&copy->changed);
        }
        if (!go_on) {
            return BF_COPY_ENDED;
        }
    }
    return BF_COPY_MORE;
}

BfCopyStatus
bf_copy_co_run(BfCopy *copy, GError **error)
{
    BfCopyStatus status;

    bf_assert_loop(copy->config.job->loop);
    if (copy->rates_ns == 0) {
        bf_copy_update_progress(copy); /* what is done is taken off that */
    }
    start_timer(copy, TICK_NS);
    status = co_run_until_tick(copy, error);
    bf_timer_stop(&copy->timer);
    bf_copy_update_progress(copy);
    return status;
}

bool
bf_copy_is_stable(const BfCopy *copy)
{
    return !copy->flushing && copy->flushed_ns != 0 && copy->flush_ret == 0 &&
           copy->err == 0 && bf_bitmap_count(copy->loose) == 0;
}

static int
co_flush(BfCopy *copy)
{
    while (copy->flushing && !copy->expired) {
        bf_co_queue_co_wait(&copy->changed);
    }
    if (copy->expired) {
        return -ETIMEDOUT;
    }
    if (copy->err != 0) {
        return -copy->err;
    }
    start_flush(copy);
    while (copy->flushing && !copy->expired) {
        bf_co_queue_co_wait(&copy->changed);
    }
    return copy->flushing ? -ETIMEDOUT : copy->flush_ret;
}

/* @once: what is dirtied behind the cursor is left. */
static int
co_copy_rest(BfCopy *copy, bool once)
{
    const BfCopySpan *span = &copy->span;

    if (once) {
        copy->cursor = 0;
        copy->is_through = false;
    }
    while (copy->err == 0) {
        bool swept = once && copy->is_through && span->pos >= span->end;

        if (bf_job_is_cancelled(copy->config.job)) {
            return -ECANCELED;
        }
        if (copy->expired) {
            return -ETIMEDOUT;
        }
        if (!swept && has_room(copy) && co_start_next(copy)) {
            continue;
        }
        if (copy->in_flight == 0) {
            return 0;
        }
        bf_co_queue_co_wait(&copy->changed);
    }
    return -copy->err;
}

int
bf_copy_co_flush(BfCopy *copy, uint64_t limit_ns)
{
    int ret = -copy->err;

    bf_assert_loop(copy->config.job->loop);
    if (ret == 0) {
        start_timer(copy, limit_ns);
        ret = co_flush(copy);
        bf_timer_stop(&copy->timer);
    }
    return ret;
}

bool
bf_copy_co_guard(BfCopy *copy, GError **error)
{
    bf_assert_loop(copy->config.job->loop);
    bf_copy_update_progress(copy);
    if (copy->err == 0 && wants_flush(copy)) {
        start_flush(copy);
    }
    return copy->err == 0 || co_deal_with_error(copy, error);
}

static int
co_finish(BfCopy *copy, uint64_t limit_ns, bool once)
{
    int ret;

    bf_assert_loop(copy->config.job->loop);
    copy->piece = copy->piece_max;
    start_timer(copy, limit_ns);
    ret = co_copy_rest(copy, once);
    if (ret == 0) {
        ret = co_flush(copy);
    }
    bf_timer_stop(&copy->timer);
    bf_copy_release_span(copy);
    bf_copy_update_progress(copy);
    return ret;
}

int
bf_copy_co_catch_up(BfCopy *copy, uint64_t limit_ns)
{
    return co_finish(copy, limit_ns, true);
}

int
bf_copy_co_finish(BfCopy *copy, uint64_t limit_ns)
{
    return co_finish(copy, limit_ns, false);
}
