/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Test harness: a family of loops around a test, and temporary files.
 */
#pragma once

#include <glib.h>

#include "core/co-io.h"
#include "core/loop.h"

/* Worker loops beside the main loop in every test. */
#define BF_TEST_WORKERS 2

/**
 * BfTestLoops: the loops of the test that runs; lives as long as it
 */
typedef struct BfTestLoops {
    BfClock *clock;
    BfLoop *main;
    BfLoop *workers[BF_TEST_WORKERS];
} BfTestLoops;

/**
 * bf_test_run:
 * @fn: the test, runs as a coroutine on main
 * @arg: (nullable): passed to @fn
 *
 * Makes a main loop and %BF_TEST_WORKERS workers on the system's clock, runs
 * @fn, and takes all down. Fails if a coroutine is left on any loop.
 */
void bf_test_run(BfFn *fn, void *arg);

/**
 * bf_test_run_fake:
 * @fn: the test, runs as a coroutine on main
 * @arg: (nullable): passed to @fn
 *
 * Like bf_test_run(), on a fake clock that only bf_test_advance() moves.
 */
void bf_test_run_fake(BfFn *fn, void *arg);

/**
 * bf_test_add:
 * @path: GTest path
 * @fn: the test, runs as a coroutine on main
 *
 * Adds a test that runs by bf_test_run().
 */
void bf_test_add(const char *path, BfFn *fn);

/**
 * bf_test_add_fake:
 * @path: GTest path
 * @fn: the test, runs as a coroutine on main
 *
 * Adds a test that runs by bf_test_run_fake().
 */
void bf_test_add_fake(const char *path, BfFn *fn);

/**
 * bf_test_loops:
 *
 * Returns: (transfer none): the loops of the test that runs; any thread
 */
const BfTestLoops *bf_test_loops(void);

/**
 * bf_test_advance:
 * @ns: nanoseconds
 *
 * Moves the fake clock, then lets the calling loop's due timers and what they
 * wake run. To be called from a coroutine.
 */
void bf_test_advance(uint64_t ns);

/**
 * bf_test_co_accept:
 * @fd: a listening socket
 * @cancel: (nullable): ends the wait
 *
 * Returns: (transfer full): the new descriptor, non-blocking, or -errno
 */
int bf_test_co_accept(int fd, BfCancel *cancel);

/**
 * bf_test_temp_path:
 *
 * Returns: (transfer full): a name that does not exist, in a directory that is
 * removed with everything in it when the test program ends
 */
char *bf_test_temp_path(void);

/**
 * bf_test_temp_file:
 * @bytes: size of the file, all holes
 *
 * Returns: (transfer full): a descriptor, open for reading and writing, of a
 * file without a name
 */
int bf_test_temp_file(uint64_t bytes);
