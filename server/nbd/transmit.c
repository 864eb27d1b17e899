/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The reader of a connection: takes requests from the channel, checks them and
 * starts each as a coroutine.
 *
 * A connection without a request rests: it has no reader, and so neither a
 * stack nor buffers, until something comes. It does so at first, and when
 * nothing has come for NBD_IDLE_NS. What wants to end it shuts its channel
 * down, which brings the reader back.
 *
 * It reads as much as there is, starts all whole requests in it, and lets the
 * writer run before it reads again: one receive and one send for many requests.
 * A small write runs from the input buffer and pins it; the rest of a large one
 * is received into a buffer of its own. Nothing is allocated for a request
 * before it has passed all checks and has its credits.
 */
#include "core/error.h"
#include "core/util.h"
#include "stats-private.h"
#include "transmit-private.h"

/* Writes above this are received into a buffer of their own. */
#define IN_PLACE_MAX ((size_t)32 * 1024)

/* Reads at least this large go through a pipe, if the channel can: on a UNIX
 * socket, on others, and where the channel encrypts. Below, the copy is
 * cheaper. */
#define PIPE_MIN_LOCAL ((size_t)16 * 1024)
#define PIPE_MIN_REMOTE ((size_t)64 * 1024)
#define PIPE_MIN_SECURE ((size_t)256 * 1024)

/* A UNIX socket holds some 200 KiB. The peer fills it again while a piece that
 * is smaller is written; a larger write as a whole would take no time to go to
 * the pipe, and most of it would be waiting for the peer. But who writes while
 * the peer fills it has to wake the peer up after each 150 KiB, and who waits
 * has to do so once: where that is dear, all is as it is over TCP. */
#define PIPE_WRITE_MAX_LOCAL ((size_t)256 * 1024)
#define PIPE_WRITE_PIECE_LOCAL ((size_t)64 * 1024)

/* Replies to reads leave when there are so many bytes of them, although more
 * requests are there, if the channel encrypts: the peer decrypts them while the
 * next ones are read and encrypted, so neither waits for the other. It is
 * about four full records. Without encryption a peer is done so soon that
 * fewer and larger sends are better. */
#define AHEAD_SECURE ((size_t)60 * 1024)

/* Reads of so many bytes are begun in one turn. They may all be done at once,
 * and cost the same where holes are all that there is to send. */
#define TURN_BYTES ((size_t)4 * 1024 * 1024)

/*
 * Checks.
 */

/* Why a request is refused. */
typedef struct BfNbdRefusal {
    int err; /* positive errno value; 0: it is not refused */
    const char *text;
} BfNbdRefusal;

static unsigned
allowed_flags(const BfNbdClient *client, uint16_t command)
{
    unsigned flags = BF_NBD_REQUEST_FUA;

    switch (command) {
    case BF_NBD_COMMAND_READ:
        return client->structured ? flags | BF_NBD_REQUEST_DF : flags;
    case BF_NBD_COMMAND_WRITE:
        return client->extended ? flags | BF_NBD_REQUEST_PAYLOAD_LEN : flags;
    case BF_NBD_COMMAND_WRITE_ZEROES:
        return flags | BF_NBD_REQUEST_NO_HOLE | BF_NBD_REQUEST_FAST_ZERO;
    case BF_NBD_COMMAND_BLOCK_STATUS:
        return flags | BF_NBD_REQUEST_REQ_ONE;
    default:
        return flags;
    }
}

static bool
changes_data(uint16_t command)
{
    return command == BF_NBD_COMMAND_WRITE ||
           command == BF_NBD_COMMAND_WRITE_ZEROES ||
           command == BF_NBD_COMMAND_TRIM;
}

/* Should a client that has agreed on block sizes keep to them? TRIM is a hint,
 * and QEMU gives it for the parts of blocks too. */
static bool
has_to_be_aligned(uint16_t command)
{
    return command != BF_NBD_COMMAND_FLUSH && command != BF_NBD_COMMAND_TRIM;
}

