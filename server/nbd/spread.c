/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Large writes to storage that takes them at once, as the page cache does: each
 * piece is written as soon as it is there. The next one comes into the same
 * buffer, which is still in the processor's cache, and while it does, the peer
 * makes the one after it.
 *
 * Storage that does not take them at once gets whole requests, which is what it
 * is best at: as soon as a piece has to wait, the rest of its request is one
 * piece, and so are the next requests. Where requests are counted, as a limit
 * of requests per second does, each is done as a whole.
 */
#include <errno.h>

#include "core/util.h"
#include "transmit-private.h"

/* Large writes in a row that are not tried again. */
#define SKIP 8

/* A part of the payload, written by a coroutine of its own. */
typedef struct Piece {
    BfNbdTask *task;
    uint64_t offset;
    size_t bytes;
    BfNbdPipe *pipe; /* has it, or: */
    uint8_t *buf;    /* from bf_buffer_new() */
} Piece;

bool
bf_nbd_spread_wants(BfNbdClient *client, const BfNbdRequest *request)
{
    if (request->length <= NBD_PIECE_BYTES || client->throttle != NULL ||
        bf_handle_limits(client->handle)->counts_requests ||
        client->exp->base.writethrough ||
        (request->flags & BF_NBD_REQUEST_FUA) != 0) {
        return false;
    }
    if (client->spread_skip > 0) {
        client->spread_skip--;
        return false;
    }
    return true;
}

/* The last of those who need the task ends it: pieces and the reader. */
static void
let_go(BfNbdTask *task)
{
    if (--task->n_users > 0) {
        return;
    }
    if (task->is_cut) {
        bf_nbd_credit_release(task);
    } else {
        bf_nbd_command_end_write(task, task->result);
    }
}

static void
piece_co_run(void *arg)
{
    Piece *piece = arg;
    BfNbdTask *task = piece->task;
    int ret =
        piece->pipe != NULL
            ? bf_nbd_command_co_write_pipe(task, piece->pipe, piece->offset)
            : bf_nbd_command_co_write_piece(task, piece->buf, piece->offset,
                                            piece->bytes);

    if (ret < 0 && task->result == 0) {
        task->result = ret;
    }
    bf_buffer_free(piece->buf, piece->bytes);
    g_free(piece);
    let_go(task);
}

/* Receives a piece into a pipe or a buffer: if it has neither then, there is no
 * memory for it. False: the connection ends. */
static bool
reader_co_receive(BfNbdClient *client, Piece *piece, bool by_pipe,
                  GError **error)
{
    if (by_pipe && bf_nbd_input_bytes(client) == 0) {
        piece->pipe = bf_nbd_pipe_take(client, piece->bytes);
    }
    if (piece->pipe != NULL) {
        return bf_nbd_pipe_co_fill(client, &piece->pipe, piece->bytes,
                                   &piece->buf, error);
    }
    piece->buf = bf_buffer_new(piece->bytes);
    return piece->buf != NULL
               ? bf_nbd_input_co_receive(client, piece->buf, piece->bytes,
                                         error)
               : bf_nbd_input_co_skip(client, piece->bytes, error);
}

/* Receives a piece and starts to write it. False: the connection ends. */
static bool
reader_co_take_piece(BfNbdTask *task, uint64_t offset, size_t bytes,
                     bool by_pipe, GError **error)
{
    BfNbdClient *client = task->client;
    Piece piece = {.task = task, .offset = offset, .bytes = bytes};
    bool ok = reader_co_receive(client, &piece, by_pipe, error);

    if (ok && (piece.pipe != NULL || piece.buf != NULL)) {
        task->n_users++;
        bf_co_spawn(piece_co_run, g_memdup2(&piece, sizeof(piece)));
        return true;
    }
    task->result = -ENOMEM;
    bf_nbd_pipe_release(client, piece.pipe);
    bf_buffer_free(piece.buf, bytes);
    return ok;
}

/* Pieces end at multiples of their size, so that all but the ends of a request
 * are aligned; the last one has what is left if the storage is slow. */
static size_t
next_bytes(const BfNbdTask *task, uint64_t at, uint64_t end, size_t most)
{
    uint64_t next = bf_align_down(at + most, most);

    return task->n_users > 1 ? end - at : MIN(next, end) - at;
}

bool
bf_nbd_spread_co_write(BfNbdTask *task, bool by_pipe, GError **error)
{
    BfNbdClient *client = task->client;
    uint64_t end = task->request.offset + task->request.length;
    bool ok = true;

    task->n_users = 1; /* the reader */
    task->result = 0;
    client->large_writes = true;
    /* Through a pipe goes only what is still in the socket. */
    client->window = by_pipe ? client->request_bytes : NBD_INPUT_SMALL_WINDOW;
    bf_nbd_command_co_begin(task);
    client->receiving = true;
    for (uint64_t at = task->request.offset; at < end && ok;) {
        bool piped = by_pipe && client->write_pipe_skip == 0;
        size_t bytes = next_bytes(
            task, at, end, piped ? client->write_pipe_piece : NBD_PIECE_BYTES);

        if (task->n_users > 1) {
            client->spread_skip = SKIP;
        }
        ok = task->result == 0
                 ? reader_co_take_piece(task, at, bytes, piped, error)
                 : bf_nbd_input_co_skip(client, bytes, error);
        at += bytes;
    }
    client->receiving = !ok;
    task->begun_ns = client->arrived_ns;
    task->is_cut = !ok;
    let_go(task);
    return ok;
}
