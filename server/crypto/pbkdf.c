/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PBKDF2 and how many rounds of it make a second.
 *
 * Time is that of the thread's processor, so that a busy machine does not give
 * weak keys.
 */
#include "crypto/pbkdf.h"

#include <gnutls/crypto.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "core/error.h"
#include "core/util.h"
#include "hash-private.h"

#define FIRST_ITERATIONS (UINT64_C(1) << 15)
#define MEASURABLE_MS 100
#define ENOUGH_MS 500
#define GOAL_MS 1000

bool
bf_pbkdf2_supports(BfHashAlg hash)
{
    return bf_hmac_supports(hash);
}

/* One block of the key: for a hash that GnuTLS does not have. */
static void
derive_block(BfHmac *hmac, const BfPbkdfParams *params, uint64_t iterations,
             uint32_t number, uint8_t *block)
{
    size_t size = bf_hash_get_size(params->hash);
    uint8_t round[BF_HASH_BYTES_MAX];
    uint8_t be[4];
    const struct iovec first[] = {{(void *)params->salt, params->salt_len},
                                  {be, sizeof(be)}};
    const struct iovec next = {round, size};

    bf_put_be32(be, number);
    bf_hmac_update(hmac, first, 2);
    bf_hmac_finish(hmac, round);
    memcpy(block, round, size);
    while (--iterations > 0) {
        bf_hmac_update(hmac, &next, 1);
        bf_hmac_finish(hmac, round);
        for (size_t i = 0; i < size; i++) {
            block[i] ^= round[i];
        }
    }
    explicit_bzero(round, sizeof(round));
}

static bool
derive_by_hmac(const BfPbkdfParams *params, uint64_t iterations, uint8_t *key,
               size_t key_len, GError **error)
{
    g_autoptr(BfHmac) hmac = bf_hmac_new(params->hash, params->password,
                                         params->password_len, error);
    size_t size = bf_hash_get_size(params->hash);
    uint8_t block[BF_HASH_BYTES_MAX];
    uint32_t number = 1;

    if (hmac == NULL) {
        return false;
    }
    for (size_t at = 0; at < key_len; at += size) {
        derive_block(hmac, params, iterations, number++, block);
        memcpy(key + at, block, MIN(size, key_len - at));
    }
    explicit_bzero(block, sizeof(block));
    return true;
}

bool
bf_pbkdf2(const BfPbkdfParams *params, uint64_t iterations, uint8_t *key,
          size_t key_len, GError **error)
{
    const BfHashKind *kind = bf_hash_kind(params->hash);
    gnutls_datum_t password = {(void *)params->password,
                               (unsigned)params->password_len};
    gnutls_datum_t salt = {(void *)params->salt, (unsigned)params->salt_len};
    int ret = 0;

    g_assert(key_len > 0);
    if (iterations == 0 || iterations > UINT32_MAX) {
        bf_set_error(error, "PBKDF2 takes 1 to %u iterations, not %" PRIu64,
                     UINT32_MAX, iterations);
        return false;
    }
    if (params->password_len > INT32_MAX || params->salt_len > INT32_MAX ||
        key_len > INT32_MAX) {
        bf_set_error(error, "password, salt or key is too long for PBKDF2");
        return false;
    }
    if (kind->mac == GNUTLS_MAC_UNKNOWN) {
        return derive_by_hmac(params, iterations, key, key_len, error);
    }
    ret = gnutls_pbkdf2(kind->mac, &password, &salt, (unsigned)iterations, key,
                        key_len);
    if (ret < 0) {
        bf_hash_set_unsupported(params->hash, ret, error);
    }
    return ret == 0;
}

bool
bf_pbkdf2_calibrate(bool (*measure)(uint64_t iterations, void *opaque,
                                    uint64_t *ret_cpu_ms, GError **error),
                    void *opaque, uint64_t *ret_iterations, GError **error)
{
    uint64_t iterations = FIRST_ITERATIONS;
    uint64_t ms = 0;

    for (;;) {
        if (!measure(iterations, opaque, &ms, error)) {
            return false;
        }
        if (ms > ENOUGH_MS) {
            break;
        }
        if (ms < MEASURABLE_MS) {
            iterations *= 10;
        } else {
            /* At least 100 ms in at most 2^32 rounds: this cannot overflow. */
            iterations = iterations * GOAL_MS / ms;
        }
        if (iterations > UINT32_MAX) {
            bf_set_error(error, "PBKDF2 is too fast here to be measured");
            return false;
        }
    }
    *ret_iterations = MAX(iterations * GOAL_MS / ms, 1);
    return true;
}

typedef struct Trial {
    const BfPbkdfParams *params;
    uint8_t *key;
    size_t key_len;
} Trial;

static uint64_t
thread_cpu_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / BF_NS_PER_MS;
}

static bool
measure_trial(uint64_t iterations, void *opaque, uint64_t *ret_cpu_ms,
              GError **error)
{
    const Trial *trial = opaque;
    uint64_t start = thread_cpu_ms();

    if (!bf_pbkdf2(trial->params, iterations, trial->key, trial->key_len,
                   error)) {
        return false;
    }
    *ret_cpu_ms = thread_cpu_ms() - start;
    return true;
}

bool
bf_pbkdf2_count_iterations(const BfPbkdfParams *params, size_t key_len,
                           uint64_t *ret_iterations, GError **error)
{
    g_autofree uint8_t *key = g_malloc(key_len);
    Trial trial = {params, key, key_len};
    bool ok = bf_pbkdf2_calibrate(measure_trial, &trial, ret_iterations, error);

    explicit_bzero(key, key_len);
    return ok;
}
