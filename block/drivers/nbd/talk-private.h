/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * talk.c: one message of a handshake at a time. All _co_ functions suspend and
 * say in their error what was expected.
 */
#pragma once

#include "nbd-private.h"

/*
 * A handshake under way.
 */
typedef struct BfNbdcTalk {
    BfChannel *channel; /* borrowed from the caller's variable */
    const BfNbdcTarget *target;
    uint32_t option; /* the one that was sent last */
    BfNbdOptionReply reply;
    GByteArray *payload; /* of @reply */
    bool in_step;        /* both sides know where a message begins */
    bool no_zeroes;
} BfNbdcTalk;

/* Reads @len bytes; @what names them in messages. */
bool bf_nbdc_talk_co_read(BfNbdcTalk *talk, void *buf, size_t len,
                          const char *what, GError **error);

/* The greeting and the answer to it. */
bool bf_nbdc_talk_co_greet(BfNbdcTalk *talk, uint16_t *ret_flags,
                           GError **error);

bool bf_nbdc_talk_co_send(BfNbdcTalk *talk, BfNbdOption option,
                          const void *data, size_t len, GError **error);

/* Reads one reply to the option that was sent last. */
bool bf_nbdc_talk_co_reply(BfNbdcTalk *talk, GError **error);

/* Sends an option without data that is answered by yes or no. */
bool bf_nbdc_talk_co_ask(BfNbdcTalk *talk, BfNbdOption option, bool *ret_yes,
                         GError **error);

/* Replaces @channel, and the one of @talk, by one with TLS. */
bool bf_nbdc_talk_co_start_tls(BfNbdcTalk *talk, BfChannel **channel,
                               GError **error);

/* About the last reply. The latter two return false. */
bool bf_nbdc_talk_is_refused(const BfNbdcTalk *talk);
bool bf_nbdc_talk_set_unexpected(const BfNbdcTalk *talk, GError **error);
bool bf_nbdc_talk_set_refused(const BfNbdcTalk *talk, GError **error);
