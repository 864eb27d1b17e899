/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Character devices (--chardev, chardev-add): where the connections of monitors
 * come from.
 *
 * On main; _co_ functions suspend. A device is made first and started later;
 * in between, clients can connect and wait.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "core/co-io.h"
#include "io/address.h"
#include "io/channel.h"
#include "qmp/ringbuf.h"
#include "schema/types.h"
#include "serve/objects.h"

/**
 * BfChardev: a character device
 */
typedef struct BfChardev BfChardev;

/**
 * BfChardevConfig: what a device is to be, checked
 * @kind: the backend
 * @id: owned: not empty
 * @address: (nullable): owned: for sockets
 * @server: sockets: listen instead of connect
 * @wait: listening sockets: opening waits for the first client
 * @reconnect_ms: connecting sockets: pause before the next attempt; 0 gives up
 * @tls_creds: (nullable): owned: sockets: id of TLS credentials
 * @tls_authz: (nullable): owned: listening sockets: id of authorization rules
 * @signal: stdio: the terminal's interrupt keys raise signals
 * @ring_bytes: ring buffers: how much they keep
 * @backend: (nullable): owned: what chardev-add was given; NULL if the device
 *     is from the command line, and so is there again after the next start
 * @fd_passed: a socket that it names came over a monitor, so that no later
 *     start has it
 */
typedef struct BfChardevConfig {
    BfChardevBackendKind kind;
    char *id;
    BfSocketAddress *address;
    bool server;
    bool wait;
    uint64_t reconnect_ms;
    char *tls_creds;
    char *tls_authz;
    bool signal;
    uint64_t ring_bytes;
    BfChardevBackend *backend;
    bool fd_passed;
} BfChardevConfig;

/**
 * bf_chardev_config_parse:
 * @text: "BACKEND,id=ID,key=value,..."; a comma in a value is doubled
 * @error: set on failure
 *
 * Returns: (transfer full): what it says, or NULL
 */
BfChardevConfig *bf_chardev_config_parse(const char *text, GError **error);

/**
 * bf_chardev_config_new:
 * @id: of the device
 * @backend: as chardev-add gets it
 * @error: set on failure
 *
 * Returns: (transfer full): what it says, or NULL
 */
BfChardevConfig *bf_chardev_config_new(const char *id,
                                       const BfChardevBackend *backend,
                                       GError **error);

/**
 * bf_chardev_config_free:
 * @config: (nullable): a config
 */
void bf_chardev_config_free(BfChardevConfig *config);

/**
 * bf_chardev_help:
 *
 * Returns: (transfer none): the list of backends, as --chardev help prints it
 */
const char *bf_chardev_help(void);

/**
 * BfChardevFn: takes a connection
 * @opaque: as given to bf_chardev_start()
 * @channel: (transfer full): a connection
 * @peer: who it is, for logs
 *
 * Runs on main and must not suspend.
 */
typedef void BfChardevFn(void *opaque, BfChannel *channel, const char *peer);

/**
 * BfChardevContext: what opening a device needs; all is borrowed
 * @cancel: ends waits for a first client or connection
 * @take_fd: for addresses of type fd
 * @take_fd_opaque: passed to @take_fd
 * @objects: where TLS credentials are; they outlive the device, or
 *     bf_chardev_release_objects() is called
 */
typedef struct BfChardevContext {
    BfCancel *cancel;
    BfTakeFd *take_fd;
    void *take_fd_opaque;
    BfObjects *objects;
} BfChardevContext;

/**
 * bf_chardev_co_open:
 * @config: (transfer full): freed also on failure
 * @context: used until this returns
 * @error: set on failure
 *
 * Listens or connects.
 *
 * Returns: (transfer full): the device, or NULL
 */
BfChardev *bf_chardev_co_open(BfChardevConfig *config,
                              const BfChardevContext *context, GError **error);

/**
 * bf_chardev_co_free:
 * @chardev: (nullable): listens no more; its UNIX socket is unlinked
 *
 * Connections that were handed over are not touched.
 */
void bf_chardev_co_free(BfChardev *chardev);

/**
 * bf_chardev_start:
 * @chardev: a device that was not started
 * @connected: called for each connection, those that wait first
 * @opaque: passed to @connected
 */
void bf_chardev_start(BfChardev *chardev, BfChardevFn *connected, void *opaque);

/**
 * bf_chardev_disconnected:
 * @chardev: a started device
 *
 * Tells that a connection that was handed over has ended: time to reconnect.
 */
void bf_chardev_disconnected(BfChardev *chardev);

/**
 * bf_chardev_release_objects:
 * @chardev: a device
 *
 * Uses no objects any more: they are about to be freed. For the end of the
 * daemon, as new connections may be refused from now on.
 */
void bf_chardev_release_objects(BfChardev *chardev);

/**
 * bf_chardev_get_config:
 * @chardev: a device
 *
 * Returns: (transfer none): what it was made from
 */
const BfChardevConfig *bf_chardev_get_config(const BfChardev *chardev);

/**
 * bf_chardev_get_ringbuf:
 * @chardev: a device
 *
 * Returns: (transfer none) (nullable): its memory, if it is a ring buffer
 */
BfRingbuf *bf_chardev_get_ringbuf(BfChardev *chardev);

/**
 * bf_chardev_describe:
 * @chardev: a device
 *
 * Returns: (transfer full): for logs and query-chardev, such as
 * "unix:/run/m.sock,server=on"
 */
char *bf_chardev_describe(const BfChardev *chardev);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfChardevConfig, bf_chardev_config_free)
