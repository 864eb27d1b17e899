/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copy before write: a filter that has old data saved before a change reaches
 * the node below. With options of its own it copies to a target; a job puts it
 * in without options and does the copying.
 */
#pragma once

#include "block/node.h"

/**
 * BfCbwBeforeChange: what a job does before a change
 * @opaque: as given to bf_cbw_set_hook()
 * @offset: bytes
 * @bytes: length, at least 1
 *
 * Runs on the home loop of the filter, as many at once as there are changes,
 * and may suspend. Changes of ranges that overlap may be under way; when it
 * returns, what the range held at the point in time of the job must be saved.
 *
 * Returns: 0, or -errno, with which the change fails and is not made
 */
typedef int BfCbwBeforeChange(void *opaque, uint64_t offset, uint64_t bytes);

/**
 * bf_cbw_set_hook:
 * @filter: a node of the driver copy-before-write without options, drained
 * @co_before_change: (nullable): is called before every write, write of zeroes
 *     and discard; NULL lets all changes pass, as it is at first
 * @opaque: passed to @co_before_change
 *
 * On main.
 */
void bf_cbw_set_hook(BfNode *filter, BfCbwBeforeChange *co_before_change,
                     void *opaque);
