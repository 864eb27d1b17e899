/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD server: its listeners, clients and NBD exports. On main; _co_
 * functions suspend. There is at most one server per daemon.
 */
#pragma once

#include "core/iovec.h"
#include "crypto/tls-creds.h"
#include "io/address.h"
#include "serve/export.h"
#include "serve/objects.h"

/**
 * BfNbdServer: listeners, clients and settings of the running server
 */
typedef struct BfNbdServer BfNbdServer;

/**
 * BfNbdRejection: a client that was turned away; all is borrowed
 * @reason: class of the reason
 * @connection: its number in the log
 * @peer: its address
 * @stage: what it was at
 * @name: (nullable): what it calls itself, fit for logs
 * @export_name: (nullable): the export that it wants, fit for logs
 * @message: the cause in words and the remedy
 */
typedef struct BfNbdRejection {
    BfNbdClientRejectReason reason;
    uint64_t connection;
    const char *peer;
    const char *stage;
    const char *name;
    const char *export_name;
    const char *message;
} BfNbdRejection;

/**
 * BfNbdArrival: a client that begins to use an export; all is borrowed
 * @connection: its number in the log
 * @peer: its address
 * @export_id: id of the export
 * @tls: (nullable): its TLS session
 * @clients: connections that use the export, this one included
 */
typedef struct BfNbdArrival {
    uint64_t connection;
    const char *peer;
    const char *export_id;
    const BfNbdClientTls *tls;
    unsigned clients;
} BfNbdArrival;

/**
 * BfNbdDeparture: a client that used an export and is gone; all is borrowed
 * @connection: its number in the log
 * @peer: its address
 * @export_id: id of the export
 * @name: (nullable): what it called itself, fit for logs
 * @reason: class of the reason
 * @message: the cause in words
 * @duration_ns: for how long it was connected
 * @requests: how many of its requests were answered
 * @failed_requests: how many of them with an error
 * @clients: connections that still use the export
 */
typedef struct BfNbdDeparture {
    uint64_t connection;
    const char *peer;
    const char *export_id;
    const char *name;
    BfNbdClientDisconnectReason reason;
    const char *message;
    uint64_t duration_ns;
    uint64_t requests;
    uint64_t failed_requests;
    unsigned clients;
} BfNbdDeparture;

/**
 * BfNbdEvents: upward notices of an NBD server, on main
 * @rejected: a client was turned away
 * @connected: a client begins to use an export
 * @disconnected: such a client is gone
 */
typedef struct BfNbdEvents {
    void (*rejected)(void *opaque, const BfNbdRejection *rejection);
    void (*connected)(void *opaque, const BfNbdArrival *arrival);
    void (*disconnected)(void *opaque, const BfNbdDeparture *departure);
} BfNbdEvents;

/**
 * BfNbdListenerConfig: where to listen, and what is demanded of clients there
 * @id: (nullable): copied; NULL for the listener that the server starts with
 * @address: where to listen
 * @take_fd: (nullable): for addresses of type fd
 * @take_fd_opaque: passed to @take_fd
 * @tls_creds: (nullable): a reference is taken; demanded of every client
 * @tls_creds_id: (nullable): their id; copied. When it ends, the claim that
 *     bf_nbd_listener_creds_user() has on them is given back
 * @tls_authz: (nullable): id of the authorization object that says whose
 *     clients may connect; copied. Needs @tls_creds that prove a name
 * @tls_mode: when TLS begins, if there are @tls_creds
 * @handshake_max_seconds: limit from accept to the end of negotiation; 0 has
 *     none
 * @max_connections: of this listener; 0 is unlimited; 1 clears the multi-conn
 *     flag
 * @max_per_address: from one address (see #BfPeerSource), whichever listener
 *     they have come through; 0 is unlimited; 1 clears the flag, too
 * @idle_max_seconds: how long a client may do nothing, or leave its replies
 *     unread; 0 has no limit
 */
typedef struct BfNbdListenerConfig {
    const char *id;
    const BfSocketAddress *address;
    BfTakeFd *take_fd;
    void *take_fd_opaque;
    BfTlsCreds *tls_creds;
    const char *tls_creds_id;
    const char *tls_authz;
    BfNbdTlsMode tls_mode;
    uint32_t handshake_max_seconds;
    uint32_t max_connections;
    uint32_t max_per_address;
    uint32_t idle_max_seconds;
} BfNbdListenerConfig;

/**
 * bf_nbd_listener_creds_user:
 * @id: (nullable): of a listener, or NULL for the first one
 *
 * Returns: (transfer full): who uses the credentials of that listener
 */
char *bf_nbd_listener_creds_user(const char *id);

/**
 * BfNbdServerConfig: how to make a server
 * @first: the listener that it starts with
 * @objects: (nullable): where authorization objects are; borrowed: live longer
 *     than the server. Needed for @tls_authz and that of exports
 * @events: (nullable): borrowed constant
 * @events_opaque: passed to @events
 * @workers: loops for connections; borrowed: live longer than the server
 * @n_workers: at least 1
 * @exports: the daemon's table; borrowed
 * @budget: bounds the memory of all requests of the daemon; borrowed
 * @wake_ns: what bf_clock_measure_wake_ns() gave; 0 if not known
 * @unused: (nullable): called on main when the last client that used an export
 *     has left; must not suspend
 * @unused_arg: passed to @unused
 * @held: clients can connect, but are not served before bf_nbd_server_serve()
 */
typedef struct BfNbdServerConfig {
    BfNbdListenerConfig first;
    BfObjects *objects;
    const BfNbdEvents *events;
    void *events_opaque;
    BfLoop *const *workers;
    unsigned n_workers;
    BfExportTable *exports;
    BfBudget *budget;
    uint64_t wake_ns;
    BfFn *unused;
    void *unused_arg;
    bool held;
} BfNbdServerConfig;

