/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Strict JSON text, which the framer or we have written, to a document.
 *
 * This relies on the text being strict, so it has no messages for what is not;
 * but it checks all the same, and trusts in nothing but the NUL behind the
 * text. Strings stay where they are: escapes make them shorter, and the quote
 * that closes them becomes their NUL. It does not recurse.
 */
#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "core/error.h"
#include "json-doc-private.h"
#include "qmp/json-scan.h"
#include "qmp/json-value.h"

#define LEVELS_MAX 2048
#define INTEGER_CHARS_SAFE 18 /* what is no longer fits 64 bits */
#define MARK_LEN (sizeof(BF_JSON_MARK) - 1)
/* A longer number, or one with an exponent, may be too large for a double. */
#define REAL_CHARS_SAFE 200
/* A client's value has no more; what is not used costs nothing. */
#define NODES_AT_ONCE ((size_t)1 << 21)
#define NO_PARENT UINT64_MAX

/* Why a text is refused. */
typedef enum Problem {
    PROBLEM_NONE,
    PROBLEM_TEXT, /* not strict JSON */
    PROBLEM_DUPLICATE,
} Problem;

typedef struct Parser {
    char *at;
    char *end;
    BfJsonDoc *doc;
    BfJsonNode *node;  /* the next one to be used */
    BfJsonNode *limit; /* behind the last one that is there */
    BfJsonNode *open;  /* the innermost array or object, or NULL */
    unsigned levels;
    Problem problem;
} Parser;

/* All that is done for each value is one function for the compiler, which has
 * no need then to keep a parser in memory. */
#define QUICK static inline __attribute__((always_inline))

/* Remembers why. Always returns false. */
QUICK bool
fail(Parser *parser, Problem problem)
{
    if (parser->problem == PROBLEM_NONE) {
        parser->problem = problem;
    }
    return false;
}

QUICK char
next_char(Parser *parser)
{
    while (*parser->at == ' ' || *parser->at == '\n' || *parser->at == '\r' ||
           *parser->at == '\t') {
        parser->at++;
    }
    return *parser->at; /* NUL at the end */
}

/* Gives the nodes that are used to the document, to get more. */
static bool
add_room(Parser *parser)
{
    const ptrdiff_t open =
        parser->open != NULL ? parser->open - parser->doc->nodes : -1;

    parser->doc->n_nodes = (size_t)(parser->node - parser->doc->nodes);
    if (!bf_json_doc_reserve(parser->doc)) {
        return false;
    }
    parser->node = parser->doc->nodes + parser->doc->n_nodes;
    parser->limit = parser->doc->nodes + parser->doc->n_allocated;
    parser->open = open >= 0 ? parser->doc->nodes + open : NULL;
    return true;
}

/* Returns NULL if there are too many. */
QUICK BfJsonNode *
add_node(Parser *parser, BfJsonKind kind, size_t size)
{
    BfJsonNode *node = NULL;

    if (parser->node == parser->limit) {
        Parser other = *parser;
        const bool is_done = add_room(&other);

        *parser = other;
        if (!is_done) {
            return NULL;
        }
    }
    node = parser->node++;
    node->size = (uint32_t)size;
    node->kind = kind;
    node->span = 1;
    return node;
}

/* Strings. */

/* Moves @at, at a byte from 0x80 on, to what ends a part without escapes. */
static char *
skip_high(char *at, const char *end)
{
    while (at < end && (uint8_t)*at >= 0x80) {
        uint32_t c = 0;
        const size_t n = bf_json_scan_char(at, end, &c);

        if (n == 0) {
            return at; /* no UTF-8 is neither a quote nor a backslash */
        }
        at += n;
        at += bf_json_scan_plain(at, end, '"');
    }
    return at;
}

