/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Credentials in X.509 certificates: which files there are, and what becomes of
 * them.
 *
 * All files are read before the first is parsed, so that one missing is the
 * first complaint, and each step goes on without what an earlier one found
 * faulty, so that a report is complete.
 */
#include "tls-private.h"

#include <string.h>

enum {
    FILE_CA,
    FILE_CRL,
    FILE_CERT,
    FILE_KEY,
    FILE_DH,
    N_FILES,
};

/* By endpoint, for messages. */
static const char *const needed_files[] = {
    [BF_TLS_ENDPOINT_CLIENT] = "ca-cert.pem",
    [BF_TLS_ENDPOINT_SERVER] = "ca-cert.pem, server-cert.pem and "
                               "server-key.pem",
};

typedef struct FileRule {
    const char *name; /* NULL: not used on this side */
    BfTlsFileUse use;
} FileRule;

/* Indexed by endpoint; the order is that in which a missing file is found. */
static const FileRule file_rules[][N_FILES] = {
    [BF_TLS_ENDPOINT_CLIENT] =
        {
            [FILE_CA] = {"ca-cert.pem", BF_TLS_FILE_REQUIRED},
            [FILE_CRL] = {"ca-crl.pem", BF_TLS_FILE_OPTIONAL},
            [FILE_CERT] = {"client-cert.pem", BF_TLS_FILE_OPTIONAL},
            [FILE_KEY] = {"client-key.pem",
                          BF_TLS_FILE_OPTIONAL | BF_TLS_FILE_SECRET},
        },
    [BF_TLS_ENDPOINT_SERVER] =
        {
            [FILE_CA] = {"ca-cert.pem", BF_TLS_FILE_REQUIRED},
            [FILE_CRL] = {"ca-crl.pem", BF_TLS_FILE_OPTIONAL},
            [FILE_CERT] = {"server-cert.pem", BF_TLS_FILE_REQUIRED},
            [FILE_KEY] = {"server-key.pem",
                          BF_TLS_FILE_REQUIRED | BF_TLS_FILE_SECRET},
            [FILE_DH] = {"dh-params.pem", BF_TLS_FILE_OPTIONAL},
        },
};

/* What is loaded, and all that the steps share. */
typedef struct Loading {
    const BfTlsCredsParams *params;
    BfTlsMaterial *material;
    BfTlsReport *report;
    BfTlsFile files[N_FILES]; /* keys are among them */
    BfTlsCerts ca;
    BfTlsCerts leaf;
    gnutls_x509_crl_t *crls;
    unsigned int n_crls;
} Loading;

static void
certs_clear(BfTlsCerts *certs)
{
    for (unsigned int i = 0; i < certs->len; i++) {
        gnutls_x509_crt_deinit(certs->certs[i]);
    }
    gnutls_free(certs->certs);
    certs->certs = NULL;
    certs->len = 0;
}

static void
loading_clear(Loading *loading)
{
    certs_clear(&loading->ca);
    certs_clear(&loading->leaf);
    for (unsigned int i = 0; i < loading->n_crls; i++) {
        gnutls_x509_crl_deinit(loading->crls[i]);
    }
    gnutls_free(loading->crls);
    for (int i = 0; i < N_FILES; i++) {
        bf_tls_file_clear(&loading->files[i]);
    }
}

static void
read_files(Loading *loading)
{
    BfTlsEndpoint endpoint = loading->params->endpoint;

    for (int i = 0; i < N_FILES; i++) {
        const FileRule *rule = &file_rules[endpoint][i];

        if (rule->name != NULL) {
            bf_tls_file_read(&loading->files[i], loading->params->dir,
                             rule->name, needed_files[endpoint], rule->use,
                             loading->report);
            bf_tls_material_add_file(loading->material, &loading->files[i]);
        }
    }
}

/* What to tell a user whose file could not be parsed. */
static const char *
pem_hint(const gnutls_datum_t *datum)
{
    const char *text = (const char *)datum->data; /* a NUL follows */

    if (strstr(text, "-----BEGIN ") == NULL) {
        return "the file is not in PEM form (is it DER? "
               "'openssl x509 -inform der' converts it)";
    }
    if (strstr(text, "CERTIFICATE-----") == NULL) {
        return "the file holds no certificate";
    }
    return "a certificate in the file is damaged";
}

