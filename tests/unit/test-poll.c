/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * When a loop polls before it sleeps, and that it sees what it polls for.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../server/core/poll-private.h"
#include "core/util.h"

#define MAX_NS (20 * BF_NS_PER_US)
#define LONG_NS BF_NS_PER_SEC

static void
sleep_short(BfPollRule *rule, unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        bf_poll_slept(rule, MAX_NS);
    }
}

static unsigned
short_sleeps_until_poll(BfPollRule *rule)
{
    unsigned count = 0;

    while (bf_poll_time_ns(rule) == 0) {
        sleep_short(rule, 1);
        count++;
        g_assert_cmpuint(count, <, 100000);
    }
    return count;
}

static void
test_rule_needs_short_sleeps_in_a_row(void)
{
    BfPollRule rule = {.max_ns = MAX_NS};

    g_assert_cmpuint(bf_poll_time_ns(&rule), ==, 0);
    sleep_short(&rule, 3);
    bf_poll_slept(&rule, LONG_NS);
    sleep_short(&rule, 3);
    g_assert_cmpuint(bf_poll_time_ns(&rule), ==, 0);
    sleep_short(&rule, 1);
    g_assert_cmpuint(bf_poll_time_ns(&rule), ==, MAX_NS);
    bf_poll_slept(&rule, LONG_NS);
    g_assert_cmpuint(bf_poll_time_ns(&rule), ==, 0);
}

static void
test_rule_of_nothing_never_polls(void)
{
    BfPollRule rule = {0};

    for (unsigned i = 0; i < 10000; i++) {
        bf_poll_slept(&rule, 0);
        g_assert_cmpuint(bf_poll_time_ns(&rule), ==, 0);
    }
}

static void
test_rule_asks_for_more_after_each_in_vain(void)
{
    BfPollRule rule = {.max_ns = MAX_NS};
    unsigned before = short_sleeps_until_poll(&rule);
    unsigned most = before;

    for (unsigned i = 0; i < 20; i++) {
        unsigned now;

        bf_poll_looked(&rule, false);
        g_assert_cmpuint(bf_poll_time_ns(&rule), ==, 0);
        now = short_sleeps_until_poll(&rule);
        g_assert_cmpuint(now, >=, most);
        most = now;
    }
    g_assert_cmpuint(most, >, 100 * before);

    /* And for as few as at first after many with success. */
    for (unsigned i = 0; i < 20; i++) {
        bf_poll_looked(&rule, true);
        g_assert_cmpuint(bf_poll_time_ns(&rule), ==, MAX_NS);
    }
    bf_poll_slept(&rule, LONG_NS);
    g_assert_cmpuint(short_sleeps_until_poll(&rule), ==, before);
}

/* One in two is not worth it, two in three are. */
static void
test_rule_holds_on_where_it_pays(void)
{
    BfPollRule rarely = {.max_ns = MAX_NS};
    BfPollRule mostly = {.max_ns = MAX_NS};
    unsigned sleeps_rarely = 0;
    unsigned sleeps_mostly = 0;

    for (unsigned i = 0; i < 100; i++) {
        sleeps_rarely += short_sleeps_until_poll(&rarely);
        bf_poll_looked(&rarely, true);
        bf_poll_looked(&rarely, false);
        sleeps_mostly += short_sleeps_until_poll(&mostly);
        bf_poll_looked(&mostly, true);
        bf_poll_looked(&mostly, true);
        bf_poll_looked(&mostly, false);
    }
    g_assert_cmpuint(sleeps_mostly, <, 100 * 20);
    g_assert_cmpuint(sleeps_rarely, >, 100 * 1000);
}

typedef struct Received {
    BfRingOp op;
    char data[8];
    int result;
    unsigned count;
} Received;

typedef struct Fixture {
    BfRing *ring;
    BfPollRule rule;
    BfTryRecvs recvs;
    void *inbox;
    BfRingOp op;
    int fds[2];
} Fixture;

static void
op_done(BfRingOp *op, int result)
{
    (void)op;
    g_assert_cmpint(result, ==, POLLIN);
}

static void
set_up(Fixture *f, gconstpointer data)
{
    (void)data;
    f->ring = bf_ring_new(8, NULL);
    g_assert_nonnull(f->ring);
    f->rule.max_ns = MAX_NS;
    g_assert_cmpint(pipe2(f->fds, O_CLOEXEC), ==, 0);
    f->op.done = op_done;
    bf_ring_poll(f->ring, &f->op, f->fds[0], POLLIN);
}

