/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD protocol: its numbers, and every message as bytes and back.
 *
 * A pure codec: no I/O, no state. All layouts are those of the NBD project's
 * doc/proto.md; integers are big-endian. "put" functions fill a buffer of fixed
 * size, "append" functions add to a byte array, "parse" functions check what
 * they read and never look beyond the length given. Any thread; none suspends.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <glib.h>

#define BF_NBD_GREETING_MAGIC UINT64_C(0x4e42444d41474943)
#define BF_NBD_OPTION_MAGIC UINT64_C(0x49484156454f5054)
#define BF_NBD_OLDSTYLE_MAGIC UINT64_C(0x0000420281861253)
#define BF_NBD_OPTION_REPLY_MAGIC UINT64_C(0x0003e889045565a9)
#define BF_NBD_REQUEST_MAGIC UINT32_C(0x25609513)
#define BF_NBD_SIMPLE_REPLY_MAGIC UINT32_C(0x67446698)
#define BF_NBD_CHUNK_MAGIC UINT32_C(0x668e33ef)
#define BF_NBD_EXTENDED_REQUEST_MAGIC UINT32_C(0x21e41c71)
#define BF_NBD_EXTENDED_CHUNK_MAGIC UINT32_C(0x6e8a278c)

/* Sizes of the fixed messages, bytes. */
#define BF_NBD_GREETING_BYTES 18
#define BF_NBD_OPTION_BYTES 16
#define BF_NBD_OPTION_REPLY_BYTES 20
#define BF_NBD_INFO_EXPORT_BYTES 12
#define BF_NBD_INFO_BLOCK_SIZE_BYTES 14
#define BF_NBD_EXPORT_NAME_REPLY_BYTES 10
#define BF_NBD_EXPORT_NAME_ZEROES_BYTES 124
#define BF_NBD_REQUEST_BYTES 28
#define BF_NBD_SIMPLE_REPLY_BYTES 16
#define BF_NBD_CHUNK_BYTES 20
#define BF_NBD_CHUNK_OFFSET_BYTES 8
#define BF_NBD_CHUNK_HOLE_BYTES 12
#define BF_NBD_CHUNK_ERROR_BYTES 6
#define BF_NBD_STATUS_ID_BYTES 4
#define BF_NBD_STATUS_EXTENT_BYTES 8
#define BF_NBD_EXTENDED_REQUEST_BYTES 32
#define BF_NBD_EXTENDED_CHUNK_BYTES 32
#define BF_NBD_STATUS_EXT_HEAD_BYTES 8
#define BF_NBD_STATUS_EXT_EXTENT_BYTES 16
#define BF_NBD_STATUS_PAYLOAD_BYTES 8

/* Limits of the protocol, and the ones that peers expect. */
#define BF_NBD_STRING_MAX 4096
#define BF_NBD_PAYLOAD_MAX (UINT32_C(32) * 1024 * 1024)
#define BF_NBD_STATUS_EXTENTS_MAX (1024 * 1024 / BF_NBD_STATUS_EXTENT_BYTES)

/**
 * BfNbdHandshakeFlags: of the server's greeting and of the client's answer
 * @BF_NBD_HANDSHAKE_FIXED: fixed newstyle: options get replies
 * @BF_NBD_HANDSHAKE_NO_ZEROES: no padding after the reply to EXPORT_NAME
 */
typedef enum BfNbdHandshakeFlags {
    BF_NBD_HANDSHAKE_FIXED = 1 << 0,
    BF_NBD_HANDSHAKE_NO_ZEROES = 1 << 1,
} BfNbdHandshakeFlags;

/**
 * BfNbdOption: what a client can ask for before it uses an export
 */
