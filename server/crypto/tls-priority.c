/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which protocols, key exchanges and ciphers sessions may use, and in what
 * order.
 *
 * The order of ciphers decides the speed of the whole server: with AES in the
 * processor AES-GCM is about ten times as fast as ChaCha20, without it ChaCha20
 * is the faster one by far. AES-128 comes before AES-256 since it does less
 * work and is no weaker against anything known. SERVER_PRECEDENCE makes our
 * order win over the client's, which is often made for other hardware.
 */
#include "tls-private.h"
#include "tls13-private.h"

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#define CIPHERS_AES "+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305"
#define CIPHERS_CHACHA "+CHACHA20-POLY1305:+AES-128-GCM:+AES-256-GCM"

/* What most clients have made a key for when they say hello comes first:
 * another choice of ours costs them a round trip and another key. */
#define GROUPS                                                                 \
    "-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1:"              \
    "+GROUP-SECP521R1:+GROUP-X448:+GROUP-FFDHE2048:+GROUP-FFDHE3072:"          \
    "+GROUP-FFDHE4096:+GROUP-FFDHE6144:+GROUP-FFDHE8192:"

/*
 * TLS 1.2 and 1.3 with forward secrecy and authenticated ciphers only, and
 * certificates of some strength (PROFILE_MEDIUM: 112 bits). Without
 * ALLOW_SMALL_RECORDS a peer's limit below 512 bytes would be ignored.
 */
#define PRIORITY_HEAD                                                          \
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-CIPHER-ALL:%PROFILE_MEDIUM:"  \
    "%SERVER_PRECEDENCE:%ALLOW_SMALL_RECORDS:" GROUPS

/* By kind: key exchanges, and what is added to a user's own string. */
static const struct {
    const char *exchanges;
    const char *addition;
} kinds[] = {
    [BF_TLS_CREDS_X509] = {":-RSA", ""},
    /*
     * Not plain PSK: it has no forward secrecy. DHE before ECDHE, because with
     * TLS 1.2 the library has AES-GCM for it, and only ChaCha20 for ECDHE.
     *
     * The first one is not for use: it needs a certificate, and there is none
     * (see BfTlsMaterial.no_x509). The library orders groups as exchanges first
     * need them, and with a finite field in front TLS 1.3 asks clients to begin
     * anew with a key that takes twenty times as long.
     */
    [BF_TLS_CREDS_PSK] = {":-KX-ALL:+ECDHE-ECDSA:+DHE-PSK:+ECDHE-PSK",
                          ":+ECDHE-PSK:+DHE-PSK:+PSK"},
    /* TLS 1.3 always authenticates. */
    [BF_TLS_CREDS_ANON] = {":-VERS-TLS1.3:-KX-ALL:+ANON-DH", ":+ANON-DH"},
};

/* False only if we know that AES would be computed in software. */
static bool
cpu_has_aes(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
    return (getauxval(AT_HWCAP) & HWCAP_AES) != 0;
#else
    return true;
#endif
}

static void
report_failure(const char *priority, int ret, const char *wrong_at,
               BfTlsReport *report)
{
    g_autofree char *text = bf_tls_error_text(ret);

    if (priority == NULL) {
        bf_tls_report_error(
            report,
            "Cannot set the built-in TLS session priority: %s; does this "
            "host's gnutls configuration forbid TLS 1.2 and 1.3?",
            text);
    } else if (ret == GNUTLS_E_INVALID_REQUEST && wrong_at != NULL &&
               *wrong_at != '\0') {
        bf_tls_report_error(
            report,
            "Cannot set TLS session priority '%s': not understood from '%s' "
            "on; correct the property 'priority', 'gnutls-cli --list "
            "--priority STRING' tries a string",
            priority, wrong_at);
    } else {
        bf_tls_report_error(
            report,
            "Cannot set TLS session priority '%s': %s; the property 'priority' "
            "must leave a protocol, a cipher, a key exchange and a signature",
            priority, text);
    }
}

/* Adds to @text what takes away all protocols that our own engine does not do.
 * Returns whether one is left. */
