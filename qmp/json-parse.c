/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Strict JSON text, which the framer or we have written, to a json_t.
 *
 * jansson's own reader takes one byte at a time through several buffers, which
 * is what large commands would wait for. This one relies on the text being
 * strict, so it has no messages for what is not; but it checks all the same,
 * and trusts in nothing but the NUL behind the text. It does not recurse.
 */
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "core/error.h"
#include "core/wipe.h"
#include "qmp/json-scan.h"
#include "qmp/json-value.h"

#define LEVELS_MAX 2048
#define INTEGER_CHARS_SAFE 18 /* what is no longer fits 64 bits */

/* Why a text is refused. */
typedef enum Problem {
    PROBLEM_NONE,
    PROBLEM_TEXT, /* not strict JSON */
    PROBLEM_DUPLICATE,
} Problem;

/* The contents of a string: of the text, or of a scratch string. */
typedef struct Slice {
    const char *text;
    size_t len;
} Slice;

typedef struct Parser {
    const char *at;
    const char *end;
    json_t *root;      /* owned */
    GPtrArray *levels; /* open arrays and objects, borrowed from the root */
    GString *scratch;  /* a string that had escapes */
    GString *scratch_of_key;
    Problem problem;
} Parser;

/* Remembers why, and leaves nothing to be parsed. */
static void
fail(Parser *parser, Problem problem)
{
    if (parser->problem == PROBLEM_NONE) {
        parser->problem = problem;
    }
    parser->at = parser->end;
}

static char
next_char(Parser *parser)
{
    while (*parser->at == ' ' || *parser->at == '\n' || *parser->at == '\r' ||
           *parser->at == '\t') {
        parser->at++;
    }
    return *parser->at; /* NUL at the end */
}

static json_t *
innermost(const Parser *parser)
{
    return parser->levels->len == 0
               ? NULL
               : g_ptr_array_index(parser->levels, parser->levels->len - 1);
}

/* Strings. */

/* Moves @at to what ends a part without escapes. */
static const char *
skip_plain(const char *at, const char *end, bool *ret_has_high)
{
    for (;;) {
        at += bf_json_scan_plain(at, end);
        if (at == end || (*at != '\'' && (uint8_t)*at < 0x80)) {
            return at;
        }
        *ret_has_high |= *at != '\'';
        at++;
    }
}

/* The value of 4 hexadecimal digits at @at, which a NUL follows somewhere. */
static int
parse_hex4(const char *at)
{
    int value = 0;

    for (int i = 0; i < 4; i++) {
        int digit = g_ascii_xdigit_value(at[i]);

        if (digit < 0) {
            return -1;
        }
        value = value * 16 + digit;
    }
    return value;
}

/* Behind \u: appends the character, and moves behind the escape. */
static bool
take_unicode(Parser *parser, GString *out)
{
    char bytes[6];
    int c = parse_hex4(parser->at);
    int low = 0;

    if (c < 0 || (c >= 0xDC00 && c <= 0xDFFF)) {
        return false;
    }
    parser->at += 4;
    if (c >= 0xD800 && c <= 0xDBFF) {
        if (parser->at[0] != '\\' || parser->at[1] != 'u') {
            return false;
        }
        low = parse_hex4(parser->at + 2);
        if (low < 0xDC00 || low > 0xDFFF) {
            return false;
        }
        parser->at += 6;
        c = 0x10000 + ((c & 0x3FF) << 10) + (low & 0x3FF);
    }
    bf_wipe_append(out, bytes, (size_t)g_unichar_to_utf8((gunichar)c, bytes));
    return true;
}

/* Behind the backslash. */
static bool
take_escape(Parser *parser, GString *out)
{
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    const char c = *parser->at;
    const char *known = c != '\0' ? strchr(from, c) : NULL;

    parser->at += c != '\0';
    if (known != NULL) {
        bf_wipe_append(out, &to[known - from], 1);
        return true;
    }
    return c == 'u' && take_unicode(parser, out);
}

/* From a backslash on: the rest of the string, to @out. */
static bool
take_escaped(Parser *parser, GString *out, bool *ret_has_high)
{
    while (*parser->at == '\\') {
        const char *run = NULL;

        parser->at++;
        if (!take_escape(parser, out)) {
            return false;
        }
        run = parser->at;
        parser->at = skip_plain(run, parser->end, ret_has_high);
        bf_wipe_append(out, run, (size_t)(parser->at - run));
    }
    return *parser->at == '"';
}

/* At the opening quote. The result lives until @scratch is used again. */
static Slice
take_string(Parser *parser, GString *scratch)
{
    bool has_high = false;
    const char *start = ++parser->at;
    Slice slice = {.text = start};
    bool is_good = true;

    parser->at = skip_plain(start, parser->end, &has_high);
    slice.len = (size_t)(parser->at - start);
    if (*parser->at != '"') {
        bf_wipe_truncate(scratch, 0);
        bf_wipe_append(scratch, start, slice.len);
        is_good = take_escaped(parser, scratch, &has_high);
        slice = (Slice){.text = scratch->str, .len = scratch->len};
    }
    if (!is_good ||
        (has_high &&
         !g_utf8_validate_len(start, (gsize)(parser->at - start), NULL))) {
        fail(parser, PROBLEM_TEXT);
        return (Slice){.text = ""};
    }
    parser->at++;
    return slice;
}

/* Other values. */

