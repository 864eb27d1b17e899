/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One io_uring.
 *
 * Before changing it, know who may fill the submission queue: the @done
 * functions of operations may, so completions are copied out of the queue
 * before the first of them is called, and get_sqe() can never call one. The
 * user_data of an entry is the BfRingOp, or one of the tags below.
 *
 * Set-up tries the best flags first and goes down to what every kernel since
 * 5.11 has. liburing.h is included nowhere else.
 */
#include "core/ring.h"

#include <errno.h>
#include <liburing.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "sanitizer-private.h"

/* Completions per submission entry that fit without overflow handling. */
#define CQ_FACTOR 8

/* The low bits of user_data; operations are aligned to 8. */
#define TAG_MASK 7
#define TAG_OP 0     /* a BfRingOp */
#define TAG_IGNORE 1 /* the result does not matter: cancel, timeout */
#define TAG_WOKEN 2  /* another ring's message to this one */
#define TAG_WAKE 3   /* our message to the ring in the other bits, sent */
#define TAG_EVENT 4  /* the read of our own eventfd */

/* Operations up to 48 are older (liburing 2.3 has no name for this one).
 * Linux 6.1 has been seen not to wake a ring to which MSG_RING sent a message,
 * so this is asked of kernels that are clearly newer. */
#define FIRST_OP_OF_6_7 49

/* Completions copied at once before their @done functions run. */
#define REAP_BATCH 64

/* The first wait brings one completion, and a call 20 at a time (Linux 6.18):
 * so many times more is asked for what is there, so that all of it is one turn
 * of the loop, and its replies one send. */
#define MORE_MAX 8

/* When so many reads and writes have gathered they are submitted, and then when
 * twice as many have, and so on, until the end of the turn. A device that was
 * idle works on the first of them while the others are being made: for a kernel
 * that gets all at once, to prepare 32 takes as long as to do ten. */
#define AHEAD_MIN 4

/* How long to pause when the kernel is out of memory for requests. */
#define RETRY_PAUSE_US 100

/* What remains of a completion after it left the queue. */
typedef struct Result {
    uint64_t user_data;
    int res;
} Result;

struct BfRing {
    struct io_uring uring;
    unsigned features;    /* BfRingFeature bits in use */
    bool skips_success;   /* IORING_FEAT_CQE_SKIP */
    bool closing;         /* in bf_ring_free() */
    bool event_armed;     /* a read of event_fd is under way */
    int event_fd;         /* bf_ring_notify() writes to it; owned */
    uint64_t event_value; /* where that read puts its 8 bytes */
    uint64_t wakes;       /* wake-ups that have arrived */
    unsigned pending;     /* operations under way */
    unsigned ahead;       /* entries that do not wait for the end of the turn */
    GArray *stash;        /* of Result: taken early to make room; owned */
    struct __kernel_timespec wait_ts; /* read when its entry is submitted */
};

const char *const bf_ring_feature_names[BF_RING_FEATURE_COUNT] = {
    "single-issuer", "defer-taskrun", "coop-taskrun",
    "ext-arg",       "msg-ring",      "registered-fd",
};

static const struct {
    unsigned op;
    const char *name;
} needed_ops[] = {
    {IORING_OP_READ, "READ"},         {IORING_OP_WRITE, "WRITE"},
    {IORING_OP_READV, "READV"},       {IORING_OP_WRITEV, "WRITEV"},
    {IORING_OP_FSYNC, "FSYNC"},       {IORING_OP_FALLOCATE, "FALLOCATE"},
    {IORING_OP_RECV, "RECV"},         {IORING_OP_RECVMSG, "RECVMSG"},
    {IORING_OP_SENDMSG, "SENDMSG"},   {IORING_OP_CONNECT, "CONNECT"},
    {IORING_OP_POLL_ADD, "POLL_ADD"}, {IORING_OP_SPLICE, "SPLICE"},
    {IORING_OP_TIMEOUT, "TIMEOUT"},   {IORING_OP_ASYNC_CANCEL, "ASYNC_CANCEL"},
};

/* Ways to set up a ring, best first. The second column is what they use. */
static const struct {
    unsigned flags;
    unsigned features;
} attempts[] = {
    {IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG |
         IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
     BF_RING_SINGLE_ISSUER | BF_RING_DEFER_TASKRUN},
    {IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG |
         IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN,
     BF_RING_SINGLE_ISSUER | BF_RING_COOP_TASKRUN},
    {IORING_SETUP_SUBMIT_ALL | IORING_SETUP_TASKRUN_FLAG |
         IORING_SETUP_COOP_TASKRUN,
     BF_RING_COOP_TASKRUN},
    {IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER,
     BF_RING_SINGLE_ISSUER},
    {0, 0},
};

