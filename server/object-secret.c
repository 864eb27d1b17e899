/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Objects of the kinds secret and secret_keyring.
 *
 * What may block is read on a thread of its own for each object, and a thread
 * whose storage hangs is left alone after a while.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "core/co-io.h"
#include "core/error.h"
#include "core/util.h"
#include "core/wipe.h"
#include "objects-private.h"

#define FDSET_PREFIX "/dev/fdset/"

/* A source that is being read. */
typedef struct Reading {
    BfSecretParams params; /* its texts are owned */
    int fd;                /* owned; or -1 */
    BfSecret *written;     /* a reference */
    GError *error;         /* owned */
} Reading;

static void
reading_free(void *arg)
{
    Reading *reading = arg;

    g_free((char *)reading->params.file);
    g_free((char *)reading->params.credential);
    bf_fd_cleanup(&reading->fd);
    bf_secret_unref(reading->written);
    g_clear_error(&reading->error);
    g_free(reading);
}

/* On a thread of the pool. */
static void
read_source(void *arg)
{
    Reading *reading = arg;

    reading->written = bf_secret_read(&reading->params, &reading->error);
    bf_wipe_traces();
}

static Reading *
reading_new(const BfSecretParams *params, int fd)
{
    Reading *reading = g_new0(Reading, 1);

    reading->params = *params;
    reading->params.file = g_strdup(params->file);
    reading->params.credential = g_strdup(params->credential);
    reading->fd = fd;
    reading->params.fd = fd >= 0 ? &reading->fd : NULL;
    return reading;
}

/* Why the thread was left alone, or there is none. */
static void
set_no_answer(const BfSecretParams *params, const char *id, int ret,
              GError **error)
{
    const char *name = params->file != NULL ? params->file : "the secret";

    if (ret == -ECANCELED) {
        bf_set_error(error, "Unable to read %s: the daemon is ending", name);
    } else if (ret == -ETIMEDOUT) {
        bf_set_error(error, "Unable to read %s: it did not end within %d s",
                     name, BF_SECRET_READ_MAX_MS / 1000);
    } else {
        bf_set_errno(error, -ret, "cannot start a thread to read secret '%s'",
                     id);
    }
}

/* @fd: (transfer full): to be read instead of the file, or -1 */
static BfSecret *
co_read_aside(const char *id, const BfSecretParams *params, int fd,
              BfCancel *stop, GError **error)
{
    Reading *reading = reading_new(params, fd);
    BfPoolLane *lane = bf_pool_lane_new(id, 1);
    BfSecret *written = NULL;
    int ret = bf_co_offload_cancel(lane, read_source, reading, reading_free,
                                   BF_SECRET_READ_MAX_MS * BF_NS_PER_MS, stop);

    bf_pool_lane_free(lane);
    if (ret < 0) {
        set_no_answer(params, id, ret, error);
        return NULL;
    }
    written = g_steal_pointer(&reading->written);
    if (written == NULL) {
        g_propagate_error(error, g_steal_pointer(&reading->error));
    }
    reading_free(reading);
    return written;
}

static BfSecret *
find_key(const char *id, void *opaque, GError **error)
{
    BfSecret *key = bf_objects_find_secret(opaque, id, error);

    return key != NULL ? bf_secret_ref(key) : NULL;
}

static void
read_common(BfSecretParams *params, BfQCryptoSecretFormat format,
            const char *keyid, const char *iv)
{
    params->format = format == BF_QCRYPTO_SECRET_FORMAT_BASE64
                         ? BF_SECRET_FORMAT_BASE64
                         : BF_SECRET_FORMAT_RAW;
    params->keyid = keyid;
    params->iv = iv;
}

static bool
read_params(const BfObjectOptions *options, BfSecretParams *params,
            GError **error)
{
    const BfSecretProperties *props = options->u.secret;
    const BfSecretKeyringProperties *keyring = options->u.secret_keyring;

    if (options->qom_type == BF_OBJECT_TYPE_SECRET) {
        params->data = props->data;
        params->file = props->file;
        params->credential = props->credential;
        read_common(params, props->format, props->keyid, props->iv);
        return true;
    }
    params->serial = keyring->serial;
    read_common(params, keyring->format, keyring->keyid, keyring->iv);
    if (keyring->serial == 0) {
        bf_set_error(error, "'serial' parameter must be provided: 0 is not the "
                            "serial number of a key");
    }
    return keyring->serial != 0;
}

/* A descriptor that was passed in may be open for reading only, or for both. */
static bool
open_fdset(BfFdsets *fdsets, const char *path, int *ret_fd, GError **error)
{
    *ret_fd = bf_fdsets_open(fdsets, path, O_RDWR, NULL);
    if (*ret_fd < 0) {
        *ret_fd = bf_fdsets_open(fdsets, path, O_RDONLY, error);
    }
    return *ret_fd >= 0;
}

BfSecret *
bf_secret_properties_co_load(const BfObjectOptions *options,
                             const BfSecretContext *context, GError **error)
{
    g_autoptr(BfSecret) written = NULL;
    BfSecretParams params = {0};
    int fd = -1;

    if (!read_params(options, &params, error)) {
        return NULL;
    }
    if (params.data == NULL && params.file != NULL && context->fdsets != NULL &&
        g_str_has_prefix(params.file, FDSET_PREFIX) &&
        !open_fdset(context->fdsets, params.file, &fd, error)) {
        return NULL;
    }
    /* Data does not block. */
    written = params.data != NULL ? bf_secret_read(&params, error)
                                  : co_read_aside(options->id, &params, fd,
                                                  context->stop, error);
    return written != NULL ? bf_secret_decode(written, &params, find_key,
                                              context->objects, error)
                           : NULL;
}

bool
bf_secret_properties_change(const BfObjectOptions *options, GError **error)
{
    bf_set_error(error,
                 "the properties of secret '%s' cannot be changed; use "
                 "object-del, then object-add",
                 options->id);
    return false;
}

void
bf_secret_properties_wipe(BfObjectOptions *options)
{
    /* With keyid the data is encrypted, and may be saved. */
    if (options->qom_type == BF_OBJECT_TYPE_SECRET &&
        options->u.secret->data != NULL && options->u.secret->keyid == NULL) {
        bf_wipe_text_free(options->u.secret->data);
        options->u.secret->data = NULL;
    }
}
