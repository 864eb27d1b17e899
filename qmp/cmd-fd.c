/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP commands on descriptors that come with a message over a UNIX socket.
 * Names belong to the client that gave them, sets to the daemon.
 */
#include <unistd.h>

#include "core/co-io.h"
#include "core/error.h"
#include "qmp/dispatch.h"
#include "qmp/gen-commands.h"
#include "qmp/monitor.h"

bool
bf_qmp_co_getfd(BfQmpCall *call, const BfGetfdArgs *args, GError **error)
{
    int fd = bf_monitor_client_take_passed_fd(call->client, error);

    if (fd < 0) {
        return false;
    }
    if (g_ascii_isdigit(args->fdname[0])) {
        close(fd);
        bf_set_error(error, "Parameter 'fdname' expects a name not starting "
                            "with a digit");
        return false;
    }
    return bf_monitor_client_name_fd(call->client, args->fdname, fd, error);
}

bool
bf_qmp_co_closefd(BfQmpCall *call, const BfClosefdArgs *args, GError **error)
{
    int fd = bf_monitor_client_take_named_fd(call->client, args->fdname, NULL);

    if (fd < 0) {
        bf_set_error(error, "File descriptor named '%s' not found",
                     args->fdname);
        return false;
    }
    bf_co_close(fd);
    return true;
}

bool
bf_qmp_co_add_fd(BfQmpCall *call, const BfAddFdArgs *args,
                 BfAddfdInfo **ret_value, GError **error)
{
    int fd = bf_monitor_client_take_passed_fd(call->client, error);

    if (fd < 0) {
        return false;
    }
    *ret_value = bf_fdsets_add(call->daemon->fdsets, fd,
                               args->has_fdset_id ? &args->fdset_id : NULL,
                               args->opaque, error);
    return *ret_value != NULL;
}

bool
bf_qmp_co_remove_fd(BfQmpCall *call, const BfRemoveFdArgs *args, GError **error)
{
    return bf_fdsets_co_remove(call->daemon->fdsets, args->fdset_id,
                               args->has_fd ? &args->fd : NULL, error);
}

bool
bf_qmp_co_query_fdsets(BfQmpCall *call, BfFdsetInfoList **ret_value,
                       GError **error)
{
    *ret_value = bf_fdsets_query(call->daemon->fdsets);
    return true;
}
