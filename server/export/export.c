/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exports: what all kinds have in common, and the table of all exports.
 *
 * An id is reserved before the node is claimed, because claiming suspends and
 * another monitor may ask for the same id meanwhile. Until it is published
 * such an export is not found and not listed.
 */
#include "serve/export-kind.h"

#include "block/graph.h"
#include "core/co-lock.h"
#include "core/error.h"
#include "core/registry.h"
#include "core/util.h"

/* NBD and every other kind serve whole sectors of this size. */
#define EXPORT_SECTOR_BYTES 512

/* How long requests under way may keep an export that is being removed, before
 * storage that can be told to give them up is told so. */
#define PATIENCE_NS (5 * BF_NS_PER_SEC)

struct BfExportTable {
    BfGraph *graph; /* borrowed: lives longer */
    const BfExportEvents *events;
    void *events_opaque;
    BfRegistry *exports; /* BfExport by id, reserved ones included */
    BfWaitGroup alive;   /* exports in the registry */
    BfWaitGroup closing; /* those of them that are closing */
};

BfExportTable *
bf_export_table_new(BfGraph *graph, const BfExportEvents *events, void *opaque)
{
    BfExportTable *table = g_new0(BfExportTable, 1);

    table->graph = graph;
    table->events = events;
    table->events_opaque = opaque;
    table->exports = bf_registry_new();
    return table;
}

void
bf_export_table_free(BfExportTable *table)
{
    if (table == NULL) {
        return;
    }
    g_assert(bf_registry_size(table->exports) == 0);
    bf_registry_free(table->exports);
    g_free(table);
}

BfExport *
bf_export_table_find(BfExportTable *table, const char *id)
{
    BfExport *exp = bf_registry_find(table->exports, id);

    return exp != NULL && exp->published ? exp : NULL;
}

GPtrArray *
bf_export_table_list(BfExportTable *table)
{
    GPtrArray *list = bf_registry_list(table->exports);
    unsigned kept = 0;

    for (unsigned i = 0; i < list->len; i++) {
        BfExport *exp = g_ptr_array_index(list, i);

        if (exp->published) {
            list->pdata[kept++] = exp;
        }
    }
    g_ptr_array_set_size(list, kept);
    return list;
}

const char *
bf_export_id(const BfExport *exp)
{
    return exp->id;
}

BfBlockExportType
bf_export_type(const BfExport *exp)
{
    return exp->ops->type;
}

const char *
bf_export_node_name(const BfExport *exp)
{
    return exp->root != NULL ? bf_node_name(bf_root_node(exp->root))
                             : exp->node_name;
}

BfNode *
bf_export_node(const BfExport *exp)
{
    return exp->root != NULL ? bf_root_node(exp->root) : NULL;
}

BfBlockExportOptions *
bf_export_save(const BfExport *exp)
{
    BfBlockExportOptions *options = bf_block_export_options_copy(exp->options);

    if (exp->root != NULL) {
        BfNode *node = bf_node_below_jobs(bf_root_node(exp->root));

        g_free(options->node_name);
        options->node_name = g_strdup(bf_node_name(node));
        /* Else it would activate the node. */
        options->allow_inactive |= !bf_node_is_active(node);
    }
    return options;
}

const char *
bf_export_throttle_group(const BfExport *exp)
{
    return exp->throttle_group;
}

bool
bf_export_is_closing(const BfExport *exp)
{
    return exp->closing;
}

unsigned
bf_export_count_clients(const BfExport *exp)
{
    return exp->clients;
}

bool
bf_export_uses_loop(const BfExport *exp, const BfLoop *loop)
{
    return (exp->iothreads != NULL &&
            g_ptr_array_find(exp->iothreads, loop, NULL)) ||
           (exp->published && exp->ops->uses_loop(exp, loop));
}

