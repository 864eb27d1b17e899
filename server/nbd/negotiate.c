/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From the greeting to the choice of an export (NBD proto.md, Handshake phase).
 *
 * What a client sends behind GO is for the request loop, in the channel or read
 * ahead. On main only what is quick is done: an option that may not be is left
 * for a worker, where the same code goes on with it.
 */
#include <stdarg.h>
#include <string.h>

#include "core/error.h"
#include "core/util.h"
#include "io/channel-tls.h"
#include "nbd-private.h"

#define HANDSHAKE_FLAGS (BF_NBD_HANDSHAKE_FIXED | BF_NBD_HANDSHAKE_NO_ZEROES)

/* Payloads that are dropped go through a buffer of this size. */
#define SKIP_BYTES 4096

static const char shutdown_text[] = "the server is shutting down";

/* What happens after an option. */
typedef enum BfNbdStep {
    BF_NBD_STEP_NEXT,   /* the next option */
    BF_NBD_STEP_READY,  /* transmission */
    BF_NBD_STEP_MOVE,   /* the option is for another loop */
    BF_NBD_STEP_CLOSE,  /* in due form */
    BF_NBD_STEP_FAILED, /* the error is set */
} BfNbdStep;

/* Also how a client looks that was refused what it wants, and gives up. */
static void
connection_broke(BfNbdClient *client)
{
    if (client->refused == NULL) {
        client->reason = BF_NBD_CLIENT_REJECT_REASON_CONNECTION;
    }
}

/* Reading and writing while main may see whose turn it is. */
static BfReadStatus
nego_co_read_exact(BfNbdClient *client, void *buf, size_t len, GError **error)
{
    BfReadStatus status = BF_READ_FAILED;

    bf_peer_wait_begin(&client->wait, bf_loop_now_ns());
    status = bf_nbd_ahead_co_read_exact(client, buf, len, error);
    bf_peer_wait_end(&client->wait);
    return status;
}

static bool
nego_co_write_all(BfNbdClient *client, const void *buf, size_t len,
                  GError **error)
{
    bool ok = false;

    bf_peer_wait_begin(&client->wait, bf_loop_now_ns());
    ok = bf_channel_co_write_all(client->channel, buf, len, error);
    bf_peer_wait_end(&client->wait);
    return ok;
}

/* Reads a piece that must be there. */
static bool
nego_co_read(BfNbdClient *client, void *buf, size_t len, GError **error)
{
    if (len == 0) {
        return true;
    }
    switch (nego_co_read_exact(client, buf, len, error)) {
    case BF_READ_DONE:
        client->spoke = true;
        return true;
    case BF_READ_EOF:
        bf_set_error(error, "the peer closed the connection");
        break;
    case BF_READ_FAILED:
        break;
    }
    connection_broke(client);
    return false;
}

static bool
nego_co_skip(BfNbdClient *client, uint32_t len, GError **error)
{
    uint8_t buf[SKIP_BYTES];

    while (len > 0) {
        uint32_t piece = MIN(len, sizeof(buf));

        if (!nego_co_read(client, buf, piece, error)) {
            return false;
        }
        len -= piece;
    }
    return true;
}

void
bf_nbd_negotiate_add_reply(GByteArray *out, uint32_t option, BfNbdReply type,
                           const void *data, size_t len)
{
    uint8_t header[BF_NBD_OPTION_REPLY_BYTES];

    bf_nbd_put_option_reply(
        header, &(BfNbdOptionReply){
                    .option = option, .type = type, .length = (uint32_t)len});
    g_byte_array_append(out, header, sizeof(header));
    g_byte_array_append(out, data, len);
}

void
bf_nbd_negotiate_add_error(GByteArray *out, uint32_t option, BfNbdReply type,
                           const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list args;

    va_start(args, format);
    text = g_strdup_vprintf(format, args);
    va_end(args);
    bf_nbd_negotiate_add_reply(out, option, type, text, strlen(text));
}

