/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which exports a client may see, by the tls-authz of the server and of each
 * export.
 *
 * The rules are asked once after the handshake, about all exports, and again
 * when a rule, an object or an export has changed. What comes out is a list of
 * the exports that the client may see, and names are looked for in that list
 * only: a name that is denied is not there, as little as one that does not
 * exist, so neither the answer nor the time that it takes tells them apart.
 *
 * Main knows the rules and the list; asking may block, so a thread of the pool
 * does that with references to the rules. Rules that change meanwhile are
 * noticed by their generation.
 */
#include "core/error.h"
#include "core/util.h"
#include "nbd-private.h"

/* So often rules that change while they are asked are asked anew. Then what
 * came out is used, and rules that were not asked deny. */
#define TRIES_MAX 8

/* Threads that ask rules which may wait for other programs and hosts, and how
 * long a client waits for all that they say. Shorter than the usual limit of a
 * handshake, so that it may go on without the exports that they guard. */
#define AUTHZ_THREADS 4
#define AUTHZ_MAX_NS (5 * BF_NS_PER_SEC)

/* How late wishes for exports that do not exist are reported, and how many of
 * them at once. */
#define WISHES_NS (100 * BF_NS_PER_MS)
#define WISHES_MAX 16

/* What one set of rules says about a client. */
typedef struct Verdict {
    BfAuthz *authz; /* a reference */
    bool allowed;
    bool is_late; /* it did not answer in time, which nobody has logged */
    char *why;    /* owned: not allowed */
} Verdict;

static void
verdict_free(void *data)
{
    Verdict *verdict = data;

    bf_authz_unref(verdict->authz);
    g_free(verdict->why);
    g_free(verdict);
}

/* Something to be done on main for a client whose rights are settled. */
typedef struct Visit {
    BfNbdClient *client;
    BfFn *fn;
    void *arg;
    GHashTable *verdicts; /* (nullable) owned: Verdict by its rules */
    uint64_t generation;  /* of @verdicts */
    bool may_block;
    unsigned tries;
    bool done;
} Visit;

static const char *
shown_label(const char *label)
{
    return label != NULL ? label : "(no name)";
}

static bool
is_restricted(const BfNbdClient *client)
{
    return client->listener->tls_authz != NULL ||
           client->server->n_restricted > 0;
}

static uint64_t
generation_now(const BfNbdServer *server)
{
    /* Both only ever grow. */
    return bf_objects_authz_generation(server->objects) +
           server->exports_generation;
}

/* --- asking, on a thread of the pool and on the client's loop --- */

static void
decide(Verdict *verdict, bool allowed, const GError *error)
{
    verdict->allowed = allowed;
    if (!allowed) {
        verdict->why = g_strdup(error->message);
    }
}

static void
ask_rules(void *arg)
{
    const Visit *visit = arg;
    const char *identity = visit->client->identity;
    GHashTableIter iter;
    Verdict *verdict = NULL;

    g_hash_table_iter_init(&iter, visit->verdicts);
    while (g_hash_table_iter_next(&iter, NULL, (void **)&verdict)) {
        g_autoptr(GError) error = NULL;

        if (identity == NULL) {
            verdict->why = g_strdup("it has proved no name");
        } else if (!bf_authz_may_block(verdict->authz)) {
            bool allowed = bf_authz_check(verdict->authz, identity, &error);

            decide(verdict, allowed, error);
        }
    }
}

/* Each by itself, so that one that hangs takes no answer of others along. */
static void
co_ask_blocking(const Visit *visit)
{
    BfNbdClient *client = visit->client;
    const BfNbdServer *server = client->server;
    const uint64_t until_ns = bf_loop_now_ns() + server->authz_max_ns;
    GHashTableIter iter;
    Verdict *verdict = NULL;

    g_hash_table_iter_init(&iter, visit->verdicts);
    while (g_hash_table_iter_next(&iter, NULL, (void **)&verdict)) {
        g_autoptr(GError) error = NULL;
        uint64_t now_ns = bf_loop_now_ns();
        bool allowed = false;

        if (client->identity == NULL || !bf_authz_may_block(verdict->authz)) {
            continue;
        }
        allowed = bf_authz_co_ask(
            verdict->authz, client->identity, server->authz_lane,
            until_ns - MIN(now_ns, until_ns), &client->cancel, &error);
        decide(verdict, allowed, error);
        verdict->is_late = !allowed && bf_loop_now_ns() >= until_ns;
    }
}

