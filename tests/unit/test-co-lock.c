/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Coroutine locks: order, fairness, and that nobody is forgotten. */
#include "core/co-lock.h"

#include <string.h>

#include "harness.h"

typedef struct Party {
    BfCoQueue queue;
    BfCoMutex mutex;
    BfWaitGroup group;
    GString *text;
    unsigned inside;
} Party;

typedef struct Guest {
    Party *party;
    char name;
} Guest;

static void
queue_body(void *arg)
{
    const Guest *guest = arg;

    bf_co_queue_co_wait(&guest->party->queue);
    g_string_append_c(guest->party->text, guest->name);
}

static void
test_queue_is_first_come_first_served(void *arg)
{
    Party party = {.text = g_string_new(NULL)};
    Guest guests[4];

    g_assert_true(bf_co_queue_is_empty(&party.queue));
    g_assert_false(bf_co_queue_wake_one(&party.queue));
    for (int round = 0; round < 2; round++) {
        g_string_truncate(party.text, 0);
        for (int i = 0; i < 4; i++) {
            guests[i] = (Guest){&party, (char)('a' + i)};
            bf_co_spawn(queue_body, &guests[i]);
        }
        g_assert_false(bf_co_queue_is_empty(&party.queue));
        g_assert_true(bf_co_queue_wake_one(&party.queue));
        bf_co_yield();
        g_assert_cmpstr(party.text->str, ==, "a");
        bf_co_queue_wake_all(&party.queue);
        g_assert_true(bf_co_queue_is_empty(&party.queue));
        bf_co_yield();
        g_assert_cmpstr(party.text->str, ==, "abcd");
    }
    g_string_free(party.text, TRUE);
}

static void
mutex_body(void *arg)
{
    const Guest *guest = arg;
    Party *party = guest->party;

    for (int i = 0; i < 3; i++) {
        bf_co_mutex_co_lock(&party->mutex);
        g_assert_cmpuint(party->inside++, ==, 0);
        g_string_append_c(party->text, guest->name);
        bf_co_yield();
        party->inside--;
        bf_co_mutex_unlock(&party->mutex);
    }
    bf_wait_group_done(&party->group);
}

static void
test_mutex_is_fair(void *arg)
{
    Party party = {.text = g_string_new(NULL)};
    Guest guests[3];

    bf_wait_group_add(&party.group, 3);
    for (int i = 0; i < 3; i++) {
        guests[i] = (Guest){&party, (char)('a' + i)};
        bf_co_spawn(mutex_body, &guests[i]);
    }
    bf_wait_group_co_wait(&party.group);
    g_assert_cmpstr(party.text->str, ==, "abcabcabc");
    g_assert_false(party.mutex.locked);
    bf_co_mutex_co_lock(&party.mutex); /* free: does not suspend */
    bf_co_mutex_unlock(&party.mutex);
    g_string_free(party.text, TRUE);
}

static void
group_waiter_body(void *arg)
{
    const Guest *guest = arg;

    bf_wait_group_co_wait(&guest->party->group);
    g_string_append_c(guest->party->text, guest->name);
}

static void
test_wait_group_lets_all_waiters_go(void *arg)
{
    Party party = {.text = g_string_new(NULL)};
    Guest guests[2] = {{&party, 'x'}, {&party, 'y'}};

    bf_wait_group_co_wait(&party.group); /* nothing is under way */
    bf_wait_group_add(&party.group, 2);
    bf_co_spawn(group_waiter_body, &guests[0]);
    bf_co_spawn(group_waiter_body, &guests[1]);
    bf_wait_group_done(&party.group);
    bf_co_yield();
    g_assert_cmpstr(party.text->str, ==, "");
    bf_wait_group_done(&party.group);
    bf_co_yield();
    g_assert_cmpstr(party.text->str, ==, "xy");
    g_string_free(party.text, TRUE);
}

static void
test_wait_group_counts_again_before_waiters_run(void *arg)
{
    Party party = {.text = g_string_new(NULL)};
    Guest guest = {&party, 'x'};

    bf_wait_group_add(&party.group, 1);
    bf_co_spawn(group_waiter_body, &guest);
    bf_wait_group_done(&party.group);
    bf_wait_group_add(&party.group, 1);
    bf_co_yield();
    g_assert_cmpstr(party.text->str, ==, "");
    bf_wait_group_done(&party.group);
    bf_co_yield();
    g_assert_cmpstr(party.text->str, ==, "x");
    g_string_free(party.text, TRUE);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/core/co-lock/queue/first-come-first-served",
                test_queue_is_first_come_first_served);
    bf_test_add("/core/co-lock/mutex/is-fair", test_mutex_is_fair);
    bf_test_add("/core/co-lock/wait-group/lets-all-waiters-go",
                test_wait_group_lets_all_waiters_go);
    bf_test_add("/core/co-lock/wait-group/counts-again-before-waiters-run",
                test_wait_group_counts_again_before_waiters_run);
    return g_test_run();
}
