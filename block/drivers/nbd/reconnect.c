/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeps the connections of a node up. Each has a coroutine, its keeper, which
 * makes it, receives on it until it ends, and makes it again after a pause that
 * grows while nothing comes of it. Only a keeper frees its channel.
 *
 * Requests wait for a connection only while there is none at all, and only for
 * the reconnect delay; connecting goes on after that, too.
 */
#include <inttypes.h>

#include "core/error.h"
#include "core/util.h"
#include "nbd-private.h"

/* Pauses between attempts to connect: of an opening, and after a loss. */
#define OPEN_PAUSE_MIN_NS (50 * BF_NS_PER_MS)
#define OPEN_PAUSE_MAX_NS (BF_NS_PER_SEC)
#define PAUSE_MIN_NS (250 * BF_NS_PER_MS)
#define PAUSE_MAX_NS (16 * BF_NS_PER_SEC)

/* The longest pause while somebody waits for a connection. */
#define PAUSE_WANTED_NS (BF_NS_PER_SEC)

/* The first attempt after a loss comes within this time, or within so large a
 * part of the reconnect delay: others have lost the server at the same instant.
 */
#define PAUSE_FIRST_MIN_NS (10 * BF_NS_PER_MS)
#define PAUSE_FIRST_NS (100 * BF_NS_PER_MS)
#define PAUSE_FIRST_PART 10

/* The same if nobody waits: a server that is about to end is let go. QEMU 7.2
 * never ends if a client comes while it does. */
#define PAUSE_IDLE_NS (BF_NS_PER_SEC)

/* A connection that was up as long, or got a reply, is a success. */
#define SUCCESS_NS (10 * BF_NS_PER_SEC)

/* Losses of connections are told this often at most. */
#define TOLD_NS (BF_NS_PER_SEC)

/* What an export may not lose from one connection to the next. */
#define FLAGS_NEEDED                                                           \
    (BF_NBD_EXPORT_FLUSH | BF_NBD_EXPORT_FUA | BF_NBD_EXPORT_TRIM |            \
     BF_NBD_EXPORT_WRITE_ZEROES | BF_NBD_EXPORT_CACHE |                        \
     BF_NBD_EXPORT_FAST_ZERO)

/* Is it the same export, for all that users of the node rely on? */
static bool
check_same_export(const BfNbdcNode *self, const BfNbdcExport *exp,
                  GError **error)
{
    const BfNbdExportInfo *old = &self->first.info;
    const BfNbdExportInfo *now = &exp->info;
    bool writes = bf_atomic_load(&self->read_only) == 0;
    unsigned needed = writes ? FLAGS_NEEDED : 0;
    const char *what = NULL;

    if (self->n_conns > 1) {
        needed |= BF_NBD_EXPORT_MULTI_CONN;
    }
    if (now->size != old->size) {
        bf_set_error(error,
                     "NBD server '%s': the size of the export has changed "
                     "from %" PRIu64 " to %" PRIu64,
                     self->target.server, old->size, now->size);
        return false;
    }
    if ((old->flags & ~now->flags & needed) != 0) {
        what = "can do less than before";
    } else if (writes &&
               (now->flags & ~old->flags & BF_NBD_EXPORT_READ_ONLY) != 0) {
        what = "has become read-only";
    } else if (now->min_block > self->base.alignment) {
        what = "needs a larger alignment than before";
    } else if (now->max_block != 0 &&
               now->max_block < self->base.limits.max_transfer) {
        what = "takes only smaller requests than before";
    } else if (exp->has_context != self->first.has_context) {
        what = "has not the same metadata context as before";
    }
    if (what != NULL) {
        bf_set_error(error, "NBD server '%s': the export %s",
                     self->target.server, what);
        return false;
    }
    return true;
}

/* Waiting for a connection. */

/* Requests fail from now on until there is a connection. */
static void
stop_waiting(BfNbdcNode *self)
{
    self->expired = true;
    bf_co_queue_wake_all(&self->ready);
}

static void
delay_over(void *arg)
{
    BfNbdcNode *self = arg;

    if (self->reconnect_delay_ns > 0) {
        bf_node_notice(&self->base, true,
                       "NBD server '%s' is away since %" PRIu64
                       " s (reconnect-delay); requests fail until it is back",
                       self->target.server,
                       self->reconnect_delay_ns / BF_NS_PER_SEC);
    }
    stop_waiting(self);
}

