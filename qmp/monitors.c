/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The set of monitors: connects character devices, clients and events.
 *
 * Clients are owned by themselves; @clients lists those that live, and the set
 * stays until the last has ended. Closing has two limits: one for commands and
 * clients that do not read, one for connections and devices that do not end.
 */
#include "qmp/monitors.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/co-lock.h"
#include "core/error.h"
#include "core/registry.h"
#include "core/util.h"
#include "qmp/chardev.h"
#include "qmp/event.h"
#include "qmp/monitor.h"
#include "qmp/monitors-private.h"

/* Character devices, those that are being made included. */
#define CHARDEVS_MAX 1024
/* Clients of one monitor at the same time. */
#define CLIENTS_MAX 64
/* Threads for texts of 256 KiB and more. */
#define JSON_THREADS 2
/* How long closing waits for commands and for clients that do not read. */
#define DRAIN_NS (3 * BF_NS_PER_SEC)
/* How long closing waits for connections that were shut down. */
#define END_NS (2 * BF_NS_PER_SEC)

typedef struct Monitor {
    BfMonitors *monitors; /* borrowed: the owner */
    BfChardev *chardev;   /* borrowed: lives until the set closes */
    char *name;           /* owned: for logs */
    BfJsonStyle style;
    bool read_only;
    unsigned n_clients;
} Monitor;

/* What a client's "ended" needs to know. */
typedef struct ClientLink {
    Monitor *monitor;
    BfMonitorClient *client;
} ClientLink;

struct BfMonitors {
    BfLoop *main_loop; /* borrowed */
    BfDaemon *daemon;  /* (nullable) borrowed */
    BfFn *quit;        /* (nullable) */
    void *quit_opaque;
    BfTakeFd *take_fd; /* (nullable): for the command line */
    void *take_fd_opaque;
    BfRegistry *chardevs;  /* of BfChardev, owned */
    GHashTable *opening;   /* owned: ids of those that are being made */
    GPtrArray *monitors;   /* of Monitor, owned */
    GPtrArray *clients;    /* of ClientLink, owned */
    BfEvents *events;      /* owned */
    BfPoolLane *lane;      /* owned */
    BfCancel cancel_start; /* ends waits at the start and in the end */
    BfCoQueue changed;     /* a client has become idle or ended, a device has
                            * been closed */
    BfWaitGroup refusals;  /* connections that are being refused */
    unsigned n_closing;    /* devices that are being closed */
    unsigned last_client;  /* numbers them in logs */
    bool is_started;
    bool is_stopping; /* no command is begun any more */
    bool is_closing;
};

/* jansson's memory may hold secrets of a client's object-add. */
static void
wipe_free(void *memory)
{
    if (memory != NULL) {
        explicit_bzero(memory, malloc_usable_size(memory));
        free(memory);
    }
}

static void
send_event(void *opaque, const json_t *message)
{
    BfMonitors *monitors = opaque;
    GBytes *texts[] = {
        [BF_JSON_STYLE_COMPACT] = NULL, [BF_JSON_STYLE_PRETTY] = NULL};

    for (unsigned i = 0; i < monitors->clients->len; i++) {
        const ClientLink *link = g_ptr_array_index(monitors->clients, i);
        BfJsonStyle style = bf_monitor_client_get_style(link->client);

        if (!bf_monitor_client_is_negotiated(link->client)) {
            continue;
        }
        if (texts[style] == NULL) {
            GString *text = g_string_new(NULL);

            bf_json_write(text, message, style);
            g_string_append(text, "\r\n");
            texts[style] = g_string_free_to_bytes(text);
        }
        bf_monitor_client_send_event(link->client, texts[style]);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_clear_pointer(&texts[i], g_bytes_unref);
    }
}

static void
monitor_free(void *data)
{
    Monitor *monitor = data;

    g_free(monitor->name);
    g_free(monitor);
}

