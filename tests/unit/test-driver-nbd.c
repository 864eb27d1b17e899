/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nbd: what requests become on the wire, and what replies become in memory. */
#include <errno.h>
#include <string.h>

#include "core/util.h"
#include "harness.h"
#include "nbd-script.h"

static void
assert_filled(const uint8_t *buf, size_t len, uint8_t value)
{
    for (size_t i = 0; i < len; i++) {
        g_assert_cmpuint(buf[i], ==, value);
    }
}

/* Requests. */

static void
test_chunks_in_any_order(void *arg)
{
    BfNbdUse fix;
    BfChannel *peer = NULL;
    uint8_t buf[16384];
    BfNbdOp op = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};
    BfNbdRequest request;

    bf_nbd_use_co_open(&fix);
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    memset(buf, 0xee, sizeof(buf));
    op.offset = 65536;
    bf_nbd_op_start(&op, fix.handle);
    request = bf_nbd_script_co_request(peer, NULL);
    g_assert_cmpuint(request.command, ==, BF_NBD_COMMAND_READ);
    g_assert_cmpuint(request.flags, ==, 0);
    g_assert_cmpuint(request.offset, ==, 65536);
    g_assert_cmpuint(request.length, ==, sizeof(buf));
    bf_nbd_script_co_data(peer, request.cookie, 0, 65536 + 12288, 3, 4096);
    bf_nbd_script_co_data(peer, request.cookie, 0, 65536, 1, 4095);
    bf_nbd_script_co_hole(peer, request.cookie, 0, 65536 + 8192, 4096);
    bf_nbd_script_co_data(peer, request.cookie, 0, 65536 + 4095, 2, 4097);
    bf_nbd_script_co_chunk(peer, request.cookie, BF_NBD_CHUNK_DONE,
                           BF_NBD_CHUNK_TYPE_NONE, NULL, 0);
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, 0);
    assert_filled(buf, 4095, 1);
    assert_filled(buf + 4095, 4097, 2);
    assert_filled(buf + 8192, 4096, 0);
    assert_filled(buf + 12288, 4096, 3);
    bf_nbd_use_co_close(&fix);
}

/* One large chunk comes in many pieces, into memory in many pieces. */
static void
test_large_read_with_something_behind_it(void *arg)
{
    const size_t bytes = 512 * 1024;
    BfNbdUse fix;
    BfChannel *peer = NULL;
    g_autofree uint8_t *buf = g_malloc(bytes);
    uint8_t small[512];
    BfNbdOp large = {.kind = NBD_OP_READ, .bytes = bytes, .buf = buf};
    BfNbdOp next = {.kind = NBD_OP_READ, .bytes = sizeof(small), .buf = small};
    uint64_t cookies[2];

    bf_nbd_use_co_open(&fix);
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    bf_nbd_op_start(&large, fix.handle);
    bf_nbd_op_start(&next, fix.handle);
    cookies[0] = bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_READ);
    cookies[1] = bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_READ);
    bf_nbd_script_co_data(peer, cookies[0], BF_NBD_CHUNK_DONE, 0, 8, bytes);
    bf_nbd_script_co_data(peer, cookies[1], BF_NBD_CHUNK_DONE, 0, 9,
                          sizeof(small));
    g_assert_cmpint(bf_nbd_op_co_wait(&large), ==, 0);
    g_assert_cmpint(bf_nbd_op_co_wait(&next), ==, 0);
    assert_filled(buf, bytes, 8);
    assert_filled(small, sizeof(small), 9);
    bf_nbd_use_co_close(&fix);
}