/* Looks at each connection four times in the time that it may be silent. */
static void
check_silence(void *arg)
{
    BfNbdcConn *conn = arg;
    uint64_t limit_ns = conn->node->silence_ns;
    uint64_t now_ns = bf_loop_now_ns();

    if (conn->in_flight > 0 && now_ns - conn->heard_ns >= limit_ns) {
        GError *error = NULL;

        conn->was_silent = true;
        bf_set_error(&error,
                     "nothing came for %" PRIu64
                     " s (silence-timeout) with %u requests under way",
                     limit_ns / BF_NS_PER_SEC, conn->in_flight);
        bf_nbdc_break(conn, error);
        return;
    }
    bf_timer_start(&conn->silence, limit_ns / 4, check_silence, conn);
}

static void
link_is_up(BfNbdcConn *conn)
{
    BfNbdcNode *self = conn->node;

    conn->is_up = true;
    conn->was_up = true;
    conn->got_reply = false;
    conn->was_silent = false;
    conn->up_since_ns = bf_loop_now_ns();
    self->n_up++;
    self->wanted = false;
    self->expired = false;
    bf_timer_stop(&self->delay);
    conn->heard_ns = conn->up_since_ns;
    if (self->silence_ns > 0) {
        check_silence(conn);
    }
    self->was_lost = false;
    g_clear_pointer(&self->trouble, g_free);
    if (self->told_lost) {
        self->told_lost = false;
        bf_node_notice(&self->base, false, "connected to NBD server '%s' again",
                       self->target.server);
    }
    bf_co_queue_wake_all(&self->ready);
}

/* Data that were acknowledged, and not flushed by the user or not yet. */
static bool
needs_flush(const BfNbdcNode *self)
{
    bool wrote = self->wrote_lost;

    for (unsigned i = 0; i < self->n_conns; i++) {
        wrote |= self->conns[i]->wrote || self->conns[i]->flushing > 0;
    }
    return wrote && !self->base.settings.no_flush &&
           (bf_atomic_load(&self->abilities) & BF_NBD_EXPORT_FLUSH) != 0;
}

/* A server that comes and goes all the time must not fill the log. */
static void
tell_loss(BfNbdcNode *self, const GError *error)
{
    uint64_t now_ns = bf_loop_now_ns();

    if (self->told_ns != 0 && now_ns - self->told_ns < TOLD_NS) {
        return;
    }
    self->told_ns = now_ns;
    self->told_lost = true;
    bf_node_notice(&self->base, true, "lost %sNBD server '%s': %s%s",
                   self->n_up > 0 ? "a connection to " : "",
                   self->target.server, error->message,
                   needs_flush(self)
                       ? "; what it had acknowledged and not flushed is lost "
                         "if it was started anew"
                       : "");
}

/* The first failure, and each one for another reason. */
static void
tell_trouble(BfNbdcNode *self, const GError *error)
{
    if (!self->was_lost || bf_nbdc_is_ending(self) ||
        g_strcmp0(self->trouble, error->message) == 0) {
        return;
    }
    g_free(self->trouble);
    self->trouble = g_strdup(error->message);
    self->told_lost = true;
    bf_node_notice(&self->base, true, "cannot connect again: %s",
                   error->message);
}

static void
link_is_down(BfNbdcConn *conn, const GError *error)
{
    BfNbdcNode *self = conn->node;

    conn->is_up = false;
    bf_timer_stop(&conn->silence);
    self->n_up--;
    if (self->closing) {
        return;
    }
    if (self->n_up == 0 || conn->was_silent) {
        tell_loss(self, error);
    }
    if (self->n_up > 0) {
        return;
    }
    self->was_lost = true;
    if (self->stopping ||
        (self->reconnect_delay_ns == 0 && conn->in_flight > 0)) {
        self->expired = true;
        return;
    }
    /* Without a delay, who comes before the first attempt waits for it. */
    bf_timer_start(&self->delay,
                   self->reconnect_delay_ns > 0 ? self->reconnect_delay_ns
                                                : PAUSE_IDLE_NS,
                   delay_over, self);
}

static void
end_naps(BfNbdcNode *self)
{
    for (unsigned i = 0; i < self->n_conns; i++) {
        bf_cancel_fire(&self->conns[i]->nap);
    }
}

