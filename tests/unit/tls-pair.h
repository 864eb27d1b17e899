/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two TLS sessions joined in memory, and credentials for them. Failures are
 * assertions.
 */
#pragma once

#include "certs.h"
#include "crypto/tls-session.h"

/**
 * BfTestTls: what most tests use, made once; see bf_test_tls_init()
 * @ca: signs @server and @client
 * @server: for server1.example, *.wild.example and 127.0.0.1
 * @client: C=GB,O=Example\, Org,CN=client1
 * @server_dir: files of a server
 * @client_dir: files of a client
 * @bare_client_dir: files of a client without a certificate
 * @server_creds: from @server_dir
 * @client_creds: from @client_dir
 * @client_records: (nullable): the record engine of clients: "gnutls", "own"
 * with the cipher of gnutls, or "ipsec-mb" for "own" with that of libipsec-mb;
 * NULL for the usual
 * @server_records: (nullable): the record engine of servers
 */
typedef struct BfTestTls {
    BfTestCert *ca;
    BfTestCert *server;
    BfTestCert *client;
    char *server_dir;
    char *client_dir;
    char *bare_client_dir;
    BfTlsCreds *server_creds;
    BfTlsCreds *client_creds;
    const char *client_records;
    const char *server_records;
} BfTestTls;

/* The one that the tests of a program share. */
extern BfTestTls bf_test_tls;

/**
 * bf_test_tls_init:
 *
 * Makes what %bf_test_tls holds.
 */
void bf_test_tls_init(void);

/**
 * bf_test_tls_clear:
 *
 * Removes what bf_test_tls_init() made.
 */
void bf_test_tls_clear(void);

/**
 * bf_test_add_records:
 * @path: start of the test's path
 * @func: the test
 *
 * Adds the test four times, with each record engine on each side, and three
 * times more with libipsec-mb if it is there. Sessions of a
 * test must be made by bf_test_new_session().
 */
void bf_test_add_records(const char *path, void (*func)(void));

/**
 * bf_test_new_session:
 * @creds: as for bf_tls_session_new()
 * @hostname: (nullable): as for bf_tls_session_new()
 *
 * Returns: (transfer full): a session with the engine that the test wants
 */
BfTlsSession *bf_test_new_session(BfTlsCreds *creds, const char *hostname);

/**
 * bf_test_check_records:
 * @session: a verified session
 * @wanted: (nullable): the engine that was asked for
 *
 * Checks that the session uses the engine, or gnutls where it must.
 */
void bf_test_check_records(const BfTlsSession *session, const char *wanted);

/**
 * bf_test_load:
 * @endpoint: the side
 * @dir: directory with the files
 * @verify: whether to verify the peer
 * @priority: (nullable): priority string
 *
 * Returns: (transfer full): credentials, loaded without sanity checks
 */
BfTlsCreds *bf_test_load(BfTlsEndpoint endpoint, const char *dir, bool verify,
                         const char *priority);

/**
 * bf_test_load_server:
 * @priority: (nullable): priority string
 *
 * Returns: (transfer full): credentials from the common server directory
 */
BfTlsCreds *bf_test_load_server(const char *priority);

/**
 * bf_test_new_client_dir:
 * @ca: goes into ca-cert.pem
 * @client: (nullable): the client's certificate
 *
 * Returns: (transfer full): a directory for bf_test_remove_dir()
 */
char *bf_test_new_client_dir(const BfTestCert *ca, const BfTestCert *client);

/**
 * bf_test_new_server_dir:
 * @ca: goes into ca-cert.pem
 * @server: the server's certificate
 *
 * Returns: (transfer full): a directory for bf_test_remove_dir()
 */
char *bf_test_new_server_dir(const BfTestCert *ca, const BfTestCert *server);

/**
 * BfTestPair: two sessions that talk to each other
 * @client: one side
 * @server: the other
 * @chunk: most bytes that move at once; 0 for all there is
 * @client_status: what the client's handshake last said
 * @server_status: what the server's handshake last said
 * @client_error: why the client failed
 * @server_error: why the server failed
 */
typedef struct BfTestPair {
    BfTlsSession *client;
    BfTlsSession *server;
    size_t chunk;
    BfTlsStatus client_status;
    BfTlsStatus server_status;
    GError *client_error;
    GError *server_error;
} BfTestPair;

/**
 * bf_test_pair_init:
 * @pair: (out caller-allocates): two sessions before their handshake
 * @server: credentials of the server
 * @client: credentials of the client
 * @hostname: (nullable): whom the client wants
 */
void bf_test_pair_init(BfTestPair *pair, BfTlsCreds *server, BfTlsCreds *client,
                       const char *hostname);

/**
 * bf_test_pair_init_ready:
 * @pair: (out caller-allocates): two sessions with the usual credentials, ready
 *   for data
 */
void bf_test_pair_init_ready(BfTestPair *pair);

/**
 * bf_test_pair_clear:
 * @pair: a pair, or all zero
 */
void bf_test_pair_clear(BfTestPair *pair);

/**
 * bf_test_pair_handshake:
 * @pair: a pair
 *
 * Runs both sides until neither has anything left to say, and sets the members
 * for status and error.
 */
void bf_test_pair_handshake(BfTestPair *pair);

/**
 * bf_test_pair_establish:
 * @pair: a pair; its handshake and verification must succeed
 */
void bf_test_pair_establish(BfTestPair *pair);

/**
 * bf_test_move:
 * @from: a session with output
 * @to: the session that it talks to
 * @chunk: most bytes to move, 0 for all in the first piece
 *
 * Returns: number of bytes moved
 */
size_t bf_test_move(BfTlsSession *from, BfTlsSession *to, size_t chunk);

/**
 * bf_test_step:
 * @session: a session
 * @status: (inout): state of its handshake
 * @error: (nullable): why it failed
 *
 * Goes on with a handshake that is not finished.
 */
void bf_test_step(BfTlsSession *session, BfTlsStatus *status, GError **error);

/**
 * bf_test_seal:
 * @session: who sends
 * @data: what
 * @len: how much
 * @max_output: as for bf_tls_session_seal()
 *
 * Returns: as bf_tls_session_seal()
 */
ssize_t bf_test_seal(BfTlsSession *session, const void *data, size_t len,
                     size_t max_output);

/**
 * bf_test_open:
 * @session: who receives
 * @buf: where to
 * @len: how much at most
 * @error: (nullable): as for bf_tls_session_open()
 *
 * Returns: as bf_tls_session_open()
 */
ssize_t bf_test_open(BfTlsSession *session, void *buf, size_t len,
                     GError **error);

/**
 * bf_test_random_bytes:
 * @len: how many
 *
 * Returns: (transfer full): bytes from the test's random generator
 */
guint8 *bf_test_random_bytes(size_t len);

/**
 * bf_test_check_transfer:
 * @from: who sends
 * @to: who receives
 * @len: how many bytes
 * @max_output: as for bf_tls_session_seal()
 * @chunk: as for bf_test_move()
 *
 * Sends bytes over and compares.
 */
void bf_test_check_transfer(BfTlsSession *from, BfTlsSession *to, size_t len,
                            size_t max_output, size_t chunk);

/**
 * bf_test_assert_message:
 * @error: an error
 * @phrase: must be a part of its message
 */
void bf_test_assert_message(const GError *error, const char *phrase);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(BfTestPair, bf_test_pair_clear)
