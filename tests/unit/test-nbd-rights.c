/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rules about NBD clients that do not answer, over TLS with pre-shared keys.
 * PAM is replaced by functions that hang for as long as a test wants.
 */
#include <stdio.h>

#include <glib/gstdio.h>

#include "core/error.h"
#include "core/util.h"
#include "harness.h"
#include "io/address.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "nbd-peer.h"
#include "server/nbd/nbd-private.h"

#if BF_HAVE_PAM

#include <pthread.h>
#include <security/pam_appl.h>

/* Two questions are asked of these at the same time. */
static pthread_mutex_t pam_lock = PTHREAD_MUTEX_INITIALIZER; /* guards all */
static pthread_cond_t pam_go = PTHREAD_COND_INITIALIZER;
static bool pam_hangs;
static unsigned pam_asked;
static unsigned pam_answered;

int
pam_start_confdir(const char *service, const char *user,
                  const struct pam_conv *conversation, const char *dir,
                  pam_handle_t **ret_handle)
{
    *ret_handle = (pam_handle_t *)&pam_go; /* never looked into, nor NULL */
    return PAM_SUCCESS;
}

int
pam_acct_mgmt(pam_handle_t *handle, int flags)
{
    pthread_mutex_lock(&pam_lock);
    pam_asked++;
    while (pam_hangs) {
        pthread_cond_wait(&pam_go, &pam_lock);
    }
    pam_answered++;
    pthread_mutex_unlock(&pam_lock);
    return PAM_SUCCESS;
}

int
pam_end(pam_handle_t *handle, int status)
{
    return PAM_SUCCESS;
}

const char *
pam_strerror(pam_handle_t *handle, int status)
{
    return "";
}

static void
set_hanging(bool hangs)
{
    pthread_mutex_lock(&pam_lock);
    pam_hangs = hangs;
    pthread_cond_broadcast(&pam_go);
    pthread_mutex_unlock(&pam_lock);
}

static unsigned
read_count(const unsigned *count)
{
    unsigned value;

    pthread_mutex_lock(&pam_lock);
    value = *count;
    pthread_mutex_unlock(&pam_lock);
    return value;
}

/* A server over TLS with the exports "open", and "guarded" by PAM. */
typedef struct Guarded {
    BfNbdFixture fix;
    BfUnixSocketAddress unix_address;
    BfSocketAddress address;
    BfTlsCreds *server_creds;
    BfTlsCreds *client_creds;
} Guarded;

static BfTlsCreds *
new_creds(const char *dir, BfTlsEndpoint endpoint)
{
    const BfTlsCredsParams params = {
        .kind = BF_TLS_CREDS_PSK,
        .endpoint = endpoint,
        .dir = dir,
        .username = endpoint == BF_TLS_ENDPOINT_CLIENT ? "alice" : NULL,
    };
    g_autoptr(GError) error = NULL;
    BfTlsCreds *creds = bf_tls_creds_new(&params, &error);

    g_assert_no_error(error);
    return creds;
}

static void
make_creds(Guarded *guarded)
{
    g_autofree char *dir = bf_test_temp_path();
    g_autofree char *keys = g_build_filename(dir, "keys.psk", NULL);

    g_assert_cmpint(g_mkdir(dir, 0700), ==, 0);
    g_assert_true(g_file_set_contents(
        keys, "alice:00112233445566778899aabbccddeeff\n", -1, NULL));
    guarded->server_creds = new_creds(dir, BF_TLS_ENDPOINT_SERVER);
    guarded->client_creds = new_creds(dir, BF_TLS_ENDPOINT_CLIENT);
}

static void
co_add_pam(BfObjects *objects)
{
    BfAuthZPAMProperties pam = {.service = (char *)"ferry"};
    const BfObjectOptions options = {
        .qom_type = BF_OBJECT_TYPE_AUTHZ_PAM,
        .id = (char *)"pam0",
        .u.authz_pam = &pam,
    };
    g_autoptr(GError) error = NULL;

    bf_objects_co_add(objects, &options, &error);
    g_assert_no_error(error);
}

static void
co_export_guarded(BfNbdFixture *fix)
{
    BfBlockExportOptionsNbd nbd = {
        .name = (char *)"guarded",
        .tls_authz = (char *)"pam0",
    };
    const BfBlockExportOptions options = {
        .type = BF_BLOCK_EXPORT_TYPE_NBD,
        .id = (char *)"guarded",
        .node_name = (char *)"n0",
        .u.nbd = &nbd,
    };
    g_autoptr(GError) error = NULL;

    bf_nbd_export_co_add(&fix->server, fix->table, fix->graph, &options, NULL,
                         NULL, &error);
    g_assert_no_error(error);
}

