/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line's key=value notation: what it becomes, and what the readers
 * make of its strings.
 */
#include "qmp/keyval.h"

#include <string.h>

#include "qmp/gen-json.h"
#include "qmp/json-write.h"
#include "qmp/number.h"

static void
check(const char *text, BfKeyvalFlags flags, const char *json)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GString) out = g_string_new(NULL);
    BfReadMode mode;
    json_t *value = bf_keyval_parse(text, "driver", flags, &mode, &error);

    g_assert_no_error(error);
    bf_json_write(out, value, BF_JSON_STYLE_COMPACT);
    g_assert_cmpstr(out->str, ==, json);
    json_decref(value);
}

static void
check_fails(const char *text, const char *message)
{
    g_autoptr(GError) error = NULL;
    BfReadMode mode;

    g_assert_null(bf_keyval_parse(text, "driver", 0, &mode, &error));
    g_assert_nonnull(error);
    g_assert_cmpstr(error->message, ==, message);
}

static void
test_elements(void)
{
    check("", 0, "{}");
    check("raw", 0, "{\"driver\": \"raw\"}");
    check("raw,a=1,b=", 0, "{\"driver\": \"raw\", \"a\": \"1\", \"b\": \"\"}");
    check("a=x=y,b=p,,q,", 0, "{\"a\": \"x=y\", \"b\": \"p,q\"}");
    check("a=1,a=2", 0, "{\"a\": \"2\"}");
    /* What JSON cannot have must not be in what is written. */
    check("a=x\xEF\xBF\xBFy", 0, "{\"a\": \"x\\uFFFDy\"}");
    check("__org.qemu_x=1", 0, "{\"__org.qemu_x\": \"1\"}");
}

static void
test_nesting(void)
{
    check("a.b.c=1,a.b.d=2,a.e=3", 0,
          "{\"a\": {\"b\": {\"c\": \"1\", \"d\": \"2\"}, \"e\": \"3\"}}");
    check("l.1.x=b,l.0=a,m.0.0=c", 0,
          "{\"l\": [\"a\", {\"x\": \"b\"}], \"m\": [[\"c\"]]}");
}

static void
test_refuses(void)
{
    g_autofree char *name = g_strnfill(128, 'a');
    g_autofree char *text = g_strconcat("raw,", name, "=1", NULL);
    g_autofree char *message =
        g_strdup_printf("Parameter '%s' is too long", name);

    check_fails(text, message);
    check_fails("raw,read-only", "Expected '=' after parameter 'read-only'");
    check_fails(",", "Invalid parameter ''");
    check_fails("a,,b", "Invalid parameter ''");
    check_fails("raw,=5", "Invalid parameter ''");
    check_fails("raw,a b=5", "Invalid parameter 'a b'");
    check_fails("raw,a..b=5", "Invalid parameter 'a..b'");
    check_fails("raw,.a=5", "Invalid parameter '.a'");
    check_fails("raw,a.=5", "Invalid parameter 'a.'");
    check_fails("raw,0=5", "Invalid parameter '0'");
    check_fails("raw,a.5x=5", "Invalid parameter 'a.5x'");
    check_fails("raw,?=1", "Invalid parameter '?'");
    check_fails("help", "Help is not available for this option");
    check_fails("raw,?", "Help is not available for this option");
    check_fails("file.a=1,file=x", "Parameters 'file.*' used inconsistently");
    check_fails("file=x,file.a=1", "Parameters 'file.*' used inconsistently");
    check_fails("l.0=a,l.0.x=b", "Parameters 'l.0.*' used inconsistently");
    check_fails("l.0=a,l.x=b", "Parameters 'l.*' used inconsistently");
    check_fails("l.1=a", "Parameter 'l.0' missing");
    check_fails("l.0=a,l.99999999999999999999=b", "Parameter 'l.1' missing");
    check_fails("{'a':}", "JSON parse error, expecting value");
}

static void
test_deep_key_is_refused(void)
{
    g_autoptr(GString) key = g_string_new("a");
    g_autoptr(GError) error = NULL;
    BfReadMode mode;

    for (int i = 0; i < 10000; i++) {
        g_string_append(key, ".a");
    }
    g_string_append(key, "=1");
    g_assert_null(bf_keyval_parse(key->str, NULL, 0, &mode, &error));
    g_assert_nonnull(strstr(error->message, "has too many parts"));
}

