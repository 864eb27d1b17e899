/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fault: passes requests on to its child, except that rules make some of them
 * fail, wait, stop half way or never come back. The base of many tests. Its
 * counters belong to the home loop, so all requests run there.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/driver.h"
#include "block/filter.h"
#include "block/request.h"
#include "core/co-io.h"
#include "core/error.h"
#include "core/util.h"

#define FAULT_RULES_MAX 1024
#define FAULT_DELAY_MAX_MS (3600 * UINT64_C(1000))
#define ERRNO_MAX 200

/* What a torn change is torn into, bytes. */
#define FAULT_SECTOR 512

/* What reaches the image of a change that fails. */
typedef enum FaultDamage {
    DAMAGE_NONE,
    DAMAGE_SHORT, /* the first half */
    DAMAGE_TORN,  /* some sectors */
} FaultDamage;

typedef struct FaultRule {
    BfFaultOp op;
    uint64_t start;
    uint64_t end;
    uint64_t after;
    uint64_t count; /* 0: no limit */
    int err;        /* errno, or 0 */
    uint64_t delay_ns;
    FaultDamage damage;
    bool park;
    unsigned percent;
    uint64_t seen;
    uint64_t treated;
} FaultRule;

typedef struct FaultRules {
    FaultRule *items; /* owned */
    size_t len;
    uint64_t random; /* state of the generator, not 0 */
} FaultRules;

typedef struct BfFaultNode {
    BfNode base;
    FaultRules rules;  /* of the home loop */
    FaultRules next;   /* main: of a reopen that is being prepared */
    BfCoQueue parked;  /* of the home loop */
    unsigned releases; /* of the home loop: how often all were let go */
    bool passing;      /* of the home loop: no rule holds */
} BfFaultNode;

static bool
parse_errno(const char *name, int *ret_err, GError **error)
{
    if (name[0] == '\0') {
        *ret_err = 0;
        return true;
    }
    for (int err = 1; err < ERRNO_MAX; err++) {
        const char *known = strerrorname_np(err);

        if (known != NULL && strcmp(known, name) == 0) {
            *ret_err = err;
            return true;
        }
    }
    bf_set_error(error, "'%s' is not the name of an errno", name);
    return false;
}

static bool
parse_rule(const BfFaultRule *opts, FaultRule *rule, GError **error)
{
    uint64_t start = opts->has_offset ? opts->offset : 0;

    *rule = (FaultRule){
        .op = opts->op,
        .start = start,
        .end = UINT64_MAX,
        .after = opts->after,
        .count = opts->count,
        .delay_ns = opts->delay_ms * BF_NS_PER_MS,
        .damage = opts->torn     ? DAMAGE_TORN
                  : opts->short_ ? DAMAGE_SHORT
                                 : DAMAGE_NONE,
        .park = opts->park,
        .percent = opts->probability,
    };
    if (opts->delay_ms > FAULT_DELAY_MAX_MS) {
        bf_set_error(error, "delay-ms is above %" PRIu64, FAULT_DELAY_MAX_MS);
        return false;
    }
    if (opts->probability > 100) {
        bf_set_error(error, "probability is above 100");
        return false;
    }
    if (opts->has_bytes && !bf_add_u64(start, opts->bytes, &rule->end)) {
        bf_set_error(error, "the range of a rule ends beyond 2^64");
        return false;
    }
    return parse_errno(opts->errno_, &rule->err, error);
}

static void
rules_clear(FaultRules *rules)
{
    g_free(rules->items);
    *rules = (FaultRules){0};
}

static bool
parse_rules(const BfBlockdevOptionsFault *opts, FaultRules *ret_rules,
            GError **error)
{
    size_t len = opts->rules != NULL ? opts->rules->len : 0;
    FaultRules rules = {.len = len};

    if (len > FAULT_RULES_MAX) {
        bf_set_error(error, "more than %d rules", FAULT_RULES_MAX);
        return false;
    }
    rules.items = g_new0(FaultRule, len);
    rules.random = opts->has_seed
                       ? opts->seed
                       : (uint64_t)g_random_int() << 32 | g_random_int();
    rules.random |= 1; /* 0 would stay 0 */
    for (size_t i = 0; i < len; i++) {
        if (!parse_rule(opts->rules->items[i], &rules.items[i], error)) {
            rules_clear(&rules);
            return false;
        }
    }
    *ret_rules = rules;
    return true;
}

