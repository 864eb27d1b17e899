/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tells beforehand whether files are good as TLS credentials.
 */
#pragma once

#include <stdbool.h>

#include <glib.h>

#include "schema/types.h"

/**
 * bf_check_creds:
 * @options: which files, and for what
 * @ret_text: (out): what was found: the certificates, all errors and warnings,
 *   and a last line with the result
 *
 * Reads files, so it blocks; it needs no loop.
 *
 * Returns: true if the files can be used
 */
bool bf_check_creds(const BfCheckTlsCredsOptions *options, char **ret_text);
