/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The servers behind the NBD fuzzers. They are never taken down, only their
 * clients; what a client leaves behind would show as a leak or in the budget.
 */
#include "nbd-session.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../unit/tls-pair.h"
#include "block/bitmap-ops.h"
#include "core/util.h"
#include "io/channel-memory.h"
#include "io/channel-socket.h"
#include "io/channel-tls.h"
#include "server/nbd/nbd-private.h"

/* Most bytes of one read by the client's end of a socket. */
#define PUMP_BYTES ((size_t)256 * 1024)

/* The same of one that is to end on the way. */
#define STEP_BYTES ((size_t)4 * 1024)

/* What its socket holds of the input, about half of it: if the server found all
 * of that there, no payload would ever go through a pipe. */
#define SEND_BYTES (16 * 1024)

/* The largest piece of data in the file. */
#define PIECE_BYTES 98304

/* Where it has data; the rest are holes. */
static const struct {
    uint64_t offset;
    size_t bytes;
} file_data[] = {
    {0, 8192}, {49152, 4096}, {61440, PIECE_BYTES}, {163840, 512}, {262143, 1},
};

static struct {
    BfLoop *loop;
    BfGraph *graph;
    BfExportTable *table;
    BfNbdServer *server;
    BfNbdServer *secure;       /* demands TLS */
    BfNbdListener *restricted; /* of it, for nobody */
    BfTlsCreds *known;         /* of clients: with a certificate */
    BfTlsCreds *bare;          /* without one */
    BfObjects *objects;
    BfThrottleGroup *group;
    int file_fd;
    BfBudget budget;
} world = {.budget.limit = 4 * 1024 * 1024};

typedef struct Session {
    GByteArray *input;
    GByteArray *output;
    const NbdSessionPlan *plan;
    BfNbdServer *server;
    int peer_fd;       /* the client's end, if there is a socket */
    BfChannel *peer;   /* (nullable) the same, if it got so far */
    BfWaitGroup pumps; /* what moves bytes between it and the arrays */
} Session;

static BfThrottleGroup *
find_group(void *opaque, const char *id)
{
    return world.group;
}

static void
co_add_node(BfBlockdevOptions *options, const char *node)
{
    options->node_name = (char *)node;
    options->active = true;
    g_assert_true(bf_graph_co_blockdev_add(world.graph, options, NULL));
}

static void
co_add_null(const char *node, uint64_t size, uint64_t latency_ns)
{
    BfBlockdevOptionsNull null = {
        .size = size,
        .latency_ns = latency_ns,
    };
    BfBlockdevOptions options = {
        .driver = BF_BLOCKDEV_DRIVER_NULL_CO,
        .u.null_co = &null,
    };

    co_add_node(&options, node);
}

static void
co_add_rules(const char *node, const char *child, BfFaultRuleList *rules)
{
    BfBlockdevRef ref = {
        .kind = BF_BLOCKDEV_REF_KIND_STR,
        .u.str = (char *)child,
    };
    BfBlockdevOptionsFault fault = {.image = &ref, .rules = rules};
    BfBlockdevOptions options = {
        .driver = BF_BLOCKDEV_DRIVER_FAULT,
        .u.fault = &fault,
    };

    co_add_node(&options, node);
}

/* Flushes fail, and so does what touches the second half of @child. */
static void
co_add_fault(const char *node, const char *child)
{
    BfFaultRule flush = {
        .op = BF_FAULT_OP_FLUSH,
        .errno_ = (char *)"EIO",
        .probability = 100,
    };
    BfFaultRule half = {
        .op = BF_FAULT_OP_ANY,
        .has_offset = true,
        .offset = NBD_SESSION_BYTES / 2,
        .errno_ = (char *)"ENOSPC",
        .probability = 100,
    };
    BfFaultRule *items[] = {&flush, &half};
    BfFaultRuleList rules = {.len = G_N_ELEMENTS(items), .items = items};

    co_add_rules(node, child, &rules);
}

/* Reads fail. */
static void
co_add_unreadable(const char *node, const char *child)
{
    BfFaultRule read = {
        .op = BF_FAULT_OP_READ,
        .errno_ = (char *)"EIO",
        .probability = 100,
    };
    BfFaultRule *items[] = {&read};
    BfFaultRuleList rules = {.len = 1, .items = items};

    co_add_rules(node, child, &rules);
}

