/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The generated types on their own: enums to text and back, deep copies, and
 * freeing what is half built.
 */
#include "schema/types.h"

#include <string.h>

static void
test_enum_text(void)
{
    BfBlockExportRemoveMode mode = BF_BLOCK_EXPORT_REMOVE_MODE_SAFE;

    g_assert_cmpstr(bf_block_export_remove_mode_str(mode), ==, "safe");
    g_assert_true(bf_block_export_remove_mode_parse("hard", &mode));
    g_assert_cmpint(mode, ==, BF_BLOCK_EXPORT_REMOVE_MODE_HARD);
    g_assert_false(bf_block_export_remove_mode_parse("HARD", &mode));
    g_assert_cmpint(mode, ==, BF_BLOCK_EXPORT_REMOVE_MODE_HARD);
}

static void
test_enum_all_values(void)
{
    for (size_t i = 0; i < bf_blockdev_driver_enum.n_values; i++) {
        BfBlockdevDriver driver;

        g_assert_true(bf_blockdev_driver_parse(
            bf_blockdev_driver_str((BfBlockdevDriver)i), &driver));
        g_assert_cmpint(driver, ==, i);
    }
}

static BfBlockdevOptions *
make_node(void)
{
    BfBlockdevOptions *file = g_new0(BfBlockdevOptions, 1);
    BfBlockdevOptions *fault = g_new0(BfBlockdevOptions, 1);
    BfBlockdevRef *image = g_new0(BfBlockdevRef, 1);
    BfFaultRuleList *rules = g_new0(BfFaultRuleList, 1);

    file->driver = BF_BLOCKDEV_DRIVER_FILE;
    file->u.file = g_new0(BfBlockdevOptionsFile, 1);
    file->u.file->filename = g_strdup("/x");
    image->kind = BF_BLOCKDEV_REF_KIND_OBJECT;
    image->u.object = file;
    rules->len = 2;
    rules->items = g_new0(BfFaultRule *, 2);
    rules->items[0] = g_new0(BfFaultRule, 1);
    rules->items[0]->errno_ = g_strdup("EIO");
    fault->driver = BF_BLOCKDEV_DRIVER_FAULT;
    fault->node_name = g_strdup("n");
    fault->cache = g_new0(BfBlockdevCacheOptions, 1);
    fault->cache->has_direct = true;
    fault->u.fault = g_new0(BfBlockdevOptionsFault, 1);
    fault->u.fault->image = image;
    fault->u.fault->rules = rules; /* the second one is half built: NULL */
    return fault;
}

static void
test_copy_is_deep(void)
{
    BfBlockdevOptions *node = make_node();
    g_autoptr(BfBlockdevOptions) copy = bf_blockdev_options_copy(node);
    const BfFaultRuleList *rules = copy->u.fault->rules;

    bf_blockdev_options_free(node);
    g_assert_cmpstr(copy->node_name, ==, "n");
    g_assert_true(copy->cache->has_direct);
    g_assert_cmpstr(copy->u.fault->image->u.object->u.file->filename, ==, "/x");
    g_assert_cmpuint(rules->len, ==, 2);
    g_assert_cmpstr(rules->items[0]->errno_, ==, "EIO");
    g_assert_null(rules->items[1]);
}

static void
test_copy_of_null_is_null(void)
{
    g_assert_null(bf_blockdev_options_copy(NULL));
    bf_blockdev_options_free(NULL);
}

static void
test_copy_of_reference(void)
{
    g_autoptr(BfBlockdevRef) ref = g_new0(BfBlockdevRef, 1);
    g_autoptr(BfBlockdevRef) copy = NULL;

    ref->kind = BF_BLOCKDEV_REF_KIND_STR;
    ref->u.str = g_strdup("n");
    copy = bf_blockdev_ref_copy(ref);
    g_assert_cmpstr(copy->u.str, ==, "n");
    g_assert_true(copy->u.str != ref->u.str);
}

static void
test_copy_of_list(void)
{
    g_autoptr(BfStrList) list = g_new0(BfStrList, 1);
    g_autoptr(BfStrList) copy = NULL;

    list->len = 2;
    list->items = g_new0(char *, 2);
    list->items[0] = g_strdup("a");
    list->items[1] = g_strdup("b");
    copy = bf_str_list_copy(list);
    g_assert_cmpuint(copy->len, ==, 2);
    g_assert_cmpstr(copy->items[1], ==, "b");
}

static void
test_qom_type_names(void)
{
    const struct {
        const BfTypeInfo *type;
        const char *member;
        const char *name;
    } cases[] = {
        {&bf_secret_properties_type, "data", "string"},
        {&bf_secret_properties_type, "format", "QCryptoSecretFormat"},
        {&bf_tls_creds_x509_properties_type, "verify-peer", "bool"},
        {&bf_iothread_properties_type, "poll-max-ns", "int"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        const BfField *field =
            bf_type_find_field(cases[i].type, cases[i].member);

        g_assert_cmpstr(bf_field_type_name(field), ==, cases[i].name);
    }
    g_assert_null(bf_type_find_field(&bf_secret_properties_type, "nope"));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/schema/types/enum/text", test_enum_text);
    g_test_add_func("/schema/types/enum/all-values", test_enum_all_values);
    g_test_add_func("/schema/types/copy/is-deep", test_copy_is_deep);
    g_test_add_func("/schema/types/copy/of-null-is-null",
                    test_copy_of_null_is_null);
    g_test_add_func("/schema/types/copy/of-reference", test_copy_of_reference);
    g_test_add_func("/schema/types/copy/of-list", test_copy_of_list);
    g_test_add_func("/schema/types/field/qom-type-names", test_qom_type_names);
    return g_test_run();
}
