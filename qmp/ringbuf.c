/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory that keeps the last bytes that were written to it.
 *
 * @written and @taken count bytes since the beginning; their places are the
 * counts modulo the size, which is a power of two or 0.
 */
#include "qmp/ringbuf.h"

#include <inttypes.h>
#include <string.h>

#include "core/error.h"

struct BfRingbuf {
    uint8_t *data; /* owned: @size bytes */
    uint64_t size;
    uint64_t written;
    uint64_t taken; /* at most @written, at least @written - @size */
};

BfRingbuf *
bf_ringbuf_new(uint64_t size, GError **error)
{
    BfRingbuf *ring = NULL;
    uint8_t *data = NULL;

    if ((size & (size - 1)) != 0) {
        bf_set_error(error, "size of ringbuf chardev must be power of two");
        return NULL;
    }
    if (size > BF_RINGBUF_MAX_BYTES) {
        bf_set_error(error, "size of ringbuf chardev is above %" PRIu64,
                     BF_RINGBUF_MAX_BYTES);
        return NULL;
    }
    data = g_try_malloc0(size);
    if (data == NULL && size > 0) {
        bf_set_error(error, "no memory for a ringbuf of %" PRIu64 " bytes",
                     size);
        return NULL;
    }
    ring = g_new0(BfRingbuf, 1);
    ring->data = data;
    ring->size = size;
    return ring;
}

void
bf_ringbuf_free(BfRingbuf *ring)
{
    if (ring != NULL) {
        g_free(ring->data);
        g_free(ring);
    }
}

static void
put_bytes(BfRingbuf *ring, const uint8_t *bytes, size_t len)
{
    /* What would be overwritten at once is not copied first. */
    if (len > ring->size) {
        ring->written += len - ring->size;
        bytes += len - ring->size;
        len = ring->size;
    }
    while (len > 0) {
        uint64_t at = ring->written & (ring->size - 1);
        size_t run = MIN(len, ring->size - at);

        memcpy(ring->data + at, bytes, run);
        ring->written += run;
        bytes += run;
        len -= run;
    }
    if (ring->written - ring->taken > ring->size) {
        ring->taken = ring->written - ring->size;
    }
}

/* g_base64_decode() passes over what it does not know and over a broken end. */
static bool
check_base64(const char *text, GError **error)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t len = 0;
    size_t padding = 0;

    for (; *text != '\0'; text++) {
        if (*text == '\n' || *text == '\r') {
            continue;
        }
        if (*text == '=') {
            padding++;
        } else if (padding > 0 || strchr(digits, *text) == NULL) {
            bf_set_error(error, "Base64 data contains invalid characters");
            return false;
        }
        len++;
    }
    if (len % 4 != 0 || padding > 2) {
        bf_set_error(error, "Base64 data is incomplete");
        return false;
    }
    return true;
}

bool
bf_ringbuf_write(BfRingbuf *ring, const char *text, BfDataFormat format,
                 GError **error)
{
    g_autofree uint8_t *decoded = NULL;
    gsize len = 0;

    if (format == BF_DATA_FORMAT_UTF8) {
        put_bytes(ring, (const uint8_t *)text, strlen(text));
        return true;
    }
    if (!check_base64(text, error)) {
        return false;
    }
    decoded = g_base64_decode(text, &len);
    put_bytes(ring, decoded, len);
    return true;
}

char *
bf_ringbuf_read(BfRingbuf *ring, uint64_t max, BfDataFormat format)
{
    size_t len = MIN(max, ring->written - ring->taken);
    g_autofree char *bytes = g_malloc(len + 1);
    size_t done = 0;

    while (done < len) {
        uint64_t at = ring->taken & (ring->size - 1);
        size_t run = MIN(len - done, ring->size - at);

        memcpy(bytes + done, ring->data + at, run);
        ring->taken += run;
        done += run;
    }
    bytes[len] = '\0';
    return format == BF_DATA_FORMAT_UTF8
               ? g_utf8_make_valid(bytes, (gssize)len)
               : g_base64_encode((const uint8_t *)bytes, len);
}
