/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the sources of the nbd driver share: nbd.c (options, open, close,
 * queries), connect.c (a socket to a server, with limits), negotiate.c (the
 * handshake), reconnect.c (keeps connections up), transmit.c (requests and
 * sending), reply.c (receiving).
 *
 * Connections live on one loop, chosen when the node is opened; the node's
 * home may change later, so each request goes to that loop. All fields that
 * are not constant belong to it. Nothing that a server sends is trusted: every
 * length has a limit before memory is taken, and every wait a way to end it.
 */
#pragma once

#include "block/driver.h"
#include "core/co-io.h"
#include "crypto/tls-creds.h"
#include "io/channel.h"
#include "proto/nbd-extended.h"

/* Limits of time: from connect to connected, of the only attempt and of one of
 * many, and of the handshake. A host that was away is not asked again by TCP
 * itself before twice the time that has passed, hence the new attempts. */
#define NBDC_CONNECT_MAX_NS (30 * BF_NS_PER_SEC)
#define NBDC_CONNECT_AGAIN_NS (5 * BF_NS_PER_SEC)
#define NBDC_NEGOTIATE_MAX_NS (30 * BF_NS_PER_SEC)

/* How long closing waits for a flush, and for saying good-bye. */
#define NBDC_CLOSE_FLUSH_MAX_NS (5 * BF_NS_PER_SEC)
#define NBDC_BYE_MAX_NS BF_NS_PER_SEC

/* Connections of a node. */
#define NBDC_CONNS_DEFAULT 4
#define NBDC_CONNS_MAX 16

/* Requests under way on one connection; a power of two. */
#define NBDC_REQUESTS_MAX 128

/* Parts of a READ that are apart and need no memory of their own. */
#define NBDC_RANGES_FEW 4

/* Longest request that has no payload: without extended headers, or where the
 * server may have to write all of it; with them; and what it discards at once.
 */
#define NBDC_PIECE_MAX ((uint64_t)BF_GIB)
#define NBDC_LONG_PIECE_MAX (1024 * (uint64_t)BF_GIB)
#define NBDC_TRIM_MAX (64 * (uint64_t)BF_GIB)

/* What is received at once, and behind large payload. */
#define NBDC_INPUT_BYTES ((size_t)64 * 1024)
#define NBDC_SMALL_WINDOW ((size_t)4 * 1024)

typedef struct BfNbdcNode BfNbdcNode;
typedef struct BfNbdcConn BfNbdcConn;
typedef struct BfNbdcRequest BfNbdcRequest;

/*
 * What to connect to. Constant.
 * @address: owned
 * @server: owned: the address for messages
 * @name: owned: of the export
 * @context: owned: the metadata context to ask for
 * @context_required: without it the export is of no use
 * @creds: a reference, or NULL
 * @creds_id: owned: of the object, or NULL
 * @hostname: owned: what the server's certificate is for, or NULL
 */
typedef struct BfNbdcTarget {
    BfSocketAddress *address;
    char *server;
    char *name;
    char *context;
    bool context_required;
    BfTlsCreds *creds;
    char *creds_id;
    char *hostname;
} BfNbdcTarget;

/*
 * What the handshake led to.
 * @info: size, flags and block sizes; those are 0 if the server has told none
 * @structured: replies to READ are structured
 * @extended: headers are extended, and replies structured therefore
 * @has_context: BLOCK_STATUS can be asked
 * @context_id: of the context
 */
typedef struct BfNbdcExport {
    BfNbdExportInfo info;
    bool structured;
    bool extended;
    bool has_context;
    uint32_t context_id;
} BfNbdcExport;

/* A part of a READ that has been received: [first, last), relative to it. */
typedef struct BfNbdcRange {
    uint32_t first;
    uint32_t last;
} BfNbdcRange;

/*
 * A request, on the stack of whoever waits for it.
 * @length: bytes; when it is sent it becomes what the connection can say, and
 *     the request is about no more than that
 * @vec: READ: where to; WRITE: the data; else NULL
 * @pipe: WRITE: read end of a pipe with the data, instead of @vec; else NULL.
 *     Such a request is not sent a second time
 * @extents: BLOCK_STATUS: added to
 * @extents_start: bytes in @extents before
 * @pin: FLUSH: the connection it is counted by, and the only one it may take;
 *     NULL for any
 * @conn: the connection it is on
 * @head: as it is sent
 * @pieces: of @vec handed to the channel so far, plus one for @head
 * @sent: nothing of it is needed by the writer any more
 * @replied: the last piece of the reply is here
 * @lost: the connection ended before
 * @met_silence: because of silence_ns
 * @ret: 0 or -errno
 * @got_status: a chunk with the status is here
 * @n_errors: error chunks so far
 * @ranges: parts of a READ that are here, in order and apart: @few_ranges, or
 *     owned
 * @n_ranges: their number
 */
