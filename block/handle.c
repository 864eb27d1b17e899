/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Handles: the data path's way in. A request enters, which counts it or parks
 * it, runs on this loop or at the node's home, and leaves.
 *
 * Main and a handle's loop speak by messages only. Each is counted in
 * BfHandle.messages until its answer is back, so that a handle is not freed
 * while one is under way.
 */
#include "block/handle.h"

#include <inttypes.h>

#include "block-private.h"
#include "block/request.h"
#include "core/clock.h"
#include "core/util.h"

static const char *const request_names[] = {
    [REQUEST_READ] = "read",
    [REQUEST_WRITE] = "write",
    [REQUEST_WRITE_ZEROES] = "write of zeroes",
    [REQUEST_DISCARD] = "discard",
    [REQUEST_FLUSH] = "flush",
    [REQUEST_EXTENTS] = "allocation query",
    [REQUEST_CACHE] = "read-ahead",
    [REQUEST_READ_PIPE] = "read",
    [REQUEST_WRITE_PIPE] = "write",
};

/* Copies what the data path needs; on main, or on the loop before a resume. */
static void
refresh_copies(BfHandle *handle)
{
    BfNode *node = handle->root->node;
    bool away = node->home != handle->loop;

    handle->node = node;
    handle->size = node->size;
    handle->limits = node->limits;
    handle->reads_away = away && bf_node_reads_at_home(node);
    handle->writes_away = away && bf_node_writes_at_home(node);
}

/* On main: a message has come back. */
static void
message_done(void *arg)
{
    BfHandle *handle = arg;

    bf_wait_group_done(&handle->messages);
}

static void
send_to_loop(BfHandle *handle, BfFn *fn)
{
    bf_wait_group_add(&handle->messages, 1);
    bf_loop_post(handle->loop, fn, handle);
}

static void
answer_main(BfHandle *handle, BfFn *fn)
{
    bf_loop_post(handle->root->graph->main_loop, fn, handle);
}

static void
handle_parked(void *arg)
{
    BfHandle *handle = arg;

    g_assert(handle->park == PARK_ASKED);
    handle->park = PARK_DONE;
    bf_drain_note_parked(handle->root->graph->drain);
    message_done(handle);
}

static void
park(void *arg)
{
    BfHandle *handle = arg;

    handle->parked = true;
    if (handle->in_flight == 0) {
        answer_main(handle, handle_parked);
    } else {
        handle->report_parked = true;
    }
}

void
bf_handle_ask_park(BfHandle *handle)
{
    handle->park = PARK_ASKED;
    send_to_loop(handle, park);
}

static void
resume(void *arg)
{
    BfHandle *handle = arg;

    handle->parked = false;
    refresh_copies(handle);
    bf_co_queue_wake_all(&handle->parking);
    answer_main(handle, message_done);
}

void
bf_handle_ask_resume(BfHandle *handle)
{
    handle->park = PARK_NONE;
    send_to_loop(handle, resume);
}

typedef struct CancelPark {
    BfHandle *handle;
    bool cancelled;
    char *oldest; /* owned */
} CancelPark;

static void
cancel_park(void *arg)
{
    CancelPark *cancel = arg;
    BfHandle *handle = cancel->handle;
    const BfRequest *oldest = handle->oldest;

    cancel->cancelled = handle->report_parked;
    handle->report_parked = false;
    if (oldest != NULL) {
        cancel->oldest = g_strdup_printf(
            "a %s of %" PRIu64 " bytes at offset %" PRIu64,
            request_names[oldest->kind], oldest->bytes, oldest->offset);
    }
}

void
bf_handle_co_cancel_park(BfHandle *handle, char **ret_oldest)
{
    CancelPark cancel = {.handle = handle};

    /* Keep it, even if its report comes in while we are away. */
    bf_wait_group_add(&handle->messages, 1);
    bf_co_call(handle->loop, cancel_park, &cancel);
    if (cancel.cancelled) {
        handle_parked(handle);
    }
    while (handle->park == PARK_ASKED) {
        bf_co_queue_co_wait(&handle->root->graph->drain->queue);
    }
    bf_wait_group_done(&handle->messages);
    *ret_oldest = cancel.oldest;
}

BfHandle *
bf_handle_co_new(BfRoot *root, BfLoop *loop)
{
    BfHandle *handle = g_new0(BfHandle, 1);

    bf_assert_main();
    handle->root = root;
    handle->loop = loop;
    handle->perm = root->edge.perm;
    handle->aborted = root->aborted;
    refresh_copies(handle);
    handle->last_loss = bf_node_last_loss(handle->node);
    if (root->drained) {
        handle->parked = true;
        handle->park = PARK_DONE;
    }
    g_ptr_array_add(root->handles, handle);
    return handle;
}