static json_t *
take_long_number(Parser *parser, const char *end, bool is_real)
{
    const char *point = memchr(parser->at, '.', (size_t)(end - parser->at));
    char *stop = NULL;
    json_t *value = NULL;

    if (point != NULL && !g_ascii_isdigit(point[1])) {
        return NULL;
    }
    errno = 0;
    value = is_real ? json_real(g_ascii_strtod(parser->at, &stop))
                    : json_integer(g_ascii_strtoll(parser->at, &stop, 10));
    if (stop != end || (!is_real && errno != 0)) {
        json_decref(value);
        return NULL;
    }
    parser->at = end;
    return value;
}

static json_t *
take_number(Parser *parser)
{
    const char *digits = parser->at + (*parser->at == '-');
    const char *end = digits;
    json_int_t value = 0;
    json_t *number = NULL;

    while (g_ascii_isdigit(*end) && end - parser->at < INTEGER_CHARS_SAFE) {
        value = value * 10 + (*end++ - '0');
    }
    if (end == digits || (*digits == '0' && end - digits > 1)) {
        return NULL;
    }
    if (g_ascii_isdigit(*end) || *end == '.' || *end == 'e' || *end == 'E') {
        size_t len = strspn(parser->at, "+-0123456789.eE");
        size_t whole = strspn(parser->at, "+-0123456789");

        return take_long_number(parser, parser->at + len, whole < len);
    }
    number = json_integer(*parser->at == '-' ? -value : value);
    parser->at = end;
    return number;
}

static json_t *
take_word(Parser *parser, const char *word, json_t *value)
{
    size_t len = strlen(word);

    if ((size_t)(parser->end - parser->at) < len ||
        memcmp(parser->at, word, len) != 0) {
        return NULL;
    }
    parser->at += len;
    return value;
}

static json_t *
take_string_value(Parser *parser)
{
    Slice slice = take_string(parser, parser->scratch);

    return json_stringn_nocheck(slice.text, slice.len);
}

/* Returns NULL if there is no value here. An array or object has its opening
 * bracket taken only. */
static json_t *
take_value(Parser *parser)
{
    switch (next_char(parser)) {
    case '{':
        parser->at++;
        return json_object();
    case '[':
        parser->at++;
        return json_array();
    case '"':
        return take_string_value(parser);
    case 't':
        return take_word(parser, "true", json_true());
    case 'f':
        return take_word(parser, "false", json_false());
    case 'n':
        return take_word(parser, "null", json_null());
    default:
        return take_number(parser);
    }
}

/* Structure. */

/* Takes @value over. */
static void
add_value(Parser *parser, Slice key, json_t *value)
{
    json_t *level = innermost(parser);
    size_t before = 0;

    if (level == NULL) {
        parser->root = value;
    } else if (json_is_array(level)) {
        json_array_append_new(level, value);
    } else {
        before = json_object_size(level);
        json_object_setn_new_nocheck(level, key.text, key.len, value);
        if (json_object_size(level) == before) {
            fail(parser, PROBLEM_DUPLICATE);
        }
    }
}

/* The key of the next member, and its colon. */
static Slice
take_key(Parser *parser)
{
    Slice key = {.text = ""};

    if (next_char(parser) != '"') {
        fail(parser, PROBLEM_TEXT);
        return key;
    }
    key = take_string(parser, parser->scratch_of_key);
    if (next_char(parser) != ':' || memchr(key.text, '\0', key.len) != NULL) {
        fail(parser, PROBLEM_TEXT);
        return key;
    }
    parser->at++;
    return key;
}

/* Takes brackets that close, up to a comma, which is taken too, or the end. */
static void
close_levels(Parser *parser)
{
    json_t *level = NULL;

    while ((level = innermost(parser)) != NULL) {
        char c = next_char(parser);

        if (c != ',' && c != (json_is_array(level) ? ']' : '}')) {
            fail(parser, PROBLEM_TEXT);
            return;
        }
        parser->at++;
        if (c == ',') {
            return;
        }
        g_ptr_array_set_size(parser->levels, (gint)parser->levels->len - 1);
    }
}

/* Takes one value, and what follows it up to the next one. */
static void
take_item(Parser *parser)
{
    Slice key = {.text = ""};
    json_t *value = NULL;
    bool is_open = false;

    if (json_is_object(innermost(parser))) {
        key = take_key(parser);
    }
    value = take_value(parser);
    if (value == NULL || parser->problem != PROBLEM_NONE) {
        json_decref(value);
        fail(parser, PROBLEM_TEXT);
        return;
    }
    is_open = json_is_array(value) || json_is_object(value);
    add_value(parser, key, value);
    if (is_open) {
        if (parser->levels->len == LEVELS_MAX) {
            fail(parser, PROBLEM_TEXT);
            return;
        }
        g_ptr_array_add(parser->levels, value);
        if (next_char(parser) != ']' && *parser->at != '}') {
            return;
        }
    }
    close_levels(parser);
}

json_t *
bf_json_parse_frame(const char *text, size_t len, GError **error)
{
    Parser parser = {
        .at = text,
        .end = text + len,
        .levels = g_ptr_array_new(),
        .scratch = g_string_new(NULL),
        .scratch_of_key = g_string_new(NULL),
    };

    g_assert(text[len] == '\0');
    do {
        take_item(&parser);
    } while (parser.problem == PROBLEM_NONE && parser.levels->len > 0);
    if (next_char(&parser) != '\0' || parser.at != parser.end) {
        fail(&parser, PROBLEM_TEXT);
    }
    g_ptr_array_unref(parser.levels);
    bf_wipe_string_free(parser.scratch);
    bf_wipe_string_free(parser.scratch_of_key);
    if (parser.problem == PROBLEM_NONE) {
        return parser.root;
    }
    json_decref(parser.root);
    bf_set_error(error, "JSON parse error, %s",
                 parser.problem == PROBLEM_DUPLICATE ? "duplicate key"
                                                     : "text is not strict");
    return NULL;
}
