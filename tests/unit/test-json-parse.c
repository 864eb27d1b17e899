/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Strict JSON text to documents and values: against what jansson's own reader
 * makes of it, and what neither may take.
 */
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "qmp/json-doc.h"
#include "qmp/json-scan.h"
#include "qmp/json-value.h"
#include "qmp/json-write.h"

#define FLAGS (JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES)

/* Parses an exact copy, so that a sanitizer sees what is read behind it. */
static json_t *
parse(const char *text, size_t len, GError **error)
{
    char *copy = malloc(len + 1);
    json_t *value = NULL;

    memcpy(copy, text, len);
    copy[len] = '\0';
    value = bf_json_parse_frame(copy, len, error);
    free(copy);
    return value;
}

static const char *const strict[] = {
    "1",
    "-0",
    "0",
    "null",
    "true",
    "false",
    "\"\"",
    "[]",
    "{}",
    "[[],{},[{}],{\"a\":[]}]",
    "[1,-2,3.5,-4e5,0.25,1E+2,1e-7,true,null]",
    "[123456789012345678,1234567890123456789,-1234567890123456789]",
    "[9223372036854775807,-9223372036854775808,99999999999999999]",
    "[1.7976931348623157e308,4.9e-324,0.1,100000000000000000000.0]",
    "[1e300,-2.5E-30,12e003,0.0,-0.5,10e307,123456789012345678901234567.5]",
    "{\"a\":1,\"b\":{\"c\":[2,{\"d\":\"e\"}]},\"\":null}",
    " { \"a\" : [ 1 , 2 ] ,\n\t\"b\" : { } }\r\n",
    "\"'\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
    "\"\\u0000 \\u0041\\u00e9\\u20AC\\ud83d\\ude00\\uFFFF\"",
    "\"\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x98\x80 ' \x7F\"",
    "{\"\\u0041\\n\":\"\\u0041\",\"A\":\"x\\ty\xC3\xA9\"}",
    "[\"0123456\\\"\",\"01234567\\\"\",\"012345678\\\"9\"]",
};

static void
test_strict_text_is_read(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(strict); i++) {
        g_autoptr(GError) error = NULL;
        size_t len = strlen(strict[i]);
        json_t *got = parse(strict[i], len, &error);
        json_t *wanted = json_loadb(strict[i], len, FLAGS, NULL);

        g_test_message("%s", strict[i]);
        g_assert_no_error(error);
        g_assert_nonnull(wanted);
        g_assert_true(json_equal(got, wanted));
        json_decref(got);
        json_decref(wanted);
    }
}

static void
test_truncated_text_is_refused(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(strict); i++) {
        for (size_t len = 0; len < strlen(strict[i]); len++) {
            json_t *got = parse(strict[i], len, NULL);
            json_t *wanted = json_loadb(strict[i], len, FLAGS, NULL);

            g_test_message("%.*s", (int)len, strict[i]);
            g_assert_true(json_equal(got, wanted) || (!got && !wanted));
            json_decref(got);
            json_decref(wanted);
        }
    }
}

static const char *const refused[] = {
    "",
    " ",
    "[",
    "]",
    "[1,]",
    "[,1]",
    "[1 2]",
    "[1}",
    "{]",
    "{1:2}",
    "{:1}",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\":1,}",
    "{,}",
    "{\"a\":1",
    "1 2",
    "01",
    "-",
    "-a",
    "1.e5",
    "1e",
    "1.5.5",
    "1-2",
    "+1",
    ".5",
    "tru",
    "truee",
    "nul",
    "'a'",
    "\"a",
    "\"\\x\"",
    "\"\\u12\"",
    "\"\\ud800\"",
    "\"\\udc00\"",
    "\"\n\"",
    "\"\xC3\"",
    "\"\xFF\"",
    "\"\xED\xA0\x80\"",
    "\"\\ud800\\u0041\"",
    "{\"\\u0000\":1}",
    "9223372036854775808",
    "1e999",
    "[0x10]",
    "NaN",
};
static void
test_other_text_is_refused(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(refused); i++) {
        g_autoptr(GError) error = NULL;

        g_test_message("%s", refused[i]);
        g_assert_null(parse(refused[i], strlen(refused[i]), &error));
        g_assert_cmpstr(error->message, ==,
                        "JSON parse error, text is not strict");
    }
    g_assert_null(parse("[1]\0", 4, NULL));
    g_assert_null(parse("\"a\0b\"", 5, NULL));
}

