/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who may negotiate, and who may use exports. On main.
 *
 * The two have limits of their own. Anybody can take a place in negotiation, so
 * these are shared out by where connections come from: when all are taken, the
 * source that has most of them loses the one that has been silent longest, or
 * the oldest if all of them talk.
 * Connections that were accepted and have no place yet wait here as mere
 * descriptors; which of them is next depends on how many its source has got.
 * Places of those who use exports (max-connections) are kept as long as they
 * are used. As long as all are taken, nobody is accepted, and clients that
 * choose an export wait for their reply. These keep their places in
 * negotiation as silent ones do, that is as long as no others need them. Who
 * has all places of his address (max-connections-per-address) is accepted, and
 * waits here.
 */
#include <unistd.h>

#include "core/util.h"
#include "io/channel-socket.h"
#include "nbd-private.h"

/* How long a connection may be silent before it has to make room for another of
 * the same source, or of one that has as many. */
#define SILENCE_MAX_NS BF_NS_PER_SEC

/* Turns of a loop in which it hears of all that its clients in negotiation have
 * sent until now. In one it takes in some 150 completions (see core/ring.c). */
#define LOOK_TURNS 3

/* A connection that was accepted and waits for a place in negotiation. */
typedef struct Waiting {
    int fd;                  /* owned */
    int domain;              /* its address family */
    char *peer;              /* owned */
    BfNbdListener *listener; /* counted by it, and alive until it is closed */
    BfNbdSource *source;     /* counted by it */
} Waiting;

static guint
source_hash(gconstpointer data)
{
    const BfPeerSource *key = data;

    return g_int64_hash(&key->value) ^ (guint)key->family;
}

static gboolean
source_equal(gconstpointer a, gconstpointer b)
{
    const BfPeerSource *x = a;
    const BfPeerSource *y = b;

    return x->family == y->family && x->value == y->value;
}

void
bf_nbd_lobby_init(BfNbdServer *server)
{
    BfNbdLobby *lobby = &server->lobby;

    lobby->negotiating_max = NBD_NEGOTIATING_MAX;
    lobby->waiting_max = NBD_WAITING_MAX;
    lobby->sources =
        g_hash_table_new_full(source_hash, source_equal, NULL, g_free);
    g_queue_init(&lobby->waiting);
    g_queue_init(&lobby->negotiating);
    g_queue_init(&lobby->place_queue);
}

void
bf_nbd_lobby_clear(BfNbdServer *server)
{
    BfNbdLobby *lobby = &server->lobby;

    bf_timer_stop(&lobby->timer);
    g_assert(g_queue_is_empty(&lobby->waiting));
    g_assert(g_queue_is_empty(&lobby->negotiating));
    g_assert(g_queue_is_empty(&lobby->place_queue));
    g_assert(lobby->places_used == 0);
    g_assert(g_hash_table_size(lobby->sources) == 0);
    g_hash_table_unref(lobby->sources);
}

/* --- sources --- */

static BfNbdSource *
source_ref(BfNbdLobby *lobby, const BfPeerSource *key)
{
    BfNbdSource *source = g_hash_table_lookup(lobby->sources, key);

    if (source == NULL) {
        source = g_new0(BfNbdSource, 1);
        source->key = *key;
        g_hash_table_insert(lobby->sources, &source->key, source);
    }
    source->refs++;
    return source;
}

static void
source_unref(BfNbdLobby *lobby, BfNbdSource *source)
{
    if (--source->refs == 0) {
        g_hash_table_remove(lobby->sources, &source->key);
    }
}

/* Most connections in negotiation that one source has. */
static unsigned
largest_share(const BfNbdLobby *lobby)
{
    GHashTableIter iter;
    BfNbdSource *source = NULL;
    unsigned share = 0;

    g_hash_table_iter_init(&iter, lobby->sources);
    while (g_hash_table_iter_next(&iter, NULL, (void **)&source)) {
        share = MAX(share, source->negotiating);
    }
    return share;
}

uint64_t
bf_nbd_client_flow(const BfNbdClient *client)
{
    /* Only 0 means something; sources that collide share their turns. */
    return (client->from.family << 48 ^ client->from.value) | UINT64_C(1) << 63;
}

/* --- places of those who use exports --- */

static bool
is_listener_full(const BfNbdListener *listener)
{
    const BfNbdServer *server = listener->server;

    return server->held || server->lobby.places_used >= NBD_CONNECTIONS_MAX ||
           (listener->max_connections != 0 &&
            listener->places_used >= listener->max_connections);
}

