/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests on their way to the server. Each lives on the stack of the coroutine
 * that waits for it, and is in the table of its connection until its reply is
 * complete or the connection has ended; then it is sent again on another one.
 *
 * The writer is spawned when a request is queued and none runs, at the end of
 * the run queue: by then all that could come in this turn has come, and leaves
 * in one call. The memory of a request may be used by the writer until @sent,
 * and a server can answer before: a request ends when both are true.
 */
#include "core/error.h"
#include "core/util.h"
#include "nbd-private.h"

/* One send takes at most this many pieces and about this many bytes. */
#define GATHER_PIECES_MAX 256
#define GATHER_BYTES_MAX ((size_t)1024 * 1024)

/* A request that so many connections did not survive may be the reason. */
#define LOSSES_MAX 8

/* Low bits of a cookie: the place in the table. */
#define COOKIE_PLACE_BITS 8

/* Ends. */

static void
leave_table(BfNbdcConn *conn, BfNbdcRequest *req)
{
    conn->table[req->cookie & ((1u << COOKIE_PLACE_BITS) - 1)] = NULL;
    conn->in_flight--;
    if (!bf_co_queue_wake_one(&conn->pinned)) {
        bf_co_queue_wake_one(&conn->node->ready);
    }
}

static void
request_wake(BfNbdcRequest *req)
{
    BfCo *co = req->co;

    req->co = NULL;
    if (co != NULL) {
        bf_co_wake(co);
    }
}

static void
request_end_if_over(BfNbdcConn *conn, BfNbdcRequest *req)
{
    if (req->sent && req->replied) {
        leave_table(conn, req);
        request_wake(req);
    }
}

/* What @req flushes is stable, or is lost and known to be. */
static void
flush_unpin(BfNbdcRequest *req)
{
    if (req->pin != NULL) {
        req->pin->flushing--;
        req->pin = NULL;
    }
}

void
bf_nbdc_request_replied(BfNbdcConn *conn, BfNbdcRequest *req)
{
    conn->got_reply = true;
    if (req->ret == 0 && req->command == BF_NBD_COMMAND_FLUSH) {
        flush_unpin(req); /* now: the connection may end before it runs */
    }
    if (req->ret == 0 && (req->command == BF_NBD_COMMAND_WRITE ||
                          req->command == BF_NBD_COMMAND_WRITE_ZEROES ||
                          req->command == BF_NBD_COMMAND_TRIM)) {
        conn->wrote |= (req->flags & BF_NBD_REQUEST_FUA) == 0;
    }
    req->replied = true;
    request_end_if_over(conn, req);
}

void
bf_nbdc_break(BfNbdcConn *conn, GError *error)
{
    if (conn->error == NULL) {
        conn->error = error;
    } else {
        g_clear_error(&error);
    }
    bf_channel_shutdown(conn->channel);
}

/*
 * What a server has acknowledged and not flushed, it need not have any more if
 * it was started anew. If it is only slow, it may go on with what it can still
 * read of this connection, after newer writes of another one: so what waits in
 * our system to be sent is dropped before anybody is told. What remains is what
 * the server's system has received already. Over a UNIX socket that is all that
 * was written (some 200 KiB, or a request in a pipe), which nobody can take
 * back.
 */
void
bf_nbdc_co_lose_requests(BfNbdcConn *conn)
{
    /* At once: a flush that begins now does not cover it any more. */
    if (conn->wrote || conn->flushing > 0) {
        conn->wrote = false;
        conn->node->wrote_lost = true;
        bf_node_note_loss(&conn->node->base);
    }
    while (conn->writing) {
        bf_co_queue_co_wait(&conn->writer_done);
    }
    g_clear_pointer(&conn->channel, bf_channel_free);
    conn->queue = NULL;
    conn->queue_tail = &conn->queue;
    for (unsigned i = 0; i < NBDC_REQUESTS_MAX; i++) {
        BfNbdcRequest *req = conn->table[i];

        if (req != NULL) {
            conn->table[i] = NULL;
            req->lost = true;
            req->met_silence = conn->was_silent;
            request_wake(req);
        }
    }
    conn->in_flight = 0;
    bf_co_queue_wake_all(&conn->pinned);
    bf_co_queue_wake_all(&conn->node->ready);
}

/* The writer. */

typedef struct Batch {
    struct iovec iov[GATHER_PIECES_MAX];
    int niov;
    size_t bytes;
    BfNbdcRequest *done; /* those whose last piece is in @iov */
    BfNbdcRequest **done_tail;
    const BfNbdcRequest *piped; /* the last of them: its data is in a pipe */
} Batch;

static bool
batch_has_room(const Batch *batch)
{
    return batch->niov < GATHER_PIECES_MAX && batch->bytes < GATHER_BYTES_MAX;
}

