/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory channel: takes bytes from one array and adds to another, for tests and
 * fuzzers. A small @max_chunk gives the short transfers that real sockets give.
 */
#include "io/channel-memory.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"

/* What was read is removed when there is so much of it: not byte by byte, which
 * moves all the rest each time. */
#define READ_BYTES_MAX 4096

typedef struct BfChannelMemory {
    BfChannel base;
    GByteArray *input;  /* a reference */
    size_t n_read;      /* bytes at the start of @input that were read */
    GByteArray *output; /* a reference */
    size_t max_chunk;   /* most bytes that one call moves, at least 1 */
    bool is_shut;
} BfChannelMemory;

static ssize_t
memory_co_readv(BfChannel *channel, const struct iovec *iov, int niov,
                GError **error)
{
    BfChannelMemory *self = (BfChannelMemory *)channel;
    size_t left = self->input->len - self->n_read;
    size_t n = MIN(MIN(left, self->max_chunk), iov->iov_len);

    if (self->is_shut) {
        bf_set_errno(error, ESHUTDOWN, "cannot read");
        return -1;
    }
    if (n > 0) {
        memcpy(iov->iov_base, self->input->data + self->n_read, n);
        self->n_read += n;
    }
    if (n == left || self->n_read >= READ_BYTES_MAX) {
        g_byte_array_remove_range(self->input, 0, self->n_read);
        self->n_read = 0;
    }
    return n; /* 0 is the end of the stream */
}

static ssize_t
memory_co_writev(BfChannel *channel, const struct iovec *iov, int niov,
                 GError **error)
{
    BfChannelMemory *self = (BfChannelMemory *)channel;
    size_t n = MIN(iov->iov_len, self->max_chunk);

    if (self->is_shut) {
        bf_set_errno(error, ESHUTDOWN, "cannot write");
        return -1;
    }
    g_byte_array_append(self->output, iov->iov_base, n);
    return n;
}

static void
memory_shutdown(BfChannel *channel)
{
    ((BfChannelMemory *)channel)->is_shut = true;
}

static void
memory_free(BfChannel *channel)
{
    BfChannelMemory *self = (BfChannelMemory *)channel;

    g_byte_array_unref(self->input);
    g_byte_array_unref(self->output);
    g_free(self);
}

static const BfChannelOps memory_ops = {
    .kind = "memory",
    .co_readv = memory_co_readv,
    .co_writev = memory_co_writev,
    .shutdown = memory_shutdown,
    .free = memory_free,
};

BfChannel *
bf_channel_memory_new(GByteArray *input, GByteArray *output, size_t max_chunk)
{
    BfChannelMemory *self = g_new0(BfChannelMemory, 1);

    self->base.ops = &memory_ops;
    self->input = g_byte_array_ref(input);
    self->output = g_byte_array_ref(output);
    self->max_chunk = max_chunk;
    return &self->base;
}
