/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Drain: brings all requests to a part of the graph to rest. Main asks each
 * handle's loop to park new requests and to report when none is under way. The
 * wait has a limit; when it runs out everything resumes, and the error names
 * what did not end.
 */
#include <errno.h>

#include "block-private.h"
#include "block/handover.h"
#include "core/error.h"
#include "core/trace.h"
#include "core/util.h"

void
bf_drain_note_parked(BfDrain *drain)
{
    g_assert(drain != NULL && drain->waiting > 0);
    drain->waiting--;
    bf_co_queue_wake_all(&drain->queue);
}

static void
expired(void *arg)
{
    BfDrain *drain = arg;

    drain->expired = true;
    bf_co_queue_wake_all(&drain->queue);
}

/* Everything that is linked with @node, up, down and sideways. */
static void
mark_component(BfNode *node, unsigned mark, GPtrArray *nodes)
{
    if (node == NULL || node->mark == mark) {
        return;
    }
    node->mark = mark;
    g_ptr_array_add(nodes, node);
    for (unsigned i = 0; i < node->parents->len; i++) {
        BfEdge *edge = g_ptr_array_index(node->parents, i);

        mark_component(edge->parent, mark, nodes);
    }
    for (unsigned i = 0; i < node->edges->len; i++) {
        BfEdge *edge = g_ptr_array_index(node->edges, i);

        mark_component(edge->child, mark, nodes);
    }
}

/* Adds what is not there yet. */
static void
collect(BfDrain *drain, GPtrArray *nodes)
{
    BfGraph *graph = drain->graph;
    unsigned mark = ++graph->marks;

    for (unsigned i = 0; i < drain->nodes->len; i++) {
        ((BfNode *)g_ptr_array_index(drain->nodes, i))->mark = mark;
    }
    for (unsigned i = 0; i < nodes->len; i++) {
        mark_component(g_ptr_array_index(nodes, i), mark, drain->nodes);
    }
    for (unsigned i = 0; i < graph->roots->len; i++) {
        BfRoot *root = g_ptr_array_index(graph->roots, i);

        /* A root that is being moved has both a present and a planned node. */
        if (!root->drained && !root->exempt &&
            ((root->node != NULL && root->node->mark == mark) ||
             (root->edge.child != NULL && root->edge.child->mark == mark))) {
            g_ptr_array_add(drain->roots, root);
        }
    }
}

static BfHandle *
find_busy(const BfDrain *drain)
{
    for (unsigned i = 0; i < drain->roots->len; i++) {
        BfRoot *root = g_ptr_array_index(drain->roots, i);

        for (unsigned j = 0; j < root->handles->len; j++) {
            BfHandle *handle = g_ptr_array_index(root->handles, j);

            if (handle->park == PARK_ASKED) {
                return handle;
            }
        }
    }
    return NULL;
}

/* A node with work that has outlived its request, or NULL. */
static BfNode *
find_working(const GPtrArray *nodes)
{
    for (unsigned i = 0; i < nodes->len; i++) {
        BfNode *node = g_ptr_array_index(nodes, i);

        if (node->work > 0) {
            return node;
        }
    }
    return NULL;
}

void
bf_drain_begin_work(void *arg)
{
    BfNode *node = arg;

    node->work++;
}

void
bf_drain_end_work(void *arg)
{
    BfNode *node = arg;
    BfGraph *graph = node->graph;

    node->work--;
    bf_co_queue_wake_all(&graph->worked);
    if (graph->drain != NULL) {
        bf_co_queue_wake_all(&graph->drain->queue);
    }
}

void
bf_node_begin_work(BfNode *node)
{
    bf_loop_post(node->graph->main_loop, bf_drain_begin_work, node);
}

void
bf_node_end_work(BfNode *node)
{
    bf_loop_post(node->graph->main_loop, bf_drain_end_work, node);
}

/* Nobody else uses @nodes; what they share with others must go on. */
static void
cancel_work(const GPtrArray *nodes)
{
    for (unsigned i = 0; i < nodes->len; i++) {
        BfNode *node = g_ptr_array_index(nodes, i);

        if (node->driver->cancel_requests != NULL) {
            node->driver->cancel_requests(node);
        }
    }
}

void
bf_drain_co_end_work(BfGraph *graph, const GPtrArray *nodes)
{
    if (find_working(nodes) != NULL) {
        cancel_work(nodes);
    }
    while (find_working(nodes) != NULL) {
        bf_graph_unlock(graph);
        bf_co_queue_co_wait(&graph->worked);
        bf_graph_co_lock(graph);
    }
}

