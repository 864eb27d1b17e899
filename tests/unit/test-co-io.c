/* SPDX-License-Identifier: GPL-2.0-or-later */
/* I/O for coroutines: files, sockets, pipes, time limits, cancelling. */
#include "core/co-io.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/co-lock.h"
#include "core/loop.h"
#include "core/util.h"
#include "harness.h"

/* Files. */

static void
test_file_write_read(void *arg)
{
    bf_autofd fd = bf_test_temp_file(0);
    char first[3000];
    char second[5000];
    char back[8001];
    struct iovec out[2] = {{first, sizeof(first)}, {second, sizeof(second)}};
    struct iovec in = {back, sizeof(back)};

    memset(first, 'a', sizeof(first));
    memset(second, 'b', sizeof(second));
    g_assert_cmpint(bf_co_writev(fd, out, 2, 100, 0, 0), ==, 8000);
    g_assert_cmpint(
        bf_co_writev(fd, out, 1, 10000, RWF_DSYNC, BF_CO_IO_ON_WORKER), ==,
        3000);
    g_assert_cmpint(bf_co_readv(fd, &in, 1, 99, BF_CO_IO_ON_WORKER), ==,
                    sizeof(back));
    g_assert_cmpint(back[0], ==, 0);
    g_assert_cmpmem(back + 1, 3000, first, 3000);
    g_assert_cmpmem(back + 3001, 5000, second, 5000);
    g_assert_cmpint(bf_co_readv(fd, out, 2, 12999, 0), ==, 1);
    g_assert_cmpint(bf_co_readv(fd, out, 2, 13000, 0), ==, 0);
    g_assert_cmpint(bf_co_fdatasync(fd), ==, 0);
    g_assert_cmpint(bf_co_fallocate(fd, 0, 0, 1 << 20), ==, 0);
    g_assert_cmpint(lseek(fd, 0, SEEK_END), ==, 1 << 20);
}

static void
test_file_errors(void *arg)
{
    bf_autofd fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    bf_autofd full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    char byte = 0;
    struct iovec iov = {&byte, 1};

    g_assert_cmpint(bf_co_writev(fd, &iov, 1, 0, 0, 0), ==, -EBADF);
    g_assert_cmpint(bf_co_writev(full, &iov, 1, 0, 0, 0), ==, -ENOSPC);
    g_assert_cmpint(bf_co_readv(-1, &iov, 1, 0, 0), ==, -EBADF);
    g_assert_cmpint(bf_co_fallocate(full, 0, 0, 1), <, 0);
}

/* Sockets. */

static void
socket_pair(int fds[2], int flags)
{
    g_assert_cmpint(
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0, fds), ==, 0);
}

typedef struct Writer {
    int fd;
    size_t bytes;
    size_t sent;
    BfWaitGroup *group;
} Writer;

static void
writer_body(void *arg)
{
    Writer *self = arg;
    g_autofree char *data = g_malloc(self->bytes);

    for (size_t i = 0; i < self->bytes; i++) {
        data[i] = (char)(i * 7 + i / 251);
    }
    while (self->sent < self->bytes) {
        struct iovec iov = {data + self->sent, self->bytes - self->sent};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        ssize_t n = bf_co_sendmsg(self->fd, &msg, 0);

        g_assert_cmpint(n, >, 0);
        self->sent += (size_t)n;
    }
    g_assert_cmpint(shutdown(self->fd, SHUT_WR), ==, 0);
    bf_wait_group_done(self->group);
}

static void
transfer(int from, int to, int flags)
{
    BfWaitGroup group = {.count = 1};
    Writer writer = {from, 3 * 1024 * 1024 + 17, 0, &group};
    g_autofree char *buf = g_malloc(100000);
    size_t got = 0;
    ssize_t n;

    bf_co_spawn(writer_body, &writer);
    while ((n = bf_co_recv(to, buf, 100000, flags, NULL)) > 0) {
        for (ssize_t i = 0; i < n; i++, got++) {
            g_assert_cmpint(buf[i], ==, (char)(got * 7 + got / 251));
        }
        if (flags & MSG_WAITALL) {
            g_assert_true(n == 100000 || got == writer.bytes);
        }
    }
    g_assert_cmpint(n, ==, 0);
    g_assert_cmpuint(got, ==, writer.bytes);
    bf_wait_group_co_wait(&group);
}

