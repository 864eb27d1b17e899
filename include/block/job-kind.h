/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Kinds of jobs: what one provides, and what it may rely on.
 *
 * A job's life: bf_job_init() reserves its id; then the kind makes its roots
 * and filters, which may suspend and fail (bf_job_drop()); bf_job_created()
 * makes it visible, bf_job_start() lets it run. From then on the table owns
 * it. co_run works on BfJob.loop; everything else runs on main. After co_run:
 *
 *   true:  waiting, until all jobs of the transaction are; pending; co_prepare
 *          of each; then of each co_commit, co_clean, event, concluded
 *   false, cancelled, or co_prepare failed: all others of the transaction are
 *          cancelled; then of each aborting, co_abort, co_clean, event,
 *          concluded
 *
 * A job that co_run has left may still be cancelled until co_commit begins.
 * Functions say where they run; _co_ functions suspend.
 */
#pragma once

#include "block/handle.h"
#include "block/job.h"
#include "core/atomic.h"
#include "core/co-io.h"
#include "core/co-lock.h"

/**
 * BfJobEnds: the two ends of a job that copies
 * @source_name: borrowed: name of the node
 * @target_name: borrowed: name of the node
 * @source_handle: borrowed: on BfJob.loop
 * @target_handle: borrowed: on BfJob.loop
 * @source_requests: requests under way; filled by the base
 * @target_requests: requests under way; filled by the base
 */
typedef struct BfJobEnds {
    const char *source_name;
    const char *target_name;
    BfHandle *source_handle;
    BfHandle *target_handle;
    unsigned source_requests;
    unsigned target_requests;
} BfJobEnds;

/**
 * BfJobWatch: how a job gets on; private to block/jobs/job-watch.c
 */
typedef struct BfJobWatch {
    uint64_t interval_ms; /* of progress events; 0: none */
    uint64_t stall_seconds;
    BfTimer timer;
    uint64_t sampled_ns;
    uint64_t moved_ns; /* something was done, or there was no need to */
    uint64_t told_ns;
    uint64_t done;
    uint64_t let_go;
    uint64_t total; /* the most that there was to do */
    uint64_t copy_rate;
    uint64_t dirty_rate;
    bool was_pushing; /* when it was last looked at */
    bool stalled;
} BfJobWatch;

/**
 * BfJobUse: what a job does with a node
 * @BF_JOB_USE_NONE: nothing
 * @BF_JOB_USE_SHARED: others of its kind may do the same with it
 * @BF_JOB_USE_ALONE: no other job may work on it
 */
typedef enum BfJobUse {
    BF_JOB_USE_NONE,
    BF_JOB_USE_SHARED,
    BF_JOB_USE_ALONE,
} BfJobUse;

/**
 * BfJobOps: what a kind of jobs provides
 * @type: as in the schema
 * @is_block_job: it works on nodes: has BLOCK_JOB_ events and is listed by
 *     query-block-jobs
 * @co_run: on BfJob.loop: does the work. Returns true when all is done; false
 *     with @error if it failed, or without once bf_job_is_cancelled(). When it
 *     returns it has no coroutine and no request left
 * @co_prepare: (nullable): last step that may fail: a flush, a pivot. It ends
 *     early once bf_job_is_cancelled()
 * @co_commit: (nullable): the job has succeeded, and with it its transaction
 * @co_abort: (nullable): the job has failed or was cancelled; also for a job
 *     that never started
 * @co_clean: (nullable): after co_commit or co_abort: takes filters out, gives
 *     roots back, so that everything can be used again
 * @free: (nullable): frees the kind's own fields; the base frees the rest
 * @co_complete: (nullable): the verb complete; the base kicks afterwards.
 *     Absent: refused
 * @soft_cancel: (nullable): a cancel that is not forced: true if the job now
 *     ends gracefully, as completed. The base kicks afterwards. Absent or
 *     false: it is aborted
 * @aborted: (nullable): the job was cancelled by force while co_run may be at
 *     work: makes what could last long end early
 * @co_change: (nullable): the verb change
 * @query: (nullable): adds what only this kind tells
 * @ends: (nullable): says what it reads from and writes to; while it runs
 * @source_root: (nullable): what it reads by, or NULL once that is gone; if the
 *     node does not answer, a job that is cancelled makes its requests fail
 * @use_of: (nullable): how it works on @node
 */
