/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Registries: id to object, listed in order of insertion. One thread; none
 * suspends. Also the rules for ids that users choose.
 */
#pragma once

#include <stdbool.h>

#include <glib.h>

/**
 * BfRegistry: a table of objects by id
 */
typedef struct BfRegistry BfRegistry;

/**
 * bf_id_is_wellformed:
 * @id: a text
 *
 * Returns: true if it is an ASCII letter, then letters, digits, '-', '.', '_'
 */
bool bf_id_is_wellformed(const char *id);

/**
 * bf_id_check:
 * @id: the value of a parameter "id"
 * @error: set if it is not well formed
 *
 * Returns: what bf_id_is_wellformed() does
 */
bool bf_id_check(const char *id, GError **error);

/**
 * bf_registry_new:
 *
 * Returns: (transfer full): an empty registry
 */
BfRegistry *bf_registry_new(void);

/**
 * bf_registry_free:
 * @registry: (nullable): its objects are not touched
 */
void bf_registry_free(BfRegistry *registry);

/**
 * bf_registry_add:
 * @registry: a registry
 * @id: copied; not in use
 * @object: borrowed until removed
 *
 * Returns: false, and nothing changes, if @id is in use
 */
bool bf_registry_add(BfRegistry *registry, const char *id, void *object);

/**
 * bf_registry_find:
 * @registry: a registry
 * @id: (nullable): an id
 *
 * Returns: (transfer none) (nullable): the object
 */
void *bf_registry_find(BfRegistry *registry, const char *id);

/**
 * bf_registry_remove:
 * @registry: a registry
 * @id: an id
 *
 * Returns: (nullable): the object that was removed
 */
void *bf_registry_remove(BfRegistry *registry, const char *id);

/**
 * bf_registry_list:
 * @registry: a registry
 *
 * Returns: (transfer full): the objects, oldest first; a snapshot
 */
GPtrArray *bf_registry_list(BfRegistry *registry);

/**
 * bf_registry_size:
 * @registry: a registry
 *
 * Returns: number of objects
 */
unsigned bf_registry_size(const BfRegistry *registry);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfRegistry, bf_registry_free)
