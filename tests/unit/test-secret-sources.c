/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where the bytes of a secret come from, and the memory that they live in. */
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "crypto/secret.h"

static void
assert_secret(const BfSecretParams *params, const void *bytes, size_t len)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BfSecret) secret = bf_secret_new(params, NULL, NULL, &error);
    size_t got_len = 0;
    const uint8_t *got = NULL;

    g_assert_no_error(error);
    got = bf_secret_get_bytes(secret, &got_len);
    g_assert_cmpmem(got, got_len, bytes, len);
    g_assert_cmpint(got[got_len], ==, 0);
}

static void
assert_refused(const BfSecretParams *params, const char *phrase)
{
    g_autoptr(GError) error = NULL;

    g_assert_null(bf_secret_new(params, NULL, NULL, &error));
    g_assert_nonnull(error);
    if (strstr(error->message, phrase) == NULL) {
        g_error("'%s' is not in '%s'", phrase, error->message);
    }
}

/* A descriptor of a file without a name that holds "in a file". */
static int
open_file(int *ret_fd)
{
    g_autofree char *path = NULL;
    int fd = g_file_open_tmp("blockferry-test-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    g_unlink(path);
    g_assert_cmpint(write(fd, "in a file", 9), ==, 9);
    *ret_fd = fd;
    return fd;
}

static void
test_descriptor_is_read_from_its_start(void)
{
    bf_autofd fd = -1;
    BfSecretParams p = {.file = "/dev/fdset/3", .fd = &fd};
    g_autofree char *path = NULL;

    open_file(&fd); /* its position is at the end */
    assert_secret(&p, "in a file", 9);
    assert_secret(&p, "in a file", 9);
    g_assert_cmpint(lseek(fd, 0, SEEK_CUR), ==, 9);
    path = g_strdup_printf("/dev/fd/%d", fd);
    assert_secret(&(BfSecretParams){.file = path}, "in a file", 9);
}

static void
test_socket_can_be_passed(void)
{
    int fds[2];
    g_autofree char *path = NULL;

    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), ==, 0);
    g_assert_cmpint(write(fds[1], "by socket", 9), ==, 9);
    close(fds[1]);
    path = g_strdup_printf("/dev/fd/%d", fds[0]);
    assert_secret(&(BfSecretParams){.file = path}, "by socket", 9);
    close(fds[0]);
}

static void
test_pipe_that_stays_open_is_given_up(void)
{
    BfSecret *secret = NULL;
    int fds[2];

    g_assert_cmpint(pipe(fds), ==, 0);
    g_assert_cmpint(write(fds[1], "half", 4), ==, 4);
    g_assert_cmpint(bf_secret_load_fd(fds[0], 100, 20, &secret), ==,
                    -ETIMEDOUT);
    g_assert_null(secret);
    close(fds[0]);
    close(fds[1]);
}

