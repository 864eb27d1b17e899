/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The reader of a connection: takes replies from the channel until it ends.
 * What a server sends is compared with what it was asked before anything is
 * done with it; whatever does not fit ends the connection.
 *
 * Data go from the channel into the memory of the request; only what came along
 * with a header is copied.
 */
#include <inttypes.h>

#include "core/error.h"
#include "core/util.h"
#include "nbd-private.h"

/* Data above this make the reader take less behind a header, because that
 * has to be copied. */
#define LARGE_BYTES ((size_t)32 * 1024)

/* Pieces of memory in one receive. */
#define RECEIVE_PIECES_MAX 16

/* Parts of a READ that are apart; servers send them in order, or nearly. */
#define RANGES_MAX 1024

/* Error chunks in one reply. */
#define ERRORS_MAX 64

/* Error chunks have a limit of their own. */
#define ERROR_CHUNK_MAX (BF_NBD_CHUNK_ERROR_BYTES + 65535 + 8)

/* Input. */

static size_t
input_bytes(const BfNbdcConn *conn)
{
    return conn->end - conn->start;
}

static bool
set_closed(GError **error)
{
    bf_set_error(error, "the server closed the connection");
    return false;
}

static void
note_heard(BfNbdcConn *conn)
{
    if (conn->node->silence_ns > 0) {
        conn->heard_ns = bf_loop_now_ns();
    }
}

/* Receives until @need bytes are there. */
static bool
input_co_fill(BfNbdcConn *conn, size_t need, GError **error)
{
    while (input_bytes(conn) < need) {
        size_t have = input_bytes(conn);
        size_t room = 0;
        ssize_t n = 0;

        if (conn->start > 0) {
            memmove(conn->input, conn->input + conn->start, have);
            conn->start = 0;
            conn->end = have;
        }
        room = MIN(NBDC_INPUT_BYTES - have, MAX(conn->window, need - have));
        n = bf_channel_co_read(conn->channel, conn->input + have, room, error);
        if (n < 0) {
            return false;
        }
        if (n == 0) {
            return set_closed(error);
        }
        conn->end += n;
        note_heard(conn);
    }
    return true;
}

static bool
input_co_skip(BfNbdcConn *conn, size_t bytes, GError **error)
{
    for (;;) {
        size_t piece = MIN(bytes, input_bytes(conn));

        conn->start += piece;
        bytes -= piece;
        if (bytes == 0) {
            return true;
        }
        if (!input_co_fill(conn, 1, error)) {
            return false;
        }
    }
}

/* The pieces of @vec from @skip on, up to @bytes. */
static int
collect_pieces(const BfIoVec *vec, size_t skip, size_t bytes,
               struct iovec iov[RECEIVE_PIECES_MAX], size_t *ret_bytes)
{
    size_t sum = 0;
    int n = 0;

    for (int i = 0; i < vec->niov && n < RECEIVE_PIECES_MAX && sum < bytes;
         i++) {
        size_t len = vec->iov[i].iov_len;

        if (skip >= len) {
            skip -= len;
            continue;
        }
        iov[n].iov_base = (char *)vec->iov[i].iov_base + skip;
        iov[n].iov_len = MIN(len - skip, bytes - sum);
        sum += iov[n++].iov_len;
        skip = 0;
    }
    *ret_bytes = sum;
    return n;
}

/* Receives @bytes into @vec at @skip, and what follows into the input. */
static bool
input_co_receive(BfNbdcConn *conn, const BfIoVec *vec, size_t skip,
                 size_t bytes, GError **error)
{
    size_t copied = MIN(bytes, input_bytes(conn));

    conn->window = bytes > LARGE_BYTES ? NBDC_SMALL_WINDOW : NBDC_INPUT_BYTES;
    bf_iovec_write(vec, skip, conn->input + conn->start, copied);
    conn->start += copied;
    skip += copied;
    bytes -= copied;
    while (bytes > 0) {
        struct iovec iov[RECEIVE_PIECES_MAX + 1];
        size_t wanted = 0;
        int niov = collect_pieces(vec, skip, bytes, iov, &wanted);
        ssize_t n = 0;

        conn->start = 0; /* all input is used up */
        conn->end = 0;
        if (wanted == bytes) {
            iov[niov++] = (struct iovec){
                .iov_base = conn->input,
                .iov_len = conn->window,
            };
        }
        n = bf_channel_co_readv(conn->channel, iov, niov, error);
        if (n < 0) {
            return false;
        }
        if (n == 0) {
            return set_closed(error);
        }
        note_heard(conn);
        if ((size_t)n > bytes) {
            conn->end = n - bytes;
            n = (ssize_t)bytes;
        }
        skip += n;
        bytes -= n;
    }
    return true;
}

