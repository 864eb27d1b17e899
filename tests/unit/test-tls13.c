/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The record engine for TLS 1.3, against records that no honest peer sends:
 * they are made with the keys of a session of ours.
 */
#include "tls-pair.h"

#include <string.h>

#include "server/crypto/tls13-private.h"

#define KIB ((size_t)1024)
#define TYPE_ALERT 21
#define TYPE_HANDSHAKE 22
#define TYPE_DATA 23

/* Puts a record with the client's next key into @record, gives its length. */
static size_t
make_record(BfTestPair *pair, const void *inner, size_t len, guint8 *record)
{
    size_t fragment = len + BF_TLS13_TAG_BYTES;

    memcpy(record, (guint8[]){TYPE_DATA, 3, 3, fragment >> 8, fragment & 0xff},
           BF_TLS13_HEADER_BYTES);
    memcpy(record + BF_TLS13_HEADER_BYTES, inner, len);
    g_assert_cmpint(bf_tls13_keys_encrypt(&pair->client->tls13->write, record,
                                          record + BF_TLS13_HEADER_BYTES, len),
                    >=, 0);
    return BF_TLS13_HEADER_BYTES + fragment;
}

/* Sends a record with @len bytes, which include type and padding. */
static void
send_inner(BfTestPair *pair, const void *inner, size_t len)
{
    g_autofree guint8 *record = g_malloc(len + 64);
    size_t total = make_record(pair, inner, len, record);

    g_assert_cmpint(bf_tls_session_feed(pair->server, record, total), ==,
                    total);
}

#define SEND(pair, ...)                                                        \
    send_inner(pair, (guint8[]){__VA_ARGS__}, sizeof((guint8[]){__VA_ARGS__}))

/* What bf_test_tls takes for the engine: "own" or "ipsec-mb". */
static const char *engine = "own";

static void
init_own(BfTestPair *pair)
{
    bf_test_tls.client_records = engine;
    bf_test_tls.server_records = engine;
    bf_test_pair_init_ready(pair);
}

/* Swaps the sides, so that the client is the one that reads. */
static void
init_swapped(BfTestPair *pair)
{
    BfTlsSession *client;

    init_own(pair);
    client = pair->client;
    pair->client = pair->server;
    pair->server = client;
}

static ssize_t
open_server(BfTestPair *pair, GError **error)
{
    guint8 buf[64];

    return bf_test_open(pair->server, buf, sizeof(buf), error);
}

/* The server must fail, for this reason, and tell the client by this alert. */
static void
check_refused(BfTestPair *pair, const char *phrase, int alert)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GError) peer_error = NULL;
    guint8 buf[64];

    g_assert_cmpint(open_server(pair, &error), ==, BF_TLS_FAILED);
    bf_test_assert_message(error, phrase);
    bf_test_move(pair->server, pair->client, 0);
    g_assert_cmpint(bf_test_open(pair->client, buf, sizeof(buf), &peer_error),
                    ==, BF_TLS_FAILED);
    bf_test_assert_message(peer_error, gnutls_alert_get_name(alert));
    g_assert_cmpint(open_server(pair, NULL), ==, BF_TLS_FAILED);
    g_assert_cmpint(bf_test_seal(pair->server, "x", 1, 4096), ==,
                    BF_TLS_FAILED);
}

static void
test_library_session_is_dropped(void)
{
    g_auto(BfTestPair) pair = {0};

    init_own(&pair);
    g_assert_null(pair.client->tls);
    g_assert_null(pair.server->tls);
    g_assert_cmpstr(bf_tls_session_get_version(pair.server), ==, "TLS1.3");
}

static void
test_secrets_go_without_take_over(void)
{
    g_autoptr(BfTlsCreds) server = bf_test_load_server(
        "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+CHACHA20-POLY1305");
    g_auto(BfTestPair) pair = {0};

    bf_test_tls.client_records = engine;
    bf_test_tls.server_records = engine;
    bf_test_pair_init(&pair, server, bf_test_tls.client_creds,
                      "server1.example");
    bf_test_pair_establish(&pair);
    g_assert_cmpstr(bf_tls_session_get_records(pair.server), ==, "gnutls");
    g_assert_null(pair.client->tls13);
    g_assert_null(pair.server->tls13);
}

