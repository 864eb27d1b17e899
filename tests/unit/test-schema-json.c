/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Round trips through the generated types: JSON to C, a deep copy of that, and
 * back to JSON. Also the generated tables: events and introspection.
 */
#include "qmp/gen-commands.h"
#include "qmp/gen-events.h"
#include "qmp/gen-json.h"

#include <string.h>

#include "qmp/json-write.h"

static char *
write_text(const BfTypeInfo *type, const void *object)
{
    g_autoptr(GString) out = g_string_new(NULL);
    json_t *value = bf_json_from_object(type, object, BF_SECRET_MODE_REVEAL);

    bf_json_write(out, value, BF_JSON_STYLE_COMPACT);
    json_decref(value);
    return g_string_free(g_steal_pointer(&out), false);
}

/* Reads @text and expects @result, or @text itself if that is NULL. */
static void
check(const BfTypeInfo *type, const char *text, const char *result)
{
    g_autoptr(GError) error = NULL;
    json_t *value = bf_json_parse_text(text, &error);
    void *object =
        bf_json_read_object(type, value, BF_READ_MODE_STRICT, &error);
    void *copy = bf_type_copy(type, object);
    g_autofree char *got = NULL;

    g_assert_no_error(error);
    bf_type_free(type, object);
    got = write_text(type, copy);
    g_assert_cmpstr(got, ==, result != NULL ? result : text);
    bf_type_free(type, copy);
    json_decref(value);
}

static void
test_struct(void)
{
    check(&bf_version_info_type,
          "{\"qemu\": {\"major\": 10, \"minor\": 0, \"micro\": -1}, "
          "\"package\": \"\\u00E9\"}",
          NULL);
    check(&bf_fdset_info_type,
          "{\"fdset-id\": 1, \"fds\": [{\"fd\": 9, \"opaque\": \"x\"}, "
          "{\"fd\": 10}]}",
          NULL);
    check(&bf_fdset_info_type, "{\"fdset-id\": 1, \"fds\": []}", NULL);
}

static void
test_struct_defaults(void)
{
    check(&bf_block_export_del_args_type, "{'id': 'x'}",
          "{\"id\": \"x\", \"mode\": \"safe\"}");
    check(&bf_fault_rule_type,
          "{'op': 'write', 'offset': 18446744073709551615}",
          "{\"op\": \"write\", \"offset\": 18446744073709551615, "
          "\"after\": 0, \"count\": 0, \"errno\": \"EIO\", \"delay-ms\": 0, "
          "\"short\": false, \"torn\": false, \"park\": false, "
          "\"probability\": 100}");
}

static void
test_union(void)
{
    check(&bf_socket_address_type,
          "{\"type\": \"unix\", \"path\": \"/x\", \"abstract\": false, "
          "\"tight\": true}",
          NULL);
    check(&bf_socket_address_legacy_type,
          "{\"type\": \"inet\", \"data\": {\"host\": \"h\", \"port\": \"1\", "
          "\"numeric\": false, \"to\": 65535, \"ipv6\": false, "
          "\"keep-alive\": false, \"mptcp\": false}}",
          NULL);
}

static void
test_union_without_members(void)
{
    check(&bf_chardev_options_type, "{\"backend\": \"null\", \"id\": \"x\"}",
          NULL);
}

static void
test_alternate(void)
{
    const char *text = "{\"type\": \"nbd\", \"id\": \"e\", "
                       "\"fixed-iothread\": false, \"node-name\": \"n\", "
                       "\"writable\": true, \"writethrough\": false, "
                       "\"report-losses\": false, "
                       "\"allow-inactive\": false, \"allow-resize\": false, "
                       "\"bitmaps\": [\"b\", "
                       "{\"node\": \"n\", \"name\": \"c\"}], "
                       "\"allocation-depth\": false}";

    check(&bf_block_export_options_type, text, NULL);
}

static void
test_any(void)
{
    check(&bf_qom_set_args_type,
          "{\"path\": \"p\", \"property\": \"q\", \"value\": "
          "[null, 18446744073709551615, {\"a\": 1.5}]}",
          NULL);
}

static void
test_secrets_are_masked(void)
{
    g_autoptr(GString) out = g_string_new(NULL);
    json_t *value =
        bf_json_parse_text("{'qom-type':'secret','id':'s','data':'x'}", NULL);
    g_autoptr(BfObjectOptions) object =
        bf_object_options_from_json(value, BF_READ_MODE_STRICT, NULL);
    json_t *masked = bf_object_options_to_json(object);
    g_autofree char *clear = write_text(&bf_object_options_type, object);

    bf_json_write(out, masked, BF_JSON_STYLE_COMPACT);
    g_assert_nonnull(strstr(out->str, "\"data\": \"***\""));
    g_assert_nonnull(strstr(clear, "\"data\": \"x\""));
    json_decref(value);
    json_decref(masked);
}

static void
test_event(void)
{
    g_autoptr(GString) out = g_string_new(NULL);
    json_t *data = bf_event_build_block_export_deleted("e\xFF");
    unsigned found = 0;

    bf_json_write(out, data, BF_JSON_STYLE_COMPACT);
    g_assert_cmpstr(out->str, ==, "{\"id\": \"e\\uFFFD\"}");
    json_decref(data);
    for (size_t i = 0; i < bf_qmp_n_events; i++) {
        found +=
            strcmp(bf_qmp_events[i].name, BF_EVENT_BLOCK_EXPORT_DELETED) == 0;
    }
    g_assert_cmpuint(found, ==, 1);
}

/* Every name that the introspection uses must be in it, and only once. */
static void
test_introspection_is_closed(void)
{
    static const char *const references[] = {"arg-type", "ret-type",
                                             "element-type"};
    g_autoptr(GError) error = NULL;
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    json_t *schema = bf_json_parse_text(bf_qmp_introspection, &error);
    json_t *entry;
    size_t i;

    g_assert_no_error(error);
    json_array_foreach(schema, i, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "name"));

        g_assert_true(g_hash_table_add(names, (char *)name));
    }
    json_array_foreach(schema, i, entry)
    {
        BfSchemaInfo *info =
            bf_schema_info_from_json(entry, BF_READ_MODE_STRICT, &error);

        g_assert_no_error(error);
        bf_schema_info_free(info);
        for (size_t j = 0; j < G_N_ELEMENTS(references); j++) {
            const char *name =
                json_string_value(json_object_get(entry, references[j]));

            g_assert_true(name == NULL || g_hash_table_contains(names, name));
        }
    }
    json_decref(schema);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qmp/gen-json/struct/round-trip", test_struct);
    g_test_add_func("/qmp/gen-json/struct/defaults", test_struct_defaults);
    g_test_add_func("/qmp/gen-json/union/round-trip", test_union);
    g_test_add_func("/qmp/gen-json/union/without-members",
                    test_union_without_members);
    g_test_add_func("/qmp/gen-json/alternate/round-trip", test_alternate);
    g_test_add_func("/qmp/gen-json/any/round-trip", test_any);
    g_test_add_func("/qmp/gen-json/secrets-are-masked",
                    test_secrets_are_masked);
    g_test_add_func("/qmp/gen-events/build", test_event);
    g_test_add_func("/qmp/gen-introspect/is-closed",
                    test_introspection_is_closed);
    return g_test_run();
}
