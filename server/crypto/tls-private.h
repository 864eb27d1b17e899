/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the TLS sources share: the structs behind the public types, the list of
 * certificates, and the queue of output.
 */
#pragma once

#include "crypto/tls-session.h"
#include "schema/types.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

/* Most bytes that a file of certificates or keys may hold. */
#define BF_TLS_FILE_MAX_BYTES ((size_t)4 * 1024 * 1024)

/**
 * BfTlsCerts: certificates from one file
 * @path: (transfer none): the file, for messages
 * @certs: owned; the leaf first
 * @len: their number
 */
typedef struct BfTlsCerts {
    const char *path;
    gnutls_x509_crt_t *certs;
    unsigned int len;
} BfTlsCerts;

/**
 * BfTlsFile: a file of credentials
 * @path: owned; NULL if such a file is not used
 * @data: owned; NULL if it is not there or could not be read
 */
typedef struct BfTlsFile {
    char *path;
    BfSecret *data;
} BfTlsFile;

/**
 * BfTlsMaterial: what was loaded for credentials; a counted reference, and
 * never changed
 *
 * A session keeps the one it began with, while bf_tls_creds_replace() gives the
 * credentials another.
 *
 * @kind: which of the members of gnutls are there
 * @endpoint: the side that it is for
 * @verify_peer: see bf_tls_creds_get_verify_peer()
 * @peer_file: the file that peers are checked with, for messages; or NULL
 * @x509: or NULL
 * @psk_server: or NULL
 * @no_x509: no certificates, where there is @psk_server: a session that has
 *     none for an exchange goes on to the next one, while it fails at an
 *     exchange that it has no credentials for
 * @psk_client: or NULL
 * @anon_server: or NULL
 * @anon_client: or NULL
 * @dh_params: or NULL
 * @info: all but the id, the users and what depends on the present time
 */
typedef struct BfTlsMaterial {
    BfTlsCredsKind kind;
    BfTlsEndpoint endpoint;
    bool verify_peer;
    BfTlsRecordEngine record_engine;
    char *peer_file;
    gnutls_certificate_credentials_t x509;
    gnutls_psk_server_credentials_t psk_server;
    gnutls_certificate_credentials_t no_x509;
    gnutls_psk_client_credentials_t psk_client;
    gnutls_anon_server_credentials_t anon_server;
    gnutls_anon_client_credentials_t anon_client;
    gnutls_priority_t priority;
    gnutls_dh_params_t dh_params;
    BfTlsCredsInfo *info;
} BfTlsMaterial;

/**
 * bf_tls_material_needs_own_engine:
 * @material: credentials
 *
 * Returns: true if their sessions must have our own record engine
 */
bool bf_tls_material_needs_own_engine(const BfTlsMaterial *material);

/**
 * bf_tls_material_engine_name:
 * @material: credentials
 *
 * Returns: (transfer none): the value of the property "record-engine"
 */
const char *bf_tls_material_engine_name(const BfTlsMaterial *material);

/**
 * bf_tls_material_new:
 * @kind: how the peers prove who they are
 * @params: what all kinds have in common
 *
 * Returns: (transfer full): material without anything loaded
 */
BfTlsMaterial *bf_tls_material_new(BfTlsCredsKind kind,
                                   const BfTlsCredsParams *params);

/**
 * bf_tls_material_unref:
 * @material: (nullable) (transfer full): a reference
 */
void bf_tls_material_unref(BfTlsMaterial *material);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfTlsMaterial, bf_tls_material_unref)

/**
 * bf_tls_material_add_file:
 * @material: gets the path in its description
 * @file: a file; nothing happens if it was not there
 */
void bf_tls_material_add_file(BfTlsMaterial *material, const BfTlsFile *file);

/**
 * bf_tls_creds_get_material:
 * @creds: credentials
 *
 * Returns: (transfer full): what they consist of now
 */
BfTlsMaterial *bf_tls_creds_get_material(BfTlsCreds *creds);

/**
 * bf_tls_load_x509:
 * @material: new
 * @params: see the type
 * @report: gets what is wrong
 *
 * Reads certificates and their keys, and checks them.
 */
void bf_tls_load_x509(BfTlsMaterial *material, const BfTlsCredsParams *params,
                      BfTlsReport *report);

