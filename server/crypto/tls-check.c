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

static void
check_times(const Subject *s, BfTlsReport *report)
{
    time_t now = time(NULL);
    time_t from = gnutls_x509_crt_get_activation_time(s->cert);
    time_t until = gnutls_x509_crt_get_expiration_time(s->cert);
    g_autofree char *now_text = bf_tls_time_text(now);

    if (until < now) {
        g_autofree char *text = bf_tls_time_text(until);

        bf_tls_report_error(
            report,
            "The %s certificate %s has expired: '%s' was valid until "
            "%s and it is %s now; issue a new certificate, or correct "
            "this host's clock",
            s->role, s->path, s->label, text, now_text);
        return;
    }
    if (from > now) {
        g_autofree char *text = bf_tls_time_text(from);

        bf_tls_report_error(
            report,
            "The %s certificate %s is not yet active: '%s' is valid "
            "from %s and it is %s now; wait, issue a new certificate, "
            "or correct this host's clock",
            s->role, s->path, s->label, text, now_text);
    }
}

static void
check_basic_constraints(const Subject *s, BfTlsReport *report)
{
    int ret = gnutls_x509_crt_get_basic_constraints(s->cert, NULL, NULL, NULL);

    if (ret > 0 && !s->is_ca) {
        bf_tls_report_error(
            report,
            "The certificate %s basic constraints show a CA, but we "
            "need one for a %s; issue a certificate for '%s' that has "
            "CA:FALSE, and put it first in the file",
            s->path, s->role, s->label);
        return;
    }
    if (ret == 0 && s->is_ca) {
        bf_tls_report_error(
            report,
            "The certificate %s basic constraints do not show a CA: "
            "'%s' has CA:FALSE; the file must hold the certificate "
            "that signs the others, with CA:TRUE",
            s->path, s->label);
        return;
    }
    if (ret == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE && s->is_ca) {
        bf_tls_report_error(
            report,
            "The certificate %s is missing basic constraints for a "
            "CA: issue '%s' again with the extension "
            "basicConstraints CA:TRUE",
            s->path, s->label);
        return;
    }
    if (ret < 0 && ret != GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_tls_report_error(
            report,
            "Unable to query certificate %s basic constraints: %s; "
            "'%s' is damaged, issue it again",
            s->path, text, s->label);
    }
}

/* @permission and @bit are the names by which people and tools know @flag. */
static void
check_usage_flag(const Subject *s, unsigned int usage, unsigned int flag,
                 const char *permission, const char *bit, BfTlsReport *report)
{
    if (!(usage & flag)) {
        bf_tls_report_error(
            report,
            "Certificate %s usage does not permit %s: the critical keyUsage of "
            "'%s' lacks %s; issue the certificate with it",
            s->path, permission, s->label, bit);
    }
}

static void
check_usage(const Subject *s, BfTlsReport *report)
{
    unsigned int usage = 0;
    unsigned int critical = 0;
    int ret = gnutls_x509_crt_get_key_usage(s->cert, &usage, &critical);

    if (ret == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
        return; /* without the extension everything is allowed */
    }
    if (ret < 0) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_tls_report_error(
            report,
            "Unable to query certificate %s key usage: %s; '%s' is "
            "damaged, issue it again",
            s->path, text, s->label);
        return;
    }
    if (!critical) {
        return;
    }
    if (s->is_ca) {
        check_usage_flag(s, usage, GNUTLS_KEY_KEY_CERT_SIGN,
                         "certificate signing", "keyCertSign", report);
        return;
    }
    check_usage_flag(s, usage, GNUTLS_KEY_DIGITAL_SIGNATURE,
                     "digital signature", "digitalSignature", report);
    /* Only RSA keys can encrypt a session key. */
    if (gnutls_x509_crt_get_pk_algorithm(s->cert, NULL) == GNUTLS_PK_RSA) {
        check_usage_flag(s, usage, GNUTLS_KEY_KEY_ENCIPHERMENT,
                         "key encipherment", "keyEncipherment", report);
    }
}

