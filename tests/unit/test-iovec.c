/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Vectors against a flat array as the model; buffers; budgets. */
#include "core/iovec.h"

#include <pthread.h>
#include <string.h>

#include "core/util.h"

#define FLAT 1000

/* Cuts @flat into random pieces, some of them empty. */
static void
cut(BfIoVec *vec, char *flat, size_t bytes)
{
    bf_iovec_init(vec);
    while (bytes > 0) {
        size_t n = (size_t)g_test_rand_int_range(0, 60);

        n = MIN(n, bytes);
        bf_iovec_add(vec, flat, n);
        flat += n;
        bytes -= n;
    }
}

static void
test_access_equals_flat_array(void)
{
    char flat[FLAT];
    char model[FLAT];
    char buf[FLAT];

    for (int round = 0; round < 300; round++) {
        BfIoVec vec;
        BfIoVec part;
        size_t skip = (size_t)g_test_rand_int_range(0, FLAT + 1);
        size_t bytes = (size_t)g_test_rand_int_range(0, (int)(FLAT - skip) + 1);

        for (int i = 0; i < FLAT; i++) {
            flat[i] = (char)g_test_rand_int();
        }
        memcpy(model, flat, FLAT);
        cut(&vec, flat, FLAT);
        g_assert_cmpuint(vec.bytes, ==, FLAT);

        bf_iovec_read(&vec, skip, buf, bytes);
        g_assert_cmpmem(buf, bytes, model + skip, bytes);
        bf_iovec_init_slice(&part, &vec, skip, bytes);
        g_assert_cmpuint(part.bytes, ==, bytes);
        bf_iovec_read(&part, 0, buf, bytes);
        g_assert_cmpmem(buf, bytes, model + skip, bytes);

        memset(buf, round, sizeof(buf));
        memset(model + skip, round, bytes);
        bf_iovec_write(&vec, skip, buf, bytes);
        g_assert_cmpmem(flat, FLAT, model, FLAT);
        memset(model + skip, 0x5a, bytes);
        bf_iovec_fill(&part, 0, bytes, 0x5a);
        g_assert_cmpmem(flat, FLAT, model, FLAT);
        bf_iovec_clear(&part);
        bf_iovec_clear(&vec);
    }
}

static void
test_holds_the_greatest_number_of_pieces(void)
{
    char byte = 'x';
    BfIoVec vec;
    BfIoVec part;

    bf_iovec_init(&vec);
    for (int i = 0; i < BF_IOVEC_MAX; i++) {
        bf_iovec_add(&vec, &byte, 1);
    }
    g_assert_cmpint(vec.niov, ==, BF_IOVEC_MAX);
    bf_iovec_init_slice(&part, &vec, BF_IOVEC_MAX - 1, 1);
    g_assert_cmpint(part.niov, ==, 1);
    bf_iovec_clear(&part);
    bf_iovec_clear(&vec);
    g_assert_cmpint(vec.niov, ==, 0);
    bf_iovec_init_buf(&vec, &byte, 0);
    g_assert_cmpint(vec.niov, ==, 0);
}

static void
test_zero_finds_any_byte(void)
{
    char flat[1100] = {0};

    for (size_t start = 0; start < 20; start += 3) {
        for (size_t bytes = 0; bytes < 1000; bytes += 7) {
            g_assert_true(bf_mem_is_zero(flat + start, bytes));
            flat[start + bytes] = 1; /* just behind */
            g_assert_true(bf_mem_is_zero(flat + start, bytes));
            flat[start + bytes] = 0;
        }
    }
    for (size_t i = 0; i < 1000; i++) {
        BfIoVec vec;

        flat[i] = 1;
        g_assert_false(bf_mem_is_zero(flat, 1000));
        cut(&vec, flat, 1000);
        g_assert_false(bf_iovec_is_zero(&vec));
        flat[i] = 0;
        g_assert_true(bf_iovec_is_zero(&vec));
        bf_iovec_clear(&vec);
    }
}

static void
test_aligned_looks_at_address_and_length(void)
{
    char *buf = bf_buffer_new(8192);
    BfIoVec vec;

    bf_iovec_init_buf(&vec, buf, 8192);
    g_assert_true(bf_iovec_is_aligned(&vec, 4096));
    bf_iovec_add(&vec, buf + 512, 512);
    g_assert_false(bf_iovec_is_aligned(&vec, 4096));
    g_assert_true(bf_iovec_is_aligned(&vec, 512));
    bf_iovec_add(&vec, buf, 100);
    g_assert_false(bf_iovec_is_aligned(&vec, 512));
    g_assert_true(bf_iovec_is_aligned(&vec, 1));
    bf_iovec_clear(&vec);
    bf_buffer_free(buf, 8192);
}

/* Buffers. */

static void
test_buffer_sizes(void)
{
    static const size_t sizes[] = {1,       511,     4096,     4097,
                                   65536,   100000,  131072,   1048576,
                                   2097152, 2097153, 33554432, 67108864};

    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
            char *buf = bf_buffer_new(sizes[i]);

            g_assert_nonnull(buf);
            g_assert_cmpuint((uintptr_t)buf % 4096, ==, 0);
            buf[0] = 1;
            buf[sizes[i] - 1] = 2;
            bf_buffer_free(buf, sizes[i]);
        }
    }
    bf_buffer_free(NULL, 4096);
    bf_buffer_trim();
}

