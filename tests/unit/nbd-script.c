/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A scripted NBD server. It runs on main, as tests do. */
#include "nbd-script.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/util.h"
#include "harness.h"
#include "io/channel-socket.h"

#define CONTEXT_ID 5

/* Bytes. */

static bool
co_recv(BfChannel *peer, void *buf, size_t len)
{
    return bf_channel_co_read_exact(peer, buf, len, NULL) == BF_READ_DONE;
}

/* The client may be gone; then nobody wants it. */
static void
co_send(BfChannel *peer, const void *data, size_t len)
{
    bf_channel_co_write_all(peer, data, len, NULL);
}

/* Handshake. */

static void
co_reply(BfChannel *peer, uint32_t option, uint32_t type, const void *data,
         size_t len)
{
    uint8_t head[BF_NBD_OPTION_REPLY_BYTES];

    bf_nbd_put_option_reply(head, &(BfNbdOptionReply){
                                      .option = option,
                                      .type = type,
                                      .length = (uint32_t)len,
                                  });
    co_send(peer, head, sizeof(head));
    co_send(peer, data, len);
}

static void
co_answer_go(const BfNbdScript *script, BfChannel *peer)
{
    const BfNbdExportInfo info = {
        .size = script->size,
        .flags = script->flags,
        .min_block = script->min_block,
        .preferred_block = MAX(script->min_block, 4096),
        .max_block = 1024 * 1024,
    };
    uint8_t exp[BF_NBD_INFO_EXPORT_BYTES];
    uint8_t blocks[BF_NBD_INFO_BLOCK_SIZE_BYTES];

    bf_nbd_put_info_export(exp, &info);
    co_reply(peer, BF_NBD_OPTION_GO, BF_NBD_REPLY_INFO, exp, sizeof(exp));
    if (script->min_block != 0) {
        bf_nbd_put_info_block_size(blocks, &info);
        co_reply(peer, BF_NBD_OPTION_GO, BF_NBD_REPLY_INFO, blocks,
                 sizeof(blocks));
    }
    co_reply(peer, BF_NBD_OPTION_GO, BF_NBD_REPLY_ACK, NULL, 0);
}

static void
co_answer(const BfNbdScript *script, BfChannel *peer, uint32_t option)
{
    g_autoptr(GByteArray) context = g_byte_array_new();

    if (option == BF_NBD_OPTION_GO) {
        co_answer_go(script, peer);
    } else if (!script->structured ||
               (!script->extended &&
                option == BF_NBD_OPTION_EXTENDED_HEADERS)) {
        co_reply(peer, option, BF_NBD_REPLY_ERR_UNSUP, NULL, 0);
    } else {
        if (option == BF_NBD_OPTION_SET_META_CONTEXT) {
            bf_nbd_append_meta_context(
                context, CONTEXT_ID,
                (BfNbdString){.data = "base:allocation", .len = 15});
            co_reply(peer, option, BF_NBD_REPLY_META_CONTEXT, context->data,
                     context->len);
        }
        co_reply(peer, option, BF_NBD_REPLY_ACK, NULL, 0);
    }
}

/* Returns false if the client leaves. */
static bool
co_shake_hands(const BfNbdScript *script, BfChannel *peer)
{
    uint8_t greeting[BF_NBD_GREETING_BYTES];
    uint8_t buf[BF_NBD_OPTION_BYTES];
    uint8_t data[512];
    BfNbdOptionHeader header = {.option = 0};

    bf_nbd_put_greeting(greeting, 3);
    co_send(peer, greeting, sizeof(greeting));
    if (!co_recv(peer, buf, 4)) {
        return false;
    }
    while (header.option != BF_NBD_OPTION_GO) {
        if (!co_recv(peer, buf, sizeof(buf))) {
            return false;
        }
        g_assert_true(bf_nbd_parse_option(buf, &header));
        g_assert_cmpuint(header.length, <=, sizeof(data));
        if (header.length > 0) {
            g_assert_true(co_recv(peer, data, header.length));
        }
        co_answer(script, peer, header.option);
    }
    return true;
}

/* Connections. */

typedef struct Arrival {
    BfNbdScript *script;
    BfChannel *peer;
} Arrival;

