/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Numbers and switches as they are written on the command line. Any thread;
 * none suspends.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/**
 * bf_parse_bool:
 * @text: on, yes, true, y, off, no, false or n
 * @ret_flag: (out): the value; written on success only
 *
 * Returns: false if @text is something else
 */
bool bf_parse_bool(const char *text, bool *ret_flag);

/**
 * bf_parse_int:
 * @text: a decimal number, a hexadecimal one (0x) or an octal one (0)
 * @ret_number: (out): the value; written on success only
 *
 * Returns: false if @text is not a number or does not fit
 */
bool bf_parse_int(const char *text, int64_t *ret_number);

/**
 * bf_parse_uint:
 * @text: a number as for bf_parse_int(), without sign
 * @ret_number: (out): the value; written on success only
 *
 * Returns: false if @text is not a number or does not fit
 */
bool bf_parse_uint(const char *text, uint64_t *ret_number);

/**
 * bf_parse_size:
 * @text: a number of bytes: decimal with a suffix B, K, M, G, T, P or E in
 *   either case, a fraction being allowed from K on; or hexadecimal (0x)
 * @ret_bytes: (out): the value; written on success only
 *
 * Returns: false if @text is not a size or does not fit
 */
bool bf_parse_size(const char *text, uint64_t *ret_bytes);

/**
 * bf_parse_number:
 * @text: a decimal number, perhaps with fraction and exponent
 * @ret_number: (out): the value; written on success only
 *
 * Returns: false if @text is not a number or too large
 */
bool bf_parse_number(const char *text, double *ret_number);
