/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS credentials: a handle that lasts, and what it consists of at the moment.
 *
 * Objects, servers and nodes hold the handle on main; sessions begin on any
 * loop. So the material behind it is counted, never changed, and replaced as a
 * whole.
 */
#include "crypto/tls-creds.h"

#include <time.h>

#include "core/error.h"
#include "core/ref-slot.h"
#include "tls-private.h"

struct BfTlsCreds {
    /* Never changed. */
    BfTlsCredsKind kind;
    BfTlsEndpoint endpoint;
    bool verify_peer;

    BfRefSlot material; /* of BfTlsMaterial */
};

static const char *const kind_names[] = {
    [BF_TLS_CREDS_X509] = "tls-creds-x509",
    [BF_TLS_CREDS_PSK] = "tls-creds-psk",
    [BF_TLS_CREDS_ANON] = "tls-creds-anon",
};

bool
bf_tls_material_needs_own_engine(const BfTlsMaterial *material)
{
    return material->record_engine == BF_TLS_RECORD_ENGINE_OWN ||
           material->record_engine == BF_TLS_RECORD_ENGINE_IPSEC_MB;
}

const char *
bf_tls_material_engine_name(const BfTlsMaterial *material)
{
    return bf_enum_str(&bf_tls_record_engine_enum, material->record_engine);
}

BfTlsMaterial *
bf_tls_material_new(BfTlsCredsKind kind, const BfTlsCredsParams *params)
{
    BfTlsMaterial *material = g_atomic_rc_box_new0(BfTlsMaterial);
    BfTlsCredsInfo *info = bf_type_new(&bf_tls_creds_info_type);

    material->kind = kind;
    material->endpoint = params->endpoint;
    material->record_engine = params->record_engine;
    material->verify_peer = kind == BF_TLS_CREDS_PSK ||
                            (kind == BF_TLS_CREDS_X509 && params->verify_peer);
    info->id = g_strdup("");
    info->qom_type = g_strdup(kind_names[kind]);
    info->endpoint = params->endpoint == BF_TLS_ENDPOINT_SERVER
                         ? BF_QCRYPTO_TLS_CREDS_ENDPOINT_SERVER
                         : BF_QCRYPTO_TLS_CREDS_ENDPOINT_CLIENT;
    info->verify_peer = material->verify_peer;
    info->record_engine = params->record_engine;
    info->dir = g_strdup(params->dir);
    info->loaded = bf_tls_time_text(time(NULL));
    info->files = bf_type_new(&bf_str_list_type);
    info->certificates = bf_type_new(&bf_tls_certificate_info_list_type);
    info->warnings = bf_type_new(&bf_str_list_type);
    info->users = bf_type_new(&bf_str_list_type);
    material->info = info;
    return material;
}

static void
add_text(BfStrList *list, const char *text)
{
    list->items = g_renew(char *, list->items, list->len + 1);
    list->items[list->len++] = g_strdup(text);
}

void
bf_tls_material_add_file(BfTlsMaterial *material, const BfTlsFile *file)
{
    if (file->data != NULL) {
        add_text(material->info->files, file->path);
    }
}

static void
material_clear(gpointer data)
{
    BfTlsMaterial *material = data;

    if (material->x509 != NULL) {
        gnutls_certificate_free_credentials(material->x509);
    }
    if (material->psk_server != NULL) {
        gnutls_psk_free_server_credentials(material->psk_server);
    }
    if (material->no_x509 != NULL) {
        gnutls_certificate_free_credentials(material->no_x509);
    }
    if (material->psk_client != NULL) {
        gnutls_psk_free_client_credentials(material->psk_client);
    }
    if (material->anon_server != NULL) {
        gnutls_anon_free_server_credentials(material->anon_server);
    }
    if (material->anon_client != NULL) {
        gnutls_anon_free_client_credentials(material->anon_client);
    }
    if (material->dh_params != NULL) {
        gnutls_dh_params_deinit(material->dh_params);
    }
    if (material->priority != NULL) {
        gnutls_priority_deinit(material->priority);
    }
    bf_tls_creds_info_free(material->info);
    g_free(material->peer_file);
}

void
bf_tls_material_unref(BfTlsMaterial *material)
{
    if (material != NULL) {
        g_atomic_rc_box_release_full(material, material_clear);
    }
}

static void
set_dh(BfTlsMaterial *material)
{
    if (material->x509 != NULL) {
        gnutls_certificate_set_dh_params(material->x509, material->dh_params);
    } else if (material->psk_server != NULL) {
        gnutls_psk_set_server_dh_params(material->psk_server,
                                        material->dh_params);
    } else if (material->anon_server != NULL) {
        gnutls_anon_set_server_dh_params(material->anon_server,
                                         material->dh_params);
    }
}

/*
 * Clients that know RFC 7919 never see these parameters. Making some for the
 * others would take seconds and gain nothing over the well-known ones.
 */