static void
test_unknown_engine_is_refused(void)
{
    g_autoptr(GError) error = NULL;

    g_setenv("BLOCKFERRY_TLS_RECORDS", "fast", TRUE);
    g_assert_null(bf_tls_session_new(bf_test_tls.server_creds, NULL, &error));
    bf_test_assert_message(error, "it takes 'own' or 'gnutls'");
    g_unsetenv("BLOCKFERRY_TLS_RECORDS");
}

static void
test_padding_is_stripped(void)
{
    g_auto(BfTestPair) pair = {0};
    guint8 buf[64];

    init_own(&pair);
    SEND(&pair, 'a', 0, TYPE_DATA, 0, 0, 0);
    SEND(&pair, 'b', TYPE_DATA);
    g_assert_cmpint(bf_test_open(pair.server, buf, sizeof(buf), NULL), ==, 3);
    g_assert_cmpmem(buf, 3, "a\0b", 3);
    /* And where the record does not fit the room. */
    SEND(&pair, 'a', 0, TYPE_DATA, 0, 0, 0);
    SEND(&pair, 'b', TYPE_DATA);
    for (int i = 0; i < 3; i++) {
        g_assert_cmpint(bf_test_open(pair.server, buf + i, 1, NULL), ==, 1);
    }
    g_assert_cmpmem(buf, 3, "a\0b", 3);
    g_assert_cmpint(open_server(&pair, NULL), ==, BF_TLS_NEED_INPUT);
}

static void
test_largest_record_fits(void)
{
    g_autofree guint8 *inner = g_malloc0(BF_TLS_RECORD_MAX_BYTES + 2);
    g_autofree guint8 *copy = g_malloc0(BF_TLS_RECORD_MAX_BYTES + 8);

    memset(inner, 'x', BF_TLS_RECORD_MAX_BYTES);
    inner[BF_TLS_RECORD_MAX_BYTES] = TYPE_DATA;
    for (size_t room = BF_TLS_RECORD_MAX_BYTES - 2;
         room < BF_TLS_RECORD_MAX_BYTES + 4; room++) {
        g_auto(BfTestPair) pair = {0};
        ssize_t n = MIN(room, BF_TLS_RECORD_MAX_BYTES);

        init_own(&pair);
        send_inner(&pair, inner, BF_TLS_RECORD_MAX_BYTES + 1);
        g_assert_cmpint(bf_test_open(pair.server, copy, room, NULL), ==, n);
        g_assert_cmpmem(copy, n, inner, n);
        n = BF_TLS_RECORD_MAX_BYTES - n;
        g_assert_cmpint(open_server(&pair, NULL), ==,
                        n > 0 ? n : BF_TLS_NEED_INPUT);
        send_inner(&pair, inner, BF_TLS_RECORD_MAX_BYTES + 2);
        check_refused(&pair, "oversized record", GNUTLS_A_RECORD_OVERFLOW);
    }
}

static void
test_length_is_judged_by_the_header(void)
{
    static const guint8 header[] = {TYPE_DATA, 3, 3, 0xff, 0xff};
    static const guint8 tiny[] = {TYPE_DATA, 3, 3, 0, 16};
    g_auto(BfTestPair) large = {0};
    g_auto(BfTestPair) small = {0};

    init_own(&large);
    bf_tls_session_feed(large.server, header, sizeof(header));
    check_refused(&large, "oversized record", GNUTLS_A_RECORD_OVERFLOW);
    init_own(&small);
    bf_tls_session_feed(small.server, tiny, sizeof(tiny));
    check_refused(&small, "tampered with", GNUTLS_A_BAD_RECORD_MAC);
}

