/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The watch over certificates: what was told is kept by object, file and serial
 * number, and forgotten with the certificate.
 */
#include "serve/tls-watch.h"

#include "core/loop.h"
#include "core/util.h"

#define LOOK_EVERY_NS (3600 * BF_NS_PER_SEC)
#define DAY_S 86400

/* Days before the end at which somebody is told; the last first. */
static const int thresholds[] = {1, 7, 30};

struct BfTlsWatch {
    BfObjects *objects;        /* borrowed */
    const BfTlsEvents *events; /* (nullable) borrowed */
    void *opaque;
    int64_t (*now_s)(void);
    GHashTable *told; /* owned: name of a certificate to its last threshold */
    BfTimer timer;
    bool is_due; /* it looks because time has passed */
};

/* The threshold that was passed last, or 0. */
static int
find_threshold(int64_t seconds_left)
{
    for (size_t i = 0; i < G_N_ELEMENTS(thresholds); i++) {
        if (seconds_left <= (int64_t)thresholds[i] * DAY_S) {
            return thresholds[i];
        }
    }
    return 0;
}

/* Loading credentials has its own warnings. */
static void
tell(const BfTlsWatch *watch, const char *id, int days,
     const BfTlsCertificateInfo *cert)
{
    if (watch->is_due) {
        g_warning("TLS credentials '%s': the certificate '%s' in %s %s on %s "
                  "(%" G_GINT64_FORMAT " days); replace the file, then run "
                  "tls-creds-reload",
                  id, cert->subject, cert->file,
                  cert->days_left >= 0 ? "ends" : "has ended",
                  cert->valid_until, cert->days_left);
    }
    if (watch->events != NULL) {
        watch->events->expiring(watch->opaque, id, days, cert);
    }
}

static void
look_at(BfTlsWatch *watch, const BfTlsCredsInfo *info, int64_t now_s,
        GHashTable *told)
{
    for (size_t i = 0; i < info->certificates->len; i++) {
        const BfTlsCertificateInfo *cert = info->certificates->items[i];
        int days = find_threshold(cert->valid_until_seconds - now_s);
        char *name = NULL;
        int before;

        if (days == 0) {
            continue;
        }
        /* The issuer comes last, as it may contain anything. */
        name = g_strdup_printf("%s %s %s %s", info->id, cert->serial,
                               cert->valid_until, cert->issuer);
        before = GPOINTER_TO_INT(g_hash_table_lookup(watch->told, name));
        if ((before == 0 || days < before) &&
            !g_hash_table_contains(told, name)) {
            tell(watch, info->id, days, cert);
        }
        g_hash_table_insert(told, name, GINT_TO_POINTER(days));
    }
}

void
bf_tls_watch_look(void *arg)
{
    BfTlsWatch *watch = arg;
    int64_t now_s = watch->now_s();
    g_autoptr(GPtrArray) infos =
        bf_objects_query_tls_creds(watch->objects, now_s);
    GHashTable *told =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

    for (unsigned i = 0; i < infos->len; i++) {
        look_at(watch, g_ptr_array_index(infos, i), now_s, told);
    }
    g_hash_table_unref(watch->told);
    watch->told = told;
}

static void
timer_fired(void *arg)
{
    BfTlsWatch *watch = arg;

    watch->is_due = true;
    bf_tls_watch_look(watch);
    watch->is_due = false;
    bf_timer_start(&watch->timer, LOOK_EVERY_NS, timer_fired, watch);
}

BfTlsWatch *
bf_tls_watch_new(BfObjects *objects, const BfTlsEvents *events, void *opaque,
                 int64_t (*now_s)(void))
{
    BfTlsWatch *watch = g_new0(BfTlsWatch, 1);

    bf_assert_main();
    watch->objects = objects;
    watch->events = events;
    watch->opaque = opaque;
    watch->now_s = now_s;
    watch->told = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    bf_timer_start(&watch->timer, LOOK_EVERY_NS, timer_fired, watch);
    return watch;
}

void
bf_tls_watch_free(BfTlsWatch *watch)
{
    if (watch != NULL) {
        bf_timer_stop(&watch->timer);
        g_hash_table_unref(watch->told);
        g_free(watch);
    }
}
