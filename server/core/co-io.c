/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * I/O for coroutines. An operation lives on the stack of the coroutine that
 * waits for it; so no function returns before the kernel has let go of it,
 * not even when its time is up or it was cancelled: then the kernel is asked
 * to end it, and its end is waited for.
 */
#include "core/co-io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/atomic.h"
#include "core/loop.h"
#include "core/util.h"
#include "loop-private.h"

/* Between tries to connect to a UNIX socket whose listener is busy. */
#define CONNECT_PAUSE_MIN_NS BF_NS_PER_MS
#define CONNECT_PAUSE_MAX_NS (50 * BF_NS_PER_MS)

/* Work that waits behind threads that hang; who asked may have gone long ago.
 */
#define ASIDE_QUEUED_MAX 256

typedef struct BfCancelWaiter BfCancelWaiter;

/* One wait that a BfCancel can end. */
struct BfCancelWaiter {
    BfCancelWaiter *next;
    BfCancelWaiter **link; /* what points to this one; NULL: not in a list */
    void (*fire)(BfCancelWaiter *waiter);
};

typedef struct CoOp {
    BfRingOp op; /* first: the ring knows nothing else */
    BfCo *co;
    int result;
} CoOp;

/* An operation with a time limit and a way to cancel it. */
typedef struct LimitedOp {
    CoOp base;
    BfTimer timer;
    BfCancelWaiter waiter;
    bool timed_out;
    bool cancelled;
} LimitedOp;

static void
cancel_link(BfCancel *cancel, BfCancelWaiter *waiter)
{
    waiter->next = cancel->waiters;
    waiter->link = &cancel->waiters;
    if (waiter->next != NULL) {
        waiter->next->link = &waiter->next;
    }
    cancel->waiters = waiter;
}

static void
cancel_unlink(BfCancelWaiter *waiter)
{
    if (waiter->link == NULL) {
        return;
    }
    *waiter->link = waiter->next;
    if (waiter->next != NULL) {
        waiter->next->link = waiter->link;
    }
    waiter->link = NULL;
}

void
bf_cancel_fire(BfCancel *cancel)
{
    cancel->fired = true;
    while (cancel->waiters != NULL) {
        BfCancelWaiter *waiter = cancel->waiters;

        cancel_unlink(waiter);
        waiter->fire(waiter);
    }
}

static bool
is_fired(const BfCancel *cancel)
{
    return cancel != NULL && cancel->fired;
}

/* Plain operations. */

static void
op_done(BfRingOp *op, int result)
{
    CoOp *self = (CoOp *)op;

    self->result = result;
    bf_co_wake(self->co);
}

static BfRingOp *
op_init(CoOp *self)
{
    self->op = (BfRingOp){.done = op_done};
    self->co = bf_co_self();
    g_assert(self->co != NULL);
    return &self->op;
}

static int
op_co_wait(const CoOp *self)
{
    bf_co_suspend();
    return self->result;
}

/* True if the same operation is to be started again. */
static bool
must_retry(int result)
{
    return result == -EINTR || result == -EAGAIN;
}

ssize_t
bf_co_readv(int fd, const struct iovec *iov, int niov, uint64_t offset,
            BfCoIoFlags flags)
{
    BfRing *ring = bf_loop_ring();
    CoOp op;
    int ret;

    do {
        op_init(&op)->on_worker = (flags & BF_CO_IO_ON_WORKER) != 0;
        bf_ring_readv(ring, &op.op, fd, iov, niov, offset);
        ret = op_co_wait(&op);
    } while (must_retry(ret));
    return ret;
}

ssize_t
bf_co_writev(int fd, const struct iovec *iov, int niov, uint64_t offset,
             int rw_flags, BfCoIoFlags flags)
{
    BfRing *ring = bf_loop_ring();
    CoOp op;
    int ret;

    do {
        op_init(&op)->on_worker = (flags & BF_CO_IO_ON_WORKER) != 0;
        bf_ring_writev(ring, &op.op, fd, iov, niov, offset, rw_flags);
        ret = op_co_wait(&op);
    } while (must_retry(ret));
    return ret;
}

int
bf_co_fdatasync(int fd)
{
    BfRing *ring = bf_loop_ring();
    CoOp op;
    int ret;

    do {
        bf_ring_fdatasync(ring, op_init(&op), fd);
        ret = op_co_wait(&op);
    } while (must_retry(ret));
    return ret;
}

int
bf_co_fallocate(int fd, int mode, uint64_t offset, uint64_t bytes)
{
    BfRing *ring = bf_loop_ring();
    CoOp op;
    int ret;

    do {
        bf_ring_fallocate(ring, op_init(&op), fd, mode, offset, bytes);
        ret = op_co_wait(&op);
    } while (must_retry(ret));
    return ret;
}