static void
test_damage_releases_nothing(void)
{
    static const size_t rooms[] = {64, 3};

    for (size_t i = 0; i < G_N_ELEMENTS(rooms); i++) {
        g_auto(BfTestPair) pair = {0};
        g_autoptr(GError) error = NULL;
        guint8 record[64];
        guint8 buf[64];
        size_t len;

        init_own(&pair);
        len = make_record(&pair, "secret\x17", 7, record);
        record[len - 1] ^= 0x80;
        bf_tls_session_feed(pair.server, record, len);
        memset(buf, 0, sizeof(buf));
        g_assert_cmpint(bf_test_open(pair.server, buf, rooms[i], &error), ==,
                        BF_TLS_FAILED);
        bf_test_assert_message(error, "tampered with");
        g_assert_true(buf[0] == 0 && memcmp(buf, buf + 1, 63) == 0);
        g_assert_null(memmem(pair.server->input.bytes,
                             pair.server->input.capacity, "secret", 6));
    }
}

static void
test_replay_is_refused(void)
{
    g_auto(BfTestPair) pair = {0};
    guint8 record[64];
    size_t len;

    init_own(&pair);
    len = make_record(&pair, "once\x17", 5, record);
    bf_tls_session_feed(pair.server, record, len);
    g_assert_cmpint(open_server(&pair, NULL), ==, 4);
    bf_tls_session_feed(pair.server, record, len);
    check_refused(&pair, "tampered with", GNUTLS_A_BAD_RECORD_MAC);
}

static void
test_plain_records_are_refused(void)
{
    static const guint8 records[][7] = {
        {20, 3, 3, 0, 1, 1},
        {TYPE_ALERT, 3, 3, 0, 2, 1, 0},
        {TYPE_HANDSHAKE, 3, 3, 0, 1, 1},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(records); i++) {
        g_auto(BfTestPair) pair = {0};

        init_own(&pair);
        bf_tls_session_feed(pair.server, records[i], 7);
        check_refused(&pair, "that is not encrypted",
                      GNUTLS_A_UNEXPECTED_MESSAGE);
    }
}

/* What a record may hold that ends the session. */
typedef struct Bad {
    const char *phrase;
    int alert;
    size_t len;
    guint8 inner[12];
} Bad;

static void
test_bad_contents_are_refused(void)
{
    static const Bad bad[] = {
        {"known content type", GNUTLS_A_UNEXPECTED_MESSAGE, 1, {0}},
        {"known content type", GNUTLS_A_UNEXPECTED_MESSAGE, 3, {0, 0, 0}},
        {"known content type", GNUTLS_A_UNEXPECTED_MESSAGE, 2, {1, 24}},
        {"known content type", GNUTLS_A_UNEXPECTED_MESSAGE, 2, {1, 20}},
        {"alert of a wrong length", GNUTLS_A_UNEXPECTED_MESSAGE, 1, {21}},
        {"alert of a wrong length", GNUTLS_A_DECODE_ERROR, 2, {1, 21}},
        {"alert of a wrong", GNUTLS_A_DECODE_ERROR, 5, {1, 0, 1, 0, 21}},
        {"empty handshake", GNUTLS_A_UNEXPECTED_MESSAGE, 1, {22}},
        {"behind the handshake",
         GNUTLS_A_UNEXPECTED_MESSAGE,
         6,
         {1, 0, 0, 1, 0, 22}},
        {"behind the handshake",
         GNUTLS_A_UNEXPECTED_MESSAGE,
         6,
         {4, 0, 0, 1, 0, 22}},
        {"of a wrong length",
         GNUTLS_A_DECODE_ERROR,
         7,
         {24, 0, 0, 2, 0, 0, 22}},
        {"of an unknown kind",
         GNUTLS_A_ILLEGAL_PARAMETER,
         6,
         {24, 0, 0, 1, 2, 22}},
        {"under the old key",
         GNUTLS_A_UNEXPECTED_MESSAGE,
         7,
         {24, 0, 0, 1, 0, 24, 22}},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_auto(BfTestPair) pair = {0};

        init_own(&pair);
        send_inner(&pair, bad[i].inner, bad[i].len);
        check_refused(&pair, bad[i].phrase, bad[i].alert);
    }
}

static void
test_message_is_not_interrupted(void)
{
    g_auto(BfTestPair) pair = {0};

    init_own(&pair);
    SEND(&pair, 24, 0, 0, TYPE_HANDSHAKE);
    SEND(&pair, 'x', TYPE_DATA);
    check_refused(&pair, "inside a handshake message",
                  GNUTLS_A_UNEXPECTED_MESSAGE);
}

