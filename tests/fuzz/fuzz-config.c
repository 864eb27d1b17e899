/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer of the text of --config: comments, and commands with their lines.
 *
 * Beyond not crashing: comments leave all else in its place and are gone when
 * they have been looked for once; lines are there and go up; the commands are
 * those that the framer finds in the whole text at once.
 */
#include <stdint.h>
#include <string.h>

#include "qmp/config-text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
append_frame(GString *out, const BfFrame *frame)
{
    g_assert_true((frame->text == NULL) != (frame->error == NULL));
    g_string_append(out, frame->text != NULL ? frame->text : frame->error);
    g_string_append_c(out, '\n');
}

static unsigned
count_lines(const char *text)
{
    unsigned n = 0;

    for (const char *c = text; *c != '\0'; c++) {
        n += *c == '\n' || c[1] == '\0' ? 1 : 0;
    }
    return n;
}

/* Is there something on this line? */
static void
check_line(const char *text, unsigned line)
{
    for (; line > 1; line--) {
        text = strchr(text, '\n');
        g_assert_nonnull(text);
        text++;
    }
    g_assert_cmpuint(strspn(text, " \t\r"), <, strcspn(text, "\n"));
}

/* @text loses its comments. */
static char *
run_reader(char *text, bool *ret_cut_off)
{
    g_autoptr(BfConfigReader) reader = bf_config_reader_new(text);
    GString *out = g_string_new(NULL);
    unsigned lines = count_lines(text);
    unsigned before = 1;
    unsigned line = 0;
    BfFrame *frame = NULL;

    while ((frame = bf_config_reader_next(reader, &line)) != NULL) {
        g_assert_cmpuint(line, >=, before);
        g_assert_cmpuint(line, <=, lines);
        before = line;
        if (frame->text != NULL) {
            check_line(text, line);
        }
        append_frame(out, frame);
        bf_frame_free(frame);
    }
    *ret_cut_off = bf_config_reader_is_cut_off(reader);
    return g_string_free(out, false);
}

static char *
run_framer(const char *text, bool *ret_cut_off)
{
    g_autoptr(BfFramer) framer = bf_framer_new();
    GString *out = g_string_new(NULL);
    BfFrame *frame = NULL;

    bf_framer_feed(framer, text, strlen(text));
    while ((frame = bf_framer_next(framer)) != NULL) {
        append_frame(out, frame);
        bf_frame_free(frame);
    }
    *ret_cut_off = bf_framer_is_inside(framer);
    return g_string_free(out, false);
}

static void
check_blanks(const char *before, const char *after)
{
    g_assert_cmpuint(strlen(before), ==, strlen(after));
    for (size_t i = 0; before[i] != '\0'; i++) {
        g_assert_true(after[i] == before[i] ||
                      (after[i] == ' ' && before[i] != '\n'));
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *given = g_strndup((const char *)data, size);
    g_autofree char *text = g_strdup(given);
    bool cut_off = false;
    bool cut_off_again = false;
    g_autofree char *frames = run_reader(text, &cut_off);
    g_autofree char *again = g_strdup(text);
    g_autofree char *frames_again = run_reader(again, &cut_off_again);
    g_autofree char *whole = NULL;

    check_blanks(given, text);
    g_assert_cmpstr(again, ==, text);
    g_assert_cmpstr(frames_again, ==, frames);
    whole = run_framer(text, &cut_off_again);
    g_assert_cmpstr(whole, ==, frames);
    g_assert_true(cut_off == cut_off_again);
    return 0;
}
