/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Block drivers: what a driver provides, and what it may rely on.
 *
 * Control operations (open to query) run on main, one at a time for a node,
 * and never while a request is under way where it says so ("drained"). What
 * may block goes through bf_node_co_offload(). Data operations run on the
 * node's home loop; if the driver has @any_loop, on every loop, several at
 * once. The request layer (block/request.h) has checked each request: it lies
 * within the node, is aligned to BfNode.alignment, is not empty, is not longer
 * than BfLimits.max_transfer, and the node is writable if it writes. Where the
 * size is no multiple of the alignment, a request may pass the end by less
 * than one alignment. Data operations return 0 or -errno.
 */
#pragma once

#include <sys/types.h>

#include "block/extents.h"
#include "block/handle.h"
#include "block/node.h"
#include "block/throttle.h"
#include "core/atomic.h"
#include "core/co-lock.h"
#include "core/iovec.h"
#include "core/loop.h"
#include "core/thread-pool.h"
#include "crypto/tls-creds.h"
#include "schema/types.h"

typedef struct BfDriver BfDriver;
typedef struct BfBitmap BfBitmap;
typedef struct BfJob BfJob;

/**
 * BfEdge: a link from a parent to a child; private to the block layer
 */
typedef struct BfEdge BfEdge;

/**
 * BfTracked: a change under way; private to block/request.c
 */
typedef struct BfTracked BfTracked;

/**
 * BfNodeStats: what a node's requests have come to; private to the block layer
 */
typedef struct BfNodeStats BfNodeStats;

/**
 * BfNodeSettings: the options that all drivers have, in effect
 * @read_only: no writing
 * @auto_read_only: open for writing only while there is a writer, and fall
 *     back to read-only if the file cannot be written
 * @fell_back: that has happened: @read_only is what the storage says, and
 *     nobody asked for it
 * @direct: bypass the page cache
 * @no_flush: flushes do nothing
 * @force_share: take no locks and let others do what they like
 * @discard_unmap: discard, and zeroes that may deallocate, are passed on
 * @detect_zeroes: turn writes of zeroes into zero requests
 */
typedef struct BfNodeSettings {
    bool read_only;
    bool auto_read_only;
    bool fell_back;
    bool direct;
    bool no_flush;
    bool force_share;
    bool discard_unmap;
    BfBlockdevDetectZeroesOptions detect_zeroes;
} BfNodeSettings;

/**
 * BfNode: a node; a driver's own struct has it as first member
 * @driver: its driver
 * @graph: borrowed: lives longer
 * @name: owned
 * @lane: owned: threads for this node's blocking calls, at most two
 * @options: owned: as given, with changes by reopen; NULL for a job's filter
 * @home: loop of the tree; constant while a request is under way, like all up
 *     to @n_bitmaps: main changes them while the node is drained
 * @file: borrowed: the child that holds the data, or NULL if there is none,
 *     or if several do
 * @settings: common options in effect
 * @size: bytes, a multiple of 512; set by co_open, co_resize and refresh
 * @alignment: what the driver itself needs of requests, a power of two; set by
 *     co_open, 1 by default
 * @zero_alignment: what co_write_zeroes needs, at least @alignment, or 0
 * @discard_alignment: what co_discard needs, at least @alignment, or 0
 * @limits: what users are told: of the whole tree; set by co_open and refresh
 * @any_loop: every driver of the tree has it
 * @active: false: no writing, and no locks are held
 * @bitmaps: owned array of the dirty bitmaps to be set by writes
 * @n_bitmaps: its length
 * @stats: owned: counts its requests, on every loop
 * @write_threshold: a write that ends beyond it is told to the user, once; 0:
 *     none; any thread
 * @lost: stamp of when writes that were acknowledged and not flushed may have
 *     been lost last, see bf_node_note_loss(); 0: never; any thread
 * @tracked: writes under way, oldest first, where alignment is above 1;
 *     belongs to @home
 * @n_exclusive: how many of them are read-modify-writes
 * @edges: owned: the links to its children (main)
 * @parents: borrowed: the links that lead here (main)
 * @perm: permissions that its users have together (main)
 * @shared: permissions that its users all share (main)
 * @perm_plan: what @perm would be; while a plan is made (main)
 * @shared_perm_plan: what @shared would be (main)
 * @settings_plan: borrowed: settings after a reopen that is planned, or NULL
 * @size_plan: @size after that reopen; see bf_node_check_new_size() (main)
 * @plan_pending: parents not yet seen, while a plan is made (main)
 * @perm_planned: the driver holds a plan of permissions (main)
 * @perm_needs_drain: its commit is for a drained node (main)
 * @pins: operations under way that rely on it, and so keep it (main)
 * @retired: out of the graph; whoever gives back the last pin closes it (main)
 * @work: what goes on after its request has returned (main)
 * @monitor_owned: made by blockdev-add (main)
 * @registered: can be found by its name (main)
 * @inherits: made inline, so that its parent's options are its defaults (main)
 * @own_export: owned: the export of our own server that it is a client of, or
 *     NULL (main)
 * @mark: scratch for walks over the graph (main)
 */