/* No place for who comes from @source. */
static bool
is_full(const BfNbdListener *listener, const BfNbdSource *source)
{
    return is_listener_full(listener) ||
           (listener->max_per_address != 0 &&
            source->places_used >= listener->max_per_address);
}

static void
give_place(BfNbdClient *client)
{
    client->server->lobby.places_used++;
    client->listener->places_used++;
    client->place_source = source_ref(&client->server->lobby, &client->from);
    client->place_source->places_used++;
    client->has_place = true;
}

bool
bf_nbd_places_take(BfNbdClient *client)
{
    if (!client->has_place && !is_full(client->listener, client->source)) {
        give_place(client);
    }
    return client->has_place;
}

void
bf_nbd_places_release(BfNbdClient *client)
{
    BfNbdLobby *lobby = &client->server->lobby;
    GList *following = NULL;

    if (!client->has_place) {
        return;
    }
    client->has_place = false;
    lobby->places_used--;
    client->listener->places_used--;
    client->place_source->places_used--;
    source_unref(lobby, g_steal_pointer(&client->place_source));
    /* At once, so that nobody gets in before those that wait: one may need the
     * place at the listener, and another that of the address. */
    for (GList *l = lobby->place_queue.head; l != NULL; l = following) {
        BfNbdClient *next = l->data;

        following = l->next;
        if (!is_full(next->listener, next->source)) {
            g_queue_delete_link(&lobby->place_queue, l);
            give_place(next);
            bf_co_queue_wake_all(&lobby->place_given);
        }
    }
}

static void
co_wait_for_place(void *arg)
{
    BfNbdClient *client = arg;
    BfNbdLobby *lobby = &client->server->lobby;

    if (client->killed || bf_nbd_places_take(client)) {
        return;
    }
    g_queue_push_tail(&lobby->place_queue, client);
    while (!client->has_place && !client->killed) {
        bf_co_queue_co_wait(&lobby->place_given);
    }
    /* Who was given one is not in it any more. */
    g_queue_remove(&lobby->place_queue, client);
}

void
bf_nbd_places_co_wait(BfNbdClient *client)
{
    const char *stage = client->stage;

    client->stage =
        client->listener->max_per_address == 0
            ? "waiting for a place (max-connections)"
            : "waiting for a place (max-connections, or -per-address)";
    bf_peer_wait_begin(&client->wait, bf_loop_now_ns());
    bf_co_call(bf_loop_get_main(bf_loop_self()), co_wait_for_place, client);
    bf_peer_wait_end(&client->wait);
    client->stage = stage;
}

void
bf_nbd_places_wake(BfNbdServer *server)
{
    bf_co_queue_wake_all(&server->lobby.place_given);
}

/* --- places in negotiation --- */

void
bf_nbd_lobby_enter(BfNbdClient *client)
{
    BfNbdLobby *lobby = &client->server->lobby;

    client->source = source_ref(lobby, &client->from);
    client->source->negotiating++;
    client->lobby_link.data = client;
    g_queue_push_tail_link(&lobby->negotiating, &client->lobby_link);
}

void
bf_nbd_lobby_leave(BfNbdClient *client)
{
    BfNbdLobby *lobby = &client->server->lobby;

    if (client->source == NULL) {
        return;
    }
    g_queue_unlink(&lobby->negotiating, &client->lobby_link);
    if (client->dropped != NULL) {
        lobby->n_dropped--;
    } else {
        client->source->negotiating--;
    }
    source_unref(lobby, g_steal_pointer(&client->source));
}

static void
drop(BfNbdClient *client, const char *what, uint64_t ns)
{
    BfNbdLobby *lobby = &client->server->lobby;

    if (g_queue_find(&lobby->place_queue, client) != NULL) {
        what = "has waited for a place (max-connections)";
    }
    client->dropped = g_strdup_printf(
        "it %s for %.1f s, while all %u places in negotiation are taken, %u of "
        "them by its address, and others wait for one",
        what, (double)ns / BF_NS_PER_SEC, lobby->negotiating_max,
        client->source->negotiating);
    client->source->negotiating--;
    lobby->n_dropped++;
    bf_nbd_client_kill(client, BF_NBD_CLIENT_DISCONNECT_REASON_DROPPED);
}

/* Of all clients whose source has @share of the places the one that it has been
 * waited for longest; NULL if it is the peer's turn in none of them. */