BfMonitors *
bf_monitors_new(BfLoop *main_loop)
{
    BfMonitors *monitors = g_new0(BfMonitors, 1);

    bf_assert_main();
    json_set_alloc_funcs(malloc, wipe_free);
    json_object_seed(0); /* before any other thread uses jansson */
    monitors->main_loop = main_loop;
    monitors->chardevs = bf_registry_new();
    monitors->opening =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    monitors->monitors = g_ptr_array_new_with_free_func(monitor_free);
    monitors->clients = g_ptr_array_new_with_free_func(g_free);
    monitors->events =
        bf_events_new(bf_qmp_events, bf_qmp_n_events, send_event, monitors);
    monitors->lane = bf_pool_lane_new("qmp-json", JSON_THREADS);
    return monitors;
}

void
bf_monitors_set_daemon(BfMonitors *monitors, BfDaemon *daemon)
{
    monitors->daemon = daemon;
}

void
bf_monitors_set_quit_fn(BfMonitors *monitors, BfFn *quit, void *opaque)
{
    monitors->quit = quit;
    monitors->quit_opaque = opaque;
}

void
bf_monitors_set_take_fd(BfMonitors *monitors, BfTakeFd *take_fd, void *opaque)
{
    monitors->take_fd = take_fd;
    monitors->take_fd_opaque = opaque;
}

BfCancel *
bf_monitors_stopping(BfMonitors *monitors)
{
    return &monitors->cancel_start;
}

int
bf_monitors_take_fd(BfMonitors *monitors, const char *name, GError **error)
{
    if (monitors->take_fd == NULL) {
        bf_set_error(error, "File descriptor named '%s' has not been found",
                     name);
        return -1;
    }
    return monitors->take_fd(monitors->take_fd_opaque, name, error);
}

void
bf_monitors_quit(BfMonitors *monitors)
{
    BfFn *quit = monitors->quit;

    monitors->quit = NULL;
    if (quit != NULL) {
        quit(monitors->quit_opaque);
    }
}

bool
bf_monitors_have_clients(const BfMonitors *monitors)
{
    return monitors->clients->len > 0;
}

void
bf_monitors_emit(BfMonitors *monitors, const char *name, json_t *data)
{
    bf_events_emit(monitors->events, name, data);
}

static void
export_deleted(void *opaque, const char *id)
{
    bf_monitors_emit(opaque, BF_EVENT_BLOCK_EXPORT_DELETED,
                     bf_event_build_block_export_deleted(id));
}

const BfExportEvents *
bf_monitors_export_events(void)
{
    static const BfExportEvents events = {.deleted = export_deleted};

    return &events;
}

/* Only one device can have the standard descriptors. */
static bool
check_stdio(BfMonitors *monitors, const BfChardevConfig *config, GError **error)
{
    g_autoptr(GPtrArray) list = bf_registry_list(monitors->chardevs);

    for (unsigned i = 0; i < list->len; i++) {
        if (config->kind == BF_CHARDEV_BACKEND_KIND_STDIO &&
            bf_chardev_get_config(g_ptr_array_index(list, i))->kind ==
                config->kind) {
            bf_set_error(error,
                         "chardev '%s': stdio is in use by another "
                         "character device",
                         config->id);
            return false;
        }
    }
    return true;
}

static bool
has_monitor(const BfMonitors *monitors, const BfChardev *chardev)
{
    for (unsigned i = 0; i < monitors->monitors->len; i++) {
        const Monitor *monitor = g_ptr_array_index(monitors->monitors, i);

        if (monitor->chardev == chardev) {
            return true;
        }
    }
    return false;
}

/* Nothing may be done with @id while a device with it is being made. */
static bool
check_addition(BfMonitors *monitors, const char *id, GError **error)
{
    if (bf_registry_find(monitors->chardevs, id) != NULL ||
        g_hash_table_contains(monitors->opening, id)) {
        bf_set_error(error, "Chardev with id '%s' already exists", id);
        return false;
    }
    if (bf_registry_size(monitors->chardevs) +
            g_hash_table_size(monitors->opening) >=
        CHARDEVS_MAX) {
        bf_set_error(error,
                     "there are %d character devices already; remove "
                     "some with chardev-remove",
                     CHARDEVS_MAX);
        return false;
    }
    return true;
}

