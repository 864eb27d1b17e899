/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * authz-* objects: the rules in force now, and for authz-listfile the watch on
 * the file. Whatever goes wrong there, the rules in force deny everybody until
 * the file has been read: old rules could let somebody in who was taken out.
 *
 * Watches are set before the file is read, so no change is missed. The
 * directory is watched for a file that is replaced, and the file itself, which
 * may be elsewhere if its name is a symbolic link, for one that is written to.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/co-io.h"
#include "core/error.h"
#include "core/util.h"
#include "objects-private.h"

/* Largest file of an authz-listfile. */
#define FILE_BYTES_MAX ((size_t)16 * BF_MIB)

/* How often a directory that cannot be watched is looked for. */
#define RETRY_NS BF_NS_PER_SEC

#define DIR_EVENTS                                                             \
    (IN_CREATE | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_MOVED_TO |        \
     IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF)
#define FILE_EVENTS (IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB | IN_DELETE_SELF)
/* What replaces a file by its name, or a link on the way to it. */
#define REPLACE_EVENTS (IN_CREATE | IN_MOVED_TO)

/* The file of an authz-listfile. Main's; a load has it while it runs. */
typedef struct ListFile {
    BfAuthzSource *source; /* NULL when its object is gone */
    char *id;
    char *path;
    char *dir;
    char *name; /* in @dir */
    BfAuthzParseFn *parse;
    BfPoolLane *lane;
    int inotify_fd;   /* -1 without refresh */
    int dir_watch;    /* -1 if there is none */
    int file_watch;   /* alike */
    struct stat seen; /* zero if the file could not be opened */
    bool failed;      /* the last load */
    BfCancel cancel;
    BfWaitGroup *watchers; /* borrowed: lives longer */
} ListFile;

struct BfAuthzSource {
    BfAuthzContext *context; /* borrowed: lives longer */
    BfAuthz *authz;          /* a reference: the rules in force */
    ListFile *file;          /* (nullable) a reference */
};

static void
list_file_clear(ListFile *file)
{
    if (file->inotify_fd >= 0) {
        close(file->inotify_fd);
    }
    bf_pool_lane_free(file->lane);
    g_free(file->id);
    g_free(file->path);
    g_free(file->dir);
    g_free(file->name);
}

static void
list_file_unref(ListFile *file)
{
    g_rc_box_release_full(file, (GDestroyNotify)list_file_clear);
}

G_DEFINE_AUTOPTR_CLEANUP_FUNC(ListFile, list_file_unref)

/* --- reading, on a thread of the pool --- */

typedef struct LoadJob {
    ListFile *file;
    bool only_if_replaced;
    bool unchanged;
    BfAuthz *authz;
    size_t n_rules;
    GError *error;
} LoadJob;

static void
set_watches(ListFile *file)
{
    if (file->inotify_fd < 0) {
        return;
    }
    file->dir_watch =
        inotify_add_watch(file->inotify_fd, file->dir, DIR_EVENTS);
    if (file->file_watch >= 0) {
        inotify_rm_watch(file->inotify_fd, file->file_watch);
    }
    file->file_watch =
        inotify_add_watch(file->inotify_fd, file->path, FILE_EVENTS);
}

static bool
is_same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino &&
           a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* Opens the file and looks at what it is. */
static int
open_file(const ListFile *file, struct stat *ret_stat, GError **error)
{
    bf_autofd fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0 || fstat(fd, ret_stat) < 0) {
        bf_set_errno(error, errno, "Unable to read '%s'", file->path);
        return -1;
    }
    if (!S_ISREG(ret_stat->st_mode)) {
        bf_set_error(error, "Unable to read '%s': it is not a regular file",
                     file->path);
        return -1;
    }
    return bf_steal_fd(&fd);
}

static char *
read_text(const ListFile *file, int fd, GError **error)
{
    g_autoptr(GString) text = g_string_new(NULL);
    char piece[16 * BF_KIB];
    ssize_t n;

    while ((n = read(fd, piece, sizeof(piece))) != 0) {
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            bf_set_errno(error, errno, "Unable to read '%s'", file->path);
            return NULL;
        }
        g_string_append_len(text, piece, n);
        if (text->len > FILE_BYTES_MAX) {
            bf_set_error(error, "Unable to read '%s': it has more than %zu MiB",
                         file->path, FILE_BYTES_MAX / (size_t)BF_MIB);
            return NULL;
        }
    }
    if (strlen(text->str) != text->len) {
        bf_set_error(error, "File '%s' must contain a JSON object, not a NUL",
                     file->path);
        return NULL;
    }
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static void
load_file(void *arg)
{
    LoadJob *job = arg;
    ListFile *file = job->file;
    struct stat now = {0};
    g_autoptr(BfAuthZListProperties) props = NULL;
    g_autofree char *text = NULL;
    bf_autofd fd = -1;

    set_watches(file);
    fd = open_file(file, &now, &job->error);
    if (job->only_if_replaced &&
        (fd >= 0 ? is_same_file(&now, &file->seen) : file->failed)) {
        job->unchanged = true;
        return;
    }
    file->seen = now;
    if (fd < 0 || (text = read_text(file, fd, &job->error)) == NULL) {
        return;
    }
    props = file->parse(text, file->path, &job->error);
    if (props != NULL) {
        job->authz = bf_authz_new_list(props);
        job->n_rules = props->rules != NULL ? props->rules->len : 0;
    }
}

