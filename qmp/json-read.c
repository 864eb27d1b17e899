/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From JSON values to C objects. One Place for each level of the value lies on
 * the stack; the path in a message is put together only when something is
 * wrong. Half-built objects are freed by the type's description, so every
 * allocation goes into its object before anything can fail.
 */
#include "qmp/json-read.h"

#include <string.h>

#include "core/error.h"
#include "qmp/number.h"

/* Longest text of a client that is repeated in a message. */
#define ECHO_MAX 200

/* Where in the value the reader is. */
typedef struct Place {
    const struct Place *parent; /* NULL for the outermost object */
    const char *name;           /* NULL for an element of an array */
    size_t index;               /* of an element */
    unsigned depth;             /* number of objects around it */
    BfReadMode mode;
    GError **error;
} Place;

static bool read_field(const Place *place, const BfField *field,
                       const BfJsonNode *value, void *where);
static void *read_object(const Place *place, const BfTypeInfo *type,
                         const BfJsonNode *value);

static void
append_path(GString *out, const Place *place)
{
    if (place->parent != NULL) {
        append_path(out, place->parent);
    }
    if (place->name != NULL) {
        g_string_append(out, out->len > 0 ? "." : "");
        g_string_append(out, place->name);
    } else if (place->parent != NULL) {
        g_string_append_printf(
            out, place->mode == BF_READ_MODE_KEYVAL ? ".%zu" : "[%zu]",
            place->index);
    }
}

/* Always fails. @format has one %s, for the path of @place. */
G_GNUC_PRINTF(2, 0)
static bool
fail(const Place *place, const char *format)
{
    g_autoptr(GString) path = g_string_new(NULL);

    append_path(path, place);
    bf_set_error(place->error, format, path->str);
    return false;
}

static bool
fail_type(const Place *place, const char *expected)
{
    g_autofree char *format = g_strdup_printf(
        "Invalid parameter type for '%%s', expected: %s", expected);

    return fail(place, format);
}

static bool
fail_expects(const Place *place, const char *expected)
{
    g_autofree char *format =
        g_strdup_printf("Parameter '%%s' expects %s", expected);

    return fail(place, format);
}

/* A client's text, cut to what fits into a message. */
static char *
clip(const char *text)
{
    g_autofree char *start = g_strndup(text, ECHO_MAX);
    g_autofree char *valid = g_utf8_make_valid(start, -1);

    return g_strconcat(valid, strlen(start) < strlen(text) ? "..." : NULL,
                       NULL);
}

/* The text of a scalar in keyval mode, or NULL after setting an error. */
static const char *
keyval_text(const Place *place, const BfJsonNode *value)
{
    const char *text = bf_json_node_text(value);

    if (text == NULL) {
        fail(place, "Parameters '%s.*' are unexpected");
    }
    return text;
}

static bool
read_str(const Place *place, const BfJsonNode *value, char **ret)
{
    const char *text = bf_json_node_text(value);

    if (place->mode == BF_READ_MODE_KEYVAL &&
        keyval_text(place, value) == NULL) {
        return false;
    }
    if (text == NULL) {
        return fail_type(place, "string");
    }
    if (strlen(text) != bf_json_node_size(value)) {
        return fail(place, "Parameter '%s' must not contain a NUL character");
    }
    *ret = g_strdup(text);
    return true;
}

static bool
read_any(const BfJsonNode *value, char **ret)
{
    GString *text = g_string_new(NULL);

    bf_json_node_write(text, value);
    *ret = g_string_free(text, false);
    return true;
}

static bool
is_boolean(const BfJsonNode *value)
{
    return bf_json_node_is(value, BF_JSON_KIND_TRUE) ||
           bf_json_node_is(value, BF_JSON_KIND_FALSE);
}

static bool
read_bool(const Place *place, const BfJsonNode *value, bool *ret)
{
    const char *text;

    if (place->mode == BF_READ_MODE_STRICT) {
        *ret = bf_json_node_is(value, BF_JSON_KIND_TRUE);
        return is_boolean(value) || fail_type(place, "boolean");
    }
    text = keyval_text(place, value);
    if (text == NULL) {
        return false;
    }
    return bf_parse_bool(text, ret) || fail_expects(place, "'on' or 'off'");
}