static bool
check_replacement(BfMonitors *monitors, const char *id, GError **error)
{
    const BfChardev *old = bf_registry_find(monitors->chardevs, id);

    if (old == NULL) {
        bf_set_error(error, "Chardev '%s' does not exist", id);
    } else if (has_monitor(monitors, old)) {
        bf_set_error(error,
                     "Chardev user does not support chardev hotswap: a monitor "
                     "uses '%s'",
                     id);
    } else if (g_hash_table_contains(monitors->opening, id)) {
        bf_set_error(error, "Chardev '%s' is being changed already", id);
    } else {
        return true;
    }
    return false;
}

/* Makes the device of @config, which is freed also on failure. */
static BfChardev *
co_open_chardev(BfMonitors *monitors, BfChardevConfig *config,
                const BfChardevContext *context, GError **error)
{
    g_autofree char *id = g_strdup(config->id);
    BfChardev *chardev = NULL;

    if (!check_stdio(monitors, config, error)) {
        bf_chardev_config_free(config);
    } else {
        g_hash_table_add(monitors->opening, g_strdup(id));
        chardev = bf_chardev_co_open(config, context, error);
        g_hash_table_remove(monitors->opening, id);
    }
    if (chardev == NULL) {
        g_prefix_error(error, "Failed to add chardev '%s': ", id);
    }
    return chardev;
}

bool
bf_monitors_co_chardev_open(BfMonitors *monitors, BfChardevConfig *config,
                            BfTakeFd *take_fd, void *take_fd_opaque,
                            BfMonitorsChardevOp op, GError **error)
{
    g_autoptr(BfChardevConfig) owned = config;
    const BfChardevContext context = {
        .cancel = &monitors->cancel_start,
        .take_fd = take_fd,
        .take_fd_opaque = take_fd_opaque,
        .objects = monitors->daemon != NULL ? monitors->daemon->objects : NULL,
    };
    BfChardev *chardev = NULL;
    BfChardev *old = NULL;

    bf_assert_main();
    if (!(op == BF_MONITORS_CHARDEV_ADD
              ? check_addition(monitors, config->id, error)
              : check_replacement(monitors, config->id, error))) {
        return false;
    }
    chardev =
        co_open_chardev(monitors, g_steal_pointer(&owned), &context, error);
    if (chardev == NULL) {
        return false;
    }
    if (monitors->is_closing) {
        bf_set_error(error, "the daemon is ending");
        bf_chardev_co_free(chardev);
        return false;
    }
    old = bf_registry_remove(monitors->chardevs,
                             bf_chardev_get_config(chardev)->id);
    bf_registry_add(monitors->chardevs, bf_chardev_get_config(chardev)->id,
                    chardev);
    bf_chardev_co_free(old);
    return true;
}

bool
bf_monitors_co_chardev_add(BfMonitors *monitors, const char *text,
                           GError **error)
{
    BfChardevConfig *config = bf_chardev_config_parse(text, error);

    return config != NULL &&
           bf_monitors_co_chardev_open(monitors, config, monitors->take_fd,
                                       monitors->take_fd_opaque,
                                       BF_MONITORS_CHARDEV_ADD, error);
}

BfChardev *
bf_monitors_find_chardev(BfMonitors *monitors, const char *id)
{
    return bf_registry_find(monitors->chardevs, id);
}

bool
bf_monitors_co_chardev_remove(BfMonitors *monitors, const char *id,
                              GError **error)
{
    BfChardev *chardev = bf_registry_find(monitors->chardevs, id);

    if (chardev == NULL) {
        bf_set_error(error, "Chardev '%s' not found", id);
        return false;
    }
    if (has_monitor(monitors, chardev)) {
        bf_set_error(error, "Chardev '%s' is busy: a monitor uses it", id);
        return false;
    }
    if (g_hash_table_contains(monitors->opening, id)) {
        bf_set_error(error, "Chardev '%s' is busy: it is being changed", id);
        return false;
    }
    bf_registry_remove(monitors->chardevs, id);
    bf_chardev_co_free(chardev);
    return true;
}

static void
client_changed(void *opaque)
{
    const ClientLink *link = opaque;

    bf_co_queue_wake_all(&link->monitor->monitors->changed);
}

