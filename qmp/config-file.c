/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commands from a file. They take the way of a client's commands from the
 * framer on, as those of no client.
 */
#include "qmp/config-file.h"

#include <string.h>
#include <sys/stat.h>

#include "core/co-io.h"
#include "core/error.h"
#include "core/util.h"
#include "core/wipe.h"
#include "qmp/dispatch.h"
#include "qmp/framer.h"

/* Length of the comment at @text, without the line end behind it; 0 if there
 * is none. */
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
    return end != NULL ? (size_t)(end - text) + 2 : strlen(text);
}

void
bf_config_blank_comments(char *text)
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

typedef struct ReadFile {
    const char *path;
    char *text; /* owned by whoever asked */
    size_t len;
    GError **error;
} ReadFile;

static void
read_file(void *arg)
{
    ReadFile *read = arg;
    struct stat st;

    /* Pipes and devices may have no end. */
    if (stat(read->path, &st) == 0 &&
        (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > BF_CONFIG_BYTES_MAX)) {
        bf_set_error(read->error,
                     "'%s' is not a regular file of at most %u MiB", read->path,
                     (unsigned)(BF_CONFIG_BYTES_MAX / BF_MIB));
        return;
    }
    g_file_get_contents(read->path, &read->text, &read->len, read->error);
    if (read->text != NULL && strlen(read->text) != read->len) {
        bf_set_error(read->error, "'%s' is no text: it has a NUL byte",
                     read->path);
        g_clear_pointer(&read->text, g_free);
    }
}

static bool
co_run_frame(BfQmpCall *call, BfFrame *frame, BfPoolLane *lane, GError **error)
{
    BfRequest *request = bf_request_co_new(frame, lane);
    bool ok = bf_dispatch_co_do(call, request, error);

    bf_request_co_free(request, lane);
    return ok;
}

/* @text: without comments; @ret_line: of the command that fails */
static bool
co_run_text(BfQmpCall *call, const char *text, BfPoolLane *lane,
            unsigned *ret_line, GError **error)
{
    g_autoptr(BfFramer) framer = bf_framer_new();
    unsigned line = 0;

    *ret_line = 1;
    while (*text != '\0') {
        size_t len = strcspn(text, "\n");
        BfFrame *frame = NULL;

        len += text[len] == '\n' ? 1 : 0;
        line++;
        if (!bf_framer_is_inside(framer)) {
            *ret_line = line;
        }
        bf_framer_feed(framer, text, len);
        while ((frame = bf_framer_next(framer)) != NULL) {
            if (!co_run_frame(call, frame, lane, error)) {
                return false;
            }
            *ret_line = line;
        }
        text += len;
    }
    if (bf_framer_is_inside(framer)) {
        bf_set_error(error, "the command that begins here has no end");
        return false;
    }
    return true;
}

bool
bf_config_co_run(BfMonitors *monitors, BfDaemon *daemon, const char *path,
                 GError **error)
{
    BfQmpCall call = {.daemon = daemon, .monitors = monitors};
    g_autoptr(BfPoolLane) lane = bf_pool_lane_new("config", 1);
    ReadFile read = {.path = path, .error = error};
    unsigned line = 0;
    bool ok;

    bf_assert_main();
    bf_co_offload(lane, read_file, &read);
    if (read.text == NULL) {
        return false;
    }
    bf_config_blank_comments(read.text);
    ok = co_run_text(&call, read.text, lane, &line, error);
    if (!ok) {
        g_prefix_error(error, "%s:%u: ", path, line);
    }
    bf_wipe_text_free(read.text); /* it may have secrets */
    return ok;
}
