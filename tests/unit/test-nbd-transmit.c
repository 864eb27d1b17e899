/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests and replies of the NBD server, over socket pairs.
 */
#include <string.h>

#include "core/util.h"
#include "harness.h"
#include "nbd-peer.h"
#include "server/nbd/nbd-private.h"
#include "server/nbd/stats-private.h"

static void
open_with_file(BfNbdFixture *fix)
{
    bf_nbd_fixture_co_open(fix);
    bf_nbd_fixture_co_add_file(fix, "n0");
    bf_nbd_fixture_co_export(fix, "e0", "n0", true);
}

static void
write_at(BfChannel *peer, uint64_t offset, const uint8_t *data, uint32_t len)
{
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_WRITE, 0, offset, offset, len);
    bf_nbd_peer_co_send(peer, data, len);
}

static void
expect_simple(BfChannel *peer, uint64_t cookie, uint32_t error)
{
    g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(peer, 0);

    g_assert_cmphex(reply.cookie, ==, cookie);
    g_assert_cmpuint(reply.error, ==, error);
}

static void
test_what_was_written_is_read_back(void *arg)
{
    static const uint32_t sizes[] = {
        1,     511,        512,        4096,        32768,
        32769, 128 * 1024, 256 * 1024, 1024 * 1024, 2500000};
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    open_with_file(&fix);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        g_autofree uint8_t *data = bf_nbd_test_data(sizes[i], i);

        write_at(peer, 123 + i, data, sizes[i]);
        expect_simple(peer, 123 + i, 0);
        bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 9, 123 + i,
                               sizes[i]);
        g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(peer, sizes[i]);
        g_assert_cmpuint(reply.cookie, ==, 9);
        g_assert_cmpmem(reply.data->data, reply.data->len, data, sizes[i]);
    }
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

/* In pieces or as a whole, through pipes, as it suits the machine. */
static void
test_large_writes(void *arg)
{
    static const uint32_t pages[] = {16, 64, 65, 256, 257, 1024};
    const uint64_t wakes_ns[] = {0, BF_NS_PER_MS};

    for (unsigned i = 0; i < G_N_ELEMENTS(wakes_ns); i++) {
        BfNbdFixture fix = {.config = {.wake_ns = wakes_ns[i]}};
        BfChannel *peer = NULL;

        open_with_file(&fix);
        peer = bf_nbd_peer_co_go(&fix, "e0", false);
        for (unsigned j = 0; j < G_N_ELEMENTS(pages); j++) {
            const uint32_t len = pages[j] * 4096;
            g_autofree uint8_t *data = bf_nbd_test_data(len, j);

            write_at(peer, 4096, data, len);
            expect_simple(peer, 4096, 0);
            bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 9, 4096, len);
            g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(peer, len);
            g_assert_cmpmem(reply.data->data, reply.data->len, data, len);
        }
        bf_nbd_peer_co_leave(peer);
        bf_nbd_fixture_co_close(&fix);
    }
}

/* Adds a request to @bytes, and @len bytes of payload if there are any. */
static void
append_request(GByteArray *bytes, uint16_t command, uint64_t offset,
               const uint8_t *data, uint32_t len)
{
    uint8_t buf[BF_NBD_REQUEST_BYTES];

    bf_nbd_put_request(buf, &(BfNbdRequest){
                                .command = command,
                                .cookie = offset,
                                .offset = offset,
                                .length = len,
                            });
    g_byte_array_append(bytes, buf, sizeof(buf));
    if (data != NULL) {
        g_byte_array_append(bytes, data, len);
    }
}

/* Writes 1 MiB in pieces of @piece bytes, all sent in chunks of @chunk bytes
 * before a reply is read, and compares what is there then. */
