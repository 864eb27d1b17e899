/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Coroutines: order of running, nesting, deep stacks, many at once. */
#include "core/coroutine.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/loop.h"
#include "harness.h"
#include "server/core/coroutine-private.h"

static GString *record;

static void
note(const char *text)
{
    g_string_append(record, text);
}

typedef struct Sleeper {
    BfCo *co;
    const char *before;
    const char *after;
} Sleeper;

static void
sleeper_body(void *arg)
{
    Sleeper *self = arg;

    note(self->before);
    self->co = bf_co_self();
    bf_co_suspend();
    note(self->after);
    self->co = NULL;
}

static void
test_spawn_runs_until_first_suspend(void *arg)
{
    Sleeper s = {NULL, "b", "d"};

    record = g_string_new("a");
    bf_co_spawn(sleeper_body, &s);
    note("c");
    bf_co_wake(s.co);
    bf_co_yield();
    note("e");
    g_assert_cmpstr(record->str, ==, "abcde");
    g_assert_null(s.co);
    g_string_free(record, TRUE);
}

static void
note_body(void *arg)
{
    note(arg);
}

static void
test_spawn_later_waits_for_its_turn(void *arg)
{
    char two[] = "2";
    char three[] = "3";

    record = g_string_new("0");
    bf_co_spawn_later(note_body, two);
    bf_co_spawn_later(note_body, three);
    note("1");
    bf_co_yield();
    note("4");
    g_assert_cmpstr(record->str, ==, "01234");
    g_string_free(record, TRUE);
}

typedef struct Nest {
    BfCo *co[4];
    int depth;
} Nest;

static void
nest_body(void *arg)
{
    Nest *nest = arg;
    int mine = nest->depth++;

    nest->co[mine] = bf_co_self();
    if (mine < 3) {
        bf_co_spawn(nest_body, nest);
    }
    g_assert_true(bf_co_self() == nest->co[mine]);
    bf_co_suspend();
    g_assert_true(bf_co_self() == nest->co[mine]);
    nest->depth--;
}

static void
test_nested_spawn_returns_to_parent(void *arg)
{
    Nest nest = {.depth = 0};
    BfCo *self = bf_co_self();

    bf_co_spawn(nest_body, &nest);
    g_assert_true(bf_co_self() == self);
    g_assert_cmpint(nest.depth, ==, 4);
    /* Outer ones end while inner ones still wait, and the reverse. */
    bf_co_wake(nest.co[1]);
    bf_co_wake(nest.co[0]);
    bf_co_wake(nest.co[3]);
    bf_co_wake(nest.co[2]);
    bf_co_yield();
    g_assert_cmpint(nest.depth, ==, 0);
}

static int
recurse(int depth)
{
    volatile char pad[512];

    memset((char *)pad, depth, sizeof(pad));
    return depth == 0 ? 0 : 1 + recurse(depth - 1) + pad[0] - (char)depth;
}

static void
deep_body(void *arg)
{
    *(int *)arg = recurse(64);
    bf_co_yield();
    *(int *)arg += recurse(64);
}

static void
test_stack_holds_deep_calls(void *arg)
{
    int got = 0;

    bf_co_spawn(deep_body, &got);
    while (got != 128) {
        bf_co_yield();
    }
}

#define MANY 3000

static void
test_many_at_once(void *arg)
{
    g_autofree Sleeper *all = g_new0(Sleeper, MANY);

    record = g_string_new(NULL);
    for (int round = 0; round < 2; round++) {
        g_string_truncate(record, 0);
        for (int i = 0; i < MANY; i++) {
            all[i] = (Sleeper){NULL, "x", "y"};
            bf_co_spawn(sleeper_body, &all[i]);
        }
        g_assert_cmpuint(record->len, ==, MANY);
        for (int i = MANY - 1; i >= 0; i--) {
            bf_co_wake(all[i].co);
        }
        while (record->len < 2 * MANY) {
            bf_co_yield();
        }
    }
    g_string_free(record, TRUE);
}

static void
run_at_once(unsigned n)
{
    g_autofree Sleeper *all = g_new0(Sleeper, n);

    record = g_string_new(NULL);
    for (unsigned i = 0; i < n; i++) {
        all[i] = (Sleeper){NULL, "x", "y"};
        bf_co_spawn(sleeper_body, &all[i]);
    }
    for (unsigned i = 0; i < n; i++) {
        bf_co_wake(all[i].co);
    }
    while (record->len < 2 * n) {
        bf_co_yield();
    }
    g_string_free(record, TRUE);
}

