/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the sources of the block layer share: the graph, its edges and roots,
 * plans and drains. All of it belongs to main, but for the part of a handle
 * that says so.
 */
#pragma once

#include "block/driver.h"
#include "block/graph.h"
#include "block/handle.h"
#include "core/atomic.h"
#include "core/co-io.h"
#include "core/registry.h"

/* Longest node name, bytes. */
#define NODE_NAME_MAX 31

/* Deepest tree of nodes; opening and planning recurse. */
#define TREE_DEPTH_MAX 32

/* Most nodes of a tree, where one counts as often as it is reached. */
#define TREE_NODES_MAX 4096

/* Bitmaps of a node that users make. */
#define BITMAPS_MAX 65535

/* How long a drain waits for requests under way. */
#define DRAIN_LIMIT_NS (10 * BF_NS_PER_SEC)

/*
 * A link from a parent to a child. @child is what the control plane has
 * planned; *@slot is what the data plane follows, and changes at the commit.
 */
struct BfEdge {
    char *name;     /* owned */
    BfNode *parent; /* borrowed; NULL if the parent is a root */
    BfRoot *root;   /* borrowed; NULL if the parent is a node */
    BfNode *child;  /* borrowed */
    BfNode *next;   /* borrowed: after a reopen under way; else NULL */
    BfNode **slot;
    unsigned perm;
    unsigned shared;
    unsigned perm_plan;
    unsigned shared_plan;
    uint64_t size_seen; /* of the child, when the parent was opened */
};

typedef struct BfDrain BfDrain;

/* Several changes as one; see section.c. */
typedef struct BfSection BfSection;

struct BfGraph {
    BfGraphConfig config;
    BfLoop *main_loop;
    BfRegistry *names;  /* every node, from when its name is reserved */
    GPtrArray *nodes;   /* borrowed: those in the graph, oldest first */
    GPtrArray *roots;   /* borrowed */
    GPtrArray *hurries; /* borrowed: of bf_drain_hurry_begin() */
    BfCoMutex change;   /* held from plan to resume */
    BfDrain *drain;     /* the one under way, or NULL */
    BfSection *section; /* the one under way, or NULL */
    bool exempting;     /* some roots are exempt from its drain */
    unsigned next_home;
    unsigned auto_names;
    unsigned marks;
    bool stopping;      /* the daemon ends */
    BfCoQueue worked;   /* waits for BfNode.work to become 0 */
    unsigned leaving;   /* nodes that are being closed */
    BfCoQueue left;     /* waits for leaving to become 0 */
    BfAtomicU64 losses; /* any thread: counts bf_node_note_loss() */
};

struct BfRoot {
    BfGraph *graph;
    BfNode *node; /* the slot of its edge; changes while drained */
    BfEdge edge;
    char *description;
    char *job_id; /* (nullable): owned: of the job whose root it is */
    char *role;   /* (nullable): owned: what the node is to that job */
    bool fixed;   /* stays when its node is replaced */
    bool inner;   /* others' requests may wait for its own: drained last */
    bool exempt;  /* not drained now: a hand-over under way is its job's */
    GPtrArray *handles;
    BfIoStats freed;     /* of handles that are gone */
    bool allow_inactive; /* may be cut off from its node */
    GPtrArray *hurried;  /* of bf_drain_hurry_begin(), or NULL */
    bool drained;
    bool aborted;
};

typedef enum ParkState {
    PARK_NONE,
    PARK_ASKED,
    PARK_DONE,
} ParkState;

typedef enum RequestKind {
    REQUEST_READ,
    REQUEST_WRITE,
    REQUEST_WRITE_ZEROES,
    REQUEST_DISCARD,
    REQUEST_FLUSH,
    REQUEST_EXTENTS,
    REQUEST_CACHE,
    REQUEST_READ_PIPE,
    REQUEST_WRITE_PIPE,
} RequestKind;

/* One request of a handle; on the stack of its coroutine. */
typedef struct BfRequest {
    struct BfRequest *older;
    struct BfRequest *newer;
    RequestKind kind;
    BfIoFlags flags;
    uint64_t offset;
    uint64_t bytes;
    BfNode *node;
    union {
        BfIoVec *vec;
        BfExtents *extents;
        int pipe_fd;
    } u;
    int ret;
} BfRequest;

