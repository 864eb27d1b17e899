/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What framer.c uses of framer-scan.c, the ends of tokens, and framer-text.c,
 * source tokens to strict JSON text.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/**
 * bf_framer_is_control:
 * @c: a byte
 *
 * Returns: whether @c stands in no token, and ends the recovery from an error
 */
static inline bool
bf_framer_is_control(uint8_t c)
{
    return c < 0x20 || c >= 0xFE;
}

/**
 * bf_framer_scan_string:
 * @at: inside of a string, not inside of an escape
 * @end: behind what is there of it
 * @quote: what ends the string
 *
 * Returns: the quote, or what needs a closer look, or @end
 */
const char *bf_framer_scan_string(const char *at, const char *end, char quote);

/**
 * bf_framer_find_string_end:
 * @at: a quote that begins a string
 * @end: behind the last byte that is there
 *
 * Returns: behind the string, or NULL if it needs a closer look
 */
const char *bf_framer_find_string_end(const char *at, const char *end);

/**
 * bf_framer_find_integer_end:
 * @at: a sign or digit that begins a number
 * @end: behind the last byte that is there; a NUL follows
 *
 * Returns: behind the number, or NULL if it is not short, no integer, or not
 *   ended by what follows it
 */
const char *bf_framer_find_integer_end(const char *at, const char *end);

/* The longest source of one character: two escapes of four digits each. */
#define BF_FRAMER_CHAR_BYTES_MAX 12

/**
 * bf_framer_convert_string:
 * @at: source text of a part of a string, without its quotes
 * @limit: where no character begins any more
 * @end: behind the source text; to be sure of the last character, the closing
 *   quote or %BF_FRAMER_CHAR_BYTES_MAX bytes from @limit on are needed
 * @is_key: whether it is a key; then NUL becomes U+FFFF
 * @out: the part is appended here, as of a string in double quotes
 * @ret_problem: (out): the error; written on failure only
 *
 * Returns: behind the last character taken; NULL if the string is not allowed
 *   by QEMU's grammar
 */
const char *bf_framer_convert_string(const char *at, const char *limit,
                                     const char *end, bool is_key, GString *out,
                                     char **ret_problem);

/**
 * bf_framer_convert_number:
 * @token: source text of a number
 * @len: bytes of @token
 * @is_float: whether it has a fraction or an exponent
 * @out: the number is appended here, in a form that jansson can hold
 */
void bf_framer_convert_number(const char *token, size_t len, bool is_float,
                              GString *out);

/**
 * bf_framer_echo:
 * @text: a value in the text that the framer made
 * @len: bytes of @text
 *
 * Returns: (transfer full): the same as plain JSON in ASCII, to be sent back
 */
char *bf_framer_echo(const char *text, size_t len);