void
bf_nbd_negotiate_add_absent(const BfNbdClient *client, GByteArray *out,
                            uint32_t option, BfNbdString name)
{
    if (client->leaving) {
        bf_nbd_negotiate_add_error(out, option, BF_NBD_REPLY_ERR_SHUTDOWN, "%s",
                                   shutdown_text);
    } else {
        g_autofree char *shown = bf_nbd_show_text(name);

        bf_nbd_negotiate_add_error(out, option, BF_NBD_REPLY_ERR_UNKNOWN,
                                   "export '%s' not present", shown);
    }
}

static BfNbdStep
nego_co_send(BfNbdClient *client, const GByteArray *out, GError **error)
{
    if (!nego_co_write_all(client, out->data, out->len, error)) {
        connection_broke(client);
        return BF_NBD_STEP_FAILED;
    }
    return BF_NBD_STEP_NEXT;
}

static BfNbdStep
nego_co_ack(BfNbdClient *client, uint32_t option, GError **error)
{
    g_autoptr(GByteArray) out = g_byte_array_new();

    bf_nbd_negotiate_add_reply(out, option, BF_NBD_REPLY_ACK, NULL, 0);
    return nego_co_send(client, out, error);
}

/* Drops the payload and refuses the option. */
static BfNbdStep
nego_co_refuse(BfNbdClient *client, const BfNbdOptionHeader *header,
               BfNbdReply type, const char *text, GError **error)
{
    g_autoptr(GByteArray) out = g_byte_array_new();

    if (!nego_co_skip(client, header->length, error)) {
        return BF_NBD_STEP_FAILED;
    }
    bf_nbd_negotiate_add_reply(out, header->option, type, text, strlen(text));
    return nego_co_send(client, out, error);
}

/* For options that have no payload. */
static BfNbdStep
nego_co_refuse_length(BfNbdClient *client, const BfNbdOptionHeader *header,
                      GError **error)
{
    g_autofree char *text = g_strdup_printf("option '%s' has unexpected length",
                                            bf_nbd_option_name(header->option));

    return nego_co_refuse(client, header, BF_NBD_REPLY_ERR_INVALID, text,
                          error);
}

static BfNbdStep
nego_co_abort(BfNbdClient *client, const BfNbdOptionHeader *header)
{
    /* Best effort: the peer may be gone already. */
    if (nego_co_ack(client, header->option, NULL) == BF_NBD_STEP_NEXT) {
        bf_channel_co_bye(client->channel);
        /* A close with unread bytes could destroy the reply on its way. */
        nego_co_skip(client, header->length, NULL);
    }
    return BF_NBD_STEP_CLOSE;
}

static BfNbdStep
nego_co_list(BfNbdClient *client, const BfNbdOptionHeader *header,
             GError **error)
{
    g_autoptr(GByteArray) out = NULL;
    uint64_t cursor = 0;

    if (header->length > 0) {
        return nego_co_refuse_length(client, header, error);
    }
    out = g_byte_array_new();
    while (bf_nbd_server_co_list(client, &cursor, out)) {
        if (nego_co_send(client, out, error) != BF_NBD_STEP_NEXT) {
            return BF_NBD_STEP_FAILED;
        }
        g_byte_array_set_size(out, 0);
    }
    bf_nbd_negotiate_add_reply(out, header->option, BF_NBD_REPLY_ACK, NULL, 0);
    return nego_co_send(client, out, error);
}

/* RFC 3207, section 6, for all such protocols: nothing that was negotiated in
 * plain text survives. */
static void
forget_state(BfNbdClient *client)
{
    client->structured = false;
    client->extended = false;
    bf_nbd_meta_clear(client);
}

static BfNbdClientTls *
describe_tls(BfChannel *channel)
{
    const BfTlsSession *session = bf_channel_tls_get_session(channel);
    const char *library = bf_tls_session_get_cipher_library(session);
    BfNbdClientTls *info = bf_type_new(&bf_nbd_client_tls_type);
    int records = BF_NBD_TLS_RECORDS_GNUTLS;

    bf_enum_parse(&bf_nbd_tls_records_enum, bf_tls_session_get_records(session),
                  &records);
    info->version = g_strdup(bf_tls_session_get_version(session));
    info->cipher = g_strdup(bf_tls_session_get_cipher(session));
    info->records = (BfNbdTlsRecords)records;
    if (strcmp(library, "gnutls") != 0) {
        info->cipher_library = g_strdup(library);
    }
    info->name = g_strdup(bf_tls_session_get_peer_label(session));
    info->proved = bf_tls_session_get_identity(session) != NULL;
    return info;
}

