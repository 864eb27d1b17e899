/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Loops: messages and calls between three of them, timers, life and death. */
#include "core/loop.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/co-io.h"
#include "core/co-lock.h"
#include "core/util.h"
#include "harness.h"
#include "no-threads.h"
#include "server/core/coroutine-private.h"

static void
wait_for(sem_t *sem)
{
    g_assert_cmpint(sem_wait(sem), ==, 0);
}

/* Calls. */

typedef struct Where {
    BfLoop *loop;
    bool in_coroutine;
} Where;

static void
tell_where(void *arg)
{
    Where *where = arg;

    where->loop = bf_loop_self();
    where->in_coroutine = bf_co_self() != NULL;
}

static void
test_call_runs_there(void *arg)
{
    const BfTestLoops *loops = bf_test_loops();
    Where where = {NULL, false};

    bf_co_call(loops->workers[1], tell_where, &where);
    g_assert_true(where.loop == loops->workers[1]);
    g_assert_true(where.in_coroutine);
    bf_co_call(loops->main, tell_where, &where);
    g_assert_true(where.loop == loops->main);
    g_assert_true(bf_loop_self() == loops->main);
    bf_assert_main();
    g_assert_cmpstr(bf_loop_name(loops->workers[0]), ==, "worker0");
    g_assert_true(bf_loop_get_main(loops->workers[0]) == loops->main);
}

static void
call_back_and_forth(void *arg)
{
    unsigned *depth = arg;
    const BfTestLoops *loops = bf_test_loops();
    BfLoop *ring[3] = {loops->main, loops->workers[0], loops->workers[1]};

    if (*depth > 0) {
        --*depth;
        bf_co_call(ring[*depth % 3], call_back_and_forth, depth);
    }
}

static void
test_call_nests(void *arg)
{
    unsigned depth = 30;

    call_back_and_forth(&depth);
    g_assert_cmpuint(depth, ==, 0);
}

static void
sleep_there(void *arg)
{
    bf_co_sleep_ns(*(uint64_t *)arg);
}

static void
test_call_may_suspend_there(void *arg)
{
    uint64_t ns = 2 * BF_NS_PER_MS;
    uint64_t start = bf_loop_now_ns();

    bf_co_call(bf_test_loops()->workers[0], sleep_there, &ns);
    g_assert_cmpuint(bf_loop_now_ns() - start, >=, ns);
}

/* Stress: many coroutines on each loop call all loops. */

#define STRESS_COROUTINES 40
#define STRESS_CALLS 150

typedef struct Stress {
    unsigned counter[3]; /* each touched on its own loop only */
    BfWaitGroup group;
} Stress;

typedef struct StressCall {
    Stress *stress;
    unsigned target;
} StressCall;

static BfLoop *
nth_loop(unsigned n)
{
    const BfTestLoops *loops = bf_test_loops();

    return n == 0 ? loops->main : loops->workers[n - 1];
}

static void
stress_hit(void *arg)
{
    const StressCall *call = arg;

    bf_assert_loop(nth_loop(call->target));
    call->stress->counter[call->target]++;
    if (call->stress->counter[call->target] % 7 == 0) {
        bf_co_yield();
    }
}

static void
stress_body(void *arg)
{
    Stress *stress = arg;

    for (unsigned i = 0; i < STRESS_CALLS; i++) {
        StressCall call = {stress, i % 3};

        bf_co_call(nth_loop(call.target), stress_hit, &call);
    }
}

static void
stress_from(void *arg)
{
    StressCall *from = arg;

    bf_co_call(nth_loop(from->target), stress_body, from->stress);
    bf_wait_group_done(&from->stress->group);
    g_free(from);
}

static void
test_call_stress(void *arg)
{
    Stress stress = {.counter = {0}};

    for (unsigned i = 0; i < 3 * STRESS_COROUTINES; i++) {
        StressCall *from = g_new0(StressCall, 1);

        from->stress = &stress;
        from->target = i % 3;
        bf_wait_group_add(&stress.group, 1);
        bf_co_spawn_later(stress_from, from);
    }
    bf_wait_group_co_wait(&stress.group);
    for (unsigned i = 0; i < 3; i++) {
        g_assert_cmpuint(stress.counter[i], ==,
                         STRESS_COROUTINES * STRESS_CALLS);
    }
}

/* Messages. */

#define SENDERS 4
#define MESSAGES 2000

typedef struct Inbox {
    unsigned next[SENDERS];
    unsigned total;
    BfCo *waiter;
    sem_t *caught_up; /* of each sender, after every 64 messages */
} Inbox;

