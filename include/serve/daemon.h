/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * BfDaemon owns every registry but the monitors, and knows the order in which
 * they start and stop. On main; _co_ functions suspend.
 */
#pragma once

#include "block/job.h"
#include "core/co-lock.h"
#include "core/iovec.h"
#include "serve/export.h"
#include "serve/fdsets.h"
#include "serve/nbd-server.h"
#include "serve/objects.h"
#include "serve/tls-watch.h"

/* Worker loops if the command line does not say: as many as processors, but
 * at least and at most this many. */
#define BF_WORKERS_MIN 2
#define BF_WORKERS_MAX 16

/**
 * BfNbdListening: how the NBD server was told to listen at one address
 * @options: owned
 * @fd_passed: a socket that they name came over a monitor, so that no later
 *     start has it
 */
typedef struct BfNbdListening {
    BfNbdServerOptions *options;
    bool fd_passed;
} BfNbdListening;

/**
 * BfDaemon: everything that the daemon has
 * @main_loop: borrowed
 * @workers: owned; the default set of worker loops
 * @n_workers: at least %BF_WORKERS_MIN
 * @wake_ns: of bf_clock_measure_wake_ns()
 * @budget: bounds the memory of all requests
 * @objects: owned
 * @tls_watch: owned
 * @fdsets: owned
 * @graph: owned
 * @jobs: owned
 * @exports: owned
 * @nbd_server: (nullable): owned; NULL while none runs
 * @nbd_listening: owned (element-type BfNbdListening): what @nbd_server was
 * made from and was given later, oldest first
 * @nbd_mutex: held by whoever starts or stops @nbd_server, or makes it listen
 * @nbd_stopping: servers that are being stopped
 * @nbd_events: (nullable): borrowed constant
 * @nbd_events_opaque: passed to @nbd_events
 * @nbd_unused: (nullable): called on main when the last client that used an
 *     export has left; must not suspend
 * @nbd_unused_arg: passed to @nbd_unused
 * @serving: bf_daemon_serve() was called
 */
typedef struct BfDaemon {
    BfLoop *main_loop;
    BfLoop **workers;
    unsigned n_workers;
    uint64_t wake_ns;
    BfBudget budget;
    BfObjects *objects;
    BfTlsWatch *tls_watch;
    BfFdsets *fdsets;
    BfGraph *graph;
    BfJobTable *jobs;
    BfExportTable *exports;
    BfNbdServer *nbd_server;
    GPtrArray *nbd_listening;
    BfCoMutex nbd_mutex;
    BfWaitGroup nbd_stopping;
    const BfNbdEvents *nbd_events;
    void *nbd_events_opaque;
    BfFn *nbd_unused;
    void *nbd_unused_arg;
    bool serving;
} BfDaemon;

/**
 * BfDaemonConfig: what the command line decides about the daemon
 * @n_workers: worker loops; 0 takes the default
 * @allow_faults: nodes of the "fault" driver may be made
 * @parse_authz: (nullable): reads the files of authz-listfile objects
 * @nbd_events: borrowed constant
 * @nbd_events_opaque: passed to @nbd_events
 * @nbd_unused: (nullable): as in BfNbdServerConfig
 * @nbd_unused_arg: passed to @nbd_unused
 * @export_events: borrowed constant
 * @export_events_opaque: passed to @export_events
 * @node_events: borrowed constant
 * @node_events_opaque: passed to @node_events
 * @tls_events: borrowed constant
 * @tls_events_opaque: passed to @tls_events
 * @job_events: borrowed constant
 * @job_events_opaque: passed to @job_events
 */
typedef struct BfDaemonConfig {
    unsigned n_workers;
    bool allow_faults;
    BfAuthzParseFn *parse_authz;
    const BfNbdEvents *nbd_events;
    void *nbd_events_opaque;
    BfFn *nbd_unused;
    void *nbd_unused_arg;
    const BfExportEvents *export_events;
    void *export_events_opaque;
    const BfNodeEvents *node_events;
    void *node_events_opaque;
    const BfTlsEvents *tls_events;
    void *tls_events_opaque;
    const BfJobEvents *job_events;
    void *job_events_opaque;
} BfDaemonConfig;

