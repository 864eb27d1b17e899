/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * key=value,... of the command line to JSON. Any thread; none suspends.
 */
#pragma once

#include <jansson.h>

#include "qmp/json-read.h"

/**
 * BfKeyvalFlags: variants of the notation
 * @BF_KEYVAL_FLAT: the old notation of --chardev: keys have no dots, a key
 *   without value is a switch that is on ("nowait" turns "wait" off), and there
 *   is no JSON form
 */
typedef enum BfKeyvalFlags {
    BF_KEYVAL_FLAT = 1,
} BfKeyvalFlags;

/**
 * bf_keyval_parse:
 * @text: the argument
 * @implied: (nullable): key of a first element that has no '='
 * @flags: variants of the notation
 * @ret_mode: (out): how the result is to be read
 * @error: set on failure
 *
 * An argument that begins with '{' is one JSON object by QEMU's grammar, to be
 * read strictly. In others, ',' separates elements and ',,' stands for a comma
 * in a value; dots in keys make objects, and numbers as parts of keys make
 * arrays. The last of several equal keys counts.
 *
 * Returns: (transfer full): a JSON object, or NULL on failure
 */
json_t *bf_keyval_parse(const char *text, const char *implied,
                        BfKeyvalFlags flags, BfReadMode *ret_mode,
                        GError **error);

/**
 * bf_keyval_wants_help:
 * @text: the argument
 * @implied: whether the first element may have no '='
 * @ret_kind: (out) (nullable): the first element in "KIND,help", or NULL for
 *   "help"; to be freed; written only if help is wanted
 *
 * Returns: true if @text asks for help by an element "help" or "?"
 */
bool bf_keyval_wants_help(const char *text, bool implied, char **ret_kind);