/* READ, WRITE and CACHE have a limit; the others move no data. */
static bool
is_too_long(const BfNbdRequest *request)
{
    return request->length > BF_NBD_PAYLOAD_MAX &&
           (request->command == BF_NBD_COMMAND_READ ||
            request->command == BF_NBD_COMMAND_WRITE ||
            request->command == BF_NBD_COMMAND_CACHE);
}

/* What follows the header. With extended headers a flag says so, so that what
 * is not understood can be skipped; a write without it has data all the same.
 */
static uint64_t
payload_bytes(const BfNbdClient *client, const BfNbdRequest *request)
{
    if (request->command == BF_NBD_COMMAND_WRITE ||
        (client->extended &&
         (request->flags & BF_NBD_REQUEST_PAYLOAD_LEN) != 0)) {
        return request->length;
    }
    return 0;
}

/* NBD proto.md, Error values, says which error is for what. */
static BfNbdRefusal
check_request(const BfNbdClient *client, const BfNbdRequest *request)
{
    const BfExport *exp = &client->exp->base;
    const uint64_t size = bf_export_handle_size(exp, client->handle);

    if (request->command > BF_NBD_COMMAND_BLOCK_STATUS) {
        return (BfNbdRefusal){EINVAL, "invalid request type"};
    }
    if (is_too_long(request)) {
        return (BfNbdRefusal){EINVAL, "request is longer than 32 MiB"};
    }
    if (changes_data(request->command) && !exp->writable) {
        return (BfNbdRefusal){EPERM, "Export is read-only"};
    }
    if (!bf_range_fits(request->offset, request->length, size)) {
        bool no_space = request->command == BF_NBD_COMMAND_WRITE ||
                        request->command == BF_NBD_COMMAND_WRITE_ZEROES;

        return (BfNbdRefusal){no_space ? ENOSPC : EINVAL, "operation past EOF"};
    }
    if ((request->flags & ~allowed_flags(client, request->command)) != 0) {
        return (BfNbdRefusal){EINVAL, "unsupported flags"};
    }
    if (((request->offset | request->length) & client->unaligned_bits) != 0 &&
        has_to_be_aligned(request->command)) {
        return (BfNbdRefusal){EINVAL, "not a multiple of the block size"};
    }
    if (request->command == BF_NBD_COMMAND_BLOCK_STATUS) {
        if (bf_nbd_meta_count(client) == 0) {
            return (BfNbdRefusal){EINVAL, "CMD_BLOCK_STATUS not negotiated"};
        }
        if (request->length == 0) {
            return (BfNbdRefusal){EINVAL, "need non-zero length"};
        }
    }
    return (BfNbdRefusal){0, NULL};
}

/*
 * Requests.
 */

/* Replies to a request that is not done. */
static bool
reader_co_refuse(BfNbdClient *client, const BfNbdRequest *request,
                 BfNbdRefusal refusal)
{
    BfNbdTask *task = bf_nbd_credit_co_take(client, 0);

    if (task == NULL) {
        return false;
    }
    task->request = *request;
    task->begun_ns = client->arrived_ns;
    bf_nbd_reply_error(task, refusal.err,
                       "%s (command %s, flags 0x%x, from %" G_GUINT64_FORMAT
                       ", bytes %" G_GUINT64_FORMAT ")",
                       refusal.text, bf_nbd_command_name(request->command),
                       request->flags, request->offset, request->length);
    return true;
}

/* Can the payload be used where it lies? What the node would have to copy
 * because of its alignment goes into a buffer that is aligned. */
static bool
fits_in_place(const BfNbdClient *client, size_t bytes)
{
    return client->exp->base.limits.alignment <= 1 &&
           (bytes <= IN_PLACE_MAX || bytes <= bf_nbd_input_bytes(client));
}

