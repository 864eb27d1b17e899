/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keyed hashes (RFC 2104). The rows of hash.c say who computes what.
 */
#include <gnutls/crypto.h>
#include <string.h>

#include "crypto/hash.h"
#include "hash-private.h"

#if BF_HAVE_NETTLE
#include <nettle/hmac.h>
#endif

struct BfHmac {
    BfHashAlg alg;
    gnutls_hmac_hd_t gnutls; /* owned; or NULL */
#if BF_HAVE_NETTLE
    struct hmac_ripemd160_ctx ripemd160; /* if there is no @gnutls */
#endif
};

BfHmac *
bf_hmac_new(BfHashAlg alg, const void *key, size_t key_len, GError **error)
{
    const BfHashKind *kind = bf_hash_kind(alg);
    BfHmac *hmac = g_new0(BfHmac, 1);
    const void *start = key_len > 0 ? key : "";
    int ret = 0;

    hmac->alg = alg;
    if (kind->mac != GNUTLS_MAC_UNKNOWN) {
        ret = gnutls_hmac_init(&hmac->gnutls, kind->mac, start, key_len);
        if (ret == 0) {
            return hmac;
        }
        hmac->gnutls = NULL;
    } else if (BF_HAVE_NETTLE) {
#if BF_HAVE_NETTLE
        hmac_ripemd160_set_key(&hmac->ripemd160, key_len, start);
#endif
        return hmac;
    }
    bf_hash_set_unsupported(alg, ret, error);
    g_free(hmac);
    return NULL;
}

bool
bf_hmac_supports(BfHashAlg alg)
{
    g_autoptr(BfHmac) hmac = bf_hmac_new(alg, "0123456789abcdef", 16, NULL);

    return hmac != NULL;
}

void
bf_hmac_update(BfHmac *hmac, const struct iovec *iov, int niov)
{
    for (int i = 0; i < niov; i++) {
        if (iov[i].iov_len == 0) {
            continue;
        }
        if (hmac->gnutls != NULL) {
            int ret =
                gnutls_hmac(hmac->gnutls, iov[i].iov_base, iov[i].iov_len);

            g_assert(ret == 0); /* it can only fail for a wrong handle */
        } else {
#if BF_HAVE_NETTLE
            hmac_ripemd160_update(&hmac->ripemd160, iov[i].iov_len,
                                  iov[i].iov_base);
#endif
        }
    }
}

void
bf_hmac_finish(BfHmac *hmac, uint8_t *digest)
{
    if (hmac->gnutls != NULL) {
        gnutls_hmac_output(hmac->gnutls, digest); /* and begins anew */
    } else {
#if BF_HAVE_NETTLE
        hmac_ripemd160_digest(&hmac->ripemd160, RIPEMD160_DIGEST_SIZE, digest);
#endif
    }
}

void
bf_hmac_free(BfHmac *hmac)
{
    if (hmac == NULL) {
        return;
    }
    if (hmac->gnutls != NULL) {
        gnutls_hmac_deinit(hmac->gnutls, NULL);
    }
    explicit_bzero(hmac, sizeof(*hmac));
    g_free(hmac);
}

bool
bf_hmac_iov(BfHashAlg alg, const void *key, size_t key_len,
            const struct iovec *iov, int niov, uint8_t *digest, GError **error)
{
    g_autoptr(BfHmac) hmac = bf_hmac_new(alg, key, key_len, error);

    if (hmac == NULL) {
        return false;
    }
    bf_hmac_update(hmac, iov, niov);
    bf_hmac_finish(hmac, digest);
    return true;
}

char *
bf_hmac_hex(BfHashAlg alg, const void *key, size_t key_len,
            const struct iovec *iov, int niov, GError **error)
{
    uint8_t digest[BF_HASH_BYTES_MAX];

    return bf_hmac_iov(alg, key, key_len, iov, niov, digest, error)
               ? bf_hash_to_hex(digest, bf_hash_get_size(alg))
               : NULL;
}

char *
bf_hmac_base64(BfHashAlg alg, const void *key, size_t key_len,
               const struct iovec *iov, int niov, GError **error)
{
    uint8_t digest[BF_HASH_BYTES_MAX];

    return bf_hmac_iov(alg, key, key_len, iov, niov, digest, error)
               ? g_base64_encode(digest, bf_hash_get_size(alg))
               : NULL;
}