/* Makes the file what it was in the beginning. */
static void
reset_file(void)
{
    uint8_t data[PIECE_BYTES];

    memset(data, NBD_SESSION_BYTE, sizeof(data));
    fallocate(world.file_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
              NBD_SESSION_BYTES);
    for (size_t i = 0; i < G_N_ELEMENTS(file_data); i++) {
        g_assert_cmpint(pwrite(world.file_fd, data, file_data[i].bytes,
                               (off_t)file_data[i].offset),
                        ==, file_data[i].bytes);
    }
}

/* A file that has no name any more; nobody waits for its disk. */
static void
co_add_file(const char *node)
{
    g_autofree char *temp = NULL;
    g_autofree char *path = NULL;
    BfBlockdevCacheOptions cache = {.has_no_flush = true, .no_flush = true};
    BfBlockdevOptionsFile file = {.locking = BF_ON_OFF_AUTO_OFF};
    BfBlockdevOptions options = {
        .driver = BF_BLOCKDEV_DRIVER_FILE,
        .has_discard = true,
        .discard = BF_BLOCKDEV_DISCARD_OPTIONS_UNMAP,
        .cache = &cache,
        .u.file = &file,
    };

    world.file_fd = g_file_open_tmp("fuzz-XXXXXX", &temp, NULL);
    g_assert_cmpint(world.file_fd, >=, 0);
    g_assert_cmpint(unlink(temp), ==, 0);
    g_assert_cmpint(ftruncate(world.file_fd, NBD_SESSION_BYTES), ==, 0);
    reset_file();
    path = g_strdup_printf("/proc/self/fd/%d", world.file_fd);
    file.filename = path;
    co_add_node(&options, node);
}

/* A bitmap that does not record; every other 4 KiB are dirty if @marked. */
static void
co_add_bitmap(const char *node, const char *name, bool marked)
{
    const BfBlockDirtyBitmapAdd add = {
        .node = (char *)node,
        .name = (char *)name,
        .has_granularity = true,
        .granularity = 512,
        .disabled = true,
    };
    const BfBitmapAction action = {
        .kind = BF_BITMAP_ACTION_ADD,
        .u.add = &add,
    };
    BfNode *found = NULL;
    BfBitmap *bitmap = NULL;

    g_assert_true(bf_bitmap_co_apply(world.graph, &action, 1, NULL));
    bitmap = bf_bitmap_lookup(world.graph, node, name, &found, NULL);
    for (uint64_t at = 0; marked && at < NBD_SESSION_BYTES; at += 8192) {
        bf_bitmap_set(bitmap, at, 4096);
    }
}

static void
co_export(BfNbdServer *server, const BfBlockExportOptions *like,
          const char *name, const char *tls_authz)
{
    BfBlockDirtyBitmapOrStr bitmaps[] = {
        {.kind = BF_BLOCK_DIRTY_BITMAP_OR_STR_KIND_STR, .u.str = (char *)"b0"},
        {.kind = BF_BLOCK_DIRTY_BITMAP_OR_STR_KIND_STR, .u.str = (char *)"b1"},
    };
    BfBlockDirtyBitmapOrStr *items[] = {&bitmaps[0], &bitmaps[1]};
    BfBlockDirtyBitmapOrStrList list = {
        .len = G_N_ELEMENTS(items),
        .items = items,
    };
    BfBlockExportOptions options = *like;
    BfBlockExportOptionsNbd nbd = {
        .name = (char *)name,
        .description = (char *)(like->writable ? "an export" : NULL),
        .tls_authz = (char *)tls_authz,
        .bitmaps = g_str_equal(name, "file") ? &list : NULL,
        .allocation_depth = true,
    };
    g_autofree char *id =
        g_strdup_printf("%s-%s", server == world.server ? "p" : "s", name);

    options.type = BF_BLOCK_EXPORT_TYPE_NBD;
    options.id = id;
    options.u.nbd = &nbd;
    g_assert_true(bf_nbd_export_co_add(&server, world.table, world.graph,
                                       &options, NULL, NULL, NULL));
}

static void
co_export_simple(const char *node, const char *name, bool writable)
{
    co_export(world.server,
              &(BfBlockExportOptions){
                  .node_name = (char *)node,
                  .writable = writable,
              },
              name, NULL);
}

static void
co_add_nodes(void)
{
    co_add_null("n0", NBD_SESSION_BYTES, 0);
    co_add_null("n1", NBD_SESSION_BYTES, 1000);
    co_add_null("n2", NBD_SESSION_BYTES, 0);
    co_add_fault("n3", "n2");
    co_add_null("n4", NBD_SESSION_HUGE_BYTES, 0);
    co_add_unreadable("n5", "n4");
    co_add_file("n6");
    co_add_bitmap("n6", "b0", false);
    co_add_bitmap("n6", "b1", true);
}

