/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keys of TLS 1.3, and each library that has their cipher: by published
 * records, and one against the other.
 */
#include "tls-pair.h"

#include <string.h>
#include <time.h>

#include "hex.h"
#include "server/crypto/tls13-private.h"

#define TYPE_DATA 23

static const BfTls13Suite aes128 = {GNUTLS_CIPHER_AES_128_GCM,
                                    GNUTLS_MAC_SHA256, 32, 16};
static const BfTls13Suite aes256 = {GNUTLS_CIPHER_AES_256_GCM,
                                    GNUTLS_MAC_SHA384, 48, 32};

/* The one that is tested. */
static const BfTls13AeadOps *library;

/* The records of RFC 8448, 3, that are protected by traffic secrets. */
static const struct {
    const char *secret;
    const char *key;
    const char *iv;
    guint64 sequence;
    const char *record;
    const char *inner; /* with the content type */
} published[] = {
#define CLIENT_KEYS                                                            \
    "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",        \
        "17422dda596ed5d9acd890e3c63f5051", "5b78923dee08579033e523d9"
#define SERVER_KEYS                                                            \
    "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",        \
        "9f02283b6c9c07efc26bb9f2ac92e356", "cf782b88dd83549aadf1e984"
#define DATA                                                                   \
    "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223" \
    "2425262728292a2b2c2d2e2f303117"
    {CLIENT_KEYS, 0,
     "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8"
     "a5b46b395bd54a9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4",
     DATA},
    {SERVER_KEYS, 1,
     "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf9"
     "7d90e6dffc602dcb501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d",
     DATA},
    {CLIENT_KEYS, 1, "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3",
     "010015"},
    {SERVER_KEYS, 2, "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9",
     "010015"},
};

static void
test_published_records(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(published); i++) {
        g_autoptr(GBytes) secret = bf_test_hex(published[i].secret);
        g_autoptr(GBytes) key = bf_test_hex(published[i].key);
        g_autoptr(GBytes) iv = bf_test_hex(published[i].iv);
        g_autoptr(GBytes) record = bf_test_hex(published[i].record);
        g_autoptr(GBytes) inner = bf_test_hex(published[i].inner);
        const guint8 *header = bf_test_data(record);
        const size_t len = g_bytes_get_size(inner);
        BfTls13Keys keys = {.secret_len = aes128.secret_bytes,
                            .library = library};
        guint8 raw_key[BF_TLS13_KEY_MAX_BYTES];
        guint8 buf[128];

        memcpy(keys.secret, bf_test_data(secret), keys.secret_len);
        g_assert_cmpint(bf_tls13_keys_derive(&keys, &aes128, raw_key), >=, 0);
        g_assert_cmpmem(raw_key, aes128.key_bytes, bf_test_data(key), 16);
        g_assert_cmpmem(keys.iv, sizeof(keys.iv), bf_test_data(iv), 12);
        keys.sequence = published[i].sequence;
        g_assert_true(bf_tls13_keys_decrypt(
            &keys, header, header + BF_TLS13_HEADER_BYTES, buf, len));
        g_assert_cmpmem(buf, len, bf_test_data(inner), len);
        keys.sequence = published[i].sequence;
        g_assert_cmpint(bf_tls13_keys_encrypt(&keys, header, buf, len), >=, 0);
        g_assert_cmpmem(buf, len + BF_TLS13_TAG_BYTES,
                        header + BF_TLS13_HEADER_BYTES,
                        g_bytes_get_size(record) - BF_TLS13_HEADER_BYTES);
        bf_tls13_keys_clear(&keys);
    }
}

/*
 * From NIST's "The Galois/Counter Mode of Operation (GCM)", appendix B, test
 * cases 1, 2, 13 and 14: keys, IVs and data are zeroes, and nothing else is
 * authenticated. Here 5 bytes are, so only the ciphertext is theirs.
 */
static void
test_published_blocks(void)
{
    static const struct {
        const BfTls13Suite *suite;
        const char *block;
    } vectors[] = {
        {&aes128, "0388dace60b6a392f328c2b971b2fe78"},
        {&aes256, "cea7403d4d606b6e074ec5d3baf39d18"},
    };
    static const guint8 zeroes[BF_TLS13_KEY_MAX_BYTES];

    for (size_t i = 0; i < G_N_ELEMENTS(vectors); i++) {
        g_autoptr(GBytes) block = bf_test_hex(vectors[i].block);
        guint8 bytes[16 + BF_TLS13_TAG_BYTES] = {0};
        void *aead;

        g_assert_cmpint(library->open(vectors[i].suite, zeroes, &aead), ==, 0);
        g_assert_cmpint(library->encrypt(aead, zeroes, zeroes, bytes, 16), ==,
                        0);
        g_assert_cmpmem(bytes, 16, bf_test_data(block), 16);
        library->close(aead);
    }
}

