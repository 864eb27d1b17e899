/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The server and the client of the NBD server's tests.
 */
#include "nbd-peer.h"

#include <sys/socket.h>
#include <unistd.h>

#include "core/util.h"
#include "harness.h"
#include "io/channel-socket.h"
#include "server/nbd/nbd-private.h"

static void
count_deleted(void *opaque, const char *id)
{
    ((BfNbdFixture *)opaque)->deleted++;
}

static const BfExportEvents events = {.deleted = count_deleted};

uint8_t *
bf_nbd_test_data(size_t len, unsigned seed)
{
    uint8_t *data = g_malloc(len);

    for (size_t i = 0; i < len; i++) {
        data[i] = (uint8_t)((i * 7 + i / 251 + seed) | 1);
    }
    return data;
}

void
bf_nbd_fixture_co_open(BfNbdFixture *fix)
{
    const BfTestLoops *loops = bf_test_loops();
    BfGraphConfig graph_config = {
        .workers = loops->workers,
        .n_workers = BF_TEST_WORKERS,
        .allow_faults = true,
    };

    fix->budget.limit = 256 * BF_MIB;
    fix->graph = bf_graph_new(&graph_config);
    fix->table = bf_export_table_new(fix->graph, &events, fix);
    fix->config.workers = loops->workers;
    fix->config.n_workers = BF_TEST_WORKERS;
    fix->config.exports = fix->table;
    fix->config.budget = &fix->budget;
    fix->server = bf_nbd_server_new(&fix->config);
}

void
bf_nbd_fixture_co_close(BfNbdFixture *fix)
{
    bf_nbd_server_co_stop(g_steal_pointer(&fix->server));
    bf_export_table_co_close_all(fix->table);
    bf_export_table_free(fix->table);
    bf_graph_co_free(fix->graph);
    g_assert_cmpuint(fix->budget.used, ==, 0);
}

static void
co_add_node(BfNbdFixture *fix, BfBlockdevOptions *options, const char *name)
{
    g_autoptr(GError) error = NULL;

    options->node_name = (char *)name;
    bf_graph_co_blockdev_add(fix->graph, options, &error);
    g_assert_no_error(error);
}

void
bf_nbd_fixture_co_add_null(BfNbdFixture *fix, const char *name)
{
    BfBlockdevOptionsNull null = {.size = NBD_TEST_BYTES};
    BfBlockdevOptions options = {
        .driver = BF_BLOCKDEV_DRIVER_NULL_CO,
        .u.null_co = &null,
    };

    co_add_node(fix, &options, name);
}

static void
co_add_file(BfNbdFixture *fix, const char *name, bool direct)
{
    BfBlockdevCacheOptions cache = {.has_direct = true, .direct = direct};
    g_autofree char *path = bf_test_temp_path();
    BfBlockdevOptionsFile file = {
        .filename = path,
        .locking = BF_ON_OFF_AUTO_AUTO,
        .drop_cache = true,
    };
    BfBlockdevOptions options = {
        .driver = BF_BLOCKDEV_DRIVER_FILE,
        .cache = &cache,
        .u.file = &file,
    };

    g_assert_true(g_file_set_contents(path, "", 0, NULL));
    g_assert_cmpint(truncate(path, NBD_TEST_BYTES), ==, 0);
    co_add_node(fix, &options, name);
}

void
bf_nbd_fixture_co_add_file(BfNbdFixture *fix, const char *name)
{
    co_add_file(fix, name, false);
}

void
bf_nbd_fixture_co_add_direct_file(BfNbdFixture *fix, const char *name)
{
    co_add_file(fix, name, true);
}

void
bf_nbd_fixture_co_add_fault(BfNbdFixture *fix, const char *name,
                            const char *child, BfFaultRule *rule)
{
    BfBlockdevRef ref = {
        .kind = BF_BLOCKDEV_REF_KIND_STR,
        .u.str = (char *)child,
    };
    BfFaultRuleList rules = {.len = 1, .items = &rule};
    BfBlockdevOptionsFault fault = {.image = &ref, .rules = &rules};
    BfBlockdevOptions options = {
        .driver = BF_BLOCKDEV_DRIVER_FAULT,
        .u.fault = &fault,
    };

    if (rule->probability == 0) {
        rule->probability = 100;
    }
    co_add_node(fix, &options, name);
}

