/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS channel: moves bytes between a TLS session, which does no I/O, and the
 * channel below.
 *
 * Received bytes go straight into the session's input buffer. What is to be
 * written is sealed into a batch of many records, which leaves in one or two
 * sends. The reader can cause output too (key updates, alerts): whoever holds
 * @write_mutex sends all output there is before it lets go, so a reader that
 * finds it taken has nothing to do.
 */
#include "io/channel-tls.h"

#include <errno.h>
#include <string.h>

#include "channel-private.h"
#include "core/co-lock.h"
#include "core/error.h"
#include "core/loop.h"
#include "core/util.h"
#include "crypto/tls-session.h"

/* How much is sealed before it is sent: so little stays in the processor's
 * cache until then. With less, the peer is woken more often. */
#define BATCH_BYTES ((size_t)256 * BF_KIB)
/* Records that are made at a time of what a pipe has. */
#define PIPE_RECORDS 16
/* So much waits for what is written next, if more is announced. */
#define HELD_MAX_BYTES ((size_t)4 * BF_KIB)
/* Less room for input than this is not worth a receive. */
#define INPUT_MIN_BYTES ((size_t)4 * BF_KIB)
/* Pieces of output in one send; two are the usual. */
#define OUTPUT_PIECES 8

typedef struct BfChannelTls {
    BfChannel base;
    BfChannel *lower;      /* owned */
    BfTlsSession *session; /* owned */
    BfCoMutex write_mutex; /* guards writes to @lower and @has_failed */
    bool has_failed;       /* a record was sent in part: no more can follow */
    bool read_is_shut;     /* by bf_channel_shutdown_read() */
    bool input_ended;      /* the stream below has ended */
    bool heard;            /* something has been received */
    BfTlsGuest guest;      /* during the handshake */
} BfChannelTls;

/* Sends all output of the session. The caller holds the mutex. */
static bool
co_send_output(BfChannelTls *self, GError **error)
{
    struct iovec iov[OUTPUT_PIECES];

    if (self->has_failed) {
        bf_set_error(error, "an earlier write to the TLS connection failed");
        return false;
    }
    for (;;) {
        int niov = bf_tls_session_get_output(self->session, iov, OUTPUT_PIECES);
        ssize_t n = 0;

        if (niov == 0) {
            return true;
        }
        n = bf_channel_co_writev(self->lower, iov, niov, error);
        if (n < 0) {
            self->has_failed = true;
            return false;
        }
        self->base.sent += n;
        bf_tls_session_output_consume(self->session, n);
    }
}

/* For output that the reader has caused. */
static bool
co_flush_for_reader(BfChannelTls *self, GError **error)
{
    bool ok = true;

    if (bf_tls_session_wants_output(self->session) &&
        !self->write_mutex.locked) {
        bf_co_mutex_co_lock(&self->write_mutex);
        ok = co_send_output(self, error);
        bf_co_mutex_unlock(&self->write_mutex);
    }
    return ok;
}

/* Gets more bytes from below into the session, or tells it the end. An end that
 * is our own doing it does not hear of: it would not write any more then.
 * Returns as a read does. */
static ssize_t
co_receive(BfChannelTls *self, GError **error)
{
    void *space = NULL;
    size_t len = 0;
    ssize_t n = 0;

    if (self->input_ended ||
        !bf_tls_session_input_space(self->session, INPUT_MIN_BYTES, &space,
                                    &len)) {
        /* The session never asks for input when it is full or told the end. */
        bf_set_error(error, "the TLS session does not take more input");
        return -1;
    }
    self->lower->reads_soon = self->base.reads_soon;
    n = bf_channel_co_read(self->lower, space, len, error);
    if (n < 0 || (n == 0 && self->read_is_shut)) {
        return n;
    }
    if (n == 0) {
        self->input_ended = true;
        bf_tls_session_input_eof(self->session);
    } else {
        self->heard = true;
        bf_tls_session_input_commit(self->session, n);
    }
    return 1;
}

