/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A value that any thread may read and write without order: hints and sticky
 * flags of objects that several loops use. It never guards other memory.
 * Any thread; none suspends.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
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

/**
 * bf_atomic_replace:
 * @atomic: the value
 * @old: what it is to be
 * @value: what to store if it is
 *
 * Returns: true if it was @old; of several threads at most one gets that
 */
static inline bool
bf_atomic_replace(BfAtomicU64 *atomic, uint64_t old, uint64_t value)
{
    return __atomic_compare_exchange_n(&atomic->value, &old, value, false,
                                       __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/**
 * bf_atomic_raise:
 * @atomic: the value
 * @value: what it is to be at least
 */
static inline void
bf_atomic_raise(BfAtomicU64 *atomic, uint64_t value)
{
    uint64_t old = bf_atomic_load(atomic);

    while (old < value && !bf_atomic_replace(atomic, old, value)) {
        old = bf_atomic_load(atomic);
    }
}

/**
 * bf_atomic_drop:
 * @atomic: a count of references, at least 1
 *
 * Takes one off.
 *
 * Returns: true for whoever took the last, who sees all that the others did
 */
static inline bool
bf_atomic_drop(BfAtomicU64 *atomic)
{
    return __atomic_sub_fetch(&atomic->value, 1, __ATOMIC_ACQ_REL) == 0;
}

/**
 * BfAtomicPtr: a pointer that is set once, by whichever thread comes first; all
 * zero is NULL. What it points to was filled before.
 *
 * The field is private.
 */
typedef struct BfAtomicPtr {
    void *value;
} BfAtomicPtr;

/**
 * bf_atomic_ptr_load:
 * @atomic: the pointer
 *
 * Returns: (transfer none) (nullable): what was set
 */
static inline void *
bf_atomic_ptr_load(const BfAtomicPtr *atomic)
{
    return __atomic_load_n(&atomic->value, __ATOMIC_ACQUIRE);
}

/**
 * bf_atomic_ptr_set_once:
 * @atomic: the pointer
 * @value: what to set
 *
 * Returns: true if it was NULL and is @value now
 */
static inline bool
bf_atomic_ptr_set_once(BfAtomicPtr *atomic, void *value)
{
    void *none = NULL;

    return __atomic_compare_exchange_n(&atomic->value, &none, value, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
