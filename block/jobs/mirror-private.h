/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the sources of the mirror job share: its state, and the requests that
 * its filter sends it.
 */
#pragma once

#include "block/bitmap-ops.h"
#include "block/copy.h"
#include "block/driver.h"
#include "block/handle.h"
#include "block/job-kind.h"

/* What the user has asked for. */
typedef enum MirrorWish {
    MIRROR_WISH_NONE,
    MIRROR_WISH_COPY, /* end; the source's users stay */
    MIRROR_WISH_PIVOT,
} MirrorWish;

typedef struct BfMirror {
    BfJob base;
    BfGraph *graph;   /* borrowed */
    BfNode *source;   /* kept by @source_root */
    BfNode *target;   /* kept by @target_root */
    BfNode *replaces; /* kept by @replaces_root, or @source */
    BfNode *filter;   /* main: until it is taken out */
    BfRoot *source_root;
    BfRoot *target_root;
    BfRoot *replaces_root; /* (nullable) */
    BfHandle *source_handle;
    BfHandle *target_handle;
    BfThrottleMember *throttle; /* (nullable): owned */
    BfBitmap *dirty;            /* owned; hidden, on @source */
    BfBitmapUse *bitmap; /* (nullable): the user's, which says what to copy */
    bool keep_bitmap;    /* it is not cleared at the end */
    BfCopyConfig config;
    bool target_is_zero;
    bool is_full; /* everything is copied at first */

    BfAtomicU64 wish;
    BfAtomicU64 blocking; /* the copy mode */

    /* @base.loop. */
    BfCopy *copy;
    bool is_running;
    bool is_ready;
    int pass_ret; /* of the last pass; 1: it did not begin */
    uint64_t pass_limit_ns;
    uint64_t retry_ns; /* wait before the next hand-over */

    BfAtomicU64 is_active; /* writes go to both sides; @copy is there */

    bool handed_over; /* main */
} BfMirror;

/* mirror-run.c: the operations of these names. */
bool bf_mirror_co_run(BfJob *job, GError **error);
bool bf_mirror_co_prepare(BfJob *job, GError **error);

/* The filter, which has no options and cannot be added by a user. */
extern const BfDriver bf_driver_mirror_top;

/* The filter's node; main, while drained. */
void bf_mirror_top_set_job(BfNode *filter, BfMirror *mirror);

/* A write or a write of zeroes to the source, on its way through the filter. */
typedef struct BfMirrorWrite {
    BfMirror *mirror;
    uint64_t offset;
    uint64_t bytes;
    BfIoVec *vec; /* NULL: zeroes */
    BfIoFlags flags;
    int ret;
} BfMirrorWrite;

/* On the job's loop: to the source and to the target. */
void bf_mirror_write_co_run(void *arg);