/* The features that BLOCKFERRY_URING_MASK forbids. */
static bool
read_mask(unsigned *ret_mask, GError **error)
{
    const char *text = g_getenv("BLOCKFERRY_URING_MASK");
    g_auto(GStrv) words = g_strsplit(text != NULL ? text : "", ",", -1);
    unsigned mask = 0;

    for (char **word = words; *word != NULL; word++) {
        unsigned known = 0;

        g_strstrip(*word);
        if (strcmp(*word, "all") == 0) {
            known = (1u << BF_RING_FEATURE_COUNT) - 1;
        }
        for (unsigned i = 0; i < BF_RING_FEATURE_COUNT; i++) {
            if (strcmp(*word, bf_ring_feature_names[i]) == 0) {
                known = 1u << i;
            }
        }
        if (known == 0 && **word != '\0') {
            g_autofree char *names = g_strjoin(
                ", ", bf_ring_feature_names[0], bf_ring_feature_names[1],
                bf_ring_feature_names[2], bf_ring_feature_names[3],
                bf_ring_feature_names[4], bf_ring_feature_names[5], NULL);

            bf_set_error(error,
                         "BLOCKFERRY_URING_MASK names the unknown feature "
                         "'%s'; it takes 'all' or a list of: %s",
                         *word, names);
            return false;
        }
        mask |= known;
    }
    *ret_mask = mask;
    return true;
}

/* Whether the administrator has switched io_uring off, and how. */
static int
read_disabled_sysctl(void)
{
    g_autofree char *text = NULL;

    if (!g_file_get_contents("/proc/sys/kernel/io_uring_disabled", &text, NULL,
                             NULL)) {
        return 0;
    }
    return (int)g_ascii_strtoll(text, NULL, 10);
}

static void
explain_failure(int err, GError **error)
{
    int disabled = read_disabled_sysctl();

    if ((err == EPERM || err == EACCES) && disabled != 0) {
        bf_set_error(error,
                     "io_uring is switched off on this host: the sysctl "
                     "kernel.io_uring_disabled is %d; set it to 0%s",
                     disabled,
                     disabled == 1 ? ", or run as a member of the group in "
                                     "kernel.io_uring_group"
                                   : "");
    } else if (err == EPERM || err == EACCES) {
        bf_set_error(error,
                     "io_uring is forbidden here, most likely by the seccomp "
                     "filter of a container or service; allow the system "
                     "calls io_uring_setup, io_uring_enter and "
                     "io_uring_register");
    } else if (err == ENOSYS) {
        bf_set_error(error, "io_uring is missing: the kernel is older than "
                            "5.11 or built without CONFIG_IO_URING, or a "
                            "seccomp filter hides it");
    } else if (err == ENOMEM) {
        bf_set_error(error, "no memory for an io_uring; raise the limit of "
                            "locked memory (ulimit -l, LimitMEMLOCK=)");
    } else if (err == EMFILE || err == ENFILE) {
        bf_set_error(error, "no descriptor is left for an io_uring; raise "
                            "the limit of open files (ulimit -n, "
                            "LimitNOFILE=)");
    } else {
        bf_set_errno(error, err, "cannot set up an io_uring");
    }
}

static bool
check_ops(BfRing *ring, bool *ret_has_msg_ring, GError **error)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(&ring->uring);
    g_autoptr(GString) missing = g_string_new(NULL);

    if (probe == NULL) {
        bf_set_error(error, "the kernel's io_uring cannot be probed; Linux "
                            "5.11 or later is needed");
        return false;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(needed_ops); i++) {
        if (!io_uring_opcode_supported(probe, (int)needed_ops[i].op)) {
            g_string_append_printf(missing, "%s%s", missing->len ? ", " : "",
                                   needed_ops[i].name);
        }
    }
    *ret_has_msg_ring = io_uring_opcode_supported(probe, IORING_OP_MSG_RING) &&
                        probe->last_op >= FIRST_OP_OF_6_7;
    io_uring_free_probe(probe);
    if (missing->len > 0) {
        bf_set_error(error,
                     "the kernel's io_uring lacks the operations %s; Linux "
                     "5.11 or later is needed",
                     missing->str);
        return false;
    }
    return true;
}

