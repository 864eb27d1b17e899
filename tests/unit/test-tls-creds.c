/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS credentials: which files are needed, what each check finds, and that the
 * messages name file, property and remedy.
 */
#include "crypto/tls-creds.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "certs.h"
#include "core/error.h"

#define LEAF_USAGE (GNUTLS_KEY_DIGITAL_SIGNATURE | GNUTLS_KEY_KEY_ENCIPHERMENT)

static BfTestCert *ca; /* without faults, shared by all tests */

static const BfTestCertSpec good_leaf = {
    .cn = "server1",
    .ca = -1,
    .usage = LEAF_USAGE,
    .usage_critical = true,
    .purpose = GNUTLS_KP_TLS_WWW_SERVER,
    .purpose_critical = true,
    .dns = {"server1.example"},
};

static char *
new_server_dir(const BfTestCertSpec *leaf_spec, const BfTestCert *issuer)
{
    char *dir = bf_test_tmp_dir();
    g_autoptr(BfTestCert) leaf = bf_test_cert_new(leaf_spec, issuer);

    bf_test_write_certs(dir, "ca-cert.pem", ca, NULL);
    bf_test_write_certs(dir, "server-cert.pem", leaf, NULL);
    bf_test_write_key(dir, "server-key.pem", leaf);
    return dir;
}

static BfTlsCredsParams
server_params(const char *dir)
{
    return (BfTlsCredsParams){
        .endpoint = BF_TLS_ENDPOINT_SERVER,
        .dir = dir,
        .verify_peer = true,
        .sanity_check = true,
    };
}

static void
assert_loads(const BfTlsCredsParams *params)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BfTlsCreds) creds = bf_tls_creds_new(params, &error);

    g_assert_no_error(error);
    g_assert_nonnull(creds);
    g_assert_cmpint(bf_tls_creds_get_endpoint(creds), ==, params->endpoint);
    g_assert_cmpint(bf_tls_creds_get_verify_peer(creds), ==,
                    params->verify_peer);
}

/* @...: phrases that must be in the message, then NULL. */
static void G_GNUC_NULL_TERMINATED
assert_refused(const BfTlsCredsParams *params, ...)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BfTlsCreds) creds = bf_tls_creds_new(params, &error);
    const char *phrase;
    va_list args;

    g_assert_null(creds);
    g_assert_error(error, BF_ERROR, BF_ERROR_GENERIC);
    va_start(args, params);
    while ((phrase = va_arg(args, const char *)) != NULL) {
        if (strstr(error->message, phrase) == NULL) {
            g_error("'%s' is not in '%s'", phrase, error->message);
        }
    }
    va_end(args);
    g_test_message("%s", error->message);
}

static void
test_good_server_loads(void)
{
    char *dir = new_server_dir(&good_leaf, ca);
    BfTlsCredsParams params = server_params(dir);

    assert_loads(&params);
    params.verify_peer = false;
    assert_loads(&params);
    bf_test_remove_dir(dir);
}

static void
test_missing_files_are_named_in_order(void)
{
    char *dir = bf_test_tmp_dir();
    g_autoptr(BfTestCert) leaf = bf_test_cert_new(&good_leaf, ca);
    BfTlsCredsParams params = server_params(NULL);

    assert_refused(&params, "Missing 'dir' property value", NULL);
    params.dir = "/does/not/exist";
    assert_refused(&params,
                   "Unable to access credentials /does/not/exist/ca-cert.pem: "
                   "No such file or directory",
                   NULL);
    params.dir = dir;
    assert_refused(&params, "/ca-cert.pem: No such file", NULL);
    bf_test_write_certs(dir, "ca-cert.pem", ca, NULL);
    assert_refused(&params, "/server-cert.pem: No such file",
                   "'dir' must hold ca-cert.pem, server-cert.pem", NULL);
    bf_test_write_certs(dir, "server-cert.pem", leaf, NULL);
    assert_refused(&params, "/server-key.pem: No such file", NULL);
    bf_test_write_key(dir, "server-key.pem", leaf);
    assert_loads(&params);
    bf_test_remove_dir(dir);
}

