/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What bounds the memory of a connection: credits for requests and the bytes
 * of their data, and the input buffers that running writes hold.
 *
 * Credits come back when the reply is sent, so a peer that does not read its
 * replies stops being read. A connection without anything in flight may always
 * have one request, whatever the daemon's budget says: so no set of connections
 * can block each other for ever.
 */
#include "core/iovec.h"
#include "nbd-private.h"
#include "stats-private.h"

/* Takes @bytes from the daemon's budget; in steps, to do it seldom. */
static bool
hold_bytes(BfNbdClient *client, size_t bytes)
{
    BfBudget *budget = client->server->budget;
    size_t missing = 0;

    if (client->used_bytes + bytes <= client->held_bytes) {
        return true;
    }
    missing = client->used_bytes + bytes - client->held_bytes;
    if (missing < NBD_BUDGET_STEP &&
        bf_budget_try_take(budget, NBD_BUDGET_STEP)) {
        client->held_bytes += NBD_BUDGET_STEP;
        return true;
    }
    if (!bf_budget_try_take(budget, missing)) {
        if (client->in_flight > 0) {
            return false;
        }
        bf_budget_force_take(budget, missing);
    }
    client->held_bytes += missing;
    return true;
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

static bool
try_take(BfNbdClient *client, size_t bytes)
{
    if (client->in_flight >= NBD_REQUESTS_MAX) {
        return false;
    }
    if (client->in_flight > 0 && client->used_bytes + bytes > NBD_BYTES_MAX) {
        return false;
    }
    return hold_bytes(client, bytes);
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

    bytes += NBD_REQUEST_BYTES;
    while (!client->closing && !client->broken && !try_take(client, bytes)) {
        bf_co_queue_co_wait(&client->reader_wait);
    }
    if (client->closing || client->broken) {
        return NULL;
    }
    client->in_flight++;
    bf_atomic_store(&client->stats->in_flight, client->in_flight);
    client->used_bytes += bytes;
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
    task->credit = bytes;
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
