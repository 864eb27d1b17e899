/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Channels: reliable, ordered byte streams (socket, TLS, memory).
 *
 * A channel is used on one loop at a time; it may change its loop while no
 * call is pending. One coroutine may read while another writes; two readers or
 * two writers are a bug. bf_channel_shutdown() is the way to make pending
 * calls return, and may be called from any thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <glib.h>

#include "core/coroutine.h"

typedef struct BfChannel BfChannel;

/* Most descriptors in one message, in either direction. */
#define BF_CHANNEL_FDS_MAX 16

/* Result of bf_channel_co_recv_pipe(): there are bytes that the pipe has no
 * room for. */
#define BF_CHANNEL_PIPE_FULL (-2)

/* Result of a read that bf_channel_interrupt_read() has ended; there is no
 * error. */
#define BF_CHANNEL_INTERRUPTED (-3)

/**
 * BfChannelFeatures: what a channel can do beyond its required operations
 * @BF_CHANNEL_FD_PASS: descriptors travel with bytes (UNIX sockets)
 * @BF_CHANNEL_SEND_PIPE: bytes of a pipe can be sent, with a copy less than
 *     others
 * @BF_CHANNEL_LOCAL: the peer is on this host (UNIX sockets)
 * @BF_CHANNEL_SECURE: what is sent is encrypted
 * @BF_CHANNEL_RECV_PIPE: bytes can be received into a pipe without a copy
 */
typedef enum BfChannelFeatures {
    BF_CHANNEL_FD_PASS = 1 << 0,
    BF_CHANNEL_SEND_PIPE = 1 << 1,
    BF_CHANNEL_LOCAL = 1 << 2,
    BF_CHANNEL_SECURE = 1 << 3,
    BF_CHANNEL_RECV_PIPE = 1 << 4,
} BfChannelFeatures;

/**
 * BfChannelOps: the operations that one kind of channel provides
 * @kind: name used in logs and traces, for example "tls"
 * @co_readv: reads 1 byte or more; returns 0 at the end of the stream
 * @co_writev: writes 1 byte or more, perhaps fewer than asked
 * @shutdown: makes pending and later calls fail; any thread; must not suspend
 * @free: releases the channel; nothing is pending any more
 * @co_readv_fds: (nullable): like @co_readv, and takes the descriptors that
 *     came with the bytes; for %BF_CHANNEL_FD_PASS
 * @co_send_pipe: (nullable): moves 1..@bytes bytes from a pipe to the peer; for
 *     %BF_CHANNEL_SEND_PIPE
 * @co_recv_pipe: (nullable): as bf_channel_co_recv_pipe(); for
 *     %BF_CHANNEL_RECV_PIPE
 * @co_writev_more: (nullable): like @co_writev, with the hint that more follows
 *     at once
 * @co_bye: (nullable): tells the peer that no more will be written (TLS
 *     close_notify); best effort
 * @shutdown_read: (nullable): as bf_channel_shutdown_read(); must not suspend
 * @interrupt_read: (nullable): as bf_channel_interrupt_read()
 * @start_watch: (nullable): as bf_channel_start_watch()
 * @set_drop_unsent: (nullable): as bf_channel_set_drop_unsent()
 *
 * The callers see to it that iov[0] is not empty.
 */
typedef struct BfChannelOps {
    const char *kind;
    ssize_t (*co_readv)(BfChannel *channel, const struct iovec *iov, int niov,
                        GError **error);
    ssize_t (*co_writev)(BfChannel *channel, const struct iovec *iov, int niov,
                         GError **error);
    void (*shutdown)(BfChannel *channel);
    void (*free)(BfChannel *channel);
    ssize_t (*co_readv_fds)(BfChannel *channel, const struct iovec *iov,
                            int niov, int fds[BF_CHANNEL_FDS_MAX],
                            unsigned *ret_nfds, GError **error);
    ssize_t (*co_send_pipe)(BfChannel *channel, int pipe_fd, size_t bytes,
                            GError **error);
    ssize_t (*co_recv_pipe)(BfChannel *channel, int pipe_fd, size_t bytes,
                            GError **error);
    ssize_t (*co_writev_more)(BfChannel *channel, const struct iovec *iov,
                              int niov, GError **error);
    void (*co_bye)(BfChannel *channel);
    void (*shutdown_read)(BfChannel *channel);
    void (*interrupt_read)(BfChannel *channel);
    bool (*start_watch)(BfChannel *channel, BfFn *fn, void *arg);
    void (*set_drop_unsent)(BfChannel *channel, bool drop);
} BfChannelOps;