/* The handshake, and whether the server wants to have to do with this peer. */
static bool
nego_co_secure(BfNbdClient *client, BfTlsCreds *creds, GError **error)
{
    const BfTlsGuest guest = {
        .flow = bf_nbd_client_flow(client),
        .wait = &client->wait,
    };
    BfTlsRefusal refusal = {0};

    client->stage = "TLS handshake";
    client->reason = BF_NBD_CLIENT_REJECT_REASON_TLS_HANDSHAKE;
    /* @channel stays set meanwhile, so that it can be shut down. */
    client->channel = bf_channel_tls_co_accept(client->channel, creds, &guest,
                                               &refusal, error);
    if (client->channel == NULL) {
        client->spoke |= refusal.heard;
        client->label = refusal.name;
        if (!refusal.in_handshake) {
            client->reason = BF_NBD_CLIENT_REJECT_REASON_CERTIFICATE;
        }
        return false;
    }
    client->spoke = true;
    client->tls_text = bf_channel_tls_describe(client->channel);
    client->tls_info = describe_tls(client->channel);
    client->identity = g_strdup(bf_channel_tls_get_identity(client->channel));
    client->label = g_strdup(bf_channel_tls_get_label(client->channel));
    client->stage = "authorization";
    client->reason = BF_NBD_CLIENT_REJECT_REASON_AUTHORIZATION;
    if (!bf_nbd_rights_co_admit(client, error)) {
        bf_channel_tls_co_deny(client->channel);
        return false;
    }
    client->tls = true;
    client->reason = BF_NBD_CLIENT_REJECT_REASON_PROTOCOL;
    return true;
}

static BfNbdStep
nego_co_starttls(BfNbdClient *client, const BfNbdOptionHeader *header,
                 GError **error)
{
    BfTlsCreds *creds = client->listener->tls_creds;

    if (header->length > 0) {
        return nego_co_refuse_length(client, header, error);
    }
    if (creds == NULL) {
        client->reason = BF_NBD_CLIENT_REJECT_REASON_TLS_UNAVAILABLE;
        client->refused = "it wants TLS, for which this server was not given "
                          "credentials; start the server with tls-creds, or "
                          "the client without TLS";
        return nego_co_refuse(client, header, BF_NBD_REPLY_ERR_POLICY,
                              "TLS not configured", error);
    }
    if (client->tls) {
        return nego_co_refuse(client, header, BF_NBD_REPLY_ERR_INVALID,
                              "TLS already enabled", error);
    }
    if (nego_co_ack(client, header->option, error) != BF_NBD_STEP_NEXT) {
        return BF_NBD_STEP_FAILED;
    }
    forget_state(client);
    return nego_co_secure(client, creds, error) ? BF_NBD_STEP_NEXT
                                                : BF_NBD_STEP_FAILED;
}

static BfNbdStep
nego_co_structured(BfNbdClient *client, const BfNbdOptionHeader *header,
                   GError **error)
{
    if (header->length > 0) {
        return nego_co_refuse_length(client, header, error);
    }
    if (client->extended) {
        return nego_co_refuse(client, header, BF_NBD_REPLY_ERR_EXT_HEADER_REQD,
                              "extended headers already negotiated", error);
    }
    if (client->structured) {
        return nego_co_refuse(client, header, BF_NBD_REPLY_ERR_INVALID,
                              "structured reply already negotiated", error);
    }
    client->structured = true;
    return nego_co_ack(client, header->option, error);
}

/* Includes structured replies, whether they were negotiated or not. */
static BfNbdStep
nego_co_extended(BfNbdClient *client, const BfNbdOptionHeader *header,
                 GError **error)
{
    if (header->length > 0) {
        return nego_co_refuse_length(client, header, error);
    }
    if (client->extended) {
        return nego_co_refuse(client, header, BF_NBD_REPLY_ERR_INVALID,
                              "extended headers already negotiated", error);
    }
    client->extended = true;
    client->structured = true;
    return nego_co_ack(client, header->option, error);
}