static void
test_server_with_simple_replies(void *arg)
{
    BfNbdUse fix;
    BfChannel *peer = NULL;
    uint8_t buf[1024];
    uint8_t data[1024];
    BfNbdOp op = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};
    BfNbdOp extents = {.kind = NBD_OP_EXTENTS, .bytes = 65536};
    BfExtents list;

    bf_nbd_script_open(&fix.script);
    fix.script.structured = false;
    bf_nbd_use_co_begin(&fix, bf_nbd_script_options(&fix.script));
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    g_assert_cmpuint(bf_handle_limits(fix.handle)->alignment, ==, 512);
    memset(data, 0x77, sizeof(data));
    bf_nbd_op_start(&op, fix.handle);
    bf_nbd_script_co_simple(peer,
                            bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_READ),
                            0, data, sizeof(data));
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, 0);
    assert_filled(buf, sizeof(buf), 0x77);
    bf_nbd_op_start(&op, fix.handle);
    bf_nbd_script_co_simple(peer,
                            bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_READ),
                            BF_NBD_ERROR_IO, NULL, 0);
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, -EIO);
    /* It cannot be asked about holes. */
    bf_extents_init(&list, 10);
    extents.extents = &list;
    bf_nbd_op_start(&extents, fix.handle);
    g_assert_cmpint(bf_nbd_op_co_wait(&extents), ==, 0);
    g_assert_cmpuint(list.len, ==, 1);
    g_assert_cmpuint(list.items[0].flags, ==, 0);
    bf_extents_clear(&list);
    bf_nbd_use_co_close(&fix);
}

static void
test_requests_become_commands(void *arg)
{
    static const struct {
        BfNbdOpKind kind;
        unsigned flags;
        BfNbdCommand command;
        unsigned sent;
    } cases[] = {
        {NBD_OP_WRITE, 0, BF_NBD_COMMAND_WRITE, 0},
        {NBD_OP_WRITE, BF_IO_FUA, BF_NBD_COMMAND_WRITE, BF_NBD_REQUEST_FUA},
        {NBD_OP_ZEROES, 0, BF_NBD_COMMAND_WRITE_ZEROES, BF_NBD_REQUEST_NO_HOLE},
        {NBD_OP_ZEROES, BF_IO_MAY_UNMAP | BF_IO_FUA,
         BF_NBD_COMMAND_WRITE_ZEROES, BF_NBD_REQUEST_FUA},
        {NBD_OP_ZEROES, BF_IO_MAY_UNMAP, BF_NBD_COMMAND_WRITE_ZEROES, 0},
        {NBD_OP_ZEROES, BF_IO_NO_FALLBACK | BF_IO_MAY_UNMAP,
         BF_NBD_COMMAND_WRITE_ZEROES, BF_NBD_REQUEST_FAST_ZERO},
        {NBD_OP_DISCARD, 0, BF_NBD_COMMAND_TRIM, 0},
        {NBD_OP_CACHE, 0, BF_NBD_COMMAND_CACHE, 0},
    };
    BfNbdUse fix;
    BfChannel *peer = NULL;
    uint8_t buf[8192];

    bf_nbd_use_co_open(&fix);
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    memset(buf, 0x42, sizeof(buf));
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GByteArray) payload = g_byte_array_new();
        BfNbdOp op = {
            .kind = cases[i].kind,
            .offset = 4096,
            .bytes = sizeof(buf),
            .flags = cases[i].flags,
            .buf = buf,
        };
        BfNbdRequest request;

        bf_nbd_op_start(&op, fix.handle);
        request = bf_nbd_script_co_request(peer, payload);
        g_assert_cmpuint(request.command, ==, cases[i].command);
        g_assert_cmpuint(request.flags, ==, cases[i].sent);
        g_assert_cmpuint(request.offset, ==, 4096);
        g_assert_cmpuint(request.length, ==, sizeof(buf));
        if (cases[i].command == BF_NBD_COMMAND_WRITE) {
            g_assert_cmpmem(payload->data, payload->len, buf, sizeof(buf));
        }
        bf_nbd_script_co_simple(peer, request.cookie, 0, NULL, 0);
        g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, 0);
    }
    bf_nbd_use_co_close(&fix);
}

