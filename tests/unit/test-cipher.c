/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AES against NIST SP 800-38A (ECB, CBC, CTR), IEEE 1619 (XTS with 128 and 256
 * bits; the one with 192 bits is made of ECB by the definition of XTS) and the
 * vectors of the GCM specification.
 */
#include "crypto/cipher.h"

#include <string.h>

#include "core/error.h"
#include "hex.h"

static const char sp800_plain[] =
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710";

static const struct {
    BfCipherAlg alg;
    BfCipherMode mode;
    const char *key;
    const char *iv; /* NULL in ECB */
    const char *plain;
    const char *encrypted;
} vectors[] = {
    {BF_CIPHER_ALG_AES_128, BF_CIPHER_MODE_ECB,
     "2b7e151628aed2a6abf7158809cf4f3c", NULL, sp800_plain,
     "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf"
     "43b1cd7f598ece23881b00e3ed0306887b0c785e27e8ad3f8223207104725dd4"},
    {BF_CIPHER_ALG_AES_192, BF_CIPHER_MODE_ECB,
     "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b", NULL, sp800_plain,
     "bd334f1d6e45f25ff712a214571fa5cc974104846d0ad3ad7734ecb3ecee4eef"
     "ef7afd2270e2e60adce0ba2face6444e9a4b41ba738d6c72fb16691603c18e0e"},
    {BF_CIPHER_ALG_AES_256, BF_CIPHER_MODE_ECB,
     "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4", NULL,
     sp800_plain,
     "f3eed1bdb5d2a03c064b5a7e3db181f8591ccb10d410ed26dc5ba74a31362870"
     "b6ed21b99ca6f4f9f153e7b1beafed1d23304b7a39f9f3ff067d8d8f9e24ecc7"},
    {BF_CIPHER_ALG_AES_128, BF_CIPHER_MODE_CBC,
     "2b7e151628aed2a6abf7158809cf4f3c", "000102030405060708090a0b0c0d0e0f",
     sp800_plain,
     "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2"
     "73bed6b8e3c1743b7116e69e222295163ff1caa1681fac09120eca307586e1a7"},
    {BF_CIPHER_ALG_AES_192, BF_CIPHER_MODE_CBC,
     "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
     "000102030405060708090a0b0c0d0e0f", sp800_plain,
     "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a"
     "571b242012fb7ae07fa9baac3df102e008b0e27988598881d920a9e64f5615cd"},
    {BF_CIPHER_ALG_AES_256, BF_CIPHER_MODE_CBC,
     "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
     "000102030405060708090a0b0c0d0e0f", sp800_plain,
     "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
     "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b"},
    {BF_CIPHER_ALG_AES_128, BF_CIPHER_MODE_CTR,
     "2b7e151628aed2a6abf7158809cf4f3c", "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
     sp800_plain,
     "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff"
     "5ae4df3edbd5d35e5b4f09020db03eab1e031dda2fbe03d1792170a0f3009cee"},
    {BF_CIPHER_ALG_AES_192, BF_CIPHER_MODE_CTR,
     "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
     "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", sp800_plain,
     "1abc932417521ca24f2b0459fe7e6e0b090339ec0aa6faefd5ccc2c6f4ce8e94"
     "1e36b26bd1ebc670d1bd1d665620abf74f78a7f6d29809585a97daec58c6b050"},
    {BF_CIPHER_ALG_AES_256, BF_CIPHER_MODE_CTR,
     "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
     "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", sp800_plain,
     "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
     "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6"},
    {BF_CIPHER_ALG_AES_128, BF_CIPHER_MODE_XTS,
     "0000000000000000000000000000000000000000000000000000000000000000",
     "00000000000000000000000000000000",
     "0000000000000000000000000000000000000000000000000000000000000000",
     "917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e"},
    {BF_CIPHER_ALG_AES_128, BF_CIPHER_MODE_XTS,
     "1111111111111111111111111111111122222222222222222222222222222222",
     "33333333330000000000000000000000",
     "4444444444444444444444444444444444444444444444444444444444444444",
     "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0"},
    {BF_CIPHER_ALG_AES_128, BF_CIPHER_MODE_XTS,
     "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f022222222222222222222222222222222",
     "33333333330000000000000000000000",
     "4444444444444444444444444444444444444444444444444444444444444444",
     "af85336b597afc1a900b2eb21ec949d292df4c047e0b21532186a5971a227a89"},
    {BF_CIPHER_ALG_AES_128, BF_CIPHER_MODE_XTS,
     "2718281828459045235360287471352631415926535897932384626433832795",
     "00000000000000000000000000000000",
     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
     "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f",
     "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"
     "c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412"},
    {BF_CIPHER_ALG_AES_256, BF_CIPHER_MODE_XTS,
     "2718281828459045235360287471352662497757247093699959574966967627"
     "3141592653589793238462643383279502884197169399375105820974944592",
     "ff000000000000000000000000000000",
     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
     "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f",
     "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
     "5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd"},
    {BF_CIPHER_ALG_AES_192, BF_CIPHER_MODE_XTS,
     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
     "202122232425262728292a2b2c2d2e2f",
     "01234567890000000000000000000000",
     "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
     "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f",
     "1df7b7e0ba0b13577f00bb16fc074e275f0162c41dc984684c38ea1ec150fae1"
     "c02999d26db1494b406e69c6525681608ebdfe3f31df6e059d9ab29288403151"},
};