typedef enum BfNbdOption {
    BF_NBD_OPTION_EXPORT_NAME = 1,
    BF_NBD_OPTION_ABORT = 2,
    BF_NBD_OPTION_LIST = 3,
    BF_NBD_OPTION_PEEK_EXPORT = 4,
    BF_NBD_OPTION_STARTTLS = 5,
    BF_NBD_OPTION_INFO = 6,
    BF_NBD_OPTION_GO = 7,
    BF_NBD_OPTION_STRUCTURED_REPLY = 8,
    BF_NBD_OPTION_LIST_META_CONTEXT = 9,
    BF_NBD_OPTION_SET_META_CONTEXT = 10,
    BF_NBD_OPTION_EXTENDED_HEADERS = 11,
} BfNbdOption;

/* The bit that marks a reply to an option as an error. */
#define BF_NBD_REPLY_ERROR_BIT (UINT32_C(1) << 31)

/**
 * BfNbdReply: kinds of replies to options
 */
typedef enum BfNbdReply {
    BF_NBD_REPLY_ACK = 1,
    BF_NBD_REPLY_SERVER = 2,
    BF_NBD_REPLY_INFO = 3,
    BF_NBD_REPLY_META_CONTEXT = 4,
    BF_NBD_REPLY_ERR_UNSUP = BF_NBD_REPLY_ERROR_BIT | 1,
    BF_NBD_REPLY_ERR_POLICY = BF_NBD_REPLY_ERROR_BIT | 2,
    BF_NBD_REPLY_ERR_INVALID = BF_NBD_REPLY_ERROR_BIT | 3,
    BF_NBD_REPLY_ERR_PLATFORM = BF_NBD_REPLY_ERROR_BIT | 4,
    BF_NBD_REPLY_ERR_TLS_REQD = BF_NBD_REPLY_ERROR_BIT | 5,
    BF_NBD_REPLY_ERR_UNKNOWN = BF_NBD_REPLY_ERROR_BIT | 6,
    BF_NBD_REPLY_ERR_SHUTDOWN = BF_NBD_REPLY_ERROR_BIT | 7,
    BF_NBD_REPLY_ERR_BLOCK_SIZE_REQD = BF_NBD_REPLY_ERROR_BIT | 8,
    BF_NBD_REPLY_ERR_TOO_BIG = BF_NBD_REPLY_ERROR_BIT | 9,
    BF_NBD_REPLY_ERR_EXT_HEADER_REQD = BF_NBD_REPLY_ERROR_BIT | 10,
} BfNbdReply;

/**
 * BfNbdInfo: pieces of information about an export
 */
typedef enum BfNbdInfo {
    BF_NBD_INFO_EXPORT = 0,
    BF_NBD_INFO_NAME = 1,
    BF_NBD_INFO_DESCRIPTION = 2,
    BF_NBD_INFO_BLOCK_SIZE = 3,
} BfNbdInfo;

/**
 * BfNbdExportFlags: the transmission flags of an export
 */
typedef enum BfNbdExportFlags {
    BF_NBD_EXPORT_HAS_FLAGS = 1 << 0,
    BF_NBD_EXPORT_READ_ONLY = 1 << 1,
    BF_NBD_EXPORT_FLUSH = 1 << 2,
    BF_NBD_EXPORT_FUA = 1 << 3,
    BF_NBD_EXPORT_ROTATIONAL = 1 << 4,
    BF_NBD_EXPORT_TRIM = 1 << 5,
    BF_NBD_EXPORT_WRITE_ZEROES = 1 << 6,
    BF_NBD_EXPORT_DF = 1 << 7,
    BF_NBD_EXPORT_MULTI_CONN = 1 << 8,
    BF_NBD_EXPORT_RESIZE = 1 << 9,
    BF_NBD_EXPORT_CACHE = 1 << 10,
    BF_NBD_EXPORT_FAST_ZERO = 1 << 11,
    BF_NBD_EXPORT_BLOCK_STATUS_PAYLOAD = 1 << 12,
} BfNbdExportFlags;

/**
 * BfNbdCommand: what a request asks for
 */
