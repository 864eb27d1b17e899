/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Socket addresses of the schema: name lookup, listening and connecting.
 *
 * _co_ functions suspend and run on any loop; name lookup happens on the
 * thread pool.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

#include "core/co-io.h"
#include "schema/types.h"

/**
 * BfTakeFd: gives the descriptor behind an address of type "fd"
 * @opaque: as given with the function
 * @name: member "str" of the address
 * @error: set on failure
 *
 * On the command line @name is a number, in QMP a name given to getfd.
 *
 * Returns: (transfer full): the descriptor, or -1
 */
typedef int BfTakeFd(void *opaque, const char *name, GError **error);

/**
 * bf_address_co_listen:
 * @address: inet, unix, vsock or fd
 * @take_fd: (nullable): for type fd; NULL refuses that type
 * @opaque: passed to @take_fd
 * @ret_fds: (out) (transfer full): array of int, one or more listening sockets
 *     (IPv4 and IPv6 of one name), close-on-exec, non-blocking
 * @error: set on failure; texts as QEMU's, naming the address
 *
 * Binds and listens. With "to", ports are tried up to that one. The path of a
 * UNIX socket is taken over if nobody listens there any more; a path where a
 * live server answers is refused.
 *
 * Returns: false on failure
 */
bool bf_address_co_listen(const BfSocketAddress *address, BfTakeFd *take_fd,
                          void *opaque, GArray **ret_fds, GError **error);

/**
 * bf_address_co_connect:
 * @address: inet, unix, vsock or fd
 * @take_fd: (nullable): for type fd
 * @opaque: passed to @take_fd
 * @timeout_ns: nanoseconds, or %BF_FOREVER
 * @cancel: (nullable): ends the wait
 * @error: set on failure
 *
 * Tries all addresses of a name in turn, each for its share of the time that is
 * left. TCP_NODELAY is set.
 *
 * Returns: (transfer full): a connected, non-blocking descriptor, or -1
 */
int bf_address_co_connect(const BfSocketAddress *address, BfTakeFd *take_fd,
                          void *opaque, uint64_t timeout_ns, BfCancel *cancel,
                          GError **error);

/**
 * bf_address_to_string:
 * @address: any address
 *
 * Returns: (transfer full): "unix:/path", "host:port", "[v6]:port", "fd:name"
 */
char *bf_address_to_string(const BfSocketAddress *address);

/**
 * bf_socket_leads_to:
 * @fd: a connected socket of this process
 * @listening: a listening socket of this process
 *
 * Returns: true if the peer of @fd was accepted by @listening, or will be
 */
bool bf_socket_leads_to(int fd, int listening);

/**
 * bf_socket_is_loopback:
 * @fd: a connected socket
 *
 * Returns: true if it is TCP or the like and its peer is on this host: what is
 *     sent takes no network, and the peer's receive copies what was sent
 */
bool bf_socket_is_loopback(int fd);

/**
 * bf_socket_peer_to_string:
 * @fd: a connected socket
 *
 * Returns: (transfer full): the peer for logs: "192.0.2.1:4711", or for UNIX
 * sockets "unix pid 123 uid 0"
 */
char *bf_socket_peer_to_string(int fd);

/**
 * BfPeerSource: where connections come from, in the unit that one party has
 * @family: address family, 0 if it is not known
 * @value: an IPv4 address; the upper half of an IPv6 address, since a network
 *     has at least all of the lower half; the uid of a process; a vsock number
 */
typedef struct BfPeerSource {
    uint64_t family;
    uint64_t value;
} BfPeerSource;

/**
 * bf_socket_domain:
 * @fd: a socket
 *
 * Returns: its address family, AF_UNSPEC if it has none that can be told
 */
int bf_socket_domain(int fd);

/**
 * bf_socket_describe_peer:
 * @fd: a connected socket
 * @domain: its address family, for who knows it; AF_UNSPEC for who does not
 * @ret_source: (out): where its peer is
 *
 * Returns: (transfer full): what bf_socket_peer_to_string() does
 */
char *bf_socket_describe_peer(int fd, int domain, BfPeerSource *ret_source);

/**
 * bf_socket_local_address:
 * @fd: a bound socket
 *
 * Returns: (transfer full) (nullable): its own address, with the port that was
 *     chosen; NULL if it has none that can be told
 */
BfSocketAddress *bf_socket_local_address(int fd);

/**
 * bf_socket_local_to_string:
 * @fd: a bound socket
 *
 * Returns: (transfer full): its own address, with the port that was chosen
 */
char *bf_socket_local_to_string(int fd);
