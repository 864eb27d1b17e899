/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The program: arguments, signals, start and end.
 *
 * Arguments are read twice: first what concerns the process, then, in the main
 * loop and strictly in order, what describes objects, nodes and exports. The
 * fork of --daemonize comes before any thread, io_uring or TLS call.
 */
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include "core/co-io.h"
#include "core/error.h"
#include "core/loop.h"
#include "core/util.h"
#include "qmp/authz-text.h"
#include "qmp/monitors.h"
#include "qmp/options.h"
#include "serve/check-creds.h"
#include "serve/daemon.h"
#include "serve/log.h"
#include "serve/process.h"

#define PROGRAM "blockferryd"

/* How long storage and clients may take to end; then the process ends. */
#define SHUTDOWN_MAX_NS (10 * BF_NS_PER_SEC)

enum {
    OPT_BLOCKDEV = 256,
    OPT_CHARDEV,
    OPT_CHECK_CREDS,
    OPT_DAEMONIZE,
    OPT_EXPORT,
    OPT_FAULTS,
    OPT_MONITOR,
    OPT_NBD_SERVER,
    OPT_OBJECT,
    OPT_PIDFILE,
    OPT_SIGHUP,
    OPT_WORKERS,
};

static const struct option long_options[] = {
    {"allow-fault-injection", no_argument, NULL, OPT_FAULTS},
    {"blockdev", required_argument, NULL, OPT_BLOCKDEV},
    {"chardev", required_argument, NULL, OPT_CHARDEV},
    {"check-tls-creds", required_argument, NULL, OPT_CHECK_CREDS},
    {"daemonize", no_argument, NULL, OPT_DAEMONIZE},
    {"export", required_argument, NULL, OPT_EXPORT},
    {"help", no_argument, NULL, 'h'},
    {"monitor", required_argument, NULL, OPT_MONITOR},
    {"nbd-server", required_argument, NULL, OPT_NBD_SERVER},
    {"object", required_argument, NULL, OPT_OBJECT},
    {"pidfile", required_argument, NULL, OPT_PIDFILE},
    {"sighup", required_argument, NULL, OPT_SIGHUP},
    {"version", no_argument, NULL, 'V'},
    {"workers", required_argument, NULL, OPT_WORKERS},
    {NULL, 0, NULL, 0},
};

/* Everything that main() and the coroutines it starts share. On main. */
typedef struct Program {
    int argc;
    char **argv;
    bool daemonize;
    bool sighup_reloads;
    const char *check_creds;  /* borrowed from argv, or NULL */
    const char *pidfile_path; /* borrowed from argv, or NULL */
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
    int exit_status;
} Program;

static void
print_help(void)
{
    printf(
        "Usage: " PROGRAM " [options]\n"
        "Serves disk images over NBD, controlled over QMP.\n\n"
        "  -h, --help                 print this help\n"
        "  -V, --version              print the version\n"
        "  --object help              list the object types; TYPE,help their "
        "properties\n"
        "  --object TYPE,id=ID[,PROPERTY=VALUE...]\n"
        "                             add an object (secret, TLS credentials, "
        "iothread)\n"
        "  --blockdev DRIVER,node-name=NAME[,OPTION=VALUE...]\n"
        "                             add a block node\n"
        "  --chardev BACKEND,id=ID[,OPTION=VALUE...]\n"
        "                             add a character device; 'help' lists the "
        "backends\n"
        "  --monitor [chardev=]ID[,pretty=on|off]\n"
        "                             serve QMP on a character device\n"
        "  --nbd-server addr.type=inet,addr.host=HOST,addr.port=PORT\n"
        "               |addr.type=unix,addr.path=PATH\n"
        "               [,tls-creds=ID][,max-connections=N]"
        "[,handshake-max-seconds=N]\n"
        "                             start the NBD server\n"
        "  --export [type=]nbd,id=ID,node-name=NODE[,name=NAME]"
        "[,writable=on]\n"
        "                             export a block node\n"
        "  --check-tls-creds dir=DIR,endpoint=server|client"
        "[,hostname=NAME][...]\n"
        "                             tell whether the files in DIR are good "
        "as TLS\n"
        "                             credentials, and end\n"
        "  --pidfile PATH             write the process id to PATH when ready\n"
        "  --sighup=end|reload        what SIGHUP does: end the program "
        "(default), or\n"
        "                             read the files of TLS credentials "
        "again\n"
        "  --daemonize                go to the background when ready\n"
        "  --workers N                worker threads, 1..%d (default: number "
        "of processors)\n"
        "  --allow-fault-injection    allow nodes of the driver 'fault', for "
        "tests\n\n"
        "Options are carried out in their order. An argument that starts with "
        "'{' is JSON.\n"
        "Without a monitor and an export, a monitor is opened at\n"
        "$RUNTIME_DIRECTORY/blockferry/qmp.sock or "
        "$XDG_RUNTIME_DIR/blockferry/qmp.sock.\n",
        BF_WORKERS_MAX);
}

