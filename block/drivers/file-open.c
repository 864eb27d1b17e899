/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * file and host_device: opening, what there is to know about a descriptor,
 * resizing. Every call that could wait for storage runs on the node's threads.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "file-private.h"

/* What to assume of O_DIRECT when nobody can tell. */
#define DIRECT_ALIGN_SAFE 4096
#define DIRECT_ALIGN_MAX 65536

#define FDSET_PREFIX "/dev/fdset/"

/* File systems that answer without network or another program; magic numbers
 * that linux/magic.h of Debian 12 does not have. */
#define MAGIC_ZFS 0x2fc12fc1
#define MAGIC_BCACHEFS 0xca451a4e
#define MAGIC_XFS 0x58465342

typedef enum OpenProblem {
    OPEN_FINE,
    OPEN_FAILED,
    OPEN_WRONG_TYPE,
    OPEN_NO_SIZE,
    OPEN_REPLACED,
} OpenProblem;

/* One call on a thread of the pool: opens, unless @desc.fd is given. */
typedef struct OpenCall {
    FileCall call;    /* used when there is a time limit */
    const char *path; /* borrowed: the node is not closed before */
    int old_fd;       /* open the same file again; or -1 */
    bool device;
    bool writable;
    bool direct;
    FileDesc desc;
    OpenProblem problem;
    int err;
} OpenCall;

static int
open_flags(bool writable, bool direct)
{
    return O_CLOEXEC | O_NOCTTY | (writable ? O_RDWR : O_RDONLY) |
           (direct ? O_DIRECT : 0);
}

static bool
is_local(long magic)
{
    switch (magic) {
    case EXT4_SUPER_MAGIC:
    case MAGIC_XFS:
    case BTRFS_SUPER_MAGIC:
    case F2FS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case RAMFS_MAGIC:
    case MAGIC_ZFS:
    case MAGIC_BCACHEFS:
        return true;
    default:
        return false;
    }
}

static void
note_file_system(FileDesc *desc)
{
    struct statfs fs;

    if (desc->kind == FILE_BLOCK) {
        desc->local = true;
    } else if (fstatfs(desc->fd, &fs) == 0) {
        desc->local = is_local((long)fs.f_type);
        desc->in_memory = fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
    }
}

/* Tries reads of growing alignment until the kernel takes one. */
static uint32_t
probe_align(int fd)
{
    char *buf = bf_buffer_new(DIRECT_ALIGN_MAX);
    uint32_t align = DIRECT_ALIGN_SAFE;

    if (buf == NULL) {
        return align;
    }
    for (uint32_t try = 512; try <= DIRECT_ALIGN_MAX; try *= 2) {
        if (pread(fd, buf, try, 0) >= 0) {
            align = try;
            break;
        }
    }
    bf_buffer_free(buf, DIRECT_ALIGN_MAX);
    return align;
}

