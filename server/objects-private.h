/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kinds of objects that have a source of their own give to objects.c.
 */
#pragma once

#include "block/throttle.h"
#include "schema/types.h"

/* Reads the limits that @props gives into @config, and checks all. */
bool bf_throttle_properties_read(BfThrottleGroupProperties *props,
                                 BfThrottleConfig *config, GError **error);

/* Makes both spellings of all limits show @config. */
void bf_throttle_properties_write(BfThrottleGroupProperties *props,
                                  const BfThrottleConfig *config);

/* Gives @group the limits of new @props, which then show all in effect. */
bool bf_throttle_properties_change(BfThrottleGroupProperties *props,
                                   BfThrottleGroup *group, GError **error);
