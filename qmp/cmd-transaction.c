/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP commands that back up nodes, alone or in a transaction.
 */
#include "block/backup.h"
#include "block/transaction.h"
#include "qmp/dispatch.h"
#include "qmp/gen-commands.h"

bool
bf_qmp_co_blockdev_backup(BfQmpCall *call, const BfBlockdevBackup *args,
                          GError **error)
{
    return bf_backup_co_start(call->daemon->graph, call->daemon->jobs, args,
                              error);
}

bool
bf_qmp_co_drive_backup(BfQmpCall *call, const BfDriveBackup *args,
                       GError **error)
{
    return bf_backup_co_start_drive(call->daemon->graph, call->daemon->jobs,
                                    args, error);
}

bool
bf_qmp_co_transaction(BfQmpCall *call, const BfTransaction *args,
                      GError **error)
{
    return bf_transaction_co_run(call->daemon->graph, call->daemon->jobs, args,
                                 error);
}
