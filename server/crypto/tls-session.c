/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS sessions: buffers on both sides of the library, and the handshake.
 *
 * gnutls pulls from the input buffer and pushes into the output queue. A pull
 * without input is "try again"; a push is never refused in the middle of a
 * record, so whoever makes output checks for room before.
 */
#include "tls-private.h"
#include "tls13-private.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "core/util.h"

/* Holds the largest record, 2^14 + 256 bytes and a header (RFC 8446, 5.2). */
#define INPUT_MIN_BYTES (17 * BF_KIB)
/* So many short fills in a row, and the input buffer shrinks. */
#define INPUT_SHRINK_AFTER 32
/* Alerts and key updates may lie above what seal was allowed. */
#define OUTPUT_HARD_MAX_BYTES (BF_TLS_OUTPUT_MAX_BYTES + 256 * BF_KIB)
/* Non-fatal alerts that a peer may send during one handshake call. */
#define HANDSHAKE_MAX_WARNINGS 16

static size_t
input_bytes(const BfTlsInput *input)
{
    return input->end - input->start;
}

static void
note_pulled(BfTlsSession *session, const uint8_t *bytes, size_t len)
{
    size_t n = MIN(len, sizeof(session->pulled));

    memmove(session->pulled, session->pulled + n, sizeof(session->pulled) - n);
    memcpy(session->pulled + sizeof(session->pulled) - n, bytes + len - n, n);
}

static ssize_t
session_pull(gnutls_transport_ptr_t ptr, void *buf, size_t len)
{
    BfTlsSession *session = ptr;
    BfTlsInput *input = &session->input;
    size_t n = MIN(len, input_bytes(input));

    if (n == 0) {
        if (input->eof) {
            return 0;
        }
        gnutls_transport_set_errno(session->tls, EAGAIN);
        return -1;
    }
    if (session->state == BF_TLS_STATE_HANDSHAKE) {
        if (session->handshake_bytes + n > BF_TLS_HANDSHAKE_MAX_BYTES) {
            gnutls_transport_set_errno(session->tls, EIO);
            return -1;
        }
        session->handshake_bytes += n;
        note_pulled(session, input->bytes + input->start, n);
    }
    memcpy(buf, input->bytes + input->start, n);
    input->start += n;
    return n;
}

static int
session_pull_timeout(gnutls_transport_ptr_t ptr, unsigned int ms)
{
    const BfTlsSession *session = ptr;

    return input_bytes(&session->input) > 0 || session->input.eof;
}

static ssize_t
session_push(gnutls_transport_ptr_t ptr, const giovec_t *iov, int niov)
{
    BfTlsSession *session = ptr;
    size_t total = 0;
    uint8_t *room;

    for (int i = 0; i < niov; i++) {
        total += iov[i].iov_len;
    }
    if (total > OUTPUT_HARD_MAX_BYTES - session->output.bytes) {
        gnutls_transport_set_errno(session->tls, ENOBUFS);
        return -1;
    }
    room = bf_tls_output_reserve(&session->output, total);
    for (int i = 0; i < niov; i++) {
        memcpy(room, iov[i].iov_base, iov[i].iov_len);
        room += iov[i].iov_len;
    }
    bf_tls_output_commit(&session->output, total);
    return total;
}

static int
set_psk(BfTlsSession *session, const BfTlsMaterial *material)
{
    int ret;

    if (material->endpoint == BF_TLS_ENDPOINT_CLIENT) {
        return gnutls_credentials_set(session->tls, GNUTLS_CRD_PSK,
                                      material->psk_client);
    }
    ret = gnutls_credentials_set(session->tls, GNUTLS_CRD_PSK,
                                 material->psk_server);
    return ret < 0
               ? ret
               : gnutls_credentials_set(session->tls, GNUTLS_CRD_CERTIFICATE,
                                        material->no_x509);
}