static void
test_spare_stacks_are_those_not_used(void *arg)
{
    bf_sched_trim();
    run_at_once(10);
    g_assert_cmpuint(bf_sched_idle_count(), ==, 10);
    bf_sched_trim_spare(); /* all were in use since the last time */
    g_assert_cmpuint(bf_sched_idle_count(), ==, 10);
    run_at_once(4);
    run_at_once(3);
    bf_sched_trim_spare();
    g_assert_cmpuint(bf_sched_idle_count(), ==, 4);
    bf_sched_trim_spare();
    g_assert_cmpuint(bf_sched_idle_count(), ==, 0);
}

static void
yield_body(void *arg)
{
    double sum = 0.5;

    for (int i = 0; i < 1000; i++) {
        sum += 1.0;
        bf_co_yield();
        g_assert_cmpfloat(sum, ==, i + 1.5);
    }
    ++*(int *)arg;
}

static void
test_yield_takes_turns(void *arg)
{
    int ended = 0;

    for (int i = 0; i < 10; i++) {
        bf_co_spawn(yield_body, &ended);
    }
    while (ended < 10) {
        bf_co_yield();
    }
}

/* Only the stack of the coroutine knows this memory while it sleeps. */
static void
owner_body(void *arg)
{
    char *text = g_strdup("owned by a suspended coroutine");
    BfCo **ret_co = arg;

    *ret_co = bf_co_self();
    bf_co_suspend();
    g_assert_cmpuint(strlen(text), ==, 30);
    g_free(text);
}

static void
test_keeps_memory_while_suspended(void *arg)
{
    BfCo *co;

    bf_co_spawn(owner_body, &co);
    bf_co_yield();
    bf_co_wake(co);
    bf_co_yield();
}

static void
overflow_body(void *arg)
{
    volatile int depth = 1 << 20;

    recurse(depth);
}

static void
overflow_main(void *arg)
{
    bf_co_spawn(overflow_body, NULL);
}

static void
test_overflow_hits_guard_page(void)
{
    if (g_test_subprocess()) {
        bf_test_run(overflow_main, NULL);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
}

static void
test_double_wake_is_caught(void)
{
    if (g_test_subprocess()) {
        Sleeper s = {NULL, "", ""};

        record = g_string_new(NULL);
        bf_co_spawn(sleeper_body, &s);
        bf_co_wake(s.co);
        bf_co_wake(s.co);
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*BF_CO_SUSPENDED*");
}

static void
perf_body(void *arg)
{
    for (int i = 0; i < 5000000; i++) {
        bf_co_yield();
    }
}

static void
test_switch_time(void *arg)
{
    g_test_timer_start();
    bf_co_spawn(perf_body, NULL);
    perf_body(NULL);
    g_test_message("%.1f ns per switch", g_test_timer_elapsed() * 1e9 / 2e7);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/core/coroutine/spawn/runs-until-first-suspend",
                test_spawn_runs_until_first_suspend);
    bf_test_add("/core/coroutine/spawn/later-waits-for-its-turn",
                test_spawn_later_waits_for_its_turn);
    bf_test_add("/core/coroutine/spawn/nested-returns-to-parent",
                test_nested_spawn_returns_to_parent);
    bf_test_add("/core/coroutine/stack/holds-deep-calls",
                test_stack_holds_deep_calls);
    bf_test_add("/core/coroutine/stack/many-at-once", test_many_at_once);
    bf_test_add("/core/coroutine/stack/keeps-memory-while-suspended",
                test_keeps_memory_while_suspended);
    g_test_add_func("/core/coroutine/stack/overflow-hits-guard-page",
                    test_overflow_hits_guard_page);
    bf_test_add("/core/coroutine/stack/spare-ones-are-those-not-used",
                test_spare_stacks_are_those_not_used);
    bf_test_add("/core/coroutine/yield/takes-turns", test_yield_takes_turns);
    g_test_add_func("/core/coroutine/wake/double-wake-is-caught",
                    test_double_wake_is_caught);
    if (g_test_perf()) {
        bf_test_add("/core/coroutine/switch/time", test_switch_time);
    }
    return g_test_run();
}
