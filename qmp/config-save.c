/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The set-up as commands: what the registries were given, as it is by now, in
 * an order in which each command finds what it names. What no later start could
 * be given again is left out, with a comment in its place.
 */
#include "qmp/config-save.h"

#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "block/graph.h"
#include "qmp/chardev.h"
#include "qmp/gen-json.h"
#include "qmp/json-value.h"
#include "qmp/json-write.h"
#include "qmp/monitors-private.h"

#define HEADER                                                                 \
    "# The set-up of blockferryd " BF_VERSION ", written by config-save.\n"    \
    "# Start with --config and this file, before --chardev and --monitor "     \
    "and\n"                                                                    \
    "# in place of --object, --blockdev, --nbd-server and --export.\n"

/* A text that is being written. */
typedef struct Save {
    BfConfigText *config;
    const char *title; /* of a section that has no line yet, or NULL */
    BfObjects *objects;
    GHashTable *done; /* ids of objects that were put, owned */
} Save;

/* Whether leaving @field out gives it @value again. */
static bool
is_default(const BfField *field, const json_t *value)
{
    uint64_t big = 0;

    if (field->presence != BF_FIELD_PRESENCE_DEFAULT) {
        return false;
    }
    switch (field->kind) {
    case BF_FIELD_STR:
        return field->default_str != NULL &&
               strcmp(json_string_value(value), field->default_str) == 0;
    case BF_FIELD_BOOL:
        return json_is_true(value) == (field->default_int != 0);
    case BF_FIELD_ENUM:
        return strcmp(json_string_value(value),
                      bf_enum_str(field->values, (int)field->default_int)) == 0;
    case BF_FIELD_INT:
    case BF_FIELD_UINT:
    case BF_FIELD_SIZE:
        return !bf_json_get_big_uint(value, &big) &&
               json_integer_value(value) == field->default_int;
    default:
        return false;
    }
}

static void drop_defaults(const BfTypeInfo *type, json_t *value);

static void
drop_defaults_of_field(const BfField *field, json_t *value)
{
    if (field->kind == BF_FIELD_OBJECT || field->kind == BF_FIELD_LIST ||
        field->kind == BF_FIELD_ALTERNATE) {
        drop_defaults(field->type, value);
    }
}

static void
drop_defaults_of_members(const BfTypeInfo *type, json_t *value)
{
    const BfTypeInfo *branch = NULL;
    int tag = 0;

    if (type->kind == BF_TYPE_UNION &&
        bf_enum_parse(
            type->tag->values,
            json_string_value(json_object_get(value, type->tag->name)), &tag)) {
        branch = type->branches[tag];
    }
    for (size_t i = 0; i < type->n_fields; i++) {
        const BfField *field = &type->fields[i];
        json_t *member = json_object_get(value, field->name);

        if (member != NULL && is_default(field, member)) {
            json_object_del(value, field->name);
        } else if (member != NULL) {
            drop_defaults_of_field(field, member);
        }
    }
    if (branch != NULL) {
        drop_defaults_of_members(branch, value);
    }
}

/* Removes what a reader would fill in, so that people can read the rest. */
static void
drop_defaults(const BfTypeInfo *type, json_t *value)
{
    if (type->kind == BF_TYPE_LIST) {
        for (size_t i = 0; i < json_array_size(value); i++) {
            drop_defaults_of_field(type->fields, json_array_get(value, i));
        }
    } else if (type->kind != BF_TYPE_ALTERNATE) {
        drop_defaults_of_members(type, value);
    } else if (json_is_object(value)) {
        for (size_t i = 0; i < type->n_fields; i++) {
            if (type->fields[i].kind == BF_FIELD_OBJECT) {
                drop_defaults(type->fields[i].type, value);
            }
        }
    }
}

static json_t *
to_json(const BfTypeInfo *type, const void *object, BfSecretMode secrets)
{
    json_t *value = bf_json_from_object(type, object, secrets);

    drop_defaults(type, value);
    return value;
}

static void
begin_line(Save *save)
{
    if (save->title != NULL) {
        g_string_append_printf(save->config->text, "\n# %s\n", save->title);
        save->title = NULL;
    }
}

/* Takes @arguments over. */
static void
put_command(Save *save, const char *name, json_t *arguments)
{
    json_t *command = json_object();

    begin_line(save);
    json_object_set_new(command, "execute", json_string(name));
    json_object_set_new(command, "arguments", arguments);
    bf_json_write(save->config->text, command, BF_JSON_STYLE_COMPACT);
    g_string_append_c(save->config->text, '\n');
    save->config->commands++;
    json_decref(command);
}

