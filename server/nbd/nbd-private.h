/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the sources of the NBD server share.
 *
 * Know who owns what: a server, its exports and its list of clients belong to
 * main. A client is run by one loop at a time, which alone uses its channel and
 * everything below "the loop's"; main hands it over by messages. Fields that
 * never change after creation may be read anywhere.
 */
#pragma once

#include "core/atomic.h"
#include "core/co-io.h"
#include "core/co-lock.h"
#include "core/iovec.h"
#include "core/loop.h"
#include "io/address.h"
#include "io/channel.h"
#include "io/listener.h"
#include "io/peer-wait.h"
#include "proto/nbd-extended.h"
#include "proto/nbd.h"
#include "serve/export-kind.h"
#include "serve/nbd-server.h"

/* Largest payload of an option that is parsed; a GO with all numbers of
 * information is half as long. */
#define NBD_OPTION_PARSE_MAX (256 * 1024)

/* Those that are longer than this are rare; so many of them there may be at the
 * same time. */
#define NBD_OPTION_SMALL_MAX (16 * 1024)
#define NBD_LARGE_OPTIONS_MAX 16

/* What is read ahead in negotiation: the usual options with their payload come
 * in one piece then. */
#define NBD_AHEAD_BYTES 256

/* Negotiation on main is for what is quick: so many options, of so many bytes
 * each. */
#define NBD_QUICK_OPTIONS_MAX 8
#define NBD_QUICK_BYTES_MAX 256

/* In flight for one connection at most: requests, and bytes of their data. */
#define NBD_REQUESTS_MAX 256
#define NBD_BYTES_MAX ((size_t)64 * 1024 * 1024)

/* What a request costs beside its data: up to two coroutines when it waits for
 * storage. Above all it bounds their number, because each stack takes two of
 * the 65530 mappings that a process may have. */
#define NBD_REQUEST_BYTES ((size_t)64 * 1024)

/* Clients that use exports, also if the user sets no limit. */
#define NBD_CONNECTIONS_MAX 4096

/* Connections in negotiation; and those that wait for a place there. */
#define NBD_NEGOTIATING_MAX 256
#define NBD_WAITING_MAX 1024

/* A connection takes its part of the daemon's budget in steps of this, so that
 * small requests of several loops do not fight for one counter. */
#define NBD_BUDGET_STEP ((size_t)1024 * 1024)

/* What is in memory of a request that is done in pieces, which end at multiples
 * of this. */
#define NBD_PIECE_BYTES ((size_t)256 * 1024)

/* Size of an input buffer, and how many of them writes that are under way may
 * hold for one connection. */
#define NBD_INPUT_BYTES ((size_t)256 * 1024)
#define NBD_INPUTS_MAX 8

/* While large writes come, no more than this is read behind a request:
 * payload that comes with it has to be copied. */
#define NBD_INPUT_SMALL_WINDOW ((size_t)4 * 1024)

/* Pipes for reads and writes without a copy: size, and how many there may be
 * for one request, for one connection and for the server. The kernel lets a
 * user without privileges have 64 MiB of them. */
#define NBD_PIPE_BYTES ((size_t)1024 * 1024)
#define NBD_PIPES_REQUEST_MAX 4
#define NBD_PIPES_MAX 8
#define NBD_PIPES_ALL_MAX 48

/* Large reads that use a buffer after one has failed to use a pipe; and
 * writes. */
#define NBD_PIPE_SKIP 64

/* Longest text of an error chunk, with its NUL. */
#define NBD_TEXT_BYTES 128

/* When a connection ends: how long a peer may leave its last replies unread
 * without any progress. */
#define NBD_BYE_MAX_NS (10 * BF_NS_PER_SEC)

/* When the server or an export ends: how long peers may take to get the answers
 * to what they have asked. */
#define NBD_LEAVE_MAX_NS (2 * BF_NS_PER_SEC)

/* How long a busy connection's memory and pipes outlive its traffic. */
#define NBD_IDLE_NS BF_NS_PER_SEC

