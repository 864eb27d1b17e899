/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD codec: every message goes there and back, every truncation of one
 * with a variable length is refused, and each field is tried at its limits.
 */
#include "proto/nbd-extended.h"
#include "proto/nbd.h"

#include <errno.h>
#include <string.h>

#include "core/error.h"
#include "core/util.h"

#define STRING(text) ((BfNbdString){.data = (text), .len = sizeof(text) - 1})

static bool
string_equals(BfNbdString string, const char *text)
{
    return string.len == strlen(text) &&
           memcmp(string.data, text, string.len) == 0;
}

static void
test_greeting_round_trip(void)
{
    uint8_t buf[BF_NBD_GREETING_BYTES];
    uint16_t flags = 0;

    bf_nbd_put_greeting(buf, 0xfedc);
    g_assert_cmpmem(buf, 16, "NBDMAGICIHAVEOPT", 16);
    g_assert_true(bf_nbd_parse_greeting(buf, &flags));
    g_assert_cmphex(flags, ==, 0xfedc);
    for (unsigned i = 0; i < 16; i++) {
        buf[i] ^= 1;
        g_assert_false(bf_nbd_parse_greeting(buf, &flags));
        buf[i] ^= 1;
    }
}

static void
test_option_round_trip(void)
{
    static const uint32_t values[] = {0, 1, 7, 0x7fffffff, UINT32_MAX};
    uint8_t buf[BF_NBD_OPTION_BYTES];
    BfNbdOptionHeader header;

    for (unsigned i = 0; i < G_N_ELEMENTS(values); i++) {
        bf_nbd_put_option(buf, &(BfNbdOptionHeader){
                                   .option = values[i],
                                   .length = ~values[i],
                               });
        g_assert_true(bf_nbd_parse_option(buf, &header));
        g_assert_cmphex(header.option, ==, values[i]);
        g_assert_cmphex(header.length, ==, (uint32_t)~values[i]);
    }
    buf[7] ^= 1;
    g_assert_false(bf_nbd_parse_option(buf, &header));
}

static void
test_option_reply_round_trip(void)
{
    static const uint32_t types[] = {BF_NBD_REPLY_ACK, BF_NBD_REPLY_ERR_UNSUP,
                                     UINT32_MAX};
    uint8_t buf[BF_NBD_OPTION_REPLY_BYTES];
    BfNbdOptionReply reply;

    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        bf_nbd_put_option_reply(
            buf, &(BfNbdOptionReply){
                     .option = 3, .type = types[i], .length = UINT32_MAX - i});
        g_assert_true(bf_nbd_parse_option_reply(buf, &reply));
        g_assert_cmphex(reply.option, ==, 3);
        g_assert_cmphex(reply.type, ==, types[i]);
        g_assert_cmphex(reply.length, ==, UINT32_MAX - i);
    }
    buf[0] ^= 0x80;
    g_assert_false(bf_nbd_parse_option_reply(buf, &reply));
}

static void
test_go_round_trip(void)
{
    static const uint16_t infos[] = {BF_NBD_INFO_BLOCK_SIZE, 31, 32, 0xffff,
                                     BF_NBD_INFO_BLOCK_SIZE};
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(GError) error = NULL;
    BfNbdGoRequest request;

    bf_nbd_append_go(bytes, STRING("disk"), infos, G_N_ELEMENTS(infos));
    g_assert_true(bf_nbd_parse_go(BF_NBD_OPTION_GO, bytes->data, bytes->len,
                                  &request, &error));
    g_assert_no_error(error);
    g_assert_true(string_equals(request.name, "disk"));
    g_assert_cmphex(request.wanted, ==,
                    1u << BF_NBD_INFO_BLOCK_SIZE | 1u << 31);

    for (unsigned len = 0; len < bytes->len; len++) {
        /* A copy of that size lets the sanitizer see reads behind it. */
        g_autofree uint8_t *part = g_memdup2(bytes->data, MAX(len, 1));

        g_assert_false(
            bf_nbd_parse_go(BF_NBD_OPTION_GO, part, len, &request, &error));
        g_assert_error(error, BF_ERROR, BF_ERROR_GENERIC);
        g_clear_error(&error);
    }
}

