/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A binary heap of timers. Places count from 1, so that the parent of place n
 * is n / 2.
 */
#include "timer-heap-private.h"

static BfTimer *
timer_at(const GPtrArray *heap, unsigned index)
{
    return g_ptr_array_index(heap, index - 1);
}

static void
place_timer(GPtrArray *heap, BfTimer *timer, unsigned index)
{
    g_ptr_array_index(heap, index - 1) = timer;
    timer->heap_index = index;
}

static bool
is_before(const BfTimer *a, const BfTimer *b)
{
    return a->deadline_ns != b->deadline_ns ? a->deadline_ns < b->deadline_ns
                                            : a->seq < b->seq;
}

static void
sift_up(GPtrArray *heap, BfTimer *timer, unsigned index)
{
    while (index > 1 && is_before(timer, timer_at(heap, index / 2))) {
        place_timer(heap, timer_at(heap, index / 2), index);
        index /= 2;
    }
    place_timer(heap, timer, index);
}

static void
sift_down(GPtrArray *heap, BfTimer *timer, unsigned index)
{
    unsigned count = heap->len;

    while (index * 2 <= count) {
        unsigned child = index * 2;

        if (child < count &&
            is_before(timer_at(heap, child + 1), timer_at(heap, child))) {
            child++;
        }
        if (!is_before(timer_at(heap, child), timer)) {
            break;
        }
        place_timer(heap, timer_at(heap, child), index);
        index = child;
    }
    place_timer(heap, timer, index);
}

BfTimer *
bf_timer_heap_first(const GPtrArray *heap)
{
    return heap->len > 0 ? timer_at(heap, 1) : NULL;
}

void
bf_timer_heap_add(GPtrArray *heap, BfTimer *timer)
{
    g_ptr_array_add(heap, timer);
    sift_up(heap, timer, heap->len);
}

void
bf_timer_heap_remove(GPtrArray *heap, BfTimer *timer)
{
    unsigned index = timer->heap_index;
    BfTimer *last;

    g_assert(index > 0 && index <= heap->len && timer_at(heap, index) == timer);
    timer->heap_index = 0;
    last = timer_at(heap, heap->len);
    g_ptr_array_set_size(heap, (int)heap->len - 1);
    if (last == timer) {
        return;
    }
    if (index > 1 && is_before(last, timer_at(heap, index / 2))) {
        sift_up(heap, last, index);
    } else {
        sift_down(heap, last, index);
    }
}
