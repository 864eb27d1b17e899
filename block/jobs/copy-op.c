/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copy engine's operations: one coroutine for each, ordered by the ranges
 * that they cover; and progress.
 */
#include "copy-private.h"

#include <errno.h>

#include "core/util.h"

#define UNIT_MIN 4096

/* Most zeroes of an operation on a target that is quick at them: writes of the
 * source's users may have to wait for its end. */
#define LONG_ZEROES_MAX BF_GIB

#define RATES_NS (500 * BF_NS_PER_MS)

typedef struct CopyOp {
    BfCopy *copy;
    BfCopyRange range;
    bool zeroes;
    bool is_first; /* begun while not all had been taken up */
    uint64_t buf_bytes;
} CopyOp;

BfCopy *
bf_copy_new(const BfCopyConfig *config, GError **error)
{
    g_autoptr(BfCopy) copy = g_new0(BfCopy, 1);

    copy->config = *config;
    copy->size = bf_bitmap_size(config->dirty);
    copy->granularity = bf_bitmap_granularity(config->dirty);
    copy->buf_limit =
        config->buf_size != 0 ? config->buf_size : BF_COPY_BUF_DEFAULT;
    copy->unit = MIN(UNIT_MAX, bf_align_up(copy->buf_limit, UNIT_MIN));
    copy->piece_max =
        MAX(copy->granularity, bf_align_down(copy->unit, copy->granularity));
    copy->zeroes_max = CLAMP(bf_handle_limits(config->target)->long_zeroes,
                             ZEROES_MAX, LONG_ZEROES_MAX);
    copy->last_loss = bf_handle_last_loss(config->target);
    bf_copy_tune_init(&copy->tune);
    bf_extents_init(&copy->span.extents, 1);
    copy->is_target_zero = (config->flags & BF_COPY_TARGET_ZERO) != 0;
    copy->loose = bf_bitmap_new(NULL, copy->size, copy->granularity, error);
    copy->in_flush =
        copy->loose == NULL
            ? NULL
            : bf_bitmap_new(NULL, copy->size, copy->granularity, error);
    if (copy->in_flush == NULL) {
        return NULL;
    }
    if ((config->flags & BF_COPY_POINT_IN_TIME) != 0) {
        copy->overwritten =
            bf_bitmap_new(NULL, copy->size, copy->granularity, error);
        if (copy->overwritten == NULL) {
            return NULL;
        }
    }
    if ((config->flags & (BF_COPY_TARGET_ZERO | BF_COPY_TARGET_MAYBE_ZERO)) !=
        0) {
        copy->written =
            bf_bitmap_new(NULL, copy->size, copy->granularity, error);
        if (copy->written == NULL) {
            return NULL;
        }
    }
    return g_steal_pointer(&copy);
}

void
bf_copy_free(BfCopy *copy)
{
    if (copy != NULL) {
        g_assert(copy->in_flight == 0 && copy->newest == NULL &&
                 !copy->fetching);
        bf_extents_clear(&copy->span.extents);
        bf_bitmap_free(copy->written);
        bf_copy_close_pipes(copy);
        bf_bitmap_free(copy->loose);
        bf_bitmap_free(copy->in_flush);
        bf_bitmap_free(copy->overwritten);
        g_free(copy);
    }
}

/* Ranges. */

static BfCopyRange *
find_older_overlap(const BfCopyRange *range)
{
    for (BfCopyRange *o = range->older; o != NULL; o = o->older) {
        if (o->start < range->end && range->start < o->end) {
            return o;
        }
    }
    return NULL;
}

static void
range_insert(BfCopy *copy, BfCopyRange *range, uint64_t offset, uint64_t bytes)
{
    *range = (BfCopyRange){
        .start = offset,
        .end = offset + bytes,
        .older = copy->newest,
    };
    if (range->older != NULL) {
        range->older->younger = range;
    }
    copy->newest = range;
}

/* Returns true if it had to wait. */
static bool
range_co_wait(BfCopyRange *range)
{
    BfCopyRange *older;
    bool waited = false;

    while ((older = find_older_overlap(range)) != NULL) {
        bf_co_queue_co_wait(&older->waiters);
        waited = true;
    }
    return waited;
}

void
bf_copy_release_span(BfCopy *copy)
{
    BfCopySpan *span = &copy->span;

    bf_bitmap_put_back(copy->config.dirty, span->pos, span->end - span->pos);
    if (!copy->is_through && span->pos < span->end) {
        copy->cursor = MIN(copy->cursor, span->pos);
    }
    span->pos = span->end = 0;
}

void
bf_copy_put_back(BfCopy *copy, uint64_t offset, uint64_t bytes)
{
    bf_bitmap_put_back(copy->config.dirty, offset, bytes);
    copy->is_through = false;
    copy->cursor = MIN(copy->cursor, offset);
}

