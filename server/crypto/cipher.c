/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AES, by GnuTLS or by nettle: kinds[] says what GnuTLS has. All checks of
 * lengths and initialisation vectors are made here, once for both.
 */
#include "crypto/cipher.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>

#include "cipher-private.h"
#include "core/error.h"

#define GCM_IV_BYTES 12

struct BfCipher {
    BfCipherAlg alg;
    BfCipherMode mode;
    bool has_iv; /* XTS: for the next call */
    /* One of these is set; owned. */
    gnutls_cipher_hd_t gnutls;
    gnutls_aead_cipher_hd_t aead;
    BfNettleCipher *nettle;
};

static const struct {
    const char *name;
    size_t key_size;
    gnutls_cipher_algorithm_t cbc;
    gnutls_cipher_algorithm_t xts; /* GNUTLS_CIPHER_UNKNOWN: nettle's */
    gnutls_cipher_algorithm_t gcm;
} kinds[BF_CIPHER_ALG_COUNT] = {
    [BF_CIPHER_ALG_AES_128] = {"aes-128", 16, GNUTLS_CIPHER_AES_128_CBC,
                               GNUTLS_CIPHER_AES_128_XTS,
                               GNUTLS_CIPHER_AES_128_GCM},
    [BF_CIPHER_ALG_AES_192] = {"aes-192", 24, GNUTLS_CIPHER_AES_192_CBC,
                               GNUTLS_CIPHER_UNKNOWN,
                               GNUTLS_CIPHER_AES_192_GCM},
    [BF_CIPHER_ALG_AES_256] = {"aes-256", 32, GNUTLS_CIPHER_AES_256_CBC,
                               GNUTLS_CIPHER_AES_256_XTS,
                               GNUTLS_CIPHER_AES_256_GCM},
};

static const char *const modes[BF_CIPHER_MODE_COUNT] = {
    [BF_CIPHER_MODE_ECB] = "ecb", [BF_CIPHER_MODE_CBC] = "cbc",
    [BF_CIPHER_MODE_CTR] = "ctr", [BF_CIPHER_MODE_XTS] = "xts",
    [BF_CIPHER_MODE_GCM] = "gcm",
};

const char *
bf_cipher_alg_str(BfCipherAlg alg)
{
    g_assert(alg < BF_CIPHER_ALG_COUNT);
    return kinds[alg].name;
}

const char *
bf_cipher_mode_str(BfCipherMode mode)
{
    g_assert(mode < BF_CIPHER_MODE_COUNT);
    return modes[mode];
}

bool
bf_cipher_alg_parse(const char *name, BfCipherAlg *ret_alg, GError **error)
{
    for (BfCipherAlg alg = 0; alg < BF_CIPHER_ALG_COUNT; alg++) {
        if (g_str_equal(kinds[alg].name, name)) {
            *ret_alg = alg;
            return true;
        }
    }
    bf_set_error(error,
                 "Algorithm '%s' not supported: the ciphers are aes-128, "
                 "aes-192, aes-256",
                 name);
    return false;
}

bool
bf_cipher_mode_parse(const char *name, BfCipherMode *ret_mode, GError **error)
{
    for (BfCipherMode mode = 0; mode < BF_CIPHER_MODE_COUNT; mode++) {
        if (g_str_equal(modes[mode], name)) {
            *ret_mode = mode;
            return true;
        }
    }
    bf_set_error(error,
                 "Cipher mode '%s' not supported: the modes are ecb, cbc, ctr, "
                 "xts, gcm",
                 name);
    return false;
}

static gnutls_cipher_algorithm_t
find_gnutls(BfCipherAlg alg, BfCipherMode mode)
{
    switch (mode) {
    case BF_CIPHER_MODE_CBC:
        return kinds[alg].cbc;
    case BF_CIPHER_MODE_XTS:
        return kinds[alg].xts;
    case BF_CIPHER_MODE_GCM:
        return kinds[alg].gcm;
    default:
        return GNUTLS_CIPHER_UNKNOWN;
    }
}

