/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One client of a monitor, in three coroutines on main: the reader takes bytes
 * and makes requests of them, the runner runs in-band requests one after
 * another, the writer sends what is queued. A request out of band is answered
 * by the reader.
 *
 * Memory is bounded: the reader stops while requests are outstanding or much
 * output waits, and a client with too many unread events is cut off. The client
 * ends when its input has ended, its last command too, and its output is sent;
 * so a client that shuts its side down still gets its replies.
 */
#include "qmp/monitor.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "core/co-io.h"
#include "core/co-lock.h"
#include "core/error.h"
#include "core/loop.h"
#include "core/util.h"
#include "core/wipe.h"

#define READ_BYTES ((size_t)32 * BF_KIB)
/* No more is read from a client while it has so much to read. */
#define OUTPUT_PAUSE_BYTES ((size_t)4 * BF_MIB)
/* With more unread events than this a client is disconnected. */
#define EVENTS_MAX_BYTES ((size_t)8 * BF_MIB)
/* Requests under way and waiting; QEMU documents 8 for out-of-band clients. */
#define REQUESTS_MAX 1
#define REQUESTS_MAX_OOB 8
/* Named descriptors of one client. */
#define NAMED_FDS_MAX 256
/* Requests from one read after which others get a turn. */
#define REQUESTS_PER_TURN 16
/* Messages in one send. */
#define WRITE_PIECES 64
/* Reads that are thrown away after a connection was shut down. */
#define DROPPED_READS 16

/* Descriptors that came with a message. */
typedef struct PassedFds {
    int fds[BF_CHANNEL_FDS_MAX];
    unsigned count;
} PassedFds;

/* A request and the descriptors that came with it. */
typedef struct Job {
    BfRequest *request;
    PassedFds passed;
} Job;

/* A message to be sent. */
typedef struct Message {
    GBytes *text;
    bool is_event;
} Message;

struct BfMonitorClient {
    BfMonitorClientConfig config;
    char *name;         /* owned */
    BfChannel *channel; /* owned */
    bool is_negotiated;
    bool has_oob;
    bool is_stopping; /* no more requests are begun */
    bool is_shut;     /* the connection was shut down */

    /* Input */
    BfFramer *framer;   /* owned */
    PassedFds incoming; /* came with bytes that make no request yet */
    GQueue jobs;        /* of Job, owned: requests that wait */
    unsigned outstanding;
    bool has_more; /* there may be more requests in what was read */
    bool input_ended;
    BfCoQueue input_changed; /* a job came or ended, or input ended */

    /* Output */
    GQueue output; /* of Message, owned */
    size_t output_bytes;
    size_t event_bytes;
    bool output_ended;  /* nothing is added any more */
    bool output_failed; /* the client cannot be written to */
    BfCoQueue output_changed;
    BfCoQueue output_room;

    /* Descriptors */
    PassedFds latched; /* for the command that runs */
    GHashTable *named; /* getfd: name to descriptor */

    BfWaitGroup runner;
    BfWaitGroup writer;
};

static void
close_fds(PassedFds *passed)
{
    for (unsigned i = 0; i < passed->count; i++) {
        bf_fd_close_later(passed->fds[i]);
    }
    passed->count = 0;
}

/* Newer descriptors replace older ones that no command took. */
static void
replace_fds(PassedFds *target, PassedFds *source)
{
    if (source->count > 0) {
        close_fds(target);
        *target = *source;
        source->count = 0;
    }
}

static void
message_free(void *data)
{
    Message *message = data;

    g_bytes_unref(message->text);
    g_free(message);
}

static void
fail_output(BfMonitorClient *client)
{
    client->is_shut = true;
    client->output_failed = true;
    client->output_bytes = 0;
    client->event_bytes = 0;
    bf_channel_shutdown(client->channel);
    bf_co_queue_wake_all(&client->output_changed);
    bf_co_queue_wake_all(&client->output_room);
    client->config.changed(client->config.opaque);
}

/* Takes @text over. */
static void
queue_output(BfMonitorClient *client, GBytes *text, bool is_event)
{
    Message *message = NULL;

    if (client->output_failed) {
        g_bytes_unref(text);
        return;
    }
    message = g_new0(Message, 1);
    message->text = text;
    message->is_event = is_event;
    g_queue_push_tail(&client->output, message);
    client->output_bytes += g_bytes_get_size(text);
    client->event_bytes += is_event ? g_bytes_get_size(text) : 0;
    bf_co_queue_wake_all(&client->output_changed);
}

