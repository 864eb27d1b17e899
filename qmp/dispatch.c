/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From a client's text to a command to the text of its reply.
 *
 * The checks of a request stand in the order in which QEMU makes them, because
 * clients match on the first error. The id is echoed from the source text, so
 * that numbers come back as they were written.
 */
#include "qmp/dispatch.h"

#include <string.h>

#include "core/error.h"
#include "core/loop.h"
#include "core/wipe.h"
#include "qmp/gen-commands.h"
#include "qmp/gen-json.h"
#include "qmp/json-doc.h"
#include "qmp/json-value.h"
#include "qmp/monitor.h"
#include "qmp/monitors-private.h"

#define LINE_END "\r\n"

static bool
is_big(const BfRequest *request)
{
    return request->frame->len >= BF_REQUEST_BIG_BYTES;
}

/* Does what takes long if the request is big where it holds nobody up. */
static void
co_run(BfFn *fn, BfRequest *request, BfPoolLane *lane)
{
    if (is_big(request)) {
        bf_co_offload(lane, fn, request);
    } else {
        fn(request);
    }
}

static void
parse(void *arg)
{
    BfRequest *request = arg;
    BfFrame *frame = request->frame;

    /* The document changes the text. */
    request->id = bf_frame_echo_id(frame);
    request->doc = bf_json_doc_parse(g_steal_pointer(&frame->text), frame->len,
                                     &request->error);
    if (is_big(request)) {
        bf_wipe_traces(); /* of this thread; else freeing does it */
    }
}

/* Both are wiped. */
static void
free_texts(void *arg)
{
    BfRequest *request = arg;

    bf_json_doc_free(request->doc);
    bf_frame_free(request->frame);
    g_free(request->id);
    bf_wipe_traces();
}

BfRequest *
bf_request_co_new(BfFrame *frame, BfPoolLane *lane)
{
    BfRequest *request = g_new0(BfRequest, 1);

    request->frame = frame;
    if (frame->error != NULL) {
        bf_set_error(&request->error, "%s", frame->error);
    } else {
        co_run(parse, request, lane);
    }
    return request;
}

void
bf_request_co_free(BfRequest *request, BfPoolLane *lane)
{
    if (request == NULL) {
        return;
    }
    co_run(free_texts, request, lane);
    g_clear_error(&request->error);
    g_free(request);
}

bool
bf_request_is_oob(const BfRequest *request)
{
    const BfJsonNode *root =
        request->doc != NULL ? bf_json_doc_root(request->doc) : NULL;

    return bf_json_node_is(root, BF_JSON_KIND_OBJECT) &&
           bf_json_node_find(root, "exec-oob") != NULL;
}

/* A request that has the right form. */
typedef struct Command {
    const char *name;
    const BfJsonNode *arguments; /* (nullable) */
    bool has_nul; /* the name goes on after a NUL: no command has it */
    bool is_oob;
} Command;

static bool
check_member(Command *command, const char *key, const BfJsonNode *value,
             bool has_oob, GError **error)
{
    bool is_exec = strcmp(key, "execute") == 0;
    bool is_oob = has_oob && strcmp(key, "exec-oob") == 0;

    if (is_exec || is_oob) {
        if (!bf_json_node_is(value, BF_JSON_KIND_STRING)) {
            bf_set_error(error, "QMP input member '%s' must be a string", key);
            return false;
        }
        if (command->name != NULL) {
            bf_set_error(error, "QMP input member 'execute' clashes with "
                                "'exec-oob'");
            return false;
        }
        command->name = bf_json_node_text(value);
        command->has_nul = strlen(command->name) != bf_json_node_size(value);
        command->is_oob = is_oob;
    } else if (strcmp(key, "arguments") == 0) {
        if (!bf_json_node_is(value, BF_JSON_KIND_OBJECT)) {
            bf_set_error(error, "QMP input member 'arguments' must be an "
                                "object");
            return false;
        }
        command->arguments = value;
    } else if (strcmp(key, "id") != 0) {
        bf_set_error(error, "QMP input member '%s' is unexpected", key);
        return false;
    }
    return true;
}

