/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TLS channels over socket pairs. */
#include "io/channel-tls.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/co-io.h"
#include "core/co-lock.h"
#include "core/error.h"
#include "core/util.h"
#include "harness.h"
#include "io/channel-socket.h"
#include "server/crypto/tls-private.h"
#include "tls-pair.h"

/* One side's handshake. */
typedef struct Side {
    BfChannel *base;
    BfTlsCreds *creds;
    const char *hostname;
    const char *records;
    BfChannel *tls;
    GError *error;
    BfWaitGroup *group;
} Side;

static void
side_co_run(void *arg)
{
    Side *side = arg;

    /* Its session is made before it suspends. */
    if (side->records != NULL) {
        g_setenv("BLOCKFERRY_TLS_RECORDS", side->records, TRUE);
    }
    side->tls = bf_channel_tls_co_new(side->base, side->creds, side->hostname,
                                      &side->error);
    bf_wait_group_done(side->group);
}

static void
new_bases(BfChannel **ret_a, BfChannel **ret_b)
{
    int fds[2];

    g_assert_cmpint(
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
        ==, 0);
    *ret_a = bf_channel_socket_new(fds[0]);
    *ret_b = bf_channel_socket_new(fds[1]);
}

/* The record engines of both sides. */
static const char *client_records = "own";
static const char *server_records = "own";

/* Runs both handshakes; the results are in the sides. */
static void
co_join(Side *client, Side *server, const char *hostname)
{
    BfWaitGroup group = {0};

    *client = (Side){.creds = bf_test_tls.client_creds,
                     .hostname = hostname,
                     .records = client_records,
                     .group = &group};
    *server = (Side){.creds = bf_test_tls.server_creds,
                     .records = server_records,
                     .group = &group};
    new_bases(&client->base, &server->base);
    bf_wait_group_add(&group, 2);
    bf_co_spawn(side_co_run, client);
    bf_co_spawn(side_co_run, server);
    bf_wait_group_co_wait(&group);
}

static void
clear(Side *side)
{
    bf_channel_free(side->tls);
    g_clear_error(&side->error);
}

/* A writer that runs while its peer reads. */
typedef struct Writer {
    BfChannel *channel;
    const char *data;
    size_t len;
    bool ok;
    BfWaitGroup *group;
} Writer;

static void
writer_co_run(void *arg)
{
    Writer *writer = arg;

    writer->ok = bf_channel_co_write_all(writer->channel, writer->data,
                                         writer->len, NULL);
    bf_channel_co_bye(writer->channel);
    bf_wait_group_done(writer->group);
}

static void
co_check_read(BfChannel *channel, const char *data, size_t len)
{
    g_autofree char *buf = g_malloc0(len);
    char c;

    g_assert_cmpint(bf_channel_co_read_exact(channel, buf, len, NULL), ==,
                    BF_READ_DONE);
    g_assert_true(memcmp(buf, data, len) == 0);
    g_assert_cmpint(bf_channel_co_read(channel, &c, 1, NULL), ==, 0);
}

static void
co_moves_bulk_both_ways(void *arg)
{
    const size_t len = 5 * BF_MIB + 17;
    g_autofree char *data = g_malloc(len);
    Side client;
    Side server;
    BfWaitGroup group = {0};
    Writer up;
    Writer down;
    g_autofree char *text = NULL;

    for (size_t i = 0; i < len; i++) {
        data[i] = (char)(i * 37 >> 2);
    }
    co_join(&client, &server, "server1.example");
    g_assert_no_error(client.error);
    g_assert_no_error(server.error);
    g_assert_cmpint(client.tls->features & BF_CHANNEL_SECURE, !=, 0);
    g_assert_cmpint(client.tls->features & BF_CHANNEL_LOCAL, !=, 0);
    text = bf_channel_tls_describe(server.tls);
    g_assert_nonnull(strstr(text, "TLS1."));
    g_assert_nonnull(strstr(text, "CN=client1"));

    up = (Writer){client.tls, data, len, false, &group};
    down = (Writer){server.tls, data, len, false, &group};
    bf_wait_group_add(&group, 2);
    bf_co_spawn(writer_co_run, &up);
    bf_co_spawn(writer_co_run, &down);
    co_check_read(server.tls, data, len);
    co_check_read(client.tls, data, len);
    bf_wait_group_co_wait(&group);
    g_assert_true(up.ok && down.ok);
    clear(&client);
    clear(&server);
}

/* A pipe is sent while its peer reads. */
typedef struct PipeWriter {
    BfChannel *channel;
    int pipe_fd;
    size_t len;
    bool ok;
    BfWaitGroup *group;
} PipeWriter;

