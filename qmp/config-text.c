/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands out of a text. The framer finds their ends; it is fed by lines, so
 * that each command has the number of the line where it begins.
 */
#include "qmp/config-text.h"

#include <string.h>

struct BfConfigReader {
    const char *at; /* borrowed: the first line that was not fed */
    BfFramer *framer;
    unsigned line;    /* that was fed last */
    unsigned command; /* line where the present command begins */
};

/* Length of the comment at @text, without the line end behind it; 0 if there
 * is none. One without an end is no comment, but an error of the text: it would
 * hide all the commands that follow. */
static size_t
comment_length(const char *text)
{
    const char *end = NULL;

    if (text[0] == '#' || (text[0] == '/' && text[1] == '/')) {
        return strcspn(text, "\n");
    }
    if (text[0] != '/' || text[1] != '*') {
        return 0;
    }
    end = strstr(text + 2, "*/");
    return end != NULL ? (size_t)(end - text) + 2 : 0;
}

static void
blank_comments(char *text)
{
    char quote = '\0';

    while (*text != '\0') {
        size_t len = quote == '\0' ? comment_length(text) : 0;

        for (size_t i = 0; i < len; i++) {
            text[i] = text[i] == '\n' ? '\n' : ' ';
        }
        text += len;
        if (len > 0) {
            continue;
        }
        if (quote != '\0' && *text == '\\' && text[1] != '\0') {
            text++; /* what it escapes ends no string */
        } else if (quote == '\0' && (*text == '"' || *text == '\'')) {
            quote = *text;
        } else if (*text == quote) {
            quote = '\0';
        }
        text++;
    }
}

BfConfigReader *
bf_config_reader_new(char *text)
{
    BfConfigReader *reader = g_new0(BfConfigReader, 1);

    blank_comments(text);
    reader->at = text;
    reader->framer = bf_framer_new();
    reader->command = 1;
    return reader;
}

void
bf_config_reader_free(BfConfigReader *reader)
{
    if (reader != NULL) {
        bf_framer_free(reader->framer);
        g_free(reader);
    }
}

static void
feed_line(BfConfigReader *reader)
{
    size_t len = strcspn(reader->at, "\n");

    len += reader->at[len] == '\n' ? 1 : 0;
    reader->line++;
    if (!bf_framer_is_inside(reader->framer)) {
        reader->command = reader->line;
    }
    bf_framer_feed(reader->framer, reader->at, len);
    reader->at += len;
}

BfFrame *
bf_config_reader_next(BfConfigReader *reader, unsigned *ret_line)
{
    BfFrame *frame = bf_framer_next(reader->framer);

    while (frame == NULL && *reader->at != '\0') {
        feed_line(reader);
        frame = bf_framer_next(reader->framer);
    }
    *ret_line = reader->command;
    /* What else there is on this line begins here. */
    reader->command = MAX(reader->line, 1);
    return frame;
}

bool
bf_config_reader_is_cut_off(const BfConfigReader *reader)
{
    return bf_framer_is_inside(reader->framer);
}
