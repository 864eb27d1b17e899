/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What can be done with the options of any driver by their description in the
 * schema: compare them for a reopen, and show them as a file name.
 */
#include <inttypes.h>
#include <string.h>

#include "block-private.h"
#include "core/error.h"
#include "schema/type-info.h"

static const void *
field_at(const BfField *field, const void *object)
{
    return (const char *)object + field->offset;
}

static const char *
get_text(const BfField *field, const void *object)
{
    const char *text;

    memcpy(&text, field_at(field, object), sizeof(text));
    return text;
}

static bool
is_present(const BfField *field, const void *object)
{
    if (bf_field_has_flag(field)) {
        return *(const bool *)((const char *)object + field->has_offset);
    }
    return field->kind >= BF_FIELD_BOOL && field->kind <= BF_FIELD_ENUM
               ? true
               : get_text(field, object) != NULL;
}

static bool
is_reference(const BfField *field)
{
    return field->kind == BF_FIELD_ALTERNATE || field->kind == BF_FIELD_LIST ||
           field->kind == BF_FIELD_OBJECT;
}

/* An integer, boolean or enum. */
static int64_t
get_integer(const BfField *field, const void *object)
{
    const void *where = field_at(field, object);

    if (field->kind == BF_FIELD_BOOL) {
        return *(const bool *)where;
    }
    switch (field->width) {
    case 1:
        return *(const uint8_t *)where;
    case 2:
        return *(const uint16_t *)where;
    case 4:
        return *(const int32_t *)where;
    default:
        return *(const int64_t *)where;
    }
}

static bool
is_same(const BfField *field, const void *a, const void *b)
{
    if (is_present(field, a) != is_present(field, b)) {
        return false;
    }
    if (!is_present(field, a)) {
        return true;
    }
    return field->kind <= BF_FIELD_ANY
               ? g_str_equal(get_text(field, a), get_text(field, b))
               : memcmp(field_at(field, a), field_at(field, b), field->width) ==
                     0;
}

static bool
is_default(const BfField *field, const void *object)
{
    if (!is_present(field, object)) {
        return true;
    }
    if (field->presence != BF_FIELD_PRESENCE_DEFAULT ||
        field->kind <= BF_FIELD_ANY || is_reference(field)) {
        return false;
    }
    return get_integer(field, object) == field->default_int;
}

/* The struct of the driver's own options. */
static const void *
get_branch(const BfBlockdevOptions *options)
{
    return options->u.any_branch;
}

/* The element of a list of references that @name ("children.2") names. */
static const BfBlockdevRef *
get_element(const BfField *field, const void *object, const char *name)
{
    const size_t len = strlen(field->name);
    const BfBlockdevRefList *list;
    uint64_t index;

    if (strncmp(name, field->name, len) != 0 || name[len] != '.' ||
        field->type->fields[0].type != &bf_blockdev_ref_type ||
        !g_ascii_string_to_unsigned(name + len + 1, 10, 0, UINT32_MAX, &index,
                                    NULL)) {
        return NULL;
    }
    memcpy(&list, field_at(field, object), sizeof(list));
    return list != NULL && index < list->len ? list->items[index] : NULL;
}

const BfBlockdevRef *
bf_options_child_ref(const BfBlockdevOptions *options, const char *name)
{
    const BfTypeInfo *info =
        bf_type_get_branch(&bf_blockdev_options_type, options);

    for (size_t i = 0; info != NULL && i < info->n_fields; i++) {
        const BfField *field = &info->fields[i];
        const BfBlockdevRef *ref = NULL;

        if (field->type == &bf_blockdev_ref_type &&
            g_str_equal(field->name, name)) {
            memcpy(&ref, field_at(field, get_branch(options)), sizeof(ref));
        } else if (field->kind == BF_FIELD_LIST) {
            ref = get_element(field, get_branch(options), name);
        }
        if (ref != NULL) {
            return ref;
        }
    }
    return NULL;
}

static bool
is_list_of_refs(const BfField *field)
{
    return field->kind == BF_FIELD_LIST &&
           field->type->fields[0].type == &bf_blockdev_ref_type;
}

/* Where the pointer to a member of the driver's own options is. */
static void *
place_of(const BfField *field, BfBlockdevOptions *options)
{
    return (char *)options->u.any_branch + field->offset;
}

void
bf_options_clear_children(BfBlockdevOptions *options)
{
    const BfTypeInfo *info =
        bf_type_get_branch(&bf_blockdev_options_type, options);

    for (size_t i = 0; info != NULL && i < info->n_fields; i++) {
        if (is_list_of_refs(&info->fields[i])) {
            BfBlockdevRefList **place = place_of(&info->fields[i], options);

            bf_blockdev_ref_list_free(*place);
            *place = bf_type_new(&bf_blockdev_ref_list_type);
        }
    }
}

static void
list_append(BfBlockdevRefList *list, BfBlockdevRef *ref)
{
    list->items = g_renew(BfBlockdevRef *, list->items, list->len + 1);
    list->items[list->len++] = ref;
}

