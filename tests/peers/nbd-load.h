/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the sources of nbd-load share: the command line, and connections with
 * the functions that open, use and end them (nbd-load-conn.c).
 */
#pragma once

#include <glib.h>
#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define REQUEST_BYTES 28
#define WIRE_BYTES (512 * 1024)

/* What the command line asked for. */
typedef struct Options {
    char *unix_path;
    char *tcp; /* host:port */
    char *export_name;
    char *tls_dir;
    char *priority;
    char *psk_user; /* by a key of tls_dir, not by certificates */
    char *op;       /* read, write or connect */
    gboolean sequential;
    int block_bytes;
    int depth;
    int connections;
    double seconds;
} Options;

/* One connection. Slots are requests that are either queued or sent. */
typedef struct Conn {
    int fd;
    gnutls_session_t tls; /* NULL without TLS */
    uint64_t size;
    uint64_t next_offset;
    uint8_t (*headers)[REQUEST_BYTES]; /* one per slot */
    unsigned *queue;                   /* slots to send, a ring of depth */
    unsigned queue_head;
    unsigned queue_len;
    size_t sent_of_first; /* bytes of the first queued request that are out */
    unsigned in_flight;
    uint8_t *in; /* received and not parsed: a part of a header at most */
    size_t in_len;
    size_t skip_bytes; /* payload still to be dropped */
    uint8_t *wire_in;  /* TLS records as received */
    size_t wire_in_len;
    size_t wire_in_pos;
    GByteArray *wire_out; /* TLS records to send */
} Conn;

extern Options opt;

/* Ends the program with a message. */
void die(const char *format, ...) G_GNUC_PRINTF(1, 2) G_GNUC_NORETURN;

/* Loads what --tls and --psk name. */
void load_credentials(void);

/* Connects and chooses the export. */
Conn *conn_open(void);

/* Leaves as the protocol wants it. */
void conn_close(Conn *conn);

/* Waits until @events are there. */
void wait_fd(Conn *conn, short events);

/* Sends what TLS has produced; true when all is out. */
bool tls_flush(Conn *conn);

/* Receives without waiting; -1 with EAGAIN when there is nothing. */
ssize_t conn_recv(Conn *conn, void *buf, size_t len, int flags);
