/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd: extended headers. Long requests that go out as one, servers that lose
 * the ability while such a request is under way, and servers that break the
 * rules of the replies.
 */
#include <errno.h>
#include <string.h>

#include "core/util.h"
#include "harness.h"
#include "nbd-script.h"

#define EXPORT_BYTES (4096 * (uint64_t)BF_GIB)
#define LONG_BYTES (100 * (uint64_t)BF_GIB)
#define CONTEXT_ID "\0\0\0\5"

/* A large node of a server with extended headers. */
static BfChannel *
co_open(BfNbdUse *fix)
{
    BfBlockdevOptions *options = NULL;

    bf_nbd_script_open(&fix->script);
    fix->script.extended = true;
    fix->script.size = EXPORT_BYTES;
    options = bf_nbd_script_options(&fix->script);
    options->u.nbd->reconnect_delay = 60;
    bf_nbd_use_co_begin(fix, options);
    return bf_nbd_script_co_peer(&fix->script, 0);
}

/* The next request is this one. */
static BfNbdRequest
co_expect(BfChannel *peer, BfNbdCommand command, unsigned flags,
          uint64_t offset, uint64_t length)
{
    BfNbdRequest request = bf_nbd_script_co_request(peer, NULL);

    g_assert_cmpstr(bf_nbd_command_name(request.command), ==,
                    bf_nbd_command_name(command));
    g_assert_cmphex(request.flags, ==, flags);
    g_assert_cmpuint(request.offset, ==, offset);
    g_assert_cmpuint(request.length, ==, length);
    return request;
}

/* The next request is this one, and succeeds. */
static void
co_grant(BfChannel *peer, BfNbdCommand command, unsigned flags, uint64_t offset,
         uint64_t length)
{
    BfNbdRequest request = co_expect(peer, command, flags, offset, length);

    bf_nbd_script_co_done(peer, &request);
}

static void
co_refuse(BfChannel *peer, const BfNbdRequest *request, uint32_t number)
{
    uint8_t data[BF_NBD_CHUNK_ERROR_BYTES];

    bf_nbd_put_chunk_error(data, number, 0);
    bf_nbd_script_co_extended(peer, request, BF_NBD_CHUNK_DONE,
                              BF_NBD_CHUNK_TYPE_ERROR, data, sizeof(data));
}

static void
co_extended_data(BfChannel *peer, const BfNbdRequest *request, uint16_t flags,
                 uint64_t offset, uint8_t value, size_t bytes)
{
    g_autofree uint8_t *data = g_malloc(BF_NBD_CHUNK_OFFSET_BYTES + bytes);

    bf_put_be64(data, offset);
    memset(data + BF_NBD_CHUNK_OFFSET_BYTES, value, bytes);
    bf_nbd_script_co_extended(peer, request, flags,
                              BF_NBD_CHUNK_TYPE_OFFSET_DATA, data,
                              BF_NBD_CHUNK_OFFSET_BYTES + bytes);
}

/* Requests. */

