/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS by keys that both sides have, and without any: files, handshakes, who is
 * let in, what is said about those who are not, and replacing credentials.
 */
#include "tls-pair.h"

#include <string.h>
#include <sys/stat.h>

#include "server/crypto/tls-private.h"

#define KEY_A "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define KEY_B "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"
#define TLS12 "NORMAL:-VERS-ALL:+VERS-TLS1.2"

/* Stands for the library's own: the other side has got round the priorities. */
static bool is_other_kind;

gnutls_credentials_type_t
gnutls_auth_get_type(gnutls_session_t session)
{
    switch (gnutls_kx_get(session)) {
    case GNUTLS_KX_PSK:
    case GNUTLS_KX_DHE_PSK:
    case GNUTLS_KX_ECDHE_PSK:
        return is_other_kind ? GNUTLS_CRD_CERTIFICATE : GNUTLS_CRD_PSK;
    case GNUTLS_KX_ANON_DH:
    case GNUTLS_KX_ANON_ECDH:
        return GNUTLS_CRD_ANON;
    default:
        return GNUTLS_CRD_CERTIFICATE;
    }
}

static BfTlsCredsParams
psk_params(BfTlsEndpoint endpoint, const char *dir, const char *user)
{
    return (BfTlsCredsParams){
        .kind = BF_TLS_CREDS_PSK,
        .endpoint = endpoint,
        .dir = dir,
        .username = user,
    };
}

static char *
new_keys(const char *text)
{
    char *dir = bf_test_tmp_dir();

    bf_test_write(dir, "keys.psk", text);
    return dir;
}

static BfTlsCreds *
load(const BfTlsCredsParams *params)
{
    g_autoptr(GError) error = NULL;
    BfTlsCreds *creds = bf_tls_creds_new(params, &error);

    g_assert_no_error(error);
    return creds;
}

static BfTlsCreds *
load_psk(BfTlsEndpoint endpoint, const char *dir, const char *user)
{
    const BfTlsCredsParams params = psk_params(endpoint, dir, user);

    return load(&params);
}

static void
assert_refused(const BfTlsCredsParams *params, const char *first,
               const char *second)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(bf_tls_creds_new(params, &error));
    bf_test_assert_message(error, first);
    bf_test_assert_message(error, second);
}

static void
check_psk(const char *client_priority, const char *version)
{
    char *server_dir = new_keys("# users\nalice:" KEY_A "\r\n\nbob:" KEY_B);
    char *client_dir = new_keys("bob:" KEY_B "\n");
    BfTlsCredsParams params =
        psk_params(BF_TLS_ENDPOINT_CLIENT, client_dir, "bob");
    g_autoptr(BfTlsCreds) server =
        load_psk(BF_TLS_ENDPOINT_SERVER, server_dir, NULL);
    g_autoptr(BfTlsCreds) client = NULL;
    g_auto(BfTestPair) pair = {0};

    params.priority = client_priority;
    client = load(&params);
    g_assert_cmpint(bf_tls_creds_get_kind(server), ==, BF_TLS_CREDS_PSK);
    g_assert_true(bf_tls_creds_get_verify_peer(server));
    bf_test_pair_init(&pair, server, client, "any.example");
    bf_test_pair_establish(&pair);
    g_assert_cmpstr(bf_tls_session_get_version(pair.server), ==, version);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("aes")) {
        g_assert_cmpstr(bf_tls_session_get_cipher(pair.server), ==,
                        "AES-128-GCM");
    }
#endif
    g_assert_cmpstr(bf_tls_session_get_peer_dn(pair.server), ==, "bob");
    g_assert_cmpstr(bf_tls_session_get_peer_label(pair.server), ==, "bob");
    g_assert_null(bf_tls_session_get_peer_dn(pair.client));
    bf_test_check_records(pair.server, bf_test_tls.server_records);
    bf_test_check_records(pair.client, bf_test_tls.client_records);
    bf_test_check_transfer(pair.client, pair.server, 100, 4096, 0);
    bf_test_check_transfer(pair.server, pair.client, 100, 40960, 0);
    bf_test_remove_dir(server_dir);
    bf_test_remove_dir(client_dir);
}

static void
test_psk_with_tls13(void)
{
    check_psk(NULL, "TLS1.3");
}

static void
test_psk_with_other_order(void)
{
    check_psk("NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305:+AES-128-GCM", "TLS1.3");
}