void
bf_nbd_fixture_co_export(BfNbdFixture *fix, const char *name, const char *node,
                         bool writable)
{
    BfBlockExportOptionsNbd nbd = {
        .name = (char *)name,
        .allocation_depth = true,
    };
    BfBlockExportOptions options = {
        .type = BF_BLOCK_EXPORT_TYPE_NBD,
        .id = (char *)name,
        .node_name = (char *)node,
        .writable = writable,
        .u.nbd = &nbd,
    };
    g_autoptr(GError) error = NULL;

    bf_nbd_export_co_add(&fix->server, fix->table, fix->graph, &options, NULL,
                         NULL, &error);
    g_assert_no_error(error);
}

BfChannel *
bf_nbd_peer_connect(BfNbdFixture *fix)
{
    int fds[2];

    g_assert_cmpint(
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
        ==, 0);
    bf_nbd_client_start(fix->server->first, bf_channel_socket_new(fds[0]),
                        g_strdup("a test"), &(BfPeerSource){.value = 1});
    return bf_channel_socket_new(fds[1]);
}

BfChannel *
bf_nbd_peer_co_greet(BfNbdFixture *fix)
{
    BfChannel *peer = bf_nbd_peer_connect(fix);
    uint8_t greeting[BF_NBD_GREETING_BYTES];
    uint16_t flags = 0;

    bf_nbd_peer_co_recv(peer, greeting, sizeof(greeting));
    g_assert_true(bf_nbd_parse_greeting(greeting, &flags));
    g_assert_cmphex(flags, ==, 3);
    bf_nbd_peer_co_send(peer, "\0\0\0\3", 4);
    return peer;
}

BfChannel *
bf_nbd_peer_co_go(BfNbdFixture *fix, const char *name, bool structured)
{
    BfChannel *peer = bf_nbd_peer_co_greet(fix);
    g_autoptr(GByteArray) payload = g_byte_array_new();

    if (structured) {
        bf_nbd_peer_co_option(peer, BF_NBD_OPTION_STRUCTURED_REPLY, NULL, 0);
        bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_STRUCTURED_REPLY,
                              BF_NBD_REPLY_ACK, "");
        bf_nbd_peer_co_send_meta(peer, BF_NBD_OPTION_SET_META_CONTEXT, name,
                                 "base:allocation");
        bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_SET_META_CONTEXT,
                              BF_NBD_REPLY_META_CONTEXT, NULL);
        bf_nbd_peer_co_expect(peer, BF_NBD_OPTION_SET_META_CONTEXT,
                              BF_NBD_REPLY_ACK, "");
    }
    bf_nbd_peer_co_send_go(peer, BF_NBD_OPTION_GO, name);
    while (bf_nbd_peer_co_reply(peer, BF_NBD_OPTION_GO, payload) ==
           BF_NBD_REPLY_INFO) {
    }
    return peer;
}

void
bf_nbd_peer_co_leave(BfChannel *peer)
{
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_DISC, 0, 0, 0, 0);
    bf_nbd_peer_co_expect_end(peer);
    bf_channel_free(peer);
}

void
bf_nbd_peer_co_send(BfChannel *peer, const void *data, size_t len)
{
    g_autoptr(GError) error = NULL;

    bf_channel_co_write_all(peer, data, len, &error);
    g_assert_no_error(error);
}

void
bf_nbd_peer_co_recv(BfChannel *peer, void *buf, size_t len)
{
    g_autoptr(GError) error = NULL;
    BfReadStatus status = BF_READ_DONE;

    if (len > 0) {
        status = bf_channel_co_read_exact(peer, buf, len, &error);
    }
    g_assert_no_error(error);
    g_assert_cmpint(status, ==, BF_READ_DONE);
}

void
bf_nbd_peer_co_expect_end(BfChannel *peer)
{
    uint8_t byte;
    ssize_t n = bf_channel_co_read(peer, &byte, 1, NULL);

    g_assert_cmpint(n, <=, 0); /* -1: reset, because of bytes unread */
}

/* In one piece: the server may close as soon as it has the header. */
void
bf_nbd_peer_co_option(BfChannel *peer, uint32_t option, const void *data,
                      size_t len)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    g_byte_array_set_size(bytes, BF_NBD_OPTION_BYTES);
    bf_nbd_put_option(bytes->data, &(BfNbdOptionHeader){
                                       .option = option,
                                       .length = len,
                                   });
    g_byte_array_append(bytes, data, len);
    bf_nbd_peer_co_send(peer, bytes->data, bytes->len);
}

