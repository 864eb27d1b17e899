/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer: files of TLS credentials. The first byte of the input chooses kind,
 * side and file. The rest is what the file holds, while all others are good; or
 * it says which properties the certificates of a set have. With the keys of a
 * server, clients then try to connect.
 */
#include <glib/gstdio.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/certs.h"
#include "../unit/tls-pair.h"
#include "crypto/tls-creds.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the first byte says beside the file. */
#define MODE_MADE 8      /* a set of certificates instead of a file */
#define MODE_ANON 0x10   /* a kind that needs none of the files */
#define MODE_PSK 0x20    /* for files that several kinds have */
#define MODE_ODD 0x40    /* members of the parameters that do not fit */
#define MODE_CLIENT 0x80 /* the side */

static const char *const names[] = {
    "ca-cert.pem",   "server-cert.pem", "server-key.pem",  "ca-crl.pem",
    "dh-params.pem", "keys.psk",        "client-cert.pem", "client-key.pem",
};

/* Made once; the process ends with it. */
typedef struct World {
    char *dir;
    BfTestCert *ca;
    BfTestCert *leaf;
    BfTlsCreds *users[3]; /* PSK clients: known, of another key, unknown */
} World;

static World world;

static void
remove_world(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(world.users); i++) {
        bf_tls_creds_unref(world.users[i]);
    }
    bf_test_remove_dir(world.dir);
    bf_test_cert_free(world.leaf);
    bf_test_cert_free(world.ca);
}

/* What is written over a file waits for the disk, a new one does not. */
static void
remove_files(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(world.dir, names[i], NULL);

        g_unlink(path);
    }
}

static void
write_set(const BfTestCert *ca, const BfTestCert *leaf)
{
    bf_test_write_certs(world.dir, "ca-cert.pem", ca, NULL);
    bf_test_write_certs(world.dir, "server-cert.pem", leaf, NULL);
    bf_test_write_key(world.dir, "server-key.pem", leaf);
    bf_test_write_certs(world.dir, "client-cert.pem", leaf, NULL);
    bf_test_write_key(world.dir, "client-key.pem", leaf);
}

static void
write_good(void)
{
    remove_files();
    write_set(world.ca, world.leaf);
    bf_test_write(world.dir, "keys.psk", "alice:0011\n");
}

static BfTlsCreds *
new_user(const char *username, const char *keys)
{
    const BfTlsCredsParams params = {
        .kind = BF_TLS_CREDS_PSK,
        .endpoint = BF_TLS_ENDPOINT_CLIENT,
        .dir = world.dir,
        .username = username,
    };
    BfTlsCreds *creds = NULL;

    remove_files();
    bf_test_write(world.dir, "keys.psk", keys);
    creds = bf_tls_creds_new(&params, NULL);
    g_assert_nonnull(creds);
    return creds;
}

static void
make_world(void)
{
    const BfTestCertSpec spec = {.cn = "server"};

    world.dir = bf_test_tmp_dir();
    world.ca = bf_test_ca_new("ca", NULL);
    world.leaf = bf_test_cert_new(&spec, world.ca);
    world.users[0] = new_user("alice", "alice:0011\n");
    world.users[1] = new_user("alice", "alice:0022\n");
    world.users[2] = new_user("bob", "bob:0011\n");
    write_good();
    atexit(remove_world);
}

/* A server reads its keys again for each of them. */
static void
connect_users(BfTlsCreds *server)
{
    for (size_t i = 0; i < G_N_ELEMENTS(world.users); i++) {
        g_auto(BfTestPair) pair = {0};

        bf_test_pair_init(&pair, server, world.users[i], NULL);
        bf_test_pair_handshake(&pair);
        g_assert((pair.server_status == BF_TLS_DONE) ==
                 (pair.server_error == NULL));
    }
}

static void
load(uint8_t mode, BfTlsCredsKind kind)
{
    const bool is_client = (mode & MODE_CLIENT) != 0;
    const bool odd = (mode & MODE_ODD) != 0;
    const BfTlsCredsParams params = {
        .kind = kind,
        .endpoint = is_client ? BF_TLS_ENDPOINT_CLIENT : BF_TLS_ENDPOINT_SERVER,
        .dir = odd && is_client ? NULL : world.dir,
        .verify_peer = true,
        .sanity_check = true,
        .username = is_client != odd ? "alice" : NULL,
        .hostname = odd ? "other.example" : "server.example",
        .needs_hostname = odd,
    };
    g_autoptr(BfTlsReport) report = bf_tls_report_new();
    g_autoptr(BfTlsCreds) creds = bf_tls_creds_check(&params, report);

    g_assert((creds == NULL) == (report->errors->len > 0));
    for (unsigned int i = 0; i < report->errors->len; i++) {
        g_assert(g_utf8_validate(report->errors->pdata[i], -1, NULL));
    }
    if (creds == NULL) {
        return;
    }
    bf_tls_creds_info_free(bf_tls_creds_describe(creds, 0));
    if (kind == BF_TLS_CREDS_PSK && !is_client) {
        connect_users(creds);
    }
}

