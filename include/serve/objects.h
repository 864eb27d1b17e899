/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * User-creatable objects (object-add) and their properties (QOM). On main;
 * _co_ functions suspend.
 */
#pragma once

#include <stdbool.h>

#include "block/throttle.h"
#include "core/loop.h"
#include "crypto/authz.h"
#include "crypto/secret.h"
#include "crypto/tls-creds.h"
#include "schema/types.h"
#include "serve/fdsets.h"

/**
 * BfObjects: all user-creatable objects of a daemon
 */
typedef struct BfObjects BfObjects;

/**
 * BfAuthzParseFn: reads the text of the file of an authz-listfile
 * @text: what the file has, without NUL
 * @path: its path, for messages
 * @error: set on failure
 *
 * Called on a thread of the pool.
 *
 * Returns: (transfer full): the rules, or NULL
 */
typedef BfAuthZListProperties *BfAuthzParseFn(const char *text,
                                              const char *path, GError **error);

/**
 * bf_objects_new:
 * @main_loop: borrowed; iothread objects become its workers
 *
 * Returns: (transfer full): no objects
 */
BfObjects *bf_objects_new(BfLoop *main_loop);

/**
 * bf_objects_co_free:
 * @objects: (nullable): all objects are freed, the newest first
 */
void bf_objects_co_free(BfObjects *objects);

/**
 * bf_objects_co_add:
 * @objects: the objects
 * @options: as from object-add
 * @error: set on failure
 *
 * Returns: false on failure; nothing is left behind
 */
bool bf_objects_co_add(BfObjects *objects, const BfObjectOptions *options,
                       GError **error);

/**
 * bf_objects_co_del:
 * @objects: the objects
 * @id: an id
 * @error: set on failure: unknown or in use
 *
 * Returns: false on failure
 */
bool bf_objects_co_del(BfObjects *objects, const char *id, GError **error);

/**
 * bf_objects_set_in_use:
 * @objects: the objects
 * @loop_user: returns (transfer full) who still runs on an iothread's loop, or
 *     NULL
 * @opaque: passed to @loop_user
 *
 * Sets the check that bf_objects_co_del() makes before it ends an iothread.
 */
void bf_objects_set_in_use(BfObjects *objects,
                           char *(*loop_user)(void *opaque, const BfLoop *loop),
                           void *opaque);

/**
 * bf_objects_set_tls_loaded:
 * @objects: the objects
 * @fn: called after TLS credentials were made or reloaded; must not suspend
 * @arg: passed to @fn
 */
void bf_objects_set_tls_loaded(BfObjects *objects, BfFn *fn, void *arg);

/**
 * bf_objects_set_fdsets:
 * @objects: the objects
 * @fdsets: (nullable): borrowed: where secrets find "/dev/fdset/N"
 */
void bf_objects_set_fdsets(BfObjects *objects, BfFdsets *fdsets);

/**
 * bf_objects_stop_waiting:
 * @objects: the objects
 *
 * Makes bf_objects_co_add() fail that waits for the file of a secret, now and
 * later. The daemon is to end.
 */
void bf_objects_stop_waiting(BfObjects *objects);

/**
 * bf_objects_list:
 * @objects: the objects
 *
 * Returns: (transfer full): the options (borrowed, BfObjectOptions) of all
 * objects, oldest first; valid until the next suspension
 */
GPtrArray *bf_objects_list(BfObjects *objects);

/**
 * bf_objects_get_options:
 * @objects: the objects
 * @id: (nullable): an id
 *
 * Returns: (transfer none) (nullable): the options of an object as they are
 * now; valid until the next suspension
 */
const BfObjectOptions *bf_objects_get_options(BfObjects *objects,
                                              const char *id);

/**
 * bf_objects_set_options:
 * @objects: the objects
 * @options: (transfer full): new options of an existing object, same type
 * @error: set on failure
 *
 * What qom-set does. Secrets refuse. TLS credentials keep what they loaded
 * until they are reloaded: only the stored text changes. Limits of a
 * throttle-group take effect at once.
 *
 * Returns: false on failure
 */
