/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QMP commands on objects and their properties.
 *
 * The tree that the qom- commands show is small: /objects holds the objects
 * that users made, /chardevs the character devices. Properties come from the
 * description of the schema types, so that a new kind of object needs nothing
 * here but perhaps a row in parents[].
 */
#include <string.h>

#include "core/error.h"
#include "qmp/dispatch.h"
#include "qmp/gen-commands.h"
#include "qmp/gen-json.h"
#include "qmp/json-value.h"
#include "qmp/monitors-private.h"

bool
bf_qmp_co_object_add(BfQmpCall *call, const BfObjectOptions *args,
                     GError **error)
{
    return bf_objects_co_add(call->daemon->objects, args, error);
}

bool
bf_qmp_co_object_del(BfQmpCall *call, const BfObjectDelArgs *args,
                     GError **error)
{
    return bf_objects_co_del(call->daemon->objects, args->id, error);
}

/* --- kinds --- */

/* A kind that others extend; no object of it can be made. */
typedef struct AbstractKind {
    const char *name;
    const char *parent;           /* (nullable) */
    const BfTypeInfo *properties; /* (nullable) */
} AbstractKind;

static const AbstractKind abstract_kinds[] = {
    {"object", NULL, NULL},
    {"authz", "object", NULL},
    {"chardev", "object", NULL},
    {"event-loop-base", "object", &bf_event_loop_base_properties_type},
    {"secret_common", "object", &bf_secret_common_properties_type},
    {"tls-creds", "object", &bf_tls_creds_properties_type},
};

/* What a kind extends, where that is not "object". */
static const struct {
    const char *name;
    const char *parent;
} parents[] = {
    {"authz-list", "authz"},
    {"authz-list-file", "authz"},
    {"authz-listfile", "authz"},
    {"authz-pam", "authz"},
    {"authz-simple", "authz"},
    {"chardev-null", "chardev"},
    {"chardev-socket", "chardev"},
    {"chardev-stdio", "chardev"},
    {"iothread", "event-loop-base"},
    {"secret", "secret_common"},
    {"secret_keyring", "secret_common"},
    {"tls-creds-anon", "tls-creds"},
    {"tls-creds-psk", "tls-creds"},
    {"tls-creds-x509", "tls-creds"},
};

/* Kinds beside those of object-add. */
static const char *const other_kinds[] = {"chardev-null", "chardev-socket",
                                          "chardev-stdio", "container"};

static const AbstractKind *
find_abstract(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(abstract_kinds); i++) {
        if (strcmp(abstract_kinds[i].name, name) == 0) {
            return &abstract_kinds[i];
        }
    }
    return NULL;
}

static const char *
parent_of(const char *name)
{
    const AbstractKind *abstract = find_abstract(name);

    if (abstract != NULL) {
        return abstract->parent;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(parents); i++) {
        if (strcmp(parents[i].name, name) == 0) {
            return parents[i].parent;
        }
    }
    return "object";
}

static bool
is_user_creatable(const char *name)
{
    BfObjectType type;

    return bf_object_type_parse(name, &type);
}

static bool
implements(const char *name, const char *wanted)
{
    if (wanted == NULL ||
        (strcmp(wanted, "user-creatable") == 0 && is_user_creatable(name))) {
        return true;
    }
    for (; name != NULL; name = parent_of(name)) {
        if (strcmp(name, wanted) == 0) {
            return true;
        }
    }
    return false;
}

static void
add_kind(GPtrArray *list, const char *name, bool is_abstract,
         const char *wanted)
{
    BfObjectTypeInfo *info = NULL;

    if (!implements(name, wanted)) {
        return;
    }
    info = bf_type_new(&bf_object_type_info_type);
    info->name = g_strdup(name);
    info->has_abstract = is_abstract;
    info->abstract = is_abstract;
    info->parent = g_strdup(parent_of(name));
    g_ptr_array_add(list, info);
}