typedef struct BfJobOps {
    BfJobType type;
    bool is_block_job;
    bool (*co_run)(BfJob *job, GError **error);
    bool (*co_prepare)(BfJob *job, GError **error);
    void (*co_commit)(BfJob *job);
    void (*co_abort)(BfJob *job);
    void (*co_clean)(BfJob *job);
    void (*free)(BfJob *job);
    bool (*co_complete)(BfJob *job, GError **error);
    bool (*soft_cancel)(BfJob *job);
    void (*aborted)(BfJob *job);
    bool (*co_change)(BfJob *job, const BfBlockJobChangeOptions *options,
                      GError **error);
    void (*query)(BfJob *job, BfBlockJobInfo *info);
    void (*ends)(const BfJob *job, BfJobEnds *ret_ends);
    BfRoot *(*source_root)(const BfJob *job);
    BfJobUse (*use_of)(const BfJob *job, const BfNode *node);
} BfJobOps;

/**
 * BfJobSettings: what the user says about any job
 * @id: its id; NULL for an internal job, which has no events and is not listed
 * @speed: limit in bytes per second, or 0
 * @manual_finalize: it stays pending until it is finalized
 * @manual_dismiss: it stays concluded until it is dismissed
 */
typedef struct BfJobSettings {
    const char *id;
    int64_t speed;
    bool manual_finalize;
    bool manual_dismiss;
} BfJobSettings;

/**
 * BfJobSleeper: a coroutine in bf_job_co_sleep(); private to block/jobs/job.c
 */
typedef struct BfJobSleeper BfJobSleeper;

/**
 * BfJob: a job; the kind's own struct has it as first member
 * @ops: its kind
 * @table: borrowed: lives longer
 * @id: owned
 * @loop: where co_run runs; the kind sets it before bf_job_start(), and it is
 *     constant from then on
 * @status: its state (main)
 * @error: (nullable): owned: why it failed (main, once co_run has returned)
 *
 * The other fields are private to block/jobs/job.c, by owner.
 */
struct BfJob {
    const BfJobOps *ops;
    BfJobTable *table;
    char *id;
    BfLoop *loop;
    BfJobStatus status;
    GError *error;

    /* Main. */
    unsigned refs;
    BfJobTxn *txn; /* a reference, until it concludes */
    bool manual_finalize;
    bool manual_dismiss;
    bool internal;
    bool started;
    bool is_running; /* co_run has not returned */
    bool user_paused;
    bool was_ready;
    bool reported; /* that a request failed, and so will it */
    BfBlockDeviceIoStatus io_status;
    BfJobWatch watch;
    bool watches_source;   /* since it was cancelled or has failed */
    BfTimer answers_timer; /* runs while it does */
    uint64_t answers;      /* of the source */

    /* Any thread. */
    BfAtomicU64 cancelled;
    BfAtomicU64 pausing;
    BfAtomicU64 speed;
    BfAtomicU64 done;
    BfAtomicU64 remaining;
    BfAtomicU64 resting;  /* coroutines that pause or sleep */
    BfAtomicU64 flushing; /* its flushes under way */
    BfAtomicU64 held;     /* writes of others that wait for its target */
    BfAtomicU64 held_bytes;
    BfAtomicU64 let_go; /* such writes that have ended */

    /* @loop. */
    BfJobSleeper *sleepers;
    unsigned in_pause; /* coroutines at a pause point */
    uint64_t rate_speed;
    uint64_t rate_free_ns; /* when the bytes so far were due */
    uint64_t ignore_until_ns;
    uint64_t ignore_wait_ns;
};

/**
 * bf_job_init:
 * @job: all zero but for what is the kind's own; on the heap
 * @ops: its kind
 * @table: the table
 * @settings: what the user says
 * @txn: (nullable): the transaction it belongs to; NULL gives it one of its own
 * @error: set on failure: the id is malformed or in use, a negative speed
 *
 * On main. Reserves the id. The job is not visible yet.
 *
 * Returns: false on failure; @job is then to be freed by the caller
 */
