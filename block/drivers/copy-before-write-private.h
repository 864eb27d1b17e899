/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the parts of copy-before-write share. All state belongs to the home
 * loop.
 */
#pragma once

#include "block/bitmap.h"
#include "block/driver.h"

/* A range that is being copied, or read for a snapshot; on a stack. */
typedef struct BfCbwRange {
    struct BfCbwRange *next;
    uint64_t start;
    uint64_t end;
    bool has_lost; /* some of it may have been lost while it was copied */
    BfCoQueue waiters;
} BfCbwRange;

/* What is between @start and @end was copied. */
typedef struct BfCbwLoose {
    uint64_t start;
    uint64_t end;
} BfCbwLoose;

typedef struct BfCbwFlush BfCbwFlush;

typedef struct BfCbwNode {
    BfNode base;
    BfNode *target; /* borrowed; the slot of its edge */

    BfOnCbwError on_error;
    uint64_t timeout_ns;
    uint64_t size;    /* of the snapshot, bytes */
    uint32_t cluster; /* bytes, a power of two */

    /* Belong to the home loop. */
    BfBitmap *todo;       /* owned: to be copied */
    BfBitmap *done;       /* owned: was copied, and is in the target */
    BfBitmap *changed;    /* owned: may have changed in the child */
    BfBitmap *accessible; /* owned: part of the snapshot */
    BfCbwRange *copies;   /* under way */
    uint64_t copying;     /* their bytes */
    BfCoQueue room;       /* waits for fewer of them */
    BfCbwRange *frozen;   /* being read from the child for the snapshot */
    uint64_t last_loss;   /* of the target, up to the last look */
    uint64_t losses;      /* how many were found */
    GArray *loose;        /* owned: of BfCbwLoose: not flushed */
    GArray *in_flush;     /* owned: the same, as it was when @flush began */
    BfCbwFlush *flush;    /* under way, or NULL */
    bool broken;          /* some of the past is nowhere any more */
} BfCbwNode;

/* copy-before-write-target.c */

void bf_cbw_target_init(BfCbwNode *self);
/* The node is being closed, on main; a flush may go on. All zero is fine. */
void bf_cbw_target_co_clear(BfCbwNode *self);
/* The snapshot cannot be read any more: tells so, the first time. */
void bf_cbw_break(BfCbwNode *self, const char *reason);
/* Deals with what the target may have lost since the last look. Returns how
 * many losses there were so far. Another one may look first, so a change of
 * that number is what counts. */
uint64_t bf_cbw_look_for_loss(BfCbwNode *self);
/* What was copied is in the target, which is told to keep it; while a request
 * is under way. */
void bf_cbw_note_copied(BfCbwNode *self, uint64_t offset, uint64_t bytes);
