/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's registries, in the order in which they are made; taken down in
 * the reverse order.
 */
#include "serve/daemon.h"

#include "block/nbd-list.h"
#include "core/co-io.h"
#include "core/error.h"
#include "core/util.h"

/* How long nbd-server-stop waits for storage that does not answer. */
#define NBD_STOP_MAX_NS (10 * BF_NS_PER_SEC)

/* How long workers look for work before they sleep: so many times what it takes
 * to wake a processor up. A round trip of a local client with one request in
 * flight fits in, also where it has to be woken on another processor. */
#define POLL_WAKES 6
#define POLL_MIN_NS (48 * BF_NS_PER_US)
#define POLL_MAX_NS (240 * BF_NS_PER_US)

/* All requests of all connections together. Connections may pass it by their
 * reserve of one request each, of which only a piece is in memory. */
#define DAEMON_BUDGET_BYTES (512 * BF_MIB)

static char *
loop_user(void *opaque, const BfLoop *loop)
{
    const BfDaemon *daemon = opaque;
    const char *exp = bf_export_table_find_loop_user(daemon->exports, loop);
    const char *job = bf_job_table_find_loop_user(daemon->jobs, loop);

    return exp != NULL   ? g_strdup_printf("export '%s'", exp)
           : job != NULL ? g_strdup_printf("job '%s'", job)
                         : NULL;
}

static int
open_fdset(void *opaque, const char *path, int flags, GError **error)
{
    const BfDaemon *daemon = opaque;

    return bf_fdsets_open(daemon->fdsets, path, flags, error);
}

static BfTlsCreds *
take_client_creds(void *opaque, const char *id, const char *user,
                  GError **error)
{
    const BfDaemon *daemon = opaque;
    BfTlsCreds *creds = bf_objects_find_tls_creds(daemon->objects, id, error);

    if (creds == NULL ||
        !bf_tls_creds_check_endpoint(creds, BF_TLS_ENDPOINT_CLIENT, error)) {
        return NULL;
    }
    return bf_objects_take_tls_creds(daemon->objects, id, user, error);
}

static void
release_client_creds(void *opaque, const char *id, const char *user)
{
    const BfDaemon *daemon = opaque;

    bf_objects_release_tls_creds(daemon->objects, id, user);
}

static bool
check_peer(void *opaque, BfNode *node, int fd, const char *name, bool *ret_own,
           GError **error)
{
    const BfDaemon *daemon = opaque;

    return daemon->nbd_server == NULL ||
           bf_nbd_server_check_own_client(daemon->nbd_server, node, fd, name,
                                          ret_own, error);
}

static BfNode *
find_exported(void *opaque, const char *name)
{
    const BfDaemon *daemon = opaque;

    return daemon->nbd_server != NULL
               ? bf_nbd_server_find_exported(daemon->nbd_server, name)
               : NULL;
}

static void
log_notice(void *opaque, bool is_problem, const char *text)
{
    if (is_problem) {
        g_warning("%s", text);
    } else {
        g_message("%s", text);
    }
}

static BfThrottleGroup *
find_throttle_group(void *opaque, const char *id)
{
    const BfDaemon *daemon = opaque;

    return bf_objects_find_throttle_group(daemon->objects, id);
}

static bool
start_workers(BfDaemon *daemon, unsigned n_workers, GError **error)
{
    unsigned wanted = n_workers != 0 ? n_workers
                                     : CLAMP(g_get_num_processors(),
                                             BF_WORKERS_MIN, BF_WORKERS_MAX);
    uint64_t poll_ns =
        CLAMP(POLL_WAKES * daemon->wake_ns, POLL_MIN_NS, POLL_MAX_NS);

    daemon->workers = g_new0(BfLoop *, wanted);
    while (daemon->n_workers < wanted) {
        g_autofree char *name = g_strdup_printf("worker%u", daemon->n_workers);
        BfLoop *loop = bf_loop_new_worker(daemon->main_loop, name, error);

        if (loop == NULL) {
            return false;
        }
        bf_loop_set_poll_max_ns(loop, poll_ns);
        daemon->workers[daemon->n_workers++] = loop;
    }
    return true;
}

static void
listening_free(void *data)
{
    BfNbdListening *listening = data;

    bf_nbd_server_options_free(listening->options);
    g_free(listening);
}

static BfNbdListening *
listening_new(const BfNbdServerOptions *options)
{
    BfNbdListening *listening = g_new0(BfNbdListening, 1);

    listening->options = bf_nbd_server_options_copy(options);
    return listening;
}

