/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON values to text as QEMU writes it: ASCII only, ", " and ": " between
 * tokens. Does not recurse, so that any value can be written on a coroutine's
 * stack. Any thread; none suspends.
 */
#pragma once

#include <glib.h>
#include <jansson.h>
#include <stdbool.h>

/**
 * BfJsonStyle: layout of the text
 * @BF_JSON_STYLE_COMPACT: one line
 * @BF_JSON_STYLE_PRETTY: 4 columns for each level; lines are separated by CR LF
 */
typedef enum BfJsonStyle {
    BF_JSON_STYLE_COMPACT,
    BF_JSON_STYLE_PRETTY,
} BfJsonStyle;

/**
 * bf_json_write:
 * @out: the text is appended here, without a line end
 * @value: the value; big integers as described in qmp/json-value.h
 * @style: the layout
 */
void bf_json_write(GString *out, const json_t *value, BfJsonStyle style);

/**
 * bf_json_write_str:
 * @out: the text is appended here
 * @text: valid UTF-8, perhaps with NUL
 * @len: bytes of @text
 *
 * Writes a string with its quotes. Noncharacters, which no reader of ours
 * takes, become U+FFFD.
 */
void bf_json_write_str(GString *out, const char *text, size_t len);

/**
 * bf_json_write_key:
 * @out: the text is appended here
 * @key: a key; NUL in it as described in qmp/json-value.h
 *
 * Writes a key with its quotes.
 */
void bf_json_write_key(GString *out, const char *key);

/**
 * bf_json_changes_text:
 * @text: any bytes
 *
 * Returns: whether a reader of ours gets another text than @text, as JSON has
 *   no way to say it
 */
bool bf_json_changes_text(const char *text);

/**
 * bf_json_write_escape:
 * @out: the text is appended here
 * @c: a character
 *
 * Writes an escape sequence for @c, two of them above U+FFFF.
 */
void bf_json_write_escape(GString *out, gunichar c);
