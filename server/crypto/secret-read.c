/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the bytes of a secret come from: the caller, a file or pipe, systemd's
 * credentials, the kernel's keyrings.
 *
 * Nothing is waited for without a limit but storage itself: a pipe is opened
 * without waiting for its writer, and polled before it is read.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "secret-private.h"

/* First guess of what something without a size holds. */
#define GUESS_BYTES 4000

/* A descriptor that is being read. */
typedef struct Reader {
    int fd;
    bool is_file;  /* regular: read from its start */
    gint64 end_us; /* monotonic time at which to give up */
} Reader;

/* Returns bytes read, 0 at the end, or -errno; it may be interrupted. */
static ssize_t
read_some(const Reader *reader, uint8_t *buf, size_t len, size_t offset)
{
    struct pollfd poll_fd = {.fd = reader->fd, .events = POLLIN};
    gint64 left_us = reader->end_us - g_get_monotonic_time();
    ssize_t n = 0;

    if (reader->is_file) {
        n = pread(reader->fd, buf, len, (off_t)offset);
        return n < 0 ? -errno : n;
    }
    if (left_us <= 0) {
        return -ETIMEDOUT;
    }
    n = poll(&poll_fd, 1, (int)(left_us / 1000) + 1);
    if (n > 0) {
        n = read(reader->fd, buf, len);
    } else if (n == 0) {
        return -ETIMEDOUT;
    }
    return n < 0 ? -errno : n;
}

/* Reads up to @max bytes and one more, to see whether there are more. */
static int
read_all(const Reader *reader, size_t size_hint, size_t max,
         BfSecret **ret_secret)
{
    g_autoptr(BfSecret) secret = bf_secret_alloc(MIN(size_hint, max) + 1);
    size_t used = 0;

    for (;;) {
        ssize_t n =
            read_some(reader, secret->bytes + used, secret->len - used, used);

        if (n == -EINTR || n == -EAGAIN) {
            continue;
        }
        if (n < 0) {
            return (int)n;
        }
        if (n == 0) {
            break;
        }
        used += (size_t)n;
        if (used > max) {
            return -EFBIG;
        }
        if (used == secret->len) {
            BfSecret *larger = bf_secret_alloc(MIN(used * 2, max + 1));

            memcpy(larger->bytes, secret->bytes, used);
            bf_secret_unref(secret);
            secret = larger;
        }
    }
    bf_secret_cut(secret, used);
    *ret_secret = g_steal_pointer(&secret);
    return 0;
}

int
bf_secret_load_fd(int fd, size_t max_bytes, unsigned max_ms,
                  BfSecret **ret_secret)
{
    Reader reader = {.fd = fd,
                     .end_us = g_get_monotonic_time() +
                               max_ms * G_GINT64_CONSTANT(1000)};
    struct stat st;

    if (fstat(fd, &st) < 0) {
        return -errno;
    }
    if (S_ISDIR(st.st_mode)) {
        return -EISDIR;
    }
    reader.is_file = S_ISREG(st.st_mode);
    return read_all(&reader, reader.is_file ? (size_t)st.st_size : GUESS_BYTES,
                    max_bytes, ret_secret);
}

/* A socket that was passed in cannot be opened by its path, but duplicated. */
static int
duplicate_by_path(const char *path)
{
    const char *number = path + strlen("/dev/fd/");
    guint64 fd = 0;

    if (!g_str_has_prefix(path, "/dev/fd/") ||
        !g_ascii_string_to_unsigned(number, 10, 0, G_MAXINT, &fd, NULL)) {
        return -1;
    }
    return fcntl((int)fd, F_DUPFD_CLOEXEC, 0);
}

int
bf_secret_load_file(const char *path, size_t max_bytes, BfSecret **ret_secret)
{
    bf_autofd fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

    if (fd < 0 && errno == ENXIO) {
        fd = duplicate_by_path(path);
    }
    if (fd < 0) {
        return -errno;
    }
    return bf_secret_load_fd(fd, max_bytes, BF_SECRET_READ_MAX_MS, ret_secret);
}