typedef enum BfNbdCommand {
    BF_NBD_COMMAND_READ = 0,
    BF_NBD_COMMAND_WRITE = 1,
    BF_NBD_COMMAND_DISC = 2,
    BF_NBD_COMMAND_FLUSH = 3,
    BF_NBD_COMMAND_TRIM = 4,
    BF_NBD_COMMAND_CACHE = 5,
    BF_NBD_COMMAND_WRITE_ZEROES = 6,
    BF_NBD_COMMAND_BLOCK_STATUS = 7,
    BF_NBD_COMMAND_RESIZE = 8,
} BfNbdCommand;

/**
 * BfNbdRequestFlags: how a request is to be done
 */
typedef enum BfNbdRequestFlags {
    BF_NBD_REQUEST_FUA = 1 << 0,
    BF_NBD_REQUEST_NO_HOLE = 1 << 1,
    BF_NBD_REQUEST_DF = 1 << 2,
    BF_NBD_REQUEST_REQ_ONE = 1 << 3,
    BF_NBD_REQUEST_FAST_ZERO = 1 << 4,
    BF_NBD_REQUEST_PAYLOAD_LEN = 1 << 5,
} BfNbdRequestFlags;

/* The flag of the last chunk of a structured reply. */
#define BF_NBD_CHUNK_DONE 1

/**
 * BfNbdChunkType: pieces of a structured reply
 */
typedef enum BfNbdChunkType {
    BF_NBD_CHUNK_TYPE_NONE = 0,
    BF_NBD_CHUNK_TYPE_OFFSET_DATA = 1,
    BF_NBD_CHUNK_TYPE_OFFSET_HOLE = 2,
    BF_NBD_CHUNK_TYPE_BLOCK_STATUS = 5,
    BF_NBD_CHUNK_TYPE_BLOCK_STATUS_EXT = 6,
    BF_NBD_CHUNK_TYPE_ERROR = 0x8001,
    BF_NBD_CHUNK_TYPE_ERROR_OFFSET = 0x8002,
} BfNbdChunkType;

/**
 * BfNbdError: errors of requests, as they are sent
 */
typedef enum BfNbdError {
    BF_NBD_ERROR_NONE = 0,
    BF_NBD_ERROR_PERM = 1,
    BF_NBD_ERROR_IO = 5,
    BF_NBD_ERROR_NOMEM = 12,
    BF_NBD_ERROR_INVAL = 22,
    BF_NBD_ERROR_NOSPC = 28,
    BF_NBD_ERROR_OVERFLOW = 75,
    BF_NBD_ERROR_NOTSUP = 95,
    BF_NBD_ERROR_SHUTDOWN = 108,
} BfNbdError;

/**
 * BfNbdStatusFlags: extents of the context "base:allocation"
 */
typedef enum BfNbdStatusFlags {
    BF_NBD_STATUS_HOLE = 1 << 0,
    BF_NBD_STATUS_ZERO = 1 << 1,
    BF_NBD_STATUS_DIRTY = 1 << 0,
} BfNbdStatusFlags;

/**
 * BfNbdString: a text inside a message, without a NUL behind it
 * @data: borrowed from the message
 * @len: its length, bytes
 */
typedef struct BfNbdString {
    const char *data;
    uint32_t len;
} BfNbdString;

/**
 * BfNbdOptionHeader: what precedes an option's payload
 * @option: a BfNbdOption, or a number that we do not know
 * @length: of the payload, bytes
 */
typedef struct BfNbdOptionHeader {
    uint32_t option;
    uint32_t length;
} BfNbdOptionHeader;

/**
 * BfNbdOptionReply: what precedes the payload of a reply to an option
 * @option: the option it answers
 * @type: a BfNbdReply, or a number that we do not know
 * @length: of the payload, bytes
 */
typedef struct BfNbdOptionReply {
    uint32_t option;
    uint32_t type;
    uint32_t length;
} BfNbdOptionReply;

/**
 * BfNbdGoRequest: payload of the options INFO and GO
 * @name: the export
 * @wanted: bit N is set if the client asked for BfNbdInfo N; others are left
 *     out
 */
typedef struct BfNbdGoRequest {
    BfNbdString name;
    uint32_t wanted;
} BfNbdGoRequest;