/* A certificate as four bytes say. */
static BfTestCert *
make_cert(const uint8_t bytes[4], const char *cn, const BfTestCert *issuer)
{
    static const char *const purposes[] = {
        NULL,
        GNUTLS_KP_TLS_WWW_SERVER,
        GNUTLS_KP_TLS_WWW_CLIENT,
        GNUTLS_KP_ANY,
    };
    BfTestCertSpec spec = {
        .cn = cn,
        .ca = bytes[0] % 3 - 1,
        .usage = ((bytes[1] & 1) != 0 ? GNUTLS_KEY_DIGITAL_SIGNATURE : 0) |
                 ((bytes[1] & 2) != 0 ? GNUTLS_KEY_KEY_ENCIPHERMENT : 0) |
                 ((bytes[1] & 4) != 0 ? GNUTLS_KEY_KEY_CERT_SIGN : 0),
        .usage_critical = (bytes[1] & 8) != 0,
        .purpose = purposes[bytes[2] & 3],
        .purpose_critical = (bytes[2] & 4) != 0,
        .rsa = (bytes[2] & 8) != 0,
        .from_s = (bytes[3] & 1) != 0 ? 3600 : -7200,
        .until_s = (bytes[3] & 2) != 0 ? -3600 : 0,
        .dns = {(bytes[3] & 4) != 0 ? "*.example" : NULL},
        .ip = (bytes[3] & 8) != 0 ? "127.0.0.1" : NULL,
    };

    /* To make a key takes longer than all else. */
    spec.key = spec.rsa ? NULL : world.leaf->key;
    return bf_test_cert_new(&spec, issuer);
}

/* A CA, perhaps one below it, and a certificate, of four bytes each; the last
 * byte says who signs and what is revoked. */
static void
write_made(const uint8_t bytes[13])
{
    g_autoptr(BfTestCert) ca = make_cert(bytes, "a ca", NULL);
    g_autoptr(BfTestCert) sub = make_cert(bytes + 4, "a sub ca", ca);
    const BfTestCert *issuer = (bytes[12] & 1) != 0   ? sub
                               : (bytes[12] & 2) != 0 ? world.ca
                                                      : ca;
    g_autoptr(BfTestCert) leaf = make_cert(bytes + 8, "a server", issuer);

    remove_files();
    write_set(ca, leaf);
    bf_test_write(world.dir, "keys.psk", "alice:0011\n");
    if ((bytes[12] & 1) != 0) {
        bf_test_write_certs(world.dir, "server-cert.pem", leaf, sub, NULL);
        bf_test_write_certs(world.dir, "client-cert.pem", leaf, sub, NULL);
    }
    if ((bytes[12] & 4) != 0) {
        bf_test_write_crl(world.dir, "ca-crl.pem",
                          (bytes[12] & 8) != 0 ? world.ca : ca,
                          (bytes[12] & 16) != 0 ? leaf : NULL);
    }
}

static BfTlsCredsKind
kind_of(uint8_t mode, const char *name)
{
    if ((mode & MODE_ANON) != 0) {
        return BF_TLS_CREDS_ANON;
    }
    return (mode & MODE_PSK) != 0 || g_str_equal(name, "keys.psk")
               ? BF_TLS_CREDS_PSK
               : BF_TLS_CREDS_X509;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *name = NULL;
    g_autofree char *path = NULL;

    if (size < 1) {
        return 0;
    }
    if (world.dir == NULL) {
        make_world();
    }
    name = names[data[0] & 7];
    if ((data[0] & MODE_MADE) != 0) {
        uint8_t bytes[13] = {0};

        memcpy(bytes, data + 1, MIN(size - 1, sizeof(bytes)));
        name = "ca-crl.pem"; /* which is not always there */
        write_made(bytes);
    }
    path = g_build_filename(world.dir, name, NULL);
    if ((data[0] & MODE_MADE) == 0) {
        g_unlink(path);
        g_assert(g_file_set_contents_full(path, (const char *)data + 1,
                                          size - 1, G_FILE_SET_CONTENTS_NONE,
                                          0600, NULL));
    }
    load(data[0], kind_of(data[0], name));
    write_good();
    return 0;
}
