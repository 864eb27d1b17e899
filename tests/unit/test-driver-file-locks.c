/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks of the file driver against another program, which these tests play
 * with a descriptor of their own, and what auto-read-only does with access.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block-harness.h"
#include "block/drivers/file-private.h"
#include "core/util.h"
#include "harness.h"

#define READ_WRITE (BF_PERM_CONSISTENT_READ | BF_PERM_WRITE)

/* Bytes that QEMU locks: permission n taken, permission n not shared. */
#define TAKEN(n) (100 + (n))
#define UNSHARED(n) (200 + (n))
#define WRITE 1
#define RESIZE 3

static bool
is_locked(int fd, int byte)
{
    struct flock lock = {
        .l_whence = SEEK_SET, .l_start = byte, .l_len = 1, .l_type = F_WRLCK};

    g_assert_cmpint(fcntl(fd, F_OFD_GETLK, &lock), ==, 0);
    return lock.l_type != F_UNLCK;
}

static void
lock_byte(int fd, int byte, short type)
{
    struct flock lock = {
        .l_whence = SEEK_SET, .l_start = byte, .l_len = 1, .l_type = type};

    g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
}

typedef struct Fixture {
    BfGraph *graph;
    char *path;
    int fd; /* the other program's */
} Fixture;

static void
fixture_open(Fixture *f)
{
    f->graph = bf_test_graph_new();
    f->path = bf_test_file_new(BF_MIB);
    f->fd = open(f->path, O_RDWR | O_CLOEXEC);
    g_assert_cmpint(f->fd, >=, 0);
}

static void
fixture_co_close(Fixture *f)
{
    bf_graph_co_free(f->graph);
    close(f->fd);
    g_free(f->path);
}

static void
test_locks_follow_the_users(void *arg)
{
    Fixture f;
    BfRoot *reader;
    BfRoot *writer;

    fixture_open(&f);
    bf_test_co_add(f.graph, bf_test_file("f0", f.path));
    for (int byte = 100; byte < 210; byte++) {
        g_assert_false(is_locked(f.fd, byte));
    }
    reader = bf_test_co_root(f.graph, "f0", BF_PERM_CONSISTENT_READ);
    g_assert_true(is_locked(f.fd, TAKEN(0)));
    g_assert_false(is_locked(f.fd, TAKEN(WRITE)));
    g_assert_true(is_locked(f.fd, UNSHARED(RESIZE)));
    g_assert_false(is_locked(f.fd, UNSHARED(WRITE)));
    writer = bf_test_co_root(f.graph, "f0", READ_WRITE);
    g_assert_true(is_locked(f.fd, TAKEN(WRITE)));
    bf_root_co_free(writer);
    g_assert_false(is_locked(f.fd, TAKEN(WRITE)));
    g_assert_true(is_locked(f.fd, TAKEN(0)));
    bf_root_co_free(reader);
    for (int byte = 100; byte < 210; byte++) {
        g_assert_false(is_locked(f.fd, byte));
    }
    fixture_co_close(&f);
}

static void
test_refuses_what_others_deny(void *arg)
{
    GError *error = NULL;
    BfRoot *root;
    BfNode *node;
    Fixture f;

    fixture_open(&f);
    node = bf_test_co_add(f.graph, bf_test_file("f0", f.path));
    lock_byte(f.fd, UNSHARED(WRITE), F_RDLCK);
    root = bf_test_co_root(f.graph, "f0", BF_PERM_CONSISTENT_READ);
    g_assert_null(
        bf_root_co_new(f.graph, node, "x", READ_WRITE, BF_PERM_ALL, &error));
    bf_test_assert_error(&error, "Failed to get \"write\" lock: another "
                                 "program, or another node here, uses '*' and "
                                 "does not let others do that; stop it first");
    g_assert_false(is_locked(f.fd, TAKEN(WRITE)));
    g_assert_true(is_locked(f.fd, TAKEN(0)));
    lock_byte(f.fd, UNSHARED(WRITE), F_UNLCK);

    lock_byte(f.fd, TAKEN(WRITE), F_RDLCK);
    g_assert_null(bf_root_co_new(f.graph, node, "x", BF_PERM_CONSISTENT_READ,
                                 BF_PERM_CONSISTENT_READ, &error));
    bf_test_assert_error(&error, "Failed to get shared \"write\" lock: *");
    g_assert_false(is_locked(f.fd, UNSHARED(WRITE)));
    bf_root_co_free(root);
    fixture_co_close(&f);
}

