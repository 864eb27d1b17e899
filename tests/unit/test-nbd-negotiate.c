/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The handshake of the NBD server, over socket pairs: what each option gets,
 * and which mistakes of a client end the connection.
 */
#include <string.h>

#include "certs.h"
#include "core/util.h"
#include "harness.h"
#include "nbd-peer.h"
#include "server/nbd/nbd-private.h"

static void
open_with_export(BfNbdFixture *fix)
{
    bf_nbd_fixture_co_open(fix);
    bf_nbd_fixture_co_add_null(fix, "n0");
    bf_nbd_fixture_co_export(fix, "e0", "n0", true);
}

static void
abort_and_free(BfChannel *peer)
{
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_ABORT, NULL, 0);
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_ABORT, BF_NBD_REPLY_ACK, "");
    bf_nbd_peer_co_expect_end(peer);
    bf_channel_free(peer);
}

static void
test_list_names_exports_in_order(void *arg)
{
    BfNbdFixture fix = {.deleted = 0};
    g_autoptr(GByteArray) payload = g_byte_array_new();
    BfChannel *peer = NULL;

    open_with_export(&fix);
    bf_nbd_fixture_co_export(&fix, "e1", "n0", false);
    peer = bf_nbd_peer_co_greet(&fix);
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_LIST, NULL, 0);
    for (unsigned i = 0; i < 2; i++) {
        g_autofree char *name = g_strdup_printf("e%u", i);

        g_assert_cmphex(bf_nbd_peer_co_reply(peer, BF_NBD_OPTION_LIST, payload),
                        ==, BF_NBD_REPLY_SERVER);
        g_assert_cmpuint(payload->len, ==, 4 + 2);
        g_assert_cmpmem(payload->data + 4, 2, name, 2);
    }
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_LIST, BF_NBD_REPLY_ACK, "");
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_LIST, "x", 1);
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_LIST, BF_NBD_REPLY_ERR_INVALID,
                          "option 'list' has unexpected length");
    abort_and_free(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_unknown_options_are_skipped(void *arg)
{
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    open_with_export(&fix);
    peer = bf_nbd_peer_co_greet(&fix);
    bf_nbd_peer_co_option(peer, 77, "IHAVEOPT with payload", 21);
    bf_nbd_peer_co_expect(peer, 77, BF_NBD_REPLY_ERR_UNSUP,
                          "Unsupported option 77 (<unknown>)");
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_PEEK_EXPORT, "e0", 2);
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_PEEK_EXPORT,
                          BF_NBD_REPLY_ERR_UNSUP, NULL);
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_EXTENDED_HEADERS, NULL, 0);
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_EXTENDED_HEADERS,
                          BF_NBD_REPLY_ACK, "");
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_STRUCTURED_REPLY, NULL, 0);
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_STRUCTURED_REPLY,
                          BF_NBD_REPLY_ERR_EXT_HEADER_REQD,
                          "extended headers already negotiated");
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_STARTTLS, NULL, 0);
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_STARTTLS, BF_NBD_REPLY_ERR_POLICY,
                          "TLS not configured");
    abort_and_free(peer);
    bf_nbd_fixture_co_close(&fix);
}

/* Receives the two INFO replies that every export has. */
static BfNbdExportInfo
recv_info(BfChannel *peer, uint32_t option)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();
    BfNbdExportInfo info = {.size = 0};
    BfNbdString text;
    uint16_t type;

    for (unsigned i = 0; i < 2; i++) {
        g_assert_cmphex(bf_nbd_peer_co_reply(peer, option, payload), ==,
                        BF_NBD_REPLY_INFO);
        g_assert_true(bf_nbd_parse_info(payload->data, payload->len, &type,
                                        &info, &text));
    }
    bf_nbd_peer_co_expect(peer, option, BF_NBD_REPLY_ACK, "");
    return info;
}

