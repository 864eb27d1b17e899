/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Plans: a change of edges and permissions, checked as a whole before it is
 * made. Permissions flow from the users down: each node gets what its parents
 * need together, and each parent must share what another one needs.
 *
 * Edges are moved at once, because whoever holds graph->change is their only
 * reader; the data plane follows the slots, which change at the commit.
 */
#include "block-private.h"
#include "core/error.h"
#include "core/util.h"

typedef struct PlanMove {
    BfEdge *edge;
    BfNode *old_child;
} PlanMove;

static const char *const perm_names[] = {
    "consistent read",
    "write",
    "write unchanged",
    "resize",
};

void
bf_plan_init(BfPlan *plan, BfGraph *graph)
{
    *plan = (BfPlan){.graph = graph};
    plan->moves = g_ptr_array_new_with_free_func(g_free);
    plan->nodes = g_ptr_array_new();
}

void
bf_plan_clear(BfPlan *plan)
{
    g_clear_pointer(&plan->moves, g_ptr_array_unref);
    g_clear_pointer(&plan->nodes, g_ptr_array_unref);
}

static void
point_edge(BfEdge *edge, BfNode *child)
{
    if (edge->child != NULL) {
        g_ptr_array_remove(edge->child->parents, edge);
    }
    edge->child = child;
    if (child != NULL) {
        g_ptr_array_add(child->parents, edge);
    }
}

void
bf_plan_touch(BfPlan *plan, BfNode *node)
{
    plan->needs_drain = true;
    g_ptr_array_add(plan->nodes, node);
}

void
bf_plan_move(BfPlan *plan, BfEdge *edge, BfNode *child)
{
    PlanMove *move = g_new0(PlanMove, 1);

    move->edge = edge;
    move->old_child = edge->child;
    g_ptr_array_add(plan->moves, move);
    /* A new edge has nobody above it yet, and one that goes nobody more. */
    if (edge->child != NULL && child != NULL) {
        bf_plan_touch(plan, edge->child);
        bf_plan_touch(plan, child);
        if (edge->parent != NULL) {
            bf_plan_touch(plan, edge->parent);
        }
    }
    point_edge(edge, child);
}

static void
undo_moves(BfPlan *plan)
{
    for (unsigned i = plan->moves->len; i > 0; i--) {
        PlanMove *move = g_ptr_array_index(plan->moves, i - 1);

        point_edge(move->edge, move->old_child);
    }
}

/* False if the tree below @node comes back to @top or is too large; @count is
 * of the nodes seen, each as often as it is reached. */
static bool
check_tree(const BfNode *node, const BfNode *top, unsigned above,
           unsigned *count)
{
    if (node == top || above > TREE_DEPTH_MAX || ++*count > TREE_NODES_MAX) {
        return false;
    }
    for (unsigned i = 0; i < node->edges->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->edges, i);

        if (edge->child != NULL &&
            !check_tree(edge->child, top, above + 1, count)) {
            return false;
        }
    }
    return true;
}

/* The way may lead through our own server, by any link that is moved. */
static bool
check_not_circular(const BfEdge *edge, GError **error)
{
    if (edge->child == NULL || !bf_node_needs_itself(edge->child)) {
        return true;
    }
    bf_set_error(error,
                 "Node '%s' would wait for itself: what it needs leads back to "
                 "it, through a job or an export of this daemon",
                 edge->child->name);
    return false;
}

static bool
check_edge(const BfEdge *edge, GError **error)
{
    const BfNode *parent = edge->parent;
    const BfNode *child = edge->child;
    unsigned count = 0;

    if (parent == NULL || child == NULL) {
        return check_not_circular(edge, error);
    }
    if (!check_tree(child, parent, 1, &count)) {
        bf_set_error(error,
                     "Making '%s' a %s child of '%s' would create a cycle or "
                     "a tree deeper than %u or of more than %u nodes",
                     child->name, edge->name, parent->name, TREE_DEPTH_MAX,
                     TREE_NODES_MAX);
        return false;
    }
    if (parent->active && !child->active) {
        bf_set_error(error, "Inactive '%s' can't be a %s child of active '%s'",
                     child->name, edge->name, parent->name);
        return false;
    }
    return check_not_circular(edge, error);
}