static void
test_client_needs_only_a_ca(void)
{
    char *dir = bf_test_tmp_dir();
    g_autoptr(BfTestCert) leaf =
        bf_test_cert_new(&(BfTestCertSpec){.cn = "c"}, ca);
    BfTlsCredsParams params = {.dir = dir, .sanity_check = true};

    assert_refused(&params, "/ca-cert.pem: No such file", NULL);
    bf_test_write_certs(dir, "ca-cert.pem", ca, NULL);
    assert_loads(&params);
    /* One without the other is as none. */
    bf_test_write_certs(dir, "client-cert.pem", leaf, NULL);
    assert_loads(&params);
    bf_test_write_key(dir, "client-key.pem", leaf);
    assert_loads(&params);
    /* It must not trust a server that was revoked, so a bad list is bad. */
    bf_test_write_crl(dir, "ca-crl.pem", ca, NULL);
    assert_loads(&params);
    bf_test_write(dir, "ca-crl.pem", "rubbish");
    assert_refused(&params, "Cannot load CRL", "ca-crl.pem", NULL);
    bf_test_remove_dir(dir);
}

static void
test_optional_file_must_be_absent_or_readable(void)
{
    char *dir = new_server_dir(&good_leaf, ca);
    BfTlsCredsParams params = server_params(dir);
    g_autofree char *path = g_build_filename(dir, "ca-crl.pem", NULL);

    g_assert_cmpint(mkdir(path, 0700), ==, 0);
    assert_refused(&params, "Unable to access credentials", "/ca-crl.pem",
                   "Is a directory", NULL);
    rmdir(path);
    bf_test_remove_dir(dir);
}

/* One bad property of the leaf, and the message about it. */
static void
check_leaf(const BfTestCertSpec *spec, const char *phrase, const char *remedy)
{
    char *dir = new_server_dir(spec, ca);
    BfTlsCredsParams params = server_params(dir);

    assert_refused(&params, "server-cert.pem", "server1", phrase, remedy, NULL);
    params.sanity_check = false;
    assert_loads(&params);
    bf_test_remove_dir(dir);
}

static void
test_leaf_times_are_checked(void)
{
    BfTestCertSpec spec = good_leaf;

    spec.until_s = -60;
    check_leaf(&spec, "server-cert.pem has expired", "issue a new certificate");
    spec = good_leaf;
    spec.from_s = 3600;
    check_leaf(&spec, "server-cert.pem is not yet active", "clock");
}

static void
test_leaf_must_not_be_a_ca(void)
{
    BfTestCertSpec spec = good_leaf;

    spec.ca = 1;
    check_leaf(&spec,
               "basic constraints show a CA, but we need one for a server",
               "CA:FALSE");
}

static void
test_leaf_usage_is_checked_if_critical(void)
{
    BfTestCertSpec spec = good_leaf;

    spec.usage = GNUTLS_KEY_KEY_ENCIPHERMENT;
    check_leaf(&spec, "usage does not permit digital signature",
               "lacks digitalSignature");
    spec = good_leaf;
    spec.rsa = true;
    spec.usage = GNUTLS_KEY_DIGITAL_SIGNATURE;
    check_leaf(&spec, "usage does not permit key encipherment",
               "lacks keyEncipherment");
}

static void
test_leaf_purpose_is_checked_if_critical(void)
{
    BfTestCertSpec spec = good_leaf;

    spec.purpose = GNUTLS_KP_TLS_WWW_CLIENT;
    check_leaf(&spec, "purpose does not allow use with a TLS server",
               "lacks serverAuth");
}

static void
check_leaf_loads(const BfTestCertSpec *spec)
{
    char *dir = new_server_dir(spec, ca);
    BfTlsCredsParams params = server_params(dir);

    assert_loads(&params);
    bf_test_remove_dir(dir);
}

