/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How to make the nodes that are there anew, for a file that a later start
 * executes.
 *
 * A node keeps the options it was made from, or has had from the last reopen,
 * but its children may be others by now: a job has moved its users, a child was
 * added. So references are written from the links as they are; links follow
 * slots, which never show a plan that may be taken back.
 */
#include <string.h>

#include "block-private.h"
#include "block/bitmap.h"
#include "core/error.h"

typedef struct Save {
    GPtrArray *saved; /* of BfSavedNode, owned */
    GHashTable *done; /* borrowed: BfNode that are in @saved, or will be */
    GPtrArray *begun; /* borrowed: BfNode at the top level that will be */
    char *problem;    /* owned: of the node at the top level, or NULL */
} Save;

static void
saved_node_free(void *arg)
{
    BfSavedNode *saved = arg;

    g_free(saved->name);
    bf_blockdev_options_free(saved->options);
    g_free(saved->problem);
    g_free(saved);
}

/* Only the first one is told. */
static void G_GNUC_PRINTF(2, 3) set_problem(Save *save, const char *format, ...)
{
    va_list args;

    if (save->problem == NULL) {
        va_start(args, format);
        save->problem = g_strdup_vprintf(format, args);
        va_end(args);
    }
}

static bool
has_auto_name(const BfNode *node)
{
    return node->name[0] == '#';
}

static bool
is_passed_descriptor(const char *filename)
{
    static const char *const places[] = {"/dev/fd/", "/dev/fdset/",
                                         "/proc/self/fd/"};

    for (size_t i = 0; i < G_N_ELEMENTS(places); i++) {
        if (g_str_has_prefix(filename, places[i])) {
            return true;
        }
    }
    return false;
}

static void
look_for_problem(Save *save, const BfNode *node)
{
    switch (node->driver->kind) {
    case BF_BLOCKDEV_DRIVER_FILE:
    case BF_BLOCKDEV_DRIVER_HOST_DEVICE:
        if (is_passed_descriptor(node->options->u.file->filename)) {
            set_problem(save,
                        "node '%s' has '%s', a descriptor that was passed to "
                        "this process",
                        node->name, node->options->u.file->filename);
        }
        break;
    case BF_BLOCKDEV_DRIVER_COPY_BEFORE_WRITE:
        set_problem(save,
                    "node '%s' keeps a snapshot, which ends with the daemon",
                    node->name);
        break;
    case BF_BLOCKDEV_DRIVER_NBD:
        if (node->own_export != NULL) {
            set_problem(save,
                        "node '%s' is a client of this daemon's own export "
                        "'%s', which nobody serves during a start",
                        node->name, node->own_export);
        }
        break;
    default:
        break;
    }
}

static BfBlockdevRef *
ref_new(BfBlockdevOptions *options, const char *name)
{
    BfBlockdevRef *ref = bf_type_new(&bf_blockdev_ref_type);

    if (options != NULL) {
        ref->kind = BF_BLOCKDEV_REF_KIND_OBJECT;
        ref->u.object = options;
    } else {
        ref->kind = BF_BLOCKDEV_REF_KIND_STR;
        ref->u.str = g_strdup(name);
    }
    return ref;
}

/* The child as users see it; NULL where one is being added or taken away. */
static BfNode *
child_of(const BfEdge *edge)
{
    return bf_node_below_jobs(*edge->slot);
}

/* Do the options of the parent make @child? */
static bool
is_made_by(const BfNode *child, const BfEdge *edge)
{
    const BfNode *parent = edge->parent;
    const BfBlockdevRef *ref =
        parent != NULL && parent->options != NULL
            ? bf_options_child_ref(parent->options, edge->name)
            : NULL;

    return ref != NULL && ref->kind == BF_BLOCKDEV_REF_KIND_OBJECT &&
           child->inherits && child_of(edge) == child;
}

/* Would a node with these options, made by @parent, have these settings? */
static bool
gives_settings(const BfBlockdevOptions *options, const BfNode *parent,
               const BfNodeSettings *settings)
{
    BfNodeSettings given;

    bf_node_effective_settings(
        options, parent != NULL ? &parent->settings : NULL, &given);
    return (given.read_only == settings->read_only || settings->fell_back) &&
           given.auto_read_only == settings->auto_read_only &&
           given.direct == settings->direct &&
           given.no_flush == settings->no_flush &&
           given.force_share == settings->force_share &&
           given.discard_unmap == settings->discard_unmap;
}

