/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Strings that leave nothing behind. That freed memory is wiped cannot be seen
 * from inside; the functional tests search a daemon's memory.
 */
#include "core/wipe.h"

#include <string.h>

static void
test_reserved_room_does_not_move(void)
{
    GString *string = g_string_new("x");

    for (size_t n = 1; n < 100000; n = n * 3 + 1) {
        const char *place = NULL;

        bf_wipe_reserve(string, n);
        place = string->str;
        for (size_t i = 0; i < n; i++) {
            g_string_append_c(string, 'y');
        }
        g_assert_true(string->str == place);
        g_assert_cmpuint(strlen(string->str), ==, string->len);
    }
    g_assert_cmpint(string->str[0], ==, 'x');
    g_assert_cmpint(string->str[string->len - 1], ==, 'y');
    bf_wipe_string_free(string);
}

static void
test_cut_bytes_are_wiped(void)
{
    static const char zero[8] = {0};
    GString *string = g_string_sized_new(100);

    bf_wipe_append(string, "nothing secret", 14);
    bf_wipe_truncate(string, 8);
    g_assert_cmpstr(string->str, ==, "nothing ");
    g_assert_cmpmem(string->str + 8, 6, zero, 6);
    bf_wipe_drop_front(string, 3);
    g_assert_cmpstr(string->str, ==, "hing ");
    g_assert_cmpmem(string->str + 5, 3, zero, 3);
    bf_wipe_drop_front(string, 5);
    g_assert_cmpuint(string->len, ==, 0);
    g_assert_cmpmem(string->str, 8, zero, 8);
    bf_wipe_append(string, NULL, 0);
    bf_wipe_string_free(string);
    bf_wipe_string_free(NULL);
}

static void
test_holds_any_bytes(void)
{
    GString *string = g_string_new(NULL);

    bf_wipe_append(string, "a\0b", 3);
    bf_wipe_append(string, "\0", 1);
    g_assert_cmpmem(string->str, string->len, "a\0b\0", 4);
    bf_wipe_string_free(string);
    bf_wipe_text_free(g_strdup("text"));
    bf_wipe_text_free(NULL);
}

#define ADD(path, name) g_test_add_func("/core/wipe/" path, test_##name)

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("reserve/room-does-not-move", reserved_room_does_not_move);
    ADD("truncate/cut-bytes-are-wiped", cut_bytes_are_wiped);
    ADD("append/holds-any-bytes", holds_any_bytes);
    return g_test_run();
}
