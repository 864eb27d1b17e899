/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Anti-forensic split: makes a key much larger, so that the loss of any small
 * part of it on a disk is the loss of the key (LUKS1 On-Disk Format, chapter
 * 2).
 *
 * Any thread; none suspends.
 */
#pragma once

#include "crypto/hash.h"

/**
 * bf_afsplit_encode:
 * @hash: spreads the bits
 * @key: the key
 * @key_len: bytes of @key, at least 1
 * @stripes: how many times larger, at least 1
 * @split: (out caller-allocates): room for @key_len times @stripes bytes; not
 *   @key
 * @error: set on failure: the hash is not supported, or there are no random
 *   bytes
 *
 * Returns: false on failure; @split then holds nothing of the key
 */
bool bf_afsplit_encode(BfHashAlg hash, const uint8_t *key, size_t key_len,
                       uint32_t stripes, uint8_t *split, GError **error);

/**
 * bf_afsplit_decode:
 * @hash: as it was for bf_afsplit_encode()
 * @split: what that made, @key_len times @stripes bytes
 * @key_len: bytes of @key, at least 1
 * @stripes: as they were
 * @key: (out caller-allocates): room for @key_len bytes; not @split
 * @error: set on failure: the hash is not supported
 *
 * Returns: false on failure
 */
bool bf_afsplit_decode(BfHashAlg hash, const uint8_t *split, size_t key_len,
                       uint32_t stripes, uint8_t *key, GError **error);
