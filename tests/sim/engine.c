/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event queue: one binary heap ordered by (time, number), and whose event it is.
 *
 * Happy path: the next event is taken, its process made the current one, its function called, the
 * invariants checked. An event of a process that has died is dropped; one whose machine is paused
 * is parked and goes on, in the old order, when the machine does. Failure modes: a process that
 * dies in its own event never returns from it: the scheduler is jumped to.
 */
#include <assert.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include "sim/internal.h"

struct sim_event {
    void (*fn)(void *data);
    void *data;
    struct process *process; /* NULL: the world's or a machine's */
    struct machine *machine; /* NULL: the world's */
    uint32_t boot;
    uint32_t place; /* in the heap, from 1; 0: not there */
    bool parked;
    uint64_t at_us, pushed_us;         /* when it is due, and when that was said */
    struct sim_event *next, *previous; /* of the parked; next alone: of the free */
};

struct entry {
    uint64_t at_us, number;
    struct sim_event *event;
};

struct parked {
    struct sim_event *first, *last;
};

static struct entry *heap; /* heap[1..n] */
static uint32_t heap_n, heap_room;
static uint64_t now_us, next_number;
static struct sim_event *free_events;
static struct parked parked[SIM_NODES_MAX + 1];
static struct process *current;
static jmp_buf scheduler;

struct sim_hooks sim_hooks;

uint64_t sim_now_us(void)
{
    return now_us;
}

struct process *process_current(void)
{
    return current;
}

struct process *engine_set_current(struct process *p)
{
    struct process *before = current;
    current = p;
    return before;
}

/* --- the heap --- */

static bool before(const struct entry *a, const struct entry *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->number < b->number;
}

static void put(uint32_t place, const struct entry *e)
{
    heap[place] = *e;
    e->event->place = place;
}

static void sift_up(uint32_t place, struct entry e)
{
    for (; place > 1 && before(&e, &heap[place / 2]); place /= 2)
        put(place, &heap[place / 2]);
    put(place, &e);
}

static void sift_down(uint32_t place, struct entry e)
{
    for (;;) {
        uint32_t child = place * 2;
        if (child > heap_n)
            break;
        if (child < heap_n && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &e))
            break;
        put(place, &heap[child]);
        place = child;
    }
    put(place, &e);
}

static void heap_push(struct sim_event *event, uint64_t at_us)
{
    if (heap_n + 1 >= heap_room) {
        heap_room = heap_room ? heap_room * 2 : 4096;
        heap = realloc(heap, heap_room * sizeof *heap);
        if (!heap)
            abort();
    }
    struct entry e = {at_us > now_us ? at_us : now_us, next_number++, event};
    event->at_us = e.at_us;
    event->pushed_us = now_us;
    sift_up(++heap_n, e);
}

static void heap_remove(uint32_t place)
{
    heap[place].event->place = 0;
    struct entry last = heap[heap_n--];
    if (place > heap_n)
        return;
    if (place > 1 && before(&last, &heap[place / 2]))
        sift_up(place, last);
    else
        sift_down(place, last);
}

/* --- events --- */

static struct sim_event *event_new(void (*fn)(void *data), void *data)
{
    struct sim_event *e = free_events;
    if (e)
        free_events = e->next;
    else
        e = malloc(sizeof *e);
    if (!e)
        abort();
    *e = (struct sim_event){.fn = fn, .data = data};
    return e;
}

static void event_free(struct sim_event *e)
{
    e->fn = NULL;
    e->next = free_events;
    free_events = e;
}

struct sim_event *sim_at(uint64_t at_us, void (*fn)(void *data), void *data)
{
    struct sim_event *e = event_new(fn, data);
    heap_push(e, at_us);
    return e;
}

struct sim_event *machine_event(struct machine *m, uint64_t at_us, void (*fn)(void *data),
                                void *data)
{
    struct sim_event *e = event_new(fn, data);
    e->machine = m;
    e->boot = m->boot;
    heap_push(e, at_us);
    return e;
}

struct sim_event *process_at(struct process *p, uint64_t at_us, void (*fn)(void *data), void *data)
{
    struct sim_event *e = machine_event(p->machine, at_us, fn, data);
    e->process = p;
    return e;
}