BfNbdListening *
bf_daemon_find_listening(const BfDaemon *daemon, const char *id)
{
    for (unsigned i = 0; i < daemon->nbd_listening->len; i++) {
        BfNbdListening *listening = g_ptr_array_index(daemon->nbd_listening, i);

        if (g_strcmp0(listening->options->id, id) == 0) {
            return listening;
        }
    }
    return NULL;
}

static int64_t
wall_clock_s(void)
{
    return g_get_real_time() / G_USEC_PER_SEC;
}

BfDaemon *
bf_daemon_new(BfLoop *main_loop, const BfDaemonConfig *config, GError **error)
{
    BfDaemon *daemon = g_new0(BfDaemon, 1);
    BfGraphConfig graph_config = {
        .allow_faults = config->allow_faults,
        .open_fdset = open_fdset,
        .take_tls_creds = take_client_creds,
        .release_tls_creds = release_client_creds,
        .check_peer = check_peer,
        .notice = log_notice,
        .find_throttle_group = find_throttle_group,
        .node_events = config->node_events,
        .node_events_opaque = config->node_events_opaque,
        .find_exported = find_exported,
        .opaque = daemon,
    };

    daemon->main_loop = main_loop;
    daemon->nbd_listening = g_ptr_array_new_with_free_func(listening_free);
    daemon->budget.limit = DAEMON_BUDGET_BYTES;
    daemon->wake_ns = bf_clock_measure_wake_ns();
    if (!start_workers(daemon, config->n_workers, error)) {
        bf_daemon_free(daemon);
        return NULL;
    }
    daemon->fdsets = bf_fdsets_new();
    daemon->objects = bf_objects_new(main_loop);
    bf_objects_set_authz_parser(daemon->objects, config->parse_authz);
    daemon->nbd_events = config->nbd_events;
    daemon->nbd_events_opaque = config->nbd_events_opaque;
    daemon->nbd_unused = config->nbd_unused;
    daemon->nbd_unused_arg = config->nbd_unused_arg;
    daemon->tls_watch =
        bf_tls_watch_new(daemon->objects, config->tls_events,
                         config->tls_events_opaque, wall_clock_s);
    bf_objects_set_tls_loaded(daemon->objects, bf_tls_watch_look,
                              daemon->tls_watch);
    graph_config.workers = daemon->workers;
    graph_config.n_workers = daemon->n_workers;
    daemon->graph = bf_graph_new(&graph_config);
    daemon->jobs =
        bf_job_table_new(config->job_events, config->job_events_opaque);
    daemon->exports = bf_export_table_new(daemon->graph, config->export_events,
                                          config->export_events_opaque);
    bf_objects_set_in_use(daemon->objects, loop_user, daemon);
    bf_objects_set_fdsets(daemon->objects, daemon->fdsets);
    return daemon;
}

/* Who holds the credentials for --list. */
#define LIST_USER "the list of exports"

/*
 * The end of an NBD server. It waits for requests that storage has not
 * answered, so it is a coroutine of its own, for which commands wait some time
 * only.
 */
typedef struct NbdStop {
    BfDaemon *daemon;    /* borrowed */
    BfNbdServer *server; /* owned; NULL in the end */
    BfCancel ended;      /* fired in the end */
} NbdStop;

