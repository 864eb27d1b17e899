/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Socket activation, see sd_listen_fds(3): descriptors from 3 on, counted by
 * $LISTEN_FDS and named by $LISTEN_FDNAMES, if $LISTEN_PID is this process.
 */
#include "serve/activation.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"

/* As sd_listen_fds_with_names(3) calls those without a name. */
#define NO_NAME "unknown"

typedef struct Socket {
    int fd; /* owned until it is taken; then -1 */
    char *name;
} Socket;

struct BfActivation {
    unsigned count;  /* $LISTEN_FDS */
    GArray *sockets; /* owned: of Socket */
};

static bool
read_number(const char *variable, guint64 min, guint64 max, guint64 *ret)
{
    const char *text = g_getenv(variable);

    return text != NULL &&
           g_ascii_string_to_unsigned(text, 10, min, max, ret, NULL);
}

static void
find_sockets(BfActivation *activation)
{
    const char *text = g_getenv("LISTEN_FDNAMES");
    g_auto(GStrv) names = g_strsplit(text != NULL ? text : "", ":", -1);
    guint n_names = g_strv_length(names);
    guint64 pid = 0;
    guint64 count = 0;

    if (!read_number("LISTEN_PID", 1, G_MAXINT, &pid) ||
        pid != (guint64)getpid() ||
        !read_number("LISTEN_FDS", 1, G_MAXINT - BF_ACTIVATION_FIRST_FD,
                     &count)) {
        return;
    }
    activation->count = (unsigned)count;
    for (guint64 i = 0; i < count; i++) {
        Socket sock = {.fd = BF_ACTIVATION_FIRST_FD + (int)i};

        if (fcntl(sock.fd, F_SETFD, FD_CLOEXEC) < 0) {
            g_warning("LISTEN_FDS is %" G_GUINT64_FORMAT
                      ", but descriptor %d is not open",
                      count, sock.fd);
            break;
        }
        sock.name = g_strdup(i < n_names ? names[i] : NO_NAME);
        g_array_append_val(activation->sockets, sock);
    }
}

BfActivation *
bf_activation_new(void)
{
    BfActivation *activation = g_new0(BfActivation, 1);

    activation->sockets = g_array_new(false, false, sizeof(Socket));
    find_sockets(activation);
    g_unsetenv("LISTEN_PID");
    g_unsetenv("LISTEN_FDS");
    g_unsetenv("LISTEN_FDNAMES");
    return activation;
}

void
bf_activation_free(BfActivation *activation)
{
    if (activation == NULL) {
        return;
    }
    for (unsigned i = 0; i < activation->sockets->len; i++) {
        const Socket *sock = &g_array_index(activation->sockets, Socket, i);

        if (sock->fd >= 0) {
            close(sock->fd);
        }
        g_free(sock->name);
    }
    g_array_unref(activation->sockets);
    g_free(activation);
}

unsigned
bf_activation_count(const BfActivation *activation)
{
    return activation->count;
}

/* "'a', 'b'": the names of all sockets, for messages. */
static char *
list_names(const BfActivation *activation)
{
    GString *text = g_string_new(NULL);

    for (unsigned i = 0; i < activation->sockets->len; i++) {
        const Socket *sock = &g_array_index(activation->sockets, Socket, i);

        g_string_append_printf(text, "%s'%s'%s", i > 0 ? ", " : "", sock->name,
                               sock->fd < 0 ? " (in use)" : "");
    }
    return g_string_free(text, FALSE);
}

static int
take_by_name(BfActivation *activation, const char *name, GError **error)
{
    g_autofree char *names = NULL;

    for (unsigned i = 0; i < activation->sockets->len; i++) {
        Socket *sock = &g_array_index(activation->sockets, Socket, i);

        if (sock->fd >= 0 && strcmp(sock->name, name) == 0) {
            return bf_steal_fd(&sock->fd);
        }
    }
    names = list_names(activation);
    bf_set_error(error,
                 "Unable to parse FD number %s, and there is no socket with "
                 "this name that could be used: LISTEN_FDNAMES gave %s",
                 name, *names != '\0' ? names : "none to this process");
    return -1;
}

int
bf_activation_take_fd(void *opaque, const char *name, GError **error)
{
    BfActivation *activation = opaque;
    guint64 fd = 0;
    struct stat st;

    if (!g_ascii_string_to_unsigned(name, 10, 0, G_MAXINT, &fd, NULL)) {
        return take_by_name(activation, name, error);
    }
    if (fstat((int)fd, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        bf_set_error(error, "File descriptor '%s' is not a socket", name);
        return -1;
    }
    for (unsigned i = 0; i < activation->sockets->len; i++) {
        Socket *sock = &g_array_index(activation->sockets, Socket, i);

        if (sock->fd == (int)fd) {
            sock->fd = -1;
        }
    }
    return (int)fd;
}

void
bf_activation_warn_unused(const BfActivation *activation)
{
    for (unsigned i = 0; i < activation->sockets->len; i++) {
        const Socket *sock = &g_array_index(activation->sockets, Socket, i);

        if (sock->fd >= 0) {
            g_warning("socket '%s' (descriptor %d), which was passed to this "
                      "process, is not used; name it as fd=%s of a --chardev "
                      "or addr.str=%s of --nbd-server",
                      sock->name, sock->fd, sock->name, sock->name);
        }
    }
}