static void
test_go_refuses_bytes_left_over(void)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(GError) error = NULL;
    BfNbdGoRequest request;

    bf_nbd_append_go(bytes, STRING(""), NULL, 0);
    g_assert_true(bf_nbd_parse_go(BF_NBD_OPTION_INFO, bytes->data, bytes->len,
                                  &request, &error));
    g_byte_array_append(bytes, (const guint8 *)"x", 1);
    g_assert_false(bf_nbd_parse_go(BF_NBD_OPTION_INFO, bytes->data, bytes->len,
                                   &request, &error));
    g_assert_cmpstr(error->message, ==, "option 'info' has unexpected length");
}

/* Parses a GO whose name is @len bytes long; returns the error or NULL. */
static char *
parse_name_of(uint32_t len, bool with_nul)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autofree char *name = g_strnfill(len, 'n');
    g_autoptr(GError) error = NULL;
    BfNbdGoRequest request;

    if (with_nul) {
        name[len / 2] = 0;
    }
    bf_nbd_append_go(bytes, (BfNbdString){.data = name, .len = len}, NULL, 0);
    if (bf_nbd_parse_go(BF_NBD_OPTION_GO, bytes->data, bytes->len, &request,
                        &error)) {
        g_assert_cmpuint(request.name.len, ==, len);
        return NULL;
    }
    return g_strdup(error->message);
}

static void
test_name_at_its_limits(void)
{
    g_autofree char *too_long = parse_name_of(BF_NBD_STRING_MAX + 1, false);
    g_autofree char *with_nul = parse_name_of(3, true);

    g_assert_null(parse_name_of(0, false));
    g_assert_null(parse_name_of(BF_NBD_STRING_MAX, false));
    g_assert_cmpstr(too_long, ==, "Invalid name length: 4097");
    g_assert_cmpstr(with_nul, ==, "Unexpected embedded NUL in option info");
}

static void
test_length_beyond_the_option_is_inconsistent(void)
{
    const uint8_t data[] = {0, 0, 0, 9, 'a', 0, 0};
    g_autoptr(GError) error = NULL;
    BfNbdGoRequest request;

    g_assert_false(bf_nbd_parse_go(BF_NBD_OPTION_INFO, data, sizeof(data),
                                   &request, &error));
    g_assert_cmpstr(error->message, ==, "Inconsistent lengths in option info");
}

static void
test_meta_round_trip(void)
{
    const BfNbdString queries[] = {STRING("base:allocation"), STRING(""),
                                   STRING("qemu:")};
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(GError) error = NULL;
    BfNbdMetaRequest request;
    BfNbdString query;

    bf_nbd_append_meta(bytes, STRING("e0"), queries, G_N_ELEMENTS(queries));
    g_assert_true(bf_nbd_parse_meta(BF_NBD_OPTION_SET_META_CONTEXT, bytes->data,
                                    bytes->len, &request, &error));
    g_assert_true(string_equals(request.name, "e0"));
    g_assert_cmpuint(request.n_queries, ==, 3);
    g_assert_true(bf_nbd_meta_next_query(&request, &query));
    g_assert_true(string_equals(query, "base:allocation"));
    g_assert_true(bf_nbd_meta_next_query(&request, &query));
    g_assert_true(string_equals(query, ""));
    g_assert_true(bf_nbd_meta_next_query(&request, &query));
    g_assert_true(string_equals(query, "qemu:"));
    g_assert_false(bf_nbd_meta_next_query(&request, &query));

    for (unsigned len = 0; len < bytes->len; len++) {
        g_autofree uint8_t *part = g_memdup2(bytes->data, MAX(len, 1));

        g_assert_false(bf_nbd_parse_meta(BF_NBD_OPTION_SET_META_CONTEXT, part,
                                         len, &request, &error));
        g_clear_error(&error);
    }
}

