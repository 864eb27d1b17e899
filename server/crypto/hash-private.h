/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What hash.c, hmac.c and pbkdf.c know about a hash function.
 */
#pragma once

#include <gnutls/gnutls.h>

#include "crypto/hash.h"

#if BF_HAVE_NETTLE
#include <nettle/nettle-meta.h>
#endif

/* A hash function: by GnuTLS, or by nettle if GnuTLS does not have it. */
typedef struct BfHashKind {
    const char *name;
    size_t size;
    gnutls_digest_algorithm_t digest; /* GNUTLS_DIG_UNKNOWN: nettle's */
    gnutls_mac_algorithm_t mac;
} BfHashKind;

/* The row of @alg. */
const BfHashKind *bf_hash_kind(BfHashAlg alg);

/* Says that @alg is not supported; @ret: GnuTLS's reason, or 0 for nettle. */
void bf_hash_set_unsupported(BfHashAlg alg, int ret, GError **error);

/* The bytes of a result as text in hexadecimal digits (transfer full). */
char *bf_hash_to_hex(const uint8_t *digest, size_t len);
