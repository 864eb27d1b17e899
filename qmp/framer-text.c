/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Source tokens to strict JSON text: quotes, escapes, UTF-8 and numbers by
 * QEMU's rules. Whatever leaves this file must be acceptable to jansson. What
 * it writes may be secret, so room is reserved (core/wipe.h) before.
 */
#include "qmp/framer-private.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "core/wipe.h"
#include "qmp/json-scan.h"
#include "qmp/json-value.h"
#include "qmp/json-write.h"

#define MARK_LEN (sizeof(BF_JSON_MARK) - 1)
/* Longer numbers are rounded here, not in jansson. */
#define NUMBER_BYTES_MAX 400
/* What is no longer fits 64 bits. */
#define INTEGER_CHARS_SAFE 18

/* QEMU allows no surrogates and no noncharacters. */
static bool
is_valid_char(gint64 c)
{
    return c >= 0 && c <= 0x10FFFF && !(c >= 0xD800 && c <= 0xDFFF) &&
           !(c >= 0xFDD0 && c <= 0xFDEF) && (c & 0xFFFE) != 0xFFFE;
}

/* Appends few bytes, without a call if there is room. */
static inline void
append_few(GString *out, const char *bytes, size_t len)
{
    if (out->allocated_len - out->len <= len) {
        bf_wipe_reserve(out, len);
    }
    for (size_t i = 0; i < len; i++) {
        out->str[out->len + i] = bytes[i];
    }
    out->len += len;
    out->str[out->len] = '\0';
}

static void
append_char(GString *out, gunichar c, bool is_key)
{
    static const char hex[] = "0123456789ABCDEF";
    char text[6] = "\\u00";
    size_t len = 0;

    if (c == '"' || c == '\\') {
        text[1] = (char)c;
        len = 2;
    } else if (c == 0 && is_key) {
        len = MARK_LEN;
        memcpy(text, BF_JSON_MARK, MARK_LEN);
    } else if (c < 0x20) {
        text[4] = hex[c >> 4];
        text[5] = hex[c & 15];
        len = 6;
    } else {
        len = (size_t)g_unichar_to_utf8(c, text);
    }
    append_few(out, text, len);
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

/* @at: behind the backslash. Returns NULL or a problem (transfer full). */
static char *
convert_escape(const char **at, const char *end, bool is_key, GString *out)
{
    static const char from[] = "\"'\\/bfnrt";
    static const char to[] = "\"'\\/\b\f\n\r\t";
    const char *start = *at - 1;
    const char *known = strchr(from, **at);
    gint64 c;

    if (known != NULL && **at != '\0') {
        (*at)++;
        append_char(out, (guchar)to[known - from], is_key);
        return NULL;
    }
    if (**at != 'u') {
        return g_strdup("invalid escape sequence in string");
    }
    (*at)++;
    c = parse_unicode_escape(at, end);
    if (!is_valid_char(c)) {
        /* Up to the closing quote, as QEMU shows it. */
        g_autofree char *shown = g_utf8_make_valid(start, *at - start);

        return g_strdup_printf("%s is not a valid Unicode character", shown);
    }
    append_char(out, (gunichar)c, is_key);
    return NULL;
}

/* Takes one character of more than one byte; C0 80 stands for NUL. */
static bool
convert_multibyte(const char **at, const char *end, bool is_key, GString *out)
{
    gunichar c;

    if (end - *at >= 2 && memcmp(*at, "\xC0\x80", 2) == 0) {
        *at += 2;
        append_char(out, 0, is_key);
        return true;
    }
    c = g_utf8_get_char_validated(*at, end - *at);
    if (c >= (gunichar)-2 || !is_valid_char(c)) {
        return false;
    }
    append_few(out, *at, (size_t)g_utf8_skip[(guchar)(*at)[0]]);
    *at = g_utf8_next_char(*at);
    return true;
}

const char *
bf_framer_convert_string(const char *at, const char *limit, const char *end,
                         bool is_key, GString *out, char **ret_problem)
{
    char *problem = NULL;

    while (at < limit && problem == NULL) {
        const size_t run = bf_json_scan_plain(at, limit);

        if (run > 0) {
            bf_wipe_append(out, at, run);
            at += run;
        }
        if (at == limit) {
            break;
        }
        if (*at == '\\') {
            at++;
            problem = convert_escape(&at, end, is_key, out);
        } else if ((guchar)*at < 0x80) {
            append_char(out, (guchar)*at++, is_key);
        } else if (!convert_multibyte(&at, end, is_key, out)) {
            problem = g_strdup("invalid UTF-8 sequence in string");
        }
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

void
bf_framer_convert_number(const char *token, size_t len, bool is_float,
                         GString *out)
{
    if (!is_float && len <= INTEGER_CHARS_SAFE) {
        bf_wipe_append(out, token, len);
        return;
    }
    bf_wipe_reserve(out, len + G_ASCII_DTOSTR_BUF_SIZE);
    if (is_float) {
        if (len > NUMBER_BYTES_MAX || isinf(g_ascii_strtod(token, NULL))) {
            append_double(out, token);
        } else {
            g_string_append_len(out, token, (gssize)len);
        }
        return;
    }
    errno = 0;
    g_ascii_strtoll(token, NULL, 10);
    if (errno == 0) {
        g_string_append_len(out, token, (gssize)len);
        return;
    }
    errno = 0;
    g_ascii_strtoull(token, NULL, 10);
    if (token[0] != '-' && errno == 0) {
        g_string_append_printf(out, "\"" BF_JSON_MARK "%s\"", token);
    } else {
        append_double(out, token);
    }
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
    GString *out = g_string_new(NULL);
    const char *end = text + len;

    while (text < end) {
        if (*text == '"') {
            text = echo_string(out, text);
        } else {
            g_string_append_c(out, *text++);
        }
    }
    return g_string_free(out, false);
}
