/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP commands that start mirror jobs.
 */
#include "block/mirror.h"
#include "qmp/dispatch.h"
#include "qmp/gen-commands.h"

bool
bf_qmp_co_blockdev_mirror(BfQmpCall *call, const BfBlockdevMirror *args,
                          GError **error)
{
    return bf_mirror_co_start(call->daemon->graph, call->daemon->jobs, args,
                              error);
}

bool
bf_qmp_co_drive_mirror(BfQmpCall *call, const BfDriveMirror *args,
                       GError **error)
{
    return bf_mirror_co_start_drive(call->daemon->graph, call->daemon->jobs,
                                    args, error);
}
