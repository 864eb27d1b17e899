/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Extent lists: merging, the limit, clipping. */
#include "block/extents.h"

static void
test_equal_neighbours_merge(void)
{
    BfExtents list;

    bf_extents_init(&list, 10);
    g_assert_true(bf_extents_append(&list, 10, 0));
    g_assert_true(bf_extents_append(&list, 0, 3));
    g_assert_true(bf_extents_append(&list, 5, 0));
    g_assert_true(bf_extents_append(&list, 7, 3));
    g_assert_cmpuint(list.len, ==, 2);
    g_assert_cmpuint(list.items[0].bytes, ==, 15);
    g_assert_cmpuint(list.items[1].flags, ==, 3);
    g_assert_cmpuint(list.bytes, ==, 22);
    bf_extents_clear(&list);
    g_assert_cmpuint(list.bytes, ==, 0);
}

static void
test_full_list_takes_only_equal_ones(void)
{
    BfExtents list;

    bf_extents_init(&list, 100);
    for (unsigned i = 0; i < 100; i++) {
        g_assert_true(bf_extents_append(&list, 1, i % 2));
    }
    g_assert_false(bf_extents_append(&list, 1, 0));
    g_assert_cmpuint(list.bytes, ==, 100);
    g_assert_true(bf_extents_append(&list, UINT64_C(1) << 40, 1));
    g_assert_cmpuint(list.len, ==, 100);
    bf_extents_clear(&list);
}

static void
test_clip_cuts_the_end(void)
{
    BfExtents list;

    bf_extents_init(&list, 10);
    bf_extents_append(&list, 10, 0);
    bf_extents_append(&list, 10, 1);
    bf_extents_append(&list, 10, 2);
    bf_extents_clip(&list, 30);
    g_assert_cmpuint(list.len, ==, 3);
    bf_extents_clip(&list, 15);
    g_assert_cmpuint(list.len, ==, 2);
    g_assert_cmpuint(list.items[1].bytes, ==, 5);
    bf_extents_clip(&list, 10);
    g_assert_cmpuint(list.len, ==, 1);
    bf_extents_clip(&list, 0);
    g_assert_cmpuint(list.len, ==, 0);
    bf_extents_clear(&list);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/block/extents/append/equal-neighbours-merge",
                    test_equal_neighbours_merge);
    g_test_add_func("/block/extents/append/full-list-takes-only-equal-ones",
                    test_full_list_takes_only_equal_ones);
    g_test_add_func("/block/extents/clip/cuts-the-end", test_clip_cuts_the_end);
    return g_test_run();
}
