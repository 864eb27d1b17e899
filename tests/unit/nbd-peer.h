/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For tests of the NBD server: a server with nodes and exports on the harness's
 * loops, and a client that sends exactly what a test asks for. All functions
 * are called from the test's coroutine on main; failures are assertions.
 */
#pragma once

#include "core/iovec.h"
#include "io/channel.h"
#include "proto/nbd.h"
#include "serve/nbd-server.h"

/* Size of the nodes. */
#define NBD_TEST_BYTES (UINT64_C(8) * 1024 * 1024)

/**
 * BfNbdFixture: a server and what it serves
 * @config: may be changed before bf_nbd_fixture_co_open()
 * @deleted: exports that were reported as deleted
 */
typedef struct BfNbdFixture {
    BfNbdServerConfig config;
    BfGraph *graph;
    BfExportTable *table;
    BfNbdServer *server;
    BfBudget budget;
    unsigned deleted;
} BfNbdFixture;

/* Bytes that differ from place to place, and are nowhere zero; g_free(). */
uint8_t *bf_nbd_test_data(size_t len, unsigned seed);

/* What a structured reply of several chunks came to. */
typedef struct BfNbdPeerReply {
    uint32_t error;
    uint64_t cookie;
    unsigned chunks;
    BfNbdChunkType type; /* of the last chunk */
    GByteArray *data;    /* payload of the last chunk, or of a simple READ */
} BfNbdPeerReply;

/* Makes graph, table and server; the server does not listen. */
void bf_nbd_fixture_co_open(BfNbdFixture *fix);

/* Stops the server and closes all. */
void bf_nbd_fixture_co_close(BfNbdFixture *fix);

/* A node of zeroes. */
void bf_nbd_fixture_co_add_null(BfNbdFixture *fix, const char *name);

/* A node on a temporary file of holes. */
void bf_nbd_fixture_co_add_file(BfNbdFixture *fix, const char *name);

/* The same past the page cache, so that requests have to be aligned. */
void bf_nbd_fixture_co_add_direct_file(BfNbdFixture *fix, const char *name);

/* A node above @child that treats its requests by one rule. */
void bf_nbd_fixture_co_add_fault(BfNbdFixture *fix, const char *name,
                                 const char *child, BfFaultRule *rule);

/* An export; id and NBD name are @name. */
void bf_nbd_fixture_co_export(BfNbdFixture *fix, const char *name,
                              const char *node, bool writable);

/* Connects; the greeting is unread. */
BfChannel *bf_nbd_peer_connect(BfNbdFixture *fix);

/* Connects, and answers the greeting. */
BfChannel *bf_nbd_peer_co_greet(BfNbdFixture *fix);

/* Connects, negotiates and goes to an export. */
BfChannel *bf_nbd_peer_co_go(BfNbdFixture *fix, const char *name,
                             bool structured);

/* Closes by DISC and waits for the server to close too. */
void bf_nbd_peer_co_leave(BfChannel *peer);

void bf_nbd_peer_co_send(BfChannel *peer, const void *data, size_t len);
void bf_nbd_peer_co_recv(BfChannel *peer, void *buf, size_t len);

/* The server closes the connection without sending anything more. */
void bf_nbd_peer_co_expect_end(BfChannel *peer);

void bf_nbd_peer_co_option(BfChannel *peer, uint32_t option, const void *data,
                           size_t len);

/* Receives a reply to @option; returns its type. */
uint32_t bf_nbd_peer_co_reply(BfChannel *peer, uint32_t option,
                              GByteArray *payload);

/* Receives a reply of @type with this text. */
void bf_nbd_peer_co_expect(BfChannel *peer, uint32_t option, uint32_t type,
                           const char *text);

/* GO or INFO for a name without questions. */
void bf_nbd_peer_co_send_go(BfChannel *peer, uint32_t option, const char *name);

/* SET_META_CONTEXT or LIST_META_CONTEXT with one query, NULL for none. */
void bf_nbd_peer_co_send_meta(BfChannel *peer, uint32_t option,
                              const char *name, const char *query);

void bf_nbd_peer_co_request(BfChannel *peer, uint16_t command, uint16_t flags,
                            uint64_t cookie, uint64_t offset, uint32_t length);

/* Receives a simple reply; with @bytes of data if it is a success. */
BfNbdPeerReply bf_nbd_peer_co_simple(BfChannel *peer, size_t bytes);

/* Reads a range, by a simple reply, and finds these bytes in it. */
void bf_nbd_peer_co_expect_read(BfChannel *peer, uint64_t offset,
                                const uint8_t *data, uint32_t len);

/* Receives a structured reply. */
BfNbdPeerReply bf_nbd_peer_co_chunks(BfChannel *peer);

void bf_nbd_peer_reply_clear(BfNbdPeerReply *reply);

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(BfNbdPeerReply, bf_nbd_peer_reply_clear)