static void
set_known_dh(BfTlsMaterial *material)
{
    const gnutls_sec_param_t strength = GNUTLS_SEC_PARAM_MEDIUM;

    if (material->x509 != NULL) {
        gnutls_certificate_set_known_dh_params(material->x509, strength);
    } else if (material->psk_server != NULL) {
        gnutls_psk_set_server_known_dh_params(material->psk_server, strength);
    } else if (material->anon_server != NULL) {
        gnutls_anon_set_server_known_dh_params(material->anon_server, strength);
    }
}

void
bf_tls_load_dh(BfTlsMaterial *material, const gnutls_datum_t *pem,
               const char *path, BfTlsReport *report)
{
    int ret;

    if (pem == NULL) {
        set_known_dh(material);
        return;
    }
    ret = gnutls_dh_params_init(&material->dh_params);
    if (ret == 0) {
        ret = gnutls_dh_params_import_pkcs3(material->dh_params, pem,
                                            GNUTLS_X509_FMT_PEM);
    }
    if (ret < 0) {
        g_autofree char *text = bf_tls_error_text(ret);

        bf_tls_report_error(report,
                            "Unable to load DH parameters from %s: %s; remove "
                            "the file to use well-known parameters",
                            path, text);
        return;
    }
    set_dh(material);
}

static BfTlsMaterial *
load(const BfTlsCredsParams *params, BfTlsReport *report)
{
    BfTlsMaterial *material = bf_tls_material_new(params->kind, params);

    switch (params->kind) {
    case BF_TLS_CREDS_X509:
        bf_tls_load_x509(material, params, report);
        break;
    case BF_TLS_CREDS_PSK:
        bf_tls_load_psk(material, params, report);
        break;
    case BF_TLS_CREDS_ANON:
        bf_tls_load_anon(material, params, report);
        break;
    }
    bf_tls_load_priority(material, params->priority, report);
    for (unsigned int i = 0; i < report->warnings->len; i++) {
        add_text(material->info->warnings,
                 g_ptr_array_index(report->warnings, i));
    }
    bf_tls_creds_info_free(report->info);
    report->info = bf_tls_creds_info_copy(material->info);
    return material;
}

BfTlsCreds *
bf_tls_creds_check(const BfTlsCredsParams *params, BfTlsReport *report)
{
    g_autoptr(BfTlsMaterial) material = load(params, report);
    BfTlsCreds *creds;

    if (report->errors->len > 0) {
        return NULL;
    }
    creds = g_atomic_rc_box_new0(BfTlsCreds);
    creds->kind = material->kind;
    creds->endpoint = material->endpoint;
    creds->verify_peer = material->verify_peer;
    bf_ref_slot_init(&creds->material, g_steal_pointer(&material));
    return creds;
}

BfTlsCreds *
bf_tls_creds_new(const BfTlsCredsParams *params, GError **error)
{
    g_autoptr(BfTlsReport) report = bf_tls_report_new();
    BfTlsCreds *creds = bf_tls_creds_check(params, report);

    if (creds == NULL) {
        bf_set_error(error, "%s",
                     (const char *)g_ptr_array_index(report->errors, 0));
    }
    return creds;
}

void
bf_tls_creds_replace(BfTlsCreds *creds, BfTlsCreds *fresh)
{
    g_assert(creds->kind == fresh->kind && creds->endpoint == fresh->endpoint &&
             creds->verify_peer == fresh->verify_peer);
    bf_tls_material_unref(
        bf_ref_slot_swap(&creds->material, bf_tls_creds_get_material(fresh)));
}

BfTlsMaterial *
bf_tls_creds_get_material(BfTlsCreds *creds)
{
    return bf_ref_slot_get(&creds->material);
}

BfTlsCreds *
bf_tls_creds_ref(BfTlsCreds *creds)
{
    return g_atomic_rc_box_acquire(creds);
}

static void
creds_clear(gpointer data)
{
    BfTlsCreds *creds = data;

    bf_tls_material_unref(bf_ref_slot_clear(&creds->material));
}

void
bf_tls_creds_unref(BfTlsCreds *creds)
{
    if (creds != NULL) {
        g_atomic_rc_box_release_full(creds, creds_clear);
    }
}

BfTlsCredsKind
bf_tls_creds_get_kind(const BfTlsCreds *creds)
{
    return creds->kind;
}

BfTlsEndpoint
bf_tls_creds_get_endpoint(const BfTlsCreds *creds)
{
    return creds->endpoint;
}

bool
bf_tls_creds_get_verify_peer(const BfTlsCreds *creds)
{
    return creds->verify_peer;
}

bool
bf_tls_creds_check_endpoint(const BfTlsCreds *creds, BfTlsEndpoint endpoint,
                            GError **error)
{
    if (creds->endpoint == endpoint) {
        return true;
    }
    bf_set_error(error, "Expected TLS credentials for a %s endpoint",
                 endpoint == BF_TLS_ENDPOINT_SERVER ? "server" : "client");
    return false;
}
