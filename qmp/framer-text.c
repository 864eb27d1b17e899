/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Source tokens to strict JSON text: quotes, escapes, UTF-8 and numbers by
 * QEMU's rules. Whatever leaves this file must be acceptable to jansson. What
 * it writes may be secret, so room is reserved (core/wipe.h) before.
 */
#include "qmp/framer-private.h"

#include <math.h>
#include <string.h>

#include "core/wipe.h"
#include "qmp/json-scan.h"
#include "qmp/json-value.h"
#include "qmp/json-write.h"

#define STRAY_BYTES_MAX 60 /* of bad input that is shown */
#define MARK_LEN (sizeof(BF_JSON_MARK) - 1)
/* Longer numbers are rounded here, not in jansson. */
#define NUMBER_BYTES_MAX 400
/* So many digits make no infinity. */
#define SMALL_BYTES_MAX 200

/* Converted at a time. Nothing becomes more than twice as long. */
#define PART_BYTES 4096

/* Returns how many bytes were written to @to. */
static inline size_t
put_char(char *to, gunichar c, bool is_key)
{
    static const char hex[] = "0123456789ABCDEF";
    static const char letters[] = {
        ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};

    if (c == 0 && is_key) {
        memcpy(to, BF_JSON_MARK, MARK_LEN);
        return MARK_LEN;
    }
    if (c >= 0x80) {
        return (size_t)g_unichar_to_utf8(c, to);
    }
    if (c >= 0x20 && c != '"' && c != '\\') {
        to[0] = (char)c;
        return 1;
    }
    to[0] = '\\';
    if (c >= 0x20) {
        to[1] = (char)c;
        return 2;
    }
    if (c < sizeof(letters) && letters[c] != 0) {
        to[1] = letters[c];
        return 2;
    }
    memcpy(to + 1, "u00", 3);
    to[4] = hex[c >> 4];
    to[5] = hex[c & 15];
    return 6;
}

/* The value of 4 hexadecimal digits, or -1. */
static int
parse_hex4(const char *text, const char *end)
{
    int value = 0;

    if (end - text < 4) {
        return -1;
    }
    for (int i = 0; i < 4; i++) {
        int digit = g_ascii_isdigit(text[i]) ? text[i] - '0'
                                             : g_ascii_xdigit_value(text[i]);

        if (digit < 0) {
            return -1;
        }
        value = value * 16 + digit;
    }
    return value;
}

/* @at: behind the \u. Moves it behind the escape, also on failure. */
static gint64
parse_unicode_escape(const char **at, const char *end)
{
    gint64 c = parse_hex4(*at, end);
    int low;

    *at = MIN(*at + 4, end);
    if (c < 0xD800 || c > 0xDBFF || end - *at < 2 || memcmp(*at, "\\u", 2)) {
        return c;
    }
    low = parse_hex4(*at + 2, end);
    if (low < 0xDC00 || low > 0xDFFF) {
        return -1;
    }
    *at += 6;
    return 0x10000 + ((c & 0x3FF) << 10) + (low & 0x3FF);
}

/* @at: behind the backslash. Moves @to; returns NULL or a problem (transfer
 * full). */
static char *
convert_escape(const char **at, const char *end, bool is_key, char **to)
{
    static const char letters[] = {
        ['"'] = '"',  ['\''] = '\'', ['\\'] = '\\', ['/'] = '/', ['b'] = '\b',
        ['f'] = '\f', ['n'] = '\n',  ['r'] = '\r',  ['t'] = '\t'};
    const char *start = *at - 1;
    const uint8_t letter = (uint8_t) * *at;
    gint64 c;

    if (letter < sizeof(letters) && letters[letter] != 0) {
        (*at)++;
        *to += put_char(*to, (guchar)letters[letter], is_key);
        return NULL;
    }
    if (letter != 'u') {
        return g_strdup("invalid escape sequence in string");
    }
    (*at)++;
    c = parse_unicode_escape(at, end);
    if (!bf_framer_is_valid_char(c)) {
        /* Up to the closing quote, as QEMU shows it. */
        g_autofree char *shown = g_utf8_make_valid(start, *at - start);

        return g_strdup_printf("%s is not a valid Unicode character", shown);
    }
    *to += put_char(*to, (gunichar)c, is_key);
    return NULL;
}

/* Takes one character of more than one byte; C0 80 stands for NUL. */
static inline bool
convert_multibyte(const char **at, const char *end, bool is_key, char **to)
{
    uint32_t c = 0;
    const size_t n = bf_json_scan_char(*at, end, &c);

    if (n > 0) {
        for (size_t i = 0; i < n; i++) {
            (*to)[i] = (*at)[i];
        }
        *to += n;
        *at += n;
        return bf_framer_is_valid_char(c);
    }
    if (end - *at >= 2 && memcmp(*at, "\xC0\x80", 2) == 0) {
        *at += 2;
        *to += put_char(*to, 0, is_key);
        return true;
    }
    return false;
}

/* bf_framer_convert_string() of a part for which there is room at @to. */
static char *
convert_part(const char **at, const char *limit, const char *end, bool is_key,
             char **to)
{
    while (*at < limit) {
        const size_t run = bf_json_scan_plain(*at, limit, '"');

        memcpy(*to, *at, run);
        *to += run;
        *at += run;
        while (*at < limit && **at == '\\') {
            char *problem = NULL;

            (*at)++;
            problem = convert_escape(at, end, is_key, to);
            if (problem != NULL) {
                return problem;
            }
        }
        while (*at < limit && (guchar) * *at >= 0x80) {
            if (!convert_multibyte(at, end, is_key, to)) {
                return g_strdup("invalid UTF-8 sequence in string");
            }
        }
        if (*at < limit && (**at == '"' || (guchar) * *at < 0x20)) {
            *to += put_char(*to, (guchar) * *at, is_key);
            (*at)++;
        }
    }
    return NULL;
}

