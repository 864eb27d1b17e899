/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mirror job's life: made in one step of the graph, which puts its filter
 * above the source and gives the source a hidden bitmap; mirror-run.c works;
 * taken out again at the end. On main.
 */
#include "block/mirror.h"

#include "block/bitmap-ops.h"
#include "block/graph.h"
#include "block/handover.h"
#include "core/error.h"
#include "core/util.h"
#include "mirror-private.h"

#define GRANULARITY_MAX (64 * BF_MIB)

/* Wait between attempts to take the filter out of a graph that is not at rest.
 */
#define CLEAN_RETRY_NS BF_NS_PER_SEC

/* Verbs. */

static bool
mirror_co_complete(BfJob *job, GError **error)
{
    BfMirror *mirror = (BfMirror *)job;

    /* Whoever has cancelled it relies on the users' staying. */
    if (bf_atomic_load(&mirror->wish) == MIRROR_WISH_COPY) {
        bf_set_error(error, "The active block job '%s' cannot be completed",
                     job->id);
        return false;
    }
    bf_atomic_store(&mirror->wish, MIRROR_WISH_PIVOT);
    return true;
}

static bool
mirror_soft_cancel(BfJob *job)
{
    BfMirror *mirror = (BfMirror *)job;

    if (!job->was_ready) {
        return false;
    }
    bf_atomic_store(&mirror->wish, MIRROR_WISH_COPY);
    return true;
}

/* Requests that hang on the target shall not keep a job that is aborted. */
static void
mirror_aborted(BfJob *job)
{
    const BfMirror *mirror = (const BfMirror *)job;

    bf_root_abort(mirror->target_root);
    bf_node_cancel_requests(mirror->target);
}

static void
settle_co_run(void *arg)
{
    bf_copy_co_settle(arg);
}

/* Nor shall they keep writes to the source that wait for the target. A last
 * pass that was called off has left operations under way. */
static void
mirror_co_abort(BfJob *job)
{
    const BfMirror *mirror = (const BfMirror *)job;

    mirror_aborted(job);
    if (mirror->copy != NULL) {
        bf_co_call(job->loop, settle_co_run, mirror->copy);
    }
}

static bool
mirror_co_change(BfJob *job, const BfBlockJobChangeOptions *options,
                 GError **error)
{
    BfMirror *mirror = (BfMirror *)job;
    BfMirrorCopyMode mode = options->u.mirror->copy_mode;
    bool blocking = bf_atomic_load(&mirror->blocking) != 0;

    if ((mode == BF_MIRROR_COPY_MODE_WRITE_BLOCKING) == blocking) {
        return true;
    }
    if (mode != BF_MIRROR_COPY_MODE_WRITE_BLOCKING) {
        bf_set_error(error, "Change to copy mode '%s' is not implemented",
                     bf_mirror_copy_mode_str(mode));
        return false;
    }
    bf_atomic_store(&mirror->blocking, 1);
    bf_job_kick(job);
    return true;
}

static void
mirror_query(BfJob *job, BfBlockJobInfo *info)
{
    const BfMirror *mirror = (const BfMirror *)job;
    const uint64_t remaining = bf_atomic_load(&job->remaining);

    /* Writes that go to both sides do not make them differ. */
    info->u.mirror = g_new0(BfBlockJobInfoMirror, 1);
    info->u.mirror->actively_synced =
        bf_atomic_load(&mirror->is_active) != 0 && job->was_ready &&
        mirror->dirty != NULL && bf_bitmap_count(mirror->dirty) == 0 &&
        remaining <= bf_atomic_load(&job->held_bytes);
}

static BfJobUse
mirror_use_of(const BfJob *job, const BfNode *node)
{
    const BfMirror *mirror = (const BfMirror *)job;

    return node == mirror->source || node == mirror->target ||
                   node == mirror->filter || node == mirror->replaces
               ? BF_JOB_USE_ALONE
               : BF_JOB_USE_NONE;
}

/* The end. */

static bool
co_take_out(BfMirror *mirror, GError **error)
{
    const BfGraphMove move = {mirror->filter, mirror->source};
    const BfHandOver hand_over = {
        .filter = mirror->filter,
        .moves = &move,
        .n_moves = 1,
    };

    if (!bf_graph_co_hand_over(mirror->graph, &hand_over, error)) {
        return false;
    }
    mirror->filter = NULL;
    return true;
}

