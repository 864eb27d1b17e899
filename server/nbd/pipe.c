/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pipes that carry large reads from the page cache to the socket without a
 * copy, and large writes from the socket to the page cache with one copy less.
 * They are made on demand and kept by the connection; all together are bounded,
 * and a request that gets none is done with a buffer.
 */
#include <errno.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "stats-private.h"
#include "transmit-private.h"

#define PAGE_BYTES 4096

/* Smaller writes are not worth it. */
#define WRITE_MIN ((size_t)64 * 1024)

static void
close_pipe(BfNbdClient *client, BfNbdPipe *pipe)
{
    close(pipe->read_fd);
    close(pipe->write_fd);
    g_free(pipe);
    client->n_pipes--;
    bf_budget_give_back(&client->server->pipes, NBD_PIPE_BYTES);
}

static BfNbdPipe *
new_pipe(BfNbdClient *client)
{
    BfBudget *budget = &client->server->pipes;
    BfNbdPipe *pipe = NULL;
    ssize_t capacity;
    int fds[2];

    if (client->n_pipes >= NBD_PIPES_MAX ||
        !bf_budget_try_take(budget, NBD_PIPE_BYTES)) {
        return NULL;
    }
    capacity = bf_pipe_open(fds, NBD_PIPE_BYTES);
    if (capacity < 0) {
        bf_budget_give_back(budget, NBD_PIPE_BYTES);
        return NULL;
    }
    pipe = g_new0(BfNbdPipe, 1);
    pipe->read_fd = fds[0];
    pipe->write_fd = fds[1];
    pipe->capacity = (size_t)capacity;
    client->n_pipes++;
    return pipe;
}

void
bf_nbd_pipe_release(BfNbdClient *client, BfNbdPipe *pipes)
{
    while (pipes != NULL) {
        BfNbdPipe *pipe = pipes;

        pipes = pipe->next;
        if (pipe->bytes > 0) {
            close_pipe(client, pipe);
        } else {
            pipe->next = client->free_pipes;
            client->free_pipes = pipe;
            client->n_free_pipes++;
        }
    }
    bf_co_queue_wake_one(&client->pipe_wait);
}

/* Sees to it that @n pipes are free. */
static bool
make_pipes(BfNbdClient *client, unsigned n)
{
    while (client->n_free_pipes < n) {
        BfNbdPipe *pipe = new_pipe(client);

        if (pipe == NULL) {
            return false;
        }
        pipe->next = client->free_pipes;
        client->free_pipes = pipe;
        client->n_free_pipes++;
    }
    return true;
}

/* How many of @bytes at @offset fit: a pipe has a slot for each page, and a
 * range that begins inside a page has one page more. */
static size_t
room(size_t capacity, uint64_t offset, size_t bytes)
{
    size_t lost = offset & (PAGE_BYTES - 1);

    return capacity > lost ? MIN(bytes, capacity - lost) : 0;
}

/* Takes @n free pipes and divides @bytes at @offset of a file among them. NULL
 * if they do not hold that much. */
static BfNbdPipe *
take_pipes(BfNbdClient *client, unsigned n, uint64_t offset, size_t bytes)
{
    BfNbdPipe *pipes = client->free_pipes;
    BfNbdPipe **tail = &pipes;

    for (; n > 0; n--) {
        BfNbdPipe *pipe = *tail;

        pipe->bytes = room(pipe->capacity, offset, bytes);
        offset += pipe->bytes;
        bytes -= pipe->bytes;
        tail = &pipe->next;
        client->n_free_pipes--;
    }
    client->free_pipes = *tail;
    *tail = NULL;
    if (bytes > 0) {
        for (BfNbdPipe *pipe = pipes; pipe != NULL; pipe = pipe->next) {
            pipe->bytes = 0;
        }
        bf_nbd_pipe_release(client, pipes);
        return NULL;
    }
    return pipes;
}

/*
 * Waits for pipes while other requests of this connection have some: the
 * socket takes no more than they hold anyhow, and a copy would only cost time.
 * No request has a part of its pipes while it waits for more.
 */
static BfNbdPipe *
pipe_co_take(BfNbdClient *client, uint64_t offset, size_t bytes)
{
    unsigned n = 0;

    for (size_t done = 0; done < bytes; n++) {
        done += room(NBD_PIPE_BYTES, offset + done, bytes - done);
    }
    if (n > NBD_PIPES_REQUEST_MAX) {
        return NULL;
    }
    while (!make_pipes(client, n)) {
        if (client->n_pipes == client->n_free_pipes || client->closing ||
            client->broken) {
            /* The next one finds out for itself; nobody else would tell. */
            bf_co_queue_wake_one(&client->pipe_wait);
            return NULL;
        }
        bf_co_queue_co_wait(&client->pipe_wait);
    }
    return take_pipes(client, n, offset, bytes);
}

