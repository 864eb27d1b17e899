/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Limits and leaky buckets. The rules, and the words in which their breach is
 * told, are those that QEMU has, so that limits mean the same here: a bucket
 * holds a tenth of a second at the average rate, or a whole burst; while it is
 * over-full the next request waits for the excess to leak out.
 */
#include "throttle-private.h"

#include <inttypes.h>
#include <math.h>

#include "core/error.h"
#include "core/util.h"

/* Less than this is an error of rounding. */
#define LEVEL_EPSILON 1e-6

#define NS_PER_S ((double)BF_NS_PER_SEC)

void
bf_throttle_config_init(BfThrottleConfig *config)
{
    *config = (BfThrottleConfig){0};
    for (unsigned i = 0; i < BF_THROTTLE_BUCKETS; i++) {
        config->limits[i].length = 1;
    }
}

static bool
has_total_and_parts(const BfThrottleLimit *total)
{
    const BfThrottleLimit *read = total + 1;
    const BfThrottleLimit *write = total + 2;

    return (total->avg != 0 && (read->avg != 0 || write->avg != 0)) ||
           (total->max != 0 && (read->max != 0 || write->max != 0));
}

static bool
check_limit(const BfThrottleLimit *limit, GError **error)
{
    if (limit->avg > BF_THROTTLE_VALUE_MAX ||
        limit->max > BF_THROTTLE_VALUE_MAX) {
        bf_set_error(error,
                     "bps/iops/max values must be within [0, %" PRIu64 "]",
                     BF_THROTTLE_VALUE_MAX);
        return false;
    }
    if (limit->length == 0) {
        bf_set_error(error, "the burst length cannot be 0");
        return false;
    }
    if (limit->length > 1 && limit->max == 0) {
        bf_set_error(error, "burst length set without burst rate");
        return false;
    }
    if (limit->max != 0 && limit->length > BF_THROTTLE_VALUE_MAX / limit->max) {
        bf_set_error(error, "burst length too high for this burst rate");
        return false;
    }
    if (limit->max != 0 && limit->avg == 0) {
        bf_set_error(error, "bps_max/iops_max require corresponding bps/iops "
                            "values");
        return false;
    }
    if (limit->max != 0 && limit->max < limit->avg) {
        bf_set_error(error, "bps_max/iops_max cannot be lower than bps/iops");
        return false;
    }
    return true;
}

bool
bf_throttle_config_check(const BfThrottleConfig *config, GError **error)
{
    const BfThrottleLimit *bps = &config->limits[BF_THROTTLE_BUCKET_BPS_TOTAL];
    const BfThrottleLimit *iops =
        &config->limits[BF_THROTTLE_BUCKET_IOPS_TOTAL];

    if (has_total_and_parts(bps) || has_total_and_parts(iops)) {
        bf_set_error(error, "bps/iops/max total values and read/write values "
                            "cannot be used at the same time");
        return false;
    }
    if (config->iops_size != 0 && iops[0].avg == 0 && iops[1].avg == 0 &&
        iops[2].avg == 0) {
        bf_set_error(error, "iops size requires an iops value to be set");
        return false;
    }
    for (unsigned i = 0; i < BF_THROTTLE_BUCKETS; i++) {
        if (!check_limit(&config->limits[i], error)) {
            return false;
        }
    }
    return true;
}

ThrottleAmount
bf_throttle_cost(uint64_t iops_size, uint64_t bytes)
{
    return (ThrottleAmount){
        .bytes = (double)bytes,
        .ops = iops_size != 0 && bytes > iops_size
                   ? (double)bytes / (double)iops_size
                   : 1,
    };
}

void
bf_throttle_leak(ThrottleBuckets *buckets, const BfThrottleConfig *config,
                 uint64_t ns)
{
    for (unsigned i = 0; i < BF_THROTTLE_BUCKETS; i++) {
        const BfThrottleLimit *limit = &config->limits[i];
        ThrottleBucket *b = &buckets->items[i];
        double seconds = (double)ns / NS_PER_S;

        b->level = MAX(b->level - (double)limit->avg * seconds, 0);
        b->burst_level = MAX(b->burst_level - (double)limit->max * seconds, 0);
    }
}

