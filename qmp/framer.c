/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The framer, in three steps: bytes to tokens, tokens to strict text, balanced
 * brackets to frames. QEMU collects tokens until the brackets balance and only
 * then looks at the grammar; to give the same errors at the same time, the
 * first grammar error is kept until then, while brackets and limits are still
 * counted.
 *
 * A client's text may hold a secret: all buffers are wiped when they are
 * emptied, and grow by core/wipe.h only.
 */
#include "qmp/framer.h"

#include <stdint.h>
#include <string.h>

#include "core/wipe.h"
#include "qmp/framer-private.h"

#define TOKEN_BYTES_MAX (64 << 20) /* of all tokens of a value */
#define TOKEN_COUNT_MAX (2 << 20)
#define KEEP_BYTES_MAX (64 << 10)    /* buffers above this are given back */
#define LARGE_TEXT_BYTES (2 << 20)   /* gets room for all that may come */
#define STRING_PART_BYTES (32 << 10) /* what is longer is taken in parts */

/* Where the lexer is inside of a token; then the tokens. */
typedef enum Lex {
    LEX_START,
    LEX_STRING,
    LEX_ESCAPE,
    LEX_SIGN,
    LEX_ZERO,
    LEX_DIGITS,
    LEX_POINT,
    LEX_FRACTION,
    LEX_EXPONENT,
    LEX_EXPONENT_SIGN,
    LEX_EXPONENT_DIGITS,
    LEX_KEYWORD,
    LEX_RECOVERY,
    LEX_ERROR,
    TOKEN_STRING,
    TOKEN_INTEGER,
    TOKEN_FLOAT,
    TOKEN_KEYWORD,
    TOKEN_PUNCTUATION,
} Lex;

/* Source text that is complete: of the input, or of a token in pieces. */
typedef struct Token {
    Lex kind;
    const char *text;
    size_t len;
} Token;

struct BfFramer {
    GString *input; /* fed; any bytes */
    size_t used;    /* of input */

    /* Lexer. */
    Lex lex;
    char quote;     /* that began the string */
    GString *token; /* source text, if it is not all in the input */

    /* The value so far. */
    int64_t braces;
    int64_t brackets;
    size_t token_bytes;
    size_t token_count;
    bool skipping; /* beyond a limit: drop the rest */

    /* Grammar. */
    BfFramerExpect expect;
    uint8_t levels[BF_FRAMER_NESTING_MAX + 1];
    size_t depth;
    GString *text;
    char *error;    /* the first one, or NULL */
    bool in_string; /* its first part is in text, from string_start on */
    size_t string_start;
    bool in_id;
    size_t id_start;
    size_t id_end; /* 0: no id seen */
};

BfFramer *
bf_framer_new(void)
{
    BfFramer *framer = g_new0(BfFramer, 1);

    framer->input = g_string_new(NULL);
    framer->token = g_string_new(NULL);
    framer->text = g_string_new(NULL);
    return framer;
}

static void
append_c(GString *string, char c)
{
    bf_wipe_reserve(string, 1);
    g_string_append_c(string, c);
}

void
bf_framer_free(BfFramer *framer)
{
    if (framer == NULL) {
        return;
    }
    bf_wipe_string_free(framer->input);
    bf_wipe_string_free(framer->token);
    bf_wipe_string_free(framer->text);
    g_free(framer->error);
    g_free(framer);
}

char *
bf_frame_echo_id(const BfFrame *frame)
{
    return frame->id_len > 0
               ? bf_framer_echo(frame->text + frame->id_start, frame->id_len)
               : NULL;
}

void
bf_frame_free(BfFrame *frame)
{
    if (frame == NULL) {
        return;
    }
    if (frame->text != NULL) {
        explicit_bzero(frame->text, frame->len);
    }
    g_free(frame->text);
    g_free(frame->error);
    g_free(frame);
}