static ssize_t
tls_co_readv(BfChannel *channel, const struct iovec *iov, int niov,
             GError **error)
{
    BfChannelTls *self = (BfChannelTls *)channel;

    for (;;) {
        ssize_t n = bf_tls_session_open(self->session, iov, niov, error);

        if (n >= 0 || n == BF_TLS_NEED_INPUT) {
            /* A failed write shows when somebody writes; data are data. */
            co_flush_for_reader(self, NULL);
        }
        if (n >= 0) {
            return n;
        }
        if (n != BF_TLS_NEED_INPUT) {
            co_flush_for_reader(self, NULL); /* an alert: best effort */
            return -1;
        }
        n = co_receive(self, error);
        if (n <= 0) {
            return n;
        }
    }
}

/* Seals some of @iov, and sends the output unless it is at most @held bytes. */
static ssize_t
co_write(BfChannelTls *self, const struct iovec *iov, int niov, size_t held,
         GError **error)
{
    ssize_t n = 0;

    bf_co_mutex_co_lock(&self->write_mutex);
    while (n == 0) {
        n = bf_tls_session_seal(self->session, iov, niov, BATCH_BYTES, error);
        if (n >= 0 && bf_tls_session_output_bytes(self->session) > held &&
            !co_send_output(self, error)) {
            n = -1;
        }
    }
    if (n < 0) {
        co_send_output(self, NULL); /* an alert: best effort */
    }
    bf_co_mutex_unlock(&self->write_mutex);
    return n < 0 ? -1 : n;
}

/* What was sealed counts as written only once it is on its way. */
static ssize_t
tls_co_writev(BfChannel *channel, const struct iovec *iov, int niov,
              GError **error)
{
    return co_write((BfChannelTls *)channel, iov, niov, 0, error);
}

/* The little that precedes large data leaves together with them. */
static ssize_t
tls_co_writev_more(BfChannel *channel, const struct iovec *iov, int niov,
                   GError **error)
{
    return co_write((BfChannelTls *)channel, iov, niov, HELD_MAX_BYTES, error);
}

/* Seals the next bytes of a pipe where they are read to. The caller holds the
 * mutex. */
static ssize_t
seal_pipe(BfChannelTls *self, int pipe_fd, size_t bytes, GError **error)
{
    struct iovec iov[PIPE_RECORDS];
    size_t room = 0;
    ssize_t n = 0;
    int niov = bf_tls_session_seal_space(self->session, MIN(bytes, BATCH_BYTES),
                                         iov, PIPE_RECORDS, &room, error);

    if (niov < 0) {
        return -1;
    }
    n = bf_channel_read_pipe(pipe_fd, iov, niov, error);
    if (!bf_tls_session_seal_filled(self->session, n > 0 ? (size_t)n : 0,
                                    n > 0 ? error : NULL)) {
        return -1;
    }
    return n > 0 ? n : -1;
}

static ssize_t
tls_co_send_pipe(BfChannel *channel, int pipe_fd, size_t bytes, GError **error)
{
    BfChannelTls *self = (BfChannelTls *)channel;
    ssize_t n = 0;

    bf_co_mutex_co_lock(&self->write_mutex);
    n = seal_pipe(self, pipe_fd, bytes, error);
    if (n > 0 && !co_send_output(self, error)) {
        n = -1;
    }
    bf_co_mutex_unlock(&self->write_mutex);
    return n;
}

static void
tls_shutdown(BfChannel *channel)
{
    bf_channel_shutdown(((BfChannelTls *)channel)->lower);
}

static void
tls_shutdown_read(BfChannel *channel)
{
    BfChannelTls *self = (BfChannelTls *)channel;

    self->read_is_shut = true;
    bf_channel_shutdown_read(self->lower);
}

static void
tls_interrupt_read(BfChannel *channel)
{
    bf_channel_interrupt_read(((BfChannelTls *)channel)->lower);
}

/* What is left to send has a reason in what was read: the next read sends it.
 */
static bool
tls_start_watch(BfChannel *channel, BfFn *fn, void *arg)
{
    BfChannelTls *self = (BfChannelTls *)channel;

    return !self->input_ended && !self->write_mutex.locked &&
           bf_tls_session_rest(self->session) &&
           bf_channel_start_watch(self->lower, fn, arg);
}

