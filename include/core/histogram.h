/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long things took, counted in ranges that double: below 1024 ns, from
 * there below 2048 ns, and so on; the last range is open. One thread counts,
 * any thread reads; nobody waits, and none suspends.
 */
#pragma once

#include <stdint.h>

#include "core/atomic.h"

/* The last range begins at 2^36 ns, a little more than a minute. */
#define BF_HISTOGRAM_BINS 28
#define BF_HISTOGRAM_FIRST_SHIFT 10

/**
 * BfHistogram: counts by duration; all zero is empty
 *
 * The field is private.
 */
typedef struct BfHistogram {
    BfAtomicU64 bins[BF_HISTOGRAM_BINS];
} BfHistogram;

/**
 * BfHistogramRange: the part of a histogram that is not empty
 * @n_bins: how many ranges it has; 0 if nothing was counted, else 2 or more
 * @boundaries: where one range ends and the next begins, nanoseconds; one less
 *     than @n_bins. The first range begins at 0, the last one has no end
 * @bins: what was counted in each range
 */
typedef struct BfHistogramRange {
    unsigned n_bins;
    uint64_t boundaries[BF_HISTOGRAM_BINS - 1];
    uint64_t bins[BF_HISTOGRAM_BINS];
} BfHistogramRange;

/**
 * bf_histogram_bin:
 * @ns: a duration
 *
 * Returns: index of the range that it belongs to
 */
static inline unsigned
bf_histogram_bin(uint64_t ns)
{
    const uint64_t units = ns >> BF_HISTOGRAM_FIRST_SHIFT;
    const unsigned bin = units == 0 ? 0 : 64 - (unsigned)__builtin_clzll(units);

    return bin < BF_HISTOGRAM_BINS ? bin : BF_HISTOGRAM_BINS - 1;
}

/**
 * bf_histogram_count:
 * @histogram: a histogram that no other thread counts in
 * @ns: a duration
 */
static inline void
bf_histogram_count(BfHistogram *histogram, uint64_t ns)
{
    BfAtomicU64 *bin = &histogram->bins[bf_histogram_bin(ns)];

    bf_atomic_store(bin, bf_atomic_load(bin) + 1);
}

/**
 * bf_histogram_merge:
 * @histogram: a histogram that no other thread counts in
 * @other: what is added to it
 */
void bf_histogram_merge(BfHistogram *histogram, const BfHistogram *other);

/**
 * bf_histogram_get:
 * @histogram: a histogram
 * @ret_range: (out): what was counted, without the empty ranges at both ends
 *     but for one
 */
void bf_histogram_get(const BfHistogram *histogram,
                      BfHistogramRange *ret_range);