static void
test_info_and_go_tell_the_same(void *arg)
{
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;
    BfNbdExportInfo info;
    BfNbdExportInfo go;

    open_with_export(&fix);
    peer = bf_nbd_peer_co_greet(&fix);
    bf_nbd_peer_co_send_go(peer, BF_NBD_OPTION_GO, "nope");
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_GO, BF_NBD_REPLY_ERR_UNKNOWN,
                          "export 'nope' not present");
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_STRUCTURED_REPLY, NULL, 0);
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_STRUCTURED_REPLY,
                          BF_NBD_REPLY_ACK, "");
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_STRUCTURED_REPLY, NULL, 0);
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_STRUCTURED_REPLY,
                          BF_NBD_REPLY_ERR_INVALID,
                          "structured reply already negotiated");
    bf_nbd_peer_co_send_go(peer, BF_NBD_OPTION_INFO, "e0");
    info = recv_info(peer, BF_NBD_OPTION_INFO);
    bf_nbd_peer_co_send_go(peer, BF_NBD_OPTION_GO, "e0");
    go = recv_info(peer, BF_NBD_OPTION_GO);
    g_assert_cmpuint(info.size, ==, NBD_TEST_BYTES);
    g_assert_cmphex(info.flags, ==, 0x0ded);
    g_assert_cmpmem(&info, sizeof(info), &go, sizeof(go));
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

/* Goes by EXPORT_NAME; returns the flags of the export. */
static uint16_t
go_by_export_name(BfNbdFixture *fix, const char *client_flags, size_t bytes)
{
    BfChannel *peer = bf_nbd_peer_connect(fix);
    uint8_t greeting[BF_NBD_GREETING_BYTES];
    uint8_t
        reply[BF_NBD_EXPORT_NAME_REPLY_BYTES + BF_NBD_EXPORT_NAME_ZEROES_BYTES];

    bf_nbd_peer_co_recv(peer, greeting, sizeof(greeting));
    bf_nbd_peer_co_send(peer, client_flags, 4);
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_EXPORT_NAME, "e0", 2);
    bf_nbd_peer_co_recv(peer, reply, bytes);
    g_assert_cmpuint(bf_get_be64(reply), ==, NBD_TEST_BYTES);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_FLUSH, 0, 5, 0, 0);
    g_auto(BfNbdPeerReply) flushed = bf_nbd_peer_co_simple(peer, 0);
    g_assert_cmpuint(flushed.error, ==, 0);
    bf_nbd_peer_co_leave(peer);
    return bf_get_be16(reply + 8);
}

static void
test_export_name_needs_no_fixed_newstyle(void *arg)
{
    BfNbdFixture fix = {.config.first.max_connections = 1};

    open_with_export(&fix);
    g_assert_cmphex(go_by_export_name(&fix, "\0\0\0\2", 10), ==, 0x0c6d);
    g_assert_cmphex(go_by_export_name(&fix, "\0\0\0\0", 134), ==, 0x0c6d);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_mistakes_that_end_the_connection(void *arg)
{
    static const struct {
        const char *bytes;
        size_t len;
    } cases[] = {
        {"\0\0\0\4", 4}, /* unknown client flag */
        {"\x80\0\0\3", 4},
        {"\0\0\0\3IHAVEOPS\0\0\0\3\0\0\0\0", 20},    /* wrong magic */
        {"\0\0\0\3IHAVEOPT\0\0\0\3\2\0\0\1", 20},    /* above 32 MiB */
        {"\0\0\0\0IHAVEOPT\0\0\0\3\0\0\0\0", 20},    /* cannot take replies */
        {"\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0\1x", 21},   /* no such export */
        {"\0\0\0\3IHAVEOPT\0\0\0\1\0\0\x10\1x", 20}, /* name of 4097 bytes */
    };
    BfNbdFixture fix = {.deleted = 0};

    open_with_export(&fix);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        BfChannel *peer = bf_nbd_peer_connect(&fix);
        uint8_t greeting[BF_NBD_GREETING_BYTES];

        bf_nbd_peer_co_recv(peer, greeting, sizeof(greeting));
        bf_nbd_peer_co_send(peer, cases[i].bytes, cases[i].len);
        bf_nbd_peer_co_expect_end(peer);
        bf_channel_free(peer);
    }
    bf_nbd_fixture_co_close(&fix);
}

static void
test_option_too_long_to_parse_is_refused(void *arg)
{
    BfNbdFixture fix = {.deleted = 0};
    g_autofree uint8_t *zeroes = g_malloc0(300 * 1024);
    BfChannel *peer = NULL;

    open_with_export(&fix);
    peer = bf_nbd_peer_co_greet(&fix);
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_INFO, zeroes, 300 * 1024);
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_INFO, BF_NBD_REPLY_ERR_TOO_BIG,
                          NULL);
    abort_and_free(peer);
    bf_nbd_fixture_co_close(&fix);
}