/* --- watching, on main --- */

static void
set_authz(BfAuthzSource *source, BfAuthz *authz)
{
    bf_authz_unref(source->authz);
    source->authz = authz;
    source->context->changed(source->context->opaque);
}

static void
list_file_co_reload(ListFile *file, bool only_if_replaced)
{
    LoadJob job = {.file = file, .only_if_replaced = only_if_replaced};

    bf_co_offload(file->lane, load_file, &job);
    file->failed = job.unchanged ? file->failed : job.error != NULL;
    if (file->source == NULL || job.unchanged) {
        bf_authz_unref(job.authz);
        g_clear_error(&job.error);
        return;
    }
    if (job.error != NULL) {
        g_autofree char *why =
            g_strdup_printf("its file cannot be used: %s; correct the file",
                            job.error->message);

        g_warning("authorization object '%s' denies everybody until its file "
                  "can be used: %s",
                  file->id, job.error->message);
        g_clear_error(&job.error);
        job.authz = bf_authz_new_denying(why);
    } else {
        g_message("authorization object '%s': '%s' was read again, %zu rules",
                  file->id, file->path, job.n_rules);
    }
    set_authz(file->source, job.authz);
}

/* Is this about the file, or perhaps (@ret_perhaps)? */
static bool
is_about_file(const ListFile *file, const struct inotify_event *event,
              bool *ret_perhaps)
{
    bool in_dir = event->wd == file->dir_watch;

    if ((event->mask & (IN_Q_OVERFLOW | IN_IGNORED | IN_UNMOUNT |
                        IN_DELETE_SELF | IN_MOVE_SELF)) != 0 ||
        event->wd == file->file_watch) {
        /* A watch that was replaced is ignored in the end, too. */
        return event->wd == -1 || in_dir || event->wd == file->file_watch;
    }
    if (in_dir && event->len > 0 && strcmp(event->name, file->name) == 0) {
        return true;
    }
    *ret_perhaps |= in_dir && (event->mask & REPLACE_EVENTS) != 0;
    return false;
}

/* Takes all events that there are. */
static bool
take_events(const ListFile *file, bool *ret_perhaps)
{
    char buf[16 * (sizeof(struct inotify_event) + NAME_MAX + 1)]
        __attribute__((aligned(__alignof__(struct inotify_event))));
    bool found = false;
    ssize_t n;

    *ret_perhaps = false;
    while ((n = read(file->inotify_fd, buf, sizeof(buf))) > 0) {
        for (char *at = buf; at < buf + n;) {
            const struct inotify_event *event = (struct inotify_event *)at;

            found |= is_about_file(file, event, ret_perhaps);
            at += sizeof(*event) + event->len;
        }
    }
    return found;
}

static void
list_file_co_watch(void *arg)
{
    g_autoptr(ListFile) file = arg;
    BfWaitGroup *watchers = file->watchers;

    while (file->source != NULL) {
        int ret = bf_co_poll(file->inotify_fd, POLLIN,
                             file->dir_watch < 0 ? RETRY_NS : BF_FOREVER,
                             &file->cancel);
        bool perhaps = false;

        if (ret < 0 && ret != -ETIMEDOUT) {
            break;
        }
        if (take_events(file, &perhaps)) {
            list_file_co_reload(file, false);
        } else if (perhaps || ret == -ETIMEDOUT) {
            list_file_co_reload(file, true);
        }
    }
    bf_wait_group_done(watchers);
}

/* --- objects --- */

static bool
start_watch(ListFile *file, GError **error)
{
    if (!g_path_is_absolute(file->path)) {
        bf_set_error(error,
                     "Filename must be an absolute path, but is '%s'; "
                     "give one, or set refresh to off",
                     file->path);
        return false;
    }
    file->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (file->inotify_fd < 0) {
        bf_set_errno(error, errno,
                     "cannot watch '%s' (is fs.inotify.max_user_instances "
                     "too low? else set refresh to off)",
                     file->path);
        return false;
    }
    return true;
}