static void
handle_co_quiesce(void *arg)
{
    BfHandle *handle = arg;

    while (handle->in_flight + handle->waiting > 0) {
        bf_co_queue_co_wait(&handle->idle);
    }
}

static void
outlast_co_run(void *arg)
{
    BfHandle *handle = arg;
    uint64_t elders = handle->elders;

    while (handle->oldest != NULL && handle->elders == elders) {
        bf_co_queue_co_wait(&handle->elder_left);
    }
}

void
bf_handle_co_outlast_oldest(BfHandle *handle)
{
    bf_co_call(handle->loop, outlast_co_run, handle);
    bf_wait_group_done(&handle->messages);
}

/* Only the handle's loop counts, so this is no more than an addition; main
 * reads the counters at any time. */
static inline void
count(BfAtomicU64 *counter, uint64_t n)
{
    bf_atomic_store(counter, bf_atomic_load(counter) + n);
}

static inline void
note_time(BfAtomicU64 *time_ns, int ret)
{
    if (G_LIKELY(ret == 0)) {
        bf_atomic_store(time_ns, bf_clock_wall_ns());
    }
}

static void
add_stats(BfIoStats *sum, const BfHandle *handle)
{
    const BfHandleStats *stats = &handle->stats;
    uint64_t last_change_ns = bf_atomic_load(&stats->last_change_ns);
    uint64_t last_flush_ns = bf_atomic_load(&stats->last_flush_ns);

    sum->read_ops += bf_atomic_load(&stats->read_ops);
    sum->read_bytes += bf_atomic_load(&stats->read_bytes);
    sum->write_ops += bf_atomic_load(&stats->write_ops);
    sum->write_bytes += bf_atomic_load(&stats->write_bytes);
    sum->zero_ops += bf_atomic_load(&stats->zero_ops);
    sum->zero_bytes += bf_atomic_load(&stats->zero_bytes);
    sum->discard_ops += bf_atomic_load(&stats->discard_ops);
    sum->discard_bytes += bf_atomic_load(&stats->discard_bytes);
    sum->flush_ops += bf_atomic_load(&stats->flush_ops);
    sum->failed_ops += bf_atomic_load(&stats->failed_ops);
    sum->last_change_ns = MAX(sum->last_change_ns, last_change_ns);
    sum->last_flush_ns = MAX(sum->last_flush_ns, last_flush_ns);
}

void
bf_handle_co_free(BfHandle *handle)
{
    if (handle == NULL) {
        return;
    }
    bf_assert_main();
    bf_co_call(handle->loop, handle_co_quiesce, handle);
    bf_handle_co_free_idle(handle);
}

void
bf_handle_co_free_idle(BfHandle *handle)
{
    bf_assert_main();
    bf_wait_group_co_wait(&handle->messages);
    g_ptr_array_remove_fast(handle->root->handles, handle);
    add_stats(&handle->root->freed, handle);
    g_free(handle);
}

static void
abort_requests(void *arg)
{
    BfHandle *handle = arg;

    handle->aborted = true;
    bf_co_queue_wake_all(&handle->parking);
    answer_main(handle, message_done);
}

void
bf_root_abort(BfRoot *root)
{
    bf_assert_main();
    root->aborted = true;
    if (root->hurried == NULL) {
        root->hurried = bf_drain_hurry_begin(root->node);
    }
    for (unsigned i = 0; i < root->handles->len; i++) {
        send_to_loop(g_ptr_array_index(root->handles, i), abort_requests);
    }
}

static bool
is_for_aborted_only(const BfNode *node)
{
    for (unsigned i = 0; i < node->parents->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->parents, i);

        if (edge->root != NULL ? !edge->root->aborted
                               : !is_for_aborted_only(edge->parent)) {
            return false;
        }
    }
    return true;
}

static void
cancel_where_aborted(BfNode *node)
{
    if (!is_for_aborted_only(node)) {
        return;
    }
    if (node->driver->cancel_requests != NULL) {
        node->driver->cancel_requests(node);
    }
    for (unsigned i = 0; i < node->edges->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->edges, i);

        if (edge->child != NULL) {
            cancel_where_aborted(edge->child);
        }
    }
}

void
bf_root_cancel_requests(BfRoot *root)
{
    bf_assert_main();
    g_assert(root->aborted);
    cancel_where_aborted(root->node);
}

void
bf_root_stats(BfRoot *root, BfIoStats *ret_stats)
{
    bf_assert_main();
    *ret_stats = root->freed;
    for (unsigned i = 0; i < root->handles->len; i++) {
        add_stats(ret_stats, g_ptr_array_index(root->handles, i));
    }
}

unsigned
bf_handle_in_flight(const BfHandle *handle)
{
    bf_assert_loop(handle->loop);
    return handle->in_flight + handle->waiting;
}

