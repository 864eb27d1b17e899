/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * I/O for coroutines, through the current loop's io_uring.
 *
 * Every bf_co_ function suspends the calling coroutine and returns a count or
 * 0, or -errno; EINTR and EAGAIN are dealt with inside. A descriptor must stay
 * open until the call returns; shutdown(2) makes socket calls return early,
 * bf_cancel_fire() those that take a BfCancel.
 */
#pragma once

#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "core/coroutine.h"
#include "core/ring.h"
#include "core/thread-pool.h"

/* For timeouts: wait without limit. */
#define BF_FOREVER UINT64_MAX

/**
 * BfCancel: lets one party end the waits of others on the same loop
 *
 * Embedded in its owner; all zero is "not fired". Fields are private.
 */
typedef struct BfCancel {
    bool fired;
    struct BfCancelWaiter *waiters;
} BfCancel;

/**
 * bf_cancel_fire:
 * @cancel: on the loop of its waiters
 *
 * Makes every wait with @cancel return -ECANCELED, now and from now on.
 */
void bf_cancel_fire(BfCancel *cancel);

/**
 * BfInterrupt: lets one party end the one wait of another on the same loop,
 * which may wait again
 *
 * Embedded in its owner; all zero is "nobody waits". Fields are private.
 */
typedef struct BfInterrupt {
    BfRingOp *op;
    bool fired;
} BfInterrupt;

/**
 * bf_interrupt_fire:
 * @interrupt: on the loop of who may wait
 *
 * Makes a wait with @interrupt return -ECANCELED, unless it is over already.
 * Nothing happens when nobody waits.
 */
void bf_interrupt_fire(BfInterrupt *interrupt);

/**
 * BfWatch: waits for a descriptor without a coroutine
 *
 * Embedded in its owner; all zero is "does not wait". Fields are private.
 */
typedef struct BfWatch {
    BfRingOp op;
    BfFn *fn;
    void *arg;
} BfWatch;

/**
 * bf_watch_start:
 * @watch: does not wait, and stays until @fn is called
 * @fd: any descriptor that can be polled; open until @fn is called
 * @events: POLLIN, POLLOUT...
 * @fn: called once, on this loop, by none of its coroutines
 * @arg: passed to @fn
 *
 * Calls @fn when one of the events is there, or when the descriptor has failed
 * or been shut down. It cannot be stopped; to shut a socket down ends it.
 */
void bf_watch_start(BfWatch *watch, int fd, unsigned events, BfFn *fn,
                    void *arg);

/**
 * bf_co_sleep_ns:
 * @ns: nanoseconds; 0 returns at once
 *
 * Returns: 0
 */
int bf_co_sleep_ns(uint64_t ns);

/**
 * bf_co_sleep_cancel:
 * @ns: nanoseconds, or %BF_FOREVER
 * @cancel: (nullable): ends the wait
 *
 * Returns: 0 or -ECANCELED
 */
int bf_co_sleep_cancel(uint64_t ns, BfCancel *cancel);

/**
 * bf_co_poll:
 * @fd: any descriptor that can be polled
 * @events: POLLIN, POLLOUT...
 * @timeout_ns: nanoseconds, or %BF_FOREVER
 * @cancel: (nullable): ends the wait
 *
 * Returns: the events that are there (above 0), -ETIMEDOUT, -ECANCELED or
 * another -errno
 */
int bf_co_poll(int fd, unsigned events, uint64_t timeout_ns, BfCancel *cancel);

/**
 * bf_co_offload_cancel:
 * @lane: limits how many threads work for the same thing; may be freed before
 *     @fn has returned
 * @fn: runs on a thread of the pool, as for bf_co_offload()
 * @arg: (transfer full): passed to @fn; the caller's again when 0 is returned
 * @free_fn: else frees @arg, perhaps later and on another thread
 * @timeout_ns: nanoseconds, or %BF_FOREVER
 * @cancel: (nullable): ends the wait
 *
 * bf_co_offload() for work that may hang: the thread is left alone with it when
 * the wait ends.
 *
 * Returns: 0 when @fn has returned; else -ETIMEDOUT, -ECANCELED, -EBUSY when
 * too much work waits for threads that hang, or another -errno
 */
int bf_co_offload_cancel(BfPoolLane *lane, BfFn *fn, void *arg, BfFn *free_fn,
                         uint64_t timeout_ns, BfCancel *cancel);

/**
 * BfCoIoFlags: how file I/O is carried out
 * @BF_CO_IO_ON_WORKER: by a kernel thread from the start. Some file systems
 *     (FUSE with direct I/O) ignore that a caller must not wait; such a one
 *     would stop the whole loop.
 */
typedef enum BfCoIoFlags {
    BF_CO_IO_ON_WORKER = 1 << 0,
} BfCoIoFlags;

/**
 * bf_co_readv:
 * @fd: a file or block device
 * @iov: buffers
 * @niov: 1..IOV_MAX
 * @offset: position in the file, bytes
 * @flags: BfCoIoFlags
 *
 * Returns: bytes read, 0 at the end of the file, or -errno; short reads are
 * possible
 */