static void
test_json_form_is_strict(void)
{
    g_autoptr(GError) error = NULL;
    BfReadMode mode;
    json_t *value =
        bf_keyval_parse("{'driver':'null-co','size':5}", "x", 0, &mode, &error);
    g_autoptr(BfBlockdevOptions) node = NULL;

    g_assert_no_error(error);
    g_assert_cmpint(mode, ==, BF_READ_MODE_STRICT);
    node = bf_blockdev_options_from_json(value, mode, &error);
    g_assert_cmpuint(node->u.null_co->size, ==, 5);
    json_decref(value);
}

static void
test_flat_form(void)
{
    g_autoptr(GError) error = NULL;
    BfReadMode mode;
    json_t *value = bf_keyval_parse("socket,id=m,path=/a,,b,server,wait=off",
                                    "backend", BF_KEYVAL_FLAT, &mode, &error);
    g_autoptr(BfChardevOptions) chardev = NULL;

    g_assert_no_error(error);
    chardev = bf_chardev_options_from_json(value, mode, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(chardev->u.socket->path, ==, "/a,b");
    g_assert_true(chardev->u.socket->server);
    g_assert_true(chardev->u.socket->has_wait && !chardev->u.socket->wait);
    json_decref(value);
    check("null,a.b=1,{", BF_KEYVAL_FLAT,
          "{\"driver\": \"null\", \"a.b\": \"1\", \"{\": \"on\"}");
    check("null,nowait,nodelay,nowait=on", BF_KEYVAL_FLAT,
          "{\"driver\": \"null\", \"wait\": \"off\", \"nodelay\": \"on\", "
          "\"nowait\": \"on\"}");
}

static void
check_read_fails(const char *text, const char *message)
{
    g_autoptr(GError) error = NULL;
    BfReadMode mode;
    json_t *value = bf_keyval_parse(text, "driver", 0, &mode, &error);

    g_assert_no_error(error);
    g_assert_null(bf_blockdev_options_from_json(value, mode, &error));
    g_assert_cmpstr(error->message, ==, message);
    json_decref(value);
}

static void
test_reader_converts(void)
{
    g_autoptr(GError) error = NULL;
    BfReadMode mode;
    json_t *value = bf_keyval_parse(
        "fault,node-name=a,read-only=yes,cache.direct=off,image=b,seed=0x10,"
        "rules.0.op=any,rules.0.probability=5,rules.0.short=y",
        "driver", 0, &mode, &error);
    g_autoptr(BfBlockdevOptions) node =
        bf_blockdev_options_from_json(value, mode, &error);

    g_assert_no_error(error);
    g_assert_true(node->has_read_only && node->read_only);
    g_assert_true(node->cache->has_direct && !node->cache->direct);
    g_assert_cmpint(node->u.fault->image->kind, ==, BF_BLOCKDEV_REF_KIND_STR);
    g_assert_cmpuint(node->u.fault->seed, ==, 16);
    g_assert_cmpuint(node->u.fault->rules->len, ==, 1);
    g_assert_cmpuint(node->u.fault->rules->items[0]->probability, ==, 5);
    g_assert_true(node->u.fault->rules->items[0]->short_);
    g_assert_cmpstr(node->u.fault->rules->items[0]->errno_, ==, "EIO");
    json_decref(value);
}

static void
test_reader_refuses(void)
{
    check_read_fails("null-co,size=1k", "Parameter 'size' expects integer");
    check_read_fails("null-co,size=", "Parameter 'size' expects integer");
    check_read_fails("null-co,size=99999999999999999999",
                     "Parameter 'size' expects integer");
    check_read_fails("null-co,latency-ns=-1",
                     "Parameter 'latency-ns' expects a non-negative value");
    check_read_fails("null-co,read-only=TRUE",
                     "Parameter 'read-only' expects 'on' or 'off'");
    check_read_fails("null-co,cache=5",
                     "Invalid parameter type for 'cache', expected: object");
    check_read_fails("null-co,cache.direct.x=5",
                     "Parameters 'cache.direct.*' are unexpected");
    check_read_fails("null-co,foo.a=5", "Parameter 'foo' is unexpected");
    check_read_fails("fault,image=x,rules=a",
                     "Invalid parameter type for 'rules', expected: array");
    check_read_fails("fault,image=x,rules.0.op=any,rules.0.after=k",
                     "Parameter 'rules.0.after' expects integer");
    check_read_fails("raw,file.driver=null-co,file.size.a=k",
                     "Parameters 'file.size.*' are unexpected");
    check_read_fails("raw", "Parameter 'file' is missing");
}

static void
test_file_names_are_bytes(void)
{
    g_autoptr(GError) error = NULL;
    BfReadMode mode;
    json_t *value =
        bf_keyval_parse("file,filename=/a\xFF\xC3", "driver", 0, &mode, &error);
    g_autoptr(BfBlockdevOptions) node =
        bf_blockdev_options_from_json(value, mode, &error);

    g_assert_no_error(error);
    g_assert_cmpstr(node->u.file->filename, ==, "/a\xFF\xC3");
    json_decref(value);
}

static void
test_help(void)
{
    g_autofree char *kind = NULL;

    g_assert_true(bf_keyval_wants_help("help", true, &kind));
    g_assert_null(kind);
    g_assert_true(bf_keyval_wants_help("secret,help", true, &kind));
    g_assert_cmpstr(kind, ==, "secret");
    g_assert_false(bf_keyval_wants_help("secret,id=help", true, &kind));
    g_assert_false(bf_keyval_wants_help("{help", true, &kind));
}

static void
test_sizes(void)
{
    const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"010", 10},
        {"5B", 5},
        {"1k", 1024},
        {"1.5G", UINT64_C(3) << 29},
        {"0.5K", 512},
        {"0x20", 32},
        {"15E", UINT64_C(15) << 60},
        {"18446744073709551615", UINT64_MAX},
    };
    const char *const bad[] = {"",   "k",   "1.5",  "-1", "16E",   "1kk",
                               "1 ", "1e3", "0x1k", " 1", "1.5.5", "+1"};
    uint64_t bytes;

    for (size_t i = 0; i < G_N_ELEMENTS(good); i++) {
        g_assert_true(bf_parse_size(good[i].text, &bytes));
        g_assert_cmpuint(bytes, ==, good[i].bytes);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_assert_false(bf_parse_size(bad[i], &bytes));
    }
}