static void
test_meta_refuses_bytes_left_over_and_nul(void)
{
    const BfNbdString nul = STRING("base:\0x");
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(GError) error = NULL;
    BfNbdMetaRequest request;

    bf_nbd_append_meta(bytes, STRING("e0"), &nul, 1);
    g_assert_false(bf_nbd_parse_meta(BF_NBD_OPTION_LIST_META_CONTEXT,
                                     bytes->data, bytes->len, &request,
                                     &error));
    g_assert_cmpstr(error->message, ==,
                    "Unexpected embedded NUL in option info");
    g_clear_error(&error);

    g_byte_array_set_size(bytes, 0);
    bf_nbd_append_meta(bytes, STRING("e0"), NULL, 0);
    g_byte_array_append(bytes, (const guint8 *)"IHAVEOPT", 8);
    g_assert_false(bf_nbd_parse_meta(BF_NBD_OPTION_LIST_META_CONTEXT,
                                     bytes->data, bytes->len, &request,
                                     &error));
    g_assert_cmpstr(error->message, ==,
                    "option 'list meta context' has unexpected length");
}

static void
test_meta_count_larger_than_payload_fails(void)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(GError) error = NULL;
    BfNbdMetaRequest request;

    bf_nbd_append_meta(bytes, STRING(""), NULL, 0);
    bf_put_be32(bytes->data + 4, UINT32_MAX);
    g_assert_false(bf_nbd_parse_meta(BF_NBD_OPTION_SET_META_CONTEXT,
                                     bytes->data, bytes->len, &request,
                                     &error));
}

static void
test_server_round_trip(void)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    BfNbdString name;
    BfNbdString description;

    bf_nbd_append_server(bytes, STRING("disk"), NULL);
    g_assert_true(
        bf_nbd_parse_server(bytes->data, bytes->len, &name, &description));
    g_assert_true(string_equals(name, "disk"));
    g_assert_cmpuint(description.len, ==, 0);

    g_byte_array_set_size(bytes, 0);
    bf_nbd_append_server(bytes, STRING(""), "a disk");
    g_assert_true(
        bf_nbd_parse_server(bytes->data, bytes->len, &name, &description));
    g_assert_cmpuint(name.len, ==, 0);
    g_assert_true(string_equals(description, "a disk"));
    g_assert_false(bf_nbd_parse_server("\0\0\0\1", 4, &name, &description));
    g_assert_false(bf_nbd_parse_server("\0\0", 2, &name, &description));
}

static void
test_info_round_trip(void)
{
    const BfNbdExportInfo info = {
        .size = UINT64_MAX,
        .flags = 0x0ded,
        .min_block = 1,
        .preferred_block = 4096,
        .max_block = BF_NBD_PAYLOAD_MAX,
    };
    uint8_t export_buf[BF_NBD_INFO_EXPORT_BYTES];
    uint8_t block_buf[BF_NBD_INFO_BLOCK_SIZE_BYTES];
    BfNbdExportInfo got = {.size = 0};
    BfNbdString text;
    uint16_t type;

    bf_nbd_put_info_export(export_buf, &info);
    bf_nbd_put_info_block_size(block_buf, &info);
    g_assert_true(
        bf_nbd_parse_info(export_buf, sizeof(export_buf), &type, &got, &text));
    g_assert_cmpuint(type, ==, BF_NBD_INFO_EXPORT);
    g_assert_true(
        bf_nbd_parse_info(block_buf, sizeof(block_buf), &type, &got, &text));
    g_assert_cmpuint(type, ==, BF_NBD_INFO_BLOCK_SIZE);
    g_assert_cmpuint(got.size, ==, info.size);
    g_assert_cmphex(got.flags, ==, info.flags);
    g_assert_cmpuint(got.min_block, ==, 1);
    g_assert_cmpuint(got.preferred_block, ==, 4096);
    g_assert_cmpuint(got.max_block, ==, BF_NBD_PAYLOAD_MAX);

    for (unsigned len = 0; len < sizeof(export_buf); len++) {
        g_assert_false(bf_nbd_parse_info(export_buf, len, &type, &got, &text));
    }
    for (unsigned len = 0; len < sizeof(block_buf); len++) {
        g_assert_false(bf_nbd_parse_info(block_buf, len, &type, &got, &text));
    }
}

