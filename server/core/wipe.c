/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * GString without traces. Its fields are public, so that growing can be done
 * here: g_realloc() would free the old bytes without wiping them.
 */
#include "core/wipe.h"

#include <string.h>

void
bf_wipe_reserve(GString *string, size_t extra)
{
    size_t room = string->allocated_len - string->len; /* with the NUL */
    size_t wanted = 0;
    char *str = NULL;

    if (extra < room) {
        return;
    }
    g_assert(extra < G_MAXSIZE / 4 && string->len < G_MAXSIZE / 4);
    wanted = MAX(2 * string->len, string->len + extra) + 1;
    str = g_malloc(wanted);
    memcpy(str, string->str, string->len + 1);
    explicit_bzero(string->str, string->len);
    g_free(string->str);
    string->str = str;
    string->allocated_len = wanted;
}

void
bf_wipe_append(GString *string, const void *bytes, size_t len)
{
    bf_wipe_reserve(string, len);
    if (len > 0) {
        memcpy(string->str + string->len, bytes, len);
        string->len += len;
        string->str[string->len] = '\0';
    }
}

void
bf_wipe_truncate(GString *string, size_t len)
{
    g_assert(len <= string->len);
    explicit_bzero(string->str + len, string->len - len);
    g_string_truncate(string, len);
}

void
bf_wipe_drop_front(GString *string, size_t len)
{
    size_t left = string->len - len;

    g_assert(len <= string->len);
    memmove(string->str, string->str + len, left);
    bf_wipe_truncate(string, left);
}

void
bf_wipe_string_free(GString *string)
{
    if (string != NULL) {
        explicit_bzero(string->str, string->len);
        g_string_free(string, TRUE);
    }
}

void
bf_wipe_text_free(char *text)
{
    if (text != NULL) {
        explicit_bzero(text, strlen(text));
        g_free(text);
    }
}