bool
bf_qmp_co_qom_list_types(BfQmpCall *call, const BfQomListTypesArgs *args,
                         BfObjectTypeInfoList **ret_value, GError **error)
{
    g_autoptr(GPtrArray) found = g_ptr_array_new();
    BfObjectTypeInfoList *list = bf_type_new(&bf_object_type_info_list_type);

    for (size_t i = 0; i < bf_object_type_enum.n_values; i++) {
        add_kind(found, bf_object_type_enum.values[i], false, args->implements);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(other_kinds); i++) {
        add_kind(found, other_kinds[i], false, args->implements);
    }
    for (unsigned i = 0; args->abstract && i < G_N_ELEMENTS(abstract_kinds);
         i++) {
        add_kind(found, abstract_kinds[i].name, true, args->implements);
    }
    list->len = found->len;
    list->items = (BfObjectTypeInfo **)g_ptr_array_steal(found, NULL);
    *ret_value = list;
    return true;
}

/* --- properties --- */

static void
add_property(GPtrArray *list, const char *name, const char *type)
{
    BfObjectPropertyInfo *info = bf_type_new(&bf_object_property_info_type);

    info->name = g_strdup(name);
    info->type = g_strdup(type);
    g_ptr_array_add(list, info);
}

static void
add_child(GPtrArray *list, const char *name, const char *kind)
{
    g_autofree char *type = g_strdup_printf("child<%s>", kind);

    add_property(list, name, type);
}

/* @properties may be NULL. */
static void
add_properties(GPtrArray *list, const BfTypeInfo *properties)
{
    for (size_t i = 0; properties != NULL && i < properties->n_fields; i++) {
        add_property(list, properties->fields[i].name,
                     bf_field_type_name(&properties->fields[i]));
    }
}

static BfObjectPropertyInfoList *
to_property_list(GPtrArray *found)
{
    BfObjectPropertyInfoList *list =
        bf_type_new(&bf_object_property_info_list_type);

    list->len = found->len;
    list->items = (BfObjectPropertyInfo **)g_ptr_array_steal(found, NULL);
    return list;
}

static const BfTypeInfo *
properties_of_type(BfObjectType type)
{
    return bf_object_options_type.branches[type];
}

bool
bf_qmp_co_qom_list_properties(BfQmpCall *call,
                              const BfQomListPropertiesArgs *args,
                              BfObjectPropertyInfoList **ret_value,
                              GError **error)
{
    g_autoptr(GPtrArray) found = g_ptr_array_new();
    const AbstractKind *abstract = find_abstract(args->typename);
    BfObjectType type;

    add_property(found, "type", "string");
    if (bf_object_type_parse(args->typename, &type)) {
        add_properties(found, properties_of_type(type));
    } else if (abstract != NULL) {
        add_properties(found, abstract->properties);
    } else {
        bool is_known = false;

        for (unsigned i = 0; i < G_N_ELEMENTS(other_kinds); i++) {
            is_known |= strcmp(other_kinds[i], args->typename) == 0;
        }
        if (!is_known) {
            g_ptr_array_set_free_func(
                found, (GDestroyNotify)bf_object_property_info_free);
            g_set_error(error, BF_ERROR, BF_ERROR_DEVICE_NOT_FOUND,
                        "Class '%s' not found", args->typename);
            return false;
        }
    }
    *ret_value = to_property_list(found);
    return true;
}

/* --- the tree --- */

/* Something that has a path. */
typedef struct Place {
    enum {
        PLACE_ROOT,
        PLACE_OBJECTS,
        PLACE_CHARDEVS,
        PLACE_OBJECT,
        PLACE_CHARDEV
    } kind;
    char *id; /* owned: of an object or character device */
} Place;

/* By its name among objects; NULL if there is none. */
static const char *
chardev_kind(BfQmpCall *call, const char *id)
{
    static const char *const names[] = {
        [BF_CHARDEV_BACKEND_KIND_SOCKET] = "chardev-socket",
        [BF_CHARDEV_BACKEND_KIND_STDIO] = "chardev-stdio",
        [BF_CHARDEV_BACKEND_KIND_NULL] = "chardev-null",
        [BF_CHARDEV_BACKEND_KIND_RINGBUF] = "chardev-ringbuf",
        [BF_CHARDEV_BACKEND_KIND_MEMORY] = "chardev-memory",
    };
    const BfChardev *chardev = bf_monitors_find_chardev(call->monitors, id);

    return chardev != NULL ? names[bf_chardev_get_config(chardev)->kind] : NULL;
}