static void park(struct sim_event *e)
{
    struct parked *list = &parked[e->machine->index];
    e->parked = true;
    e->next = NULL;
    e->previous = list->last;
    *(list->last ? &list->last->next : &list->first) = e;
    list->last = e;
}

static void take_out(struct sim_event *e)
{
    struct parked *list = &parked[e->machine->index];
    *(e->previous ? &e->previous->next : &list->first) = e->next;
    *(e->next ? &e->next->previous : &list->last) = e->previous;
    e->parked = false;
}

/* Its clock stood still: what was due in so and so long when it stopped still is. */
static uint64_t due_after_stop(const struct sim_event *e, uint64_t stopped_us)
{
    return e->pushed_us <= stopped_us ? e->at_us + (now_us - stopped_us) : now_us;
}

void engine_clock_stood(struct machine *m, uint64_t stopped_us)
{
    static struct sim_event *later[1u << 16];
    uint32_t n = 0;
    for (uint32_t i = 1; i <= heap_n; i++)
        if (heap[i].event->machine == m && heap[i].event->pushed_us <= stopped_us) {
            assert(n < sizeof later / sizeof *later);
            later[n++] = heap[i].event;
        }
    for (struct sim_event *e = parked[m->index].first; e; e = e->next) {
        e->at_us = due_after_stop(e, stopped_us);
        e->pushed_us = now_us;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t at_us = due_after_stop(later[i], stopped_us);
        heap_remove(later[i]->place);
        heap_push(later[i], at_us);
    }
}

void engine_unpark(struct machine *m)
{
    struct parked *list = &parked[m->index];
    struct sim_event *e = list->first;
    *list = (struct parked){NULL, NULL};
    for (struct sim_event *next; e; e = next) {
        next = e->next;
        e->parked = false;
        uint64_t at_us = e->at_us, pushed_us = e->pushed_us;
        heap_push(e, at_us); /* it may have to be parked again: its own times stay */
        e->at_us = at_us;
        e->pushed_us = pushed_us;
    }
}

void sim_cancel(struct sim_event *event)
{
    assert(event->fn && (event->place || event->parked));
    if (event->parked)
        take_out(event);
    else
        heap_remove(event->place);
    event_free(event);
}

/* --- running --- */

/* False if nobody is there any more for it, or not now. */
static bool may_run(struct sim_event *e)
{
    if (!e->machine)
        return true;
    if (e->machine->boot != e->boot || e->machine->state == MACHINE_OFF ||
        (e->process && !process_alive(e->process))) {
        event_free(e);
        return false;
    }
    if (e->machine->state == MACHINE_PAUSED || (e->process && e->process->stopped)) {
        park(e);
        return false;
    }
    return true;
}

void engine_abandon_event(void)
{
    longjmp(scheduler, 1);
}

/* In a function of its own, because what a function keeps in registers is lost in the jump. */
static __attribute__((noinline)) void call(void (*fn)(void *data), void *data)
{
    if (_setjmp(scheduler) == 0)
        fn(data);
}

static void run_first(void)
{
    struct sim_event *e = heap[1].event;
    now_us = heap[1].at_us;
    heap_remove(1);
    if (!may_run(e))
        return;
    void (*fn)(void *data) = e->fn;
    void *data = e->data;
    current = e->process;
    event_free(e);
    call(fn, data);
    current = NULL;
    if (sim_hooks.after_event)
        sim_hooks.after_event();
}

void sim_run(uint64_t until_us)
{
    while (heap_n > 0 && heap[1].at_us <= until_us)
        run_first();
    if (until_us != UINT64_MAX && now_us < until_us)
        now_us = until_us;
}

static void engine_reset(void)
{
    for (uint32_t i = 1; i <= heap_n; i++)
        event_free(heap[i].event);
    heap_n = 0;
    now_us = next_number = 0;
    current = NULL;
    memset(parked, 0, sizeof parked);
    memset(&sim_hooks, 0, sizeof sim_hooks);
}

void sim_start(const struct sim_options *options)
{
    engine_reset();
    trace_reset();
    chance_reset(options);
    process_reset();
    fiber_reset();
    fake_uv_reset();
    lun_reset();
    reservations_reset();
    sanlock_reset();
}