static bool
get_int(const Place *place, const BfJsonNode *value, int64_t *ret)
{
    const char *text;

    if (place->mode == BF_READ_MODE_STRICT) {
        *ret = bf_json_node_integer(value);
        return bf_json_node_is(value, BF_JSON_KIND_INTEGER) ||
               fail_type(place, "integer");
    }
    text = keyval_text(place, value);
    if (text == NULL) {
        return false;
    }
    return bf_parse_int(text, ret) || fail_expects(place, "integer");
}

static bool
read_int(const Place *place, const BfField *field, const BfJsonNode *value,
         void *where)
{
    int64_t number;
    g_autofree char *name =
        g_strdup_printf("int%u_t", (unsigned)field->width * 8);

    if (!get_int(place, value, &number)) {
        return false;
    }
    switch (field->width) {
    case 1:
        *(int8_t *)where = (int8_t)number;
        return number == (int8_t)number || fail_expects(place, name);
    case 2:
        *(int16_t *)where = (int16_t)number;
        return number == (int16_t)number || fail_expects(place, name);
    case 4:
        *(int32_t *)where = (int32_t)number;
        return number == (int32_t)number || fail_expects(place, name);
    default:
        *(int64_t *)where = number;
        return true;
    }
}

/* @ret_negative instead of a failure, since the message depends on the type */
static bool
get_uint(const Place *place, const BfJsonNode *value, uint64_t *ret,
         bool *ret_negative)
{
    const char *text;

    *ret_negative = false;
    if (place->mode == BF_READ_MODE_STRICT) {
        *ret = (uint64_t)bf_json_node_integer(value);
        *ret_negative = bf_json_node_integer(value) < 0;
        return bf_json_node_is(value, BF_JSON_KIND_INTEGER) ||
               bf_json_node_big(value, ret) || fail_expects(place, "uint64");
    }
    text = keyval_text(place, value);
    if (text == NULL) {
        return false;
    }
    *ret_negative = text[0] == '-';
    return bf_parse_uint(text + *ret_negative, ret) ||
           fail_expects(place, "integer");
}

static bool
read_uint(const Place *place, const BfField *field, const BfJsonNode *value,
          void *where)
{
    uint64_t number;
    bool negative;
    g_autofree char *name =
        g_strdup_printf("uint%u_t", (unsigned)field->width * 8);

    if (!get_uint(place, value, &number, &negative)) {
        return false;
    }
    if (negative) {
        return fail_expects(place,
                            field->width == 8 ? "a non-negative value" : name);
    }
    switch (field->width) {
    case 1:
        *(uint8_t *)where = (uint8_t)number;
        return number == (uint8_t)number || fail_expects(place, name);
    case 2:
        *(uint16_t *)where = (uint16_t)number;
        return number == (uint16_t)number || fail_expects(place, name);
    case 4:
        *(uint32_t *)where = (uint32_t)number;
        return number == (uint32_t)number || fail_expects(place, name);
    default:
        *(uint64_t *)where = number;
        return true;
    }
}

static bool
read_size(const Place *place, const BfField *field, const BfJsonNode *value,
          void *where)
{
    const char *text;

    if (place->mode == BF_READ_MODE_STRICT) {
        return read_uint(place, field, value, where);
    }
    text = keyval_text(place, value);
    if (text == NULL) {
        return false;
    }
    return bf_parse_size(text, where) || fail_expects(place, "size");
}

static bool
read_number(const Place *place, const BfJsonNode *value, double *ret)
{
    const char *text;

    if (place->mode == BF_READ_MODE_STRICT) {
        return bf_json_node_number(value, ret) || fail_type(place, "number");
    }
    text = keyval_text(place, value);
    if (text == NULL) {
        return false;
    }
    return bf_parse_number(text, ret) || fail_type(place, "number");
}