static void
test_errors_become_errno(void *arg)
{
    static const struct {
        uint32_t sent;
        int ret;
    } cases[] = {
        {BF_NBD_ERROR_PERM, -EPERM},
        {BF_NBD_ERROR_IO, -EIO},
        {BF_NBD_ERROR_NOSPC, -ENOSPC},
        {BF_NBD_ERROR_INVAL, -EINVAL},
        {4711, -EINVAL},
    };
    BfNbdUse fix;
    BfChannel *peer = NULL;
    uint8_t buf[512] = {1};

    bf_nbd_use_co_open(&fix);
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        BfNbdOp op = {.kind = i % 2 ? NBD_OP_READ : NBD_OP_WRITE,
                      .bytes = sizeof(buf),
                      .buf = buf};
        uint64_t cookie = 0;

        bf_nbd_op_start(&op, fix.handle);
        cookie = bf_nbd_script_co_request(peer, NULL).cookie;
        bf_nbd_script_co_error(peer, cookie, BF_NBD_CHUNK_DONE, cases[i].sent);
        g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, cases[i].ret);
    }
    g_assert_cmpuint(fix.script.n_accepted, ==, 1);
    bf_nbd_use_co_close(&fix);
}

/* What the server cannot do is done in another way, or not at all. */
static void
test_server_with_few_abilities(void *arg)
{
    BfNbdUse fix;
    BfChannel *peer = NULL;
    uint8_t buf[4096] = {1};
    BfNbdOp fua = {.kind = NBD_OP_WRITE,
                   .bytes = sizeof(buf),
                   .buf = buf,
                   .flags = BF_IO_FUA};
    BfNbdOp fast = {
        .kind = NBD_OP_ZEROES, .bytes = 4096, .flags = BF_IO_NO_FALLBACK};
    BfNbdOp zeroes = {.kind = NBD_OP_ZEROES, .bytes = 4096, .flags = BF_IO_FUA};
    BfNbdOp discard = {.kind = NBD_OP_DISCARD, .bytes = 4096};

    bf_nbd_script_open(&fix.script);
    fix.script.flags = BF_NBD_EXPORT_HAS_FLAGS | BF_NBD_EXPORT_FLUSH;
    bf_nbd_use_co_begin(&fix, bf_nbd_script_options(&fix.script));
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    bf_nbd_op_start(&fua, fix.handle);
    bf_nbd_script_co_simple(
        peer, bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_WRITE), 0, NULL, 0);
    bf_nbd_script_co_simple(
        peer, bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_FLUSH), 0, NULL, 0);
    g_assert_cmpint(bf_nbd_op_co_wait(&fua), ==, 0);
    bf_nbd_op_start(&fast, fix.handle);
    g_assert_cmpint(bf_nbd_op_co_wait(&fast), ==, -ENOTSUP);
    bf_nbd_op_start(&discard, fix.handle);
    g_assert_cmpint(bf_nbd_op_co_wait(&discard), ==, 0);
    bf_nbd_op_start(&zeroes, fix.handle);
    bf_nbd_script_co_simple(
        peer, bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_WRITE), 0, NULL, 0);
    bf_nbd_script_co_simple(
        peer, bf_nbd_script_co_expect(peer, BF_NBD_COMMAND_FLUSH), 0, NULL, 0);
    g_assert_cmpint(bf_nbd_op_co_wait(&zeroes), ==, 0);
    bf_nbd_use_co_close(&fix);
}

