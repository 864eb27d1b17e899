/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Standard input and output as a channel.
 *
 * They may be pipes, files or a terminal that other programs use too, so what
 * is changed (non-blocking mode, interrupt keys) is put back at the end, and
 * the descriptors are never closed.
 */
#include "qmp/chardev-private.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/uio.h>
#include <termios.h>
#include <unistd.h>

#include "core/co-io.h"
#include "core/error.h"

typedef struct BfChannelStdio {
    BfChannel base;
    BfCancel cancel;    /* fired by shutdown */
    int flags[2];       /* of descriptors 0 and 1 before us */
    bool has_tty;       /* @tty was changed and is to be put back */
    struct termios tty; /* of descriptor 0 before us */
} BfChannelStdio;

/* Moves bytes; waits while the descriptor is not ready. */
static ssize_t
co_transfer(BfChannelStdio *self, int fd, const struct iovec *iov, int niov,
            GError **error)
{
    const unsigned events = fd == STDIN_FILENO ? POLLIN : POLLOUT;

    for (;;) {
        ssize_t n = -1;
        int ret = 0;

        if (self->cancel.fired) {
            bf_set_errno(error, ESHUTDOWN, "stdio");
            return -1;
        }
        n = fd == STDIN_FILENO ? readv(fd, iov, niov) : writev(fd, iov, niov);
        if (n >= 0) {
            return n;
        }
        if (errno == EINTR) {
            continue;
        }
        if (errno != EAGAIN) {
            bf_set_errno(error, errno, "stdio");
            return -1;
        }
        ret = bf_co_poll(fd, events, BF_FOREVER, &self->cancel);
        if (ret < 0 && ret != -ECANCELED) {
            bf_set_errno(error, -ret, "stdio");
            return -1;
        }
    }
}

static ssize_t
stdio_co_readv(BfChannel *channel, const struct iovec *iov, int niov,
               GError **error)
{
    return co_transfer((BfChannelStdio *)channel, STDIN_FILENO, iov, niov,
                       error);
}

static ssize_t
stdio_co_writev(BfChannel *channel, const struct iovec *iov, int niov,
                GError **error)
{
    return co_transfer((BfChannelStdio *)channel, STDOUT_FILENO, iov, niov,
                       error);
}

static void
stdio_shutdown(BfChannel *channel)
{
    bf_cancel_fire(&((BfChannelStdio *)channel)->cancel);
}

static void
stdio_free(BfChannel *channel)
{
    BfChannelStdio *self = (BfChannelStdio *)channel;

    if (self->has_tty) {
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &self->tty);
    }
    for (int fd = 0; fd < 2; fd++) {
        (void)fcntl(fd, F_SETFL, self->flags[fd]);
    }
    g_free(self);
}

static const BfChannelOps stdio_ops = {
    .kind = "stdio",
    .co_readv = stdio_co_readv,
    .co_writev = stdio_co_writev,
    .shutdown = stdio_shutdown,
    .free = stdio_free,
};

static void
disable_interrupt_keys(BfChannelStdio *self)
{
    struct termios tty;

    if (tcgetattr(STDIN_FILENO, &self->tty) < 0) {
        return; /* not a terminal */
    }
    tty = self->tty;
    tty.c_lflag &= ~(tcflag_t)ISIG;
    self->has_tty = tcsetattr(STDIN_FILENO, TCSANOW, &tty) == 0;
}

BfChannel *
bf_channel_stdio_new(bool signal, GError **error)
{
    BfChannelStdio *self = g_new0(BfChannelStdio, 1);

    self->base.ops = &stdio_ops;
    for (int fd = 0; fd < 2; fd++) {
        self->flags[fd] = fcntl(fd, F_GETFL);
        if (self->flags[fd] < 0) {
            bf_set_errno(error, errno, "stdio: descriptor %d", fd);
            g_free(self);
            return NULL;
        }
    }
    for (int fd = 0; fd < 2; fd++) {
        (void)fcntl(fd, F_SETFL, self->flags[fd] | O_NONBLOCK);
    }
    if (!signal) {
        disable_interrupt_keys(self);
    }
    return &self->base;
}