static void
write_in_chunks(BfChannel *peer, uint32_t piece, size_t chunk)
{
    /* All are sent before a reply is read, which is fine up to the number of
     * requests that a server takes at once. */
    const uint32_t total = MIN(1024 * 1024 / piece, 200) * piece;
    g_autofree uint8_t *data = bf_nbd_test_data(total, piece);
    g_autoptr(GByteArray) bytes = g_byte_array_new();

    for (uint32_t offset = 0; offset < total; offset += piece) {
        append_request(bytes, BF_NBD_COMMAND_WRITE, offset, data + offset,
                       piece);
    }
    for (size_t at = 0; at < bytes->len; at += chunk) {
        bf_nbd_peer_co_send(peer, bytes->data + at,
                            MIN(chunk, bytes->len - at));
    }
    for (uint32_t n = 0; n < total / piece; n++) {
        g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(peer, 0);

        g_assert_cmpuint(reply.error, ==, 0);
    }
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 0, 0, total);
    g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(peer, total);
    g_assert_cmpmem(reply.data->data, reply.data->len, data, total);
}

static void
test_pipelined_writes_in_any_chunking(void *arg)
{
    static const uint32_t pieces[] = {4096, 5000, 32768, 40000, 300000};
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    open_with_file(&fix);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    for (unsigned i = 0; i < G_N_ELEMENTS(pieces); i++) {
        write_in_chunks(peer, pieces[i], SIZE_MAX);
        write_in_chunks(peer, pieces[i], 10007);
        write_in_chunks(peer, pieces[i], 997);
    }
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

/* What is not aligned in the input buffer reaches an aligned node all the same,
 * be it received with others or for itself. */
static void
test_pipelined_writes_to_an_aligned_node(void *arg)
{
    static const uint32_t pieces[] = {4096, 5000, 32768, 40000};
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    bf_nbd_fixture_co_open(&fix);
    bf_nbd_fixture_co_add_direct_file(&fix, "n0");
    bf_nbd_fixture_co_export(&fix, "e0", "n0", true);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    for (unsigned i = 0; i < G_N_ELEMENTS(pieces); i++) {
        write_in_chunks(peer, pieces[i], SIZE_MAX);
        write_in_chunks(peer, pieces[i], 10007);
    }
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

/* Writes of whole pages, which go through pipes, the largest in several pieces.
 * Many small chunks do not fit into one, and the rest must follow in the right
 * place. */
static void
test_large_writes_through_pipes(void *arg)
{
    static const uint32_t pieces[] = {65536, 131072, 262144, 348160, 1048576};
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    open_with_file(&fix);
    for (unsigned i = 0; i < G_N_ELEMENTS(pieces); i++) {
        /* A failure to use pipes is remembered by the connection. */
        peer = bf_nbd_peer_co_go(&fix, "e0", false);
        write_in_chunks(peer, pieces[i], SIZE_MAX);
        write_in_chunks(peer, pieces[i], 50021);
        write_in_chunks(peer, pieces[i], 97);
        bf_nbd_peer_co_leave(peer);
    }
    bf_nbd_fixture_co_close(&fix);
}

static void
test_peer_leaves_inside_large_write(void *arg)
{
    g_autofree uint8_t *data = bf_nbd_test_data(262144, 1);
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    open_with_file(&fix);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    for (uint64_t i = 0; i < 3; i++) {
        write_at(peer, i * 262144, data, 262144);
        expect_simple(peer, i * 262144, 0);
    }
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_WRITE, 0, 7, 0, 262144);
    bf_nbd_peer_co_send(peer, data + 4096, 100000);
    bf_channel_free(peer);
    /* Nothing of it was written. */
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 8, 0, 262144);
    g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(peer, 262144);
    g_assert_cmpmem(reply.data->data, reply.data->len, data, 262144);
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_slow_writes_keep_their_payload(void *arg)
{
    BfFaultRule rule = {
        .op = BF_FAULT_OP_WRITE,
        .errno_ = (char *)"",
        .delay_ms = 3,
        .probability = 40,
    };
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    bf_nbd_fixture_co_open(&fix);
    bf_nbd_fixture_co_add_file(&fix, "n0");
    bf_nbd_fixture_co_add_fault(&fix, "n1", "n0", &rule);
    bf_nbd_fixture_co_export(&fix, "e0", "n1", true);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    write_in_chunks(peer, 512, SIZE_MAX);
    write_in_chunks(peer, 4096, SIZE_MAX);
    write_in_chunks(peer, 30000, SIZE_MAX);
    write_in_chunks(peer, 70000, SIZE_MAX);
    write_in_chunks(peer, 131072, SIZE_MAX);
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_refusals_keep_the_stream_in_step(void *arg)
{
    const uint64_t end = NBD_TEST_BYTES;
    g_autofree uint8_t *data = bf_nbd_test_data(300000, 0);
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    open_with_file(&fix);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    write_at(peer, end - 10, data, 300000);
    expect_simple(peer, end - 10, BF_NBD_ERROR_NOSPC);
    write_at(peer, UINT64_MAX, data, 4096);
    expect_simple(peer, UINT64_MAX, BF_NBD_ERROR_NOSPC);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_WRITE_ZEROES, 0, 1, 1,
                           UINT32_MAX);
    expect_simple(peer, 1, BF_NBD_ERROR_NOSPC);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 2, end, 1);
    expect_simple(peer, 2, BF_NBD_ERROR_INVAL);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_TRIM, 0, 3, 0, UINT32_MAX);
    expect_simple(peer, 3, BF_NBD_ERROR_INVAL);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 4, 0,
                           BF_NBD_PAYLOAD_MAX + 1);
    expect_simple(peer, 4, BF_NBD_ERROR_INVAL);
    bf_nbd_peer_co_request(peer, 99, 0, 5, 0, 0);
    expect_simple(peer, 5, BF_NBD_ERROR_INVAL);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, BF_NBD_REQUEST_DF, 6, 0,
                           512);
    expect_simple(peer, 6, BF_NBD_ERROR_INVAL);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_BLOCK_STATUS, 0, 7, 0, 512);
    expect_simple(peer, 7, BF_NBD_ERROR_INVAL);
    /* Nothing at the very end is fine. */
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 8, end, 0);
    expect_simple(peer, 8, 0);
    write_at(peer, end, data, 0);
    expect_simple(peer, end, 0);
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_read_only_export_refuses_changes(void *arg)
{
    static const uint16_t commands[] = {
        BF_NBD_COMMAND_WRITE, BF_NBD_COMMAND_TRIM, BF_NBD_COMMAND_WRITE_ZEROES};
    const uint8_t data[512] = {1};
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    bf_nbd_fixture_co_open(&fix);
    bf_nbd_fixture_co_add_null(&fix, "n0");
    bf_nbd_fixture_co_export(&fix, "e0", "n0", false);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        bf_nbd_peer_co_request(peer, commands[i], 0, i, 0, sizeof(data));
        if (commands[i] == BF_NBD_COMMAND_WRITE) {
            bf_nbd_peer_co_send(peer, data, sizeof(data));
        }
        expect_simple(peer, i, BF_NBD_ERROR_PERM);
    }
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 7, 0, 512);
    g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(peer, 512);
    g_assert_cmpuint(reply.error, ==, 0);
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_violations_that_end_the_connection(void *arg)
{
    BfNbdFixture fix = {.deleted = 0};
    uint8_t garbage[BF_NBD_REQUEST_BYTES];
    BfChannel *peer = NULL;

    open_with_file(&fix);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_WRITE, 0, 1, 0,
                           BF_NBD_PAYLOAD_MAX + 1);
    expect_simple(peer, 1, BF_NBD_ERROR_INVAL);
    bf_nbd_peer_co_expect_end(peer);
    bf_channel_free(peer);

    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    memset(garbage, 0x55, sizeof(garbage));
    bf_nbd_peer_co_send(peer, garbage, sizeof(garbage));
    expect_simple(peer, 0x5555555555555555, BF_NBD_ERROR_INVAL);
    bf_nbd_peer_co_expect_end(peer);
    bf_channel_free(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_structured_reads(void *arg)
{
    BfNbdFixture fix = {.deleted = 0};
    g_autofree uint8_t *data = bf_nbd_test_data(8192, 3);
    BfChannel *peer = NULL;

    open_with_file(&fix);
    peer = bf_nbd_peer_co_go(&fix, "e0", true);
    write_at(peer, 0, data, 8192);
    expect_simple(peer, 0, 0);

    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 1, 0, 8192);
    g_auto(BfNbdPeerReply) read = bf_nbd_peer_co_chunks(peer);
    g_assert_cmpint(read.type, ==, BF_NBD_CHUNK_TYPE_OFFSET_DATA);
    g_assert_cmpmem(read.data->data + 8, read.data->len - 8, data, 8192);

    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 2, 65536, 8192);
    g_auto(BfNbdPeerReply) hole = bf_nbd_peer_co_chunks(peer);
    g_assert_cmpint(hole.type, ==, BF_NBD_CHUNK_TYPE_OFFSET_HOLE);

    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, BF_NBD_REQUEST_DF, 3,
                           65536, 8192);
    g_auto(BfNbdPeerReply) whole = bf_nbd_peer_co_chunks(peer);
    g_assert_cmpint(whole.type, ==, BF_NBD_CHUNK_TYPE_OFFSET_DATA);
    g_assert_cmpuint(whole.data->len, ==, 8 + 8192);

    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 4, 0, 0);
    g_auto(BfNbdPeerReply) none = bf_nbd_peer_co_chunks(peer);
    g_assert_cmpint(none.type, ==, BF_NBD_CHUNK_TYPE_NONE);

    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 5, NBD_TEST_BYTES, 1);
    g_auto(BfNbdPeerReply) error = bf_nbd_peer_co_chunks(peer);
    g_assert_cmpint(error.type, ==, BF_NBD_CHUNK_TYPE_ERROR);
    g_assert_cmpuint(error.error, ==, BF_NBD_ERROR_INVAL);
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_storage_errors_are_reported(void *arg)
{
    BfFaultRule rule = {.op = BF_FAULT_OP_ANY, .errno_ = (char *)"ENOSPC"};
    const uint8_t data[512] = {1};
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    bf_nbd_fixture_co_open(&fix);
    bf_nbd_fixture_co_add_null(&fix, "n0");
    bf_nbd_fixture_co_add_fault(&fix, "n1", "n0", &rule);
    bf_nbd_fixture_co_export(&fix, "e0", "n1", true);
    peer = bf_nbd_peer_co_go(&fix, "e0", true);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 1, 0, 1024 * 1024);
    g_auto(BfNbdPeerReply) read = bf_nbd_peer_co_chunks(peer);
    g_assert_cmpuint(read.error, ==, BF_NBD_ERROR_NOSPC);
    write_at(peer, 0, data, sizeof(data));
    g_auto(BfNbdPeerReply) written = bf_nbd_peer_co_chunks(peer);
    g_assert_cmpuint(written.error, ==, BF_NBD_ERROR_NOSPC);
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
expect_extents(const BfNbdPeerReply *reply, const uint32_t *expected,
               unsigned n)
{
    g_assert_cmpint(reply->type, ==, BF_NBD_CHUNK_TYPE_BLOCK_STATUS);
    g_assert_cmpuint(reply->data->len, ==, 4 + n * 8);
    for (unsigned i = 0; i < n * 2; i++) {
        g_assert_cmpuint(bf_get_be32(reply->data->data + 4 + i * 4), ==,
                         expected[i]);
    }
}