const char *
bf_framer_convert_string(const char *at, const char *limit, const char *end,
                         bool is_key, GString *out, char **ret_problem)
{
    char *problem = NULL;

    while (at < limit && problem == NULL) {
        const char *part = at + MIN(limit - at, PART_BYTES);
        char *to = NULL;

        bf_wipe_reserve(out,
                        2 * (size_t)(part - at) + BF_FRAMER_CHAR_BYTES_MAX);
        to = out->str + out->len;
        problem = convert_part(&at, part, end, is_key, &to);
        out->len = (size_t)(to - out->str);
        *to = '\0';
    }
    if (problem != NULL) {
        *ret_problem = problem;
        return NULL;
    }
    return at;
}

/* QEMU has infinity where a number is too large; JSON text cannot. */
static void
append_double(GString *out, const char *token)
{
    char buf[G_ASCII_DTOSTR_BUF_SIZE];
    double number = g_ascii_strtod(token, NULL);

    if (isinf(number)) {
        number = number > 0 ? G_MAXDOUBLE : -G_MAXDOUBLE;
    }
    g_ascii_formatd(buf, sizeof(buf), "%.17g", number);
    g_string_append(out, buf);
    if (strpbrk(buf, ".e") == NULL) {
        g_string_append(out, ".0"); /* so that it stays a float */
    }
}

/* Surely no infinity? */
static bool
is_small(const char *token, size_t len)
{
    return len <= SMALL_BYTES_MAX && memchr(token, 'e', len) == NULL &&
           memchr(token, 'E', len) == NULL;
}

/* The number of @len digits at @digits, if that fits. */
static bool
parse_digits(const char *digits, size_t len, uint64_t *ret_value)
{
    uint64_t value = 0;

    for (size_t i = 0; i < len; i++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (unsigned)(digits[i] - '0'),
                                   &value)) {
            return false;
        }
    }
    *ret_value = value;
    return true;
}

static void
convert_float(const char *token, size_t len, GString *out)
{
    if (is_small(token, len) ||
        (len <= NUMBER_BYTES_MAX && !isinf(g_ascii_strtod(token, NULL)))) {
        bf_wipe_append(out, token, len);
    } else {
        append_double(out, token);
    }
}

void
bf_framer_convert_number(const char *token, size_t len, bool is_float,
                         GString *out)
{
    const size_t sign = token[0] == '-';
    uint64_t value = 0;

    bf_wipe_reserve(out, len + G_ASCII_DTOSTR_BUF_SIZE);
    if (is_float) {
        convert_float(token, len, out);
    } else if (!parse_digits(token + sign, len - sign, &value)) {
        append_double(out, token);
    } else if (value <= (uint64_t)INT64_MAX + sign) {
        bf_wipe_append(out, token, len);
    } else if (sign > 0) {
        append_double(out, token);
    } else {
        g_string_append(out, "\"" BF_JSON_MARK);
        g_string_append_len(out, token, (gssize)len);
        g_string_append_c(out, '"');
    }
}

char *
bf_framer_show(const char *text, size_t len, bool is_string)
{
    const size_t most = is_string ? 1 : STRAY_BYTES_MAX;
    g_autofree char *valid = g_utf8_make_valid(text, (gssize)MIN(len, most));

    return g_strconcat(valid, len > most || is_string ? "..." : NULL, NULL);
}

/* @at: the opening quote. Returns what follows the string. */
static const char *
echo_string(GString *out, const char *at)
{
    if (strncmp(at + 1, BF_JSON_MARK, MARK_LEN) == 0 &&
        g_ascii_isdigit(at[1 + MARK_LEN])) {
        const char *digits = at + 1 + MARK_LEN;
        size_t n = strspn(digits, "0123456789");

        /* A key can begin with the mark too, but only a number is all that */
        if (digits[n] == '"' && digits[n + 1] != ':') {
            g_string_append_len(out, digits, (gssize)n);
            return digits + n + 1;
        }
    }
    g_string_append_c(out, *at++);
    while (*at != '"') {
        const char *run = at;
        gunichar c;

        while (*at != '"' && *at != '\\' && (guchar)*at < 0x7F) {
            at++;
        }
        g_string_append_len(out, run, at - run);
        if (*at == '\\') {
            g_string_append_len(out, at, 2);
            at += 2;
        } else if (*at != '"') {
            c = g_utf8_get_char(at);
            bf_json_write_escape(out, c == 0xFFFF ? 0 : c);
            at = g_utf8_next_char(at);
        }
    }
    g_string_append_c(out, *at++);
    return at;
}

char *
bf_framer_echo(const char *text, size_t len)
{
    GString *out = g_string_sized_new(len + len / 8);
    const char *end = text + len;

    while (text < end) {
        if (*text == '"') {
            text = echo_string(out, text);
            continue;
        }
        g_string_append_c(out, *text);
        if (*text == ',' || *text == ':') {
            g_string_append_c(out, ' ');
        }
        text++;
    }
    return g_string_free(out, false);
}