static void
test_info_text_round_trip(void)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    BfNbdExportInfo info;
    BfNbdString text;
    uint16_t type;

    bf_nbd_append_info_text(bytes, BF_NBD_INFO_DESCRIPTION, STRING("a disk"));
    g_assert_true(
        bf_nbd_parse_info(bytes->data, bytes->len, &type, &info, &text));
    g_assert_cmpuint(type, ==, BF_NBD_INFO_DESCRIPTION);
    g_assert_true(string_equals(text, "a disk"));
    g_assert_true(bf_nbd_parse_info("\xff\xff", 2, &type, &info, &text));
    g_assert_cmpuint(type, ==, 0xffff);
}

static void
test_export_name_reply_layout(void)
{
    uint8_t buf[BF_NBD_EXPORT_NAME_REPLY_BYTES];

    bf_nbd_put_export_name_reply(
        buf, &(BfNbdExportInfo){.size = 0x0102030405060708, .flags = 0x0d6d});
    g_assert_cmpmem(buf, sizeof(buf), "\1\2\3\4\5\6\7\10\x0d\x6d", 10);
}

static void
test_request_round_trip(void)
{
    const BfNbdRequest requests[] = {
        {.command = BF_NBD_COMMAND_READ},
        {.flags = 0xffff,
         .command = 0xffff,
         .cookie = UINT64_MAX,
         .offset = UINT64_MAX,
         .length = UINT32_MAX},
        {.flags = BF_NBD_REQUEST_FUA,
         .command = BF_NBD_COMMAND_WRITE,
         .cookie = 0x0123456789abcdef,
         .offset = UINT64_C(1) << 41,
         .length = BF_NBD_PAYLOAD_MAX},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(requests); i++) {
        uint8_t buf[BF_NBD_REQUEST_BYTES];
        BfNbdRequest got;

        bf_nbd_put_request(buf, &requests[i]);
        g_assert_true(bf_nbd_parse_request(buf, &got));
        g_assert_cmphex(got.flags, ==, requests[i].flags);
        g_assert_cmphex(got.command, ==, requests[i].command);
        g_assert_cmphex(got.cookie, ==, requests[i].cookie);
        g_assert_cmphex(got.offset, ==, requests[i].offset);
        g_assert_cmphex(got.length, ==, requests[i].length);

        buf[3] ^= 1;
        got.cookie = 0;
        g_assert_false(bf_nbd_parse_request(buf, &got));
        g_assert_cmphex(got.cookie, ==, requests[i].cookie);
    }
}

static void
test_replies_round_trip(void)
{
    uint8_t simple[BF_NBD_SIMPLE_REPLY_BYTES];
    uint8_t header[BF_NBD_CHUNK_BYTES];
    BfNbdSimpleReply reply;
    BfNbdChunk chunk;

    bf_nbd_put_simple_reply(simple, &(BfNbdSimpleReply){
                                        .error = BF_NBD_ERROR_SHUTDOWN,
                                        .cookie = UINT64_MAX - 1,
                                    });
    g_assert_true(bf_nbd_parse_simple_reply(simple, &reply));
    g_assert_cmpuint(reply.error, ==, BF_NBD_ERROR_SHUTDOWN);
    g_assert_cmphex(reply.cookie, ==, UINT64_MAX - 1);
    simple[0] ^= 1;
    g_assert_false(bf_nbd_parse_simple_reply(simple, &reply));

    bf_nbd_put_chunk(header, &(BfNbdChunk){
                                 .flags = BF_NBD_CHUNK_DONE,
                                 .type = BF_NBD_CHUNK_TYPE_ERROR,
                                 .cookie = 42,
                                 .length = UINT32_MAX,
                             });
    g_assert_true(bf_nbd_parse_chunk(header, &chunk));
    g_assert_cmpuint(chunk.flags, ==, BF_NBD_CHUNK_DONE);
    g_assert_cmphex(chunk.type, ==, BF_NBD_CHUNK_TYPE_ERROR);
    g_assert_cmpuint(chunk.cookie, ==, 42);
    g_assert_cmpuint(chunk.length, ==, UINT32_MAX);
    header[0] ^= 1;
    g_assert_false(bf_nbd_parse_chunk(header, &chunk));
}