static void
test_socket_carries_more_than_fits(void *arg)
{
    for (int i = 0; i < 4; i++) {
        int fds[2];

        socket_pair(fds, i & 1 ? SOCK_NONBLOCK : 0);
        transfer(fds[0], fds[1], i & 2 ? MSG_WAITALL : 0);
        close(fds[0]);
        close(fds[1]);
    }
}

typedef struct Receiver {
    int fd;
    BfInterrupt interrupt;
    ssize_t result;
    bool done;
} Receiver;

static void
receiver_body(void *arg)
{
    Receiver *self = arg;
    char buf[16];

    self->result = bf_co_recv(self->fd, buf, sizeof(buf), 0, &self->interrupt);
    self->done = true;
}

static void
test_socket_shutdown_ends_recv(void *arg)
{
    int fds[2];
    Receiver receiver = {.result = -1};

    socket_pair(fds, 0);
    receiver.fd = fds[0];
    bf_co_spawn(receiver_body, &receiver);
    bf_co_sleep_ns(BF_NS_PER_MS);
    g_assert_false(receiver.done);
    shutdown(fds[0], SHUT_RDWR);
    while (!receiver.done) {
        bf_co_yield();
    }
    g_assert_cmpint(receiver.result, ==, 0);
    close(fds[0]);
    close(fds[1]);
}

static void
co_receive(Receiver *receiver)
{
    receiver->done = false;
    bf_co_spawn(receiver_body, receiver);
    bf_co_yield();
}

static void
co_wait_received(const Receiver *receiver)
{
    while (!receiver->done) {
        bf_co_yield();
    }
}

static void
test_interrupt_ends_one_wait(void *arg)
{
    int fds[2];
    Receiver receiver = {.result = -1};

    socket_pair(fds, 0);
    receiver.fd = fds[0];
    bf_interrupt_fire(&receiver.interrupt); /* nobody waits yet */
    for (int i = 0; i < 3; i++) {
        co_receive(&receiver);
        bf_interrupt_fire(&receiver.interrupt);
        bf_interrupt_fire(&receiver.interrupt);
        co_wait_received(&receiver);
        g_assert_cmpint(receiver.result, ==, -ECANCELED);
        bf_interrupt_fire(&receiver.interrupt);
    }
    co_receive(&receiver);
    g_assert_false(receiver.done);
    g_assert_cmpint(write(fds[1], "abc", 3), ==, 3);
    co_wait_received(&receiver);
    g_assert_cmpint(receiver.result, ==, 3);
    close(fds[0]);
    close(fds[1]);
}

/* What comes just before or after it is neither lost nor waited for. */
static void
test_interrupt_loses_no_bytes(void *arg)
{
    int fds[2];
    Receiver receiver = {0};
    int sent = 0;
    int received = 0;

    socket_pair(fds, 0);
    receiver.fd = fds[0];
    for (int i = 0; i < 100; i++) {
        co_receive(&receiver);
        if (i % 3 != 0) {
            g_assert_cmpint(write(fds[1], "x", 1), ==, 1);
            sent++;
        }
        if (i % 2 != 0) {
            bf_co_yield();
        }
        bf_interrupt_fire(&receiver.interrupt);
        co_wait_received(&receiver);
        g_assert_true(receiver.result > 0 || receiver.result == -ECANCELED);
        received += receiver.result > 0 ? (int)receiver.result : 0;
    }
    shutdown(fds[1], SHUT_WR);
    while (received < sent) {
        co_receive(&receiver);
        co_wait_received(&receiver);
        g_assert_cmpint(receiver.result, >, 0);
        received += (int)receiver.result;
    }
    g_assert_cmpint(received, ==, sent);
    close(fds[0]);
    close(fds[1]);
}

static void
count_call(void *arg)
{
    g_assert_null(bf_co_self());
    ++*(int *)arg;
}

static void
co_wait_calls(const int *calls, int n)
{
    while (*calls < n) {
        bf_co_yield();
    }
}

static void
test_watch_tells_once_that_bytes_are_there(void *arg)
{
    BfWatch watch = {0};
    int calls = 0;
    int fds[2];

    socket_pair(fds, 0);
    for (int i = 1; i <= 3; i++) {
        /* Those of the last round are still there. */
        bf_watch_start(&watch, fds[0], POLLIN, count_call, &calls);
        if (i == 1) {
            bf_co_sleep_ns(BF_NS_PER_MS);
            g_assert_cmpint(calls, ==, 0);
            g_assert_cmpint(write(fds[1], "abc", 3), ==, 3);
        }
        co_wait_calls(&calls, i);
    }
    bf_co_sleep_ns(BF_NS_PER_MS);
    g_assert_cmpint(calls, ==, 3);
    close(fds[0]);
    close(fds[1]);
}

