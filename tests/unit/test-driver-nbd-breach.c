/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd: a server that breaks the rules of replies loses its connection, and
 * nothing worse happens.
 */
#include <errno.h>

#include "core/util.h"
#include "harness.h"
#include "nbd-script.h"

typedef void Breach(BfChannel *peer, uint64_t cookie);

static void
say_bad_magic(BfChannel *peer, uint64_t cookie)
{
    bf_channel_co_write_all(peer, "0123456789abcdef", 16, NULL);
}

static void
say_unknown_cookie(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_simple(peer, cookie + 256, 0, NULL, 0);
}

static void
say_simple_data(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_simple(peer, cookie, 0, "x", 1);
}

static void
say_data_before(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_data(peer, cookie, BF_NBD_CHUNK_DONE, 4095, 1, 4096);
}

static void
say_data_behind(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_data(peer, cookie, BF_NBD_CHUNK_DONE, 4097, 1, 4096);
}

static void
say_data_far_away(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_data(peer, cookie, BF_NBD_CHUNK_DONE, UINT64_MAX - 10, 1,
                          4096);
}

static void
say_no_data(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_data(peer, cookie, 0, 4096, 1, 0);
}

static void
say_too_little(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_data(peer, cookie, BF_NBD_CHUNK_DONE, 4096, 1, 4095);
}

static void
say_nothing_and_done(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_chunk(peer, cookie, BF_NBD_CHUNK_DONE,
                           BF_NBD_CHUNK_TYPE_NONE, NULL, 0);
}

static void
say_overlap(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_data(peer, cookie, 0, 4096, 1, 100);
    bf_nbd_script_co_data(peer, cookie, 0, 4196, 1, 100);
    bf_nbd_script_co_hole(peer, cookie, BF_NBD_CHUNK_DONE, 4295, 10);
}

static void
say_the_same_twice(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_data(peer, cookie, 0, 4096, 1, 4096);
    bf_nbd_script_co_data(peer, cookie, BF_NBD_CHUNK_DONE, 4096, 1, 4096);
}

static void
say_every_second_byte(BfChannel *peer, uint64_t cookie)
{
    for (unsigned i = 0; i < 2048; i++) {
        bf_nbd_script_co_data(peer, cookie, 0, 4096 + 2 * i, 1, 1);
    }
}

static void
say_long_hole(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_hole(peer, cookie, BF_NBD_CHUNK_DONE, 4096, UINT32_MAX);
}

static void
say_short_hole_chunk(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_chunk(peer, cookie, BF_NBD_CHUNK_DONE,
                           BF_NBD_CHUNK_TYPE_OFFSET_HOLE, "12345678", 8);
}

static void
say_none_without_done(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_chunk(peer, cookie, 0, BF_NBD_CHUNK_TYPE_NONE, NULL, 0);
}

static void
say_status(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_chunk(peer, cookie, BF_NBD_CHUNK_DONE,
                           BF_NBD_CHUNK_TYPE_BLOCK_STATUS, "\0\0\0\5\0\0\1\0",
                           8);
}

static void
say_unknown_chunk(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_chunk(peer, cookie, BF_NBD_CHUNK_DONE, 4711, NULL, 0);
}

static void
say_error_zero(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_error(peer, cookie, BF_NBD_CHUNK_DONE, 0);
}

static void
say_short_error(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_chunk(peer, cookie, BF_NBD_CHUNK_DONE,
                           BF_NBD_CHUNK_TYPE_ERROR, "\0\0\0\5", 4);
}

static void
say_error_with_long_text(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_chunk(peer, cookie, BF_NBD_CHUNK_DONE,
                           BF_NBD_CHUNK_TYPE_ERROR, "\0\0\0\5\xff\xff", 6);
}

static void
say_endless_errors(BfChannel *peer, uint64_t cookie)
{
    for (unsigned i = 0; i < 100; i++) {
        bf_nbd_script_co_error(peer, cookie, 0, BF_NBD_ERROR_IO);
    }
}

static void
say_huge_chunk(BfChannel *peer, uint64_t cookie)
{
    uint8_t head[BF_NBD_CHUNK_BYTES];

    bf_nbd_put_chunk(head, &(BfNbdChunk){
                               .type = BF_NBD_CHUNK_TYPE_OFFSET_DATA,
                               .cookie = cookie,
                               .length = UINT32_MAX,
                           });
    bf_channel_co_write_all(peer, head, sizeof(head), NULL);
    bf_channel_co_write_all(peer, "\0\0\0\0\0\0\x10\0", 8, NULL);
}