static void
client_ended(void *opaque)
{
    ClientLink *link = opaque;
    Monitor *monitor = link->monitor;
    BfMonitors *monitors = monitor->monitors;

    monitor->n_clients--;
    g_ptr_array_remove(monitors->clients, link);
    if (!monitors->is_stopping) {
        bf_chardev_disconnected(monitor->chardev);
    }
    bf_co_queue_wake_all(&monitors->changed);
}

/* A connection that is one too many. */
typedef struct Refusal {
    Monitor *monitor;
    BfChannel *channel;
} Refusal;

static void
refusal_co_run(void *arg)
{
    g_autofree Refusal *refusal = arg;
    g_autofree char *text = g_strdup_printf(
        "%s serves %d clients, which is its limit; close one and try again",
        refusal->monitor->name, CLIENTS_MAX);
    g_autoptr(GBytes) line =
        bf_dispatch_error_line(text, refusal->monitor->style);
    gsize len = 0;
    const void *data = g_bytes_get_data(line, &len);

    /* It fits into an empty socket, so this does not wait. */
    bf_channel_co_write_all(refusal->channel, data, len, NULL);
    bf_channel_free(refusal->channel);
    bf_wait_group_done(&refusal->monitor->monitors->refusals);
}

static void
refuse(Monitor *monitor, BfChannel *channel, const char *peer)
{
    Refusal *refusal = g_new0(Refusal, 1);

    g_info("%s: refused %s: there are %d clients", monitor->name, peer,
           CLIENTS_MAX);
    refusal->monitor = monitor;
    refusal->channel = channel;
    bf_wait_group_add(&monitor->monitors->refusals, 1);
    bf_co_spawn_later(refusal_co_run, refusal);
}

static void
client_connected(void *opaque, BfChannel *channel, const char *peer)
{
    Monitor *monitor = opaque;
    BfMonitors *monitors = monitor->monitors;
    g_autofree char *name = NULL;
    ClientLink *link = NULL;

    if (monitors->is_stopping) {
        bf_channel_free(channel);
        return;
    }
    if (monitor->n_clients >= CLIENTS_MAX) {
        refuse(monitor, channel, peer);
        return;
    }
    monitor->n_clients++;
    link = g_new0(ClientLink, 1);
    link->monitor = monitor;
    name = g_strdup_printf("%s client %u (%s)", monitor->name,
                           ++monitors->last_client, peer);
    link->client = bf_monitor_client_start(&(BfMonitorClientConfig){
        .call = {.daemon = monitors->daemon, .monitors = monitors},
        .channel = channel,
        .name = name,
        .lane = monitors->lane,
        .style = monitor->style,
        .read_only = monitor->read_only,
        .changed = client_changed,
        .ended = client_ended,
        .opaque = link,
    });
    g_ptr_array_add(monitors->clients, link);
}

static bool
add_monitor(BfMonitors *monitors, const BfMonitorOptions *options,
            GError **error)
{
    BfChardev *chardev = bf_registry_find(monitors->chardevs, options->chardev);
    Monitor *monitor = NULL;
    g_autofree char *where = NULL;

    if (options->mode != BF_MONITOR_MODE_CONTROL) {
        bf_set_error(error, "Only QMP is supported");
        return false;
    }
    if (chardev == NULL) {
        bf_set_error(error, "chardev \"%s\" not found", options->chardev);
        return false;
    }
    if (has_monitor(monitors, chardev)) {
        bf_set_error(error, "chardev '%s' is in use by another monitor",
                     options->chardev);
        return false;
    }
    monitor = g_new0(Monitor, 1);
    monitor->monitors = monitors;
    monitor->chardev = chardev;
    monitor->style =
        options->pretty ? BF_JSON_STYLE_PRETTY : BF_JSON_STYLE_COMPACT;
    monitor->read_only = options->read_only;
    monitor->name = g_strdup_printf(
        "monitor '%s'", options->id != NULL ? options->id : options->chardev);
    g_ptr_array_add(monitors->monitors, monitor);
    where = bf_chardev_describe(chardev);
    g_message("%s on %s%s", monitor->name, where,
              monitor->read_only ? " (read-only)" : "");
    if (monitors->is_started) {
        bf_chardev_start(chardev, client_connected, monitor);
    }
    return true;
}

bool
bf_monitors_co_monitor_add(BfMonitors *monitors,
                           const BfMonitorOptions *options, GError **error)
{
    bf_assert_main();
    return add_monitor(monitors, options, error);
}

