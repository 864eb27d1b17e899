/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What framer.c uses of framer-text.c: source tokens to strict JSON text.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

/**
 * bf_framer_convert_string:
 * @token: source text with its quotes, of either kind
 * @len: bytes of @token
 * @is_key: whether it is a key; then NUL becomes U+FFFF
 * @out: the string is appended here, in double quotes
 * @ret_problem: (out): the error; written on failure only
 *
 * Returns: false if the string is not allowed by QEMU's grammar
 */
bool bf_framer_convert_string(const char *token, size_t len, bool is_key,
                              GString *out, char **ret_problem);

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
