/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What chardev.c shares with the channel of the stdio backend and with TLS.
 */
#pragma once

#include <stdbool.h>

#include <glib.h>

#include "io/channel.h"
#include "qmp/chardev.h"
#include "serve/objects.h"

/**
 * bf_channel_stdio_new:
 * @signal: false turns the terminal's interrupt keys off
 * @error: set on failure
 *
 * Descriptors 0 and 1 as a channel; they are made non-blocking, and what was
 * changed is put back when the channel is freed. Only one may exist.
 * bf_channel_shutdown() is for the loop of its users.
 *
 * Returns: (transfer full): the channel, or NULL
 */
BfChannel *bf_channel_stdio_new(bool signal, GError **error);

/**
 * BfChardevTls: TLS credentials in use, and connections in their handshake
 */
typedef struct BfChardevTls BfChardevTls;

/**
 * bf_chardev_tls_new:
 * @objects: where the credentials and the rules are
 * @config: names them
 * @done: takes the connections of bf_chardev_tls_start()
 * @left: called when one of them has ended its handshake, well or not
 * @opaque: passed to @done and @left
 * @error: set on failure: the credentials cannot be used for this
 *
 * The object of the credentials is in use until bf_chardev_tls_release().
 *
 * Returns: (transfer full): the new one, or NULL
 */
BfChardevTls *bf_chardev_tls_new(BfObjects *objects,
                                 const BfChardevConfig *config,
                                 BfChardevFn *done, BfFn *left, void *opaque,
                                 GError **error);

/**
 * bf_chardev_tls_release:
 * @tls: TLS of a device
 *
 * Lets go of the objects, so that they may be freed. Nobody is accepted any
 * more whom authorization would have to be asked about.
 */
void bf_chardev_tls_release(BfChardevTls *tls);

/**
 * bf_chardev_tls_close:
 * @tls: TLS of a device
 *
 * Makes all handshakes fail, now and from now on.
 */
void bf_chardev_tls_close(BfChardevTls *tls);

/**
 * bf_chardev_tls_co_free:
 * @tls: (nullable): closed if it is not
 */
void bf_chardev_tls_co_free(BfChardevTls *tls);

/**
 * bf_chardev_tls_is_full:
 * @tls: TLS of a device that listens
 *
 * Returns: true if nobody is to be accepted before somebody has left
 */
bool bf_chardev_tls_is_full(const BfChardevTls *tls);

/**
 * bf_chardev_tls_start:
 * @tls: TLS of a device that listens
 * @channel: (transfer full): a new connection
 * @peer: who it is, for logs
 *
 * Does the handshake and asks authorization; then calls the function given to
 * bf_chardev_tls_new(), or logs why not.
 */
void bf_chardev_tls_start(BfChardevTls *tls, BfChannel *channel,
                          const char *peer);

/**
 * bf_chardev_tls_co_connect:
 * @tls: TLS of a device that connects
 * @channel: (transfer full): a new connection
 * @hostname: (nullable): the name that the server has to prove
 * @error: set on failure
 *
 * Returns: (transfer full): the secured connection, or NULL
 */
BfChannel *bf_chardev_tls_co_connect(BfChardevTls *tls, BfChannel *channel,
                                     const char *hostname, GError **error);
