/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer of what the record engine for TLS 1.3 does with its input. The first
 * byte says whether a client or a server reads, and how its session begins
 * (Start); then come steps of a byte that says what is sent and how it is read,
 * a length and that many bytes. A step may encrypt its bytes with the right
 * key, so that what is behind the cipher is reached as well.
 *
 * Beyond not crashing: what is read is what was sent as data, in order, and
 * nothing follows a failure.
 */
#include <string.h>

#include "server/crypto/tls13-private.h"
#include "tests/unit/tls-pair.h"

#define TYPE_DATA 23
#define TYPE_HANDSHAKE 22
#define ROOM_MAX_BYTES 20000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * How a session begins. Handshakes take a hundred times as long as the rest,
 * and their keys are never the same, so most inputs do without.
 */
typedef enum Start {
    START_FIXED_KEYS,
    START_AES_128, /* with a handshake, whose keys the engine takes over */
    START_AES_256,
    START_CHACHA, /* with a handshake, and a cipher that it leaves alone */
    START_INPUT,  /* what is read are the first bytes of a handshake */
    START_COUNT,
} Start;

/* The fuzzer's side, and what it knows about the other. */
typedef struct Peer {
    BfTlsSession *session;
    const BfTls13Suite *suite;
    BfTls13Keys write;
    GByteArray *sent; /* as data */
    size_t got;
    bool over;
} Peer;

static const BfTls13Suite suite = {GNUTLS_CIPHER_AES_128_GCM, GNUTLS_MAC_SHA256,
                                   32, 16};

static struct {
    BfTlsCreds *client;
    BfTlsCreds *server[START_COUNT];
} creds;

static BfTlsCreds *
load_creds(BfTlsEndpoint endpoint, const char *dir, const char *cipher)
{
    g_autofree char *priority = g_strconcat(
        "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+", cipher, NULL);

    return bf_test_load(endpoint, dir, false, cipher ? priority : NULL);
}

static void
load_all_creds(void)
{
    if (creds.client != NULL) {
        return;
    }
    bf_test_tls_init();
    creds.client =
        load_creds(BF_TLS_ENDPOINT_CLIENT, bf_test_tls.bare_client_dir, NULL);
    for (Start start = 0; start < START_COUNT; start++) {
        static const char *const ciphers[START_COUNT] = {
            [START_AES_128] = "AES-128-GCM",
            [START_AES_256] = "AES-256-GCM",
            [START_CHACHA] = "CHACHA20-POLY1305",
        };

        creds.server[start] = load_creds(
            BF_TLS_ENDPOINT_SERVER, bf_test_tls.server_dir, ciphers[start]);
    }
    bf_test_tls_clear(); /* a fuzzer has no orderly end */
}

/* A session as it is behind a handshake, with keys that are always the same. */
static BfTlsSession *
new_session(bool is_server)
{
    BfTlsSession *session = g_new0(BfTlsSession, 1);
    BfTls13 *tls13 = g_new0(BfTls13, 1);

    tls13->is_server = is_server;
    tls13->suite = &suite;
    tls13->max_record = BF_TLS_RECORD_MAX_BYTES;
    tls13->peer_alert = -1;
    tls13->read.library = bf_tls13_aead_choose();
    tls13->write.library = bf_tls13_aead_choose();
    g_assert_cmpint(bf_tls13_keys_next(&tls13->read, &suite), >=, 0);
    g_assert_cmpint(bf_tls13_keys_next(&tls13->write, &suite), >=, 0);
    session->tls13 = tls13;
    session->records = &bf_tls_records_own;
    session->state = BF_TLS_STATE_READY;
    session->input.wanted = 17 * 1024;
    return session;
}

static void
init_fixed(Peer *peer, bool is_server)
{
    peer->session = new_session(is_server);
    peer->suite = &suite;
    peer->write.library = &bf_tls13_aead_gnutls;
    g_assert_cmpint(bf_tls13_keys_next(&peer->write, &suite), >=, 0);
}