static void
note_direct_align(FileDesc *desc)
{
    int sector = 0;

    desc->align = 1;
    desc->buffer_align = 1;
    if (!desc->direct) {
        return;
    }
#ifdef STATX_DIOALIGN
    struct statx stx;

    if (statx(desc->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
        (stx.stx_mask & STATX_DIOALIGN) != 0 && stx.stx_dio_offset_align > 0 &&
        stx.stx_dio_offset_align <= DIRECT_ALIGN_MAX) {
        desc->align = stx.stx_dio_offset_align;
        desc->buffer_align = MAX(stx.stx_dio_mem_align, desc->align);
        return;
    }
#endif
    if (desc->kind == FILE_BLOCK && ioctl(desc->fd, BLKSSZGET, &sector) == 0 &&
        sector >= 512 && sector <= DIRECT_ALIGN_MAX) {
        desc->align = (uint32_t)sector;
    } else if (desc->size == 0) {
        desc->align = DIRECT_ALIGN_SAFE; /* nothing there to probe with */
    } else {
        desc->align = probe_align(desc->fd);
    }
    desc->buffer_align = MAX(desc->align, 512);
}

bool
file_note_size(FileDesc *desc, const struct stat *st)
{
    off_t end;

    desc->device = st->st_dev;
    desc->inode = st->st_ino;
    desc->actual_size = (uint64_t)st->st_blocks * 512;
    if (desc->kind == FILE_REGULAR) {
        desc->size = (uint64_t)st->st_size;
        return true;
    }
    if (desc->kind == FILE_BLOCK) {
        return ioctl(desc->fd, BLKGETSIZE64, &desc->size) == 0;
    }
    end = lseek(desc->fd, 0, SEEK_END);
    desc->size = end > 0 ? (uint64_t)end : 0;
    return end >= 0;
}

static bool
note_kind(FileDesc *desc, mode_t mode, bool device)
{
    desc->kind = S_ISREG(mode)   ? FILE_REGULAR
                 : S_ISBLK(mode) ? FILE_BLOCK
                                 : FILE_CHAR;
    return device ? S_ISBLK(mode) || S_ISCHR(mode) : S_ISREG(mode);
}

static OpenProblem
failed(OpenCall *call, OpenProblem problem)
{
    call->err = errno;
    return problem;
}

/* Opens by path, or by what is open already: the name may be gone by now. */
static int
open_any(const OpenCall *call)
{
    int flags = open_flags(call->writable, call->direct);
    char proc[64];
    int fd = -1;

    if (call->old_fd >= 0) {
        g_snprintf(proc, sizeof(proc), "/proc/self/fd/%d", call->old_fd);
        fd = open(proc, flags);
        if (fd >= 0 || errno != ENOENT) {
            return fd;
        }
    }
    return open(call->path, flags);
}

static bool
is_same_file(int fd, const struct stat *st)
{
    struct stat other;

    return fstat(fd, &other) == 0 && other.st_dev == st->st_dev &&
           other.st_ino == st->st_ino;
}

/*
 * A duplicate from a set has its locks in common with all others of the same
 * descriptor, so that the end of one node would unlock the image of another.
 * If we may open the file ourselves, the node gets locks of its own.
 */
static void
part_from_set(FileDesc *desc)
{
    const int kept = O_ACCMODE | O_DIRECT | O_DSYNC | O_SYNC | O_NOATIME;
    char proc[64];
    int fd;

    if (desc->kind != FILE_REGULAR) {
        return; /* to open a device may do more than that */
    }
    g_snprintf(proc, sizeof(proc), "/proc/self/fd/%d", desc->fd);
    fd = open(proc, (fcntl(desc->fd, F_GETFL) & kept) | O_CLOEXEC | O_NOCTTY);
    if (fd >= 0) {
        close(desc->fd);
        desc->fd = fd;
    }
}

static OpenProblem
open_and_look(OpenCall *call)
{
    FileDesc *desc = &call->desc;
    bool from_set = desc->fd >= 0;
    struct stat st;

    /* Opening the wrong thing can block (a FIFO) or do harm (a device). */
    if (desc->fd < 0) {
        if (call->old_fd < 0 && stat(call->path, &st) < 0) {
            return failed(call, OPEN_FAILED);
        }
        if (call->old_fd < 0 && !note_kind(desc, st.st_mode, call->device)) {
            call->err = S_ISDIR(st.st_mode) && call->writable ? EISDIR : 0;
            return call->err != 0 ? OPEN_FAILED : OPEN_WRONG_TYPE;
        }
        desc->fd = open_any(call);
    }
    if (desc->fd < 0 || fstat(desc->fd, &st) < 0) {
        return failed(call, OPEN_FAILED);
    }
    if (!note_kind(desc, st.st_mode, call->device)) {
        return OPEN_WRONG_TYPE;
    }
    if (call->old_fd >= 0 && !is_same_file(call->old_fd, &st)) {
        return OPEN_REPLACED;
    }
    if (from_set) {
        part_from_set(desc);
    }
    desc->direct = (fcntl(desc->fd, F_GETFL) & O_DIRECT) != 0;
    desc->writable = call->writable;
    if (!file_note_size(desc, &st)) {
        return failed(call, OPEN_NO_SIZE);
    }
    note_file_system(desc);
    note_direct_align(desc);
    return OPEN_FINE;
}

static void
run_open(void *arg)
{
    OpenCall *call = arg;

    call->problem = open_and_look(call);
    if (call->problem != OPEN_FINE && call->desc.fd >= 0) {
        close(call->desc.fd);
    }
}

static void
set_open_error(const OpenCall *call, GError **error)
{
    const char *hint = "";

    if (call->err == EINVAL && call->direct) {
        hint = " (perhaps the file system has no O_DIRECT; try without "
               "cache.direct)";
    } else if (call->writable && (call->err == EACCES || call->err == EPERM ||
                                  call->err == EROFS)) {
        hint = " (it is to be written; read-only=on and auto-read-only=on "
               "need less)";
    }
    bf_set_error(error, "Could not open '%s': %s%s", call->path,
                 g_strerror(call->err), hint);
}

static void
set_error(const OpenCall *call, GError **error)
{
    switch (call->problem) {
    case OPEN_FINE:
        break;
    case OPEN_FAILED:
        set_open_error(call, error);
        break;
    case OPEN_WRONG_TYPE:
        if (call->device) {
            bf_set_error(error,
                         "'host_device' driver requires '%s' to be either a "
                         "character or block device",
                         call->path);
        } else {
            bf_set_error(error,
                         "'file' driver requires '%s' to be a regular file",
                         call->path);
        }
        break;
    case OPEN_NO_SIZE:
        bf_set_errno(error, call->err, "Could not determine the size of '%s'",
                     call->path);
        break;
    case OPEN_REPLACED:
        bf_set_error(error, "'%s' is another file by now than the open one",
                     call->path);
        break;
    }
}

static bool
open_call_init(OpenCall *call, BfFileNode *self, bool writable, bool direct,
               GError **error)
{
    *call = (OpenCall){
        .path = self->path,
        .old_fd = self->desc.fd,
        .device = self->base.driver->kind == BF_BLOCKDEV_DRIVER_HOST_DEVICE,
        .writable = writable,
        .direct = direct,
        .desc.fd = -1,
    };
    if (g_str_has_prefix(self->path, FDSET_PREFIX)) {
        /* Only the set knows a descriptor with the right access mode. */
        call->old_fd = -1;
        call->desc.fd = bf_node_open_fdset(&self->base, self->path,
                                           open_flags(writable, direct), error);
        return call->desc.fd >= 0;
    }
    return true;
}

static bool
open_call_finish(const OpenCall *call, FileDesc *ret_desc, GError **error)
{
    if (call->problem != OPEN_FINE) {
        set_error(call, error);
        return false;
    }
    *ret_desc = call->desc;
    return true;
}

/* The first time; outside of the graph, so that it may take its time. */
static bool
co_open_first(BfFileNode *self, bool writable, FileDesc *ret_desc,
              GError **error)
{
    OpenCall call;

    if (!open_call_init(&call, self, writable, self->base.settings.direct,
                        error)) {
        return false;
    }
    bf_node_co_offload(&self->base, run_open, &call);
    return open_call_finish(&call, ret_desc, error);
}

static void
close_late(void *arg)
{
    const OpenCall *call = arg;

    close(call->desc.fd);
}

static void
co_opened_too_late(FileCall *call)
{
    if (((OpenCall *)call)->problem == OPEN_FINE) {
        bf_node_co_offload(&call->self->base, close_late, call);
    }
}

bool
file_co_open_again(BfFileNode *self, bool writable, bool direct,
                   FileDesc *ret_desc, GError **error)
{
    OpenCall *call;
    bool ok;

    /* A call that is not even tried would leave its descriptor open. */
    if (!file_check_not_stuck(self, error)) {
        return false;
    }
    call = g_new0(OpenCall, 1);
    if (!open_call_init(call, self, writable, direct, error)) {
        g_free(call);
        return false;
    }
    call->call =
        (FileCall){.self = self, .fn = run_open, .co_late = co_opened_too_late};
    if (!file_co_call(&call->call, error)) {
        return false;
    }
    ok = open_call_finish(call, ret_desc, error);
    g_free(call);
    return ok;
}

typedef struct CloseCall {
    FileCall call;
    int fd;
    bool sync;
} CloseCall;

/*
 * A ring keeps a file for a moment after its last request was answered. So the
 * last flush is made here and not through a ring, and the locks are given up
 * by themselves: who asked for the end of a node may rely on both.
 */
static void
run_close(void *arg)
{
    const CloseCall *call = arg;

    if (call->sync) {
        fdatasync(call->fd); /* there is nobody left to tell of a failure */
    }
    file_unlock_all(call->fd);
    close(call->fd);
}

static void
close_fd(void *arg)
{
    close(GPOINTER_TO_INT(arg));
}

static void
co_close(BfFileNode *self, FileDesc *desc, bool sync)
{
    CloseCall *call;
    int fd = desc->fd;

    desc->fd = -1;
    if (fd < 0) {
        return;
    }
    if (self->stuck) {
        /* If the lane has no thread, none is stuck. */
        if (!bf_pool_lane_push(self->base.lane, close_fd,
                               GINT_TO_POINTER(fd))) {
            close(fd);
        }
        return;
    }
    call = g_new0(CloseCall, 1);
    call->call = (FileCall){.self = self, .fn = run_close};
    call->fd = fd;
    call->sync = sync;
    if (file_co_call(&call->call, NULL)) {
        g_free(call);
    }
}

void
file_co_close_desc(BfFileNode *self, FileDesc *desc)
{
    co_close(self, desc, false);
}

void
file_use_desc(BfFileNode *self, const FileDesc *desc)
{
    BfNode *node = &self->base;

    self->desc = *desc;
    self->was_writable |= desc->writable;
    node->alignment = desc->align;
    node->limits.alignment = desc->align;
    node->limits.preferred = MAX(desc->align, 4096);
    if (desc->kind == FILE_BLOCK) {
        node->zero_alignment = MAX(desc->align, 4096);
        node->discard_alignment = MAX(desc->align, 4096);
    }
    /* What an old descriptor could not do, this one perhaps can. */
    bf_atomic_store(&self->no_nowait, 0);
    bf_atomic_store(&self->no_punch, 0);
    bf_atomic_store(&self->no_zero_range, 0);
    bf_atomic_store(&self->no_discard, 0);
    bf_atomic_store(&self->no_cachestat, 0);
    bf_atomic_store(&self->pace.slow_until_ns, 0);
    bf_atomic_store(&self->flush_error, 0);
}

typedef struct AccessCall {
    FileCall call; /* used when there is a time limit */
    bool writable;
} AccessCall;

static void
check_access(void *arg)
{
    AccessCall *call = arg;
    const char *path = call->call.self->path;

    call->writable = faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) == 0 ||
                     (errno != EACCES && errno != EROFS && errno != EPERM);
}

