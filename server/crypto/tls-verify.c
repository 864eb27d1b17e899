/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether the peer may be talked to, decided once after the handshake.
 *
 * The library only proves that the peer has the key to the certificate that it
 * sent. Everything else, even that there is one, is checked here.
 */
#include "tls-private.h"
#include "tls13-private.h"

#include <string.h>
#include <time.h>

#include "core/error.h"

/* Most certificates that a peer may send; the library follows no more. */
#define CHAIN_MAX 16
/* Most names of a certificate that a message lists. */
#define NAMES_MAX 8

static const char *
peer_role(const BfTlsSession *session)
{
    return session->creds->endpoint == BF_TLS_ENDPOINT_SERVER ? "client"
                                                              : "server";
}

static void
cert_free(gpointer cert)
{
    gnutls_x509_crt_deinit(cert);
}

/* Parses what the peer sent, leaf first; the array is empty if it sent none. */
static GPtrArray *
import_peer_certs(const BfTlsSession *session, GError **error)
{
    g_autoptr(GPtrArray) certs = g_ptr_array_new_with_free_func(cert_free);
    unsigned int len = 0;
    const gnutls_datum_t *raw =
        gnutls_certificate_get_peers(session->tls, &len);

    if (len > CHAIN_MAX) {
        bf_set_error(error, "the %s sent %u certificates, more than %d",
                     peer_role(session), len, CHAIN_MAX);
        return NULL;
    }
    for (unsigned int i = 0; raw != NULL && i < len; i++) {
        gnutls_x509_crt_t cert;
        int ret = gnutls_x509_crt_init(&cert);

        if (ret == 0) {
            g_ptr_array_add(certs, cert);
            ret = gnutls_x509_crt_import(cert, &raw[i], GNUTLS_X509_FMT_DER);
        }
        if (ret < 0) {
            g_autofree char *text = bf_tls_error_text(ret);

            bf_set_error(error, "the %s sent a damaged certificate: %s",
                         peer_role(session), text);
            return NULL;
        }
    }
    return g_steal_pointer(&certs);
}

static bool
check_times(const BfTlsSession *session, gnutls_x509_crt_t cert, GError **error)
{
    time_t now = time(NULL);
    time_t from = gnutls_x509_crt_get_activation_time(cert);
    time_t until = gnutls_x509_crt_get_expiration_time(cert);
    g_autofree char *label = bf_tls_cert_label(cert);
    g_autofree char *now_text = bf_tls_time_text(now);

    if (until < now) {
        g_autofree char *text = bf_tls_time_text(until);

        bf_set_error(error,
                     "The certificate has expired: '%s', sent by the %s, was "
                     "valid until %s and it is %s here; issue a new one, or "
                     "correct this host's clock",
                     label, peer_role(session), text, now_text);
        return false;
    }
    if (from > now) {
        g_autofree char *text = bf_tls_time_text(from);

        bf_set_error(error,
                     "The certificate is not yet activated: '%s', sent by the "
                     "%s, is valid from %s and it is %s here; correct the "
                     "clock of this host or of the one that issued it",
                     label, peer_role(session), text, now_text);
        return false;
    }
    return true;
}

/* A certificate of a client must not make its owner a server, or the reverse
 * (RFC 5280, 4.2.1.12). */
static bool
check_purpose(const BfTlsSession *session, gnutls_x509_crt_t leaf,
              GError **error)
{
    const char *role = peer_role(session);
    g_autofree char *label = NULL;
    bool critical;

    if (bf_tls_cert_allows(leaf,
                           session->creds->endpoint == BF_TLS_ENDPOINT_SERVER
                               ? GNUTLS_KP_TLS_WWW_CLIENT
                               : GNUTLS_KP_TLS_WWW_SERVER,
                           &critical)) {
        return true;
    }
    label = bf_tls_cert_label(leaf);
    bf_set_error(error,
                 "The certificate purpose does not allow use with a TLS %s: "
                 "the extendedKeyUsage of '%s', sent by the %s, lacks %sAuth; "
                 "issue the %s a certificate with it",
                 role, label, role, role, role);
    return false;
}

/*
 * Times first: the library reports an expired certificate as an untrusted
 * chain, and without saying which one it is.
 */
static bool
check_chain(const BfTlsSession *session, const GPtrArray *certs, GError **error)
{
    gnutls_x509_crt_t leaf = certs->pdata[0];
    g_autofree char *label = NULL;
    g_autofree char *issuer = NULL;
    unsigned int status = 0;
    int ret;

    for (unsigned int i = 0; i < certs->len; i++) {
        if (!check_times(session, certs->pdata[i], error)) {
            return false;
        }
    }
    ret = gnutls_certificate_verify_peers2(session->tls, &status);
    if (ret == 0 && status == 0) {
        return true;
    }
    label = bf_tls_cert_label(leaf);
    issuer = bf_tls_cert_issuer_label(leaf);
    if (ret < 0) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_set_error(error, "unable to verify the certificate '%s': %s", label,
                     text);
        return false;
    }
    bf_set_error(error,
                 "%s: '%s', sent by the %s, issued by '%s', checked against %s",
                 bf_tls_chain_reason(status), label, peer_role(session), issuer,
                 session->creds->peer_file);
    return false;
}

/* The names that a certificate is valid for, as "'a', 'b'". */
static char *
list_names(gnutls_x509_crt_t cert)
{
    g_autoptr(GPtrArray) names = bf_tls_cert_names(cert, NAMES_MAX);
    g_autoptr(GString) list = g_string_new(NULL);

    for (unsigned int i = 0; i < names->len; i++) {
        g_string_append_printf(list, "%s'%s'", i > 0 ? ", " : "",
                               (const char *)names->pdata[i]);
    }
    if (list->len == 0) {
        g_autofree char *label = bf_tls_cert_label(cert);

        g_string_append_printf(list, "'%s', which has no subjectAltName",
                               label);
    }
    return g_string_free(g_steal_pointer(&list), FALSE);
}

