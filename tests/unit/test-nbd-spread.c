/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Large writes that an NBD server does while they come.
 */
#include <string.h>

#include "core/util.h"
#include "harness.h"
#include "nbd-peer.h"
#include "server/nbd/nbd-private.h"

#define PIECE ((uint32_t)NBD_PIECE_BYTES)

/* Ranges that begin and end in and at the ends of pieces. */
static const struct {
    uint64_t offset;
    uint32_t bytes;
} ranges[] = {
    {0, 3000000},           {PIECE, 4 * PIECE},
    {PIECE - 1, PIECE + 2}, {12345, 5 * PIECE},
    {0, PIECE + 1},         {NBD_TEST_BYTES - PIECE - 7, PIECE + 7},
    {0, 2 * PIECE},         {4096, 3 * PIECE - 4096},
};

/* Bytes that differ from place to place, and are nowhere zero. */
static uint8_t *
make_data(size_t len, unsigned seed)
{
    uint8_t *data = g_malloc(len);

    for (size_t i = 0; i < len; i++) {
        data[i] = (uint8_t)((i * 7 + i / 251 + seed) | 1);
    }
    return data;
}

/* An export "e0" of a file. With a @rule some of its requests are faulty. */
static BfChannel *
co_open(BfNbdFixture *fix, BfFaultRule *rule)
{
    bf_nbd_fixture_co_open(fix);
    bf_nbd_fixture_co_add_file(fix, "n0");
    if (rule != NULL) {
        bf_nbd_fixture_co_add_fault(fix, "n1", "n0", rule);
    }
    bf_nbd_fixture_co_export(fix, "e0", rule != NULL ? "n1" : "n0", true);
    return bf_nbd_peer_co_go(fix, "e0", false);
}

static void
write_all(BfChannel *peer, uint16_t flags, uint64_t offset, const uint8_t *data,
          uint32_t len)
{
    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_WRITE, flags, offset, offset,
                           len);
    bf_nbd_peer_co_send(peer, data, len);
}

static void
expect_written(BfChannel *peer, uint32_t error)
{
    g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(peer, 0);

    g_assert_cmpuint(reply.error, ==, error);
}

static void
check_ranges(BfChannel *peer, uint16_t flags)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(ranges); i++) {
        g_autofree uint8_t *data = make_data(ranges[i].bytes, i + flags);

        write_all(peer, flags, ranges[i].offset, data, ranges[i].bytes);
        expect_written(peer, 0);
        bf_nbd_peer_co_expect_read(peer, ranges[i].offset, data,
                                   ranges[i].bytes);
    }
}

