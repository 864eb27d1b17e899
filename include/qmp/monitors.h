/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The set of monitors and of the character devices they sit on. Owned by main.
 *
 * On main; _co_ functions suspend. The usual life: new, set_daemon,
 * set_quit_fn, chardev_add and monitor_add in the order of the command line,
 * start, ..., co_stop, (the daemon is closed,) co_close, free. Before start
 * nobody is served, but clients can connect and wait.
 */
#pragma once

#include <stdbool.h>

#include "core/loop.h"
#include "io/address.h"
#include "schema/types.h"
#include "serve/daemon.h"

/**
 * BfMonitors: the set of monitors and character devices
 */
typedef struct BfMonitors BfMonitors;

/**
 * bf_monitors_new:
 * @main_loop: borrowed: the calling thread's loop
 *
 * Returns: (transfer full): a set without monitors
 */
BfMonitors *bf_monitors_new(BfLoop *main_loop);

/**
 * bf_monitors_set_daemon:
 * @monitors: the set
 * @daemon: (nullable): borrowed: what the commands work on; it outlives the
 *     last command, that is bf_monitors_co_close()
 */
void bf_monitors_set_daemon(BfMonitors *monitors, BfDaemon *daemon);

/**
 * bf_monitors_set_quit_fn:
 * @monitors: the set
 * @quit: called on main, once, when a client gives the command quit; must not
 *     suspend. The reply is queued before and sent by bf_monitors_co_close().
 * @opaque: passed to @quit
 */
void bf_monitors_set_quit_fn(BfMonitors *monitors, BfFn *quit, void *opaque);

/**
 * bf_monitors_set_take_fd:
 * @monitors: the set
 * @take_fd: gives the descriptors that bf_monitors_co_chardev_add() names;
 *     without, it refuses them
 * @opaque: passed to @take_fd
 */
void bf_monitors_set_take_fd(BfMonitors *monitors, BfTakeFd *take_fd,
                             void *opaque);

/**
 * bf_monitors_export_events:
 *
 * For BfDaemonConfig; the set itself is the opaque pointer that goes with it.
 *
 * Returns: (transfer none): functions that turn notices into QMP events
 */
const BfExportEvents *bf_monitors_export_events(void);

/**
 * bf_monitors_nbd_events:
 *
 * Returns: (transfer none): notices of the NBD server that become events; their
 * opaque is a BfMonitors
 */
const BfNbdEvents *bf_monitors_nbd_events(void);

/**
 * bf_monitors_node_events:
 *
 * Returns: (transfer none): notices of quorum nodes that become events; their
 * opaque is a BfMonitors
 */
const BfNodeEvents *bf_monitors_node_events(void);

/**
 * bf_monitors_tls_events:
 *
 * For BfDaemonConfig, as bf_monitors_export_events().
 *
 * Returns: (transfer none): functions that turn notices into QMP events
 */
const BfTlsEvents *bf_monitors_tls_events(void);

/**
 * bf_monitors_job_events:
 *
 * For BfDaemonConfig, as bf_monitors_export_events().
 *
 * Returns: (transfer none): functions that turn notices into QMP events
 */
const BfJobEvents *bf_monitors_job_events(void);

/**
 * bf_monitors_co_chardev_add:
 * @monitors: the set
 * @text: the argument of --chardev, "BACKEND,id=ID,..."
 * @error: set on failure
 *
 * Makes a character device: listens, or connects unless reconnect is on. With
 * server=on and without wait=off suspends until a client has connected or
 * bf_monitors_cancel_wait() was called.
 *
 * Returns: false on failure
 */
bool bf_monitors_co_chardev_add(BfMonitors *monitors, const char *text,
                                GError **error);

/**
 * bf_monitors_co_monitor_add:
 * @monitors: the set
 * @options: the argument of --monitor
 * @error: set on failure
 *
 * Puts a monitor onto a character device.
 *
 * Returns: false on failure
 */
bool bf_monitors_co_monitor_add(BfMonitors *monitors,
                                const BfMonitorOptions *options,
                                GError **error);

/**
 * bf_monitors_co_add_default:
 * @monitors: the set
 * @path: of a UNIX socket; its directory exists
 * @error: set on failure
 *
 * Makes a monitor that listens on @path, with the ids "default" of the
 * character device and the monitor. Only the owner may connect.
 *
 * Returns: false on failure
 */
bool bf_monitors_co_add_default(BfMonitors *monitors, const char *path,
                                GError **error);

/**
 * bf_monitors_chardev_help:
 *
 * Returns: (transfer full): what --chardev help prints
 */
char *bf_monitors_chardev_help(void);

/**
 * bf_monitors_count:
 * @monitors: the set
 *
 * Returns: number of monitors, with or without clients
 */
unsigned bf_monitors_count(const BfMonitors *monitors);

/**
 * bf_monitors_start:
 * @monitors: the set
 *
 * Begins to serve clients, those that wait first.
 */
void bf_monitors_start(BfMonitors *monitors);

/**
 * bf_monitors_cancel_wait:
 * @monitors: the set
 *
 * Makes a bf_monitors_co_chardev_add() that waits for a client or a connection
 * fail, now and from now on. For signals that end the program.
 */
void bf_monitors_cancel_wait(BfMonitors *monitors);

/**
 * bf_monitors_co_stop:
 * @monitors: the set
 *
 * Begins no more commands and waits some seconds for those that run, so that
 * what they work on can be taken down. Clients stay connected and get events.
 *
 * Returns: false if a command is still running
 */
bool bf_monitors_co_stop(BfMonitors *monitors);

/**
 * bf_monitors_co_close:
 * @monitors: the set
 *
 * Stops commands like bf_monitors_co_stop(), then stops listening, unlinks UNIX
 * sockets, sends what is queued, and closes all clients. Clients that do not
 * read and commands that do not end get some seconds.
 *
 * Returns: false if a command is still running or a connection or device does
 * not end: then neither @monitors nor the daemon may be freed, only the process
 * ended
 */
bool bf_monitors_co_close(BfMonitors *monitors);

/**
 * bf_monitors_free:
 * @monitors: (nullable): after a bf_monitors_co_close() that returned true
 */
void bf_monitors_free(BfMonitors *monitors);
