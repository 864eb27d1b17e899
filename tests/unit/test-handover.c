/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What jobs do to the graph, with a filter that only passes on. */
#include "block/handover.h"

#include <string.h>

#include "block-harness.h"
#include "block/filter.h"
#include "core/error.h"
#include "core/util.h"
#include "harness.h"

#define READ_WRITE (BF_PERM_CONSISTENT_READ | BF_PERM_WRITE)

static const BfDriver pass_driver = {
    .name = "pass",
    .kind = (BfBlockdevDriver)-1,
    .node_size = sizeof(BfNode),
    .any_loop = true,
    .close_flushes = true,
    .co_read = bf_filter_co_read,
    .co_write = bf_filter_co_write,
    .refresh = bf_filter_refresh,
};

/* A source and a target, an export of the source, and a job between them. */
typedef struct Job {
    BfGraph *graph;
    BfNode *source;
    BfNode *target;
    BfNode *filter;
    BfRoot *guest;
    BfHandle *guest_handle;
    BfRoot *roots[2];
    BfHandle *handles[2]; /* source and target */
    bool last_pass_fails;
    bool guest_done;
    unsigned passes;
} Job;

static BfRoot *
job_root(Job *job, BfNode *node, unsigned perm, unsigned shared)
{
    g_autoptr(GError) error = NULL;
    BfRoot *root =
        bf_root_co_new(job->graph, node, "block job 'j'", perm, shared, &error);

    g_assert_no_error(error);
    bf_root_set_inner(root, "job0", "source");
    return root;
}

static void
job_init(Job *job)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *source = bf_test_file_new(BF_MIB);
    g_autofree char *target = bf_test_file_new(BF_MIB);

    *job = (Job){.graph = bf_test_graph_new()};
    job->source = bf_test_co_add(job->graph, bf_test_file("src", source));
    job->target = bf_test_co_add(job->graph, bf_test_file("dst", target));
    job->guest = bf_test_co_root(job->graph, "src", READ_WRITE);
    job->guest_handle =
        bf_handle_co_new(job->guest, bf_test_loops()->workers[0]);
    job->filter = bf_graph_co_insert_filter(job->graph, &pass_driver, "top",
                                            job->source, &error);
    g_assert_no_error(error);
    job->roots[0] = job_root(job, job->source, BF_PERM_CONSISTENT_READ,
                             BF_PERM_ALL & ~(unsigned)BF_PERM_RESIZE);
    job->roots[1] =
        job_root(job, job->target, BF_PERM_WRITE, BF_PERM_WRITE_UNCHANGED);
    for (unsigned i = 0; i < 2; i++) {
        job->handles[i] =
            bf_handle_co_new(job->roots[i], bf_test_loops()->workers[1]);
    }
}

static void
job_end(Job *job)
{
    bf_root_co_free(job->roots[0]);
    bf_root_co_free(job->roots[1]);
    bf_root_co_free(job->guest);
    bf_graph_co_free(job->graph);
}

static void
guest_co_write(void *arg)
{
    Job *job = arg;

    g_assert_cmpint(bf_test_co_write(job->guest_handle, 0, "guest", 5, 0), ==,
                    0);
}

static void
guest_co_run(void *arg)
{
    Job *job = arg;

    bf_co_call(bf_test_loops()->workers[0], guest_co_write, job);
    job->guest_done = true;
}

static void
copy_co_all(void *arg)
{
    Job *job = arg;
    g_autofree char *buf = g_malloc(BF_MIB);

    g_assert_cmpint(bf_test_co_read(job->handles[0], 0, buf, BF_MIB), ==, 0);
    g_assert_cmpint(bf_test_co_write(job->handles[1], 0, buf, BF_MIB, 0), ==,
                    0);
}

static void
nothing(void *arg)
{
}

/* While users wait, the job's own requests go through. */
static bool
co_last_pass(void *arg, GError **error)
{
    Job *job = arg;

    job->passes++;
    bf_co_spawn(guest_co_run, job);
    bf_co_call(bf_test_loops()->workers[1], copy_co_all, job);
    bf_co_call(bf_test_loops()->workers[0], nothing, NULL);
    g_assert_false(job->guest_done);
    if (job->last_pass_fails) {
        bf_set_error(error, "cannot do the rest");
        return false;
    }
    return true;
}

static bool
job_co_hand_over(Job *job, GError **error)
{
    const BfGraphMove moves[] = {
        {job->filter, job->target},
        {job->source, job->target},
    };
    const BfHandOver hand_over = {
        .filter = job->filter,
        .moves = moves,
        .n_moves = G_N_ELEMENTS(moves),
        .roots = job->roots,
        .n_roots = G_N_ELEMENTS(job->roots),
        .co_last_pass = co_last_pass,
        .arg = job,
    };

    return bf_graph_co_hand_over(job->graph, &hand_over, error);
}