static void
shake_co_run(void *arg)
{
    Arrival arrival = *(Arrival *)arg;
    BfNbdScript *script = arrival.script;
    uint8_t byte;

    g_free(arg);
    if (script->silent) {
        co_recv(arrival.peer, &byte, 1); /* until the client leaves */
        bf_channel_free(arrival.peer);
    } else if (co_shake_hands(script, arrival.peer)) {
        g_assert_cmpuint(script->n_peers, <, NBD_SCRIPT_PEERS_MAX);
        script->peers[script->n_peers++] = arrival.peer;
        bf_co_queue_wake_all(&script->arrived);
    } else {
        bf_channel_free(arrival.peer);
    }
    bf_wait_group_done(&script->running);
}

static void
accept_co_run(void *arg)
{
    BfNbdScript *script = arg;
    int fd = 0;

    while ((fd = bf_test_co_accept(script->fd, &script->cancel)) >= 0) {
        Arrival *arrival = g_new0(Arrival, 1);

        arrival->script = script;
        arrival->peer = bf_channel_socket_new(fd);
        script->n_accepted++;
        bf_wait_group_add(&script->running, 1);
        bf_co_spawn_later(shake_co_run, arrival);
        bf_co_queue_wake_all(&script->arrived);
    }
    bf_wait_group_done(&script->running);
}

static void
listen_at_path(BfNbdScript *script)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    g_strlcpy(addr.sun_path, script->path, sizeof(addr.sun_path));
    script->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    g_assert_cmpint(script->fd, >=, 0);
    g_assert_cmpint(
        bind(script->fd, (const struct sockaddr *)&addr, sizeof(addr)), ==, 0);
    g_assert_cmpint(listen(script->fd, 16), ==, 0);
    script->cancel = (BfCancel){.fired = false};
    bf_wait_group_add(&script->running, 1);
    bf_co_spawn(accept_co_run, script);
}

void
bf_nbd_script_open(BfNbdScript *script)
{
    *script = (BfNbdScript){
        .path = bf_test_temp_path(),
        .size = 1024 * 1024,
        .flags = NBD_SCRIPT_FLAGS,
        .structured = true,
    };
    listen_at_path(script);
}

void
bf_nbd_script_co_stop(BfNbdScript *script)
{
    bf_cancel_fire(&script->cancel);
    bf_wait_group_co_wait(&script->running);
    close(script->fd);
    unlink(script->path);
    script->fd = -1;
}

void
bf_nbd_script_restart(BfNbdScript *script)
{
    listen_at_path(script);
}

void
bf_nbd_script_drop(BfNbdScript *script, unsigned index)
{
    g_clear_pointer(&script->peers[index], bf_channel_free);
}

void
bf_nbd_script_co_close(BfNbdScript *script)
{
    if (script->fd >= 0) {
        bf_nbd_script_co_stop(script);
    }
    for (unsigned i = 0; i < script->n_peers; i++) {
        bf_nbd_script_drop(script, i);
    }
    g_free(script->path);
}

BfBlockdevOptions *
bf_nbd_script_options(const BfNbdScript *script)
{
    BfBlockdevOptions *options = bf_test_options(BF_BLOCKDEV_DRIVER_NBD, "n0");
    BfSocketAddress *server = g_new0(BfSocketAddress, 1);

    server->type = BF_SOCKET_ADDRESS_TYPE_UNIX;
    server->u.unix_ = g_new0(BfUnixSocketAddress, 1);
    server->u.unix_->path = g_strdup(script->path);
    options->u.nbd = g_new0(BfBlockdevOptionsNbd, 1);
    options->u.nbd->server = server;
    options->has_discard = true;
    options->discard = BF_BLOCKDEV_DISCARD_OPTIONS_UNMAP;
    return options;
}

BfChannel *
bf_nbd_script_co_peer(BfNbdScript *script, unsigned index)
{
    while (script->n_peers <= index) {
        bf_co_queue_co_wait(&script->arrived);
    }
    return script->peers[index];
}

void
bf_nbd_script_co_accepted(BfNbdScript *script, unsigned count)
{
    while (script->n_accepted < count) {
        bf_co_queue_co_wait(&script->arrived);
    }
}

/* Transmission. */