/* One message by both libraries, which each must open what the other made. */
static void
check_same(void *ours, void *theirs, size_t len)
{
    /* Not aligned, and nothing is written beside what it is for. */
    g_autofree guint8 *clear = bf_test_random_bytes(len + 1);
    g_autofree guint8 *bytes = g_malloc0(len + 64);
    g_autofree guint8 *other = g_malloc0(len + 64);
    g_autofree guint8 *dest = g_malloc0(len + 64);
    g_autofree guint8 *nonce = bf_test_random_bytes(BF_TLS13_IV_BYTES);
    g_autofree guint8 *header = bf_test_random_bytes(BF_TLS13_HEADER_BYTES);
    size_t full = len + BF_TLS13_TAG_BYTES;

    memcpy(bytes + 1, clear, len);
    memcpy(other + 3, clear, len);
    g_assert_cmpint(library->encrypt(ours, nonce, header, bytes + 1, len), ==,
                    0);
    g_assert_cmpint(
        bf_tls13_aead_gnutls.encrypt(theirs, nonce, header, other + 3, len), ==,
        0);
    g_assert_cmpmem(bytes + 1, full, other + 3, full);
    g_assert_true(bytes[0] == 0 && bytes[full + 1] == 0);
    memset(dest, 0xaa, len + 64);
    g_assert_true(
        library->decrypt(ours, nonce, header, other + 3, dest + 5, len));
    g_assert_cmpmem(dest + 5, len, clear, len);
    g_assert_true(dest[4] == 0xaa && dest[len + 5] == 0xaa);
    g_assert_cmpmem(bytes + 1, full, other + 3, full);
    /* Any bit of the tag, of the header, of the nonce or of the data counts. */
    for (size_t bit = 0; bit < 8 * (size_t)BF_TLS13_TAG_BYTES; bit++) {
        other[3 + len + bit / 8] ^= 1 << bit % 8;
        g_assert_false(
            library->decrypt(ours, nonce, header, other + 3, dest, len));
        other[3 + len + bit / 8] ^= 1 << bit % 8;
    }
    header[4] ^= 1;
    g_assert_false(library->decrypt(ours, nonce, header, other + 3, dest, len));
    header[4] ^= 1;
    nonce[11] ^= 1;
    g_assert_false(library->decrypt(ours, nonce, header, other + 3, dest, len));
    nonce[11] ^= 1;
    if (len > 0) {
        other[3 + len - 1] ^= 0x80;
        g_assert_false(
            library->decrypt(ours, nonce, header, other + 3, dest, len));
    }
    g_assert_true(
        library->decrypt(ours, nonce, header, bytes + 1, bytes + 1, len));
    g_assert_cmpmem(bytes + 1, len, clear, len);
}

static void
test_libraries_agree(void)
{
    static const BfTls13Suite *const suites[] = {&aes128, &aes256};
    static const size_t large[] = {255,  256,   1024,  4095,
                                   4124, 16383, 16384, 16385};

    for (size_t i = 0; i < G_N_ELEMENTS(suites); i++) {
        g_autofree guint8 *key = bf_test_random_bytes(BF_TLS13_KEY_MAX_BYTES);
        void *ours;
        void *theirs;

        g_assert_cmpint(library->open(suites[i], key, &ours), ==, 0);
        g_assert_cmpint(bf_tls13_aead_gnutls.open(suites[i], key, &theirs), ==,
                        0);
        for (size_t len = 0; len <= 64; len++) {
            check_same(ours, theirs, len);
        }
        for (size_t j = 0; j < G_N_ELEMENTS(large); j++) {
            check_same(ours, theirs, large[j]);
        }
        library->close(ours);
        bf_tls13_aead_gnutls.close(theirs);
    }
}

/* Into a place of its own and where it is: no data of a wrong record is left.
 */
