/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mirror job at work: until source and target are equal, then until a user
 * wants it to end. The end is a hand-over: while the source's users wait, the
 * last bytes are copied and flushed. It is begun only when little is left, and
 * called off when it takes too long; then the job goes on as before.
 */
#include <errno.h>

#include "block/handover.h"
#include "core/error.h"
#include "core/util.h"
#include "mirror-private.h"

/* How long users may wait for the last pass, and for all of it. */
#define PASS_LIMIT_NS (2 * BF_NS_PER_SEC)
#define LAST_CHANCE_NS (20 * BF_NS_PER_SEC)

/* What is little: bytes, or what is copied in this time. */
#define LITTLE_BYTES (1 * BF_MIB)
#define LITTLE_NS (200 * BF_NS_PER_MS)

#define FLUSH_LIMIT_NS (1 * BF_NS_PER_SEC)
#define IDLE_NS (100 * BF_NS_PER_MS)
#define RETRY_MIN_NS (1 * BF_NS_PER_SEC)
#define RETRY_MAX_NS (10 * BF_NS_PER_SEC)

/* How often an end that a user has finalized is tried. */
#define PREPARE_TRIES 20

static MirrorWish
get_wish(const BfMirror *mirror)
{
    return (MirrorWish)bf_atomic_load(&mirror->wish);
}

static bool
co_begin(BfMirror *mirror, GError **error)
{
    bool wants_probe = !mirror->target_is_zero && mirror->is_full;

    if (bf_handle_size(mirror->source_handle) !=
        bf_handle_size(mirror->target_handle)) {
        bf_set_error(error, "Source and target image have different sizes");
        return false;
    }
    if (mirror->target_is_zero) {
        mirror->config.flags |= BF_COPY_TARGET_ZERO;
    } else if (wants_probe) {
        mirror->config.flags |= BF_COPY_TARGET_MAYBE_ZERO;
    }
    mirror->copy = bf_copy_new(&mirror->config, error);
    if (mirror->copy != NULL && wants_probe) {
        bf_copy_start_probe(mirror->copy);
    }
    return mirror->copy != NULL;
}

/* The mode may have been changed by main meanwhile. */
static void
follow_mode(BfMirror *mirror)
{
    bf_atomic_store(&mirror->is_active, bf_atomic_load(&mirror->blocking));
}

static bool
is_little_left(const BfMirror *mirror)
{
    BfCopyRates rates;

    bf_copy_get_rates(mirror->copy, &rates);
    return rates.left <= LITTLE_BYTES ||
           rates.left / (LITTLE_NS / BF_NS_PER_MS) <=
               rates.copy_rate / (BF_NS_PER_SEC / BF_NS_PER_MS);
}

/* Hand-over. */

static void
pass_co_run(void *arg)
{
    BfMirror *mirror = arg;

    mirror->pass_ret = bf_copy_co_finish(mirror->copy, mirror->pass_limit_ns);
}

static void
catch_up_co_run(void *arg)
{
    BfMirror *mirror = arg;

    mirror->pass_ret = bf_copy_co_catch_up(mirror->copy, PASS_LIMIT_NS);
}

static void
set_pass_error(int ret, GError **error)
{
    if (ret == -ETIMEDOUT) {
        bf_set_error(error, "The target did not take the last writes in time");
    } else {
        bf_set_error(error, "%s", g_strerror(-ret));
    }
}

/* What fails then fails for that reason. */
static void
look_for_cancel(BfMirror *mirror)
{
    if (bf_job_is_cancelled(&mirror->base)) {
        mirror->pass_ret = -ECANCELED;
    }
}

static bool
last_co_pass(void *arg, GError **error)
{
    BfMirror *mirror = arg;

    bf_co_call(mirror->base.loop, pass_co_run, mirror);
    look_for_cancel(mirror);
    if (mirror->pass_ret < 0) {
        set_pass_error(mirror->pass_ret, error);
        return false;
    }
    return true;
}

/* Where the users go; returns how many moves there are. */
static size_t
plan_moves(const BfMirror *mirror, BfGraphMove moves[2])
{
    bool pivot = get_wish(mirror) != MIRROR_WISH_COPY;

    moves[0].from = mirror->filter;
    moves[0].to = pivot && mirror->replaces == mirror->source ? mirror->target
                                                              : mirror->source;
    moves[1].from = mirror->replaces;
    moves[1].to = mirror->target;
    return pivot ? 2 : 1;
}

/* On main, at rest: what is marked from now on is not in the copy. */
static void
hand_over_done(void *arg)
{
    BfMirror *mirror = arg;

    mirror->filter = NULL;
    mirror->handed_over = true;
    if (mirror->bitmap != NULL && !mirror->keep_bitmap) {
        bf_bitmap_clear(bf_bitmap_use_bitmap(mirror->bitmap));
    }
    bf_job_set_final(&mirror->base);
}

