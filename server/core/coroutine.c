/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Coroutines: stacks, the switch between them, and the run queue of a thread.
 *
 * Before changing the switch, know this: switch_stacks() is an ordinary call
 * for the compiler, so only what the ABI calls callee-saved must survive it.
 * The control words of x87 and SSE (rounding, exceptions) are callee-saved
 * too, but belong to the thread here: nothing in the program changes them, so
 * they are the same on both sides and are not saved. The same holds for FPCR
 * on aarch64, and for the signal mask, which a switch leaves alone.
 *
 * A stack and its BfCo are one mapping. An ended coroutine stays in the loop
 * of co_main() and is entered again by its next use, so that neither stack
 * nor the sanitizers' idea of it are made anew each time.
 */
#include "core/coroutine.h"

#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#include <glib.h>

#include "coroutine-private.h"
#include "sanitizer-private.h"

#if BF_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/lsan_interface.h>
#endif

#if !defined(__x86_64__) && !defined(__aarch64__)
#define CO_UCONTEXT 1
#include <ucontext.h>
#else
#define CO_UCONTEXT 0
#endif

/* Frames are several times larger when sanitizers guard each variable. */
#if BF_ASAN || BF_TSAN
#define STACK_BYTES (256 * 1024)
#else
#define STACK_BYTES (64 * 1024)
#endif

/* Below each stack; larger than any frame, so that none steps over it. */
#define GUARD_BYTES (64 * 1024)

/* Idle stacks that a thread keeps; about the requests of one connection. */
#define IDLE_MAX 256

/*
 * Stacks are page aligned, so the same depth of all stacks would share a few
 * sets of the first-level cache. Each stack starts a little lower than the
 * one made before.
 */
#define COLOURS 16
#define COLOUR_BYTES 192

typedef enum BfCoState {
    BF_CO_IDLE,      /* on the list of idle stacks, or never started */
    BF_CO_READY,     /* on the run queue */
    BF_CO_RUNNING,   /* runs, or has entered a coroutine that runs */
    BF_CO_SUSPENDED, /* waits for bf_co_wake() */
} BfCoState;

typedef struct BfCoThread BfCoThread;

struct BfCo {
    BfCo *next;         /* on the run queue or on the list of idle stacks */
    BfCo *caller;       /* who entered it and gets control back */
    BfCoThread *thread; /* where it was created and stays */
    BfFn *fn;
    void *arg;
    BfCoState state;
    void *mapping; /* guard and stack; NULL for a thread's own stack */
    size_t mapping_bytes;
#if CO_UCONTEXT
    ucontext_t context;
#else
    void *sp; /* where the callee-saved registers are */
#endif
#if BF_ASAN
    const void *stack_bottom;
    size_t stack_bytes;
    void *fake_stack;
#endif
#if BF_TSAN
    void *fiber;
#endif
};

struct BfCoThread {
    BfCo root;     /* stands for the thread's own stack */
    BfCo *current; /* NULL while the thread's own stack runs */
    BfCo *ready_head;
    BfCo *ready_tail;
    BfCo *idle;
    unsigned idle_count;
    unsigned idle_low;   /* fewest since bf_sched_trim_spare() */
    unsigned live_count; /* coroutines that have not ended */
    unsigned next_colour;
};

static __thread BfCoThread co_thread;

/* For functions that run while the stack is being changed. */
#define NO_SANITIZE                                                            \
    __attribute__((noinline, no_sanitize_address, no_sanitize_thread))

#if defined(__x86_64__)

/* switch_stacks(save, load): callee-saved registers to the stack, *save = sp,
 * sp = load, and back. The indirect jump is predicted better than a return
 * that no call belongs to. */
__asm__(".text\n"
        ".p2align 4\n"
        ".hidden bf_co_stack_switch\n"
        ".globl bf_co_stack_switch\n"
        ".type bf_co_stack_switch, @function\n"
        "bf_co_stack_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    popq %rcx\n"
        "    jmp *%rcx\n"
        ".size bf_co_stack_switch, . - bf_co_stack_switch\n");

#define SAVED_WORDS 7  /* six registers and the address to go to */
#define SAVED_TARGET 6 /* which of them is the address */
#define ENTRY_WORDS                                                            \
    1 /* a function starts as if a return address were there                   \
       */

#elif defined(__aarch64__)

