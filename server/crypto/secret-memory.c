/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory of secrets. Each has pages of its own, because locking and leaving
 * out of core dumps are properties of pages; secrets are few and small.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/error.h"
#include "core/util.h"
#include "secret-private.h"

BfSecret *
bf_secret_alloc(size_t len)
{
    BfSecret *secret = g_atomic_rc_box_new0(BfSecret);
    size_t mapped = bf_align_up(len + 1, (uint64_t)sysconf(_SC_PAGESIZE));
    void *bytes = mmap(NULL, mapped, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (bytes == MAP_FAILED) {
        g_error("out of memory: %zu bytes for a secret", mapped);
    }
    secret->bytes = bytes;
    secret->len = len;
    secret->mapped = mapped;
    /* Not by the library's function, which sanitizers make do nothing. */
    secret->is_locked = syscall(SYS_mlock, bytes, mapped) == 0;
    (void)madvise(bytes, mapped, MADV_DONTDUMP);
    return secret;
}

static void
release(gpointer data)
{
    BfSecret *secret = data;

    explicit_bzero(secret->bytes, secret->mapped);
    munmap(secret->bytes, secret->mapped); /* and unlocks it */
}

void
bf_secret_cut(BfSecret *secret, size_t len)
{
    g_assert(len <= secret->len);
    explicit_bzero(secret->bytes + len, secret->len - len);
    secret->len = len;
}

BfSecret *
bf_secret_ref(BfSecret *secret)
{
    return g_atomic_rc_box_acquire(secret);
}

void
bf_secret_unref(BfSecret *secret)
{
    if (secret != NULL) {
        g_atomic_rc_box_release_full(secret, release);
    }
}

bool
bf_secret_is_locked(const BfSecret *secret)
{
    return secret->is_locked;
}

BfSecret *
bf_secret_new_bytes(const void *bytes, size_t len)
{
    BfSecret *secret = bf_secret_alloc(len);

    if (len > 0) {
        memcpy(secret->bytes, bytes, len);
    }
    return secret;
}

const uint8_t *
bf_secret_get_bytes(const BfSecret *secret, size_t *ret_len)
{
    *ret_len = secret->len;
    return secret->bytes;
}

const char *
bf_secret_get_text(const BfSecret *secret, const char *id, GError **error)
{
    const char *text = (const char *)secret->bytes;

    if (!g_utf8_validate_len(text, secret->len, NULL)) {
        bf_set_error(error,
                     "Data from secret %s is not valid UTF-8; a password "
                     "must be text without NUL bytes",
                     id);
        return NULL;
    }
    return text;
}
