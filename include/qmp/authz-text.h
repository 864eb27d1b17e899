/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The text of the file of an authz-listfile object: a JSON object with the
 * properties of authz-list. Any thread, but not on a coroutine's stack.
 */
#pragma once

#include "schema/types.h"

/**
 * bf_authz_text_parse:
 * @text: what the file has
 * @path: its path, for messages
 * @error: set on failure: not JSON, not an object, or not of the schema
 *
 * Returns: (transfer full): the rules, or NULL
 */
BfAuthZListProperties *bf_authz_text_parse(const char *text, const char *path,
                                           GError **error);