static void
test_tolerable_leaves_load(void)
{
    BfTestCertSpec spec = good_leaf;

    /* Not critical: accepted, as others do. */
    spec.purpose = GNUTLS_KP_TLS_WWW_CLIENT;
    spec.purpose_critical = false;
    check_leaf_loads(&spec);
    spec = good_leaf;
    spec.rsa = true;
    spec.usage = GNUTLS_KEY_DIGITAL_SIGNATURE;
    spec.usage_critical = false;
    check_leaf_loads(&spec);
    /* Any purpose, and none of the extensions at all. */
    spec = good_leaf;
    spec.purpose = GNUTLS_KP_ANY;
    check_leaf_loads(&spec);
    check_leaf_loads(&(BfTestCertSpec){.cn = "server1"});
    /* A key on a curve has no use for encipherment. */
    spec = good_leaf;
    spec.usage = GNUTLS_KEY_DIGITAL_SIGNATURE;
    check_leaf_loads(&spec);
}

/* One bad property of a second CA behind a good one. */
static void
check_ca(const BfTestCertSpec *spec, const char *phrase, const char *remedy)
{
    char *dir = new_server_dir(&good_leaf, ca);
    BfTlsCredsParams params = server_params(dir);
    g_autoptr(BfTestCert) bad = bf_test_cert_new(spec, NULL);

    bf_test_write_certs(dir, "ca-cert.pem", ca, bad, NULL);
    assert_refused(&params, "ca-cert.pem", spec->cn, phrase, remedy, NULL);
    params.sanity_check = false;
    assert_loads(&params);
    bf_test_remove_dir(dir);
}

static void
test_each_ca_is_checked(void)
{
    const BfTestCertSpec good = {
        .cn = "second ca",
        .ca = 1,
        .usage = GNUTLS_KEY_KEY_CERT_SIGN,
        .usage_critical = true,
    };
    BfTestCertSpec spec = good;

    spec.until_s = -60;
    check_ca(&spec, "The CA certificate", "has expired");
    spec = good;
    spec.from_s = 60;
    check_ca(&spec, "The CA certificate", "is not yet active");
    spec = good;
    spec.ca = -1;
    check_ca(&spec, "basic constraints do not show a CA", "CA:TRUE");
    spec = good;
    spec.ca = 0;
    check_ca(&spec, "is missing basic constraints for a CA", "CA:TRUE");
    spec = good;
    spec.usage = GNUTLS_KEY_DIGITAL_SIGNATURE;
    check_ca(&spec, "usage does not permit certificate signing",
             "lacks keyCertSign");
}

static void
test_ca_usage_matters_only_if_critical(void)
{
    char *dir = new_server_dir(&good_leaf, ca);
    BfTlsCredsParams params = server_params(dir);
    const BfTestCertSpec spec = {
        .cn = "x", .ca = 1, .usage = GNUTLS_KEY_DIGITAL_SIGNATURE};
    g_autoptr(BfTestCert) odd = bf_test_cert_new(&spec, NULL);

    bf_test_write_certs(dir, "ca-cert.pem", ca, odd, NULL);
    assert_loads(&params);
    bf_test_remove_dir(dir);
}

static void
test_leaf_is_checked_before_ca_and_signature(void)
{
    g_autoptr(BfTestCert) other = bf_test_ca_new("other", NULL);
    BfTestCertSpec spec = good_leaf;
    char *dir;
    BfTlsCredsParams params;

    spec.until_s = -60;
    dir = new_server_dir(&spec, other);
    params = server_params(dir);
    bf_test_write_certs(dir, "ca-cert.pem", other, NULL);
    assert_refused(&params, "server-cert.pem has expired", NULL);
    bf_test_remove_dir(dir);
}

static void
test_leaf_must_be_signed_by_our_ca(void)
{
    g_autoptr(BfTestCert) other = bf_test_ca_new("other", NULL);
    char *dir = new_server_dir(&good_leaf, other);
    BfTlsCredsParams params = server_params(dir);

    assert_refused(&params, "Our own certificate", "server-cert.pem",
                   "failed validation against", "ca-cert.pem",
                   "The certificate hasn't got a known issuer",
                   "certificate of 'CN=other'", NULL);
    params.sanity_check = false;
    assert_loads(&params);
    bf_test_remove_dir(dir);
}

