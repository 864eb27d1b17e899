/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer of secret decoding. The first byte chooses the format (bit 0), and
 * which key is named (bits 1 and 2: none, a good one, one of a wrong length,
 * one that is not there); then come the text of the iv, a line end, and the
 * data.
 *
 * Beyond not crashing: what base64 was decoded to must be encoded to the same
 * text, decrypted data is shorter than encrypted data, and a failure is
 * explained without the data.
 */
#include "crypto/secret.h"

#include <string.h>

#include "core/error.h"

/* Shorter data may be in a message by chance. */
#define TELLING_BYTES 12

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static BfSecret *
find_secret(const char *id, void *opaque, GError **error)
{
    if (g_str_equal(id, "absent")) {
        bf_set_error(error, "No secret with id '%s'", id);
        return NULL;
    }
    return bf_secret_new_bytes("0123456789abcdef0123456789abcdef",
                               g_str_equal(id, "key") ? 32 : 31);
}

static void
check_base64(const BfSecret *decoded, const uint8_t *text, size_t len)
{
    size_t decoded_len = 0;
    const uint8_t *bytes = bf_secret_get_bytes(decoded, &decoded_len);
    g_autofree char *again = g_base64_encode(bytes, decoded_len);
    g_autoptr(GString) plain = g_string_new(NULL);

    for (size_t i = 0; i < len; i++) {
        if (text[i] != '\n' && text[i] != '\r') {
            g_string_append_c(plain, (char)text[i]);
        }
    }
    /* The unused bits before the padding need not be zero. */
    g_assert_cmpuint(strlen(again), ==, plain->len);
    g_assert_true(plain->len < 4 ||
                  memcmp(again, plain->str, plain->len - 4) == 0);
}

static void
check_message(const char *message, const uint8_t *data, size_t len)
{
    g_assert_true(g_utf8_validate(message, -1, NULL));
    g_assert_true(len < TELLING_BYTES ||
                  memmem(message, strlen(message), data, len) == NULL);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const keys[] = {NULL, "key", "short", "absent"};
    const uint8_t *end = size > 1 ? memchr(data + 1, '\n', size - 1) : NULL;
    g_autofree char *iv = NULL;
    g_autoptr(BfSecret) written = NULL;
    g_autoptr(BfSecret) secret = NULL;
    g_autoptr(GError) error = NULL;
    BfSecretParams params = {0};
    size_t len = 0;

    if (end == NULL) {
        return 0;
    }
    len = size - (size_t)(end + 1 - data);
    iv = g_strndup((const char *)data + 1, (gsize)(end - data - 1));
    params.format =
        data[0] & 1 ? BF_SECRET_FORMAT_BASE64 : BF_SECRET_FORMAT_RAW;
    params.keyid = keys[data[0] >> 1 & 3];
    params.iv = *iv != '\0' ? iv : NULL;
    written = bf_secret_new_bytes(end + 1, len);
    secret = bf_secret_decode(written, &params, find_secret, NULL, &error);
    g_assert_true((secret == NULL) == (error != NULL));
    if (secret == NULL) {
        check_message(error->message, end + 1, len);
    } else if (params.keyid != NULL) {
        size_t plain_len = 0;

        bf_secret_get_bytes(secret, &plain_len);
        g_assert_cmpuint(plain_len, <, len);
    } else if (params.format == BF_SECRET_FORMAT_BASE64) {
        check_base64(secret, end + 1, len);
    }
    return 0;
}
