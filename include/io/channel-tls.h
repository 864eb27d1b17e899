/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS channels: a TLS session over any channel. Many records travel in one
 * send or receive of the channel below. See io/channel.h for threads.
 */
#pragma once

#include "crypto/tls-creds.h"
#include "io/channel.h"

/**
 * bf_channel_tls_co_new:
 * @base: (transfer full): the channel below; freed also on failure
 * @creds: credentials; a reference is taken. Their endpoint decides the role.
 * @hostname: (nullable): client: the name to verify
 * @error: set on failure: the stage (handshake or verification) and the cause
 *
 * Does the handshake, whose costly steps run on the thread pool, and verifies
 * the peer. To limit its time shut @base down from a timer.
 *
 * Returns: (transfer full): the channel, or NULL
 */
BfChannel *bf_channel_tls_co_new(BfChannel *base, BfTlsCreds *creds,
                                 const char *hostname, GError **error);

/**
 * bf_channel_tls_describe:
 * @channel: a TLS channel
 *
 * Returns: (transfer full): for logs, "TLS1.3 AES-128-GCM" and, if the peer
 * showed a certificate, its distinguished name
 */
char *bf_channel_tls_describe(BfChannel *channel);