struct BfNode {
    const BfDriver *driver;
    BfGraph *graph;
    char *name;
    BfPoolLane *lane;
    BfBlockdevOptions *options;

    BfLoop *home;
    BfNode *file;
    BfNodeSettings settings;
    uint64_t size;
    uint32_t alignment;
    uint32_t zero_alignment;
    uint32_t discard_alignment;
    BfLimits limits;
    bool any_loop;
    bool active;
    BfBitmap **bitmaps;
    unsigned n_bitmaps;

    BfNodeStats *stats;
    BfAtomicU64 write_threshold;
    BfAtomicU64 lost;
    BfTracked *tracked;
    unsigned n_exclusive;

    GPtrArray *edges;
    GPtrArray *parents;
    unsigned perm;
    unsigned shared;
    unsigned perm_plan;
    unsigned shared_perm_plan;
    BfNodeSettings *settings_plan;
    uint64_t size_plan;
    unsigned plan_pending;
    bool perm_planned;
    bool perm_needs_drain;
    unsigned pins;
    bool retired;
    unsigned work;
    bool monitor_owned;
    bool registered;
    bool inherits;
    char *own_export;
    unsigned mark;
};

/**
 * BfOpenContext: what goes through the opening of a tree of nodes; private to
 * block/node.c but for what the functions below give
 */
typedef struct BfOpenContext BfOpenContext;

/**
 * BfNodeInfo: what a driver adds to a query
 * @filename: owned: a plain file name; NULL if there is none
 * @has_actual_size: @actual_size is known
 * @actual_size: bytes on the storage
 */
typedef struct BfNodeInfo {
    char *filename;
    bool has_actual_size;
    uint64_t actual_size;
} BfNodeInfo;

