/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The channel helpers over the memory channel, and the socket channel. */
#include "io/channel.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "core/co-io.h"
#include "core/co-lock.h"
#include "core/error.h"
#include "core/util.h"
#include "harness.h"
#include "io/address.h"
#include "io/channel-memory.h"
#include "io/channel-socket.h"

/* Reads 9 bytes from a channel that holds @text and then ends. */
static BfReadStatus
co_read_nine(const char *text, size_t max_chunk, char buf[9], GError **error)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(BfChannel) ch = bf_channel_memory_new(bytes, bytes, max_chunk);

    g_byte_array_append(bytes, (const guint8 *)text, strlen(text));
    return bf_channel_co_read_exact(ch, buf, 9, error);
}

static void
test_joins_short_reads(void)
{
    for (size_t max_chunk = 1; max_chunk <= 10; max_chunk++) {
        g_autoptr(GError) error = NULL;
        char buf[9];

        g_assert_cmpint(co_read_nine("ferryboat", max_chunk, buf, &error), ==,
                        BF_READ_DONE);
        g_assert_no_error(error);
        g_assert_cmpmem(buf, 9, "ferryboat", 9);
    }
}

static void
test_end_before_message_is_eof(void)
{
    g_autoptr(GError) error = NULL;
    char buf[9];

    g_assert_cmpint(co_read_nine("", 64, buf, &error), ==, BF_READ_EOF);
    g_assert_no_error(error);
}

static void
test_end_inside_message_fails(void)
{
    g_autoptr(GError) error = NULL;
    char buf[9];

    g_assert_cmpint(co_read_nine("ferry", 64, buf, &error), ==, BF_READ_FAILED);
    g_assert_error(error, BF_ERROR, BF_ERROR_GENERIC);
}

static void
test_writes_all_pieces(void)
{
    for (size_t max_chunk = 1; max_chunk <= 10; max_chunk++) {
        g_autoptr(GByteArray) bytes = g_byte_array_new();
        g_autoptr(BfChannel) ch =
            bf_channel_memory_new(bytes, bytes, max_chunk);
        struct iovec iov[] = {{(char *)"", 0},
                              {(char *)"fer", 3},
                              {(char *)"", 0},
                              {(char *)"ryboat", 6},
                              {(char *)"", 0}};
        g_autoptr(GError) error = NULL;

        g_assert_true(
            bf_channel_co_writev_all(ch, iov, G_N_ELEMENTS(iov), &error));
        g_assert_no_error(error);
        g_assert_cmpmem(bytes->data, bytes->len, "ferryboat", 9);
    }
}

static void
test_shutdown_makes_calls_fail(void)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(BfChannel) ch = bf_channel_memory_new(bytes, bytes, 1);
    g_autoptr(GError) error = NULL;
    char c = 'x';

    bf_channel_shutdown(ch);
    g_assert_cmpint(bf_channel_co_read(ch, &c, 1, &error), ==, -1);
    g_assert_error(error, BF_ERROR, BF_ERROR_GENERIC);
    g_assert_false(bf_channel_co_write_all(ch, &c, 1, NULL));
}

static void
new_pair(BfChannel **ret_a, BfChannel **ret_b)
{
    int fds[2];

    g_assert_cmpint(
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
        ==, 0);
    *ret_a = bf_channel_socket_new(fds[0]);
    *ret_b = bf_channel_socket_new(fds[1]);
}

/* One side of a big transfer. */
typedef struct Writer {
    BfChannel *channel;
    const char *data;
    size_t len;
    bool ok;
    BfWaitGroup group;
} Writer;

static void
writer_co_run(void *arg)
{
    Writer *writer = arg;

    writer->ok = bf_channel_co_write_all(writer->channel, writer->data,
                                         writer->len, NULL);
    bf_wait_group_done(&writer->group);
}

static void
socket_co_moves_more_than_it_holds(void *arg)
{
    const size_t len = 4 * BF_MIB;
    g_autofree char *data = g_malloc(len);
    g_autofree char *buf = g_malloc0(len);
    g_autoptr(BfChannel) a = NULL;
    g_autoptr(BfChannel) b = NULL;
    Writer writer = {.data = data, .len = len};

    for (size_t i = 0; i < len; i++) {
        data[i] = (char)(i * 31 >> 3);
    }
    new_pair(&a, &b);
    writer.channel = a;
    bf_wait_group_add(&writer.group, 1);
    bf_co_spawn(writer_co_run, &writer);
    g_assert_cmpint(bf_channel_co_read_exact(b, buf, len, NULL), ==,
                    BF_READ_DONE);
    bf_wait_group_co_wait(&writer.group);
    g_assert_true(writer.ok);
    g_assert_cmpmem(buf, len, data, len);
}

