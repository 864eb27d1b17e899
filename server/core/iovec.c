/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * I/O vectors, aligned buffers and budgets.
 *
 * Buffers come in sizes that are powers of two and go to the cache of the
 * thread that frees them, which may be another than the one that took them;
 * the bound on each cache keeps that from piling up. AddressSanitizer builds
 * have no cache, so that use after free and overruns are seen.
 */
#include "core/iovec.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "core/util.h"
#include "sanitizer-private.h"

#define BUFFER_ALIGN 4096
#define BUFFER_MAX (64 * BF_MIB)

/* Sizes that are cached: 4 KiB << 0 ... 4 KiB << 13, which is 32 MiB, the
 * largest request: the page faults of a fresh buffer cost more than its I/O. */
#define CLASS_MIN_BYTES (4 * BF_KIB)
#define CLASS_COUNT 14

/* From here on buffers are mappings of their own. Smaller ones come from the
 * heap: a mapping for each would use up the limit of mappings. */
#define MAP_MIN_BYTES (128 * BF_KIB)

/* Most bytes that one thread keeps: 64 requests of 1 MiB, or 2 of the
 * largest. */
#define CACHE_MAX_BYTES (64 * BF_MIB)

typedef struct FreeBuffer {
    struct FreeBuffer *next;
} FreeBuffer;

static __thread struct {
    FreeBuffer *classes[CLASS_COUNT];
    size_t bytes;
} cache;

void
bf_iovec_init(BfIoVec *vec)
{
    vec->iov = vec->inline_iov;
    vec->niov = 0;
    vec->capacity = BF_IOVEC_INLINE;
    vec->bytes = 0;
}

void
bf_iovec_init_buf(BfIoVec *vec, void *buf, size_t bytes)
{
    bf_iovec_init(vec);
    bf_iovec_add(vec, buf, bytes);
}

void
bf_iovec_init_slice(BfIoVec *vec, const BfIoVec *from, size_t skip,
                    size_t bytes)
{
    g_assert(bf_range_fits(skip, bytes, from->bytes));
    bf_iovec_init(vec);
    for (int i = 0; bytes > 0; i++) {
        const struct iovec *piece = &from->iov[i];
        size_t n;

        if (skip >= piece->iov_len) {
            skip -= piece->iov_len;
            continue;
        }
        n = MIN(bytes, piece->iov_len - skip);
        bf_iovec_add(vec, (char *)piece->iov_base + skip, n);
        skip = 0;
        bytes -= n;
    }
}

void
bf_iovec_clear(BfIoVec *vec)
{
    if (vec->iov != vec->inline_iov) {
        g_free(vec->iov);
    }
    bf_iovec_init(vec);
}

void
bf_iovec_add(BfIoVec *vec, void *buf, size_t bytes)
{
    if (bytes == 0) {
        return;
    }
    g_assert(vec->niov < BF_IOVEC_MAX);
    if (vec->niov == vec->capacity) {
        bool was_inline = vec->iov == vec->inline_iov;

        vec->capacity *= 4;
        vec->iov =
            g_renew(struct iovec, was_inline ? NULL : vec->iov, vec->capacity);
        if (was_inline) {
            memcpy(vec->iov, vec->inline_iov, sizeof(vec->inline_iov));
        }
    }
    vec->iov[vec->niov++] = (struct iovec){buf, bytes};
    vec->bytes += bytes;
}

/* A place in a vector, for going through it piece by piece. */
typedef struct Walk {
    const struct iovec *piece;
    size_t skip; /* within the piece */
    size_t left; /* bytes still to come */
} Walk;

static Walk
walk_start(const BfIoVec *vec, size_t skip, size_t bytes)
{
    Walk walk = {vec->iov, skip, bytes};

    g_assert(bf_range_fits(skip, bytes, vec->bytes));
    return walk;
}

/* Returns the length of the next run of bytes, 0 at the end. */
static size_t
walk_next(Walk *walk, char **ret_data)
{
    size_t n;

    if (walk->left == 0) {
        return 0;
    }
    while (walk->skip >= walk->piece->iov_len) {
        walk->skip -= walk->piece->iov_len;
        walk->piece++;
    }
    n = MIN(walk->left, walk->piece->iov_len - walk->skip);
    *ret_data = (char *)walk->piece->iov_base + walk->skip;
    walk->left -= n;
    walk->skip += n;
    return n;
}

void
bf_iovec_fill(const BfIoVec *vec, size_t skip, size_t bytes, uint8_t byte)
{
    Walk walk = walk_start(vec, skip, bytes);
    char *data;
    size_t n;

    while ((n = walk_next(&walk, &data)) > 0) {
        memset(data, byte, n);
    }
}

void
bf_iovec_read(const BfIoVec *vec, size_t skip, void *buf, size_t bytes)
{
    Walk walk = walk_start(vec, skip, bytes);
    char *to = buf;
    char *data;
    size_t n;

    while ((n = walk_next(&walk, &data)) > 0) {
        memcpy(to, data, n);
        to += n;
    }
}

void
bf_iovec_write(const BfIoVec *vec, size_t skip, const void *buf, size_t bytes)
{
    Walk walk = walk_start(vec, skip, bytes);
    const char *from = buf;
    char *data;
    size_t n;

    while ((n = walk_next(&walk, &data)) > 0) {
        memcpy(data, from, n);
        from += n;
    }
}

