/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer of the monitor's input: framer, jansson, readers, and the command
 * line's notation. The first byte chooses: 'k' for the notation, 'f' for its
 * flat form; for the framer, it is the size of the portions.
 *
 * Beyond not crashing: portions must not matter, jansson must accept what the
 * framer gives, an id must be JSON, and what a reader accepts must survive
 * being written and read again.
 */
#include <string.h>

#include "qmp/framer.h"
#include "qmp/gen-json.h"
#include "qmp/json-write.h"
#include "qmp/keyval.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const BfTypeInfo *const types[] = {
    &bf_blockdev_options_type,      &bf_blockdev_reopen_args_type,
    &bf_block_export_options_type,  &bf_object_options_type,
    &bf_nbd_server_start_args_type, &bf_nbd_server_options_type,
    &bf_qom_set_args_type,          &bf_schema_info_type,
    &bf_block_device_info_type,     &bf_chardev_options_type,
};

static char *
write_text(const json_t *value)
{
    GString *out = g_string_new(NULL);

    bf_json_write(out, value, BF_JSON_STYLE_COMPACT);
    return g_string_free(out, false);
}

static void
check_round_trip(const BfTypeInfo *type, void *object)
{
    json_t *once = bf_json_from_object(type, object, BF_SECRET_MODE_REVEAL);
    g_autofree char *text = write_text(once);
    g_autoptr(GError) error = NULL;
    void *again = bf_json_read_object(type, once, BF_READ_MODE_STRICT, &error);
    void *copy = bf_type_copy(type, again);
    json_t *twice;
    g_autofree char *second = NULL;

    g_assert_no_error(error);
    twice = bf_json_from_object(type, copy, BF_SECRET_MODE_REVEAL);
    second = write_text(twice);
    g_assert_cmpstr(text, ==, second);
    bf_type_free(type, again);
    bf_type_free(type, copy);
    json_decref(once);
    json_decref(twice);
}

static void
read_all_types(const json_t *value, BfReadMode mode)
{
    for (size_t i = 0; i < G_N_ELEMENTS(types); i++) {
        g_autoptr(GError) error = NULL;
        void *object = bf_json_read_object(types[i], value, mode, &error);

        g_assert_true((object == NULL) == (error != NULL));
        if (object != NULL && mode == BF_READ_MODE_STRICT) {
            check_round_trip(types[i], object);
        }
        bf_type_free(types[i], object);
    }
}

static void
read_frame(const BfFrame *frame)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    g_autofree char *echo = NULL;
    json_t *value = bf_json_parse_frame(frame->text, frame->len, &error);

    if (value == NULL) {
        g_assert_cmpstr(error->message, ==, "JSON parse error, duplicate key");
        return;
    }
    text = write_text(value);
    echo = bf_frame_echo_id(frame);
    if (echo != NULL) {
        json_t *id = bf_json_parse_text(echo, &error);

        g_assert_no_error(error);
        g_assert_true(g_str_is_ascii(echo));
        json_decref(id);
    }
    if (json_is_object(value)) {
        const json_t *args = json_object_get(value, "arguments");

        read_all_types(args != NULL ? args : value, BF_READ_MODE_STRICT);
    }
    json_decref(value);
}

/* Gives all frames as one text. */
static char *
run_framer(const uint8_t *data, size_t size, size_t portion, bool read)
{
    g_autoptr(BfFramer) framer = bf_framer_new();
    GString *out = g_string_new(NULL);

    for (size_t i = 0; i < size; i += portion) {
        BfFrame *frame;

        bf_framer_feed(framer, data + i, MIN(portion, size - i));
        while ((frame = bf_framer_next(framer)) != NULL) {
            g_assert_true((frame->text == NULL) != (frame->error == NULL));
            g_string_append(out,
                            frame->text != NULL ? frame->text : frame->error);
            g_string_append_c(out, '\n');
            if (read && frame->text != NULL) {
                read_frame(frame);
            }
            bf_frame_free(frame);
        }
    }
    return g_string_free(out, false);
}

static void
run_keyval(const uint8_t *data, size_t size, BfKeyvalFlags flags)
{
    g_autofree char *text = g_strndup((const char *)data, size);
    g_autofree char *kind = NULL;
    g_autoptr(GError) error = NULL;
    BfReadMode mode;
    json_t *value = bf_keyval_parse(text, "driver", flags, &mode, &error);

    bf_keyval_wants_help(text, true, &kind);
    g_assert_true((value == NULL) == (error != NULL));
    if (value != NULL) {
        read_all_types(value, mode);
        json_decref(value);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *whole = NULL;
    g_autofree char *portions = NULL;

    if (size == 0) {
        return 0;
    }
    if (data[0] == 'k' || data[0] == 'f') {
        run_keyval(data + 1, size - 1, data[0] == 'f' ? BF_KEYVAL_FLAT : 0);
        return 0;
    }
    whole = run_framer(data + 1, size - 1, size, true);
    portions = run_framer(data + 1, size - 1, MAX(data[0], 1), false);
    g_assert_cmpstr(whole, ==, portions);
    return 0;
}