/**
 * bf_daemon_new:
 * @main_loop: the calling thread's loop
 * @config: copied
 * @error: set on failure
 *
 * Starts the worker loops.
 *
 * Returns: (transfer full): a daemon without nodes, exports and objects
 */
BfDaemon *bf_daemon_new(BfLoop *main_loop, const BfDaemonConfig *config,
                        GError **error);

/**
 * bf_daemon_serve:
 * @daemon: a daemon whose start is complete
 *
 * Begins to serve NBD clients. Before that they can connect and wait, so that
 * no client sees a part of what the command line describes.
 */
void bf_daemon_serve(BfDaemon *daemon);

/**
 * bf_daemon_stop_waiting:
 * @daemon: a daemon that is about to end
 *
 * Commands and requests that wait for storage which is not there fail soon.
 */
void bf_daemon_stop_waiting(BfDaemon *daemon);

/**
 * bf_daemon_co_disconnect:
 * @daemon: a daemon
 *
 * Stops the NBD server, aborts all jobs and ends all exports. Commands may
 * still be running.
 */
void bf_daemon_co_disconnect(BfDaemon *daemon);

/**
 * bf_daemon_co_close:
 * @daemon: a daemon on which no command works any more
 *
 * Takes everything down in the reverse order of its making: clients, jobs,
 * exports, nodes (flushed), objects. Waits for storage without a limit of its
 * own.
 */
void bf_daemon_co_close(BfDaemon *daemon);

/**
 * bf_daemon_free:
 * @daemon: (nullable): after bf_daemon_co_close(); stops the worker loops
 */
void bf_daemon_free(BfDaemon *daemon);

/**
 * bf_daemon_co_nbd_start:
 * @daemon: the daemon
 * @options: address, credentials and limits
 * @take_fd: (nullable): for addresses of type fd
 * @opaque: passed to @take_fd
 * @error: set on failure
 *
 * What nbd-server-start and --nbd-server do; with an id, also what
 * nbd-server-add-listener does.
 *
 * Returns: false on failure
 */
bool bf_daemon_co_nbd_start(BfDaemon *daemon, const BfNbdServerOptions *options,
                            BfTakeFd *take_fd, void *opaque, GError **error);

/**
 * bf_daemon_find_listening:
 * @daemon: the daemon
 * @id: (nullable): of a listener; NULL for the one that the server began with
 *
 * Returns: (transfer none) (nullable): how it was made
 */
BfNbdListening *bf_daemon_find_listening(const BfDaemon *daemon,
                                         const char *id);

/**
 * bf_daemon_co_nbd_unlisten:
 * @daemon: the daemon
 * @id: of a listener that was added
 * @hard: its clients that use an export are disconnected too
 * @error: set on failure
 *
 * What nbd-server-remove-listener does.
 *
 * Returns: false on failure
 */
bool bf_daemon_co_nbd_unlisten(BfDaemon *daemon, const char *id, bool hard,
                               GError **error);

/**
 * bf_daemon_co_nbd_list:
 * @daemon: the daemon
 * @options: where the server is, and the credentials to use
 * @hostname: (nullable): what the server's certificate is for
 * @error: set on failure
 *
 * Asks another server for its exports: bf_nbd_list_co_run().
 *
 * Returns: (transfer full): of BfNbdOffer, or NULL
 */
GPtrArray *bf_daemon_co_nbd_list(BfDaemon *daemon,
                                 const BfNbdServerOptions *options,
                                 const char *hostname, GError **error);

/**
 * bf_daemon_co_nbd_stop:
 * @daemon: the daemon
 * @error: set on failure: no server runs
 *
 * Returns: false on failure
 */
bool bf_daemon_co_nbd_stop(BfDaemon *daemon, GError **error);

/**
 * bf_daemon_co_export_add:
 * @daemon: the daemon
 * @options: as from block-export-add
 * @error: set on failure
 *
 * Returns: false on failure
 */
bool bf_daemon_co_export_add(BfDaemon *daemon,
                             const BfBlockExportOptions *options,
                             GError **error);