bool
bf_iovec_is_zero(const BfIoVec *vec)
{
    for (int i = 0; i < vec->niov; i++) {
        if (!bf_mem_is_zero(vec->iov[i].iov_base, vec->iov[i].iov_len)) {
            return false;
        }
    }
    return true;
}

bool
bf_iovec_is_aligned(const BfIoVec *vec, size_t align)
{
    for (int i = 0; i < vec->niov; i++) {
        if (((uintptr_t)vec->iov[i].iov_base | vec->iov[i].iov_len) &
            (align - 1)) {
            return false;
        }
    }
    return true;
}

/* Looked at in one go; the compiler makes vector instructions of the loop. */
#define ZERO_CHUNK 256

bool
bf_mem_is_zero(const void *buf, size_t bytes)
{
    const char *p = buf;
    unsigned char rest = 0;

    /* Data that is not zero mostly shows it at once. */
    if (bytes > 0 && (p[0] | p[bytes - 1] | p[bytes / 2]) != 0) {
        return false;
    }
    for (; bytes >= ZERO_CHUNK; bytes -= ZERO_CHUNK, p += ZERO_CHUNK) {
        uint64_t words[ZERO_CHUNK / sizeof(uint64_t)];
        uint64_t any = 0;

        memcpy(words, p, sizeof(words));
        for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
            any |= words[i];
        }
        if (any != 0) {
            return false;
        }
    }
    for (size_t i = 0; i < bytes; i++) {
        rest |= (unsigned char)p[i];
    }
    return rest == 0;
}

/* Buffers. */

/* Returns CLASS_COUNT if buffers of this size are not cached. */
static unsigned
size_class(size_t bytes)
{
    unsigned class = 0;

    while (class < CLASS_COUNT && (CLASS_MIN_BYTES << class) < bytes) {
        class ++;
    }
    return class;
}

/* What a buffer of @bytes really takes. */
static size_t
real_size(size_t bytes, unsigned class)
{
    return class < CLASS_COUNT ? CLASS_MIN_BYTES << class
                               : bf_align_up(bytes, BUFFER_ALIGN);
}

static void *
system_alloc(size_t bytes)
{
    void *buf;

    if (bytes < MAP_MIN_BYTES || BF_ASAN) {
        return posix_memalign(&buf, BUFFER_ALIGN, bytes) == 0 ? buf : NULL;
    }
    buf = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
               -1, 0);
    return buf != MAP_FAILED ? buf : NULL;
}

static void
system_free(void *buf, size_t bytes)
{
    if (bytes < MAP_MIN_BYTES || BF_ASAN) {
        free(buf);
    } else {
        g_assert(munmap(buf, bytes) == 0);
    }
}

void *
bf_buffer_new(size_t bytes)
{
    unsigned class = size_class(bytes);

    g_assert(bytes >= 1 && bytes <= BUFFER_MAX);
    if (BF_ASAN) {
        return system_alloc(bytes);
    }
    if (class < CLASS_COUNT && cache.classes[class] != NULL) {
        FreeBuffer *buf = cache.classes[class];

        cache.classes[class] = buf->next;
        cache.bytes -= real_size(bytes, class);
        return buf;
    }
    return system_alloc(real_size(bytes, class));
}

void
bf_buffer_free(void *buf, size_t bytes)
{
    unsigned class = size_class(bytes);
    size_t real = real_size(bytes, class);

    if (buf == NULL) {
        return;
    }
    if (BF_ASAN || class == CLASS_COUNT ||
        cache.bytes + real > CACHE_MAX_BYTES) {
        system_free(buf, real);
        return;
    }
    ((FreeBuffer *)buf)->next = cache.classes[class];
    cache.classes[class] = buf;
    cache.bytes += real;
}

void
bf_buffer_trim(void)
{
    for (unsigned class = 0; class < CLASS_COUNT; class ++) {
        while (cache.classes[class] != NULL) {
            FreeBuffer *buf = cache.classes[class];

            cache.classes[class] = buf->next;
            system_free(buf, CLASS_MIN_BYTES << class);
        }
    }
    cache.bytes = 0;
}

/* Budgets. */

bool
bf_budget_try_take(BfBudget *budget, size_t bytes)
{
    size_t used = __atomic_load_n(&budget->used, __ATOMIC_RELAXED);

    do {
        if (!bf_range_fits(used, bytes, budget->limit)) {
            return false;
        }
    } while (!__atomic_compare_exchange_n(&budget->used, &used, used + bytes,
                                          true, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
    return true;
}

size_t
bf_budget_free(const BfBudget *budget)
{
    size_t used = __atomic_load_n(&budget->used, __ATOMIC_RELAXED);

    return used < budget->limit ? budget->limit - used : 0;
}

void
bf_budget_force_take(BfBudget *budget, size_t bytes)
{
    __atomic_add_fetch(&budget->used, bytes, __ATOMIC_RELAXED);
}

void
bf_budget_give_back(BfBudget *budget, size_t bytes)
{
    size_t before = __atomic_fetch_sub(&budget->used, bytes, __ATOMIC_RELAXED);

    g_assert(before >= bytes);
}
