/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * GString without traces. Its fields are public, so that growing can be done
 * here: g_realloc() would free the old bytes without wiping them.
 */
#include "core/wipe.h"

#include <string.h>

#include "core/large.h"

/* How deep work with secrets goes, with room. */
#define STACK_BYTES 16384

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
    str = bf_large_alloc(wanted);
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

#if defined(__x86_64__)

#define LOW_REGISTERS                                                          \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",    \
        "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#define CLEAR(n) "pxor %%xmm" #n ", %%xmm" #n "\n\t"
#define CLEAR_512(n) "vpxorq %%zmm" #n ", %%zmm" #n ", %%zmm" #n "\n\t"

static void
clear_registers(void)
{
    if (__builtin_cpu_supports("avx")) {
        __asm__ volatile("vzeroall" : : : LOW_REGISTERS);
    } else {
        __asm__ volatile(CLEAR(0) CLEAR(1) CLEAR(2) CLEAR(3) CLEAR(4) CLEAR(5)
                             CLEAR(6) CLEAR(7) CLEAR(8) CLEAR(9) CLEAR(10)
                                 CLEAR(11) CLEAR(12) CLEAR(13) CLEAR(14)
                                     CLEAR(15)
                         :
                         :
                         : LOW_REGISTERS);
    }
    /* Of these our own code uses none. */
    if (__builtin_cpu_supports("avx512f")) {
        __asm__ volatile(
            CLEAR_512(16) CLEAR_512(17) CLEAR_512(18) CLEAR_512(19)
                CLEAR_512(20) CLEAR_512(21) CLEAR_512(22) CLEAR_512(23)
                    CLEAR_512(24) CLEAR_512(25) CLEAR_512(26) CLEAR_512(27)
                        CLEAR_512(28) CLEAR_512(29) CLEAR_512(30) CLEAR_512(31)
            :
            :
            : "memory");
    }
}

#else

/* By the function that copies, which uses the same ones again. */
static void
clear_registers(void)
{
    char from[512] = "";
    char to[512];

    for (size_t len = sizeof(to); len > 0; len /= 2) {
        memcpy(to, from, len);
        __asm__ volatile("" : : "r"(to) : "memory");
    }
}

#endif

__attribute__((noinline)) static void
clear_stack(void)
{
    char below[STACK_BYTES];

    explicit_bzero(below, sizeof(below));
}

void
bf_wipe_traces(void)
{
    clear_stack();
    clear_registers();
}

void
bf_wipe_text_free(char *text)
{
    if (text != NULL) {
        explicit_bzero(text, strlen(text));
        g_free(text);
    }
}
