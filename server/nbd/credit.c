/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What bounds the memory of a connection: credits for requests and the bytes
 * of their data, and the input buffers that running writes hold.
 *
 * Credits come back when the reply is sent, so a peer that does not read its
 * replies stops being read. No connection takes more of the daemon's budget
 * than it leaves to the others, so there is always some left for a new one. A
 * connection without anything in flight may always have one request, whatever
 * the budget says: so no set of connections can block each other for ever. If
 * its data do not fit, it is done in pieces, and only one of them is paid for.
 */
#include "core/iovec.h"
#include "stats-private.h"
#include "transmit-private.h"

/* Takes @bytes more from the daemon's budget, if as much as the connection then
 * has is left to others. */
static bool
take_share(BfNbdClient *client, size_t bytes)
{
    BfBudget *budget = client->server->budget;

    if (client->held_bytes + 2 * bytes > bf_budget_free(budget) ||
        !bf_budget_try_take(budget, bytes)) {
        return false;
    }
    client->held_bytes += bytes;
    return true;
}

/* What has to be taken for @bytes more to be used. */
static size_t
missing_bytes(const BfNbdClient *client, size_t bytes)
{
    size_t needed = client->used_bytes + bytes;

    return needed > client->held_bytes ? needed - client->held_bytes : 0;
}

/* Sees to @bytes being held; in steps, to do it seldom. */
static bool
hold_bytes(BfNbdClient *client, size_t bytes)
{
    size_t missing = missing_bytes(client, bytes);

    return missing == 0 ||
           (missing < NBD_BUDGET_STEP && take_share(client, NBD_BUDGET_STEP)) ||
           take_share(client, missing);
}

/* Keeps no more than one step beside what is used, and that only while the
 * connection is busy. */
static void
give_back_bytes(BfNbdClient *client)
{
    size_t spare = client->in_flight > 0 ? NBD_BUDGET_STEP : 0;
    size_t excess = client->held_bytes - client->used_bytes;

    if (excess > 2 * spare) {
        bf_budget_give_back(client->server->budget, excess - spare);
        client->held_bytes -= excess - spare;
    }
}

/* Returns what is charged for a request of @bytes, 0 if it has to wait. */
static size_t
try_take(BfNbdClient *client, size_t bytes)
{
    size_t missing = 0;

    if (client->in_flight >= NBD_REQUESTS_MAX || client->in_pieces) {
        return 0;
    }
    if (client->in_flight > 0 && client->used_bytes + bytes > NBD_BYTES_MAX) {
        return 0;
    }
    if (hold_bytes(client, bytes)) {
        return bytes;
    }
    if (client->in_flight > 0) {
        return 0;
    }
    bytes = MIN(bytes, NBD_REQUEST_BYTES + NBD_PIECE_BYTES);
    missing = missing_bytes(client, bytes);
    bf_budget_force_take(client->server->budget, missing);
    client->held_bytes += missing;
    return bytes;
}

/* Reads do not run far ahead of what the peer takes. With data for more than
 * this on its way, the next buffer would be gone from the processor's cache,
 * and the peer would wait for the first reply while the last one is read. */
#define NBD_REPLY_BYTES_MAX ((size_t)1024 * 1024)

void
bf_nbd_credit_co_wait_for_replies(BfNbdClient *client)
{
    while (!client->closing && !client->broken &&
           client->reply_bytes >= NBD_REPLY_BYTES_MAX) {
        bf_co_queue_co_wait(&client->reader_wait);
    }
}

BfNbdTask *
bf_nbd_credit_co_take(BfNbdClient *client, size_t bytes)
{
    BfNbdTask *task = NULL;
    size_t credit = 0;

    bytes += NBD_REQUEST_BYTES;
    while (!client->closing && !client->broken) {
        credit = try_take(client, bytes);
        if (credit > 0) {
            break;
        }
        bf_co_queue_co_wait(&client->reader_wait);
    }
    if (client->closing || client->broken) {
        return NULL;
    }
    client->in_flight++;
    bf_atomic_store(&client->stats->in_flight, client->in_flight);
    client->used_bytes += credit;
    client->in_pieces = credit < bytes;
    task = client->free_tasks;
    if (task != NULL) {
        client->free_tasks = task->next;
    } else {
        task = g_new(BfNbdTask, 1);
        task->client = client;
        task->input = NULL;
        task->buf = NULL;
        task->payload_pipe = NULL;
        task->contexts = NULL;
        task->heap = NULL;
        task->pipes = NULL;
    }
    task->next = NULL;
    task->credit = credit;
    task->in_pieces = credit < bytes;
    task->is_part = false;
    task->payload = NULL;
    task->body = NULL;
    task->body_bytes = 0;
    task->n_parts = 0;
    task->reply_bytes = 0;
    return task;
}