void
bf_framer_feed(BfFramer *framer, const void *bytes, size_t len)
{
    /* Each byte moves at most once for each doubling: linear in total. */
    if (framer->used > 0 && framer->used >= framer->input->len / 2) {
        bf_wipe_drop_front(framer->input, framer->used);
        framer->used = 0;
    }
    bf_wipe_append(framer->input, bytes, len);
    /* Room that is not used costs nothing; moving 32 MiB takes a while. */
    if (framer->text->len > LARGE_TEXT_BYTES &&
        framer->text->allocated_len <= TOKEN_BYTES_MAX) {
        bf_wipe_reserve(framer->text, TOKEN_BYTES_MAX);
    }
}

bool
bf_framer_is_inside(const BfFramer *framer)
{
    return framer->braces > 0 || framer->brackets > 0 || framer->skipping ||
           (framer->lex != LEX_START && framer->lex != LEX_RECOVERY);
}

/* Forgets the value so far. */
static void
reset_value(BfFramer *framer)
{
    framer->braces = 0;
    framer->brackets = 0;
    framer->token_bytes = 0;
    framer->token_count = 0;
    framer->expect = BF_FRAMER_EXPECT_VALUE;
    framer->depth = 0;
    framer->in_string = false;
    framer->in_id = false;
    framer->id_end = 0;
    g_clear_pointer(&framer->error, g_free);
    if (framer->text->allocated_len > KEEP_BYTES_MAX) {
        bf_wipe_string_free(framer->text);
        framer->text = g_string_new(NULL);
    }
    bf_wipe_truncate(framer->text, 0);
}

static void
drop_token(BfFramer *framer)
{
    if (framer->token->allocated_len > KEEP_BYTES_MAX) {
        bf_wipe_string_free(framer->token);
        framer->token = g_string_new(NULL);
    }
    if (framer->token->len > 0) {
        bf_wipe_truncate(framer->token, 0);
    }
}

/* @error: (transfer full) */
static BfFrame *
emit_error(BfFramer *framer, char *error)
{
    BfFrame *frame = g_new0(BfFrame, 1);

    frame->error = error;
    reset_value(framer);
    return frame;
}

static BfFrame *
emit_value(BfFramer *framer)
{
    BfFrame *frame;

    if (framer->error != NULL) {
        return emit_error(framer, g_steal_pointer(&framer->error));
    }
    frame = g_new0(BfFrame, 1);
    if (framer->id_end > 0) {
        frame->id_start = framer->id_start;
        frame->id_len = framer->id_end - framer->id_start;
    }
    frame->len = framer->text->len;
    frame->text = g_string_free(framer->text, false);
    framer->text = g_string_new(NULL);
    reset_value(framer);
    return frame;
}

/* Grammar. */

static void
set_error(BfFramer *framer, const char *problem)
{
    framer->error = g_strconcat("JSON parse error, ", problem, NULL);
}

/* A value is complete; @is_string tells whether it can be a key. */
static void
end_value(BfFramer *framer, bool is_key, bool is_string)
{
    if (is_key) {
        if (!is_string) {
            set_error(framer, "key is not a string in object");
        }
        framer->expect = BF_FRAMER_EXPECT_COLON;
        return;
    }
    framer->expect = BF_FRAMER_EXPECT_SEPARATOR;
    if (framer->depth == 1 && framer->in_id) {
        framer->in_id = false;
        framer->id_end = framer->text->len;
    }
}

static void
close_level(BfFramer *framer, char c)
{
    uint8_t level = framer->levels[--framer->depth];

    append_c(framer->text, c);
    end_value(framer, (level & BF_FRAMER_LEVEL_IS_KEY) != 0, false);
}

static void
open_level(BfFramer *framer, char c, bool is_key)
{
    bool is_object = c == '{';

    framer->levels[framer->depth++] =
        (uint8_t)((is_object ? BF_FRAMER_LEVEL_IS_OBJECT : 0) |
                  (is_key ? BF_FRAMER_LEVEL_IS_KEY : 0));
    framer->expect =
        is_object ? BF_FRAMER_EXPECT_KEY_OR_END : BF_FRAMER_EXPECT_VALUE_OR_END;
    append_c(framer->text, c);
}

/* Is a value or key what comes next? */
static bool
wants_value(const BfFramer *framer)
{
    return framer->error == NULL && framer->expect != BF_FRAMER_EXPECT_COLON &&
           framer->expect != BF_FRAMER_EXPECT_SEPARATOR;
}