static void
test_locking_off_takes_none(void *arg)
{
    BfBlockdevOptions *options;
    BfRoot *root;
    Fixture f;

    fixture_open(&f);
    options = bf_test_file("f0", f.path);
    options->u.file->locking = BF_ON_OFF_AUTO_OFF;
    bf_test_co_add(f.graph, options);
    lock_byte(f.fd, UNSHARED(WRITE), F_RDLCK);
    root = bf_test_co_root(f.graph, "f0", READ_WRITE);
    g_assert_false(is_locked(f.fd, TAKEN(WRITE)));
    bf_root_co_free(root);
    fixture_co_close(&f);
}

static void
test_force_share_denies_nothing(void *arg)
{
    BfBlockdevOptions *options;
    BfRoot *root;
    Fixture f;

    fixture_open(&f);
    options = bf_test_file("f0", f.path);
    options->has_read_only = options->read_only = true;
    options->has_force_share = options->force_share = true;
    bf_test_co_add(f.graph, options);
    lock_byte(f.fd, TAKEN(RESIZE), F_RDLCK);
    root = bf_test_co_root(f.graph, "f0", BF_PERM_CONSISTENT_READ);
    g_assert_false(is_locked(f.fd, UNSHARED(RESIZE)));
    bf_root_co_free(root);
    fixture_co_close(&f);
}

static void
test_del_releases_the_file(void *arg)
{
    BfRoot *root;
    Fixture f;

    fixture_open(&f);
    for (unsigned i = 0; i < 20; i++) {
        bf_test_co_add(f.graph, bf_test_file("f0", f.path));
        root = bf_test_co_root(f.graph, "f0", READ_WRITE);
        bf_root_co_free(root);
        bf_test_co_del(f.graph, "f0");
        /* A lease is refused while somebody has the file open. */
        g_assert_cmpint(fcntl(f.fd, F_SETLEASE, F_WRLCK), ==, 0);
        g_assert_cmpint(fcntl(f.fd, F_SETLEASE, F_UNLCK), ==, 0);
    }
    fixture_co_close(&f);
}

static void
test_inactive_node_holds_no_locks(void *arg)
{
    GError *error = NULL;
    BfRoot *root;
    BfNode *node;
    Fixture f;

    fixture_open(&f);
    node = bf_test_co_add(f.graph, bf_test_file("f0", f.path));
    root = bf_root_co_new_inactive(f.graph, node, "test", READ_WRITE,
                                   BF_PERM_ALL, &error);
    g_assert_no_error(error);
    g_assert_true(bf_node_co_set_active(node, false, &error));
    g_assert_false(is_locked(f.fd, TAKEN(WRITE)));
    lock_byte(f.fd, UNSHARED(WRITE), F_RDLCK);
    g_assert_false(bf_node_co_activate(node, &error));
    bf_test_assert_error(&error, "Failed to get \"write\" lock*");
    g_assert_false(bf_node_is_active(node));
    lock_byte(f.fd, UNSHARED(WRITE), F_UNLCK);
    g_assert_true(bf_node_co_activate(node, &error));
    g_assert_true(is_locked(f.fd, TAKEN(WRITE)));
    bf_root_co_free(root);
    fixture_co_close(&f);
}

/* Access mode of our descriptor on @path, found by its inode. */
static int
access_mode(const char *path, int not_this)
{
    struct stat want;
    int mode = -1;

    g_assert_cmpint(stat(path, &want), ==, 0);
    for (int fd = 3; fd < 200; fd++) {
        struct stat st;

        if (fd != not_this && fstat(fd, &st) == 0 && st.st_ino == want.st_ino &&
            st.st_dev == want.st_dev) {
            g_assert_cmpint(mode, ==, -1);
            mode = fcntl(fd, F_GETFL) & O_ACCMODE;
        }
    }
    return mode;
}

static BfBlockdevOptions *
auto_read_only(const char *path)
{
    BfBlockdevOptions *options = bf_test_file("f0", path);

    options->has_auto_read_only = options->auto_read_only = true;
    return options;
}

typedef struct Write {
    BfHandle *handle;
    int ret;
} Write;

static void
co_write_some(void *arg)
{
    Write *write = arg;
    const uint8_t buf[512] = {1};

    write->ret = bf_test_co_write(write->handle, 0, buf, sizeof(buf), 0);
}

