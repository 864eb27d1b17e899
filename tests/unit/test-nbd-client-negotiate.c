/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The client's handshake, against bytes that are written down before: what it
 * makes of good servers, what it sends, and that bad ones only get an error.
 */
#include "block-harness.h"
#include "block/drivers/nbd/nbd-private.h"
#include "core/error.h"
#include "core/util.h"
#include "harness.h"
#include "io/channel-memory.h"

#define FLAGS                                                                  \
    (BF_NBD_EXPORT_HAS_FLAGS | BF_NBD_EXPORT_FLUSH | BF_NBD_EXPORT_FUA)

/* What a handshake came to. */
typedef struct Result {
    bool ok;
    BfNbdcExport exp;
    GByteArray *sent; /* owned */
    GError *error;
} Result;

static void
result_clear(Result *result)
{
    g_byte_array_unref(result->sent);
    g_clear_error(&result->error);
}

G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(Result, result_clear)

static BfNbdcTarget
plain_target(void)
{
    return (BfNbdcTarget){
        .server = (char *)"test",
        .name = (char *)"disk",
        .context = (char *)"base:allocation",
    };
}

static Result
co_negotiate(const GByteArray *server, size_t len, const BfNbdcTarget *target)
{
    g_autoptr(GByteArray) input = g_byte_array_new();
    Result result = {.sent = g_byte_array_new()};
    BfChannel *channel = NULL;

    g_byte_array_append(input, server->data, (guint)len);
    channel = bf_channel_memory_new(input, result.sent, 7);
    result.ok =
        bf_nbdc_co_negotiate(&channel, target, &result.exp, &result.error);
    bf_channel_free(channel);
    g_assert_true(result.ok == (result.error == NULL));
    return result;
}

/* Scripts. */

static GByteArray *
script_new(uint16_t flags)
{
    GByteArray *script = g_byte_array_new();
    uint8_t greeting[BF_NBD_GREETING_BYTES];

    bf_nbd_put_greeting(greeting, flags);
    return g_byte_array_append(script, greeting, sizeof(greeting));
}

static void
reply(GByteArray *script, BfNbdOption option, uint32_t type, const void *data,
      size_t len)
{
    uint8_t head[BF_NBD_OPTION_REPLY_BYTES];

    bf_nbd_put_option_reply(head, &(BfNbdOptionReply){
                                      .option = option,
                                      .type = type,
                                      .length = (uint32_t)len,
                                  });
    g_byte_array_append(script, head, sizeof(head));
    g_byte_array_append(script, data, (guint)len);
}

static void
ack(GByteArray *script, BfNbdOption option)
{
    reply(script, option, BF_NBD_REPLY_ACK, NULL, 0);
}

static void
refuse(GByteArray *script, BfNbdOption option, uint32_t type, const char *text)
{
    reply(script, option, type, text, strlen(text));
}

static void
context(GByteArray *script, uint32_t id, const char *name)
{
    g_autoptr(GByteArray) data = g_byte_array_new();

    bf_nbd_append_meta_context(
        data, id, (BfNbdString){.data = name, .len = (uint32_t)strlen(name)});
    reply(script, BF_NBD_OPTION_SET_META_CONTEXT, BF_NBD_REPLY_META_CONTEXT,
          data->data, data->len);
}

static void
info_export(GByteArray *script, uint64_t size, uint16_t flags)
{
    uint8_t data[BF_NBD_INFO_EXPORT_BYTES];

    bf_nbd_put_info_export(data,
                           &(BfNbdExportInfo){.size = size, .flags = flags});
    reply(script, BF_NBD_OPTION_GO, BF_NBD_REPLY_INFO, data, sizeof(data));
}

static void
info_blocks(GByteArray *script, uint32_t min, uint32_t preferred, uint32_t max)
{
    uint8_t data[BF_NBD_INFO_BLOCK_SIZE_BYTES];

    bf_nbd_put_info_block_size(data, &(BfNbdExportInfo){
                                         .min_block = min,
                                         .preferred_block = preferred,
                                         .max_block = max,
                                     });
    reply(script, BF_NBD_OPTION_GO, BF_NBD_REPLY_INFO, data, sizeof(data));
}

