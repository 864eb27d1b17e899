/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The error domain of the control plane.
 */
#include "core/error.h"

#include <stdarg.h>

G_DEFINE_QUARK(bf_error_quark, bf_error)

void
bf_set_error(GError **error, const char *format, ...)
{
    va_list args;

    if (error == NULL) {
        return;
    }
    va_start(args, format);
    g_assert(*error == NULL);
    *error = g_error_new_valist(BF_ERROR, BF_ERROR_GENERIC, format, args);
    va_end(args);
}

void
bf_set_errno(GError **error, int err, const char *format, ...)
{
    g_autofree char *phrase = NULL;
    va_list args;

    if (error == NULL) {
        return;
    }
    va_start(args, format);
    phrase = g_strdup_vprintf(format, args);
    va_end(args);
    bf_set_error(error, "%s: %s", phrase, g_strerror(err));
}

char *
bf_show_peer_text(const char *text, size_t len, char control)
{
    char *shown = g_utf8_make_valid(len > 0 ? text : "", (gssize)len);

    for (char *c = shown; *c != '\0'; c++) {
        if (g_ascii_iscntrl(*c)) {
            *c = control;
        }
    }
    return shown;
}
