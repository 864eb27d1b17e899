/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS credentials: finds, reads and loads the files.
 *
 * Every file is read once, and what was checked is what is used. All files are
 * read before the first is parsed, so that one missing is the first complaint.
 */
#include "crypto/tls-creds.h"

#include <errno.h>
#include <string.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include "core/error.h"
#include "tls-private.h"

/* TLS 1.2 and 1.3 with forward secrecy and authenticated ciphers only. */
#define PRIORITY_HEAD                                                          \
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA:-CIPHER-ALL:"
#define PRIORITY_TAIL ":%SERVER_PRECEDENCE"

/*
 * The order of ciphers decides the speed of the whole server: with AES in the
 * processor AES-GCM is about ten times as fast as ChaCha20, without it
 * ChaCha20 is the faster one by far. AES-128 comes before AES-256 since it does
 * less work and is no weaker against anything known. SERVER_PRECEDENCE makes
 * our order win over the client's, which is often made for other hardware.
 */
#define PRIORITY_AES                                                           \
    PRIORITY_HEAD "+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305" PRIORITY_TAIL
#define PRIORITY_CHACHA                                                        \
    PRIORITY_HEAD "+CHACHA20-POLY1305:+AES-128-GCM:+AES-256-GCM" PRIORITY_TAIL

enum {
    FILE_CA,
    FILE_CRL,
    FILE_CERT,
    FILE_KEY,
    FILE_DH,
    N_FILES,
};

typedef struct FileRule {
    const char *name; /* NULL: not used on this side */
    bool required;
} FileRule;

/* Indexed by endpoint; the order is that in which a missing file is found. */
static const FileRule file_rules[][N_FILES] = {
    [BF_TLS_ENDPOINT_CLIENT] =
        {
            [FILE_CA] = {"ca-cert.pem", true},
            [FILE_CERT] = {"client-cert.pem", false},
            [FILE_KEY] = {"client-key.pem", false},
        },
    [BF_TLS_ENDPOINT_SERVER] =
        {
            [FILE_CA] = {"ca-cert.pem", true},
            [FILE_CRL] = {"ca-crl.pem", false},
            [FILE_CERT] = {"server-cert.pem", true},
            [FILE_KEY] = {"server-key.pem", true},
            [FILE_DH] = {"dh-params.pem", false},
        },
};