/* Adjusts what main said of @name to what this connection has negotiated. Who
 * only asks what there is learns of all that extended headers bring. */
static void
apply_session(const BfNbdClient *client, uint32_t option, BfNbdString name,
              BfNbdExportAnswer *answer)
{
    if (client->structured) {
        answer->info.flags |= BF_NBD_EXPORT_DF;
    }
    if (client->extended &&
        (option == BF_NBD_OPTION_INFO ||
         (bf_nbd_meta_count(client) > 0 &&
          bf_nbd_meta_is_for(client, name, answer->contexts->list)))) {
        answer->info.flags |= BF_NBD_EXPORT_BLOCK_STATUS_PAYLOAD;
    }
}

/* Has the client asked for block sizes, which it keeps to then? */
static bool
asked(const BfNbdGoRequest *request)
{
    return (request->wanted & (1u << BF_NBD_INFO_BLOCK_SIZE)) != 0;
}

static void
add_info(GByteArray *out, uint32_t option, const BfNbdGoRequest *request,
         const BfNbdExportAnswer *answer)
{
    BfNbdExportInfo info = answer->info;
    uint8_t size[BF_NBD_INFO_EXPORT_BYTES];
    uint8_t block[BF_NBD_INFO_BLOCK_SIZE_BYTES];

    if ((request->wanted & (1u << BF_NBD_INFO_NAME)) != 0) {
        g_autoptr(GByteArray) text = g_byte_array_new();

        bf_nbd_append_info_text(text, BF_NBD_INFO_NAME, request->name);
        bf_nbd_negotiate_add_reply(out, option, BF_NBD_REPLY_INFO, text->data,
                                   text->len);
    }
    if (answer->description != NULL) {
        g_autoptr(GByteArray) text = g_byte_array_new();
        BfNbdString description = {.data = answer->description,
                                   .len = strlen(answer->description)};

        bf_nbd_append_info_text(text, BF_NBD_INFO_DESCRIPTION, description);
        bf_nbd_negotiate_add_reply(out, option, BF_NBD_REPLY_INFO, text->data,
                                   text->len);
    }
    /* Who does not ask does not align; we do it for him. */
    if (!asked(request)) {
        info.min_block = 1;
    }
    bf_nbd_put_info_block_size(block, &info);
    bf_nbd_negotiate_add_reply(out, option, BF_NBD_REPLY_INFO, block,
                               sizeof(block));
    bf_nbd_put_info_export(size, &info);
    bf_nbd_negotiate_add_reply(out, option, BF_NBD_REPLY_INFO, size,
                               sizeof(size));
    bf_nbd_negotiate_add_reply(out, option, BF_NBD_REPLY_ACK, NULL, 0);
}

/* INFO and GO. */
static BfNbdStep
nego_co_go(BfNbdClient *client, uint32_t option, const void *data, size_t len,
           GByteArray *out)
{
    g_autoptr(GError) invalid = NULL;
    g_auto(BfNbdExportAnswer) answer = {0};
    BfNbdGoRequest request;

    if (!bf_nbd_parse_go(option, data, len, &request, &invalid)) {
        bf_nbd_negotiate_add_error(out, option, BF_NBD_REPLY_ERR_INVALID, "%s",
                                   invalid->message);
        return BF_NBD_STEP_NEXT;
    }
    bf_nbd_server_co_ask(client, request.name, option == BF_NBD_OPTION_GO,
                         &answer);
    if (!answer.found) {
        bf_nbd_negotiate_add_absent(client, out, option, request.name);
        return BF_NBD_STEP_NEXT;
    }
    apply_session(client, option, request.name, &answer);
    add_info(out, option, &request, &answer);
    if (option == BF_NBD_OPTION_INFO) {
        return BF_NBD_STEP_NEXT;
    }
    bf_nbd_meta_bind(client, request.name, answer.contexts->list);
    client->unaligned_bits = asked(&request) ? answer.info.min_block - 1 : 0;
    return BF_NBD_STEP_READY;
}

