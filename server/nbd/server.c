/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD server on main: the list of clients, and what negotiating clients
 * want to know about exports. Where it listens is in listeners.c, whom it lets
 * in is decided in lobby.c.
 */
#include "serve/nbd-server.h"

#include <string.h>

#include "core/error.h"
#include "core/util.h"
#include "nbd-private.h"

/* What clients are told at least about the largest payload. */
#define MAX_BLOCK_MIN (UINT32_C(1024) * 1024)
#define PREFERRED_BLOCK_MIN UINT32_C(4096)

/* Of a list of exports, what is made at a time. */
#define LIST_PART_BYTES (64U * 1024)

/* From this on it costs more to wake a peer up once more than it gains. */
#define DEAR_WAKE_NS (12 * BF_NS_PER_US)

/* Failed negotiations that are logged in a second. */
#define FAILURES_LOGGED_MAX 10

BfNbdServer *
bf_nbd_server_new(const BfNbdServerConfig *config)
{
    BfNbdServer *server = g_new0(BfNbdServer, 1);

    server->objects = config->objects;
    bf_nbd_rights_init(server);
    server->events = config->events;
    server->events_opaque = config->events_opaque;
    server->workers = config->workers;
    server->n_workers = config->n_workers;
    server->table = config->exports;
    server->budget = config->budget;
    server->wakes_are_dear = config->wake_ns >= DEAR_WAKE_NS;
    server->large_options.limit = NBD_LARGE_OPTIONS_MAX;
    server->pipes.limit = NBD_PIPES_ALL_MAX * NBD_PIPE_BYTES;
    server->load = g_new0(unsigned, config->n_workers);
    server->exports = g_ptr_array_new();
    g_queue_init(&server->clients);
    bf_nbd_lobby_init(server);
    server->listeners = g_ptr_array_new();
    server->first = bf_nbd_listener_new(server, &config->first);
    return server;
}

void
bf_nbd_server_free(BfNbdServer *server)
{
    g_assert(server->exports->len == 0);
    g_assert(g_queue_is_empty(&server->clients));
    g_assert(server->listeners->len == 0);
    bf_timer_stop(&server->failures_timer);
    bf_nbd_lobby_clear(server);
    g_ptr_array_unref(server->exports);
    g_ptr_array_unref(server->listeners);
    bf_nbd_listener_unref(server->first);
    bf_nbd_rights_clear_server(server);
    g_free(server->load);
    g_free(server);
}

static void
failures_counted(void *arg)
{
    BfNbdServer *server = arg;

    if (server->failures > FAILURES_LOGGED_MAX) {
        g_message("%u more connections failed in negotiation",
                  server->failures - FAILURES_LOGGED_MAX);
    }
    server->failures = 0;
}

void
bf_nbd_server_log_failure(BfNbdServer *server, const char *text)
{
    if (server->failures++ == 0) {
        bf_timer_start(&server->failures_timer, BF_NS_PER_SEC, failures_counted,
                       server);
    }
    if (server->failures <= FAILURES_LOGGED_MAX) {
        g_message("%s", text);
    }
}

void
bf_nbd_server_report(BfNbdServer *server, const BfNbdRejection *rejection)
{
    bf_nbd_server_log_failure(server, rejection->message);
    if (server->events != NULL) {
        server->events->rejected(server->events_opaque, rejection);
    }
}

static bool
is_used(const BfNbdServer *server)
{
    for (const GList *link = server->clients.head; link; link = link->next) {
        if (((const BfNbdClient *)link->data)->exp != NULL) {
            return true;
        }
    }
    return false;
}

void
bf_nbd_server_client_gone(BfNbdServer *server, bool had_export)
{
    if (server->stopping) {
        return;
    }
    if (had_export && server->unused != NULL && !is_used(server)) {
        server->unused(server->unused_arg);
    }
    bf_nbd_lobby_update(server);
}

BfNbdServer *
bf_nbd_server_co_start(const BfNbdServerConfig *config, GError **error)
{
    BfNbdServer *server = bf_nbd_server_new(config);

    bf_assert_main();
    server->held = config->held;
    server->unused = config->unused;
    server->unused_arg = config->unused_arg;
    if (!bf_nbd_listener_co_open(server->first, &config->first, error)) {
        bf_nbd_server_free(server);
        return NULL;
    }
    return server;
}

