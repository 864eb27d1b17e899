/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counting a node's requests, and what query-blockstats tells of them.
 */
#include "stats-private.h"

#include <errno.h>

#include "block-private.h"
#include "block/graph.h"

/* A slot's own cache lines. */
#define SLOT_ALIGNMENT 64

BfNodeStats *
bf_stats_new(void)
{
    return g_new0(BfNodeStats, 1);
}

void
bf_stats_free(BfNodeStats *stats)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(stats->slots); i++) {
        g_aligned_free(bf_atomic_ptr_load(&stats->slots[i]));
    }
    g_free(stats);
}

/* The first request on this loop; several may be the first to share one. */
static BfStatsSlot *
make_slot(BfAtomicPtr *place)
{
    BfStatsSlot *slot = g_aligned_alloc0(1, sizeof(*slot), SLOT_ALIGNMENT);

    if (!bf_atomic_ptr_set_once(place, slot)) {
        g_aligned_free(slot);
        slot = bf_atomic_ptr_load(place);
    }
    return slot;
}

static inline BfStatsSlot *
get_slot(BfNodeStats *stats, unsigned number)
{
    BfStatsSlot *slot = bf_atomic_ptr_load(&stats->slots[number]);

    return G_LIKELY(slot != NULL) ? slot : make_slot(&stats->slots[number]);
}

static inline void
add(BfAtomicU64 *sum, uint64_t n, bool is_shared)
{
    if (G_UNLIKELY(is_shared)) {
        bf_atomic_add(sum, n);
    } else {
        bf_atomic_store(sum, bf_atomic_load(sum) + n);
    }
}

static inline void
raise_to(BfAtomicU64 *most, uint64_t n, bool is_shared)
{
    if (G_UNLIKELY(is_shared)) {
        bf_atomic_raise(most, n);
    } else if (bf_atomic_load(most) < n) {
        bf_atomic_store(most, n);
    }
}

static inline void
note_write(BfNode *node, BfStatsSlot *slot, uint64_t end, bool is_shared)
{
    const uint64_t threshold = bf_atomic_load(&node->write_threshold);

    raise_to(&slot->highest, end, is_shared);
    if (G_UNLIKELY(threshold != 0 && end > threshold)) {
        bf_node_pass_write_threshold(node, end);
    }
}

void
bf_stats_done(BfNode *node, BfStatsKind kind, uint64_t offset, uint64_t bytes,
              uint64_t begun_ns, int ret)
{
    const unsigned number = bf_loop_number();
    const bool is_shared = number == BF_LOOP_NUMBER_SHARED;
    BfStatsSlot *slot = get_slot(node->stats, number);
    BfStatsSums *sums = &slot->sums[kind];
    uint64_t now_ns;

    if (G_UNLIKELY(ret == -ENOTSUP)) {
        return;
    }
    if (kind == BF_STATS_WRITE) {
        note_write(node, slot, offset + bytes, is_shared);
    }
    if (G_UNLIKELY(ret < 0)) {
        add(&sums->failed, 1, is_shared);
        return;
    }
    now_ns = bf_loop_now_ns();
    add(&sums->ops, 1, is_shared);
    add(&sums->bytes, bytes, is_shared);
    add(&sums->time_ns, now_ns - begun_ns, is_shared);
    raise_to(&slot->last_ns, now_ns, is_shared);
}

int
bf_stats_refused(BfNode *node, BfStatsKind kind, int ret)
{
    const unsigned number = bf_loop_number();

    add(&get_slot(node->stats, number)->sums[kind].invalid, 1,
        number == BF_LOOP_NUMBER_SHARED);
    return ret;
}

/* Queries, on main. */

/* All slots together. */
typedef struct Sums {
    struct {
        uint64_t ops, bytes, time_ns, failed, invalid;
    } kinds[BF_STATS_KINDS];
    uint64_t highest;
    uint64_t last_ns;
} Sums;

static void
add_slot(Sums *sums, const BfStatsSlot *slot)
{
    for (unsigned i = 0; i < BF_STATS_KINDS; i++) {
        sums->kinds[i].ops += bf_atomic_load(&slot->sums[i].ops);
        sums->kinds[i].bytes += bf_atomic_load(&slot->sums[i].bytes);
        sums->kinds[i].time_ns += bf_atomic_load(&slot->sums[i].time_ns);
        sums->kinds[i].failed += bf_atomic_load(&slot->sums[i].failed);
        sums->kinds[i].invalid += bf_atomic_load(&slot->sums[i].invalid);
    }
    sums->highest = MAX(sums->highest, bf_atomic_load(&slot->highest));
    sums->last_ns = MAX(sums->last_ns, bf_atomic_load(&slot->last_ns));
}

static Sums
add_up(const BfNode *node)
{
    Sums sums = {.highest = 0};

    for (unsigned i = 0; i < G_N_ELEMENTS(node->stats->slots); i++) {
        const BfStatsSlot *slot = bf_atomic_ptr_load(&node->stats->slots[i]);

        if (slot != NULL) {
            add_slot(&sums, slot);
        }
    }
    return sums;
}

