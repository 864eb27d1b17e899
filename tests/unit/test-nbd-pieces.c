/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of an NBD server whose memory is used up: done in pieces, with the
 * same results.
 */
#include <string.h>

#include "core/util.h"
#include "harness.h"
#include "nbd-peer.h"
#include "server/nbd/nbd-private.h"

/* Ranges that begin and end in and at the ends of pieces. */
static const struct {
    uint64_t offset;
    uint32_t bytes;
} ranges[] = {
    {0, 3000000},
    {NBD_PIECE_BYTES, 4 * NBD_PIECE_BYTES},
    {NBD_PIECE_BYTES - 1, NBD_PIECE_BYTES + 2},
    {12345, 5 * NBD_PIECE_BYTES},
    {NBD_TEST_BYTES - NBD_PIECE_BYTES - 7, NBD_PIECE_BYTES + 7},
    {100, 5000},
};

/* An export "e0" of a file, where nothing is left of the budget. With a @rule
 * some of its requests fail. */
static void
open_without_budget(BfNbdFixture *fix, BfFaultRule *rule)
{
    bf_nbd_fixture_co_open(fix);
    bf_nbd_fixture_co_add_file(fix, "n0");
    if (rule != NULL) {
        bf_nbd_fixture_co_add_fault(fix, "n1", "n0", rule);
    }
    bf_nbd_fixture_co_export(fix, "e0", rule != NULL ? "n1" : "n0", true);
    fix->budget.limit = 0;
}

static size_t
budget_used(const BfNbdFixture *fix)
{
    return __atomic_load_n(&fix->budget.used, __ATOMIC_RELAXED);
}

static void
write_all(BfChannel *peer, uint64_t offset, const uint8_t *data, uint32_t len)
{
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_WRITE, 0, 7, offset, len);
    bf_nbd_peer_co_send(peer, data, len);
}

static void
expect_written(BfChannel *peer, uint32_t error)
{
    g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(peer, 0);

    g_assert_cmphex(reply.cookie, ==, 7);
    g_assert_cmpuint(reply.error, ==, error);
}

static void
test_what_was_written_is_read_back(void *arg)
{
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    open_without_budget(&fix, NULL);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    for (unsigned i = 0; i < G_N_ELEMENTS(ranges); i++) {
        g_autofree uint8_t *data = bf_nbd_test_data(ranges[i].bytes, i);

        write_all(peer, ranges[i].offset, data, ranges[i].bytes);
        expect_written(peer, 0);
        bf_nbd_peer_co_expect_read(peer, ranges[i].offset, data,
                                   ranges[i].bytes);
    }
    bf_nbd_peer_co_leave(peer);
    g_assert_cmpuint(budget_used(&fix), ==, 0);
    bf_nbd_fixture_co_close(&fix);
}

/* Many of them are there at once, and none is mixed with another.
 */
static void
test_pipelined_requests(void *arg)
{
    const uint32_t bytes = 600000;
    g_autofree uint8_t *data = bf_nbd_test_data(bytes * 4, 3);
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    open_without_budget(&fix, NULL);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    for (unsigned i = 0; i < 4; i++) {
        write_all(peer, (uint64_t)i * bytes, data + (size_t)i * bytes, bytes);
    }
    for (uint64_t i = 0; i < 90; i++) {
        bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, i,
                               i % 4 * bytes + i, i % 3 == 0 ? bytes - 300 : 9);
    }
    for (unsigned i = 0; i < 4; i++) {
        expect_written(peer, 0);
    }
    for (uint64_t i = 0; i < 90; i++) {
        uint32_t len = i % 3 == 0 ? bytes - 300 : 9;
        g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(peer, len);

        g_assert_cmphex(reply.cookie, ==, i);
        g_assert_cmpmem(reply.data->data, reply.data->len,
                        data + i % 4 * bytes + i, len);
    }
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

/* Receives a chunk with its header; returns its type. */
static BfNbdChunk
expect_chunk(BfChannel *peer, uint8_t *payload, size_t room)
{
    uint8_t buf[BF_NBD_CHUNK_BYTES];
    BfNbdChunk chunk;

    bf_nbd_peer_co_recv(peer, buf, sizeof(buf));
    g_assert_true(bf_nbd_parse_chunk(buf, &chunk));
    g_assert_cmpuint(chunk.length, <=, room);
    bf_nbd_peer_co_recv(peer, payload, chunk.length);
    return chunk;
}