static void
tls_set_drop_unsent(BfChannel *channel, bool drop)
{
    bf_channel_set_drop_unsent(((BfChannelTls *)channel)->lower, drop);
}

static void
tls_free(BfChannel *channel)
{
    BfChannelTls *self = (BfChannelTls *)channel;

    bf_tls_session_free(self->session);
    bf_channel_free(self->lower);
    g_free(self);
}

static void
tls_co_bye(BfChannel *channel)
{
    BfChannelTls *self = (BfChannelTls *)channel;

    bf_co_mutex_co_lock(&self->write_mutex);
    bf_tls_session_bye(self->session);
    co_send_output(self, NULL);
    bf_co_mutex_unlock(&self->write_mutex);
    bf_channel_co_bye(self->lower);
}

static const BfChannelOps tls_ops = {
    .kind = "tls",
    .co_readv = tls_co_readv,
    .co_writev = tls_co_writev,
    .shutdown = tls_shutdown,
    .shutdown_read = tls_shutdown_read,
    .interrupt_read = tls_interrupt_read,
    .start_watch = tls_start_watch,
    .set_drop_unsent = tls_set_drop_unsent,
    .free = tls_free,
    .co_bye = tls_co_bye,
    .co_send_pipe = tls_co_send_pipe,
    .co_writev_more = tls_co_writev_more,
};

/* One step on a thread of the pool; nobody else uses the session meanwhile. */
typedef struct TlsStep {
    BfTlsSession *session;
    bool is_refused; /* the handshake was done, and verification failed */
    BfTlsStatus status;
    GError *error;
} TlsStep;

/* The peer is verified as soon as it can be, before it is sent anything more:
 * what it learns of a failure it learns together with the end of the handshake.
 */
static void
handshake_step(void *arg)
{
    TlsStep *step = arg;

    step->status = bf_tls_session_handshake(step->session, &step->error);
    if (step->status == BF_TLS_DONE &&
        !bf_tls_session_verify(step->session, &step->error)) {
        step->status = BF_TLS_FAILED;
        step->is_refused = true;
    }
}

static BfTlsStatus
co_step(BfChannelTls *self, bool *ret_is_refused, GError **error)
{
    TlsStep step = {.session = self->session};

    bf_co_offload_for(bf_loop_lane(bf_loop_self(), BF_POOL_LANE_HANDSHAKE),
                      self->guest.flow, handshake_step, &step);
    if (step.error != NULL) {
        g_propagate_error(error, step.error);
    }
    *ret_is_refused = step.is_refused;
    return step.status;
}

static void
begin_wait(BfChannelTls *self)
{
    if (self->guest.wait != NULL) {
        bf_peer_wait_begin(self->guest.wait, bf_loop_now_ns());
    }
}

static void
end_wait(BfChannelTls *self)
{
    if (self->guest.wait != NULL) {
        bf_peer_wait_end(self->guest.wait);
    }
}

#define BROKE_OFF                                                              \
    "TLS handshake failed: the peer broke off, perhaps because it does not "   \
    "accept our credentials: "

/* Sends what a step left behind. No lock: there is no other user yet. */
static bool
co_send_after_step(BfChannelTls *self, BfTlsStatus status, GError **error)
{
    bool ok = false;

    begin_wait(self); /* it may not read */
    ok = co_send_output(self, status == BF_TLS_FAILED ? NULL : error);
    end_wait(self);
    return ok && status != BF_TLS_FAILED;
}

static bool
co_receive_for_step(BfChannelTls *self, GError **error)
{
    bool ok = false;

    begin_wait(self);
    ok = co_receive(self, error) > 0;
    end_wait(self);
    return ok;
}

/* Nothing can be sent any more: the peer has closed, and may have said why. */
static void
co_hear_why(BfChannelTls *self, BfTlsStatus status, bool *ret_is_refused,
            GError **error)
{
    g_autoptr(GError) reason = NULL;

    if (status == BF_TLS_NEED_INPUT && co_receive_for_step(self, NULL) &&
        co_step(self, ret_is_refused, &reason) == BF_TLS_FAILED) {
        g_clear_error(error);
        g_propagate_error(error, g_steal_pointer(&reason));
        return;
    }
    g_prefix_error(error, BROKE_OFF);
}