/* The least loaded connection with a free place. */
static BfNbdcConn *
find_free(const BfNbdcNode *self)
{
    BfNbdcConn *best = NULL;

    for (unsigned i = 0; i < self->n_conns; i++) {
        BfNbdcConn *conn = self->conns[i];

        if (conn->is_up && conn->in_flight < NBDC_REQUESTS_MAX &&
            (best == NULL || conn->in_flight < best->in_flight)) {
            best = conn;
        }
    }
    return best;
}

BfNbdcConn *
bf_nbdc_co_pick(BfNbdcNode *self, BfNbdcConn *pin, unsigned cancels)
{
    while (cancels == self->cancels) {
        BfNbdcConn *conn = NULL;

        if (pin != NULL && pin->is_up) {
            if (pin->in_flight < NBDC_REQUESTS_MAX) {
                return pin;
            }
            bf_co_queue_co_wait(&pin->pinned);
            continue;
        }
        conn = find_free(self);
        if (conn != NULL) {
            return conn;
        }
        if (self->n_up == 0) {
            self->wanted = true;
            if (self->expired || bf_nbdc_is_ending(self)) {
                return NULL;
            }
        }
        bf_co_queue_co_wait(&self->ready);
    }
    return NULL;
}

/* Keepers. */

static void
conn_free(BfNbdcConn *conn)
{
    bf_channel_free(conn->channel);
    g_clear_error(&conn->error);
    bf_buffer_free(conn->input, NBDC_INPUT_BYTES);
    g_free(conn);
}

static uint64_t
random_below(uint64_t ns)
{
    return (uint64_t)(g_random_double() * (double)ns);
}

/* At least half of a pause, so that what was lost together does not come back
 * in step: many nodes would be too much for one server. */
static uint64_t
spread(uint64_t pause_ns)
{
    return pause_ns - random_below(pause_ns / 2);
}

/* How long to sleep before it is looked whether somebody waits. */
static uint64_t
choose_piece(const BfNbdcConn *conn)
{
    uint64_t part_ns = conn->node->reconnect_delay_ns / PAUSE_FIRST_PART;

    return conn->pause_ns > 0 ? spread(PAUSE_WANTED_NS)
                              : random_below(CLAMP(part_ns, PAUSE_FIRST_MIN_NS,
                                                   PAUSE_FIRST_NS));
}

/* The pause before an attempt; not longer than needed. */
static void
keeper_co_nap(BfNbdcConn *conn)
{
    uint64_t idle_ns = conn->was_up ? PAUSE_IDLE_NS : 0;
    uint64_t pause_ns = conn->pause_ns > 0 ? conn->pause_ns : idle_ns;
    uint64_t now_ns = bf_loop_now_ns();
    uint64_t end_ns = now_ns + spread(pause_ns);

    conn->nap = (BfCancel){.fired = false};
    while (now_ns < end_ns && !bf_nbdc_is_ending(conn->node)) {
        uint64_t piece_ns = choose_piece(conn);

        if (bf_co_sleep_cancel(MIN(piece_ns, end_ns - now_ns), &conn->nap) <
                0 ||
            conn->node->wanted) {
            break;
        }
        now_ns = bf_loop_now_ns();
    }
    conn->pause_ns = CLAMP(2 * conn->pause_ns, PAUSE_MIN_NS, PAUSE_MAX_NS);
}

/* What every connection can do; with a writable node, nothing new. */
static void
note_abilities(BfNbdcNode *self)
{
    bool writes = bf_atomic_load(&self->read_only) == 0;
    unsigned all = writes ? self->first.info.flags : UINT_MAX;
    unsigned any = 0;

    for (unsigned i = 0; i < self->n_conns; i++) {
        if (self->conns[i]->channel != NULL) {
            all &= self->conns[i]->exp.info.flags;
            any |= self->conns[i]->exp.info.flags;
        }
    }
    bf_atomic_store(&self->abilities, all | (any & BF_NBD_EXPORT_READ_ONLY));
}

void
bf_nbdc_is_writable_now(BfNbdcNode *self)
{
    self->first.info.flags = (unsigned)bf_atomic_load(&self->abilities) &
                             ~(unsigned)BF_NBD_EXPORT_READ_ONLY;
    for (unsigned i = 0; i < self->n_conns; i++) {
        BfNbdcConn *conn = self->conns[i];
        GError *error = NULL;

        if (conn->is_up && !check_same_export(self, &conn->exp, &error)) {
            bf_nbdc_break(conn, error);
        }
    }
}

