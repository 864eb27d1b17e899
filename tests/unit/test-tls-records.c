/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS records: two of our sessions in memory, and ours against a bare library
 * session where the peer must do what ours never does.
 */
#include "tls-pair.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/crypto/tls-private.h"

#define TLS12 "NORMAL:-VERS-ALL:+VERS-TLS1.2"
#define TLS13 "NORMAL:-VERS-ALL:+VERS-TLS1.3"
#define KIB ((size_t)1024)

static void
test_large_seal_is_one_output(void)
{
    g_auto(BfTestPair) pair = {0};
    g_autofree guint8 *data = bf_test_random_bytes(KIB * KIB);
    struct iovec iov[4];

    bf_test_pair_init_ready(&pair);
    g_assert_cmpint(bf_test_seal(pair.server, data, KIB * KIB, 2 * KIB * KIB),
                    ==, KIB * KIB);
    g_assert_cmpint(bf_tls_session_get_output(pair.server, iov, 4), ==, 1);
    g_assert_cmpint(iov[0].iov_len, >, KIB * KIB);
    g_assert_cmpint(iov[0].iov_len, ==,
                    bf_tls_session_output_bytes(pair.server));
}

static void
test_seal_stops_at_limit(void)
{
    g_auto(BfTestPair) pair = {0};
    g_autofree guint8 *data = bf_test_random_bytes(KIB * KIB);
    size_t limit = 256 * KIB;
    ssize_t n;

    bf_test_pair_init_ready(&pair);
    n = bf_test_seal(pair.server, data, KIB * KIB, limit);
    g_assert_cmpint(n, >, limit - 20 * KIB);
    g_assert_cmpint(bf_tls_session_output_bytes(pair.server), <=, limit);
    g_assert_cmpint(bf_test_seal(pair.server, data, KIB * KIB, limit), ==, 0);
    /* With nothing waiting there is progress under any limit. */
    bf_tls_session_output_consume(pair.server,
                                  bf_tls_session_output_bytes(pair.server));
    g_assert_cmpint(bf_test_seal(pair.server, data, KIB * KIB, 1), >, 0);
}

/* Up to 6 pieces of @data, short and long, each in memory of its own. */
static int
cut_pieces(const guint8 *data, size_t len, struct iovec *iov)
{
    int n = 0;

    while (n < 6 && len > 0) {
        size_t piece = g_test_rand_bit() ? g_test_rand_int_range(0, 60)
                                         : g_test_rand_int_range(0, 40000);

        piece = MIN(piece, len);
        iov[n++] = (struct iovec){g_memdup2(data, piece), piece};
        data += piece;
        len -= piece;
    }
    return n;
}

/* Opens into 3 buffers of random size, then joins them at @dest. */
static size_t
open_apart(BfTlsSession *session, guint8 *dest)
{
    struct iovec iov[3];
    size_t got;
    ssize_t n;

    for (int i = 0; i < 3; i++) {
        iov[i].iov_len = g_test_rand_int_range(1, 30000);
        iov[i].iov_base = g_malloc(iov[i].iov_len);
    }
    n = bf_tls_session_open(session, iov, 3, NULL);
    g_assert_true(n > 0 || n == BF_TLS_NEED_INPUT);
    got = MAX(n, 0);
    n = got;
    for (int i = 0; i < 3; i++) {
        size_t part = MIN((size_t)n, iov[i].iov_len);

        memcpy(dest, iov[i].iov_base, part);
        dest += part;
        n -= part;
        g_free(iov[i].iov_base);
    }
    return got;
}

