/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Socket channels: TCP and UNIX stream sockets. UNIX sockets can pass
 * descriptors. See io/channel.h for threads.
 */
#pragma once

#include "io/channel.h"

/**
 * bf_channel_socket_new:
 * @fd: (transfer full): a connected, non-blocking stream socket
 *
 * Returns: (transfer full): a channel that closes @fd when freed
 */
BfChannel *bf_channel_socket_new(int fd);

/**
 * bf_channel_socket_new_known:
 * @fd: (transfer full): a connected, non-blocking stream socket
 * @domain: its address family, for who knows it; AF_UNSPEC for who does not
 *
 * Returns: (transfer full): a channel that closes @fd when freed
 */
BfChannel *bf_channel_socket_new_known(int fd, int domain);

/**
 * bf_channel_socket_set_bulk:
 * @channel: a socket channel
 *
 * For connections that carry much at once. The system chooses the room that
 * TCP has by itself, but UNIX sockets have little. They are given more when
 * something worth it was sent: many connections carry nothing.
 */
void bf_channel_socket_set_bulk(BfChannel *channel);

/**
 * bf_channel_socket_spare_peer:
 * @channel: a socket channel, connected
 *
 * For who sends pipes and has time left. A network card takes the pages of a
 * pipe from where they are, but over the loopback interface the peer copies
 * them, and waits for memory that is in no cache. While a peer there is behind,
 * what is in pipes is copied before it is sent. With other peers this changes
 * nothing.
 */
void bf_channel_socket_spare_peer(BfChannel *channel);