static bool
fault_co_open(BfNode *node, const BfBlockdevOptions *options,
              BfOpenContext *ctx, GError **error)
{
    BfFaultNode *self = (BfFaultNode *)node;

    if (!parse_rules(options->u.fault, &self->rules, error) ||
        !bf_node_co_open_child_as(node, ctx, options->u.fault->image, "image",
                                  &node->file, error)) {
        return false;
    }
    bf_filter_refresh(node);
    return true;
}

static void
fault_co_close(BfNode *node)
{
    BfFaultNode *self = (BfFaultNode *)node;

    rules_clear(&self->rules);
}

/* xorshift64: the same numbers for the same seed, everywhere. */
static unsigned
random_percent(FaultRules *rules)
{
    rules->random ^= rules->random << 13;
    rules->random ^= rules->random >> 7;
    rules->random ^= rules->random << 17;
    return (unsigned)((rules->random >> 32) % 100);
}

static bool
is_match(const FaultRule *rule, BfFaultOp op, uint64_t offset, uint64_t bytes)
{
    if (rule->op != BF_FAULT_OP_ANY && rule->op != op) {
        return false;
    }
    /* A flush has no range. */
    return op == BF_FAULT_OP_FLUSH ||
           (offset < rule->end && rule->start < offset + bytes);
}

/* The rule that is to treat this request, or NULL; counts. */
static const FaultRule *
find_rule(BfFaultNode *self, BfFaultOp op, uint64_t offset, uint64_t bytes)
{
    for (size_t i = 0; i < self->rules.len && !self->passing; i++) {
        FaultRule *rule = &self->rules.items[i];

        if (!is_match(rule, op, offset, bytes) || rule->seen++ < rule->after ||
            (rule->count != 0 && rule->treated >= rule->count) ||
            (rule->percent < 100 &&
             random_percent(&self->rules) >= rule->percent)) {
            continue;
        }
        rule->treated++;
        return rule;
    }
    return NULL;
}

/*
 * Lets a request meet its fate. Returns 0 if it is to be done, or -errno.
 * @ret_damage: what of it is to be done before it fails.
 */
static int
co_meet_fate(BfNode *node, BfFaultOp op, uint64_t offset, uint64_t bytes,
             FaultDamage *ret_damage)
{
    BfFaultNode *self = (BfFaultNode *)node;
    const FaultRule *found;
    FaultRule rule;
    unsigned releases = self->releases;

    bf_assert_loop(node->home);
    found = find_rule(self, op, offset, bytes);
    if (found == NULL) {
        return 0;
    }
    rule = *found; /* a reopen may change them while we wait */
    bf_co_sleep_ns(rule.delay_ns);
    if (rule.park) {
        while (releases == self->releases) {
            bf_co_queue_co_wait(&self->parked);
        }
        return 0;
    }
    *ret_damage = rule.err != 0 ? rule.damage : DAMAGE_NONE;
    return -rule.err;
}

static int
fault_co_read(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    FaultDamage damage = DAMAGE_NONE;
    int ret = co_meet_fate(node, BF_FAULT_OP_READ, offset, vec->bytes, &damage);

    return ret < 0 ? ret : bf_node_co_read(node->file, offset, vec, flags);
}

/* A part of a change; @vec NULL are zeroes. Its own failure is no news. */
static void
co_do_part(BfNode *node, uint64_t offset, BfIoVec *vec, uint64_t skip,
           uint64_t bytes, BfIoFlags flags)
{
    BfIoVec part;

    if (vec == NULL) {
        bf_node_co_write_zeroes(node->file, offset + skip, bytes, flags);
        return;
    }
    bf_iovec_init_slice(&part, vec, skip, bytes);
    bf_node_co_write(node->file, offset + skip, &part, flags);
    bf_iovec_clear(&part);
}