/* Opens the ring with the best flags that the kernel takes. */
static int
open_ring(BfRing *ring, unsigned entries, unsigned mask,
          struct io_uring_params *params)
{
    int ret = -EINVAL;

    for (size_t i = 0; i < G_N_ELEMENTS(attempts) && ret == -EINVAL; i++) {
        if (attempts[i].features & mask) {
            continue;
        }
        *params = (struct io_uring_params){
            .flags =
                IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | attempts[i].flags,
            .cq_entries = entries * CQ_FACTOR,
        };
        ret = io_uring_queue_init_params(entries, &ring->uring, params);
        ring->features = attempts[i].features;
    }
    return ret;
}

static void
note_features(BfRing *ring, const struct io_uring_params *params, unsigned mask,
              bool has_msg_ring)
{
    if ((params->features & IORING_FEAT_EXT_ARG) && !(mask & BF_RING_EXT_ARG)) {
        ring->features |= BF_RING_EXT_ARG;
    }
    if (has_msg_ring && !(mask & BF_RING_MSG_RING)) {
        ring->features |= BF_RING_MSG_RING;
    }
    ring->skips_success = (params->features & IORING_FEAT_CQE_SKIP) != 0;
    if (!(mask & BF_RING_REGISTERED_FD) &&
        io_uring_register_ring_fd(&ring->uring) == 1) {
        ring->features |= BF_RING_REGISTERED_FD;
    }
}

static bool
set_up(BfRing *ring, unsigned entries, GError **error)
{
    struct io_uring_params params;
    bool has_msg_ring;
    unsigned mask;
    int ret;

    if (!read_mask(&mask, error)) {
        return false;
    }
    ret = open_ring(ring, entries, mask, &params);
    if (ret < 0) {
        explain_failure(-ret, error);
        return false;
    }
    if (!check_ops(ring, &has_msg_ring, error)) {
        io_uring_queue_exit(&ring->uring);
        return false;
    }
    if (!(params.features & IORING_FEAT_NODROP)) {
        bf_set_error(error, "the kernel's io_uring may drop completions; "
                            "Linux 5.11 or later is needed");
        io_uring_queue_exit(&ring->uring);
        return false;
    }
    ring->event_fd = eventfd(0, EFD_CLOEXEC);
    if (ring->event_fd < 0) {
        explain_failure(errno, error);
        io_uring_queue_exit(&ring->uring);
        return false;
    }
    note_features(ring, &params, mask, has_msg_ring);
    return true;
}

static void
stash_cqes(BfRing *ring)
{
    struct io_uring_cqe *cqes[REAP_BATCH];
    unsigned n;

    while ((n = io_uring_peek_batch_cqe(&ring->uring, cqes, REAP_BATCH)) > 0) {
        for (unsigned i = 0; i < n; i++) {
            const Result result = {cqes[i]->user_data, cqes[i]->res};

            g_array_append_val(ring->stash, result);
        }
        io_uring_cq_advance(&ring->uring, n);
    }
}

/* True if a call into the kernel failed for now, and may be tried again. */
static bool
is_transient(BfRing *ring, int ret)
{
    if (ret >= 0 || ret == -EINTR || ret == -ETIME) {
        return false;
    }
    if (ret == -EBUSY || ret == -EAGAIN || ret == -ENOMEM) {
        return true;
    }
    g_error("io_uring_enter failed: %s", g_strerror(-ret));
}

/* Makes room in the submission queue without calling any @done. */
static void
submit_for_room(BfRing *ring)
{
    int ret = io_uring_submit(&ring->uring);

    if (is_transient(ring, ret)) {
        unsigned before = ring->stash->len;

        stash_cqes(ring);
        if (ring->stash->len == before) {
            g_usleep(RETRY_PAUSE_US);
        }
    }
}

static struct io_uring_sqe *
get_sqe(BfRing *ring)
{
    struct io_uring_sqe *sqe;

    while ((sqe = io_uring_get_sqe(&ring->uring)) == NULL) {
        submit_for_room(ring);
    }
    return sqe;
}

static void
finish_sqe(BfRing *ring, struct io_uring_sqe *sqe, BfRingOp *op)
{
    io_uring_sqe_set_data(sqe, op);
    ring->pending++;
}

