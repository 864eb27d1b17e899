/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From a client's text to a command to the text of its reply.
 *
 * On main; _co_ functions suspend. Big texts are parsed and freed on the thread
 * pool. jansson recurses with the nesting of a value, up to 1024 levels from a
 * client; so what clients send never becomes one of its values as a whole.
 */
#pragma once

#include <stdbool.h>

#include <glib.h>
#include <jansson.h>

#include "core/thread-pool.h"
#include "qmp/framer.h"
#include "qmp/json-doc.h"
#include "qmp/json-write.h"
#include "qmp/monitors.h"

/* Texts from this size on are parsed on the thread pool. */
#define BF_REQUEST_BIG_BYTES ((size_t)256 * 1024)

/**
 * BfMonitorClient: one client; see qmp/monitor.h
 */
typedef struct BfMonitorClient BfMonitorClient;

/**
 * BfQmpCall: the circumstances of a command that is being run
 * @daemon: borrowed: what it works on
 * @monitors: borrowed: the set that the client belongs to
 * @client: (nullable): borrowed: who gave the command; it lives until the
 *     command has ended, connected or not. NULL if it comes from a file
 * @text: (nullable): borrowed: see bf_qmp_call_give_text()
 */
typedef struct BfQmpCall {
    BfDaemon *daemon;
    BfMonitors *monitors;
    BfMonitorClient *client;
    const char *text;
} BfQmpCall;

/**
 * bf_qmp_call_give_text:
 * @call: a command that is being run
 * @text: constant JSON in the layout of %BF_JSON_STYLE_COMPACT
 *
 * Makes @text the result, so that what is the same every time is not made of
 * values and written anew.
 *
 * Returns: (transfer full): what stands for it as a value
 */
json_t *bf_qmp_call_give_text(BfQmpCall *call, const char *text);

/**
 * bf_qmp_call_take_fd:
 * @opaque: a BfQmpCall
 * @name: of a descriptor
 * @error: set on failure
 *
 * A BfTakeFd for commands: what their client has named by getfd; for those that
 * come from a file what the command line can name.
 *
 * Returns: (transfer full): the descriptor, or -1
 */
int bf_qmp_call_take_fd(void *opaque, const char *name, GError **error);

/**
 * BfRequest: one text of a client, to be answered
 * @frame: owned: the text, which went into @doc, or an error
 * @doc: (nullable): owned: the text's contents
 * @id: (nullable): owned: the client's id as it goes into the reply
 * @error: (nullable): owned: why there is no @doc
 */
typedef struct BfRequest {
    BfFrame *frame;
    BfJsonDoc *doc;
    char *id;
    GError *error;
} BfRequest;

/**
 * bf_request_co_new:
 * @frame: (transfer full): from the framer
 * @lane: for big texts
 *
 * Parses.
 *
 * Returns: (transfer full): the request
 */
BfRequest *bf_request_co_new(BfFrame *frame, BfPoolLane *lane);

/**
 * bf_request_co_free:
 * @request: (nullable): a request
 * @lane: for big texts
 */
void bf_request_co_free(BfRequest *request, BfPoolLane *lane);

/**
 * bf_request_is_oob:
 * @request: a request
 *
 * Returns: true if it is an object with a member exec-oob
 */
bool bf_request_is_oob(const BfRequest *request);

/**
 * bf_dispatch_co_run:
 * @call: whose request it is
 * @request: the request
 * @style: layout of the reply
 *
 * Checks the request and runs its command.
 *
 * Returns: (transfer full): the reply with its line end
 */
GBytes *bf_dispatch_co_run(BfQmpCall *call, const BfRequest *request,
                           BfJsonStyle style);

/**
 * bf_dispatch_co_do:
 * @call: whose request it is
 * @request: the request
 * @error: set on failure
 *
 * bf_dispatch_co_run() for those who want no reply.
 *
 * Returns: false if the request was wrong or its command failed
 */
bool bf_dispatch_co_do(BfQmpCall *call, const BfRequest *request,
                       GError **error);

/**
 * bf_dispatch_version_new:
 *
 * Returns: (transfer full): the version of the interface and of the program
 */
BfVersionInfo *bf_dispatch_version_new(void);

/**
 * bf_dispatch_greeting:
 * @style: layout
 *
 * Returns: (transfer full): the greeting with its line end
 */
GBytes *bf_dispatch_greeting(BfJsonStyle style);

/**
 * bf_dispatch_error_line:
 * @message: description of an error
 * @style: layout
 *
 * Returns: (transfer full): an error without id, with its line end
 */
GBytes *bf_dispatch_error_line(const char *message, BfJsonStyle style);
