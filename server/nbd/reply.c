/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replies, and the coroutine that sends them. This is the only place where an
 * errno value becomes an NBD error.
 *
 * The writer is spawned when a reply is queued and none runs, at the end of the
 * run queue: by then everything that could finish in this turn has, and all of
 * it leaves in one call. It ends when nothing is left to send.
 */
#include <stdarg.h>
#include <stdio.h>

#include "core/error.h"
#include "core/trace.h"
#include "core/util.h"
#include "stats-private.h"
#include "transmit-private.h"

/* One send takes at most this many pieces and about this many bytes. */
#define GATHER_PIECES_MAX 1024
#define GATHER_BYTES_MAX ((size_t)1024 * 1024)

/* Few replies need no list from the heap. */
#define GATHER_PIECES_FEW 32

/* A batch of replies that leave in one call. */
typedef struct BfNbdBatch {
    struct iovec few[GATHER_PIECES_FEW];
    struct iovec *iov;
    int max;
    int niov;
    size_t bytes;
    BfNbdTask *tasks; /* what the pieces belong to */
    BfNbdTask *last;
} BfNbdBatch;

/*
 * The writer.
 */

static void
batch_init(BfNbdBatch *batch, unsigned n_replies)
{
    batch->iov = batch->few;
    batch->max = GATHER_PIECES_FEW;
    if (n_replies * 2 > GATHER_PIECES_FEW) {
        struct iovec *many =
            bf_buffer_new(GATHER_PIECES_MAX * sizeof(*batch->iov));

        if (many != NULL) {
            batch->iov = many;
            batch->max = GATHER_PIECES_MAX;
        }
    }
    batch->niov = 0;
    batch->bytes = 0;
    batch->tasks = NULL;
    batch->last = NULL;
}

static void
batch_clear(BfNbdBatch *batch)
{
    if (batch->iov != batch->few) {
        bf_buffer_free(batch->iov, GATHER_PIECES_MAX * sizeof(*batch->iov));
    }
}

static unsigned
count_pieces(const BfNbdTask *task)
{
    return task->n_parts > 0 ? task->n_parts : 2;
}

static void
add_piece(BfNbdBatch *batch, const void *data, size_t bytes)
{
    batch->iov[batch->niov++] = (struct iovec){
        .iov_base = (void *)data,
        .iov_len = bytes,
    };
    batch->bytes += bytes;
}

static void
add_task(BfNbdBatch *batch, const BfNbdTask *task)
{
    if (G_UNLIKELY(task->n_parts > 0)) {
        for (unsigned i = 0; i < task->n_parts; i++) {
            add_piece(batch, task->parts[i].iov_base, task->parts[i].iov_len);
        }
        return;
    }
    add_piece(batch, task->head, task->head_bytes);
    if (task->body_bytes > 0) {
        add_piece(batch, task->body, task->body_bytes);
    }
}

/* Takes replies off the queue until the batch is full. What is in pipes can
 * only be the end of a batch. */
static void
gather(BfNbdClient *client, BfNbdBatch *batch)
{
    while (client->replies != NULL &&
           batch->niov + (int)count_pieces(client->replies) <= batch->max &&
           batch->bytes < GATHER_BYTES_MAX) {
        BfNbdTask *task = client->replies;

        client->replies = task->next;
        client->n_replies--;
        if (client->replies == NULL) {
            client->replies_tail = &client->replies;
        }
        task->next = NULL;
        if (batch->last != NULL) {
            batch->last->next = task;
        } else {
            batch->tasks = task;
        }
        batch->last = task;
        add_task(batch, task);
        if (task->pipes != NULL) {
            break;
        }
    }
}

static bool
batch_co_send(BfNbdClient *client, BfNbdBatch *batch)
{
    GError **error = &client->write_error;
    BfNbdTask *last = batch->last;

    if (last->pipes == NULL) {
        return bf_channel_co_writev_all(client->channel, batch->iov,
                                        batch->niov, error);
    }
    if (!bf_channel_co_writev_all_more(client->channel, batch->iov, batch->niov,
                                       error)) {
        return false;
    }
    for (BfNbdPipe *pipe = last->pipes; pipe != NULL; pipe = pipe->next) {
        if (!bf_channel_co_send_pipe_all(client->channel, pipe->read_fd,
                                         pipe->bytes, error)) {
            return false;
        }
        pipe->bytes = 0; /* empty: it can be used again */
    }
    return true;
}

