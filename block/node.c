/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nodes: names, settings, and opening and closing a tree of them. A tree is
 * opened outside of the graph, under reserved names, because storage may take
 * its time; bf_graph_co_blockdev_add() then puts it in, in one step.
 */
#include "block/node.h"

#include <inttypes.h>

#include "block-private.h"
#include "block/bitmap.h"
#include "block/request.h"
#include "core/error.h"
#include "core/util.h"
#include "stats-private.h"

/* Threads for the blocking calls of one node. */
#define NODE_THREADS 2

/* Largest node; leaves room to round up to any alignment. */
#define NODE_SIZE_MAX (((uint64_t)INT64_MAX) & ~UINT64_C(0xfffff))

BfGraph *
bf_node_graph(const BfNode *node)
{
    return node->graph;
}

const char *
bf_node_name(const BfNode *node)
{
    return node->name;
}

bool
bf_node_is_read_only(const BfNode *node)
{
    return node->settings.read_only ||
           (node->file != NULL && bf_node_is_read_only(node->file));
}

bool
bf_node_is_active(const BfNode *node)
{
    return node->active;
}

void
bf_node_co_offload(BfNode *node, BfFn *fn, void *arg)
{
    bf_co_offload(node->lane, fn, arg);
}

int
bf_node_open_fdset(BfNode *node, const char *path, int flags, GError **error)
{
    const BfGraphConfig *config = &node->graph->config;

    if (config->open_fdset == NULL) {
        bf_set_error(error, "Could not open '%s': there are no fd sets here",
                     path);
        return -1;
    }
    return config->open_fdset(config->opaque, path, flags, error);
}

static char *
node_as_user(const BfNode *node)
{
    return g_strdup_printf("node '%s'", node->name);
}

BfTlsCreds *
bf_node_take_tls_creds(BfNode *node, const char *id, GError **error)
{
    const BfGraphConfig *config = &node->graph->config;
    g_autofree char *user = node_as_user(node);

    if (config->take_tls_creds == NULL) {
        bf_set_error(error, "No TLS credentials with id '%s'", id);
        return NULL;
    }
    return config->take_tls_creds(config->opaque, id, user, error);
}

void
bf_node_release_tls_creds(BfNode *node, const char *id)
{
    const BfGraphConfig *config = &node->graph->config;
    g_autofree char *user = node_as_user(node);

    config->release_tls_creds(config->opaque, id, user);
}

typedef struct PeerCheck {
    BfNode *node;
    int fd;
    const char *name;
    GError **error;
    bool ok;
} PeerCheck;

static void
check_peer(void *arg)
{
    PeerCheck *check = arg;
    BfNode *node = check->node;
    const BfGraphConfig *config = &node->graph->config;
    bool own = false;

    g_clear_pointer(&node->own_export, g_free);
    check->ok = config->check_peer(config->opaque, node, check->fd, check->name,
                                   &own, check->error);
    if (own) {
        node->own_export = g_strdup(check->name);
    }
}

bool
bf_node_co_check_peer(BfNode *node, int fd, const char *name, GError **error)
{
    PeerCheck check = {
        .node = node,
        .fd = fd,
        .name = name,
        .error = error,
        .ok = true,
    };

    if (node->graph->config.check_peer != NULL) {
        bf_co_call(node->graph->main_loop, check_peer, &check);
    }
    return check.ok;
}

static bool leads_to(BfNode *from, const BfNode *to, unsigned mark);

/* Does something that @from needs lead to @to? */
static bool
leads_on_to(BfNode *from, const BfNode *to, unsigned mark)
{
    const BfGraphConfig *config = &from->graph->config;
    BfNode *exported = NULL;
    BfNode *copy = NULL;

    for (unsigned i = 0; i < from->edges->len; i++) {
        const BfEdge *edge = g_ptr_array_index(from->edges, i);

        if (edge->child != NULL && leads_to(edge->child, to, mark)) {
            return true;
        }
    }
    if (from->driver->copies_to != NULL) {
        copy = from->driver->copies_to(from);
    }
    if (from->own_export != NULL && config->find_exported != NULL) {
        exported = config->find_exported(config->opaque, from->own_export);
    }
    return (copy != NULL && leads_to(copy, to, mark)) ||
           (exported != NULL && leads_to(exported, to, mark));
}

