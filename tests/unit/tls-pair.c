/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two TLS sessions joined in memory, and credentials for them.
 */
#include "tls-pair.h"

#include <string.h>

#include "core/error.h"
#include "server/crypto/tls13-private.h"

BfTestTls bf_test_tls;

BfTlsCreds *
bf_test_load(BfTlsEndpoint endpoint, const char *dir, bool verify,
             const char *priority)
{
    const BfTlsCredsParams params = {
        .endpoint = endpoint,
        .dir = dir,
        .verify_peer = verify,
        .priority = priority,
        .sanity_check = false,
    };
    g_autoptr(GError) error = NULL;
    BfTlsCreds *creds = bf_tls_creds_new(&params, &error);

    g_assert_no_error(error);
    return creds;
}

BfTlsCreds *
bf_test_load_server(const char *priority)
{
    return bf_test_load(BF_TLS_ENDPOINT_SERVER, bf_test_tls.server_dir, true,
                        priority);
}

char *
bf_test_new_client_dir(const BfTestCert *ca, const BfTestCert *client)
{
    char *dir = bf_test_tmp_dir();

    bf_test_write_certs(dir, "ca-cert.pem", ca, NULL);
    if (client != NULL) {
        bf_test_write_certs(dir, "client-cert.pem", client, NULL);
        bf_test_write_key(dir, "client-key.pem", client);
    }
    return dir;
}

char *
bf_test_new_server_dir(const BfTestCert *ca, const BfTestCert *server)
{
    char *dir = bf_test_tmp_dir();

    bf_test_write_certs(dir, "ca-cert.pem", ca, NULL);
    bf_test_write_certs(dir, "server-cert.pem", server, NULL);
    bf_test_write_key(dir, "server-key.pem", server);
    return dir;
}

void
bf_test_tls_init(void)
{
    const BfTestCertSpec server = {.cn = "server1",
                                   .dns = {"server1.example", "*.wild.example"},
                                   .ip = "127.0.0.1"};
    const BfTestCertSpec client = {
        .country = "GB", .organization = "Example, Org", .cn = "client1"};

    bf_test_tls.ca = bf_test_ca_new("test ca", NULL);
    bf_test_tls.server = bf_test_cert_new(&server, bf_test_tls.ca);
    bf_test_tls.client = bf_test_cert_new(&client, bf_test_tls.ca);
    bf_test_tls.server_dir =
        bf_test_new_server_dir(bf_test_tls.ca, bf_test_tls.server);
    bf_test_tls.client_dir =
        bf_test_new_client_dir(bf_test_tls.ca, bf_test_tls.client);
    bf_test_tls.bare_client_dir = bf_test_new_client_dir(bf_test_tls.ca, NULL);
    bf_test_tls.server_creds = bf_test_load_server(NULL);
    bf_test_tls.client_creds = bf_test_load(BF_TLS_ENDPOINT_CLIENT,
                                            bf_test_tls.client_dir, true, NULL);
}

void
bf_test_tls_clear(void)
{
    bf_tls_creds_unref(bf_test_tls.server_creds);
    bf_tls_creds_unref(bf_test_tls.client_creds);
    bf_test_remove_dir(bf_test_tls.server_dir);
    bf_test_remove_dir(bf_test_tls.client_dir);
    bf_test_remove_dir(bf_test_tls.bare_client_dir);
    bf_test_cert_free(bf_test_tls.ca);
    bf_test_cert_free(bf_test_tls.server);
    bf_test_cert_free(bf_test_tls.client);
}

/* One way to run a test. */
typedef struct Variant {
    const char *name;
    const char *client;
    const char *server;
    void (*func)(void);
} Variant;

static void
run_variant(gconstpointer data)
{
    const Variant *variant = data;

    bf_test_tls.client_records = variant->client;
    bf_test_tls.server_records = variant->server;
    variant->func();
}

