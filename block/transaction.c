/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Transactions. All actions are prepared inside of one section of the graph,
 * where they have their effect on nodes that are at rest; then all are
 * committed, or those that were prepared are taken back, the last one first.
 * As a node stays at rest until the end of the section, bitmaps and backups of
 * several disks meet at one point in time.
 */
#include "block/transaction.h"

#include "block/backup.h"
#include "block/bitmap-ops.h"
#include "block/graph.h"
#include "block/job-kind.h"
#include "core/error.h"

/* An action that has been prepared. */
typedef struct Prepared {
    BfBitmapChange *change; /* (nullable): owned */
    BfJob *job;             /* (nullable): a reference */
    BfNode *target;         /* (nullable): opened for it */
} Prepared;

typedef struct Transaction {
    BfGraph *graph;
    BfJobTable *jobs;
    BfJobTxn *txn; /* (nullable): of all jobs, if they are grouped */
} Transaction;

/* Returns false if the action is none on bitmaps. */
static bool
as_bitmap_action(const BfTransactionAction *action, BfBitmapAction *ret_change)
{
    switch (action->type) {
    case BF_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ADD:
        ret_change->kind = BF_BITMAP_ACTION_ADD;
        ret_change->u.add = action->u.block_dirty_bitmap_add->data;
        return true;
    case BF_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_REMOVE:
        ret_change->kind = BF_BITMAP_ACTION_REMOVE;
        ret_change->u.one = action->u.block_dirty_bitmap_remove->data;
        return true;
    case BF_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_CLEAR:
        ret_change->kind = BF_BITMAP_ACTION_CLEAR;
        ret_change->u.one = action->u.block_dirty_bitmap_clear->data;
        return true;
    case BF_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_ENABLE:
        ret_change->kind = BF_BITMAP_ACTION_ENABLE;
        ret_change->u.one = action->u.block_dirty_bitmap_enable->data;
        return true;
    case BF_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_DISABLE:
        ret_change->kind = BF_BITMAP_ACTION_DISABLE;
        ret_change->u.one = action->u.block_dirty_bitmap_disable->data;
        return true;
    case BF_TRANSACTION_ACTION_KIND_BLOCK_DIRTY_BITMAP_MERGE:
        ret_change->kind = BF_BITMAP_ACTION_MERGE;
        ret_change->u.merge = action->u.block_dirty_bitmap_merge->data;
        return true;
    default:
        return false;
    }
}

/* Only jobs can wait for each other. */
static bool
check_grouped(const Transaction *transaction, const BfTransactionAction *action,
              GError **error)
{
    if (transaction->txn == NULL ||
        action->type == BF_TRANSACTION_ACTION_KIND_BLOCKDEV_BACKUP ||
        action->type == BF_TRANSACTION_ACTION_KIND_DRIVE_BACKUP) {
        return true;
    }
    bf_set_error(error,
                 "Action '%s' does not support Transaction property "
                 "completion-mode = grouped",
                 bf_transaction_action_kind_str(action->type));
    return false;
}

static bool
co_prepare(const Transaction *transaction, const BfTransactionAction *action,
           Prepared *prepared, GError **error)
{
    BfBitmapAction change;
    BfJob *job = NULL;

    if (!check_grouped(transaction, action, error)) {
        return false;
    }
    if (as_bitmap_action(action, &change)) {
        prepared->change =
            bf_bitmap_co_prepare(transaction->graph, &change, error);
        return prepared->change != NULL;
    }
    switch (action->type) {
    case BF_TRANSACTION_ACTION_KIND_BLOCKDEV_BACKUP:
        job = bf_backup_co_prepare(transaction->graph, transaction->jobs,
                                   action->u.blockdev_backup->data,
                                   transaction->txn, error);
        break;
    case BF_TRANSACTION_ACTION_KIND_DRIVE_BACKUP:
        job = bf_backup_co_prepare_drive(
            transaction->graph, transaction->jobs, action->u.drive_backup->data,
            prepared->target, transaction->txn, error);
        break;
    default:
        bf_set_error(error, "Transaction aborted using Abort action");
        break;
    }
    prepared->job = job != NULL ? bf_job_ref(job) : NULL;
    return job != NULL;
}

static void
commit(Prepared *prepared)
{
    if (prepared->change != NULL) {
        bf_bitmap_change_commit(prepared->change);
    }
    if (prepared->job != NULL) {
        bf_job_start(prepared->job);
        bf_job_unref(prepared->job);
    }
}

static void
co_take_back(Prepared *prepared)
{
    if (prepared->change != NULL) {
        bf_bitmap_change_abort(prepared->change);
    }
    if (prepared->job != NULL) {
        bf_job_co_abandon(prepared->job);
        bf_job_unref(prepared->job);
    }
}

/* Before anything is brought to rest: opening files may take its time. */
static bool
co_open_targets(BfGraph *graph, const BfTransactionActionList *actions,
                Prepared *prepared, GError **error)
{
    for (size_t i = 0; i < actions->len; i++) {
        const BfTransactionAction *action = actions->items[i];

        if (action->type != BF_TRANSACTION_ACTION_KIND_DRIVE_BACKUP) {
            continue;
        }
        prepared[i].target = bf_backup_co_open_target(
            graph, action->u.drive_backup->data, error);
        if (prepared[i].target == NULL) {
            return false;
        }
    }
    return true;
}

/* In a section. */
static bool
co_do_all(const Transaction *transaction,
          const BfTransactionActionList *actions, Prepared *prepared,
          GError **error)
{
    size_t done = 0;

    while (done < actions->len && co_prepare(transaction, actions->items[done],
                                             &prepared[done], error)) {
        done++;
    }
    if (done < actions->len) {
        while (done > 0) {
            co_take_back(&prepared[--done]);
        }
        return false;
    }
    for (size_t i = 0; i < actions->len; i++) {
        commit(&prepared[i]);
    }
    return true;
}

bool
bf_transaction_co_run(BfGraph *graph, BfJobTable *jobs,
                      const BfTransaction *options, GError **error)
{
    const BfTransactionActionList *actions = options->actions;
    const BfTransactionProperties *properties = options->properties;
    const bool grouped =
        properties != NULL &&
        properties->completion_mode == BF_ACTION_COMPLETION_MODE_GROUPED;
    g_autoptr(BfJobTxn) txn = grouped ? bf_job_txn_new() : NULL;
    g_autofree Prepared *prepared = g_new0(Prepared, actions->len + 1);
    const Transaction transaction = {graph, jobs, txn};
    bool ok = false;

    bf_assert_main();
    if (co_open_targets(graph, actions, prepared, error)) {
        bf_graph_co_section_begin(graph);
        ok = co_do_all(&transaction, actions, prepared, error);
        bf_graph_co_section_end(graph);
    }
    for (size_t i = 0; i < actions->len; i++) {
        if (prepared[i].target != NULL) {
            bf_graph_co_release_hidden(graph, prepared[i].target);
        }
    }
    return ok;
}