static bool
leads_to(BfNode *from, const BfNode *to, unsigned mark)
{
    if (from == to) {
        return true;
    }
    if (from->mark == mark) {
        return false;
    }
    from->mark = mark;
    return leads_on_to(from, to, mark);
}

bool
bf_node_leads_to(BfNode *from, const BfNode *to)
{
    bf_assert_main();
    return leads_to(from, to, ++from->graph->marks);
}

bool
bf_node_check_not_behind(BfNode *target, const BfNode *source, GError **error)
{
    if (bf_node_leads_to(target, source)) {
        bf_set_error(error,
                     "What is written to the target '%s' comes to the source "
                     "'%s', so that the job would wait for itself",
                     target->name, source->name);
        return false;
    }
    return true;
}

bool
bf_node_needs_itself(BfNode *node)
{
    return leads_on_to(node, node, ++node->graph->marks);
}

/* Stamps of one graph differ, so that a tree's last loss is that of the node
 * with the highest one, whatever nodes come and go. */
void
bf_node_note_loss(BfNode *node)
{
    bf_atomic_store(&node->lost, bf_atomic_add(&node->graph->losses, 1) + 1);
}

uint64_t
bf_node_last_loss(const BfNode *node)
{
    uint64_t lost = bf_atomic_load(&node->lost);
    uint64_t below = 0;

    if (node->driver->last_loss != NULL) {
        below = node->driver->last_loss(node);
    } else if (node->file != NULL) {
        below = bf_node_last_loss(node->file);
    }
    return MAX(lost, below);
}

bool
bf_node_flush_saves(const BfNode *node)
{
    if (node->settings.no_flush) {
        return false;
    }
    if (node->driver->flush_saves != NULL) {
        return node->driver->flush_saves(node);
    }
    return node->file != NULL && bf_node_flush_saves(node->file);
}

void
bf_node_notice(BfNode *node, bool is_problem, const char *format, ...)
{
    const BfGraphConfig *config = &node->graph->config;
    g_autofree char *phrase = NULL;
    g_autofree char *text = NULL;
    va_list args;

    if (config->notice == NULL) {
        return;
    }
    va_start(args, format);
    phrase = g_strdup_vprintf(format, args);
    va_end(args);
    text = g_strdup_printf("node '%s': %s", node->name, phrase);
    config->notice(config->opaque, is_problem, text);
}

bool
bf_node_is_stopping(const BfNode *node)
{
    return node->graph->stopping;
}

void
bf_graph_stop_waiting(BfGraph *graph)
{
    g_autoptr(GPtrArray) all = bf_registry_list(graph->names);

    bf_assert_main();
    graph->stopping = true;
    for (unsigned i = 0; i < all->len; i++) {
        BfNode *node = g_ptr_array_index(all, i);

        if (node->driver->stop_waiting != NULL) {
            node->driver->stop_waiting(node);
        }
    }
}

void
bf_node_cancel_requests(BfNode *node)
{
    bf_assert_main();
    if (node->driver->cancel_requests != NULL) {
        node->driver->cancel_requests(node);
    }
    for (unsigned i = 0; i < node->edges->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->edges, i);

        if (edge->child != NULL) {
            bf_node_cancel_requests(edge->child);
        }
    }
}

static char *
auto_name(BfGraph *graph)
{
    char *name = NULL;

    do {
        g_free(name);
        name = g_strdup_printf("#block%u%02d", graph->auto_names++,
                               g_random_int_range(0, 100));
    } while (bf_registry_find(graph->names, name) != NULL);
    return name;
}