void
bf_copy_co_begin_range(BfCopy *copy, BfCopyRange *range, uint64_t offset,
                       uint64_t bytes)
{
    bf_assert_loop(copy->config.job->loop);
    range_insert(copy, range, offset, bytes);
    range_co_wait(range);
}

static void
range_remove(BfCopy *copy, BfCopyRange *range)
{
    if (range->younger != NULL) {
        range->younger->older = range->older;
    } else {
        copy->newest = range->older;
    }
    if (range->older != NULL) {
        range->older->younger = range->younger;
    }
    bf_co_queue_wake_all(&range->waiters);
}

static bool
has_zeroes(const BfCopySpan *span, const BfCopyRange *range)
{
    uint64_t start = span->start;

    for (size_t i = span->index;
         i < span->extents.len && start < MIN(range->end, span->end); i++) {
        uint64_t end = start + span->extents.items[i].bytes;

        if ((span->extents.items[i].flags & BF_EXTENT_ZERO) != 0 &&
            range->start < end) {
            return true;
        }
        start = end;
    }
    return false;
}

void
bf_copy_leave_range(BfCopy *copy, BfCopyRange *range)
{
    BfCopySpan *span = &copy->span;

    /* What is known about zeroes there may be from before. */
    if (range->start < span->end && span->pos < range->end) {
        if (span->asking) {
            span->is_stale = true;
        } else if (has_zeroes(span, range)) {
            bf_copy_release_span(copy);
        }
    }
    range_remove(copy, range);
}

void
bf_copy_end_range(BfCopy *copy, BfCopyRange *range)
{
    /* Its user may have written to the target. */
    bf_copy_note_loose(copy, range);
    copy->unflushed += range->end - range->start;
    bf_copy_leave_range(copy, range);
}

void
bf_copy_note_written(BfCopy *copy, uint64_t offset, uint64_t bytes)
{
    if (copy->written != NULL) {
        bf_bitmap_set(copy->written, offset, bytes);
    }
}

void
bf_copy_set_target_zero(BfCopy *copy)
{
    bf_assert_loop(copy->config.job->loop);
    g_assert(copy->written != NULL);
    copy->is_target_zero = true;
}

/* Failures. */

static void
note_error(BfCopy *copy, bool is_read, int err)
{
    if (copy->err == 0) {
        copy->err = err;
        copy->err_is_read = is_read;
    }
}

void
bf_copy_note_error(BfCopy *copy, int err)
{
    note_error(copy, false, err);
    bf_co_queue_wake_all(&copy->changed);
}

bool
bf_copy_has_error(const BfCopy *copy)
{
    return copy->err != 0;
}

bool
bf_copy_has_lost(const BfCopy *copy)
{
    return copy->has_lost;
}

bool
bf_copy_is_through(const BfCopy *copy)
{
    return copy->is_through && copy->first_ops == 0;
}

/* Progress. */

static void
note_left(BfCopy *copy, uint64_t left)
{
    bf_atomic_store(&copy->left, left);
    bf_job_set_remaining(copy->config.job, left);
}

/* Writers add what nobody has told the job, so more can be done than was left
 * to do; it is added first. */
void
bf_copy_note_done(BfCopy *copy, uint64_t bytes)
{
    uint64_t left = bf_atomic_load(&copy->left);

    if (left < bytes) {
        bf_job_add_remaining(copy->config.job, bytes - left);
        left = bytes;
    }
    bf_job_add_done(copy->config.job, bytes);
    bf_atomic_store(&copy->left, left - bytes);
    copy->copied += bytes;
}

void
bf_copy_hold_write(BfCopy *copy, uint64_t bytes)
{
    BfJob *job = copy->config.job;

    bf_assert_loop(job->loop);
    bf_job_hold_write(job, bytes);
    copy->bytes_in_flight += bytes;
    note_left(copy, bf_atomic_load(&copy->left) + bytes);
}

void
bf_copy_let_write_go(BfCopy *copy, uint64_t bytes, bool ok)
{
    bf_assert_loop(copy->config.job->loop);
    copy->bytes_in_flight -= bytes;
    if (ok) {
        bf_copy_note_done(copy, bytes);
    }
    bf_job_let_write_go(copy->config.job, bytes);
}

/* Their number is exact again at the next look at all that is dirty. */
void
bf_copy_note_taken(BfCopy *copy, uint64_t bytes)
{
    uint64_t held = bf_atomic_load(&copy->config.job->held_bytes);

    note_left(copy, MAX(bf_atomic_load(&copy->left), held + bytes));
}

static uint64_t
per_second(uint64_t bytes, uint64_t ns)
{
    return (uint64_t)((double)bytes * BF_NS_PER_SEC / (double)MAX(ns, 1));
}