static const char *
place_type(BfQmpCall *call, const Place *place)
{
    switch (place->kind) {
    case PLACE_OBJECT:
        return bf_object_type_str(
            bf_objects_get_options(call->daemon->objects, place->id)->qom_type);
    case PLACE_CHARDEV:
        return chardev_kind(call, place->id);
    default:
        return "container";
    }
}

static bool
find_in(BfQmpCall *call, bool in_objects, const char *id, Place *ret_place)
{
    bool exists =
        in_objects ? bf_objects_get_options(call->daemon->objects, id) != NULL
                   : chardev_kind(call, id) != NULL;

    if (exists) {
        ret_place->kind = in_objects ? PLACE_OBJECT : PLACE_CHARDEV;
        ret_place->id = g_strdup(id);
    }
    return exists;
}

/* Finds a place by the parts of its path from the root. */
static bool
find_absolute(BfQmpCall *call, char **parts, unsigned n_parts, Place *ret_place)
{
    bool in_objects = n_parts > 0 && strcmp(parts[0], "objects") == 0;
    bool in_chardevs = n_parts > 0 && strcmp(parts[0], "chardevs") == 0;

    if (n_parts == 0) {
        ret_place->kind = PLACE_ROOT;
        return true;
    }
    if (!in_objects && !in_chardevs) {
        return false;
    }
    if (n_parts == 1) {
        ret_place->kind = in_objects ? PLACE_OBJECTS : PLACE_CHARDEVS;
        return true;
    }
    return n_parts == 2 && find_in(call, in_objects, parts[1], ret_place);
}

static char **
split_path(const char *path, unsigned *ret_n_parts)
{
    g_auto(GStrv) raw = g_strsplit(path, "/", -1);
    GStrvBuilder *builder = g_strv_builder_new();
    char **parts = NULL;

    for (unsigned i = 0; raw[i] != NULL; i++) {
        if (*raw[i] != '\0') {
            g_strv_builder_add(builder, raw[i]);
        }
    }
    parts = g_strv_builder_end(builder);
    g_strv_builder_unref(builder);
    *ret_n_parts = g_strv_length(parts);
    return parts;
}

/* A path without a slash in front may begin anywhere in the tree. */
static bool
find_place(BfQmpCall *call, const char *path, Place *ret_place, GError **error)
{
    unsigned n_parts = 0;
    g_auto(GStrv) parts = split_path(path, &n_parts);
    bool found = false;

    if (path[0] == '/' || n_parts > 0) {
        found = find_absolute(call, parts, n_parts, ret_place);
    }
    if (!found && path[0] != '/' && n_parts == 1) {
        found = find_in(call, true, parts[0], ret_place) ||
                find_in(call, false, parts[0], ret_place);
    }
    if (!found) {
        g_set_error(error, BF_ERROR, BF_ERROR_DEVICE_NOT_FOUND,
                    "Device '%s' not found", path);
    }
    return found;
}

static void
add_children(BfQmpCall *call, const Place *place, GPtrArray *list)
{
    if (place->kind == PLACE_ROOT) {
        add_child(list, "objects", "container");
        add_child(list, "chardevs", "container");
    } else if (place->kind == PLACE_OBJECTS) {
        g_autoptr(GPtrArray) objects = bf_objects_list(call->daemon->objects);

        for (unsigned i = 0; i < objects->len; i++) {
            const BfObjectOptions *options = g_ptr_array_index(objects, i);

            add_child(list, options->id, bf_object_type_str(options->qom_type));
        }
    } else if (place->kind == PLACE_CHARDEVS) {
        g_autoptr(BfChardevInfoList) infos =
            bf_monitors_query_chardevs(call->monitors);

        for (size_t i = 0; i < infos->len; i++) {
            add_child(list, infos->items[i]->label,
                      chardev_kind(call, infos->items[i]->label));
        }
    }
}