bool bf_objects_set_options(BfObjects *objects, BfObjectOptions *options,
                            GError **error);

/**
 * bf_objects_find_tls_creds:
 * @objects: the objects
 * @id: an id
 * @error: set on failure: unknown, or another kind
 *
 * Returns: (transfer none): the credentials, or NULL
 */
BfTlsCreds *bf_objects_find_tls_creds(BfObjects *objects, const char *id,
                                      GError **error);

/**
 * bf_objects_take_tls_creds:
 * @objects: the objects
 * @id: an id
 * @user: who uses them, for example "node 'n0'"
 * @error: set on failure: unknown, or another kind
 *
 * Like bf_objects_find_tls_creds(), and keeps the object from being deleted
 * until bf_objects_release_tls_creds().
 *
 * Returns: (transfer full): the credentials, or NULL
 */
BfTlsCreds *bf_objects_take_tls_creds(BfObjects *objects, const char *id,
                                      const char *user, GError **error);

/**
 * bf_objects_release_tls_creds:
 * @objects: the objects
 * @id: as given to bf_objects_take_tls_creds()
 * @user: alike
 */
void bf_objects_release_tls_creds(BfObjects *objects, const char *id,
                                  const char *user);

/**
 * bf_objects_co_reload_tls_creds:
 * @objects: the objects
 * @id: (nullable): the only object that is meant; NULL for all TLS credentials
 * @error: set on failure; tells why, for each that failed
 *
 * Reads their files again. Credentials whose files cannot be used keep what
 * they had.
 *
 * Returns: false if some failed
 */
bool bf_objects_co_reload_tls_creds(BfObjects *objects, const char *id,
                                    GError **error);

/**
 * bf_objects_query_tls_creds:
 * @objects: the objects
 * @now_s: the present time, in seconds since the epoch
 *
 * Returns: (transfer full) (element-type BfTlsCredsInfo): all TLS credentials,
 * oldest first
 */
GPtrArray *bf_objects_query_tls_creds(BfObjects *objects, int64_t now_s);

/**
 * bf_objects_find_secret:
 * @objects: the objects
 * @id: an id
 * @error: set on failure: unknown, or another kind
 *
 * Returns: (transfer none): the secret, or NULL
 */
BfSecret *bf_objects_find_secret(BfObjects *objects, const char *id,
                                 GError **error);

/**
 * bf_objects_find_throttle_group:
 * @objects: the objects
 * @id: an id
 *
 * Returns: (transfer none) (nullable): the group of a throttle-group object
 */
BfThrottleGroup *bf_objects_find_throttle_group(BfObjects *objects,
                                                const char *id);

/**
 * bf_objects_find_iothread:
 * @objects: the objects
 * @id: an id
 *
 * Returns: (transfer none) (nullable): the loop of an iothread object
 */
BfLoop *bf_objects_find_iothread(BfObjects *objects, const char *id);

/**
 * bf_objects_set_authz_parser:
 * @objects: the objects
 * @parse: reads the files of authz-listfile objects
 *
 * To be called before such an object is made.
 */
void bf_objects_set_authz_parser(BfObjects *objects, BfAuthzParseFn *parse);

/**
 * bf_objects_find_authz:
 * @objects: the objects
 * @id: an id
 * @error: set on failure: unknown, or another kind
 *
 * Returns: (transfer none): the rules of an authz-* object that are in force
 * now, or NULL
 */
BfAuthz *bf_objects_find_authz(BfObjects *objects, const char *id,
                               GError **error);

/**
 * bf_objects_authz_generation:
 * @objects: the objects
 *
 * Returns: a number that is another one whenever bf_objects_find_authz() may
 * give other rules
 */
uint64_t bf_objects_authz_generation(const BfObjects *objects);