/* The mean of the last second or two. */
static void
smooth_rate(BfCopy *copy, uint64_t now)
{
    uint64_t before = bf_atomic_load(&copy->copy_rate);

    bf_atomic_store(&copy->copy_rate, before == 0 ? now : before / 2 + now / 2);
}

void
bf_copy_update_progress(BfCopy *copy)
{
    uint64_t left = bf_bitmap_count(copy->config.dirty) +
                    (copy->span.end - copy->span.pos) + copy->bytes_in_flight;
    uint64_t now = bf_loop_now_ns();
    uint64_t elapsed = now - copy->rates_ns;

    note_left(copy, left);
    if (copy->rates_ns != 0 && elapsed < RATES_NS) {
        return;
    }
    if (copy->rates_ns != 0) {
        smooth_rate(copy,
                    per_second(copy->copied - copy->rates_copied, elapsed));
    }
    copy->rates_ns = now;
    copy->rates_copied = copy->copied;
}

void
bf_copy_get_rates(const BfCopy *copy, BfCopyRates *ret_rates)
{
    *ret_rates = (BfCopyRates){
        .left = bf_atomic_load(&copy->left),
        .copy_rate = bf_atomic_load(&copy->copy_rate),
    };
}

/* Throttling: one coroutine waits in front, for a piece at a time, so that no
 * operation waits with its range held. */

static void
fetch_co_run(void *arg)
{
    BfCopy *copy = arg;

    bf_throttle_member_co_wait(copy->config.throttle, true, copy->piece_max);
    copy->credit += copy->piece_max;
    copy->fetching = false;
    bf_co_queue_wake_all(&copy->changed);
}

bool
bf_copy_has_credit(BfCopy *copy)
{
    if (copy->config.throttle == NULL || copy->credit > 0) {
        return true;
    }
    if (!copy->fetching) {
        copy->fetching = true;
        bf_co_spawn(fetch_co_run, copy);
    }
    return copy->credit > 0;
}

void
bf_copy_charge(BfCopy *copy, uint64_t bytes)
{
    uint64_t paid = MIN(copy->credit, bytes);

    bf_assert_loop(copy->config.job->loop);
    if (copy->config.throttle == NULL) {
        return;
    }
    copy->credit -= paid;
    if (bytes > paid) {
        bf_throttle_member_charge(copy->config.throttle, true, bytes - paid);
    }
}

/* Operations. */

static void
op_co_run(void *arg)
{
    CopyOp *op = arg;
    BfCopy *copy = op->copy;
    uint64_t offset = op->range.start;
    uint64_t bytes = op->range.end - offset;
    bool is_read = false;
    uint64_t begun_ns, now_ns;
    int ret;

    if (range_co_wait(&op->range) && op->zeroes) {
        /* Who was there before may have written data. */
        op->zeroes = false;
        op->buf_bytes = MIN(bytes, copy->unit);
        copy->buf_in_flight += op->buf_bytes;
        bf_copy_charge(copy, bytes);
    }
    begun_ns = bf_loop_now_ns();
    ret = op->zeroes ? bf_copy_co_make_zeroes(copy, offset, bytes)
                     : bf_copy_co_move(copy, offset, bytes, &is_read);
    copy->in_flight--;
    copy->first_ops -= op->is_first ? 1 : 0;
    copy->bytes_in_flight -= bytes;
    copy->buf_in_flight -= op->buf_bytes;
    if (ret < 0) {
        bf_copy_put_back(copy, offset, bytes);
        note_error(copy, is_read, -ret);
    } else {
        bf_copy_note_done(copy, bytes);
        bf_copy_note_loose(copy, &op->range);
        if (!op->zeroes) {
            copy->unflushed += bytes;
            now_ns = bf_loop_now_ns();
            bf_copy_tune_ended(&copy->tune, now_ns - begun_ns, now_ns);
        }
    }
    range_remove(copy, &op->range);
    bf_co_queue_wake_all(&copy->changed);
    g_free(op);
}

void
bf_copy_start_op(BfCopy *copy, uint64_t offset, uint64_t bytes, bool zeroes)
{
    CopyOp *op = g_new0(CopyOp, 1);

    op->copy = copy;
    op->zeroes = zeroes;
    op->buf_bytes = zeroes ? 0 : MIN(bytes, copy->unit);
    op->is_first = !copy->is_through;
    range_insert(copy, &op->range, offset, bytes);
    copy->in_flight++;
    copy->first_ops += op->is_first ? 1 : 0;
    copy->bytes_in_flight += bytes;
    copy->buf_in_flight += op->buf_bytes;
    if (!zeroes) {
        bf_job_take_rate(copy->config.job, bytes);
        bf_copy_charge(copy, bytes);
    }
    bf_co_spawn(op_co_run, op);
}
