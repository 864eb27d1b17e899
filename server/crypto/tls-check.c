/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checks of our own certificates before they are put to use.
 *
 * A mistake found here is a clear message to whoever sets the daemon up; found
 * later it is a closed connection without a reason. The order of the checks and
 * the first phrase of each message are known to users, keep them.
 */
#include "tls-private.h"

#include <gnutls/x509-ext.h>
#include <time.h>

#include "core/error.h"

/* What is being checked, and as what. */
typedef struct Subject {
    gnutls_x509_crt_t cert;
    const char *path;
    const char *role; /* "server", "client" or "CA" */
    const char *label;
    bool is_ca;
} Subject;

static bool
check_times(const Subject *s, GError **error)
{
    time_t now = time(NULL);
    time_t from = gnutls_x509_crt_get_activation_time(s->cert);
    time_t until = gnutls_x509_crt_get_expiration_time(s->cert);
    g_autofree char *now_text = bf_tls_time_text(now);

    if (until < now) {
        g_autofree char *text = bf_tls_time_text(until);

        bf_set_error(error,
                     "The %s certificate %s has expired: '%s' was valid until "
                     "%s and it is %s now; issue a new certificate, or correct "
                     "this host's clock",
                     s->role, s->path, s->label, text, now_text);
        return false;
    }
    if (from > now) {
        g_autofree char *text = bf_tls_time_text(from);

        bf_set_error(error,
                     "The %s certificate %s is not yet active: '%s' is valid "
                     "from %s and it is %s now; wait, issue a new certificate, "
                     "or correct this host's clock",
                     s->role, s->path, s->label, text, now_text);
        return false;
    }
    return true;
}

static bool
check_basic_constraints(const Subject *s, GError **error)
{
    int ret = gnutls_x509_crt_get_basic_constraints(s->cert, NULL, NULL, NULL);

    if (ret > 0 && !s->is_ca) {
        bf_set_error(error,
                     "The certificate %s basic constraints show a CA, but we "
                     "need one for a %s; issue a certificate for '%s' that has "
                     "CA:FALSE, and put it first in the file",
                     s->path, s->role, s->label);
        return false;
    }
    if (ret == 0 && s->is_ca) {
        bf_set_error(error,
                     "The certificate %s basic constraints do not show a CA: "
                     "'%s' has CA:FALSE; the file must hold the certificate "
                     "that signs the others, with CA:TRUE",
                     s->path, s->label);
        return false;
    }
    if (ret == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE && s->is_ca) {
        bf_set_error(error,
                     "The certificate %s is missing basic constraints for a "
                     "CA: issue '%s' again with the extension "
                     "basicConstraints CA:TRUE",
                     s->path, s->label);
        return false;
    }
    if (ret < 0 && ret != GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_set_error(error,
                     "Unable to query certificate %s basic constraints: %s; "
                     "'%s' is damaged, issue it again",
                     s->path, text, s->label);
        return false;
    }
    return true;
}

/* @permission and @bit are the names by which people and tools know @flag. */
static bool
check_usage_flag(const Subject *s, unsigned int usage, unsigned int flag,
                 const char *permission, const char *bit, GError **error)
{
    if (usage & flag) {
        return true;
    }
    bf_set_error(error,
                 "Certificate %s usage does not permit %s: the critical "
                 "keyUsage of '%s' lacks %s; issue the certificate with it",
                 s->path, permission, s->label, bit);
    return false;
}

static bool
check_usage(const Subject *s, GError **error)
{
    unsigned int usage = 0;
    unsigned int critical = 0;
    int ret = gnutls_x509_crt_get_key_usage(s->cert, &usage, &critical);

    if (ret == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
        return true; /* without the extension everything is allowed */
    }
    if (ret < 0) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_set_error(error,
                     "Unable to query certificate %s key usage: %s; '%s' is "
                     "damaged, issue it again",
                     s->path, text, s->label);
        return false;
    }
    if (!critical) {
        return true;
    }
    if (s->is_ca) {
        return check_usage_flag(s, usage, GNUTLS_KEY_KEY_CERT_SIGN,
                                "certificate signing", "keyCertSign", error);
    }
    if (!check_usage_flag(s, usage, GNUTLS_KEY_DIGITAL_SIGNATURE,
                          "digital signature", "digitalSignature", error)) {
        return false;
    }
    /* Only RSA keys can encrypt a session key. */
    return gnutls_x509_crt_get_pk_algorithm(s->cert, NULL) != GNUTLS_PK_RSA ||
           check_usage_flag(s, usage, GNUTLS_KEY_KEY_ENCIPHERMENT,
                            "key encipherment", "keyEncipherment", error);
}