/**
 * bf_tls_load_psk:
 * @material: new
 * @params: see the type
 * @report: gets what is wrong
 *
 * Reads keys that both sides have.
 */
void bf_tls_load_psk(BfTlsMaterial *material, const BfTlsCredsParams *params,
                     BfTlsReport *report);

/**
 * bf_tls_load_anon:
 * @material: new
 * @params: see the type
 * @report: gets what is wrong
 *
 * Makes credentials that nobody can be recognised by.
 */
void bf_tls_load_anon(BfTlsMaterial *material, const BfTlsCredsParams *params,
                      BfTlsReport *report);

/**
 * bf_tls_load_priority:
 * @material: gets the order of ciphers that fits its kind
 * @priority: (nullable): what the user wants instead of it
 * @report: gets an error if that cannot be used
 */
void bf_tls_load_priority(BfTlsMaterial *material, const char *priority,
                          BfTlsReport *report);

/**
 * bf_tls_load_dh:
 * @material: a server's
 * @pem: (nullable): the file's contents
 * @path: the file, for messages
 * @report: gets an error if it cannot be used
 *
 * Gives a server the parameters that sessions of TLS 1.2 without elliptic
 * curves need.
 */
void bf_tls_load_dh(BfTlsMaterial *material, const gnutls_datum_t *pem,
                    const char *path, BfTlsReport *report);

/**
 * BfTlsFileUse: how a file is used
 * @BF_TLS_FILE_REQUIRED: it must be there
 * @BF_TLS_FILE_OPTIONAL: it need not be there
 * @BF_TLS_FILE_SECRET: only its owner and group should be able to read it
 */
typedef enum BfTlsFileUse {
    BF_TLS_FILE_REQUIRED = 0,
    BF_TLS_FILE_OPTIONAL = 1 << 0,
    BF_TLS_FILE_SECRET = 1 << 1,
} BfTlsFileUse;

/**
 * bf_tls_file_read:
 * @file: (out caller-allocates): the file
 * @dir: its directory
 * @name: its name
 * @needs: the names of all files that must be there, for messages
 * @use: how it is used
 * @report: gets what is wrong with it: what was looked for, and what was found
 *
 * Reads a file of at most %BF_TLS_FILE_MAX_BYTES.
 */
void bf_tls_file_read(BfTlsFile *file, const char *dir, const char *name,
                      const char *needs, BfTlsFileUse use, BfTlsReport *report);

/**
 * bf_tls_file_datum:
 * @file: a file that was read; a NUL follows its contents
 *
 * Returns: (transfer none): its contents
 */
gnutls_datum_t bf_tls_file_datum(const BfTlsFile *file);

/**
 * bf_tls_file_clear:
 * @file: wiped and emptied
 */
void bf_tls_file_clear(BfTlsFile *file);

/**
 * bf_tls_report_error:
 * @report: gets the error
 * @format: for the text: the file, what is wrong, and what to do
 */
