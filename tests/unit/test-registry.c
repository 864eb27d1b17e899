/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Registries, and which ids are well formed. */
#include "core/registry.h"

static void
test_ids(void)
{
    static const char *const good[] = {"a", "Z", "disk0", "a-b.c_d", "x--"};
    static const char *const bad[] = {"",    "0a",  "-a", "_a",        ".",
                                      "a b", "a/b", "#x", "d\xc3\xa4", "a\n"};

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_assert_true(bf_id_is_wellformed(good[i]));
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_false(bf_id_is_wellformed(bad[i]));
    }
}

static void
assert_listed(BfRegistry *registry, const char *const *objects)
{
    g_autoptr(GPtrArray) list = bf_registry_list(registry);
    unsigned n = 0;

    for (; objects[n] != NULL; n++) {
        g_assert_cmpuint(n, <, list->len);
        g_assert_true(g_ptr_array_index(list, n) == objects[n]);
    }
    g_assert_cmpuint(list->len, ==, n);
    g_assert_cmpuint(bf_registry_size(registry), ==, n);
}

static void
test_lists_in_order_of_insertion(void)
{
    g_autoptr(BfRegistry) registry = bf_registry_new();
    char one[] = "1";
    char two[] = "2";
    char three[] = "3";
    char id[] = "b";

    assert_listed(registry, (const char *[]){NULL});
    g_assert_true(bf_registry_add(registry, id, one));
    id[0] = 'x'; /* it was copied */
    g_assert_true(bf_registry_add(registry, "c", two));
    g_assert_true(bf_registry_add(registry, "a", three));
    g_assert_false(bf_registry_add(registry, "c", one));
    assert_listed(registry, (const char *[]){one, two, three, NULL});
    g_assert_true(bf_registry_find(registry, "c") == two);
    g_assert_null(bf_registry_find(registry, "d"));
    g_assert_null(bf_registry_find(registry, NULL));

    g_assert_true(bf_registry_remove(registry, "c") == two);
    g_assert_null(bf_registry_remove(registry, "c"));
    assert_listed(registry, (const char *[]){one, three, NULL});
    g_assert_true(bf_registry_add(registry, "c", two));
    assert_listed(registry, (const char *[]){one, three, two, NULL});
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/core/registry/id/wellformed", test_ids);
    g_test_add_func("/core/registry/list/in-order-of-insertion",
                    test_lists_in_order_of_insertion);
    return g_test_run();
}