bool
bf_cipher_supports(BfCipherAlg alg, BfCipherMode mode)
{
    /* Any key will do but one with equal halves, which XTS may refuse. */
    static const uint8_t key[64] = {1, 2, 3};
    g_autoptr(BfCipher) cipher =
        bf_cipher_new(alg, mode, key, bf_cipher_get_key_size(alg, mode), NULL);

    return cipher != NULL;
}

size_t
bf_cipher_get_key_size(BfCipherAlg alg, BfCipherMode mode)
{
    g_assert(alg < BF_CIPHER_ALG_COUNT);
    return kinds[alg].key_size * (mode == BF_CIPHER_MODE_XTS ? 2 : 1);
}

size_t
bf_cipher_get_iv_size(BfCipherMode mode)
{
    switch (mode) {
    case BF_CIPHER_MODE_ECB:
        return 0;
    case BF_CIPHER_MODE_GCM:
        return GCM_IV_BYTES;
    default:
        return BF_CIPHER_BLOCK_BYTES;
    }
}

static bool
open_gnutls(BfCipher *cipher, gnutls_cipher_algorithm_t kind,
            const gnutls_datum_t *key, GError **error)
{
    uint8_t zero[BF_CIPHER_BLOCK_BYTES] = {0}; /* until one is set */
    gnutls_datum_t iv = {zero, sizeof(zero)};
    int ret = cipher->mode == BF_CIPHER_MODE_GCM
                  ? gnutls_aead_cipher_init(&cipher->aead, kind, key)
                  : gnutls_cipher_init(&cipher->gnutls, kind, key, &iv);

    if (ret < 0) {
        cipher->aead = NULL;
        cipher->gnutls = NULL;
        bf_set_error(error, "Algorithm '%s' not supported in mode %s: %s",
                     kinds[cipher->alg].name, modes[cipher->mode],
                     gnutls_strerror(ret));
    }
    return ret == 0;
}

BfCipher *
bf_cipher_new(BfCipherAlg alg, BfCipherMode mode, const void *key,
              size_t key_len, GError **error)
{
    size_t key_size = bf_cipher_get_key_size(alg, mode);
    gnutls_cipher_algorithm_t kind = find_gnutls(alg, mode);
    gnutls_datum_t datum = {(void *)key, (unsigned)key_len};
    g_autoptr(BfCipher) cipher = g_new0(BfCipher, 1);

    cipher->alg = alg;
    cipher->mode = mode;
    if (kind == GNUTLS_CIPHER_UNKNOWN &&
        !bf_nettle_cipher_supports(alg, mode)) {
        bf_set_error(error,
                     "Algorithm '%s' not supported in mode %s: not available "
                     "in this build, which is without nettle",
                     kinds[alg].name, modes[mode]);
        return NULL;
    }
    if (key_len != key_size) {
        bf_set_error(error, "Cipher key length %zu should be %zu for %s in %s",
                     key_len, key_size, kinds[alg].name, modes[mode]);
        return NULL;
    }
    if (kind == GNUTLS_CIPHER_UNKNOWN) {
        cipher->nettle = bf_nettle_cipher_new(alg, mode, key);
    } else if (!open_gnutls(cipher, kind, &datum, error)) {
        return NULL;
    }
    return g_steal_pointer(&cipher);
}

static bool
check_iv_size(const BfCipher *cipher, size_t len, GError **error)
{
    size_t size = bf_cipher_get_iv_size(cipher->mode);

    if (len != size) {
        bf_set_error(error, "Expected IV size %zu not %zu", size, len);
    }
    return len == size;
}

bool
bf_cipher_set_iv(BfCipher *cipher, const void *iv, size_t iv_len,
                 GError **error)
{
    g_assert(cipher->mode != BF_CIPHER_MODE_GCM);
    if (!check_iv_size(cipher, iv_len, error)) {
        return false;
    }
    if (cipher->nettle != NULL) {
        bf_nettle_cipher_set_iv(cipher->nettle, iv);
    } else {
        gnutls_cipher_set_iv(cipher->gnutls, (void *)iv, iv_len);
    }
    cipher->has_iv = true;
    return true;
}