static void
batch_add(Batch *batch, const void *data, size_t bytes)
{
    batch->iov[batch->niov++] = (struct iovec){
        .iov_base = (void *)data,
        .iov_len = bytes,
    };
    batch->bytes += bytes;
}

static size_t
head_bytes(const BfNbdcConn *conn)
{
    return conn->exp.extended ? BF_NBD_EXTENDED_REQUEST_BYTES
                              : BF_NBD_REQUEST_BYTES;
}

/* What comes behind the header. */
static int
count_pieces(const BfNbdcRequest *req)
{
    return req->command == BF_NBD_COMMAND_WRITE && req->pipe == NULL
               ? req->vec->niov
               : 0;
}

/* Takes as much of the queue as fits; what does not stays, in part maybe. */
static void
gather(BfNbdcConn *conn, Batch *batch)
{
    batch->niov = 0;
    batch->bytes = 0;
    batch->done = NULL;
    batch->done_tail = &batch->done;
    batch->piped = NULL;
    while (conn->queue != NULL && batch_has_room(batch) &&
           batch->piped == NULL) {
        BfNbdcRequest *req = conn->queue;
        int n = count_pieces(req);

        if (req->pieces == 0) {
            batch_add(batch, req->head, head_bytes(conn));
            req->pieces = 1;
        }
        while (req->pieces <= n && batch_has_room(batch)) {
            const struct iovec *piece = &req->vec->iov[req->pieces - 1];

            batch_add(batch, piece->iov_base, piece->iov_len);
            req->pieces++;
        }
        if (req->pieces <= n) {
            break;
        }
        conn->queue = req->next;
        if (conn->queue == NULL) {
            conn->queue_tail = &conn->queue;
        }
        req->next = NULL;
        *batch->done_tail = req;
        batch->done_tail = &req->next;
        batch->piped = req->pipe != NULL ? req : NULL;
    }
}

static bool
batch_co_send(BfNbdcConn *conn, Batch *batch, GError **error)
{
    if (batch->piped == NULL) {
        return bf_channel_co_writev_all(conn->channel, batch->iov, batch->niov,
                                        error);
    }
    return bf_channel_co_writev_all_more(conn->channel, batch->iov, batch->niov,
                                         error) &&
           bf_channel_co_send_pipe_all(conn->channel, *batch->piped->pipe,
                                       batch->piped->length, error);
}

static void
mark_sent(BfNbdcConn *conn, BfNbdcRequest *req)
{
    while (req != NULL) {
        BfNbdcRequest *next = req->next;

        req->sent = true;
        request_end_if_over(conn, req);
        req = next;
    }
}

static void
writer_co_run(void *arg)
{
    BfNbdcConn *conn = arg;
    Batch batch;

    while (conn->queue != NULL && conn->error == NULL) {
        GError *error = NULL;

        gather(conn, &batch);
        if (!batch_co_send(conn, &batch, &error)) {
            bf_nbdc_break(conn, error);
            break; /* all requests are lost, and told so by the keeper */
        }
        mark_sent(conn, batch.done);
    }
    conn->writing = false;
    bf_co_queue_wake_all(&conn->writer_done);
}

/* Requests. */

static void
enter_table(BfNbdcConn *conn, BfNbdcRequest *req)
{
    uint64_t generation = ++conn->node->generation;
    unsigned place = 0;

    while (conn->table[place] != NULL) {
        place++;
    }
    g_assert(place < NBDC_REQUESTS_MAX);
    conn->table[place] = req;
    if (conn->in_flight++ == 0 && conn->node->silence_ns > 0) {
        conn->heard_ns = bf_loop_now_ns();
    }
    req->conn = conn;
    req->cookie = generation << COOKIE_PLACE_BITS | place;
}

/* Each connection has negotiated its own kind of headers. Only a request
 * without payload can be too long for the short ones. */
static void
put_head(const BfNbdcConn *conn, BfNbdcRequest *req)
{
    BfNbdRequest head = {
        .flags = req->flags,
        .command = req->command,
        .cookie = req->cookie,
        .offset = req->offset,
    };

    if (!conn->exp.extended) {
        req->length = MIN(req->length, NBDC_PIECE_MAX);
        head.length = req->length;
        bf_nbd_put_request(req->head, &head);
        return;
    }
    head.length = req->length;
    if (req->command == BF_NBD_COMMAND_WRITE) {
        head.flags |= BF_NBD_REQUEST_PAYLOAD_LEN;
    }
    bf_nbd_put_extended_request(req->head, &head);
}

static void
start_request(BfNbdcConn *conn, BfNbdcRequest *req)
{
    req->pieces = 0;
    req->sent = false;
    req->replied = false;
    req->lost = false;
    req->ret = 0;
    req->got_status = false;
    req->n_errors = 0;
    req->n_ranges = 0;
    req->next = NULL;
    enter_table(conn, req);
    put_head(conn, req);
    *conn->queue_tail = req;
    conn->queue_tail = &req->next;
    if (!conn->writing) {
        conn->writing = true;
        bf_co_spawn_later(writer_co_run, conn);
    }
}

