/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log writer. Two of its globals are set once at start, before there are
 * threads; the third one any thread may set, all to the same value.
 */
#include "serve/log.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <syslog.h>
#include <unistd.h>

#include <glib.h>

#include "core/atomic.h"

/* A pipe takes this much, and the program's name, at once or not at all. */
#define LINE_BYTES_MAX 3900
#define PROGRAM_BYTES_MAX 100

typedef enum LogSink {
    LOG_SINK_STDERR,
    LOG_SINK_JOURNAL,
    LOG_SINK_SYSLOG,
} LogSink;

static const char *log_program;
static LogSink log_sink;
/* Standard error is a file that cannot say whether a line would have to wait.
 */
static BfAtomicU64 log_to_plain_file;

static int
syslog_priority(GLogLevelFlags level)
{
    if ((level & (G_LOG_LEVEL_ERROR | G_LOG_LEVEL_CRITICAL)) != 0) {
        return LOG_ERR;
    }
    if ((level & G_LOG_LEVEL_WARNING) != 0) {
        return LOG_WARNING;
    }
    if ((level & G_LOG_LEVEL_MESSAGE) != 0) {
        return LOG_NOTICE;
    }
    return (level & G_LOG_LEVEL_INFO) != 0 ? LOG_INFO : LOG_DEBUG;
}

static bool
is_writable(int fd)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLOUT};

    return poll(&pollfd, 1, 0) > 0 && (pollfd.revents & POLLOUT) != 0;
}

/* Decides how a line is written that could not be written without waiting. */
static bool
may_write(int err)
{
    struct stat st;

    if (err == EAGAIN) {
        return false;
    }
    /* For a file there is nothing that could be asked. */
    if (err == EOPNOTSUPP && fstat(STDERR_FILENO, &st) == 0 &&
        S_ISREG(st.st_mode)) {
        bf_atomic_store(&log_to_plain_file, 1);
        return true;
    }
    return is_writable(STDERR_FILENO);
}

/*
 * Whoever reads our standard error may have stopped to: a line is then dropped,
 * since a loop that waits for it would stop every client. Pipes take a whole
 * line or say that they are full; what cannot say so is asked by poll() before.
 */
static void
write_line(const char *line, size_t bytes)
{
    const struct iovec iov = {.iov_base = (void *)line, .iov_len = bytes};

    if (bf_atomic_load(&log_to_plain_file) == 0 &&
        (pwritev2(STDERR_FILENO, &iov, 1, -1, RWF_NOWAIT) >= 0 ||
         !may_write(errno))) {
        return;
    }
    if (write(STDERR_FILENO, line, bytes) < 0) {
        return; /* nowhere to complain */
    }
}

static const char *
find_field(const GLogField *fields, gsize n_fields, const char *key)
{
    for (gsize i = 0; i < n_fields; i++) {
        if (strcmp(fields[i].key, key) == 0) {
            return fields[i].value;
        }
    }
    return NULL;
}

/* Control characters would let a peer's text forge lines or drive a terminal.
 */
static char *
clean_text(const char *text)
{
    char *clean = g_utf8_make_valid(text, -1);

    for (char *p = clean; *p != '\0'; p++) {
        if (g_ascii_iscntrl(*p)) {
            *p = '?';
        }
    }
    return clean;
}

static char *
append(char *end, const char *text, size_t max)
{
    const size_t n = strnlen(text, max);

    memcpy(end, text, n);
    return end + n;
}

/* Appends the clean form of a text, or what fits of it. Most are clean. */
static char *
append_clean(char *end, const char *text)
{
    g_autofree char *clean = NULL;
    size_t n = 0;

    while (n < LINE_BYTES_MAX && g_ascii_isprint(text[n])) {
        n++;
    }
    if (n < LINE_BYTES_MAX && text[n] != '\0') {
        clean = clean_text(text);
    }
    return append(end, clean != NULL ? clean : text, LINE_BYTES_MAX);
}

/* Without printf(), which would take longer than to write the line. */
static void
write_text(GLogLevelFlags level, const char *text)
{
    char line[PROGRAM_BYTES_MAX + LINE_BYTES_MAX + 16];
    char *end = append(line, log_program, PROGRAM_BYTES_MAX);

    end = append(end, ": ", 2);
    if ((level & G_LOG_LEVEL_WARNING) != 0) {
        end = append(end, "warning: ", 9);
    }
    end = append_clean(end, text);
    *end++ = '\n';
    write_line(line, end - line);
}

static GLogWriterOutput
write_log(GLogLevelFlags level, const GLogField *fields, gsize n_fields,
          gpointer user_data)
{
    const char *domain = find_field(fields, n_fields, "GLIB_DOMAIN");
    const char *text = find_field(fields, n_fields, "MESSAGE");
    g_autofree char *clean = NULL;

    /* GLib drops levels info and debug by default; info is ours to show. */
    if ((level & G_LOG_LEVEL_DEBUG) != 0 &&
        g_log_writer_default_would_drop(level, domain)) {
        return G_LOG_WRITER_HANDLED;
    }
    if (log_sink == LOG_SINK_JOURNAL &&
        g_log_writer_journald(level, fields, n_fields, user_data) ==
            G_LOG_WRITER_HANDLED) {
        return G_LOG_WRITER_HANDLED;
    }
    if (log_sink == LOG_SINK_SYSLOG) {
        clean = clean_text(text != NULL ? text : "");
        syslog(syslog_priority(level), "%s", clean);
    } else {
        write_text(level, text != NULL ? text : "");
    }
    return G_LOG_WRITER_HANDLED;
}

void
bf_log_init(const char *program)
{
    log_program = program;
    log_sink = g_log_writer_is_journald(STDERR_FILENO) ? LOG_SINK_JOURNAL
                                                       : LOG_SINK_STDERR;
    g_log_set_writer_func(write_log, NULL, NULL);
}

void
bf_log_detach(void)
{
    if (access("/run/systemd/journal/socket", W_OK) == 0) {
        log_sink = LOG_SINK_JOURNAL;
        return;
    }
    openlog(log_program, LOG_PID, LOG_DAEMON);
    log_sink = LOG_SINK_SYSLOG;
}