/* Of a server that does not know extended headers. */
static GByteArray *
script_plain(void)
{
    GByteArray *script = script_new(3);

    refuse(script, BF_NBD_OPTION_EXTENDED_HEADERS, BF_NBD_REPLY_ERR_UNSUP, "");
    return script;
}

/* Up to GO, all with success. */
static GByteArray *
script_until_go(void)
{
    GByteArray *script = script_plain();

    ack(script, BF_NBD_OPTION_STRUCTURED_REPLY);
    context(script, 77, "base:allocation");
    ack(script, BF_NBD_OPTION_SET_META_CONTEXT);
    return script;
}

static GByteArray *
script_good(void)
{
    GByteArray *script = script_until_go();

    info_export(script, 1024 * 1024, FLAGS);
    info_blocks(script, 512, 4096, 1024 * 1024);
    ack(script, BF_NBD_OPTION_GO);
    return script;
}

static GByteArray *
script_extended(void)
{
    GByteArray *script = script_new(3);

    ack(script, BF_NBD_OPTION_EXTENDED_HEADERS);
    context(script, 77, "base:allocation");
    ack(script, BF_NBD_OPTION_SET_META_CONTEXT);
    info_export(script, 1024 * 1024, FLAGS);
    ack(script, BF_NBD_OPTION_GO);
    return script;
}

/* The numbers of the options that the client sent. */
static char *
options_sent(const GByteArray *sent)
{
    GString *text = g_string_new(NULL);
    size_t at = 4; /* the flags */
    BfNbdOptionHeader header;

    while (at + BF_NBD_OPTION_BYTES <= sent->len) {
        g_assert_true(bf_nbd_parse_option(sent->data + at, &header));
        g_string_append_printf(text, "%s%u", text->len > 0 ? " " : "",
                               header.option);
        at += BF_NBD_OPTION_BYTES + header.length;
    }
    g_assert_cmpuint(at, ==, sent->len);
    return g_string_free(text, false);
}

static void
assert_sent(const Result *result, const char *options)
{
    g_autofree char *sent = options_sent(result->sent);

    g_assert_cmpstr(sent, ==, options);
}

/* The handshake fails with a text that has all of @text, parted by '*'. */
static void
co_assert_fails(GByteArray *script, const BfNbdcTarget *target,
                const char *options, const char *text)
{
    g_auto(Result) result = co_negotiate(script, script->len, target);
    g_autofree char *pattern = g_strconcat("*", text, "*", NULL);

    g_assert_false(result.ok);
    if (!g_pattern_match_simple(pattern, result.error->message)) {
        g_error("'%s' is not like '%s'", result.error->message, pattern);
    }
    g_assert_true(
        g_str_has_prefix(result.error->message, "NBD server 'test': "));
    if (options != NULL) {
        assert_sent(&result, options);
    }
    g_byte_array_unref(script);
}

/* Tests. */

static void
test_good_server(void *arg)
{
    const BfNbdcTarget target = plain_target();
    g_autoptr(GByteArray) script = script_good();
    g_auto(Result) result = co_negotiate(script, script->len, &target);

    g_assert_no_error(result.error);
    g_assert_true(result.exp.structured);
    g_assert_false(result.exp.extended);
    g_assert_true(result.exp.has_context);
    g_assert_cmpuint(result.exp.context_id, ==, 77);
    g_assert_cmpuint(result.exp.info.size, ==, 1024 * 1024);
    g_assert_cmpuint(result.exp.info.flags, ==, FLAGS);
    g_assert_cmpuint(result.exp.info.min_block, ==, 512);
    assert_sent(&result, "11 8 10 7");
}

static void
test_extended_server(void *arg)
{
    const BfNbdcTarget target = plain_target();
    g_autoptr(GByteArray) script = script_extended();
    g_auto(Result) result = co_negotiate(script, script->len, &target);

    g_assert_no_error(result.error);
    g_assert_true(result.exp.structured);
    g_assert_true(result.exp.extended);
    g_assert_true(result.exp.has_context);
    assert_sent(&result, "11 10 7");
}

