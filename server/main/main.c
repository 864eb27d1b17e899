/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The program: signals, start and end.
 *
 * What describes objects, nodes and exports is carried out in the main loop and
 * strictly in order. The fork of --daemonize comes before any thread, io_uring
 * or TLS call.
 */
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#include "arguments-private.h"
#include "core/co-io.h"
#include "core/error.h"
#include "core/loop.h"
#include "core/util.h"
#include "core/wipe.h"
#include "qmp/authz-text.h"
#include "qmp/config-file.h"
#include "qmp/monitors.h"
#include "qmp/options.h"
#include "serve/activation.h"
#include "serve/check-creds.h"
#include "serve/daemon.h"
#include "serve/log.h"
#include "serve/process.h"

/* How long storage and clients may take to end; then the process ends. */
#define SHUTDOWN_MAX_NS (10 * BF_NS_PER_SEC)

/* Everything that main() and the coroutines it starts share. On main. */
typedef struct Program {
    BfArguments args;
    BfDaemonConfig config;
    int ready_fd; /* owned; -1 if nobody waits */

    BfLoop *loop;         /* owned */
    BfMonitors *monitors; /* owned */
    BfDaemon *daemon;     /* owned */
    BfPidfile *pidfile;   /* owned */
    BfCancel cancel;      /* ends the wait for signals */
    BfWaitGroup reloads;  /* after SIGHUP, that have not ended */
    BfCoQueue setup_done; /* woken when set-up has ended */
    bool setting_up;
    bool has_export;
    bool stopping;
    BfTimer shutdown_timer;
    BfTimer watchdog;
    uint64_t watchdog_ns; /* 0 if there is none */
    int exit_status;
} Program;

static bool
co_add_object(Program *program, char *text, GError **error)
{
    g_autoptr(BfObjectOptions) options = bf_options_parse_object(text, error);

    bf_options_hide_secrets(text);
    bf_wipe_traces(); /* before others run, who would save registers */
    return options != NULL &&
           bf_objects_co_add(program->daemon->objects, options, error);
}

static bool
co_add_blockdev(Program *program, const char *text, GError **error)
{
    g_autoptr(BfBlockdevOptions) options =
        bf_options_parse_blockdev(text, error);

    return options != NULL &&
           bf_graph_co_blockdev_add(program->daemon->graph, options, error);
}

static bool
co_add_export(Program *program, const char *text, GError **error)
{
    g_autoptr(BfBlockExportOptions) options =
        bf_options_parse_export(text, error);

    program->has_export = true;
    return options != NULL &&
           bf_daemon_co_export_add(program->daemon, options, error);
}

static bool
co_start_nbd_server(Program *program, const char *text, GError **error)
{
    g_autoptr(BfNbdServerOptions) options =
        bf_options_parse_nbd_server(text, error);

    return options != NULL &&
           bf_daemon_co_nbd_start(program->daemon, options,
                                  bf_activation_take_fd,
                                  program->args.activation, error);
}

static bool
co_add_monitor(Program *program, const char *text, GError **error)
{
    g_autoptr(BfMonitorOptions) options = bf_options_parse_monitor(text, error);

    return options != NULL &&
           bf_monitors_co_monitor_add(program->monitors, options, error);
}

static bool
co_take_step(Program *program, const BfStep *step, GError **error)
{
    switch (step->kind) {
    case BF_STEP_OBJECT:
        return co_add_object(program, step->text, error);
    case BF_STEP_BLOCKDEV:
        return co_add_blockdev(program, step->text, error);
    case BF_STEP_CHARDEV:
        return bf_monitors_co_chardev_add(program->monitors, step->text, error);
    case BF_STEP_CONFIG:
        program->has_export = true; /* it is told what to do */
        return bf_config_co_run(program->monitors, program->daemon, step->text,
                                error);
    case BF_STEP_MONITOR:
        return co_add_monitor(program, step->text, error);
    case BF_STEP_NBD_SERVER:
        return co_start_nbd_server(program, step->text, error);
    case BF_STEP_EXPORT:
        return co_add_export(program, step->text, error);
    }
    g_assert_not_reached();
}

