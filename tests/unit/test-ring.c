/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ring: every operation, a full submission queue, overflowing
 * completions, wake-ups, and what happens without a feature. Runs once more
 * with all optional features masked.
 */
#include "core/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "harness.h"

typedef struct Op {
    BfRingOp op;
    bool done;
    int result;
} Op;

static void
op_done(BfRingOp *op, int result)
{
    Op *self = (Op *)op;

    g_assert_false(self->done);
    self->done = true;
    self->result = result;
}

static BfRingOp *
start(Op *op)
{
    *op = (Op){.op.done = op_done};
    return &op->op;
}

static BfRing *
ring_new(unsigned entries)
{
    g_autoptr(GError) error = NULL;
    BfRing *ring = bf_ring_new(entries, &error);

    g_assert_no_error(error);
    return ring;
}

static int
finish(BfRing *ring, const Op *op)
{
    while (!op->done) {
        bf_ring_wait(ring, UINT64_MAX);
    }
    return op->result;
}

static void
test_file_ops(void)
{
    g_autoptr(BfRing) ring = ring_new(8);
    bf_autofd fd = bf_test_temp_file(0);
    char a[10] = "0123456789";
    char b[10];
    struct iovec one[1] = {{a, 10}};
    struct iovec two[2] = {{b, 3}, {b + 3, 7}};
    Op op;

    bf_ring_writev(ring, start(&op), fd, one, 1, 5, 0);
    g_assert_cmpuint(bf_ring_pending(ring), ==, 1);
    g_assert_cmpint(finish(ring, &op), ==, 10);
    bf_ring_readv(ring, start(&op), fd, two, 2, 5);
    g_assert_cmpint(finish(ring, &op), ==, 10);
    g_assert_cmpmem(b, 10, a, 10);
    bf_ring_writev(ring, start(&op), fd, two, 2, UINT64_C(5) << 40, RWF_DSYNC);
    g_assert_cmpint(finish(ring, &op), ==, 10);
    memset(b, 0, sizeof(b));
    bf_ring_readv(ring, start(&op), fd, two, 1, UINT64_C(5) << 40);
    g_assert_cmpint(finish(ring, &op), ==, 3);
    g_assert_cmpmem(b, 3, "012", 3);
    bf_ring_fdatasync(ring, start(&op), fd);
    g_assert_cmpint(finish(ring, &op), ==, 0);
    bf_ring_fallocate(ring, start(&op), fd,
                      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                      UINT64_C(1) << 41);
    g_assert_cmpint(finish(ring, &op), ==, 0);
    bf_ring_readv(ring, start(&op), fd, two, 1, 5);
    g_assert_cmpint(finish(ring, &op), ==, 3);
    g_assert_cmpint(b[0], ==, 0);
    bf_ring_fallocate(ring, start(&op), fd, 0, 0, 0);
    g_assert_cmpint(finish(ring, &op), ==, -EINVAL);
    g_assert_cmpuint(bf_ring_pending(ring), ==, 0);
}

static void
test_socket_ops(void)
{
    g_autoptr(BfRing) ring = ring_new(8);
    char out[4] = "ping";
    char in[8];
    struct iovec out_iov = {out, 4};
    struct iovec in_iov = {in, 8};
    struct msghdr out_msg = {.msg_iov = &out_iov, .msg_iovlen = 1};
    struct msghdr in_msg = {.msg_iov = &in_iov, .msg_iovlen = 1};
    int fds[2];
    Op recv_op;
    Op op;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    bf_ring_recv(ring, start(&recv_op), fds[1], in, 8, 0);
    bf_ring_poll(ring, start(&op), fds[0], POLLOUT);
    g_assert_cmpint(finish(ring, &op), ==, POLLOUT);
    g_assert_false(recv_op.done);
    bf_ring_sendmsg(ring, start(&op), fds[0], &out_msg, MSG_NOSIGNAL);
    g_assert_cmpint(finish(ring, &op), ==, 4);
    g_assert_cmpint(finish(ring, &recv_op), ==, 4);
    g_assert_cmpmem(in, 4, "ping", 4);
    bf_ring_sendmsg(ring, start(&op), fds[0], &out_msg, MSG_NOSIGNAL);
    bf_ring_recvmsg(ring, start(&recv_op), fds[1], &in_msg, 0);
    g_assert_cmpint(finish(ring, &recv_op), ==, 4);
    g_assert_cmpint(finish(ring, &op), ==, 4);
    bf_ring_recv(ring, start(&recv_op), fds[1], in, 8, 0);
    close(fds[0]);
    g_assert_cmpint(finish(ring, &recv_op), ==, 0);
    close(fds[1]);
}