/* Whatever the reason: structured replies may do. */
static void
test_extended_headers_may_be_refused(void *arg)
{
    static const uint32_t types[] = {
        BF_NBD_REPLY_ERR_UNSUP,        BF_NBD_REPLY_ERR_POLICY,
        BF_NBD_REPLY_ERR_INVALID,      BF_NBD_REPLY_ERR_PLATFORM,
        BF_NBD_REPLY_ERR_TOO_BIG,      BF_NBD_REPLY_ERR_UNKNOWN,
        BF_NBD_REPLY_ERROR_BIT | 4711,
    };
    const BfNbdcTarget target = plain_target();

    for (unsigned i = 0; i < G_N_ELEMENTS(types); i++) {
        g_autoptr(GByteArray) script = script_new(3);
        g_auto(Result) result = {.sent = NULL};

        refuse(script, BF_NBD_OPTION_EXTENDED_HEADERS, types[i], "no");
        ack(script, BF_NBD_OPTION_STRUCTURED_REPLY);
        ack(script, BF_NBD_OPTION_SET_META_CONTEXT);
        info_export(script, 4096, FLAGS);
        ack(script, BF_NBD_OPTION_GO);
        result = co_negotiate(script, script->len, &target);
        g_assert_no_error(result.error);
        g_assert_true(result.exp.structured);
        g_assert_false(result.exp.extended);
        assert_sent(&result, "11 8 10 7");
    }
}

/* EXPORT_NAME is not allowed any more. */
static void
test_extended_server_without_go(void *arg)
{
    const BfNbdcTarget target = plain_target();
    GByteArray *script = script_new(3);

    ack(script, BF_NBD_OPTION_EXTENDED_HEADERS);
    ack(script, BF_NBD_OPTION_SET_META_CONTEXT);
    refuse(script, BF_NBD_OPTION_GO, BF_NBD_REPLY_ERR_UNSUP, "");
    co_assert_fails(script, &target, "11 10 7 2",
                    "agrees to extended headers*option 7 (go)");
}

static void
co_assert_truncations_fail(GByteArray *script)
{
    const BfNbdcTarget target = plain_target();

    for (size_t len = 0; len < script->len; len++) {
        g_auto(Result) result = co_negotiate(script, len, &target);

        g_assert_false(result.ok);
    }
    g_byte_array_unref(script);
}

static void
test_every_truncation_fails(void *arg)
{
    co_assert_truncations_fail(script_good());
    co_assert_truncations_fail(script_extended());
}

/* Whatever a byte is changed to: an answer or an error, nothing worse. */
static void
co_change_bytes(GByteArray *script)
{
    const BfNbdcTarget target = plain_target();

    for (size_t i = 0; i < script->len; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            script->data[i] ^= (uint8_t)(1u << bit);
            {
                g_auto(Result) result =
                    co_negotiate(script, script->len, &target);

                g_assert_true(!result.ok || result.exp.info.size <= INT64_MAX);
            }
            script->data[i] ^= (uint8_t)(1u << bit);
        }
    }
    g_byte_array_unref(script);
}

static void
test_every_changed_byte_is_survived(void *arg)
{
    co_change_bytes(script_good());
    co_change_bytes(script_extended());
}

static void
test_simple_server(void *arg)
{
    const BfNbdcTarget target = plain_target();
    g_autoptr(GByteArray) script = script_plain();

    refuse(script, BF_NBD_OPTION_STRUCTURED_REPLY, BF_NBD_REPLY_ERR_UNSUP, "");
    info_export(script, 1000, FLAGS);
    ack(script, BF_NBD_OPTION_GO);
    {
        g_auto(Result) result = co_negotiate(script, script->len, &target);

        g_assert_no_error(result.error);
        g_assert_false(result.exp.structured);
        g_assert_false(result.exp.has_context);
        g_assert_cmpuint(result.exp.info.min_block, ==, 0);
        assert_sent(&result, "11 8 7");
    }
}