/* Random pieces in, random rooms out, random limits and chunks. */
static void
test_random_pieces_arrive_in_order(void)
{
    enum { TOTAL = 600 * 1024 };
    g_auto(BfTestPair) pair = {0};
    g_autofree guint8 *data = bf_test_random_bytes(TOTAL);
    g_autofree guint8 *copy = g_malloc0(TOTAL + 90000);
    size_t sent = 0;
    size_t got = 0;

    bf_test_pair_init_ready(&pair);
    while (got < TOTAL) {
        struct iovec iov[6];
        int niov = cut_pieces(data + sent, TOTAL - sent, iov);
        ssize_t n = bf_tls_session_seal(pair.client, iov, niov,
                                        g_test_rand_int_range(1, 200000), NULL);

        g_assert_cmpint(n, >=, 0);
        sent += n;
        for (int i = 0; i < niov; i++) {
            g_free(iov[i].iov_base);
        }
        bf_test_move(pair.client, pair.server, g_test_rand_int_range(1, 50000));
        got += open_apart(pair.server, copy + got);
    }
    g_assert_cmpint(got, ==, TOTAL);
    g_assert_cmpmem(copy, TOTAL, data, TOTAL);
}

static void
test_short_pieces_share_a_record(void)
{
    g_auto(BfTestPair) pair = {0};
    struct iovec iov[64];
    guint8 piece[64] = {0};

    bf_test_pair_init_ready(&pair);
    for (int i = 0; i < 64; i++) {
        iov[i] = (struct iovec){piece, sizeof(piece)};
    }
    g_assert_cmpint(bf_tls_session_seal(pair.server, iov, 64, 64 * KIB, NULL),
                    ==, 4096);
    g_assert_cmpint(bf_tls_session_output_bytes(pair.server), <, 4096 + 64);
}

/* Copies some of @data to where it is encrypted. Returns how much. */
static size_t
fill_space(BfTlsSession *session, const guint8 *data, size_t len)
{
    struct iovec iov[7];
    size_t room = 0;
    size_t done = 0;
    int niov = bf_tls_session_seal_space(
        session, len, iov, g_test_rand_int_range(1, 8), &room, NULL);

    g_assert_cmpint(niov, >, 0);
    for (int i = 0; i < niov; i++) {
        memcpy(iov[i].iov_base, data + done, iov[i].iov_len);
        done += iov[i].iov_len;
    }
    g_assert_cmpuint(done, ==, room);
    g_assert_cmpuint(done, <=, len);
    if (g_test_rand_bit()) {
        done = g_test_rand_int_range(0, done + 1);
    }
    g_assert_true(bf_tls_session_seal_filled(session, done, NULL));
    return done;
}

/* Also with what is sealed from elsewhere in between, and with changed keys. */
static void
test_filled_space_arrives_in_order(void)
{
    g_auto(BfTestPair) pair = {0};
    const size_t len = 2 * KIB * KIB;
    g_autofree guint8 *data = bf_test_random_bytes(len);
    g_autofree guint8 *copy = g_malloc(len);
    size_t sent = 0;
    size_t got = 0;

    bf_test_pair_init_ready(&pair);
    g_assert_cmpint(bf_tls_session_has_seal_space(pair.server), ==,
                    strcmp(bf_tls_session_get_records(pair.server), "own") ==
                        0);
    if (!bf_tls_session_has_seal_space(pair.server)) {
        return;
    }
    pair.server->rekey.after = 50;
    while (sent < len) {
        size_t max = MIN(len - sent, 150 * KIB);

        sent += g_test_rand_int_range(0, 4)
                    ? fill_space(pair.server, data + sent, max)
                    : (size_t)bf_test_seal(pair.server, data + sent,
                                           MIN(max, 99), KIB * KIB);
        while (got < sent) {
            /* A piece of the output may be a key update and nothing else. */
            size_t moved = bf_test_move(pair.server, pair.client, 0);
            ssize_t n = bf_test_open(pair.client, copy + got, len - got, NULL);

            g_assert_cmpuint(moved, >, 0);
            g_assert_true(n > 0 || n == BF_TLS_NEED_INPUT);
            got += MAX(n, 0);
        }
    }
    g_assert_true(memcmp(copy, data, len) == 0);
}