/* Like finish_sqe(), for what storage does. */
static void
finish_storage_sqe(BfRing *ring, struct io_uring_sqe *sqe, BfRingOp *op)
{
    finish_sqe(ring, sqe, op);
    if (io_uring_sq_ready(&ring->uring) >= ring->ahead) {
        ring->ahead *= 2;
        /* What the kernel does not take now is submitted with the rest. */
        is_transient(ring, io_uring_submit(&ring->uring));
    }
}

static void
set_tag(struct io_uring_sqe *sqe, const void *ptr, unsigned tag)
{
    io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)ptr | tag);
}

/* Other threads write to the eventfd; a read of it is always under way. */
static void
arm_event(BfRing *ring)
{
    struct io_uring_sqe *sqe = get_sqe(ring);

    io_uring_prep_read(sqe, ring->event_fd, &ring->event_value,
                       sizeof(ring->event_value), 0);
    set_tag(sqe, NULL, TAG_EVENT);
    ring->event_armed = true;
}

BfRing *
bf_ring_new(unsigned entries, GError **error)
{
    BfRing *ring = g_new0(BfRing, 1);

    g_assert(entries >= 1 && entries <= 4096);
    ring->ahead = AHEAD_MIN;
    ring->stash = g_array_new(FALSE, FALSE, sizeof(Result));
    if (!set_up(ring, entries, error)) {
        g_array_unref(ring->stash);
        g_free(ring);
        return NULL;
    }
    arm_event(ring);
    return ring;
}

/* Returns 1, or 0 for what only the ring itself has started. */
static unsigned
deliver(BfRing *ring, const Result *result)
{
    void *ptr = (void *)(uintptr_t)(result->user_data & ~(uint64_t)TAG_MASK);

    switch (result->user_data & TAG_MASK) {
    case TAG_OP:
        ring->pending--;
        ((BfRingOp *)ptr)->done(ptr, result->res);
        return 1;
    case TAG_WOKEN:
        BF_TSAN_ACQUIRE(ring);
        ring->wakes++;
        return 1;
    case TAG_WAKE:
        if (result->res < 0) {
            /* The target cannot take it now; the slow way always works. */
            bf_ring_notify(ptr);
        }
        return 0;
    case TAG_EVENT:
        ring->event_armed = false;
        if (result->res == sizeof(ring->event_value)) {
            BF_TSAN_ACQUIRE(ring);
            ring->wakes += ring->event_value;
        }
        if (!ring->closing) {
            arm_event(ring);
        }
        return 1;
    default:
        return 0;
    }
}

static unsigned
deliver_stash(BfRing *ring)
{
    unsigned count = 0;

    if (ring->stash->len > 0) {
        GArray *stash = ring->stash;

        ring->stash = g_array_new(FALSE, FALSE, sizeof(Result));
        for (unsigned i = 0; i < stash->len; i++) {
            count += deliver(ring, &g_array_index(stash, Result, i));
        }
        g_array_unref(stash);
    }
    return count;
}

/* Delivers what has completed, oldest first. */
static unsigned
reap(BfRing *ring)
{
    struct io_uring_cqe *cqes[REAP_BATCH];
    Result results[REAP_BATCH];
    unsigned count = deliver_stash(ring);
    unsigned n;

    do {
        n = io_uring_peek_batch_cqe(&ring->uring, cqes, REAP_BATCH);
        for (unsigned i = 0; i < n; i++) {
            results[i] = (Result){cqes[i]->user_data, cqes[i]->res};
        }
        io_uring_cq_advance(&ring->uring, n);
        for (unsigned i = 0; i < n; i++) {
            count += deliver(ring, &results[i]);
        }
        count += deliver_stash(ring);
    } while (n == REAP_BATCH);
    return count;
}

/* True if only a call into the kernel brings completions that are there. */
static bool
needs_enter(const BfRing *ring)
{
    return (IO_URING_READ_ONCE(*ring->uring.sq.kflags) &
            (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN)) != 0;
}

bool
bf_ring_has_work(const BfRing *ring)
{
    return ring->stash->len > 0 || io_uring_cq_ready(&ring->uring) > 0 ||
           needs_enter(ring);
}

void
bf_ring_submit(BfRing *ring)
{
    if (io_uring_sq_ready(&ring->uring) == 0 && !needs_enter(ring)) {
        return;
    }
    is_transient(ring, io_uring_submit_and_get_events(&ring->uring));
}

