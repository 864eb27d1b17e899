/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer of the NBD handshake. The first byte chooses whether there is TLS, and
 * the size of the portions in which the rest arrives.
 *
 * Beyond not crashing: the greeting comes first, and what follows are replies
 * to options until an export is chosen.
 */
#include <stdint.h>

#include "nbd-session.h"
#include "proto/nbd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static NbdSessionClient
client_of(uint8_t first)
{
    static const NbdSessionClient kinds[] = {
        NBD_SESSION_CLIENT_NO_TLS,
        NBD_SESSION_CLIENT_TOO_PLAIN,
        NBD_SESSION_CLIENT_KNOWN,
    };

    if (first >> 6 < G_N_ELEMENTS(kinds)) {
        return kinds[first >> 6];
    }
    return (first & 1) != 0 ? NBD_SESSION_CLIENT_BARE
                            : NBD_SESSION_CLIENT_UNWANTED;
}

/* Skips replies to options; what comes then belongs to transmission. */
static void
check_output(const GByteArray *output)
{
    size_t at = BF_NBD_GREETING_BYTES;
    BfNbdOptionReply reply;
    uint16_t flags;

    g_assert_cmpuint(output->len, >=, at);
    g_assert_true(bf_nbd_parse_greeting(output->data, &flags));
    while (output->len - at >= BF_NBD_OPTION_REPLY_BYTES &&
           bf_nbd_parse_option_reply(output->data + at, &reply)) {
        at += BF_NBD_OPTION_REPLY_BYTES;
        g_assert_cmpuint(reply.length, <=, output->len - at);
        g_assert_true(reply.type != BF_NBD_REPLY_ACK || reply.length == 0);
        at += reply.length;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autoptr(GByteArray) input = g_byte_array_new();
    g_autoptr(GByteArray) output = NULL;
    NbdSessionPlan plan;

    if (size == 0) {
        return 0;
    }
    g_byte_array_append(input, data + 1, size - 1);
    plan = (NbdSessionPlan){
        .max_chunk = (size_t)(data[0] & 63) * 4 + 1,
        .client = client_of(data[0]),
    };
    output = nbd_session_run(input, &plan);
    check_output(output);
    return 0;
}