bool
bf_nbd_script_co_head(BfChannel *peer, BfNbdRequest *ret_request)
{
    uint8_t head[BF_NBD_EXTENDED_REQUEST_BYTES];
    const size_t more = BF_NBD_EXTENDED_REQUEST_BYTES - BF_NBD_REQUEST_BYTES;

    if (!co_recv(peer, head, BF_NBD_REQUEST_BYTES)) {
        return false;
    }
    if (bf_nbd_parse_request(head, ret_request)) {
        return true;
    }
    g_assert_true(co_recv(peer, head + BF_NBD_REQUEST_BYTES, more));
    g_assert_true(bf_nbd_parse_extended_request(head, ret_request));
    return true;
}

BfNbdRequest
bf_nbd_script_co_request(BfChannel *peer, GByteArray *payload)
{
    BfNbdRequest request;

    g_assert_true(bf_nbd_script_co_head(peer, &request));
    if (request.command == BF_NBD_COMMAND_WRITE) {
        g_autofree uint8_t *data = g_malloc(request.length);

        g_assert_true(co_recv(peer, data, request.length));
        if (payload != NULL) {
            g_byte_array_append(payload, data, request.length);
        }
    }
    return request;
}

uint64_t
bf_nbd_script_co_expect(BfChannel *peer, BfNbdCommand command)
{
    BfNbdRequest request = bf_nbd_script_co_request(peer, NULL);

    g_assert_cmpstr(bf_nbd_command_name(request.command), ==,
                    bf_nbd_command_name(command));
    return request.cookie;
}

void
bf_nbd_script_co_simple(BfChannel *peer, uint64_t cookie, uint32_t error,
                        const void *data, size_t len)
{
    uint8_t head[BF_NBD_SIMPLE_REPLY_BYTES];

    bf_nbd_put_simple_reply(
        head, &(BfNbdSimpleReply){.error = error, .cookie = cookie});
    co_send(peer, head, sizeof(head));
    co_send(peer, data, len);
}

void
bf_nbd_script_co_chunk(BfChannel *peer, uint64_t cookie, uint16_t flags,
                       uint16_t type, const void *data, size_t len)
{
    uint8_t head[BF_NBD_CHUNK_BYTES];

    bf_nbd_put_chunk(head, &(BfNbdChunk){
                               .flags = flags,
                               .type = type,
                               .cookie = cookie,
                               .length = (uint32_t)len,
                           });
    co_send(peer, head, sizeof(head));
    co_send(peer, data, len);
}

void
bf_nbd_script_co_extended(BfChannel *peer, const BfNbdRequest *request,
                          uint16_t flags, uint16_t type, const void *data,
                          size_t len)
{
    uint8_t head[BF_NBD_EXTENDED_CHUNK_BYTES];

    bf_nbd_put_extended_chunk(head,
                              &(BfNbdChunk){
                                  .flags = flags,
                                  .type = type,
                                  .cookie = request->cookie,
                                  .length = (uint32_t)len,
                              },
                              request->offset);
    co_send(peer, head, sizeof(head));
    co_send(peer, data, len);
}

void
bf_nbd_script_co_done(BfChannel *peer, const BfNbdRequest *request)
{
    bf_nbd_script_co_extended(peer, request, BF_NBD_CHUNK_DONE,
                              BF_NBD_CHUNK_TYPE_NONE, NULL, 0);
}

void
bf_nbd_script_co_data(BfChannel *peer, uint64_t cookie, uint16_t flags,
                      uint64_t offset, uint8_t value, size_t bytes)
{
    g_autofree uint8_t *payload = g_malloc(BF_NBD_CHUNK_OFFSET_BYTES + bytes);

    bf_put_be64(payload, offset);
    memset(payload + BF_NBD_CHUNK_OFFSET_BYTES, value, bytes);
    bf_nbd_script_co_chunk(peer, cookie, flags, BF_NBD_CHUNK_TYPE_OFFSET_DATA,
                           payload, BF_NBD_CHUNK_OFFSET_BYTES + bytes);
}

void
bf_nbd_script_co_hole(BfChannel *peer, uint64_t cookie, uint16_t flags,
                      uint64_t offset, uint32_t bytes)
{
    uint8_t hole[BF_NBD_CHUNK_HOLE_BYTES];

    bf_nbd_put_hole(hole, offset, bytes);
    bf_nbd_script_co_chunk(peer, cookie, flags, BF_NBD_CHUNK_TYPE_OFFSET_HOLE,
                           hole, sizeof(hole));
}