static BfChannel *
co_begin_large_option(BfNbdFixture *fix)
{
    BfChannel *peer = bf_nbd_peer_co_greet(fix);
    uint8_t header[BF_NBD_OPTION_BYTES];

    bf_nbd_put_option(header, &(BfNbdOptionHeader){
                                  .option = BF_NBD_OPTION_GO,
                                  .length = NBD_OPTION_SMALL_MAX + 1,
                              });
    bf_nbd_peer_co_send(peer, header, sizeof(header));
    return peer;
}

static void
test_few_large_options_at_a_time(void *arg)
{
    BfNbdFixture fix = {.deleted = 0};
    g_autofree uint8_t *zeroes = g_malloc0(NBD_OPTION_SMALL_MAX + 1);
    BfChannel *peers[NBD_LARGE_OPTIONS_MAX];
    BfChannel *late = NULL;

    open_with_export(&fix);
    for (unsigned i = 0; i < G_N_ELEMENTS(peers); i++) {
        peers[i] = co_begin_large_option(&fix);
    }
    while (__atomic_load_n(&fix.server->large_options.used, __ATOMIC_RELAXED) <
           NBD_LARGE_OPTIONS_MAX) {
        bf_co_yield();
    }
    late = co_begin_large_option(&fix);
    bf_nbd_peer_co_send(late, zeroes, NBD_OPTION_SMALL_MAX + 1);
    bf_nbd_peer_co_expect(late, BF_NBD_OPTION_GO, BF_NBD_REPLY_ERR_TOO_BIG,
                          NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(peers); i++) {
        bf_nbd_peer_co_send(peers[i], zeroes, NBD_OPTION_SMALL_MAX + 1);
        bf_nbd_peer_co_expect(peers[i], BF_NBD_OPTION_GO,
                              BF_NBD_REPLY_ERR_INVALID, NULL);
        abort_and_free(peers[i]);
    }
    bf_nbd_peer_co_option(late, BF_NBD_OPTION_GO, zeroes,
                          NBD_OPTION_SMALL_MAX + 1);
    bf_nbd_peer_co_expect(late, BF_NBD_OPTION_GO, BF_NBD_REPLY_ERR_INVALID,
                          NULL);
    abort_and_free(late);
    bf_nbd_fixture_co_close(&fix);
}

/* Sends one query; returns the number of contexts in the answer. */
static unsigned
count_contexts(BfChannel *peer, uint32_t option, const char *query)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();
    unsigned count = 0;

    bf_nbd_peer_co_send_meta(peer, option, "e0", query);
    while (bf_nbd_peer_co_reply(peer, option, payload) ==
           BF_NBD_REPLY_META_CONTEXT) {
        count++;
    }
    g_assert_cmpuint(payload->len, ==, 0);
    return count;
}

static void
test_meta_context_queries(void *arg)
{
    const uint32_t list = BF_NBD_OPTION_LIST_META_CONTEXT;
    const uint32_t set = BF_NBD_OPTION_SET_META_CONTEXT;
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    open_with_export(&fix);
    peer = bf_nbd_peer_co_greet(&fix);
    g_assert_cmpuint(count_contexts(peer, list, NULL), ==, 2);
    g_assert_cmpuint(count_contexts(peer, list, "base:"), ==, 1);
    g_assert_cmpuint(count_contexts(peer, list, "qemu:"), ==, 1);
    g_assert_cmpuint(count_contexts(peer, list, "qemu:allocation-depth"), ==,
                     1);
    g_assert_cmpuint(count_contexts(peer, list, "base:allocatio"), ==, 0);
    g_assert_cmpuint(count_contexts(peer, list, "base:allocation2"), ==, 0);
    g_assert_cmpuint(count_contexts(peer, list, "nocolon"), ==, 0);

    bf_nbd_peer_co_send_meta(peer, set, "e0", "base:allocation");
    bf_nbd_peer_co_expect(peer, set, BF_NBD_REPLY_ERR_INVALID, NULL);
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_STRUCTURED_REPLY, NULL, 0);
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_STRUCTURED_REPLY,
                          BF_NBD_REPLY_ACK, "");
    g_assert_cmpuint(count_contexts(peer, set, NULL), ==, 0);
    g_assert_cmpuint(count_contexts(peer, set, "base:"), ==, 0);
    g_assert_cmpuint(count_contexts(peer, set, "base:allocation"), ==, 1);
    bf_nbd_peer_co_send_meta(peer, set, "nope", "base:allocation");
    bf_nbd_peer_co_expect(peer, set, BF_NBD_REPLY_ERR_UNKNOWN, NULL);
    abort_and_free(peer);
    bf_nbd_fixture_co_close(&fix);
}