/**
 * BfChannel: the base of every channel; the first member of its struct
 * @ops: its operations
 * @features: BfChannelFeatures bits
 * @sent: bytes that the system has taken until now, over TLS those of records;
 *     grows as long as the peer takes them
 * @reads_soon: whoever reads sets it before: the peer is likely to send
 *     something within microseconds
 */
struct BfChannel {
    const BfChannelOps *ops;
    unsigned features;
    uint64_t sent;
    bool reads_soon;
};

/**
 * BfReadStatus: how an exact read ended
 * @BF_READ_DONE: all bytes are there
 * @BF_READ_EOF: the stream ended before the first byte
 * @BF_READ_FAILED: an error, or the stream ended inside
 */
typedef enum BfReadStatus {
    BF_READ_DONE,
    BF_READ_EOF,
    BF_READ_FAILED,
} BfReadStatus;

/**
 * bf_channel_co_readv:
 * @channel: the channel
 * @iov: where to; iov[0] is not empty
 * @niov: 1..IOV_MAX
 * @error: set when the result is negative
 *
 * Waits for at least one byte.
 *
 * Returns: bytes read, 0 at the end of the stream, or -1
 */
ssize_t bf_channel_co_readv(BfChannel *channel, const struct iovec *iov,
                            int niov, GError **error);

/**
 * bf_channel_co_read:
 * @channel: the channel
 * @buf: (out caller-allocates): room for @len bytes
 * @len: at least 1
 * @error: set when the result is -1
 *
 * Returns: bytes read, 0 at the end of the stream, %BF_CHANNEL_INTERRUPTED,
 *     or -1
 */
ssize_t bf_channel_co_read(BfChannel *channel, void *buf, size_t len,
                           GError **error);

/**
 * bf_channel_co_readv_fds:
 * @channel: a channel with %BF_CHANNEL_FD_PASS
 * @iov: where to; iov[0] is not empty
 * @niov: 1..IOV_MAX
 * @fds: (out caller-allocates): (transfer full) descriptors, close-on-exec
 * @ret_nfds: (out): how many came
 * @error: set when the result is negative
 *
 * Returns: bytes read, 0 at the end of the stream, or -1
 */
ssize_t bf_channel_co_readv_fds(BfChannel *channel, const struct iovec *iov,
                                int niov, int fds[BF_CHANNEL_FDS_MAX],
                                unsigned *ret_nfds, GError **error);

/**
 * bf_channel_co_read_exact:
 * @channel: the channel to read from
 * @buf: (out caller-allocates): room for @len bytes
 * @len: number of bytes wanted, at least 1
 * @error: set when the result is %BF_READ_FAILED, untouched otherwise
 *
 * Fills @buf completely, suspending the caller as often as needed. A stream
 * that ends between two calls is a normal end; one that ends inside a call is
 * a failure, because the peer broke off in the middle of a message.
 *
 * Returns: %BF_READ_DONE, %BF_READ_EOF (nothing was read) or %BF_READ_FAILED
 */
BfReadStatus bf_channel_co_read_exact(BfChannel *channel, void *buf, size_t len,
                                      GError **error);

/**
 * bf_channel_co_writev:
 * @channel: the channel
 * @iov: what to write; iov[0] is not empty
 * @niov: 1..IOV_MAX
 * @error: set when the result is negative
 *
 * Returns: bytes written, at least 1 and perhaps fewer than asked, or -1
 */
ssize_t bf_channel_co_writev(BfChannel *channel, const struct iovec *iov,
                             int niov, GError **error);

/**
 * bf_channel_co_writev_all:
 * @channel: the channel
 * @iov: (inout): what to write; changed on the way
 * @niov: 1..IOV_MAX; empty pieces are allowed
 * @error: set on failure
 *
 * Returns: false if not everything could be written
 */
bool bf_channel_co_writev_all(BfChannel *channel, struct iovec *iov, int niov,
                              GError **error);

/**
 * bf_channel_co_writev_all_more:
 * @channel: the channel
 * @iov: (inout): what to write; changed on the way
 * @niov: 1..IOV_MAX; empty pieces are allowed
 * @error: set on failure
 *
 * Like bf_channel_co_writev_all(), with the hint that more is written at once,
 * so that both may leave together. The caller must write more.
 *
 * Returns: false if not everything could be written
 */
