/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The framer's quick way: as many tokens as are there as a whole and right
 * where they stand. It must come to the same as the way through framer.c, and
 * leaves to that whatever is wrong, cut off, near a limit or of more meaning
 * than its text. Most of the input is looked at only, and copied at once where
 * something else comes between. What changes with each token is kept in
 * registers.
 */
#include <string.h>

#include "core/wipe.h"
#include "qmp/framer-private.h"
#include "qmp/json-scan.h"

/* All that is done for each token is one function for the compiler, which has
 * no need then to keep a cursor in memory. */
#define QUICK static inline __attribute__((always_inline))

/* What each token changes. */
typedef struct Cursor {
    char *at;
    uint8_t *level; /* flags of the innermost one that is open */
    BfFramerExpect expect;
    size_t tokens;
    BfFramerRun *run; /* all else; @at is behind there */
} Cursor;

/* As memcpy(), which takes longer to be called: at most 16 bytes. */
QUICK void
copy_short(char *to, const char *from, size_t len)
{
    if (len >= 8) {
        memcpy(to, from, 8);
        memcpy(to + len - 8, from + len - 8, 8);
    } else if (len >= 4) {
        memcpy(to, from, 4);
        memcpy(to + len - 4, from + len - 4, 4);
    } else if (len >= 2) {
        memcpy(to, from, 2);
        memcpy(to + len - 2, from + len - 2, 2);
    } else if (len == 1) {
        *to = *from;
    }
}

/* Puts what was taken as it stands into the text. */
QUICK void
put_kept(BfFramerRun *run, const char *at)
{
    const size_t len = (size_t)(at - run->kept);
    GString *text = run->text;

    if (len > 16 || text->allocated_len - text->len <= len) {
        bf_wipe_append(text, run->kept, len);
    } else {
        copy_short(text->str + text->len, run->kept, len);
        text->len += len;
        text->str[text->len] = '\0';
    }
    run->kept = at;
}

/* Returns what follows them. */
static char *
skip_spaces(BfFramerRun *run, char *at)
{
    put_kept(run, at);
    while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t') {
        at++;
    }
    run->spaces += (size_t)(at - run->kept);
    run->kept = at;
    return at;
}

/* The byte that begins the next token. */
QUICK char
next_char(Cursor *now)
{
    if ((uint8_t)*now->at <= ' ') {
        now->at = skip_spaces(now->run, now->at);
    }
    return *now->at;
}

/* A token up to @end is taken. */
QUICK bool
take(Cursor *now, char *end, BfFramerExpect expect)
{
    now->at = end;
    now->tokens++;
    now->expect = expect;
    return true;
}

/* Levels. */

QUICK bool
open_level(Cursor *now, char c)
{
    if (now->level == now->run->levels + BF_FRAMER_NESTING_MAX - 1) {
        return false;
    }
    *++now->level = c == '{' ? BF_FRAMER_LEVEL_IS_OBJECT : 0;
    now->run->braces += c == '{';
    return take(now, now->at + 1,
                c == '{' ? BF_FRAMER_EXPECT_KEY_OR_END
                         : BF_FRAMER_EXPECT_VALUE_OR_END);
}

QUICK bool
close_level(Cursor *now, char c)
{
    const uint8_t level = *now->level;

    /* The framer sees to one that stands where a key should. */
    if (c != (level == BF_FRAMER_LEVEL_IS_OBJECT ? '}' : ']') ||
        (level & BF_FRAMER_LEVEL_IS_KEY) != 0 ||
        now->level == now->run->levels + now->run->floor - 1) {
        return false;
    }
    now->level--;
    now->run->braces -= c == '}';
    return take(now, now->at + 1, BF_FRAMER_EXPECT_SEPARATOR);
}

/* Scalars. */

/* Does a letter make an escape that strict text has, too, and prefers? */
static bool
is_kept_escape(char c)
{
    return c == '"' || c == '\\' || c == 'n' || c == 't' || c == 'r' ||
           c == 'b' || c == 'f';
}

/* From what is not plain on: moves to what cannot stay as it is, or the quote.
 */
