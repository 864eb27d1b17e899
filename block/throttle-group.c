/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Throttle groups and their members, which speak by messages only.
 *
 * A member has one lease for each direction: tokens that its group has charged
 * already and that it may use up for some time. A request that does not fit
 * makes the member ask for a new lease; with the ask it returns what is left of
 * the old one. Main answers asks in their order, when the buckets allow.
 */
#include <math.h>

#include "core/co-lock.h"
#include "core/util.h"
#include "throttle-private.h"

/* How long a lease is good for. */
#define LEASE_NS (10 * BF_NS_PER_MS)

/* A request that waits; on the stack of its coroutine. */
typedef struct Waiter {
    struct Waiter *next;
    uint64_t bytes;
    bool admitted;
    bool cancelled;
    BfCoQueue queue;
} Waiter;

/* One direction of a member. */
typedef struct Lease {
    BfThrottleMember *member;
    bool is_write;

    /* Belong to the member's loop. */
    ThrottleAmount left;
    ThrottleAmount debt; /* what passed without waiting and is to be told */
    BfTimer debt_timer;  /* runs while there is debt */
    bool asking;         /* an answer is to come */
    Waiter *head;
    Waiter **tail;
    BfTimer expiry; /* runs while something finite is left */
} Lease;

struct BfThrottleMember {
    BfThrottleGroup *group; /* borrowed: outlives its members */
    BfLoop *loop;
    char *user;        /* owned */
    bool suspended;    /* main: gets no answers */
    bool settled;      /* main: and no message is under way */
    BfCoQueue settles; /* main: waits for that */

    /* Belong to @loop. */
    Lease leases[2]; /* for reads and changes */
    uint64_t iops_size;
    unsigned hurries;
};

/* What a member tells main, or main answers; owned by whoever handles it. */
typedef struct Message {
    Lease *lease;
    ThrottleAmount refund;
    ThrottleAmount debt;
    bool asks;
    uint64_t head_bytes; /* of the request that does not fit */
    ThrottleAmount grant;
    uint64_t iops_size;
} Message;

struct BfThrottleGroup {
    BfLoop *main_loop;
    BfThrottleConfig config;
    ThrottleBuckets buckets;
    uint64_t leaked_at_ns;
    GPtrArray *members; /* borrowed, oldest first */
    GQueue asks;        /* of Message, owned */
    BfTimer timer;      /* runs while all asks have to wait */
};

/* --- The group, on main. --- */

BfThrottleGroup *
bf_throttle_group_new(const BfThrottleConfig *config)
{
    BfThrottleGroup *group = g_new0(BfThrottleGroup, 1);

    bf_assert_main();
    group->main_loop = bf_loop_self();
    group->config = *config;
    group->leaked_at_ns = bf_loop_now_ns();
    group->members = g_ptr_array_new();
    g_queue_init(&group->asks);
    return group;
}

void
bf_throttle_group_free(BfThrottleGroup *group)
{
    if (group == NULL) {
        return;
    }
    g_assert(group->members->len == 0 && group->asks.length == 0);
    bf_timer_stop(&group->timer);
    g_ptr_array_unref(group->members);
    g_free(group);
}

const BfThrottleConfig *
bf_throttle_group_get_config(const BfThrottleGroup *group)
{
    return &group->config;
}

const char *
bf_throttle_group_user(const BfThrottleGroup *group)
{
    const BfThrottleMember *first =
        group->members->len > 0 ? g_ptr_array_index(group->members, 0) : NULL;

    return first != NULL ? first->user : NULL;
}

static void
leak(BfThrottleGroup *group)
{
    uint64_t now = bf_loop_now_ns();

    bf_throttle_leak(&group->buckets, &group->config,
                     now - group->leaked_at_ns);
    group->leaked_at_ns = now;
}

static void take_grant(void *arg);

/* Leases what a slice of time is worth, shared with those who wait as well, but
 * at least what the head needs. */
static void
grant(BfThrottleGroup *group, Message *ask)
{
    const Lease *lease = ask->lease;
    double sharers = group->asks.length + 1;
    ThrottleAmount head =
        bf_throttle_cost(group->config.iops_size, ask->head_bytes);
    ThrottleAmount slice = bf_throttle_slice(&group->buckets, &group->config,
                                             lease->is_write, LEASE_NS);

    ask->grant.bytes = MAX(slice.bytes / sharers, head.bytes);
    ask->grant.ops = MAX(slice.ops / sharers, head.ops);
    ask->iops_size = group->config.iops_size;
    bf_throttle_charge(&group->buckets, &group->config, lease->is_write,
                       ask->grant);
    bf_loop_post(lease->member->loop, take_grant, ask);
}

static void serve(BfThrottleGroup *group);

static void
timer_due(void *arg)
{
    serve(arg);
}

/* Answers what can be answered. All asks of one direction wait for the same
 * buckets, so when one has to wait the later ones have to as well. */
