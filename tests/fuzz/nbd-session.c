/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The server behind the NBD fuzzers. It is never taken down, only its clients;
 * what a client leaves behind would show as a leak or in the budget.
 */
#include "nbd-session.h"

#include <string.h>
#include <sys/socket.h>

#include "io/channel-memory.h"
#include "io/channel-socket.h"
#include "server/nbd/nbd-private.h"

/* Most bytes of one read by the client's end of a socket. */
#define PUMP_BYTES ((size_t)256 * 1024)

static struct {
    BfLoop *loop;
    BfGraph *graph;
    BfExportTable *table;
    BfNbdServer *server;
    BfBudget budget;
} world = {.budget.limit = 4 * 1024 * 1024};

typedef struct Session {
    GByteArray *input;
    GByteArray *output;
    size_t max_chunk;
    int peer_fd;       /* the client's end, if there is a socket */
    BfChannel *peer;   /* the same */
    BfWaitGroup pumps; /* what moves bytes between it and the arrays */
} Session;

static void
co_add_node(BfBlockdevOptions *options, const char *node)
{
    options->node_name = (char *)node;
    options->active = true;
    g_assert_true(bf_graph_co_blockdev_add(world.graph, options, NULL));
}

static void
co_add_null(const char *node, uint64_t latency_ns)
{
    BfBlockdevOptionsNull null = {
        .size = NBD_SESSION_BYTES,
        .latency_ns = latency_ns,
    };
    BfBlockdevOptions options = {
        .driver = BF_BLOCKDEV_DRIVER_NULL_CO,
        .u.null_co = &null,
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
    BfBlockdevRef ref = {
        .kind = BF_BLOCKDEV_REF_KIND_STR,
        .u.str = (char *)child,
    };
    BfBlockdevOptionsFault fault = {.image = &ref, .rules = &rules};
    BfBlockdevOptions options = {
        .driver = BF_BLOCKDEV_DRIVER_FAULT,
        .u.fault = &fault,
    };

    co_add_node(&options, node);
}

static void
co_export(const char *node, const char *name, bool writable)
{
    BfBlockExportOptionsNbd nbd = {
        .name = (char *)name,
        .description = (char *)(writable ? "an export" : NULL),
        .allocation_depth = true,
    };
    BfBlockExportOptions options = {
        .type = BF_BLOCK_EXPORT_TYPE_NBD,
        .id = (char *)name,
        .node_name = (char *)node,
        .writable = writable,
        .u.nbd = &nbd,
    };

    g_assert_true(bf_nbd_export_co_add(&world.server, world.table, world.graph,
                                       &options, NULL, NULL, NULL));
}

static void
co_set_up(void *arg)
{
    BfGraphConfig graph_config = {
        .workers = &world.loop,
        .n_workers = 1,
        .allow_faults = true,
    };
    BfNbdServerConfig config = {
        .workers = &world.loop,
        .n_workers = 1,
        .budget = &world.budget,
    };

    world.graph = bf_graph_new(&graph_config);
    world.table = bf_export_table_new(world.graph, NULL, NULL);
    config.exports = world.table;
    world.server = bf_nbd_server_new(&config);
    co_add_null("n0", 0);
    co_add_null("n1", 1000);
    co_add_null("n2", 0);
    co_add_fault("n3", "n2");
    co_export("n0", "e0", true);
    co_export("n0", "ro", false);
    co_export("n1", "slow", true);
    co_export("n3", "bad", true);
    bf_loop_stop(world.loop);
}

/* A server that hangs up early makes it fail, which is all right. */
static void
co_pump_input(void *arg)
{
    Session *session = arg;

    bf_channel_co_write_all(session->peer, session->input->data,
                            session->input->len, NULL);
    shutdown(session->peer_fd, SHUT_WR);
    bf_wait_group_done(&session->pumps);
}

static void
co_pump_output(void *arg)
{
    Session *session = arg;
    g_autofree uint8_t *buf = g_malloc(PUMP_BYTES);
    ssize_t n;

    while ((n = bf_channel_co_read(session->peer, buf, PUMP_BYTES, NULL)) > 0) {
        g_byte_array_append(session->output, buf, n);
    }
    bf_wait_group_done(&session->pumps);
}

static BfChannel *
start_pumps(Session *session)
{
    int fds[2];

    g_assert_cmpint(
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds),
        ==, 0);
    session->peer_fd = fds[1];
    session->peer = bf_channel_socket_new(fds[1]);
    bf_wait_group_add(&session->pumps, 2);
    bf_co_spawn_later(co_pump_input, session);
    bf_co_spawn_later(co_pump_output, session);
    return bf_channel_socket_new(fds[0]);
}

static void
co_run(void *arg)
{
    Session *session = arg;
    BfChannel *channel =
        session->max_chunk == 0
            ? start_pumps(session)
            : bf_channel_memory_new(session->input, session->output,
                                    session->max_chunk);

    bf_nbd_client_start(world.server->first, channel, g_strdup("a fuzzer"),
                        &(BfPeerSource){.value = 1});
    bf_wait_group_co_wait(&world.server->alive);
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
nbd_session_run(GByteArray *input, size_t max_chunk)
{
    Session session = {
        .input = input,
        .output = g_byte_array_new(),
        .max_chunk = max_chunk,
    };

    if (world.loop == NULL) {
        g_log_set_writer_func(drop_log, NULL, NULL);
        world.loop = bf_loop_new_main(bf_clock_new_system(), NULL);
        g_assert_nonnull(world.loop);
        bf_co_spawn_later(co_set_up, NULL);
        bf_loop_run(world.loop);
    }
    bf_co_spawn_later(co_run, &session);
    bf_loop_run(world.loop);
    return session.output;
}