static const char *
skip_other(const char *at, const char *end)
{
    for (;;) {
        uint32_t c = 0;
        size_t n = 0;

        if (*at == '\\') {
            n = is_kept_escape(at[1]) ? 2 : 0;
        } else if ((uint8_t)*at >= 0x80) {
            n = bf_json_scan_char(at, end, &c);
            n = bf_framer_is_valid_char(c) ? n : 0;
        }
        if (n == 0) {
            return at;
        }
        at += n;
        at += bf_json_scan_plain(at, end, '"');
    }
}

/* Converts a string with single quotes, escapes or what else cannot stay as it
 * is. Returns what follows it, or NULL. */
static char *
put_string(BfFramerRun *run, char *at, bool is_key)
{
    const char *end = bf_framer_find_string_end(at, run->end);
    size_t before = 0;
    char *problem = NULL;

    if (end == NULL) {
        return NULL;
    }
    put_kept(run, at);
    before = run->text->len;
    bf_wipe_reserve(run->text, 1);
    g_string_append_c(run->text, '"');
    if (bf_framer_convert_string(at + 1, end - 1, end, is_key, run->text,
                                 &problem) == NULL) {
        g_free(problem); /* it will be found again */
        bf_wipe_truncate(run->text, before);
        return NULL;
    }
    bf_wipe_reserve(run->text, 1);
    g_string_append_c(run->text, '"');
    run->kept = end;
    return at + (end - at);
}

/* Converts a number that is not a short one. Returns what follows it, or NULL.
 */
static char *
put_number(BfFramerRun *run, char *at)
{
    bool is_float = false;
    const char *end = bf_framer_find_number_end(at, run->end, &is_float);

    if (end == NULL) {
        return NULL;
    }
    put_kept(run, at);
    bf_framer_convert_number(at, (size_t)(end - at), is_float, run->text);
    run->kept = end;
    return at + (end - at);
}

/* Behind a string that stays as it is, or NULL. */
QUICK char *
skip_string(char *at, const char *end)
{
    at++;
    at += bf_json_scan_plain(at, end, '"');
    if (*at != '"') {
        at += skip_other(at, end) - at;
    }
    return *at == '"' ? at + 1 : NULL;
}

/* Gives a string with single quotes double ones where it stands, so that it can
 * stay there. Returns what follows it, or NULL if there is more to convert. */
QUICK char *
requote_string(char *at, const char *end)
{
    const size_t len = bf_json_scan_plain(at + 1, end, '\'');
    char *close = at + 1 + len;

    if (*close != '\'' || memchr(at + 1, '"', len) != NULL) {
        return NULL;
    }
    *at = '"';
    *close = '"';
    return close + 1;
}

/* Behind a number that stays as it is, or NULL. */
QUICK char *
skip_number(char *at, size_t sign)
{
    bool is_real = false;
    const char *end = bf_json_skip_number(at + sign, &is_real);

    return end != NULL ? at + (end - at) : NULL;
}

QUICK char *
skip_word(char *at, const char *end, const char *word, size_t len)
{
    return (size_t)(end - at) > len && memcmp(at, word, len) == 0 ? at + len
                                                                  : NULL;
}

QUICK bool
is_digit(char c)
{
    return (uint8_t)(c - '0') < 10;
}

/* Surely ends a number or word? */
QUICK bool
is_end(char c)
{
    return c == ',' || c == ']' || c == '}' || c == ' ' || c == '\n' ||
           c == '\r' || c == '\t';
}

/* Behind a scalar that stays as it is, or NULL. What ends it is not looked at.
 */
QUICK char *
skip_scalar(char *at, const char *end)
{
    if (is_digit(*at)) {
        return skip_number(at, 0);
    }
    switch (*at) {
    case '"':
        return skip_string(at, end);
    case '\'':
        return requote_string(at, end);
    case '-':
        return is_digit(at[1]) ? skip_number(at, 1) : NULL;
    case 't':
        return skip_word(at, end, "true", 4);
    case 'f':
        return skip_word(at, end, "false", 5);
    case 'n':
        return skip_word(at, end, "null", 4);
    default:
        return NULL;
    }
}

/* Takes elements of an array that stay as they are and have their commas next
 * to them: most of a large array is that. Returns what follows the one that
 * comes next, as skip_scalar() does. */
