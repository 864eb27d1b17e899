/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pid file and going to the background.
 */
#include "serve/process.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "core/error.h"
#include "core/util.h"

struct BfPidfile {
    char *path; /* owned: absolute, since a daemon changes its directory */
    int fd;     /* owned: holds the lock */
};

bool
bf_process_fill_standard_fds(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        /* The lowest number that is free is taken. */
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd) {
            return false;
        }
    }
    return true;
}

/* Waits for the grandchild: one byte means ready, the end means failure. */
static _Noreturn void
wait_for_child(int fd)
{
    char byte;
    ssize_t n;

    do {
        n = read(fd, &byte, 1);
    } while (n < 0 && errno == EINTR);
    _exit(n == 1 ? EXIT_SUCCESS : EXIT_FAILURE);
}

bool
bf_process_daemonize(bool keep_umask, int *ret_ready_fd, GError **error)
{
    int fds[2];
    pid_t pid;

    if (pipe2(fds, O_CLOEXEC) != 0) {
        bf_set_errno(error, errno, "cannot make a pipe");
        return false;
    }
    pid = fork();
    if (pid > 0) {
        close(fds[1]);
        wait_for_child(fds[0]);
    }
    close(fds[0]);
    if (pid < 0) {
        bf_set_errno(error, errno, "cannot fork");
        close(fds[1]);
        return false;
    }
    setsid();
    /* A second fork: without being session leader the daemon cannot get a
     * controlling terminal by opening one. */
    pid = fork();
    if (pid < 0) {
        _exit(EXIT_FAILURE);
    }
    if (pid > 0) {
        _exit(EXIT_SUCCESS);
    }
    if (!keep_umask) {
        umask(0027);
    }
    *ret_ready_fd = fds[1];
    return true;
}

bool
bf_process_ready(int ready_fd, bool keep_stderr, GError **error)
{
    bf_autofd ready = ready_fd;
    bf_autofd null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null < 0 || chdir("/") != 0) {
        bf_set_errno(error, errno, "cannot leave the terminal");
        return false;
    }
    for (int fd = STDIN_FILENO;
         fd < (keep_stderr ? STDERR_FILENO : STDERR_FILENO + 1); fd++) {
        if (dup2(null, fd) < 0) {
            bf_set_errno(error, errno, "cannot leave the terminal");
            return false;
        }
    }
    /* Nobody to tell is no failure: the parent may have been killed. */
    if (write(ready, "", 1) != 1) {
        g_debug("the starting process is gone");
    }
    return true;
}

uint64_t
bf_process_watchdog_ns(void)
{
    const char *usec = g_getenv("WATCHDOG_USEC");
    const char *pid = g_getenv("WATCHDOG_PID");
    guint64 n = 0;

    if (pid != NULL &&
        (!g_ascii_string_to_unsigned(pid, 10, 1, G_MAXINT32, &n, NULL) ||
         n != (guint64)getpid())) {
        return 0;
    }
    if (usec == NULL ||
        !g_ascii_string_to_unsigned(usec, 10, 1, G_MAXINT64 / 1000, &n, NULL)) {
        return 0;
    }
    return n * 1000 / 2;
}

void
bf_process_notify_systemd(const char *state)
{
    const char *path = g_getenv("NOTIFY_SOCKET");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    bf_autofd fd = -1;
    size_t len = path != NULL ? strlen(path) : 0;

    if (len < 2 || len >= sizeof(addr.sun_path)) {
        return;
    }
    memcpy(addr.sun_path, path, len);
    if (addr.sun_path[0] == '@') {
        addr.sun_path[0] = '\0';
    }
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 ||
        sendto(fd, state, strlen(state), MSG_NOSIGNAL,
               (const struct sockaddr *)&addr,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)) < 0) {
        g_warning("cannot tell systemd '%s': %s", state, g_strerror(errno));
    }
}

static bool
write_pid(int fd)
{
    g_autofree char *text = g_strdup_printf("%ld\n", (long)getpid());
    ssize_t len = (ssize_t)strlen(text);

    return ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)len, 0) == len;
}

/*
 * Opens and locks @path. A file that its owner removed between our open and
 * our lock is not the one that others see any more: open again.
 */
static int
open_locked(const char *path, GError **error)
{
    for (;;) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        struct stat by_fd;
        struct stat by_path;
        bf_autofd fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

        if (fd < 0) {
            bf_set_errno(error, errno,
                         "cannot create PID file: Could not create '%s'", path);
            return -1;
        }
        /* A device of this name would be gone when it is removed. */
        if (fstat(fd, &by_fd) != 0 || !S_ISREG(by_fd.st_mode)) {
            bf_set_error(error,
                         "cannot create PID file: '%s' is not a regular file",
                         path);
            return -1;
        }
        if (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
            bf_set_errno(error, errno,
                         "cannot create PID file: Cannot lock pid file '%s' "
                         "(another daemon runs with it)",
                         path);
            return -1;
        }
        if (stat(path, &by_path) == 0 && by_fd.st_ino == by_path.st_ino &&
            by_fd.st_dev == by_path.st_dev) {
            return bf_steal_fd(&fd);
        }
    }
}

BfPidfile *
bf_pidfile_new(const char *path, GError **error)
{
    g_autoptr(BfPidfile) pidfile = g_new0(BfPidfile, 1);

    pidfile->fd = open_locked(path, error);
    if (pidfile->fd < 0) {
        return NULL;
    }
    pidfile->path = realpath(path, NULL);
    if (pidfile->path == NULL || !write_pid(pidfile->fd)) {
        bf_set_errno(error, errno, "cannot write PID file '%s'", path);
        return NULL;
    }
    return g_steal_pointer(&pidfile);
}

void
bf_pidfile_free(BfPidfile *pidfile)
{
    if (pidfile == NULL) {
        return;
    }
    if (pidfile->path != NULL) {
        unlink(pidfile->path);
    }
    if (pidfile->fd >= 0) {
        close(pidfile->fd);
    }
    free(pidfile->path);
    g_free(pidfile);
}