/* With auto-read-only, a file that cannot be written makes the node so. */
static bool
needs_check(const BfFileNode *self, const BfNodeSettings *settings)
{
    return settings->auto_read_only && !settings->read_only &&
           !g_str_has_prefix(self->path, FDSET_PREFIX);
}

/* The first time; outside of the graph, so that it may take its time. */
static void
co_apply_auto_read_only(BfFileNode *self, BfNodeSettings *settings)
{
    AccessCall call = {.call.self = self};

    if (needs_check(self, settings)) {
        bf_node_co_offload(&self->base, check_access, &call);
        settings->read_only = settings->fell_back = !call.writable;
    }
}

static bool
co_renew_auto_read_only(BfFileNode *self, BfNodeSettings *settings,
                        GError **error)
{
    AccessCall *call;

    if (!needs_check(self, settings)) {
        return true;
    }
    call = g_new0(AccessCall, 1);
    call->call = (FileCall){.self = self, .fn = check_access};
    if (!file_co_call(&call->call, error)) {
        return false;
    }
    settings->read_only = settings->fell_back = !call->writable;
    g_free(call);
    return true;
}

static bool
check_options(BfFileNode *self, const BfBlockdevOptionsFile *opts,
              GError **error)
{
    if (opts->aio == BF_BLOCKDEV_AIO_OPTIONS_NATIVE &&
        !bf_node_settings_to_be(&self->base)->direct) {
        bf_set_error(error, "aio=native was specified, but it requires "
                            "cache.direct=on, which was not specified.");
        return false;
    }
    if (opts->pr_manager != NULL) {
        bf_set_error(error,
                     "pr-manager '%s' is not supported; leave the option out",
                     opts->pr_manager);
        return false;
    }
    return true;
}