static int
set_credentials(BfTlsSession *session)
{
    const BfTlsMaterial *material = session->creds;
    bool is_server = material->endpoint == BF_TLS_ENDPOINT_SERVER;

    switch (material->kind) {
    case BF_TLS_CREDS_PSK:
        return set_psk(session, material);
    case BF_TLS_CREDS_ANON:
        return gnutls_credentials_set(session->tls, GNUTLS_CRD_ANON,
                                      is_server
                                          ? (void *)material->anon_server
                                          : (void *)material->anon_client);
    default:
        return gnutls_credentials_set(session->tls, GNUTLS_CRD_CERTIFICATE,
                                      material->x509);
    }
}

/* The steps of creation that can fail inside the library. */
static int
set_up(BfTlsSession *session)
{
    bool is_server = session->creds->endpoint == BF_TLS_ENDPOINT_SERVER;
    /* Tickets would only cost: nobody resumes sessions here. */
    int ret =
        gnutls_init(&session->tls, (is_server ? GNUTLS_SERVER : GNUTLS_CLIENT) |
                                       GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL |
                                       GNUTLS_NO_TICKETS);

    if (ret < 0) {
        session->tls = NULL;
        return ret;
    }
    ret = gnutls_priority_set(session->tls, session->creds->priority);
    if (ret < 0) {
        return ret;
    }
    ret = set_credentials(session);
    if (ret < 0) {
        return ret;
    }
    if (is_server && session->creds->kind == BF_TLS_CREDS_X509) {
        /*
         * Not REQUIRE: bf_tls_session_verify() decides, with a better message.
         */
        gnutls_certificate_server_set_request(session->tls,
                                              GNUTLS_CERT_REQUEST);
    }
    gnutls_transport_set_ptr(session->tls, session);
    gnutls_transport_set_pull_function(session->tls, session_pull);
    gnutls_transport_set_pull_timeout_function(session->tls,
                                               session_pull_timeout);
    gnutls_transport_set_vec_push_function(session->tls, session_push);
    return 0;
}

/* Whether our own records are allowed where they are possible. What the
 * credentials leave open tests decide by the environment. */
static bool
choose_engine(const BfTlsMaterial *creds, bool *ret_own, GError **error)
{
    const char *text = g_getenv(BF_TLS_RECORDS_VARIABLE);

    if (creds->record_engine != BF_TLS_RECORD_ENGINE_AUTO) {
        *ret_own = bf_tls_material_needs_own_engine(creds);
        return true;
    }
    if (text == NULL || strcmp(text, "own") == 0) {
        *ret_own = true;
        return true;
    }
    if (strcmp(text, "gnutls") == 0) {
        *ret_own = false;
        return true;
    }
    bf_set_error(error,
                 "Cannot create a TLS session: the environment variable %s is "
                 "'%s'; it takes 'own' or 'gnutls'",
                 BF_TLS_RECORDS_VARIABLE, text);
    return false;
}

/* What our own records are computed with. */
static const BfTls13AeadOps *
choose_library(const BfTlsMaterial *creds, GError **error)
{
    return creds->record_engine == BF_TLS_RECORD_ENGINE_IPSEC_MB
               ? bf_tls13_aead_get_ipsec_mb(error)
               : bf_tls13_aead_choose();
}

BfTlsSession *
bf_tls_session_new(BfTlsCreds *creds, const char *peer_hostname, GError **error)
{
    g_autoptr(BfTlsSession) session = g_new0(BfTlsSession, 1);
    bool own_records;
    int ret;

    session->creds = bf_tls_creds_get_material(creds);
    if (!choose_engine(session->creds, &own_records, error) ||
        !bf_tls_rekey_init(&session->rekey, error)) {
        return NULL;
    }
    session->records = &bf_tls_records_gnutls;
    session->input.wanted = INPUT_MIN_BYTES;
    if (session->creds->endpoint == BF_TLS_ENDPOINT_CLIENT) {
        session->hostname = g_strdup(peer_hostname);
    }
    ret = set_up(session);
    if (ret < 0) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_set_error(error, "Cannot create a TLS session: %s", text);
        return NULL;
    }
    if (own_records) {
        const BfTls13AeadOps *library = choose_library(session->creds, error);

        if (library == NULL) {
            g_prefix_error(error, "Cannot create a TLS session: ");
            return NULL;
        }
        bf_tls13_prepare(session, library);
    }
    return g_steal_pointer(&session);
}

