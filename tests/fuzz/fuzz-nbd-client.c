/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer of the NBD client: everything that a server sends. The first byte is
 * the size of the portions in which the rest arrives; the second chooses what
 * the client wants, and whether the handshake is left out. Then several
 * requests are under way, with cookies that an input can know.
 *
 * Beyond not crashing: what was negotiated makes sense, every request ends, and
 * no extents but those asked for come out.
 */
#include <stdint.h>
#include <string.h>

#include "block/block-private.h"
#include "block/drivers/nbd/nbd-private.h"
#include "core/error.h"
#include "core/util.h"
#include "io/channel-memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the second byte says. */
#define MODE_NO_HANDSHAKE 1
#define MODE_STRUCTURED 2
#define MODE_BITMAP 4
#define MODE_EXTENDED 8

#define EXPORT_BYTES (256 * 1024)
#define N_REQUESTS 9

typedef struct Session {
    BfLoop *loop;
    GByteArray *input;
    GByteArray *output;
    size_t max_chunk;
    unsigned mode;
    BfNbdcNode *node;
    BfNbdcConn *conn;
    BfWaitGroup requests;
} Session;

typedef struct Task {
    Session *session;
    BfNbdcRequest req;
    BfIoVec vec;
    BfExtents extents;
} Task;

static const struct {
    BfNbdCommand command;
    uint64_t offset;
    uint64_t length;
} plan[N_REQUESTS] = {
    {BF_NBD_COMMAND_READ, 0, 4096},
    {BF_NBD_COMMAND_READ, 4096, 512},
    {BF_NBD_COMMAND_WRITE, 512, 512},
    {BF_NBD_COMMAND_BLOCK_STATUS, 0, EXPORT_BYTES},
    {BF_NBD_COMMAND_FLUSH, 0, 0},
    {BF_NBD_COMMAND_READ, 8192, 131072},
    {BF_NBD_COMMAND_WRITE_ZEROES, 0, 65536},
    {BF_NBD_COMMAND_BLOCK_STATUS, 65536, 4096},
    {BF_NBD_COMMAND_BLOCK_STATUS, 512, 16 * (uint64_t)BF_GIB},
};

static void
task_co_run(void *arg)
{
    Task *task = arg;
    int ret = bf_nbdc_co_request(task->session->node, &task->req);

    g_assert_cmpint(ret, <=, 0);
    if (task->req.extents != NULL) {
        g_assert_cmpuint(task->extents.bytes, <=, task->req.length);
        g_assert_true(ret != 0 || task->extents.len > 0);
    }
    bf_wait_group_done(&task->session->requests);
}

static void
task_start(Task *task, Session *session, unsigned i, uint8_t *buf)
{
    task->session = session;
    task->req = (BfNbdcRequest){
        .command = plan[i].command,
        .offset = plan[i].offset,
        .length = plan[i].length,
    };
    bf_iovec_init(&task->vec);
    if (plan[i].command == BF_NBD_COMMAND_READ ||
        plan[i].command == BF_NBD_COMMAND_WRITE) {
        /* In two pieces. */
        bf_iovec_add(&task->vec, buf, plan[i].length / 3);
        bf_iovec_add(&task->vec, buf + plan[i].length / 3,
                     plan[i].length - plan[i].length / 3);
        task->req.vec = &task->vec;
    }
    bf_extents_init(&task->extents, 16);
    if (plan[i].command == BF_NBD_COMMAND_BLOCK_STATUS) {
        task->req.extents = &task->extents;
    }
    bf_wait_group_add(&session->requests, 1);
    bf_co_spawn(task_co_run, task);
}