bool bf_channel_co_writev_all_more(BfChannel *channel, struct iovec *iov,
                                   int niov, GError **error);

/**
 * bf_channel_co_write_all:
 * @channel: the channel
 * @buf: what to write
 * @len: its length, bytes; 0 does nothing
 * @error: set on failure
 *
 * Returns: false if not everything could be written
 */
bool bf_channel_co_write_all(BfChannel *channel, const void *buf, size_t len,
                             GError **error);

/**
 * bf_channel_co_send_pipe_all:
 * @channel: a channel with %BF_CHANNEL_SEND_PIPE
 * @pipe_fd: read end of a pipe that holds at least @bytes
 * @bytes: how many to send
 * @error: set on failure
 *
 * The program must ignore SIGPIPE, which splice cannot suppress.
 *
 * Returns: false if not everything could be sent
 */
bool bf_channel_co_send_pipe_all(BfChannel *channel, int pipe_fd, size_t bytes,
                                 GError **error);

/**
 * bf_channel_co_recv_pipe:
 * @channel: a channel with %BF_CHANNEL_RECV_PIPE
 * @pipe_fd: write end of a pipe that nobody else writes to
 * @bytes: how many to receive at most; at least 1
 * @error: set when the result is -1
 *
 * Waits for at least one byte. How many fit into a pipe depends on the pieces
 * in which they came, not only on its size.
 *
 * Returns: bytes received, 0 at the end of the stream, %BF_CHANNEL_PIPE_FULL,
 *     or -1
 */
ssize_t bf_channel_co_recv_pipe(BfChannel *channel, int pipe_fd, size_t bytes,
                                GError **error);

/**
 * bf_channel_co_bye:
 * @channel: the channel
 *
 * Tells the peer that nothing more will be written, where the kind of channel
 * can. Best effort: errors are ignored.
 */
void bf_channel_co_bye(BfChannel *channel);

/**
 * bf_channel_set_drop_unsent:
 * @channel: the channel; on its loop
 * @drop: false, as at first: what was written still goes to the peer after
 *     bf_channel_free()
 *
 * Says what becomes of bytes that were written and that the peer's system has
 * not acknowledged when the channel is freed, or when the program ends. With
 * @drop the system forgets them and resets the connection. What the peer's
 * system has by then, the peer can still read. A kind that cannot do so, as
 * UNIX sockets, ignores it: what was written there is with the peer already.
 */
void bf_channel_set_drop_unsent(BfChannel *channel, bool drop);

/**
 * bf_channel_shutdown:
 * @channel: the channel; any thread
 *
 * Makes pending and later calls fail or end, in both directions.
 */
void bf_channel_shutdown(BfChannel *channel);

/**
 * bf_channel_shutdown_read:
 * @channel: the channel; on its loop
 *
 * Lets reading come to an end, pending calls included: what has arrived by now
 * can still be read, and perhaps what a hostile peer goes on to send. Writing
 * works as before. A kind that knows only both ends ends both.
 */
void bf_channel_shutdown_read(BfChannel *channel);

/**
 * bf_channel_interrupt_read:
 * @channel: the channel; on its loop
 *
 * Makes a bf_channel_co_read() that waits for bytes return
 * %BF_CHANNEL_INTERRUPTED, with which nothing is lost. Nothing happens if none
 * waits, if the bytes have just come, or if the kind of channel cannot. Who
 * uses this must be sure that its reader expects that result.
 */
void bf_channel_interrupt_read(BfChannel *channel);

/**
 * bf_channel_start_watch:
 * @channel: the channel; on its loop, and nobody reads from it
 * @fn: called once, on this loop, by none of its coroutines
 * @arg: passed to @fn
 *
 * Gives memory back that only a reader needs, and calls @fn when there may be
 * something to read: bytes, the end, or an error. Until then nobody reads, and
 * the channel stays; to shut it down makes the call come.
 *
 * Returns: false if @fn will not be called, because there is something to read
 *     already or the kind of channel cannot do this
 */
bool bf_channel_start_watch(BfChannel *channel, BfFn *fn, void *arg);

/**
 * bf_channel_free:
 * @channel: (nullable): without pending calls
 *
 * Closes and frees the channel and the channels below it.
 */
void bf_channel_free(BfChannel *channel);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfChannel, bf_channel_free)
