/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loops: a thread with a ring, a run queue, timers and an inbox.
 *
 * The inbox is a list that senders push to without a lock and the loop takes
 * as a whole. One word, BfLoop.inbox, tells everything: NULL, the newest
 * message, or ASLEEP, which the loop puts there when it finds nothing to do.
 * The sender that replaces ASLEEP, and no other, wakes the loop. Such a
 * sender still touches the loop after its message may have been seen; so a
 * loop counts how often ASLEEP was taken from it, and is freed only when as
 * many wake-ups have arrived.
 *
 * No thread lock and no allocation is between a coroutine that calls another
 * loop and its answer: messages are embedded in what they are about.
 */
#include "core/loop.h"

#include <pthread.h>

#include "clock-private.h"
#include "core/error.h"
#include "core/iovec.h"
#include "core/util.h"
#include "coroutine-private.h"
#include "loop-private.h"
#include "poll-private.h"
#include "thread-pool-private.h"
#include "timer-heap-private.h"
#include "try-recv-private.h"

#define RING_ENTRIES 256

/* Coroutines resumed in one turn, so that completions are still looked at
 * when coroutines keep yielding. */
#define RUN_MAX 256

/* A loop that was idle for this long gives its caches back. */
#define TRIM_AFTER_NS BF_NS_PER_SEC

/* So much longer the loop looks for a request from a peer that has all of its
 * answers, and so has nothing better to do, than for anything else: there, to
 * look in vain takes more from others than it gains. */
#define SOON_FACTOR 3

#define DELAY_MAX_NS (UINT64_C(1) << 62)

/* When the system gives a lane no thread: the pause before the next try. */
#define THREAD_RETRY_NS (10 * BF_NS_PER_MS)

#define CLOSE_THREADS 8
#define NAMES_THREADS 4

typedef struct BfMessage BfMessage;

struct BfMessage {
    BfMessage *next;
    BfFn *fn;
    void *arg;
    bool allocated; /* freed before @fn is called */
};

/* What BfLoop.inbox points to while the loop waits for completions. */
#define ASLEEP ((BfMessage *)1)

struct BfLoop {
    BfRing *ring; /* owned; made and freed on the loop's thread */
    BfLoop *main; /* borrowed; the loop itself if it is main */
    BfClock *clock;
    char *name;
    pthread_t thread;   /* of a worker */
    BfMessage *inbox;   /* atomic; see above */
    uint64_t wakes_due; /* how often another thread took ASLEEP away */
    bool woke_itself;   /* the loop itself has, since it went to sleep */
    GPtrArray *timers;  /* of BfTimer, see timer-heap-private.h; owned */
    uint64_t timer_seq;
    unsigned offloads;  /* coroutines that wait for a thread of the pool */
    bool lacks_threads; /* it has been said */
    bool stopping;
    bool caches_in_use;   /* something has run since the last trim */
    uint64_t tidied_ns;   /* when bf_loop_tidy() last did something */
    BfPollRule poll;      /* for waits of no special kind */
    BfPollRule poll_soon; /* for those where one receive may end soon */
    uint64_t sleeps;      /* how often it has slept */
    BfTryRecvs recvs;     /* none of them is in the ring */
    BfClockWatch clock_watch;
    BfPoolLane *lanes[BF_POOL_LANE_COUNT]; /* main's; owned */
    unsigned workers;                      /* main's; how many there are */
    uint32_t numbers; /* main's: those below the shared one that are taken */
    unsigned number;  /* never changed */
};

static __thread BfLoop *current_loop;

/* Messages. */

/* Returns true if the receiver sleeps and the caller must wake it. */
static bool
push_message(BfLoop *loop, BfMessage *message)
{
    BfMessage *old = __atomic_load_n(&loop->inbox, __ATOMIC_RELAXED);

    do {
        message->next = old == ASLEEP ? NULL : old;
    } while (!__atomic_compare_exchange_n(&loop->inbox, &old, message, false,
                                          __ATOMIC_ACQ_REL, __ATOMIC_RELAXED));
    return old == ASLEEP;
}

static void
post_message(BfLoop *loop, BfMessage *message)
{
    if (!push_message(loop, message)) {
        return;
    }
    if (current_loop == loop) {
        /* Between the end of its wait and its look at the inbox. */
        loop->woke_itself = true;
    } else if (current_loop != NULL) {
        bf_ring_wake(current_loop->ring, loop->ring);
    } else {
        bf_ring_notify(loop->ring);
    }
}

