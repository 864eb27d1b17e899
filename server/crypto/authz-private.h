/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What authz.c asks of authz-pam.c, which is built in two ways: with libpam, or
 * as a refusal.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

/* Whether this build can ask PAM; sets @error if it cannot. */
bool bf_authz_pam_is_available(GError **error);

/* Asks whether the account @user may use @service. Blocks. */
bool bf_authz_pam_check(const char *service, const char *conf_dir,
                        const char *user, GError **error);