/* Data, a hole of a whole piece in them, and data. */
static void
test_structured_reads_have_a_chunk_for_each_piece(void *arg)
{
    const size_t piece = NBD_PIECE_BYTES;
    g_autofree uint8_t *data = bf_nbd_test_data(4 * piece, 1);
    g_autofree uint8_t *payload = g_malloc(4 * piece + 8);
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    memset(data + piece, 0, piece);
    open_without_budget(&fix, NULL);
    peer = bf_nbd_peer_co_go(&fix, "e0", true);
    write_all(peer, 0, data, 4 * piece);
    expect_written(peer, 0);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 1, 100,
                           4 * piece - 200);
    for (unsigned i = 0; i < 4; i++) {
        size_t start = i > 0 ? i * piece : 100;
        size_t end = i < 3 ? (i + 1) * piece : 4 * piece - 100;
        BfNbdChunk chunk = expect_chunk(peer, payload, 4 * piece + 8);

        g_assert_cmpuint(chunk.flags, ==, i == 3 ? BF_NBD_CHUNK_DONE : 0);
        g_assert_cmpuint(bf_get_be64(payload), ==, start);
        if (i == 1) {
            g_assert_cmpint(chunk.type, ==, BF_NBD_CHUNK_TYPE_OFFSET_HOLE);
            g_assert_cmpuint(bf_get_be32(payload + 8), ==, piece);
        } else {
            g_assert_cmpint(chunk.type, ==, BF_NBD_CHUNK_TYPE_OFFSET_DATA);
            g_assert_cmpmem(payload + 8, chunk.length - 8, data + start,
                            end - start);
        }
    }
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_unfragmented_reads_have_one_chunk_of_data(void *arg)
{
    const uint32_t len = 4 * NBD_PIECE_BYTES;
    g_autofree uint8_t *data = bf_nbd_test_data(len, 1);
    g_autofree uint8_t *payload = g_malloc(len + 8);
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;
    BfNbdChunk chunk;

    memset(data, 0, len / 2);
    open_without_budget(&fix, NULL);
    peer = bf_nbd_peer_co_go(&fix, "e0", true);
    write_all(peer, 0, data, len);
    expect_written(peer, 0);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, BF_NBD_REQUEST_DF, 1, 0,
                           len);
    chunk = expect_chunk(peer, payload, len + 8);
    g_assert_cmpint(chunk.type, ==, BF_NBD_CHUNK_TYPE_OFFSET_DATA);
    g_assert_cmpuint(chunk.flags, ==, 0);
    g_assert_cmpmem(payload + 8, chunk.length - 8, data, len);
    chunk = expect_chunk(peer, payload, 0);
    g_assert_cmpint(chunk.type, ==, BF_NBD_CHUNK_TYPE_NONE);
    g_assert_cmpuint(chunk.flags, ==, BF_NBD_CHUNK_DONE);
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

/* The third piece of it cannot be read. */
static BfFaultRule
fault_in_third_piece(BfFaultOp op)
{
    return (BfFaultRule){
        .op = op,
        .errno_ = (char *)"EIO",
        .has_offset = true,
        .offset = 2 * NBD_PIECE_BYTES,
        .has_bytes = true,
        .bytes = 1,
    };
}

static void
test_failing_structured_read_ends_with_an_error(void *arg)
{
    static const uint16_t flags[] = {0, BF_NBD_REQUEST_DF};
    BfFaultRule rule = fault_in_third_piece(BF_FAULT_OP_READ);
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    open_without_budget(&fix, &rule);
    peer = bf_nbd_peer_co_go(&fix, "e0", true);
    for (unsigned i = 0; i < G_N_ELEMENTS(flags); i++) {
        bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, flags[i], 1, 0,
                               5 * NBD_PIECE_BYTES);
        g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_chunks(peer);

        g_assert_cmpint(reply.type, ==, BF_NBD_CHUNK_TYPE_ERROR);
        g_assert_cmpuint(reply.error, ==, BF_NBD_ERROR_IO);
        g_assert_cmpuint(reply.chunks, ==, flags[i] != 0 ? 2 : 3);
    }
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

/* Where no error can be told any more, the connection ends. */
static void
test_failing_simple_read(void *arg)
{
    BfFaultRule rule = fault_in_third_piece(BF_FAULT_OP_READ);
    g_autofree uint8_t *buf = g_malloc(2 * NBD_PIECE_BYTES + 16);
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    open_without_budget(&fix, &rule);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 1, rule.offset,
                           2 * NBD_PIECE_BYTES);
    g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(peer, 0);
    g_assert_cmpuint(reply.error, ==, BF_NBD_ERROR_IO);
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 1, 0,
                           4 * NBD_PIECE_BYTES);
    bf_nbd_peer_co_recv(peer, buf, 2 * NBD_PIECE_BYTES + 16);
    bf_nbd_peer_co_expect_end(peer);
    bf_channel_free(peer);
    bf_nbd_fixture_co_close(&fix);
}

