/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The name that a peer has proved to have: the one thing that authorization may
 * rely on.
 */
#include "tls-private.h"

#include "core/error.h"

const char *
bf_tls_session_get_identity(const BfTlsSession *session)
{
    /* Without verification the name is what the peer likes to be called. */
    if (session->state != BF_TLS_STATE_READY || !session->creds->verify_peer) {
        return NULL;
    }
    return session->peer_dn;
}

bool
bf_tls_creds_check_identity(const BfTlsCreds *creds, GError **error)
{
    if (bf_tls_creds_get_verify_peer(creds)) {
        return true;
    }
    bf_set_error(error, "a client of these credentials proves no name, because "
                        "they have verify-peer=off or are anonymous; make them "
                        "with verify-peer=on");
    return false;
}
