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
 * BfBitmapState: what a bitmap is in beside recording
 * @BF_BITMAP_BUSY: an export or a job uses it
 * @BF_BITMAP_READ_ONLY: it is stored in an image that cannot be written
 * @BF_BITMAP_INCONSISTENT: it was not stored properly, and only good to remove
 * @BF_BITMAP_PERSISTENT: it is stored in the image
 */
typedef enum BfBitmapState {
    BF_BITMAP_BUSY = 1 << 0,
    BF_BITMAP_READ_ONLY = 1 << 1,
    BF_BITMAP_INCONSISTENT = 1 << 2,
    BF_BITMAP_PERSISTENT = 1 << 3,
} BfBitmapState;

/* States that forbid to use a bitmap, to change it, and to remove it. */
#define BF_BITMAP_CHECK_USE (BF_BITMAP_BUSY | BF_BITMAP_INCONSISTENT)
#define BF_BITMAP_CHECK_CHANGE (BF_BITMAP_CHECK_USE | BF_BITMAP_READ_ONLY)
#define BF_BITMAP_CHECK_REMOVE (BF_BITMAP_BUSY | BF_BITMAP_READ_ONLY)

/**
 * bf_bitmap_check_granularity:
 * @granularity: bytes of one bit
 * @error: set if no bitmap can have it
 *
 * Returns: false if it is not valid
 */
bool bf_bitmap_check_granularity(uint32_t granularity, GError **error);

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
 * bf_bitmap_new_like:
 * @model: a bitmap
 * @error: set on failure
 *
 * Returns: (transfer full): a clean bitmap without a name of the same size and
 * granularity, or NULL
 */
BfBitmap *bf_bitmap_new_like(const BfBitmap *model, GError **error);

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
 * bf_bitmap_state:
 * @bitmap: a bitmap
 *
 * Returns: BfBitmapState bits
 */
unsigned bf_bitmap_state(const BfBitmap *bitmap);

/**
 * bf_bitmap_set_state:
 * @bitmap: a bitmap
 * @state: one of them
 * @on: whether it is in it
 */
void bf_bitmap_set_state(BfBitmap *bitmap, BfBitmapState state, bool on);

/**
 * bf_bitmap_check:
 * @bitmap: a bitmap
 * @states: BfBitmapState bits that forbid what is to be done
 * @error: set if it is in one of them
 *
 * Returns: false if it is
 */
bool bf_bitmap_check(const BfBitmap *bitmap, unsigned states, GError **error);

/**
 * bf_bitmap_bytes:
 * @bitmap: a bitmap
 *
 * Returns: bytes of memory for its bits
 */
size_t bf_bitmap_bytes(const BfBitmap *bitmap);

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
 * bf_bitmap_swap:
 * @a: a bitmap
 * @b: one of the same size and granularity
 *
 * Exchanges their contents.
 */
void bf_bitmap_swap(BfBitmap *a, BfBitmap *b);

/**
 * bf_bitmap_freeze:
 * @bitmap: a bitmap that is not frozen
 * @error: set on failure: too little memory
 *
 * From now on readers see the bitmap as it is now, and marks go to a hidden
 * successor.
 *
 * Returns: false on failure
 */
bool bf_bitmap_freeze(BfBitmap *bitmap, GError **error);

/**
 * bf_bitmap_is_frozen:
 * @bitmap: a bitmap
 *
 * Returns: true between bf_bitmap_freeze() and bf_bitmap_thaw()
 */
bool bf_bitmap_is_frozen(const BfBitmap *bitmap);

/**
 * bf_bitmap_thaw:
 * @bitmap: a frozen bitmap that nobody else reads
 * @keep: what was dirty before the freeze still is
 *
 * Readers see what was marked since the freeze. Writers may be marking.
 */
void bf_bitmap_thaw(BfBitmap *bitmap, bool keep);

/**
 * bf_bitmap_sha256:
 * @bitmap: a bitmap
 *
 * Returns: (transfer full): a checksum of its bits in hexadecimal digits: of
 * 64-bit words of little endian, bit 0 of the first being the first granule
 */
char *bf_bitmap_sha256(const BfBitmap *bitmap);

/**
 * bf_bitmap_reserve:
 * @bitmap: a bitmap of a drained node, not frozen
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
 * @bitmap: a bitmap of a drained node, not frozen
 * @size: new size, bytes, which should be reserved; what is added is clean
 */
void bf_bitmap_resize(BfBitmap *bitmap, uint64_t size);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfBitmap, bf_bitmap_free)