/* All that is read from the directory; data is NULL for a file not there. */
typedef struct CredFiles {
    char *path[N_FILES];
    BfSecret *data[N_FILES]; /* keys are among them */
    BfTlsCerts ca;
    BfTlsCerts leaf;
} CredFiles;

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
files_clear(CredFiles *files)
{
    certs_clear(&files->ca);
    certs_clear(&files->leaf);
    for (int i = 0; i < N_FILES; i++) {
        g_free(files->path[i]);
        bf_secret_unref(files->data[i]);
    }
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(CredFiles, files_clear)

static gnutls_datum_t
file_datum(const CredFiles *files, int which)
{
    gnutls_datum_t datum;
    size_t size;

    datum.data =
        (unsigned char *)bf_secret_get_bytes(files->data[which], &size);
    datum.size = size; /* at most BF_TLS_FILE_MAX_BYTES */
    return datum;
}

static bool
read_files(const BfTlsCredsX509Params *params, CredFiles *files, GError **error)
{
    for (int i = 0; i < N_FILES; i++) {
        const FileRule *rule = &file_rules[params->endpoint][i];
        int ret;

        if (rule->name == NULL) {
            continue;
        }
        files->path[i] = g_build_filename(params->dir, rule->name, NULL);
        ret = bf_secret_load_file(files->path[i], BF_TLS_FILE_MAX_BYTES,
                                  &files->data[i]);
        if (ret == 0 || (ret == -ENOENT && !rule->required)) {
            continue;
        }
        bf_set_error(error, "Unable to access credentials %s: %s%s",
                     files->path[i], g_strerror(-ret),
                     ret != -ENOENT ? ""
                     : params->endpoint == BF_TLS_ENDPOINT_SERVER
                         ? "; 'dir' must hold ca-cert.pem, server-cert.pem and "
                           "server-key.pem"
                         : "; 'dir' must hold ca-cert.pem");
        return false;
    }
    return true;
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

static bool
import_certs(const CredFiles *files, int which, const char *what,
             unsigned int flags, BfTlsCerts *ret_certs, GError **error)
{
    gnutls_datum_t datum = file_datum(files, which);
    int ret;

    ret_certs->path = files->path[which];
    ret = gnutls_x509_crt_list_import2(&ret_certs->certs, &ret_certs->len,
                                       &datum, GNUTLS_X509_FMT_PEM, flags);
    if (ret < 0 || ret_certs->len == 0) {
        g_autofree char *text = bf_tls_error_text(ret);

        ret_certs->certs = NULL;
        ret_certs->len = 0;
        bf_set_error(error, "Unable to import %s %s: %s: %s", what,
                     files->path[which], pem_hint(&datum), text);
        return false;
    }
    return true;
}

static bool
parse_certs(BfTlsEndpoint endpoint, CredFiles *files, GError **error)
{
    const char *what = endpoint == BF_TLS_ENDPOINT_SERVER
                           ? "server certificate"
                           : "client certificate";

    /* A client without both files just has no certificate. */
    if (files->data[FILE_CERT] != NULL && files->data[FILE_KEY] != NULL &&
        !import_certs(files, FILE_CERT, what, GNUTLS_X509_CRT_LIST_SORT,
                      &files->leaf, error)) {
        return false;
    }
    return import_certs(files, FILE_CA, "CA certificate list", 0, &files->ca,
                        error);
}

static const char *
key_hint(int ret, bool have_password, const gnutls_datum_t *datum)
{
    if (strstr((const char *)datum->data, "PRIVATE KEY-----") == NULL) {
        return "; the key file holds no private key in PEM form";
    }
    switch (ret) {
    case GNUTLS_E_CERTIFICATE_KEY_MISMATCH:
        return "; the first certificate in the file must be the one that was "
               "made for this key";
    case GNUTLS_E_DECRYPTION_FAILED:
        return have_password
                   ? "; the password that 'passwordid' names does not open "
                     "the key"
                   : "; the key is encrypted, set 'passwordid' to the id of a "
                     "secret with its password";
    default:
        return "";
    }
}

static bool
load_key(BfTlsCreds *creds, const BfTlsCredsX509Params *params,
         const CredFiles *files, GError **error)
{
    gnutls_datum_t datum = file_datum(files, FILE_KEY);
    const char *password = NULL;
    gnutls_x509_privkey_t key = NULL;
    int ret;

    if (params->password != NULL) {
        password = bf_secret_get_text(
            params->password,
            params->password_id != NULL ? params->password_id : "", error);
        if (password == NULL) {
            return false;
        }
    }
    ret = gnutls_x509_privkey_init(&key);
    if (ret == 0) {
        ret = gnutls_x509_privkey_import2(key, &datum, GNUTLS_X509_FMT_PEM,
                                          password, 0);
    }
    if (ret == 0) {
        ret = gnutls_certificate_set_x509_key(creds->x509, files->leaf.certs,
                                              files->leaf.len, key);
    }
    gnutls_x509_privkey_deinit(key);
    if (ret < 0) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_set_error(error, "Cannot load certificate '%s' & key '%s': %s%s",
                     files->path[FILE_CERT], files->path[FILE_KEY], text,
                     key_hint(ret, password != NULL, &datum));
        return false;
    }
    return true;
}

static bool
load_crl(BfTlsCreds *creds, const CredFiles *files, GError **error)
{
    gnutls_datum_t datum = file_datum(files, FILE_CRL);
    int ret = gnutls_certificate_set_x509_crl_mem(creds->x509, &datum,
                                                  GNUTLS_X509_FMT_PEM);

    if (ret <= 0) {
        g_autofree char *text =
            bf_tls_error_text(ret < 0 ? ret : GNUTLS_E_NO_CERTIFICATE_FOUND);

        bf_set_error(error,
                     "Cannot load CRL '%s': %s; the file must hold revocation "
                     "lists in PEM form, remove it if there is none",
                     files->path[FILE_CRL], text);
        return false;
    }
    return true;
}

/*
 * Clients that know RFC 7919 never see these parameters. Making some for the
 * others would take seconds and gain nothing over the well-known ones.
 */
static bool
load_dh(BfTlsCreds *creds, const CredFiles *files, GError **error)
{
    gnutls_datum_t datum;
    int ret;

    if (files->data[FILE_DH] == NULL) {
        gnutls_certificate_set_known_dh_params(creds->x509,
                                               GNUTLS_SEC_PARAM_MEDIUM);
        return true;
    }
    datum = file_datum(files, FILE_DH);
    ret = gnutls_dh_params_init(&creds->dh_params);
    if (ret == 0) {
        ret = gnutls_dh_params_import_pkcs3(creds->dh_params, &datum,
                                            GNUTLS_X509_FMT_PEM);
    }
    if (ret < 0) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_set_error(error,
                     "Unable to load DH parameters from %s: %s; remove the "
                     "file to use well-known parameters",
                     files->path[FILE_DH], text);
        return false;
    }
    gnutls_certificate_set_dh_params(creds->x509, creds->dh_params);
    return true;
}