static void
nbd_stop_unref(NbdStop *stop)
{
    g_rc_box_release(stop);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(NbdStop, nbd_stop_unref)

static void
co_nbd_stop(void *arg)
{
    NbdStop *stop = arg;

    bf_nbd_server_co_stop(g_steal_pointer(&stop->server));
    bf_wait_group_done(&stop->daemon->nbd_stopping);
    bf_cancel_fire(&stop->ended);
    nbd_stop_unref(stop);
}

/* Returns NULL if no server runs. */
static NbdStop *
start_nbd_stop(BfDaemon *daemon)
{
    NbdStop *stop = NULL;

    if (daemon->nbd_server == NULL) {
        return NULL;
    }
    stop = g_rc_box_new0(NbdStop);
    stop->daemon = daemon;
    stop->server = g_steal_pointer(&daemon->nbd_server);
    g_ptr_array_set_size(daemon->nbd_listening, 0);
    bf_wait_group_add(&daemon->nbd_stopping, 1);
    bf_co_spawn(co_nbd_stop, g_rc_box_acquire(stop));
    return stop;
}

void
bf_daemon_stop_waiting(BfDaemon *daemon)
{
    bf_assert_main();
    bf_graph_stop_waiting(daemon->graph);
    bf_objects_stop_waiting(daemon->objects);
}

void
bf_daemon_co_disconnect(BfDaemon *daemon)
{
    g_autoptr(NbdStop) stop = NULL;

    bf_assert_main();
    /* A command that does not end may hold the server: leave it then. */
    if (!daemon->nbd_mutex.locked) {
        stop = start_nbd_stop(daemon);
    }
    /* Clients' requests may wait for a job, and a job for a client. */
    bf_job_table_co_cancel_all(daemon->jobs);
    bf_wait_group_co_wait(&daemon->nbd_stopping);
    bf_export_table_co_close_all(daemon->exports);
}

void
bf_daemon_co_close(BfDaemon *daemon)
{
    bf_assert_main();
    bf_daemon_co_disconnect(daemon);
    bf_graph_co_free(g_steal_pointer(&daemon->graph));
    bf_tls_watch_free(g_steal_pointer(&daemon->tls_watch));
    bf_objects_co_free(g_steal_pointer(&daemon->objects));
}

void
bf_daemon_free(BfDaemon *daemon)
{
    if (daemon == NULL) {
        return;
    }
    bf_export_table_free(daemon->exports);
    bf_job_table_free(daemon->jobs);
    bf_fdsets_free(daemon->fdsets);
    for (unsigned i = daemon->n_workers; i-- > 0;) {
        bf_loop_free(daemon->workers[i]);
    }
    g_free(daemon->workers);
    g_clear_pointer(&daemon->nbd_listening, g_ptr_array_unref);
    g_free(daemon);
}

void
bf_daemon_serve(BfDaemon *daemon)
{
    bf_assert_main();
    daemon->serving = true;
    if (daemon->nbd_server != NULL) {
        bf_nbd_server_serve(daemon->nbd_server);
    }
}

static BfTlsCreds *
take_server_creds(BfDaemon *daemon, const char *id, const char *user,
                  GError **error)
{
    BfTlsCreds *creds = bf_objects_find_tls_creds(daemon->objects, id, error);

    if (creds == NULL ||
        !bf_tls_creds_check_endpoint(creds, BF_TLS_ENDPOINT_SERVER, error)) {
        return NULL;
    }
    return bf_objects_take_tls_creds(daemon->objects, id, user, error);
}

/* Accepting what cannot be enforced would let everybody in. */
static bool
check_tls_authz(const BfNbdServerOptions *options, const BfTlsCreds *creds,
                GError **error)
{
    if (options->tls_authz == NULL) {
        return true;
    }
    if (creds == NULL) {
        bf_set_error(error,
                     "tls-authz '%s' needs tls-creds: without TLS a client "
                     "proves no name; give tls-creds as well, or leave "
                     "tls-authz out",
                     options->tls_authz);
        return false;
    }
    if (!bf_tls_creds_check_identity(creds, error)) {
        g_prefix_error(error,
                       "tls-authz '%s' does not go with tls-creds '%s': ",
                       options->tls_authz, options->tls_creds);
        return false;
    }
    return true;
}

static bool
co_nbd_open(BfDaemon *daemon, const BfNbdListenerConfig *listener,
            GError **error)
{
    const BfNbdServerConfig config = {
        .first = *listener,
        .workers = daemon->workers,
        .n_workers = daemon->n_workers,
        .wake_ns = daemon->wake_ns,
        .exports = daemon->exports,
        .budget = &daemon->budget,
        .objects = daemon->objects,
        .events = daemon->nbd_events,
        .events_opaque = daemon->nbd_events_opaque,
        .unused = daemon->nbd_unused,
        .unused_arg = daemon->nbd_unused_arg,
        .held = !daemon->serving,
    };

    if (listener->id != NULL) {
        return bf_nbd_server_co_listen(daemon->nbd_server, listener, error);
    }
    daemon->nbd_server = bf_nbd_server_co_start(&config, error);
    return daemon->nbd_server != NULL;
}

static bool
co_nbd_start_locked(BfDaemon *daemon, const BfNbdServerOptions *options,
                    BfTakeFd *take_fd, void *opaque, GError **error)
{
    BfNbdListenerConfig config = {
        .id = options->id,
        .address = options->addr,
        .take_fd = take_fd,
        .take_fd_opaque = opaque,
        .tls_creds_id = options->tls_creds,
        .tls_authz = options->tls_authz,
        .tls_mode = options->tls_mode,
        .handshake_max_seconds = options->handshake_max_seconds,
        .max_connections = options->max_connections,
        .max_per_address = options->max_connections_per_address,
        .idle_max_seconds = options->idle_max_seconds,
    };
    g_autofree char *user = bf_nbd_listener_creds_user(options->id);
    bool ok = false;

    if (options->tls_mode == BF_NBD_TLS_MODE_IMMEDIATE &&
        options->tls_creds == NULL) {
        bf_set_error(error, "tls-mode 'immediate' needs tls-creds: without "
                            "credentials there is no TLS");
        return false;
    }
    if (options->id == NULL && daemon->nbd_server != NULL) {
        bf_set_error(error, "NBD server already running");
        return false;
    }
    if (options->id != NULL && daemon->nbd_server == NULL) {
        bf_set_error(error, "NBD server not running");
        return false;
    }
    if (options->tls_creds != NULL) {
        config.tls_creds =
            take_server_creds(daemon, options->tls_creds, user, error);
        if (config.tls_creds == NULL) {
            return false;
        }
    }
    ok = check_tls_authz(options, config.tls_creds, error) &&
         co_nbd_open(daemon, &config, error);
    bf_tls_creds_unref(config.tls_creds);
    if (!ok && options->tls_creds != NULL) {
        bf_objects_release_tls_creds(daemon->objects, options->tls_creds, user);
    }
    if (ok) {
        g_ptr_array_add(daemon->nbd_listening, listening_new(options));
    }
    return ok;
}

bool
bf_daemon_co_nbd_start(BfDaemon *daemon, const BfNbdServerOptions *options,
                       BfTakeFd *take_fd, void *opaque, GError **error)
{
    bool ok = false;

    bf_assert_main();
    bf_co_mutex_co_lock(&daemon->nbd_mutex);
    ok = co_nbd_start_locked(daemon, options, take_fd, opaque, error);
    bf_co_mutex_unlock(&daemon->nbd_mutex);
    return ok;
}

bool
bf_daemon_co_nbd_unlisten(BfDaemon *daemon, const char *id, bool hard,
                          GError **error)
{
    bf_assert_main();
    if (daemon->nbd_server == NULL) {
        bf_set_error(error, "NBD server not running");
        return false;
    }
    /* Now, as it suspends once the listener is off the list. */
    g_ptr_array_remove(daemon->nbd_listening,
                       bf_daemon_find_listening(daemon, id));
    return bf_nbd_server_co_unlisten(daemon->nbd_server, id, hard, error);
}

GPtrArray *
bf_daemon_co_nbd_list(BfDaemon *daemon, const BfNbdServerOptions *options,
                      const char *hostname, GError **error)
{
    BfTlsCreds *creds = NULL;
    GPtrArray *offers = NULL;

    bf_assert_main();
    if (options->tls_creds != NULL) {
        creds = take_client_creds(daemon, options->tls_creds, LIST_USER, error);
        if (creds == NULL) {
            return NULL;
        }
    }
    offers = bf_nbd_list_co_run(options->addr, creds, hostname, error);
    if (creds != NULL) {
        bf_tls_creds_unref(creds);
        release_client_creds(daemon, options->tls_creds, LIST_USER);
    }
    return offers;
}

bool
bf_daemon_co_nbd_stop(BfDaemon *daemon, GError **error)
{
    g_autoptr(NbdStop) stop = NULL;

    bf_assert_main();
    /* A start that is under way comes first. */
    bf_co_mutex_co_lock(&daemon->nbd_mutex);
    stop = start_nbd_stop(daemon);
    bf_co_mutex_unlock(&daemon->nbd_mutex);
    if (stop == NULL) {
        bf_set_error(error, "NBD server not running");
        return false;
    }
    if (bf_co_sleep_cancel(NBD_STOP_MAX_NS, &stop->ended) == 0) {
        g_warning("the NBD server is stopped, but storage has not answered "
                  "for %d s; its exports end when it does",
                  (int)(NBD_STOP_MAX_NS / BF_NS_PER_SEC));
    }
    return true;
}

static BfLoop *
find_iothread(void *opaque, const char *id)
{
    const BfDaemon *daemon = opaque;

    return bf_objects_find_iothread(daemon->objects, id);
}

bool
bf_daemon_co_export_add(BfDaemon *daemon, const BfBlockExportOptions *options,
                        GError **error)
{
    bf_assert_main();
    /* Storage may take its time; the server can be stopped meanwhile. */
    return bf_nbd_export_co_add(&daemon->nbd_server, daemon->exports,
                                daemon->graph, options, find_iothread, daemon,
                                error);
}
