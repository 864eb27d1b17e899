/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The backup job's life: made in a section of the graph, which is the point in
 * time that it copies; copying, and before each write what it replaces (see
 * backup-top.c); and its end, where the user's bitmap is told what was copied.
 */
#include "block/backup.h"

#include <inttypes.h>
#include <limits.h>

#include "backup-private.h"
#include "block/handover.h"
#include "core/error.h"
#include "core/util.h"

#define FLUSH_LIMIT_NS (1 * BF_NS_PER_SEC)

/* How often a job that copies only before writes looks after its target. */
#define GUARD_NS BF_NS_PER_SEC

/* Wait between attempts to take the filter out of a graph that is not at rest.
 */
#define CLEAN_RETRY_NS BF_NS_PER_SEC

/* At work, on the job's loop. */

/* A target that was just made needs no zeroes. */
static void
co_probe_target(BfBackup *backup)
{
    uint64_t size = bf_handle_size(backup->target_handle);
    BfExtents extents;

    if ((backup->config.flags & BF_COPY_TARGET_MAYBE_ZERO) == 0 || size == 0) {
        return;
    }
    bf_extents_init(&extents, 1);
    if (bf_handle_co_extents(backup->target_handle, 0, size, &extents) == 0 &&
        extents.bytes >= size &&
        (extents.items[0].flags & BF_EXTENT_ZERO) != 0) {
        bf_copy_set_target_zero(backup->copy);
    }
    bf_extents_clear(&extents);
}

static bool
check_broken(const BfBackup *backup, GError **error)
{
    if (backup->broken != 0) {
        bf_set_errno(error, backup->broken,
                     "What was about to be overwritten could not be copied");
    }
    return backup->broken == 0;
}

/* Returns true when all is copied and stable. */
static bool
co_copy_all(BfBackup *backup, GError **error)
{
    for (;;) {
        BfCopyStatus status = bf_copy_co_run(backup->copy, error);

        if (status == BF_COPY_ENDED || !check_broken(backup, error)) {
            return false;
        }
        if (status == BF_COPY_CLEAN &&
            bf_copy_co_flush(backup->copy, FLUSH_LIMIT_NS) == 0) {
            return true;
        }
    }
}

static bool
backup_co_run(BfJob *job, GError **error)
{
    BfBackup *backup = (BfBackup *)job;
    bool ok = false;

    co_probe_target(backup);
    if (backup->only_before_writes) {
        while (check_broken(backup, error) &&
               bf_copy_co_guard(backup->copy, error) &&
               bf_job_co_sleep(job, GUARD_NS)) {
        }
    } else {
        ok = co_copy_all(backup, error);
    }
    bf_atomic_store(&backup->is_over, 1);
    bf_copy_co_settle(backup->copy);
    if (backup->broken != 0 && ok) {
        ok = check_broken(backup, error);
    }
    return ok;
}

/* The end, on main. */

void
bf_backup_let_go(BfBackup *backup)
{
    bf_assert_main();
    bf_root_abort(backup->target_root);
    bf_node_cancel_requests(backup->target);
}

/* Requests that hang on the target shall not keep a job that is aborted. */
static void
backup_aborted(BfJob *job)
{
    BfBackup *backup = (BfBackup *)job;

    bf_atomic_store(&backup->is_over, 1);
    bf_backup_let_go(backup);
}

/* What is left to be copied is dirty for the user as well. */
static void
put_rest_back(const BfBackup *backup)
{
    BfBitmap *bitmap = bf_bitmap_use_bitmap(backup->use);
    uint64_t size = bf_bitmap_size(backup->dirty);
    uint64_t offset = 0;
    uint64_t bytes = 0;

    while (bf_bitmap_next_dirty(backup->dirty, offset, size, &offset, &bytes)) {
        bf_bitmap_put_back(bitmap, offset, bytes);
        offset += bytes;
    }
}

/* What was copied may have been lost: all that was to be copied still is. */
static void
plan_again(const BfBackup *backup)
{
    if (backup->plan != NULL) {
        bf_bitmap_merge(backup->dirty, backup->plan, NULL);
    } else {
        bf_bitmap_put_back(backup->dirty, 0, bf_bitmap_size(backup->dirty));
    }
}

