/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Documents: the array of nodes, keys and their index, conversion. An object
 * with few members is searched from its start. A larger one has an index with
 * a secret seed, so that no client can choose keys that all fall together.
 */
#include "qmp/json-doc.h"

#include <string.h>

#include "core/large.h"
#include "core/wipe.h"
#include "json-doc-private.h"
#include "key-hash-private.h"
#include "qmp/json-value.h"

/* Members from which on an object has an index. */
#define INDEXED_MEMBERS 9
/* Keys that are added to an index together. */
#define KEYS_AT_ONCE 16

typedef struct Slot {
    uint32_t where; /* how far behind the object a key is; 0: it is free */
    uint32_t hash;  /* the upper half: other keys are not looked at */
} Slot;

struct BfJsonIndex {
    BfJsonIndex *next; /* of the document */
    BfKeySeed seed;
    uint32_t mask; /* slots, less one */
    Slot slots[];
};

bool
bf_json_doc_reserve(BfJsonDoc *doc)
{
    size_t wanted = MIN(2 * doc->n_allocated + 8, BF_JSON_NODES_MAX);
    BfJsonNode *nodes = NULL;

    if (doc->n_nodes < doc->n_allocated) {
        return true;
    }
    if (doc->n_nodes >= wanted) {
        return false;
    }
    nodes = bf_large_alloc(wanted * sizeof(*nodes));
    if (doc->n_nodes > 0) {
        memcpy(nodes, doc->nodes, doc->n_nodes * sizeof(*nodes));
    }
    g_free(doc->nodes);
    doc->nodes = nodes;
    doc->n_allocated = wanted;
    return true;
}

void
bf_json_doc_free(BfJsonDoc *doc)
{
    if (doc == NULL) {
        return;
    }
    while (doc->indexes != NULL) {
        BfJsonIndex *index = doc->indexes;

        doc->indexes = index->next;
        g_free(index);
    }
    if (doc->text != NULL) {
        explicit_bzero(doc->text, doc->len);
    }
    g_free(doc->text);
    g_free(doc->nodes); /* only say where in the text things are */
    g_free(doc);
}

const BfJsonNode *
bf_json_doc_root(const BfJsonDoc *doc)
{
    return &doc->nodes[0];
}

BfJsonKind
bf_json_node_kind(const BfJsonNode *node)
{
    return (BfJsonKind)node->kind;
}

bool
bf_json_node_is(const BfJsonNode *node, BfJsonKind kind)
{
    return node != NULL && node->kind == kind;
}

const char *
bf_json_node_text(const BfJsonNode *node)
{
    return bf_json_node_is(node, BF_JSON_KIND_STRING) ? node->u.text : NULL;
}

size_t
bf_json_node_size(const BfJsonNode *node)
{
    return node->kind >= BF_JSON_KIND_STRING ? node->size : 0;
}

int64_t
bf_json_node_integer(const BfJsonNode *node)
{
    if (node->kind != BF_JSON_KIND_INTEGER) {
        return 0;
    }
    return node->size > 0 ? g_ascii_strtoll(node->u.text, NULL, 10)
                          : node->u.integer;
}

bool
bf_json_node_big(const BfJsonNode *node, uint64_t *ret_number)
{
    if (!bf_json_node_is(node, BF_JSON_KIND_BIG)) {
        return false;
    }
    *ret_number =
        node->size > 0 ? g_ascii_strtoull(node->u.text, NULL, 10) : node->u.big;
    return true;
}

bool
bf_json_node_number(const BfJsonNode *node, double *ret_number)
{
    uint64_t big = 0;

    switch (bf_json_node_kind(node)) {
    case BF_JSON_KIND_INTEGER:
        *ret_number = (double)bf_json_node_integer(node);
        return true;
    case BF_JSON_KIND_BIG:
        bf_json_node_big(node, &big);
        *ret_number = (double)big;
        return true;
    case BF_JSON_KIND_REAL:
        *ret_number =
            node->size > 0 ? g_ascii_strtod(node->u.text, NULL) : node->u.real;
        return true;
    default:
        return false;
    }
}

const BfJsonNode *
bf_json_node_begin(const BfJsonNode *node)
{
    g_assert(node->size > 0);
    return node + 1;
}

