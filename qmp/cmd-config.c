/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The QMP command that saves the set-up. The text is made in one moment on
 * main; the file is written on a thread, beside the one that it replaces.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/co-io.h"
#include "core/error.h"
#include "core/util.h"
#include "qmp/config-file.h"
#include "qmp/config-save.h"
#include "qmp/dispatch.h"
#include "qmp/gen-commands.h"
#include "qmp/monitors-private.h"

/* A file that is being written; the thread may outlive the command. */
typedef struct WriteFile {
    char *path;
    GString *text;
    GError *error; /* NULL if it was written */
} WriteFile;

static void
write_file_free(void *arg)
{
    WriteFile *file = arg;

    g_free(file->path);
    g_string_free(file->text, TRUE);
    g_clear_error(&file->error);
    g_free(file);
}

static bool
write_all(int fd, const GString *text)
{
    size_t done = 0;

    while (done < text->len) {
        ssize_t n = write(fd, text->str + done, text->len - done);

        if (n < 0 && errno != EINTR) {
            return false;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

/* A rename is on stable storage when its directory is. */
static bool
sync_directory(const char *path)
{
    g_autofree char *dir = g_path_get_dirname(path);
    bf_autofd fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return fd >= 0 && fsync(fd) == 0;
}

/* A link is to stay one, and what it leads to is written. */
static bool
follow_links(WriteFile *file)
{
    char *target = realpath(file->path, NULL);
    int problem = errno;
    struct stat st;

    if (target != NULL) {
        g_free(file->path);
        file->path = g_strdup(target);
        free(target);
    } else if (lstat(file->path, &st) == 0 && S_ISLNK(st.st_mode)) {
        bf_set_errno(&file->error, problem, "the link '%s' leads nowhere",
                     file->path);
        return false;
    }
    return true;
}

static void
write_file(void *arg)
{
    WriteFile *file = arg;
    g_autofree char *temporary = NULL;
    bf_autofd fd = -1;
    struct stat st;
    int problem = 0;

    /* A device of this name would be gone, and not what was written to. */
    if (stat(file->path, &st) == 0 && !S_ISREG(st.st_mode)) {
        bf_set_error(&file->error, "'%s' is not a regular file", file->path);
        return;
    }
    if (!follow_links(file)) {
        return;
    }
    temporary = g_strconcat(file->path, ".XXXXXX", NULL);
    fd = g_mkstemp_full(temporary, O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0) {
        bf_set_errno(&file->error, errno, "cannot create '%s'", temporary);
        return;
    }
    if (!write_all(fd, file->text) || fsync(fd) < 0 ||
        rename(temporary, file->path) < 0) {
        problem = errno;
        unlink(temporary);
    } else if (!sync_directory(file->path)) {
        problem = errno;
    }
    if (problem != 0) {
        bf_set_errno(&file->error, problem, "cannot write '%s'", file->path);
    }
}

static bool
co_write(BfQmpCall *call, const char *path, const GString *text, GError **error)
{
    g_autoptr(BfPoolLane) lane = bf_pool_lane_new("config-save", 1);
    WriteFile *file = g_new0(WriteFile, 1);
    bool ok = false;
    int ret = 0;

    file->path = g_strdup(path);
    file->text = g_string_new_len(text->str, (gssize)text->len);
    ret =
        bf_co_offload_cancel(lane, write_file, file, write_file_free,
                             BF_FOREVER, bf_monitors_stopping(call->monitors));
    if (ret < 0) {
        bf_set_errno(error, -ret, "gave up writing '%s'", path);
        return false;
    }
    ok = file->error == NULL;
    if (!ok) {
        g_propagate_error(error, g_steal_pointer(&file->error));
    }
    write_file_free(file);
    return ok;
}

static bool
check_complete(const BfConfigText *config, GError **error)
{
    const BfConfigLeftOut *first = NULL;

    if (config->left_out->len == 0) {
        return true;
    }
    first = g_ptr_array_index(config->left_out, 0);
    bf_set_error(
        error, "%s%s; with incomplete=true what cannot be saved is left out",
        first->reason, config->left_out->len > 1 ? " (and there is more)" : "");
    return false;
}

static bool
check_size(const BfConfigText *config, GError **error)
{
    if (config->text->len > BF_CONFIG_BYTES_MAX) {
        bf_set_error(error,
                     "the text of the set-up has %zu bytes, but --config reads "
                     "%u MiB at most",
                     config->text->len,
                     (unsigned)(BF_CONFIG_BYTES_MAX / BF_MIB));
        return false;
    }
    return true;
}

static BfConfigLeftOutList *
list_left_out(const BfConfigText *config)
{
    BfConfigLeftOutList *list = bf_type_new(&bf_config_left_out_list_type);

    list->len = config->left_out->len;
    list->items = g_new0(BfConfigLeftOut *, list->len);
    for (size_t i = 0; i < list->len; i++) {
        list->items[i] = bf_config_left_out_copy(
            g_ptr_array_index(config->left_out, (guint)i));
    }
    return list;
}

bool
bf_qmp_co_config_save(BfQmpCall *call, const BfConfigSaveArgs *args,
                      BfConfigInfo **ret_value, GError **error)
{
    g_autoptr(BfConfigText) config =
        bf_config_text_new(call->monitors, call->daemon);
    BfConfigInfo *info = NULL;

    if ((!args->incomplete && !check_complete(config, error)) ||
        !check_size(config, error) ||
        (args->filename != NULL &&
         !co_write(call, args->filename, config->text, error))) {
        return false;
    }
    info = bf_type_new(&bf_config_info_type);
    info->filename = g_strdup(args->filename);
    info->text = args->filename == NULL ? g_strdup(config->text->str) : NULL;
    info->commands = config->commands;
    info->left_out = list_left_out(config);
    *ret_value = info;
    return true;
}