/**
 * BfNbdMetaRequest: payload of the options LIST_META_CONTEXT and
 *     SET_META_CONTEXT
 * @name: the export
 * @n_queries: how many queries the client sent
 * @queries: borrowed: what bf_nbd_meta_next_query() has not taken yet
 * @queries_bytes: their length
 */
typedef struct BfNbdMetaRequest {
    BfNbdString name;
    uint32_t n_queries;
    const uint8_t *queries;
    size_t queries_bytes;
} BfNbdMetaRequest;

/**
 * BfNbdExportInfo: what INFO replies and EXPORT_NAME tell about an export
 * @size: bytes
 * @flags: BfNbdExportFlags
 * @min_block: smallest block, a power of two
 * @preferred_block: best block, a power of two
 * @max_block: longest payload, bytes
 */
typedef struct BfNbdExportInfo {
    uint64_t size;
    uint16_t flags;
    uint32_t min_block;
    uint32_t preferred_block;
    uint32_t max_block;
} BfNbdExportInfo;

/**
 * BfNbdRequest: a request without its payload
 * @flags: BfNbdRequestFlags
 * @command: a BfNbdCommand, or a number that we do not know
 * @cookie: the client's name for it, echoed in the reply
 * @offset: bytes
 * @length: bytes; of the payload, if @flags has %BF_NBD_REQUEST_PAYLOAD_LEN
 */
typedef struct BfNbdRequest {
    uint16_t flags;
    uint16_t command;
    uint64_t cookie;
    uint64_t offset;
    uint64_t length;
} BfNbdRequest;

/**
 * BfNbdSimpleReply: a simple reply without its data
 * @error: a BfNbdError
 * @cookie: of the request
 */
typedef struct BfNbdSimpleReply {
    uint32_t error;
    uint64_t cookie;
} BfNbdSimpleReply;

/**
 * BfNbdChunk: the header of one piece of a structured reply
 * @flags: 0 or %BF_NBD_CHUNK_DONE
 * @type: a BfNbdChunkType
 * @cookie: of the request
 * @length: of the payload, bytes
 */
typedef struct BfNbdChunk {
    uint16_t flags;
    uint16_t type;
    uint64_t cookie;
    uint32_t length;
} BfNbdChunk;

/**
 * bf_nbd_option_name:
 * @option: a BfNbdOption or any other number
 *
 * Returns: (transfer none): its name for messages, "<unknown>" if it has none
 */
const char *bf_nbd_option_name(uint32_t option);

/**
 * bf_nbd_command_name:
 * @command: a BfNbdCommand or any other number
 *
 * Returns: (transfer none): its name for messages, "<unknown>" if it has none
 */
const char *bf_nbd_command_name(uint32_t command);

/**
 * bf_nbd_option_error_name:
 * @type: a BfNbdReply or any other number
 *
 * Returns: (transfer none): what an error reply means, "an unknown error" if
 * nobody knows
 */
const char *bf_nbd_option_error_name(uint32_t type);

/**
 * bf_nbd_error_to_errno:
 * @error: a BfNbdError or any other number, as a server sent it
 *
 * Numbers that the protocol does not define are EINVAL, as it demands.
 *
 * Returns: a positive errno value; 0 for %BF_NBD_ERROR_NONE
 */
int bf_nbd_error_to_errno(uint32_t error);

/**
 * bf_nbd_error_from_errno:
 * @err: a positive errno value, or 0
 *
 * Errors that the protocol has no number for become EIO: they are the
 * storage's, while EINVAL would blame the client.
 *
 * Returns: the BfNbdError to send
 */
BfNbdError bf_nbd_error_from_errno(int err);

/**
 * bf_nbd_put_greeting:
 * @buf: (out caller-allocates): room for the message
 * @flags: BfNbdHandshakeFlags
 */
void bf_nbd_put_greeting(uint8_t buf[BF_NBD_GREETING_BYTES], uint16_t flags);