/* Fills @iov from the queue. Returns the number of messages. */
static int
gather(BfMonitorClient *client, struct iovec *iov)
{
    int count = 0;

    for (GList *link = client->output.head;
         link != NULL && count < WRITE_PIECES; link = link->next) {
        const Message *message = link->data;
        gsize len = 0;

        iov[count].iov_base = (void *)g_bytes_get_data(message->text, &len);
        iov[count].iov_len = len;
        count++;
    }
    return count;
}

static void
drop_sent(BfMonitorClient *client, int count)
{
    for (int i = 0; i < count; i++) {
        Message *message = g_queue_pop_head(&client->output);
        size_t len = g_bytes_get_size(message->text);

        if (!client->output_failed) {
            client->output_bytes -= len;
            client->event_bytes -= message->is_event ? len : 0;
        }
        message_free(message);
    }
    bf_co_queue_wake_all(&client->output_room);
}

static void
writer_co_run(void *arg)
{
    BfMonitorClient *client = arg;

    while (!client->output_failed) {
        g_autoptr(GError) error = NULL;
        struct iovec iov[WRITE_PIECES];
        int count = 0;

        if (client->has_more && client->output.length > 0) {
            bf_co_next_turn(); /* more replies come, to be sent too */
        }
        count = gather(client, iov);
        if (count == 0) {
            if (client->output_ended) {
                break;
            }
            client->config.changed(client->config.opaque);
            bf_co_queue_co_wait(&client->output_changed);
            continue;
        }
        if (!bf_channel_co_writev_all(client->channel, iov, count, &error) &&
            !client->output_failed) {
            g_info("%s: %s", client->name, error->message);
            fail_output(client);
        }
        drop_sent(client, count);
    }
    bf_wait_group_done(&client->writer);
}

static void
job_co_free(BfMonitorClient *client, Job *job)
{
    close_fds(&job->passed);
    bf_request_co_free(job->request, client->config.lane);
    g_free(job);
}

static void
co_answer(BfMonitorClient *client, const BfRequest *request)
{
    GBytes *reply =
        bf_dispatch_co_run(&client->config.call, request, client->config.style);

    queue_output(client, reply, false);
}

static void
runner_co_run(void *arg)
{
    BfMonitorClient *client = arg;

    for (;;) {
        Job *job = g_queue_peek_head(&client->jobs);

        if (client->is_stopping || (job == NULL && client->input_ended)) {
            break;
        }
        if (job == NULL) {
            bf_co_queue_co_wait(&client->input_changed);
            continue;
        }
        g_queue_pop_head(&client->jobs);
        replace_fds(&client->latched, &job->passed);
        co_answer(client, job->request);
        job_co_free(client, job);
        client->outstanding--;
        bf_co_queue_wake_all(&client->input_changed);
        client->config.changed(client->config.opaque);
    }
    bf_wait_group_done(&client->runner);
}

/* Waits until @limit allows one more request. */
static void
co_wait_for_slot(BfMonitorClient *client)
{
    while (!client->is_stopping &&
           client->outstanding >=
               (client->has_oob ? REQUESTS_MAX_OOB : REQUESTS_MAX)) {
        bf_co_queue_co_wait(&client->input_changed);
    }
}

static void
co_wait_for_output_room(BfMonitorClient *client)
{
    while (!client->is_stopping && !client->output_failed &&
           client->output_bytes > OUTPUT_PAUSE_BYTES) {
        bf_co_queue_co_wait(&client->output_room);
    }
}

static void
co_take_frame(BfMonitorClient *client, BfFrame *frame)
{
    Job *job = g_new0(Job, 1);

    job->request = bf_request_co_new(frame, client->config.lane);
    replace_fds(&job->passed, &client->incoming);
    co_wait_for_output_room(client);
    if (client->has_oob && bf_request_is_oob(job->request)) {
        co_answer(client, job->request);
        job_co_free(client, job);
        return;
    }
    co_wait_for_slot(client);
    if (client->is_stopping) {
        job_co_free(client, job);
        return;
    }
    client->outstanding++;
    g_queue_push_tail(&client->jobs, job);
    bf_co_queue_wake_all(&client->input_changed);
}

