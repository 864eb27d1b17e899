/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Credentials that need no certificates: keys that both sides have, and none.
 *
 * A server reads its file of keys for each handshake, so that users come and go
 * without a reload. Handshakes run on the thread pool, where that may wait. A
 * user who is not known gets a key that nobody has: so the peer cannot find out
 * which users there are.
 */
#include "tls-private.h"

#include <gnutls/crypto.h>
#include <string.h>

#define KEYS_FILE "keys.psk"
#define DH_FILE "dh-params.pem"
#define DEFAULT_USER "qemu"
/* A random user id is as good as a password of this many bytes. */
#define KEY_SHORT_BYTES 16
/* More than the library can use. */
#define KEY_MAX_BYTES 1024
/* Lines that are complained about one by one. */
#define BAD_LINES_MAX 8

/* A line of the file, without its end. */
typedef struct Line {
    const char *text;
    size_t len;
    unsigned int number;
} Line;

/* Goes on to the next line, the first one after all zero. */
static bool
next_line(const gnutls_datum_t *file, Line *line)
{
    const char *start = (const char *)file->data;
    const char *end = start + file->size;
    const char *newline;

    if (line->text != NULL) {
        newline = memchr(line->text, '\n', end - line->text);
        start = newline != NULL ? newline + 1 : end;
    }
    if (start >= end) {
        return false;
    }
    newline = memchr(start, '\n', end - start);
    line->text = start;
    line->len = (newline != NULL ? newline : end) - start;
    line->number++;
    while (line->len > 0 && g_ascii_isspace(line->text[line->len - 1])) {
        line->len--;
    }
    return true;
}

/* The user that a line is about, as text; its length, 0 for no such line. */
static size_t
line_user_len(const Line *line)
{
    const char *colon = memchr(line->text, ':', line->len);

    return colon != NULL ? (size_t)(colon - line->text) : 0;
}

/* The key of a line; NULL if it is not one. */
static bool
line_key(const Line *line, gnutls_datum_t *ret_key)
{
    size_t skip = line_user_len(line) + 1;
    const gnutls_datum_t hex = {(unsigned char *)line->text + skip,
                                line->len - skip};

    if (hex.size == 0 || hex.size > 2 * KEY_MAX_BYTES) {
        return false;
    }
    return gnutls_hex_decode2(&hex, ret_key) >= 0 && ret_key->size > 0;
}

static void
key_clear(gnutls_datum_t *key)
{
    if (key->data != NULL) {
        explicit_bzero(key->data, key->size);
        gnutls_free(key->data);
    }
}

/* Names that are not text are written as '#' and hexadecimal digits. */
static bool
is_line_of(const Line *line, const void *user, size_t user_len)
{
    size_t len = line_user_len(line);
    gnutls_datum_t name = {NULL, 0};
    bool same;

    if (len == user_len && memcmp(line->text, user, len) == 0) {
        return len > 0;
    }
    if (len != 1 + 2 * user_len || line->text[0] != '#') {
        return false;
    }
    same = gnutls_hex_decode2(
               &(gnutls_datum_t){(unsigned char *)line->text + 1, len - 1},
               &name) >= 0 &&
           name.size == user_len && memcmp(name.data, user, user_len) == 0;
    gnutls_free(name.data);
    return same;
}

int
bf_tls_psk_find(const gnutls_datum_t *pem, const void *user, size_t user_len,
                gnutls_datum_t *ret_key, unsigned int *ret_line)
{
    Line line = {0};

    while (user_len > 0 && next_line(pem, &line)) {
        if (is_line_of(&line, user, user_len)) {
            *ret_line = line.number;
            return line_key(&line, ret_key) ? 1 : -1;
        }
    }
    return 0;
}

/* Whether it says something about a user; a comment need not. */
static bool
is_entry(const Line *line)
{
    return line->len > 0 && line->text[0] != '#' && line_user_len(line) > 0;
}