static bool
wants_key(const BfFramer *framer)
{
    return framer->expect == BF_FRAMER_EXPECT_KEY ||
           framer->expect == BF_FRAMER_EXPECT_KEY_OR_END;
}

/* Adds a part of a string to the text, as bf_framer_convert_string() does. */
static const char *
add_to_string(BfFramer *framer, const char *at, const char *limit,
              const char *end)
{
    g_autofree char *problem = NULL;

    if (!framer->in_string) {
        framer->in_string = true;
        framer->string_start = framer->text->len;
        append_c(framer->text, '"');
    }
    at = bf_framer_convert_string(at, limit, end, wants_key(framer),
                                  framer->text, &problem);
    if (at == NULL) {
        set_error(framer, problem);
    }
    return at;
}

/* What is there of a long string goes to the text: all at once, it would hold
 * up other clients. The token keeps its quote, and what may be half an escape
 * or character. */
static void
flush_string(BfFramer *framer)
{
    const char *start = framer->token->str + 1;
    const char *end = framer->token->str + framer->token->len;
    const char *at = end - BF_FRAMER_CHAR_BYTES_MAX;
    size_t taken = 0;

    if (wants_value(framer)) {
        at = add_to_string(framer, start, at, end);
    }
    taken = (size_t)((at != NULL ? at : end) - start);
    framer->token_bytes += taken;
    memmove(framer->token->str + 1, start + taken,
            (size_t)(end - start) - taken);
    bf_wipe_truncate(framer->token, framer->token->len - taken);
}

static void
take_string(BfFramer *framer, const Token *token, bool is_key)
{
    const char *end = token->text + token->len;

    if (add_to_string(framer, token->text + 1, end - 1, end) == NULL) {
        return;
    }
    append_c(framer->text, '"');
    framer->in_string = false;
    if (is_key && framer->depth == 1) {
        framer->in_id =
            g_str_equal(framer->text->str + framer->string_start, "\"id\"");
        if (framer->in_id) {
            framer->id_start = framer->text->len + 1; /* behind the colon */
        }
    }
    end_value(framer, is_key, true);
}

static void
take_keyword(BfFramer *framer, const Token *token, bool is_key)
{
    static const char *const known[] = {"true", "false", "null"};
    g_autofree char *shown = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(known); i++) {
        if (strlen(known[i]) == token->len &&
            memcmp(known[i], token->text, token->len) == 0) {
            bf_wipe_append(framer->text, token->text, token->len);
            end_value(framer, is_key, false);
            return;
        }
    }
    shown = bf_framer_show(token->text, token->len, false);
    framer->error =
        g_strdup_printf("JSON parse error, invalid keyword '%s'", shown);
}

static void
take_value(BfFramer *framer, const Token *token, char c)
{
    bool is_key = wants_key(framer);

    if ((c == ']' && framer->expect == BF_FRAMER_EXPECT_VALUE_OR_END) ||
        (c == '}' && framer->expect == BF_FRAMER_EXPECT_KEY_OR_END)) {
        close_level(framer, c);
    } else if (c == '{' || c == '[') {
        open_level(framer, c, is_key);
    } else if (token->kind == TOKEN_STRING) {
        take_string(framer, token, is_key);
    } else if (token->kind == TOKEN_INTEGER || token->kind == TOKEN_FLOAT) {
        bf_framer_convert_number(token->text, token->len,
                                 token->kind == TOKEN_FLOAT, framer->text);
        end_value(framer, is_key, false);
    } else if (token->kind == TOKEN_KEYWORD) {
        take_keyword(framer, token, is_key);
    } else {
        set_error(framer, "expecting value");
    }
}

static void
take_separator(BfFramer *framer, char c)
{
    bool is_object =
        (framer->levels[framer->depth - 1] & BF_FRAMER_LEVEL_IS_OBJECT) != 0;

    if (c == (is_object ? '}' : ']')) {
        close_level(framer, c);
    } else if (c == ',') {
        framer->expect =
            is_object ? BF_FRAMER_EXPECT_KEY : BF_FRAMER_EXPECT_VALUE;
        append_c(framer->text, c);
    } else {
        set_error(framer, is_object ? "expected separator in dict"
                                    : "expected separator in list");
    }
}