static void
test_reads_and_writes(void *arg)
{
    BfNbdUse fix;
    BfChannel *peer = co_open(&fix);
    uint8_t buf[8192];
    uint8_t hole[BF_NBD_CHUNK_HOLE_BYTES];
    g_autoptr(GByteArray) payload = g_byte_array_new();
    BfNbdOp write = {.kind = NBD_OP_WRITE,
                     .offset = LONG_BYTES,
                     .bytes = sizeof(buf),
                     .flags = BF_IO_FUA,
                     .buf = buf};
    BfNbdOp read = {.kind = NBD_OP_READ,
                    .offset = LONG_BYTES,
                    .bytes = sizeof(buf),
                    .buf = buf};
    BfNbdRequest request;

    memset(buf, 0x42, sizeof(buf));
    bf_nbd_op_start(&write, fix.handle);
    request = bf_nbd_script_co_request(peer, payload);
    g_assert_cmphex(request.flags, ==,
                    BF_NBD_REQUEST_FUA | BF_NBD_REQUEST_PAYLOAD_LEN);
    g_assert_cmpuint(request.offset, ==, LONG_BYTES);
    g_assert_cmpmem(payload->data, payload->len, buf, sizeof(buf));
    bf_nbd_script_co_done(peer, &request);
    g_assert_cmpint(bf_nbd_op_co_wait(&write), ==, 0);

    bf_nbd_op_start(&read, fix.handle);
    request = co_expect(peer, BF_NBD_COMMAND_READ, 0, LONG_BYTES, sizeof(buf));
    bf_nbd_put_hole(hole, LONG_BYTES + 4096, 4096);
    bf_nbd_script_co_extended(peer, &request, 0, BF_NBD_CHUNK_TYPE_OFFSET_HOLE,
                              hole, sizeof(hole));
    co_extended_data(peer, &request, BF_NBD_CHUNK_DONE, LONG_BYTES, 7, 4096);
    g_assert_cmpint(bf_nbd_op_co_wait(&read), ==, 0);
    g_assert_cmpuint(buf[4095], ==, 7);
    g_assert_cmpuint(buf[4096], ==, 0);
    bf_nbd_op_start(&read, fix.handle);
    request = co_expect(peer, BF_NBD_COMMAND_READ, 0, LONG_BYTES, sizeof(buf));
    co_refuse(peer, &request, BF_NBD_ERROR_NOSPC);
    g_assert_cmpint(bf_nbd_op_co_wait(&read), ==, -ENOSPC);
    g_assert_cmpuint(fix.script.n_accepted, ==, 1);
    bf_nbd_use_co_close(&fix);
}

static void
test_long_requests_go_out_whole(void *arg)
{
    const unsigned fast = BF_NBD_REQUEST_FAST_ZERO;
    BfNbdUse fix;
    BfChannel *peer = co_open(&fix);
    BfNbdOp zeroes = {
        .kind = NBD_OP_ZEROES, .offset = 512, .bytes = LONG_BYTES};
    BfNbdOp discard = {.kind = NBD_OP_DISCARD, .bytes = LONG_BYTES};
    BfNbdOp small = {.kind = NBD_OP_ZEROES, .bytes = BF_GIB};

    g_assert_cmpuint(bf_handle_limits(fix.handle)->long_zeroes, >=, LONG_BYTES);
    bf_nbd_op_start(&zeroes, fix.handle);
    co_grant(peer, BF_NBD_COMMAND_WRITE_ZEROES, fast | BF_NBD_REQUEST_NO_HOLE,
             512, LONG_BYTES);
    g_assert_cmpint(bf_nbd_op_co_wait(&zeroes), ==, 0);
    zeroes.flags = BF_IO_MAY_UNMAP | BF_IO_NO_FALLBACK;
    bf_nbd_op_start(&zeroes, fix.handle);
    co_grant(peer, BF_NBD_COMMAND_WRITE_ZEROES, fast, 512, LONG_BYTES);
    g_assert_cmpint(bf_nbd_op_co_wait(&zeroes), ==, 0);
    /* What ends soon enough in any case is not refused. */
    bf_nbd_op_start(&small, fix.handle);
    co_grant(peer, BF_NBD_COMMAND_WRITE_ZEROES, BF_NBD_REQUEST_NO_HOLE, 0,
             BF_GIB);
    g_assert_cmpint(bf_nbd_op_co_wait(&small), ==, 0);
    bf_nbd_op_start(&discard, fix.handle);
    co_grant(peer, BF_NBD_COMMAND_TRIM, 0, 0, 64 * (uint64_t)BF_GIB);
    co_grant(peer, BF_NBD_COMMAND_TRIM, 0, 64 * (uint64_t)BF_GIB,
             36 * (uint64_t)BF_GIB);
    g_assert_cmpint(bf_nbd_op_co_wait(&discard), ==, 0);
    bf_nbd_use_co_close(&fix);
}

