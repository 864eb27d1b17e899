/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How many operations a copy has at once, on paths of arithmetic: so many at a
 * time go on, each for so long, and the others wait in a queue.
 */
#include <glib.h>
#include <string.h>

#include "../../block/jobs/copy-tune-private.h"
#include "core/util.h"

#define OPS_MAX 512

typedef struct Path {
    BfCopyTune tune;
    unsigned wide;    /* operations under way */
    uint64_t long_ns; /* what each takes */
    uint64_t now_ns;
    uint64_t begun[OPS_MAX]; /* of those not ended, oldest first */
    unsigned n;
} Path;

static void
path_init(Path *path, unsigned wide, uint64_t long_ns)
{
    *path = (Path){
        .wide = wide, .long_ns = long_ns, .now_ns = 1000 * BF_NS_PER_SEC};
    bf_copy_tune_init(&path->tune);
}

/* One operation ends every @long_ns / @wide, none sooner than in @long_ns. */
static void
path_end_one(Path *path)
{
    while (path->n < path->tune.depth) {
        path->begun[path->n++] = path->now_ns;
        path->tune.was_full = true;
    }
    path->now_ns = MAX(path->now_ns + path->long_ns / path->wide,
                       path->begun[0] + path->long_ns);
    bf_copy_tune_ended(&path->tune, path->now_ns - path->begun[0],
                       path->now_ns);
    path->n--;
    memmove(path->begun, path->begun + 1, path->n * sizeof(path->begun[0]));
}

static void
path_run(Path *path, unsigned ops)
{
    for (unsigned i = 0; i < ops; i++) {
        path_end_one(path);
    }
}

/* A network far away: it becomes full, and its queue not long. */
static void
test_long_path_is_filled(void)
{
    Path path;

    path_init(&path, 64, 50 * BF_NS_PER_MS);
    path_run(&path, 1000);
    for (unsigned i = 0; i < 100000; i++) {
        path_end_one(&path);
        if (path.tune.probe_left == 0) {
            g_assert_cmpuint(path.tune.depth, >=, 64);
            g_assert_cmpuint(path.tune.depth, <=, 256);
        }
    }
    /* As many as can, but for the moments when it looked again. */
    g_assert_cmpuint(path.now_ns - 1000 * BF_NS_PER_SEC, <,
                     UINT64_C(101000) * path.long_ns / 64 / 100 * 103);
}

/* Within a few times that one takes. */
static void
test_long_path_is_filled_soon(void)
{
    Path path;

    path_init(&path, 100000, 50 * BF_NS_PER_MS);
    while (path.tune.depth < OPS_MAX) {
        path_end_one(&path);
    }
    g_assert_cmpuint(path.now_ns - 1000 * BF_NS_PER_SEC, <=, 5 * path.long_ns);
}

/* What is full for a moment says nothing about all that comes then. */
static void
test_start_counts_what_was_under_way(void)
{
    BfCopyTune tune;
    unsigned first;

    bf_copy_tune_init(&tune);
    first = tune.depth;
    tune.was_full = true;
    for (unsigned i = 0; i < 1000; i++) {
        bf_copy_tune_ended(&tune, 50 * BF_NS_PER_MS,
                           (1000 + i) * BF_NS_PER_SEC);
    }
    g_assert_cmpuint(tune.depth, ==, 2 * first);
}

/* Nor does the start last for longer than nothing waits. */
static void
test_start_ends_where_there_is_a_queue(void)
{
    Path path;

    path_init(&path, 20, 50 * BF_NS_PER_MS);
    for (unsigned i = 0; i < 1000; i++) {
        path_end_one(&path);
        g_assert_cmpuint(path.tune.depth, <=, 64);
    }
    g_assert_false(path.tune.is_starting);
}

static void
test_narrow_path_gets_few(void)
{
    Path path;
    unsigned first;

    path_init(&path, 1, BF_NS_PER_MS);
    first = path.tune.depth;
    for (unsigned i = 0; i < 100000; i++) {
        path_end_one(&path);
        g_assert_cmpuint(path.tune.depth, <=, 2 * first);
    }
}

/* What the old path could do is forgotten in the end. */
static void
test_path_that_changes(void)
{
    Path path;
    unsigned first;

    path_init(&path, 2, BF_NS_PER_MS);
    first = path.tune.depth;
    path_run(&path, 1000);
    path.wide = 256;
    path.long_ns = 100 * BF_NS_PER_MS;
    while (path.tune.depth < 256) {
        path_end_one(&path);
        g_assert_cmpuint(path.now_ns, <, 1030 * BF_NS_PER_SEC);
    }
    path.wide = 2;
    path.long_ns = BF_NS_PER_MS;
    path_run(&path, 50000);
    g_assert_cmpuint(path.tune.depth, <=, 2 * first);
}

/* A copy that has nothing to do says nothing about its path. */
static void
test_copy_that_is_not_full_changes_nothing(void)
{
    BfCopyTune tune;
    unsigned first;

    bf_copy_tune_init(&tune);
    first = tune.depth;
    for (unsigned i = 0; i < 1000; i++) {
        bf_copy_tune_ended(&tune, 50 * BF_NS_PER_MS,
                           (1000 + i) * BF_NS_PER_SEC);
    }
    g_assert_cmpuint(tune.depth, ==, first);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/block/copy-tune/long-path-is-filled",
                    test_long_path_is_filled);
    g_test_add_func("/block/copy-tune/long-path-is-filled-soon",
                    test_long_path_is_filled_soon);
    g_test_add_func("/block/copy-tune/start-counts-what-was-under-way",
                    test_start_counts_what_was_under_way);
    g_test_add_func("/block/copy-tune/start-ends-where-there-is-a-queue",
                    test_start_ends_where_there_is_a_queue);
    g_test_add_func("/block/copy-tune/narrow-path-gets-few",
                    test_narrow_path_gets_few);
    g_test_add_func("/block/copy-tune/path-that-changes",
                    test_path_that_changes);
    g_test_add_func("/block/copy-tune/not-full-changes-nothing",
                    test_copy_that_is_not_full_changes_nothing);
    return g_test_run();
}