static void
test_split_key_update_is_joined(void)
{
    g_auto(BfTestPair) pair = {0};

    init_own(&pair);
    SEND(&pair, 24, 0, TYPE_HANDSHAKE);
    SEND(&pair, 0, 1, TYPE_HANDSHAKE);
    SEND(&pair, 0, TYPE_HANDSHAKE, 0);
    g_assert_cmpint(bf_tls13_keys_next(&pair.client->tls13->write,
                                       pair.client->tls13->suite),
                    ==, 0);
    SEND(&pair, 'x', TYPE_DATA);
    g_assert_cmpint(open_server(&pair, NULL), ==, 1);
    g_assert_false(pair.server->tls13->update_due);
}

static void
update_key(BfTestPair *pair, guint8 request)
{
    SEND(pair, 24, 0, 0, 1, request, TYPE_HANDSHAKE);
    g_assert_cmpint(bf_tls13_keys_next(&pair->client->tls13->write,
                                       pair->client->tls13->suite),
                    ==, 0);
}

static void
test_requests_share_an_answer(void)
{
    g_auto(BfTestPair) pair = {0};
    guint8 buf[16];

    init_own(&pair);
    for (int i = 0; i < 3; i++) {
        update_key(&pair, 1);
    }
    g_assert_cmpint(open_server(&pair, NULL), ==, BF_TLS_NEED_INPUT);
    g_assert_false(bf_tls_session_wants_output(pair.server));
    bf_test_seal(pair.server, "x", 1, 4096);
    g_assert_cmpint(bf_tls_session_output_bytes(pair.server), ==,
                    2 * BF_TLS13_OVERHEAD_BYTES + BF_TLS13_MESSAGE_BYTES + 1);
    bf_test_seal(pair.server, "y", 1, 4096);
    bf_test_move(pair.server, pair.client, 0);
    g_assert_cmpint(bf_test_open(pair.client, buf, 16, NULL), ==, 2);
    g_assert_cmpint(pair.client->tls13->read.sequence, ==, 2);
}

static void
test_key_update_flood_is_refused(void)
{
    g_auto(BfTestPair) pair = {0};

    init_own(&pair);
    for (int i = 0; i < 9; i++) {
        update_key(&pair, 0);
    }
    check_refused(&pair, "too many key updates", GNUTLS_A_UNEXPECTED_MESSAGE);
}

/* A peer that is silent may change its key for as long as it likes. */
static void
test_key_updates_are_not_idle(void)
{
    g_auto(BfTestPair) pair = {0};

    init_own(&pair);
    for (int i = 0; i < 200; i++) {
        pair.server->tls13->key_updates = 0; /* as in the next second */
        update_key(&pair, i % 2);
        g_assert_cmpint(open_server(&pair, NULL), ==, BF_TLS_NEED_INPUT);
    }
    SEND(&pair, 'x', TYPE_DATA);
    g_assert_cmpint(open_server(&pair, NULL), ==, 1);
}

static void
test_idle_records_are_bounded(void)
{
    g_auto(BfTestPair) pair = {0};

    init_own(&pair);
    for (int i = 0; i < 32; i++) {
        SEND(&pair, TYPE_DATA);
    }
    SEND(&pair, 'x', TYPE_DATA);
    g_assert_cmpint(open_server(&pair, NULL), ==, 1);
    for (int i = 0; i < 32; i++) {
        /* "User canceled", which says nothing as long as nothing follows. */
        SEND(&pair, 1, GNUTLS_A_USER_CANCELED, TYPE_ALERT);
    }
    g_assert_cmpint(open_server(&pair, NULL), ==, BF_TLS_NEED_INPUT);
    SEND(&pair, TYPE_DATA, 0, 0);
    check_refused(&pair, "without data", GNUTLS_A_UNEXPECTED_MESSAGE);
}

static void
test_fatal_alert_is_reported(void)
{
    g_auto(BfTestPair) pair = {0};
    g_autoptr(GError) error = NULL;

    init_own(&pair);
    SEND(&pair, 'x', TYPE_DATA);
    SEND(&pair, 1, 80, TYPE_ALERT);
    g_assert_cmpint(open_server(&pair, NULL), ==, 1);
    g_assert_cmpint(open_server(&pair, &error), ==, BF_TLS_FAILED);
    bf_test_assert_message(error, "gave up with alert 'Internal error'");
    g_assert_false(bf_tls_session_wants_output(pair.server));
}