static char *
perm_text(unsigned perm)
{
    GString *text = g_string_new(NULL);

    for (unsigned i = 0; i < G_N_ELEMENTS(perm_names); i++) {
        if ((perm & (1u << i)) != 0) {
            g_string_append_printf(text, "%s%s", text->len > 0 ? ", " : "",
                                   perm_names[i]);
        }
    }
    return g_string_free(text, false);
}

char *
bf_edge_user_text(const BfEdge *edge)
{
    return edge->parent != NULL
               ? g_strdup_printf("node '%s'", edge->parent->name)
               : g_strdup(edge->root->description);
}

static void
set_conflict(const BfNode *node, const BfEdge *needs, const BfEdge *denies,
             GError **error)
{
    g_autofree char *perms = perm_text(needs->perm_plan & ~denies->shared_plan);
    g_autofree char *needs_text = bf_edge_user_text(needs);
    g_autofree char *denies_text = bf_edge_user_text(denies);

    bf_set_error(error,
                 "Permission conflict on node '%s': permissions '%s' are both "
                 "required by %s (uses node '%s' as '%s' child) and unshared "
                 "by %s (uses node '%s' as '%s' child).",
                 node->name, perms, needs_text, node->name, needs->name,
                 denies_text, node->name, denies->name);
}

/* Finds the pair behind a conflict; quadratic, but only for the message. */
static bool
check_pairs(const BfNode *node, GError **error)
{
    for (unsigned i = 0; i < node->parents->len; i++) {
        const BfEdge *denies = g_ptr_array_index(node->parents, i);

        for (unsigned j = 0; j < node->parents->len; j++) {
            const BfEdge *needs = g_ptr_array_index(node->parents, j);

            if (i != j && (needs->perm_plan & ~denies->shared_plan) != 0) {
                set_conflict(node, needs, denies, error);
                return false;
            }
        }
    }
    return true;
}

static bool
check_read_only(const BfNode *node, GError **error)
{
    const unsigned writing = BF_PERM_WRITE | BF_PERM_WRITE_UNCHANGED;

    if ((node->perm_plan & writing) == 0 ||
        !bf_node_settings_to_be(node)->read_only) {
        return true;
    }
    for (unsigned i = 0; i < node->parents->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->parents, i);

        if ((edge->perm_plan & writing) != 0) {
            g_autofree char *user = bf_edge_user_text(edge);

            bf_set_error(error,
                         "Block node '%s' is read-only and cannot support %s, "
                         "which needs to write",
                         node->name, user);
            return false;
        }
    }
    return true;
}

/*
 * Adds up what the parents of @node need, and passes it on to its children.
 * Returns true if these needs exclude each other.
 */
static bool
plan_node(BfNode *node)
{
    unsigned perm = 0;
    unsigned shared = BF_PERM_ALL;
    bool conflict = false;

    for (unsigned i = 0; i < node->parents->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->parents, i);

        conflict |= (perm & ~edge->shared_plan) != 0;
        conflict |= (edge->perm_plan & ~shared) != 0;
        perm |= edge->perm_plan;
        shared &= edge->shared_plan;
    }
    /* An inactive node leaves the image to another process. */
    node->perm_plan = node->active ? perm : 0;
    node->shared_perm_plan = node->active ? shared : BF_PERM_ALL;
    if (bf_node_settings_to_be(node)->force_share) {
        node->shared_perm_plan = BF_PERM_ALL;
    }
    for (unsigned i = 0; i < node->edges->len; i++) {
        BfEdge *edge = g_ptr_array_index(node->edges, i);

        edge->perm_plan = node->perm_plan;
        edge->shared_plan = node->shared_perm_plan;
        if (node->driver->child_perm != NULL) {
            node->driver->child_perm(node, edge->name, &edge->perm_plan,
                                     &edge->shared_plan);
        }
    }
    return conflict;
}

