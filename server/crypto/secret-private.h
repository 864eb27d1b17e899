/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A secret as the sources that fill one see it.
 */
#pragma once

#include "crypto/secret.h"

struct BfSecret {
    uint8_t *bytes; /* @len bytes in use, then at least one NUL; owned */
    size_t len;
    size_t mapped; /* bytes of the mapping */
    bool is_locked;
};

/* A secret of @len zero bytes, to be filled (transfer full). */
BfSecret *bf_secret_alloc(size_t len);

/* Makes @secret shorter; what is cut off is wiped. */
void bf_secret_cut(BfSecret *secret, size_t len);