static bool
load_all(BfTlsCreds *creds, const BfTlsCredsX509Params *params,
         const CredFiles *files, GError **error)
{
    int ret = gnutls_certificate_allocate_credentials(&creds->x509);

    if (ret == 0) {
        ret = gnutls_certificate_set_x509_trust(creds->x509, files->ca.certs,
                                                files->ca.len);
    }
    if (ret < 0) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_set_error(error, "Cannot load CA certificate '%s': %s",
                     files->path[FILE_CA], text);
        return false;
    }
    if (files->leaf.len > 0 && !load_key(creds, params, files, error)) {
        return false;
    }
    if (files->data[FILE_CRL] != NULL && !load_crl(creds, files, error)) {
        return false;
    }
    return params->endpoint == BF_TLS_ENDPOINT_CLIENT ||
           load_dh(creds, files, error);
}

/* False only if we know that AES would be computed in software. */
static bool
cpu_has_aes(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
    return (getauxval(AT_HWCAP) & HWCAP_AES) != 0;
#else
    return true;
#endif
}

static bool
load_priority(BfTlsCreds *creds, const char *priority, GError **error)
{
    const char *built_in = cpu_has_aes() ? PRIORITY_AES : PRIORITY_CHACHA;
    const char *wrong_at = NULL;
    int ret = gnutls_priority_init(
        &creds->priority, priority != NULL ? priority : built_in, &wrong_at);

    if (ret == 0) {
        return true;
    }
    creds->priority = NULL;
    if (priority == NULL) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_set_error(error,
                     "Cannot set the built-in TLS session priority: %s; does "
                     "this host's gnutls configuration forbid TLS 1.2 and 1.3?",
                     text);
    } else if (ret == GNUTLS_E_INVALID_REQUEST && wrong_at != NULL) {
        bf_set_error(error,
                     "Cannot set TLS session priority '%s': not understood "
                     "from '%s' on; 'gnutls-cli --list --priority STRING' "
                     "tries a string",
                     priority, wrong_at);
    } else {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_set_error(error,
                     "Cannot set TLS session priority '%s': %s; it must leave "
                     "a protocol, a cipher, a key exchange and a signature",
                     priority, text);
    }
    return false;
}

static void
creds_clear(gpointer data)
{
    BfTlsCreds *creds = data;

    if (creds->x509 != NULL) {
        gnutls_certificate_free_credentials(creds->x509);
    }
    if (creds->dh_params != NULL) {
        gnutls_dh_params_deinit(creds->dh_params);
    }
    if (creds->priority != NULL) {
        gnutls_priority_deinit(creds->priority);
    }
    g_free(creds->ca_path);
}

BfTlsCreds *
bf_tls_creds_new_x509(const BfTlsCredsX509Params *params, GError **error)
{
    g_autoptr(BfTlsCreds) creds = g_atomic_rc_box_new0(BfTlsCreds);
    g_auto(CredFiles) files = {0};

    if (params->dir == NULL) {
        bf_set_error(error, "Missing 'dir' property value: the directory that "
                            "holds the certificates");
        return NULL;
    }
    creds->kind = BF_TLS_CREDS_X509;
    creds->endpoint = params->endpoint;
    creds->verify_peer = params->verify_peer;
    if (!read_files(params, &files, error) ||
        !parse_certs(params->endpoint, &files, error)) {
        return NULL;
    }
    if (params->sanity_check &&
        !bf_tls_check_own(params->endpoint, &files.leaf, &files.ca, error)) {
        return NULL;
    }
    if (!load_all(creds, params, &files, error) ||
        !load_priority(creds, params->priority, error)) {
        return NULL;
    }
    creds->ca_path = g_steal_pointer(&files.path[FILE_CA]);
    return g_steal_pointer(&creds);
}

BfTlsCreds *
bf_tls_creds_ref(BfTlsCreds *creds)
{
    return g_atomic_rc_box_acquire(creds);
}

void
bf_tls_creds_unref(BfTlsCreds *creds)
{
    if (creds != NULL) {
        g_atomic_rc_box_release_full(creds, creds_clear);
    }
}

BfTlsCredsKind
bf_tls_creds_get_kind(const BfTlsCreds *creds)
{
    return creds->kind;
}

BfTlsEndpoint
bf_tls_creds_get_endpoint(const BfTlsCreds *creds)
{
    return creds->endpoint;
}

bool
bf_tls_creds_get_verify_peer(const BfTlsCreds *creds)
{
    return creds->verify_peer;
}

bool
bf_tls_creds_check_endpoint(const BfTlsCreds *creds, BfTlsEndpoint endpoint,
                            GError **error)
{
    if (creds->endpoint == endpoint) {
        return true;
    }
    bf_set_error(error, "Expected TLS credentials for a %s endpoint",
                 endpoint == BF_TLS_ENDPOINT_SERVER ? "server" : "client");
    return false;
}