/* A server that would have to write the zeroes gets pieces. */
static void
test_zeroes_that_are_not_fast(void *arg)
{
    const unsigned flags = BF_NBD_REQUEST_NO_HOLE;
    const uint64_t bytes = 5 * (uint64_t)BF_GIB / 2;
    BfNbdUse fix;
    BfChannel *peer = co_open(&fix);
    BfNbdOp zeroes = {.kind = NBD_OP_ZEROES, .offset = 512, .bytes = bytes};
    BfNbdRequest request;

    bf_nbd_op_start(&zeroes, fix.handle);
    request = co_expect(peer, BF_NBD_COMMAND_WRITE_ZEROES,
                        flags | BF_NBD_REQUEST_FAST_ZERO, 512, bytes);
    co_refuse(peer, &request, BF_NBD_ERROR_NOTSUP);
    co_grant(peer, BF_NBD_COMMAND_WRITE_ZEROES, flags, 512, BF_GIB);
    co_grant(peer, BF_NBD_COMMAND_WRITE_ZEROES, flags, 512 + BF_GIB, BF_GIB);
    co_grant(peer, BF_NBD_COMMAND_WRITE_ZEROES, flags,
             512 + 2 * (uint64_t)BF_GIB, BF_GIB / 2);
    g_assert_cmpint(bf_nbd_op_co_wait(&zeroes), ==, 0);
    zeroes.flags = BF_IO_NO_FALLBACK;
    bf_nbd_op_start(&zeroes, fix.handle);
    request = co_expect(peer, BF_NBD_COMMAND_WRITE_ZEROES,
                        flags | BF_NBD_REQUEST_FAST_ZERO, 512, bytes);
    co_refuse(peer, &request, BF_NBD_ERROR_NOTSUP);
    g_assert_cmpint(bf_nbd_op_co_wait(&zeroes), ==, -ENOTSUP);
    bf_nbd_use_co_close(&fix);
}

/* A server may refuse what is longer than a payload; but not more. */
static void
test_long_requests_that_are_refused(void *arg)
{
    static const uint32_t numbers[] = {BF_NBD_ERROR_INVAL,
                                       BF_NBD_ERROR_OVERFLOW};
    const uint64_t piece = BF_NBD_PAYLOAD_MAX;
    BfNbdUse fix;
    BfChannel *peer = co_open(&fix);
    BfNbdOp discard = {.kind = NBD_OP_DISCARD, .bytes = 2 * piece + 512};
    BfExtents list;
    BfNbdOp status = {
        .kind = NBD_OP_EXTENTS, .bytes = LONG_BYTES, .extents = &list};
    BfNbdRequest request;

    for (unsigned i = 0; i < G_N_ELEMENTS(numbers); i++) {
        bf_nbd_op_start(&discard, fix.handle);
        request = co_expect(peer, BF_NBD_COMMAND_TRIM, 0, 0, discard.bytes);
        co_refuse(peer, &request, numbers[i]);
        co_grant(peer, BF_NBD_COMMAND_TRIM, 0, 0, piece);
        co_grant(peer, BF_NBD_COMMAND_TRIM, 0, piece, piece);
        request = co_expect(peer, BF_NBD_COMMAND_TRIM, 0, 2 * piece, 512);
        co_refuse(peer, &request, BF_NBD_ERROR_INVAL);
        g_assert_cmpint(bf_nbd_op_co_wait(&discard), ==, -EINVAL);
    }
    bf_extents_init(&list, 10);
    bf_nbd_op_start(&status, fix.handle);
    request = co_expect(peer, BF_NBD_COMMAND_BLOCK_STATUS, 0, 0, LONG_BYTES);
    bf_nbd_script_co_extended(peer, &request, 0, BF_NBD_CHUNK_TYPE_BLOCK_STATUS,
                              CONTEXT_ID "\0\0\x10\0\0\0\0\0", 12);
    co_refuse(peer, &request, BF_NBD_ERROR_OVERFLOW);
    request = co_expect(peer, BF_NBD_COMMAND_BLOCK_STATUS, 0, 0, piece);
    bf_nbd_script_co_extended(peer, &request, BF_NBD_CHUNK_DONE,
                              BF_NBD_CHUNK_TYPE_BLOCK_STATUS,
                              CONTEXT_ID "\0\0\x20\0\0\0\0\3", 12);
    g_assert_cmpint(bf_nbd_op_co_wait(&status), ==, 0);
    g_assert_cmpuint(list.len, ==, 1);
    g_assert_cmpuint(list.bytes, ==, 8192);
    bf_extents_clear(&list);
    bf_nbd_use_co_close(&fix);
}

