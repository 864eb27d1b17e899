/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Metadata contexts: which ones a client selects, and BLOCK_STATUS.
 *
 * A selection is for one export, the one named in SET_META_CONTEXT, and is
 * forgotten if the client then goes to another one.
 */
#include "core/error.h"
#include "core/util.h"
#include "nbd-private.h"

/* A context as clients know it; its id is its index. */
typedef struct BfNbdContextKind {
    const char *space; /* with the colon */
    const char *leaf;
    BfNbdContexts bit;
} BfNbdContextKind;

static const BfNbdContextKind context_kinds[] = {
    {"base:", "allocation", BF_NBD_CONTEXT_ALLOCATION},
    {"qemu:", "allocation-depth", BF_NBD_CONTEXT_DEPTH},
};

/* Does @query ask for @kind? A namespace alone asks for all that is in it, but
 * only when listing. */
static bool
query_matches(BfNbdString query, const BfNbdContextKind *kind, bool listing)
{
    size_t space_len = strlen(kind->space);
    size_t leaf_len = strlen(kind->leaf);

    if (query.len < space_len ||
        memcmp(query.data, kind->space, space_len) != 0) {
        return false;
    }
    if (query.len == space_len) {
        return listing;
    }
    return query.len == space_len + leaf_len &&
           memcmp(query.data + space_len, kind->leaf, leaf_len) == 0;
}

static unsigned
match_queries(BfNbdMetaRequest *request, unsigned offered, bool listing)
{
    unsigned found = 0;
    BfNbdString query;

    if (listing && request->n_queries == 0) {
        return offered;
    }
    while (bf_nbd_meta_next_query(request, &query)) {
        for (unsigned i = 0; i < G_N_ELEMENTS(context_kinds); i++) {
            if (query_matches(query, &context_kinds[i], listing)) {
                found |= context_kinds[i].bit;
            }
        }
    }
    return found & offered;
}

static void
add_contexts(GByteArray *out, uint32_t option, unsigned contexts)
{
    bool listing = option == BF_NBD_OPTION_LIST_META_CONTEXT;

    for (unsigned i = 0; i < G_N_ELEMENTS(context_kinds); i++) {
        const BfNbdContextKind *kind = &context_kinds[i];
        g_autoptr(GByteArray) payload = NULL;
        uint8_t id[4];

        if ((contexts & kind->bit) == 0) {
            continue;
        }
        payload = g_byte_array_new();
        bf_put_be32(id, listing ? 0 : i);
        g_byte_array_append(payload, id, sizeof(id));
        g_byte_array_append(payload, (const guint8 *)kind->space,
                            strlen(kind->space));
        g_byte_array_append(payload, (const guint8 *)kind->leaf,
                            strlen(kind->leaf));
        bf_nbd_negotiate_add_reply(out, option, BF_NBD_REPLY_META_CONTEXT,
                                   payload->data, payload->len);
    }
}

void
bf_nbd_meta_clear(BfNbdClient *client)
{
    client->contexts = 0;
    g_clear_pointer(&client->contexts_name, g_bytes_unref);
}

void
bf_nbd_meta_bind(BfNbdClient *client, BfNbdString name, unsigned offered)
{
    g_autoptr(GBytes) chosen = g_bytes_new(name.data, name.len);

    if (client->contexts_name == NULL ||
        !g_bytes_equal(client->contexts_name, chosen)) {
        bf_nbd_meta_clear(client);
        return;
    }
    client->contexts &= offered;
}

void
bf_nbd_meta_co_option(BfNbdClient *client, uint32_t option, const void *data,
                      size_t len, GByteArray *out)
{
    bool listing = option == BF_NBD_OPTION_LIST_META_CONTEXT;
    g_autoptr(GError) invalid = NULL;
    BfNbdMetaRequest request;
    BfNbdExportAnswer answer;
    unsigned found = 0;

    if (!listing) {
        bf_nbd_meta_clear(client);
    }
    if (!bf_nbd_parse_meta(option, data, len, &request, &invalid)) {
        bf_nbd_negotiate_add_error(out, option, BF_NBD_REPLY_ERR_INVALID, "%s",
                                   invalid->message);
        return;
    }
    bf_nbd_server_co_ask(client, request.name, false, &answer);
    if (!answer.found) {
        g_autofree char *shown = bf_nbd_show_text(request.name);

        bf_nbd_negotiate_add_error(out, option, BF_NBD_REPLY_ERR_UNKNOWN,
                                   "export '%s' not present", shown);
        return;
    }
    g_free(answer.description);
    found = match_queries(&request, answer.contexts, listing);
    if (!listing) {
        client->contexts = found;
        client->contexts_name =
            g_bytes_new(request.name.data, request.name.len);
    }
    add_contexts(out, option, found);
    bf_nbd_negotiate_add_reply(out, option, BF_NBD_REPLY_ACK, NULL, 0);
}

