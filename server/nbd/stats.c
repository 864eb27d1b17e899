/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counting the requests of connections, and adding up what was counted.
 */
#include "stats-private.h"

#include <errno.h>

/* A connection's counters share no cache line with what other loops write. */
#define STATS_ALIGNMENT 64

static BfNbdStats *
stats_new(void)
{
    return g_aligned_alloc0(1, sizeof(BfNbdStats), STATS_ALIGNMENT);
}

void
bf_nbd_stats_free(BfNbdStats *stats)
{
    if (stats == NULL) {
        return;
    }
    for (unsigned i = 0; i < NBD_STATS_KINDS; i++) {
        g_aligned_free(bf_atomic_ptr_load(&stats->kinds[i]));
    }
    g_aligned_free(stats);
}

/* For who counts. */
static inline BfNbdKindStats *
kind_of(BfNbdStats *stats, unsigned number)
{
    BfNbdKindStats *kind = bf_atomic_ptr_load(&stats->kinds[number]);

    if (G_UNLIKELY(kind == NULL)) {
        kind = g_aligned_alloc0(1, sizeof(*kind), STATS_ALIGNMENT);
        bf_atomic_ptr_set_once(&stats->kinds[number], kind);
    }
    return kind;
}

static inline void
add(BfAtomicU64 *sum, uint64_t n)
{
    bf_atomic_store(sum, bf_atomic_load(sum) + n);
}

/* "Not fast" is the answer that was asked for. */
static bool
is_failure(const BfNbdRequest *request, int result)
{
    return result < 0 && !(result == -ENOTSUP &&
                           (request->flags & BF_NBD_REQUEST_FAST_ZERO) != 0);
}

void
bf_nbd_stats_done(const BfNbdTask *task, int result)
{
    const BfNbdRequest *request = &task->request;
    const unsigned number = request->command < NBD_STATS_KINDS
                                ? request->command
                                : NBD_STATS_INVALID;
    BfNbdKindStats *kind = kind_of(task->client->stats, number);
    const uint64_t took_ns = bf_loop_now_ns() - task->begun_ns;

    add(&kind->requests, 1);
    add(&kind->time_ns, took_ns);
    bf_histogram_count(&kind->latency, took_ns);
    if (G_UNLIKELY(result < 0)) {
        add(&kind->failed, is_failure(request, result) ? 1 : 0);
    } else if (request->command != BF_NBD_COMMAND_FLUSH) {
        add(&kind->bytes, request->length);
    }
}

/* On main. */

static void
merge(BfNbdStats *sum, const BfNbdStats *stats)
{
    for (unsigned i = 0; i < NBD_STATS_KINDS; i++) {
        const BfNbdKindStats *from = bf_atomic_ptr_load(&stats->kinds[i]);

        if (from != NULL) {
            BfNbdKindStats *to = kind_of(sum, i);

            add(&to->requests, bf_atomic_load(&from->requests));
            add(&to->failed, bf_atomic_load(&from->failed));
            add(&to->bytes, bf_atomic_load(&from->bytes));
            add(&to->time_ns, bf_atomic_load(&from->time_ns));
            bf_histogram_merge(&to->latency, &from->latency);
        }
    }
}

void
bf_nbd_stats_begin(BfNbdClient *client)
{
    client->stats = stats_new();
    bf_atomic_store(&client->stats->arrived_ns, bf_loop_now_ns());
    g_queue_push_tail_link(&client->exp->users, &client->user_link);
}

void
bf_nbd_stats_retire(BfNbdClient *client)
{
    BfNbdExport *exp = client->exp;

    g_queue_unlink(&exp->users, &client->user_link);
    if (exp->past == NULL) {
        exp->past = stats_new();
    }
    merge(exp->past, client->stats);
    bf_nbd_stats_free(g_steal_pointer(&client->stats));
}

/* Queries. */

uint64_t
bf_nbd_stats_requests(const BfNbdStats *stats)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < NBD_STATS_KINDS; i++) {
        const BfNbdKindStats *kind = bf_atomic_ptr_load(&stats->kinds[i]);

        sum += kind != NULL ? bf_atomic_load(&kind->requests) : 0;
    }
    return sum;
}

uint64_t
bf_nbd_stats_failed(const BfNbdStats *stats)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < NBD_STATS_KINDS; i++) {
        const BfNbdKindStats *kind = bf_atomic_ptr_load(&stats->kinds[i]);

        sum += kind != NULL ? bf_atomic_load(&kind->failed) : 0;
    }
    return sum;
}

static BfUint64List *
list_of(const uint64_t *items, size_t len)
{
    BfUint64List *list = bf_type_new(&bf_uint64_list_type);

    list->len = len;
    list->items = g_memdup2(items, len * sizeof(*items));
    return list;
}

static BfBlockLatencyHistogramInfo *
describe_latency(const BfHistogram *latency)
{
    BfBlockLatencyHistogramInfo *info =
        bf_type_new(&bf_block_latency_histogram_info_type);
    BfHistogramRange range;

    bf_histogram_get(latency, &range);
    info->boundaries =
        list_of(range.boundaries, range.n_bins > 0 ? range.n_bins - 1 : 0);
    info->bins = list_of(range.bins, range.n_bins);
    return info;
}

/* NULL if there were none. */
static BfNbdRequestStats *
describe_kind(const BfNbdStats *stats, unsigned number)
{
    const BfNbdKindStats *kind = bf_atomic_ptr_load(&stats->kinds[number]);
    BfNbdRequestStats *info = NULL;

    if (kind == NULL || bf_atomic_load(&kind->requests) == 0) {
        return NULL;
    }
    info = bf_type_new(&bf_nbd_request_stats_type);
    info->requests = bf_atomic_load(&kind->requests);
    info->failed = bf_atomic_load(&kind->failed);
    info->bytes = bf_atomic_load(&kind->bytes);
    info->time_ns = bf_atomic_load(&kind->time_ns);
    info->latency = describe_latency(&kind->latency);
    return info;
}

BfNbdRequests *
bf_nbd_stats_query(const BfNbdStats *stats)
{
    BfNbdRequests *info = bf_type_new(&bf_nbd_requests_type);

    info->read = describe_kind(stats, BF_NBD_COMMAND_READ);
    info->write = describe_kind(stats, BF_NBD_COMMAND_WRITE);
    info->write_zeroes = describe_kind(stats, BF_NBD_COMMAND_WRITE_ZEROES);
    info->trim = describe_kind(stats, BF_NBD_COMMAND_TRIM);
    info->flush = describe_kind(stats, BF_NBD_COMMAND_FLUSH);
    info->cache = describe_kind(stats, BF_NBD_COMMAND_CACHE);
    info->block_status = describe_kind(stats, BF_NBD_COMMAND_BLOCK_STATUS);
    info->invalid = describe_kind(stats, NBD_STATS_INVALID);
    return info;
}

BfNbdRequests *
bf_nbd_stats_query_export(const BfNbdExport *exp, uint64_t *ret_failed)
{
    BfNbdStats *sum = stats_new();
    BfNbdRequests *info = NULL;

    if (exp->past != NULL) {
        merge(sum, exp->past);
    }
    for (GList *l = exp->users.head; l != NULL; l = l->next) {
        const BfNbdClient *client = l->data;

        merge(sum, client->stats);
    }
    info = bf_nbd_stats_query(sum);
    *ret_failed = bf_nbd_stats_failed(sum);
    bf_nbd_stats_free(sum);
    return info;
}
