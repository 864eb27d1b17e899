/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where log messages go: the journal when standard error leads there or there
 * is no standard error, else standard error. Any thread; none suspends.
 */
#pragma once

#include <stdbool.h>

/**
 * bf_log_init:
 * @program: name before each line on standard error; borrowed for ever
 *
 * Installs the writer for GLib's structured log. Messages of level info and
 * above are written; those of level debug if the environment variable
 * G_MESSAGES_DEBUG names their domain ("bf-block") or "all".
 */
void bf_log_init(const char *program);

/**
 * bf_log_detach:
 *
 * Tells the writer that standard error is gone (the process is a daemon):
 * messages go to the journal or, where there is none, to syslog.
 */
void bf_log_detach(void);
