/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Socket channel: TCP and UNIX stream sockets through the ring of the current
 * loop; it keeps no state but the descriptor, what it was told and what is
 * pending, so it may change its loop.
 *
 * Descriptors that a peer sends while nobody asks for them are closed by the
 * kernel, because a plain receive offers no room for them.
 */
#include "io/channel-socket.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "channel-private.h"
#include "core/co-io.h"
#include "core/error.h"
#include "core/iovec.h"
#include "core/util.h"
#include "io/address.h"

/* What the system lets wait in a UNIX socket. By default it is little more than
 * 200 KiB, less than the peer takes while a sender is woken: then each of both
 * waits for the other by turns. */
#define BULK_BYTES ((int)(256 * BF_KIB))
/* When so much was sent, more will be. */
#define BULK_AFTER (4 * BF_KIB)

/* What of a pipe is copied at once, so that it stays in the processor's cache;
 * and what waits for a peer that is behind. */
#define COPY_BYTES ((size_t)(256 * BF_KIB))

typedef struct BfChannelSocket {
    BfChannel base;
    int fd; /* owned */
    BfInterrupt reading;
    BfWatch watch;
    BfFn *watch_fn; /* with its argument: who waits for @watch */
    void *watch_arg;
    bool wants_bulk; /* until it has room for that */
    bool is_ready;   /* @watch has ended, and nothing was read since */
    bool spares_peer;
} BfChannelSocket;

/* What has been seen to be there is taken at once. Returns -EAGAIN if there is
 * nothing, else what a receive returns. */
static ssize_t
read_ready(BfChannelSocket *self, const struct iovec *iov)
{
    ssize_t n = 0;

    if (!self->is_ready) {
        return -EAGAIN;
    }
    self->is_ready = false;
    do {
        n = recv(self->fd, iov->iov_base, iov->iov_len, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static ssize_t
co_read(BfChannelSocket *self, const struct iovec *iov)
{
    ssize_t n = read_ready(self, iov);

    if (n != -EAGAIN) {
        return n;
    }
    return self->base.reads_soon ? bf_co_recv_soon(self->fd, iov->iov_base,
                                                   iov->iov_len, &self->reading)
                                 : bf_co_recv(self->fd, iov->iov_base,
                                              iov->iov_len, 0, &self->reading);
}

static ssize_t
socket_co_readv(BfChannel *channel, const struct iovec *iov, int niov,
                GError **error)
{
    BfChannelSocket *self = (BfChannelSocket *)channel;
    struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = niov};
    ssize_t n;

    if (niov == 1) {
        n = co_read(self, iov);
        if (n == -ECANCELED) {
            return BF_CHANNEL_INTERRUPTED;
        }
    } else {
        n = bf_co_recvmsg(self->fd, &msg, 0);
    }
    if (n < 0) {
        bf_set_errno(error, -n, "cannot read from the socket");
        return -1;
    }
    return n;
}

/* Takes the descriptors out of a received message. */
static unsigned
collect_fds(struct msghdr *msg, int fds[BF_CHANNEL_FDS_MAX])
{
    unsigned count = 0;

    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg != NULL;
         cmsg = CMSG_NXTHDR(msg, cmsg)) {
        size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        g_assert(n <= BF_CHANNEL_FDS_MAX - count); /* the buffer's size */
        memcpy(fds + count, CMSG_DATA(cmsg), n * sizeof(int));
        count += n;
    }
    return count;
}

static ssize_t
socket_co_readv_fds(BfChannel *channel, const struct iovec *iov, int niov,
                    int fds[BF_CHANNEL_FDS_MAX], unsigned *ret_nfds,
                    GError **error)
{
    BfChannelSocket *self = (BfChannelSocket *)channel;
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * BF_CHANNEL_FDS_MAX)];
    } control;
    struct msghdr msg = {
        .msg_iov = (struct iovec *)iov,
        .msg_iovlen = niov,
        .msg_control = &control,
        .msg_controllen = sizeof(control.space),
    };
    ssize_t n;

    memset(&control, 0, sizeof(control));
    n = bf_co_recvmsg(self->fd, &msg, MSG_CMSG_CLOEXEC);
    if (n < 0) {
        bf_set_errno(error, -n, "cannot read from the socket");
        return -1;
    }
    *ret_nfds = collect_fds(&msg, fds);
    return n;
}