static BfMessage *
message_new(BfFn *fn, void *arg)
{
    BfMessage *message = g_new0(BfMessage, 1);

    message->fn = fn;
    message->arg = arg;
    message->allocated = true;
    return message;
}

void
bf_loop_post(BfLoop *loop, BfFn *fn, void *arg)
{
    post_message(loop, message_new(fn, arg));
}

static void
wake_waiting(void *arg)
{
    bf_co_wake(arg);
}

void
bf_co_next_turn(void)
{
    bf_loop_post(bf_loop_self(), wake_waiting, bf_co_self());
    bf_co_suspend();
}

/* Like bf_loop_post(), but at once, although the caller will not submit. */
static void
post_now(BfLoop *loop, BfFn *fn, void *arg)
{
    if (push_message(loop, message_new(fn, arg))) {
        bf_ring_notify(loop->ring);
    }
}

static bool
fall_asleep(BfLoop *loop)
{
    BfMessage *none = NULL;

    return __atomic_compare_exchange_n(&loop->inbox, &none, ASLEEP, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* Takes all messages, newest first, and with them the sign of sleep. */
static BfMessage *
take_inbox(BfLoop *loop, bool was_asleep)
{
    BfMessage *list = __atomic_load_n(&loop->inbox, __ATOMIC_RELAXED);

    if (list == NULL) {
        return NULL;
    }
    list = __atomic_exchange_n(&loop->inbox, NULL, __ATOMIC_ACQ_REL);
    if (list == ASLEEP) {
        return NULL;
    }
    if (was_asleep && !loop->woke_itself) {
        loop->wakes_due++;
    }
    loop->woke_itself = false;
    return list;
}

static void
run_messages(BfMessage *newest)
{
    BfMessage *oldest = NULL;

    while (newest != NULL) {
        BfMessage *next = newest->next;

        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest != NULL) {
        BfFn *fn = oldest->fn;
        void *arg = oldest->arg;
        BfMessage *done = oldest;

        oldest = oldest->next;
        if (done->allocated) {
            g_free(done);
        }
        fn(arg); /* an embedded message may be gone after this */
    }
}

/* Timers. */

void
bf_timer_start(BfTimer *timer, uint64_t delay_ns, BfFn *fn, void *arg)
{
    BfLoop *loop = current_loop;

    g_assert(loop != NULL);
    g_assert(timer->heap_index == 0);
    timer->deadline_ns =
        bf_clock_now_ns(loop->clock) + MIN(delay_ns, DELAY_MAX_NS);
    timer->seq = loop->timer_seq++;
    timer->fn = fn;
    timer->arg = arg;
    bf_timer_heap_add(loop->timers, timer);
}

void
bf_timer_stop(BfTimer *timer)
{
    if (timer->heap_index == 0) {
        return;
    }
    g_assert(current_loop != NULL);
    bf_timer_heap_remove(current_loop->timers, timer);
}

static void
run_timers(BfLoop *loop)
{
    uint64_t limit = loop->timer_seq; /* those started meanwhile must wait */
    BfTimer *timer = bf_timer_heap_first(loop->timers);
    uint64_t now_ns = timer == NULL ? 0 : bf_clock_now_ns(loop->clock);

    while (timer != NULL && timer->deadline_ns <= now_ns &&
           timer->seq < limit) {
        bf_timer_stop(timer);
        timer->fn(timer->arg);
        timer = bf_timer_heap_first(loop->timers);
    }
}

/* Turns. */

/* How long the ring may wait for completions. */
static uint64_t
wait_limit_ns(BfLoop *loop)
{
    uint64_t limit_ns = UINT64_MAX;
    BfTimer *timer;

    if (bf_sched_has_ready() || loop->stopping) {
        return 0;
    }
    timer = bf_timer_heap_first(loop->timers);
    if (timer != NULL) {
        uint64_t deadline_ns = timer->deadline_ns;
        uint64_t now_ns = bf_clock_now_ns(loop->clock);

        if (deadline_ns <= now_ns) {
            return 0;
        }
        /* A fake clock does not move while we wait; whoever moves it sends
         * a message. */
        if (!bf_clock_is_fake(loop->clock)) {
            limit_ns = deadline_ns - now_ns;
        }
    }
    return loop->caches_in_use ? MIN(limit_ns, TRIM_AFTER_NS) : limit_ns;
}

static void
trim_caches(BfLoop *loop)
{
    bf_buffer_trim();
    bf_sched_trim();
    loop->caches_in_use = false;
}

void
bf_loop_tidy(void)
{
    BfLoop *loop = current_loop;
    uint64_t now_ns = bf_clock_now_ns(loop->clock);

    if (now_ns - loop->tidied_ns >= TRIM_AFTER_NS) {
        loop->tidied_ns = now_ns;
        bf_sched_trim_spare();
    }
}

uint64_t
bf_loop_sleeps(void)
{
    return current_loop->sleeps;
}

/* Sleeps until there are completions or messages; learns from how long. */
static unsigned
sleep_for_work(BfLoop *loop, BfPollRule *rule, uint64_t limit_ns)
{
    uint64_t start_ns = bf_loop_now_ns();
    unsigned count = bf_ring_wait(loop->ring, limit_ns);

    bf_poll_slept(rule, bf_loop_now_ns() - start_ns);
    return count;
}

/* Takes the completions and messages that there are; waits if there are none,
 * for at most @limit_ns, which is 0 then if there was something to do after
 * all: it need not have completed anything. */
static unsigned
wait_for_work(BfLoop *loop, uint64_t *limit_ns, BfMessage **messages)
{
    BfPollRule *rule =
        bf_try_recvs_soon(&loop->recvs) ? &loop->poll_soon : &loop->poll;
    uint64_t poll_ns = MIN(bf_poll_time_ns(rule), *limit_ns);
    unsigned count;
    bool sleeps;

    if (poll_ns > 0 && bf_poll_look(rule, loop->ring, &loop->recvs,
                                    (void **)&loop->inbox, poll_ns)) {
        *limit_ns = 0;
    } else {
        bf_try_recvs_start(&loop->recvs, loop->ring);
    }
    sleeps = *limit_ns > 0 && fall_asleep(loop);
    if (sleeps && poll_ns == 0) {
        count = sleep_for_work(loop, rule, *limit_ns);
    } else {
        count = bf_ring_wait(loop->ring, sleeps ? *limit_ns : 0);
    }
    loop->sleeps += sleeps ? 1 : 0;
    *messages = take_inbox(loop, sleeps);
    return count;
}

static void
run_turn(BfLoop *loop)
{
    uint64_t limit_ns = wait_limit_ns(loop);
    BfMessage *messages;
    unsigned count = wait_for_work(loop, &limit_ns, &messages);

    run_messages(messages);
    run_timers(loop);
    if (bf_sched_run(RUN_MAX) > 0 || messages != NULL || count > 0) {
        loop->caches_in_use = true;
    } else if (limit_ns == TRIM_AFTER_NS) {
        trim_caches(loop);
    }
}

static void
run_until_stopped(BfLoop *loop)
{
    while (!loop->stopping) {
        run_turn(loop);
    }
    loop->stopping = false;
}

/* Life and death. */

static void
do_nothing(void *arg)
{
}

/* Called by whoever moves a fake clock; the message alone is enough. */
static void
look_at_timers(void *arg)
{
    post_now(arg, do_nothing, NULL);
}

static void
free_parts(BfLoop *loop)
{
    g_ptr_array_unref(loop->timers);
    g_free(loop->name);
    g_free(loop);
}

static BfLoop *
loop_new(const char *name, BfClock *clock)
{
    BfLoop *loop = g_new0(BfLoop, 1);

    loop->name = g_strdup(name);
    loop->clock = clock;
    loop->timers = g_ptr_array_new();
    loop->clock_watch.fn = look_at_timers;
    loop->clock_watch.arg = loop;
    return loop;
}

/* On the loop's thread: makes what belongs to it. */
static bool
attach_thread(BfLoop *loop, GError **error)
{
    g_assert(current_loop == NULL);
    loop->ring = bf_ring_new(RING_ENTRIES, error);
    if (loop->ring == NULL) {
        return false;
    }
    current_loop = loop;
    if (bf_clock_is_fake(loop->clock)) {
        bf_clock_watch(loop->clock, &loop->clock_watch);
    }
    return true;
}

/*
 * On the loop's thread: the reverse. Returns false if a coroutine still waits
 * for a thread of the pool, which will post to this loop if it ever returns;
 * then what it needs for that stays.
 */
static bool
detach_thread(BfLoop *loop)
{
    bool clean;

    if (bf_clock_is_fake(loop->clock)) {
        bf_clock_unwatch(loop->clock, &loop->clock_watch);
    }
    do {
        loop->stopping = true; /* so that no turn waits */
        run_turn(loop);
    } while (bf_sched_has_ready() ||
             __atomic_load_n(&loop->inbox, __ATOMIC_RELAXED) != NULL);
    while (bf_ring_wakes(loop->ring) < loop->wakes_due) {
        bf_ring_wait(loop->ring, UINT64_MAX);
    }

    clean = loop->offloads == 0;
    if (clean) {
        g_assert(bf_sched_count() == 0);
        g_assert(loop->timers->len == 0);
    }
    if (bf_ring_pending(loop->ring) == 0) {
        g_clear_pointer(&loop->ring, bf_ring_free);
    } else {
        g_assert(!clean);
    }
    trim_caches(loop);
    current_loop = NULL;
    return clean;
}

BfLoop *
bf_loop_new_main(BfClock *clock, GError **error)
{
    BfLoop *loop = loop_new("main", clock);
    unsigned processors = CLAMP(g_get_num_processors(), 1, 1024);

    loop->main = loop;
    bf_error_quark(); /* its first use is not safe in several threads */
    if (!attach_thread(loop, error)) {
        free_parts(loop);
        return NULL;
    }
    loop->lanes[BF_POOL_LANE_CLOSE] = bf_pool_lane_new("close", CLOSE_THREADS);
    loop->lanes[BF_POOL_LANE_HANDSHAKE] =
        bf_pool_lane_new("handshake", processors);
    loop->lanes[BF_POOL_LANE_NAMES] = bf_pool_lane_new("names", NAMES_THREADS);
    return loop;
}

/* Main has 0. */
static unsigned
take_number(BfLoop *main_loop)
{
    for (unsigned i = 1; i < BF_LOOP_NUMBER_SHARED; i++) {
        if ((main_loop->numbers & (UINT32_C(1) << i)) == 0) {
            main_loop->numbers |= UINT32_C(1) << i;
            return i;
        }
    }
    return BF_LOOP_NUMBER_SHARED;
}

/* No thread uses it any more. */
static void
give_number_back(BfLoop *main_loop, unsigned number)
{
    if (number != BF_LOOP_NUMBER_SHARED) {
        main_loop->numbers &= ~(UINT32_C(1) << number);
    }
}

/* How a new thread tells its maker that its loop runs. */
typedef struct Start {
    BfLoop *loop;
    GError **error;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    bool done;
    bool ok;
} Start;

static void *
worker_thread(void *arg)
{
    Start *start = arg;
    BfLoop *loop = start->loop;
    bool ok = attach_thread(loop, start->error);

    pthread_mutex_lock(&start->lock);
    start->done = true;
    start->ok = ok;
    pthread_cond_signal(&start->changed);
    pthread_mutex_unlock(&start->lock);
    if (!ok) {
        return NULL;
    }
    run_until_stopped(loop);
    return detach_thread(loop) ? loop : NULL;
}

BfLoop *
bf_loop_new_worker(BfLoop *main_loop, const char *name, GError **error)
{
    BfLoop *loop = loop_new(name, main_loop->clock);
    Start start = {.loop = loop, .error = error};
    int err;

    bf_assert_loop(main_loop);
    loop->main = main_loop;
    loop->number = take_number(main_loop);
    pthread_mutex_init(&start.lock, NULL);
    pthread_cond_init(&start.changed, NULL);
    err = bf_thread_start(name, worker_thread, &start, &loop->thread);
    if (err != 0) {
        bf_set_errno(error, err, "cannot start a thread for '%s'", name);
    } else {
        pthread_mutex_lock(&start.lock);
        while (!start.done) {
            pthread_cond_wait(&start.changed, &start.lock);
        }
        pthread_mutex_unlock(&start.lock);
        if (!start.ok) {
            pthread_join(loop->thread, NULL);
        }
    }
    pthread_mutex_destroy(&start.lock);
    pthread_cond_destroy(&start.changed);
    if (!start.ok) {
        give_number_back(main_loop, loop->number);
        free_parts(loop);
        return NULL;
    }
    main_loop->workers++;
    return loop;
}

static void
stop_worker(void *arg)
{
    BfLoop *loop = arg;

    loop->stopping = true;
}

void
bf_loop_free(BfLoop *loop)
{
    bool clean;

    if (loop == NULL) {
        return;
    }
    bf_assert_loop(loop->main);
    if (loop == loop->main) {
        g_assert(loop->workers == 0);
        g_assert(bf_co_self() == NULL);
        clean = detach_thread(loop);
        for (int i = 0; i < BF_POOL_LANE_COUNT; i++) {
            bf_pool_lane_free(loop->lanes[i]);
        }
    } else {
        void *result;

        post_now(loop, stop_worker, loop);
        /* The worker may wait for wake-ups that we have not submitted, and
         * for those that failed, which only a look at the answers repeats. */
        bf_ring_wait(current_loop->ring, 0);
        pthread_join(loop->thread, &result);
        loop->main->workers--;
        give_number_back(loop->main, loop->number);
        clean = result != NULL;
    }
    if (clean) {
        free_parts(loop);
    } else {
        g_debug("loop '%s' ends while a thread of the pool works for it",
                loop->name);
    }
}

void
bf_loop_run(BfLoop *loop)
{
    bf_assert_loop(loop);
    g_assert(loop == loop->main);
    run_until_stopped(loop);
}

void
bf_loop_stop(BfLoop *loop)
{
    bf_assert_loop(loop);
    loop->stopping = true;
}

BfLoop *
bf_loop_self(void)
{
    return current_loop;
}

unsigned
bf_loop_number(void)
{
    return current_loop->number;
}

BfLoop *
bf_loop_get_main(BfLoop *loop)
{
    return loop->main;
}

const char *
bf_loop_name(const BfLoop *loop)
{
    return loop->name;
}

BfPoolLane *
bf_loop_lane(BfLoop *loop, BfPoolLaneKind kind)
{
    return loop->main->lanes[kind];
}

void
bf_loop_set_poll_max_ns(BfLoop *loop, uint64_t max_ns)
{
    if (bf_clock_is_fake(loop->clock) || g_get_num_processors() == 1) {
        max_ns = 0;
    }
    __atomic_store_n(&loop->poll.max_ns, max_ns / SOON_FACTOR,
                     __ATOMIC_RELAXED);
    __atomic_store_n(&loop->poll_soon.max_ns, max_ns, __ATOMIC_RELAXED);
}

uint64_t
bf_loop_now_ns(void)
{
    return bf_clock_now_ns(current_loop->clock);
}

BfRing *
bf_loop_ring(void)
{
    g_assert(current_loop != NULL);
    return current_loop->ring;
}

BfTryRecvs *
bf_loop_recvs(void)
{
    return &current_loop->recvs;
}

/* Calls: to another loop, and to a thread of the pool. */

typedef struct Call {
    BfMessage message; /* first the question, then the answer */
    BfPoolWork work;   /* the question to a thread of the pool */
    BfLoop *caller;
    BfCo *co;
    BfFn *fn;
    void *arg;
} Call;

static void
call_answered(void *arg)
{
    const Call *call = arg;

    bf_co_wake(call->co);
}

static void
call_answer(Call *call)
{
    call->message.fn = call_answered;
    call->message.arg = call;
    post_message(call->caller, &call->message);
}

static void
call_co_body(void *arg)
{
    Call *call = arg;

    call->fn(call->arg);
    call_answer(call);
}

static void
call_arrived(void *arg)
{
    bf_co_spawn(call_co_body, arg);
}

void
bf_co_call(BfLoop *loop, BfFn *fn, void *arg)
{
    Call call = {.caller = current_loop, .fn = fn, .arg = arg};

    if (loop == current_loop) {
        fn(arg);
        return;
    }
    call.co = bf_co_self();
    g_assert(call.co != NULL);
    call.message.fn = call_arrived;
    call.message.arg = &call;
    post_message(loop, &call.message);
    bf_co_suspend();
}

static void
offload_run(void *arg)
{
    Call *call = arg;

    call->fn(call->arg);
    call_answer(call);
}

/* A loop neither waits for a thread nor gives up: others end theirs. */
static void
co_pause_for_threads(BfLoop *loop)
{
    BfTimer timer = {0};

    if (!loop->lacks_threads) {
        loop->lacks_threads = true;
        g_warning("cannot start threads; calls that need one wait until the "
                  "limit of processes or memory allows it");
    }
    bf_timer_start(&timer, THREAD_RETRY_NS, wake_waiting, bf_co_self());
    bf_co_suspend();
}

void
bf_co_offload(BfPoolLane *lane, BfFn *fn, void *arg)
{
    bf_co_offload_for(lane, 0, fn, arg);
}

void
bf_co_offload_for(BfPoolLane *lane, uint64_t flow, BfFn *fn, void *arg)
{
    BfLoop *loop = current_loop;
    Call call = {.caller = loop, .co = bf_co_self(), .fn = fn, .arg = arg};

    g_assert(call.co != NULL);
    call.work.flow = flow;
    call.work.fn = offload_run;
    call.work.arg = &call;
    loop->offloads++;
    while (!bf_pool_lane_push_work(lane, &call.work)) {
        co_pause_for_threads(loop);
    }
    loop->lacks_threads = false;
    bf_co_suspend();
    loop->offloads--;
}
