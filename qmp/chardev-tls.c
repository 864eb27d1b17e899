/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS of character devices: the handshake, and who may connect.
 *
 * A peer costs a coroutine and some buffers until it has shown who it is, so
 * both their number and their time are limited. When there are too many, the
 * one that has been at it longest has to go: others are done in no time.
 *
 * The objects go before the devices do, see bf_chardev_tls_release(); a
 * handshake may still be under way then, and fails.
 */
#include "qmp/chardev-private.h"

#include "core/co-io.h"
#include "core/co-lock.h"
#include "core/error.h"
#include "core/loop.h"
#include "core/util.h"
#include "io/channel-tls.h"

/* How long a handshake and the questions to authorization may take. */
#define HANDSHAKE_MAX_NS (10 * BF_NS_PER_SEC)
/* More than this many, and the oldest is ended. */
#define HANDSHAKES_MAX 32
/* Those that are being ended included: then nobody is accepted for a while. */
#define HANDSHAKES_FULL (2 * HANDSHAKES_MAX)
/* Rules that change while they are asked are asked again, so often. */
#define TRIES_MAX 8
/* Failures that are logged in a second. */
#define FAILURES_LOGGED_MAX 10

struct BfChardevTls {
    BfObjects *objects; /* (nullable) borrowed: until released */
    char *user;         /* owned: who uses the credentials */
    char *creds_id;     /* owned */
    BfTlsCreds *creds;  /* a reference */
    char *authz_id;     /* (nullable) owned */
    BfPoolLane *lane;   /* owned: asks rules, which may block */
    BfChardevFn *done;
    BfFn *left;
    void *opaque;
    GQueue handshakes; /* of Handshake, borrowed, the oldest first */
    BfWaitGroup group; /* their coroutines */
    bool is_closing;
    unsigned failures; /* in this second */
    BfTimer failures_timer;
};

/* A connection that has not shown yet who it is. */
typedef struct Handshake {
    BfChardevTls *tls;
    BfChannel *channel; /* owned */
    char *peer;         /* owned */
    BfCancel cancel;    /* ends the wait for authorization */
    BfTimer timer;
    bool has_timed_out;
} Handshake;

static bool
check_creds(const BfChardevConfig *config, const BfTlsCreds *creds,
            GError **error)
{
    if (!bf_tls_creds_check_endpoint(creds,
                                     config->server ? BF_TLS_ENDPOINT_SERVER
                                                    : BF_TLS_ENDPOINT_CLIENT,
                                     error)) {
        return false;
    }
    if (config->tls_authz != NULL &&
        !bf_tls_creds_check_identity(creds, error)) {
        g_prefix_error(error,
                       "tls-authz '%s' does not go with tls-creds '%s': ",
                       config->tls_authz, config->tls_creds);
        return false;
    }
    return true;
}

BfChardevTls *
bf_chardev_tls_new(BfObjects *objects, const BfChardevConfig *config,
                   BfChardevFn *done, BfFn *left, void *opaque, GError **error)
{
    const BfTlsCreds *creds =
        bf_objects_find_tls_creds(objects, config->tls_creds, error);
    BfChardevTls *tls = NULL;

    if (creds == NULL || !check_creds(config, creds, error)) {
        return NULL;
    }
    tls = g_new0(BfChardevTls, 1);
    tls->objects = objects;
    tls->user = g_strdup_printf("chardev '%s'", config->id);
    tls->creds_id = g_strdup(config->tls_creds);
    tls->creds =
        bf_objects_take_tls_creds(objects, tls->creds_id, tls->user, NULL);
    tls->authz_id = g_strdup(config->tls_authz);
    tls->lane = bf_pool_lane_new("chardev-authz", 2);
    tls->done = done;
    tls->left = left;
    tls->opaque = opaque;
    g_queue_init(&tls->handshakes);
    return tls;
}