const char *
bf_export_table_find_loop_user(BfExportTable *table, const BfLoop *loop)
{
    g_autoptr(GPtrArray) list = bf_registry_list(table->exports);

    for (unsigned i = 0; i < list->len; i++) {
        const BfExport *exp = g_ptr_array_index(list, i);

        if (bf_export_uses_loop(exp, loop)) {
            return bf_export_id(exp);
        }
    }
    return NULL;
}

static uint64_t
whole_sectors(uint64_t bytes)
{
    return bf_align_down(bytes, EXPORT_SECTOR_BYTES);
}

uint64_t
bf_export_size(const BfExport *exp)
{
    bf_assert_main();
    return exp->allow_resize ? whole_sectors(bf_root_size(exp->root))
                             : exp->size;
}

uint64_t
bf_export_handle_size(const BfExport *exp, const BfHandle *handle)
{
    return exp->allow_resize ? whole_sectors(bf_handle_size(handle))
                             : exp->size;
}

void
bf_export_stats(BfExport *exp, BfIoStats *ret_stats)
{
    *ret_stats = (BfIoStats){.read_ops = 0};
    if (exp->root != NULL) {
        bf_root_stats(exp->root, ret_stats);
    }
}

/* Gives the id back and tells that the export is gone. */
static void
forget(BfExport *exp)
{
    bf_registry_remove(exp->table->exports, exp->id);
    bf_wait_group_done(&exp->table->alive);
    g_clear_pointer(&exp->id, g_free);
    g_clear_pointer(&exp->options, bf_block_export_options_free);
    g_clear_pointer(&exp->iothreads, g_ptr_array_unref);
}

static void
export_co_finish(void *arg)
{
    BfExport *exp = arg;
    BfExportTable *table = exp->table;
    g_autofree char *id = g_strdup(exp->id);

    bf_timer_stop(&exp->patience);
    /* It stays on the lists until the node is free. */
    exp->node_name = g_strdup(bf_node_name(bf_root_node(exp->root)));
    if (exp->ops->co_close != NULL) {
        exp->ops->co_close(exp);
    }
    bf_throttle_member_co_free(g_steal_pointer(&exp->throttle));
    bf_root_co_free(g_steal_pointer(&exp->root));
    g_message("export '%s' removed", id);
    bf_registry_remove(table->exports, id);
    if (table->events != NULL) {
        table->events->deleted(table->events_opaque, id);
    }
    g_clear_pointer(&exp->iothreads, g_ptr_array_unref);
    g_free(exp->throttle_group);
    g_free(exp->node_name);
    bf_block_export_options_free(exp->options);
    g_free(exp->id);
    exp->ops->free(exp);
    bf_wait_group_done(&table->closing);
    bf_wait_group_done(&table->alive);
}

/* A server behind the node may drip its answers for hours. Whoever else uses
 * the node may leave later, so this is tried again. */
static void
patience_over(void *arg)
{
    BfExport *exp = arg;

    if (exp->clients > 0) {
        bf_root_cancel_requests(exp->root);
        bf_timer_start(&exp->patience, PATIENCE_NS, patience_over, exp);
    }
}

/* Returns whether there are no clients, so that the caller is to finish it;
 * else who leaves last does. */
static bool
begin_close(BfExport *exp)
{
    bf_assert_main();
    g_assert(exp->published && !exp->closing);
    exp->closing = true;
    bf_wait_group_add(&exp->table->closing, 1);
    exp->ops->start_close(exp);
    /* Parked requests would keep their clients for as long as the drain. */
    bf_root_abort(exp->root);
    if (exp->clients > 0) {
        bf_timer_start(&exp->patience, PATIENCE_NS, patience_over, exp);
    }
    return exp->clients == 0;
}

void
bf_export_start_close(BfExport *exp)
{
    if (begin_close(exp)) {
        bf_co_spawn_later(export_co_finish, exp);
    }
}

void
bf_export_co_close(BfExport *exp)
{
    if (begin_close(exp)) {
        export_co_finish(exp);
    }
}

void
bf_export_attach(BfExport *exp)
{
    bf_assert_main();
    g_assert(exp->published && !exp->closing);
    exp->clients++;
}