/* In a group for which clients have a key at hand, and which is cheap. */
static void
test_psk_in_one_round(void)
{
    char *dir = new_keys("qemu:" KEY_A "\n");
    g_autoptr(BfTlsCreds) server = load_psk(BF_TLS_ENDPOINT_SERVER, dir, NULL);
    g_autoptr(BfTlsCreds) client = load_psk(BF_TLS_ENDPOINT_CLIENT, dir, NULL);
    g_auto(BfTestPair) pair = {0};
    gnutls_group_t group;

    bf_test_pair_init(&pair, server, client, NULL);
    bf_test_pair_handshake(&pair);
    g_assert_cmpint(pair.server_status, ==, BF_TLS_DONE);
    group = gnutls_group_get(pair.server->tls);
    g_assert_true(group == GNUTLS_GROUP_SECP256R1 ||
                  group == GNUTLS_GROUP_X25519);
    bf_test_remove_dir(dir);
}

static void
test_psk_with_tls12(void)
{
    check_psk(TLS12, "TLS1.2");
}

/* What the server says about a client that has @client_line as its file. */
/* Neither side takes the credentials that it has for those that were used. */
static void
test_session_of_another_kind_is_refused(void)
{
    char *dir = new_keys("qemu:" KEY_A "\n");
    g_autoptr(BfTlsCreds) server = load_psk(BF_TLS_ENDPOINT_SERVER, dir, NULL);
    g_autoptr(BfTlsCreds) client = load_psk(BF_TLS_ENDPOINT_CLIENT, dir, NULL);
    g_auto(BfTestPair) pair = {0};

    bf_test_pair_init(&pair, server, client, NULL);
    bf_test_pair_handshake(&pair);
    is_other_kind = true;
    for (unsigned i = 0; i < 2; i++) {
        g_autoptr(GError) error = NULL;

        g_assert_false(
            bf_tls_session_verify(i == 0 ? pair.server : pair.client, &error));
        bf_test_assert_message(error, "TLS verification failed: the key");
        bf_test_assert_message(error, "PSK is not of the kind");
    }
    is_other_kind = false;
    bf_test_remove_dir(dir);
}

static void
check_stranger(const char *client_line, const char *user, const char *priority,
               const char *phrase)
{
    char *server_dir = new_keys("alice:" KEY_A "\nbob:" KEY_B "\n");
    char *client_dir = new_keys(client_line);
    BfTlsCredsParams params =
        psk_params(BF_TLS_ENDPOINT_CLIENT, client_dir, user);
    g_autoptr(BfTlsCreds) server =
        load_psk(BF_TLS_ENDPOINT_SERVER, server_dir, NULL);
    g_autoptr(BfTlsCreds) client = NULL;
    g_auto(BfTestPair) pair = {0};

    params.priority = priority;
    client = load(&params);
    bf_test_pair_init(&pair, server, client, NULL);
    bf_test_pair_handshake(&pair);
    g_assert_cmpint(pair.server_status, ==, BF_TLS_FAILED);
    bf_test_assert_message(pair.server_error, phrase);
    bf_test_assert_message(pair.server_error, "keys.psk");
    g_assert_null(strstr(pair.server_error->message, KEY_A));
    bf_test_remove_dir(server_dir);
    bf_test_remove_dir(client_dir);
}

static void
test_strangers_are_explained(void)
{
    static const char *const priorities[] = {NULL, TLS12};

    for (unsigned int i = 0; i < G_N_ELEMENTS(priorities); i++) {
        check_stranger("mallory:" KEY_A, "mallory", priorities[i],
                       "the user 'mallory' is not in");
        check_stranger("bob:" KEY_A, "bob", priorities[i],
                       "the user 'bob' must have the key");
    }
}

static void
test_users_come_and_go_without_reload(void)
{
    char *dir = new_keys("alice:" KEY_A "\n");
    char *client_dir = new_keys("bob:" KEY_B "\n");
    g_autoptr(BfTlsCreds) server = load_psk(BF_TLS_ENDPOINT_SERVER, dir, NULL);
    g_autoptr(BfTlsCreds) client =
        load_psk(BF_TLS_ENDPOINT_CLIENT, client_dir, "bob");

    for (int round = 0; round < 3; round++) {
        g_auto(BfTestPair) pair = {0};

        bf_test_write(dir, "keys.psk",
                      round == 1 ? "bob:" KEY_B "\n" : "alice:" KEY_A "\n");
        bf_test_pair_init(&pair, server, client, NULL);
        if (round == 1) {
            bf_test_pair_establish(&pair);
        } else {
            bf_test_pair_handshake(&pair);
            bf_test_assert_message(pair.server_error, "'bob' is not in");
        }
    }
    bf_test_remove_dir(dir);
    bf_test_remove_dir(client_dir);
}

