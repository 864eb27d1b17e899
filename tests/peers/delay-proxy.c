/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * delay-proxy: a network with distance and faults between two programs.
 *
 * It accepts connections at one address, opens one to another address for each,
 * and delivers what it reads after a delay, in both directions. Lines on its
 * standard input change the network while it runs; each gets one line in
 * answer. It ends with its standard input. One thread; a flow is one direction
 * of a connection.
 */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <inttypes.h>
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

#define CHUNK_BYTES (256 * 1024)
#define MAX_CONNS 256
#define NS_PER_MS 1000000

/* What was read at one time. */
typedef struct Chunk {
    struct Chunk *next;
    int64_t due_ns; /* when it arrives at the other end */
    size_t len;
    size_t pos;
    uint8_t data[];
} Chunk;

/* One direction; borrows both descriptors from its connection. */
typedef struct Flow {
    int from;
    int to;
    Chunk *first;
    Chunk *last;
    size_t held; /* bytes on the way */
    bool ended;  /* nothing more to be read */
    bool shut;   /* the end was passed on */
} Flow;

typedef struct Conn {
    int client;
    int server;
    Flow up;
    Flow down;
} Conn;

static char *listen_text;
static char *connect_text;
static double delay_ms;
static int64_t window = 64 << 20;
static int64_t rate; /* bytes each second and direction; 0: no limit */
static bool stalled;
static bool refusing;
static uint64_t accepted;
static uint64_t bytes_up;
static uint64_t bytes_down;
static int64_t free_at_ns[2]; /* when the line of a direction is free again */
static GPtrArray *conns;

static int64_t
now_ns(void)
{
    return g_get_monotonic_time() * 1000;
}

static void G_GNUC_NORETURN G_GNUC_PRINTF(1, 2) die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "delay-proxy: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    exit(1);
}

