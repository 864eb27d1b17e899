/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The framer: each case is bytes of a client and the frames that must come of
 * them, in any portions. "V text" stands for a value, "E text" for an error.
 */
#include "qmp/framer.h"

#include <jansson.h>
#include <string.h>

#include "qmp/json-value.h"
#include "qmp/json-write.h"

#define PARSE "E JSON parse error, "
#define MARK BF_JSON_MARK

/* Feeds @len bytes of @input in portions of @portion; one line per frame. */
static char *
frames_of(const char *input, size_t len, size_t portion)
{
    g_autoptr(BfFramer) framer = bf_framer_new();
    GString *out = g_string_new(NULL);

    for (size_t i = 0; i < len; i += portion) {
        BfFrame *frame;

        bf_framer_feed(framer, input + i, MIN(portion, len - i));
        while ((frame = bf_framer_next(framer)) != NULL) {
            g_string_append_printf(out, "%s%s %s", out->len > 0 ? "|" : "",
                                   frame->error != NULL ? "E" : "V",
                                   frame->error != NULL ? frame->error
                                                        : frame->text);
            bf_frame_free(frame);
        }
    }
    return g_string_free(out, false);
}

static void
check(const char *input, const char *frames)
{
    const size_t portions[] = {1, 2, 3, 7, SIZE_MAX / 2};

    for (size_t i = 0; i < G_N_ELEMENTS(portions); i++) {
        g_autofree char *got = frames_of(input, strlen(input), portions[i]);

        g_assert_cmpstr(got, ==, frames);
    }
}

static void
test_values_become_strict(void)
{
    check("{\"execute\" : 'quit' }", "V {\"execute\":\"quit\"}");
    check("{}[]{}", "V {}|V []|V {}");
    check(" [1 , -2,\t3.5e+2,\r\n0e1] ", "V [1,-2,3.5e+2,0e1]");
    check("[true,false,null]", "V [true,false,null]");
    check("5 true 'x'\"y\"", "V 5|V true|V \"x\"|V \"y\"");
    check("['a\"b\\'c',\"d'e\\'f\"]", "V [\"a\\\"b'c\",\"d'e'f\"]");
    check("['\\b\\f\\n\\r\\t\\/\\\\\\u0041']", "V [\"\\b\\f\\n\\r\\t/\\\\A\"]");
    check("['\\ud83d\\ude00\\u00e9']", "V [\"\xF0\x9F\x98\x80\xC3\xA9\"]");
    check("['\xC3\xA9\xF0\x9F\x98\x80']", "V [\"\xC3\xA9\xF0\x9F\x98\x80\"]");
    check("5", ""); /* may go on */
}

static void
test_nul_is_kept(void)
{
    check("['\xC0\x80','\\u0000']", "V [\"\\u0000\",\"\\u0000\"]");
    check("{'a\\u0000':1}", "V {\"a" MARK "\":1}");
}

static void
test_numbers_fit_jansson(void)
{
    check("[9223372036854775807,-9223372036854775808]",
          "V [9223372036854775807,-9223372036854775808]");
    check("[9223372036854775808,18446744073709551615]",
          "V [\"" MARK "9223372036854775808\",\"" MARK
          "18446744073709551615\"]");
    check("[18446744073709551616,-9223372036854775809]",
          "V [1.8446744073709552e+19,-9.2233720368547758e+18]");
    check("[1e999,-1e999]",
          "V [1.7976931348623157e+308,-1.7976931348623157e+308]");
}

/* What ends a scalar decides whether it is taken together with others. */
static void
test_scalars_stay_as_they_are(void)
{
    check("[0,-0,7,-12,123456789012345678,1234567890123456789]",
          "V [0,-0,7,-12,123456789012345678,1234567890123456789]");
    check("[0.5,12.75,-1E5,1e-999,1e307,10e307,0e3]",
          "V [0.5,12.75,-1E5,1e-999,1e307,10e307,0e3]");
    check("[1e308,1e309,12e0003]", "V [1e308,1.7976931348623157e+308,12e0003]");
    check("[true ,false\n,null\t,7 ,\"a\" , 1.5 ]",
          "V [true,false,null,7,\"a\",1.5]");
    check("[\"\",\"01234567\",\"\xC3\xA9-89abcdef\"]",
          "V [\"\",\"01234567\",\"\xC3\xA9-89abcdef\"]");
    check("[\"\\n\",\"a\\\\\\\"b\\t\\r\\b\\f-0123456789\",\"\\/\\'\\n\"]",
          "V [\"\\n\",\"a\\\\\\\"b\\t\\r\\b\\f-0123456789\",\"/'\\n\"]");
    check("[[7],[7,8],{\"a\":7,\"b\":[{}]},[]]",
          "V [[7],[7,8],{\"a\":7,\"b\":[{}]},[]]");
}

