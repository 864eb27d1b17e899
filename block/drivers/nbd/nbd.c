/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nbd: an export of an NBD server, reached by our own client. This file is the
 * driver's face to the block layer: options, limits, and one function for each
 * kind of request, which goes to the loop of the connections.
 */
#include <inttypes.h>

#include "block/request.h"
#include "core/error.h"
#include "core/util.h"
#include "io/address.h"
#include "nbd-private.h"

#define DEFAULT_CONTEXT "base:allocation"

/* Options. */

static bool
check_text(const char *name, const char *text, GError **error)
{
    if (text != NULL && strlen(text) > BF_NBD_STRING_MAX) {
        bf_set_error(error, "'%s' has %zu bytes; at most %d are possible", name,
                     strlen(text), BF_NBD_STRING_MAX);
        return false;
    }
    return true;
}

static bool
check_options(const BfBlockdevOptionsNbd *opts, GError **error)
{
    if (!check_text("export", opts->export, error) ||
        !check_text("x-dirty-bitmap", opts->x_dirty_bitmap, error)) {
        return false;
    }
    if (opts->has_connections &&
        (opts->connections < 1 || opts->connections > NBDC_CONNS_MAX)) {
        bf_set_error(error, "connections is %u, but must be 1 to %d",
                     opts->connections, NBDC_CONNS_MAX);
        return false;
    }
    if (opts->tls_hostname != NULL && opts->tls_creds == NULL) {
        bf_set_error(error, "tls-hostname requires tls-creds");
        return false;
    }
    return true;
}

static const char *
find_hostname(const BfBlockdevOptionsNbd *opts)
{
    if (opts->tls_hostname != NULL) {
        return opts->tls_hostname;
    }
    return opts->server->type == BF_SOCKET_ADDRESS_TYPE_INET
               ? opts->server->u.inet->host
               : NULL;
}

static bool
take_creds(BfNbdcNode *self, const char *id, GError **error)
{
    if (id == NULL) {
        return true;
    }
    self->target.creds = bf_node_take_tls_creds(&self->base, id, error);
    if (self->target.creds == NULL) {
        return false;
    }
    self->target.creds_id = g_strdup(id);
    return true;
}

static bool
take_options(BfNbdcNode *self, const BfBlockdevOptionsNbd *opts, GError **error)
{
    BfNbdcTarget *target = &self->target;

    if (!check_options(opts, error)) {
        return false;
    }
    target->address = bf_socket_address_copy(opts->server);
    target->server = bf_address_to_string(opts->server);
    target->name = g_strdup(opts->export != NULL ? opts->export : "");
    target->context_required = opts->x_dirty_bitmap != NULL;
    target->context = g_strdup(target->context_required ? opts->x_dirty_bitmap
                                                        : DEFAULT_CONTEXT);
    target->hostname = g_strdup(find_hostname(opts));
    self->reconnect_delay_ns = opts->reconnect_delay * BF_NS_PER_SEC;
    self->silence_ns = opts->silence_timeout * BF_NS_PER_SEC;
    self->open_timeout_ns = opts->open_timeout * BF_NS_PER_SEC;
    self->wanted_conns =
        opts->has_connections ? opts->connections : NBDC_CONNS_DEFAULT;
    return take_creds(self, opts->tls_creds, error);
}

/* The server's word on writing, in settings that are to be. */
static bool
apply_read_only(const BfNbdcNode *self, BfNodeSettings *settings,
                GError **error)
{
    if ((bf_atomic_load(&self->abilities) & BF_NBD_EXPORT_READ_ONLY) == 0 ||
        settings->read_only) {
        return true;
    }
    if (settings->auto_read_only) {
        settings->read_only = settings->fell_back = true;
        return true;
    }
    bf_set_error(error,
                 "NBD server '%s': the export '%s' is read-only; add "
                 "read-only=on or auto-read-only=on",
                 self->target.server, self->target.name);
    return false;
}

/* Open and close. */

typedef struct LinkCall {
    BfNbdcNode *self;
    GError **error;
    bool ok;
} LinkCall;