static void
test_client_skips_tickets(void)
{
    g_auto(BfTestPair) pair = {0};
    g_autofree guint8 *inner = g_malloc0(1001);

    init_swapped(&pair);
    inner[1000] = TYPE_HANDSHAKE;
    SEND(&pair, 4, 0, 0, 1, 9, 4, 0, 0, 0, 4, 0, TYPE_HANDSHAKE);
    SEND(&pair, 7, 208, TYPE_HANDSHAKE);
    send_inner(&pair, inner, 1001);
    send_inner(&pair, inner, 1001);
    SEND(&pair, 'x', TYPE_DATA);
    g_assert_cmpint(open_server(&pair, NULL), ==, 1);
    SEND(&pair, 4, 3, 0, 0, TYPE_HANDSHAKE);
    check_refused(&pair, "oversized session ticket", GNUTLS_A_DECODE_ERROR);
}

static void
test_client_refuses_certificate_request(void)
{
    g_auto(BfTestPair) pair = {0};

    init_swapped(&pair);
    SEND(&pair, 13, 0, 0, 3, 0, 0, 0, TYPE_HANDSHAKE);
    check_refused(&pair, "behind the handshake", GNUTLS_A_UNEXPECTED_MESSAGE);
}

/* Writes 30 records and changes the key after every fifth. */
static void
check_rekey(BfTlsSession *from, BfTlsSession *to)
{
    guint8 buf[4];

    from->rekey.after = 5;
    for (guint8 i = 0; i < 30; i++) {
        g_assert_cmpint(bf_test_seal(from, &i, 1, 4096), ==, 1);
        g_assert_cmpint(from->tls13 != NULL ? from->tls13->write.sequence
                                            : from->written,
                        ==, i % 5 + 1);
        bf_test_move(from, to, 0);
        g_assert_cmpint(bf_test_open(to, buf, 4, NULL), ==, 1);
        g_assert_cmpint(buf[0], ==, i);
    }
    g_assert_cmpint(from->rekey.sent, ==, 5);
    g_assert_cmpint(to->rekey.received, ==, to->tls13 != NULL ? 5 : 0);
}

static void
test_key_changes_in_time(void)
{
    g_auto(BfTestPair) pair = {0};

    bf_test_pair_init_ready(&pair);
    check_rekey(pair.client, pair.server);
    check_rekey(pair.server, pair.client);
}

static void
check_rekey_by_variable(BfTlsSession *from, BfTlsSession *to)
{
    guint8 buf[4];

    g_assert_cmpuint(from->rekey.pause_us, >=, G_USEC_PER_SEC / 8);
    from->rekey.pause_us = 0;
    for (unsigned i = 0; i < 1000; i++) {
        g_assert_cmpint(bf_test_seal(from, "x", 1, 4096), ==, 1);
        bf_test_move(from, to, 0);
        g_assert_cmpint(bf_test_open(to, buf, 4, NULL), ==, 1);
    }
    g_assert_cmpint(from->rekey.sent, ==, 3);
}

static void
test_key_changes_when_told_to(void)
{
    g_auto(BfTestPair) pair = {0};
    g_autoptr(GError) error = NULL;

    g_setenv("BLOCKFERRY_TLS_REKEY_RECORDS", "255", TRUE);
    g_assert_null(bf_tls_session_new(bf_test_tls.server_creds, NULL, &error));
    bf_test_assert_message(error, "it takes a number of records from 256");
    g_setenv("BLOCKFERRY_TLS_REKEY_RECORDS", "256", TRUE);
    bf_test_pair_init_ready(&pair);
    check_rekey_by_variable(pair.client, pair.server);
    check_rekey_by_variable(pair.server, pair.client);
    g_unsetenv("BLOCKFERRY_TLS_REKEY_RECORDS");
}