struct BfNbdcRequest {
    BfNbdCommand command;
    BfNbdRequestFlags flags;
    uint64_t offset;
    uint64_t length;
    BfIoVec *vec;
    const int *pipe;
    BfExtents *extents;
    uint64_t extents_start;
    BfNbdcConn *pin;

    BfNbdcConn *conn;
    uint64_t cookie;
    uint8_t head[BF_NBD_EXTENDED_REQUEST_BYTES];
    int pieces;
    bool sent;
    bool replied;
    bool lost;
    bool met_silence;
    int ret;
    bool got_status;
    unsigned n_errors;
    BfNbdcRange *ranges;
    unsigned n_ranges;
    BfNbdcRange few_ranges[NBDC_RANGES_FEW];
    BfCo *co;            /* waits, or NULL */
    BfNbdcRequest *next; /* in the queue of the writer */
};

/*
 * A connection, or the place of one that is to be made again.
 * @channel: owned; NULL while there is none
 * @exp: what was negotiated
 * @is_up: it takes requests
 * @was_up: it was up at least once
 * @got_reply: since it is up
 * @was_silent: it is lost because of @silence_ns
 * @gone: it could never be made, and is not tried again
 * @nap: fired to end a pause between attempts
 * @pause_ns: the next pause
 * @up_since_ns: when it came up last
 * @heard_ns: when something came last, or the first request went out
 * @silence: looks at @heard_ns now and then while it is up
 * @wrote: a write was acknowledged since the last flush went out
 * @flushing: flushes of what it wrote, sent or not, that may still fail to
 *     cover it
 * @in_flight: requests in @table
 * @queue: what is to be sent
 * @pinned: requests that wait for a place on this connection
 * @writing: the writer runs
 * @error: owned: why it ends, if known
 * @input: owned: what was received and not looked at: [start, end)
 * @window: most bytes to receive into @input at once
 */
struct BfNbdcConn {
    BfNbdcNode *node;
    unsigned index;
    BfChannel *channel;
    BfNbdcExport exp;
    bool is_up;
    bool was_up;
    bool got_reply;
    bool was_silent;
    bool gone;
    BfCancel nap;
    uint64_t pause_ns;
    uint64_t up_since_ns;
    uint64_t heard_ns;
    BfTimer silence;
    bool wrote;
    unsigned flushing;
    unsigned in_flight;
    BfNbdcRequest *table[NBDC_REQUESTS_MAX];
    BfNbdcRequest *queue;
    BfNbdcRequest **queue_tail;
    BfCoQueue pinned;
    bool writing;
    BfCoQueue writer_done;
    GError *error;
    uint8_t *input;
    size_t start;
    size_t end;
    size_t window;
};

/* An attempt to connect, which others may have to end. */
typedef struct BfNbdcAttempt BfNbdcAttempt;

/*
 * @loop: where the connections live; NULL until the node is opened. Constant
 * @target: constant
 * @first: what the first connection has negotiated; constant after open but
 *     for its flags, those that the node was opened for writing with
 * @abilities: flags that all connections have; of any loop
 * @read_only: nobody writes: the export may come back with fewer of them. Of
 *     any loop
 * @silence_ns: a connection that owes replies and is silent for as long is
 *     lost; 0 for never. Constant
 * @reconnect_delay_ns: how long requests wait for a connection. Constant
 * @main_closing: of main: the node is being closed
 * @stopping: no more waiting and connecting
 * @closing: the node is being closed
 * @stop: fired with @stopping
 * @attempts: connections that are being made
 * @conns: owned: those of the node
 * @n_conns: their number
 * @n_up: how many take requests
 * @keepers: coroutines that keep connections
 * @was_lost: all connections were lost
 * @told_lost: and that was told
 * @told_ns: when, the last time
 * @trouble: owned: why it cannot be connected again, as it was told, or NULL
 * @wanted: somebody needs a connection while there is none
 * @expired: @reconnect_delay_ns is over
 * @cancels: how often all waiting requests were told to fail
 * @delay: runs while requests may wait for a connection
 * @ready: requests that wait for a connection or a free place
 * @generation: makes cookies of different requests differ
 * @wrote_lost: a connection was lost that needed a flush
 */
