/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the plain part of a JSON string ends, found eight bytes at a time.
 * Large values are mostly such text, so this decides how fast they are read.
 * Any thread; does not suspend.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BF_JSON_EACH_BYTE UINT64_C(0x0101010101010101)
#define BF_JSON_HIGH_BITS UINT64_C(0x8080808080808080)

/**
 * bf_json_scan_has_special:
 * @word: eight bytes
 *
 * Returns: nonzero if a byte of @word is none that bf_json_scan_plain() counts
 */
static inline uint64_t
bf_json_scan_has_special(uint64_t word)
{
    const uint64_t quote = word ^ (BF_JSON_EACH_BYTE * '"');
    const uint64_t single = word ^ (BF_JSON_EACH_BYTE * '\'');
    const uint64_t escape = word ^ (BF_JSON_EACH_BYTE * '\\');

    /* Borrows mark more bytes, but only where there is a special one. */
    return (word | (word - BF_JSON_EACH_BYTE * 0x20) |
            (quote - BF_JSON_EACH_BYTE) | (single - BF_JSON_EACH_BYTE) |
            (escape - BF_JSON_EACH_BYTE)) &
           BF_JSON_HIGH_BITS;
}

/**
 * bf_json_scan_plain:
 * @at: the first byte
 * @end: behind the last byte
 *
 * Returns: how many bytes from @at on are ASCII from 0x20 on, and neither a
 *   quote of either kind nor a backslash
 */
static inline size_t
bf_json_scan_plain(const char *at, const char *end)
{
    const char *start = at;

    while (end - at >= 8) {
        uint64_t word = 0;

        memcpy(&word, at, sizeof(word));
        if (bf_json_scan_has_special(word) != 0) {
            break;
        }
        at += 8;
    }
    while (at < end && (uint8_t)*at >= 0x20 && (uint8_t)*at < 0x80 &&
           *at != '"' && *at != '\'' && *at != '\\') {
        at++;
    }
    return (size_t)(at - start);
}
