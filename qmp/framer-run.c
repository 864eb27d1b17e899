/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The framer's quick way: as many tokens as are there as a whole and right
 * where they stand. It must come to the same as the way through framer.c, and
 * leaves to that whatever is wrong, cut off, near a limit or of more meaning
 * than its text. What it has in hand is kept in registers.
 */
#include <string.h>

#include "core/wipe.h"
#include "qmp/framer-private.h"
#include "qmp/json-scan.h"

#define INTEGER_CHARS_SAFE 18 /* what is no longer fits 64 bits */

/* All that is done for each token is one function for the compiler, which has
 * no need then to keep a run in memory. */
#define QUICK static inline __attribute__((always_inline))

typedef BfFramerRun Run;

QUICK bool
is_object(const Run *run)
{
    return (run->levels[run->depth - 1] & BF_FRAMER_LEVEL_IS_OBJECT) != 0;
}

QUICK bool
is_key(const Run *run)
{
    return run->expect == BF_FRAMER_EXPECT_KEY ||
           run->expect == BF_FRAMER_EXPECT_KEY_OR_END;
}

QUICK void
put_char(Run *run, char c)
{
    *run->to++ = c;
    run->at++;
    run->tokens++;
}

/* A string or scalar up to @end is taken. */
QUICK bool
end_value(Run *run, const char *end, bool is_a_key)
{
    run->at = end;
    run->tokens++;
    run->expect =
        is_a_key ? BF_FRAMER_EXPECT_COLON : BF_FRAMER_EXPECT_SEPARATOR;
    return true;
}

QUICK bool
put_value(Run *run, const char *end, bool is_a_key)
{
    const size_t len = (size_t)(end - run->at);

    memcpy(run->to, run->at, len);
    run->to += len;
    return end_value(run, end, is_a_key);
}

QUICK bool
open_level(Run *run, char c)
{
    if (is_key(run) || run->depth == BF_FRAMER_NESTING_MAX) {
        return false;
    }
    run->levels[run->depth++] = c == '{' ? BF_FRAMER_LEVEL_IS_OBJECT : 0;
    run->expect =
        c == '{' ? BF_FRAMER_EXPECT_KEY_OR_END : BF_FRAMER_EXPECT_VALUE_OR_END;
    *(c == '{' ? &run->braces : &run->brackets) += 1;
    put_char(run, c);
    return true;
}

QUICK bool
close_level(Run *run, char c)
{
    const uint8_t level = run->levels[run->depth - 1];

    if (run->depth == run->floor || (level & BF_FRAMER_LEVEL_IS_KEY) != 0 ||
        c != ((level & BF_FRAMER_LEVEL_IS_OBJECT) != 0 ? '}' : ']')) {
        return false;
    }
    run->depth--;
    *(c == '}' ? &run->braces : &run->brackets) -= 1;
    run->expect = BF_FRAMER_EXPECT_SEPARATOR;
    put_char(run, c);
    return true;
}

/* What a token in another form has made longer must not cost others room. */
static void
reserve(Run *run)
{
    bf_wipe_reserve(run->text,
                    (size_t)(run->end - run->at) + BF_FRAMER_RUN_SLACK);
    run->to = run->text->str + run->text->len;
}

static void
give_text_back(Run *run)
{
    run->text->len = (size_t)(run->to - run->text->str);
    *run->to = '\0';
}

/* A string with escapes, single quotes or what else is not kept as it is. */
static bool
take_other_string(Run *run, bool is_a_key)
{
    const char *end = bf_framer_find_string_end(run->at, run->end);
    size_t before = 0;
    char *problem = NULL;

    if (end == NULL || (is_a_key && run->depth == 1)) {
        return false;
    }
    give_text_back(run);
    before = run->text->len;
    bf_wipe_append(run->text, "\"", 1);
    if (bf_framer_convert_string(run->at + 1, end - 1, end, is_a_key, run->text,
                                 &problem) == NULL) {
        g_free(problem); /* it will be found again */
        bf_wipe_truncate(run->text, before);
        reserve(run);
        return false;
    }
    bf_wipe_append(run->text, "\"", 1);
    end_value(run, end, is_a_key);
    reserve(run);
    return true;
}

