/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS handshakes and the buffers around a session: two of ours in memory.
 */
#include "tls-pair.h"

#include <stdlib.h>
#include <string.h>

#define TLS12 "NORMAL:-VERS-ALL:+VERS-TLS1.2"
#define TLS13 "NORMAL:-VERS-ALL:+VERS-TLS1.3"
#define KIB ((size_t)1024)

static void
test_handshake_with_defaults(void)
{
    g_auto(BfTestPair) pair = {0};

    bf_test_pair_init_ready(&pair);
    g_assert_cmpstr(bf_tls_session_get_version(pair.server), ==, "TLS1.3");
    g_assert_cmpstr(bf_tls_session_get_version(pair.client), ==, "TLS1.3");
#if defined(__x86_64__)
    if (__builtin_cpu_supports("aes")) {
        g_assert_cmpstr(bf_tls_session_get_cipher(pair.server), ==,
                        "AES-128-GCM");
    }
#endif
    g_assert_cmpstr(bf_tls_session_get_peer_dn(pair.server), ==,
                    "C=GB,O=Example\\, Org,CN=client1");
    g_assert_cmpstr(bf_tls_session_get_peer_label(pair.client), ==,
                    "CN=server1");
    g_assert_cmpstr(bf_tls_session_get_hostname(pair.client), ==,
                    "server1.example");
    g_assert_null(bf_tls_session_get_hostname(pair.server));
    bf_test_check_transfer(pair.client, pair.server, 100, 4096, 0);
    bf_test_check_transfer(pair.server, pair.client, 100, 4096, 0);
}

static void
test_server_order_wins(void)
{
    g_autoptr(BfTlsCreds) client = bf_test_load(
        BF_TLS_ENDPOINT_CLIENT, bf_test_tls.client_dir, true,
        "NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305:+AES-256-GCM:+AES-128-GCM");
    g_auto(BfTestPair) pair = {0};

    bf_test_pair_init(&pair, bf_test_tls.server_creds, client,
                      "server1.example");
    bf_test_pair_establish(&pair);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("aes")) {
        g_assert_cmpstr(bf_tls_session_get_cipher(pair.server), ==,
                        "AES-128-GCM");
    }
#endif
}

static void
test_every_version_and_cipher(void)
{
    static const char *const priorities[] = {
        TLS12,
        TLS13,
        TLS12 ":-CIPHER-ALL:+AES-256-GCM",
        TLS12 ":-CIPHER-ALL:+AES-128-CBC:-MAC-ALL:+SHA1",
        TLS12 ":-CIPHER-ALL:+CHACHA20-POLY1305",
        TLS13 ":-CIPHER-ALL:+AES-256-GCM",
        TLS13 ":-CIPHER-ALL:+CHACHA20-POLY1305",
        TLS13 ":-CIPHER-ALL:+AES-128-CCM",
        TLS13 ":%DISABLE_TLS13_COMPAT_MODE",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(priorities); i++) {
        g_autoptr(BfTlsCreds) server = bf_test_load_server(priorities[i]);
        g_autoptr(BfTlsCreds) client =
            bf_test_load(BF_TLS_ENDPOINT_CLIENT, bf_test_tls.client_dir, true,
                         priorities[i]);
        g_auto(BfTestPair) pair = {0};

        bf_test_pair_init(&pair, server, client, "server1.example");
        bf_test_pair_establish(&pair);
        bf_test_check_transfer(pair.client, pair.server, 100 * KIB, 64 * KIB,
                               0);
        bf_test_check_transfer(pair.server, pair.client, 100 * KIB, 64 * KIB,
                               0);
    }
}

static void
test_any_chunks_will_do(void)
{
    static const char *const priorities[] = {TLS12, TLS13};

    for (size_t i = 0; i < G_N_ELEMENTS(priorities); i++) {
        g_autoptr(BfTlsCreds) server = bf_test_load_server(priorities[i]);

        for (size_t chunk = 1; chunk < 3000; chunk = chunk * 3 + 1) {
            g_auto(BfTestPair) pair = {0};

            bf_test_pair_init(&pair, server, bf_test_tls.client_creds,
                              "server1.example");
            pair.chunk = chunk;
            bf_test_pair_establish(&pair);
            bf_test_check_transfer(pair.client, pair.server, 5000, 64 * KIB,
                                   chunk);
            bf_test_check_transfer(pair.server, pair.client, 5000, 64 * KIB,
                                   chunk);
        }
    }
}

