/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What writes to a volume that is mapped: a consumer that goes on and on, or a job.
 *
 * One consumer per map of a node. Happy path: every while it writes a sector of its volume through
 * the L map onto the virtual LUN, stamped with who, which map and when; the write lands after the
 * latency of the LUN, and the ghost is asked whether that map still is the last one of these bytes.
 * Failure modes: the L map is an error table: nothing is submitted any more, what is in flight
 * stays in flight. The path is lost or the machine's I/O stands still: the write waits, for as long
 * as it takes, and lands or fails when that ends; this is what a proof must wait for. The same
 * where something below one map alone is stuck, whatever becomes of the path. The power is cut:
 * each write in flight is dropped or lands within CUT_LATE_US, out of the queues behind the host.
 */
#include <assert.h>
#include <stdlib.h>

#include "sim/ghost.h"

#define SECTOR        4096u
#define PLACES        4u /* of a volume that are written, again and again */
#define PAUSE_US      (300 * SIM_MS)
#define IN_FLIGHT_MAX 2u
#define LATENCY_US    400u
/* How often a write that stands still looks whether it may go on. */
#define STILL_POLL_US (20 * SIM_MS)
/* An array ends what a host had sent before its reset within this, the simulator assumes: a design
 * without reservations knows nothing better, and the watchdog of the model leaves it that time. */
#define CUT_LATE_US (100 * SIM_MS)

struct consumer_write {
    struct consumer *consumer;
    uint32_t place;
    uint64_t number, sent_us;
    struct sim_event *event;
};

struct consumer {
    struct machine *machine;
    uint64_t map; /* number, of the ghost's */
    uint32_t boot;
    uint64_t places[PLACES]; /* offsets on the LUN */
    uint64_t wrote[PLACES];  /* the last write of ours that has landed there; 0: none */
    bool on, error;
    uint64_t stuck_until_us;
    struct sim_event *tick;
    struct consumer_write writes[IN_FLIGHT_MAX];
};

/* What stands on the LUN: whose write it was. */
struct stamp {
    uint64_t map, number, at_us;
    uint32_t machine, boot;
};

static uint64_t last_number;

static uint64_t place(const struct stack_spec *spec, uint32_t i)
{
    const struct stack_layer *leaf = &spec->layers[0];
    const struct stack_segment *s = &leaf->segments[i % leaf->n_segments];
    uint64_t sectors = s->length / SECTOR;
    return s->lun_offset + sectors / PLACES * i * SECTOR;
}

struct consumer *consumer_open(struct machine *m, const struct stack_spec *spec)
{
    struct consumer *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->machine = m;
    c->boot = m->boot;
    c->map = ghost_writer_mapped(m, spec);
    for (uint32_t i = 0; i < PLACES; i++)
        c->places[i] = place(spec, i);
    return c;
}

struct consumer *consumer_open_reader(struct machine *m)
{
    struct consumer *c = calloc(1, sizeof *c);
    if (!c)
        abort();
    c->machine = m;
    c->boot = m->boot;
    return c;
}

void consumer_merges(struct consumer *c)
{
    ghost_writer_merges(c->map);
}

void consumer_move(struct consumer *c, const struct stack_spec *spec)
{
    assert(consumer_is_drained(c));
    ghost_writer_moved(c->map, &spec->layers[0]);
    for (uint32_t i = 0; i < PLACES; i++) {
        c->places[i] = place(spec, i);
        c->wrote[i] = 0;
    }
}

/* --- a write --- */

void consumer_stick(struct consumer *c, uint64_t until_us)
{
    c->stuck_until_us = until_us;
}

bool consumer_is_stuck(const struct consumer *c)
{
    return sim_now_us() < c->stuck_until_us;
}

static bool stands_still(const struct machine *m)
{
    return m->io_held || (m->path_lost && !m->path_errors);
}

