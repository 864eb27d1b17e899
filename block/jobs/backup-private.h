/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the sources of the backup job share.
 */
#pragma once

#include "block/bitmap-ops.h"
#include "block/copy.h"
#include "block/driver.h"
#include "block/handle.h"
#include "block/job-kind.h"

typedef struct BfBackup {
    BfJob base;
    BfGraph *graph; /* borrowed */
    BfNode *source; /* kept by @source_root */
    BfNode *target; /* kept by @target_root */
    BfNode *filter; /* main: until it is taken out */
    BfRoot *source_root;
    BfRoot *target_root;
    BfHandle *source_handle;
    BfHandle *target_handle;
    BfThrottleMember *throttle; /* (nullable): owned */
    BfBitmap *dirty;            /* owned; of no node: what is to be copied */
    BfBitmap *plan;   /* owned; the same, as it was at the start; NULL: all */
    BfBitmapUse *use; /* (nullable): the user's bitmap */
    BfBitmapSyncMode bitmap_mode;
    bool only_before_writes; /* sync=none */
    BfCopyConfig config;
    BfCopy *copy; /* @base.loop, but for its making and its end */

    BfAtomicU64 is_over; /* writes need nothing any more */
    int broken;          /* @base.loop: errno of a write's copy that failed */
} BfBackup;

/* The filter, which has no options and cannot be added by a user. */
extern const BfDriver bf_driver_backup_top;

/* The filter's node; main, while drained. */
void bf_backup_top_set_job(BfNode *filter, BfBackup *backup);

/* On main: requests that hang on the target end soon. */
void bf_backup_let_go(BfBackup *backup);

/* On any loop: what is about to be written there is copied first. */
void bf_backup_co_before_write(BfBackup *backup, uint64_t offset,
                               uint64_t bytes);
