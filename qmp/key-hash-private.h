/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SipHash with 1 and 3 rounds (Aumasson and Bernstein, "SipHash: a fast
 * short-input PRF"): who does not know the seed cannot choose keys that
 * collide.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>

#include <glib.h>

/* What nobody else knows. */
typedef struct BfKeySeed {
    uint64_t words[2];
} BfKeySeed;

static inline BfKeySeed
bf_key_seed(void)
{
    BfKeySeed seed;

    g_assert(getrandom(&seed, sizeof(seed), 0) == sizeof(seed));
    return seed;
}

static inline uint64_t
bf_key_rotate(uint64_t word, unsigned bits)
{
    return word << bits | word >> (64 - bits);
}

static inline void
bf_key_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = bf_key_rotate(v[1], 13) ^ v[0];
    v[3] = bf_key_rotate(v[3], 16) ^ v[2];
    v[0] = bf_key_rotate(v[0], 32) + v[3];
    v[2] += v[1];
    v[1] = bf_key_rotate(v[1], 17) ^ v[2];
    v[3] = bf_key_rotate(v[3], 21) ^ v[0];
    v[2] = bf_key_rotate(v[2], 32);
}

/* At most 7 bytes as a word; those in the middle are read twice. */
static inline uint64_t
bf_key_rest(const char *bytes, size_t len)
{
    uint32_t low = 0;
    uint32_t high = 0;

    if (len >= 4) {
        memcpy(&low, bytes, sizeof(low));
        memcpy(&high, bytes + len - 4, sizeof(high));
        return low | (uint64_t)high << (8 * (len - 4));
    }
    if (len == 0) {
        return 0;
    }
    return (uint64_t)(uint8_t)bytes[0] |
           (uint64_t)(uint8_t)bytes[len / 2] << (8 * (len / 2)) |
           (uint64_t)(uint8_t)bytes[len - 1] << (8 * (len - 1));
}

static inline uint64_t
bf_key_hash(const BfKeySeed *seed, const char *bytes, size_t len)
{
    uint64_t v[4] = {
        seed->words[0] ^ UINT64_C(0x736f6d6570736575),
        seed->words[1] ^ UINT64_C(0x646f72616e646f6d),
        seed->words[0] ^ UINT64_C(0x6c7967656e657261),
        seed->words[1] ^ UINT64_C(0x7465646279746573),
    };
    uint64_t last = (uint64_t)len << 56;
    size_t at = 0;

    for (; len - at >= 8; at += 8) {
        uint64_t word = 0;

        memcpy(&word, bytes + at, sizeof(word));
        v[3] ^= word;
        bf_key_round(v);
        v[0] ^= word;
    }
    last |= bf_key_rest(bytes + at, len - at);
    v[3] ^= last;
    bf_key_round(v);
    v[0] ^= last;
    v[2] ^= 0xFF;
    for (unsigned i = 0; i < 3; i++) {
        bf_key_round(v);
    }
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}
