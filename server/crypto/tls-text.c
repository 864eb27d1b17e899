/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Texts for messages about TLS.
 *
 * Names in a certificate are the peer's choice: whatever goes into a message
 * passes bf_tls_printable() first.
 */
#include "tls-private.h"

#include <string.h>

char *
bf_tls_error_text(int code)
{
    char *text = g_strdup(gnutls_strerror(code));

    if (g_str_has_suffix(text, ".")) {
        text[strlen(text) - 1] = 0;
    }
    return text;
}

char *
bf_tls_printable(const char *text)
{
    char *valid = g_utf8_make_valid(text, -1);

    for (char *p = valid; *p != 0; p = g_utf8_next_char(p)) {
        gunichar c = g_utf8_get_char(p);

        /* U+0080 to U+009F, in two bytes, are control characters as well. */
        if (c < 0x20 || c == 0x7f) {
            *p = '?';
        } else if (c >= 0x80 && c < 0xa0) {
            p[0] = '?';
            p[1] = '?';
        }
    }
    return valid;
}

char *
bf_tls_time_text(time_t when)
{
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_utc(when);
    char *text =
        time == NULL ? NULL : g_date_time_format(time, "%Y-%m-%dT%H:%M:%SZ");

    return text != NULL ? text : g_strdup("an unknown time");
}

static char *
take_datum(int ret, gnutls_datum_t *datum)
{
    char *text;

    if (ret < 0) {
        return NULL;
    }
    /* A NUL inside would hide what follows it from whoever compares names. */
    text = memchr(datum->data, 0, datum->size) != NULL
               ? NULL
               : g_strndup((const char *)datum->data, datum->size);
    gnutls_free(datum->data);
    return text;
}

char *
bf_tls_cert_dn(gnutls_x509_crt_t cert)
{
    gnutls_datum_t dn = {NULL, 0};

    /* COMPAT is the order of the encoding; without it, the reverse. */
    return take_datum(
        gnutls_x509_crt_get_dn3(cert, &dn, GNUTLS_X509_DN_FLAG_COMPAT), &dn);
}

static char *
dn_label(char *dn)
{
    char *label;

    if (dn == NULL || dn[0] == 0) {
        g_free(dn);
        return g_strdup("(no name)");
    }
    label = bf_tls_printable(dn);
    g_free(dn);
    return label;
}

char *
bf_tls_cert_label(gnutls_x509_crt_t cert)
{
    return dn_label(bf_tls_cert_dn(cert));
}

char *
bf_tls_cert_issuer_label(gnutls_x509_crt_t cert)
{
    gnutls_datum_t dn = {NULL, 0};

    return dn_label(take_datum(
        gnutls_x509_crt_get_issuer_dn3(cert, &dn, GNUTLS_X509_DN_FLAG_COMPAT),
        &dn));
}

const char *
bf_tls_chain_reason(unsigned int status)
{
    if (status & GNUTLS_CERT_INSECURE_ALGORITHM) {
        return "The certificate uses an insecure algorithm";
    }
    if (status & GNUTLS_CERT_REVOKED) {
        return "The certificate has been revoked";
    }
    if (status & GNUTLS_CERT_SIGNER_NOT_FOUND) {
        return "The certificate hasn't got a known issuer";
    }
    if (status & GNUTLS_CERT_SIGNER_NOT_CA) {
        return "The certificate is not trusted: its issuer is not a CA";
    }
    if (status & GNUTLS_CERT_SIGNER_CONSTRAINTS_FAILURE) {
        return "The certificate is not trusted: a CA in its chain does not "
               "permit it (name constraints or path length)";
    }
    if (status & GNUTLS_CERT_SIGNATURE_FAILURE) {
        return "The certificate is not trusted: its signature is wrong";
    }
    if (status & GNUTLS_CERT_EXPIRED) {
        return "The certificate is not trusted: a certificate in its chain "
               "has expired";
    }
    if (status & GNUTLS_CERT_NOT_ACTIVATED) {
        return "The certificate is not trusted: a certificate in its chain "
               "is not yet active";
    }
    if (status & GNUTLS_CERT_MISSING_OCSP_STATUS) {
        return "The certificate is not trusted: it demands a stapled OCSP "
               "response and none was sent";
    }
    return "The certificate is not trusted";
}
