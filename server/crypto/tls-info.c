/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What credentials consist of, for those who look after them, and what will
 * need their attention soon.
 */
#include "tls-private.h"

#include <arpa/inet.h>
#include <string.h>
#include <time.h>

/* Whoever looks once a month must still be in time. */
#define SOON_DAYS 30
#define DAY_S 86400
/* Most names of a certificate that are described. */
#define NAMES_MAX 256
/* Most of them that a message lists. */
#define NAMES_SHOWN_MAX 8

static char *
address_text(const char *bytes, size_t size)
{
    char text[INET6_ADDRSTRLEN] = "?";

    if (size == 4) {
        inet_ntop(AF_INET, bytes, text, sizeof(text));
    } else if (size == 16) {
        inet_ntop(AF_INET6, bytes, text, sizeof(text));
    }
    return g_strdup(text);
}

GPtrArray *
bf_tls_cert_names(gnutls_x509_crt_t cert, unsigned int max)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);

    for (unsigned int i = 0; i < max; i++) {
        char name[256];
        size_t size = sizeof(name) - 1;
        int type =
            gnutls_x509_crt_get_subject_alt_name(cert, i, name, &size, NULL);

        if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
            break;
        }
        if (type == GNUTLS_SAN_DNSNAME) {
            name[size] = 0;
            g_ptr_array_add(names, bf_tls_printable(name));
        } else if (type == GNUTLS_SAN_IPADDRESS) {
            g_ptr_array_add(names, address_text(name, size));
        }
    }
    return names;
}