static void
test_what_was_written_is_read_back(void *arg)
{
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = co_open(&fix, NULL);

    check_ranges(peer, 0);
    check_ranges(peer, BF_NBD_REQUEST_FUA);
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

/* The pieces that have come are there before the rest is. */
static void
test_pieces_are_written_as_they_come(void *arg)
{
    g_autofree uint8_t *data = make_data(4 * PIECE, 5);
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = co_open(&fix, NULL);
    BfChannel *other = NULL;
    uint8_t last = 0;

    bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_WRITE, 0, 0, 0, 4 * PIECE);
    bf_nbd_peer_co_send(peer, data, 2 * PIECE + 100);
    other = bf_nbd_peer_co_go(&fix, "e0", false);
    while (last != data[2 * PIECE - 1]) {
        bf_nbd_peer_co_request(other, BF_NBD_COMMAND_READ, 0, 1, 2 * PIECE - 1,
                               1);
        g_auto(BfNbdPeerReply) reply = bf_nbd_peer_co_simple(other, 1);

        last = reply.data->data[0];
    }
    bf_nbd_peer_co_expect_read(other, 0, data, 2 * PIECE);
    bf_nbd_peer_co_send(peer, data + 2 * PIECE + 100, 2 * PIECE - 100);
    expect_written(peer, 0);
    bf_nbd_peer_co_expect_read(other, 0, data, 4 * PIECE);
    bf_nbd_peer_co_leave(other);
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

/* Some pieces have to wait, so that others come while they do. */
static void
test_slow_storage(void *arg)
{
    const uint32_t len = 5 * PIECE / 2;
    g_autofree uint8_t *data = make_data(4 * len, 9);
    BfFaultRule rule = {
        .op = BF_FAULT_OP_WRITE,
        .errno_ = (char *)"",
        .delay_ms = 3,
        .probability = 40,
    };
    BfNbdFixture fix = {.deleted = 0};
    BfChannel *peer = co_open(&fix, &rule);

    for (unsigned n = 0; n < 8; n++) {
        for (unsigned i = 0; i < 4; i++) {
            write_all(peer, 0, (uint64_t)i * len, data + (size_t)i * len, len);
        }
        for (unsigned i = 0; i < 4; i++) {
            expect_written(peer, 0);
        }
        bf_nbd_peer_co_expect_read(peer, 0, data, 4 * len);
        memset(data, (int)n + 1, 4 * len);
    }
    bf_nbd_peer_co_leave(peer);
    bf_nbd_fixture_co_close(&fix);
}

/* Whatever piece it is, the request fails once, and the next one is found. */
static void
test_failing_piece_takes_all_of_the_payload(void *arg)
{
    g_autofree uint8_t *data = make_data(5 * PIECE, 0);

    for (unsigned piece = 0; piece < 5; piece++) {
        BfFaultRule rule = {
            .op = BF_FAULT_OP_WRITE,
            .errno_ = (char *)"EIO",
            .has_offset = true,
            .offset = piece * (uint64_t)PIECE,
            .has_bytes = true,
            .bytes = 1,
            .delay_ms = piece == 2 ? 3 : 0,
        };
        BfNbdFixture fix = {.deleted = 0};
        BfChannel *peer = co_open(&fix, &rule);

        write_all(peer, 0, 0, data, 5 * PIECE);
        expect_written(peer, BF_NBD_ERROR_IO);
        write_all(peer, 0, 5 * PIECE, data, PIECE + 5);
        expect_written(peer, 0);
        bf_nbd_peer_co_expect_read(peer, 5 * PIECE, data, PIECE + 5);
        bf_nbd_peer_co_leave(peer);
        bf_nbd_fixture_co_close(&fix);
    }
}

/* Also with pieces under way. */
static void
test_peer_leaves_inside_a_request(void *arg)
{
    g_autofree uint8_t *data = make_data(6 * PIECE, 0);

    for (unsigned delay = 0; delay < 4; delay += 3) {
        BfFaultRule rule = {
            .op = BF_FAULT_OP_WRITE,
            .errno_ = (char *)"",
            .delay_ms = delay,
        };
        BfNbdFixture fix = {.deleted = 0};
        BfChannel *first = co_open(&fix, &rule);

        bf_nbd_peer_co_leave(first);
        for (size_t i = 1; i < 6 * PIECE; i = i * 2 + 1000) {
            BfChannel *peer = bf_nbd_peer_co_go(&fix, "e0", false);

            bf_nbd_peer_co_request(peer, BF_NBD_COMMAND_WRITE, 0, 1, 0,
                                   6 * PIECE);
            bf_nbd_peer_co_send(peer, data, i);
            bf_channel_free(peer);
        }
        bf_nbd_fixture_co_close(&fix);
        g_assert_cmpuint(__atomic_load_n(&fix.budget.used, __ATOMIC_RELAXED),
                         ==, 0);
    }
}

int
main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN); /* splice has no MSG_NOSIGNAL */
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/serve/nbd/spread/what-was-written-is-read-back",
                test_what_was_written_is_read_back);
    bf_test_add("/serve/nbd/spread/pieces-are-written-as-they-come",
                test_pieces_are_written_as_they_come);
    bf_test_add("/serve/nbd/spread/slow-storage", test_slow_storage);
    bf_test_add("/serve/nbd/spread/failing-piece-takes-all-of-the-payload",
                test_failing_piece_takes_all_of_the_payload);
    bf_test_add("/serve/nbd/spread/peer-leaves-inside-a-request",
                test_peer_leaves_inside_a_request);
    return g_test_run();
}
