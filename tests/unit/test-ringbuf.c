/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Ring buffers, compared with a plain text that is cut at the front. */
#include "qmp/ringbuf.h"

#include <string.h>

#include "core/error.h"

static void
check_read(BfRingbuf *ring, uint64_t max, const char *expected)
{
    g_autofree char *text = bf_ringbuf_read(ring, max, BF_DATA_FORMAT_UTF8);

    g_assert_cmpstr(text, ==, expected);
}

static void
write_text(BfRingbuf *ring, const char *text)
{
    g_assert_true(bf_ringbuf_write(ring, text, BF_DATA_FORMAT_UTF8, NULL));
}

static void
test_sizes_are_checked(void)
{
    static const uint64_t bad[] = {3, 17, UINT64_MAX, BF_RINGBUF_MAX_BYTES * 2};

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_null(bf_ringbuf_new(bad[i], &error));
        g_assert_nonnull(strstr(error->message, "size of ringbuf"));
    }
    for (uint64_t size = 1; size <= BF_RINGBUF_MAX_BYTES; size *= 2) {
        g_autoptr(BfRingbuf) ring = bf_ringbuf_new(size, NULL);

        g_assert_nonnull(ring);
    }
}

static void
test_without_room_keeps_nothing(void)
{
    g_autoptr(BfRingbuf) ring = bf_ringbuf_new(0, NULL);

    write_text(ring, "hello");
    check_read(ring, 99, "");
}

static void
test_keeps_the_last_bytes(void)
{
    for (uint64_t size = 1; size <= 16; size *= 2) {
        g_autoptr(BfRingbuf) ring = bf_ringbuf_new(size, NULL);
        g_autoptr(GString) model = g_string_new(NULL);

        for (unsigned step = 0; step < 400; step++) {
            g_autofree char *text =
                g_strnfill(step * 7 % 23, (char)('a' + step % 26));
            size_t len = step * 5 % 11;
            g_autofree char *expected = NULL;

            write_text(ring, text);
            g_string_append(model, text);
            if (model->len > size) {
                g_string_erase(model, 0, (gssize)(model->len - size));
            }
            expected = g_strndup(model->str, len);
            check_read(ring, len, expected);
            g_string_erase(model, 0, (gssize)strlen(expected));
        }
    }
}

static void
test_base64_is_strict(void)
{
    static const char *const bad[] = {"!",    "a",       "ab",
                                      "abc",  "=abc",    "a===",
                                      "ab=c", "aGVsbG8", "\xff\xff\xff\xff"};
    g_autoptr(BfRingbuf) ring = bf_ringbuf_new(16, NULL);
    g_autofree char *text = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_false(
            bf_ringbuf_write(ring, bad[i], BF_DATA_FORMAT_BASE64, &error));
        g_assert_nonnull(strstr(error->message, "Base64"));
    }
    g_assert_true(
        bf_ringbuf_write(ring, "aGVs\nbG8=", BF_DATA_FORMAT_BASE64, NULL));
    text = bf_ringbuf_read(ring, 9, BF_DATA_FORMAT_BASE64);
    g_assert_cmpstr(text, ==, "aGVsbG8=");
}

static void
test_text_is_always_valid(void)
{
    g_autoptr(BfRingbuf) ring = bf_ringbuf_new(16, NULL);

    /* ff 00 61 e2 82 ac e2 */
    g_assert_true(
        bf_ringbuf_write(ring, "/wBh4oKs4g==", BF_DATA_FORMAT_BASE64, NULL));
    check_read(ring, 99,
               "\xef\xbf\xbd\xef\xbf\xbd"
               "a\xe2\x82\xac\xef\xbf\xbd");
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qmp/ringbuf/new/sizes-are-checked",
                    test_sizes_are_checked);
    g_test_add_func("/qmp/ringbuf/write/without-room-keeps-nothing",
                    test_without_room_keeps_nothing);
    g_test_add_func("/qmp/ringbuf/write/keeps-the-last-bytes",
                    test_keeps_the_last_bytes);
    g_test_add_func("/qmp/ringbuf/write/base64-is-strict",
                    test_base64_is_strict);
    g_test_add_func("/qmp/ringbuf/read/text-is-always-valid",
                    test_text_is_always_valid);
    return g_test_run();
}
