/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd-load: keeps an NBD server busy and counts what it completes.
 *
 * A light client, so that the server is what is measured: one thread, many
 * requests in one send, many replies from one receive, over UNIX, TCP or TLS.
 * It prints one JSON object. Replies are simple ones; payloads are dropped
 * without a look, so this is no test of correctness.
 */
#include <endian.h>
#include <errno.h>
#include <glib.h>
#include <gnutls/gnutls.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define NBDMAGIC G_GUINT64_CONSTANT(0x4e42444d41474943)
#define IHAVEOPT G_GUINT64_CONSTANT(0x49484156454f5054)
#define REPLY_MAGIC G_GUINT64_CONSTANT(0x0003e889045565a9)
#define REQUEST_MAGIC 0x25609513u
#define SIMPLE_MAGIC 0x67446698u

#define OPT_STARTTLS 5
#define OPT_GO 7
#define REP_ACK 1
#define REP_INFO 3
#define CMD_READ 0
#define CMD_WRITE 1
#define CMD_DISC 2

#define REQUEST_BYTES 28
#define REPLY_BYTES 16
#define IN_BYTES (256 * 1024)
#define WIRE_BYTES (512 * 1024)
#define MAX_IOV 128

/* What the command line asked for. */
typedef struct Options {
    char *unix_path;
    char *tcp; /* host:port */
    char *export_name;
    char *tls_dir;
    char *priority;
    char *op; /* read or write */
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

static Options opt = {.export_name = NULL,
                      .block_bytes = 4096,
                      .depth = 1,
                      .connections = 1,
                      .seconds = 1.0};
static uint8_t *payload; /* what writes send, block_bytes long */
static gnutls_certificate_credentials_t tls_creds;

static void G_GNUC_PRINTF(1, 2) G_GNUC_NORETURN die(const char *format, ...)
{
    va_list ap;

    va_start(ap, format);
    fputs("nbd-load: ", stderr);
    vfprintf(stderr, format, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(1);
}

static void
wait_fd(Conn *conn, short events)
{
    struct pollfd pfd = {.fd = conn->fd, .events = events};

    if (poll(&pfd, 1, 20000) <= 0) {
        die("the server does not answer");
    }
}

/* TLS over own buffers, so that many records share a system call. */
static ssize_t
tls_pull(gnutls_transport_ptr_t ptr, void *data, size_t len)
{
    Conn *conn = ptr;

    if (conn->wire_in_pos == conn->wire_in_len) {
        ssize_t n = recv(conn->fd, conn->wire_in, WIRE_BYTES, MSG_DONTWAIT);

        conn->wire_in_pos = 0;
        conn->wire_in_len = MAX(n, 0);
        if (n <= 0) {
            gnutls_transport_set_errno(conn->tls, n < 0 ? errno : 0);
            return n;
        }
    }
    len = MIN(len, conn->wire_in_len - conn->wire_in_pos);
    memcpy(data, conn->wire_in + conn->wire_in_pos, len);
    conn->wire_in_pos += len;
    return len;
}

static ssize_t
tls_push(gnutls_transport_ptr_t ptr, const void *data, size_t len)
{
    Conn *conn = ptr;

    g_byte_array_append(conn->wire_out, data, len);
    return len;
}

/* Sends what TLS has produced; true when all is out. */
static bool
tls_flush(Conn *conn)
{
    while (conn->wire_out->len > 0) {
        ssize_t n = send(conn->fd, conn->wire_out->data, conn->wire_out->len,
                         MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno == EAGAIN) {
            return false;
        }
        if (n <= 0) {
            die("send: %s", g_strerror(errno));
        }
        if ((size_t)n == conn->wire_out->len) {
            g_byte_array_set_size(conn->wire_out, 0);
        } else {
            g_byte_array_remove_range(conn->wire_out, 0, n);
        }
    }
    return true;
}

/* Receives without waiting; -1 with EAGAIN when there is nothing. */
static ssize_t
conn_recv(Conn *conn, void *buf, size_t len, int flags)
{
    ssize_t n;

    if (conn->tls == NULL) {
        n = recv(conn->fd, buf, len, flags);
    } else {
        n = gnutls_record_recv(conn->tls, buf, len);
        if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED) {
            errno = EAGAIN;
            return -1;
        }
        if (n < 0) {
            die("TLS: %s", gnutls_strerror(n));
        }
    }
    if (n == 0) {
        die("the server closed the connection");
    }
    if (n < 0 && errno != EAGAIN) {
        die("recv: %s", g_strerror(errno));
    }
    return n;
}

static void
read_exact(Conn *conn, void *buf, size_t len)
{
    while (len > 0) {
        ssize_t n = conn_recv(conn, buf, len, MSG_DONTWAIT);

        if (n < 0) {
            wait_fd(conn, POLLIN);
            continue;
        }
        buf = (uint8_t *)buf + n;
        len -= n;
    }
}

static void
write_exact(Conn *conn, const void *buf, size_t len)
{
    if (conn->tls != NULL) {
        if (gnutls_record_send(conn->tls, buf, len) != (ssize_t)len) {
            die("TLS: cannot send");
        }
        while (!tls_flush(conn)) {
            wait_fd(conn, POLLOUT);
        }
    } else if (send(conn->fd, buf, len, MSG_NOSIGNAL) != (ssize_t)len) {
        die("send: %s", g_strerror(errno));
    }
}

static int
connect_unix(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (strlen(path) >= sizeof(addr.sun_path)) {
        die("path too long: %s", path);
    }
    strcpy(addr.sun_path, path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        die("cannot connect to '%s': %s", path, g_strerror(errno));
    }
    return fd;
}

static int
connect_tcp(const char *host_port)
{
    g_auto(GStrv) parts = g_strsplit(host_port, ":", 2);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *res;
    int one = 1;
    int fd;

    if (parts[1] == NULL || getaddrinfo(parts[0], parts[1], &hints, &res)) {
        die("bad address '%s'", host_port);
    }
    fd = socket(res->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, res->ai_addr, res->ai_addrlen) < 0) {
        die("cannot connect to '%s': %s", host_port, g_strerror(errno));
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    freeaddrinfo(res);
    return fd;
}

static void
start_tls(Conn *conn)
{
    int rc;

    conn->wire_in = g_malloc(WIRE_BYTES);
    conn->wire_out = g_byte_array_sized_new(WIRE_BYTES);
    gnutls_init(&conn->tls, GNUTLS_CLIENT | GNUTLS_NONBLOCK);
    if (gnutls_priority_set_direct(conn->tls, opt.priority, NULL) < 0) {
        die("bad priority '%s'", opt.priority);
    }
    gnutls_credentials_set(conn->tls, GNUTLS_CRD_CERTIFICATE, tls_creds);
    gnutls_transport_set_ptr(conn->tls, conn);
    gnutls_transport_set_pull_function(conn->tls, tls_pull);
    gnutls_transport_set_push_function(conn->tls, tls_push);
    do {
        rc = gnutls_handshake(conn->tls);
        while (!tls_flush(conn)) {
            wait_fd(conn, POLLOUT);
        }
        if (rc == GNUTLS_E_AGAIN && conn->wire_in_pos == conn->wire_in_len) {
            wait_fd(conn, POLLIN);
        }
    } while (rc < 0 && !gnutls_error_is_fatal(rc));
    if (rc < 0) {
        die("TLS handshake: %s", gnutls_strerror(rc));
    }
}

static void
send_option(Conn *conn, uint32_t option, const void *data, uint32_t len)
{
    g_autofree uint8_t *buf = g_malloc(16 + len);
    uint64_t magic = htobe64(IHAVEOPT);
    uint32_t numbers[2] = {htobe32(option), htobe32(len)};

    memcpy(buf, &magic, 8);
    memcpy(buf + 8, numbers, 8);
    memcpy(buf + 16, data, len);
    write_exact(conn, buf, 16 + len);
}

/* Reads replies to an option until the ACK; keeps the size it tells. */
static void
finish_option(Conn *conn)
{
    while (true) {
        uint8_t head[20];
        uint32_t type;
        uint32_t len;
        g_autofree uint8_t *data = NULL;

        read_exact(conn, head, sizeof(head));
        memcpy(&type, head + 12, 4);
        memcpy(&len, head + 16, 4);
        type = be32toh(type);
        len = be32toh(len);
        if (len > 65536) {
            die("option reply of %u bytes", len);
        }
        data = g_malloc0(len + 12);
        read_exact(conn, data, len);
        if (type == REP_ACK) {
            return;
        }
        if (type != REP_INFO) {
            die("option refused: 0x%x %.*s", type, (int)len, data);
        }
        if (len == 12 && data[0] == 0 && data[1] == 0) {
            memcpy(&conn->size, data + 2, 8);
            conn->size = be64toh(conn->size);
        }
    }
}

static void
negotiate(Conn *conn)
{
    uint32_t flags = htobe32(3);
    uint32_t name_len = htobe32(strlen(opt.export_name));
    uint8_t greeting[18];
    g_autoptr(GByteArray) go = g_byte_array_new();

    read_exact(conn, greeting, sizeof(greeting));
    write_exact(conn, &flags, sizeof(flags));
    if (opt.tls_dir != NULL) {
        send_option(conn, OPT_STARTTLS, "", 0);
        finish_option(conn);
        start_tls(conn);
    }
    g_byte_array_append(go, (const uint8_t *)&name_len, 4);
    g_byte_array_append(go, (const uint8_t *)opt.export_name,
                        strlen(opt.export_name));
    g_byte_array_append(go, (const uint8_t *)"\0\0", 2);
    send_option(conn, OPT_GO, go->data, go->len);
    finish_option(conn);
    if (conn->size < (uint64_t)opt.block_bytes) {
        die("the export is smaller than a block");
    }
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
    Conn *conn = g_new0(Conn, 1);

    conn->fd =
        opt.unix_path ? connect_unix(opt.unix_path) : connect_tcp(opt.tcp);
    conn->in = g_malloc(IN_BYTES);
    conn->headers = g_malloc0_n(opt.depth, REQUEST_BYTES);
    conn->queue = g_new0(unsigned, opt.depth);
    negotiate(conn);
    conn->next_offset = conn->size / opt.connections * index / opt.block_bytes *
                        opt.block_bytes;
    for (int slot = 0; slot < opt.depth; slot++) {
        queue_request(conn, slot);
    }
    return conn;
}

/* One send with all that is to be said: the server leaves after the first. */
static void
say_bye(Conn *conn)
{
    uint8_t disc[REQUEST_BYTES] = {0x25, 0x60, 0x95, 0x13, 0, 0, 0, CMD_DISC};

    if (conn->tls == NULL) {
        write_exact(conn, disc, sizeof(disc));
        return;
    }
    if (gnutls_record_send(conn->tls, disc, sizeof(disc)) < 0) {
        die("TLS: cannot send");
    }
    gnutls_bye(conn->tls, GNUTLS_SHUT_WR);
    while (!tls_flush(conn)) {
        wait_fd(conn, POLLOUT);
    }
}

static void
conn_free(Conn *conn)
{
    say_bye(conn);
    if (conn->tls != NULL) {
        gnutls_deinit(conn->tls);
        g_byte_array_unref(conn->wire_out);
    }
    close(conn->fd);
    g_free(conn->wire_in);
    g_free(conn->in);
    g_free(conn->headers);
    g_free(conn->queue);
    g_free(conn);
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
    printf("{\"ops\": %" G_GUINT64_FORMAT ", \"seconds\": %.6f, "
           "\"block\": %d}\n",
           done, elapsed, opt.block_bytes);
    for (int i = 0; i < opt.connections; i++) {
        conn_free(conns[i]);
    }
}

static void
load_credentials(void)
{
    g_autofree char *ca = g_build_filename(opt.tls_dir, "ca-cert.pem", NULL);
    g_autofree char *cert =
        g_build_filename(opt.tls_dir, "client-cert.pem", NULL);
    g_autofree char *key =
        g_build_filename(opt.tls_dir, "client-key.pem", NULL);

    gnutls_certificate_allocate_credentials(&tls_creds);
    if (gnutls_certificate_set_x509_trust_file(tls_creds, ca,
                                               GNUTLS_X509_FMT_PEM) < 1 ||
        gnutls_certificate_set_x509_key_file(tls_creds, cert, key,
                                             GNUTLS_X509_FMT_PEM) < 0) {
        die("cannot load certificates from '%s'", opt.tls_dir);
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
        {"op", 0, 0, G_OPTION_ARG_STRING, &opt.op, "read or write", "OP"},
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

    opt.op = g_strdup("read");
    opt.export_name = g_strdup("");
    opt.priority = g_strdup("NORMAL");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        die("%s", error->message);
    }
    if ((opt.unix_path == NULL) == (opt.tcp == NULL) || opt.depth < 1 ||
        opt.connections < 1 || opt.block_bytes < 1 ||
        opt.block_bytes > 32 * 1024 * 1024) {
        die("see --help");
    }
    if (opt.tls_dir != NULL) {
        load_credentials();
    }
    payload = g_malloc(opt.block_bytes);
    memset(payload, 0x5a, opt.block_bytes);
    run();
    return 0;
}