static void
co_ask(Visit *visit)
{
    /* Globs may take long, so no rules are asked on the loop. */
    bf_co_offload_for(bf_loop_lane(bf_loop_self(), BF_POOL_LANE_HANDSHAKE),
                      bf_nbd_client_flow(visit->client), ask_rules, visit);
    if (visit->may_block) {
        co_ask_blocking(visit);
    }
}

/* --- on main --- */

static void
collect_one(Visit *visit, const char *id)
{
    BfAuthz *authz = NULL;
    Verdict *verdict = NULL;

    if (id == NULL) {
        return;
    }
    authz = bf_objects_find_authz(visit->client->server->objects, id, NULL);
    if (authz == NULL || g_hash_table_contains(visit->verdicts, authz)) {
        return;
    }
    verdict = g_new0(Verdict, 1);
    verdict->authz = bf_authz_ref(authz);
    visit->may_block |= bf_authz_may_block(authz);
    g_hash_table_insert(visit->verdicts, authz, verdict);
}

/* Takes all rules along that matter. */
static void
collect(Visit *visit)
{
    const BfNbdServer *server = visit->client->server;

    g_clear_pointer(&visit->verdicts, g_hash_table_unref);
    visit->verdicts = g_hash_table_new_full(g_direct_hash, g_direct_equal, NULL,
                                            verdict_free);
    visit->generation = generation_now(server);
    visit->may_block = false;
    visit->tries++;
    collect_one(visit, visit->client->listener->tls_authz);
    for (unsigned i = 0; i < server->exports->len; i++) {
        const BfNbdExport *exp = g_ptr_array_index(server->exports, i);

        collect_one(visit, exp->tls_authz);
    }
}

/* What the object @id says, NULL if there is none or it was not asked. */
static const Verdict *
find_verdict(const BfNbdServer *server, GHashTable *verdicts, const char *id)
{
    const BfAuthz *authz = bf_objects_find_authz(server->objects, id, NULL);

    return authz != NULL ? g_hash_table_lookup(verdicts, authz) : NULL;
}

/* Everything is, where no object is to be asked. */
static bool
is_allowed(const BfNbdServer *server, GHashTable *verdicts, const char *id)
{
    const Verdict *verdict =
        id != NULL ? find_verdict(server, verdicts, id) : NULL;

    return id == NULL || (verdict != NULL && verdict->allowed);
}

void
bf_nbd_rights_clear(BfNbdClient *client)
{
    g_clear_pointer(&client->rights.verdicts, g_hash_table_unref);
    g_clear_pointer(&client->rights.visible, g_ptr_array_unref);
}

/* The rejection says it if the server denies; an export may never be asked for.
 */
static void
log_late(const BfNbdClient *client, const BfNbdExport *exp)
{
    const BfAuthz *authz =
        bf_objects_find_authz(client->server->objects, exp->tls_authz, NULL);
    Verdict *verdict = authz != NULL
                           ? g_hash_table_lookup(client->rights.verdicts, authz)
                           : NULL;

    if (verdict != NULL && verdict->is_late) {
        g_autofree char *text = g_strdup_printf(
            NBD_CLIENT_FORMAT ": tls-authz '%s' denies export '%s' to '%s': %s",
            NBD_CLIENT_ARGS(client), exp->tls_authz, exp->base.id,
            shown_label(client->label), verdict->why);

        verdict->is_late = false;
        bf_nbd_server_log_failure(client->server, text);
    }
}

