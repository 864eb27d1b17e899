/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON values (jansson) by our rules: parsing what the framer gave, values from
 * the generated C types, and integers that jansson cannot hold.
 *
 * jansson has no unsigned integers. An integer from 2^63 to 2^64-1 is therefore
 * kept as a string: U+FFFF, then the decimal digits. No client can send such a
 * string, because QEMU's grammar forbids U+FFFF, and bf_json_str() never makes
 * one. For the same reason, a NUL in a key is kept as U+FFFF. Whoever looks at
 * a json_t that came from a client or goes to one uses the functions here and
 * in qmp/json-write.h instead of jansson's for strings, integers and text.
 *
 * Any thread; none suspends.
 */
#pragma once

#include <jansson.h>

#include "schema/type-info.h"

/* U+FFFF in UTF-8: marks what jansson cannot hold, see above. */
#define BF_JSON_MARK "\xEF\xBF\xBF"

/**
 * BfSecretMode: what becomes of secrets in bf_json_from_object()
 * @BF_SECRET_MODE_MASK: they become "***"
 * @BF_SECRET_MODE_REVEAL: they appear in clear text
 */
typedef enum BfSecretMode {
    BF_SECRET_MODE_MASK,
    BF_SECRET_MODE_REVEAL,
} BfSecretMode;

/**
 * bf_json_from_object:
 * @type: description of any compound type
 * @object: (nullable): the object; a NULL list is written as an empty one
 * @secrets: what becomes of secrets
 *
 * Returns: (transfer full): the JSON value
 */
json_t *bf_json_from_object(const BfTypeInfo *type, const void *object,
                            BfSecretMode secrets);

/**
 * bf_json_str:
 * @text: any bytes up to a NUL
 *
 * Returns: (transfer full): a JSON string; what is not valid UTF-8 is replaced
 *   by U+FFFD
 */
json_t *bf_json_str(const char *text);

/**
 * bf_json_uint:
 * @value: any value
 *
 * Returns: (transfer full): a JSON integer, in the form described at the top
 */
json_t *bf_json_uint(uint64_t value);

/**
 * bf_json_get_big_uint:
 * @value: a JSON value
 * @ret_number: (out): the integer; written on success only
 *
 * Returns: true if @value stands for an integer from 2^63 to 2^64-1
 */
bool bf_json_get_big_uint(const json_t *value, uint64_t *ret_number);

/**
 * bf_json_parse_frame:
 * @text: a text that the framer gave, or strict JSON of ours; a NUL follows it
 * @len: bytes of @text
 * @error: set on failure
 *
 * Freeing a text with 1024 levels takes up to 300 KiB of stack, as jansson
 * recurses; do not do that on a coroutine's stack with a client's value.
 *
 * Returns: (transfer full): the value, or NULL if an object has a key twice or
 *   the text is not strict
 */
json_t *bf_json_parse_frame(const char *text, size_t len, GError **error);

/**
 * bf_json_parse_text:
 * @text: one JSON value by QEMU's grammar, as on the command line
 * @error: set on failure
 *
 * For text that is trusted not to be deep, or off coroutine stacks, as
 * bf_json_parse_frame().
 *
 * Returns: (transfer full): the value, or NULL on failure
 */
json_t *bf_json_parse_text(const char *text, GError **error);