void
bf_options_set_child(BfBlockdevOptions *options, const char *name,
                     BfBlockdevRef *ref)
{
    const BfTypeInfo *info =
        bf_type_get_branch(&bf_blockdev_options_type, options);
    const size_t len = strcspn(name, ".");

    for (size_t i = 0; info != NULL && i < info->n_fields; i++) {
        const BfField *field = &info->fields[i];

        if (strlen(field->name) != len ||
            strncmp(field->name, name, len) != 0) {
            continue;
        }
        if (is_list_of_refs(field)) {
            list_append(*(BfBlockdevRefList **)place_of(field, options), ref);
            return;
        }
        if (field->type == &bf_blockdev_ref_type) {
            BfBlockdevRef **place = place_of(field, options);

            bf_blockdev_ref_free(*place);
            *place = ref;
            return;
        }
    }
    g_assert_not_reached(); /* a driver links what its options have */
}

bool
bf_options_check_same(const BfBlockdevOptions *old_options,
                      const BfBlockdevOptions *new_options, GError **error)
{
    const BfTypeInfo *info =
        bf_type_get_branch(&bf_blockdev_options_type, old_options);

    for (size_t i = 0; info != NULL && i < info->n_fields; i++) {
        const BfField *field = &info->fields[i];

        if (is_reference(field) ||
            is_same(field, get_branch(old_options), get_branch(new_options))) {
            continue;
        }
        if (is_default(field, get_branch(new_options))) {
            bf_set_error(error,
                         "Option '%s' cannot be reset to its default value",
                         field->name);
        } else {
            bf_set_error(error, "Cannot change the option '%s'", field->name);
        }
        return false;
    }
    return true;
}

static void
append_string(GString *text, const char *value)
{
    g_string_append_c(text, '"');
    for (const char *c = value; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') {
            g_string_append_c(text, '\\');
            g_string_append_c(text, *c);
        } else if ((unsigned char)*c < 0x20) {
            g_string_append_printf(text, "\\u%04x", (unsigned)*c);
        } else {
            g_string_append_c(text, *c);
        }
    }
    g_string_append_c(text, '"');
}

static void
append_value(GString *text, const BfField *field, const void *object)
{
    switch (field->kind) {
    case BF_FIELD_BOOL:
        g_string_append(text, get_integer(field, object) ? "true" : "false");
        break;
    case BF_FIELD_ENUM:
        append_string(
            text, bf_enum_str(field->values, (int)get_integer(field, object)));
        break;
    case BF_FIELD_STR:
        append_string(text, get_text(field, object));
        break;
    case BF_FIELD_UINT:
    case BF_FIELD_SIZE:
        g_string_append_printf(text, "%" PRIu64,
                               (uint64_t)get_integer(field, object));
        break;
    default:
        g_string_append_printf(text, "%" PRIi64, get_integer(field, object));
        break;
    }
}

/* Options that say how the node is used, not what it is, are left out. */
static bool
is_shown(const BfNode *node, const BfField *field, const void *object)
{
    bool is_file = node->options->driver == BF_BLOCKDEV_DRIVER_FILE ||
                   node->options->driver == BF_BLOCKDEV_DRIVER_HOST_DEVICE;

    return !is_reference(field) && !is_default(field, object) &&
           (!is_file || g_str_equal(field->name, "filename"));
}

/* One member for each child; "children.0" and its like are a list. */
static void
append_children(const BfNode *node, GString *text)
{
    bool in_list = false;

    for (unsigned i = 0; i < node->edges->len; i++) {
        const BfEdge *edge = g_ptr_array_index(node->edges, i);
        const char *dot = strchr(edge->name, '.');

        if (*edge->slot == NULL) {
            continue; /* it is coming or going */
        }
        if (dot != NULL && in_list) {
            g_string_append(text, ", ");
        } else if (dot != NULL) {
            g_string_append_printf(text, ", \"%.*s\": [",
                                   (int)(dot - edge->name), edge->name);
        } else {
            g_string_append_printf(text, ", \"%s\": ", edge->name);
        }
        in_list = dot != NULL;
        bf_options_append_json(*edge->slot, text);
    }
    if (in_list) {
        g_string_append_c(text, ']');
    }
}

void
bf_options_append_json(const BfNode *node, GString *text)
{
    const BfTypeInfo *info;
    const void *branch;

    if (node->options == NULL) {
        bf_options_append_json(node->file, text); /* a job's filter */
        return;
    }
    info = bf_type_get_branch(&bf_blockdev_options_type, node->options);
    branch = get_branch(node->options);
    g_string_append(text, "{\"driver\": ");
    append_string(text, node->driver->name);
    for (size_t i = 0; info != NULL && i < info->n_fields; i++) {
        const BfField *field = &info->fields[i];

        if (is_shown(node, field, branch)) {
            g_string_append_printf(text, ", \"%s\": ", field->name);
            append_value(text, field, branch);
        }
    }
    append_children(node, text);
    g_string_append_c(text, '}');
}
