/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Anti-forensic split and initialisation vectors. The vectors were made by a
 * few lines of Python from the text of the LUKS1 specification, with hashlib
 * and openssl's ECB.
 */
#include <string.h>

#include "core/error.h"
#include "crypto/afsplit.h"
#include "crypto/ivgen.h"
#include "hex.h"

/* The keys are the bytes 1, 2, 3, ... */
static const struct {
    BfHashAlg hash;
    size_t key_len;
    uint32_t stripes;
    const char *split;
} splits[] = {
    {BF_HASH_ALG_SHA1, 16, 4,
     "4420823cfde6f1c26b30f90ec7dd01e4887534a20f0b0d04c36ed80e71e0fd77"
     "b07670eb940bd5335f973daad8619b9152c579b47a40eb9caa4221eef04d426d"},
    {BF_HASH_ALG_SHA1, 32, 3,
     "ffc911f57cced458bbbf2ce03753c9bdfa0ff0169dc9575674066676cfb0b4eb"
     "8902c44269da1cf6ba66d3f8b6d4b100a9ea0e755a5c2e8210242a08e7078f7f"
     "7dbc43c0715f5eb4ea9e0c296e048aa8fca232900cefa94189a3bfc6876807e2"},
    {BF_HASH_ALG_SHA256, 64, 3,
     "89385eb09423555182568b96e8a4fef23a0c9fc5afd7608437816bdd0a7309cb"
     "4a1252e4da70e6720fcaa4da1e98406c189c24279e9851d5814204136feb5713"
     "c166b13269dd63fc35c797ff08a6cd90095066a745addb6d8831c2b0f8782114"
     "2b4456556d89aa82bcadae3a9578fa4535a414d025c24b40ae3ac127722988ba"
     "5f18214e780fe3ad20891f08b5183097d5fc1051b236b75db819c298284c4401"
     "f2fca3e773eb006ec2720b55660a7f481ce5c3b5ed8935007929af7d28e8878e"},
    {BF_HASH_ALG_SHA256, 33, 5,
     "973aea8d37179706072ed33a14607ad7523be6557b5134dec19681f4a1336aa2"
     "140d0597a3e6c8a0cc2020a2e939806ef0b6845d6a9d657eb8298f2de52ead74"
     "c79d15a75fa29b7dab332f7d700a7ccd258924260b0594b7fcf04e33a727585b"
     "4c48a39c369640694810a1695b99dd50187e8120e4dc80e0e805caad5784f80c"
     "d5091fb5db05247c5c6de948099f8d2c35551649f1677f25f313ec3a2aefde2b"
     "fc1e3d39f8"},
    {BF_HASH_ALG_SHA512, 16, 1, "0102030405060708090a0b0c0d0e0f10"},
};

static void
assert_is_count(const uint8_t *key, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        g_assert_cmpuint(key[i], ==, i + 1);
    }
}

static void
test_afsplit_decodes_vectors(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(splits); i++) {
        g_autoptr(GBytes) split = bf_test_hex(splits[i].split);
        g_autofree uint8_t *key = g_malloc(splits[i].key_len);

        g_assert_cmpuint(g_bytes_get_size(split), ==,
                         splits[i].key_len * splits[i].stripes);
        g_assert_true(bf_afsplit_decode(splits[i].hash, bf_test_data(split),
                                        splits[i].key_len, splits[i].stripes,
                                        key, NULL));
        assert_is_count(key, splits[i].key_len);
    }
}

/* As many stripes as LUKS has; the random ones are made by a formula. */
static void
test_afsplit_decodes_large(void)
{
    enum { LEN = 64, STRIPES = 4000 };
    g_autofree uint8_t *split = g_malloc(LEN * STRIPES);
    g_autoptr(GBytes) last = bf_test_hex(
        "cfe668ab9a9809d2e8b206578daa7281b1ff24ca30a0aa18f7c7f9189c3d5ff0"
        "d2e3fd168f8d6e4ccb8904c5c083bb71b012e68f8f317aef30f0e866af9a97f6");
    uint8_t key[LEN];

    for (size_t i = 0; i < STRIPES - 1; i++) {
        for (size_t j = 0; j < LEN; j++) {
            split[i * LEN + j] = (uint8_t)(i * 7 + j);
        }
    }
    memcpy(split + (size_t)(STRIPES - 1) * LEN, bf_test_data(last), LEN);
    g_assert_true(
        bf_afsplit_decode(BF_HASH_ALG_SHA256, split, LEN, STRIPES, key, NULL));
    assert_is_count(key, LEN);
    split[1000] ^= 1;
    g_assert_true(
        bf_afsplit_decode(BF_HASH_ALG_SHA256, split, LEN, STRIPES, key, NULL));
    /* A lost bit loses all that is hashed with it. */
    g_assert_cmpuint(key[40], !=, 41);
}