static void
pipe_writer_co_run(void *arg)
{
    PipeWriter *writer = arg;
    struct iovec head = {(char *)"head", 4};

    writer->ok =
        bf_channel_co_writev_all_more(writer->channel, &head, 1, NULL) &&
        bf_channel_co_send_pipe_all(writer->channel, writer->pipe_fd,
                                    writer->len, NULL);
    bf_channel_co_bye(writer->channel);
    bf_wait_group_done(writer->group);
}

static void
co_sends_pipe(void *arg)
{
    const size_t len = 900 * BF_KIB + 17;
    g_autofree char *data = g_malloc(4 + len);
    Side client;
    Side server;
    BfWaitGroup group = {0};
    PipeWriter writer;
    g_autoptr(GError) error = NULL;
    int fds[2];

    memcpy(data, "head", 4);
    for (size_t i = 0; i < len; i++) {
        data[4 + i] = (char)(i * 41 >> 3);
    }
    co_join(&client, &server, "server1.example");
    g_assert_cmpint(server.tls->features & BF_CHANNEL_SEND_PIPE, !=, 0);
    g_assert_cmpint(bf_pipe_open(fds, BF_MIB), >=, len);
    g_assert_cmpint(write(fds[1], data + 4, len), ==, len);
    writer = (PipeWriter){server.tls, fds[0], len, false, &group};
    bf_wait_group_add(&group, 1);
    bf_co_spawn(pipe_writer_co_run, &writer);
    co_check_read(client.tls, data, 4 + len);
    bf_wait_group_co_wait(&group);
    g_assert_true(writer.ok);
    clear(&client);
    clear(&server);
    close(fds[0]);
    close(fds[1]);
}

/* An empty pipe is an error, not an endless wait. */
static void
co_empty_pipe_fails(void *arg)
{
    Side client;
    Side server;
    g_autoptr(GError) error = NULL;
    int fds[2];

    co_join(&client, &server, "server1.example");
    g_assert_cmpint(bf_pipe_open(fds, BF_MIB), >, 0);
    g_assert_false(bf_channel_co_send_pipe_all(server.tls, fds[0], 1, &error));
    g_assert_nonnull(strstr(error->message, "the pipe holds less"));
    g_clear_error(&error);
    close(fds[1]);
    g_assert_false(bf_channel_co_send_pipe_all(server.tls, fds[0], 1, &error));
    g_assert_nonnull(strstr(error->message, "the pipe holds less"));
    close(fds[0]);
    /* Nothing was lost with it. */
    g_assert_true(bf_channel_co_write_all(server.tls, "x", 1, NULL));
    bf_channel_co_bye(server.tls);
    co_check_read(client.tls, "x", 1);
    clear(&client);
    clear(&server);
}

static void
co_gnutls_takes_no_pipe(void *arg)
{
    Side client;
    Side server;

    server_records = "gnutls";
    co_join(&client, &server, "server1.example");
    server_records = "own";
    g_assert_no_error(server.error);
    g_assert_cmpint(server.tls->features & BF_CHANNEL_SEND_PIPE, ==, 0);
    clear(&client);
    clear(&server);
}

static void
co_moves_small_pieces(void *arg)
{
    Side client;
    Side server;

    co_join(&client, &server, "server1.example");
    for (unsigned i = 1; i < 200; i++) {
        char out[200];
        char in[200];
        struct iovec iov[] = {{out, i / 2}, {out + i / 2, i - i / 2}};

        memset(out, (int)i, i);
        g_assert_true(bf_channel_co_writev_all(client.tls, iov, 2, NULL));
        g_assert_cmpint(bf_channel_co_read_exact(server.tls, in, i, NULL), ==,
                        BF_READ_DONE);
        g_assert_cmpmem(in, i, out, i);
    }
    clear(&client);
    clear(&server);
}

static void
co_wrong_name_fails_verification(void *arg)
{
    Side client;
    Side server;

    co_join(&client, &server, "other.example");
    g_assert_null(client.tls);
    g_assert_error(client.error, BF_ERROR, BF_ERROR_GENERIC);
    g_assert_true(
        g_str_has_prefix(client.error->message, "TLS verification failed: "));
    clear(&client);
    clear(&server);
}

static void
co_garbage_fails_handshake(void *arg)
{
    Side server = {.creds = bf_test_tls.server_creds};
    BfWaitGroup group = {0};
    g_autoptr(BfChannel) raw = NULL;

    server.group = &group;
    new_bases(&raw, &server.base);
    bf_wait_group_add(&group, 1);
    bf_co_spawn(side_co_run, &server);
    g_assert_true(
        bf_channel_co_write_all(raw, "GET / HTTP/1.1\r\n\r\n", 18, NULL));
    bf_wait_group_co_wait(&group);
    g_assert_null(server.tls);
    g_assert_true(
        g_str_has_prefix(server.error->message, "TLS handshake failed: "));
    clear(&server);
}

