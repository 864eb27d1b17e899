/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory that keeps the last bytes that were written to it. Any one thread;
 * none suspends.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <glib.h>

#include "schema/types.h"

/* The largest ring buffer. */
#define BF_RINGBUF_MAX_BYTES (UINT64_C(64) << 20)

/**
 * BfRingbuf: a ring buffer
 */
typedef struct BfRingbuf BfRingbuf;

/**
 * bf_ringbuf_new:
 * @size: bytes that it keeps: 0 or a power of two, at most
 *     %BF_RINGBUF_MAX_BYTES
 * @error: set on failure
 *
 * Returns: (transfer full): an empty ring buffer, or NULL
 */
BfRingbuf *bf_ringbuf_new(uint64_t size, GError **error);

/**
 * bf_ringbuf_free:
 * @ring: (nullable): a ring buffer
 */
void bf_ringbuf_free(BfRingbuf *ring);

/**
 * bf_ringbuf_write:
 * @ring: a ring buffer
 * @text: what to write
 * @format: how @text is to be understood
 * @error: set on failure: @text is not in this format
 *
 * Bytes that it has no room for push the oldest ones out.
 *
 * Returns: false on failure; nothing was written
 */
bool bf_ringbuf_write(BfRingbuf *ring, const char *text, BfDataFormat format,
                      GError **error);

/**
 * bf_ringbuf_read:
 * @ring: a ring buffer
 * @max: most bytes to take
 * @format: how they are returned
 *
 * Takes the oldest bytes out.
 *
 * Returns: (transfer full): them as text, valid UTF-8
 */
char *bf_ringbuf_read(BfRingbuf *ring, uint64_t max, BfDataFormat format);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfRingbuf, bf_ringbuf_free)