__asm__(".text\n"
        ".p2align 4\n"
        ".hidden bf_co_stack_switch\n"
        ".globl bf_co_stack_switch\n"
        ".type bf_co_stack_switch, %function\n"
        "bf_co_stack_switch:\n"
        "    sub sp, sp, #160\n"
        "    stp x19, x20, [sp]\n"
        "    stp x21, x22, [sp, #16]\n"
        "    stp x23, x24, [sp, #32]\n"
        "    stp x25, x26, [sp, #48]\n"
        "    stp x27, x28, [sp, #64]\n"
        "    stp x29, x30, [sp, #80]\n"
        "    stp d8, d9, [sp, #96]\n"
        "    stp d10, d11, [sp, #112]\n"
        "    stp d12, d13, [sp, #128]\n"
        "    stp d14, d15, [sp, #144]\n"
        "    mov x9, sp\n"
        "    str x9, [x0]\n"
        "    mov sp, x1\n"
        "    ldp x19, x20, [sp]\n"
        "    ldp x21, x22, [sp, #16]\n"
        "    ldp x23, x24, [sp, #32]\n"
        "    ldp x25, x26, [sp, #48]\n"
        "    ldp x27, x28, [sp, #64]\n"
        "    ldp x29, x30, [sp, #80]\n"
        "    ldp d8, d9, [sp, #96]\n"
        "    ldp d10, d11, [sp, #112]\n"
        "    ldp d12, d13, [sp, #128]\n"
        "    ldp d14, d15, [sp, #144]\n"
        "    add sp, sp, #160\n"
        "    ret\n"
        ".size bf_co_stack_switch, . - bf_co_stack_switch\n");

#define SAVED_WORDS 20
#define SAVED_TARGET 11 /* x30 */
#define ENTRY_WORDS 0

#endif

#if !CO_UCONTEXT
void bf_co_stack_switch(void **save, void *load);
#endif

static inline BfCo *
running(BfCoThread *thread)
{
    return thread->current != NULL ? thread->current : &thread->root;
}

NO_SANITIZE static void
switch_to(BfCo *from, BfCo *to, bool from_ends)
{
#if BF_ASAN
    from->fake_stack = NULL;
    __sanitizer_start_switch_fiber(from_ends ? NULL : &from->fake_stack,
                                   to->stack_bottom, to->stack_bytes);
#endif
#if BF_TSAN
    if (from->fiber == NULL) {
        from->fiber = __tsan_get_current_fiber();
    }
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
#if CO_UCONTEXT
    swapcontext(&from->context, &to->context);
#else
    bf_co_stack_switch(&from->sp, to->sp);
#endif
#if BF_ASAN
    __sanitizer_finish_switch_fiber(from->fake_stack, NULL, NULL);
#endif
}

/* What every stack runs: one body after the other. */
NO_SANITIZE static void
co_main(void)
{
    BfCo *co = co_thread.current;

#if BF_ASAN
    /* The first switch of all tells where the thread's own stack is. */
    __sanitizer_finish_switch_fiber(NULL, &co->caller->stack_bottom,
                                    &co->caller->stack_bytes);
#endif
    for (;;) {
        co->fn(co->arg);
        co->state = BF_CO_IDLE;
        co_thread.current = co->caller == &co_thread.root ? NULL : co->caller;
        switch_to(co, co->caller, true);
    }
}

static void
prepare_stack(BfCo *co, char *stack)
{
#if CO_UCONTEXT
    g_assert(getcontext(&co->context) == 0);
    co->context.uc_stack.ss_sp = stack;
    co->context.uc_stack.ss_size = (size_t)((char *)co - stack);
    co->context.uc_link = NULL;
    makecontext(&co->context, co_main, 0);
#else
    uintptr_t top = (uintptr_t)co & ~(uintptr_t)15;
    void **sp = (void **)top - ENTRY_WORDS - SAVED_WORDS;

    /* A zero frame pointer and return address end backtraces. The mapping is
     * fresh, so all other words are zero already. */
    sp[SAVED_TARGET] = (void *)co_main;
    co->sp = sp;
#endif
#if BF_ASAN
    co->stack_bottom = stack;
    co->stack_bytes = STACK_BYTES;
    __lsan_register_root_region(stack, STACK_BYTES);
#endif
#if BF_TSAN
    co->fiber = __tsan_create_fiber(0);
#endif
}

static BfCo *
stack_new(BfCoThread *thread)
{
    size_t bytes = GUARD_BYTES + STACK_BYTES;
    char *mapping =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);

    if (mapping == MAP_FAILED ||
        mprotect(mapping, GUARD_BYTES, PROT_NONE) != 0) {
        g_error("no memory for the stack of a coroutine: %s (is "
                "vm.max_map_count or a memory limit too low?)",
                g_strerror(errno));
    }

    size_t colour = thread->next_colour++ % COLOURS * COLOUR_BYTES;
    uintptr_t top = (uintptr_t)(mapping + bytes - sizeof(BfCo) - colour);
    BfCo *co = (BfCo *)(top & ~(uintptr_t)63);

    co->thread = thread;
    co->mapping = mapping;
    co->mapping_bytes = bytes;
    prepare_stack(co, mapping + GUARD_BYTES);
    return co;
}

