/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Documents from values, to values and to text. The nesting is kept on a stack
 * of our own, since a client may send 1024 levels.
 */
#include <string.h>

#include "core/wipe.h"
#include "json-doc-private.h"
#include "qmp/json-value.h"
#include "qmp/json-write.h"

/* From values. */

/* An array or object of which the contents are being added. */
typedef struct Source {
    json_t *value; /* borrowed */
    void *iter;    /* object: the next member */
    size_t index;  /* array: the next element */
    size_t number; /* of its node */
} Source;

static BfJsonNode *
add_node(BfJsonDoc *doc, BfJsonKind kind)
{
    BfJsonNode *node = NULL;

    /* Values that are made have fewer parts than there can be. */
    g_assert(bf_json_doc_reserve(doc));
    node = &doc->nodes[doc->n_nodes++];
    *node = (BfJsonNode){.kind = kind, .span = 1};
    return node;
}

static void
add_text(BfJsonDoc *doc, const char *text, size_t len)
{
    BfJsonNode *node = add_node(doc, BF_JSON_KIND_STRING);

    g_assert(len <= UINT32_MAX);
    node->size = (uint32_t)len;
    node->u.text = text;
}

/* An array or object has no contents yet. */
static void
add_value(BfJsonDoc *doc, const json_t *value)
{
    uint64_t big = 0;

    switch (json_typeof(value)) {
    case JSON_OBJECT:
        add_node(doc, BF_JSON_KIND_OBJECT)->size =
            (uint32_t)json_object_size(value);
        break;
    case JSON_ARRAY:
        add_node(doc, BF_JSON_KIND_ARRAY)->size =
            (uint32_t)json_array_size(value);
        break;
    case JSON_STRING:
        if (bf_json_get_big_uint(value, &big)) {
            add_node(doc, BF_JSON_KIND_BIG)->u.big = big;
        } else {
            add_text(doc, json_string_value(value), json_string_length(value));
        }
        break;
    case JSON_INTEGER:
        add_node(doc, BF_JSON_KIND_INTEGER)->u.integer =
            json_integer_value(value);
        break;
    case JSON_REAL:
        add_node(doc, BF_JSON_KIND_REAL)->u.real = json_real_value(value);
        break;
    case JSON_TRUE:
        add_node(doc, BF_JSON_KIND_TRUE);
        break;
    case JSON_FALSE:
        add_node(doc, BF_JSON_KIND_FALSE);
        break;
    default:
        add_node(doc, BF_JSON_KIND_NULL);
    }
}

/* The next value inside of @source, or NULL; adds its key. */
static json_t *
next_of(BfJsonDoc *doc, Source *source)
{
    json_t *value = NULL;
    const char *key = NULL;

    if (json_is_array(source->value)) {
        return json_array_get(source->value, source->index++);
    }
    if (source->iter == NULL) {
        return NULL;
    }
    key = json_object_iter_key(source->iter);
    value = json_object_iter_value(source->iter);
    add_text(doc, key, strlen(key));
    source->iter = json_object_iter_next(source->value, source->iter);
    return value;
}

static void
end_source(BfJsonDoc *doc, const Source *source)
{
    BfJsonNode *node = &doc->nodes[source->number];

    node->span =
        (unsigned)(doc->n_nodes - source->number) & (BF_JSON_NODES_MAX - 1);
    if (node->kind == BF_JSON_KIND_OBJECT) {
        (void)bf_json_doc_close_object(doc, node); /* it has no key twice */
    }
}

BfJsonDoc *
bf_json_doc_new_value(const json_t *value)
{
    g_autoptr(GArray) stack = g_array_new(false, false, sizeof(Source));
    BfJsonDoc *doc = g_new0(BfJsonDoc, 1);
    json_t *next = (json_t *)value; /* jansson's iterators want no const */

    do {
        if (next == NULL) {
            end_source(doc, &g_array_index(stack, Source, stack->len - 1));
            g_array_set_size(stack, stack->len - 1);
        } else {
            add_value(doc, next);
            if (json_is_object(next) || json_is_array(next)) {
                Source source = {.value = next,
                                 .iter = json_object_iter(next),
                                 .number = doc->n_nodes - 1};

                g_array_append_val(stack, source);
            }
        }
        if (stack->len > 0) {
            next = next_of(doc, &g_array_index(stack, Source, stack->len - 1));
        }
    } while (stack->len > 0);
    return doc;
}

/* To values. */

/* An array or object that is being filled. */
typedef struct Target {
    json_t *value; /* borrowed from the outermost one */
    size_t left;   /* elements or members to be added */
} Target;

