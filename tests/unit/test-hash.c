/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hashes and HMACs against the vectors of RFC 1321, RFC 3174, RFC 6234 (FIPS
 * 180-2), the authors of RIPEMD-160, RFC 2202, RFC 2286 and RFC 4231.
 */
#include "crypto/hash.h"

#include <string.h>

#include "core/error.h"
#include "hex.h"

#define ABC56 "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"

static const struct {
    BfHashAlg alg;
    const char *text;
    const char *hex;
} hashes[] = {
    {BF_HASH_ALG_MD5, "", "d41d8cd98f00b204e9800998ecf8427e"},
    {BF_HASH_ALG_MD5, "a", "0cc175b9c0f1b6a831c399e269772661"},
    {BF_HASH_ALG_MD5, "abc", "900150983cd24fb0d6963f7d28e17f72"},
    {BF_HASH_ALG_MD5, "message digest", "f96b697d7cb7938d525a2f31aaf161d0"},
    {BF_HASH_ALG_MD5, "abcdefghijklmnopqrstuvwxyz",
     "c3fcd3d76192e4007dfb496cca67e13b"},
    {BF_HASH_ALG_SHA1, "abc", "a9993e364706816aba3e25717850c26c9cd0d89d"},
    {BF_HASH_ALG_SHA1, ABC56, "84983e441c3bd26ebaae4aa1f95129e5e54670f1"},
    {BF_HASH_ALG_SHA224, "abc",
     "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"},
    {BF_HASH_ALG_SHA224, ABC56,
     "75388b16512776cc5dba5da1fd890150b0c6455cb4f58b1952522525"},
    {BF_HASH_ALG_SHA256, "abc",
     "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {BF_HASH_ALG_SHA256, ABC56,
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    {BF_HASH_ALG_SHA384, "abc",
     "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed"
     "8086072ba1e7cc2358baeca134c825a7"},
    {BF_HASH_ALG_SHA512, "abc",
     "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
     "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"},
    {BF_HASH_ALG_RIPEMD160, "", "9c1185a5c5e9fc54612808977ee8f548b2258d31"},
    {BF_HASH_ALG_RIPEMD160, "abc", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"},
    {BF_HASH_ALG_RIPEMD160, ABC56, "12a053384a9c0c88e405a06c27dcf49ada62eb2b"},
};

/* What a build lacks it must say, and only nettle's may be lacking. */
static bool
is_there(BfHashAlg alg)
{
    g_autoptr(GError) error = NULL;
    uint8_t digest[BF_HASH_BYTES_MAX];
    bool there = bf_hash_supports(alg);

    g_assert_true(bf_hmac_supports(alg) == there);
    if (!there) {
        g_assert_cmpint(alg, ==, BF_HASH_ALG_RIPEMD160);
        g_assert_false(bf_hash_bytes(alg, "", 0, digest, &error));
        g_assert_nonnull(strstr(error->message, "not available in this build"));
    }
    return there;
}

static void
test_published_vectors(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(hashes); i++) {
        struct iovec iov = {(void *)hashes[i].text, strlen(hashes[i].text)};
        g_autoptr(GBytes) wanted = bf_test_hex(hashes[i].hex);
        g_autoptr(GError) error = NULL;
        uint8_t digest[BF_HASH_BYTES_MAX];
        size_t size = bf_hash_get_size(hashes[i].alg);

        if (!is_there(hashes[i].alg)) {
            continue;
        }
        g_autofree char *hex = bf_hash_hex(hashes[i].alg, &iov, 1, &error);
        g_autofree char *base64 =
            bf_hash_base64(hashes[i].alg, &iov, 1, &error);
        g_autofree char *as_base64 =
            g_base64_encode(bf_test_data(wanted), g_bytes_get_size(wanted));

        g_assert_no_error(error);
        g_assert_cmpstr(hex, ==, hashes[i].hex);
        g_assert_cmpstr(base64, ==, as_base64);
        g_assert_true(bf_hash_bytes(hashes[i].alg, iov.iov_base, iov.iov_len,
                                    digest, &error));
        g_assert_cmpmem(digest, size, bf_test_data(wanted),
                        g_bytes_get_size(wanted));
    }
}

/* A million times 'a', by pieces that do not divide the block size. */
static void
test_pieces_give_the_same(void)
{
    g_autofree char *piece = g_strnfill(1000, 'a');
    const struct iovec iov[] = {{piece, 333}, {NULL, 0}, {piece, 667}};
    g_autoptr(BfHash) hash = bf_hash_new(BF_HASH_ALG_SHA256, NULL);
    g_autoptr(GBytes) wanted = bf_test_hex(
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    uint8_t digest[32];

    for (int round = 0; round < 2; round++) { /* it begins anew */
        for (int i = 0; i < 1000; i++) {
            bf_hash_update(hash, iov, 3);
        }
        bf_hash_finish(hash, digest);
        g_assert_cmpmem(digest, 32, bf_test_data(wanted), 32);
    }
}

static void
test_names(void)
{
    g_autoptr(GError) error = NULL;
    BfHashAlg found = BF_HASH_ALG_COUNT;

    for (BfHashAlg alg = 0; alg < BF_HASH_ALG_COUNT; alg++) {
        g_assert_true(bf_hash_alg_parse(bf_hash_alg_str(alg), &found, NULL));
        g_assert_cmpint(found, ==, alg);
    }
    g_assert_false(bf_hash_alg_parse("sha3", &found, &error));
    g_assert_nonnull(strstr(error->message, "'sha3' not supported"));
}

/* RFC 2202 and RFC 4231; a run of the same byte is written as byte*count. */
static const struct {
    BfHashAlg alg;
    const char *key;
    const char *data;
    const char *hex;
} hmacs[] = {
    {BF_HASH_ALG_MD5, "0b*16", "4869205468657265",
     "9294727a3638bb1c13f48ef8158bfc9d"},
    {BF_HASH_ALG_MD5, "4a656665",
     "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
     "750c783e6ab0b503eaa86e310a5db738"},
    {BF_HASH_ALG_MD5, "aa*16", "dd*50", "56be34521d144c88dbb8c733f0e8b3f6"},
    {BF_HASH_ALG_SHA1, "0b*20", "4869205468657265",
     "b617318655057264e28bc0b6fb378c8ef146be00"},
    {BF_HASH_ALG_SHA1, "4a656665",
     "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
     "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
    {BF_HASH_ALG_SHA1, "aa*20", "dd*50",
     "125d7342b9ac11cd91a39af48aa17b4f63f175d3"},
    {BF_HASH_ALG_SHA224, "0b*20", "4869205468657265",
     "896fb1128abbdf196832107cd49df33f47b4b1169912ba4f53684b22"},
    {BF_HASH_ALG_SHA256, "0b*20", "4869205468657265",
     "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
    {BF_HASH_ALG_SHA384, "0b*20", "4869205468657265",
     "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c"
     "faea9ea9076ede7f4af152e8b2fa9cb6"},
    {BF_HASH_ALG_SHA512, "0b*20", "4869205468657265",
     "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde"
     "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"},
    {BF_HASH_ALG_SHA256, "4a656665",
     "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
     "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
    {BF_HASH_ALG_SHA256, "aa*131",
     "54657374205573696e67204c6172676572205468616e20426c6f636b2d53697a"
     "65204b6579202d2048617368204b6579204669727374",
     "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
    {BF_HASH_ALG_RIPEMD160, "0b*20", "4869205468657265",
     "24cb4bd67d20fc1a5d2ed7732dcc39377f0a5668"},
    {BF_HASH_ALG_RIPEMD160, "4a656665",
     "7768617420646f2079612077616e7420666f72206e6f7468696e673f",
     "dda6c0213a485a9e24f4742064a7f033b43c4069"},
};

static GBytes *
unfold(const char *text)
{
    const char *star = strchr(text, '*');
    g_autoptr(GBytes) one = NULL;
    g_autofree char *digits = NULL;
    gsize n = 0;

    if (star == NULL) {
        return bf_test_hex(text);
    }
    digits = g_strndup(text, (gsize)(star - text));
    one = bf_test_hex(digits);
    n = (gsize)g_ascii_strtoull(star + 1, NULL, 10);
    return g_bytes_new_take(memset(g_malloc(n), bf_test_data(one)[0], n), n);
}

static void
test_published_hmacs(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(hmacs); i++) {
        g_autoptr(GBytes) key = unfold(hmacs[i].key);
        g_autoptr(GBytes) data = unfold(hmacs[i].data);
        g_autoptr(GBytes) wanted = bf_test_hex(hmacs[i].hex);
        gsize len = g_bytes_get_size(data);
        uint8_t *bytes = (uint8_t *)bf_test_data(data);
        const struct iovec iov[] = {{bytes, len / 3},
                                    {bytes + len / 3, len - len / 3}};
        g_autoptr(BfHmac) hmac = NULL;
        g_autofree char *hex = NULL;
        g_autofree char *base64 = NULL;
        g_autofree char *as_base64 =
            g_base64_encode(bf_test_data(wanted), g_bytes_get_size(wanted));
        uint8_t digest[BF_HASH_BYTES_MAX];

        if (!is_there(hmacs[i].alg)) {
            continue;
        }
        hmac = bf_hmac_new(hmacs[i].alg, bf_test_data(key),
                           g_bytes_get_size(key), NULL);
        for (int round = 0; round < 2; round++) { /* it begins anew */
            bf_hmac_update(hmac, iov, 2);
            bf_hmac_finish(hmac, digest);
            g_assert_cmpmem(digest, bf_hash_get_size(hmacs[i].alg),
                            bf_test_data(wanted), g_bytes_get_size(wanted));
        }
        hex = bf_hmac_hex(hmacs[i].alg, bf_test_data(key),
                          g_bytes_get_size(key), iov, 2, NULL);
        base64 = bf_hmac_base64(hmacs[i].alg, bf_test_data(key),
                                g_bytes_get_size(key), iov, 2, NULL);
        g_assert_cmpstr(hex, ==, hmacs[i].hex);
        g_assert_cmpstr(base64, ==, as_base64);
    }
}

/* Of Python: hmac.new(b"", b"", "sha256") */
static void
test_hmac_takes_empty_key(void)
{
    g_autofree char *hex =
        bf_hmac_hex(BF_HASH_ALG_SHA256, NULL, 0, NULL, 0, NULL);

    g_assert_cmpstr(
        hex, ==,
        "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

#define ADD(path, name) g_test_add_func("/crypto/hash/" path, test_##name)

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("hash/published-vectors", published_vectors);
    ADD("hash/pieces-give-the-same", pieces_give_the_same);
    ADD("alg/names", names);
    ADD("hmac/published-vectors", published_hmacs);
    ADD("hmac/takes-empty-key", hmac_takes_empty_key);
    return g_test_run();
}
