/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where tokens end that are in the input as a whole. What is not that simple
 * is left to the framer, which then looks at each byte.
 */
#include "qmp/framer-private.h"
#include "qmp/json-scan.h"

const char *
bf_framer_scan_string(const char *at, const char *end, char quote)
{
    for (;;) {
        at += bf_json_scan_plain(at, end, quote);
        while (at < end && (uint8_t)*at >= 0x80 &&
               !bf_framer_is_control((uint8_t)*at)) {
            at++;
        }
        while (at < end && *at == '\\') {
            if (end - at < 2 || bf_framer_is_control((uint8_t)at[1])) {
                return at;
            }
            at += 2;
        }
        if (at == end || *at == quote || bf_framer_is_control((uint8_t)*at)) {
            return at;
        }
    }
}

const char *
bf_framer_find_string_end(const char *at, const char *end)
{
    const char *close = bf_framer_scan_string(at + 1, end, *at);

    return close < end && *close == *at ? close + 1 : NULL;
}

/* Returns NULL if there is no digit. */
static const char *
skip_digits(const char *at, const char *end)
{
    const char *start = at;

    while (at < end && (uint8_t)(*at - '0') < 10) {
        at++;
    }
    return at > start ? at : NULL;
}

const char *
bf_framer_find_number_end(const char *at, const char *end, bool *ret_is_float)
{
    bool is_float = false;
    const char *digits = at + (*at == '-');

    at = skip_digits(digits, end);
    if (at == NULL || (*digits == '0' && at - digits > 1)) {
        return NULL;
    }
    if (at < end && *at == '.') {
        is_float = true;
        at = skip_digits(at + 1, end);
    }
    if (at != NULL && at < end && (*at == 'e' || *at == 'E')) {
        is_float = true;
        at++;
        at = skip_digits(at + (at < end && (*at == '+' || *at == '-')), end);
    }
    if (at == NULL || at == end || *at == '\0') {
        return NULL;
    }
    *ret_is_float = is_float;
    return at;
}