static void
serve(BfThrottleGroup *group)
{
    bool blocked[2] = {false, false};
    uint64_t wait_ns = UINT64_MAX;
    GList *next;

    leak(group);
    for (GList *link = group->asks.head; link != NULL; link = next) {
        Message *ask = link->data;
        bool is_write = ask->lease->is_write;
        uint64_t ns;

        next = link->next;
        if (blocked[is_write]) {
            continue;
        }
        ns = bf_throttle_wait_ns(&group->buckets, &group->config, is_write);
        if (ns == 0) {
            g_queue_delete_link(&group->asks, link);
            grant(group, ask);
        } else {
            blocked[is_write] = true;
            wait_ns = MIN(wait_ns, ns);
        }
    }
    bf_timer_stop(&group->timer);
    if (wait_ns != UINT64_MAX) {
        bf_timer_start(&group->timer, wait_ns, timer_due, group);
    }
}

/* A member's message has come in. */
static void
take_message(void *arg)
{
    Message *message = arg;
    const Lease *lease = message->lease;
    BfThrottleGroup *group = lease->member->group;

    leak(group);
    bf_throttle_refund(&group->buckets, &group->config, lease->is_write,
                       message->refund);
    bf_throttle_charge(&group->buckets, &group->config, lease->is_write,
                       message->debt);
    if (message->asks && !lease->member->suspended) {
        g_queue_push_tail(&group->asks, message);
    } else {
        g_free(message);
    }
    serve(group);
}

/* --- The member, on its loop. --- */

static bool
is_left(const Lease *lease)
{
    return lease->left.bytes > 0 || lease->left.ops > 0;
}

static void
send_message(Lease *lease, bool asks)
{
    Message *message = g_new0(Message, 1);

    message->lease = lease;
    message->refund = lease->left;
    message->debt = lease->debt;
    message->asks = asks;
    message->head_bytes = lease->head != NULL ? lease->head->bytes : 0;
    lease->left = (ThrottleAmount){0, 0};
    lease->debt = (ThrottleAmount){0, 0};
    lease->asking |= asks;
    bf_timer_stop(&lease->expiry);
    bf_timer_stop(&lease->debt_timer);
    bf_loop_post(lease->member->group->main_loop, take_message, message);
}

static void
lease_expired(void *arg)
{
    send_message(arg, false);
}

/* Takes the tokens of a request, if it fits. */
static bool
take_tokens(Lease *lease, uint64_t bytes)
{
    ThrottleAmount cost = bf_throttle_cost(lease->member->iops_size, bytes);

    if (cost.bytes > lease->left.bytes || cost.ops > lease->left.ops) {
        return false;
    }
    lease->left.bytes -= cost.bytes;
    lease->left.ops -= cost.ops;
    return true;
}

static void
admit_head(Lease *lease)
{
    Waiter *w = lease->head;

    lease->head = w->next;
    w->admitted = true;
    bf_co_queue_wake_all(&w->queue);
}

/* Lets go on who can, and asks for the first one who cannot. */
static void
admit_waiters(Lease *lease)
{
    while (lease->head != NULL && take_tokens(lease, lease->head->bytes)) {
        admit_head(lease);
    }
    if (lease->head != NULL && !lease->asking) {
        send_message(lease, true);
    }
}

static void
take_grant(void *arg)
{
    g_autofree Message *message = arg;
    Lease *lease = message->lease;

    lease->member->iops_size = message->iops_size;
    lease->left = message->grant;
    lease->asking = false;
    admit_waiters(lease);
    if (!lease->asking && is_left(lease) &&
        !(isinf(lease->left.bytes) && isinf(lease->left.ops))) {
        bf_timer_stop(&lease->expiry);
        bf_timer_start(&lease->expiry, LEASE_NS, lease_expired, lease);
    }
}

static void
add_debt(Lease *lease, uint64_t bytes)
{
    ThrottleAmount cost = bf_throttle_cost(lease->member->iops_size, bytes);

    if (lease->debt.bytes == 0 && lease->debt.ops == 0) {
        bf_timer_stop(&lease->debt_timer);
        bf_timer_start(&lease->debt_timer, LEASE_NS, lease_expired, lease);
    }
    lease->debt.bytes += cost.bytes;
    lease->debt.ops += cost.ops;
}

void
bf_throttle_member_charge(BfThrottleMember *member, bool is_write,
                          uint64_t bytes)
{
    Lease *lease = &member->leases[is_write];

    bf_assert_loop(member->loop);
    if (lease->head != NULL || !take_tokens(lease, bytes)) {
        add_debt(lease, bytes);
    }
}

/* Not inline: gcc 12 does not see that who waits stays until it is admitted. */
static G_NO_INLINE void
append_waiter(Lease *lease, Waiter *waiter)
{
    if (lease->head == NULL) {
        lease->tail = &lease->head;
    }
    *lease->tail = waiter;
    lease->tail = &waiter->next;
}

