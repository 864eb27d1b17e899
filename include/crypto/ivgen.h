/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Initialisation vectors from sector numbers, as disk encryption makes them.
 *
 * A generator belongs to one thread at a time. None of the functions suspends.
 */
#pragma once

#include "crypto/cipher.h"
#include "crypto/hash.h"

/**
 * BfIvgenAlg: the ways to make them
 * @BF_IVGEN_ALG_PLAIN: the low 32 bits of the number, little-endian; they
 * repeat after 2 TiB, so this is for volumes that have it
 * @BF_IVGEN_ALG_PLAIN64: 64 bits of the number, little-endian
 * @BF_IVGEN_ALG_ESSIV: the same, encrypted with a hash of the key
 */
typedef enum BfIvgenAlg {
    BF_IVGEN_ALG_PLAIN,
    BF_IVGEN_ALG_PLAIN64,
    BF_IVGEN_ALG_ESSIV,
    BF_IVGEN_ALG_COUNT,
} BfIvgenAlg;

/**
 * BfIvgen: makes initialisation vectors
 */
typedef struct BfIvgen BfIvgen;

/**
 * BfIvgenParams: what initialisation vectors are made from
 * @alg: how
 * @cipher: essiv: the cipher of the data
 * @hash: essiv: the hash of the key
 * @key: essiv: the key of the data
 * @key_len: essiv: bytes of @key
 */
typedef struct BfIvgenParams {
    BfIvgenAlg alg;
    BfCipherAlg cipher;
    BfHashAlg hash;
    const void *key;
    size_t key_len;
} BfIvgenParams;

/**
 * bf_ivgen_alg_str:
 * @alg: a way to make them
 *
 * Returns: (transfer none): its name, for example "plain64"
 */
const char *bf_ivgen_alg_str(BfIvgenAlg alg);

/**
 * bf_ivgen_alg_parse:
 * @name: a name as bf_ivgen_alg_str() gives it
 * @ret_alg: (out): written on success only
 * @error: set if there is none of that name
 *
 * Returns: false on failure
 */
bool bf_ivgen_alg_parse(const char *name, BfIvgenAlg *ret_alg, GError **error);

/**
 * bf_ivgen_new:
 * @params: what to make them from
 * @error: set on failure: hash or cipher are not supported, or the hash is too
 *   short for a key of the cipher
 *
 * Returns: (transfer full): the generator, or NULL
 */
BfIvgen *bf_ivgen_new(const BfIvgenParams *params, GError **error);

/**
 * bf_ivgen_calculate:
 * @ivgen: the generator
 * @sector: number of a sector
 * @iv: (out caller-allocates): room for %BF_CIPHER_BLOCK_BYTES
 * @error: set if the cipher of essiv fails
 *
 * Returns: false on failure
 */
bool bf_ivgen_calculate(BfIvgen *ivgen, uint64_t sector, uint8_t *iv,
                        GError **error);

/**
 * bf_ivgen_free:
 * @ivgen: (nullable): the generator
 */
void bf_ivgen_free(BfIvgen *ivgen);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfIvgen, bf_ivgen_free)