static BfNbdClient *
most_silent(const BfNbdLobby *lobby, unsigned share)
{
    BfNbdClient *best = NULL;
    uint64_t best_ns = BF_PEER_WAIT_NONE;

    for (GList *l = lobby->negotiating.head; l != NULL; l = l->next) {
        BfNbdClient *client = l->data;
        uint64_t since_ns = bf_peer_wait_since(&client->wait);

        if (client->source->negotiating == share && !client->killed &&
            since_ns < best_ns) {
            best = client;
            best_ns = since_ns;
        }
    }
    return best;
}

/* Of all clients whose source has @share of the places the first one. */
static BfNbdClient *
oldest(const BfNbdLobby *lobby, unsigned share)
{
    for (GList *l = lobby->negotiating.head; l != NULL; l = l->next) {
        BfNbdClient *client = l->data;

        if (client->source->negotiating == share && !client->killed) {
            return client;
        }
    }
    return NULL;
}

static void
timer_fired(void *arg)
{
    bf_nbd_lobby_update(arg);
}

/* In a message, so that this is a turn of the worker that has it. */
static void
worker_co_pass_turn(void *arg)
{
    bf_co_yield();
}

static bool
negotiates_on(const BfNbdLobby *lobby, const BfLoop *loop)
{
    for (GList *l = lobby->negotiating.head; l != NULL; l = l->next) {
        if (((const BfNbdClient *)l->data)->loop == loop) {
            return true;
        }
    }
    return false;
}

static void
lobby_co_look(void *arg)
{
    BfNbdServer *server = arg;
    BfNbdLobby *lobby = &server->lobby;

    for (unsigned turn = 0; turn < LOOK_TURNS; turn++) {
        bf_co_next_turn();
        for (unsigned i = 0; i < server->n_workers; i++) {
            if (negotiates_on(lobby, server->workers[i])) {
                bf_co_call(server->workers[i], worker_co_pass_turn, NULL);
            }
        }
    }
    lobby->looking = false;
    lobby->has_looked = true;
    bf_nbd_lobby_update(server);
    lobby->has_looked = false;
    bf_wait_group_done(&server->alive);
}

/* Somebody has to go. A peer may have spoken while its loop was busy and could
 * not listen, and is not to be taken for silent: it is listened to first. */
static void
start_look(BfNbdServer *server)
{
    BfNbdLobby *lobby = &server->lobby;

    if (!lobby->looking) {
        lobby->looking = true;
        bf_wait_group_add(&server->alive, 1);
        bf_co_spawn_later(lobby_co_look, server);
    }
}

/* Who has to go in favour of @next, at once or after a silence of
 * SILENCE_MAX_NS; NULL if nobody yet. */
static BfNbdClient *
find_to_drop(const BfNbdLobby *lobby, const Waiting *next,
             uint64_t *ret_silence_ns)
{
    unsigned share = largest_share(lobby);
    bool at_once = share > next->source->negotiating + 1;
    BfNbdClient *client = most_silent(lobby, share);

    *ret_silence_ns = 0;
    if (client != NULL) {
        uint64_t since_ns = bf_peer_wait_since(&client->wait);
        uint64_t now_ns = bf_loop_now_ns();

        /* Its loop may be ahead, and may have heard of it just now. */
        *ret_silence_ns = now_ns > since_ns ? now_ns - since_ns : 0;
        return at_once || *ret_silence_ns >= SILENCE_MAX_NS ? client : NULL;
    }
    return at_once ? oldest(lobby, share) : NULL;
}

/* Drops a client in favour of @next, or sees to it that this is tried again. */
static bool
make_room(BfNbdServer *server, const Waiting *next)
{
    BfNbdLobby *lobby = &server->lobby;
    uint64_t silence_ns;
    BfNbdClient *client = find_to_drop(lobby, next, &silence_ns);

    if (client == NULL) {
        bf_timer_start(&lobby->timer, SILENCE_MAX_NS - silence_ns, timer_fired,
                       server);
        return false;
    }
    if (!lobby->has_looked) {
        start_look(server);
        return false;
    }
    if (bf_peer_wait_since(&client->wait) != BF_PEER_WAIT_NONE) {
        drop(client, "was silent", silence_ns);
    } else {
        drop(client, "has negotiated", bf_loop_now_ns() - client->since_ns);
    }
    return true;
}

/* --- those who wait --- */

static void
waiting_free(BfNbdLobby *lobby, Waiting *waiting)
{
    waiting->listener->n_waiting--;
    waiting->source->waiting--;
    source_unref(lobby, waiting->source);
    g_free(waiting->peer);
    g_free(waiting);
}