void
bf_tls_session_free(BfTlsSession *session)
{
    if (session == NULL) {
        return;
    }
    bf_tls_rekey_log(&session->rekey, session->records != NULL
                                          ? session->records->name
                                          : "nobody");
    if (session->tls != NULL) {
        gnutls_deinit(session->tls);
    }
    bf_tls13_free(session->tls13);
    bf_tls_output_clear(&session->output);
    g_free(session->input.bytes);
    g_free(session->hostname);
    g_free(session->peer_dn);
    g_free(session->peer_label);
    g_free(session->psk_user);
    g_free(session->psk_fault);
    bf_tls_material_unref(session->creds);
    g_free(session);
}

/* Makes room for @min bytes behind the input, moving what is there if need be.
 */
static bool
input_make_room(BfTlsInput *input, size_t min)
{
    size_t used = input_bytes(input);
    size_t capacity = MAX(input->wanted, bf_align_up(used + min, BF_KIB));

    if (used == 0) {
        input->start = input->end = 0;
        if (input->capacity != input->wanted) {
            g_clear_pointer(&input->bytes, g_free);
            input->capacity = 0;
        }
    }
    if (input->capacity - input->end >= min) {
        return true;
    }
    if (used + min > BF_TLS_INPUT_MAX_BYTES) {
        return false;
    }
    if (used > 0 && input->start > 0) {
        memmove(input->bytes, input->bytes + input->start, used);
        input->start = 0;
        input->end = used;
    }
    if (input->capacity - used < min) {
        input->bytes = g_realloc(input->bytes, capacity);
        input->capacity = capacity;
    }
    return true;
}

bool
bf_tls_session_input_space(BfTlsSession *session, size_t min_bytes,
                           void **ret_ptr, size_t *ret_len)
{
    BfTlsInput *input = &session->input;

    g_assert(min_bytes >= 1 && min_bytes <= 16 * BF_KIB);
    if (!input_make_room(input, min_bytes)) {
        return false;
    }
    input->offered = input->capacity - input->end;
    *ret_ptr = input->bytes + input->end;
    *ret_len = input->offered;
    return true;
}

void
bf_tls_session_input_commit(BfTlsSession *session, size_t len)
{
    BfTlsInput *input = &session->input;

    g_assert(len <= input->offered && !input->eof);
    input->end += len;
    if (len == input->offered && session->state == BF_TLS_STATE_READY) {
        input->wanted = MIN(input->wanted * 2, BF_TLS_INPUT_MAX_BYTES);
        input->small_fills = 0;
    } else if (len >= input->wanted / 8) {
        input->small_fills = 0;
    } else if (++input->small_fills >= INPUT_SHRINK_AFTER) {
        input->wanted = MAX(input->wanted / 2, INPUT_MIN_BYTES);
        input->small_fills = 0;
    }
    input->offered = 0;
}

size_t
bf_tls_session_feed(BfTlsSession *session, const void *data, size_t len)
{
    const uint8_t *bytes = data;
    size_t done = 0;

    while (done < len) {
        void *room;
        size_t n;

        if (!bf_tls_session_input_space(session, 1, &room, &n)) {
            break;
        }
        n = MIN(n, len - done);
        memcpy(room, bytes + done, n);
        bf_tls_session_input_commit(session, n);
        done += n;
    }
    return done;
}

void
bf_tls_session_input_eof(BfTlsSession *session)
{
    session->input.eof = true;
}

/* Has the library bytes or news that it took from the input? */
static bool
has_unread(const BfTlsSession *session)
{
    return session->open_result != 0 || session->peer_closed ||
           (session->tls13 != NULL && session->tls13->fault != NULL) ||
           (session->tls != NULL &&
            gnutls_record_check_pending(session->tls) > 0);
}