/* All requests are under way, then the server speaks. */
static void
co_transmit(Session *session)
{
    BfNbdcConn *conn = session->conn;
    g_autoptr(GError) error = NULL;
    Task tasks[N_REQUESTS];
    uint8_t *bufs[N_REQUESTS];

    conn->is_up = true;
    session->node->n_up = 1;
    for (unsigned i = 0; i < N_REQUESTS; i++) {
        bufs[i] = g_malloc0(MIN(plan[i].length, EXPORT_BYTES) + 1);
        task_start(&tasks[i], session, i, bufs[i]);
    }
    while (conn->writing) {
        bf_co_queue_co_wait(&conn->writer_done);
    }
    bf_nbdc_co_receive(conn, &error);
    g_assert_nonnull(error);
    g_assert_true(g_utf8_validate(error->message, -1, NULL));
    conn->is_up = false;
    session->node->n_up = 0;
    session->node->closing = true;
    bf_nbdc_co_lose_requests(conn);
    bf_wait_group_co_wait(&session->requests);
    g_assert_cmpuint(conn->in_flight, ==, 0);
    for (unsigned i = 0; i < N_REQUESTS; i++) {
        bf_iovec_clear(&tasks[i].vec);
        bf_extents_clear(&tasks[i].extents);
        g_free(bufs[i]);
    }
}

static bool
co_handshake(Session *session)
{
    const BfNbdcTarget target = {
        .server = (char *)"fuzz",
        .name = (char *)"disk",
        .context =
            (char *)((session->mode & MODE_BITMAP) != 0 ? "qemu:dirty-bitmap:b"
                                                        : "base:allocation"),
        .context_required = (session->mode & MODE_BITMAP) != 0,
    };
    g_autoptr(GError) error = NULL;
    BfNbdcExport *exp = &session->conn->exp;

    if ((session->mode & MODE_NO_HANDSHAKE) != 0) {
        exp->extended = (session->mode & MODE_EXTENDED) != 0;
        exp->structured =
            exp->extended || (session->mode & MODE_STRUCTURED) != 0;
        exp->context_id = 5;
        return true;
    }
    if (!bf_nbdc_co_negotiate(&session->conn->channel, &target, exp, &error)) {
        g_assert_nonnull(error);
        g_assert_true(g_utf8_validate(error->message, -1, NULL));
        return false;
    }
    g_assert_cmpuint(exp->info.size, <=, INT64_MAX);
    g_assert_true(exp->has_context || !target.context_required);
    g_assert_true(exp->structured || !exp->extended);
    g_assert_true(exp->info.min_block == 0 ||
                  exp->info.size % exp->info.min_block == 0);
    return true;
}

static void
co_run(void *arg)
{
    Session *session = arg;
    BfGraph graph = {.losses = 0};
    BfNbdcNode node = {.base = {.name = (char *)"fuzz", .graph = &graph},
                       .loop = session->loop};
    BfNbdcConn *conn = g_new0(BfNbdcConn, 1);

    conn->node = &node;
    conn->queue_tail = &conn->queue;
    conn->input = bf_buffer_new(NBDC_INPUT_BYTES);
    conn->channel = bf_channel_memory_new(session->input, session->output,
                                          session->max_chunk);
    node.conns[0] = conn;
    node.n_conns = 1;
    session->node = &node;
    session->conn = conn;
    if (co_handshake(session)) {
        co_transmit(session);
    }
    bf_channel_free(conn->channel);
    bf_buffer_free(conn->input, NBDC_INPUT_BYTES);
    g_clear_error(&conn->error);
    g_free(conn);
    bf_loop_stop(session->loop);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static BfLoop *loop;
    g_autoptr(GByteArray) input = g_byte_array_new();
    g_autoptr(GByteArray) output = g_byte_array_new();
    Session session = {.input = input, .output = output};

    if (size < 2) {
        return 0;
    }
    if (loop == NULL) {
        loop = bf_loop_new_main(bf_clock_new_system(), NULL);
        g_assert_nonnull(loop);
    }
    session.loop = loop;
    session.max_chunk = (size_t)data[0] * 16 + 1;
    session.mode = data[1];
    g_byte_array_append(input, data + 2, (guint)(size - 2));
    bf_co_spawn_later(co_run, &session);
    bf_loop_run(loop);
    return 0;
}
