/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The modes of AES that GnuTLS does not have, by nettle. A build without nettle
 * has this file too: it then supports nothing, and nothing else is called.
 */
#include "cipher-private.h"

#include <string.h>

#if BF_HAVE_NETTLE

#include <nettle/aes.h>
#include <nettle/ctr.h>
#include <nettle/nettle-meta.h>
#include <nettle/xts.h>

struct BfNettleCipher {
    const struct nettle_cipher *aes;
    BfCipherMode mode;
    uint8_t iv[BF_CIPHER_BLOCK_BYTES];
    /* Large enough for every key size, which the functions of @aes share. */
    struct aes256_ctx encrypt_key;
    struct aes256_ctx decrypt_key;
    struct aes256_ctx tweak_key;
};

G_STATIC_ASSERT(sizeof(struct aes256_ctx) >= sizeof(struct aes192_ctx));
G_STATIC_ASSERT(sizeof(struct aes256_ctx) >= sizeof(struct aes128_ctx));

static const struct nettle_cipher *
find_aes(BfCipherAlg alg)
{
    switch (alg) {
    case BF_CIPHER_ALG_AES_128:
        return &nettle_aes128;
    case BF_CIPHER_ALG_AES_192:
        return &nettle_aes192;
    default:
        return &nettle_aes256;
    }
}

bool
bf_nettle_cipher_supports(BfCipherAlg alg, BfCipherMode mode)
{
    return mode == BF_CIPHER_MODE_ECB || mode == BF_CIPHER_MODE_CTR ||
           (mode == BF_CIPHER_MODE_XTS && alg == BF_CIPHER_ALG_AES_192);
}

BfNettleCipher *
bf_nettle_cipher_new(BfCipherAlg alg, BfCipherMode mode, const uint8_t *key)
{
    BfNettleCipher *cipher = g_new0(BfNettleCipher, 1);
    const struct nettle_cipher *aes = find_aes(alg);

    cipher->aes = aes;
    cipher->mode = mode;
    aes->set_encrypt_key(&cipher->encrypt_key, key);
    aes->set_decrypt_key(&cipher->decrypt_key, key);
    if (mode == BF_CIPHER_MODE_XTS) {
        aes->set_encrypt_key(&cipher->tweak_key, key + aes->key_size);
    }
    return cipher;
}

void
bf_nettle_cipher_set_iv(BfNettleCipher *cipher, const uint8_t *iv)
{
    memcpy(cipher->iv, iv, sizeof(cipher->iv));
}

void
bf_nettle_cipher_run(BfNettleCipher *cipher, bool encrypt, const uint8_t *in,
                     uint8_t *out, size_t len)
{
    const struct nettle_cipher *aes = cipher->aes;

    if (cipher->mode == BF_CIPHER_MODE_CTR) {
        ctr_crypt(&cipher->encrypt_key, aes->encrypt, BF_CIPHER_BLOCK_BYTES,
                  cipher->iv, len, out, in);
    } else if (cipher->mode == BF_CIPHER_MODE_ECB) {
        (encrypt ? aes->encrypt : aes->decrypt)(encrypt ? &cipher->encrypt_key
                                                        : &cipher->decrypt_key,
                                                len, out, in);
    } else if (encrypt) {
        xts_encrypt_message(&cipher->encrypt_key, &cipher->tweak_key,
                            aes->encrypt, cipher->iv, len, out, in);
    } else {
        xts_decrypt_message(&cipher->decrypt_key, &cipher->tweak_key,
                            aes->decrypt, aes->encrypt, cipher->iv, len, out,
                            in);
    }
}

void
bf_nettle_cipher_free(BfNettleCipher *cipher)
{
    if (cipher != NULL) {
        explicit_bzero(cipher, sizeof(*cipher));
        g_free(cipher);
    }
}

#else

bool
bf_nettle_cipher_supports(BfCipherAlg alg, BfCipherMode mode)
{
    return false;
}

BfNettleCipher *
bf_nettle_cipher_new(BfCipherAlg alg, BfCipherMode mode, const uint8_t *key)
{
    g_assert_not_reached();
}

void
bf_nettle_cipher_set_iv(BfNettleCipher *cipher, const uint8_t *iv)
{
    g_assert_not_reached();
}

void
bf_nettle_cipher_run(BfNettleCipher *cipher, bool encrypt, const uint8_t *in,
                     uint8_t *out, size_t len)
{
    g_assert_not_reached();
}

void
bf_nettle_cipher_free(BfNettleCipher *cipher)
{
    g_assert(cipher == NULL);
}

#endif
