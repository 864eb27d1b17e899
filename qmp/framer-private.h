/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What framer.c uses of framer-scan.c, the ends of tokens, framer-text.c,
 * source tokens to strict JSON text, and framer-run.c, many tokens at once.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define BF_FRAMER_NESTING_MAX 1024

/* What the grammar wants next. */
typedef enum BfFramerExpect {
    BF_FRAMER_EXPECT_VALUE,
    BF_FRAMER_EXPECT_VALUE_OR_END,
    BF_FRAMER_EXPECT_KEY,
    BF_FRAMER_EXPECT_KEY_OR_END,
    BF_FRAMER_EXPECT_COLON,
    BF_FRAMER_EXPECT_SEPARATOR,
} BfFramerExpect;

/* Flags of an open array or object. */
enum {
    BF_FRAMER_LEVEL_IS_OBJECT = 1,
    BF_FRAMER_LEVEL_IS_KEY = 2, /* it stands where a key should */
};

/**
 * BfFramerRun: tokens that are taken at once
 * @at: between tokens; moves behind the last one that was taken. Single quotes
 *   before it may have become double ones
 * @end: behind what may be taken, where a NUL is; nothing before passes a limit
 *   on bytes or tokens
 * @kept: what stands between here and @at is text as it is, not in @text yet;
 *   set by bf_framer_run()
 * @text: strict text is appended here
 * @levels: flags of what is open, %BF_FRAMER_NESTING_MAX of them and one more
 * @depth: how much is open
 * @floor: what is open and must stay so, at least 1
 * @expect: what the grammar wants next
 * @tokens: how many were taken
 * @spaces: bytes that belong to no token
 * @braces: opened less those closed; of brackets, the rest of what @depth has
 *   changed by
 */
typedef struct BfFramerRun {
    char *at;
    const char *end;
    const char *kept;
    GString *text;
    uint8_t *levels;
    size_t depth;
    size_t floor;
    BfFramerExpect expect;
    size_t tokens;
    size_t spaces;
    int64_t braces;
} BfFramerRun;

/**
 * bf_framer_run:
 * @run: a value in which nothing is wrong so far
 *
 * Takes tokens up to the first that is not simple. The key "id" of the
 * outermost object is not.
 */
void bf_framer_run(BfFramerRun *run);

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
 * bf_framer_is_valid_char:
 * @c: a character of a client's string
 *
 * Returns: whether QEMU allows it: no surrogate and no noncharacter
 */
static inline bool
bf_framer_is_valid_char(gint64 c)
{
    return c >= 0 && c <= 0x10FFFF && !(c >= 0xD800 && c <= 0xDFFF) &&
           !(c >= 0xFDD0 && c <= 0xFDEF) && (c & 0xFFFE) != 0xFFFE;
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
 * bf_framer_find_number_end:
 * @at: a sign or digit that begins a number
 * @end: behind the last byte that is there
 * @ret_is_float: (out): whether it has a fraction or an exponent; written on
 *   success only
 *
 * Returns: behind the number, or NULL if it needs a closer look: it is none, or
 *   not ended by what follows it
 */
const char *bf_framer_find_number_end(const char *at, const char *end,
                                      bool *ret_is_float);

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
 * @token: source text of a number; a byte that ends it follows
 * @len: bytes of @token
 * @is_float: whether it has a fraction or an exponent
 * @out: the number is appended here, in a form that jansson can hold
 */
void bf_framer_convert_number(const char *token, size_t len, bool is_float,
                              GString *out);

/**
 * bf_framer_show:
 * @text: bad input
 * @len: bytes of @text
 * @is_string: whether it begins with the quote of a string. What a string holds
 *   may be secret, and messages are kept by many, so no more is shown of it
 *
 * Returns: (transfer full): what a message shows of it
 */
char *bf_framer_show(const char *text, size_t len, bool is_string);

/**
 * bf_framer_echo:
 * @text: a value in the text that the framer made
 * @len: bytes of @text
 *
 * Returns: (transfer full): the same as plain JSON in ASCII, with the spaces
 * that all output has, to be sent back
 */
char *bf_framer_echo(const char *text, size_t len);