/* Submits and waits for one completion. Returns what io_uring_enter() did. */
static int
submit_and_wait(BfRing *ring, uint64_t timeout_ns)
{
    if (timeout_ns == UINT64_MAX) {
        return io_uring_submit_and_wait(&ring->uring, 1);
    }
    ring->wait_ts = (struct __kernel_timespec){
        .tv_sec = (long long)(timeout_ns / BF_NS_PER_SEC),
        .tv_nsec = (long long)(timeout_ns % BF_NS_PER_SEC),
    };
    if (ring->features & BF_RING_EXT_ARG) {
        struct io_uring_cqe *cqe;

        return io_uring_submit_and_wait_timeout(&ring->uring, &cqe, 1,
                                                &ring->wait_ts, NULL);
    }

    /* A count of 1 ends the timeout with the first completion of all, so it
     * need not be taken back. */
    struct io_uring_sqe *sqe = get_sqe(ring);

    io_uring_prep_timeout(sqe, &ring->wait_ts, 1, 0);
    set_tag(sqe, NULL, TAG_IGNORE);
    /* Making room may have found completions: then there is nothing to wait
     * for. */
    return io_uring_submit_and_wait(&ring->uring, ring->stash->len == 0);
}

unsigned
bf_ring_wait(BfRing *ring, uint64_t timeout_ns)
{
    unsigned count;
    int ret;

    ring->ahead = AHEAD_MIN;
    if (timeout_ns == 0 || ring->stash->len > 0 ||
        io_uring_cq_ready(&ring->uring) > 0) {
        bf_ring_submit(ring);
        return reap(ring);
    }
    ret = submit_and_wait(ring, timeout_ns);
    count = reap(ring);
    for (unsigned i = 0; i < MORE_MAX && needs_enter(ring); i++) {
        bf_ring_submit(ring);
        count += reap(ring);
    }
    if (is_transient(ring, ret) && count == 0) {
        g_usleep(RETRY_PAUSE_US);
    }
    return count;
}

void
bf_ring_free(BfRing *ring)
{
    if (ring == NULL) {
        return;
    }
    g_assert(ring->pending == 0);
    ring->closing = true;
    if (ring->event_armed) {
        struct io_uring_sqe *sqe = get_sqe(ring);

        /* The kernel must not write to event_value after it is freed. */
        io_uring_prep_cancel64(sqe, TAG_EVENT, 0);
        set_tag(sqe, NULL, TAG_IGNORE);
    }
    while (ring->event_armed || io_uring_sq_ready(&ring->uring) > 0) {
        bf_ring_wait(ring, ring->event_armed ? UINT64_MAX : 0);
    }
    io_uring_queue_exit(&ring->uring);
    close(ring->event_fd);
    g_array_unref(ring->stash);
    g_free(ring);
}

unsigned
bf_ring_features(const BfRing *ring)
{
    return ring->features;
}

unsigned
bf_ring_pending(const BfRing *ring)
{
    return ring->pending;
}

void
bf_ring_notify(BfRing *ring)
{
    /* The ring may be gone as soon as the kernel has the 8 bytes. Not by
     * write(), because ThreadSanitizer cannot see that the ring's thread
     * closes the descriptor after this. */
    const uint64_t one = 1;
    int event_fd = ring->event_fd;
    long n;

    BF_TSAN_RELEASE(ring);
    do {
        n = syscall(SYS_write, event_fd, &one, sizeof(one));
    } while (n < 0 && errno == EINTR);
    g_assert(n == sizeof(one));
}

void
bf_ring_wake(BfRing *ring, BfRing *target)
{
    struct io_uring_sqe *sqe;

    if (!(ring->features & BF_RING_MSG_RING)) {
        bf_ring_notify(target);
        return;
    }
    sqe = get_sqe(ring);
    io_uring_prep_msg_ring(sqe, target->uring.ring_fd, 0, TAG_WOKEN, 0);
    set_tag(sqe, target, TAG_WAKE);
    if (ring->skips_success) {
        io_uring_sqe_set_flags(sqe, IOSQE_CQE_SKIP_SUCCESS);
    }
    BF_TSAN_RELEASE(target);
}

uint64_t
bf_ring_wakes(const BfRing *ring)
{
    return ring->wakes;
}