/**
 * bf_nbd_parse_greeting:
 * @buf: the message
 * @ret_flags: (out): BfNbdHandshakeFlags
 *
 * Returns: false if it is not the greeting of a newstyle server
 */
bool bf_nbd_parse_greeting(const uint8_t buf[BF_NBD_GREETING_BYTES],
                           uint16_t *ret_flags);

/**
 * bf_nbd_is_oldstyle_greeting:
 * @buf: the beginning of what a server sent
 *
 * Returns: true if it speaks the protocol as it was before options
 */
bool bf_nbd_is_oldstyle_greeting(const uint8_t buf[BF_NBD_GREETING_BYTES]);

/**
 * bf_nbd_put_option:
 * @buf: (out caller-allocates): room for the message
 * @header: what to put
 */
void bf_nbd_put_option(uint8_t buf[BF_NBD_OPTION_BYTES],
                       const BfNbdOptionHeader *header);

/**
 * bf_nbd_parse_option:
 * @buf: the message
 * @ret_header: (out): what it says
 *
 * Returns: false if the magic number is wrong
 */
bool bf_nbd_parse_option(const uint8_t buf[BF_NBD_OPTION_BYTES],
                         BfNbdOptionHeader *ret_header);

/**
 * bf_nbd_put_option_reply:
 * @buf: (out caller-allocates): room for the message
 * @reply: what to put
 */
void bf_nbd_put_option_reply(uint8_t buf[BF_NBD_OPTION_REPLY_BYTES],
                             const BfNbdOptionReply *reply);

/**
 * bf_nbd_parse_option_reply:
 * @buf: the message
 * @ret_reply: (out): what it says
 *
 * Returns: false if the magic number is wrong
 */
bool bf_nbd_parse_option_reply(const uint8_t buf[BF_NBD_OPTION_REPLY_BYTES],
                               BfNbdOptionReply *ret_reply);

/**
 * bf_nbd_check_name:
 * @name: a name from a message
 * @error: set on failure, with a text for the peer
 *
 * Returns: false if it is longer than %BF_NBD_STRING_MAX or has a NUL inside
 */
bool bf_nbd_check_name(BfNbdString name, GError **error);

/**
 * bf_nbd_append_go:
 * @bytes: added to
 * @name: the export
 * @infos: (nullable): BfNbdInfo numbers to ask for
 * @n_infos: how many
 */
void bf_nbd_append_go(GByteArray *bytes, BfNbdString name,
                      const uint16_t *infos, uint16_t n_infos);

/**
 * bf_nbd_parse_go:
 * @option: %BF_NBD_OPTION_INFO or %BF_NBD_OPTION_GO, for messages
 * @data: the payload
 * @len: its length, bytes
 * @ret_request: (out): what it says; borrows from @data
 * @error: set on failure, with a text for the peer
 *
 * Returns: false if the payload is not well formed
 */
bool bf_nbd_parse_go(uint32_t option, const void *data, size_t len,
                     BfNbdGoRequest *ret_request, GError **error);

/**
 * bf_nbd_append_meta:
 * @bytes: added to
 * @name: the export
 * @queries: (nullable): what to ask for
 * @n_queries: how many
 */
void bf_nbd_append_meta(GByteArray *bytes, BfNbdString name,
                        const BfNbdString *queries, uint32_t n_queries);

/**
 * bf_nbd_parse_meta:
 * @option: %BF_NBD_OPTION_LIST_META_CONTEXT or
 *     %BF_NBD_OPTION_SET_META_CONTEXT, for messages
 * @data: the payload
 * @len: its length, bytes
 * @ret_request: (out): what it says; borrows from @data
 * @error: set on failure, with a text for the peer
 *
 * Checks all queries too, so that bf_nbd_meta_next_query() cannot fail.
 *
 * Returns: false if the payload is not well formed
 */
bool bf_nbd_parse_meta(uint32_t option, const void *data, size_t len,
                       BfNbdMetaRequest *ret_request, GError **error);

/**
 * bf_nbd_meta_next_query:
 * @request: (inout): from bf_nbd_parse_meta()
 * @ret_query: (out): the next query; may be longer than %BF_NBD_STRING_MAX
 *
 * Returns: false if there are no more
 */