static void
test_watch_tells_the_end(void *arg)
{
    for (int way = 0; way < 3; way++) {
        BfWatch watch = {0};
        int calls = 0;
        int fds[2];

        socket_pair(fds, 0);
        bf_watch_start(&watch, fds[0], POLLIN, count_call, &calls);
        bf_co_yield();
        if (way == 2) {
            shutdown(fds[1], SHUT_WR);
        } else {
            shutdown(fds[0], way == 1 ? SHUT_RD : SHUT_RDWR);
        }
        co_wait_calls(&calls, 1);
        close(fds[0]);
        close(fds[1]);
    }
}

static void
send_byte_co_run(void *arg)
{
    const int *fd = arg;

    bf_co_yield();
    g_assert_cmpint(send(*fd, "x", 1, 0), ==, 1);
}

static void
test_socket_awaits_bytes_and_leaves_them(void *arg)
{
    char byte = 0;
    int fds[2];

    socket_pair(fds, 0);
    bf_co_spawn_later(send_byte_co_run, &fds[1]);
    g_assert_cmpint(bf_co_await_bytes_soon(fds[0]), ==, 0);
    g_assert_cmpint(bf_co_await_bytes_soon(fds[0]), ==, 0);
    g_assert_cmpint(recv(fds[0], &byte, 1, MSG_DONTWAIT), ==, 1);
    g_assert_cmpint(byte, ==, 'x');
    close(fds[1]);
    g_assert_cmpint(bf_co_await_bytes_soon(fds[0]), ==, 0);
    g_assert_cmpint(recv(fds[0], &byte, 1, MSG_DONTWAIT), ==, 0);
    close(fds[0]);
}

static void
test_socket_send_to_closed_peer(void *arg)
{
    int fds[2];
    char byte = 1;
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    socket_pair(fds, 0);
    close(fds[1]);
    g_assert_cmpint(bf_co_sendmsg(fds[0], &msg, 0), ==, -EPIPE);
    g_assert_cmpint(bf_co_recv(fds[0], &byte, 1, 0, NULL), ==, 0);
    close(fds[0]);
}

static void
test_socket_passes_descriptors(void *arg)
{
    bf_autofd file = bf_test_temp_file(12345);
    char control[CMSG_SPACE(sizeof(int))] = {0};
    char byte = 'x';
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
    int fds[2];
    int got;

    socket_pair(fds, 0);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(head), &file, sizeof(int));
    g_assert_cmpint(bf_co_sendmsg(fds[0], &msg, 0), ==, 1);
    memset(control, 0, sizeof(control));
    g_assert_cmpint(bf_co_recvmsg(fds[1], &msg, MSG_CMSG_CLOEXEC), ==, 1);
    head = CMSG_FIRSTHDR(&msg);
    g_assert_nonnull(head);
    memcpy(&got, CMSG_DATA(head), sizeof(int));
    g_assert_cmpint(lseek(got, 0, SEEK_END), ==, 12345);
    close(got);
    close(fds[0]);
    close(fds[1]);
}

/* Accept and connect. */

static int
listen_tcp(struct sockaddr_in *ret_addr)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t len = sizeof(*ret_addr);

    *ret_addr = (struct sockaddr_in){.sin_family = AF_INET,
                                     .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    g_assert_cmpint(bind(fd, (struct sockaddr *)ret_addr, len), ==, 0);
    g_assert_cmpint(listen(fd, 5), ==, 0);
    g_assert_cmpint(getsockname(fd, (struct sockaddr *)ret_addr, &len), ==, 0);
    return fd;
}

static void
test_connect_accept_tcp(void *arg)
{
    struct sockaddr_in addr;
    bf_autofd server = listen_tcp(&addr);

    for (int flags = 0; flags <= SOCK_NONBLOCK; flags += SOCK_NONBLOCK) {
        bf_autofd client =
            socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
        int peer;

        g_assert_cmpint(bf_co_connect(client, (struct sockaddr *)&addr,
                                      sizeof(addr), BF_NS_PER_SEC, NULL),
                        ==, 0);
        peer = bf_test_co_accept(server, NULL);
        g_assert_cmpint(peer, >=, 0);
        g_assert_cmpint(fcntl(peer, F_GETFD) & FD_CLOEXEC, !=, 0);
        transfer(client, peer, 0);
        close(peer);
    }
}