/* @id: (nullable); @reason: (transfer full) */
static void
leave_out(Save *save, BfConfigItemKind kind, const char *id, char *reason)
{
    BfConfigLeftOut *item = bf_type_new(&bf_config_left_out_type);

    /* The end of a line would end the comment. */
    for (char *c = reason; *c != '\0'; c++) {
        if ((unsigned char)*c < 0x20) {
            *c = '?';
        }
    }
    item->kind = kind;
    item->id = g_strdup(id);
    item->reason = reason;
    g_ptr_array_add(save->config->left_out, item);
    begin_line(save);
    g_string_append_printf(save->config->text, "# Left out: %s\n", reason);
}

/* A file name of the command line may be any bytes. Leaves out what has a text
 * that a restart would get as another one. */
static bool
leave_out_changed(Save *save, BfConfigItemKind kind, const char *id,
                  const BfTypeInfo *type, const void *options)
{
    const char *text = bf_type_find_text(type, options, bf_json_changes_text);
    g_autofree char *shown = NULL;

    if (text == NULL) {
        return false;
    }
    shown = g_utf8_make_valid(text, -1);
    leave_out(save, kind, id,
              g_strdup_printf("%s '%s' has the text '%s', which is no UTF-8 or "
                              "has noncharacters, and JSON cannot say it; "
                              "rename it",
                              bf_enum_str(&bf_config_item_kind_enum, (int)kind),
                              id != NULL ? id : "", shown));
    return true;
}

/* --- objects --- */

/* Does @path lead to what only this process has open? */
static bool
is_passed(const char *path)
{
    static const char *const beginnings[] = {
        "/dev/fd/",    "/dev/fdset/", "/dev/stdin",         "/dev/stdout",
        "/dev/stderr", "/proc/self/", "/proc/thread-self/",
    };
    g_autofree char *whole = g_canonicalize_filename(path, NULL);
    g_autofree char *own = g_strdup_printf("/proc/%d/", (int)getpid());
    const char *start = whole + strspn(whole, "/") - 1; /* it may have two */

    for (size_t i = 0; i < G_N_ELEMENTS(beginnings); i++) {
        if (g_str_has_prefix(start, beginnings[i])) {
            return true;
        }
    }
    return g_str_has_prefix(start, own);
}

/* All members of objects that are paths, whatever the type. */
static char *
path_problem(const BfObjectOptions *options)
{
    static const char *const members[] = {"dir", "file", "filename"};
    json_t *object =
        to_json(&bf_object_options_type, options, BF_SECRET_MODE_MASK);
    char *problem = NULL;

    for (size_t i = 0; i < G_N_ELEMENTS(members) && problem == NULL; i++) {
        const char *path =
            json_string_value(json_object_get(object, members[i]));

        if (path != NULL && is_passed(path)) {
            problem = g_strdup_printf(
                "%s '%s' has '%s', a descriptor that was passed to this "
                "process",
                bf_enum_str(&bf_object_type_enum, (int)options->qom_type),
                options->id, path);
        }
    }
    json_decref(object);
    return problem;
}

/* Why nothing can say again what the object was made from, or NULL. */
static char *
object_problem(const BfObjectOptions *options)
{
    const BfSecretProperties *secret =
        options->qom_type == BF_OBJECT_TYPE_SECRET ? options->u.secret : NULL;

    /* Data in clear was wiped when it had been read. */
    if (secret != NULL && secret->data == NULL && secret->file == NULL &&
        secret->credential == NULL) {
        return g_strdup_printf(
            "secret '%s' was given as data, which is never written in clear; "
            "give it by file, by credential, as a secret_keyring, or encrypted "
            "with keyid",
            options->id);
    }
    return path_problem(options);
}

/* A throttle group tells each of its limits twice. Who changes one in the file
 * shall find one place; those that are none are left out. */
static void
drop_repeated_limits(json_t *object)
{
    json_t *limits = json_object_get(object, "limits");
    const char *name;
    json_t *value;
    void *next;

    json_object_foreach_safe(object, next, name, value)
    {
        if (g_str_has_prefix(name, "x-")) {
            json_object_del(object, name);
        }
    }
    json_object_foreach_safe(limits, next, name, value)
    {
        if (json_integer_value(value) ==
            (g_str_has_suffix(name, "-length") ? 1 : 0)) {
            json_object_del(limits, name);
        }
    }
    if (json_object_size(limits) == 0) {
        json_object_del(object, "limits");
    }
}

static void put_object(Save *save, const BfObjectOptions *options);

/* What @object names as its @member, if it is there, comes first. */
static void
put_needed(Save *save, const json_t *object, const char *member)
{
    const char *id = json_string_value(json_object_get(object, member));
    const BfObjectOptions *options =
        id != NULL ? bf_objects_get_options(save->objects, id) : NULL;

    if (options != NULL) {
        put_object(save, options);
    }
}