static void
open_co_run(void *arg)
{
    LinkCall *call = arg;

    call->ok = bf_nbdc_co_open_link(call->self, call->error);
}

static void
close_co_run(void *arg)
{
    LinkCall *call = arg;

    bf_nbdc_co_close_link(call->self);
}

static void
note_fua(BfNode *node)
{
    uint64_t abilities = bf_atomic_load(&((BfNbdcNode *)node)->abilities);

    node->limits.no_fua = (abilities & BF_NBD_EXPORT_FUA) == 0 &&
                          (abilities & BF_NBD_EXPORT_FLUSH) != 0;
}

static bool
nbd_co_open(BfNode *node, const BfBlockdevOptions *options, BfOpenContext *ctx,
            GError **error)
{
    BfNbdcNode *self = (BfNbdcNode *)node;
    LinkCall call = {.self = self, .error = error};

    if (!take_options(self, options->u.nbd, error)) {
        return false;
    }
    if (bf_node_is_stopping(node)) {
        bf_set_error(error, "the daemon is ending");
        return false;
    }
    self->loop = node->home;
    bf_co_call(self->loop, open_co_run, &call);
    if (!call.ok || !apply_read_only(self, &node->settings, error)) {
        return false;
    }
    bf_atomic_store(&self->read_only, node->settings.read_only);
    note_fua(node);
    return true;
}

static void
nbd_co_close(BfNode *node)
{
    BfNbdcNode *self = (BfNbdcNode *)node;
    BfNbdcTarget *target = &self->target;

    self->main_closing = true;
    if (self->loop != NULL) {
        LinkCall call = {.self = self};

        bf_co_call(self->loop, close_co_run, &call);
    }
    if (target->creds_id != NULL) {
        bf_node_release_tls_creds(node, target->creds_id);
    }
    bf_tls_creds_unref(target->creds);
    bf_socket_address_free(target->address);
    g_free(target->creds_id);
    g_free(target->server);
    g_free(target->name);
    g_free(target->context);
    g_free(target->hostname);
}

/* Main tells the loop; the close that may follow comes behind it. */

static void
stop_on_loop(void *arg)
{
    bf_nbdc_stop(arg);
}

static void
nbd_stop_waiting(BfNode *node)
{
    BfNbdcNode *self = (BfNbdcNode *)node;

    if (self->loop != NULL && !self->main_closing) {
        bf_loop_post(self->loop, stop_on_loop, self);
    }
}

static void
cancel_on_loop(void *arg)
{
    bf_nbdc_cancel_requests(arg);
}

static void
nbd_cancel_requests(BfNode *node)
{
    BfNbdcNode *self = (BfNbdcNode *)node;

    if (self->loop != NULL && !self->main_closing) {
        bf_loop_post(self->loop, cancel_on_loop, self);
    }
}

static bool
nbd_co_reopen_prepare(BfNode *node, const BfBlockdevOptions *options,
                      const BfNode *file, GError **error)
{
    BfNbdcNode *self = (BfNbdcNode *)node;
    g_autofree char *server = bf_address_to_string(options->u.nbd->server);

    if (!g_str_equal(server, self->target.server)) {
        bf_set_error(error, "Cannot change the option 'server'");
        return false;
    }
    return apply_read_only(self, node->settings_plan, error);
}

static void
writable_on_loop(void *arg)
{
    bf_nbdc_is_writable_now(arg);
}

static void
nbd_reopen_commit(BfNode *node)
{
    BfNbdcNode *self = (BfNbdcNode *)node;
    bool was_read_only = bf_atomic_load(&self->read_only) != 0;

    bf_atomic_store(&self->read_only, node->settings.read_only);
    note_fua(node);
    if (was_read_only && !node->settings.read_only) {
        bf_loop_post(self->loop, writable_on_loop, self);
    }
}

/* Requests. */

typedef struct RequestCall {
    BfNbdcNode *self;
    BfNbdcRequest *req;
    int ret;
} RequestCall;