static void
take_token(BfFramer *framer, const Token *token)
{
    char c = token->kind == TOKEN_PUNCTUATION ? token->text[0] : '\0';

    if (framer->expect == BF_FRAMER_EXPECT_COLON) {
        if (c == ':') {
            framer->expect = BF_FRAMER_EXPECT_VALUE;
            append_c(framer->text, c);
        } else {
            set_error(framer, "missing : in object pair");
        }
    } else if (framer->expect == BF_FRAMER_EXPECT_SEPARATOR) {
        take_separator(framer, c);
    } else {
        take_value(framer, token, c);
    }
}

/* Limits and balance. */

static void
count_bracket(BfFramer *framer, char c)
{
    framer->braces += (c == '{') - (c == '}');
    framer->brackets += (c == '[') - (c == ']');
}

static bool
is_open(const BfFramer *framer)
{
    return (framer->braces > 0 || framer->brackets > 0) &&
           framer->braces >= 0 && framer->brackets >= 0;
}

static BfFrame *
fail_limit(BfFramer *framer, const char *text)
{
    int64_t braces = framer->braces;
    int64_t brackets = framer->brackets;
    BfFrame *frame = emit_error(framer, g_strdup(text));

    drop_token(framer);
    if (framer->lex != LEX_STRING && framer->lex != LEX_ESCAPE) {
        framer->lex = LEX_START;
    }
    framer->braces = braces;
    framer->brackets = brackets;
    framer->skipping = framer->lex != LEX_START || is_open(framer);
    if (!framer->skipping) {
        reset_value(framer);
    }
    return frame;
}

static BfFrame *
end_token(BfFramer *framer, const Token *token)
{
    framer->lex = LEX_START;
    if (token->kind == TOKEN_PUNCTUATION) {
        count_bracket(framer, token->text[0]);
    }
    framer->token_bytes += token->len;
    framer->token_count++;
    if (framer->token_bytes >= TOKEN_BYTES_MAX) {
        return fail_limit(framer, "JSON token size limit exceeded");
    }
    if (framer->token_count > TOKEN_COUNT_MAX) {
        return fail_limit(framer, "JSON token count limit exceeded");
    }
    if (framer->braces + framer->brackets > BF_FRAMER_NESTING_MAX) {
        return fail_limit(framer, "JSON nesting depth limit exceeded");
    }
    if (framer->error == NULL) {
        take_token(framer, token);
    }
    drop_token(framer);
    return is_open(framer) ? NULL : emit_value(framer);
}

/* Lexer. */

static Lex
lex_start(BfFramer *framer, uint8_t c)
{
    switch (c) {
    case ' ':
    case '\t':
    case '\r':
    case '\n':
        return LEX_START;
    case '"':
    case '\'':
        framer->quote = (char)c;
        return LEX_STRING;
    case '{':
    case '}':
    case '[':
    case ']':
    case ',':
    case ':':
        return TOKEN_PUNCTUATION;
    case '-':
        return LEX_SIGN;
    case '0':
        return LEX_ZERO;
    default:
        if (g_ascii_isdigit(c)) {
            return LEX_DIGITS;
        }
        return g_ascii_islower(c) ? LEX_KEYWORD : LEX_ERROR;
    }
}

/* Sets *ret_ahead if the token ended before @c. */
static Lex
lex_number(Lex lex, uint8_t c, bool *ret_ahead)
{
    bool is_digit = g_ascii_isdigit(c);

    switch (lex) {
    case LEX_SIGN:
        return c == '0' ? LEX_ZERO : is_digit ? LEX_DIGITS : LEX_ERROR;
    case LEX_POINT:
        return is_digit ? LEX_FRACTION : LEX_ERROR;
    case LEX_EXPONENT:
        if (c == '+' || c == '-') {
            return LEX_EXPONENT_SIGN;
        }
        G_GNUC_FALLTHROUGH;
    case LEX_EXPONENT_SIGN:
        return is_digit ? LEX_EXPONENT_DIGITS : LEX_ERROR;
    case LEX_ZERO:
        if (is_digit) {
            return LEX_ERROR;
        }
        break;
    default:
        if (is_digit) {
            return lex;
        }
    }
    if (c == '.' && (lex == LEX_ZERO || lex == LEX_DIGITS)) {
        return LEX_POINT;
    }
    if ((c == 'e' || c == 'E') && lex != LEX_EXPONENT_DIGITS) {
        return LEX_EXPONENT;
    }
    *ret_ahead = true;
    return lex == LEX_ZERO || lex == LEX_DIGITS ? TOKEN_INTEGER : TOKEN_FLOAT;
}