struct BfNbdcNode {
    BfNode base;       /* first: a BfNode pointer converts to this */
    bool main_closing; /* apart from what the loop writes */
    BfLoop *loop;
    BfNbdcTarget target;
    BfNbdcExport first;
    BfAtomicU64 abilities;
    BfAtomicU64 read_only;
    uint64_t silence_ns;
    uint64_t reconnect_delay_ns;
    uint64_t open_timeout_ns;
    unsigned wanted_conns;

    bool stopping;
    bool closing;
    BfCancel stop;
    BfNbdcAttempt *attempts;
    BfNbdcConn *conns[NBDC_CONNS_MAX];
    unsigned n_conns;
    unsigned n_up;
    BfWaitGroup keepers;
    bool was_lost;
    bool told_lost;
    uint64_t told_ns;
    char *trouble;
    bool wanted;
    bool expired;
    unsigned cancels;
    BfTimer delay;
    BfCoQueue ready;
    uint64_t generation;
    bool wrote_lost;
};

/* No new connections: look again after each wait. */
static inline bool
bf_nbdc_is_ending(const BfNbdcNode *self)
{
    return self->stopping || self->closing;
}

/* reconnect.c: the node was reopened for writing, with its abilities now. */
void bf_nbdc_is_writable_now(BfNbdcNode *self);

/* connect.c: a connection that is ready for requests, or NULL. Takes at most
 * @connect_ns until there is a socket, and goes on until @deadline_ns (or
 * BF_FOREVER: the handshake has its limit); ends early when the node is
 * stopping. */
BfChannel *bf_nbdc_co_connect(BfNbdcNode *self, uint64_t connect_ns,
                              uint64_t deadline_ns, BfNbdcExport *ret_exp,
                              GError **error);
/* Ends all attempts of @self, which fail. */
void bf_nbdc_end_attempts(BfNbdcNode *self);

/* negotiate.c: the handshake. @channel is replaced if TLS begins. */
bool bf_nbdc_co_negotiate(BfChannel **channel, const BfNbdcTarget *target,
                          BfNbdcExport *ret_exp, GError **error);
/* Text of a server, fit to be shown: owned; NULL if there is none. */
char *bf_nbdc_clean_text(const char *text, size_t len);

/* reconnect.c */
/* Makes the first connection; on the node's loop. */
bool bf_nbdc_co_open_link(BfNbdcNode *self, GError **error);
/* Flushes if need be, leaves, ends all. All zero is fine. */
void bf_nbdc_co_close_link(BfNbdcNode *self);
/* No more waiting: see BfDriver.stop_waiting. */
void bf_nbdc_stop(BfNbdcNode *self);
/* Requests fail now, those under way too. */
void bf_nbdc_cancel_requests(BfNbdcNode *self);
/* A connection that can take a request, waiting for one if need be; or NULL
 * when it is time to fail. @cancels: BfNbdcNode.cancels when the request came
 */
BfNbdcConn *bf_nbdc_co_pick(BfNbdcNode *self, BfNbdcConn *pin,
                            unsigned cancels);

/* transmit.c: on the node's loop. */
int bf_nbdc_co_request(BfNbdcNode *self, BfNbdcRequest *req);
/* Flushes wherever something was written. */
int bf_nbdc_co_flush_all(BfNbdcNode *self);
/* The last piece of a reply is here. */
void bf_nbdc_request_replied(BfNbdcConn *conn, BfNbdcRequest *req);
/* The connection has ended: all its requests are lost. Waits for the writer,
 * and frees the channel. */
void bf_nbdc_co_lose_requests(BfNbdcConn *conn);
/* Ends a connection; @error is taken, if it is the first. */
void bf_nbdc_break(BfNbdcConn *conn, GError *error);
/* The last message on a connection. */
void bf_nbdc_co_say_bye(BfNbdcConn *conn);

/* reply.c: receives until the connection ends; then the error is set. */
void bf_nbdc_co_receive(BfNbdcConn *conn, GError **error);