static void
test_scalars_end_as_they_should(void)
{
    check("[7,01]", PARSE "stray '01'|" PARSE "expecting value");
    check("[7,-,8]", PARSE "stray '-,'|" PARSE "expecting value");
    check("[7,8.,9]", PARSE "stray '8.,'|" PARSE "expecting value");
    check("[7,8e,9]", PARSE "stray '8e,'|" PARSE "expecting value");
    check("[7,8true]", PARSE "expected separator in list");
    check("[7,true\"a\"]", PARSE "expected separator in list");
    check("[7,truely]", PARSE "invalid keyword 'truely'");
    check("[7,8:9]", PARSE "expected separator in list");
    check("[7,\"a\":9]", PARSE "expected separator in list");
    check("[7,,8]", PARSE "expecting value");
    check("[7,}", PARSE "expecting value");
    check("[7,\"" MARK "\"]", PARSE "invalid UTF-8 sequence in string");
}

/* Those that are plain get double quotes where they stand. */
static void
test_single_quotes_become_double(void)
{
    check("['','a','0123456','01234567','0123456789abcdef',7]",
          "V [\"\",\"a\",\"0123456\",\"01234567\","
          "\"0123456789abcdef\",7]");
    check("['\"','a\"b','0123456789\"','a\\'b','\\\\','\xC3\xA9',\"'\"]",
          "V [\"\\\"\",\"a\\\"b\",\"0123456789\\\"\",\"a'b\","
          "\"\\\\\",\"\xC3\xA9\",\"'\"]");
    check("[{'a':'b','c\"d':'e' , 'id':\"f\"},['g'],'h']",
          "V [{\"a\":\"b\",\"c\\\"d\":\"e\",\"id\":\"f\"},[\"g\"],\"h\"]");
    check("['a' 'b']", PARSE "expected separator in list");
    check("['a'7]", PARSE "expected separator in list");
    check("{'a','b'}", PARSE "missing : in object pair");
    check("['a\tb']", PARSE "stray ''...'|" PARSE "expecting value");
}

/* Brackets are taken many at once, too. */
static void
test_levels_open_and_close(void)
{
    check("[[[],[[]]],[],{},[{}],{\"a\":{\"b\":[[{}]]}}]",
          "V [[[],[[]]],[],{},[{}],{\"a\":{\"b\":[[{}]]}}]");
    check("[ [ 7 , [ ] ] , { } , [ { } ] ]", "V [[7,[]],{},[{}]]");
    check("[7,[8],9,{\"a\":7},8]", "V [7,[8],9,{\"a\":7},8]");
    check("[[7,]]", PARSE "expecting value");
    check("[[],]", PARSE "expecting value");
    check("[[]7]", PARSE "expected separator in list");
    check("[7[]]", PARSE "expected separator in list");
    check("[[}]", PARSE "expecting value|" PARSE "expecting value");
    check("[{]}", PARSE "expecting value");
    check("[{\"a\":7]}", PARSE "expected separator in dict");
}

static void
test_lexical_errors(void)
{
    check("\x01", PARSE "stray '\x01'");
    /* Not what is in a string: it may be a secret. */
    check("[\"a\x01", PARSE "stray '\"...'");
    check("\xFF\n", PARSE "stray '\xEF\xBF\xBD'");
    check("#", PARSE "stray '#'");
    check("+1\n", PARSE "stray '+'");
    check("-x\n", PARSE "stray '-x'");
    check("1.]", PARSE "stray '1.]'");
    check("1e+\n", PARSE "stray '1e+\n'");
    check("['a\tb'\n", PARSE "stray ''...'");
}

static void
test_nul_byte_shows_nothing(void)
{
    g_autofree char *got = frames_of("\0", 1, 1);

    g_assert_cmpstr(got, ==, PARSE "stray ''");
}

static void
test_grammar_errors(void)
{
    check("{\"a\" 1}", PARSE "missing : in object pair");
    check("{\"a\":1 \"b\":2}", PARSE "expected separator in dict");
    check("[1 2]", PARSE "expected separator in list");
    check("{\"a\":1,}", PARSE "expecting value");
    check("[1,]", PARSE "expecting value");
    check("{\"a\":}", PARSE "expecting value");
    check("{1:2}", PARSE "key is not a string in object");
    check("{[1]:2}", PARSE "key is not a string in object");
    check("{[1 2]:2}", PARSE "expected separator in list");
    check("{nul:2}", PARSE "invalid keyword 'nul'");
    check("[}", PARSE "expecting value");
    check("{]", PARSE "expecting value");
    check("[{]}", PARSE "expecting value");
    check("}:,", PARSE "expecting value|" PARSE "expecting value|" PARSE
                       "expecting value");
}