static Lex
lex_next(BfFramer *framer, uint8_t c, bool *ret_ahead)
{
    switch (framer->lex) {
    case LEX_START:
        return lex_start(framer, c);
    case LEX_STRING:
        if (c == (uint8_t)framer->quote) {
            return TOKEN_STRING;
        }
        if (c == '\\') {
            return LEX_ESCAPE;
        }
        G_GNUC_FALLTHROUGH;
    case LEX_ESCAPE:
        return bf_framer_is_control(c) ? LEX_ERROR : LEX_STRING;
    case LEX_KEYWORD:
        if (g_ascii_islower(c)) {
            return LEX_KEYWORD;
        }
        *ret_ahead = true;
        return TOKEN_KEYWORD;
    case LEX_RECOVERY:
        if ((bf_framer_is_control(c) && c != '\t') ||
            strchr("{}[],:", c) != NULL) {
            *ret_ahead = true;
            return LEX_START;
        }
        return LEX_RECOVERY;
    default:
        return lex_number(framer->lex, c, ret_ahead);
    }
}

static BfFrame *
fail_stray(BfFramer *framer)
{
    const size_t len = strnlen(framer->token->str, framer->token->len);
    const bool is_string =
        framer->quote != 0 && framer->token->str[0] == framer->quote;
    g_autofree char *shown = bf_framer_show(framer->token->str, len, is_string);

    drop_token(framer);
    framer->lex = LEX_RECOVERY;
    return emit_error(framer,
                      g_strdup_printf("JSON parse error, stray '%s'", shown));
}

/* Takes one byte, or leaves it for the next call after ending a token. */
static BfFrame *
lex_byte(BfFramer *framer, uint8_t c)
{
    bool is_ahead = false;
    Lex next = lex_next(framer, c, &is_ahead);

    if (!is_ahead) {
        framer->used++;
        if (next != LEX_START && next != LEX_RECOVERY) {
            append_c(framer->token, (char)c);
        }
    }
    if (next == LEX_ERROR) {
        return fail_stray(framer);
    }
    if (next > LEX_ERROR) {
        return end_token(
            framer, &(Token){next, framer->token->str, framer->token->len});
    }
    framer->lex = next;
    if (framer->token_bytes + framer->token->len >= TOKEN_BYTES_MAX) {
        return fail_limit(framer, "JSON token size limit exceeded");
    }
    return NULL;
}

/* Takes what is there of the inside of a string at once; it may be nothing. */
static void
lex_run(BfFramer *framer)
{
    const char *start = framer->input->str + framer->used;
    size_t room = TOKEN_BYTES_MAX - framer->token_bytes - framer->token->len;
    const char *end = start + MIN(framer->input->len - framer->used, room - 1);
    size_t n =
        (size_t)(bf_framer_scan_string(start, end, framer->quote) - start);

    bf_wipe_append(framer->token, start, n);
    framer->used += n;
    if (framer->token->len > STRING_PART_BYTES) {
        flush_string(framer);
    }
}

/* A token that is there as a whole, at the start of what is left of the input;
 * LEX_START if it takes a closer look. Sets @framer->quote. */
