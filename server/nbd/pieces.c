/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Large requests when the daemon's budget is used up: done one piece after the
 * other, all in the same small buffer.
 *
 * It is the only request of its connection then (credit.c sees to that), so
 * nothing comes between the pieces of a reply.
 */
#include <string.h>

#include "core/error.h"
#include "core/util.h"
#include "transmit-private.h"

/* How the data of a READ are sent. */
typedef enum Form {
    FORM_SIMPLE, /* all of them behind one header */
    FORM_WHOLE,  /* in one chunk; what became of them is told by another */
    FORM_CHUNKS, /* each piece in a chunk of its own */
} Form;

static Form
form_of(const BfNbdTask *task)
{
    if (!task->client->structured) {
        return FORM_SIMPLE;
    }
    return (task->request.flags & BF_NBD_REQUEST_DF) != 0 ? FORM_WHOLE
                                                          : FORM_CHUNKS;
}

static uint64_t
end_of(const BfNbdTask *task)
{
    return task->request.offset + task->request.length;
}

/* Length of the piece at @at. */
static size_t
piece_bytes(const BfNbdTask *task, uint64_t at)
{
    uint64_t next = bf_align_down(at + NBD_PIECE_BYTES, NBD_PIECE_BYTES);

    return MIN(next, end_of(task)) - at;
}

static void
put_chunk(BfNbdTask *task, BfNbdChunkType type, bool last, uint32_t length)
{
    BfNbdChunk chunk = {
        .flags = last ? BF_NBD_CHUNK_DONE : 0,
        .type = type,
        .cookie = task->request.cookie,
        .length = length,
    };

    task->head_bytes = bf_nbd_reply_put_chunk(task, task->head, &chunk);
}

static void
put_data_head(BfNbdTask *task, bool last, uint64_t at, uint32_t bytes)
{
    put_chunk(task, BF_NBD_CHUNK_TYPE_OFFSET_DATA, last,
              BF_NBD_CHUNK_OFFSET_BYTES + bytes);
    bf_put_be64(task->head + task->head_bytes, at);
    task->head_bytes += BF_NBD_CHUNK_OFFSET_BYTES;
}

/* What precedes the piece at @at, which is in the buffer. */
static void
put_head(BfNbdTask *task, Form form, uint64_t at, size_t bytes)
{
    const BfNbdRequest *request = &task->request;
    bool last = at + bytes == end_of(task);

    task->head_bytes = 0;
    task->body = task->buf;
    task->body_bytes = bytes;
    if (form == FORM_CHUNKS && bf_mem_is_zero(task->buf, bytes)) {
        put_chunk(task, BF_NBD_CHUNK_TYPE_OFFSET_HOLE, last,
                  BF_NBD_CHUNK_HOLE_BYTES);
        bf_nbd_put_hole(task->head + task->head_bytes, at, (uint32_t)bytes);
        task->head_bytes += BF_NBD_CHUNK_HOLE_BYTES;
        task->body_bytes = 0;
    } else if (form == FORM_CHUNKS) {
        put_data_head(task, last, at, (uint32_t)bytes);
    } else if (at == request->offset && form == FORM_WHOLE) {
        put_data_head(task, false, at, (uint32_t)request->length);
    } else if (at == request->offset) {
        bf_nbd_put_simple_reply(task->head, &(BfNbdSimpleReply){
                                                .error = BF_NBD_ERROR_NONE,
                                                .cookie = request->cookie,
                                            });
        task->head_bytes = BF_NBD_SIMPLE_REPLY_BYTES;
    }
}

/* Sends zeroes instead of the data from @at on: a chunk has what it said. */
static void
pieces_co_pad(BfNbdTask *task, uint64_t at)
{
    memset(task->buf, 0, NBD_PIECE_BYTES);
    while (at < end_of(task)) {
        size_t bytes = piece_bytes(task, at);

        put_head(task, FORM_WHOLE, at, bytes);
        if (!bf_nbd_reply_co_part(task)) {
            return;
        }
        at += bytes;
    }
}

/* The piece at @at could not be read. */
static void
pieces_co_fail(BfNbdTask *task, Form form, uint64_t at, int err)
{
    if (at > task->request.offset && form == FORM_SIMPLE) {
        bf_nbd_reply_break(task, err);
        return;
    }
    if (at > task->request.offset && form == FORM_WHOLE) {
        pieces_co_pad(task, at);
    }
    bf_nbd_reply_error(task, err, "reading from file failed");
}

static int
pieces_co_read_one(BfNbdTask *task, uint64_t at, size_t bytes)
{
    BfIoVec vec;
    int ret = 0;

    bf_iovec_init_buf(&vec, task->buf, bytes);
    ret = bf_handle_co_read(task->client->handle, at, &vec, 0);
    bf_iovec_clear(&vec);
    return ret;
}

void
bf_nbd_pieces_co_read(BfNbdTask *task)
{
    const Form form = form_of(task);
    uint64_t at = task->request.offset;

    task->buf = bf_buffer_new(NBD_PIECE_BYTES);
    task->buf_bytes = NBD_PIECE_BYTES;
    if (task->buf == NULL) {
        bf_nbd_reply_error(task, ENOMEM, "No memory");
        return;
    }
    for (;;) {
        size_t bytes = piece_bytes(task, at);
        int ret = pieces_co_read_one(task, at, bytes);

        if (ret < 0) {
            pieces_co_fail(task, form, at, -ret);
            return;
        }
        put_head(task, form, at, bytes);
        at += bytes;
        if (at == end_of(task) && form != FORM_WHOLE) {
            break;
        }
        if (!bf_nbd_reply_co_part(task)) {
            break; /* the last part is not sent either */
        }
        if (at == end_of(task)) {
            put_chunk(task, BF_NBD_CHUNK_TYPE_NONE, true, 0);
            task->body_bytes = 0;
            break;
        }
    }
    bf_nbd_reply_last_part(task);
}

/* Takes all of the payload, also when it cannot be written any more. */
static bool
pieces_co_take(BfNbdTask *task, int *ret, GError **error)
{
    BfNbdClient *client = task->client;
    uint64_t at = task->request.offset;

    while (at < end_of(task)) {
        size_t bytes = piece_bytes(task, at);

        client->receiving = true;
        if (!bf_nbd_input_co_receive(client, task->buf, bytes, error)) {
            return false;
        }
        client->receiving = false;
        if (*ret == 0) {
            *ret = bf_nbd_command_co_write_piece(task, task->buf, at, bytes);
        }
        at += bytes;
    }
    return true;
}

bool
bf_nbd_pieces_co_write(BfNbdTask *task, GError **error)
{
    BfNbdClient *client = task->client;
    int ret = bf_nbd_command_co_begin(task) ? 0 : -ESHUTDOWN;

    task->buf = bf_buffer_new(NBD_PIECE_BYTES);
    task->buf_bytes = NBD_PIECE_BYTES;
    if (task->buf == NULL) {
        client->left = BF_NBD_CLIENT_DISCONNECT_REASON_NO_MEMORY;
        bf_set_error(error, "no buffer for a piece of a write could be had");
        bf_nbd_credit_release(task);
        return false;
    }
    if (!pieces_co_take(task, &ret, error)) {
        bf_nbd_credit_release(task);
        return false;
    }
    task->begun_ns = client->arrived_ns;
    bf_nbd_command_end_write(task, ret);
    return true;
}