/* Status. */

static const struct {
    uint64_t bytes, flags;
} sent[] = {{LONG_BYTES, 3}, {4096, 0}, {BF_GIB, UINT64_MAX}, {INT64_MAX, 1}};

#define N_SENT G_N_ELEMENTS(sent)

static void
co_send_status(BfChannel *peer, const BfNbdRequest *request, uint32_t count)
{
    uint8_t data[BF_NBD_STATUS_EXT_HEAD_BYTES +
                 N_SENT * BF_NBD_STATUS_EXT_EXTENT_BYTES];

    bf_nbd_put_status_ext_head(data, 5, count);
    for (unsigned i = 0; i < N_SENT; i++) {
        bf_nbd_put_status_ext_extent(data + BF_NBD_STATUS_EXT_HEAD_BYTES +
                                         i * BF_NBD_STATUS_EXT_EXTENT_BYTES,
                                     sent[i].bytes, sent[i].flags);
    }
    bf_nbd_script_co_extended(peer, request, BF_NBD_CHUNK_DONE,
                              BF_NBD_CHUNK_TYPE_BLOCK_STATUS_EXT, data,
                              sizeof(data));
}

static void
test_status_with_extents_of_64_bits(void *arg)
{
    const uint64_t bytes = 1024 * (uint64_t)BF_GIB;
    BfNbdUse fix;
    BfChannel *peer = co_open(&fix);
    BfExtents list;
    BfNbdOp op = {.kind = NBD_OP_EXTENTS, .bytes = bytes, .extents = &list};
    BfNbdRequest request;

    /* The count may be left out. */
    for (unsigned count = 0; count <= N_SENT; count += N_SENT) {
        bf_extents_init(&list, 10);
        bf_nbd_op_start(&op, fix.handle);
        request = co_expect(peer, BF_NBD_COMMAND_BLOCK_STATUS, 0, 0, bytes);
        co_send_status(peer, &request, count);
        g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, 0);
        g_assert_cmpuint(list.len, ==, N_SENT);
        g_assert_cmpuint(list.bytes, ==, bytes);
        g_assert_cmpuint(list.items[0].bytes, ==, LONG_BYTES);
        g_assert_cmpuint(list.items[0].flags, ==,
                         BF_EXTENT_HOLE | BF_EXTENT_ZERO);
        g_assert_cmpuint(list.items[3].flags, ==, BF_EXTENT_HOLE);
        bf_extents_clear(&list);
    }
    /* The short form is as good. */
    bf_extents_init(&list, 1);
    bf_nbd_op_start(&op, fix.handle);
    request = co_expect(peer, BF_NBD_COMMAND_BLOCK_STATUS,
                        BF_NBD_REQUEST_REQ_ONE, 0, bytes);
    bf_nbd_script_co_extended(peer, &request, BF_NBD_CHUNK_DONE,
                              BF_NBD_CHUNK_TYPE_BLOCK_STATUS,
                              CONTEXT_ID "\xff\xff\xff\xff\0\0\0\2", 12);
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, 0);
    g_assert_cmpuint(list.bytes, ==, UINT32_MAX);
    g_assert_cmpuint(list.items[0].flags, ==, BF_EXTENT_ZERO);
    bf_extents_clear(&list);
    bf_nbd_use_co_close(&fix);
}

/* Connections of different kinds. */

