/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD codec. Every length that comes from a peer is compared with what is
 * left of the message before it is used; keep it that way.
 */
#include "proto/nbd.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "core/error.h"
#include "core/util.h"

/* What is left of a message that is being parsed. */
typedef struct BfNbdReader {
    const uint8_t *data;
    size_t left;
} BfNbdReader;

static const uint8_t *
reader_take(BfNbdReader *reader, size_t len)
{
    const uint8_t *data = reader->data;

    if (len > reader->left) {
        return NULL;
    }
    reader->data += len;
    reader->left -= len;
    return data;
}

static bool
reader_take_u16(BfNbdReader *reader, uint16_t *ret_value)
{
    const uint8_t *data = reader_take(reader, sizeof(*ret_value));

    if (data == NULL) {
        return false;
    }
    *ret_value = bf_get_be16(data);
    return true;
}

static bool
reader_take_u32(BfNbdReader *reader, uint32_t *ret_value)
{
    const uint8_t *data = reader_take(reader, sizeof(*ret_value));

    if (data == NULL) {
        return false;
    }
    *ret_value = bf_get_be32(data);
    return true;
}

/* A text with its length in front. */
static bool
reader_take_string(BfNbdReader *reader, BfNbdString *ret_string)
{
    BfNbdString string;

    if (!reader_take_u32(reader, &string.len)) {
        return false;
    }
    string.data = (const char *)reader_take(reader, string.len);
    if (string.data == NULL) {
        return false;
    }
    *ret_string = string;
    return true;
}

static void
append_u16(GByteArray *bytes, uint16_t value)
{
    uint8_t buf[2];

    bf_put_be16(buf, value);
    g_byte_array_append(bytes, buf, sizeof(buf));
}

static void
append_u32(GByteArray *bytes, uint32_t value)
{
    uint8_t buf[4];

    bf_put_be32(buf, value);
    g_byte_array_append(bytes, buf, sizeof(buf));
}

static void
append_string(GByteArray *bytes, BfNbdString string)
{
    append_u32(bytes, string.len);
    g_byte_array_append(bytes, (const guint8 *)string.data, string.len);
}

const char *
bf_nbd_option_name(uint32_t option)
{
    static const char *const names[] = {
        [BF_NBD_OPTION_EXPORT_NAME] = "export name",
        [BF_NBD_OPTION_ABORT] = "abort",
        [BF_NBD_OPTION_LIST] = "list",
        [BF_NBD_OPTION_PEEK_EXPORT] = "peek export",
        [BF_NBD_OPTION_STARTTLS] = "starttls",
        [BF_NBD_OPTION_INFO] = "info",
        [BF_NBD_OPTION_GO] = "go",
        [BF_NBD_OPTION_STRUCTURED_REPLY] = "structured reply",
        [BF_NBD_OPTION_LIST_META_CONTEXT] = "list meta context",
        [BF_NBD_OPTION_SET_META_CONTEXT] = "set meta context",
        [BF_NBD_OPTION_EXTENDED_HEADERS] = "extended headers",
    };

    if (option >= G_N_ELEMENTS(names) || names[option] == NULL) {
        return "<unknown>";
    }
    return names[option];
}

const char *
bf_nbd_command_name(uint32_t command)
{
    static const char *const names[] = {
        [BF_NBD_COMMAND_READ] = "read",
        [BF_NBD_COMMAND_WRITE] = "write",
        [BF_NBD_COMMAND_DISC] = "disconnect",
        [BF_NBD_COMMAND_FLUSH] = "flush",
        [BF_NBD_COMMAND_TRIM] = "trim",
        [BF_NBD_COMMAND_CACHE] = "cache",
        [BF_NBD_COMMAND_WRITE_ZEROES] = "write zeroes",
        [BF_NBD_COMMAND_BLOCK_STATUS] = "block status",
        [BF_NBD_COMMAND_RESIZE] = "resize",
    };

    return command < G_N_ELEMENTS(names) ? names[command] : "<unknown>";
}

