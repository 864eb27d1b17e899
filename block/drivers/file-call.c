/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * file and host_device: calls that are made while the graph is being changed.
 * Nobody else can change it meanwhile, so storage that does not answer must not
 * hold such a call for ever: after a time it is left to itself. What it did is
 * dealt with when it comes back; until then the node takes no further ones and
 * cannot be closed.
 */
#include <fcntl.h>
#include <sys/stat.h>

#include "core/error.h"
#include "core/util.h"
#include "file-private.h"

/* How long storage may take to open, lock or resize a file that is open. */
#define CALL_LIMIT_NS (10 * BF_NS_PER_SEC)

static void
call_co_run(void *arg)
{
    FileCall *call = arg;
    BfFileNode *self = call->self;

    bf_node_co_offload(&self->base, call->fn, call);
    if (!call->left) {
        call->done = true;
        bf_co_queue_wake_all(&call->queue);
        return;
    }
    if (call->co_late != NULL) {
        call->co_late(call);
    }
    g_free(call);
    file_co_settle_locks(self);
    self->stuck = false;
    bf_co_queue_wake_all(&self->unstuck);
}

static void
time_is_up(void *arg)
{
    FileCall *call = arg;

    call->expired = true;
    bf_co_queue_wake_all(&call->queue);
}

bool
file_check_not_stuck(const BfFileNode *self, GError **error)
{
    if (self->stuck) {
        bf_set_error(error,
                     "The storage of '%s' has not answered an earlier call yet",
                     self->path);
    }
    return !self->stuck;
}

bool
file_co_call(FileCall *call, GError **error)
{
    BfFileNode *self = call->self;
    BfTimer timer = {0};

    if (!file_check_not_stuck(self, error)) {
        g_free(call);
        return false;
    }
    bf_timer_start(&timer, CALL_LIMIT_NS, time_is_up, call);
    bf_co_spawn(call_co_run, call);
    while (!call->done && !call->expired) {
        bf_co_queue_co_wait(&call->queue);
    }
    bf_timer_stop(&timer);
    if (call->done) {
        return true;
    }
    call->left = true;
    self->stuck = true;
    bf_set_error(error, "The storage of '%s' does not answer within %u seconds",
                 self->path, (unsigned)(CALL_LIMIT_NS / BF_NS_PER_SEC));
    return false;
}

void
file_co_wait_unstuck(BfFileNode *self)
{
    while (self->stuck) {
        bf_co_queue_co_wait(&self->unstuck);
    }
}

typedef struct RenewCall {
    FileCall call;
    FileDesc desc; /* gets the new size */
    bool drop_cache;
    bool ok;
} RenewCall;

static void
run_renew(void *arg)
{
    RenewCall *call = arg;
    struct stat st;

    if (call->drop_cache) {
        posix_fadvise(call->desc.fd, 0, 0, POSIX_FADV_DONTNEED);
    }
    call->ok =
        fstat(call->desc.fd, &st) == 0 && file_note_size(&call->desc, &st);
}

/* Users who rely on the size keep the one that they know. */
static void
take_new_size(BfFileNode *self, uint64_t size)
{
    BfNode *node = &self->base;
    uint64_t rounded = bf_align_up(size, 512);
    g_autoptr(GError) error = NULL;

    if (rounded == node->size) {
        return;
    }
    if (size > INT64_MAX - BF_MIB ||
        !bf_node_check_new_size(node, rounded, &error)) {
        bf_node_notice(node, true, "'%s' was resized while inactive: %s",
                       self->path,
                       error != NULL ? error->message : "it is too large");
        return;
    }
    self->desc.size = size;
    node->size = rounded;
}

/* Another program may have written meanwhile; our pages may be old, and the
 * size as well. */
void
file_co_invalidate(BfNode *node)
{
    BfFileNode *self = (BfFileNode *)node;
    RenewCall *call = g_new0(RenewCall, 1);

    call->call = (FileCall){.self = self, .fn = run_renew};
    call->desc = self->desc;
    call->drop_cache = file_options(node->options)->drop_cache;
    if (file_co_call(&call->call, NULL)) {
        if (call->ok) {
            take_new_size(self, call->desc.size);
        }
        g_free(call);
    }
}