static void
test_block_status(void *arg)
{
    static const uint32_t all[] = {65536, 3, 65536, 0, 131072, 3};
    static const uint32_t one[] = {65536, 3};
    g_autofree uint8_t *data = bf_nbd_test_data(65536, 0);
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    open_with_file(&fix);
    peer = bf_nbd_peer_co_go(&fix, "e0", true);
    write_at(peer, 65536, data, 65536);
    expect_simple(peer, 65536, 0);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_BLOCK_STATUS, 0, 1, 0, 262144);
    g_auto(BfNbdPeerReply) status = bf_nbd_peer_co_chunks(peer);
    expect_extents(&status, all, 3);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_BLOCK_STATUS,
                           BF_NBD_REQUEST_REQ_ONE, 2, 0, 262144);
    g_auto(BfNbdPeerReply) first = bf_nbd_peer_co_chunks(peer);
    expect_extents(&first, one, 1);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_BLOCK_STATUS, 0, 3, 0, 0);
    g_auto(BfNbdPeerReply) empty = bf_nbd_peer_co_chunks(peer);
    g_assert_cmpuint(empty.error, ==, BF_NBD_ERROR_INVAL);
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_disconnect_waits_for_requests(void *arg)
{
    BfFaultRule rule = {
        .op = BF_FAULT_OP_READ,
        .errno_ = (char *)"",
        .delay_ms = 20,
    };
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    bf_nbd_fixture_co_open(&fix);
    bf_nbd_fixture_co_add_null(&fix, "n0");
    bf_nbd_fixture_co_add_fault(&fix, "n1", "n0", &rule);
    bf_nbd_fixture_co_export(&fix, "e0", "n1", false);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 1, 0, 4096);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_DISC, 0, 2, 0, 0);
    g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(peer, 4096);
    g_assert_cmpuint(reply.cookie, ==, 1);
    g_assert_cmpuint(reply.error, ==, 0);
    bf_nbd_peer_co_expect_end(peer);
    bf_channel_free(peer);
    bf_nbd_fixture_co_close(&fix);
}