typedef struct BfNbdClient BfNbdClient;

/* Sockets that clients come through, and what is demanded of those that do. */
typedef struct BfNbdListener BfNbdListener;

/* What requests have come to; see stats-private.h. */
typedef struct BfNbdStats BfNbdStats;

/* Metadata contexts: their ids on the wire. Dirty bitmaps follow. */
typedef enum BfNbdContext {
    BF_NBD_CONTEXT_ALLOCATION,
    BF_NBD_CONTEXT_DEPTH,
    BF_NBD_CONTEXT_BITMAPS,
} BfNbdContext;

/* Bitmaps of one export. */
#define NBD_BITMAPS_MAX 256

/* Memory that the reply to one BLOCK_STATUS takes, about. */
#define NBD_STATUS_BYTES_MAX ((size_t)8 * 1024 * 1024)

/* Where connections come from that are in the lobby. */
typedef struct BfNbdSource {
    BfPeerSource key;
    unsigned refs;        /* of clients and others that wait */
    unsigned negotiating; /* clients, but those that are dropped */
    unsigned waiting;
    unsigned places_used;
} BfNbdSource;

/* What lobby.c has of a server. */
typedef struct BfNbdLobby {
    unsigned negotiating_max; /* constant */
    unsigned waiting_max;     /* constant */
    GHashTable *sources;      /* BfNbdSource by its key */
    GQueue waiting;           /* accepted, without a place in negotiation */
    GQueue negotiating;       /* BfNbdClient, by their lobby_link */
    unsigned n_dropped;   /* of them, to make room; they are gone in a moment */
    BfTimer timer;        /* until a client in negotiation may have to go */
    bool looking;         /* for what peers have sent, as one has to go */
    bool has_looked;      /* just now */
    unsigned places_used; /* by clients that use an export, or are about to */
    GQueue place_queue;   /* BfNbdClient: have chosen one and wait for it */
    BfCoQueue place_given; /* to one of them */
} BfNbdLobby;

struct BfNbdServer {
    /* Never changed. */
    BfObjects *objects;        /* (nullable) borrowed: live longer */
    BfPoolLane *authz_lane;    /* for rules that may block */
    uint64_t authz_max_ns;     /* so long a client waits for them */
    const BfNbdEvents *events; /* (nullable) */
    void *events_opaque;
    BfLoop *const *workers; /* borrowed: live longer */
    unsigned n_workers;
    BfExportTable *table; /* borrowed: lives longer */
    BfBudget *budget;     /* borrowed: lives longer */
    bool wakes_are_dear;  /* a processor takes long to wake up */

    BfBudget pipes;         /* bytes of all pipes; shared by the loops */
    BfBudget large_options; /* their number; shared by the loops */

    /* Main's. */
    BfNbdListener *first; /* a reference: of nbd-server-start */
    GPtrArray *listeners; /* BfNbdListener: references; the first one first */
    unsigned *load;       /* clients on each worker */
    GPtrArray *exports;   /* BfNbdExport, oldest first; not the closing ones */
    uint64_t exports_generation; /* counts changes of @exports */
    GPtrArray *wishes;           /* of rights.c */
    BfTimer wishes_timer;        /* runs while there are some */
    unsigned n_restricted;       /* of @exports, with a tls-authz */
    GQueue clients;              /* BfNbdClient, by their link */
    BfNbdLobby lobby;
    BfWaitGroup alive;        /* clients and listeners that are not gone yet */
    BfWaitGroup exports_left; /* exports that are not freed yet */
    uint64_t next_id;
    BfTimer failures_timer; /* runs for a second from a logged failure on */
    unsigned failures;      /* since it was started */
    bool stopping;
    BfFn *unused; /* (nullable) called when no client uses an export any more */
    void *unused_arg;
    bool held; /* clients wait for bf_nbd_server_serve() */
};