/* The server comes back without extended headers, and then with them. */
static void
test_long_request_is_split_for_another_server(void *arg)
{
    const unsigned flags = BF_NBD_REQUEST_FAST_ZERO | BF_NBD_REQUEST_NO_HOLE;
    BfNbdUse fix;
    BfChannel *peer = co_open(&fix);
    BfNbdOp zeroes = {
        .kind = NBD_OP_ZEROES, .offset = 512, .bytes = LONG_BYTES};
    uint64_t offset = 512;
    BfNbdRequest request;

    bf_nbd_op_start(&zeroes, fix.handle);
    co_expect(peer, BF_NBD_COMMAND_WRITE_ZEROES, flags, offset, LONG_BYTES);
    fix.script.extended = false;
    bf_nbd_script_drop(&fix.script, 0);
    peer = bf_nbd_script_co_peer(&fix.script, 1);
    for (unsigned i = 0; i < 3; i++) {
        request =
            co_expect(peer, BF_NBD_COMMAND_WRITE_ZEROES, flags, offset, BF_GIB);
        bf_nbd_script_co_simple(peer, request.cookie, 0, NULL, 0);
        offset += BF_GIB;
    }
    co_expect(peer, BF_NBD_COMMAND_WRITE_ZEROES, flags, offset, BF_GIB);
    fix.script.extended = true;
    bf_nbd_script_drop(&fix.script, 1);
    peer = bf_nbd_script_co_peer(&fix.script, 2);
    /* What is sent again stays as long as it has become. */
    co_grant(peer, BF_NBD_COMMAND_WRITE_ZEROES, flags, offset, BF_GIB);
    offset += BF_GIB;
    co_grant(peer, BF_NBD_COMMAND_WRITE_ZEROES, flags, offset,
             512 + LONG_BYTES - offset);
    g_assert_cmpint(bf_nbd_op_co_wait(&zeroes), ==, 0);
    bf_nbd_use_co_close(&fix);
}

static void
test_long_status_is_shortened_for_another_server(void *arg)
{
    BfNbdUse fix;
    BfChannel *peer = co_open(&fix);
    BfExtents list;
    BfNbdOp op = {
        .kind = NBD_OP_EXTENTS, .bytes = LONG_BYTES, .extents = &list};
    BfNbdRequest request;

    bf_extents_init(&list, 10);
    bf_nbd_op_start(&op, fix.handle);
    co_expect(peer, BF_NBD_COMMAND_BLOCK_STATUS, 0, 0, LONG_BYTES);
    fix.script.extended = false;
    bf_nbd_script_drop(&fix.script, 0);
    peer = bf_nbd_script_co_peer(&fix.script, 1);
    request = co_expect(peer, BF_NBD_COMMAND_BLOCK_STATUS, 0, 0, BF_GIB);
    bf_nbd_script_co_chunk(peer, request.cookie, BF_NBD_CHUNK_DONE,
                           BF_NBD_CHUNK_TYPE_BLOCK_STATUS,
                           CONTEXT_ID "\xff\0\0\0\0\0\0\3", 12);
    g_assert_cmpint(bf_nbd_op_co_wait(&op), ==, 0);
    g_assert_cmpuint(list.bytes, ==, BF_GIB);
    bf_extents_clear(&list);
    bf_nbd_use_co_close(&fix);
}

/* Answers the reads of one connection in its own form. */
typedef struct Answerer {
    BfChannel *peer;
    bool extended;
    unsigned count;
    BfWaitGroup *running;
} Answerer;

static void
answer_co_run(void *arg)
{
    Answerer *self = arg;
    BfNbdRequest request;

    while (bf_nbd_script_co_head(self->peer, &request)) {
        g_assert_cmpuint(request.command, ==, BF_NBD_COMMAND_READ);
        g_assert_cmpuint(request.length, ==, 512);
        self->count++;
        if (self->extended) {
            co_extended_data(self->peer, &request, BF_NBD_CHUNK_DONE,
                             request.offset, 1, 512);
        } else {
            bf_nbd_script_co_data(self->peer, request.cookie, BF_NBD_CHUNK_DONE,
                                  request.offset, 1, 512);
        }
    }
    bf_wait_group_done(self->running);
}

static void
co_read_two(BfHandle *handle)
{
    uint8_t bufs[2][512];
    BfNbdOp ops[2];

    for (unsigned i = 0; i < 2; i++) {
        ops[i] = (BfNbdOp){.kind = NBD_OP_READ,
                           .offset = 4096 * (uint64_t)i,
                           .bytes = 512,
                           .buf = bufs[i]};
        bf_nbd_op_start(&ops[i], handle);
    }
    for (unsigned i = 0; i < 2; i++) {
        g_assert_cmpint(bf_nbd_op_co_wait(&ops[i]), ==, 0);
        g_assert_cmpuint(bufs[i][511], ==, 1);
    }
}

