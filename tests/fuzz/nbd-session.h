/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For the fuzzers of the NBD server: one connection whose input is given as a
 * whole, on a server that is made once. Everything runs on one loop, so an
 * input gives the same result each time.
 */
#pragma once

#include <glib.h>
#include <stddef.h>

/* Size of every export. */
#define NBD_SESSION_BYTES (256 * 1024)

/**
 * nbd_session_run:
 * @input: what the client sends; emptied
 * @max_chunk: most bytes of one read or write; 0 for a real socket, with which
 *   payload may go through pipes
 *
 * There are the exports "e0" (writable, with a description), "ro" (read-only),
 * "slow" (writable; its requests suspend) and "bad" (writable; its flushes
 * fail, and so does its second half).
 *
 * Returns: (transfer full): what the server sent
 */
GByteArray *nbd_session_run(GByteArray *input, size_t max_chunk);
