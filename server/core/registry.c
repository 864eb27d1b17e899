/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Registries: a hash table for finding, a list for the order of insertion.
 */
#include "core/registry.h"

#include "core/error.h"

typedef struct Entry {
    GList link; /* in the registry's order; data is the object */
    char *id;   /* owned; also the key of the table */
} Entry;

struct BfRegistry {
    GHashTable *table; /* id to Entry; owns the entries */
    GQueue order;
};

bool
bf_id_is_wellformed(const char *id)
{
    if (!g_ascii_isalpha(id[0])) {
        return false;
    }
    for (const char *c = id + 1; *c != '\0'; c++) {
        if (!g_ascii_isalnum(*c) && *c != '-' && *c != '.' && *c != '_') {
            return false;
        }
    }
    return true;
}

bool
bf_id_check(const char *id, GError **error)
{
    if (!bf_id_is_wellformed(id)) {
        bf_set_error(error,
                     "Parameter 'id' expects an identifier: a letter, then "
                     "letters, digits, '-', '.' or '_'");
        return false;
    }
    return true;
}

static void
entry_free(void *data)
{
    Entry *entry = data;

    g_free(entry->id);
    g_free(entry);
}

BfRegistry *
bf_registry_new(void)
{
    BfRegistry *registry = g_new0(BfRegistry, 1);

    registry->table =
        g_hash_table_new_full(g_str_hash, g_str_equal, NULL, entry_free);
    g_queue_init(&registry->order);
    return registry;
}

void
bf_registry_free(BfRegistry *registry)
{
    if (registry == NULL) {
        return;
    }
    g_hash_table_destroy(registry->table);
    g_free(registry);
}

bool
bf_registry_add(BfRegistry *registry, const char *id, void *object)
{
    Entry *entry;

    if (g_hash_table_contains(registry->table, id)) {
        return false;
    }
    entry = g_new0(Entry, 1);
    entry->id = g_strdup(id);
    entry->link.data = object;
    g_hash_table_insert(registry->table, entry->id, entry);
    g_queue_push_tail_link(&registry->order, &entry->link);
    return true;
}

void *
bf_registry_find(BfRegistry *registry, const char *id)
{
    Entry *entry = id != NULL ? g_hash_table_lookup(registry->table, id) : NULL;

    return entry != NULL ? entry->link.data : NULL;
}

void *
bf_registry_remove(BfRegistry *registry, const char *id)
{
    Entry *entry = g_hash_table_lookup(registry->table, id);
    void *object;

    if (entry == NULL) {
        return NULL;
    }
    object = entry->link.data;
    g_queue_unlink(&registry->order, &entry->link);
    g_hash_table_remove(registry->table, id);
    return object;
}

GPtrArray *
bf_registry_list(BfRegistry *registry)
{
    GPtrArray *list = g_ptr_array_sized_new(registry->order.length);

    for (const GList *link = registry->order.head; link; link = link->next) {
        g_ptr_array_add(list, link->data);
    }
    return list;
}

unsigned
bf_registry_size(const BfRegistry *registry)
{
    return registry->order.length;
}