/**
 * bf_nbd_server_co_start:
 * @config: copied as far as it is kept
 * @error: set on failure
 *
 * Listens; clients can connect when it returns.
 *
 * Returns: (transfer full): the server, or NULL
 */
BfNbdServer *bf_nbd_server_co_start(const BfNbdServerConfig *config,
                                    GError **error);

/**
 * bf_nbd_server_serve:
 * @server: a server that was started with @held
 *
 * Begins to serve clients, those that wait first.
 */
void bf_nbd_server_serve(BfNbdServer *server);

/**
 * bf_nbd_server_co_listen:
 * @server: a server
 * @config: of one more listener, with an id; copied as far as it is kept. It
 *     may bear the id of no listener that there is
 * @error: set on failure
 *
 * Its clients see all exports of the server. While it listens nobody may stop
 * @server.
 *
 * Returns: false on failure
 */
bool bf_nbd_server_co_listen(BfNbdServer *server,
                             const BfNbdListenerConfig *config, GError **error);

/**
 * bf_nbd_server_co_unlisten:
 * @server: a server; it may be stopped meanwhile
 * @id: of a listener that was added
 * @hard: all its clients are disconnected, not only those in negotiation
 * @error: set on failure: there is no such listener
 *
 * Its address is free when this returns.
 *
 * Returns: false on failure
 */
bool bf_nbd_server_co_unlisten(BfNbdServer *server, const char *id, bool hard,
                               GError **error);

/**
 * bf_nbd_server_co_stop:
 * @server: (transfer full) (nullable): freed
 *
 * Stops listening, unlinks a UNIX path, closes all NBD exports hard, and waits
 * until every client is gone. That takes as long as storage takes to answer
 * the requests that it has.
 */
void bf_nbd_server_co_stop(BfNbdServer *server);

/**
 * bf_nbd_server_check_own_client:
 * @server: a server
 * @node: a node that is to be a client of an NBD server
 * @fd: its connected socket
 * @name: the export that it wants
 * @ret_own: (out): the server behind @fd is @server
 * @error: set on failure: the node would wait for itself
 *
 * Returns: false on failure
 */
bool bf_nbd_server_check_own_client(BfNbdServer *server, BfNode *node, int fd,
                                    const char *name, bool *ret_own,
                                    GError **error);

/**
 * bf_nbd_server_find_exported:
 * @server: a server
 * @name: of an export
 *
 * Returns: (transfer none) (nullable): the node that is behind it when the
 *     change of the graph that is being planned, if any, has been made
 */
BfNode *bf_nbd_server_find_exported(BfNbdServer *server, const char *name);

/**
 * bf_nbd_export_co_add:
 * @server_at: where the daemon's server is; NULL there is the error "NBD server
 *     not running", at its place in the order of checks. It is looked at only
 *     after the node was claimed, because the server may go meanwhile
 * @table: the daemon's table
 * @graph: the daemon's graph
 * @options: as from block-export-add, of type nbd
 * @find_iothread: (nullable): loop of an iothread object, NULL if unknown
 * @opaque: passed to @find_iothread
 * @error: set on failure, checks in the order of block-export-add
 *
 * The export can be connected to when it returns.
 *
 * Returns: false on failure
 */
bool bf_nbd_export_co_add(BfNbdServer *const *server_at, BfExportTable *table,
                          BfGraph *graph, const BfBlockExportOptions *options,
                          BfLoop *(*find_iothread)(void *opaque,
                                                   const char *id),
                          void *opaque, GError **error);

/**
 * bf_nbd_export_query_requests:
 * @exp: an export
 * @ret_failed: (out): requests of all kinds that failed, also those that were
 *     refused before storage was asked
 *
 * Never suspends.
 *
 * Returns: (transfer full) (nullable): what its clients have asked for since it
 *     was made; NULL if it is no NBD export
 */
BfNbdRequests *bf_nbd_export_query_requests(const BfExport *exp,
                                            uint64_t *ret_failed);

/**
 * bf_nbd_server_query_clients:
 * @server: (nullable): a server; NULL has no clients
 * @exp: (nullable): tell only of those that use it
 *
 * Never suspends, whatever the clients' loops do.
 *
 * Returns: (transfer full): what query-nbd-clients returns
 */
BfNbdClientInfoList *bf_nbd_server_query_clients(BfNbdServer *server,
                                                 const BfExport *exp);

/**
 * bf_nbd_server_co_drop:
 * @server: (nullable): a server, or NULL if none runs
 * @connection: number of a connection
 * @error: set on failure
 *
 * Disconnects a client. It is cut off when this returns, and leaves the list
 * of clients when storage has answered what was under way for it.
 *
 * Returns: (transfer full): what there was to tell of it, or NULL
 */
BfNbdClientInfo *bf_nbd_server_co_drop(BfNbdServer *server, uint64_t connection,
                                       GError **error);

/**
 * bf_nbd_server_query:
 * @server: (nullable): a server, or NULL if none runs
 *
 * Never suspends.
 *
 * Returns: (transfer full): what query-nbd-server returns
 */
BfNbdServerInfo *bf_nbd_server_query(const BfNbdServer *server);

/**
 * bf_nbd_server_query_listener:
 * @server: a server
 * @id: of a listener that was added
 *
 * Never suspends.
 *
 * Returns: (transfer full) (nullable): what query-nbd-server tells of it
 */
BfNbdListenerInfo *bf_nbd_server_query_listener(const BfNbdServer *server,
                                                const char *id);