static void
backup_co_commit(BfJob *job)
{
    BfBackup *backup = (BfBackup *)job;

    if (backup->use != NULL) {
        bf_bitmap_use_co_thaw(backup->use,
                              backup->bitmap_mode == BF_BITMAP_SYNC_MODE_NEVER);
    }
}

static void
backup_co_abort(BfJob *job)
{
    BfBackup *backup = (BfBackup *)job;
    const bool always = backup->bitmap_mode == BF_BITMAP_SYNC_MODE_ALWAYS;

    if (backup->use == NULL) {
        return;
    }
    if (always && bf_copy_has_lost(backup->copy)) {
        plan_again(backup);
    }
    if (always) {
        put_rest_back(backup);
    }
    bf_bitmap_use_co_thaw(backup->use, !always);
}

/* The filters of other backups may come and go between this one and the source,
 * so what is below is looked up in the section. */
static bool
co_take_out(BfBackup *backup)
{
    BfGraphMove move = {.from = backup->filter};
    const BfHandOver hand_over = {
        .filter = backup->filter,
        .moves = &move,
        .n_moves = 1,
    };
    bool ok;

    bf_graph_co_section_begin(backup->graph);
    move.to = backup->filter->file;
    ok = bf_graph_co_hand_over(backup->graph, &hand_over, NULL);
    bf_graph_co_section_end(backup->graph);
    if (ok) {
        backup->filter = NULL;
    }
    return ok;
}

static void
backup_co_clean(BfJob *job)
{
    BfBackup *backup = (BfBackup *)job;

    bf_atomic_store(&backup->is_over, 1);
    while (backup->filter != NULL && !co_take_out(backup)) {
        bf_co_sleep_ns(CLEAN_RETRY_NS);
        bf_node_co_outlast_requests(backup->source);
    }
    bf_bitmap_co_unuse(g_steal_pointer(&backup->use));
    g_clear_pointer(&backup->copy, bf_copy_free);
    bf_throttle_member_co_free(g_steal_pointer(&backup->throttle));
    bf_root_co_free(g_steal_pointer(&backup->target_root));
    bf_root_co_free(g_steal_pointer(&backup->source_root));
    g_clear_pointer(&backup->dirty, bf_bitmap_free);
    g_clear_pointer(&backup->plan, bf_bitmap_free);
    backup->source = backup->target = NULL;
}

static BfJobUse
backup_use_of(const BfJob *job, const BfNode *node)
{
    const BfBackup *backup = (const BfBackup *)job;

    if (node == backup->source) {
        return BF_JOB_USE_SHARED;
    }
    return node == backup->target || node == backup->filter ? BF_JOB_USE_ALONE
                                                            : BF_JOB_USE_NONE;
}

static void
backup_ends(const BfJob *job, BfJobEnds *ret_ends)
{
    const BfBackup *backup = (const BfBackup *)job;

    ret_ends->source_name = bf_node_name(backup->source);
    ret_ends->source_handle = backup->source_handle;
    ret_ends->target_name = bf_node_name(backup->target);
    ret_ends->target_handle = backup->target_handle;
}

static BfRoot *
backup_source_root(const BfJob *job)
{
    return ((const BfBackup *)job)->source_root;
}

static const BfJobOps backup_ops = {
    .type = BF_JOB_TYPE_BACKUP,
    .is_block_job = true,
    .co_run = backup_co_run,
    .co_commit = backup_co_commit,
    .co_abort = backup_co_abort,
    .co_clean = backup_co_clean,
    .aborted = backup_aborted,
    .ends = backup_ends,
    .source_root = backup_source_root,
    .use_of = backup_use_of,
};

/* The start. */

static bool
find_nodes(BfBackup *backup, const BfBlockdevBackup *options, GError **error)
{
    backup->source =
        bf_graph_require_node(backup->graph, options->device, error);
    if (backup->source == NULL) {
        return false;
    }
    backup->target =
        bf_graph_require_node(backup->graph, options->target, error);
    return backup->target != NULL;
}

