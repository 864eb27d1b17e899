/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Socket addresses of the system, as address.c and address-resolve.c share
 * them. None suspends but bf_address_co_resolve_inet().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include <glib.h>

#include "io/address.h"
#include "schema/types.h"

/**
 * BfSockaddr: an address to bind or connect to
 * @addr: the address
 * @len: its length, bytes
 * @protocol: of socket(2); 0 is the usual one
 * @keep_alive: turn SO_KEEPALIVE on for a connection to it
 */
typedef struct BfSockaddr {
    struct sockaddr_storage addr;
    socklen_t len;
    int protocol;
    bool keep_alive;
} BfSockaddr;

/**
 * bf_tcp_options_set:
 * @fd: a TCP socket that listens or is connected
 * @inet: what its user has said
 * @error: set on failure, naming the member
 *
 * Sets how long a silent peer is borne; connections inherit it from the socket
 * that they come to.
 *
 * Returns: false on failure
 */
bool bf_tcp_options_set(int fd, const BfInetSocketAddress *inet,
                        GError **error);

/**
 * bf_sockaddr_get_port:
 * @where: any address
 *
 * Returns: the TCP port; 0 for other families
 */
uint16_t bf_sockaddr_get_port(const BfSockaddr *where);

/**
 * bf_sockaddr_set_port:
 * @where: any address; only TCP ones are changed
 * @port: the port
 */
void bf_sockaddr_set_port(BfSockaddr *where, uint16_t port);

/**
 * bf_sockaddr_from_unix:
 * @address: a UNIX address
 * @ret_where: (out): written on success only
 * @error: set on failure: empty or too long
 *
 * Returns: false on failure
 */
bool bf_sockaddr_from_unix(const BfUnixSocketAddress *address,
                           BfSockaddr *ret_where, GError **error);

/**
 * bf_sockaddr_from_vsock:
 * @address: a vsock address
 * @ret_where: (out): written on success only
 * @error: set on failure: not numbers
 *
 * Returns: false on failure
 */
bool bf_sockaddr_from_vsock(const BfVsockSocketAddress *address,
                            BfSockaddr *ret_where, GError **error);

/**
 * bf_address_is_abstract:
 * @address: a UNIX address
 *
 * Returns: true if it is not in the file system
 */
bool bf_address_is_abstract(const BfUnixSocketAddress *address);

/**
 * bf_address_co_resolve_inet:
 * @inet: host and port, names or numbers
 * @passive: true to listen: an empty host means all addresses
 * @error: set on failure
 *
 * Looks names up on the thread pool.
 *
 * Returns: (transfer full): array of BfSockaddr, at least one, or NULL
 */
GArray *bf_address_co_resolve_inet(const BfInetSocketAddress *inet,
                                   bool passive, GError **error);

/* Who may connect to the path of a UNIX socket, as numbers. */
typedef struct BfUnixAccess {
    bool has_mode;
    mode_t mode;
    uid_t owner; /* (uid_t)-1: unchanged */
    gid_t group; /* (gid_t)-1: unchanged */
} BfUnixAccess;

/* Reads mode, owner and group of an address. Looks names up, so it may block.
 */
bool bf_unix_access_read(const BfUnixSocketAddress *address,
                         BfUnixAccess *ret_access, GError **error);

/* Whether the address says anything about who may connect. */
bool bf_unix_access_is_given(const BfUnixSocketAddress *address);

/**
 * bf_sockaddr_source:
 * @addr: address of a peer
 *
 * Returns: what bf_socket_describe_peer() says, but for UNIX sockets, whose
 * addresses do not tell
 */
BfPeerSource bf_sockaddr_source(const struct sockaddr_storage *addr);