/* On main. */
static bool
co_hand_over(BfMirror *mirror, uint64_t limit_ns, GError **error)
{
    BfRoot *const roots[] = {mirror->source_root, mirror->target_root};
    BfGraphMove moves[2];
    const BfHandOver hand_over = {
        .filter = mirror->filter,
        .moves = moves,
        .n_moves = plan_moves(mirror, moves),
        .roots = roots,
        .n_roots = G_N_ELEMENTS(roots),
        .co_last_pass = last_co_pass,
        .done = hand_over_done,
        .arg = mirror,
    };

    mirror->pass_ret = 1;
    mirror->pass_limit_ns = limit_ns;
    return bf_graph_co_hand_over(mirror->graph, &hand_over, error);
}

typedef struct HandOverCall {
    BfMirror *mirror;
    bool ok;
    GError *error;
} HandOverCall;

static void
main_co_hand_over(void *arg)
{
    HandOverCall *call = arg;

    call->ok = co_hand_over(call->mirror, PASS_LIMIT_NS, &call->error);
}

/*
 * What the storage does is tried again: a failed request is dealt with by the
 * copy engine, and users who wait too long are let go for a while.
 */
static bool
co_try_hand_over(BfMirror *mirror, bool *ret_done, GError **error)
{
    HandOverCall call = {.mirror = mirror};

    bf_co_call(bf_loop_get_main(mirror->base.loop), main_co_hand_over, &call);
    *ret_done = call.ok;
    if (call.ok) {
        return true;
    }
    if (mirror->pass_ret == 0) {
        g_propagate_error(error, call.error);
        return false;
    }
    g_debug("mirror '%s': the end is put off: %s", mirror->base.id,
            call.error->message);
    g_error_free(call.error);
    if (mirror->pass_ret == -ETIMEDOUT || mirror->pass_ret == 1) {
        mirror->retry_ns =
            MIN(MAX(2 * mirror->retry_ns, RETRY_MIN_NS), RETRY_MAX_NS);
        bf_job_co_sleep(&mirror->base, mirror->retry_ns);
    }
    return true;
}

/* Source and target are equal, or all was copied and writers have changed a
 * little of it since. */
static bool
co_when_converged(BfMirror *mirror, bool *ret_done, GError **error)
{
    BfJob *job = &mirror->base;
    bool is_stable = !mirror->is_ready && bf_copy_is_stable(mirror->copy);
    int ret = is_stable ? 0 : bf_copy_co_flush(mirror->copy, FLUSH_LIMIT_NS);

    if (ret < 0) {
        return true; /* the copy engine deals with it */
    }
    if (!mirror->is_ready) {
        mirror->is_ready = true;
        bf_job_co_set_ready(job);
        return true;
    }
    if (get_wish(mirror) == MIRROR_WISH_NONE) {
        return true;
    }
    if (job->manual_finalize) {
        *ret_done = true; /* the rest comes when it is finalized */
        return true;
    }
    return co_try_hand_over(mirror, ret_done, error);
}

static bool
co_work(BfMirror *mirror, GError **error)
{
    BfJob *job = &mirror->base;
    bool done = false;

    while (!done) {
        BfCopyStatus status;
        bool converged;

        follow_mode(mirror);
        status = bf_copy_co_run(mirror->copy, error);
        if (status == BF_COPY_ENDED) {
            return false;
        }
        converged =
            status == BF_COPY_CLEAN ||
            (bf_copy_is_through(mirror->copy) && is_little_left(mirror));
        if (converged &&
            (!mirror->is_ready || get_wish(mirror) != MIRROR_WISH_NONE)) {
            if (!co_when_converged(mirror, &done, error)) {
                return false;
            }
        } else if (status == BF_COPY_CLEAN && !bf_job_co_sleep(job, IDLE_NS)) {
            return false;
        }
    }
    return true;
}

bool
bf_mirror_co_run(BfJob *job, GError **error)
{
    BfMirror *mirror = (BfMirror *)job;
    bool ok;

    if (!co_begin(mirror, error)) {
        return false;
    }
    mirror->is_running = true;
    ok = co_work(mirror, error);
    mirror->is_running = false;
    if (!ok) {
        bf_atomic_store(&mirror->is_active, 0);
    }
    bf_copy_co_settle(mirror->copy);
    return ok;
}

/* There was too little time, or what was lost is to be copied again. */
static bool
is_to_be_tried_again(const BfMirror *mirror)
{
    return mirror->pass_ret == -ETIMEDOUT || mirror->pass_ret == -EAGAIN;
}

/*
 * The end of a job that waited to be finalized: its users have gone on writing,
 * and still do, so the most of it is copied before they have to wait. Nobody
 * can be asked about errors any more.
 */
bool
bf_mirror_co_prepare(BfJob *job, GError **error)
{
    BfMirror *mirror = (BfMirror *)job;

    for (unsigned i = 1; !mirror->handed_over; i++) {
        bool last = i == PREPARE_TRIES;
        g_autoptr(GError) local = NULL;

        bf_co_call(job->loop, catch_up_co_run, mirror);
        look_for_cancel(mirror);
        if (is_to_be_tried_again(mirror) && !last) {
            continue;
        }
        if (mirror->pass_ret < 0) {
            set_pass_error(mirror->pass_ret, error);
            return false;
        }
        if (!co_hand_over(mirror, last ? LAST_CHANCE_NS : PASS_LIMIT_NS,
                          &local) &&
            (last || !is_to_be_tried_again(mirror))) {
            g_propagate_error(error, g_steal_pointer(&local));
            return false;
        }
    }
    return true;
}
