/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When a session changes the key that it writes with, and how often it did.
 *
 * Both record engines do that by themselves long before a key has protected as
 * much as it may, but after more than 100 GiB. BLOCKFERRY_TLS_REKEY_RECORDS
 * makes it soon, for tests; then not faster than a peer takes key updates, as
 * too many of them in a second count as an attack.
 */
#include "tls-private.h"

#include "core/error.h"

#define REKEY_VARIABLE "BLOCKFERRY_TLS_REKEY_RECORDS"
/* Fewer records would fit into the buffers of a connection that is stuck, and
 * so would too many key updates. */
#define REKEY_RECORDS_MIN 256
#define REKEY_RECORDS_MAX (UINT64_C(1) << 23)
#define REKEY_PAUSE_US (G_USEC_PER_SEC / 5)

bool
bf_tls_rekey_init(BfTlsRekey *rekey, GError **error)
{
    const char *text = g_getenv(REKEY_VARIABLE);
    guint64 records = 0;

    *rekey = (BfTlsRekey){.after = 0};
    if (text == NULL) {
        return true;
    }
    if (!g_ascii_string_to_unsigned(text, 10, REKEY_RECORDS_MIN,
                                    REKEY_RECORDS_MAX, &records, NULL)) {
        bf_set_error(error,
                     "Cannot create a TLS session: the environment variable "
                     "%s is '%s'; it takes a number of records from %d to "
                     "%" G_GUINT64_FORMAT,
                     REKEY_VARIABLE, text, REKEY_RECORDS_MIN,
                     REKEY_RECORDS_MAX);
        return false;
    }
    rekey->after = records;
    rekey->pause_us = REKEY_PAUSE_US;
    return true;
}

bool
bf_tls_rekey_is_due(const BfTlsRekey *rekey, uint64_t records)
{
    return rekey->after != 0 && records >= rekey->after &&
           (rekey->pause_us == 0 ||
            g_get_monotonic_time() - rekey->last_us >= rekey->pause_us);
}

void
bf_tls_rekey_note(BfTlsRekey *rekey)
{
    rekey->sent++;
    if (rekey->pause_us != 0) {
        rekey->last_us = g_get_monotonic_time();
    }
}

void
bf_tls_rekey_log(const BfTlsRekey *rekey, const char *engine)
{
    if (rekey->sent > 0 || rekey->received > 0) {
        g_debug("TLS session ends, records by %s: %" G_GUINT64_FORMAT
                " key updates sent, %" G_GUINT64_FORMAT " received",
                engine, rekey->sent, rekey->received);
    }
}
