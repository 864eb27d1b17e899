/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Thread pool lanes: limits, independence, and ending while work is queued. */
#include "core/thread-pool.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>

#include "no-threads.h"
#include "server/core/thread-pool-private.h"

typedef struct Work {
    pthread_mutex_t lock; /* guards the counters */
    unsigned running;
    unsigned most;
    unsigned ended;
    sem_t go;    /* lets one call end */
    sem_t begun; /* a call has begun */
    sem_t done;
} Work;

static void
work_init(Work *work)
{
    *work = (Work){.running = 0};
    pthread_mutex_init(&work->lock, NULL);
    sem_init(&work->go, 0, 0);
    sem_init(&work->begun, 0, 0);
    sem_init(&work->done, 0, 0);
}

static void
work_clear(Work *work)
{
    pthread_mutex_destroy(&work->lock);
    sem_destroy(&work->go);
    sem_destroy(&work->begun);
    sem_destroy(&work->done);
}

static void
wait_for(sem_t *sem, int times)
{
    for (int i = 0; i < times; i++) {
        g_assert_cmpint(sem_wait(sem), ==, 0);
    }
}

static void
work_fn(void *arg)
{
    Work *work = arg;

    pthread_mutex_lock(&work->lock);
    work->running++;
    work->most = MAX(work->most, work->running);
    pthread_mutex_unlock(&work->lock);
    sem_post(&work->begun);
    sem_wait(&work->go);
    pthread_mutex_lock(&work->lock);
    work->running--;
    work->ended++;
    pthread_mutex_unlock(&work->lock);
    sem_post(&work->done);
}

static void
test_uses_as_many_threads_as_allowed(void)
{
    BfPoolLane *lane = bf_pool_lane_new("test", 3);
    Work work;

    work_init(&work);
    for (int i = 0; i < 10; i++) {
        bf_pool_lane_push(lane, work_fn, &work);
    }
    wait_for(&work.begun, 3);
    for (int i = 0; i < 10; i++) {
        sem_post(&work.go);
    }
    wait_for(&work.done, 10);
    g_assert_cmpuint(work.most, ==, 3);
    g_assert_cmpuint(work.ended, ==, 10);
    bf_pool_lane_free(lane);
    work_clear(&work);
}

static void
test_stuck_lane_leaves_others_alone(void)
{
    BfPoolLane *stuck = bf_pool_lane_new("stuck", 1);
    BfPoolLane *other = bf_pool_lane_new("other", 1);
    Work work;
    Work more;

    work_init(&work);
    work_init(&more);
    bf_pool_lane_push(stuck, work_fn, &work);
    bf_pool_lane_push(stuck, work_fn, &work);
    wait_for(&work.begun, 1);
    sem_post(&more.go);
    bf_pool_lane_push(other, work_fn, &more);
    wait_for(&more.done, 1);
    sem_post(&work.go);
    sem_post(&work.go);
    wait_for(&work.done, 2);
    g_assert_cmpuint(work.most, ==, 1);
    bf_pool_lane_free(stuck);
    bf_pool_lane_free(other);
    work_clear(&work);
    work_clear(&more);
}

static void
test_refuses_work_without_any_thread(void)
{
    BfPoolLane *lane = bf_pool_lane_new("test", 2);
    Work work;

    work_init(&work);
    bf_test_refuse_threads(true);
    g_assert_false(bf_pool_lane_push(lane, work_fn, &work));
    g_assert_cmpuint(bf_test_threads_refused(), ==, 1); /* no second try */
    bf_test_refuse_threads(false);
    g_assert_true(bf_pool_lane_push(lane, work_fn, &work));
    wait_for(&work.begun, 1);

    /* The one that is there does what the others cannot. */
    bf_test_refuse_threads(true);
    g_assert_true(bf_pool_lane_push(lane, work_fn, &work));
    bf_test_refuse_threads(false);
    sem_post(&work.go);
    sem_post(&work.go);
    wait_for(&work.done, 2);
    g_assert_cmpuint(work.most, ==, 1);
    g_assert_cmpuint(work.ended, ==, 2);
    bf_pool_lane_free(lane);
    work_clear(&work);
}

/* Work that notes when its turn was. */
typedef struct Turn {
    BfPoolWork work;
    GString *order; /* borrowed: one thread writes to it */
    sem_t *done;    /* borrowed */
    char name;
} Turn;

static void
note_turn(void *arg)
{
    Turn *turn = arg;

    g_string_append_c(turn->order, turn->name);
    sem_post(turn->done);
}

