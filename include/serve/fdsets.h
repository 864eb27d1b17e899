/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptor sets (add-fd): descriptors that a manager passed in, opened again
 * as "/dev/fdset/N". On main.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "schema/types.h"

/**
 * BfFdsets: all descriptor sets of a daemon
 */
typedef struct BfFdsets BfFdsets;

/**
 * bf_fdsets_new:
 *
 * Returns: (transfer full): no sets
 */
BfFdsets *bf_fdsets_new(void);

/**
 * bf_fdsets_free:
 * @fdsets: (nullable): all descriptors are closed
 */
void bf_fdsets_free(BfFdsets *fdsets);

/**
 * bf_fdsets_add:
 * @fdsets: the sets
 * @fd: (transfer full): a descriptor; closed on failure
 * @id: (nullable): the set to join or create; NULL takes the lowest free id
 * @opaque: (nullable): text to keep with it
 * @error: set on failure
 *
 * Returns: (transfer full): the set's id and the descriptor's number, or NULL
 */
BfAddfdInfo *bf_fdsets_add(BfFdsets *fdsets, int fd, const int64_t *id,
                           const char *opaque, GError **error);

/**
 * bf_fdsets_co_remove:
 * @fdsets: the sets
 * @id: a set
 * @fd: (nullable): number of one descriptor; NULL removes all
 * @error: set on failure
 *
 * They are out of the set at once; the call suspends until they are closed.
 *
 * Returns: false on failure
 */
bool bf_fdsets_co_remove(BfFdsets *fdsets, int64_t id, const int64_t *fd,
                         GError **error);

/**
 * bf_fdsets_query:
 * @fdsets: the sets
 *
 * Returns: (transfer full): what query-fdsets returns
 */
BfFdsetInfoList *bf_fdsets_query(BfFdsets *fdsets);

/**
 * bf_fdsets_open:
 * @fdsets: the sets
 * @path: "/dev/fdset/N"
 * @flags: of open(2); access mode and O_DIRECT choose the descriptor
 * @error: set on failure
 *
 * Returns: (transfer full): a duplicate, close-on-exec, or -1
 */
int bf_fdsets_open(BfFdsets *fdsets, const char *path, int flags,
                   GError **error);