/* "unix:PATH" or "tcp:PORT" on the loopback interface. */
static int
open_socket(const char *text, bool listening)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr *address = (struct sockaddr *)&un;
    socklen_t len = sizeof(un);
    int one = 1;
    int fd;

    if (g_str_has_prefix(text, "unix:")) {
        g_strlcpy(un.sun_path, text + 5, sizeof(un.sun_path));
    } else if (g_str_has_prefix(text, "tcp:")) {
        in.sin_port = htons(atoi(text + 4));
        in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address = (struct sockaddr *)&in;
        len = sizeof(in);
    } else {
        die("an address is unix:PATH or tcp:PORT, not '%s'", text);
    }
    fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listening) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
        if (bind(fd, address, len) < 0 || listen(fd, 128) < 0) {
            die("cannot listen on %s: %s", text, strerror(errno));
        }
    } else if (connect(fd, address, len) < 0) {
        close(fd);
        return -1;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

static void
flow_clear(Flow *flow)
{
    while (flow->first != NULL) {
        Chunk *chunk = flow->first;

        flow->first = chunk->next;
        g_free(chunk);
    }
}

static void
conn_free(void *data)
{
    Conn *conn = data;

    flow_clear(&conn->up);
    flow_clear(&conn->down);
    close(conn->client);
    close(conn->server);
    g_free(conn);
}

/* Ends all connections as a cut cable would: with a reset at both ends. */
static void
cut_all(void)
{
    struct linger reset = {.l_onoff = 1};

    for (guint i = 0; i < conns->len; i++) {
        Conn *conn = conns->pdata[i];

        setsockopt(conn->client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        setsockopt(conn->server, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    }
    g_ptr_array_set_size(conns, 0);
}

static void
accept_one(int listener)
{
    int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    int one = 1;
    int server;
    Conn *conn;

    if (client < 0) {
        return;
    }
    accepted++;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    server = refusing || conns->len == MAX_CONNS
                 ? -1
                 : open_socket(connect_text, false);
    if (server < 0) {
        close(client);
        return;
    }
    conn = g_new0(Conn, 1);
    conn->client = client;
    conn->server = server;
    conn->up = (Flow){.from = client, .to = server};
    conn->down = (Flow){.from = server, .to = client};
    g_ptr_array_add(conns, conn);
}

/* When the last byte of @len bytes arrives that are sent now. */
static int64_t
arrival_ns(bool is_up, size_t len)
{
    int64_t now = now_ns();

    if (rate > 0) {
        int64_t start = MAX(now, free_at_ns[is_up]);

        free_at_ns[is_up] = start + (int64_t)(len * 1e9 / rate);
        now = free_at_ns[is_up];
    }
    return now + (int64_t)(delay_ms * NS_PER_MS);
}

/* False if the connection is broken. */
static bool
flow_read(Flow *flow, bool is_up)
{
    Chunk *chunk = g_malloc(sizeof(*chunk) + CHUNK_BYTES);
    ssize_t n = read(flow->from, chunk->data, CHUNK_BYTES);

    if (n <= 0) {
        g_free(chunk);
        flow->ended = n == 0;
        return n == 0 || errno == EAGAIN;
    }
    chunk = g_realloc(chunk, sizeof(*chunk) + n);
    chunk->next = NULL;
    chunk->len = n;
    chunk->pos = 0;
    chunk->due_ns = arrival_ns(is_up, n);
    if (flow->first == NULL) {
        flow->first = chunk;
    } else {
        flow->last->next = chunk;
    }
    flow->last = chunk;
    flow->held += n;
    *(is_up ? &bytes_up : &bytes_down) += n;
    return true;
}

static bool
is_due(const Flow *flow)
{
    return !stalled && flow->first != NULL && flow->first->due_ns <= now_ns();
}

static bool
flow_write(Flow *flow)
{
    while (is_due(flow)) {
        Chunk *chunk = flow->first;
        ssize_t n = send(flow->to, chunk->data + chunk->pos,
                         chunk->len - chunk->pos, MSG_NOSIGNAL);

        if (n < 0) {
            return errno == EAGAIN;
        }
        chunk->pos += n;
        flow->held -= n;
        if (chunk->pos == chunk->len) {
            flow->first = chunk->next;
            g_free(chunk);
        }
    }
    if (flow->ended && flow->first == NULL && !flow->shut) {
        flow->shut = true;
        shutdown(flow->to, SHUT_WR);
    }
    return true;
}

static void
answer_stats(void)
{
    printf("{\"accepted\": %" PRIu64 ", \"open\": %u, \"up\": %" PRIu64
           ", \"down\": %" PRIu64 "}\n",
           accepted, conns->len, bytes_up, bytes_down);
}

/* One command; see usage. */
static void
obey(char *line)
{
    g_auto(GStrv) words = g_strsplit(g_strstrip(line), " ", 2);
    const char *verb = words[0] != NULL ? words[0] : "";
    const char *value = words[0] != NULL && words[1] != NULL ? words[1] : "0";

    if (strcmp(verb, "stats") == 0) {
        answer_stats();
        return;
    }
    if (strcmp(verb, "delay") == 0) {
        delay_ms = g_ascii_strtod(value, NULL);
    } else if (strcmp(verb, "rate") == 0) {
        rate = g_ascii_strtoll(value, NULL, 10);
    } else if (strcmp(verb, "cut") == 0) {
        cut_all();
    } else if (strcmp(verb, "stall") == 0) {
        stalled = true;
    } else if (strcmp(verb, "go") == 0) {
        stalled = false;
    } else if (strcmp(verb, "refuse") == 0) {
        refusing = true;
    } else if (strcmp(verb, "accept") == 0) {
        refusing = false;
    } else {
        printf("unknown: %s\n", verb);
        return;
    }
    printf("ok\n");
}

/* False at the end of the input. */
static bool
read_commands(void)
{
    static char text[4096];
    static size_t len;
    ssize_t n = read(STDIN_FILENO, text + len, sizeof(text) - 1 - len);
    char *end;

    if (n <= 0) {
        return false;
    }
    len += n;
    text[len] = '\0';
    while ((end = strchr(text, '\n')) != NULL) {
        *end = '\0';
        obey(text);
        len -= end + 1 - text;
        memmove(text, end + 1, len + 1);
    }
    fflush(stdout);
    return true;
}

/* Appends what @flow waits for: one entry for each of its ends. */
static void
watch(GArray *fds, const Flow *flow, int64_t *next_ns)
{
    bool may_read = !flow->ended && !stalled && flow->held < (size_t)window;
    bool may_write = is_due(flow) || (flow->ended && !flow->shut);
    struct pollfd in = {may_read ? flow->from : -1, POLLIN, 0};
    struct pollfd out = {may_write ? flow->to : -1, POLLOUT, 0};

    g_array_append_val(fds, in);
    g_array_append_val(fds, out);
    if (!stalled && flow->first != NULL && !may_write) {
        *next_ns = MIN(*next_ns, flow->first->due_ns);
    }
}

static bool
flow_step(Flow *flow, const struct pollfd *fds, bool is_up)
{
    if (fds[0].revents != 0 && !flow_read(flow, is_up)) {
        return false;
    }
    return flow_write(flow);
}

static bool
conn_step(Conn *conn, const struct pollfd *fds)
{
    return flow_step(&conn->up, fds, true) &&
           flow_step(&conn->down, fds + 2, false) &&
           !(conn->up.shut && conn->down.shut);
}

static bool
serve_once(int listener)
{
    g_autoptr(GArray) fds = g_array_new(FALSE, FALSE, sizeof(struct pollfd));
    struct pollfd fixed[2] = {{STDIN_FILENO, POLLIN, 0}, {listener, POLLIN, 0}};
    int64_t next_ns = INT64_MAX;
    int64_t wait_ns = 0; /* for ever */
    struct timespec wait;
    const struct pollfd *ready;
    guint n = conns->len;

    g_array_append_vals(fds, fixed, 2);
    for (guint i = 0; i < n; i++) {
        watch(fds, &((Conn *)conns->pdata[i])->up, &next_ns);
        watch(fds, &((Conn *)conns->pdata[i])->down, &next_ns);
    }
    if (next_ns != INT64_MAX) {
        wait_ns = next_ns - now_ns();
        wait_ns = MAX(wait_ns, 1);
    }
    wait = (struct timespec){wait_ns / 1000000000, wait_ns % 1000000000};
    if (ppoll((struct pollfd *)fds->data, fds->len, wait_ns != 0 ? &wait : NULL,
              NULL) < 0) {
        die("poll: %s", strerror(errno));
    }
    ready = (const struct pollfd *)fds->data;
    for (guint i = n; i-- > 0;) {
        if (!conn_step(conns->pdata[i], ready + 2 + 4 * i)) {
            g_ptr_array_remove_index_fast(conns, i);
        }
    }
    if (ready[1].revents != 0) {
        accept_one(listener);
    }
    return ready[0].revents == 0 || read_commands();
}

int
main(int argc, char **argv)
{
    const GOptionEntry entries[] = {
        {"listen", 0, 0, G_OPTION_ARG_STRING, &listen_text,
         "unix:PATH or tcp:PORT", "ADDRESS"},
        {"connect", 0, 0, G_OPTION_ARG_STRING, &connect_text,
         "unix:PATH or tcp:PORT", "ADDRESS"},
        {"delay", 0, 0, G_OPTION_ARG_DOUBLE, &delay_ms,
         "of each direction, milliseconds", "MS"},
        {"window", 0, 0, G_OPTION_ARG_INT64, &window,
         "most bytes on the way in each direction of a connection", "BYTES"},
        {"rate", 0, 0, G_OPTION_ARG_INT64, &rate,
         "bytes per second of all connections together, each direction",
         "BYTES"},
        G_OPTION_ENTRY_NULL,
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) error = NULL;
    int listener;

    g_option_context_set_description(
        context, "Commands on standard input: stats, delay MS, rate BYTES, "
                 "cut, stall, go, refuse, accept.");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, &error)) {
        die("%s", error->message);
    }
    if (listen_text == NULL || connect_text == NULL) {
        die("--listen and --connect are mandatory");
    }
    conns = g_ptr_array_new_with_free_func(conn_free);
    listener = open_socket(listen_text, true);
    printf("ready\n");
    fflush(stdout);
    while (serve_once(listener)) {
    }
    g_ptr_array_unref(conns);
    close(listener);
    return 0;
}
