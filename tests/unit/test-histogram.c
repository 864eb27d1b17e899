/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Histograms: which range a duration is in, and what a reader gets. */
#include "core/histogram.h"

#include <glib.h>

static void
test_bins_double(void)
{
    g_assert_cmpuint(bf_histogram_bin(0), ==, 0);
    g_assert_cmpuint(bf_histogram_bin(1023), ==, 0);
    for (unsigned i = 1; i < BF_HISTOGRAM_BINS; i++) {
        const uint64_t start = UINT64_C(512) << i;

        g_assert_cmpuint(bf_histogram_bin(start - 1), ==, i - 1);
        g_assert_cmpuint(bf_histogram_bin(start), ==, i);
        g_assert_cmpuint(bf_histogram_bin(start + start / 2), ==, i);
    }
    g_assert_cmpuint(bf_histogram_bin(UINT64_MAX), ==, BF_HISTOGRAM_BINS - 1);
}

static void
test_empty_one_has_no_bins(void)
{
    const BfHistogram histogram = {0};
    BfHistogramRange range;

    bf_histogram_get(&histogram, &range);
    g_assert_cmpuint(range.n_bins, ==, 0);
}

static void
test_only_what_is_used_is_got(void)
{
    BfHistogram histogram = {0};
    BfHistogramRange range;

    bf_histogram_count(&histogram, 5000); /* from 4096 below 8192 */
    bf_histogram_count(&histogram, 8191);
    bf_histogram_count(&histogram, 20000); /* from 16384 below 32768 */
    bf_histogram_get(&histogram, &range);
    g_assert_cmpuint(range.n_bins, ==, 5);
    for (unsigned i = 0; i < 4; i++) {
        g_assert_cmpuint(range.boundaries[i], ==, UINT64_C(4096) << i);
    }
    g_assert_cmpuint(range.bins[0], ==, 0);
    g_assert_cmpuint(range.bins[1], ==, 2);
    g_assert_cmpuint(range.bins[2], ==, 0);
    g_assert_cmpuint(range.bins[3], ==, 1);
    g_assert_cmpuint(range.bins[4], ==, 0);
}

static void
test_ends_are_open(void)
{
    BfHistogram histogram = {0};
    BfHistogramRange range;

    bf_histogram_count(&histogram, 0);
    bf_histogram_get(&histogram, &range);
    g_assert_cmpuint(range.n_bins, ==, 2);
    g_assert_cmpuint(range.boundaries[0], ==, 1024);
    g_assert_cmpuint(range.bins[0], ==, 1);

    bf_histogram_count(&histogram, UINT64_MAX);
    bf_histogram_get(&histogram, &range);
    g_assert_cmpuint(range.n_bins, ==, BF_HISTOGRAM_BINS);
    g_assert_cmpuint(range.boundaries[BF_HISTOGRAM_BINS - 2], ==,
                     UINT64_C(1) << 36);
    g_assert_cmpuint(range.bins[BF_HISTOGRAM_BINS - 1], ==, 1);
}

static void
test_merge_adds(void)
{
    BfHistogram sum = {0};
    BfHistogram other = {0};
    BfHistogramRange range;

    bf_histogram_count(&sum, 100);
    bf_histogram_count(&other, 200);
    bf_histogram_count(&other, 1500);
    bf_histogram_merge(&sum, &other);
    bf_histogram_get(&sum, &range);
    g_assert_cmpuint(range.n_bins, ==, 3);
    g_assert_cmpuint(range.bins[0], ==, 2);
    g_assert_cmpuint(range.bins[1], ==, 1);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/core/histogram/bin/doubles", test_bins_double);
    g_test_add_func("/core/histogram/get/empty-one-has-no-bins",
                    test_empty_one_has_no_bins);
    g_test_add_func("/core/histogram/get/only-what-is-used",
                    test_only_what_is_used_is_got);
    g_test_add_func("/core/histogram/get/ends-are-open", test_ends_are_open);
    g_test_add_func("/core/histogram/merge/adds", test_merge_adds);
    return g_test_run();
}