struct BfNbdListener {
    /* Never changed. */
    BfNbdServer *server;   /* borrowed: waits for its listeners' clients */
    char *id;              /* (nullable) that of nbd-server-start has none */
    BfTlsCreds *tls_creds; /* (nullable) a reference */
    char *tls_creds_id;    /* (nullable) */
    char *tls_authz;       /* (nullable) id of the object that is asked */
    BfNbdTlsMode tls_mode; /* if there are @tls_creds */
    uint32_t handshake_max_seconds;
    uint32_t max_connections;
    uint32_t max_per_address;
    uint32_t idle_max_seconds; /* 0: no limit */

    /* Main's. */
    unsigned refs;                  /* the server's list, and the clients */
    BfListener *socket;             /* (nullable) NULL when it has ended */
    char *address;                  /* (nullable) for logs */
    BfSocketAddressList *addresses; /* (nullable) what it is bound to */
    unsigned n_clients;             /* that came through it and are there */
    unsigned n_waiting;             /* in the lobby */
    unsigned places_used; /* by clients that use an export, or are about to */
};

/*
 * Names of the metadata contexts of an export, by id, some NULL. Never changed,
 * and held on several loops: counted by our own atomics, as sanitizers do not
 * see those of GLib.
 */
typedef struct BfNbdNames {
    BfAtomicU64 refs;
    GPtrArray *list; /* owned */
} BfNbdNames;

/* meta-context.c: takes @list over. Any loop. */
BfNbdNames *bf_nbd_names_new(GPtrArray *list);
BfNbdNames *bf_nbd_names_ref(BfNbdNames *names);
void bf_nbd_names_unref(BfNbdNames *names);

/* An NBD export. Main's, but constant while clients are attached. */
typedef struct BfNbdExport {
    BfExport base;        /* first: a BfExport pointer converts to this */
    BfNbdServer *server;  /* borrowed: closes its exports before it is freed */
    uint64_t added;       /* exports_generation then: in their order */
    BfNbdString name;     /* owned */
    char *description;    /* (nullable) */
    char *tls_authz;      /* (nullable) id of the object that is asked */
    BfNbdNames *contexts; /* on offer: a reference */
    GPtrArray *bitmaps;   /* BfBitmapUse */
    GQueue users;         /* BfNbdClient, by their user_link, while they have
                             stats */
    BfNbdStats *past;     /* (nullable) owned: of those that have left */
} BfNbdExport;

/* An input buffer. Writes that run from it pin it. */
typedef struct BfNbdInput {
    struct BfNbdInput *next; /* on the list of free ones */
    uint8_t *data;
    unsigned pins;
} BfNbdInput;

/* A pipe for data that are not copied; empty while on the list of free ones. */
typedef struct BfNbdPipe {
    struct BfNbdPipe *next; /* of the same request, or free */
    int read_fd;
    int write_fd;
    size_t capacity;
    size_t bytes; /* what is in it */
} BfNbdPipe;

/* A request from its header until its reply is sent. */
typedef struct BfNbdTask {
    struct BfNbdTask *next; /* on the list of free ones, or of replies */
    BfNbdClient *client;
    BfNbdRequest request;
    uint64_t begun_ns; /* when it was there, payload included */
    size_t credit;     /* bytes charged to the connection */
    bool in_pieces;    /* they are too few for all of its data */
    bool is_part;      /* what is queued of its reply is not the end of it */

    /* Of a write that is spread; see spread.c. */
    unsigned n_users; /* pieces, and the reader */
    int result;       /* of the pieces until now */
    bool is_cut;      /* the payload did not come to its end */

    uint8_t *payload;  /* of a write; in @buf or in @input */
    BfNbdInput *input; /* (nullable) pinned */
    uint8_t *buf;      /* (nullable) from bf_buffer_new() */
    size_t buf_bytes;
    BfNbdPipe *payload_pipe; /* (nullable) of a write: has all its payload */
    GArray *contexts; /* (nullable) of a BLOCK_STATUS, if it names them */

    /* The reply: head, then body or the contents of the pipes; or parts. */
    uint8_t head[64];
    size_t head_bytes;
    const uint8_t *body; /* (nullable) in @buf, @heap or @text */
    size_t body_bytes;
    size_t reply_bytes;  /* counted in the client's, while queued or sent */
    uint8_t *heap;       /* (nullable) from g_malloc() */
    struct iovec *parts; /* (nullable) in @heap: instead of head and body */
    unsigned n_parts;
    BfNbdPipe *pipes; /* (nullable) with the data, in order */
    char text[NBD_TEXT_BYTES];
} BfNbdTask;