/* Clients know this message with the last part of the path only. */
static bool
fail_enum(const Place *place, const char *text)
{
    g_autofree char *value = clip(text);
    g_autoptr(GString) name = g_string_new(NULL);
    Place leaf = *place;
    Place array;

    leaf.parent = NULL;
    if (place->name == NULL && place->parent != NULL) {
        array = *place->parent;
        array.parent = NULL;
        leaf.parent = &array;
    }
    append_path(name, &leaf);
    bf_set_error(place->error, "Parameter '%s' does not accept value '%s'",
                 name->str, value);
    return false;
}

static bool
read_enum(const Place *place, const BfEnumInfo *values, const BfJsonNode *value,
          int *ret)
{
    g_autofree char *text = NULL;

    return read_str(place, value, &text) &&
           (bf_enum_parse(values, text, ret) || fail_enum(place, text));
}

/* Whether a value can be read as a choice of an alternate. */
static bool
choice_fits(BfFieldKind kind, const BfJsonNode *value, BfReadMode mode)
{
    const char *text = bf_json_node_text(value);
    double number;
    bool flag;

    switch (kind) {
    case BF_FIELD_STR:
    case BF_FIELD_SECRET:
    case BF_FIELD_ENUM:
        return text != NULL;
    case BF_FIELD_BOOL:
        return is_boolean(value) ||
               (mode == BF_READ_MODE_KEYVAL && text != NULL &&
                bf_parse_bool(text, &flag));
    case BF_FIELD_INT:
    case BF_FIELD_UINT:
    case BF_FIELD_SIZE:
        return bf_json_node_is(value, BF_JSON_KIND_INTEGER) ||
               bf_json_node_is(value, BF_JSON_KIND_BIG) ||
               (mode == BF_READ_MODE_KEYVAL && text != NULL &&
                g_ascii_isdigit(text[0]));
    case BF_FIELD_NUMBER:
        return bf_json_node_number(value, &number) ||
               (mode == BF_READ_MODE_KEYVAL && text != NULL);
    case BF_FIELD_NULL:
        return bf_json_node_is(value, BF_JSON_KIND_NULL);
    case BF_FIELD_LIST:
        return bf_json_node_is(value, BF_JSON_KIND_ARRAY);
    default:
        return bf_json_node_is(value, BF_JSON_KIND_OBJECT);
    }
}

static void *
read_alternate(const Place *place, const BfTypeInfo *type,
               const BfJsonNode *value)
{
    int *object = bf_type_new(type); /* begins with its kind */

    for (size_t i = 0; i < type->n_fields; i++) {
        const BfField *choice = &type->fields[i];

        if (choice_fits(choice->kind, value, place->mode)) {
            *object = (int)i;
            if (read_field(place, choice, value,
                           (char *)object + choice->offset)) {
                return object;
            }
            bf_type_free(type, object);
            return NULL;
        }
    }
    bf_type_free(type, object);
    fail_type(place, type->name);
    return NULL;
}

static void *
read_list(const Place *place, const BfTypeInfo *type, const BfJsonNode *value)
{
    const BfField *element = type->fields;
    const BfJsonNode *item = NULL;
    struct {
        size_t len;
        char *items;
    } * list;

    if (!bf_json_node_is(value, BF_JSON_KIND_ARRAY)) {
        fail_type(place, "array");
        return NULL;
    }
    list = bf_type_new(type);
    list->len = bf_json_node_size(value);
    list->items = g_malloc0_n(list->len, element->width);
    for (size_t i = 0; i < list->len; i++) {
        Place inside = *place;

        item = i == 0 ? bf_json_node_begin(value) : bf_json_node_next(item);
        inside.parent = place;
        inside.name = NULL;
        inside.index = i;
        if (!read_field(&inside, element, item,
                        list->items + i * element->width)) {
            bf_type_free(type, list);
            return NULL;
        }
    }
    return list;
}

static bool
read_pointer(const Place *place, const BfField *field, const BfJsonNode *value,
             void **where)
{
    switch (field->kind) {
    case BF_FIELD_ALTERNATE:
        *where = read_alternate(place, field->type, value);
        break;
    case BF_FIELD_LIST:
        *where = read_list(place, field->type, value);
        break;
    default:
        *where = read_object(place, field->type, value);
    }
    return *where != NULL;
}

