/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The record engine for TLS 1.3 with AES-GCM (RFC 8446, 5).
 *
 * It exists to spare copies and calls: data is copied into the output and
 * encrypted there, and decrypted from the input straight into the caller's
 * buffer if a whole record fits there, else in place. What was decrypted in
 * place stays at the start of the input ("plain") until it is fetched; what is
 * "behind" it (content type, padding, tag) is dropped then.
 *
 * Nothing may follow a fault: the key that a wrong record was opened with is
 * not used again, data in front of the fault is delivered, and the next call
 * reports it.
 */
#include "tls13-private.h"

#include <string.h>

#include "core/error.h"
#include "core/util.h"
#include "tls-source-private.h"

/* Content types (RFC 8446, B.1). */
#define TYPE_ALERT 21
#define TYPE_HANDSHAKE 22
#define TYPE_DATA 23
/* Handshake messages (RFC 8446, B.3). */
#define MESSAGE_NEW_SESSION_TICKET 4
#define MESSAGE_KEY_UPDATE 24
#define MESSAGE_HEADER_BYTES 4
/* Above what the fields of a ticket can add up to. */
#define TICKET_MAX_BYTES (128 * BF_KIB + 512)

/* RFC 8449, 4 */
#define EXTENSION_RECORD_SIZE_LIMIT 28

/* Data and content type, perhaps padded, and the tag (RFC 8446, 5.4). */
#define FRAGMENT_MAX_BYTES (BF_TLS_RECORD_MAX_BYTES + 1 + BF_TLS13_TAG_BYTES)
#define FRAGMENT_MIN_BYTES (1 + BF_TLS13_TAG_BYTES)

/* AES-GCM is safe for some 2^24 full records (RFC 8446, 5.5). */
#define REKEY_AFTER_RECORDS (UINT64_C(1) << 23)
/* Records without data that a peer may send in a row. */
#define IDLE_RECORDS_MAX 32
/* Key updates that a peer may send in a second; gnutls allows as many. */
#define KEY_UPDATES_MAX 8

/* How reading goes on after one step. */
typedef enum Step {
    STEP_NEXT,
    STEP_NEED_INPUT,
    STEP_END, /* close message or fault */
} Step;

static int
tls13_keylog(gnutls_session_t tls, const char *label,
             const gnutls_datum_t *secret)
{
    const BfTlsSession *session = gnutls_transport_get_ptr(tls);
    BfTls13 *self = session->tls13;
    bool is_server = strcmp(label, "SERVER_TRAFFIC_SECRET_0") == 0;

    if (is_server || strcmp(label, "CLIENT_TRAFFIC_SECRET_0") == 0) {
        BfTls13Keys *keys =
            is_server == self->is_server ? &self->write : &self->read;

        if (secret->size <= sizeof(keys->secret)) {
            memcpy(keys->secret, secret->data, secret->size);
            keys->secret_len = secret->size;
        }
    }
    return self->keylog != NULL ? self->keylog(tls, label, secret) : 0;
}

/* RFC 8449: what the peer takes, including the content type. */
static int
tls13_extension(void *opaque, unsigned int type, const unsigned char *data,
                unsigned int len)
{
    BfTls13 *self = opaque;

    if (type == EXTENSION_RECORD_SIZE_LIMIT && len == 2) {
        size_t limit = (size_t)data[0] << 8 | data[1];

        self->max_record = MIN(MAX(limit, 2) - 1, BF_TLS_RECORD_MAX_BYTES);
    }
    return 0;
}

/* The message of the peer that has its extensions. gnutls applies its record
 * size limit, but does not tell: gnutls_record_get_max_size() is about what we
 * receive. */
static int
tls13_hello(gnutls_session_t tls, unsigned int type, unsigned int when,
            unsigned int incoming, const gnutls_datum_t *message)
{
    const BfTlsSession *session = gnutls_transport_get_ptr(tls);
    BfTls13 *self = session->tls13;

    if (incoming) {
        self->max_record = BF_TLS_RECORD_MAX_BYTES;
        self->hello_read =
            gnutls_ext_raw_parse(self, tls13_extension, message,
                                 self->is_server
                                     ? GNUTLS_EXT_RAW_FLAG_TLS_CLIENT_HELLO
                                     : 0) >= 0;
    }
    return 0;
}