static bool
co_set_up_by_options(Program *program)
{
    for (unsigned i = 0; i < program->args.steps->len; i++) {
        const BfStep *step = g_ptr_array_index(program->args.steps, i);
        g_autoptr(GError) error = NULL;

        if (!co_take_step(program, step, &error)) {
            g_autofree char *shown = bf_step_show(step);

            if (!program->stopping) {
                bf_arguments_complain(&program->args, "%s: %s", shown,
                                      error->message);
            }
            return false;
        }
    }
    return true;
}

static char *
default_monitor_path(GError **error)
{
    static const char *const variables[] = {"RUNTIME_DIRECTORY",
                                            "XDG_RUNTIME_DIR"};

    for (size_t i = 0; i < G_N_ELEMENTS(variables); i++) {
        const char *value = g_getenv(variables[i]);
        g_autofree char *first = NULL;
        g_autofree char *dir = NULL;

        if (value == NULL || *value == '\0') {
            continue;
        }
        /* systemd separates several runtime directories by colons. */
        first = g_strndup(value, strcspn(value, ":"));
        dir = g_build_filename(first, "blockferry", NULL);
        if (g_mkdir_with_parents(dir, 0700) != 0) {
            bf_set_errno(error, errno, "cannot create '%s'", dir);
            return NULL;
        }
        return g_build_filename(dir, "qmp.sock", NULL);
    }
    bf_set_error(error, "there is no --monitor and no --export, and neither "
                        "$RUNTIME_DIRECTORY nor $XDG_RUNTIME_DIR says where to "
                        "put a monitor; add --chardev socket,path=PATH,"
                        "server=on,wait=off,id=m --monitor m");
    return NULL;
}

static bool
co_add_default_monitor(Program *program, GError **error)
{
    g_autofree char *path = NULL;

    if (bf_monitors_count(program->monitors) > 0 || program->has_export ||
        program->args.stand_alone) {
        return true;
    }
    path = default_monitor_path(error);
    if (path == NULL ||
        !bf_monitors_co_add_default(program->monitors, path, error)) {
        return false;
    }
    g_message("monitor at %s", path);
    return true;
}

/* A main loop that is stuck does not come here, and is then restarted. */
static void
feed_watchdog(void *arg)
{
    Program *program = arg;

    bf_process_notify_systemd("WATCHDOG=1");
    bf_timer_start(&program->watchdog, program->watchdog_ns, feed_watchdog,
                   program);
}

static bool
become_ready(Program *program, GError **error)
{
    bf_activation_warn_unused(program->args.activation);
    if (program->args.pidfile_path != NULL) {
        program->pidfile = bf_pidfile_new(program->args.pidfile_path, error);
        if (program->pidfile == NULL) {
            return false;
        }
    }
    if (program->ready_fd >= 0) {
        if (!bf_process_ready(bf_steal_fd(&program->ready_fd),
                              program->args.keep_stderr, error)) {
            return false;
        }
        if (!program->args.keep_stderr) {
            bf_log_detach();
        }
    }
    bf_process_notify_systemd("READY=1");
    program->watchdog_ns = bf_process_watchdog_ns();
    if (program->watchdog_ns != 0) {
        feed_watchdog(program);
    }
    return true;
}

/* Storage does not answer. The process may not be able to end before it does,
 * so whoever is connected is told now. */
static void
co_abandon(void *arg)
{
    Program *program = arg;

    g_warning("storage or a client did not answer for %d s; ending without "
              "it, data that was not flushed may be lost",
              (int)(SHUTDOWN_MAX_NS / BF_NS_PER_SEC));
    bf_monitors_co_close(program->monitors);
    bf_pidfile_free(program->pidfile);
    _exit(EXIT_FAILURE);
}

static void
shutdown_took_too_long(void *arg)
{
    bf_co_spawn_later(co_abandon, arg);
}

