/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extent lists. The array grows by doubling up to the list's limit, so that a
 * short answer costs little and a hostile range is bounded.
 */
#include "block/extents.h"

#define EXTENTS_FIRST_CAPACITY 16

void
bf_extents_init(BfExtents *extents, size_t max)
{
    g_assert(max > 0);
    *extents = (BfExtents){.max = max};
}

void
bf_extents_clear(BfExtents *extents)
{
    g_free(extents->items);
    *extents = (BfExtents){.max = extents->max};
}

static void
grow(BfExtents *extents)
{
    size_t capacity = MAX(extents->capacity * 2, EXTENTS_FIRST_CAPACITY);

    extents->capacity = MIN(capacity, extents->max);
    extents->items = g_renew(BfExtent, extents->items, extents->capacity);
}

bool
bf_extents_append(BfExtents *extents, uint64_t bytes, unsigned flags)
{
    if (bytes == 0) {
        return true;
    }
    if (extents->len > 0 && extents->items[extents->len - 1].flags == flags) {
        extents->items[extents->len - 1].bytes += bytes;
        extents->bytes += bytes;
        return true;
    }
    if (extents->len == extents->max) {
        return false;
    }
    if (extents->len == extents->capacity) {
        grow(extents);
    }
    extents->items[extents->len++] = (BfExtent){bytes, flags};
    extents->bytes += bytes;
    return true;
}

void
bf_extents_clip(BfExtents *extents, uint64_t bytes)
{
    g_assert(bytes <= extents->bytes);
    while (extents->bytes > bytes) {
        BfExtent *last = &extents->items[extents->len - 1];
        uint64_t surplus = extents->bytes - bytes;

        if (last->bytes > surplus) {
            last->bytes -= surplus;
            extents->bytes = bytes;
        } else {
            extents->bytes -= last->bytes;
            extents->len--;
        }
    }
}
