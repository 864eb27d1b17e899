/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files of monitor commands, as qmp/config-text.h describes them.
 */
#pragma once

#include "core/util.h"
#include "qmp/monitors.h"

/* Largest file. */
#define BF_CONFIG_BYTES_MAX (64 * BF_MIB)

/**
 * bf_config_co_run:
 * @monitors: borrowed: what the commands may be about
 * @daemon: borrowed: what they work on
 * @path: of the file; its text has at most 64 MiB
 * @error: set on failure, beginning with the file and the line of the command
 *
 * On main; suspends. Reads the file on the thread pool, and runs its commands
 * in their order up to the first that fails.
 *
 * Returns: false on failure
 */
bool bf_config_co_run(BfMonitors *monitors, BfDaemon *daemon, const char *path,
                      GError **error);