static void
test_duplicate_key_is_refused(void)
{
    static const char *const texts[] = {
        "{\"a\":1,\"a\":1}",
        "{\"a\":1,\"b\":[{\"c\":{},\"\\u0063\":[1]}]}",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_null(parse(texts[i], strlen(texts[i]), &error));
        g_assert_cmpstr(error->message, ==, "JSON parse error, duplicate key");
    }
}

/* Each alone says nothing about what follows it: with a look at that, this
 * would not end. */
static void
test_time_is_linear_in_long_numbers(void)
{
    const size_t count = 300 * 1000;
    g_autoptr(GString) text = g_string_new("[");
    g_autoptr(GError) error = NULL;
    json_t *value = NULL;

    for (size_t i = 0; i < count; i++) {
        g_string_append(text, "1234567890123456789,");
    }
    g_string_append(text, "1]");
    value = parse(text->str, text->len, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(json_array_size(value), ==, count + 1);
    json_decref(value);
}

static void
test_depth_has_a_limit(void)
{
    const size_t most = 2048; /* jansson frees by recursion */
    g_autoptr(GString) text = g_string_new(NULL);
    json_t *value = NULL;

    for (size_t i = 0; i < most + 1; i++) {
        g_string_append_c(text, '[');
    }
    for (size_t i = 0; i < most + 1; i++) {
        g_string_append_c(text, ']');
    }
    g_assert_null(parse(text->str, text->len, NULL));
    value = parse(text->str + 1, text->len - 2, NULL);
    g_assert_nonnull(value);
    json_decref(value);
}

static void
check_plain_part(char quote)
{
    for (unsigned c = 0; c < 256; c++) {
        bool is_plain = c >= 0x20 && c < 0x80 && (char)c != quote && c != '\\';

        for (size_t at = 0; at < 24; at++) {
            char text[24];

            memset(text, 'x', sizeof(text));
            text[at] = (char)c;
            g_assert_cmpuint(
                bf_json_scan_plain(text, text + sizeof(text), quote), ==,
                is_plain ? sizeof(text) : at);
        }
    }
}

static void
test_plain_part_ends_at_each_special_byte(void)
{
    check_plain_part('"');
    check_plain_part('\'');
}

/* Each start of up to four bytes, against GLib. */
static void
test_characters_are_utf8(void)
{
    for (uint32_t word = 0x80; word < (1u << 24); word += 1 + word % 3) {
        const char bytes[] = {(char)(word | 0x80), (char)(word >> 8),
                              (char)(word >> 16), (char)(0x80 | word % 0x4F)};

        for (size_t len = 1; len <= sizeof(bytes); len++) {
            uint32_t c = 0;
            size_t n = bf_json_scan_char(bytes, bytes + len, &c);
            gunichar wanted = g_utf8_get_char_validated(bytes, (gssize)len);

            g_assert_true(wanted >= (gunichar)-2
                              ? n == 0
                              : n == (size_t)g_unichar_to_utf8(wanted, NULL) &&
                                    c == wanted);
        }
    }
}

static BfJsonDoc *
parse_doc(const char *text)
{
    g_autoptr(GError) error = NULL;
    BfJsonDoc *doc = bf_json_doc_parse(g_strdup(text), strlen(text), &error);

    g_assert_no_error(error);
    return doc;
}

/* As few members as are looked through, and as have an index. */
static void
test_members_are_found(void)
{
    for (unsigned count = 0; count < 40; count++) {
        g_autoptr(GString) text = g_string_new("{\"\": 7");
        g_autoptr(BfJsonDoc) doc = NULL;
        const BfJsonNode *root = NULL;

        for (unsigned i = 0; i < count; i++) {
            g_string_append_printf(text, ",\"k%u\":{\"k\":[%u,{}]}", i, i);
        }
        g_string_append(text, "}");
        doc = parse_doc(text->str);
        root = bf_json_doc_root(doc);
        g_assert_cmpuint(bf_json_node_size(root), ==, count + 1);
        g_assert_cmpint(bf_json_node_integer(bf_json_node_find(root, "")), ==,
                        7);
        for (unsigned i = 0; i <= count; i++) {
            g_autofree char *key = g_strdup_printf("k%u", i);
            const BfJsonNode *value = bf_json_node_find(root, key);

            g_assert_true((value == NULL) == (i == count));
            if (value != NULL) {
                const BfJsonNode *list = bf_json_node_find(value, "k");

                g_assert_cmpint(bf_json_node_integer(bf_json_node_begin(list)),
                                ==, i);
            }
        }
        g_assert_null(bf_json_node_find(root, "k"));
        g_assert_null(bf_json_node_find(root, "k00"));
    }
}

static void
test_duplicate_is_found_among_many(void)
{
    for (unsigned count = 1; count < 40; count++) {
        for (unsigned twice = 0; twice < count; twice++) {
            g_autoptr(GString) text = g_string_new("{");
            g_autoptr(GError) error = NULL;

            for (unsigned i = 0; i < count; i++) {
                g_string_append_printf(text, "\"k%u\":%u,", i, i);
            }
            g_string_append_printf(text, "\"k%u\":{}}", twice);
            g_assert_null(parse(text->str, text->len, &error));
            g_assert_cmpstr(error->message, ==,
                            "JSON parse error, duplicate key");
        }
    }
}

/* From text to a document to a value, and back, is the same. */
static void
test_documents_convert(void)
{
    static const char *const texts[] = {
        "{\"a\": [1, -2, 0.5, true, false, null, \"x\", {}, []]}",
        "[[[]], {\"b\": {\"c\": {}}}, [[1], [2, [3]]], {}]",
        "{\"\": \"\", \"\\u00E9\": \"\\uD83D\\uDE00\\u0000\\n\"}",
        "\"x\"",
        "17",
        "[0, -1, 1234567890, 9223372036854775807, -9223372036854775808]",
    };

    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(BfJsonDoc) doc = parse_doc(texts[i]);
        g_autoptr(GString) first = g_string_new(NULL);
        g_autoptr(GString) second = g_string_new(NULL);
        g_autoptr(GString) third = g_string_new(NULL);
        json_t *value = bf_json_doc_to_value(doc);
        g_autoptr(BfJsonDoc) again = bf_json_doc_new_value(value);

        bf_json_node_write(first, bf_json_doc_root(doc));
        bf_json_write(second, value, BF_JSON_STYLE_COMPACT);
        bf_json_node_write(third, bf_json_doc_root(again));
        g_assert_cmpstr(first->str, ==, texts[i]);
        g_assert_cmpstr(second->str, ==, texts[i]);
        g_assert_cmpstr(third->str, ==, texts[i]);
        json_decref(value);
    }
}