static void
make_blocking(PassedFds *passed)
{
    for (unsigned i = 0; i < passed->count; i++) {
        int flags = fcntl(passed->fds[i], F_GETFL);

        if (flags >= 0) {
            (void)fcntl(passed->fds[i], F_SETFL, flags & ~O_NONBLOCK);
        }
    }
}

static ssize_t
co_read(BfMonitorClient *client, void *buf, GError **error)
{
    struct iovec iov = {.iov_base = buf, .iov_len = READ_BYTES};
    PassedFds passed = {.count = 0};
    ssize_t n = 0;

    if (!(client->channel->features & BF_CHANNEL_FD_PASS)) {
        return bf_channel_co_readv(client->channel, &iov, 1, error);
    }
    n = bf_channel_co_readv_fds(client->channel, &iov, 1, passed.fds,
                                &passed.count, error);
    if (n >= 0) {
        make_blocking(&passed);
        replace_fds(&client->incoming, &passed);
    }
    return n;
}

static void
co_take_frames(BfMonitorClient *client)
{
    BfFrame *frame = NULL;
    unsigned count = 0;

    while (!client->is_stopping &&
           (frame = bf_framer_next(client->framer)) != NULL) {
        client->has_more = true;
        co_take_frame(client, frame);
        if (++count % REQUESTS_PER_TURN == 0) {
            bf_co_next_turn();
        }
    }
    client->has_more = false;
}

/*
 * Reads on without looking, until the end of the connection: other messages may
 * still be sent, and TCP would reset a connection that is closed with unread
 * bytes, so that the client could lose the last reply.
 */
static void
co_drop_input(BfMonitorClient *client, void *buf)
{
    unsigned count = 0;

    while (co_read(client, buf, NULL) > 0) {
        explicit_bzero(buf, READ_BYTES);
        close_fds(&client->incoming);
        if (client->is_shut && ++count >= DROPPED_READS) {
            break;
        }
    }
}

static void
co_read_requests(BfMonitorClient *client)
{
    g_autofree char *buf = g_malloc(READ_BYTES);
    g_autoptr(GError) error = NULL;

    for (;;) {
        ssize_t n = 0;

        co_wait_for_slot(client);
        co_wait_for_output_room(client);
        n = co_read(client, buf, &error);
        if (n < 0) {
            g_debug("%s: %s", client->name, error->message);
        }
        if (n <= 0) {
            break;
        }
        if (client->is_stopping) {
            co_drop_input(client, buf);
            break;
        }
        bf_framer_feed(client->framer, buf, n);
        explicit_bzero(buf, n); /* it may have held a secret */
        co_take_frames(client);
        bf_wipe_traces();
    }
}

static void
client_co_free(BfMonitorClient *client)
{
    const BfMonitorClientConfig config = client->config;
    Job *job = NULL;

    /* This suspends, so the client is still one until it is over. */
    while ((job = g_queue_pop_head(&client->jobs)) != NULL) {
        job_co_free(client, job);
    }
    g_queue_clear_full(&client->output, message_free);
    close_fds(&client->incoming);
    close_fds(&client->latched);
    g_hash_table_unref(client->named);
    bf_framer_free(client->framer);
    bf_channel_free(client->channel);
    g_free(client->name);
    g_free(client);
    config.ended(config.opaque);
}

static void
client_co_run(void *arg)
{
    BfMonitorClient *client = arg;

    bf_wait_group_add(&client->runner, 1);
    bf_wait_group_add(&client->writer, 1);
    queue_output(client, bf_dispatch_greeting(client->config.style), false);
    bf_co_spawn_later(writer_co_run, client);
    bf_co_spawn_later(runner_co_run, client);
    co_read_requests(client);

    client->input_ended = true;
    bf_co_queue_wake_all(&client->input_changed);
    bf_wait_group_co_wait(&client->runner);
    client->output_ended = true;
    bf_co_queue_wake_all(&client->output_changed);
    bf_wait_group_co_wait(&client->writer);
    bf_channel_co_bye(client->channel);

    g_info("%s: disconnected", client->name);
    client_co_free(client);
}

static void
close_named(void *data)
{
    bf_fd_close_later(GPOINTER_TO_INT(data));
}

