/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * key=value,... to JSON, in two steps: dotted keys make nested objects, then
 * objects with numbers as keys become arrays. All scalars stay strings; they
 * are bytes of the command line and need not be UTF-8. Messages are QEMU's. A
 * value may be a secret, so its copies are wiped.
 */
#include "qmp/keyval.h"

#include <string.h>

#include "core/error.h"
#include "core/wipe.h"
#include "qmp/json-value.h"

#define FRAGMENT_BYTES_MAX 127
#define FRAGMENTS_MAX BF_READ_DEPTH_MAX

/* One element of the argument. */
typedef struct Element {
    char *key;
    char *value; /* NULL: there was no '=' */
} Element;

static void
element_clear(Element *element)
{
    g_clear_pointer(&element->key, g_free);
    g_clear_pointer(&element->value, bf_wipe_text_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Element, element_clear)

/* Takes a value up to a single comma, which is dropped. */
static char *
take_value(const char **text)
{
    /* Large enough for all of it: it may be a secret and must not move. */
    GString *value = g_string_sized_new(strlen(*text) + 1);
    const char *at = *text;

    for (; *at != '\0'; at++) {
        if (*at == ',' && *++at != ',') {
            break;
        }
        g_string_append_c(value, *at);
    }
    *text = at;
    return g_string_free(value, false);
}

/* Takes the next element; a key ends at '=' or ','. */
static void
take_element(const char **text, Element *ret)
{
    size_t len = strcspn(*text, "=,");
    char end = (*text)[len];

    ret->key = g_strndup(*text, len);
    *text += len + (end != '\0');
    ret->value = end == '=' ? take_value(text) : NULL;
}

static bool
is_help(const Element *element)
{
    return element->value == NULL && (g_str_equal(element->key, "help") ||
                                      g_str_equal(element->key, "?"));
}

/* Length of a name at @text, or of a number if that is allowed; 0 if neither.
 */
static size_t
fragment_len(const char *text, bool number_allowed)
{
    const char *at = text;

    if (number_allowed && g_ascii_isdigit(*at)) {
        return strspn(text, "0123456789");
    }
    if (g_str_has_prefix(at, "__")) { /* __domain_name, of a vendor */
        at += 2;
        while (g_ascii_isalnum(*at) || *at == '-' || *at == '.') {
            at++;
        }
        if (*at++ != '_') {
            return 0;
        }
    }
    if (!g_ascii_isalpha(*at)) {
        return 0;
    }
    while (g_ascii_isalnum(*at) || *at == '_' || *at == '-') {
        at++;
    }
    return (size_t)(at - text);
}

static bool
split_key(const char *key, GPtrArray *ret_fragments, GError **error)
{
    const char *at = key;

    for (;;) {
        size_t len = fragment_len(at, ret_fragments->len > 0);

        if (len == 0 || (at[len] != '.' && at[len] != '\0')) {
            bf_set_error(error, "Invalid parameter '%s'", key);
            return false;
        }
        if (len > FRAGMENT_BYTES_MAX) {
            bf_set_error(error, "Parameter '%.*s' is too long", (int)len, at);
            return false;
        }
        if (ret_fragments->len == FRAGMENTS_MAX) {
            bf_set_error(error, "Parameter '%s' has too many parts", key);
            return false;
        }
        g_ptr_array_add(ret_fragments, g_strndup(at, len));
        if (at[len] == '\0') {
            return true;
        }
        at += len + 1;
    }
}

/* @len: number of bytes of @key that name what is used inconsistently */
static bool
fail_inconsistent(const char *key, size_t len, GError **error)
{
    bf_set_error(error, "Parameters '%.*s.*' used inconsistently", (int)len,
                 key);
    return false;
}

/* Sets the value that @key names, making objects on the way. */
static bool
set_dotted(json_t *object, const char *key, const char *value, GError **error)
{
    g_autoptr(GPtrArray) fragments = g_ptr_array_new_with_free_func(g_free);
    const char *fragment;
    size_t used = 0;

    if (!split_key(key, fragments, error)) {
        return false;
    }
    for (guint i = 0; i + 1 < fragments->len; i++) {
        json_t *inside;

        fragment = g_ptr_array_index(fragments, i);
        used += strlen(fragment) + (i > 0);
        inside = json_object_get(object, fragment);
        if (inside == NULL) {
            inside = json_object();
            json_object_set_new_nocheck(object, fragment, inside);
        } else if (!json_is_object(inside)) {
            return fail_inconsistent(key, used, error);
        }
        object = inside;
    }
    fragment = g_ptr_array_index(fragments, fragments->len - 1);
    if (json_is_object(json_object_get(object, fragment))) {
        return fail_inconsistent(key, strlen(key), error);
    }
    json_object_set_new_nocheck(object, fragment, json_string_nocheck(value));
    return true;
}

/* An array with the members of @object, whose keys are all numbers. */
static json_t *
object_to_array(json_t *object, const char *path, GError **error)
{
    size_t n = json_object_size(object);
    g_autofree json_t **items = g_new0(json_t *, n);
    json_t *array;
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value)
    {
        guint64 index = g_ascii_strtoull(key, NULL, 10);

        if (index < n) { /* else there must be a gap */
            items[index] = value;
        }
    }
    array = json_array();
    for (size_t i = 0; i < n; i++) {
        if (items[i] == NULL) {
            bf_set_error(error, "Parameter '%s.%zu' missing", path, i);
            json_decref(array);
            return NULL;
        }
        json_array_append(array, items[i]);
    }
    return array;
}

