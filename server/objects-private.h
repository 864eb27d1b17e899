/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kinds of objects that have a source of their own give to objects.c.
 */
#pragma once

#include "block/throttle.h"
#include "core/co-lock.h"
#include "crypto/authz.h"
#include "schema/types.h"
#include "serve/objects.h"

/* Reads the limits that @props gives into @config, and checks all. */
bool bf_throttle_properties_read(BfThrottleGroupProperties *props,
                                 BfThrottleConfig *config, GError **error);

/* Makes both spellings of all limits show @config. */
void bf_throttle_properties_write(BfThrottleGroupProperties *props,
                                  const BfThrottleConfig *config);

/* Gives @group the limits of new @props, which then show all in effect. */
bool bf_throttle_properties_change(BfThrottleGroupProperties *props,
                                   BfThrottleGroup *group, GError **error);

/* What all authz-* objects share. */
typedef struct BfAuthzContext {
    BfAuthzParseFn *parse;         /* (nullable) of the file of a list */
    void (*changed)(void *opaque); /* the rules of some object are others */
    void *opaque;
    BfWaitGroup watchers; /* coroutines that watch files */
} BfAuthzContext;

/* What an authz-* object has: the rules in force, and what follows a file. */
typedef struct BfAuthzSource BfAuthzSource;

/* Makes the rules of a new object, and completes @options. Suspends if there is
 * a file to read. NULL on failure. */
BfAuthzSource *bf_authz_source_co_new(BfAuthzContext *context,
                                      BfObjectOptions *options, GError **error);

/* Frees it; does not wait for the coroutine that watches its file. */
void bf_authz_source_free(BfAuthzSource *source);

/* Replaces the rules by those of @options, which are completed. */
bool bf_authz_source_change(BfAuthzSource *source, const BfObjectOptions *old,
                            BfObjectOptions *options, GError **error);

/* The rules in force (transfer none). */
BfAuthz *bf_authz_source_get(const BfAuthzSource *source);
