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
#include "core/error.h"

typedef struct Save {
    GPtrArray *saved; /* of BfSavedNode, owned */
    GHashTable *done; /* borrowed: BfNode that are in @saved, or will be */
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

/* What a node had from a parent that does not make it now. */
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
    options->read_only = settings->read_only;
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
    if (node->inherits && (above == NULL || !is_made_by(node, above))) {
        make_explicit(options, &node->settings);
    }
    if (above == NULL) {
        options->active = node->active;
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

/* The link from the node whose options make @node, or NULL. */
static const BfEdge *
making_edge(const BfNode *node)
{
    for (unsigned i = 0; i < node->parents->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->parents, i);

        if (is_made_by(node, edge)) {
            return edge;
        }
    }
    return NULL;
}

/* The node at the top level whose options make @node, in the end. */
static BfNode *
maker_of(BfNode *node)
{
    for (const BfEdge *edge = making_edge(node);
         !node->monitor_owned && edge != NULL; edge = making_edge(node)) {
        node = edge->parent;
    }
    return node;
}

static void put(Save *save, BfNode *node);

/* What @node refers to comes first. */
static void
put_needed(Save *save, const BfNode *node)
{
    for (unsigned i = 0; i < node->edges->len; i++) {
        BfNode *child = child_of(g_ptr_array_index(node->edges, i));

        if (child != NULL && child->monitor_owned) {
            put(save, child);
        } else if (child != NULL && !g_hash_table_contains(save->done, child)) {
            BfNode *maker = maker_of(child);

            if (maker->monitor_owned) {
                put(save, maker); /* or it is being put */
            }
            put_needed(save, child);
        }
    }
}

static void
put(Save *save, BfNode *node)
{
    BfSavedNode *saved = NULL;

    if (!g_hash_table_add(save->done, node)) {
        return;
    }
    put_needed(save, node);
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
    Save save = {
        .saved = g_ptr_array_new_with_free_func(saved_node_free),
        .done = done,
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