static void
append_list_and_name(GByteArray *script, const char *listed, bool zeroes)
{
    const BfNbdExportInfo info = {.size = 4096, .flags = FLAGS};
    uint8_t answer[BF_NBD_EXPORT_NAME_REPLY_BYTES];
    const uint8_t padding[BF_NBD_EXPORT_NAME_ZEROES_BYTES] = {0};
    g_autoptr(GByteArray) entry = g_byte_array_new();

    refuse(script, BF_NBD_OPTION_EXTENDED_HEADERS, BF_NBD_REPLY_ERR_UNSUP, "");
    refuse(script, BF_NBD_OPTION_STRUCTURED_REPLY, BF_NBD_REPLY_ERR_UNSUP, "");
    refuse(script, BF_NBD_OPTION_GO, BF_NBD_REPLY_ERR_UNSUP, "what?");
    bf_nbd_append_server(
        entry, (BfNbdString){.data = listed, .len = (uint32_t)strlen(listed)},
        NULL);
    reply(script, BF_NBD_OPTION_LIST, BF_NBD_REPLY_SERVER, entry->data,
          entry->len);
    ack(script, BF_NBD_OPTION_LIST);
    bf_nbd_put_export_name_reply(answer, &info);
    g_byte_array_append(script, answer, sizeof(answer));
    if (zeroes) {
        g_byte_array_append(script, padding, sizeof(padding));
    }
}

static void
test_server_without_go(void *arg)
{
    const BfNbdcTarget target = plain_target();

    for (unsigned zeroes = 0; zeroes < 2; zeroes++) {
        g_autoptr(GByteArray) script = script_new(zeroes ? 1 : 3);
        g_auto(Result) result = {.sent = NULL};

        append_list_and_name(script, "disk", zeroes);
        result = co_negotiate(script, script->len, &target);
        g_assert_no_error(result.error);
        g_assert_cmpuint(result.exp.info.size, ==, 4096);
        assert_sent(&result, "11 8 7 3 1");
    }
}

static void
test_export_that_is_not_listed(void *arg)
{
    const BfNbdcTarget target = plain_target();
    GByteArray *script = script_new(3);

    append_list_and_name(script, "disk2", false);
    co_assert_fails(script, &target, "11 8 7 3 2",
                    "Requested export not available: 'disk'");
}

static void
test_server_that_cannot_haggle(void *arg)
{
    const BfNbdExportInfo info = {.size = 4096, .flags = FLAGS};
    BfNbdcTarget target = plain_target();
    g_autoptr(GByteArray) script = script_new(2);
    uint8_t answer[BF_NBD_EXPORT_NAME_REPLY_BYTES];

    bf_nbd_put_export_name_reply(answer, &info);
    g_byte_array_append(script, answer, sizeof(answer));
    {
        g_auto(Result) result = co_negotiate(script, script->len, &target);

        g_assert_no_error(result.error);
        g_assert_cmpuint(result.exp.info.size, ==, 4096);
        assert_sent(&result, "1");
    }
    target.context_required = true;
    co_assert_fails(g_byte_array_ref(script), &target, "",
                    "does not support fixed newstyle*x-dirty-bitmap");
}

static void
test_greetings_that_are_none(void *arg)
{
    const BfNbdcTarget target = plain_target();
    GByteArray *script = script_new(3);

    bf_put_be64(script->data + 8, BF_NBD_OLDSTYLE_MAGIC);
    co_assert_fails(script, &target, NULL, "oldstyle");
    script = g_byte_array_new();
    g_byte_array_append(script, (const guint8 *)"HTTP/1.1 400 Bad Request\r\n",
                        26);
    co_assert_fails(script, &target, NULL,
                    "not that of an NBD server (0x485454502f312e31");
    script = g_byte_array_new();
    co_assert_fails(script, &target, NULL,
                    "closed the connection before the greeting");
}