void bf_tls_report_error(BfTlsReport *report, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

/**
 * bf_tls_report_warning:
 * @report: gets the warning
 * @format: alike
 */
void bf_tls_report_warning(BfTlsReport *report, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

/**
 * bf_tls_psk_find:
 * @pem: the contents of a file of keys
 * @user: whose key is wanted
 * @user_len: number of bytes in @user
 * @ret_key: (out): the key, by gnutls_malloc(); wipe it
 * @ret_line: (out): the number of the user's line
 *
 * Returns: 1 if the user has a good key, 0 if there is no such user, -1 if the
 * key is not one
 */
int bf_tls_psk_find(const gnutls_datum_t *pem, const void *user,
                    size_t user_len, gnutls_datum_t *ret_key,
                    unsigned int *ret_line);

/**
 * bf_tls_error_text:
 * @code: a gnutls error code
 *
 * Returns: gnutls' text for it, without the full stop at its end
 */
char *bf_tls_error_text(int code);

/**
 * bf_tls_printable:
 * @text: bytes from a certificate
 *
 * Returns: @text with control characters and bytes that are not UTF-8 replaced
 */
char *bf_tls_printable(const char *text);

/**
 * bf_tls_time_text:
 * @when: a point in time
 *
 * Returns: @when as "2026-01-02T03:04:05Z"
 */
char *bf_tls_time_text(time_t when);

/**
 * bf_tls_cert_dn:
 * @cert: a certificate
 *
 * Returns: its subject in the order of the encoding, as it is in the
 * certificate; NULL if it cannot be read
 */
char *bf_tls_cert_dn(gnutls_x509_crt_t cert);

/**
 * bf_tls_cert_label:
 * @cert: a certificate
 *
 * Returns: its subject for messages, never NULL
 */
char *bf_tls_cert_label(gnutls_x509_crt_t cert);

/**
 * bf_tls_cert_issuer_label:
 * @cert: a certificate
 *
 * Returns: the name of its issuer for messages, never NULL
 */
char *bf_tls_cert_issuer_label(gnutls_x509_crt_t cert);

/**
 * bf_tls_chain_reason:
 * @status: the bits of a failed verification (gnutls_certificate_status_t)
 *
 * Returns: (transfer none): the phrase for the worst of them
 */
const char *bf_tls_chain_reason(unsigned int status);

/**
 * BfTlsOwn: our own certificates and what they are checked with
 * @endpoint: the side that they are for
 * @leaf: our own certificate and what it is sent with; empty if there is none
 * @ca: the certificates that we trust
 * @crls: (nullable): revocation lists
 * @n_crls: number of entries in @crls
 * @crl_path: the file that they are from
 */
typedef struct BfTlsOwn {
    BfTlsEndpoint endpoint;
    const BfTlsCerts *leaf;
    const BfTlsCerts *ca;
    gnutls_x509_crl_t *crls;
    unsigned int n_crls;
    const char *crl_path;
} BfTlsOwn;

/**
 * bf_tls_check_own:
 * @own: what is to be checked
 * @report: gets everything that is wrong, in the order of importance
 *
 * Checks, before they are put to use, that certificates are valid, fit for
 * their purpose, strong enough, signed, and not revoked.
 */
void bf_tls_check_own(const BfTlsOwn *own, BfTlsReport *report);

/**
 * bf_tls_check_soon:
 * @own: certificates that passed bf_tls_check_own(), or need not
 * @params: what they were loaded for
 * @report: gets warnings: what ends soon, who will not be recognised; and an
 *   error if a name is needed that is missing
 */
void bf_tls_check_soon(const BfTlsOwn *own, const BfTlsCredsParams *params,
                       BfTlsReport *report);

/**
 * bf_tls_describe_certs:
 * @own: our certificates
 * @info: gets them in its list
 */
void bf_tls_describe_certs(const BfTlsOwn *own, BfTlsCredsInfo *info);

/**
 * bf_tls_cert_allows:
 * @cert: a certificate
 * @needed: the OID of a purpose (extendedKeyUsage)
 * @ret_critical: (out): whether the extension is critical
 *
 * Returns: whether it may be used for that
 */
bool bf_tls_cert_allows(gnutls_x509_crt_t cert, const char *needed,
                        bool *ret_critical);

/**
 * bf_tls_cert_names:
 * @cert: a certificate
 * @max: most names that are wanted
 *
 * Returns: (transfer full): the host names and addresses that it is for,
 * printable
 */
GPtrArray *bf_tls_cert_names(gnutls_x509_crt_t cert, unsigned int max);

/**
 * BfTlsBlock: a piece of the output; it never moves
 */
typedef struct BfTlsBlock BfTlsBlock;
struct BfTlsBlock {
    BfTlsBlock *next;
    size_t capacity;
    size_t start; /* first byte that is not sent */
    size_t end;   /* behind the last byte */
    uint8_t bytes[];
};

/**
 * BfTlsOutput: bytes on their way to the peer
 * @head: the block that is sent first, or NULL
 * @tail: the block that is filled, or NULL
 * @spare: an empty block kept for the next time, or NULL
 * @bytes: how many bytes wait in all blocks
 * @expected: how many bytes the current operation is likely to add
 */
typedef struct BfTlsOutput {
    BfTlsBlock *head;
    BfTlsBlock *tail;
    BfTlsBlock *spare;
    size_t bytes;
    size_t expected;
} BfTlsOutput;

/**
 * bf_tls_output_reserve:
 * @output: the queue
 * @len: number of bytes wanted in one piece
 *
 * Returns: (transfer none): room for @len bytes, to be followed by
 * bf_tls_output_commit()
 */
uint8_t *bf_tls_output_reserve(BfTlsOutput *output, size_t len);

/**
 * bf_tls_output_commit:
 * @output: the queue
 * @len: how many bytes were written into the room reserved
 */
void bf_tls_output_commit(BfTlsOutput *output, size_t len);

/**
 * bf_tls_output_peek:
 * @output: the queue
 * @iov: (out caller-allocates): the first bytes
 * @niov: entries in @iov
 *
 * Returns: number of entries used
 */
int bf_tls_output_peek(const BfTlsOutput *output, struct iovec *iov, int niov);

/**
 * bf_tls_output_consume:
 * @output: the queue
 * @len: number of bytes to drop from its head, at most those there are
 */
void bf_tls_output_consume(BfTlsOutput *output, size_t len);

/**
 * bf_tls_output_trim:
 * @output: the queue
 *
 * Gives back what is empty.
 */
void bf_tls_output_trim(BfTlsOutput *output);

/**
 * bf_tls_output_clear:
 * @output: the queue; drops its bytes and its memory
 */
void bf_tls_output_clear(BfTlsOutput *output);

/**
 * BfTlsInput: bytes from the peer, in one piece
 * @bytes: owned; NULL while there is no buffer
 * @capacity: size of the buffer
 * @start: first byte that is not taken
 * @end: behind the last byte
 * @wanted: the capacity that the buffer gets when it is next empty
 * @small_fills: how often in a row little came at once
 * @offered: the room that was last offered
 * @eof: no more bytes will come
 */
typedef struct BfTlsInput {
    uint8_t *bytes;
    size_t capacity;
    size_t start;
    size_t end;
    size_t wanted;
    unsigned int small_fills;
    size_t offered;
    bool eof;
} BfTlsInput;

/**
 * BfTlsRekey: when a session changes the key that it writes with
 * @after: so many records are written under one key; 0 leaves it to the library
 * @pause_us: least time from one key to the next, microseconds
 * @last_us: when the key was changed last
 * @sent: key updates so far
 * @received: the peer's, if our own engine handles them
 */
typedef struct BfTlsRekey {
    uint64_t after;
    gint64 pause_us;
    gint64 last_us;
    uint64_t sent;
    uint64_t received;
} BfTlsRekey;

/**
 * bf_tls_rekey_init:
 * @rekey: set to what the environment says
 * @error: set if that is nonsense
 *
 * Returns: false on failure
 */
bool bf_tls_rekey_init(BfTlsRekey *rekey, GError **error);

/**
 * bf_tls_rekey_is_due:
 * @rekey: of a session
 * @records: written under the key of now
 *
 * Returns: true if the next record needs a new key
 */
bool bf_tls_rekey_is_due(const BfTlsRekey *rekey, uint64_t records);

/**
 * bf_tls_rekey_note:
 * @rekey: of a session that has a new key
 */
void bf_tls_rekey_note(BfTlsRekey *rekey);

/**
 * bf_tls_rekey_log:
 * @rekey: of a session that ends
 * @engine: the name of its record engine
 *
 * Tells how often the keys were changed, at level debug.
 */
void bf_tls_rekey_log(const BfTlsRekey *rekey, const char *engine);

/**
 * BfTlsRecordOps: a record engine, used once a session is verified
 * @name: see bf_tls_session_get_records()
 * @open: see bf_tls_session_open()
 * @seal: see bf_tls_session_seal(); the limit is already checked
 * @seal_space: (nullable): see bf_tls_session_seal_space(); both or none
 * @seal_filled: (nullable): see bf_tls_session_seal_filled()
 * @alert: puts a fatal alert into the output
 * @bye: puts the close message into the output
 *
 * On failure they set the error, and open leaves an alert where one is due;
 * the caller marks the session as failed.
 */
typedef struct BfTlsRecordOps {
    const char *name;
    ssize_t (*open)(BfTlsSession *session, const struct iovec *iov, int niov,
                    GError **error);
    ssize_t (*seal)(BfTlsSession *session, const struct iovec *iov, int niov,
                    size_t max_output, GError **error);
    int (*seal_space)(BfTlsSession *session, size_t bytes, struct iovec *iov,
                      int niov, size_t *ret_len, GError **error);
    bool (*seal_filled)(BfTlsSession *session, size_t len, GError **error);
    void (*alert)(BfTlsSession *session, gnutls_alert_description_t alert);
    void (*bye)(BfTlsSession *session);
} BfTlsRecordOps;

/**
 * BfTlsState: how far a session has come
 * @BF_TLS_STATE_HANDSHAKE: keys are being agreed on
 * @BF_TLS_STATE_UNVERIFIED: the peer is still to be checked
 * @BF_TLS_STATE_READY: data may flow
 * @BF_TLS_STATE_FAILED: nothing more can be done with it
 */
typedef enum BfTlsState {
    BF_TLS_STATE_HANDSHAKE,
    BF_TLS_STATE_UNVERIFIED,
    BF_TLS_STATE_READY,
    BF_TLS_STATE_FAILED,
} BfTlsState;

/**
 * BfTls13: what the engine for TLS 1.3 keeps; see tls13-private.h
 */
typedef struct BfTls13 BfTls13;

struct BfTlsSession {
    BfTlsMaterial *creds; /* a reference */
    gnutls_session_t tls; /* NULL once the engine for TLS 1.3 took over */
    BfTls13 *tls13;       /* owned; NULL if the engine is out of the question */
    const char *version;  /* of the protocol; set by the handshake */
    const char *cipher;   /* set by the handshake */
    char *hostname;       /* owned; NULL for servers */
    char *peer_dn;        /* owned; NULL without a certificate */
    char *peer_label;
    char *psk_user;  /* owned: who the peer says to be, or NULL; proven once the
                        session is verified, when it is peer_dn as well */
    char *psk_fault; /* owned: what is wrong with the peer's user, or NULL */
    BfTlsState state;
    BfTlsInput input;
    BfTlsOutput output;
    const BfTlsRecordOps *records;
    BfTlsRekey rekey;
    uint64_t written; /* records under the key of now, by gnutls' engine */
    size_t handshake_bytes; /* taken from the input before it was done */
    uint8_t pulled[7];      /* the last of these: as many as an alert has */
    int open_result;  /* what gnutls said behind data, for the next open */
    bool peer_closed; /* the peer's close message came */
    bool bye_sent;
};

/* The most data in one record (RFC 8446, 5.1). */
#define BF_TLS_RECORD_MAX_BYTES 16384
/* See bf_tls_session_get_records(). */
#define BF_TLS_RECORDS_VARIABLE "BLOCKFERRY_TLS_RECORDS"

/* The record engine that handles every protocol and cipher. */
extern const BfTlsRecordOps bf_tls_records_gnutls;

/**
 * bf_tls_session_send_alert:
 * @session: a session
 * @alert: (type gnutls_alert_description_t): what to say
 *
 * Leaves a fatal alert as output.
 */
void bf_tls_session_send_alert(BfTlsSession *session,
                               gnutls_alert_description_t alert);

/**
 * bf_tls_session_is_early_again:
 * @session: a session
 * @result: what a library call returned
 *
 * After a message that is not data (ticket, key update) or only a part of one,
 * the library says "try again" although there is more to read. At the end of
 * the stream it is asked once more, so that it can tell what end that is.
 *
 * Returns: true if the call must be repeated at once
 */
bool bf_tls_session_is_early_again(const BfTlsSession *session, ssize_t result);

/**
 * bf_tls_session_refusal:
 * @session: a session
 * @ret: the library's result of its handshake, a failure
 *
 * Returns: the alert that the peer has refused it with, or -1
 */
int bf_tls_session_refusal(const BfTlsSession *session, int ret);

/**
 * bf_tls_session_set_handshake_error:
 * @session: a session
 * @ret: the library's result of its handshake, a failure
 * @error: set to what has failed and a way out
 */
void bf_tls_session_set_handshake_error(const BfTlsSession *session, int ret,
                                        GError **error);

/**
 * bf_tls_session_is_cut_off:
 * @session: a session
 * @result: the error that a library call returned
 *
 * Returns: true if the cause is that the stream ended
 */
bool bf_tls_session_is_cut_off(const BfTlsSession *session, int result);

/**
 * bf_tls_alert_text:
 * @session: a session that received an alert
 *
 * Returns: (transfer none): the name of the alert
 */
const char *bf_tls_alert_text(const BfTlsSession *session);