/* Reads of this kind go through pipes, more of them than there are pipes. */
static void
test_many_large_reads_at_once(void *arg)
{
    static const uint32_t sizes[] = {16384, 65536 + 1, 1024 * 1024, 3000000,
                                     5000000};
    const uint32_t n_reads = 60;
    g_autofree uint8_t *data = bf_nbd_test_data(NBD_TEST_BYTES, 5);
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    open_with_file(&fix);
    peer = bf_nbd_peer_co_go(&fix, "e0", true);
    write_at(peer, 0, data, NBD_TEST_BYTES);
    expect_simple(peer, 0, 0);
    for (uint32_t i = 0; i < n_reads; i++) {
        append_request(bytes, BF_NBD_COMMAND_READ, i * 1000, NULL, 0);
        bf_put_be32(bytes->data + bytes->len - 4,
                    sizes[i % G_N_ELEMENTS(sizes)]);
    }
    bf_nbd_peer_co_send(peer, bytes->data, bytes->len);
    for (uint32_t i = 0; i < n_reads; i++) {
        g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_chunks(peer);
        uint64_t offset = bf_get_be64(reply.data->data);

        g_assert_cmpint(reply.type, ==, BF_NBD_CHUNK_TYPE_OFFSET_DATA);
        g_assert_cmpuint(offset, ==, reply.cookie);
        g_assert_cmpmem(reply.data->data + 8, reply.data->len - 8,
                        data + offset,
                        sizes[offset / 1000 % G_N_ELEMENTS(sizes)]);
    }
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_peer_that_does_not_read_is_bounded(void *arg)
{
    BfNbdFixture fix = {.deleted = 0};
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    BfChannel *peer = NULL;
    size_t held = 0;

    open_with_file(&fix);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    for (unsigned i = 0; i < 1000; i++) {
        append_request(bytes, BF_NBD_COMMAND_READ, 0, NULL, 0);
        bf_put_be32(bytes->data + bytes->len - 4, 1024 * 1024);
    }
    bf_nbd_peer_co_send(peer, bytes->data, bytes->len);
    do { /* and then give it time to take too much */
        bf_co_sleep_ns(50 * BF_NS_PER_MS);
        held = __atomic_load_n(&fix.budget.used, __ATOMIC_RELAXED);
    } while (held == 0);
    g_assert_cmpuint(held, <=, NBD_BYTES_MAX + 3 * NBD_BUDGET_STEP);
    g_assert_cmpuint(held, >, 0);
    /* It does not delay the removal of its export. */
    bf_nbd_fixture_co_close(&fix);
    g_assert_cmpuint(fix.deleted, ==, 1);
    bf_channel_free(peer);
}

static void
test_peer_that_leaves_its_last_replies_unread(void *arg)
{
    BfNbdFixture fix = {.config.first.handshake_max_seconds = 10};
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    BfChannel *peer = NULL;

    open_with_file(&fix);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    append_request(bytes, BF_NBD_COMMAND_READ, 0, NULL, 0);
    bf_put_be32(bytes->data + bytes->len - 4, 900000);
    append_request(bytes, BF_NBD_COMMAND_DISC, 0, NULL, 0);
    bf_nbd_peer_co_send(peer, bytes->data, bytes->len);
    /* What fits into the socket is sent, and the rest is waited for. */
    bf_test_advance(9 * BF_NS_PER_SEC);
    g_assert_cmpuint(fix.server->clients.length, ==, 1);
    while (fix.server->clients.length > 0) {
        bf_test_advance(BF_NS_PER_SEC);
    }
    bf_channel_free(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_budget_is_given_back_while_a_request_is_stuck(void *arg)
{
    BfFaultRule rule = {
        .op = BF_FAULT_OP_READ,
        .errno_ = (char *)"",
        .delay_ms = 300,
        .count = 1,
    };
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    bf_nbd_fixture_co_open(&fix);
    bf_nbd_fixture_co_add_null(&fix, "n0");
    bf_nbd_fixture_co_add_fault(&fix, "n1", "n0", &rule);
    bf_nbd_fixture_co_export(&fix, "e0", "n1", false);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 1, 0, 4096);
    for (unsigned i = 0; i < 5; i++) {
        bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 2, 0,
                               NBD_TEST_BYTES);
    }
    for (unsigned i = 0; i < 5; i++) {
        g_auto(BfNbdPeerReply) reply =
            bf_nbd_peer_co_simple(peer, NBD_TEST_BYTES);

        g_assert_cmpuint(reply.cookie, ==, 2);
    }
    g_assert_cmpuint(__atomic_load_n(&fix.budget.used, __ATOMIC_RELAXED), <=,
                     NBD_TEST_BYTES + 3 * NBD_BUDGET_STEP);
    bf_test_advance(rule.delay_ms * BF_NS_PER_MS);
    g_auto(BfNbdPeerReply) slow = bf_nbd_peer_co_simple(peer, 4096);
    g_assert_cmpuint(slow.cookie, ==, 1);
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_full_budget_does_not_block_for_ever(void *arg)
{
    BfNbdFixture fix = {.deleted = 0};
    g_autofree uint8_t *data = bf_nbd_test_data(100000, 0);
    BfChannel *peers[3];

    open_with_file(&fix);
    fix.budget.limit = 1;
    for (unsigned i = 0; i < G_N_ELEMENTS(peers); i++) {
        peers[i] = bf_nbd_peer_co_go(&fix, "e0", false);
    }
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < G_N_ELEMENTS(peers); i++) {
            write_at(peers[i], 100000 * i, data, 100000);
            write_at(peers[i], 100000 * i, data, 5000);
        }
        for (unsigned i = 0; i < G_N_ELEMENTS(peers); i++) {
            expect_simple(peers[i], 100000 * i, 0);
            expect_simple(peers[i], 100000 * i, 0);
        }
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(peers); i++) {
        bf_nbd_peer_co_leave(peers[i]);
    }
    bf_nbd_fixture_co_close(&fix);
}