void
bf_export_detach(BfExport *exp)
{
    bf_assert_main();
    g_assert(exp->clients > 0);
    exp->clients--;
    if (exp->closing && exp->clients == 0) {
        bf_co_spawn_later(export_co_finish, exp);
    }
}

void
bf_export_table_co_close_all(BfExportTable *table)
{
    g_autoptr(GPtrArray) list = bf_export_table_list(table);

    bf_assert_main();
    for (unsigned i = 0; i < list->len; i++) {
        BfExport *exp = g_ptr_array_index(list, i);

        if (!exp->closing) {
            bf_export_start_close(exp);
        }
    }
    bf_wait_group_co_wait(&table->alive);
}

void
bf_export_table_co_wait_closed(BfExportTable *table)
{
    bf_wait_group_co_wait(&table->closing);
}

/* Finds the loop of an iothread object. */
static bool
add_iothread(BfExport *exp, const char *id, const BfExportIothreads *iothreads,
             GError **error)
{
    BfLoop *loop =
        iothreads->find != NULL ? iothreads->find(iothreads->opaque, id) : NULL;

    if (loop == NULL) {
        bf_set_error(error, "iothread \"%s\" not found", id);
        return false;
    }
    if (g_ptr_array_find(exp->iothreads, loop, NULL)) {
        bf_set_error(error, "iothread \"%s\" is named twice", id);
        return false;
    }
    g_ptr_array_add(exp->iothreads, loop);
    return true;
}

static bool
find_iothreads(BfExport *exp, const BfBlockExportIothreads *ids,
               const BfExportIothreads *iothreads, GError **error)
{
    if (ids == NULL) {
        return true;
    }
    exp->iothreads = g_ptr_array_new();
    if (ids->kind == BF_BLOCK_EXPORT_IOTHREADS_KIND_STR) {
        return add_iothread(exp, ids->u.str, iothreads, error);
    }
    if (ids->u.list->len == 0) {
        bf_set_error(error, "the list of iothreads is empty; leave iothread "
                            "out for the daemon's own threads");
        return false;
    }
    for (size_t i = 0; i < ids->u.list->len; i++) {
        if (!add_iothread(exp, ids->u.list->items[i], iothreads, error)) {
            return false;
        }
    }
    return true;
}

/* Checks of block-export-add in its order, as far as nothing suspends. */
static BfNode *
check_options(BfExport *exp, BfExportTable *table,
              const BfBlockExportOptions *options,
              const BfExportIothreads *iothreads, GError **error)
{
    BfNode *node = NULL;

    if (!bf_id_is_wellformed(options->id)) {
        bf_set_error(error, "Invalid block export id");
        return NULL;
    }
    if (bf_registry_find(table->exports, options->id) != NULL) {
        bf_set_error(error, "Block export id '%s' is already in use",
                     options->id);
        return NULL;
    }
    if (exp->ops->type != options->type) {
        bf_set_error(error, "No driver found for the requested export type");
        return NULL;
    }
    node =
        bf_graph_require_device(table->graph, NULL, options->node_name, error);
    if (node == NULL) {
        return NULL;
    }
    if (options->writable && bf_node_is_read_only(node)) {
        bf_set_error(error, "Cannot export read-only node as writable");
        return NULL;
    }
    return find_iothreads(exp, options->iothread, iothreads, error) ? node
                                                                    : NULL;
}

/* Can the clients of this export run where fixed-iothread says? */
static bool
check_fixed_iothread(BfExport *exp, const BfBlockExportOptions *options,
                     GError **error)
{
    g_autoptr(GString) names = NULL;
    BfLoop *loop = NULL;

    if (exp->iothreads == NULL || !options->fixed_iothread) {
        return true;
    }
    loop = bf_root_pick_loop(exp->root, (BfLoop **)exp->iothreads->pdata,
                             exp->iothreads->len, 0);
    if (g_ptr_array_find(exp->iothreads, loop, NULL)) {
        return true;
    }
    names = g_string_new(NULL);
    for (unsigned i = 0; i < exp->iothreads->len; i++) {
        g_string_append_printf(
            names, "%s'%s'", i > 0 ? ", " : "",
            bf_loop_name(g_ptr_array_index(exp->iothreads, i)));
    }
    bf_set_error(error,
                 "node '%s' cannot be used from iothread %s: its tree is "
                 "tied to another loop; leave fixed-iothread out",
                 options->node_name, names->str);
    return false;
}

