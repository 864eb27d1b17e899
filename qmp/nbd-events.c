/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Notices of the NBD server as QMP events. They can be so many that they are
 * not even made where nobody hears of them.
 */
#include "qmp/event.h"
#include "qmp/monitors-private.h"
#include "qmp/monitors.h"

static void
rejected(void *opaque, const BfNbdRejection *rejection)
{
    if (!bf_monitors_have_clients(opaque)) {
        return;
    }
    bf_monitors_emit(opaque, BF_EVENT_NBD_CLIENT_REJECTED,
                     bf_event_build_nbd_client_rejected(
                         rejection->reason, rejection->peer,
                         rejection->connection, rejection->stage,
                         rejection->name, rejection->export_name,
                         rejection->message));
}

static void
connected(void *opaque, const BfNbdArrival *arrival)
{
    if (!bf_monitors_have_clients(opaque)) {
        return;
    }
    bf_monitors_emit(opaque, BF_EVENT_NBD_CLIENT_CONNECTED,
                     bf_event_build_nbd_client_connected(
                         arrival->connection, arrival->peer, arrival->export_id,
                         arrival->tls, arrival->clients));
}

static void
disconnected(void *opaque, const BfNbdDeparture *departure)
{
    if (!bf_monitors_have_clients(opaque)) {
        return;
    }
    bf_monitors_emit(opaque, BF_EVENT_NBD_CLIENT_DISCONNECTED,
                     bf_event_build_nbd_client_disconnected(
                         departure->connection, departure->peer,
                         departure->export_id, departure->name,
                         departure->reason, departure->message,
                         departure->duration_ns, departure->requests,
                         departure->failed_requests, departure->clients));
}

const BfNbdEvents *
bf_monitors_nbd_events(void)
{
    static const BfNbdEvents events = {
        .rejected = rejected,
        .connected = connected,
        .disconnected = disconnected,
    };

    return &events;
}
