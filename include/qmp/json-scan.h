/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the plain part of a JSON string ends, found eight bytes at a time, the
 * characters that are not plain, and numbers. Large values are mostly such
 * text, so this decides how fast they are read.
 * Any thread; does not suspend.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BF_JSON_EACH_BYTE UINT64_C(0x0101010101010101)
#define BF_JSON_HIGH_BITS UINT64_C(0x8080808080808080)

/**
 * bf_json_scan_has_special:
 * @word: eight bytes
 * @quote: a quote
 *
 * Returns: nonzero if a byte of @word is none that bf_json_scan_plain() counts
 */
static inline uint64_t
bf_json_scan_has_special(uint64_t word, char quote)
{
    const uint64_t end = word ^ (BF_JSON_EACH_BYTE * (uint8_t)quote);
    const uint64_t escape = word ^ (BF_JSON_EACH_BYTE * '\\');

    /* Borrows mark more bytes, but only above a special one. */
    return (word | (word - BF_JSON_EACH_BYTE * 0x20) |
            (end - BF_JSON_EACH_BYTE) | (escape - BF_JSON_EACH_BYTE)) &
           BF_JSON_HIGH_BITS;
}

/**
 * bf_json_scan_plain:
 * @at: the first byte
 * @end: behind the last byte
 * @quote: a quote
 *
 * Returns: how many bytes from @at on are ASCII from 0x20 on, and neither
 *   @quote nor a backslash
 */
static inline size_t
bf_json_scan_plain(const char *at, const char *end, char quote)
{
    const char *start = at;

    while (end - at >= 8) {
        uint64_t word = 0;
        uint64_t special = 0;

        memcpy(&word, at, sizeof(word));
        special = bf_json_scan_has_special(word, quote);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        if (special != 0) { /* the lowest mark is no borrow's */
            return (size_t)(at - start) +
                   (unsigned)__builtin_ctzll(special) / 8;
        }
#else
        if (special != 0) {
            break;
        }
#endif
        at += 8;
    }
    while (at < end && (uint8_t)*at >= 0x20 && (uint8_t)*at < 0x80 &&
           *at != quote && *at != '\\') {
        at++;
    }
    return (size_t)(at - start);
}

/**
 * bf_json_scan_char:
 * @at: a byte from 0x80 on
 * @end: behind the last byte
 * @ret_char: (out): the character; written on success only
 *
 * Returns: how many bytes it has; 0 if that is no UTF-8: cut off, longer than
 *   needed, a surrogate, or above U+10FFFF
 */
static inline size_t
bf_json_scan_char(const char *at, const char *end, uint32_t *ret_char)
{
    const uint8_t *bytes = (const uint8_t *)at;
    const size_t left = (size_t)(end - at);
    uint32_t c = bytes[0];

    if (c >= 0xC2 && c < 0xE0 && left >= 2 && (bytes[1] & 0xC0) == 0x80) {
        *ret_char = (c & 0x1F) << 6 | (bytes[1] & 0x3F);
        return 2;
    }
    if (c >= 0xE0 && c < 0xF0 && left >= 3 && (bytes[1] & 0xC0) == 0x80 &&
        (bytes[2] & 0xC0) == 0x80) {
        c = (c & 0xF) << 12 | (bytes[1] & 0x3Fu) << 6 | (bytes[2] & 0x3F);
        if (c < 0x800 || (c >= 0xD800 && c < 0xE000)) {
            return 0;
        }
        *ret_char = c;
        return 3;
    }
    if (c >= 0xF0 && c < 0xF5 && left >= 4 && (bytes[1] & 0xC0) == 0x80 &&
        (bytes[2] & 0xC0) == 0x80 && (bytes[3] & 0xC0) == 0x80) {
        c = (c & 7) << 18 | (bytes[1] & 0x3Fu) << 12 | (bytes[2] & 0x3Fu) << 6 |
            (bytes[3] & 0x3F);
        if (c < 0x10000 || c > 0x10FFFF) {
            return 0;
        }
        *ret_char = c;
        return 4;
    }
    return 0;
}

/* With so many digits a number fits 64 bits; with fewer, and a sign, too. */
#define BF_JSON_DIGITS_SAFE 19
/* Digits before the point plus exponent: with no more, it is no infinity. */
#define BF_JSON_MAGNITUDE_SAFE 308

/**
 * bf_json_scan_digits:
 * @at: any byte; one that is no digit follows somewhere
 * @value: the digits are appended to it; wraps around
 *
 * Returns: behind the digits
 */
static inline const char *
bf_json_scan_digits(const char *at, uint64_t *value)
{
    uint64_t sum = *value;

    for (; (uint8_t)(*at - '0') < 10; at++) {
        sum = sum * 10 + (uint8_t)(*at - '0');
    }
    *value = sum;
    return at;
}

/**
 * bf_json_scan_fraction:
 * @at: behind the integer part of a number
 * @magnitude: how many digits that has
 *
 * Returns: behind the number; NULL if it needs a closer look: it has neither
 *   fraction nor exponent as it should, or may be too large for a double
 */
static inline const char *
bf_json_scan_fraction(const char *at, ptrdiff_t magnitude)
{
    uint64_t value = 0;
    const char *digits = at + 1;

    if (*at == '.') {
        at = bf_json_scan_digits(digits, &value);
        if (at == digits) {
            return NULL;
        }
    }
    if (*at == 'e' || *at == 'E') {
        const bool is_negative = at[1] == '-';

        value = 0;
        digits = at + 1 + (is_negative || at[1] == '+');
        at = bf_json_scan_digits(digits, &value);
        if (at == digits || at - digits > 3) {
            return NULL;
        }
        magnitude += is_negative ? 0 : (ptrdiff_t)value;
    }
    return magnitude <= BF_JSON_MAGNITUDE_SAFE ? at : NULL;
}

/**
 * bf_json_skip_number:
 * @at: a digit; a NUL follows somewhere
 * @ret_is_real: (out): whether it has a fraction or an exponent
 *
 * Returns: behind the number, where no digit must follow; NULL if it needs a
 * closer look: it may not fit an int64_t or a double
 */
static inline const char *
bf_json_skip_number(const char *at, bool *ret_is_real)
{
    const char *digits = at;

    if (*at++ != '0') {
        while ((uint8_t)(*at - '0') < 10) {
            at++;
        }
    }
    *ret_is_real = *at == '.' || *at == 'e' || *at == 'E';
    if (*ret_is_real) {
        return bf_json_scan_fraction(at, at - digits);
    }
    return at - digits < BF_JSON_DIGITS_SAFE ? at : NULL;
}