/* Extents of a request at most. A hole has at least a sector. */
static size_t
max_extents(const BfNbdRequest *request)
{
    if ((request->flags & BF_NBD_REQUEST_REQ_ONE) != 0) {
        return 1;
    }
    return MIN(BF_NBD_STATUS_EXTENTS_MAX, request->length / 512 + 2);
}

size_t
bf_nbd_meta_credit(const BfNbdClient *client, const BfNbdRequest *request)
{
    size_t contexts = __builtin_popcount(client->contexts);

    return max_extents(request) *
           (sizeof(BfExtent) + contexts * BF_NBD_STATUS_EXTENT_BYTES);
}

static uint32_t
extent_status(const BfExtent *extent, BfNbdContexts context)
{
    uint32_t status = 0;

    if (context == BF_NBD_CONTEXT_DEPTH) {
        /* No driver has backing files, so data is in the top layer. */
        return (extent->flags & BF_EXTENT_HOLE) != 0 ? 0 : 1;
    }
    if ((extent->flags & BF_EXTENT_HOLE) != 0) {
        status |= BF_NBD_STATUS_HOLE;
    }
    if ((extent->flags & BF_EXTENT_ZERO) != 0) {
        status |= BF_NBD_STATUS_ZERO;
    }
    return status;
}

/* Writes one context's chunk to @out; returns its length. */
static size_t
put_context(const BfNbdTask *task, const BfExtents *extents, unsigned id,
            bool last, uint8_t *out)
{
    uint8_t *start = out + BF_NBD_CHUNK_BYTES + BF_NBD_STATUS_ID_BYTES;
    uint8_t *end = start;

    for (size_t i = 0; i < extents->len;) {
        uint32_t status = extent_status(&extents->items[i], 1u << id);
        uint64_t bytes = 0;

        /* Different extents may have the same status here. The sum is at most
         * the request's length, so it fits. */
        while (i < extents->len &&
               extent_status(&extents->items[i], 1u << id) == status) {
            bytes += extents->items[i++].bytes;
        }
        bf_nbd_put_status_extent(end, (uint32_t)bytes, status);
        end += BF_NBD_STATUS_EXTENT_BYTES;
    }
    bf_put_be32(start - BF_NBD_STATUS_ID_BYTES, id);
    bf_nbd_put_chunk(
        out, &(BfNbdChunk){
                 .flags = last ? BF_NBD_CHUNK_DONE : 0,
                 .type = BF_NBD_CHUNK_TYPE_BLOCK_STATUS,
                 .cookie = task->request.cookie,
                 .length = (uint32_t)(end - start) + BF_NBD_STATUS_ID_BYTES,
             });
    return end - out;
}

static size_t
put_chunks(const BfNbdTask *task, const BfExtents *extents, uint8_t *out)
{
    unsigned left = task->client->contexts;
    size_t bytes = 0;

    for (unsigned id = 0; left != 0; id++) {
        if ((left & (1u << id)) == 0) {
            continue;
        }
        left &= ~(1u << id);
        bytes += put_context(task, extents, id, left == 0, out + bytes);
    }
    return bytes;
}

void
bf_nbd_meta_co_status(BfNbdTask *task)
{
    const BfNbdRequest *request = &task->request;
    size_t contexts = __builtin_popcount(task->client->contexts);
    BfExtents extents;
    size_t most = 0;
    int ret = 0;

    bf_extents_init(&extents, max_extents(request));
    ret = bf_handle_co_extents(task->client->handle, request->offset,
                               request->length, &extents);
    if (ret == 0 && extents.bytes > request->length) {
        bf_extents_clip(&extents, request->length);
    }
    if (ret < 0 || extents.len == 0) {
        bf_nbd_reply_error(task, ret < 0 ? -ret : EIO,
                           "can't get block status");
        bf_extents_clear(&extents);
        return;
    }
    most = contexts * (BF_NBD_CHUNK_BYTES + BF_NBD_STATUS_ID_BYTES +
                       extents.len * BF_NBD_STATUS_EXTENT_BYTES);
    task->heap = g_try_malloc(most);
    if (task->heap == NULL) {
        bf_nbd_reply_error(task, ENOMEM, "No memory");
    } else {
        bf_nbd_reply_status(task, put_chunks(task, &extents, task->heap));
    }
    bf_extents_clear(&extents);
}