/* Before something is sent. */
static void
make_room(BfChannelSocket *self)
{
    const int bytes = BULK_BYTES;

    if (self->wants_bulk && self->base.sent >= BULK_AFTER) {
        self->wants_bulk = false;
        /* The system has a limit, up to which it goes. */
        (void)setsockopt(self->fd, SOL_SOCKET, SO_SNDBUF, &bytes,
                         sizeof(bytes));
    }
}

static ssize_t
co_send(BfChannel *channel, const struct iovec *iov, int niov, int flags,
        GError **error)
{
    BfChannelSocket *self = (BfChannelSocket *)channel;
    const struct msghdr msg = {
        .msg_iov = (struct iovec *)iov,
        .msg_iovlen = niov,
    };
    ssize_t n;

    make_room(self);
    n = bf_co_sendmsg(self->fd, &msg, flags);
    if (n < 0) {
        bf_set_errno(error, -n, "cannot write to the socket");
        return -1;
    }
    channel->sent += n;
    return n;
}

static ssize_t
socket_co_writev(BfChannel *channel, const struct iovec *iov, int niov,
                 GError **error)
{
    return co_send(channel, iov, niov, 0, error);
}

static ssize_t
socket_co_writev_more(BfChannel *channel, const struct iovec *iov, int niov,
                      GError **error)
{
    return co_send(channel, iov, niov, MSG_MORE, error);
}

/* EAGAIN is also what an empty pipe gives; waiting for room would spin. */
static bool
pipe_is_empty(int pipe_fd)
{
    int available = 0;

    return ioctl(pipe_fd, FIONREAD, &available) == 0 && available == 0;
}

/* The peer's system has taken what it has room for, and more waits here. */
static bool
peer_is_behind(const BfChannelSocket *self)
{
    int waiting = 0;

    return ioctl(self->fd, SIOCOUTQ, &waiting) == 0 &&
           waiting >= (int)COPY_BYTES;
}

/* Takes @buf, of COPY_BYTES. */
static ssize_t
co_send_copy(BfChannel *channel, int pipe_fd, size_t bytes, uint8_t *buf,
             GError **error)
{
    const struct iovec iov = {buf, MIN(bytes, COPY_BYTES)};
    ssize_t n = bf_channel_read_pipe(pipe_fd, &iov, 1, error);

    if (n > 0 && !bf_channel_co_write_all(channel, buf, n, error)) {
        n = -1;
    }
    bf_buffer_free(buf, COPY_BYTES);
    return n > 0 ? n : -1;
}

/*
 * A peer that is gone raises SIGPIPE here, which splice cannot suppress: the
 * program ignores that signal.
 *
 * SPLICE_F_MORE is not used: a splice of several pages already tells the
 * protocol so for all but the last, and on the last it would hold the end of
 * a reply back as if TCP_NODELAY were off.
 */
static ssize_t
socket_co_send_pipe(BfChannel *channel, int pipe_fd, size_t bytes,
                    GError **error)
{
    BfChannelSocket *self = (BfChannelSocket *)channel;

    make_room(self);
    if (self->spares_peer) {
        uint8_t *buf = peer_is_behind(self) ? bf_buffer_new(COPY_BYTES) : NULL;

        if (buf != NULL) {
            return co_send_copy(channel, pipe_fd, bytes, buf, error);
        }
        bytes = MIN(bytes, COPY_BYTES); /* the next call looks again */
    }
    for (;;) {
        ssize_t n = splice(pipe_fd, NULL, self->fd, NULL, bytes,
                           SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
        int ret;

        if (n > 0) {
            channel->sent += n;
            return n;
        }
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && errno != EAGAIN) {
            bf_set_errno(error, errno, "cannot write to the socket");
            return -1;
        }
        if (n == 0 || pipe_is_empty(pipe_fd)) {
            bf_set_error(error, "the pipe holds less than is to be sent");
            return -1;
        }
        ret = bf_co_poll(self->fd, POLLOUT, BF_FOREVER, NULL);
        if (ret < 0) {
            bf_set_errno(error, -ret, "cannot write to the socket");
            return -1;
        }
    }
}

/* EAGAIN is also what a full pipe gives: then it comes again although there is
 * something to receive. */