static void
test_status_becomes_extents(void *arg)
{
    static const struct {
        uint32_t bytes, flags;
    } sent[] = {{4096, 0}, {8192, 3}, {4096, 2}, {4096, 2}, {1 << 30, 0}};
    BfNbdUse fix;
    BfChannel *peer = NULL;
    BfExtents list;
    BfNbdOp op = {.kind = NBD_OP_EXTENTS, .bytes = 65536, .extents = &list};
    uint8_t data[4 + 8 * G_N_ELEMENTS(sent)];
    BfNbdRequest request;

    bf_nbd_use_co_open(&fix);
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    bf_extents_init(&list, 100);
    bf_nbd_op_start(&op, fix.handle);
    request = bf_nbd_script_co_request(peer, NULL);
    g_assert_cmpuint(request.command, ==, BF_NBD_COMMAND_BLOCK_STATUS);
    g_assert_cmpuint(request.flags, ==, 0);
    g_assert_cmpuint(request.length, ==, 65536);
    bf_put_be32(data, 5);
    for (unsigned i = 0; i < G_N_ELEMENTS(sent); i++) {
        bf_nbd_put_status_extent(data + 4 + 8 * i, sent[i].bytes,
                                 sent[i].flags);
    }
    bf_nbd_script_co_chunk(peer, request.cookie, BF_NBD_CHUNK_DONE,
                           BF_NBD_CHUNK_TYPE_BLOCK_STATUS, data, sizeof(data));
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, 0);
    g_assert_cmpuint(list.len, ==, 4);
    g_assert_cmpuint(list.bytes, ==, 65536);
    g_assert_cmpuint(list.items[1].flags, ==, BF_EXTENT_HOLE | BF_EXTENT_ZERO);
    g_assert_cmpuint(list.items[2].bytes, ==, 8192);
    g_assert_cmpuint(list.items[2].flags, ==, BF_EXTENT_ZERO);
    bf_extents_clear(&list);
    /* A list of one asks for one, and takes one. */
    bf_extents_init(&list, 1);
    bf_nbd_op_start(&op, fix.handle);
    request = bf_nbd_script_co_request(peer, NULL);
    g_assert_cmpuint(request.flags, ==, BF_NBD_REQUEST_REQ_ONE);
    bf_nbd_script_co_chunk(peer, request.cookie, BF_NBD_CHUNK_DONE,
                           BF_NBD_CHUNK_TYPE_BLOCK_STATUS, data, sizeof(data));
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, 0);
    g_assert_cmpuint(list.len, ==, 1);
    g_assert_cmpuint(list.bytes, ==, 4096);
    bf_extents_clear(&list);
    bf_nbd_use_co_close(&fix);
}

/* Many requests are sent before any reply, and replies need no order. */
static void
test_requests_are_pipelined(void *arg)
{
    enum { N = 200 };
    BfNbdUse fix;
    BfChannel *peer = NULL;
    g_autofree uint8_t *buf = g_malloc(N * 512);
    g_autofree BfNbdOp *ops = g_new0(BfNbdOp, N);
    BfNbdRequest requests[N];

    bf_nbd_use_co_open(&fix);
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    for (unsigned i = 0; i < N; i++) {
        ops[i] = (BfNbdOp){
            .kind = NBD_OP_READ,
            .offset = i * 512,
            .bytes = 512,
            .buf = buf + i * 512,
        };
        bf_nbd_op_start(&ops[i], fix.handle);
    }
    /* As many as a connection takes at once; the others wait for a place. */
    for (unsigned i = 0; i < 128; i++) {
        requests[i] = bf_nbd_script_co_request(peer, NULL);
    }
    for (unsigned i = 128; i > 0; i--) {
        bf_nbd_script_co_data(peer, requests[i - 1].cookie, BF_NBD_CHUNK_DONE,
                              requests[i - 1].offset,
                              (uint8_t)(requests[i - 1].offset / 512), 512);
    }
    for (unsigned i = 128; i < N; i++) {
        requests[i] = bf_nbd_script_co_request(peer, NULL);
        bf_nbd_script_co_data(peer, requests[i].cookie, BF_NBD_CHUNK_DONE,
                              requests[i].offset,
                              (uint8_t)(requests[i].offset / 512), 512);
    }
    for (unsigned i = 0; i < N; i++) {
        g_assert_cmpint(bf_nbd_op_co_wait(&ops[i]), ==, 0);
        assert_filled(buf + i * 512, 512, (uint8_t)i);
    }
    bf_nbd_use_co_close(&fix);
}