/* The hidden bitmap goes, whatever it takes; the source is not ours alone. */
static void
co_take_bitmap(BfMirror *mirror)
{
    while (!bf_node_co_detach_bitmap(mirror->source, mirror->dirty, NULL)) {
        bf_co_sleep_ns(CLEAN_RETRY_NS);
        bf_node_co_outlast_requests(mirror->source);
    }
    g_clear_pointer(&mirror->dirty, bf_bitmap_free);
}

static void
co_take_down(BfMirror *mirror)
{
    while (mirror->filter != NULL && !co_take_out(mirror, NULL)) {
        bf_co_sleep_ns(CLEAN_RETRY_NS);
        bf_node_co_outlast_requests(mirror->source);
    }
    if (mirror->dirty != NULL) {
        co_take_bitmap(mirror);
    }
    bf_root_co_free(g_steal_pointer(&mirror->target_root));
    g_clear_pointer(&mirror->copy, bf_copy_free);
    bf_throttle_member_co_free(g_steal_pointer(&mirror->throttle));
    bf_bitmap_co_unuse(g_steal_pointer(&mirror->bitmap));
    bf_root_co_free(g_steal_pointer(&mirror->replaces_root));
    bf_root_co_free(g_steal_pointer(&mirror->source_root));
    mirror->source = mirror->target = mirror->replaces = NULL;
}

static void
mirror_co_clean(BfJob *job)
{
    co_take_down((BfMirror *)job);
}

static void
mirror_ends(const BfJob *job, BfJobEnds *ret_ends)
{
    const BfMirror *mirror = (const BfMirror *)job;

    ret_ends->source_name = bf_node_name(mirror->source);
    ret_ends->source_handle = mirror->source_handle;
    ret_ends->target_name = bf_node_name(mirror->target);
    ret_ends->target_handle = mirror->target_handle;
}

static BfRoot *
mirror_source_root(const BfJob *job)
{
    return ((const BfMirror *)job)->source_root;
}

static const BfJobOps mirror_ops = {
    .type = BF_JOB_TYPE_MIRROR,
    .is_block_job = true,
    .co_run = bf_mirror_co_run,
    .co_prepare = bf_mirror_co_prepare,
    .co_abort = mirror_co_abort,
    .co_clean = mirror_co_clean,
    .co_complete = mirror_co_complete,
    .soft_cancel = mirror_soft_cancel,
    .aborted = mirror_aborted,
    .co_change = mirror_co_change,
    .query = mirror_query,
    .ends = mirror_ends,
    .source_root = mirror_source_root,
    .use_of = mirror_use_of,
};

/* The start. */

static bool
find_replaced(BfMirror *mirror, const char *name, GError **error)
{
    mirror->replaces = mirror->source;
    if (name == NULL) {
        return true;
    }
    mirror->replaces = bf_graph_require_named(mirror->graph, name, error);
    if (mirror->replaces == NULL) {
        return false;
    }
    if (mirror->replaces->size != mirror->source->size) {
        bf_set_error(error, "cannot replace image with a mirror image of "
                            "different size");
        return false;
    }
    if (!bf_node_shows(mirror->source, mirror->replaces)) {
        bf_set_error(error,
                     "Cannot replace '%s' by a node mirrored from '%s', "
                     "because it cannot be guaranteed that doing so would not "
                     "lead to an abrupt change of visible data",
                     name, bf_node_name(mirror->source));
        return false;
    }
    return true;
}

/* Two mirrors, or a mirror and a backup, would move each other's users. */
static bool
check_alone(const BfMirror *mirror, BfJobTable *table, GError **error)
{
    const BfNode *const nodes[] = {mirror->source, mirror->target,
                                   mirror->replaces};

    for (size_t i = 0; i < G_N_ELEMENTS(nodes); i++) {
        if (!bf_job_table_check_node(table, nodes[i], &mirror_ops, false,
                                     error)) {
            return false;
        }
    }
    return true;
}

static bool
find_nodes(BfMirror *mirror, const BfBlockdevMirror *options, GError **error)
{
    mirror->source =
        bf_graph_require_node(mirror->graph, options->device, error);
    if (mirror->source == NULL) {
        return false;
    }
    if (!bf_node_is_top(mirror->source)) {
        bf_set_error(error, "Need a root block node");
        return false;
    }
    mirror->target =
        bf_graph_require_node(mirror->graph, options->target, error);
    if (mirror->target == NULL ||
        !find_replaced(mirror, options->replaces, error)) {
        return false;
    }
    if (mirror->source == mirror->target) {
        bf_set_error(error, "Can't mirror node into itself");
        return false;
    }
    if (!bf_node_check_not_behind(mirror->target, mirror->source, error)) {
        return false;
    }
    if (bf_node_is_read_only(mirror->target)) {
        bf_set_error(error, "Block node is read-only");
        return false;
    }
    return true;
}

