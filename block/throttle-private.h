/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The arithmetic of throttling: leaky buckets, without clocks, loops and
 * waiting.
 */
#pragma once

#include "block/throttle.h"

/* One bucket; all zero is empty. Levels are bytes or requests. */
typedef struct ThrottleBucket {
    double level;
    double burst_level; /* only where bursts are longer than a second */
} ThrottleBucket;

typedef struct ThrottleBuckets {
    ThrottleBucket items[BF_THROTTLE_BUCKETS];
} ThrottleBuckets;

/* What one request, or a lease for several, takes; INFINITY: no limit. */
typedef struct ThrottleAmount {
    double bytes;
    double ops;
} ThrottleAmount;

/* What a request of @bytes takes. */
ThrottleAmount bf_throttle_cost(uint64_t iops_size, uint64_t bytes);

/* @ns have passed. */
void bf_throttle_leak(ThrottleBuckets *buckets, const BfThrottleConfig *config,
                      uint64_t ns);

/* How long the next request has to wait, nanoseconds; 0: not at all. */
uint64_t bf_throttle_wait_ns(const ThrottleBuckets *buckets,
                             const BfThrottleConfig *config, bool is_write);

/* What can be leased for @ns while nobody has to wait; may be nothing. */
ThrottleAmount bf_throttle_slice(const ThrottleBuckets *buckets,
                                 const BfThrottleConfig *config, bool is_write,
                                 uint64_t ns);

/* Takes @amount; what is infinite is not limited, and so not counted. */
void bf_throttle_charge(ThrottleBuckets *buckets,
                        const BfThrottleConfig *config, bool is_write,
                        ThrottleAmount amount);

/* Gives back what was taken and not used. */
void bf_throttle_refund(ThrottleBuckets *buckets,
                        const BfThrottleConfig *config, bool is_write,
                        ThrottleAmount amount);