/* How a client left the negotiation. */
typedef enum BfNbdOutcome {
    BF_NBD_OUTCOME_CLOSE, /* ended by the peer, in due form or silently */
    BF_NBD_OUTCOME_FAILED,
    BF_NBD_OUTCOME_READY, /* an export is chosen */
    BF_NBD_OUTCOME_MOVE,  /* goes on elsewhere, with the option that is there */
} BfNbdOutcome;

/* How reading went on. */
typedef enum BfNbdInputStatus {
    BF_NBD_INPUT_OK,
    BF_NBD_INPUT_EOF,    /* the stream ended */
    BF_NBD_INPUT_FAILED, /* the error is set */
    BF_NBD_INPUT_REST,   /* between requests: nothing has come for long */
} BfNbdInputStatus;

/* How the transmission goes on after a coroutine has run it. */
typedef enum BfNbdTransmitStatus {
    BF_NBD_TRANSMIT_DONE,   /* it has ended: the peer has left in due form */
    BF_NBD_TRANSMIT_FAILED, /* it has ended, and the error is set */
    BF_NBD_TRANSMIT_RESTS,  /* there is nothing to do at the moment */
} BfNbdTransmitStatus;

/* What the rules say about a client; see rights.c. */
typedef struct BfNbdRights {
    GHashTable *verdicts; /* (nullable) NULL until settled */
    GPtrArray *visible;   /* (nullable) BfNbdExport, oldest first; borrowed, and
                             not looked at in another generation */
    uint64_t generation;  /* when they were settled */
} BfNbdRights;

struct BfNbdClient {
    /* Never changed. */
    BfNbdServer *server;     /* borrowed: waits for its clients */
    BfNbdListener *listener; /* a reference: what is demanded of it */
    uint64_t id;             /* in every log line */
    char *peer;
    BfPeerSource from;

    /* Main's. */
    GList link;           /* in the server's clients; data is the client */
    BfLoop *loop;         /* that runs it; NULL while main has it */
    BfLoop *home;         /* (nullable) where it uses its export */
    int worker;           /* that counts it: index, or -1 for none of them */
    BfWaitGroup messages; /* from main to @loop that are under way */
    GList user_link;      /* in its export's users; data is the client */
    uint64_t since_ns;    /* when it was started */
    uint64_t since_wall_ns;
    BfNbdSource *source;       /* (nullable) while it negotiates: a reference */
    GList lobby_link;          /* alike, in the lobby; data is the client */
    bool has_place;            /* among those that use exports */
    BfNbdSource *place_source; /* (nullable) then: a reference */
    bool killed;
    BfNbdRights rights;

    /* Written by main before it tells the loop to end the client. */
    char *dropped; /* (nullable) why others get its place */
    BfNbdClientDisconnectReason killed_for; /* if it is */

    /* Written by main only while the loop waits for it or has no claim. */
    BfNbdExport *exp;           /* (nullable) attached to */
    BfHandle *handle;           /* (nullable) made for @home */
    uint64_t last_loss;         /* of @handle that it was told of: @home's */
    BfThrottleMember *throttle; /* (nullable) requests wait there, on @home */
    BfNbdStats *stats;          /* (nullable) owned: @loop counts, main reads */

