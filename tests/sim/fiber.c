/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fibers: blocking code of a process, on a stack of its own, that gives way at each I/O and sleep.
 *
 * Happy path: an event of the process starts or resumes the fiber by a swap of contexts, the fiber
 * swaps back when it must wait or has ended. A fiber whose process has died is never resumed; its
 * stack is used again, nothing on it is unwound, as nothing is in a killed process. Failure modes:
 * too deep a stack hits the guard page and the run dies of SIGSEGV.
 */
#include <assert.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "sim/internal.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define STACK_SIZE (512u << 10) /* its red zones make frames several times as large */
#else
#define STACK_SIZE (128u << 10)
#endif
#define GUARD_SIZE 4096u

/* A scheduler is not a clock: each start, wake and end of blocking code comes a little late. */
#define JITTER_US 20u

struct fiber {
    ucontext_t context;
    uint8_t *stack; /* behind the guard page; NULL: not begun or over */
    struct process *process;
    const char *name;
    void (*fn)(void *data);
    void (*done)(void *data);
    void *data;
    bool stopped, over;
    struct fiber *next; /* of the process's */
    void *fake_stack;   /* ASan's */
};

static struct fiber *running;
static ucontext_t scheduler;
static uint8_t *free_stacks[64];
static uint32_t n_free_stacks;

/* --- what ASan must be told --- */

#if defined(__SANITIZE_ADDRESS__)
static const void *scheduler_bottom;
static size_t scheduler_size;
static void *scheduler_fake;

static void entering(const struct fiber *f)
{
    __sanitizer_start_switch_fiber(&scheduler_fake, f->stack, STACK_SIZE);
}

static void left(void)
{
    __sanitizer_finish_switch_fiber(scheduler_fake, NULL, NULL);
}

static void entered(struct fiber *f)
{
    __sanitizer_finish_switch_fiber(f->fake_stack, &scheduler_bottom, &scheduler_size);
}

/* `forever`: what the fiber has on ASan's side stack is freed. */
static void leaving(struct fiber *f, bool forever)
{
    __sanitizer_start_switch_fiber(forever ? NULL : &f->fake_stack, scheduler_bottom,
                                   scheduler_size);
}

static void clean(uint8_t *stack)
{
    __asan_unpoison_memory_region(stack, STACK_SIZE);
}
#else
static void entering(const struct fiber *f)
{
    (void)f;
}

static void left(void)
{
}

static void entered(struct fiber *f)
{
    (void)f;
}

static void leaving(struct fiber *f, bool forever)
{
    (void)f;
    (void)forever;
}

static void clean(uint8_t *stack)
{
    (void)stack;
}
#endif

/* --- stacks --- */

static uint8_t *stack_take(void)
{
    if (n_free_stacks > 0)
        return free_stacks[--n_free_stacks];
    uint8_t *p = mmap(NULL, GUARD_SIZE + STACK_SIZE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED || mprotect(p, GUARD_SIZE, PROT_NONE) < 0)
        abort();
    return p + GUARD_SIZE;
}

static void stack_give_back(struct fiber *f)
{
    if (!f->stack)
        return;
    clean(f->stack);
    if (n_free_stacks < sizeof free_stacks / sizeof *free_stacks)
        free_stacks[n_free_stacks++] = f->stack;
    else
        munmap(f->stack - GUARD_SIZE, GUARD_SIZE + STACK_SIZE);
    f->stack = NULL;
}

/* --- switching --- */

static uint64_t soon(void)
{
    return sim_now_us() + sim_random(STREAM_SCHEDULE, JITTER_US);
}

static void swap_out(bool forever)
{
    struct fiber *f = running;
    leaving(f, forever);
    swapcontext(&f->context, &scheduler);
    entered(f);
}

static void fiber_main(void)
{
    struct fiber *f = running;
    entered(f);
    f->fn(f->data);
    f->over = true;
    swap_out(true);
    abort(); /* nobody resumes it */
}

static void unlink_fiber(struct fiber *f)
{
    struct fiber **at = (struct fiber **)&f->process->fibers;
    while (*at && *at != f)
        at = &(*at)->next;
    if (*at)
        *at = f->next;
}

static void on_over(void *data)
{
    struct fiber *f = data;
    void (*done)(void *) = f->done;
    void *done_data = f->data;
    free(f);
    if (done)
        done(done_data);
}

static void resume(void *data)
{
    struct fiber *f = data;
    f->stopped = false;
    running = f;
    entering(f);
    swapcontext(&scheduler, &f->context);
    left();
    running = NULL;
    if (!process_alive(f->process)) {
        stack_give_back(f);
    } else if (f->over) {
        stack_give_back(f);
        unlink_fiber(f);
        process_at(f->process, soon(), on_over, f);
    }
}

static void begin(void *data)
{
    struct fiber *f = data;
    f->stack = stack_take();
    if (getcontext(&f->context) < 0)
        abort();
    f->context.uc_stack.ss_sp = f->stack;
    f->context.uc_stack.ss_size = STACK_SIZE;
    f->context.uc_link = NULL;
    makecontext(&f->context, fiber_main, 0);
    resume(f);
}

void fiber_start(struct process *p, const char *name, void (*fn)(void *data),
                 void (*done)(void *data), void *data)
{
    struct fiber *f = calloc(1, sizeof *f);
    if (!f)
        abort();
    f->process = p;
    f->name = name;
    f->fn = fn;
    f->done = done;
    f->data = data;
    f->next = p->fibers;
    p->fibers = f;
    process_at(p, soon(), begin, f);
}

/* --- inside one --- */

bool fiber_inside(void)
{
    return running != NULL;
}

struct fiber *fiber_self(void)
{
    assert(running);
    return running;
}

void fiber_stop(void)
{
    assert(running && !running->stopped);
    running->stopped = true;
    swap_out(false);
}

void fiber_wake(struct fiber *fiber)
{
    assert(fiber->stopped && process_alive(fiber->process));
    fiber->stopped = false; /* good for one wake */
    process_at(fiber->process, soon(), resume, fiber);
}

static void on_slept(void *data)
{
    fiber_wake(data);
}

void fiber_sleep(uint64_t us)
{
    assert(running);
    process_at(running->process, sim_now_us() + us, on_slept, running);
    fiber_stop();
}

void fiber_forget(struct process *p)
{
    bool inside = running && running->process == p;
    for (struct fiber *f = p->fibers; f; f = f->next)
        if (f != running)
            stack_give_back(f);
    p->fibers = NULL;
    if (inside)
        fiber_abandon();
}

void fiber_abandon(void)
{
    swap_out(true);
    abort();
}

void fiber_reset(void)
{
    assert(!running);
}
