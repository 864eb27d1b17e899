/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD's extended headers: requests and replies with lengths of 64 bits, as the
 * extension EXTENDED_HEADERS of doc/proto.md has them. The option is answered
 * once, and from then on nothing of the older form is sent either way.
 *
 * A pure codec like proto/nbd.h. Any thread; none suspends.
 */
#pragma once

#include "proto/nbd.h"

/**
 * bf_nbd_put_extended_request:
 * @buf: (out caller-allocates): room for the message
 * @request: what to put
 */
void bf_nbd_put_extended_request(uint8_t buf[BF_NBD_EXTENDED_REQUEST_BYTES],
                                 const BfNbdRequest *request);

/**
 * bf_nbd_parse_extended_request:
 * @buf: the message
 * @ret_request: (out): what it says; written even on failure, for the reply
 *
 * Returns: false if the magic number is wrong
 */
bool
bf_nbd_parse_extended_request(const uint8_t buf[BF_NBD_EXTENDED_REQUEST_BYTES],
                              BfNbdRequest *ret_request);

/**
 * bf_nbd_put_extended_chunk:
 * @buf: (out caller-allocates): room for the header
 * @chunk: what to put
 * @offset: of the request that it answers, bytes
 */
void bf_nbd_put_extended_chunk(uint8_t buf[BF_NBD_EXTENDED_CHUNK_BYTES],
                               const BfNbdChunk *chunk, uint64_t offset);

/**
 * bf_nbd_parse_extended_chunk:
 * @buf: the header
 * @ret_chunk: (out): what it says
 * @ret_offset: (out): of the request that it answers, bytes
 *
 * Returns: false if the magic number is wrong, or the payload longer than any
 * that can be
 */
bool bf_nbd_parse_extended_chunk(const uint8_t buf[BF_NBD_EXTENDED_CHUNK_BYTES],
                                 BfNbdChunk *ret_chunk, uint64_t *ret_offset);

/**
 * bf_nbd_put_status_ext_head:
 * @buf: (out caller-allocates): room for the beginning of the payload of a
 *     %BF_NBD_CHUNK_TYPE_BLOCK_STATUS_EXT
 * @id: of the context
 * @count: how many extents follow
 */
void bf_nbd_put_status_ext_head(uint8_t buf[BF_NBD_STATUS_EXT_HEAD_BYTES],
                                uint32_t id, uint32_t count);

/**
 * bf_nbd_put_status_ext_extent:
 * @buf: (out caller-allocates): room for one extent
 * @length: bytes, at least 1
 * @flags: as the context defines them
 */
void bf_nbd_put_status_ext_extent(uint8_t buf[BF_NBD_STATUS_EXT_EXTENT_BYTES],
                                  uint64_t length, uint64_t flags);

/**
 * bf_nbd_parse_status_ext_head:
 * @buf: the beginning of the payload
 * @ret_id: (out): of the context
 * @ret_count: (out): how many extents follow; 0 leaves it to the length of the
 *     payload
 */
void
bf_nbd_parse_status_ext_head(const uint8_t buf[BF_NBD_STATUS_EXT_HEAD_BYTES],
                             uint32_t *ret_id, uint32_t *ret_count);

/**
 * bf_nbd_parse_status_ext_extent:
 * @buf: one extent
 * @ret_length: (out): bytes
 * @ret_flags: (out): as the context defines them
 *
 * Returns: false if it is empty, or longer than any export can be
 */
bool bf_nbd_parse_status_ext_extent(
    const uint8_t buf[BF_NBD_STATUS_EXT_EXTENT_BYTES], uint64_t *ret_length,
    uint64_t *ret_flags);

/**
 * bf_nbd_parse_status_payload:
 * @data: the payload of a BLOCK_STATUS
 * @len: its length, bytes
 * @ret_length: (out): how much of the export the request is about, bytes
 * @ret_ids: (out): borrows from @data: the first of the ids of contexts, which
 *     are 32 bits each
 * @ret_n_ids: (out): how many; 0 is possible
 *
 * Returns: false if the payload is not well formed
 */
bool bf_nbd_parse_status_payload(const uint8_t *data, size_t len,
                                 uint64_t *ret_length, const uint8_t **ret_ids,
                                 size_t *ret_n_ids);
