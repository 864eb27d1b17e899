/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process: pid file, going to the background, telling who waits that the
 * daemon is ready. On the main thread; none suspends.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <glib.h>

/**
 * bf_process_fill_standard_fds:
 *
 * Opens /dev/null as standard input, output and error where the starter has
 * closed them, so that none of them becomes something else that is opened. To
 * be called before anything is.
 *
 * Returns: false if that fails
 */
bool bf_process_fill_standard_fds(void);

/**
 * bf_process_daemonize:
 * @keep_umask: else it becomes 0027
 * @ret_ready_fd: (out) (transfer full): for bf_process_ready()
 * @error: set on failure
 *
 * Forks. Only the child returns; the parent waits for bf_process_ready() or
 * the child's end, and exits with 0 or 1. Must be called before any thread,
 * io_uring or TLS library is used.
 *
 * Returns: false on failure, in the parent
 */
bool bf_process_daemonize(bool keep_umask, int *ret_ready_fd, GError **error);

/**
 * bf_process_ready:
 * @ready_fd: (transfer full): from bf_process_daemonize()
 * @keep_stderr: messages still go where they went
 * @error: set on failure
 *
 * Lets go of the terminal and the working directory, and the parent exit.
 *
 * Returns: false on failure
 */
bool bf_process_ready(int ready_fd, bool keep_stderr, GError **error);

/**
 * bf_process_notify_systemd:
 * @state: for example "READY=1"
 *
 * Sends @state to the socket named by $NOTIFY_SOCKET, if there is one.
 */
void bf_process_notify_systemd(const char *state);

/**
 * bf_process_watchdog_ns:
 *
 * How often the service manager wants to hear "WATCHDOG=1"
 * (sd_watchdog_enabled(3)).
 *
 * Returns: half of its limit, nanoseconds; 0 if it does not
 */
uint64_t bf_process_watchdog_ns(void);

/**
 * BfPidfile: a pid file, locked and removed at the end
 */
typedef struct BfPidfile BfPidfile;

/**
 * bf_pidfile_new:
 * @path: where to; relative to the working directory
 * @error: set on failure: another daemon holds it, or it cannot be written
 *
 * Creates and locks a file with the process id in it.
 *
 * Returns: (transfer full): the pid file, or NULL
 */
BfPidfile *bf_pidfile_new(const char *path, GError **error);

/**
 * bf_pidfile_free:
 * @pidfile: (nullable): the file is removed
 */
void bf_pidfile_free(BfPidfile *pidfile);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfPidfile, bf_pidfile_free)
