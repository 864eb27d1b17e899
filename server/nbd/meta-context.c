/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Metadata contexts: which ones a client selects, and BLOCK_STATUS.
 *
 * A selection is for one export, the one named in SET_META_CONTEXT, and is
 * forgotten if the client then goes to another one.
 */
#include "block/bitmap-ops.h"
#include "core/error.h"
#include "core/util.h"
#include "transmit-private.h"

/* Bits of a bitmap that are looked at in one turn, some microseconds' worth. */
#define LOOK_BITS (UINT64_C(1) << 20)

/* Names that are compared with queries in one turn. */
#define LOOK_NAMES 1024

/* Queries that ask for all contexts below, but only when listing. */
static const char *const wildcards[] = {
    "base:",
    "qemu:",
    "qemu:dirty-bitmap:",
};

/* Without the length of @text, which is often long and seldom the same. A query
 * has no NUL. */
static bool
is_text(BfNbdString string, const char *text)
{
    return strncmp(text, string.data, string.len) == 0 &&
           text[string.len] == '\0';
}

static void
add_below(const GPtrArray *names, const char *prefix, bool *found)
{
    for (unsigned id = 0; id < names->len; id++) {
        const char *name = g_ptr_array_index(names, id);

        found[id] |= name != NULL && g_str_has_prefix(name, prefix);
    }
}

static void
match_query(const GPtrArray *names, BfNbdString query, bool listing,
            bool *found)
{
    if (query.len < strlen(wildcards[0])) {
        return; /* peers can send very many of them */
    }
    for (unsigned id = 0; id < names->len; id++) {
        const char *name = g_ptr_array_index(names, id);

        found[id] |= name != NULL && is_text(query, name);
    }
    for (unsigned i = 0; listing && i < G_N_ELEMENTS(wildcards); i++) {
        if (is_text(query, wildcards[i])) {
            add_below(names, wildcards[i], found);
        }
    }
}

/* The ids of the contexts that are asked for, rising. A peer can send very many
 * queries: others get their turns, and who is cut off needs no answer. */
static GArray *
co_match_queries(const BfNbdClient *client, BfNbdMetaRequest *request,
                 const GPtrArray *names, bool listing)
{
    g_autofree bool *found = g_new0(bool, names->len + 1);
    GArray *ids = g_array_new(false, false, sizeof(uint32_t));
    size_t compared = 0;
    BfNbdString query;

    if (listing && request->n_queries == 0) {
        add_below(names, "", found);
    }
    while (bf_nbd_meta_next_query(request, &query)) {
        match_query(names, query, listing, found);
        compared += names->len;
        if (compared >= LOOK_NAMES) {
            compared = 0;
            bf_co_yield();
            if (client->closing || client->timed_out) {
                break;
            }
        }
    }
    for (uint32_t id = 0; id < names->len; id++) {
        if (found[id]) {
            g_array_append_val(ids, id);
        }
    }
    return ids;
}

static void
add_contexts(GByteArray *out, uint32_t option, const GPtrArray *names,
             const GArray *ids)
{
    bool listing = option == BF_NBD_OPTION_LIST_META_CONTEXT;

    for (unsigned i = 0; i < ids->len; i++) {
        uint32_t context = g_array_index(ids, uint32_t, i);
        const char *name = g_ptr_array_index(names, context);
        g_autoptr(GByteArray) payload = g_byte_array_new();
        uint8_t id[4];

        bf_put_be32(id, listing ? 0 : context);
        g_byte_array_append(payload, id, sizeof(id));
        g_byte_array_append(payload, (const guint8 *)name, strlen(name));
        bf_nbd_negotiate_add_reply(out, option, BF_NBD_REPLY_META_CONTEXT,
                                   payload->data, payload->len);
    }
}

BfNbdNames *
bf_nbd_names_new(GPtrArray *list)
{
    BfNbdNames *names = g_new0(BfNbdNames, 1);

    bf_atomic_store(&names->refs, 1);
    names->list = list;
    return names;
}

BfNbdNames *
bf_nbd_names_ref(BfNbdNames *names)
{
    bf_atomic_add(&names->refs, 1);
    return names;
}

void
bf_nbd_names_unref(BfNbdNames *names)
{
    if (bf_atomic_drop(&names->refs)) {
        g_ptr_array_unref(names->list);
        g_free(names);
    }
}

void
bf_nbd_meta_clear(BfNbdClient *client)
{
    g_clear_pointer(&client->contexts, g_array_unref);
    g_clear_pointer(&client->context_names, bf_nbd_names_unref);
    g_clear_pointer(&client->contexts_name, g_bytes_unref);
}