/* The room that is offered ends where the key has to change. */
static void
test_space_ends_with_the_key(void)
{
    g_auto(BfTestPair) pair = {0};
    struct iovec iov[9];
    size_t room = 0;

    bf_test_pair_init_ready(&pair);
    if (!bf_tls_session_has_seal_space(pair.client)) {
        return;
    }
    pair.client->rekey.after = 5;
    g_assert_cmpint(bf_test_seal(pair.client, "x", 1, 4096), ==, 1);
    g_assert_cmpint(
        bf_tls_session_seal_space(pair.client, 300 * KIB, iov, 9, &room, NULL),
        ==, 4);
    g_assert_cmpuint(room, ==, 64 * KIB);
    for (int i = 0; i < 4; i++) {
        g_assert_cmpuint(iov[i].iov_len, ==, 16 * KIB);
        memset(iov[i].iov_base, i, iov[i].iov_len);
    }
    g_assert_true(bf_tls_session_seal_filled(pair.client, 50 * KIB, NULL));
    g_assert_cmpint(pair.client->rekey.sent, ==, 0);
    g_assert_cmpint(
        bf_tls_session_seal_space(pair.client, 7, iov, 9, &room, NULL), ==, 1);
    g_assert_cmpuint(room, ==, 7);
    g_assert_true(bf_tls_session_seal_filled(pair.client, 0, NULL));
    g_assert_cmpint(pair.client->rekey.sent, ==, 1);
}

static void
test_empty_seal_takes_nothing(void)
{
    g_auto(BfTestPair) pair = {0};
    struct iovec iov[2] = {{NULL, 0}, {NULL, 0}};

    bf_test_pair_init_ready(&pair);
    g_assert_cmpint(bf_tls_session_seal(pair.server, iov, 2, 4096, NULL), ==,
                    0);
    g_assert_cmpint(bf_tls_session_seal(pair.server, iov, 0, 4096, NULL), ==,
                    0);
    g_assert_false(bf_tls_session_wants_output(pair.server));
}

static void
test_bye_is_an_end(void)
{
    g_auto(BfTestPair) pair = {0};
    char buf[16];

    bf_test_pair_init_ready(&pair);
    bf_test_seal(pair.client, "last", 4, 4096);
    bf_tls_session_bye(pair.client);
    bf_tls_session_bye(pair.client);
    bf_test_move(pair.client, pair.server, 0);
    g_assert_cmpint(bf_test_open(pair.server, buf, 16, NULL), ==, 4);
    g_assert_cmpint(bf_test_open(pair.server, buf, 16, NULL), ==, 0);
    g_assert_cmpint(bf_test_open(pair.server, buf, 16, NULL), ==, 0);
    /* The other direction is still open. */
    bf_test_check_transfer(pair.server, pair.client, 1000, 4096, 0);
}

static void
test_end_without_bye_is_truncation(void)
{
    g_auto(BfTestPair) pair = {0};
    g_autoptr(GError) error = NULL;
    char buf[16];

    bf_test_pair_init_ready(&pair);
    bf_test_seal(pair.client, "last", 4, 4096);
    bf_test_move(pair.client, pair.server, 0);
    bf_tls_session_input_eof(pair.server);
    g_assert_cmpint(bf_test_open(pair.server, buf, 16, &error), ==, 4);
    g_assert_cmpint(bf_test_open(pair.server, buf, 16, &error), ==,
                    BF_TLS_TRUNCATED);
    bf_test_assert_message(error, "without a close message");
    g_assert_cmpint(bf_test_open(pair.server, buf, 16, NULL), ==,
                    BF_TLS_FAILED);
    g_assert_cmpint(bf_test_seal(pair.server, "x", 1, 4096), ==, BF_TLS_FAILED);
}

