/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The record engine on top of gnutls' own records, for every protocol and
 * cipher.
 *
 * What costs is calls and copies: seal encrypts long pieces from where they
 * lie, lets short ones share a record, and fills the output with as many
 * records as one send can take.
 */
#include "tls-private.h"
#include "tls-source-private.h"

#include "core/error.h"
#include "core/util.h"

/* Non-fatal alerts and the like that a peer may send in a row. */
#define OPEN_MAX_WARNINGS 16
/* More than any record adds to its data (TLS 1.2 with a block cipher). */
#define RECORD_OVERHEAD_MAX_BYTES 512

static ssize_t
fail_open(BfTlsSession *session, int ret, GError **error)
{
    g_autofree char *text = bf_tls_error_text(ret);

    if (bf_tls_session_is_cut_off(session, ret)) {
        bf_set_error(error, "The peer broke off the TLS connection: it ended "
                            "without a close message");
        return BF_TLS_TRUNCATED;
    }
    switch (ret) {
    case GNUTLS_E_FATAL_ALERT_RECEIVED:
        bf_set_error(error,
                     "Cannot read from TLS channel: the peer gave up with "
                     "alert '%s'",
                     bf_tls_alert_text(session));
        break;
    case GNUTLS_E_REHANDSHAKE:
        /* Each one would let the peer spend our time on key exchange. */
        bf_tls_session_send_alert(session, GNUTLS_A_NO_RENEGOTIATION);
        bf_set_error(error, "Cannot read from TLS channel: the peer asked for "
                            "a new handshake, which is not supported");
        break;
    case GNUTLS_E_DECRYPTION_FAILED:
        bf_tls_session_send_alert(session, GNUTLS_A_BAD_RECORD_MAC);
        bf_set_error(error,
                     "Cannot read from TLS channel: a record was damaged or "
                     "tampered with");
        break;
    default:
        (void)gnutls_alert_send_appropriate(session->tls, ret);
        bf_set_error(error, "Cannot read from TLS channel: %s", text);
        break;
    }
    return BF_TLS_FAILED;
}

/* With TLS 1.3 the library takes for fatal what announces an orderly end in any
 * case: its level says nothing there (RFC 8446, 6.1). */
static bool
is_orderly_end(const BfTlsSession *session, ssize_t result)
{
    int alert = result == GNUTLS_E_FATAL_ALERT_RECEIVED
                    ? (int)gnutls_alert_get(session->tls)
                    : -1;

    return result == 0 ||
           (gnutls_protocol_get_version(session->tls) == GNUTLS_TLS1_3 &&
            (alert == GNUTLS_A_CLOSE_NOTIFY ||
             alert == GNUTLS_A_USER_CANCELED));
}

/* Fills one buffer. A result that is not data waits behind the data. */
static size_t
open_buffer(BfTlsSession *session, uint8_t *buf, size_t len)
{
    unsigned int warnings = 0;
    size_t done = 0;

    while (done < len) {
        ssize_t n = gnutls_record_recv(session->tls, buf + done, len - done);

        if (n > 0) {
            done += n;
            warnings = 0;
        } else if (bf_tls_session_is_early_again(session, n) ||
                   (n == GNUTLS_E_WARNING_ALERT_RECEIVED &&
                    ++warnings <= OPEN_MAX_WARNINGS)) {
            continue;
        } else {
            session->open_result = n;
            session->peer_closed = is_orderly_end(session, n);
            break;
        }
    }
    return done;
}

static ssize_t
records_open(BfTlsSession *session, const struct iovec *iov, int niov,
             GError **error)
{
    size_t total = 0;
    int result = session->open_result;

    if (result != 0) {
        return fail_open(session, result, error);
    }
    for (int i = 0; i < niov; i++) {
        size_t n = open_buffer(session, iov[i].iov_base, iov[i].iov_len);

        total += n;
        if (n < iov[i].iov_len) {
            break;
        }
    }
    if (session->open_result == GNUTLS_E_AGAIN) {
        session->open_result = 0;
        return total > 0 ? (ssize_t)total : BF_TLS_NEED_INPUT;
    }
    if (total > 0 || session->peer_closed) {
        return total;
    }
    return fail_open(session, session->open_result, error);
}

/*
 * The data of the next record: in place if it is long or the last piece, else
 * short pieces gathered in @scratch (allocated when first needed).
 */