static void
test_connect_refused(void *arg)
{
    struct sockaddr_in addr;
    int server = listen_tcp(&addr);
    bf_autofd client =
        socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_un missing = {AF_UNIX, "/nonexistent/socket"};
    bf_autofd local =
        socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    close(server);
    g_assert_cmpint(bf_co_connect(client, (struct sockaddr *)&addr,
                                  sizeof(addr), BF_FOREVER, NULL),
                    ==, -ECONNREFUSED);
    g_assert_cmpint(bf_co_connect(local, (struct sockaddr *)&missing,
                                  sizeof(missing), BF_FOREVER, NULL),
                    ==, -ENOENT);
}

/* A UNIX listener whose queue is full takes no more until someone accepts. */
static void
test_connect_times_out(void *arg)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    g_autofree char *path = bf_test_temp_path();
    bf_autofd server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bf_autofd first =
        socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bf_autofd second =
        socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int ret;

    g_strlcpy(addr.sun_path, path, sizeof(addr.sun_path));
    g_assert_cmpint(bind(server, (struct sockaddr *)&addr, sizeof(addr)), ==,
                    0);
    g_assert_cmpint(listen(server, 0), ==, 0);
    g_assert_cmpint(bf_co_connect(first, (struct sockaddr *)&addr, sizeof(addr),
                                  BF_FOREVER, NULL),
                    ==, 0);
    ret = bf_co_connect(second, (struct sockaddr *)&addr, sizeof(addr),
                        20 * BF_NS_PER_MS, NULL);
    g_assert_cmpint(ret, ==, -ETIMEDOUT);
}

/* Cancel and time limits. */

typedef enum WaitKind {
    WAIT_POLL,
    WAIT_SLEEP,
    WAIT_SLEEP_FOREVER,
    WAIT_POLL_LIMITED,
    WAIT_KINDS,
} WaitKind;

typedef struct Wait {
    WaitKind kind;
    int fd;
    BfCancel *cancel;
    int result;
    BfWaitGroup *group;
} Wait;

static int
wait_co_once(const Wait *self)
{
    switch (self->kind) {
    case WAIT_POLL:
        return bf_co_poll(self->fd, POLLIN, BF_FOREVER, self->cancel);
    case WAIT_SLEEP:
        return bf_co_sleep_cancel(1000 * BF_NS_PER_SEC, self->cancel);
    case WAIT_SLEEP_FOREVER:
        return bf_co_sleep_cancel(BF_FOREVER, self->cancel);
    default:
        return bf_co_poll(self->fd, POLLIN, 1000 * BF_NS_PER_SEC, self->cancel);
    }
}

static void
wait_body(void *arg)
{
    Wait *self = arg;

    self->result = wait_co_once(self);
    bf_wait_group_done(self->group);
}

static void
test_cancel_ends_all_waits(void *arg)
{
    struct sockaddr_in addr;
    bf_autofd server = listen_tcp(&addr);

    for (int turns = 0; turns < 4; turns++) {
        BfCancel cancel = {false};
        BfWaitGroup group = {.count = 0};
        Wait waits[3 * WAIT_KINDS];

        for (int i = 0; i < 3 * WAIT_KINDS; i++) {
            waits[i] =
                (Wait){(WaitKind)(i % WAIT_KINDS), server, &cancel, 0, &group};
            bf_wait_group_add(&group, 1);
            bf_co_spawn(wait_body, &waits[i]);
        }
        for (int i = 0; i < turns; i++) {
            bf_co_sleep_ns(turns);
        }
        bf_cancel_fire(&cancel);
        bf_wait_group_co_wait(&group);
        for (int i = 0; i < 3 * WAIT_KINDS; i++) {
            g_assert_cmpint(waits[i].result, ==, -ECANCELED);
            g_assert_cmpint(wait_co_once(&waits[i]), ==, -ECANCELED);
        }
        bf_cancel_fire(&cancel);
    }
}