static void
test_file_of_keys_must_be_there(void)
{
    char *dir = bf_test_tmp_dir();
    BfTlsCredsParams params = psk_params(BF_TLS_ENDPOINT_SERVER, NULL, NULL);

    assert_refused(&params, "Missing 'dir' property value", "keys.psk");
    params.dir = dir;
    assert_refused(&params, "/keys.psk: No such file", "holds nothing");
    bf_test_write(dir, "alice.psk", "");
    assert_refused(&params, "/keys.psk: No such file", "'alice.psk'");
    bf_test_write(dir, "keys.psk", "alice:" KEY_A "\n");
    params.username = "alice";
    assert_refused(&params, "username should not be set when endpoint=server",
                   "leave it out");
    bf_test_remove_dir(dir);
}

static void
test_lines_are_checked(void)
{
    static const char *const bad[] = {"alice:xyz\n", "alice:\n", "alice:123\n",
                                      "alice\n", ":00112233\n"};

    for (unsigned int i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *text =
            g_strconcat("# first\nbob:" KEY_B "\n", bad[i], NULL);
        char *dir = new_keys(text);
        const BfTlsCredsParams params =
            psk_params(BF_TLS_ENDPOINT_SERVER, dir, NULL);

        assert_refused(&params, "Line 3 of ", "keys.psk is not USER:HEXKEY");
        bf_test_remove_dir(dir);
    }
}

static void
test_user_of_client_must_be_in_its_file(void)
{
    char *dir = new_keys("alice:" KEY_A "\nbad:12x4\n");
    BfTlsCredsParams params = psk_params(BF_TLS_ENDPOINT_CLIENT, dir, "bob");
    g_autoptr(BfTlsCreds) creds = NULL;

    assert_refused(&params, "Username bob not found in PSK file", "'username'");
    params.username = NULL;
    assert_refused(&params, "Username qemu not found", "keys.psk");
    params.username = "bad";
    assert_refused(&params, "Cannot set PSK client credentials", "line 2");
    params.username = "alice";
    creds = load(&params);
    g_assert_cmpint(bf_tls_creds_get_endpoint(creds), ==,
                    BF_TLS_ENDPOINT_CLIENT);
    bf_test_remove_dir(dir);
}

/* Names that are not text: as psktool writes them. */
static void
test_user_in_hexadecimal_digits(void)
{
    char *dir = new_keys("#616c696365:" KEY_A "\n");
    g_autoptr(BfTlsCreds) creds =
        load_psk(BF_TLS_ENDPOINT_CLIENT, dir, "alice");

    g_assert_nonnull(creds);
    bf_test_remove_dir(dir);
}

static void
test_weak_and_public_keys_are_warned_of(void)
{
    char *dir = new_keys("alice:0011\n");
    const BfTlsCredsParams params =
        psk_params(BF_TLS_ENDPOINT_SERVER, dir, NULL);
    g_autofree char *path = g_build_filename(dir, "keys.psk", NULL);
    g_autoptr(BfTlsReport) report = bf_tls_report_new();
    g_autoptr(BfTlsCreds) creds = NULL;
    g_autoptr(BfTlsCredsInfo) info = NULL;

    g_assert_cmpint(chmod(path, 0644), ==, 0);
    creds = bf_tls_creds_check(&params, report);
    g_assert_cmpuint(report->warnings->len, ==, 2);
    g_assert_nonnull(strstr(report->warnings->pdata[0], "mode 0644"));
    g_assert_nonnull(strstr(report->warnings->pdata[1], "16 bits only"));
    info = bf_tls_creds_describe(creds, 0);
    g_assert_cmpuint(info->warnings->len, ==, 2);
    g_assert_cmpstr(info->qom_type, ==, "tls-creds-psk");
    g_assert_cmpuint(info->files->len, ==, 1);
    g_assert_cmpstr(info->files->items[0], ==, path);
    bf_test_remove_dir(dir);
}

static BfTlsCreds *
load_anon(BfTlsEndpoint endpoint, const char *dir)
{
    const BfTlsCredsParams params = {
        .kind = BF_TLS_CREDS_ANON,
        .endpoint = endpoint,
        .dir = dir,
        .verify_peer = true,
    };

    return load(&params);
}

static void
test_anonymous_session(void)
{
    g_autoptr(BfTlsCreds) server =
        load_anon(BF_TLS_ENDPOINT_SERVER, "/does/not/exist");
    g_autoptr(BfTlsCreds) client = load_anon(BF_TLS_ENDPOINT_CLIENT, NULL);
    g_auto(BfTestPair) pair = {0};

    /* Whatever was asked for. */
    g_assert_false(bf_tls_creds_get_verify_peer(server));
    bf_test_pair_init(&pair, server, client, "any.example");
    bf_test_pair_establish(&pair);
    g_assert_cmpstr(bf_tls_session_get_version(pair.server), ==, "TLS1.2");
    g_assert_null(bf_tls_session_get_peer_dn(pair.server));
    bf_test_check_transfer(pair.client, pair.server, 100, 4096, 0);
}