static void
test_numbers(void)
{
    int64_t number;
    double real;

    g_assert_true(bf_parse_int("-0x10", &number) && number == -16);
    g_assert_true(bf_parse_int("010", &number) && number == 8);
    g_assert_false(bf_parse_int("9223372036854775808", &number));
    g_assert_false(bf_parse_int("", &number));
    g_assert_false(bf_parse_int("5 ", &number));
    g_assert_true(bf_parse_number("2.5e1", &real) && real == 25);
    g_assert_false(bf_parse_number("inf", &real));
    g_assert_false(bf_parse_number("1x", &real));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qmp/keyval/parse/elements", test_elements);
    g_test_add_func("/qmp/keyval/parse/nesting", test_nesting);
    g_test_add_func("/qmp/keyval/parse/refuses", test_refuses);
    g_test_add_func("/qmp/keyval/parse/deep-key-is-refused",
                    test_deep_key_is_refused);
    g_test_add_func("/qmp/keyval/parse/json-form-is-strict",
                    test_json_form_is_strict);
    g_test_add_func("/qmp/keyval/parse/flat-form", test_flat_form);
    g_test_add_func("/qmp/keyval/read/converts", test_reader_converts);
    g_test_add_func("/qmp/keyval/read/refuses", test_reader_refuses);
    g_test_add_func("/qmp/keyval/read/file-names-are-bytes",
                    test_file_names_are_bytes);
    g_test_add_func("/qmp/keyval/help", test_help);
    g_test_add_func("/qmp/number/sizes", test_sizes);
    g_test_add_func("/qmp/number/numbers", test_numbers);
    return g_test_run();
}