/* What a build lacks it must say, and only nettle's may be lacking. */
static bool
is_there(BfCipherAlg alg, BfCipherMode mode)
{
    static const uint8_t key[64] = {1};
    g_autoptr(GError) error = NULL;

    if (bf_cipher_supports(alg, mode)) {
        return true;
    }
    g_assert_true(mode == BF_CIPHER_MODE_ECB || mode == BF_CIPHER_MODE_CTR ||
                  (mode == BF_CIPHER_MODE_XTS && alg == BF_CIPHER_ALG_AES_192));
    g_assert_null(bf_cipher_new(alg, mode, key,
                                bf_cipher_get_key_size(alg, mode), &error));
    g_assert_nonnull(strstr(error->message, "not available in this build"));
    return false;
}

static BfCipher *
open_cipher(BfCipherAlg alg, BfCipherMode mode, const char *hex)
{
    g_autoptr(GBytes) key = bf_test_hex(hex);
    g_autoptr(GError) error = NULL;
    BfCipher *cipher = bf_cipher_new(alg, mode, bf_test_data(key),
                                     g_bytes_get_size(key), &error);

    g_assert_no_error(error);
    return cipher;
}

static void
set_iv(BfCipher *cipher, const char *hex)
{
    if (hex != NULL) {
        g_autoptr(GBytes) iv = bf_test_hex(hex);

        g_assert_true(bf_cipher_set_iv(cipher, bf_test_data(iv),
                                       g_bytes_get_size(iv), NULL));
    }
}

static void
test_published_vectors(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(vectors); i++) {
        g_autoptr(GBytes) plain = bf_test_hex(vectors[i].plain);
        g_autoptr(GBytes) encrypted = bf_test_hex(vectors[i].encrypted);
        gsize len = g_bytes_get_size(plain);
        g_autofree uint8_t *buf = g_malloc(len);
        g_autoptr(BfCipher) cipher = NULL;
        g_autoptr(GError) error = NULL;

        if (!is_there(vectors[i].alg, vectors[i].mode)) {
            continue;
        }
        cipher = open_cipher(vectors[i].alg, vectors[i].mode, vectors[i].key);
        set_iv(cipher, vectors[i].iv);
        g_assert_true(
            bf_cipher_encrypt(cipher, bf_test_data(plain), buf, len, &error));
        g_assert_cmpmem(buf, len, bf_test_data(encrypted), len);
        set_iv(cipher, vectors[i].iv);
        g_assert_true(bf_cipher_decrypt(cipher, buf, buf, len, &error));
        g_assert_cmpmem(buf, len, bf_test_data(plain), len);
    }
}

/* In two calls, the second going on where the first ended; not in XTS. */
static void
test_calls_are_chained(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(vectors); i++) {
        g_autoptr(GBytes) plain = bf_test_hex(vectors[i].plain);
        g_autoptr(GBytes) encrypted = bf_test_hex(vectors[i].encrypted);
        gsize len = g_bytes_get_size(plain);
        g_autofree uint8_t *buf = g_malloc(len);
        g_autoptr(BfCipher) cipher = NULL;

        if (vectors[i].mode == BF_CIPHER_MODE_XTS ||
            !is_there(vectors[i].alg, vectors[i].mode)) {
            continue;
        }
        cipher = open_cipher(vectors[i].alg, vectors[i].mode, vectors[i].key);
        set_iv(cipher, vectors[i].iv);
        g_assert_true(
            bf_cipher_encrypt(cipher, bf_test_data(plain), buf, 16, NULL));
        g_assert_true(bf_cipher_encrypt(cipher, bf_test_data(plain) + 16,
                                        buf + 16, len - 16, NULL));
        g_assert_cmpmem(buf, len, bf_test_data(encrypted), len);
        set_iv(cipher, vectors[i].iv);
        g_assert_true(bf_cipher_decrypt(cipher, buf, buf, 32, NULL));
        g_assert_true(
            bf_cipher_decrypt(cipher, buf + 32, buf + 32, len - 32, NULL));
        g_assert_cmpmem(buf, len, bf_test_data(plain), len);
    }
}

