/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptor sets. A set ends when it has no descriptors left; duplicates that
 * nodes hold live on their own.
 */
#include "serve/fdsets.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "core/co-io.h"
#include "core/error.h"
#include "core/util.h"

/* More than any manager passes; bounds what a client can make us hold. */
#define FDSET_FDS_MAX 1024

typedef struct Fd {
    int fd;       /* owned; -1 once it is taken out */
    char *opaque; /* owned, or NULL */
} Fd;

typedef struct Fdset {
    int64_t id;
    GPtrArray *fds; /* of Fd, owned */
} Fdset;

struct BfFdsets {
    GPtrArray *sets; /* of Fdset, owned, by ascending id */
    unsigned n_fds;
};

static void
fd_free(void *data)
{
    Fd *fd = data;

    if (fd->fd >= 0) {
        close(fd->fd);
    }
    g_free(fd->opaque);
    g_free(fd);
}

static void
fdset_free(void *data)
{
    Fdset *set = data;

    g_ptr_array_unref(set->fds);
    g_free(set);
}

BfFdsets *
bf_fdsets_new(void)
{
    BfFdsets *fdsets = g_new0(BfFdsets, 1);

    fdsets->sets = g_ptr_array_new_with_free_func(fdset_free);
    return fdsets;
}

void
bf_fdsets_free(BfFdsets *fdsets)
{
    if (fdsets == NULL) {
        return;
    }
    g_ptr_array_unref(fdsets->sets);
    g_free(fdsets);
}

static Fdset *
find_set(BfFdsets *fdsets, int64_t id)
{
    for (unsigned i = 0; i < fdsets->sets->len; i++) {
        Fdset *set = g_ptr_array_index(fdsets->sets, i);

        if (set->id == id) {
            return set;
        }
    }
    return NULL;
}

/* Keeps the array ordered, so that the lowest free id is the first gap. */
static Fdset *
add_set(BfFdsets *fdsets, int64_t id)
{
    Fdset *set = g_new0(Fdset, 1);
    unsigned at = 0;

    set->id = id;
    set->fds = g_ptr_array_new_with_free_func(fd_free);
    while (at < fdsets->sets->len &&
           ((Fdset *)g_ptr_array_index(fdsets->sets, at))->id < id) {
        at++;
    }
    g_ptr_array_insert(fdsets->sets, (int)at, set);
    return set;
}

static int64_t
lowest_free_id(BfFdsets *fdsets)
{
    int64_t id = 0;

    while (find_set(fdsets, id) != NULL) {
        id++;
    }
    return id;
}

BfAddfdInfo *
bf_fdsets_add(BfFdsets *fdsets, int fd, const int64_t *id, const char *opaque,
              GError **error)
{
    int64_t set_id = id != NULL ? *id : lowest_free_id(fdsets);
    BfAddfdInfo *info = NULL;
    Fdset *set = NULL;
    Fd *entry = NULL;

    if (set_id < 0) {
        bf_set_error(error,
                     "Parameter 'fdset-id' expects a non-negative value");
        close(fd);
        return NULL;
    }
    if (fdsets->n_fds >= FDSET_FDS_MAX) {
        bf_set_error(error,
                     "the descriptor sets hold %d descriptors already; use "
                     "remove-fd on those that are not needed",
                     FDSET_FDS_MAX);
        close(fd);
        return NULL;
    }
    set = find_set(fdsets, set_id);
    if (set == NULL) {
        set = add_set(fdsets, set_id);
    }
    entry = g_new0(Fd, 1);
    entry->fd = fd;
    entry->opaque = g_strdup(opaque);
    g_ptr_array_add(set->fds, entry);
    fdsets->n_fds++;

    info = g_new0(BfAddfdInfo, 1);
    info->fdset_id = set_id;
    info->fd = fd;
    return info;
}

