/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Numbers and switches as they are written on the command line. The accepted
 * forms are QEMU's; nothing may depend on the locale.
 */
#include "qmp/number.h"

#include <errno.h>
#include <glib.h>
#include <math.h>
#include <string.h>

#include "core/util.h"

bool
bf_parse_bool(const char *text, bool *ret_flag)
{
    static const char *const yes[] = {"on", "yes", "true", "y", NULL};
    static const char *const no[] = {"off", "no", "false", "n", NULL};

    if (g_strv_contains(yes, text)) {
        *ret_flag = true;
        return true;
    }
    if (g_strv_contains(no, text)) {
        *ret_flag = false;
        return true;
    }
    return false;
}

bool
bf_parse_int(const char *text, int64_t *ret_number)
{
    char *end;
    int64_t number;

    errno = 0;
    number = g_ascii_strtoll(text, &end, 0);
    if (end == text || *end != '\0' || errno != 0) {
        return false;
    }
    *ret_number = number;
    return true;
}

bool
bf_parse_uint(const char *text, uint64_t *ret_number)
{
    char *end;
    uint64_t number;

    if (!g_ascii_isdigit(text[0])) {
        return false; /* strtoull would take a sign */
    }
    errno = 0;
    number = g_ascii_strtoull(text, &end, 0);
    if (*end != '\0' || errno != 0) {
        return false;
    }
    *ret_number = number;
    return true;
}

/* The power of 1024 that @suffix stands for, or -1. */
static int
suffix_power(const char *suffix)
{
    static const char letters[] = "BKMGTPE";
    const char *found;

    if (suffix[0] == '\0') {
        return 0;
    }
    found = strchr(letters, g_ascii_toupper(suffix[0]));
    return suffix[1] == '\0' && found != NULL ? (int)(found - letters) : -1;
}

bool
bf_parse_size(const char *text, uint64_t *ret_bytes)
{
    char *end;
    uint64_t whole;
    uint64_t part = 0;
    double fraction = 0;
    int power;

    if (g_ascii_strncasecmp(text, "0x", 2) == 0) {
        return bf_parse_uint(text, ret_bytes);
    }
    if (!g_ascii_isdigit(text[0])) {
        return false;
    }
    errno = 0;
    whole = g_ascii_strtoull(text, &end, 10);
    if (errno != 0) {
        return false;
    }
    if (*end == '.') {
        size_t digits = strspn(end + 1, "0123456789");
        g_autofree char *copy = g_strndup(end, digits + 1);

        fraction = digits > 0 ? g_ascii_strtod(copy, NULL) : 0;
        end += digits + 1;
    }
    power = suffix_power(end);
    if (power < 0 || (power == 0 && fraction != 0)) {
        return false;
    }
    if (power > 0) {
        part =
            (uint64_t)(fraction * (double)(UINT64_C(1) << (10 * power)) + 0.5);
    }
    return bf_mul_u64(whole, UINT64_C(1) << (10 * power), &whole) &&
           bf_add_u64(whole, part, ret_bytes);
}

bool
bf_parse_number(const char *text, double *ret_number)
{
    char *end;
    double number;

    if (text[0] == '\0' || g_ascii_isspace(text[0])) {
        return false;
    }
    number = g_ascii_strtod(text, &end);
    if (*end != '\0' || !isfinite(number)) {
        return false;
    }
    *ret_number = number;
    return true;
}