static bool
check_name(BfGraph *graph, const char *name, GError **error)
{
    if (!bf_id_is_wellformed(name)) {
        bf_set_error(error, "Invalid node-name: '%s'", name);
        return false;
    }
    if (strlen(name) > NODE_NAME_MAX) {
        bf_set_error(error, "Node name too long");
        return false;
    }
    if (bf_registry_find(graph->names, name) != NULL) {
        bf_set_error(error, "Duplicate nodes with node-name='%s'", name);
        return false;
    }
    return true;
}

static void
edge_free(void *arg)
{
    BfEdge *edge = arg;

    g_free(edge->name);
    g_free(edge);
}

BfEdge *
bf_node_add_edge(BfNode *node, const char *name, BfNode **slot)
{
    BfEdge *edge = g_new0(BfEdge, 1);

    edge->name = g_strdup(name);
    edge->parent = node;
    edge->slot = slot;
    edge->shared = BF_PERM_ALL;
    g_ptr_array_add(node->edges, edge);
    return edge;
}

BfEdge *
bf_node_find_edge(const BfNode *node, const char *name)
{
    for (unsigned i = 0; i < node->edges->len; i++) {
        BfEdge *edge = g_ptr_array_index(node->edges, i);

        if (g_str_equal(edge->name, name)) {
            return edge;
        }
    }
    return NULL;
}

const BfNode *
bf_node_child_to_be(const BfNode *node, const char *name)
{
    const BfEdge *edge = bf_node_find_edge(node, name);

    return edge == NULL ? NULL : edge->next != NULL ? edge->next : edge->child;
}

BfNode *
bf_node_new(BfGraph *graph, const BfDriver *driver, const char *name,
            GError **error)
{
    g_autofree char *made_up = name == NULL ? auto_name(graph) : NULL;
    BfNode *node;

    if (name != NULL && !check_name(graph, name, error)) {
        return NULL;
    }
    g_assert(driver->node_size >= sizeof(BfNode));
    node = g_malloc0(driver->node_size);
    node->driver = driver;
    node->graph = graph;
    node->name = g_strdup(name != NULL ? name : made_up);
    node->lane = bf_pool_lane_new(node->name, NODE_THREADS);
    node->stats = bf_stats_new();
    node->alignment = 1;
    node->edges = g_ptr_array_new_with_free_func(edge_free);
    node->parents = g_ptr_array_new();
    node->shared = BF_PERM_ALL;
    bf_registry_add(graph->names, node->name, node);
    return node;
}

static bool
get_bool(bool has, bool value, const bool *inherited)
{
    return has ? value : inherited != NULL && *inherited;
}

void
bf_node_effective_settings(const BfBlockdevOptions *options,
                           const BfNodeSettings *parent,
                           BfNodeSettings *ret_settings)
{
    const BfBlockdevCacheOptions none = {0};
    const BfBlockdevCacheOptions *cache =
        options->cache != NULL ? options->cache : &none;

    *ret_settings = (BfNodeSettings){
        .read_only = get_bool(options->has_read_only, options->read_only,
                              parent ? &parent->read_only : NULL),
        .auto_read_only =
            get_bool(options->has_auto_read_only, options->auto_read_only,
                     parent ? &parent->auto_read_only : NULL),
        .direct = get_bool(cache->has_direct, cache->direct,
                           parent ? &parent->direct : NULL),
        .no_flush = get_bool(cache->has_no_flush, cache->no_flush,
                             parent ? &parent->no_flush : NULL),
        .force_share = get_bool(options->has_force_share, options->force_share,
                                parent ? &parent->force_share : NULL),
        .discard_unmap =
            get_bool(options->has_discard,
                     options->discard == BF_BLOCKDEV_DISCARD_OPTIONS_UNMAP,
                     parent ? &parent->discard_unmap : NULL),
        .detect_zeroes = options->detect_zeroes,
    };
}

