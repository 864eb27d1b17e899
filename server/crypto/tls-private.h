/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the TLS sources share: the structs behind the public types, the list of
 * certificates, and the queue of output.
 */
#pragma once

#include "crypto/tls-session.h"

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

struct BfTlsCreds {
    BfTlsCredsKind kind;
    BfTlsEndpoint endpoint;
    bool verify_peer;
    char *ca_path; /* owned; for messages */
    gnutls_certificate_credentials_t x509;
    gnutls_priority_t priority;
    gnutls_dh_params_t dh_params; /* or NULL */
};

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
 * bf_tls_check_own:
 * @endpoint: the side that the certificate is for
 * @leaf: our own certificate and what it was sent with; empty if there is none
 * @ca: the certificates that we trust
 * @error: set when a check fails
 *
 * Checks, before they are put to use, that certificates are valid, fit for
 * their purpose, and signed.
 *
 * Returns: true if all is well
 */
bool bf_tls_check_own(BfTlsEndpoint endpoint, const BfTlsCerts *leaf,
                      const BfTlsCerts *ca, GError **error);

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
 * BfTlsRecordOps: a record engine, used once a session is verified
 * @name: see bf_tls_session_get_records()
 * @open: see bf_tls_session_open()
 * @seal: see bf_tls_session_seal(); the limit is already checked
 * @alert: puts a fatal alert into the output
 * @bye: puts the close message into the output
 *
 * On failure open and seal set the error and leave an alert where one is due;
 * the caller marks the session as failed.
 */
typedef struct BfTlsRecordOps {
    const char *name;
    ssize_t (*open)(BfTlsSession *session, const struct iovec *iov, int niov,
                    GError **error);
    ssize_t (*seal)(BfTlsSession *session, const struct iovec *iov, int niov,
                    size_t max_output, GError **error);
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
    BfTlsCreds *creds;    /* a reference */
    gnutls_session_t tls; /* NULL once the engine for TLS 1.3 took over */
    BfTls13 *tls13;       /* owned; NULL if the engine is out of the question */
    const char *version;  /* of the protocol; set by the handshake */
    const char *cipher;   /* set by the handshake */
    char *hostname;       /* owned; NULL for servers */
    char *peer_dn;        /* owned; NULL without a certificate */
    char *peer_label;
    BfTlsState state;
    BfTlsInput input;
    BfTlsOutput output;
    const BfTlsRecordOps *records;
    size_t handshake_bytes; /* taken from the input before it was done */
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
