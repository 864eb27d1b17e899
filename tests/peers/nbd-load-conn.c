/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd-load's connections: over UNIX or TCP, with TLS or without, up to the
 * choice of an export. Several threads may open them at a time.
 */
#include "nbd-load.h"

#include <endian.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define IHAVEOPT G_GUINT64_CONSTANT(0x49484156454f5054)

#define OPT_STARTTLS 5
#define OPT_GO 7
#define REP_ACK 1
#define REP_INFO 3
#define CMD_DISC 2

static gnutls_certificate_credentials_t tls_creds;
static gnutls_psk_client_credentials_t psk_creds;

void
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

bool
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

ssize_t
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
    if (opt.psk_user != NULL) {
        gnutls_credentials_set(conn->tls, GNUTLS_CRD_PSK, psk_creds);
    } else {
        gnutls_credentials_set(conn->tls, GNUTLS_CRD_CERTIFICATE, tls_creds);
    }
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

Conn *
conn_open(void)
{
    Conn *conn = g_new0(Conn, 1);

    conn->fd =
        opt.unix_path ? connect_unix(opt.unix_path) : connect_tcp(opt.tcp);
    negotiate(conn);
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

void
conn_close(Conn *conn)
{
    say_bye(conn);
    if (conn->tls != NULL) {
        gnutls_deinit(conn->tls);
        g_byte_array_unref(conn->wire_out);
    }
    close(conn->fd);
    g_free(conn->wire_in);
    g_free(conn);
}

static void
load_psk(void)
{
    g_autofree char *path = g_build_filename(opt.tls_dir, "keys.psk", NULL);
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    size_t user_len = strlen(opt.psk_user);

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        die("cannot read '%s'", path);
    }
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line != NULL; line++) {
        if (g_str_has_prefix(*line, opt.psk_user) && (*line)[user_len] == ':') {
            char *key = *line + user_len + 1;
            const gnutls_datum_t datum = {(unsigned char *)key, strlen(key)};

            gnutls_psk_allocate_client_credentials(&psk_creds);
            gnutls_psk_set_client_credentials(psk_creds, opt.psk_user, &datum,
                                              GNUTLS_PSK_KEY_HEX);
            return;
        }
    }
    die("'%s' has no key of '%s'", path, opt.psk_user);
}

static void
load_certificates(void)
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

void
load_credentials(void)
{
    if (opt.psk_user != NULL) {
        load_psk();
    } else {
        load_certificates();
    }
}