/* BfIoStats of one handle: its loop writes, main reads. */
typedef struct BfHandleStats {
    BfAtomicU64 read_ops, read_bytes;
    BfAtomicU64 write_ops, write_bytes;
    BfAtomicU64 zero_ops, zero_bytes;
    BfAtomicU64 discard_ops, discard_bytes;
    BfAtomicU64 flush_ops;
    BfAtomicU64 failed_ops;
    BfAtomicU64 last_change_ns, last_flush_ns;
} BfHandleStats;

struct BfHandle {
    BfRoot *root; /* constant */
    BfLoop *loop; /* constant */

    /* Copies of what the root has; set while drained. */
    BfNode *node;
    uint64_t size;
    BfLimits limits;
    unsigned perm;
    bool reads_away;
    bool writes_away;

    /* Belong to @loop. */
    bool parked;
    bool aborted;
    bool report_parked; /* main waits for the last request under way */
    unsigned in_flight;
    unsigned waiting;  /* requests that are parked */
    BfRequest *oldest; /* of those in flight */
    BfRequest *newest;
    BfCoQueue parking;
    BfCoQueue idle;  /* who waits for in_flight and waiting to become 0 */
    uint64_t elders; /* requests that have left as the oldest one */
    BfCoQueue elder_left;
    uint64_t last_loss; /* of its node, at the last flush */
    BfHandleStats stats;

    /* Belong to main. */
    ParkState park;
    BfWaitGroup messages; /* under way between main and @loop */
};

/* handle.c: messages of a drain; on main. */
void bf_handle_ask_park(BfHandle *handle);
void bf_handle_ask_resume(BfHandle *handle);
void bf_handle_co_cancel_park(BfHandle *handle, char **ret_oldest);

/* Waits until the oldest request is over. The caller has counted a message,
 * which keeps @handle, and which is given back. */
void bf_handle_co_outlast_oldest(BfHandle *handle);

/* drain.c: one at a time; the caller holds graph->change. */
struct BfDrain {
    BfGraph *graph;
    GPtrArray *roots; /* borrowed */
    GPtrArray *nodes; /* borrowed: those whose drivers stop work of their own */
    const char *name; /* borrowed: of the first node, for traces */
    unsigned waiting; /* handles that have not reported yet */
    bool nested;      /* all is the section's */
    bool expired;
    BfTimer timer;
    BfCoQueue queue;
};

/* Drains every root that reaches one of @nodes or what is linked with it. In a
 * section that lasts until the section's end. */
bool bf_drain_co_begin(BfDrain *drain, BfGraph *graph, GPtrArray *nodes,
                       GError **error);
void bf_drain_co_end(BfDrain *drain);
void bf_drain_note_parked(BfDrain *drain);
/* The two parts of bf_drain_co_begin(); the second may be called again. When
 * it fails, bf_drain_co_end() is still due. */
void bf_drain_init(BfDrain *drain, BfGraph *graph);
bool bf_drain_co_add(BfDrain *drain, GPtrArray *nodes, GError **error);

/* section.c: the graph's mutex, which nests for who has begun a section. */
void bf_graph_co_lock(BfGraph *graph);
void bf_graph_unlock(BfGraph *graph);
/* The drain of the section that the caller is in, or NULL. The caller holds
 * the mutex. */
BfDrain *bf_section_drain(BfGraph *graph);
/* A new root of a section's graph is at rest, like all that it may reach. */
void bf_section_add_root(BfRoot *root);
/* What is freed in a section is nothing to resume. */
void bf_section_forget_root(BfRoot *root);
void bf_section_co_forget_node(BfNode *node);

/* Lets the requests that drivers keep waiting below @node go on, until the
 * end is called with what this returns (transfer full). */
GPtrArray *bf_drain_hurry_begin(BfNode *node);
void bf_drain_hurry_end(BfGraph *graph, GPtrArray *nodes);
/* A node that is closed meanwhile is told that it is over. */
void bf_drain_forget_hurried(BfNode *node);

/* bf_node_begin_work() and bf_node_end_work() of who is on main already. */
void bf_drain_begin_work(void *node);
void bf_drain_end_work(void *node);
/* Waits until nothing is going on in @nodes, which are used by nobody and not
 * found any more, that outlives its request. The mutex is given up meanwhile,
 * but by a section, whose nodes are at rest. */
void bf_drain_co_end_work(BfGraph *graph, const GPtrArray *nodes);

/*
 * plan.c: a change of edges and permissions. The caller holds graph->change.
 * Moves are made at once in the edges (nobody else reads them); commit makes
 * them true for the data plane, abort takes them back.
 */