static bool
check_run(BfCipher *cipher, size_t len, GError **error)
{
    bool is_xts = cipher->mode == BF_CIPHER_MODE_XTS;

    g_assert(cipher->mode != BF_CIPHER_MODE_GCM);
    if (len % BF_CIPHER_BLOCK_BYTES != 0 || (is_xts && len == 0)) {
        bf_set_error(error, "Length %zu must be a multiple of block size %d%s",
                     len, BF_CIPHER_BLOCK_BYTES, len == 0 ? " and not 0" : "");
        return false;
    }
    if (cipher->mode != BF_CIPHER_MODE_ECB && !cipher->has_iv) {
        bf_set_error(error, "an initialisation vector was not set");
        return false;
    }
    cipher->has_iv = !is_xts;
    return true;
}

static bool
run(BfCipher *cipher, bool encrypt, const void *in, void *out, size_t len,
    GError **error)
{
    int ret = 0;

    if (!check_run(cipher, len, error)) {
        return false;
    }
    if (len == 0) {
        return true;
    }
    if (cipher->nettle != NULL) {
        bf_nettle_cipher_run(cipher->nettle, encrypt, in, out, len);
        return true;
    }
    ret = encrypt ? gnutls_cipher_encrypt2(cipher->gnutls, in, len, out, len)
                  : gnutls_cipher_decrypt2(cipher->gnutls, in, len, out, len);
    if (ret < 0) {
        bf_set_error(error, "%s in %s failed: %s", kinds[cipher->alg].name,
                     modes[cipher->mode], gnutls_strerror(ret));
    }
    return ret == 0;
}

bool
bf_cipher_encrypt(BfCipher *cipher, const void *in, void *out, size_t len,
                  GError **error)
{
    return run(cipher, true, in, out, len, error);
}

bool
bf_cipher_decrypt(BfCipher *cipher, const void *in, void *out, size_t len,
                  GError **error)
{
    return run(cipher, false, in, out, len, error);
}

bool
bf_cipher_seal(BfCipher *cipher, const BfCipherNonce *nonce, void *buf,
               size_t len, uint8_t *tag, GError **error)
{
    giovec_t aad = {(void *)nonce->aad, nonce->aad_len};
    giovec_t data = {buf, len};
    size_t tag_len = BF_CIPHER_TAG_BYTES;
    int ret = 0;

    g_assert(cipher->mode == BF_CIPHER_MODE_GCM);
    if (!check_iv_size(cipher, nonce->iv_len, error)) {
        return false;
    }
    ret = gnutls_aead_cipher_encryptv2(cipher->aead, nonce->iv, nonce->iv_len,
                                       &aad, nonce->aad_len > 0 ? 1 : 0, &data,
                                       len > 0 ? 1 : 0, tag, &tag_len);
    if (ret < 0) {
        bf_set_error(error, "encrypting failed: %s", gnutls_strerror(ret));
    }
    return ret == 0;
}

bool
bf_cipher_open(BfCipher *cipher, const BfCipherNonce *nonce, void *buf,
               size_t len, const uint8_t *tag, GError **error)
{
    giovec_t aad = {(void *)nonce->aad, nonce->aad_len};
    giovec_t data = {buf, len};
    int ret = 0;

    g_assert(cipher->mode == BF_CIPHER_MODE_GCM);
    if (!check_iv_size(cipher, nonce->iv_len, error)) {
        return false;
    }
    ret = gnutls_aead_cipher_decryptv2(
        cipher->aead, (void *)nonce->iv, nonce->iv_len, &aad,
        nonce->aad_len > 0 ? 1 : 0, &data, len > 0 ? 1 : 0, (void *)tag,
        BF_CIPHER_TAG_BYTES);
    if (ret < 0) {
        if (len > 0) {
            explicit_bzero(buf, len);
        }
        bf_set_error(error,
                     "the data does not match its tag: it was changed, or key "
                     "or nonce are others (%s)",
                     gnutls_strerror(ret));
    }
    return ret == 0;
}

void
bf_cipher_free(BfCipher *cipher)
{
    if (cipher == NULL) {
        return;
    }
    if (cipher->gnutls != NULL) {
        gnutls_cipher_deinit(cipher->gnutls);
    }
    if (cipher->aead != NULL) {
        gnutls_aead_cipher_deinit(cipher->aead);
    }
    bf_nettle_cipher_free(cipher->nettle);
    g_free(cipher);
}
