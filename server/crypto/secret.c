/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Secrets: read, decode, decrypt, wipe.
 *
 * Every buffer that holds a part of a secret is itself a BfSecret, so that each
 * way out wipes it; and no message may quote what was read.
 */
#include "crypto/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"

#define KEY_BYTES 32   /* AES-256 */
#define BLOCK_BYTES 16 /* AES */

struct BfSecret {
    size_t len;
    uint8_t bytes[]; /* @len bytes in use, then at least one NUL */
};

static BfSecret *
secret_alloc(size_t len)
{
    BfSecret *secret = g_atomic_rc_box_alloc0(sizeof(BfSecret) + len + 1);

    secret->len = len;
    return secret;
}

static void
secret_wipe(gpointer data)
{
    /* All of the box: @len may have been made smaller. */
    explicit_bzero(data, g_atomic_rc_box_get_size(data));
}

BfSecret *
bf_secret_ref(BfSecret *secret)
{
    return g_atomic_rc_box_acquire(secret);
}

void
bf_secret_unref(BfSecret *secret)
{
    if (secret != NULL) {
        g_atomic_rc_box_release_full(secret, secret_wipe);
    }
}

BfSecret *
bf_secret_new_bytes(const void *bytes, size_t len)
{
    BfSecret *secret = secret_alloc(len);

    if (len > 0) {
        memcpy(secret->bytes, bytes, len);
    }
    return secret;
}

const uint8_t *
bf_secret_get_bytes(const BfSecret *secret, size_t *ret_len)
{
    *ret_len = secret->len;
    return secret->bytes;
}

const char *
bf_secret_get_text(const BfSecret *secret, const char *id, GError **error)
{
    const char *text = (const char *)secret->bytes;

    if (!g_utf8_validate_len(text, secret->len, NULL)) {
        bf_set_error(error,
                     "Data from secret %s is not valid UTF-8; a password "
                     "must be text without NUL bytes",
                     id);
        return NULL;
    }
    return text;
}

/* Reads up to @max bytes and one more, to see whether there are more. */
static int
read_all(int fd, size_t size_hint, size_t max, BfSecret **ret_secret)
{
    g_autoptr(BfSecret) secret = secret_alloc(MIN(size_hint, max) + 1);
    size_t used = 0;

    for (;;) {
        ssize_t n = read(fd, secret->bytes + used, secret->len - used);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        if (n == 0) {
            break;
        }
        used += n;
        if (used > max) {
            return -EFBIG;
        }
        if (used == secret->len) {
            BfSecret *larger = secret_alloc(MIN(used * 2, max + 1));

            memcpy(larger->bytes, secret->bytes, used);
            bf_secret_unref(secret);
            secret = larger;
        }
    }
    secret->len = used;
    secret->bytes[used] = 0;
    *ret_secret = g_steal_pointer(&secret);
    return 0;
}

int
bf_secret_load_file(const char *path, size_t max_bytes, BfSecret **ret_secret)
{
    bf_autofd fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0) {
        return -errno;
    }
    if (S_ISDIR(st.st_mode)) {
        return -EISDIR;
    }
    return read_all(fd, S_ISREG(st.st_mode) ? st.st_size : 4096, max_bytes,
                    ret_secret);
}

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
    g_autoptr(BfSecret) out = secret_alloc(len / 4 * 3 + 3);
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
    out->len = used;
    out->bytes[used] = 0;
    return g_steal_pointer(&out);
}

static BfSecret *
read_source(const BfSecretParams *params, GError **error)
{
    BfSecret *secret = NULL;
    int ret;

    if (params->data == NULL && params->file == NULL) {
        bf_set_error(error, "Either 'file' or 'data' must be provided");
        return NULL;
    }
    if (params->data != NULL && params->file != NULL) {
        bf_set_error(error, "'file' and 'data' are mutually exclusive; give "
                            "only one of them");
        return NULL;
    }
    if (params->data != NULL) {
        return bf_secret_new_bytes(params->data, strlen(params->data));
    }
    ret = bf_secret_load_file(params->file, BF_SECRET_MAX_BYTES, &secret);
    if (ret == -EFBIG) {
        bf_set_error(error, "Unable to read %s: it holds more than %zu bytes",
                     params->file, BF_SECRET_MAX_BYTES);
    } else if (ret < 0) {
        bf_set_errno(error, -ret, "Unable to read %s", params->file);
    }
    return secret;
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
    if (iv->len != BLOCK_BYTES) {
        bf_set_error(error, "IV should be 16 bytes in length not %zu", iv->len);
        return false;
    }
    *ret_key = g_steal_pointer(&key);
    *ret_iv = g_steal_pointer(&iv);
    return true;
}

/*
 * Only the last byte of the padding is looked at, as some programs fill the
 * others with random bytes.
 */
static bool
strip_padding(BfSecret *plain, GError **error)
{
    uint8_t padding = plain->bytes[plain->len - 1];

    if (padding == 0 || padding > BLOCK_BYTES) {
        bf_set_error(error,
                     "Incorrect number of padding bytes (%u) found on "
                     "decrypted data; is it the right key and 'iv'?",
                     padding);
        return false;
    }
    plain->len -= padding;
    memset(plain->bytes + plain->len, 0, padding);
    return true;
}

static BfSecret *
decrypt(const BfSecret *data, BfSecret *key, BfSecret *iv, GError **error)
{
    g_autoptr(BfSecret) plain = NULL;
    gnutls_datum_t key_datum = {key->bytes, key->len};
    gnutls_datum_t iv_datum = {iv->bytes, iv->len};
    gnutls_cipher_hd_t cipher;
    int ret;

    if (data->len == 0 || data->len % BLOCK_BYTES != 0) {
        bf_set_error(error, "Length %zu must be a multiple of block size 16%s",
                     data->len, data->len == 0 ? " and not 0" : "");
        return NULL;
    }
    plain = secret_alloc(data->len);
    ret = gnutls_cipher_init(&cipher, GNUTLS_CIPHER_AES_256_CBC, &key_datum,
                             &iv_datum);
    if (ret == 0) {
        ret = gnutls_cipher_decrypt2(cipher, data->bytes, data->len,
                                     plain->bytes, plain->len);
        gnutls_cipher_deinit(cipher);
    }
    if (ret < 0) {
        bf_set_error(error, "Unable to decrypt the secret: %s",
                     gnutls_strerror(ret));
        return NULL;
    }
    return strip_padding(plain, error) ? g_steal_pointer(&plain) : NULL;
}

BfSecret *
bf_secret_new(const BfSecretParams *params, BfSecretLookup lookup, void *opaque,
              GError **error)
{
    g_autoptr(BfSecret) data = read_source(params, error);
    g_autoptr(BfSecret) key = NULL;
    g_autoptr(BfSecret) iv = NULL;

    if (data == NULL) {
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
    return decrypt(data, key, iv, error);
}
