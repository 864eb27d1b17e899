/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One client of a monitor: greeting, requests in, replies and events out.
 *
 * On main; none suspends. A client runs by itself from start until its
 * connection has ended and its last command too.
 */
#pragma once

#include <stdbool.h>

#include <glib.h>

#include "core/thread-pool.h"
#include "io/channel.h"
#include "qmp/dispatch.h"

/**
 * BfMonitorClientConfig: what a client is started with
 * @call: what its commands get; the client is filled in
 * @channel: (transfer full): the connection
 * @name: for logs; copied
 * @lane: for big texts; it outlives the client
 * @style: layout of what it is sent
 * @read_only: only queries are allowed
 * @changed: called when it may have become idle
 * @ended: called when it has ended and was freed
 * @opaque: passed to @changed and @ended
 */
typedef struct BfMonitorClientConfig {
    BfQmpCall call;
    BfChannel *channel;
    const char *name;
    BfPoolLane *lane;
    BfJsonStyle style;
    bool read_only;
    void (*changed)(void *opaque);
    void (*ended)(void *opaque);
    void *opaque;
} BfMonitorClientConfig;

/**
 * bf_monitor_client_start:
 * @config: copied
 *
 * Starts to serve a client, with the greeting. The client frees itself.
 *
 * Returns: (transfer none): the client
 */
BfMonitorClient *bf_monitor_client_start(const BfMonitorClientConfig *config);

/**
 * bf_monitor_client_stop:
 * @client: a client
 *
 * Requests that were not begun are dropped, and no more are taken.
 */
void bf_monitor_client_stop(BfMonitorClient *client);

/**
 * bf_monitor_client_is_running:
 * @client: a client
 *
 * Returns: true if a command runs
 */
bool bf_monitor_client_is_running(const BfMonitorClient *client);

/**
 * bf_monitor_client_is_idle:
 * @client: a client
 *
 * Returns: true if no command runs and all output was sent or cannot be
 */
bool bf_monitor_client_is_idle(const BfMonitorClient *client);

/**
 * bf_monitor_client_shutdown:
 * @client: a client
 *
 * Ends the connection. The client ends when its command has.
 */
void bf_monitor_client_shutdown(BfMonitorClient *client);

/**
 * bf_monitor_client_send_event:
 * @client: a client that has finished negotiation
 * @text: a whole message in its style; a reference is taken
 *
 * Queues an event. A client with too many unread events is disconnected.
 */
void bf_monitor_client_send_event(BfMonitorClient *client, GBytes *text);

/**
 * bf_monitor_client_get_style:
 * @client: a client
 *
 * Returns: layout of what it is sent
 */
BfJsonStyle bf_monitor_client_get_style(const BfMonitorClient *client);

/**
 * bf_monitor_client_is_negotiated:
 * @client: (nullable): a client; NULL for commands from a file, which need not
 *
 * Returns: true after qmp_capabilities
 */
bool bf_monitor_client_is_negotiated(const BfMonitorClient *client);

/**
 * bf_monitor_client_negotiate:
 * @client: a client in negotiation
 * @oob: whether it may send exec-oob
 *
 * Ends negotiation; events are delivered from now on.
 */
void bf_monitor_client_negotiate(BfMonitorClient *client, bool oob);

/**
 * bf_monitor_client_has_oob:
 * @client: (nullable): a client; NULL for commands from a file, which cannot
 *
 * Returns: whether it may send exec-oob
 */
bool bf_monitor_client_has_oob(const BfMonitorClient *client);

/**
 * bf_monitor_client_may_run:
 * @client: (nullable): a client; NULL for commands from a file, which may all
 * @command: name of a command
 *
 * Returns: false if its monitor is read-only and the command is no query
 */
bool bf_monitor_client_may_run(const BfMonitorClient *client,
                               const char *command);

/**
 * bf_monitor_client_take_passed_fd:
 * @client: (nullable): a client whose command runs; NULL has none
 * @error: set on failure: none came with the command
 *
 * Takes the first descriptor that came with the command; others are closed.
 *
 * Returns: (transfer full): the descriptor, or -1
 */
int bf_monitor_client_take_passed_fd(BfMonitorClient *client, GError **error);

/**
 * bf_monitor_client_name_fd:
 * @client: a client
 * @name: the name; a descriptor that has it already is closed
 * @fd: (transfer full): a descriptor; closed on failure
 * @error: set on failure: the client has too many
 *
 * Returns: false on failure
 */
bool bf_monitor_client_name_fd(BfMonitorClient *client, const char *name,
                               int fd, GError **error);

/**
 * bf_monitor_client_take_named_fd:
 * @opaque: (nullable): a BfMonitorClient, so that this is a BfTakeFd; NULL has
 *     none
 * @name: a name given to getfd
 * @error: set on failure: no descriptor has this name
 *
 * Returns: (transfer full): the descriptor, which loses its name, or -1
 */
int bf_monitor_client_take_named_fd(void *opaque, const char *name,
                                    GError **error);