static void
test_wrong_tag_leaves_zeroes(void)
{
    static const size_t lens[] = {1, 15, 16, 17, 64, 300, 16385};

    for (size_t i = 0; i < 2 * G_N_ELEMENTS(lens); i++) {
        static const guint8 header[BF_TLS13_HEADER_BYTES] = {TYPE_DATA, 3, 3};
        const size_t len = lens[i / 2];
        g_autofree guint8 *bytes = g_malloc(len + BF_TLS13_TAG_BYTES);
        g_autofree guint8 *apart = g_malloc(len);
        guint8 *dest = i % 2 == 0 ? bytes : apart;
        BfTls13Keys keys = {.secret_len = 48, .library = library};
        guint8 raw_key[BF_TLS13_KEY_MAX_BYTES];

        g_assert_cmpint(bf_tls13_keys_derive(&keys, &aes256, raw_key), >=, 0);
        memset(bytes, 'x', len);
        g_assert_cmpint(bf_tls13_keys_encrypt(&keys, header, bytes, len), >=,
                        0);
        bytes[len] ^= 1;
        keys.sequence = 0;
        g_assert_false(bf_tls13_keys_decrypt(&keys, header, bytes, dest, len));
        g_assert_true(dest[0] == 0 && memcmp(dest, dest + 1, len - 1) == 0);
        bf_tls13_keys_clear(&keys);
    }
}

typedef struct Case {
    const BfTls13AeadOps *library;
    void (*func)(void);
} Case;

static void
run_case(gconstpointer data)
{
    const Case *self = data;

    library = self->library;
    self->func();
}

/* With each library that is there. */
static void
add_case(const char *path, void (*func)(void))
{
    const BfTls13AeadOps *const libraries[] = {
        &bf_tls13_aead_gnutls, bf_tls13_aead_get_ipsec_mb(NULL)};

    for (size_t i = 0; i < G_N_ELEMENTS(libraries); i++) {
        if (libraries[i] != NULL) {
            g_autofree char *full =
                g_strdup_printf("%s/%s", path, libraries[i]->name);
            const Case one = {libraries[i], func};

            g_test_add_data_func_full(full, g_memdup2(&one, sizeof(one)),
                                      run_case, g_free);
        }
    }
}

/* What is chosen is there, and what is not there says why. */
static void
test_choice_is_there(void)
{
    g_autoptr(GError) error = NULL;
    const BfTls13AeadOps *ipsec_mb = bf_tls13_aead_get_ipsec_mb(&error);

    g_assert_true((ipsec_mb == NULL) == (error != NULL));
    g_assert_true(ipsec_mb != NULL || !bf_tls13_aead_has_fast_ipsec_mb());
    g_assert_true(
        bf_tls13_aead_choose() ==
        (bf_tls13_aead_has_fast_ipsec_mb() ? ipsec_mb : &bf_tls13_aead_gnutls));
}

/* Run with -m perf: processor time of full records, in place. */
static void
test_speed(void)
{
    enum { ROUNDS = 1000, RECORDS = 64, LEN = 16385 };
    static const BfTls13Suite *const suites[] = {&aes128, &aes256};
    static const guint8 header[BF_TLS13_HEADER_BYTES];
    g_autofree guint8 *bytes = bf_test_random_bytes(LEN + BF_TLS13_TAG_BYTES);

    for (size_t i = 0; i < G_N_ELEMENTS(suites); i++) {
        double seconds[2] = {0, 0};
        void *aead;

        g_assert_cmpint(library->open(suites[i], bytes, &aead), ==, 0);
        for (int j = 0; j < 2 * ROUNDS; j++) {
            clock_t start = clock();

            for (int k = 0; k < RECORDS && j % 2 == 0; k++) {
                library->encrypt(aead, bytes, header, bytes, LEN);
            }
            for (int k = 0; k < RECORDS && j % 2 == 1; k++) {
                /* A wrong tag takes as long. */
                library->decrypt(aead, bytes, header, bytes, bytes, LEN);
            }
            seconds[j % 2] += (double)(clock() - start) / CLOCKS_PER_SEC;
        }
        library->close(aead);
        g_test_minimized_result(seconds[0], "%zu bits: encrypt %.1f us/MiB",
                                suites[i]->key_bytes * 8,
                                seconds[0] / ROUNDS * 1e6);
        g_test_minimized_result(seconds[1], "%zu bits: decrypt %.1f us/MiB",
                                suites[i]->key_bytes * 8,
                                seconds[1] / ROUNDS * 1e6);
    }
}

#define ADD(path, name) add_case("/crypto/tls13-aead/" path, test_##name)

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("published-records", published_records);
    ADD("published-blocks", published_blocks);
    ADD("libraries-agree", libraries_agree);
    ADD("wrong-tag-leaves-zeroes", wrong_tag_leaves_zeroes);
    if (g_test_perf()) {
        ADD("speed", speed);
    }
    g_test_add_func("/crypto/tls13-aead/choice-is-there", test_choice_is_there);
    return g_test_run();
}