ssize_t
bf_co_recvmsg(int fd, struct msghdr *msg, int flags)
{
    const struct msghdr asked = *msg; /* the kernel writes the lengths */
    BfRing *ring = bf_loop_ring();
    CoOp op;
    int ret;

    do {
        *msg = asked;
        bf_ring_recvmsg(ring, op_init(&op), fd, msg, flags);
        ret = op_co_wait(&op);
    } while (must_retry(ret));
    return ret;
}

void
bf_interrupt_fire(BfInterrupt *interrupt)
{
    if (interrupt->op != NULL) {
        interrupt->fired = true;
        bf_try_recvs_start(bf_loop_recvs(), bf_loop_ring());
        bf_ring_cancel(bf_loop_ring(), interrupt->op);
    }
}

/* Like op_co_wait() for an operation that @interrupt can end. If it is over
 * already, but its coroutine did not run yet, the kernel finds nothing to end,
 * and that before it learns of any operation to come. */
static int
op_co_wait_interruptible(CoOp *self, BfInterrupt *interrupt)
{
    int ret = 0;

    interrupt->op = &self->op;
    interrupt->fired = false;
    ret = op_co_wait(self);
    interrupt->op = NULL;
    return interrupt->fired && must_retry(ret) ? -ECANCELED : ret;
}

/* The loop may try it by itself. @flags: 0 or MSG_PEEK. */
static ssize_t
co_try_recv(int fd, void *buf, size_t len, int flags, bool soon,
            BfInterrupt *interrupt)
{
    BfTryRecvs *recvs = bf_loop_recvs();
    CoOp op;
    int ret;

    do {
        bf_try_recvs_begin(recvs, bf_loop_ring(),
                           &(BfTryRecv){
                               .op = op_init(&op),
                               .fd = fd,
                               .buf = buf,
                               .len = MIN(len, (size_t)INT32_MAX),
                               .flags = flags,
                               .soon = soon,
                           });
        ret = interrupt != NULL ? op_co_wait_interruptible(&op, interrupt)
                                : op_co_wait(&op);
        bf_try_recvs_end(recvs);
    } while (must_retry(ret));
    return ret;
}

ssize_t
bf_co_recv(int fd, void *buf, size_t len, int flags, BfInterrupt *interrupt)
{
    BfRing *ring = bf_loop_ring();
    CoOp op;
    int ret;

    if (flags == 0) {
        return co_try_recv(fd, buf, len, 0, false, interrupt);
    }
    do {
        bf_ring_recv(ring, op_init(&op), fd, buf, len, flags);
        ret = interrupt != NULL ? op_co_wait_interruptible(&op, interrupt)
                                : op_co_wait(&op);
    } while (must_retry(ret));
    return ret;
}

ssize_t
bf_co_recv_soon(int fd, void *buf, size_t len, BfInterrupt *interrupt)
{
    return co_try_recv(fd, buf, len, 0, true, interrupt);
}

int
bf_co_await_bytes_soon(int fd)
{
    uint8_t byte;
    ssize_t n = co_try_recv(fd, &byte, 1, MSG_PEEK, true, NULL);

    return n < 0 ? (int)n : 0;
}

ssize_t
bf_co_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    BfRing *ring = bf_loop_ring();
    CoOp op;
    ssize_t ret;

    do {
        ret = sendmsg(fd, msg, flags | MSG_NOSIGNAL | MSG_DONTWAIT);
        if (ret >= 0 || errno != EAGAIN) {
            ret = ret < 0 ? -errno : ret;
            continue;
        }
        bf_ring_sendmsg(ring, op_init(&op), fd, msg, flags | MSG_NOSIGNAL);
        ret = op_co_wait(&op);
    } while (must_retry((int)ret));
    return ret;
}

ssize_t
bf_pipe_open(int fds[2], size_t bytes)
{
    int capacity;

    if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0) {
        return -errno;
    }
    capacity = fcntl(fds[1], F_SETPIPE_SZ, (int)bytes);
    if (capacity < 0) {
        capacity = fcntl(fds[1], F_GETPIPE_SZ); /* it stays as it was made */
    }
    return MAX(capacity, 0);
}

ssize_t
bf_co_splice(int fd_in, int64_t off_in, int fd_out, int64_t off_out,
             unsigned bytes, unsigned flags)
{
    BfRing *ring = bf_loop_ring();
    CoOp op;
    int ret;

    do {
        bf_ring_splice(ring, op_init(&op), fd_in, off_in, fd_out, off_out,
                       bytes, flags);
        ret = op_co_wait(&op);
    } while (ret == -EINTR || (ret == -EAGAIN && !(flags & SPLICE_F_NONBLOCK)));
    return ret;
}

