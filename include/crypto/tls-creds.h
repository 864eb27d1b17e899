/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS credentials: the certificates, keys and rules that sessions share.
 *
 * Credentials never change after their creation, so any thread may use them and
 * a session keeps those it began with. Making them reads files and checks
 * signatures: call bf_tls_creds_new_x509() on the thread pool. Everything else
 * may be called anywhere and never blocks.
 */
#pragma once

#include "crypto/secret.h"

#include <glib.h>
#include <stdbool.h>

/**
 * BfTlsCreds: TLS credentials, counted references
 */
typedef struct BfTlsCreds BfTlsCreds;

/**
 * BfTlsEndpoint: which side of a connection credentials are for
 * @BF_TLS_ENDPOINT_CLIENT: the side that connects
 * @BF_TLS_ENDPOINT_SERVER: the side that accepts
 */
typedef enum BfTlsEndpoint {
    BF_TLS_ENDPOINT_CLIENT,
    BF_TLS_ENDPOINT_SERVER,
} BfTlsEndpoint;

/**
 * BfTlsCredsKind: how the peers prove who they are
 * @BF_TLS_CREDS_X509: by X.509 certificates
 */
typedef enum BfTlsCredsKind {
    BF_TLS_CREDS_X509,
} BfTlsCredsKind;

/**
 * BfTlsCredsX509Params: what X.509 credentials are made of
 * @endpoint: the side that they are for; decides which files are read
 * @dir: (nullable): directory with ca-cert.pem and server-cert.pem,
 *   server-key.pem (server) or client-cert.pem, client-key.pem (client, both
 *   optional); a server also takes ca-crl.pem and dh-params.pem if they exist.
 *   NULL is an error of the user's
 * @verify_peer: whether the peer's certificate is checked
 * @priority: (nullable): gnutls priority string, NULL for the built-in one
 * @sanity_check: whether our own certificates are checked at creation
 * @password: (nullable): the password of the private key
 * @password_id: (nullable): the id of @password, for messages
 */
typedef struct BfTlsCredsX509Params {
    BfTlsEndpoint endpoint;
    const char *dir;
    bool verify_peer;
    const char *priority;
    bool sanity_check;
    BfSecret *password;
    const char *password_id;
} BfTlsCredsX509Params;

/**
 * bf_tls_creds_new_x509:
 * @params: see the type; everything is copied
 * @error: set on failure; names the file, what is wrong with it, and what to do
 *
 * Reads all files, once, and checks them. That the key fits the certificate and
 * that the priority string can be used is checked in any case; the validity,
 * purpose and signature of our own certificates only with sanity_check.
 *
 * Returns: (transfer full): the credentials, or NULL
 */
BfTlsCreds *bf_tls_creds_new_x509(const BfTlsCredsX509Params *params,
                                  GError **error);

/**
 * bf_tls_creds_ref:
 * @creds: credentials
 *
 * Returns: (transfer full): @creds, with one more reference
 */
BfTlsCreds *bf_tls_creds_ref(BfTlsCreds *creds);

/**
 * bf_tls_creds_unref:
 * @creds: (nullable) (transfer full): credentials
 */
void bf_tls_creds_unref(BfTlsCreds *creds);

/**
 * bf_tls_creds_get_kind:
 * @creds: credentials
 *
 * Returns: how the peers prove who they are
 */
BfTlsCredsKind bf_tls_creds_get_kind(const BfTlsCreds *creds);

/**
 * bf_tls_creds_get_endpoint:
 * @creds: credentials
 *
 * Returns: the side that they are for
 */
BfTlsEndpoint bf_tls_creds_get_endpoint(const BfTlsCreds *creds);

/**
 * bf_tls_creds_get_verify_peer:
 * @creds: credentials
 *
 * Returns: whether the peer must show a certificate that passes all checks
 */
bool bf_tls_creds_get_verify_peer(const BfTlsCreds *creds);

/**
 * bf_tls_creds_check_endpoint:
 * @creds: credentials
 * @endpoint: the side that they are about to be used for
 * @error: set if they are for the other side
 *
 * Returns: true if @creds are for @endpoint
 */
bool bf_tls_creds_check_endpoint(const BfTlsCreds *creds,
                                 BfTlsEndpoint endpoint, GError **error);

/**
 * bf_tls_creds_check_identity:
 * @creds: credentials
 * @error: set if there would be nothing to base authorization on
 *
 * Returns: whether sessions have bf_tls_session_get_identity()
 */
bool bf_tls_creds_check_identity(const BfTlsCreds *creds, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfTlsCreds, bf_tls_creds_unref)