uint64_t
bf_handle_last_loss(const BfHandle *handle)
{
    return handle->last_loss;
}

uint64_t
bf_handle_size(const BfHandle *handle)
{
    return handle->size;
}

const BfLimits *
bf_handle_limits(const BfHandle *handle)
{
    return &handle->limits;
}

static int
co_wait_parked(BfHandle *handle)
{
    while (handle->parked && !handle->aborted) {
        handle->waiting++;
        bf_co_queue_co_wait(&handle->parking);
        handle->waiting--;
    }
    if (!handle->aborted) {
        return 0;
    }
    if (handle->in_flight + handle->waiting == 0) {
        bf_co_queue_wake_all(&handle->idle);
    }
    return -ESHUTDOWN;
}

static inline int
co_enter(BfHandle *handle, BfRequest *req)
{
    bf_assert_loop(handle->loop);
    if (G_UNLIKELY(handle->parked || handle->aborted)) {
        int ret = co_wait_parked(handle);

        if (ret < 0) {
            return ret;
        }
    }
    handle->in_flight++;
    req->newer = NULL;
    req->older = handle->newest;
    if (req->older != NULL) {
        req->older->newer = req;
    } else {
        handle->oldest = req;
    }
    handle->newest = req;
    return 0;
}

static void
became_idle(BfHandle *handle)
{
    if (handle->report_parked) {
        handle->report_parked = false;
        answer_main(handle, handle_parked);
    }
    if (handle->waiting == 0) {
        bf_co_queue_wake_all(&handle->idle);
    }
}

static inline int
leave(BfHandle *handle, BfRequest *req, int ret)
{
    if (req->older != NULL) {
        req->older->newer = req->newer;
    } else {
        handle->oldest = req->newer;
        handle->elders++;
        if (G_UNLIKELY(!bf_co_queue_is_empty(&handle->elder_left))) {
            bf_co_queue_wake_all(&handle->elder_left);
        }
    }
    if (req->newer != NULL) {
        req->newer->older = req->older;
    } else {
        handle->newest = req->older;
    }
    if (G_UNLIKELY(ret < 0)) {
        count(&handle->stats.failed_ops, 1);
    }
    if (--handle->in_flight == 0) {
        if (G_UNLIKELY(handle->report_parked ||
                       !bf_co_queue_is_empty(&handle->idle))) {
            became_idle(handle);
        }
    }
    return ret;
}

/* What all requests begin with; the caller adds the data. */
static inline BfRequest
make_request(RequestKind kind, uint64_t offset, uint64_t bytes, unsigned flags)
{
    return (BfRequest){
        .kind = kind,
        .flags = flags,
        .offset = offset,
        .bytes = bytes,
    };
}

/* Runs on the node's home loop, or on the handle's. */
static void
request_co_run(void *arg)
{
    BfRequest *r = arg;

    switch (r->kind) {
    case REQUEST_READ:
        r->ret = bf_node_co_read(r->node, r->offset, r->u.vec, r->flags);
        break;
    case REQUEST_WRITE:
        r->ret = bf_node_co_write(r->node, r->offset, r->u.vec, r->flags);
        break;
    case REQUEST_WRITE_ZEROES:
        r->ret =
            bf_node_co_write_zeroes(r->node, r->offset, r->bytes, r->flags);
        break;
    case REQUEST_DISCARD:
        r->ret = bf_node_co_discard(r->node, r->offset, r->bytes, r->flags);
        break;
    case REQUEST_FLUSH:
        r->ret = bf_node_co_flush(r->node);
        break;
    case REQUEST_EXTENTS:
        r->ret = bf_node_co_extents(r->node, r->offset, r->bytes, r->u.extents);
        break;
    case REQUEST_CACHE:
        r->ret = bf_node_co_cache(r->node, r->offset, r->bytes);
        break;
    case REQUEST_READ_PIPE:
        r->ret =
            bf_node_co_read_pipe(r->node, r->offset, r->bytes, r->u.pipe_fd);
        break;
    case REQUEST_WRITE_PIPE:
        r->ret =
            bf_node_co_write_pipe(r->node, r->offset, r->bytes, r->u.pipe_fd);
        break;
    }
}

/* Any request but the hot ones. */
static int
co_run(BfHandle *handle, BfRequest *req, bool writes)
{
    int ret;

    if (writes && (handle->perm & BF_PERM_WRITE) == 0) {
        return -EPERM;
    }
    ret = co_enter(handle, req);
    if (ret < 0) {
        return ret;
    }
    req->node = handle->node;
    if (writes ? handle->writes_away : handle->reads_away) {
        bf_co_call(req->node->home, request_co_run, req);
    } else {
        request_co_run(req);
    }
    if (writes) {
        note_time(&handle->stats.last_change_ns, req->ret);
    } else if (req->kind == REQUEST_FLUSH) {
        note_time(&handle->stats.last_flush_ns, req->ret);
        /* Before it leaves, as the graph may change then. */
        handle->last_loss =
            MAX(handle->last_loss, bf_node_last_loss(req->node));
    }
    return leave(handle, req, req->ret);
}

