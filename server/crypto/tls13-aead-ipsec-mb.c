/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AES-GCM of libipsec-mb for our own records.
 *
 * The library's manager is only a table of functions to us, so one serves all
 * threads; its job queues and error number are not used. It knows nothing about
 * wiping keys, nor does it compare tags: both is done here.
 */
#include "tls13-private.h"

#include <pthread.h>
#include <string.h>

#if BF_HAVE_IPSEC_MB
/* Without it a key schedule is not aligned as the library expects. */
#define LINUX
#define NO_COMPAT_IMB_API_053
#include <intel-ipsec-mb.h>
#endif

#include "core/error.h"

#if BF_HAVE_IPSEC_MB

/* What its AES-GCM needs at all. */
#define NEEDED_FEATURES (IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ)

/* A key, and the functions for its size. */
typedef struct Aead {
    struct gcm_key_data key;
    aes_gcm_enc_dec_t encrypt;
    aes_gcm_enc_dec_t decrypt;
} Aead;

static pthread_once_t ipsec_mb_once = PTHREAD_ONCE_INIT;
static IMB_MGR *ipsec_mb_manager;

static void
start_library(void)
{
    ipsec_mb_manager = alloc_mb_mgr(0);
    if (ipsec_mb_manager != NULL) {
        init_mb_mgr_auto(ipsec_mb_manager, NULL); /* runs its self test */
    }
}

/* NULL if it has no memory. */
static const IMB_MGR *
get_manager(void)
{
    pthread_once(&ipsec_mb_once, start_library);
    return ipsec_mb_manager;
}

static int
ipsec_mb_open(const BfTls13Suite *suite, const uint8_t *key, void **ret_aead)
{
    const IMB_MGR *manager = get_manager();
    Aead *self = g_aligned_alloc0(1, sizeof(*self), G_ALIGNOF(Aead));

    if (suite->cipher == GNUTLS_CIPHER_AES_256_GCM) {
        IMB_AES256_GCM_PRE(manager, key, &self->key);
        self->encrypt = manager->gcm256_enc;
        self->decrypt = manager->gcm256_dec;
    } else {
        g_assert(suite->cipher == GNUTLS_CIPHER_AES_128_GCM);
        IMB_AES128_GCM_PRE(manager, key, &self->key);
        self->encrypt = manager->gcm128_enc;
        self->decrypt = manager->gcm128_dec;
    }
    *ret_aead = self;
    return 0;
}

static void
ipsec_mb_close(void *aead)
{
    explicit_bzero(aead, sizeof(Aead));
    g_aligned_free(aead);
}

static int
ipsec_mb_encrypt(void *aead, const uint8_t *nonce, const uint8_t *header,
                 uint8_t *bytes, size_t len)
{
    const Aead *self = aead;
    struct gcm_context_data context;

    self->encrypt(&self->key, &context, bytes, bytes, len, nonce, header,
                  BF_TLS13_HEADER_BYTES, bytes + len, BF_TLS13_TAG_BYTES);
    explicit_bzero(&context, sizeof(context));
    return 0;
}

static bool
ipsec_mb_decrypt(void *aead, const uint8_t *nonce, const uint8_t *header,
                 const uint8_t *src, uint8_t *dest, size_t len)
{
    const Aead *self = aead;
    struct gcm_context_data context;
    uint8_t tag[BF_TLS13_TAG_BYTES];
    bool genuine;

    self->decrypt(&self->key, &context, dest, src, len, nonce, header,
                  BF_TLS13_HEADER_BYTES, tag, sizeof(tag));
    /* In constant time. @dest ends in front of the tag, also in place. */
    genuine = gnutls_memcmp(tag, src + len, sizeof(tag)) == 0;
    explicit_bzero(&context, sizeof(context));
    /* The right tag of what the peer has made up is a secret. */
    explicit_bzero(tag, sizeof(tag));
    return genuine;
}

static const BfTls13AeadOps ipsec_mb_ops = {
    .name = "ipsec-mb",
    .open = ipsec_mb_open,
    .close = ipsec_mb_close,
    .encrypt = ipsec_mb_encrypt,
    .decrypt = ipsec_mb_decrypt,
};

const BfTls13AeadOps *
bf_tls13_aead_get_ipsec_mb(GError **error)
{
    const IMB_MGR *manager = get_manager();

    if (manager == NULL) {
        bf_set_error(error, "libipsec-mb has not enough memory");
    } else if ((manager->features & NEEDED_FEATURES) != NEEDED_FEATURES ||
               (manager->features & IMB_FEATURE_AESNI_EMU) != 0) {
        bf_set_error(error, "this processor lacks AES-NI or PCLMULQDQ, which "
                            "libipsec-mb needs");
    } else if ((manager->features & IMB_FEATURE_SELF_TEST_PASS) == 0) {
        bf_set_error(error, "the self test of libipsec-mb has failed");
    } else {
        return &ipsec_mb_ops;
    }
    return NULL;
}

bool
bf_tls13_aead_has_fast_ipsec_mb(void)
{
    const uint64_t fast = IMB_CPUFLAGS_AVX512_T2; /* with VAES */

    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") &&
           bf_tls13_aead_get_ipsec_mb(NULL) != NULL &&
           (get_manager()->features & fast) == fast;
}

#else

const BfTls13AeadOps *
bf_tls13_aead_get_ipsec_mb(GError **error)
{
    bf_set_error(error, "this program was built without libipsec-mb");
    return NULL;
}

bool
bf_tls13_aead_has_fast_ipsec_mb(void)
{
    return false;
}

#endif
