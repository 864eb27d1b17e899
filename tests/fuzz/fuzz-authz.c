/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer of authorization: the name of a client, a NUL, and the text of the
 * file of an authz-listfile, in which case nothing is trusted.
 *
 * Beyond not crashing: a text is either read or explained, a denial has a
 * reason, and the first rule that fits decides.
 */
#include <string.h>

#include "crypto/authz.h"
#include "qmp/authz-text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a list with only one rule, which allows, says. */
static bool
fits_alone(BfQAuthZListRule *rule, const char *name)
{
    BfQAuthZListRule alone = {
        .match = rule->match,
        .policy = BF_Q_AUTH_Z_LIST_POLICY_ALLOW,
        .format = rule->format,
    };
    BfQAuthZListRule *items[] = {&alone};
    BfQAuthZListRuleList rules = {.len = 1, .items = items};
    BfAuthZListProperties props = {.rules = &rules};
    g_autoptr(BfAuthz) authz = bf_authz_new_list(&props);

    return bf_authz_check(authz, name, NULL);
}

static bool
is_allowed(const BfAuthZListProperties *props, const char *name)
{
    for (size_t i = 0; props->rules != NULL && i < props->rules->len; i++) {
        if (fits_alone(props->rules->items[i], name)) {
            return props->rules->items[i]->policy ==
                   BF_Q_AUTH_Z_LIST_POLICY_ALLOW;
        }
    }
    return props->policy == BF_Q_AUTH_Z_LIST_POLICY_ALLOW;
}

/* The kinds that have no rules. */
static void
check_plain_kinds(const char *name, const char *text)
{
    g_autoptr(BfAuthz) simple = bf_authz_new_simple(text);
    g_autoptr(BfAuthz) denying = bf_authz_new_denying(text);
    g_autoptr(BfAuthz) pam = bf_authz_new_pam(text, NULL, NULL);
    g_autoptr(BfAuthz) again = bf_authz_ref(denying);
    g_autoptr(GError) error = NULL;

    g_assert_true(bf_authz_check(simple, name, NULL) ==
                  (strcmp(name, text) == 0));
    g_assert_false(bf_authz_check(denying, name, &error));
    g_assert_cmpstr(error->message, ==, text);
    g_assert_false(bf_authz_may_block(again));
    g_assert_true(pam == NULL || bf_authz_may_block(pam));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *name = g_strndup((const char *)data, size);
    size_t used = MIN(strlen(name) + 1, size);
    g_autofree char *text = g_strndup((const char *)data + used, size - used);
    g_autoptr(BfAuthZListProperties) props = NULL;
    g_autoptr(BfAuthz) authz = NULL;
    g_autoptr(GError) invalid = NULL;
    g_autoptr(GError) denied = NULL;
    bool ok;

    check_plain_kinds(name, text);
    props = bf_authz_text_parse(text, "rules", &invalid);
    g_assert_true((props == NULL) == (invalid != NULL));
    if (props == NULL) {
        return 0;
    }
    authz = bf_authz_new_list(props);
    ok = bf_authz_check(authz, name, &denied);
    g_assert_true(ok == (denied == NULL));
    g_assert_true(ok == is_allowed(props, name));
    return 0;
}