static ListFile *
list_file_new(BfAuthzContext *context, const char *id,
              const BfAuthZListFileProperties *props)
{
    ListFile *file = g_rc_box_new0(ListFile);

    file->id = g_strdup(id);
    file->path = g_strdup(props->filename);
    file->dir = g_path_get_dirname(props->filename);
    file->name = g_path_get_basename(props->filename);
    file->parse = context->parse;
    file->watchers = &context->watchers;
    file->lane = bf_pool_lane_new(id, 1);
    file->inotify_fd = -1;
    file->dir_watch = -1;
    file->file_watch = -1;
    return file;
}

static bool
co_open_list_file(BfAuthzSource *source, const char *id,
                  const BfAuthZListFileProperties *props, GError **error)
{
    g_autoptr(ListFile) file = list_file_new(source->context, id, props);
    LoadJob job = {.file = file};

    if (props->refresh && !start_watch(file, error)) {
        return false;
    }
    bf_co_offload(file->lane, load_file, &job);
    if (job.error != NULL) {
        g_propagate_error(error, job.error);
        return false;
    }
    source->authz = job.authz;
    if (props->refresh && file->dir_watch < 0) {
        bf_set_error(error,
                     "cannot watch the directory '%s' (is "
                     "fs.inotify.max_user_watches too low, or the directory "
                     "not readable? else set refresh to off)",
                     file->dir);
        return false;
    }
    if (props->refresh) {
        file->source = source;
        source->file = g_rc_box_acquire(file);
        bf_wait_group_add(file->watchers, 1);
        bf_co_spawn_later(list_file_co_watch, g_steal_pointer(&file));
    }
    return true;
}

static const BfAuthZListFileProperties *
file_properties(const BfObjectOptions *options)
{
    return options->qom_type == BF_OBJECT_TYPE_AUTHZ_LIST_FILE
               ? options->u.authz_list_file
               : options->u.authz_listfile;
}

/* The rules that the properties themselves say; NULL and no error: a file. */
static BfAuthz *
make_authz(BfObjectOptions *options, GError **error)
{
    switch (options->qom_type) {
    case BF_OBJECT_TYPE_AUTHZ_SIMPLE:
        return bf_authz_new_simple(options->u.authz_simple->identity);
    case BF_OBJECT_TYPE_AUTHZ_LIST:
        if (options->u.authz_list->rules == NULL) {
            options->u.authz_list->rules =
                bf_type_new(&bf_q_auth_z_list_rule_list_type);
        }
        return bf_authz_new_list(options->u.authz_list);
    case BF_OBJECT_TYPE_AUTHZ_PAM:
        return bf_authz_new_pam(options->u.authz_pam->service, NULL, error);
    default:
        return NULL;
    }
}

static bool
is_file_kind(const BfObjectOptions *options)
{
    return options->qom_type == BF_OBJECT_TYPE_AUTHZ_LIST_FILE ||
           options->qom_type == BF_OBJECT_TYPE_AUTHZ_LISTFILE;
}

BfAuthzSource *
bf_authz_source_co_new(BfAuthzContext *context, BfObjectOptions *options,
                       GError **error)
{
    BfAuthzSource *source = g_new0(BfAuthzSource, 1);
    bool ok;

    source->context = context;
    if (is_file_kind(options)) {
        ok = co_open_list_file(source, options->id, file_properties(options),
                               error);
    } else {
        source->authz = make_authz(options, error);
        ok = source->authz != NULL;
    }
    if (!ok) {
        bf_authz_source_free(source);
        return NULL;
    }
    return source;
}

void
bf_authz_source_free(BfAuthzSource *source)
{
    if (source->file != NULL) {
        source->file->source = NULL;
        bf_cancel_fire(&source->file->cancel);
        list_file_unref(source->file);
    }
    bf_authz_unref(source->authz);
    g_free(source);
}

bool
bf_authz_source_change(BfAuthzSource *source, const BfObjectOptions *old,
                       BfObjectOptions *options, GError **error)
{
    BfAuthz *authz;

    if (is_file_kind(options)) {
        const BfAuthZListFileProperties *before = file_properties(old);
        const BfAuthZListFileProperties *after = file_properties(options);

        if (strcmp(before->filename, after->filename) == 0 &&
            before->refresh == after->refresh) {
            return true;
        }
        bf_set_error(error,
                     "filename and refresh of '%s' cannot be changed: delete "
                     "the object and add it again, which denies everybody in "
                     "between, or write to the file",
                     options->id);
        return false;
    }
    authz = make_authz(options, error);
    if (authz == NULL) {
        return false;
    }
    set_authz(source, authz);
    return true;
}

BfAuthz *
bf_authz_source_get(const BfAuthzSource *source)
{
    return source->authz;
}