/* The way out, once: after quit, a signal, or a failed start. */
static void
co_shut_down(void *arg)
{
    Program *program = arg;
    bool idle = false;

    bf_timer_start(&program->shutdown_timer, SHUTDOWN_MAX_NS,
                   shutdown_took_too_long, program);
    bf_monitors_cancel_wait(program->monitors);
    bf_daemon_stop_waiting(program->daemon);
    while (program->setting_up) {
        bf_co_queue_co_wait(&program->setup_done);
    }
    bf_process_notify_systemd("STOPPING=1");
    idle = bf_monitors_co_stop(program->monitors);
    bf_daemon_co_disconnect(program->daemon);
    bf_wait_group_co_wait(&program->reloads);
    if (idle) {
        bf_daemon_co_close(program->daemon);
    }
    bf_timer_stop(&program->shutdown_timer);
    bf_timer_stop(&program->watchdog);
    if (!bf_monitors_co_close(program->monitors) || !idle) {
        /* The command may still use all that belongs to the daemon. What was
         * written is in the kernel's cache, and safe there. */
        g_warning("a command or a connection does not end; ending without it");
        bf_pidfile_free(program->pidfile);
        _exit(EXIT_FAILURE);
    }
    bf_cancel_fire(&program->cancel);
    bf_loop_stop(program->loop);
}

static void
start_shutdown(void *arg)
{
    Program *program = arg;

    if (!program->stopping) {
        program->stopping = true;
        bf_co_spawn_later(co_shut_down, program);
    }
}

static bool
co_list(Program *program, GError **error)
{
    const BfArguments *args = &program->args;
    g_autoptr(BfNbdServerOptions) options =
        bf_options_parse_nbd_server(args->list_server, error);
    g_autoptr(GPtrArray) offers = NULL;

    if (options != NULL) {
        offers = bf_daemon_co_nbd_list(program->daemon, options,
                                       args->list_hostname, error);
    }
    if (offers != NULL) {
        bf_standalone_print_list(offers);
    }
    return offers != NULL;
}

static void
co_set_up(void *arg)
{
    Program *program = arg;
    g_autoptr(GError) error = NULL;
    bool serves = program->args.list_server == NULL;
    bool ok = co_set_up_by_options(program);

    if (ok && !program->stopping &&
        !(serves ? co_add_default_monitor(program, &error) &&
                       become_ready(program, &error)
                 : co_list(program, &error))) {
        bf_arguments_complain(&program->args, "%s", error->message);
        ok = false;
    }
    program->setting_up = false;
    bf_co_queue_wake_all(&program->setup_done);
    if (ok && serves && !program->stopping) {
        bf_daemon_serve(program->daemon);
        bf_monitors_start(program->monitors);
    } else if (!program->stopping) {
        program->exit_status = ok ? EXIT_SUCCESS : EXIT_FAILURE;
        start_shutdown(program);
    }
}

static void
tell_reloading(void)
{
    g_autofree char *state =
        g_strdup_printf("RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
                        bf_loop_now_ns() / BF_NS_PER_US);

    bf_process_notify_systemd(state);
}

/* The objects go only after all that was begun here has ended. */
static void
co_reload(void *arg)
{
    Program *program = arg;
    g_autoptr(GError) error = NULL;

    if (!program->stopping) {
        tell_reloading();
        if (!bf_objects_co_reload_tls_creds(program->daemon->objects, NULL,
                                            &error)) {
            g_warning("%s", error->message);
        }
        bf_process_notify_systemd("READY=1");
    }
    bf_wait_group_done(&program->reloads);
}

static void
handle_signal(Program *program, const struct signalfd_siginfo *info)
{
    if (info->ssi_signo == SIGHUP && program->args.sighup_reloads) {
        g_message("reloading on signal %u (%s)", info->ssi_signo,
                  strsignal((int)info->ssi_signo));
        bf_wait_group_add(&program->reloads, 1);
        bf_co_spawn_later(co_reload, program);
        return;
    }
    g_message("ending on signal %u (%s)", info->ssi_signo,
              strsignal((int)info->ssi_signo));
    start_shutdown(program);
}

static void
co_wait_for_signals(void *arg)
{
    Program *program = arg;
    struct signalfd_siginfo info;
    sigset_t set;
    bf_autofd fd = -1;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    g_assert(fd >= 0);
    while (bf_co_poll(fd, POLLIN, BF_FOREVER, &program->cancel) > 0) {
        if (read(fd, &info, sizeof(info)) == sizeof(info)) {
            handle_signal(program, &info);
        }
    }
}