bool bf_nbd_meta_next_query(BfNbdMetaRequest *request, BfNbdString *ret_query);

/**
 * bf_nbd_append_meta_context:
 * @bytes: added to
 * @id: of the context in this connection
 * @name: of the context
 *
 * The payload of %BF_NBD_REPLY_META_CONTEXT.
 */
void bf_nbd_append_meta_context(GByteArray *bytes, uint32_t id,
                                BfNbdString name);

/**
 * bf_nbd_parse_meta_context:
 * @data: the payload
 * @len: its length, bytes
 * @ret_id: (out): of the context
 * @ret_name: (out): borrows from @data
 *
 * Returns: false if the payload is not well formed
 */
bool bf_nbd_parse_meta_context(const void *data, size_t len, uint32_t *ret_id,
                               BfNbdString *ret_name);

/**
 * bf_nbd_append_server:
 * @bytes: added to
 * @name: of an export
 * @description: (nullable): of the export
 *
 * The payload of %BF_NBD_REPLY_SERVER.
 */
void bf_nbd_append_server(GByteArray *bytes, BfNbdString name,
                          const char *description);

/**
 * bf_nbd_parse_server:
 * @data: the payload
 * @len: its length, bytes
 * @ret_name: (out): borrows from @data
 * @ret_description: (out): borrows from @data; may be empty
 *
 * Returns: false if the payload is not well formed
 */
bool bf_nbd_parse_server(const void *data, size_t len, BfNbdString *ret_name,
                         BfNbdString *ret_description);

/**
 * bf_nbd_put_info_export:
 * @buf: (out caller-allocates): room for the payload
 * @info: its size and flags are put
 */
void bf_nbd_put_info_export(uint8_t buf[BF_NBD_INFO_EXPORT_BYTES],
                            const BfNbdExportInfo *info);

/**
 * bf_nbd_put_info_block_size:
 * @buf: (out caller-allocates): room for the payload
 * @info: its block sizes are put
 */
void bf_nbd_put_info_block_size(uint8_t buf[BF_NBD_INFO_BLOCK_SIZE_BYTES],
                                const BfNbdExportInfo *info);

/**
 * bf_nbd_append_info_text:
 * @bytes: added to
 * @type: %BF_NBD_INFO_NAME or %BF_NBD_INFO_DESCRIPTION
 * @text: what to say
 */
void bf_nbd_append_info_text(GByteArray *bytes, BfNbdInfo type,
                             BfNbdString text);

/**
 * bf_nbd_parse_info:
 * @data: payload of a %BF_NBD_REPLY_INFO
 * @len: its length, bytes
 * @ret_type: (out): a BfNbdInfo or a number that we do not know
 * @info: (inout): the fields that this piece of information is about are set
 * @ret_text: (out): for names and descriptions; borrows from @data; else empty
 *
 * Returns: false if the payload is not well formed
 */
bool bf_nbd_parse_info(const void *data, size_t len, uint16_t *ret_type,
                       BfNbdExportInfo *info, BfNbdString *ret_text);

/**
 * bf_nbd_put_export_name_reply:
 * @buf: (out caller-allocates): room for the message without its padding
 * @info: its size and flags are put
 */
void bf_nbd_put_export_name_reply(uint8_t buf[BF_NBD_EXPORT_NAME_REPLY_BYTES],
                                  const BfNbdExportInfo *info);

/**
 * bf_nbd_parse_export_name_reply:
 * @buf: the message without its padding
 * @info: (inout): its size and flags are set
 */
void bf_nbd_parse_export_name_reply(
    const uint8_t buf[BF_NBD_EXPORT_NAME_REPLY_BYTES], BfNbdExportInfo *info);

/**
 * bf_nbd_put_request:
 * @buf: (out caller-allocates): room for the message
 * @request: what to put; the length has 32 bits in this form
 */