const char *
bf_nbd_option_error_name(uint32_t type)
{
    switch (type) {
    case BF_NBD_REPLY_ERR_UNSUP:
        return "not supported";
    case BF_NBD_REPLY_ERR_POLICY:
        return "denied";
    case BF_NBD_REPLY_ERR_INVALID:
        return "invalid parameters";
    case BF_NBD_REPLY_ERR_PLATFORM:
        return "not supported by the server's platform";
    case BF_NBD_REPLY_ERR_TLS_REQD:
        return "TLS required";
    case BF_NBD_REPLY_ERR_UNKNOWN:
        return "unknown export";
    case BF_NBD_REPLY_ERR_SHUTDOWN:
        return "server shutting down";
    case BF_NBD_REPLY_ERR_BLOCK_SIZE_REQD:
        return "block size information required";
    case BF_NBD_REPLY_ERR_TOO_BIG:
        return "too big";
    case BF_NBD_REPLY_ERR_EXT_HEADER_REQD:
        return "extended headers required";
    default:
        return "an unknown error";
    }
}

int
bf_nbd_error_to_errno(uint32_t error)
{
    switch (error) {
    case BF_NBD_ERROR_NONE:
        return 0;
    case BF_NBD_ERROR_PERM:
        return EPERM;
    case BF_NBD_ERROR_IO:
        return EIO;
    case BF_NBD_ERROR_NOMEM:
        return ENOMEM;
    case BF_NBD_ERROR_NOSPC:
        return ENOSPC;
    case BF_NBD_ERROR_OVERFLOW:
        return EOVERFLOW;
    case BF_NBD_ERROR_NOTSUP:
        return EOPNOTSUPP;
    case BF_NBD_ERROR_SHUTDOWN:
        return ESHUTDOWN;
    default:
        return EINVAL;
    }
}

BfNbdError
bf_nbd_error_from_errno(int err)
{
    switch (err) {
    case 0:
        return BF_NBD_ERROR_NONE;
    case EPERM:
    case EROFS:
        return BF_NBD_ERROR_PERM;
    case ENOMEM:
        return BF_NBD_ERROR_NOMEM;
    case EINVAL:
        return BF_NBD_ERROR_INVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return BF_NBD_ERROR_NOSPC;
    case EOVERFLOW:
        return BF_NBD_ERROR_OVERFLOW;
    case EOPNOTSUPP: /* ENOTSUP is the same number */
        return BF_NBD_ERROR_NOTSUP;
    case ESHUTDOWN:
        return BF_NBD_ERROR_SHUTDOWN;
    default:
        return BF_NBD_ERROR_IO;
    }
}

void
bf_nbd_put_greeting(uint8_t buf[BF_NBD_GREETING_BYTES], uint16_t flags)
{
    bf_put_be64(buf, BF_NBD_GREETING_MAGIC);
    bf_put_be64(buf + 8, BF_NBD_OPTION_MAGIC);
    bf_put_be16(buf + 16, flags);
}

bool
bf_nbd_parse_greeting(const uint8_t buf[BF_NBD_GREETING_BYTES],
                      uint16_t *ret_flags)
{
    if (bf_get_be64(buf) != BF_NBD_GREETING_MAGIC ||
        bf_get_be64(buf + 8) != BF_NBD_OPTION_MAGIC) {
        return false;
    }
    *ret_flags = bf_get_be16(buf + 16);
    return true;
}

bool
bf_nbd_is_oldstyle_greeting(const uint8_t buf[BF_NBD_GREETING_BYTES])
{
    return bf_get_be64(buf) == BF_NBD_GREETING_MAGIC &&
           bf_get_be64(buf + 8) == BF_NBD_OLDSTYLE_MAGIC;
}