void
bf_nbd_pipe_clear(BfNbdClient *client)
{
    while (client->n_free_pipes > 0) {
        BfNbdPipe *pipe = client->free_pipes;

        client->free_pipes = pipe->next;
        client->n_free_pipes--;
        close_pipe(client, pipe);
    }
}

bool
bf_nbd_pipe_co_read(BfNbdTask *task)
{
    BfNbdClient *client = task->client;
    uint64_t offset = task->request.offset;
    BfNbdPipe *pipe = NULL;
    int ret = 0;

    if (client->pipe_skip > 0) {
        client->pipe_skip--;
        return false;
    }
    task->pipes = pipe_co_take(client, offset, task->request.length);
    if (task->pipes == NULL) {
        return false;
    }
    for (pipe = task->pipes; pipe != NULL; pipe = pipe->next) {
        ret = bf_handle_co_read_pipe(client->handle, offset, pipe->bytes,
                                     pipe->write_fd);
        if (ret < 0) {
            break;
        }
        offset += pipe->bytes;
    }
    if (ret == 0) {
        bf_nbd_reply_pipe(task);
        return true;
    }
    if (ret == -EOPNOTSUPP) {
        /* Not this range: it is not in the page cache, or never can be. */
        for (; pipe != NULL; pipe = pipe->next) {
            pipe->bytes = 0;
        }
    } else {
        client->pipe_skip = NBD_PIPE_SKIP;
    }
    /* Whatever the reason, a buffer finds it out, or gets the data. */
    bf_nbd_pipe_release(client, g_steal_pointer(&task->pipes));
    return false;
}

bool
bf_nbd_pipe_suits_write(BfNbdClient *client, const BfNbdRequest *request)
{
    if (request->length < WRITE_MIN || client->write_pipe_max == 0 ||
        client->exp->base.writethrough ||
        bf_handle_limits(client->handle)->keeps_pipes ||
        (request->flags & BF_NBD_REQUEST_FUA) != 0 ||
        ((request->offset | request->length) & (PAGE_BYTES - 1)) != 0) {
        return false;
    }
    if (client->write_pipe_skip > 0) {
        client->write_pipe_skip--;
        return false;
    }
    return true;
}

BfNbdPipe *
bf_nbd_pipe_take(BfNbdClient *client, size_t bytes)
{
    BfNbdPipe *pipe = NULL;

    if (!make_pipes(client, 1) || client->free_pipes->capacity < bytes) {
        return NULL;
    }
    pipe = client->free_pipes;
    client->free_pipes = pipe->next;
    client->n_free_pipes--;
    pipe->next = NULL;
    return pipe;
}

/* Reads what a pipe has; it never has to wait for that. */
static bool
read_pipe(BfNbdPipe *pipe, uint8_t *buf)
{
    while (pipe->bytes > 0) {
        ssize_t n = read(pipe->read_fd, buf, pipe->bytes);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        buf += n;
        pipe->bytes -= (size_t)n;
    }
    return true;
}

uint8_t *
bf_nbd_pipe_unload(BfNbdClient *client, BfNbdPipe *pipe, size_t bytes)
{
    uint8_t *buf = bf_buffer_new(bytes);

    if (buf != NULL && !read_pipe(pipe, buf)) {
        bf_buffer_free(g_steal_pointer(&buf), bytes);
    }
    bf_nbd_pipe_release(client, pipe);
    return buf;
}

/* The payload came in pieces too small for the pipe, which is full: the rest
 * goes into a buffer, behind what the pipe has. */
static bool
co_leave_pipe(BfNbdClient *client, BfNbdPipe *pipe, size_t bytes,
              uint8_t **ret_buf, GError **error)
{
    size_t done = pipe->bytes;
    uint8_t *buf = bf_nbd_pipe_unload(client, pipe, bytes);

    client->write_pipe_skip = NBD_PIPE_SKIP;
    client->window = NBD_INPUT_SMALL_WINDOW;
    *ret_buf = buf;
    return buf != NULL ? bf_nbd_input_co_receive(client, buf + done,
                                                 bytes - done, error)
                       : bf_nbd_input_co_skip(client, bytes - done, error);
}

bool
bf_nbd_pipe_co_fill(BfNbdClient *client, BfNbdPipe **pipe, size_t bytes,
                    uint8_t **ret_buf, GError **error)
{
    *ret_buf = NULL;
    while ((*pipe)->bytes < bytes) {
        ssize_t n = 0;

        bf_nbd_input_co_let_writer_run(client);
        n = bf_channel_co_recv_pipe(client->channel, (*pipe)->write_fd,
                                    bytes - (*pipe)->bytes, error);
        if (n == BF_CHANNEL_PIPE_FULL) {
            return co_leave_pipe(client, g_steal_pointer(pipe), bytes, ret_buf,
                                 error);
        }
        if (n == 0) {
            bf_set_error(error, "the peer left in the middle of a write");
        }
        if (n <= 0) {
            return false;
        }
        bf_nbd_stats_arrived(client);
        (*pipe)->bytes += (size_t)n;
    }
    return true;
}