static bool
check_nodes(const BfBackup *backup, GError **error)
{
    if (backup->source == backup->target) {
        bf_set_error(error, "Source and target cannot be the same");
        return false;
    }
    if (!bf_node_check_not_behind(backup->target, backup->source, error)) {
        return false;
    }
    if (bf_node_is_read_only(backup->target)) {
        bf_set_error(error, "Block node is read-only");
        return false;
    }
    if (backup->source->size != backup->target->size) {
        bf_set_error(error, "Source and target image have different sizes");
        return false;
    }
    return true;
}

/* Several backups may copy from one source, each to a target of its own. */
static bool
check_users(const BfBackup *backup, BfJobTable *table, GError **error)
{
    return bf_job_table_check_node(table, backup->source, &backup_ops, true,
                                   error) &&
           bf_job_table_check_node(table, backup->target, &backup_ops, false,
                                   error);
}

/* Fails for combinations without sense. */
static bool
check_bitmap_mode(const BfBlockdevBackup *options, GError **error)
{
    const char *sync = bf_mirror_sync_mode_str(options->sync);

    if (options->sync == BF_MIRROR_SYNC_MODE_INCREMENTAL) {
        return true;
    }
    if (!options->has_bitmap_mode) {
        bf_set_error(error,
                     "Bitmap sync mode must be given when providing a bitmap");
        return false;
    }
    if (options->sync == BF_MIRROR_SYNC_MODE_NONE) {
        bf_set_error(error,
                     "sync mode '%s' does not produce meaningful bitmap "
                     "outputs",
                     sync);
        return false;
    }
    if (options->bitmap_mode == BF_BITMAP_SYNC_MODE_NEVER &&
        options->sync != BF_MIRROR_SYNC_MODE_BITMAP) {
        bf_set_error(error,
                     "Bitmap sync mode 'never' has no meaningful effect when "
                     "combined with sync mode '%s'",
                     sync);
        return false;
    }
    return true;
}

static bool
uses_bitmap_as_input(const BfBlockdevBackup *options)
{
    return options->sync == BF_MIRROR_SYNC_MODE_BITMAP ||
           options->sync == BF_MIRROR_SYNC_MODE_INCREMENTAL;
}

static bool
check_bitmap(const BfBackup *backup, const BfBlockdevBackup *options,
             GError **error)
{
    if (uses_bitmap_as_input(options) && options->bitmap == NULL) {
        bf_set_error(error,
                     "must provide a valid bitmap name for '%s' sync mode",
                     bf_mirror_sync_mode_str(options->sync));
        return false;
    }
    if (options->sync == BF_MIRROR_SYNC_MODE_INCREMENTAL &&
        options->has_bitmap_mode &&
        options->bitmap_mode != BF_BITMAP_SYNC_MODE_ON_SUCCESS) {
        bf_set_error(error,
                     "Bitmap sync mode must be 'on-success' when using sync "
                     "mode 'incremental'");
        return false;
    }
    if (options->bitmap == NULL) {
        if (options->has_bitmap_mode) {
            bf_set_error(error,
                         "Cannot specify bitmap sync mode without a bitmap");
        }
        return !options->has_bitmap_mode;
    }
    if (bf_node_find_bitmap(backup->source, options->bitmap) == NULL) {
        bf_set_error(error, "Bitmap '%s' could not be found", options->bitmap);
        return false;
    }
    return check_bitmap_mode(options, error);
}

/* As QEMU does; here it is of no other use. */
static bool
check_perf(const BfBackupPerf *perf, GError **error)
{
    const uint64_t cluster =
        MAX(perf->min_cluster_size, BF_BITMAP_GRANULARITY_DEFAULT);

    if (perf->max_workers < 1 || perf->max_workers > INT_MAX) {
        bf_set_error(error, "max-workers must be between 1 and %d", INT_MAX);
        return false;
    }
    if (perf->max_chunk < 0) {
        bf_set_error(error, "max-chunk must be zero (which means no limit) or "
                            "positive");
        return false;
    }
    if ((perf->min_cluster_size & (perf->min_cluster_size - 1)) != 0 ||
        perf->min_cluster_size > INT64_MAX) {
        bf_set_error(error, "min-cluster-size needs to be a power of 2 below "
                            "8 EiB");
        return false;
    }
    if (perf->max_chunk > 0 && (uint64_t)perf->max_chunk < cluster) {
        bf_set_error(error,
                     "Required max-chunk (%" PRId64 ") is less than backup "
                     "cluster size (%" PRIu64 ")",
                     perf->max_chunk, cluster);
        return false;
    }
    return true;
}