/* The most that one option holds, of two contexts each is compared with. */
#define MANY_QUERIES 29000

static void
test_many_meta_queries_leave_others_their_turns(void *arg)
{
    const uint32_t list = BF_NBD_OPTION_LIST_META_CONTEXT;
    const BfNbdString name = {.data = "e0", .len = 2};
    g_autofree BfNbdString *queries = g_new(BfNbdString, MANY_QUERIES);
    g_autoptr(GByteArray) payload = g_byte_array_new();
    BfNbdFixture fix = {.deleted = 0};
    uint8_t header[BF_NBD_OPTION_BYTES];
    BfNbdClient *client = NULL;
    BfChannel *peer = NULL;
    unsigned turns = 0;

    open_with_export(&fix);
    peer = bf_nbd_peer_co_greet(&fix);
    client = fix.server->clients.head->data;
    client->quick = false; /* so it stays on this loop */
    for (unsigned i = 0; i < MANY_QUERIES; i++) {
        queries[i] = (BfNbdString){.data = "none:", .len = 5};
    }
    bf_nbd_append_meta(payload, name, queries, MANY_QUERIES);
    bf_nbd_put_option(
        header, &(BfNbdOptionHeader){.option = list, .length = payload->len});
    bf_nbd_peer_co_send(peer, header, sizeof(header));
    bf_nbd_peer_co_send(peer, payload->data, payload->len);
    while (strcmp(client->stage, "waiting for an option") != 0) {
        turns += bf_peer_wait_since(&client->wait) == BF_PEER_WAIT_NONE;
        bf_co_yield();
    }
    g_assert_cmpuint(turns, >=, 2 * MANY_QUERIES / 1024);
    bf_nbd_peer_co_expect(peer, list, BF_NBD_REPLY_ACK, "");
    abort_and_free(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_bytes_behind_meta_queries_are_refused(void *arg)
{
    const uint8_t payload[] = "\0\0\0\2e0\0\0\0\0IHAVEOPT";
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    open_with_export(&fix);
    peer = bf_nbd_peer_co_greet(&fix);
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_LIST_META_CONTEXT, payload,
                          sizeof(payload) - 1);
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_LIST_META_CONTEXT,
                          BF_NBD_REPLY_ERR_INVALID,
                          "option 'list meta context' has unexpected length");
    abort_and_free(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_handshake_has_a_limit(void *arg)
{
    BfNbdFixture fix = {.config.first.handshake_max_seconds = 10};
    BfChannel *silent = NULL;
    BfChannel *done = NULL;

    open_with_export(&fix);
    done = bf_nbd_peer_co_go(&fix, "e0", false);
    silent = bf_nbd_peer_co_greet(&fix);
    bf_nbd_peer_co_option(silent, BF_NBD_OPTION_LIST, NULL, 0);
    bf_nbd_peer_co_expect(silent, BF_NBD_OPTION_LIST, BF_NBD_REPLY_SERVER,
                          NULL);
    bf_nbd_peer_co_expect(silent, BF_NBD_OPTION_LIST, BF_NBD_REPLY_ACK, "");
    bf_test_advance(11 * BF_NS_PER_SEC);
    bf_nbd_peer_co_expect_end(silent);
    bf_channel_free(silent);
    bf_nbd_peer_co_request(done, BF_NBD_COMMAND_FLUSH, 0, 1, 0, 0);
    g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(done, 0);
    g_assert_cmpuint(reply.error, ==, 0);
    bf_nbd_peer_co_leave(done);
    bf_nbd_fixture_co_close(&fix);
}

/* Credentials of a server, without asking clients for certificates. */
static BfTlsCreds *
make_creds(void)
{
    char *dir = bf_test_tmp_dir();
    const BfTlsCredsParams params = {
        .endpoint = BF_TLS_ENDPOINT_SERVER,
        .dir = dir,
        .sanity_check = true,
    };
    g_autoptr(BfTestCert) ca = bf_test_ca_new("test CA", NULL);
    const BfTestCertSpec spec = {.cn = "localhost", .dns = {"localhost"}};
    g_autoptr(BfTestCert) cert = bf_test_cert_new(&spec, ca);
    g_autoptr(GError) error = NULL;
    BfTlsCreds *creds = NULL;

    bf_test_write_certs(dir, "ca-cert.pem", ca, NULL);
    bf_test_write_certs(dir, "server-cert.pem", cert, NULL);
    bf_test_write_key(dir, "server-key.pem", cert);
    creds = bf_tls_creds_new(&params, &error);
    g_assert_no_error(error);
    bf_test_remove_dir(dir);
    return creds;
}

static void
test_nothing_but_starttls_before_tls(void *arg)
{
    g_autoptr(BfTlsCreds) creds = make_creds();
    BfNbdFixture fix = {.config.first.tls_creds = creds};
    BfChannel *peer = NULL;

    open_with_export(&fix);
    peer = bf_nbd_peer_co_greet(&fix);
    bf_nbd_peer_co_send_go(peer, BF_NBD_OPTION_GO, "e0");
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_GO, BF_NBD_REPLY_ERR_TLS_REQD,
                          "Option 0x7 not permitted before TLS");
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_LIST, NULL, 0);
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_LIST, BF_NBD_REPLY_ERR_TLS_REQD,
                          NULL);
    bf_nbd_peer_co_option(peer, 99, "x", 1);
    bf_nbd_peer_co_expect(peer, 99, BF_NBD_REPLY_ERR_TLS_REQD, NULL);
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_STARTTLS, "x", 1);
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_STARTTLS,
                          BF_NBD_REPLY_ERR_INVALID, NULL);
    abort_and_free(peer);

    peer = bf_nbd_peer_co_greet(&fix);
    bf_nbd_peer_co_option(peer, BF_NBD_OPTION_EXPORT_NAME, "e0", 2);
    bf_nbd_peer_co_expect_end(peer);
    bf_channel_free(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_bytes_injected_behind_starttls_are_not_used(void *arg)
{
    g_autoptr(BfTlsCreds) creds = make_creds();
    BfNbdFixture fix = {.config.first.tls_creds = creds};
    const char injected[] = "IHAVEOPT\0\0\0\5\0\0\0\0"  /* STARTTLS */
                            "IHAVEOPT\0\0\0\3\0\0\0\0"; /* LIST */
    BfChannel *peer = NULL;
    uint8_t byte;

    open_with_export(&fix);
    peer = bf_nbd_peer_co_greet(&fix);
    bf_nbd_peer_co_send(peer, injected, sizeof(injected) - 1);
    bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_STARTTLS, BF_NBD_REPLY_ACK, "");
    /* At most a TLS alert comes, and then the end: no answer to LIST. */
    for (unsigned n = 0; bf_channel_co_read(peer, &byte, 1, NULL) > 0; n++) {
        g_assert_cmpuint(n, <, BF_NBD_OPTION_REPLY_BYTES);
    }
    bf_channel_free(peer);
    bf_nbd_fixture_co_close(&fix);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/serve/nbd/negotiate/list-names-exports-in-order",
                test_list_names_exports_in_order);
    bf_test_add("/serve/nbd/negotiate/unknown-options-are-skipped",
                test_unknown_options_are_skipped);
    bf_test_add("/serve/nbd/negotiate/info-and-go-tell-the-same",
                test_info_and_go_tell_the_same);
    bf_test_add("/serve/nbd/negotiate/export-name-needs-no-fixed-newstyle",
                test_export_name_needs_no_fixed_newstyle);
    bf_test_add("/serve/nbd/negotiate/mistakes-that-end-the-connection",
                test_mistakes_that_end_the_connection);
    bf_test_add("/serve/nbd/negotiate/option-too-long-to-parse-is-refused",
                test_option_too_long_to_parse_is_refused);
    bf_test_add("/serve/nbd/negotiate/few-large-options-at-a-time",
                test_few_large_options_at_a_time);
    bf_test_add("/serve/nbd/negotiate/meta-context-queries",
                test_meta_context_queries);
    bf_test_add(
        "/serve/nbd/negotiate/many-meta-queries-leave-others-their-turns",
        test_many_meta_queries_leave_others_their_turns);
    bf_test_add("/serve/nbd/negotiate/bytes-behind-meta-queries-are-refused",
                test_bytes_behind_meta_queries_are_refused);
    bf_test_add_fake("/serve/nbd/negotiate/handshake-has-a-limit",
                     test_handshake_has_a_limit);
    bf_test_add("/serve/nbd/negotiate/nothing-but-starttls-before-tls",
                test_nothing_but_starttls_before_tls);
    bf_test_add(
        "/serve/nbd/negotiate/bytes-injected-behind-starttls-are-not-used",
        test_bytes_injected_behind_starttls_are_not_used);
    return g_test_run();
}