bool
bf_monitors_co_add_default(BfMonitors *monitors, const char *path,
                           GError **error)
{
    BfChardevConfig *config = g_new0(BfChardevConfig, 1);
    const BfMonitorOptions options = {
        .chardev = (char *)"default",
        .mode = BF_MONITOR_MODE_CONTROL,
    };

    bf_assert_main();
    config->kind = BF_CHARDEV_BACKEND_KIND_SOCKET;
    config->id = g_strdup("default");
    config->server = true;
    config->address = bf_type_new(&bf_socket_address_type);
    config->address->type = BF_SOCKET_ADDRESS_TYPE_UNIX;
    config->address->u.unix_ = bf_type_new(&bf_unix_socket_address_type);
    config->address->u.unix_->path = g_strdup(path);
    if (!bf_monitors_co_chardev_open(monitors, config, NULL, NULL,
                                     BF_MONITORS_CHARDEV_ADD, error)) {
        return false;
    }
    /* Nobody said who may use it, so only the owner may. */
    if (chmod(path, S_IRUSR | S_IWUSR) < 0) {
        bf_set_errno(error, errno, "cannot restrict access to '%s'", path);
        return false;
    }
    return add_monitor(monitors, &options, error);
}

char *
bf_monitors_chardev_help(void)
{
    return g_strdup(bf_chardev_help());
}

unsigned
bf_monitors_count(const BfMonitors *monitors)
{
    return monitors->monitors->len;
}

void
bf_monitors_start(BfMonitors *monitors)
{
    bf_assert_main();
    monitors->is_started = true;
    for (unsigned i = 0; i < monitors->monitors->len; i++) {
        Monitor *monitor = g_ptr_array_index(monitors->monitors, i);

        bf_chardev_start(monitor->chardev, client_connected, monitor);
    }
}

void
bf_monitors_cancel_wait(BfMonitors *monitors)
{
    bf_cancel_fire(&monitors->cancel_start);
}

/* Sockets without a client are shown as such. */
static char *
describe_chardev(const BfMonitors *monitors, const BfChardev *chardev)
{
    g_autofree char *text = bf_chardev_describe(chardev);
    bool is_connected = false;

    for (unsigned i = 0; i < monitors->monitors->len; i++) {
        const Monitor *monitor = g_ptr_array_index(monitors->monitors, i);

        is_connected |= monitor->chardev == chardev && monitor->n_clients > 0;
    }
    if (is_connected || bf_chardev_get_config(chardev)->kind !=
                            BF_CHARDEV_BACKEND_KIND_SOCKET) {
        return g_steal_pointer(&text);
    }
    return g_strconcat("disconnected:", text, NULL);
}

BfChardevInfoList *
bf_monitors_query_chardevs(BfMonitors *monitors)
{
    g_autoptr(GPtrArray) list = bf_registry_list(monitors->chardevs);
    BfChardevInfoList *infos = bf_type_new(&bf_chardev_info_list_type);

    infos->len = list->len;
    infos->items = g_new0(BfChardevInfo *, list->len);
    for (unsigned i = 0; i < list->len; i++) {
        const BfChardev *chardev = g_ptr_array_index(list, i);
        BfChardevInfo *info = bf_type_new(&bf_chardev_info_type);

        info->label = g_strdup(bf_chardev_get_config(chardev)->id);
        info->filename = describe_chardev(monitors, chardev);
        info->frontend_open = has_monitor(monitors, chardev);
        infos->items[i] = info;
    }
    return infos;
}

static bool
all_idle(const BfMonitors *monitors)
{
    for (unsigned i = 0; i < monitors->clients->len; i++) {
        const ClientLink *link = g_ptr_array_index(monitors->clients, i);

        if (!bf_monitor_client_is_idle(link->client)) {
            return false;
        }
    }
    return true;
}

static bool
none_running(const BfMonitors *monitors)
{
    for (unsigned i = 0; i < monitors->clients->len; i++) {
        const ClientLink *link = g_ptr_array_index(monitors->clients, i);

        if (bf_monitor_client_is_running(link->client)) {
            return false;
        }
    }
    return true;
}

