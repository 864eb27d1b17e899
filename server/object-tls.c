/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS credentials as objects: from properties to loaded files.
 *
 * Loading suspends, so all that belongs to main is fetched before. The password
 * of a key is kept for a reload, since secrets may be deleted at any time.
 */
#include <string.h>
#include <unistd.h>

#include "core/error.h"
#include "objects-private.h"
#include "serve/objects.h"

static BfTlsEndpoint
to_endpoint(BfQCryptoTLSCredsEndpoint endpoint)
{
    return endpoint == BF_QCRYPTO_TLS_CREDS_ENDPOINT_SERVER
               ? BF_TLS_ENDPOINT_SERVER
               : BF_TLS_ENDPOINT_CLIENT;
}

bool
bf_object_is_tls_creds(const BfObjectOptions *options)
{
    return options->qom_type == BF_OBJECT_TYPE_TLS_CREDS_ANON ||
           options->qom_type == BF_OBJECT_TYPE_TLS_CREDS_PSK ||
           options->qom_type == BF_OBJECT_TYPE_TLS_CREDS_X509;
}

void
bf_tls_params_from_options(const BfObjectOptions *options,
                           BfTlsCredsParams *ret_params)
{
    const BfTlsCredsX509Properties *x509 = options->u.tls_creds_x509;
    const BfTlsCredsPskProperties *psk = options->u.tls_creds_psk;
    const BfTlsCredsAnonProperties *anon = options->u.tls_creds_anon;

    if (options->qom_type == BF_OBJECT_TYPE_TLS_CREDS_X509) {
        *ret_params = (BfTlsCredsParams){
            .kind = BF_TLS_CREDS_X509,
            .endpoint = to_endpoint(x509->endpoint),
            .dir = x509->dir,
            .verify_peer = x509->verify_peer,
            .priority = x509->priority,
            .record_engine = x509->record_engine,
            .sanity_check = x509->sanity_check,
            .password_id = x509->passwordid,
        };
    } else if (options->qom_type == BF_OBJECT_TYPE_TLS_CREDS_PSK) {
        *ret_params = (BfTlsCredsParams){
            .kind = BF_TLS_CREDS_PSK,
            .endpoint = to_endpoint(psk->endpoint),
            .dir = psk->dir,
            .verify_peer = psk->verify_peer,
            .priority = psk->priority,
            .record_engine = psk->record_engine,
            .username = psk->username,
        };
    } else {
        *ret_params = (BfTlsCredsParams){
            .kind = BF_TLS_CREDS_ANON,
            .endpoint = to_endpoint(anon->endpoint),
            .dir = anon->dir,
            .verify_peer = anon->verify_peer,
            .priority = anon->priority,
            .record_engine = anon->record_engine,
        };
    }
}

bool
bf_tls_creds_check_change(const BfObjectOptions *old,
                          const BfObjectOptions *options, GError **error)
{
    BfTlsCredsParams before;
    BfTlsCredsParams after;
    const char *name = NULL;

    bf_tls_params_from_options(old, &before);
    bf_tls_params_from_options(options, &after);
    if (before.endpoint != after.endpoint) {
        name = "endpoint";
    } else if (before.verify_peer != after.verify_peer) {
        name = "verify-peer"; /* users have relied on it */
    }
    if (name != NULL) {
        bf_set_error(error,
                     "%s of TLS credentials '%s' cannot be changed; make other "
                     "credentials with object-add",
                     name, options->id);
    }
    return name == NULL;
}

/* What runs on the thread pool. */
typedef struct LoadJob {
    BfTlsCredsParams params;
    char hostname[256];
    BfTlsReport *report;
    BfTlsCreds *ret_creds;
} LoadJob;

static void
load_creds(void *arg)
{
    LoadJob *job = arg;

    job->ret_creds = bf_tls_creds_check(&job->params, job->report);
}

/* All errors in one message, and which property leads to them. */
static void
set_error(const BfObjectOptions *options, const LoadJob *job, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (unsigned i = 0; i < job->report->errors->len; i++) {
        g_string_append_printf(
            text, "%s%s", i > 0 ? "; moreover: " : "",
            (const char *)g_ptr_array_index(job->report->errors, i));
    }
    if (job->params.dir != NULL && strstr(text->str, job->params.dir) != NULL) {
        g_string_append_printf(text, " (property 'dir' of %s '%s')",
                               bf_object_type_str(options->qom_type),
                               options->id);
    }
    bf_set_error(error, "%s", text->str);
}

static void
log_warnings(const BfObjectOptions *options, const BfTlsReport *report)
{
    for (unsigned i = 0; i < report->warnings->len; i++) {
        g_warning("%s '%s': %s", bf_object_type_str(options->qom_type),
                  options->id,
                  (const char *)g_ptr_array_index(report->warnings, i));
    }
}

BfTlsCreds *
bf_tls_object_co_load(BfObjects *objects, const BfObjectOptions *options,
                      BfSecret **password, GError **error)
{
    LoadJob job = {.report = bf_tls_report_new()};
    BfTlsCreds *creds = NULL;

    bf_tls_params_from_options(options, &job.params);
    if (job.params.password_id != NULL) {
        g_autoptr(GError) no_secret = NULL;
        BfSecret *found =
            bf_objects_find_secret(objects, job.params.password_id, &no_secret);

        if (found == NULL && *password == NULL) {
            bf_tls_report_free(job.report);
            g_propagate_error(error, g_steal_pointer(&no_secret));
            return NULL;
        }
        if (found != NULL) {
            bf_secret_unref(*password);
            *password = bf_secret_ref(found);
        }
        job.params.password = *password;
    }
    if (job.params.endpoint == BF_TLS_ENDPOINT_SERVER &&
        gethostname(job.hostname, sizeof(job.hostname) - 1) == 0) {
        job.params.hostname = job.hostname;
    }
    bf_object_co_run_aside(options->id, load_creds, &job);
    if (job.ret_creds == NULL) {
        set_error(options, &job, error);
    } else {
        log_warnings(options, job.report);
        creds = job.ret_creds;
    }
    bf_tls_report_free(job.report);
    return creds;
}
