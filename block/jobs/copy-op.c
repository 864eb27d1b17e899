/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The copy engine's operations: one coroutine for each, ordered by the ranges
 * that they cover; progress, and how many operations there are at once.
 */
#include "copy-private.h"

#include <errno.h>

#include "core/util.h"

#define UNIT_MIN 4096

/* A run of zeroes inside of data that is worth a request of its own. */
#define ZERO_RUN_MIN (64 * BF_KIB)

/* Operations at the same time: at the start, and at most. */
#define DEPTH_START 16
#define DEPTH_MAX 512

/* Shortest time that tells something about the rate. */
#define TUNE_NS (10 * BF_NS_PER_MS)
#define TUNE_HOLD 32

#define RATES_NS (500 * BF_NS_PER_MS)

typedef struct CopyOp {
    BfCopy *copy;
    BfCopyRange range;
    bool zeroes;
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
    copy->tune.depth = copy->tune.good_depth = DEPTH_START;
    bf_extents_init(&copy->span.extents, 1);
    copy->is_target_zero = (config->flags & BF_COPY_TARGET_ZERO) != 0;
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
    span->pos = span->end = 0;
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

void
bf_copy_end_range(BfCopy *copy, BfCopyRange *range)
{
    const BfCopySpan *span = &copy->span;

    /* What is known about zeroes there may be from before. */
    if (range->start < span->end && span->pos < range->end) {
        bf_copy_release_span(copy);
    }
    range_remove(copy, range);
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
    return copy->is_through;
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

static unsigned
more(unsigned depth)
{
    return MIN(depth + depth / 2, DEPTH_MAX);
}

/*
 * More operations at once as long as that makes it faster: where each takes
 * long, as over a network, the rate grows with their number; where it does
 * not, memory is spared. Now and then it is tried again.
 */
static void
tune(BfCopy *copy, uint64_t bytes)
{
    BfCopyTune *t = &copy->tune;
    uint64_t now = bf_loop_now_ns();
    uint64_t elapsed = now - t->since_ns;
    uint64_t rate;

    t->bytes += bytes;
    if (++t->ops < t->depth || elapsed < TUNE_NS) {
        return;
    }
    rate = per_second(t->bytes, elapsed);
    if (t->was_full && t->hold > 0) {
        t->good_rate = (t->good_rate + rate) / 2;
        t->hold--;
        t->depth = t->hold == 0 ? more(t->depth) : t->depth;
    } else if (t->was_full && rate > t->good_rate + t->good_rate / 16) {
        t->good_rate = rate;
        t->good_depth = t->depth;
        t->depth = more(t->depth);
    } else if (t->was_full) {
        t->depth = t->good_depth;
        t->hold = TUNE_HOLD;
    }
    t->since_ns = now;
    t->bytes = 0;
    t->ops = 0;
    t->was_full = false;
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

static int
co_make_zeroes(BfCopy *copy, uint64_t offset, uint64_t bytes)
{
    unsigned flags =
        (copy->config.flags & BF_COPY_UNMAP) != 0 ? BF_IO_MAY_UNMAP : 0;
    uint64_t dirty_offset, dirty_bytes;

    if (copy->is_target_zero && copy->written != NULL &&
        !bf_bitmap_next_dirty(copy->written, offset, offset + bytes,
                              &dirty_offset, &dirty_bytes)) {
        return 0;
    }
    return bf_handle_co_write_zeroes(copy->config.target, offset, bytes, flags);
}

static int
co_write_data(BfCopy *copy, char *buf, uint64_t offset, uint64_t bytes)
{
    BfIoVec vec;

    bf_copy_note_written(copy, offset, bytes);
    bf_iovec_init_buf(&vec, buf, bytes);
    return bf_handle_co_write(copy->config.target, offset, &vec, 0);
}

/* The bytes at the start of @buf that are all zero, or all not: by pieces. */
static uint64_t
run_length(const char *buf, uint64_t bytes, bool *ret_zero)
{
    uint64_t n = MIN(bytes, ZERO_RUN_MIN);
    bool zero = bf_mem_is_zero(buf, n);

    while (n < bytes) {
        uint64_t next = MIN(bytes - n, ZERO_RUN_MIN);

        if (bf_mem_is_zero(buf + n, next) != zero) {
            break;
        }
        n += next;
    }
    *ret_zero = zero;
    return n;
}

static int
co_write_runs(BfCopy *copy, char *buf, uint64_t offset, uint64_t bytes)
{
    uint64_t done = 0;
    int ret = 0;

    while (ret == 0 && done < bytes) {
        bool zero;
        uint64_t n = run_length(buf + done, bytes - done, &zero);

        ret = zero ? co_make_zeroes(copy, offset + done, n)
                   : co_write_data(copy, buf + done, offset + done, n);
        done += n;
    }
    return ret;
}

int
bf_copy_co_move(BfCopy *copy, uint64_t offset, uint64_t bytes,
                bool *ret_is_read)
{
    const uint64_t end = offset + bytes;
    const uint64_t buf_bytes = MIN(bytes, copy->unit);
    char *buf = bf_buffer_new(buf_bytes);
    int ret = 0;

    *ret_is_read = true;
    if (buf == NULL) {
        return -ENOMEM;
    }
    while (ret == 0 && offset < end) {
        uint64_t n = MIN(end - offset, buf_bytes);
        BfIoVec vec;

        bf_iovec_init_buf(&vec, buf, n);
        ret = bf_handle_co_read(copy->config.source, offset, &vec, 0);
        *ret_is_read = ret < 0;
        if (ret == 0) {
            ret = co_write_runs(copy, buf, offset, n);
        }
        offset += n;
    }
    bf_buffer_free(buf, buf_bytes);
    return ret;
}

static void
op_co_run(void *arg)
{
    CopyOp *op = arg;
    BfCopy *copy = op->copy;
    uint64_t offset = op->range.start;
    uint64_t bytes = op->range.end - offset;
    bool is_read = false;
    int ret;

    if (range_co_wait(&op->range) && op->zeroes) {
        /* Who was there before may have written data. */
        op->zeroes = false;
        op->buf_bytes = MIN(bytes, copy->unit);
        copy->buf_in_flight += op->buf_bytes;
        bf_copy_charge(copy, bytes);
    }
    ret = op->zeroes ? co_make_zeroes(copy, offset, bytes)
                     : bf_copy_co_move(copy, offset, bytes, &is_read);
    copy->in_flight--;
    copy->bytes_in_flight -= bytes;
    copy->buf_in_flight -= op->buf_bytes;
    if (ret < 0) {
        bf_bitmap_put_back(copy->config.dirty, offset, bytes);
        note_error(copy, is_read, -ret);
    } else {
        bf_copy_note_done(copy, bytes);
        if (!op->zeroes) {
            copy->unflushed += bytes;
            tune(copy, bytes);
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
    range_insert(copy, &op->range, offset, bytes);
    copy->in_flight++;
    copy->bytes_in_flight += bytes;
    copy->buf_in_flight += op->buf_bytes;
    if (!zeroes) {
        bf_job_take_rate(copy->config.job, bytes);
        bf_copy_charge(copy, bytes);
    }
    bf_co_spawn(op_co_run, op);
}
