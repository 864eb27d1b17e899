/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Events: puts them into messages and limits the rate of those that a broken
 * disk could send without end. The functions of qmp/gen-events.h make the
 * data. On main; none suspends.
 */
#pragma once

#include <glib.h>
#include <jansson.h>

#include "qmp/gen-events.h"

/**
 * BfEvents: a source of events
 */
typedef struct BfEvents BfEvents;

/**
 * BfEventsFn: sends a message to whoever listens
 * @opaque: as given to bf_events_new()
 * @message: (transfer none): the event as an object
 */
typedef void BfEventsFn(void *opaque, const json_t *message);

/**
 * bf_events_new:
 * @infos: borrowed constant: the events that there are, with their limits
 * @n_infos: how many
 * @send: called for each event, at once or after a delay
 * @opaque: passed to @send
 *
 * Returns: (transfer full): a source of events
 */
BfEvents *bf_events_new(const BfEventInfo *infos, size_t n_infos,
                        BfEventsFn *send, void *opaque);

/**
 * bf_events_free:
 * @events: (nullable): events that were delayed are dropped
 */
void bf_events_free(BfEvents *events);

/**
 * bf_events_emit:
 * @events: the source
 * @name: one of the events that there are
 * @data: (nullable) (transfer full): its data, shallow
 *
 * Sends an event with the present time. Events with a limit are sent at most
 * once in its period for each thing they are about; of those in between, the
 * last is sent when the period is over.
 */
void bf_events_emit(BfEvents *events, const char *name, json_t *data);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfEvents, bf_events_free)
