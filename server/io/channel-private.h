/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What kinds of channels share.
 */
#pragma once

#include "io/channel.h"

/**
 * bf_channel_read_pipe:
 * @pipe_fd: read end of a pipe that has something and does not block
 * @iov: where to
 * @niov: how many
 * @error: set if nothing was read
 *
 * Any thread; never waits.
 *
 * Returns: bytes read; less than 1 if none were
 */
ssize_t bf_channel_read_pipe(int pipe_fd, const struct iovec *iov, int niov,
                             GError **error);
