/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The QMP command that describes the command line. Options are understood in
 * server/main; what their arguments can have is in the schema. A test compares
 * the names here with those that --help prints.
 */
#include <inttypes.h>
#include <string.h>

#include "core/error.h"
#include "qmp/dispatch.h"
#include "qmp/gen-commands.h"
#include "schema/type-info.h"

static const struct {
    const char *name;
    const BfTypeInfo *type; /* NULL: its argument has no parameters */
} options[] = {
    {"allow-fault-injection", NULL},
    {"blockdev", &bf_blockdev_options_type},
    {"chardev", &bf_chardev_options_type},
    {"check-tls-creds", &bf_check_tls_creds_options_type},
    {"config", NULL},
    {"daemonize", NULL},
    {"export", &bf_block_export_options_type},
    {"monitor", &bf_monitor_options_type},
    {"nbd-server", &bf_nbd_server_options_type},
    {"object", &bf_object_options_type},
    {"pidfile", NULL},
    {"sighup", NULL},
    {"workers", NULL},
};

/* The parameters of one option. */
typedef struct Parameters {
    GPtrArray *list;   /* of BfCommandLineParameterInfo, owned */
    GHashTable *names; /* those in @list, borrowed */
} Parameters;

static BfCommandLineParameterType
type_of(const BfField *field)
{
    switch (field->kind) {
    case BF_FIELD_BOOL:
        return BF_COMMAND_LINE_PARAMETER_TYPE_BOOLEAN;
    case BF_FIELD_INT:
    case BF_FIELD_UINT:
    case BF_FIELD_NUMBER:
        return BF_COMMAND_LINE_PARAMETER_TYPE_NUMBER;
    case BF_FIELD_SIZE:
        return BF_COMMAND_LINE_PARAMETER_TYPE_SIZE;
    default:
        return BF_COMMAND_LINE_PARAMETER_TYPE_STRING;
    }
}

/* As it would be typed; NULL if there is none. */
static char *
default_of(const BfField *field)
{
    if (field->presence != BF_FIELD_PRESENCE_DEFAULT) {
        return NULL;
    }
    switch (field->kind) {
    case BF_FIELD_STR:
        return g_strdup(field->default_str);
    case BF_FIELD_BOOL:
        return g_strdup(field->default_int != 0 ? "on" : "off");
    case BF_FIELD_ENUM:
        return g_strdup(bf_enum_str(field->values, (int)field->default_int));
    case BF_FIELD_INT:
    case BF_FIELD_UINT:
    case BF_FIELD_SIZE:
        return g_strdup_printf("%" PRIi64, field->default_int);
    default:
        return NULL;
    }
}

static void add_members(Parameters *parameters, const BfTypeInfo *type,
                        const char *prefix);

static void
add_field(Parameters *parameters, const BfField *field, const char *prefix)
{
    g_autofree char *name = g_strconcat(prefix, field->name, NULL);
    BfCommandLineParameterInfo *info = NULL;

    if (field->kind == BF_FIELD_OBJECT) {
        g_autofree char *inside = g_strconcat(name, ".", NULL);

        add_members(parameters, field->type, inside);
        return;
    }
    if (g_hash_table_contains(parameters->names, name)) {
        return; /* several kinds have it */
    }
    info = bf_type_new(&bf_command_line_parameter_info_type);
    info->name = g_steal_pointer(&name);
    info->type = type_of(field);
    info->default_ = default_of(field);
    g_ptr_array_add(parameters->list, info);
    g_hash_table_add(parameters->names, info->name);
}

/* No object has itself as a member, but by references to nodes. */
static void
add_members(Parameters *parameters, const BfTypeInfo *type, const char *prefix)
{
    for (size_t i = 0; i < type->n_fields; i++) {
        add_field(parameters, &type->fields[i], prefix);
    }
    for (size_t i = 0; type->tag != NULL && i < type->tag->values->n_values;
         i++) {
        if (type->branches[i] != NULL) {
            add_members(parameters, type->branches[i], prefix);
        }
    }
}

static BfCommandLineOptionInfo *
describe(const char *name, const BfTypeInfo *type)
{
    g_autoptr(GPtrArray) list = g_ptr_array_new();
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    Parameters parameters = {.list = list, .names = names};
    BfCommandLineOptionInfo *info =
        bf_type_new(&bf_command_line_option_info_type);
    BfCommandLineParameterInfoList *all =
        bf_type_new(&bf_command_line_parameter_info_list_type);

    if (type != NULL) {
        add_members(&parameters, type, "");
    }
    all->len = list->len;
    all->items = (BfCommandLineParameterInfo **)g_ptr_array_steal(list, NULL);
    info->option = g_strdup(name);
    info->parameters = all;
    return info;
}

bool
bf_qmp_co_query_command_line_options(BfQmpCall *call,
                                     const BfQueryCommandLineOptionsArgs *args,
                                     BfCommandLineOptionInfoList **ret_value,
                                     GError **error)
{
    g_autoptr(BfCommandLineOptionInfoList) list =
        bf_type_new(&bf_command_line_option_info_list_type);

    list->items = g_new0(BfCommandLineOptionInfo *, G_N_ELEMENTS(options));
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        if (args->option == NULL ||
            strcmp(args->option, options[i].name) == 0) {
            list->items[list->len++] =
                describe(options[i].name, options[i].type);
        }
    }
    if (list->len == 0) {
        bf_set_error(error, "invalid option name: %s", args->option);
        return false;
    }
    *ret_value = g_steal_pointer(&list);
    return true;
}