static void
request_co_run(void *arg)
{
    RequestCall *call = arg;

    call->ret = bf_nbdc_co_request(call->self, call->req);
}

/* From any loop. */
static int
co_request(BfNode *node, BfNbdcRequest *req)
{
    BfNbdcNode *self = (BfNbdcNode *)node;
    RequestCall call = {.self = self, .req = req};

    if (G_LIKELY(bf_loop_self() == self->loop)) {
        return bf_nbdc_co_request(self, req);
    }
    bf_co_call(self->loop, request_co_run, &call);
    return call.ret;
}

static void
flush_co_run(void *arg)
{
    RequestCall *call = arg;

    call->ret = bf_nbdc_co_flush_all(call->self);
}

static bool
can_do(const BfNode *node, BfNbdExportFlags flag)
{
    const BfNbdcNode *self = (const BfNbdcNode *)node;

    return (bf_atomic_load(&self->abilities) & flag) != 0;
}

static int
nbd_co_flush(BfNode *node)
{
    BfNbdcNode *self = (BfNbdcNode *)node;
    RequestCall call = {.self = self};

    if (!can_do(node, BF_NBD_EXPORT_FLUSH)) {
        return 0; /* the server promises that there is no need */
    }
    if (bf_loop_self() == self->loop) {
        return bf_nbdc_co_flush_all(self);
    }
    bf_co_call(self->loop, flush_co_run, &call);
    return call.ret;
}

/* A server may forget the rest when it is started anew; without this command
 * nobody can tell it what to keep. */
static bool
nbd_flush_saves(const BfNode *node)
{
    return can_do(node, BF_NBD_EXPORT_FLUSH);
}

/* How much of a range the server has: sizes of nodes are rounded up. */
static uint64_t
clip_to_export(const BfNode *node, uint64_t offset, uint64_t bytes)
{
    uint64_t size = ((const BfNbdcNode *)node)->first.info.size;

    return offset >= size ? 0 : MIN(bytes, size - offset);
}

static int
nbd_co_read(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    size_t bytes = clip_to_export(node, offset, vec->bytes);
    BfNbdcRequest req = {
        .command = BF_NBD_COMMAND_READ,
        .offset = offset,
        .length = bytes,
        .vec = vec,
    };

    if (G_UNLIKELY(bytes < vec->bytes)) {
        bf_iovec_fill(vec, bytes, vec->bytes - bytes, 0);
        if (bytes == 0) {
            return 0;
        }
    }
    return co_request(node, &req);
}

static int
co_write_clipped(BfNode *node, uint64_t offset, BfIoVec *vec, size_t bytes,
                 BfNbdRequestFlags flags)
{
    BfNbdcRequest req = {
        .command = BF_NBD_COMMAND_WRITE,
        .flags = flags,
        .offset = offset,
        .length = bytes,
        .vec = vec,
    };
    BfIoVec part;
    bool is_zero = false;
    int ret = 0;

    if (G_LIKELY(bytes == vec->bytes)) {
        return co_request(node, &req);
    }
    /* Behind the end there are zeroes only. */
    bf_iovec_init_slice(&part, vec, bytes, vec->bytes - bytes);
    is_zero = bf_iovec_is_zero(&part);
    bf_iovec_clear(&part);
    if (!is_zero) {
        return -ENOSPC;
    }
    if (bytes > 0) {
        bf_iovec_init_slice(&part, vec, 0, bytes);
        req.vec = &part;
        ret = co_request(node, &req);
        bf_iovec_clear(&part);
    }
    return ret;
}

static BfNbdRequestFlags
fua_flag(const BfNode *node, BfIoFlags flags)
{
    return (flags & BF_IO_FUA) != 0 && can_do(node, BF_NBD_EXPORT_FUA)
               ? BF_NBD_REQUEST_FUA
               : 0;
}

static int
nbd_co_write(BfNode *node, uint64_t offset, BfIoVec *vec, BfIoFlags flags)
{
    size_t bytes = clip_to_export(node, offset, vec->bytes);

    return co_write_clipped(node, offset, vec, bytes, fua_flag(node, flags));
}

