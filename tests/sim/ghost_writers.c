/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The invariant that all of fencing is for: no write of a holder lands on bytes that have been
 * given to somebody else since (SAFETY 8 to 11, 19).
 *
 * Each map that reaches the LUN has a number, and each byte belongs to the last map of it. A write
 * that lands where a later map stands is a stray one, whoever made either of them; and so is one
 * that lands in what is a snapshot by now (SAFETY 16).
 *
 * One thing is excused, as SAFETY 8 says: a machine that stood still as a whole past the moment at
 * which others could prove it dead. What it had in flight, and what it does until it is stopped,
 * only reservations can hold back. It must be stopped soon: by its watchdog within WAKE_US if its
 * clock went on, and else, as it does not know that it was away, by its own agent, which reads of
 * its death on the LUN, within FENCE_US of time in which its agent runs and
 * reaches the LUN.
 */
#include <assert.h>
#include <stdlib.h>

#include "sim/ghost.h"

#define MAPS_MAX   4096u
#define RANGES_MAX 16384u
/* The model's watchdog resets within 300 ms of the thaw. */
#define WAKE_US (SIM_S / 2)
/*
 * A poll of an idle agent comes each second, and may fail a few times in a row or take the 8 s of a
 * long-tailed I/O; the guard's proof takes as long as the writes in flight. Beyond 20 s nothing of
 * that explains it.
 */
#define FENCE_US (20 * SIM_S)

struct map {
    const struct machine *machine;
    uint32_t host;
    uint64_t generation;
    bool merges;
};

struct range {
    uint64_t start, length, map;
};

/* A machine that woke up dead. */
struct thaw {
    bool clock_stopped;
    uint64_t ran_us; /* of its machine, at the thaw (ghost_agent_ran_us) */
    uint64_t at_us;
    uint32_t host, boot;
    uint64_t generation;
};

static struct map maps[MAPS_MAX];
static uint64_t n_maps; /* the first one is 1 */
static struct range ranges[RANGES_MAX];
static uint32_t n_ranges;
static struct thaw thaws[SIM_NODES_MAX + 1];
static uint64_t n_strays; /* excused */

uint64_t ghost_writer_mapped(const struct machine *m, const struct stack_spec *spec)
{
    uint64_t number = ++n_maps;
    assert(number < MAPS_MAX);
    maps[number] = (struct map){m, sanlock_host_id(m), sanlock_generation(m), false};
    if (!lun_lets_write(m, sim_now_us()) ||
        (ghost_is_excused(m, maps[number].host, maps[number].generation) &&
         !ghost_is_granted(maps[number].host, maps[number].generation, &spec->attachment_id)))
        return number; /* it has nothing by right: every write of it is a stray one */
    ghost_writer_moved(number, &spec->layers[0]);
    return number;
}

void ghost_writer_merges(uint64_t map)
{
    maps[map].merges = true;
}

void ghost_writer_moved(uint64_t map, const struct stack_layer *leaf)
{
    for (uint32_t s = 0; s < leaf->n_segments; s++) {
        const struct stack_segment *x = &leaf->segments[s];
        assert(n_ranges < RANGES_MAX);
        ranges[n_ranges++] = (struct range){x->lun_offset, x->length, map};
    }
}

static uint64_t owner_of(uint64_t offset)
{
    for (uint32_t i = n_ranges; i-- > 0;)
        if (offset >= ranges[i].start && offset - ranges[i].start < ranges[i].length)
            return ranges[i].map;
    return 0;
}

bool ghost_writer_landed(uint64_t map, uint64_t offset)
{
    uint64_t owner = owner_of(offset);
    const struct map *who = &maps[map], *whose = &maps[owner];

    if (owner == map && (who->merges || !ghost_is_frozen(offset)))
        return true;
    if (!lun_has_reservations() && ghost_is_excused(who->machine, who->host, who->generation)) {
        sim_trace("a write of %s, which woke up dead, lands at %llu", who->machine->name,
                  (unsigned long long)offset);
        n_strays++;
        return false;
    }
    if (owner == map)
        sim_violation("snapshots-are-not-written",
                      "a write of %s lands at %llu, in what is a snapshot by now",
                      who->machine->name, (unsigned long long)offset);
    sim_violation("no-stray-writes",
                  "a write of %s (host %u generation %llu) lands at %llu, which was mapped by %s "
                  "(host %u generation %llu) since",
                  who->machine->name, who->host, (unsigned long long)who->generation,
                  (unsigned long long)offset, whose->machine->name, whose->host,
                  (unsigned long long)whose->generation);
}

/* --- who woke up dead --- */

void ghost_machine_thawed(struct machine *m, bool clock_stopped)
{
    uint32_t host = sanlock_host_id(m);
    uint64_t generation = sanlock_generation(m);

    /* With its clock it also forgot when its next renewal was due: its death may be proved yet. */
    if (host && (clock_stopped || sanlock_proved_dead(host, generation)))
        thaws[m->index] = (struct thaw){
            clock_stopped, ghost_agent_ran_us(m), sim_now_us(), host, m->boot, generation};
}

bool ghost_is_excused(const struct machine *m, uint32_t host, uint64_t generation)
{
    const struct thaw *t = &thaws[m->index];
    if (m->state == MACHINE_PAUSED)
        return sanlock_proved_dead(host, generation);
    if (t->host != host || t->generation != generation || t->boot != m->boot ||
        !sanlock_proved_dead(host, generation))
        return false;
    if (t->clock_stopped)
        return ghost_agent_ran_us(m) - t->ran_us <= FENCE_US;
    return sim_now_us() - t->at_us <= WAKE_US;
}