static bool
check_granularity(const BfBlockdevMirror *options, GError **error)
{
    uint32_t granularity = options->granularity;

    if (granularity == 0) {
        return true;
    }
    if (granularity < BF_BITMAP_GRANULARITY_MIN ||
        granularity > GRANULARITY_MAX) {
        bf_set_error(error, "Parameter 'granularity' expects a value in range "
                            "[512B, 64MB]");
        return false;
    }
    if ((granularity & (granularity - 1)) != 0) {
        bf_set_error(error, "Parameter 'granularity' expects a power of 2");
        return false;
    }
    return true;
}

static bool
check_options(const BfBlockdevMirror *options, GError **error)
{
    if (options->sync == BF_MIRROR_SYNC_MODE_BITMAP) {
        bf_set_error(error, "Sync mode '%s' not supported",
                     bf_mirror_sync_mode_str(options->sync));
        return false;
    }
    if (options->sync == BF_MIRROR_SYNC_MODE_INCREMENTAL &&
        options->bitmap == NULL) {
        bf_set_error(error, "Sync mode 'incremental' needs a bitmap that says "
                            "what to copy");
        return false;
    }
    if (options->bitmap != NULL &&
        options->sync != BF_MIRROR_SYNC_MODE_INCREMENTAL) {
        bf_set_error(error, "A bitmap is for sync mode 'incremental' only");
        return false;
    }
    if (options->bitmap_mode == BF_BITMAP_SYNC_MODE_ALWAYS) {
        bf_set_error(error, "Bitmap mode 'always' is not supported for "
                            "mirrors; use 'on-success' or 'never'");
        return false;
    }
    if (options->buf_size < 0) {
        bf_set_error(error, "Invalid parameter 'buf-size'");
        return false;
    }
    return check_granularity(options, error);
}

static BfRoot *
co_make_root(BfMirror *mirror, BfNode *node, const char *role, unsigned perm,
             unsigned shared, GError **error)
{
    g_autofree char *text = g_strdup_printf("block job '%s'", mirror->base.id);
    BfRoot *root =
        bf_root_co_new(mirror->graph, node, text, perm, shared, error);

    if (root != NULL) {
        bf_root_set_inner(root, mirror->base.id, role);
    }
    return root;
}

static bool
co_make_roots(BfMirror *mirror, GError **error)
{
    const unsigned all = BF_PERM_ALL & ~(unsigned)BF_PERM_RESIZE;

    mirror->source_root = co_make_root(mirror, mirror->source, "source",
                                       BF_PERM_CONSISTENT_READ, all, error);
    if (mirror->source_root == NULL) {
        return false;
    }
    mirror->target_root =
        co_make_root(mirror, mirror->target, "target", BF_PERM_WRITE,
                     BF_PERM_WRITE_UNCHANGED, error);
    if (mirror->target_root == NULL) {
        return false;
    }
    if (mirror->replaces != mirror->source) {
        mirror->replaces_root =
            co_make_root(mirror, mirror->replaces, "replaces", 0, all, error);
        return mirror->replaces_root != NULL;
    }
    return true;
}

static bool
co_fill_from_user(BfMirror *mirror, const BfBlockdevMirror *options,
                  GError **error)
{
    g_autofree char *text = g_strdup_printf("block job '%s'", mirror->base.id);
    BfNode *node;
    BfBitmap *bitmap =
        bf_bitmap_find_through(mirror->source, options->bitmap, &node);

    if (bitmap == NULL) {
        bf_set_error(error, "Bitmap '%s' could not be found", options->bitmap);
        return false;
    }
    mirror->bitmap = bf_bitmap_co_use(node, bitmap, text, error);
    if (mirror->bitmap == NULL) {
        return false;
    }
    mirror->keep_bitmap = options->bitmap_mode == BF_BITMAP_SYNC_MODE_NEVER;
    return bf_bitmap_merge(mirror->dirty, bitmap, error);
}

/* Marks what is to be copied at first; writers already mark what they write. */
static bool
co_fill_bitmap(BfMirror *mirror, const BfBlockdevMirror *options,
               GError **error)
{
    switch (options->sync) {
    case BF_MIRROR_SYNC_MODE_FULL:
    case BF_MIRROR_SYNC_MODE_TOP: /* nothing here has a backing image */
        mirror->is_full = true;
        bf_bitmap_put_back(mirror->dirty, 0, mirror->source->size);
        return true;
    case BF_MIRROR_SYNC_MODE_INCREMENTAL:
        return co_fill_from_user(mirror, options, error);
    default:
        return true;
    }
}