static void
test_end_inside_record_is_truncation(void)
{
    g_auto(BfTestPair) pair = {0};
    g_autoptr(GError) error = NULL;
    char buf[16];

    bf_test_pair_init_ready(&pair);
    bf_test_seal(pair.client, "last", 4, 4096);
    bf_test_move(pair.client, pair.server, 10);
    g_assert_cmpint(bf_test_open(pair.server, buf, 16, &error), ==,
                    BF_TLS_NEED_INPUT);
    bf_tls_session_input_eof(pair.server);
    g_assert_cmpint(bf_test_open(pair.server, buf, 16, &error), ==,
                    BF_TLS_TRUNCATED);
}

/* A record of ours with one bit flipped at @at, opened by the server. */
static ssize_t
open_tampered(BfTlsCreds *server, size_t at, GError **error)
{
    g_auto(BfTestPair) pair = {0};
    struct iovec iov;
    char buf[16];
    ssize_t n;

    bf_test_pair_init(&pair, server, bf_test_tls.client_creds,
                      "server1.example");
    bf_test_pair_establish(&pair);
    bf_test_seal(pair.client, "last", 4, 4096);
    bf_tls_session_get_output(pair.client, &iov, 1);
    g_assert_cmpint(at, <, iov.iov_len);
    ((guint8 *)iov.iov_base)[at] ^= 1;
    bf_test_move(pair.client, pair.server, 0);
    bf_tls_session_input_eof(pair.server);
    n = bf_test_open(pair.server, buf, 16, error);
    g_assert_true(n == BF_TLS_TRUNCATED ||
                  bf_tls_session_wants_output(pair.server));
    return n;
}

static void
test_tampered_record_is_refused(void)
{
    static const char *const priorities[] = {TLS12, TLS13};

    for (size_t i = 0; i < G_N_ELEMENTS(priorities); i++) {
        g_autoptr(BfTlsCreds) server = bf_test_load_server(priorities[i]);

        /* The library does not look at what TLS 1.3 calls legacy: 0 to 2. */
        for (size_t at = 3; at < 26; at++) {
            g_autoptr(GError) error = NULL;
            ssize_t n = open_tampered(server, at, &error);

            if (at >= 5) {
                g_assert_cmpint(n, ==, BF_TLS_FAILED);
                bf_test_assert_message(error, "tampered with");
            }
            g_assert_cmpint(n, <, 0);
        }
    }
}

static void
test_data_before_damage_is_delivered(void)
{
    g_auto(BfTestPair) pair = {0};
    g_autoptr(GError) error = NULL;
    struct iovec iov;
    char buf[16];

    bf_test_pair_init_ready(&pair);
    bf_test_seal(pair.client, "good", 4, 4096);
    bf_test_seal(pair.client, "bad", 3, 4096);
    bf_tls_session_get_output(pair.client, &iov, 1);
    ((guint8 *)iov.iov_base)[iov.iov_len - 1] ^= 1;
    bf_test_move(pair.client, pair.server, 0);
    g_assert_cmpint(bf_test_open(pair.server, buf, 16, &error), ==, 4);
    g_assert_no_error(error);
    g_assert_cmpint(bf_test_open(pair.server, buf, 16, &error), ==,
                    BF_TLS_FAILED);
    bf_test_assert_message(error, "tampered with");
}

static void
test_deny_tells_the_peer(void)
{
    g_auto(BfTestPair) pair = {0};
    g_autoptr(GError) error = NULL;
    char buf[16];

    bf_test_pair_init_ready(&pair);
    bf_tls_session_deny(pair.server);
    g_assert_true(bf_tls_session_wants_output(pair.server));
    bf_test_move(pair.server, pair.client, 0);
    g_assert_cmpint(bf_test_open(pair.client, buf, 16, &error), ==,
                    BF_TLS_FAILED);
    bf_test_assert_message(error, "Access was denied");
    g_assert_cmpint(bf_test_seal(pair.server, "x", 1, 100), ==, BF_TLS_FAILED);
}

/* A bare library session as the peer, for what ours never does. */
typedef struct Bare {
    gnutls_session_t tls;
    gnutls_certificate_credentials_t creds;
    BfTlsSession *peer;
    bool is_client;
} Bare;