void
bf_tls13_prepare(BfTlsSession *session, const BfTls13AeadOps *library)
{
    BfTls13 *self = g_new0(BfTls13, 1);

    session->tls13 = self;
    self->is_server = session->creds->endpoint == BF_TLS_ENDPOINT_SERVER;
    self->peer_alert = -1;
    self->read.library = library;
    self->write.library = library;
    self->keylog = gnutls_session_get_keylog_function(session->tls);
    gnutls_session_set_keylog_function(session->tls, tls13_keylog);
    gnutls_handshake_set_hook_function(
        session->tls,
        self->is_server ? GNUTLS_HANDSHAKE_CLIENT_HELLO
                        : GNUTLS_HANDSHAKE_ENCRYPTED_EXTENSIONS,
        GNUTLS_HOOK_POST, tls13_hello);
}

void
bf_tls13_free(BfTls13 *self)
{
    if (self == NULL) {
        return;
    }
    bf_tls13_keys_clear(&self->read);
    bf_tls13_keys_clear(&self->write);
    g_free(self);
}

static bool
take_over_keys(BfTls13 *self, gnutls_session_t tls)
{
    self->suite = bf_tls13_find_suite(tls);
    return self->suite != NULL && self->hello_read &&
           gnutls_record_check_pending(tls) == 0 &&
           bf_tls13_keys_match(&self->read, self->suite, tls, true) &&
           bf_tls13_keys_match(&self->write, self->suite, tls, false);
}

void
bf_tls13_take_over(BfTlsSession *session)
{
    BfTls13 *self = session->tls13;

    if (self == NULL) {
        return;
    }
    if (take_over_keys(self, session->tls)) {
        /* The other limit there can be goes for both directions (RFC 6066). */
        self->max_record =
            MIN(self->max_record, gnutls_record_get_max_size(session->tls));
        session->records = &bf_tls_records_own;
        if (session->rekey.after == 0) {
            session->rekey.after = REKEY_AFTER_RECORDS;
        }
        /* It must not write a record with these keys, and it is large. */
        gnutls_deinit(session->tls);
        session->tls = NULL;
    } else {
        gnutls_session_set_keylog_function(session->tls, self->keylog);
        gnutls_handshake_set_hook_function(session->tls, GNUTLS_HANDSHAKE_ANY,
                                           GNUTLS_HOOK_POST, NULL);
        g_clear_pointer(&session->tls13, bf_tls13_free);
    }
}

/* Starts a record with @len bytes of data; @ret_body is where they belong. */
static uint8_t *
start_record(BfTlsSession *session, size_t len, uint8_t **ret_body)
{
    size_t fragment = len + 1 + BF_TLS13_TAG_BYTES;
    uint8_t *header =
        bf_tls_output_reserve(&session->output, len + BF_TLS13_OVERHEAD_BYTES);

    header[0] = TYPE_DATA; /* whatever it is */
    header[1] = 3;
    header[2] = 3;
    header[3] = fragment >> 8;
    header[4] = fragment & 0xff;
    *ret_body = header + BF_TLS13_HEADER_BYTES;
    return header;
}

/* Ends a record whose data and content type are in their place. */
static int
finish_record(BfTlsSession *session, const uint8_t *header, uint8_t *body,
              size_t len)
{
    int ret =
        bf_tls13_keys_encrypt(&session->tls13->write, header, body, len + 1);

    if (ret >= 0) {
        bf_tls_output_commit(&session->output, len + BF_TLS13_OVERHEAD_BYTES);
    }
    return ret;
}

/* A record that is not data. */
static int
put_message(BfTlsSession *session, uint8_t type, const uint8_t *bytes,
            size_t len)
{
    uint8_t *body;
    uint8_t *header = start_record(session, len, &body);

    memcpy(body, bytes, len);
    body[len] = type;
    return finish_record(session, header, body, len);
}

static void
put_alert(BfTlsSession *session, uint8_t level, uint8_t alert)
{
    const uint8_t bytes[2] = {level, alert};

    /* Fails only if the cipher does, and then there is nobody to tell. */
    (void)put_message(session, TYPE_ALERT, bytes, sizeof(bytes));
}

static void
tls13_alert(BfTlsSession *session, gnutls_alert_description_t alert)
{
    put_alert(session, GNUTLS_AL_FATAL, alert);
}

