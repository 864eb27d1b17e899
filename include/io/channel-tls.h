/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS channels: a TLS session over any channel. Many records travel in one
 * send or receive of the channel below. See io/channel.h for threads.
 */
#pragma once

#include "crypto/tls-creds.h"
#include "crypto/tls-session.h"
#include "io/channel.h"
#include "io/peer-wait.h"

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
 * BfTlsRefusal: how far a client came that was not accepted
 * @in_handshake: false: the handshake was done and verification failed
 * @heard: it has sent something
 * @name: (nullable): owned: what the peer called itself, fit for logs
 */
typedef struct BfTlsRefusal {
    bool in_handshake;
    bool heard;
    char *name;
} BfTlsRefusal;

/**
 * BfTlsGuest: what a server wants to be done for a client that it does not know
 * @flow: at the threads of the pool, see bf_co_offload_for()
 * @wait: (nullable): told when the handshake waits for the client
 */
typedef struct BfTlsGuest {
    uint64_t flow;
    BfPeerWait *wait;
} BfTlsGuest;

/**
 * bf_channel_tls_co_accept:
 * @base: (transfer full): as of bf_channel_tls_co_new()
 * @creds: alike, for a server
 * @guest: the client
 * @ret_refusal: set on failure; the caller frees the name
 * @error: set on failure
 *
 * Does what bf_channel_tls_co_new() does, for servers that explain why a client
 * was not accepted.
 *
 * Returns: (transfer full): the channel, or NULL
 */
BfChannel *bf_channel_tls_co_accept(BfChannel *base, BfTlsCreds *creds,
                                    const BfTlsGuest *guest,
                                    BfTlsRefusal *ret_refusal, GError **error);

/**
 * bf_channel_tls_get_session:
 * @channel: a TLS channel
 *
 * Returns: (transfer none): its session, to ask what was agreed on; only while
 *     nobody reads or writes
 */
const BfTlsSession *bf_channel_tls_get_session(BfChannel *channel);

/**
 * bf_channel_tls_get_identity:
 * @channel: a TLS channel
 *
 * Returns: (transfer none) (nullable): see bf_tls_session_get_identity()
 */
const char *bf_channel_tls_get_identity(BfChannel *channel);

/**
 * bf_channel_tls_get_label:
 * @channel: a TLS channel
 *
 * Returns: (transfer none) (nullable): see bf_tls_session_get_peer_label()
 */
const char *bf_channel_tls_get_label(BfChannel *channel);

/**
 * bf_channel_tls_co_deny:
 * @channel: a TLS channel, not used by anybody else
 *
 * Tells the peer that it was denied, and no more. Nothing can be read or
 * written any more.
 */
void bf_channel_tls_co_deny(BfChannel *channel);

/**
 * bf_channel_tls_describe:
 * @channel: a TLS channel
 *
 * Returns: (transfer full): for logs, "TLS1.3 AES-128-GCM" and, if the peer
 * showed a certificate, its distinguished name
 */
char *bf_channel_tls_describe(BfChannel *channel);
