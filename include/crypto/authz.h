/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Authorization: whether a name that a peer has proved may do something.
 *
 * A BfAuthz never changes, so any thread may ask it, and who holds a reference
 * may go on asking after its object was changed or deleted. New rules are a new
 * BfAuthz. Only bf_authz_co_ask() suspends, but bf_authz_check() may block for
 * as long as the account management of the system takes, which may be for ever:
 * see bf_authz_may_block().
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

#include "core/co-io.h"
#include "schema/types.h"

/**
 * BfAuthz: rules about names, counted references
 */
typedef struct BfAuthz BfAuthz;

/**
 * bf_authz_new_simple:
 * @identity: the one name that is allowed; copied
 *
 * Returns: (transfer full): the rules
 */
BfAuthz *bf_authz_new_simple(const char *identity);

/**
 * bf_authz_new_list:
 * @props: the rules in their order, and the policy for names that fit none;
 *   copied
 *
 * Returns: (transfer full): the rules
 */
BfAuthz *bf_authz_new_list(const BfAuthZListProperties *props);

/**
 * bf_authz_new_denying:
 * @why: the reason, and what to do about it; copied
 *
 * Returns: (transfer full): rules that deny everybody
 */
BfAuthz *bf_authz_new_denying(const char *why);

/**
 * bf_authz_new_pam:
 * @service: name of the service, not empty; copied
 * @conf_dir: (nullable): directory with the files of services, NULL for the
 *   system's; copied
 * @error: set on failure: this build has no PAM, or the service has no name
 *
 * Returns: (transfer full): rules that ask the account management of PAM, or
 * NULL
 */
BfAuthz *bf_authz_new_pam(const char *service, const char *conf_dir,
                          GError **error);

/**
 * bf_authz_ref:
 * @authz: rules
 *
 * Returns: (transfer full): @authz, with one more reference
 */
BfAuthz *bf_authz_ref(BfAuthz *authz);

/**
 * bf_authz_unref:
 * @authz: (nullable) (transfer full): rules
 */
void bf_authz_unref(BfAuthz *authz);

/**
 * bf_authz_may_block:
 * @authz: rules
 *
 * Returns: whether bf_authz_check() may wait for other programs or hosts
 */
bool bf_authz_may_block(const BfAuthz *authz);

/**
 * bf_authz_check:
 * @authz: rules
 * @identity: the name that the peer has proved
 * @error: set if it is denied: which rule says so, and what would change it
 *
 * Returns: whether @identity is allowed
 */
bool bf_authz_check(const BfAuthz *authz, const char *identity, GError **error);

/**
 * bf_authz_co_ask:
 * @authz: rules
 * @identity: the name that the peer has proved
 * @lane: its threads ask; they are left alone with questions that hang
 * @timeout_ns: how long to wait, or %BF_FOREVER
 * @cancel: (nullable): ends the wait
 * @error: set if it is denied, also because there is no answer
 *
 * Does what bf_authz_check() does, on a thread of the pool and within a limit.
 *
 * Returns: whether @identity is allowed
 */
bool bf_authz_co_ask(BfAuthz *authz, const char *identity, BfPoolLane *lane,
                     uint64_t timeout_ns, BfCancel *cancel, GError **error);

/**
 * bf_authz_glob_match:
 * @pattern: '*' stands for any text, none included, '?' for one character
 * @text: what has to fit as a whole
 *
 * Takes time proportional to the product of the lengths at most.
 *
 * Returns: whether @text fits @pattern
 */
bool bf_authz_glob_match(const char *pattern, const char *text);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfAuthz, bf_authz_unref)
