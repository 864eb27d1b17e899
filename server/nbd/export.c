/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD exports: a node under a name, in the order in which they were made. A
 * closing export leaves the list at once, so its name is free before its id.
 */
#include "serve/nbd-server.h"

#include <inttypes.h>

#include "block/bitmap-ops.h"
#include "core/error.h"
#include "nbd-private.h"
#include "stats-private.h"

static void
nbd_start_close(BfExport *exp)
{
    BfNbdExport *self = (BfNbdExport *)exp;

    g_ptr_array_remove(self->server->exports, self);
    self->server->n_restricted -= self->tls_authz != NULL ? 1 : 0;
    self->server->exports_generation++;
    bf_nbd_server_kill_clients(self->server, self);
}

static bool
nbd_uses_loop(const BfExport *exp, const BfLoop *loop)
{
    const BfNbdExport *self = (const BfNbdExport *)exp;

    for (GList *l = self->server->clients.head; l != NULL; l = l->next) {
        const BfNbdClient *client = l->data;

        if (client->exp == self &&
            (client->loop == loop || client->home == loop)) {
            return true;
        }
    }
    return false;
}

static void
nbd_free(BfExport *exp)
{
    BfNbdExport *self = (BfNbdExport *)exp;

    if (self->server != NULL) {
        bf_wait_group_done(&self->server->exports_left);
    }
    g_assert(self->bitmaps->len == 0);
    g_assert(g_queue_is_empty(&self->users));
    bf_nbd_stats_free(self->past);
    g_ptr_array_unref(self->bitmaps);
    g_clear_pointer(&self->contexts, bf_nbd_names_unref);
    g_free((char *)self->name.data);
    g_free(self->description);
    g_free(self->tls_authz);
    g_free(self);
}

static void
nbd_co_close(BfExport *exp)
{
    BfNbdExport *self = (BfNbdExport *)exp;

    while (self->bitmaps->len > 0) {
        bf_bitmap_co_unuse(
            g_ptr_array_steal_index(self->bitmaps, self->bitmaps->len - 1));
    }
}

static const BfExportOps nbd_ops = {
    .type = BF_BLOCK_EXPORT_TYPE_NBD,
    .start_close = nbd_start_close,
    .co_close = nbd_co_close,
    .uses_loop = nbd_uses_loop,
    .free = nbd_free,
};

/* Without a name that a client has proved, rules would be an illusion. */
static bool
check_tls_authz(const BfNbdServer *server, const char *id, GError **error)
{
    if (id == NULL) {
        return true;
    }
    return bf_nbd_listeners_prove_names(server, id, error);
}

/* Checks of block-export-add that only NBD has, in its order. */
static bool
check_nbd_options(BfNbdServer *server, const BfBlockExportOptions *options,
                  GError **error)
{
    const BfBlockExportOptionsNbd *nbd = options->u.nbd;
    const char *name = nbd->name != NULL ? nbd->name : options->node_name;
    BfNbdString wanted = {.data = name, .len = strlen(name)};

    if (server == NULL || server->stopping) {
        bf_set_error(error, "NBD server not running");
        return false;
    }
    if (strlen(name) > BF_NBD_STRING_MAX) {
        bf_set_error(error,
                     "export name '%.80s...' too long: %d bytes is the most",
                     name, BF_NBD_STRING_MAX);
        return false;
    }
    if (nbd->description != NULL &&
        strlen(nbd->description) > BF_NBD_STRING_MAX) {
        bf_set_error(error,
                     "description '%.80s...' too long: %d bytes is the most",
                     nbd->description, BF_NBD_STRING_MAX);
        return false;
    }
    if (bf_nbd_server_find(server, wanted) != NULL) {
        bf_set_error(error, "NBD server already has export named '%s'", name);
        return false;
    }
    return check_tls_authz(server, nbd->tls_authz, error);
}

/* A plain name is looked for below the node. A bitmap that is recording would
 * change under clients of an export that seems constant, so there it is refused
 * unless its node is read-only; who gives the node knows what he does. */