/* The handles list may change while we are away, so each look is a new one. */
static void
co_give_up(BfDrain *drain, GError **error)
{
    const BfNode *working = find_working(drain->nodes);
    g_autofree char *what = NULL;
    BfHandle *handle;

    if (working != NULL) {
        what = g_strdup_printf("node '%s': what a request has left behind",
                               working->name);
    }
    while ((handle = find_busy(drain)) != NULL) {
        g_autofree char *user = g_strdup(handle->root->description);
        g_autofree char *name = g_strdup(handle->root->node->name);
        g_autofree char *oldest = NULL;

        bf_handle_co_cancel_park(handle, &oldest);
        if (what == NULL && oldest != NULL) {
            what = g_strdup_printf("node '%s': %s by %s", name, oldest, user);
        }
    }
    bf_set_error(error,
                 "Requests did not end within %u seconds (%s); nothing was "
                 "changed, try again when the storage answers",
                 (unsigned)(DRAIN_LIMIT_NS / BF_NS_PER_SEC),
                 what != NULL ? what : "they have ended by now");
}

static void
hurry_all(const GPtrArray *nodes, bool begin)
{
    for (unsigned i = 0; i < nodes->len; i++) {
        BfNode *node = g_ptr_array_index(nodes, i);

        if (node->driver->hurry != NULL) {
            node->driver->hurry(node, begin);
        }
    }
}

GPtrArray *
bf_drain_hurry_begin(BfNode *node)
{
    BfGraph *graph = node->graph;
    GPtrArray *nodes = g_ptr_array_new();

    mark_component(node, ++graph->marks, nodes);
    g_ptr_array_add(graph->hurries, nodes);
    hurry_all(nodes, true);
    return nodes;
}

void
bf_drain_hurry_end(BfGraph *graph, GPtrArray *nodes)
{
    g_ptr_array_remove_fast(graph->hurries, nodes);
    hurry_all(nodes, false);
    g_ptr_array_unref(nodes);
}

void
bf_drain_forget_hurried(BfNode *node)
{
    const GPtrArray *hurries = node->graph->hurries;

    for (unsigned i = 0; i < hurries->len; i++) {
        if (g_ptr_array_remove_fast(g_ptr_array_index(hurries, i), node) &&
            node->driver->hurry != NULL) {
            node->driver->hurry(node, false);
        }
    }
}

/* Handles that @nodes are used by; each with a message that keeps it. */
static GPtrArray *
hold_handles(const BfGraph *graph, unsigned mark)
{
    GPtrArray *handles = g_ptr_array_new();

    for (unsigned i = 0; i < graph->roots->len; i++) {
        const BfRoot *root = g_ptr_array_index(graph->roots, i);

        for (unsigned j = 0; j < root->handles->len; j++) {
            BfHandle *handle = g_ptr_array_index(root->handles, j);

            if (root->node != NULL && root->node->mark == mark) {
                bf_wait_group_add(&handle->messages, 1);
                g_ptr_array_add(handles, handle);
            }
        }
    }
    return handles;
}

typedef struct Outlast {
    BfHandle *handle;
    BfWaitGroup *group;
} Outlast;

static void
outlast_co_run(void *arg)
{
    Outlast *outlast = arg;

    bf_handle_co_outlast_oldest(outlast->handle);
    bf_wait_group_done(outlast->group);
}

void
bf_node_co_outlast_requests(BfNode *node)
{
    BfGraph *graph = node->graph;
    g_autoptr(GPtrArray) nodes = g_ptr_array_new();
    g_autoptr(GPtrArray) handles = NULL;
    g_autofree Outlast *each = NULL;
    BfWaitGroup group = {0};

    bf_assert_main();
    mark_component(node, ++graph->marks, nodes);
    handles = hold_handles(graph, graph->marks);
    each = g_new0(Outlast, handles->len + 1);
    bf_wait_group_add(&group, handles->len);
    for (unsigned i = 0; i < handles->len; i++) {
        each[i].handle = g_ptr_array_index(handles, i);
        each[i].group = &group;
        bf_co_spawn(outlast_co_run, &each[i]);
    }
    if (find_working(nodes) != NULL) {
        bf_co_queue_co_wait(&graph->worked);
    }
    bf_wait_group_co_wait(&group);
}

