/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Throttle groups: rules for limits, rates, bursts, shares, changes. */
#include "block/throttle.h"

#include "core/atomic.h"
#include "core/co-lock.h"
#include "core/error.h"
#include "core/util.h"
#include "harness.h"

static BfThrottleLimit *
limit_of(BfThrottleConfig *config, BfThrottleBucket bucket)
{
    return &config->limits[bucket];
}

static BfThrottleConfig
config_with(BfThrottleBucket bucket, uint64_t avg)
{
    BfThrottleConfig config;

    bf_throttle_config_init(&config);
    limit_of(&config, bucket)->avg = avg;
    return config;
}

static void
assert_refused(const BfThrottleConfig *config, const char *message)
{
    g_autoptr(GError) error = NULL;

    g_assert_false(bf_throttle_config_check(config, &error));
    g_assert_error(error, BF_ERROR, BF_ERROR_GENERIC);
    g_assert_cmpstr(error->message, ==, message);
}

static void
test_totals_exclude_parts(void)
{
    const char *message = "bps/iops/max total values and read/write values "
                          "cannot be used at the same time";
    BfThrottleConfig config = config_with(BF_THROTTLE_BUCKET_BPS_TOTAL, 10);

    g_assert_true(bf_throttle_config_check(&config, NULL));
    limit_of(&config, BF_THROTTLE_BUCKET_BPS_WRITE)->avg = 1;
    assert_refused(&config, message);
    config = config_with(BF_THROTTLE_BUCKET_IOPS_READ, 10);
    g_assert_true(bf_throttle_config_check(&config, NULL));
    limit_of(&config, BF_THROTTLE_BUCKET_IOPS_TOTAL)->avg = 1;
    assert_refused(&config, message);
}

static void
test_each_limit_is_checked(void)
{
    for (unsigned i = 0; i < BF_THROTTLE_BUCKETS; i++) {
        BfThrottleConfig config = config_with(i, BF_THROTTLE_VALUE_MAX + 1);
        BfThrottleLimit *limit = limit_of(&config, i);

        assert_refused(&config, "bps/iops/max values must be within "
                                "[0, 1000000000000000]");
        *limit = (BfThrottleLimit){.avg = 10, .max = 20, .length = 0};
        assert_refused(&config, "the burst length cannot be 0");
        *limit = (BfThrottleLimit){.avg = 10, .max = 0, .length = 2};
        assert_refused(&config, "burst length set without burst rate");
        *limit = (BfThrottleLimit){
            .avg = 10, .max = BF_THROTTLE_VALUE_MAX / 2, .length = 3};
        assert_refused(&config, "burst length too high for this burst rate");
        *limit = (BfThrottleLimit){.avg = 0, .max = 20, .length = 1};
        assert_refused(
            &config, "bps_max/iops_max require corresponding bps/iops values");
        *limit = (BfThrottleLimit){.avg = 10, .max = 9, .length = 1};
        assert_refused(&config,
                       "bps_max/iops_max cannot be lower than bps/iops");
        *limit = (BfThrottleLimit){.avg = 10, .max = 10, .length = 1};
        g_assert_true(bf_throttle_config_check(&config, NULL));
    }
}

static void
test_iops_size_needs_iops(void)
{
    BfThrottleConfig config = config_with(BF_THROTTLE_BUCKET_BPS_TOTAL, 10);

    config.iops_size = 4096;
    assert_refused(&config, "iops size requires an iops value to be set");
    config = config_with(BF_THROTTLE_BUCKET_IOPS_WRITE, 10);
    config.iops_size = 4096;
    g_assert_true(bf_throttle_config_check(&config, NULL));
}

/* One user that makes one request after the other. */
typedef struct Runner {
    BfThrottleMember *member;
    BfLoop *loop;
    bool is_write;
    uint64_t bytes;
    BfAtomicU64 stop;
    BfAtomicU64 done;
    BfWaitGroup running; /* main */
} Runner;

static void
ended(void *arg)
{
    Runner *runner = arg;

    bf_wait_group_done(&runner->running);
}

