/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keys of TLS 1.3 (RFC 8446, 7): from gnutls' secrets to a cipher, and from one
 * key to the next.
 *
 * A nonce must never be used twice with a key: it is the IV mixed with the
 * number of the record, so whoever encrypts counts, whatever the result.
 */
#include "tls13-private.h"

#include <endian.h>
#include <string.h>

#define LABEL_PREFIX "tls13 "
/* Length, label with its length, and an empty context with its length. */
#define INFO_MAX_BYTES (2 + 1 + 32 + 1)

static const BfTls13Suite suites[] = {
    {GNUTLS_CIPHER_AES_128_GCM, GNUTLS_MAC_SHA256, 32, 16},
    {GNUTLS_CIPHER_AES_256_GCM, GNUTLS_MAC_SHA384, 48, 32},
};

const BfTls13Suite *
bf_tls13_find_suite(gnutls_session_t tls)
{
    if (gnutls_protocol_get_version(tls) != GNUTLS_TLS1_3) {
        return NULL;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(suites); i++) {
        /* The two enumerations of hashes agree, says their documentation. */
        if (suites[i].cipher == gnutls_cipher_get(tls) &&
            (int)suites[i].hash == (int)gnutls_prf_hash_get(tls)) {
            return &suites[i];
        }
    }
    return NULL;
}

/* HKDF-Expand-Label with an empty context (RFC 8446, 7.1). */
static int
expand_label(const BfTls13Suite *suite, const uint8_t *secret,
             const char *label, uint8_t *dest, size_t len)
{
    g_autofree char *full = g_strconcat(LABEL_PREFIX, label, NULL);
    size_t label_len = strlen(full);
    uint8_t info[INFO_MAX_BYTES] = {0};
    const gnutls_datum_t key = {(uint8_t *)secret, suite->secret_bytes};
    gnutls_datum_t info_datum = {info, 2 + 1 + label_len + 1};

    g_assert(info_datum.size <= sizeof(info));
    info[1] = len;
    info[2] = label_len;
    memcpy(info + 3, full, label_len);
    return gnutls_hkdf_expand(suite->hash, &key, &info_datum, dest, len);
}

int
bf_tls13_keys_derive(BfTls13Keys *keys, const BfTls13Suite *suite, uint8_t *key)
{
    int ret = expand_label(suite, keys->secret, "key", key, suite->key_bytes);

    if (ret >= 0) {
        ret =
            expand_label(suite, keys->secret, "iv", keys->iv, sizeof(keys->iv));
    }
    if (ret < 0) {
        return ret;
    }
    if (keys->aead != NULL) {
        keys->library->close(keys->aead);
        keys->aead = NULL;
    }
    keys->sequence = 0;
    return keys->library->open(suite, key, &keys->aead);
}

static bool
is_equal(const uint8_t *bytes, size_t len, const gnutls_datum_t *other)
{
    return other->size == len && gnutls_memcmp(bytes, other->data, len) == 0;
}

bool
bf_tls13_keys_match(BfTls13Keys *keys, const BfTls13Suite *suite,
                    gnutls_session_t tls, bool read)
{
    uint8_t key[BF_TLS13_KEY_MAX_BYTES];
    gnutls_datum_t their_key;
    gnutls_datum_t their_iv;
    uint8_t sequence[8];
    uint64_t number;
    bool match;

    if (keys->secret_len != suite->secret_bytes ||
        gnutls_record_get_state(tls, read, NULL, &their_iv, &their_key,
                                sequence) < 0) {
        return false;
    }
    match = bf_tls13_keys_derive(keys, suite, key) >= 0 &&
            is_equal(key, suite->key_bytes, &their_key) &&
            is_equal(keys->iv, sizeof(keys->iv), &their_iv);
    explicit_bzero(key, sizeof(key));
    memcpy(&number, sequence, sizeof(number));
    keys->sequence = be64toh(number);
    return match;
}

int
bf_tls13_keys_next(BfTls13Keys *keys, const BfTls13Suite *suite)
{
    uint8_t secret[BF_TLS13_SECRET_MAX_BYTES];
    uint8_t key[BF_TLS13_KEY_MAX_BYTES];
    int ret = expand_label(suite, keys->secret, "traffic upd", secret,
                           suite->secret_bytes);

    if (ret >= 0) {
        memcpy(keys->secret, secret, suite->secret_bytes);
        ret = bf_tls13_keys_derive(keys, suite, key);
    }
    explicit_bzero(secret, sizeof(secret));
    explicit_bzero(key, sizeof(key));
    return ret;
}

void
bf_tls13_keys_clear(BfTls13Keys *keys)
{
    if (keys->aead != NULL) {
        keys->library->close(keys->aead);
    }
    explicit_bzero(keys, sizeof(*keys));
}

/* RFC 8446, 5.3 */
static void
next_nonce(BfTls13Keys *keys, uint8_t *nonce)
{
    uint64_t tail;

    /* Not after 2^64 records, and the key changes long before. */
    g_assert(keys->sequence != UINT64_MAX);
    memcpy(nonce, keys->iv, BF_TLS13_IV_BYTES);
    memcpy(&tail, nonce + BF_TLS13_IV_BYTES - sizeof(tail), sizeof(tail));
    tail ^= htobe64(keys->sequence++);
    memcpy(nonce + BF_TLS13_IV_BYTES - sizeof(tail), &tail, sizeof(tail));
}

int
bf_tls13_keys_encrypt(BfTls13Keys *keys, const uint8_t *header, uint8_t *bytes,
                      size_t len)
{
    uint8_t nonce[BF_TLS13_IV_BYTES];

    next_nonce(keys, nonce);
    return keys->library->encrypt(keys->aead, nonce, header, bytes, len);
}

bool
bf_tls13_keys_decrypt(BfTls13Keys *keys, const uint8_t *header,
                      const uint8_t *src, uint8_t *dest, size_t len)
{
    uint8_t nonce[BF_TLS13_IV_BYTES];

    next_nonce(keys, nonce);
    if (!keys->library->decrypt(keys->aead, nonce, header, src, dest, len)) {
        /* It was decrypted before the tag was known to be wrong. */
        memset(dest, 0, len);
        return false;
    }
    return true;
}
