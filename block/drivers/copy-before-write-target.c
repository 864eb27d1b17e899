/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * copy-before-write's care for what is in its target.
 *
 * What was copied since the last flush that succeeded is loose: a server that
 * was away may have lost it. What the child still has of that is copied again;
 * if the child has changed there, the past is gone and the snapshot is broken,
 * whatever on-cbw-error says: a change that fails now would not bring it back.
 * So nothing is read from the target, and no change goes on, before a look
 * whether there was a loss.
 * So that little is loose, the target is flushed as soon as something was
 * copied, by one flush at a time, which covers what came during the one before.
 * Nobody waits for it, and it is the target that it belongs to: the filter may
 * go while a server that is away holds the flush up. Storage that cannot lose
 * anything without the whole daemon's end is not flushed.
 */
#include "copy-before-write-private.h"

#include <inttypes.h>

#include "block/request.h"
#include "core/util.h"

/* With more pieces than these, all that was copied is taken for loose. */
#define LOOSE_MAX 8192

/* A flush of the target. */
struct BfCbwFlush {
    BfNode *target;  /* has this as its work */
    BfCbwNode *self; /* NULL once it is closed */
};

void
bf_cbw_target_init(BfCbwNode *self)
{
    self->last_loss = bf_node_last_loss(self->target);
    self->loose = g_array_new(FALSE, FALSE, sizeof(BfCbwLoose));
    self->in_flush = g_array_new(FALSE, FALSE, sizeof(BfCbwLoose));
}

void
bf_cbw_break(BfCbwNode *self, const char *reason)
{
    if (!self->broken) {
        self->broken = true;
        bf_node_notice(&self->base, true,
                       "the snapshot is broken and cannot be read any more: "
                       "%s; remove the node and make a new one",
                       reason);
    }
}

/* Copies once more what the child still has of [@offset, @offset + @bytes),
 * which was copied. */
static void
copy_again(BfCbwNode *self, uint64_t offset, uint64_t bytes)
{
    g_autofree char *reason = NULL;
    uint64_t start, run;

    if (bf_bitmap_next_dirty(self->changed, offset, offset + bytes, &start,
                             &run)) {
        reason = g_strdup_printf(
            "the target '%s' may have lost bytes %" PRIu64 " to %" PRIu64
            ", which it had not flushed, and '%s' has changed there",
            self->target->name, start, start + run - 1, self->base.file->name);
        bf_cbw_break(self, reason);
    }
    bf_bitmap_put_back(self->todo, offset, bytes);
}

static void
lose(BfCbwNode *self, GArray *loose)
{
    for (unsigned i = 0; i < loose->len; i++) {
        const BfCbwLoose *piece = &g_array_index(loose, BfCbwLoose, i);
        uint64_t offset = piece->start;
        uint64_t bytes = 0;

        while (bf_bitmap_next_dirty(self->done, offset, piece->end, &offset,
                                    &bytes)) {
            copy_again(self, offset, bytes);
            bf_bitmap_clear_range(self->done, offset, bytes);
            offset += bytes;
        }
    }
    g_array_set_size(loose, 0);
}

static void
lose_loose(BfCbwNode *self)
{
    self->losses++;
    lose(self, self->in_flush);
    lose(self, self->loose);
    for (BfCbwRange *copy = self->copies; copy != NULL; copy = copy->next) {
        copy->has_lost = true;
    }
}

uint64_t
bf_cbw_look_for_loss(BfCbwNode *self)
{
    uint64_t last_loss = bf_node_last_loss(self->target);
    bool is_new = last_loss > self->last_loss;

    self->last_loss = last_loss;
    if (is_new) {
        lose_loose(self);
    }
    return self->losses;
}

/* --- Flushing. --- */

static void
flush_begins(BfCbwNode *self)
{
    GArray *covered = self->loose;

    self->loose = self->in_flush;
    self->in_flush = covered;
}

/* Storage tells each loss once: a flush that succeeds after one that has failed
 * says nothing about what that one was to cover, nor about what came since. */
static void
flush_ended(BfCbwNode *self, int ret)
{
    bf_cbw_look_for_loss(self);
    if (ret < 0) {
        lose_loose(self);
    }
    g_array_set_size(self->in_flush, 0);
}

static bool
wants_flush(const BfCbwNode *self)
{
    return self->loose->len > 0 && !self->broken &&
           bf_node_flush_saves(self->target);
}

static void
flush_co_run(void *arg)
{
    BfCbwFlush *flush = arg;
    bool again = true;

    while (again) {
        int ret;

        if (flush->self != NULL) {
            flush_begins(flush->self);
        }
        ret = bf_node_co_flush(flush->target);
        if (flush->self != NULL) {
            flush_ended(flush->self, ret);
        }
        again = flush->self != NULL && wants_flush(flush->self);
    }
    if (flush->self != NULL) {
        flush->self->flush = NULL;
    }
    bf_node_end_work(flush->target);
    g_free(flush);
}

static void
start_flush(BfCbwNode *self)
{
    self->flush = g_new0(BfCbwFlush, 1);
    self->flush->self = self;
    self->flush->target = self->target;
    bf_node_begin_work(self->target);
    bf_co_spawn_later(flush_co_run, self->flush);
}

static void
note_loose(BfCbwNode *self, uint64_t start, uint64_t end)
{
    GArray *loose = self->loose;
    BfCbwLoose piece = {.start = start, .end = end};
    BfCbwLoose *last = loose->len > 0
                           ? &g_array_index(loose, BfCbwLoose, loose->len - 1)
                           : NULL;

    if (last != NULL && last->start <= start && start <= last->end) {
        last->end = MAX(last->end, end);
        return;
    }
    if (loose->len == LOOSE_MAX) {
        g_array_set_size(loose, 0);
        piece = (BfCbwLoose){.start = 0, .end = self->size};
    }
    g_array_append_val(loose, piece);
}

void
bf_cbw_note_copied(BfCbwNode *self, uint64_t offset, uint64_t bytes)
{
    bf_bitmap_put_back(self->done, offset, bytes);
    note_loose(self, offset, offset + bytes);
    if (self->flush == NULL && wants_flush(self)) {
        start_flush(self);
    }
}

static void
leave_flush(void *arg)
{
    BfCbwNode *self = arg;

    if (self->flush != NULL) {
        self->flush->self = NULL;
    }
}

void
bf_cbw_target_co_clear(BfCbwNode *self)
{
    if (self->loose != NULL) {
        bf_co_call(self->base.home, leave_flush, self);
        g_array_unref(self->loose);
        g_array_unref(self->in_flush);
    }
}