static bool
check_form(Command *command, const BfJsonNode *root, bool has_oob,
           GError **error)
{
    const BfJsonNode *value = NULL;

    if (!bf_json_node_is(root, BF_JSON_KIND_OBJECT)) {
        bf_set_error(error, "QMP input must be a JSON object");
        return false;
    }
    for (size_t i = 0; i < bf_json_node_size(root); i++) {
        const BfJsonNode *key =
            i == 0 ? bf_json_node_begin(root) : bf_json_node_next(value);

        value = bf_json_node_next(key);
        if (!check_member(command, bf_json_node_text(key), value, has_oob,
                          error)) {
            return false;
        }
    }
    if (command->name == NULL) {
        bf_set_error(error, "QMP input lacks member 'execute'");
        return false;
    }
    return true;
}

static const BfQmpCommand *
find_command(const Command *command, const BfMonitorClient *client,
             GError **error)
{
    const BfQmpCommand *found =
        command->has_nul ? NULL : bf_qmp_command_find(command->name);

    if (!bf_monitor_client_is_negotiated(client) &&
        (found == NULL || strcmp(found->name, "qmp_capabilities") != 0)) {
        g_set_error(error, BF_ERROR, BF_ERROR_COMMAND_NOT_FOUND,
                    "Expecting capabilities negotiation with "
                    "'qmp_capabilities'");
        return NULL;
    }
    if (found == NULL) {
        g_set_error(error, BF_ERROR, BF_ERROR_COMMAND_NOT_FOUND,
                    "The command %s has not been found", command->name);
        return NULL;
    }
    if (command->is_oob && !(found->flags & BF_QMP_COMMAND_ALLOW_OOB)) {
        bf_set_error(error, "The command %s does not support OOB",
                     command->name);
        return NULL;
    }
    if (!bf_monitor_client_may_run(client, found->name)) {
        bf_set_error(error,
                     "The command %s is not allowed on this monitor, which is "
                     "read-only; use a monitor without read-only=on",
                     found->name);
        return NULL;
    }
    return found;
}

static json_t *
co_execute(BfQmpCall *call, const BfRequest *request, GError **error)
{
    Command command = {0};
    const BfQmpCommand *found = NULL;
    json_t *ret = NULL;

    if (request->error != NULL) {
        if (error != NULL) {
            *error = g_error_copy(request->error);
        }
        return NULL;
    }
    if (!check_form(&command, bf_json_doc_root(request->doc),
                    bf_monitor_client_has_oob(call->client), error)) {
        return NULL;
    }
    found = find_command(&command, call->client, error);
    if (found == NULL || !found->co_run(call, command.arguments, &ret, error)) {
        return NULL;
    }
    return ret;
}

static const char *
class_of(const GError *error)
{
    if (error->domain != BF_ERROR) {
        return "GenericError";
    }
    switch (error->code) {
    case BF_ERROR_COMMAND_NOT_FOUND:
        return "CommandNotFound";
    case BF_ERROR_DEVICE_NOT_FOUND:
        return "DeviceNotFound";
    case BF_ERROR_DEVICE_NOT_ACTIVE:
        return "DeviceNotActive";
    default:
        return "GenericError";
    }
}

static json_t *
error_to_json(const char *class, const char *message)
{
    json_t *error = json_object();

    json_object_set_new(error, "class", json_string(class));
    json_object_set_new(error, "desc", bf_json_str(message));
    return error;
}

json_t *
bf_qmp_call_give_text(BfQmpCall *call, const char *text)
{
    call->text = text;
    return json_null();
}

int
bf_qmp_call_take_fd(void *opaque, const char *name, GError **error)
{
    BfQmpCall *call = opaque;

    return call->client != NULL
               ? bf_monitor_client_take_named_fd(call->client, name, error)
               : bf_monitors_take_fd(call->monitors, name, error);
}

/* Enough for @id and the rest of a short reply, so that it does not move. */
static size_t
id_room(const char *id)
{
    return (id != NULL ? strlen(id) : 0) + 256;
}

