/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A system that gives no threads, for the tests that link pthread_create() by
 * --wrap.
 */
#pragma once

#include <stdbool.h>

/**
 * bf_test_refuse_threads:
 * @refuse: whether new threads are refused from now on; any thread
 */
void bf_test_refuse_threads(bool refuse);

/**
 * bf_test_threads_refused:
 *
 * Returns: how many threads have been refused so far; any thread
 */
unsigned bf_test_threads_refused(void);
