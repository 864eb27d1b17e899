/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory channels: for tests and fuzzers. See io/channel.h for threads.
 */
#pragma once

#include "io/channel.h"

/**
 * bf_channel_memory_new:
 * @input: what reads return; a reference is taken, what was read is removed
 *     by and by, and at once when all of it was read
 * @output: writes are added to it; a reference is taken
 * @max_chunk: most bytes that one read or write moves, at least 1: gives the
 *     short transfers that real sockets give
 *
 * Reading past the end of @input is the end of the stream. No call suspends.
 *
 * Returns: (transfer full): the channel
 */
BfChannel *bf_channel_memory_new(GByteArray *input, GByteArray *output,
                                 size_t max_chunk);