static void
shut_later_co_run(void *arg)
{
    bf_co_yield();
    bf_channel_shutdown(arg);
}

static void
socket_co_shutdown_ends_pending_read(void *arg)
{
    g_autoptr(BfChannel) a = NULL;
    g_autoptr(BfChannel) b = NULL;
    char c;

    new_pair(&a, &b);
    bf_co_spawn(shut_later_co_run, a);
    g_assert_cmpint(bf_channel_co_read(a, &c, 1, NULL), <=, 0);
    g_assert_cmpint(bf_channel_co_read(b, &c, 1, NULL), ==, 0);
    g_assert_false(bf_channel_co_write_all(a, "x", 1, NULL));
}

static void
shut_read_later_co_run(void *arg)
{
    bf_co_yield();
    bf_channel_shutdown_read(arg);
}

static void
socket_co_end_of_reading_leaves_writing(void *arg)
{
    g_autoptr(BfChannel) a = NULL;
    g_autoptr(BfChannel) b = NULL;
    char buf[3];

    new_pair(&a, &b);
    g_assert_true(bf_channel_co_write_all(b, "abc", 3, NULL));
    g_assert_cmpuint(b->sent, ==, 3);
    bf_channel_shutdown_read(a);
    g_assert_cmpint(bf_channel_co_read_exact(a, buf, 3, NULL), ==,
                    BF_READ_DONE);
    g_assert_cmpmem(buf, 3, "abc", 3);
    g_assert_cmpint(bf_channel_co_read(a, buf, 1, NULL), ==, 0);
    g_assert_true(bf_channel_co_write_all(a, "xy", 2, NULL));
    g_assert_cmpuint(a->sent, ==, 2);
    g_assert_cmpint(bf_channel_co_read_exact(b, buf, 2, NULL), ==,
                    BF_READ_DONE);
    g_assert_cmpmem(buf, 2, "xy", 2);
}

static void
socket_co_end_of_reading_ends_pending_read(void *arg)
{
    g_autoptr(BfChannel) a = NULL;
    g_autoptr(BfChannel) b = NULL;
    char c;

    new_pair(&a, &b);
    bf_co_spawn(shut_read_later_co_run, a);
    g_assert_cmpint(bf_channel_co_read(a, &c, 1, NULL), ==, 0);
}

/* Sends @count descriptors of the same file with one byte. */
static void
send_fds(int sock, int fd, unsigned count)
{
    g_autofree char *control = g_malloc0(CMSG_SPACE(sizeof(int) * count));
    struct iovec iov = {(char *)"x", 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = CMSG_SPACE(sizeof(int) * count)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int) * count);
    for (unsigned i = 0; i < count; i++) {
        memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &fd, sizeof(int));
    }
    g_assert_cmpint(sendmsg(sock, &msg, 0), ==, 1);
}

static void
socket_co_receives_descriptors(void *arg)
{
    static const unsigned sent[] = {1, BF_CHANNEL_FDS_MAX,
                                    BF_CHANNEL_FDS_MAX + 4};
    int pair[2];
    g_autoptr(BfChannel) ch = NULL;
    bf_autofd file = bf_test_temp_file(4096);
    struct stat want;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair),
                    ==, 0);
    ch = bf_channel_socket_new(pair[0]);
    g_assert_cmpint(ch->features & BF_CHANNEL_FD_PASS, !=, 0);
    fstat(file, &want);
    for (unsigned i = 0; i < G_N_ELEMENTS(sent); i++) {
        int fds[BF_CHANNEL_FDS_MAX];
        unsigned nfds = 0;
        char c;
        struct iovec iov = {&c, 1};

        send_fds(pair[1], file, sent[i]);
        g_assert_cmpint(bf_channel_co_readv_fds(ch, &iov, 1, fds, &nfds, NULL),
                        ==, 1);
        g_assert_cmpint(nfds, ==, MIN(sent[i], BF_CHANNEL_FDS_MAX));
        for (unsigned k = 0; k < nfds; k++) {
            struct stat st;

            g_assert_cmpint(fstat(fds[k], &st), ==, 0);
            g_assert_cmpint(st.st_ino, ==, want.st_ino);
            g_assert_cmpint(fcntl(fds[k], F_GETFD) & FD_CLOEXEC, !=, 0);
            close(fds[k]);
        }
    }
    close(pair[1]);
}