/* What a node has from a parent that is gone, or has other settings by now. */
static void
make_explicit(BfBlockdevOptions *options, const BfNodeSettings *settings)
{
    if (options->cache == NULL) {
        options->cache = bf_type_new(&bf_blockdev_cache_options_type);
    }
    options->cache->has_direct = true;
    options->cache->direct = settings->direct;
    options->cache->has_no_flush = true;
    options->cache->no_flush = settings->no_flush;
    options->has_read_only = true;
    options->read_only = settings->read_only && !settings->fell_back;
    options->has_auto_read_only = true;
    options->auto_read_only = settings->auto_read_only;
    options->has_force_share = true;
    options->force_share = settings->force_share;
    options->has_discard = true;
    options->discard = settings->discard_unmap
                           ? BF_BLOCKDEV_DISCARD_OPTIONS_UNMAP
                           : BF_BLOCKDEV_DISCARD_OPTIONS_IGNORE;
}

static BfBlockdevOptions *describe(Save *save, BfNode *node,
                                   const BfEdge *above);

static BfBlockdevRef *
refer(Save *save, const BfEdge *edge)
{
    BfNode *child = child_of(edge);

    if (!child->monitor_owned && !g_hash_table_contains(save->done, child)) {
        return ref_new(describe(save, child, edge), NULL);
    }
    if (has_auto_name(child)) {
        set_problem(save,
                    "node '%s', which has several users, has no name of its "
                    "own",
                    child->name);
    }
    return ref_new(NULL, child->name);
}

/* @above: (nullable): the link that makes the node, inline */
static BfBlockdevOptions *
describe(Save *save, BfNode *node, const BfEdge *above)
{
    BfBlockdevOptions *options = bf_blockdev_options_copy(node->options);

    g_hash_table_add(save->done, node);
    look_for_problem(save, node);
    if (!gives_settings(options, above != NULL ? above->parent : NULL,
                        &node->settings)) {
        make_explicit(options, &node->settings);
    }
    options->active = node->active;
    options->has_active =
        node->active != (above == NULL || above->parent->active);
    /* A reopen by an automatic name has put it there. */
    if (has_auto_name(node)) {
        g_clear_pointer(&options->node_name, g_free);
    }
    bf_options_clear_children(options);
    for (unsigned i = 0; i < node->edges->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->edges, i);

        if (child_of(edge) != NULL) {
            bf_options_set_child(options, edge->name, refer(save, edge));
        }
    }
    return options;
}

/* The link that makes @node inline: from the parent that made it, if that still
 * has it. NULL without a parent. @user: @node, or a job's filter above it */
static const BfEdge *
maker_edge(const BfNode *node, const BfNode *user)
{
    const BfEdge *found = NULL;

    for (unsigned i = 0; i < user->parents->len; i++) {
        const BfEdge *edge = g_ptr_array_index(user->parents, i);

        if (edge->parent == NULL || !edge->parent->registered ||
            *edge->slot != user) {
            continue; /* a root, or it comes or goes just now */
        }
        if (edge->parent->options == NULL) {
            edge = maker_edge(node, edge->parent);
        }
        if (edge != NULL && (found == NULL || !is_made_by(node, found))) {
            found = edge;
        }
    }
    return found;
}

/* The node at the top level that @node is made with, in the end. */
static BfNode *
maker_of(BfNode *node)
{
    for (const BfEdge *edge = maker_edge(node, node);
         !node->monitor_owned && edge != NULL; edge = maker_edge(node, node)) {
        node = edge->parent;
    }
    return node;
}

static bool
needs_one_of(const BfNode *node, GPtrArray *nodes, GHashTable *seen)
{
    if (g_ptr_array_find(nodes, node, NULL)) {
        return true;
    }
    if (!g_hash_table_add(seen, (void *)node)) {
        return false;
    }
    for (unsigned i = 0; i < node->edges->len; i++) {
        const BfNode *child = child_of(g_ptr_array_index(node->edges, i));

        if (child != NULL && needs_one_of(child, nodes, seen)) {
            return true;
        }
    }
    return false;
}

/* Can @maker be put now? Else its child is made with who needs it first. */
static bool
may_come_first(const Save *save, const BfNode *maker)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);

    return maker->monitor_owned && !needs_one_of(maker, save->begun, seen);
}

static void put(Save *save, BfNode *node);