/* Of the GCM specification: test cases 1 to 4, 10 and 16. */
#define GCM_KEY "feffe9928665731c6d6a8f9467308308"
#define GCM_IV "cafebabefacedbaddecaf888"
#define GCM_AAD "feedfacedeadbeeffeedfacedeadbeefabaddad2"
#define GCM_PLAIN_60                                                           \
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"         \
    "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"

static const struct {
    BfCipherAlg alg;
    const char *key;
    const char *iv;
    const char *aad;
    const char *plain;
    const char *encrypted;
    const char *tag;
} gcm[] = {
    {BF_CIPHER_ALG_AES_128, "00000000000000000000000000000000",
     "000000000000000000000000", "", "", "",
     "58e2fccefa7e3061367f1d57a4e7455a"},
    {BF_CIPHER_ALG_AES_128, "00000000000000000000000000000000",
     "000000000000000000000000", "", "00000000000000000000000000000000",
     "0388dace60b6a392f328c2b971b2fe78", "ab6e47d42cec13bdf53a67b21257bddf"},
    {BF_CIPHER_ALG_AES_128, GCM_KEY, GCM_IV, "", GCM_PLAIN_60 "1aafd255",
     "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
     "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091473f5985",
     "4d5c2af327cd64a62cf35abd2ba6fab4"},
    {BF_CIPHER_ALG_AES_128, GCM_KEY, GCM_IV, GCM_AAD, GCM_PLAIN_60,
     "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e"
     "21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091",
     "5bc94fbc3221a5db94fae95ae7121a47"},
    {BF_CIPHER_ALG_AES_192, GCM_KEY "feffe9928665731c", GCM_IV, GCM_AAD,
     GCM_PLAIN_60,
     "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c"
     "7d773d00c144c525ac619d18c84a3f4718e2448b2fe324d9ccda2710",
     "2519498e80f1478f37ba55bd6d27618c"},
    {BF_CIPHER_ALG_AES_256, GCM_KEY GCM_KEY, GCM_IV, GCM_AAD, GCM_PLAIN_60,
     "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa"
     "8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
     "76fc6ece0f4e1768cddf8853bb2d551b"},
};

static void
test_published_gcm_vectors(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(gcm); i++) {
        g_autoptr(BfCipher) cipher =
            open_cipher(gcm[i].alg, BF_CIPHER_MODE_GCM, gcm[i].key);
        g_autoptr(GBytes) iv = bf_test_hex(gcm[i].iv);
        g_autoptr(GBytes) aad = bf_test_hex(gcm[i].aad);
        g_autoptr(GBytes) plain = bf_test_hex(gcm[i].plain);
        g_autoptr(GBytes) encrypted = bf_test_hex(gcm[i].encrypted);
        g_autoptr(GBytes) tag = bf_test_hex(gcm[i].tag);
        g_autoptr(GError) error = NULL;
        gsize len = g_bytes_get_size(plain);
        g_autofree uint8_t *buf = g_memdup2(bf_test_data(plain), len);
        BfCipherNonce nonce = {bf_test_data(iv), g_bytes_get_size(iv),
                               bf_test_data(aad), g_bytes_get_size(aad)};
        uint8_t got[BF_CIPHER_TAG_BYTES];

        g_assert_true(bf_cipher_seal(cipher, &nonce, buf, len, got, &error));
        g_assert_no_error(error);
        g_assert_cmpmem(buf, len, bf_test_data(encrypted), len);
        g_assert_cmpmem(got, sizeof(got), bf_test_data(tag), 16);
        g_assert_true(bf_cipher_open(cipher, &nonce, buf, len, got, &error));
        g_assert_no_error(error);
        g_assert_cmpmem(buf, len, bf_test_data(plain), len);
    }
}

static void
test_gcm_refuses_changed_data(void)
{
    g_autoptr(BfCipher) cipher =
        open_cipher(BF_CIPHER_ALG_AES_128, BF_CIPHER_MODE_GCM, GCM_KEY);
    const BfCipherNonce nonce = {"123456789012", 12, "aad", 3};
    const BfCipherNonce others[] = {{"123456789013", 12, "aad", 3},
                                    {"123456789012", 12, "aaD", 3},
                                    {"123456789012", 12, NULL, 0}};
    uint8_t sealed[20] = "twenty bytes of data";
    uint8_t tag[BF_CIPHER_TAG_BYTES];
    uint8_t zero[20] = {0};
    BfCipherNonce shorter = {"1234567890", 10, NULL, 0};
    g_autoptr(GError) error = NULL;

    g_assert_true(bf_cipher_seal(cipher, &nonce, sealed, 20, tag, NULL));
    for (int i = 0; i < 5; i++) {
        uint8_t buf[20];
        uint8_t its_tag[BF_CIPHER_TAG_BYTES];

        memcpy(buf, sealed, 20);
        memcpy(its_tag, tag, sizeof(tag));
        buf[19] ^= i == 3;
        its_tag[0] ^= i == 4;
        g_assert_false(bf_cipher_open(cipher, i < 3 ? &others[i] : &nonce, buf,
                                      20, its_tag, NULL));
        g_assert_cmpmem(buf, 20, zero, 20);
    }
    g_assert_false(bf_cipher_seal(cipher, &shorter, sealed, 20, tag, &error));
    g_assert_cmpstr(error->message, ==, "Expected IV size 12 not 10");
}

