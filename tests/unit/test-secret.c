/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Secrets: where they come from, how they are decoded, what is refused. */
#include "crypto/secret.h"

#include <gnutls/crypto.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "core/error.h"

static const char key_bytes[] = "0123456789abcdef0123456789abcdef";
/* base64 of "ABCDEFGHIJKLMNOP" */
#define IV_TEXT "QUJDREVGR0hJSktMTU5PUA=="

/* Knows "key" (32 bytes) and "short" (5 bytes). */
static BfSecret *
find_secret(const char *id, void *opaque, GError **error)
{
    if (g_str_equal(id, "key")) {
        return bf_secret_new_bytes(key_bytes, 32);
    }
    if (g_str_equal(id, "short")) {
        return bf_secret_new_bytes("short", 5);
    }
    bf_set_error(error, "No secret with id '%s'", id);
    return NULL;
}

static void
assert_secret(const BfSecretParams *params, const void *bytes, size_t len)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BfSecret) secret =
        bf_secret_new(params, find_secret, NULL, &error);
    const uint8_t *got;
    size_t got_len;

    g_assert_no_error(error);
    got = bf_secret_get_bytes(secret, &got_len);
    g_assert_cmpmem(got, got_len, bytes, len);
    g_assert_cmpint(got[got_len], ==, 0);
}

static void
assert_refused(const BfSecretParams *params, const char *phrase)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BfSecret) secret =
        bf_secret_new(params, find_secret, NULL, &error);

    g_assert_null(secret);
    g_assert_error(error, BF_ERROR, BF_ERROR_GENERIC);
    if (strstr(error->message, phrase) == NULL) {
        g_error("'%s' is not in '%s'", phrase, error->message);
    }
}

static void
test_takes_inline_data(void)
{
    assert_secret(&(BfSecretParams){.data = "letmein"}, "letmein", 7);
    assert_secret(&(BfSecretParams){.data = ""}, "", 0);
}

static void
test_needs_exactly_one_source(void)
{
    assert_refused(&(BfSecretParams){0},
                   "Either 'file' or 'data' must be provided");
    assert_refused(&(BfSecretParams){.data = "a", .file = "/b"},
                   "'file' and 'data' are mutually exclusive");
}

static char *
write_temp(const char *bytes, size_t len)
{
    g_autoptr(GError) error = NULL;
    char *path = NULL;
    int fd = g_file_open_tmp("blockferry-test-XXXXXX", &path, &error);

    g_assert_no_error(error);
    g_assert_cmpint(write(fd, bytes, len), ==, (ssize_t)len);
    close(fd);
    return path;
}

static void
test_takes_file_with_newline(void)
{
    g_autofree char *path = write_temp("pass\0word\n", 10);

    assert_secret(&(BfSecretParams){.file = path}, "pass\0word\n", 10);
    g_unlink(path);
}

static void
test_reads_sizes_around_buffer_steps(void)
{
    for (size_t len = 0; len < 9000; len = len * 2 + 1) {
        g_autofree char *bytes = g_malloc(len + 1);
        g_autofree char *path = NULL;

        memset(bytes, 'x', len);
        path = write_temp(bytes, len);
        assert_secret(&(BfSecretParams){.file = path}, bytes, len);
        g_unlink(path);
    }
}

static void
test_reads_a_pipe(void)
{
    g_autofree char *bytes = g_strnfill(20000, 'p');
    char path[64];
    int fds[2];

    g_assert_cmpint(pipe(fds), ==, 0);
    g_assert_cmpint(write(fds[1], bytes, 20000), ==, 20000);
    close(fds[1]);
    snprintf(path, sizeof(path), "/dev/fd/%d", fds[0]);
    assert_secret(&(BfSecretParams){.file = path}, bytes, 20000);
    close(fds[0]);
}

static void
test_missing_file_is_named(void)
{
    assert_refused(&(BfSecretParams){.file = "/does/not/exist"},
                   "Unable to read /does/not/exist: No such file");
    assert_refused(&(BfSecretParams){.file = "/"}, "Is a directory");
}

static void
test_file_size_is_limited(void)
{
    g_autofree char *bytes = g_strnfill(4097, 'x');
    g_autofree char *path = write_temp(bytes, 4097);
    BfSecret *secret = NULL;

    g_assert_cmpint(bf_secret_load_file(path, 4096, &secret), ==, -EFBIG);
    g_assert_cmpint(bf_secret_load_file(path, 4097, &secret), ==, 0);
    bf_secret_unref(secret);
    g_unlink(path);
    assert_refused(&(BfSecretParams){.file = "/dev/zero"}, "more than");
}