static ssize_t
bare_pull(gnutls_transport_ptr_t ptr, void *buf, size_t len)
{
    Bare *bare = ptr;
    struct iovec iov;
    size_t n;

    if (bf_tls_session_get_output(bare->peer, &iov, 1) == 0) {
        gnutls_transport_set_errno(bare->tls, EAGAIN);
        return -1;
    }
    n = MIN(len, iov.iov_len);
    memcpy(buf, iov.iov_base, n);
    bf_tls_session_output_consume(bare->peer, n);
    return n;
}

static ssize_t
bare_push(gnutls_transport_ptr_t ptr, const void *buf, size_t len)
{
    Bare *bare = ptr;

    return bf_tls_session_feed(bare->peer, buf, len);
}

static void
bare_init(Bare *bare, BfTlsSession *peer, unsigned int flags,
          const char *priority, const BfTestCert *cert)
{
    gnutls_x509_crt_t chain[] = {cert->crt};

    bare->peer = peer;
    bare->is_client = (flags & GNUTLS_CLIENT) != 0;
    g_assert_cmpint(gnutls_certificate_allocate_credentials(&bare->creds), ==,
                    0);
    g_assert_cmpint(
        gnutls_certificate_set_x509_key(bare->creds, chain, 1, cert->key), ==,
        0);
    g_assert_cmpint(gnutls_init(&bare->tls, flags | GNUTLS_NONBLOCK), ==, 0);
    g_assert_cmpint(gnutls_priority_set_direct(bare->tls, priority, NULL), ==,
                    0);
    gnutls_credentials_set(bare->tls, GNUTLS_CRD_CERTIFICATE, bare->creds);
    gnutls_transport_set_ptr(bare->tls, bare);
    gnutls_transport_set_pull_function(bare->tls, bare_pull);
    gnutls_transport_set_push_function(bare->tls, bare_push);
}

static void
bare_clear(Bare *bare)
{
    gnutls_deinit(bare->tls);
    gnutls_certificate_free_credentials(bare->creds);
    bf_tls_session_free(bare->peer);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Bare, bare_clear)

static void
bare_establish(Bare *bare)
{
    BfTlsStatus status = BF_TLS_NEED_INPUT;
    int ret = GNUTLS_E_AGAIN;

    while (status == BF_TLS_NEED_INPUT || ret == GNUTLS_E_AGAIN) {
        if (ret == GNUTLS_E_AGAIN) {
            ret = gnutls_handshake(bare->tls);
        }
        bf_test_step(bare->peer, &status, NULL);
    }
    g_assert_cmpint(ret, ==, 0);
    g_assert_cmpint(status, ==, BF_TLS_DONE);
    g_assert_true(bf_tls_session_verify(bare->peer, NULL));
    bf_test_check_records(bare->peer, bare->is_client
                                          ? bf_test_tls.server_records
                                          : bf_test_tls.client_records);
}

static void
bare_init_client(Bare *bare, const char *priority)
{
    bare_init(bare, bf_test_new_session(bf_test_tls.server_creds, NULL),
              GNUTLS_CLIENT, priority, bf_test_tls.client);
    bare_establish(bare);
}

static void
bare_init_server(Bare *bare, const char *priority)
{
    bare_init(bare,
              bf_test_new_session(bf_test_tls.client_creds, "server1.example"),
              GNUTLS_SERVER, priority, bf_test_tls.server);
    bare_establish(bare);
}

static void
test_renegotiation_is_refused(void)
{
    g_auto(Bare) bare = {0};
    g_autoptr(GError) error = NULL;
    char buf[16];

    bare_init_client(&bare, TLS12);
    g_assert_cmpint(gnutls_handshake(bare.tls), ==, GNUTLS_E_AGAIN);
    g_assert_cmpint(bf_test_open(bare.peer, buf, 16, &error), ==,
                    BF_TLS_FAILED);
    bf_test_assert_message(error, "asked for a new handshake");
    g_assert_true(bf_tls_session_wants_output(bare.peer));
}