static void
tls13_bye(BfTlsSession *session)
{
    put_alert(session, GNUTLS_AL_WARNING, GNUTLS_A_CLOSE_NOTIFY);
}

/* Tells the peer that a new key follows, and changes to it. */
static int
update_write_key(BfTlsSession *session)
{
    static const uint8_t message[BF_TLS13_MESSAGE_BYTES] = {MESSAGE_KEY_UPDATE,
                                                            0, 0, 1, 0};
    BfTls13 *self = session->tls13;
    int ret = put_message(session, TYPE_HANDSHAKE, message, sizeof(message));

    if (ret >= 0) {
        ret = bf_tls13_keys_next(&self->write, self->suite);
    }
    self->update_due = false;
    bf_tls_rekey_note(&session->rekey);
    return ret;
}

/* Before each record. */
static int
change_key_in_time(BfTlsSession *session)
{
    BfTls13 *self = session->tls13;

    return self->update_due ||
                   bf_tls_rekey_is_due(&session->rekey, self->write.sequence)
               ? update_write_key(session)
               : 0;
}

static void
copy_pieces(BfTlsSource source, size_t len, uint8_t *dest)
{
    while (len > 0) {
        size_t piece = MIN(bf_tls_source_piece(&source), len);

        memcpy(dest, bf_tls_source_data(&source), piece);
        bf_tls_source_skip(&source, piece);
        dest += piece;
        len -= piece;
    }
}

/*
 * The copy pays: the cipher is faster on one piece in place than on data and
 * content type apart (measured with gnutls 3.7.9, 10 % on records of 16 KiB).
 */
static int
put_data(BfTlsSession *session, const BfTlsSource *source, size_t len)
{
    uint8_t *body;
    uint8_t *header = start_record(session, len, &body);

    copy_pieces(*source, len, body);
    body[len] = TYPE_DATA;
    return finish_record(session, header, body, len);
}

static ssize_t
fail_seal(int ret, GError **error)
{
    g_autofree char *text = bf_tls_error_text(ret);

    bf_set_error(error, "Cannot write to TLS channel: %s", text);
    return BF_TLS_FAILED;
}

static ssize_t
tls13_seal(BfTlsSession *session, const struct iovec *iov, int niov,
           size_t max_output, GError **error)
{
    BfTls13 *self = session->tls13;
    BfTlsSource source;
    size_t left;
    size_t taken = 0;

    bf_tls_source_init(&source, iov, niov);
    left = bf_tls_source_bytes(&source);
    session->output.expected =
        MIN(left + (left / self->max_record + 2) * BF_TLS13_OVERHEAD_BYTES,
            max_output);
    while (left > 0) {
        size_t waiting = session->output.bytes;
        size_t len = MIN(left, self->max_record);
        int ret;

        if (waiting > 0 && waiting + len + 2 * BF_TLS13_OVERHEAD_BYTES +
                                   BF_TLS13_MESSAGE_BYTES >
                               max_output) {
            break;
        }
        ret = change_key_in_time(session);
        if (ret >= 0) {
            ret = put_data(session, &source, len);
        }
        if (ret < 0) {
            return fail_seal(ret, error);
        }
        bf_tls_source_skip(&source, len);
        left -= len;
        taken += len;
    }
    return taken;
}

/* How many of @wanted records may be written before the key has to change. If
 * it should have, but too soon after the last time, there is no such limit. */
static uint64_t
records_until_rekey(const BfTlsSession *session, uint64_t wanted)
{
    uint64_t after = session->rekey.after;
    uint64_t written = session->tls13->write.sequence;

    return written < after ? MIN(wanted, after - written) : wanted;
}

static int
tls13_seal_space(BfTlsSession *session, size_t bytes, struct iovec *iov,
                 int niov, size_t *ret_len, GError **error)
{
    BfTls13 *self = session->tls13;
    int ret = change_key_in_time(session);
    size_t n = (bytes - 1) / self->max_record + 1;
    uint8_t *place;

    if (ret < 0) {
        return fail_seal(ret, error);
    }
    n = records_until_rekey(session, MIN(n, (size_t)niov));
    self->offered = MIN(bytes, n * self->max_record);
    place = bf_tls_output_reserve(&session->output,
                                  self->offered + n * BF_TLS13_OVERHEAD_BYTES);
    for (size_t i = 0; i < n; i++) {
        size_t done = i * self->max_record;

        iov[i].iov_base =
            place + done + i * BF_TLS13_OVERHEAD_BYTES + BF_TLS13_HEADER_BYTES;
        iov[i].iov_len = MIN(self->offered - done, self->max_record);
    }
    *ret_len = self->offered;
    return n;
}