static void
import_certs(Loading *loading, int which, const char *what, unsigned int flags,
             BfTlsCerts *certs)
{
    gnutls_datum_t datum = bf_tls_file_datum(&loading->files[which]);
    int ret;

    certs->path = loading->files[which].path;
    ret = gnutls_x509_crt_list_import2(&certs->certs, &certs->len, &datum,
                                       GNUTLS_X509_FMT_PEM, flags);
    if (ret == GNUTLS_E_UNIMPLEMENTED_FEATURE) {
        /* More than the library sorts (16): as the file has them. */
        ret = gnutls_x509_crt_list_import2(
            &certs->certs, &certs->len, &datum, GNUTLS_X509_FMT_PEM,
            flags & ~(unsigned)GNUTLS_X509_CRT_LIST_SORT);
    }
    if (ret < 0 || certs->len == 0) {
        g_autofree char *text =
            bf_tls_error_text(ret < 0 ? ret : GNUTLS_E_NO_CERTIFICATE_FOUND);

        certs->certs = NULL;
        certs->len = 0;
        bf_tls_report_error(loading->report, "Unable to import %s %s: %s: %s",
                            what, certs->path, pem_hint(&datum), text);
    }
}

static void
import_crls(Loading *loading)
{
    const BfTlsFile *file = &loading->files[FILE_CRL];
    gnutls_datum_t datum = bf_tls_file_datum(file);
    int ret = gnutls_x509_crl_list_import2(&loading->crls, &loading->n_crls,
                                           &datum, GNUTLS_X509_FMT_PEM, 0);

    if (ret < 0 || loading->n_crls == 0) {
        g_autofree char *text =
            bf_tls_error_text(ret < 0 ? ret : GNUTLS_E_NO_CERTIFICATE_FOUND);

        loading->crls = NULL;
        loading->n_crls = 0;
        bf_tls_report_error(loading->report,
                            "Cannot load CRL '%s': %s; the file must hold "
                            "revocation lists in PEM form, remove it if there "
                            "is none",
                            file->path, text);
    }
}

static void
parse_files(Loading *loading)
{
    const BfTlsFile *files = loading->files;

    /* A client without both files just has no certificate. */
    if (files[FILE_CERT].data != NULL &&
        (files[FILE_KEY].data != NULL ||
         loading->params->endpoint == BF_TLS_ENDPOINT_SERVER)) {
        import_certs(loading, FILE_CERT,
                     loading->params->endpoint == BF_TLS_ENDPOINT_SERVER
                         ? "server certificate"
                         : "client certificate",
                     GNUTLS_X509_CRT_LIST_SORT, &loading->leaf);
    } else if ((files[FILE_CERT].data != NULL) !=
               (files[FILE_KEY].data != NULL)) {
        bf_tls_report_warning(
            loading->report,
            "%s is there without %s, so the client has no certificate to show",
            files[files[FILE_CERT].data != NULL ? FILE_CERT : FILE_KEY].path,
            files[files[FILE_CERT].data != NULL ? FILE_KEY : FILE_CERT].path);
    }
    if (files[FILE_CA].data != NULL) {
        import_certs(loading, FILE_CA, "CA certificate list", 0, &loading->ca);
    }
    if (files[FILE_CRL].data != NULL) {
        import_crls(loading);
    }
}

/* Both kinds of PEM: PKCS#8, and the older one of OpenSSL. */
static bool
is_encrypted(const gnutls_datum_t *datum)
{
    const char *text = (const char *)datum->data; /* a NUL follows */

    return strstr(text, "BEGIN ENCRYPTED PRIVATE KEY") != NULL ||
           strstr(text, "Proc-Type: 4,ENCRYPTED") != NULL;
}

static const char *
key_hint(int ret, bool have_password, const gnutls_datum_t *datum)
{
    if (strstr((const char *)datum->data, "PRIVATE KEY-----") == NULL) {
        return "; the key file holds no private key in PEM form";
    }
    if (ret == GNUTLS_E_CERTIFICATE_KEY_MISMATCH) {
        return "; the first certificate in the file must be the one that was "
               "made for this key";
    }
    if (is_encrypted(datum)) {
        return have_password
                   ? "; the password that 'passwordid' names does not open "
                     "the key"
                   : "; the key is encrypted, set 'passwordid' to the id of a "
                     "secret with its password";
    }
    return "";
}