static void
co_request(void *arg)
{
    Runner *runner = arg;

    while (bf_atomic_load(&runner->stop) == 0) {
        bf_throttle_member_co_wait(runner->member, runner->is_write,
                                   runner->bytes);
        bf_atomic_add(&runner->done, 1);
        if (bf_atomic_load(&runner->done) > 100000) {
            break; /* no limit */
        }
    }
    bf_loop_post(bf_loop_get_main(runner->loop), ended, runner);
}

static void
spawn(void *arg)
{
    bf_co_spawn(co_request, arg);
}

static void
runner_start(Runner *runner, BfThrottleGroup *group, unsigned worker)
{
    runner->loop = bf_test_loops()->workers[worker];
    runner->member = bf_throttle_member_new(group, "test", runner->loop);
    bf_wait_group_add(&runner->running, 1);
    bf_loop_post(runner->loop, spawn, runner);
}

static void
runner_co_stop(Runner *runner)
{
    bf_atomic_store(&runner->stop, 1);
    bf_throttle_member_hurry(runner->member, true);
    bf_wait_group_co_wait(&runner->running);
    bf_throttle_member_hurry(runner->member, false);
    bf_throttle_member_co_free(runner->member);
}

/* Lets all loops come to rest, without time passing. */
static void
co_settle(void)
{
    for (unsigned i = 0; i < 3; i++) {
        bf_test_advance(0);
    }
}

static void
co_pass_ms(unsigned ms)
{
    co_settle();
    for (unsigned i = 0; i < ms; i += 10) {
        bf_test_advance(10 * BF_NS_PER_MS);
        co_settle();
    }
}

static uint64_t
done(const Runner *runner)
{
    return bf_atomic_load(&runner->done);
}

#define assert_within(value, low, high)                                        \
    g_assert_cmpuint(value, >=, low);                                          \
    g_assert_cmpuint(value, <=, high)

static void
test_rate_holds(void *arg)
{
    BfThrottleConfig config = config_with(BF_THROTTLE_BUCKET_IOPS_TOTAL, 10);
    BfThrottleGroup *group = bf_throttle_group_new(&config);
    Runner runner = {.bytes = 4096};

    runner_start(&runner, group, 0);
    co_settle();
    g_assert_cmpuint(done(&runner), ==, 2); /* a tenth of a second, and one */
    co_pass_ms(90);
    g_assert_cmpuint(done(&runner), ==, 2);
    co_pass_ms(10);
    g_assert_cmpuint(done(&runner), ==, 3);
    co_pass_ms(2900);
    assert_within(done(&runner), 31, 32);
    runner_co_stop(&runner);
    bf_throttle_group_free(group);
}

static void
test_bytes_are_counted(void *arg)
{
    BfThrottleConfig config =
        config_with(BF_THROTTLE_BUCKET_BPS_WRITE, 10 * 65536);
    BfThrottleGroup *group = bf_throttle_group_new(&config);
    Runner writer = {.is_write = true, .bytes = 65536};
    Runner reader = {.is_write = false, .bytes = 65536};

    runner_start(&writer, group, 0);
    co_pass_ms(2000);
    assert_within(done(&writer), 20, 22);
    runner_start(&reader, group, 0);
    co_settle();
    g_assert_cmpuint(done(&reader), >, 100000);
    runner_co_stop(&reader);
    runner_co_stop(&writer);
    bf_throttle_group_free(group);
}

/* 100 requests may be had at 50 a second while 10 a second leak. */
static void
test_burst_ends(void *arg)
{
    BfThrottleConfig config = config_with(BF_THROTTLE_BUCKET_IOPS_TOTAL, 10);
    BfThrottleGroup *group;
    Runner runner = {.bytes = 512};

    limit_of(&config, BF_THROTTLE_BUCKET_IOPS_TOTAL)->max = 50;
    limit_of(&config, BF_THROTTLE_BUCKET_IOPS_TOTAL)->length = 2;
    group = bf_throttle_group_new(&config);
    runner_start(&runner, group, 1);
    co_pass_ms(1000);
    assert_within(done(&runner), 50, 57);
    co_pass_ms(4000);
    assert_within(done(&runner), 145, 155);
    runner_co_stop(&runner);
    bf_throttle_group_free(group);
}

