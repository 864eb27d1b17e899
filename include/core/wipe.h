/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Buffers that may have held a secret: GString that leaves no copy behind when
 * it grows, shrinks or is freed.
 *
 * GLib's functions move a string that grows and free the old place as it is.
 * Call bf_wipe_reserve() before adding to a string, and nothing moves later.
 * Any thread; none suspends.
 */
#pragma once

#include <glib.h>
#include <stddef.h>

/**
 * bf_wipe_reserve:
 * @string: a string
 * @extra: number of bytes that will be added
 *
 * Makes room, so that adding @extra bytes does not move @string; wipes the
 * place that it leaves. Growing by doubling, it takes linear time in total.
 */
void bf_wipe_reserve(GString *string, size_t extra);

/**
 * bf_wipe_append:
 * @string: a string
 * @bytes: what to add; may be NULL if @len is 0
 * @len: number of bytes
 *
 * g_string_append_len() after bf_wipe_reserve().
 */
void bf_wipe_append(GString *string, const void *bytes, size_t len);

/**
 * bf_wipe_truncate:
 * @string: a string
 * @len: its new length, at most its length
 *
 * g_string_truncate() that wipes what it cuts off.
 */
void bf_wipe_truncate(GString *string, size_t len);

/**
 * bf_wipe_drop_front:
 * @string: a string
 * @len: how many bytes of its start to drop, at most its length
 *
 * g_string_erase() that wipes the end, which has moved.
 */
void bf_wipe_drop_front(GString *string, size_t len);

/**
 * bf_wipe_string_free:
 * @string: (nullable): a string, wiped and freed
 */
void bf_wipe_string_free(GString *string);

/**
 * bf_wipe_traces:
 *
 * Clears what working with a secret leaves on this thread besides buffers: the
 * vector registers, by which memory is copied, and the 16 KiB of the stack
 * below the caller, where functions that have returned, and the lazy binding of
 * those in libraries, have saved registers. To be called where the work with
 * the secret ends, and not from deeper than it was done.
 */
void bf_wipe_traces(void);

/**
 * bf_wipe_text_free:
 * @text: (nullable): a text up to its NUL, wiped and freed
 */
void bf_wipe_text_free(char *text);