static void
co_set_up(void *arg)
{
    BfThrottleConfig limits;
    BfGraphConfig graph_config = {
        .workers = &world.loop,
        .n_workers = 1,
        .allow_faults = true,
        .find_throttle_group = find_group,
    };
    BfNbdServerConfig config = {
        .workers = &world.loop,
        .n_workers = 1,
        .budget = &world.budget,
    };

    bf_throttle_config_init(&limits);
    limits.limits[BF_THROTTLE_BUCKET_BPS_TOTAL].avg = BF_THROTTLE_VALUE_MAX;
    world.group = bf_throttle_group_new(&limits);
    world.graph = bf_graph_new(&graph_config);
    world.table = bf_export_table_new(world.graph, NULL, NULL);
    config.exports = world.table;
    world.server = bf_nbd_server_new(&config);
    co_add_nodes();
    co_export_simple("n0", "e0", true);
    co_export_simple("n0", "ro", false);
    co_export_simple("n1", "slow", true);
    co_export_simple("n3", "bad", true);
    co_export_simple("n6", "file", true);
    co_export_simple("n6", "data", false);
    co_export_simple("n5", "huge", true);
    co_export(world.server,
              &(BfBlockExportOptions){
                  .node_name = (char *)"n0",
                  .writable = true,
                  .writethrough = true,
                  .throttle_group = (char *)"group",
              },
              "through", NULL);
    bf_loop_stop(world.loop);
}

/* Rules that allow @identity and nobody else. */
static void
co_add_authz(const char *id, const char *identity)
{
    BfAuthZSimpleProperties simple = {.identity = (char *)identity};
    BfObjectOptions options = {
        .qom_type = BF_OBJECT_TYPE_AUTHZ_SIMPLE,
        .id = (char *)id,
        .u.authz_simple = &simple,
    };

    g_assert_true(bf_objects_co_add(world.objects, &options, NULL));
}

/* The server with TLS, when it is wanted for the first time. */
static void
co_set_up_secure(void)
{
    BfBlockExportOptions like = {.node_name = (char *)"n0", .writable = true};
    BfNbdServerConfig config = {
        .workers = &world.loop,
        .n_workers = 1,
        .budget = &world.budget,
        .exports = world.table,
    };
    BfNbdListenerConfig restricted = {.id = "restricted", .tls_authz = "none"};

    bf_test_tls_init();
    world.known = bf_tls_creds_ref(bf_test_tls.client_creds);
    world.bare = bf_test_load(BF_TLS_ENDPOINT_CLIENT,
                              bf_test_tls.bare_client_dir, true, NULL);
    world.objects = bf_objects_new(world.loop);
    co_add_authz("none", "nobody");
    co_add_authz("some", "C=GB,O=Example\\, Org,CN=client1");
    config.objects = world.objects;
    config.first.tls_creds = bf_test_tls.server_creds;
    restricted.tls_creds = bf_test_tls.server_creds;
    world.secure = bf_nbd_server_new(&config);
    world.restricted = bf_nbd_listener_new(world.secure, &restricted);
    /* For the check of the exports' rules; there is no socket to look at. */
    g_ptr_array_add(world.secure->listeners, world.secure->first);
    co_export(world.secure, &like, "e0", "some");
    co_export(world.secure, &like, "ro", "none");
    g_ptr_array_set_size(world.secure->listeners, 0);
    bf_test_tls_clear();
}

/* A server that hangs up early makes it fail, which is all right. */
static void
co_pump_input(void *arg)
{
    Session *session = arg;

    bf_channel_co_write_all(session->peer, session->input->data,
                            session->input->len, NULL);
    bf_channel_co_bye(session->peer);
    shutdown(session->peer_fd, SHUT_WR);
    bf_wait_group_done(&session->pumps);
}

static void
end_early(Session *session)
{
    switch (session->plan->end) {
    case NBD_SESSION_END_WAIT:
        break;
    case NBD_SESSION_END_LEAVE:
        bf_channel_shutdown(session->peer);
        break;
    case NBD_SESSION_END_KILL:
        bf_nbd_server_kill_clients(session->server, NULL);
        break;
    }
}

static void
co_pump_output(void *arg)
{
    Session *session = arg;
    size_t bytes =
        session->plan->end == NBD_SESSION_END_WAIT ? PUMP_BYTES : STEP_BYTES;
    g_autofree uint8_t *buf = g_malloc(bytes);
    ssize_t n;

    while ((n = bf_channel_co_read(session->peer, buf, bytes, NULL)) > 0) {
        g_byte_array_append(session->output, buf, n);
        if (session->output->len >= session->plan->end_after) {
            end_early(session); /* again and again does no harm */
        }
    }
    bf_wait_group_done(&session->pumps);
}

