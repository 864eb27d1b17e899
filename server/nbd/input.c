/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The input buffer of a connection, as its reader fills it; and what is given
 * back when nothing has come for a while.
 *
 * Writes that run from a buffer pin it, so bytes in front of what was not
 * parsed yet must not move while there are pins: the rest goes on in another
 * buffer then.
 */
#include "core/error.h"
#include "core/loop.h"
#include "core/util.h"
#include "stats-private.h"
#include "transmit-private.h"

/* Makes room for @need bytes from the start of what is there. */
static bool
input_co_make_room(BfNbdClient *client, size_t need, GError **error)
{
    size_t bytes = bf_nbd_input_bytes(client);
    BfNbdInput *old = client->input;
    BfNbdInput *input = old;

    if (old->pins > 0) {
        if (client->start + need <= NBD_INPUT_BYTES &&
            client->end + NBD_INPUT_SMALL_WINDOW <= NBD_INPUT_BYTES) {
            return true;
        }
        /* Running writes need what is in front. */
        input = bf_nbd_input_co_take(client);
        if (input == NULL) {
            client->left = BF_NBD_CLIENT_DISCONNECT_REASON_NO_MEMORY;
            bf_set_error(error, "no input buffer could be had");
            return false;
        }
        memcpy(input->data, old->data + client->start, bytes);
        client->input = input;
        if (old->pins == 0) {
            bf_nbd_input_release(client, old);
        }
    } else if (client->start > 0 && (bytes <= NBD_INPUT_SMALL_WINDOW ||
                                     client->start + need > NBD_INPUT_BYTES)) {
        memmove(input->data, input->data + client->start, bytes);
    } else {
        return true;
    }
    client->start = 0;
    client->end = bytes;
    return true;
}

/*
 * A peer that gets all of its replies at once has nothing to do before, and
 * leaves us nothing to do until it has dealt with them: both sleep in turns,
 * and to wake up takes longer than some requests. So after our loop has slept,
 * for so many receives, a part of the requests that came at once is answered
 * before the others are looked at. A loop that is busy has more of fewer sends.
 */
#define SPLIT_READS 4096
#define SPLIT_PARTS 4
#define PART_REPLIES_MIN 2
#define PART_REPLIES_MAX 8

static void
split_replies(BfNbdClient *client, bool has_slept)
{
    unsigned part = client->n_came / SPLIT_PARTS;

    client->n_came = 0;
    if (has_slept) {
        client->split_reads = SPLIT_READS;
    } else if (client->split_reads > 0) {
        client->split_reads--;
    }
    client->ahead_replies =
        client->split_reads > 0
            ? CLAMP(part, PART_REPLIES_MIN, PART_REPLIES_MAX)
            : UINT_MAX;
}

/* May the reader go until something comes? */
static bool
can_rest(const BfNbdClient *client)
{
    return client->between && client->in_flight == 0 && !client->writing &&
           bf_nbd_input_bytes(client) == 0;
}

static void start_idle_timer(BfNbdClient *client);

static void
give_back_spare(void *arg)
{
    BfNbdClient *client = arg;

    bf_loop_tidy();
    client->idle_timer_runs = false;
    if (client->was_busy || client->in_flight > 0) {
        start_idle_timer(client);
        return;
    }
    bf_nbd_pipe_clear(client);
    bf_nbd_input_trim(client);
    bf_nbd_credit_trim(client);
    if (can_rest(client)) {
        /* If there is something after all, it is tried again. */
        start_idle_timer(client);
        bf_channel_interrupt_read(client->channel);
    }
}

/* A look at the connection now and then, until it has been idle. */
static void
start_idle_timer(BfNbdClient *client)
{
    client->was_busy = false;
    client->idle_timer_runs = true;
    bf_timer_start(&client->idle_timer, NBD_IDLE_NS, give_back_spare, client);
}