/* The records are made in their places: what was reserved is still there. */
static bool
tls13_seal_filled(BfTlsSession *session, size_t len, GError **error)
{
    BfTls13 *self = session->tls13;

    g_assert(len <= self->offered);
    self->offered = 0;
    while (len > 0) {
        size_t piece = MIN(len, self->max_record);
        uint8_t *body;
        uint8_t *header = start_record(session, piece, &body);
        int ret;

        body[piece] = TYPE_DATA;
        ret = finish_record(session, header, body, piece);
        if (ret < 0) {
            fail_seal(ret, error);
            return false;
        }
        len -= piece;
    }
    return true;
}

static Step
set_fault(BfTls13 *self, int alert, const char *text)
{
    self->fault = text;
    self->fault_alert = alert;
    return STEP_END;
}

static ssize_t
fail_open(BfTlsSession *session, GError **error)
{
    BfTls13 *self = session->tls13;

    if (self->peer_alert >= 0) {
        const char *name = gnutls_alert_get_name(self->peer_alert);

        bf_set_error(error, "Cannot read from TLS channel: %s '%s'",
                     self->fault, name != NULL ? name : "unknown");
    } else {
        bf_set_error(error, "Cannot read from TLS channel: %s", self->fault);
    }
    if (self->fault_alert >= 0) {
        put_alert(session, GNUTLS_AL_FATAL, self->fault_alert);
    }
    return BF_TLS_FAILED;
}

/* RFC 8446, 6. The level says nothing any more. */
static Step
take_alert(BfTlsSession *session, const uint8_t *bytes, size_t len)
{
    BfTls13 *self = session->tls13;

    if (len != 2) {
        /* The RFC tells them apart (5.1 and 6). */
        return set_fault(self,
                         len == 0 ? GNUTLS_A_UNEXPECTED_MESSAGE
                                  : GNUTLS_A_DECODE_ERROR,
                         "the peer sent an alert of a wrong length");
    }
    if (bytes[1] == GNUTLS_A_CLOSE_NOTIFY) {
        session->peer_closed = true;
        return STEP_END;
    }
    if (bytes[1] == GNUTLS_A_USER_CANCELED) {
        return STEP_NEXT; /* the close message follows */
    }
    self->peer_alert = bytes[1];
    return set_fault(self, -1, "the peer gave up with alert");
}

/* RFC 8446, 4.6.3 */
static Step
take_key_update(BfTlsSession *session, bool ends_record)
{
    BfTls13 *self = session->tls13;
    uint8_t request = self->message[MESSAGE_HEADER_BYTES];
    gint64 now = g_get_monotonic_time();

    if (request > 1) {
        return set_fault(self, GNUTLS_A_ILLEGAL_PARAMETER,
                         "the peer sent a key update of an unknown kind");
    }
    if (!ends_record) {
        return set_fault(self, GNUTLS_A_UNEXPECTED_MESSAGE,
                         "the peer sent a message behind a key update under "
                         "the old key");
    }
    if (self->key_updates == 0 ||
        now - self->key_updates_since >= G_USEC_PER_SEC) {
        self->key_updates_since = now;
        self->key_updates = 0;
    }
    if (++self->key_updates > KEY_UPDATES_MAX) {
        return set_fault(self, GNUTLS_A_UNEXPECTED_MESSAGE,
                         "the peer sent too many key updates");
    }
    if (bf_tls13_keys_next(&self->read, self->suite) < 0) {
        return set_fault(self, GNUTLS_A_INTERNAL_ERROR,
                         "the peer's next key could not be made");
    }
    /* The answer goes out in front of our next data, as the RFC demands; so
     * many requests while we are silent have one answer. */
    self->update_due = self->update_due || request == 1;
    self->message_len = 0;
    self->idle_records = 0; /* their number has a limit of its own */
    session->rekey.received++;
    return STEP_NEXT;
}

