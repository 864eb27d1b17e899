/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The readers: what they make of good values, and what they say about bad ones.
 * The messages are part of the interface: clients match on them.
 */
#include "qmp/json-read.h"

#include <string.h>

#include "qmp/gen-json.h"
#include "qmp/json-write.h"

static json_t *
parse(const char *text)
{
    g_autoptr(GError) error = NULL;
    json_t *value = bf_json_parse_text(text, &error);

    g_assert_no_error(error);
    return value;
}

static void
check_fails(const BfTypeInfo *type, const char *text, const char *message)
{
    g_autoptr(GError) error = NULL;
    json_t *value = parse(text);

    g_assert_null(
        bf_json_read_object(type, value, BF_READ_MODE_STRICT, &error));
    g_assert_nonnull(error);
    g_assert_cmpstr(error->message, ==, message);
    json_decref(value);
}

static BfBlockdevOptions *
read_node(const char *text)
{
    g_autoptr(GError) error = NULL;
    json_t *value = parse(text);
    BfBlockdevOptions *options =
        bf_blockdev_options_from_json(value, BF_READ_MODE_STRICT, &error);

    g_assert_no_error(error);
    json_decref(value);
    return options;
}

static void
test_fills_defaults(void)
{
    g_autoptr(BfBlockdevOptions) node = read_node("{'driver':'null-co'}");
    g_autoptr(BfBlockdevOptions) file =
        read_node("{'driver':'file', 'filename':'/a'}");

    g_assert_cmpint(node->driver, ==, BF_BLOCKDEV_DRIVER_NULL_CO);
    g_assert_null(node->node_name);
    g_assert_null(node->cache);
    g_assert_false(node->has_read_only);
    g_assert_false(node->has_active);
    g_assert_true(file->u.file->drop_cache);
    g_assert_cmpuint(node->u.null_co->size, ==, 1 << 30);
}

static void
test_reads_nested(void)
{
    g_autoptr(BfBlockdevOptions) node = read_node(
        "{'driver':'raw','node-name':'a','read-only':false,'offset':512,"
        "'cache':{'direct':true},'file':{'driver':'file','filename':'/x',"
        "'locking':'off'}}");
    const BfBlockdevOptions *file = node->u.raw->file->u.object;

    g_assert_true(node->has_read_only && !node->read_only);
    g_assert_true(node->cache->has_direct && node->cache->direct);
    g_assert_false(node->cache->has_no_flush);
    g_assert_cmpint(node->u.raw->file->kind, ==, BF_BLOCKDEV_REF_KIND_OBJECT);
    g_assert_cmpstr(file->u.file->filename, ==, "/x");
    g_assert_cmpint(file->u.file->locking, ==, BF_ON_OFF_AUTO_OFF);
    g_assert_cmpuint(node->u.raw->offset, ==, 512);
    g_assert_false(node->u.raw->has_size);
}

static void
test_reads_unsigned_limits(void)
{
    g_autoptr(BfBlockdevOptions) node =
        read_node("{'driver':'null-co','latency-ns':18446744073709551615}");

    g_assert_cmpuint(node->u.null_co->latency_ns, ==, UINT64_MAX);
    check_fails(&bf_blockdev_options_type,
                "{'driver':'null-co','latency-ns':18446744073709551616}",
                "Parameter 'latency-ns' expects uint64");
    check_fails(&bf_blockdev_options_type,
                "{'driver':'null-co','latency-ns':-1}",
                "Parameter 'latency-ns' expects a non-negative value");
}

static void
test_missing(void)
{
    check_fails(&bf_blockdev_options_type, "{}",
                "Parameter 'driver' is missing");
    check_fails(&bf_blockdev_options_type, "{'driver':'raw'}",
                "Parameter 'file' is missing");
    check_fails(&bf_blockdev_options_type,
                "{'driver':'raw','file':{'driver':'raw'}}",
                "Parameter 'file.file' is missing");
    check_fails(&bf_nbd_server_start_args_type,
                "{'addr':{'type':'unix','path':'/x'}}",
                "Parameter 'addr.data' is missing: an address is {\"type\": "
                "\"inet\", \"data\": {\"host\": ..., \"port\": ...}} or "
                "{\"type\": \"unix\", \"data\": {\"path\": ...}}");
    check_fails(&bf_block_export_options_type,
                "{'type':'nbd','id':'a','node-name':'b',"
                "'bitmaps':['x',{'node':'1'}]}",
                "Parameter 'bitmaps[1].name' is missing");
}

