/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Harness of the block layer's tests: a graph on the test's loops, options in
 * few words, and requests that fail the test if they fail.
 */
#pragma once

#include "block/graph.h"
#include "block/handle.h"
#include "block/throttle.h"
#include "schema/types.h"

/**
 * bf_test_graph_new:
 *
 * Returns: (transfer full): a graph on the loops of the running test, with
 * faults allowed and one fd set, "/dev/fdset/1"
 */
BfGraph *bf_test_graph_new(void);

/**
 * bf_test_set_fdset:
 * @fd: borrowed: what "/dev/fdset/1" gives, or -1
 */
void bf_test_set_fdset(int fd);

/**
 * bf_test_set_throttle_group:
 * @id: what it is called
 * @group: borrowed: what is found by @id, and no other one
 */
void bf_test_set_throttle_group(const char *id, BfThrottleGroup *group);

/**
 * bf_test_options:
 * @driver: kind of the node
 * @name: (nullable): name of the node
 *
 * Returns: (transfer full): options with all defaults, and an empty branch
 */
BfBlockdevOptions *bf_test_options(BfBlockdevDriver driver, const char *name);

/**
 * bf_test_file:
 * @name: (nullable): name of the node
 * @path: of the file
 *
 * Returns: (transfer full): options of a file node
 */
BfBlockdevOptions *bf_test_file(const char *name, const char *path);

/**
 * bf_test_raw:
 * @name: (nullable): name of the node
 * @file: (transfer full): from bf_test_ref_str() or bf_test_ref_new()
 *
 * Returns: (transfer full): options of a raw node
 */
BfBlockdevOptions *bf_test_raw(const char *name, BfBlockdevRef *file);

/**
 * bf_test_fault:
 * @name: (nullable): name of the node
 * @image: (transfer full): the child
 * @n_rules: how many empty rules it is to have
 *
 * Returns: (transfer full): options of a fault node
 */
BfBlockdevOptions *bf_test_fault(const char *name, BfBlockdevRef *image,
                                 unsigned n_rules);

/**
 * bf_test_null:
 * @name: (nullable): name of the node
 * @size: bytes
 *
 * Returns: (transfer full): options of a null-co node
 */
BfBlockdevOptions *bf_test_null(const char *name, uint64_t size);

/**
 * bf_test_set_direct:
 * @options: gets cache.direct=on
 *
 * Returns: (transfer full): @options
 */
BfBlockdevOptions *bf_test_set_direct(BfBlockdevOptions *options);

/**
 * bf_test_ref_str:
 * @name: of a node
 *
 * Returns: (transfer full): a reference
 */
BfBlockdevRef *bf_test_ref_str(const char *name);

/**
 * bf_test_ref_new:
 * @options: (transfer full): of a new node
 *
 * Returns: (transfer full): a reference
 */
BfBlockdevRef *bf_test_ref_new(BfBlockdevOptions *options);

/**
 * bf_test_co_add:
 * @graph: the graph
 * @options: (transfer full): of the node
 *
 * Returns: (transfer none): the new node
 */
BfNode *bf_test_co_add(BfGraph *graph, BfBlockdevOptions *options);

/**
 * bf_test_co_add_fails:
 * @graph: the graph
 * @options: (transfer full): of the node
 * @message: pattern, as of g_pattern_match_simple(), that the error fits
 */
void bf_test_co_add_fails(BfGraph *graph, BfBlockdevOptions *options,
                          const char *message);

/**
 * bf_test_co_del:
 * @graph: the graph
 * @name: of a node
 */
void bf_test_co_del(BfGraph *graph, const char *name);

/**
 * bf_test_co_reopen:
 * @graph: the graph
 * @options: (transfer full): the new options of one node
 * @error: set on failure
 *
 * Returns: false on failure
 */
bool bf_test_co_reopen(BfGraph *graph, BfBlockdevOptions *options,
                       GError **error);

/**
 * bf_test_assert_error:
 * @error: (inout): an error that must be there; freed
 * @message: pattern that it fits
 */
void bf_test_assert_error(GError **error, const char *message);

/**
 * bf_test_co_root:
 * @graph: the graph
 * @node_name: of a node
 * @perm: permissions
 *
 * Returns: (transfer full): a root that shares what an export shares
 */
BfRoot *bf_test_co_root(BfGraph *graph, const char *node_name, unsigned perm);

/**
 * bf_test_co_on:
 * @loop: where
 * @fn: runs there as a coroutine
 * @arg: passed to @fn
 *
 * bf_co_call() by a name that reads well in tests.
 */
void bf_test_co_on(BfLoop *loop, BfFn *fn, void *arg);

/**
 * bf_test_co_read:
 * @handle: on the current loop
 * @offset: bytes
 * @buf: (out caller-allocates): room for @bytes
 * @bytes: how many
 *
 * Returns: 0 or -errno
 */
int bf_test_co_read(BfHandle *handle, uint64_t offset, void *buf, size_t bytes);

/**
 * bf_test_co_write:
 * @handle: on the current loop
 * @offset: bytes
 * @buf: the data
 * @bytes: how many
 * @flags: BfIoFlags
 *
 * Returns: 0 or -errno
 */
int bf_test_co_write(BfHandle *handle, uint64_t offset, const void *buf,
                     size_t bytes, unsigned flags);

/**
 * bf_test_file_new:
 * @bytes: size, all holes
 *
 * Returns: (transfer full): path of a new file
 */
char *bf_test_file_new(uint64_t bytes);