static void
assert_refused(BfCipher *cipher, size_t len, const char *message)
{
    uint8_t buf[64] = {0};
    g_autoptr(GError) error = NULL;
    g_autoptr(GError) again = NULL;

    g_assert_false(bf_cipher_encrypt(cipher, buf, buf, len, &error));
    g_assert_cmpstr(error->message, ==, message);
    g_assert_false(bf_cipher_decrypt(cipher, buf, buf, len, &again));
    g_assert_cmpstr(again->message, ==, message);
}

static void
test_refuses_wrong_lengths(void)
{
    uint8_t bytes[64] = {1, 2, 3};
    g_autoptr(GError) key_error = NULL;
    g_autoptr(GError) iv_error = NULL;
    g_autoptr(BfCipher) cbc = bf_cipher_new(
        BF_CIPHER_ALG_AES_256, BF_CIPHER_MODE_CBC, bytes, 32, NULL);
    g_autoptr(BfCipher) xts = bf_cipher_new(
        BF_CIPHER_ALG_AES_256, BF_CIPHER_MODE_XTS, bytes, 64, NULL);

    g_assert_null(bf_cipher_new(BF_CIPHER_ALG_AES_256, BF_CIPHER_MODE_XTS,
                                bytes, 32, &key_error));
    g_assert_nonnull(
        strstr(key_error->message, "Cipher key length 32 should be 64"));
    g_assert_false(bf_cipher_set_iv(cbc, bytes, 15, &iv_error));
    g_assert_cmpstr(iv_error->message, ==, "Expected IV size 16 not 15");
    assert_refused(cbc, 16, "an initialisation vector was not set");
    g_assert_true(bf_cipher_set_iv(cbc, bytes, 16, NULL));
    assert_refused(cbc, 17, "Length 17 must be a multiple of block size 16");
    g_assert_true(bf_cipher_set_iv(xts, bytes, 16, NULL));
    assert_refused(xts, 0,
                   "Length 0 must be a multiple of block size 16 and not 0");
    g_assert_true(bf_cipher_encrypt(xts, bytes, bytes, 64, NULL));
    assert_refused(xts, 64, "an initialisation vector was not set");
}

static void
test_names_and_sizes(void)
{
    BfCipherAlg alg = BF_CIPHER_ALG_COUNT;
    BfCipherMode mode = BF_CIPHER_MODE_COUNT;
    g_autoptr(GError) error = NULL;

    for (BfCipherAlg i = 0; i < BF_CIPHER_ALG_COUNT; i++) {
        g_assert_true(bf_cipher_alg_parse(bf_cipher_alg_str(i), &alg, NULL));
        g_assert_cmpint(alg, ==, i);
        g_assert_true(bf_cipher_supports(i, BF_CIPHER_MODE_CBC));
        g_assert_true(bf_cipher_supports(i, BF_CIPHER_MODE_GCM));
    }
    for (BfCipherMode i = 0; i < BF_CIPHER_MODE_COUNT; i++) {
        g_assert_true(bf_cipher_mode_parse(bf_cipher_mode_str(i), &mode, NULL));
        g_assert_cmpint(mode, ==, i);
    }
    g_assert_true(
        bf_cipher_supports(BF_CIPHER_ALG_AES_256, BF_CIPHER_MODE_XTS));
    g_assert_false(bf_cipher_alg_parse("des", &alg, &error));
    g_assert_nonnull(strstr(error->message, "'des' not supported"));
    g_assert_false(bf_cipher_mode_parse("ofb", &mode, NULL));
}

#define ADD(path, name) g_test_add_func("/crypto/cipher/" path, test_##name)

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("run/published-vectors", published_vectors);
    ADD("run/calls-are-chained", calls_are_chained);
    ADD("run/refuses-wrong-lengths", refuses_wrong_lengths);
    ADD("seal/published-vectors", published_gcm_vectors);
    ADD("open/refuses-changed-data", gcm_refuses_changed_data);
    ADD("alg/names-and-sizes", names_and_sizes);
    return g_test_run();
}