/* A pause is kept, however much is written. */
static void
test_keys_do_not_change_too_often(void)
{
    g_auto(BfTestPair) pair = {0};

    bf_test_pair_init_ready(&pair);
    pair.client->rekey.after = 1;
    pair.client->rekey.pause_us = G_MAXINT64 / 2;
    pair.client->rekey.last_us = g_get_monotonic_time();
    for (unsigned i = 0; i < 100; i++) {
        g_assert_cmpint(bf_test_seal(pair.client, "x", 1, 4096), ==, 1);
    }
    g_assert_cmpint(pair.client->rekey.sent, ==, 0);
}

/* One direction of a long conversation. */
typedef struct Flow {
    BfTlsSession *from;
    BfTlsSession *to;
    guint8 *data;
    guint8 *copy;
    size_t sent;
    size_t got;
    int updates; /* of the key that are left, below what a peer may do */
    bool asks;   /* the other to change its key as well */
} Flow;

#define FLOW_BYTES (3 * KIB * KIB)

static void
flow_write(Flow *flow)
{
    struct iovec iov[40];
    int niov = g_test_rand_int_range(1, 41);
    size_t at = flow->sent;
    ssize_t n;

    for (int i = 0; i < niov; i++) {
        size_t len = g_test_rand_int_range(0, 9)
                         ? g_test_rand_int_range(0, 300)
                         : g_test_rand_int_range(0, 70000);

        len = MIN(len, FLOW_BYTES - at);
        iov[i] = (struct iovec){flow->data + at, len};
        at += len;
    }
    if (flow->updates > 0 && !g_test_rand_int_range(0, 20)) {
        flow->updates--;
        if (flow->from->tls13 != NULL) {
            flow->from->tls13->update_due = true;
        } else {
            /* gnutls does not bear requests that cross. */
            gnutls_session_key_update(flow->from->tls,
                                      flow->asks ? GNUTLS_KU_PEER : 0);
        }
    }
    n = bf_tls_session_seal(flow->from, iov, niov,
                            g_test_rand_int_range(1, 300000), NULL);
    g_assert_cmpint(n, >=, 0);
    flow->sent += n;
}

static void
flow_read(Flow *flow)
{
    g_autoptr(GError) error = NULL;
    struct iovec iov[5];
    size_t at = flow->got;
    ssize_t n;

    bf_test_move(flow->from, flow->to, g_test_rand_int_range(1, 100000));
    for (int i = 0; i < 5; i++) {
        size_t len = i == 0 || g_test_rand_bit()
                         ? g_test_rand_int_range(1, 40000)
                         : g_test_rand_int_range(0, 20);

        iov[i] = (struct iovec){flow->copy + at, len};
        at += len;
    }
    n = bf_tls_session_open(flow->to, iov, 5, &error);
    g_assert_no_error(error);
    g_assert_true(n > 0 || n == BF_TLS_NEED_INPUT);
    flow->got += MAX(n, 0);
}

static void
flow_init(Flow *flow, BfTlsSession *from, BfTlsSession *to)
{
    *flow = (Flow){.from = from, .to = to, .updates = 3};
    flow->data = bf_test_random_bytes(FLOW_BYTES);
    flow->copy = g_malloc(FLOW_BYTES + 5 * 40000);
}

static void
flow_finish(Flow *flow)
{
    g_assert_cmpint(flow->got, ==, FLOW_BYTES);
    g_assert_true(memcmp(flow->data, flow->copy, FLOW_BYTES) == 0);
    g_free(flow->data);
    g_free(flow->copy);
}

/* Both directions at once, everything at random. */
static void
test_long_conversation(void)
{
    g_auto(BfTestPair) pair = {0};
    Flow up;
    Flow down;

    bf_test_pair_init_ready(&pair);
    flow_init(&up, pair.client, pair.server);
    flow_init(&down, pair.server, pair.client);
    up.asks = true;
    while (up.got < FLOW_BYTES || down.got < FLOW_BYTES) {
        Flow *flow = g_test_rand_bit() ? &up : &down;

        if (g_test_rand_bit()) {
            flow_write(flow);
        } else if (flow->got < FLOW_BYTES) {
            flow_read(flow);
        }
        if (!g_test_rand_int_range(0, 100)) {
            bf_tls_session_trim(flow->to);
            bf_tls_session_trim(flow->from);
        }
    }
    flow_finish(&up);
    flow_finish(&down);
}

