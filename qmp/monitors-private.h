/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the commands need of the set of monitors. On main; _co_ functions
 * suspend.
 */
#pragma once

#include "qmp/chardev.h"
#include "qmp/monitors.h"

/**
 * bf_monitors_quit:
 * @monitors: the set
 *
 * Calls the function of bf_monitors_set_quit_fn(), the first time.
 */
void bf_monitors_quit(BfMonitors *monitors);

/**
 * bf_monitors_have_clients:
 * @monitors: the set
 *
 * Returns: whether anybody is there who could be sent an event
 */
bool bf_monitors_have_clients(const BfMonitors *monitors);

/**
 * bf_monitors_stopping:
 * @monitors: the set
 *
 * Returns: (transfer none): fired when the daemon begins to end, for commands
 * that may wait for something that hangs
 */
BfCancel *bf_monitors_stopping(BfMonitors *monitors);

/**
 * bf_monitors_take_fd:
 * @monitors: the set
 * @name: as on the command line
 * @error: set on failure
 *
 * Calls the function of bf_monitors_set_take_fd().
 *
 * Returns: (transfer full): the descriptor, or -1
 */
int bf_monitors_take_fd(BfMonitors *monitors, const char *name, GError **error);

/**
 * BfMonitorsChardevOp: what becomes of a new character device
 * @BF_MONITORS_CHARDEV_ADD: it is one more
 * @BF_MONITORS_CHARDEV_REPLACE: it takes the place of one with its id
 */
typedef enum BfMonitorsChardevOp {
    BF_MONITORS_CHARDEV_ADD,
    BF_MONITORS_CHARDEV_REPLACE,
} BfMonitorsChardevOp;

/**
 * bf_monitors_co_chardev_open:
 * @monitors: the set
 * @config: (transfer full): what the device is to be
 * @take_fd: for addresses of type fd
 * @take_fd_opaque: passed to @take_fd
 * @op: whether another device has to have its id
 * @error: set on failure; nothing has changed then
 *
 * Makes a character device.
 *
 * Returns: false on failure
 */
bool bf_monitors_co_chardev_open(BfMonitors *monitors, BfChardevConfig *config,
                                 BfTakeFd *take_fd, void *take_fd_opaque,
                                 BfMonitorsChardevOp op, GError **error);

/**
 * bf_monitors_co_chardev_remove:
 * @monitors: the set
 * @id: an id
 * @error: set on failure: there is no such device, or a monitor uses it
 *
 * Returns: false on failure
 */
bool bf_monitors_co_chardev_remove(BfMonitors *monitors, const char *id,
                                   GError **error);

/**
 * bf_monitors_find_chardev:
 * @monitors: the set
 * @id: an id
 *
 * Returns: (transfer none) (nullable): the character device
 */
BfChardev *bf_monitors_find_chardev(BfMonitors *monitors, const char *id);

/**
 * bf_monitors_query_chardevs:
 * @monitors: the set
 *
 * Returns: (transfer full): what query-chardev returns
 */
BfChardevInfoList *bf_monitors_query_chardevs(BfMonitors *monitors);

/**
 * bf_monitors_emit:
 * @monitors: the set
 * @name: name of an event
 * @data: (nullable) (transfer full): its data
 *
 * Sends an event to all clients.
 */
void bf_monitors_emit(BfMonitors *monitors, const char *name, json_t *data);
