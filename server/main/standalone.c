/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stand-alone server of one image: the options of qemu-nbd, turned into the
 * steps that the daemon's own options are. Nothing is served by other code.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arguments-private.h"
#include "core/util.h"
#include "schema/types.h"
#include "serve/activation.h"

#define DEFAULT_PORT "10809"
#define NAME_BYTES_MAX 4096

enum {
    OPT_AIO = 256,
    OPT_CACHE,
    OPT_DETECT_ZEROES,
    OPT_DISCARD,
    OPT_FORK,
    OPT_HANDSHAKE_LIMIT,
    OPT_IMAGE_OPTS,
    OPT_OBJECT,
    OPT_PID_FILE,
    OPT_SELINUX_LABEL,
    OPT_TLS_AUTHZ,
    OPT_TLS_CREDS,
    OPT_TLS_HOSTNAME,
};

static const char short_options[] = "hVb:o:p:rsnc:d:e:f:tl:x:D:AB:Lk:vT:";

static const struct option long_options[] = {
    {"aio", required_argument, NULL, OPT_AIO},
    {"allocation-depth", no_argument, NULL, 'A'},
    {"bind", required_argument, NULL, 'b'},
    {"bitmap", required_argument, NULL, 'B'},
    {"cache", required_argument, NULL, OPT_CACHE},
    {"connect", required_argument, NULL, 'c'},
    {"description", required_argument, NULL, 'D'},
    {"detect-zeroes", required_argument, NULL, OPT_DETECT_ZEROES},
    {"discard", required_argument, NULL, OPT_DISCARD},
    {"disconnect", required_argument, NULL, 'd'},
    {"export-name", required_argument, NULL, 'x'},
    {"fork", no_argument, NULL, OPT_FORK},
    {"format", required_argument, NULL, 'f'},
    {"handshake-limit", required_argument, NULL, OPT_HANDSHAKE_LIMIT},
    {"help", no_argument, NULL, 'h'},
    {"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
    {"list", no_argument, NULL, 'L'},
    {"load-snapshot", required_argument, NULL, 'l'},
    {"nocache", no_argument, NULL, 'n'},
    {"object", required_argument, NULL, OPT_OBJECT},
    {"offset", required_argument, NULL, 'o'},
    {"persistent", no_argument, NULL, 't'},
    {"pid-file", required_argument, NULL, OPT_PID_FILE},
    {"port", required_argument, NULL, 'p'},
    {"read-only", no_argument, NULL, 'r'},
    {"selinux-label", required_argument, NULL, OPT_SELINUX_LABEL},
    {"shared", required_argument, NULL, 'e'},
    {"snapshot", no_argument, NULL, 's'},
    {"socket", required_argument, NULL, 'k'},
    {"tls-authz", required_argument, NULL, OPT_TLS_AUTHZ},
    {"tls-creds", required_argument, NULL, OPT_TLS_CREDS},
    {"tls-hostname", required_argument, NULL, OPT_TLS_HOSTNAME},
    {"trace", required_argument, NULL, 'T'},
    {"verbose", no_argument, NULL, 'v'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

/*
 * The words of the command line. Strings are borrowed from argv; NULL where
 * they were not given.
 */
typedef struct Words {
    const char *aio;
    const char *bind;
    const char *cache;
    const char *description;
    const char *detect_zeroes;
    const char *discard;
    const char *export_name;
    const char *file;
    const char *format;
    const char *port;
    const char *socket;
    const char *tls_authz;
    const char *tls_creds;
    const char *tls_hostname;
    GPtrArray *bitmaps; /* of borrowed strings */
    uint64_t offset;
    uint64_t shared;
    uint64_t handshake_limit;
    bool has_shared;
    bool has_offset;
    bool activated; /* by a service manager, with a listening socket */
    bool allocation_depth;
    bool fork;
    bool image_opts;
    bool list;
    bool persistent;
    bool read_only;
} Words;

static char *
make_help(void)
{
    return g_strdup(
        "Usage: " BF_STANDALONE_NAME " [options] FILE\n"
        "  or:  " BF_STANDALONE_NAME " -L [options]\n"
        "Serves one disk image over NBD, until its last client leaves.\n\n"
        "  -h, --help                 print this help\n"
        "  -V, --version              print the version\n"
        "Where:\n"
        "  -p, --port=PORT            TCP port (default " DEFAULT_PORT ")\n"
        "  -b, --bind=HOST            address to listen on, or to list from\n"
        "  -k, --socket=PATH          UNIX socket instead\n"
        "  -L, --list                 list the exports of another server\n"
        "What:\n"
        "  -x, --export-name=NAME     name of the export (default: empty)\n"
        "  -D, --description=TEXT     for people who list exports\n"
        "  -r, --read-only            refuse writes\n"
        "  -o, --offset=BYTES         leave out the beginning of the image\n"
        "  -f, --format=raw           format of the image\n"
        "      --image-opts           FILE is a node as --blockdev of\n"
        "                             " BF_DAEMON_NAME " takes it\n"
        "  -A, --allocation-depth     offer qemu:allocation-depth\n"
        "  -B, --bitmap=NAME          offer a dirty bitmap\n"
        "How:\n"
        "  -e, --shared=N             clients at a time, 0 for any number "
        "(default 1)\n"
        "  -t, --persistent           go on after the last client\n"
        "      --handshake-limit=S    seconds that a handshake may take "
        "(default 10)\n"
        "  -n, --nocache              the same as --cache=none\n"
        "      --cache=MODE           writeback, none, writethrough, "
        "directsync, unsafe\n"
        "      --aio=MODE             accepted; it is always io_uring\n"
        "      --discard=MODE         ignore or unmap\n"
        "      --detect-zeroes=MODE   off, on or unmap\n"
        "      --object=TYPE,id=ID,.. TLS credentials and other objects\n"
        "      --tls-creds=ID         demand TLS\n"
        "      --tls-authz=ID         who may connect\n"
        "      --tls-hostname=NAME    what the listed server's certificate is "
        "for\n"
        "      --fork                 go to the background when ready\n"
        "      --pid-file=PATH        write the process id to PATH when ready\n"
        "  -v, --verbose              with --fork: keep writing messages\n");
}

/* Appends ",key=value" in the notation of the daemon's options. */
static void
put(GString *text, const char *key, const char *value)
{
    g_string_append_printf(text, "%s%s=", text->len > 0 ? "," : "", key);
    for (const char *c = value; *c != '\0'; c++) {
        if (*c == ',') {
            g_string_append_c(text, ',');
        }
        g_string_append_c(text, *c);
    }
}

static void
put_if(GString *text, const char *key, const char *value)
{
    if (value != NULL) {
        put(text, key, value);
    }
}

static void
put_number(GString *text, const char *key, uint64_t value)
{
    g_autofree char *digits = g_strdup_printf("%" G_GUINT64_FORMAT, value);

    put(text, key, digits);
}

/* --- Reading the words. --- */

static bool
parse_number(const char *text, uint64_t max, uint64_t *ret)
{
    char *end = NULL;

    errno = 0;
    *ret = strtoull(text, &end, 0);
    return g_ascii_isdigit(*text) && *end == '\0' && errno == 0 && *ret <= max;
}

static bool
refuse(const BfArguments *args, int opt)
{
    switch (opt) {
    case 'c':
    case 'd':
        return bf_arguments_complain(
            args, "-c and -d are for the kernel's NBD client; use nbd-client");
    case 's':
        return bf_arguments_complain(
            args, "-s: temporary overlays are not available; copy the image");
    case 'l':
        return bf_arguments_complain(
            args, "-l: images with internal snapshots are not available");
    case 'T':
        return bf_arguments_refuse_trace(args, optarg);
    default:
        return bf_arguments_complain(
            args, "--selinux-label is not available in this build");
    }
}

/* qemu-nbd refuses these if they come again; of others the last one holds. */
static bool
take_once(const BfArguments *args, const char *options, const char *word,
          const char **ret)
{
    if (*ret != NULL) {
        return bf_arguments_complain(args, "%s can only be specified once",
                                     options);
    }
    *ret = word;
    return true;
}

static bool
take_name(const BfArguments *args, const char *what, const char **ret)
{
    if (strlen(optarg) > NAME_BYTES_MAX) {
        return bf_arguments_complain(args,
                                     "%s '%.40s...' too long, at most %d "
                                     "bytes",
                                     what, optarg, NAME_BYTES_MAX);
    }
    *ret = optarg;
    return true;
}

static bool
take_number(const BfArguments *args, const char *what, uint64_t max,
            uint64_t *ret)
{
    return parse_number(optarg, max, ret) ||
           bf_arguments_complain(args, "Invalid %s '%s'", what, optarg);
}

/* Options with a meaning of their own; the plain ones are in take_word(). */
static bool
take_checked(BfArguments *args, Words *words, int opt)
{
    switch (opt) {
    case 'n':
        return take_once(args, "-n and --cache", "none", &words->cache);
    case OPT_CACHE:
        return take_once(args, "-n and --cache", optarg, &words->cache);
    case OPT_AIO:
        return take_once(args, "--aio", optarg, &words->aio);
    case OPT_DISCARD:
        return take_once(args, "--discard", optarg, &words->discard);
    case 'o':
        words->has_offset = true;
        return take_number(args, "offset", INT64_MAX, &words->offset);
    case 'e':
        words->has_shared = true;
        return take_number(args, "shared device number", UINT32_MAX,
                           &words->shared);
    case OPT_HANDSHAKE_LIMIT:
        return take_number(args, "handshake limit", UINT32_MAX,
                           &words->handshake_limit);
    case 'x':
        return take_name(args, "export name", &words->export_name);
    case 'D':
        return take_name(args, "export description", &words->description);
    case OPT_OBJECT:
        bf_arguments_add(args, BF_STEP_OBJECT, optarg);
        return true;
    default:
        return refuse(args, opt);
    }
}

static const char **
find_word(Words *words, int opt)
{
    switch (opt) {
    case 'b':
        return &words->bind;
    case OPT_DETECT_ZEROES:
        return &words->detect_zeroes;
    case 'f':
        return &words->format;
    case 'p':
        return &words->port;
    case 'k':
        return &words->socket;
    case OPT_TLS_AUTHZ:
        return &words->tls_authz;
    case OPT_TLS_CREDS:
        return &words->tls_creds;
    case OPT_TLS_HOSTNAME:
        return &words->tls_hostname;
    default:
        return NULL;
    }
}

static bool *
find_switch(BfArguments *args, Words *words, int opt)
{
    switch (opt) {
    case 'A':
        return &words->allocation_depth;
    case OPT_FORK:
        return &words->fork;
    case OPT_IMAGE_OPTS:
        return &words->image_opts;
    case 'L':
        return &words->list;
    case 't':
        return &words->persistent;
    case 'r':
        return &words->read_only;
    case 'v':
        return &args->keep_stderr;
    default:
        return NULL;
    }
}

static bool
take_option(BfArguments *args, Words *words, int opt)
{
    const char **word = find_word(words, opt);
    bool *flag = find_switch(args, words, opt);

    if (word != NULL) {
        *word = optarg;
    } else if (flag != NULL) {
        *flag = true;
    } else if (opt == 'h') {
        args->output = make_help();
    } else if (opt == 'V') {
        args->output = g_strdup(BF_STANDALONE_NAME " version " BF_VERSION "\n");
    } else if (opt == 'B') {
        g_ptr_array_add(words->bitmaps, optarg);
    } else if (opt == OPT_PID_FILE) {
        args->pidfile_path = optarg;
    } else {
        return opt != '?' && take_checked(args, words, opt);
    }
    return true;
}

/* --- Whether they fit together. --- */

/* Sockets that a service manager has opened. */
static bool
find_activation(const BfArguments *args, Words *words)
{
    unsigned n = bf_activation_count(args->activation);

    words->activated = n == 1;
    return n <= 1 || bf_arguments_complain(args,
                                           "there is one server, so it takes "
                                           "one socket, not LISTEN_FDS=%u",
                                           n);
}

static bool
check_where(const BfArguments *args, const Words *words)
{
    if (words->activated) {
        const char *taken = words->socket != NULL ? "-k"
                            : words->bind != NULL ? "-b"
                            : words->port != NULL ? "-p"
                                                  : NULL;

        if (taken != NULL || words->list) {
            return bf_arguments_complain(
                args, "%s can't be set when using socket activation",
                taken != NULL ? taken : "-L");
        }
    }
    if (words->socket != NULL && words->socket[0] != '/') {
        return bf_arguments_complain(args, "socket path must be absolute");
    }
    if (words->socket != NULL && (words->bind != NULL || words->port != NULL)) {
        return bf_arguments_complain(args,
                                     "-k cannot be given together with %s",
                                     words->bind != NULL ? "-b" : "-p");
    }
    if (words->tls_authz != NULL && words->tls_creds == NULL) {
        return bf_arguments_complain(
            args, "--tls-authz is not permitted without --tls-creds");
    }
    return true;
}

static bool
check_list(const BfArguments *args, const Words *words)
{
    if (words->file != NULL) {
        return bf_arguments_complain(
            args, "List mode is incompatible with a file name");
    }
    if (words->export_name != NULL || words->description != NULL ||
        words->has_offset || words->allocation_depth || words->image_opts ||
        words->bitmaps->len > 0 || words->cache != NULL || words->aio != NULL ||
        words->discard != NULL || words->detect_zeroes != NULL ||
        words->format != NULL) {
        return bf_arguments_complain(
            args, "List mode is incompatible with per-device settings");
    }
    if (words->fork) {
        return bf_arguments_complain(args,
                                     "List mode is incompatible with forking");
    }
    if (words->tls_authz != NULL) {
        return bf_arguments_complain(
            args, "TLS authorization is incompatible with export list");
    }
    if (words->tls_hostname != NULL && words->tls_creds == NULL) {
        return bf_arguments_complain(
            args, "--tls-hostname is not permitted without --tls-creds");
    }
    return true;
}

/* What to do about a FILE that qemu-nbd takes for more than a path; NULL: it
 * does not. */
static const char *
find_way_out(const char *file)
{
    size_t scheme = strspn(file, "abcdefghijklmnopqrstuvwxyz0123456789+-.");

    if (g_str_has_prefix(file, "driver=") || g_str_has_prefix(file, "file.")) {
        return "to describe a node give --image-opts driver=NAME,KEY=VALUE,...";
    }
    if (file[scheme] != ':') {
        return NULL;
    }
    if (g_str_has_prefix(file, "nbd")) {
        return "give an NBD server as --image-opts driver=nbd,server.type=inet,"
               "server.host=HOST,server.port=PORT,export=NAME, or with "
               "server.type=unix,server.path=PATH";
    }
    if (g_str_has_prefix(file, "json:")) {
        return "give the node as --image-opts driver=NAME,KEY=VALUE,...";
    }
    return "give the path of a file or a block device alone, or another node "
           "by --image-opts";
}

/* Files with such a name are served all the same. */
static bool
check_file(const BfArguments *args, const Words *words)
{
    const char *way_out = find_way_out(words->file);

    return way_out == NULL || access(words->file, F_OK) == 0 ||
           bf_arguments_complain(args, "there is no file '%s'; %s", words->file,
                                 way_out);
}

/* Whatever begins like this is no list of keys and values. */
static bool
check_image_opts(const BfArguments *args, const Words *words)
{
    if (words->format != NULL) {
        return bf_arguments_complain(
            args, "--image-opts and -f are mutually exclusive");
    }
    return (!g_str_has_prefix(words->file, "json:") && words->file[0] != '{') ||
           bf_arguments_complain(args,
                                 "--image-opts takes no JSON: give '%s' as "
                                 "driver=NAME,KEY=VALUE,...",
                                 words->file);
}

/* Serving the bytes of an image in a format that is not known would show its
 * clients a disk that is none. */
static bool
check_format(const BfArguments *args, const Words *words)
{
    static const struct {
        const char *magic;
        const char *name;
    } formats[] = {{"QFI\xfb", "qcow2"},
                   {"KDMV", "vmdk"},
                   {"vhdxfile", "vhdx"},
                   {"QED", "qed"}};
    char head[8] = {0};
    bf_autofd fd = -1;

    if (words->format != NULL) {
        return strcmp(words->format, "raw") == 0 ||
               bf_arguments_complain(
                   args, "-f %s: only raw images can be served", words->format);
    }
    fd = open(words->file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || pread(fd, head, sizeof(head), (off_t)words->offset) <= 0) {
        return true; /* opening it as a node has the better message */
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(formats); i++) {
        if (memcmp(head, formats[i].magic, strlen(formats[i].magic)) == 0) {
            return bf_arguments_complain(
                args,
                "'%s' is a %s image, a format that cannot be served; "
                "convert it (qemu-img convert -O raw), or give -f raw to "
                "serve the bytes of the file as they are",
                words->file, formats[i].name);
        }
    }
    return true;
}

/* @word: of an option, or NULL */
static bool
check_choice(const BfArguments *args, const char *option, const char *word,
             const BfEnumInfo *values)
{
    g_autoptr(GString) known = g_string_new(NULL);
    int value = 0;

    if (word == NULL || bf_enum_parse(values, word, &value)) {
        return true;
    }
    for (size_t i = 0; i < values->n_values; i++) {
        g_string_append_printf(known, "%s%s",
                               i == 0                     ? ""
                               : i + 1 < values->n_values ? ", "
                                                          : " or ",
                               values->values[i]);
    }
    return bf_arguments_complain(args, "Invalid %s mode '%s': expected %s",
                                 option, word, known->str);
}

static bool
check_choices(const BfArguments *args, const Words *words)
{
    return check_choice(args, "aio", words->aio,
                        &bf_blockdev_aio_options_enum) &&
           check_choice(args, "discard", words->discard,
                        &bf_blockdev_discard_options_enum) &&
           check_choice(args, "detect-zeroes", words->detect_zeroes,
                        &bf_blockdev_detect_zeroes_options_enum);
}

static bool
check_image(const BfArguments *args, const Words *words)
{
    if (words->file == NULL) {
        return bf_arguments_complain(
            args, "Invalid number of arguments: one image is needed; see "
                  "--help");
    }
    if (words->tls_hostname != NULL) {
        return bf_arguments_complain(
            args, "TLS hostname is only supported with export list");
    }
    if (!check_choices(args, words)) {
        return false;
    }
    return words->image_opts
               ? check_image_opts(args, words)
               : check_file(args, words) && check_format(args, words);
}

/* --- The steps. --- */

/* Appends the address, each key behind @prefix. */
static void
put_address(GString *text, const Words *words, const char *prefix)
{
    g_autofree char *type = g_strconcat(prefix, "type", NULL);
    g_autofree char *host = g_strconcat(prefix, "host", NULL);
    g_autofree char *port = g_strconcat(prefix, "port", NULL);
    g_autofree char *path = g_strconcat(prefix, "path", NULL);
    g_autofree char *fd = g_strconcat(prefix, "str", NULL);

    if (words->activated) {
        put(text, type, "fd");
        put_number(text, fd, BF_ACTIVATION_FIRST_FD);
    } else if (words->socket != NULL) {
        put(text, type, "unix");
        put(text, path, words->socket);
    } else {
        put(text, type, "inet");
        put(text, host,
            words->bind != NULL ? words->bind
            : words->list       ? "localhost"
                                : "0.0.0.0");
        put(text, port, words->port != NULL ? words->port : DEFAULT_PORT);
    }
}

static void
add_server(BfArguments *args, const Words *words)
{
    g_autoptr(GString) text = g_string_new(NULL);

    put_address(text, words, "addr.");
    put_if(text, "tls-creds", words->tls_creds);
    put_if(text, "tls-authz", words->tls_authz);
    put_number(text, "max-connections", words->shared);
    put_number(text, "handshake-max-seconds", words->handshake_limit);
    bf_arguments_add_made(args, BF_STEP_NBD_SERVER, text->str, "NBD server");
}

static bool
put_cache(const BfArguments *args, GString *text, const char *mode)
{
    if (mode == NULL || strcmp(mode, "writeback") == 0 ||
        strcmp(mode, "writethrough") == 0) {
        return true;
    }
    if (strcmp(mode, "none") == 0 || strcmp(mode, "off") == 0 ||
        strcmp(mode, "directsync") == 0) {
        put(text, "cache.direct", "on");
        return true;
    }
    if (strcmp(mode, "unsafe") == 0) {
        put(text, "cache.no-flush", "on");
        return true;
    }
    return bf_arguments_complain(args,
                                 "Invalid cache mode '%s': expected writeback, "
                                 "none, writethrough, directsync or unsafe",
                                 mode);
}

static const char *
file_driver(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISBLK(st.st_mode) ? "host_device" : "file";
}

static bool
add_image(BfArguments *args, const Words *words)
{
    g_autoptr(GString) text = g_string_new(NULL);
    const char *image = words->has_offset ? "file" : "image";

    if (words->image_opts) {
        g_string_append(text, words->file);
    } else {
        put(text, "driver", file_driver(words->file));
        put(text, "filename", words->file);
    }
    put(text, "node-name", image);
    /* The default is off, and image options may say on. */
    if (words->read_only) {
        put(text, "read-only", "on");
    }
    put_if(text, "aio", words->aio);
    put_if(text, "discard", words->discard);
    put_if(text, "detect-zeroes", words->detect_zeroes);
    if (!put_cache(args, text, words->cache)) {
        return false;
    }
    bf_arguments_add_made(args, BF_STEP_BLOCKDEV, text->str, "%s", words->file);
    if (words->has_offset) {
        g_string_truncate(text, 0);
        put(text, "driver", "raw");
        put(text, "node-name", "image");
        put(text, "file", image);
        put_number(text, "offset", words->offset);
        put(text, "read-only", words->read_only ? "on" : "off");
        put_if(text, "discard", words->discard);
        bf_arguments_add_made(args, BF_STEP_BLOCKDEV, text->str, "-o %" PRIu64,
                              words->offset);
    }
    return true;
}

static void
add_export(BfArguments *args, const Words *words)
{
    g_autoptr(GString) text = g_string_new(NULL);
    bool writethrough =
        words->cache != NULL && (strcmp(words->cache, "writethrough") == 0 ||
                                 strcmp(words->cache, "directsync") == 0);

    put(text, "type", "nbd");
    put(text, "id", BF_STANDALONE_NAME);
    put(text, "node-name", "image");
    put(text, "name", words->export_name != NULL ? words->export_name : "");
    put_if(text, "description", words->description);
    put(text, "writable", words->read_only ? "off" : "on");
    put(text, "writethrough", writethrough ? "on" : "off");
    put(text, "allocation-depth", words->allocation_depth ? "on" : "off");
    for (unsigned i = 0; i < words->bitmaps->len; i++) {
        g_autofree char *key = g_strdup_printf("bitmaps.%u", i);

        put(text, key, g_ptr_array_index(words->bitmaps, i));
    }
    bf_arguments_add_made(args, BF_STEP_EXPORT, text->str, "export '%s'",
                          words->export_name != NULL ? words->export_name : "");
}

static void
set_list(BfArguments *args, const Words *words)
{
    g_autoptr(GString) text = g_string_new(NULL);

    put_address(text, words, "addr.");
    put_if(text, "tls-creds", words->tls_creds);
    args->list_server = g_string_free(g_steal_pointer(&text), FALSE);
    args->list_hostname =
        words->tls_hostname != NULL ? words->tls_hostname : words->bind;
}

/* qemu-nbd has two names for each. */
static const char *
discard_mode(const char *word)
{
    if (g_strcmp0(word, "on") == 0) {
        return "unmap";
    }
    return g_strcmp0(word, "off") == 0 ? "ignore" : word;
}

static bool
take_words(BfArguments *args, Words *words, int argc, char **argv)
{
    int opt;

    while ((opt = getopt_long(argc, argv, short_options, long_options, NULL)) !=
           -1) {
        if (!take_option(args, words, opt)) {
            return false;
        }
        if (args->output != NULL) {
            return true;
        }
    }
    words->file = optind < argc ? argv[optind] : NULL;
    words->discard = discard_mode(words->discard);
    return argc - optind <= 1 ||
           bf_arguments_complain(args,
                                 "Invalid number of arguments: one image "
                                 "is served, and there is '%s' as well",
                                 argv[optind + 1]);
}

bool
bf_standalone_parse(BfArguments *args, int argc, char **argv)
{
    g_autoptr(GPtrArray) bitmaps = g_ptr_array_new();
    Words words = {.bitmaps = bitmaps, .shared = 1, .handshake_limit = 10};

    args->stand_alone = true;
    if (!take_words(args, &words, argc, argv)) {
        return false;
    }
    bf_arguments_find_help(args);
    if (args->output != NULL) {
        return true;
    }
    if (!find_activation(args, &words) || !check_where(args, &words)) {
        return false;
    }
    if (words.list) {
        if (!check_list(args, &words)) {
            return false;
        }
        set_list(args, &words);
        return true;
    }
    args->daemonize = words.fork;
    args->until_unused = !words.persistent;
    if (!check_image(args, &words)) {
        return false;
    }
    add_server(args, &words);
    if (!add_image(args, &words)) {
        return false;
    }
    add_export(args, &words);
    return true;
}