static void
test_auto_read_only_follows_the_writers(void *arg)
{
    BfRoot *reader;
    BfRoot *writer;
    Write write;
    Fixture f;

    fixture_open(&f);
    bf_test_co_add(f.graph, auto_read_only(f.path));
    g_assert_cmpint(access_mode(f.path, f.fd), ==, O_RDONLY);
    reader = bf_test_co_root(f.graph, "f0", BF_PERM_CONSISTENT_READ);
    g_assert_cmpint(access_mode(f.path, f.fd), ==, O_RDONLY);
    writer = bf_test_co_root(f.graph, "f0", READ_WRITE);
    g_assert_cmpint(access_mode(f.path, f.fd), ==, O_RDWR);
    g_assert_true(is_locked(f.fd, TAKEN(WRITE)));
    write.handle = bf_handle_co_new(writer, bf_test_loops()->workers[0]);
    bf_test_co_on(bf_test_loops()->workers[0], co_write_some, &write);
    g_assert_cmpint(write.ret, ==, 0);
    bf_root_co_free(writer);
    g_assert_cmpint(access_mode(f.path, f.fd), ==, O_RDONLY);
    g_assert_false(is_locked(f.fd, TAKEN(WRITE)));
    g_assert_true(is_locked(f.fd, TAKEN(0)));
    bf_root_co_free(reader);
    fixture_co_close(&f);
}

/* Another program that tries its luck must not keep us from giving back. */
static void
test_giving_back_needs_no_consent(void *arg)
{
    BfRoot *reader;
    BfRoot *writer;
    Fixture f;

    fixture_open(&f);
    bf_test_co_add(f.graph, bf_test_file("f0", f.path));
    reader = bf_test_co_root(f.graph, "f0", BF_PERM_CONSISTENT_READ);
    writer = bf_test_co_root(f.graph, "f0", READ_WRITE);
    lock_byte(f.fd, UNSHARED(0), F_RDLCK);
    bf_root_co_free(writer);
    g_assert_false(is_locked(f.fd, TAKEN(WRITE)));
    g_assert_true(is_locked(f.fd, TAKEN(0)));
    bf_root_co_free(reader);
    g_assert_false(is_locked(f.fd, TAKEN(0)));
    fixture_co_close(&f);
}

/* The descriptor for readers is gone: then the other one does as well. */
static void
test_giving_back_needs_no_descriptor(void *arg)
{
    BfRoot *root;
    Fixture f;
    int fd;

    fixture_open(&f);
    fd = open(f.path, O_RDONLY | O_CLOEXEC);
    bf_test_set_fdset(fd);
    bf_test_co_add(f.graph, auto_read_only("/dev/fdset/1"));
    close(fd);
    fd = open(f.path, O_RDWR | O_CLOEXEC);
    bf_test_set_fdset(fd);
    root = bf_test_co_root(f.graph, "f0", READ_WRITE);
    close(fd);
    bf_test_set_fdset(-1);
    g_assert_true(is_locked(f.fd, TAKEN(WRITE)));
    bf_root_co_free(root);
    g_assert_false(is_locked(f.fd, TAKEN(WRITE)));
    g_assert_false(is_locked(f.fd, UNSHARED(RESIZE)));
    fixture_co_close(&f);
}

static void
test_lock_conflict_keeps_the_access(void *arg)
{
    GError *error = NULL;
    BfNode *node;
    Fixture f;

    fixture_open(&f);
    node = bf_test_co_add(f.graph, auto_read_only(f.path));
    lock_byte(f.fd, UNSHARED(WRITE), F_RDLCK);
    g_assert_null(
        bf_root_co_new(f.graph, node, "x", READ_WRITE, BF_PERM_ALL, &error));
    bf_test_assert_error(&error, "Failed to get \"write\" lock*");
    g_assert_cmpint(access_mode(f.path, f.fd), ==, O_RDONLY);
    fixture_co_close(&f);
}

/* Two nodes of one process exclude each other as two processes would. */
static void
test_two_nodes_on_one_file(void *arg)
{
    GError *error = NULL;
    BfRoot *root;
    BfNode *b;
    Fixture f;

    fixture_open(&f);
    bf_test_co_add(f.graph, bf_test_file("a", f.path));
    b = bf_test_co_add(f.graph, bf_test_file("b", f.path));
    root = bf_test_co_root(f.graph, "a", READ_WRITE);
    g_assert_null(bf_root_co_new(f.graph, b, "x", BF_PERM_CONSISTENT_READ,
                                 BF_PERM_CONSISTENT_READ, &error));
    bf_test_assert_error(&error, "Failed to get shared \"write\" lock*");
    bf_root_co_free(root);
    fixture_co_close(&f);
}

typedef struct AddRoot {
    BfGraph *graph;
    BfNode *node;
    BfRoot *root;
    GError *error;
    bool done;
} AddRoot;

static void
co_add_writer(void *arg)
{
    AddRoot *add = arg;

    add->root = bf_root_co_new(add->graph, add->node, "x", READ_WRITE,
                               BF_PERM_ALL, &add->error);
    add->done = true;
}