/* Its own last write to the place must still be there, or somebody else's has landed on it. */
static void put_stamp(struct consumer *c, uint32_t at, uint64_t number)
{
    static uint8_t sector[SECTOR];
    struct stamp stamp;

    lun_peek(c->places[at], &stamp, sizeof stamp);
    if (c->wrote[at] && stamp.number != c->wrote[at])
        sim_violation("acknowledged-data-stands",
                      "%s finds write %llu of map %llu at %llu, and not its own write %llu",
                      c->machine->name, (unsigned long long)stamp.number,
                      (unsigned long long)stamp.map, (unsigned long long)c->places[at],
                      (unsigned long long)c->wrote[at]);
    stamp = (struct stamp){c->map, number, sim_now_us(), c->machine->index, c->boot};
    memcpy(sector, &stamp, sizeof stamp);
    lun_poke(c->places[at], sector, sizeof sector);
    c->wrote[at] = number;
    ghost_space_written(c->places[at]);
}

static void on_land(void *data)
{
    struct consumer_write *w = data;
    struct consumer *c = w->consumer;

    if (stands_still(c->machine) || consumer_is_stuck(c)) {
        w->event = sim_at(sim_now_us() + STILL_POLL_US, on_land, w);
        return;
    }
    w->event = NULL;
    if (c->machine->path_lost || !lun_lets_write(c->machine, w->sent_us))
        return; /* with an error */
    if (ghost_writer_landed(c->map, c->places[w->place]))
        put_stamp(c, w->place, w->number);
}

void consumer_write(struct consumer *c)
{
    uint64_t latency = 100 + sim_random(STREAM_DATA, LATENCY_US);

    assert(c->map != 0); /* a reader */
    if (c->error || c->machine->state != MACHINE_UP)
        return;
    if (sim_fault(FAULT_LATENCY_TAIL, 20))
        latency = SIM_MS + sim_fault_random(FAULT_LATENCY_TAIL, 4 * SIM_S);
    for (uint32_t i = 0; i < IN_FLIGHT_MAX; i++) {
        struct consumer_write *w = &c->writes[i];
        if (w->event)
            continue;
        uint32_t at = (uint32_t)sim_random(STREAM_DATA, PLACES);
        *w = (struct consumer_write){
            .consumer = c, .place = at, .number = ++last_number, .sent_us = sim_now_us()};
        w->event = sim_at(sim_now_us() + latency, on_land, w);
        return;
    }
}

static void on_tick(void *data)
{
    struct consumer *c = data;
    consumer_write(c);
    c->tick =
        machine_event(c->machine, sim_now_us() + sim_random(STREAM_DATA, 2 * PAUSE_US), on_tick, c);
}

/* --- its life --- */

void consumer_run(struct consumer *c, bool on)
{
    if (on && !c->tick && !c->error)
        c->tick = machine_event(c->machine, sim_now_us(), on_tick, c);
    if (!on && c->tick) {
        sim_cancel(c->tick);
        c->tick = NULL;
    }
}

void consumer_error(struct consumer *c)
{
    c->error = true;
    consumer_run(c, false);
}

bool consumer_is_drained(const struct consumer *c)
{
    for (uint32_t i = 0; i < IN_FLIGHT_MAX; i++)
        if (c->writes[i].event)
            return false;
    return true;
}

void consumer_close(struct consumer *c)
{
    assert(consumer_is_drained(c));
    consumer_run(c, false);
    free(c);
}

/* --- the power cut --- */

struct late_write {
    const struct machine *machine;
    uint64_t map, offset, sent_us;
};

static void on_late(void *data)
{
    struct late_write *l = data;
    if (lun_lets_write(l->machine, l->sent_us))
        ghost_writer_landed(l->map, l->offset); /* nobody reads what was never acknowledged */
    free(l);
}

void consumer_power_cut(struct consumer *c)
{
    for (uint32_t i = 0; i < IN_FLIGHT_MAX; i++) {
        struct consumer_write *w = &c->writes[i];
        if (!w->event)
            continue;
        sim_cancel(w->event);
        w->event = NULL;
        if (c->machine->path_lost || sim_random(STREAM_DATA, 2))
            continue; /* it never left the host */
        struct late_write *l = malloc(sizeof *l);
        if (!l)
            abort();
        *l = (struct late_write){c->machine, c->map, c->places[w->place], w->sent_us};
        sim_at(sim_now_us() + sim_random(STREAM_DATA, CUT_LATE_US), on_late, l);
    }
    consumer_run(c, false);
    free(c);
}
