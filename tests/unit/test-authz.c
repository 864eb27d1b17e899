/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Authorization: globs, the order of rules, reasons, and PAM. */
#include "crypto/authz.h"

#include <string.h>

#include <glib/gstdio.h>

#include "core/error.h"

#define NAME "C=GB,ST=London,O=Example\\, Org,CN=host1"

static void
test_glob_matches(void)
{
    static const struct {
        const char *pattern;
        const char *text;
        bool fits;
    } cases[] = {
        {"", "", true},
        {"", "a", false},
        {"a", "", false},
        {"*", "", true},
        {"**", "", true},
        {"*", "C=GB,CN=x", true},
        {"?", "", false},
        {"?", "a", true},
        {"?", "ab", false},
        {"?*", "", false},
        {"?*", "abc", true},
        {"*?", "abc", true},
        {"abc", "abc", true},
        {"abc", "abcd", false},
        {"abc", "ABC", false},
        {"abc*", "abc", true},
        {"*abc", "abcabd", false},
        {"*abc", "abababc", true},
        {"*a*b*c*", "xxaxxbxxcxx", true},
        {"*a*b*c*", "xxaxxcxxbxx", false},
        {"a?c", "a,c", true},
        {"C=*,CN=h?st1", NAME, true},
        {"C=*CN=h?st1", NAME, true},
        {"*CN=host1", NAME, true},
        {"*CN=host", NAME, false},
        {"[a]", "a", false},
        {"[a]", "[a]", true},
        {"a\\*", "a\\bcd", true},
        {"CN=?", "CN=\xc3\xa9", true},
        {"CN=??", "CN=\xc3\xa9", false},
        {"CN=*\xa9", "CN=\xc3\xa9", false},
        {"CN=?", "CN=\xc3", true},
        {"CN=?x", "CN=\xf0", false},
        {"CN=*x", "CN=\xf0", false},
        {"*\xc3\xa9", "\xc3\xa8\xc3\xa9", true},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        if (bf_authz_glob_match(cases[i].pattern, cases[i].text) !=
            cases[i].fits) {
            g_error("'%s' and '%s'", cases[i].pattern, cases[i].text);
        }
    }
}

/* The obvious definition, to compare with. */
static bool
glob_slowly(const char *pattern, const char *text)
{
    switch (*pattern) {
    case '\0':
        return *text == '\0';
    case '*':
        return glob_slowly(pattern + 1, text) ||
               (*text != '\0' && glob_slowly(pattern, text + 1));
    case '?':
        return *text != '\0' && glob_slowly(pattern + 1, text + 1);
    default:
        return *pattern == *text && glob_slowly(pattern + 1, text + 1);
    }
}

static void
test_glob_is_as_defined(void)
{
    g_autoptr(GRand) random = g_rand_new_with_seed(4);

    for (unsigned round = 0; round < 200000; round++) {
        char pattern[9] = "";
        char text[13] = "";

        for (int i = g_rand_int_range(random, 0, 8); i > 0; i--) {
            pattern[i - 1] = "ab*?"[g_rand_int_range(random, 0, 4)];
        }
        for (int i = g_rand_int_range(random, 0, 12); i > 0; i--) {
            text[i - 1] = "ab"[g_rand_int_range(random, 0, 2)];
        }
        if (strlen(pattern) == 0 && strlen(text) == 0) {
            continue;
        }
        g_assert_cmpint(bf_authz_glob_match(pattern, text), ==,
                        glob_slowly(pattern, text));
    }
}

/* A recursive matcher would not come to an end. */
static void
test_glob_with_many_stars_ends(void)
{
    g_autoptr(GString) pattern = g_string_new(NULL);
    g_autoptr(GString) text = g_string_new(NULL);

    for (unsigned i = 0; i < 1000; i++) {
        g_string_append(pattern, "*a");
        g_string_append(text, "aaaaaaaaaa");
    }
    g_string_append_c(pattern, 'b');
    g_assert_false(bf_authz_glob_match(pattern->str, text->str));
}

static void
assert_denied(const BfAuthz *authz, const char *identity, const char *phrase)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(bf_authz_check(authz, identity, &error));
    g_assert_error(error, BF_ERROR, BF_ERROR_GENERIC);
    if (strstr(error->message, phrase) == NULL) {
        g_error("'%s' is not in '%s'", phrase, error->message);
    }
}

static void
assert_allowed(const BfAuthz *authz, const char *identity)
{
    g_autoptr(GError) error = NULL;
    bool ok = bf_authz_check(authz, identity, &error);

    g_assert_no_error(error);
    g_assert_true(ok);
}

static void
test_simple_allows_one_name(void)
{
    g_autoptr(BfAuthz) authz = bf_authz_new_simple(NAME);

    g_assert_false(bf_authz_may_block(authz));
    assert_allowed(authz, NAME);
    assert_denied(authz, "", "set 'identity' to it");
    assert_denied(authz, NAME " ", "only 'C=GB,ST=London");
    assert_denied(authz, "*", "only");
}

