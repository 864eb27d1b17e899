/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AES in the modes that disk formats and secrets use.
 *
 * GnuTLS computes CBC, GCM and most of XTS; nettle the rest, where it is
 * linked. A cipher belongs to one thread at a time. None of the functions
 * suspends.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of a block of AES, and of what proves that GCM data is unchanged. */
#define BF_CIPHER_BLOCK_BYTES 16
#define BF_CIPHER_TAG_BYTES 16

/**
 * BfCipherAlg: the ciphers, by their key size
 * @BF_CIPHER_ALG_AES_128: 16 bytes
 * @BF_CIPHER_ALG_AES_192: 24 bytes
 * @BF_CIPHER_ALG_AES_256: 32 bytes
 */
typedef enum BfCipherAlg {
    BF_CIPHER_ALG_AES_128,
    BF_CIPHER_ALG_AES_192,
    BF_CIPHER_ALG_AES_256,
    BF_CIPHER_ALG_COUNT,
} BfCipherAlg;

/**
 * BfCipherMode: how blocks are chained
 * @BF_CIPHER_MODE_ECB: not at all; for building blocks only; needs nettle
 * @BF_CIPHER_MODE_CBC: to the block before
 * @BF_CIPHER_MODE_CTR: by a counter, big-endian, all 16 bytes; needs nettle
 * @BF_CIPHER_MODE_XTS: by their place in a sector (IEEE 1619); the key is two
 *   keys; AES-192 needs nettle
 * @BF_CIPHER_MODE_GCM: as CTR, and authenticated; bf_cipher_seal() and
 *   bf_cipher_open() only
 */
typedef enum BfCipherMode {
    BF_CIPHER_MODE_ECB,
    BF_CIPHER_MODE_CBC,
    BF_CIPHER_MODE_CTR,
    BF_CIPHER_MODE_XTS,
    BF_CIPHER_MODE_GCM,
    BF_CIPHER_MODE_COUNT,
} BfCipherMode;

/**
 * BfCipher: a key, ready for use in one mode
 */
typedef struct BfCipher BfCipher;

/**
 * bf_cipher_alg_str:
 * @alg: a cipher
 *
 * Returns: (transfer none): its name, for example "aes-256"
 */
const char *bf_cipher_alg_str(BfCipherAlg alg);

/**
 * bf_cipher_mode_str:
 * @mode: a mode
 *
 * Returns: (transfer none): its name, for example "xts"
 */
const char *bf_cipher_mode_str(BfCipherMode mode);

/**
 * bf_cipher_alg_parse:
 * @name: a name as bf_cipher_alg_str() gives it
 * @ret_alg: (out): the cipher; written on success only
 * @error: set if there is none of that name; DES, for one, is not there
 *
 * Returns: false on failure
 */
bool bf_cipher_alg_parse(const char *name, BfCipherAlg *ret_alg,
                         GError **error);

/**
 * bf_cipher_mode_parse:
 * @name: a name as bf_cipher_mode_str() gives it
 * @ret_mode: (out): the mode; written on success only
 * @error: set if there is none of that name
 *
 * Returns: false on failure
 */
bool bf_cipher_mode_parse(const char *name, BfCipherMode *ret_mode,
                          GError **error);

/**
 * bf_cipher_supports:
 * @alg: a cipher
 * @mode: a mode
 *
 * Returns: true if this build has @alg in @mode
 */
bool bf_cipher_supports(BfCipherAlg alg, BfCipherMode mode);

/**
 * bf_cipher_get_key_size:
 * @alg: a cipher
 * @mode: a mode
 *
 * Returns: bytes of a key; for XTS those of both keys
 */
size_t bf_cipher_get_key_size(BfCipherAlg alg, BfCipherMode mode);

/**
 * bf_cipher_get_iv_size:
 * @mode: a mode
 *
 * Returns: bytes of an initialisation vector; 0 if @mode has none
 */