static void
test_tls_is_never_given_up(void *arg)
{
    BfNbdcTarget target = plain_target();
    GByteArray *script = script_new(3);

    target.creds = GINT_TO_POINTER(1); /* never used: the server refuses */
    refuse(script, BF_NBD_OPTION_STARTTLS, BF_NBD_REPLY_ERR_POLICY,
           "TLS not configured");
    co_assert_fails(script, &target, "5 2",
                    "Denied by server for option 5 (starttls); nothing is "
                    "sent without TLS*tls-creds*(server reported: TLS not "
                    "configured)");
    script = script_new(3);
    refuse(script, BF_NBD_OPTION_STARTTLS, BF_NBD_REPLY_ERR_UNSUP, "");
    co_assert_fails(script, &target, "5 2", "not supported; nothing is sent");
    co_assert_fails(script_new(0), &target, "", "fixed newstyle*TLS needs");
}

static const BfChannelOps *memory_ops;

/* The greeting's answer gets through, no option does. */
static ssize_t
co_write_flags_only(BfChannel *channel, const struct iovec *iov, int niov,
                    GError **error)
{
    if (iov->iov_len > 4) {
        bf_set_error(error, "nobody listens");
        return -1;
    }
    return memory_ops->co_writev(channel, iov, niov, error);
}

static ssize_t
co_read_reason(BfChannel *channel, const struct iovec *iov, int niov,
               GError **error)
{
    ssize_t n = memory_ops->co_readv(channel, iov, niov, error);

    if (n == 0) {
        bf_set_error(error, "the peer gave up with alert");
        return -1;
    }
    return n;
}

static void
test_server_that_is_gone_has_told_why(void *arg)
{
    const BfNbdcTarget target = plain_target();
    g_autoptr(GByteArray) script = script_new(3);
    g_auto(Result) result = {.sent = g_byte_array_new()};
    BfChannel *channel = bf_channel_memory_new(script, result.sent, 7);
    BfChannelOps ops = *channel->ops;

    memory_ops = channel->ops;
    ops.co_writev = co_write_flags_only;
    ops.co_readv = co_read_reason;
    channel->ops = &ops;
    g_assert_false(
        bf_nbdc_co_negotiate(&channel, &target, &result.exp, &result.error));
    bf_channel_free(channel);
    g_assert_cmpstr(result.error->message, ==,
                    "NBD server 'test': Failed to read the reply to option 11 "
                    "(extended headers): the peer gave up with alert");
}

static void
test_server_that_requires_tls(void *arg)
{
    const BfNbdcTarget target = plain_target();
    GByteArray *script = script_new(3);

    refuse(script, BF_NBD_OPTION_EXTENDED_HEADERS, BF_NBD_REPLY_ERR_TLS_REQD,
           "no");
    refuse(script, BF_NBD_OPTION_STRUCTURED_REPLY, BF_NBD_REPLY_ERR_TLS_REQD,
           "no");
    refuse(script, BF_NBD_OPTION_GO, BF_NBD_REPLY_ERR_TLS_REQD, "no\nway\x01");
    co_assert_fails(script, &target, "11 8 7 2",
                    "TLS negotiation required before option 7 (go): the "
                    "server requires TLS; give tls-creds*(server reported: "
                    "no way)");
}

static void
test_refusals_of_go(void *arg)
{
    static const struct {
        uint32_t type;
        const char *text;
    } cases[] = {
        {BF_NBD_REPLY_ERR_UNKNOWN, "Requested export not available: 'disk'"},
        {BF_NBD_REPLY_ERR_POLICY, "Denied by server for option 7 (go)"},
        {BF_NBD_REPLY_ERR_SHUTDOWN, "option 7 (go): server shutting down"},
        {BF_NBD_REPLY_ERR_BLOCK_SIZE_REQD, "option 7 (go): block size"},
        {BF_NBD_REPLY_ERROR_BIT | 4711, "option 7 (go): an unknown error"},
    };
    const BfNbdcTarget target = plain_target();

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        GByteArray *script = script_until_go();

        refuse(script, BF_NBD_OPTION_GO, cases[i].type, "because");
        co_assert_fails(script, &target, "11 8 10 7 2", cases[i].text);
    }
}