bool
file_co_open(BfNode *node, const BfBlockdevOptions *options, BfOpenContext *ctx,
             GError **error)
{
    BfFileNode *self = (BfFileNode *)node;
    const BfBlockdevOptionsFile *opts = file_options(options);
    bool writable;
    FileDesc desc;

    self->desc.fd = -1;
    self->next.fd = -1;
    self->path = g_strdup(opts->filename);
    self->locking = opts->locking != BF_ON_OFF_AUTO_OFF;
    self->locking_forced = opts->locking == BF_ON_OFF_AUTO_ON;
    if (!check_options(self, opts, error)) {
        return false;
    }
    co_apply_auto_read_only(self, &node->settings);
    /* With auto-read-only it becomes writable when the first writer comes. */
    writable = !node->settings.read_only && !node->settings.auto_read_only;
    if (!co_open_first(self, writable, &desc, error)) {
        return false;
    }
    file_use_desc(self, &desc);
    node->size = desc.size;
    return true;
}

void
file_co_close(BfNode *node)
{
    BfFileNode *self = (BfFileNode *)node;

    if (self->path == NULL) {
        return;
    }
    file_co_wait_unstuck(self);
    /* What was written may still be in the cache, although the writers are
     * gone and with auto-read-only the access mode is another by now. */
    co_close(self, &self->desc,
             self->was_writable && node->active && !node->settings.no_flush);
    file_co_wait_unstuck(self);
    g_free(self->path);
}

