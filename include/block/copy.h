/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying: the engine of jobs that bring the dirty granules of a source to a
 * target, while others write to the source.
 *
 * It takes granules from a bitmap and copies them by many requests at once, in
 * buffers whose number follows the latency of the two sides. Zeroes are never
 * copied but made. What fails is marked dirty again, and the job is asked what
 * to do. Copies of overlapping ranges run one after another, oldest first.
 *
 * Everything runs on the job's loop but for what says otherwise; _co_ functions
 * suspend.
 */
#pragma once

#include "block/bitmap.h"
#include "block/handle.h"
#include "block/job-kind.h"
#include "block/throttle.h"

/**
 * BfCopy: a copy that goes on
 */
typedef struct BfCopy BfCopy;

/* Memory for data under way, if the user does not say: at the start, and what
 * it may grow to when the latency is large. */
#define BF_COPY_BUF_DEFAULT (128 * UINT64_C(1048576))

/**
 * BfCopyFlags: how to copy
 * @BF_COPY_UNMAP: zeroes may be deallocated in the target
 * @BF_COPY_TARGET_ZERO: the target reads as zeroes where this copy has not
 *     written yet
 * @BF_COPY_TARGET_MAYBE_ZERO: the same, once bf_copy_set_target_zero() says so
 *     or bf_copy_start_probe() has found it out
 * @BF_COPY_POINT_IN_TIME: the target must never get what the source is given
 *     after a range was copied
 */
typedef enum BfCopyFlags {
    BF_COPY_UNMAP = 1 << 0,
    BF_COPY_TARGET_ZERO = 1 << 1,
    BF_COPY_TARGET_MAYBE_ZERO = 1 << 2,
    BF_COPY_POINT_IN_TIME = 1 << 3,
} BfCopyFlags;

/**
 * BfCopyConfig: what is copied, and how
 * @job: borrowed: whose speed, pauses and progress count
 * @source: borrowed: on the job's loop
 * @target: borrowed: on the job's loop; at least of the source's size
 * @dirty: borrowed: what is to be copied; of the source's size
 * @throttle: (nullable): borrowed: on the job's loop; data is charged there
 * @buf_size: most memory for data under way, bytes; 0 for a default
 * @on_source_error: what happens when reading fails
 * @on_target_error: what happens when writing fails
 * @flags: BfCopyFlags
 */
typedef struct BfCopyConfig {
    BfJob *job;
    BfHandle *source;
    BfHandle *target;
    BfBitmap *dirty;
    BfThrottleMember *throttle;
    uint64_t buf_size;
    BfBlockdevOnError on_source_error;
    BfBlockdevOnError on_target_error;
    unsigned flags;
} BfCopyConfig;

/**
 * BfCopyStatus: how far it is
 * @BF_COPY_MORE: there is more to do; returned now and then
 * @BF_COPY_CLEAN: for a moment nothing was dirty and nothing under way
 * @BF_COPY_ENDED: the job is to end, as it has failed or was cancelled
 */
typedef enum BfCopyStatus {
    BF_COPY_MORE,
    BF_COPY_CLEAN,
    BF_COPY_ENDED,
} BfCopyStatus;

/**
 * BfCopyRates: how a copy gets on
 * @left: bytes to be copied, those under way included
 * @copy_rate: bytes copied per second, of late
 */
typedef struct BfCopyRates {
    uint64_t left;
    uint64_t copy_rate;
} BfCopyRates;

/**
 * BfCopyRange: a range that nobody copies meanwhile; on its user's stack
 *
 * Fields are private.
 */
typedef struct BfCopyRange {
    struct BfCopyRange *older;
    struct BfCopyRange *younger;
    uint64_t start;
    uint64_t end;
    bool has_lost;
    BfCoQueue waiters;
} BfCopyRange;

/**
 * bf_copy_new:
 * @config: copied
 * @error: set on failure: too little memory
 *
 * On any loop.
 *
 * Returns: (transfer full): a copy that has not begun, or NULL
 */
BfCopy *bf_copy_new(const BfCopyConfig *config, GError **error);

/**
 * bf_copy_free:
 * @copy: (nullable): settled
 *
 * On any loop.
 */
void bf_copy_free(BfCopy *copy);

/**
 * bf_copy_co_run:
 * @copy: a copy
 * @error: set if the job has failed
 *
 * In the job's co_run. Copies what is dirty, for about a tenth of a second.
 * Pauses, the limit of speed and failed requests are dealt with inside.
 * Requests are still under way when it returns %BF_COPY_MORE.
 *
 * Returns: what to do next
 */
BfCopyStatus bf_copy_co_run(BfCopy *copy, GError **error);

/**
 * bf_copy_co_settle:
 * @copy: a copy
 *
 * Waits until no request is under way.
 */
void bf_copy_co_settle(BfCopy *copy);

/**
 * bf_copy_is_through:
 * @copy: a copy
 *
 * Returns: true while all that was dirty at the beginning is in the target, or
 *     was at some time; what is dirty then is what writers have changed
 */
bool bf_copy_is_through(const BfCopy *copy);

/**
 * bf_copy_co_flush:
 * @copy: a copy
 * @limit_ns: nanoseconds
 *
 * Makes what was copied stable in the target. When the time is up the flush
 * still counts as under way.
 *
 * Returns: 0, -ETIMEDOUT, -EAGAIN if some of it was lost and is dirty again, or
 * another -errno; bf_copy_co_run() deals with it
 */
int bf_copy_co_flush(BfCopy *copy, uint64_t limit_ns);

