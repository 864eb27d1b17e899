/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What nettle computes for cipher.c: AES in ECB, in CTR, and with a key of 192
 * bits in XTS.
 */
#pragma once

#include "crypto/cipher.h"

/* A key of nettle's. */
typedef struct BfNettleCipher BfNettleCipher;

/* Whether this build has nettle and @mode is one of its. */
bool bf_nettle_cipher_supports(BfCipherAlg alg, BfCipherMode mode);

/* @key has the right length. (transfer full) */
BfNettleCipher *bf_nettle_cipher_new(BfCipherAlg alg, BfCipherMode mode,
                                     const uint8_t *key);

void bf_nettle_cipher_set_iv(BfNettleCipher *cipher, const uint8_t *iv);

/* @len was checked. */
void bf_nettle_cipher_run(BfNettleCipher *cipher, bool encrypt,
                          const uint8_t *in, uint8_t *out, size_t len);

/* Wipes the key; @cipher may be NULL. */
void bf_nettle_cipher_free(BfNettleCipher *cipher);