static void
tear_down(Fixture *f, gconstpointer data)
{
    (void)data;
    g_assert_cmpint(write(f->fds[1], "x", 1), ==, 1);
    while (bf_ring_pending(f->ring) > 0) {
        bf_ring_wait(f->ring, UINT64_MAX);
    }
    bf_ring_free(f->ring);
    close(f->fds[0]);
    close(f->fds[1]);
}

static void
test_look_ends_in_time(Fixture *f, gconstpointer data)
{
    (void)data;
    sleep_short(&f->rule, 100);
    g_assert_cmpuint(bf_poll_time_ns(&f->rule), ==, MAX_NS);
    g_assert_false(
        bf_poll_look(&f->rule, f->ring, &f->recvs, &f->inbox, MAX_NS));
    g_assert_cmpuint(bf_poll_time_ns(&f->rule), ==, 0);
}

/* The operation was only prepared: to look submits it. */
static void
test_look_finds_a_completion(Fixture *f, gconstpointer data)
{
    (void)data;
    g_assert_cmpint(write(f->fds[1], "x", 1), ==, 1);
    g_assert_true(
        bf_poll_look(&f->rule, f->ring, &f->recvs, &f->inbox, UINT32_MAX));
    g_assert_cmpuint(bf_ring_wait(f->ring, 0), ==, 1);
}

static void
recv_done(BfRingOp *op, int result)
{
    Received *self = bf_container_of(op, Received, op);

    self->result = result;
    self->count++;
}

/* Fills the set with receives from both ends of a pair; the ring gets the last
 * one. */
static void
begin_receives(Fixture *f, Received *received, const int pair[2])
{
    for (unsigned i = 0; i <= BF_TRY_RECVS_MAX; i++) {
        received[i] = (Received){.op.done = recv_done};
        bf_try_recvs_begin(&f->recvs, f->ring,
                           &(BfTryRecv){.op = &received[i].op,
                                        .fd = pair[i % 2],
                                        .buf = received[i].data,
                                        .len = sizeof(received[i].data)});
    }
    g_assert_cmpuint(f->recvs.count, ==, BF_TRY_RECVS_MAX);
    g_assert_cmpuint(bf_ring_pending(f->ring), ==, 2);
}

/* The peer leaves: all that is left gets the end. */
static void
end_receives(Fixture *f, Received *received, int pair[2])
{
    g_assert_cmpint(shutdown(pair[0], SHUT_RDWR), ==, 0);
    bf_try_recvs_start(&f->recvs, f->ring);
    g_assert_cmpuint(f->recvs.count, ==, 0);
    while (bf_ring_pending(f->ring) > 1) {
        bf_ring_wait(f->ring, UINT64_MAX);
    }
    for (unsigned i = 0; i <= BF_TRY_RECVS_MAX; i++) {
        g_assert_cmpuint(received[i].count, ==, 1);
        bf_try_recvs_end(&f->recvs);
    }
    g_assert_cmpuint(f->recvs.waits, ==, 0);
    close(pair[0]);
    close(pair[1]);
}

static void
test_look_receives(Fixture *f, gconstpointer data)
{
    Received received[BF_TRY_RECVS_MAX + 1];
    int pair[2];

    (void)data;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
                    ==, 0);
    begin_receives(f, received, pair);
    g_assert_cmpint(write(pair[0], "abc", 3), ==, 3);
    g_assert_true(
        bf_poll_look(&f->rule, f->ring, &f->recvs, &f->inbox, UINT32_MAX));
    g_assert_cmpuint(f->recvs.count, ==, BF_TRY_RECVS_MAX - 1);
    g_assert_cmpint(received[1].result, ==, 3);
    g_assert_cmpmem(received[1].data, 3, "abc", 3);

    /* The end of the stream is a result, too. */
    g_assert_cmpint(shutdown(pair[0], SHUT_WR), ==, 0);
    g_assert_true(
        bf_poll_look(&f->rule, f->ring, &f->recvs, &f->inbox, UINT32_MAX));
    g_assert_cmpuint(received[3].count, ==, 1);
    g_assert_cmpint(received[3].result, ==, 0);
    end_receives(f, received, pair);
}

