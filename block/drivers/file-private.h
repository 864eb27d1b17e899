/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the sources of the file driver share: file.c (data), file-open.c
 * (open, close, resize) and file-lock.c (permissions, locks, reopening).
 */
#pragma once

#include <sys/stat.h>

#include "block/driver.h"
#include "core/atomic.h"
#include "file-pace-private.h"

typedef enum FileKind {
    FILE_REGULAR,
    FILE_BLOCK,
    FILE_CHAR,
} FileKind;

/*
 * What there is to know about an open descriptor.
 * @direct: opened with O_DIRECT
 * @writable: opened for writing
 * @local: on a file system or device that is known not to make us wait for a
 *     network or another program
 * @in_memory: tmpfs; there is no disk to wait for
 * @buffer_align: what O_DIRECT needs of buffers
 * @size: bytes, exactly
 */
typedef struct FileDesc {
    int fd; /* owned; -1 if there is none */
    FileKind kind;
    bool direct;
    bool writable;
    bool local;
    bool in_memory;
    dev_t device; /* which file it is, with @inode */
    ino_t inode;
    uint32_t align;
    uint32_t buffer_align;
    uint64_t size;
    uint64_t actual_size;
} FileDesc;

/* OFD locks held on a descriptor: bits as in BfPerm. */
typedef struct FileLocks {
    unsigned perm;
    unsigned unshared;
} FileLocks;

typedef struct BfFileNode BfFileNode;
typedef struct FileCall FileCall;

/*
 * A call with a time limit: the first member of a struct on the heap that has
 * its arguments and results.
 * @fn: runs on a thread of the node's; its argument is the call
 * @co_late: if the call comes back after its time; or NULL
 */
struct FileCall {
    BfFileNode *self;
    BfFn *fn;
    void (*co_late)(FileCall *call);
    bool done;
    bool expired;
    bool left;
    BfCoQueue queue;
};

struct BfFileNode {
    BfNode base;
    FileDesc desc;       /* changes only while drained */
    char *path;          /* owned */
    bool was_writable;   /* something may have been written */
    bool locking;        /* locks are taken */
    bool locking_forced; /* locking=on: they must work */

    /* Learnt while running, by any loop. */
    BfAtomicU64 no_nowait;
    BfAtomicU64 no_punch;
    BfAtomicU64 no_zero_range;
    BfAtomicU64 no_discard;
    BfAtomicU64 no_cachestat;
    BfAtomicU64 flush_error; /* an errno that stays; see file_co_flush() */
    BfFilePace pace;

    /* Main: locks held and planned, and the descriptor that is to come. */
    FileLocks held;
    FileLocks planned;
    FileDesc next;
    bool stuck;        /* a call did not come back in time */
    BfCoQueue unstuck; /* waits for it to come back */
};

/* Fails if a call that did not come back in time is still under way. */
bool file_check_not_stuck(const BfFileNode *self, GError **error);
/*
 * Makes the call. Returns true if it came back in time: the caller then frees
 * it. Otherwise it is gone for the caller, and what it owns only if the node
 * was not stuck before.
 */
bool file_co_call(FileCall *call, GError **error);
/* Waits for a call that did not come back in time. */
void file_co_wait_unstuck(BfFileNode *self);
/* After such a call: brings the locks to what the node's users need. */
void file_co_settle_locks(BfFileNode *self);
/* On a thread of the pool: locks @fd, a file that is to be emptied. */
bool file_lock_to_create(int fd, const char *path, GError **error);
/* On a thread of the pool: gives up all locks of @fd. */
void file_unlock_all(int fd);

/* Opens what is open already once more, in another way. */
bool file_co_open_again(BfFileNode *self, bool writable, bool direct,
                        FileDesc *ret_desc, GError **error);
/* Closes; if that takes too long, it goes on by itself. */
void file_co_close_desc(BfFileNode *self, FileDesc *desc);
/* On a thread of the pool: sets the sizes of @desc; false with errno. */
bool file_note_size(FileDesc *desc, const struct stat *st);
/* Makes @desc the one in use. */
void file_use_desc(BfFileNode *self, const FileDesc *desc);

/* Operations of the driver, for its table. */
bool file_co_open(BfNode *node, const BfBlockdevOptions *options,
                  BfOpenContext *ctx, GError **error);
void file_co_close(BfNode *node);
bool file_co_reopen_prepare(BfNode *node, const BfBlockdevOptions *options,
                            const BfNode *file, GError **error);
bool file_co_resize(BfNode *node, uint64_t size, GError **error);
void file_co_invalidate(BfNode *node);
void file_query(BfNode *node, BfNodeInfo *info);
bool file_is_on_file(const BfNode *node, dev_t device, ino_t inode);
bool file_co_create(BfGraph *graph, BfJob *job,
                    const BfBlockdevCreateOptions *options, GError **error);
bool file_co_perm_prepare(BfNode *node, unsigned perm, unsigned shared,
                          bool *ret_needs_drain, GError **error);
void file_co_perm_commit(BfNode *node);
void file_co_perm_abort(BfNode *node);

static inline const BfBlockdevOptionsFile *
file_options(const BfBlockdevOptions *options)
{
    return options->driver == BF_BLOCKDEV_DRIVER_FILE ? options->u.file
                                                      : options->u.host_device;
}
