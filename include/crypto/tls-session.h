/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS sessions: turn bytes into records and back, without any I/O.
 *
 * Bytes that came from the peer go in through bf_tls_session_input_space() or
 * bf_tls_session_feed(); bytes for the peer come out of
 * bf_tls_session_get_output(). No function waits, so none is a coroutine. The
 * order of calls is
 *
 *   1. bf_tls_session_handshake() until it is done, moving bytes both ways;
 *   2. bf_tls_session_verify(), once;
 *   3. bf_tls_session_open() and bf_tls_session_seal() as needed;
 *   4. bf_tls_session_bye(), and send the last output.
 *
 * Steps 1 and 2 compute with private keys for up to some milliseconds: run them
 * on the thread pool, where nobody else may use the session meanwhile. In step
 * 3 one reader (input, open) and one writer (seal, output) on one thread share
 * the session without locks. Any call may leave output behind, not only seal:
 * look at bf_tls_session_wants_output() after each one.
 */
#pragma once

#include "crypto/tls-creds.h"

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

/* A peer that sends more than this before the handshake is done is cut off. */
#define BF_TLS_HANDSHAKE_MAX_BYTES ((size_t)128 * 1024)
/* The most input that a session holds; far above one record. */
#define BF_TLS_INPUT_MAX_BYTES ((size_t)256 * 1024)
/* The upper bound of what bf_tls_session_seal() takes for @max_output. */
#define BF_TLS_OUTPUT_MAX_BYTES ((size_t)4 * 1024 * 1024)

/**
 * BfTlsSession: one side of one TLS connection
 */
typedef struct BfTlsSession BfTlsSession;

/**
 * BfTlsStatus: results other than a count of bytes
 * @BF_TLS_DONE: the step is complete
 * @BF_TLS_FAILED: the session cannot go on; the error says why. There may be
 *   output, an alert that tells the peer: try to send it, then close
 * @BF_TLS_NEED_INPUT: more bytes from the peer are needed; send the output
 *   first, the peer may be waiting for it
 * @BF_TLS_TRUNCATED: like %BF_TLS_FAILED, because the stream ended without the
 *   peer's close message: it crashed, or somebody cut the connection
 */
typedef enum BfTlsStatus {
    BF_TLS_DONE = 0,
    BF_TLS_FAILED = -1,
    BF_TLS_NEED_INPUT = -2,
    BF_TLS_TRUNCATED = -3,
} BfTlsStatus;

/**
 * bf_tls_session_new:
 * @creds: the credentials; their endpoint is the side that the session plays
 * @peer_hostname: (nullable): for a client, the name or address that the
 *   server's certificate must be valid for; ignored for a server
 * @error: set on failure
 *
 * Returns: (transfer full): a session before its handshake, or NULL
 */
BfTlsSession *bf_tls_session_new(BfTlsCreds *creds, const char *peer_hostname,
                                 GError **error);

/**
 * bf_tls_session_free:
 * @session: (nullable) (transfer full): a session, in any state
 */
void bf_tls_session_free(BfTlsSession *session);

/**
 * bf_tls_session_input_space:
 * @session: a session
 * @min_bytes: the least room that is of use, 1 to 16 KiB
 * @ret_ptr: (out): where to put bytes that come from the peer
 * @ret_len: (out): room there, at least @min_bytes
 *
 * Offers room in the session's input buffer, so that it can be received into
 * without a copy. The place stays valid until bf_tls_session_input_commit() or
 * the next call that takes input; seal and output calls do not move it. Under
 * load the room grows up to %BF_TLS_INPUT_MAX_BYTES, and it shrinks again.
 *
 * Returns: false if the buffer is full: open what is there first
 */
bool bf_tls_session_input_space(BfTlsSession *session, size_t min_bytes,
                                void **ret_ptr, size_t *ret_len);

/**
 * bf_tls_session_input_commit:
 * @session: a session
 * @len: number of bytes that were put into the room offered, at most its length
 */
void bf_tls_session_input_commit(BfTlsSession *session, size_t len);

/**
 * bf_tls_session_feed:
 * @session: a session
 * @data: bytes that came from the peer
 * @len: their number
 *
 * Copies bytes into the input buffer.
 *
 * Returns: the number of bytes taken; less than @len if the buffer is full
 */
size_t bf_tls_session_feed(BfTlsSession *session, const void *data, size_t len);

/**
 * bf_tls_session_input_eof:
 * @session: a session
 *
 * Tells the session that the peer will send no more bytes. What has arrived is
 * still processed; then calls that need input fail instead of asking for it.
 */
void bf_tls_session_input_eof(BfTlsSession *session);

/**
 * bf_tls_session_rest:
 * @session: a verified session; nobody uses its input or output now
 *
 * Gives back the memory that only moving bytes takes, if no bytes wait in
 * either direction. The session can be used as before.
 *
 * Returns: false if bytes wait, or something else that the next
 * bf_tls_session_open() has to tell
 */
