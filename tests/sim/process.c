/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Machines and processes: what runs where, and how it ends.
 *
 * A process is a loop (uv_loop_t whose data is the process), fibers, events and I/O in flight.
 * Killed: no code of it runs from that moment, its events and fibers are dropped, and it is *gone*
 * when the kernel has ended its last I/O, which is when sanlock frees its leases (SAFETY 1) and a
 * successor's wait for the lock file ends (SAFETY 5). With the power cut it is gone at once, and
 * what becomes of its I/O is lun.c's. Its memory stays: operations of the dead may still refer to
 * it, and a run is short.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/internal.h"

#define PPM 1000000

struct machine_slot {
    struct machine machine; /* first */
    /* The clock's drift summed up until `seen_us`, in millionths of a microsecond. */
    int64_t drift_sum;
    int32_t drift_ppm; /* since then */
    uint64_t seen_us;
};

static struct machine_slot *slots[SIM_NODES_MAX + 1];
static uint32_t n_machines;
static struct process **processes; /* not gone yet, by number */
static uint32_t n_processes, room, next_process;

/* --- clocks --- */

static int64_t floor_div(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

uint64_t machine_now_us(const struct machine *m)
{
    struct machine_slot *slot = slots[m->index];
    uint64_t now = sim_now_us();
    slot->drift_sum += (int64_t)(now - slot->seen_us) * slot->drift_ppm;
    slot->drift_ppm = m->drift_ppm;
    slot->seen_us = now;
    return (uint64_t)((int64_t)now + m->clock_offset_us + floor_div(slot->drift_sum, PPM));
}

uint64_t machine_sim_time(const struct machine *m, uint64_t clock_us)
{
    uint64_t clock_now = machine_now_us(m);
    if (clock_us <= clock_now)
        return sim_now_us();
    unsigned __int128 rate = (unsigned __int128)(PPM + m->drift_ppm);
    unsigned __int128 wait = (unsigned __int128)(clock_us - clock_now) * PPM;
    wait = (wait + rate - 1) / rate + (m->drift_ppm != 0); /* never early by a rounding */
    return sim_now_us() + (uint64_t)wait;
}

/* A machine's clock starts with the machine. */
static void start_clock(struct machine *m, uint64_t at_us)
{
    m->clock_offset_us = 0;
    m->clock_offset_us = (int64_t)at_us - (int64_t)machine_now_us(m);
}

/* --- machines --- */

struct machine *machine_new(void)
{
    assert(n_machines < SIM_NODES_MAX);
    struct machine_slot *slot = calloc(1, sizeof *slot);
    if (!slot)
        abort();
    struct machine *m = &slot->machine;
    m->index = ++n_machines;
    slots[m->index] = slot;
    snprintf(m->name, sizeof m->name, "node%u", m->index);
    snprintf(m->node_name, sizeof m->node_name, "%s", m->name);
    m->identity = m->index;
    m->boot = 1;
    start_clock(m, 10 * SIM_S + sim_random(STREAM_CONFIG, 3600 * SIM_S));
    return m;
}

struct machine *machine_at(uint32_t index)
{
    return index >= 1 && index <= n_machines ? &slots[index]->machine : NULL;
}

uint32_t machine_count(void)
{
    return n_machines;
}

void machine_pause(struct machine *m, bool io_goes_on)
{
    assert(m->state == MACHINE_UP);
    sim_trace("%s pauses%s", m->name, io_goes_on ? ", its I/O goes on" : "");
    m->state = MACHINE_PAUSED;
    m->io_held = !io_goes_on;
    m->paused_at_us = sim_now_us();
}

void machine_stop_clock(struct machine *m)
{
    machine_pause(m, false);
    m->clock_stops = true;
}

void machine_resume(struct machine *m)
{
    assert(m->state == MACHINE_PAUSED);
    bool stopped = m->clock_stops;
    m->resumed_us = sim_now_us();
    sim_trace("%s goes on", m->name);
    if (sim_hooks.thawed)
        sim_hooks.thawed(m, stopped);
    m->state = MACHINE_UP;
    m->io_held = m->clock_stops = false;
    if (stopped) {
        m->clock_offset_us -= (int64_t)(sim_now_us() - m->paused_at_us);
        engine_clock_stood(m, m->paused_at_us);
    }
    sanlock_machine_resumed(m);
    engine_unpark(m);
}

static void set_gone(struct process *p)
{
    p->ending = p->gone = true;
    for (uint32_t i = 0; i < n_processes; i++)
        if (processes[i] == p) {
            memmove(&processes[i], &processes[i + 1], (--n_processes - i) * sizeof *processes);
            break;
        }
    sim_trace("%s is gone", p->name);
    struct process *before = engine_set_current(NULL);
    sanlock_process_gone(p);
    if (sim_hooks.process_gone)
        sim_hooks.process_gone(p);
    engine_set_current(before);
}

void machine_off(struct machine *m)
{
    struct process *self = process_current();
    assert(m->state != MACHINE_OFF);
    sim_trace("%s is off", m->name);
    m->state = MACHINE_OFF;
    m->io_held = m->clock_stops = false;
    sanlock_machine_off(m);
    lun_machine_off(m);
    struct process *dying[64];
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_processes; i++)
        if (processes[i]->machine == m && n < 64)
            dying[n++] = processes[i];
    for (uint32_t i = 0; i < n; i++)
        dying[i]->ending = true;
    engine_unpark(m); /* they are dropped */
    for (uint32_t i = 0; i < n; i++) {
        assert(dying[i]->io_in_flight == 0);
        set_gone(dying[i]);
    }
    for (uint32_t i = 0; i < n; i++)
        if (dying[i] != self)
            fiber_forget(dying[i]);
    if (self && self->machine == m)
        fiber_forget(self), engine_abandon_event();
}