/* Gets the payload of a write that was accepted. */
static bool
reader_co_take_payload(BfNbdClient *client, BfNbdTask *task, bool by_pipe,
                       GError **error)
{
    size_t bytes = task->request.length;

    client->large_writes = bytes > IN_PLACE_MAX;
    if (client->large_writes) {
        /* Through a pipe goes only what is still in the socket. */
        client->window =
            by_pipe ? client->request_bytes : NBD_INPUT_SMALL_WINDOW;
    }
    if (by_pipe && bf_nbd_input_bytes(client) == 0 &&
        (task->payload_pipe = bf_nbd_pipe_take(client, bytes)) != NULL) {
        bool ok = bf_nbd_pipe_co_fill(client, &task->payload_pipe, bytes,
                                      &task->buf, error);

        task->buf_bytes = bytes;
        task->payload = task->buf;
        return ok;
    }
    if (fits_in_place(client, bytes)) {
        if (!bf_nbd_input_co_need(client, bytes, error)) {
            return false;
        }
        task->input = client->input;
        task->input->pins++;
        task->payload = client->input->data + client->start;
        client->start += bytes;
        return true;
    }
    task->buf = bf_buffer_new(bytes);
    task->buf_bytes = bytes;
    task->payload = task->buf;
    if (task->buf == NULL) {
        return bf_nbd_input_co_skip(client, bytes, error);
    }
    /* One receive for many small ones is worth a copy. */
    if (bytes <= IN_PLACE_MAX && !bf_nbd_input_co_need(client, bytes, error)) {
        return false;
    }
    return bf_nbd_input_co_receive(client, task->buf, bytes, error);
}

static size_t
credit_of(const BfNbdClient *client, const BfNbdRequest *request,
          const GArray *contexts)
{
    switch (request->command) {
    case BF_NBD_COMMAND_READ:
    case BF_NBD_COMMAND_WRITE:
        return request->length;
    case BF_NBD_COMMAND_BLOCK_STATUS:
        return bf_nbd_meta_credit(client, request, contexts);
    default:
        return 0;
    }
}

/* Lets replies leave early where the peer has work with them. */
static void
reader_co_send_ahead(BfNbdClient *client)
{
    if ((client->reply_bytes >= client->ahead_bytes ||
         client->n_replies >= client->ahead_replies) &&
        client->replies != NULL) {
        bf_co_yield();
    }
}

/* Leaves others on this loop their turns. */
static void
reader_co_take_turns(BfNbdClient *client, size_t bytes)
{
    client->turn_bytes += bytes;
    if (client->turn_bytes >= TURN_BYTES) {
        client->turn_bytes = 0;
        bf_co_yield();
    }
}

/* Starts a request that has passed the checks. @contexts (nullable) is
 * transferred: what a BLOCK_STATUS names. */
static bool
reader_co_start(BfNbdClient *client, const BfNbdRequest *request,
                GArray *contexts, GError **error)
{
    BfNbdTask *task = NULL;

    reader_co_send_ahead(client);
    if (request->command == BF_NBD_COMMAND_READ) {
        reader_co_take_turns(client, request->length);
        bf_nbd_credit_co_wait_for_replies(client);
    }
    task = bf_nbd_credit_co_take(client, credit_of(client, request, contexts));
    if (task == NULL) {
        g_clear_pointer(&contexts, g_array_unref);
        bf_set_error(error, "the connection is being closed");
        return false;
    }
    task->request = *request;
    task->begun_ns = client->arrived_ns;
    task->contexts = contexts;
    if (G_UNLIKELY(task->in_pieces &&
                   request->command == BF_NBD_COMMAND_WRITE)) {
        client->large_writes = true;
        client->window = NBD_INPUT_SMALL_WINDOW;
        return bf_nbd_pieces_co_write(task, error);
    }
    if (request->command == BF_NBD_COMMAND_WRITE && request->length > 0) {
        bool suits_pipe = bf_nbd_pipe_suits_write(client, request);
        bool by_pipe = suits_pipe && request->length <= client->write_pipe_max;

        if (!by_pipe && bf_nbd_spread_wants(client, request)) {
            return bf_nbd_spread_co_write(task, suits_pipe, error);
        }
        client->receiving = true;
        if (!reader_co_take_payload(client, task, by_pipe, error)) {
            bf_nbd_credit_release(task);
            return false;
        }
        client->receiving = false;
        task->begun_ns = client->arrived_ns;
        if (task->payload == NULL && task->payload_pipe == NULL) {
            bf_nbd_reply_error(task, ENOMEM, "No memory");
            return true;
        }
    } else {
        client->large_writes = false;
    }
    bf_co_spawn(bf_nbd_command_co_run, task);
    return true;
}