static void
set_read_error(GError **error, int ret, const char *path)
{
    if (ret == -EFBIG) {
        bf_set_error(error, "Unable to read %s: it holds more than %zu bytes",
                     path, BF_SECRET_MAX_BYTES);
    } else if (ret == -ETIMEDOUT) {
        bf_set_error(error,
                     "Unable to read %s: it did not end within %d s; close its "
                     "other end",
                     path, BF_SECRET_READ_MAX_MS / 1000);
    } else {
        bf_set_errno(error, -ret, "Unable to read %s", path);
    }
}

static BfSecret *
read_file(const char *path, const int *fd, GError **error)
{
    BfSecret *secret = NULL;
    int ret = fd != NULL
                  ? bf_secret_load_fd(*fd, BF_SECRET_MAX_BYTES,
                                      BF_SECRET_READ_MAX_MS, &secret)
                  : bf_secret_load_file(path, BF_SECRET_MAX_BYTES, &secret);

    if (ret < 0) {
        set_read_error(error, ret, path);
    }
    return secret;
}

static BfSecret *
read_credential(const char *name, GError **error)
{
    const char *dir = g_getenv("CREDENTIALS_DIRECTORY");
    g_autofree char *path = NULL;

    if (*name == '\0' || strchr(name, '/') != NULL || g_str_equal(name, ".") ||
        g_str_equal(name, "..")) {
        bf_set_error(error,
                     "'credential' must be the name of a credential, without "
                     "'/', but is '%s'",
                     name);
        return NULL;
    }
    if (dir == NULL || *dir == '\0') {
        bf_set_error(error,
                     "there are no credentials: $CREDENTIALS_DIRECTORY is not "
                     "set; run under systemd with LoadCredential=%s:PATH",
                     name);
        return NULL;
    }
    path = g_build_filename(dir, name, NULL);
    return read_file(path, NULL, error);
}

static long
read_key(int32_t serial, uint8_t *buf, size_t len)
{
    return syscall(SYS_keyctl, KEYCTL_READ, serial, buf, len, 0);
}

static BfSecret *
read_keyring(int32_t serial, GError **error)
{
    /* The key may change between two calls, so there is only one. */
    g_autoptr(BfSecret) secret = bf_secret_alloc(BF_SECRET_MAX_BYTES);
    long n = read_key(serial, secret->bytes, secret->len);

    if (n < 0) {
        bf_set_errno(error, errno,
                     "Unable to read serial key %08x: the process must possess "
                     "the key, or its permissions let the user read it",
                     (unsigned)serial);
        return NULL;
    }
    if ((size_t)n > secret->len) {
        bf_set_error(error,
                     "Unable to read serial key %08x: it holds more than %zu "
                     "bytes",
                     (unsigned)serial, BF_SECRET_MAX_BYTES);
        return NULL;
    }
    return bf_secret_new_bytes(secret->bytes, (size_t)n);
}

static BfSecret *
take_data(const char *data, GError **error)
{
    size_t len = strlen(data);

    if (len > BF_SECRET_MAX_BYTES) {
        bf_set_error(error, "'data' holds %zu bytes, more than %zu", len,
                     BF_SECRET_MAX_BYTES);
        return NULL;
    }
    return bf_secret_new_bytes(data, len);
}

BfSecret *
bf_secret_read(const BfSecretParams *params, GError **error)
{
    int n_sources = (params->data != NULL) + (params->file != NULL) +
                    (params->credential != NULL) + (params->serial != 0);

    if (n_sources == 0) {
        bf_set_error(error, "Either 'file' or 'data' must be provided, or "
                            "'credential' for one of systemd's");
        return NULL;
    }
    if (n_sources > 1) {
        bf_set_error(error, "'file' and 'data' are mutually exclusive, and "
                            "both with 'credential'; give only one of them");
        return NULL;
    }
    if (params->data != NULL) {
        return take_data(params->data, error);
    }
    if (params->credential != NULL) {
        return read_credential(params->credential, error);
    }
    return params->file != NULL ? read_file(params->file, params->fd, error)
                                : read_keyring(params->serial, error);
}
