/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's command line. Only what concerns the process is understood here;
 * what describes objects, nodes and exports is kept in its order for later.
 */
#include "arguments-private.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "qmp/monitors.h"
#include "qmp/options.h"
#include "serve/log.h"

enum {
    OPT_CHECK_CREDS = 256,
    OPT_DAEMONIZE,
    OPT_FAULTS,
    OPT_PIDFILE,
    OPT_SIGHUP,
    OPT_WORKERS,
    OPT_STEP, /* + BfStepKind */
};

static const struct option long_options[] = {
    {"allow-fault-injection", no_argument, NULL, OPT_FAULTS},
    {"blockdev", required_argument, NULL, OPT_STEP + BF_STEP_BLOCKDEV},
    {"chardev", required_argument, NULL, OPT_STEP + BF_STEP_CHARDEV},
    {"check-tls-creds", required_argument, NULL, OPT_CHECK_CREDS},
    {"config", required_argument, NULL, OPT_STEP + BF_STEP_CONFIG},
    {"daemonize", no_argument, NULL, OPT_DAEMONIZE},
    {"export", required_argument, NULL, OPT_STEP + BF_STEP_EXPORT},
    {"help", no_argument, NULL, 'h'},
    {"monitor", required_argument, NULL, OPT_STEP + BF_STEP_MONITOR},
    {"nbd-server", required_argument, NULL, OPT_STEP + BF_STEP_NBD_SERVER},
    {"object", required_argument, NULL, OPT_STEP + BF_STEP_OBJECT},
    {"pidfile", required_argument, NULL, OPT_PIDFILE},
    {"sighup", required_argument, NULL, OPT_SIGHUP},
    {"trace", required_argument, NULL, 'T'},
    {"version", no_argument, NULL, 'V'},
    {"workers", required_argument, NULL, OPT_WORKERS},
    {NULL, 0, NULL, 0},
};

static void
step_free(void *data)
{
    BfStep *step = data;

    g_free(step->made);
    g_free(step->shown);
    g_free(step);
}

char *
bf_step_show(const BfStep *step)
{
    static const char *const names[] = {
        [BF_STEP_BLOCKDEV] = "blockdev", [BF_STEP_CHARDEV] = "chardev",
        [BF_STEP_CONFIG] = "config",     [BF_STEP_EXPORT] = "export",
        [BF_STEP_MONITOR] = "monitor",   [BF_STEP_NBD_SERVER] = "nbd-server",
        [BF_STEP_OBJECT] = "object",
    };

    return step->shown != NULL
               ? g_strdup(step->shown)
               : g_strdup_printf("--%s %s", names[step->kind], step->text);
}

static BfStep *
add_step(BfArguments *args, BfStepKind kind)
{
    BfStep *step = g_new0(BfStep, 1);

    step->kind = kind;
    g_ptr_array_add(args->steps, step);
    return step;
}

void
bf_arguments_add(BfArguments *args, BfStepKind kind, char *text)
{
    add_step(args, kind)->text = text;
}

void
bf_arguments_add_made(BfArguments *args, BfStepKind kind, const char *text,
                      const char *format, ...)
{
    BfStep *step = add_step(args, kind);
    va_list values;

    step->made = g_strdup(text);
    step->text = step->made;
    va_start(values, format);
    step->shown = g_strdup_vprintf(format, values);
    va_end(values);
}

bool
bf_arguments_complain(const BfArguments *args, const char *format, ...)
{
    g_autofree char *message = NULL;
    va_list values;

    va_start(values, format);
    message = g_strdup_vprintf(format, values);
    va_end(values);
    fprintf(stderr, "%s: %s\n", args->program, message);
    return false;
}