static void
stack_free(BfCo *co)
{
    char *stack = (char *)co->mapping + co->mapping_bytes - STACK_BYTES;

#if BF_ASAN
    __lsan_unregister_root_region(stack, STACK_BYTES);
    /* Else the next mapping here would seem to be poisoned. */
    __asan_unpoison_memory_region(stack, STACK_BYTES);
#endif
#if BF_TSAN
    __tsan_destroy_fiber(co->fiber);
#endif
    (void)stack;
    g_assert(munmap(co->mapping, co->mapping_bytes) == 0);
}

static BfCo *
co_new(BfCoThread *thread, BfFn *fn, void *arg)
{
    BfCo *co = thread->idle;

    if (co != NULL) {
        thread->idle = co->next;
        thread->idle_count--;
        thread->idle_low = MIN(thread->idle_low, thread->idle_count);
    } else {
        co = stack_new(thread);
    }
    co->next = NULL;
    co->fn = fn;
    co->arg = arg;
    thread->live_count++;
    return co;
}

/* Gives the stack of an ended coroutine back; runs on another stack. */
static void
recycle(BfCoThread *thread, BfCo *co)
{
    thread->live_count--;
    if (thread->idle_count < IDLE_MAX) {
        co->next = thread->idle;
        thread->idle = co;
        thread->idle_count++;
    } else {
        stack_free(co);
    }
}

/* Runs @co until it suspends or ends. */
static void
enter(BfCoThread *thread, BfCo *co)
{
    BfCo *from = running(thread);

    co->caller = from;
    co->state = BF_CO_RUNNING;
    thread->current = co;
    switch_to(from, co, false);
    if (co->state == BF_CO_IDLE) {
        recycle(thread, co);
    }
}

/* Gives control back to whoever entered the running coroutine. */
static void
leave(BfCoThread *thread, BfCo *co)
{
    BfCo *to = co->caller;

    thread->current = to == &thread->root ? NULL : to;
    switch_to(co, to, false);
}

static void
make_ready(BfCoThread *thread, BfCo *co)
{
    co->state = BF_CO_READY;
    co->next = NULL;
    if (thread->ready_head == NULL) {
        thread->ready_head = co;
    } else {
        thread->ready_tail->next = co;
    }
    thread->ready_tail = co;
}

void
bf_co_spawn(BfFn *fn, void *arg)
{
    enter(&co_thread, co_new(&co_thread, fn, arg));
}

void
bf_co_spawn_later(BfFn *fn, void *arg)
{
    make_ready(&co_thread, co_new(&co_thread, fn, arg));
}

BfCo *
bf_co_self(void)
{
    return co_thread.current;
}

void
bf_co_suspend(void)
{
    BfCo *co = co_thread.current;

    g_assert(co != NULL);
    co->state = BF_CO_SUSPENDED;
    leave(&co_thread, co);
}

void
bf_co_wake(BfCo *co)
{
    g_assert(co->thread == &co_thread);
    g_assert(co->state == BF_CO_SUSPENDED);
    make_ready(&co_thread, co);
}

void
bf_co_yield(void)
{
    BfCo *co = co_thread.current;

    g_assert(co != NULL);
    make_ready(&co_thread, co);
    leave(&co_thread, co);
}

bool
bf_sched_has_ready(void)
{
    return co_thread.ready_head != NULL;
}

unsigned
bf_sched_run(unsigned max)
{
    BfCoThread *thread = &co_thread;
    unsigned count = 0;

    g_assert(thread->current == NULL);
    while (thread->ready_head != NULL && count < max) {
        BfCo *co = thread->ready_head;

        thread->ready_head = co->next;
        enter(thread, co);
        count++;
    }
    return count;
}

unsigned
bf_sched_count(void)
{
    return co_thread.live_count;
}

unsigned
bf_sched_idle_count(void)
{
    return co_thread.idle_count;
}

static void
free_idle(BfCoThread *thread, unsigned count)
{
    while (count-- > 0) {
        BfCo *co = thread->idle;

        thread->idle = co->next;
        thread->idle_count--;
        stack_free(co);
    }
    thread->idle_low = thread->idle_count;
}

void
bf_sched_trim(void)
{
    free_idle(&co_thread, co_thread.idle_count);
}

void
bf_sched_trim_spare(void)
{
    free_idle(&co_thread, co_thread.idle_low);
}