static json_t *
to_scalar(const BfJsonNode *node)
{
    double number = 0;
    uint64_t big = 0;

    switch (bf_json_node_kind(node)) {
    case BF_JSON_KIND_OBJECT:
        return json_object();
    case BF_JSON_KIND_ARRAY:
        return json_array();
    case BF_JSON_KIND_STRING:
        return json_stringn_nocheck(node->u.text, node->size);
    case BF_JSON_KIND_INTEGER:
        return json_integer(bf_json_node_integer(node));
    case BF_JSON_KIND_BIG:
        bf_json_node_big(node, &big);
        return bf_json_uint(big);
    case BF_JSON_KIND_REAL:
        bf_json_node_number(node, &number);
        return json_real(number);
    case BF_JSON_KIND_TRUE:
        return json_true();
    case BF_JSON_KIND_FALSE:
        return json_false();
    default:
        return json_null();
    }
}

/* Takes @value over. */
static void
put_value(Target *target, const BfJsonNode *key, json_t *value)
{
    target->left--;
    if (key == NULL) {
        json_array_append_new(target->value, value);
    } else {
        json_object_setn_new_nocheck(target->value, key->u.text, key->size,
                                     value);
    }
}

json_t *
bf_json_doc_to_value(const BfJsonDoc *doc)
{
    g_autoptr(GArray) stack = g_array_new(false, false, sizeof(Target));
    const BfJsonNode *node = doc->nodes;
    json_t *root = NULL;

    for (const BfJsonNode *end = node + doc->n_nodes; node < end; node++) {
        const BfJsonNode *key = NULL;
        Target inside = {.left = bf_json_node_size(node)};
        Target *target = stack->len == 0
                             ? NULL
                             : &g_array_index(stack, Target, stack->len - 1);

        if (target != NULL && json_is_object(target->value)) {
            key = node++;
            inside.left = bf_json_node_size(node);
        }
        inside.value = to_scalar(node);
        if (target != NULL) {
            put_value(target, key, inside.value);
        } else {
            root = inside.value;
        }
        if (node->kind >= BF_JSON_KIND_ARRAY) {
            g_array_append_val(stack, inside);
        }
        while (stack->len > 0 &&
               g_array_index(stack, Target, stack->len - 1).left == 0) {
            g_array_set_size(stack, stack->len - 1);
        }
    }
    return root;
}

/* To text. */

/* An array or object that is being written. */
typedef struct Level {
    const BfJsonNode *node;
    const BfJsonNode *end; /* behind all that is inside */
} Level;

static void
write_node(GString *out, const BfJsonNode *node)
{
    json_t *scalar = NULL;

    if (node->kind == BF_JSON_KIND_ARRAY || node->kind == BF_JSON_KIND_OBJECT) {
        g_string_append_c(out, node->kind == BF_JSON_KIND_ARRAY ? '[' : '{');
    } else if (node->kind == BF_JSON_KIND_STRING) {
        bf_json_write_str(out, node->u.text, node->size);
    } else {
        scalar = to_scalar(node);
        bf_json_write(out, scalar, BF_JSON_STYLE_COMPACT);
        json_decref(scalar);
    }
}

/* Writes what ends at @node, and the separator between it and what follows. */
static void
write_ends(GString *out, GArray *stack, const BfJsonNode *node)
{
    while (stack->len > 0) {
        const Level *level = &g_array_index(stack, Level, stack->len - 1);

        if (node < level->end) {
            if (node > level->node + 1) {
                g_string_append(out, ", ");
            }
            return;
        }
        g_string_append_c(out,
                          level->node->kind == BF_JSON_KIND_ARRAY ? ']' : '}');
        g_array_set_size(stack, stack->len - 1);
    }
}

void
bf_json_node_write(GString *out, const BfJsonNode *node)
{
    g_autoptr(GArray) stack = g_array_new(false, false, sizeof(Level));
    const BfJsonNode *end = bf_json_node_next(node);

    while (node < end) {
        bf_wipe_reserve(out, 128);
        if (stack->len > 0 &&
            g_array_index(stack, Level, stack->len - 1).node->kind ==
                BF_JSON_KIND_OBJECT) {
            bf_json_write_key(out, node->u.text);
            g_string_append(out, ": ");
            node++;
        }
        write_node(out, node);
        if (node->kind >= BF_JSON_KIND_ARRAY) {
            Level level = {.node = node, .end = bf_json_node_next(node)};

            g_array_append_val(stack, level);
        }
        write_ends(out, stack, ++node);
    }
}
