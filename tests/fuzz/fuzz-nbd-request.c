/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzzer of NBD requests. The first byte chooses the export, whether replies
 * are structured or headers extended, which contexts the client has asked for,
 * and whether there is a socket; the second is the size of the portions or, of
 * a socket, how it ends. The rest is what comes after the handshake.
 *
 * Beyond not crashing: all that is sent is whole replies, each with a length
 * that the protocol allows.
 */
#include <stdint.h>
#include <string.h>

#include "nbd-session.h"
#include "proto/nbd-extended.h"
#include "proto/nbd.h"

#define STRING(text)                                                           \
    {                                                                          \
        .data = (text), .len = sizeof(text) - 1                                \
    }

/* The export that inputs can put any bytes into. */
#define NAME_FILE 4

/* After how many bytes a connection that is to end early does: about as many
 * as the handshake has, and then in steps. */
#define END_AFTER_MIN 500
#define END_AFTER_STEP 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
add_option(GByteArray *input, uint32_t option, const GByteArray *payload)
{
    uint8_t header[BF_NBD_OPTION_BYTES];

    bf_nbd_put_option(header, &(BfNbdOptionHeader){
                                  .option = option,
                                  .length = payload->len,
                              });
    g_byte_array_append(input, header, sizeof(header));
    g_byte_array_append(input, payload->data, payload->len);
}

static void
add_meta(GByteArray *input, uint32_t option, BfNbdString name,
         const BfNbdString *queries, size_t n)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();

    bf_nbd_append_meta(payload, name, queries, n);
    add_option(input, option, payload);
}

/* @how: 0 asks for all contexts, 1 for one, 3 for bitmaps; 2 and 3 ask for more
 * than that before, which must leave no trace. */
static void
add_contexts(GByteArray *input, BfNbdString name, unsigned how)
{
    const BfNbdString queries[] = {
        STRING("base:allocation"),
        STRING("qemu:allocation-depth"),
        STRING("qemu:dirty-bitmap:b0"),
        STRING("qemu:dirty-bitmap:b1"),
        STRING("qemu:dirty-bitmap:"),
        STRING("base:"),
        STRING("qemu:"),
        STRING("qemu:else"),
        STRING("x"),
    };
    const BfNbdString none = STRING("none");
    g_autoptr(GByteArray) cut = g_byte_array_new();

    if (how == 2) {
        add_meta(input, BF_NBD_OPTION_LIST_META_CONTEXT, name, queries, 0);
        add_meta(input, BF_NBD_OPTION_LIST_META_CONTEXT, name, queries + 4, 5);
        add_meta(input, BF_NBD_OPTION_SET_META_CONTEXT, name, queries + 4, 5);
    } else if (how == 3) {
        add_meta(input, BF_NBD_OPTION_SET_META_CONTEXT, none, queries, 2);
        add_option(input, BF_NBD_OPTION_SET_META_CONTEXT, cut);
    }
    if (how == 3) {
        add_meta(input, BF_NBD_OPTION_SET_META_CONTEXT, name, queries + 2, 2);
    } else {
        add_meta(input, BF_NBD_OPTION_SET_META_CONTEXT, name, queries,
                 how == 1 ? 1 : 4);
    }
}

/* What the replies look like. */
typedef enum Form {
    FORM_SIMPLE,
    FORM_STRUCTURED,
    FORM_EXTENDED,
} Form;

static void
add_handshake(GByteArray *input, BfNbdString name, Form form, unsigned contexts)
{
    g_autoptr(GByteArray) payload = g_byte_array_new();

    g_byte_array_append(input, (const guint8 *)"\0\0\0\3", 4);
    if (form != FORM_SIMPLE) {
        add_option(input,
                   form == FORM_EXTENDED ? BF_NBD_OPTION_EXTENDED_HEADERS
                                         : BF_NBD_OPTION_STRUCTURED_REPLY,
                   payload);
        add_contexts(input, name, contexts);
    }
    bf_nbd_append_go(payload, name, NULL, 0);
    add_option(input, BF_NBD_OPTION_GO, payload);
}