/* The sizes of nodes are multiples of 512, those of exports need not be. */
static void
test_export_of_an_odd_size(void *arg)
{
    BfNbdUse fix;
    BfChannel *peer = NULL;
    uint8_t buf[1024];
    BfNbdOp op = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};
    BfNbdOp write = {.kind = NBD_OP_WRITE, .bytes = sizeof(buf), .buf = buf};
    g_autoptr(GByteArray) payload = g_byte_array_new();
    BfNbdRequest request;

    bf_nbd_script_open(&fix.script);
    fix.script.size = 1000;
    bf_nbd_use_co_begin(&fix, bf_nbd_script_options(&fix.script));
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    g_assert_cmpuint(bf_handle_size(fix.handle), ==, 1024);
    memset(buf, 0xee, sizeof(buf));
    bf_nbd_op_start(&op, fix.handle);
    request = bf_nbd_script_co_request(peer, NULL);
    g_assert_cmpuint(request.length, ==, 1000);
    bf_nbd_script_co_data(peer, request.cookie, BF_NBD_CHUNK_DONE, 0, 1, 1000);
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, 0);
    assert_filled(buf, 1000, 1);
    assert_filled(buf + 1000, 24, 0);
    bf_nbd_op_start(&write, fix.handle);
    request = bf_nbd_script_co_request(peer, payload);
    g_assert_cmpuint(payload->len, ==, 1000);
    bf_nbd_script_co_simple(peer, request.cookie, 0, NULL, 0);
    g_assert_cmpint(bf_nbd_op_co_wait(&write), ==, 0);
    buf[1010] = 1;
    bf_nbd_op_start(&write, fix.handle);
    g_assert_cmpint(bf_nbd_op_co_wait(&write), ==, -ENOSPC);
    bf_nbd_use_co_close(&fix);
}

/* Requests that do not fit the server's blocks become such that do. */
static void
test_smallest_block_of_the_server(void *arg)
{
    BfNbdUse fix;
    BfChannel *peer = NULL;
    uint8_t byte = 7;
    BfNbdOp op = {
        .kind = NBD_OP_WRITE, .offset = 5000, .bytes = 1, .buf = &byte};
    g_autoptr(GByteArray) payload = g_byte_array_new();
    BfNbdRequest request;

    bf_nbd_script_open(&fix.script);
    fix.script.min_block = 4096;
    bf_nbd_use_co_begin(&fix, bf_nbd_script_options(&fix.script));
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    g_assert_cmpuint(bf_handle_limits(fix.handle)->alignment, ==, 4096);
    bf_nbd_op_start(&op, fix.handle);
    request = bf_nbd_script_co_request(peer, NULL);
    g_assert_cmpuint(request.command, ==, BF_NBD_COMMAND_READ);
    g_assert_cmpuint(request.offset, ==, 4096);
    bf_nbd_script_co_data(peer, request.cookie, BF_NBD_CHUNK_DONE, 4096, 1,
                          4096);
    request = bf_nbd_script_co_request(peer, payload);
    g_assert_cmpuint(request.command, ==, BF_NBD_COMMAND_WRITE);
    g_assert_cmpuint(request.length, ==, 4096);
    g_assert_cmpuint(payload->data[5000 - 4096], ==, 7);
    g_assert_cmpuint(payload->data[5001 - 4096], ==, 1);
    bf_nbd_script_co_simple(peer, request.cookie, 0, NULL, 0);
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, 0);
    bf_nbd_use_co_close(&fix);
}

static void
do_nothing(void *arg)
{
}