static void
test_extended_request_round_trip(void)
{
    const BfNbdRequest requests[] = {
        {.command = BF_NBD_COMMAND_READ},
        {.flags = 0xffff,
         .command = 0xffff,
         .cookie = UINT64_MAX,
         .offset = UINT64_MAX,
         .length = UINT64_MAX},
        {.flags = BF_NBD_REQUEST_PAYLOAD_LEN,
         .command = BF_NBD_COMMAND_WRITE,
         .cookie = 0x0123456789abcdef,
         .offset = UINT64_C(1) << 41,
         .length = UINT64_C(1) << 32},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(requests); i++) {
        uint8_t buf[BF_NBD_EXTENDED_REQUEST_BYTES];
        BfNbdRequest got;

        bf_nbd_put_extended_request(buf, &requests[i]);
        g_assert_true(bf_nbd_parse_extended_request(buf, &got));
        g_assert_cmphex(got.flags, ==, requests[i].flags);
        g_assert_cmphex(got.command, ==, requests[i].command);
        g_assert_cmphex(got.cookie, ==, requests[i].cookie);
        g_assert_cmphex(got.offset, ==, requests[i].offset);
        g_assert_cmphex(got.length, ==, requests[i].length);

        /* Of the other form it is none. */
        g_assert_false(bf_nbd_parse_request(buf, &got));
        buf[3] ^= 1;
        got.cookie = 0;
        g_assert_false(bf_nbd_parse_extended_request(buf, &got));
        g_assert_cmphex(got.cookie, ==, requests[i].cookie);
    }
}

static void
test_extended_chunk_round_trip(void)
{
    uint8_t buf[BF_NBD_EXTENDED_CHUNK_BYTES];
    BfNbdChunk chunk;
    uint64_t offset;

    bf_nbd_put_extended_chunk(buf,
                              &(BfNbdChunk){
                                  .flags = BF_NBD_CHUNK_DONE,
                                  .type = BF_NBD_CHUNK_TYPE_ERROR,
                                  .cookie = 42,
                                  .length = UINT32_MAX,
                              },
                              UINT64_MAX - 1);
    g_assert_true(bf_nbd_parse_extended_chunk(buf, &chunk, &offset));
    g_assert_cmpuint(chunk.flags, ==, BF_NBD_CHUNK_DONE);
    g_assert_cmphex(chunk.type, ==, BF_NBD_CHUNK_TYPE_ERROR);
    g_assert_cmpuint(chunk.cookie, ==, 42);
    g_assert_cmpuint(chunk.length, ==, UINT32_MAX);
    g_assert_cmphex(offset, ==, UINT64_MAX - 1);
    buf[27] = 1; /* a payload of more than 4 GiB */
    g_assert_false(bf_nbd_parse_extended_chunk(buf, &chunk, &offset));
    buf[27] = 0;
    buf[0] ^= 1;
    g_assert_false(bf_nbd_parse_extended_chunk(buf, &chunk, &offset));
}

