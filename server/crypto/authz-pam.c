/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Account management by PAM: may this user use this service now? Who the user
 * is was proved by TLS, so nothing is authenticated here, and modules that want
 * to talk to the user get an error.
 */
#include "authz-private.h"

#include "core/error.h"

#if BF_HAVE_PAM

#include <security/pam_appl.h>

bool
bf_authz_pam_is_available(GError **error)
{
    return true;
}

static int
refuse_to_talk(int n_messages, const struct pam_message **messages,
               struct pam_response **ret_responses, void *opaque)
{
    return PAM_CONV_ERR;
}

bool
bf_authz_pam_check(const char *service, const char *conf_dir, const char *user,
                   GError **error)
{
    static const struct pam_conv conversation = {.conv = refuse_to_talk};
    pam_handle_t *handle = NULL;
    int ret =
        pam_start_confdir(service, user, &conversation, conf_dir, &handle);

    if (ret != PAM_SUCCESS) {
        bf_set_error(error,
                     "Unable to start PAM transaction: %s; look at the file of "
                     "the service '%s' in %s",
                     pam_strerror(handle, ret), service,
                     conf_dir != NULL ? conf_dir : "/etc/pam.d");
        return false;
    }
    ret = pam_acct_mgmt(handle, PAM_SILENT);
    if (ret != PAM_SUCCESS) {
        bf_set_error(error,
                     "Unable to authorize user '%s': %s (account management of "
                     "the PAM service '%s'); to let it in, change that service",
                     user, pam_strerror(handle, ret), service);
    }
    pam_end(handle, ret);
    return ret == PAM_SUCCESS;
}

#else

bool
bf_authz_pam_is_available(GError **error)
{
    bf_set_error(error, "authz-pam is not available in this build, which was "
                        "made without libpam; use authz-list or "
                        "authz-listfile, or build with the headers of libpam");
    return false;
}

bool
bf_authz_pam_check(const char *service, const char *conf_dir, const char *user,
                   GError **error)
{
    bf_authz_pam_is_available(error);
    return false;
}

#endif