/* Each connection and each file is a descriptor; the usual soft limit of 1024
 * is there for programs that use select(). */
static void
raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Threads inherit the mask, so only the signal descriptor sees them. */
static void
block_signals(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* writes fail with EFBIG instead */
}

static bool
run(Program *program, BfClock *clock, GError **error)
{
    program->loop = bf_loop_new_main(clock, error);
    if (program->loop == NULL) {
        return false;
    }
    program->monitors = bf_monitors_new(program->loop);
    bf_monitors_set_take_fd(program->monitors, bf_activation_take_fd,
                            program->args.activation);
    program->config.parse_authz = bf_authz_text_parse;
    program->config.export_events = bf_monitors_export_events();
    program->config.export_events_opaque = program->monitors;
    if (program->args.until_unused) {
        program->config.nbd_unused = start_shutdown;
        program->config.nbd_unused_arg = program;
    }
    program->config.nbd_events = bf_monitors_nbd_events();
    program->config.nbd_events_opaque = program->monitors;
    program->config.node_events = bf_monitors_node_events();
    program->config.node_events_opaque = program->monitors;
    program->config.tls_events = bf_monitors_tls_events();
    program->config.tls_events_opaque = program->monitors;
    program->config.job_events = bf_monitors_job_events();
    program->config.job_events_opaque = program->monitors;
    program->daemon = bf_daemon_new(program->loop, &program->config, error);
    if (program->daemon == NULL) {
        return false;
    }
    bf_monitors_set_daemon(program->monitors, program->daemon);
    bf_monitors_set_quit_fn(program->monitors, start_shutdown, program);

    program->setting_up = true;
    bf_co_spawn_later(co_wait_for_signals, program);
    bf_co_spawn_later(co_set_up, program);
    bf_loop_run(program->loop);
    return true;
}

/* Returns the program's exit status. */
static int
check_creds(const BfArguments *args)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BfCheckTlsCredsOptions) options =
        bf_options_parse_check_tls_creds(args->check_creds, &error);
    g_autofree char *result = NULL;
    bool good;

    if (options == NULL) {
        bf_arguments_complain(args, "--check-tls-creds %s: %s",
                              args->check_creds, error->message);
        return EXIT_FAILURE;
    }
    good = bf_check_creds(options, &result);
    fputs(result, stdout);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Returns the program's exit status. */
static int
serve(Program *program)
{
    const BfArguments *args = &program->args;
    g_autoptr(BfClock) clock = NULL;
    g_autoptr(GError) error = NULL;

    if (args->daemonize &&
        !bf_process_daemonize(args->stand_alone, &program->ready_fd, &error)) {
        bf_arguments_complain(args, "%s", error->message);
        return EXIT_FAILURE;
    }
    raise_descriptor_limit();
    block_signals();
    program->config.n_workers = args->n_workers;
    program->config.allow_faults = args->allow_faults;
    clock = bf_clock_new_system();
    if (!run(program, clock, &error)) {
        bf_arguments_complain(args, "%s", error->message);
        program->exit_status = EXIT_FAILURE;
    }
    bf_daemon_free(program->daemon);
    bf_monitors_free(program->monitors);
    bf_loop_free(program->loop);
    bf_pidfile_free(program->pidfile);
    return program->exit_status;
}

int
main(int argc, char **argv)
{
    Program program = {.ready_fd = -1};
    const BfArguments *args = &program.args;
    int status = EXIT_SUCCESS;

    if (!bf_process_fill_standard_fds()) {
        fputs(BF_DAEMON_NAME ": /dev/null cannot be opened in place of a "
                             "closed standard input, output or error\n",
              stderr);
        status = EXIT_FAILURE;
    } else if (!bf_arguments_parse(&program.args, argc, argv)) {
        status = EXIT_FAILURE;
    } else if (args->output != NULL) {
        fputs(args->output, stdout);
    } else {
        status =
            args->check_creds != NULL ? check_creds(args) : serve(&program);
    }
    bf_arguments_clear(&program.args);
    return status;
}