bool
bf_throttle_member_co_wait(BfThrottleMember *member, bool is_write,
                           uint64_t bytes)
{
    Lease *lease = &member->leases[is_write];
    Waiter w = {.bytes = bytes};

    bf_assert_loop(member->loop);
    if (member->hurries > 0) {
        add_debt(lease, bytes);
        return true;
    }
    if (lease->head == NULL && take_tokens(lease, bytes)) {
        return true;
    }
    append_waiter(lease, &w);
    if (!lease->asking) {
        send_message(lease, true);
    }
    while (!w.admitted) {
        bf_co_queue_co_wait(&w.queue);
    }
    return !w.cancelled;
}

void
bf_throttle_member_cancel_here(BfThrottleMember *member)
{
    bf_assert_loop(member->loop);
    for (unsigned i = 0; i < 2; i++) {
        Lease *lease = &member->leases[i];

        while (lease->head != NULL) {
            lease->head->cancelled = true;
            admit_head(lease);
        }
    }
}

static void
hurry_begin(void *arg)
{
    BfThrottleMember *member = arg;

    bf_assert_loop(member->loop);
    member->hurries++;
    for (unsigned i = 0; i < 2; i++) {
        Lease *lease = &member->leases[i];

        while (lease->head != NULL) {
            add_debt(lease, lease->head->bytes);
            admit_head(lease);
        }
    }
}

static void
hurry_end(void *arg)
{
    BfThrottleMember *member = arg;

    g_assert(member->hurries > 0);
    member->hurries--;
}

void
bf_throttle_member_hurry_here(BfThrottleMember *member, bool begin)
{
    (begin ? hurry_begin : hurry_end)(member);
}

/* The limits have changed, so what is leased counts no more. */
static void
revoke_leases(void *arg)
{
    BfThrottleMember *member = arg;

    for (unsigned i = 0; i < 2; i++) {
        Lease *lease = &member->leases[i];

        if (is_left(lease)) {
            send_message(lease, false);
        }
    }
}

static void
settled(void *arg)
{
    BfThrottleMember *member = arg;

    member->settled = true;
    bf_co_queue_wake_all(&member->settles);
}

static void
settle(void *arg)
{
    BfThrottleMember *member = arg;

    for (unsigned i = 0; i < 2; i++) {
        Lease *lease = &member->leases[i];

        g_assert(lease->head == NULL);
        lease->asking = false; /* main answers no more */
        send_message(lease, false);
    }
    bf_loop_post(member->group->main_loop, settled, member);
}

/* --- Members, on main. --- */

void
bf_throttle_group_set_config(BfThrottleGroup *group,
                             const BfThrottleConfig *config)
{
    bf_assert_main();
    group->config = *config;
    group->buckets = (ThrottleBuckets){0};
    group->leaked_at_ns = bf_loop_now_ns();
    for (unsigned i = 0; i < group->members->len; i++) {
        BfThrottleMember *member = g_ptr_array_index(group->members, i);

        /* One that is suspended gives back what it has, and may be freed when
         * it has answered: nothing may be sent to it any more. */
        if (!member->suspended) {
            bf_loop_post(member->loop, revoke_leases, member);
        }
    }
    serve(group);
}

BfThrottleMember *
bf_throttle_member_new(BfThrottleGroup *group, const char *user, BfLoop *loop)
{
    BfThrottleMember *member = g_new0(BfThrottleMember, 1);

    bf_assert_main();
    member->group = group;
    member->loop = loop;
    member->user = g_strdup(user);
    for (unsigned i = 0; i < 2; i++) {
        member->leases[i].member = member;
        member->leases[i].is_write = i;
    }
    g_ptr_array_add(group->members, member);
    return member;
}

BfThrottleMember *
bf_throttle_member_new_beside(const BfThrottleMember *member, BfLoop *loop)
{
    return bf_throttle_member_new(member->group, member->user, loop);
}

/* Ends all that is under way between main and the member's loop: the message to
 * the loop comes behind what main has sent, its answer behind what the loop has
 * sent. */
static void
member_co_suspend(BfThrottleMember *member)
{
    BfThrottleGroup *group = member->group;
    GList *next;

    member->suspended = true;
    for (GList *link = group->asks.head; link != NULL; link = next) {
        Message *ask = link->data;

        next = link->next;
        if (ask->lease->member == member) {
            g_free(ask);
            g_queue_delete_link(&group->asks, link);
        }
    }
    member->settled = false;
    bf_loop_post(member->loop, settle, member);
    while (!member->settled) {
        bf_co_queue_co_wait(&member->settles);
    }
}

void
bf_throttle_member_co_free(BfThrottleMember *member)
{
    if (member == NULL) {
        return;
    }
    bf_assert_main();
    member_co_suspend(member);
    g_ptr_array_remove(member->group->members, member);
    g_free(member->user);
    g_free(member);
}

void
bf_throttle_member_co_move(BfThrottleMember *member, BfLoop *loop)
{
    bf_assert_main();
    if (member->loop == loop) {
        return;
    }
    member_co_suspend(member);
    member->loop = loop;
    member->suspended = false;
}

void
bf_throttle_member_hurry(BfThrottleMember *member, bool begin)
{
    bf_assert_main();
    bf_loop_post(member->loop, begin ? hurry_begin : hurry_end, member);
}