static BfBitmap *
find_bitmap(BfNbdExport *exp, const BfBlockDirtyBitmapOrStr *which,
            BfNode **ret_node, GError **error)
{
    BfNode *top = bf_root_node(exp->base.root);
    BfBitmap *bitmap = NULL;

    if (which->kind != BF_BLOCK_DIRTY_BITMAP_OR_STR_KIND_STR) {
        return bf_bitmap_lookup(bf_node_graph(top), which->u.object->node,
                                which->u.object->name, ret_node, error);
    }
    bitmap = bf_bitmap_find_through(top, which->u.str, ret_node);
    if (bitmap == NULL) {
        bf_set_error(error, "Bitmap '%s' is not found", which->u.str);
        return NULL;
    }
    if (!exp->base.writable && bf_bitmap_is_enabled(bitmap) &&
        !bf_node_is_read_only(*ret_node) && bf_node_is_active(*ret_node)) {
        bf_set_error(error,
                     "Enabled bitmap '%s' incompatible with readonly export",
                     which->u.str);
        return NULL;
    }
    return bitmap;
}

/* Clients know a bitmap by its name alone. */
static bool
check_bitmap(const BfNbdExport *exp, const BfBitmap *bitmap, GError **error)
{
    const char *name = bf_bitmap_name(bitmap);
    uint64_t size = bf_root_size(exp->base.root);

    if (bf_bitmap_size(bitmap) != size) {
        bf_set_error(error,
                     "Bitmap '%s' describes %" PRIu64 " bytes, but the node to "
                     "export has %" PRIu64,
                     name, bf_bitmap_size(bitmap), size);
        return false;
    }
    if (exp->bitmaps->len >= NBD_BITMAPS_MAX) {
        bf_set_error(error, "an export can have %d bitmaps at most",
                     NBD_BITMAPS_MAX);
        return false;
    }
    for (unsigned i = 0; i < exp->bitmaps->len; i++) {
        const BfBitmap *other =
            bf_bitmap_use_bitmap(g_ptr_array_index(exp->bitmaps, i));

        if (g_str_equal(bf_bitmap_name(other), name)) {
            bf_set_error(error,
                         "Bitmap '%s' of another node has the same name; an "
                         "export can have only one of them",
                         name);
            return false;
        }
    }
    return true;
}

static bool
has_bitmap(const BfNbdExport *exp, const BfBitmap *bitmap)
{
    for (unsigned i = 0; i < exp->bitmaps->len; i++) {
        if (bf_bitmap_use_bitmap(g_ptr_array_index(exp->bitmaps, i)) ==
            bitmap) {
            return true;
        }
    }
    return false;
}

static bool
co_use_bitmap(BfNbdExport *exp, const BfBlockDirtyBitmapOrStr *which,
              GError **error)
{
    g_autofree char *who = g_strdup_printf("export '%s'", exp->base.id);
    BfNode *node = NULL;
    BfBitmap *bitmap = find_bitmap(exp, which, &node, error);
    BfBitmapUse *use = NULL;

    if (bitmap == NULL) {
        return false;
    }
    if (has_bitmap(exp, bitmap)) {
        return true; /* given twice */
    }
    if (!bf_bitmap_check(bitmap, BF_BITMAP_CHECK_USE, error) ||
        !check_bitmap(exp, bitmap, error)) {
        return false;
    }
    use = bf_bitmap_co_use(node, bitmap, who, error);
    if (use == NULL) {
        return false;
    }
    g_ptr_array_add(exp->bitmaps, use);
    return true;
}

static bool
co_use_bitmaps(BfNbdExport *exp, const BfBlockDirtyBitmapOrStrList *list,
               GError **error)
{
    BfGraph *graph = bf_node_graph(bf_root_node(exp->base.root));
    bool ok = true;

    if (list == NULL || list->len == 0) {
        return true;
    }
    if (exp->base.allow_resize) {
        bf_set_error(error, "a node whose bitmaps clients may query cannot be "
                            "resized; leave allow-resize or bitmaps out");
        return false;
    }
    bf_graph_co_section_begin(graph);
    for (size_t i = 0; ok && i < list->len; i++) {
        ok = co_use_bitmap(exp, list->items[i], error);
    }
    bf_graph_co_section_end(graph);
    return ok;
}

