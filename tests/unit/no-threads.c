/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The linker turns each call of pthread_create() into one of the function here
 * (--wrap), which fails as at the limit of processes when told to.
 */
#include "no-threads.h"

#include <errno.h>
#include <pthread.h>

static bool refuses;
static unsigned refused;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                          void *(*fn)(void *arg), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                          void *(*fn)(void *arg), void *arg);

int
__wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
                      void *(*fn)(void *arg), void *arg)
{
    if (__atomic_load_n(&refuses, __ATOMIC_SEQ_CST)) {
        __atomic_add_fetch(&refused, 1, __ATOMIC_SEQ_CST);
        return EAGAIN;
    }
    return __real_pthread_create(thread, attr, fn, arg);
}

void
bf_test_refuse_threads(bool refuse)
{
    __atomic_store_n(&refuses, refuse, __ATOMIC_SEQ_CST);
}

unsigned
bf_test_threads_refused(void)
{
    return __atomic_load_n(&refused, __ATOMIC_SEQ_CST);
}