    /* The loop's: negotiation. */
    BfPeerWait wait;    /* main looks at it */
    BfCancel cancel;    /* ends waits for rules that may block */
    BfChannel *channel; /* (nullable) NULL once closed */
    BfTimer timer;      /* limit of the handshake, or of the last replies */
    const char *stage;  /* what it is at, for messages */
    uint64_t limit_ns;  /* when a limited negotiation has to be over */
    BfNbdOutcome outcome;
    bool quick;         /* main runs it, and does only what is quick */
    unsigned n_options; /* that were done so */
    bool greeted;       /* the peer was, and has answered */
    bool has_option;    /* its header was read, and is here: */
    BfNbdOptionHeader option;
    bool introduced; /* the log has said what it uses */
    bool settled;    /* it goes on here when the negotiation has ended */
    bool running;    /* a coroutine is at it, or will be when something comes */
    bool quiet;      /* at its end: nothing uses @handle any more */
    bool leaving;    /* main wants it to end: what it asks for is refused */
    bool closing;    /* at once: its peer is cut off */
    bool timed_out;
    bool spoke; /* the peer has sent something */
    bool tls;
    bool fixed; /* fixed newstyle */
    bool no_zeroes;
    uint8_t ahead[NBD_AHEAD_BYTES]; /* read, and not looked at yet */
    unsigned ahead_start;
    unsigned ahead_end;
    bool structured;
    bool extended;             /* headers; structured replies too then */
    GArray *contexts;          /* (nullable) ids that were selected, rising */
    BfNbdNames *context_names; /* (nullable) what the ids meant then */
    GBytes *contexts_name;    /* (nullable) the export they were selected for */
    char *tls_text;           /* (nullable) version, cipher, certificate */
    BfNbdClientTls *tls_info; /* (nullable) the same for queries, constant */
    char *identity;           /* (nullable) the name that the peer has proved */
    char *label;              /* (nullable) what it calls itself, for logs */
    const char *refused;      /* (nullable) what it cannot have here */
    BfNbdClientRejectReason reason; /* of the failure */
    char *failure;                  /* (nullable) what main is to log */

    /* The loop's: transmission. */
    BfNbdClientDisconnectReason left; /* why it ended */
    char *left_text;                  /* (nullable) the same in words */
    uint64_t arrived_ns;              /* when something has last come */
    BfNbdInput *input;                /* the current input buffer */
    size_t start; /* of the bytes in it that were not parsed yet */
    size_t end;
    size_t window;           /* how much to read ahead */
    size_t request_bytes;    /* of a header */
    uint64_t unaligned_bits; /* not set in offsets and lengths, as it has agreed
                                on block sizes; written in negotiation */
    bool large_writes;       /* the last request was one */
    unsigned n_inputs;
    BfNbdInput *free_inputs;
    BfNbdTask *free_tasks;
    unsigned in_flight;  /* tasks that are not released */
    size_t used_bytes;   /* sum of their credits */
    size_t held_bytes;   /* taken from the budget, at least @used_bytes */
    bool in_pieces;      /* there is one task only, and it is done like that */
    BfCoQueue part_wait; /* this task, for a part of its reply to be sent */
    BfNbdTask *replies;  /* to be sent, oldest first */
    BfNbdTask **replies_tail;
    unsigned n_replies;
    size_t reply_bytes;     /* data of the replies that are queued or sent */
    size_t ahead_bytes;     /* so many of them do not wait for more */
    unsigned ahead_replies; /* nor do so many replies */
    unsigned n_came;        /* requests since the last receive */
    unsigned split_reads;   /* for so many receives more */
    bool writing;           /* the writer runs or is about to */
    bool ending;            /* no more requests are read */
    bool abandoned;         /* the peer has gone without saying so */
    bool broken;            /* nothing can be sent any more */
    GError *write_error;    /* (nullable) why */
    BfCoQueue reader_wait;  /* the reader, for credits, buffers or the end */
    BfNbdPipe *free_pipes;
    unsigned n_free_pipes;
    unsigned n_pipes;      /* the free ones included */
    BfCoQueue pipe_wait;   /* requests that wait for pipes */
    size_t pipe_min_bytes; /* reads from here on go through pipes */
    unsigned pipe_skip;    /* so many of them do not, after a failure */
    size_t turn_bytes;     /* of reads begun since others had a turn */
    unsigned sparse_looks; /* so many of them do not, to find zeroes */
    unsigned pipe_reads;   /* since one of them did not, for that */
    size_t write_pipe_max; /* writes up to here go through a pipe as a whole */
    size_t write_pipe_piece;  /* larger ones in pieces of so many bytes */
    unsigned write_pipe_skip; /* so many of them do not */
    unsigned spread_skip;     /* so many large ones are not spread */
    BfTimer idle_timer;       /* runs while there is something to give back */
    bool idle_timer_runs;
    bool was_busy;       /* since it was started */
    bool between;        /* the reader waits for the next request */
    bool receiving;      /* one of the tasks is still without its payload */
    bool saying_bye;     /* after that nothing more is sent */
    BfTimer limit_timer; /* of idle.c, as all that follows */
    uint64_t seen_sent;  /* what the channel had sent at the last look */
    uint64_t seen_arrived_ns; /* of @arrived_ns then */
    unsigned stuck_looks;     /* so many in a row saw no progress of sending */
    unsigned idle_looks;      /* so many in a row saw nothing to do */
    bool expired;             /* it has to go for that */
    BfNbdClientDisconnectReason expired_for; /* if it has */
};

