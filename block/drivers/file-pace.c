/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A slow inline write has waited for the disk (the kernel makes writers wait
 * for it), or for another write, as a file takes one at a time, or has only
 * lost the processor to other programs. Only the first is a reason to leave
 * writes to other threads, which costs more.
 *
 * To tell them apart costs as well, so it is done only for a while after a slow
 * write. A write that had to stand in line has the file from when the one
 * before it has ended: only the time from then on counts, and one wait is not
 * its own. When other threads write, nobody knows when theirs end; a disk is
 * slower than the few of them that can be in front.
 */
#include "file-pace-private.h"

#include <glib.h>

/* For so long it is looked at why inline writes are slow. */
#define SUSPECT_NS BF_NS_PER_SEC
/* The kernel makes writers wait: for so long others do it. */
#define PAUSE_NS (100 * BF_NS_PER_MS)

/* What is slow while other threads write. */
#define CROWDED_SLOW_NS (20 * BF_NS_PER_MS)

void
bf_file_pace_judge(BfFilePace *pace, const BfFileTurn *turn, uint64_t now_ns,
                   long waits)
{
    uint64_t begun_ns =
        CLAMP(bf_atomic_load(&pace->ended_ns), turn->start_ns, now_ns);
    bool in_line = begun_ns > turn->start_ns || turn->is_crowded;
    uint64_t limit_ns =
        turn->is_crowded ? CROWDED_SLOW_NS : BF_FILE_PACE_SLOW_NS;

    if (now_ns - begun_ns <= limit_ns) {
        return;
    }
    bf_atomic_store(&pace->suspect_until_ns, now_ns + SUSPECT_NS);
    if (turn->watch && waits > (in_line ? 1 : 0)) {
        bf_atomic_store(&pace->slow_until_ns, now_ns + PAUSE_NS);
    }
}
