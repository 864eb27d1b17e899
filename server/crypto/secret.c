/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Secrets: decode, decrypt. secret-read.c gets the bytes.
 *
 * Every buffer that holds a part of a secret is itself a BfSecret, so that each
 * way out wipes it; and no message may quote what was read.
 */
#include "crypto/secret.h"

#include <string.h>

#include "core/error.h"
#include "crypto/cipher.h"
#include "secret-private.h"

#define KEY_BYTES 32 /* AES-256 */

/* The value of one base64 digit, or -1. */
static int
base64_value(uint8_t c)
{
    if (g_ascii_isupper(c)) {
        return c - 'A';
    }
    if (g_ascii_islower(c)) {
        return c - 'a' + 26;
    }
    if (g_ascii_isdigit(c)) {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/*
 * g_base64_decode() skips what it does not know and ignores an incomplete end;
 * a damaged key must be an error instead.
 */
static BfSecret *
decode_base64(const uint8_t *text, size_t len, const char *what, GError **error)
{
    g_autoptr(BfSecret) out = bf_secret_alloc(len / 4 * 3 + 3);
    uint32_t bits = 0;
    size_t digits = 0;
    size_t padding = 0;
    size_t used = 0;

    for (size_t i = 0; i < len; i++) {
        int value = base64_value(text[i]);

        if (text[i] == '\n' || text[i] == '\r') {
            continue;
        }
        if (text[i] == '=') {
            padding++;
            continue;
        }
        if (value < 0 || padding > 0) {
            bf_set_error(error,
                         "Base64 data contains invalid characters (%s, at "
                         "byte %zu)",
                         what, i);
            return NULL;
        }
        bits = bits << 6 | (uint32_t)value;
        digits++;
        if (digits % 4 != 1) {
            out->bytes[used++] = bits >> (4 - digits % 4) % 4 * 2 & 0xff;
        }
    }
    if (digits % 4 == 1 || padding != (4 - digits % 4) % 4) {
        bf_set_error(error,
                     "Base64 data is not valid: %s is incomplete, its length "
                     "must be a multiple of 4 with '=' as padding",
                     what);
        return NULL;
    }
    bf_secret_cut(out, used);
    return g_steal_pointer(&out);
}

/* The key named by @params, checked; then its initialisation vector. */
static bool
find_key(const BfSecretParams *params, BfSecretLookup lookup, void *opaque,
         BfSecret **ret_key, BfSecret **ret_iv, GError **error)
{
    g_autoptr(BfSecret) key = lookup(params->keyid, opaque, error);
    g_autoptr(BfSecret) iv = NULL;

    if (key == NULL) {
        return false;
    }
    if (key->len != KEY_BYTES) {
        bf_set_error(error,
                     "Key should be 32 bytes in length: secret '%s' has %zu",
                     params->keyid, key->len);
        return false;
    }
    if (params->iv == NULL) {
        bf_set_error(error, "IV is required to decrypt secret: set 'iv' to the "
                            "base64 of its 16 bytes");
        return false;
    }
    iv = decode_base64((const uint8_t *)params->iv, strlen(params->iv), "'iv'",
                       error);
    if (iv == NULL) {
        return false;
    }
    if (iv->len != BF_CIPHER_BLOCK_BYTES) {
        bf_set_error(error, "IV should be 16 bytes in length not %zu", iv->len);
        return false;
    }
    *ret_key = g_steal_pointer(&key);
    *ret_iv = g_steal_pointer(&iv);
    return true;
}

/*
 * All of the padding is looked at. With one block, a wrong key and a wrong iv
 * look alike; with more, the iv does not reach the last one.
 */
static bool
strip_padding(BfSecret *plain, const char *keyid, GError **error)
{
    const char *suspect = plain->len > BF_CIPHER_BLOCK_BYTES
                              ? "the key is wrong"
                              : "key or 'iv' is wrong";
    uint8_t padding = plain->bytes[plain->len - 1];
    bool ok = padding > 0 && padding <= BF_CIPHER_BLOCK_BYTES;

    for (size_t i = 1; ok && i <= padding; i++) {
        ok = plain->bytes[plain->len - i] == padding;
    }
    if (ok) {
        bf_secret_cut(plain, plain->len - padding);
        return true;
    }
    bf_set_error(error,
                 "Incorrect number of padding bytes (%u) found on decrypted "
                 "data: %s (secret '%s'), or the data was not padded to 16 "
                 "bytes as in PKCS#7",
                 padding, suspect, keyid);
    return false;
}

static BfSecret *
decrypt(const BfSecret *data, const char *keyid, const BfSecret *key,
        const BfSecret *iv, GError **error)
{
    g_autoptr(BfSecret) plain = NULL;
    g_autoptr(BfCipher) cipher = NULL;

    if (data->len == 0 || data->len % BF_CIPHER_BLOCK_BYTES != 0) {
        bf_set_error(error,
                     "Length %zu must be a multiple of block size 16%s: the "
                     "data is cut off, or 'format' is not that of the data",
                     data->len, data->len == 0 ? " and not 0" : "");
        return NULL;
    }
    plain = bf_secret_alloc(data->len);
    cipher = bf_cipher_new(BF_CIPHER_ALG_AES_256, BF_CIPHER_MODE_CBC,
                           key->bytes, key->len, error);
    if (cipher == NULL ||
        !bf_cipher_set_iv(cipher, iv->bytes, iv->len, error) ||
        !bf_cipher_decrypt(cipher, data->bytes, plain->bytes, data->len,
                           error)) {
        g_prefix_error(error, "Unable to decrypt the secret: ");
        return NULL;
    }
    return strip_padding(plain, keyid, error) ? g_steal_pointer(&plain) : NULL;
}

BfSecret *
bf_secret_decode(BfSecret *written, const BfSecretParams *params,
                 BfSecretLookup lookup, void *opaque, GError **error)
{
    g_autoptr(BfSecret) data = bf_secret_ref(written);
    g_autoptr(BfSecret) key = NULL;
    g_autoptr(BfSecret) iv = NULL;

    if (params->keyid == NULL && params->iv != NULL) {
        bf_set_error(error, "'iv' is for data that is encrypted: set 'keyid' "
                            "to the secret with the key, or leave 'iv' out");
        return NULL;
    }
    if (params->keyid != NULL &&
        !find_key(params, lookup, opaque, &key, &iv, error)) {
        return NULL;
    }
    if (params->format == BF_SECRET_FORMAT_BASE64) {
        BfSecret *raw =
            decode_base64(data->bytes, data->len, "the secret", error);

        bf_secret_unref(data);
        data = raw;
    }
    if (data == NULL || key == NULL) {
        return g_steal_pointer(&data);
    }
    return decrypt(data, params->keyid, key, iv, error);
}

BfSecret *
bf_secret_new(const BfSecretParams *params, BfSecretLookup lookup, void *opaque,
              GError **error)
{
    g_autoptr(BfSecret) written = bf_secret_read(params, error);

    return written != NULL
               ? bf_secret_decode(written, params, lookup, opaque, error)
               : NULL;
}