QUICK char *
skip_plain(char *at, const char *end)
{
    at += bf_json_scan_plain(at, end, '"');
    return (uint8_t)*at < 0x80 ? at : skip_high(at, end);
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

/* Behind \u: writes the character to @to, and moves behind the escape.
 * Returns how many bytes it has, or 0. */
static size_t
take_unicode(Parser *parser, char *to)
{
    int c = parse_hex4(parser->at);
    int low = 0;

    if (c < 0 || (c >= 0xDC00 && c <= 0xDFFF)) {
        return 0;
    }
    parser->at += 4;
    if (c >= 0xD800 && c <= 0xDBFF) {
        if (parser->at[0] != '\\' || parser->at[1] != 'u') {
            return 0;
        }
        low = parse_hex4(parser->at + 2);
        if (low < 0xDC00 || low > 0xDFFF) {
            return 0;
        }
        parser->at += 6;
        c = 0x10000 + ((c & 0x3FF) << 10) + (low & 0x3FF);
    }
    return (size_t)g_unichar_to_utf8((gunichar)c, to);
}

/* Behind the backslash. */
static size_t
take_escape(Parser *parser, char *to)
{
    static const char letters[] = {
        ['"'] = '"',  ['\\'] = '\\', ['/'] = '/',  ['b'] = '\b',
        ['f'] = '\f', ['n'] = '\n',  ['r'] = '\r', ['t'] = '\t'};
    const uint8_t c = (uint8_t)*parser->at;

    if (c == 'u') {
        parser->at++;
        return take_unicode(parser, to);
    }
    if (c >= sizeof(letters) || letters[c] == 0) {
        return 0;
    }
    *to = letters[c];
    parser->at++;
    return 1;
}

/* From a backslash on: moves the rest of the string to @to. Returns where it
 * ends there, or NULL. */
static char *
take_escaped(Parser *parser, char *to)
{
    while (*parser->at == '\\') {
        char *run = NULL;
        size_t n = 0;

        parser->at++;
        n = take_escape(parser, to);
        if (n == 0) {
            return NULL;
        }
        to += n;
        run = parser->at;
        parser->at = skip_plain(run, parser->end);
        memmove(to, run, (size_t)(parser->at - run));
        to += parser->at - run;
    }
    return to;
}

/* At the opening quote. */
QUICK BfJsonNode *
take_string(Parser *parser)
{
    char *start = ++parser->at;
    char *stop = parser->at = skip_plain(start, parser->end);
    BfJsonNode *node = NULL;

    if (*stop == '\\') {
        Parser other = *parser;

        stop = take_escaped(&other, stop);
        *parser = other;
    }
    if (stop == NULL || *parser->at != '"') {
        return NULL;
    }
    parser->at++;
    *stop = '\0';
    node = add_node(parser, BF_JSON_KIND_STRING, (size_t)(stop - start));
    if (node != NULL) {
        node->u.text = start;
    }
    return node;
}

/* Is a string that begins with the mark a number? */
static void
look_for_big(BfJsonNode *node)
{
    char *stop = NULL;
    uint64_t big = g_ascii_strtoull(node->u.text + MARK_LEN, &stop, 10);

    if (stop == node->u.text + node->size && big > INT64_MAX) {
        node->kind = BF_JSON_KIND_BIG;
        node->size = 0;
        node->u.big = big;
    }
}

QUICK bool
take_string_value(Parser *parser)
{
    BfJsonNode *node = take_string(parser);

    if (node != NULL && node->size > MARK_LEN &&
        memcmp(node->u.text, BF_JSON_MARK, MARK_LEN) == 0) {
        look_for_big(node);
    }
    return node != NULL;
}

/* Numbers. */

static char *
skip_digits(char *at)
{
    while (g_ascii_isdigit(*at)) {
        at++;
    }
    return at;
}

/* Behind the number at @at, which may have any length, or NULL. */
static char *
find_number_end(char *at, bool *ret_is_real, bool *ret_has_exponent)
{
    char *digits = at + (*at == '-');

    at = skip_digits(digits);
    if (at == digits || (*digits == '0' && at - digits > 1)) {
        return NULL;
    }
    *ret_is_real = *at == '.' || *at == 'e' || *at == 'E';
    if (*at == '.') {
        digits = at + 1;
        at = skip_digits(digits);
        if (at == digits) {
            return NULL;
        }
    }
    *ret_has_exponent = *at == 'e' || *at == 'E';
    if (*ret_has_exponent) {
        digits = at + 1 + (at[1] == '+' || at[1] == '-');
        at = skip_digits(digits);
        if (at == digits) {
            return NULL;
        }
    }
    return at;
}

/* At a number: what it is to @number. Returns what follows it, or NULL. */
static char *
read_long_number(char *at, BfJsonNode *number)
{
    bool is_real = false;
    bool has_exponent = false;
    char *end = find_number_end(at, &is_real, &has_exponent);

    if (end == NULL) {
        return NULL;
    }
    errno = 0;
    if (!is_real) {
        number->u.integer = g_ascii_strtoll(at, NULL, 10);
        return errno == 0 ? end : NULL;
    }
    if ((has_exponent || end - at > REAL_CHARS_SAFE) &&
        isinf(g_ascii_strtod(at, NULL))) {
        return NULL;
    }
    number->kind = BF_JSON_KIND_REAL; /* converted when it is asked for */
    number->size = (uint32_t)(end - at);
    number->u.text = at;
    return end;
}

QUICK bool
take_number(Parser *parser)
{
    const bool is_negative = *parser->at == '-';
    char *digits = parser->at + is_negative;
    char *end = digits;
    int64_t value = 0;
    BfJsonNode *node = add_node(parser, BF_JSON_KIND_INTEGER, 0);

    if (node == NULL) {
        return false;
    }
    while ((uint8_t)(*end - '0') < 10 &&
           end - parser->at < INTEGER_CHARS_SAFE) {
        value = value * 10 + (*end++ - '0');
    }
    if (g_ascii_isdigit(*end) || *end == '.' || *end == 'e' || *end == 'E') {
        end = read_long_number(parser->at, node);
    } else if (end == digits || (*digits == '0' && end - digits > 1)) {
        return false;
    } else {
        node->u.integer = is_negative ? -value : value;
    }
    parser->at = end;
    return end != NULL;
}

/* Structure. */

QUICK bool
take_word(Parser *parser, const char *word, size_t len, BfJsonKind kind)
{
    if ((size_t)(parser->end - parser->at) < len ||
        memcmp(parser->at, word, len) != 0) {
        return false;
    }
    parser->at += len;
    return add_node(parser, kind, 0) != NULL;
}

QUICK bool
open_level(Parser *parser, BfJsonKind kind)
{
    BfJsonNode *node = add_node(parser, kind, 0);

    if (node == NULL || parser->levels == LEVELS_MAX) {
        return false;
    }
    /* Nodes may move, but all of them. */
    node->u.parent =
        parser->open != NULL ? (size_t)(node - parser->open) : NO_PARENT;
    parser->open = node;
    parser->levels++;
    parser->at++;
    return true;
}

QUICK bool
close_level(Parser *parser)
{
    BfJsonNode *node = parser->open;

    parser->at++;
    parser->levels--;
    parser->open = node->u.parent != NO_PARENT ? node - node->u.parent : NULL;
    node->span =
        (unsigned)(parser->node - node) & (unsigned)(BF_JSON_NODES_MAX - 1);
    node->u.index = NULL;
    return node->kind != BF_JSON_KIND_OBJECT || node->size < 2 ||
           bf_json_doc_close_object(parser->doc, node) ||
           fail(parser, PROBLEM_DUPLICATE);
}

/* An array or object has its opening bracket taken only. */
QUICK bool
take_value(Parser *parser)
{
    switch (next_char(parser)) {
    case '{':
        return open_level(parser, BF_JSON_KIND_OBJECT);
    case '[':
        return open_level(parser, BF_JSON_KIND_ARRAY);
    case '"':
        return take_string_value(parser);
    case 't':
        return take_word(parser, "true", 4, BF_JSON_KIND_TRUE);
    case 'f':
        return take_word(parser, "false", 5, BF_JSON_KIND_FALSE);
    case 'n':
        return take_word(parser, "null", 4, BF_JSON_KIND_NULL);
    default:
        return take_number(parser);
    }
}

/* The key of the next member, and its colon. */
QUICK bool
take_key(Parser *parser)
{
    const BfJsonNode *key = NULL;

    if (next_char(parser) == '"') {
        key = take_string(parser);
    }
    if (key == NULL || next_char(parser) != ':' ||
        memchr(key->u.text, '\0', key->size) != NULL) {
        return false;
    }
    parser->at++;
    return true;
}

/* Takes brackets that close, up to a comma, which is taken too, or the end. */
QUICK bool
close_levels(Parser *parser)
{
    while (parser->open != NULL) {
        const char c = next_char(parser);

        if (c == ',') {
            parser->at++;
            return true;
        }
        if (c != (parser->open->kind == BF_JSON_KIND_ARRAY ? ']' : '}') ||
            !close_level(parser)) {
            return false;
        }
    }
    return true;
}

/* Takes one value, and what follows it up to the next one. */
QUICK bool
take_item(Parser *parser)
{
    const unsigned levels = parser->levels;

    if (parser->open != NULL) {
        parser->open->size++;
        if (parser->open->kind == BF_JSON_KIND_OBJECT && !take_key(parser)) {
            return false;
        }
    }
    if (!take_value(parser)) {
        return false;
    }
    if (parser->levels > levels && next_char(parser) != ']' &&
        *parser->at != '}') {
        return true; /* the new level is not empty */
    }
    return close_levels(parser);
}

static bool
take_text(Parser *parser)
{
    Parser now = *parser;
    bool is_good = false;

    do {
        is_good = take_item(&now);
    } while (is_good && now.open != NULL);
    is_good = is_good && next_char(&now) == '\0' && now.at == now.end;
    *parser = now;
    return is_good;
}

BfJsonDoc *
bf_json_doc_parse(char *text, size_t len, GError **error)
{
    g_autoptr(BfJsonDoc) doc = g_new0(BfJsonDoc, 1);
    Parser parser = {.at = text, .end = text + len, .doc = doc};
    bool is_good = false;

    g_assert(text[len] == '\0' && len < UINT32_MAX);
    doc->text = text;
    doc->len = len;
    doc->n_allocated = MIN(len / 2 + 1, NODES_AT_ONCE);
    doc->nodes = g_new(BfJsonNode, doc->n_allocated);
    parser.node = doc->nodes;
    parser.limit = doc->nodes + doc->n_allocated;
    is_good = take_text(&parser);
    doc->n_nodes = (size_t)(parser.node - doc->nodes);
    if (!is_good) {
        fail(&parser, PROBLEM_TEXT);
        bf_set_error(error, "JSON parse error, %s",
                     parser.problem == PROBLEM_DUPLICATE
                         ? "duplicate key"
                         : "text is not strict");
        return NULL;
    }
    return g_steal_pointer(&doc);
}