static void
put_object(Save *save, const BfObjectOptions *options)
{
    char *problem = NULL;
    json_t *object = NULL;

    if (!g_hash_table_add(save->done, g_strdup(options->id))) {
        return;
    }
    problem = object_problem(options);
    if (problem != NULL) {
        leave_out(save, BF_CONFIG_ITEM_KIND_OBJECT, options->id, problem);
        return;
    }
    if (leave_out_changed(save, BF_CONFIG_ITEM_KIND_OBJECT, options->id,
                          &bf_object_options_type, options)) {
        return;
    }
    object = to_json(&bf_object_options_type, options, BF_SECRET_MODE_REVEAL);
    if (options->qom_type == BF_OBJECT_TYPE_THROTTLE_GROUP) {
        drop_repeated_limits(object);
    }
    /* They may have been deleted and made again after it. */
    put_needed(save, object, "keyid");
    put_needed(save, object, "passwordid");
    put_command(save, "object-add", object);
}

static void
put_objects(Save *save)
{
    g_autoptr(GPtrArray) all = bf_objects_list(save->objects);

    save->title = "Objects";
    for (unsigned i = 0; i < all->len; i++) {
        put_object(save, g_ptr_array_index(all, i));
    }
}

/* --- character devices --- */

static void
put_chardev(Save *save, const BfChardevConfig *config)
{
    json_t *arguments = NULL;

    if (config->backend == NULL) {
        return; /* of the command line */
    }
    if (config->fd_passed && config->address != NULL &&
        config->address->type == BF_SOCKET_ADDRESS_TYPE_FD) {
        leave_out(save, BF_CONFIG_ITEM_KIND_CHARDEV, config->id,
                  g_strdup_printf("chardev '%s' has a socket that was passed "
                                  "to this process",
                                  config->id));
        return;
    }
    arguments = json_object();
    json_object_set_new(arguments, "id", bf_json_str(config->id));
    json_object_set_new(arguments, "backend",
                        to_json(&bf_chardev_backend_type, config->backend,
                                BF_SECRET_MODE_MASK));
    put_command(save, "chardev-add", arguments);
}

static void
put_chardevs(Save *save, BfMonitors *monitors)
{
    g_autoptr(BfChardevInfoList) infos = bf_monitors_query_chardevs(monitors);

    save->title = "Character devices";
    for (size_t i = 0; i < infos->len; i++) {
        put_chardev(save, bf_chardev_get_config(bf_monitors_find_chardev(
                              monitors, infos->items[i]->label)));
    }
}

/* --- nodes --- */

static void
put_nodes(Save *save, BfDaemon *daemon)
{
    g_autoptr(GPtrArray) exports = bf_export_table_list(daemon->exports);
    g_autoptr(GPtrArray) used = g_ptr_array_new();
    g_autoptr(GPtrArray) nodes = NULL;

    save->title = "Nodes";
    for (unsigned i = 0; i < exports->len; i++) {
        const BfExport *exp = g_ptr_array_index(exports, i);

        if (!bf_export_is_closing(exp)) {
            g_ptr_array_add(used, bf_export_node(exp));
        }
    }
    nodes = bf_graph_save(daemon->graph, used);
    for (unsigned i = 0; i < nodes->len; i++) {
        BfSavedNode *node = g_ptr_array_index(nodes, i);

        if (node->problem != NULL) {
            leave_out(save, BF_CONFIG_ITEM_KIND_NODE, node->name,
                      g_steal_pointer(&node->problem));
        } else if (!leave_out_changed(save, BF_CONFIG_ITEM_KIND_NODE,
                                      node->name, &bf_blockdev_options_type,
                                      node->options)) {
            put_command(save, "blockdev-add",
                        to_json(&bf_blockdev_options_type, node->options,
                                BF_SECRET_MODE_MASK));
        }
    }
}

static void
put_write_threshold(Save *save, const BfSavedState *state)
{
    json_t *arguments = NULL;

    if (!state->has_own_name) {
        leave_out(save, BF_CONFIG_ITEM_KIND_NODE, state->name,
                  g_strdup_printf("the write threshold of node '%s' cannot be "
                                  "saved, as the node has no name of its own",
                                  state->name));
        return;
    }
    arguments = json_object();
    json_object_set_new(arguments, "node-name", bf_json_str(state->name));
    json_object_set_new(arguments, "write-threshold",
                        bf_json_uint(state->write_threshold));
    put_command(save, "block-set-write-threshold", arguments);
}

/* A bitmap that is made anew would take what was written before for clean, so
 * that a backup by it lacks that. */
