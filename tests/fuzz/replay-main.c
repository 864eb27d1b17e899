/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * main() of a fuzzer that is built without libFuzzer: runs each file of the
 * given files and directories once. A crash ends it, as it would a fuzzer.
 */
#include <glib.h>
#include <stdint.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned
replay(const char *path)
{
    g_autofree char *data = NULL;
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    g_autoptr(GError) error = NULL;
    unsigned n = 0;
    const char *name;
    size_t size;

    while (dir != NULL && (name = g_dir_read_name(dir)) != NULL) {
        g_autofree char *inside = g_build_filename(path, name, NULL);

        n += replay(inside);
    }
    if (dir != NULL) {
        return n;
    }
    if (!g_file_get_contents(path, &data, &size, &error)) {
        g_error("%s", error->message);
    }
    g_printerr("%s\n", path); /* so that a crash has a name */
    LLVMFuzzerTestOneInput((const uint8_t *)data, size);
    return 1;
}

int
main(int argc, char **argv)
{
    unsigned n = 0;

    for (int i = 1; i < argc; i++) {
        n += replay(argv[i]);
    }
    g_print("%u inputs\n", n);
    return n > 0 ? 0 : 1; /* an empty corpus is a mistake */
}