/* Adds the end of {"return": ..., "id": @id}. */
static GBytes *
end_reply(GString *text, const char *id)
{
    if (id != NULL) {
        g_string_append(text, ", \"id\": ");
        g_string_append(text, id);
    }
    g_string_append(text, "}" LINE_END);
    return g_string_free_to_bytes(text);
}

/* Writes {"return": @value, "id": @id} with a value that is text already. */
static GBytes *
write_text_reply(const char *value, const char *id)
{
    GString *text = g_string_sized_new(strlen(value) + id_room(id));

    g_string_append(text, "{\"return\": ");
    g_string_append(text, value);
    return end_reply(text, id);
}

/* Takes @value over. The id is text already, so it is put in by hand. */
static GBytes *
write_pretty_reply(const char *key, json_t *value, const char *id)
{
    GString *text = g_string_sized_new(id_room(id));
    json_t *reply = json_object();

    json_object_set_new(reply, key, value);
    bf_json_write(text, reply, BF_JSON_STYLE_PRETTY);
    json_decref(reply);
    if (id != NULL) {
        g_string_truncate(text, text->len - strlen(LINE_END "}"));
        g_string_append(text, "," LINE_END "    \"id\": ");
        g_string_append(text, id);
        g_string_append(text, LINE_END "}");
    }
    g_string_append(text, LINE_END);
    return g_string_free_to_bytes(text);
}

/* Writes {@key: @value, "id": @id}; takes @value over. */
static GBytes *
write_reply(const char *key, json_t *value, const char *id, BfJsonStyle style)
{
    GString *text = NULL;

    if (style == BF_JSON_STYLE_PRETTY) {
        return write_pretty_reply(key, value, id);
    }
    text = g_string_sized_new(id_room(id));
    g_string_append(text, "{\"");
    g_string_append(text, key);
    g_string_append(text, "\": ");
    bf_json_write(text, value, style);
    json_decref(value);
    return end_reply(text, id);
}

bool
bf_dispatch_co_do(BfQmpCall *call, const BfRequest *request, GError **error)
{
    json_t *ret = NULL;

    bf_assert_main();
    call->text = NULL;
    ret = co_execute(call, request, error);
    if (ret == NULL) {
        return false;
    }
    json_decref(ret);
    return true;
}

GBytes *
bf_dispatch_co_run(BfQmpCall *call, const BfRequest *request, BfJsonStyle style)
{
    g_autoptr(GError) error = NULL;
    /* A text that cannot be parsed has no id that could be trusted. */
    const char *id = request->error != NULL ? NULL : request->id;
    json_t *ret = NULL;

    bf_assert_main();
    call->text = NULL;
    ret = co_execute(call, request, &error);
    if (ret != NULL && call->text != NULL) {
        json_decref(ret);
        if (style == BF_JSON_STYLE_COMPACT) {
            return write_text_reply(call->text, id);
        }
        /* Ours and strict: no need for the framer. */
        ret = bf_json_parse_frame(call->text, strlen(call->text), NULL);
    }
    if (ret != NULL) {
        return write_reply("return", ret, id, style);
    }
    return write_reply("error", error_to_json(class_of(error), error->message),
                       id, style);
}

BfVersionInfo *
bf_dispatch_version_new(void)
{
    BfVersionInfo *version = bf_type_new(&bf_version_info_type);

    version->qemu = bf_type_new(&bf_version_triple_type);
    version->qemu->major = 10;
    version->package = g_strdup("blockferry " BF_VERSION);
    return version;
}

GBytes *
bf_dispatch_greeting(BfJsonStyle style)
{
    g_autoptr(BfVersionInfo) version = bf_dispatch_version_new();
    json_t *capabilities = json_array();
    json_t *greeting = json_object();

    json_array_append_new(capabilities, json_string(bf_qmp_capability_str(
                                            BF_QMP_CAPABILITY_OOB)));
    json_object_set_new(greeting, "version", bf_version_info_to_json(version));
    json_object_set_new(greeting, "capabilities", capabilities);
    return write_reply("QMP", greeting, NULL, style);
}

GBytes *
bf_dispatch_error_line(const char *message, BfJsonStyle style)
{
    return write_reply("error", error_to_json("GenericError", message), NULL,
                       style);
}