void
bf_ring_readv(BfRing *ring, BfRingOp *op, int fd, const struct iovec *iov,
              int niov, uint64_t offset)
{
    struct io_uring_sqe *sqe = get_sqe(ring);

    g_assert(offset <= INT64_MAX); /* more would mean the file's position */
    if (niov == 1 && iov->iov_len <= INT32_MAX) {
        io_uring_prep_read(sqe, fd, iov->iov_base, (unsigned)iov->iov_len,
                           offset);
    } else {
        io_uring_prep_readv(sqe, fd, iov, (unsigned)niov, offset);
    }
    if (op->on_worker) {
        io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
    }
    finish_storage_sqe(ring, sqe, op);
}

void
bf_ring_writev(BfRing *ring, BfRingOp *op, int fd, const struct iovec *iov,
               int niov, uint64_t offset, int rw_flags)
{
    struct io_uring_sqe *sqe = get_sqe(ring);

    g_assert(offset <= INT64_MAX);
    if (niov == 1 && iov->iov_len <= INT32_MAX) {
        io_uring_prep_write(sqe, fd, iov->iov_base, (unsigned)iov->iov_len,
                            offset);
    } else {
        io_uring_prep_writev(sqe, fd, iov, (unsigned)niov, offset);
    }
    sqe->rw_flags = rw_flags;
    if (op->on_worker) {
        io_uring_sqe_set_flags(sqe, IOSQE_ASYNC);
    }
    finish_storage_sqe(ring, sqe, op);
}

void
bf_ring_fdatasync(BfRing *ring, BfRingOp *op, int fd)
{
    struct io_uring_sqe *sqe = get_sqe(ring);

    io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
    finish_sqe(ring, sqe, op);
}

void
bf_ring_fallocate(BfRing *ring, BfRingOp *op, int fd, int mode, uint64_t offset,
                  uint64_t bytes)
{
    struct io_uring_sqe *sqe = get_sqe(ring);

    /* liburing 2.3 passes the length through off_t, which keeps its bits. */
    io_uring_prep_fallocate(sqe, fd, mode, (off_t)offset, (off_t)bytes);
    finish_sqe(ring, sqe, op);
}

void
bf_ring_recv(BfRing *ring, BfRingOp *op, int fd, void *buf, size_t len,
             int flags)
{
    struct io_uring_sqe *sqe = get_sqe(ring);

    io_uring_prep_recv(sqe, fd, buf, MIN(len, (size_t)INT32_MAX), flags);
    finish_sqe(ring, sqe, op);
}

void
bf_ring_recvmsg(BfRing *ring, BfRingOp *op, int fd, struct msghdr *msg,
                int flags)
{
    struct io_uring_sqe *sqe = get_sqe(ring);

    io_uring_prep_recvmsg(sqe, fd, msg, (unsigned)flags);
    finish_sqe(ring, sqe, op);
}

void
bf_ring_sendmsg(BfRing *ring, BfRingOp *op, int fd, const struct msghdr *msg,
                int flags)
{
    struct io_uring_sqe *sqe = get_sqe(ring);

    io_uring_prep_sendmsg(sqe, fd, msg, (unsigned)flags);
    finish_sqe(ring, sqe, op);
}

void
bf_ring_connect(BfRing *ring, BfRingOp *op, int fd, const struct sockaddr *addr,
                socklen_t addrlen)
{
    struct io_uring_sqe *sqe = get_sqe(ring);

    io_uring_prep_connect(sqe, fd, addr, addrlen);
    finish_sqe(ring, sqe, op);
}

void
bf_ring_poll(BfRing *ring, BfRingOp *op, int fd, unsigned events)
{
    struct io_uring_sqe *sqe = get_sqe(ring);

    io_uring_prep_poll_add(sqe, fd, events);
    finish_sqe(ring, sqe, op);
}

void
bf_ring_splice(BfRing *ring, BfRingOp *op, int fd_in, int64_t off_in,
               int fd_out, int64_t off_out, unsigned bytes, unsigned flags)
{
    struct io_uring_sqe *sqe = get_sqe(ring);

    io_uring_prep_splice(sqe, fd_in, off_in, fd_out, off_out, bytes, flags);
    finish_sqe(ring, sqe, op);
}

void
bf_ring_cancel(BfRing *ring, BfRingOp *op)
{
    struct io_uring_sqe *sqe = get_sqe(ring);

    io_uring_prep_cancel(sqe, op, 0);
    set_tag(sqe, NULL, TAG_IGNORE);
}