void
bf_nbd_input_co_let_writer_run(BfNbdClient *client)
{
    if (client->writing && client->replies != NULL) {
        bf_co_yield();
    }
    client->was_busy = true;
    if (!client->idle_timer_runs) {
        start_idle_timer(client);
    }
}

BfNbdInputStatus
bf_nbd_input_co_fill(BfNbdClient *client, size_t need, GError **error)
{
    while (bf_nbd_input_bytes(client) < need) {
        uint64_t sleeps = 0;
        size_t room = 0;
        ssize_t n = 0;

        bf_nbd_input_co_let_writer_run(client);
        if (!input_co_make_room(client, need, error)) {
            return BF_NBD_INPUT_FAILED;
        }
        room = NBD_INPUT_BYTES - client->end;
        room = MIN(room, MAX(client->window, need));
        /* Who has all replies asks for more, if anything. */
        client->channel->reads_soon = can_rest(client);
        sleeps = bf_loop_sleeps();
        n = bf_channel_co_read(client->channel,
                               client->input->data + client->end, room, error);
        split_replies(client, bf_loop_sleeps() != sleeps);
        if (n == BF_CHANNEL_INTERRUPTED) {
            g_assert(client->between);
            return BF_NBD_INPUT_REST;
        }
        if (n < 0) {
            return BF_NBD_INPUT_FAILED;
        }
        if (n == 0) {
            return BF_NBD_INPUT_EOF;
        }
        bf_nbd_stats_arrived(client);
        client->end += n;
        if ((size_t)n == room && !client->large_writes) {
            client->window = NBD_INPUT_BYTES;
        }
    }
    return BF_NBD_INPUT_OK;
}

bool
bf_nbd_input_co_need(BfNbdClient *client, size_t need, GError **error)
{
    switch (bf_nbd_input_co_fill(client, need, error)) {
    case BF_NBD_INPUT_OK:
        return true;
    case BF_NBD_INPUT_EOF:
        bf_set_error(error, "the peer left in the middle of a request");
        break;
    case BF_NBD_INPUT_FAILED:
        break;
    case BF_NBD_INPUT_REST:
        g_assert_not_reached(); /* this is not between requests */
    }
    return false;
}

bool
bf_nbd_input_co_skip(BfNbdClient *client, size_t bytes, GError **error)
{
    client->large_writes = false;
    client->window = NBD_INPUT_BYTES;
    for (;;) {
        size_t piece = MIN(bytes, bf_nbd_input_bytes(client));

        client->start += piece;
        bytes -= piece;
        if (bytes == 0) {
            return true;
        }
        if (!bf_nbd_input_co_need(client, 1, error)) {
            return false;
        }
    }
}

bool
bf_nbd_input_co_receive(BfNbdClient *client, uint8_t *buf, size_t bytes,
                        GError **error)
{
    size_t piece = MIN(bytes, bf_nbd_input_bytes(client));

    memcpy(buf, client->input->data + client->start, piece);
    client->start += piece;
    buf += piece;
    bytes -= piece;
    while (bytes > 0) {
        struct iovec iov[2] = {{.iov_base = buf, .iov_len = bytes}};
        ssize_t n = 0;

        bf_nbd_input_co_let_writer_run(client);
        if (!input_co_make_room(client, NBD_INPUT_SMALL_WINDOW, error)) {
            return false;
        }
        iov[1].iov_base = client->input->data + client->end;
        iov[1].iov_len = MIN(NBD_INPUT_BYTES - client->end,
                             MIN(NBD_INPUT_SMALL_WINDOW, client->window));
        n = bf_channel_co_readv(client->channel, iov, 2, error);
        if (n < 0) {
            return false;
        }
        if (n == 0) {
            bf_set_error(error, "the peer left in the middle of a write");
            return false;
        }
        bf_nbd_stats_arrived(client);
        if ((size_t)n > bytes) {
            client->end += n - bytes;
            n = bytes;
        }
        buf += n;
        bytes -= n;
    }
    return true;
}