void
bf_test_add_records(const char *path, void (*func)(void))
{
    static const Variant variants[] = {
        {.name = "own", .client = "own", .server = "own"},
        {.name = "gnutls", .client = "gnutls", .server = "gnutls"},
        {.name = "own-client", .client = "own", .server = "gnutls"},
        {.name = "own-server", .client = "gnutls", .server = "own"},
        {.name = "ipsec-mb", .client = "ipsec-mb", .server = "ipsec-mb"},
        {.name = "ipsec-mb-client", .client = "ipsec-mb", .server = "own"},
        {.name = "ipsec-mb-server", .client = "gnutls", .server = "ipsec-mb"},
    };
    bool has_ipsec_mb = bf_tls13_aead_get_ipsec_mb(NULL) != NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(variants); i++) {
        Variant *variant;
        g_autofree char *full = NULL;

        if (g_str_has_prefix(variants[i].name, "ipsec-mb") && !has_ipsec_mb) {
            continue;
        }
        variant = g_memdup2(&variants[i], sizeof(*variant));
        full = g_strdup_printf("%s/%s", path, variant->name);
        variant->func = func;
        g_test_add_data_func_full(full, variant, run_variant, g_free);
    }
}

BfTlsSession *
bf_test_new_session(BfTlsCreds *creds, const char *hostname)
{
    const char *wanted =
        bf_tls_creds_get_endpoint(creds) == BF_TLS_ENDPOINT_SERVER
            ? bf_test_tls.server_records
            : bf_test_tls.client_records;
    g_autoptr(GError) error = NULL;
    BfTlsSession *session;

    if (wanted != NULL) {
        g_setenv("BLOCKFERRY_TLS_RECORDS",
                 strcmp(wanted, "ipsec-mb") == 0 ? "own" : wanted, TRUE);
    }
    session = bf_tls_session_new(creds, hostname, &error);
    g_assert_no_error(error);
    if (wanted != NULL && session->tls13 != NULL) {
        const BfTls13AeadOps *library = strcmp(wanted, "ipsec-mb") == 0
                                            ? bf_tls13_aead_get_ipsec_mb(NULL)
                                            : &bf_tls13_aead_gnutls;

        session->tls13->read.library = library;
        session->tls13->write.library = library;
    }
    return session;
}

void
bf_test_check_records(const BfTlsSession *session, const char *wanted)
{
    const char *version = bf_tls_session_get_version(session);
    const char *cipher = bf_tls_session_get_cipher(session);

    if (strcmp(version, "TLS1.3") != 0 || strstr(cipher, "-GCM") == NULL) {
        wanted = "gnutls";
    }
    if (wanted != NULL && strcmp(wanted, "ipsec-mb") == 0) {
        g_assert_cmpstr(bf_tls_session_get_records(session), ==, "own");
        g_assert_cmpstr(bf_tls_session_get_cipher_library(session), ==, wanted);
    } else if (wanted != NULL) {
        g_assert_cmpstr(bf_tls_session_get_records(session), ==, wanted);
        g_assert_cmpstr(bf_tls_session_get_cipher_library(session), ==,
                        "gnutls");
    }
}

void
bf_test_pair_clear(BfTestPair *pair)
{
    bf_tls_session_free(pair->client);
    bf_tls_session_free(pair->server);
    g_clear_error(&pair->client_error);
    g_clear_error(&pair->server_error);
}

void
bf_test_pair_init(BfTestPair *pair, BfTlsCreds *server, BfTlsCreds *client,
                  const char *hostname)
{
    memset(pair, 0, sizeof(*pair));
    pair->server = bf_test_new_session(server, NULL);
    pair->client = bf_test_new_session(client, hostname);
    pair->client_status = BF_TLS_NEED_INPUT;
    pair->server_status = BF_TLS_NEED_INPUT;
}