bool
bf_qmp_co_qom_list(BfQmpCall *call, const BfQomListArgs *args,
                   BfObjectPropertyInfoList **ret_value, GError **error)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new();
    Place place = {0};

    /* Other commands have no such place; the list could be of any. */
    if (args->path[0] == '\0') {
        bf_set_error(error, "Path '' is ambiguous");
        return false;
    }
    if (!find_place(call, args->path, &place, error)) {
        return false;
    }
    add_property(list, "type", "string");
    if (place.kind == PLACE_OBJECT) {
        add_properties(
            list, properties_of_type(
                      bf_objects_get_options(call->daemon->objects, place.id)
                          ->qom_type));
    } else {
        add_children(call, &place, list);
    }
    *ret_value = to_property_list(list);
    g_free(place.id);
    return true;
}

/* --- values --- */

static char *
json_to_text(json_t *value)
{
    GString *text = g_string_new(NULL);

    bf_json_write(text, value, BF_JSON_STYLE_COMPACT);
    json_decref(value);
    return g_string_free(text, FALSE);
}

/* The value of a property of an object; NULL if it has none such. */
static json_t *
get_object_property(const BfObjectOptions *options, const char *name)
{
    const BfTypeInfo *properties = properties_of_type(options->qom_type);
    json_t *all = NULL;
    json_t *value = NULL;

    if (properties == NULL || bf_type_find_field(properties, name) == NULL) {
        return NULL;
    }
    all = bf_json_from_object(properties, options->u.any_branch,
                              BF_SECRET_MODE_MASK);
    value = json_incref(json_object_get(all, name));
    json_decref(all);
    /* What was never set reads as an empty string, as all such are strings. */
    return value != NULL ? value : json_string("");
}

/* Containers have their children as properties, whose values are paths. */
static json_t *
get_child_property(BfQmpCall *call, const Place *place, const char *name)
{
    static const char *const prefixes[] = {[PLACE_ROOT] = "/",
                                           [PLACE_OBJECTS] = "/objects/",
                                           [PLACE_CHARDEVS] = "/chardevs/"};
    g_autofree char *path = NULL;
    Place child = {0};

    if (place->kind > PLACE_CHARDEVS || strchr(name, '/') != NULL ||
        *name == '\0') {
        return NULL;
    }
    path = g_strconcat(prefixes[place->kind], name, NULL);
    if (!find_place(call, path, &child, NULL)) {
        return NULL;
    }
    g_free(child.id);
    return bf_json_str(path);
}

static json_t *
get_property(BfQmpCall *call, const Place *place, const char *name)
{
    if (strcmp(name, "type") == 0) {
        return json_string(place_type(call, place));
    }
    if (place->kind == PLACE_OBJECT) {
        return get_object_property(
            bf_objects_get_options(call->daemon->objects, place->id), name);
    }
    return get_child_property(call, place, name);
}

static bool
check_not_secret(BfQmpCall *call, const Place *place, const char *name,
                 GError **error)
{
    const BfObjectOptions *options =
        place->kind == PLACE_OBJECT
            ? bf_objects_get_options(call->daemon->objects, place->id)
            : NULL;
    const BfTypeInfo *properties =
        options != NULL ? properties_of_type(options->qom_type) : NULL;
    const BfField *field =
        properties != NULL ? bf_type_find_field(properties, name) : NULL;

    if (field != NULL && field->kind == BF_FIELD_SECRET) {
        bf_set_error(error,
                     "Property '%s.%s' cannot be read: secrets are not given "
                     "out",
                     place_type(call, place), name);
        return false;
    }
    return true;
}

bool
bf_qmp_co_qom_get(BfQmpCall *call, const BfQomGetArgs *args, char **ret_value,
                  GError **error)
{
    Place place = {0};
    json_t *value = NULL;

    if (!find_place(call, args->path, &place, error)) {
        return false;
    }
    if (!check_not_secret(call, &place, args->property, error)) {
        g_free(place.id);
        return false;
    }
    value = get_property(call, &place, args->property);
    if (value == NULL) {
        bf_set_error(error, "Property '%s.%s' not found",
                     place_type(call, &place), args->property);
    } else {
        *ret_value = json_to_text(value);
    }
    g_free(place.id);
    return value != NULL;
}