static void
test_afsplit_round_trip(void)
{
    static const uint32_t stripes[] = {1, 2, 7, 100};

    for (size_t i = 0; i < G_N_ELEMENTS(stripes); i++) {
        uint8_t key[33];
        uint8_t back[33] = {0};
        g_autofree uint8_t *split = g_malloc(sizeof(key) * stripes[i]);
        g_autofree uint8_t *again = g_malloc(sizeof(key) * stripes[i]);

        for (size_t j = 0; j < sizeof(key); j++) {
            key[j] = (uint8_t)(j + 1);
        }
        g_assert_true(bf_afsplit_encode(BF_HASH_ALG_SHA1, key, sizeof(key),
                                        stripes[i], split, NULL));
        g_assert_true(bf_afsplit_encode(BF_HASH_ALG_SHA1, key, sizeof(key),
                                        stripes[i], again, NULL));
        g_assert_true(bf_afsplit_decode(BF_HASH_ALG_SHA1, split, sizeof(key),
                                        stripes[i], back, NULL));
        g_assert_cmpmem(key, sizeof(key), back, sizeof(back));
        g_assert_true((memcmp(split, again, sizeof(key)) == 0) ==
                      (stripes[i] == 1));
    }
}

static void
check_iv(const BfIvgenParams *params, uint64_t sector, const char *hex)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BfIvgen) ivgen = bf_ivgen_new(params, &error);
    g_autoptr(GBytes) wanted = bf_test_hex(hex);
    uint8_t iv[BF_CIPHER_BLOCK_BYTES];

    g_assert_no_error(error);
    for (int i = 0; i < 2; i++) { /* it keeps nothing */
        g_assert_true(bf_ivgen_calculate(ivgen, sector, iv, &error));
        g_assert_cmpmem(iv, sizeof(iv), bf_test_data(wanted), 16);
    }
}

static void
test_ivgen_plain(void)
{
    BfIvgenParams plain = {.alg = BF_IVGEN_ALG_PLAIN};
    BfIvgenParams plain64 = {.alg = BF_IVGEN_ALG_PLAIN64};

    check_iv(&plain, 0, "00000000000000000000000000000000");
    check_iv(&plain, 0x1f2e3d4c, "4c3d2e1f000000000000000000000000");
    check_iv(&plain, UINT64_C(0x1f2e3d4c5b6a7988),
             "88796a5b000000000000000000000000");
    check_iv(&plain64, 0x1f2e3d4c, "4c3d2e1f000000000000000000000000");
    check_iv(&plain64, UINT64_C(0x1f2e3d4c5b6a7988),
             "88796a5b4c3d2e1f0000000000000000");
}

static void
test_ivgen_essiv(void)
{
    uint8_t key[48];
    BfIvgenParams essiv = {BF_IVGEN_ALG_ESSIV, BF_CIPHER_ALG_AES_256,
                           BF_HASH_ALG_SHA256, key + 16, 32};
    BfIvgenParams small = {BF_IVGEN_ALG_ESSIV, BF_CIPHER_ALG_AES_128,
                           BF_HASH_ALG_MD5, key, 16};
    BfIvgenParams misfit = {BF_IVGEN_ALG_ESSIV, BF_CIPHER_ALG_AES_256,
                            BF_HASH_ALG_SHA1, key, 32};
    g_autoptr(GError) error = NULL;

    for (size_t i = 0; i < sizeof(key); i++) {
        key[i] = (uint8_t)i;
    }
    check_iv(&essiv, 0, "9b4160df47be0c5c8b0c795537da25b2");
    check_iv(&essiv, 1, "73a9d58cb5987474f80f84c574a94c6b");
    check_iv(&essiv, 0x1f2e3d4c, "56c2e73ca426a4adbf093e65c0c70a1a");
    check_iv(&essiv, UINT64_C(0x1f2e3d4c5b6a7988),
             "b51ae5792d286defa8bab917aefcf900");
    check_iv(&small, 5, "c1308bf640faa041c28d17b5afc91380");
    g_assert_null(bf_ivgen_new(&misfit, &error));
    g_assert_nonnull(strstr(error->message, "aes-256 needs 32"));
}

static void
test_ivgen_names(void)
{
    g_autoptr(GError) error = NULL;
    BfIvgenAlg alg = BF_IVGEN_ALG_COUNT;

    for (BfIvgenAlg i = 0; i < BF_IVGEN_ALG_COUNT; i++) {
        g_assert_true(bf_ivgen_alg_parse(bf_ivgen_alg_str(i), &alg, NULL));
        g_assert_cmpint(alg, ==, i);
    }
    g_assert_false(bf_ivgen_alg_parse("benbi", &alg, &error));
    g_assert_nonnull(strstr(error->message, "'benbi' not supported"));
}

#define ADD(path, name) g_test_add_func("/crypto/" path, test_##name)

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("afsplit/decodes-vectors", afsplit_decodes_vectors);
    ADD("afsplit/decodes-large", afsplit_decodes_large);
    ADD("afsplit/round-trip", afsplit_round_trip);
    ADD("ivgen/plain", ivgen_plain);
    ADD("ivgen/essiv", ivgen_essiv);
    ADD("ivgen/names", ivgen_names);
    return g_test_run();
}
