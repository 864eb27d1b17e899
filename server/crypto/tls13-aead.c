/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AES-GCM for our own records: that of gnutls, and which library is used.
 *
 * The other one, libipsec-mb (tls13-aead-ipsec-mb.c), wins by far where the
 * processor encrypts four blocks per instruction, and not at all with AVX-512
 * alone (gnutls 3.7.9, libipsec-mb 1.3); so only there is it used unasked.
 */
#include "tls13-private.h"

static int
gnutls_open(const BfTls13Suite *suite, const uint8_t *key, void **ret_aead)
{
    const gnutls_datum_t datum = {(uint8_t *)key, suite->key_bytes};
    gnutls_aead_cipher_hd_t aead = NULL;
    int ret = gnutls_aead_cipher_init(&aead, suite->cipher, &datum);

    if (ret >= 0) {
        *ret_aead = aead;
    }
    return ret;
}

static void
gnutls_close(void *aead)
{
    gnutls_aead_cipher_deinit(aead);
}

static int
gnutls_encrypt(void *aead, const uint8_t *nonce, const uint8_t *header,
               uint8_t *bytes, size_t len)
{
    size_t room = len + BF_TLS13_TAG_BYTES;

    return gnutls_aead_cipher_encrypt(aead, nonce, BF_TLS13_IV_BYTES, header,
                                      BF_TLS13_HEADER_BYTES, BF_TLS13_TAG_BYTES,
                                      bytes, len, bytes, &room);
}

static bool
gnutls_decrypt(void *aead, const uint8_t *nonce, const uint8_t *header,
               const uint8_t *src, uint8_t *dest, size_t len)
{
    size_t room = len;
    int ret = gnutls_aead_cipher_decrypt(
        aead, nonce, BF_TLS13_IV_BYTES, header, BF_TLS13_HEADER_BYTES,
        BF_TLS13_TAG_BYTES, src, len + BF_TLS13_TAG_BYTES, dest, &room);

    return ret >= 0 && room == len;
}

const BfTls13AeadOps bf_tls13_aead_gnutls = {
    .name = "gnutls",
    .open = gnutls_open,
    .close = gnutls_close,
    .encrypt = gnutls_encrypt,
    .decrypt = gnutls_decrypt,
};

const BfTls13AeadOps *
bf_tls13_aead_choose(void)
{
    return bf_tls13_aead_has_fast_ipsec_mb() ? bf_tls13_aead_get_ipsec_mb(NULL)
                                             : &bf_tls13_aead_gnutls;
}
