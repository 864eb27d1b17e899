/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS credentials: the certificates, keys and rules that sessions share.
 *
 * Making them reads files and checks signatures: call bf_tls_creds_new() and
 * bf_tls_creds_check() on the thread pool. Everything else may be called
 * anywhere and never blocks. What credentials consist of changes only as a
 * whole, by bf_tls_creds_replace(), and a session keeps what it began with.
 */
#pragma once

#include "crypto/secret.h"
#include "schema/types.h"

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
 * @BF_TLS_CREDS_PSK: by a key that both have (RFC 4279, RFC 8446)
 * @BF_TLS_CREDS_ANON: not at all
 */
typedef enum BfTlsCredsKind {
    BF_TLS_CREDS_X509,
    BF_TLS_CREDS_PSK,
    BF_TLS_CREDS_ANON,
} BfTlsCredsKind;

/**
 * BfTlsCredsParams: what credentials are made of
 * @kind: how the peers prove who they are
 * @endpoint: the side that they are for; decides which files are read
 * @dir: (nullable): the directory of the files.
 *   X509: ca-cert.pem, and server-cert.pem with server-key.pem (server) or
 *   client-cert.pem with client-key.pem (client, both optional); ca-crl.pem if
 *   it exists. PSK: keys.psk. A server of any kind also takes dh-params.pem if
 *   it exists. NULL is an error of the user's, except for ANON
 * @verify_peer: X509: whether the peer's certificate is checked
 * @priority: (nullable): gnutls priority string, NULL for the built-in one
 * @record_engine: what encrypts and decrypts once a session is established
 * @sanity_check: X509: whether our own certificates are checked at creation
 * @password: (nullable): X509: the password of the private key
 * @password_id: (nullable): the id of @password, for messages
 * @username: (nullable): PSK: the user that a client is, NULL for "qemu"
 * @hostname: (nullable): X509: the name by which clients reach a server; there
 *   is a warning if its certificate is not for that name
 * @needs_hostname: an error instead of a warning
 */
typedef struct BfTlsCredsParams {
    BfTlsCredsKind kind;
    BfTlsEndpoint endpoint;
    const char *dir;
    bool verify_peer;
    const char *priority;
    BfTlsRecordEngine record_engine;
    bool sanity_check;
    BfSecret *password;
    const char *password_id;
    const char *username;
    const char *hostname;
    bool needs_hostname;
} BfTlsCredsParams;

/**
 * BfTlsReport: what is wrong with credentials
 * @errors: (element-type utf8): why they cannot be used, worst first
 * @warnings: (element-type utf8): what should be seen to nevertheless
 * @info: (nullable): owned: what was found, as by bf_tls_creds_describe(), but
 *   without the days left
 */
typedef struct BfTlsReport {
    GPtrArray *errors;
    GPtrArray *warnings;
    BfTlsCredsInfo *info;
} BfTlsReport;

/**
 * bf_tls_report_new:
 *
 * Returns: (transfer full): an empty report
 */
BfTlsReport *bf_tls_report_new(void);

/**
 * bf_tls_report_free:
 * @report: (nullable) (transfer full): a report
 */
void bf_tls_report_free(BfTlsReport *report);

/**
 * bf_tls_creds_new:
 * @params: see the type; everything is copied
 * @error: set on failure; names the file, what is wrong with it, and what to do
 *
 * Reads all files, once, and checks them. That the key fits the certificate and
 * that the priority string can be used is checked in any case; the validity,
 * purpose, strength and signature of our own certificates, and that they are
 * not revoked, only with sanity_check. The file of keys of a PSK server is read
 * again for each handshake.
 *
 * Returns: (transfer full): the credentials, or NULL
 */
BfTlsCreds *bf_tls_creds_new(const BfTlsCredsParams *params, GError **error);

/**
 * bf_tls_creds_check:
 * @params: as for bf_tls_creds_new()
 * @report: gets everything that is found
 *
 * Does what bf_tls_creds_new() does, but does not stop at the first error.
 *
 * Returns: (transfer full): the credentials, or NULL if there are errors
 */
BfTlsCreds *bf_tls_creds_check(const BfTlsCredsParams *params,
                               BfTlsReport *report);

/**
 * bf_tls_creds_replace:
 * @creds: credentials in use
 * @fresh: others of the same kind and endpoint
 *
 * New sessions of @creds use what @fresh consists of; those that have begun go
 * on as they are.
 */
void bf_tls_creds_replace(BfTlsCreds *creds, BfTlsCreds *fresh);

/**
 * bf_tls_creds_describe:
 * @creds: credentials
 * @now_s: the present time, in seconds since the epoch
 *
 * Returns: (transfer full): what they consist of; the id is empty and there are
 * no users
 */
BfTlsCredsInfo *bf_tls_creds_describe(BfTlsCreds *creds, int64_t now_s);

/**
 * bf_tls_days_left:
 * @cert: the description of a certificate
 * @now_s: the present time, in seconds since the epoch
 *
 * Returns: whole days until its end; negative if that has passed
 */
int64_t bf_tls_days_left(const BfTlsCertificateInfo *cert, int64_t now_s);

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
 * Returns: whether a session's peer has proven who it is: by a certificate that
 * passes all checks, or by its key. Never with anonymous credentials
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
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfTlsReport, bf_tls_report_free)