static bool
co_make_bitmap(BfMirror *mirror, const BfBlockdevMirror *options,
               GError **error)
{
    uint32_t granularity = options->granularity;
    BfBitmap *bitmap = bf_bitmap_new(
        NULL, mirror->source->size,
        granularity != 0 ? granularity : BF_BITMAP_GRANULARITY_DEFAULT, error);

    if (bitmap == NULL) {
        return false;
    }
    bf_bitmap_set_filtered(bitmap);
    if (!bf_node_co_add_bitmap(mirror->source, bitmap, error)) {
        bf_bitmap_free(bitmap);
        return false;
    }
    mirror->dirty = bitmap;
    return co_fill_bitmap(mirror, options, error);
}

static bool
join_throttle_group(BfMirror *mirror, const char *id, GError **error)
{
    g_autofree char *text = g_strdup_printf("block job '%s'", mirror->base.id);

    if (id == NULL) {
        return true;
    }
    mirror->throttle = bf_graph_join_throttle_group(mirror->graph, id, text,
                                                    mirror->base.loop, error);
    mirror->config.throttle = mirror->throttle;
    return mirror->throttle != NULL;
}

static void
co_make_handles(BfMirror *mirror, const BfBlockdevMirror *options)
{
    BfLoop *loop =
        bf_root_pick_copy_loop(mirror->source_root, mirror->target_root);

    mirror->base.loop = loop;
    mirror->source_handle = bf_handle_co_new(mirror->source_root, loop);
    mirror->target_handle = bf_handle_co_new(mirror->target_root, loop);
    mirror->target_is_zero = options->target_is_zero;
    bf_atomic_store(&mirror->blocking,
                    options->copy_mode == BF_MIRROR_COPY_MODE_WRITE_BLOCKING);
    mirror->config = (BfCopyConfig){
        .job = &mirror->base,
        .source = mirror->source_handle,
        .target = mirror->target_handle,
        .dirty = mirror->dirty,
        .buf_size = (uint64_t)options->buf_size,
        .on_source_error = options->on_source_error,
        .on_target_error = options->on_target_error,
        .flags = options->unmap ? BF_COPY_UNMAP : 0,
    };
    bf_job_set_remaining(&mirror->base, bf_bitmap_count(mirror->dirty));
}

static bool
co_set_up(BfMirror *mirror, const BfBlockdevMirror *options, GError **error)
{
    mirror->filter = bf_graph_co_insert_filter(
        mirror->graph, &bf_driver_mirror_top, options->filter_node_name,
        mirror->source, error);
    if (mirror->filter == NULL || !co_make_roots(mirror, error) ||
        !co_make_bitmap(mirror, options, error)) {
        return false;
    }
    co_make_handles(mirror, options);
    if (!join_throttle_group(mirror, options->throttle_group, error)) {
        return false;
    }
    bf_mirror_top_set_job(mirror->filter, mirror);
    return true;
}

/* In a section, so that nobody comes between the checks and the changes. */
static bool
co_start_in_section(BfMirror *mirror, BfJobTable *table,
                    const BfBlockdevMirror *options, GError **error)
{
    const BfJobSettings settings = {
        .id = options->job_id != NULL ? options->job_id : "",
        .speed = options->speed,
        .manual_finalize = !options->auto_finalize,
        .manual_dismiss = !options->auto_dismiss,
    };

    if (!find_nodes(mirror, options, error) ||
        !check_alone(mirror, table, error) ||
        !bf_job_init(&mirror->base, &mirror_ops, table, &settings, NULL,
                     error)) {
        g_free(mirror);
        return false;
    }
    if (!bf_graph_co_section_drain_node(mirror->graph, mirror->source, error) ||
        !co_set_up(mirror, options, error)) {
        co_take_down(mirror);
        bf_job_drop(&mirror->base);
        return false;
    }
    return true;
}

bool
bf_mirror_co_start(BfGraph *graph, BfJobTable *table,
                   const BfBlockdevMirror *options, GError **error)
{
    BfMirror *mirror;
    bool ok;

    bf_assert_main();
    if (!check_options(options, error)) {
        return false;
    }
    mirror = g_new0(BfMirror, 1);
    mirror->graph = graph;
    bf_graph_co_section_begin(graph);
    ok = co_start_in_section(mirror, table, options, error);
    bf_graph_co_section_end(graph);
    if (ok) {
        bf_job_start(&mirror->base);
    }
    return ok;
}