static bool
check_hostname(const BfTlsSession *session, gnutls_x509_crt_t leaf,
               GError **error)
{
    g_autofree char *names = NULL;

    if (session->hostname == NULL) {
        bf_set_error(error, "No hostname for certificate validation: set "
                            "'tls-hostname' to the name in the server's "
                            "certificate");
        return false;
    }
    if (gnutls_x509_crt_check_hostname(leaf, session->hostname)) {
        return true;
    }
    names = list_names(leaf);
    bf_set_error(error,
                 "Certificate does not match the hostname %s: it is for %s; "
                 "connect by that name, set 'tls-hostname' to it, or issue the "
                 "server a certificate for '%s'",
                 session->hostname, names, session->hostname);
    return false;
}

/* What the checks below conclude from the credentials holds only for a session
 * that was made by them. */
static bool
check_kind(const BfTlsSession *session, GError **error)
{
    static const gnutls_credentials_type_t types[] = {
        [BF_TLS_CREDS_X509] = GNUTLS_CRD_CERTIFICATE,
        [BF_TLS_CREDS_PSK] = GNUTLS_CRD_PSK,
        [BF_TLS_CREDS_ANON] = GNUTLS_CRD_ANON,
    };

    if (gnutls_auth_get_type(session->tls) == types[session->creds->kind]) {
        return true;
    }
    bf_set_error(error,
                 "the key exchange %s is not of the kind that the credentials "
                 "are for; set their property 'priority' to one that does not "
                 "allow it",
                 gnutls_kx_get_name(gnutls_kx_get(session->tls)));
    return false;
}

/* The handshake has proven that the peer has the user's key. */
static bool
check_user(BfTlsSession *session, GError **error)
{
    gnutls_datum_t user;

    if (session->creds->endpoint == BF_TLS_ENDPOINT_CLIENT) {
        return true;
    }
    if (gnutls_psk_server_get_username2(session->tls, &user) < 0 ||
        user.size == 0 || memchr(user.data, 0, user.size) != NULL) {
        bf_set_error(error, "the client sent no user name that can be used");
        return false;
    }
    /* What the handshake asked for, and nothing else, was proven. */
    if (session->psk_user == NULL || strlen(session->psk_user) != user.size ||
        memcmp(session->psk_user, user.data, user.size) != 0) {
        bf_set_error(error, "the client has changed its user name");
        return false;
    }
    session->peer_dn = g_strdup(session->psk_user);
    return true;
}

static bool
check_peer(BfTlsSession *session, gnutls_alert_description_t *alert,
           GError **error)
{
    bool must_verify = session->creds->verify_peer;
    g_autoptr(GPtrArray) certs = NULL;

    *alert = GNUTLS_A_HANDSHAKE_FAILURE;
    if (!check_kind(session, error)) {
        return false;
    }
    certs = import_peer_certs(session, must_verify ? error : NULL);
    if (session->creds->kind == BF_TLS_CREDS_PSK) {
        *alert = GNUTLS_A_UNKNOWN_PSK_IDENTITY;
        return check_user(session, error);
    }
    *alert = GNUTLS_A_BAD_CERTIFICATE;
    if (certs != NULL && certs->len > 0) {
        session->peer_dn = bf_tls_cert_dn(certs->pdata[0]);
        session->peer_label = bf_tls_cert_label(certs->pdata[0]);
    }
    if (!must_verify) {
        return true;
    }
    if (certs == NULL) {
        return false;
    }
    if (certs->len == 0) {
        *alert = GNUTLS_A_CERTIFICATE_REQUIRED;
        bf_set_error(error,
                     "No certificate was found: the %s must send one that is "
                     "signed by a CA in %s (or it has one, and found that CA "
                     "is not its issuer)",
                     peer_role(session), session->creds->peer_file);
        return false;
    }
    return check_chain(session, certs, error) &&
           check_purpose(session, certs->pdata[0], error) &&
           (session->creds->endpoint == BF_TLS_ENDPOINT_SERVER ||
            check_hostname(session, certs->pdata[0], error));
}

/* What was offered leaves no session that our own engine cannot do, but it may
 * find that it does not have the keys. */
static bool
check_engine(const BfTlsSession *session, gnutls_alert_description_t *ret_alert,
             GError **error)
{
    if (!bf_tls_material_needs_own_engine(session->creds) ||
        session->records == &bf_tls_records_own) {
        return true;
    }
    *ret_alert = GNUTLS_A_INTERNAL_ERROR;
    bf_set_error(error,
                 "record-engine '%s' cannot take over this session (%s %s) "
                 "from GnuTLS; set the property 'record-engine' of the TLS "
                 "credentials to 'auto'",
                 bf_tls_material_engine_name(session->creds), session->version,
                 session->cipher);
    return false;
}

bool
bf_tls_session_verify(BfTlsSession *session, GError **error)
{
    gnutls_alert_description_t alert;

    if (session->state == BF_TLS_STATE_FAILED) {
        bf_set_error(error, "The TLS session has failed before");
        return false;
    }
    g_assert(session->state == BF_TLS_STATE_UNVERIFIED);
    if (check_peer(session, &alert, error)) {
        bf_tls13_take_over(session);
        if (check_engine(session, &alert, error)) {
            session->state = BF_TLS_STATE_READY;
            return true;
        }
    }
    g_prefix_error(error, "TLS verification failed: ");
    bf_tls_session_send_alert(session, alert);
    session->state = BF_TLS_STATE_FAILED;
    return false;
}