static void
test_versions_must_overlap(void)
{
    g_autoptr(BfTlsCreds) server = bf_test_load_server(TLS13);
    g_autoptr(BfTlsCreds) client = bf_test_load(
        BF_TLS_ENDPOINT_CLIENT, bf_test_tls.client_dir, true, TLS12);
    g_auto(BfTestPair) pair = {0};

    bf_test_pair_init(&pair, server, client, "server1.example");
    bf_test_pair_handshake(&pair);
    g_assert_cmpint(pair.server_status, ==, BF_TLS_FAILED);
    bf_test_assert_message(pair.server_error, "TLS handshake failed: ");
    /* The alert got through, so the client knows as well. */
    g_assert_cmpint(pair.client_status, ==, BF_TLS_FAILED);
    bf_test_assert_message(pair.client_error, "the peer refused with alert");
    g_assert_cmpint(bf_tls_session_handshake(pair.server, NULL), ==,
                    BF_TLS_FAILED);
}

static void
test_other_version_is_suspected(void)
{
    static const guint8 alert[] = {
        21, 3, 3, 0, 2, GNUTLS_AL_FATAL, GNUTLS_A_PROTOCOL_VERSION};
    g_autoptr(GError) error = NULL;
    g_autoptr(BfTlsSession) session =
        bf_test_new_session(bf_test_tls.client_creds, "server1.example");

    g_assert_cmpint(bf_tls_session_handshake(session, NULL), ==,
                    BF_TLS_NEED_INPUT);
    bf_tls_session_feed(session, alert, sizeof(alert));
    g_assert_cmpint(bf_tls_session_handshake(session, &error), ==,
                    BF_TLS_FAILED);
    bf_test_assert_message(error, "refused with alert 'Error in protocol ");
    bf_test_assert_message(error, "; does the peer speak TLS 1.");
}

static void
test_garbage_fails_handshake(void)
{
    static const char *const garbage[] = {
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "IHAVEOPT\0\0\0\7\0\0\0\0",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(garbage); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(BfTlsSession) session =
            bf_test_new_session(bf_test_tls.server_creds, NULL);

        bf_tls_session_feed(session, garbage[i], 16);
        g_assert_cmpint(bf_tls_session_handshake(session, &error), ==,
                        BF_TLS_FAILED);
        bf_test_assert_message(error, "does the peer speak TLS 1.2");
        g_assert_true(bf_tls_session_wants_output(session));
    }
}

static void
test_random_bytes_never_crash(void)
{
    for (int i = 0; i < 300; i++) {
        g_autoptr(BfTlsSession) session = bf_test_new_session(
            i % 2 ? bf_test_tls.server_creds : bf_test_tls.client_creds, "x");
        size_t len = g_test_rand_int_range(1, 2000);
        g_autofree guint8 *bytes = bf_test_random_bytes(len);

        /* Looks like a handshake record with a message of likely type. */
        bytes[0] = 22;
        if (len > 6) {
            bytes[1] = 3;
            bytes[2] = 3;
            bytes[3] = 0;
            bytes[5] = i % 3 + 1;
            bytes[6] = 0;
        }
        bf_tls_session_feed(session, bytes, len);
        bf_tls_session_input_eof(session);
        g_assert_cmpint(bf_tls_session_handshake(session, NULL), ==,
                        BF_TLS_FAILED);
    }
}

static void
test_end_in_handshake_fails(void)
{
    g_auto(BfTestPair) pair = {0};

    bf_test_pair_init(&pair, bf_test_tls.server_creds, bf_test_tls.client_creds,
                      "server1.example");
    bf_test_step(pair.client, &pair.client_status, NULL);
    bf_test_move(pair.client, pair.server, 50);
    bf_tls_session_input_eof(pair.server);
    bf_test_step(pair.server, &pair.server_status, &pair.server_error);
    g_assert_cmpint(pair.server_status, ==, BF_TLS_FAILED);
    bf_test_assert_message(pair.server_error,
                           "closed the connection in the middle");
}

/* A client hello that never ends: fragments of a huge handshake message. */
static void
test_endless_handshake_is_cut_off(void)
{
    g_autoptr(BfTlsSession) session =
        bf_test_new_session(bf_test_tls.server_creds, NULL);
    g_autoptr(GError) error = NULL;
    guint8 record[5 + 1024] = {22, 3, 1, 4, 0, 1, 1, 0xff, 0xf0};
    BfTlsStatus status = BF_TLS_NEED_INPUT;
    size_t fed = 0;

    while (status == BF_TLS_NEED_INPUT) {
        g_assert_cmpint(fed, <=, 2 * BF_TLS_HANDSHAKE_MAX_BYTES);
        fed += bf_tls_session_feed(session, record, sizeof(record));
        status = bf_tls_session_handshake(session, &error);
        memset(record + 5, 0, 1024);
    }
    g_assert_cmpint(status, ==, BF_TLS_FAILED);
    bf_test_assert_message(error, "the peer sent more than 131072 bytes");
}