static void
test_status_ext_layout(void)
{
    uint8_t head[BF_NBD_STATUS_EXT_HEAD_BYTES];
    uint8_t extent[BF_NBD_STATUS_EXT_EXTENT_BYTES];
    uint32_t id = 0;
    uint32_t count = 0;
    uint64_t length = 0;
    uint64_t flags = 0;

    bf_nbd_put_status_ext_head(head, 0x01020304, 5);
    g_assert_cmpmem(head, sizeof(head), "\1\2\3\4\0\0\0\5", 8);
    bf_nbd_parse_status_ext_head(head, &id, &count);
    g_assert_cmphex(id, ==, 0x01020304);
    g_assert_cmpuint(count, ==, 5);
    bf_nbd_put_status_ext_extent(extent, 0x0102030405060708, 3);
    g_assert_true(bf_nbd_parse_status_ext_extent(extent, &length, &flags));
    g_assert_cmphex(length, ==, 0x0102030405060708);
    g_assert_cmpuint(flags, ==, 3);
    g_assert_cmpmem(extent, sizeof(extent), "\1\2\3\4\5\6\7\10\0\0\0\0\0\0\0\3",
                    16);
    bf_nbd_put_status_ext_extent(extent, 0, 0);
    g_assert_false(bf_nbd_parse_status_ext_extent(extent, &length, &flags));
    bf_nbd_put_status_ext_extent(extent, INT64_MAX, UINT64_MAX);
    g_assert_true(bf_nbd_parse_status_ext_extent(extent, &length, &flags));
    g_assert_cmphex(flags, ==, UINT64_MAX);
    bf_nbd_put_status_ext_extent(extent, (uint64_t)INT64_MAX + 1, 0);
    g_assert_false(bf_nbd_parse_status_ext_extent(extent, &length, &flags));
}

static void
test_status_payload_of_any_length(void)
{
    const uint8_t data[] = {1, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 7, 0, 0, 0, 8};
    const uint8_t *ids = NULL;
    uint64_t length = 0;
    size_t n_ids = 0;

    for (size_t len = 0; len <= sizeof(data); len++) {
        bool good = len >= 8 && len % 4 == 0;

        g_assert_true(bf_nbd_parse_status_payload(data, len, &length, &ids,
                                                  &n_ids) == good);
        if (good) {
            g_assert_cmphex(length, ==, 0x0100000000000009);
            g_assert_true(ids == data + 8);
            g_assert_cmpuint(n_ids, ==, (len - 8) / 4);
        }
    }
}

static void
test_chunk_payloads_round_trip(void)
{
    uint8_t hole[BF_NBD_CHUNK_HOLE_BYTES];
    uint8_t error[BF_NBD_CHUNK_ERROR_BYTES + 4];
    uint8_t extent[BF_NBD_STATUS_EXTENT_BYTES];
    BfNbdString text;
    uint64_t offset;
    uint32_t value;
    uint32_t flags;

    bf_nbd_put_hole(hole, UINT64_MAX, 512);
    bf_nbd_parse_hole(hole, &offset, &value);
    g_assert_cmphex(offset, ==, UINT64_MAX);
    g_assert_cmpuint(value, ==, 512);

    bf_nbd_put_chunk_error(error, BF_NBD_ERROR_IO, 4);
    memcpy(error + BF_NBD_CHUNK_ERROR_BYTES, "oops", 4);
    g_assert_true(
        bf_nbd_parse_chunk_error(error, sizeof(error), &value, &text));
    g_assert_cmpuint(value, ==, BF_NBD_ERROR_IO);
    g_assert_true(string_equals(text, "oops"));
    for (unsigned len = 0; len < sizeof(error); len++) {
        g_assert_false(bf_nbd_parse_chunk_error(error, len, &value, &text));
    }

    bf_nbd_put_status_extent(extent, UINT32_MAX, BF_NBD_STATUS_ZERO);
    g_assert_true(bf_nbd_parse_status_extent(extent, &value, &flags));
    g_assert_cmpuint(value, ==, UINT32_MAX);
    g_assert_cmpuint(flags, ==, BF_NBD_STATUS_ZERO);
    bf_nbd_put_status_extent(extent, 0, 0);
    g_assert_false(bf_nbd_parse_status_extent(extent, &value, &flags));
}