static void
test_string_errors(void)
{
    check("'\\ud800'", PARSE "\\ud800 is not a valid Unicode character");
    check("'\\udc00'", PARSE "\\udc00 is not a valid Unicode character");
    check("'\\ud800\\ud800'", PARSE "\\ud800 is not a valid Unicode character");
    check("'\\uFFFF'", PARSE "\\uFFFF is not a valid Unicode character");
    check("'\\ufdd0'", PARSE "\\ufdd0 is not a valid Unicode character");
    check("'\\u12'", PARSE "\\u12' is not a valid Unicode character");
    check("'\\x'", PARSE "invalid escape sequence in string");
    check("'\xC3'", PARSE "invalid UTF-8 sequence in string");
    check("'\xED\xA0\x80'", PARSE "invalid UTF-8 sequence in string");
    check("'\xF5\x80\x80\x80'", PARSE "invalid UTF-8 sequence in string");
    check("'" MARK "'", PARSE "invalid UTF-8 sequence in string");
    check("'\xC0\x81'", PARSE "invalid UTF-8 sequence in string");
}

static void
test_recovery(void)
{
    /* As QEMU: the rest of the broken value is read anew from its bracket. */
    check("{\"execute\":\"x\",\"id\":01}{}",
          PARSE "stray '01'|" PARSE "expecting value|V {}");
    check("{\"a\": # this 'is' dropped \n{}", PARSE "stray '#'|V {}");
    check("[[[{\"a\":\"b\x01[1]", PARSE "stray '\"...'|V [1]");
    check("[[[1,\xFF[1]", PARSE "stray '\xEF\xBF\xBD'|V [1]");
    check("#\x01[1]", PARSE "stray '#'|" PARSE "stray '\x01'|V [1]");
    check("#\t\xC3[1]", PARSE "stray '#'|V [1]");
}

static char *
repeat(const char *what, size_t n, const char *middle, const char *after)
{
    GString *text = g_string_new(NULL);

    for (size_t i = 0; i < n; i++) {
        g_string_append(text, what);
    }
    g_string_append(text, middle);
    for (size_t i = 0; i < n; i++) {
        g_string_append(text, after);
    }
    return g_string_free(text, false);
}

/* @before, @n times @what, @after */
static char *
enclose(const char *before, const char *what, size_t n, const char *after)
{
    g_autofree char *many = repeat(what, n, "", "");

    return g_strconcat(before, many, after, NULL);
}

/* Long strings are taken in parts, which may end anywhere. */
static void
test_long_string_is_one(void)
{
    static const char *const around[][2] = {
        {"['", "']"}, {"{'a': '", "'}"}, {"{'", "': 1}"}, {"'", "'\n"}};
    static const char *const becomes[][2] = {{"V [\"", "\"]"},
                                             {"V {\"a\":\"", "\"}"},
                                             {"V {\"", "\":1}"},
                                             {"V \"", "\""}};
    const char *piece = "\\u00e9\xC3\xA9\\\"\"\\ud83d\\ude00\\n-abcdefghijklm";
    const char *strict = "\xC3\xA9\xC3\xA9\\\"\\\"\xF0\x9F\x98\x80\\n"
                         "-abcdefghijklm";
    const size_t portions[] = {1, 997, 32768, SIZE_MAX / 2};

    for (size_t i = 0; i < G_N_ELEMENTS(around); i++) {
        g_autofree char *text =
            enclose(around[i][0], piece, 6000, around[i][1]);
        g_autofree char *wanted =
            enclose(becomes[i][0], strict, 6000, becomes[i][1]);

        for (size_t j = 0; j < G_N_ELEMENTS(portions); j++) {
            g_autofree char *got = frames_of(text, strlen(text), portions[j]);

            g_assert_cmpstr(got, ==, wanted);
        }
    }
}

