/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sparse reads: zeroes in what a READ has got are sent as holes (NBD proto.md,
 * NBD_REPLY_TYPE_OFFSET_HOLE).
 *
 * The data themselves are looked at rather than the block status, which would
 * cost a system call that may block. On data this costs one look at each block;
 * only what begins with zeroes is looked at further.
 */
#include "core/util.h"
#include "transmit-private.h"

/* Holes begin and end at multiples of this in the export, if they can. */
#define BLOCK_BYTES 4096

/* Fewer zeroes are not worth the two headers that they would cost. */
#define RUN_MIN ((size_t)32 * 1024)

/* A chunk has a header and perhaps data, and all must fit into one send. */
#define SPANS_MAX 15

/* A piece of what was read. */
typedef struct Span {
    size_t start;
    size_t bytes;
    bool zero;
} Span;

/* Where the zeroes end that begin at @at, which is the start of a block. */
static size_t
end_of_zeroes(const uint8_t *buf, size_t at, size_t bytes)
{
    while (at < bytes) {
        size_t piece = MIN((size_t)BLOCK_BYTES, bytes - at);

        if (!bf_mem_is_zero(buf + at, piece)) {
            break;
        }
        at += piece;
    }
    return at;
}

/* Divides @buf, which was read at @offset. Returns how many spans there are, 0
 * if no zeroes are worth it. */
static unsigned
find_spans(const uint8_t *buf, uint64_t offset, size_t bytes,
           Span spans[SPANS_MAX])
{
    size_t at = bf_align_up(offset, BLOCK_BYTES) - offset;
    size_t done = 0;
    unsigned n = 0;

    /* Room for data before the hole, the hole, and data behind it. */
    while (at + RUN_MIN <= bytes && n + 3 <= SPANS_MAX) {
        size_t end = end_of_zeroes(buf, at, bytes);

        if (end - at < RUN_MIN) {
            at = MAX(end, at + BLOCK_BYTES);
            continue;
        }
        if (at > done) {
            spans[n++] = (Span){.start = done, .bytes = at - done};
        }
        spans[n++] = (Span){.start = at, .bytes = end - at, .zero = true};
        done = end;
        at = end;
    }
    if (n > 0 && done < bytes) {
        spans[n++] = (Span){.start = done, .bytes = bytes - done};
    }
    return n;
}

/* Room for a header with what precedes the data or describes the hole. */
#define HEAD_BYTES (BF_NBD_EXTENDED_CHUNK_BYTES + BF_NBD_CHUNK_HOLE_BYTES)

/* Writes what precedes the data of @span, or all of a hole. */
static size_t
put_span(const BfNbdTask *task, uint8_t *head, const Span *span, bool last)
{
    uint64_t offset = task->request.offset + span->start;
    BfNbdChunk chunk = {
        .flags = last ? BF_NBD_CHUNK_DONE : 0,
        .type = span->zero ? BF_NBD_CHUNK_TYPE_OFFSET_HOLE
                           : BF_NBD_CHUNK_TYPE_OFFSET_DATA,
        .cookie = task->request.cookie,
        .length = span->zero
                      ? BF_NBD_CHUNK_HOLE_BYTES
                      : BF_NBD_CHUNK_OFFSET_BYTES + (uint32_t)span->bytes,
    };
    size_t bytes = bf_nbd_reply_put_chunk(task, head, &chunk);

    if (span->zero) {
        bf_nbd_put_hole(head + bytes, offset, (uint32_t)span->bytes);
        return bytes + BF_NBD_CHUNK_HOLE_BYTES;
    }
    bf_put_be64(head + bytes, offset);
    return bytes + BF_NBD_CHUNK_OFFSET_BYTES;
}

bool
bf_nbd_sparse_reply(BfNbdTask *task)
{
    Span spans[SPANS_MAX];
    unsigned n = find_spans(task->buf, task->request.offset,
                            task->request.length, spans);
    struct iovec *parts = NULL;
    uint8_t *heads = NULL;
    unsigned n_parts = 0;

    if (n == 0) {
        return false;
    }
    task->heap = g_try_malloc(n * (2 * sizeof(*parts) + HEAD_BYTES));
    if (task->heap == NULL) {
        return false; /* it can go as it is */
    }
    parts = (struct iovec *)(void *)task->heap;
    heads = task->heap + n * 2 * sizeof(*parts);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *head = heads + (size_t)i * HEAD_BYTES;

        parts[n_parts++] = (struct iovec){
            .iov_base = head,
            .iov_len = put_span(task, head, &spans[i], i + 1 == n),
        };
        if (!spans[i].zero) {
            parts[n_parts++] = (struct iovec){
                .iov_base = task->buf + spans[i].start,
                .iov_len = spans[i].bytes,
            };
            task->reply_bytes += spans[i].bytes;
        }
    }
    bf_nbd_reply_parts(task, parts, n_parts);
    return true;
}