#define HELD 300

static void *
churn(void *arg)
{
    struct {
        char *buf;
        size_t bytes;
    } held[HELD] = {{NULL, 0}};

    for (int i = 0; i < 20000; i++) {
        unsigned n = (unsigned)(i * 7919) % HELD;

        if (held[n].buf != NULL) {
            g_assert_cmpint(held[n].buf[0], ==, (char)n);
            g_assert_cmpint(held[n].buf[held[n].bytes - 1], ==, (char)n);
            bf_buffer_free(held[n].buf, held[n].bytes);
        }
        held[n].bytes = ((size_t)1 << (n % 22)) + n % 5;
        held[n].buf = bf_buffer_new(held[n].bytes);
        held[n].buf[0] = (char)n;
        held[n].buf[held[n].bytes - 1] = (char)n;
    }
    for (int n = 0; n < HELD; n++) {
        bf_buffer_free(held[n].buf, held[n].bytes);
    }
    bf_buffer_trim();
    return NULL;
}

static void
test_buffer_churn_on_threads(void)
{
    pthread_t threads[2];

    for (int i = 0; i < 2; i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, churn, NULL), ==, 0);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
}

static void
test_buffer_time(void)
{
    static const size_t sizes[] = {4096, 65536, 262144, 1048576, 33554432};

    for (size_t i = 0; i < G_N_ELEMENTS(sizes); i++) {
        int rounds = sizes[i] > 2097152 ? 50 : 20000;

        g_test_timer_start();
        for (int k = 0; k < rounds; k++) {
            char *buf = bf_buffer_new(sizes[i]);

            for (size_t at = 0; at < sizes[i]; at += 4096) {
                buf[at] = 1;
            }
            bf_buffer_free(buf, sizes[i]);
        }
        g_test_message("%.0f ns to take, touch and free %zu bytes",
                       g_test_timer_elapsed() * 1e9 / rounds, sizes[i]);
    }
    bf_buffer_trim();
}

static void
test_zero_time(void)
{
    g_autofree char *buf = g_malloc0(BF_MIB);

    g_test_timer_start();
    for (int i = 0; i < 1000; i++) {
        g_assert_true(bf_mem_is_zero(buf, BF_MIB));
    }
    g_test_message("%.0f us to look at 1 MiB of zeroes",
                   g_test_timer_elapsed() * 1e6 / 1000);
}

/* Budgets. */

static void
test_budget_keeps_its_limit(void)
{
    BfBudget budget = {.limit = 100};

    g_assert_true(bf_budget_try_take(&budget, 60));
    g_assert_false(bf_budget_try_take(&budget, 41));
    g_assert_false(bf_budget_try_take(&budget, SIZE_MAX));
    g_assert_true(bf_budget_try_take(&budget, 40));
    bf_budget_force_take(&budget, 10);
    g_assert_false(bf_budget_try_take(&budget, 1));
    bf_budget_give_back(&budget, 50);
    g_assert_true(bf_budget_try_take(&budget, 40));
    g_assert_cmpuint(budget.used, ==, 100);
}

static void *
take_and_give(void *arg)
{
    BfBudget *budget = arg;

    for (int i = 0; i < 100000; i++) {
        if (bf_budget_try_take(budget, 3)) {
            g_assert_cmpuint(__atomic_load_n(&budget->used, __ATOMIC_RELAXED),
                             <=, budget->limit);
            bf_budget_give_back(budget, 3);
        }
    }
    return NULL;
}

static void
test_budget_shared_by_threads(void)
{
    BfBudget budget = {.limit = 8};
    pthread_t threads[4];

    for (int i = 0; i < 4; i++) {
        pthread_create(&threads[i], NULL, take_and_give, &budget);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    g_assert_cmpuint(budget.used, ==, 0);
}

int
main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/core/iovec/access/equals-flat-array",
                    test_access_equals_flat_array);
    g_test_add_func("/core/iovec/add/holds-the-greatest-number",
                    test_holds_the_greatest_number_of_pieces);
    g_test_add_func("/core/iovec/is-zero/finds-any-byte",
                    test_zero_finds_any_byte);
    g_test_add_func("/core/iovec/is-aligned/looks-at-address-and-length",
                    test_aligned_looks_at_address_and_length);
    g_test_add_func("/core/iovec/buffer/sizes", test_buffer_sizes);
    g_test_add_func("/core/iovec/buffer/churn-on-threads",
                    test_buffer_churn_on_threads);
    g_test_add_func("/core/iovec/budget/keeps-its-limit",
                    test_budget_keeps_its_limit);
    g_test_add_func("/core/iovec/budget/shared-by-threads",
                    test_budget_shared_by_threads);
    if (g_test_perf()) {
        g_test_add_func("/core/iovec/buffer/time", test_buffer_time);
        g_test_add_func("/core/iovec/is-zero/time", test_zero_time);
    }
    return g_test_run();
}
