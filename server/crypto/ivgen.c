/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Initialisation vectors of sectors.
 *
 * essiv encrypts one block alone. CBC with a zero vector is the same for one
 * block, and unlike ECB every build has it.
 */
#include "crypto/ivgen.h"

#include <string.h>

#include "core/error.h"
#include "core/util.h"

struct BfIvgen {
    BfIvgenAlg alg;
    BfCipher *cipher; /* essiv: owned */
};

static const char *const names[BF_IVGEN_ALG_COUNT] = {
    [BF_IVGEN_ALG_PLAIN] = "plain",
    [BF_IVGEN_ALG_PLAIN64] = "plain64",
    [BF_IVGEN_ALG_ESSIV] = "essiv",
};

const char *
bf_ivgen_alg_str(BfIvgenAlg alg)
{
    g_assert(alg < BF_IVGEN_ALG_COUNT);
    return names[alg];
}

bool
bf_ivgen_alg_parse(const char *name, BfIvgenAlg *ret_alg, GError **error)
{
    for (BfIvgenAlg alg = 0; alg < BF_IVGEN_ALG_COUNT; alg++) {
        if (g_str_equal(names[alg], name)) {
            *ret_alg = alg;
            return true;
        }
    }
    bf_set_error(error,
                 "IV generator '%s' not supported: there are plain, plain64, "
                 "essiv",
                 name);
    return false;
}

static bool
open_essiv(BfIvgen *ivgen, const BfIvgenParams *params, GError **error)
{
    size_t key_len = bf_cipher_get_key_size(params->cipher, BF_CIPHER_MODE_CBC);
    uint8_t salt[BF_HASH_BYTES_MAX];

    if (bf_hash_get_size(params->hash) < key_len) {
        bf_set_error(error, "hash '%s' of essiv gives %zu bytes, %s needs %zu",
                     bf_hash_alg_str(params->hash),
                     bf_hash_get_size(params->hash),
                     bf_cipher_alg_str(params->cipher), key_len);
        return false;
    }
    if (!bf_hash_bytes(params->hash, params->key, params->key_len, salt,
                       error)) {
        return false;
    }
    ivgen->cipher =
        bf_cipher_new(params->cipher, BF_CIPHER_MODE_CBC, salt, key_len, error);
    explicit_bzero(salt, sizeof(salt));
    return ivgen->cipher != NULL;
}

BfIvgen *
bf_ivgen_new(const BfIvgenParams *params, GError **error)
{
    g_autoptr(BfIvgen) ivgen = g_new0(BfIvgen, 1);

    ivgen->alg = params->alg;
    if (params->alg == BF_IVGEN_ALG_ESSIV &&
        !open_essiv(ivgen, params, error)) {
        return NULL;
    }
    return g_steal_pointer(&ivgen);
}

bool
bf_ivgen_calculate(BfIvgen *ivgen, uint64_t sector, uint8_t *iv, GError **error)
{
    static const uint8_t zero[BF_CIPHER_BLOCK_BYTES];
    uint64_t number =
        ivgen->alg == BF_IVGEN_ALG_PLAIN ? (uint32_t)sector : sector;
    uint64_t le = htole64(number);

    memset(iv, 0, BF_CIPHER_BLOCK_BYTES);
    memcpy(iv, &le, sizeof(le));
    if (ivgen->alg != BF_IVGEN_ALG_ESSIV) {
        return true;
    }
    return bf_cipher_set_iv(ivgen->cipher, zero, sizeof(zero), error) &&
           bf_cipher_encrypt(ivgen->cipher, iv, iv, BF_CIPHER_BLOCK_BYTES,
                             error);
}

void
bf_ivgen_free(BfIvgen *ivgen)
{
    if (ivgen != NULL) {
        bf_cipher_free(ivgen->cipher);
        g_free(ivgen);
    }
}