bool bf_tls_session_rest(BfTlsSession *session);

/**
 * bf_tls_session_wants_output:
 * @session: a session
 *
 * Returns: whether there are bytes to be sent to the peer
 */
bool bf_tls_session_wants_output(const BfTlsSession *session);

/**
 * bf_tls_session_output_bytes:
 * @session: a session
 *
 * Returns: how many bytes there are to be sent to the peer
 */
size_t bf_tls_session_output_bytes(const BfTlsSession *session);

/**
 * bf_tls_session_get_output:
 * @session: a session
 * @iov: (out caller-allocates): the bytes to be sent to the peer
 * @niov: number of entries in @iov, at least 1; 2 is nearly always enough for
 *   all there is
 *
 * The memory neither moves nor goes away before bf_tls_session_output_consume()
 * says that it was sent, whatever is called meanwhile. Calling it again without
 * a consume gives the same bytes, and perhaps more.
 *
 * Returns: number of entries used; 0 if there is nothing to be sent
 */
int bf_tls_session_get_output(const BfTlsSession *session, struct iovec *iov,
                              int niov);

/**
 * bf_tls_session_output_consume:
 * @session: a session
 * @len: number of bytes that were sent, at most what was last got
 */
void bf_tls_session_output_consume(BfTlsSession *session, size_t len);

/**
 * bf_tls_session_handshake:
 * @session: a session whose handshake is not complete
 * @error: set when the result is %BF_TLS_FAILED
 *
 * Takes the handshake as far as the input allows. There may be output in all
 * three cases.
 *
 * Returns: %BF_TLS_DONE, %BF_TLS_NEED_INPUT or %BF_TLS_FAILED
 */
BfTlsStatus bf_tls_session_handshake(BfTlsSession *session, GError **error);

/**
 * bf_tls_session_verify:
 * @session: a session whose handshake is complete
 * @error: set on failure; names the certificate and what is wrong with it
 *
 * Decides whether the peer may be talked to: its certificate chain, revocation,
 * validity of every certificate sent, and for a client the server's name. With
 * verify-peer off everybody may. On failure an alert is left as output, which
 * does not tell the peer the reason.
 *
 * Returns: true if the session may be used
 */
bool bf_tls_session_verify(BfTlsSession *session, GError **error);

/**
 * bf_tls_session_deny:
 * @session: a session whose handshake is complete
 *
 * Leaves an alert as output that tells the peer that it was denied, for callers
 * that have rules of their own, and makes all later calls fail.
 */
void bf_tls_session_deny(BfTlsSession *session);

/**
 * bf_tls_session_open:
 * @session: a verified session
 * @iov: (out caller-allocates): room for decrypted bytes
 * @niov: number of entries in @iov, at least 1, in all at least 1 byte
 * @error: set when the result is %BF_TLS_FAILED or %BF_TLS_TRUNCATED
 *
 * Decrypts as much of the input as there is room for. The room behind the bytes
 * that are returned may have been written to as well.
 *
 * Returns: number of bytes put into @iov; 0 when the peer has closed its side
 * in due form; %BF_TLS_NEED_INPUT, %BF_TLS_FAILED or %BF_TLS_TRUNCATED
 */
ssize_t bf_tls_session_open(BfTlsSession *session, const struct iovec *iov,
                            int niov, GError **error);

/**
 * bf_tls_session_seal:
 * @session: a verified session, before bf_tls_session_bye()
 * @iov: bytes for the peer
 * @niov: number of entries in @iov
 * @max_output: how far the output may grow, up to %BF_TLS_OUTPUT_MAX_BYTES
 * @error: set when the result is %BF_TLS_FAILED
 *
 * Encrypts bytes into the output. Short pieces share a record; long ones are
 * encrypted from where they lie. If there was no output at all, at least one
 * record is made, however small @max_output is.
 *
 * Returns: number of bytes taken, 0 if the output is full, or %BF_TLS_FAILED
 */
ssize_t bf_tls_session_seal(BfTlsSession *session, const struct iovec *iov,
                            int niov, size_t max_output, GError **error);

/**
 * bf_tls_session_has_seal_space:
 * @session: a verified session
 *
 * Returns: whether bf_tls_session_seal_space() can be used; that does not
 * change
 */
bool bf_tls_session_has_seal_space(const BfTlsSession *session);

