/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The check of TLS credentials for the command line. It does what object-add
 * does, and says all of it.
 */
#include "serve/check-creds.h"

#include <time.h>

#include "core/error.h"
#include "crypto/tls-creds.h"

static void
add_certificate(GString *text, const BfTlsCertificateInfo *cert)
{
    static const char *const roles[] = {
        [BF_TLS_CERTIFICATE_ROLE_CA] = "trusts",
        [BF_TLS_CERTIFICATE_ROLE_INTERMEDIATE] = "sends",
        [BF_TLS_CERTIFICATE_ROLE_OWN] = "shows",
    };

    g_string_append_printf(
        text,
        "%s '%s'\n"
        "    file %s\n"
        "    issuer '%s', serial %s\n"
        "    %s %" G_GINT64_FORMAT " bits, signature %s\n"
        "    valid from %s until %s (%" G_GINT64_FORMAT " days left)\n",
        roles[cert->role], cert->subject, cert->file, cert->issuer,
        cert->serial, cert->key_kind, cert->key_bits, cert->signature_kind,
        cert->valid_from, cert->valid_until, cert->days_left);
    if (cert->role == BF_TLS_CERTIFICATE_ROLE_OWN) {
        g_string_append(text, "    names");
        for (size_t i = 0; i < cert->names->len; i++) {
            g_string_append_printf(text, "%s '%s'", i > 0 ? "," : "",
                                   cert->names->items[i]);
        }
        g_string_append(text, cert->names->len > 0 ? "\n" : " (none)\n");
    }
}

static void
add_lines(GString *text, const char *kind, const GPtrArray *lines)
{
    for (unsigned i = 0; i < lines->len; i++) {
        g_string_append_printf(text, "%s: %s\n", kind,
                               (const char *)g_ptr_array_index(lines, i));
    }
}

static BfTlsCredsKind
to_kind(BfCheckTlsCredsKind kind)
{
    switch (kind) {
    case BF_CHECK_TLS_CREDS_KIND_TLS_CREDS_ANON:
        return BF_TLS_CREDS_ANON;
    case BF_CHECK_TLS_CREDS_KIND_TLS_CREDS_PSK:
        return BF_TLS_CREDS_PSK;
    default:
        return BF_TLS_CREDS_X509;
    }
}

static BfSecret *
read_password(const char *path, BfTlsReport *report)
{
    BfSecret *secret = NULL;
    g_autoptr(GError) error = NULL;
    const BfSecretParams params = {.file = path};

    if (path != NULL) {
        secret = bf_secret_new(&params, NULL, NULL, &error);
    }
    if (error != NULL) {
        g_ptr_array_add(report->errors,
                        g_strdup_printf("password-file: %s", error->message));
    }
    return secret;
}

bool
bf_check_creds(const BfCheckTlsCredsOptions *options, char **ret_text)
{
    g_autoptr(BfTlsReport) report = bf_tls_report_new();
    g_autoptr(BfSecret) password =
        read_password(options->password_file, report);
    const BfTlsCredsParams params = {
        .kind = to_kind(options->qom_type),
        .endpoint = options->endpoint == BF_QCRYPTO_TLS_CREDS_ENDPOINT_SERVER
                        ? BF_TLS_ENDPOINT_SERVER
                        : BF_TLS_ENDPOINT_CLIENT,
        .dir = options->dir,
        .verify_peer = true,
        .priority = options->priority,
        .sanity_check = true,
        .password = password,
        .password_id = "of password-file",
        .username = options->username,
        .record_engine = options->record_engine,
        .hostname = options->hostname,
        .needs_hostname = true,
    };
    g_autoptr(BfTlsCreds) creds = bf_tls_creds_check(&params, report);
    GString *text = g_string_new(NULL);

    for (size_t i = 0; i < report->info->certificates->len; i++) {
        BfTlsCertificateInfo *cert = report->info->certificates->items[i];

        cert->days_left = bf_tls_days_left(cert, time(NULL));
        add_certificate(text, cert);
    }
    add_lines(text, "error", report->errors);
    add_lines(text, "warning", report->warnings);
    g_string_append_printf(
        text, "%s as %s of a TLS %s (errors: %u, warnings: %u)\n",
        creds != NULL ? "good" : "cannot be used", report->info->qom_type,
        params.endpoint == BF_TLS_ENDPOINT_SERVER ? "server" : "client",
        report->errors->len, report->warnings->len);
    *ret_text = g_string_free(text, FALSE);
    return creds != NULL;
}
