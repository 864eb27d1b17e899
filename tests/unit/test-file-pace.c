/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When loops write to the page cache themselves: what slow writes say about the
 * storage, in made-up times.
 */
#include <glib.h>

#include "../../block/drivers/file-pace-private.h"

#define START_NS (1000 * BF_NS_PER_SEC)

/* A write of @ms from @now_ns on, in which its thread waited so often. */
static void
write_for(BfFilePace *pace, uint64_t now_ns, uint64_t ms, long waits)
{
    BfFileTurn turn = bf_file_pace_begin(pace, now_ns);
    uint64_t end_ns = now_ns + ms * BF_NS_PER_MS;

    if (bf_file_pace_is_slow(&turn, end_ns)) {
        bf_file_pace_judge(pace, &turn, end_ns, turn.watch ? waits : 0);
    }
    bf_file_pace_note_end(pace, end_ns);
}

static bool
is_paused_at(const BfFilePace *pace, uint64_t now_ns)
{
    return !bf_file_pace_allows(pace, now_ns);
}

static void
test_slow_disk_is_left_to_others_for_a_while(void)
{
    BfFilePace pace = {0};

    write_for(&pace, START_NS, 50, 1);
    g_assert_false(is_paused_at(&pace, START_NS + 51 * BF_NS_PER_MS));
    write_for(&pace, START_NS + 60 * BF_NS_PER_MS, 50, 1);
    g_assert_true(is_paused_at(&pace, START_NS + 111 * BF_NS_PER_MS));
    g_assert_false(is_paused_at(&pace, START_NS + 400 * BF_NS_PER_MS));
}

static void
test_lost_processor_is_no_reason(void)
{
    BfFilePace pace = {0};

    for (unsigned i = 0; i < 100; i++) {
        write_for(&pace, START_NS + i * 20 * BF_NS_PER_MS, 10, 0);
    }
    g_assert_false(is_paused_at(&pace, START_NS + 2000 * BF_NS_PER_MS));
}

static void
test_quick_writes_are_not_judged(void)
{
    BfFilePace pace = {0};

    write_for(&pace, START_NS, 2, 9);
    write_for(&pace, START_NS + 3 * BF_NS_PER_MS, 2, 9);
    g_assert_false(is_paused_at(&pace, START_NS + 6 * BF_NS_PER_MS));
    g_assert_cmpuint(bf_atomic_load(&pace.suspect_until_ns), ==, 0);
}

/* Two threads write by turns: each begins while the other has the file. */
static void
write_in_line(BfFilePace *pace, uint64_t ms, long waits)
{
    uint64_t now_ns = START_NS;
    BfFileTurn turn = bf_file_pace_begin(pace, now_ns);

    for (unsigned i = 0; i < 100; i++) {
        uint64_t end_ns = now_ns + ms * BF_NS_PER_MS;
        BfFileTurn next = bf_file_pace_begin(pace, now_ns + BF_NS_PER_MS / 10);

        if (bf_file_pace_is_slow(&turn, end_ns)) {
            bf_file_pace_judge(pace, &turn, end_ns, waits);
        }
        bf_file_pace_note_end(pace, end_ns);
        turn = next;
        now_ns = end_ns;
    }
}

static void
test_wait_for_another_write_is_no_reason(void)
{
    BfFilePace pace = {0};

    /* Each takes 2 ms of its own, and as long as that to get there. */
    write_in_line(&pace, 2, 5);
    g_assert_cmpuint(bf_atomic_load(&pace.suspect_until_ns), ==, 0);
    /* They lose the processor, too; one wait is that for the other. */
    write_in_line(&pace, 5, 1);
    g_assert_cmpuint(bf_atomic_load(&pace.suspect_until_ns), >, 0);
    g_assert_cmpuint(bf_atomic_load(&pace.slow_until_ns), ==, 0);
}

static void
test_slow_disk_is_seen_in_line(void)
{
    BfFilePace pace = {0};

    write_in_line(&pace, 5, 2);
    g_assert_cmpuint(bf_atomic_load(&pace.slow_until_ns), >, 0);
}

/* Other threads have the file meanwhile; nobody knows how long. */
static void
test_crowd_is_no_reason_but_a_slow_disk_is(void)
{
    BfFilePace pace = {0};

    bf_atomic_add(&pace.elsewhere, 2);
    for (unsigned i = 0; i < 10; i++) {
        write_for(&pace, START_NS + i * 30 * BF_NS_PER_MS, 20, 9);
    }
    g_assert_false(is_paused_at(&pace, START_NS + 300 * BF_NS_PER_MS));
    write_for(&pace, START_NS + 300 * BF_NS_PER_MS, 21, 2);
    write_for(&pace, START_NS + 330 * BF_NS_PER_MS, 21, 1);
    g_assert_false(is_paused_at(&pace, START_NS + 352 * BF_NS_PER_MS));
    write_for(&pace, START_NS + 360 * BF_NS_PER_MS, 21, 2);
    g_assert_true(is_paused_at(&pace, START_NS + 382 * BF_NS_PER_MS));
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/block/file-pace/slow-disk-is-left-to-others-for-a-while",
                    test_slow_disk_is_left_to_others_for_a_while);
    g_test_add_func("/block/file-pace/lost-processor-is-no-reason",
                    test_lost_processor_is_no_reason);
    g_test_add_func("/block/file-pace/quick-writes-are-not-judged",
                    test_quick_writes_are_not_judged);
    g_test_add_func("/block/file-pace/wait-for-another-write-is-no-reason",
                    test_wait_for_another_write_is_no_reason);
    g_test_add_func("/block/file-pace/slow-disk-is-seen-in-line",
                    test_slow_disk_is_seen_in_line);
    g_test_add_func("/block/file-pace/crowd-is-no-reason-but-a-slow-disk-is",
                    test_crowd_is_no_reason_but_a_slow_disk_is);
    return g_test_run();
}
