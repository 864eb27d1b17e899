/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an NBD server offers, asked without using any of it.
 */
#pragma once

#include "crypto/tls-creds.h"
#include "io/address.h"
#include "proto/nbd.h"

/**
 * BfNbdOffer: an export of a server
 * @name: owned: its name, fit to be shown
 * @description: owned, the same; or NULL
 * @has_info: the server has told @info
 * @info: size, flags, and block sizes, which are 0 if it has not told them
 * @contexts: owned: names of the metadata contexts, fit to be shown; NULL if it
 *     has none to tell
 */
typedef struct BfNbdOffer {
    char *name;
    char *description;
    bool has_info;
    BfNbdExportInfo info;
    GPtrArray *contexts;
} BfNbdOffer;

/**
 * bf_nbd_list_co_run:
 * @address: of the server
 * @creds: (nullable): of endpoint client; nothing is asked without TLS then
 * @hostname: (nullable): what the server's certificate is for
 * @error: set on failure
 *
 * Suspends, for two minutes at most.
 *
 * Returns: (transfer full): the exports (BfNbdOffer) as the server orders them,
 * or NULL
 */
GPtrArray *bf_nbd_list_co_run(const BfSocketAddress *address, BfTlsCreds *creds,
                              const char *hostname, GError **error);
