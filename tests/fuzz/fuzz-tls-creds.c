/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer: files of TLS credentials. The first byte of the input chooses the
 * file and the side, the rest is what the file holds; all others are good.
 */
#include <glib/gstdio.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "../unit/certs.h"
#include "crypto/tls-creds.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {"ca-cert.pem",    "server-cert.pem",
                                    "server-key.pem", "ca-crl.pem",
                                    "dh-params.pem",  "keys.psk"};

/* Made once; the process ends with it. */
typedef struct World {
    char *dir;
    BfTestCert *ca;
    BfTestCert *leaf;
} World;

static World world;

static void
remove_world(void)
{
    bf_test_remove_dir(world.dir);
    bf_test_cert_free(world.leaf);
    bf_test_cert_free(world.ca);
}

static void
write_good(void)
{
    bf_test_write_certs(world.dir, "ca-cert.pem", world.ca, NULL);
    bf_test_write_certs(world.dir, "server-cert.pem", world.leaf, NULL);
    bf_test_write_key(world.dir, "server-key.pem", world.leaf);
    bf_test_write(world.dir, "keys.psk", "alice:0011\n");
}

static void
load(BfTlsCredsKind kind, BfTlsEndpoint endpoint)
{
    const BfTlsCredsParams params = {
        .kind = kind,
        .endpoint = endpoint,
        .dir = world.dir,
        .verify_peer = true,
        .sanity_check = true,
        .username = endpoint == BF_TLS_ENDPOINT_CLIENT ? "alice" : NULL,
        .hostname = "server.example",
    };
    g_autoptr(BfTlsReport) report = bf_tls_report_new();
    g_autoptr(BfTlsCreds) creds = bf_tls_creds_check(&params, report);

    g_assert((creds == NULL) == (report->errors->len > 0));
    for (unsigned int i = 0; i < report->errors->len; i++) {
        g_assert(g_utf8_validate(report->errors->pdata[i], -1, NULL));
    }
    if (creds != NULL) {
        bf_tls_creds_info_free(bf_tls_creds_describe(creds, 0));
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *name;
    g_autofree char *path = NULL;
    BfTlsEndpoint endpoint;

    if (size < 1) {
        return 0;
    }
    if (world.dir == NULL) {
        const BfTestCertSpec spec = {.cn = "server"};

        world.dir = bf_test_tmp_dir();
        world.ca = bf_test_ca_new("ca", NULL);
        world.leaf = bf_test_cert_new(&spec, world.ca);
        write_good();
        atexit(remove_world);
    }
    name = names[data[0] % G_N_ELEMENTS(names)];
    endpoint = data[0] & 0x80 ? BF_TLS_ENDPOINT_CLIENT : BF_TLS_ENDPOINT_SERVER;
    path = g_build_filename(world.dir, name, NULL);
    g_assert(g_file_set_contents_full(path, (const char *)data + 1, size - 1,
                                      G_FILE_SET_CONTENTS_NONE, 0600, NULL));
    load(g_str_equal(name, "keys.psk") ? BF_TLS_CREDS_PSK : BF_TLS_CREDS_X509,
         endpoint);
    g_unlink(path);
    write_good();
    return 0;
}