/* How much can wait in a socket channel when @sent bytes were. */
static int
co_send_room(bool bulk, size_t sent)
{
    g_autofree char *data = g_malloc0(sent + 1);
    g_autoptr(BfChannel) channel = NULL;
    int fds[2];
    int bytes = 0;
    socklen_t len = sizeof(bytes);

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==,
                    0);
    channel = bf_channel_socket_new(fds[0]);
    if (bulk) {
        bf_channel_socket_set_bulk(channel);
    }
    g_assert_true(bf_channel_co_write_all(channel, data, sent, NULL));
    g_assert_true(bf_channel_co_write_all(channel, data, 1, NULL));
    g_assert_cmpint(getsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &bytes, &len), ==,
                    0);
    close(fds[1]);
    return bytes;
}

static void
socket_co_has_room_for_bulk(void *arg)
{
    const int large = 400 * 1024;

    /* The usual limit of the system allows 416 KiB. */
    g_assert_cmpint(co_send_room(true, 8192), >=, large);
    g_assert_cmpint(co_send_room(true, 8192), >=, co_send_room(false, 8192));
    /* Who does not carry much has no need of it. */
    g_assert_cmpint(co_send_room(true, 100), ==, co_send_room(false, 100));
}

static void
socket_co_sends_pipe(void *arg)
{
    g_autoptr(BfChannel) a = NULL;
    g_autoptr(BfChannel) b = NULL;
    struct iovec head = {(char *)"head", 4};
    int pipe_fds[2];
    char buf[13] = "";

    new_pair(&a, &b);
    g_assert_cmpint(pipe(pipe_fds), ==, 0);
    g_assert_cmpint(write(pipe_fds[1], "ferryboat", 9), ==, 9);
    g_assert_true(bf_channel_co_writev_all_more(a, &head, 1, NULL));
    g_assert_true(bf_channel_co_send_pipe_all(a, pipe_fds[0], 9, NULL));
    g_assert_cmpint(bf_channel_co_read_exact(b, buf, 13, NULL), ==,
                    BF_READ_DONE);
    g_assert_cmpmem(buf, 13, "headferryboat", 13);
    /* An empty pipe is an error, not an endless wait. */
    g_assert_false(bf_channel_co_send_pipe_all(a, pipe_fds[0], 1, NULL));
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

/* TCP over the loopback interface. */
static void
new_tcp_pair(BfChannel **ret_a, BfChannel **ret_b)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr *address = (struct sockaddr *)&in;
    socklen_t len = sizeof(in);
    bf_autofd listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int a = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int b;

    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    g_assert_cmpint(bind(listener, address, len), ==, 0);
    g_assert_cmpint(listen(listener, 1), ==, 0);
    g_assert_cmpint(getsockname(listener, address, &len), ==, 0);
    g_assert_cmpint(connect(a, address, len), ==, 0);
    b = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    g_assert_cmpint(b, >=, 0);
    g_assert_cmpint(fcntl(a, F_SETFL, O_NONBLOCK), ==, 0);
    g_assert_true(bf_socket_is_loopback(a));
    g_assert_true(bf_socket_is_loopback(b));
    *ret_a = bf_channel_socket_new(a);
    *ret_b = bf_channel_socket_new(b);
}

/* Sends 64 MiB through a pipe to a peer that it spares. */
typedef struct PipeWriter {
    BfChannel *channel;
    int fds[2];
    size_t put; /* into the pipe */
    bool failed;
    bool ended;
} PipeWriter;

#define PIPED_BYTES (64 * (size_t)BF_MIB)

/* Numbers of 4 bytes. */
static void
fill(uint32_t *numbers, size_t first, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        numbers[i] = (uint32_t)(first + i);
    }
}

static void
pipe_writer_co_run(void *arg)
{
    PipeWriter *writer = arg;
    uint32_t page[1024];

    while (writer->put < PIPED_BYTES && !writer->failed) {
        size_t before = writer->put;

        /* Until it is full, or the end. */
        while (writer->put < PIPED_BYTES) {
            fill(page, writer->put / sizeof(*page), G_N_ELEMENTS(page));
            if (write(writer->fds[1], page, sizeof(page)) != sizeof(page)) {
                break;
            }
            writer->put += sizeof(page);
        }
        writer->failed = !bf_channel_co_send_pipe_all(
            writer->channel, writer->fds[0], writer->put - before, NULL);
    }
    writer->ended = true;
}

/* What was taken from the pipe and is not sent: that is being copied. */
static size_t
in_copy(const PipeWriter *writer)
{
    int left = 0;

    g_assert_cmpint(ioctl(writer->fds[0], FIONREAD, &left), ==, 0);
    return writer->put - writer->channel->sent - (size_t)left;
}

