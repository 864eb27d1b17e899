/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Why a TLS handshake has failed, and what to do about it, in words of ours
 * where the library's do not help.
 */
#include "tls-private.h"

#include <string.h>

#include "core/error.h"

static const char *
exchange_text(const BfTlsSession *session)
{
    switch (session->creds->kind) {
    case BF_TLS_CREDS_PSK:
        return "by pre-shared keys (tls-creds-psk)";
    case BF_TLS_CREDS_ANON:
        return "without authentication (tls-creds-anon)";
    default:
        return "by certificates (tls-creds-x509; our own must permit digital "
               "signatures)";
    }
}

/* A client that does not like our certificate may say so before it encrypts
 * (OpenSSL does with TLS 1.3), which the library does not expect and calls a
 * failure of decryption. */
int
bf_tls_session_refusal(const BfTlsSession *session, int ret)
{
    static const uint8_t plain[] = {21, 3, 3, 0, 2};

    if (ret == GNUTLS_E_FATAL_ALERT_RECEIVED) {
        return gnutls_alert_get(session->tls);
    }
    return ret == GNUTLS_E_DECRYPTION_FAILED &&
                   memcmp(session->pulled, plain, sizeof(plain)) == 0
               ? session->pulled[sizeof(plain) + 1]
               : -1;
}

/* That the two have nothing in common, the peer may find out before us. */
static bool
is_mismatch(int ret, int refusal)
{
    switch (ret) {
    case GNUTLS_E_NO_CIPHER_SUITES:
    case GNUTLS_E_NO_COMMON_KEY_SHARE:
    case GNUTLS_E_NO_PRIORITIES_WERE_SET:
    case GNUTLS_E_INSUFFICIENT_CREDENTIALS:
    case GNUTLS_E_UNKNOWN_CIPHER_SUITE:
    case GNUTLS_E_MISSING_EXTENSION:
    case GNUTLS_E_INSUFFICIENT_SECURITY:
        return true;
    default:
        return refusal == GNUTLS_A_HANDSHAKE_FAILURE ||
               refusal == GNUTLS_A_MISSING_EXTENSION ||
               refusal == GNUTLS_A_INSUFFICIENT_SECURITY ||
               refusal == GNUTLS_A_UNKNOWN_PSK_IDENTITY;
    }
}

static bool
is_about_certificate(int refusal)
{
    return (refusal >= GNUTLS_A_BAD_CERTIFICATE &&
            refusal <= GNUTLS_A_CERTIFICATE_UNKNOWN) ||
           refusal == GNUTLS_A_UNKNOWN_CA;
}

/* A server may tell a user that it does not know and a wrong key apart, or not
 * (RFC 4279, section 2). */
static bool
is_about_key(const BfTlsSession *session, int refusal)
{
    return session->creds->kind == BF_TLS_CREDS_PSK &&
           session->creds->endpoint == BF_TLS_ENDPOINT_CLIENT &&
           (refusal == GNUTLS_A_ILLEGAL_PARAMETER ||
            refusal == GNUTLS_A_BAD_RECORD_MAC ||
            refusal == GNUTLS_A_DECRYPT_ERROR ||
            refusal == GNUTLS_A_UNKNOWN_PSK_IDENTITY);
}

static bool
is_about_version(int ret, int refusal)
{
    return ret == GNUTLS_E_UNEXPECTED_PACKET_LENGTH ||
           ret == GNUTLS_E_UNEXPECTED_PACKET ||
           ret == GNUTLS_E_UNSUPPORTED_VERSION_PACKET ||
           refusal == GNUTLS_A_PROTOCOL_VERSION;
}

/* The cause, in words of ours where the library's do not help. */
static char *
handshake_failure_text(const BfTlsSession *session, int ret, int refusal)
{
    if (bf_tls_session_is_cut_off(session, ret)) {
        return g_strdup("the peer closed the connection in the middle of it, "
                        "perhaps because it does not accept our credentials");
    }
    if (refusal >= 0) {
        const char *name = gnutls_alert_get_name(refusal);

        return g_strdup_printf("the peer refused with alert '%s'",
                               name != NULL ? name : "unknown");
    }
    if (ret == GNUTLS_E_KEY_USAGE_VIOLATION) {
        return g_strdup("the keyUsage of the peer's certificate lacks "
                        "digitalSignature; issue the peer one with it");
    }
    if (ret == GNUTLS_E_PULL_ERROR) {
        return g_strdup_printf("the peer sent more than %zu bytes",
                               BF_TLS_HANDSHAKE_MAX_BYTES);
    }
    return bf_tls_error_text(ret);
}

/* The way out; NULL if none is known. */
static char *
handshake_hint(const BfTlsSession *session, int ret, int refusal)
{
    const BfTlsMaterial *creds = session->creds;
    bool needs_own = bf_tls_material_needs_own_engine(creds);

    if (session->psk_fault != NULL && ret == GNUTLS_E_NO_CIPHER_SUITES) {
        /* It was found before, and goes with SHA-256 (RFC 8446, 4.2.11). */
        return g_strdup_printf(
            "with TLS 1.3 a pre-shared key needs AES-128-GCM%s, which both "
            "sides must allow",
            needs_own ? "" : " or CHACHA20-POLY1305");
    }
    if (session->psk_fault != NULL) {
        return g_strdup(session->psk_fault);
    }
    if (is_about_certificate(refusal)) {
        return g_strdup("our certificate must be signed by a CA that the peer "
                        "has, and be for the name that it connects by");
    }
    if (is_about_key(session, refusal)) {
        return g_strdup("the peer must have our user name, with the same key, "
                        "among its own");
    }
    if (is_about_version(ret, refusal) &&
        !bf_tls_session_is_cut_off(session, ret)) {
        return needs_own
                   ? g_strdup_printf("does the peer speak TLS 1.3, which our "
                                     "record-engine '%s' needs?",
                                     bf_tls_material_engine_name(creds))
                   : g_strdup("does the peer speak TLS 1.2 or later?");
    }
    if (!is_mismatch(ret, refusal)) {
        return NULL;
    }
    if (needs_own) {
        return g_strdup_printf(
            "our record-engine '%s' leaves only TLS 1.3 with AES-GCM, and "
            "the key exchange here is %s",
            bf_tls_material_engine_name(creds), exchange_text(session));
    }
    return g_strdup_printf(
        "the peers may have no cipher or no key exchange in common: the "
        "property 'priority' says which ciphers, and the key exchange here is "
        "%s, for which the other side needs credentials of the same kind",
        exchange_text(session));
}

void
bf_tls_session_set_handshake_error(const BfTlsSession *session, int ret,
                                   GError **error)
{
    int refusal = bf_tls_session_refusal(session, ret);
    g_autofree char *text = handshake_failure_text(session, ret, refusal);
    g_autofree char *hint = handshake_hint(session, ret, refusal);

    bf_set_error(error, "TLS handshake failed: %s%s%s", text,
                 hint != NULL ? "; " : "", hint != NULL ? hint : "");
}