BfMonitorClient *
bf_monitor_client_start(const BfMonitorClientConfig *config)
{
    BfMonitorClient *client = g_new0(BfMonitorClient, 1);

    bf_assert_main();
    client->config = *config;
    client->config.call.client = client;
    client->name = g_strdup(config->name);
    client->channel = config->channel;
    client->framer = bf_framer_new();
    client->named =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, close_named);
    g_queue_init(&client->jobs);
    g_queue_init(&client->output);
    g_info("%s: connected", client->name);
    bf_co_spawn_later(client_co_run, client);
    return client;
}

void
bf_monitor_client_stop(BfMonitorClient *client)
{
    client->is_stopping = true;
    bf_co_queue_wake_all(&client->input_changed);
    bf_co_queue_wake_all(&client->output_room);
}

bool
bf_monitor_client_is_running(const BfMonitorClient *client)
{
    return client->outstanding > client->jobs.length;
}

bool
bf_monitor_client_is_idle(const BfMonitorClient *client)
{
    return !bf_monitor_client_is_running(client) &&
           (client->output_failed || client->output.length == 0);
}

void
bf_monitor_client_shutdown(BfMonitorClient *client)
{
    client->is_shut = true;
    bf_channel_shutdown(client->channel);
}

void
bf_monitor_client_send_event(BfMonitorClient *client, GBytes *text)
{
    if (client->output_failed) {
        return;
    }
    if (client->event_bytes + g_bytes_get_size(text) > EVENTS_MAX_BYTES) {
        g_warning("%s: disconnected, because it has not read %zu bytes of "
                  "events",
                  client->name, client->event_bytes);
        fail_output(client);
        return;
    }
    queue_output(client, g_bytes_ref(text), true);
}

BfJsonStyle
bf_monitor_client_get_style(const BfMonitorClient *client)
{
    return client->config.style;
}

bool
bf_monitor_client_is_negotiated(const BfMonitorClient *client)
{
    return client == NULL || client->is_negotiated;
}

void
bf_monitor_client_negotiate(BfMonitorClient *client, bool oob)
{
    g_assert(!client->is_negotiated);
    client->is_negotiated = true;
    client->has_oob = oob;
}

bool
bf_monitor_client_has_oob(const BfMonitorClient *client)
{
    return client != NULL && client->has_oob;
}

bool
bf_monitor_client_may_run(const BfMonitorClient *client, const char *command)
{
    /* What begins with query- changes nothing; a new command that has another
     * name is refused until it is listed here. */
    static const char *const queries[] = {
        "qmp_capabilities",
        "qom-get",
        "qom-list",
        "qom-list-properties",
        "qom-list-types",
        "x-debug-block-dirty-bitmap-sha256",
        "x-debug-query-block-graph",
        NULL,
    };

    return client == NULL || !client->config.read_only ||
           g_str_has_prefix(command, "query-") ||
           g_strv_contains(queries, command);
}

int
bf_monitor_client_take_passed_fd(BfMonitorClient *client, GError **error)
{
    int fd = -1;

    if (client == NULL || client->latched.count == 0) {
        bf_set_error(error, "No file descriptor supplied via SCM_RIGHTS");
        return -1;
    }
    fd = client->latched.fds[0];
    client->latched.fds[0] = client->latched.fds[--client->latched.count];
    close_fds(&client->latched);
    return fd;
}

bool
bf_monitor_client_name_fd(BfMonitorClient *client, const char *name, int fd,
                          GError **error)
{
    if (g_hash_table_size(client->named) >= NAMED_FDS_MAX &&
        !g_hash_table_contains(client->named, name)) {
        bf_set_error(error,
                     "there are %d named file descriptors already; "
                     "close some with closefd",
                     NAMED_FDS_MAX);
        close(fd);
        return false;
    }
    g_hash_table_replace(client->named, g_strdup(name), GINT_TO_POINTER(fd));
    return true;
}

int
bf_monitor_client_take_named_fd(void *opaque, const char *name, GError **error)
{
    BfMonitorClient *client = opaque;
    gpointer key = NULL;
    gpointer fd = NULL;

    if (client == NULL ||
        !g_hash_table_steal_extended(client->named, name, &key, &fd)) {
        bf_set_error(error, "File descriptor named '%s' has not been found",
                     name);
        return -1;
    }
    g_free(key);
    return GPOINTER_TO_INT(fd);
}