static void
test_errno_becomes_a_protocol_error(void)
{
    static const struct {
        int err;
        BfNbdError expected;
    } cases[] = {
        {0, BF_NBD_ERROR_NONE},         {EPERM, BF_NBD_ERROR_PERM},
        {EROFS, BF_NBD_ERROR_PERM},     {EIO, BF_NBD_ERROR_IO},
        {ENOMEM, BF_NBD_ERROR_NOMEM},   {EINVAL, BF_NBD_ERROR_INVAL},
        {ENOSPC, BF_NBD_ERROR_NOSPC},   {EDQUOT, BF_NBD_ERROR_NOSPC},
        {EFBIG, BF_NBD_ERROR_NOSPC},    {EOVERFLOW, BF_NBD_ERROR_OVERFLOW},
        {ENOTSUP, BF_NBD_ERROR_NOTSUP}, {ESHUTDOWN, BF_NBD_ERROR_SHUTDOWN},
        {ETIMEDOUT, BF_NBD_ERROR_IO},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_assert_cmpint(bf_nbd_error_from_errno(cases[i].err), ==,
                        cases[i].expected);
    }
}

static void
test_protocol_error_becomes_an_errno(void)
{
    const int kept[] = {0,      EPERM,     EIO,        ENOMEM,   EINVAL,
                        ENOSPC, EOVERFLOW, EOPNOTSUPP, ESHUTDOWN};

    for (unsigned i = 0; i < G_N_ELEMENTS(kept); i++) {
        g_assert_cmpint(bf_nbd_error_to_errno(bf_nbd_error_from_errno(kept[i])),
                        ==, kept[i]);
    }
    g_assert_cmpint(bf_nbd_error_to_errno(2), ==, EINVAL);
    g_assert_cmpint(bf_nbd_error_to_errno(UINT32_MAX), ==, EINVAL);
}

static void
test_meta_context_round_trip(void)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    BfNbdString name = {0};
    uint32_t id = 0;

    bf_nbd_append_meta_context(bytes, 0xfedcba98,
                               (BfNbdString){.data = "base:x", .len = 6});
    g_assert_true(
        bf_nbd_parse_meta_context(bytes->data, bytes->len, &id, &name));
    g_assert_cmpuint(id, ==, 0xfedcba98);
    g_assert_cmpmem(name.data, name.len, "base:x", 6);
    for (size_t len = 0; len < 4; len++) {
        g_assert_false(bf_nbd_parse_meta_context(bytes->data, len, &id, &name));
    }
    g_assert_true(bf_nbd_parse_meta_context(bytes->data, 4, &id, &name));
    g_assert_cmpuint(name.len, ==, 0);
}

static void
test_export_name_reply_round_trip(void)
{
    const BfNbdExportInfo said = {.size = UINT64_MAX - 1, .flags = 0xfedc};
    BfNbdExportInfo heard = {.min_block = 7};
    uint8_t buf[BF_NBD_EXPORT_NAME_REPLY_BYTES];

    bf_nbd_put_export_name_reply(buf, &said);
    bf_nbd_parse_export_name_reply(buf, &heard);
    g_assert_cmpuint(heard.size, ==, said.size);
    g_assert_cmpuint(heard.flags, ==, said.flags);
    g_assert_cmpuint(heard.min_block, ==, 7);
}

static void
test_oldstyle_greeting_is_told_apart(void)
{
    uint8_t buf[BF_NBD_GREETING_BYTES];

    bf_nbd_put_greeting(buf, 3);
    g_assert_false(bf_nbd_is_oldstyle_greeting(buf));
    bf_put_be64(buf + 8, BF_NBD_OLDSTYLE_MAGIC);
    g_assert_true(bf_nbd_is_oldstyle_greeting(buf));
    buf[0] ^= 1;
    g_assert_false(bf_nbd_is_oldstyle_greeting(buf));
}