void
bf_nbd_server_serve(BfNbdServer *server)
{
    bf_assert_main();
    server->held = false;
    bf_nbd_server_client_gone(server, false);
}

void
bf_nbd_server_co_stop(BfNbdServer *server)
{
    if (server == NULL) {
        return;
    }
    bf_assert_main();
    server->stopping = true;
    bf_nbd_listeners_start_close(server);
    bf_nbd_server_kill_clients(server, NULL);
    bf_nbd_export_close_all(server);
    bf_wait_group_co_wait(&server->exports_left);
    bf_wait_group_co_wait(&server->alive);
    if (server->first->address != NULL) {
        g_message("NBD server on %s stopped", server->first->address);
    }
    bf_nbd_server_free(server);
}

unsigned
bf_nbd_server_least_loaded(const BfNbdServer *server)
{
    unsigned best = 0;

    for (unsigned i = 1; i < server->n_workers; i++) {
        if (server->load[i] < server->load[best]) {
            best = i;
        }
    }
    return best;
}

unsigned
bf_nbd_server_count_on(const BfNbdServer *server, const BfLoop *loop)
{
    unsigned n = 0;

    for (const GList *link = server->clients.head; link; link = link->next) {
        const BfNbdClient *client = link->data;
        const BfLoop *home = client->home != NULL ? client->home : client->loop;

        n += client->loop != NULL && home == loop ? 1 : 0;
    }
    return n;
}

int
bf_nbd_server_worker_index(const BfNbdServer *server, const BfLoop *loop)
{
    for (unsigned i = 0; i < server->n_workers; i++) {
        if (server->workers[i] == loop) {
            return i;
        }
    }
    return -1;
}

void
bf_nbd_server_kill_clients(BfNbdServer *server, const BfNbdExport *exp)
{
    for (GList *l = server->clients.head; l != NULL; l = l->next) {
        BfNbdClient *client = l->data;

        if (exp == NULL || client->exp == exp) {
            bf_nbd_client_kill(
                client, exp != NULL
                            ? BF_NBD_CLIENT_DISCONNECT_REASON_EXPORT_REMOVED
                            : BF_NBD_CLIENT_DISCONNECT_REASON_SERVER_STOPPED);
        }
    }
}

static BfNbdExport *
find_in(const GPtrArray *exports, BfNbdString name)
{
    for (unsigned i = 0; i < exports->len; i++) {
        BfNbdExport *exp = g_ptr_array_index(exports, i);

        if (exp->name.len == name.len &&
            memcmp(exp->name.data, name.data, name.len) == 0) {
            return exp;
        }
    }
    return NULL;
}

BfNbdExport *
bf_nbd_server_find(BfNbdServer *server, BfNbdString name)
{
    return find_in(server->exports, name);
}

static uint16_t
export_flags(const BfNbdListener *listener, const BfNbdExport *exp)
{
    uint16_t flags = BF_NBD_EXPORT_HAS_FLAGS | BF_NBD_EXPORT_FLUSH |
                     BF_NBD_EXPORT_FUA | BF_NBD_EXPORT_CACHE;

    if (exp->base.writable) {
        flags |= BF_NBD_EXPORT_TRIM | BF_NBD_EXPORT_WRITE_ZEROES |
                 BF_NBD_EXPORT_FAST_ZERO;
    } else {
        flags |= BF_NBD_EXPORT_READ_ONLY;
    }
    /* A flush reaches the node, which all connections share. */
    if (listener->max_connections != 1 && listener->max_per_address != 1) {
        flags |= BF_NBD_EXPORT_MULTI_CONN;
    }
    return flags;
}

static void
describe_export(const BfNbdListener *listener, const BfNbdExport *exp,
                BfNbdExportInfo *info)
{
    const BfLimits *limits = &exp->base.limits;
    uint32_t max = BF_NBD_PAYLOAD_MAX;

    info->size = bf_export_size(&exp->base);
    info->flags = export_flags(listener, exp);
    info->min_block = limits->alignment;
    /* Clients refuse a size that is not a multiple of the smallest block. */
    while (info->min_block > 1 && info->size % info->min_block != 0) {
        info->min_block /= 2;
    }
    if (limits->max_transfer != 0) {
        max = MIN(max, MAX(limits->max_transfer, MAX_BLOCK_MIN));
    }
    info->max_block = max;
    info->preferred_block = MAX(PREFERRED_BLOCK_MIN, limits->preferred);
    while (info->preferred_block > max) {
        info->preferred_block /= 2; /* of one child, and @max of another */
    }
}