static void
start(BfNbdServer *server, Waiting *waiting)
{
    BfPeerSource from = waiting->source->key;
    BfChannel *channel =
        bf_channel_socket_new_known(waiting->fd, waiting->domain);

    bf_channel_socket_set_bulk(channel);
    g_queue_remove(&server->lobby.waiting, waiting);
    bf_nbd_client_start(waiting->listener, channel,
                        g_steal_pointer(&waiting->peer), &from);
    waiting_free(&server->lobby, waiting);
}

/* Of those who may come in now and whose source has fewest in negotiation the
 * one that came first. */
static Waiting *
next_waiting(const BfNbdLobby *lobby)
{
    Waiting *best = NULL;

    for (GList *l = lobby->waiting.head; l != NULL; l = l->next) {
        Waiting *waiting = l->data;

        if (!is_full(waiting->listener, waiting->source) &&
            (best == NULL ||
             waiting->source->negotiating < best->source->negotiating)) {
            best = waiting;
        }
    }
    return best;
}

/* Of those whose source has most waiting the one that came first. */
static Waiting *
dispensable_waiting(const BfNbdLobby *lobby)
{
    Waiting *best = NULL;

    for (GList *l = lobby->waiting.head; l != NULL; l = l->next) {
        Waiting *waiting = l->data;

        if (best == NULL || waiting->source->waiting > best->source->waiting) {
            best = waiting;
        }
    }
    return best;
}

static void
turn_away(BfNbdServer *server, Waiting *waiting)
{
    BfNbdLobby *lobby = &server->lobby;
    uint64_t id = ++server->next_id;
    g_autofree char *text = g_strdup_printf(
        "connection %" G_GUINT64_FORMAT " from %s: closed without a greeting: "
        "%u connections wait for a place in negotiation, %u of them from its "
        "address",
        id, waiting->peer, lobby->waiting.length, waiting->source->waiting);

    bf_nbd_server_report(server,
                         &(BfNbdRejection){
                             .reason = BF_NBD_CLIENT_REJECT_REASON_LIMIT,
                             .connection = id,
                             .peer = waiting->peer,
                             .stage = "waiting for a place",
                             .message = text,
                         });
    g_queue_remove(&lobby->waiting, waiting);
    close(waiting->fd);
    waiting_free(lobby, waiting);
}

void
bf_nbd_lobby_update(BfNbdServer *server)
{
    BfNbdLobby *lobby = &server->lobby;
    Waiting *next = NULL;

    bf_timer_stop(&lobby->timer);
    while (!server->stopping && (next = next_waiting(lobby)) != NULL) {
        unsigned present = lobby->negotiating.length;

        /* Those that are dropped need a moment to go, and memory until then. */
        if (present >= 2 * lobby->negotiating_max) {
            break;
        }
        if (present - lobby->n_dropped < lobby->negotiating_max) {
            start(server, next);
        } else if (!make_room(server, next)) {
            break;
        }
    }
    for (unsigned i = 0; i < server->listeners->len; i++) {
        const BfNbdListener *listener = g_ptr_array_index(server->listeners, i);

        bf_listener_set_paused(listener->socket,
                               server->held || (is_listener_full(listener) &&
                                                listener->n_waiting > 0));
    }
}

void
bf_nbd_lobby_accept(void *opaque, int fd, int domain)
{
    BfNbdListener *listener = opaque;
    BfNbdServer *server = listener->server;
    BfNbdLobby *lobby = &server->lobby;
    BfPeerSource key;
    Waiting *waiting = g_new0(Waiting, 1);

    waiting->fd = fd;
    waiting->domain = domain;
    waiting->peer = bf_socket_describe_peer(fd, domain, &key);
    waiting->listener = listener;
    listener->n_waiting++;
    waiting->source = source_ref(lobby, &key);
    waiting->source->waiting++;
    g_queue_push_tail(&lobby->waiting, waiting);
    bf_nbd_lobby_update(server);
    if (lobby->waiting.length > lobby->waiting_max) {
        turn_away(server, dispensable_waiting(lobby));
    }
}

void
bf_nbd_lobby_close_waiting(BfNbdListener *listener)
{
    BfNbdLobby *lobby = &listener->server->lobby;
    GList *next = NULL;

    for (GList *l = lobby->waiting.head; l != NULL; l = next) {
        Waiting *waiting = l->data;

        next = l->next;
        if (waiting->listener == listener) {
            g_queue_delete_link(&lobby->waiting, l);
            close(waiting->fd);
            waiting_free(lobby, waiting);
        }
    }
}