static void
test_names_exist_for_all_numbers(void)
{
    for (uint32_t i = 0; i < 16; i++) {
        g_assert_nonnull(bf_nbd_option_error_name(i | BF_NBD_REPLY_ERROR_BIT));
    }
    for (uint32_t i = 0; i < 64; i++) {
        g_assert_nonnull(bf_nbd_option_name(i));
        g_assert_nonnull(bf_nbd_command_name(i));
    }
    g_assert_cmpstr(bf_nbd_option_name(UINT32_MAX), ==, "<unknown>");
    g_assert_cmpstr(bf_nbd_option_name(0), ==, "<unknown>");
    g_assert_cmpstr(bf_nbd_option_name(BF_NBD_OPTION_GO), ==, "go");
    g_assert_cmpstr(bf_nbd_command_name(UINT32_MAX), ==, "<unknown>");
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/proto/nbd/greeting/round-trip", test_greeting_round_trip);
    g_test_add_func("/proto/nbd/option/round-trip", test_option_round_trip);
    g_test_add_func("/proto/nbd/option-reply/round-trip",
                    test_option_reply_round_trip);
    g_test_add_func("/proto/nbd/go/round-trip", test_go_round_trip);
    g_test_add_func("/proto/nbd/go/refuses-bytes-left-over",
                    test_go_refuses_bytes_left_over);
    g_test_add_func("/proto/nbd/go/name-at-its-limits",
                    test_name_at_its_limits);
    g_test_add_func("/proto/nbd/go/length-beyond-the-option-is-inconsistent",
                    test_length_beyond_the_option_is_inconsistent);
    g_test_add_func("/proto/nbd/meta/round-trip", test_meta_round_trip);
    g_test_add_func("/proto/nbd/meta/refuses-bytes-left-over-and-nul",
                    test_meta_refuses_bytes_left_over_and_nul);
    g_test_add_func("/proto/nbd/meta/count-larger-than-payload-fails",
                    test_meta_count_larger_than_payload_fails);
    g_test_add_func("/proto/nbd/server/round-trip", test_server_round_trip);
    g_test_add_func("/proto/nbd/info/round-trip", test_info_round_trip);
    g_test_add_func("/proto/nbd/info/text-round-trip",
                    test_info_text_round_trip);
    g_test_add_func("/proto/nbd/export-name-reply/layout",
                    test_export_name_reply_layout);
    g_test_add_func("/proto/nbd/request/round-trip", test_request_round_trip);
    g_test_add_func("/proto/nbd/replies/round-trip", test_replies_round_trip);
    g_test_add_func("/proto/nbd/extended-request/round-trip",
                    test_extended_request_round_trip);
    g_test_add_func("/proto/nbd/extended-chunk/round-trip",
                    test_extended_chunk_round_trip);
    g_test_add_func("/proto/nbd/status-ext/layout", test_status_ext_layout);
    g_test_add_func("/proto/nbd/status-payload/of-any-length",
                    test_status_payload_of_any_length);
    g_test_add_func("/proto/nbd/chunk-payloads/round-trip",
                    test_chunk_payloads_round_trip);
    g_test_add_func("/proto/nbd/error/from-errno",
                    test_errno_becomes_a_protocol_error);
    g_test_add_func("/proto/nbd/error/to-errno",
                    test_protocol_error_becomes_an_errno);
    g_test_add_func("/proto/nbd/meta-context/round-trip",
                    test_meta_context_round_trip);
    g_test_add_func("/proto/nbd/export-name-reply/round-trip",
                    test_export_name_reply_round_trip);
    g_test_add_func("/proto/nbd/greeting/oldstyle-is-told-apart",
                    test_oldstyle_greeting_is_told_apart);
    g_test_add_func("/proto/nbd/names/exist-for-all-numbers",
                    test_names_exist_for_all_numbers);
    return g_test_run();
}
