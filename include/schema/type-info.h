/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptions of the generated types, and what works on any type by its
 * description: free, copy, enum text. The tables are generated into
 * schema/types.c; code outside of the schema and the JSON reader has no use for
 * this header and calls the typed functions of schema/types.h.
 *
 * Any thread; none suspends. All recursion is along the nesting of the value,
 * which the readers limit.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * BfFieldKind: how a member is stored
 * @BF_FIELD_STR: char *, UTF-8
 * @BF_FIELD_SECRET: char *, wiped when freed
 * @BF_FIELD_ANY: char *, strict JSON text; it may hold anything, so it is wiped
 *   when freed
 * @BF_FIELD_BOOL: bool
 * @BF_FIELD_INT: signed integer of the field's width
 * @BF_FIELD_UINT: unsigned integer of the field's width
 * @BF_FIELD_SIZE: uint64_t; the command line accepts suffixes
 * @BF_FIELD_NUMBER: double
 * @BF_FIELD_ENUM: int, an index into the enum's values
 * @BF_FIELD_NULL: nothing is stored (alternates only)
 * @BF_FIELD_OBJECT: pointer to a struct or union
 * @BF_FIELD_ALTERNATE: pointer to an alternate
 * @BF_FIELD_LIST: pointer to a list
 */
typedef enum BfFieldKind {
    BF_FIELD_STR,
    BF_FIELD_SECRET,
    BF_FIELD_ANY,
    BF_FIELD_BOOL,
    BF_FIELD_INT,
    BF_FIELD_UINT,
    BF_FIELD_SIZE,
    BF_FIELD_NUMBER,
    BF_FIELD_ENUM,
    BF_FIELD_NULL,
    BF_FIELD_OBJECT,
    BF_FIELD_ALTERNATE,
    BF_FIELD_LIST,
} BfFieldKind;

/**
 * BfFieldPresence: what absence of a member means
 * @BF_FIELD_PRESENCE_REQUIRED: an error
 * @BF_FIELD_PRESENCE_OPTIONAL: has_x is false, or the pointer is NULL
 * @BF_FIELD_PRESENCE_DEFAULT: the default is filled in
 */
typedef enum BfFieldPresence {
    BF_FIELD_PRESENCE_REQUIRED,
    BF_FIELD_PRESENCE_OPTIONAL,
    BF_FIELD_PRESENCE_DEFAULT,
} BfFieldPresence;

typedef struct BfTypeInfo BfTypeInfo;

/**
 * BfEnumInfo: describes an enum
 * @name: name in the schema
 * @values: texts of the values 0, 1, ...
 * @n_values: number of values
 */
typedef struct BfEnumInfo {
    const char *name;
    const char *const *values;
    size_t n_values;
} BfEnumInfo;

/**
 * BfField: describes a member, a choice of an alternate or a list's element
 * @name: name in JSON; NULL for choices and elements
 * @kind: how it is stored
 * @presence: what absence means
 * @width: bytes of what is stored
 * @offset: where it is stored in its struct
 * @has_offset: where its has_ flag is, if bf_field_has_flag()
 * @type: description of the object, alternate or list
 * @values: description of the enum
 * @default_int: default of integers, booleans and enums
 * @default_number: default of numbers
 * @default_str: default of strings
 */
typedef struct BfField {
    const char *name;
    BfFieldKind kind;
    BfFieldPresence presence;
    size_t width;
    size_t offset;
    size_t has_offset;
    const BfTypeInfo *type;
    const BfEnumInfo *values;
    int64_t default_int;
    double default_number;
    const char *default_str;
} BfField;

/**
 * BfTypeKind: the kinds of compound types
 * @BF_TYPE_STRUCT: members, those of the base first
 * @BF_TYPE_UNION: members, and more by the value of the tag
 * @BF_TYPE_ALTERNATE: one of several types, told apart by the JSON type; the
 *   int at offset 0 is the index into @fields
 * @BF_TYPE_LIST: a size_t count and a pointer to the elements
 */
typedef enum BfTypeKind {
    BF_TYPE_STRUCT,
    BF_TYPE_UNION,
    BF_TYPE_ALTERNATE,
    BF_TYPE_LIST,
} BfTypeKind;

/**
 * BfTypeInfo: describes a compound type
 * @name: name in the schema
 * @kind: which kind of type it is
 * @size: bytes of the C struct
 * @fields: members, choices, or the one element description of a list
 * @n_fields: number of @fields
 * @tag: the member of a union that chooses the branch
 * @branches: types of the branches by value of the tag; NULL: no members
 * @branch_offset: where the pointer to the branch is
 */
struct BfTypeInfo {
    const char *name;
    BfTypeKind kind;
    size_t size;
    const BfField *fields;
    size_t n_fields;
    const BfField *tag;
    const BfTypeInfo *const *branches;
    size_t branch_offset;
};

/**
 * bf_type_new:
 * @info: description of the type
 *
 * Returns: (transfer full): a zeroed object of the type
 */
void *bf_type_new(const BfTypeInfo *info);

/**
 * bf_type_free:
 * @info: description of the type
 * @object: (nullable): the object, perhaps half built
 *
 * Frees @object and all that it owns; secrets are wiped first.
 */
void bf_type_free(const BfTypeInfo *info, void *object);

/**
 * bf_type_copy:
 * @info: description of the type
 * @object: (nullable): the object
 *
 * Returns: (transfer full): a deep copy
 */
void *bf_type_copy(const BfTypeInfo *info, const void *object);

/**
 * bf_type_find_text:
 * @info: what @object is
 * @object: (nullable): an object
 * @matches: what to look for
 *
 * Returns: (nullable): the first text in @object, however deep, that @matches;
 *   it belongs to @object
 */
const char *bf_type_find_text(const BfTypeInfo *info, const void *object,
                              bool (*matches)(const char *text));

/**
 * bf_type_find_field:
 * @info: description of a struct or union
 * @name: name of a member in JSON
 *
 * Returns: (transfer none) (nullable): the member, not looking into branches
 */
const BfField *bf_type_find_field(const BfTypeInfo *info, const char *name);

/**
 * bf_type_get_branch:
 * @info: description of a struct or union
 * @object: the object
 *
 * Returns: (transfer none) (nullable): the type of the branch that the tag of
 *   @object selects; NULL for a struct and for a branch without members
 */
const BfTypeInfo *bf_type_get_branch(const BfTypeInfo *info,
                                     const void *object);

/**
 * bf_field_has_flag:
 * @field: description of a member
 *
 * Returns: true if a bool has_x tells whether the member is present
 */
static inline bool
bf_field_has_flag(const BfField *field)
{
    return field->presence == BF_FIELD_PRESENCE_OPTIONAL &&
           field->kind >= BF_FIELD_BOOL && field->kind <= BF_FIELD_ENUM;
}

/**
 * bf_field_type_name:
 * @field: description of a member
 *
 * Returns: (transfer none): the name by which QOM commands call the type of
 *   @field, for example "string", "bool", "uint32" or the name of an enum
 */
const char *bf_field_type_name(const BfField *field);

/**
 * bf_enum_str:
 * @info: description of the enum
 * @value: a value of the enum
 *
 * Returns: (transfer none): the text of @value
 */
const char *bf_enum_str(const BfEnumInfo *info, int value);

/**
 * bf_enum_parse:
 * @info: description of the enum
 * @text: text of a value
 * @ret_value: (out): the value; written on success only
 *
 * Returns: false if @text is not a value of the enum
 */
bool bf_enum_parse(const BfEnumInfo *info, const char *text, int *ret_value);
