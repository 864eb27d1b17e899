/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the program was asked to do. The daemon's own options and those of the
 * stand-alone server of one image both become the same list of steps.
 */
#pragma once

#include <stdbool.h>

#include <glib.h>

#include "serve/activation.h"

#define BF_DAEMON_NAME "blockferryd"
#define BF_STANDALONE_NAME "blockferry-nbd"

/**
 * BfStepKind: the option of the daemon that a step is
 */
typedef enum BfStepKind {
    BF_STEP_BLOCKDEV,
    BF_STEP_CHARDEV,
    BF_STEP_CONFIG,
    BF_STEP_EXPORT,
    BF_STEP_MONITOR,
    BF_STEP_NBD_SERVER,
    BF_STEP_OBJECT,
} BfStepKind;

/**
 * BfStep: something to be set up
 * @kind: what
 * @text: as that option takes it: of main()'s arguments, or @made. A secret in
 *     it may be hidden when it has been read
 * @made: owned, or NULL
 * @shown: owned: what the user gave for @made, or NULL
 */
typedef struct BfStep {
    BfStepKind kind;
    char *text;
    char *made;
    char *shown;
} BfStep;

/**
 * bf_step_show:
 * @step: a step
 *
 * Returns: (transfer full): what the user gave; begins messages
 */
char *bf_step_show(const BfStep *step);

/**
 * BfArguments: all that the program was asked to do; begins as all zero
 * @program: its name in messages
 * @activation: owned: the sockets that a supervisor has passed
 * @output: owned: to be printed instead of anything else, or NULL
 * @steps: owned: what to set up, in this order
 * @daemonize: go to the background when ready
 * @keep_stderr: but go on writing the log to where it goes now
 * @pidfile_path: borrowed from main()'s arguments, or NULL
 * @check_creds: the same: TLS credentials that are to be checked and no more
 * @sighup_reloads: SIGHUP does not end the program
 * @n_workers: 0 for the default
 * @allow_faults: nodes of the driver fault are allowed
 * @stand_alone: there is no monitor
 * @until_unused: ends when its last client has left
 * @list_server: owned: the server whose exports are to be listed and no more,
 *     as --nbd-server takes it; or NULL
 * @list_hostname: borrowed: what its certificate is for, or NULL
 */
typedef struct BfArguments {
    const char *program;
    BfActivation *activation;
    char *output;
    GPtrArray *steps;
    bool daemonize;
    bool keep_stderr;
    const char *pidfile_path;
    const char *check_creds;
    bool sighup_reloads;
    unsigned n_workers;
    bool allow_faults;
    bool stand_alone;
    bool until_unused;
    char *list_server;
    const char *list_hostname;
} BfArguments;

/**
 * bf_arguments_parse:
 * @args: (out): all zero before; to be cleared in any case
 * @argc: number of @argv
 * @argv: borrowed: what main() got; its first word says which of the two
 *     programs it is
 *
 * Reads the options; says on standard error what is wrong with them. Sets up
 * the log.
 *
 * Returns: false if they are wrong
 */
bool bf_arguments_parse(BfArguments *args, int argc, char **argv);

/**
 * bf_arguments_add:
 * @args: the arguments
 * @kind: of the step
 * @text: borrowed: the user's own, as that option of the daemon takes it
 *
 * Adds a step behind the others.
 */
void bf_arguments_add(BfArguments *args, BfStepKind kind, char *text);

/**
 * bf_arguments_add_made:
 * @args: the arguments
 * @kind: of the step
 * @text: made for that option of the daemon; copied
 * @format: what the user gave for it
 *
 * Adds a step behind the others.
 */
void bf_arguments_add_made(BfArguments *args, BfStepKind kind, const char *text,
                           const char *format, ...) G_GNUC_PRINTF(4, 5);

/**
 * bf_arguments_find_help:
 * @args: the arguments
 *
 * Makes the output of the first --object or --chardev that only asks for help,
 * which ends the program.
 */
void bf_arguments_find_help(BfArguments *args);

/**
 * bf_arguments_complain:
 * @args: the arguments
 * @format: what is wrong
 *
 * Writes a message.
 *
 * Returns: false
 */
bool bf_arguments_complain(const BfArguments *args, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

/**
 * bf_arguments_refuse_trace:
 * @args: the arguments
 * @text: what was given for -T, which QEMU's programs have
 *
 * Says what there is instead.
 *
 * Returns: false
 */
bool bf_arguments_refuse_trace(const BfArguments *args, const char *text);

/**
 * bf_standalone_parse:
 *
 * bf_arguments_parse() for the stand-alone server, whose options are those of
 * qemu-nbd.
 */
bool bf_standalone_parse(BfArguments *args, int argc, char **argv);

/**
 * bf_arguments_clear:
 * @args: frees what it owns
 */
void bf_arguments_clear(BfArguments *args);

/**
 * bf_standalone_print_list:
 * @offers: of BfNbdOffer
 *
 * Prints the exports of a server on standard output.
 */
void bf_standalone_print_list(const GPtrArray *offers);