static void
test_self_signed_leaf_is_refused(void)
{
    char *dir = new_server_dir(&good_leaf, NULL);
    BfTlsCredsParams params = server_params(dir);

    assert_refused(&params, "failed validation against", NULL);
    bf_test_remove_dir(dir);
}

static void
test_intermediate_may_be_in_either_file(void)
{
    g_autoptr(BfTestCert) middle = bf_test_ca_new("middle", ca);
    g_autoptr(BfTestCert) lower = bf_test_ca_new("lower", middle);
    g_autoptr(BfTestCert) leaf = bf_test_cert_new(&good_leaf, lower);
    char *dir = bf_test_tmp_dir();
    BfTlsCredsParams params = server_params(dir);

    bf_test_write_key(dir, "server-key.pem", leaf);
    bf_test_write_certs(dir, "ca-cert.pem", ca, NULL);
    bf_test_write_certs(dir, "server-cert.pem", leaf, lower, middle, NULL);
    assert_loads(&params);
    /* In any order behind the leaf, with the root, with strangers. */
    bf_test_write_certs(dir, "server-cert.pem", leaf, ca, middle, lower, NULL);
    assert_loads(&params);
    bf_test_write_certs(dir, "server-cert.pem", leaf, lower, NULL);
    assert_refused(&params, "known issuer", "certificate of 'CN=middle'", NULL);
    bf_test_write_certs(dir, "ca-cert.pem", ca, middle, NULL);
    assert_loads(&params);
    bf_test_write_certs(dir, "server-cert.pem", leaf, NULL);
    assert_refused(&params, "known issuer", "certificate of 'CN=lower'", NULL);
    bf_test_write_certs(dir, "ca-cert.pem", ca, middle, lower, NULL);
    assert_loads(&params);
    bf_test_remove_dir(dir);
}

static void
test_expired_intermediate_is_found(void)
{
    const BfTestCertSpec spec = {.cn = "old", .ca = 1, .until_s = -60};
    g_autoptr(BfTestCert) old = bf_test_cert_new(&spec, ca);
    g_autoptr(BfTestCert) leaf = bf_test_cert_new(&good_leaf, old);
    char *dir = bf_test_tmp_dir();
    BfTlsCredsParams params = server_params(dir);

    bf_test_write_key(dir, "server-key.pem", leaf);
    bf_test_write_certs(dir, "ca-cert.pem", ca, NULL);
    bf_test_write_certs(dir, "server-cert.pem", leaf, old, NULL);
    assert_refused(&params, "The intermediate certificate", "has expired",
                   "CN=old", NULL);
    bf_test_remove_dir(dir);
}

static void
test_key_must_match(void)
{
    char *dir = new_server_dir(&good_leaf, ca);
    g_autoptr(BfTestCert) other = bf_test_cert_new(&good_leaf, ca);
    BfTlsCredsParams params = server_params(dir);

    bf_test_write_key(dir, "server-key.pem", other);
    params.sanity_check = false;
    assert_refused(&params, "Cannot load certificate '", "' & key '",
                   "The certificate and the given key do not match",
                   "must be the one that was made for this key", NULL);
    bf_test_write(dir, "server-key.pem", "rubbish");
    assert_refused(&params, "Cannot load certificate '", "' & key '",
                   "holds no private key", NULL);
    bf_test_remove_dir(dir);
}