/* Moves at most @chunk bytes of output into the other's input. */
size_t
bf_test_move(BfTlsSession *from, BfTlsSession *to, size_t chunk)
{
    struct iovec iov;
    size_t n;

    if (bf_tls_session_get_output(from, &iov, 1) == 0) {
        return 0;
    }
    n = chunk == 0 ? iov.iov_len : MIN(chunk, iov.iov_len);
    n = bf_tls_session_feed(to, iov.iov_base, n);
    bf_tls_session_output_consume(from, n);
    return n;
}

void
bf_test_step(BfTlsSession *session, BfTlsStatus *status, GError **error)
{
    if (*status == BF_TLS_NEED_INPUT) {
        *status = bf_tls_session_handshake(session, error);
    }
}

/* Runs both sides until neither has anything left to say. */
void
bf_test_pair_handshake(BfTestPair *pair)
{
    size_t moved;

    do {
        bf_test_step(pair->client, &pair->client_status, &pair->client_error);
        moved = bf_test_move(pair->client, pair->server, pair->chunk);
        bf_test_step(pair->server, &pair->server_status, &pair->server_error);
        moved += bf_test_move(pair->server, pair->client, pair->chunk);
    } while (moved > 0);
}

void
bf_test_pair_establish(BfTestPair *pair)
{
    bf_test_pair_handshake(pair);
    g_assert_no_error(pair->client_error);
    g_assert_no_error(pair->server_error);
    g_assert_cmpint(pair->client_status, ==, BF_TLS_DONE);
    g_assert_cmpint(pair->server_status, ==, BF_TLS_DONE);
    bf_tls_session_verify(pair->client, &pair->client_error);
    g_assert_no_error(pair->client_error);
    bf_tls_session_verify(pair->server, &pair->server_error);
    g_assert_no_error(pair->server_error);
    bf_test_check_records(pair->client, bf_test_tls.client_records);
    bf_test_check_records(pair->server, bf_test_tls.server_records);
}

void
bf_test_pair_init_ready(BfTestPair *pair)
{
    bf_test_pair_init(pair, bf_test_tls.server_creds, bf_test_tls.client_creds,
                      "server1.example");
    bf_test_pair_establish(pair);
}

void
bf_test_assert_message(const GError *error, const char *phrase)
{
    g_assert_error(error, BF_ERROR, BF_ERROR_GENERIC);
    if (strstr(error->message, phrase) == NULL) {
        g_error("'%s' is not in '%s'", phrase, error->message);
    }
    g_test_message("%s", error->message);
}

ssize_t
bf_test_seal(BfTlsSession *session, const void *data, size_t len,
             size_t max_output)
{
    const struct iovec iov = {(void *)data, len};

    return bf_tls_session_seal(session, &iov, 1, max_output, NULL);
}

ssize_t
bf_test_open(BfTlsSession *session, void *buf, size_t len, GError **error)
{
    const struct iovec iov = {buf, len};

    return bf_tls_session_open(session, &iov, 1, error);
}

guint8 *
bf_test_random_bytes(size_t len)
{
    guint8 *bytes = g_malloc(len);

    for (size_t i = 0; i < len; i++) {
        bytes[i] = g_test_rand_int();
    }
    return bytes;
}

/* Sends @len bytes over, in steps of @max_output, and compares. */
void
bf_test_check_transfer(BfTlsSession *from, BfTlsSession *to, size_t len,
                       size_t max_output, size_t chunk)
{
    g_autofree guint8 *data = bf_test_random_bytes(len);
    g_autofree guint8 *copy = g_malloc(len);
    size_t sent = 0;
    size_t got = 0;

    while (got < len) {
        g_autoptr(GError) error = NULL;
        ssize_t n = bf_test_seal(from, data + sent, len - sent, max_output);

        g_assert_cmpint(n, >=, 0);
        sent += n;
        bf_test_move(from, to, chunk);
        n = bf_test_open(to, copy + got, len - got, &error);
        g_assert_no_error(error);
        g_assert_true(n > 0 || n == BF_TLS_NEED_INPUT);
        got += n > 0 ? n : 0;
    }
    g_assert_cmpmem(copy, len, data, len);
}