uint32_t
bf_nbd_peer_co_reply(BfChannel *peer, uint32_t option, GByteArray *payload)
{
    uint8_t header[BF_NBD_OPTION_REPLY_BYTES];
    BfNbdOptionReply reply;

    bf_nbd_peer_co_recv(peer, header, sizeof(header));
    g_assert_true(bf_nbd_parse_option_reply(header, &reply));
    g_assert_cmpuint(reply.option, ==, option);
    g_byte_array_set_size(payload, reply.length);
    bf_nbd_peer_co_recv(peer, payload->data, reply.length);
    return reply.type;
}

void
bf_nbd_peer_co_expect(BfChannel *peer, uint32_t option, uint32_t type,
                      const char *text)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();

    g_assert_cmphex(bf_nbd_peer_co_reply(peer, option, payload), ==, type);
    if (text != NULL) {
        g_byte_array_append(payload, (const guint8 *)"", 1);
        g_assert_cmpstr((const char *)payload->data, ==, text);
    }
}

void
bf_nbd_peer_co_send_go(BfChannel *peer, uint32_t option, const char *name)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();
    BfNbdString string = {.data = name, .len = strlen(name)};

    bf_nbd_append_go(payload, string, NULL, 0);
    bf_nbd_peer_co_option(peer, option, payload->data, payload->len);
}

void
bf_nbd_peer_co_send_meta(BfChannel *peer, uint32_t option, const char *name,
                         const char *query)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();
    BfNbdString string = {.data = name, .len = strlen(name)};
    BfNbdString asked = {
        .data = query,
        .len = query != NULL ? strlen(query) : 0,
    };

    bf_nbd_append_meta(payload, string, &asked, query != NULL ? 1 : 0);
    bf_nbd_peer_co_option(peer, option, payload->data, payload->len);
}

void
bf_nbd_peer_co_request(BfChannel *peer, uint16_t command, uint16_t flags,
                       uint64_t cookie, uint64_t offset, uint32_t length)
{
    uint8_t buf[BF_NBD_REQUEST_BYTES];

    bf_nbd_put_request(buf, &(BfNbdRequest){
                                .flags = flags,
                                .command = command,
                                .cookie = cookie,
                                .offset = offset,
                                .length = length,
                            });
    bf_nbd_peer_co_send(peer, buf, sizeof(buf));
}

BfNbdPeerReply
bf_nbd_peer_co_simple(BfChannel *peer, size_t bytes)
{
    uint8_t buf[BF_NBD_SIMPLE_REPLY_BYTES];
    BfNbdPeerReply reply = {.data = g_byte_array_new()};
    BfNbdSimpleReply simple;

    bf_nbd_peer_co_recv(peer, buf, sizeof(buf));
    g_assert_true(bf_nbd_parse_simple_reply(buf, &simple));
    reply.error = simple.error;
    reply.cookie = simple.cookie;
    if (simple.error == 0) {
        g_byte_array_set_size(reply.data, bytes);
        bf_nbd_peer_co_recv(peer, reply.data->data, bytes);
    }
    return reply;
}

void
bf_nbd_peer_co_expect_read(BfChannel *peer, uint64_t offset,
                           const uint8_t *data, uint32_t len)
{
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 8, offset, len);
    g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(peer, len);

    g_assert_cmphex(reply.cookie, ==, 8);
    g_assert_cmpuint(reply.error, ==, 0);
    g_assert_cmpmem(reply.data->data, reply.data->len, data, len);
}

BfNbdPeerReply
bf_nbd_peer_co_chunks(BfChannel *peer)
{
    uint8_t buf[BF_NBD_CHUNK_BYTES];
    BfNbdPeerReply reply = {.data = g_byte_array_new()};
    BfNbdString text;
    BfNbdChunk chunk;

    do {
        bf_nbd_peer_co_recv(peer, buf, sizeof(buf));
        g_assert_true(bf_nbd_parse_chunk(buf, &chunk));
        g_assert_true(reply.chunks == 0 || chunk.cookie == reply.cookie);
        reply.cookie = chunk.cookie;
        reply.type = chunk.type;
        reply.chunks++;
        g_byte_array_set_size(reply.data, chunk.length);
        bf_nbd_peer_co_recv(peer, reply.data->data, chunk.length);
        if (chunk.type == BF_NBD_CHUNK_TYPE_ERROR) {
            g_assert_true(bf_nbd_parse_chunk_error(
                reply.data->data, chunk.length, &reply.error, &text));
        }
    } while ((chunk.flags & BF_NBD_CHUNK_DONE) == 0);
    return reply;
}

void
bf_nbd_peer_reply_clear(BfNbdPeerReply *reply)
{
    g_byte_array_unref(reply->data);
}