/* What main tells a client in negotiation about an export. */
typedef struct BfNbdExportAnswer {
    bool found;
    BfNbdExportInfo info; /* flags as without structured replies */
    char *description;    /* (nullable) */
    BfNbdNames *contexts; /* (nullable) a reference to the export's */
} BfNbdExportAnswer;

/*
 * server.c: on main.
 */

/* A server that does not listen yet; what @config is needed for is listening
 * is not looked at. */
BfNbdServer *bf_nbd_server_new(const BfNbdServerConfig *config);

/* Frees a server without clients and exports. */
void bf_nbd_server_free(BfNbdServer *server);

/* Logs what peers can cause often: of very many only their number appears. */
void bf_nbd_server_log_failure(BfNbdServer *server, const char *text);

/* Reports why a negotiation failed, in the log, where of very many only their
 * number appears, and as an event. */
void bf_nbd_server_report(BfNbdServer *server, const BfNbdRejection *rejection);

/* Starts who waits for a place: called when a client has left the list.
 * @had_export: it used one, and may have been the last that did. */
void bf_nbd_server_client_gone(BfNbdServer *server, bool had_export);

/* Index of the worker with the fewest clients. */
unsigned bf_nbd_server_least_loaded(const BfNbdServer *server);

/* How many clients @loop runs. */
unsigned bf_nbd_server_count_on(const BfNbdServer *server, const BfLoop *loop);

/* Index of @loop among the workers, or -1. */
int bf_nbd_server_worker_index(const BfNbdServer *server, const BfLoop *loop);

/* Makes the clients of @exp (NULL: all clients) leave. */
void bf_nbd_server_kill_clients(BfNbdServer *server, const BfNbdExport *exp);

/* The export with exactly this name, or NULL. */
BfNbdExport *bf_nbd_server_find(BfNbdServer *server, BfNbdString name);

/* Tells about the export @name; with @attach makes @client its client. Any
 * loop. The caller clears @ret_answer. */
void bf_nbd_server_co_ask(BfNbdClient *client, BfNbdString name, bool attach,
                          BfNbdExportAnswer *ret_answer);

/* Frees what an answer has. */
void bf_nbd_export_answer_clear(BfNbdExportAnswer *answer);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(BfNbdExportAnswer, bf_nbd_export_answer_clear)

/*
 * Appends to @out the replies to a LIST about the exports behind @cursor (0 at
 * first), which follows, until these are all or some 64 KiB: a client that
 * does not read must not bind memory for all of them. Any loop. Returns whether
 * there may be more.
 */
bool bf_nbd_server_co_list(BfNbdClient *client, uint64_t *cursor,
                           GByteArray *out);

/* Starts to close the server's exports. */
void bf_nbd_export_close_all(BfNbdServer *server);

/*
 * listeners.c: on main.
 */

/* A listener that does not listen yet. */
BfNbdListener *bf_nbd_listener_new(BfNbdServer *server,
                                   const BfNbdListenerConfig *config);

