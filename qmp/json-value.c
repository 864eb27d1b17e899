/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * JSON values by our rules. Values that go to clients are made here, so that
 * they are valid UTF-8 and no text of ours can be mistaken for a big integer.
 */
#include "qmp/json-value.h"

#include <string.h>

#include "core/error.h"
#include "qmp/framer.h"
#include "qmp/json-doc.h"

#define MARK_LEN (sizeof(BF_JSON_MARK) - 1)

json_t *
bf_json_str(const char *text)
{
    g_autofree char *valid = g_utf8_make_valid(text, -1);

    if (g_str_has_prefix(valid, BF_JSON_MARK)) {
        valid[MARK_LEN - 1] = (char)0xBD; /* U+FFFF to U+FFFD */
    }
    return json_string(valid);
}

json_t *
bf_json_uint(uint64_t value)
{
    char text[MARK_LEN + 21];

    if (value <= INT64_MAX) {
        return json_integer((json_int_t)value);
    }
    g_snprintf(text, sizeof(text), BF_JSON_MARK "%" G_GUINT64_FORMAT, value);
    return json_string(text);
}

bool
bf_json_get_big_uint(const json_t *value, uint64_t *ret_number)
{
    const char *text = json_string_value(value);

    if (text == NULL || !g_str_has_prefix(text, BF_JSON_MARK)) {
        return false;
    }
    *ret_number = g_ascii_strtoull(text + MARK_LEN, NULL, 10);
    return true;
}

json_t *
bf_json_parse_frame(const char *text, size_t len, GError **error)
{
    char *copy = g_malloc(len + 1);
    g_autoptr(BfJsonDoc) doc = NULL;

    memcpy(copy, text, len);
    copy[len] = '\0';
    doc = bf_json_doc_parse(copy, len, error);
    return doc != NULL ? bf_json_doc_to_value(doc) : NULL;
}

json_t *
bf_json_parse_text(const char *text, GError **error)
{
    g_autoptr(BfFramer) framer = bf_framer_new();
    g_autoptr(BfFrame) frame = NULL;
    g_autoptr(BfFrame) more = NULL;

    bf_framer_feed(framer, text, strlen(text));
    bf_framer_feed(framer, "\n", 1); /* ends a number or keyword */
    frame = bf_framer_next(framer);
    more = frame != NULL ? bf_framer_next(framer) : NULL;
    if (frame != NULL && frame->error != NULL) {
        bf_set_error(error, "%s", frame->error);
        return NULL;
    }
    if (frame == NULL) {
        bf_set_error(error, "JSON parse error, premature EOI");
        return NULL;
    }
    if (more != NULL || bf_framer_is_inside(framer)) {
        bf_set_error(error, "Expecting at most one JSON value");
        return NULL;
    }
    return bf_json_parse_frame(frame->text, frame->len, error);
}

static json_t *
from_int(const BfField *field, const void *where)
{
    switch (field->width) {
    case 1:
        return json_integer(*(const int8_t *)where);
    case 2:
        return json_integer(*(const int16_t *)where);
    case 4:
        return json_integer(*(const int32_t *)where);
    default:
        return json_integer(*(const int64_t *)where);
    }
}

static json_t *
from_uint(const BfField *field, const void *where)
{
    switch (field->width) {
    case 1:
        return json_integer(*(const uint8_t *)where);
    case 2:
        return json_integer(*(const uint16_t *)where);
    case 4:
        return json_integer(*(const uint32_t *)where);
    default:
        return bf_json_uint(*(const uint64_t *)where);
    }
}

static json_t *
from_any(const char *text)
{
    json_t *value = bf_json_parse_text(text, NULL);

    g_assert(value != NULL); /* "any" members hold strict JSON */
    return value;
}

static json_t *
from_field(const BfField *field, const void *where, BfSecretMode secrets)
{
    switch (field->kind) {
    case BF_FIELD_STR:
        return bf_json_str(*(char *const *)where);
    case BF_FIELD_SECRET:
        return secrets == BF_SECRET_MODE_REVEAL
                   ? bf_json_str(*(char *const *)where)
                   : json_string("***");
    case BF_FIELD_ANY:
        return from_any(*(char *const *)where);
    case BF_FIELD_BOOL:
        return json_boolean(*(const bool *)where);
    case BF_FIELD_INT:
        return from_int(field, where);
    case BF_FIELD_UINT:
    case BF_FIELD_SIZE:
        return from_uint(field, where);
    case BF_FIELD_NUMBER:
        return json_real(*(const double *)where);
    case BF_FIELD_ENUM:
        return json_string(bf_enum_str(field->values, *(const int *)where));
    case BF_FIELD_NULL:
        return json_null();
    default:
        return bf_json_from_object(field->type, *(void *const *)where, secrets);
    }
}

static bool
is_present(const BfField *field, const bool *flag, const void *where)
{
    if (bf_field_has_flag(field)) {
        return *flag;
    }
    if (field->presence == BF_FIELD_PRESENCE_OPTIONAL) {
        return *(void *const *)where != NULL;
    }
    return true;
}

static void
add_members(json_t *json, const BfTypeInfo *type, const void *object,
            BfSecretMode secrets)
{
    const BfTypeInfo *branch = bf_type_get_branch(type, object);

    for (size_t i = 0; i < type->n_fields; i++) {
        const BfField *field = &type->fields[i];
        const char *base = object;
        const char *where = base + field->offset;

        if (is_present(field, (const bool *)(base + field->has_offset),
                       where)) {
            json_object_set_new(json, field->name,
                                from_field(field, where, secrets));
        }
    }
    if (branch != NULL) {
        add_members(
            json, branch,
            *(void *const *)((const char *)object + type->branch_offset),
            secrets);
    }
}

static json_t *
from_list(const BfField *element, const void *object, BfSecretMode secrets)
{
    const struct {
        size_t len;
        const char *items;
    } *list = object;
    json_t *json = json_array();

    for (size_t i = 0; list != NULL && i < list->len; i++) {
        json_array_append_new(
            json,
            from_field(element, list->items + i * element->width, secrets));
    }
    return json;
}

json_t *
bf_json_from_object(const BfTypeInfo *type, const void *object,
                    BfSecretMode secrets)
{
    json_t *json;

    if (type->kind == BF_TYPE_LIST) {
        return from_list(type->fields, object, secrets);
    }
    g_assert(object != NULL); /* a mandatory member must be there */
    if (type->kind == BF_TYPE_ALTERNATE) {
        const BfField *choice = &type->fields[*(const int *)object];

        return from_field(choice, (const char *)object + choice->offset,
                          secrets);
    }
    json = json_object();
    add_members(json, type, object, secrets);
    return json;
}