static void
test_decodes_base64(void)
{
    BfSecretParams p = {.format = BF_SECRET_FORMAT_BASE64};
    static const struct {
        const char *text;
        const char *bytes;
        size_t len;
    } cases[] = {
        {"", "", 0},
        {"YQ==", "a", 1},
        {"YWI=", "ab", 2},
        {"YWJj", "abc", 3},
        {"YWJjZA==", "abcd", 4},
        {"YW\nJj\r\n", "abc", 3},
        {"+/8A", "\xfb\xff\0", 3},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        p.data = cases[i].text;
        assert_secret(&p, cases[i].bytes, cases[i].len);
    }
}

static void
test_base64_agrees_with_glib(void)
{
    for (size_t len = 0; len < 100; len++) {
        guint8 bytes[100];
        g_autofree char *text = NULL;
        BfSecretParams p = {.format = BF_SECRET_FORMAT_BASE64};

        for (size_t i = 0; i < len; i++) {
            bytes[i] = g_test_rand_int();
        }
        text = g_base64_encode(bytes, len);
        p.data = text;
        assert_secret(&p, bytes, len);
    }
}

static void
test_refuses_bad_base64(void)
{
    static const char *const invalid[] = {"YWJ*", "YQ==YQ==", "=YWJj", "Y W="};
    static const char *const incomplete[] = {"Y",   "YW",    "YWI", "YWJjZ",
                                             "YQ=", "YWJj=", "===="};

    for (size_t i = 0; i < G_N_ELEMENTS(invalid); i++) {
        BfSecretParams p = {.format = BF_SECRET_FORMAT_BASE64};

        p.data = invalid[i];
        assert_refused(&p, "Base64 data contains invalid characters");
    }
    for (size_t i = 0; i < G_N_ELEMENTS(incomplete); i++) {
        BfSecretParams p = {.format = BF_SECRET_FORMAT_BASE64};

        p.data = incomplete[i];
        assert_refused(&p, "is not valid");
    }
}

/* AES-256-CBC with the known key and IV, over @plain as it is. */
static void
encrypt(const void *plain, size_t len, guint8 *ret_cipher)
{
    gnutls_datum_t key = {(unsigned char *)key_bytes, 32};
    gnutls_datum_t iv = {(unsigned char *)"ABCDEFGHIJKLMNOP", 16};
    gnutls_cipher_hd_t cipher;

    g_assert_cmpint(
        gnutls_cipher_init(&cipher, GNUTLS_CIPHER_AES_256_CBC, &key, &iv), ==,
        0);
    g_assert_cmpint(gnutls_cipher_encrypt2(cipher, plain, len, ret_cipher, len),
                    ==, 0);
    gnutls_cipher_deinit(cipher);
}

static void
test_unwraps_every_length(void)
{
    for (size_t len = 0; len < 50; len++) {
        guint8 plain[64];
        guint8 wrapped[64];
        size_t padded = len / 16 * 16 + 16;
        g_autofree char *text = NULL;
        BfSecretParams p = {
            .format = BF_SECRET_FORMAT_BASE64, .keyid = "key", .iv = IV_TEXT};

        memset(plain, 's', len);
        memset(plain + len, padded - len, padded - len);
        encrypt(plain, padded, wrapped);
        text = g_base64_encode(wrapped, padded);
        p.data = text;
        assert_secret(&p, plain, len);
    }
}

static void
test_unwraps_raw_file(void)
{
    static const char plain[] = "0123456789\x06\x06\x06\x06\x06\x06";
    guint8 wrapped[16];
    g_autofree char *path = NULL;

    encrypt(plain, 16, wrapped);
    path = write_temp((const char *)wrapped, 16);
    assert_secret(
        &(BfSecretParams){.file = path, .keyid = "key", .iv = IV_TEXT}, plain,
        10);
    g_unlink(path);
}

static void
test_refuses_bad_padding(void)
{
    static const guint8 bad[] = {0, 17, 255};

    for (size_t i = 0; i < sizeof(bad); i++) {
        guint8 plain[32] = {0};
        guint8 wrapped[32];
        g_autofree char *text = NULL;
        BfSecretParams p = {
            .format = BF_SECRET_FORMAT_BASE64, .keyid = "key", .iv = IV_TEXT};
        g_autofree char *phrase = g_strdup_printf(
            "Incorrect number of padding bytes (%u) found on decrypted data: "
            "the key is wrong (secret 'key')",
            bad[i]);

        plain[31] = bad[i];
        encrypt(plain, 32, wrapped);
        text = g_base64_encode(wrapped, 32);
        p.data = text;
        assert_refused(&p, phrase);
    }
}

