/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One connection's way through the loops: accepted on main, negotiation there
 * while it is quick, else on the least loaded worker, transmission there or, by
 * way of main, on another loop of its export, back to main, gone.
 *
 * It is handed over by messages, and whoever has handed it over does not touch
 * it any more. Main reaches a client on its loop by bf_co_call() only, and
 * takes it back only when none of these calls is under way.
 */
#include <string.h>

#include "core/clock.h"
#include "core/error.h"
#include "core/util.h"
#include "io/channel-socket.h"
#include "stats-private.h"
#include "transmit-private.h"

/* Names are cut to this many bytes in logs and messages. */
#define SHOWN_TEXT_MAX 80

static void take_back(void *arg);
static void client_co_settle(void *arg);
static void client_co_negotiate_elsewhere(BfNbdClient *client);
static void rest_on_main(BfNbdClient *client);

char *
bf_nbd_show_text(BfNbdString text)
{
    g_autofree char *cut =
        bf_show_peer_text(text.data, MIN(text.len, SHOWN_TEXT_MAX), '?');

    return g_strconcat(cut, text.len > SHOWN_TEXT_MAX ? "..." : "", NULL);
}

/*
 * On main.
 */

/* From now on @loop runs it, and it counts as one of @home. */
static void
enter_loop(BfNbdClient *client, BfLoop *loop, const BfLoop *home)
{
    client->loop = loop;
    client->worker = bf_nbd_server_worker_index(client->server, home);
    if (client->worker >= 0) {
        client->server->load[client->worker]++;
    }
}

static void
leave_loop(BfNbdClient *client)
{
    if (client->worker >= 0) {
        client->server->load[client->worker]--;
    }
    client->loop = NULL;
}

/* Of the export's iothreads the one with the fewest connections. */
static BfLoop *
pick_iothread(const BfNbdClient *client)
{
    const BfExport *exp = &client->exp->base;
    unsigned best = 0;
    unsigned fewest = UINT_MAX;

    for (unsigned i = 0; i < exp->iothreads->len; i++) {
        unsigned n = bf_nbd_server_count_on(
            client->server, g_ptr_array_index(exp->iothreads, i));

        if (n < fewest) {
            best = i;
            fewest = n;
        }
    }
    return bf_root_pick_loop(exp->root, (BfLoop **)exp->iothreads->pdata,
                             exp->iothreads->len, best);
}

static BfLoop *
pick_loop(const BfNbdClient *client)
{
    const BfNbdServer *server = client->server;
    const BfExport *exp = &client->exp->base;
    unsigned wanted = bf_nbd_server_least_loaded(server);

    if (exp->iothreads != NULL) {
        return pick_iothread(client);
    }
    /* It has been counted there until now. */
    if (client->worker >= 0 &&
        server->load[client->worker] <= server->load[wanted]) {
        wanted = client->worker;
    }
    return bf_root_pick_loop(exp->root, server->workers, server->n_workers,
                             wanted);
}

static void
tell_connected(const BfNbdClient *client)
{
    const BfNbdServer *server = client->server;

    if (server->events != NULL) {
        server->events->connected(
            server->events_opaque,
            &(BfNbdArrival){
                .connection = client->id,
                .peer = client->peer,
                .export_id = bf_export_id(&client->exp->base),
                .tls = client->tls_info,
                .clients = bf_export_count_clients(&client->exp->base),
            });
    }
}

static void
tell_disconnected(const BfNbdClient *client)
{
    const BfNbdServer *server = client->server;

    if (server->events != NULL) {
        server->events->disconnected(
            server->events_opaque,
            &(BfNbdDeparture){
                .connection = client->id,
                .peer = client->peer,
                .export_id = bf_export_id(&client->exp->base),
                .name = client->label,
                .reason = client->left,
                .message = client->left_text,
                .duration_ns = bf_loop_now_ns() - client->since_ns,
                .requests = bf_nbd_stats_requests(client->stats),
                .failed_requests = bf_nbd_stats_failed(client->stats),
                .clients = bf_export_count_clients(&client->exp->base) - 1,
            });
    }
}

