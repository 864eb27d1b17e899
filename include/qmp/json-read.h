/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From JSON values to the generated C types, by the description of the type.
 * The typed functions of qmp/gen-json.h are what others call.
 *
 * Nesting is limited to %BF_READ_DEPTH_MAX objects, so that these functions can
 * run on a coroutine's stack. Any thread; none suspends.
 */
#pragma once

#include <jansson.h>

#include "qmp/json-doc.h"
#include "schema/type-info.h"

/* Most objects inside of each other that a reader accepts. */
#define BF_READ_DEPTH_MAX 64

/**
 * BfReadMode: what kind of values a reader is given
 * @BF_READ_MODE_STRICT: JSON as over QMP
 * @BF_READ_MODE_KEYVAL: what bf_keyval_parse() made: all scalars are strings,
 *   which are converted to what the schema wants ("on", "1.5G")
 */
typedef enum BfReadMode {
    BF_READ_MODE_STRICT,
    BF_READ_MODE_KEYVAL,
} BfReadMode;

/**
 * bf_json_read_node:
 * @type: description of a struct or union
 * @node: (nullable): the JSON value; NULL counts as an empty object
 * @mode: what kind of value it is
 * @error: set on failure
 *
 * Reads members in the order of the schema and fails at the first that is
 * missing or wrong, then at one that the schema does not know. The messages are
 * those of QEMU and name the member by its path.
 *
 * Returns: (transfer full): the object, or NULL on failure
 */
void *bf_json_read_node(const BfTypeInfo *type, const BfJsonNode *node,
                        BfReadMode mode, GError **error);

/**
 * bf_json_read_object:
 * @type: description of a struct or union
 * @value: (nullable): the JSON value; NULL counts as an empty object
 * @mode: what kind of value it is
 * @error: set on failure
 *
 * bf_json_read_node() of a value.
 *
 * Returns: (transfer full): the object, or NULL on failure
 */
void *bf_json_read_object(const BfTypeInfo *type, const json_t *value,
                          BfReadMode mode, GError **error);

/**
 * bf_json_read_none:
 * @node: (nullable): the arguments of a command that takes none
 * @error: set on failure
 *
 * Returns: false if there are arguments
 */
bool bf_json_read_none(const BfJsonNode *node, GError **error);
