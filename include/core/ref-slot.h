/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A place for a counted value that one thread replaces while others take
 * references to it. Any thread; none suspends, and the lock is held for a few
 * instructions only.
 */
#pragma once

#include <glib.h>
#include <pthread.h>

/**
 * BfRefSlot: holds one reference to a value made by g_atomic_rc_box_new()
 *
 * The fields are private.
 */
typedef struct BfRefSlot {
    pthread_mutex_t lock; /* guards value */
    gpointer value;
} BfRefSlot;

/**
 * bf_ref_slot_init:
 * @slot: the place
 * @value: (transfer full): what it holds first
 */
void bf_ref_slot_init(BfRefSlot *slot, gpointer value);

/**
 * bf_ref_slot_clear:
 * @slot: a place that nobody uses any more
 *
 * Returns: (transfer full): what it held last
 */
gpointer bf_ref_slot_clear(BfRefSlot *slot);

/**
 * bf_ref_slot_get:
 * @slot: the place
 *
 * Returns: (transfer full): a reference to what it holds now
 */
gpointer bf_ref_slot_get(BfRefSlot *slot);

/**
 * bf_ref_slot_swap:
 * @slot: the place
 * @value: (transfer full): what it holds from now on
 *
 * Returns: (transfer full): what it held until now
 */
gpointer bf_ref_slot_swap(BfRefSlot *slot, gpointer value);
