/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What each command does with the export's handle. Requests were checked when
 * they came in; here they run, each as a coroutine that the reader has started.
 * One that is served from the page cache never suspends.
 */
#include "core/trace.h"
#include "core/util.h"
#include "transmit-private.h"

/* Whoever reads this much and finds only zeroes is told so instead. The scan
 * ends at the first other byte, so it costs next to nothing on data. */
#define HOLE_MIN_BYTES 4096

/* Reads of at least so many bytes are told of zeroes among the data, too. */
#define SPARSE_MIN_BYTES ((size_t)64 * 1024)

/* What goes through a pipe is not seen. So one read in so many goes through a
 * buffer instead, and when it has found zeroes, so many more do. */
#define SPARSE_PROBE_READS 256
#define SPARSE_LOOKS 64

/* WRITE_ZEROES and TRIM go down in pieces that end at multiples of this, so
 * that neither a drain nor a hard removal has to wait for gigabytes of zeroes:
 * between two pieces the handle parks or refuses. See BfLimits.long_zeroes. */
#define PIECE_BYTES (64 * BF_MIB)

static unsigned
write_flags(const BfNbdTask *task)
{
    bool fua = (task->request.flags & BF_NBD_REQUEST_FUA) != 0;

    return fua || task->client->exp->base.writethrough ? BF_IO_FUA : 0;
}

/* The error of a request that was inside of the node when it came: if the node
 * has been made smaller since, it is the same as for one that comes now. */
static int
change_error(const BfNbdTask *task, int ret)
{
    const BfNbdClient *client = task->client;
    uint64_t size = bf_export_handle_size(&client->exp->base, client->handle);

    return ret == -EINVAL && !bf_range_fits(task->request.offset,
                                            task->request.length, size)
               ? ENOSPC
               : -ret;
}

/* Is the client to be told of zeroes rather than sent them? */
static bool
may_be_sparse(const BfNbdTask *task)
{
    return task->client->structured &&
           (task->request.flags & BF_NBD_REQUEST_DF) == 0;
}

/* Should a READ that could go through a pipe go through a buffer, because there
 * may be zeroes? */
static bool
wants_look(const BfNbdTask *task)
{
    BfNbdClient *client = task->client;

    if (!may_be_sparse(task) || task->request.length < SPARSE_MIN_BYTES) {
        return false;
    }
    if (client->sparse_looks > 0) {
        client->sparse_looks--;
        return true;
    }
    if (++client->pipe_reads < SPARSE_PROBE_READS) {
        return false;
    }
    client->pipe_reads = 0;
    return true;
}

/* Replies with holes, if there are any worth it. */
static bool
reply_sparse(BfNbdTask *task)
{
    const BfNbdRequest *request = &task->request;
    BfNbdClient *client = task->client;

    if (!may_be_sparse(task) || request->length < HOLE_MIN_BYTES) {
        return false;
    }
    if (bf_mem_is_zero(task->buf, request->length)) {
        bf_nbd_reply_hole(task);
    } else if (request->length < SPARSE_MIN_BYTES ||
               !bf_nbd_sparse_reply(task)) {
        return false;
    }
    client->sparse_looks = SPARSE_LOOKS;
    return true;
}

/* Tells each client once of each loss, if that is wanted. */
static int
co_flush(BfNbdClient *client)
{
    int ret = bf_handle_co_flush(client->handle);
    uint64_t loss = bf_handle_last_loss(client->handle);

    if (ret == 0 && loss > client->last_loss &&
        client->exp->base.report_losses) {
        ret = -EIO;
    }
    client->last_loss = loss;
    return ret;
}

static void
command_co_read(BfNbdTask *task)
{
    BfNbdClient *client = task->client;
    const BfNbdRequest *request = &task->request;
    BfIoVec vec;
    int ret = 0;

    if ((request->flags & BF_NBD_REQUEST_FUA) != 0) {
        ret = co_flush(client);
        if (ret < 0) {
            bf_nbd_reply_error(task, -ret, "flush failed");
            return;
        }
    }
    if (request->length == 0) {
        bf_nbd_reply_data(task);
        return;
    }
    if (G_UNLIKELY(task->in_pieces)) {
        bf_nbd_pieces_co_read(task);
        return;
    }
    if (request->length >= client->pipe_min_bytes && !wants_look(task) &&
        bf_nbd_pipe_co_read(task)) {
        return;
    }
    task->buf_bytes = request->length;
    task->buf = bf_buffer_new(task->buf_bytes);
    if (task->buf == NULL) {
        bf_nbd_reply_error(task, ENOMEM, "No memory");
        return;
    }
    bf_iovec_init_buf(&vec, task->buf, request->length);
    ret = bf_handle_co_read(client->handle, request->offset, &vec, 0);
    bf_iovec_clear(&vec);
    if (ret < 0) {
        bf_nbd_reply_error(task, -ret, "reading from file failed");
    } else if (!reply_sparse(task)) {
        bf_nbd_reply_data(task);
    }
}