static bool
check_purpose(const Subject *s, const char *needed, GError **error)
{
    bool demanded = false; /* a critical extension, and no fitting purpose */

    for (unsigned int i = 0;; i++) {
        char oid[128];
        size_t size = sizeof(oid);
        unsigned int critical = 0;
        int ret = gnutls_x509_crt_get_key_purpose_oid(s->cert, i, oid, &size,
                                                      &critical);

        if (ret == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
            break;
        }
        if (ret == GNUTLS_E_SHORT_MEMORY_BUFFER) {
            demanded |= critical; /* longer than any that we look for */
            continue;
        }
        if (ret < 0) {
            g_autofree char *text = bf_tls_error_text(ret);

            bf_set_error(error,
                         "Unable to query certificate %s key purpose: %s; "
                         "'%s' is damaged, issue it again",
                         s->path, text, s->label);
            return false;
        }
        if (g_str_equal(oid, needed) || g_str_equal(oid, GNUTLS_KP_ANY)) {
            return true;
        }
        demanded |= critical;
    }
    if (demanded) {
        bf_set_error(error,
                     "Certificate %s purpose does not allow use with a TLS "
                     "%s: the critical extendedKeyUsage of '%s' lacks %sAuth; "
                     "issue the certificate with it",
                     s->path, s->role, s->label, s->role);
        return false;
    }
    return true;
}

static bool
check_cert(BfTlsEndpoint endpoint, gnutls_x509_crt_t cert, const char *path,
           bool is_ca, GError **error)
{
    bool is_server = endpoint == BF_TLS_ENDPOINT_SERVER;
    g_autofree char *label = bf_tls_cert_label(cert);
    const Subject subject = {
        .cert = cert,
        .path = path,
        .role = is_ca       ? "CA"
                : is_server ? "server"
                            : "client",
        .label = label,
        .is_ca = is_ca,
    };

    return check_times(&subject, error) &&
           check_basic_constraints(&subject, error) &&
           check_usage(&subject, error) &&
           (is_ca || check_purpose(&subject,
                                   is_server ? GNUTLS_KP_TLS_WWW_SERVER
                                             : GNUTLS_KP_TLS_WWW_CLIENT,
                                   error));
}

/* Names the intermediate that is out of its time, if there is one. */
static bool
check_intermediate_times(const BfTlsCerts *leaf, GError **error)
{
    for (unsigned int i = 1; i < leaf->len; i++) {
        g_autofree char *label = bf_tls_cert_label(leaf->certs[i]);
        const Subject subject = {
            .cert = leaf->certs[i],
            .path = leaf->path,
            .role = "intermediate",
            .label = label,
        };

        if (!check_times(&subject, error)) {
            return false;
        }
    }
    return true;
}

static void
set_unsigned_error(const BfTlsCerts *leaf, const BfTlsCerts *ca,
                   unsigned int status, GError **error)
{
    gnutls_x509_crt_t last = leaf->certs[leaf->len - 1];
    g_autofree char *issuer = bf_tls_cert_issuer_label(last);
    const char *reason = bf_tls_chain_reason(status);

    if (status & GNUTLS_CERT_SIGNER_NOT_FOUND) {
        bf_set_error(error,
                     "Our own certificate %s failed validation against %s: %s; "
                     "add the certificate of '%s' to %s if it is a root, or "
                     "behind the leaf in %s if it is an intermediate",
                     leaf->path, ca->path, reason, issuer, ca->path,
                     leaf->path);
    } else {
        bf_set_error(error,
                     "Our own certificate %s failed validation against %s: %s; "
                     "issue it again (issuer '%s')",
                     leaf->path, ca->path, reason, issuer);
    }
}

/* Intermediates in the leaf's file count: the peer gets them as well. */
static bool
check_signed(BfTlsEndpoint endpoint, const BfTlsCerts *leaf,
             const BfTlsCerts *ca, GError **error)
{
    unsigned int status = 0;
    int ret = gnutls_x509_crt_list_verify(leaf->certs, leaf->len, ca->certs,
                                          ca->len, NULL, 0, 0, &status);

    if (ret < 0) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_set_error(error,
                     "Unable to verify %s certificate %s against CA "
                     "certificate %s: %s",
                     endpoint == BF_TLS_ENDPOINT_SERVER ? "server" : "client",
                     leaf->path, ca->path, text);
        return false;
    }
    if (status == 0) {
        return true;
    }
    if (status & (GNUTLS_CERT_EXPIRED | GNUTLS_CERT_NOT_ACTIVATED) &&
        !check_intermediate_times(leaf, error)) {
        return false;
    }
    set_unsigned_error(leaf, ca, status, error);
    return false;
}

bool
bf_tls_check_own(BfTlsEndpoint endpoint, const BfTlsCerts *leaf,
                 const BfTlsCerts *ca, GError **error)
{
    if (leaf->len > 0 &&
        !check_cert(endpoint, leaf->certs[0], leaf->path, false, error)) {
        return false;
    }
    for (unsigned int i = 0; i < ca->len; i++) {
        if (!check_cert(endpoint, ca->certs[i], ca->path, true, error)) {
            return false;
        }
    }
    return leaf->len == 0 || check_signed(endpoint, leaf, ca, error);
}
