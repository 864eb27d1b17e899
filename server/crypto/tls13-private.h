/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Our own records for TLS 1.3: keys (tls13-keys.c), the libraries that have the
 * cipher (tls13-aead*.c) and the engine that uses them (tls13-records.c).
 *
 * gnutls does the handshake. Then, if it agreed on AES-GCM, its session is
 * dropped and the keys are ours. Which library computes the cipher only
 * bf_tls13_keys_*() know.
 */
#pragma once

#include "tls-private.h"

#include <gnutls/crypto.h>

/* SHA-384 */
#define BF_TLS13_SECRET_MAX_BYTES 48
#define BF_TLS13_KEY_MAX_BYTES 32
#define BF_TLS13_IV_BYTES 12
#define BF_TLS13_TAG_BYTES 16
#define BF_TLS13_HEADER_BYTES 5
/* What a record adds to its data: header, content type and tag. */
#define BF_TLS13_OVERHEAD_BYTES (BF_TLS13_HEADER_BYTES + 1 + BF_TLS13_TAG_BYTES)
/* Type and length of a handshake message, and the body of a key update. */
#define BF_TLS13_MESSAGE_BYTES 5

/**
 * BfTls13Suite: what the handshake agreed on
 * @cipher: AES-128-GCM or AES-256-GCM
 * @hash: the hash of the key schedule
 * @secret_bytes: length of a traffic secret
 * @key_bytes: length of a key
 */
typedef struct BfTls13Suite {
    gnutls_cipher_algorithm_t cipher;
    gnutls_mac_algorithm_t hash;
    size_t secret_bytes;
    size_t key_bytes;
} BfTls13Suite;

/**
 * BfTls13AeadOps: a library that has AES-GCM
 *
 * All of them give the same bytes, for a nonce of BF_TLS13_IV_BYTES, a header
 * of BF_TLS13_HEADER_BYTES as what is authenticated only, and a tag of
 * BF_TLS13_TAG_BYTES behind what is encrypted.
 *
 * @name: what users know it as
 * @open: takes a key, of which it keeps no copy but in @ret_aead; gives 0 or a
 * gnutls error code
 * @close: wipes and releases the result of @open
 * @encrypt: see bf_tls13_keys_encrypt()
 * @decrypt: see bf_tls13_keys_decrypt(), but if it gives false, @dest may hold
 * anything
 */
typedef struct BfTls13AeadOps {
    const char *name;
    int (*open)(const BfTls13Suite *suite, const uint8_t *key, void **ret_aead);
    void (*close)(void *aead);
    int (*encrypt)(void *aead, const uint8_t *nonce, const uint8_t *header,
                   uint8_t *bytes, size_t len);
    bool (*decrypt)(void *aead, const uint8_t *nonce, const uint8_t *header,
                    const uint8_t *src, uint8_t *dest, size_t len);
} BfTls13AeadOps;

/* The one that is always there. */
extern const BfTls13AeadOps bf_tls13_aead_gnutls;

/**
 * bf_tls13_aead_get_ipsec_mb:
 * @error: (optional): says what is missing
 *
 * Any thread may call it. The library is set up by the first call.
 *
 * Returns: (transfer none): libipsec-mb, if this program was built with it and
 * it runs on this processor; else NULL
 */
const BfTls13AeadOps *bf_tls13_aead_get_ipsec_mb(GError **error);

/**
 * bf_tls13_aead_has_fast_ipsec_mb:
 *
 * Does not touch the library where the processor has not got what it takes.
 *
 * Returns: true if libipsec-mb is there, and faster here than the others
 */
bool bf_tls13_aead_has_fast_ipsec_mb(void);

/**
 * bf_tls13_aead_choose:
 *
 * Returns: (transfer none): the library that is best here
 */
const BfTls13AeadOps *bf_tls13_aead_choose(void);

/**
 * BfTls13Keys: the keys of one direction
 * @secret: the traffic secret that everything else follows from
 * @secret_len: its length; 0 while there is none
 * @iv: what the sequence number is mixed into
 * @sequence: number of the next record; starts at 0 with each key
 * @library: what computes the cipher; set before the first key is derived
 * @aead: the cipher with its key, as @library has it; or NULL
 */
typedef struct BfTls13Keys {
    uint8_t secret[BF_TLS13_SECRET_MAX_BYTES];
    size_t secret_len;
    uint8_t iv[BF_TLS13_IV_BYTES];
    uint64_t sequence;
    const BfTls13AeadOps *library;
    void *aead;
} BfTls13Keys;