static Token
whole_token(BfFramer *framer)
{
    const char *at = framer->input->str + framer->used;
    const char *end = framer->input->str + framer->input->len;
    Token token = {.kind = lex_start(framer, (uint8_t)*at), .text = at};
    const char *token_end = NULL;
    bool is_float = false;

    switch (token.kind) {
    case TOKEN_PUNCTUATION:
        token_end = at + 1;
        break;
    case LEX_STRING:
        token_end = bf_framer_find_string_end(at, end);
        token.kind = TOKEN_STRING;
        break;
    case LEX_SIGN:
    case LEX_ZERO:
    case LEX_DIGITS:
        token_end = bf_framer_find_number_end(at, end, &is_float);
        token.kind = is_float ? TOKEN_FLOAT : TOKEN_INTEGER;
        break;
    default:
        break;
    }
    token.len = token_end != NULL ? (size_t)(token_end - at) : 0;
    if (token.len == 0 || framer->token_bytes + token.len >= TOKEN_BYTES_MAX) {
        token.kind = LEX_START;
    }
    return token;
}

/* Takes what is simple at once; it may be nothing. */
static void
take_run(BfFramer *framer)
{
    const size_t left = framer->input->len - framer->used;
    const size_t room = MIN(TOKEN_BYTES_MAX - 1 - framer->token_bytes,
                            TOKEN_COUNT_MAX - framer->token_count);
    char *at = framer->input->str + framer->used;
    char *end = at + MIN(left, room);
    const char behind = *end;
    BfFramerRun run = {.at = at,
                       .end = end,
                       .text = framer->text,
                       .levels = framer->levels,
                       .depth = framer->depth,
                       .floor = framer->in_id ? 2 : 1,
                       .expect = framer->expect};

    if (framer->error != NULL || run.depth < run.floor) {
        return;
    }
    *end = '\0';
    bf_framer_run(&run);
    *end = behind;
    framer->used += (size_t)(run.at - at);
    framer->token_bytes += (size_t)(run.at - at) - run.spaces;
    framer->token_count += run.tokens;
    framer->expect = run.expect;
    framer->braces += run.braces;
    framer->brackets += (int64_t)(run.depth - framer->depth) - run.braces;
    framer->depth = run.depth;
}

/* Follows a byte that is dropped as far as strings and brackets go. */
static void
skip_inside(BfFramer *framer, uint8_t c)
{
    if (framer->lex == LEX_ESCAPE) {
        framer->lex = LEX_STRING;
    } else if (framer->lex == LEX_STRING) {
        if (c == '\\') {
            framer->lex = LEX_ESCAPE;
        } else if (c == (uint8_t)framer->quote) {
            framer->lex = LEX_START;
        }
    } else if (c == '"' || c == '\'') {
        framer->quote = (char)c;
        framer->lex = LEX_STRING;
    } else {
        count_bracket(framer, (char)c);
    }
}

/* Drops a byte of a value beyond a limit, or ends that. */
static void
skip_byte(BfFramer *framer, uint8_t c)
{
    bool is_end = bf_framer_is_control(c) && c != '\t';

    if (!is_end) {
        framer->used++;
        skip_inside(framer, c);
        is_end = framer->lex == LEX_START && !is_open(framer);
    }
    if (is_end) {
        framer->skipping = false;
        framer->lex = LEX_START;
        reset_value(framer);
    }
}

BfFrame *
bf_framer_next(BfFramer *framer)
{
    BfFrame *frame = NULL;

    while (frame == NULL && framer->used < framer->input->len) {
        uint8_t c = (uint8_t)framer->input->str[framer->used];

        if (framer->skipping) {
            skip_byte(framer, c);
            continue;
        }
        if (framer->lex == LEX_START) {
            Token token;

            take_run(framer);
            if (framer->used == framer->input->len) {
                break;
            }
            c = (uint8_t)framer->input->str[framer->used];
            token = whole_token(framer);
            if (token.kind != LEX_START) {
                framer->used += token.len;
                frame = end_token(framer, &token);
                continue;
            }
        }
        if (framer->lex == LEX_STRING) {
            lex_run(framer);
            if (framer->used == framer->input->len) {
                break;
            }
            c = (uint8_t)framer->input->str[framer->used];
        }
        frame = lex_byte(framer, c);
    }
    if (framer->used == framer->input->len) {
        bf_wipe_truncate(framer->input, 0);
        framer->used = 0;
    }
    return frame;
}
