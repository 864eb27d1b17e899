/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the sources share that carry the requests of a client: all of them run
 * on the client's loop. Its state is in nbd-private.h.
 */
#pragma once

#include "nbd-private.h"

/*
 * transmit.c, input.c, command.c, credit.c, pipe.c: on the client's loop.
 */

/* Is the rest of a long request pointless, because nobody is there any more who
 * would hear of it? Who leaves in due form wants all of what he has asked for.
 */
static inline bool
bf_nbd_transmit_is_pointless(const BfNbdClient *client)
{
    return client->closing || client->abandoned;
}

/* What has come and was not parsed yet. */
static inline size_t
bf_nbd_input_bytes(const BfNbdClient *client)
{
    return client->end - client->start;
}

/* Reads until @need bytes are in the input buffer. */
BfNbdInputStatus bf_nbd_input_co_fill(BfNbdClient *client, size_t need,
                                      GError **error);

/* Does that in the middle of a request, where the end is a failure. */
bool bf_nbd_input_co_need(BfNbdClient *client, size_t need, GError **error);

/* Drops @bytes of payload. */
bool bf_nbd_input_co_skip(BfNbdClient *client, size_t bytes, GError **error);

/* Receives payload into @buf, and what follows it into the input buffer. */
bool bf_nbd_input_co_receive(BfNbdClient *client, uint8_t *buf, size_t bytes,
                             GError **error);

/* Lets replies leave that are ready, before the reader waits for more. */
void bf_nbd_input_co_let_writer_run(BfNbdClient *client);

/* Limits how long the peer may leave the last replies unread: starts anew. */
void bf_nbd_transmit_limit_end(BfNbdClient *client);

/* Length of the header of a request of this client. */
size_t bf_nbd_transmit_request_bytes(const BfNbdClient *client);

/* Parses the header at @data. Also when that fails, what can be known of the
 * request is there. */
bool bf_nbd_transmit_parse(const BfNbdClient *client, const uint8_t *data,
                           BfNbdRequest *ret_request);

/* Before anything else of the transmission. */
void bf_nbd_transmit_begin(BfNbdClient *client);

/* Serves requests until the peer leaves or the connection breaks; then all
 * requests have ended. Or until nothing has come for long; then it is called
 * again, at once or when a rest is over. */
BfNbdTransmitStatus bf_nbd_transmit_co_run(BfNbdClient *client, GError **error);

/* While it does not run and no request is in flight: keeps only what has to be
 * kept, and calls @go_on with the client when something has come or the channel
 * is shut down; no coroutine does that. False: there is something already, or
 * the channel cannot tell. */
bool bf_nbd_transmit_rest(BfNbdClient *client, BfFn *go_on);

/* idle.c: looks after the limits of a client that does nothing, if there are
 * any, until they are stopped. */
void bf_nbd_idle_start(BfNbdClient *client);
void bf_nbd_idle_stop(BfNbdClient *client);

/* Does a request and queues its reply; @arg is the BfNbdTask. A coroutine. */
void bf_nbd_command_co_run(void *arg);

/* Waits until data for less than a bound is on its way to the peer: for
 * requests that would add to it, and only for those, so that a peer that writes
 * before it reads is not held up. */
void bf_nbd_credit_co_wait_for_replies(BfNbdClient *client);

/* A task with room for @bytes of data in the credits; waits for it. NULL if
 * the client is to end. */
BfNbdTask *bf_nbd_credit_co_take(BfNbdClient *client, size_t bytes);

/* Frees what a task has, gives its credits back and wakes the reader. */
void bf_nbd_credit_release(BfNbdTask *task);

/* Frees the tasks and gives the rest of the budget back. */
void bf_nbd_credit_clear(BfNbdClient *client);

/* Frees the tasks that are not in use. */
void bf_nbd_credit_trim(BfNbdClient *client);

/* An input buffer for @client; waits if writes hold too many. NULL if the
 * client is to end or memory is short. */
BfNbdInput *bf_nbd_input_co_take(BfNbdClient *client);

/* Ends a pin of @input. */
void bf_nbd_input_unpin(BfNbdClient *client, BfNbdInput *input);

/* Gives back @input, which nobody pins. */
void bf_nbd_input_release(BfNbdClient *client, BfNbdInput *input);

/* Frees the input buffers that are not in use. */
void bf_nbd_input_trim(BfNbdClient *client);

/* Frees the input buffers; nobody pins one. */
void bf_nbd_input_clear(BfNbdClient *client);

/* Tries to do a READ through pipes and queues the reply. False: nothing has
 * happened, read into a buffer. */
bool bf_nbd_pipe_co_read(BfNbdTask *task);

/* May the payload of a WRITE go through pipes? Only whole pages, as only those
 * can be written at once. And a node that keeps pipes has to send what its
 * connection loses a second time, and could not. */
bool bf_nbd_pipe_suits_write(BfNbdClient *client, const BfNbdRequest *request);