/*
 * Somebody's lease keeps our open() from returning, as a dead server would.
 * The graph must not wait for it for ever, and nothing may be lost after.
 */
static void
test_stuck_storage_is_left_behind(void *arg)
{
    AddRoot add = {0};
    GError *error = NULL;
    Fixture f;
    int lease_fd;

    fixture_open(&f);
    close(f.fd);
    signal(SIGIO, SIG_IGN);
    lease_fd = open(f.path, O_RDONLY | O_CLOEXEC);
    add.graph = f.graph;
    add.node = bf_test_co_add(f.graph, auto_read_only(f.path));
    g_assert_cmpint(fcntl(lease_fd, F_SETLEASE, F_RDLCK), ==, 0);

    bf_co_spawn(co_add_writer, &add);
    while (fcntl(lease_fd, F_GETLEASE) == F_RDLCK) {
        bf_co_yield(); /* until the open waits for us to let go */
    }
    bf_test_advance(11 * BF_NS_PER_SEC);
    while (!add.done) {
        bf_co_yield();
    }
    g_assert_null(add.root);
    bf_test_assert_error(&add.error,
                         "The storage of '*' does not answer within 10 *");
    bf_test_co_add(f.graph, bf_test_null("n0", 512)); /* the graph is free */
    g_assert_null(bf_root_co_new(f.graph, add.node, "x", READ_WRITE,
                                 BF_PERM_ALL, &error));
    bf_test_assert_error(&error, "The storage of '*' has not answered *");

    g_assert_cmpint(fcntl(lease_fd, F_SETLEASE, F_UNLCK), ==, 0);
    while (is_locked(lease_fd, TAKEN(WRITE))) {
        bf_co_yield(); /* what was taken for the writer goes */
    }
    bf_test_co_del(f.graph, "f0"); /* waits for the call to come back */
    bf_test_co_add(f.graph, auto_read_only(f.path));
    f.fd = lease_fd;
    fixture_co_close(&f);
}

/* What a set gave for a call that is not tried any more is closed. */
static void
test_stuck_storage_keeps_no_descriptor(void *arg)
{
    GError *error = NULL;
    BfBlockdevOptions *options;
    BfFileNode *self;
    BfNode *node;
    Fixture f;

    fixture_open(&f);
    bf_test_set_fdset(f.fd);
    options = auto_read_only("/dev/fdset/1");
    options->u.file->locking = BF_ON_OFF_AUTO_OFF;
    node = bf_test_co_add(f.graph, options);
    self = (BfFileNode *)node;
    self->stuck = true;
    for (int i = 0; i < 3; i++) {
        g_assert_null(bf_root_co_new(f.graph, node, "x", READ_WRITE,
                                     BF_PERM_ALL, &error));
        bf_test_assert_error(&error, "The storage of '*' has not answered *");
        access_mode(f.path, f.fd); /* fails unless there is only one */
    }
    self->stuck = false;
    bf_test_set_fdset(-1);
    fixture_co_close(&f);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/file-locks/follow-the-users",
                test_locks_follow_the_users);
    bf_test_add("/block/file-locks/refuses-what-others-deny",
                test_refuses_what_others_deny);
    bf_test_add("/block/file-locks/locking-off-takes-none",
                test_locking_off_takes_none);
    bf_test_add("/block/file-locks/force-share-denies-nothing",
                test_force_share_denies_nothing);
    bf_test_add("/block/file-locks/del-releases-the-file",
                test_del_releases_the_file);
    bf_test_add("/block/file-locks/inactive-node-holds-none",
                test_inactive_node_holds_no_locks);
    bf_test_add("/block/file-locks/two-nodes-on-one-file",
                test_two_nodes_on_one_file);
    bf_test_add("/block/file-locks/auto-read-only-follows-the-writers",
                test_auto_read_only_follows_the_writers);
    bf_test_add("/block/file-locks/giving-back-needs-no-consent",
                test_giving_back_needs_no_consent);
    bf_test_add("/block/file-locks/giving-back-needs-no-descriptor",
                test_giving_back_needs_no_descriptor);
    bf_test_add("/block/file-locks/conflict-keeps-the-access",
                test_lock_conflict_keeps_the_access);
    bf_test_add_fake("/block/file-locks/stuck-storage-is-left-behind",
                     test_stuck_storage_is_left_behind);
    bf_test_add("/block/file-locks/stuck-storage-keeps-no-descriptor",
                test_stuck_storage_keeps_no_descriptor);
    return g_test_run();
}
