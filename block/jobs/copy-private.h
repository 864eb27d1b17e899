/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the sources of the copy engine share: its state, all of which
 * belongs to the job's loop but for the atomics.
 */
#pragma once

#include "block/copy.h"
#include "copy-tune-private.h"

/* Largest buffer of one operation, and most that it moves at once. */
#define UNIT_MAX UINT64_C(1048576)

/* Most zeroes made at once; some storage writes them. */
#define ZEROES_MAX (64 * BF_MIB)

/* What was taken from the bitmap and is not begun. */
typedef struct BfCopySpan {
    uint64_t pos;
    uint64_t end;
    BfExtents extents;
    size_t index;   /* of the extent that contains @pos */
    uint64_t start; /* of that extent */
    bool asking;    /* the source is being asked for the extents */
    bool is_stale;  /* and was written to meanwhile */
} BfCopySpan;

/* A pipe that carries data from source to target without a copy of ours. */
typedef struct BfCopyPipe BfCopyPipe;

struct BfCopy {
    BfCopyConfig config;
    uint64_t size;
    uint64_t granularity;
    uint64_t unit;       /* buffer of an operation */
    uint64_t piece_max;  /* most data of an operation, whole granules */
    uint64_t piece;      /* the same, as the job's speed allows */
    uint64_t zeroes_max; /* most zeroes of an operation */
    uint64_t buf_limit;
    BfBitmap *written;   /* owned: data in a target that was zero; or NULL */
    bool is_target_zero; /* but for that */
    bool probing;        /* that is being found out */
    BfCoQueue probed;    /* operations that wait for it */

    uint64_t cursor;
    bool is_through;    /* @cursor has been at the end */
    unsigned first_ops; /* operations begun before that and not ended */
    BfCopySpan span;
    BfCopyRange *newest;
    unsigned in_flight;
    uint64_t bytes_in_flight;
    uint64_t buf_in_flight;
    BfCopyTune tune;
    BfCopyPipe *pipes;   /* those that are free; owned */
    unsigned n_pipes;    /* in use, too */
    unsigned pipe_skips; /* units to move by buffers before the next try */
    int err;             /* of the first failure that is not dealt with */
    bool err_is_read;
    bool flushing;
    int flush_ret;
    uint64_t unflushed;    /* bytes of data written since a flush was begun */
    BfBitmap *loose;       /* owned: in the target since a flush was begun */
    BfBitmap *in_flush;    /* owned: what that flush covers */
    BfBitmap *overwritten; /* owned: changed in the source after it was copied;
                            * NULL: does not matter */
    bool is_exposed;       /* some of that is loose, too */
    uint64_t flushed_ns;   /* when a flush was begun last */
    uint64_t last_loss;    /* of the target, up to that flush's end */
    bool has_lost; /* a flush has failed, or covered less than it should */
    uint64_t beyond_repair; /* what it lost and cannot be copied again: bytes */
    uint64_t beyond_offset; /* and where the first of them are */
    uint64_t credit;   /* bytes that the throttle group has let pass already */
    bool fetching;     /* a coroutine waits for more of them */
    BfCoQueue changed; /* an operation has ended, or a timer */
    BfTimer timer;
    bool expired;
    BfTimer rate_timer;

    uint64_t rates_ns;
    uint64_t rates_copied;
    uint64_t copied; /* what was written twice counts twice */
    BfAtomicU64 left;
    BfAtomicU64 copy_rate;
};

/* Starts an operation; it may have ended on return. */
void bf_copy_start_op(BfCopy *copy, uint64_t offset, uint64_t bytes,
                      bool zeroes);
/* May data be copied? If not, asks the throttle group for it. */
bool bf_copy_has_credit(BfCopy *copy);
/* Marks what was taken and not begun as dirty again. */
void bf_copy_release_span(BfCopy *copy);
/* Marks what is not in the target, or may be lost there, as dirty again. */
void bf_copy_put_back(BfCopy *copy, uint64_t offset, uint64_t bytes);
/* These bytes are not dirty any more, but left to do. */
void bf_copy_note_taken(BfCopy *copy, uint64_t bytes);
void bf_copy_update_progress(BfCopy *copy);
/* Does a range of the target read as zeroes? Waits until that can be known. */
bool bf_copy_co_is_zero_there(BfCopy *copy, uint64_t offset, uint64_t bytes);
/* Makes a range of the target zero. */
int bf_copy_co_make_zeroes(BfCopy *copy, uint64_t offset, uint64_t bytes);
void bf_copy_close_pipes(BfCopy *copy);
/* Copies a range that nobody else is in. */
int bf_copy_co_move(BfCopy *copy, uint64_t offset, uint64_t bytes,
                    bool *ret_is_read);
void bf_copy_note_done(BfCopy *copy, uint64_t bytes);

/* copy-loose.c */
/* The target has acknowledged this range, which is about to be let go. */
void bf_copy_note_loose(BfCopy *copy, const BfCopyRange *range);
/* The source will not have any more what it had there. */
void bf_copy_note_overwritten(BfCopy *copy, uint64_t offset, uint64_t bytes);
void bf_copy_flush_begins(BfCopy *copy);
/* Returns @ret, -EAGAIN if something was lost and is to be copied again, or
 * -EIO if that cannot be. */
int bf_copy_flush_ended(BfCopy *copy, int ret);
/* Ends a range whose user has noted what is loose himself. */
void bf_copy_leave_range(BfCopy *copy, BfCopyRange *range);