/* The second connection comes when the server has become an older one. */
static void
test_connections_that_do_not_agree(void *arg)
{
    BfNbdUse fix;
    BfBlockdevOptions *options = NULL;
    Answerer answerers[2] = {{.extended = true}, {.extended = false}};
    BfWaitGroup running = {0};

    bf_nbd_script_open(&fix.script);
    fix.script.extended = true;
    fix.script.flags |= BF_NBD_EXPORT_MULTI_CONN;
    options = bf_nbd_script_options(&fix.script);
    options->u.nbd->has_connections = true;
    options->u.nbd->connections = 2;
    options->u.nbd->reconnect_delay = 60;
    bf_nbd_use_co_begin(&fix, options);
    bf_nbd_script_co_peer(&fix.script, 1);
    fix.script.extended = false;
    bf_nbd_script_drop(&fix.script, 0);
    for (unsigned i = 0; i < 2; i++) {
        answerers[i].peer = bf_nbd_script_co_peer(&fix.script, 1 + i);
        answerers[i].running = &running;
        bf_wait_group_add(&running, 1);
        bf_co_spawn(answer_co_run, &answerers[i]);
    }
    while (answerers[0].count == 0 || answerers[1].count == 0) {
        co_read_two(fix.handle);
    }
    g_assert_cmpuint(fix.script.n_accepted, ==, 3);
    for (unsigned i = 0; i < 2; i++) {
        bf_channel_shutdown(answerers[i].peer);
    }
    bf_wait_group_co_wait(&running);
    bf_nbd_use_co_close(&fix);
}

/* Breaches. */

typedef void Breach(BfChannel *peer, const BfNbdRequest *request);

static void
say_simple(BfChannel *peer, const BfNbdRequest *request)
{
    bf_nbd_script_co_simple(peer, request->cookie, BF_NBD_ERROR_IO, NULL, 0);
}

static void
say_short_chunk(BfChannel *peer, const BfNbdRequest *request)
{
    bf_nbd_script_co_data(peer, request->cookie, BF_NBD_CHUNK_DONE,
                          request->offset, 1, 4096);
}

static void
say_other_offset(BfChannel *peer, const BfNbdRequest *request)
{
    BfNbdRequest other = *request;

    other.offset++;
    co_extended_data(peer, &other, BF_NBD_CHUNK_DONE, request->offset, 1, 4096);
}

static void
say_other_cookie(BfChannel *peer, const BfNbdRequest *request)
{
    BfNbdRequest other = *request;

    other.cookie += 256;
    co_extended_data(peer, &other, BF_NBD_CHUNK_DONE, request->offset, 1, 4096);
}

static void
co_say_length(BfChannel *peer, const BfNbdRequest *request, uint64_t length)
{
    uint8_t head[BF_NBD_EXTENDED_CHUNK_BYTES];

    bf_nbd_put_extended_chunk(head,
                              &(BfNbdChunk){
                                  .type = BF_NBD_CHUNK_TYPE_OFFSET_DATA,
                                  .cookie = request->cookie,
                              },
                              request->offset);
    bf_put_be64(head + 24, length);
    bf_channel_co_write_all(peer, head, sizeof(head), NULL);
    bf_put_be64(head, request->offset);
    bf_channel_co_write_all(peer, head, BF_NBD_CHUNK_OFFSET_BYTES, NULL);
}

static void
say_endless_chunk(BfChannel *peer, const BfNbdRequest *request)
{
    co_say_length(peer, request, UINT64_MAX);
}

/* As long as what was asked for, but for the upper half. */
static void
say_chunk_of_4_gib(BfChannel *peer, const BfNbdRequest *request)
{
    co_say_length(peer, request, (UINT64_C(1) << 32) + 4096 + 8);
}

static void
say_long_chunk(BfChannel *peer, const BfNbdRequest *request)
{
    co_say_length(peer, request, UINT32_MAX);
}

static void
say_outside(BfChannel *peer, const BfNbdRequest *request)
{
    co_extended_data(peer, request, BF_NBD_CHUNK_DONE, request->offset + 1, 1,
                     4096);
}

static void
say_too_little(BfChannel *peer, const BfNbdRequest *request)
{
    co_extended_data(peer, request, BF_NBD_CHUNK_DONE, request->offset, 1,
                     4095);
}

