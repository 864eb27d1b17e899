/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rules about names. What a name is compared with comes from the administrator,
 * the name itself from whoever got a certificate: it may have any bytes but
 * NUL.
 */
#include "crypto/authz.h"

#include <string.h>

#include "authz-private.h"
#include "core/error.h"

typedef enum AuthzKind {
    AUTHZ_SIMPLE,
    AUTHZ_LIST,
    AUTHZ_PAM,
    AUTHZ_DENYING,
} AuthzKind;

struct BfAuthz {
    gatomicrefcount refs;
    AuthzKind kind;
    char *text;                  /* owned: identity, service or reason */
    char *conf_dir;              /* (nullable) owned: of PAM */
    BfAuthZListProperties *list; /* (nullable) owned */
};

static BfAuthz *
authz_new(AuthzKind kind, const char *text)
{
    BfAuthz *authz = g_new0(BfAuthz, 1);

    g_atomic_ref_count_init(&authz->refs);
    authz->kind = kind;
    authz->text = g_strdup(text);
    return authz;
}

BfAuthz *
bf_authz_new_simple(const char *identity)
{
    return authz_new(AUTHZ_SIMPLE, identity);
}

BfAuthz *
bf_authz_new_list(const BfAuthZListProperties *props)
{
    BfAuthz *authz = authz_new(AUTHZ_LIST, NULL);

    authz->list = bf_auth_z_list_properties_copy(props);
    return authz;
}

BfAuthz *
bf_authz_new_denying(const char *why)
{
    return authz_new(AUTHZ_DENYING, why);
}

BfAuthz *
bf_authz_new_pam(const char *service, const char *conf_dir, GError **error)
{
    BfAuthz *authz;

    if (*service == '\0') {
        bf_set_error(error, "The 'service' property must be set");
        return NULL;
    }
    if (!bf_authz_pam_is_available(error)) {
        return NULL;
    }
    authz = authz_new(AUTHZ_PAM, service);
    authz->conf_dir = g_strdup(conf_dir);
    return authz;
}

BfAuthz *
bf_authz_ref(BfAuthz *authz)
{
    g_atomic_ref_count_inc(&authz->refs);
    return authz;
}

void
bf_authz_unref(BfAuthz *authz)
{
    if (authz == NULL || !g_atomic_ref_count_dec(&authz->refs)) {
        return;
    }
    g_free(authz->text);
    g_free(authz->conf_dir);
    bf_auth_z_list_properties_free(authz->list);
    g_free(authz);
}

bool
bf_authz_may_block(const BfAuthz *authz)
{
    return authz->kind == AUTHZ_PAM;
}

/* The next character of UTF-8; of anything else the next byte, and what looks
 * like the rest of a character. Never goes past the end. */
static const char *
next_char(const char *text)
{
    text++;
    while ((*text & 0xc0) == 0x80) {
        text++;
    }
    return text;
}

bool
bf_authz_glob_match(const char *pattern, const char *text)
{
    const char *star = NULL; /* behind the last one */
    const char *from = NULL; /* where what it stands for may end */

    while (*text != '\0') {
        if (*pattern == '*') {
            star = ++pattern;
            from = text;
        } else if (*pattern == '?') {
            pattern++;
            text = next_char(text);
        } else if (*pattern == *text) {
            pattern++;
            text++;
        } else if (star != NULL) {
            /* Earlier stars need no other try: this one covers them all. */
            pattern = star;
            from = next_char(from);
            text = from;
        } else {
            return false;
        }
    }
    while (*pattern == '*') {
        pattern++;
    }
    return *pattern == '\0';
}

static bool
rule_fits(const BfQAuthZListRule *rule, const char *identity)
{
    return rule->format == BF_Q_AUTH_Z_LIST_FORMAT_GLOB
               ? bf_authz_glob_match(rule->match, identity)
               : strcmp(rule->match, identity) == 0;
}

static bool
check_list(const BfAuthZListProperties *list, const char *identity,
           GError **error)
{
    for (size_t i = 0; list->rules != NULL && i < list->rules->len; i++) {
        const BfQAuthZListRule *rule = list->rules->items[i];

        if (!rule_fits(rule, identity)) {
            continue;
        }
        if (rule->policy == BF_Q_AUTH_Z_LIST_POLICY_ALLOW) {
            return true;
        }
        bf_set_error(error,
                     "rule %zu (%s '%s') denies it; to let it in, put a rule "
                     "that allows it before that one",
                     i + 1, bf_q_auth_z_list_format_str(rule->format),
                     rule->match);
        return false;
    }
    if (list->policy == BF_Q_AUTH_Z_LIST_POLICY_ALLOW) {
        return true;
    }
    bf_set_error(error, "no rule matches it and the policy is 'deny'; to let "
                        "it in, add a rule that allows it");
    return false;
}

bool
bf_authz_check(const BfAuthz *authz, const char *identity, GError **error)
{
    switch (authz->kind) {
    case AUTHZ_SIMPLE:
        if (strcmp(authz->text, identity) == 0) {
            return true;
        }
        bf_set_error(error,
                     "only '%s' is allowed; to let it in, set 'identity' to it",
                     authz->text);
        return false;
    case AUTHZ_LIST:
        return check_list(authz->list, identity, error);
    case AUTHZ_PAM:
        return bf_authz_pam_check(authz->text, authz->conf_dir, identity,
                                  error);
    case AUTHZ_DENYING:
        bf_set_error(error, "%s", authz->text);
        return false;
    }
    g_assert_not_reached();
}