static void
test_unexpected(void)
{
    check_fails(&bf_blockdev_options_type, "{'driver':'null-co','filename':5}",
                "Parameter 'filename' is unexpected");
    check_fails(&bf_blockdev_options_type,
                "{'driver':'raw','file':{'driver':'null-co','foo':[]}}",
                "Parameter 'file.foo' is unexpected");
    /* What there was once, with what there is now. */
    check_fails(&bf_object_options_type,
                "{'qom-type':'secret','id':'s','props':{'data':'x'}}",
                "Parameter 'props' is unexpected: give its members beside "
                "'qom-type' and 'id'");
    check_fails(&bf_block_export_options_type,
                "{'type':'nbd','id':'e','node-name':'n','bitmap':'b'}",
                "Parameter 'bitmap' is unexpected: give a list of names as "
                "'bitmaps'");
    check_fails(&bf_object_options_type,
                "{'qom-type':'secret','id':'s','data':'x','loaded':true}",
                "Parameter 'loaded' is unexpected: objects are loaded when "
                "they are made; leave it out");
    check_fails(&bf_block_export_options_type,
                "{'type':'nbd','id':'e','node-name':'n','props':{}}",
                "Parameter 'props' is unexpected");
}

static void
test_wrong_type(void)
{
    check_fails(&bf_blockdev_options_type, "{'driver':7}",
                "Invalid parameter type for 'driver', expected: string");
    check_fails(&bf_blockdev_options_type, "{'driver':'raw','file':5}",
                "Invalid parameter type for 'file', expected: BlockdevRef");
    check_fails(&bf_blockdev_options_type,
                "{'driver':'raw','file':9223372036854775808}",
                "Invalid parameter type for 'file', expected: BlockdevRef");
    check_fails(&bf_blockdev_options_type,
                "{'driver':'raw','file':{'driver':'null-co','size':[]}}",
                "Invalid parameter type for 'file.size', expected: integer");
    check_fails(&bf_blockdev_options_type,
                "{'driver':'null-co','latency-ns':'1'}",
                "Parameter 'latency-ns' expects uint64");
    check_fails(&bf_block_resize_args_type, "{'node-name':'a','size':1.0}",
                "Invalid parameter type for 'size', expected: integer");
    check_fails(&bf_block_resize_args_type,
                "{'node-name':'a','size':9223372036854775808}",
                "Invalid parameter type for 'size', expected: integer");
    check_fails(&bf_block_export_options_type,
                "{'type':'nbd','id':'a','node-name':'b','writable':'x'}",
                "Invalid parameter type for 'writable', expected: boolean");
    check_fails(&bf_block_export_options_type,
                "{'type':'nbd','id':'a','node-name':'b','bitmaps':{}}",
                "Invalid parameter type for 'bitmaps', expected: array");
    check_fails(&bf_nbd_server_start_args_type, "{'addr':[]}",
                "Invalid parameter type for 'addr', expected: object");
    check_fails(&bf_blockdev_reopen_args_type,
                "{'options':[{'driver':'raw','file':{'driver':'null-co',"
                "'read-only':null}}]}",
                "Invalid parameter type for 'options[0].file.read-only', "
                "expected: boolean");
}

static void
test_out_of_range(void)
{
    const char *server = "{'addr':{'type':'inet','data':{'host':'','port':'1',"
                         "'to':%s}},'max-connections':%s}";
    g_autofree char *to = g_strdup_printf(server, "65536", "1");
    g_autofree char *many = g_strdup_printf(server, "65535", "4294967296");
    g_autofree char *few = g_strdup_printf(server, "65535", "-1");

    check_fails(&bf_nbd_server_start_args_type, to,
                "Parameter 'addr.data.to' expects uint16_t");
    check_fails(&bf_nbd_server_start_args_type, many,
                "Parameter 'max-connections' expects uint32_t");
    check_fails(&bf_nbd_server_start_args_type, few,
                "Parameter 'max-connections' expects uint32_t");
}

static void
test_unknown_enum_value_names_leaf(void)
{
    check_fails(&bf_blockdev_options_type,
                "{'driver':'raw','file':{'driver':'nope'}}",
                "Parameter 'driver' does not accept value 'nope'");
    check_fails(&bf_qmp_capabilities_args_type, "{'enable':['oob','foo']}",
                "Parameter 'enable[1]' does not accept value 'foo'");
}

static void
test_nul_in_string(void)
{
    check_fails(&bf_blockdev_options_type,
                "{'driver':'file','filename':'a\\u0000b'}",
                "Parameter 'filename' must not contain a NUL character");
}

static void
test_depth_is_limited(void)
{
    g_autoptr(GString) text = g_string_new("'x'");
    g_autoptr(GError) error = NULL;
    json_t *value;

    for (int i = 0; i < BF_READ_DEPTH_MAX; i++) {
        g_string_prepend(text, "{'driver':'raw','file':");
        g_string_append_c(text, '}');
    }
    bf_blockdev_options_free(read_node(text->str));
    g_string_prepend(text, "{'driver':'raw','file':");
    g_string_append_c(text, '}');
    value = parse(text->str);
    g_assert_null(
        bf_blockdev_options_from_json(value, BF_READ_MODE_STRICT, &error));
    g_assert_nonnull(strstr(error->message, "is nested too deeply"));
    json_decref(value);
}

