/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A place in a list of buffers: where a record engine takes its data from, or
 * where it puts it to. A place is at the end when no entry is left; before
 * that, once skipped, it is never at an empty entry.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/**
 * BfTlsSource: a place in a list of buffers
 * @iov: the entry that the place is in
 * @niov: number of entries left, that one included
 * @offset: where in the entry
 */
typedef struct BfTlsSource {
    const struct iovec *iov;
    int niov;
    size_t offset;
} BfTlsSource;

/**
 * bf_tls_source_piece:
 * @source: a place that is not at the end
 *
 * Returns: number of bytes from here to the end of the entry
 */
static inline size_t
bf_tls_source_piece(const BfTlsSource *source)
{
    return source->iov->iov_len - source->offset;
}

/**
 * bf_tls_source_data:
 * @source: a place that is not at the end
 *
 * Returns: (transfer none): the byte at the place
 */
static inline uint8_t *
bf_tls_source_data(const BfTlsSource *source)
{
    return (uint8_t *)source->iov->iov_base + source->offset;
}

/**
 * bf_tls_source_skip:
 * @source: a place
 * @len: number of bytes to go on, at most those there are
 *
 * Also steps over empty entries.
 */
static inline void
bf_tls_source_skip(BfTlsSource *source, size_t len)
{
    while (source->niov > 0 && len >= bf_tls_source_piece(source)) {
        len -= bf_tls_source_piece(source);
        source->iov++;
        source->niov--;
        source->offset = 0;
    }
    source->offset += len;
}

/**
 * bf_tls_source_init:
 * @source: (out caller-allocates): the first byte of a list
 * @iov: the list
 * @niov: its length, may be 0
 */
static inline void
bf_tls_source_init(BfTlsSource *source, const struct iovec *iov, int niov)
{
    *source = (BfTlsSource){.iov = iov, .niov = niov};
    bf_tls_source_skip(source, 0);
}

/**
 * bf_tls_source_bytes:
 * @source: a place
 *
 * Returns: number of bytes from here to the end of the list
 */
static inline size_t
bf_tls_source_bytes(const BfTlsSource *source)
{
    size_t total = 0;

    for (int i = 0; i < source->niov; i++) {
        total += source->iov[i].iov_len;
    }
    return total - source->offset;
}
