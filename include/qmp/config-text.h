/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The text of a file of monitor commands: JSON texts as a client would send
 * them, one after the other, with comments from # or // to the end of the line
 * and between slash-star and star-slash. Any thread; none suspends.
 */
#pragma once

#include <stdbool.h>

#include "qmp/framer.h"

/**
 * BfConfigReader: takes commands out of a text
 */
typedef struct BfConfigReader BfConfigReader;

/**
 * bf_config_reader_new:
 * @text: borrowed: a NUL-terminated text; its comments become spaces in place
 *
 * Returns: (transfer full): a reader at the beginning of @text
 */
BfConfigReader *bf_config_reader_new(char *text);

/**
 * bf_config_reader_free:
 * @reader: (nullable): the reader
 */
void bf_config_reader_free(BfConfigReader *reader);

/**
 * bf_config_reader_next:
 * @reader: the reader
 * @ret_line: (out): where the command begins, or what is left at the end;
 *     counted from 1
 *
 * Returns: (transfer full) (nullable): the next command, or what is wrong with
 * it as BfFrame.error; NULL at the end
 */
BfFrame *bf_config_reader_next(BfConfigReader *reader, unsigned *ret_line);

/**
 * bf_config_reader_is_cut_off:
 * @reader: a reader at the end
 *
 * Returns: true if the text ends inside of a command, which was not given then
 */
bool bf_config_reader_is_cut_off(const BfConfigReader *reader);

G_DEFINE_AUTOPTR_CLEANUP_FUNC(BfConfigReader, bf_config_reader_free)