static void
shut_later_co_run(void *arg)
{
    bf_co_sleep_ns(5 * BF_NS_PER_MS);
    bf_channel_shutdown(arg);
}

static void
co_shutdown_ends_silent_handshake(void *arg)
{
    Side server = {.creds = bf_test_tls.server_creds};
    BfWaitGroup group = {0};
    g_autoptr(BfChannel) raw = NULL;

    server.group = &group;
    new_bases(&raw, &server.base);
    bf_wait_group_add(&group, 1);
    bf_co_spawn(side_co_run, &server);
    bf_co_spawn(shut_later_co_run, server.base);
    bf_wait_group_co_wait(&group);
    g_assert_null(server.tls);
    g_assert_nonnull(server.error);
    clear(&server);
}

static void
co_cut_stream_is_no_end(void *arg)
{
    Side client;
    Side server;
    g_autoptr(GError) error = NULL;
    char c;

    co_join(&client, &server, "server1.example");
    bf_channel_shutdown(client.tls); /* without a close message */
    g_assert_cmpint(bf_channel_co_read(server.tls, &c, 1, &error), ==, -1);
    g_assert_error(error, BF_ERROR, BF_ERROR_GENERIC);
    clear(&client);
    clear(&server);
}

/* An end of our own doing is not the peer's: it can still be written to. */
static void
co_end_of_reading_leaves_writing(void *arg)
{
    Side client;
    Side server;
    char buf[3];

    co_join(&client, &server, "server1.example");
    g_assert_true(bf_channel_co_write_all(client.tls, "abc", 3, NULL));
    bf_channel_shutdown_read(server.tls);
    g_assert_cmpint(bf_channel_co_read_exact(server.tls, buf, 3, NULL), ==,
                    BF_READ_DONE);
    g_assert_cmpmem(buf, 3, "abc", 3);
    g_assert_cmpint(bf_channel_co_read(server.tls, buf, 1, NULL), ==, 0);
    g_assert_cmpint(bf_channel_co_read(server.tls, buf, 1, NULL), ==, 0);
    g_assert_true(bf_channel_co_write_all(server.tls, "xyz", 3, NULL));
    g_assert_cmpuint(server.tls->sent, >, 3); /* with what TLS adds */
    bf_channel_co_bye(server.tls);
    co_check_read(client.tls, "xyz", 3);
    clear(&client);
    clear(&server);
}

static void
note_call(void *arg)
{
    *(bool *)arg = true;
}

static void
co_wait_call(const bool *called)
{
    while (!*called) {
        bf_co_yield();
    }
}

static void
co_check_bytes(BfChannel *from, BfChannel *to, const char *text)
{
    const size_t len = strlen(text);
    g_autofree char *buf = g_malloc0(len);

    g_assert_true(bf_channel_co_write_all(from, text, len, NULL));
    g_assert_cmpint(bf_channel_co_read_exact(to, buf, len, NULL), ==,
                    BF_READ_DONE);
    g_assert_cmpmem(buf, len, text, len);
}

static void
check_co_rests_between_messages(void)
{
    Side client;
    Side server;
    char c = 0;

    co_join(&client, &server, "server1.example");
    g_assert_no_error(server.error);
    co_check_bytes(client.tls, server.tls, "first");
    for (int i = 0; i < 3; i++) {
        bool called = false;

        g_assert_true(bf_channel_start_watch(server.tls, note_call, &called));
        /* Writing is possible all the time. */
        co_check_bytes(server.tls, client.tls, "reply");
        g_assert_false(called);
        g_assert_true(bf_channel_co_write_all(client.tls, "x", 1, NULL));
        co_wait_call(&called);
        g_assert_cmpint(bf_channel_co_read(server.tls, &c, 1, NULL), ==, 1);
    }
    clear(&client);
    clear(&server);
}