static BfAuthz *
make_list(BfQAuthZListPolicy policy, const BfQAuthZListRule *rules, size_t n)
{
    g_autofree BfQAuthZListRule *copy =
        n > 0 ? g_memdup2(rules, n * sizeof(*rules)) : NULL;
    g_autofree BfQAuthZListRule **items = g_new0(BfQAuthZListRule *, n + 1);
    BfQAuthZListRuleList list = {.len = n, .items = items};
    BfAuthZListProperties props = {
        .policy = policy,
        .rules = n > 0 ? &list : NULL,
    };

    for (size_t i = 0; i < n; i++) {
        items[i] = &copy[i];
    }
    return bf_authz_new_list(&props);
}

static void
test_list_without_rules_is_its_policy(void)
{
    g_autoptr(BfAuthz) deny = make_list(BF_Q_AUTH_Z_LIST_POLICY_DENY, NULL, 0);
    g_autoptr(BfAuthz) allow =
        make_list(BF_Q_AUTH_Z_LIST_POLICY_ALLOW, NULL, 0);

    assert_denied(deny, NAME, "no rule matches it and the policy is 'deny'");
    assert_allowed(allow, NAME);
}

static void
test_first_rule_that_fits_decides(void)
{
    static const BfQAuthZListRule rules[] = {
        {"*CN=host1", BF_Q_AUTH_Z_LIST_POLICY_DENY,
         BF_Q_AUTH_Z_LIST_FORMAT_EXACT},
        {"C=GB,*CN=host2", BF_Q_AUTH_Z_LIST_POLICY_DENY,
         BF_Q_AUTH_Z_LIST_FORMAT_GLOB},
        {"C=GB,*", BF_Q_AUTH_Z_LIST_POLICY_ALLOW, BF_Q_AUTH_Z_LIST_FORMAT_GLOB},
        {"C=FR", BF_Q_AUTH_Z_LIST_POLICY_ALLOW, BF_Q_AUTH_Z_LIST_FORMAT_EXACT},
    };
    g_autoptr(BfAuthz) authz =
        make_list(BF_Q_AUTH_Z_LIST_POLICY_DENY, rules, G_N_ELEMENTS(rules));

    assert_allowed(authz, NAME); /* the first is not a pattern */
    assert_denied(authz, "*CN=host1", "rule 1 (exact '*CN=host1')");
    assert_denied(authz, "C=GB,O=x,CN=host2", "rule 2 (glob 'C=GB,*CN=host2')");
    assert_allowed(authz, "C=FR");
    assert_denied(authz, "C=FR,CN=x", "no rule matches");
}

static void
test_denying_gives_its_reason(void)
{
    g_autoptr(BfAuthz) authz = bf_authz_new_denying("the 50% file is bad");
    BfAuthz *second = bf_authz_ref(authz);

    assert_denied(second, NAME, "the 50% file is bad");
    bf_authz_unref(second);
    assert_denied(authz, NAME, "the 50% file is bad");
}

static void
test_pam_needs_a_service(void)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(bf_authz_new_pam("", NULL, &error));
    g_assert_cmpstr(error->message, ==, "The 'service' property must be set");
}

#if BF_HAVE_PAM

/* Asks PAM with a service file of one line about the user NAME. */
static void
check_pam(const char *line, const char *phrase)
{
    g_autofree char *dir = g_dir_make_tmp("bf-pam-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "ferry", NULL);
    g_autoptr(GError) error = NULL;
    g_autoptr(BfAuthz) authz = bf_authz_new_pam("ferry", dir, &error);

    g_assert_no_error(error);
    g_assert_true(bf_authz_may_block(authz));
    g_assert_true(g_file_set_contents(path, line, -1, NULL));
    if (phrase == NULL) {
        assert_allowed(authz, NAME);
    } else {
        assert_denied(authz, NAME, phrase);
    }
    g_assert_cmpint(g_unlink(path), ==, 0);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

static void
test_pam_decides(void)
{
    check_pam("account required pam_permit.so\n", NULL);
    check_pam("account required pam_deny.so\n",
              "Unable to authorize user 'C=GB,ST=London");
    /* Being authenticated is not enough. */
    check_pam("auth required pam_permit.so\n", "Unable to authorize user");
    check_pam("account required no-such-module.so\n",
              "Unable to authorize user");
}

#else

static void
test_pam_is_missing(void)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(bf_authz_new_pam("ferry", NULL, &error));
    g_assert_nonnull(strstr(error->message, "not available in this build"));
}

#endif

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/crypto/authz/glob/matches", test_glob_matches);
    g_test_add_func("/crypto/authz/glob/is-as-defined",
                    test_glob_is_as_defined);
    g_test_add_func("/crypto/authz/glob/many-stars-end",
                    test_glob_with_many_stars_ends);
    g_test_add_func("/crypto/authz/simple/allows-one-name",
                    test_simple_allows_one_name);
    g_test_add_func("/crypto/authz/list/without-rules-is-its-policy",
                    test_list_without_rules_is_its_policy);
    g_test_add_func("/crypto/authz/list/first-rule-that-fits-decides",
                    test_first_rule_that_fits_decides);
    g_test_add_func("/crypto/authz/denying/gives-its-reason",
                    test_denying_gives_its_reason);
    g_test_add_func("/crypto/authz/pam/needs-a-service",
                    test_pam_needs_a_service);
#if BF_HAVE_PAM
    g_test_add_func("/crypto/authz/pam/decides", test_pam_decides);
#else
    g_test_add_func("/crypto/authz/pam/is-missing", test_pam_is_missing);
#endif
    return g_test_run();
}