/* Listens, and puts it on the server's list. */
bool bf_nbd_listener_co_open(BfNbdListener *listener,
                             const BfNbdListenerConfig *config, GError **error);

/* The one that was added with this id, or NULL. */
BfNbdListener *bf_nbd_listeners_find(const BfNbdServer *server, const char *id);

/* Ends them all: nobody is accepted any more when this returns. */
void bf_nbd_listeners_start_close(BfNbdServer *server);

BfNbdListener *bf_nbd_listener_ref(BfNbdListener *listener);
void bf_nbd_listener_unref(BfNbdListener *listener);

/* Can an export ask the authorization object @tls_authz? Not if no listener's
 * clients prove a name. */
bool bf_nbd_listeners_prove_names(const BfNbdServer *server,
                                  const char *tls_authz, GError **error);

/* Is the other end of @fd a client of one of the listeners? */
bool bf_nbd_listeners_lead_to(const BfNbdServer *server, int fd);

/*
 * client.c
 */

/* Starts to serve a connection, whatever limits there are. On main; @channel
 * and @peer, its name for logs, are transferred. */
void bf_nbd_client_start(BfNbdListener *listener, BfChannel *channel,
                         char *peer, const BfPeerSource *from);

/* Where a client that has chosen an export may stay on its loop, makes it ready
 * to use that export there. On main, while the loop waits. */
void bf_nbd_client_co_settle(BfNbdClient *client);

/* Stops the clock of the negotiation while it is not the peer that takes the
 * time; returns what is left of it, for later. On its loop. */
uint64_t bf_nbd_client_pause_limit(BfNbdClient *client);
void bf_nbd_client_resume_limit(BfNbdClient *client, uint64_t rest_ns);

/* Makes a client leave soon, however its peer behaves. On main. Where the
 * reason allows it gets the answers to what it has asked. */
void bf_nbd_client_kill(BfNbdClient *client,
                        BfNbdClientDisconnectReason reason);

/* Does that and waits until its peer is cut off. On main. */
void bf_nbd_client_co_cut(BfNbdClient *client);

/* "connection 5 from 192.0.2.1:4711" */
#define NBD_CLIENT_FORMAT "connection %" G_GUINT64_FORMAT " from %s"
#define NBD_CLIENT_ARGS(client) (client)->id, (client)->peer

/* A peer's text for logs and messages: cut, and without control characters. */
char *bf_nbd_show_text(BfNbdString text);

/*
 * lobby.c: on main, but for bf_nbd_places_co_wait().
 */

/* What lobby.c has of a server. */
void bf_nbd_lobby_init(BfNbdServer *server);
void bf_nbd_lobby_clear(BfNbdServer *server);

/* A connection was accepted: called by the BfNbdListener @opaque; @fd, of
 * the address family @domain, is transferred. */
void bf_nbd_lobby_accept(void *opaque, int fd, int domain);

/* Starts those that wait as far as there is room for them: called when there
 * may be more than before. */
void bf_nbd_lobby_update(BfNbdServer *server);

/* Closes those that wait. */
void bf_nbd_lobby_close_waiting(BfNbdListener *listener);

/* A client has begun to negotiate, or has ended, which may be told twice. */
void bf_nbd_lobby_enter(BfNbdClient *client);
void bf_nbd_lobby_leave(BfNbdClient *client);

/* Gives @client a place among those that use exports. False: all are taken. */
bool bf_nbd_places_take(BfNbdClient *client);

/* Gives the place to another; nothing if it has none. */
void bf_nbd_places_release(BfNbdClient *client);

/* Waits until @client has a place or is killed. On its loop. */
void bf_nbd_places_co_wait(BfNbdClient *client);

/* Has those that wait for one look whether they are killed. */
void bf_nbd_places_wake(BfNbdServer *server);

/* Whom threads of the pool work for, for bf_co_offload_for(). Any loop. */
uint64_t bf_nbd_client_flow(const BfNbdClient *client);

/*
 * rights.c
 */

