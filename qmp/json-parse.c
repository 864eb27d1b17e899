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
#include "core/large.h"
#include "json-doc-private.h"
#include "qmp/json-scan.h"
#include "qmp/json-value.h"

#define LEVELS_MAX 2048
#define MARK_LEN (sizeof(BF_JSON_MARK) - 1)
/* A longer number, or one with an exponent, may be too large for a double. */
#define REAL_CHARS_SAFE 200
/* A client's value has no more; what is not used costs nothing. */
#define NODES_AT_ONCE ((size_t)1 << 21)
#define NO_PARENT UINT64_MAX

/* Why a text is refused. */
typedef enum Problem {
    PROBLEM_TEXT, /* not strict JSON */
    PROBLEM_DUPLICATE,
} Problem;

typedef struct Parser {
    char *end;
    BfJsonDoc *doc;
    BfJsonNode *limit; /* behind the last one that is there */
    Problem problem;
} Parser;

/* What each value changes. */
typedef struct Cursor {
    char *at;
    BfJsonNode *node; /* the next one to be used */
    BfJsonNode *open; /* the innermost array or object, or NULL */
    unsigned levels;  /* that are open */
    Parser *parser;
} Cursor;

/* All that is done for each value is one function for the compiler, which has
 * no need then to keep a cursor in memory. */
#define QUICK static inline __attribute__((always_inline))

QUICK char
next_char(Cursor *now)
{
    if ((uint8_t)*now->at <= ' ') {
        now->at += strspn(now->at, " \n\r\t");
    }
    return *now->at; /* NUL at the end */
}

/* Gives the nodes before @node to the document, to get more. Returns the first
 * of those, or NULL if there are too many; moves @open. */
static BfJsonNode *
add_room(Parser *parser, const BfJsonNode *node, BfJsonNode **open)
{
    BfJsonDoc *doc = parser->doc;
    const ptrdiff_t number = *open != NULL ? *open - doc->nodes : -1;

    doc->n_nodes = (size_t)(node - doc->nodes);
    if (!bf_json_doc_reserve(doc)) {
        return NULL;
    }
    parser->limit = doc->nodes + doc->n_allocated;
    *open = number >= 0 ? doc->nodes + number : NULL;
    return doc->nodes + doc->n_nodes;
}

/* Returns NULL if there are too many. */
QUICK BfJsonNode *
add_node(Cursor *now, BfJsonKind kind, size_t size)
{
    if (now->node == now->parser->limit) {
        BfJsonNode *open = now->open;
        BfJsonNode *node = add_room(now->parser, now->node, &open);

        if (node == NULL) {
            return NULL;
        }
        now->node = node;
        now->open = open;
    }
    *now->node = (BfJsonNode){.size = (uint32_t)size, .kind = kind, .span = 1};
    return now->node++;
}

QUICK bool
is_digit(char c)
{
    return (uint8_t)(c - '0') < 10;
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
take_unicode(char **at, char *to)
{
    int c = parse_hex4(*at);
    int low = 0;

    if (c < 0 || (c >= 0xDC00 && c <= 0xDFFF)) {
        return 0;
    }
    *at += 4;
    if (c >= 0xD800 && c <= 0xDBFF) {
        if ((*at)[0] != '\\' || (*at)[1] != 'u') {
            return 0;
        }
        low = parse_hex4(*at + 2);
        if (low < 0xDC00 || low > 0xDFFF) {
            return 0;
        }
        *at += 6;
        c = 0x10000 + ((c & 0x3FF) << 10) + (low & 0x3FF);
    }
    return (size_t)g_unichar_to_utf8((gunichar)c, to);
}

/* Behind the backslash. */
static size_t
take_escape(char **at, char *to)
{
    static const char letters[] = {
        ['"'] = '"',  ['\\'] = '\\', ['/'] = '/',  ['b'] = '\b',
        ['f'] = '\f', ['n'] = '\n',  ['r'] = '\r', ['t'] = '\t'};
    const uint8_t c = (uint8_t) * (*at)++;

    if (c == 'u') {
        return take_unicode(at, to);
    }
    if (c >= sizeof(letters) || letters[c] == 0) {
        return 0;
    }
    *to = letters[c];
    return 1;
}

/* From a backslash on: moves the rest of the string to where that is. Moves
 * @at behind it, and returns where it ends now, or NULL. */
static char *
take_escaped(char **at, const char *end)
{
    char *from = *at;
    char *to = from;

    while (*from == '\\') {
        char *run = NULL;
        size_t n = 0;

        from++;
        n = take_escape(&from, to);
        if (n == 0) {
            return NULL;
        }
        to += n;
        if (*from == '\\' || *from == '"') {
            continue;
        }
        run = from;
        from = skip_plain(run, end);
        memmove(to, run, (size_t)(from - run));
        to += from - run;
    }
    *at = from;
    return to;
}

/* At the opening quote. */
QUICK BfJsonNode *
take_string(Cursor *now)
{
    const char *end = now->parser->end;
    char *start = now->at + 1;
    char *at = skip_plain(start, end);
    char *stop = at;
    BfJsonNode *node = NULL;

    if (*at == '\\') {
        char *behind = at;

        stop = take_escaped(&behind, end);
        at = behind;
    }
    if (stop == NULL || *at != '"') {
        return NULL;
    }
    now->at = at + 1;
    *stop = '\0';
    node = add_node(now, BF_JSON_KIND_STRING, (size_t)(stop - start));
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
        node->u.text += MARK_LEN;
    }
}