static void
test_long_string_keeps_its_errors(void)
{
    static const struct {
        const char *before;
        const char *after;
        const char *frames;
    } cases[] = {
        {"['\\x", "']{}", PARSE "invalid escape sequence in string|V {}"},
        {"['", "\\x']{}", PARSE "invalid escape sequence in string|V {}"},
        {"['\xC3", "']{}", PARSE "invalid UTF-8 sequence in string|V {}"},
        {"['", "\xC3']{}", PARSE "invalid UTF-8 sequence in string|V {}"},
        {"[1 '", "']{}", PARSE "expected separator in list|V {}"},
        {"{'a''", "'}{}", PARSE "missing : in object pair|V {}"},
        {"['\\x", "\n{}", PARSE "stray ''...'|V {}"},
        {"{'id':'", "\x01{}", PARSE "stray ''...'|V {}"},
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *text =
            enclose(cases[i].before, "abcdefghij", 20000, cases[i].after);
        g_autofree char *got = frames_of(text, strlen(text), 4096);

        g_assert_cmpstr(got, ==, cases[i].frames);
    }
}

/* What follows a bad byte in a secret may be read as anything else. */
static void
test_little_of_bad_input_is_shown(void)
{
    g_autofree char *word = repeat("a", 500, "", "");
    g_autofree char *shown = repeat("a", 60, "", "");
    g_autofree char *text =
        g_strconcat("['secret\x01,", word, "\n-", word, "\n", NULL);
    g_autofree char *frames =
        g_strconcat(PARSE "stray ''...'|" PARSE "expecting value|" PARSE
                          "invalid keyword '",
                    shown, "...'|" PARSE "stray '-a'", NULL);

    check(text, frames);
}

static void
test_depth_limit(void)
{
    g_autofree char *most = repeat("[", 1024, "", "]");
    g_autofree char *above = repeat("{'a':", 1025, "'}'", "}");
    g_autofree char *above_then = g_strconcat(above, "[1]", NULL);
    g_autofree char *open = repeat("[", 3000, "\n[2]", "");
    g_autofree char *got = frames_of(most, strlen(most), 100);

    g_assert_cmpuint(strlen(got), ==, 2 + 2048);
    check(above_then, "E JSON nesting depth limit exceeded|V [1]");
    check(open, "E JSON nesting depth limit exceeded|V [2]");
}

static void
test_deepest_value_is_parsed(void)
{
    g_autofree char *most = repeat("{'a':", 1024, "1", "}");
    g_autoptr(BfFramer) framer = bf_framer_new();
    g_autoptr(BfFrame) frame = NULL;
    g_autoptr(GError) error = NULL;
    g_autoptr(GString) out = g_string_new(NULL);
    json_t *value;

    bf_framer_feed(framer, most, strlen(most));
    frame = bf_framer_next(framer);
    value = bf_json_parse_frame(frame->text, frame->len, &error);
    g_assert_no_error(error);
    bf_json_write(out, value, BF_JSON_STYLE_COMPACT);
    g_assert_cmpuint(out->len, ==, 1024 * 7 + 1);
    json_decref(value);
}

static void
test_count_limit(void)
{
    g_autofree char *text = repeat("[],", 800 * 1000, "1]", "");
    g_autofree char *whole = g_strconcat("[", text, "{}", NULL);
    g_autofree char *got = frames_of(whole, strlen(whole), 65536);

    g_assert_cmpstr(got, ==, "E JSON token count limit exceeded|V {}");
}

/* Also where many tokens are taken at once. */
static void
test_count_limit_is_exact(void)
{
    const size_t most = 2 << 20;
    const size_t sevens = (most - 4) / 2; /* each after a comma */
    g_autofree char *good = enclose("[[]", ",7", sevens, "]{}");
    g_autofree char *bad = enclose("[[]", ",7", sevens + 1, "]{}");
    const size_t portions[] = {32768, SIZE_MAX / 2};

    for (size_t i = 0; i < G_N_ELEMENTS(portions); i++) {
        g_autofree char *got_good = frames_of(good, strlen(good), portions[i]);
        g_autofree char *got_bad = frames_of(bad, strlen(bad), portions[i]);

        g_assert_cmpuint(strlen(got_good), ==,
                         strlen("V [[]]|V {}") + 2 * sevens);
        g_assert_cmpstr(got_bad, ==, "E JSON token count limit exceeded|V {}");
    }
}

static void
check_size_limit(const char *before, const char *after, const char *frames)
{
    const size_t len = 64 << 20;
    g_autofree char *text = g_malloc(len + 64);
    size_t head = strlen(before);
    g_autofree char *got = NULL;

    memcpy(text, before, head);
    memset(text + head, 'x', len);
    strcpy(text + head + len, after);
    got = frames_of(text, head + len + strlen(after), 1 << 20);
    g_assert_cmpstr(got, ==, frames);
}

static void
test_size_limit(void)
{
    check_size_limit("['", "]\\']']{}",
                     "E JSON token size limit exceeded|V {}");
}