/* What a change does that fails. */
static void
co_do_damage(BfNode *node, uint64_t offset, BfIoVec *vec, uint64_t bytes,
             BfIoFlags flags, FaultDamage damage)
{
    BfFaultNode *self = (BfFaultNode *)node;

    if (damage == DAMAGE_SHORT && bytes > 1) {
        co_do_part(node, offset, vec, 0, bytes / 2, flags);
    }
    for (uint64_t done = 0; damage == DAMAGE_TORN && done < bytes;) {
        uint64_t step = MIN(bytes - done, FAULT_SECTOR - offset % FAULT_SECTOR);

        if (done > 0) {
            step = MIN(bytes - done, FAULT_SECTOR);
        }
        if (random_percent(&self->rules) < 50) {
            co_do_part(node, offset, vec, done, step, flags);
        }
        done += step;
    }
}

static int
fault_co_write(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    FaultDamage damage = DAMAGE_NONE;
    int ret =
        co_meet_fate(node, BF_FAULT_OP_WRITE, offset, vec->bytes, &damage);

    co_do_damage(node, offset, vec, vec->bytes, flags, damage);
    return ret < 0 ? ret : bf_node_co_write(node->file, offset, vec, flags);
}

static int
fault_co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes,
                      BfIoFlags flags)
{
    FaultDamage damage = DAMAGE_NONE;
    int ret =
        co_meet_fate(node, BF_FAULT_OP_WRITE_ZEROES, offset, bytes, &damage);

    co_do_damage(node, offset, NULL, bytes, flags, damage);
    return ret < 0 ? ret
                   : bf_node_co_write_zeroes(node->file, offset, bytes, flags);
}

static int
fault_co_discard(BfNode *node, uint64_t offset, uint64_t bytes)
{
    FaultDamage damage = DAMAGE_NONE;
    int ret = co_meet_fate(node, BF_FAULT_OP_DISCARD, offset, bytes, &damage);

    return ret < 0 ? ret : bf_node_co_discard(node->file, offset, bytes, 0);
}

static int
fault_co_flush(BfNode *node)
{
    FaultDamage damage = DAMAGE_NONE;
    int ret;

    if (node->file == NULL) {
        return 0;
    }
    ret = co_meet_fate(node, BF_FAULT_OP_FLUSH, 0, 0, &damage);
    return ret < 0 ? ret : bf_node_co_flush(node->file);
}

/* On the home loop: parked requests go on, and none is parked any more. */
static void
release_parked(void *arg)
{
    BfFaultNode *self = arg;

    self->releases++;
    self->passing = true;
    bf_co_queue_wake_all(&self->parked);
}

static void
end_passing(void *arg)
{
    BfFaultNode *self = arg;

    self->passing = false;
}

/* What is parked would make the drain wait, so it is let go before. */
static bool
fault_co_reopen_prepare(BfNode *node, const BfBlockdevOptions *options,
                        const BfNode *file, GError **error)
{
    BfFaultNode *self = (BfFaultNode *)node;

    if (!bf_node_check_new_size(node, file->size, error) ||
        !parse_rules(options->u.fault, &self->next, error)) {
        return false;
    }
    bf_co_call(node->home, release_parked, self);
    return true;
}

static void
fault_reopen_commit(BfNode *node)
{
    BfFaultNode *self = (BfFaultNode *)node;

    rules_clear(&self->rules);
    self->rules = self->next;
    self->next = (FaultRules){0};
    self->passing = false; /* drained, so that nobody looks */
}

static void
fault_co_reopen_abort(BfNode *node)
{
    BfFaultNode *self = (BfFaultNode *)node;

    rules_clear(&self->next);
    bf_co_call(node->home, end_passing, self);
}

const BfDriver bf_driver_fault = {
    .name = "fault",
    .kind = BF_BLOCKDEV_DRIVER_FAULT,
    .node_size = sizeof(BfFaultNode),
    .is_filter = true,
    .needs_faults = true,
    .fua = true,
    .co_open = fault_co_open,
    .co_close = fault_co_close,
    .co_read = fault_co_read,
    .co_write = fault_co_write,
    .co_flush = fault_co_flush,
    .co_write_zeroes = fault_co_write_zeroes,
    .co_discard = fault_co_discard,
    .co_extents = bf_filter_co_extents,
    .refresh = bf_filter_refresh,
    .co_resize = bf_filter_co_resize,
    .co_reopen_prepare = fault_co_reopen_prepare,
    .reopen_commit = fault_reopen_commit,
    .co_reopen_abort = fault_co_reopen_abort,
};