static void
read_co_guest(void *arg)
{
    Job *job = arg;
    char buf[6] = "";

    g_assert_cmpint(bf_test_co_read(job->guest_handle, 0, buf, 5), ==, 0);
    g_assert_cmpstr(buf, ==, "guest");
}

static void
wait_for_guest(Job *job)
{
    while (!job->guest_done) {
        bf_co_yield();
    }
    bf_co_call(bf_test_loops()->workers[0], read_co_guest, job);
}

static void
test_users_move_behind_the_last_pass(void *arg)
{
    GError *error = NULL;
    BfRoot *late;
    Job job;

    job_init(&job);
    g_assert_true(bf_root_node(job.guest) == job.filter);
    /* A user of the source itself moves as well. */
    late = bf_test_co_root(job.graph, "src", BF_PERM_CONSISTENT_READ);
    g_assert_true(bf_root_node(late) == job.source);
    g_assert_true(job_co_hand_over(&job, &error));
    g_assert_no_error(error);
    g_assert_true(bf_root_node(job.guest) == job.target);
    g_assert_true(bf_root_node(late) == job.target);
    g_assert_true(bf_root_node(job.roots[0]) == job.source);
    g_assert_null(bf_graph_find_node(job.graph, "top"));
    wait_for_guest(&job);
    bf_root_co_free(late);
    job_end(&job);
}

/* A user who is being removed has made the nodes hurry, and one of them goes
 * before it has. */
static void
test_filter_goes_before_who_hurries_it(void *arg)
{
    GError *error = NULL;
    BfRoot *late;
    Job job;

    job_init(&job);
    late = bf_test_co_root(job.graph, "src", BF_PERM_CONSISTENT_READ);
    bf_handle_co_new(late, bf_test_loops()->workers[0]);
    bf_root_abort(late);
    g_assert_true(job_co_hand_over(&job, &error));
    g_assert_no_error(error);
    g_assert_null(bf_graph_find_node(job.graph, "top"));
    wait_for_guest(&job);
    bf_root_co_free(late);
    job_end(&job);
}

static BfRoot *leaver;

static bool
refuse_while_a_user_leaves(BfNode *node, unsigned perm, unsigned shared,
                           bool *ret_needs_drain, GError **error)
{
    bf_root_abort(leaver);
    bf_set_error(error, "locked by somebody else");
    return false;
}

static void
need_to_rewrite(const BfNode *node, const char *edge, unsigned *perm,
                unsigned *shared)
{
    *perm |= BF_PERM_WRITE_UNCHANGED;
}

static void
test_refused_filter_goes_before_who_hurries_it(void *arg)
{
    BfDriver greedy = pass_driver;
    const BfDriver *driver = NULL;
    GError *error = NULL;
    BfDriver locked;
    Job job;

    job_init(&job);
    leaver = bf_test_co_root(job.graph, "src", BF_PERM_CONSISTENT_READ);
    bf_handle_co_new(leaver, bf_test_loops()->workers[0]);
    driver = job.source->driver;
    locked = *driver;
    locked.co_perm_prepare = refuse_while_a_user_leaves;
    job.source->driver = &locked;
    greedy.child_perm = need_to_rewrite;
    g_assert_null(bf_graph_co_insert_filter(job.graph, &greedy, "second",
                                            job.source, &error));
    bf_test_assert_error(&error, "locked by somebody else");
    job.source->driver = driver;
    bf_root_co_free(leaver);
    g_assert_true(job_co_hand_over(&job, &error));
    g_assert_no_error(error);
    wait_for_guest(&job);
    job_end(&job);
}

static void
test_failed_last_pass_changes_nothing(void *arg)
{
    GError *error = NULL;
    Job job;

    job_init(&job);
    job.last_pass_fails = true;
    g_assert_false(job_co_hand_over(&job, &error));
    bf_test_assert_error(&error, "cannot do the rest");
    g_assert_true(bf_root_node(job.guest) == job.filter);
    wait_for_guest(&job);
    /* The target is still the job's alone. */
    g_assert_null(bf_root_co_new(job.graph, job.target, "export 'e'",
                                 BF_PERM_CONSISTENT_READ, BF_PERM_ALL, &error));
    bf_test_assert_error(&error, "Permission conflict on node 'dst'*");
    job.last_pass_fails = false;
    job.guest_done = false;
    g_assert_true(job_co_hand_over(&job, &error));
    g_assert_cmpuint(job.passes, ==, 2);
    wait_for_guest(&job);
    job_end(&job);
}