/* After a handshake, the fuzzer writes with the keys of the other side. */
static void
init_handshake(Peer *peer, bool is_server, Start start)
{
    g_auto(BfTestPair) pair = {0};
    BfTlsSession **reader = is_server ? &pair.server : &pair.client;
    BfTlsSession *writer;

    load_all_creds();
    bf_test_pair_init(&pair, creds.server[start], creds.client, NULL);
    bf_test_pair_establish(&pair);
    writer = is_server ? pair.client : pair.server;
    g_assert_cmpstr(bf_tls_session_get_records(*reader), ==, "own");
    peer->session = g_steal_pointer(reader);
    peer->suite = peer->session->tls13->suite;
    peer->write = writer->tls13->write;
    memset(&writer->tls13->write, 0, sizeof(peer->write));
}

/* Whether an opened record is data; the engine strips padding in its own way.
 */
static size_t
count_data(const uint8_t *inner, size_t len)
{
    for (size_t i = len; i > 0; i--) {
        if (inner[i - 1] != 0) {
            return inner[i - 1] == TYPE_DATA ? i - 1 : 0;
        }
    }
    return 0;
}

static void
send_sealed(Peer *peer, const uint8_t *inner, size_t len)
{
    size_t fragment = len + BF_TLS13_TAG_BYTES;
    g_autofree uint8_t *record = g_malloc(BF_TLS13_HEADER_BYTES + fragment);
    const uint8_t header[] = {TYPE_DATA, 3, 3, fragment >> 8, fragment & 0xff};
    size_t total = BF_TLS13_HEADER_BYTES + fragment;

    memcpy(record, header, sizeof(header));
    memcpy(record + sizeof(header), inner, len);
    g_assert_cmpint(bf_tls13_keys_encrypt(&peer->write, record,
                                          record + sizeof(header), len),
                    >=, 0);
    if (bf_tls_session_feed(peer->session, record, total) == total) {
        g_byte_array_append(peer->sent, inner, count_data(inner, len));
    } else {
        peer->over = true;
    }
}

/* A record of @len times @fill, which is larger than a step can be. */
static void
send_large(Peer *peer, size_t len, uint8_t fill)
{
    g_autofree uint8_t *inner = g_malloc(len + 1);

    memset(inner, fill, len);
    inner[len] = TYPE_DATA;
    send_sealed(peer, inner, len + 1);
}

static void
send_key_update(Peer *peer, uint8_t request)
{
    const uint8_t inner[] = {24, 0, 0, 1, request & 1, TYPE_HANDSHAKE};

    send_sealed(peer, inner, sizeof(inner));
    g_assert_cmpint(bf_tls13_keys_next(&peer->write, peer->suite), >=, 0);
}

/* Reads into two pieces until nothing more comes. */
static void
read_all(Peer *peer, size_t room)
{
    static uint8_t buf[ROOM_MAX_BYTES];
    const struct iovec iov[2] = {{buf, room / 3},
                                 {buf + room / 3, room - room / 3}};
    ssize_t n;

    do {
        g_autoptr(GError) error = NULL;

        n = bf_tls_session_open(peer->session, iov, 2, &error);
        g_assert_true((error != NULL) ==
                      (n == BF_TLS_FAILED || n == BF_TLS_TRUNCATED));
        if (n > 0) {
            g_assert_cmpint(n, <=, room);
            g_assert_cmpint(n, <=, peer->sent->len - peer->got);
            g_assert_true(memcmp(buf, peer->sent->data + peer->got, n) == 0);
            peer->got += n;
        }
    } while (n > 0);
    if (n != BF_TLS_NEED_INPUT) {
        peer->over = true;
        g_assert_cmpint(bf_tls_session_open(peer->session, iov, 2, NULL), ==,
                        n == 0 ? 0 : BF_TLS_FAILED);
    }
}

/* Twice, so that the second time may find the output full. */
static void
write_some(Peer *peer, const uint8_t *data, size_t size)
{
    const struct iovec iov = {(void *)data, size};

    bf_tls_session_trim(peer->session);
    for (int i = 0; i < 2 && !peer->over; i++) {
        g_assert_cmpint(bf_tls_session_seal(peer->session, &iov, 1, 512, NULL),
                        >=, 0);
    }
    bf_tls_session_output_consume(peer->session,
                                  bf_tls_session_output_bytes(peer->session));
}