static void
put_states(Save *save, BfDaemon *daemon)
{
    g_autoptr(GPtrArray) states = bf_graph_save_state(daemon->graph);

    save->title = "What nodes were given";
    for (unsigned i = 0; i < states->len; i++) {
        const BfSavedState *state = g_ptr_array_index(states, i);

        if (state->bitmaps != NULL) {
            leave_out(save, BF_CONFIG_ITEM_KIND_NODE, state->name,
                      g_strdup_printf("node '%s' can only be saved without its "
                                      "dirty bitmaps (%s), which end with the "
                                      "daemon",
                                      state->name, state->bitmaps));
        }
        if (state->write_threshold != 0) {
            put_write_threshold(save, state);
        }
    }
}

/* --- the NBD server and exports --- */

/* The flat form of an address as the nested one. Takes @flat over. */
static json_t *
nest_address(json_t *flat)
{
    json_t *nested = json_object();

    json_object_set(nested, "type", json_object_get(flat, "type"));
    json_object_del(flat, "type");
    json_object_set_new(nested, "data", flat);
    return nested;
}

static void
put_listener(Save *save, const BfNbdListening *listening)
{
    const BfNbdServerOptions *options = listening->options;
    json_t *arguments = NULL;

    if (listening->fd_passed &&
        options->addr->type == BF_SOCKET_ADDRESS_TYPE_FD) {
        leave_out(save, BF_CONFIG_ITEM_KIND_NBD_SERVER, options->id,
                  g_strdup_printf("%s%s%s has a socket that was passed to this "
                                  "process",
                                  options->id != NULL ? "listener '"
                                                      : "the NBD server",
                                  options->id != NULL ? options->id : "",
                                  options->id != NULL ? "'" : ""));
        return;
    }
    if (leave_out_changed(save, BF_CONFIG_ITEM_KIND_NBD_SERVER, options->id,
                          &bf_nbd_server_options_type, options)) {
        return;
    }
    arguments =
        to_json(&bf_nbd_server_options_type, options, BF_SECRET_MODE_MASK);
    if (options->id != NULL) {
        put_command(save, "nbd-server-add-listener", arguments);
        return;
    }
    json_object_set_new(
        arguments, "addr",
        nest_address(json_incref(json_object_get(arguments, "addr"))));
    put_command(save, "nbd-server-start", arguments);
}

static void
put_nbd_server(Save *save, const BfDaemon *daemon)
{
    save->title = "The NBD server";
    for (unsigned i = 0; i < daemon->nbd_listening->len; i++) {
        put_listener(save, g_ptr_array_index(daemon->nbd_listening, i));
    }
}

static void
put_export(Save *save, const BfExport *exp)
{
    g_autoptr(BfBlockExportOptions) options = bf_export_save(exp);
    BfBlockExportOptionsNbd *nbd = options->u.nbd;

    if (leave_out_changed(save, BF_CONFIG_ITEM_KIND_EXPORT, options->id,
                          &bf_block_export_options_type, options)) {
        return;
    }
    if (nbd->bitmaps != NULL && nbd->bitmaps->len > 0) {
        g_clear_pointer(&nbd->bitmaps, bf_block_dirty_bitmap_or_str_list_free);
        leave_out(save, BF_CONFIG_ITEM_KIND_EXPORT, options->id,
                  g_strdup_printf("export '%s' can only be saved without its "
                                  "dirty bitmaps, which end with the daemon",
                                  options->id));
    }
    put_command(
        save, "block-export-add",
        to_json(&bf_block_export_options_type, options, BF_SECRET_MODE_MASK));
}

static void
put_exports(Save *save, BfDaemon *daemon)
{
    g_autoptr(GPtrArray) exports = bf_export_table_list(daemon->exports);

    save->title = "Exports";
    for (unsigned i = 0; i < exports->len; i++) {
        const BfExport *exp = g_ptr_array_index(exports, i);

        if (!bf_export_is_closing(exp)) {
            put_export(save, exp);
        }
    }
}

BfConfigText *
bf_config_text_new(BfMonitors *monitors, BfDaemon *daemon)
{
    g_autoptr(GHashTable) done =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    BfConfigText *config = g_new0(BfConfigText, 1);
    Save save = {.config = config, .objects = daemon->objects, .done = done};

    bf_assert_main();
    config->text = g_string_new(HEADER);
    config->left_out =
        g_ptr_array_new_with_free_func((GDestroyNotify)bf_config_left_out_free);
    put_objects(&save);
    put_chardevs(&save, monitors);
    put_nodes(&save, daemon);
    put_states(&save, daemon);
    put_nbd_server(&save, daemon);
    put_exports(&save, daemon);
    return config;
}

void
bf_config_text_free(BfConfigText *config)
{
    if (config != NULL) {
        g_string_free(config->text, TRUE);
        g_ptr_array_unref(config->left_out);
        g_free(config);
    }
}
