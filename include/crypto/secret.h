/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Secrets: passwords and keys, in memory of their own that is locked, left out
 * of core dumps, and wiped when it is released.
 *
 * A secret never changes after its creation, so any thread may read it.
 * bf_secret_read(), bf_secret_new() and bf_secret_load_file() read files and
 * may block, %BF_SECRET_READ_MAX_MS at most unless storage hangs: call them on
 * the thread pool.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The most bytes that a secret may hold. */
#define BF_SECRET_MAX_BYTES ((size_t)64 * 1024)

/* The longest time that a pipe may take to give them, milliseconds. */
#define BF_SECRET_READ_MAX_MS 10000

/**
 * BfSecret: secret bytes, counted references, wiped with the last one
 */
typedef struct BfSecret BfSecret;

/**
 * BfSecretFormat: how the bytes of a secret are written down
 * @BF_SECRET_FORMAT_RAW: as they are
 * @BF_SECRET_FORMAT_BASE64: RFC 4648, section 4; line breaks are allowed
 */
typedef enum BfSecretFormat {
    BF_SECRET_FORMAT_RAW,
    BF_SECRET_FORMAT_BASE64,
} BfSecretFormat;

/**
 * BfSecretParams: what a secret is made of
 * @data: (nullable): the secret itself
 * @file: (nullable): path of a file that holds the secret
 * @fd: (nullable): a descriptor to read instead of opening @file, which is then
 *   its name for messages; it is not closed. A regular file is read from its
 *   start, whatever its position.
 * @credential: (nullable): name of a file in the directory that systemd made
 * for the service (LoadCredential= and SetCredential= of systemd.exec)
 * @serial: serial number of a key of the kernel (keyrings(7)), or 0
 * @format: how these bytes are encoded
 * @keyid: (nullable): id of the secret that holds the 32 byte key with which
 *   the data was encrypted (AES-256-CBC, padded as in PKCS#7)
 * @iv: (nullable): base64 of the 16 byte initialisation vector for @keyid
 *
 * Exactly one of @data, @file, @credential and @serial must be set.
 */
typedef struct BfSecretParams {
    const char *data;
    const char *file;
    const int *fd;
    const char *credential;
    int32_t serial;
    BfSecretFormat format;
    const char *keyid;
    const char *iv;
} BfSecretParams;

/**
 * BfSecretLookup: finds another secret by its id
 * @id: the id that a user gave
 * @opaque: what was passed along with the function
 * @error: set when there is no such secret
 *
 * Returns: (transfer full): the secret, or NULL
 */
typedef BfSecret *(*BfSecretLookup)(const char *id, void *opaque,
                                    GError **error);

/**
 * bf_secret_read:
 * @params: where the secret comes from; format, keyid and iv are not looked at
 * @error: set on failure; its text never holds any part of the secret
 *
 * Takes the bytes as they are written down. A file is read once; a newline at
 * its end is part of the secret.
 *
 * Returns: (transfer full): the bytes, or NULL
 */
BfSecret *bf_secret_read(const BfSecretParams *params, GError **error);

/**
 * bf_secret_decode:
 * @written: what bf_secret_read() gave
 * @params: how it is encoded: format, keyid and iv
 * @lookup: (nullable): finds the secret named by the member keyid; needed only
 *   if that member is set
 * @opaque: passed to @lookup
 * @error: set on failure; its text never holds any part of the secret, and says
 *   which of key, iv, length, encoding and padding is wrong
 *
 * Decodes, then decrypts. Does not block.
 *
 * Returns: (transfer full): the secret, or NULL
 */
BfSecret *bf_secret_decode(BfSecret *written, const BfSecretParams *params,
                           BfSecretLookup lookup, void *opaque, GError **error);

/**
 * bf_secret_new:
 * @params: where the secret comes from and how it is encoded
 * @lookup: (nullable): as for bf_secret_decode()
 * @opaque: passed to @lookup
 * @error: set on failure; its text never holds any part of the secret
 *
 * bf_secret_read() and bf_secret_decode() in one.
 *
 * Returns: (transfer full): the secret, or NULL
 */
BfSecret *bf_secret_new(const BfSecretParams *params, BfSecretLookup lookup,
                        void *opaque, GError **error);

/**
 * bf_secret_new_bytes:
 * @bytes: the bytes to copy; may be NULL if @len is 0
 * @len: number of bytes
 *
 * Returns: (transfer full): a secret with a copy of @bytes
 */
BfSecret *bf_secret_new_bytes(const void *bytes, size_t len);

/**
 * bf_secret_load_file:
 * @path: the file to read; a pipe or a terminal too
 * @max_bytes: most bytes that the file may hold
 * @ret_secret: (out): the contents
 *
 * Reads a whole file into memory that is wiped when it is released.
 *
 * Returns: 0, or a negative errno value; -EFBIG if the file is too large,
 *   -ETIMEDOUT if it does not end in %BF_SECRET_READ_MAX_MS
 */
int bf_secret_load_file(const char *path, size_t max_bytes,
                        BfSecret **ret_secret);

/**
 * bf_secret_load_fd:
 * @fd: borrowed: the descriptor to read; a regular file from its start
 * @max_bytes: most bytes that it may give
 * @max_ms: the longest time that it may take, milliseconds
 * @ret_secret: (out): the contents
 *
 * As bf_secret_load_file(), of a descriptor that is open.
 *
 * Returns: 0, or a negative errno value as bf_secret_load_file()
 */
int bf_secret_load_fd(int fd, size_t max_bytes, unsigned max_ms,
                      BfSecret **ret_secret);

/**
 * bf_secret_ref:
 * @secret: a secret
 *
 * Returns: (transfer full): @secret, with one more reference
 */
BfSecret *bf_secret_ref(BfSecret *secret);

/**
 * bf_secret_unref:
 * @secret: (nullable) (transfer full): a secret
 */
void bf_secret_unref(BfSecret *secret);

/**
 * bf_secret_is_locked:
 * @secret: a secret
 *
 * Returns: false if the system did not allow to lock its memory, which may then
 *   be written to swap space
 */
bool bf_secret_is_locked(const BfSecret *secret);

/**
 * bf_secret_get_bytes:
 * @secret: a secret
 * @ret_len: (out): number of bytes
 *
 * Returns: (transfer none): the bytes, never NULL; a NUL that is not counted
 * follows them
 */
const uint8_t *bf_secret_get_bytes(const BfSecret *secret, size_t *ret_len);

/**
 * bf_secret_get_text:
 * @secret: a secret
 * @id: its id, for the message
 * @error: set if the secret is not UTF-8 or holds a NUL
 *
 * Returns: (transfer none): the secret as text that ends in a NUL, or NULL
 */
const char *bf_secret_get_text(const BfSecret *secret, const char *id,
                               GError **error);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfSecret, bf_secret_unref)