static void
test_connect(void)
{
    g_autoptr(BfRing) ring = ring_new(8);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    g_autofree char *path = bf_test_temp_path();
    bf_autofd server = socket(AF_UNIX, SOCK_STREAM, 0);
    bf_autofd client = socket(AF_UNIX, SOCK_STREAM, 0);
    Op connect_op;

    g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path));
    g_assert_cmpint(bind(server, (struct sockaddr *)&addr, sizeof(addr)), ==,
                    0);
    g_assert_cmpint(listen(server, 1), ==, 0);
    bf_ring_connect(ring, start(&connect_op), client, (struct sockaddr *)&addr,
                    sizeof(addr));
    g_assert_cmpint(finish(ring, &connect_op), ==, 0);
    close(accept(server, NULL, NULL));
}

static void
test_splice(void)
{
    g_autoptr(BfRing) ring = ring_new(8);
    bf_autofd fd = bf_test_temp_file(5000);
    int pipes[2];
    Op op;

    g_assert_cmpint(pipe(pipes), ==, 0);
    bf_ring_splice(ring, start(&op), fd, 1000, pipes[1], -1, 8000, 0);
    g_assert_cmpint(finish(ring, &op), ==, 4000);
    bf_ring_splice(ring, start(&op), pipes[0], -1, fd, 5000, 4000, 0);
    g_assert_cmpint(finish(ring, &op), ==, 4000);
    g_assert_cmpint(lseek(fd, 0, SEEK_END), ==, 9000);
    close(pipes[0]);
    close(pipes[1]);
}

static void
test_cancel(void)
{
    g_autoptr(BfRing) ring = ring_new(8);
    char buf[4];
    int fds[2];
    Op polls[20];
    Op recv_op;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    bf_ring_recv(ring, start(&recv_op), fds[0], buf, 4, 0);
    for (int i = 0; i < 20; i++) {
        bf_ring_poll(ring, start(&polls[i]), fds[0], POLLIN);
        if (i % 2) {
            bf_ring_cancel(ring, &polls[i].op); /* not even submitted */
        }
    }
    bf_ring_wait(ring, 0);
    for (int i = 0; i < 20; i += 2) {
        bf_ring_cancel(ring, &polls[i].op);
    }
    bf_ring_cancel(ring, &recv_op.op);
    for (int i = 0; i < 20; i++) {
        g_assert_cmpint(finish(ring, &polls[i]), ==, -ECANCELED);
    }
    g_assert_cmpint(finish(ring, &recv_op), ==, -ECANCELED);
    close(fds[0]);
    close(fds[1]);
}

#define FLOOD 5000

/* Far more than either queue holds, all complete at once. */
static void
test_more_than_the_queues_hold(void)
{
    g_autoptr(BfRing) ring = ring_new(4);
    g_autofree Op *ops = g_new0(Op, FLOOD);
    bf_autofd fd = bf_test_temp_file(FLOOD);
    g_autofree char *bytes = g_malloc0(FLOOD);
    g_autofree struct iovec *iov = g_new0(struct iovec, FLOOD);

    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < FLOOD; i++) {
            iov[i] = (struct iovec){bytes + i, 1};
            bf_ring_readv(ring, start(&ops[i]), fd, &iov[i], 1, (uint64_t)i);
        }
        g_assert_cmpuint(bf_ring_pending(ring), ==, FLOOD);
        for (int i = 0; i < FLOOD; i++) {
            g_assert_cmpint(finish(ring, &ops[i]), ==, 1);
        }
        g_assert_cmpuint(bf_ring_pending(ring), ==, 0);
    }
}

/* Starts writes to a pipe until some are done, which they only are when they
 * have been submitted; returns how many it took. @ops has room. */