ssize_t bf_co_readv(int fd, const struct iovec *iov, int niov, uint64_t offset,
                    BfCoIoFlags flags);

/**
 * bf_co_writev:
 * @fd: a file or block device
 * @iov: buffers
 * @niov: 1..IOV_MAX
 * @offset: position in the file, bytes
 * @rw_flags: 0 or RWF_DSYNC
 * @flags: BfCoIoFlags
 *
 * Returns: bytes written or -errno; short writes are possible
 */
ssize_t bf_co_writev(int fd, const struct iovec *iov, int niov, uint64_t offset,
                     int rw_flags, BfCoIoFlags flags);

/**
 * bf_co_fdatasync:
 * @fd: a file or block device
 *
 * Returns: 0 or -errno
 */
int bf_co_fdatasync(int fd);

/**
 * bf_co_fallocate:
 * @fd: a file or block device
 * @mode: FALLOC_FL_ flags
 * @offset: start, bytes
 * @bytes: length, bytes
 *
 * Returns: 0 or -errno
 */
int bf_co_fallocate(int fd, int mode, uint64_t offset, uint64_t bytes);

/**
 * bf_co_recvmsg:
 * @fd: a socket
 * @msg: where to; its control buffer receives descriptors
 * @flags: MSG_ flags
 *
 * Waits for at least one byte, then takes what is there.
 *
 * Returns: bytes received, 0 at the end of the stream, or -errno
 */
ssize_t bf_co_recvmsg(int fd, struct msghdr *msg, int flags);

/**
 * bf_co_recv:
 * @fd: a socket
 * @buf: (out caller-allocates): room for @len bytes
 * @len: at least 1
 * @flags: MSG_ flags; with MSG_WAITALL the kernel fills the whole buffer if
 *     the stream does not end before
 * @interrupt: (nullable): ends the wait
 *
 * Returns: bytes received, 0 at the end of the stream, or -errno; -ECANCELED
 * if the wait was ended, and then nothing was received
 */
ssize_t bf_co_recv(int fd, void *buf, size_t len, int flags,
                   BfInterrupt *interrupt);

/**
 * bf_co_recv_soon:
 * @fd: a socket
 * @buf: (out caller-allocates): room for @len bytes
 * @len: at least 1
 * @interrupt: (nullable): ends the wait
 *
 * bf_co_recv() where the bytes are likely to come within microseconds: the loop
 * may stay awake for longer before it sleeps.
 *
 * Returns: as bf_co_recv() does
 */
ssize_t bf_co_recv_soon(int fd, void *buf, size_t len, BfInterrupt *interrupt);

/**
 * bf_co_await_bytes_soon:
 * @fd: a stream socket
 *
 * Waits until something can be received, or the peer has ended, as
 * bf_co_recv_soon() does.
 *
 * Returns: 0 or -errno
 */
int bf_co_await_bytes_soon(int fd);

/**
 * bf_co_sendmsg:
 * @fd: a socket
 * @msg: what to send
 * @flags: MSG_ flags; MSG_NOSIGNAL is added
 *
 * Tries a direct call first and waits only if the socket is full.
 *
 * Returns: bytes sent, perhaps fewer than asked, or -errno
 */
ssize_t bf_co_sendmsg(int fd, const struct msghdr *msg, int flags);

/**
 * bf_co_connect:
 * @fd: a fresh socket, non-blocking
 * @addr: the peer's address
 * @addrlen: its length, bytes
 * @timeout_ns: nanoseconds, or %BF_FOREVER
 * @cancel: (nullable): ends the wait
 *
 * Returns: 0, -ETIMEDOUT, -ECANCELED or another -errno
 */
int bf_co_connect(int fd, const struct sockaddr *addr, socklen_t addrlen,
                  uint64_t timeout_ns, BfCancel *cancel);

/**
 * bf_pipe_open:
 * @fds: (out): read end and write end, which do not block
 * @bytes: what it should hold, a multiple of the page size
 *
 * Returns: what it holds, bytes: less than @bytes if the limit of the user's
 *     pipes is reached; or -errno
 */
ssize_t bf_pipe_open(int fds[2], size_t bytes);

/**
 * bf_co_splice:
 * @fd_in: a file or a pipe
 * @off_in: position in a file, or -1 for a pipe
 * @fd_out: a pipe or a socket
 * @off_out: position in a file, or -1
 * @bytes: at most this many, below 2^31
 * @flags: SPLICE_F_ flags
 *
 * Runs on a kernel worker when it must wait.
 *
 * Returns: bytes moved, 0 at the end of the input, or -errno
 */
ssize_t bf_co_splice(int fd_in, int64_t off_in, int fd_out, int64_t off_out,
                     unsigned bytes, unsigned flags);

/**
 * bf_co_close:
 * @fd: (transfer full): a descriptor that perhaps is of a network file system
 *
 * Closes on a thread of the pool. Others that close may have to wait for
 * storage that does not answer, but nobody else.
 */
void bf_co_close(int fd);

/**
 * bf_fd_close_later:
 * @fd: (transfer full): as of bf_co_close()
 *
 * The same without waiting for it; suspends nobody. On a loop.
 */
void bf_fd_close_later(int fd);