static void
test_hello_request_is_refused(void)
{
    g_auto(Bare) bare = {0};
    g_autoptr(GError) error = NULL;
    char buf[16];

    bare_init_server(&bare, TLS12);
    g_assert_cmpint(gnutls_rehandshake(bare.tls), ==, 0);
    g_assert_cmpint(bf_test_open(bare.peer, buf, 16, &error), ==,
                    BF_TLS_FAILED);
    bf_test_assert_message(error, "asked for a new handshake");
}

/* As our sessions do: messages that are not data do not end a call. */
static ssize_t
bare_recv(Bare *bare, void *buf, size_t len)
{
    ssize_t n;

    do {
        n = gnutls_record_recv(bare->tls, buf, len);
    } while (n == GNUTLS_E_AGAIN && bf_tls_session_wants_output(bare->peer));
    return n;
}

static void
check_key_updates(Bare *bare)
{
    char buf[16];

    for (int i = 0; i < 6; i++) {
        g_assert_cmpint(
            gnutls_session_key_update(bare->tls, i % 3 ? GNUTLS_KU_PEER : 0),
            ==, 0);
        g_assert_cmpint(bf_test_open(bare->peer, buf, 16, NULL), ==,
                        BF_TLS_NEED_INPUT);
        g_assert_cmpint(gnutls_record_send(bare->tls, "ping", 4), ==, 4);
        g_assert_cmpint(bf_test_open(bare->peer, buf, 16, NULL), ==, 4);
        g_assert_cmpint(bf_test_seal(bare->peer, "pong!", 5, 4096), ==, 5);
        g_assert_cmpint(bare_recv(bare, buf, 16), ==, 5);
        g_assert_cmpmem(buf, 5, "pong!", 5);
    }
}

static void
test_key_updates_are_followed(void)
{
    static const char *const priorities[] = {TLS13,
                                             TLS13 ":-CIPHER-ALL:+AES-256-GCM"};

    for (size_t i = 0; i < G_N_ELEMENTS(priorities); i++) {
        g_auto(Bare) client = {0};
        g_auto(Bare) server = {0};

        bare_init_client(&client, priorities[i]);
        check_key_updates(&client);
        bare_init_server(&server, priorities[i]);
        check_key_updates(&server);
    }
}

static void
test_key_update_flood_ends_session(void)
{
    g_auto(Bare) bare = {0};
    g_autoptr(GError) error = NULL;
    char buf[16];

    bare_init_client(&bare, TLS13);
    for (int i = 0; i < 100; i++) {
        gnutls_session_key_update(bare.tls, 0);
    }
    g_assert_cmpint(bf_test_open(bare.peer, buf, 16, &error), ==,
                    BF_TLS_FAILED);
    g_test_message("%s", error->message);
}

/* A ticket lies in front of the data; reading must not stop at it. */
static void
test_tickets_are_skipped(void)
{
    g_auto(Bare) bare = {0};
    gnutls_datum_t key;
    BfTlsStatus status = BF_TLS_NEED_INPUT;
    int ret = GNUTLS_E_AGAIN;
    char buf[16];

    bare_init(&bare,
              bf_test_new_session(bf_test_tls.client_creds, "server1.example"),
              GNUTLS_SERVER, TLS13, bf_test_tls.server);
    g_assert_cmpint(gnutls_session_ticket_key_generate(&key), ==, 0);
    g_assert_cmpint(gnutls_session_ticket_enable_server(bare.tls, &key), ==, 0);
    while (status == BF_TLS_NEED_INPUT || ret == GNUTLS_E_AGAIN) {
        bf_test_step(bare.peer, &status, NULL);
        if (ret == GNUTLS_E_AGAIN) {
            ret = gnutls_handshake(bare.tls);
        }
    }
    g_assert_cmpint(ret, ==, 0);
    g_assert_true(bf_tls_session_verify(bare.peer, NULL));
    g_assert_cmpint(gnutls_session_ticket_send(bare.tls, 1, 0), ==, 0);
    g_assert_cmpint(gnutls_record_send(bare.tls, "data", 4), ==, 4);
    g_assert_cmpint(bf_test_open(bare.peer, buf, 16, NULL), ==, 4);
    g_assert_cmpint(gnutls_session_ticket_send(bare.tls, 1, 0), ==, 0);
    bf_tls_session_input_eof(bare.peer);
    g_assert_cmpint(bf_test_open(bare.peer, buf, 16, NULL), ==,
                    BF_TLS_TRUNCATED);
    gnutls_free(key.data);
}