static bool
parse_workers(Program *program, const char *text)
{
    guint64 n = 0;

    if (!g_ascii_string_to_unsigned(text, 10, 1, BF_WORKERS_MAX, &n, NULL)) {
        fprintf(stderr,
                PROGRAM ": --workers %s: expected a number from 1 to %d\n",
                text, BF_WORKERS_MAX);
        return false;
    }
    program->config.n_workers = (unsigned)n;
    return true;
}

static bool
parse_sighup(Program *program, const char *text)
{
    program->sighup_reloads = strcmp(text, "reload") == 0;
    if (!program->sighup_reloads && strcmp(text, "end") != 0) {
        fprintf(stderr,
                PROGRAM ": --sighup=%s: expected 'end', to end the program, "
                        "or 'reload', to read the files of TLS credentials "
                        "again\n",
                text);
        return false;
    }
    return true;
}

/* First pass. Returns false when the program is to end with exit_status. */
static bool
parse_process_options(Program *program)
{
    int opt;

    while ((opt = getopt_long(program->argc, program->argv, "hV", long_options,
                              NULL)) != -1) {
        switch (opt) {
        case 'h':
            print_help();
            return false;
        case 'V':
            printf(PROGRAM " version " BF_VERSION "\n");
            return false;
        case OPT_DAEMONIZE:
            program->daemonize = true;
            break;
        case OPT_CHECK_CREDS:
            program->check_creds = optarg;
            break;
        case OPT_PIDFILE:
            program->pidfile_path = optarg;
            break;
        case OPT_FAULTS:
            program->config.allow_faults = true;
            break;
        case OPT_WORKERS:
            if (!parse_workers(program, optarg)) {
                program->exit_status = EXIT_FAILURE;
                return false;
            }
            break;
        case OPT_SIGHUP:
            if (!parse_sighup(program, optarg)) {
                program->exit_status = EXIT_FAILURE;
                return false;
            }
            break;
        case '?':
            program->exit_status = EXIT_FAILURE;
            return false;
        default:
            break;
        }
    }
    if (optind < program->argc) {
        fprintf(stderr, PROGRAM ": %s: Unexpected argument\n",
                program->argv[optind]);
        program->exit_status = EXIT_FAILURE;
        return false;
    }
    return true;
}