bool
bf_node_check_settings(const BfNodeSettings *settings, GError **error)
{
    if (settings->detect_zeroes == BF_BLOCKDEV_DETECT_ZEROES_OPTIONS_UNMAP &&
        !settings->discard_unmap) {
        bf_set_error(error, "setting detect-zeroes to unmap is not allowed "
                            "without setting discard operation to unmap");
        return false;
    }
    if (settings->force_share && !settings->read_only) {
        bf_set_error(error,
                     "force-share=on can only be used with read-only images");
        return false;
    }
    return true;
}

/* Opening. */

struct BfOpenContext {
    BfGraph *graph;
    GPtrArray *opened; /* borrowed: new nodes, children before parents */
    GPtrArray *pinned; /* borrowed: existing nodes that are referred to */
    unsigned depth;
    bool is_hidden; /* the top needs no name */
};

BfNode *
bf_graph_find_node(BfGraph *graph, const char *node_name)
{
    BfNode *node = bf_registry_find(graph->names, node_name);

    return node != NULL && node->registered ? node : NULL;
}

static const BfDriver *
find_driver(const BfGraph *graph, BfBlockdevDriver kind, GError **error)
{
    const BfDriver *driver = bf_driver_find(kind);

    if (driver == NULL) {
        bf_set_error(error, "Unknown driver '%s'",
                     bf_blockdev_driver_str(kind));
    } else if (driver->needs_faults && !graph->config.allow_faults) {
        bf_set_error(error,
                     "Driver '%s' is for tests only; it needs the command "
                     "line option --allow-fault-injection",
                     driver->name);
        return NULL;
    }
    return driver;
}

static bool
check_size(BfNode *node, GError **error)
{
    if (node->size > NODE_SIZE_MAX) {
        bf_set_error(error,
                     "The size of node '%s' (%" PRIu64
                     ") is above the limit of %" PRIu64,
                     node->name, node->size, NODE_SIZE_MAX);
        return false;
    }
    node->size = bf_align_up(node->size, 512);
    return true;
}

static void
refresh_node(BfNode *node)
{
    node->any_loop = node->driver->any_loop;
    for (unsigned i = 0; i < node->edges->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->edges, i);

        node->any_loop &= *edge->slot == NULL || (*edge->slot)->any_loop;
    }
    if (node->driver->refresh != NULL) {
        node->driver->refresh(node);
    }
    node->limits.alignment = MAX(node->limits.alignment, node->alignment);
    node->limits.preferred =
        MAX(node->limits.preferred, node->limits.alignment);
    for (unsigned i = 0; i < node->n_bitmaps; i++) {
        if (bf_bitmap_size(node->bitmaps[i]) != node->size) {
            bf_bitmap_resize(node->bitmaps[i], node->size);
        }
    }
}

void
bf_node_refresh_up(BfNode *node)
{
    refresh_node(node);
    for (unsigned i = 0; i < node->parents->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->parents, i);

        if (edge->parent != NULL && *edge->slot == node) {
            bf_node_refresh_up(edge->parent);
        }
    }
}

/* Where a new node lives, until a child that is in use elsewhere says more. */
static BfLoop *
choose_home(BfGraph *graph, const BfNode *parent)
{
    return parent != NULL ? parent->home : bf_graph_pick_loop(graph);
}

