/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who a TLS session lets in: the peer's certificate against authority, dates,
 * revocation list and host name, each with a clear message.
 */
#include "tls-pair.h"

#include <string.h>

/* Handshakes with other credentials and lets one side verify. */
static void
check_verify_server(BfTlsCreds *server, BfTlsCreds *client, const char *phrase)
{
    g_auto(BfTestPair) pair = {0};
    g_autoptr(GError) error = NULL;
    bool verified;

    bf_test_pair_init(&pair, server, client, "server1.example");
    bf_test_pair_handshake(&pair);
    g_assert_no_error(pair.server_error);
    g_assert_cmpint(pair.server_status, ==, BF_TLS_DONE);
    verified = bf_tls_session_verify(pair.server, &error);
    if (phrase == NULL) {
        g_assert_no_error(error);
        g_assert_true(verified);
        return;
    }
    g_assert_false(verified);
    bf_test_assert_message(error, phrase);
    g_assert_true(bf_tls_session_wants_output(pair.server));
    g_assert_false(bf_tls_session_verify(pair.server, NULL));
}

static void
test_client_without_certificate(void)
{
    g_autoptr(BfTlsCreds) bare = bf_test_load(
        BF_TLS_ENDPOINT_CLIENT, bf_test_tls.bare_client_dir, true, NULL);
    g_autoptr(BfTlsCreds) lax = bf_test_load(
        BF_TLS_ENDPOINT_SERVER, bf_test_tls.server_dir, false, NULL);
    g_autoptr(BfTlsCreds) server12 =
        bf_test_load_server("NORMAL:-VERS-ALL:+VERS-TLS1.2");

    check_verify_server(bf_test_tls.server_creds, bare,
                        "No certificate was found");
    check_verify_server(server12, bare, "No certificate was found");
    check_verify_server(lax, bare, NULL);
}

/* Verifies a client that has this certificate and sends it whatever we ask. */
static void
check_client_cert(const BfTestCert *cert, BfTlsCreds *server,
                  const char *phrase)
{
    char *dir = bf_test_new_client_dir(bf_test_tls.ca, cert);
    g_autoptr(BfTlsCreds) client =
        bf_test_load(BF_TLS_ENDPOINT_CLIENT, dir, true, NULL);

    check_verify_server(server, client, phrase);
    bf_test_remove_dir(dir);
}

static void
test_client_of_other_ca(void)
{
    g_autoptr(BfTestCert) other = bf_test_ca_new("other ca", NULL);
    /* Has our CA's name, so that the client believes it is wanted. */
    g_autoptr(BfTestCert) impostor = bf_test_ca_new("test ca", NULL);
    g_autoptr(BfTestCert) stranger =
        bf_test_cert_new(&(BfTestCertSpec){.cn = "stranger"}, other);
    g_autoptr(BfTestCert) fake =
        bf_test_cert_new(&(BfTestCertSpec){.cn = "fake"}, impostor);

    check_client_cert(stranger, bf_test_tls.server_creds,
                      "No certificate was found");
    check_client_cert(fake, bf_test_tls.server_creds,
                      "'CN=fake', sent by the client");
}

static void
test_client_certificate_times(void)
{
    const BfTestCertSpec old = {.cn = "old", .until_s = -60};
    const BfTestCertSpec early = {.cn = "early", .from_s = 600};
    g_autoptr(BfTestCert) old_cert = bf_test_cert_new(&old, bf_test_tls.ca);
    g_autoptr(BfTestCert) early_cert = bf_test_cert_new(&early, bf_test_tls.ca);

    check_client_cert(old_cert, bf_test_tls.server_creds,
                      "The certificate has expired: 'CN=old'");
    check_client_cert(early_cert, bf_test_tls.server_creds,
                      "The certificate is not yet activated: 'CN=early'");
}

static void
test_client_through_intermediate(void)
{
    const BfTestCertSpec old = {.cn = "old middle", .ca = 1, .until_s = -60};
    g_autoptr(BfTestCert) middle = bf_test_ca_new("middle", bf_test_tls.ca);
    g_autoptr(BfTestCert) old_middle = bf_test_cert_new(&old, bf_test_tls.ca);
    g_autoptr(BfTestCert) good =
        bf_test_cert_new(&(BfTestCertSpec){.cn = "good"}, middle);
    g_autoptr(BfTestCert) bad =
        bf_test_cert_new(&(BfTestCertSpec){.cn = "bad"}, old_middle);
    char *dir = bf_test_new_client_dir(bf_test_tls.ca, good);
    g_autoptr(BfTlsCreds) client = NULL;
    g_autoptr(BfTlsCreds) old_client = NULL;

    bf_test_write_certs(dir, "client-cert.pem", good, middle, NULL);
    client = bf_test_load(BF_TLS_ENDPOINT_CLIENT, dir, true, NULL);
    check_verify_server(bf_test_tls.server_creds, client, NULL);
    bf_test_write_certs(dir, "client-cert.pem", bad, old_middle, NULL);
    bf_test_write_key(dir, "client-key.pem", bad);
    old_client = bf_test_load(BF_TLS_ENDPOINT_CLIENT, dir, true, NULL);
    check_verify_server(bf_test_tls.server_creds, old_client,
                        "has expired: 'CN=old middle'");
    bf_test_remove_dir(dir);
}

