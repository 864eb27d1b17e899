/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * I/O vectors, aligned buffers, and budgets that bound their memory.
 *
 * BfIoVec is a value on its owner's stack or in its struct; it borrows the
 * memory it points to. Buffers may be freed on any loop. None suspends.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <glib.h>

/* Most elements of one vector; IOV_MAX of Linux. */
#define BF_IOVEC_MAX 1024
#define BF_IOVEC_INLINE 4

/**
 * BfIoVec: a list of memory pieces
 * @iov: the pieces; @inline_iov while there are few
 * @niov: number of pieces
 * @capacity: room in @iov
 * @bytes: sum of the lengths, bytes
 *
 * Do not copy by assignment (@iov may point into itself); use
 * bf_iovec_init_slice().
 */
typedef struct BfIoVec {
    struct iovec *iov;
    int niov;
    int capacity;
    size_t bytes;
    struct iovec inline_iov[BF_IOVEC_INLINE];
} BfIoVec;

/**
 * bf_iovec_init:
 * @vec: (out caller-allocates): becomes empty
 */
void bf_iovec_init(BfIoVec *vec);

/**
 * bf_iovec_init_buf:
 * @vec: (out caller-allocates): becomes a vector of one piece
 * @buf: borrowed
 * @bytes: its length
 */
void bf_iovec_init_buf(BfIoVec *vec, void *buf, size_t bytes);

/**
 * bf_iovec_init_slice:
 * @vec: (out caller-allocates): becomes a view of a part of @from
 * @from: another vector
 * @skip: bytes to leave out in front, at most @from's
 * @bytes: length of the part; @skip + @bytes is at most @from's
 */
void bf_iovec_init_slice(BfIoVec *vec, const BfIoVec *from, size_t skip,
                         size_t bytes);

/**
 * bf_iovec_clear:
 * @vec: initialised
 *
 * Frees the list, not the memory it points to.
 */
void bf_iovec_clear(BfIoVec *vec);

/**
 * bf_iovec_add:
 * @vec: a vector with less than %BF_IOVEC_MAX pieces
 * @buf: borrowed
 * @bytes: its length; 0 adds nothing
 */
void bf_iovec_add(BfIoVec *vec, void *buf, size_t bytes);

/**
 * bf_iovec_fill:
 * @vec: where to
 * @skip: bytes to leave alone in front
 * @bytes: how many to set
 * @byte: the value
 */
void bf_iovec_fill(const BfIoVec *vec, size_t skip, size_t bytes, uint8_t byte);

/**
 * bf_iovec_read:
 * @vec: where from
 * @skip: bytes to skip in front
 * @buf: (out caller-allocates): room for @bytes
 * @bytes: how many to copy; all must exist
 */
void bf_iovec_read(const BfIoVec *vec, size_t skip, void *buf, size_t bytes);

/**
 * bf_iovec_write:
 * @vec: where to
 * @skip: bytes to skip in front
 * @buf: what to copy
 * @bytes: how many; all must fit
 */
void bf_iovec_write(const BfIoVec *vec, size_t skip, const void *buf,
                    size_t bytes);

/**
 * bf_iovec_is_zero:
 * @vec: a vector
 *
 * Returns: true if every byte is 0
 */
bool bf_iovec_is_zero(const BfIoVec *vec);

/**
 * bf_iovec_is_aligned:
 * @vec: a vector
 * @align: a power of two
 *
 * Returns: true if every piece's address and length are multiples of @align
 */
bool bf_iovec_is_aligned(const BfIoVec *vec, size_t align);

/**
 * bf_mem_is_zero:
 * @buf: memory
 * @bytes: its length
 *
 * Returns: true if every byte is 0
 */
bool bf_mem_is_zero(const void *buf, size_t bytes);

/**
 * bf_buffer_new:
 * @bytes: 1..64 MiB
 *
 * Takes an uninitialised buffer, aligned to 4096, from the thread's cache or
 * the system. Bulk buffers are not returned to the system at once, because
 * mapping and unmapping costs more than the copy into them.
 *
 * Returns: (transfer full) (nullable): NULL when out of memory
 */
void *bf_buffer_new(size_t bytes);

/**
 * bf_buffer_free:
 * @buf: (nullable): from bf_buffer_new(); any thread
 * @bytes: the size it was made with
 */
void bf_buffer_free(void *buf, size_t bytes);

/**
 * bf_buffer_trim:
 *
 * Gives the calling thread's cached buffers back to the system. The loop calls
 * it when it has been idle and when its thread ends.
 */
void bf_buffer_trim(void);

/**
 * BfBudget: how much memory a group of users may hold at once
 * @limit: bytes
 * @used: bytes, atomic
 *
 * Shared by threads.
 */
typedef struct BfBudget {
    size_t limit;
    size_t used;
} BfBudget;

/**
 * bf_budget_try_take:
 * @budget: a budget
 * @bytes: how many to take
 *
 * Returns: false, and nothing is taken, if the limit would be passed
 */
bool bf_budget_try_take(BfBudget *budget, size_t bytes);

/**
 * bf_budget_free:
 * @budget: a budget
 *
 * Returns: how many bytes may be taken now; others may be taking them
 */
size_t bf_budget_free(const BfBudget *budget);

/**
 * bf_budget_force_take:
 * @budget: a budget
 * @bytes: how many to take, even past the limit: for a user's reserve
 */
void bf_budget_force_take(BfBudget *budget, size_t bytes);

/**
 * bf_budget_give_back:
 * @budget: a budget
 * @bytes: taken before
 */
void bf_budget_give_back(BfBudget *budget, size_t bytes);