static void
client_co_free(BfNbdClient *client)
{
    BfNbdServer *server = client->server;
    bool had_export = client->exp != NULL;

    bf_channel_free(client->channel);
    if (client->quiet) {
        bf_handle_co_free_idle(client->handle);
    } else {
        bf_handle_co_free(client->handle);
    }
    bf_throttle_member_co_free(client->throttle);
    if (client->stats != NULL) {
        tell_disconnected(client);
        bf_nbd_stats_retire(client);
    }
    if (had_export) {
        bf_export_detach(&client->exp->base);
    }
    bf_nbd_lobby_leave(client);
    bf_nbd_places_release(client);
    bf_nbd_meta_clear(client);
    bf_nbd_rights_clear(client);
    g_free(client->tls_text);
    bf_nbd_client_tls_free(client->tls_info);
    g_free(client->identity);
    g_free(client->label);
    g_free(client->left_text);
    g_free(client->dropped);
    g_free(client->peer);
    g_queue_unlink(&server->clients, &client->link);
    client->listener->n_clients--;
    bf_nbd_listener_unref(client->listener);
    g_free(client);
    bf_nbd_server_client_gone(server, had_export);
    bf_wait_group_done(&server->alive);
}

/*
 * On the client's loop.
 */

static void
handshake_expired(void *arg)
{
    BfNbdClient *client = arg;

    client->timed_out = true;
    bf_cancel_fire(&client->cancel);
    if (client->channel != NULL) {
        bf_channel_shutdown(client->channel);
    }
}

static bool
is_limited(const BfNbdClient *client)
{
    return client->listener->handshake_max_seconds != 0;
}

static void
limit_negotiation(BfNbdClient *client, uint64_t rest_ns)
{
    client->limit_ns = bf_loop_now_ns() + rest_ns;
    bf_timer_start(&client->timer, rest_ns, handshake_expired, client);
}

uint64_t
bf_nbd_client_pause_limit(BfNbdClient *client)
{
    const uint64_t now_ns = bf_loop_now_ns();

    bf_timer_stop(&client->timer);
    return client->limit_ns - MIN(client->limit_ns, now_ns);
}

void
bf_nbd_client_resume_limit(BfNbdClient *client, uint64_t rest_ns)
{
    if (is_limited(client)) {
        limit_negotiation(client, rest_ns);
    }
}

static bool
is_export_absent(const BfNbdClient *client)
{
    return client->outcome == BF_NBD_OUTCOME_FAILED &&
           client->reason == BF_NBD_CLIENT_REJECT_REASON_EXPORT_UNKNOWN;
}

static const char *
describe_kill(BfNbdClientDisconnectReason reason)
{
    switch (reason) {
    case BF_NBD_CLIENT_DISCONNECT_REASON_DROPPED:
        return "nbd-client-drop asks for it";
    case BF_NBD_CLIENT_DISCONNECT_REASON_EXPORT_REMOVED:
        return "the export is being removed";
    case BF_NBD_CLIENT_DISCONNECT_REASON_LISTENER_REMOVED:
        return "nbd-server-remove-listener asks for it";
    default:
        return "the NBD server is being stopped";
    }
}

/* Anybody can make negotiation fail as often as he likes, so main counts these
 * messages. */