/* A question to main; on the asking coroutine's stack. */
typedef struct BfNbdAsk {
    BfNbdClient *client;
    BfNbdString name;
    bool attach;
    BfNbdExportAnswer *answer;
    bool has_to_wait; /* for a place */
} BfNbdAsk;

/* What it was waited for is gone, and it stays in negotiation. */
static void
give_up_place(BfNbdClient *client)
{
    if (client->has_place) {
        bf_nbd_places_release(client);
        bf_nbd_lobby_update(client->server);
    }
}

static void
ask_co_answer(void *arg)
{
    BfNbdAsk *ask = arg;
    BfNbdClient *client = ask->client;
    BfNbdExport *exp = find_in(bf_nbd_rights_visible(client), ask->name);

    *ask->answer = (BfNbdExportAnswer){.found = false};
    ask->has_to_wait = false;
    /* A client that was told to leave must not keep an export alive. */
    if (client->killed) {
        return;
    }
    if (exp == NULL) {
        if (ask->attach) {
            give_up_place(client);
            bf_nbd_rights_report_absent(client, ask->name);
        }
        return;
    }
    if (ask->attach && !bf_nbd_places_take(client)) {
        ask->has_to_wait = true;
        return;
    }
    ask->answer->found = true;
    ask->answer->description = g_strdup(exp->description);
    ask->answer->contexts = bf_nbd_names_ref(exp->contexts);
    describe_export(client->listener, exp, &ask->answer->info);
    if (ask->attach) {
        g_assert(client->exp == NULL);
        client->exp = exp;
        bf_export_attach(&exp->base);
        bf_nbd_rights_clear(client);
        bf_nbd_lobby_leave(client);
        bf_nbd_lobby_update(client->server);
        bf_nbd_client_co_settle(client);
    }
}

void
bf_nbd_server_co_ask(BfNbdClient *client, BfNbdString name, bool attach,
                     BfNbdExportAnswer *ret_answer)
{
    BfNbdAsk ask = {
        .client = client,
        .name = name,
        .attach = attach,
        .answer = ret_answer,
    };

    for (;;) {
        uint64_t rest_ns = 0;

        bf_nbd_rights_co_call(client, ask_co_answer, &ask);
        if (!ask.has_to_wait || client->timed_out) {
            break;
        }
        rest_ns = bf_nbd_client_pause_limit(client);
        bf_nbd_places_co_wait(client);
        bf_nbd_client_resume_limit(client, rest_ns);
    }
}

void
bf_nbd_export_answer_clear(BfNbdExportAnswer *answer)
{
    g_clear_pointer(&answer->description, g_free);
    g_clear_pointer(&answer->contexts, bf_nbd_names_unref);
}

typedef struct ListPart {
    const BfNbdClient *client;
    uint64_t *cursor;
    GByteArray *out;
    bool more;
} ListPart;

static void
add_list_part(void *arg)
{
    ListPart *part = arg;
    const GPtrArray *exports = bf_nbd_rights_visible(part->client);

    for (unsigned i = 0; i < exports->len && !part->more; i++) {
        const BfNbdExport *exp = g_ptr_array_index(exports, i);
        g_autoptr(GByteArray) entry = NULL;

        if (exp->added > *part->cursor) {
            entry = g_byte_array_new();
            bf_nbd_append_server(entry, exp->name, exp->description);
            bf_nbd_negotiate_add_reply(part->out, BF_NBD_OPTION_LIST,
                                       BF_NBD_REPLY_SERVER, entry->data,
                                       entry->len);
            *part->cursor = exp->added;
            part->more = part->out->len >= LIST_PART_BYTES;
        }
    }
}

bool
bf_nbd_server_co_list(BfNbdClient *client, uint64_t *cursor, GByteArray *out)
{
    ListPart part = {
        .client = client,
        .cursor = cursor,
        .out = out,
    };

    bf_nbd_rights_co_call(client, add_list_part, &part);
    return part.more;
}
