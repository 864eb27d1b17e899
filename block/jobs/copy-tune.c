/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How many operations a copy has under way at once. As long as each takes no
 * longer than the quickest did, the path to the target, be it a disk or a
 * network far away, has room for more, and their number doubles. When they take
 * twice as long, half of them wait in queues: that is enough to keep the path
 * full.
 *
 * A path far away would be empty for many of its round trips if their number
 * were looked at only when that many have ended. So at first each that ends
 * soon makes room for one more, until one takes twice as long.
 */
#include "copy-tune-private.h"

#include <glib.h>

#include "core/util.h"

#define DEPTH_MIN 16
#define DEPTH_START 32
#define DEPTH_MAX 512

/* Shortest time that tells something. */
#define WINDOW_NS (10 * BF_NS_PER_MS)

/* Paths change, and where there is always a queue nothing is quick: so often
 * the number goes down for a moment, to see what one takes without a queue. */
#define PROBE_EVERY_NS (10 * BF_NS_PER_SEC)
#define PROBE_DEPTH 4

void
bf_copy_tune_init(BfCopyTune *tune)
{
    *tune = (BfCopyTune){
        .depth = DEPTH_START,
        .quickest_ns = UINT64_MAX,
        .is_starting = true,
    };
}

static void
begin_window(BfCopyTune *tune, uint64_t now_ns)
{
    tune->since_ns = now_ns;
    tune->ended = 0;
    tune->took_ns = 0;
    tune->was_full = false;
}

/* First those end that were there before, then those that had no queue. */
static void
probe_ended(BfCopyTune *tune, uint64_t took_ns, uint64_t now_ns)
{
    if (tune->probe_left == PROBE_DEPTH) {
        tune->quickest_ns = UINT64_MAX;
    }
    tune->quickest_ns = MIN(tune->quickest_ns, took_ns);
    if (--tune->probe_left == 0) {
        tune->depth = tune->probe_before;
        tune->probed_ns = now_ns;
        begin_window(tune, now_ns);
    }
}

/* Each of those that were under way when there was no room counts once. Returns
 * false when the start is over. */
static bool
start_ended(BfCopyTune *tune, uint64_t took_ns, uint64_t now_ns)
{
    if (tune->was_full) {
        tune->was_full = false;
        tune->start_left = tune->depth;
    }
    if (tune->start_left == 0) {
        return true;
    }
    if (tune->depth == DEPTH_MAX || took_ns >= 2 * tune->quickest_ns) {
        tune->is_starting = false;
        begin_window(tune, now_ns);
        return false;
    }
    tune->start_left--;
    tune->depth++;
    return true;
}

static unsigned
next_depth(const BfCopyTune *tune)
{
    double mean_ns = (double)tune->took_ns / tune->ended;
    double depth = 2.0 * tune->depth * (double)tune->quickest_ns / mean_ns;

    return (unsigned)CLAMP(depth, (double)DEPTH_MIN, (double)DEPTH_MAX);
}

void
bf_copy_tune_ended(BfCopyTune *tune, uint64_t took_ns, uint64_t now_ns)
{
    if (tune->probe_left > 0) {
        probe_ended(tune, took_ns, now_ns);
        return;
    }
    tune->quickest_ns = MIN(tune->quickest_ns, took_ns);
    if (tune->is_starting && start_ended(tune, took_ns, now_ns)) {
        return;
    }
    tune->took_ns += took_ns;
    if (++tune->ended < tune->depth || now_ns - tune->since_ns < WINDOW_NS) {
        return;
    }
    if (tune->was_full) {
        tune->depth = next_depth(tune);
    }
    begin_window(tune, now_ns);
    if (tune->probed_ns == 0) {
        tune->probed_ns = now_ns;
    } else if (now_ns - tune->probed_ns > PROBE_EVERY_NS) {
        tune->probe_before = tune->depth;
        tune->probe_left = tune->depth + PROBE_DEPTH;
        tune->depth = PROBE_DEPTH;
    }
}
