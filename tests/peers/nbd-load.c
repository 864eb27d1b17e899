/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd-load: keeps an NBD server busy and counts what it completes.
 *
 * A light client, so that the server is what is measured: one thread, many
 * requests in one send, many replies from one receive, over UNIX, TCP or TLS.
 * It prints one JSON object. Replies are simple ones; payloads are dropped
 * without a look, so this is no test of correctness.
 *
 * With --op connect it counts connections instead: each is negotiated, and left
 * as the protocol wants it. There is a thread for each that is open at a time.
 */
#include "nbd-load.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define REQUEST_MAGIC 0x25609513u
#define SIMPLE_MAGIC 0x67446698u

#define CMD_READ 0
#define CMD_WRITE 1

#define REPLY_BYTES 16
#define IN_BYTES (256 * 1024)
#define MAX_IOV 128

Options opt = {.export_name = NULL,
               .block_bytes = 4096,
               .depth = 1,
               .connections = 1,
               .seconds = 1.0};
static uint8_t *payload; /* what writes send, block_bytes long */

void
die(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    fputs("nbd-load: ", stderr);
    vfprintf(stderr, format, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

/* Requests. */

static bool
is_write(void)
{
    return opt.op[0] == 'w';
}

static uint64_t
pick_offset(Conn *conn)
{
    static uint64_t state = 88172645463325252u;
    uint64_t blocks = conn->size / opt.block_bytes;

    if (opt.sequential) {
        uint64_t offset = conn->next_offset;

        conn->next_offset =
            (offset / opt.block_bytes + 1) % blocks * (uint64_t)opt.block_bytes;
        return offset;
    }
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % blocks * opt.block_bytes;
}

static void
queue_request(Conn *conn, unsigned slot)
{
    uint8_t *header = conn->headers[slot];
    uint32_t magic = htobe32(REQUEST_MAGIC);
    uint16_t type = htobe16(is_write() ? CMD_WRITE : CMD_READ);
    uint64_t cookie = htobe64(slot);
    uint64_t offset = htobe64(pick_offset(conn));
    uint32_t length = htobe32(opt.block_bytes);

    memcpy(header, &magic, 4);
    memset(header + 4, 0, 2);
    memcpy(header + 6, &type, 2);
    memcpy(header + 8, &cookie, 8);
    memcpy(header + 16, &offset, 8);
    memcpy(header + 24, &length, 4);
    conn->queue[(conn->queue_head + conn->queue_len) % opt.depth] = slot;
    conn->queue_len++;
    conn->in_flight++;
}

/* Points iov at what is queued; returns the number of elements. */
static int
gather(const Conn *conn, struct iovec *iov, size_t *ret_bytes)
{
    size_t skip = conn->sent_of_first;
    size_t total = 0;
    int n = 0;

    for (unsigned i = 0; i < conn->queue_len && n + 2 <= MAX_IOV; i++) {
        unsigned slot = conn->queue[(conn->queue_head + i) % opt.depth];
        size_t data = is_write() ? opt.block_bytes : 0;

        if (skip < REQUEST_BYTES) {
            iov[n].iov_base = conn->headers[slot] + skip;
            iov[n].iov_len = REQUEST_BYTES - skip;
            total += iov[n++].iov_len;
            skip = 0;
        } else {
            skip -= REQUEST_BYTES;
        }
        if (data > 0) {
            iov[n].iov_base = payload + skip;
            iov[n].iov_len = data - skip;
            total += iov[n++].iov_len;
        }
        skip = 0;
    }
    *ret_bytes = total;
    return n;
}

static void
consume(Conn *conn, size_t bytes)
{
    size_t each = REQUEST_BYTES + (is_write() ? opt.block_bytes : 0);

    conn->sent_of_first += bytes;
    while (conn->queue_len > 0 && conn->sent_of_first >= each) {
        conn->sent_of_first -= each;
        conn->queue_head = (conn->queue_head + 1) % opt.depth;
        conn->queue_len--;
    }
}

/* Turns queued requests into TLS records, about one buffer full. */
static void
seal_some(Conn *conn)
{
    struct iovec iov[MAX_IOV];
    size_t total;
    size_t sealed = 0;
    int n = gather(conn, iov, &total);

    gnutls_record_cork(conn->tls);
    for (int i = 0; i < n && sealed < WIRE_BYTES; i++) {
        ssize_t rc =
            gnutls_record_send(conn->tls, iov[i].iov_base, iov[i].iov_len);

        if (rc < 0) {
            die("TLS: %s", gnutls_strerror(rc));
        }
        sealed += rc;
    }
    if (gnutls_record_uncork(conn->tls, 0) < 0) {
        die("TLS: cannot send");
    }
    consume(conn, sealed);
}

/* Sends what is queued; true when all is out. */
static bool
send_queued(Conn *conn)
{
    while (conn->tls != NULL) {
        if (!tls_flush(conn)) {
            return false;
        }
        if (conn->queue_len == 0) {
            return true;
        }
        seal_some(conn);
    }
    while (conn->queue_len > 0) {
        struct iovec iov[MAX_IOV];
        size_t total;
        struct msghdr msg = {.msg_iov = iov};
        ssize_t n;

        msg.msg_iovlen = gather(conn, iov, &total);
        n = sendmsg(conn->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            return false;
        }
        if (n < 0) {
            die("send: %s", g_strerror(errno));
        }
        consume(conn, n);
    }
    return true;
}

/* Parses what was received; each whole reply's slot is used again. */
static unsigned
parse_replies(Conn *conn, bool again)
{
    size_t pos = 0;
    unsigned done = 0;

    while (pos < conn->in_len) {
        uint32_t words[2];
        uint64_t cookie;
        size_t n = MIN(conn->skip_bytes, conn->in_len - pos);

        conn->skip_bytes -= n;
        pos += n;
        if (conn->in_len - pos < REPLY_BYTES) {
            break;
        }
        memcpy(words, conn->in + pos, 8);
        memcpy(&cookie, conn->in + pos + 8, 8);
        cookie = be64toh(cookie);
        if (be32toh(words[0]) != SIMPLE_MAGIC || words[1] != 0 ||
            cookie >= (uint64_t)opt.depth) {
            die("bad reply: magic 0x%x error %u", be32toh(words[0]),
                be32toh(words[1]));
        }
        pos += REPLY_BYTES;
        conn->skip_bytes = is_write() ? 0 : opt.block_bytes;
        conn->in_flight--;
        done++;
        if (again) {
            queue_request(conn, cookie);
        }
    }
    memmove(conn->in, conn->in + pos, conn->in_len - pos);
    conn->in_len -= pos;
    return done;
}

/* Receives all that is there and parses it; returns the replies. */
static unsigned
receive(Conn *conn, bool may_block, bool again)
{
    unsigned done = 0;

    while (true) {
        int flags = may_block && conn->tls == NULL ? 0 : MSG_DONTWAIT;
        size_t room = IN_BYTES - conn->in_len;
        ssize_t n = conn_recv(conn, conn->in + conn->in_len, room, flags);

        if (n < 0) {
            return done;
        }
        conn->in_len += n;
        done += parse_replies(conn, again);
        may_block = false;
        if (conn->tls == NULL && (size_t)n < room) {
            return done; /* the socket is empty */
        }
    }
}

static Conn *
conn_new(int index)
{
    Conn *conn = conn_open();

    conn->in = g_malloc(IN_BYTES);
    conn->headers = g_malloc0_n(opt.depth, REQUEST_BYTES);
    conn->queue = g_new0(unsigned, opt.depth);
    conn->next_offset = conn->size / opt.connections * index / opt.block_bytes *
                        opt.block_bytes;
    for (int slot = 0; slot < opt.depth; slot++) {
        queue_request(conn, slot);
    }
    return conn;
}

static void
conn_free(Conn *conn)
{
    g_free(conn->in);
    g_free(conn->headers);
    g_free(conn->queue);
    conn_close(conn);
}

/* Serves one connection without poll() where nothing else can happen. */
static unsigned
step_single(Conn *conn, bool again)
{
    if (!send_queued(conn)) {
        wait_fd(conn, POLLIN | POLLOUT);
        return receive(conn, false, again);
    }
    if (conn->tls != NULL) {
        if (conn->wire_in_pos == conn->wire_in_len &&
            gnutls_record_check_pending(conn->tls) == 0) {
            wait_fd(conn, POLLIN);
        }
        return receive(conn, false, again);
    }
    return receive(conn, true, again);
}

static unsigned
step_many(Conn **conns, bool again)
{
    g_autofree struct pollfd *pfds = g_new0(struct pollfd, opt.connections);
    unsigned done = 0;

    for (int i = 0; i < opt.connections; i++) {
        pfds[i].fd = conns[i]->fd;
        pfds[i].events = send_queued(conns[i]) ? POLLIN : POLLIN | POLLOUT;
        if (conns[i]->in_flight == 0) {
            pfds[i].fd = -1;
        }
    }
    if (poll(pfds, opt.connections, 20000) <= 0) {
        die("the server does not answer");
    }
    for (int i = 0; i < opt.connections; i++) {
        if (pfds[i].revents & (POLLIN | POLLHUP | POLLERR)) {
            done += receive(conns[i], false, again);
        }
    }
    return done;
}

static void
print_result(uint64_t ops, double seconds)
{
    printf("{\"ops\": %" G_GUINT64_FORMAT ", \"seconds\": %.6f, "
           "\"block\": %d}\n",
           ops, seconds, opt.block_bytes);
}

/* One connection after the other, until @arg, the time to end. */
static gpointer
connect_until(gpointer arg)
{
    const gint64 *end = arg;
    gsize done = 0;

    while (g_get_monotonic_time() < *end) {
        conn_close(conn_open());
        done++;
    }
    return GSIZE_TO_POINTER(done);
}

static void
run_connects(void)
{
    g_autofree GThread **threads = g_new0(GThread *, opt.connections);
    gint64 start = g_get_monotonic_time();
    gint64 end = start + (gint64)(opt.seconds * 1e6);
    uint64_t done = 0;

    for (int i = 0; i < opt.connections; i++) {
        threads[i] = g_thread_new("connect", connect_until, &end);
    }
    for (int i = 0; i < opt.connections; i++) {
        done += GPOINTER_TO_SIZE(g_thread_join(threads[i]));
    }
    print_result(done, (g_get_monotonic_time() - start) / 1e6);
}

static void
run(void)
{
    g_autofree Conn **conns = g_new0(Conn *, opt.connections);
    uint64_t done = 0;
    bool again = true;
    unsigned left;
    double start;
    double elapsed;

    for (int i = 0; i < opt.connections; i++) {
        conns[i] = conn_new(i);
    }
    start = g_get_monotonic_time() / 1e6;
    elapsed = 0;
    do {
        unsigned n = opt.connections == 1 ? step_single(conns[0], again)
                                          : step_many(conns, again);

        if (again) {
            done += n;
            elapsed = g_get_monotonic_time() / 1e6 - start;
            again = elapsed < opt.seconds;
        }
        left = 0;
        for (int i = 0; i < opt.connections; i++) {
            left += conns[i]->in_flight;
        }
    } while (left > 0);
    print_result(done, elapsed);
    for (int i = 0; i < opt.connections; i++) {
        conn_free(conns[i]);
    }
}

int
main(int argc, char **argv)
{
    const GOptionEntry entries[] = {
        {"unix", 0, 0, G_OPTION_ARG_STRING, &opt.unix_path, "UNIX socket",
         "PATH"},
        {"tcp", 0, 0, G_OPTION_ARG_STRING, &opt.tcp, "TCP server", "HOST:PORT"},
        {"export", 0, 0, G_OPTION_ARG_STRING, &opt.export_name, "export name",
         "NAME"},
        {"tls", 0, 0, G_OPTION_ARG_STRING, &opt.tls_dir,
         "use TLS with these certificates", "DIR"},
        {"priority", 0, 0, G_OPTION_ARG_STRING, &opt.priority,
         "gnutls priority string", "TEXT"},
        {"psk", 0, 0, G_OPTION_ARG_STRING, &opt.psk_user,
         "use the key of USER, not certificates", "USER"},
        {"op", 0, 0, G_OPTION_ARG_STRING, &opt.op, "read, write or connect",
         "OP"},
        {"sequential", 0, 0, G_OPTION_ARG_NONE, &opt.sequential,
         "one block after the other, not random", NULL},
        {"block", 0, 0, G_OPTION_ARG_INT, &opt.block_bytes, "block size",
         "BYTES"},
        {"depth", 0, 0, G_OPTION_ARG_INT, &opt.depth,
         "requests in flight per connection", "N"},
        {"connections", 0, 0, G_OPTION_ARG_INT, &opt.connections, "connections",
         "N"},
        {"seconds", 0, 0, G_OPTION_ARG_DOUBLE, &opt.seconds, "duration", "S"},
        G_OPTION_ENTRY_NULL,
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) error = NULL;

    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        die("%s", error->message);
    }
    opt.op = opt.op != NULL ? opt.op : g_strdup("read");
    opt.export_name = opt.export_name != NULL ? opt.export_name : g_strdup("");
    opt.priority = opt.priority != NULL ? opt.priority : g_strdup("NORMAL");
    if ((opt.unix_path == NULL) == (opt.tcp == NULL) || opt.depth < 1 ||
        opt.connections < 1 || opt.block_bytes < 1 ||
        opt.block_bytes > 32 * 1024 * 1024) {
        die("see --help");
    }
    if (opt.tls_dir != NULL) {
        load_credentials();
    }
    if (opt.op[0] == 'c') {
        run_connects();
        return 0;
    }
    payload = g_malloc(opt.block_bytes);
    memset(payload, 0x5a, opt.block_bytes);
    run();
    return 0;
}