static void
test_cancel_unused_leaves_results_alone(void *arg)
{
    BfCancel cancel = {false};
    int fds[2];

    socket_pair(fds, 0);
    g_assert_cmpint(bf_co_poll(fds[0], POLLOUT, BF_FOREVER, &cancel), ==,
                    POLLOUT);
    g_assert_cmpint(bf_co_sleep_cancel(1000, &cancel), ==, 0);
    g_assert_null(cancel.waiters);
    close(fds[1]);
    g_assert_cmpint(bf_co_poll(fds[0], POLLIN, BF_NS_PER_SEC, &cancel) &
                        (POLLIN | POLLHUP),
                    ==, POLLIN | POLLHUP);
    g_assert_null(cancel.waiters);
    close(fds[0]);
}

/* Work that ends when it can read from a pipe, and tells when it is freed. */
typedef struct Work {
    int wait_fd;
    int freed_fd;
    bool done;
} Work;

static void
work_run(void *arg)
{
    Work *work = arg;
    char byte = 0;

    g_assert_cmpint(read(work->wait_fd, &byte, 1), >=, 0);
    work->done = true;
}

static void
work_free(void *arg)
{
    Work *work = arg;

    g_assert_cmpint(write(work->freed_fd, "f", 1), ==, 1);
    g_free(work);
}

static int
work_co_do(BfPoolLane *lane, const int wait[2], const int freed[2],
           uint64_t timeout_ns, BfCancel *cancel)
{
    Work *work = g_new0(Work, 1);
    int ret;

    work->wait_fd = wait[0];
    work->freed_fd = freed[1];
    ret = bf_co_offload_cancel(lane, work_run, work, work_free, timeout_ns,
                               cancel);
    if (ret == 0) {
        g_assert_true(work->done);
        g_free(work);
    }
    return ret;
}

static void
make_pipes(int wait[2], int freed[2])
{
    g_assert_cmpint(pipe2(wait, O_CLOEXEC), ==, 0);
    g_assert_cmpint(pipe2(freed, O_CLOEXEC), ==, 0);
}

static void
close_pipes(const int wait[2], const int freed[2])
{
    close(wait[0]);
    close(freed[0]);
    close(freed[1]);
}

static void
test_offload_cancel_gives_the_argument_back(void *arg)
{
    BfCancel cancel = {false};
    BfPoolLane *lane = bf_pool_lane_new("test", 1);
    int wait[2];
    int freed[2];

    make_pipes(wait, freed);
    close(wait[1]);
    g_assert_cmpint(work_co_do(lane, wait, freed, BF_FOREVER, &cancel), ==, 0);
    g_assert_cmpint(work_co_do(lane, wait, freed, BF_FOREVER, NULL), ==, 0);
    g_assert_null(cancel.waiters);
    bf_pool_lane_free(lane);
    close_pipes(wait, freed);
}

static void
test_offload_cancel_leaves_hanging_work_alone(void *arg)
{
    BfCancel cancel = {false};
    BfPoolLane *lane = bf_pool_lane_new("test", 1);
    int wait[2];
    int freed[2];
    char byte = 0;
    int n = 1;
    int ret;

    make_pipes(wait, freed);
    g_assert_cmpint(work_co_do(lane, wait, freed, BF_NS_PER_MS, &cancel), ==,
                    -ETIMEDOUT);
    bf_cancel_fire(&cancel);
    while ((ret = work_co_do(lane, wait, freed, BF_FOREVER, &cancel)) ==
           -ECANCELED) {
        n++;
        g_assert_cmpint(n, <, 10000);
    }
    g_assert_cmpint(ret, ==, -EBUSY); /* it does not pile up for ever */
    g_assert_cmpint(read(freed[0], &byte, 1), ==, 1);
    bf_pool_lane_free(lane);
    close(wait[1]);
    for (; n > 0; n--) {
        g_assert_cmpint(read(freed[0], &byte, 1), ==, 1);
    }
    close_pipes(wait, freed);
}

static void
test_poll_times_out_by_the_clock(void *arg)
{
    BfWaitGroup group = {.count = 1};
    Wait wait = {WAIT_POLL_LIMITED, -1, NULL, 1, &group};
    int fds[2];

    socket_pair(fds, 0);
    wait.fd = fds[0];
    bf_co_spawn(wait_body, &wait);
    bf_test_advance(1000 * BF_NS_PER_SEC - 1);
    g_assert_cmpint(wait.result, ==, 1);
    bf_test_advance(1);
    bf_wait_group_co_wait(&group);
    g_assert_cmpint(wait.result, ==, -ETIMEDOUT);
    g_assert_cmpint(bf_co_poll(fds[0], POLLIN, 0, NULL), ==, -ETIMEDOUT);
    g_assert_cmpint(bf_co_poll(fds[0], POLLOUT, 0, NULL), ==, POLLOUT);
    close(fds[0]);
    close(fds[1]);
}

