/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Notices of nodes as QMP events.
 */
#include "qmp/event.h"
#include "qmp/monitors-private.h"
#include "qmp/monitors.h"

static void
quorum_bad(void *opaque, BfQuorumOpType type, const char *error,
           const char *child, uint64_t sector, uint64_t count)
{
    bf_monitors_emit(opaque, BF_EVENT_QUORUM_REPORT_BAD,
                     bf_event_build_quorum_report_bad(
                         type, error, child, (int64_t)sector, (int64_t)count));
}

static void
quorum_failure(void *opaque, const char *node, uint64_t sector, uint64_t count)
{
    bf_monitors_emit(
        opaque, BF_EVENT_QUORUM_FAILURE,
        bf_event_build_quorum_failure(node, (int64_t)sector, (int64_t)count));
}

static void
write_threshold(void *opaque, const char *node, uint64_t exceeded,
                uint64_t threshold)
{
    bf_monitors_emit(
        opaque, BF_EVENT_BLOCK_WRITE_THRESHOLD,
        bf_event_build_block_write_threshold(node, exceeded, threshold));
}

const BfNodeEvents *
bf_monitors_node_events(void)
{
    static const BfNodeEvents events = {
        .quorum_bad = quorum_bad,
        .quorum_failure = quorum_failure,
        .write_threshold = write_threshold,
    };

    return &events;
}
