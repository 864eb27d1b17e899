/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Errors: their domain, and errno as text. */
#include "core/error.h"

#include <errno.h>

static void
test_set_error_formats(void)
{
    g_autoptr(GError) error = NULL;

    bf_set_error(&error, "there is no node '%s'", "disk0");
    g_assert_error(error, BF_ERROR, BF_ERROR_GENERIC);
    g_assert_cmpstr(error->message, ==, "there is no node 'disk0'");
}

static void
test_set_errno_appends_text(void)
{
    g_autoptr(GError) error = NULL;

    bf_set_errno(&error, ENOENT, "cannot open '%s'", "x%s");
    g_assert_error(error, BF_ERROR, BF_ERROR_GENERIC);
    g_assert_cmpstr(error->message, ==,
                    "cannot open 'x%s': No such file or directory");
}

static void
test_null_is_allowed(void)
{
    bf_set_error(NULL, "nobody reads this");
    bf_set_errno(NULL, EIO, "nor this");
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/core/error/set/formats", test_set_error_formats);
    g_test_add_func("/core/error/set-errno/appends-text",
                    test_set_errno_appends_text);
    g_test_add_func("/core/error/set/null-is-allowed", test_null_is_allowed);
    return g_test_run();
}
