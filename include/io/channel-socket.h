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
 * bf_channel_socket_set_bulk:
 * @channel: a socket channel, for which nothing was sent yet
 *
 * For connections that carry much at once. The system chooses the room that
 * TCP has by itself, but UNIX sockets have little.
 */
void bf_channel_socket_set_bulk(BfChannel *channel);