const BfJsonNode *
bf_json_node_next(const BfJsonNode *node)
{
    return node + node->span;
}

/* Keys. */

static inline const BfJsonNode *
next_key(const BfJsonNode *key)
{
    return key + 1 + key[1].span;
}

static inline bool
is_key(const BfJsonNode *node, const char *key, size_t len)
{
    return node->size == len && memcmp(node->u.text, key, len) == 0;
}

/* The slot of a key with that hash, or the free one where it belongs. */
static Slot *
find_slot(BfJsonIndex *index, const BfJsonNode *object, const char *key,
          size_t len, uint64_t hash)
{
    size_t at = (size_t)hash & index->mask;

    while (index->slots[at].where != 0 &&
           (index->slots[at].hash != (uint32_t)(hash >> 32) ||
            !is_key(object + index->slots[at].where, key, len))) {
        at = (at + 1) & index->mask;
    }
    return &index->slots[at];
}

/* Adds @count keys from @first on; returns the one behind them, or NULL if one
 * of them is there already. */
static const BfJsonNode *
add_keys(BfJsonIndex *index, const BfJsonNode *object, const BfJsonNode *first,
         size_t count)
{
    uint64_t hashes[KEYS_AT_ONCE];
    const BfJsonNode *key = first;

    /* The slots of a large index are far away: ask for all of them first. */
    for (size_t i = 0; i < count; i++) {
        hashes[i] = bf_key_hash(&index->seed, key->u.text, key->size);
        __builtin_prefetch(&index->slots[hashes[i] & index->mask]);
        key = next_key(key);
    }
    key = first;
    for (size_t i = 0; i < count; i++) {
        Slot *slot =
            find_slot(index, object, key->u.text, key->size, hashes[i]);

        if (slot->where != 0) {
            return NULL;
        }
        slot->where = (uint32_t)(key - object);
        slot->hash = (uint32_t)(hashes[i] >> 32);
        key = next_key(key);
    }
    return key;
}

static bool
make_index(BfJsonDoc *doc, BfJsonNode *object)
{
    /* At most half of them are used. */
    const size_t slots = (size_t)1 << g_bit_storage(2 * object->size - 1);
    const BfJsonNode *key = object + 1;
    BfJsonIndex *index =
        g_malloc0(sizeof(*index) + slots * sizeof(index->slots[0]));

    index->mask = (uint32_t)(slots - 1);
    index->seed = doc->indexes != NULL ? doc->indexes->seed : bf_key_seed();
    index->next = doc->indexes;
    doc->indexes = index;
    object->u.index = index;
    for (size_t left = object->size; left > 0 && key != NULL;) {
        const size_t count = MIN(left, KEYS_AT_ONCE);

        key = add_keys(index, object, key, count);
        left -= count;
    }
    return key != NULL;
}

bool
bf_json_doc_close_object(BfJsonDoc *doc, BfJsonNode *object)
{
    const BfJsonNode *keys[INDEXED_MEMBERS];
    const BfJsonNode *key = object + 1;

    object->u.index = NULL;
    if (object->size >= INDEXED_MEMBERS) {
        return make_index(doc, object);
    }
    for (uint32_t i = 0; i < object->size; i++) {
        for (uint32_t k = 0; k < i; k++) {
            if (is_key(keys[k], key->u.text, key->size)) {
                return false;
            }
        }
        keys[i] = key;
        key = next_key(key);
    }
    return true;
}

const BfJsonNode *
bf_json_node_find(const BfJsonNode *node, const char *key)
{
    const size_t len = strlen(key);
    const BfJsonNode *at = node + 1;

    g_assert(node->kind == BF_JSON_KIND_OBJECT);
    if (node->u.index != NULL) {
        const Slot *slot =
            find_slot(node->u.index, node, key, len,
                      bf_key_hash(&node->u.index->seed, key, len));

        return slot->where != 0 ? bf_json_node_next(node + slot->where) : NULL;
    }
    for (uint32_t i = 0; i < node->size; i++) {
        if (is_key(at, key, len)) {
            return bf_json_node_next(at);
        }
        at = next_key(at);
    }
    return NULL;
}