/* A server that takes connections and requests and answers none is as good as
 * away. Called for each loss of a request by silence. */
static bool
is_silent_too_long(const BfNbdcNode *self, uint64_t *since_ns)
{
    uint64_t now_ns = bf_loop_now_ns();

    if (*since_ns == 0) {
        *since_ns = now_ns;
    }
    return now_ns - *since_ns >=
           MAX(self->reconnect_delay_ns, self->silence_ns);
}

int
bf_nbdc_co_request(BfNbdcNode *self, BfNbdcRequest *req)
{
    unsigned cancels = self->cancels;
    uint64_t silent_since_ns = 0;
    int ret = -EIO;

    bf_assert_loop(self->loop);
    req->ranges = req->few_ranges;
    if (req->extents != NULL) {
        req->extents_start = req->extents->bytes;
    }
    for (unsigned losses = 0; losses < LOSSES_MAX;) {
        BfNbdcConn *conn = bf_nbdc_co_pick(self, req->pin, cancels);

        if (conn == NULL) {
            break;
        }
        if (req->pipe != NULL &&
            (conn->channel->features & BF_CHANNEL_SEND_PIPE) == 0) {
            ret = -EOPNOTSUPP;
            break;
        }
        start_request(conn, req);
        req->co = bf_co_self();
        bf_co_suspend();
        if (!req->lost) {
            ret = req->ret;
            break;
        }
        if (req->pipe != NULL) {
            break; /* some of it is gone with the connection */
        }
        if (!req->met_silence) {
            losses++;
        } else if (is_silent_too_long(self, &silent_since_ns)) {
            break;
        }
        flush_unpin(req);
        if (req->extents != NULL) {
            bf_extents_clip(req->extents, req->extents_start);
        }
    }
    if (req->ranges != req->few_ranges) {
        g_free(req->ranges);
    }
    return ret;
}

/* Flushes. */

typedef struct Flush {
    BfNbdcNode *self;
    BfNbdcConn *pin;
    bool needed; /* there is something to be covered */
    BfWaitGroup *group;
    int ret;
} Flush;

static void
flush_co_one(void *arg)
{
    Flush *flush = arg;
    BfNbdcRequest req = {
        .command = BF_NBD_COMMAND_FLUSH,
        .pin = flush->pin,
    };

    flush->ret = bf_nbdc_co_request(flush->self, &req);
    flush_unpin(&req);
    bf_wait_group_done(flush->group);
}

/* Marks again what a flush was to cover, and did not. */
static void
note_failed_flush(const Flush *flush)
{
    if (flush->pin != NULL && flush->pin->is_up) {
        flush->pin->wrote = true;
    } else {
        flush->self->wrote_lost |= flush->needed;
    }
}

int
bf_nbdc_co_flush_all(BfNbdcNode *self)
{
    Flush flushes[NBDC_CONNS_MAX];
    BfWaitGroup group = {0};
    unsigned n = 0;
    int ret = 0;

    for (unsigned i = 0; i < self->n_conns; i++) {
        BfNbdcConn *conn = self->conns[i];

        if (conn->is_up && conn->wrote) {
            conn->wrote = false;
            conn->flushing++;
            flushes[n++] = (Flush){
                .self = self,
                .pin = conn,
                .needed = true,
                .group = &group,
            };
        }
    }
    if (n == 0) {
        /* Others may have written by other ways: one is always sent. */
        flushes[n++] = (Flush){
            .self = self,
            .needed = self->wrote_lost,
            .group = &group,
        };
    }
    self->wrote_lost = false;
    bf_wait_group_add(&group, n);
    for (unsigned i = 0; i < n; i++) {
        bf_co_spawn(flush_co_one, &flushes[i]);
    }
    bf_wait_group_co_wait(&group);
    for (unsigned i = 0; i < n; i++) {
        if (flushes[i].ret < 0) {
            note_failed_flush(&flushes[i]);
            ret = flushes[i].ret;
        }
    }
    return ret;
}

void
bf_nbdc_co_say_bye(BfNbdcConn *conn)
{
    BfNbdcRequest req = {.command = BF_NBD_COMMAND_DISC};

    if (conn->writing || conn->in_flight > 0 || conn->error != NULL) {
        return; /* in the middle of something */
    }
    put_head(conn, &req);
    if (bf_channel_co_write_all(conn->channel, req.head, head_bytes(conn),
                                NULL)) {
        bf_channel_co_bye(conn->channel);
        bf_channel_set_drop_unsent(conn->channel, false);
    }
}
