/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PBKDF2 (RFC 8018): keys from passwords, by many rounds of an HMAC.
 *
 * The functions compute for as long as the rounds take: call them on the thread
 * pool. None suspends.
 */
#pragma once

#include "crypto/hash.h"

/**
 * BfPbkdfParams: what a key is made from
 * @hash: the hash function under the HMAC
 * @password: the password
 * @password_len: bytes of @password
 * @salt: bytes that make the key differ from that of the same password
 * elsewhere
 * @salt_len: bytes of @salt
 */
typedef struct BfPbkdfParams {
    BfHashAlg hash;
    const void *password;
    size_t password_len;
    const void *salt;
    size_t salt_len;
} BfPbkdfParams;

/**
 * bf_pbkdf2_supports:
 * @hash: a hash function
 *
 * Returns: true if bf_pbkdf2() takes it
 */
bool bf_pbkdf2_supports(BfHashAlg hash);

/**
 * bf_pbkdf2:
 * @params: what the key is made from
 * @iterations: rounds, 1..2^32-1
 * @key: (out caller-allocates): room for @key_len bytes
 * @key_len: bytes of the key, at least 1
 * @error: set on failure: the hash is not supported, or a number is too large
 *
 * Returns: false on failure
 */
bool bf_pbkdf2(const BfPbkdfParams *params, uint64_t iterations, uint8_t *key,
               size_t key_len, GError **error);

/**
 * bf_pbkdf2_calibrate:
 * @measure: does @iterations rounds and gives the processor time that they
 * took, milliseconds; returns false on failure
 * @opaque: passed to @measure
 * @ret_iterations: (out): rounds in a second
 * @error: set on failure
 *
 * Finds how many rounds take one second of a processor: by tenfold numbers
 * until time can be measured, then by the rule of three until the measured time
 * is above half a second.
 *
 * Returns: false on failure
 */
bool bf_pbkdf2_calibrate(bool (*measure)(uint64_t iterations, void *opaque,
                                         uint64_t *ret_cpu_ms, GError **error),
                         void *opaque, uint64_t *ret_iterations,
                         GError **error);

/**
 * bf_pbkdf2_count_iterations:
 * @params: what keys will be made from
 * @key_len: bytes of such a key
 * @ret_iterations: (out): rounds that this thread does in a second
 * @error: set on failure
 *
 * bf_pbkdf2_calibrate() with bf_pbkdf2(). Takes one to two seconds.
 *
 * Returns: false on failure
 */
bool bf_pbkdf2_count_iterations(const BfPbkdfParams *params, size_t key_len,
                                uint64_t *ret_iterations, GError **error);
