/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Write thresholds: a user wants to know, once, that a write has gone beyond an
 * offset. The loop whose write takes the threshold away tells main.
 */
#include "block-private.h"
#include "block/graph.h"
#include "stats-private.h"

/* What main is told; owned by the message. */
typedef struct Passed {
    BfGraph *graph;
    char *name;
    uint64_t threshold;
    uint64_t end;
} Passed;

static void
deliver(void *arg)
{
    Passed *passed = arg;
    const BfGraphConfig *config = &passed->graph->config;

    if (config->node_events != NULL) {
        config->node_events->write_threshold(
            config->node_events_opaque, passed->name,
            passed->end - passed->threshold, passed->threshold);
    }
    g_free(passed->name);
    g_free(passed);
}

void
bf_node_pass_write_threshold(BfNode *node, uint64_t end)
{
    uint64_t threshold = bf_atomic_load(&node->write_threshold);
    Passed *passed;

    if (threshold == 0 || end <= threshold ||
        !bf_atomic_replace(&node->write_threshold, threshold, 0)) {
        return; /* another write was first, or the user */
    }
    passed = g_new0(Passed, 1);
    passed->graph = node->graph;
    passed->name = g_strdup(node->name);
    passed->threshold = threshold;
    passed->end = end;
    bf_loop_post(node->graph->main_loop, deliver, passed);
}

void
bf_node_set_write_threshold(BfNode *node, uint64_t offset)
{
    bf_assert_main();
    bf_atomic_store(&node->write_threshold, offset);
}