void
bf_nbd_put_option(uint8_t buf[BF_NBD_OPTION_BYTES],
                  const BfNbdOptionHeader *header)
{
    bf_put_be64(buf, BF_NBD_OPTION_MAGIC);
    bf_put_be32(buf + 8, header->option);
    bf_put_be32(buf + 12, header->length);
}

bool
bf_nbd_parse_option(const uint8_t buf[BF_NBD_OPTION_BYTES],
                    BfNbdOptionHeader *ret_header)
{
    if (bf_get_be64(buf) != BF_NBD_OPTION_MAGIC) {
        return false;
    }
    ret_header->option = bf_get_be32(buf + 8);
    ret_header->length = bf_get_be32(buf + 12);
    return true;
}

void
bf_nbd_put_option_reply(uint8_t buf[BF_NBD_OPTION_REPLY_BYTES],
                        const BfNbdOptionReply *reply)
{
    bf_put_be64(buf, BF_NBD_OPTION_REPLY_MAGIC);
    bf_put_be32(buf + 8, reply->option);
    bf_put_be32(buf + 12, reply->type);
    bf_put_be32(buf + 16, reply->length);
}

bool
bf_nbd_parse_option_reply(const uint8_t buf[BF_NBD_OPTION_REPLY_BYTES],
                          BfNbdOptionReply *ret_reply)
{
    if (bf_get_be64(buf) != BF_NBD_OPTION_REPLY_MAGIC) {
        return false;
    }
    ret_reply->option = bf_get_be32(buf + 8);
    ret_reply->type = bf_get_be32(buf + 12);
    ret_reply->length = bf_get_be32(buf + 16);
    return true;
}

bool
bf_nbd_check_name(BfNbdString name, GError **error)
{
    if (name.len > BF_NBD_STRING_MAX) {
        bf_set_error(error, "Invalid name length: %" PRIu32, name.len);
        return false;
    }
    if (memchr(name.data, 0, name.len) != NULL) {
        bf_set_error(error, "Unexpected embedded NUL in option info");
        return false;
    }
    return true;
}

/* The name that INFO, GO and the meta context options begin with. */
static bool
take_export_name(BfNbdReader *reader, uint32_t option, BfNbdString *ret_name,
                 GError **error)
{
    BfNbdString name;

    if (reader->left >= 4 && bf_get_be32(reader->data) > BF_NBD_STRING_MAX) {
        bf_set_error(error, "Invalid name length: %" PRIu32,
                     bf_get_be32(reader->data));
        return false;
    }
    if (!reader_take_string(reader, &name)) {
        bf_set_error(error, "Inconsistent lengths in option %s",
                     bf_nbd_option_name(option));
        return false;
    }
    if (!bf_nbd_check_name(name, error)) {
        return false;
    }
    *ret_name = name;
    return true;
}

static bool
check_all_was_read(const BfNbdReader *reader, uint32_t option, GError **error)
{
    if (reader->left > 0) {
        bf_set_error(error, "option '%s' has unexpected length",
                     bf_nbd_option_name(option));
        return false;
    }
    return true;
}

void
bf_nbd_append_go(GByteArray *bytes, BfNbdString name, const uint16_t *infos,
                 uint16_t n_infos)
{
    append_string(bytes, name);
    append_u16(bytes, n_infos);
    for (uint16_t i = 0; i < n_infos; i++) {
        append_u16(bytes, infos[i]);
    }
}

bool
bf_nbd_parse_go(uint32_t option, const void *data, size_t len,
                BfNbdGoRequest *ret_request, GError **error)
{
    BfNbdReader reader = {.data = data, .left = len};
    BfNbdGoRequest request = {.wanted = 0};
    uint16_t count;

    if (!take_export_name(&reader, option, &request.name, error)) {
        return false;
    }
    if (!reader_take_u16(&reader, &count) || reader.left / 2 < count) {
        bf_set_error(error, "Inconsistent lengths in option %s",
                     bf_nbd_option_name(option));
        return false;
    }
    for (uint16_t i = 0; i < count; i++) {
        uint16_t type = 0;

        reader_take_u16(&reader, &type);
        if (type < 32) {
            request.wanted |= UINT32_C(1) << type;
        }
    }
    if (!check_all_was_read(&reader, option, error)) {
        return false;
    }
    *ret_request = request;
    return true;
}

