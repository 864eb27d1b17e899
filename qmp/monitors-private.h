/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the commands need of the set of monitors. On main; none suspends.
 */
#pragma once

#include "qmp/monitors.h"

/**
 * bf_monitors_quit:
 * @monitors: the set
 *
 * Calls the function of bf_monitors_set_quit_fn(), the first time.
 */
void bf_monitors_quit(BfMonitors *monitors);

/**
 * bf_monitors_query_chardevs:
 * @monitors: the set
 *
 * Returns: (transfer full): what query-chardev returns
 */
BfChardevInfoList *bf_monitors_query_chardevs(BfMonitors *monitors);

/**
 * bf_monitors_chardev_kind:
 * @monitors: the set
 * @id: an id
 *
 * Returns: (transfer none) (nullable): the kind of a character device by its
 * name among objects, such as "chardev-socket"; NULL if there is none
 */
const char *bf_monitors_chardev_kind(BfMonitors *monitors, const char *id);

/**
 * bf_monitors_emit:
 * @monitors: the set
 * @name: name of an event
 * @data: (nullable) (transfer full): its data
 *
 * Sends an event to all clients.
 */
void bf_monitors_emit(BfMonitors *monitors, const char *name, json_t *data);