/* Looks at the first bytes of a message as soon as they are complete. */
static Step
check_message_header(BfTls13 *self)
{
    const uint8_t *m = self->message;
    size_t len = (size_t)m[1] << 16 | (size_t)m[2] << 8 | m[3];

    if (m[0] == MESSAGE_KEY_UPDATE) {
        return len == 1 ? STEP_NEXT
                        : set_fault(self, GNUTLS_A_DECODE_ERROR,
                                    "the peer sent a key update of a wrong "
                                    "length");
    }
    if (m[0] != MESSAGE_NEW_SESSION_TICKET || self->is_server) {
        return set_fault(self, GNUTLS_A_UNEXPECTED_MESSAGE,
                         "the peer sent a handshake message behind the "
                         "handshake");
    }
    if (len > TICKET_MAX_BYTES) {
        return set_fault(self, GNUTLS_A_DECODE_ERROR,
                         "the peer sent an oversized session ticket");
    }
    self->message_skip = len; /* nobody resumes sessions here */
    self->message_len = 0;
    return STEP_NEXT;
}

/* Messages may be split over records, and may share one (RFC 8446, 5.1). */
static Step
take_handshake(BfTlsSession *session, const uint8_t *bytes, size_t len)
{
    BfTls13 *self = session->tls13;
    Step step = STEP_NEXT;

    if (len == 0) {
        return set_fault(self, GNUTLS_A_UNEXPECTED_MESSAGE,
                         "the peer sent an empty handshake record");
    }
    while (len > 0 && step == STEP_NEXT) {
        size_t n = 1;

        if (self->message_skip > 0) {
            n = MIN(len, self->message_skip);
            self->message_skip -= n;
        } else {
            self->message[self->message_len++] = bytes[0];
        }
        bytes += n;
        len -= n;
        if (self->message_len == MESSAGE_HEADER_BYTES) {
            step = check_message_header(self);
        } else if (self->message_len == BF_TLS13_MESSAGE_BYTES) {
            step = take_key_update(session, len == 0);
        }
    }
    return step;
}

/* What an opened record means, other than data. */
static Step
take_message(BfTlsSession *session, uint8_t type, const uint8_t *bytes,
             size_t len)
{
    if (type == TYPE_HANDSHAKE) {
        return take_handshake(session, bytes, len);
    }
    if (type == TYPE_ALERT) {
        return take_alert(session, bytes, len);
    }
    return set_fault(session->tls13, GNUTLS_A_UNEXPECTED_MESSAGE,
                     "the peer sent a record without a known content type");
}

/* Whether an opened record of this kind may come now. */
static Step
check_record(BfTls13 *self, uint8_t type, size_t len)
{
    if ((self->message_len > 0 || self->message_skip > 0) &&
        type != TYPE_HANDSHAKE) {
        return set_fault(self, GNUTLS_A_UNEXPECTED_MESSAGE,
                         "the peer sent a record inside a handshake message");
    }
    if (type == TYPE_DATA && len > 0) {
        self->idle_records = 0;
    } else if (++self->idle_records > IDLE_RECORDS_MAX) {
        return set_fault(self, GNUTLS_A_UNEXPECTED_MESSAGE,
                         "the peer sent too many records without data");
    }
    return STEP_NEXT;
}

/* Looks at the header of the next record, which may not be there yet. */
static Step
peek_record(BfTlsSession *session, size_t *ret_fragment)
{
    BfTls13 *self = session->tls13;
    const BfTlsInput *input = &session->input;
    size_t there = input->end - input->start;
    const uint8_t *header;
    size_t fragment;

    if (there < BF_TLS13_HEADER_BYTES) {
        return STEP_NEED_INPUT;
    }
    header = input->bytes + input->start;
    if (header[0] != TYPE_DATA) {
        return set_fault(self, GNUTLS_A_UNEXPECTED_MESSAGE,
                         "the peer sent a record that is not encrypted");
    }
    fragment = (size_t)header[3] << 8 | header[4];
    if (fragment > FRAGMENT_MAX_BYTES) {
        return set_fault(self, GNUTLS_A_RECORD_OVERFLOW,
                         "the peer sent an oversized record");
    }
    if (fragment < FRAGMENT_MIN_BYTES) {
        return set_fault(self, GNUTLS_A_BAD_RECORD_MAC,
                         "a record was damaged or tampered with");
    }
    *ret_fragment = fragment;
    return there - BF_TLS13_HEADER_BYTES < fragment ? STEP_NEED_INPUT
                                                    : STEP_NEXT;
}