static void
release_tasks(BfNbdTask *task)
{
    while (task != NULL) {
        BfNbdTask *next = task->next;

        if (G_UNLIKELY(task->is_part)) {
            task->is_part = false;
            bf_co_queue_wake_one(&task->client->part_wait);
        } else {
            bf_nbd_credit_release(task);
        }
        task = next;
    }
}

static void
writer_co_run(void *arg)
{
    BfNbdClient *client = arg;

    if (client->saying_bye) {
        bf_channel_co_bye(client->channel);
        client->broken = true;
        bf_channel_shutdown(client->channel);
    }
    while (client->replies != NULL) {
        BfNbdBatch batch;

        batch_init(&batch, client->n_replies);
        gather(client, &batch);
        if (!client->broken && !batch_co_send(client, &batch)) {
            /* The stream is out of step now: nothing more can be said. */
            client->broken = true;
            bf_channel_shutdown(client->channel);
        }
        if (client->ending) {
            bf_nbd_transmit_limit_end(client);
        }
        batch_clear(&batch);
        release_tasks(batch.tasks);
    }
    client->writing = false;
    bf_timer_stop(&client->timer);
    bf_co_queue_wake_one(&client->reader_wait);
}

void
bf_nbd_reply_bye(BfNbdClient *client)
{
    g_assert(!client->writing);
    client->saying_bye = true;
    client->writing = true;
    bf_nbd_transmit_limit_end(client);
    bf_co_spawn_later(writer_co_run, client);
}

static void
queue_reply(BfNbdTask *task)
{
    BfNbdClient *client = task->client;

    task->next = NULL;
    *client->replies_tail = task;
    client->replies_tail = &task->next;
    client->n_replies++;
    client->reply_bytes += task->reply_bytes;
    if (!client->writing) {
        client->writing = true;
        if (client->ending) {
            bf_nbd_transmit_limit_end(client);
        }
        bf_co_spawn_later(writer_co_run, client);
    }
}

/*
 * Replies.
 */

static void
put_simple(BfNbdTask *task, BfNbdError error)
{
    bf_nbd_put_simple_reply(task->head, &(BfNbdSimpleReply){
                                            .error = error,
                                            .cookie = task->request.cookie,
                                        });
    task->head_bytes = BF_NBD_SIMPLE_REPLY_BYTES;
}

size_t
bf_nbd_reply_put_chunk(const BfNbdTask *task, uint8_t *buf,
                       const BfNbdChunk *chunk)
{
    if (task->client->extended) {
        bf_nbd_put_extended_chunk(buf, chunk, task->request.offset);
        return BF_NBD_EXTENDED_CHUNK_BYTES;
    }
    bf_nbd_put_chunk(buf, chunk);
    return BF_NBD_CHUNK_BYTES;
}

/* The header of the only or last chunk, for @length bytes of payload. */
static void
put_last_chunk(BfNbdTask *task, BfNbdChunkType type, uint32_t length)
{
    BfNbdChunk chunk = {
        .flags = BF_NBD_CHUNK_DONE,
        .type = type,
        .cookie = task->request.cookie,
        .length = length,
    };

    task->head_bytes = bf_nbd_reply_put_chunk(task, task->head, &chunk);
}

/* The reply of a task is ready. */
static void
note_done(const BfNbdTask *task, int result)
{
    bf_nbd_stats_done(task, result);
    BF_TRACE(nbd, request_done, task->client->id, task->request.cookie,
             task->request.length, result);
}

void
bf_nbd_reply_done(BfNbdTask *task)
{
    /* Simple also where structured replies were negotiated: there is nothing
     * to structure. */
    if (task->client->extended) {
        put_last_chunk(task, BF_NBD_CHUNK_TYPE_NONE, 0);
    } else {
        put_simple(task, BF_NBD_ERROR_NONE);
    }
    note_done(task, 0);
    queue_reply(task);
}

