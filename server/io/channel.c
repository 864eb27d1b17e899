/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Channels: the helpers that hold for every kind. They only loop over the
 * operations of the channel; whoever changes one must keep the promise that
 * iov[0] is never empty when an operation is called.
 */
#include "channel-private.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "core/coroutine.h"
#include "core/error.h"

ssize_t
bf_channel_co_readv(BfChannel *channel, const struct iovec *iov, int niov,
                    GError **error)
{
    g_assert(niov >= 1 && niov <= IOV_MAX && iov[0].iov_len > 0);
    return channel->ops->co_readv(channel, iov, niov, error);
}

ssize_t
bf_channel_co_read(BfChannel *channel, void *buf, size_t len, GError **error)
{
    const struct iovec iov = {.iov_base = buf, .iov_len = len};

    return bf_channel_co_readv(channel, &iov, 1, error);
}

ssize_t
bf_channel_co_readv_fds(BfChannel *channel, const struct iovec *iov, int niov,
                        int fds[BF_CHANNEL_FDS_MAX], unsigned *ret_nfds,
                        GError **error)
{
    g_assert(channel->features & BF_CHANNEL_FD_PASS);
    g_assert(niov >= 1 && niov <= IOV_MAX && iov[0].iov_len > 0);
    return channel->ops->co_readv_fds(channel, iov, niov, fds, ret_nfds, error);
}

BfReadStatus
bf_channel_co_read_exact(BfChannel *channel, void *buf, size_t len,
                         GError **error)
{
    size_t done = 0;

    while (done < len) {
        ssize_t n =
            bf_channel_co_read(channel, (char *)buf + done, len - done, error);

        if (n < 0) {
            return BF_READ_FAILED;
        }
        if (n == 0 && done == 0) {
            return BF_READ_EOF;
        }
        if (n == 0) {
            bf_set_error(error, "the connection ended inside a message");
            return BF_READ_FAILED;
        }
        done += n;
    }
    return BF_READ_DONE;
}

ssize_t
bf_channel_co_writev(BfChannel *channel, const struct iovec *iov, int niov,
                     GError **error)
{
    g_assert(niov >= 1 && niov <= IOV_MAX && iov[0].iov_len > 0);
    return channel->ops->co_writev(channel, iov, niov, error);
}

/* Drops @n bytes and empty pieces from the front of a vector. */
static void
advance(struct iovec **iov, int *niov, size_t n)
{
    while (*niov > 0 && n >= (*iov)->iov_len) {
        n -= (*iov)->iov_len;
        (*iov)++;
        (*niov)--;
    }
    if (n > 0) {
        g_assert(*niov > 0);
        (*iov)->iov_base = (char *)(*iov)->iov_base + n;
        (*iov)->iov_len -= n;
    }
}

/* What is sent in one turn: as long as the peer takes all at once nothing else
 * suspends the sender, and a MiB of the smallest TLS records takes milliseconds
 * to seal. */
#define TURN_BYTES UINT64_C(1048576)

/* @before: what the channel had sent until then */
static void
co_give_turn(const BfChannel *channel, uint64_t before)
{
    if (channel->sent / TURN_BYTES != before / TURN_BYTES) {
        bf_co_yield();
    }
}

/* Either of the operations that write. */
typedef ssize_t WritevFn(BfChannel *channel, const struct iovec *iov, int niov,
                         GError **error);

static bool
co_writev_all(BfChannel *channel, WritevFn *co_writev, struct iovec *iov,
              int niov, GError **error)
{
    g_assert(niov >= 1 && niov <= IOV_MAX);
    advance(&iov, &niov, 0);
    while (niov > 0) {
        uint64_t before = channel->sent;
        ssize_t n = co_writev(channel, iov, niov, error);

        if (n < 0) {
            return false;
        }
        advance(&iov, &niov, n);
        co_give_turn(channel, before);
    }
    return true;
}

bool
bf_channel_co_writev_all(BfChannel *channel, struct iovec *iov, int niov,
                         GError **error)
{
    return co_writev_all(channel, channel->ops->co_writev, iov, niov, error);
}

bool
bf_channel_co_writev_all_more(BfChannel *channel, struct iovec *iov, int niov,
                              GError **error)
{
    WritevFn *co_writev = channel->ops->co_writev_more != NULL
                              ? channel->ops->co_writev_more
                              : channel->ops->co_writev;

    return co_writev_all(channel, co_writev, iov, niov, error);
}

bool
bf_channel_co_write_all(BfChannel *channel, const void *buf, size_t len,
                        GError **error)
{
    struct iovec iov = {.iov_base = (void *)buf, .iov_len = len};

    return bf_channel_co_writev_all(channel, &iov, 1, error);
}

ssize_t
bf_channel_read_pipe(int pipe_fd, const struct iovec *iov, int niov,
                     GError **error)
{
    ssize_t n;

    do {
        n = readv(pipe_fd, iov, niov);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN) {
        bf_set_errno(error, errno, "cannot read from a pipe");
    } else if (n <= 0) {
        bf_set_error(error, "the pipe holds less than is to be sent");
    }
    return n;
}

bool
bf_channel_co_send_pipe_all(BfChannel *channel, int pipe_fd, size_t bytes,
                            GError **error)
{
    g_assert(channel->features & BF_CHANNEL_SEND_PIPE);
    while (bytes > 0) {
        uint64_t before = channel->sent;
        ssize_t n = channel->ops->co_send_pipe(channel, pipe_fd, bytes, error);

        if (n < 0) {
            return false;
        }
        bytes -= n;
        co_give_turn(channel, before);
    }
    return true;
}

ssize_t
bf_channel_co_recv_pipe(BfChannel *channel, int pipe_fd, size_t bytes,
                        GError **error)
{
    g_assert(channel->features & BF_CHANNEL_RECV_PIPE);
    g_assert(bytes > 0);
    return channel->ops->co_recv_pipe(channel, pipe_fd, bytes, error);
}

void
bf_channel_co_bye(BfChannel *channel)
{
    if (channel->ops->co_bye != NULL) {
        channel->ops->co_bye(channel);
    }
}

void
bf_channel_set_drop_unsent(BfChannel *channel, bool drop)
{
    if (channel->ops->set_drop_unsent != NULL) {
        channel->ops->set_drop_unsent(channel, drop);
    }
}

void
bf_channel_shutdown(BfChannel *channel)
{
    channel->ops->shutdown(channel);
}

void
bf_channel_shutdown_read(BfChannel *channel)
{
    if (channel->ops->shutdown_read != NULL) {
        channel->ops->shutdown_read(channel);
    } else {
        channel->ops->shutdown(channel);
    }
}

void
bf_channel_interrupt_read(BfChannel *channel)
{
    if (channel->ops->interrupt_read != NULL) {
        channel->ops->interrupt_read(channel);
    }
}

bool
bf_channel_start_watch(BfChannel *channel, BfFn *fn, void *arg)
{
    return channel->ops->start_watch != NULL &&
           channel->ops->start_watch(channel, fn, arg);
}

void
bf_channel_free(BfChannel *channel)
{
    if (channel != NULL) {
        channel->ops->free(channel);
    }
}