void
bf_chardev_tls_release(BfChardevTls *tls)
{
    if (tls->objects != NULL) {
        bf_objects_release_tls_creds(tls->objects, tls->creds_id, tls->user);
        tls->objects = NULL;
    }
}

static void
end_handshake(Handshake *handshake)
{
    bf_channel_shutdown(handshake->channel);
    bf_cancel_fire(&handshake->cancel);
}

void
bf_chardev_tls_close(BfChardevTls *tls)
{
    tls->is_closing = true;
    for (GList *link = tls->handshakes.head; link != NULL; link = link->next) {
        end_handshake(link->data);
    }
}

void
bf_chardev_tls_co_free(BfChardevTls *tls)
{
    if (tls == NULL) {
        return;
    }
    bf_chardev_tls_close(tls);
    bf_wait_group_co_wait(&tls->group);
    bf_timer_stop(&tls->failures_timer);
    bf_chardev_tls_release(tls);
    bf_tls_creds_unref(tls->creds);
    bf_pool_lane_free(tls->lane);
    g_free(tls->user);
    g_free(tls->creds_id);
    g_free(tls->authz_id);
    g_free(tls);
}

/* --- who may connect --- */

/* Asks once. Sets *ret_settled to whether the rules are still the same. */
static bool
co_ask(Handshake *handshake, const char *identity, bool *ret_settled,
       GError **error)
{
    BfChardevTls *tls = handshake->tls;
    BfAuthz *authz = NULL;
    uint64_t generation = 0;
    bool allowed = false;

    *ret_settled = true;
    if (tls->objects == NULL) {
        bf_set_error(error, "the daemon is ending");
        return false;
    }
    generation = bf_objects_authz_generation(tls->objects);
    authz = bf_objects_find_authz(tls->objects, tls->authz_id, error);
    if (authz == NULL) {
        return false;
    }
    /* PAM may hang; the limit of the handshake ends the wait. */
    allowed = bf_authz_co_ask(authz, identity, tls->lane, BF_FOREVER,
                              &handshake->cancel, error);
    *ret_settled = tls->objects != NULL &&
                   generation == bf_objects_authz_generation(tls->objects);
    return allowed;
}

static bool
co_admit(Handshake *handshake, GError **error)
{
    const BfChardevTls *tls = handshake->tls;
    BfChannel *channel = handshake->channel;
    const char *identity = bf_channel_tls_get_identity(channel);
    const char *label = bf_channel_tls_get_label(channel);
    g_autoptr(GError) reason = NULL;
    bool settled = false;
    bool allowed = false;

    if (tls->authz_id == NULL) {
        return true;
    }
    if (identity == NULL) {
        bf_set_error(&reason, "it has proved no name");
        settled = true;
    }
    for (unsigned i = 0; !settled && i < TRIES_MAX; i++) {
        g_clear_error(&reason);
        allowed = co_ask(handshake, identity, &settled, &reason);
    }
    if (settled && allowed) {
        return true;
    }
    bf_set_error(error, "tls-authz '%s' does not allow '%s': %s", tls->authz_id,
                 label != NULL ? label : "(no name)",
                 reason != NULL ? reason->message
                                : "its rules were being changed");
    bf_channel_tls_co_deny(channel);
    return false;
}

/* --- handshakes --- */

static void
took_too_long(void *arg)
{
    Handshake *handshake = arg;

    handshake->has_timed_out = true;
    end_handshake(handshake);
}

/* So that it can be ended, and is waited for. */
static void
enlist(Handshake *handshake)
{
    bf_wait_group_add(&handshake->tls->group, 1);
    g_queue_push_tail(&handshake->tls->handshakes, handshake);
}

static bool
co_try_secure(Handshake *handshake, const char *hostname, GError **error)
{
    BfChardevTls *tls = handshake->tls;

    if (!tls->is_closing) {
        /* The channel below stays set meanwhile, so that it can be shut down.
         */
        handshake->channel = bf_channel_tls_co_new(handshake->channel,
                                                   tls->creds, hostname, error);
        if (handshake->channel == NULL || !co_admit(handshake, error)) {
            return false;
        }
    }
    if (tls->is_closing) {
        bf_set_error(error, "the character device is being removed");
        return false;
    }
    return true;
}