typedef struct BfPlan {
    BfGraph *graph;
    GPtrArray *moves; /* PlanMove, owned */
    GPtrArray *nodes; /* borrowed: nodes to be drained */
    bool needs_drain;
    bool drained;
    bool is_drained_already; /* by the caller, all that is concerned */
    BfDrain drain;
} BfPlan;

void bf_plan_init(BfPlan *plan, BfGraph *graph);
/* Not after commit or abort, which do it. */
void bf_plan_clear(BfPlan *plan);
/* Points @edge to @child; NULL unlinks it. */
void bf_plan_move(BfPlan *plan, BfEdge *edge, BfNode *child);
/* The node's data plane changes at the commit, so it must be drained. */
void bf_plan_touch(BfPlan *plan, BfNode *node);
/* Checks, asks the drivers, drains if need be. On failure it has aborted. */
bool bf_plan_co_prepare(BfPlan *plan, GError **error);
/* Takes everything back and resumes. */
void bf_plan_co_abort(BfPlan *plan);
/* Makes it true; drained until bf_plan_co_finish(). */
void bf_plan_co_commit(BfPlan *plan);
/* Resumes. */
void bf_plan_co_finish(BfPlan *plan);
/* For changes that cannot fail: gives permissions or links back. */
void bf_plan_co_release(BfPlan *plan);
/* (transfer full): who has @edge, for messages: "node 'x'", "export 'e'". */
char *bf_edge_user_text(const BfEdge *edge);

/* graph.c: BfNode.pins keeps the memory and the name of a node, but not its
 * place in the graph: who has waited for the mutex checks that it is there. */
bool bf_node_check_there(const BfNode *node, GError **error);
/* Closes the node if nobody needs it any more; takes the mutex for that. */
void bf_node_co_unpin(BfNode *node);

/* active.c */
bool bf_node_has_active_parent(const BfNode *node);

/* node.c */
BfNode *bf_node_new(BfGraph *graph, const BfDriver *driver, const char *name,
                    GError **error);
/* Links @node to nobody yet; bf_plan_move() does. */
BfEdge *bf_node_add_edge(BfNode *node, const char *name, BfNode **slot);
BfEdge *bf_node_find_edge(const BfNode *node, const char *name);
/* Without edges any more; the caller has unregistered it. */
void bf_node_co_close(BfNode *node);
/* Does @node need itself, if need be as a client of our own server? */
bool bf_node_needs_itself(BfNode *node);
void bf_node_free(BfNode *node);
/* Recomputes what @node and its ancestors get from their children. */
void bf_node_refresh_up(BfNode *node);
void bf_node_effective_settings(const BfBlockdevOptions *options,
                                const BfNodeSettings *parent,
                                BfNodeSettings *ret_settings);
bool bf_node_check_settings(const BfNodeSettings *settings, GError **error);

/* reopen.c: do the users to be of @node allow its size to be? */
bool bf_node_check_planned_size(const BfNode *node, GError **error);

/* node-bitmap.c: of a node at rest, or to look at on main. */
/* Puts @bitmap on the list, at index @position. */
void bf_node_attach_bitmap(BfNode *node, BfBitmap *bitmap, unsigned position);
/* Takes it off and returns its index. */
unsigned bf_node_detach_bitmap(BfNode *node, const BfBitmap *bitmap);

/* options.c */
/* The member of @options that gives the child @name, or NULL. */
const BfBlockdevRef *bf_options_child_ref(const BfBlockdevOptions *options,
                                          const char *name);
/* Forgets the elements of all lists of references. */
void bf_options_clear_children(BfBlockdevOptions *options);
/* Takes @ref over as the child @name; "NAME.N" is one more of a list. */
void bf_options_set_child(BfBlockdevOptions *options, const char *name,
                          BfBlockdevRef *ref);
/* Are the driver's own options the same, but for references? */
bool bf_options_check_same(const BfBlockdevOptions *old_options,
                           const BfBlockdevOptions *new_options,
                           GError **error);
/* Appends the options that make @node, as one line of JSON. */
void bf_options_append_json(const BfNode *node, GString *text);

/* graph.c: takes @top, and what only it holds, out of the graph and closes it.
 * The caller holds graph->change, which is free afterwards. */
void bf_graph_co_close_orphan(BfGraph *graph, BfNode *top);