static void
test_large_requests_count_as_several(void *arg)
{
    BfThrottleConfig config = config_with(BF_THROTTLE_BUCKET_IOPS_READ, 10);
    BfThrottleGroup *group;
    Runner runner = {.bytes = 10 * 4096};

    config.iops_size = 4096;
    group = bf_throttle_group_new(&config);
    runner_start(&runner, group, 0);
    co_pass_ms(3000);
    assert_within(done(&runner), 3, 5);
    runner_co_stop(&runner);
    bf_throttle_group_free(group);
}

static void
test_members_get_equal_shares(void *arg)
{
    BfThrottleConfig config = config_with(BF_THROTTLE_BUCKET_IOPS_TOTAL, 1000);
    BfThrottleGroup *group = bf_throttle_group_new(&config);
    Runner runners[3] = {
        {.bytes = 512}, {.bytes = 512, .is_write = true}, {.bytes = 512}};
    uint64_t sum = 0;

    runner_start(&runners[0], group, 0);
    runner_start(&runners[1], group, 1);
    runner_start(&runners[2], group, 1);
    co_pass_ms(3000);
    for (unsigned i = 0; i < 3; i++) {
        assert_within(done(&runners[i]), 900, 1150);
        sum += done(&runners[i]);
    }
    assert_within(sum, 2990, 3130);
    for (unsigned i = 0; i < 3; i++) {
        runner_co_stop(&runners[i]);
    }
    bf_throttle_group_free(group);
}

/* What a member has leased and does not use comes back to the others. */
static void
test_idle_member_takes_nothing(void *arg)
{
    BfThrottleConfig config = config_with(BF_THROTTLE_BUCKET_IOPS_TOTAL, 1000);
    BfThrottleGroup *group = bf_throttle_group_new(&config);
    Runner runners[2] = {{.bytes = 512}, {.bytes = 512}};

    runner_start(&runners[0], group, 0);
    co_pass_ms(1000);
    runner_co_stop(&runners[0]);
    runner_start(&runners[1], group, 1);
    co_pass_ms(2000);
    assert_within(done(&runners[1]), 1990, 2110);
    runner_co_stop(&runners[1]);
    bf_throttle_group_free(group);
}

static void
test_limits_change_at_once(void *arg)
{
    BfThrottleConfig config = config_with(BF_THROTTLE_BUCKET_IOPS_TOTAL, 1);
    BfThrottleGroup *group = bf_throttle_group_new(&config);
    Runner runner = {.bytes = 512};

    runner_start(&runner, group, 0);
    co_pass_ms(1000);
    assert_within(done(&runner), 1, 3);
    config = config_with(BF_THROTTLE_BUCKET_IOPS_TOTAL, 100);
    bf_throttle_group_set_config(group, &config);
    co_pass_ms(1000);
    assert_within(done(&runner), 100, 116);
    config = config_with(BF_THROTTLE_BUCKET_IOPS_TOTAL, 0);
    bf_throttle_group_set_config(group, &config);
    co_settle();
    g_assert_cmpuint(done(&runner), >, 100000);
    runner_co_stop(&runner);
    bf_throttle_group_free(group);
}

/* Nothing is given away: what passes in a hurry is paid later. */
static void
test_hurry_is_paid_later(void *arg)
{
    BfThrottleConfig config = config_with(BF_THROTTLE_BUCKET_IOPS_TOTAL, 10);
    BfThrottleGroup *group = bf_throttle_group_new(&config);
    Runner runner = {.bytes = 512};
    uint64_t before;

    runner_start(&runner, group, 0);
    co_settle();
    g_assert_cmpuint(done(&runner), ==, 2);
    bf_throttle_member_hurry(runner.member, true);
    bf_throttle_member_hurry(runner.member, false);
    co_settle();
    before = done(&runner);
    g_assert_cmpuint(before, >, 2);
    co_pass_ms(1000);
    assert_within(done(&runner), 11, MAX(12, before + 1));
    runner_co_stop(&runner);
    bf_throttle_group_free(group);
}