/* Opening does not wait for it, and its absence is not the end of the data. */
static void
test_fifo_without_writer_is_given_up(void)
{
    g_autofree char *dir = g_dir_make_tmp("bf-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "fifo", NULL);
    BfSecret *secret = NULL;
    int fd = -1;

    g_assert_cmpint(mkfifo(path, 0600), ==, 0);
    fd = open(path, O_RDONLY | O_NONBLOCK);
    g_assert_cmpint(bf_secret_load_fd(fd, 100, 20, &secret), ==, -ETIMEDOUT);
    close(fd);
    g_unlink(path);
    g_rmdir(dir);
}

static void
test_size_is_limited(void)
{
    g_autofree char *exact = g_strnfill(BF_SECRET_MAX_BYTES, 'x');
    g_autofree char *more = g_strnfill(BF_SECRET_MAX_BYTES + 1, 'x');

    assert_secret(&(BfSecretParams){.data = exact}, exact, BF_SECRET_MAX_BYTES);
    assert_refused(&(BfSecretParams){.data = more}, "more than 65536");
    assert_refused(&(BfSecretParams){.file = "/dev/zero"},
                   "Unable to read /dev/zero: it holds more than 65536 bytes");
}

static void
test_credentials_of_systemd(void)
{
    static const char *const bad[] = {"", ".", "..", "a/b", "/etc/passwd"};
    g_autofree char *dir = g_dir_make_tmp("bf-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "disk-key", NULL);
    BfSecretParams p = {.credential = "disk-key"};

    assert_refused(&p, "$CREDENTIALS_DIRECTORY is not set; run under systemd "
                       "with LoadCredential=disk-key:PATH");
    g_setenv("CREDENTIALS_DIRECTORY", dir, TRUE);
    assert_refused(&p, path);
    g_assert_true(g_file_set_contents(path, "of systemd", -1, NULL));
    assert_secret(&p, "of systemd", 10);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        assert_refused(&(BfSecretParams){.credential = bad[i]},
                       "must be the name of a credential");
    }
    assert_refused(&(BfSecretParams){.credential = "x", .data = "y"},
                   "mutually exclusive");
    g_unsetenv("CREDENTIALS_DIRECTORY");
    g_unlink(path);
    g_rmdir(dir);
}

static void
test_keys_of_the_kernel(void)
{
    /* -1: the thread's keyring, which is made for it. */
    long serial =
        syscall(SYS_add_key, "user", "blockferry-test", "a\0key", 5, -1);

    assert_refused(&(BfSecretParams){.serial = 0x7fffffff},
                   "Unable to read serial key 7fffffff: ");
    /* Containers may forbid keys; then there is no more to see. */
    if (serial > 0) {
        assert_secret(&(BfSecretParams){.serial = (int32_t)serial}, "a\0key",
                      5);
    } else {
        g_assert_true(errno == EPERM || errno == ENOSYS || errno == EACCES);
    }
}

/* What the kernel says of the pages at @address, for example "rd wr lo dd". */
static char *
vm_flags(const void *address)
{
    g_autofree char *text = NULL;
    g_auto(GStrv) lines = NULL;
    bool inside = false;

    g_assert_true(g_file_get_contents("/proc/self/smaps", &text, NULL, NULL));
    lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line != NULL; line++) {
        unsigned long start = 0;
        unsigned long end = 0;

        if (sscanf(*line, "%lx-%lx ", &start, &end) == 2) {
            inside =
                (unsigned long)address >= start && (unsigned long)address < end;
        } else if (inside && g_str_has_prefix(*line, "VmFlags:")) {
            return g_strdup(*line);
        }
    }
    g_assert_not_reached();
}

static void
test_memory_is_locked_and_not_dumped(void)
{
    g_autoptr(BfSecret) secret = bf_secret_new_bytes("secret", 6);
    size_t len = 0;
    g_autofree char *flags = vm_flags(bf_secret_get_bytes(secret, &len));

    g_assert_nonnull(strstr(flags, " dd"));
    g_assert_true((strstr(flags, " lo") != NULL) ==
                  bf_secret_is_locked(secret));
}

/* Takes from this process what lets root lock memory without a limit. */
static void
forbid_locking(void)
{
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    const struct rlimit none = {0, 0};

    g_assert_cmpint(syscall(SYS_capget, &header, data), ==, 0);
    data[0].effective &= ~(1U << CAP_IPC_LOCK);
    g_assert_cmpint(syscall(SYS_capset, &header, data), ==, 0);
    g_assert_cmpint(setrlimit(RLIMIT_MEMLOCK, &none), ==, 0);
}

static void
test_denied_lock_is_told(void)
{
    forbid_locking();
    {
        g_autoptr(BfSecret) secret = bf_secret_new_bytes("secret", 6);
        size_t len = 0;
        g_autofree char *flags = vm_flags(bf_secret_get_bytes(secret, &len));

        g_assert_false(bf_secret_is_locked(secret));
        g_assert_nonnull(strstr(flags, " dd"));
    }
}

#define ADD(path, name) g_test_add_func("/crypto/secret/" path, test_##name)

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("read/descriptor-from-its-start", descriptor_is_read_from_its_start);
    ADD("read/socket-can-be-passed", socket_can_be_passed);
    ADD("read/open-pipe-is-given-up", pipe_that_stays_open_is_given_up);
    ADD("read/fifo-without-writer", fifo_without_writer_is_given_up);
    ADD("read/size-is-limited", size_is_limited);
    ADD("read/credentials-of-systemd", credentials_of_systemd);
    ADD("read/keys-of-the-kernel", keys_of_the_kernel);
    ADD("memory/locked-and-not-dumped", memory_is_locked_and_not_dumped);
    ADD("memory/denied-lock-is-told", denied_lock_is_told);
    return g_test_run();
}