/* Password "sesame", and so few rounds that opening it takes no time. */
static const char encrypted_key[] =
    "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
    "MIHrMFYGCSqGSIb3DQEFDTBJMCgGCSqGSIb3DQEFDDAbBAhWFPXBZ8Gw3AIBQDAM\n"
    "BggqhkiG9w0CCQUAMB0GCWCGSAFlAwQBKgQQB652gr88umWKJi+XD8AsWgSBkOLM\n"
    "gyB6FjG4yBT8MucU4XO4XSHFXv+ZPqJ7lSxz37Agt+4bnwaKgd+YUfbi1qOA62oN\n"
    "Vof+S7NQmSKfzrHkFiQUqMKv0Mn+Osh9UrRVQdnjpyUgWqyE5NUiwAiCvvMRy3le\n"
    "5tjt/JmhgcJkKYKETtm8pQr8VReAiyzm9gsPxhBQCuZRkDzZKdlQOZjdWF1THw==\n"
    "-----END ENCRYPTED PRIVATE KEY-----\n";

static gnutls_x509_privkey_t
open_encrypted_key(void)
{
    gnutls_datum_t pem = {(unsigned char *)encrypted_key,
                          sizeof(encrypted_key) - 1};
    gnutls_x509_privkey_t key;

    g_assert_cmpint(gnutls_x509_privkey_init(&key), ==, 0);
    g_assert_cmpint(gnutls_x509_privkey_import2(key, &pem, GNUTLS_X509_FMT_PEM,
                                                "sesame", 0),
                    ==, 0);
    return key;
}

static void
test_encrypted_key_needs_its_password(void)
{
    char *dir = bf_test_tmp_dir();
    gnutls_x509_privkey_t key = open_encrypted_key();
    const BfTestCertSpec spec = {.cn = "server1", .key = key};
    g_autoptr(BfTestCert) leaf = bf_test_cert_new(&spec, ca);
    BfTlsCredsParams params = server_params(dir);
    g_autoptr(BfSecret) right = bf_secret_new_bytes("sesame", 6);
    g_autoptr(BfSecret) wrong = bf_secret_new_bytes("simsala", 7);
    g_autoptr(BfSecret) binary = bf_secret_new_bytes("\xff\xfe", 2);

    bf_test_write_certs(dir, "ca-cert.pem", ca, NULL);
    bf_test_write_certs(dir, "server-cert.pem", leaf, NULL);
    bf_test_write(dir, "server-key.pem", encrypted_key);
    assert_refused(&params, "Decryption has failed", "set 'passwordid'", NULL);
    params.password = wrong;
    params.password_id = "pw0";
    assert_refused(&params, "Decryption has failed", "does not open the key",
                   NULL);
    params.password = binary;
    assert_refused(&params, "Data from secret pw0 is not valid UTF-8", NULL);
    params.password = right;
    assert_loads(&params);
    bf_test_write_key(dir, "server-key.pem", leaf);
    assert_loads(&params);
    bf_test_remove_dir(dir);
    gnutls_x509_privkey_deinit(key);
}

static void
test_damaged_certificates_are_named(void)
{
    char *dir = new_server_dir(&good_leaf, ca);
    BfTlsCredsParams params = server_params(dir);

    bf_test_write(dir, "server-cert.pem", "rubbish");
    assert_refused(&params, "Unable to import server certificate",
                   "server-cert.pem", "not in PEM form", NULL);
    bf_test_write(dir, "server-cert.pem", "");
    assert_refused(&params, "Unable to import server certificate", NULL);
    bf_test_write(dir, "server-cert.pem",
                  "-----BEGIN CERTIFICATE-----\nAAAA\n"
                  "-----END CERTIFICATE-----\n");
    assert_refused(&params, "Unable to import server certificate", "is damaged",
                   NULL);
    bf_test_remove_dir(dir);

    dir = new_server_dir(&good_leaf, ca);
    params = server_params(dir);
    bf_test_write_key(dir, "ca-cert.pem", ca);
    assert_refused(&params, "Unable to import CA certificate list",
                   "holds no certificate", NULL);
    bf_test_remove_dir(dir);
}