/* Do the ids that were selected mean the same in @names? */
static bool
means_the_same(const BfNbdClient *client, const GPtrArray *names)
{
    for (unsigned i = 0; i < client->contexts->len; i++) {
        uint32_t id = g_array_index(client->contexts, uint32_t, i);

        if (id >= names->len ||
            g_strcmp0(g_ptr_array_index(names, id),
                      g_ptr_array_index(client->context_names->list, id)) !=
                0) {
            return false;
        }
    }
    return true;
}

bool
bf_nbd_meta_is_for(const BfNbdClient *client, BfNbdString name,
                   const GPtrArray *offered)
{
    g_autoptr(GBytes) chosen = g_bytes_new(name.data, name.len);

    return client->contexts != NULL &&
           g_bytes_equal(client->contexts_name, chosen) &&
           means_the_same(client, offered);
}

void
bf_nbd_meta_bind(BfNbdClient *client, BfNbdString name,
                 const GPtrArray *offered)
{
    if (!bf_nbd_meta_is_for(client, name, offered)) {
        bf_nbd_meta_clear(client);
    }
}

static bool
has_id(const uint8_t *ids, size_t n, uint32_t id)
{
    for (size_t i = 0; i < n; i++) {
        if (bf_get_be32(ids + i * BF_NBD_STATUS_ID_BYTES) == id) {
            return true;
        }
    }
    return false;
}

GArray *
bf_nbd_meta_pick(const BfNbdClient *client, const uint8_t *ids, size_t n)
{
    g_autoptr(GArray) picked = g_array_new(false, false, sizeof(uint32_t));

    /* More than there are cannot all be different. */
    if (n == 0 || n > bf_nbd_meta_count(client)) {
        return NULL;
    }
    for (unsigned i = 0; i < client->contexts->len; i++) {
        uint32_t id = g_array_index(client->contexts, uint32_t, i);

        if (has_id(ids, n, id)) {
            g_array_append_val(picked, id);
        }
    }
    /* One that is not selected, or is there twice, is missing here. */
    return picked->len == n ? g_steal_pointer(&picked) : NULL;
}

unsigned
bf_nbd_meta_count(const BfNbdClient *client)
{
    return client->contexts != NULL ? client->contexts->len : 0;
}

void
bf_nbd_meta_co_option(BfNbdClient *client, uint32_t option, const void *data,
                      size_t len, GByteArray *out)
{
    bool listing = option == BF_NBD_OPTION_LIST_META_CONTEXT;
    g_auto(BfNbdExportAnswer) answer = {0};
    g_autoptr(GError) invalid = NULL;
    g_autoptr(GArray) ids = NULL;
    BfNbdMetaRequest request;

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
        bf_nbd_negotiate_add_absent(client, out, option, request.name);
        return;
    }
    ids = co_match_queries(client, &request, answer.contexts->list, listing);
    if (!listing) {
        client->contexts = g_array_ref(ids);
        client->context_names = bf_nbd_names_ref(answer.contexts);
        client->contexts_name =
            g_bytes_new(request.name.data, request.name.len);
    }
    add_contexts(out, option, answer.contexts->list, ids);
    bf_nbd_negotiate_add_reply(out, option, BF_NBD_REPLY_ACK, NULL, 0);
}

/* What an extent takes in a reply. */
static size_t
extent_bytes(const BfNbdClient *client)
{
    return client->extended ? BF_NBD_STATUS_EXT_EXTENT_BYTES
                            : BF_NBD_STATUS_EXTENT_BYTES;
}

/* What precedes the extents of a context. */
static size_t
chunk_head_bytes(const BfNbdClient *client)
{
    return client->extended
               ? BF_NBD_EXTENDED_CHUNK_BYTES + BF_NBD_STATUS_EXT_HEAD_BYTES
               : BF_NBD_CHUNK_BYTES + BF_NBD_STATUS_ID_BYTES;
}

/* What an extent takes: as it is found, and in each of @ids. */
static size_t
all_extent_bytes(const BfNbdClient *client, const GArray *ids)
{
    return sizeof(BfExtent) + ids->len * extent_bytes(client);
}

/* Extents of a context in a reply at most, if @bytes may be used for all of
 * @ids. A hole has at least a sector. */
static size_t
max_extents(const BfNbdClient *client, const BfNbdRequest *request,
            const GArray *ids, size_t bytes)
{
    size_t each = all_extent_bytes(client, ids);

    if ((request->flags & BF_NBD_REQUEST_REQ_ONE) != 0) {
        return 1;
    }
    return MIN(MIN(BF_NBD_STATUS_EXTENTS_MAX, bytes / each),
               request->length / 512 + 2);
}

/* The contexts that a request asks for: those it has picked, or all. */
static const GArray *
asked_for(const BfNbdClient *client, const GArray *picked)
{
    return picked != NULL ? picked : client->contexts;
}