static void
test_flows_take_turns(void)
{
    /* As pushed; a name in capitals belongs to the flow of the small one. */
    static const char pushed[] = "aAAAAbBcAb";
    BfPoolLane *lane = bf_pool_lane_new("test", 1);
    g_autoptr(GString) order = g_string_new(NULL);
    Turn turns[sizeof(pushed) - 1];
    Work work;

    work_init(&work);
    bf_pool_lane_push(lane, work_fn, &work);
    wait_for(&work.begun, 1);
    for (unsigned i = 0; i < G_N_ELEMENTS(turns); i++) {
        turns[i] =
            (Turn){.order = order, .done = &work.done, .name = pushed[i]};
        turns[i].work.flow = g_ascii_tolower(pushed[i]);
        turns[i].work.fn = note_turn;
        turns[i].work.arg = &turns[i];
        g_assert_true(bf_pool_lane_push_work(lane, &turns[i].work));
    }
    g_assert_cmpuint(bf_pool_lane_queued(lane), ==, G_N_ELEMENTS(turns));
    sem_post(&work.go);
    wait_for(&work.done, 1 + G_N_ELEMENTS(turns));
    g_assert_cmpstr(order->str, ==, "abcABAbAAA");
    bf_pool_lane_free(lane);
    work_clear(&work);
}

static void
test_free_lets_queued_work_end(void)
{
    BfPoolLane *lane = bf_pool_lane_new("test", 2);
    Work work;

    work_init(&work);
    for (int i = 0; i < 6; i++) {
        bf_pool_lane_push(lane, work_fn, &work);
    }
    bf_pool_lane_free(lane);
    for (int i = 0; i < 6; i++) {
        sem_post(&work.go);
    }
    wait_for(&work.done, 6);
    work_clear(&work);
}

static void
test_free_without_threads(void)
{
    bf_pool_lane_free(bf_pool_lane_new("test", 1));
    bf_pool_lane_free(NULL);
}

static void
test_idle_threads_are_used_again(void)
{
    BfPoolLane *lane = bf_pool_lane_new("test", 64);
    Work work;

    work_init(&work);
    for (int i = 0; i < 200; i++) {
        sem_post(&work.go);
        bf_pool_lane_push(lane, work_fn, &work);
        wait_for(&work.done, 1);
    }
    g_assert_cmpuint(work.most, ==, 1);
    bf_pool_lane_free(lane);
    work_clear(&work);
}

typedef struct Signals {
    sigset_t blocked;
    sem_t done;
} Signals;

static void
look_at_signals(void *arg)
{
    Signals *signals = arg;

    pthread_sigmask(SIG_SETMASK, NULL, &signals->blocked);
    sem_post(&signals->done);
}

static void
test_threads_take_no_signals(void)
{
    BfPoolLane *lane = bf_pool_lane_new("test", 1);
    Signals signals;
    sigset_t own;

    sem_init(&signals.done, 0, 0);
    bf_pool_lane_push(lane, look_at_signals, &signals);
    wait_for(&signals.done, 1);
    g_assert_true(sigismember(&signals.blocked, SIGTERM));
    g_assert_true(sigismember(&signals.blocked, SIGCHLD));
    g_assert_false(sigismember(&signals.blocked, SIGSEGV));
    pthread_sigmask(SIG_SETMASK, NULL, &own);
    g_assert_false(sigismember(&own, SIGTERM));
    bf_pool_lane_free(lane);
    sem_destroy(&signals.done);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/core/thread-pool/push/uses-as-many-threads-as-allowed",
                    test_uses_as_many_threads_as_allowed);
    g_test_add_func("/core/thread-pool/push/stuck-lane-leaves-others-alone",
                    test_stuck_lane_leaves_others_alone);
    g_test_add_func("/core/thread-pool/push/idle-threads-are-used-again",
                    test_idle_threads_are_used_again);
    g_test_add_func("/core/thread-pool/push/refuses-work-without-any-thread",
                    test_refuses_work_without_any_thread);
    g_test_add_func("/core/thread-pool/push/flows-take-turns",
                    test_flows_take_turns);
    g_test_add_func("/core/thread-pool/free/lets-queued-work-end",
                    test_free_lets_queued_work_end);
    g_test_add_func("/core/thread-pool/free/without-threads",
                    test_free_without_threads);
    g_test_add_func("/core/thread-pool/thread/takes-no-signals",
                    test_threads_take_no_signals);
    return g_test_run();
}
