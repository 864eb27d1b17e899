/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Free and copy any generated type by its description. A field's pointer is
 * owned by its object, and NULL is allowed everywhere: readers free what they
 * have built so far when they fail.
 */
#include "schema/type-info.h"

#include <string.h>

/* What every generated list looks like. */
typedef struct AnyList {
    size_t len;
    void *items;
} AnyList;

static void *
field_at(const BfField *field, const void *object)
{
    return (char *)object + field->offset;
}

static void clear_object(const BfTypeInfo *info, void *object);

static void
clear_field(const BfField *field, void *where)
{
    void *owned;

    if (field->kind >= BF_FIELD_BOOL && field->kind <= BF_FIELD_NULL) {
        return; /* owns nothing */
    }
    memcpy(&owned, where, sizeof(owned));
    if (owned == NULL) {
        return;
    }
    if (field->type != NULL) {
        clear_object(field->type, owned);
    } else if (field->kind == BF_FIELD_SECRET || field->kind == BF_FIELD_ANY) {
        explicit_bzero(owned, strlen(owned));
    }
    g_free(owned);
}

static void
clear_object(const BfTypeInfo *info, void *object)
{
    const BfTypeInfo *branch = bf_type_get_branch(info, object);
    const BfField *fields = info->fields;
    size_t n_fields = info->n_fields;

    if (info->kind == BF_TYPE_LIST) {
        AnyList *list = object;

        for (size_t i = 0; i < list->len; i++) {
            clear_field(fields, (char *)list->items + i * fields->width);
        }
        g_free(list->items);
        return;
    }
    if (info->kind == BF_TYPE_ALTERNATE) {
        fields += *(const int *)object;
        n_fields = 1;
    }
    for (size_t i = 0; i < n_fields; i++) {
        clear_field(&fields[i], field_at(&fields[i], object));
    }
    if (branch != NULL) {
        bf_type_free(branch, *(void **)((char *)object + info->branch_offset));
    }
}

void *
bf_type_new(const BfTypeInfo *info)
{
    return g_malloc0(info->size);
}

void
bf_type_free(const BfTypeInfo *info, void *object)
{
    if (object != NULL) {
        clear_object(info, object);
        g_free(object);
    }
}

/* Makes the field at @where, a plain copy so far, own what it points to. */
static void
own_field(const BfField *field, void *where)
{
    void *owned;

    if (field->kind >= BF_FIELD_BOOL && field->kind <= BF_FIELD_NULL) {
        return;
    }
    memcpy(&owned, where, sizeof(owned));
    owned = field->type != NULL ? bf_type_copy(field->type, owned)
                                : g_strdup(owned);
    memcpy(where, &owned, sizeof(owned));
}

void *
bf_type_copy(const BfTypeInfo *info, const void *object)
{
    const BfField *fields = info->fields;
    size_t n_fields = info->n_fields;
    void *copy;

    if (object == NULL) {
        return NULL;
    }
    copy = g_memdup2(object, info->size);
    if (info->kind == BF_TYPE_LIST) {
        AnyList *list = copy;

        list->items = g_memdup2(list->items, list->len * fields->width);
        for (size_t i = 0; i < list->len; i++) {
            own_field(fields, (char *)list->items + i * fields->width);
        }
        return copy;
    }
    if (info->kind == BF_TYPE_ALTERNATE) {
        fields += *(const int *)object;
        n_fields = 1;
    }
    for (size_t i = 0; i < n_fields; i++) {
        own_field(&fields[i], field_at(&fields[i], copy));
    }
    if (bf_type_get_branch(info, object) != NULL) {
        void **branch = (void **)((char *)copy + info->branch_offset);

        *branch = bf_type_copy(bf_type_get_branch(info, object), *branch);
    }
    return copy;
}

static const char *
find_text_at(const BfField *field, const void *where,
             bool (*matches)(const char *text))
{
    void *owned = NULL;

    if (field->type != NULL) {
        memcpy(&owned, where, sizeof(owned));
        return bf_type_find_text(field->type, owned, matches);
    }
    if (field->kind != BF_FIELD_STR) {
        return NULL;
    }
    memcpy(&owned, where, sizeof(owned));
    return owned != NULL && matches(owned) ? owned : NULL;
}

const char *
bf_type_find_text(const BfTypeInfo *info, const void *object,
                  bool (*matches)(const char *text))
{
    const BfTypeInfo *branch = NULL;
    const BfField *fields = info->fields;
    size_t n_fields = info->n_fields;
    const char *found = NULL;

    if (object == NULL) {
        return NULL;
    }
    if (info->kind == BF_TYPE_LIST) {
        const AnyList *list = object;

        for (size_t i = 0; i < list->len && found == NULL; i++) {
            found = find_text_at(
                fields, (const char *)list->items + i * fields->width, matches);
        }
        return found;
    }
    if (info->kind == BF_TYPE_ALTERNATE) {
        fields += *(const int *)object;
        n_fields = 1;
    }
    for (size_t i = 0; i < n_fields && found == NULL; i++) {
        found = find_text_at(&fields[i], field_at(&fields[i], object), matches);
    }
    branch = bf_type_get_branch(info, object);
    if (found == NULL && branch != NULL) {
        found = bf_type_find_text(
            branch,
            *(void *const *)((const char *)object + info->branch_offset),
            matches);
    }
    return found;
}

const BfField *
bf_type_find_field(const BfTypeInfo *info, const char *name)
{
    for (size_t i = 0; i < info->n_fields; i++) {
        if (g_str_equal(info->fields[i].name, name)) {
            return &info->fields[i];
        }
    }
    return NULL;
}

const BfTypeInfo *
bf_type_get_branch(const BfTypeInfo *info, const void *object)
{
    if (info->kind != BF_TYPE_UNION) {
        return NULL;
    }
    return info->branches[*(const int *)field_at(info->tag, object)];
}

const char *
bf_field_type_name(const BfField *field)
{
    static const char *const ints[] = {
        [1] = "int8", [2] = "int16", [4] = "int32", [8] = "int"};
    static const char *const uints[] = {
        [1] = "uint8", [2] = "uint16", [4] = "uint32", [8] = "uint64"};

    switch (field->kind) {
    case BF_FIELD_BOOL:
        return "bool";
    case BF_FIELD_INT:
        return ints[field->width];
    case BF_FIELD_UINT:
        return uints[field->width];
    case BF_FIELD_SIZE:
        return "size";
    case BF_FIELD_NUMBER:
        return "number";
    case BF_FIELD_ENUM:
        return field->values->name;
    case BF_FIELD_OBJECT:
    case BF_FIELD_ALTERNATE:
    case BF_FIELD_LIST:
        return field->type->name;
    default:
        return "string";
    }
}

const char *
bf_enum_str(const BfEnumInfo *info, int value)
{
    g_assert(value >= 0 && (size_t)value < info->n_values);
    return info->values[value];
}

bool
bf_enum_parse(const BfEnumInfo *info, const char *text, int *ret_value)
{
    for (size_t i = 0; i < info->n_values; i++) {
        if (g_str_equal(info->values[i], text)) {
            *ret_value = (int)i;
            return true;
        }
    }
    return false;
}