bool bf_job_init(BfJob *job, const BfJobOps *ops, BfJobTable *table,
                 const BfJobSettings *settings, BfJobTxn *txn, GError **error);

/**
 * bf_job_table_check_node:
 * @table: the table
 * @node: what a new job is to work on
 * @ops: its kind
 * @shared: others of its kind may do the same with @node
 * @error: set on failure: another job works on @node
 *
 * On main, in the section in which the job is made.
 *
 * Returns: false on failure
 */
bool bf_job_table_check_node(BfJobTable *table, const BfNode *node,
                             const BfJobOps *ops, bool shared, GError **error);

/**
 * bf_job_created:
 * @job: after bf_job_init()
 *
 * On main. Makes the job visible, in the state created.
 */
void bf_job_created(BfJob *job);

/**
 * bf_job_drop:
 * @job: not started; has no roots and filters any more
 *
 * On main. Frees a job that could not be made.
 */
void bf_job_drop(BfJob *job);

/**
 * bf_job_start:
 * @job: with BfJob.loop set
 *
 * On main. Lets it run; calls bf_job_created() if that was not done. A job
 * that was cancelled meanwhile is left alone.
 */
void bf_job_start(BfJob *job);

/**
 * bf_job_co_abandon:
 * @job: created and not started
 *
 * On main. Ends a job whose making was rolled back: co_abort and co_clean run,
 * events go from created through aborting and concluded to null. All of its
 * transaction ends.
 */
void bf_job_co_abandon(BfJob *job);

/**
 * bf_job_ref:
 * @job: a job
 *
 * On main. Keeps its memory.
 *
 * Returns: (transfer full): @job
 */
BfJob *bf_job_ref(BfJob *job);

/**
 * bf_job_unref:
 * @job: (nullable): a job
 *
 * On main.
 */
void bf_job_unref(BfJob *job);

/**
 * bf_job_is_cancelled:
 * @job: a job
 *
 * On any thread.
 *
 * Returns: true once it shall end as aborted
 */
bool bf_job_is_cancelled(const BfJob *job);

/**
 * bf_job_co_pause_point:
 * @job: a job, in co_run; several coroutines may be here
 *
 * On BfJob.loop. Waits while the job is paused. Requests under way should have
 * ended before the call, so that a paused job leaves its storage alone.
 *
 * Returns: false if the job shall end, because it was cancelled
 */
bool bf_job_co_pause_point(BfJob *job);

/**
 * bf_job_wants_pause:
 * @job: a job
 *
 * On any thread.
 *
 * Returns: true if bf_job_co_pause_point() would wait
 */
bool bf_job_wants_pause(const BfJob *job);

/**
 * bf_job_co_sleep:
 * @job: a job, in co_run
 * @ns: nanoseconds, or %BF_FOREVER
 *
 * On BfJob.loop. Waits, but no longer than to the next kick, pause, cancel or
 * change of speed. The caller's own condition must be checked right before,
 * and again afterwards. Then it is a pause point.
 *
 * Returns: false if the job shall end, because it was cancelled
 */
bool bf_job_co_sleep(BfJob *job, uint64_t ns);

/**
 * bf_job_kick:
 * @job: a job; on main: it has not concluded; on another loop: co_run has not
 *     returned
 *
 * On any thread. Ends every bf_job_co_sleep().
 */
void bf_job_kick(BfJob *job);

/**
 * bf_job_rate_slice:
 * @job: a job, in co_run
 *
 * On BfJob.loop. The most bytes that run ahead of the job's speed: what it lets
 * through in a tenth of a second. Work that is to be even is done in pieces of
 * at most that.
 *
 * Returns: bytes; %UINT64_MAX without a limit of speed
 */
uint64_t bf_job_rate_slice(BfJob *job);