typedef struct Note {
    Inbox *inbox;
    unsigned sender;
    unsigned number;
} Note;

static void
note_arrives(void *arg)
{
    g_autofree Note *note = arg;
    Inbox *inbox = note->inbox;

    bf_assert_main();
    g_assert_null(bf_co_self());
    g_assert_cmpuint(inbox->next[note->sender]++, ==, note->number);
    if (note->number % 64 == 0) {
        sem_post(&inbox->caught_up[note->sender]);
    }
    if (++inbox->total == SENDERS * MESSAGES) {
        bf_co_wake(inbox->waiter);
    }
}

typedef struct Sender {
    Inbox *inbox;
    unsigned number;
    pthread_t thread;
} Sender;

static void
send_notes(void *arg)
{
    const Sender *sender = arg;

    for (unsigned i = 0; i < MESSAGES; i++) {
        Note *note = g_new0(Note, 1);

        *note = (Note){sender->inbox, sender->number, i};
        bf_loop_post(bf_test_loops()->main, note_arrives, note);
        /* So that main has nothing to do now and then, and sleeps. */
        if (i % 64 == 0 && bf_loop_self() == NULL) {
            wait_for(&sender->inbox->caught_up[sender->number]);
        }
    }
}

static void *
send_notes_thread(void *arg)
{
    send_notes(arg);
    return NULL;
}

/* Two foreign threads, one worker loop, and main itself. */
static void
test_post_keeps_order_of_each_sender(void *arg)
{
    sem_t caught_up[SENDERS];
    Inbox inbox = {.waiter = bf_co_self(), .caught_up = caught_up};
    Sender senders[SENDERS];

    for (unsigned i = 0; i < SENDERS; i++) {
        sem_init(&caught_up[i], 0, 0);
        senders[i] = (Sender){.inbox = &inbox, .number = i};
    }
    for (unsigned i = 0; i < 2; i++) {
        g_assert_cmpint(pthread_create(&senders[i].thread, NULL,
                                       send_notes_thread, &senders[i]),
                        ==, 0);
    }
    bf_loop_post(bf_test_loops()->workers[0], send_notes, &senders[2]);
    send_notes(&senders[3]);
    bf_co_suspend();
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(senders[i].thread, NULL);
    }
}

/* One message at a time to a loop that sleeps: the wake-up is never lost. */

typedef struct Ping {
    BfLoop *other;
    BfCo *waiter;
    unsigned sent;
    unsigned left;
    sem_t arrived;
} Ping;

static void
ping_main(void *arg)
{
    Ping *ping = arg;

    sem_post(&ping->arrived);
    if (--ping->left == 0) {
        bf_co_wake(ping->waiter);
    }
}

static void *
ping_thread(void *arg)
{
    Ping *ping = arg;
    unsigned arrived = 0;

    for (unsigned i = ping->sent; i > 0; i--) {
        bf_loop_post(bf_test_loops()->main, ping_main, ping);
        /* Then main is about to sleep, or sleeps already. */
        while (i % 3 == 0 && arrived < ping->sent - i + 1) {
            wait_for(&ping->arrived);
            arrived++;
        }
    }
    return NULL;
}

static void
test_post_wakes_a_sleeping_loop(void *arg)
{
    Ping ping = {.waiter = bf_co_self(), .sent = 3000, .left = 3000};

    sem_init(&ping.arrived, 0, 0);
    pthread_t thread;

    g_assert_cmpint(pthread_create(&thread, NULL, ping_thread, &ping), ==, 0);
    bf_co_suspend();
    pthread_join(thread, NULL);
}

/* Offload. */

/* What two threads of the lane do at the same time. */
typedef struct Meeting {
    pthread_barrier_t two;
    unsigned count;
} Meeting;

static void
meet(void *arg)
{
    Meeting *meeting = arg;

    g_assert_null(bf_loop_self());
    pthread_barrier_wait(&meeting->two);
    __atomic_add_fetch(&meeting->count, 1, __ATOMIC_SEQ_CST);
}

typedef struct Offload {
    Meeting *meeting;
    BfWaitGroup *group;
} Offload;

static void
offload_body(void *arg)
{
    const Offload *offload = arg;

    bf_co_offload(bf_loop_lane(bf_loop_self(), BF_POOL_LANE_CLOSE), meet,
                  offload->meeting);
    bf_wait_group_done(offload->group);
}

