/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hexadecimal digits of test vectors to bytes.
 */
#pragma once

#include <glib.h>

/* The bytes of @text, digits without anything between. */
static inline GBytes *
bf_test_hex(const char *text)
{
    GByteArray *bytes = g_byte_array_new();

    for (; *text != '\0'; text += 2) {
        guint8 byte = (guint8)(g_ascii_xdigit_value(text[0]) << 4 |
                               g_ascii_xdigit_value(text[1]));

        g_assert_true(g_ascii_isxdigit(text[0]) && g_ascii_isxdigit(text[1]));
        g_byte_array_append(bytes, &byte, 1);
    }
    return g_byte_array_free_to_bytes(bytes);
}

/* What is in @bytes, which keeps it. */
static inline const guint8 *
bf_test_data(GBytes *bytes)
{
    return g_bytes_get_data(bytes, NULL);
}