/**
 * BfDriver: what one kind of node does
 * @name: as in the schema's enum
 * @kind: the same as enum value
 * @node_size: bytes of the driver's own node struct
 * @any_loop: data operations may run on any loop at once, because no field
 *     that they use changes while they run, or only atomically
 * @needs_faults: only allowed where BfGraphConfig.allow_faults is
 * @fixed_options: none of its own options can change after open
 * @close_flushes: no flush before closing: co_close, or the child's, makes
 *     finished writes stable
 * @is_filter: data and size are those of its children, each of which has all
 * @fua: co_write honours %BF_IO_FUA; else a flush follows
 * @fua_zeroes: co_write_zeroes does, too
 *
 * Required:
 * @co_open: sets size and limits, opens children by bf_node_co_open_child()
 *     or bf_node_co_open_child_as(); after a failure co_close is called as well
 * @co_read: fills all of @vec
 * @co_write: writes all of @vec
 *
 * Optional:
 * @co_close: releases what co_open made; all zero and half-open are valid
 * @co_flush: makes finished writes stable; absent: nothing to be done. It is
 *     also called before co_close, when the children may be gone (NULL)
 * @co_write_zeroes: -ENOTSUP lets the caller write zeroes instead; with
 *     %BF_IO_NO_FALLBACK it must not be as slow as writing
 * @co_discard: -ENOTSUP is taken as done, as it is a hint
 * @co_extents: appends at least one extent and at most @bytes; absent: data
 * @co_cache: a hint
 * @co_read_pipe: as bf_handle_co_read_pipe()
 * @co_write_pipe: as bf_handle_co_write_pipe()
 * @co_snapshot_read: as @co_read, but of the past that the node keeps; absent:
 *     the node keeps none
 * @co_snapshot_extents: as @co_extents, of the same
 * @co_snapshot_discard: the past of this range is not needed any more
 * @hurry: a drain waits for requests (@begin), or does so no more: those that
 *     the driver makes wait go on at once; on main; calls may be nested
 * @co_drain_begin: stops work of its own; drained from here. BfNode.home may
 *     be another one when it ends
 * @co_drain_end: the reverse
 * @refresh: drained: a child or its size changed: sets size, limits
 * @co_resize: drained: changes the size and sets BfNode.size
 * @co_reopen_prepare: checks new @options (@file is what BfNode.file is to be;
 *     bf_node_child_to_be() tells other children) and prepares; nothing changes
 *     yet. BfNode.settings_plan is set. Absent: nothing is to be checked
 * @reopen_commit: drained: makes the change; cannot fail
 * @co_reopen_abort: drops what was prepared
 * @copies_to: where else a change of the node may go, or NULL; on main; absent:
 *     nowhere
 * @child_perm: what the child by the name of @edge must grant so that the
 *     parents' needs are met; inout; absent: the same for every child
 * @add_child: makes a slot for one more child, perhaps, and gives its edge's
 *     name (transfer full); NULL is a refusal. With @child_added and the like
 *     for x-blockdev-change
 * @child_added: drained: the child is in the slot from @add_child
 * @check_remove: may a child go?
 * @child_removed: drained: the slot is empty now, and freed
 * @co_perm_prepare: new permissions of the users are planned; sets
 *     @ret_needs_drain if the commit changes what data operations use. Giving
 *     back is not to fail: nobody asks again
 * @co_perm_commit: the plan came true; cannot fail
 * @co_perm_abort: the plan was dropped
 * @co_invalidate: drained: the node was made active: drops what may be stale,
 *     and may set BfNode.size if bf_node_check_new_size() allows it
 * @stop_waiting: the daemon ends: what waits for storage to come back (an
 *     opening, requests that are held) fails soon; what works goes on
 * @cancel_requests: requests under way fail as soon as they can, -EIO; the
 *     node can be used again afterwards
 * @last_loss: bf_node_last_loss() of those children that writes go to; while a
 *     request is under way. Absent: of BfNode.file
 * @flush_saves: bf_node_flush_saves() of the node; while a request is under
 *     way. Absent: of BfNode.file
 * @query: adds what it knows; must not wait
 * @is_on_file: its storage is the file that is known by device and inode; must
 *     not wait
 * @co_create: of no node: makes an image, as the co_run of @job and on its
 *     loop; on any loop without a job, if nothing is to be preallocated. What
 *     a node of @graph is on is left alone. Absent: it cannot
 */
struct BfDriver {
    const char *name;
    BfBlockdevDriver kind;
    size_t node_size;
    bool any_loop;
    bool needs_faults;
    bool fixed_options;
    bool close_flushes;
    bool fua;
    bool fua_zeroes;
    bool is_filter;

    bool (*co_open)(BfNode *node, const BfBlockdevOptions *options,
                    BfOpenContext *ctx, GError **error);
    void (*co_close)(BfNode *node);
    int (*co_read)(BfNode *node, uint64_t offset, BfIoVec *vec,
                   BfIoFlags flags);
    int (*co_write)(BfNode *node, uint64_t offset, BfIoVec *vec,
                    BfIoFlags flags);

    int (*co_flush)(BfNode *node);
    int (*co_write_zeroes)(BfNode *node, uint64_t offset, uint64_t bytes,
                           BfIoFlags flags);
    int (*co_discard)(BfNode *node, uint64_t offset, uint64_t bytes);
    int (*co_extents)(BfNode *node, uint64_t offset, uint64_t bytes,
                      BfExtents *extents);
    int (*co_cache)(BfNode *node, uint64_t offset, uint64_t bytes);
    int (*co_read_pipe)(BfNode *node, uint64_t offset, uint64_t bytes,
                        int pipe_fd);
    int (*co_write_pipe)(BfNode *node, uint64_t offset, uint64_t bytes,
                         int pipe_fd);
    int (*co_snapshot_read)(BfNode *node, uint64_t offset, BfIoVec *vec);
    int (*co_snapshot_extents)(BfNode *node, uint64_t offset, uint64_t bytes,
                               BfExtents *extents);
    int (*co_snapshot_discard)(BfNode *node, uint64_t offset, uint64_t bytes);
    void (*hurry)(BfNode *node, bool begin);
    void (*co_drain_begin)(BfNode *node);
    void (*co_drain_end)(BfNode *node);