/* Drops the payload of a request, of which nothing was read, and refuses it:
 * libnbd takes no reply to a write that it is still sending. */
static bool
reader_co_drop(BfNbdClient *client, const BfNbdRequest *request,
               BfNbdRefusal refusal, GError **error)
{
    uint64_t payload = payload_bytes(client, request);
    bool too_long = payload > BF_NBD_PAYLOAD_MAX;

    if (payload > 0 && !too_long &&
        !bf_nbd_input_co_skip(client, payload, error)) {
        return false;
    }
    if (!reader_co_refuse(client, request, refusal)) {
        bf_set_error(error, "the connection is being closed");
        return false;
    }
    if (too_long) {
        client->left = BF_NBD_CLIENT_DISCONNECT_REASON_PROTOCOL;
        bf_set_error(error,
                     "payload of %" G_GUINT64_FORMAT
                     " bytes, which is above the limit",
                     payload);
        return false;
    }
    return true;
}

/* A BLOCK_STATUS whose payload names the contexts. Without it, it is one as
 * any other. */
static bool
reader_co_status(BfNbdClient *client, const BfNbdRequest *request,
                 GError **error)
{
    size_t most = BF_NBD_STATUS_PAYLOAD_BYTES +
                  bf_nbd_meta_count(client) * BF_NBD_STATUS_ID_BYTES;
    BfNbdRefusal refusal = {EINVAL, "CMD_BLOCK_STATUS payload not valid"};
    BfNbdRequest plain = *request;
    GArray *contexts = NULL;
    const uint8_t *ids = NULL;
    size_t n_ids = 0;

    if (request->length > most) {
        return reader_co_drop(client, request, refusal, error);
    }
    if (!bf_nbd_input_co_need(client, request->length, error)) {
        return false;
    }
    plain.flags &= ~BF_NBD_REQUEST_PAYLOAD_LEN;
    if (bf_nbd_parse_status_payload(client->input->data + client->start,
                                    request->length, &plain.length, &ids,
                                    &n_ids)) {
        contexts = bf_nbd_meta_pick(client, ids, n_ids);
    }
    client->start += request->length;
    if (contexts != NULL) {
        refusal = check_request(client, &plain);
    }
    if (refusal.err == 0) {
        return reader_co_start(client, &plain, contexts, error);
    }
    g_clear_pointer(&contexts, g_array_unref);
    return reader_co_drop(client, &plain, refusal, error);
}

/* Takes one request from the input, which has its header. */
static bool
reader_co_request(BfNbdClient *client, const BfNbdRequest *request,
                  GError **error)
{
    BfNbdRefusal refusal = {EINVAL, "unexpected payload"};
    const BfNbdRefusal shutdown = {ESHUTDOWN, "the export is going away"};
    bool with_payload =
        client->extended && (request->flags & BF_NBD_REQUEST_PAYLOAD_LEN) != 0;

    if (G_UNLIKELY(client->leaving)) {
        return reader_co_drop(client, request, shutdown, error);
    }
    if (G_UNLIKELY(with_payload &&
                   request->command == BF_NBD_COMMAND_BLOCK_STATUS)) {
        return reader_co_status(client, request, error);
    }
    if (!with_payload || request->command == BF_NBD_COMMAND_WRITE) {
        refusal = check_request(client, request);
    }
    if (refusal.err == 0) {
        return reader_co_start(client, request, NULL, error);
    }
    return reader_co_drop(client, request, refusal, error);
}

