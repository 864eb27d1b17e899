/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where tokens end that are in the input as a whole. What is not that simple
 * is left to the framer, which then looks at each byte.
 */
#include "qmp/framer-private.h"
#include "qmp/json-scan.h"

#define INTEGER_CHARS_MAX 18 /* what is longer may not fit 64 bits */

const char *
bf_framer_scan_string(const char *at, const char *end, char quote)
{
    for (;;) {
        at += bf_json_scan_plain(at, end);
        if (at == end || *at == quote || bf_framer_is_control((uint8_t)*at)) {
            return at;
        }
        if (*at == '\\') {
            if (end - at < 2 || bf_framer_is_control((uint8_t)at[1])) {
                return at;
            }
            at++;
        }
        at++;
    }
}

const char *
bf_framer_find_string_end(const char *at, const char *end)
{
    const char *close = bf_framer_scan_string(at + 1, end, *at);

    return close < end && *close == *at ? close + 1 : NULL;
}

const char *
bf_framer_find_integer_end(const char *at, const char *end)
{
    const char *start = at;
    const char *digits = NULL;

    at += *at == '-';
    digits = at;
    while (at < end && g_ascii_isdigit(*at)) {
        at++;
    }
    if (at == end || at == digits || at - start > INTEGER_CHARS_MAX ||
        (*digits == '0' && at - digits > 1) || *at == '.' || *at == 'e' ||
        *at == 'E' || *at == '\0') {
        return NULL;
    }
    return at;
}