    void (*refresh)(BfNode *node);
    bool (*co_resize)(BfNode *node, uint64_t size, GError **error);
    bool (*co_reopen_prepare)(BfNode *node, const BfBlockdevOptions *options,
                              const BfNode *file, GError **error);
    void (*reopen_commit)(BfNode *node);
    void (*co_reopen_abort)(BfNode *node);
    BfNode *(*copies_to)(const BfNode *node);
    void (*child_perm)(const BfNode *node, const char *edge, unsigned *perm,
                       unsigned *shared);
    BfNode **(*add_child)(BfNode *node, const BfNode *child, char **ret_name,
                          GError **error);
    void (*child_added)(BfNode *node, BfNode **slot);
    bool (*check_remove)(BfNode *node, GError **error);
    void (*child_removed)(BfNode *node, BfNode **slot);
    bool (*co_perm_prepare)(BfNode *node, unsigned perm, unsigned shared,
                            bool *ret_needs_drain, GError **error);
    void (*co_perm_commit)(BfNode *node);
    void (*co_perm_abort)(BfNode *node);
    void (*co_invalidate)(BfNode *node);
    void (*stop_waiting)(BfNode *node);
    void (*cancel_requests)(BfNode *node);
    uint64_t (*last_loss)(const BfNode *node);
    bool (*flush_saves)(const BfNode *node);
    void (*query)(BfNode *node, BfNodeInfo *info);
    bool (*is_on_file)(const BfNode *node, dev_t device, ino_t inode);
    bool (*co_create)(BfGraph *graph, BfJob *job,
                      const BfBlockdevCreateOptions *options, GError **error);
};

/**
 * bf_driver_find:
 * @kind: from the schema
 *
 * Returns: (transfer none) (nullable): the driver, or NULL if it is not built
 */
const BfDriver *bf_driver_find(BfBlockdevDriver kind);

/**
 * bf_node_co_open_child:
 * @node: the node that is being opened, in its co_open
 * @ctx: as given to co_open
 * @ref: a node name or inline options
 * @error: set on failure
 *
 * Opens or finds the child that holds the data, by the name "file", and sets
 * BfNode.file.
 *
 * Returns: false on failure
 */
bool bf_node_co_open_child(BfNode *node, BfOpenContext *ctx,
                           const BfBlockdevRef *ref, GError **error);

/**
 * bf_node_co_open_child_as:
 * @node: the node that is being opened, in its co_open
 * @ctx: as given to co_open
 * @ref: a node name or inline options
 * @name: what the option is called, for example "target"; "NAME.N" is element
 *     N of a list; copied
 * @slot: (out): where the driver finds the child, in its own struct; changes
 *     while drained, and becomes NULL before co_close
 * @error: set on failure
 *
 * Opens or finds one of several children. All of them have one home loop.
 *
 * Returns: false on failure
 */
bool bf_node_co_open_child_as(BfNode *node, BfOpenContext *ctx,
                              const BfBlockdevRef *ref, const char *name,
                              BfNode **slot, GError **error);

/**
 * bf_node_child_to_be:
 * @node: a node, in its co_reopen_prepare
 * @name: as given to bf_node_co_open_child_as()
 *
 * Returns: (transfer none) (nullable): the child that it will have
 */
const BfNode *bf_node_child_to_be(const BfNode *node, const char *name);

/**
 * bf_node_co_resize:
 * @node: a drained node
 * @size: bytes
 * @error: set on failure
 *
 * Resizes @node and what depends on it; for a driver whose size is its child's.
 *
 * Returns: false on failure
 */
bool bf_node_co_resize(BfNode *node, uint64_t size, GError **error);

/**
 * bf_node_check_new_size:
 * @node: a node
 * @size: what it would be, bytes
 * @error: set on failure: a user of @node relies on the present size
 *
 * For drivers whose size depends on options that a reopen changes. Users that
 * come with the reopen are asked when it is planned as a whole.
 *
 * Returns: false on failure
 */
bool bf_node_check_new_size(BfNode *node, uint64_t size, GError **error);

/**
 * bf_node_settings_to_be:
 * @node: a node
 *
 * Returns: (transfer none): its settings, or those of a reopen under way
 */