static unsigned
start_until_submitted(BfRing *ring, Op *ops, unsigned room, const int pipe[2])
{
    static char byte = 'x';
    static const struct iovec iov = {&byte, 1};
    char seen[64];
    unsigned n = 0;

    while (read(pipe[0], seen, sizeof(seen)) < 0) {
        g_assert_cmpint(errno, ==, EAGAIN);
        g_assert_cmpuint(n, <, room);
        bf_ring_writev(ring, start(&ops[n++]), pipe[1], &iov, 1, 0, 0);
    }
    return n;
}

/* Storage works on the first of many before the turn is over; the more there
 * are, the more go at a time. */
static void
test_many_leave_early(void)
{
    g_autoptr(BfRing) ring = ring_new(64);
    Op ops[2][32];
    int pipe[2];
    unsigned first = 0;

    g_assert_cmpint(pipe2(pipe, O_CLOEXEC | O_NONBLOCK), ==, 0);
    bf_ring_wait(ring, 0); /* the ring's own entries leave */
    for (int turn = 0; turn < 2; turn++) {
        unsigned n = start_until_submitted(ring, ops[0], 32, pipe);
        unsigned more = start_until_submitted(ring, ops[1], 32, pipe);

        first = turn == 0 ? n : first;
        g_assert_cmpuint(n, ==, first);
        g_assert_cmpuint(n, >, 1);
        g_assert_cmpuint(more, >, n);
        while (bf_ring_pending(ring) > 0) {
            bf_ring_wait(ring, UINT64_MAX);
        }
    }
    close(pipe[0]);
    close(pipe[1]);
}

/* Polls that become ready all at once overflow the completion queue. */
static void
test_completions_overflow(void)
{
    g_autoptr(BfRing) ring = ring_new(4);
    g_autofree Op *ops = g_new0(Op, 500);
    int fds[2];

    g_assert_cmpint(pipe(fds), ==, 0);
    for (int i = 0; i < 500; i++) {
        bf_ring_poll(ring, start(&ops[i]), fds[0], POLLIN);
    }
    bf_ring_wait(ring, 0);
    g_assert_cmpint(write(fds[1], "x", 1), ==, 1);
    for (int i = 0; i < 500; i++) {
        g_assert_cmpint(finish(ring, &ops[i]), ==, POLLIN);
    }
    close(fds[0]);
    close(fds[1]);
}

typedef struct Chain {
    BfRingOp op;
    BfRing *ring;
    int fd;
    int left;
} Chain;

static void
chain_done(BfRingOp *op, int result)
{
    Chain *chain = (Chain *)op;

    g_assert_cmpint(result, >=, 0);
    if (--chain->left > 0) {
        bf_ring_fdatasync(chain->ring, op, chain->fd);
    }
}

/* What is ready when a wait ends comes with it, also where the kernel tells of
 * some of it at a time. */
static void
test_all_that_is_ready_comes_at_once(void)
{
    g_autoptr(BfRing) ring = ring_new(64);
    bf_autofd fd = eventfd(0, EFD_CLOEXEC);
    const uint64_t one = 1;
    Op ops[48];

    for (unsigned i = 0; i < G_N_ELEMENTS(ops); i++) {
        bf_ring_poll(ring, start(&ops[i]), fd, POLLIN);
    }
    bf_ring_wait(ring, 0);
    g_assert_cmpuint(bf_ring_pending(ring), ==, G_N_ELEMENTS(ops));
    g_assert_cmpint(write(fd, &one, sizeof(one)), ==, sizeof(one));
    bf_ring_wait(ring, UINT64_MAX);
    g_assert_cmpuint(bf_ring_pending(ring), ==, 0);
}

static void
test_done_may_start_the_next(void)
{
    g_autoptr(BfRing) ring = ring_new(1);
    bf_autofd fd = bf_test_temp_file(0);
    Chain chains[10];

    for (int i = 0; i < 10; i++) {
        chains[i] = (Chain){{.done = chain_done}, ring, fd, 20};
        bf_ring_fdatasync(ring, &chains[i].op, fd);
    }
    while (bf_ring_pending(ring) > 0) {
        bf_ring_wait(ring, UINT64_MAX);
    }
    for (int i = 0; i < 10; i++) {
        g_assert_cmpint(chains[i].left, ==, 0);
    }
}

static uint64_t
now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * BF_NS_PER_SEC + (uint64_t)ts.tv_nsec;
}