static void
check_co_does_not_rest_on_bytes(void)
{
    Side client;
    Side server;
    bool called = false;
    char c = 0;

    co_join(&client, &server, "server1.example");
    g_assert_no_error(server.error);
    g_assert_true(bf_channel_co_write_all(client.tls, "xyz", 3, NULL));
    for (const char *p = "xyz"; *p != '\0'; p++) {
        g_assert_cmpint(bf_channel_co_read(server.tls, &c, 1, NULL), ==, 1);
        g_assert_cmpint(c, ==, *p);
        /* The others of its record are there already. */
        g_assert_cmpint(bf_channel_start_watch(server.tls, note_call, &called),
                        ==, *p == 'z');
    }
    bf_channel_co_bye(client.tls);
    co_wait_call(&called);
    g_assert_cmpint(bf_channel_co_read(server.tls, &c, 1, NULL), ==, 0);
    g_assert_false(bf_channel_start_watch(server.tls, note_call, &called));
    clear(&client);
    clear(&server);
}

static void
interrupt_later_co_run(void *arg)
{
    bf_co_yield();
    bf_channel_interrupt_read(arg);
}

static void
check_co_interrupted_read_goes_on(void)
{
    Side client;
    Side server;
    g_autoptr(GError) error = NULL;
    char c = 0;

    co_join(&client, &server, "server1.example");
    g_assert_no_error(server.error);
    bf_co_spawn(interrupt_later_co_run, server.tls);
    g_assert_cmpint(bf_channel_co_read(server.tls, &c, 1, &error), ==,
                    BF_CHANNEL_INTERRUPTED);
    g_assert_no_error(error);
    co_check_bytes(client.tls, server.tls, "abc");
    clear(&client);
    clear(&server);
}

/* Sends half of the output that a session has, or all. */
static void
co_send_raw(const Side *side, unsigned divisor)
{
    BfTlsSession *session =
        (BfTlsSession *)bf_channel_tls_get_session(side->tls);
    struct iovec iov;

    g_assert_cmpint(bf_tls_session_get_output(session, &iov, 1), ==, 1);
    g_assert_true(bf_channel_co_write_all(side->base, iov.iov_base,
                                          iov.iov_len / divisor, NULL));
    bf_tls_session_output_consume(session, iov.iov_len / divisor);
}

/* A read that finds nothing for its caller, until the watch says false. */
typedef struct Reader {
    BfChannel *channel;
    ssize_t result;
    bool done;
} Reader;

static void
reader_co_run(void *arg)
{
    Reader *reader = arg;
    char c;

    reader->result = bf_channel_co_read(reader->channel, &c, 1, NULL);
    reader->done = true;
}

static void
co_read_nothing(BfChannel *channel)
{
    Reader reader = {.channel = channel};

    bf_co_spawn(reader_co_run, &reader);
    while (!reader.done) {
        /* Interrupted at once it would read nothing, however often. */
        bf_co_sleep_ns(BF_NS_PER_MS);
        bf_channel_interrupt_read(channel);
    }
    g_assert_cmpint(reader.result, ==, BF_CHANNEL_INTERRUPTED);
}

/* gnutls' engine has a place of its own for parts of records. */
static void
co_does_not_rest_inside_a_record(void *arg)
{
    Side client;
    Side server;
    BfTlsSession *session;
    const struct iovec iov = {(char *)"record", 6};
    bool called = false;
    char buf[6];

    co_join(&client, &server, "server1.example");
    g_assert_no_error(server.error);
    session = (BfTlsSession *)bf_channel_tls_get_session(client.tls);
    g_assert_cmpint(bf_tls_session_seal(session, &iov, 1, BF_KIB, NULL), ==, 6);
    g_assert_true(bf_channel_start_watch(server.tls, note_call, &called));
    co_send_raw(&client, 2);
    co_wait_call(&called);
    for (;;) {
        co_read_nothing(server.tls);
        called = false;
        if (!bf_channel_start_watch(server.tls, note_call, &called)) {
            break; /* it has the half */
        }
        co_wait_call(&called);
    }
    co_send_raw(&client, 1);
    g_assert_cmpint(bf_channel_co_read_exact(server.tls, buf, 6, NULL), ==,
                    BF_READ_DONE);
    g_assert_cmpmem(buf, 6, "record", 6);
    clear(&client);
    clear(&server);
}

/* Who answers what came in front of the damage hears of that, and so does the
 * peer. */
static void
co_writer_hears_of_damage(void *arg)
{
    Side client;
    Side server;
    BfTlsSession *session;
    const struct iovec iov = {(char *)"record", 6};
    struct iovec out;
    g_autoptr(GError) error = NULL;
    char buf[16];

    server_records = "gnutls";
    co_join(&client, &server, "server1.example");
    server_records = "own";
    g_assert_no_error(server.error);
    session = (BfTlsSession *)bf_channel_tls_get_session(client.tls);
    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(bf_tls_session_seal(session, &iov, 1, BF_KIB, NULL), ==,
                        6);
    }
    g_assert_cmpint(bf_tls_session_get_output(session, &out, 1), ==, 1);
    ((char *)out.iov_base)[out.iov_len - 1] ^= 1;
    co_send_raw(&client, 1);
    g_assert_cmpint(bf_channel_co_read(server.tls, buf, 16, NULL), ==, 6);
    g_assert_false(bf_channel_co_write_all(server.tls, "answer", 6, &error));
    g_assert_nonnull(strstr(error->message, "tampered with"));
    g_clear_error(&error);
    clear(&server);
    g_assert_cmpint(bf_channel_co_read(client.tls, buf, 16, &error), <, 0);
    g_assert_nonnull(strstr(error->message, "'Bad record MAC'"));
    clear(&client);
}

