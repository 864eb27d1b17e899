/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How the bytes of one range get from the source to the target: as zeroes,
 * through a pipe, or through a buffer.
 *
 * A pipe takes pages of the source's cache to a socket without any copy of
 * ours. Nobody looks at the data then, so a sample of it must show that it has
 * no zeroes to find. Whatever a pipe cannot do, a buffer does, and finds out
 * why; so a pipe never fails.
 */
#include <errno.h>
#include <unistd.h>

#include "copy-private.h"
#include "core/co-io.h"
#include "core/util.h"

/* A run of zeroes inside of data that is worth a request of its own. */
#define ZERO_RUN_MIN (64 * BF_KIB)

/* What is looked at of each such run, before data goes through a pipe. */
#define SAMPLE_BYTES 64

#define PAGE_BYTES 4096
#define PIPES_MAX 128

/* After a pipe was of no use: as many units go through buffers at once. */
#define PIPE_SKIPS 64

struct BfCopyPipe {
    BfCopyPipe *next;
    int fds[2];
};

/* Pipes. */

static BfCopyPipe *
take_pipe(BfCopy *copy, uint64_t bytes)
{
    BfCopyPipe *pipe = copy->pipes;
    int fds[2];
    ssize_t capacity;

    if (pipe != NULL) {
        copy->pipes = pipe->next;
        return pipe;
    }
    if (copy->n_pipes >= PIPES_MAX) {
        return NULL;
    }
    capacity = bf_pipe_open(fds, UNIT_MAX);
    if (capacity < 0) {
        copy->pipe_skips = PIPE_SKIPS;
        return NULL;
    }
    if ((uint64_t)capacity < bytes) {
        /* The user has no more pages for pipes. */
        copy->pipe_skips = PIPE_SKIPS;
        close(fds[0]);
        close(fds[1]);
        return NULL;
    }
    pipe = g_new(BfCopyPipe, 1);
    *pipe = (BfCopyPipe){.fds = {fds[0], fds[1]}};
    copy->n_pipes++;
    return pipe;
}

static void
give_pipe_back(BfCopy *copy, BfCopyPipe *pipe, bool is_empty)
{
    if (is_empty) {
        pipe->next = copy->pipes;
        copy->pipes = pipe;
        return;
    }
    close(pipe->fds[0]);
    close(pipe->fds[1]);
    g_free(pipe);
    copy->n_pipes--;
}

void
bf_copy_close_pipes(BfCopy *copy)
{
    while (copy->pipes != NULL) {
        BfCopyPipe *pipe = copy->pipes;

        copy->pipes = pipe->next;
        give_pipe_back(copy, pipe, false);
    }
}

/* May there be zeroes that a buffer would find? */
static bool
co_has_zeroes(BfCopy *copy, uint64_t offset, uint64_t bytes)
{
    uint8_t sample[SAMPLE_BYTES];

    for (uint64_t done = 0; done < bytes; done += ZERO_RUN_MIN) {
        uint64_t n = MIN(bytes - done, SAMPLE_BYTES);
        BfIoVec vec;

        bf_iovec_init_buf(&vec, sample, n);
        if (bf_handle_co_read(copy->config.source, offset + done, &vec, 0) <
                0 ||
            bf_mem_is_zero(sample, n)) {
            return true;
        }
    }
    return false;
}

/* A pipe has the pages of the source's cache, not what was in them then. */
static bool
may_use_pipe(const BfCopy *copy)
{
    return (copy->config.flags & BF_COPY_POINT_IN_TIME) == 0 ||
           !bf_handle_limits(copy->config.target)->keeps_pipes;
}

/* Returns true if the range was copied. @ret_full is set to a pipe that has its
 * data, if a buffer should look at them. */
static bool
co_move_by_pipe(BfCopy *copy, uint64_t offset, uint64_t bytes,
                BfCopyPipe **ret_full)
{
    BfCopyPipe *pipe;
    int ret;

    if (!may_use_pipe(copy)) {
        return false;
    }
    if (copy->pipe_skips > 0) {
        copy->pipe_skips--;
        return false;
    }
    if (offset % PAGE_BYTES != 0 || (pipe = take_pipe(copy, bytes)) == NULL) {
        return false;
    }
    ret = bf_handle_co_read_pipe(copy->config.source, offset, bytes,
                                 pipe->fds[1]);
    if (ret < 0) {
        copy->pipe_skips = PIPE_SKIPS;
        give_pipe_back(copy, pipe, ret == -EOPNOTSUPP);
        return false;
    }
    if (co_has_zeroes(copy, offset, bytes)) {
        *ret_full = pipe;
        return false;
    }
    bf_copy_note_written(copy, offset, bytes);
    ret = bf_handle_co_write_pipe(copy->config.target, offset, bytes,
                                  pipe->fds[0]);
    if (ret < 0) {
        copy->pipe_skips = PIPE_SKIPS;
    }
    give_pipe_back(copy, pipe, ret == 0);
    return ret == 0;
}