/* Operations with a limit. */

static void
limited_done(BfRingOp *op, int result)
{
    LimitedOp *self = (LimitedOp *)op;

    bf_timer_stop(&self->timer);
    cancel_unlink(&self->waiter);
    op_done(op, result);
}

static void
limited_timeout(void *arg)
{
    LimitedOp *self = arg;

    self->timed_out = true;
    if (!self->cancelled) {
        bf_ring_cancel(bf_loop_ring(), &self->base.op);
    }
}

static void
limited_fire(BfCancelWaiter *waiter)
{
    LimitedOp *self = bf_container_of(waiter, LimitedOp, waiter);

    self->cancelled = true;
    if (!self->timed_out) {
        bf_ring_cancel(bf_loop_ring(), &self->base.op);
    }
}

static BfRingOp *
limited_init(LimitedOp *self, uint64_t timeout_ns, BfCancel *cancel)
{
    *self = (LimitedOp){.waiter.fire = limited_fire};
    op_init(&self->base);
    self->base.op.done = limited_done;
    if (timeout_ns != BF_FOREVER) {
        bf_timer_start(&self->timer, timeout_ns, limited_timeout, self);
    }
    if (cancel != NULL) {
        cancel_link(cancel, &self->waiter);
    }
    return &self->base.op;
}

/* Returns the operation's result if it had one in time. */
static int
limited_co_wait(const LimitedOp *self)
{
    int ret = op_co_wait(&self->base);

    if (self->cancelled && ret < 0) {
        return -ECANCELED;
    }
    return self->timed_out && ret < 0 ? -ETIMEDOUT : ret;
}

/* When a wait ends; 0 stands for "never", as no clock shows it. */
static uint64_t
deadline_after(uint64_t timeout_ns)
{
    return timeout_ns == BF_FOREVER
               ? 0
               : bf_loop_now_ns() + MIN(timeout_ns, (uint64_t)INT64_MAX);
}

static uint64_t
time_left(uint64_t deadline_ns)
{
    uint64_t now_ns;

    if (deadline_ns == 0) {
        return BF_FOREVER;
    }
    now_ns = bf_loop_now_ns();
    return deadline_ns > now_ns ? deadline_ns - now_ns : 0;
}

int
bf_co_poll(int fd, unsigned events, uint64_t timeout_ns, BfCancel *cancel)
{
    uint64_t deadline_ns = deadline_after(timeout_ns);
    LimitedOp op;
    int ret;

    do {
        if (is_fired(cancel)) {
            return -ECANCELED;
        }
        bf_ring_poll(bf_loop_ring(),
                     limited_init(&op, time_left(deadline_ns), cancel), fd,
                     events);
        ret = limited_co_wait(&op);
    } while (must_retry(ret));
    return is_fired(cancel) ? -ECANCELED : ret;
}

static int
connect_co_once(int fd, const struct sockaddr *addr, socklen_t addrlen,
                uint64_t timeout_ns, BfCancel *cancel)
{
    LimitedOp op;
    int ret;

    if (is_fired(cancel)) {
        return -ECANCELED;
    }
    bf_ring_connect(bf_loop_ring(), limited_init(&op, timeout_ns, cancel), fd,
                    addr, addrlen);
    ret = limited_co_wait(&op);
    return is_fired(cancel) ? -ECANCELED : ret;
}

int
bf_co_connect(int fd, const struct sockaddr *addr, socklen_t addrlen,
              uint64_t timeout_ns, BfCancel *cancel)
{
    uint64_t deadline_ns = deadline_after(timeout_ns);
    uint64_t pause_ns = CONNECT_PAUSE_MIN_NS;

    for (;;) {
        uint64_t left_ns = time_left(deadline_ns);
        int ret = connect_co_once(fd, addr, addrlen, left_ns, cancel);

        if (ret != -EAGAIN) {
            return ret;
        }
        /* A UNIX listener's queue is full, and nothing tells when it is not
         * any more. */
        left_ns = time_left(deadline_ns);
        if (left_ns == 0) {
            return -ETIMEDOUT;
        }
        if (bf_co_sleep_cancel(MIN(pause_ns, left_ns), cancel) < 0) {
            return -ECANCELED;
        }
        pause_ns = MIN(2 * pause_ns, CONNECT_PAUSE_MAX_NS);
    }
}

/* Sleep. */

typedef struct Sleep {
    BfTimer timer;
    BfCancelWaiter waiter;
    BfCo *co;
    bool cancelled;
} Sleep;

static void
sleep_over(void *arg)
{
    Sleep *self = arg;

    cancel_unlink(&self->waiter);
    bf_co_wake(self->co);
}