/* The server answers before it has all of a write. */
static void
test_reply_before_the_payload_was_sent(void *arg)
{
    const size_t bytes = 1024 * 1024;
    BfNbdUse fix;
    BfChannel *peer = NULL;
    g_autofree uint8_t *buf = g_malloc0(bytes);
    g_autofree uint8_t *sink = g_malloc(bytes);
    BfNbdOp op = {.kind = NBD_OP_WRITE, .bytes = bytes, .buf = buf};
    uint8_t head[BF_NBD_REQUEST_BYTES];
    BfNbdRequest request;

    bf_nbd_use_co_open(&fix);
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    bf_nbd_op_start(&op, fix.handle);
    g_assert_cmpint(bf_channel_co_read_exact(peer, head, sizeof(head), NULL),
                    ==, BF_READ_DONE);
    g_assert_true(bf_nbd_parse_request(head, &request));
    bf_nbd_script_co_simple(peer, request.cookie, BF_NBD_ERROR_NOSPC, NULL, 0);
    /* Its memory is in use until all is sent. */
    bf_co_call(bf_test_loops()->workers[0], do_nothing, NULL);
    g_assert_false(op.done);
    g_assert_cmpint(bf_channel_co_read_exact(peer, sink, bytes, NULL), ==,
                    BF_READ_DONE);
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, -ENOSPC);
    bf_nbd_use_co_close(&fix);
}