static void
test_large_reads_of_zeroes_leave_others_their_turns(void *arg)
{
    const uint32_t bytes = 4 * BF_MIB;
    const unsigned n_reads = 12;
    BfLoop *here[] = {bf_loop_self()};
    BfNbdFixture fix = {.deleted = 0};
    const BfNbdClient *client = NULL;
    BfChannel *peer = NULL;
    unsigned most = 0;

    bf_nbd_fixture_co_open(&fix);
    fix.server->workers = here;
    fix.server->n_workers = G_N_ELEMENTS(here);
    bf_nbd_fixture_co_add_null(&fix, "n0");
    bf_nbd_fixture_co_export(&fix, "e0", "n0", true);
    peer = bf_nbd_peer_co_go(&fix, "e0", true);
    client = fix.server->clients.head->data;
    for (unsigned i = 0; i < n_reads; i++) {
        bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, i, 0, bytes);
    }
    for (unsigned done = 0; done < n_reads;) {
        unsigned now = (unsigned)bf_nbd_stats_requests(client->stats);

        most = MAX(most, now - done);
        done = now;
        bf_co_yield();
    }
    g_assert_cmpuint(most, <=, 2);
    for (unsigned i = 0; i < n_reads; i++) {
        g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_chunks(peer);

        g_assert_cmphex(reply.type, ==, BF_NBD_CHUNK_TYPE_OFFSET_HOLE);
    }
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

