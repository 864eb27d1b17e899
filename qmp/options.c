/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Structured arguments of the command line. The types are those of the QMP
 * commands, so there is nothing to check here that the readers do not check.
 */
#include "qmp/options.h"

#include <jansson.h>
#include <string.h>

#include "core/error.h"
#include "qmp/gen-json.h"
#include "qmp/keyval.h"

/* Reads @text as a @prefix; @implied is the key of a first word alone. */
#define PARSE(prefix, text, implied, error)                                    \
    ({                                                                         \
        BfReadMode mode;                                                       \
        json_t *json = bf_keyval_parse(text, implied, 0, &mode, error);        \
        void *parsed =                                                         \
            json != NULL ? prefix##_from_json(json, mode, error) : NULL;       \
        json_decref(json);                                                     \
        parsed;                                                                \
    })

/* Commands and objects have members to list; the others say where to look. */
static bool
refuse_help(const char *text, GError **error)
{
    if (!bf_keyval_wants_help(text, true, NULL)) {
        return false;
    }
    bf_set_error(error, "Help is not available for this option; see "
                        "blockferryd --help and the reference of the QMP "
                        "command that it stands for");
    return true;
}

BfObjectOptions *
bf_options_parse_object(const char *text, GError **error)
{
    return PARSE(bf_object_options, text, "qom-type", error);
}

/* The end of the value at @text: a single comma with a key and '=' behind it.
 */
static char *
value_end(char *text)
{
    for (; *text != '\0'; text++) {
        const char *next = text + 1;

        if (*text != ',') {
            continue;
        }
        if (*next == ',') {
            text++;
        } else if (next[strcspn(next, ",=")] == '=') {
            break;
        }
    }
    return text;
}

static void
mask(char *start, const char *end)
{
    memset(start, '*', (size_t)(end - start));
}

void
bf_options_hide_secrets(char *text)
{
    char *at = text;

    if (*text == '{') {
        /* Keys can be spelled with escapes. */
        if (strstr(text, "data") != NULL || strchr(text, '\\') != NULL) {
            mask(text + 1, text + strlen(text));
        }
        return;
    }
    while (*at != '\0') {
        bool is_secret = g_str_has_prefix(at, "data=");
        char *value = at + strcspn(at, "=");

        at = value_end(at);
        if (is_secret) {
            mask(value + 1, at);
        }
        at += *at == ',';
    }
}

BfBlockdevOptions *
bf_options_parse_blockdev(const char *text, GError **error)
{
    return refuse_help(text, error)
               ? NULL
               : PARSE(bf_blockdev_options, text, "driver", error);
}

BfBlockExportOptions *
bf_options_parse_export(const char *text, GError **error)
{
    return refuse_help(text, error)
               ? NULL
               : PARSE(bf_block_export_options, text, "type", error);
}

BfNbdServerOptions *
bf_options_parse_nbd_server(const char *text, GError **error)
{
    return refuse_help(text, error)
               ? NULL
               : PARSE(bf_nbd_server_options, text, NULL, error);
}

BfMonitorOptions *
bf_options_parse_monitor(const char *text, GError **error)
{
    return refuse_help(text, error)
               ? NULL
               : PARSE(bf_monitor_options, text, "chardev", error);
}

BfCheckTlsCredsOptions *
bf_options_parse_check_tls_creds(const char *text, GError **error)
{
    return refuse_help(text, error)
               ? NULL
               : PARSE(bf_check_tls_creds_options, text, "dir", error);
}

static int
compare_fields(const void *a, const void *b)
{
    const BfField *const *left = a;
    const BfField *const *right = b;

    return strcmp((*left)->name, (*right)->name);
}

/* As QEMU prints them: sorted, "  name=<type>". */
static char *
describe_type(BfObjectType type)
{
    const BfTypeInfo *info = bf_object_options_type.branches[type];
    GString *text = g_string_new(NULL);
    g_autoptr(GPtrArray) fields = g_ptr_array_new();

    g_string_append_printf(text, "%s options:\n", bf_object_type_str(type));
    for (size_t i = 0; info != NULL && i < info->n_fields; i++) {
        g_ptr_array_add(fields, (void *)&info->fields[i]);
    }
    g_ptr_array_sort(fields, compare_fields);
    for (unsigned i = 0; i < fields->len; i++) {
        const BfField *field = g_ptr_array_index(fields, i);

        g_string_append_printf(text, "  %s=<%s>\n", field->name,
                               bf_field_type_name(field));
    }
    return g_string_free(text, FALSE);
}

static char *
list_types(void)
{
    GString *text = g_string_new("List of user creatable objects:\n");

    for (size_t i = 0; i < bf_object_type_enum.n_values; i++) {
        g_string_append_printf(text, "  %s\n", bf_object_type_enum.values[i]);
    }
    return g_string_free(text, FALSE);
}

char *
bf_options_object_help(const char *text)
{
    g_autofree char *kind = NULL;
    BfObjectType type;

    if (!bf_keyval_wants_help(text, true, &kind)) {
        return NULL;
    }
    return kind != NULL && bf_object_type_parse(kind, &type)
               ? describe_type(type)
               : list_types();
}