/**
 * bf_copy_is_stable:
 * @copy: a copy
 *
 * Returns: true if a flush that has succeeded covers all that was written
 */
bool bf_copy_is_stable(const BfCopy *copy);

/**
 * bf_copy_co_guard:
 * @copy: a copy that is never run, as it copies only before writes
 * @error: set if the job has failed
 *
 * To be called each second or so: flushes the target if need be, and finds out
 * whether something was lost. Asks the job what to do about failures.
 *
 * Returns: false if the job is to end
 */
bool bf_copy_co_guard(BfCopy *copy, GError **error);

/**
 * bf_copy_co_catch_up:
 * @copy: a copy
 * @limit_ns: nanoseconds
 *
 * Like bf_copy_co_finish(), while writers go on: what they write meanwhile may
 * be left, so that an end is reached however much that is.
 *
 * Returns: as bf_copy_co_finish()
 */
int bf_copy_co_catch_up(BfCopy *copy, uint64_t limit_ns);

/**
 * bf_copy_co_finish:
 * @copy: a copy
 * @limit_ns: nanoseconds
 *
 * Copies all that is dirty and flushes the target, regardless of pauses and of
 * the limit of speed: for the moment when writers have to wait. After a failure
 * requests may be under way; bf_copy_co_run() goes on and asks the job what to
 * do.
 *
 * Returns: 0, -ETIMEDOUT, -EAGAIN as bf_copy_co_flush(), -ECANCELED if the job
 * was cancelled, or another -errno
 */
int bf_copy_co_finish(BfCopy *copy, uint64_t limit_ns);

/**
 * bf_copy_co_begin_range:
 * @copy: a copy
 * @range: (out caller-allocates): filled
 * @offset: bytes
 * @bytes: length, at least 1
 *
 * Waits until nobody copies this range or holds a part of it, and keeps others
 * from it. What is written to the source meanwhile needs no marks if it is
 * written to the target as well.
 */
void bf_copy_co_begin_range(BfCopy *copy, BfCopyRange *range, uint64_t offset,
                            uint64_t bytes);

/**
 * bf_copy_end_range:
 * @copy: a copy
 * @range: begun
 */
void bf_copy_end_range(BfCopy *copy, BfCopyRange *range);

/**
 * bf_copy_co_before_write:
 * @copy: a copy
 * @offset: bytes
 * @bytes: length, at least 1
 *
 * For a filter that keeps what is about to be overwritten in the source: copies
 * what is dirty in this range now, regardless of pauses and of the limit of
 * speed, and waits for those who copy it already. What fails is dirty again.
 *
 * Returns: 0 or -errno
 */
int bf_copy_co_before_write(BfCopy *copy, uint64_t offset, uint64_t bytes);

/**
 * bf_copy_start_probe:
 * @copy: with %BF_COPY_TARGET_MAYBE_ZERO
 *
 * Asks the target whether it reads as zeroes, while the copy goes on; zeroes
 * wait for the answer. Nobody but this copy writes to the target meanwhile. It
 * counts as a request that is under way.
 */
void bf_copy_start_probe(BfCopy *copy);

/**
 * bf_copy_set_target_zero:
 * @copy: with %BF_COPY_TARGET_MAYBE_ZERO
 *
 * Tells that the target was all zeroes when this copy began.
 */
void bf_copy_set_target_zero(BfCopy *copy);

/**
 * bf_copy_note_written:
 * @copy: a copy
 * @offset: bytes
 * @bytes: length
 *
 * Tells that somebody else writes data to the target; to be called before.
 */
void bf_copy_note_written(BfCopy *copy, uint64_t offset, uint64_t bytes);

/**
 * bf_copy_hold_write:
 * @copy: a copy
 * @bytes: length
 *
 * Tells that somebody else's write to the target begins. It counts as left to
 * do until bf_copy_let_write_go(), and is seen when the target does not answer.
 */
void bf_copy_hold_write(BfCopy *copy, uint64_t bytes);

/**
 * bf_copy_let_write_go:
 * @copy: a copy
 * @bytes: as for bf_copy_hold_write()
 * @ok: it is done; else it was marked in the bitmap before, as left to do
 *
 * Tells that the write has ended.
 */
void bf_copy_let_write_go(BfCopy *copy, uint64_t bytes, bool ok);

/**
 * bf_copy_charge:
 * @copy: a copy
 * @bytes: of data that goes to the target
 *
 * Charges them to the copy's throttle group, without waiting.
 */
void bf_copy_charge(BfCopy *copy, uint64_t bytes);

/**
 * bf_copy_note_error:
 * @copy: a copy
 * @err: a positive errno value
 *
 * Tells that somebody else has failed to write to the target, and has marked
 * the range dirty; bf_copy_co_run() asks the job what to do.
 */
void bf_copy_note_error(BfCopy *copy, int err);

/**
 * bf_copy_has_error:
 * @copy: a copy
 *
 * Returns: true while a failure has not been dealt with
 */
bool bf_copy_has_error(const BfCopy *copy);

/**
 * bf_copy_has_lost:
 * @copy: settled
 *
 * On any loop.
 *
 * Returns: true if a flush has failed or a server was away, so that of all that
 * was copied before nobody knows what is in the target
 */
bool bf_copy_has_lost(const BfCopy *copy);

/**
 * bf_copy_get_rates:
 * @copy: a copy
 * @ret_rates: (out): the numbers of late
 *
 * On any thread.
 */
void bf_copy_get_rates(const BfCopy *copy, BfCopyRates *ret_rates);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfCopy, bf_copy_free)