/* What precedes the data of a READ that go as one chunk. */
static void
put_read_head(BfNbdTask *task)
{
    const BfNbdRequest *request = &task->request;

    if (!task->client->structured) {
        put_simple(task, BF_NBD_ERROR_NONE);
    } else if (request->length == 0) {
        put_last_chunk(task, BF_NBD_CHUNK_TYPE_NONE, 0);
    } else {
        put_last_chunk(task, BF_NBD_CHUNK_TYPE_OFFSET_DATA,
                       BF_NBD_CHUNK_OFFSET_BYTES + (uint32_t)request->length);
        bf_put_be64(task->head + task->head_bytes, request->offset);
        task->head_bytes += BF_NBD_CHUNK_OFFSET_BYTES;
    }
    note_done(task, 0);
}

void
bf_nbd_reply_data(BfNbdTask *task)
{
    put_read_head(task);
    task->body = task->buf;
    task->body_bytes = task->request.length;
    task->reply_bytes = task->request.length;
    queue_reply(task);
}

void
bf_nbd_reply_pipe(BfNbdTask *task)
{
    task->reply_bytes = task->request.length;
    put_read_head(task);
    queue_reply(task);
}

bool
bf_nbd_reply_co_part(BfNbdTask *task)
{
    BfNbdClient *client = task->client;

    task->is_part = true;
    queue_reply(task);
    while (task->is_part) {
        bf_co_queue_co_wait(&client->part_wait);
    }
    return !client->broken;
}

void
bf_nbd_reply_last_part(BfNbdTask *task)
{
    note_done(task, 0);
    queue_reply(task);
}

void
bf_nbd_reply_break(BfNbdTask *task, int err)
{
    BfNbdClient *client = task->client;

    if (!client->broken) {
        bf_set_errno(&client->write_error, err,
                     "reading failed in the middle of a reply");
        client->broken = true;
        bf_channel_shutdown(client->channel);
    }
    note_done(task, -err);
    queue_reply(task); /* only to be released */
}

void
bf_nbd_reply_hole(BfNbdTask *task)
{
    put_last_chunk(task, BF_NBD_CHUNK_TYPE_OFFSET_HOLE,
                   BF_NBD_CHUNK_HOLE_BYTES);
    bf_nbd_put_hole(task->head + task->head_bytes, task->request.offset,
                    (uint32_t)task->request.length);
    task->head_bytes += BF_NBD_CHUNK_HOLE_BYTES;
    note_done(task, 0);
    queue_reply(task);
}

/* Two errors have a meaning of their own (NBD proto.md, Error values), which
 * the storage's errors of the same name do not have. */
static BfNbdError
error_of(const BfNbdTask *task, int err)
{
    BfNbdError error = bf_nbd_error_from_errno(err);

    if (error == BF_NBD_ERROR_OVERFLOW ||
        (error == BF_NBD_ERROR_NOTSUP &&
         (task->request.flags & BF_NBD_REQUEST_FAST_ZERO) == 0)) {
        return BF_NBD_ERROR_IO;
    }
    return error;
}

void
bf_nbd_reply_parts(BfNbdTask *task, struct iovec *parts, unsigned n)
{
    g_assert(n <= GATHER_PIECES_FEW);
    task->parts = parts;
    task->n_parts = n;
    note_done(task, 0);
    queue_reply(task);
}

void
bf_nbd_reply_error(BfNbdTask *task, int err, const char *format, ...)
{
    BfNbdError error = error_of(task, err);
    va_list args;
    int len;

    if (!task->client->structured) {
        put_simple(task, error);
    } else {
        va_start(args, format);
        len = vsnprintf(task->text, sizeof(task->text), format, args);
        va_end(args);
        len = CLAMP(len, 0, (int)sizeof(task->text) - 1);
        put_last_chunk(task, BF_NBD_CHUNK_TYPE_ERROR,
                       BF_NBD_CHUNK_ERROR_BYTES + len);
        bf_nbd_put_chunk_error(task->head + task->head_bytes, error, len);
        task->head_bytes += BF_NBD_CHUNK_ERROR_BYTES;
        task->body = (const uint8_t *)task->text;
        task->body_bytes = len;
    }
    note_done(task, -err);
    queue_reply(task);
}

void
bf_nbd_reply_status(BfNbdTask *task, size_t bytes)
{
    task->head_bytes = 0;
    task->body = task->heap;
    task->body_bytes = bytes;
    note_done(task, 0);
    queue_reply(task);
}