static bool
export_co_claim(BfExport *exp, BfNode *node,
                const BfBlockExportOptions *options, GError **error)
{
    g_autofree char *who = g_strdup_printf("export '%s'", options->id);
    unsigned perm = BF_PERM_CONSISTENT_READ;
    unsigned shared = 0;

    if (!options->allow_inactive && !bf_node_is_active(node) &&
        !bf_node_co_activate(node, error)) {
        return false;
    }
    /* Activation suspends: the node may have gone meanwhile. */
    node = bf_graph_require_device(exp->table->graph, NULL, options->node_name,
                                   error);
    if (node == NULL) {
        return false;
    }
    if (options->writable) {
        perm |= BF_PERM_WRITE;
    }
    /* Clients learn the size once, so nobody may change it under them, unless
     * the user says that they can bear it. */
    shared =
        options->allow_resize ? BF_PERM_ALL : BF_PERM_ALL & ~BF_PERM_RESIZE;
    exp->root =
        (options->allow_inactive ? bf_root_co_new_inactive : bf_root_co_new)(
            exp->table->graph, node, who, perm, shared, error);
    return exp->root != NULL;
}

/* Nobody waits in this member: it holds the group until clients come. */
static bool
join_throttle_group(BfExport *exp, const BfBlockExportOptions *options,
                    GError **error)
{
    g_autofree char *who = g_strdup_printf("export '%s'", options->id);

    if (options->throttle_group == NULL) {
        return true;
    }
    exp->throttle = bf_graph_join_throttle_group(
        exp->table->graph, options->throttle_group, who, bf_loop_self(), error);
    exp->throttle_group = g_strdup(options->throttle_group);
    return exp->throttle != NULL;
}

/* A handle that makes no requests may be on main. */
static void
export_co_measure(BfExport *exp)
{
    BfHandle *handle = bf_handle_co_new(exp->root, bf_loop_self());

    exp->size = whole_sectors(bf_handle_size(handle));
    exp->limits = *bf_handle_limits(handle);
    bf_handle_co_free(handle);
}

bool
bf_export_co_open(BfExport *exp, BfExportTable *table,
                  const BfBlockExportOptions *options,
                  const BfExportIothreads *iothreads, GError **error)
{
    BfNode *node = NULL;

    bf_assert_main();
    node = check_options(exp, table, options, iothreads, error);
    if (node == NULL) {
        g_clear_pointer(&exp->iothreads, g_ptr_array_unref);
        return false;
    }
    exp->table = table;
    exp->id = g_strdup(options->id);
    exp->options = bf_block_export_options_copy(options);
    exp->writable = options->writable;
    exp->writethrough = options->writethrough;
    exp->report_losses = options->report_losses;
    exp->allow_resize = options->allow_resize;
    bf_registry_add(table->exports, exp->id, exp);
    bf_wait_group_add(&table->alive, 1);
    if (!export_co_claim(exp, node, options, error)) {
        forget(exp);
        return false;
    }
    if (!check_fixed_iothread(exp, options, error) ||
        !join_throttle_group(exp, options, error)) {
        bf_export_co_abandon(exp);
        return false;
    }
    export_co_measure(exp);
    return true;
}

void
bf_export_publish(BfExport *exp)
{
    exp->published = true;
}

void
bf_export_co_abandon(BfExport *exp)
{
    bf_throttle_member_co_free(g_steal_pointer(&exp->throttle));
    g_clear_pointer(&exp->throttle_group, g_free);
    bf_root_co_free(g_steal_pointer(&exp->root));
    forget(exp);
}