static const uint8_t *
next_record(const BfTlsSource *source, size_t max, uint8_t **scratch,
            size_t *ret_len)
{
    size_t n = bf_tls_source_piece(source);
    size_t used = 0;
    BfTlsSource s = *source;

    if (n >= max || source->niov == 1) {
        *ret_len = MIN(n, max);
        return bf_tls_source_data(source);
    }
    if (*scratch == NULL) {
        *scratch = g_malloc(max);
    }
    while (s.niov > 0 && used < max) {
        n = bf_tls_source_piece(&s);
        if (n >= max) {
            break; /* long enough for records of its own, without a copy */
        }
        n = MIN(n, max - used);
        memcpy(*scratch + used, bf_tls_source_data(&s), n);
        used += n;
        bf_tls_source_skip(&s, n);
    }
    *ret_len = used;
    return *scratch;
}

/* The library does it by itself, too, but late. */
static int
change_key_in_time(BfTlsSession *session)
{
    int ret;

    if (!bf_tls_rekey_is_due(&session->rekey, session->written) ||
        gnutls_protocol_get_version(session->tls) != GNUTLS_TLS1_3) {
        return 0;
    }
    ret = gnutls_session_key_update(session->tls, 0);
    if (ret >= 0) {
        session->written = 0;
        bf_tls_rekey_note(&session->rekey);
    }
    return ret;
}

/* Sends one record's worth; the library may make more than one record of it. */
static int
send_record(BfTlsSession *session, const uint8_t *data, size_t len)
{
    int ret = change_key_in_time(session);

    if (ret < 0) {
        return ret;
    }
    while (len > 0) {
        ssize_t n = gnutls_record_send(session->tls, data, len);

        if (n == GNUTLS_E_INTERRUPTED) {
            continue;
        }
        if (n < 0) {
            return n;
        }
        data += n;
        len -= n;
        session->written++;
    }
    return 0;
}

static void
expect_output(BfTlsSession *session, const BfTlsSource *source,
              size_t max_record, size_t max_output)
{
    size_t total = MIN(bf_tls_source_bytes(source), max_output);
    size_t records;

    records = total / max_record + 2;
    session->output.expected =
        MIN(total + records * gnutls_record_overhead_size(session->tls),
            max_output);
}

static ssize_t
fail_seal(BfTlsSession *session, int ret, GError **error)
{
    g_autofree char *text = NULL;

    if (ret == GNUTLS_E_INVALID_SESSION && session->open_result < 0) {
        /* What was read has ended the session: that is the cause. */
        return fail_open(session, session->open_result, error);
    }
    text = bf_tls_error_text(ret);
    bf_set_error(error, "Cannot write to TLS channel: %s", text);
    return BF_TLS_FAILED;
}

static ssize_t
records_seal(BfTlsSession *session, const struct iovec *iov, int niov,
             size_t max_output, GError **error)
{
    const size_t max_record = gnutls_record_get_max_size(session->tls);
    g_autofree uint8_t *scratch = NULL;
    BfTlsSource source;
    size_t taken = 0;

    bf_tls_source_init(&source, iov, niov);
    expect_output(session, &source, max_record, max_output);
    while (source.niov > 0) {
        size_t waiting = session->output.bytes;
        size_t len;
        const uint8_t *data = next_record(&source, max_record, &scratch, &len);
        int ret;

        if (waiting > 0 &&
            waiting + len + RECORD_OVERHEAD_MAX_BYTES > max_output) {
            break;
        }
        ret = send_record(session, data, len);
        if (ret < 0) {
            return fail_seal(session, ret, error);
        }
        bf_tls_source_skip(&source, len);
        taken += len;
    }
    return taken;
}

static void
records_alert(BfTlsSession *session, gnutls_alert_description_t alert)
{
    /* If it does not fit, the peer has stopped reading anyway. */
    (void)gnutls_alert_send(session->tls, GNUTLS_AL_FATAL, alert);
}

static void
records_bye(BfTlsSession *session)
{
    /* Cannot block; if it fails, the peer sees an unclean end. */
    (void)gnutls_bye(session->tls, GNUTLS_SHUT_WR);
}

const BfTlsRecordOps bf_tls_records_gnutls = {
    .name = "gnutls",
    .open = records_open,
    .seal = records_seal,
    .alert = records_alert,
    .bye = records_bye,
};