int
bf_handle_co_read(BfHandle *handle, uint64_t offset, BfIoVec *vec,
                  unsigned flags)
{
    BfRequest req = make_request(REQUEST_READ, offset, vec->bytes, flags);
    int ret;

    req.u.vec = vec;
    ret = co_enter(handle, &req);
    if (G_UNLIKELY(ret < 0)) {
        return ret;
    }
    if (G_LIKELY(!handle->reads_away)) {
        ret = bf_node_co_read(handle->node, offset, vec, flags);
    } else {
        req.node = handle->node;
        bf_co_call(req.node->home, request_co_run, &req);
        ret = req.ret;
    }
    count(&handle->stats.read_ops, 1);
    count(&handle->stats.read_bytes, vec->bytes);
    return leave(handle, &req, ret);
}

int
bf_handle_co_write(BfHandle *handle, uint64_t offset, BfIoVec *vec,
                   unsigned flags)
{
    BfRequest req = make_request(REQUEST_WRITE, offset, vec->bytes, flags);
    int ret;

    req.u.vec = vec;
    if (G_UNLIKELY((handle->perm & BF_PERM_WRITE) == 0)) {
        return -EPERM;
    }
    ret = co_enter(handle, &req);
    if (G_UNLIKELY(ret < 0)) {
        return ret;
    }
    if (G_LIKELY(!handle->writes_away)) {
        ret = bf_node_co_write(handle->node, offset, vec, flags);
    } else {
        req.node = handle->node;
        bf_co_call(req.node->home, request_co_run, &req);
        ret = req.ret;
    }
    count(&handle->stats.write_ops, 1);
    count(&handle->stats.write_bytes, vec->bytes);
    note_time(&handle->stats.last_change_ns, ret);
    return leave(handle, &req, ret);
}

int
bf_handle_co_write_zeroes(BfHandle *handle, uint64_t offset, uint64_t bytes,
                          unsigned flags)
{
    BfRequest req = make_request(REQUEST_WRITE_ZEROES, offset, bytes, flags);

    count(&handle->stats.zero_ops, 1);
    count(&handle->stats.zero_bytes, bytes);
    return co_run(handle, &req, true);
}

int
bf_handle_co_discard(BfHandle *handle, uint64_t offset, uint64_t bytes,
                     unsigned flags)
{
    BfRequest req = make_request(REQUEST_DISCARD, offset, bytes, flags);

    count(&handle->stats.discard_ops, 1);
    count(&handle->stats.discard_bytes, bytes);
    return co_run(handle, &req, true);
}

int
bf_handle_co_flush(BfHandle *handle)
{
    BfRequest req = make_request(REQUEST_FLUSH, 0, 0, 0);

    count(&handle->stats.flush_ops, 1);
    return co_run(handle, &req, false);
}

int
bf_handle_co_extents(BfHandle *handle, uint64_t offset, uint64_t bytes,
                     BfExtents *extents)
{
    BfRequest req = make_request(REQUEST_EXTENTS, offset, bytes, 0);

    req.u.extents = extents;
    return co_run(handle, &req, false);
}

int
bf_handle_co_cache(BfHandle *handle, uint64_t offset, uint64_t bytes)
{
    BfRequest req = make_request(REQUEST_CACHE, offset, bytes, 0);

    return co_run(handle, &req, false);
}

int
bf_handle_co_read_pipe(BfHandle *handle, uint64_t offset, uint64_t bytes,
                       int pipe_fd)
{
    BfRequest req = make_request(REQUEST_READ_PIPE, offset, bytes, 0);
    int ret;

    req.u.pipe_fd = pipe_fd;
    ret = co_run(handle, &req, false);
    if (ret == 0) {
        count(&handle->stats.read_ops, 1);
        count(&handle->stats.read_bytes, bytes);
    } else if (ret == -EOPNOTSUPP) {
        count(&handle->stats.failed_ops, -1); /* the read that follows counts */
    }
    return ret;
}

int
bf_handle_co_write_pipe(BfHandle *handle, uint64_t offset, uint64_t bytes,
                        int pipe_fd)
{
    BfRequest req = make_request(REQUEST_WRITE_PIPE, offset, bytes, 0);
    int ret;

    req.u.pipe_fd = pipe_fd;
    ret = co_run(handle, &req, true);
    if (ret == -EOPNOTSUPP) {
        count(&handle->stats.failed_ops,
              -1); /* the write that follows counts */
    } else {
        count(&handle->stats.write_ops, 1);
        count(&handle->stats.write_bytes, bytes);
    }
    return ret;
}
