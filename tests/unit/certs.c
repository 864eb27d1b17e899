/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Makes certificates for tests.
 */
#include "certs.h"

#include <gnutls/x509-ext.h>

#include <arpa/inet.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <glib/gstdio.h>

#define ok(call) g_assert_cmpint((call), >=, 0)

static gnutls_x509_privkey_t
new_key(const BfTestCertSpec *spec)
{
    static gnutls_x509_privkey_t rsa_key; /* slow to make: one for all */
    gnutls_x509_privkey_t key;

    ok(gnutls_x509_privkey_init(&key));
    if (spec->key != NULL) {
        ok(gnutls_x509_privkey_cpy(key, spec->key));
        return key;
    }
    if (!spec->rsa) {
        ok(gnutls_x509_privkey_generate(
            key, GNUTLS_PK_ECDSA,
            GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
        return key;
    }
    if (rsa_key == NULL) {
        ok(gnutls_x509_privkey_init(&rsa_key));
        ok(gnutls_x509_privkey_generate(rsa_key, GNUTLS_PK_RSA, 2048, 0));
    }
    ok(gnutls_x509_privkey_cpy(key, rsa_key));
    return key;
}

static void
set_name(gnutls_x509_crt_t crt, const char *oid, const char *value)
{
    if (value != NULL) {
        ok(gnutls_x509_crt_set_dn_by_oid(crt, oid, 0, value, strlen(value)));
    }
}

static void
set_usage(gnutls_x509_crt_t crt, unsigned int usage, bool critical)
{
    gnutls_datum_t der;

    /* gnutls_x509_crt_set_key_usage() can only make a critical one. */
    ok(gnutls_x509_ext_export_key_usage(usage, &der));
    ok(gnutls_x509_crt_set_extension_by_oid(crt, "2.5.29.15", der.data,
                                            der.size, critical));
    gnutls_free(der.data);
}

static void
set_ip(gnutls_x509_crt_t crt, const char *ip)
{
    unsigned char bytes[16];
    size_t size = strchr(ip, ':') != NULL ? 16 : 4;

    g_assert_cmpint(inet_pton(size == 16 ? AF_INET6 : AF_INET, ip, bytes), ==,
                    1);
    ok(gnutls_x509_crt_set_subject_alt_name(crt, GNUTLS_SAN_IPADDRESS, bytes,
                                            size, GNUTLS_FSAN_APPEND));
}

static void
set_extensions(gnutls_x509_crt_t crt, const BfTestCertSpec *spec)
{
    if (spec->ca != 0) {
        ok(gnutls_x509_crt_set_basic_constraints(crt, spec->ca > 0, -1));
    }
    if (spec->usage != 0) {
        set_usage(crt, spec->usage, spec->usage_critical);
    }
    if (spec->purpose != NULL) {
        ok(gnutls_x509_crt_set_key_purpose_oid(crt, spec->purpose,
                                               spec->purpose_critical));
    }
    for (int i = 0; spec->dns[i] != NULL; i++) {
        ok(gnutls_x509_crt_set_subject_alt_name(
            crt, GNUTLS_SAN_DNSNAME, spec->dns[i], strlen(spec->dns[i]),
            GNUTLS_FSAN_APPEND));
    }
    if (spec->ip != NULL) {
        set_ip(crt, spec->ip);
    }
}

/* Ties a certificate to its issuer's key, and does not lean on names only. */
static void
set_key_ids(gnutls_x509_crt_t crt, gnutls_x509_crt_t issuer)
{
    unsigned char id[64];
    size_t size = sizeof(id);

    ok(gnutls_x509_crt_get_key_id(crt, 0, id, &size));
    ok(gnutls_x509_crt_set_subject_key_id(crt, id, size));
    size = sizeof(id);
    ok(gnutls_x509_crt_get_key_id(issuer, 0, id, &size));
    ok(gnutls_x509_crt_set_authority_key_id(crt, id, size));
}

BfTestCert *
bf_test_cert_new(const BfTestCertSpec *spec, const BfTestCert *issuer)
{
    static guint32 last_serial;
    BfTestCert *cert = g_new0(BfTestCert, 1);
    guint32 serial = htonl(++last_serial + 0x1000000);
    time_t now = time(NULL);

    cert->key = new_key(spec);
    ok(gnutls_x509_crt_init(&cert->crt));
    ok(gnutls_x509_crt_set_version(cert->crt, 3));
    ok(gnutls_x509_crt_set_serial(cert->crt, &serial, sizeof(serial)));
    ok(gnutls_x509_crt_set_key(cert->crt, cert->key));
    set_name(cert->crt, GNUTLS_OID_X520_COUNTRY_NAME, spec->country);
    set_name(cert->crt, GNUTLS_OID_X520_ORGANIZATION_NAME, spec->organization);
    set_name(cert->crt, GNUTLS_OID_X520_COMMON_NAME, spec->cn);
    ok(gnutls_x509_crt_set_activation_time(
        cert->crt, now + (spec->from_s != 0 ? spec->from_s : -3600)));
    ok(gnutls_x509_crt_set_expiration_time(
        cert->crt, now + (spec->until_s != 0 ? spec->until_s : 86400)));
    set_extensions(cert->crt, spec);
    if (issuer == NULL) {
        issuer = cert;
    }
    set_key_ids(cert->crt, issuer->crt);
    ok(gnutls_x509_crt_sign2(cert->crt, issuer->crt, issuer->key,
                             GNUTLS_DIG_SHA256, 0));
    return cert;
}

BfTestCert *
bf_test_ca_new(const char *cn, const BfTestCert *issuer)
{
    const BfTestCertSpec spec = {
        .cn = cn,
        .ca = 1,
        .usage = GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN,
        .usage_critical = true,
    };

    return bf_test_cert_new(&spec, issuer);
}

void
bf_test_cert_free(BfTestCert *cert)
{
    if (cert != NULL) {
        gnutls_x509_crt_deinit(cert->crt);
        gnutls_x509_privkey_deinit(cert->key);
        g_free(cert);
    }
}

void
bf_test_write(const char *dir, const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    g_autoptr(GError) error = NULL;

    g_file_set_contents(path, text, -1, &error);
    g_assert_no_error(error);
}

static void
append_datum(GString *text, gnutls_datum_t *datum)
{
    g_string_append_len(text, (const char *)datum->data, datum->size);
    gnutls_free(datum->data);
}

void
bf_test_write_certs(const char *dir, const char *name, const BfTestCert *first,
                    ...)
{
    g_autoptr(GString) text = g_string_new(NULL);
    va_list args;

    va_start(args, first);
    for (const BfTestCert *cert = first; cert != NULL;
         cert = va_arg(args, const BfTestCert *)) {
        gnutls_datum_t pem;

        ok(gnutls_x509_crt_export2(cert->crt, GNUTLS_X509_FMT_PEM, &pem));
        append_datum(text, &pem);
    }
    va_end(args);
    bf_test_write(dir, name, text->str);
}

void
bf_test_write_key(const char *dir, const char *name, const BfTestCert *cert)
{
    g_autoptr(GString) text = g_string_new(NULL);
    gnutls_datum_t pem;

    ok(gnutls_x509_privkey_export2(cert->key, GNUTLS_X509_FMT_PEM, &pem));
    append_datum(text, &pem);
    bf_test_write(dir, name, text->str);
}

void
bf_test_write_crl(const char *dir, const char *name, const BfTestCert *issuer,
                  const BfTestCert *revoked)
{
    static const unsigned char number[] = {1};
    g_autoptr(GString) text = g_string_new(NULL);
    time_t now = time(NULL);
    gnutls_x509_crl_t crl;
    gnutls_datum_t pem;

    ok(gnutls_x509_crl_init(&crl));
    ok(gnutls_x509_crl_set_version(crl, 2));
    ok(gnutls_x509_crl_set_number(crl, number, sizeof(number)));
    ok(gnutls_x509_crl_set_this_update(crl, now - 60));
    ok(gnutls_x509_crl_set_next_update(crl, now + 86400));
    if (revoked != NULL) {
        ok(gnutls_x509_crl_set_crt(crl, revoked->crt, now - 60));
    }
    ok(gnutls_x509_crl_sign2(crl, issuer->crt, issuer->key, GNUTLS_DIG_SHA256,
                             0));
    ok(gnutls_x509_crl_export2(crl, GNUTLS_X509_FMT_PEM, &pem));
    gnutls_x509_crl_deinit(crl);
    append_datum(text, &pem);
    bf_test_write(dir, name, text->str);
}

char *
bf_test_tmp_dir(void)
{
    g_autoptr(GError) error = NULL;
    char *dir = g_dir_make_tmp("blockferry-test-XXXXXX", &error);

    g_assert_no_error(error);
    return dir;
}

void
bf_test_remove_dir(char *dir)
{
    GDir *entries = g_dir_open(dir, 0, NULL);
    const char *name;

    g_assert_nonnull(entries);
    while ((name = g_dir_read_name(entries)) != NULL) {
        g_autofree char *path = g_build_filename(dir, name, NULL);

        g_unlink(path);
    }
    g_dir_close(entries);
    g_rmdir(dir);
    g_free(dir);
}