int
main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* splice has no MSG_NOSIGNAL */
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/serve/nbd/transmit/what-was-written-is-read-back",
                test_what_was_written_is_read_back);
    bf_test_add("/serve/nbd/transmit/large-writes", test_large_writes);
    bf_test_add("/serve/nbd/transmit/pipelined-writes-in-any-chunking",
                test_pipelined_writes_in_any_chunking);
    bf_test_add("/serve/nbd/transmit/pipelined-writes-to-an-aligned-node",
                test_pipelined_writes_to_an_aligned_node);
    bf_test_add("/serve/nbd/transmit/large-writes-through-pipes",
                test_large_writes_through_pipes);
    bf_test_add("/serve/nbd/transmit/peer-leaves-inside-large-write",
                test_peer_leaves_inside_large_write);
    bf_test_add("/serve/nbd/transmit/slow-writes-keep-their-payload",
                test_slow_writes_keep_their_payload);
    bf_test_add("/serve/nbd/transmit/refusals-keep-the-stream-in-step",
                test_refusals_keep_the_stream_in_step);
    bf_test_add("/serve/nbd/transmit/read-only-export-refuses-changes",
                test_read_only_export_refuses_changes);
    bf_test_add("/serve/nbd/transmit/violations-that-end-the-connection",
                test_violations_that_end_the_connection);
    bf_test_add("/serve/nbd/transmit/structured-reads", test_structured_reads);
    bf_test_add("/serve/nbd/transmit/storage-errors-are-reported",
                test_storage_errors_are_reported);
    bf_test_add("/serve/nbd/transmit/block-status", test_block_status);
    bf_test_add("/serve/nbd/transmit/disconnect-waits-for-requests",
                test_disconnect_waits_for_requests);
    bf_test_add("/serve/nbd/transmit/many-large-reads-at-once",
                test_many_large_reads_at_once);
    bf_test_add("/serve/nbd/transmit/peer-that-does-not-read-is-bounded",
                test_peer_that_does_not_read_is_bounded);
    bf_test_add_fake(
        "/serve/nbd/transmit/peer-that-leaves-its-last-replies-unread",
        test_peer_that_leaves_its_last_replies_unread);
    bf_test_add_fake(
        "/serve/nbd/transmit/budget-is-given-back-while-a-request-is-stuck",
        test_budget_is_given_back_while_a_request_is_stuck);
    bf_test_add("/serve/nbd/transmit/full-budget-does-not-block-for-ever",
                test_full_budget_does_not_block_for_ever);
    bf_test_add(
        "/serve/nbd/transmit/large-reads-of-zeroes-leave-others-their-turns",
        test_large_reads_of_zeroes_leave_others_their_turns);
    return g_test_run();
}