static ssize_t
socket_co_recv_pipe(BfChannel *channel, int pipe_fd, size_t bytes,
                    GError **error)
{
    BfChannelSocket *self = (BfChannelSocket *)channel;
    bool is_readable = false;

    for (;;) {
        ssize_t n = splice(self->fd, NULL, pipe_fd, NULL, bytes,
                           SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
        int ret;

        if (n >= 0) {
            return n;
        }
        if (errno == EINTR) {
            continue;
        }
        if (errno != EAGAIN) {
            bf_set_errno(error, errno, "cannot read from the socket");
            return -1;
        }
        if (is_readable) {
            return BF_CHANNEL_PIPE_FULL;
        }
        ret = bf_co_await_bytes_soon(self->fd);
        if (ret < 0) {
            bf_set_errno(error, -ret, "cannot read from the socket");
            return -1;
        }
        is_readable = true;
    }
}

static void
socket_shutdown(BfChannel *channel)
{
    /* It can only fail because the peer is gone already. */
    (void)shutdown(((BfChannelSocket *)channel)->fd, SHUT_RDWR);
}

static void
socket_shutdown_read(BfChannel *channel)
{
    (void)shutdown(((BfChannelSocket *)channel)->fd, SHUT_RD);
}

static void
socket_interrupt_read(BfChannel *channel)
{
    bf_interrupt_fire(&((BfChannelSocket *)channel)->reading);
}

static void
socket_watched(void *arg)
{
    BfChannelSocket *self = arg;

    self->is_ready = true;
    self->watch_fn(self->watch_arg);
}

static bool
socket_start_watch(BfChannel *channel, BfFn *fn, void *arg)
{
    BfChannelSocket *self = (BfChannelSocket *)channel;

    self->watch_fn = fn;
    self->watch_arg = arg;
    bf_watch_start(&self->watch, self->fd, POLLIN, socket_watched, self);
    return true;
}

/* A linger time of 0 makes TCP drop its queue and send a reset, even if the
 * connection was shut down before. */
static void
socket_set_drop_unsent(BfChannel *channel, bool drop)
{
    const struct linger linger = {.l_onoff = drop};

    /* It can only fail because the peer is gone already. */
    (void)setsockopt(((BfChannelSocket *)channel)->fd, SOL_SOCKET, SO_LINGER,
                     &linger, sizeof(linger));
}

static void
socket_free(BfChannel *channel)
{
    close(((BfChannelSocket *)channel)->fd);
    g_free(channel);
}

static const BfChannelOps socket_ops = {
    .kind = "socket",
    .co_readv = socket_co_readv,
    .co_writev = socket_co_writev,
    .shutdown = socket_shutdown,
    .shutdown_read = socket_shutdown_read,
    .interrupt_read = socket_interrupt_read,
    .start_watch = socket_start_watch,
    .set_drop_unsent = socket_set_drop_unsent,
    .free = socket_free,
    .co_readv_fds = socket_co_readv_fds,
    .co_send_pipe = socket_co_send_pipe,
    .co_recv_pipe = socket_co_recv_pipe,
    .co_writev_more = socket_co_writev_more,
};

BfChannel *
bf_channel_socket_new(int fd)
{
    return bf_channel_socket_new_known(fd, AF_UNSPEC);
}

BfChannel *
bf_channel_socket_new_known(int fd, int domain)
{
    BfChannelSocket *self = g_new0(BfChannelSocket, 1);

    self->base.ops = &socket_ops;
    self->base.features = BF_CHANNEL_SEND_PIPE | BF_CHANNEL_RECV_PIPE;
    if (domain == AF_UNSPEC) {
        domain = bf_socket_domain(fd);
    }
    if (domain == AF_UNIX) {
        self->base.features |= BF_CHANNEL_FD_PASS | BF_CHANNEL_LOCAL;
    }
    self->fd = fd;
    return &self->base;
}

void
bf_channel_socket_set_bulk(BfChannel *channel)
{
    BfChannelSocket *self = (BfChannelSocket *)channel;

    self->wants_bulk = (channel->features & BF_CHANNEL_LOCAL) != 0;
}

void
bf_channel_socket_spare_peer(BfChannel *channel)
{
    BfChannelSocket *self = (BfChannelSocket *)channel;

    self->spares_peer = bf_socket_is_loopback(self->fd);
}