static void
test_crl_and_dh_are_loaded_if_there(void)
{
    char *dir = new_server_dir(&good_leaf, ca);
    BfTlsCredsParams params = server_params(dir);

    bf_test_write_crl(dir, "ca-crl.pem", ca, NULL);
    assert_loads(&params);
    bf_test_write(dir, "ca-crl.pem", "rubbish");
    assert_refused(&params, "Cannot load CRL '", "ca-crl.pem", NULL);
    bf_test_write_crl(dir, "ca-crl.pem", ca, NULL);
    bf_test_write(dir, "dh-params.pem", "rubbish");
    assert_refused(&params, "Unable to load DH parameters from",
                   "dh-params.pem", NULL);
    bf_test_remove_dir(dir);
}

static void
test_priority_is_checked_at_once(void)
{
    char *dir = new_server_dir(&good_leaf, ca);
    BfTlsCredsParams params = server_params(dir);

    params.priority = "BOGUS";
    assert_refused(&params, "priority 'BOGUS'", NULL);
    params.priority = "NORMAL:+NO-SUCH-THING";
    assert_refused(&params, "NO-SUCH-THING", NULL);
    params.priority = "NONE";
    assert_refused(&params, "priority 'NONE'", NULL);
    params.priority = "NORMAL:-VERS-ALL";
    assert_refused(&params, "priority 'NORMAL:-VERS-ALL'", NULL);
    params.priority = "NORMAL:-VERS-ALL:+VERS-TLS1.2";
    assert_loads(&params);
    bf_test_remove_dir(dir);
}

static void
test_role_is_checked(void)
{
    char *dir = new_server_dir(&good_leaf, ca);
    BfTlsCredsParams params = server_params(dir);
    g_autoptr(BfTlsCreds) server = bf_tls_creds_new(&params, NULL);
    g_autoptr(GError) error = NULL;

    g_assert_true(
        bf_tls_creds_check_endpoint(server, BF_TLS_ENDPOINT_SERVER, &error));
    g_assert_false(
        bf_tls_creds_check_endpoint(server, BF_TLS_ENDPOINT_CLIENT, &error));
    g_assert_cmpstr(error->message, ==,
                    "Expected TLS credentials for a client endpoint");
    g_assert_cmpint(bf_tls_creds_get_kind(server), ==, BF_TLS_CREDS_X509);
    bf_test_remove_dir(dir);
}

#define ADD(path, name) g_test_add_func("/crypto/tls-creds/" path, test_##name)

int
main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    ca = bf_test_ca_new("test ca", NULL);
    ADD("files/good-server-loads", good_server_loads);
    ADD("files/missing-are-named-in-order", missing_files_are_named_in_order);
    ADD("files/client-needs-only-a-ca", client_needs_only_a_ca);
    ADD("files/optional-absent-or-readable",
        optional_file_must_be_absent_or_readable);
    ADD("check/leaf-times", leaf_times_are_checked);
    ADD("check/leaf-must-not-be-a-ca", leaf_must_not_be_a_ca);
    ADD("check/leaf-usage", leaf_usage_is_checked_if_critical);
    ADD("check/leaf-purpose", leaf_purpose_is_checked_if_critical);
    ADD("check/tolerable-leaves-load", tolerable_leaves_load);
    ADD("check/each-ca", each_ca_is_checked);
    ADD("check/ca-usage-only-if-critical", ca_usage_matters_only_if_critical);
    ADD("check/leaf-before-signature", leaf_is_checked_before_ca_and_signature);
    ADD("check/leaf-signed-by-our-ca", leaf_must_be_signed_by_our_ca);
    ADD("check/self-signed-is-refused", self_signed_leaf_is_refused);
    ADD("check/intermediate-in-either-file",
        intermediate_may_be_in_either_file);
    ADD("check/expired-intermediate", expired_intermediate_is_found);
    ADD("load/key-must-match", key_must_match);
    ADD("load/encrypted-key", encrypted_key_needs_its_password);
    ADD("load/damaged-certificates", damaged_certificates_are_named);
    ADD("load/crl-and-dh", crl_and_dh_are_loaded_if_there);
    ADD("load/priority", priority_is_checked_at_once);
    ADD("role/is-checked", role_is_checked);
    ret = g_test_run();
    bf_test_cert_free(ca);
    return ret;
}
