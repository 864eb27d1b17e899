/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kinds of objects that have a source of their own give to objects.c.
 */
#pragma once

#include "block/throttle.h"
#include "core/co-io.h"
#include "core/co-lock.h"
#include "core/loop.h"
#include "crypto/authz.h"
#include "crypto/tls-creds.h"
#include "schema/types.h"
#include "serve/fdsets.h"
#include "serve/objects.h"

/*
 * Runs @fn on a thread of its own, named after the object @id: each object may
 * read files, and storage that does not answer for one must not hold up the
 * others.
 */
void bf_object_co_run_aside(const char *id, BfFn *fn, void *arg);

/* Whether the options are those of a kind of TLS credentials. */
bool bf_object_is_tls_creds(const BfObjectOptions *options);

/* Options of TLS credentials as parameters; borrowed from them. */
void bf_tls_params_from_options(const BfObjectOptions *options,
                                BfTlsCredsParams *ret_params);

/* Whether qom-set may go from @old to @options. */
bool bf_tls_creds_check_change(const BfObjectOptions *old,
                               const BfObjectOptions *options, GError **error);

/*
 * Reads the files that @options name, and logs warnings about them. @password
 * is the one of the key: replaced by that of the secret, if it is still there.
 */
BfTlsCreds *bf_tls_object_co_load(BfObjects *objects,
                                  const BfObjectOptions *options,
                                  BfSecret **password, GError **error);

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

/* What reading a secret needs; all is borrowed. */
typedef struct BfSecretContext {
    BfObjects *objects; /* where the key of an encrypted one is */
    BfFdsets *fdsets;   /* or NULL */
    BfCancel *stop;     /* ends the wait for a file */
} BfSecretContext;

/* The secret that the properties of a secret or secret_keyring describe, or
 * NULL (transfer full). */
BfSecret *bf_secret_properties_co_load(const BfObjectOptions *options,
                                       const BfSecretContext *context,
                                       GError **error);

/* Refuses: a secret stays what it was. */
bool bf_secret_properties_change(const BfObjectOptions *options,
                                 GError **error);

/* Forgets what was given in clear. */
void bf_secret_properties_wipe(BfObjectOptions *options);