/* Returns where the replies to requests begin. */
static size_t
skip_handshake(const GByteArray *output)
{
    size_t at = BF_NBD_GREETING_BYTES;
    BfNbdOptionReply reply;

    do {
        g_assert_cmpuint(output->len - at, >=, BF_NBD_OPTION_REPLY_BYTES);
        g_assert_true(bf_nbd_parse_option_reply(output->data + at, &reply));
        at += BF_NBD_OPTION_REPLY_BYTES + reply.length;
    } while (reply.option != BF_NBD_OPTION_GO ||
             reply.type != BF_NBD_REPLY_ACK);
    return at;
}

/* A simple reply may carry the data of a READ; its length is not told, so the
 * next magic number is looked for. All that exports have is told apart from its
 * first byte. */
static size_t
skip_data(const GByteArray *output, size_t at)
{
    while (at < output->len &&
           (output->data[at] == 0 || output->data[at] == NBD_SESSION_BYTE)) {
        at++;
    }
    return at;
}

static void
check_extended_replies(const GByteArray *output)
{
    size_t at = skip_handshake(output);
    uint64_t offset;
    BfNbdChunk chunk;

    while (at < output->len) {
        size_t left = output->len - at;

        g_assert_cmpuint(left, >=, BF_NBD_EXTENDED_CHUNK_BYTES);
        g_assert_true(
            bf_nbd_parse_extended_chunk(output->data + at, &chunk, &offset));
        g_assert_cmpuint(chunk.length, <=, left - BF_NBD_EXTENDED_CHUNK_BYTES);
        at += BF_NBD_EXTENDED_CHUNK_BYTES + chunk.length;
    }
}

static void
check_replies(const GByteArray *output, bool structured)
{
    size_t at = skip_handshake(output);
    BfNbdSimpleReply simple;
    BfNbdChunk chunk;

    while (at < output->len) {
        const uint8_t *next = output->data + at;
        size_t left = output->len - at;

        g_assert_cmpuint(left, >=, BF_NBD_SIMPLE_REPLY_BYTES);
        if (bf_nbd_parse_simple_reply(next, &simple)) {
            at += BF_NBD_SIMPLE_REPLY_BYTES;
            at = structured ? at : skip_data(output, at);
            continue;
        }
        g_assert_true(structured);
        g_assert_cmpuint(left, >=, BF_NBD_CHUNK_BYTES);
        g_assert_true(bf_nbd_parse_chunk(next, &chunk));
        g_assert_cmpuint(chunk.length, <=, left - BF_NBD_CHUNK_BYTES);
        at += BF_NBD_CHUNK_BYTES + chunk.length;
    }
}

static NbdSessionPlan
plan_of(const uint8_t data[2])
{
    if ((data[0] & 32) == 0) {
        return (NbdSessionPlan){.max_chunk = (size_t)data[1] * 16 + 1};
    }
    return (NbdSessionPlan){
        .end = (data[1] & 128) != 0  ? NBD_SESSION_END_LEAVE
               : (data[1] & 64) != 0 ? NBD_SESSION_END_KILL
                                     : NBD_SESSION_END_WAIT,
        .end_after = END_AFTER_MIN + (data[1] & 63) * END_AFTER_STEP,
    };
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const BfNbdString names[] = {
        STRING("e0"),   STRING("ro"),   STRING("slow"), STRING("bad"),
        STRING("file"), STRING("data"), STRING("huge"), STRING("through"),
    };
    g_autoptr(GByteArray) input = g_byte_array_new();
    g_autoptr(GByteArray) output = NULL;
    NbdSessionPlan plan;
    Form form;
    unsigned name;

    if (size < 2) {
        return 0;
    }
    form = (data[0] & 1) == 0    ? FORM_SIMPLE
           : (data[0] & 64) != 0 ? FORM_EXTENDED
                                 : FORM_STRUCTURED;
    name = (data[0] >> 1 & 3) + (data[0] >> 7) * 4;
    add_handshake(input, names[name], form, data[0] >> 3 & 3);
    g_byte_array_append(input, data + 2, size - 2);
    plan = plan_of(data);
    output = nbd_session_run(input, &plan);
    if (plan.end != NBD_SESSION_END_WAIT) {
        return 0; /* there may be anything, up to any place */
    }
    if (form == FORM_EXTENDED) {
        check_extended_replies(output);
    } else if (form == FORM_STRUCTURED || name != NAME_FILE) {
        check_replies(output, form == FORM_STRUCTURED);
    }
    return 0;
}
