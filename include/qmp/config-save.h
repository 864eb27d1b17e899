/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The set-up of the daemon as a file of monitor commands, which
 * bf_config_co_run() executes.
 */
#pragma once

#include "qmp/monitors.h"

/**
 * BfConfigText: a set-up in text
 * @text: owned: commands, one on each line, and comments
 * @commands: how many there are
 * @left_out: owned (element-type BfConfigLeftOut): what is not in it, or not
 *     as it is; a comment stands in its place
 */
typedef struct BfConfigText {
    GString *text;
    unsigned commands;
    GPtrArray *left_out;
} BfConfigText;

/**
 * bf_config_text_new:
 * @monitors: the set that has the character devices
 * @daemon: what has the rest
 *
 * On main; never suspends, so that the text shows one moment. The same set-up
 * gives the same text. No secret is in it that is not encrypted.
 *
 * Returns: (transfer full): the set-up as it is now
 */
BfConfigText *bf_config_text_new(BfMonitors *monitors, BfDaemon *daemon);

/**
 * bf_config_text_free:
 * @config: (nullable): a set-up
 */
void bf_config_text_free(BfConfigText *config);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfConfigText, bf_config_text_free)