static void
test_large_integers_and_nul_are_kept(void)
{
    g_autoptr(BfJsonDoc) doc =
        parse_doc("[\"" BF_JSON_MARK "18446744073709551615\",{\"a" BF_JSON_MARK
                  "b\":\"" BF_JSON_MARK "5\"}]");
    const BfJsonNode *number = bf_json_node_begin(bf_json_doc_root(doc));
    g_autoptr(GString) out = g_string_new(NULL);
    uint64_t big = 0;
    double real = 0;

    g_assert_true(bf_json_node_big(number, &big));
    g_assert_cmpuint(big, ==, UINT64_MAX);
    g_assert_true(bf_json_node_number(number, &real));
    g_assert_null(bf_json_node_text(number));
    bf_json_node_write(out, bf_json_doc_root(doc));
    g_assert_cmpstr(out->str, ==,
                    "[18446744073709551615, {\"a\\u0000b\": \"\\uFFFD5\"}]");
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qmp/json-parse/frame/strict-text-is-read",
                    test_strict_text_is_read);
    g_test_add_func("/qmp/json-parse/frame/truncated-text-is-refused",
                    test_truncated_text_is_refused);
    g_test_add_func("/qmp/json-parse/frame/other-text-is-refused",
                    test_other_text_is_refused);
    g_test_add_func("/qmp/json-parse/frame/duplicate-key-is-refused",
                    test_duplicate_key_is_refused);
    g_test_add_func("/qmp/json-parse/frame/time-is-linear-in-long-numbers",
                    test_time_is_linear_in_long_numbers);
    g_test_add_func("/qmp/json-parse/frame/depth-has-a-limit",
                    test_depth_has_a_limit);
    g_test_add_func("/qmp/json-parse/doc/members-are-found",
                    test_members_are_found);
    g_test_add_func("/qmp/json-parse/doc/duplicate-is-found-among-many",
                    test_duplicate_is_found_among_many);
    g_test_add_func("/qmp/json-parse/doc/documents-convert",
                    test_documents_convert);
    g_test_add_func("/qmp/json-parse/doc/large-integers-and-nul-are-kept",
                    test_large_integers_and_nul_are_kept);
    g_test_add_func("/qmp/json-parse/scan/ends-at-each-special-byte",
                    test_plain_part_ends_at_each_special_byte);
    g_test_add_func("/qmp/json-parse/scan/characters-are-utf8",
                    test_characters_are_utf8);
    return g_test_run();
}