size_t
bf_nbd_transmit_request_bytes(const BfNbdClient *client)
{
    return client->extended ? BF_NBD_EXTENDED_REQUEST_BYTES
                            : BF_NBD_REQUEST_BYTES;
}

bool
bf_nbd_transmit_parse(const BfNbdClient *client, const uint8_t *data,
                      BfNbdRequest *ret_request)
{
    return client->extended ? bf_nbd_parse_extended_request(data, ret_request)
                            : bf_nbd_parse_request(data, ret_request);
}

/* Waits until the header of a request is there. */
static BfNbdInputStatus
reader_co_header(BfNbdClient *client, GError **error)
{
    BfNbdInputStatus status = BF_NBD_INPUT_OK;

    client->between = true;
    status = bf_nbd_input_co_fill(client, client->request_bytes, error);
    client->between = false;
    return status;
}

/* Never returns %BF_NBD_TRANSMIT_FAILED without an error. */
static BfNbdTransmitStatus
reader_co_loop(BfNbdClient *client, GError **error)
{
    for (;;) {
        BfNbdRequest request;

        switch (reader_co_header(client, error)) {
        case BF_NBD_INPUT_OK:
            break;
        case BF_NBD_INPUT_EOF:
            /* If it has to leave, it is we who have ended the stream. */
            client->abandoned = !client->leaving;
            if (bf_nbd_input_bytes(client) == 0) {
                return BF_NBD_TRANSMIT_DONE; /* as many do, without a word */
            }
            bf_set_error(error, "the peer left in the middle of a request");
            return BF_NBD_TRANSMIT_FAILED;
        case BF_NBD_INPUT_FAILED:
            return BF_NBD_TRANSMIT_FAILED;
        case BF_NBD_INPUT_REST:
            return BF_NBD_TRANSMIT_RESTS;
        }
        if (!bf_nbd_transmit_parse(client, client->input->data + client->start,
                                   &request)) {
            reader_co_refuse(client, &request,
                             (BfNbdRefusal){EINVAL, "bad magic number"});
            client->left = BF_NBD_CLIENT_DISCONNECT_REASON_PROTOCOL;
            bf_set_error(error, "bad magic number of a request");
            return BF_NBD_TRANSMIT_FAILED;
        }
        client->start += client->request_bytes;
        client->n_came++;
        if (request.command == BF_NBD_COMMAND_DISC) {
            return BF_NBD_TRANSMIT_DONE;
        }
        if (!reader_co_request(client, &request, error)) {
            return BF_NBD_TRANSMIT_FAILED;
        }
    }
}

/*
 * The connection.
 */

static size_t
pipe_min(unsigned features)
{
    if ((features & BF_CHANNEL_SEND_PIPE) == 0) {
        return SIZE_MAX;
    }
    if ((features & BF_CHANNEL_SECURE) != 0) {
        return PIPE_MIN_SECURE;
    }
    return (features & BF_CHANNEL_LOCAL) != 0 ? PIPE_MIN_LOCAL
                                              : PIPE_MIN_REMOTE;
}

void
bf_nbd_transmit_begin(BfNbdClient *client)
{
    unsigned features = client->channel->features;

    client->ahead_bytes =
        (features & BF_CHANNEL_SECURE) != 0 ? AHEAD_SECURE : SIZE_MAX;
    client->ahead_replies = UINT_MAX;
    client->n_came = 0;
    client->split_reads = 0;
    client->pipe_min_bytes = pipe_min(features);
    client->write_pipe_max = 0;
    if ((features & BF_CHANNEL_RECV_PIPE) != 0 &&
        client->exp->base.limits.alignment <= 1) {
        bool overlaps = (features & BF_CHANNEL_LOCAL) != 0 &&
                        !client->server->wakes_are_dear;

        client->write_pipe_max =
            overlaps ? PIPE_WRITE_MAX_LOCAL : NBD_PIPE_BYTES;
        client->write_pipe_piece =
            overlaps ? PIPE_WRITE_PIECE_LOCAL : NBD_PIPE_BYTES;
    }
    client->request_bytes = bf_nbd_transmit_request_bytes(client);
    client->window = NBD_INPUT_BYTES;
    bf_nbd_stats_arrived(client);
    bf_nbd_idle_start(client);
}