static void
check_mixed(BfTlsCreds *server, BfTlsCreds *client)
{
    g_auto(BfTestPair) pair = {0};

    bf_test_pair_init(&pair, server, client, "server1.example");
    bf_test_pair_handshake(&pair);
    g_assert_cmpint(pair.server_status, ==, BF_TLS_FAILED);
    bf_test_assert_message(pair.server_error, "TLS handshake failed: ");
    bf_test_assert_message(pair.server_error, "same kind");
}

static void
test_kinds_do_not_mix(void)
{
    char *dir = new_keys("qemu:" KEY_A "\n");
    BfTlsCreds *servers[] = {bf_test_tls.server_creds,
                             load_psk(BF_TLS_ENDPOINT_SERVER, dir, NULL),
                             load_anon(BF_TLS_ENDPOINT_SERVER, NULL)};
    BfTlsCreds *clients[] = {bf_test_tls.client_creds,
                             load_psk(BF_TLS_ENDPOINT_CLIENT, dir, NULL),
                             load_anon(BF_TLS_ENDPOINT_CLIENT, NULL)};

    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 3; j++) {
            if (i != j) {
                g_test_message("server %d, client %d", i, j);
                check_mixed(servers[i], clients[j]);
            }
        }
    }
    for (int i = 1; i < 3; i++) {
        bf_tls_creds_unref(servers[i]);
        bf_tls_creds_unref(clients[i]);
    }
    bf_test_remove_dir(dir);
}

/* New sessions have the new credentials, the others go on. */
static void
test_credentials_are_replaced(void)
{
    g_autoptr(BfTestCert) ca = bf_test_ca_new("new ca", NULL);
    const BfTestCertSpec server_spec = {.cn = "new",
                                        .dns = {"server1.example"}};
    g_autoptr(BfTestCert) cert = bf_test_cert_new(&server_spec, ca);
    char *dir = bf_test_new_server_dir(ca, cert);
    char *client_dir = bf_test_new_client_dir(ca, NULL);
    g_autoptr(BfTlsCreds) creds = bf_test_load_server(NULL);
    g_autoptr(BfTlsCreds) fresh =
        bf_test_load(BF_TLS_ENDPOINT_SERVER, dir, true, NULL);
    g_autoptr(BfTlsCreds) client =
        bf_test_load(BF_TLS_ENDPOINT_CLIENT, client_dir, true, NULL);
    g_auto(BfTestPair) old = {0};
    g_auto(BfTestPair) half = {0};
    g_auto(BfTestPair) pair = {0};

    bf_test_pair_init(&old, creds, bf_test_tls.client_creds, "server1.example");
    bf_test_pair_establish(&old);
    bf_test_pair_init(&half, creds, bf_test_tls.client_creds,
                      "server1.example");
    bf_tls_creds_replace(creds, fresh);
    bf_test_check_transfer(old.client, old.server, 100, 4096, 0);
    bf_test_pair_establish(&half);
    bf_test_pair_init(&pair, creds, client, "server1.example");
    bf_test_pair_handshake(&pair);
    g_assert_true(bf_tls_session_verify(pair.client, NULL));
    g_assert_cmpstr(bf_tls_session_get_peer_dn(pair.client), ==, "CN=new");
    bf_test_remove_dir(dir);
    bf_test_remove_dir(client_dir);
}

#define ADD(path, name) g_test_add_func("/crypto/tls-psk/" path, test_##name)

int
main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    bf_test_tls_init();
    bf_test_add_records("/crypto/tls-psk/session/tls13", test_psk_with_tls13);
    ADD("session/other-order", psk_with_other_order);
    ADD("session/one-round", psk_in_one_round);
    ADD("session/tls12", psk_with_tls12);
    ADD("session/other-kind", session_of_another_kind_is_refused);
    ADD("session/strangers", strangers_are_explained);
    ADD("session/users-come-and-go", users_come_and_go_without_reload);
    ADD("file/must-be-there", file_of_keys_must_be_there);
    ADD("file/lines-are-checked", lines_are_checked);
    ADD("file/user-of-client", user_of_client_must_be_in_its_file);
    ADD("file/user-in-hex", user_in_hexadecimal_digits);
    ADD("file/warnings", weak_and_public_keys_are_warned_of);
    ADD("anon/session", anonymous_session);
    ADD("kinds-do-not-mix", kinds_do_not_mix);
    ADD("replace", credentials_are_replaced);
    ret = g_test_run();
    bf_test_tls_clear();
    return ret;
}
