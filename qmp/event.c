/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Events: messages, timestamps and the limit of the rate.
 *
 * A limited event opens a window. What comes within it replaces the one event
 * that is pending; at its end the pending one is sent and opens the next
 * window, or, if there is none, the window is forgotten.
 */
#include "qmp/event.h"

#include <string.h>

#include "core/loop.h"
#include "core/util.h"

struct BfEvents {
    const BfEventInfo *infos; /* borrowed constant */
    size_t n_infos;
    BfEventsFn *send;
    void *opaque;
    GHashTable *windows; /* of Window by its key */
};

/* A period in which at most one event was sent. */
typedef struct Window {
    BfEvents *events; /* borrowed: its owner */
    char *key;        /* owned */
    json_t *pending;  /* (nullable) owned */
    uint64_t period_ns;
    BfTimer timer;
} Window;

static void
window_free(void *data)
{
    Window *window = data;

    bf_timer_stop(&window->timer);
    json_decref(window->pending);
    g_free(window->key);
    g_free(window);
}

static void
window_ended(void *arg)
{
    Window *window = arg;
    BfEvents *events = window->events;
    json_t *message = g_steal_pointer(&window->pending);

    if (message == NULL) {
        g_hash_table_remove(events->windows, window->key);
        return;
    }
    bf_timer_start(&window->timer, window->period_ns, window_ended, window);
    events->send(events->opaque, message);
    json_decref(message);
}

BfEvents *
bf_events_new(const BfEventInfo *infos, size_t n_infos, BfEventsFn *send,
              void *opaque)
{
    BfEvents *events = g_new0(BfEvents, 1);

    events->infos = infos;
    events->n_infos = n_infos;
    events->send = send;
    events->opaque = opaque;
    events->windows =
        g_hash_table_new_full(g_str_hash, g_str_equal, NULL, window_free);
    return events;
}

void
bf_events_free(BfEvents *events)
{
    if (events != NULL) {
        g_hash_table_unref(events->windows);
        g_free(events);
    }
}

static const BfEventInfo *
find_info(const BfEvents *events, const char *name)
{
    for (size_t i = 0; i < events->n_infos; i++) {
        if (strcmp(events->infos[i].name, name) == 0) {
            return &events->infos[i];
        }
    }
    g_assert_not_reached();
}

/* What events share a window with this one. */
static char *
window_key(const BfEventInfo *info, const json_t *data)
{
    const char *about = NULL;

    if (info->rate_key != NULL) {
        about = json_string_value(json_object_get(data, info->rate_key));
    }
    return g_strdup_printf("%s/%s", info->name, about != NULL ? about : "");
}

static json_t *
make_message(const char *name, json_t *data)
{
    const gint64 now_us = g_get_real_time();
    json_t *time = json_object();
    json_t *message = json_object();

    json_object_set_new(time, "seconds", json_integer(now_us / G_USEC_PER_SEC));
    json_object_set_new(time, "microseconds",
                        json_integer(now_us % G_USEC_PER_SEC));
    json_object_set_new(message, "timestamp", time);
    json_object_set_new(message, "event", json_string(name));
    if (data != NULL) {
        json_object_set_new(message, "data", data);
    }
    return message;
}

static void
open_window(BfEvents *events, const BfEventInfo *info, char *key)
{
    Window *window = g_new0(Window, 1);

    window->events = events;
    window->key = key;
    window->period_ns = info->rate_limit_ms * BF_NS_PER_MS;
    g_hash_table_insert(events->windows, window->key, window);
    bf_timer_start(&window->timer, window->period_ns, window_ended, window);
}

void
bf_events_emit(BfEvents *events, const char *name, json_t *data)
{
    const BfEventInfo *info = find_info(events, name);
    json_t *message = NULL;

    bf_assert_main();
    if (info->rate_limit_ms > 0) {
        g_autofree char *key = window_key(info, data);
        Window *window = g_hash_table_lookup(events->windows, key);

        if (window != NULL) {
            json_decref(window->pending);
            window->pending = make_message(name, data);
            return;
        }
        open_window(events, info, g_steal_pointer(&key));
    }
    message = make_message(name, data);
    events->send(events->opaque, message);
    json_decref(message);
}