/*
 * Does the handshake on the channel of @handshake, which becomes the secured
 * one, and NULL on failure.
 */
static bool
co_secure(Handshake *handshake, const char *hostname, GError **error)
{
    bool ok = false;

    bf_timer_start(&handshake->timer, HANDSHAKE_MAX_NS, took_too_long,
                   handshake);
    ok = co_try_secure(handshake, hostname, error);
    bf_timer_stop(&handshake->timer);
    g_queue_remove(&handshake->tls->handshakes, handshake);
    if (!ok) {
        g_clear_pointer(&handshake->channel, bf_channel_free);
        if (handshake->has_timed_out) {
            g_prefix_error(error, "it took more than %d s: ",
                           (int)(HANDSHAKE_MAX_NS / BF_NS_PER_SEC));
        }
    }
    return ok;
}

static void
failures_counted(void *arg)
{
    BfChardevTls *tls = arg;

    if (tls->failures > FAILURES_LOGGED_MAX) {
        g_message("%s: %u more connections failed", tls->user,
                  tls->failures - FAILURES_LOGGED_MAX);
    }
    tls->failures = 0;
}

static void
log_failure(BfChardevTls *tls, const char *peer, const char *text)
{
    if (tls->failures++ == 0) {
        bf_timer_start(&tls->failures_timer, BF_NS_PER_SEC, failures_counted,
                       tls);
    }
    if (tls->failures <= FAILURES_LOGGED_MAX) {
        g_message("%s: connection from %s refused: %s", tls->user, peer, text);
    }
}

static void
handshake_free(Handshake *handshake)
{
    g_free(handshake->peer);
    g_free(handshake);
}

static void
accept_co_run(void *arg)
{
    Handshake *handshake = arg;
    BfChardevTls *tls = handshake->tls;
    g_autoptr(GError) error = NULL;

    if (co_secure(handshake, NULL, &error)) {
        g_autofree char *how = bf_channel_tls_describe(handshake->channel);
        g_autofree char *who = g_strdup_printf("%s, %s", handshake->peer, how);

        tls->done(tls->opaque, handshake->channel, who);
    } else if (!tls->is_closing) {
        log_failure(tls, handshake->peer, error->message);
    }
    handshake_free(handshake);
    tls->left(tls->opaque);
    bf_wait_group_done(&tls->group);
}

bool
bf_chardev_tls_is_full(const BfChardevTls *tls)
{
    return tls->handshakes.length >= HANDSHAKES_FULL;
}

void
bf_chardev_tls_start(BfChardevTls *tls, BfChannel *channel, const char *peer)
{
    Handshake *handshake = NULL;

    if (tls->is_closing) {
        bf_channel_free(channel);
        return;
    }
    if (tls->handshakes.length >= HANDSHAKES_MAX) {
        Handshake *oldest = g_queue_peek_nth(
            &tls->handshakes, tls->handshakes.length - HANDSHAKES_MAX);

        end_handshake(oldest);
    }
    handshake = g_new0(Handshake, 1);
    handshake->tls = tls;
    handshake->channel = channel;
    handshake->peer = g_strdup(peer);
    enlist(handshake);
    bf_co_spawn_later(accept_co_run, handshake);
}

BfChannel *
bf_chardev_tls_co_connect(BfChardevTls *tls, BfChannel *channel,
                          const char *hostname, GError **error)
{
    Handshake handshake = {.tls = tls, .channel = channel};
    bool ok = false;

    enlist(&handshake);
    ok = co_secure(&handshake, hostname, error);
    bf_wait_group_done(&tls->group);
    return ok ? handshake.channel : NULL;
}