/**
 * bf_tls_session_seal_space:
 * @session: a verified session, before bf_tls_session_bye(), that
 *   bf_tls_session_has_seal_space() says yes of
 * @bytes: how many bytes for the peer there are, at least 1
 * @iov: (out caller-allocates): where they belong, in this order
 * @niov: number of entries in @iov, at least 1
 * @ret_len: (out): bytes that there is room for, 1 to @bytes
 * @error: set on failure
 *
 * Offers the places in the output where bytes are encrypted, one for each
 * record, so that they can be read there without a copy. Nothing else may be
 * done with the session before bf_tls_session_seal_filled().
 *
 * Returns: number of entries used, or %BF_TLS_FAILED
 */
int bf_tls_session_seal_space(BfTlsSession *session, size_t bytes,
                              struct iovec *iov, int niov, size_t *ret_len,
                              GError **error);

/**
 * bf_tls_session_seal_filled:
 * @session: a session whose bf_tls_session_seal_space() was called just now
 * @len: number of bytes that were put there, at most those that were offered; 0
 *   gives the room back
 * @error: set on failure
 *
 * Encrypts them and adds them to the output.
 *
 * Returns: true on success
 */
bool bf_tls_session_seal_filled(BfTlsSession *session, size_t len,
                                GError **error);

/**
 * bf_tls_session_bye:
 * @session: a session in any state
 *
 * Puts the close message behind the output, unless the session has failed, is
 * not established or has said it already.
 */
void bf_tls_session_bye(BfTlsSession *session);

/**
 * bf_tls_session_trim:
 * @session: a session
 *
 * Gives back buffers that are empty, for a connection that has been idle. Not
 * while the room from bf_tls_session_input_space() is in use.
 */
void bf_tls_session_trim(BfTlsSession *session);

/**
 * bf_tls_session_get_version:
 * @session: a session whose handshake is complete
 *
 * Returns: (transfer none): the protocol, for example "TLS1.3"
 */
const char *bf_tls_session_get_version(const BfTlsSession *session);

/**
 * bf_tls_session_get_cipher:
 * @session: a session whose handshake is complete
 *
 * Returns: (transfer none): the cipher, for example "AES-128-GCM"
 */
const char *bf_tls_session_get_cipher(const BfTlsSession *session);

/**
 * bf_tls_session_get_records:
 * @session: a verified session
 *
 * There are two record engines. "own" is the faster one; it takes over after
 * the handshake if that agreed on TLS 1.3 with AES-GCM. "gnutls" does the rest.
 * The credentials may demand one of them; if they do not, the environment
 * variable BLOCKFERRY_TLS_RECORDS can demand "gnutls" when a session is made.
 *
 * Both change their keys after 2^23 records or more, far from what tests send.
 * With the environment variable BLOCKFERRY_TLS_REKEY_RECORDS they do so after
 * that many, but not more often than five times in a second.
 *
 * Returns: (transfer none): "own" or "gnutls"
 */
const char *bf_tls_session_get_records(const BfTlsSession *session);

/**
 * bf_tls_session_get_cipher_library:
 * @session: a verified session
 *
 * The records of "own" may take the cipher itself from libipsec-mb, if the
 * program was built with it: because the processor has VAES and AVX-512, with
 * which it is faster by far, or because the credentials demand it.
 *
 * Returns: (transfer none): "gnutls" or "ipsec-mb"
 */
const char *bf_tls_session_get_cipher_library(const BfTlsSession *session);

/**
 * bf_tls_session_get_peer_dn:
 * @session: a session, after bf_tls_session_verify()
 *
 * The subject of the peer's certificate, attribute by attribute in the order of
 * the encoding, for example "C=GB,O=Example\, Org,CN=client1". It is what
 * authorization rules compare with. With verify-peer off it proves nothing. On
 * the server's side of a session with pre-shared keys it is the user, who has
 * proven to have the key.
 *
 * Returns: (transfer none) (nullable): the name, NULL if there is neither a
 * certificate nor a user
 */
const char *bf_tls_session_get_peer_dn(const BfTlsSession *session);

/**
 * bf_tls_session_get_peer_label:
 * @session: a session, after bf_tls_session_verify()
 *
 * Returns: (transfer none) (nullable): like bf_tls_session_get_peer_dn(), but
 * with everything replaced that could garble a log line
 */
const char *bf_tls_session_get_peer_label(const BfTlsSession *session);

/**
 * bf_tls_session_get_identity:
 * @session: a session, after bf_tls_session_verify()
 *
 * The name that authorization rules compare with: the subject of the peer's
 * certificate as bf_tls_session_get_peer_dn() gives it, or the user whose
 * pre-shared key the peer has.
 *
 * Returns: (transfer none) (nullable): the name that the peer has proved to
 * have, NULL if it has proved none
 */
const char *bf_tls_session_get_identity(const BfTlsSession *session);

/**
 * bf_tls_session_get_hostname:
 * @session: a session
 *
 * Returns: (transfer none) (nullable): the peer's host name given at creation
 */
const char *bf_tls_session_get_hostname(const BfTlsSession *session);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfTlsSession, bf_tls_session_free)
