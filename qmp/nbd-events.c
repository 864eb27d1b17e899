/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Notices of the NBD server as QMP events.
 */
#include "qmp/event.h"
#include "qmp/monitors-private.h"
#include "qmp/monitors.h"

static void
rejected(void *opaque, const BfNbdRejection *rejection)
{
    bf_monitors_emit(opaque, BF_EVENT_NBD_CLIENT_REJECTED,
                     bf_event_build_nbd_client_rejected(
                         rejection->reason, rejection->peer,
                         rejection->connection, rejection->stage,
                         rejection->name, rejection->export_name,
                         rejection->message));
}

const BfNbdEvents *
bf_monitors_nbd_events(void)
{
    static const BfNbdEvents events = {.rejected = rejected};

    return &events;
}
