/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Listeners: accept connections on one or more sockets.
 *
 * On main. A listener that is paused leaves clients in the kernel's queue
 * (back-pressure by not accepting). Running out of descriptors pauses it for a
 * second instead of spinning.
 */
#pragma once

#include <stdbool.h>

#include <glib.h>

/**
 * BfListener: accepts connections
 */
typedef struct BfListener BfListener;

/**
 * BfListenerFn: takes a connection
 * @opaque: as given to bf_listener_new()
 * @fd: (transfer full): close-on-exec, non-blocking, TCP_NODELAY and keep-alive
 *     set for TCP
 * @domain: its address family, AF_UNSPEC if it is not known
 *
 * Runs on main, not in a coroutine of its own choosing; it must not suspend.
 */
typedef void BfListenerFn(void *opaque, int fd, int domain);

/**
 * bf_listener_new:
 * @fds: (transfer full): array of int, from bf_address_co_listen()
 * @unlink_path: (nullable): the UNIX path to unlink when freed; copied. It is
 *     unlinked only while it is still this socket.
 * @accepted: called for each connection
 * @opaque: passed to @accepted
 *
 * Starts accepting.
 *
 * Returns: (transfer full): the listener
 */
BfListener *bf_listener_new(GArray *fds, const char *unlink_path,
                            BfListenerFn *accepted, void *opaque);

/**
 * bf_listener_is_peer:
 * @listener: a listener
 * @fd: a connected socket of this process
 *
 * Returns: true if the other end of @fd comes, or came, to @listener
 */
bool bf_listener_is_peer(const BfListener *listener, int fd);

/**
 * bf_listener_set_paused:
 * @listener: a listener
 * @paused: true stops accepting, after at most one more connection per socket
 */
void bf_listener_set_paused(BfListener *listener, bool paused);

/**
 * bf_listener_co_free:
 * @listener: (nullable): closed; suspends until its coroutines have ended
 *
 * @accepted is not called any more after this began.
 */
void bf_listener_co_free(BfListener *listener);