/*
 * What @node refers to comes first. @inside: what is made inline with the node
 * at the top level; what would be there twice becomes a node at the top level,
 * as nothing can refer to a node that the same command makes.
 */
static void
put_needed(Save *save, const BfNode *node, GHashTable *inside)
{
    for (unsigned i = 0; i < node->edges->len; i++) {
        BfNode *child = child_of(g_ptr_array_index(node->edges, i));
        BfNode *maker = NULL;

        if (child == NULL) {
            continue;
        }
        maker = maker_of(child);
        if (!child->monitor_owned && maker != child &&
            !g_hash_table_contains(save->done, child) &&
            may_come_first(save, maker)) {
            put(save, maker);
        }
        if (child->monitor_owned || g_hash_table_contains(inside, child)) {
            put(save, child);
        } else if (!g_hash_table_contains(save->done, child)) {
            g_hash_table_add(inside, child);
            put_needed(save, child, inside);
        }
    }
}

static void
put(Save *save, BfNode *node)
{
    g_autoptr(GHashTable) inside = g_hash_table_new(NULL, NULL);
    BfSavedNode *saved = NULL;

    if (!g_hash_table_add(save->done, node)) {
        return;
    }
    g_ptr_array_add(save->begun, node);
    put_needed(save, node, inside);
    g_ptr_array_set_size(save->begun, (int)save->begun->len - 1);
    saved = g_new0(BfSavedNode, 1);
    saved->name = g_strdup(node->name);
    saved->options = describe(save, node, NULL);
    if (has_auto_name(node)) {
        set_problem(save, "node '%s' has no name of its own", node->name);
    } else if (saved->options->node_name == NULL) {
        saved->options->node_name = g_strdup(node->name);
    }
    saved->problem = g_steal_pointer(&save->problem);
    if (saved->problem != NULL) {
        g_clear_pointer(&saved->options, bf_blockdev_options_free);
    }
    g_ptr_array_add(save->saved, saved);
}

GPtrArray *
bf_graph_save(BfGraph *graph, const GPtrArray *used)
{
    g_autoptr(GHashTable) done = g_hash_table_new(NULL, NULL);
    g_autoptr(GPtrArray) begun = g_ptr_array_new();
    Save save = {
        .saved = g_ptr_array_new_with_free_func(saved_node_free),
        .done = done,
        .begun = begun,
    };

    bf_assert_main();
    for (unsigned i = 0; i < graph->nodes->len; i++) {
        BfNode *node = g_ptr_array_index(graph->nodes, i);

        if (node->registered && node->monitor_owned) {
            put(&save, node);
        }
    }
    for (unsigned i = 0; i < used->len; i++) {
        put(&save, bf_node_below_jobs(g_ptr_array_index(used, i)));
    }
    return save.saved;
}

static void
saved_state_free(void *arg)
{
    BfSavedState *state = arg;

    g_free(state->name);
    g_free(state->bitmaps);
    g_free(state);
}

/* Those of jobs have no names. */
static char *
list_bitmaps(const BfNode *node)
{
    g_autoptr(GString) list = g_string_new(NULL);

    for (unsigned i = 0; i < node->n_bitmaps; i++) {
        const char *name = bf_bitmap_name(node->bitmaps[i]);

        if (name != NULL) {
            g_string_append_printf(list, "%s'%s'", list->len > 0 ? ", " : "",
                                   name);
        }
    }
    return list->len > 0 ? g_string_free(g_steal_pointer(&list), FALSE) : NULL;
}

GPtrArray *
bf_graph_save_state(BfGraph *graph)
{
    GPtrArray *states = g_ptr_array_new_with_free_func(saved_state_free);

    bf_assert_main();
    for (unsigned i = 0; i < graph->nodes->len; i++) {
        const BfNode *node = g_ptr_array_index(graph->nodes, i);
        uint64_t threshold = bf_atomic_load(&node->write_threshold);
        char *bitmaps = list_bitmaps(node);

        /* A job's filter is gone with the job. */
        if (node->registered && node->options != NULL &&
            (threshold != 0 || bitmaps != NULL)) {
            BfSavedState *state = g_new0(BfSavedState, 1);

            state->name = g_strdup(node->name);
            state->has_own_name = !has_auto_name(node);
            state->write_threshold = threshold;
            state->bitmaps = g_steal_pointer(&bitmaps);
            g_ptr_array_add(states, state);
        }
        g_free(bitmaps);
    }
    return states;
}
