/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD codec for extended headers. Layouts are those of the extension
 * EXTENDED_HEADERS of NBD's proto.md; lengths are checked by who uses them.
 */
#include "proto/nbd-extended.h"

#include "core/util.h"

void
bf_nbd_put_extended_request(uint8_t buf[BF_NBD_EXTENDED_REQUEST_BYTES],
                            const BfNbdRequest *request)
{
    bf_put_be32(buf, BF_NBD_EXTENDED_REQUEST_MAGIC);
    bf_put_be16(buf + 4, request->flags);
    bf_put_be16(buf + 6, request->command);
    bf_put_be64(buf + 8, request->cookie);
    bf_put_be64(buf + 16, request->offset);
    bf_put_be64(buf + 24, request->length);
}

bool
bf_nbd_parse_extended_request(const uint8_t buf[BF_NBD_EXTENDED_REQUEST_BYTES],
                              BfNbdRequest *ret_request)
{
    ret_request->flags = bf_get_be16(buf + 4);
    ret_request->command = bf_get_be16(buf + 6);
    ret_request->cookie = bf_get_be64(buf + 8);
    ret_request->offset = bf_get_be64(buf + 16);
    ret_request->length = bf_get_be64(buf + 24);
    return bf_get_be32(buf) == BF_NBD_EXTENDED_REQUEST_MAGIC;
}

void
bf_nbd_put_extended_chunk(uint8_t buf[BF_NBD_EXTENDED_CHUNK_BYTES],
                          const BfNbdChunk *chunk, uint64_t offset)
{
    bf_put_be32(buf, BF_NBD_EXTENDED_CHUNK_MAGIC);
    bf_put_be16(buf + 4, chunk->flags);
    bf_put_be16(buf + 6, chunk->type);
    bf_put_be64(buf + 8, chunk->cookie);
    bf_put_be64(buf + 16, offset);
    bf_put_be64(buf + 24, chunk->length);
}

bool
bf_nbd_parse_extended_chunk(const uint8_t buf[BF_NBD_EXTENDED_CHUNK_BYTES],
                            BfNbdChunk *ret_chunk, uint64_t *ret_offset)
{
    uint64_t length = bf_get_be64(buf + 24);

    if (bf_get_be32(buf) != BF_NBD_EXTENDED_CHUNK_MAGIC ||
        length > UINT32_MAX) {
        return false;
    }
    ret_chunk->flags = bf_get_be16(buf + 4);
    ret_chunk->type = bf_get_be16(buf + 6);
    ret_chunk->cookie = bf_get_be64(buf + 8);
    ret_chunk->length = (uint32_t)length;
    *ret_offset = bf_get_be64(buf + 16);
    return true;
}

void
bf_nbd_put_status_ext_head(uint8_t buf[BF_NBD_STATUS_EXT_HEAD_BYTES],
                           uint32_t id, uint32_t count)
{
    bf_put_be32(buf, id);
    bf_put_be32(buf + 4, count);
}

void
bf_nbd_put_status_ext_extent(uint8_t buf[BF_NBD_STATUS_EXT_EXTENT_BYTES],
                             uint64_t length, uint64_t flags)
{
    bf_put_be64(buf, length);
    bf_put_be64(buf + 8, flags);
}

void
bf_nbd_parse_status_ext_head(const uint8_t buf[BF_NBD_STATUS_EXT_HEAD_BYTES],
                             uint32_t *ret_id, uint32_t *ret_count)
{
    *ret_id = bf_get_be32(buf);
    *ret_count = bf_get_be32(buf + 4);
}

bool
bf_nbd_parse_status_ext_extent(
    const uint8_t buf[BF_NBD_STATUS_EXT_EXTENT_BYTES], uint64_t *ret_length,
    uint64_t *ret_flags)
{
    *ret_length = bf_get_be64(buf);
    *ret_flags = bf_get_be64(buf + 8);
    return *ret_length > 0 && *ret_length <= INT64_MAX;
}

bool
bf_nbd_parse_status_payload(const uint8_t *data, size_t len,
                            uint64_t *ret_length, const uint8_t **ret_ids,
                            size_t *ret_n_ids)
{
    if (len < BF_NBD_STATUS_PAYLOAD_BYTES ||
        (len - BF_NBD_STATUS_PAYLOAD_BYTES) % BF_NBD_STATUS_ID_BYTES != 0) {
        return false;
    }
    *ret_length = bf_get_be64(data);
    *ret_ids = data + BF_NBD_STATUS_PAYLOAD_BYTES;
    *ret_n_ids = (len - BF_NBD_STATUS_PAYLOAD_BYTES) / BF_NBD_STATUS_ID_BYTES;
    return true;
}