bool
bf_tls_cert_allows(gnutls_x509_crt_t cert, const char *needed,
                   bool *ret_critical)
{
    bool has_any = false;

    *ret_critical = false;
    for (unsigned int i = 0;; i++) {
        char oid[128];
        size_t size = sizeof(oid);
        unsigned int critical = 0;
        int ret =
            gnutls_x509_crt_get_key_purpose_oid(cert, i, oid, &size, &critical);

        if (ret == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
            return !has_any; /* without the extension everything is allowed */
        }
        has_any = true;
        *ret_critical |= critical != 0;
        /* What is longer than the buffer is none that we look for. */
        if (ret < 0 && ret != GNUTLS_E_SHORT_MEMORY_BUFFER) {
            *ret_critical = true;
            return false;
        }
        if (ret >= 0 &&
            (g_str_equal(oid, needed) || g_str_equal(oid, GNUTLS_KP_ANY))) {
            return true;
        }
    }
}

/* Others take a purpose that is not critical as a mere remark, so it must do.
 */
static void
check_purpose(const Subject *s, const char *needed, BfTlsReport *report)
{
    bool critical = false;

    if (bf_tls_cert_allows(s->cert, needed, &critical)) {
        return;
    }
    if (critical) {
        bf_tls_report_error(
            report,
            "Certificate %s purpose does not allow use with a TLS %s: the "
            "critical extendedKeyUsage of '%s' lacks %sAuth; issue the "
            "certificate with it",
            s->path, s->role, s->label, s->role);
    } else {
        bf_tls_report_warning(
            report,
            "certificate %s purpose does not allow use with a TLS %s: the "
            "extendedKeyUsage of '%s' lacks %sAuth, and many peers will refuse "
            "it; issue the certificate with it",
            s->path, s->role, s->label, s->role);
    }
}

/* Weak keys and signatures are refused by peers, and can be forged. */
static void
check_strength(const Subject *s, BfTlsReport *report)
{
    unsigned int bits = 0;
    int kind = gnutls_x509_crt_get_pk_algorithm(s->cert, &bits);
    unsigned int needed =
        gnutls_sec_param_to_pk_bits(kind, GNUTLS_SEC_PARAM_MEDIUM);
    int sign = gnutls_x509_crt_get_signature_algorithm(s->cert);

    if (kind >= 0 &&
        gnutls_pk_bits_to_sec_param(kind, bits) < GNUTLS_SEC_PARAM_MEDIUM) {
        bf_tls_report_error(
            report,
            "The %s certificate %s has a weak key: the %s key of '%s' has %u "
            "bits, and less than %u can be broken; make a new key and issue "
            "the certificate again",
            s->role, s->path, gnutls_pk_get_name(kind), s->label, bits, needed);
    }
    /* Nobody checks how a root has signed itself. */
    if (!gnutls_x509_crt_check_issuer(s->cert, s->cert) && sign >= 0 &&
        !gnutls_sign_is_secure2(sign, GNUTLS_SIGN_FLAG_SECURE_FOR_CERTS)) {
        bf_tls_report_error(
            report,
            "The %s certificate %s has a weak signature: '%s' is signed with "
            "%s, an insecure algorithm; issue it again with SHA-256 or better",
            s->role, s->path, s->label, gnutls_sign_get_name(sign));
    }
}

static const char *
own_role(const BfTlsOwn *own)
{
    return own->endpoint == BF_TLS_ENDPOINT_SERVER ? "server" : "client";
}

static void
check_cert(const BfTlsOwn *own, gnutls_x509_crt_t cert, const char *path,
           bool is_ca, BfTlsReport *report)
{
    bool is_server = own->endpoint == BF_TLS_ENDPOINT_SERVER;
    g_autofree char *label = bf_tls_cert_label(cert);
    const Subject subject = {
        .cert = cert,
        .path = path,
        .role = is_ca ? "CA" : own_role(own),
        .label = label,
        .is_ca = is_ca,
    };

    check_times(&subject, report);
    check_basic_constraints(&subject, report);
    check_usage(&subject, report);
    if (!is_ca) {
        check_purpose(&subject,
                      is_server ? GNUTLS_KP_TLS_WWW_SERVER
                                : GNUTLS_KP_TLS_WWW_CLIENT,
                      report);
    }
    check_strength(&subject, report);
}

