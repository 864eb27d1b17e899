/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * NBD exports: a node under a name, in the order in which they were made. A
 * closing export leaves the list at once, so its name is free before its id.
 */
#include "serve/nbd-server.h"

#include "core/error.h"
#include "nbd-private.h"

static void
nbd_start_close(BfExport *exp)
{
    BfNbdExport *self = (BfNbdExport *)exp;

    g_ptr_array_remove(self->server->exports, self);
    bf_nbd_server_kill_clients(self->server, self);
}

static bool
nbd_uses_loop(const BfExport *exp, const BfLoop *loop)
{
    const BfNbdExport *self = (const BfNbdExport *)exp;

    for (GList *l = self->server->clients.head; l != NULL; l = l->next) {
        const BfNbdClient *client = l->data;

        if (client->exp == self && client->loop == loop) {
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
    g_free((char *)self->name.data);
    g_free(self->description);
    g_free(self);
}

static const BfExportOps nbd_ops = {
    .type = BF_BLOCK_EXPORT_TYPE_NBD,
    .start_close = nbd_start_close,
    .uses_loop = nbd_uses_loop,
    .free = nbd_free,
};

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
    if (nbd->bitmaps != NULL && nbd->bitmaps->len > 0) {
        const BfBlockDirtyBitmapOrStr *bitmap = nbd->bitmaps->items[0];

        /* No node has dirty bitmaps that a user can make. */
        bf_set_error(error, "Bitmap '%s' is not found",
                     bitmap->kind == BF_BLOCK_DIRTY_BITMAP_OR_STR_KIND_STR
                         ? bitmap->u.str
                         : bitmap->u.object->name);
        return false;
    }
    return true;
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
    if (!bf_export_co_open(&exp->base, table, options, &iothreads, error)) {
        nbd_free(&exp->base);
        return false;
    }
    /* Nothing suspends from here on. */
    server = *server_at;
    if (!check_nbd_options(server, options, error)) {
        bf_export_co_abandon(&exp->base);
        nbd_free(&exp->base);
        return false;
    }
    name = g_strdup(nbd->name != NULL ? nbd->name : options->node_name);
    exp->name = (BfNbdString){.data = name, .len = strlen(name)};
    exp->server = server;
    bf_wait_group_add(&server->exports_left, 1);
    if (nbd->description != NULL && *nbd->description != '\0') {
        exp->description = g_strdup(nbd->description);
    }
    exp->contexts = BF_NBD_CONTEXT_ALLOCATION;
    if (nbd->allocation_depth) {
        exp->contexts |= BF_NBD_CONTEXT_DEPTH;
    }
    g_ptr_array_add(server->exports, exp);
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