/* Valid records with a change anywhere never give wrong data. */
static void
test_random_damage_is_noticed(void)
{
    g_auto(BfTestPair) first = {0};

    init_own(&first);
    for (int i = 0; i < 300; i++) {
        BfTls13 saved = *first.server->tls13;
        guint8 bytes[300];
        guint8 buf[300];
        size_t len = 0;
        ssize_t n;

        for (int j = 0; j < 4; j++) {
            len += make_record(&first, "0123456789\x17", 11, bytes + len);
        }
        bytes[g_test_rand_int_range(0, len)] ^= 1
                                                << g_test_rand_int_range(0, 8);
        bf_tls_session_feed(first.server, bytes, len);
        n = bf_test_open(first.server, buf, sizeof(buf), NULL);
        g_assert_cmpint(n, <, 40);
        g_assert_true(n <= 0 || n % 10 == 0);
        /* Back to the state before, as if nothing had happened. */
        saved.read.sequence = first.client->tls13->write.sequence;
        *first.server->tls13 = saved;
        first.server->state = BF_TLS_STATE_READY;
        first.server->input.start = first.server->input.end;
    }
}

typedef struct Case {
    const char *engine;
    void (*func)(void);
} Case;

static void
run_case(gconstpointer data)
{
    const Case *self = data;

    engine = self->engine;
    self->func();
}

/* With each library that is there. */
static void
add_case(const char *path, void (*func)(void))
{
    static const char *const engines[] = {"own", "ipsec-mb"};
    size_t n = bf_tls13_aead_get_ipsec_mb(NULL) != NULL ? 2 : 1;

    for (size_t i = 0; i < n; i++) {
        g_autofree char *full = g_strdup_printf("%s/%s", path, engines[i]);
        const Case one = {engines[i], func};

        g_test_add_data_func_full(full, g_memdup2(&one, sizeof(one)), run_case,
                                  g_free);
    }
}

#define ADD(path, name) add_case("/crypto/tls13/" path, test_##name)

static void
add_tests(void)
{
    ADD("take-over/drops-library-session", library_session_is_dropped);
    ADD("take-over/secrets-go-without", secrets_go_without_take_over);
    ADD("take-over/unknown-engine", unknown_engine_is_refused);
    ADD("open/padding-is-stripped", padding_is_stripped);
    ADD("open/largest-record-fits", largest_record_fits);
    ADD("open/length-is-judged-by-header", length_is_judged_by_the_header);
    ADD("open/damage-releases-nothing", damage_releases_nothing);
    ADD("open/replay-is-refused", replay_is_refused);
    ADD("open/plain-records", plain_records_are_refused);
    ADD("open/bad-contents", bad_contents_are_refused);
    ADD("open/message-is-not-interrupted", message_is_not_interrupted);
    ADD("open/split-key-update", split_key_update_is_joined);
    ADD("open/requests-share-an-answer", requests_share_an_answer);
    ADD("open/key-update-flood", key_update_flood_is_refused);
    ADD("open/key-updates-are-not-idle", key_updates_are_not_idle);
    ADD("open/idle-records-are-bounded", idle_records_are_bounded);
    ADD("open/fatal-alert-is-reported", fatal_alert_is_reported);
    ADD("open/client-skips-tickets", client_skips_tickets);
    ADD("open/client-certificate-request", client_refuses_certificate_request);
    ADD("open/random-damage-is-noticed", random_damage_is_noticed);
    bf_test_add_records("/crypto/tls13/seal/key-changes-in-time",
                        test_key_changes_in_time);
    bf_test_add_records("/crypto/tls13/seal/key-changes-when-told-to",
                        test_key_changes_when_told_to);
    bf_test_add_records("/crypto/tls13/seal/keys-do-not-change-too-often",
                        test_keys_do_not_change_too_often);
    bf_test_add_records("/crypto/tls13/long-conversation",
                        test_long_conversation);
}

int
main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    bf_test_tls_init();
    add_tests();
    ret = g_test_run();
    bf_test_tls_clear();
    return ret;
}