static void
log_end_of_negotiation(BfNbdClient *client, const GError *error)
{
    if (client->outcome == BF_NBD_OUTCOME_READY) {
        return;
    }
    if (client->closing && client->dropped != NULL) {
        client->reason = BF_NBD_CLIENT_REJECT_REASON_LIMIT;
        client->failure = g_strdup_printf(
            NBD_CLIENT_FORMAT ": dropped in negotiation (it was at: %s): %s",
            NBD_CLIENT_ARGS(client), client->stage, client->dropped);
    } else if (client->closing || client->leaving) {
        g_info(NBD_CLIENT_FORMAT ": closed in negotiation (%s), because %s",
               NBD_CLIENT_ARGS(client), client->stage,
               describe_kill(client->killed_for));
    } else if (client->timed_out) {
        client->reason = BF_NBD_CLIENT_REJECT_REASON_TIMEOUT;
        client->failure = g_strdup_printf(
            NBD_CLIENT_FORMAT
            ": negotiation did not end within %u s (it was at: %s)",
            NBD_CLIENT_ARGS(client), client->listener->handshake_max_seconds,
            client->stage);
    } else if (is_export_absent(client)) {
        return; /* main has reported it */
    } else if (client->refused != NULL && !client->tls) {
        /* It could have gone on, but did not want to. */
        client->failure = g_strdup_printf(
            NBD_CLIENT_FORMAT ": negotiation failed (%s): %s",
            NBD_CLIENT_ARGS(client), client->stage, client->refused);
    } else if (client->outcome == BF_NBD_OUTCOME_CLOSE || !client->spoke) {
        /* Health checks and port probes would fill the log. */
        g_debug(NBD_CLIENT_FORMAT ": left in negotiation (%s)",
                NBD_CLIENT_ARGS(client), client->stage);
    } else {
        client->failure = g_strdup_printf(
            NBD_CLIENT_FORMAT ": negotiation failed (%s): %s",
            NBD_CLIENT_ARGS(client), client->stage, error->message);
    }
}

static void note_end(BfNbdClient *client, bool ok, const GError *error);
static void start_transmission(void *arg);

/* The loop has done with a client, which main takes back. */
static void
give_back(BfNbdClient *client)
{
    g_clear_pointer(&client->channel, bf_channel_free);
    client->quiet = client->handle != NULL &&
                    (client->quick || bf_handle_in_flight(client->handle) == 0);
    bf_loop_post(bf_loop_get_main(bf_loop_self()), take_back, client);
}

/* Main has made it ready to use its export here, and has said so. */
static void
go_on_settled(BfNbdClient *client, const GError *error)
{
    const bool is_ready = client->outcome == BF_NBD_OUTCOME_READY;

    client->outcome = BF_NBD_OUTCOME_CLOSE;
    if (is_ready && !client->leaving && !client->closing) {
        if (client->quick) {
            rest_on_main(client);
        } else {
            start_transmission(client);
        }
        return;
    }
    client->left = BF_NBD_CLIENT_DISCONNECT_REASON_CONNECTION;
    note_end(client, is_ready, error);
    give_back(client);
}

/* Negotiation that goes on here has the rest of its time. */
static void
limit_rest_of_negotiation(BfNbdClient *client)
{
    const bool goes_on = client->limit_ns != 0;

    if (is_limited(client)) {
        limit_negotiation(client,
                          goes_on ? bf_nbd_client_pause_limit(client)
                                  : client->listener->handshake_max_seconds *
                                        BF_NS_PER_SEC);
    }
}

static void
client_co_negotiate(void *arg)
{
    BfNbdClient *client = arg;
    g_autoptr(GError) error = NULL;

    client->running = true;
    client->stage = "greeting";
    if (!client->greeted) {
        client->reason = BF_NBD_CLIENT_REJECT_REASON_PROTOCOL;
    }
    limit_rest_of_negotiation(client);
    client->outcome = bf_nbd_negotiate_co_run(client, &error);
    client->running = false;
    bf_timer_stop(&client->timer);
    bf_timer_stop(&client->limit_timer);
    if (client->settled) {
        go_on_settled(client, error);
        return;
    }
    if (client->outcome == BF_NBD_OUTCOME_MOVE) {
        client_co_negotiate_elsewhere(client);
        return;
    }
    if (client->timed_out) {
        client->outcome = BF_NBD_OUTCOME_FAILED;
    }
    log_end_of_negotiation(client, error);
    if (client->outcome != BF_NBD_OUTCOME_READY) {
        g_clear_pointer(&client->channel, bf_channel_free);
    }
    bf_loop_post(bf_loop_get_main(bf_loop_self()), take_back, client);
}

static void
start_negotiation(void *arg)
{
    bf_co_spawn(client_co_negotiate, arg);
}