void
bf_nbd_script_co_error(BfChannel *peer, uint64_t cookie, uint16_t flags,
                       uint32_t number)
{
    uint8_t data[BF_NBD_CHUNK_ERROR_BYTES + 4];

    bf_nbd_put_chunk_error(data, number, 4);
    memcpy(data + BF_NBD_CHUNK_ERROR_BYTES, "why?", 4);
    bf_nbd_script_co_chunk(peer, cookie, flags, BF_NBD_CHUNK_TYPE_ERROR, data,
                           sizeof(data));
}

void
bf_nbd_script_co_expect_end(BfChannel *peer)
{
    BfNbdRequest request;
    uint8_t byte;

    if (bf_nbd_script_co_head(peer, &request)) {
        g_assert_cmpuint(request.command, ==, BF_NBD_COMMAND_DISC);
        g_assert_false(co_recv(peer, &byte, 1));
    }
}

void
bf_nbd_use_co_begin(BfNbdUse *use, BfBlockdevOptions *options)
{
    use->graph = bf_test_graph_new();
    bf_test_co_add(use->graph, options);
    use->root = bf_test_co_root(use->graph, "n0",
                                BF_PERM_CONSISTENT_READ | BF_PERM_WRITE);
    use->handle = bf_handle_co_new(use->root, bf_test_loops()->main);
}

void
bf_nbd_use_co_open(BfNbdUse *use)
{
    bf_nbd_script_open(&use->script);
    bf_nbd_use_co_begin(use, bf_nbd_script_options(&use->script));
}

void
bf_nbd_use_co_close(BfNbdUse *use)
{
    for (unsigned i = 0; i < use->script.n_peers; i++) {
        bf_nbd_script_drop(&use->script, i);
    }
    bf_root_co_free(use->root);
    bf_graph_co_free(use->graph);
    bf_nbd_script_co_close(&use->script);
}

/* Requests in the background. */

static int
co_write_pipe(BfHandle *handle, uint64_t offset, const void *buf, size_t bytes)
{
    int fds[2];
    int ret;

    g_assert_cmpint(pipe2(fds, O_CLOEXEC), ==, 0);
    g_assert_cmpint(write(fds[1], buf, bytes), ==, (ssize_t)bytes);
    ret = bf_handle_co_write_pipe(handle, offset, bytes, fds[0]);
    close(fds[0]);
    close(fds[1]);
    return ret;
}

static void
op_co_run(void *arg)
{
    BfNbdOp *op = arg;
    BfHandle *handle = op->handle;

    switch (op->kind) {
    case NBD_OP_READ:
        op->ret = bf_test_co_read(handle, op->offset, op->buf, op->bytes);
        break;
    case NBD_OP_WRITE:
        op->ret =
            bf_test_co_write(handle, op->offset, op->buf, op->bytes, op->flags);
        break;
    case NBD_OP_WRITE_PIPE:
        op->ret = co_write_pipe(handle, op->offset, op->buf, op->bytes);
        break;
    case NBD_OP_ZEROES:
        op->ret =
            bf_handle_co_write_zeroes(handle, op->offset, op->bytes, op->flags);
        break;
    case NBD_OP_DISCARD:
        op->ret =
            bf_handle_co_discard(handle, op->offset, op->bytes, op->flags);
        break;
    case NBD_OP_FLUSH:
        op->ret = bf_handle_co_flush(handle);
        break;
    case NBD_OP_CACHE:
        op->ret = bf_handle_co_cache(handle, op->offset, op->bytes);
        break;
    case NBD_OP_EXTENTS:
        op->ret =
            bf_handle_co_extents(handle, op->offset, op->bytes, op->extents);
        break;
    }
    op->done = true;
    bf_co_queue_wake_all(&op->ended);
}

void
bf_nbd_op_start(BfNbdOp *op, BfHandle *handle)
{
    op->handle = handle;
    op->done = false;
    bf_co_spawn(op_co_run, op);
}

int
bf_nbd_op_co_wait(BfNbdOp *op)
{
    while (!op->done) {
        bf_co_queue_co_wait(&op->ended);
    }
    return op->ret;
}