void bf_nbd_put_request(uint8_t buf[BF_NBD_REQUEST_BYTES],
                        const BfNbdRequest *request);

/**
 * bf_nbd_parse_request:
 * @buf: the message
 * @ret_request: (out): what it says; written even on failure, for the reply
 *
 * Returns: false if the magic number is wrong
 */
bool bf_nbd_parse_request(const uint8_t buf[BF_NBD_REQUEST_BYTES],
                          BfNbdRequest *ret_request);

/**
 * bf_nbd_put_simple_reply:
 * @buf: (out caller-allocates): room for the message
 * @reply: what to put
 */
void bf_nbd_put_simple_reply(uint8_t buf[BF_NBD_SIMPLE_REPLY_BYTES],
                             const BfNbdSimpleReply *reply);

/**
 * bf_nbd_parse_simple_reply:
 * @buf: the message
 * @ret_reply: (out): what it says
 *
 * Returns: false if the magic number is wrong
 */
bool bf_nbd_parse_simple_reply(const uint8_t buf[BF_NBD_SIMPLE_REPLY_BYTES],
                               BfNbdSimpleReply *ret_reply);

/**
 * bf_nbd_put_chunk:
 * @buf: (out caller-allocates): room for the header
 * @chunk: what to put
 */
void bf_nbd_put_chunk(uint8_t buf[BF_NBD_CHUNK_BYTES], const BfNbdChunk *chunk);

/**
 * bf_nbd_parse_chunk:
 * @buf: the header
 * @ret_chunk: (out): what it says
 *
 * Returns: false if the magic number is wrong
 */
bool bf_nbd_parse_chunk(const uint8_t buf[BF_NBD_CHUNK_BYTES],
                        BfNbdChunk *ret_chunk);

/**
 * bf_nbd_put_hole:
 * @buf: (out caller-allocates): room for the payload of an OFFSET_HOLE chunk
 * @offset: where the zeroes begin, bytes
 * @length: how many, bytes
 */
void bf_nbd_put_hole(uint8_t buf[BF_NBD_CHUNK_HOLE_BYTES], uint64_t offset,
                     uint32_t length);

/**
 * bf_nbd_parse_hole:
 * @buf: the payload
 * @ret_offset: (out): where the zeroes begin, bytes
 * @ret_length: (out): how many, bytes
 */
void bf_nbd_parse_hole(const uint8_t buf[BF_NBD_CHUNK_HOLE_BYTES],
                       uint64_t *ret_offset, uint32_t *ret_length);

/**
 * bf_nbd_put_chunk_error:
 * @buf: (out caller-allocates): room for the payload of an ERROR chunk, without
 *     the text
 * @error: what to say
 * @text_bytes: length of the text that follows
 */
void bf_nbd_put_chunk_error(uint8_t buf[BF_NBD_CHUNK_ERROR_BYTES],
                            BfNbdError error, uint16_t text_bytes);

/**
 * bf_nbd_parse_chunk_error:
 * @data: the payload of an ERROR chunk
 * @len: its length, bytes
 * @ret_error: (out): a BfNbdError
 * @ret_text: (out): borrows from @data
 *
 * Returns: false if the payload is not well formed
 */
bool bf_nbd_parse_chunk_error(const void *data, size_t len, uint32_t *ret_error,
                              BfNbdString *ret_text);

/**
 * bf_nbd_put_status_extent:
 * @buf: (out caller-allocates): room for one extent
 * @length: bytes, at least 1
 * @flags: as the context defines them
 */
void bf_nbd_put_status_extent(uint8_t buf[BF_NBD_STATUS_EXTENT_BYTES],
                              uint32_t length, uint32_t flags);

/**
 * bf_nbd_parse_status_extent:
 * @buf: one extent
 * @ret_length: (out): bytes
 * @ret_flags: (out): as the context defines them
 *
 * Returns: false if the length is 0
 */
bool bf_nbd_parse_status_extent(const uint8_t buf[BF_NBD_STATUS_EXTENT_BYTES],
                                uint32_t *ret_length, uint32_t *ret_flags);
