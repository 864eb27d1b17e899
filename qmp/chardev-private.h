/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What chardev.c shares with the channel of the stdio backend.
 */
#pragma once

#include <stdbool.h>

#include <glib.h>

#include "io/channel.h"

/**
 * bf_channel_stdio_new:
 * @signal: false turns the terminal's interrupt keys off
 * @error: set on failure
 *
 * Descriptors 0 and 1 as a channel; they are made non-blocking, and what was
 * changed is put back when the channel is freed. Only one may exist.
 * bf_channel_shutdown() is for the loop of its users.
 *
 * Returns: (transfer full): the channel, or NULL
 */
BfChannel *bf_channel_stdio_new(bool signal, GError **error);