static void
test_wait_ends_in_time(void)
{
    g_autoptr(BfRing) ring = ring_new(8);

    for (int i = 0; i < 3; i++) {
        uint64_t begin = now_ns();
        unsigned count = bf_ring_wait(ring, 5 * BF_NS_PER_MS);

        g_assert_cmpuint(count, ==, 0);
        g_assert_cmpuint(now_ns() - begin, >=, 5 * BF_NS_PER_MS);
    }
    g_assert_cmpuint(bf_ring_wait(ring, 0), ==, 0);
}

/* Wake-ups. */

#define WAKES 200

typedef struct Waker {
    BfRing *target;
    bool by_ring;
} Waker;

static void *
waker_thread(void *arg)
{
    const Waker *waker = arg;
    BfRing *own = waker->by_ring ? ring_new(8) : NULL;

    for (int i = 0; i < WAKES; i++) {
        if (waker->by_ring) {
            bf_ring_wake(own, waker->target);
        } else {
            bf_ring_notify(waker->target);
        }
        if (waker->by_ring && i % 3 == 0) {
            bf_ring_submit(own);
        }
    }
    bf_ring_free(own);
    return NULL;
}

static void
test_every_wake_is_counted(void)
{
    for (int by_ring = 0; by_ring < 2; by_ring++) {
        g_autoptr(BfRing) ring = ring_new(2);
        Waker waker = {ring, by_ring != 0};
        pthread_t thread;

        g_assert_cmpint(pthread_create(&thread, NULL, waker_thread, &waker), ==,
                        0);
        while (bf_ring_wakes(ring) < WAKES) {
            bf_ring_wait(ring, UINT64_MAX);
        }
        g_assert_cmpuint(bf_ring_wakes(ring), ==, WAKES);
        pthread_join(thread, NULL);
    }
}

static void *
late_notify(void *arg)
{
    bf_ring_notify(arg);
    return NULL;
}

/* With a timeout and something else on the way, as loops wait. */
static void
test_notify_ends_a_limited_wait(void)
{
    g_autoptr(BfRing) ring = ring_new(8);
    pthread_t thread;

    g_assert_cmpint(pthread_create(&thread, NULL, late_notify, ring), ==, 0);
    while (bf_ring_wakes(ring) == 0) {
        bf_ring_wait(ring, 1000 * BF_NS_PER_SEC);
    }
    pthread_join(thread, NULL);
}

/* Features. */

static void
with_mask(const char *mask, unsigned forbidden)
{
    g_autofree char *old = g_strdup(g_getenv("BLOCKFERRY_URING_MASK"));
    BfRing *ring;
    Op op;
    int fds[2];

    g_setenv("BLOCKFERRY_URING_MASK", mask, TRUE);
    ring = ring_new(8);
    g_assert_cmpuint(bf_ring_features(ring) & forbidden, ==, 0);
    g_assert_cmpint(pipe(fds), ==, 0);
    bf_ring_poll(ring, start(&op), fds[0], POLLIN);
    bf_ring_wait(ring, BF_NS_PER_MS);
    g_assert_cmpint(write(fds[1], "x", 1), ==, 1);
    g_assert_cmpint(finish(ring, &op), ==, POLLIN);
    close(fds[0]);
    close(fds[1]);
    bf_ring_free(ring);
    if (old != NULL) {
        g_setenv("BLOCKFERRY_URING_MASK", old, TRUE);
    } else {
        g_unsetenv("BLOCKFERRY_URING_MASK");
    }
}

static void
test_each_feature_can_be_masked(void)
{
    for (unsigned i = 0; i < BF_RING_FEATURE_COUNT; i++) {
        g_autofree char *rest = g_strjoin(
            ", ", bf_ring_feature_names[i],
            bf_ring_feature_names[(i + 1) % BF_RING_FEATURE_COUNT], NULL);

        with_mask(bf_ring_feature_names[i], 1u << i);
        with_mask(rest, 1u << i | 1u << (i + 1) % BF_RING_FEATURE_COUNT);
    }
    with_mask("all", ~0u);
    with_mask("", 0);
}

static void
test_unknown_mask_is_refused(void)
{
    g_autofree char *old = g_strdup(g_getenv("BLOCKFERRY_URING_MASK"));
    g_autoptr(GError) error = NULL;

    g_setenv("BLOCKFERRY_URING_MASK", "msg-ring,sqpoll", TRUE);
    g_assert_null(bf_ring_new(8, &error));
    g_assert_error(error, BF_ERROR, BF_ERROR_GENERIC);
    g_assert_nonnull(strstr(error->message, "'sqpoll'"));
    g_assert_nonnull(strstr(error->message, "ext-arg"));
    if (old != NULL) {
        g_setenv("BLOCKFERRY_URING_MASK", old, TRUE);
    } else {
        g_unsetenv("BLOCKFERRY_URING_MASK");
    }
}