/* Those between our own and a CA, as far as they are in its file. */
static void
check_intermediates(const BfTlsOwn *own, BfTlsReport *report)
{
    for (unsigned int i = 1; i < own->leaf->len; i++) {
        g_autofree char *label = bf_tls_cert_label(own->leaf->certs[i]);
        const Subject subject = {
            .cert = own->leaf->certs[i],
            .path = own->leaf->path,
            .role = "intermediate",
            .label = label,
        };

        check_times(&subject, report);
        check_strength(&subject, report);
    }
}

static void
report_unsigned(const BfTlsOwn *own, unsigned int status, BfTlsReport *report)
{
    const BfTlsCerts *leaf = own->leaf;
    gnutls_x509_crt_t last = leaf->certs[leaf->len - 1];
    g_autofree char *issuer = bf_tls_cert_issuer_label(last);
    const char *reason = bf_tls_chain_reason(status);

    if (status & GNUTLS_CERT_SIGNER_NOT_FOUND) {
        bf_tls_report_error(
            report,
            "Our own certificate %s failed validation against %s: %s; add the "
            "certificate of '%s' to %s if it is a root, or behind the leaf in "
            "%s if it is an intermediate",
            leaf->path, own->ca->path, reason, issuer, own->ca->path,
            leaf->path);
    } else {
        bf_tls_report_error(
            report,
            "Our own certificate %s failed validation against %s: %s; issue it "
            "again (issuer '%s')",
            leaf->path, own->ca->path, reason, issuer);
    }
}

/* Intermediates in the leaf's file count: the peer gets them as well. */
static void
check_signed(const BfTlsOwn *own, BfTlsReport *report)
{
    unsigned int status = 0;
    guint n_errors = report->errors->len;
    int ret = gnutls_x509_crt_list_verify(own->leaf->certs, own->leaf->len,
                                          own->ca->certs, own->ca->len, NULL, 0,
                                          0, &status);

    if (ret < 0) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_tls_report_error(report,
                            "Unable to verify %s certificate %s against CA "
                            "certificate %s: %s",
                            own_role(own), own->leaf->path, own->ca->path,
                            text);
        return;
    }
    check_intermediates(own, report);
    /* A reason that has been given is not given again in other words. */
    if (report->errors->len > n_errors) {
        status &= ~(GNUTLS_CERT_EXPIRED | GNUTLS_CERT_NOT_ACTIVATED |
                    GNUTLS_CERT_INSECURE_ALGORITHM);
    }
    if ((status & ~GNUTLS_CERT_INVALID) != 0 ||
        (status != 0 && report->errors->len == 0)) {
        report_unsigned(own, status, report);
    }
}

/* The lists are small, and the library knows how to search them. */
static void
check_revoked(const BfTlsOwn *own, const BfTlsCerts *certs, BfTlsReport *report)
{
    for (unsigned int i = 0; own->n_crls > 0 && i < certs->len; i++) {
        if (gnutls_x509_crt_check_revocation(certs->certs[i], own->crls,
                                             own->n_crls) > 0) {
            g_autofree char *label = bf_tls_cert_label(certs->certs[i]);

            bf_tls_report_error(
                report,
                "The certificate has been revoked: '%s' in %s is in the "
                "revocation list %s; issue a new certificate with a new key",
                label, certs->path, own->crl_path);
        }
    }
}

void
bf_tls_check_own(const BfTlsOwn *own, BfTlsReport *report)
{
    if (own->leaf->len > 0) {
        check_cert(own, own->leaf->certs[0], own->leaf->path, false, report);
    }
    for (unsigned int i = 0; i < own->ca->len; i++) {
        check_cert(own, own->ca->certs[i], own->ca->path, true, report);
    }
    if (own->leaf->len > 0 && own->ca->len > 0) {
        check_signed(own, report);
    }
    check_revoked(own, own->leaf, report);
    check_revoked(own, own->ca, report);
}