/* How much more fits, below 0 if it is over-full; and at which rate it goes. */
static double
bucket_room(const ThrottleBucket *b, const BfThrottleLimit *limit,
            double *ret_rate)
{
    double size = limit->max != 0 ? (double)limit->max * (double)limit->length
                                  : (double)limit->avg / 10;
    double room = size - b->level;

    *ret_rate = (double)limit->avg;
    if (limit->length > 1 && room >= -LEVEL_EPSILON) {
        double burst_room = (double)limit->max / 10 - b->burst_level;

        if (burst_room < room) {
            *ret_rate = (double)limit->max;
            return burst_room;
        }
    }
    return room;
}

/* Is bucket @i for requests of this direction? The order is total, read,
 * write. */
static bool
concerns(const BfThrottleConfig *config, unsigned i, bool is_write)
{
    return config->limits[i].avg != 0 &&
           (i % 3 == 0 || (i % 3 == 2) == is_write);
}

static bool
counts_bytes(unsigned i)
{
    return i < BF_THROTTLE_BUCKET_IOPS_TOTAL;
}

uint64_t
bf_throttle_wait_ns(const ThrottleBuckets *buckets,
                    const BfThrottleConfig *config, bool is_write)
{
    double wait = 0;

    for (unsigned i = 0; i < BF_THROTTLE_BUCKETS; i++) {
        double rate;
        double room;

        if (!concerns(config, i, is_write)) {
            continue;
        }
        room = bucket_room(&buckets->items[i], &config->limits[i], &rate);
        if (room < -LEVEL_EPSILON) {
            wait = MAX(wait, ceil(-room * NS_PER_S / rate));
        }
    }
    /* A timer's longest delay; the look after it finds the rest. */
    return (uint64_t)MIN(wait, 3600 * NS_PER_S);
}

ThrottleAmount
bf_throttle_slice(const ThrottleBuckets *buckets,
                  const BfThrottleConfig *config, bool is_write, uint64_t ns)
{
    ThrottleAmount slice = {INFINITY, INFINITY};

    for (unsigned i = 0; i < BF_THROTTLE_BUCKETS; i++) {
        const BfThrottleLimit *limit = &config->limits[i];
        double *amount = counts_bytes(i) ? &slice.bytes : &slice.ops;
        double rate = (double)MAX(limit->avg, limit->max);
        double unused;
        double room;

        if (!concerns(config, i, is_write)) {
            continue;
        }
        room = bucket_room(&buckets->items[i], limit, &unused);
        room = MIN(room, rate * (double)ns / NS_PER_S);
        *amount = MIN(*amount, MAX(room, 0));
    }
    return slice;
}

static void
add(ThrottleBuckets *buckets, const BfThrottleConfig *config, bool is_write,
    ThrottleAmount amount, double sign)
{
    for (unsigned i = 0; i < BF_THROTTLE_BUCKETS; i++) {
        double n = sign * (counts_bytes(i) ? amount.bytes : amount.ops);
        ThrottleBucket *b = &buckets->items[i];

        if (!concerns(config, i, is_write) || isinf(n)) {
            continue;
        }
        b->level = MAX(b->level + n, 0);
        if (config->limits[i].length > 1) {
            b->burst_level = MAX(b->burst_level + n, 0);
        }
    }
}

void
bf_throttle_charge(ThrottleBuckets *buckets, const BfThrottleConfig *config,
                   bool is_write, ThrottleAmount amount)
{
    add(buckets, config, is_write, amount, 1);
}

void
bf_throttle_refund(ThrottleBuckets *buckets, const BfThrottleConfig *config,
                   bool is_write, ThrottleAmount amount)
{
    add(buckets, config, is_write, amount, -1);
}