/* The node stays in ctx->opened even if it fails, to be closed from there. */
static BfNode *
co_open_node(BfOpenContext *ctx, const BfBlockdevOptions *options,
             BfNode *parent, GError **error)
{
    const BfDriver *driver = find_driver(ctx->graph, options->driver, error);
    BfNode *node;
    bool ok;

    if (driver == NULL) {
        return NULL;
    }
    if (parent == NULL && options->node_name == NULL && !ctx->is_hidden) {
        bf_set_error(error, "'node-name' must be specified for the root node");
        return NULL;
    }
    if (ctx->depth >= TREE_DEPTH_MAX) {
        bf_set_error(error, "The tree of nodes is deeper than %u",
                     TREE_DEPTH_MAX);
        return NULL;
    }
    node = bf_node_new(ctx->graph, driver, options->node_name, error);
    if (node == NULL) {
        return NULL;
    }
    node->home = choose_home(ctx->graph, parent);
    node->options = bf_blockdev_options_copy(options);
    node->active = options->has_active ? options->active
                                       : parent == NULL || parent->active;
    node->inherits = parent != NULL;
    bf_node_effective_settings(options, parent ? &parent->settings : NULL,
                               &node->settings);
    ctx->depth++;
    ok = bf_node_check_settings(&node->settings, error) &&
         driver->co_open(node, options, ctx, error) && check_size(node, error);
    ctx->depth--;
    g_ptr_array_add(ctx->opened, node);
    if (!ok) {
        return NULL;
    }
    refresh_node(node);
    return node;
}

static BfNode *
find_reference(BfOpenContext *ctx, const char *name, GError **error)
{
    BfNode *node = bf_graph_require_node(ctx->graph, name, error);

    if (node == NULL) {
        return NULL;
    }
    node->pins++;
    g_ptr_array_add(ctx->pinned, node);
    return node;
}

bool
bf_node_co_open_child(BfNode *node, BfOpenContext *ctx,
                      const BfBlockdevRef *ref, GError **error)
{
    return bf_node_co_open_child_as(node, ctx, ref, "file", &node->file, error);
}

bool
bf_node_co_open_child_as(BfNode *node, BfOpenContext *ctx,
                         const BfBlockdevRef *ref, const char *name,
                         BfNode **slot, GError **error)
{
    BfNode *child = ref->kind == BF_BLOCKDEV_REF_KIND_STR
                        ? find_reference(ctx, ref->u.str, error)
                        : co_open_node(ctx, ref->u.object, node, error);

    if (child == NULL) {
        return false;
    }
    /* Nobody uses the new node yet; the graph sees the link at the plan, which
     * brings children from several loops together. */
    if (node->edges->len == 0) {
        node->home = child->home;
    }
    bf_node_add_edge(node, name, slot)->size_seen = child->size;
    *slot = child;
    return true;
}

/* Closing. */

static void
flush_co_home(void *arg)
{
    BfNode *node = arg;

    bf_node_co_flush(node);
}

void
bf_node_co_close(BfNode *node)
{
    bf_section_co_forget_node(node);
    if (!node->settings.read_only && node->active &&
        !node->driver->close_flushes) {
        /* There is nobody left to tell of a failure. */
        bf_co_call(node->any_loop ? bf_loop_self() : node->home, flush_co_home,
                   node);
    }
    bf_drain_forget_hurried(node);
    if (node->driver->co_close != NULL) {
        node->driver->co_close(node);
    }
    bf_registry_remove(node->graph->names, node->name);
    bf_node_free(node);
}

void
bf_node_free(BfNode *node)
{
    for (unsigned i = 0; i < node->n_bitmaps; i++) {
        bf_bitmap_free(node->bitmaps[i]);
    }
    g_free(node->bitmaps);
    g_ptr_array_unref(node->edges);
    g_ptr_array_unref(node->parents);
    bf_blockdev_options_free(node->options);
    bf_pool_lane_free(node->lane);
    bf_stats_free(node->stats);
    g_free(node->own_export);
    g_free(node->name);
    g_free(node);
}

/* Adding. */

static void
plan_links(BfPlan *plan, BfNode *node)
{
    for (unsigned i = 0; i < node->edges->len; i++) {
        BfEdge *edge = g_ptr_array_index(node->edges, i);

        bf_plan_move(plan, edge, *edge->slot);
    }
}