/* It was not the peer's wish, nor anybody else's. */
static void
note_expired(BfNbdClient *client)
{
    const bool idle =
        client->expired_for == BF_NBD_CLIENT_DISCONNECT_REASON_IDLE;

    client->left = client->expired_for;
    client->left_text =
        g_strdup_printf("closed, because it has %s for %u s (idle-max-seconds)",
                        idle ? "asked for nothing" : "not taken its replies",
                        client->listener->idle_max_seconds);
    g_message(NBD_CLIENT_FORMAT ": %s", NBD_CLIENT_ARGS(client),
              client->left_text);
}

/* Why an end that is not the peer's wish came about. */
static void
note_end(BfNbdClient *client, bool ok, const GError *error)
{
    if (client->closing || client->leaving) {
        /* What the reader saw then is only a consequence. */
        client->left = client->killed_for;
        client->left_text = g_strdup_printf("closed, because %s",
                                            describe_kill(client->killed_for));
    } else if (client->expired) {
        note_expired(client);
        return;
    } else if (ok) {
        client->left = BF_NBD_CLIENT_DISCONNECT_REASON_CLIENT;
        client->left_text = g_strdup("disconnected");
    } else {
        client->left_text =
            g_strdup_printf("connection lost: %s", error->message);
    }
    g_info(NBD_CLIENT_FORMAT ": %s", NBD_CLIENT_ARGS(client),
           client->left_text);
}

static void go_on(void *arg);

static void
client_co_transmit(void *arg)
{
    BfNbdClient *client = arg;
    g_autoptr(GError) error = NULL;
    BfNbdTransmitStatus status;

    do {
        status = bf_nbd_transmit_co_run(client, &error);
        if (status == BF_NBD_TRANSMIT_RESTS &&
            bf_nbd_transmit_rest(client, go_on)) {
            return;
        }
    } while (status == BF_NBD_TRANSMIT_RESTS);
    client->running = false;
    note_end(client, status == BF_NBD_TRANSMIT_DONE, error);
    bf_timer_stop(&client->timer);
    give_back(client);
}

/* Something has come for a client at rest, or it is to end. */
static void
go_on(void *arg)
{
    bf_co_spawn_later(client_co_transmit, arg);
}

/* It uses its export from now on. */
static void
introduce(BfNbdClient *client)
{
    g_autofree char *name = bf_nbd_show_text(client->exp->name);

    g_info(NBD_CLIENT_FORMAT ": uses export '%s' (NBD name '%s'), %s",
           NBD_CLIENT_ARGS(client), client->exp->base.id, name,
           client->tls_text != NULL ? client->tls_text : "no TLS");
    client->introduced = true;
    client->left = BF_NBD_CLIENT_DISCONNECT_REASON_CONNECTION;
    client->running = true;
}

static void
start_transmission(void *arg)
{
    BfNbdClient *client = arg;

    if (!client->introduced) {
        introduce(client);
    }
    bf_nbd_transmit_begin(client);
    if (bf_nbd_ahead_bytes(client) > 0 ||
        !bf_nbd_transmit_rest(client, go_on)) {
        bf_co_spawn(client_co_transmit, client);
    }
}

static void
cancel_waits_here(const BfNbdClient *client)
{
    /* What rests on main has no requests that could wait there. */
    if (client->throttle != NULL && !client->quick) {
        bf_throttle_member_cancel_here(client->throttle);
    }
}

/* Also when it has taken too long to leave. */
static void
cut_here(void *arg)
{
    BfNbdClient *client = arg;

    client->closing = true;
    bf_cancel_fire(&client->cancel);
    if (client->channel != NULL) {
        bf_channel_shutdown(client->channel);
    }
    cancel_waits_here(client);
    bf_co_queue_wake_all(&client->reader_wait);
}

/* Nothing more is taken from the peer than what has come already. It is told
 * what has become of that, for some time at most. */
