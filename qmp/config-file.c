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
#include "qmp/config-text.h"
#include "qmp/dispatch.h"

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

/* @ret_line: of the command that fails */
static bool
co_run_text(BfQmpCall *call, char *text, BfPoolLane *lane, unsigned *ret_line,
            GError **error)
{
    g_autoptr(BfConfigReader) reader = bf_config_reader_new(text);
    BfFrame *frame = NULL;

    while ((frame = bf_config_reader_next(reader, ret_line)) != NULL) {
        if (!co_run_frame(call, frame, lane, error)) {
            return false;
        }
    }
    if (bf_config_reader_is_cut_off(reader)) {
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
    ok = co_run_text(&call, read.text, lane, &line, error);
    if (!ok) {
        g_prefix_error(error, "%s:%u: ", path, line);
    }
    bf_wipe_text_free(read.text); /* it may have secrets */
    return ok;
}