void machine_on(struct machine *m)
{
    assert(m->state == MACHINE_OFF);
    m->state = MACHINE_UP;
    m->boot++;
    start_clock(m, 2 * SIM_S + sim_random(STREAM_SCHEDULE, 10 * SIM_S));
    sim_trace("%s is on, boot %u", m->name, m->boot);
}

void process_end_faults(void)
{
    for (uint32_t i = 1; i <= n_machines; i++) {
        struct machine *m = &slots[i]->machine;
        m->path_lost = m->path_errors = false;
        if (m->state == MACHINE_PAUSED)
            machine_resume(m);
    }
}

/* --- processes --- */

struct process *process_start(enum process_kind kind, struct machine *machine)
{
    static const char *const names[] = {"agent", "coord", "client", "guard"};
    assert(machine->state != MACHINE_OFF);
    struct process *p = calloc(1, sizeof *p);
    if (!p)
        abort();
    p->number = ++next_process;
    p->kind = kind;
    p->machine = machine;
    p->loop.data = p;
    snprintf(p->name, sizeof p->name, "%s%u#%u", names[kind], machine->index, p->number);
    if (n_processes == room) {
        room = room ? room * 2 : 64;
        processes = realloc(processes, room * sizeof *processes);
        if (!processes)
            abort();
    }
    processes[n_processes++] = p;
    sim_trace("%s starts", p->name);
    return p;
}

struct process *process_next(const struct process *after)
{
    for (uint32_t i = 0; i < n_processes; i++)
        if (!after || processes[i]->number > after->number)
            return processes[i];
    return NULL;
}

struct process *process_of_loop(const uv_loop_t *loop)
{
    struct process *p = loop->data;
    assert(p && &p->loop == loop);
    return p;
}

static void on_quiet(void *data)
{
    struct process *p = data;
    if (!p->gone && p->io_in_flight == 0)
        set_gone(p);
}

void process_kill(struct process *p)
{
    if (process_alive(p)) {
        sim_trace("%s is killed, %u I/O in flight", p->name, p->io_in_flight);
        p->ending = true;
        process_continue(p); /* its parked events are dropped */
        if (p->io_in_flight == 0)
            sim_at(sim_now_us(), on_quiet, p);
    }
    bool self = p == process_current();
    fiber_forget(p);
    if (self)
        engine_abandon_event();
}

void process_stop(struct process *p)
{
    assert(process_alive(p) && p != process_current());
    sim_trace("%s is stopped, %u I/O in flight", p->name, p->io_in_flight);
    p->stopped = true;
    p->stopped_at_us = sim_now_us();
}

uint64_t process_stood_us(const struct process *p)
{
    return p->stood_us + (p->stopped ? sim_now_us() - p->stopped_at_us : 0);
}

void process_continue(struct process *p)
{
    if (!p->stopped)
        return;
    sim_trace("%s is continued", p->name);
    p->stood_us = process_stood_us(p);
    p->stopped = false;
    engine_unpark(p->machine); /* what must wait on is parked again */
}

void process_io_started(struct process *p)
{
    assert(process_alive(p));
    p->io_in_flight++;
}

void process_io_ended(struct process *p)
{
    assert(p->io_in_flight > 0);
    p->io_in_flight--;
    if (p->ending && !p->gone && p->io_in_flight == 0)
        set_gone(p);
}

void process_reset(void)
{
    for (uint32_t i = 1; i <= n_machines; i++) {
        free(slots[i]);
        slots[i] = NULL;
    }
    n_machines = n_processes = next_process = 0;
}