static void
test_filter_has_the_childs_data_and_name(void *arg)
{
    g_autoptr(BfBlockDeviceInfoList) list = NULL;
    GError *error = NULL;
    Job job;

    job_init(&job);
    list = bf_graph_co_query(job.graph, true);
    g_assert_cmpuint(list->len, ==, 3);
    g_assert_cmpstr(list->items[0]->drv, ==, "pass");
    g_assert_cmpstr(list->items[0]->node_name, ==, "top");
    g_assert_cmpint(list->items[0]->image->virtual_size, ==, BF_MIB);
    g_assert_false(bf_graph_co_blockdev_del(job.graph, "top", &error));
    bf_test_assert_error(&error, "Node top is in use by *");
    g_assert_false(
        bf_test_co_reopen(job.graph, bf_test_null("top", 512), &error));
    bf_test_assert_error(&error, "Cannot change the option 'driver'*");
    g_assert_true(job_co_hand_over(&job, &error));
    wait_for_guest(&job);
    job_end(&job);
}

typedef struct Watcher {
    BfGraph *graph;
    bool stop;
    bool done;
} Watcher;

static void
watcher_co_run(void *arg)
{
    Watcher *watcher = arg;

    while (!watcher->stop) {
        g_autoptr(BfBlockDeviceInfoList) list =
            bf_graph_co_query(watcher->graph, true);

        for (size_t i = 0; i < list->len; i++) {
            g_assert_cmpstr(list->items[i]->file, !=, "");
        }
        bf_co_yield();
    }
    watcher->done = true;
}

/* Others run while the drivers take and give back locks. */
static void
test_nobody_sees_a_filter_without_its_child(void *arg)
{
    for (unsigned i = 0; i < 5; i++) {
        Watcher watcher = {0};
        Job job;

        job_init(&job);
        watcher.graph = job.graph;
        bf_co_spawn(watcher_co_run, &watcher);
        g_assert_true(job_co_hand_over(&job, NULL));
        watcher.stop = true;
        while (!watcher.done) {
            bf_co_yield();
        }
        wait_for_guest(&job);
        job_end(&job);
    }
}

typedef struct LateUser {
    Job *job;
    BfRoot *root;
    GError *error;
    bool done;
} LateUser;

static void
late_co_run(void *arg)
{
    LateUser *late = arg;

    late->root = bf_root_co_new(late->job->graph, late->job->filter,
                                "export 'late'", 0, BF_PERM_ALL, &late->error);
    late->done = true;
}

/* It has found the filter and waits for the graph until the filter is gone. */
static void
test_user_comes_too_late_for_the_filter(void *arg)
{
    BfNode *again = NULL;
    LateUser late = {0};
    Job job;

    job_init(&job);
    late.job = &job;
    bf_graph_co_section_begin(job.graph);
    bf_co_spawn(late_co_run, &late);
    g_assert_false(late.done);
    g_assert_true(job_co_hand_over(&job, NULL));
    bf_graph_co_section_end(job.graph);
    while (!late.done) {
        bf_co_yield();
    }
    g_assert_null(late.root);
    bf_test_assert_error(&late.error, "Node 'top' has been closed meanwhile");
    again = bf_test_co_add(job.graph, bf_test_null("top", 512));
    g_assert_nonnull(again);
    wait_for_guest(&job);
    job_end(&job);
}

static void
test_bad_filter_name_leaves_nothing(void *arg)
{
    BfGraph *graph = bf_test_graph_new();
    BfNode *node = bf_test_co_add(graph, bf_test_null("n0", BF_MIB));
    GError *error = NULL;

    g_assert_null(
        bf_graph_co_insert_filter(graph, &pass_driver, "n0", node, &error));
    bf_test_assert_error(&error, "Duplicate nodes with node-name='n0'");
    g_assert_null(
        bf_graph_co_insert_filter(graph, &pass_driver, "9", node, &error));
    bf_test_assert_error(&error, "Invalid node-name: '9'");
    bf_test_co_del(graph, "n0");
    bf_graph_co_free(graph);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/handover/users-move-behind-the-last-pass",
                test_users_move_behind_the_last_pass);
    bf_test_add("/block/handover/filter-goes-before-who-hurries-it",
                test_filter_goes_before_who_hurries_it);
    bf_test_add("/block/handover/refused-filter-goes-before-who-hurries-it",
                test_refused_filter_goes_before_who_hurries_it);
    bf_test_add("/block/handover/failed-last-pass-changes-nothing",
                test_failed_last_pass_changes_nothing);
    bf_test_add("/block/handover/filter-has-the-childs-data-and-name",
                test_filter_has_the_childs_data_and_name);
    bf_test_add("/block/handover/nobody-sees-a-filter-without-its-child",
                test_nobody_sees_a_filter_without_its_child);
    bf_test_add("/block/handover/user-comes-too-late-for-the-filter",
                test_user_comes_too_late_for_the_filter);
    bf_test_add("/block/handover/bad-filter-name-leaves-nothing",
                test_bad_filter_name_leaves_nothing);
    return g_test_run();
}