static void
check_small_records(size_t max)
{
    g_auto(Bare) bare = {0};
    g_autofree guint8 *data = bf_test_random_bytes(5000);
    g_autofree guint8 *copy = g_malloc(5000);
    size_t got = 0;

    bare_init(&bare, bf_test_new_session(bf_test_tls.server_creds, NULL),
              GNUTLS_CLIENT, TLS13 ":%ALLOW_SMALL_RECORDS", bf_test_tls.client);
    g_assert_cmpint(gnutls_record_set_max_recv_size(bare.tls, max), ==, 0);
    bare_establish(&bare);
    g_assert_cmpint(bf_test_seal(bare.peer, data, 5000, 64 * KIB), ==, 5000);
    while (got < 5000) {
        ssize_t n = bare_recv(&bare, copy + got, 5000 - got);

        g_assert_true(n > 0 && (size_t)n <= max);
        got += n;
    }
    g_assert_cmpmem(copy, 5000, data, 5000);
}

static void
test_small_records_of_the_peer_are_honoured(void)
{
    check_small_records(600);
    check_small_records(64);
}

/* With TLS 1.3 the level means nothing. */
static void
test_announced_end_is_an_end(void)
{
    static const int ends[][2] = {{GNUTLS_AL_WARNING, GNUTLS_A_USER_CANCELED},
                                  {GNUTLS_AL_FATAL, GNUTLS_A_CLOSE_NOTIFY}};

    for (size_t i = 0; i < G_N_ELEMENTS(ends); i++) {
        g_auto(Bare) bare = {0};
        char buf[16];

        bare_init_client(&bare, TLS13);
        gnutls_record_send(bare.tls, "last", 4);
        gnutls_alert_send(bare.tls, ends[i][0], ends[i][1]);
        gnutls_bye(bare.tls, GNUTLS_SHUT_WR);
        g_assert_cmpint(bf_test_open(bare.peer, buf, 16, NULL), ==, 4);
        g_assert_cmpint(bf_test_open(bare.peer, buf, 16, NULL), ==, 0);
    }
}

static void
test_warning_flood_ends_session(void)
{
    g_auto(Bare) bare = {0};
    g_autoptr(GError) error = NULL;
    char buf[16];

    bare_init_client(&bare, TLS12);
    for (int i = 0; i < 100; i++) {
        gnutls_alert_send(bare.tls, GNUTLS_AL_WARNING, GNUTLS_A_USER_CANCELED);
    }
    g_assert_cmpint(bf_test_open(bare.peer, buf, 16, &error), ==,
                    BF_TLS_FAILED);
}

static double
cpu_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