void
bf_nbd_credit_release(BfNbdTask *task)
{
    BfNbdClient *client = task->client;

    if (task->input != NULL) {
        bf_nbd_input_unpin(client, g_steal_pointer(&task->input));
    }
    if (task->buf != NULL) {
        bf_buffer_free(g_steal_pointer(&task->buf), task->buf_bytes);
    }
    g_clear_pointer(&task->heap, g_free);
    g_clear_pointer(&task->contexts, g_array_unref);
    if (task->payload_pipe != NULL) {
        bf_nbd_pipe_release(client, g_steal_pointer(&task->payload_pipe));
    }
    if (task->pipes != NULL) {
        bf_nbd_pipe_release(client, g_steal_pointer(&task->pipes));
    }
    client->used_bytes -= task->credit;
    client->reply_bytes -= task->reply_bytes;
    client->in_flight--;
    client->in_pieces = false;
    bf_atomic_store(&client->stats->in_flight, client->in_flight);
    give_back_bytes(client);
    task->next = client->free_tasks;
    client->free_tasks = task;
    bf_co_queue_wake_one(&client->reader_wait);
}

void
bf_nbd_credit_clear(BfNbdClient *client)
{
    g_assert(client->in_flight == 0 && client->used_bytes == 0);
    give_back_bytes(client);
    bf_nbd_credit_trim(client);
}

void
bf_nbd_credit_trim(BfNbdClient *client)
{
    while (client->free_tasks != NULL) {
        BfNbdTask *task = client->free_tasks;

        client->free_tasks = task->next;
        g_free(task);
    }
}

BfNbdInput *
bf_nbd_input_co_take(BfNbdClient *client)
{
    BfNbdInput *input = NULL;
    uint8_t *data = NULL;

    while (!client->closing && !client->broken && client->free_inputs == NULL &&
           client->n_inputs >= NBD_INPUTS_MAX) {
        bf_co_queue_co_wait(&client->reader_wait);
    }
    if (client->closing || client->broken) {
        return NULL;
    }
    if (client->free_inputs != NULL) {
        input = client->free_inputs;
        client->free_inputs = input->next;
        return input;
    }
    data = bf_buffer_new(NBD_INPUT_BYTES);
    if (data == NULL) {
        return NULL;
    }
    input = g_new0(BfNbdInput, 1);
    input->data = data;
    client->n_inputs++;
    return input;
}

void
bf_nbd_input_release(BfNbdClient *client, BfNbdInput *input)
{
    g_assert(input->pins == 0);
    if (client->free_inputs == NULL) {
        input->next = NULL;
        client->free_inputs = input;
        return;
    }
    bf_buffer_free(input->data, NBD_INPUT_BYTES);
    g_free(input);
    client->n_inputs--;
}

void
bf_nbd_input_unpin(BfNbdClient *client, BfNbdInput *input)
{
    input->pins--;
    if (input->pins == 0 && input != client->input) {
        bf_nbd_input_release(client, input);
        bf_co_queue_wake_one(&client->reader_wait);
    }
}

void
bf_nbd_input_trim(BfNbdClient *client)
{
    while (client->free_inputs != NULL) {
        BfNbdInput *input = client->free_inputs;

        client->free_inputs = input->next;
        bf_buffer_free(input->data, NBD_INPUT_BYTES);
        g_free(input);
        client->n_inputs--;
    }
}

void
bf_nbd_input_clear(BfNbdClient *client)
{
    if (client->input != NULL) {
        bf_nbd_input_release(client, g_steal_pointer(&client->input));
    }
    bf_nbd_input_trim(client);
    g_assert(client->n_inputs == 0);
}