/* That of a client on gnutls' engine, which can be asked for one. */
static void
check_co_key_update_is_no_message(void)
{
    Side client;
    Side server;
    bool called = false;
    char c = 0;

    client_records = "gnutls";
    co_join(&client, &server, "server1.example");
    client_records = "own";
    g_assert_no_error(server.error);
    g_assert_true(bf_channel_start_watch(server.tls, note_call, &called));
    g_assert_cmpint(
        gnutls_session_key_update(bf_channel_tls_get_session(client.tls)->tls,
                                  GNUTLS_KU_PEER),
        ==, 0);
    co_send_raw(&client, 1);
    co_wait_call(&called);
    /* What it reads is for the session itself, and it may rest again. */
    co_read_nothing(server.tls);
    called = false;
    g_assert_true(bf_channel_start_watch(server.tls, note_call, &called));
    g_assert_true(bf_channel_co_write_all(client.tls, "x", 1, NULL));
    co_wait_call(&called);
    g_assert_cmpint(bf_channel_co_read(server.tls, &c, 1, NULL), ==, 1);
    g_assert_cmpint(c, ==, 'x');
    co_check_bytes(server.tls, client.tls, "under the new key");
    co_check_bytes(client.tls, server.tls, "and so is this");
    clear(&client);
    clear(&server);
}

/* On both record engines of the server. */
static void
co_on_both(void (*co_check)(void))
{
    co_check();
    server_records = "gnutls";
    co_check();
    server_records = "own";
}

static void
co_rests_between_messages(void *arg)
{
    co_on_both(check_co_rests_between_messages);
}

static void
co_does_not_rest_on_bytes(void *arg)
{
    co_on_both(check_co_does_not_rest_on_bytes);
}

static void
co_key_update_is_no_message(void *arg)
{
    co_on_both(check_co_key_update_is_no_message);
}

static void
co_interrupted_read_goes_on(void *arg)
{
    co_on_both(check_co_interrupted_read_goes_on);
}

int
main(int argc, char **argv)
{
    int ret = 0;

    g_test_init(&argc, &argv, NULL);
    bf_test_tls_init();
    bf_test_add("/io/channel-tls/moves-bulk-both-ways",
                co_moves_bulk_both_ways);
    bf_test_add("/io/channel-tls/sends-pipe", co_sends_pipe);
    bf_test_add("/io/channel-tls/empty-pipe-fails", co_empty_pipe_fails);
    bf_test_add("/io/channel-tls/gnutls-takes-no-pipe",
                co_gnutls_takes_no_pipe);
    bf_test_add("/io/channel-tls/moves-small-pieces", co_moves_small_pieces);
    bf_test_add("/io/channel-tls/wrong-name-fails-verification",
                co_wrong_name_fails_verification);
    bf_test_add("/io/channel-tls/garbage-fails-handshake",
                co_garbage_fails_handshake);
    bf_test_add("/io/channel-tls/shutdown-ends-silent-handshake",
                co_shutdown_ends_silent_handshake);
    bf_test_add("/io/channel-tls/cut-stream-is-no-end",
                co_cut_stream_is_no_end);
    bf_test_add("/io/channel-tls/end-of-reading-leaves-writing",
                co_end_of_reading_leaves_writing);
    bf_test_add("/io/channel-tls/rests-between-messages",
                co_rests_between_messages);
    bf_test_add("/io/channel-tls/does-not-rest-on-bytes",
                co_does_not_rest_on_bytes);
    bf_test_add("/io/channel-tls/does-not-rest-inside-a-record",
                co_does_not_rest_inside_a_record);
    bf_test_add("/io/channel-tls/writer-hears-of-damage",
                co_writer_hears_of_damage);
    bf_test_add("/io/channel-tls/key-update-is-no-message",
                co_key_update_is_no_message);
    bf_test_add("/io/channel-tls/interrupted-read-goes-on",
                co_interrupted_read_goes_on);
    ret = g_test_run();
    bf_test_tls_clear();
    return ret;
}