bool
bf_tls_session_rest(BfTlsSession *session)
{
    BfTlsInput *input = &session->input;

    if (input_bytes(input) > 0 || input->eof || session->output.bytes > 0 ||
        has_unread(session)) {
        return false;
    }
    g_clear_pointer(&input->bytes, g_free);
    input->capacity = input->start = input->end = input->offered = 0;
    input->wanted = INPUT_MIN_BYTES;
    bf_tls_output_trim(&session->output);
    return true;
}

bool
bf_tls_session_wants_output(const BfTlsSession *session)
{
    return session->output.bytes > 0;
}

size_t
bf_tls_session_output_bytes(const BfTlsSession *session)
{
    return session->output.bytes;
}

int
bf_tls_session_get_output(const BfTlsSession *session, struct iovec *iov,
                          int niov)
{
    return bf_tls_output_peek(&session->output, iov, niov);
}

void
bf_tls_session_output_consume(BfTlsSession *session, size_t len)
{
    bf_tls_output_consume(&session->output, len);
}

void
bf_tls_session_send_alert(BfTlsSession *session,
                          gnutls_alert_description_t alert)
{
    session->records->alert(session, alert);
}

bool
bf_tls_session_is_early_again(const BfTlsSession *session, ssize_t result)
{
    return result == GNUTLS_E_AGAIN &&
           (input_bytes(&session->input) > 0 || session->input.eof);
}

bool
bf_tls_session_is_cut_off(const BfTlsSession *session, int result)
{
    /* The second is what an end inside a record looks like. */
    return result == GNUTLS_E_PREMATURE_TERMINATION ||
           (result == GNUTLS_E_UNEXPECTED_PACKET_LENGTH && session->input.eof &&
            input_bytes(&session->input) == 0);
}

const char *
bf_tls_alert_text(const BfTlsSession *session)
{
    const char *name = gnutls_alert_get_name(gnutls_alert_get(session->tls));

    return name != NULL ? name : "unknown";
}

BfTlsStatus
bf_tls_session_handshake(BfTlsSession *session, GError **error)
{
    unsigned int warnings = 0;
    int ret;

    if (session->state == BF_TLS_STATE_FAILED) {
        bf_set_error(error, "TLS handshake failed before");
        return BF_TLS_FAILED;
    }
    g_assert(session->state == BF_TLS_STATE_HANDSHAKE);
    do {
        ret = gnutls_handshake(session->tls);
    } while (bf_tls_session_is_early_again(session, ret) ||
             (ret < 0 && ret != GNUTLS_E_AGAIN && !gnutls_error_is_fatal(ret) &&
              ++warnings <= HANDSHAKE_MAX_WARNINGS));
    if (ret == GNUTLS_E_AGAIN) {
        return BF_TLS_NEED_INPUT;
    }
    if (ret == 0) {
        session->state = BF_TLS_STATE_UNVERIFIED;
        session->version =
            gnutls_protocol_get_name(gnutls_protocol_get_version(session->tls));
        session->cipher =
            gnutls_cipher_get_name(gnutls_cipher_get(session->tls));
        return BF_TLS_DONE;
    }
    if (bf_tls_session_refusal(session, ret) < 0 &&
        !bf_tls_session_is_cut_off(session, ret)) {
        (void)gnutls_alert_send_appropriate(session->tls, ret);
    }
    session->state = BF_TLS_STATE_FAILED;
    bf_tls_session_set_handshake_error(session, ret, error);
    return BF_TLS_FAILED;
}

ssize_t
bf_tls_session_open(BfTlsSession *session, const struct iovec *iov, int niov,
                    GError **error)
{
    ssize_t n;

    if (session->state == BF_TLS_STATE_FAILED) {
        bf_set_error(error, "The TLS session has failed before");
        return BF_TLS_FAILED;
    }
    g_assert(session->state == BF_TLS_STATE_READY);
    if (session->peer_closed) {
        return 0;
    }
    n = session->records->open(session, iov, niov, error);
    if (n == BF_TLS_FAILED || n == BF_TLS_TRUNCATED) {
        session->state = BF_TLS_STATE_FAILED;
    } else if (n == 0) {
        session->peer_closed = true;
    }
    return n;
}