bool
bf_nbd_transmit_rest(BfNbdClient *client, BfFn *go_on)
{
    if (!bf_channel_start_watch(client->channel, go_on, client)) {
        return false;
    }
    bf_timer_stop(&client->idle_timer);
    client->idle_timer_runs = false;
    bf_nbd_pipe_clear(client);
    bf_nbd_input_clear(client);
    bf_nbd_credit_clear(client);
    client->start = 0;
    client->end = 0;
    return true;
}

/* Gets the input buffer of a reader that starts. */
static bool
transmit_start(BfNbdClient *client, GError **error)
{
    if (client->input == NULL) {
        uint8_t *data = bf_buffer_new(NBD_INPUT_BYTES);

        if (data == NULL) {
            client->left = BF_NBD_CLIENT_DISCONNECT_REASON_NO_MEMORY;
            bf_set_error(error, "out of memory");
            return false;
        }
        client->input = g_new0(BfNbdInput, 1);
        client->input->data = data;
        client->n_inputs = 1;
        /* What negotiation has read behind its own end. */
        client->end =
            bf_nbd_ahead_take(client, client->input->data, NBD_INPUT_BYTES);
    }
    return true;
}

static void
end_expired(void *arg)
{
    BfNbdClient *client = arg;

    bf_channel_shutdown(client->channel);
}

void
bf_nbd_transmit_limit_end(BfNbdClient *client)
{
    bf_timer_stop(&client->timer);
    bf_timer_start(&client->timer, NBD_BYE_MAX_NS, end_expired, client);
}

/* Waits until every request has ended and its reply is sent or given up. */
static void
transmit_co_drain(BfNbdClient *client)
{
    client->ending = true;
    if (!client->leaving) {
        bf_nbd_idle_stop(client);
    }
    if (client->throttle != NULL &&
        (client->abandoned || client->closing || client->leaving)) {
        /* It is not kept until it may go on. What it waits for is not done: to
         * leave must not be a way past the limit. */
        bf_throttle_member_cancel_here(client->throttle);
    }
    if (client->writing) {
        bf_nbd_transmit_limit_end(client);
    }
    while (client->in_flight > 0 || client->writing) {
        bf_co_queue_co_wait(&client->reader_wait);
    }
}

/* After the last request has been read. */
static BfNbdTransmitStatus
transmit_co_end(BfNbdClient *client, BfNbdTransmitStatus status, GError **error)
{
    if (status == BF_NBD_TRANSMIT_FAILED && !client->leaving) {
        client->abandoned = true;
    }
    transmit_co_drain(client);
    if (client->write_error != NULL) {
        /* What the reader saw then is only a consequence. */
        g_clear_error(error);
        g_propagate_error(error, g_steal_pointer(&client->write_error));
        client->left = BF_NBD_CLIENT_DISCONNECT_REASON_CONNECTION;
        status = BF_NBD_TRANSMIT_FAILED;
    }
    if (!client->broken && !client->closing) {
        bf_nbd_transmit_limit_end(client);
        bf_channel_co_bye(client->channel);
        bf_timer_stop(&client->timer);
    }
    bf_timer_stop(&client->idle_timer);
    bf_nbd_idle_stop(client);
    bf_nbd_pipe_clear(client);
    bf_nbd_input_clear(client);
    bf_nbd_credit_clear(client);
    return status;
}

BfNbdTransmitStatus
bf_nbd_transmit_co_run(BfNbdClient *client, GError **error)
{
    BfNbdTransmitStatus status = BF_NBD_TRANSMIT_FAILED;

    if (transmit_start(client, error)) {
        status = reader_co_loop(client, error);
    }
    return status == BF_NBD_TRANSMIT_RESTS
               ? status
               : transmit_co_end(client, status, error);
}