/* Its bytes stand where they belong among those of others. */
static void
test_writes_from_pipes_keep_their_place(void *arg)
{
    const BfNbdOpKind kinds[] = {NBD_OP_WRITE, NBD_OP_WRITE_PIPE,
                                 NBD_OP_WRITE_PIPE, NBD_OP_WRITE};
    uint8_t data[4][16384];
    BfNbdOp ops[4] = {0};
    BfNbdUse fix;
    BfChannel *peer = NULL;

    bf_nbd_use_co_open(&fix);
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    for (unsigned i = 0; i < 4; i++) {
        memset(data[i], (int)(i + 1), sizeof(data[i]));
        ops[i] = (BfNbdOp){.kind = kinds[i],
                           .offset = i * sizeof(data[i]),
                           .bytes = sizeof(data[i]),
                           .buf = data[i]};
        bf_nbd_op_start(&ops[i], fix.handle);
    }
    for (unsigned i = 0; i < 4; i++) {
        g_autoptr(GByteArray) payload = g_byte_array_new();
        BfNbdRequest request = bf_nbd_script_co_request(peer, payload);

        g_assert_cmpuint(request.command, ==, BF_NBD_COMMAND_WRITE);
        g_assert_cmpuint(request.offset, ==, i * sizeof(data[i]));
        g_assert_cmpmem(payload->data, payload->len, data[i], sizeof(data[i]));
        bf_nbd_script_co_simple(peer, request.cookie,
                                i == 2 ? BF_NBD_ERROR_NOSPC : 0, NULL, 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        g_assert_cmpint(bf_nbd_op_co_wait(&ops[i]), ==, i == 2 ? -ENOSPC : 0);
    }
    bf_nbd_use_co_close(&fix);
}

/* Several connections. */

/* Says yes to all that comes on one connection, and counts. */
typedef struct Yes {
    BfChannel *peer;
    unsigned counts[8];
    BfWaitGroup *running;
} Yes;

static void
yes_co_run(void *arg)
{
    Yes *yes = arg;
    g_autofree uint8_t *sink = g_malloc(65536);
    uint8_t head[BF_NBD_REQUEST_BYTES];
    BfNbdRequest request = {.command = BF_NBD_COMMAND_READ};

    while (bf_channel_co_read_exact(yes->peer, head, sizeof(head), NULL) ==
               BF_READ_DONE &&
           bf_nbd_parse_request(head, &request) &&
           request.command != BF_NBD_COMMAND_DISC) {
        if (request.command == BF_NBD_COMMAND_WRITE) {
            g_assert_cmpint(
                bf_channel_co_read_exact(yes->peer, sink, request.length, NULL),
                ==, BF_READ_DONE);
        }
        yes->counts[request.command]++;
        bf_nbd_script_co_simple(yes->peer, request.cookie, 0, NULL, 0);
    }
    bf_wait_group_done(yes->running);
}

static unsigned
count_flushes(const Yes yes[4])
{
    unsigned n = 0;

    for (unsigned i = 0; i < 4; i++) {
        n += yes[i].counts[BF_NBD_COMMAND_FLUSH];
    }
    return n;
}

static void
co_write_at_once(BfHandle *handle, unsigned n)
{
    static const uint8_t buf[512] = {1};
    BfNbdOp ops[16];

    for (unsigned i = 0; i < n; i++) {
        ops[i] = (BfNbdOp){
            .kind = NBD_OP_WRITE,
            .offset = i * 512,
            .bytes = 512,
            .buf = (uint8_t *)buf,
        };
        bf_nbd_op_start(&ops[i], handle);
    }
    for (unsigned i = 0; i < n; i++) {
        g_assert_cmpint(bf_nbd_op_co_wait(&ops[i]), ==, 0);
    }
}

static bool
have_all_written(const Yes yes[4])
{
    bool all = true;

    for (unsigned i = 0; i < 4; i++) {
        all &= yes[i].counts[BF_NBD_COMMAND_WRITE] > 0;
    }
    return all;
}

static void
test_several_connections_share_the_work(void *arg)
{
    BfNbdUse fix;
    Yes yes[4] = {0};
    BfWaitGroup running = {0};

    bf_nbd_script_open(&fix.script);
    fix.script.flags |= BF_NBD_EXPORT_MULTI_CONN;
    bf_nbd_use_co_begin(&fix, bf_nbd_script_options(&fix.script));
    for (unsigned i = 0; i < 4; i++) {
        yes[i].peer = bf_nbd_script_co_peer(&fix.script, i);
        yes[i].running = &running;
        bf_wait_group_add(&running, 1);
        bf_co_spawn(yes_co_run, &yes[i]);
    }
    /* The node is there with the first connection, the others follow. */
    while (!have_all_written(yes)) {
        co_write_at_once(fix.handle, 16);
    }
    /* All have written, so all are flushed; then one is enough. */
    g_assert_cmpint(bf_handle_co_flush(fix.handle), ==, 0);
    g_assert_cmpuint(count_flushes(yes), ==, 4);
    g_assert_cmpint(bf_handle_co_flush(fix.handle), ==, 0);
    g_assert_cmpuint(count_flushes(yes), ==, 5);
    co_write_at_once(fix.handle, 1);
    g_assert_cmpint(bf_handle_co_flush(fix.handle), ==, 0);
    g_assert_cmpuint(count_flushes(yes), ==, 6);
    g_assert_cmpuint(fix.script.n_accepted, ==, 4);
    for (unsigned i = 0; i < 4; i++) {
        bf_channel_shutdown(yes[i].peer);
    }
    bf_wait_group_co_wait(&running);
    bf_nbd_use_co_close(&fix);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/nbd/chunks-in-any-order", test_chunks_in_any_order);
    bf_test_add("/block/nbd/large-read-with-something-behind-it",
                test_large_read_with_something_behind_it);
    bf_test_add("/block/nbd/server-with-simple-replies",
                test_server_with_simple_replies);
    bf_test_add("/block/nbd/requests-become-commands",
                test_requests_become_commands);
    bf_test_add("/block/nbd/errors-become-errno", test_errors_become_errno);
    bf_test_add("/block/nbd/server-with-few-abilities",
                test_server_with_few_abilities);
    bf_test_add("/block/nbd/status-becomes-extents",
                test_status_becomes_extents);
    bf_test_add("/block/nbd/requests-are-pipelined",
                test_requests_are_pipelined);
    bf_test_add("/block/nbd/export-of-an-odd-size", test_export_of_an_odd_size);
    bf_test_add("/block/nbd/smallest-block-of-the-server",
                test_smallest_block_of_the_server);
    bf_test_add("/block/nbd/reply-before-the-payload-was-sent",
                test_reply_before_the_payload_was_sent);
    bf_test_add("/block/nbd/writes-from-pipes-keep-their-place",
                test_writes_from_pipes_keep_their_place);
    bf_test_add("/block/nbd/several-connections-share-the-work",
                test_several_connections_share_the_work);
    return g_test_run();
}
