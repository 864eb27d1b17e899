/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP commands on character devices.
 */
#include "core/error.h"
#include "qmp/chardev.h"
#include "qmp/dispatch.h"
#include "qmp/gen-commands.h"
#include "qmp/monitors-private.h"

static bool
co_open(BfQmpCall *call, const char *id, const BfChardevBackend *backend,
        BfMonitorsChardevOp op, GError **error)
{
    const BfChardev *old = bf_monitors_find_chardev(call->monitors, id);
    BfChardevConfig *config = bf_chardev_config_new(id, backend, error);

    if (config == NULL) {
        g_prefix_error(error, "Failed to add chardev '%s': ", id);
        return false;
    }
    config->fd_passed = call->client != NULL;
    if (old != NULL && bf_chardev_get_config(old)->backend == NULL) {
        /* It stays one of the command line. */
        g_clear_pointer(&config->backend, bf_chardev_backend_free);
    }
    return bf_monitors_co_chardev_open(call->monitors, config,
                                       bf_qmp_call_take_fd, call, op, error);
}

bool
bf_qmp_co_chardev_add(BfQmpCall *call, const BfChardevAddArgs *args,
                      BfChardevReturn **ret_value, GError **error)
{
    if (!co_open(call, args->id, args->backend, BF_MONITORS_CHARDEV_ADD,
                 error)) {
        return false;
    }
    *ret_value = bf_type_new(&bf_chardev_return_type);
    return true;
}

bool
bf_qmp_co_chardev_change(BfQmpCall *call, const BfChardevChangeArgs *args,
                         BfChardevReturn **ret_value, GError **error)
{
    if (!co_open(call, args->id, args->backend, BF_MONITORS_CHARDEV_REPLACE,
                 error)) {
        return false;
    }
    *ret_value = bf_type_new(&bf_chardev_return_type);
    return true;
}

bool
bf_qmp_co_chardev_remove(BfQmpCall *call, const BfChardevRemoveArgs *args,
                         GError **error)
{
    return bf_monitors_co_chardev_remove(call->monitors, args->id, error);
}

bool
bf_qmp_co_chardev_send_break(BfQmpCall *call,
                             const BfChardevSendBreakArgs *args, GError **error)
{
    if (bf_monitors_find_chardev(call->monitors, args->id) == NULL) {
        bf_set_error(error, "Chardev '%s' not found", args->id);
        return false;
    }
    return true;
}

bool
bf_qmp_co_query_chardev(BfQmpCall *call, BfChardevInfoList **ret_value,
                        GError **error)
{
    *ret_value = bf_monitors_query_chardevs(call->monitors);
    return true;
}

bool
bf_qmp_co_query_chardev_backends(BfQmpCall *call,
                                 BfChardevBackendInfoList **ret_value,
                                 GError **error)
{
    const BfEnumInfo *kinds = &bf_chardev_backend_kind_enum;
    BfChardevBackendInfoList *list =
        bf_type_new(&bf_chardev_backend_info_list_type);

    list->len = kinds->n_values;
    list->items = g_new0(BfChardevBackendInfo *, list->len);
    for (size_t i = 0; i < list->len; i++) {
        list->items[i] = bf_type_new(&bf_chardev_backend_info_type);
        list->items[i]->name = g_strdup(kinds->values[i]);
    }
    *ret_value = list;
    return true;
}

static BfRingbuf *
find_ring(BfQmpCall *call, const char *id, GError **error)
{
    BfChardev *chardev = bf_monitors_find_chardev(call->monitors, id);
    BfRingbuf *ring = NULL;

    if (chardev == NULL) {
        bf_set_error(error, "Device '%s' not found", id);
        return NULL;
    }
    ring = bf_chardev_get_ringbuf(chardev);
    if (ring == NULL) {
        bf_set_error(error, "%s is not a ringbuf device", id);
    }
    return ring;
}

bool
bf_qmp_co_ringbuf_write(BfQmpCall *call, const BfRingbufWriteArgs *args,
                        GError **error)
{
    BfRingbuf *ring = find_ring(call, args->device, error);

    return ring != NULL &&
           bf_ringbuf_write(ring, args->data, args->format, error);
}

bool
bf_qmp_co_ringbuf_read(BfQmpCall *call, const BfRingbufReadArgs *args,
                       char **ret_value, GError **error)
{
    BfRingbuf *ring = find_ring(call, args->device, error);

    if (ring == NULL) {
        return false;
    }
    if (args->size <= 0) {
        bf_set_error(error, "size must be greater than zero");
        return false;
    }
    *ret_value = bf_ringbuf_read(ring, (uint64_t)args->size, args->format);
    return true;
}
