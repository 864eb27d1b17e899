/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Large memory, of sizes around those where it becomes special. */
#include "core/large.h"

#include <glib.h>
#include <stdint.h>

#include "core/util.h"

static void
test_any_size_can_be_used(void)
{
    static const size_t sizes[] = {
        1,          4095,           2 * BF_MIB,  4 * BF_MIB - 1,
        4 * BF_MIB, 4 * BF_MIB + 1, 33 * BF_MIB,
    };

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        char *memory = bf_large_alloc(sizes[i]);

        memory[0] = 'a';
        memory[sizes[i] - 1] = 'z';
        if (sizes[i] >= 4 * BF_MIB) {
            g_assert_cmpuint((uintptr_t)memory % (2 * BF_MIB), ==, 0);
        }
        g_free(memory);
    }
}

/* As of any memory of GLib. */
static void
test_growing_keeps_contents(void)
{
    char *memory = bf_large_alloc(4 * BF_MIB);

    memory[0] = 'a';
    memory[4 * BF_MIB - 1] = 'z';
    memory = g_realloc(memory, 8 * BF_MIB);
    g_assert_cmpint(memory[0], ==, 'a');
    g_assert_cmpint(memory[4 * BF_MIB - 1], ==, 'z');
    g_free(memory);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/core/large/alloc/any-size-can-be-used",
                    test_any_size_can_be_used);
    g_test_add_func("/core/large/alloc/growing-keeps-contents",
                    test_growing_keeps_contents);
    return g_test_run();
}