int
bf_nbd_command_co_write_piece(BfNbdTask *task, uint8_t *buf, uint64_t offset,
                              size_t bytes)
{
    BfIoVec vec;
    int ret = 0;

    bf_iovec_init_buf(&vec, buf, bytes);
    ret = bf_handle_co_write(task->client->handle, offset, &vec,
                             write_flags(task));
    bf_iovec_clear(&vec);
    /* When the last piece is done, the node may be larger again. */
    return ret < 0 ? -change_error(task, ret) : 0;
}

/* Where the storage does not take it from the pipe, a buffer must do. */
static int
co_write_unloaded(BfNbdTask *task, BfNbdPipe *pipe, uint64_t offset)
{
    size_t bytes = pipe->bytes;
    uint8_t *buf = bf_nbd_pipe_unload(task->client, pipe, bytes);
    int ret = buf != NULL
                  ? bf_nbd_command_co_write_piece(task, buf, offset, bytes)
                  : -ENOMEM;

    bf_buffer_free(buf, bytes);
    return ret;
}

int
bf_nbd_command_co_write_pipe(BfNbdTask *task, BfNbdPipe *pipe, uint64_t offset)
{
    BfNbdClient *client = task->client;
    int ret = bf_handle_co_write_pipe(client->handle, offset, pipe->bytes,
                                      pipe->read_fd);

    if (ret == -EOPNOTSUPP) {
        client->write_pipe_skip = NBD_PIPE_SKIP;
        return co_write_unloaded(task, pipe, offset);
    }
    if (ret == 0) {
        pipe->bytes = 0;
    }
    bf_nbd_pipe_release(client, pipe);
    return ret < 0 ? -change_error(task, ret) : 0;
}

void
bf_nbd_command_end_write(BfNbdTask *task, int ret)
{
    if (ret < 0) {
        bf_nbd_reply_error(task, change_error(task, ret),
                           "writing to file failed");
    } else {
        bf_nbd_reply_done(task);
    }
}

static void
command_co_write(BfNbdTask *task)
{
    int ret = 0;

    if (task->payload_pipe != NULL) {
        ret = bf_nbd_command_co_write_pipe(
            task, g_steal_pointer(&task->payload_pipe), task->request.offset);
    } else if (task->request.length > 0) {
        ret = bf_nbd_command_co_write_piece(
            task, task->payload, task->request.offset, task->request.length);
    }
    if (task->input != NULL) {
        bf_nbd_input_unpin(task->client, g_steal_pointer(&task->input));
    }
    bf_nbd_command_end_write(task, ret);
}

/*
 * Calls @fn for the pieces of a request, which end at multiples of @piece. The
 * storage may take each without waiting (null-co, or a discard that is to be
 * ignored), and there may be 2^37 of them: others must get their turns, and who
 * is cut off or has gone has no more to ask for.
 */
static int
command_co_pieces(BfNbdTask *task,
                  int (*fn)(BfHandle *handle, uint64_t offset, uint64_t bytes,
                            unsigned flags),
                  uint64_t piece, unsigned flags)
{
    uint64_t offset = task->request.offset;
    uint64_t end = offset + task->request.length;
    bool flush = false;
    int ret = 0;

    /* One flush at the end instead of one for each piece. */
    if ((flags & BF_IO_FUA) != 0 && task->request.length > piece) {
        flags &= ~BF_IO_FUA;
        flush = true;
    }
    while (offset < end && ret == 0) {
        uint64_t next = bf_align_down(offset + piece, piece);
        uint64_t bytes = MIN(next, end) - offset;

        ret = fn(task->client->handle, offset, bytes, flags);
        offset += bytes;
        if (offset < end && ret == 0) {
            bf_co_yield();
            if (bf_nbd_transmit_is_pointless(task->client)) {
                ret = -ESHUTDOWN;
            }
        }
    }
    return ret == 0 && flush ? co_flush(task->client) : ret;
}

