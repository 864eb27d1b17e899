/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory of several megabytes that is filled from its start, used once and
 * freed.
 *
 * Such memory comes from the system and goes back to it each time, and to get
 * it page by page takes longer than to parse what is put there. Any thread;
 * none suspends.
 */
#pragma once

#include <stddef.h>

/**
 * bf_large_alloc:
 * @bytes: how many are wanted; those that are never touched take no memory, but
 *   for the rest of a large page
 *
 * Aborts when out of memory, as g_malloc() does.
 *
 * Returns: (transfer full): memory for g_free(), in large pages where the
 *   system has them
 */
void *bf_large_alloc(size_t bytes);
