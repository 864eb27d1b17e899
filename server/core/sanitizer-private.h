/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which sanitizer this build is for, as 0 or 1. gcc and clang say it in
 * different ways; -Wundef wants both names defined.
 */
#pragma once

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define BF_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define BF_TSAN 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define BF_ASAN 1
#endif
#ifdef __SANITIZE_THREAD__
#define BF_TSAN 1
#endif
#ifndef BF_ASAN
#define BF_ASAN 0
#endif
#ifndef BF_TSAN
#define BF_TSAN 0
#endif

/*
 * ThreadSanitizer does not see order that the kernel makes: what happened
 * before @addr was released happened before it is acquired.
 */
#if BF_TSAN
#include <sanitizer/tsan_interface.h>
#define BF_TSAN_RELEASE(addr) __tsan_release(addr)
#define BF_TSAN_ACQUIRE(addr) __tsan_acquire(addr)
#else
#define BF_TSAN_RELEASE(addr)                                                  \
    do {                                                                       \
    } while (0)
#define BF_TSAN_ACQUIRE(addr)                                                  \
    do {                                                                       \
    } while (0)
#endif