/* Makes what the rules said the client's rights. */
static void
settle(Visit *visit)
{
    BfNbdClient *client = visit->client;
    const BfNbdServer *server = client->server;

    bf_nbd_rights_clear(client);
    client->rights.verdicts = g_steal_pointer(&visit->verdicts);
    client->rights.generation = visit->generation;
    client->rights.visible = g_ptr_array_new();
    if (!is_allowed(server, client->rights.verdicts,
                    client->listener->tls_authz)) {
        return;
    }
    for (unsigned i = 0; i < server->exports->len; i++) {
        BfNbdExport *exp = g_ptr_array_index(server->exports, i);

        if (is_allowed(server, client->rights.verdicts, exp->tls_authz)) {
            g_ptr_array_add(client->rights.visible, exp);
        } else {
            log_late(client, exp);
        }
    }
}

static void
visit_main(void *arg)
{
    Visit *visit = arg;
    const BfNbdClient *client = visit->client;
    const BfNbdServer *server = client->server;
    bool is_current =
        visit->verdicts != NULL && visit->generation == generation_now(server);

    visit->done = true;
    if (is_restricted(client) &&
        (client->rights.visible == NULL ||
         client->rights.generation != generation_now(server))) {
        if (!is_current && visit->tries < TRIES_MAX) {
            collect(visit);
            visit->done = false;
            return;
        }
        settle(visit);
    }
    visit->fn(visit->arg);
}

/* --- on the client's loop --- */

void
bf_nbd_rights_co_call(BfNbdClient *client, BfFn *fn, void *arg)
{
    Visit visit = {.client = client, .fn = fn, .arg = arg};
    BfLoop *loop = bf_loop_self();

    for (;;) {
        bf_co_call(bf_loop_get_main(loop), visit_main, &visit);
        if (visit.done) {
            break;
        }
        co_ask(&visit);
    }
    g_clear_pointer(&visit.verdicts, g_hash_table_unref);
}

/* --- on main, for a client whose rights are settled --- */

const GPtrArray *
bf_nbd_rights_visible(const BfNbdClient *client)
{
    return is_restricted(client) ? client->rights.visible
                                 : client->server->exports;
}

/* Why the object @id denies a client. */
static char *
explain(const BfNbdServer *server, GHashTable *verdicts, const char *id)
{
    const Verdict *verdict = NULL;
    g_autoptr(GError) error = NULL;

    if (bf_objects_find_authz(server->objects, id, &error) == NULL) {
        return g_strdup(error->message);
    }
    verdict = find_verdict(server, verdicts, id);
    return g_strdup(verdict != NULL && verdict->why != NULL
                        ? verdict->why
                        : "its rules were being changed; it may try again");
}

typedef struct Admission {
    BfNbdClient *client;
    char *why; /* (nullable) owned: it is denied */
} Admission;

static void
admit(void *arg)
{
    Admission *admission = arg;
    const BfNbdServer *server = admission->client->server;
    const char *tls_authz = admission->client->listener->tls_authz;
    GHashTable *verdicts = admission->client->rights.verdicts;

    if (!is_allowed(server, verdicts, tls_authz)) {
        admission->why = explain(server, verdicts, tls_authz);
    }
}

bool
bf_nbd_rights_co_admit(BfNbdClient *client, GError **error)
{
    Admission admission = {.client = client};

    bf_nbd_rights_co_call(client, admit, &admission);
    if (admission.why == NULL) {
        return true;
    }
    bf_set_error(error, "tls-authz '%s' of the server does not allow '%s': %s",
                 client->listener->tls_authz, shown_label(client->label),
                 admission.why);
    g_free(admission.why);
    return false;
}

/* --- reports of exports that do not exist for a client --- */

/*
 * What a client wanted and did not get. Which of the cases it is shows only
 * when it is reported, a little later: the answer must not wait for a report,
 * since that would tell the cases apart.
 */
typedef struct Wish {
    uint64_t id; /* of the connection */
    char *peer;
    char *label; /* (nullable) */
    const char *stage;
    BfNbdString name;     /* owned */
    char *tls_authz;      /* (nullable) of its listener */
    GHashTable *verdicts; /* (nullable) a reference */
} Wish;