void
bf_nbd_append_meta(GByteArray *bytes, BfNbdString name,
                   const BfNbdString *queries, uint32_t n_queries)
{
    append_string(bytes, name);
    append_u32(bytes, n_queries);
    for (uint32_t i = 0; i < n_queries; i++) {
        append_string(bytes, queries[i]);
    }
}

bool
bf_nbd_parse_meta(uint32_t option, const void *data, size_t len,
                  BfNbdMetaRequest *ret_request, GError **error)
{
    BfNbdReader reader = {.data = data, .left = len};
    BfNbdMetaRequest request;

    if (!take_export_name(&reader, option, &request.name, error)) {
        return false;
    }
    if (!reader_take_u32(&reader, &request.n_queries)) {
        bf_set_error(error, "Inconsistent lengths in option %s",
                     bf_nbd_option_name(option));
        return false;
    }
    request.queries = reader.data;
    request.queries_bytes = reader.left;
    for (uint32_t i = 0; i < request.n_queries; i++) {
        BfNbdString query;

        if (!reader_take_string(&reader, &query)) {
            bf_set_error(error, "Inconsistent lengths in option %s",
                         bf_nbd_option_name(option));
            return false;
        }
        if (memchr(query.data, 0, query.len) != NULL) {
            bf_set_error(error, "Unexpected embedded NUL in option info");
            return false;
        }
    }
    /* Bytes behind the counted queries would be taken as the next option. */
    if (!check_all_was_read(&reader, option, error)) {
        return false;
    }
    *ret_request = request;
    return true;
}

bool
bf_nbd_meta_next_query(BfNbdMetaRequest *request, BfNbdString *ret_query)
{
    BfNbdReader reader = {.data = request->queries,
                          .left = request->queries_bytes};

    if (!reader_take_string(&reader, ret_query)) {
        return false;
    }
    request->queries = reader.data;
    request->queries_bytes = reader.left;
    return true;
}

void
bf_nbd_append_meta_context(GByteArray *bytes, uint32_t id, BfNbdString name)
{
    append_u32(bytes, id);
    g_byte_array_append(bytes, (const guint8 *)name.data, name.len);
}

bool
bf_nbd_parse_meta_context(const void *data, size_t len, uint32_t *ret_id,
                          BfNbdString *ret_name)
{
    BfNbdReader reader = {.data = data, .left = len};

    if (len > UINT32_MAX || !reader_take_u32(&reader, ret_id)) {
        return false;
    }
    ret_name->data = (const char *)reader.data;
    ret_name->len = reader.left;
    return true;
}

void
bf_nbd_append_server(GByteArray *bytes, BfNbdString name,
                     const char *description)
{
    append_string(bytes, name);
    if (description != NULL) {
        g_byte_array_append(bytes, (const guint8 *)description,
                            strlen(description));
    }
}

bool
bf_nbd_parse_server(const void *data, size_t len, BfNbdString *ret_name,
                    BfNbdString *ret_description)
{
    BfNbdReader reader = {.data = data, .left = len};

    if (len > UINT32_MAX || !reader_take_string(&reader, ret_name)) {
        return false;
    }
    ret_description->data = (const char *)reader.data;
    ret_description->len = reader.left;
    return true;
}

void
bf_nbd_put_info_export(uint8_t buf[BF_NBD_INFO_EXPORT_BYTES],
                       const BfNbdExportInfo *info)
{
    bf_put_be16(buf, BF_NBD_INFO_EXPORT);
    bf_put_be64(buf + 2, info->size);
    bf_put_be16(buf + 10, info->flags);
}