static bool
narrow_protocols(gnutls_priority_t priority, GString *text)
{
    const unsigned *list = NULL;
    int n = gnutls_priority_protocol_list(priority, &list);
    bool any_left = false;

    for (int i = 0; i < n; i++) {
        if (list[i] == GNUTLS_TLS1_3) {
            any_left = true;
        } else {
            g_string_append_printf(text, ":-VERS-%s",
                                   gnutls_protocol_get_name(list[i]));
        }
    }
    return any_left;
}

/* Alike for ciphers. */
static bool
narrow_ciphers(gnutls_priority_t priority, GString *text)
{
    const unsigned *list = NULL;
    int n = gnutls_priority_cipher_list(priority, &list);
    bool any_left = false;

    for (int i = 0; i < n; i++) {
        if (list[i] == GNUTLS_CIPHER_AES_128_GCM ||
            list[i] == GNUTLS_CIPHER_AES_256_GCM) {
            any_left = true;
        } else {
            g_string_append_printf(text, ":-%s",
                                   gnutls_cipher_get_name(list[i]));
        }
    }
    return any_left;
}

/* Leaves only what our own record engine does. */
static void
narrow_to_own_engine(BfTlsMaterial *material, const char *full,
                     BfTlsReport *report)
{
    g_autoptr(GString) text = g_string_new(full);
    const char *lacks = NULL;
    int ret = 0;

    if (material->kind == BF_TLS_CREDS_ANON) {
        lacks = "which anonymous sessions do not have";
    } else if (!narrow_protocols(material->priority, text)) {
        lacks = "and the property 'priority' leaves no TLS 1.3";
    } else if (!narrow_ciphers(material->priority, text)) {
        lacks = "and the property 'priority' leaves no AES-GCM";
    }
    if (lacks != NULL) {
        bf_tls_report_error(report,
                            "record-engine '%s' needs TLS 1.3 with AES-GCM, "
                            "%s; leave it at 'auto'%s",
                            bf_tls_material_engine_name(material), lacks,
                            material->kind == BF_TLS_CREDS_ANON
                                ? ""
                                : ", or correct the priority");
        return;
    }
    gnutls_priority_deinit(material->priority);
    ret = gnutls_priority_init(&material->priority, text->str, NULL);
    if (ret < 0) {
        g_autofree char *reason = bf_tls_error_text(ret);

        material->priority = NULL;
        bf_tls_report_error(report,
                            "Cannot narrow the TLS session priority '%s' to "
                            "what record-engine '%s' does: %s; leave it at "
                            "'auto'",
                            full, bf_tls_material_engine_name(material),
                            reason);
    }
}

/* The one value that a build or a processor may not have. */
static void
check_library(const BfTlsMaterial *material, BfTlsReport *report)
{
    g_autoptr(GError) error = NULL;

    if (material->record_engine == BF_TLS_RECORD_ENGINE_IPSEC_MB &&
        bf_tls13_aead_get_ipsec_mb(&error) == NULL) {
        bf_tls_report_error(report,
                            "record-engine 'ipsec-mb' cannot be had: %s; leave "
                            "it at 'auto'",
                            error->message);
    }
}

void
bf_tls_load_priority(BfTlsMaterial *material, const char *priority,
                     BfTlsReport *report)
{
    const char *wrong_at = NULL;
    g_autofree char *full =
        priority != NULL
            ? g_strconcat(priority, kinds[material->kind].addition, NULL)
            : g_strconcat(PRIORITY_HEAD,
                          cpu_has_aes() ? CIPHERS_AES : CIPHERS_CHACHA,
                          kinds[material->kind].exchanges, NULL);
    int ret = gnutls_priority_init(&material->priority, full, &wrong_at);

    if (ret < 0) {
        material->priority = NULL;
        report_failure(priority, ret, wrong_at, report);
    } else if (bf_tls_material_needs_own_engine(material)) {
        check_library(material, report);
        narrow_to_own_engine(material, full, report);
    }
}
