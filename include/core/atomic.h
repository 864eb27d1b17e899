/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A value that any thread may read and write without order: hints and sticky
 * flags of objects that several loops use. It never guards other memory.
 * Any thread; none suspends.
 */
#pragma once

#include <stdint.h>

/**
 * BfAtomicU64: such a value; all zero is 0
 *
 * The field is private.
 */
typedef struct BfAtomicU64 {
    uint64_t value;
} BfAtomicU64;

/**
 * bf_atomic_load:
 * @atomic: the value
 *
 * Returns: what was stored last, or a little before
 */
static inline uint64_t
bf_atomic_load(const BfAtomicU64 *atomic)
{
    return __atomic_load_n(&atomic->value, __ATOMIC_RELAXED);
}

/**
 * bf_atomic_store:
 * @atomic: the value
 * @value: what to store
 */
static inline void
bf_atomic_store(BfAtomicU64 *atomic, uint64_t value)
{
    __atomic_store_n(&atomic->value, value, __ATOMIC_RELAXED);
}

/**
 * bf_atomic_add:
 * @atomic: the value
 * @n: what to add, wrapping around
 *
 * Returns: the value before
 */
static inline uint64_t
bf_atomic_add(BfAtomicU64 *atomic, uint64_t n)
{
    return __atomic_fetch_add(&atomic->value, n, __ATOMIC_RELAXED);
}
