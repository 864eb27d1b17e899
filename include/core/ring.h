/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One io_uring. Only core/loop.c and core/co-io.c call it; the rest of the
 * program uses core/co-io.h.
 *
 * A ring is created and used on one thread. An operation is embedded in its
 * owner, which stays until @done was called. Nothing here suspends.
 *
 * The environment variable BLOCKFERRY_URING_MASK holds a comma separated list
 * of optional features that are not to be used, or "all"; see
 * bf_ring_feature_names[]. For tests and for kernels with a broken feature.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <glib.h>

/**
 * BfRing: an io_uring
 */
typedef struct BfRing BfRing;

/* See below. */
typedef struct BfRingOp BfRingOp;

/**
 * BfRingFeature: optional features, a bit each
 * @BF_RING_SINGLE_ISSUER: IORING_SETUP_SINGLE_ISSUER (Linux 6.0)
 * @BF_RING_DEFER_TASKRUN: IORING_SETUP_DEFER_TASKRUN (6.1)
 * @BF_RING_COOP_TASKRUN: IORING_SETUP_COOP_TASKRUN (5.19)
 * @BF_RING_EXT_ARG: timeout as an argument of the wait (5.11)
 * @BF_RING_MSG_RING: wake another ring by IORING_OP_MSG_RING (6.7)
 * @BF_RING_REGISTERED_FD: the ring's own descriptor is registered (5.18)
 */
typedef enum BfRingFeature {
    BF_RING_SINGLE_ISSUER = 1 << 0,
    BF_RING_DEFER_TASKRUN = 1 << 1,
    BF_RING_COOP_TASKRUN = 1 << 2,
    BF_RING_EXT_ARG = 1 << 3,
    BF_RING_MSG_RING = 1 << 4,
    BF_RING_REGISTERED_FD = 1 << 5,
} BfRingFeature;

#define BF_RING_FEATURE_COUNT 6

/* Their names in BLOCKFERRY_URING_MASK, in the order of the bits. */
extern const char *const bf_ring_feature_names[BF_RING_FEATURE_COUNT];

/**
 * BfRingOp: one operation under way
 * @done: called on the ring's thread with the result, a count or -errno
 * @on_worker: a kernel thread carries it out, so that submitting never waits
 */
struct BfRingOp {
    void (*done)(BfRingOp *op, int result);
    bool on_worker;
};

/**
 * bf_ring_new:
 * @entries: size of the submission queue, 1..4096
 * @error: set on failure; says whether io_uring is missing (kernel), forbidden
 *     (sysctl, seccomp, container) or out of memory, and the way out
 *
 * Returns: (transfer full): the ring, or NULL
 */
BfRing *bf_ring_new(unsigned entries, GError **error);

/**
 * bf_ring_free:
 * @ring: (nullable): without operations under way
 */
void bf_ring_free(BfRing *ring);

/**
 * bf_ring_features:
 * @ring: a ring
 *
 * Returns: the optional features in use, BfRingFeature bits
 */
unsigned bf_ring_features(const BfRing *ring);

/**
 * bf_ring_pending:
 * @ring: a ring
 *
 * Returns: operations under way
 */
unsigned bf_ring_pending(const BfRing *ring);

/**
 * bf_ring_wait:
 * @ring: a ring
 * @timeout_ns: 0 does not wait; %UINT64_MAX has no limit
 *
 * Submits what was prepared, waits for a completion if there is none, and
 * calls @done of all that completed. May return early for no reason.
 *
 * Returns: how many things completed, wake-ups included
 */
unsigned bf_ring_wait(BfRing *ring, uint64_t timeout_ns);

/**
 * bf_ring_has_work:
 * @ring: a ring
 *
 * Only reads memory that is shared with the kernel. What was prepared must have
 * been submitted to show.
 *
 * Returns: whether bf_ring_wait() would find a completion without waiting
 */
bool bf_ring_has_work(const BfRing *ring);

/**
 * bf_ring_submit:
 * @ring: a ring
 *
 * Hands what was prepared to the kernel now. For before the thread blocks in
 * something else than bf_ring_wait().
 */
void bf_ring_submit(BfRing *ring);

/**
 * bf_ring_notify:
 * @ring: a ring of any thread
 *
 * Makes bf_ring_wait() on @ring return. The only function here that any thread
 * may call. Every call counts once in bf_ring_wakes(); until it has been
 * counted, @ring must not be freed.
 */
void bf_ring_notify(BfRing *ring);

/**
 * bf_ring_wake:
 * @ring: the calling thread's ring
 * @target: another thread's
 *
 * Like bf_ring_notify() on @target, but costs no system call of its own: it
 * takes effect when @ring submits next.
 */
void bf_ring_wake(BfRing *ring, BfRing *target);

/**
 * bf_ring_wakes:
 * @ring: a ring
 *
 * Returns: how many wake-ups have arrived since the ring was made
 */
uint64_t bf_ring_wakes(const BfRing *ring);

/* Each of these starts one operation; arguments as in core/co-io.h. */
void bf_ring_readv(BfRing *ring, BfRingOp *op, int fd, const struct iovec *iov,
                   int niov, uint64_t offset);
void bf_ring_writev(BfRing *ring, BfRingOp *op, int fd, const struct iovec *iov,
                    int niov, uint64_t offset, int rw_flags);
void bf_ring_fdatasync(BfRing *ring, BfRingOp *op, int fd);
void bf_ring_fallocate(BfRing *ring, BfRingOp *op, int fd, int mode,
                       uint64_t offset, uint64_t bytes);
void bf_ring_recv(BfRing *ring, BfRingOp *op, int fd, void *buf, size_t len,
                  int flags);
void bf_ring_recvmsg(BfRing *ring, BfRingOp *op, int fd, struct msghdr *msg,
                     int flags);
void bf_ring_sendmsg(BfRing *ring, BfRingOp *op, int fd,
                     const struct msghdr *msg, int flags);
void bf_ring_connect(BfRing *ring, BfRingOp *op, int fd,
                     const struct sockaddr *addr, socklen_t addrlen);
void bf_ring_poll(BfRing *ring, BfRingOp *op, int fd, unsigned events);
void bf_ring_splice(BfRing *ring, BfRingOp *op, int fd_in, int64_t off_in,
                    int fd_out, int64_t off_out, unsigned bytes,
                    unsigned flags);

/**
 * bf_ring_cancel:
 * @ring: a ring
 * @op: under way
 *
 * Asks the kernel to end @op soon; its @done is still called, with -ECANCELED
 * or with the result it had by then.
 */
void bf_ring_cancel(BfRing *ring, BfRingOp *op);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfRing, bf_ring_free)
