/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Large memory. The system gives large pages ("transparent huge pages") to who
 * asks for them, which saves 511 of 512 page faults. They are aligned to their
 * size; so must the memory be, or its first part gets none.
 */
#include "core/large.h"

#include <stdlib.h>
#include <sys/mman.h>

#include <glib.h>

#include "core/util.h"

#define LARGE_PAGE_BYTES ((size_t)2 * BF_MIB)

void *
bf_large_alloc(size_t bytes)
{
    void *memory = NULL;

    if (bytes < 2 * LARGE_PAGE_BYTES) {
        return g_malloc(bytes);
    }
    if (posix_memalign(&memory, LARGE_PAGE_BYTES, bytes) != 0) {
        g_error("out of memory: %zu bytes", bytes);
    }
    /* Where there are none, small ones do as well. */
    (void)madvise(memory, bytes & ~(LARGE_PAGE_BYTES - 1), MADV_HUGEPAGE);
    return memory;
}