static void
test_runaway_string_ends_with_line(void)
{
    check_size_limit("{'a':'", "\n[3]",
                     "E JSON token size limit exceeded|V [3]");
}

static void
test_truncated_gives_nothing(void)
{
    const char text[] = "{'execute': \"x\", 'id': [01e, {}], \"a\\u0041\": tr}";

    for (size_t n = 0; n < sizeof(text) - 1; n++) {
        g_autoptr(BfFramer) framer = bf_framer_new();

        if (memchr(text, '0', n) != NULL) {
            break; /* there the error is */
        }
        bf_framer_feed(framer, text, n);
        g_assert_null(bf_framer_next(framer));
        g_assert_cmpint(bf_framer_is_inside(framer), ==, n > 0);
    }
}

static void
check_id(const char *input, const char *id)
{
    g_autoptr(BfFramer) framer = bf_framer_new();
    g_autoptr(BfFrame) frame = NULL;
    g_autofree char *got = NULL;

    bf_framer_feed(framer, input, strlen(input));
    frame = bf_framer_next(framer);
    g_assert_nonnull(frame);
    g_assert_cmpstr(frame->error, ==, NULL);
    got = bf_frame_echo_id(frame);
    g_assert_cmpstr(got, ==, id);
}

static void
test_id_is_echoed(void)
{
    check_id("{'execute':'x'}", NULL);
    check_id("{'execute':'x','id':null}", "null");
    check_id("{'id':1.50,'execute':'x'}", "1.50");
    check_id("{'id':18446744073709551615}", "18446744073709551615");
    check_id("{'id':'\\u0000\xC3\xA9\xF0\x9F\x98\x80\\n\"'}",
             "\"\\u0000\\u00E9\\uD83D\\uDE00\\n\\\"\"");
    check_id("{'a':{'id':1},'id':{'id':[2,'\x7F'],'b\\u00005':3},'z':4}",
             "{\"id\": [2, \"\\u007F\"], \"b\\u00005\": 3}");
    check_id("{'id':{'\\u00005':9223372036854775808}}",
             "{\"\\u00005\": 9223372036854775808}");
    check_id("{'a':{'id':1}}", NULL);
    check_id("[{'id':1}]", NULL);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qmp/framer/little-of-bad-input-is-shown",
                    test_little_of_bad_input_is_shown);
    g_test_add_func("/qmp/framer/next/values-become-strict",
                    test_values_become_strict);
    g_test_add_func("/qmp/framer/next/nul-is-kept", test_nul_is_kept);
    g_test_add_func("/qmp/framer/next/numbers-fit-jansson",
                    test_numbers_fit_jansson);
    g_test_add_func("/qmp/framer/next/scalars-stay-as-they-are",
                    test_scalars_stay_as_they_are);
    g_test_add_func("/qmp/framer/next/scalars-end-as-they-should",
                    test_scalars_end_as_they_should);
    g_test_add_func("/qmp/framer/next/single-quotes-become-double",
                    test_single_quotes_become_double);
    g_test_add_func("/qmp/framer/next/levels-open-and-close",
                    test_levels_open_and_close);
    g_test_add_func("/qmp/framer/next/lexical-errors", test_lexical_errors);
    g_test_add_func("/qmp/framer/next/nul-byte-shows-nothing",
                    test_nul_byte_shows_nothing);
    g_test_add_func("/qmp/framer/next/grammar-errors", test_grammar_errors);
    g_test_add_func("/qmp/framer/next/string-errors", test_string_errors);
    g_test_add_func("/qmp/framer/next/recovery", test_recovery);
    g_test_add_func("/qmp/framer/next/long-string-is-one",
                    test_long_string_is_one);
    g_test_add_func("/qmp/framer/next/long-string-keeps-its-errors",
                    test_long_string_keeps_its_errors);
    g_test_add_func("/qmp/framer/next/depth-limit", test_depth_limit);
    g_test_add_func("/qmp/framer/next/deepest-value-is-parsed",
                    test_deepest_value_is_parsed);
    g_test_add_func("/qmp/framer/next/count-limit", test_count_limit);
    g_test_add_func("/qmp/framer/next/count-limit-is-exact",
                    test_count_limit_is_exact);
    g_test_add_func("/qmp/framer/next/size-limit", test_size_limit);
    g_test_add_func("/qmp/framer/next/runaway-string-ends-with-line",
                    test_runaway_string_ends_with_line);
    g_test_add_func("/qmp/framer/next/truncated-gives-nothing",
                    test_truncated_gives_nothing);
    g_test_add_func("/qmp/framer/next/id-is-echoed", test_id_is_echoed);
    return g_test_run();
}