/* Deepest value of a property; jansson recurses on a coroutine's stack. */
#define VALUE_DEPTH_MAX 8

/* How deeply the arrays and objects of valid JSON are nested. */
static unsigned
json_depth(const char *text)
{
    bool in_string = false;
    unsigned depth = 0;
    unsigned deepest = 0;

    for (; *text != '\0'; text++) {
        if (in_string && *text == '\\' && text[1] != '\0') {
            text++;
        } else if (*text == '"') {
            in_string = !in_string;
        } else if (!in_string && (*text == '{' || *text == '[')) {
            depth++;
            deepest = MAX(deepest, depth);
        } else if (!in_string && (*text == '}' || *text == ']')) {
            depth--;
        }
    }
    return deepest;
}

static json_t *
parse_value(const char *text, const char *name, GError **error)
{
    if (json_depth(text) > VALUE_DEPTH_MAX) {
        bf_set_error(error, "the value of property '%s' is nested too deeply",
                     name);
        return NULL;
    }
    return bf_json_parse_text(text, error);
}

static bool
set_object_property(BfObjects *objects, const char *id, const char *name,
                    const char *text, GError **error)
{
    const BfObjectOptions *options = bf_objects_get_options(objects, id);
    json_t *all = NULL;
    json_t *value = parse_value(text, name, error);
    BfObjectOptions *changed = NULL;

    if (value == NULL) {
        return false;
    }
    all = bf_json_from_object(&bf_object_options_type, options,
                              BF_SECRET_MODE_REVEAL);
    json_object_set_new(all, name, value);
    changed = bf_object_options_from_json(all, BF_READ_MODE_STRICT, error);
    json_decref(all);
    return changed != NULL && bf_objects_set_options(objects, changed, error);
}

bool
bf_qmp_co_qom_set(BfQmpCall *call, const BfQomSetArgs *args, GError **error)
{
    Place place = {0};
    json_t *present = NULL;
    bool ok = false;

    if (!find_place(call, args->path, &place, error)) {
        return false;
    }
    present = get_property(call, &place, args->property);
    if (present == NULL) {
        bf_set_error(error, "Property '%s.%s' not found",
                     place_type(call, &place), args->property);
    } else if (place.kind != PLACE_OBJECT ||
               strcmp(args->property, "type") == 0) {
        bf_set_error(error, "Property '%s.%s' is not writable",
                     place_type(call, &place), args->property);
    } else {
        ok = set_object_property(call->daemon->objects, place.id,
                                 args->property, args->value, error);
    }
    json_decref(present);
    g_free(place.id);
    return ok;
}

/* --- TLS credentials --- */

bool
bf_qmp_co_tls_creds_reload(BfQmpCall *call, const BfTlsCredsReloadArgs *args,
                           GError **error)
{
    return bf_objects_co_reload_tls_creds(call->daemon->objects, args->id,
                                          error);
}

bool
bf_qmp_co_query_tls_creds(BfQmpCall *call, const BfQueryTlsCredsArgs *args,
                          BfTlsCredsInfoList **ret_value, GError **error)
{
    g_autoptr(GPtrArray) infos = NULL;
    BfTlsCredsInfoList *list = NULL;

    if (args->id != NULL &&
        bf_objects_find_tls_creds(call->daemon->objects, args->id, error) ==
            NULL) {
        return false;
    }
    infos = bf_objects_query_tls_creds(call->daemon->objects,
                                       g_get_real_time() / G_USEC_PER_SEC);
    list = bf_type_new(&bf_tls_creds_info_list_type);
    list->items = g_new0(BfTlsCredsInfo *, infos->len);
    for (unsigned i = 0; i < infos->len; i++) {
        BfTlsCredsInfo *info = g_ptr_array_index(infos, i);

        if (args->id == NULL || strcmp(info->id, args->id) == 0) {
            list->items[list->len++] = bf_tls_creds_info_copy(info);
        }
    }
    *ret_value = list;
    return true;
}
