/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The other end of a monitor's connection, for tests. Failures are assertions.
 */
#pragma once

#include <glib.h>

#include "io/channel.h"
#include "qmp/monitors.h"

/**
 * BfTestPeer: a client's side of a connection
 * @channel: owned
 * @fd: borrowed from @channel
 * @input: bytes that make no whole line yet
 */
typedef struct BfTestPeer {
    BfChannel *channel;
    int fd;
    GString *input;
} BfTestPeer;

/**
 * bf_test_peer_init:
 * @peer: (out caller-allocates): a connection
 * @fd: (transfer full): a connected socket
 */
void bf_test_peer_init(BfTestPeer *peer, int fd);

/**
 * bf_test_peer_co_connect:
 * @peer: (out caller-allocates): a connection
 * @path: of a UNIX socket
 */
void bf_test_peer_co_connect(BfTestPeer *peer, const char *path);

/**
 * bf_test_peer_co_connect_soon:
 * @peer: a peer
 * @path: a socket's path, on which somebody is about to listen
 *
 * Waits until it can connect.
 */
void bf_test_peer_co_connect_soon(BfTestPeer *peer, const char *path);

/**
 * bf_test_peer_clear:
 * @peer: a connection, closed
 */
void bf_test_peer_clear(BfTestPeer *peer);

/**
 * bf_test_peer_co_send:
 * @peer: a connection
 * @text: what to send
 */
void bf_test_peer_co_send(BfTestPeer *peer, const char *text);

/**
 * bf_test_peer_send_fd:
 * @peer: a connection
 * @text: what to send, short
 * @fd: goes with it
 */
void bf_test_peer_send_fd(BfTestPeer *peer, const char *text, int fd);

/**
 * bf_test_peer_co_line:
 * @peer: a connection
 *
 * Returns: (transfer full) (nullable): the next line without its CR LF, which
 * must be there; NULL at the end of the stream
 */
char *bf_test_peer_co_line(BfTestPeer *peer);

/**
 * bf_test_peer_co_expect:
 * @peer: a connection
 * @line: (nullable): what the next line must be; NULL: the end
 */
void bf_test_peer_co_expect(BfTestPeer *peer, const char *line);

/**
 * bf_test_peer_co_expect_like:
 * @peer: a connection
 * @pattern: with '*' for anything, what the next line must be like
 */
void bf_test_peer_co_expect_like(BfTestPeer *peer, const char *pattern);

/**
 * bf_test_peer_co_ask:
 * @peer: a connection
 * @text: a request
 * @line: what the reply must be
 */
void bf_test_peer_co_ask(BfTestPeer *peer, const char *text, const char *line);

/**
 * bf_test_peer_co_negotiate:
 * @peer: a new connection
 *
 * Reads the greeting and ends negotiation.
 */
void bf_test_peer_co_negotiate(BfTestPeer *peer);