static void
test_revoked_client(void)
{
    const BfTestCertSpec spec = {.cn = "revoked"};
    g_autoptr(BfTestCert) revoked = bf_test_cert_new(&spec, bf_test_tls.ca);
    char *dir = bf_test_new_server_dir(bf_test_tls.ca, bf_test_tls.server);
    g_autoptr(BfTlsCreds) server = NULL;

    bf_test_write_crl(dir, "ca-crl.pem", bf_test_tls.ca, revoked);
    server = bf_test_load(BF_TLS_ENDPOINT_SERVER, dir, true, NULL);
    check_client_cert(revoked, server, "The certificate has been revoked");
    check_client_cert(bf_test_tls.client, server, NULL);
    check_client_cert(revoked, bf_test_tls.server_creds, NULL);
    bf_test_remove_dir(dir);
}

static void
test_own_revoked_certificate_is_refused(void)
{
    char *dir = bf_test_new_server_dir(bf_test_tls.ca, bf_test_tls.server);
    BfTlsCredsParams params = {
        .endpoint = BF_TLS_ENDPOINT_SERVER,
        .dir = dir,
        .sanity_check = true,
    };
    g_autoptr(GError) error = NULL;
    g_autoptr(BfTlsCreds) creds = NULL;

    bf_test_write_crl(dir, "ca-crl.pem", bf_test_tls.ca, bf_test_tls.server);
    g_assert_null(bf_tls_creds_new(&params, &error));
    g_assert_nonnull(strstr(error->message, "has been revoked"));
    g_assert_nonnull(strstr(error->message, "ca-crl.pem"));
    params.sanity_check = false;
    creds = bf_tls_creds_new(&params, NULL);
    g_assert_nonnull(creds);
    bf_test_remove_dir(dir);
}

/* A client looks at the list of its authority as well. */
static void
test_revoked_server_is_refused(void)
{
    char *dir = bf_test_new_client_dir(bf_test_tls.ca, bf_test_tls.client);
    g_autoptr(BfTlsCreds) client = NULL;
    g_autoptr(GError) error = NULL;
    g_auto(BfTestPair) pair = {0};

    bf_test_write_crl(dir, "ca-crl.pem", bf_test_tls.ca, bf_test_tls.server);
    client = bf_test_load(BF_TLS_ENDPOINT_CLIENT, dir, true, NULL);
    bf_test_pair_init(&pair, bf_test_tls.server_creds, client,
                      "server1.example");
    bf_test_pair_handshake(&pair);
    g_assert_false(bf_tls_session_verify(pair.client, &error));
    bf_test_assert_message(error, "has been revoked");
    bf_test_remove_dir(dir);
}

static void
test_purpose_of_the_peer_is_checked(void)
{
    const BfTestCertSpec specs[] = {
        {.cn = "x", .purpose = GNUTLS_KP_TLS_WWW_SERVER},
        {.cn = "x", .purpose = GNUTLS_KP_TLS_WWW_CLIENT},
        {.cn = "x", .purpose = GNUTLS_KP_ANY},
        {.cn = "x"},
    };

    for (unsigned int i = 0; i < G_N_ELEMENTS(specs); i++) {
        g_autoptr(BfTestCert) cert =
            bf_test_cert_new(&specs[i], bf_test_tls.ca);

        check_client_cert(cert, bf_test_tls.server_creds,
                          i == 0 ? "lacks clientAuth" : NULL);
    }
}

static void
test_label_cannot_garble_a_log(void)
{
    const BfTestCertSpec spec = {.cn = "a\nfake line \x1b[31m"};
    g_autoptr(BfTestCert) cert = bf_test_cert_new(&spec, bf_test_tls.ca);
    char *dir = bf_test_new_client_dir(bf_test_tls.ca, cert);
    g_autoptr(BfTlsCreds) client =
        bf_test_load(BF_TLS_ENDPOINT_CLIENT, dir, true, NULL);
    g_auto(BfTestPair) pair = {0};

    bf_test_pair_init(&pair, bf_test_tls.server_creds, client,
                      "server1.example");
    bf_test_pair_establish(&pair);
    g_assert_cmpstr(bf_tls_session_get_peer_dn(pair.server), ==,
                    "CN=a\nfake line \x1b[31m");
    g_assert_cmpstr(bf_tls_session_get_peer_label(pair.server), ==,
                    "CN=a?fake line ?[31m");
    bf_test_remove_dir(dir);
}