static void
wish_free(void *data)
{
    Wish *wish = data;

    g_clear_pointer(&wish->verdicts, g_hash_table_unref);
    g_free((char *)wish->name.data);
    g_free(wish->tls_authz);
    g_free(wish->label);
    g_free(wish->peer);
    g_free(wish);
}

/* The object that keeps the client from the export, NULL if there is none. */
static const char *
find_denying(BfNbdServer *server, const Wish *wish)
{
    const BfNbdExport *exp = bf_nbd_server_find(server, wish->name);

    if (exp == NULL || wish->verdicts == NULL) {
        return NULL;
    }
    return is_allowed(server, wish->verdicts, wish->tls_authz)
               ? exp->tls_authz
               : wish->tls_authz;
}

static void
report_wish(BfNbdServer *server, const Wish *wish)
{
    const char *id = find_denying(server, wish);
    g_autofree char *shown = bf_nbd_show_text(wish->name);
    g_autofree char *text = NULL;

    if (id == NULL) {
        text = g_strdup_printf(NBD_CLIENT_FORMAT
                               ": wants export '%s', which does not exist; "
                               "query-block-exports tells which ones do",
                               NBD_CLIENT_ARGS(wish), shown);
    } else {
        g_autofree char *why = explain(server, wish->verdicts, id);

        text = g_strdup_printf(
            NBD_CLIENT_FORMAT ": wants export '%s', which tls-authz '%s' "
                              "does not allow for '%s': %s",
            NBD_CLIENT_ARGS(wish), shown, id, shown_label(wish->label), why);
    }
    bf_nbd_server_report(
        server,
        &(BfNbdRejection){
            .reason = id == NULL ? BF_NBD_CLIENT_REJECT_REASON_EXPORT_UNKNOWN
                                 : BF_NBD_CLIENT_REJECT_REASON_EXPORT_DENIED,
            .connection = wish->id,
            .peer = wish->peer,
            .stage = wish->stage,
            .name = wish->label,
            .export_name = shown,
            .message = text,
        });
}

static void
report_wishes(void *arg)
{
    BfNbdServer *server = arg;

    for (unsigned i = 0; i < server->wishes->len; i++) {
        report_wish(server, g_ptr_array_index(server->wishes, i));
    }
    g_ptr_array_set_size(server->wishes, 0);
}

/* Never NULL, also if the name is empty. */
static char *
copy_name(BfNbdString name)
{
    char *copy = g_malloc0(name.len + 1);

    if (name.len > 0) {
        memcpy(copy, name.data, name.len);
    }
    return copy;
}

void
bf_nbd_rights_report_absent(BfNbdClient *client, BfNbdString name)
{
    BfNbdServer *server = client->server;
    Wish *wish = NULL;

    if (server->wishes->len == 0) {
        bf_timer_start(&server->wishes_timer, WISHES_NS, report_wishes, server);
    } else if (server->wishes->len == WISHES_MAX) {
        return;
    }
    wish = g_new0(Wish, 1);
    wish->id = client->id;
    wish->peer = g_strdup(client->peer);
    wish->label = g_strdup(client->label);
    wish->stage = client->stage;
    wish->name.data = copy_name(name);
    wish->name.len = name.len;
    wish->tls_authz = g_strdup(client->listener->tls_authz);
    if (client->rights.verdicts != NULL) {
        wish->verdicts = g_hash_table_ref(client->rights.verdicts);
    }
    g_ptr_array_add(server->wishes, wish);
}

void
bf_nbd_rights_init(BfNbdServer *server)
{
    server->authz_max_ns = AUTHZ_MAX_NS;
    server->authz_lane = bf_pool_lane_new("nbd-authz", AUTHZ_THREADS);
    server->wishes = g_ptr_array_new_with_free_func(wish_free);
}

void
bf_nbd_rights_clear_server(BfNbdServer *server)
{
    bf_timer_stop(&server->wishes_timer);
    g_ptr_array_unref(server->wishes);
    bf_pool_lane_free(server->authz_lane);
}