/* A node that is quick at many zeroes, or says at once that it is not, gets as
 * many as it takes. */
static int
command_co_zero(BfNbdTask *task, unsigned flags)
{
    BfHandle *handle = task->client->handle;
    uint64_t most = bf_handle_limits(handle)->long_zeroes;

    if (task->request.length > PIECE_BYTES && most > PIECE_BYTES) {
        int ret = command_co_pieces(task, bf_handle_co_write_zeroes, most,
                                    flags | BF_IO_NO_FALLBACK);

        if (ret != -ENOTSUP) {
            return ret;
        }
    }
    return command_co_pieces(task, bf_handle_co_write_zeroes, PIECE_BYTES,
                             flags);
}

static void
command_co_write_zeroes(BfNbdTask *task)
{
    const BfNbdRequest *request = &task->request;
    unsigned flags = write_flags(task);
    int ret = 0;

    if ((request->flags & BF_NBD_REQUEST_NO_HOLE) == 0) {
        flags |= BF_IO_MAY_UNMAP;
    }
    if ((request->flags & BF_NBD_REQUEST_FAST_ZERO) != 0) {
        flags |= BF_IO_NO_FALLBACK;
    }
    ret = command_co_zero(task, flags);
    bf_nbd_command_end_write(task, ret);
}

static void
command_co_trim(BfNbdTask *task)
{
    int ret = command_co_pieces(task, bf_handle_co_discard, PIECE_BYTES,
                                write_flags(task));

    if (ret < 0) {
        bf_nbd_reply_error(task, -ret, "discard failed");
    } else {
        bf_nbd_reply_done(task);
    }
}

static void
command_co_flush(BfNbdTask *task)
{
    int ret = co_flush(task->client);

    if (ret < 0) {
        bf_nbd_reply_error(task, -ret, "flush failed");
    } else {
        bf_nbd_reply_done(task);
    }
}

static void
command_co_cache(BfNbdTask *task)
{
    const BfNbdRequest *request = &task->request;
    int ret = 0;

    if (request->length > 0) {
        ret = bf_handle_co_cache(task->client->handle, request->offset,
                                 request->length);
    }
    if (ret < 0) {
        bf_nbd_reply_error(task, -ret, "caching data failed");
    } else {
        bf_nbd_reply_done(task);
    }
}

/* Waits, before the request comes to the handle, so that no drain has to. */
static bool
command_co_throttle(const BfNbdTask *task)
{
    const BfNbdRequest *request = &task->request;
    BfThrottleMember *member = task->client->throttle;

    switch (request->command) {
    case BF_NBD_COMMAND_READ:
    case BF_NBD_COMMAND_CACHE:
        return bf_throttle_member_co_wait(member, false, request->length);
    case BF_NBD_COMMAND_WRITE:
    case BF_NBD_COMMAND_WRITE_ZEROES:
    case BF_NBD_COMMAND_TRIM:
        return bf_throttle_member_co_wait(member, true, request->length);
    default:
        return true;
    }
}

bool
bf_nbd_command_co_begin(BfNbdTask *task)
{
    if (G_UNLIKELY(task->client->throttle != NULL) &&
        !command_co_throttle(task)) {
        return false;
    }
    BF_TRACE(nbd, request_start, task->client->id, task->request.cookie,
             task->request.command, task->request.offset, task->request.length);
    return true;
}

void
bf_nbd_command_co_run(void *arg)
{
    BfNbdTask *task = arg;

    if (!bf_nbd_command_co_begin(task)) {
        bf_nbd_reply_error(task, ESHUTDOWN, "the connection has ended");
        return;
    }
    switch (task->request.command) {
    case BF_NBD_COMMAND_READ:
        command_co_read(task);
        break;
    case BF_NBD_COMMAND_WRITE:
        command_co_write(task);
        break;
    case BF_NBD_COMMAND_WRITE_ZEROES:
        command_co_write_zeroes(task);
        break;
    case BF_NBD_COMMAND_TRIM:
        command_co_trim(task);
        break;
    case BF_NBD_COMMAND_FLUSH:
        command_co_flush(task);
        break;
    case BF_NBD_COMMAND_CACHE:
        command_co_cache(task);
        break;
    case BF_NBD_COMMAND_BLOCK_STATUS:
        bf_nbd_meta_co_status(task);
        break;
    default:
        g_assert_not_reached(); /* the reader lets only these through */
    }
}