/* Takes a new channel for @conn; false if it cannot be used. */
static bool
conn_use(BfNbdcConn *conn, BfChannel *channel, GError **error)
{
    if (conn->input == NULL) {
        conn->input = bf_buffer_new(NBDC_INPUT_BYTES);
    }
    if (conn->input == NULL) {
        bf_set_error(error, "out of memory");
    }
    if (conn->input == NULL ||
        !check_same_export(conn->node, &conn->exp, error)) {
        bf_channel_shutdown(channel);
        bf_channel_free(channel);
        return false;
    }
    bf_channel_set_drop_unsent(channel, true);
    conn->channel = channel;
    note_abilities(conn->node);
    return true;
}

/* Returns false if there is nothing more to keep. */
static bool
keeper_co_connect(BfNbdcConn *conn)
{
    BfNbdcNode *self = conn->node;

    for (;;) {
        g_autoptr(GError) error = NULL;
        BfChannel *channel = NULL;

        keeper_co_nap(conn);
        if (bf_nbdc_is_ending(self)) {
            return false;
        }
        channel = bf_nbdc_co_connect(self, NBDC_CONNECT_AGAIN_NS, BF_FOREVER,
                                     &conn->exp, &error);
        if (channel != NULL && conn_use(conn, channel, &error)) {
            return true;
        }
        g_debug("node '%s': connection %u: %s", self->base.name, conn->index,
                error->message);
        tell_trouble(self, error);
        if (self->reconnect_delay_ns == 0 && self->n_up == 0) {
            stop_waiting(self);
        }
        if (conn->index > 0 && !conn->was_up && self->n_up > 0) {
            /* The server has a limit, say; the others have to do. */
            conn->gone = true;
            return false;
        }
    }
}

/* One life of a connection. */
static void
keeper_co_serve(BfNbdcConn *conn)
{
    GError *error = NULL;

    link_is_up(conn);
    bf_nbdc_co_receive(conn, &error);
    /* What the reader saw may be only a consequence. */
    bf_nbdc_break(conn, error);
    link_is_down(conn, conn->error);
    bf_nbdc_co_lose_requests(conn);
    g_clear_error(&conn->error);
    if (conn->got_reply || bf_loop_now_ns() - conn->up_since_ns >= SUCCESS_NS) {
        conn->pause_ns = 0;
    }
}

static void
keeper_co_run(void *arg)
{
    BfNbdcConn *conn = arg;

    while (conn->channel != NULL || keeper_co_connect(conn)) {
        keeper_co_serve(conn);
    }
    bf_wait_group_done(&conn->node->keepers);
}

/* Opening and closing. */

static BfNbdcConn *
add_conn(BfNbdcNode *self)
{
    BfNbdcConn *conn = g_new0(BfNbdcConn, 1);

    conn->node = self;
    conn->index = self->n_conns;
    conn->queue_tail = &conn->queue;
    self->conns[self->n_conns++] = conn;
    return conn;
}

static void
set_up_limits(BfNbdcNode *self)
{
    const BfNbdExportInfo *info = &self->first.info;
    BfNode *node = &self->base;
    uint32_t max = BF_NBD_PAYLOAD_MAX;
    uint32_t preferred = MAX(info->preferred_block, 4096);

    if (info->min_block != 0) {
        node->alignment = info->min_block;
        max = MIN(max, info->max_block);
    } else {
        /* Old servers may need what disks need. */
        node->alignment =
            info->size % 512 != 0 || self->first.has_context ? 1 : 512;
    }
    max = bf_align_down(max, node->alignment);
    while (preferred > max) {
        preferred /= 2;
    }
    node->size = info->size;
    node->limits.alignment = node->alignment;
    node->limits.max_transfer = max;
    node->limits.preferred = MAX(preferred, node->alignment);
    /* What the kernel has of a connection that was given up, a server that was
     * only slow gets nevertheless. */
    node->limits.keeps_pipes = true;
    if (self->first.extended && (info->flags & BF_NBD_EXPORT_FAST_ZERO) != 0) {
        node->limits.long_zeroes = NBDC_LONG_PIECE_MAX;
    }
}