/* An empty pipe that takes @bytes, or NULL: none is free. */
BfNbdPipe *bf_nbd_pipe_take(BfNbdClient *client, size_t bytes);

/* Receives payload, of which nothing was read yet, into @pipe, or, if it comes
 * in too small pieces, into a buffer of @bytes; @pipe is NULL then, and if
 * @ret_buf is so too, there was no memory for it. False: the connection ends;
 * the pipe is still the caller's. */
bool bf_nbd_pipe_co_fill(BfNbdClient *client, BfNbdPipe **pipe, size_t bytes,
                         uint8_t **ret_buf, GError **error);

/* Moves what @pipe has into a new buffer of @bytes, and gives the pipe back.
 * NULL: there is no memory, and the data are gone. */
uint8_t *bf_nbd_pipe_unload(BfNbdClient *client, BfNbdPipe *pipe, size_t bytes);

/* Gives back pipes; those with @bytes left are closed. */
void bf_nbd_pipe_release(BfNbdClient *client, BfNbdPipe *pipes);

/* Closes the free pipes. */
void bf_nbd_pipe_clear(BfNbdClient *client);

/* What precedes a request, or its pieces; command.c. False: its client has gone
 * or has to, and it is not to be done. */
bool bf_nbd_command_co_begin(BfNbdTask *task);

/* Writes a piece of the payload. Returns 0 or -errno, with -ENOSPC for a range
 * that is not inside of the node any more. */
int bf_nbd_command_co_write_piece(BfNbdTask *task, uint8_t *buf,
                                  uint64_t offset, size_t bytes);

/* Does that with what @pipe has, and gives it back. */
int bf_nbd_command_co_write_pipe(BfNbdTask *task, BfNbdPipe *pipe,
                                 uint64_t offset);

/* Replies to a WRITE that came to @ret. */
void bf_nbd_command_end_write(BfNbdTask *task, int ret);

/*
 * pieces.c: requests whose task is done in pieces.
 */

/* Does a READ and replies. */
void bf_nbd_pieces_co_read(BfNbdTask *task);

/* Does a WRITE, of which no payload was read yet, and replies. False: the
 * connection ends, and the task is released. Called by the reader. */
bool bf_nbd_pieces_co_write(BfNbdTask *task, GError **error);

/*
 * spread.c: large writes that are done while they come.
 */

/* Should a WRITE be done like that? */
bool bf_nbd_spread_wants(BfNbdClient *client, const BfNbdRequest *request);

/* Does a WRITE, of which no payload was read yet, and replies. @by_pipe: it may
 * go through pipes. False: the connection ends, and the task is or will be
 * released. Called by the reader. */
bool bf_nbd_spread_co_write(BfNbdTask *task, bool by_pipe, GError **error);

/*
 * reply.c: on the client's loop. Each of the first group makes the reply of a
 * task and queues it; the task belongs to the writer then.
 */

/* Ends the connection in due form, instead of any reply: nothing is queued or
 * being sent. */
void bf_nbd_reply_bye(BfNbdClient *client);

/* Success without data. */
void bf_nbd_reply_done(BfNbdTask *task);

/* Success of a READ whose data are in the task's buffer. */
void bf_nbd_reply_data(BfNbdTask *task);

/* Success of a READ whose data are in the task's pipes. */
void bf_nbd_reply_pipe(BfNbdTask *task);

/* Success of a READ that found only zeroes; needs structured replies. */
void bf_nbd_reply_hole(BfNbdTask *task);

/* Sends head and body of the task as a part of its reply, and waits until they
 * have left. False: nothing more can be sent. */
bool bf_nbd_reply_co_part(BfNbdTask *task);

/* Head and body of the task are the last part of a successful reply. */
void bf_nbd_reply_last_part(BfNbdTask *task);

/* Parts of a simple reply have left, and the rest cannot be had: @err. Ends the
 * connection. */
void bf_nbd_reply_break(BfNbdTask *task, int err);

/* Success in @n pieces that are in the task's heap buffer, as is the list: all
 * that is sent. Few enough for any batch. */
void bf_nbd_reply_parts(BfNbdTask *task, struct iovec *parts, unsigned n);

/* Writes the header of a chunk of the task's reply, in the form that the client
 * has negotiated; returns its length. Queues nothing. */
size_t bf_nbd_reply_put_chunk(const BfNbdTask *task, uint8_t *buf,
                              const BfNbdChunk *chunk);

/*
 * sparse.c: on the client's loop.
 */

/* Replies to a READ, whose data are in the task's buffer, with chunks for holes
 * where there are many zeroes. False: there are not, nothing has happened.
 * Needs structured replies. */
bool bf_nbd_sparse_reply(BfNbdTask *task);

/* Failure: @err is a positive errno value. */
void bf_nbd_reply_error(BfNbdTask *task, int err, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

/* One or more BLOCK_STATUS chunks, all in the task's heap buffer. */
void bf_nbd_reply_status(BfNbdTask *task, size_t bytes);