static void
test_member_moves(void *arg)
{
    BfThrottleConfig config = config_with(BF_THROTTLE_BUCKET_IOPS_TOTAL, 10);
    BfThrottleGroup *group = bf_throttle_group_new(&config);
    const BfTestLoops *loops = bf_test_loops();
    BfThrottleMember *member =
        bf_throttle_member_new(group, "node 'x'", loops->workers[0]);

    g_assert_cmpstr(bf_throttle_group_user(group), ==, "node 'x'");
    bf_throttle_member_co_move(member, loops->main);
    bf_throttle_member_co_wait(member, true, 512);
    bf_throttle_member_co_wait(member, false, 512);
    bf_throttle_member_co_move(member, loops->workers[1]);
    bf_throttle_member_co_free(member);
    g_assert_null(bf_throttle_group_user(group));
    bf_throttle_group_free(group);
}

static void
charge_twenty(void *arg)
{
    for (unsigned i = 0; i < 20; i++) {
        bf_throttle_member_charge(arg, true, 4096);
    }
}

/* Also by a member that never asks for anything. */
static void
test_what_did_not_wait_is_paid_by_others(void *arg)
{
    BfThrottleConfig config = config_with(BF_THROTTLE_BUCKET_IOPS_TOTAL, 10);
    BfThrottleGroup *group = bf_throttle_group_new(&config);
    BfLoop *loop = bf_test_loops()->workers[1];
    BfThrottleMember *first = bf_throttle_member_new(group, "job", loop);
    BfThrottleMember *member = bf_throttle_member_new_beside(first, loop);
    Runner runner = {.bytes = 4096};

    bf_throttle_member_co_free(first);
    g_assert_cmpstr(bf_throttle_group_user(group), ==, "job");
    bf_co_call(loop, charge_twenty, member);
    co_pass_ms(20); /* it is told soon */
    runner_start(&runner, group, 0);
    co_settle();
    g_assert_cmpuint(done(&runner), ==, 0);
    co_pass_ms(1700);
    g_assert_cmpuint(done(&runner), ==, 0);
    co_pass_ms(1300);
    assert_within(done(&runner), 10, 12);
    runner_co_stop(&runner);
    bf_throttle_member_co_free(member);
    bf_throttle_group_free(group);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/block/throttle/config/totals-exclude-parts",
                    test_totals_exclude_parts);
    g_test_add_func("/block/throttle/config/each-limit-is-checked",
                    test_each_limit_is_checked);
    g_test_add_func("/block/throttle/config/iops-size-needs-iops",
                    test_iops_size_needs_iops);
    bf_test_add_fake("/block/throttle/wait/rate-holds", test_rate_holds);
    bf_test_add_fake("/block/throttle/wait/bytes-are-counted",
                     test_bytes_are_counted);
    bf_test_add_fake("/block/throttle/wait/burst-ends", test_burst_ends);
    bf_test_add_fake("/block/throttle/wait/large-requests-count-as-several",
                     test_large_requests_count_as_several);
    bf_test_add_fake("/block/throttle/wait/members-get-equal-shares",
                     test_members_get_equal_shares);
    bf_test_add_fake("/block/throttle/wait/idle-member-takes-nothing",
                     test_idle_member_takes_nothing);
    bf_test_add_fake("/block/throttle/wait/limits-change-at-once",
                     test_limits_change_at_once);
    bf_test_add_fake("/block/throttle/wait/hurry-is-paid-later",
                     test_hurry_is_paid_later);
    bf_test_add_fake("/block/throttle/member/moves", test_member_moves);
    bf_test_add_fake("/block/throttle/member/what-did-not-wait-is-paid",
                     test_what_did_not_wait_is_paid_by_others);
    return g_test_run();
}