static void
say_twice(BfChannel *peer, const BfNbdRequest *request)
{
    co_extended_data(peer, request, 0, request->offset, 1, 4096);
    co_extended_data(peer, request, 0, request->offset, 1, 4096);
}

static void
say_done(BfChannel *peer, const BfNbdRequest *request)
{
    bf_nbd_script_co_done(peer, request);
}

static void
co_say_status(BfChannel *peer, const BfNbdRequest *request, const void *data,
              size_t len)
{
    bf_nbd_script_co_extended(peer, request, BF_NBD_CHUNK_DONE,
                              BF_NBD_CHUNK_TYPE_BLOCK_STATUS_EXT, data, len);
}

#define EXTENT "\0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\0"

static void
say_status(BfChannel *peer, const BfNbdRequest *request)
{
    co_say_status(peer, request, CONTEXT_ID "\0\0\0\1" EXTENT, 24);
}

static Breach *const read_breaches[] = {
    say_simple,        say_short_chunk,    say_other_offset, say_other_cookie,
    say_endless_chunk, say_chunk_of_4_gib, say_long_chunk,   say_outside,
    say_too_little,    say_twice,          say_done,         say_status,
};

static void
say_other_context(BfChannel *peer, const BfNbdRequest *request)
{
    co_say_status(peer, request, "\0\0\0\6\0\0\0\1" EXTENT, 24);
}

static void
say_high_count(BfChannel *peer, const BfNbdRequest *request)
{
    co_say_status(peer, request, CONTEXT_ID "\xff\xff\xff\xff" EXTENT, 24);
}

static void
say_low_count(BfChannel *peer, const BfNbdRequest *request)
{
    co_say_status(peer, request, CONTEXT_ID "\0\0\0\1" EXTENT EXTENT, 40);
}

static void
say_no_extent(BfChannel *peer, const BfNbdRequest *request)
{
    co_say_status(peer, request, CONTEXT_ID "\0\0\0\0", 8);
}

static void
say_short_head(BfChannel *peer, const BfNbdRequest *request)
{
    co_say_status(peer, request, CONTEXT_ID, 4);
}

static void
say_part_of_extent(BfChannel *peer, const BfNbdRequest *request)
{
    co_say_status(peer, request, CONTEXT_ID "\0\0\0\0" EXTENT "12345678", 32);
}

static void
say_empty_extent(BfChannel *peer, const BfNbdRequest *request)
{
    co_say_status(peer, request,
                  CONTEXT_ID "\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\3", 24);
}

static void
say_extent_that_none_can_have(BfChannel *peer, const BfNbdRequest *request)
{
    co_say_status(peer, request,
                  CONTEXT_ID "\0\0\0\1\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\3", 24);
}

/* The number of extents has a limit; nobody sends so many. */
static void
say_huge_status(BfChannel *peer, const BfNbdRequest *request)
{
    uint8_t head[BF_NBD_EXTENDED_CHUNK_BYTES];

    bf_nbd_put_extended_chunk(head,
                              &(BfNbdChunk){
                                  .type = BF_NBD_CHUNK_TYPE_BLOCK_STATUS_EXT,
                                  .cookie = request->cookie,
                                  .length = 8 + 16 * (1u << 24),
                              },
                              request->offset);
    bf_channel_co_write_all(peer, head, sizeof(head), NULL);
}

static void
say_both_forms(BfChannel *peer, const BfNbdRequest *request)
{
    bf_nbd_script_co_extended(peer, request, 0, BF_NBD_CHUNK_TYPE_BLOCK_STATUS,
                              CONTEXT_ID "\0\0\x10\0\0\0\0\0", 12);
    say_status(peer, request);
}

static void
say_data_for_status(BfChannel *peer, const BfNbdRequest *request)
{
    co_extended_data(peer, request, BF_NBD_CHUNK_DONE, request->offset, 1, 16);
}

static Breach *const status_breaches[] = {
    say_simple,          say_other_offset,   say_other_context,
    say_high_count,      say_low_count,      say_no_extent,
    say_short_head,      say_part_of_extent, say_empty_extent,
    say_huge_status,     say_both_forms,     say_extent_that_none_can_have,
    say_data_for_status, say_done,
};