static bool
read_field(const Place *place, const BfField *field, const BfJsonNode *value,
           void *where)
{
    switch (field->kind) {
    case BF_FIELD_STR:
    case BF_FIELD_SECRET:
        return read_str(place, value, where);
    case BF_FIELD_ANY:
        return read_any(value, where);
    case BF_FIELD_BOOL:
        return read_bool(place, value, where);
    case BF_FIELD_INT:
        return read_int(place, field, value, where);
    case BF_FIELD_UINT:
        return read_uint(place, field, value, where);
    case BF_FIELD_SIZE:
        return read_size(place, field, value, where);
    case BF_FIELD_NUMBER:
        return read_number(place, value, where);
    case BF_FIELD_ENUM:
        return read_enum(place, field->values, value, where);
    case BF_FIELD_NULL:
        return bf_json_node_is(value, BF_JSON_KIND_NULL) ||
               fail_type(place, "null");
    default:
        return read_pointer(place, field, value, where);
    }
}

static void
set_default(const BfField *field, void *where)
{
    switch (field->kind) {
    case BF_FIELD_STR:
        *(char **)where = g_strdup(field->default_str);
        break;
    case BF_FIELD_NUMBER:
        *(double *)where = field->default_number;
        break;
    case BF_FIELD_BOOL:
        *(bool *)where = field->default_int != 0;
        break;
    default:
        switch (field->width) {
        case 1:
            *(int8_t *)where = (int8_t)field->default_int;
            break;
        case 2:
            *(int16_t *)where = (int16_t)field->default_int;
            break;
        case 4:
            *(int32_t *)where = (int32_t)field->default_int;
            break;
        default:
            *(int64_t *)where = field->default_int;
        }
    }
}

#define LOADED_TODAY "objects are loaded when they are made; leave it out"
#define LEGACY_TODAY                                                           \
    "an address is {\"type\": \"inet\", \"data\": {\"host\": ..., \"port\": "  \
    "...}} or {\"type\": \"unix\", \"data\": {\"path\": ...}}"

/* Members that old clients still send, and that they do not send, and what is
 * right today. */
typedef struct OldForm {
    const char *type;
    const char *member;
    const char *today;
} OldForm;

static const OldForm gone[] = {
    {"ObjectOptions", "props", "give its members beside 'qom-type' and 'id'"},
    {"BlockExportOptionsNbd", "bitmap", "give a list of names as 'bitmaps'"},
    {"SecretProperties", "loaded", LOADED_TODAY},
    {"TlsCredsAnonProperties", "loaded", LOADED_TODAY},
    {"TlsCredsPskProperties", "loaded", LOADED_TODAY},
    {"TlsCredsX509Properties", "loaded", LOADED_TODAY},
};

static const OldForm come[] = {
    {"SocketAddressLegacy", "type", LEGACY_TODAY},
    {"InetSocketAddressWrapper", "data", LEGACY_TODAY},
    {"UnixSocketAddressWrapper", "data", LEGACY_TODAY},
};

/* @type may be NULL. Returns NULL if there is nothing to say. */
static const char *
find_today(const OldForm *forms, size_t n_forms, const BfTypeInfo *type,
           const char *member)
{
    for (size_t i = 0; i < n_forms; i++) {
        if (type != NULL && strcmp(forms[i].type, type->name) == 0 &&
            strcmp(forms[i].member, member) == 0) {
            return forms[i].today;
        }
    }
    return NULL;
}

/* Fails with what is wrong with a member, and what is right. */
static bool
fail_member(const Place *place, const char *problem, const char *today)
{
    g_autofree char *format =
        g_strdup_printf("Parameter '%%s' is %s%s%s", problem,
                        today != NULL ? ": " : "", today != NULL ? today : "");

    return fail(place, format);
}