static BfChannel *
co_connect_first(BfNbdcNode *self, GError **error)
{
    const bool once = self->open_timeout_ns == 0;
    const uint64_t end_ns = bf_loop_now_ns() + self->open_timeout_ns;
    uint64_t pause_ns = OPEN_PAUSE_MIN_NS;

    for (;;) {
        g_autoptr(GError) local = NULL;
        BfChannel *channel = bf_nbdc_co_connect(
            self, once ? NBDC_CONNECT_MAX_NS : NBDC_CONNECT_AGAIN_NS,
            once ? BF_FOREVER : end_ns, &self->first, &local);

        if (channel != NULL) {
            return channel;
        }
        if (self->stopping || bf_loop_now_ns() + pause_ns > end_ns ||
            bf_co_sleep_cancel(pause_ns, &self->stop) < 0) {
            g_propagate_error(error, g_steal_pointer(&local));
            return NULL;
        }
        pause_ns = MIN(2 * pause_ns, OPEN_PAUSE_MAX_NS);
    }
}

bool
bf_nbdc_co_open_link(BfNbdcNode *self, GError **error)
{
    BfChannel *channel = co_connect_first(self, error);
    BfNbdcConn *conn = NULL;
    unsigned n = 1;

    if (channel == NULL) {
        return false;
    }
    set_up_limits(self);
    conn = add_conn(self);
    conn->exp = self->first;
    if (!conn_use(conn, channel, error)) {
        return false;
    }
    if ((self->first.info.flags & BF_NBD_EXPORT_MULTI_CONN) != 0) {
        n = self->wanted_conns;
    }
    while (self->n_conns < n) {
        add_conn(self);
    }
    bf_wait_group_add(&self->keepers, n);
    for (unsigned i = 0; i < n; i++) {
        bf_co_spawn(keeper_co_run, self->conns[i]);
    }
    return true;
}

static void
end_all(void *arg)
{
    BfNbdcNode *self = arg;

    for (unsigned i = 0; i < self->n_conns; i++) {
        if (self->conns[i]->channel != NULL) {
            bf_channel_shutdown(self->conns[i]->channel);
        }
    }
}

static void
co_leave(BfNbdcNode *self)
{
    BfTimer limit = {.heap_index = 0};

    if (needs_flush(self)) {
        bf_timer_start(&limit, NBDC_CLOSE_FLUSH_MAX_NS, end_all, self);
        if (bf_nbdc_co_flush_all(self) < 0) {
            bf_node_notice(&self->base, true,
                           "closed without a flush by NBD server '%s'; its "
                           "last writes may not be stable",
                           self->target.server);
        }
        bf_timer_stop(&limit);
    }
    bf_timer_start(&limit, NBDC_BYE_MAX_NS, end_all, self);
    for (unsigned i = 0; i < self->n_conns; i++) {
        if (self->conns[i]->is_up) {
            bf_nbdc_co_say_bye(self->conns[i]);
        }
    }
    bf_timer_stop(&limit);
}

void
bf_nbdc_co_close_link(BfNbdcNode *self)
{
    self->closing = true;
    bf_timer_stop(&self->delay);
    bf_co_queue_wake_all(&self->ready);
    co_leave(self);
    bf_cancel_fire(&self->stop);
    bf_nbdc_end_attempts(self);
    end_naps(self);
    end_all(self);
    bf_wait_group_co_wait(&self->keepers);
    for (unsigned i = 0; i < self->n_conns; i++) {
        conn_free(self->conns[i]);
    }
    self->n_conns = 0;
    g_clear_pointer(&self->trouble, g_free);
}

void
bf_nbdc_stop(BfNbdcNode *self)
{
    self->stopping = true;
    bf_cancel_fire(&self->stop);
    bf_nbdc_end_attempts(self);
    end_naps(self);
    bf_co_queue_wake_all(&self->ready);
}

void
bf_nbdc_cancel_requests(BfNbdcNode *self)
{
    self->cancels++;
    for (unsigned i = 0; i < self->n_conns; i++) {
        BfNbdcConn *conn = self->conns[i];

        if (conn->is_up && conn->in_flight > 0) {
            GError *error = NULL;

            bf_set_error(&error, "requests were cancelled");
            bf_nbdc_break(conn, error);
        }
        bf_co_queue_wake_all(&conn->pinned);
    }
    bf_co_queue_wake_all(&self->ready);
}