static void
open_guarded(Guarded *guarded, bool server_too)
{
    BfNbdFixture *fix = &guarded->fix;
    g_autoptr(GError) error = NULL;

    *guarded = (Guarded){.unix_address.path = bf_test_temp_path()};
    guarded->address.type = BF_SOCKET_ADDRESS_TYPE_UNIX;
    guarded->address.u.unix_ = &guarded->unix_address;
    make_creds(guarded);
    fix->config.objects = bf_objects_new(bf_loop_self());
    co_add_pam(fix->config.objects);
    bf_nbd_fixture_co_open(fix);
    bf_nbd_fixture_co_add_null(fix, "n0");
    bf_nbd_server_co_stop(g_steal_pointer(&fix->server));
    fix->config.first.address = &guarded->address;
    fix->config.first.tls_creds = guarded->server_creds;
    fix->config.first.tls_authz = server_too ? "pam0" : NULL;
    fix->server = bf_nbd_server_co_start(&fix->config, &error);
    g_assert_no_error(error);
    bf_nbd_fixture_co_export(fix, "open", "n0", false);
    co_export_guarded(fix);
}

static void
close_guarded(Guarded *guarded)
{
    bf_nbd_fixture_co_close(&guarded->fix);
    bf_objects_co_free(guarded->fix.config.objects);
    bf_tls_creds_unref(guarded->server_creds);
    bf_tls_creds_unref(guarded->client_creds);
    g_free(guarded->unix_address.path);
}

static BfChannel *
co_secured(Guarded *guarded)
{
    BfChannel *peer = bf_nbd_peer_co_greet(&guarded->fix);
    g_autoptr(GError) error = NULL;

    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_STARTTLS, NULL, 0);
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_STARTTLS, BF_NBD_REPLY_ACK, "");
    peer = bf_channel_tls_co_new(peer, guarded->client_creds, NULL, &error);
    g_assert_no_error(error);
    return peer;
}

/* What GO for an export is answered with. */
static uint32_t
co_choose(BfChannel *peer, const char *name)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();
    uint32_t type = BF_NBD_REPLY_INFO;

    bf_nbd_peer_co_send_go(peer, BF_NBD_OPTION_GO, name);
    while (type == BF_NBD_REPLY_INFO) {
        type = bf_nbd_peer_co_reply(peer, BF_NBD_OPTION_GO, payload);
    }
    return type;
}

/* Lets the threads that hang go, and waits for them. */
static void
release_all(void)
{
    set_hanging(false);
    while (read_count(&pam_answered) != read_count(&pam_asked)) {
        bf_co_yield();
    }
}

static void
test_rules_that_do_not_answer_deny(void *arg)
{
    Guarded guarded;
    BfChannel *peer = NULL;

    set_hanging(true);
    open_guarded(&guarded, false);
    guarded.fix.server->authz_max_ns = 10 * BF_NS_PER_MS;
    peer = co_secured(&guarded);
    g_assert_cmphex(co_choose(peer, "guarded"), ==, BF_NBD_REPLY_ERR_UNKNOWN);
    while (read_count(&pam_asked) == 0) {
        bf_co_yield(); /* a busy machine has not started the thread by then */
    }
    g_assert_cmphex(co_choose(peer, "open"), ==, BF_NBD_REPLY_ACK);
    bf_channel_free(peer);
    release_all();

    /* The next one is asked for anew. */
    guarded.fix.server->authz_max_ns = 100 * BF_NS_PER_SEC;
    peer = co_secured(&guarded);
    g_assert_cmphex(co_choose(peer, "guarded"), ==, BF_NBD_REPLY_ACK);
    bf_channel_free(peer);
    close_guarded(&guarded);
}

/* The handshake of one who waits for rules does not keep the server up. */
static void
test_server_stops_while_rules_do_not_answer(void *arg)
{
    Guarded guarded;
    BfChannel *peer = NULL;
    unsigned before = read_count(&pam_asked);

    set_hanging(true);
    open_guarded(&guarded, true);
    guarded.fix.server->authz_max_ns = BF_FOREVER / 2;
    peer = co_secured(&guarded);
    while (read_count(&pam_asked) == before) {
        bf_co_yield();
    }
    close_guarded(&guarded);
    bf_channel_free(peer);
    release_all();
}

#endif

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
#if BF_HAVE_PAM
    bf_test_add("/serve/nbd/rights/rules-that-do-not-answer-deny",
                test_rules_that_do_not_answer_deny);
    bf_test_add("/serve/nbd/rights/server-stops-while-rules-do-not-answer",
                test_server_stops_while_rules_do_not_answer);
#endif
    return g_test_run();
}