/* Options whose payload is parsed as a whole, of a length that is fine. */
static BfNbdStep
nego_co_parsed_option(BfNbdClient *client, const BfNbdOptionHeader *header,
                      GError **error)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    g_autofree uint8_t *data = NULL;
    BfNbdStep step = BF_NBD_STEP_NEXT;

    /* One more: a payload of nothing has an address too. */
    data = g_malloc(header->length + 1);
    if (!nego_co_read(client, data, header->length, error)) {
        return BF_NBD_STEP_FAILED;
    }
    if (header->option == BF_NBD_OPTION_INFO ||
        header->option == BF_NBD_OPTION_GO) {
        step = nego_co_go(client, header->option, data, header->length, out);
    } else {
        bf_nbd_meta_co_option(client, header->option, data, header->length,
                              out);
    }
    if (nego_co_send(client, out, error) != BF_NBD_STEP_NEXT) {
        return BF_NBD_STEP_FAILED;
    }
    return step;
}

static BfNbdStep
nego_co_payload_option(BfNbdClient *client, const BfNbdOptionHeader *header,
                       GError **error)
{
    BfBudget *large = &client->server->large_options;
    g_autofree char *text = NULL;
    BfNbdStep step = BF_NBD_STEP_FAILED;

    if (header->length <= NBD_OPTION_SMALL_MAX) {
        return nego_co_parsed_option(client, header, error);
    }
    if (header->length > NBD_OPTION_PARSE_MAX) {
        text = g_strdup_printf("option '%s' has more than %d bytes",
                               bf_nbd_option_name(header->option),
                               NBD_OPTION_PARSE_MAX);
    } else if (!bf_budget_try_take(large, 1)) {
        text = g_strdup_printf("option '%s' has more than %d bytes, as have "
                               "too many others at present",
                               bf_nbd_option_name(header->option),
                               NBD_OPTION_SMALL_MAX);
    }
    if (text != NULL) {
        return nego_co_refuse(client, header, BF_NBD_REPLY_ERR_TOO_BIG, text,
                              error);
    }
    step = nego_co_parsed_option(client, header, error);
    bf_budget_give_back(large, 1);
    return step;
}

/* The old way: no error can be told, only the connection closed. */
static BfNbdStep
nego_co_export_name(BfNbdClient *client, const BfNbdOptionHeader *header,
                    GError **error)
{
    uint8_t reply[BF_NBD_EXPORT_NAME_REPLY_BYTES +
                  BF_NBD_EXPORT_NAME_ZEROES_BYTES] = {0};
    char name[BF_NBD_STRING_MAX];
    BfNbdString wanted = {.data = name, .len = header->length};
    g_auto(BfNbdExportAnswer) answer = {0};

    if (client->extended) {
        bf_set_error(error, "option 'export name' after extended headers, "
                            "which leave only GO");
        return BF_NBD_STEP_FAILED;
    }
    if (header->length > sizeof(name)) {
        bf_set_error(error, "the name of the export has %u bytes",
                     header->length);
        return BF_NBD_STEP_FAILED;
    }
    if (!nego_co_read(client, name, header->length, error)) {
        return BF_NBD_STEP_FAILED;
    }
    bf_nbd_server_co_ask(client, wanted, true, &answer);
    if (!answer.found) {
        g_autofree char *shown = bf_nbd_show_text(wanted);

        client->reason = BF_NBD_CLIENT_REJECT_REASON_EXPORT_UNKNOWN;
        bf_set_error(error, "export '%s' not present", shown);
        return BF_NBD_STEP_FAILED;
    }
    apply_session(client, BF_NBD_OPTION_EXPORT_NAME, wanted, &answer);
    bf_nbd_put_export_name_reply(reply, &answer.info);
    if (!nego_co_write_all(client, reply,
                           client->no_zeroes ? BF_NBD_EXPORT_NAME_REPLY_BYTES
                                             : sizeof(reply),
                           error)) {
        connection_broke(client);
        return BF_NBD_STEP_FAILED;
    }
    bf_nbd_meta_bind(client, wanted, answer.contexts->list);
    return BF_NBD_STEP_READY;
}