/* All lines of a server's file. */
static void
check_lines(const BfTlsFile *file, BfTlsReport *report)
{
    const gnutls_datum_t datum = bf_tls_file_datum(file);
    Line line = {0};
    unsigned int n_good = 0;
    unsigned int n_bad = 0;

    while (next_line(&datum, &line)) {
        gnutls_datum_t key = {NULL, 0};

        if (line.len == 0 || line.text[0] == '#') {
            n_good += line.len > 0 && line_user_len(&line) > 0;
            continue;
        }
        if (!is_entry(&line) || !line_key(&line, &key)) {
            if (++n_bad <= BAD_LINES_MAX) {
                bf_tls_report_error(
                    report,
                    "Line %u of %s is not USER:HEXKEY: the key must be an even "
                    "number of hexadecimal digits, as 'psktool' writes it",
                    line.number, file->path);
            }
        } else {
            n_good++;
            if (key.size < KEY_SHORT_BYTES) {
                bf_tls_report_warning(
                    report,
                    "the key in line %u of %s has %u bits only; make one of "
                    "%u bits or more with 'psktool'",
                    line.number, file->path, key.size * 8, KEY_SHORT_BYTES * 8);
            }
        }
        key_clear(&key);
    }
    if (n_good == 0 && n_bad == 0) {
        bf_tls_report_error(report,
                            "There is no user in %s: it must have a line "
                            "USER:HEXKEY for each, 'psktool -u USER -p %s' "
                            "adds one",
                            file->path, file->path);
    }
}

static void
set_fault(BfTlsSession *session, const char *reason)
{
    g_free(session->psk_fault);
    session->psk_fault =
        g_strdup_printf("the user '%s' %s %s", session->peer_label, reason,
                        session->creds->peer_file);
}

/* Called by the library in a handshake. */
static int
find_server_key(gnutls_session_t tls, const gnutls_datum_t *user,
                gnutls_datum_t *key)
{
    BfTlsSession *session = gnutls_transport_get_ptr(tls);
    g_autoptr(BfSecret) data = NULL;
    gnutls_datum_t file;
    unsigned int line;
    size_t size;
    int ret = bf_secret_load_file(session->creds->peer_file,
                                  BF_TLS_FILE_MAX_BYTES, &data);

    *key = (gnutls_datum_t){NULL, 0};
    g_free(session->psk_user);
    g_free(session->peer_label);
    session->psk_user = g_strndup((const char *)user->data, user->size);
    session->peer_label = bf_tls_printable(session->psk_user);
    if (ret < 0) {
        g_free(session->psk_fault);
        session->psk_fault =
            g_strdup_printf("%s cannot be read: %s", session->creds->peer_file,
                            g_strerror(-ret));
        return 1; /* the same as for a user who is not known */
    }
    file.data = (unsigned char *)bf_secret_get_bytes(data, &size);
    file.size = size;
    ret = bf_tls_psk_find(&file, user->data, user->size, key, &line);
    if (ret > 0) {
        set_fault(session, "must have the key that is in");
        return 0;
    }
    key_clear(key);
    set_fault(session, ret == 0 ? "is not in" : "has a damaged line in");
    return 1;
}

static void
load_server(BfTlsMaterial *material, const BfTlsCredsParams *params,
            const BfTlsFile *keys, BfTlsReport *report)
{
    int ret;

    if (params->username != NULL) {
        bf_tls_report_error(
            report, "username should not be set when endpoint=server: "
                    "a server takes all users in its file; leave it out");
    }
    if (keys->data != NULL) {
        check_lines(keys, report);
    }
    ret = gnutls_psk_allocate_server_credentials(&material->psk_server);
    g_assert(ret >= 0); /* all that can fail is allocation */
    ret = gnutls_certificate_allocate_credentials(&material->no_x509);
    g_assert(ret >= 0); /* alike */
    gnutls_psk_set_server_credentials_function2(material->psk_server,
                                                find_server_key);
}