/* Replaces by arrays what must be arrays. Returns a new reference. */
static json_t *
make_arrays(json_t *object, const char *path, GError **error)
{
    size_t numbers = 0;
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value)
    {
        numbers += g_ascii_isdigit(key[0]);
        if (json_is_object(value)) {
            g_autofree char *name = path[0] == '\0'
                                        ? g_strdup(key)
                                        : g_strdup_printf("%s.%s", path, key);
            json_t *made = make_arrays(value, name, error);

            if (made == NULL) {
                return NULL;
            }
            json_object_set_new_nocheck(object, key, made);
        }
    }
    if (numbers == 0) {
        return json_incref(object);
    }
    if (numbers < json_object_size(object)) {
        fail_inconsistent(path, strlen(path), error);
        return NULL;
    }
    return object_to_array(object, path, error);
}

static bool
add_element(json_t *object, const Element *element, BfKeyvalFlags flags,
            GError **error)
{
    if (flags & BF_KEYVAL_FLAT) {
        if (element->key[0] == '\0') {
            bf_set_error(error, "Invalid parameter ''");
            return false;
        }
        if (element->value == NULL && g_str_equal(element->key, "nowait")) {
            json_object_set_new_nocheck(object, "wait", json_string("off"));
            return true;
        }
        json_object_set_new_nocheck(object, element->key,
                                    json_string_nocheck(element->value != NULL
                                                            ? element->value
                                                            : "on"));
        return true;
    }
    if (element->value != NULL) {
        return set_dotted(object, element->key, element->value, error);
    }
    if (element->key[0] == '\0') {
        bf_set_error(error, "Invalid parameter ''");
    } else {
        bf_set_error(error, "Expected '=' after parameter '%s'", element->key);
    }
    return false;
}

/* Adds the elements of @text to @object. */
static bool
parse_elements(json_t *object, const char *text, const char *implied,
               BfKeyvalFlags flags, GError **error)
{
    const char *start = text;
    bool after_data = false;

    while (*text != '\0') {
        const bool is_first = text == start;
        g_auto(Element) element = {0};

        take_element(&text, &element);
        if (after_data && element.value == NULL && !(flags & BF_KEYVAL_FLAT)) {
            /* It is likely a part of a secret, so it is not repeated. */
            bf_set_error(error, "Expected '=' after the value of 'data'; write "
                                "a comma in it twice");
            return false;
        }
        after_data = g_str_equal(element.key, "data");
        if (is_help(&element)) {
            bf_set_error(error, "Help is not available for this option");
            return false;
        }
        if (is_first && implied != NULL && element.value == NULL &&
            element.key[0] != '\0') {
            element.value = element.key;
            element.key = g_strdup(implied);
        }
        if (!add_element(object, &element, flags, error)) {
            return false;
        }
    }
    return true;
}

json_t *
bf_keyval_parse(const char *text, const char *implied, BfKeyvalFlags flags,
                BfReadMode *ret_mode, GError **error)
{
    json_t *object;
    json_t *result = NULL;

    if (text[0] == '{' && !(flags & BF_KEYVAL_FLAT)) {
        *ret_mode = BF_READ_MODE_STRICT;
        return bf_json_parse_text(text, error);
    }
    *ret_mode = BF_READ_MODE_KEYVAL;
    object = json_object();
    if (parse_elements(object, text, implied, flags, error)) {
        result = make_arrays(object, "", error);
    }
    json_decref(object);
    return result;
}

bool
bf_keyval_wants_help(const char *text, bool implied, char **ret_kind)
{
    g_autofree char *kind = NULL;
    const char *start = text;

    while (*text != '\0' && *start != '{') {
        const bool is_first = text == start;
        g_auto(Element) element = {0};

        take_element(&text, &element);
        if (is_help(&element)) {
            if (ret_kind != NULL) {
                *ret_kind = g_steal_pointer(&kind);
            }
            return true;
        }
        if (is_first && implied && element.value == NULL) {
            kind = g_steal_pointer(&element.key);
        }
    }
    return false;
}