/* Everything but STARTTLS and ABORT, while TLS is demanded and not up. */
static BfNbdStep
nego_co_refuse_before_tls(BfNbdClient *client, const BfNbdOptionHeader *header,
                          GError **error)
{
    g_autofree char *text =
        g_strdup_printf("Option 0x%x not permitted before TLS", header->option);

    client->reason = BF_NBD_CLIENT_REJECT_REASON_TLS_REQUIRED;
    client->refused = "it does not use TLS, which this server demands; give it "
                      "TLS credentials that fit those of the server";
    if (!client->fixed || header->option == BF_NBD_OPTION_EXPORT_NAME) {
        bf_set_error(error, "option '%s' before TLS, which this server demands",
                     bf_nbd_option_name(header->option));
        return BF_NBD_STEP_FAILED;
    }
    return nego_co_refuse(client, header, BF_NBD_REPLY_ERR_TLS_REQD, text,
                          error);
}

static BfNbdStep
nego_co_option(BfNbdClient *client, const BfNbdOptionHeader *header,
               GError **error)
{
    g_autofree char *text = NULL;

    switch (header->option) {
    case BF_NBD_OPTION_EXPORT_NAME:
        return nego_co_export_name(client, header, error);
    case BF_NBD_OPTION_ABORT:
        return nego_co_abort(client, header);
    case BF_NBD_OPTION_LIST:
        return nego_co_list(client, header, error);
    case BF_NBD_OPTION_STARTTLS:
        return nego_co_starttls(client, header, error);
    case BF_NBD_OPTION_STRUCTURED_REPLY:
        return nego_co_structured(client, header, error);
    case BF_NBD_OPTION_EXTENDED_HEADERS:
        return nego_co_extended(client, header, error);
    case BF_NBD_OPTION_INFO:
    case BF_NBD_OPTION_GO:
    case BF_NBD_OPTION_LIST_META_CONTEXT:
        return nego_co_payload_option(client, header, error);
    case BF_NBD_OPTION_SET_META_CONTEXT:
        if (client->structured) {
            return nego_co_payload_option(client, header, error);
        }
        bf_nbd_meta_clear(client);
        return nego_co_refuse(client, header, BF_NBD_REPLY_ERR_INVALID,
                              "request option 'set meta context' when "
                              "structured reply is not negotiated",
                              error);
    default:
        text = g_strdup_printf("Unsupported option %u (%s)", header->option,
                               bf_nbd_option_name(header->option));
        return nego_co_refuse(client, header, BF_NBD_REPLY_ERR_UNSUP, text,
                              error);
    }
}

/* Gets the next option, up to its payload, unless it is there already. */
static BfNbdStep
nego_co_header(BfNbdClient *client, GError **error)
{
    uint8_t buf[BF_NBD_OPTION_BYTES];

    if (client->has_option) {
        return BF_NBD_STEP_NEXT;
    }
    client->stage = "waiting for an option";
    switch (nego_co_read_exact(client, buf, sizeof(buf), error)) {
    case BF_READ_EOF:
        bf_channel_co_bye(client->channel);
        return BF_NBD_STEP_CLOSE;
    case BF_READ_FAILED:
        connection_broke(client);
        return BF_NBD_STEP_FAILED;
    case BF_READ_DONE:
        break;
    }
    if (!bf_nbd_parse_option(buf, &client->option)) {
        bf_set_error(error, "bad magic number of an option");
        return BF_NBD_STEP_FAILED;
    }
    client->has_option = true;
    return BF_NBD_STEP_NEXT;
}

/* May the option that has come keep main busy? A list may be long, and with
 * each query all names are compared. */
static bool
is_for_worker(BfNbdClient *client)
{
    const uint32_t option = client->option.option;

    return client->quick && !client->leaving && !client->closing &&
           (client->n_options++ >= NBD_QUICK_OPTIONS_MAX ||
            client->option.length > NBD_QUICK_BYTES_MAX ||
            option == BF_NBD_OPTION_LIST ||
            option == BF_NBD_OPTION_LIST_META_CONTEXT);
}