static inline const BfNodeSettings *
bf_node_settings_to_be(const BfNode *node)
{
    return node->settings_plan != NULL ? node->settings_plan : &node->settings;
}

/**
 * bf_node_report_quorum_bad:
 * @node: a quorum node; on its home loop
 * @type: what was done
 * @child: the child that failed or has other data than most
 * @ret: -errno, or 0
 * @sector: where, in sectors of 512 bytes
 * @count: how many sectors
 */
void bf_node_report_quorum_bad(BfNode *node, BfQuorumOpType type,
                               const BfNode *child, int ret, uint64_t sector,
                               uint64_t count);

/**
 * bf_node_report_quorum_failure:
 * @node: a quorum node; on its home loop
 * @sector: where, in sectors of 512 bytes
 * @count: how many sectors
 */
void bf_node_report_quorum_failure(BfNode *node, uint64_t sector,
                                   uint64_t count);

/**
 * bf_node_begin_work:
 * @node: a node; on its home loop
 *
 * Tells that something uses @node and its children after the request that
 * began it has returned. To be called before it returns: drains wait for it
 * from then on, and the node is not closed.
 */
void bf_node_begin_work(BfNode *node);

/**
 * bf_node_end_work:
 * @node: a node; on its home loop
 *
 * The reverse, as the last thing that is done.
 */
void bf_node_end_work(BfNode *node);

/**
 * bf_node_open_fdset:
 * @node: a node
 * @path: "/dev/fdset/N"
 * @flags: open(2) flags
 * @error: set on failure
 *
 * Returns: (transfer full): a descriptor, or -1
 */
int bf_node_open_fdset(BfNode *node, const char *path, int flags,
                       GError **error);

/**
 * bf_node_take_tls_creds:
 * @node: a node
 * @id: of an object
 * @error: set on failure: there are no such client credentials
 *
 * The object cannot be deleted until bf_node_release_tls_creds().
 *
 * Returns: (transfer full): the credentials, or NULL
 */
BfTlsCreds *bf_node_take_tls_creds(BfNode *node, const char *id,
                                   GError **error);

/**
 * bf_node_release_tls_creds:
 * @node: a node that is being closed
 * @id: as given to bf_node_take_tls_creds()
 */
void bf_node_release_tls_creds(BfNode *node, const char *id);

/**
 * bf_node_co_check_peer:
 * @node: a node; any loop
 * @fd: a socket that is connected to an NBD server
 * @name: the export that it is to be a client of
 * @error: set on failure: the server is this daemon, and the node would wait
 *     for itself
 *
 * Returns: false on failure
 */
bool bf_node_co_check_peer(BfNode *node, int fd, const char *name,
                           GError **error);

/**
 * bf_node_note_loss:
 * @node: a node, on its only loop for this
 *
 * Tells that the storage may have lost writes of this node that it had
 * acknowledged and not flushed, although no flush has failed: a server was
 * away, say. To be called before a request goes on that waited for it.
 */
void bf_node_note_loss(BfNode *node);

/**
 * bf_node_notice:
 * @node: a node; any thread
 * @is_problem: an administrator should look
 * @format: printf format of one phrase, which comes after the node's name
 *
 * Tells about the life of a node's storage; not for each request.
 */
void bf_node_notice(BfNode *node, bool is_problem, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

/**
 * bf_node_is_stopping:
 * @node: a node
 *
 * Returns: true if the daemon ends, so that nothing may wait any more
 */
bool bf_node_is_stopping(const BfNode *node);

/**
 * bf_node_co_offload:
 * @node: a node
 * @fn: may block; runs on a thread of the node's own
 * @arg: passed to @fn; may be on the caller's stack
 */
void bf_node_co_offload(BfNode *node, BfFn *fn, void *arg);

/* The drivers; listed in block/drivers.c. */
extern const BfDriver bf_driver_copy_before_write;
extern const BfDriver bf_driver_copy_on_read;
extern const BfDriver bf_driver_fault;
extern const BfDriver bf_driver_file;
extern const BfDriver bf_driver_host_device;
extern const BfDriver bf_driver_nbd;
extern const BfDriver bf_driver_null_aio;
extern const BfDriver bf_driver_null_co;
extern const BfDriver bf_driver_quorum;
extern const BfDriver bf_driver_raw;
extern const BfDriver bf_driver_snapshot_access;
extern const BfDriver bf_driver_throttle;