static void
test_offload_runs_elsewhere(void *arg)
{
    Meeting meeting = {.count = 0};
    BfWaitGroup group = {.count = 0};
    Offload offload = {&meeting, &group};

    pthread_barrier_init(&meeting.two, NULL, 2);

    for (int i = 0; i < 100; i++) {
        bf_wait_group_add(&group, 1);
        bf_co_spawn(offload_body, &offload);
    }
    bf_wait_group_co_wait(&group);
    g_assert_cmpuint(meeting.count, ==, 100);
    pthread_barrier_destroy(&meeting.two);
}

typedef struct NotedThread {
    BfLoop *loop;
    bool is_done; /* main's */
} NotedThread;

static void
note_thread(void *arg)
{
    ((NotedThread *)arg)->loop = bf_loop_self();
}

static void
offload_note(void *arg)
{
    BfPoolLane *lane = bf_pool_lane_new("test", 1);

    bf_co_offload(lane, note_thread, arg);
    bf_pool_lane_free(lane);
    ((NotedThread *)arg)->is_done = true;
}

/* Without a thread the loop goes on, and so does the call when there is one. */
static void
test_offload_waits_for_a_thread(void *arg)
{
    NotedThread where = {.loop = bf_loop_self()};

    g_test_expect_message("bf-core", G_LOG_LEVEL_WARNING,
                          "cannot start threads;*");
    bf_test_refuse_threads(true);
    bf_co_spawn(offload_note, &where);
    while (bf_test_threads_refused() < 3) {
        bf_co_yield();
    }
    g_assert_true(where.loop == bf_loop_self());
    bf_test_refuse_threads(false);
    while (!where.is_done) {
        bf_co_yield();
    }
    g_assert_null(where.loop);
    g_test_assert_expected_messages();
}

static pthread_mutex_t stuck = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t stuck_key; /* its destructor tells of a thread's end */

static void
tell_end(void *sem)
{
    sem_post(sem);
}

static void
get_stuck(void *arg)
{
    pthread_setspecific(stuck_key, arg);
    pthread_mutex_lock(&stuck);
    pthread_mutex_unlock(&stuck);
}

static void
stuck_body(void *arg)
{
    char *kept = g_strdup("on the heap of a coroutine that never ends");

    bf_co_offload(bf_loop_lane(bf_loop_self(), BF_POOL_LANE_NAMES), get_stuck,
                  arg);
    g_free(kept);
    g_assert_not_reached();
}

static void
spawn_stuck(void *arg)
{
    bf_co_spawn(stuck_body, arg);
}

static void
start_stuck(void *arg)
{
    bf_co_call(bf_test_loops()->workers[0], spawn_stuck, arg);
}

static void
test_loop_ends_before_a_stuck_thread(void)
{
    sem_t ended;

    sem_init(&ended, 0, 0);
    g_assert_cmpint(pthread_key_create(&stuck_key, tell_end), ==, 0);
    pthread_mutex_lock(&stuck);
    bf_test_run(start_stuck, &ended);
    pthread_mutex_unlock(&stuck);
    /* Its message to the loop that is gone does no harm. */
    wait_for(&ended);
    sem_destroy(&ended);
}

/* Timers. */

typedef struct Letter {
    BfTimer timer;
    GString *text;
    char letter;
} Letter;

static void
append_letter(void *arg)
{
    const Letter *letter = arg;

    g_string_append_c(letter->text, letter->letter);
}

static void
test_timers_in_order(void *arg)
{
    g_autoptr(GString) text = g_string_new(NULL);
    const uint64_t delays[] = {5, 1, 3, 3, 0, 2, 1};
    Letter letters[7];

    for (int i = 0; i < 7; i++) {
        letters[i] = (Letter){.text = text, .letter = (char)('a' + i)};
        bf_timer_start(&letters[i].timer, delays[i] * BF_NS_PER_SEC,
                       append_letter, &letters[i]);
    }
    bf_test_advance(0);
    g_assert_cmpstr(text->str, ==, "e");
    bf_test_advance(BF_NS_PER_SEC - 1);
    g_assert_cmpstr(text->str, ==, "e");
    bf_test_advance(1);
    g_assert_cmpstr(text->str, ==, "ebg");
    bf_timer_stop(&letters[2].timer);
    bf_timer_stop(&letters[2].timer);
    bf_test_advance(10 * BF_NS_PER_SEC);
    g_assert_cmpstr(text->str, ==, "ebgfda");
}

#define TIMERS 500

typedef struct TimerRun {
    BfTimer timer;
    uint64_t *last_ns;
    uint64_t due_ns;
    unsigned *fired;
} TimerRun;

static void
check_timer(void *arg)
{
    TimerRun *run = arg;

    g_assert_cmpuint(run->due_ns, >=, *run->last_ns);
    g_assert_cmpuint(run->due_ns, <=, bf_loop_now_ns());
    *run->last_ns = run->due_ns;
    ++*run->fired;
}