QUICK bool
take_string(Run *run, bool is_a_key)
{
    const char *start = run->at + 1;
    const char *at = start + bf_json_scan_plain(start, run->end, '"');

    if (at == run->end) {
        return false;
    }
    if (*run->at != '"' || *at != '"') {
        Run other = *run;
        const bool is_taken = take_other_string(&other, is_a_key);

        *run = other;
        return is_taken;
    }
    if (is_a_key && run->depth == 1 && at - start == 2 && start[0] == 'i' &&
        start[1] == 'd') {
        return false;
    }
    return put_value(run, at + 1, is_a_key);
}

/* A number that is not a short integer. */
static bool
take_other_number(Run *run)
{
    bool is_float = false;
    const char *end = bf_framer_find_number_end(run->at, run->end, &is_float);

    if (end == NULL) {
        return false;
    }
    give_text_back(run);
    bf_framer_convert_number(run->at, (size_t)(end - run->at), is_float,
                             run->text);
    end_value(run, end, false);
    reserve(run);
    return true;
}

QUICK bool
is_digit(char c)
{
    return (uint8_t)(c - '0') < 10;
}

QUICK bool
take_number(Run *run)
{
    const size_t left = (size_t)(run->end - run->at);
    const size_t sign = *run->at == '-';
    size_t len = sign;

    /* Written while it is looked at: what is not a number is overwritten. */
    *run->to = '-';
    while (len < left && len < INTEGER_CHARS_SAFE && is_digit(run->at[len])) {
        run->to[len] = run->at[len];
        len++;
    }
    if (len == left || len == sign) {
        return false;
    }
    if (is_digit(run->at[len]) || run->at[len] == '.' || run->at[len] == 'e' ||
        run->at[len] == 'E') {
        Run other = *run;
        const bool is_taken = take_other_number(&other);

        *run = other;
        return is_taken;
    }
    if (run->at[sign] == '0' && len > sign + 1) {
        return false;
    }
    run->to += len;
    return end_value(run, run->at + len, false);
}

QUICK bool
take_word(Run *run, const char *word, size_t len)
{
    const size_t left = (size_t)(run->end - run->at);

    return left > len && memcmp(run->at, word, len) == 0 &&
           !g_ascii_islower(run->at[len]) &&
           put_value(run, run->at + len, false);
}

QUICK bool
take_value(Run *run, char c)
{
    const bool is_a_key = is_key(run);

    if (c == '"' || c == '\'') {
        return take_string(run, is_a_key);
    }
    if (c == '{' || c == '[') {
        return open_level(run, c);
    }
    if (c == '}' || c == ']') {
        return (run->expect == BF_FRAMER_EXPECT_KEY_OR_END ||
                run->expect == BF_FRAMER_EXPECT_VALUE_OR_END) &&
               close_level(run, c);
    }
    if (is_a_key) {
        return false;
    }
    switch (c) {
    case 't':
        return take_word(run, "true", 4);
    case 'f':
        return take_word(run, "false", 5);
    case 'n':
        return take_word(run, "null", 4);
    default:
        return take_number(run);
    }
}

/* The comma that mostly follows. */
QUICK void
take_comma(Run *run)
{
    if (run->expect == BF_FRAMER_EXPECT_SEPARATOR && run->at < run->end &&
        *run->at == ',' && run->tokens < run->tokens_max) {
        run->expect =
            is_object(run) ? BF_FRAMER_EXPECT_KEY : BF_FRAMER_EXPECT_VALUE;
        put_char(run, ',');
    }
}

QUICK bool
take_token(Run *run)
{
    const char c = *run->at;

    if (run->expect == BF_FRAMER_EXPECT_COLON) {
        if (c != ':') {
            return false;
        }
        run->expect = BF_FRAMER_EXPECT_VALUE;
        put_char(run, c);
        return true;
    }
    if (run->expect != BF_FRAMER_EXPECT_SEPARATOR) {
        return take_value(run, c);
    }
    if (c != ',') {
        return close_level(run, c);
    }
    run->expect =
        is_object(run) ? BF_FRAMER_EXPECT_KEY : BF_FRAMER_EXPECT_VALUE;
    put_char(run, c);
    return true;
}

void
bf_framer_run(BfFramerRun *run)
{
    Run now;

    reserve(run);
    now = *run;
    for (;;) {
        const char *start = now.at;

        while (now.at < now.end && (*now.at == ' ' || *now.at == '\n' ||
                                    *now.at == '\r' || *now.at == '\t')) {
            now.at++;
        }
        now.spaces += (size_t)(now.at - start);
        if (now.at == now.end || now.tokens == now.tokens_max ||
            !take_token(&now)) {
            break;
        }
        take_comma(&now);
    }
    *run = now;
    give_text_back(run);
}