QUICK bool
take_string_value(Cursor *now)
{
    BfJsonNode *node = take_string(now);

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

/* Returns what follows the number at @at, or NULL. */
static char *
skip_long_number(char *at, bool *ret_is_real)
{
    bool has_exponent = false;
    char *end = find_number_end(at, ret_is_real, &has_exponent);

    if (end == NULL) {
        return NULL;
    }
    errno = 0;
    if (!*ret_is_real) {
        (void)g_ascii_strtoll(at, NULL, 10);
        return errno == 0 ? end : NULL;
    }
    if ((has_exponent || end - at > REAL_CHARS_SAFE) &&
        isinf(g_ascii_strtod(at, NULL))) {
        return NULL;
    }
    return end;
}

/* It is converted when it is asked for. */
QUICK bool
take_number(Cursor *now, bool is_negative)
{
    char *at = now->at;
    const char *digits = at + (is_negative ? 1 : 0);
    bool is_real = false;
    const char *end = NULL;
    BfJsonNode *node = NULL;

    if (!is_negative || is_digit(*digits)) {
        end = bf_json_skip_number(digits, &is_real);
    }
    if (end == NULL) {
        end = skip_long_number(at, &is_real);
    }
    if (end == NULL) {
        return false;
    }
    node = add_node(now, is_real ? BF_JSON_KIND_REAL : BF_JSON_KIND_INTEGER,
                    (size_t)(end - at));
    if (node == NULL) {
        return false;
    }
    node->u.text = at;
    now->at += end - at;
    return true;
}

/* Structure. */

QUICK bool
take_word(Cursor *now, const char *word, size_t len, BfJsonKind kind)
{
    if ((size_t)(now->parser->end - now->at) < len ||
        memcmp(now->at, word, len) != 0) {
        return false;
    }
    now->at += len;
    return add_node(now, kind, 0) != NULL;
}

QUICK bool
open_level(Cursor *now, BfJsonKind kind)
{
    BfJsonNode *node = add_node(now, kind, 0);

    if (node == NULL || now->levels == LEVELS_MAX) {
        return false;
    }
    /* Nodes may move, but all of them. */
    node->u.parent = now->open != NULL ? (size_t)(node - now->open) : NO_PARENT;
    now->open = node;
    now->levels++;
    now->at++;
    return true;
}

/* An object that has several members gets an index or is searched. */
static bool
end_object(Parser *parser, BfJsonNode *node)
{
    if (bf_json_doc_close_object(parser->doc, node)) {
        return true;
    }
    parser->problem = PROBLEM_DUPLICATE;
    return false;
}

QUICK bool
close_level(Cursor *now)
{
    BfJsonNode *node = now->open;

    now->at++;
    now->levels--;
    now->open = node->u.parent != NO_PARENT ? node - node->u.parent : NULL;
    node->span =
        (unsigned)(now->node - node) & (unsigned)(BF_JSON_NODES_MAX - 1);
    node->u.index = NULL;
    return node->kind != BF_JSON_KIND_OBJECT || node->size < 2 ||
           end_object(now->parser, node);
}

QUICK bool
take_scalar(Cursor *now, char c)
{
    if (is_digit(c)) {
        return take_number(now, false);
    }
    switch (c) {
    case '"':
        return take_string_value(now);
    case '-':
        return take_number(now, true);
    case 't':
        return take_word(now, "true", 4, BF_JSON_KIND_TRUE);
    case 'f':
        return take_word(now, "false", 5, BF_JSON_KIND_FALSE);
    case 'n':
        return take_word(now, "null", 4, BF_JSON_KIND_NULL);
    default:
        return false;
    }
}

/* Had a string up to @at escapes, which made it shorter? */
QUICK bool
is_escaped(const BfJsonNode *string, const char *at)
{
    return at - string->u.text - 1 > (ptrdiff_t)string->size;
}

/* The key of the next member, and its colon. */
QUICK bool
take_key(Cursor *now)
{
    const BfJsonNode *key = NULL;

    if (next_char(now) == '"') {
        key = take_string(now);
    }
    if (key == NULL || (is_escaped(key, now->at) &&
                        memchr(key->u.text, '\0', key->size) != NULL)) {
        return false;
    }
    if (next_char(now) != ':') {
        return false;
    }
    now->at++;
    return true;
}

/* Takes brackets that close, up to a comma, which is taken too, or the end. */
QUICK bool
close_levels(Cursor *now)
{
    while (now->open != NULL) {
        const char c = next_char(now);

        if (c == ',') {
            now->at++;
            return true;
        }
        if (c != (now->open->kind == BF_JSON_KIND_ARRAY ? ']' : '}') ||
            !close_level(now)) {
            return false;
        }
    }
    return true;
}

/* Takes a scalar, in an array also those that follow, and what is behind them
 * up to the next value. */
QUICK bool
take_scalars(Cursor *now, char c)
{
    const bool in_array =
        now->open != NULL && now->open->kind == BF_JSON_KIND_ARRAY;

    for (;;) {
        if (!take_scalar(now, c)) {
            return false;
        }
        if (!in_array || *now->at != ',') {
            return close_levels(now);
        }
        now->at++;
        c = next_char(now);
        if (c == '[' || c == '{') {
            return true;
        }
        now->open->size++;
    }
}

/* Takes one value, and what follows it up to the next one. */
QUICK bool
take_item(Cursor *now)
{
    char c = '\0';

    if (now->open != NULL) {
        now->open->size++;
        if (now->open->kind == BF_JSON_KIND_OBJECT && !take_key(now)) {
            return false;
        }
    }
    c = next_char(now);
    while (c == '[') {
        if (!open_level(now, BF_JSON_KIND_ARRAY)) {
            return false;
        }
        c = next_char(now);
        if (c == ']') {
            return close_levels(now);
        }
        now->open->size++;
    }
    if (c == '{') {
        return open_level(now, BF_JSON_KIND_OBJECT) &&
               (next_char(now) != '}' || close_levels(now));
    }
    return take_scalars(now, c);
}

static bool
take_text(Parser *parser, char *text)
{
    Cursor now = {.at = text, .node = parser->doc->nodes, .parser = parser};
    bool is_good = false;

    do {
        is_good = take_item(&now);
    } while (is_good && now.open != NULL);
    parser->doc->n_nodes = (size_t)(now.node - parser->doc->nodes);
    return is_good && next_char(&now) == '\0' && now.at == parser->end;
}

BfJsonDoc *
bf_json_doc_parse(char *text, size_t len, GError **error)
{
    g_autoptr(BfJsonDoc) doc = g_new0(BfJsonDoc, 1);
    Parser parser = {.end = text + len, .doc = doc};

    g_assert(text[len] == '\0' && len < UINT32_MAX);
    doc->text = text;
    doc->len = len;
    doc->n_allocated = MIN(len / 2 + 1, NODES_AT_ONCE);
    doc->nodes = bf_large_alloc(doc->n_allocated * sizeof(*doc->nodes));
    parser.limit = doc->nodes + doc->n_allocated;
    if (!take_text(&parser, text)) {
        bf_set_error(error, "JSON parse error, %s",
                     parser.problem == PROBLEM_DUPLICATE
                         ? "duplicate key"
                         : "text is not strict");
        return NULL;
    }
    return g_steal_pointer(&doc);
}