bool
file_co_reopen_prepare(BfNode *node, const BfBlockdevOptions *options,
                       const BfNode *file, GError **error)
{
    BfFileNode *self = (BfFileNode *)node;

    return co_renew_auto_read_only(self, node->settings_plan, error) &&
           check_options(self, file_options(options), error);
}

typedef struct ResizeCall {
    FileCall call;
    FileDesc desc; /* gets the new size */
    uint64_t old_size;
    uint64_t size;
    int err;
} ResizeCall;

static void
run_resize(void *arg)
{
    ResizeCall *call = arg;

    call->err = 0;
    if (call->desc.kind == FILE_REGULAR) {
        if (ftruncate(call->desc.fd, (off_t)call->size) < 0) {
            call->err = errno;
        } else {
            call->desc.size = call->size;
        }
    } else if (ioctl(call->desc.fd, BLKGETSIZE64, &call->desc.size) < 0) {
        call->err = errno;
    }
}

static void
undo_resize(void *arg)
{
    ResizeCall *call = arg;

    if (ftruncate(call->desc.fd, (off_t)call->old_size) < 0) {
        call->err = errno;
    }
}

/* The node has its old size, and so has the file to have it. */
static void
co_resized_too_late(FileCall *file_call)
{
    ResizeCall *call = (ResizeCall *)file_call;
    BfNode *node = &call->call.self->base;

    if (call->err != 0 || call->desc.size == call->old_size ||
        call->desc.kind != FILE_REGULAR) {
        return;
    }
    bf_node_co_offload(node, undo_resize, call);
    bf_node_notice(node, true,
                   "the storage has resized '%s' to %" PRIu64
                   " bytes when that had failed already; taken back to %" PRIu64
                   ": %s",
                   call->call.self->path, call->size, call->old_size,
                   g_strerror(call->err));
}

/* Devices have the size they have; what is new is what they say by now. */
bool
file_co_resize(BfNode *node, uint64_t size, GError **error)
{
    BfFileNode *self = (BfFileNode *)node;
    ResizeCall *call;
    int err;

    if (self->desc.kind == FILE_CHAR) {
        bf_set_error(error, "Cannot resize character devices");
        return false;
    }
    call = g_new0(ResizeCall, 1);
    call->call = (FileCall){
        .self = self,
        .fn = run_resize,
        .co_late = co_resized_too_late,
    };
    call->desc = self->desc;
    call->old_size = self->desc.size;
    call->size = size;
    if (!file_co_call(&call->call, error)) {
        return false;
    }
    err = call->err;
    self->desc.size = call->desc.size;
    g_free(call);
    if (err != 0) {
        bf_set_errno(error, err, "Failed to resize '%s'", self->path);
        return false;
    }
    if (self->desc.kind == FILE_BLOCK && size != self->desc.size) {
        bf_set_error(error, size > self->desc.size
                                ? "Cannot grow device files"
                                : "Cannot resize device files");
        return false;
    }
    node->size = size;
    return true;
}

void
file_query(BfNode *node, BfNodeInfo *info)
{
    const BfFileNode *self = (const BfFileNode *)node;
    struct stat st;

    info->filename = g_strdup(self->path);
    info->has_actual_size = true;
    info->actual_size = self->desc.actual_size;
    /* Elsewhere fstat() may wait; then it is the size when it was opened. */
    if (self->desc.local && fstat(self->desc.fd, &st) == 0) {
        info->actual_size = (uint64_t)st.st_blocks * 512;
    }
}

bool
file_is_on_file(const BfNode *node, dev_t device, ino_t inode)
{
    const FileDesc *desc = &((const BfFileNode *)node)->desc;

    return desc->device == device && desc->inode == inode;
}