bool
bf_fdsets_co_remove(BfFdsets *fdsets, int64_t id, const int64_t *fd,
                    GError **error)
{
    g_autoptr(GArray) taken = g_array_new(false, false, sizeof(int));
    Fdset *set = find_set(fdsets, id);

    if (set == NULL) {
        bf_set_error(error,
                     "File descriptor named 'fdset-id:%" G_GINT64_FORMAT
                     "' not found",
                     id);
        return false;
    }
    for (unsigned i = set->fds->len; i-- > 0;) {
        Fd *entry = g_ptr_array_index(set->fds, i);

        if (fd == NULL || entry->fd == *fd) {
            g_array_append_val(taken, entry->fd);
            entry->fd = -1;
            g_ptr_array_remove_index(set->fds, i);
            fdsets->n_fds--;
        }
    }
    if (taken->len == 0) {
        bf_set_error(error,
                     "File descriptor named 'fdset-id:%" G_GINT64_FORMAT
                     ", fd:%" G_GINT64_FORMAT "' not found",
                     id, fd != NULL ? *fd : -1);
        return false;
    }
    if (set->fds->len == 0) {
        g_ptr_array_remove(fdsets->sets, set);
    }
    for (unsigned i = 0; i < taken->len; i++) {
        bf_co_close(g_array_index(taken, int, i));
    }
    return true;
}

static BfFdsetInfo *
describe_set(const Fdset *set)
{
    BfFdsetInfo *info = g_new0(BfFdsetInfo, 1);

    info->fdset_id = set->id;
    info->fds = g_new0(BfFdsetFdInfoList, 1);
    info->fds->len = set->fds->len;
    info->fds->items = g_new0(BfFdsetFdInfo *, set->fds->len);
    for (unsigned i = 0; i < set->fds->len; i++) {
        const Fd *entry = g_ptr_array_index(set->fds, i);
        BfFdsetFdInfo *item = g_new0(BfFdsetFdInfo, 1);

        item->fd = entry->fd;
        item->opaque = g_strdup(entry->opaque);
        info->fds->items[i] = item;
    }
    return info;
}

BfFdsetInfoList *
bf_fdsets_query(BfFdsets *fdsets)
{
    BfFdsetInfoList *list = g_new0(BfFdsetInfoList, 1);

    list->len = fdsets->sets->len;
    list->items = g_new0(BfFdsetInfo *, list->len);
    for (unsigned i = 0; i < list->len; i++) {
        list->items[i] = describe_set(g_ptr_array_index(fdsets->sets, i));
    }
    return list;
}

static Fdset *
find_set_by_path(BfFdsets *fdsets, const char *path)
{
    const char *digits = path + strlen("/dev/fdset/");
    char *end = NULL;
    int64_t id = 0;

    if (!g_ascii_isdigit(digits[0])) {
        return NULL;
    }
    errno = 0;
    id = g_ascii_strtoll(digits, &end, 10);
    return errno == 0 && *end == '\0' ? find_set(fdsets, id) : NULL;
}

int
bf_fdsets_open(BfFdsets *fdsets, const char *path, int flags, GError **error)
{
    /* With O_APPEND all writes would go to the end; O_PATH reads nothing. */
    const int mask = O_ACCMODE | O_DIRECT | O_APPEND | O_PATH;
    const Fdset *set = find_set_by_path(fdsets, path);

    if (set == NULL) {
        bf_set_error(error, "Failed to find fdset %s", path);
        return -1;
    }
    for (unsigned i = 0; i < set->fds->len; i++) {
        const Fd *entry = g_ptr_array_index(set->fds, i);
        int have = fcntl(entry->fd, F_GETFL);

        if (have >= 0 && (have & mask) == (flags & mask)) {
            int copy = fcntl(entry->fd, F_DUPFD_CLOEXEC, 0);

            if (copy < 0) {
                bf_set_errno(error, errno, "Could not duplicate %s", path);
            }
            return copy;
        }
    }
    bf_set_error(error,
                 "Failed to find file descriptor with matching flags=0x%x in "
                 "%s; add one that is open %s%s, and without O_APPEND and "
                 "O_PATH, with add-fd",
                 (unsigned)(flags & mask), path,
                 (flags & O_ACCMODE) == O_RDONLY ? "read-only" : "read-write",
                 (flags & O_DIRECT) != 0 ? " and O_DIRECT" : "");
    return -1;
}