/* Checks. */

static bool G_GNUC_PRINTF(3, 4)
    set_violation(const BfNbdcRequest *req, GError **error, const char *format,
                  ...)
{
    g_autofree char *what = NULL;
    va_list args;

    va_start(args, format);
    what = g_strdup_vprintf(format, args);
    va_end(args);
    bf_set_error(error,
                 "the server broke the protocol in its reply to a %s of "
                 "%" PRIu64 " bytes at %" PRIu64 ": %s",
                 bf_nbd_command_name(req->command), req->length, req->offset,
                 what);
    return false;
}

/* The request with this cookie, whose header is on its way. */
static BfNbdcRequest *
find_request(BfNbdcConn *conn, uint64_t cookie, GError **error)
{
    unsigned place = cookie & 0xff;
    BfNbdcRequest *req = place < NBDC_REQUESTS_MAX ? conn->table[place] : NULL;

    if (req == NULL || req->cookie != cookie || req->pieces == 0 ||
        req->replied) {
        bf_set_error(error,
                     "the server broke the protocol: it answers a request "
                     "that it has not got (cookie 0x%016" PRIx64 ")",
                     cookie);
        return NULL;
    }
    return req;
}

/* Where a part belongs among those that are here; they never touch. */
static unsigned
find_range(const BfNbdcRequest *req, uint32_t first)
{
    unsigned low = 0;
    unsigned high = req->n_ranges;

    while (low < high) {
        unsigned middle = (low + high) / 2;

        if (req->ranges[middle].first <= first) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool
insert_range(BfNbdcRequest *req, unsigned at, BfNbdcRange range)
{
    if (req->n_ranges == RANGES_MAX) {
        return false;
    }
    if (req->n_ranges == NBDC_RANGES_FEW && req->ranges == req->few_ranges) {
        req->ranges = g_new(BfNbdcRange, RANGES_MAX);
        memcpy(req->ranges, req->few_ranges, sizeof(req->few_ranges));
    }
    memmove(&req->ranges[at + 1], &req->ranges[at],
            (req->n_ranges - at) * sizeof(range));
    req->ranges[at] = range;
    req->n_ranges++;
    return true;
}

static void
remove_range(BfNbdcRequest *req, unsigned at)
{
    req->n_ranges--;
    memmove(&req->ranges[at], &req->ranges[at + 1],
            (req->n_ranges - at) * sizeof(*req->ranges));
}

/* Notes that a part of a READ is here, which must be new. */
static bool
add_range(BfNbdcRequest *req, uint32_t first, uint32_t last, GError **error)
{
    unsigned at = find_range(req, first);
    BfNbdcRange *before = at > 0 ? &req->ranges[at - 1] : NULL;
    BfNbdcRange *after = at < req->n_ranges ? &req->ranges[at] : NULL;

    if ((before != NULL && before->last > first) ||
        (after != NULL && after->first < last)) {
        return set_violation(req, error, "data overlap at %" PRIu64,
                             req->offset + first);
    }
    if (before != NULL && before->last == first) {
        before->last = last;
        if (after != NULL && after->first == last) {
            before->last = after->last;
            remove_range(req, at);
        }
        return true;
    }
    if (after != NULL && after->first == last) {
        after->first = first;
        return true;
    }
    if (!insert_range(req, at, (BfNbdcRange){first, last})) {
        return set_violation(req, error,
                             "it is in more than %d parts without order",
                             RANGES_MAX);
    }
    return true;
}

/* Checks where data of a READ belong, and notes them. */
static bool
take_range(BfNbdcRequest *req, uint64_t offset, uint64_t bytes,
           uint32_t *ret_skip, GError **error)
{
    if (bytes == 0 || offset < req->offset ||
        !bf_range_fits(offset - req->offset, bytes, req->length)) {
        return set_violation(req, error,
                             "%" PRIu64 " bytes at %" PRIu64
                             " are not within the request",
                             bytes, offset);
    }
    *ret_skip = (uint32_t)(offset - req->offset);
    return add_range(req, *ret_skip, *ret_skip + (uint32_t)bytes, error);
}

/* Is all there that was asked for? */
static bool
check_complete(const BfNbdcRequest *req, GError **error)
{
    if (req->ret != 0) {
        return true;
    }
    if (req->command == BF_NBD_COMMAND_READ &&
        (req->n_ranges != 1 || req->ranges[0].first != 0 ||
         req->ranges[0].last != req->length)) {
        return set_violation(req, error, "it ends before all data are there");
    }
    if (req->command == BF_NBD_COMMAND_BLOCK_STATUS && !req->got_status) {
        return set_violation(req, error, "it ends without a status");
    }
    return true;
}

/* Replies. */

/* @error_number is what the server sent. */
static bool
take_error(BfNbdcRequest *req, uint32_t error_number, GError **error)
{
    int err = bf_nbd_error_to_errno(error_number);

    if (err == ESHUTDOWN) {
        /* It will not answer others either; a new connection may. */
        bf_set_error(error, "the server says that it is shutting down");
        return false;
    }
    if (req->ret == 0) {
        req->ret = -err;
    }
    return true;
}

static bool
reader_co_simple(BfNbdcConn *conn, GError **error)
{
    BfNbdSimpleReply reply;
    BfNbdcRequest *req = NULL;

    bf_nbd_parse_simple_reply(conn->input + conn->start, &reply);
    conn->start += BF_NBD_SIMPLE_REPLY_BYTES;
    req = find_request(conn, reply.cookie, error);
    if (req == NULL) {
        return false;
    }
    if (reply.error != 0) {
        if (!take_error(req, reply.error, error)) {
            return false;
        }
    } else if (req->command == BF_NBD_COMMAND_BLOCK_STATUS ||
               (req->command == BF_NBD_COMMAND_READ && conn->exp.structured)) {
        return set_violation(req, error, "it is not structured");
    } else if (req->command == BF_NBD_COMMAND_READ &&
               !input_co_receive(conn, req->vec, 0, req->length, error)) {
        return false;
    }
    bf_nbdc_request_replied(conn, req);
    return true;
}

static bool
set_bad_chunk(const BfNbdcRequest *req, const BfNbdChunk *chunk, GError **error)
{
    return set_violation(req, error,
                         "a chunk of type 0x%x with %u bytes does not belong "
                         "there",
                         chunk->type, chunk->length);
}

static bool
chunk_co_data(BfNbdcConn *conn, BfNbdcRequest *req, const BfNbdChunk *chunk,
              GError **error)
{
    uint32_t bytes = chunk->length - BF_NBD_CHUNK_OFFSET_BYTES;
    uint64_t offset = 0;
    uint32_t skip = 0;

    if (req->command != BF_NBD_COMMAND_READ ||
        chunk->length < BF_NBD_CHUNK_OFFSET_BYTES) {
        return set_bad_chunk(req, chunk, error);
    }
    if (!input_co_fill(conn, BF_NBD_CHUNK_OFFSET_BYTES, error)) {
        return false;
    }
    offset = bf_get_be64(conn->input + conn->start);
    conn->start += BF_NBD_CHUNK_OFFSET_BYTES;
    return take_range(req, offset, bytes, &skip, error) &&
           input_co_receive(conn, req->vec, skip, bytes, error);
}

static bool
chunk_co_hole(BfNbdcConn *conn, BfNbdcRequest *req, const BfNbdChunk *chunk,
              GError **error)
{
    uint64_t offset = 0;
    uint32_t bytes = 0;
    uint32_t skip = 0;

    if (req->command != BF_NBD_COMMAND_READ ||
        chunk->length != BF_NBD_CHUNK_HOLE_BYTES) {
        return set_bad_chunk(req, chunk, error);
    }
    if (!input_co_fill(conn, BF_NBD_CHUNK_HOLE_BYTES, error)) {
        return false;
    }
    bf_nbd_parse_hole(conn->input + conn->start, &offset, &bytes);
    conn->start += BF_NBD_CHUNK_HOLE_BYTES;
    if (!take_range(req, offset, bytes, &skip, error)) {
        return false;
    }
    bf_iovec_fill(req->vec, skip, bytes, 0);
    return true;
}

/* A chunk with a status is a head and extents, of 32 or of 64 bits. With
 * extended headers a server may take either. */
typedef struct StatusForm {
    size_t head_bytes;
    size_t extent_bytes;
    bool (*parse)(const uint8_t *data, uint64_t *ret_bytes,
                  uint64_t *ret_flags);
} StatusForm;

static bool
parse_short_extent(const uint8_t *data, uint64_t *ret_bytes,
                   uint64_t *ret_flags)
{
    uint32_t bytes = 0;
    uint32_t flags = 0;
    bool ok = bf_nbd_parse_status_extent(data, &bytes, &flags);

    *ret_bytes = bytes;
    *ret_flags = flags;
    return ok;
}

static const StatusForm short_status = {
    .head_bytes = BF_NBD_STATUS_ID_BYTES,
    .extent_bytes = BF_NBD_STATUS_EXTENT_BYTES,
    .parse = parse_short_extent,
};

static const StatusForm long_status = {
    .head_bytes = BF_NBD_STATUS_EXT_HEAD_BYTES,
    .extent_bytes = BF_NBD_STATUS_EXT_EXTENT_BYTES,
    .parse = bf_nbd_parse_status_ext_extent,
};

/* One extent; those past the request or the list are dropped. */
static bool
take_extent(BfNbdcRequest *req, const StatusForm *form, const uint8_t *data,
            bool *ret_full, GError **error)
{
    uint64_t covered = req->extents->bytes - req->extents_start;
    uint64_t bytes = 0;
    uint64_t flags = 0;

    if (!form->parse(data, &bytes, &flags)) {
        return set_violation(
            req, error, "an extent has %" PRIu64 " bytes, which none can have",
            bytes);
    }
    /* For x-dirty-bitmap, too: dirty has the number of "hole". */
    if (covered < req->length && !*ret_full) {
        *ret_full = !bf_extents_append(
            req->extents, MIN(bytes, req->length - covered),
            ((flags & BF_NBD_STATUS_HOLE) != 0 ? BF_EXTENT_HOLE : 0) |
                ((flags & BF_NBD_STATUS_ZERO) != 0 ? BF_EXTENT_ZERO : 0));
    }
    return true;
}

/* The head of a chunk with @n extents. */
static bool
status_co_head(BfNbdcConn *conn, const BfNbdcRequest *req,
               const StatusForm *form, size_t n, GError **error)
{
    const uint8_t *data = NULL;
    uint32_t id = 0;
    uint32_t count = 0;

    if (!input_co_fill(conn, form->head_bytes, error)) {
        return false;
    }
    data = conn->input + conn->start;
    conn->start += form->head_bytes;
    if (form == &long_status) {
        bf_nbd_parse_status_ext_head(data, &id, &count);
    } else {
        id = bf_get_be32(data);
    }
    if (id != conn->exp.context_id) {
        return set_violation(req, error,
                             "the status is for context %u instead of %u", id,
                             conn->exp.context_id);
    }
    if (count != 0 && count != n) {
        return set_violation(req, error,
                             "the status says that it has %u extents, and has "
                             "%zu",
                             count, n);
    }
    return true;
}

static bool
chunk_co_status(BfNbdcConn *conn, BfNbdcRequest *req, const BfNbdChunk *chunk,
                const StatusForm *form, GError **error)
{
    size_t n = chunk->length < form->head_bytes
                   ? 0
                   : (chunk->length - form->head_bytes) / form->extent_bytes;
    bool full = false;

    if (req->command != BF_NBD_COMMAND_BLOCK_STATUS || req->got_status ||
        n == 0 || n > BF_NBD_STATUS_EXTENTS_MAX ||
        chunk->length != form->head_bytes + n * form->extent_bytes) {
        return set_bad_chunk(req, chunk, error);
    }
    if (!status_co_head(conn, req, form, n, error)) {
        return false;
    }
    for (; n > 0; n--) {
        if (!input_co_fill(conn, form->extent_bytes, error) ||
            !take_extent(req, form, conn->input + conn->start, &full, error)) {
            return false;
        }
        conn->start += form->extent_bytes;
    }
    req->got_status = true;
    return true;
}

static bool
chunk_co_error(BfNbdcConn *conn, BfNbdcRequest *req, const BfNbdChunk *chunk,
               GError **error)
{
    uint32_t number = 0;
    uint16_t text_bytes = 0;

    if (chunk->length < BF_NBD_CHUNK_ERROR_BYTES ||
        chunk->length > ERROR_CHUNK_MAX || ++req->n_errors > ERRORS_MAX) {
        return set_bad_chunk(req, chunk, error);
    }
    if (!input_co_fill(conn, BF_NBD_CHUNK_ERROR_BYTES, error)) {
        return false;
    }
    number = bf_get_be32(conn->input + conn->start);
    text_bytes = bf_get_be16(conn->input + conn->start + 4);
    conn->start += BF_NBD_CHUNK_ERROR_BYTES;
    if (number == 0 || text_bytes > chunk->length - BF_NBD_CHUNK_ERROR_BYTES) {
        return set_violation(req, error,
                             "an error chunk has number %u and %u bytes of "
                             "text in %u bytes",
                             number, text_bytes, chunk->length);
    }
    /* Requests have no use for the text. */
    return input_co_skip(conn, chunk->length - BF_NBD_CHUNK_ERROR_BYTES,
                         error) &&
           take_error(req, number, error);
}

static bool
chunk_co_payload(BfNbdcConn *conn, BfNbdcRequest *req, const BfNbdChunk *chunk,
                 GError **error)
{
    switch (chunk->type) {
    case BF_NBD_CHUNK_TYPE_NONE:
        if (chunk->length != 0 || (chunk->flags & BF_NBD_CHUNK_DONE) == 0) {
            return set_bad_chunk(req, chunk, error);
        }
        return true;
    case BF_NBD_CHUNK_TYPE_OFFSET_DATA:
        return chunk_co_data(conn, req, chunk, error);
    case BF_NBD_CHUNK_TYPE_OFFSET_HOLE:
        return chunk_co_hole(conn, req, chunk, error);
    case BF_NBD_CHUNK_TYPE_BLOCK_STATUS:
        return chunk_co_status(conn, req, chunk, &short_status, error);
    case BF_NBD_CHUNK_TYPE_BLOCK_STATUS_EXT:
        return conn->exp.extended
                   ? chunk_co_status(conn, req, chunk, &long_status, error)
                   : set_bad_chunk(req, chunk, error);
    default:
        if ((chunk->type & (1u << 15)) == 0) {
            return set_bad_chunk(req, chunk, error);
        }
        return chunk_co_error(conn, req, chunk, error);
    }
}

/* What follows the header of a chunk. */
static bool
reader_co_rest(BfNbdcConn *conn, BfNbdcRequest *req, const BfNbdChunk *chunk,
               GError **error)
{
    if (!chunk_co_payload(conn, req, chunk, error)) {
        return false;
    }
    if ((chunk->flags & BF_NBD_CHUNK_DONE) != 0) {
        if (!check_complete(req, error)) {
            return false;
        }
        bf_nbdc_request_replied(conn, req);
    }
    return true;
}

static bool
reader_co_chunk(BfNbdcConn *conn, GError **error)
{
    BfNbdChunk chunk;
    BfNbdcRequest *req = NULL;

    if (!input_co_fill(conn, BF_NBD_CHUNK_BYTES, error)) {
        return false;
    }
    bf_nbd_parse_chunk(conn->input + conn->start, &chunk);
    conn->start += BF_NBD_CHUNK_BYTES;
    req = find_request(conn, chunk.cookie, error);
    if (req == NULL) {
        return false;
    }
    if (!conn->exp.structured) {
        return set_violation(req, error,
                             "it is structured, which was not negotiated");
    }
    return reader_co_rest(conn, req, &chunk, error);
}

static bool
reader_co_extended(BfNbdcConn *conn, GError **error)
{
    const uint8_t *head = NULL;
    BfNbdChunk chunk;
    BfNbdcRequest *req = NULL;
    uint64_t offset = 0;

    if (!input_co_fill(conn, BF_NBD_EXTENDED_CHUNK_BYTES, error)) {
        return false;
    }
    head = conn->input + conn->start;
    if (!bf_nbd_parse_extended_chunk(head, &chunk, &offset)) {
        bf_set_error(error,
                     "the server broke the protocol: a chunk has %" PRIu64
                     " bytes, which none can have",
                     bf_get_be64(head + 24));
        return false;
    }
    conn->start += BF_NBD_EXTENDED_CHUNK_BYTES;
    req = find_request(conn, chunk.cookie, error);
    if (req == NULL) {
        return false;
    }
    if (offset != req->offset) {
        return set_violation(req, error, "a chunk is for offset %" PRIu64,
                             offset);
    }
    return reader_co_rest(conn, req, &chunk, error);
}

/* The kinds of replies that go with extended headers, and without. */
static bool
reader_co_reply(BfNbdcConn *conn, uint32_t magic, GError **error)
{
    if (conn->exp.extended) {
        if (magic == BF_NBD_EXTENDED_CHUNK_MAGIC) {
            return reader_co_extended(conn, error);
        }
    } else if (magic == BF_NBD_SIMPLE_REPLY_MAGIC) {
        return reader_co_simple(conn, error);
    } else if (magic == BF_NBD_CHUNK_MAGIC) {
        return reader_co_chunk(conn, error);
    }
    bf_set_error(error,
                 "the server broke the protocol: bad magic number 0x%08x of "
                 "a reply%s",
                 magic, conn->exp.extended ? " with extended headers" : "");
    return false;
}

void
bf_nbdc_co_receive(BfNbdcConn *conn, GError **error)
{
    conn->start = 0;
    conn->end = 0;
    conn->window = NBDC_INPUT_BYTES;
    while (
        input_co_fill(conn, BF_NBD_SIMPLE_REPLY_BYTES, error) &&
        reader_co_reply(conn, bf_get_be32(conn->input + conn->start), error)) {
    }
}
