/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The crypto functions against the program openssl, on data of many lengths.
 * XTS and GCM are not among what that program's command lines give.
 */
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "crypto/cipher.h"
#include "crypto/hash.h"
#include "crypto/pbkdf.h"

static const size_t lengths[] = {0, 1, 16, 63, 64, 65, 4096, 100000};
static char *data_path; /* holds what @data does */
static uint8_t data[100000];

static char *
out_path(void)
{
    return g_strconcat(data_path, ".out", NULL);
}

/* Writes the input; gives what openssl prints. */
static GBytes *
run(size_t len, const char *const *argv)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *errors = NULL;
    g_autofree char *path = out_path();
    char *out = NULL;
    gsize out_len = 0;
    int status = -1;

    g_assert_true(
        g_file_set_contents(data_path, (const char *)data, len, &error));
    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL,
                 NULL, &errors, &status, &error);
    g_assert_no_error(error);
    if (status != 0) {
        g_error("openssl %s: %s", argv[1], errors);
    }
    g_assert_true(g_file_get_contents(path, &out, &out_len, &error));
    return g_bytes_new_take(out, out_len);
}

static char *
to_hex(const uint8_t *bytes, size_t len)
{
    GString *text = g_string_new(NULL);

    for (size_t i = 0; i < len; i++) {
        g_string_append_printf(text, "%02x", bytes[i]);
    }
    return g_string_free(text, FALSE);
}

static void
test_hashes(void)
{
    for (BfHashAlg alg = 0; alg <= BF_HASH_ALG_SHA512; alg++) {
        for (size_t i = 0; i < G_N_ELEMENTS(lengths); i++) {
            g_autofree char *option =
                g_strconcat("-", bf_hash_alg_str(alg), NULL);
            g_autofree char *out = out_path();
            const char *argv[] = {"openssl", "dgst", option,    "-binary",
                                  "-out",    out,    data_path, NULL};
            g_autoptr(GBytes) wanted = run(lengths[i], argv);
            uint8_t digest[BF_HASH_BYTES_MAX];

            g_assert_true(bf_hash_bytes(alg, data, lengths[i], digest, NULL));
            g_assert_cmpmem(digest, bf_hash_get_size(alg),
                            g_bytes_get_data(wanted, NULL),
                            g_bytes_get_size(wanted));
        }
    }
}

static void
test_hmacs(void)
{
    static const size_t key_lengths[] = {1, 16, 64, 200};

    for (BfHashAlg alg = 0; alg <= BF_HASH_ALG_SHA512; alg++) {
        for (size_t i = 0; i < G_N_ELEMENTS(key_lengths); i++) {
            g_autofree char *option =
                g_strconcat("-", bf_hash_alg_str(alg), NULL);
            g_autofree char *out = out_path();
            g_autofree char *hex = to_hex(data + 7, key_lengths[i]);
            g_autofree char *key = g_strconcat("hexkey:", hex, NULL);
            const char *argv[] = {"openssl", "dgst",    option,    "-mac",
                                  "HMAC",    "-macopt", key,       "-binary",
                                  "-out",    out,       data_path, NULL};
            g_autoptr(GBytes) wanted = run(1000, argv);
            struct iovec iov = {data, 1000};
            uint8_t digest[BF_HASH_BYTES_MAX];

            g_assert_true(bf_hmac_iov(alg, data + 7, key_lengths[i], &iov, 1,
                                      digest, NULL));
            g_assert_cmpmem(digest, bf_hash_get_size(alg),
                            g_bytes_get_data(wanted, NULL),
                            g_bytes_get_size(wanted));
        }
    }
}