static void
test_look_receives_nothing(Fixture *f, gconstpointer data)
{
    Received received[BF_TRY_RECVS_MAX + 1];
    int pair[2];

    (void)data;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
                    ==, 0);
    begin_receives(f, received, pair);
    g_assert_false(
        bf_poll_look(&f->rule, f->ring, &f->recvs, &f->inbox, MAX_NS));
    g_assert_cmpuint(f->recvs.count, ==, BF_TRY_RECVS_MAX);
    end_receives(f, received, pair);
}

static void
test_one_receive_may_end_soon(Fixture *f, gconstpointer data)
{
    Received received[BF_TRY_RECVS_MAX + 1];
    int pair[2];

    (void)data;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
                    ==, 0);
    begin_receives(f, received, pair);
    f->recvs.items[0].soon = true;
    g_assert_false(bf_try_recvs_soon(&f->recvs)); /* there are others */
    f->recvs.count = 1;
    g_assert_false(bf_try_recvs_soon(&f->recvs)); /* the ring has others */
    f->recvs.waits = 1;
    g_assert_true(bf_try_recvs_soon(&f->recvs));
    f->recvs.items[0].soon = false;
    g_assert_false(bf_try_recvs_soon(&f->recvs));
    f->recvs.count = BF_TRY_RECVS_MAX;
    f->recvs.waits = BF_TRY_RECVS_MAX + 1;
    end_receives(f, received, pair);
}

static void *
write_late(void *arg)
{
    g_usleep(1000);
    g_assert_cmpint(write(*(int *)arg, "x", 1), ==, 1);
    return NULL;
}

static void
test_look_finds_what_comes_meanwhile(Fixture *f, gconstpointer data)
{
    GThread *writer = g_thread_new("writer", write_late, &f->fds[1]);

    (void)data;
    g_assert_true(bf_poll_look(&f->rule, f->ring, &f->recvs, &f->inbox,
                               1000 * BF_NS_PER_SEC));
    g_assert_cmpuint(bf_ring_wait(f->ring, 0), ==, 1);
    g_thread_join(writer);
}

static void
test_look_finds_a_message(Fixture *f, gconstpointer data)
{
    (void)data;
    f->inbox = f;
    g_assert_true(
        bf_poll_look(&f->rule, f->ring, &f->recvs, &f->inbox, UINT32_MAX));
}

static void
test_look_finds_a_wake_up(Fixture *f, gconstpointer data)
{
    (void)data;
    bf_ring_notify(f->ring);
    g_assert_true(
        bf_poll_look(&f->rule, f->ring, &f->recvs, &f->inbox, UINT32_MAX));
    while (bf_ring_wakes(f->ring) == 0) {
        bf_ring_wait(f->ring, UINT64_MAX);
    }
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/core/poll/rule/needs-short-sleeps-in-a-row",
                    test_rule_needs_short_sleeps_in_a_row);
    g_test_add_func("/core/poll/rule/nothing-never-polls",
                    test_rule_of_nothing_never_polls);
    g_test_add_func("/core/poll/rule/asks-for-more-after-each-in-vain",
                    test_rule_asks_for_more_after_each_in_vain);
    g_test_add_func("/core/poll/rule/holds-on-where-it-pays",
                    test_rule_holds_on_where_it_pays);
    g_test_add("/core/poll/one-receive-may-end-soon", Fixture, NULL, set_up,
               test_one_receive_may_end_soon, tear_down);
    g_test_add("/core/poll/look/ends-in-time", Fixture, NULL, set_up,
               test_look_ends_in_time, tear_down);
    g_test_add("/core/poll/look/finds-a-completion", Fixture, NULL, set_up,
               test_look_finds_a_completion, tear_down);
    g_test_add("/core/poll/look/receives", Fixture, NULL, set_up,
               test_look_receives, tear_down);
    g_test_add("/core/poll/look/receives-nothing", Fixture, NULL, set_up,
               test_look_receives_nothing, tear_down);
    g_test_add("/core/poll/look/finds-what-comes-meanwhile", Fixture, NULL,
               set_up, test_look_finds_what_comes_meanwhile, tear_down);
    g_test_add("/core/poll/look/finds-a-message", Fixture, NULL, set_up,
               test_look_finds_a_message, tear_down);
    g_test_add("/core/poll/look/finds-a-wake-up", Fixture, NULL, set_up,
               test_look_finds_a_wake_up, tear_down);
    return g_test_run();
}
