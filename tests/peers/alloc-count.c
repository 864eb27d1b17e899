/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * alloc-count: a library to preload, which counts what a program allocates,
 * frees and locks, while it runs.
 *
 * ALLOC_COUNT_FILE names a file of at least sizeof(Counters) bytes, where the
 * numbers are kept; tests/peers/alloccount.py makes and reads it. What is
 * counted goes on to glibc and GLib. Not for programs with a sanitizer, which
 * brings an allocator of its own.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PUBLIC __attribute__((visibility("default")))

/* As alloccount.py reads it. */
typedef struct Counters {
    uint64_t allocations;
    uint64_t frees;
    uint64_t locks;
} Counters;

static Counters until_mapped;
static Counters *counters = &until_mapped;

static void
count(uint64_t *counter)
{
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

/* glibc's own, which need no dlsym() and so no allocation to be found. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern void __libc_free(void *block);

typedef int MutexLock(pthread_mutex_t *);
typedef void GMutexLock(void *);

static MutexLock *next_mutex_lock;
static GMutexLock *next_g_mutex_lock;

PUBLIC void *
malloc(size_t size)
{
    count(&counters->allocations);
    return __libc_malloc(size);
}

PUBLIC void *
calloc(size_t n, size_t size)
{
    count(&counters->allocations);
    return __libc_calloc(n, size);
}

PUBLIC void *
realloc(void *block, size_t size)
{
    count(&counters->allocations);
    return __libc_realloc(block, size);
}

PUBLIC void *
memalign(size_t alignment, size_t size)
{
    count(&counters->allocations);
    return __libc_memalign(alignment, size);
}

PUBLIC void *
aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

PUBLIC int
posix_memalign(void **ret_block, size_t alignment, size_t size)
{
    void *block = memalign(alignment, size);

    if (block == NULL) {
        return ENOMEM;
    }
    *ret_block = block;
    return 0;
}

PUBLIC void
free(void *block)
{
    if (block != NULL) {
        count(&counters->frees);
    }
    __libc_free(block);
}

PUBLIC int
pthread_mutex_lock(pthread_mutex_t *mutex)
{
    count(&counters->locks);
    if (next_mutex_lock == NULL) {
        next_mutex_lock = (MutexLock *)dlsym(RTLD_NEXT, "pthread_mutex_lock");
    }
    return next_mutex_lock(mutex);
}

/* GLib's mutexes are no pthread ones. */
PUBLIC void g_mutex_lock(void *mutex);

PUBLIC void
g_mutex_lock(void *mutex)
{
    count(&counters->locks);
    if (next_g_mutex_lock == NULL) {
        next_g_mutex_lock = (GMutexLock *)dlsym(RTLD_NEXT, "g_mutex_lock");
    }
    next_g_mutex_lock(mutex);
}

static void __attribute__((constructor)) start(void)
{
    const char *path = getenv("ALLOC_COUNT_FILE");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *map = MAP_FAILED;

    if (fd >= 0) {
        map = mmap(NULL, sizeof(Counters), PROT_READ | PROT_WRITE, MAP_SHARED,
                   fd, 0);
        close(fd);
    }
    if (map != MAP_FAILED) {
        counters = map;
    }
}