static bool
all_ended(const BfMonitors *monitors)
{
    return monitors->clients->len == 0 && monitors->n_closing == 0;
}

/* A deadline for a wait on @changed. */
typedef struct Deadline {
    BfMonitors *monitors;
    bool has_passed;
} Deadline;

static void
deadline_passed(void *arg)
{
    Deadline *deadline = arg;

    deadline->has_passed = true;
    bf_co_queue_wake_all(&deadline->monitors->changed);
}

/* Waits for a condition. Returns false when the time is over. */
static bool
co_wait_until(BfMonitors *monitors, bool (*holds)(const BfMonitors *),
              uint64_t limit_ns)
{
    Deadline deadline = {.monitors = monitors};
    BfTimer timer = {0};
    bool ok = false;

    bf_timer_start(&timer, limit_ns, deadline_passed, &deadline);
    while (!(ok = holds(monitors)) && !deadline.has_passed) {
        bf_co_queue_co_wait(&monitors->changed);
    }
    bf_timer_stop(&timer);
    return ok;
}

/* A device on its way out. */
typedef struct Closing {
    BfMonitors *monitors;
    BfChardev *chardev;
} Closing;

static void
closing_co_run(void *arg)
{
    g_autofree Closing *closing = arg;

    bf_chardev_co_free(closing->chardev);
    closing->monitors->n_closing--;
    bf_co_queue_wake_all(&closing->monitors->changed);
}

/* Each by itself: a name lookup of one must not keep the others open. */
static void
start_closing_chardevs(BfMonitors *monitors)
{
    g_autoptr(GPtrArray) list = bf_registry_list(monitors->chardevs);

    for (unsigned i = 0; i < list->len; i++) {
        Closing *closing = g_new0(Closing, 1);

        closing->monitors = monitors;
        closing->chardev = g_ptr_array_index(list, i);
        bf_registry_remove(monitors->chardevs,
                           bf_chardev_get_config(closing->chardev)->id);
        monitors->n_closing++;
        bf_co_spawn_later(closing_co_run, closing);
    }
}

static void
for_each_client(BfMonitors *monitors, void (*fn)(BfMonitorClient *client))
{
    for (unsigned i = 0; i < monitors->clients->len; i++) {
        const ClientLink *link = g_ptr_array_index(monitors->clients, i);

        fn(link->client);
    }
}

static void
release_objects(BfMonitors *monitors)
{
    g_autoptr(GPtrArray) list = bf_registry_list(monitors->chardevs);

    for (unsigned i = 0; i < list->len; i++) {
        bf_chardev_release_objects(g_ptr_array_index(list, i));
    }
}

bool
bf_monitors_co_stop(BfMonitors *monitors)
{
    bf_assert_main();
    monitors->is_stopping = true;
    bf_cancel_fire(&monitors->cancel_start);
    for_each_client(monitors, bf_monitor_client_stop);
    if (!co_wait_until(monitors, none_running, DRAIN_NS)) {
        return false;
    }
    /* The daemon may be closed now. */
    release_objects(monitors);
    return true;
}

bool
bf_monitors_co_close(BfMonitors *monitors)
{
    bf_monitors_co_stop(monitors);
    monitors->is_closing = true;
    if (!co_wait_until(monitors, all_idle, DRAIN_NS)) {
        g_warning("some clients of monitors have not read their replies, or "
                  "their commands have not ended; closing without them");
    }
    for_each_client(monitors, bf_monitor_client_shutdown);
    start_closing_chardevs(monitors);
    bf_wait_group_co_wait(&monitors->refusals);
    return co_wait_until(monitors, all_ended, END_NS);
}

void
bf_monitors_free(BfMonitors *monitors)
{
    if (monitors == NULL) {
        return;
    }
    g_assert(monitors->clients->len == 0);
    g_assert(bf_registry_size(monitors->chardevs) == 0);
    bf_events_free(monitors->events);
    bf_registry_free(monitors->chardevs);
    g_hash_table_unref(monitors->opening);
    g_ptr_array_unref(monitors->monitors);
    g_ptr_array_unref(monitors->clients);
    bf_pool_lane_free(monitors->lane);
    g_free(monitors);
}
