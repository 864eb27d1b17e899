/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Structured arguments of the command line: key=value lists or JSON, read by
 * the generated readers of the QMP commands. Any thread; none suspends.
 */
#pragma once

#include <glib.h>

#include "schema/types.h"

/**
 * bf_options_parse_object:
 * @text: the argument of --object
 * @error: set on failure, naming the member
 *
 * Returns: (transfer full): what object-add takes, or NULL
 */
BfObjectOptions *bf_options_parse_object(const char *text, GError **error);

/**
 * bf_options_hide_secrets:
 * @text: argument of --object; changed in place
 *
 * Overwrites the data of a secret by asterisks: arguments are shown by ps, in
 * /proc and in messages. In case of doubt it overwrites more.
 */
void bf_options_hide_secrets(char *text);

/**
 * bf_options_parse_blockdev:
 * @text: the argument of --blockdev
 * @error: set on failure, naming the member
 *
 * Returns: (transfer full): what blockdev-add takes, or NULL
 */
BfBlockdevOptions *bf_options_parse_blockdev(const char *text, GError **error);

/**
 * bf_options_parse_export:
 * @text: the argument of --export
 * @error: set on failure, naming the member
 *
 * Returns: (transfer full): what block-export-add takes, or NULL
 */
BfBlockExportOptions *bf_options_parse_export(const char *text, GError **error);

/**
 * bf_options_parse_nbd_server:
 * @text: the argument of --nbd-server
 * @error: set on failure, naming the member
 *
 * Returns: (transfer full): the server's options, or NULL
 */
BfNbdServerOptions *bf_options_parse_nbd_server(const char *text,
                                                GError **error);

/**
 * bf_options_parse_monitor:
 * @text: the argument of --monitor
 * @error: set on failure, naming the member
 *
 * Returns: (transfer full): the monitor's options, or NULL
 */
BfMonitorOptions *bf_options_parse_monitor(const char *text, GError **error);

/**
 * bf_options_parse_check_tls_creds:
 * @text: the argument of --check-tls-creds
 * @error: set on failure, naming the member
 *
 * Returns: (transfer full): what to check, or NULL
 */
BfCheckTlsCredsOptions *bf_options_parse_check_tls_creds(const char *text,
                                                         GError **error);

/**
 * bf_options_object_help:
 * @text: the argument of --object
 *
 * Returns: (transfer full) (nullable): the help that @text asks for ("help",
 * "TYPE,help"), NULL if it does not
 */
char *bf_options_object_help(const char *text);