/* Runs @fn on main, where the client's rights are settled then. On its loop. */
void bf_nbd_rights_co_call(BfNbdClient *client, BfFn *fn, void *arg);

/* Settles the rights of a client after its handshake. False if the server does
 * not want it. On its loop. */
bool bf_nbd_rights_co_admit(BfNbdClient *client, GError **error);

/* The exports that exist for a client. In a function that
 * bf_nbd_rights_co_call() runs. */
const GPtrArray *bf_nbd_rights_visible(const BfNbdClient *client);

/* Reports soon that a client wants an export that does not exist for it. On
 * main. */
void bf_nbd_rights_report_absent(BfNbdClient *client, BfNbdString name);

/* What rights.c has of a server. On main. */
void bf_nbd_rights_init(BfNbdServer *server);
void bf_nbd_rights_clear_server(BfNbdServer *server);

/* Forgets the rights of a client. On main. */
void bf_nbd_rights_clear(BfNbdClient *client);

/*
 * ahead.c: on the client's loop.
 */

/* How much was read ahead and not taken yet. */
size_t bf_nbd_ahead_bytes(const BfNbdClient *client);

/* Takes up to @len bytes of that. Returns how many. */
size_t bf_nbd_ahead_take(BfNbdClient *client, void *buf, size_t len);

/* Reads up to @max bytes ahead, when all was taken. Returns how many, 0 at the
 * end of the stream, or -1. */
ssize_t bf_nbd_ahead_co_fill(BfNbdClient *client, size_t max, GError **error);

/* Like bf_channel_co_read_exact(), with what was read ahead first. */
BfReadStatus bf_nbd_ahead_co_read_exact(BfNbdClient *client, void *buf,
                                        size_t len, GError **error);

/*
 * negotiate.c and meta-context.c: on the client's loop.
 */

/* From the greeting to the choice of an export; sets @error when it returns
 * %BF_NBD_OUTCOME_FAILED. */
BfNbdOutcome bf_nbd_negotiate_co_run(BfNbdClient *client, GError **error);

/* Adds a reply to an option to @out. */
void bf_nbd_negotiate_add_reply(GByteArray *out, uint32_t option,
                                BfNbdReply type, const void *data, size_t len);

/* Answers LIST_META_CONTEXT and SET_META_CONTEXT into @out. */
void bf_nbd_meta_co_option(BfNbdClient *client, uint32_t option,
                           const void *data, size_t len, GByteArray *out);

/* Answers an option about @name, which main does not know for this client. */
void bf_nbd_negotiate_add_absent(const BfNbdClient *client, GByteArray *out,
                                 uint32_t option, BfNbdString name);

/* Answers an option with a printf text into @out. */
void bf_nbd_negotiate_add_error(GByteArray *out, uint32_t option,
                                BfNbdReply type, const char *format, ...)
    G_GNUC_PRINTF(4, 5);

/* Keeps what was selected only if @name is the export that it was for, and it
 * still offers the same. */
void bf_nbd_meta_bind(BfNbdClient *client, BfNbdString name,
                      const GPtrArray *offered);

/* Does the selection count for the export @name? */
bool bf_nbd_meta_is_for(const BfNbdClient *client, BfNbdString name,
                        const GPtrArray *offered);

/* Of the selected contexts those with the @n ids at @ids, rising. NULL if there
 * are none, or one is not selected or there twice. */
GArray *bf_nbd_meta_pick(const BfNbdClient *client, const uint8_t *ids,
                         size_t n);

/* How many contexts were selected. */
unsigned bf_nbd_meta_count(const BfNbdClient *client);

/* Forgets what was selected. */
void bf_nbd_meta_clear(BfNbdClient *client);

/* The body of a BLOCK_STATUS; makes the reply. */
void bf_nbd_meta_co_status(BfNbdTask *task);

/* Bytes to charge for a BLOCK_STATUS of @picked, or (nullable) all contexts. */
size_t bf_nbd_meta_credit(const BfNbdClient *client,
                          const BfNbdRequest *request, const GArray *picked);