/* Reads the next option and does it. */
static BfNbdStep
nego_co_next(BfNbdClient *client, GError **error)
{
    BfNbdStep step = nego_co_header(client, error);
    BfNbdOptionHeader header;

    if (step != BF_NBD_STEP_NEXT) {
        return step;
    }
    if (is_for_worker(client)) {
        return BF_NBD_STEP_MOVE;
    }
    header = client->option;
    client->has_option = false;
    client->stage = bf_nbd_option_name(header.option);
    if (header.option != BF_NBD_OPTION_ABORT) {
        client->refused = NULL;
        client->reason = BF_NBD_CLIENT_REJECT_REASON_PROTOCOL;
    }
    if (header.length > BF_NBD_PAYLOAD_MAX) {
        bf_set_error(error, "option of %u bytes is longer than %u",
                     header.length, BF_NBD_PAYLOAD_MAX);
        return BF_NBD_STEP_FAILED;
    }
    if (client->leaving && client->fixed &&
        header.option != BF_NBD_OPTION_ABORT &&
        header.option != BF_NBD_OPTION_EXPORT_NAME) {
        return nego_co_refuse(client, &header, BF_NBD_REPLY_ERR_SHUTDOWN,
                              shutdown_text, error);
    }
    if (client->listener->tls_creds != NULL && !client->tls &&
        (!client->fixed || (header.option != BF_NBD_OPTION_STARTTLS &&
                            header.option != BF_NBD_OPTION_ABORT))) {
        return nego_co_refuse_before_tls(client, &header, error);
    }
    if (!client->fixed && header.option != BF_NBD_OPTION_EXPORT_NAME) {
        bf_set_error(error, "option %u from a client that cannot take replies",
                     header.option);
        return BF_NBD_STEP_FAILED;
    }
    return nego_co_option(client, &header, error);
}

static bool
nego_co_greet(BfNbdClient *client, GError **error)
{
    uint8_t greeting[BF_NBD_GREETING_BYTES];
    uint8_t answer[4];
    uint32_t flags;

    bf_nbd_put_greeting(greeting, HANDSHAKE_FLAGS);
    /* So little always fits into the buffer of a new socket. */
    if (!bf_channel_co_write_all(client->channel, greeting, sizeof(greeting),
                                 error) ||
        !nego_co_read(client, answer, sizeof(answer), error)) {
        return false;
    }
    flags = bf_get_be32(answer);
    if ((flags & ~(uint32_t)HANDSHAKE_FLAGS) != 0) {
        bf_set_error(error, "unknown client flags 0x%x", flags);
        return false;
    }
    client->fixed = (flags & BF_NBD_HANDSHAKE_FIXED) != 0;
    client->no_zeroes = (flags & BF_NBD_HANDSHAKE_NO_ZEROES) != 0;
    return true;
}

BfNbdOutcome
bf_nbd_negotiate_co_run(BfNbdClient *client, GError **error)
{
    const BfNbdListener *listener = client->listener;

    if (!client->greeted && listener->tls_creds != NULL &&
        listener->tls_mode == BF_NBD_TLS_MODE_IMMEDIATE &&
        !nego_co_secure(client, listener->tls_creds, error)) {
        return BF_NBD_OUTCOME_FAILED;
    }
    client->stage = "greeting";
    if (!client->greeted && !nego_co_greet(client, error)) {
        return BF_NBD_OUTCOME_FAILED;
    }
    client->greeted = true;
    for (;;) {
        switch (nego_co_next(client, error)) {
        case BF_NBD_STEP_NEXT:
            break;
        case BF_NBD_STEP_READY:
            return BF_NBD_OUTCOME_READY;
        case BF_NBD_STEP_MOVE:
            return BF_NBD_OUTCOME_MOVE;
        case BF_NBD_STEP_CLOSE:
            return BF_NBD_OUTCOME_CLOSE;
        case BF_NBD_STEP_FAILED:
            return BF_NBD_OUTCOME_FAILED;
        }
    }
}
