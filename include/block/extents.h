/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extent lists: how the bytes of a range are stored. One thread; none suspends.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

/**
 * BfExtentFlags: what holds for a whole extent
 * @BF_EXTENT_HOLE: not allocated in any layer
 * @BF_EXTENT_ZERO: reads as zeroes
 */
typedef enum BfExtentFlags {
    BF_EXTENT_HOLE = 1 << 0,
    BF_EXTENT_ZERO = 1 << 1,
} BfExtentFlags;

/**
 * BfExtent: a piece of a range
 * @bytes: length, at least 1
 * @flags: BfExtentFlags
 */
typedef struct BfExtent {
    uint64_t bytes;
    unsigned flags;
} BfExtent;

/**
 * BfExtents: a list of adjacent extents
 * @items: owned
 * @len: number of extents
 * @max: most extents it may hold, at least 1
 * @bytes: sum of their lengths
 */
typedef struct BfExtents {
    BfExtent *items;
    size_t len;
    size_t max;
    size_t capacity;
    uint64_t bytes;
} BfExtents;

/**
 * bf_extents_init:
 * @extents: (out caller-allocates): becomes empty
 * @max: most extents it may hold, at least 1
 */
void bf_extents_init(BfExtents *extents, size_t max);

/**
 * bf_extents_clear:
 * @extents: initialised
 */
void bf_extents_clear(BfExtents *extents);

/**
 * bf_extents_append:
 * @extents: a list
 * @bytes: length; 0 does nothing
 * @flags: BfExtentFlags
 *
 * Adds an extent at the end; merged with the last one if the flags are equal.
 *
 * Returns: false, and nothing is added, if the list is full
 */
bool bf_extents_append(BfExtents *extents, uint64_t bytes, unsigned flags);

/**
 * bf_extents_clip:
 * @extents: a list
 * @bytes: new sum of the lengths, at most the present one
 */
void bf_extents_clip(BfExtents *extents, uint64_t bytes);