static void
test_input_is_bounded(void)
{
    g_autoptr(BfTlsSession) session =
        bf_test_new_session(bf_test_tls.server_creds, NULL);
    g_autofree guint8 *bytes = bf_test_random_bytes(2 * BF_TLS_INPUT_MAX_BYTES);
    void *room;
    size_t len;

    g_assert_cmpint(
        bf_tls_session_feed(session, bytes, 2 * BF_TLS_INPUT_MAX_BYTES), <=,
        BF_TLS_INPUT_MAX_BYTES);
    g_assert_false(bf_tls_session_input_space(session, 1, &room, &len));
}

static void
test_input_room_follows_load(void)
{
    g_auto(BfTestPair) pair = {0};
    g_autofree guint8 *data = bf_test_random_bytes(4 * KIB * KIB);
    g_autofree guint8 *copy = g_malloc(4 * KIB * KIB);
    size_t most = 0;
    void *room;
    size_t len;

    bf_test_pair_init_ready(&pair);
    for (int i = 0; i < 200; i++) {
        size_t bytes = i < 20 ? 512 * KIB : 100;
        size_t got = 0;

        g_assert_cmpint(bf_test_seal(pair.client, data, bytes, 1024 * KIB), ==,
                        (ssize_t)bytes);
        while (got < bytes) {
            struct iovec iov;
            ssize_t n;

            g_assert_true(
                bf_tls_session_input_space(pair.server, 4096, &room, &len));
            most = MAX(most, len);
            g_assert_cmpint(bf_tls_session_get_output(pair.client, &iov, 1), ==,
                            1);
            n = MIN(len, iov.iov_len);
            memcpy(room, iov.iov_base, n);
            bf_tls_session_input_commit(pair.server, n);
            bf_tls_session_output_consume(pair.client, n);
            n = bf_test_open(pair.server, copy + got, bytes - got, NULL);
            got += MAX(n, 0);
        }
        g_assert_cmpmem(copy, bytes, data, bytes);
    }
    g_assert_cmpint(most, ==, BF_TLS_INPUT_MAX_BYTES);
    g_assert_true(bf_tls_session_input_space(pair.server, 1, &room, &len));
    g_assert_cmpint(len, <, 64 * KIB);
}

static void
test_output_stays_in_place(void)
{
    g_auto(BfTestPair) pair = {0};
    g_autofree guint8 *data = bf_test_random_bytes(100 * KIB);
    struct iovec before;
    struct iovec after;
    g_autofree guint8 *copy = NULL;

    bf_test_pair_init_ready(&pair);
    bf_test_seal(pair.server, data, 1000, 4 * KIB * KIB);
    g_assert_cmpint(bf_tls_session_get_output(pair.server, &before, 1), ==, 1);
    copy = g_memdup2(before.iov_base, before.iov_len);
    for (int i = 0; i < 20; i++) {
        bf_test_seal(pair.server, data, 100 * KIB, 4 * KIB * KIB);
    }
    g_assert_cmpint(bf_tls_session_get_output(pair.server, &after, 1), ==, 1);
    g_assert_true(after.iov_base == before.iov_base);
    g_assert_cmpint(after.iov_len, >=, before.iov_len);
    g_assert_cmpmem(after.iov_base, before.iov_len, copy, before.iov_len);
}

static void
test_trim_keeps_session_usable(void)
{
    g_auto(BfTestPair) pair = {0};

    bf_test_pair_init_ready(&pair);
    bf_test_check_transfer(pair.client, pair.server, 300 * KIB, 256 * KIB, 0);
    bf_tls_session_trim(pair.client);
    bf_tls_session_trim(pair.server);
    bf_test_check_transfer(pair.client, pair.server, 300 * KIB, 256 * KIB, 0);
    bf_test_check_transfer(pair.server, pair.client, 300 * KIB, 256 * KIB, 0);
}

#define ADD(path, name)                                                        \
    bf_test_add_records("/crypto/tls-session/" path, test_##name)

static void
add_handshake_tests(void)
{
    ADD("handshake/with-defaults", handshake_with_defaults);
    ADD("handshake/server-order-wins", server_order_wins);
    ADD("handshake/every-version-and-cipher", every_version_and_cipher);
    ADD("handshake/any-chunks-will-do", any_chunks_will_do);
    ADD("handshake/versions-must-overlap", versions_must_overlap);
    ADD("handshake/other-version-is-suspected", other_version_is_suspected);
    ADD("handshake/garbage-fails", garbage_fails_handshake);
    ADD("handshake/random-bytes-never-crash", random_bytes_never_crash);
    ADD("handshake/end-in-it-fails", end_in_handshake_fails);
    ADD("handshake/endless-is-cut-off", endless_handshake_is_cut_off);
    ADD("input/is-bounded", input_is_bounded);
    ADD("input/room-follows-load", input_room_follows_load);
    ADD("output/stays-in-place", output_stays_in_place);
    ADD("trim/keeps-session-usable", trim_keeps_session_usable);
}

int
main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    bf_test_tls_init();
    add_handshake_tests();
    ret = g_test_run();
    bf_test_tls_clear();
    return ret;
}