/* What is not set stays 0: nothing is merged, and there are no zones. */
static BfBlockDeviceStats *
device_stats(const Sums *sums)
{
    BfBlockDeviceStats *stats = bf_type_new(&bf_block_device_stats_type);
    const uint64_t now_ns = bf_loop_now_ns();

    stats->rd_bytes = (int64_t)sums->kinds[BF_STATS_READ].bytes;
    stats->wr_bytes = (int64_t)sums->kinds[BF_STATS_WRITE].bytes;
    stats->unmap_bytes = (int64_t)(sums->kinds[BF_STATS_UNMAP].bytes +
                                   sums->kinds[BF_STATS_UNMAP_DROPPED].bytes);
    stats->rd_operations = (int64_t)sums->kinds[BF_STATS_READ].ops;
    stats->wr_operations = (int64_t)sums->kinds[BF_STATS_WRITE].ops;
    stats->unmap_operations =
        (int64_t)(sums->kinds[BF_STATS_UNMAP].ops +
                  sums->kinds[BF_STATS_UNMAP_DROPPED].ops);
    stats->flush_operations = (int64_t)sums->kinds[BF_STATS_FLUSH].ops;
    stats->rd_total_time_ns = (int64_t)sums->kinds[BF_STATS_READ].time_ns;
    stats->wr_total_time_ns = (int64_t)sums->kinds[BF_STATS_WRITE].time_ns;
    stats->unmap_total_time_ns = (int64_t)sums->kinds[BF_STATS_UNMAP].time_ns;
    stats->flush_total_time_ns = (int64_t)sums->kinds[BF_STATS_FLUSH].time_ns;
    stats->failed_rd_operations = (int64_t)sums->kinds[BF_STATS_READ].failed;
    stats->failed_wr_operations = (int64_t)sums->kinds[BF_STATS_WRITE].failed;
    stats->failed_unmap_operations =
        (int64_t)sums->kinds[BF_STATS_UNMAP].failed;
    stats->failed_flush_operations =
        (int64_t)sums->kinds[BF_STATS_FLUSH].failed;
    stats->invalid_rd_operations = (int64_t)sums->kinds[BF_STATS_READ].invalid;
    stats->invalid_wr_operations = (int64_t)sums->kinds[BF_STATS_WRITE].invalid;
    stats->invalid_unmap_operations =
        (int64_t)sums->kinds[BF_STATS_UNMAP].invalid;
    stats->wr_highest_offset = (int64_t)sums->highest;
    stats->has_idle_time_ns = sums->last_ns != 0;
    stats->idle_time_ns =
        (int64_t)(now_ns - MIN(now_ns, MAX(sums->last_ns, 1)));
    stats->timed_stats = bf_type_new(&bf_block_device_timed_stats_list_type);
    return stats;
}

/* What the driver was given. */
static BfBlockStatsSpecific *
specific_stats(const BfNode *node, const Sums *sums)
{
    const BfBlockdevDriver kind = node->driver->kind;
    BfBlockStatsSpecificFile *file;
    BfBlockStatsSpecific *specific;

    if (kind != BF_BLOCKDEV_DRIVER_FILE &&
        kind != BF_BLOCKDEV_DRIVER_HOST_DEVICE) {
        return NULL;
    }
    file = bf_type_new(&bf_block_stats_specific_file_type);
    file->discard_nb_ok = sums->kinds[BF_STATS_UNMAP].ops;
    file->discard_nb_failed = sums->kinds[BF_STATS_UNMAP].failed;
    file->discard_bytes_ok = sums->kinds[BF_STATS_UNMAP].bytes;
    specific = bf_type_new(&bf_block_stats_specific_type);
    specific->driver = kind;
    if (kind == BF_BLOCKDEV_DRIVER_FILE) {
        specific->u.file = file;
    } else {
        specific->u.host_device = file;
    }
    return specific;
}

static BfBlockStats *
node_stats(const BfNode *node)
{
    BfBlockStats *info = bf_type_new(&bf_block_stats_type);
    const Sums sums = add_up(node);

    info->node_name = g_strdup(node->name);
    info->stats = device_stats(&sums);
    info->driver_specific = specific_stats(node, &sums);
    info->parent = node->file != NULL ? node_stats(node->file) : NULL;
    return info;
}

BfBlockStatsList *
bf_graph_co_query_stats(BfGraph *graph, bool nodes)
{
    BfBlockStatsList *list = bf_type_new(&bf_block_stats_list_type);

    bf_assert_main();
    if (!nodes) {
        return list;
    }
    list->items = g_new0(BfBlockStats *, graph->nodes->len);
    for (unsigned i = 0; i < graph->nodes->len; i++) {
        const BfNode *node = g_ptr_array_index(graph->nodes, i);

        if (node->registered) {
            list->items[list->len++] = node_stats(node);
        }
    }
    return list;
}
