/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What documents consist of, for those who make them.
 */
#pragma once

#include "qmp/json-doc.h"

/* So many nodes a span can count; of a client's values far fewer come. */
#define BF_JSON_NODES_MAX ((size_t)1 << 24)

/* The keys of a large object, by their hash. */
typedef struct BfJsonIndex BfJsonIndex;

struct BfJsonNode {
    uint32_t size;      /* as bf_json_node_size() says; bytes of a number's
                         * text, 0 if it is a number already */
    uint32_t kind : 8;  /* a BfJsonKind */
    uint32_t span : 24; /* nodes up to the next one that is not inside */
    union {
        const char *text; /* string and key: NUL follows; number's text */
        int64_t integer;
        uint64_t big;
        double real;
        BfJsonIndex *index; /* object: NULL if it has few members */
        uint64_t parent;    /* array and object while they are being made: how
                             * many nodes before them the one around them is */
    } u;
};

struct BfJsonDoc {
    char *text; /* owned; NULL if the strings are a value's */
    size_t len;
    BfJsonNode *nodes; /* owned */
    size_t n_nodes;
    size_t n_allocated;
    BfJsonIndex *indexes; /* owned list */
};

/**
 * bf_json_doc_reserve:
 * @doc: a document that is being made; its nodes may move
 *
 * Returns: whether there is room for one more node
 */
bool bf_json_doc_reserve(BfJsonDoc *doc);

/**
 * bf_json_doc_close_object:
 * @doc: the document
 * @object: of which all members are there; its other fields get their values
 *
 * Returns: false if it has a key twice
 */
bool bf_json_doc_close_object(BfJsonDoc *doc, BfJsonNode *object);
