/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The framer: takes the bytes of a client in any portions and gives one strict
 * JSON text for each value, or an error. It knows QEMU's grammar (single
 * quotes, recovery, limits) and does no I/O.
 *
 * What it gives is for bf_json_doc_parse() and follows the conventions of
 * qmp/json-value.h for integers above 2^63-1 and for NUL in keys. It takes time
 * linear in the bytes fed, and memory for at most one value of 64 MiB and the
 * bytes that were fed but not looked at. A framer is used by one thread at a
 * time; nothing suspends.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

/**
 * BfFrame: one value from the client, or one error
 * @text: strict JSON in UTF-8; NULL for an error
 * @len: bytes of @text; it holds no NUL
 * @id_start: where in @text the member "id" of the outermost object has its
 *   value
 * @id_len: bytes of that value; 0 if there is none
 * @error: description of the error as QEMU words it; NULL for a value
 */
typedef struct BfFrame {
    char *text;
    size_t len;
    size_t id_start;
    size_t id_len;
    char *error;
} BfFrame;

/**
 * BfFramer: takes bytes, gives frames
 */
typedef struct BfFramer BfFramer;

/**
 * bf_framer_new:
 *
 * Returns: (transfer full): a framer at the start of a value
 */
BfFramer *bf_framer_new(void);

/**
 * bf_framer_free:
 * @framer: (nullable): the framer
 */
void bf_framer_free(BfFramer *framer);

/**
 * bf_framer_feed:
 * @framer: the framer
 * @bytes: bytes from the client
 * @len: number of bytes, 0 or more
 *
 * Copies the bytes; bf_framer_next() looks at them.
 */
void bf_framer_feed(BfFramer *framer, const void *bytes, size_t len);

/**
 * bf_framer_next:
 * @framer: the framer
 *
 * A number or keyword outside of any object or array ends only with the next
 * byte. After an error, bytes are dropped as QEMU does it; the one difference
 * is that a value beyond a limit gives one error and is dropped up to its end
 * or up to the next line end or other control character.
 *
 * Returns: (transfer full) (nullable): the next value or error; NULL if that
 *   takes more bytes
 */
BfFrame *bf_framer_next(BfFramer *framer);

/**
 * bf_framer_is_inside:
 * @framer: the framer; all bytes were looked at
 *
 * Returns: true if a value has begun and not ended
 */
bool bf_framer_is_inside(const BfFramer *framer);

/**
 * bf_frame_echo_id:
 * @frame: a value
 *
 * Takes as long as the id is large.
 *
 * Returns: (transfer full) (nullable): the value of the member "id" of the
 *   outermost object as JSON text in ASCII, with a space after each comma and
 *   colon, and numbers as the client wrote them; NULL if there is none
 */
char *bf_frame_echo_id(const BfFrame *frame);

/**
 * bf_frame_free:
 * @frame: (nullable): the frame; its text is wiped, as it may hold a secret
 */
void bf_frame_free(BfFrame *frame);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfFramer, bf_framer_free)
G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfFrame, bf_frame_free)