static int
nbd_co_write_pipe(BfNode *node, uint64_t offset, uint64_t bytes, int pipe_fd)
{
    const BfNbdcNode *self = (const BfNbdcNode *)node;
    BfNbdcRequest req = {
        .command = BF_NBD_COMMAND_WRITE,
        .offset = offset,
        .length = (uint32_t)bytes,
        .pipe = &pipe_fd,
    };

    if (self->target.creds != NULL || bytes > UINT32_MAX ||
        clip_to_export(node, offset, bytes) != bytes) {
        return -EOPNOTSUPP;
    }
    return co_request(node, &req);
}

/* Servers may refuse what is longer than a payload can be. */
static bool
is_refused_as_long(const BfNode *node, const BfNbdcRequest *req, int ret)
{
    return (ret == -EINVAL || ret == -EOVERFLOW) &&
           req->length > node->limits.max_transfer;
}

/* A command without payload, in pieces. A connection may take less of a piece
 * than is asked for. */
static int
co_for_range(BfNode *node, BfNbdCommand command, BfNbdRequestFlags flags,
             uint64_t offset, uint64_t bytes, uint64_t piece_max)
{
    int ret = 0;

    bytes = clip_to_export(node, offset, bytes);
    while (ret == 0 && bytes > 0) {
        BfNbdcRequest req = {
            .command = command,
            .flags = flags,
            .offset = offset,
            .length = MIN(bytes, piece_max),
        };

        ret = co_request(node, &req);
        if (is_refused_as_long(node, &req, ret)) {
            piece_max = node->limits.max_transfer;
            ret = 0;
            continue;
        }
        offset += req.length;
        bytes -= req.length;
    }
    return ret;
}

/* A server that may have to write the zeroes takes its time, and would count as
 * silent meanwhile: it gets long requests only if it can say no to them. */
static int
co_zero_range(BfNode *node, BfNbdRequestFlags flags, uint64_t offset,
              uint64_t bytes)
{
    const BfNbdcNode *self = (const BfNbdcNode *)node;

    if (bytes > NBDC_PIECE_MAX && self->first.extended &&
        can_do(node, BF_NBD_EXPORT_FAST_ZERO)) {
        int ret = co_for_range(node, BF_NBD_COMMAND_WRITE_ZEROES,
                               flags | BF_NBD_REQUEST_FAST_ZERO, offset, bytes,
                               NBDC_LONG_PIECE_MAX);

        if (ret != -ENOTSUP) {
            return ret;
        }
    }
    return co_for_range(node, BF_NBD_COMMAND_WRITE_ZEROES, flags, offset, bytes,
                        NBDC_PIECE_MAX);
}

static int
nbd_co_write_zeroes(BfNode *node, uint64_t offset, uint64_t bytes,
                    BfIoFlags flags)
{
    BfNbdRequestFlags nbd_flags = fua_flag(node, flags);

    /* NBD cannot say that holes may stay: the other side's policy decides. */
    if ((flags & (BF_IO_MAY_UNMAP | BF_IO_KEEP_HOLES)) == 0) {
        nbd_flags |= BF_NBD_REQUEST_NO_HOLE;
    }
    if (!can_do(node, BF_NBD_EXPORT_WRITE_ZEROES)) {
        return -ENOTSUP;
    }
    if ((flags & BF_IO_NO_FALLBACK) == 0) {
        return co_zero_range(node, nbd_flags, offset, bytes);
    }
    if (!can_do(node, BF_NBD_EXPORT_FAST_ZERO)) {
        return -ENOTSUP;
    }
    return co_for_range(node, BF_NBD_COMMAND_WRITE_ZEROES,
                        nbd_flags | BF_NBD_REQUEST_FAST_ZERO, offset, bytes,
                        NBDC_LONG_PIECE_MAX);
}

static int
nbd_co_discard(BfNode *node, uint64_t offset, uint64_t bytes)
{
    if (!can_do(node, BF_NBD_EXPORT_TRIM)) {
        return -ENOTSUP;
    }
    return co_for_range(node, BF_NBD_COMMAND_TRIM, 0, offset, bytes,
                        NBDC_TRIM_MAX);
}