/**
 * bf_job_rate_wait:
 * @job: a job, in co_run
 * @bytes: about to be copied
 * @in_flight: bytes that are under way
 *
 * On BfJob.loop. Tells when @bytes may follow: what was taken and has not
 * become due yet stays within a slice, and so does what is under way. More than
 * a slice at once waits until all else is due and done. May be too long if
 * requests end meanwhile, or the speed changes.
 *
 * Returns: nanoseconds to wait first; 0 to go on
 */
uint64_t bf_job_rate_wait(BfJob *job, uint64_t bytes, uint64_t in_flight);

/**
 * bf_job_take_rate:
 * @job: a job, in co_run
 * @bytes: being copied from now on
 *
 * On BfJob.loop. Accounts @bytes against the job's speed. When the speed
 * changes, what has been taken is forgotten but for a slice.
 */
void bf_job_take_rate(BfJob *job, uint64_t bytes);

/**
 * bf_job_co_limit_rate:
 * @job: a job, in co_run
 * @bytes: about to be copied
 *
 * On BfJob.loop. Waits as bf_job_rate_wait() says, and takes them.
 *
 * Returns: false if the job shall end, because it was cancelled
 */
bool bf_job_co_limit_rate(BfJob *job, uint64_t bytes);

/**
 * bf_job_set_remaining:
 * @job: a job
 * @bytes: what is left to do
 *
 * On any thread; one at a time.
 */
void bf_job_set_remaining(BfJob *job, uint64_t bytes);

/**
 * bf_job_add_remaining:
 * @job: a job
 * @bytes: what has come in addition
 *
 * On any thread.
 */
void bf_job_add_remaining(BfJob *job, uint64_t bytes);

/**
 * bf_job_add_done:
 * @job: a job
 * @bytes: at most what is left to do
 *
 * On any thread. They were left to do, and are done.
 */
void bf_job_add_done(BfJob *job, uint64_t bytes);

/**
 * bf_job_note_flush:
 * @job: a job, in co_run
 * @begins: a flush of what it writes to begins; else it has ended
 *
 * On BfJob.loop. While a flush is under way there is something to do, even if
 * no bytes are left.
 */
void bf_job_note_flush(BfJob *job, bool begins);

/**
 * bf_job_hold_write:
 * @job: a job
 * @bytes: of the write that are left to do, and not dirty
 *
 * On any thread. A write of somebody else begins to wait for what this job
 * writes to. While it does the job has something to do, even if it is paused or
 * sleeps.
 */
void bf_job_hold_write(BfJob *job, uint64_t bytes);

/**
 * bf_job_let_write_go:
 * @job: a job
 * @bytes: as for bf_job_hold_write()
 *
 * On any thread. The write has ended.
 */
void bf_job_let_write_go(BfJob *job, uint64_t bytes);

/**
 * bf_job_co_set_ready:
 * @job: a job, in co_run
 *
 * On BfJob.loop. It can be completed from now on. Does nothing the second time.
 */
void bf_job_co_set_ready(BfJob *job);

/**
 * bf_job_co_error:
 * @job: a block job, in co_run
 * @action: what shall happen
 * @is_read: the request that failed was a read
 * @err: a positive errno value
 *
 * On BfJob.loop. Tells that a request has failed. For "stop" the job is then
 * paused, and this waits until it is resumed. For "ignore" it waits, too,
 * longer each time, so that what always fails does not keep the machine busy.
 * The caller tries again if the answer is true.
 *
 * Returns: false if the job shall end: for "report", and when it is cancelled
 */
bool bf_job_co_error(BfJob *job, BfBlockErrorAction action, bool is_read,
                     int err);

/**
 * bf_job_error_action:
 * @policy: what the user wants
 * @err: a positive errno value
 *
 * On any thread.
 *
 * Returns: what is to happen, for bf_job_co_error()
 */
BfBlockErrorAction bf_job_error_action(BfBlockdevOnError policy, int err);

/**
 * bf_job_set_final:
 * @job: a job without others in its transaction
 *
 * On main. The job has done what cannot be taken back, as moving the users of
 * a node: from now on it is too late to cancel it.
 */
void bf_job_set_final(BfJob *job);
