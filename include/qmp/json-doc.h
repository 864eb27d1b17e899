/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Read-only JSON documents: what a client sends, on its way to the C types.
 *
 * A document is one array of nodes in the order of the text, and strings are
 * read where they stand in it. So it takes 16 bytes for each value and key
 * besides the text, is made at the speed of the text and freed at once, and
 * nothing recurses. A node lives as long as its document. Integers above
 * 2^63-1 and NUL in keys are kept in the text as qmp/json-value.h says; here
 * the integers are a kind of their own.
 *
 * Any thread; none suspends.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <glib.h>

/**
 * BfJsonDoc: a document
 */
typedef struct BfJsonDoc BfJsonDoc;

/**
 * BfJsonNode: a value of a document, or a key of an object in it
 */
typedef struct BfJsonNode BfJsonNode;

/**
 * BfJsonKind: what a node is
 * @BF_JSON_KIND_NULL: null
 * @BF_JSON_KIND_FALSE: false
 * @BF_JSON_KIND_TRUE: true
 * @BF_JSON_KIND_INTEGER: an integer from -2^63 to 2^63-1
 * @BF_JSON_KIND_BIG: an integer from 2^63 to 2^64-1
 * @BF_JSON_KIND_REAL: a number with a fraction or exponent
 * @BF_JSON_KIND_STRING: a string; a key, too
 * @BF_JSON_KIND_ARRAY: an array
 * @BF_JSON_KIND_OBJECT: an object
 */
typedef enum BfJsonKind {
    BF_JSON_KIND_NULL,
    BF_JSON_KIND_FALSE,
    BF_JSON_KIND_TRUE,
    BF_JSON_KIND_INTEGER,
    BF_JSON_KIND_BIG,
    BF_JSON_KIND_REAL,
    BF_JSON_KIND_STRING,
    BF_JSON_KIND_ARRAY,
    BF_JSON_KIND_OBJECT,
} BfJsonKind;

/**
 * bf_json_doc_parse:
 * @text: (transfer full): a text that the framer gave, or strict JSON of ours;
 *   a NUL follows it. It is changed, also on failure, and wiped when freed
 * @len: bytes of @text
 * @error: set on failure
 *
 * Returns: (transfer full): the document, or NULL if an object has a key twice
 *   or the text is not strict
 */
BfJsonDoc *bf_json_doc_parse(char *text, size_t len, GError **error);

/**
 * bf_json_doc_new_value:
 * @value: a value, which must live and stay as it is as long as the document
 *
 * Returns: (transfer full): a document with the same contents
 */
BfJsonDoc *bf_json_doc_new_value(const json_t *value);

/**
 * bf_json_doc_free:
 * @doc: (nullable): the document; its text is wiped, as it may hold a secret
 */
void bf_json_doc_free(BfJsonDoc *doc);

/**
 * bf_json_doc_root:
 * @doc: a document
 *
 * Returns: (transfer none): its value
 */
const BfJsonNode *bf_json_doc_root(const BfJsonDoc *doc);

/**
 * bf_json_doc_to_value:
 * @doc: a document
 *
 * Returns: (transfer full): a value with the same contents
 */
json_t *bf_json_doc_to_value(const BfJsonDoc *doc);

/**
 * bf_json_node_kind:
 * @node: a node
 *
 * Returns: what it is
 */
BfJsonKind bf_json_node_kind(const BfJsonNode *node);

/**
 * bf_json_node_is:
 * @node: (nullable): a node
 * @kind: a kind
 *
 * Returns: whether @node is one of @kind
 */
bool bf_json_node_is(const BfJsonNode *node, BfJsonKind kind);

/**
 * bf_json_node_text:
 * @node: (nullable): a node
 *
 * Returns: (nullable): the contents of a string or key, with a NUL behind them;
 *   NULL for another kind
 */
const char *bf_json_node_text(const BfJsonNode *node);

/**
 * bf_json_node_size:
 * @node: a node
 *
 * Returns: the elements of an array, the members of an object, the bytes of a
 *   string, 0 for the others
 */
size_t bf_json_node_size(const BfJsonNode *node);

/**
 * bf_json_node_integer:
 * @node: a node
 *
 * Returns: the number of a %BF_JSON_KIND_INTEGER, 0 for the others
 */
int64_t bf_json_node_integer(const BfJsonNode *node);

/**
 * bf_json_node_big:
 * @node: (nullable): a node
 * @ret_number: (out): the number of a %BF_JSON_KIND_BIG; written only if it is
 *   one
 *
 * Returns: whether it is one
 */
bool bf_json_node_big(const BfJsonNode *node, uint64_t *ret_number);

/**
 * bf_json_node_number:
 * @node: a node
 * @ret_number: (out): the number of any kind of number; written on success only
 *
 * Returns: whether it is a number
 */
bool bf_json_node_number(const BfJsonNode *node, double *ret_number);

/**
 * bf_json_node_begin:
 * @node: an array or object that is not empty
 *
 * Returns: (transfer none): the first element, or the key of the first member
 */
const BfJsonNode *bf_json_node_begin(const BfJsonNode *node);

/**
 * bf_json_node_next:
 * @node: an element or key or the value of a member
 *
 * Must not be called for the last one of an array or object.
 *
 * Returns: (transfer none): the next element; the value of a key; the key of
 *   the next member
 */
const BfJsonNode *bf_json_node_next(const BfJsonNode *node);

/**
 * bf_json_node_find:
 * @node: an object
 * @key: a key
 *
 * Takes constant time also if the object is large.
 *
 * Returns: (transfer none) (nullable): the value of that key, or NULL
 */
const BfJsonNode *bf_json_node_find(const BfJsonNode *node, const char *key);

/**
 * bf_json_node_write:
 * @out: the text is appended here, as by bf_json_write()
 * @node: the node
 */
void bf_json_node_write(GString *out, const BfJsonNode *node);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfJsonDoc, bf_json_doc_free)