size_t bf_cipher_get_iv_size(BfCipherMode mode);

/**
 * bf_cipher_new:
 * @alg: the cipher
 * @mode: the mode
 * @key: the key
 * @key_len: bytes of @key
 * @error: set if this build has no such cipher, or the key has another length
 *
 * Returns: (transfer full): the cipher, or NULL
 */
BfCipher *bf_cipher_new(BfCipherAlg alg, BfCipherMode mode, const void *key,
                        size_t key_len, GError **error);

/**
 * bf_cipher_set_iv:
 * @cipher: a cipher of a mode that has initialisation vectors, but not GCM
 * @iv: the initialisation vector, the first counter, or the sector's tweak
 * @iv_len: bytes of @iv
 * @error: set if the length is wrong
 *
 * Sets it for the next call of bf_cipher_encrypt() or bf_cipher_decrypt().
 * Further calls in the same direction go on from there; in XTS a call is a
 * whole sector, and each needs its own.
 *
 * Returns: false on failure
 */
bool bf_cipher_set_iv(BfCipher *cipher, const void *iv, size_t iv_len,
                      GError **error);

/**
 * bf_cipher_encrypt:
 * @cipher: a cipher of any mode but GCM
 * @in: the plain bytes
 * @out: (out caller-allocates): room for @len bytes; may be @in
 * @len: number of bytes, a multiple of %BF_CIPHER_BLOCK_BYTES; not 0 in XTS
 * @error: set on failure: a wrong length, or an initialisation vector is
 * missing
 *
 * Returns: false on failure
 */
bool bf_cipher_encrypt(BfCipher *cipher, const void *in, void *out, size_t len,
                       GError **error);

/**
 * bf_cipher_decrypt:
 * @cipher: a cipher of any mode but GCM
 * @in: the encrypted bytes
 * @out: (out caller-allocates): room for @len bytes; may be @in
 * @len: number of bytes, as for bf_cipher_encrypt()
 * @error: set on failure
 *
 * Returns: false on failure
 */
bool bf_cipher_decrypt(BfCipher *cipher, const void *in, void *out, size_t len,
                       GError **error);

/**
 * BfCipherNonce: what goes with GCM data beside the key
 * @iv: the nonce, which must never be used twice with a key
 * @iv_len: bytes of @iv, 12
 * @aad: (nullable): bytes that are authenticated, but not encrypted
 * @aad_len: bytes of @aad
 */
typedef struct BfCipherNonce {
    const void *iv;
    size_t iv_len;
    const void *aad;
    size_t aad_len;
} BfCipherNonce;

/**
 * bf_cipher_seal:
 * @cipher: a cipher in GCM
 * @nonce: what goes with the data
 * @buf: the bytes, encrypted in place
 * @len: bytes of @buf, any number
 * @tag: (out caller-allocates): room for %BF_CIPHER_TAG_BYTES
 * @error: set on failure
 *
 * Returns: false on failure
 */
bool bf_cipher_seal(BfCipher *cipher, const BfCipherNonce *nonce, void *buf,
                    size_t len, uint8_t *tag, GError **error);

/**
 * bf_cipher_open:
 * @cipher: a cipher in GCM
 * @nonce: what goes with the data
 * @buf: the bytes, decrypted in place; wiped on failure
 * @len: bytes of @buf, any number
 * @tag: %BF_CIPHER_TAG_BYTES as bf_cipher_seal() gave them
 * @error: set on failure: among others, if data, nonce or tag were changed
 *
 * Returns: false on failure
 */
bool bf_cipher_open(BfCipher *cipher, const BfCipherNonce *nonce, void *buf,
                    size_t len, const uint8_t *tag, GError **error);

/**
 * bf_cipher_free:
 * @cipher: (nullable): the cipher; its key is wiped
 */
void bf_cipher_free(BfCipher *cipher);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfCipher, bf_cipher_free)