static void
test_failing_write_takes_all_of_its_payload(void *arg)
{
    BfFaultRule rule = fault_in_third_piece(BF_FAULT_OP_WRITE);
    g_autofree uint8_t *data = bf_nbd_test_data(5 * NBD_PIECE_BYTES, 0);
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = NULL;

    open_without_budget(&fix, &rule);
    peer = bf_nbd_peer_co_go(&fix, "e0", false);
    write_all(peer, 0, data, 5 * NBD_PIECE_BYTES);
    write_all(peer, 0, data, NBD_PIECE_BYTES + 5);
    expect_written(peer, BF_NBD_ERROR_IO);
    expect_written(peer, 0);
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

/* Asks for data and takes none of them. */
static BfChannel *
stuck_peer(BfNbdFixture *fix)
{
    BfChannel *peer = bf_nbd_peer_co_go(fix, "e0", false);

    for (unsigned i = 0; i < 20; i++) {
        bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 1, 0,
                               NBD_TEST_BYTES);
    }
    bf_nbd_peer_co_recv(peer, (uint8_t[16]){0}, 16);
    return peer;
}

/* Peers that do not read have the budget among them, and no more. */
static void
test_budget_is_shared(void *arg)
{
    const size_t limit = 4 * NBD_TEST_BYTES;
    g_autofree uint8_t *data = bf_nbd_test_data(100000, 0);
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peers[30];
    BfChannel *good = NULL;
    size_t reserve =
        G_N_ELEMENTS(peers) * (NBD_REQUEST_BYTES + NBD_PIECE_BYTES);

    open_without_budget(&fix, NULL);
    fix.budget.limit = limit;
    for (unsigned i = 0; i < G_N_ELEMENTS(peers); i++) {
        peers[i] = stuck_peer(&fix);
        g_assert_cmpuint(budget_used(&fix), <=, limit + reserve);
        if (i == 0) { /* one alone leaves some to others */
            g_assert_cmpuint(budget_used(&fix), <=, limit / 2);
        }
    }
    good = bf_nbd_peer_co_go(&fix, "e0", false);
    for (unsigned i = 0; i < 20; i++) {
        write_all(good, i * 1000, data, 100000);
        expect_written(good, 0);
        bf_nbd_peer_co_expect_read(good, i * 1000, data, 100000);
    }
    bf_nbd_peer_co_leave(good);
    bf_nbd_fixture_co_close(&fix);
    g_assert_cmpuint(budget_used(&fix), ==, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(peers); i++) {
        bf_channel_free(peers[i]);
    }
}

static void
test_peer_leaves_inside_a_request(void *arg)
{
    g_autofree uint8_t *data = bf_nbd_test_data(NBD_TEST_BYTES / 2, 0);
    BfNbdFixture fix = {.deleted = 0};

    open_without_budget(&fix, NULL);
    for (size_t i = 1; i < NBD_TEST_BYTES / 2; i *= 3) {
        BfChannel *peer = bf_nbd_peer_co_go(&fix, "e0", false);

        bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_WRITE, 0, 1, 0,
                               NBD_TEST_BYTES / 2);
        bf_nbd_peer_co_send(peer, data, i);
        bf_channel_free(peer);
        peer = bf_nbd_peer_co_go(&fix, "e0", false);
        bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_READ, 0, 1, 0,
                               NBD_TEST_BYTES / 2);
        bf_nbd_peer_co_recv(peer, data, i);
        bf_channel_free(peer);
    }
    bf_nbd_fixture_co_close(&fix);
    g_assert_cmpuint(budget_used(&fix), ==, 0);
}

int
main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* splice has no MSG_NOSIGNAL */
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/serve/nbd/pieces/what-was-written-is-read-back",
                test_what_was_written_is_read_back);
    bf_test_add("/serve/nbd/pieces/pipelined-requests",
                test_pipelined_requests);
    bf_test_add("/serve/nbd/pieces/structured-reads-have-a-chunk-for-each",
                test_structured_reads_have_a_chunk_for_each_piece);
    bf_test_add("/serve/nbd/pieces/unfragmented-reads-have-one-chunk-of-data",
                test_unfragmented_reads_have_one_chunk_of_data);
    bf_test_add("/serve/nbd/pieces/failing-structured-read-ends-with-an-error",
                test_failing_structured_read_ends_with_an_error);
    bf_test_add("/serve/nbd/pieces/failing-simple-read",
                test_failing_simple_read);
    bf_test_add("/serve/nbd/pieces/failing-write-takes-all-of-its-payload",
                test_failing_write_takes_all_of_its_payload);
    bf_test_add("/serve/nbd/pieces/budget-is-shared", test_budget_is_shared);
    bf_test_add("/serve/nbd/pieces/peer-leaves-inside-a-request",
                test_peer_leaves_inside_a_request);
    return g_test_run();
}
