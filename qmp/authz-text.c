/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads the text of the file of an authz-listfile object. Whoever may write
 * that file decides who gets in, so it is trusted to that extent, but a
 * mistake in it must not do more than be reported.
 */
#include "qmp/authz-text.h"

#include "core/error.h"
#include "qmp/json-read.h"
#include "qmp/json-value.h"

BfAuthZListProperties *
bf_authz_text_parse(const char *text, const char *path, GError **error)
{
    BfAuthZListProperties *props = NULL;
    json_t *value = bf_json_parse_text(text, error);

    if (value == NULL) {
        g_prefix_error(error, "File '%s': ", path);
        return NULL;
    }
    if (!json_is_object(value)) {
        bf_set_error(error, "File '%s' must contain a JSON object", path);
    } else {
        props = bf_json_read_object(&bf_auth_z_list_properties_type, value,
                                    BF_READ_MODE_STRICT, error);
        if (props == NULL) {
            g_prefix_error(error, "File '%s': ", path);
        }
    }
    json_decref(value);
    return props;
}
