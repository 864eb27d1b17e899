/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * file and host_device: locks against other programs, and the change of the
 * descriptor that goes with permissions (auto-read-only) or with a reopen.
 *
 * The locks are those of QEMU, so that both exclude each other: byte 100 + n
 * is locked by whoever has permission n, byte 200 + n by whoever does not let
 * others have it. Locks are shared ones, of the open file description (OFD).
 * Who wants a permission looks whether somebody holds the opposite byte. So
 * that two who start at once do not miss each other, locks come first and the
 * look after.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "file-private.h"

#define LOCK_PERM_BASE 100
#define LOCK_SHARED_BASE 200
#define LOCK_PERMS 4

static const char *const perm_names[LOCK_PERMS] = {
    "consistent read",
    "write",
    "write unchanged",
    "resize",
};

/* One call on a thread of the pool. */
typedef struct LockCall {
    FileCall call;
    int fd;
    FileLocks held; /* inout */
    FileLocks wanted;
    bool release; /* also unlock what is not wanted */
    bool check;   /* look for conflicts afterwards */
    int err;      /* errno of fcntl(), or 0 */
    int conflict; /* the permission somebody else denies, or -1 */
    int denied;   /* the one that we deny but somebody else has, or -1 */
} LockCall;

static int
set_lock(int fd, off_t byte, short type)
{
    struct flock lock = {
        .l_whence = SEEK_SET,
        .l_start = byte,
        .l_len = 1,
        .l_type = type,
    };
    int ret;

    do {
        ret = fcntl(fd, F_OFD_SETLK, &lock);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? errno : 0;
}

void
file_unlock_all(int fd)
{
    for (int i = 0; i < LOCK_PERMS; i++) {
        set_lock(fd, LOCK_PERM_BASE + i, F_UNLCK);
        set_lock(fd, LOCK_SHARED_BASE + i, F_UNLCK);
    }
}

/* Does somebody else hold @byte? */
static bool
is_locked(int fd, off_t byte)
{
    struct flock lock = {
        .l_whence = SEEK_SET,
        .l_start = byte,
        .l_len = 1,
        .l_type = F_WRLCK,
    };

    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static int
lock_bytes(int fd, off_t base, unsigned *held, unsigned wanted, bool release)
{
    for (unsigned i = 0; i < LOCK_PERMS; i++) {
        unsigned bit = 1u << i;
        int err = 0;

        if ((wanted & ~*held & bit) != 0) {
            err = set_lock(fd, base + i, F_RDLCK);
            *held |= err == 0 ? bit : 0;
        } else if (release && (*held & ~wanted & bit) != 0) {
            err = set_lock(fd, base + i, F_UNLCK);
            *held &= err == 0 ? ~bit : UINT_MAX;
        }
        if (err != 0) {
            return err;
        }
    }
    return 0;
}

static void
look_for_conflicts(LockCall *call)
{
    for (int i = 0; i < LOCK_PERMS; i++) {
        if ((call->wanted.perm & (1u << i)) != 0 &&
            is_locked(call->fd, LOCK_SHARED_BASE + i)) {
            call->conflict = i;
            return;
        }
        if ((call->wanted.unshared & (1u << i)) != 0 &&
            is_locked(call->fd, LOCK_PERM_BASE + i)) {
            call->denied = i;
            return;
        }
    }
}

static void
run_lock(void *arg)
{
    LockCall *call = arg;

    call->conflict = -1;
    call->denied = -1;
    call->err = lock_bytes(call->fd, LOCK_PERM_BASE, &call->held.perm,
                           call->wanted.perm, call->release);
    if (call->err == 0) {
        call->err = lock_bytes(call->fd, LOCK_SHARED_BASE, &call->held.unshared,
                               call->wanted.unshared, call->release);
    }
    if (call->err == 0 && call->check) {
        look_for_conflicts(call);
    }
}

/* File systems without locks: with locking=auto we do without. */
static bool
is_no_locks(int err)
{
    return err == EINVAL || err == ENOLCK || err == ENOSYS || err == EOPNOTSUPP;
}

bool
file_lock_to_create(int fd, const char *path, GError **error)
{
    LockCall call = {
        .fd = fd,
        .wanted = {.perm = BF_PERM_WRITE | BF_PERM_RESIZE,
                   .unshared = BF_PERM_RESIZE},
        .check = true,
    };

    run_lock(&call);
    if (call.err != 0 && !is_no_locks(call.err)) {
        bf_set_errno(error, call.err, "Failed to lock '%s'", path);
        return false;
    }
    if (call.err == 0 && (call.conflict >= 0 || call.denied >= 0)) {
        bf_set_error(error,
                     "Failed to get \"%s\" lock: '%s' is in use; give another "
                     "path or stop its user first",
                     perm_names[MAX(call.conflict, call.denied)], path);
        return false;
    }
    return true;
}

static bool
is_empty(FileLocks locks)
{
    return locks.perm == 0 && locks.unshared == 0;
}

static bool
is_part_of(FileLocks locks, FileLocks of)
{
    return (locks.perm & ~of.perm) == 0 && (locks.unshared & ~of.unshared) == 0;
}

static LockCall *
lock_call_new(BfFileNode *self, int fd, FileLocks held, FileLocks wanted)
{
    LockCall *call = g_new0(LockCall, 1);

    call->call = (FileCall){.self = self, .fn = run_lock};
    call->fd = fd;
    call->held = held;
    call->wanted = wanted;
    return call;
}

/* The locks that the node's users need at present. */
static FileLocks
needed_locks(const BfFileNode *self)
{
    FileLocks locks = {0};

    if (self->locking) {
        locks.perm = self->base.perm;
        locks.unshared = ~self->base.shared & BF_PERM_ALL;
    }
    return locks;
}

/* A call on the descriptor in use came back after its time. */
static void
co_locked_too_late(FileCall *call)
{
    call->self->held = ((LockCall *)call)->held;
}

void
file_co_settle_locks(BfFileNode *self)
{
    LockCall call = {
        .fd = self->desc.fd,
        .held = self->held,
        .wanted = needed_locks(self),
        .release = true,
    };

    if (self->desc.fd >= 0) {
        bf_node_co_offload(&self->base, run_lock, &call);
        self->held = call.held;
    }
}

/* Brings the locks on the descriptor in use to exactly @wanted. */
static void
co_release_to(BfFileNode *self, FileLocks wanted)
{
    LockCall *call;

    if (self->held.perm == wanted.perm &&
        self->held.unshared == wanted.unshared) {
        return;
    }
    call = lock_call_new(self, self->desc.fd, self->held, wanted);
    call->release = true;
    call->call.co_late = co_locked_too_late;
    if (file_co_call(&call->call, NULL)) {
        self->held = call->held;
        g_free(call);
    }
}

static void
set_lock_error(BfFileNode *self, const LockCall *call, GError **error)
{
    if (call->err != 0) {
        bf_set_errno(error, call->err,
                     "Failed to lock '%s' (locking=off does without)",
                     self->path);
    } else if (call->conflict >= 0) {
        bf_set_error(error,
                     "Failed to get \"%s\" lock: another program, or another "
                     "node here, uses '%s' and does not let others do that; "
                     "stop it first",
                     perm_names[call->conflict], self->path);
    } else {
        bf_set_error(error,
                     "Failed to get shared \"%s\" lock: another program, or "
                     "another node here, uses '%s' and needs that; stop it "
                     "first, or open the image with read-only=on and "
                     "force-share=on",
                     perm_names[call->denied], self->path);
    }
}

static bool
co_plan_locks(BfFileNode *self, unsigned perm, unsigned shared, GError **error)
{
    const FileLocks wanted = {perm, ~shared & BF_PERM_ALL};
    FileLocks before = self->held;
    LockCall *call;
    bool ok = true;

    self->planned = (FileLocks){0};
    if (!self->locking) {
        return true;
    }
    /* Giving back asks nobody, and waits for nothing before the commit. */
    if (is_part_of(wanted, before)) {
        self->planned = wanted;
        return true;
    }
    call = lock_call_new(self, self->desc.fd, before, wanted);
    call->check = true;
    call->call.co_late = co_locked_too_late;
    if (!file_co_call(&call->call, error)) {
        return false;
    }
    self->held = call->held;
    if (is_no_locks(call->err) && !self->locking_forced) {
        self->locking = false;
    } else if (call->err != 0 || call->conflict >= 0 || call->denied >= 0) {
        set_lock_error(self, call, error);
        co_release_to(self, before);
        ok = false;
    } else {
        self->planned = wanted;
    }
    g_free(call);
    return ok;
}

static void
close_next(void *arg)
{
    const LockCall *call = arg;

    close(call->fd);
}

static void
co_next_locked_too_late(FileCall *call)
{
    bf_node_co_offload(&call->self->base, close_next, call);
}

/* The new descriptor gets its own locks before the old one loses them. */
static bool
co_lock_next(BfFileNode *self, GError **error)
{
    LockCall *call;
    bool ok;

    if (!self->locking || is_empty(self->planned)) {
        return true;
    }
    call = lock_call_new(self, self->next.fd, (FileLocks){0}, self->planned);
    call->call.co_late = co_next_locked_too_late;
    if (!file_co_call(&call->call, error)) {
        self->next.fd = -1; /* the call has it */
        return false;
    }
    ok = call->err == 0;
    if (!ok) {
        set_lock_error(self, call, error);
    }
    g_free(call);
    return ok;
}

/*
 * Opens anew if the access mode or O_DIRECT change, or if a failed flush has
 * left the old descriptor in doubt and the administrator asks for it.
 */
static bool
co_plan_desc(BfFileNode *self, unsigned perm, bool *ret_needs_drain,
             GError **error)
{
    const BfNode *node = &self->base;
    const BfNodeSettings *settings = bf_node_settings_to_be(node);
    bool has_writer =
        (perm & (BF_PERM_WRITE | BF_PERM_WRITE_UNCHANGED | BF_PERM_RESIZE)) !=
        0;
    bool writable =
        !settings->read_only && (!settings->auto_read_only || has_writer);
    bool renew =
        node->settings_plan != NULL && bf_atomic_load(&self->flush_error) != 0;

    if (writable == self->desc.writable &&
        settings->direct == self->desc.direct && !renew) {
        return true;
    }
    if (!file_co_open_again(self, writable, settings->direct, &self->next,
                            error)) {
        return false;
    }
    *ret_needs_drain = true;
    return true;
}

static bool
gives_back(const BfNode *node, unsigned perm, unsigned shared)
{
    return node->settings_plan == NULL && (perm & ~node->perm) == 0 &&
           (node->shared & ~shared) == 0;
}

bool
file_co_perm_prepare(BfNode *node, unsigned perm, unsigned shared,
                     bool *ret_needs_drain, GError **error)
{
    BfFileNode *self = (BfFileNode *)node;
    FileLocks before = self->held;
    g_autoptr(GError) local = NULL;

    if (!co_plan_locks(self, perm, shared, error)) {
        return false;
    }
    self->next.fd = -1;
    if (!co_plan_desc(self, perm, ret_needs_drain, &local)) {
        /* A descriptor that can do more than it needs to does no harm. */
        if (gives_back(node, perm, shared)) {
            return true;
        }
        g_propagate_error(error, g_steal_pointer(&local));
        co_release_to(self, before);
        return false;
    }
    if (self->next.fd >= 0 && !co_lock_next(self, error)) {
        file_co_close_desc(self, &self->next);
        co_release_to(self, before);
        return false;
    }
    return true;
}

void
file_co_perm_commit(BfNode *node)
{
    BfFileNode *self = (BfFileNode *)node;
    FileDesc old = self->desc;

    if (self->next.fd < 0) {
        co_release_to(self, self->planned);
        return;
    }
    file_use_desc(self, &self->next);
    self->next.fd = -1;
    self->held = self->planned;
    file_co_close_desc(self, &old); /* and with it its locks */
}

void
file_co_perm_abort(BfNode *node)
{
    BfFileNode *self = (BfFileNode *)node;

    file_co_close_desc(self, &self->next);
    co_release_to(self, needed_locks(self));
}