static bool
check_options(const BfBackup *backup, const BfBlockdevBackup *options,
              GError **error)
{
    if (!check_bitmap(backup, options, error)) {
        return false;
    }
    if (options->compress) {
        bf_set_error(error, "Compression is not supported for this drive '%s'",
                     options->target);
        return false;
    }
    if (options->discard_source) {
        bf_set_error(error, "discard-source is not supported; discard the "
                            "source when the backup has ended");
        return false;
    }
    return options->x_perf == NULL || check_perf(options->x_perf, error);
}

static BfRoot *
co_make_root(BfBackup *backup, BfNode *node, const char *role, unsigned perm,
             unsigned shared, GError **error)
{
    g_autofree char *text = g_strdup_printf("block job '%s'", backup->base.id);
    BfRoot *root =
        bf_root_co_new(backup->graph, node, text, perm, shared, error);

    if (root != NULL) {
        bf_root_set_inner(root, backup->base.id, role);
    }
    return root;
}

static bool
co_make_roots(BfBackup *backup, GError **error)
{
    backup->source_root =
        co_make_root(backup, backup->source, "source", BF_PERM_CONSISTENT_READ,
                     BF_PERM_ALL & ~(unsigned)BF_PERM_RESIZE, error);
    if (backup->source_root == NULL) {
        return false;
    }
    /* Readers may have the target: what was copied so far. */
    backup->target_root =
        co_make_root(backup, backup->target, "target", BF_PERM_WRITE,
                     BF_PERM_CONSISTENT_READ | BF_PERM_WRITE_UNCHANGED, error);
    return backup->target_root != NULL;
}

/* Where the target wants its writes, if it matters, else the source. */
static BfLoop *
pick_loop(const BfBackup *backup)
{
    const BfNode *target = backup->target;
    BfLoop *loop = NULL;

    if (!target->any_loop || target->limits.alignment > 1) {
        return target->home;
    }
    loop = bf_graph_pick_loop(backup->graph);
    return bf_root_pick_loop(backup->source_root, &loop, 1, 0);
}

static bool
co_use_bitmap(BfBackup *backup, const char *name, GError **error)
{
    g_autofree char *text = g_strdup_printf("block job '%s'", backup->base.id);
    BfBitmap *bitmap = bf_node_find_bitmap(backup->source, name);

    backup->use = bf_bitmap_co_use(backup->source, bitmap, text, error);
    return backup->use != NULL && bf_bitmap_use_co_freeze(backup->use, error);
}

/* What is to be copied, in pieces of the user's bitmap if that says it. */
static bool
make_bitmaps(BfBackup *backup, const BfBlockdevBackup *options, GError **error)
{
    const BfBitmap *user = uses_bitmap_as_input(options)
                               ? bf_bitmap_use_bitmap(backup->use)
                               : NULL;
    const uint32_t granularity = user != NULL
                                     ? bf_bitmap_granularity(user)
                                     : (uint32_t)BF_BITMAP_GRANULARITY_DEFAULT;
    const uint64_t size = backup->source->size;

    backup->dirty = bf_bitmap_new(NULL, size, granularity, error);
    if (backup->dirty == NULL) {
        return false;
    }
    if (user == NULL) {
        bf_bitmap_put_back(backup->dirty, 0, size);
        return true;
    }
    backup->plan = bf_bitmap_new(NULL, size, granularity, error);
    return backup->plan != NULL &&
           bf_bitmap_merge(backup->dirty, user, error) &&
           bf_bitmap_merge(backup->plan, user, error);
}