/* The request fails with EIO and the connection ends, of which the driver makes
 * a new one: nothing else comes of it. */
static void
co_breach(BfNbdOp *op, bool extended, Breach *breach)
{
    BfNbdUse fix;
    BfChannel *peer = NULL;
    BfNbdRequest request;

    bf_nbd_script_open(&fix.script);
    fix.script.extended = extended;
    bf_nbd_use_co_begin(&fix, bf_nbd_script_options(&fix.script));
    peer = bf_nbd_script_co_peer(&fix.script, 0);
    bf_nbd_op_start(op, fix.handle);
    request = bf_nbd_script_co_request(peer, NULL);
    breach(peer, &request);
    g_assert_cmpint(bf_nbd_op_co_wait(op), ==, -EIO);
    bf_nbd_script_co_peer(&fix.script, 1);
    bf_nbd_use_co_close(&fix);
}

static void
test_breach_of_the_protocol_ends_the_connection(void *arg)
{
    uint8_t buf[4096];
    BfNbdOp op = {
        .kind = NBD_OP_READ, .offset = 4096, .bytes = sizeof(buf), .buf = buf};

    for (unsigned i = 0; i < G_N_ELEMENTS(read_breaches); i++) {
        co_breach(&op, true, read_breaches[i]);
    }
}

static void
test_breach_in_a_status_ends_the_connection(void *arg)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(status_breaches); i++) {
        BfExtents list;
        BfNbdOp op = {.kind = NBD_OP_EXTENTS, .bytes = 65536, .extents = &list};

        bf_extents_init(&list, 10);
        co_breach(&op, true, status_breaches[i]);
        bf_extents_clear(&list);
    }
}

/* What was not negotiated is not taken, either. */
static void
say_extended(BfChannel *peer, const BfNbdRequest *request)
{
    co_extended_data(peer, request, BF_NBD_CHUNK_DONE, request->offset, 1,
                     4096);
}

static void
say_ext_in_short_chunk(BfChannel *peer, const BfNbdRequest *request)
{
    bf_nbd_script_co_chunk(peer, request->cookie, BF_NBD_CHUNK_DONE,
                           BF_NBD_CHUNK_TYPE_BLOCK_STATUS_EXT,
                           CONTEXT_ID "\0\0\0\1" EXTENT, 24);
}

static void
test_extended_replies_need_the_option(void *arg)
{
    uint8_t buf[4096];
    BfExtents list;
    BfNbdOp read = {.kind = NBD_OP_READ, .bytes = sizeof(buf), .buf = buf};
    BfNbdOp status = {.kind = NBD_OP_EXTENTS, .bytes = 65536, .extents = &list};

    co_breach(&read, false, say_extended);
    bf_extents_init(&list, 10);
    co_breach(&status, false, say_ext_in_short_chunk);
    bf_extents_clear(&list);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/nbd-extended/reads-and-writes", test_reads_and_writes);
    bf_test_add("/block/nbd-extended/long-requests-go-out-whole",
                test_long_requests_go_out_whole);
    bf_test_add("/block/nbd-extended/zeroes-that-are-not-fast",
                test_zeroes_that_are_not_fast);
    bf_test_add("/block/nbd-extended/long-requests-that-are-refused",
                test_long_requests_that_are_refused);
    bf_test_add("/block/nbd-extended/status-with-extents-of-64-bits",
                test_status_with_extents_of_64_bits);
    bf_test_add("/block/nbd-extended/long-request-is-split",
                test_long_request_is_split_for_another_server);
    bf_test_add("/block/nbd-extended/long-status-is-shortened",
                test_long_status_is_shortened_for_another_server);
    bf_test_add("/block/nbd-extended/connections-that-do-not-agree",
                test_connections_that_do_not_agree);
    bf_test_add("/block/nbd-extended/breach-of-the-protocol",
                test_breach_of_the_protocol_ends_the_connection);
    bf_test_add("/block/nbd-extended/breach-in-a-status",
                test_breach_in_a_status_ends_the_connection);
    bf_test_add("/block/nbd-extended/replies-need-the-option",
                test_extended_replies_need_the_option);
    return g_test_run();
}