/* Splits an opened record into data and content type (RFC 8446, 5.4). */
static size_t
strip_padding(const uint8_t *bytes, size_t len, uint8_t *ret_type)
{
    while (len > 0 && bytes[len - 1] == 0) {
        len--;
    }
    *ret_type = len > 0 ? bytes[len - 1] : 0;
    return len > 0 ? len - 1 : 0;
}

/* Opens a record that is there: into @dest if it fits, else where it is. */
static Step
open_record(BfTlsSession *session, BfTlsSource *dest, size_t fragment)
{
    BfTls13 *self = session->tls13;
    BfTlsInput *input = &session->input;
    const uint8_t *header = input->bytes + input->start;
    uint8_t *body = input->bytes + input->start + BF_TLS13_HEADER_BYTES;
    size_t inner = fragment - BF_TLS13_TAG_BYTES;
    bool in_place = inner > bf_tls_source_piece(dest);
    uint8_t *plain = in_place ? body : bf_tls_source_data(dest);
    uint8_t type;
    size_t len;
    Step step;

    if (!bf_tls13_keys_decrypt(&self->read, header, body, plain, inner)) {
        return set_fault(self, GNUTLS_A_BAD_RECORD_MAC,
                         "a record was damaged or tampered with");
    }
    len = strip_padding(plain, inner, &type);
    step = check_record(self, type, len);
    if (step == STEP_NEXT && type == TYPE_DATA && in_place) {
        input->start += BF_TLS13_HEADER_BYTES;
        self->plain = len;
        self->behind = fragment - len;
        return STEP_NEXT;
    }
    if (step == STEP_NEXT && type == TYPE_DATA) {
        bf_tls_source_skip(dest, len);
    } else if (step == STEP_NEXT) {
        step = take_message(session, type, plain, len);
    }
    input->start += BF_TLS13_HEADER_BYTES + fragment;
    return step;
}

/* Hands out what was opened in place before. */
static void
fetch_plain(BfTlsSession *session, BfTlsSource *dest)
{
    BfTls13 *self = session->tls13;
    BfTlsInput *input = &session->input;

    while (self->plain > 0 && dest->niov > 0) {
        size_t n = MIN(self->plain, bf_tls_source_piece(dest));

        memcpy(bf_tls_source_data(dest), input->bytes + input->start, n);
        bf_tls_source_skip(dest, n);
        input->start += n;
        self->plain -= n;
    }
    if (self->plain == 0) {
        input->start += self->behind;
        self->behind = 0;
    }
}

static ssize_t
tls13_open(BfTlsSession *session, const struct iovec *iov, int niov,
           GError **error)
{
    BfTls13 *self = session->tls13;
    BfTlsSource dest;
    Step step = STEP_NEXT;
    size_t room;
    size_t done;

    if (self->fault != NULL) {
        return fail_open(session, error);
    }
    bf_tls_source_init(&dest, iov, niov);
    room = bf_tls_source_bytes(&dest);
    fetch_plain(session, &dest);
    while (step == STEP_NEXT && dest.niov > 0) {
        size_t fragment;

        step = peek_record(session, &fragment);
        if (step == STEP_NEXT) {
            step = open_record(session, &dest, fragment);
            fetch_plain(session, &dest);
        }
    }
    done = room - bf_tls_source_bytes(&dest);
    if (done > 0 || session->peer_closed) {
        return done;
    }
    if (step == STEP_END) {
        return fail_open(session, error);
    }
    if (session->input.eof) {
        bf_set_error(error, "The peer broke off the TLS connection: it ended "
                            "without a close message");
        return BF_TLS_TRUNCATED;
    }
    return BF_TLS_NEED_INPUT;
}

const BfTlsRecordOps bf_tls_records_own = {
    .name = "own",
    .open = tls13_open,
    .seal = tls13_seal,
    .seal_space = tls13_seal_space,
    .seal_filled = tls13_seal_filled,
    .alert = tls13_alert,
    .bye = tls13_bye,
};