void
bf_nbd_put_info_block_size(uint8_t buf[BF_NBD_INFO_BLOCK_SIZE_BYTES],
                           const BfNbdExportInfo *info)
{
    bf_put_be16(buf, BF_NBD_INFO_BLOCK_SIZE);
    bf_put_be32(buf + 2, info->min_block);
    bf_put_be32(buf + 6, info->preferred_block);
    bf_put_be32(buf + 10, info->max_block);
}

void
bf_nbd_append_info_text(GByteArray *bytes, BfNbdInfo type, BfNbdString text)
{
    append_u16(bytes, type);
    g_byte_array_append(bytes, (const guint8 *)text.data, text.len);
}

bool
bf_nbd_parse_info(const void *data, size_t len, uint16_t *ret_type,
                  BfNbdExportInfo *info, BfNbdString *ret_text)
{
    const uint8_t *bytes = data;
    uint16_t type;

    if (len < 2 || len > UINT32_MAX) {
        return false;
    }
    type = bf_get_be16(bytes);
    *ret_text = (BfNbdString){.data = (const char *)bytes + 2};
    switch (type) {
    case BF_NBD_INFO_EXPORT:
        if (len != BF_NBD_INFO_EXPORT_BYTES) {
            return false;
        }
        info->size = bf_get_be64(bytes + 2);
        info->flags = bf_get_be16(bytes + 10);
        break;
    case BF_NBD_INFO_BLOCK_SIZE:
        if (len != BF_NBD_INFO_BLOCK_SIZE_BYTES) {
            return false;
        }
        info->min_block = bf_get_be32(bytes + 2);
        info->preferred_block = bf_get_be32(bytes + 6);
        info->max_block = bf_get_be32(bytes + 10);
        break;
    case BF_NBD_INFO_NAME:
    case BF_NBD_INFO_DESCRIPTION:
        ret_text->len = len - 2;
        break;
    default:
        break;
    }
    *ret_type = type;
    return true;
}

void
bf_nbd_put_export_name_reply(uint8_t buf[BF_NBD_EXPORT_NAME_REPLY_BYTES],
                             const BfNbdExportInfo *info)
{
    bf_put_be64(buf, info->size);
    bf_put_be16(buf + 8, info->flags);
}

void
bf_nbd_parse_export_name_reply(
    const uint8_t buf[BF_NBD_EXPORT_NAME_REPLY_BYTES], BfNbdExportInfo *info)
{
    info->size = bf_get_be64(buf);
    info->flags = bf_get_be16(buf + 8);
}

void
bf_nbd_put_request(uint8_t buf[BF_NBD_REQUEST_BYTES],
                   const BfNbdRequest *request)
{
    bf_put_be32(buf, BF_NBD_REQUEST_MAGIC);
    bf_put_be16(buf + 4, request->flags);
    bf_put_be16(buf + 6, request->command);
    bf_put_be64(buf + 8, request->cookie);
    bf_put_be64(buf + 16, request->offset);
    g_assert(request->length <= UINT32_MAX);
    bf_put_be32(buf + 24, (uint32_t)request->length);
}

bool
bf_nbd_parse_request(const uint8_t buf[BF_NBD_REQUEST_BYTES],
                     BfNbdRequest *ret_request)
{
    ret_request->flags = bf_get_be16(buf + 4);
    ret_request->command = bf_get_be16(buf + 6);
    ret_request->cookie = bf_get_be64(buf + 8);
    ret_request->offset = bf_get_be64(buf + 16);
    ret_request->length = bf_get_be32(buf + 24);
    return bf_get_be32(buf) == BF_NBD_REQUEST_MAGIC;
}

