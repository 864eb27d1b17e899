/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The form of events and the limit of their rate. */
#include "qmp/event.h"

#include "core/util.h"
#include "harness.h"

static const BfEventInfo infos[] = {
    {"FREE", 0, NULL},
    {"LIMITED", 1000, "id"},
};

static void
keep(void *opaque, const json_t *message)
{
    g_ptr_array_add(opaque, json_deep_copy(message));
}

static void
emit(BfEvents *events, const char *name, const char *id, int number)
{
    json_t *data = json_object();

    json_object_set_new(data, "id", json_string(id));
    json_object_set_new(data, "n", json_integer(number));
    bf_events_emit(events, name, data);
}

static void
assert_event(GPtrArray *sent, unsigned index, const char *id, int number)
{
    const json_t *message = NULL;
    const json_t *data = NULL;

    g_assert_cmpint(sent->len, >, index);
    message = g_ptr_array_index(sent, index);
    data = json_object_get(message, "data");
    g_assert_cmpstr(json_string_value(json_object_get(data, "id")), ==, id);
    g_assert_cmpint(json_integer_value(json_object_get(data, "n")), ==, number);
}

static GPtrArray *
new_sink(void)
{
    return g_ptr_array_new_with_free_func((GDestroyNotify)json_decref);
}

static void
co_unlimited_events_go_at_once(void *arg)
{
    g_autoptr(GPtrArray) sent = new_sink();
    g_autoptr(BfEvents) events =
        bf_events_new(infos, G_N_ELEMENTS(infos), keep, sent);
    const json_t *message = NULL;

    emit(events, "FREE", "a", 1);
    emit(events, "FREE", "a", 2);
    bf_events_emit(events, "FREE", NULL);
    g_assert_cmpint(sent->len, ==, 3);
    assert_event(sent, 1, "a", 2);
    message = g_ptr_array_index(sent, 2);
    g_assert_cmpstr(json_string_value(json_object_get(message, "event")), ==,
                    "FREE");
    g_assert_null(json_object_get(message, "data"));
    g_assert_true(json_is_integer(json_object_get(
        json_object_get(message, "timestamp"), "microseconds")));
}

static void
co_last_of_a_period_wins(void *arg)
{
    g_autoptr(GPtrArray) sent = new_sink();
    g_autoptr(BfEvents) events =
        bf_events_new(infos, G_N_ELEMENTS(infos), keep, sent);

    emit(events, "LIMITED", "a", 1);
    emit(events, "LIMITED", "a", 2);
    emit(events, "LIMITED", "b", 3);
    emit(events, "LIMITED", "a", 4);
    g_assert_cmpint(sent->len, ==, 2);
    assert_event(sent, 0, "a", 1);
    assert_event(sent, 1, "b", 3);

    bf_test_advance(BF_NS_PER_SEC); /* the pending one opens a new period */
    g_assert_cmpint(sent->len, ==, 3);
    assert_event(sent, 2, "a", 4);
    emit(events, "LIMITED", "a", 5);
    g_assert_cmpint(sent->len, ==, 3);

    bf_test_advance(BF_NS_PER_SEC);
    assert_event(sent, 3, "a", 5);
    bf_test_advance(BF_NS_PER_SEC); /* nothing pends: forgotten */
    emit(events, "LIMITED", "a", 6);
    assert_event(sent, 4, "a", 6);
    emit(events, "LIMITED", "a", 7); /* dropped with the source */
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add_fake("/qmp/event/unlimited-events-go-at-once",
                     co_unlimited_events_go_at_once);
    bf_test_add_fake("/qmp/event/last-of-a-period-wins",
                     co_last_of_a_period_wins);
    return g_test_run();
}