static void
leave_here(void *arg)
{
    BfNbdClient *client = arg;

    client->leaving = true;
    if (!client->running || client->channel == NULL) {
        return; /* main has it in a moment */
    }
    bf_nbd_idle_stop(client);
    bf_timer_start(&client->limit_timer, NBD_LEAVE_MAX_NS, cut_here, client);
    bf_channel_shutdown_read(client->channel);
    cancel_waits_here(client);
}

/* From main, which has told it already to leave. */
static void
start_transmission_to_leave(void *arg)
{
    BfNbdClient *client = arg;

    bf_timer_start(&client->limit_timer, NBD_LEAVE_MAX_NS, cut_here, client);
    start_transmission(client); /* main may have it back already */
}

/*
 * On main again.
 */

/* It has chosen its export. */
static void
client_meet(BfNbdClient *client)
{
    bf_nbd_stats_begin(client);
    tell_connected(client);
}

/* Makes a client ready to use its export on @loop. */
static void
client_co_equip(BfNbdClient *client, BfLoop *loop)
{
    client->home = loop;
    client->handle = bf_handle_co_new(client->exp->base.root, loop);
    client->last_loss = bf_handle_last_loss(client->handle);
    if (client->exp->base.throttle != NULL) {
        client->throttle =
            bf_throttle_member_new_beside(client->exp->base.throttle, loop);
    }
}

void
bf_nbd_client_co_settle(BfNbdClient *client)
{
    BfLoop *loop = client->loop;
    BfLoop *wanted = NULL;

    leave_loop(client);
    wanted = pick_loop(client);
    enter_loop(client, loop, client->quick ? wanted : loop);
    if (wanted == loop || client->quick) {
        client_co_equip(client, wanted);
        client_meet(client);
        client->settled = true;
    }
}

/* Brings a client whose export is chosen to a loop of that export. */
static void
client_co_move(BfNbdClient *client)
{
    BfLoop *loop = pick_loop(client);

    client_co_equip(client, loop);
    enter_loop(client, loop, loop);
    bf_loop_post(loop, start_transmission, client);
}

/* What is not quick is done on a worker. */
static void
client_co_negotiate_elsewhere(BfNbdClient *client)
{
    BfNbdServer *server = client->server;
    BfLoop *loop = server->workers[bf_nbd_server_least_loaded(server)];

    bf_wait_group_co_wait(&client->messages);
    leave_loop(client);
    client->quick = false;
    enter_loop(client, loop, loop);
    bf_loop_post(loop, start_negotiation, client);
}

/* It has work, or may have any moment. */
static void
go_home(BfNbdClient *client)
{
    BfFn *start =
        client->leaving ? start_transmission_to_leave : start_transmission;

    client->quick = false;
    leave_loop(client);
    enter_loop(client, client->home, client->home);
    if (client->home == bf_loop_self()) {
        start(client); /* a message would be overtaken by calls */
    } else {
        bf_loop_post(client->home, start, client);
    }
}

/* Is what has come the wish to leave, and nothing else? */
static bool
says_bye(const BfNbdClient *client)
{
    BfNbdRequest request;

    return bf_nbd_ahead_bytes(client) ==
               bf_nbd_transmit_request_bytes(client) &&
           bf_nbd_transmit_parse(client, client->ahead, &request) &&
           request.command == BF_NBD_COMMAND_DISC;
}

/* The first that comes from a client at rest on main. Those that have come only
 * to leave again do not get any further. */
static void
client_co_hear(void *arg)
{
    BfNbdClient *client = arg;
    g_autoptr(GError) error = NULL;
    ssize_t n = bf_nbd_ahead_co_fill(
        client, bf_nbd_transmit_request_bytes(client), &error);

    bf_timer_stop(&client->limit_timer);
    if (n > 0 && !client->closing && !says_bye(client)) {
        go_home(client);
        return;
    }
    client->running = false;
    client->quiet = true;
    note_end(client, n >= 0, error);
    g_clear_pointer(&client->channel, bf_channel_free);
    client_co_settle(client);
}

static void
heard(void *arg)
{
    bf_co_spawn_later(client_co_hear, arg);
}