static bool
join_throttle_group(BfBackup *backup, const char *id, GError **error)
{
    g_autofree char *text = g_strdup_printf("block job '%s'", backup->base.id);

    if (id == NULL) {
        return true;
    }
    backup->throttle = bf_graph_join_throttle_group(backup->graph, id, text,
                                                    backup->base.loop, error);
    backup->config.throttle = backup->throttle;
    return backup->throttle != NULL;
}

static bool
co_make_copy(BfBackup *backup, const BfBlockdevBackup *options, GError **error)
{
    BfLoop *loop = pick_loop(backup);

    backup->base.loop = loop;
    backup->source_handle = bf_handle_co_new(backup->source_root, loop);
    backup->target_handle = bf_handle_co_new(backup->target_root, loop);
    backup->only_before_writes = options->sync == BF_MIRROR_SYNC_MODE_NONE;
    backup->config = (BfCopyConfig){
        .job = &backup->base,
        .source = backup->source_handle,
        .target = backup->target_handle,
        .dirty = backup->dirty,
        .on_source_error = options->on_source_error,
        .on_target_error = options->on_target_error,
        .flags = BF_COPY_UNMAP | BF_COPY_POINT_IN_TIME |
                 (backup->plan == NULL ? BF_COPY_TARGET_MAYBE_ZERO : 0),
    };
    if (!join_throttle_group(backup, options->throttle_group, error)) {
        return false;
    }
    backup->copy = bf_copy_new(&backup->config, error);
    return backup->copy != NULL;
}

/* From here on the job's clean-up takes back what was done. */
static bool
co_set_up(BfBackup *backup, const BfBlockdevBackup *options, GError **error)
{
    if (!bf_graph_co_section_drain_node(backup->graph, backup->source, error) ||
        (options->bitmap != NULL &&
         !co_use_bitmap(backup, options->bitmap, error)) ||
        !make_bitmaps(backup, options, error)) {
        return false;
    }
    backup->filter = bf_graph_co_insert_filter(
        backup->graph, &bf_driver_backup_top, options->filter_node_name,
        backup->source, error);
    if (backup->filter == NULL || !co_make_roots(backup, error) ||
        !co_make_copy(backup, options, error)) {
        return false;
    }
    bf_job_set_remaining(&backup->base, bf_bitmap_count(backup->dirty));
    bf_backup_top_set_job(backup->filter, backup);
    return true;
}

BfJob *
bf_backup_co_prepare(BfGraph *graph, BfJobTable *table,
                     const BfBlockdevBackup *options, BfJobTxn *txn,
                     GError **error)
{
    const BfJobSettings settings = {
        .id = options->job_id != NULL ? options->job_id : "",
        .speed = options->speed,
        .manual_finalize = !options->auto_finalize,
        .manual_dismiss = !options->auto_dismiss,
    };
    BfBackup *backup = g_new0(BfBackup, 1);

    bf_assert_main();
    backup->graph = graph;
    backup->bitmap_mode = options->has_bitmap_mode
                              ? options->bitmap_mode
                              : BF_BITMAP_SYNC_MODE_ON_SUCCESS;
    if (!find_nodes(backup, options, error) ||
        !check_options(backup, options, error) || !check_nodes(backup, error) ||
        !check_users(backup, table, error) ||
        !bf_job_init(&backup->base, &backup_ops, table, &settings, txn,
                     error)) {
        g_free(backup);
        return NULL;
    }
    if (!co_set_up(backup, options, error)) {
        backup_co_clean(&backup->base);
        bf_job_drop(&backup->base);
        return NULL;
    }
    bf_job_created(&backup->base);
    return &backup->base;
}

bool
bf_backup_co_start(BfGraph *graph, BfJobTable *table,
                   const BfBlockdevBackup *options, GError **error)
{
    BfJob *job = NULL;

    bf_graph_co_section_begin(graph);
    job = bf_backup_co_prepare(graph, table, options, NULL, error);
    if (job != NULL) {
        bf_job_start(job);
    }
    bf_graph_co_section_end(graph);
    return job != NULL;
}