static void
sleep_fire(BfCancelWaiter *waiter)
{
    Sleep *self = bf_container_of(waiter, Sleep, waiter);

    self->cancelled = true;
    bf_timer_stop(&self->timer);
    bf_co_wake(self->co);
}

int
bf_co_sleep_cancel(uint64_t ns, BfCancel *cancel)
{
    Sleep self = {.waiter.fire = sleep_fire, .co = bf_co_self()};

    g_assert(self.co != NULL);
    if (is_fired(cancel)) {
        return -ECANCELED;
    }
    if (ns == 0) {
        return 0;
    }
    if (ns != BF_FOREVER) {
        bf_timer_start(&self.timer, ns, sleep_over, &self);
    }
    if (cancel != NULL) {
        cancel_link(cancel, &self.waiter);
    }
    bf_co_suspend();
    return self.cancelled ? -ECANCELED : 0;
}

int
bf_co_sleep_ns(uint64_t ns)
{
    return bf_co_sleep_cancel(ns, NULL);
}

/* Watches. */

static void
watch_done(BfRingOp *op, int result)
{
    BfWatch *self = bf_container_of(op, BfWatch, op);

    self->fn(self->arg); /* whatever the result: who looks finds out */
}

void
bf_watch_start(BfWatch *watch, int fd, unsigned events, BfFn *fn, void *arg)
{
    watch->op = (BfRingOp){.done = watch_done};
    watch->fn = fn;
    watch->arg = arg;
    bf_ring_poll(bf_loop_ring(), &watch->op, fd, events);
}

/* Closing. */

/* Work that whoever asked for it may leave alone; counted by both sides. */
typedef struct Aside {
    BfAtomicU64 refs;
    BfFn *fn;
    BfFn *free_fn;
    void *arg;   /* owned; NULL if the caller has it back */
    int done_fd; /* owned: an eventfd, which outlives both sides */
} Aside;

static void
aside_unref(Aside *aside)
{
    if (!bf_atomic_drop(&aside->refs)) {
        return;
    }
    if (aside->arg != NULL) {
        aside->free_fn(aside->arg);
    }
    bf_fd_cleanup(&aside->done_fd);
    g_free(aside);
}

/* On a thread of the pool. */
static void
aside_run(void *arg)
{
    Aside *aside = arg;
    const uint64_t one = 1;
    ssize_t n = 0;

    aside->fn(aside->arg);
    n = write(aside->done_fd, &one, sizeof(one));
    g_assert(n == sizeof(one)); /* an eventfd has room for it */
    aside_unref(aside);
}

static int
aside_start(Aside *aside, BfPoolLane *lane)
{
    aside->done_fd = eventfd(0, EFD_CLOEXEC);
    if (aside->done_fd < 0) {
        return -errno;
    }
    if (bf_pool_lane_queued(lane) >= ASIDE_QUEUED_MAX) {
        return -EBUSY;
    }
    bf_atomic_add(&aside->refs, 1);
    if (!bf_pool_lane_push(lane, aside_run, aside)) {
        aside_unref(aside); /* the thread's */
        return -EAGAIN;
    }
    return 0;
}

int
bf_co_offload_cancel(BfPoolLane *lane, BfFn *fn, void *arg, BfFn *free_fn,
                     uint64_t timeout_ns, BfCancel *cancel)
{
    Aside *aside = g_new0(Aside, 1);
    uint64_t count = 0;
    int ret = 0;

    bf_atomic_store(&aside->refs, 1);
    aside->fn = fn;
    aside->free_fn = free_fn;
    aside->arg = arg;
    ret = aside_start(aside, lane);
    if (ret == 0) {
        ret = bf_co_poll(aside->done_fd, POLLIN, timeout_ns, cancel);
    }
    /* This read orders what the thread wrote before what the caller reads. */
    if (ret > 0) {
        ret = read(aside->done_fd, &count, sizeof(count)) < 0 ? -errno : 0;
        aside->arg = ret == 0 ? NULL : aside->arg;
    }
    aside_unref(aside);
    return ret;
}

static void
close_fd(void *arg)
{
    close(GPOINTER_TO_INT(arg));
}

void
bf_co_close(int fd)
{
    bf_co_offload(bf_loop_lane(bf_loop_self(), BF_POOL_LANE_CLOSE), close_fd,
                  GINT_TO_POINTER(fd));
}

void
bf_fd_close_later(int fd)
{
    BfPoolLane *lane = bf_loop_lane(bf_loop_self(), BF_POOL_LANE_CLOSE);

    if (!bf_pool_lane_push(lane, close_fd, GINT_TO_POINTER(fd))) {
        close(fd); /* the system gives no threads */
    }
}
