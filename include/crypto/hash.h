/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hashes and HMACs of bytes, at once or piece by piece.
 *
 * GnuTLS computes them, nettle what GnuTLS does not have. A hash or HMAC object
 * belongs to one thread at a time; functions without one may be called from any
 * thread. None suspends.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* The longest result of any hash, bytes. */
#define BF_HASH_BYTES_MAX 64

/**
 * BfHashAlg: the hash functions that have a name here
 * @BF_HASH_ALG_MD5: 16 bytes; for old data only, collisions are known
 * @BF_HASH_ALG_SHA1: 20 bytes; as MD5
 * @BF_HASH_ALG_SHA224: 28 bytes
 * @BF_HASH_ALG_SHA256: 32 bytes
 * @BF_HASH_ALG_SHA384: 48 bytes
 * @BF_HASH_ALG_SHA512: 64 bytes
 * @BF_HASH_ALG_RIPEMD160: 20 bytes; needs nettle
 *
 * bf_hash_supports() tells which of them this build can compute.
 */
typedef enum BfHashAlg {
    BF_HASH_ALG_MD5,
    BF_HASH_ALG_SHA1,
    BF_HASH_ALG_SHA224,
    BF_HASH_ALG_SHA256,
    BF_HASH_ALG_SHA384,
    BF_HASH_ALG_SHA512,
    BF_HASH_ALG_RIPEMD160,
    BF_HASH_ALG_COUNT,
} BfHashAlg;

/**
 * BfHash: a hash that is being computed
 */
typedef struct BfHash BfHash;

/**
 * BfHmac: a keyed hash (RFC 2104) that is being computed
 */
typedef struct BfHmac BfHmac;

/**
 * bf_hash_alg_str:
 * @alg: a hash function
 *
 * Returns: (transfer none): its name, for example "sha256"
 */
const char *bf_hash_alg_str(BfHashAlg alg);

/**
 * bf_hash_alg_parse:
 * @name: a name as bf_hash_alg_str() gives it
 * @ret_alg: (out): the hash function; written on success only
 * @error: set if there is none of that name; it lists those there are
 *
 * Returns: false on failure
 */
bool bf_hash_alg_parse(const char *name, BfHashAlg *ret_alg, GError **error);

/**
 * bf_hash_supports:
 * @alg: a hash function
 *
 * Returns: true if this build, in the system's present policy, computes it
 */
bool bf_hash_supports(BfHashAlg alg);

/**
 * bf_hash_get_size:
 * @alg: a hash function, supported or not
 *
 * Returns: bytes of its result, at most %BF_HASH_BYTES_MAX
 */
size_t bf_hash_get_size(BfHashAlg alg);

/**
 * bf_hash_new:
 * @alg: the hash function
 * @error: set if it is not supported, saying why
 *
 * Returns: (transfer full): a hash of no bytes so far, or NULL
 */
BfHash *bf_hash_new(BfHashAlg alg, GError **error);

/**
 * bf_hash_update:
 * @hash: the hash
 * @iov: the next bytes
 * @niov: number of entries in @iov, 0 or more
 */
void bf_hash_update(BfHash *hash, const struct iovec *iov, int niov);

/**
 * bf_hash_finish:
 * @hash: the hash
 * @digest: (out caller-allocates): room for bf_hash_get_size() bytes
 *
 * Gives the result; @hash then begins anew, with no bytes.
 */
void bf_hash_finish(BfHash *hash, uint8_t *digest);

/**
 * bf_hash_free:
 * @hash: (nullable): the hash; what it holds is wiped
 */
void bf_hash_free(BfHash *hash);

/**
 * bf_hash_iov:
 * @alg: the hash function
 * @iov: the bytes
 * @niov: number of entries in @iov, 0 or more
 * @digest: (out caller-allocates): room for bf_hash_get_size() bytes
 * @error: set if @alg is not supported
 *
 * Returns: false on failure
 */
bool bf_hash_iov(BfHashAlg alg, const struct iovec *iov, int niov,
                 uint8_t *digest, GError **error);

