/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether a loop may write to a file's page cache itself, told from how long
 * such writes took. Any thread; none suspends.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/atomic.h"
#include "core/util.h"

/* An inline write that takes longer than this is suspicious. */
#define BF_FILE_PACE_SLOW_NS (2 * BF_NS_PER_MS)

/* How exactly the end of the last write is known. */
#define BF_FILE_PACE_GRAIN_NS (BF_NS_PER_MS / 4)

/**
 * BfFilePace: what was seen of a file's inline writes; all zero is fine
 * @suspect_until_ns: one was slow a while ago
 * @slow_until_ns: none before this time
 * @ended_ns: when one of them ended last, or up to %BF_FILE_PACE_GRAIN_NS
 *     before
 * @elsewhere: writes to the file that other threads do for us now
 */
typedef struct BfFilePace {
    BfAtomicU64 suspect_until_ns;
    BfAtomicU64 slow_until_ns;
    BfAtomicU64 ended_ns;
    BfAtomicU64 elsewhere;
} BfFilePace;

/**
 * BfFileTurn: an inline write
 * @start_ns: when it began
 * @watch: whoever writes counts how often it waits
 * @is_crowded: other threads were writing, too
 */
typedef struct BfFileTurn {
    uint64_t start_ns;
    bool watch;
    bool is_crowded;
} BfFileTurn;

/**
 * bf_file_pace_allows:
 * @pace: of the file
 * @now_ns: the time
 *
 * Returns: true if a loop may write
 */
static inline bool
bf_file_pace_allows(const BfFilePace *pace, uint64_t now_ns)
{
    return now_ns >= bf_atomic_load(&pace->slow_until_ns);
}

/**
 * bf_file_pace_begin:
 * @pace: of the file
 * @now_ns: the time
 *
 * Returns: a write that begins
 */
static inline BfFileTurn
bf_file_pace_begin(const BfFilePace *pace, uint64_t now_ns)
{
    const bool watch = now_ns < bf_atomic_load(&pace->suspect_until_ns);
    const bool is_crowded = bf_atomic_load(&pace->elsewhere) > 0;

    return (BfFileTurn){
        .start_ns = now_ns,
        .watch = watch,
        .is_crowded = is_crowded,
    };
}

/**
 * bf_file_pace_is_slow:
 * @turn: a write that has ended
 * @now_ns: the time
 *
 * Returns: true if it is to be judged
 */
static inline bool
bf_file_pace_is_slow(const BfFileTurn *turn, uint64_t now_ns)
{
    return now_ns - turn->start_ns > BF_FILE_PACE_SLOW_NS;
}

/**
 * bf_file_pace_judge:
 * @pace: of the file
 * @turn: a slow write, whose end was not noted yet
 * @now_ns: when it ended
 * @waits: how often its thread has given up the processor in order to wait; 0
 *     if nobody counted
 *
 * Finds out whether the storage was the reason.
 */
void bf_file_pace_judge(BfFilePace *pace, const BfFileTurn *turn,
                        uint64_t now_ns, long waits);

/**
 * bf_file_pace_note_end:
 * @pace: of the file
 * @now_ns: when a write ended
 */
static inline void
bf_file_pace_note_end(BfFilePace *pace, uint64_t now_ns)
{
    if (now_ns > bf_atomic_load(&pace->ended_ns) + BF_FILE_PACE_GRAIN_NS) {
        bf_atomic_store(&pace->ended_ns, now_ns);
    }
}