QUICK char *
take_elements(Cursor *now)
{
    const char *end = now->run->end;
    char *stop = NULL;

    for (;;) {
        (void)next_char(now);
        stop = skip_scalar(now->at, end);
        if (stop == NULL || *stop != ',') {
            return stop;
        }
        now->at = stop + 1;
        now->tokens += 2;
        now->expect = BF_FRAMER_EXPECT_VALUE;
    }
}

/* Converts another scalar. Returns what follows it, or NULL. */
static char *
put_scalar(BfFramerRun *run, char *at)
{
    if (*at == '"' || *at == '\'') {
        return put_string(run, at, false);
    }
    return is_digit(*at) || *at == '-' ? put_number(run, at) : NULL;
}

/* Each of the following takes what it is for if that is expected. It returns
 * false if what comes is something else, or is not simple. */

/* Is a key of the outermost object surely not "id"? */
static bool
is_other_than_id(const BfFramerRun *run, const char *at)
{
    const char *end = at + 1 + bf_json_scan_plain(at + 1, run->end, '"');

    return *at == '"' && *end == '"' && strncmp(at, "\"id\"", 4) != 0;
}

QUICK bool
take_key(Cursor *now)
{
    char *end = NULL;
    char c = '\0';

    if (now->expect != BF_FRAMER_EXPECT_KEY &&
        now->expect != BF_FRAMER_EXPECT_KEY_OR_END) {
        return true;
    }
    c = next_char(now);
    if (c == '}') {
        return now->expect == BF_FRAMER_EXPECT_KEY_OR_END &&
               close_level(now, c);
    }
    if (now->level == now->run->levels &&
        !is_other_than_id(now->run, now->at)) {
        return false;
    }
    if (c != '"' && c != '\'') {
        return false;
    }
    end = c == '"' ? skip_string(now->at, now->run->end)
                   : requote_string(now->at, now->run->end);
    if (end == NULL) {
        end = put_string(now->run, now->at, true);
    }
    return end != NULL && take(now, end, BF_FRAMER_EXPECT_COLON);
}

QUICK bool
take_colon(Cursor *now)
{
    return now->expect != BF_FRAMER_EXPECT_COLON ||
           (next_char(now) == ':' &&
            take(now, now->at + 1, BF_FRAMER_EXPECT_VALUE));
}

QUICK bool
take_value(Cursor *now)
{
    char *end = NULL;
    char c = '\0';

    if (now->expect != BF_FRAMER_EXPECT_VALUE &&
        now->expect != BF_FRAMER_EXPECT_VALUE_OR_END) {
        return true;
    }
    c = next_char(now);
    while (c == '[') {
        if (!open_level(now, c)) {
            return false;
        }
        c = next_char(now);
    }
    if (c == '{') {
        return open_level(now, c);
    }
    if (c == ']') {
        return now->expect == BF_FRAMER_EXPECT_VALUE_OR_END &&
               close_level(now, c);
    }
    end = *now->level == 0 ? take_elements(now)
                           : skip_scalar(now->at, now->run->end);
    if (end == NULL && (*now->at == '[' || *now->at == '{')) {
        return true; /* the next turn takes it */
    }
    if (end == NULL || !is_end(*end)) {
        end = put_scalar(now->run, now->at);
    }
    return end != NULL && take(now, end, BF_FRAMER_EXPECT_SEPARATOR);
}

/* Takes brackets that close, up to a comma, which is taken too. */
QUICK bool
take_separators(Cursor *now)
{
    while (now->expect == BF_FRAMER_EXPECT_SEPARATOR) {
        const char c = next_char(now);

        if (c == ',') {
            return take(now, now->at + 1,
                        (*now->level & BF_FRAMER_LEVEL_IS_OBJECT) != 0
                            ? BF_FRAMER_EXPECT_KEY
                            : BF_FRAMER_EXPECT_VALUE);
        }
        if (!close_level(now, c)) {
            return false;
        }
    }
    return true;
}

void
bf_framer_run(BfFramerRun *run)
{
    Cursor now = {.at = run->at,
                  .level = run->levels + run->depth - 1,
                  .expect = run->expect,
                  .run = run};

    run->kept = run->at;
    while (take_key(&now) && take_colon(&now) && take_value(&now) &&
           take_separators(&now)) {
    }
    put_kept(run, now.at);
    run->at = now.at;
    run->depth = (size_t)(now.level - run->levels) + 1;
    run->expect = now.expect;
    run->tokens = now.tokens;
}