static int
nbd_co_cache(BfNode *node, uint64_t offset, uint64_t bytes)
{
    if (!can_do(node, BF_NBD_EXPORT_CACHE)) {
        return 0;
    }
    return co_for_range(node, BF_NBD_COMMAND_CACHE, 0, offset, bytes,
                        node->limits.max_transfer);
}

static int
nbd_co_extents(BfNode *node, uint64_t offset, uint64_t bytes,
               BfExtents *extents)
{
    const BfNbdcNode *self = (const BfNbdcNode *)node;
    uint64_t clipped = clip_to_export(node, offset, bytes);
    BfNbdcRequest req = {
        .command = BF_NBD_COMMAND_BLOCK_STATUS,
        .flags = extents->max - extents->len == 1 ? BF_NBD_REQUEST_REQ_ONE : 0,
        .offset = offset,
        .length = MIN(clipped, NBDC_LONG_PIECE_MAX),
        .extents = extents,
    };
    int ret = 0;

    if (!self->first.has_context) {
        bf_extents_append(extents, bytes, 0);
        return 0;
    }
    if (clipped == 0) {
        bf_extents_append(extents, bytes, BF_EXTENT_HOLE | BF_EXTENT_ZERO);
        return 0;
    }
    ret = co_request(node, &req);
    if (is_refused_as_long(node, &req, ret)) {
        bf_extents_clip(extents, req.extents_start);
        req.length = node->limits.max_transfer;
        ret = co_request(node, &req);
    }
    return ret;
}

/* Its size is the server's. As QEMU, it takes any that fits in. */
static bool
nbd_co_resize(BfNode *node, uint64_t size, GError **error)
{
    uint64_t there = ((const BfNbdcNode *)node)->first.info.size;

    if (size > there) {
        bf_set_error(error,
                     "Cannot grow NBD nodes: '%s' has the %" PRIu64
                     " bytes of its export; resize that at the server",
                     node->name, there);
        return false;
    }
    return true;
}

/* As QEMU shows it. */
static void
nbd_query(BfNode *node, BfNodeInfo *info)
{
    const BfBlockdevOptionsNbd *opts = node->options->u.nbd;
    const BfSocketAddress *server = opts->server;
    const char *slash = opts->export != NULL ? "/" : "";
    const char *name = opts->export != NULL ? opts->export : "";

    if (server->type == BF_SOCKET_ADDRESS_TYPE_UNIX) {
        info->filename = g_strdup_printf("nbd+unix://%s%s?socket=%s", slash,
                                         name, server->u.unix_->path);
    } else if (server->type == BF_SOCKET_ADDRESS_TYPE_INET) {
        g_autofree char *text = bf_address_to_string(server);

        info->filename = g_strdup_printf("nbd://%s%s%s", text, slash, name);
    }
}

const BfDriver bf_driver_nbd = {
    .name = "nbd",
    .kind = BF_BLOCKDEV_DRIVER_NBD,
    .node_size = sizeof(BfNbdcNode),
    .fixed_options = true,
    .close_flushes = true,
    .fua = true,
    .fua_zeroes = true,
    .co_open = nbd_co_open,
    .co_close = nbd_co_close,
    .co_read = nbd_co_read,
    .co_write = nbd_co_write,
    .co_flush = nbd_co_flush,
    .co_write_zeroes = nbd_co_write_zeroes,
    .co_discard = nbd_co_discard,
    .co_extents = nbd_co_extents,
    .co_cache = nbd_co_cache,
    .co_write_pipe = nbd_co_write_pipe,
    .co_resize = nbd_co_resize,
    .co_reopen_prepare = nbd_co_reopen_prepare,
    .reopen_commit = nbd_reopen_commit,
    .stop_waiting = nbd_stop_waiting,
    .cancel_requests = nbd_cancel_requests,
    .flush_saves = nbd_flush_saves,
    .query = nbd_query,
};