/* Until now only the names were reserved. */
static bool
check_sizes_seen(const BfNode *node, GError **error)
{
    for (unsigned i = 0; i < node->edges->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->edges, i);

        if ((*edge->slot)->size != edge->size_seen) {
            bf_set_error(error,
                         "The size of node '%s' has changed while '%s' was "
                         "being opened; try again",
                         (*edge->slot)->name, node->name);
            return false;
        }
    }
    return true;
}

/* The new tree is held by the monitor, or pinned for the caller. */
static bool
co_register(BfOpenContext *ctx, BfNode *top, GError **error)
{
    BfGraph *graph = ctx->graph;
    unsigned old_len = 0;
    BfPlan plan;
    bool ok = true;

    bf_graph_co_lock(graph);
    for (unsigned i = 0; i < ctx->pinned->len; i++) {
        ok =
            ok && bf_node_check_there(g_ptr_array_index(ctx->pinned, i), error);
    }
    old_len = graph->nodes->len;
    bf_plan_init(&plan, graph);
    for (unsigned i = 0; i < ctx->opened->len; i++) {
        BfNode *node = g_ptr_array_index(ctx->opened, i);

        g_ptr_array_add(graph->nodes, node);
        plan_links(&plan, node);
        ok = ok && check_sizes_seen(node, error);
    }
    if (!ok) {
        bf_plan_co_abort(&plan);
    }
    ok = ok && bf_plan_co_prepare(&plan, error);
    if (ok) {
        for (unsigned i = 0; i < ctx->opened->len; i++) {
            BfNode *node = g_ptr_array_index(ctx->opened, i);

            node->registered = true;
        }
        top->monitor_owned = !ctx->is_hidden;
        top->pins += ctx->is_hidden;
        bf_plan_co_commit(&plan);
        bf_plan_co_finish(&plan);
    } else {
        g_ptr_array_set_size(graph->nodes, (int)old_len);
    }
    bf_graph_unlock(graph);
    return ok;
}

/* Nodes that were never in the graph must not reach those that are: nobody
 * waits for them to come to rest, and they may live on another loop. */
static void
unlink_node(void *node, void *unused)
{
    const GPtrArray *edges = ((BfNode *)node)->edges;

    for (unsigned i = 0; i < edges->len; i++) {
        *((const BfEdge *)g_ptr_array_index(edges, i))->slot = NULL;
    }
}

static BfNode *
co_add_tree(BfGraph *graph, const BfBlockdevOptions *options, bool is_hidden,
            GError **error)
{
    g_autoptr(GPtrArray) opened = g_ptr_array_new();
    g_autoptr(GPtrArray) pinned = g_ptr_array_new();
    BfOpenContext ctx = {.graph = graph,
                         .opened = opened,
                         .pinned = pinned,
                         .is_hidden = is_hidden};
    BfNode *top;
    bool ok;

    bf_assert_main();
    top = co_open_node(&ctx, options, NULL, error);
    ok = top != NULL && co_register(&ctx, top, error);
    if (!ok) {
        g_ptr_array_foreach(opened, unlink_node, NULL);
        for (unsigned i = opened->len; i > 0; i--) {
            bf_node_co_close(g_ptr_array_index(opened, i - 1));
        }
    }
    for (unsigned i = 0; i < pinned->len; i++) {
        bf_node_co_unpin(g_ptr_array_index(pinned, i));
    }
    return ok ? top : NULL;
}

bool
bf_graph_co_blockdev_add(BfGraph *graph, const BfBlockdevOptions *options,
                         GError **error)
{
    return co_add_tree(graph, options, false, error) != NULL;
}

BfNode *
bf_graph_co_open_hidden(BfGraph *graph, const BfBlockdevOptions *options,
                        GError **error)
{
    return co_add_tree(graph, options, true, error);
}

void
bf_graph_co_release_hidden(BfGraph *graph, BfNode *node)
{
    bf_assert_main();
    bf_node_co_unpin(node);
}