/* Many ask for nothing but whether there is an export: they are spared the way
 * through its loop. */
static void
rest_on_main(BfNbdClient *client)
{
    introduce(client);
    if (bf_nbd_ahead_bytes(client) > 0 ||
        client->listener->idle_max_seconds > 0 ||
        !bf_channel_start_watch(client->channel, heard, client)) {
        go_home(client);
    }
}

static void
client_co_settle(void *arg)
{
    BfNbdClient *client = arg;
    bool ready = false;

    bf_wait_group_co_wait(&client->messages);
    leave_loop(client);
    if (client->failure != NULL) {
        bf_nbd_server_report(client->server, &(BfNbdRejection){
                                                 .reason = client->reason,
                                                 .connection = client->id,
                                                 .peer = client->peer,
                                                 .stage = client->stage,
                                                 .name = client->label,
                                                 .message = client->failure,
                                             });
        g_clear_pointer(&client->failure, g_free);
    }
    /* It may come here twice: ready after negotiation, never after that. */
    ready = client->outcome == BF_NBD_OUTCOME_READY;
    client->outcome = BF_NBD_OUTCOME_CLOSE;
    if (ready && !client->killed) {
        client_meet(client);
        client_co_move(client);
    } else {
        client_co_free(client);
    }
}

static void
take_back(void *arg)
{
    bf_co_spawn(client_co_settle, arg);
}

/* Who is to be cut off, or has to make room, is not kept any longer. */
static bool
may_take_its_time(const BfNbdClient *client)
{
    return client->killed_for != BF_NBD_CLIENT_DISCONNECT_REASON_DROPPED;
}

static void
client_co_kill(void *arg)
{
    BfNbdClient *client = arg;

    bf_co_call(client->loop, may_take_its_time(client) ? leave_here : cut_here,
               client);
    bf_wait_group_done(&client->messages);
}

void
bf_nbd_client_kill(BfNbdClient *client, BfNbdClientDisconnectReason reason)
{
    bf_assert_main();
    if (client->killed) {
        return;
    }
    client->killed = true;
    client->killed_for = reason;
    bf_nbd_places_wake(client->server);
    if (client->loop != NULL) {
        bf_wait_group_add(&client->messages, 1);
        bf_co_spawn(client_co_kill, client);
    }
}

void
bf_nbd_client_co_cut(BfNbdClient *client)
{
    bf_assert_main();
    g_assert(!client->killed);
    client->killed = true;
    client->killed_for = BF_NBD_CLIENT_DISCONNECT_REASON_DROPPED;
    bf_nbd_places_wake(client->server);
    if (client->loop != NULL) {
        bf_wait_group_add(&client->messages, 1);
        client_co_kill(client);
    }
}

void
bf_nbd_client_start(BfNbdListener *listener, BfChannel *channel, char *peer,
                    const BfPeerSource *from)
{
    BfNbdServer *server = listener->server;
    BfNbdClient *client = g_new0(BfNbdClient, 1);

    bf_assert_main();
    client->server = server;
    client->listener = bf_nbd_listener_ref(listener);
    listener->n_clients++;
    client->id = ++server->next_id;
    client->peer = peer;
    client->from = *from;
    client->channel = channel;
    client->link.data = client;
    client->user_link.data = client;
    client->since_ns = bf_loop_now_ns();
    client->since_wall_ns = bf_clock_wall_ns();
    client->replies_tail = &client->replies;
    g_queue_push_tail_link(&server->clients, &client->link);
    bf_wait_group_add(&server->alive, 1);
    bf_peer_wait_end(&client->wait); /* it has not begun yet */
    bf_nbd_lobby_enter(client);
    if (listener->tls_creds == NULL) {
        client->quick = true;
        enter_loop(client, bf_loop_self(), bf_loop_self());
        start_negotiation(client);
    } else {
        BfLoop *loop = server->workers[bf_nbd_server_least_loaded(server)];

        enter_loop(client, loop, loop);
        bf_loop_post(loop, start_negotiation, client);
    }
}
