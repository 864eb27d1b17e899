/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Static probes (USDT) for what is hot: BF_TRACE(nbd, request_done, ...) is a
 * no-op instruction that bpftrace or perf can attach to. Without
 * systemtap's sdt.h at build time it is nothing at all. Any thread.
 *
 * Probes, with their arguments; names and arguments are kept stable:
 *
 *   nbd:request_start   connection id, cookie, command, offset, bytes
 *   nbd:request_done    connection id, cookie, bytes, result (0 or -errno)
 *   block:drain_start   node name
 *   block:drain_end     node name, result (0 or -errno)
 */
#pragma once

#if BF_HAVE_SDT
#define SDT_USE_VARIADIC
#include <sys/sdt.h>
#define BF_TRACE(provider, ...) STAP_PROBEV(blockferry_##provider, __VA_ARGS__)
#else
#define BF_TRACE(provider, ...)                                                \
    do {                                                                       \
    } while (0)
#endif
