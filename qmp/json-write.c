/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON values to text. The value's nesting is kept on a stack of our own, since
 * a client may send (and get back) 1024 levels.
 *
 * A value may hold a secret, so compact text is written into room that was
 * reserved before (core/wipe.h).
 */
#include "qmp/json-write.h"

#include <string.h>

#include "core/wipe.h"
#include "qmp/json-value.h"

#define REPLACEMENT 0xFFFD
#define NUL_IN_KEY 0xFFFF /* how the framer writes U+0000 in a key */
/* Reserved for a scalar that is not a string, and for punctuation. */
#define SCALAR_BYTES_MAX 128

/* An array or object that is being written. */
typedef struct Level {
    json_t *value;
    void *iter;   /* object: the next pair */
    size_t index; /* array: the next element; object: pairs written */
} Level;

/* Without printf, because a text may have millions of them. */
static void
append_u(GString *out, gunichar unit)
{
    static const char digits[] = "0123456789ABCDEF";
    const char escape[] = {'\\',
                           'u',
                           digits[unit >> 12 & 0xF],
                           digits[unit >> 8 & 0xF],
                           digits[unit >> 4 & 0xF],
                           digits[unit & 0xF]};

    g_string_append_len(out, escape, sizeof(escape));
}

void
bf_json_write_escape(GString *out, gunichar c)
{
    static const char letters[] = {
        ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};

    if (c == '"' || c == '\\') {
        g_string_append_c(out, '\\');
        g_string_append_c(out, (char)c);
    } else if (c < sizeof(letters) && letters[c] != 0) {
        g_string_append_c(out, '\\');
        g_string_append_c(out, letters[c]);
    } else if (c >= 0x10000) {
        append_u(out, 0xD800 + ((c - 0x10000) >> 10));
        append_u(out, 0xDC00 + ((c - 0x10000) & 0x3FF));
    } else {
        append_u(out, c);
    }
}

/* What no reader of ours takes; text of the command line may have it. */
static bool
is_noncharacter(gunichar c)
{
    return (c >= 0xFDD0 && c <= 0xFDEF) || (c & 0xFFFE) == 0xFFFE;
}

bool
bf_json_changes_text(const char *text)
{
    if (!g_utf8_validate(text, -1, NULL)) {
        return true;
    }
    while (*text != '\0' && !is_noncharacter(g_utf8_get_char(text))) {
        text = g_utf8_next_char(text);
    }
    return *text != '\0';
}

static void
write_str(GString *out, const char *text, size_t len, gunichar nul)
{
    const char *end = text + len;

    bf_wipe_reserve(out, SCALAR_BYTES_MAX);
    g_string_append_c(out, '"');
    while (text < end) {
        const char *run = text;
        gunichar c;

        while (text < end && *text >= 0x20 && *text < 0x7F && *text != '"' &&
               *text != '\\') {
            text++;
        }
        bf_wipe_reserve(out, (size_t)(text - run) + SCALAR_BYTES_MAX);
        g_string_append_len(out, run, text - run);
        if (text < end) {
            c = g_utf8_get_char(text);
            bf_json_write_escape(out, c == nul             ? 0
                                      : is_noncharacter(c) ? REPLACEMENT
                                                           : c);
            text = g_utf8_next_char(text);
        }
    }
    g_string_append_c(out, '"');
}

void
bf_json_write_str(GString *out, const char *text, size_t len)
{
    write_str(out, text, len, 0);
}

void
bf_json_write_key(GString *out, const char *key)
{
    write_str(out, key, strlen(key), NUL_IN_KEY);
}

/* Without printf, as a reply may have many. */
static void
write_uint(GString *out, uint64_t value)
{
    char digits[20];
    size_t at = sizeof(digits);

    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    g_string_append_len(out, digits + at, (gssize)(sizeof(digits) - at));
}

static void
write_int(GString *out, int64_t value)
{
    if (value < 0) {
        g_string_append_c(out, '-');
    }
    write_uint(out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
}

static void
write_scalar(GString *out, const json_t *value)
{
    char buf[G_ASCII_DTOSTR_BUF_SIZE];
    uint64_t big;

    switch (json_typeof(value)) {
    case JSON_STRING:
        if (bf_json_get_big_uint(value, &big)) {
            write_uint(out, big);
        } else {
            write_str(out, json_string_value(value), json_string_length(value),
                      0);
        }
        break;
    case JSON_INTEGER:
        write_int(out, json_integer_value(value));
        break;
    case JSON_REAL:
        g_string_append(out, g_ascii_formatd(buf, sizeof(buf), "%.17g",
                                             json_real_value(value)));
        break;
    case JSON_TRUE:
        g_string_append(out, "true");
        break;
    case JSON_FALSE:
        g_string_append(out, "false");
        break;
    default:
        g_string_append(out, "null");
    }
}

static void
write_line(GString *out, BfJsonStyle style, size_t depth)
{
    if (style == BF_JSON_STYLE_PRETTY) {
        g_string_append_printf(out, "\r\n%*s", (int)depth * 4, "");
    }
}

/* The next value inside of @level after its separator and key, or NULL. */
static json_t *
next_inside(GString *out, Level *level, BfJsonStyle style, size_t depth)
{
    bool is_object = json_is_object(level->value);
    json_t *inside = json_array_get(level->value, level->index);

    if (is_object) {
        inside =
            level->iter != NULL ? json_object_iter_value(level->iter) : NULL;
    }
    if (inside == NULL) {
        return NULL;
    }
    if (level->index++ > 0) {
        g_string_append(out, style == BF_JSON_STYLE_PRETTY ? "," : ", ");
    }
    write_line(out, style, depth);
    if (is_object) {
        bf_json_write_key(out, json_object_iter_key(level->iter));
        g_string_append(out, ": ");
        level->iter = json_object_iter_next(level->value, level->iter);
    }
    return inside;
}

void
bf_json_write(GString *out, const json_t *value, BfJsonStyle style)
{
    g_autoptr(GArray) stack = g_array_new(false, false, sizeof(Level));
    json_t *next = (json_t *)value; /* jansson's iterators want no const */

    do {
        bf_wipe_reserve(out, SCALAR_BYTES_MAX);
        if (next == NULL) {
            Level done = g_array_index(stack, Level, stack->len - 1);

            g_array_set_size(stack, stack->len - 1);
            write_line(out, style, stack->len);
            g_string_append_c(out, json_is_object(done.value) ? '}' : ']');
        } else if (json_is_object(next) || json_is_array(next)) {
            Level level = {.value = next, .iter = json_object_iter(next)};

            g_array_append_val(stack, level);
            g_string_append_c(out, json_is_object(next) ? '{' : '[');
        } else {
            write_scalar(out, next);
        }
        if (stack->len > 0) {
            next =
                next_inside(out, &g_array_index(stack, Level, stack->len - 1),
                            style, stack->len);
        }
    } while (stack->len > 0);
}
