/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Throttling: limits of bytes and requests in a second that a group of users
 * shares.
 *
 * Each limit is a leaky bucket: requests fill it, time empties it, and while it
 * is over-full the next request waits. A group belongs to main. A user has a
 * member, which belongs to one loop and leases tokens for 10 ms from its group,
 * so that most requests wait for nobody; asks are answered in their order, so
 * members get equal shares. Functions on a group, and those that make, move,
 * hurry and free a member, run on main; the one that waits runs on the member's
 * loop. _co_ functions suspend.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/loop.h"

/* Largest rate, and largest burst (rate by length). */
#define BF_THROTTLE_VALUE_MAX UINT64_C(1000000000000000)

/**
 * BfThrottleBucket: what is limited
 */
typedef enum BfThrottleBucket {
    BF_THROTTLE_BUCKET_BPS_TOTAL,
    BF_THROTTLE_BUCKET_BPS_READ,
    BF_THROTTLE_BUCKET_BPS_WRITE,
    BF_THROTTLE_BUCKET_IOPS_TOTAL,
    BF_THROTTLE_BUCKET_IOPS_READ,
    BF_THROTTLE_BUCKET_IOPS_WRITE,
} BfThrottleBucket;

/* How many buckets there are. */
#define BF_THROTTLE_BUCKETS 6

/**
 * BfThrottleLimit: one limit
 * @avg: bytes or requests in a second; 0 has no limit
 * @max: the same during a burst; 0 has no bursts
 * @length: longest burst at that rate in seconds, at least 1
 */
typedef struct BfThrottleLimit {
    uint64_t avg;
    uint64_t max;
    uint64_t length;
} BfThrottleLimit;

/**
 * BfThrottleConfig: the limits of a group
 * @limits: indexed by BfThrottleBucket
 * @iops_size: bytes that count as one request; larger ones count as several. 0
 *     counts each as one
 */
typedef struct BfThrottleConfig {
    BfThrottleLimit limits[BF_THROTTLE_BUCKETS];
    uint64_t iops_size;
} BfThrottleConfig;

/**
 * BfThrottleGroup: limits and who shares them
 */
typedef struct BfThrottleGroup BfThrottleGroup;

/**
 * BfThrottleMember: one user of a group, on one loop
 */
typedef struct BfThrottleMember BfThrottleMember;

/**
 * bf_throttle_config_init:
 * @config: (out): no limits
 */
void bf_throttle_config_init(BfThrottleConfig *config);

/**
 * bf_throttle_config_check:
 * @config: limits from a user
 * @error: set on failure: which rule they break
 *
 * Returns: false on failure
 */
bool bf_throttle_config_check(const BfThrottleConfig *config, GError **error);

/**
 * bf_throttle_group_new:
 * @config: checked; copied
 *
 * Returns: (transfer full): a group without members
 */
BfThrottleGroup *bf_throttle_group_new(const BfThrottleConfig *config);

/**
 * bf_throttle_group_free:
 * @group: (nullable): without members
 */
void bf_throttle_group_free(BfThrottleGroup *group);

/**
 * bf_throttle_group_set_config:
 * @group: a group
 * @config: checked; copied
 *
 * Takes effect at once, also for requests that wait; what was used so far is
 * forgotten.
 */
void bf_throttle_group_set_config(BfThrottleGroup *group,
                                  const BfThrottleConfig *config);

/**
 * bf_throttle_group_get_config:
 * @group: a group
 *
 * Returns: (transfer none): its limits
 */
const BfThrottleConfig *
bf_throttle_group_get_config(const BfThrottleGroup *group);

/**
 * bf_throttle_group_user:
 * @group: a group
 *
 * Returns: (transfer none) (nullable): what its oldest member calls itself, or
 * NULL if it has none
 */
const char *bf_throttle_group_user(const BfThrottleGroup *group);

/**
 * bf_throttle_member_new:
 * @group: a group
 * @user: what the user calls itself, for example "node 't0'"; copied
 * @loop: where it waits
 *
 * Returns: (transfer full): a new member
 */
BfThrottleMember *bf_throttle_member_new(BfThrottleGroup *group,
                                         const char *user, BfLoop *loop);

/**
 * bf_throttle_member_new_beside:
 * @member: a member
 * @loop: where the new one waits
 *
 * Returns: (transfer full): a new member of the same group, for the same user
 */
BfThrottleMember *bf_throttle_member_new_beside(const BfThrottleMember *member,
                                                BfLoop *loop);

/**
 * bf_throttle_member_co_free:
 * @member: (nullable): nobody waits in it
 */
void bf_throttle_member_co_free(BfThrottleMember *member);

/**
 * bf_throttle_member_co_move:
 * @member: nobody waits in it
 * @loop: where it waits from now on
 */
void bf_throttle_member_co_move(BfThrottleMember *member, BfLoop *loop);

/**
 * bf_throttle_member_hurry:
 * @member: a member
 * @begin: begin, or end; calls may be nested
 *
 * While in a hurry nobody waits: who waits already goes on at once, to let the
 * user come to rest. What passes is counted and paid later.
 */
void bf_throttle_member_hurry(BfThrottleMember *member, bool begin);

/**
 * bf_throttle_member_hurry_here:
 * @member: on its loop
 * @begin: begin, or end
 *
 * bf_throttle_member_hurry() for the member's own loop.
 */
void bf_throttle_member_hurry_here(BfThrottleMember *member, bool begin);

/**
 * bf_throttle_member_cancel_here:
 * @member: on its loop
 *
 * Ends the waits of those who wait at the moment: what they wait for is not
 * counted, and must not be done.
 */
void bf_throttle_member_cancel_here(BfThrottleMember *member);

/**
 * bf_throttle_member_charge:
 * @member: on its loop
 * @is_write: a change, not a read
 * @bytes: length of the request
 *
 * Counts a request that must not wait; those that follow pay for it.
 */
void bf_throttle_member_charge(BfThrottleMember *member, bool is_write,
                               uint64_t bytes);

/**
 * bf_throttle_member_co_wait:
 * @member: on its loop
 * @is_write: a change, not a read
 * @bytes: length of the request
 *
 * Suspends until the request may begin. Reads wait for older reads, and changes
 * for older changes.
 *
 * Returns: true; false if bf_throttle_member_cancel_here() was called meanwhile
 */
bool bf_throttle_member_co_wait(BfThrottleMember *member, bool is_write,
                                uint64_t bytes);