/* Makes io_uring_setup() fail with @err in this process from now on. */
static void
forbid_io_uring(int err)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)err),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {G_N_ELEMENTS(code), code};

    g_assert_cmpint(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), ==, 0);
    g_assert_cmpint(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), ==,
                    0);
}

/* Each case in a process of its own; the argument is the errno. */
static void
test_failure_is_explained(gconstpointer arg)
{
    int err = GPOINTER_TO_INT(arg);

    if (g_test_subprocess()) {
        g_autoptr(BfClock) clock = bf_clock_new_system();
        g_autoptr(GError) error = NULL;
        g_autoptr(GError) main_error = NULL;

        forbid_io_uring(err);
        g_assert_null(bf_ring_new(8, &error));
        g_assert_null(bf_loop_new_main(clock, &main_error));
        g_assert_cmpstr(error->message, ==, main_error->message);
        g_printerr("%s", error->message);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
    g_test_trap_assert_stderr(err == EPERM    ? "*forbidden*seccomp*"
                              : err == ENOSYS ? "*missing*CONFIG_IO_URING*"
                              : err == ENOMEM ? "*locked memory*"
                                              : "*open files*");
}

static void
test_worker_failure_is_explained(void)
{
    if (g_test_subprocess()) {
        g_autoptr(BfClock) clock = bf_clock_new_system();
        g_autoptr(GError) error = NULL;
        BfLoop *loop = bf_loop_new_main(clock, &error);

        g_assert_no_error(error);
        forbid_io_uring(EPERM);
        g_assert_null(bf_loop_new_worker(loop, "worker", &error));
        g_assert_error(error, BF_ERROR, BF_ERROR_GENERIC);
        bf_loop_free(loop);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_passed();
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/core/ring/op/file", test_file_ops);
    g_test_add_func("/core/ring/op/socket", test_socket_ops);
    g_test_add_func("/core/ring/op/connect", test_connect);
    g_test_add_func("/core/ring/op/splice", test_splice);
    g_test_add_func("/core/ring/cancel/ends-the-op", test_cancel);
    g_test_add_func("/core/ring/queue/more-than-they-hold",
                    test_more_than_the_queues_hold);
    g_test_add_func("/core/ring/queue/many-leave-early", test_many_leave_early);
    g_test_add_func("/core/ring/queue/completions-overflow",
                    test_completions_overflow);
    g_test_add_func("/core/ring/queue/all-that-is-ready-comes-at-once",
                    test_all_that_is_ready_comes_at_once);
    g_test_add_func("/core/ring/queue/done-may-start-the-next",
                    test_done_may_start_the_next);
    g_test_add_func("/core/ring/wait/ends-in-time", test_wait_ends_in_time);
    g_test_add_func("/core/ring/wake/every-one-is-counted",
                    test_every_wake_is_counted);
    g_test_add_func("/core/ring/wake/notify-ends-a-limited-wait",
                    test_notify_ends_a_limited_wait);
    g_test_add_func("/core/ring/features/each-can-be-masked",
                    test_each_feature_can_be_masked);
    g_test_add_func("/core/ring/features/unknown-mask-is-refused",
                    test_unknown_mask_is_refused);
    g_test_add_data_func("/core/ring/failure/forbidden-is-explained",
                         GINT_TO_POINTER(EPERM), test_failure_is_explained);
    g_test_add_data_func("/core/ring/failure/missing-is-explained",
                         GINT_TO_POINTER(ENOSYS), test_failure_is_explained);
    g_test_add_data_func("/core/ring/failure/no-memory-is-explained",
                         GINT_TO_POINTER(ENOMEM), test_failure_is_explained);
    g_test_add_data_func("/core/ring/failure/no-descriptor-is-explained",
                         GINT_TO_POINTER(EMFILE), test_failure_is_explained);
    g_test_add_func("/core/ring/failure/worker-is-explained",
                    test_worker_failure_is_explained);
    return g_test_run();
}