static void
test_replies_out_of_place(void *arg)
{
    const BfNbdcTarget target = plain_target();
    GByteArray *script = script_until_go();

    ack(script, BF_NBD_OPTION_GO);
    co_assert_fails(script, &target, "11 8 10 7", "without telling size");
    script = script_until_go();
    ack(script, BF_NBD_OPTION_LIST);
    co_assert_fails(script, &target, "11 8 10 7", "is for option 3 instead");
    script = script_until_go();
    reply(script, BF_NBD_OPTION_GO, BF_NBD_REPLY_SERVER, "x", 1);
    co_assert_fails(script, &target, "11 8 10 7 2",
                    "unexpected reply of type 2");
    script = script_until_go();
    reply(script, BF_NBD_OPTION_GO, BF_NBD_REPLY_ACK, "x", 1);
    co_assert_fails(script, &target, "11 8 10 7 2", "with 1 bytes of data");
    script = script_new(3);
    reply(script, BF_NBD_OPTION_EXTENDED_HEADERS, BF_NBD_REPLY_INFO, "x", 1);
    co_assert_fails(script, &target, "11 2", "unexpected reply of type 3");
    script = script_new(3);
    reply(script, BF_NBD_OPTION_EXTENDED_HEADERS, BF_NBD_REPLY_ACK, "x", 1);
    co_assert_fails(script, &target, "11 2", "with 1 bytes of data");
    script = script_plain();
    reply(script, BF_NBD_OPTION_STRUCTURED_REPLY, BF_NBD_REPLY_INFO, "x", 1);
    co_assert_fails(script, &target, "11 8 2", "unexpected reply of type 3");
    script = script_until_go();
    reply(script, BF_NBD_OPTION_GO, BF_NBD_REPLY_INFO, "x", 1);
    co_assert_fails(script, &target, "11 8 10 7 2", "wrong length of 1");
}

static void
test_endless_replies_end(void *arg)
{
    const BfNbdcTarget target = plain_target();
    GByteArray *script = script_until_go();
    g_autofree char *text = g_strnfill(60000, 'x');

    for (unsigned i = 0; i < 100; i++) {
        info_export(script, 4096, FLAGS);
    }
    co_assert_fails(script, &target, NULL, "more than 64 replies");
    script = script_plain();
    refuse(script, BF_NBD_OPTION_STRUCTURED_REPLY, BF_NBD_REPLY_ERR_UNSUP,
           text);
    refuse(script, BF_NBD_OPTION_GO, BF_NBD_REPLY_ERR_POLICY, text);
    co_assert_fails(script, &target, NULL, "(server reported: xxxxx");
    /* A length that nobody means; nothing is allocated for it. */
    script = script_until_go();
    reply(script, BF_NBD_OPTION_GO, BF_NBD_REPLY_INFO, NULL, 0);
    bf_put_be32(script->data + script->len - 4, UINT32_MAX);
    co_assert_fails(script, &target, NULL, "too long: 4294967295 bytes");
}

static void
test_contexts_that_were_not_asked_for(void *arg)
{
    BfNbdcTarget target = plain_target();
    GByteArray *script = script_plain();

    ack(script, BF_NBD_OPTION_STRUCTURED_REPLY);
    context(script, 1, "qemu:dirty-bitmap:x");
    co_assert_fails(script, &target, NULL,
                    "'qemu:dirty-bitmap:x' instead of 'base:allocation'");
    script = script_plain();
    ack(script, BF_NBD_OPTION_STRUCTURED_REPLY);
    context(script, 1, "base:allocation");
    context(script, 2, "base:allocation");
    co_assert_fails(script, &target, NULL, "more than the one");
    script = script_plain();
    ack(script, BF_NBD_OPTION_STRUCTURED_REPLY);
    ack(script, BF_NBD_OPTION_SET_META_CONTEXT);
    info_export(script, 4096, FLAGS);
    ack(script, BF_NBD_OPTION_GO);
    target.context_required = true;
    co_assert_fails(script, &target, NULL,
                    "no metadata context 'base:allocation'*x-dirty-bitmap");
}