/* Returns false if there is a password that cannot be used. */
static bool
get_password(Loading *loading, const char **ret_password)
{
    const BfTlsCredsParams *params = loading->params;
    g_autoptr(GError) error = NULL;

    *ret_password = NULL;
    if (params->password != NULL) {
        *ret_password = bf_secret_get_text(
            params->password,
            params->password_id != NULL ? params->password_id : "", &error);
    }
    if (error != NULL) {
        bf_tls_report_error(loading->report, "%s", error->message);
    }
    return error == NULL;
}

static void
load_key(Loading *loading)
{
    gnutls_datum_t datum = bf_tls_file_datum(&loading->files[FILE_KEY]);
    const char *password;
    gnutls_x509_privkey_t key = NULL;
    int ret;

    if (!get_password(loading, &password)) {
        return;
    }
    ret = gnutls_x509_privkey_init(&key);
    if (ret == 0) {
        ret = gnutls_x509_privkey_import2(key, &datum, GNUTLS_X509_FMT_PEM,
                                          password, 0);
    }
    if (ret == 0) {
        ret = gnutls_certificate_set_x509_key(loading->material->x509,
                                              loading->leaf.certs,
                                              loading->leaf.len, key);
    }
    gnutls_x509_privkey_deinit(key);
    if (ret < 0) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_tls_report_error(
            loading->report, "Cannot load certificate '%s' & key '%s': %s%s",
            loading->files[FILE_CERT].path, loading->files[FILE_KEY].path, text,
            key_hint(ret, password != NULL, &datum));
    }
}

static void
load_trust(Loading *loading)
{
    int ret = gnutls_certificate_set_x509_trust(
        loading->material->x509, loading->ca.certs, loading->ca.len);

    if (ret < 0) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_tls_report_error(loading->report,
                            "Cannot load CA certificate '%s': %s",
                            loading->ca.path, text);
    }
    if (loading->n_crls == 0) {
        return;
    }
    ret = gnutls_certificate_set_x509_crl(loading->material->x509,
                                          loading->crls, loading->n_crls);
    if (ret < 0) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_tls_report_error(loading->report, "Cannot load CRL '%s': %s",
                            loading->files[FILE_CRL].path, text);
    }
}

static void
load_all(Loading *loading)
{
    const BfTlsFile *dh = &loading->files[FILE_DH];
    gnutls_datum_t datum;
    int ret = gnutls_certificate_allocate_credentials(&loading->material->x509);

    g_assert(ret >= 0); /* all that can fail is allocation */
    if (loading->ca.len > 0) {
        load_trust(loading);
    }
    if (loading->leaf.len > 0 && loading->files[FILE_KEY].data != NULL) {
        load_key(loading);
    }
    if (loading->params->endpoint == BF_TLS_ENDPOINT_SERVER) {
        if (dh->data != NULL) {
            datum = bf_tls_file_datum(dh);
        }
        bf_tls_load_dh(loading->material, dh->data != NULL ? &datum : NULL,
                       dh->path, loading->report);
    }
}

static void
check(Loading *loading)
{
    const BfTlsOwn own = {
        .endpoint = loading->params->endpoint,
        .leaf = &loading->leaf,
        .ca = &loading->ca,
        .crls = loading->crls,
        .n_crls = loading->n_crls,
        .crl_path = loading->files[FILE_CRL].path,
    };

    if (loading->params->sanity_check) {
        bf_tls_check_own(&own, loading->report);
    }
    bf_tls_check_soon(&own, loading->params, loading->report);
    bf_tls_describe_certs(&own, loading->material->info);
}

void
bf_tls_load_x509(BfTlsMaterial *material, const BfTlsCredsParams *params,
                 BfTlsReport *report)
{
    Loading loading = {
        .params = params, .material = material, .report = report};

    if (params->dir == NULL || *params->dir == '\0') {
        bf_tls_report_error(report, "Missing 'dir' property value: the "
                                    "directory that holds the certificates");
        return;
    }
    read_files(&loading);
    parse_files(&loading);
    check(&loading);
    load_all(&loading);
    material->peer_file = g_strdup(loading.files[FILE_CA].path);
    loading_clear(&loading);
}
