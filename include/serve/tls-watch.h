/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Watches over the certificates of all TLS credentials and tells in time when
 * one ends. On main.
 */
#pragma once

#include "serve/objects.h"

/**
 * BfTlsEvents: upward notices about TLS credentials, on main
 * @expiring: a certificate of the object @id reached the threshold @days;
 *   its days_left tells how many there are
 */
typedef struct BfTlsEvents {
    void (*expiring)(void *opaque, const char *id, int days,
                     const BfTlsCertificateInfo *cert);
} BfTlsEvents;

/**
 * BfTlsWatch: the watch over the certificates of a daemon
 */
typedef struct BfTlsWatch BfTlsWatch;

/**
 * bf_tls_watch_new:
 * @objects: borrowed: whose TLS credentials are watched
 * @events: (nullable): borrowed constant
 * @opaque: passed to @events
 * @now_s: gives the present time, in seconds since the epoch
 *
 * Looks at all certificates once an hour. Each certificate is told of once for
 * each threshold; one that was replaced by a reload begins anew.
 *
 * Returns: (transfer full): a watch
 */
BfTlsWatch *bf_tls_watch_new(BfObjects *objects, const BfTlsEvents *events,
                             void *opaque, int64_t (*now_s)(void));

/**
 * bf_tls_watch_look:
 * @watch: (type BfTlsWatch): a watch; a pointer without type, so that it fits
 *   bf_objects_set_tls_loaded()
 *
 * Looks at all certificates now.
 */
void bf_tls_watch_look(void *watch);

/**
 * bf_tls_watch_free:
 * @watch: (nullable) (transfer full): a watch
 */
void bf_tls_watch_free(BfTlsWatch *watch);
