/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files of TLS credentials, and the report about them.
 *
 * A file is read once, and what was checked is what is used. Whoever reads a
 * message has the files in front of him: it says what was looked for and what
 * was found instead, with owner and mode if that is the matter.
 */
#include "tls-private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Most names of a directory that a message lists. */
#define NAMES_MAX 8

BfTlsReport *
bf_tls_report_new(void)
{
    BfTlsReport *report = g_new0(BfTlsReport, 1);

    report->errors = g_ptr_array_new_with_free_func(g_free);
    report->warnings = g_ptr_array_new_with_free_func(g_free);
    return report;
}

void
bf_tls_report_free(BfTlsReport *report)
{
    if (report != NULL) {
        g_ptr_array_unref(report->errors);
        g_ptr_array_unref(report->warnings);
        bf_tls_creds_info_free(report->info);
        g_free(report);
    }
}

void
bf_tls_report_error(BfTlsReport *report, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(report->errors, g_strdup_vprintf(format, args));
    va_end(args);
}

void
bf_tls_report_warning(BfTlsReport *report, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_ptr_array_add(report->warnings, g_strdup_vprintf(format, args));
    va_end(args);
}

/* The part of @path that ends the search: what is not there or not allowed. */
static char *
find_obstacle(const char *path)
{
    for (const char *slash = strchr(path + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        char *part = g_strndup(path, slash - path);

        if (faccessat(AT_FDCWD, part, X_OK, AT_EACCESS) < 0) {
            return part;
        }
        g_free(part);
    }
    return g_strdup(path);
}

static char *
describe_denial(const char *path)
{
    g_autofree char *obstacle = find_obstacle(path);
    struct stat st;

    if (stat(obstacle, &st) < 0) {
        return g_strdup_printf("%s cannot be looked at", obstacle);
    }
    return g_strdup_printf(
        "%s %s has mode %04o, owner %u and group %u, and this process runs as "
        "user %u and group %u; let that user %s it",
        S_ISDIR(st.st_mode) ? "the directory" : "the file", obstacle,
        (unsigned)st.st_mode & 07777, (unsigned)st.st_uid, (unsigned)st.st_gid,
        (unsigned)geteuid(), (unsigned)getegid(),
        S_ISDIR(st.st_mode) ? "search" : "read");
}

/* What is there instead of a file that is missing. */
static char *
list_dir(const char *dir)
{
    g_autoptr(GString) text = g_string_new(NULL);
    DIR *stream = opendir(dir);
    struct dirent *entry;
    unsigned int n = 0;

    if (stream == NULL) {
        return g_strdup_printf("the directory %s is not there", dir);
    }
    while ((entry = readdir(stream)) != NULL) {
        g_autofree char *name = bf_tls_printable(entry->d_name);

        if (entry->d_name[0] == '.') {
            continue;
        }
        if (n++ < NAMES_MAX) {
            g_string_append_printf(text, "%s'%s'", n > 1 ? ", " : "", name);
        }
    }
    closedir(stream);
    if (n > NAMES_MAX) {
        g_string_append_printf(text, " and %u more", n - NAMES_MAX);
    }
    return g_strdup_printf("%s holds %s", dir, n > 0 ? text->str : "nothing");
}

static void
report_unreadable(const char *path, const char *dir, const char *needs,
                  int code, BfTlsReport *report)
{
    g_autofree char *details = NULL;

    if (code == EACCES || code == EPERM) {
        details = describe_denial(path);
    } else if (code == ENOENT || code == ENOTDIR) {
        g_autofree char *found = list_dir(dir);

        details = g_strdup_printf("'dir' must hold %s; %s", needs, found);
    } else if (code == EFBIG) {
        details = g_strdup_printf("it holds more than %zu bytes",
                                  BF_TLS_FILE_MAX_BYTES);
    }
    bf_tls_report_error(report, "Unable to access credentials %s: %s%s%s", path,
                        g_strerror(code), details != NULL ? "; " : "",
                        details != NULL ? details : "");
}

static void
warn_if_public(const char *path, BfTlsReport *report)
{
    struct stat st;

    if (stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
        (st.st_mode & (S_IROTH | S_IWOTH)) != 0) {
        bf_tls_report_warning(
            report,
            "every user of this host can %s the secrets in %s, which has mode "
            "%04o; 'chmod o= %s' ends that",
            st.st_mode & S_IWOTH ? "change" : "read", path,
            (unsigned)st.st_mode & 07777, path);
    }
}

void
bf_tls_file_read(BfTlsFile *file, const char *dir, const char *name,
                 const char *needs, BfTlsFileUse use, BfTlsReport *report)
{
    int ret;

    file->path = g_build_filename(dir, name, NULL);
    ret = bf_secret_load_file(file->path, BF_TLS_FILE_MAX_BYTES, &file->data);
    if (ret < 0) {
        file->data = NULL;
        if (ret != -ENOENT || !(use & BF_TLS_FILE_OPTIONAL)) {
            report_unreadable(file->path, dir, needs, -ret, report);
        }
    } else if (use & BF_TLS_FILE_SECRET) {
        warn_if_public(file->path, report);
    }
}

gnutls_datum_t
bf_tls_file_datum(const BfTlsFile *file)
{
    gnutls_datum_t datum;
    size_t size;

    datum.data = (unsigned char *)bf_secret_get_bytes(file->data, &size);
    datum.size = size; /* at most BF_TLS_FILE_MAX_BYTES */
    return datum;
}

void
bf_tls_file_clear(BfTlsFile *file)
{
    g_clear_pointer(&file->path, g_free);
    g_clear_pointer(&file->data, bf_secret_unref);
}
