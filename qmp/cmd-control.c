/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP commands on the connection and the program: capabilities, version,
 * introspection, quit.
 */
#include "core/error.h"
#include "qmp/dispatch.h"
#include "qmp/gen-commands.h"
#include "qmp/monitor.h"
#include "qmp/monitors-private.h"

bool
bf_qmp_co_qmp_capabilities(BfQmpCall *call, const BfQmpCapabilitiesArgs *args,
                           GError **error)
{
    bool has_oob = false;

    if (bf_monitor_client_is_negotiated(call->client)) {
        g_set_error(error, BF_ERROR, BF_ERROR_COMMAND_NOT_FOUND,
                    "Capabilities negotiation is already complete, command "
                    "ignored");
        return false;
    }
    for (size_t i = 0; args->enable != NULL && i < args->enable->len; i++) {
        has_oob |= args->enable->items[i] == BF_QMP_CAPABILITY_OOB;
    }
    bf_monitor_client_negotiate(call->client, has_oob);
    return true;
}

bool
bf_qmp_co_query_version(BfQmpCall *call, BfVersionInfo **ret_value,
                        GError **error)
{
    *ret_value = bf_dispatch_version_new();
    return true;
}

bool
bf_qmp_co_query_commands(BfQmpCall *call, BfCommandInfoList **ret_value,
                         GError **error)
{
    BfCommandInfoList *list = bf_type_new(&bf_command_info_list_type);

    list->items = g_new0(BfCommandInfo *, bf_qmp_n_commands);
    for (size_t i = 0; i < bf_qmp_n_commands; i++) {
        const char *name = bf_qmp_commands[i].name;
        BfCommandInfo *info = NULL;

        if (bf_monitor_client_may_run(call->client, name)) {
            info = bf_type_new(&bf_command_info_type);
            info->name = g_strdup(name);
            list->items[list->len++] = info;
        }
    }
    *ret_value = list;
    return true;
}

bool
bf_qmp_co_query_qmp_schema(BfQmpCall *call, const char **ret_value,
                           GError **error)
{
    *ret_value = bf_qmp_introspection;
    return true;
}

bool
bf_qmp_co_quit(BfQmpCall *call, GError **error)
{
    /* The reply is queued when this returns and sent before the end. */
    bf_monitors_quit(call->monitors);
    return true;
}
