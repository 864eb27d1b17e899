/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The anti-forensic split of LUKS1. The stripes but the last are random; the
 * last is the key xor what the others diffuse to.
 */
#include "crypto/afsplit.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>

#include "core/error.h"
#include "core/util.h"

static void
xor_into(uint8_t *target, const uint8_t *other, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        target[i] ^= other[i];
    }
}

/* Each piece of a digest's size becomes the hash of its number and itself. */
static void
diffuse(BfHash *hash, size_t digest_len, uint8_t *block, size_t len)
{
    uint8_t digest[BF_HASH_BYTES_MAX];
    uint32_t number = 0;

    for (size_t at = 0; at < len; at += digest_len) {
        size_t n = MIN(digest_len, len - at);
        uint8_t be[4];
        const struct iovec iov[] = {{be, sizeof(be)}, {block + at, n}};

        bf_put_be32(be, number++);
        bf_hash_update(hash, iov, 2);
        bf_hash_finish(hash, digest);
        memcpy(block + at, digest, n);
    }
    explicit_bzero(digest, sizeof(digest));
}

/* Diffuses all stripes but the last into @block, which begins as zeroes. */
static void
diffuse_stripes(BfHash *hash, size_t digest_len, const uint8_t *split,
                size_t key_len, uint32_t stripes, uint8_t *block)
{
    memset(block, 0, key_len);
    for (uint32_t i = 0; i + 1 < stripes; i++) {
        xor_into(block, split + (size_t)i * key_len, key_len);
        diffuse(hash, digest_len, block, key_len);
    }
}

bool
bf_afsplit_encode(BfHashAlg hash, const uint8_t *key, size_t key_len,
                  uint32_t stripes, uint8_t *split, GError **error)
{
    g_autoptr(BfHash) state = bf_hash_new(hash, error);
    size_t random_len = (size_t)(stripes - 1) * key_len;
    uint8_t *last = split + random_len;
    int ret = 0;

    g_assert(key_len > 0 && stripes > 0);
    if (state == NULL) {
        return false;
    }
    if (random_len > 0) {
        ret = gnutls_rnd(GNUTLS_RND_RANDOM, split, random_len);
    }
    if (ret < 0) {
        bf_set_error(error, "cannot get random bytes: %s",
                     gnutls_strerror(ret));
        return false;
    }
    diffuse_stripes(state, bf_hash_get_size(hash), split, key_len, stripes,
                    last);
    xor_into(last, key, key_len);
    return true;
}

bool
bf_afsplit_decode(BfHashAlg hash, const uint8_t *split, size_t key_len,
                  uint32_t stripes, uint8_t *key, GError **error)
{
    g_autoptr(BfHash) state = bf_hash_new(hash, error);

    g_assert(key_len > 0 && stripes > 0);
    if (state == NULL) {
        return false;
    }
    diffuse_stripes(state, bf_hash_get_size(hash), split, key_len, stripes,
                    key);
    xor_into(key, split + (size_t)(stripes - 1) * key_len, key_len);
    return true;
}