/* What clients may select, by id; BfNbdContext says which come first. */
static BfNbdNames *
make_contexts(const BfNbdExport *exp, bool depth)
{
    GPtrArray *names = g_ptr_array_new_with_free_func(g_free);

    g_ptr_array_add(names, g_strdup("base:allocation"));
    g_ptr_array_add(names, depth ? g_strdup("qemu:allocation-depth") : NULL);
    for (unsigned i = 0; i < exp->bitmaps->len; i++) {
        const BfBitmap *bitmap =
            bf_bitmap_use_bitmap(g_ptr_array_index(exp->bitmaps, i));

        g_ptr_array_add(names, g_strconcat("qemu:dirty-bitmap:",
                                           bf_bitmap_name(bitmap), NULL));
    }
    return bf_nbd_names_new(names);
}

bool
bf_nbd_export_co_add(BfNbdServer *const *server_at, BfExportTable *table,
                     BfGraph *graph, const BfBlockExportOptions *options,
                     BfLoop *(*find_iothread)(void *opaque, const char *id),
                     void *opaque, GError **error)
{
    const BfExportIothreads iothreads = {
        .find = find_iothread,
        .opaque = opaque,
    };
    const BfBlockExportOptionsNbd *nbd = options->u.nbd;
    BfNbdExport *exp = g_new0(BfNbdExport, 1);
    BfNbdServer *server;
    g_autofree char *shown = NULL;
    char *name = NULL;

    exp->base.ops = &nbd_ops;
    exp->bitmaps = g_ptr_array_new();
    g_queue_init(&exp->users);
    if (!bf_export_co_open(&exp->base, table, options, &iothreads, error)) {
        nbd_free(&exp->base);
        return false;
    }
    /* Claiming bitmaps suspends, so the server is looked at once more. */
    if (!check_nbd_options(*server_at, options, error) ||
        !co_use_bitmaps(exp, nbd->bitmaps, error) ||
        !check_nbd_options(*server_at, options, error)) {
        nbd_co_close(&exp->base);
        bf_export_co_abandon(&exp->base);
        nbd_free(&exp->base);
        return false;
    }
    name = g_strdup(nbd->name != NULL ? nbd->name : options->node_name);
    exp->name = (BfNbdString){.data = name, .len = strlen(name)};
    exp->server = server = *server_at;
    bf_wait_group_add(&server->exports_left, 1);
    if (nbd->description != NULL && *nbd->description != '\0') {
        exp->description = g_strdup(nbd->description);
    }
    exp->tls_authz = g_strdup(nbd->tls_authz);
    exp->contexts = make_contexts(exp, nbd->allocation_depth);
    g_ptr_array_add(server->exports, exp);
    server->n_restricted += exp->tls_authz != NULL ? 1 : 0;
    exp->added = ++server->exports_generation;
    bf_export_publish(&exp->base);
    shown = bf_nbd_show_text(exp->name);
    g_message("export '%s' added: node '%s' as NBD export '%s', %s",
              options->id, options->node_name, shown,
              options->writable ? "writable" : "read-only");
    return true;
}

void
bf_nbd_export_close_all(BfNbdServer *server)
{
    g_autoptr(GPtrArray) list = g_ptr_array_copy(server->exports, NULL, NULL);

    for (unsigned i = 0; i < list->len; i++) {
        BfNbdExport *exp = g_ptr_array_index(list, i);

        bf_export_start_close(&exp->base);
    }
}

BfNbdRequests *
bf_nbd_export_query_requests(const BfExport *exp, uint64_t *ret_failed)
{
    const BfNbdExport *self = (const BfNbdExport *)exp;

    bf_assert_main();
    *ret_failed = 0;
    return exp->ops == &nbd_ops ? bf_nbd_stats_query_export(self, ret_failed)
                                : NULL;
}