/* Buffers. */

/* More than ZEROES_MAX only if the target is quick at it. */
static int
co_zero_target(BfCopy *copy, uint64_t offset, uint64_t bytes)
{
    BfHandle *target = copy->config.target;
    unsigned flags =
        (copy->config.flags & BF_COPY_UNMAP) != 0 ? BF_IO_MAY_UNMAP : 0;
    uint64_t end = offset + bytes;
    int ret = -ENOTSUP;

    if (bytes > ZEROES_MAX) {
        ret = bf_handle_co_write_zeroes(target, offset, bytes,
                                        flags | BF_IO_NO_FALLBACK);
    }
    if (ret != -ENOTSUP) {
        return ret;
    }
    for (ret = 0; ret == 0 && offset < end; offset += ZEROES_MAX) {
        ret = bf_handle_co_write_zeroes(target, offset,
                                        MIN(end - offset, ZEROES_MAX), flags);
    }
    return ret;
}

int
bf_copy_co_make_zeroes(BfCopy *copy, uint64_t offset, uint64_t bytes)
{
    return bf_copy_co_is_zero_there(copy, offset, bytes)
               ? 0
               : co_zero_target(copy, offset, bytes);
}

static int
co_write_data(BfCopy *copy, char *buf, uint64_t offset, uint64_t bytes)
{
    BfIoVec vec;

    bf_copy_note_written(copy, offset, bytes);
    bf_iovec_init_buf(&vec, buf, bytes);
    return bf_handle_co_write(copy->config.target, offset, &vec, 0);
}

/* The bytes at the start of @buf that are all zero, or all not: by pieces. */
static uint64_t
run_length(const char *buf, uint64_t bytes, bool *ret_zero)
{
    uint64_t n = MIN(bytes, ZERO_RUN_MIN);
    bool zero = bf_mem_is_zero(buf, n);

    while (n < bytes) {
        uint64_t next = MIN(bytes - n, ZERO_RUN_MIN);

        if (bf_mem_is_zero(buf + n, next) != zero) {
            break;
        }
        n += next;
    }
    *ret_zero = zero;
    return n;
}

static int
co_write_runs(BfCopy *copy, char *buf, uint64_t offset, uint64_t bytes)
{
    uint64_t done = 0;
    int ret = 0;

    while (ret == 0 && done < bytes) {
        bool zero;
        uint64_t n = run_length(buf + done, bytes - done, &zero);

        ret = zero ? bf_copy_co_make_zeroes(copy, offset + done, n)
                   : co_write_data(copy, buf + done, offset + done, n);
        done += n;
    }
    return ret;
}

/* What is in a pipe need not be read from the source once more. Gives the pipe
 * back. */
static bool
empty_pipe(BfCopy *copy, BfCopyPipe *pipe, char *buf, uint64_t bytes)
{
    uint64_t done = 0;
    ssize_t n = 1;

    while (buf != NULL && n > 0 && done < bytes) {
        n = read(pipe->fds[0], buf + done, bytes - done);
        done += n > 0 ? (uint64_t)n : 0;
    }
    give_pipe_back(copy, pipe, done == bytes);
    return done == bytes;
}

/* @full: (nullable): a pipe with the data; taken */
static int
co_move_by_buffer(BfCopy *copy, BfCopyPipe *full, uint64_t offset,
                  uint64_t bytes, bool *ret_is_read)
{
    char *buf = bf_buffer_new(bytes);
    bool is_here = full != NULL && empty_pipe(copy, full, buf, bytes);
    BfIoVec vec;
    int ret = 0;

    *ret_is_read = true;
    if (buf == NULL) {
        return -ENOMEM;
    }
    if (!is_here) {
        bf_iovec_init_buf(&vec, buf, bytes);
        ret = bf_handle_co_read(copy->config.source, offset, &vec, 0);
    }
    if (ret == 0) {
        *ret_is_read = false;
        ret = co_write_runs(copy, buf, offset, bytes);
    }
    bf_buffer_free(buf, bytes);
    return ret;
}

int
bf_copy_co_move(BfCopy *copy, uint64_t offset, uint64_t bytes,
                bool *ret_is_read)
{
    const uint64_t end = offset + bytes;
    int ret = 0;

    while (ret == 0 && offset < end) {
        uint64_t n = MIN(end - offset, copy->unit);
        BfCopyPipe *full = NULL;

        if (!co_move_by_pipe(copy, offset, n, &full)) {
            ret = co_move_by_buffer(copy, full, offset, n, ret_is_read);
        }
        offset += n;
    }
    return ret;
}