static void
test_sleep_waits_for_the_clock(void *arg)
{
    uint64_t start = bf_loop_now_ns();

    g_assert_cmpint(bf_co_sleep_ns(0), ==, 0);
    g_assert_cmpint(bf_co_sleep_ns(3 * BF_NS_PER_MS), ==, 0);
    g_assert_cmpuint(bf_loop_now_ns() - start, >=, 3 * BF_NS_PER_MS);
}

/* Splice. */

static void
test_splice_file_to_socket(void *arg)
{
    bf_autofd file = bf_test_temp_file(0);
    g_autofree char *data = g_malloc(50000);
    g_autofree char *back = g_malloc(50000);
    int pipes[2];
    int fds[2];

    for (size_t i = 0; i < 50000; i++) {
        data[i] = (char)(i / 3);
    }
    g_assert_cmpint(write(file, data, 50000), ==, 50000);
    g_assert_cmpint(pipe2(pipes, O_CLOEXEC), ==, 0);
    socket_pair(fds, 0);
    g_assert_cmpint(bf_co_splice(file, 1000, pipes[1], -1, 40000, 0), ==,
                    40000);
    g_assert_cmpint(bf_co_splice(pipes[0], -1, fds[0], -1, 40000, 0), ==,
                    40000);
    g_assert_cmpint(bf_co_recv(fds[1], back, 40000, MSG_WAITALL, NULL), ==,
                    40000);
    g_assert_cmpmem(back, 40000, data + 1000, 40000);
    g_assert_cmpint(bf_co_splice(file, 50000, pipes[1], -1, 100, 0), ==, 0);
    close(fds[0]);
    close(fds[1]);
    close(pipes[0]);
    close(pipes[1]);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/core/co-io/file/write-read", test_file_write_read);
    bf_test_add("/core/co-io/file/errors", test_file_errors);
    bf_test_add("/core/co-io/socket/carries-more-than-fits",
                test_socket_carries_more_than_fits);
    bf_test_add("/core/co-io/socket/shutdown-ends-recv",
                test_socket_shutdown_ends_recv);
    bf_test_add("/core/co-io/socket/awaits-bytes-and-leaves-them",
                test_socket_awaits_bytes_and_leaves_them);
    bf_test_add("/core/co-io/socket/send-to-closed-peer",
                test_socket_send_to_closed_peer);
    bf_test_add("/core/co-io/interrupt/ends-one-wait",
                test_interrupt_ends_one_wait);
    bf_test_add("/core/co-io/interrupt/loses-no-bytes",
                test_interrupt_loses_no_bytes);
    bf_test_add("/core/co-io/watch/tells-once-that-bytes-are-there",
                test_watch_tells_once_that_bytes_are_there);
    bf_test_add("/core/co-io/watch/tells-the-end", test_watch_tells_the_end);
    bf_test_add("/core/co-io/socket/passes-descriptors",
                test_socket_passes_descriptors);
    bf_test_add("/core/co-io/connect/tcp", test_connect_accept_tcp);
    bf_test_add("/core/co-io/connect/refused", test_connect_refused);
    bf_test_add("/core/co-io/connect/times-out", test_connect_times_out);
    bf_test_add("/core/co-io/cancel/ends-all-waits",
                test_cancel_ends_all_waits);
    bf_test_add("/core/co-io/cancel/unused-leaves-results-alone",
                test_cancel_unused_leaves_results_alone);
    bf_test_add("/core/co-io/offload-cancel/gives-the-argument-back",
                test_offload_cancel_gives_the_argument_back);
    bf_test_add("/core/co-io/offload-cancel/leaves-hanging-work-alone",
                test_offload_cancel_leaves_hanging_work_alone);
    bf_test_add_fake("/core/co-io/poll/times-out-by-the-clock",
                     test_poll_times_out_by_the_clock);
    bf_test_add("/core/co-io/sleep/waits-for-the-clock",
                test_sleep_waits_for_the_clock);
    bf_test_add("/core/co-io/splice/file-to-socket",
                test_splice_file_to_socket);
    return g_test_run();
}
