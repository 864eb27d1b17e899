/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Notices of quorum nodes as QMP events.
 */
#include "qmp/event.h"
#include "qmp/monitors-private.h"
#include "qmp/monitors.h"

static void
bad(void *opaque, BfQuorumOpType type, const char *error, const char *child,
    uint64_t sector, uint64_t count)
{
    bf_monitors_emit(opaque, BF_EVENT_QUORUM_REPORT_BAD,
                     bf_event_build_quorum_report_bad(
                         type, error, child, (int64_t)sector, (int64_t)count));
}

static void
failure(void *opaque, const char *node, uint64_t sector, uint64_t count)
{
    bf_monitors_emit(
        opaque, BF_EVENT_QUORUM_FAILURE,
        bf_event_build_quorum_failure(node, (int64_t)sector, (int64_t)count));
}

const BfQuorumEvents *
bf_monitors_quorum_events(void)
{
    static const BfQuorumEvents events = {.bad = bad, .failure = failure};

    return &events;
}
