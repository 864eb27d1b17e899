/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From an address to a connection that takes requests. Each step has a limit
 * of time, and all attempts can be ended from outside.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "core/error.h"
#include "core/util.h"
#include "io/address.h"
#include "io/channel-socket.h"
#include "nbd-private.h"

/* A host that is gone without a word is found within about a minute. */
#define KEEP_IDLE_S 30
#define KEEP_INTERVAL_S 10
#define KEEP_COUNT 3
#define SENT_UNHEARD_MS 60000

struct BfNbdcAttempt {
    BfNbdcAttempt *next;
    BfChannel *socket; /* borrowed; NULL until there is one */
    BfTimer timer;
    bool expired;
};

static void
attempt_expired(void *arg)
{
    BfNbdcAttempt *attempt = arg;

    attempt->expired = true;
    bf_channel_shutdown(attempt->socket);
}

void
bf_nbdc_end_attempts(BfNbdcNode *self)
{
    for (BfNbdcAttempt *a = self->attempts; a != NULL; a = a->next) {
        if (a->socket != NULL) {
            bf_channel_shutdown(a->socket);
        }
    }
}

static void
unlink_attempt(BfNbdcNode *self, BfNbdcAttempt *attempt)
{
    BfNbdcAttempt **link = &self->attempts;

    while (*link != attempt) {
        link = &(*link)->next;
    }
    *link = attempt->next;
}

/* Best effort: none of it is needed for correct work. What the user has said is
 * set already. */
static void
set_keep_alive(int fd, const BfInetSocketAddress *inet)
{
    const struct {
        int level;
        int name;
        int value;
        uint32_t given; /* by the user; 0 if not */
    } options[] = {
        {SOL_SOCKET, SO_KEEPALIVE, 1, 0},
        {IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE_S, inet->keep_alive_idle},
        {IPPROTO_TCP, TCP_KEEPINTVL, KEEP_INTERVAL_S,
         inet->keep_alive_interval},
        {IPPROTO_TCP, TCP_KEEPCNT, KEEP_COUNT, inet->keep_alive_count},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, SENT_UNHEARD_MS, inet->user_timeout_ms},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        if (options[i].given != 0) {
            continue;
        }
        (void)setsockopt(fd, options[i].level, options[i].name,
                         &options[i].value, sizeof(options[i].value));
    }
}

static uint64_t
limit_until(uint64_t deadline_ns, uint64_t max_ns)
{
    uint64_t now_ns = bf_loop_now_ns();

    return MIN(deadline_ns - MIN(deadline_ns, now_ns), max_ns);
}

/* The handshake on a new socket, with a limit of time. */
static BfChannel *
co_shake_hands(BfNbdcNode *self, int fd, uint64_t limit_ns,
               BfNbdcExport *ret_exp, GError **error)
{
    BfChannel *channel = bf_channel_socket_new(fd);
    BfNbdcAttempt attempt = {.next = self->attempts, .socket = channel};
    bool ok = false;

    bf_channel_socket_set_bulk(channel);
    bf_channel_socket_spare_peer(channel);
    self->attempts = &attempt;
    bf_timer_start(&attempt.timer, limit_ns, attempt_expired, &attempt);
    ok = bf_nbdc_co_negotiate(&channel, &self->target, ret_exp, error);
    bf_timer_stop(&attempt.timer);
    unlink_attempt(self, &attempt);
    if (attempt.expired && !ok) {
        /* That the connection was shut down then says nothing. */
        g_clear_error(error);
        bf_set_error(error,
                     "NBD server '%s' has not finished the handshake within "
                     "%.3g seconds",
                     self->target.server, (double)limit_ns / BF_NS_PER_SEC);
    }
    if (!ok) {
        g_clear_pointer(&channel, bf_channel_free);
    }
    return channel;
}

static bool
check_not_ending(const BfNbdcNode *self, GError **error)
{
    if (bf_nbdc_is_ending(self)) {
        bf_set_error(error,
                     "NBD server '%s': the node is closed or the daemon ends",
                     self->target.server);
        return false;
    }
    return true;
}

BfChannel *
bf_nbdc_co_connect(BfNbdcNode *self, uint64_t connect_ns, uint64_t deadline_ns,
                   BfNbdcExport *ret_exp, GError **error)
{
    bf_autofd fd = -1;
    BfChannel *channel = NULL;

    bf_assert_loop(self->loop);
    fd = bf_address_co_connect(self->target.address, NULL, NULL,
                               limit_until(deadline_ns, connect_ns),
                               &self->stop, error);
    /* Whoever ends attempts sees only those that shake hands. */
    if (fd < 0 ||
        !bf_node_co_check_peer(&self->base, fd, self->target.name, error) ||
        !check_not_ending(self, error)) {
        return NULL;
    }
    if (self->target.address->type == BF_SOCKET_ADDRESS_TYPE_INET) {
        set_keep_alive(fd, self->target.address->u.inet);
    }
    channel = co_shake_hands(self, bf_steal_fd(&fd),
                             limit_until(deadline_ns, NBDC_NEGOTIATE_MAX_NS),
                             ret_exp, error);
    if (channel != NULL && !check_not_ending(self, error)) {
        g_clear_pointer(&channel, bf_channel_free);
    }
    return channel;
}