static void
test_timers_started_and_stopped_at_random(void *arg)
{
    g_autofree TimerRun *runs = g_new0(TimerRun, TIMERS);
    uint64_t last_ns = 0;
    unsigned fired = 0;
    unsigned stopped = 0;

    for (int i = 0; i < TIMERS; i++) {
        uint64_t delay = (uint64_t)g_test_rand_int_range(1, 1000);

        runs[i].last_ns = &last_ns;
        runs[i].fired = &fired;
        runs[i].due_ns = bf_loop_now_ns() + delay;
        bf_timer_start(&runs[i].timer, delay, check_timer, &runs[i]);
    }
    for (int i = 0; i < 10; i++) {
        for (int k = 0; k < 20; k++) {
            TimerRun *run = &runs[g_test_rand_int_range(0, TIMERS)];

            stopped += run->timer.heap_index != 0;
            bf_timer_stop(&run->timer);
        }
        bf_test_advance(100);
    }
    g_assert_cmpuint(fired + stopped, ==, TIMERS);
}

static void
sleep_and_tell(void *arg)
{
    unsigned *ended = arg;

    bf_co_sleep_ns(BF_NS_PER_SEC);
    __atomic_add_fetch(ended, 1, __ATOMIC_SEQ_CST);
}

static void
spawn_sleeper(void *arg)
{
    bf_co_spawn(sleep_and_tell, arg);
}

static void
test_fake_clock_moves_all_loops(void *arg)
{
    const BfTestLoops *loops = bf_test_loops();
    unsigned ended = 0;

    spawn_sleeper(&ended);
    bf_co_call(loops->workers[0], spawn_sleeper, &ended);
    bf_co_call(loops->workers[1], spawn_sleeper, &ended);
    bf_test_advance(BF_NS_PER_SEC - 1);
    g_assert_cmpuint(__atomic_load_n(&ended, __ATOMIC_SEQ_CST), ==, 0);
    bf_test_advance(1);
    g_assert_cmpuint(__atomic_load_n(&ended, __ATOMIC_SEQ_CST), ==, 3);
}

static void
restart_timer(void *arg)
{
    static BfTimer again;
    unsigned *left = arg;

    if (--*left > 0) {
        bf_timer_start(&again, 0, restart_timer, left);
    }
}

static void
test_timer_that_restarts_lets_others_run(void *arg)
{
    BfTimer timer = {0};
    unsigned left = 50;
    unsigned turns = 0;

    bf_timer_start(&timer, 0, restart_timer, &left);
    while (left > 0) {
        bf_co_yield();
        turns++;
    }
    g_assert_cmpuint(turns, >, 5);
}

/* Life. */

static void
test_idle_loop_trims_itself(void *arg)
{
    bf_co_sleep_ns(1300 * BF_NS_PER_MS);
}

static void
stop_again(void *arg)
{
    unsigned *count = arg;

    ++*count;
    bf_loop_stop(bf_loop_self());
}

#define SEVERAL 8

static void
yield_once(void *arg)
{
    bf_co_yield();
}

static void *
write_slowly(void *arg)
{
    for (unsigned i = 0; i < 2 * SEVERAL; i++) {
        g_usleep(2000);
        g_assert_cmpint(write(*(int *)arg, "x", 1), ==, 1);
    }
    return NULL;
}

/* A loop that looks for work before it sleeps also finds what does not complete
 * anything, such as a part of what an operation waits for. */
static void
test_busy_loop_does_not_trim_itself(void *arg)
{
    GThread *writer = NULL;
    char buf[SEVERAL];
    int fds[2];

    bf_loop_set_poll_max_ns(bf_test_loops()->main, BF_NS_PER_SEC / 2);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), ==,
                    0);
    for (unsigned i = 0; i < SEVERAL; i++) {
        bf_co_spawn(yield_once, NULL);
    }
    bf_co_yield();
    bf_co_yield();
    g_assert_cmpuint(bf_sched_idle_count(), ==, SEVERAL);
    writer = g_thread_new("writer", write_slowly, &fds[1]);
    for (unsigned i = 0; i < SEVERAL; i++) {
        g_assert_cmpint(bf_co_recv(fds[0], buf, 1, 0, NULL), ==, 1);
    }
    g_assert_cmpint(bf_co_recv(fds[0], buf, sizeof(buf), MSG_WAITALL, NULL), ==,
                    sizeof(buf));
    g_assert_cmpuint(bf_sched_idle_count(), ==, SEVERAL);
    g_thread_join(writer);
    close(fds[0]);
    close(fds[1]);
}