/* Returns a peer that is behind by so much that it gets copies. */
static BfChannel *
pipe_writer_co_start(PipeWriter *writer)
{
    BfChannel *peer = NULL;

    new_tcp_pair(&writer->channel, &peer);
    bf_channel_socket_spare_peer(writer->channel);
    g_assert_cmpint(bf_pipe_open(writer->fds, BF_MIB), >=, 4096);
    bf_co_spawn(pipe_writer_co_run, writer);
    while (in_copy(writer) == 0) {
        bf_co_yield();
    }
    return peer;
}

static void
pipe_writer_co_end(PipeWriter *writer)
{
    while (!writer->ended) {
        bf_co_yield();
    }
    bf_channel_free(writer->channel);
    close(writer->fds[0]);
    close(writer->fds[1]);
}

/* However far behind the peer is, it gets everything, and in order. */
static void
socket_co_spares_slow_peer(void *arg)
{
    PipeWriter writer = {0};
    g_autoptr(BfChannel) peer = pipe_writer_co_start(&writer);
    g_autofree uint32_t *got = g_malloc(BF_MIB);
    g_autofree uint32_t *want = g_malloc(BF_MIB);

    for (size_t pos = 0; pos < PIPED_BYTES; pos += BF_MIB) {
        g_assert_cmpint(bf_channel_co_read_exact(peer, got, BF_MIB, NULL), ==,
                        BF_READ_DONE);
        fill(want, pos / sizeof(*want), BF_MIB / sizeof(*want));
        g_assert_true(memcmp(got, want, BF_MIB) == 0);
    }
    pipe_writer_co_end(&writer);
    g_assert_false(writer.failed);
}

/* What was taken from the pipe and not sent fails with its connection. */
static void
socket_co_spares_peer_until_shutdown(void *arg)
{
    PipeWriter writer = {0};
    g_autoptr(BfChannel) peer = pipe_writer_co_start(&writer);

    g_assert_false(writer.ended);
    bf_channel_shutdown(writer.channel);
    pipe_writer_co_end(&writer);
    g_assert_true(writer.failed);
}

static void
socket_co_receives_into_pipe(void *arg)
{
    g_autoptr(BfChannel) a = NULL;
    g_autoptr(BfChannel) b = NULL;
    int pipe_fds[2];
    char buf[9] = "";

    new_pair(&a, &b);
    g_assert_cmpint(pipe2(pipe_fds, O_NONBLOCK | O_CLOEXEC), ==, 0);
    g_assert_cmpint(fcntl(pipe_fds[1], F_SETPIPE_SZ, 4096), ==, 4096);
    g_assert_true(bf_channel_co_write_all(a, "ferryboat", 9, NULL));
    g_assert_cmpint(bf_channel_co_recv_pipe(b, pipe_fds[1], 5, NULL), ==, 5);
    /* Its only slot is taken. */
    g_assert_cmpint(bf_channel_co_recv_pipe(b, pipe_fds[1], 4, NULL), ==,
                    BF_CHANNEL_PIPE_FULL);
    g_assert_cmpint(read(pipe_fds[0], buf, 9), ==, 5);
    g_assert_cmpint(bf_channel_co_recv_pipe(b, pipe_fds[1], 9, NULL), ==, 4);
    g_assert_cmpint(read(pipe_fds[0], buf + 5, 4), ==, 4);
    g_assert_cmpmem(buf, 9, "ferryboat", 9);
    g_clear_pointer(&a, bf_channel_free);
    g_assert_cmpint(bf_channel_co_recv_pipe(b, pipe_fds[1], 9, NULL), ==, 0);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

static void
interrupt_later_co_run(void *arg)
{
    bf_co_yield();
    bf_channel_interrupt_read(arg);
}

static void
socket_co_interrupted_read_goes_on(void *arg)
{
    g_autoptr(BfChannel) a = NULL;
    g_autoptr(BfChannel) b = NULL;
    g_autoptr(GError) error = NULL;
    char c = 0;

    new_pair(&a, &b);
    bf_channel_interrupt_read(a); /* nobody reads yet */
    bf_co_spawn(interrupt_later_co_run, a);
    g_assert_cmpint(bf_channel_co_read(a, &c, 1, &error), ==,
                    BF_CHANNEL_INTERRUPTED);
    g_assert_no_error(error);
    g_assert_true(bf_channel_co_write_all(b, "x", 1, NULL));
    g_assert_cmpint(bf_channel_co_read(a, &c, 1, &error), ==, 1);
    g_assert_cmpint(c, ==, 'x');
}

static void
note_call(void *arg)
{
    *(bool *)arg = true;
}

static void
socket_co_watch_tells_what_comes(void *arg)
{
    g_autoptr(BfChannel) a = NULL;
    g_autoptr(BfChannel) b = NULL;
    bool called = false;
    char c = 0;

    new_pair(&a, &b);
    g_assert_true(bf_channel_start_watch(a, note_call, &called));
    bf_co_yield();
    g_assert_false(called);
    g_assert_true(bf_channel_co_write_all(b, "x", 1, NULL));
    while (!called) {
        bf_co_yield();
    }
    g_assert_cmpint(bf_channel_co_read(a, &c, 1, NULL), ==, 1);
    called = false;
    g_assert_true(bf_channel_start_watch(a, note_call, &called));
    bf_channel_shutdown_read(a);
    while (!called) {
        bf_co_yield();
    }
    g_assert_cmpint(bf_channel_co_read(a, &c, 1, NULL), ==, 0);
}

static void
memory_cannot_be_watched(void)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(BfChannel) ch = bf_channel_memory_new(bytes, bytes, 1);

    g_assert_false(bf_channel_start_watch(ch, note_call, NULL));
    bf_channel_interrupt_read(ch);
}

