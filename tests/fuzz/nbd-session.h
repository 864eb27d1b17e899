/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For the fuzzers of the NBD server: one connection whose input is given as a
 * whole, on a server that is made once. Everything runs on one loop, so an
 * input gives the same result each time.
 */
#pragma once

#include <glib.h>
#include <stddef.h>

/* Size of every export but "huge". */
#define NBD_SESSION_BYTES (256 * 1024)

/* Size of "huge": more than there is room for in 32 bits. */
#define NBD_SESSION_HUGE_BYTES (UINT64_C(6) << 30)

/* What the data of "file" and "data" are made of. */
#define NBD_SESSION_BYTE 0x11

/**
 * NbdSessionClient: what the client has to do with TLS
 * @NBD_SESSION_CLIENT_NO_TLS: nothing, nor has the server
 * @NBD_SESSION_CLIENT_TOO_PLAIN: the server demands it; the input is plain text
 * @NBD_SESSION_CLIENT_KNOWN: the input goes through TLS; the client has a
 *   certificate
 * @NBD_SESSION_CLIENT_BARE: alike, without a certificate
 * @NBD_SESSION_CLIENT_UNWANTED: alike, with one that is not allowed there
 */
typedef enum NbdSessionClient {
    NBD_SESSION_CLIENT_NO_TLS,
    NBD_SESSION_CLIENT_TOO_PLAIN,
    NBD_SESSION_CLIENT_KNOWN,
    NBD_SESSION_CLIENT_BARE,
    NBD_SESSION_CLIENT_UNWANTED,
} NbdSessionClient;

/**
 * NbdSessionEnd: what happens on a socket when the server has sent enough
 * @NBD_SESSION_END_WAIT: nothing: the client waits for the last reply
 * @NBD_SESSION_END_LEAVE: the client closes the socket
 * @NBD_SESSION_END_KILL: the server disconnects the client
 */
typedef enum NbdSessionEnd {
    NBD_SESSION_END_WAIT,
    NBD_SESSION_END_LEAVE,
    NBD_SESSION_END_KILL,
} NbdSessionEnd;

/**
 * NbdSessionPlan: how a connection shall be
 * @max_chunk: most bytes of one read or write; 0 for a real socket, with which
 *   payload may go through pipes. With TLS there is always one
 * @client: what the client has to do with TLS
 * @end: what happens when the server has sent @end_after bytes
 * @end_after: see @end
 */
typedef struct NbdSessionPlan {
    size_t max_chunk;
    NbdSessionClient client;
    NbdSessionEnd end;
    size_t end_after;
} NbdSessionPlan;

/**
 * nbd_session_run:
 * @input: what the client sends after STARTTLS, if there is TLS; emptied
 * @plan: how the connection shall be
 *
 * Without TLS there are the exports "e0" (writable, with a description), "ro"
 * (read-only), "slow" (writable; its requests suspend), "bad" (writable; its
 * flushes fail, and so does its second half), "file" (writable, data and holes,
 * the bitmaps "b0" and "b1"), "data" (the same file, read-only), "huge"
 * (writable; reads fail) and "through" (writable; every write is flushed, and
 * counted by a throttle group). With TLS there are "e0", and "ro" which nobody
 * may see.
 *
 * Returns: (transfer full): what the server sent, without the reply to STARTTLS
 */
GByteArray *nbd_session_run(GByteArray *input, const NbdSessionPlan *plan);
