/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests of the nbd driver: a server on a UNIX socket that shakes hands by
 * itself and then says exactly what a test wants, and requests to a node of it
 * that run in the background. All functions are called from the test's
 * coroutine on main; failures are assertions.
 */
#pragma once

#include "block-harness.h"
#include "core/co-io.h"
#include "core/co-lock.h"
#include "io/channel.h"
#include "proto/nbd-extended.h"

/* Most connections of one server. */
#define NBD_SCRIPT_PEERS_MAX 32

/* What an export can do here, but for several connections. */
#define NBD_SCRIPT_FLAGS                                                       \
    (BF_NBD_EXPORT_HAS_FLAGS | BF_NBD_EXPORT_FLUSH | BF_NBD_EXPORT_FUA |       \
     BF_NBD_EXPORT_TRIM | BF_NBD_EXPORT_WRITE_ZEROES |                         \
     BF_NBD_EXPORT_FAST_ZERO | BF_NBD_EXPORT_CACHE)

/**
 * BfNbdScript: a server
 * @path: owned: where it listens
 * @size: of the export, bytes
 * @flags: of the export
 * @min_block: smallest block; 0 says nothing about blocks
 * @structured: replies are structured, and there is "base:allocation" (id 5)
 * @extended: headers are extended, if @structured; may be changed at any time
 *     for the connections that come
 * @silent: connections are accepted, and get no greeting
 * @peers: owned: connections that have chosen the export
 * @n_peers: their number
 * @n_accepted: connections, those that shake hands included
 */
typedef struct BfNbdScript {
    char *path;
    uint64_t size;
    uint16_t flags;
    uint32_t min_block;
    bool structured;
    bool extended;
    bool silent;
    BfChannel *peers[NBD_SCRIPT_PEERS_MAX];
    unsigned n_peers;
    unsigned n_accepted;
    int fd;
    BfCancel cancel;
    BfCoQueue arrived;
    BfWaitGroup running;
} BfNbdScript;

/* Makes defaults: 1 MiB, all flags, structured; and listens. */
void bf_nbd_script_open(BfNbdScript *script);

/* Stops listening: connecting is refused. */
void bf_nbd_script_co_stop(BfNbdScript *script);

/* Listens again at the same path. */
void bf_nbd_script_restart(BfNbdScript *script);

/* Closes all. */
void bf_nbd_script_co_close(BfNbdScript *script);

/* Options of an nbd node "n0" of @script. */
BfBlockdevOptions *bf_nbd_script_options(const BfNbdScript *script);

/* Waits for a connection to be there; the first is 0. */
BfChannel *bf_nbd_script_co_peer(BfNbdScript *script, unsigned index);

/* Waits until so many connections were accepted. */
void bf_nbd_script_co_accepted(BfNbdScript *script, unsigned count);

/* Closes a connection. */
void bf_nbd_script_drop(BfNbdScript *script, unsigned index);

/* Receives the head of a request, in either form. Returns false if the client
 * has left. */
bool bf_nbd_script_co_head(BfChannel *peer, BfNbdRequest *ret_request);

/* Receives a request, and the payload of a WRITE, which may be NULL. */
BfNbdRequest bf_nbd_script_co_request(BfChannel *peer, GByteArray *payload);

/* Receives a request of this command; returns its cookie. */
uint64_t bf_nbd_script_co_expect(BfChannel *peer, BfNbdCommand command);

/* Sends a simple reply. */
void bf_nbd_script_co_simple(BfChannel *peer, uint64_t cookie, uint32_t error,
                             const void *data, size_t len);

/* Sends a chunk. */
void bf_nbd_script_co_chunk(BfChannel *peer, uint64_t cookie, uint16_t flags,
                            uint16_t type, const void *data, size_t len);

/* Sends a chunk with an extended header, in reply to @request. */
void bf_nbd_script_co_extended(BfChannel *peer, const BfNbdRequest *request,
                               uint16_t flags, uint16_t type, const void *data,
                               size_t len);

/* The same: success without data. */
void bf_nbd_script_co_done(BfChannel *peer, const BfNbdRequest *request);

/* Sends a chunk with @bytes of @value at @offset. */
void bf_nbd_script_co_data(BfChannel *peer, uint64_t cookie, uint16_t flags,
                           uint64_t offset, uint8_t value, size_t bytes);

/* Sends a chunk with a hole. */
void bf_nbd_script_co_hole(BfChannel *peer, uint64_t cookie, uint16_t flags,
                           uint64_t offset, uint32_t bytes);

/* Sends a chunk with an error. */
void bf_nbd_script_co_error(BfChannel *peer, uint64_t cookie, uint16_t flags,
                            uint32_t number);

/* The peer has left, with or without DISC. */
void bf_nbd_script_co_expect_end(BfChannel *peer);

/**
 * BfNbdUse: a node "n0" of a scripted server, in use
 * @script: the server
 * @graph: owned
 * @root: owned; NULL if the test has freed it
 * @handle: on main
 */
typedef struct BfNbdUse {
    BfNbdScript script;
    BfGraph *graph;
    BfRoot *root;
    BfHandle *handle;
} BfNbdUse;

/* Opens the node; use->script is there. @options: (transfer full) */
void bf_nbd_use_co_begin(BfNbdUse *use, BfBlockdevOptions *options);

/* Opens server and node, with defaults. */
void bf_nbd_use_co_open(BfNbdUse *use);

/* The server is gone, then the node is. */
void bf_nbd_use_co_close(BfNbdUse *use);

/* What a request in the background does. */
typedef enum BfNbdOpKind {
    NBD_OP_READ,
    NBD_OP_WRITE,
    NBD_OP_WRITE_PIPE,
    NBD_OP_ZEROES,
    NBD_OP_DISCARD,
    NBD_OP_FLUSH,
    NBD_OP_CACHE,
    NBD_OP_EXTENTS,
} BfNbdOpKind;

/**
 * BfNbdOp: a request to a handle, in the background
 * @buf: READ, WRITE and WRITE_PIPE: @bytes, of which at most 64 KiB go through
 *     a pipe
 * @extents: EXTENTS: filled
 * @done: it has ended
 * @ret: its result
 */
typedef struct BfNbdOp {
    BfNbdOpKind kind;
    uint64_t offset;
    uint64_t bytes;
    unsigned flags;
    uint8_t *buf;
    BfExtents *extents;
    BfHandle *handle;
    bool done;
    int ret;
    BfCoQueue ended;
} BfNbdOp;

/* Starts @op on @handle, which is on main. */
void bf_nbd_op_start(BfNbdOp *op, BfHandle *handle);

/* Waits for the end of @op; returns its result. */
int bf_nbd_op_co_wait(BfNbdOp *op);