static void
say_shutting_down(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_error(peer, cookie, BF_NBD_CHUNK_DONE,
                           BF_NBD_ERROR_SHUTDOWN);
}

static Breach *const read_breaches[] = {
    say_bad_magic,   say_unknown_cookie,   say_simple_data,
    say_data_before, say_data_behind,      say_data_far_away,
    say_no_data,     say_too_little,       say_nothing_and_done,
    say_overlap,     say_the_same_twice,   say_every_second_byte,
    say_long_hole,   say_short_hole_chunk, say_none_without_done,
    say_status,      say_unknown_chunk,    say_error_zero,
    say_short_error, say_endless_errors,   say_error_with_long_text,
    say_huge_chunk,  say_shutting_down,
};

/* The request fails with EIO and the connection ends, of which the driver makes
 * a new one: nothing else comes of it. */
static void
co_breach(BfNbdOp *op, BfNbdCommand command, Breach *breach)
{
    BfNbdUse fix;
    BfChannel *peer = NULL;

    bf_nbd_use_co_open(&fix);
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    bf_nbd_op_start(op, fix.handle);
    breach(peer, bf_nbd_script_co_expect(peer, command));
    if (breach == say_error_with_long_text) {
        bf_nbd_script_drop(&fix.script, 0);
    }
    g_assert_cmpint(bf_nbd_op_co_wait(op), ==, -EIO);
    bf_nbd_script_co_peer(&fix.script, 1);
    bf_nbd_use_co_close(&fix);
}

static void
test_breach_of_the_protocol_ends_the_connection(void *arg)
{
    uint8_t buf[4096];

    for (unsigned i = 0; i < G_N_ELEMENTS(read_breaches); i++) {
        BfNbdOp op = {.kind = NBD_OP_READ,
                      .offset = 4096,
                      .bytes = sizeof(buf),
                      .buf = buf};

        co_breach(&op, BF_NBD_COMMAND_READ, read_breaches[i]);
    }
}

static void
co_status(BfChannel *peer, uint64_t cookie, const void *data, size_t len)
{
    bf_nbd_script_co_chunk(peer, cookie, 0, BF_NBD_CHUNK_TYPE_BLOCK_STATUS,
                           data, len);
}

static void
say_simple_status(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_simple(peer, cookie, 0, NULL, 0);
}

static void
say_other_context(BfChannel *peer, uint64_t cookie)
{
    co_status(peer, cookie, "\0\0\0\6\0\0\1\0\0\0\0\0", 12);
}

static void
say_empty_extent(BfChannel *peer, uint64_t cookie)
{
    co_status(peer, cookie, "\0\0\0\5\0\0\0\0\0\0\0\0", 12);
}

static void
say_no_extent(BfChannel *peer, uint64_t cookie)
{
    co_status(peer, cookie, "\0\0\0\5", 4);
}

static void
say_part_of_extent(BfChannel *peer, uint64_t cookie)
{
    co_status(peer, cookie, "\0\0\0\5\0\0\1\0\0\0\0\0\0\0\0\0", 16);
}

static void
say_status_twice(BfChannel *peer, uint64_t cookie)
{
    co_status(peer, cookie, "\0\0\0\5\0\0\1\0\0\0\0\0", 12);
    co_status(peer, cookie, "\0\0\0\5\0\0\1\0\0\0\0\0", 12);
}

static void
say_data_for_status(BfChannel *peer, uint64_t cookie)
{
    bf_nbd_script_co_data(peer, cookie, BF_NBD_CHUNK_DONE, 4096, 1, 4096);
}

static Breach *const status_breaches[] = {
    say_simple_status,   say_other_context,    say_empty_extent,
    say_no_extent,       say_part_of_extent,   say_status_twice,
    say_data_for_status, say_nothing_and_done,
};

static void
test_breach_in_a_status_ends_the_connection(void *arg)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(status_breaches); i++) {
        BfExtents list;
        BfNbdOp op = {.kind = NBD_OP_EXTENTS, .bytes = 65536, .extents = &list};

        bf_extents_init(&list, 10);
        co_breach(&op, BF_NBD_COMMAND_BLOCK_STATUS, status_breaches[i]);
        bf_extents_clear(&list);
    }
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/nbd-breach/breach-of-the-protocol-ends-the-connection",
                test_breach_of_the_protocol_ends_the_connection);
    bf_test_add("/block/nbd-breach/breach-in-a-status-ends-the-connection",
                test_breach_in_a_status_ends_the_connection);
    return g_test_run();
}