/* Adds the number of members that @value has to @known. */
static bool
read_members(const Place *place, const BfTypeInfo *type,
             const BfJsonNode *value, void *object, size_t *known)
{
    for (size_t i = 0; i < type->n_fields; i++) {
        const BfField *field = &type->fields[i];
        const BfJsonNode *member = bf_json_node_find(value, field->name);
        char *where = (char *)object + field->offset;
        Place inside = *place;

        inside.parent = place;
        inside.name = field->name;
        if (member != NULL) {
            *known += 1;
            if (bf_field_has_flag(field)) {
                *(bool *)((char *)object + field->has_offset) = true;
            }
            if (!read_field(&inside, field, member, where)) {
                return false;
            }
        } else if (field->presence == BF_FIELD_PRESENCE_REQUIRED) {
            return fail_member(
                &inside, "missing",
                find_today(come, G_N_ELEMENTS(come), type, field->name));
        } else if (field->presence == BF_FIELD_PRESENCE_DEFAULT) {
            set_default(field, where);
        }
    }
    return true;
}

static bool
refuse_member(const Place *place, const BfTypeInfo *type,
              const BfTypeInfo *branch)
{
    const char *today = find_today(gone, G_N_ELEMENTS(gone), type, place->name);

    if (today == NULL) {
        today = find_today(gone, G_N_ELEMENTS(gone), branch, place->name);
    }
    return fail_member(place, "unexpected", today);
}

static bool
refuse_unknown(const Place *place, const BfTypeInfo *type,
               const BfTypeInfo *branch, const BfJsonNode *value)
{
    const BfJsonNode *member = NULL;

    for (size_t i = 0; i < bf_json_node_size(value); i++) {
        const char *key = NULL;

        member = i == 0 ? bf_json_node_begin(value)
                        : bf_json_node_next(bf_json_node_next(member));
        key = bf_json_node_text(member);
        if ((type == NULL || bf_type_find_field(type, key) == NULL) &&
            (branch == NULL || bf_type_find_field(branch, key) == NULL)) {
            g_autofree char *name = clip(key);
            Place inside = *place;

            inside.parent = place;
            inside.name = name;
            return refuse_member(&inside, type, branch);
        }
    }
    return true;
}

static bool
fill_object(const Place *place, const BfTypeInfo *type, const BfJsonNode *value,
            char *object)
{
    const BfTypeInfo *branch;
    size_t known = 0;

    if (!read_members(place, type, value, object, &known)) {
        return false;
    }
    branch = bf_type_get_branch(type, object);
    if (branch != NULL) {
        void *inside = bf_type_new(branch);

        *(void **)(object + type->branch_offset) = inside;
        if (!read_members(place, branch, value, inside, &known)) {
            return false;
        }
    }
    return known == bf_json_node_size(value) ||
           refuse_unknown(place, type, branch, value);
}

static void *
read_object(const Place *place, const BfTypeInfo *type, const BfJsonNode *value)
{
    Place here = *place;
    void *object;

    if (!bf_json_node_is(value, BF_JSON_KIND_OBJECT)) {
        fail_type(place, "object");
        return NULL;
    }
    here.depth++;
    if (here.depth > BF_READ_DEPTH_MAX) {
        fail(place, "Parameter '%s' is nested too deeply; use the names of "
                    "existing nodes");
        return NULL;
    }
    object = bf_type_new(type);
    if (!fill_object(&here, type, value, object)) {
        bf_type_free(type, object);
        return NULL;
    }
    return object;
}

void *
bf_json_read_node(const BfTypeInfo *type, const BfJsonNode *node,
                  BfReadMode mode, GError **error)
{
    const Place top = {.mode = mode, .error = error};
    g_autoptr(BfJsonDoc) empty = NULL;
    json_t *none = NULL;

    if (node != NULL) {
        return read_object(&top, type, node);
    }
    none = json_object();
    empty = bf_json_doc_new_value(none);
    json_decref(none);
    return read_object(&top, type, bf_json_doc_root(empty));
}

void *
bf_json_read_object(const BfTypeInfo *type, const json_t *value,
                    BfReadMode mode, GError **error)
{
    g_autoptr(BfJsonDoc) doc =
        value != NULL ? bf_json_doc_new_value(value) : NULL;

    return bf_json_read_node(type, doc != NULL ? bf_json_doc_root(doc) : NULL,
                             mode, error);
}

bool
bf_json_read_none(const BfJsonNode *node, GError **error)
{
    const Place top = {.error = error};

    return node == NULL || refuse_unknown(&top, NULL, NULL, node);
}