static bool
co_add_object(Program *program, char *text, GError **error)
{
    g_autoptr(BfObjectOptions) options = bf_options_parse_object(text, error);

    bf_options_hide_secrets(text);
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

/* For addresses of type fd on the command line: an inherited descriptor. */
static int
take_inherited_fd(void *opaque, const char *name, GError **error)
{
    guint64 fd = 0;
    struct stat st;

    if (!g_ascii_string_to_unsigned(name, 10, 0, G_MAXINT, &fd, NULL)) {
        bf_set_error(error, "Unable to parse FD number %s", name);
        return -1;
    }
    if (fstat((int)fd, &st) != 0 || !S_ISSOCK(st.st_mode)) {
        bf_set_error(error, "File descriptor '%s' is not a socket", name);
        return -1;
    }
    return (int)fd;
}

static bool
co_start_nbd_server(Program *program, const char *text, GError **error)
{
    g_autoptr(BfNbdServerOptions) options =
        bf_options_parse_nbd_server(text, error);

    return options != NULL &&
           bf_daemon_co_nbd_start(program->daemon, options, take_inherited_fd,
                                  NULL, error);
}

static bool
co_add_monitor(Program *program, const char *text, GError **error)
{
    g_autoptr(BfMonitorOptions) options = bf_options_parse_monitor(text, error);

    return options != NULL &&
           bf_monitors_co_monitor_add(program->monitors, options, error);
}

static bool
co_carry_out(Program *program, int opt, char *text, GError **error)
{
    switch (opt) {
    case OPT_OBJECT:
        return co_add_object(program, text, error);
    case OPT_BLOCKDEV:
        return co_add_blockdev(program, text, error);
    case OPT_CHARDEV:
        return bf_monitors_co_chardev_add(program->monitors, text, error);
    case OPT_MONITOR:
        return co_add_monitor(program, text, error);
    case OPT_NBD_SERVER:
        return co_start_nbd_server(program, text, error);
    case OPT_EXPORT:
        return co_add_export(program, text, error);
    default:
        return true; /* done in the first pass */
    }
}

static bool
co_set_up_by_options(Program *program)
{
    int opt;
    int index = 0;

    optind = 0; /* makes getopt start again */
    while ((opt = getopt_long(program->argc, program->argv, "hV", long_options,
                              &index)) != -1) {
        g_autoptr(GError) error = NULL;

        if (!co_carry_out(program, opt, optarg, &error)) {
            if (!program->stopping) {
                fprintf(stderr, PROGRAM ": --%s %s: %s\n",
                        long_options[index].name, optarg, error->message);
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

    if (bf_monitors_count(program->monitors) > 0 || program->has_export) {
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

static bool
become_ready(Program *program, GError **error)
{
    if (program->pidfile_path != NULL) {
        program->pidfile = bf_pidfile_new(program->pidfile_path, error);
        if (program->pidfile == NULL) {
            return false;
        }
    }
    if (program->ready_fd >= 0) {
        if (!bf_process_ready(bf_steal_fd(&program->ready_fd), error)) {
            return false;
        }
        bf_log_detach();
    }
    bf_process_notify_systemd("READY=1");
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
    if (!bf_monitors_co_close(program->monitors) || !idle) {
        /* The command may still use all that belongs to the daemon. What was
         * written is in the kernel's cache, and safe there. */
        g_warning("a command does not end; ending without it");
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

static void
co_set_up(void *arg)
{
    Program *program = arg;
    g_autoptr(GError) error = NULL;
    bool ok = co_set_up_by_options(program);

    if (ok && !program->stopping &&
        (!co_add_default_monitor(program, &error) ||
         !become_ready(program, &error))) {
        fprintf(stderr, PROGRAM ": %s\n", error->message);
        ok = false;
    }
    program->setting_up = false;
    bf_co_queue_wake_all(&program->setup_done);
    if (ok && !program->stopping) {
        bf_daemon_serve(program->daemon);
        bf_monitors_start(program->monitors);
    } else if (!program->stopping) {
        program->exit_status = EXIT_FAILURE;
        start_shutdown(program);
    }
}

/* The objects go only after all that was begun here has ended. */
static void
co_reload(void *arg)
{
    Program *program = arg;
    g_autoptr(GError) error = NULL;

    if (!program->stopping && !bf_objects_co_reload_tls_creds(
                                  program->daemon->objects, NULL, &error)) {
        g_warning("%s", error->message);
    }
    bf_wait_group_done(&program->reloads);
}

static void
handle_signal(Program *program, const struct signalfd_siginfo *info)
{
    if (info->ssi_signo == SIGHUP && program->sighup_reloads) {
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
    program->config.parse_authz = bf_authz_text_parse;
    program->config.export_events = bf_monitors_export_events();
    program->config.export_events_opaque = program->monitors;
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

/* Help for --object and --chardev, which ends the program. */
static char *
find_help(Program *program)
{
    int opt;
    char *help = NULL;

    optind = 0;
    while (help == NULL &&
           (opt = getopt_long(program->argc, program->argv, "hV", long_options,
                              NULL)) != -1) {
        if (opt == OPT_OBJECT) {
            help = bf_options_object_help(optarg);
        } else if (opt == OPT_CHARDEV &&
                   (strcmp(optarg, "help") == 0 || strcmp(optarg, "?") == 0)) {
            help = bf_monitors_chardev_help();
        }
    }
    return help;
}

/* Returns the program's exit status. */
static int
check_creds(const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BfCheckTlsCredsOptions) options =
        bf_options_parse_check_tls_creds(text, &error);
    g_autofree char *result = NULL;
    bool good;

    if (options == NULL) {
        fprintf(stderr, PROGRAM ": --check-tls-creds %s: %s\n", text,
                error->message);
        return EXIT_FAILURE;
    }
    good = bf_check_creds(options, &result);
    fputs(result, stdout);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}

int
main(int argc, char **argv)
{
    Program program = {.argc = argc, .argv = argv, .ready_fd = -1};
    g_autoptr(GError) error = NULL;
    g_autoptr(BfClock) clock = NULL;
    g_autofree char *help = NULL;

    bf_log_init(PROGRAM);
    argv[0] = (char *)PROGRAM; /* getopt prints it before its messages */
    if (!parse_process_options(&program)) {
        return program.exit_status;
    }
    help = find_help(&program);
    if (help != NULL) {
        fputs(help, stdout);
        return EXIT_SUCCESS;
    }
    if (program.check_creds != NULL) {
        return check_creds(program.check_creds);
    }
    if (program.daemonize && !bf_process_daemonize(&program.ready_fd, &error)) {
        fprintf(stderr, PROGRAM ": %s\n", error->message);
        return EXIT_FAILURE;
    }
    raise_descriptor_limit();
    block_signals();
    clock = bf_clock_new_system();
    if (!run(&program, clock, &error)) {
        fprintf(stderr, PROGRAM ": %s\n", error->message);
        program.exit_status = EXIT_FAILURE;
    }
    bf_daemon_free(program.daemon);
    bf_monitors_free(program.monitors);
    bf_loop_free(program.loop);
    bf_pidfile_free(program.pidfile);
    return program.exit_status;
}
