/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dirty bitmaps: which granules of a node were written.
 *
 * Writers mark a range before and after they change it, from any thread. The
 * functions of a live consumer (take, put back, clear range, get, count, next
 * dirty) may run at the same time, on any thread; only one consumer may take or
 * clear. Everything else runs on main while the nodes that set the bitmap are
 * drained, or on a bitmap that no node sets. None suspends.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

/**
 * BfBitmap: the dirty bitmap of a node
 */
typedef struct BfBitmap BfBitmap;

#define BF_BITMAP_GRANULARITY_MIN 512
#define BF_BITMAP_GRANULARITY_DEFAULT 65536

/* Most memory of one bitmap; 2^34 granules, 1 PiB at the default. */
#define BF_BITMAP_BYTES_MAX (UINT64_C(1) << 31)

/**
 * bf_bitmap_new:
 * @name: (nullable): copied; a bitmap without a name is hidden: it belongs to a
 *     job, and queries and commands do not see it
 * @size: bytes that it describes
 * @granularity: bytes of one bit, a power of two, at least
 *     %BF_BITMAP_GRANULARITY_MIN
 * @error: set on failure: bad granularity, or too large
 *
 * Returns: (transfer full): a clean, enabled bitmap, or NULL
 */
BfBitmap *bf_bitmap_new(const char *name, uint64_t size, uint32_t granularity,
                        GError **error);

/**
 * bf_bitmap_free:
 * @bitmap: (nullable): attached to no node
 */
void bf_bitmap_free(BfBitmap *bitmap);

/**
 * bf_bitmap_name:
 * @bitmap: a bitmap
 *
 * Returns: (transfer none) (nullable): its name, or NULL if it is hidden
 */
const char *bf_bitmap_name(const BfBitmap *bitmap);

/**
 * bf_bitmap_granularity:
 * @bitmap: a bitmap
 *
 * Returns: bytes of one bit
 */
uint32_t bf_bitmap_granularity(const BfBitmap *bitmap);

/**
 * bf_bitmap_size:
 * @bitmap: a bitmap
 *
 * Returns: bytes that it describes
 */
uint64_t bf_bitmap_size(const BfBitmap *bitmap);

/**
 * bf_bitmap_is_enabled:
 * @bitmap: a bitmap
 *
 * Returns: true if writes set it
 */
bool bf_bitmap_is_enabled(const BfBitmap *bitmap);

/**
 * bf_bitmap_set_enabled:
 * @bitmap: a bitmap
 * @enabled: writes set it from now on
 */
void bf_bitmap_set_enabled(BfBitmap *bitmap, bool enabled);

/**
 * bf_bitmap_set:
 * @bitmap: a bitmap
 * @offset: bytes
 * @bytes: length; what lies beyond the end is ignored
 *
 * Marks the granules that the range touches, if the bitmap is enabled.
 */
void bf_bitmap_set(BfBitmap *bitmap, uint64_t offset, uint64_t bytes);

/**
 * bf_bitmap_set_filtered:
 * @bitmap: a bitmap that no node sets yet
 *
 * A filter above the bitmap's node deals itself with what it writes: requests
 * that carry %BF_IO_UNMARKED do not set this bitmap.
 */
void bf_bitmap_set_filtered(BfBitmap *bitmap);

/**
 * bf_bitmap_is_filtered:
 * @bitmap: a bitmap
 *
 * Returns: true after bf_bitmap_set_filtered()
 */
bool bf_bitmap_is_filtered(const BfBitmap *bitmap);

/**
 * bf_bitmap_set_after:
 * @bitmap: a bitmap
 * @offset: bytes
 * @bytes: length; what lies beyond the end is ignored
 *
 * Like bf_bitmap_set(), once the change is done: what a live consumer has taken
 * while the change was under way is dirty again, as it may have read old data.
 */
void bf_bitmap_set_after(BfBitmap *bitmap, uint64_t offset, uint64_t bytes);

/**
 * bf_bitmap_take:
 * @bitmap: a bitmap
 * @offset: where to start, bytes
 * @end: where to stop, bytes
 * @max: most bytes to take, at least one granule
 * @ret_offset: (out): start of what was taken, a multiple of the granularity
 * @ret_bytes: (out): its length: whole granules, but for the end of the bitmap
 *
 * Takes the first run of dirty granules from [@offset, @end) and marks it as
 * clean. Changes that end afterwards mark it again, so data that is read from
 * now on is either the newest or dirty.
 *
 * Returns: false if all is clean
 */
bool bf_bitmap_take(BfBitmap *bitmap, uint64_t offset, uint64_t end,
                    uint64_t max, uint64_t *ret_offset, uint64_t *ret_bytes);

/**
 * bf_bitmap_put_back:
 * @bitmap: a bitmap
 * @offset: bytes
 * @bytes: length; what lies beyond the end is ignored
 *
 * Marks the granules that the range touches, even if the bitmap is disabled.
 */
void bf_bitmap_put_back(BfBitmap *bitmap, uint64_t offset, uint64_t bytes);

/**
 * bf_bitmap_clear:
 * @bitmap: a bitmap
 *
 * Marks all as clean.
 */
void bf_bitmap_clear(BfBitmap *bitmap);

/**
 * bf_bitmap_clear_range:
 * @bitmap: a bitmap
 * @offset: bytes, a multiple of the granularity
 * @bytes: length, a multiple of the granularity or up to the end
 *
 * Marks a part as clean.
 */
void bf_bitmap_clear_range(BfBitmap *bitmap, uint64_t offset, uint64_t bytes);

/**
 * bf_bitmap_get:
 * @bitmap: a bitmap
 * @offset: bytes, below its size
 *
 * Returns: true if the granule of @offset is dirty
 */
bool bf_bitmap_get(const BfBitmap *bitmap, uint64_t offset);

/**
 * bf_bitmap_count:
 * @bitmap: a bitmap
 *
 * Returns: dirty bytes: whole granules
 */
uint64_t bf_bitmap_count(const BfBitmap *bitmap);

/**
 * bf_bitmap_next_dirty:
 * @bitmap: a bitmap
 * @offset: where to start, bytes
 * @end: where to stop, bytes
 * @ret_offset: (out): start of the dirty range, at least @offset
 * @ret_bytes: (out): its length; it ends at a clean granule or at @end
 *
 * Finds the next dirty range in [@offset, @end).
 *
 * Returns: false if there is none
 */
bool bf_bitmap_next_dirty(const BfBitmap *bitmap, uint64_t offset, uint64_t end,
                          uint64_t *ret_offset, uint64_t *ret_bytes);

/**
 * bf_bitmap_merge:
 * @bitmap: target
 * @from: source, of any granularity
 * @error: set on failure: the sizes differ
 *
 * Marks all that is dirty in @from, whether @bitmap is enabled or not.
 *
 * Returns: false on failure
 */
bool bf_bitmap_merge(BfBitmap *bitmap, const BfBitmap *from, GError **error);

/**
 * bf_bitmap_reserve:
 * @bitmap: a bitmap of a drained node
 * @size: bytes
 * @error: set on failure: too large
 *
 * Takes the memory for a size up to @size, before anything else changes.
 *
 * Returns: false on failure
 */
bool bf_bitmap_reserve(BfBitmap *bitmap, uint64_t size, GError **error);

/**
 * bf_bitmap_resize:
 * @bitmap: a bitmap of a drained node
 * @size: new size, bytes, which should be reserved; what is added is clean
 */
void bf_bitmap_resize(BfBitmap *bitmap, uint64_t size);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfBitmap, bf_bitmap_free)