static void
load_client(BfTlsMaterial *material, const BfTlsCredsParams *params,
            const BfTlsFile *keys, BfTlsReport *report)
{
    const char *user =
        params->username != NULL ? params->username : DEFAULT_USER;
    gnutls_datum_t key = {NULL, 0};
    gnutls_datum_t file;
    unsigned int line = 0;
    int found;

    if (keys->data == NULL) {
        return;
    }
    file = bf_tls_file_datum(keys);
    found = bf_tls_psk_find(&file, user, strlen(user), &key, &line);
    if (found > 0) {
        int ret = gnutls_psk_allocate_client_credentials(&material->psk_client);

        if (ret == 0) {
            ret = gnutls_psk_set_client_credentials(material->psk_client, user,
                                                    &key, GNUTLS_PSK_KEY_RAW);
        }
        if (ret < 0) {
            g_autofree char *text = bf_tls_error_text(ret);

            bf_tls_report_error(report,
                                "Cannot set PSK client credentials of user "
                                "'%s' from %s: %s",
                                user, keys->path, text);
        }
        material->info->username = g_strdup(user);
    } else if (found == 0) {
        bf_tls_report_error(
            report,
            "Username %s not found in PSK file %s: set the property "
            "'username' to a user who has a line USER:HEXKEY there",
            user, keys->path);
    } else {
        bf_tls_report_error(
            report,
            "Cannot set PSK client credentials: line %u of %s, of user '%s', "
            "must have an even number of hexadecimal digits behind the colon",
            line, keys->path, user);
    }
    key_clear(&key);
}

static void
load_dh_file(BfTlsMaterial *material, const BfTlsFile *dh, BfTlsReport *report)
{
    gnutls_datum_t datum;

    if (material->endpoint != BF_TLS_ENDPOINT_SERVER) {
        return;
    }
    if (dh->data != NULL) {
        datum = bf_tls_file_datum(dh);
    }
    bf_tls_load_dh(material, dh->data != NULL ? &datum : NULL, dh->path,
                   report);
}

void
bf_tls_load_psk(BfTlsMaterial *material, const BfTlsCredsParams *params,
                BfTlsReport *report)
{
    bool is_server = params->endpoint == BF_TLS_ENDPOINT_SERVER;
    BfTlsFile keys = {0};
    BfTlsFile dh = {0};

    if (params->dir == NULL || *params->dir == '\0') {
        bf_tls_report_error(report,
                            "Missing 'dir' property value: the directory that "
                            "holds " KEYS_FILE);
        return;
    }
    bf_tls_file_read(&keys, params->dir, KEYS_FILE, KEYS_FILE,
                     BF_TLS_FILE_REQUIRED | BF_TLS_FILE_SECRET, report);
    if (is_server) {
        bf_tls_file_read(&dh, params->dir, DH_FILE, KEYS_FILE,
                         BF_TLS_FILE_OPTIONAL, report);
        load_server(material, params, &keys, report);
    } else {
        load_client(material, params, &keys, report);
    }
    load_dh_file(material, &dh, report);
    material->peer_file = g_strdup(keys.path);
    bf_tls_material_add_file(material, &keys);
    bf_tls_material_add_file(material, &dh);
    bf_tls_file_clear(&keys);
    bf_tls_file_clear(&dh);
}

void
bf_tls_load_anon(BfTlsMaterial *material, const BfTlsCredsParams *params,
                 BfTlsReport *report)
{
    bool is_server = params->endpoint == BF_TLS_ENDPOINT_SERVER;
    BfTlsFile dh = {0};
    int ret =
        is_server
            ? gnutls_anon_allocate_server_credentials(&material->anon_server)
            : gnutls_anon_allocate_client_credentials(&material->anon_client);

    g_assert(ret >= 0); /* all that can fail is allocation */
    if (is_server && params->dir != NULL) {
        bf_tls_file_read(&dh, params->dir, DH_FILE, KEYS_FILE,
                         BF_TLS_FILE_OPTIONAL, report);
    }
    load_dh_file(material, &dh, report);
    bf_tls_material_add_file(material, &dh);
    bf_tls_file_clear(&dh);
}