static void
check_hostname(BfTlsCreds *server, const char *hostname, const char *phrase)
{
    g_auto(BfTestPair) pair = {0};
    g_autoptr(GError) error = NULL;
    bool verified;

    bf_test_pair_init(&pair, server, bf_test_tls.client_creds, hostname);
    bf_test_pair_handshake(&pair);
    g_assert_no_error(pair.client_error);
    verified = bf_tls_session_verify(pair.client, &error);
    if (phrase == NULL) {
        g_assert_no_error(error);
        g_assert_true(verified);
    } else {
        g_assert_false(verified);
        bf_test_assert_message(error, phrase);
        g_assert_true(bf_tls_session_wants_output(pair.client));
    }
}

static void
test_hostname_must_match(void)
{
    check_hostname(bf_test_tls.server_creds, "server1.example", NULL);
    check_hostname(bf_test_tls.server_creds, "any.wild.example", NULL);
    check_hostname(bf_test_tls.server_creds, "127.0.0.1", NULL);
    check_hostname(bf_test_tls.server_creds, "foo.example",
                   "Certificate does not match the hostname foo.example: it "
                   "is for 'server1.example', '*.wild.example', '127.0.0.1'");
    check_hostname(bf_test_tls.server_creds, "a.b.wild.example",
                   "does not match");
    check_hostname(bf_test_tls.server_creds, "127.0.0.2", "does not match");
    check_hostname(bf_test_tls.server_creds, "server1", "does not match");
    check_hostname(bf_test_tls.server_creds, NULL,
                   "No hostname for certificate validation");
}

static void
test_ipv6_address_must_match(void)
{
    const BfTestCertSpec spec = {.cn = "six", .ip = "2001:db8::1"};
    g_autoptr(BfTestCert) cert = bf_test_cert_new(&spec, bf_test_tls.ca);
    char *dir = bf_test_new_server_dir(bf_test_tls.ca, cert);
    g_autoptr(BfTlsCreds) server =
        bf_test_load(BF_TLS_ENDPOINT_SERVER, dir, true, NULL);

    check_hostname(server, "2001:db8::1", NULL);
    check_hostname(server, "2001:db8:0:0::1", NULL);
    check_hostname(server, "2001:db8::2", "it is for '2001:db8::1'");
    bf_test_remove_dir(dir);
}

static void
test_common_name_is_the_last_resort(void)
{
    const BfTestCertSpec spec = {.cn = "plain.example"};
    g_autoptr(BfTestCert) cert = bf_test_cert_new(&spec, bf_test_tls.ca);
    char *dir = bf_test_new_server_dir(bf_test_tls.ca, cert);
    g_autoptr(BfTlsCreds) server =
        bf_test_load(BF_TLS_ENDPOINT_SERVER, dir, true, NULL);

    check_hostname(server, "plain.example", NULL);
    check_hostname(server, "other.example",
                   "'CN=plain.example', which has no subjectAltName");
    bf_test_remove_dir(dir);
}

static void
test_client_checks_the_servers_chain(void)
{
    g_autoptr(BfTestCert) other = bf_test_ca_new("other ca", NULL);
    g_autoptr(BfTestCert) cert = bf_test_cert_new(
        &(BfTestCertSpec){.cn = "s", .dns = {"server1.example"}}, other);
    char *dir = bf_test_new_server_dir(other, cert);
    g_autoptr(BfTlsCreds) server =
        bf_test_load(BF_TLS_ENDPOINT_SERVER, dir, true, NULL);
    g_autoptr(BfTlsCreds) lax = bf_test_load(
        BF_TLS_ENDPOINT_CLIENT, bf_test_tls.client_dir, false, NULL);
    g_auto(BfTestPair) pair = {0};

    check_hostname(server, "server1.example",
                   "The certificate hasn't got a known issuer: 'CN=s', sent "
                   "by the server, issued by 'CN=other ca'");
    bf_test_pair_init(&pair, server, lax, NULL);
    bf_test_pair_handshake(&pair);
    g_assert_true(bf_tls_session_verify(pair.client, NULL));
    bf_test_remove_dir(dir);
}

#define ADD(path, name) g_test_add_func("/crypto/tls-verify/" path, test_##name)

static void
add_verify_tests(void)
{
    ADD("client-without-certificate", client_without_certificate);
    ADD("client-of-other-ca", client_of_other_ca);
    ADD("client-certificate-times", client_certificate_times);
    ADD("client-through-intermediate", client_through_intermediate);
    ADD("revoked-client", revoked_client);
    ADD("own-revoked", own_revoked_certificate_is_refused);
    ADD("revoked-server", revoked_server_is_refused);
    ADD("purpose", purpose_of_the_peer_is_checked);
    ADD("label-cannot-garble-a-log", label_cannot_garble_a_log);
    ADD("hostname-must-match", hostname_must_match);
    ADD("ipv6-address-must-match", ipv6_address_must_match);
    ADD("common-name", common_name_is_the_last_resort);
    ADD("servers-chain", client_checks_the_servers_chain);
}

int
main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    bf_test_tls_init();
    add_verify_tests();
    ret = g_test_run();
    bf_test_tls_clear();
    return ret;
}