/* Puts TLS between the client and the socket. */
static bool
co_start_tls(Session *session)
{
    uint8_t greeting[BF_NBD_GREETING_BYTES];
    uint8_t ack[BF_NBD_OPTION_REPLY_BYTES];
    uint8_t option[4 + BF_NBD_OPTION_BYTES] = {0, 0, 0, 3};

    bf_nbd_put_option(option + 4, &(BfNbdOptionHeader){
                                      .option = BF_NBD_OPTION_STARTTLS,
                                  });
    g_assert_cmpint(bf_channel_co_read_exact(session->peer, greeting,
                                             sizeof(greeting), NULL),
                    ==, BF_READ_DONE);
    g_byte_array_append(session->output, greeting, sizeof(greeting));
    g_assert_true(
        bf_channel_co_write_all(session->peer, option, sizeof(option), NULL));
    g_assert_cmpint(
        bf_channel_co_read_exact(session->peer, ack, sizeof(ack), NULL), ==,
        BF_READ_DONE);
    session->peer = bf_channel_tls_co_new(
        session->peer,
        session->plan->client == NBD_SESSION_CLIENT_BARE ? world.bare
                                                         : world.known,
        "server1.example", NULL);
    return session->peer != NULL;
}

static void
co_peer(void *arg)
{
    Session *session = arg;

    if (session->plan->client < NBD_SESSION_CLIENT_KNOWN ||
        co_start_tls(session)) {
        bf_wait_group_add(&session->pumps, 2);
        bf_co_spawn(co_pump_input, session);
        bf_co_spawn(co_pump_output, session);
    }
    bf_wait_group_done(&session->pumps);
}

static BfChannel *
start_peer(Session *session)
{
    const int few = SEND_BYTES;
    int fds[2];

    g_assert_cmpint(
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
        ==, 0);
    g_assert_cmpint(
        setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &few, sizeof(few)), ==, 0);
    session->peer_fd = fds[1];
    session->peer = bf_channel_socket_new(fds[1]);
    bf_wait_group_add(&session->pumps, 1);
    bf_co_spawn_later(co_peer, session);
    return bf_channel_socket_new(fds[0]);
}

static BfNbdListener *
find_listener(NbdSessionClient client)
{
    if (client == NBD_SESSION_CLIENT_NO_TLS) {
        return world.server->first;
    }
    if (world.secure == NULL) {
        co_set_up_secure();
    }
    return client == NBD_SESSION_CLIENT_UNWANTED ? world.restricted
                                                 : world.secure->first;
}

static void
co_run(void *arg)
{
    Session *session = arg;
    BfNbdListener *listener = find_listener(session->plan->client);
    bool has_socket = session->plan->max_chunk == 0 ||
                      session->plan->client >= NBD_SESSION_CLIENT_KNOWN;
    BfChannel *channel =
        has_socket ? start_peer(session)
                   : bf_channel_memory_new(session->input, session->output,
                                           session->plan->max_chunk);

    session->server = listener->server;
    bf_nbd_client_start(listener, channel, g_strdup("a fuzzer"),
                        &(BfPeerSource){.value = 1});
    bf_wait_group_co_wait(&listener->server->alive);
    bf_wait_group_co_wait(&session->pumps);
    bf_channel_free(session->peer);
    g_assert_cmpuint(world.budget.used, ==, 0);
    bf_loop_stop(world.loop);
}

static GLogWriterOutput
drop_log(GLogLevelFlags level, const GLogField *fields, gsize n_fields,
         gpointer opaque)
{
    return G_LOG_WRITER_HANDLED;
}

GByteArray *
nbd_session_run(GByteArray *input, const NbdSessionPlan *plan)
{
    Session session = {
        .input = input,
        .output = g_byte_array_new(),
        .plan = plan,
    };
    bool names_file = false; /* who does not, cannot have written to it */

    if (world.loop == NULL) {
        g_log_set_writer_func(drop_log, NULL, NULL);
        signal(SIGPIPE, SIG_IGN); /* as the daemon does */
        world.loop = bf_loop_new_main(bf_clock_new_system(), NULL);
        g_assert_nonnull(world.loop);
        bf_co_spawn_later(co_set_up, NULL);
        bf_loop_run(world.loop);
    }
    names_file =
        input->len > 0 && memmem(input->data, input->len, "file", 4) != NULL;
    bf_co_spawn_later(co_run, &session);
    bf_loop_run(world.loop);
    if (names_file) {
        reset_file();
    }
    return session.output;
}