struct BfTls13 {
    gnutls_keylog_func keylog; /* the one that ours calls; or NULL */
    bool is_server;
    bool hello_read;           /* the peer's limits are known */
    const BfTls13Suite *suite; /* NULL before the take-over */
    BfTls13Keys read;
    BfTls13Keys write;
    size_t max_record;     /* most data that the peer takes in one record */
    bool update_due;       /* the peer wants us to change our key */
    size_t offered;        /* bytes that the last seal_space has room for */
    size_t plain;          /* opened bytes at the start of the input */
    size_t behind;         /* what follows them and is to be dropped */
    unsigned idle_records; /* in a row that carried no data */
    unsigned key_updates;  /* that came since @key_updates_since */
    gint64 key_updates_since;
    uint8_t message[BF_TLS13_MESSAGE_BYTES]; /* one that is still incomplete */
    size_t message_len;
    size_t message_skip; /* bytes of a message that is of no interest */
    const char *fault;   /* why reading cannot go on; NULL while it can */
    int fault_alert;     /* what the peer is told of it; -1 for nothing */
    int peer_alert;      /* the alert that came from the peer; -1 for none */
};

/* The record engine for TLS 1.3 with AES-GCM. */
extern const BfTlsRecordOps bf_tls_records_own;

/**
 * bf_tls13_prepare:
 * @session: a session before its handshake
 * @library: what is to compute the cipher
 *
 * Makes gnutls hand out the secrets when there are any.
 */
void bf_tls13_prepare(BfTlsSession *session, const BfTls13AeadOps *library);

/**
 * bf_tls13_take_over:
 * @session: a session that was verified just now
 *
 * Replaces gnutls by our own records, if the session was prepared and what the
 * handshake agreed on allows it; forgets the secrets otherwise.
 */
void bf_tls13_take_over(BfTlsSession *session);

/**
 * bf_tls13_free:
 * @self: (nullable): wipes and releases it
 */
void bf_tls13_free(BfTls13 *self);

/**
 * bf_tls13_find_suite:
 * @tls: a session whose handshake is complete
 *
 * Returns: (transfer none) (nullable): NULL if our engine cannot do what was
 * agreed on
 */
const BfTls13Suite *bf_tls13_find_suite(gnutls_session_t tls);

/**
 * bf_tls13_keys_match:
 * @keys: a direction with its secret
 * @suite: what was agreed on
 * @tls: the session that the secret is from
 * @read: whether it is the direction that @tls reads
 *
 * Derives the keys and compares them with those that @tls uses, whose sequence
 * number is taken on.
 *
 * Returns: true if they are the same and ready for use
 */
bool bf_tls13_keys_match(BfTls13Keys *keys, const BfTls13Suite *suite,
                         gnutls_session_t tls, bool read);

/**
 * bf_tls13_keys_derive:
 * @keys: a direction with its secret
 * @suite: what was agreed on
 * @key: (out caller-allocates): room for BF_TLS13_KEY_MAX_BYTES; the raw key,
 * for the caller to compare and to wipe, also when it fails
 *
 * Makes key and IV of the secret; the next record is number 0.
 *
 * Returns: 0, or a gnutls error code
 */
int bf_tls13_keys_derive(BfTls13Keys *keys, const BfTls13Suite *suite,
                         uint8_t *key);

/**
 * bf_tls13_keys_next:
 * @keys: a direction in use
 * @suite: what was agreed on
 *
 * Goes on to the next secret and its keys, as a key update demands.
 *
 * Returns: 0, or a gnutls error code
 */
int bf_tls13_keys_next(BfTls13Keys *keys, const BfTls13Suite *suite);

/**
 * bf_tls13_keys_clear:
 * @keys: a direction; wiped
 */
void bf_tls13_keys_clear(BfTls13Keys *keys);

/**
 * bf_tls13_keys_encrypt:
 * @keys: the direction
 * @header: the header of the record, BF_TLS13_HEADER_BYTES
 * @bytes: what to encrypt; the tag is put behind it
 * @len: number of bytes without the tag
 *
 * Returns: 0, or a gnutls error code
 */
int bf_tls13_keys_encrypt(BfTls13Keys *keys, const uint8_t *header,
                          uint8_t *bytes, size_t len);

/**
 * bf_tls13_keys_decrypt:
 * @keys: the direction
 * @header: the header of the record, BF_TLS13_HEADER_BYTES
 * @src: what to decrypt
 * @dest: where to put it; apart from @src, or the same
 * @len: number of bytes without the tag, which lies behind
 *
 * Returns: true if the record is genuine; otherwise @dest holds zeroes
 */
bool bf_tls13_keys_decrypt(BfTls13Keys *keys, const uint8_t *header,
                           const uint8_t *src, uint8_t *dest, size_t len);