/* Does one step, and gives the number of bytes that it took. */
static size_t
run_step(Peer *peer, const uint8_t *data, size_t size)
{
    static const size_t rooms[] = {1, 3, 64, 1000, 16383, 16384, 16385, 20000};
    size_t len = MIN((size_t)data[1], size - 2);
    uint8_t fill = len > 0 ? data[2] : 0;

    switch (data[0] & 7) {
    case 0:
        bf_tls_session_feed(peer->session, data + 2, len);
        break;
    case 1:
        send_key_update(peer, data[1]);
        len = 0;
        break;
    case 2:
        send_large(peer, BF_TLS_RECORD_MAX_BYTES - 8 + data[1] % 16, fill);
        len = MIN(len, 1);
        break;
    case 3:
        send_large(peer, (size_t)data[1] * 64, fill);
        len = MIN(len, 1);
        break;
    default:
        send_sealed(peer, data + 2, len);
        break;
    }
    if (data[0] & 8) {
        read_all(peer, rooms[data[0] >> 4 & 7]);
    }
    if (data[0] & 128) {
        write_some(peer, data, size);
    }
    return 2 + len;
}

static void
run_records(Peer *peer, const uint8_t *data, size_t size)
{
    while (size >= 2 && !peer->over) {
        size_t n = run_step(peer, data, size);

        data += n;
        size -= n;
    }
    bf_tls_session_input_eof(peer->session);
    if (!peer->over) {
        read_all(peer, ROOM_MAX_BYTES);
    }
    bf_tls_session_bye(peer->session);
    bf_tls_session_deny(peer->session);
    bf_tls13_keys_clear(&peer->write);
    bf_tls_session_free(peer->session);
}

/* With a cipher that the engine cannot do, gnutls must go on by itself. */
static void
run_other_cipher(size_t size)
{
    g_auto(BfTestPair) pair = {0};

    load_all_creds();
    bf_test_pair_init(&pair, creds.server[START_CHACHA], creds.client, NULL);
    bf_test_pair_establish(&pair);
    g_assert_null(pair.server->tls13);
    g_assert_null(pair.client->tls13);
    if (size > 0) {
        bf_test_check_transfer(pair.client, pair.server, size, 4096, 0);
        bf_test_check_transfer(pair.server, pair.client, size, 4096, 0);
    }
}

/* Nobody can get through a handshake without the keys. */
static void
run_handshake(bool is_server, const uint8_t *data, size_t size)
{
    g_autoptr(BfTlsSession) session = NULL;
    g_autoptr(GError) error = NULL;
    BfTlsStatus status = BF_TLS_NEED_INPUT;

    load_all_creds();
    session = bf_test_new_session(
        is_server ? creds.server[START_INPUT] : creds.client, NULL);
    while (status == BF_TLS_NEED_INPUT && size > 0) {
        size_t n = bf_tls_session_feed(session, data, MIN(size, 1000));

        status = bf_tls_session_handshake(session, &error);
        data += n;
        size -= n;
    }
    bf_tls_session_input_eof(session);
    if (status == BF_TLS_NEED_INPUT) {
        status = bf_tls_session_handshake(session, &error);
    }
    g_assert_cmpint(status, ==, BF_TLS_FAILED);
    g_assert_nonnull(error);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GByteArray) sent = g_byte_array_new();
    Peer peer = {.sent = sent};
    bool is_server;
    Start start;

    if (size == 0) {
        return 0;
    }
    is_server = (data[0] & 1) != 0;
    start = (data[0] >> 1) % 8;
    if (start == START_CHACHA) {
        run_other_cipher(size - 1);
    } else if (start == START_INPUT) {
        run_handshake(is_server, data + 1, size - 1);
    } else if (start == START_AES_128 || start == START_AES_256) {
        init_handshake(&peer, is_server, start);
        run_records(&peer, data + 1, size - 1);
    } else {
        init_fixed(&peer, is_server);
        run_records(&peer, data + 1, size - 1);
    }
    return 0;
}