/* With @check the needs of all must go together, else the result is false. */
static bool
plan_permissions(BfPlan *plan, bool check, GError **error)
{
    const GPtrArray *all = plan->graph->nodes;
    g_autoptr(GPtrArray) ready = g_ptr_array_new();

    for (unsigned i = 0; i < all->len; i++) {
        BfNode *node = g_ptr_array_index(all, i);

        node->plan_pending = 0;
        for (unsigned j = 0; j < node->parents->len; j++) {
            const BfEdge *edge = g_ptr_array_index(node->parents, j);

            node->plan_pending += edge->parent != NULL;
        }
        if (node->plan_pending == 0) {
            g_ptr_array_add(ready, node);
        }
    }
    for (unsigned i = 0; i < ready->len; i++) {
        BfNode *node = g_ptr_array_index(ready, i);

        bool conflict = plan_node(node);

        if (check && ((conflict && !check_pairs(node, error)) ||
                      !check_read_only(node, error) ||
                      !bf_node_check_planned_size(node, error))) {
            return false;
        }
        for (unsigned j = 0; j < node->edges->len; j++) {
            const BfEdge *edge = g_ptr_array_index(node->edges, j);

            if (edge->child != NULL && --edge->child->plan_pending == 0) {
                g_ptr_array_add(ready, edge->child);
            }
        }
    }
    return true;
}

static void
co_abort_permissions(BfPlan *plan)
{
    const GPtrArray *all = plan->graph->nodes;

    for (unsigned i = 0; i < all->len; i++) {
        BfNode *node = g_ptr_array_index(all, i);

        if (node->perm_planned) {
            node->driver->co_perm_abort(node);
            node->perm_planned = false;
        }
    }
}

static bool
co_ask_driver(BfPlan *plan, BfNode *node, GError **error)
{
    node->perm_needs_drain = false;
    if (!node->driver->co_perm_prepare(node, node->perm_plan,
                                       node->shared_perm_plan,
                                       &node->perm_needs_drain, error)) {
        return false;
    }
    node->perm_planned = true;
    if (node->perm_needs_drain) {
        bf_plan_touch(plan, node);
    }
    return true;
}

/* The drivers of nodes whose users' needs change take locks. */
static bool
co_ask_drivers(BfPlan *plan, GError **error)
{
    const GPtrArray *all = plan->graph->nodes;

    for (unsigned i = 0; i < all->len; i++) {
        BfNode *node = g_ptr_array_index(all, i);

        if (node->driver->co_perm_prepare != NULL &&
            (node->perm_plan != node->perm ||
             node->shared_perm_plan != node->shared ||
             node->settings_plan != NULL) &&
            !co_ask_driver(plan, node, error)) {
            return false;
        }
    }
    return true;
}

static bool
check_edges(BfPlan *plan, GError **error)
{
    for (unsigned i = 0; i < plan->moves->len; i++) {
        const PlanMove *move = g_ptr_array_index(plan->moves, i);

        if (!check_edge(move->edge, error)) {
            return false;
        }
    }
    return true;
}

/* A link between nodes of two loops makes the nodes of one of them move. */
static void
touch_new_homes(BfPlan *plan)
{
    for (unsigned i = 0; i < plan->moves->len; i++) {
        const PlanMove *move = g_ptr_array_index(plan->moves, i);
        const BfEdge *edge = move->edge;

        if (edge->parent != NULL && edge->child != NULL &&
            edge->parent->home != edge->child->home) {
            bf_plan_touch(plan, edge->parent);
        }
    }
}

bool
bf_plan_co_prepare(BfPlan *plan, GError **error)
{
    bool ok = check_edges(plan, error) && plan_permissions(plan, true, error) &&
              co_ask_drivers(plan, error);

    touch_new_homes(plan);
    if (ok && plan->needs_drain && !plan->is_drained_already) {
        ok = plan->drained =
            bf_drain_co_begin(&plan->drain, plan->graph, plan->nodes, error);
    }
    if (!ok) {
        bf_plan_co_abort(plan);
    }
    return ok;
}

