/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A place for a counted value. Without the lock a reader could find the value
 * and take its reference only after the writer has dropped the last one.
 */
#include "core/ref-slot.h"

void
bf_ref_slot_init(BfRefSlot *slot, gpointer value)
{
    pthread_mutex_init(&slot->lock, NULL);
    slot->value = value;
}

gpointer
bf_ref_slot_clear(BfRefSlot *slot)
{
    pthread_mutex_destroy(&slot->lock);
    return g_steal_pointer(&slot->value);
}

gpointer
bf_ref_slot_get(BfRefSlot *slot)
{
    gpointer value;

    pthread_mutex_lock(&slot->lock);
    value = g_atomic_rc_box_acquire(slot->value);
    pthread_mutex_unlock(&slot->lock);
    return value;
}

gpointer
bf_ref_slot_swap(BfRefSlot *slot, gpointer value)
{
    gpointer old;

    pthread_mutex_lock(&slot->lock);
    old = slot->value;
    slot->value = value;
    pthread_mutex_unlock(&slot->lock);
    return old;
}