void
bf_nbd_put_simple_reply(uint8_t buf[BF_NBD_SIMPLE_REPLY_BYTES],
                        const BfNbdSimpleReply *reply)
{
    bf_put_be32(buf, BF_NBD_SIMPLE_REPLY_MAGIC);
    bf_put_be32(buf + 4, reply->error);
    bf_put_be64(buf + 8, reply->cookie);
}

bool
bf_nbd_parse_simple_reply(const uint8_t buf[BF_NBD_SIMPLE_REPLY_BYTES],
                          BfNbdSimpleReply *ret_reply)
{
    if (bf_get_be32(buf) != BF_NBD_SIMPLE_REPLY_MAGIC) {
        return false;
    }
    ret_reply->error = bf_get_be32(buf + 4);
    ret_reply->cookie = bf_get_be64(buf + 8);
    return true;
}

void
bf_nbd_put_chunk(uint8_t buf[BF_NBD_CHUNK_BYTES], const BfNbdChunk *chunk)
{
    bf_put_be32(buf, BF_NBD_CHUNK_MAGIC);
    bf_put_be16(buf + 4, chunk->flags);
    bf_put_be16(buf + 6, chunk->type);
    bf_put_be64(buf + 8, chunk->cookie);
    bf_put_be32(buf + 16, chunk->length);
}

bool
bf_nbd_parse_chunk(const uint8_t buf[BF_NBD_CHUNK_BYTES], BfNbdChunk *ret_chunk)
{
    if (bf_get_be32(buf) != BF_NBD_CHUNK_MAGIC) {
        return false;
    }
    ret_chunk->flags = bf_get_be16(buf + 4);
    ret_chunk->type = bf_get_be16(buf + 6);
    ret_chunk->cookie = bf_get_be64(buf + 8);
    ret_chunk->length = bf_get_be32(buf + 16);
    return true;
}

void
bf_nbd_put_hole(uint8_t buf[BF_NBD_CHUNK_HOLE_BYTES], uint64_t offset,
                uint32_t length)
{
    bf_put_be64(buf, offset);
    bf_put_be32(buf + 8, length);
}

void
bf_nbd_parse_hole(const uint8_t buf[BF_NBD_CHUNK_HOLE_BYTES],
                  uint64_t *ret_offset, uint32_t *ret_length)
{
    *ret_offset = bf_get_be64(buf);
    *ret_length = bf_get_be32(buf + 8);
}

void
bf_nbd_put_chunk_error(uint8_t buf[BF_NBD_CHUNK_ERROR_BYTES], BfNbdError error,
                       uint16_t text_bytes)
{
    bf_put_be32(buf, error);
    bf_put_be16(buf + 4, text_bytes);
}

bool
bf_nbd_parse_chunk_error(const void *data, size_t len, uint32_t *ret_error,
                         BfNbdString *ret_text)
{
    BfNbdReader reader = {.data = data, .left = len};
    uint32_t error;
    uint16_t text_bytes;
    const uint8_t *text;

    if (!reader_take_u32(&reader, &error) ||
        !reader_take_u16(&reader, &text_bytes)) {
        return false;
    }
    text = reader_take(&reader, text_bytes);
    if (error == 0 || text == NULL) {
        return false;
    }
    *ret_error = error;
    *ret_text = (BfNbdString){.data = (const char *)text, .len = text_bytes};
    return true;
}

void
bf_nbd_put_status_extent(uint8_t buf[BF_NBD_STATUS_EXTENT_BYTES],
                         uint32_t length, uint32_t flags)
{
    bf_put_be32(buf, length);
    bf_put_be32(buf + 4, flags);
}

bool
bf_nbd_parse_status_extent(const uint8_t buf[BF_NBD_STATUS_EXTENT_BYTES],
                           uint32_t *ret_length, uint32_t *ret_flags)
{
    if (bf_get_be32(buf) == 0) {
        return false;
    }
    *ret_length = bf_get_be32(buf);
    *ret_flags = bf_get_be32(buf + 4);
    return true;
}