static void
test_main_runs_again_after_stop(void)
{
    g_autoptr(BfClock) clock = bf_clock_new_system();
    BfLoop *loop = bf_loop_new_main(clock, NULL);
    unsigned count = 0;

    g_assert_nonnull(loop);
    for (unsigned i = 1; i <= 3; i++) {
        bf_loop_post(loop, stop_again, &count);
        bf_loop_run(loop);
        g_assert_cmpuint(count, ==, i);
    }
    bf_loop_free(loop);
    g_assert_null(bf_loop_self());
}

static void
test_workers_come_and_go(void *arg)
{
    for (int i = 0; i < 20; i++) {
        g_autoptr(GError) error = NULL;
        BfLoop *loop =
            bf_loop_new_worker(bf_test_loops()->main, "short-lived", &error);
        Where where = {NULL, false};

        g_assert_no_error(error);
        if (i % 2) {
            bf_co_call(loop, tell_where, &where);
            g_assert_true(where.loop == loop);
        }
        bf_loop_free(loop);
    }
}

static void
tell_number(void *arg)
{
    *(unsigned *)arg = bf_loop_number();
}

/* Loops without end share a number; the others can have it again. */
static void
test_loops_have_numbers_of_their_own(void *arg)
{
    BfLoop *loops[BF_LOOP_NUMBER_SHARED + 2];
    bool seen[BF_LOOP_NUMBER_SHARED + 1] = {false};
    unsigned n_shared = 0;
    unsigned number;

    g_assert_cmpuint(bf_loop_number(), ==, 0);
    for (unsigned round = 0; round < 2; round++) {
        memset(seen, 0, sizeof(seen));
        n_shared = 0;
        for (unsigned i = 0; i < G_N_ELEMENTS(loops); i++) {
            loops[i] =
                bf_loop_new_worker(bf_test_loops()->main, "one of many", NULL);
            bf_co_call(loops[i], tell_number, &number);
            g_assert_cmpuint(number, >, 0);
            g_assert_cmpuint(number, <=, BF_LOOP_NUMBER_SHARED);
            n_shared += number == BF_LOOP_NUMBER_SHARED;
            g_assert_true(number == BF_LOOP_NUMBER_SHARED || !seen[number]);
            seen[number] = true;
        }
        g_assert_cmpuint(n_shared, >, 2);
        g_assert_cmpuint(n_shared, <, 10);
        for (unsigned i = 0; i < G_N_ELEMENTS(loops); i++) {
            bf_loop_free(loops[i]);
        }
    }
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/core/loop/call/runs-there", test_call_runs_there);
    bf_test_add("/core/loop/call/nests", test_call_nests);
    bf_test_add("/core/loop/call/may-suspend-there",
                test_call_may_suspend_there);
    bf_test_add("/core/loop/call/stress", test_call_stress);
    bf_test_add("/core/loop/post/keeps-order-of-each-sender",
                test_post_keeps_order_of_each_sender);
    bf_test_add("/core/loop/post/wakes-a-sleeping-loop",
                test_post_wakes_a_sleeping_loop);
    bf_test_add("/core/loop/offload/waits-for-a-thread",
                test_offload_waits_for_a_thread);
    bf_test_add("/core/loop/offload/runs-elsewhere",
                test_offload_runs_elsewhere);
    g_test_add_func("/core/loop/offload/loop-ends-before-a-stuck-thread",
                    test_loop_ends_before_a_stuck_thread);
    bf_test_add_fake("/core/loop/timer/in-order", test_timers_in_order);
    bf_test_add_fake("/core/loop/timer/started-and-stopped-at-random",
                     test_timers_started_and_stopped_at_random);
    bf_test_add_fake("/core/loop/timer/fake-clock-moves-all-loops",
                     test_fake_clock_moves_all_loops);
    bf_test_add_fake("/core/loop/timer/restart-lets-others-run",
                     test_timer_that_restarts_lets_others_run);
    bf_test_add("/core/loop/idle/trims-itself", test_idle_loop_trims_itself);
    bf_test_add("/core/loop/idle/busy-one-does-not",
                test_busy_loop_does_not_trim_itself);
    g_test_add_func("/core/loop/main/runs-again-after-stop",
                    test_main_runs_again_after_stop);
    bf_test_add("/core/loop/worker/come-and-go", test_workers_come_and_go);
    bf_test_add("/core/loop/number/is-its-own",
                test_loops_have_numbers_of_their_own);
    return g_test_run();
}