/* A peer that takes whatever there is, at once. */
static ssize_t
greedy_co_writev(BfChannel *channel, const struct iovec *iov, int niov,
                 GError **error)
{
    size_t n = MIN(iov->iov_len, 64 * BF_KIB);

    channel->sent += n;
    return (ssize_t)n;
}

static void
greedy_co_gives_others_their_turn(void *arg)
{
    static const BfChannelOps ops = {.co_writev = greedy_co_writev};
    const size_t len = 8 * BF_MIB;
    g_autofree char *data = g_malloc0(len);
    BfChannel greedy = {.ops = &ops};
    Writer writer = {.channel = &greedy, .data = data, .len = len};
    unsigned turns = 0;

    bf_wait_group_add(&writer.group, 1);
    bf_co_spawn(writer_co_run, &writer);
    for (; !writer.ok; turns++) {
        bf_co_yield();
    }
    bf_wait_group_co_wait(&writer.group);
    g_assert_cmpuint(greedy.sent, ==, len);
    g_assert_cmpuint(turns, >=, 7);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    signal(SIGPIPE, SIG_IGN);
    g_test_add_func("/io/channel/read-exact/joins-short-reads",
                    test_joins_short_reads);
    g_test_add_func("/io/channel/read-exact/end-before-message-is-eof",
                    test_end_before_message_is_eof);
    g_test_add_func("/io/channel/read-exact/end-inside-message-fails",
                    test_end_inside_message_fails);
    g_test_add_func("/io/channel/writev-all/writes-all-pieces",
                    test_writes_all_pieces);
    g_test_add_func("/io/channel/shutdown/makes-calls-fail",
                    test_shutdown_makes_calls_fail);
    bf_test_add("/io/channel-socket/moves-more-than-it-holds",
                socket_co_moves_more_than_it_holds);
    bf_test_add("/io/channel-socket/shutdown-ends-pending-read",
                socket_co_shutdown_ends_pending_read);
    bf_test_add("/io/channel-socket/end-of-reading-leaves-writing",
                socket_co_end_of_reading_leaves_writing);
    bf_test_add("/io/channel-socket/end-of-reading-ends-pending-read",
                socket_co_end_of_reading_ends_pending_read);
    g_test_add_func("/io/channel/start-watch/is-not-for-every-kind",
                    memory_cannot_be_watched);
    bf_test_add("/io/channel-socket/interrupted-read-goes-on",
                socket_co_interrupted_read_goes_on);
    bf_test_add("/io/channel-socket/watch-tells-what-comes",
                socket_co_watch_tells_what_comes);
    bf_test_add("/io/channel-socket/receives-descriptors",
                socket_co_receives_descriptors);
    bf_test_add("/io/channel-socket/has-room-for-bulk",
                socket_co_has_room_for_bulk);
    bf_test_add("/io/channel-socket/sends-pipe", socket_co_sends_pipe);
    bf_test_add("/io/channel-socket/spares-slow-peer",
                socket_co_spares_slow_peer);
    bf_test_add("/io/channel-socket/spares-peer-until-shutdown",
                socket_co_spares_peer_until_shutdown);
    bf_test_add("/io/channel/writev-all/gives-others-their-turn",
                greedy_co_gives_others_their_turn);
    bf_test_add("/io/channel-socket/receives-into-pipe",
                socket_co_receives_into_pipe);
    return g_test_run();
}