ssize_t
bf_tls_session_seal(BfTlsSession *session, const struct iovec *iov, int niov,
                    size_t max_output, GError **error)
{
    ssize_t n;

    if (session->state == BF_TLS_STATE_FAILED) {
        bf_set_error(error, "The TLS session has failed before");
        return BF_TLS_FAILED;
    }
    g_assert(session->state == BF_TLS_STATE_READY && !session->bye_sent);
    n = session->records->seal(session, iov, niov,
                               MIN(max_output, BF_TLS_OUTPUT_MAX_BYTES), error);
    session->output.expected = 0;
    if (n == BF_TLS_FAILED) {
        session->state = BF_TLS_STATE_FAILED;
    }
    return n;
}

bool
bf_tls_session_has_seal_space(const BfTlsSession *session)
{
    return session->records->seal_space != NULL;
}

int
bf_tls_session_seal_space(BfTlsSession *session, size_t bytes,
                          struct iovec *iov, int niov, size_t *ret_len,
                          GError **error)
{
    int n;

    g_assert(bytes > 0 && niov > 0);
    if (session->state == BF_TLS_STATE_FAILED) {
        bf_set_error(error, "The TLS session has failed before");
        return BF_TLS_FAILED;
    }
    g_assert(session->state == BF_TLS_STATE_READY && !session->bye_sent);
    n = session->records->seal_space(session, bytes, iov, niov, ret_len, error);
    if (n == BF_TLS_FAILED) {
        session->state = BF_TLS_STATE_FAILED;
    }
    return n;
}

bool
bf_tls_session_seal_filled(BfTlsSession *session, size_t len, GError **error)
{
    bool ok;

    g_assert(session->state == BF_TLS_STATE_READY);
    ok = session->records->seal_filled(session, len, error);
    if (!ok) {
        session->state = BF_TLS_STATE_FAILED;
    }
    return ok;
}

void
bf_tls_session_bye(BfTlsSession *session)
{
    if (session->bye_sent || (session->state != BF_TLS_STATE_UNVERIFIED &&
                              session->state != BF_TLS_STATE_READY)) {
        return;
    }
    session->bye_sent = true;
    session->records->bye(session);
}

void
bf_tls_session_deny(BfTlsSession *session)
{
    if (session->state != BF_TLS_STATE_FAILED) {
        bf_tls_session_send_alert(session, GNUTLS_A_ACCESS_DENIED);
        session->state = BF_TLS_STATE_FAILED;
    }
}

void
bf_tls_session_trim(BfTlsSession *session)
{
    BfTlsInput *input = &session->input;

    bf_tls_output_trim(&session->output);
    input->wanted = INPUT_MIN_BYTES;
    if (input_bytes(input) == 0) {
        g_clear_pointer(&input->bytes, g_free);
        input->capacity = input->start = input->end = 0;
    }
}

const char *
bf_tls_session_get_version(const BfTlsSession *session)
{
    return session->version;
}

const char *
bf_tls_session_get_cipher(const BfTlsSession *session)
{
    return session->cipher;
}

const char *
bf_tls_session_get_records(const BfTlsSession *session)
{
    return session->records->name;
}

const char *
bf_tls_session_get_cipher_library(const BfTlsSession *session)
{
    return session->records == &bf_tls_records_own
               ? session->tls13->write.library->name
               : bf_tls13_aead_gnutls.name;
}

const char *
bf_tls_session_get_peer_dn(const BfTlsSession *session)
{
    return session->peer_dn;
}

const char *
bf_tls_session_get_peer_label(const BfTlsSession *session)
{
    return session->peer_label;
}

const char *
bf_tls_session_get_hostname(const BfTlsSession *session)
{
    return session->hostname;
}
