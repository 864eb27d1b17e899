/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptors that this process was started with: sockets that systemd or
 * another supervisor listens on for us. On the main thread; none suspends.
 */
#pragma once

#include <glib.h>

/* The number of the first socket; the others follow. */
#define BF_ACTIVATION_FIRST_FD 3

/**
 * BfActivation: the sockets that a supervisor has passed, perhaps none
 */
typedef struct BfActivation BfActivation;

/**
 * bf_activation_new:
 *
 * Reads $LISTEN_PID, $LISTEN_FDS and $LISTEN_FDNAMES, and unsets them. To be
 * called before forking, as they name the process.
 *
 * Returns: (transfer full): the sockets
 */
BfActivation *bf_activation_new(void);

/**
 * bf_activation_free:
 * @activation: (nullable): sockets that nobody took are closed
 */
void bf_activation_free(BfActivation *activation);

/**
 * bf_activation_count:
 * @activation: the sockets
 *
 * Returns: how many the supervisor says that there are, of which not all need
 * be open
 */
unsigned bf_activation_count(const BfActivation *activation);

/**
 * bf_activation_take_fd:
 * @opaque: a BfActivation, so that this is a BfTakeFd
 * @name: number of any inherited descriptor, or the name of a socket that was
 *     passed; of several with one name the first that was not taken yet
 * @error: set on failure: there is none, or it is no socket
 *
 * Returns: (transfer full): the descriptor, or -1
 */
int bf_activation_take_fd(void *opaque, const char *name, GError **error);

/**
 * bf_activation_warn_unused:
 * @activation: the sockets
 *
 * Logs those that nobody took.
 */
void bf_activation_warn_unused(const BfActivation *activation);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfActivation, bf_activation_free)
