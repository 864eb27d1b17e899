/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Test harness. The loops of the running test are a global here, so that a
 * test is one function; the product has no such thing.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* How often others get a turn when time passes. */
#define ADVANCE_TURNS 8

static BfTestLoops *loops;
static char *temp_dir;

typedef struct TestBody {
    BfFn *fn;
    void *arg;
} TestBody;

static void
run_body(void *arg)
{
    const TestBody *body = arg;

    body->fn(body->arg);
    bf_loop_stop(bf_loop_self());
}

static void
run_on(BfClock *clock, BfFn *fn, void *arg)
{
    g_autoptr(GError) error = NULL;
    BfTestLoops set = {.clock = clock};
    TestBody body = {fn, arg};

    set.main = bf_loop_new_main(clock, &error);
    g_assert_no_error(error);
    for (int i = 0; i < BF_TEST_WORKERS; i++) {
        g_autofree char *name = g_strdup_printf("worker%d", i);

        set.workers[i] = bf_loop_new_worker(set.main, name, &error);
        g_assert_no_error(error);
    }
    g_assert_null(loops);
    loops = &set;
    bf_co_spawn_later(run_body, &body);
    bf_loop_run(set.main);
    for (int i = 0; i < BF_TEST_WORKERS; i++) {
        bf_loop_free(set.workers[i]);
    }
    bf_loop_free(set.main);
    loops = NULL;
}

int
bf_test_co_accept(int fd, BfCancel *cancel)
{
    int ret = bf_co_poll(fd, POLLIN, BF_FOREVER, cancel);

    if (ret < 0) {
        return ret;
    }
    ret = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    return ret < 0 ? -errno : ret;
}

void
bf_test_run(BfFn *fn, void *arg)
{
    g_autoptr(BfClock) clock = bf_clock_new_system();

    run_on(clock, fn, arg);
}

void
bf_test_run_fake(BfFn *fn, void *arg)
{
    g_autoptr(BfClock) clock = bf_clock_new_fake();

    run_on(clock, fn, arg);
}

static void
run_test(gconstpointer fn)
{
    bf_test_run((BfFn *)(uintptr_t)fn, NULL);
}

static void
run_test_fake(gconstpointer fn)
{
    bf_test_run_fake((BfFn *)(uintptr_t)fn, NULL);
}

void
bf_test_add(const char *path, BfFn *fn)
{
    g_test_add_data_func(path, (const void *)(uintptr_t)fn, run_test);
}

void
bf_test_add_fake(const char *path, BfFn *fn)
{
    g_test_add_data_func(path, (const void *)(uintptr_t)fn, run_test_fake);
}

const BfTestLoops *
bf_test_loops(void)
{
    return loops;
}

static void
do_nothing(void *arg)
{
}

void
bf_test_advance(uint64_t ns)
{
    bf_clock_advance(loops->clock, ns);
    /* Timers run once in each turn, and an answer takes a turn or more: on a
     * busy machine the kernel and other threads need some more. */
    for (int i = 0; i < ADVANCE_TURNS; i++) {
        bf_co_call(loops->workers[0], do_nothing, NULL);
        bf_co_call(loops->workers[1], do_nothing, NULL);
    }
}

static int
remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static void
remove_temp_dir(void)
{
    nftw(temp_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    g_free(temp_dir);
    temp_dir = NULL;
}

char *
bf_test_temp_path(void)
{
    static unsigned count;

    if (temp_dir == NULL) {
        temp_dir = g_dir_make_tmp("blockferry-test-XXXXXX", NULL);
        g_assert_nonnull(temp_dir);
        atexit(remove_temp_dir);
    }
    return g_strdup_printf("%s/%u", temp_dir, count++);
}

int
bf_test_temp_file(uint64_t bytes)
{
    g_autofree char *path = bf_test_temp_path();
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(unlink(path), ==, 0);
    g_assert_cmpint(ftruncate(fd, (off_t)bytes), ==, 0);
    return fd;
}
