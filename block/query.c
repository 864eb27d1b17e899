/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Queries: what the graph looks like, in the shape of query-named-block-nodes.
 * Nothing here waits, so a reply shows one moment.
 */
#include "block-private.h"
#include "block/bitmap.h"

static void
node_info(BfNode *node, BfNodeInfo *ret_info)
{
    *ret_info = (BfNodeInfo){0};
    if (node->driver->query != NULL) {
        node->driver->query(node, ret_info);
    }
}

static char *
node_filename(BfNode *node)
{
    BfNodeInfo info;
    GString *text;

    node_info(node, &info);
    if (info.filename != NULL) {
        return info.filename;
    }
    if (node->options == NULL) {
        return node_filename(node->file); /* a job's filter */
    }
    /* The whole of a child goes by the child's name, if it has one. */
    if (node->driver->kind == BF_BLOCKDEV_DRIVER_RAW && node->file != NULL &&
        node->options->u.raw->offset == 0 && !node->options->u.raw->has_size) {
        g_autofree char *name = node_filename(node->file);

        if (!g_str_has_prefix(name, "json:")) {
            return g_steal_pointer(&name);
        }
    }
    text = g_string_new("json:");
    bf_options_append_json(node, text);
    return g_string_free(text, false);
}

static bool
actual_size(BfNode *node, int64_t *ret_size)
{
    BfNodeInfo info;

    node_info(node, &info);
    g_free(info.filename);
    if (info.has_actual_size) {
        *ret_size = (int64_t)info.actual_size;
        return true;
    }
    return node->file != NULL && actual_size(node->file, ret_size);
}

static BfImageInfoSpecific *
format_specific(const BfNode *node)
{
    BfImageInfoSpecific *specific;

    if (node->driver->kind != BF_BLOCKDEV_DRIVER_FILE) {
        return NULL;
    }
    specific = g_new0(BfImageInfoSpecific, 1);
    specific->type = BF_IMAGE_INFO_SPECIFIC_KIND_FILE;
    specific->u.file = g_new0(BfImageInfoSpecificFileWrapper, 1);
    specific->u.file->data = g_new0(BfImageInfoSpecificFile, 1);
    return specific;
}

static BfImageInfo *
image_info(BfNode *node)
{
    BfImageInfo *image = g_new0(BfImageInfo, 1);
    BfBlockdevDriver kind = node->driver->kind;

    image->filename = node_filename(node);
    image->format = g_strdup(node->driver->name);
    image->virtual_size = (int64_t)node->size;
    image->has_actual_size = actual_size(node, &image->actual_size);
    image->has_dirty_flag = kind == BF_BLOCKDEV_DRIVER_FILE ||
                            kind == BF_BLOCKDEV_DRIVER_HOST_DEVICE ||
                            kind == BF_BLOCKDEV_DRIVER_RAW;
    image->format_specific = format_specific(node);
    return image;
}

static BfBlockDirtyInfo *
bitmap_info(const BfBitmap *bitmap)
{
    BfBlockDirtyInfo *info = g_new0(BfBlockDirtyInfo, 1);
    unsigned state = bf_bitmap_state(bitmap);

    info->name = g_strdup(bf_bitmap_name(bitmap));
    info->count = (int64_t)bf_bitmap_count(bitmap);
    info->granularity = bf_bitmap_granularity(bitmap);
    info->recording = bf_bitmap_is_enabled(bitmap);
    info->busy = (state & BF_BITMAP_BUSY) != 0;
    info->persistent = (state & BF_BITMAP_PERSISTENT) != 0;
    info->has_inconsistent = (state & BF_BITMAP_INCONSISTENT) != 0;
    info->inconsistent = info->has_inconsistent;
    return info;
}

/* Newest first. */
static BfBlockDirtyInfoList *
bitmap_list(const BfNode *node)
{
    BfBlockDirtyInfoList *list;

    if (node->n_bitmaps == 0) {
        return NULL;
    }
    list = g_new0(BfBlockDirtyInfoList, 1);
    list->items = g_new0(BfBlockDirtyInfo *, node->n_bitmaps);
    for (unsigned i = node->n_bitmaps; i > 0; i--) {
        const BfBitmap *bitmap = node->bitmaps[i - 1];

        if (bf_bitmap_name(bitmap) != NULL) {
            list->items[list->len++] = bitmap_info(bitmap);
        }
    }
    if (list->len == 0) {
        g_clear_pointer(&list, bf_block_dirty_info_list_free);
    }
    return list;
}

static BfBlockDeviceInfo *
device_info(BfNode *node)
{
    BfBlockDeviceInfo *info = g_new0(BfBlockDeviceInfo, 1);

    info->file = node_filename(node);
    info->node_name = g_strdup(node->name);
    info->ro = bf_node_is_read_only(node);
    info->drv = g_strdup(node->driver->name);
    info->detect_zeroes = node->settings.detect_zeroes;
    info->image = image_info(node);
    info->cache = g_new0(BfBlockdevCacheInfo, 1);
    info->cache->writeback = true;
    info->cache->direct = node->settings.direct;
    info->cache->no_flush = node->settings.no_flush;
    info->dirty_bitmaps = bitmap_list(node);
    info->write_threshold = (int64_t)bf_atomic_load(&node->write_threshold);
    info->active = node->active;
    return info;
}

BfBlockDeviceInfoList *
bf_graph_co_query(BfGraph *graph, bool flat)
{
    BfBlockDeviceInfoList *list = g_new0(BfBlockDeviceInfoList, 1);

    bf_assert_main();
    list->items = g_new0(BfBlockDeviceInfo *, graph->nodes->len);
    for (unsigned i = graph->nodes->len; i > 0; i--) {
        BfNode *node = g_ptr_array_index(graph->nodes, i - 1);

        if (node->registered) {
            list->items[list->len++] = device_info(node);
        }
    }
    return list;
}