static void
test_long_texts_are_cut(void)
{
    g_autofree char *name = g_strnfill(100000, 'x');
    g_autofree char *text = g_strdup_printf("{'driver':'%s'}", name);
    g_autoptr(GError) error = NULL;
    json_t *value = parse(text);

    g_assert_null(
        bf_blockdev_options_from_json(value, BF_READ_MODE_STRICT, &error));
    g_assert_cmpuint(strlen(error->message), <, 300);
    json_decref(value);
}

static void
test_any_is_json_text(void)
{
    json_t *value = parse("{'path':'p','property':'q','value':"
                          "[18446744073709551615,1.5,'\xC3\xA9',{'a':null}]}");
    g_autoptr(GError) error = NULL;
    g_autoptr(BfQomSetArgs) args =
        bf_qom_set_args_from_json(value, BF_READ_MODE_STRICT, &error);

    g_assert_no_error(error);
    g_assert_cmpstr(args->value, ==,
                    "[18446744073709551615, 1.5, \"\\u00E9\", {\"a\": null}]");
    json_decref(value);
}

static void
test_no_arguments(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BfJsonDoc) doc =
        bf_json_doc_parse(g_strdup("{\"a\":1}"), 7, &error);

    g_assert_no_error(error);
    g_assert_true(bf_json_read_none(NULL, NULL));
    g_assert_false(bf_json_read_none(bf_json_doc_root(doc), &error));
    g_assert_cmpstr(error->message, ==, "Parameter 'a' is unexpected");
}

static void
test_json_text_on_command_line(void)
{
    const struct {
        const char *text;
        const char *message;
    } cases[] = {
        {"{", "JSON parse error, premature EOI"},
        {"{}{", "Expecting at most one JSON value"},
        {"{} x", "Expecting at most one JSON value"},
        {"{'a':01}", "JSON parse error, stray '01'"},
        {"{'a':1,'a':2}", "JSON parse error, duplicate key"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_null(bf_json_parse_text(cases[i].text, &error));
        g_assert_cmpstr(error->message, ==, cases[i].message);
    }
}

static void
test_pretty(void)
{
    g_autoptr(GString) out = g_string_new(NULL);
    json_t *value = parse("{'a':[1,{}],'b':[]}");

    bf_json_write(out, value, BF_JSON_STYLE_PRETTY);
    g_assert_cmpstr(out->str, ==,
                    "{\r\n    \"a\": [\r\n        1,\r\n        {\r\n"
                    "        }\r\n    ],\r\n    \"b\": [\r\n    ]\r\n}");
    json_decref(value);
}

static void
test_strings_of_ours_are_valid(void)
{
    json_t *bad = bf_json_str("a\xFF");
    json_t *mark = bf_json_str(BF_JSON_MARK "5");
    json_t *big = bf_json_uint(UINT64_MAX);
    uint64_t number;

    g_assert_cmpstr(json_string_value(bad), ==, "a\xEF\xBF\xBD");
    g_assert_false(bf_json_get_big_uint(mark, &number));
    g_assert_true(bf_json_get_big_uint(big, &number));
    g_assert_cmpuint(number, ==, UINT64_MAX);
    json_decref(bad);
    json_decref(mark);
    json_decref(big);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qmp/json-read/object/fills-defaults",
                    test_fills_defaults);
    g_test_add_func("/qmp/json-read/object/reads-nested", test_reads_nested);
    g_test_add_func("/qmp/json-read/object/reads-unsigned-limits",
                    test_reads_unsigned_limits);
    g_test_add_func("/qmp/json-read/object/missing", test_missing);
    g_test_add_func("/qmp/json-read/object/unexpected", test_unexpected);
    g_test_add_func("/qmp/json-read/object/wrong-type", test_wrong_type);
    g_test_add_func("/qmp/json-read/object/out-of-range", test_out_of_range);
    g_test_add_func("/qmp/json-read/object/unknown-enum-value-names-leaf",
                    test_unknown_enum_value_names_leaf);
    g_test_add_func("/qmp/json-read/object/nul-in-string", test_nul_in_string);
    g_test_add_func("/qmp/json-read/object/depth-is-limited",
                    test_depth_is_limited);
    g_test_add_func("/qmp/json-read/object/long-texts-are-cut",
                    test_long_texts_are_cut);
    g_test_add_func("/qmp/json-read/object/any-is-json-text",
                    test_any_is_json_text);
    g_test_add_func("/qmp/json-read/none/no-arguments", test_no_arguments);
    g_test_add_func("/qmp/json-value/parse-text/on-command-line",
                    test_json_text_on_command_line);
    g_test_add_func("/qmp/json-write/pretty", test_pretty);
    g_test_add_func("/qmp/json-value/str/strings-of-ours-are-valid",
                    test_strings_of_ours_are_valid);
    return g_test_run();
}
