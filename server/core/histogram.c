/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Histograms of durations: what is not on the path of a request.
 */
#include "core/histogram.h"

#include <string.h>

/* Where a range begins; that of range 0 is not asked for. */
static uint64_t
start_of(unsigned bin)
{
    return UINT64_C(1) << (BF_HISTOGRAM_FIRST_SHIFT + bin - 1);
}

void
bf_histogram_merge(BfHistogram *histogram, const BfHistogram *other)
{
    for (unsigned i = 0; i < BF_HISTOGRAM_BINS; i++) {
        bf_atomic_store(&histogram->bins[i],
                        bf_atomic_load(&histogram->bins[i]) +
                            bf_atomic_load(&other->bins[i]));
    }
}

void
bf_histogram_get(const BfHistogram *histogram, BfHistogramRange *ret_range)
{
    uint64_t bins[BF_HISTOGRAM_BINS];
    unsigned first = BF_HISTOGRAM_BINS;
    unsigned last = 0;

    memset(ret_range, 0, sizeof(*ret_range));
    for (unsigned i = 0; i < BF_HISTOGRAM_BINS; i++) {
        bins[i] = bf_atomic_load(&histogram->bins[i]);
        if (bins[i] > 0) {
            first = first < i ? first : i;
            last = i;
        }
    }
    if (first == BF_HISTOGRAM_BINS) {
        return;
    }
    /* An empty range says where the others begin or end. */
    first -= first > 0 ? 1 : 0;
    last += last < BF_HISTOGRAM_BINS - 1 ? 1 : 0;
    ret_range->n_bins = last - first + 1;
    memcpy(ret_range->bins, bins + first,
           ret_range->n_bins * sizeof(*ret_range->bins));
    for (unsigned i = first + 1; i <= last; i++) {
        ret_range->boundaries[i - first - 1] = start_of(i);
    }
}
