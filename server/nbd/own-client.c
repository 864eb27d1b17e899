/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nodes of this daemon that are clients of its own server. That is of use, but
 * a node behind its own export would wait for itself for ever.
 */
#include "core/error.h"
#include "nbd-private.h"

BfNode *
bf_nbd_server_find_exported(BfNbdServer *server, const char *name)
{
    const BfNbdExport *exp = bf_nbd_server_find(
        server, (BfNbdString){.data = name, .len = strlen(name)});

    return exp != NULL && exp->base.root != NULL
               ? bf_root_node_to_be(exp->base.root)
               : NULL;
}

bool
bf_nbd_server_check_own_client(BfNbdServer *server, BfNode *node, int fd,
                               const char *name, bool *ret_own, GError **error)
{
    BfNode *exported = NULL;

    bf_assert_main();
    if (!bf_nbd_listeners_lead_to(server, fd)) {
        return true;
    }
    *ret_own = true;
    if (server->held) {
        bf_set_error(error,
                     "the NBD server at this address is this daemon, which "
                     "serves clients only when its start is complete; add "
                     "the node by blockdev-add over QMP");
        return false;
    }
    exported = bf_nbd_server_find_exported(server, name);
    if (exported != NULL && bf_node_leads_to(exported, node)) {
        bf_set_error(error,
                     "the NBD server at this address is this daemon, and node "
                     "'%s' behind its export '%s' leads back to node '%s', "
                     "which would wait for itself",
                     bf_node_name(exported), name, bf_node_name(node));
        return false;
    }
    return true;
}