static bool
is_busy(const BfDrain *drain)
{
    return drain->waiting > 0 || find_working(drain->nodes) != NULL;
}

/* Waits until all handles are parked, or the time is up. */
static void
co_wait_parked(BfDrain *drain)
{
    drain->expired = false;
    bf_timer_start(&drain->timer, DRAIN_LIMIT_NS, expired, drain);
    hurry_all(drain->nodes, true);
    while (is_busy(drain) && !drain->expired) {
        bf_co_queue_co_wait(&drain->queue);
    }
    hurry_all(drain->nodes, false);
    bf_timer_stop(&drain->timer);
}

void
bf_drain_init(BfDrain *drain, BfGraph *graph)
{
    g_assert(graph->drain == NULL);
    *drain = (BfDrain){.graph = graph};
    drain->roots = g_ptr_array_new();
    drain->nodes = g_ptr_array_new();
    graph->drain = drain;
}

/* Parks the handles of the roots from index @first on that are @inner. */
static bool
co_park_some(BfDrain *drain, unsigned first, bool inner, GError **error)
{
    for (unsigned i = first; i < drain->roots->len; i++) {
        BfRoot *root = g_ptr_array_index(drain->roots, i);

        if (root->inner != inner) {
            continue;
        }
        root->drained = true;
        for (unsigned j = 0; j < root->handles->len; j++) {
            drain->waiting++;
            bf_handle_ask_park(g_ptr_array_index(root->handles, j));
        }
    }
    if (is_busy(drain)) {
        co_wait_parked(drain);
    }
    if (is_busy(drain)) {
        co_give_up(drain, error);
        return false;
    }
    return true;
}

/* Inner ones last: until then requests of the others may need them. */
static bool
co_park(BfDrain *drain, unsigned first, GError **error)
{
    return co_park_some(drain, first, false, error) &&
           co_park_some(drain, first, true, error);
}

bool
bf_drain_co_add(BfDrain *drain, GPtrArray *nodes, GError **error)
{
    unsigned first_root = drain->roots->len;
    unsigned first_node = drain->nodes->len;

    collect(drain, nodes);
    if (drain->name == NULL && drain->nodes->len > 0) {
        drain->name = ((BfNode *)g_ptr_array_index(drain->nodes, 0))->name;
        BF_TRACE(block, drain_start, drain->name);
    }
    if (!co_park(drain, first_root, error)) {
        g_ptr_array_set_size(drain->nodes, (int)first_node);
        return false;
    }
    if (drain->graph->exempting) {
        /* Drivers still work for the exempt roots; called again later. */
        g_ptr_array_set_size(drain->nodes, (int)first_node);
    }
    for (unsigned i = first_node; i < drain->nodes->len; i++) {
        BfNode *node = g_ptr_array_index(drain->nodes, i);

        if (node->driver->co_drain_begin != NULL) {
            node->driver->co_drain_begin(node);
        }
    }
    return true;
}

bool
bf_drain_co_begin(BfDrain *drain, BfGraph *graph, GPtrArray *nodes,
                  GError **error)
{
    BfDrain *outer = bf_section_drain(graph);

    if (outer != NULL) {
        *drain = (BfDrain){.nested = true};
        return bf_drain_co_add(outer, nodes, error);
    }
    bf_drain_init(drain, graph);
    if (!bf_drain_co_add(drain, nodes, error)) {
        bf_drain_co_end(drain);
        return false;
    }
    return true;
}

void
bf_drain_co_end(BfDrain *drain)
{
    if (drain->nested) {
        return;
    }
    for (unsigned i = 0; i < drain->nodes->len; i++) {
        BfNode *node = g_ptr_array_index(drain->nodes, i);

        if (node->driver->co_drain_end != NULL) {
            node->driver->co_drain_end(node);
        }
    }
    for (unsigned i = 0; i < drain->roots->len; i++) {
        BfRoot *root = g_ptr_array_index(drain->roots, i);

        root->drained = false;
        for (unsigned j = 0; j < root->handles->len; j++) {
            BfHandle *handle = g_ptr_array_index(root->handles, j);

            if (handle->park != PARK_NONE) {
                bf_handle_ask_resume(handle);
            }
        }
    }
    BF_TRACE(block, drain_end, drain->name, drain->expired ? -ETIMEDOUT : 0);
    drain->graph->drain = NULL;
    g_ptr_array_unref(drain->roots);
    g_ptr_array_unref(drain->nodes);
}
