/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The backup job and writes that have to wait for it, on a fake clock: what a
 * functional test would take minutes for. The nodes have no storage, as a clock
 * that the test moves would run ahead of files.
 */
#include "block/backup.h"

#include "block-harness.h"
#include "core/util.h"
#include "harness.h"
#include "job-harness.h"

#define READ_WRITE (BF_PERM_CONSISTENT_READ | BF_PERM_WRITE)
#define SIZE (24 * BF_MIB)
#define TICK_NS (100 * BF_NS_PER_MS)

typedef struct Fixture {
    BfGraph *graph;
    BfRoot *guest;
    BfHandle *handle;
    bool written;
} Fixture;

static void
co_add_target(Fixture *f, uint64_t delay_ms)
{
    BfBlockdevOptions *options;
    BfFaultRule *rule;

    bf_test_co_add(f->graph, bf_test_null("dst", SIZE));
    options = bf_test_fault("slow", bf_test_ref_str("dst"), 1);
    rule = options->u.fault->rules->items[0];
    rule->op = BF_FAULT_OP_WRITE_ZEROES; /* what is copied is zeroes */
    rule->delay_ms = delay_ms;
    rule->errno_[0] = '\0';
    bf_test_co_add(f->graph, options);
}

static void
co_set_up(Fixture *f, uint64_t delay_ms)
{
    BfBlockdevBackup options = {
        .job_id = (char *)"b",
        .device = (char *)"src",
        .target = (char *)"slow",
        .sync = BF_MIRROR_SYNC_MODE_NONE,
        .auto_finalize = true,
        .auto_dismiss = true,
    };
    GError *error = NULL;

    bf_test_jobs_new();
    *f = (Fixture){.graph = bf_test_graph_new()};
    bf_test_co_add(f->graph, bf_test_null("src", SIZE));
    co_add_target(f, delay_ms);
    f->guest = bf_test_co_root(f->graph, "src", READ_WRITE);
    f->handle = bf_handle_co_new(f->guest, bf_test_loops()->workers[0]);
    g_assert_true(
        bf_backup_co_start(f->graph, bf_test_jobs_table(), &options, &error));
    g_assert_no_error(error);
}

static void
co_tear_down(Fixture *f)
{
    bf_test_jobs_co_free();
    bf_root_co_free(f->guest);
    bf_graph_co_free(f->graph);
}

static void
guest_co_zero(void *arg)
{
    Fixture *f = arg;

    g_assert_cmpint(bf_handle_co_write_zeroes(f->handle, 0, SIZE, 0), ==, 0);
}

static void
guest_co_run(void *arg)
{
    Fixture *f = arg;

    bf_co_call(bf_test_loops()->workers[0], guest_co_zero, f);
    f->written = true;
}

/* Returns how long the write took. */
static uint64_t
co_zero_all(Fixture *f)
{
    uint64_t ns = 0;

    bf_co_spawn(guest_co_run, f);
    for (; !f->written; ns += TICK_NS) {
        bf_test_advance(TICK_NS);
    }
    return ns;
}

/* A request may be of any length. */
static void
test_long_write_waits_while_its_copy_gets_on(void *arg)
{
    Fixture f;

    co_set_up(&f, 1500);
    g_assert_cmpuint(co_zero_all(&f), >, 35 * BF_NS_PER_SEC);
    g_assert_nonnull(bf_job_table_find(bf_test_jobs_table(), "b"));
    bf_test_jobs_take_events("b:created b:running ");
    co_tear_down(&f);
}

static void
test_write_does_not_wait_for_a_copy_that_hangs(void *arg)
{
    Fixture f;

    co_set_up(&f, 40 * 1000);
    g_assert_cmpuint(co_zero_all(&f), <, 60 * BF_NS_PER_SEC);
    bf_test_jobs_co_wait_gone("b");
    bf_test_jobs_take_events(
        "b:created b:running b:aborting b:COMPLETED(What was about to be "
        "overwritten could not be copied: Connection timed out) b:concluded "
        "b:null ");
    co_tear_down(&f);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add_fake("/block/backup/long-write-waits-while-its-copy-gets-on",
                     test_long_write_waits_while_its_copy_gets_on);
    bf_test_add_fake("/block/backup/write-does-not-wait-for-a-copy-that-hangs",
                     test_write_does_not_wait_for_a_copy_that_hangs);
    return g_test_run();
}