/**
 * bf_hash_bytes:
 * @alg: the hash function
 * @bytes: the bytes; may be NULL if @len is 0
 * @len: number of bytes
 * @digest: (out caller-allocates): room for bf_hash_get_size() bytes
 * @error: set if @alg is not supported
 *
 * Returns: false on failure
 */
bool bf_hash_bytes(BfHashAlg alg, const void *bytes, size_t len,
                   uint8_t *digest, GError **error);

/**
 * bf_hash_hex:
 * @alg: the hash function
 * @iov: the bytes
 * @niov: number of entries in @iov, 0 or more
 * @error: set if @alg is not supported
 *
 * Returns: (transfer full): the result in lower-case hexadecimal digits, or
 *   NULL
 */
char *bf_hash_hex(BfHashAlg alg, const struct iovec *iov, int niov,
                  GError **error);

/**
 * bf_hash_base64:
 * @alg: the hash function
 * @iov: the bytes
 * @niov: number of entries in @iov, 0 or more
 * @error: set if @alg is not supported
 *
 * Returns: (transfer full): the result in base64, or NULL
 */
char *bf_hash_base64(BfHashAlg alg, const struct iovec *iov, int niov,
                     GError **error);

/**
 * bf_hmac_new:
 * @alg: the hash function to build on
 * @key: the key; may be NULL if @key_len is 0
 * @key_len: bytes of @key
 * @error: set if @alg is not supported, saying why
 *
 * Returns: (transfer full): an HMAC of no bytes so far, or NULL
 */
BfHmac *bf_hmac_new(BfHashAlg alg, const void *key, size_t key_len,
                    GError **error);

/**
 * bf_hmac_supports:
 * @alg: a hash function
 *
 * Returns: true if bf_hmac_new() takes it
 */
bool bf_hmac_supports(BfHashAlg alg);

/**
 * bf_hmac_update:
 * @hmac: the HMAC
 * @iov: the next bytes
 * @niov: number of entries in @iov, 0 or more
 */
void bf_hmac_update(BfHmac *hmac, const struct iovec *iov, int niov);

/**
 * bf_hmac_finish:
 * @hmac: the HMAC
 * @digest: (out caller-allocates): room for bf_hash_get_size() bytes
 *
 * Gives the result; @hmac then begins anew, with the same key and no bytes.
 */
void bf_hmac_finish(BfHmac *hmac, uint8_t *digest);

/**
 * bf_hmac_free:
 * @hmac: (nullable): the HMAC; key and state are wiped
 */
void bf_hmac_free(BfHmac *hmac);

/**
 * bf_hmac_iov:
 * @alg: the hash function to build on
 * @key: the key; may be NULL if @key_len is 0
 * @key_len: bytes of @key
 * @iov: the bytes
 * @niov: number of entries in @iov, 0 or more
 * @digest: (out caller-allocates): room for bf_hash_get_size() bytes
 * @error: set if @alg is not supported
 *
 * Returns: false on failure
 */
bool bf_hmac_iov(BfHashAlg alg, const void *key, size_t key_len,
                 const struct iovec *iov, int niov, uint8_t *digest,
                 GError **error);

/**
 * bf_hmac_hex:
 * @alg: the hash function to build on
 * @key: the key; may be NULL if @key_len is 0
 * @key_len: bytes of @key
 * @iov: the bytes
 * @niov: number of entries in @iov, 0 or more
 * @error: set if @alg is not supported
 *
 * Returns: (transfer full): the result in lower-case hexadecimal digits, or
 *   NULL
 */
char *bf_hmac_hex(BfHashAlg alg, const void *key, size_t key_len,
                  const struct iovec *iov, int niov, GError **error);

/**
 * bf_hmac_base64:
 * @alg: the hash function to build on
 * @key: the key; may be NULL if @key_len is 0
 * @key_len: bytes of @key
 * @iov: the bytes
 * @niov: number of entries in @iov, 0 or more
 * @error: set if @alg is not supported
 *
 * Returns: (transfer full): the result in base64, or NULL
 */
char *bf_hmac_base64(BfHashAlg alg, const void *key, size_t key_len,
                     const struct iovec *iov, int niov, GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfHash, bf_hash_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfHmac, bf_hmac_free)
