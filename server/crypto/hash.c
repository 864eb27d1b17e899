/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hashes. One row of kinds[] for each function; whether it is really there is
 * asked of the library, because a system's policy (FIPS) may have taken it out.
 */
#include "crypto/hash.h"

#include <gnutls/crypto.h>
#include <string.h>

#include "core/error.h"
#include "hash-private.h"

#if BF_HAVE_NETTLE
#include <nettle/ripemd160.h>
#endif

struct BfHash {
    BfHashAlg alg;
    gnutls_hash_hd_t gnutls; /* owned; or NULL */
#if BF_HAVE_NETTLE
    struct ripemd160_ctx ripemd160; /* if there is no @gnutls */
#endif
};

static const BfHashKind kinds[BF_HASH_ALG_COUNT] = {
    [BF_HASH_ALG_MD5] = {"md5", 16, GNUTLS_DIG_MD5, GNUTLS_MAC_MD5},
    [BF_HASH_ALG_SHA1] = {"sha1", 20, GNUTLS_DIG_SHA1, GNUTLS_MAC_SHA1},
    [BF_HASH_ALG_SHA224] = {"sha224", 28, GNUTLS_DIG_SHA224, GNUTLS_MAC_SHA224},
    [BF_HASH_ALG_SHA256] = {"sha256", 32, GNUTLS_DIG_SHA256, GNUTLS_MAC_SHA256},
    [BF_HASH_ALG_SHA384] = {"sha384", 48, GNUTLS_DIG_SHA384, GNUTLS_MAC_SHA384},
    [BF_HASH_ALG_SHA512] = {"sha512", 64, GNUTLS_DIG_SHA512, GNUTLS_MAC_SHA512},
    [BF_HASH_ALG_RIPEMD160] = {"ripemd160", 20, GNUTLS_DIG_UNKNOWN,
                               GNUTLS_MAC_UNKNOWN},
};

const BfHashKind *
bf_hash_kind(BfHashAlg alg)
{
    g_assert(alg < BF_HASH_ALG_COUNT);
    return &kinds[alg];
}

void
bf_hash_set_unsupported(BfHashAlg alg, int ret, GError **error)
{
    bf_set_error(error, "Algorithm '%s' not supported: %s", kinds[alg].name,
                 ret == 0 ? "not available in this build, which is without "
                            "nettle"
                          : gnutls_strerror(ret));
}

char *
bf_hash_to_hex(const uint8_t *digest, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    char *text = g_malloc(2 * len + 1);

    for (size_t i = 0; i < len; i++) {
        text[2 * i] = digits[digest[i] >> 4];
        text[2 * i + 1] = digits[digest[i] & 15];
    }
    text[2 * len] = '\0';
    return text;
}

const char *
bf_hash_alg_str(BfHashAlg alg)
{
    return bf_hash_kind(alg)->name;
}

bool
bf_hash_alg_parse(const char *name, BfHashAlg *ret_alg, GError **error)
{
    g_autoptr(GString) known = g_string_new(NULL);

    for (BfHashAlg alg = 0; alg < BF_HASH_ALG_COUNT; alg++) {
        if (g_str_equal(kinds[alg].name, name)) {
            *ret_alg = alg;
            return true;
        }
        g_string_append_printf(known, "%s%s", alg > 0 ? ", " : "",
                               kinds[alg].name);
    }
    bf_set_error(error, "Algorithm '%s' not supported: the hashes are %s", name,
                 known->str);
    return false;
}

bool
bf_hash_supports(BfHashAlg alg)
{
    g_autoptr(BfHash) hash = bf_hash_new(alg, NULL);

    return hash != NULL;
}

size_t
bf_hash_get_size(BfHashAlg alg)
{
    return bf_hash_kind(alg)->size;
}

BfHash *
bf_hash_new(BfHashAlg alg, GError **error)
{
    const BfHashKind *kind = bf_hash_kind(alg);
    BfHash *hash = g_new0(BfHash, 1);
    int ret = 0;

    hash->alg = alg;
    if (kind->digest != GNUTLS_DIG_UNKNOWN) {
        ret = gnutls_hash_init(&hash->gnutls, kind->digest);
        if (ret == 0) {
            return hash;
        }
        hash->gnutls = NULL;
    } else if (BF_HAVE_NETTLE) {
#if BF_HAVE_NETTLE
        ripemd160_init(&hash->ripemd160);
#endif
        return hash;
    }
    bf_hash_set_unsupported(alg, ret, error);
    g_free(hash);
    return NULL;
}

void
bf_hash_update(BfHash *hash, const struct iovec *iov, int niov)
{
    for (int i = 0; i < niov; i++) {
        if (iov[i].iov_len == 0) {
            continue;
        }
        if (hash->gnutls != NULL) {
            int ret =
                gnutls_hash(hash->gnutls, iov[i].iov_base, iov[i].iov_len);

            g_assert(ret == 0); /* it can only fail for a wrong handle */
        } else {
#if BF_HAVE_NETTLE
            ripemd160_update(&hash->ripemd160, iov[i].iov_len, iov[i].iov_base);
#endif
        }
    }
}

void
bf_hash_finish(BfHash *hash, uint8_t *digest)
{
    if (hash->gnutls != NULL) {
        gnutls_hash_output(hash->gnutls, digest); /* and begins anew */
    } else {
#if BF_HAVE_NETTLE
        ripemd160_digest(&hash->ripemd160, RIPEMD160_DIGEST_SIZE, digest);
#endif
    }
}

void
bf_hash_free(BfHash *hash)
{
    if (hash == NULL) {
        return;
    }
    if (hash->gnutls != NULL) {
        gnutls_hash_deinit(hash->gnutls, NULL);
    }
    explicit_bzero(hash, sizeof(*hash));
    g_free(hash);
}

bool
bf_hash_iov(BfHashAlg alg, const struct iovec *iov, int niov, uint8_t *digest,
            GError **error)
{
    g_autoptr(BfHash) hash = bf_hash_new(alg, error);

    if (hash == NULL) {
        return false;
    }
    bf_hash_update(hash, iov, niov);
    bf_hash_finish(hash, digest);
    return true;
}

bool
bf_hash_bytes(BfHashAlg alg, const void *bytes, size_t len, uint8_t *digest,
              GError **error)
{
    struct iovec iov = {(void *)bytes, len};

    return bf_hash_iov(alg, &iov, 1, digest, error);
}

char *
bf_hash_hex(BfHashAlg alg, const struct iovec *iov, int niov, GError **error)
{
    uint8_t digest[BF_HASH_BYTES_MAX];

    return bf_hash_iov(alg, iov, niov, digest, error)
               ? bf_hash_to_hex(digest, kinds[alg].size)
               : NULL;
}

char *
bf_hash_base64(BfHashAlg alg, const struct iovec *iov, int niov, GError **error)
{
    uint8_t digest[BF_HASH_BYTES_MAX];

    return bf_hash_iov(alg, iov, niov, digest, error)
               ? g_base64_encode(digest, kinds[alg].size)
               : NULL;
}