size_t
bf_nbd_meta_credit(const BfNbdClient *client, const BfNbdRequest *request,
                   const GArray *picked)
{
    const GArray *ids = asked_for(client, picked);

    return max_extents(client, request, ids, NBD_STATUS_BYTES_MAX) *
           all_extent_bytes(client, ids);
}

static const GArray *
contexts_of(const BfNbdTask *task)
{
    return asked_for(task->client, task->contexts);
}

/* The same for a request that was started. */
static size_t
max_extents_of(const BfNbdTask *task)
{
    return max_extents(task->client, &task->request, contexts_of(task),
                       task->credit - NBD_REQUEST_BYTES);
}

/* The chunk of one context, as it is being made. */
typedef struct StatusChunk {
    bool extended;
    uint8_t *start; /* where its header is to be */
    uint8_t *end;
    size_t room;    /* extents that may still be added */
    uint32_t count; /* extents that were */
    uint64_t bytes; /* of the last extent */
    uint32_t status;
} StatusChunk;

static void
chunk_init(StatusChunk *chunk, const BfNbdClient *client, uint8_t *start,
           size_t room)
{
    *chunk = (StatusChunk){
        .extended = client->extended,
        .start = start,
        .end = start + chunk_head_bytes(client),
        .room = room,
    };
}

/* Writes the last extent. The sum of all is at most the request's length, so
 * it fits where there are 32 bits for it. */
static void
chunk_put(StatusChunk *chunk)
{
    if (chunk->extended) {
        bf_nbd_put_status_ext_extent(chunk->end, chunk->bytes, chunk->status);
        chunk->end += BF_NBD_STATUS_EXT_EXTENT_BYTES;
    } else {
        bf_nbd_put_status_extent(chunk->end, (uint32_t)chunk->bytes,
                                 chunk->status);
        chunk->end += BF_NBD_STATUS_EXTENT_BYTES;
    }
}

/* Adds to the last extent if it has the same status. Returns false if there is
 * no room. */
static bool
chunk_add(StatusChunk *chunk, uint64_t bytes, uint32_t status)
{
    if (bytes == 0) {
        return true;
    }
    if (chunk->bytes > 0 && chunk->status == status) {
        chunk->end -= chunk->extended ? BF_NBD_STATUS_EXT_EXTENT_BYTES
                                      : BF_NBD_STATUS_EXTENT_BYTES;
        bytes += chunk->bytes;
    } else if (chunk->room == 0) {
        return false;
    } else {
        chunk->room--;
        chunk->count++;
    }
    chunk->bytes = bytes;
    chunk->status = status;
    chunk_put(chunk);
    return true;
}

/* Writes the header and returns the length of the whole. */
static size_t
chunk_finish(const StatusChunk *chunk, const BfNbdTask *task, uint32_t id,
             bool last)
{
    size_t bytes = chunk->end - chunk->start;
    BfNbdChunk head = {
        .flags = last ? BF_NBD_CHUNK_DONE : 0,
        .cookie = task->request.cookie,
    };

    if (chunk->extended) {
        head.type = BF_NBD_CHUNK_TYPE_BLOCK_STATUS_EXT;
        head.length = (uint32_t)(bytes - BF_NBD_EXTENDED_CHUNK_BYTES);
        bf_nbd_put_extended_chunk(chunk->start, &head, task->request.offset);
        bf_nbd_put_status_ext_head(chunk->start + BF_NBD_EXTENDED_CHUNK_BYTES,
                                   id, chunk->count);
    } else {
        head.type = BF_NBD_CHUNK_TYPE_BLOCK_STATUS;
        head.length = (uint32_t)(bytes - BF_NBD_CHUNK_BYTES);
        bf_nbd_put_chunk(chunk->start, &head);
        bf_put_be32(chunk->start + BF_NBD_CHUNK_BYTES, id);
    }
    return bytes;
}

static uint32_t
extent_status(const BfExtent *extent, uint32_t context)
{
    uint32_t status = 0;

    if (context == BF_NBD_CONTEXT_DEPTH) {
        /* No driver has backing files, so all that is known, zeroes as well,
         * comes from the top layer. */
        return extent->flags == BF_EXTENT_HOLE ? 0 : 1;
    }
    if ((extent->flags & BF_EXTENT_HOLE) != 0) {
        status |= BF_NBD_STATUS_HOLE;
    }
    if ((extent->flags & BF_EXTENT_ZERO) != 0) {
        status |= BF_NBD_STATUS_ZERO;
    }
    return status;
}

static void
add_extents(StatusChunk *chunk, const BfExtents *extents, uint32_t context)
{
    for (size_t i = 0; i < extents->len; i++) {
        const BfExtent *extent = &extents->items[i];

        if (!chunk_add(chunk, extent->bytes, extent_status(extent, context))) {
            return;
        }
    }
}