/* As "'a', 'b'". */
static char *
join_names(const GPtrArray *names)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (unsigned int i = 0; i < names->len && i < NAMES_SHOWN_MAX; i++) {
        g_string_append_printf(text, "%s'%s'", i > 0 ? ", " : "",
                               (const char *)names->pdata[i]);
    }
    if (names->len > NAMES_SHOWN_MAX) {
        g_string_append_printf(text, " and %u more",
                               names->len - NAMES_SHOWN_MAX);
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static void
warn_of_end(const BfTlsCerts *certs, const char *what, BfTlsReport *report)
{
    time_t now = time(NULL);

    for (unsigned int i = 0; i < certs->len; i++) {
        time_t until = gnutls_x509_crt_get_expiration_time(certs->certs[i]);
        g_autofree char *label = NULL;
        g_autofree char *text = NULL;

        if (until < now || until - now > SOON_DAYS * DAY_S) {
            continue;
        }
        label = bf_tls_cert_label(certs->certs[i]);
        text = bf_tls_time_text(until);
        bf_tls_report_warning(
            report,
            "the %s '%s' in %s ends in %d days, on %s: replace the file and "
            "run tls-creds-reload before that",
            what, label, certs->path, (int)((until - now) / DAY_S), text);
    }
}

/* A host often knows its name only without the domain. */
static bool
is_first_label(const GPtrArray *names, const char *hostname)
{
    size_t len = strlen(hostname);

    for (unsigned int i = 0; strchr(hostname, '.') == NULL && i < names->len;
         i++) {
        const char *name = names->pdata[i];

        if (g_ascii_strncasecmp(name, hostname, len) == 0 && name[len] == '.') {
            return true;
        }
    }
    return false;
}

static void
check_name(const BfTlsOwn *own, const BfTlsCredsParams *params,
           BfTlsReport *report)
{
    gnutls_x509_crt_t leaf = own->leaf->certs[0];
    g_autoptr(GPtrArray) names = bf_tls_cert_names(leaf, NAMES_MAX);
    g_autofree char *text = NULL;

    if (gnutls_x509_crt_check_hostname(leaf, params->hostname)) {
        return;
    }
    text = names->len > 0 ? join_names(names) : g_strdup("no name at all");
    if (params->needs_hostname) {
        bf_tls_report_error(
            report,
            "The server certificate %s is for %s, not for '%s': clients that "
            "connect by that name will refuse it; issue it with this name in "
            "subjectAltName, or let them set tls-hostname",
            own->leaf->path, text, params->hostname);
    } else if (!is_first_label(names, params->hostname)) {
        bf_tls_report_warning(
            report,
            "the server certificate %s is for %s, not for '%s', the name of "
            "this host: clients that connect by that name must set "
            "tls-hostname; issue it with this name in subjectAltName",
            own->leaf->path, text, params->hostname);
    }
}

static void
warn_of_crls(const BfTlsOwn *own, BfTlsReport *report)
{
    time_t now = time(NULL);

    for (unsigned int i = 0; i < own->n_crls; i++) {
        time_t until = gnutls_x509_crl_get_next_update(own->crls[i]);
        unsigned int status = 0;

        if (until != (time_t)-1 && until < now) {
            g_autofree char *text = bf_tls_time_text(until);

            bf_tls_report_warning(
                report,
                "the revocation list %s is out of date since %s: whoever was "
                "revoked after that is let in; get the present one and run "
                "tls-creds-reload",
                own->crl_path, text);
        }
        if (own->ca->len > 0 &&
            gnutls_x509_crl_verify(own->crls[i], own->ca->certs, own->ca->len,
                                   0, &status) >= 0 &&
            (status & (GNUTLS_CERT_SIGNER_NOT_FOUND |
                       GNUTLS_CERT_SIGNATURE_FAILURE)) != 0) {
            bf_tls_report_warning(report,
                                  "the revocation list %s is not signed by a "
                                  "CA in %s",
                                  own->crl_path, own->ca->path);
        }
    }
}

void
bf_tls_check_soon(const BfTlsOwn *own, const BfTlsCredsParams *params,
                  BfTlsReport *report)
{
    warn_of_end(own->leaf, "certificate", report);
    warn_of_end(own->ca, "CA certificate", report);
    warn_of_crls(own, report);
    if (own->leaf->len > 0 && params->hostname != NULL &&
        own->endpoint == BF_TLS_ENDPOINT_SERVER) {
        check_name(own, params, report);
    }
}

static BfStrList *
to_list(GPtrArray *texts)
{
    BfStrList *list = bf_type_new(&bf_str_list_type);

    list->len = texts->len;
    g_ptr_array_set_free_func(texts, NULL);
    list->items = (char **)g_ptr_array_free(texts, FALSE);
    return list;
}

static char *
serial_text(gnutls_x509_crt_t cert)
{
    unsigned char bytes[64];
    size_t size = sizeof(bytes);
    GString *text = g_string_new(NULL);

    if (gnutls_x509_crt_get_serial(cert, bytes, &size) >= 0) {
        for (size_t i = 0; i < size; i++) {
            g_string_append_printf(text, "%02x", bytes[i]);
        }
    }
    return g_string_free(text, FALSE);
}

static BfTlsCertificateInfo *
describe_cert(gnutls_x509_crt_t cert, const char *path,
              BfTlsCertificateRole role)
{
    BfTlsCertificateInfo *info = bf_type_new(&bf_tls_certificate_info_type);
    unsigned int bits = 0;
    int kind = gnutls_x509_crt_get_pk_algorithm(cert, &bits);
    int sign = gnutls_x509_crt_get_signature_algorithm(cert);
    const char *kind_name = gnutls_pk_get_name(kind);
    const char *sign_name = gnutls_sign_get_name(sign);

    info->file = g_strdup(path);
    info->role = role;
    info->subject = bf_tls_cert_label(cert);
    info->issuer = bf_tls_cert_issuer_label(cert);
    info->names = to_list(bf_tls_cert_names(cert, NAMES_MAX));
    info->serial = serial_text(cert);
    info->valid_from =
        bf_tls_time_text(gnutls_x509_crt_get_activation_time(cert));
    info->valid_until_seconds = gnutls_x509_crt_get_expiration_time(cert);
    info->valid_until = bf_tls_time_text(info->valid_until_seconds);
    info->key_kind = g_strdup(kind_name != NULL ? kind_name : "unknown");
    info->key_bits = bits;
    info->signature_kind = g_strdup(sign_name != NULL ? sign_name : "unknown");
    return info;
}

void
bf_tls_describe_certs(const BfTlsOwn *own, BfTlsCredsInfo *info)
{
    BfTlsCertificateInfoList *list = info->certificates;
    time_t first = (time_t)-1;

    list->items = g_renew(BfTlsCertificateInfo *, list->items,
                          list->len + own->leaf->len + own->ca->len);
    for (unsigned int i = 0; i < own->leaf->len; i++) {
        list->items[list->len++] =
            describe_cert(own->leaf->certs[i], own->leaf->path,
                          i == 0 ? BF_TLS_CERTIFICATE_ROLE_OWN
                                 : BF_TLS_CERTIFICATE_ROLE_INTERMEDIATE);
    }
    for (unsigned int i = 0; i < own->ca->len; i++) {
        list->items[list->len++] = describe_cert(
            own->ca->certs[i], own->ca->path, BF_TLS_CERTIFICATE_ROLE_CA);
    }
    for (unsigned int i = 0; i < own->n_crls; i++) {
        time_t until = gnutls_x509_crl_get_next_update(own->crls[i]);

        if (until != (time_t)-1 && (first == (time_t)-1 || until < first)) {
            first = until;
        }
    }
    info->crl_until = first != (time_t)-1 ? bf_tls_time_text(first) : NULL;
}

/* Towards the past, so that what has just ended is not "0 days". */
int64_t
bf_tls_days_left(const BfTlsCertificateInfo *cert, int64_t now_s)
{
    int64_t seconds = cert->valid_until_seconds - now_s;

    return seconds >= 0 ? seconds / DAY_S : -((-seconds + DAY_S - 1) / DAY_S);
}

BfTlsCredsInfo *
bf_tls_creds_describe(BfTlsCreds *creds, int64_t now_s)
{
    g_autoptr(BfTlsMaterial) material = bf_tls_creds_get_material(creds);
    BfTlsCredsInfo *info = bf_tls_creds_info_copy(material->info);

    for (size_t i = 0; i < info->certificates->len; i++) {
        BfTlsCertificateInfo *cert = info->certificates->items[i];

        cert->days_left = bf_tls_days_left(cert, now_s);
    }
    return info;
}
