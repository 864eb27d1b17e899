/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer of the command line: arguments of the options that describe objects,
 * nodes, exports, servers and monitors. The first byte chooses the option.
 *
 * Beyond not crashing: an argument is either read or explained; what was read
 * is the same when it is given as JSON; and a secret in an argument is masked
 * where the argument is shown.
 */
#include <string.h>

#include "qmp/chardev.h"
#include "qmp/gen-json.h"
#include "qmp/json-value.h"
#include "qmp/json-write.h"
#include "qmp/keyval.h"
#include "qmp/options.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
    char letter;
    const BfTypeInfo *type;
} options[] = {
    {'b', &bf_blockdev_options_type}, {'e', &bf_block_export_options_type},
    {'m', &bf_monitor_options_type},  {'n', &bf_nbd_server_options_type},
    {'o', &bf_object_options_type},   {'t', &bf_check_tls_creds_options_type},
};

static void *
parse(char letter, const char *text, GError **error)
{
    switch (letter) {
    case 'b':
        return bf_options_parse_blockdev(text, error);
    case 'e':
        return bf_options_parse_export(text, error);
    case 'm':
        return bf_options_parse_monitor(text, error);
    case 'n':
        return bf_options_parse_nbd_server(text, error);
    case 'o':
        return bf_options_parse_object(text, error);
    default:
        return bf_options_parse_check_tls_creds(text, error);
    }
}

static char *
to_text(const BfTypeInfo *type, const void *object)
{
    json_t *json = bf_json_from_object(type, object, BF_SECRET_MODE_REVEAL);
    GString *out = g_string_new(NULL);

    bf_json_write(out, json, BF_JSON_STYLE_COMPACT);
    json_decref(json);
    return g_string_free(out, false);
}

static const char *
secret_of(const BfObjectOptions *object)
{
    return object != NULL && object->qom_type == BF_OBJECT_TYPE_SECRET
               ? object->u.secret->data
               : NULL;
}

/* What is shown has nothing but asterisks where the secret was. */
static void
check_hidden(const char *text, const BfObjectOptions *object)
{
    g_autofree char *shown = g_strdup(text);
    g_autoptr(BfObjectOptions) again = NULL;
    const char *secret = secret_of(object);
    const char *rest = NULL;

    bf_options_hide_secrets(shown);
    g_assert_cmpuint(strlen(shown), ==, strlen(text));
    if (secret != NULL && strspn(secret, "*") != strlen(secret)) {
        g_assert_cmpstr(shown, !=, text);
    }
    again = bf_options_parse_object(shown, NULL);
    rest = secret_of(again);
    g_assert_true(rest == NULL || strspn(rest, "*") == strlen(rest));
}

static void
run_option(char letter, const BfTypeInfo *type, const char *text)
{
    g_autoptr(GError) error = NULL;
    void *object = parse(letter, text, &error);

    g_assert_true((object == NULL) == (error != NULL));
    if (letter == 'o') {
        g_autofree char *help = bf_options_object_help(text);

        check_hidden(text, object);
    }
    if (object != NULL) {
        g_autofree char *once = to_text(type, object);
        void *again = parse(letter, once, &error);
        g_autofree char *twice = NULL;

        g_assert_no_error(error);
        twice = to_text(type, again);
        g_assert_cmpstr(once, ==, twice);
        bf_type_free(type, again);
    }
    bf_type_free(type, object);
}

static void
run_chardev(const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BfChardevConfig) config = bf_chardev_config_parse(text, &error);

    g_assert_true((config == NULL) == (error != NULL));
    g_assert_true(config == NULL || (config->id != NULL && *config->id != 0));
}

/* chardev-add reads the same things in another notation. */
static void
run_backend(const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BfChardevConfig) config = NULL;
    g_autoptr(BfChardevBackend) backend = NULL;
    BfReadMode mode;
    json_t *json = bf_keyval_parse(text, "type", 0, &mode, &error);

    if (json != NULL) {
        backend = bf_chardev_backend_from_json(json, mode, &error);
        json_decref(json);
    }
    if (backend != NULL) {
        config = bf_chardev_config_new("c0", backend, &error);
    }
    g_assert_true((config == NULL) == (error != NULL));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = NULL;

    if (size == 0) {
        return 0;
    }
    text = g_strndup((const char *)data + 1, size - 1);
    if (data[0] == 'c') {
        run_chardev(text);
    } else if (data[0] == 'a') {
        run_backend(text);
    }
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        if (data[0] == options[i].letter) {
            run_option(options[i].letter, options[i].type, text);
        }
    }
    return 0;
}