/* Theirs decrypts to ours, and ours is theirs. */
static void
check_cipher(BfCipherAlg alg, BfCipherMode mode, size_t len)
{
    size_t key_len = bf_cipher_get_key_size(alg, mode);
    g_autofree char *option = g_strdup_printf("-%s-%s", bf_cipher_alg_str(alg),
                                              bf_cipher_mode_str(mode));
    g_autofree char *out = out_path();
    g_autofree char *key = to_hex(data + 100, key_len);
    g_autofree char *iv = to_hex(data + 200, 16);
    bool has_iv = mode != BF_CIPHER_MODE_ECB;
    const char *argv[] = {"openssl",
                          "enc",
                          option,
                          "-K",
                          key,
                          "-nopad",
                          "-in",
                          data_path,
                          "-out",
                          out,
                          has_iv ? "-iv" : NULL,
                          iv,
                          NULL};
    g_autoptr(GBytes) wanted = run(len, argv);
    g_autoptr(BfCipher) cipher =
        bf_cipher_new(alg, mode, data + 100, key_len, NULL);
    g_autofree uint8_t *buf = g_malloc(len);

    g_assert_true(!has_iv || bf_cipher_set_iv(cipher, data + 200, 16, NULL));
    g_assert_true(bf_cipher_encrypt(cipher, data, buf, len, NULL));
    g_assert_cmpmem(buf, len, g_bytes_get_data(wanted, NULL),
                    g_bytes_get_size(wanted));
    g_assert_true(!has_iv || bf_cipher_set_iv(cipher, data + 200, 16, NULL));
    g_assert_true(bf_cipher_decrypt(cipher, buf, buf, len, NULL));
    g_assert_cmpmem(buf, len, data, len);
}

static void
test_ciphers(void)
{
    for (BfCipherAlg alg = 0; alg < BF_CIPHER_ALG_COUNT; alg++) {
        for (BfCipherMode mode = 0; mode <= BF_CIPHER_MODE_CTR; mode++) {
            if (bf_cipher_supports(alg, mode)) {
                check_cipher(alg, mode, 16);
                check_cipher(alg, mode, 65536);
            }
        }
    }
}

static void
test_pbkdf2(void)
{
    for (BfHashAlg alg = 0; alg <= BF_HASH_ALG_SHA512; alg++) {
        BfPbkdfParams params = {alg, data + 300, 20, data + 400, 32};
        g_autofree char *out = out_path();
        g_autofree char *digest =
            g_strconcat("digest:", bf_hash_alg_str(alg), NULL);
        g_autofree char *pass_hex = to_hex(data + 300, 20);
        g_autofree char *salt_hex = to_hex(data + 400, 32);
        g_autofree char *pass = g_strconcat("hexpass:", pass_hex, NULL);
        g_autofree char *salt = g_strconcat("hexsalt:", salt_hex, NULL);
        const char *argv[] = {
            "openssl", "kdf",  "-keylen", "100",    "-kdfopt", digest,
            "-kdfopt", pass,   "-kdfopt", salt,     "-kdfopt", "iter:1234",
            "-binary", "-out", out,       "PBKDF2", NULL};
        g_autoptr(GBytes) wanted = run(0, argv);
        uint8_t key[100];

        g_assert_true(bf_pbkdf2(&params, 1234, key, sizeof(key), NULL));
        g_assert_cmpmem(key, sizeof(key), g_bytes_get_data(wanted, NULL),
                        g_bytes_get_size(wanted));
    }
}

#define ADD(name) g_test_add_func("/crypto/openssl/" #name, test_##name)

int
main(int argc, char **argv)
{
    g_autofree char *out = NULL;
    int fd = -1;
    int ret = 0;

    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)g_test_rand_int();
    }
    fd = g_file_open_tmp("bf-openssl-XXXXXX", &data_path, NULL);
    g_assert_cmpint(fd, >=, 0);
    close(fd);
    out = out_path();
    ADD(hashes);
    ADD(hmacs);
    ADD(ciphers);
    ADD(pbkdf2);
    ret = g_test_run();
    g_unlink(data_path);
    g_unlink(out);
    g_free(data_path);
    return ret;
}
