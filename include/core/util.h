/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small helpers that everything uses: checked arithmetic, byte order, time
 * units, container_of and self-closing descriptors. Any thread; none suspends.
 */
#pragma once

#include <endian.h>
#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#define BF_KIB UINT64_C(1024)
#define BF_MIB (1024 * BF_KIB)
#define BF_GIB (1024 * BF_MIB)
#define BF_NS_PER_US UINT64_C(1000)
#define BF_NS_PER_MS UINT64_C(1000000)
#define BF_NS_PER_SEC UINT64_C(1000000000)

#define bf_container_of(ptr, type, member)                                     \
    ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/**
 * bf_add_u64:
 * @a: first summand
 * @b: second summand
 * @ret_sum: (out): the sum; written on success only
 *
 * Returns: false if the sum does not fit
 */
static inline bool
bf_add_u64(uint64_t a, uint64_t b, uint64_t *ret_sum)
{
    uint64_t sum;

    if (__builtin_add_overflow(a, b, &sum)) {
        return false;
    }
    *ret_sum = sum;
    return true;
}

/**
 * bf_mul_u64:
 * @a: first factor
 * @b: second factor
 * @ret_product: (out): the product; written on success only
 *
 * Returns: false if the product does not fit
 */
static inline bool
bf_mul_u64(uint64_t a, uint64_t b, uint64_t *ret_product)
{
    uint64_t product;

    if (__builtin_mul_overflow(a, b, &product)) {
        return false;
    }
    *ret_product = product;
    return true;
}

/**
 * bf_range_fits:
 * @offset: start of the range, bytes
 * @bytes: length of the range, bytes
 * @size: size of the thing, bytes
 *
 * Returns: true if [@offset, @offset + @bytes) lies within [0, @size)
 */
static inline bool
bf_range_fits(uint64_t offset, uint64_t bytes, uint64_t size)
{
    return offset <= size && bytes <= size - offset;
}

/**
 * bf_align_down:
 * @value: any value up to 2^63
 * @align: a power of two
 *
 * Returns: the largest multiple of @align that is not above @value
 */
static inline uint64_t
bf_align_down(uint64_t value, uint64_t align)
{
    return value & ~(align - 1);
}

/**
 * bf_align_up:
 * @value: any value up to 2^63
 * @align: a power of two
 *
 * Returns: the smallest multiple of @align that is not below @value
 */
static inline uint64_t
bf_align_up(uint64_t value, uint64_t align)
{
    return (value + align - 1) & ~(align - 1);
}

/**
 * bf_fd_cleanup:
 * @fd: the variable that goes out of scope
 *
 * Closes the descriptor if there is one; for bf_autofd.
 */
static inline void
bf_fd_cleanup(const int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
}

/* A descriptor that is closed when the variable goes out of scope. */
#define bf_autofd __attribute__((cleanup(bf_fd_cleanup))) int

/**
 * bf_steal_fd:
 * @fd: (inout): the variable to take the descriptor from; left at -1
 *
 * Returns: (transfer full): the descriptor
 */
static inline int
bf_steal_fd(int *fd)
{
    int stolen = *fd;

    *fd = -1;
    return stolen;
}

/* Unaligned big-endian access: bf_get_be16(p) ... bf_put_be64(p, v). */
#define BF_DEFINE_BE(bits)                                                     \
    static inline uint##bits##_t bf_get_be##bits(const void *p)                \
    {                                                                          \
        uint##bits##_t v;                                                      \
        memcpy(&v, p, sizeof(v));                                              \
        return be##bits##toh(v);                                               \
    }                                                                          \
    static inline void bf_put_be##bits(void *p, uint##bits##_t v)              \
    {                                                                          \
        v = htobe##bits(v);                                                    \
        memcpy(p, &v, sizeof(v));                                              \
    }
BF_DEFINE_BE(16)
BF_DEFINE_BE(32)
BF_DEFINE_BE(64)
#undef BF_DEFINE_BE