void
bf_plan_co_abort(BfPlan *plan)
{
    if (plan->moves == NULL) {
        return;
    }
    co_abort_permissions(plan);
    undo_moves(plan);
    bf_plan_co_finish(plan);
}

/* Every node that is linked with @node lives on one loop. */
static void
set_home(BfNode *node, BfLoop *home)
{
    if (node == NULL || node->home == home) {
        return;
    }
    node->home = home;
    for (unsigned i = 0; i < node->parents->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->parents, i);

        set_home(edge->parent, home);
    }
    for (unsigned i = 0; i < node->edges->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->edges, i);

        set_home(edge->child, home);
    }
}

static void
commit_move(const PlanMove *move)
{
    BfEdge *edge = move->edge;

    *edge->slot = edge->child;
    if (edge->parent != NULL && edge->child != NULL) {
        set_home(edge->parent, edge->child->home);
        bf_node_refresh_up(edge->parent);
    }
}

static void
co_commit_permissions(BfPlan *plan)
{
    const GPtrArray *all = plan->graph->nodes;

    for (unsigned i = 0; i < all->len; i++) {
        BfNode *node = g_ptr_array_index(all, i);

        node->perm = node->perm_plan;
        node->shared = node->shared_perm_plan;
        for (unsigned j = 0; j < node->edges->len; j++) {
            BfEdge *edge = g_ptr_array_index(node->edges, j);

            edge->perm = edge->perm_plan;
            edge->shared = edge->shared_plan;
        }
    }
    for (unsigned i = 0; i < all->len; i++) {
        BfNode *node = g_ptr_array_index(all, i);

        if (node->perm_planned) {
            node->perm_planned = false;
            node->driver->co_perm_commit(node);
            /* Locks alone change nothing that requests under way look at. */
            if (node->perm_needs_drain) {
                bf_node_refresh_up(node);
            }
        }
    }
}

void
bf_plan_co_commit(BfPlan *plan)
{
    for (unsigned i = 0; i < plan->moves->len; i++) {
        commit_move(g_ptr_array_index(plan->moves, i));
    }
    co_commit_permissions(plan);
}

void
bf_plan_co_finish(BfPlan *plan)
{
    if (plan->drained) {
        plan->drained = false;
        bf_drain_co_end(&plan->drain);
    }
    bf_plan_clear(plan);
}

static void
co_ask_drivers_to_release(BfPlan *plan)
{
    const GPtrArray *all = plan->graph->nodes;

    for (unsigned i = 0; i < all->len; i++) {
        BfNode *node = g_ptr_array_index(all, i);

        if (node->driver->co_perm_prepare != NULL &&
            (node->perm_plan != node->perm ||
             node->shared_perm_plan != node->shared)) {
            co_ask_driver(plan, node, NULL);
        }
    }
}

/* Takes the nodes out of the plan that would have to be at rest and are not. */
static void
leave_out_busy(BfPlan *plan, GPtrArray *busy)
{
    const GPtrArray *all = plan->graph->nodes;

    for (unsigned i = 0; i < all->len; i++) {
        BfNode *node = g_ptr_array_index(all, i);

        if (node->perm_planned && node->perm_needs_drain && !plan->drained) {
            node->perm_planned = false;
            g_ptr_array_add(busy, node);
        }
    }
}

/*
 * Giving back needs nobody's consent. What a driver cannot do now (its node
 * does not come to rest, say) stays as it is until the next change, but for
 * its locks.
 */
void
bf_plan_co_release(BfPlan *plan)
{
    g_autoptr(GPtrArray) busy = g_ptr_array_new();

    plan_permissions(plan, false, NULL);
    co_ask_drivers_to_release(plan);
    if (plan->needs_drain) {
        plan->drained =
            bf_drain_co_begin(&plan->drain, plan->graph, plan->nodes, NULL);
    }
    leave_out_busy(plan, busy);
    bf_plan_co_commit(plan);
    for (unsigned i = 0; i < busy->len; i++) {
        BfNode *node = g_ptr_array_index(busy, i);

        node->driver->co_perm_abort(node);
    }
    bf_plan_co_finish(plan);
}