static void
test_exports_that_make_no_sense(void *arg)
{
    static const struct {
        uint32_t min, preferred, max;
    } blocks[] = {
        {0, 4096, 65536},  {3, 4096, 65536},   {131072, 131072, 1 << 20},
        {512, 256, 65536}, {512, 1000, 65536}, {512, 512, 256},
        {512, 0, 65536},
    };
    const BfNbdcTarget target = plain_target();
    GByteArray *script = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(blocks); i++) {
        script = script_until_go();
        info_export(script, 1 << 20, FLAGS);
        info_blocks(script, blocks[i].min, blocks[i].preferred, blocks[i].max);
        co_assert_fails(script, &target, NULL, "the server's * block of");
    }
    script = script_until_go();
    info_export(script, 1000, FLAGS);
    info_blocks(script, 512, 4096, 65536);
    ack(script, BF_NBD_OPTION_GO);
    co_assert_fails(script, &target, NULL, "1000 bytes is no multiple");
    script = script_until_go();
    info_export(script, 4096, 0);
    ack(script, BF_NBD_OPTION_GO);
    co_assert_fails(script, &target, NULL, "transmission flags 0x0000");
    script = script_until_go();
    info_export(script, UINT64_MAX, FLAGS);
    ack(script, BF_NBD_OPTION_GO);
    co_assert_fails(script, &target, NULL, "too large");
}

static void
test_text_of_servers_is_cleaned(void)
{
    static const struct {
        const char *text;
        const char *clean;
    } cases[] = {
        {"plain", "plain"},
        {"", NULL},
        {"\n\t ", NULL},
        {"a\x1b[2Jb", "a [2Jb"},
        {"\xff\xfe", "\xef\xbf\xbd\xef\xbf\xbd"},
        {" x\n", "x"},
    };
    g_autofree char *hundreds = g_strnfill(1000, 'y');
    g_autofree char *cut = bf_nbdc_clean_text(hundreds, 1000);

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *clean =
            bf_nbdc_clean_text(cases[i].text, strlen(cases[i].text));

        g_assert_cmpstr(clean, ==, cases[i].clean);
    }
    g_assert_cmpuint(strlen(cut), ==, 200);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    bf_test_add("/block/nbd-negotiate/good-server", test_good_server);
    bf_test_add("/block/nbd-negotiate/extended-server", test_extended_server);
    bf_test_add("/block/nbd-negotiate/extended-headers-may-be-refused",
                test_extended_headers_may_be_refused);
    bf_test_add("/block/nbd-negotiate/extended-server-without-go",
                test_extended_server_without_go);
    bf_test_add("/block/nbd-negotiate/every-truncation-fails",
                test_every_truncation_fails);
    bf_test_add("/block/nbd-negotiate/every-changed-byte-is-survived",
                test_every_changed_byte_is_survived);
    bf_test_add("/block/nbd-negotiate/simple-server", test_simple_server);
    bf_test_add("/block/nbd-negotiate/server-without-go",
                test_server_without_go);
    bf_test_add("/block/nbd-negotiate/export-that-is-not-listed",
                test_export_that_is_not_listed);
    bf_test_add("/block/nbd-negotiate/server-that-cannot-haggle",
                test_server_that_cannot_haggle);
    bf_test_add("/block/nbd-negotiate/greetings-that-are-none",
                test_greetings_that_are_none);
    bf_test_add("/block/nbd-negotiate/tls-is-never-given-up",
                test_tls_is_never_given_up);
    bf_test_add("/block/nbd-negotiate/server-that-is-gone-has-told-why",
                test_server_that_is_gone_has_told_why);
    bf_test_add("/block/nbd-negotiate/server-that-requires-tls",
                test_server_that_requires_tls);
    bf_test_add("/block/nbd-negotiate/refusals-of-go", test_refusals_of_go);
    bf_test_add("/block/nbd-negotiate/replies-out-of-place",
                test_replies_out_of_place);
    bf_test_add("/block/nbd-negotiate/endless-replies-end",
                test_endless_replies_end);
    bf_test_add("/block/nbd-negotiate/contexts-that-were-not-asked-for",
                test_contexts_that_were_not_asked_for);
    bf_test_add("/block/nbd-negotiate/exports-that-make-no-sense",
                test_exports_that_make_no_sense);
    g_test_add_func("/block/nbd-negotiate/text-of-servers-is-cleaned",
                    test_text_of_servers_is_cleaned);
    return g_test_run();
}