/*
 * Writes may be marking it meanwhile: each look sees some moment. There may be
 * gigabytes of bits that are alike, so others get their turns between looks.
 * False: nobody waits for the result any more.
 */
static bool
co_add_bitmap(StatusChunk *chunk, const BfBitmap *bitmap, const BfNbdTask *task)
{
    const BfNbdRequest *request = &task->request;
    const uint64_t look = bf_bitmap_granularity(bitmap) * LOOK_BITS;
    const uint64_t align = task->client->unaligned_bits + 1;
    uint64_t end = request->offset + request->length;
    uint64_t at = request->offset;
    uint64_t looked_to = at;

    while (at < end) {
        uint64_t stop = end - at > look ? at + look : end;
        uint64_t start = stop;
        uint64_t bytes = 0;

        if (at - looked_to >= look) {
            looked_to = at;
            bf_co_yield();
            if (bf_nbd_transmit_is_pointless(task->client)) {
                return false;
            }
        }
        bf_bitmap_next_dirty(bitmap, at, stop, &start, &bytes);
        if (bytes > 0) {
            /* Who has agreed on block sizes is told of whole blocks. */
            stop = MIN(bf_align_up(start + bytes, align), end);
            start = bf_align_down(start, align);
            bytes = stop - start;
        }
        if (!chunk_add(chunk, start - at, 0) ||
            !chunk_add(chunk, bytes, BF_NBD_STATUS_DIRTY)) {
            break;
        }
        at = start + bytes;
    }
    return true;
}

static const BfBitmap *
bitmap_of(const BfNbdClient *client, uint32_t context)
{
    const GPtrArray *bitmaps = client->exp->bitmaps;

    return bf_bitmap_use_bitmap(
        g_ptr_array_index(bitmaps, context - BF_NBD_CONTEXT_BITMAPS));
}

/* Extents of @context at most: of what is known, or by its granularity. */
static size_t
room_for(const BfNbdTask *task, const BfExtents *extents, uint32_t context)
{
    const BfNbdRequest *request = &task->request;
    const BfBitmap *bitmap;

    if (context < BF_NBD_CONTEXT_BITMAPS) {
        return extents->len;
    }
    bitmap = bitmap_of(task->client, context);
    return MIN(max_extents_of(task),
               request->length / bf_bitmap_granularity(bitmap) + 2);
}

static void
co_reply_status(BfNbdTask *task, const BfExtents *extents)
{
    const GArray *ids = contexts_of(task);
    size_t most = 0;
    size_t bytes = 0;

    for (unsigned i = 0; i < ids->len; i++) {
        most += chunk_head_bytes(task->client) +
                room_for(task, extents, g_array_index(ids, uint32_t, i)) *
                    extent_bytes(task->client);
    }
    task->heap = g_try_malloc(most);
    if (task->heap == NULL) {
        bf_nbd_reply_error(task, ENOMEM, "No memory");
        return;
    }
    for (unsigned i = 0; i < ids->len; i++) {
        uint32_t id = g_array_index(ids, uint32_t, i);
        StatusChunk chunk;

        chunk_init(&chunk, task->client, task->heap + bytes,
                   room_for(task, extents, id));
        if (id < BF_NBD_CONTEXT_BITMAPS) {
            add_extents(&chunk, extents, id);
        } else if (!co_add_bitmap(&chunk, bitmap_of(task->client, id), task)) {
            bf_nbd_reply_error(task, ESHUTDOWN, "the connection has ended");
            return;
        }
        bytes += chunk_finish(&chunk, task, id, i + 1 == ids->len);
    }
    bf_nbd_reply_status(task, bytes);
}

void
bf_nbd_meta_co_status(BfNbdTask *task)
{
    const BfNbdRequest *request = &task->request;
    const BfNbdClient *client = task->client;
    uint32_t first = g_array_index(contexts_of(task), uint32_t, 0);
    BfExtents extents;
    int ret = 0;

    if (first >= BF_NBD_CONTEXT_BITMAPS) {
        /* Nobody asks for what only the storage knows. */
        co_reply_status(task, NULL);
        return;
    }
    bf_extents_init(&extents, max_extents_of(task));
    ret = bf_handle_co_extents(client->handle, request->offset, request->length,
                               &extents);
    if (ret == 0 && extents.bytes > request->length) {
        bf_extents_clip(&extents, request->length);
    }
    if (ret < 0 || extents.len == 0) {
        bf_nbd_reply_error(task, ret < 0 ? -ret : EIO,
                           "can't get block status");
    } else {
        co_reply_status(task, &extents);
    }
    bf_extents_clear(&extents);
}