static char *
make_help(void)
{
    return g_strdup_printf(
        "Usage: " BF_DAEMON_NAME " [options]\n"
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
        "  --monitor [chardev=]ID[,pretty=on|off][,read-only=on|off]\n"
        "                             serve QMP on a character device\n"
        "  --nbd-server addr.type=inet,addr.host=HOST,addr.port=PORT\n"
        "               |addr.type=unix,addr.path=PATH\n"
        "               [,tls-creds=ID][,max-connections=N]"
        "[,handshake-max-seconds=N]\n"
        "               [,max-connections-per-address=N]\n"
        "                             start the NBD server; with id=ID one "
        "more listener\n"
        "  --export [type=]nbd,id=ID,node-name=NODE[,name=NAME]"
        "[,writable=on]\n"
        "                             export a block node\n"
        "  --config FILE              run the monitor commands in FILE\n"
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
parse_workers(BfArguments *args, const char *text)
{
    guint64 n = 0;

    if (!g_ascii_string_to_unsigned(text, 10, 1, BF_WORKERS_MAX, &n, NULL)) {
        return bf_arguments_complain(
            args, "--workers %s: expected a number from 1 to %d", text,
            BF_WORKERS_MAX);
    }
    args->n_workers = (unsigned)n;
    return true;
}

static bool
parse_sighup(BfArguments *args, const char *text)
{
    args->sighup_reloads = strcmp(text, "reload") == 0;
    return args->sighup_reloads || strcmp(text, "end") == 0 ||
           bf_arguments_complain(
               args,
               "--sighup=%s: expected 'end', to end the program, or 'reload', "
               "to read the files of TLS credentials again",
               text);
}

bool
bf_arguments_refuse_trace(const BfArguments *args, const char *text)
{
    return bf_arguments_complain(
        args,
        "--trace %s: there are no trace events to be enabled; set "
        "G_MESSAGES_DEBUG=all in the environment for debug messages, or attach "
        "bpftrace or perf to the static probes (bpftrace -l 'usdt:PATH:*')",
        text);
}

static bool
take_option(BfArguments *args, int opt)
{
    switch (opt) {
    case 'h':
        args->output = make_help();
        return true;
    case 'V':
        args->output = g_strdup(BF_DAEMON_NAME " version " BF_VERSION "\n");
        return true;
    case OPT_DAEMONIZE:
        args->daemonize = true;
        return true;
    case OPT_FAULTS:
        args->allow_faults = true;
        return true;
    case OPT_PIDFILE:
        args->pidfile_path = optarg;
        return true;
    case OPT_CHECK_CREDS:
        args->check_creds = optarg;
        return true;
    case OPT_SIGHUP:
        return parse_sighup(args, optarg);
    case OPT_WORKERS:
        return parse_workers(args, optarg);
    case 'T':
        return bf_arguments_refuse_trace(args, optarg);
    case '?':
        return false; /* getopt has said why */
    default:
        bf_arguments_add(args, (BfStepKind)(opt - OPT_STEP), optarg);
        return true;
    }
}

void
bf_arguments_find_help(BfArguments *args)
{
    for (unsigned i = 0; i < args->steps->len && args->output == NULL; i++) {
        const BfStep *step = g_ptr_array_index(args->steps, i);

        if (step->kind == BF_STEP_OBJECT) {
            args->output = bf_options_object_help(step->text);
        } else if (step->kind == BF_STEP_CHARDEV &&
                   (strcmp(step->text, "help") == 0 ||
                    strcmp(step->text, "?") == 0)) {
            args->output = bf_monitors_chardev_help();
        }
    }
}

static bool
parse_daemon(BfArguments *args, int argc, char **argv)
{
    int opt;

    while ((opt = getopt_long(argc, argv, "hT:V", long_options, NULL)) != -1) {
        if (!take_option(args, opt)) {
            return false;
        }
        if (args->output != NULL) {
            return true;
        }
    }
    if (optind < argc) {
        return bf_arguments_complain(args, "%s: Unexpected argument",
                                     argv[optind]);
    }
    bf_arguments_find_help(args);
    return true;
}

bool
bf_arguments_parse(BfArguments *args, int argc, char **argv)
{
    g_autofree char *name = g_path_get_basename(argc > 0 ? argv[0] : "");
    bool is_standalone = strcmp(name, BF_STANDALONE_NAME) == 0;

    args->steps = g_ptr_array_new_with_free_func(step_free);
    args->program = is_standalone ? BF_STANDALONE_NAME : BF_DAEMON_NAME;
    bf_log_init(args->program);
    args->activation = bf_activation_new();
    if (argc > 0) {
        argv[0] = (char *)args->program; /* getopt begins its messages so */
    }
    optind = 0; /* makes getopt start anew */
    return is_standalone ? bf_standalone_parse(args, argc, argv)
                         : parse_daemon(args, argc, argv);
}

void
bf_arguments_clear(BfArguments *args)
{
    g_free(args->output);
    g_clear_pointer(&args->steps, g_ptr_array_unref);
    g_free(args->list_server);
    bf_activation_free(args->activation);
}
