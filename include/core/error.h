/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The error domain of the control plane, and errno to message.
 *
 * Every function here may be called from any thread; none suspends.
 */
#pragma once

#include <glib.h>

#define BF_ERROR (bf_error_quark())

/**
 * BfErrorCode: the codes of %BF_ERROR; they are the QMP error classes
 * @BF_ERROR_GENERIC: everything that has no class of its own
 * @BF_ERROR_COMMAND_NOT_FOUND: unknown command, or not allowed in this state
 * @BF_ERROR_DEVICE_NOT_FOUND: a QOM path or class that does not exist
 * @BF_ERROR_DEVICE_NOT_ACTIVE: a block job that does not exist
 */
typedef enum BfErrorCode {
    BF_ERROR_GENERIC,
    BF_ERROR_COMMAND_NOT_FOUND,
    BF_ERROR_DEVICE_NOT_FOUND,
    BF_ERROR_DEVICE_NOT_ACTIVE,
} BfErrorCode;

/**
 * bf_error_quark:
 *
 * Returns: the quark of the error domain; use the %BF_ERROR macro
 */
GQuark bf_error_quark(void);

/**
 * bf_set_error:
 * @error: (nullable): where to set the error
 * @format: printf format of one phrase without full stop or newline
 *
 * Sets a %BF_ERROR_GENERIC error.
 */
void bf_set_error(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

/**
 * bf_set_errno:
 * @error: (nullable): where to set the error
 * @err: a positive errno value
 * @format: printf format of the phrase that comes before the system's text
 *
 * Sets a %BF_ERROR_GENERIC error "phrase: text of @err".
 */
void bf_set_errno(GError **error, int err, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

/**
 * bf_show_peer_text:
 * @text: (nullable): what a peer sent; any bytes. NULL if @len is 0
 * @len: its length, bytes
 * @control: what stands for a control character
 *
 * Any thread.
 *
 * Returns: (transfer full): the same in valid UTF-8 without control characters,
 * fit for messages and terminals
 */
char *bf_show_peer_text(const char *text, size_t len, char control);