/* PKCS#7 has the number in all bytes; in one block, the iv matters as well. */
static void
test_all_padding_is_checked(void)
{
    static const char plain[] = "0123456789ab\x04\x03\x04\x04";
    guint8 wrapped[16];
    g_autofree char *text = NULL;
    BfSecretParams p = {
        .format = BF_SECRET_FORMAT_BASE64, .keyid = "key", .iv = IV_TEXT};

    encrypt(plain, 16, wrapped);
    text = g_base64_encode(wrapped, 16);
    p.data = text;
    assert_refused(&p, "padding bytes (4) found on decrypted data: key or "
                       "'iv' is wrong");
}

static void
test_refuses_wrong_key_or_iv(void)
{
    BfSecretParams p = {.data = "0123456789abcdef", .keyid = "none"};

    assert_refused(&p, "No secret with id 'none'");
    p.keyid = "short";
    assert_refused(&p, "Key should be 32 bytes in length");
    p.keyid = "key";
    assert_refused(&p, "IV is required to decrypt secret");
    p.iv = "YQ==";
    assert_refused(&p, "IV should be 16 bytes in length not 1");
    p.iv = "not base64";
    assert_refused(&p, "invalid characters ('iv'");
    p.iv = IV_TEXT;
    p.keyid = NULL;
    assert_refused(&p, "'iv' is for data that is encrypted: set 'keyid'");
}

static void
test_refuses_wrong_cipher_length(void)
{
    BfSecretParams p = {.keyid = "key", .iv = IV_TEXT};

    p.data = "x";
    assert_refused(&p, "Length 1 must be a multiple of block size 16");
    p.data = "";
    assert_refused(&p, "Length 0 must be a multiple of block size 16");
}

static void
test_text_must_be_utf8(void)
{
    g_autoptr(BfSecret) good = bf_secret_new_bytes("gr\xc3\xbc\xc3\x9f", 6);
    g_autoptr(BfSecret) bad = bf_secret_new_bytes("\xff", 1);
    g_autoptr(BfSecret) nul = bf_secret_new_bytes("a\0b", 3);
    g_autoptr(GError) error = NULL;

    g_assert_cmpstr(bf_secret_get_text(good, "s", &error), ==,
                    "gr\xc3\xbc\xc3\x9f");
    g_assert_no_error(error);
    g_assert_null(bf_secret_get_text(nul, "s0", NULL));
    g_assert_null(bf_secret_get_text(bad, "s0", &error));
    g_assert_nonnull(
        strstr(error->message, "Data from secret s0 is not valid UTF-8"));
}

static void
test_message_never_quotes_secret(void)
{
    g_autoptr(GError) error = NULL;
    BfSecretParams p = {.data = "hunter2*", .format = BF_SECRET_FORMAT_BASE64};

    g_assert_null(bf_secret_new(&p, find_secret, NULL, &error));
    g_assert_null(strstr(error->message, "hunter2"));
}

static void
test_references_are_counted(void)
{
    BfSecret *secret = bf_secret_new_bytes("x", 1);
    size_t len;

    g_assert_true(bf_secret_ref(secret) == secret);
    bf_secret_unref(secret);
    g_assert_cmpint(bf_secret_get_bytes(secret, &len)[0], ==, 'x');
    bf_secret_unref(secret);
    bf_secret_unref(NULL);
}

#define ADD(path, name) g_test_add_func("/crypto/secret/" path, test_##name)

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("new/takes-inline-data", takes_inline_data);
    ADD("new/needs-exactly-one-source", needs_exactly_one_source);
    ADD("new/takes-file-with-newline", takes_file_with_newline);
    ADD("new/reads-a-pipe", reads_a_pipe);
    ADD("new/reads-sizes", reads_sizes_around_buffer_steps);
    ADD("new/missing-file-is-named", missing_file_is_named);
    ADD("new/decodes-base64", decodes_base64);
    ADD("new/base64-agrees-with-glib", base64_agrees_with_glib);
    ADD("new/refuses-bad-base64", refuses_bad_base64);
    ADD("new/unwraps-every-length", unwraps_every_length);
    ADD("new/unwraps-raw-file", unwraps_raw_file);
    ADD("new/refuses-bad-padding", refuses_bad_padding);
    ADD("new/all-padding-is-checked", all_padding_is_checked);
    ADD("new/refuses-wrong-key-or-iv", refuses_wrong_key_or_iv);
    ADD("new/refuses-wrong-cipher-length", refuses_wrong_cipher_length);
    ADD("new/message-never-quotes-secret", message_never_quotes_secret);
    ADD("load-file/size-is-limited", file_size_is_limited);
    ADD("get-text/must-be-utf8", text_must_be_utf8);
    ADD("ref/references-are-counted", references_are_counted);
    return g_test_run();
}
