/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The watch over certificates: told of at 30, 7 and 1 days, once each, and anew
 * when a certificate is replaced.
 */
#include "serve/tls-watch.h"

#include <string.h>
#include <time.h>

#include "certs.h"
#include "core/util.h"
#include "harness.h"

#define DAY_S 86400
#define DAY_NS (DAY_S * BF_NS_PER_SEC)

static int64_t
fake_now_s(void)
{
    static time_t start;
    static uint64_t start_ns;

    /* Certificates are made for the present; only the watch sees the future. */
    if (start == 0) {
        start = time(NULL);
        start_ns = bf_loop_now_ns();
    }
    return start + (bf_loop_now_ns() - start_ns) / BF_NS_PER_SEC;
}

static void
note_event(void *opaque, const char *id, int days,
           const BfTlsCertificateInfo *cert)
{
    GString *log = opaque;

    g_assert_cmpstr(id, ==, "tls0");
    g_assert_cmpint(cert->days_left, <=, days);
    g_string_append_printf(log, "%s:%d ", cert->subject, days);
}

static const BfTlsEvents events = {.expiring = note_event};

static void
write_server(const char *dir, const BfTestCert *ca, int days)
{
    const BfTestCertSpec spec = {.cn = "s",
                                 .until_s = (gint64)days * DAY_S + 3600};
    g_autoptr(BfTestCert) leaf = bf_test_cert_new(&spec, ca);

    bf_test_write_certs(dir, "ca-cert.pem", ca, NULL);
    bf_test_write_certs(dir, "server-cert.pem", leaf, NULL);
    bf_test_write_key(dir, "server-key.pem", leaf);
}

static void
add_object(BfObjects *objects, const char *dir)
{
    g_autoptr(BfObjectOptions) options = bf_type_new(&bf_object_options_type);
    BfTlsCredsX509Properties *props =
        bf_type_new(&bf_tls_creds_x509_properties_type);
    g_autoptr(GError) error = NULL;

    options->qom_type = BF_OBJECT_TYPE_TLS_CREDS_X509;
    options->id = g_strdup("tls0");
    options->u.tls_creds_x509 = props;
    props->dir = g_strdup(dir);
    props->endpoint = BF_QCRYPTO_TLS_CREDS_ENDPOINT_SERVER;
    props->sanity_check = true;
    bf_objects_co_add(objects, options, &error);
    g_assert_no_error(error);
}

static void
expect(GString *log, const char *text)
{
    g_assert_cmpstr(log->str, ==, text);
    g_string_truncate(log, 0);
}

static void
advance(int days)
{
    bf_test_advance(days * DAY_NS);
}

static void
test_each_threshold_once(void *arg)
{
    const BfTestCertSpec ca_spec = {
        .cn = "ca", .ca = 1, .until_s = 400 * DAY_S};
    g_autoptr(BfTestCert) ca = bf_test_cert_new(&ca_spec, NULL);
    char *dir = bf_test_tmp_dir();
    BfObjects *objects = bf_objects_new(bf_loop_self());
    g_autoptr(GString) log = g_string_new(NULL);
    BfTlsWatch *watch = bf_tls_watch_new(objects, &events, log, fake_now_s);
    g_autoptr(GError) error = NULL;

    /* They are what is tested. */
    g_log_set_always_fatal(G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL);
    fake_now_s();
    bf_objects_set_tls_loaded(objects, bf_tls_watch_look, watch);
    write_server(dir, ca, 40);
    add_object(objects, dir);
    expect(log, "");
    advance(9);
    expect(log, "");
    advance(2);
    expect(log, "CN=s:30 ");
    advance(1);
    bf_tls_watch_look(watch);
    expect(log, "");
    advance(22);
    expect(log, "CN=s:7 ");
    advance(6);
    expect(log, "CN=s:1 ");
    advance(5); /* it has ended */
    expect(log, "");

    /* A new one, which is late already from the watch's point of view: it is
     * told of only what counts. */
    write_server(dir, ca, 50);
    g_assert_true(bf_objects_co_reload_tls_creds(objects, NULL, &error));
    expect(log, "CN=s:7 ");
    write_server(dir, ca, 300);
    g_assert_true(bf_objects_co_reload_tls_creds(objects, "tls0", &error));
    expect(log, "");
    bf_tls_watch_free(watch);
    bf_objects_co_free(objects);
    bf_test_remove_dir(dir);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add_fake("/serve/tls-watch/each-threshold-once",
                     test_each_threshold_once);
    return g_test_run();
}
