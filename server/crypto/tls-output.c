/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The queue of bytes on their way to the peer.
 *
 * The kernel may be sending the head while more is put behind it: a block never
 * moves and is neither freed nor used again before all of it was consumed.
 */
#include "tls-private.h"

#include <string.h>

#include "core/util.h"

#define BLOCK_MIN_BYTES 4096
/* Larger blocks are not kept for the next time. */
#define SPARE_MAX_BYTES (BF_MIB + 64 * BF_KIB)

static BfTlsBlock *
new_block(BfTlsOutput *output, size_t len)
{
    size_t wanted = MAX(MAX(len, output->expected), BLOCK_MIN_BYTES);
    BfTlsBlock *block = g_steal_pointer(&output->spare);

    if (block == NULL || block->capacity < wanted) {
        size_t total = bf_align_up(sizeof(BfTlsBlock) + wanted, 4096);

        g_free(block);
        block = g_malloc(total);
        block->capacity = total - sizeof(BfTlsBlock);
    }
    block->next = NULL;
    block->start = 0;
    block->end = 0;
    return block;
}

uint8_t *
bf_tls_output_reserve(BfTlsOutput *output, size_t len)
{
    BfTlsBlock *tail = output->tail;

    if (tail == NULL || tail->capacity - tail->end < len) {
        BfTlsBlock *block = new_block(output, len);

        if (tail == NULL) {
            output->head = block;
        } else {
            tail->next = block;
        }
        output->tail = tail = block;
    }
    return tail->bytes + tail->end;
}

void
bf_tls_output_commit(BfTlsOutput *output, size_t len)
{
    g_assert(len <= output->tail->capacity - output->tail->end);
    output->tail->end += len;
    output->bytes += len;
    output->expected -= MIN(output->expected, len);
}

int
bf_tls_output_peek(const BfTlsOutput *output, struct iovec *iov, int niov)
{
    int n = 0;

    for (BfTlsBlock *b = output->head; b != NULL && n < niov; b = b->next) {
        if (b->end > b->start) {
            iov[n].iov_base = b->bytes + b->start;
            iov[n].iov_len = b->end - b->start;
            n++;
        }
    }
    return n;
}

/* Takes the head off the queue; keeps it as the spare if it is the larger. */
static void
retire_head(BfTlsOutput *output)
{
    BfTlsBlock *block = output->head;
    BfTlsBlock *spare = output->spare;

    output->head = block->next;
    if (output->head == NULL) {
        output->tail = NULL;
    }
    if (block->capacity <= SPARE_MAX_BYTES &&
        (spare == NULL || spare->capacity < block->capacity)) {
        output->spare = block;
        block = spare;
    }
    g_free(block);
}

void
bf_tls_output_consume(BfTlsOutput *output, size_t len)
{
    g_assert(len <= output->bytes);
    output->bytes -= len;
    while (output->head != NULL) {
        BfTlsBlock *head = output->head;
        size_t n = MIN(len, head->end - head->start);

        head->start += n;
        len -= n;
        if (head->start < head->end) {
            break;
        }
        retire_head(output);
    }
}

void
bf_tls_output_trim(BfTlsOutput *output)
{
    g_clear_pointer(&output->spare, g_free);
}

void
bf_tls_output_clear(BfTlsOutput *output)
{
    bf_tls_output_consume(output, output->bytes);
    bf_tls_output_trim(output);
}
