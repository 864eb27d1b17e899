/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Notices about TLS credentials as QMP events.
 */
#include "qmp/event.h"
#include "qmp/monitors-private.h"
#include "qmp/monitors.h"

static void
expiring(void *opaque, const char *id, int days,
         const BfTlsCertificateInfo *cert)
{
    bf_monitors_emit(
        opaque, BF_EVENT_TLS_CREDS_EXPIRING,
        bf_event_build_tls_creds_expiring(id, days, cert->days_left, cert->file,
                                          cert->subject, cert->valid_until));
}

const BfTlsEvents *
bf_monitors_tls_events(void)
{
    static const BfTlsEvents events = {.expiring = expiring};

    return &events;
}