/* The handshake and the verification; says whether it was that which failed. */
static bool
co_handshake(BfChannelTls *self, bool *ret_is_refused, GError **error)
{
    for (;;) {
        BfTlsStatus status = co_step(self, ret_is_refused, error);

        if (!co_send_after_step(self, status, error)) {
            if (status != BF_TLS_FAILED) {
                co_hear_why(self, status, ret_is_refused, error);
            }
            return false;
        }
        if (status == BF_TLS_DONE) {
            return true;
        }
        if (!co_receive_for_step(self, error)) {
            g_prefix_error(error, BROKE_OFF);
            return false;
        }
    }
}

/* @guest and @ret_refusal may be NULL. */
static BfChannel *
co_new(BfChannel *base, BfTlsCreds *creds, const char *hostname,
       const BfTlsGuest *guest, BfTlsRefusal *ret_refusal, GError **error)
{
    g_autoptr(BfChannel) channel = NULL;
    bool is_refused = false;
    BfChannelTls *self = g_new0(BfChannelTls, 1);

    self->base.ops = &tls_ops;
    self->base.features =
        BF_CHANNEL_SECURE | (base->features & BF_CHANNEL_LOCAL);
    self->lower = base;
    if (guest != NULL) {
        self->guest = *guest;
    }
    channel = &self->base;
    self->session = bf_tls_session_new(creds, hostname, error);
    if (self->session == NULL) {
        return NULL;
    }
    if (!co_handshake(self, &is_refused, error)) {
        if (ret_refusal != NULL) {
            ret_refusal->in_handshake = !is_refused;
            ret_refusal->heard = self->heard;
            ret_refusal->name =
                g_strdup(bf_tls_session_get_peer_label(self->session));
        }
        return NULL;
    }
    if (bf_tls_session_has_seal_space(self->session)) {
        self->base.features |= BF_CHANNEL_SEND_PIPE;
    }
    return g_steal_pointer(&channel);
}

BfChannel *
bf_channel_tls_co_new(BfChannel *base, BfTlsCreds *creds, const char *hostname,
                      GError **error)
{
    return co_new(base, creds, hostname, NULL, NULL, error);
}

BfChannel *
bf_channel_tls_co_accept(BfChannel *base, BfTlsCreds *creds,
                         const BfTlsGuest *guest, BfTlsRefusal *ret_refusal,
                         GError **error)
{
    *ret_refusal = (BfTlsRefusal){.in_handshake = true};
    return co_new(base, creds, NULL, guest, ret_refusal, error);
}

/* The session below a TLS channel. */
static BfTlsSession *
session_of(BfChannel *channel)
{
    g_assert(channel->ops == &tls_ops);
    return ((BfChannelTls *)channel)->session;
}

const BfTlsSession *
bf_channel_tls_get_session(BfChannel *channel)
{
    return session_of(channel);
}

const char *
bf_channel_tls_get_identity(BfChannel *channel)
{
    return bf_tls_session_get_identity(session_of(channel));
}

const char *
bf_channel_tls_get_label(BfChannel *channel)
{
    return bf_tls_session_get_peer_label(session_of(channel));
}

void
bf_channel_tls_co_deny(BfChannel *channel)
{
    BfChannelTls *self = (BfChannelTls *)channel;

    bf_tls_session_deny(session_of(channel));
    bf_co_mutex_co_lock(&self->write_mutex);
    co_send_output(self, NULL); /* best effort: the peer may be gone */
    bf_co_mutex_unlock(&self->write_mutex);
}

char *
bf_channel_tls_describe(BfChannel *channel)
{
    const BfTlsSession *session = session_of(channel);
    const char *label = bf_tls_session_get_peer_label(session);

    return g_strdup_printf("%s %s%s%s", bf_tls_session_get_version(session),
                           bf_tls_session_get_cipher(session),
                           label != NULL ? " " : "",
                           label != NULL ? label : "");
}