/* Run with -m perf: how fast records are sealed and opened. */
static void
test_speed(void)
{
    enum { SIZE = 1024 * 1024, ROUNDS = 1000 };
    g_auto(BfTestPair) pair = {0};
    g_autofree guint8 *data = bf_test_random_bytes(SIZE);
    struct iovec iov[2];
    double seconds[2] = {0, 0};

    bf_test_pair_init_ready(&pair);
    for (int i = 0; i < ROUNDS; i++) {
        size_t sent = 0;

        while (sent < SIZE) {
            double start = cpu_seconds();
            ssize_t n =
                bf_test_seal(pair.server, data + sent, SIZE - sent, 256 * KIB);

            seconds[0] += cpu_seconds() - start;
            sent += n;
            while (bf_tls_session_get_output(pair.server, iov, 1) > 0) {
                bf_test_move(pair.server, pair.client, 0);
                start = cpu_seconds();
                bf_test_open(pair.client, data + sent - n, n, NULL);
                seconds[1] += cpu_seconds() - start;
            }
        }
    }
    g_test_maximized_result(ROUNDS / seconds[0], "seal %.0f MiB/s of CPU time",
                            ROUNDS / seconds[0]);
    g_test_maximized_result(ROUNDS / seconds[1], "open %.0f MiB/s of CPU time",
                            ROUNDS / seconds[1]);
}

/* The same for requests: 28 bytes, each in a record of its own. */
static void
test_speed_of_requests(void)
{
    enum { ROUNDS = 3000, BATCH = 32, SIZE = 28 };
    g_auto(BfTestPair) pair = {0};
    guint8 data[BATCH * SIZE] = {0};
    double seconds[2] = {0, 0};

    bf_test_pair_init_ready(&pair);
    for (int i = 0; i < ROUNDS; i++) {
        double start = cpu_seconds();

        for (int j = 0; j < BATCH; j++) {
            bf_test_seal(pair.client, data, SIZE, 64 * KIB);
        }
        seconds[0] += cpu_seconds() - start;
        bf_test_move(pair.client, pair.server, 0);
        start = cpu_seconds();
        g_assert_cmpint(bf_test_open(pair.server, data, sizeof(data), NULL), ==,
                        sizeof(data));
        seconds[1] += cpu_seconds() - start;
    }
    g_test_minimized_result(seconds[0] / ROUNDS / BATCH, "seal %.0f ns",
                            seconds[0] / ROUNDS / BATCH * 1e9);
    g_test_minimized_result(seconds[1] / ROUNDS / BATCH, "open %.0f ns",
                            seconds[1] / ROUNDS / BATCH * 1e9);
}

#define ADD(path, name)                                                        \
    bf_test_add_records("/crypto/tls-records/" path, test_##name)

static void
add_record_tests(void)
{
    ADD("seal/large-is-one-output", large_seal_is_one_output);
    ADD("seal/stops-at-limit", seal_stops_at_limit);
    ADD("seal/random-pieces-arrive-in-order", random_pieces_arrive_in_order);
    ADD("seal/short-pieces-share-a-record", short_pieces_share_a_record);
    ADD("seal/filled-space-arrives-in-order", filled_space_arrives_in_order);
    ADD("seal/space-ends-with-the-key", space_ends_with_the_key);
    ADD("seal/empty-takes-nothing", empty_seal_takes_nothing);
    ADD("seal/small-records-are-honoured",
        small_records_of_the_peer_are_honoured);
    ADD("open/bye-is-an-end", bye_is_an_end);
    ADD("open/end-without-bye", end_without_bye_is_truncation);
    ADD("open/end-inside-record", end_inside_record_is_truncation);
    ADD("open/tampered-record", tampered_record_is_refused);
    ADD("open/data-before-damage", data_before_damage_is_delivered);
    ADD("open/renegotiation-is-refused", renegotiation_is_refused);
    ADD("open/hello-request-is-refused", hello_request_is_refused);
    ADD("open/key-updates-are-followed", key_updates_are_followed);
    ADD("open/key-update-flood", key_update_flood_ends_session);
    ADD("open/warning-flood", warning_flood_ends_session);
    ADD("open/announced-end", announced_end_is_an_end);
    ADD("open/tickets-are-skipped", tickets_are_skipped);
    ADD("deny/tells-the-peer", deny_tells_the_peer);
    if (g_test_perf()) {
        ADD("speed", speed);
        ADD("speed-of-requests", speed_of_requests);
    }
}

int
main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    bf_test_tls_init();
    add_record_tests();
    ret = g_test_run();
    bf_test_tls_clear();
    return ret;
}
