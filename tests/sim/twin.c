/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A second machine under a node's name (SAFETY 7): a clone of it, with the same identity, or
 * another machine that was given its name by mistake. It has an agent alone, for a while.
 *
 * Happy path: the first one lives, and the second is refused, again and again, until somebody
 * switches it off. Failure modes: the first one is dead, or stands still: then the second may join.
 * A clone may do so after 3N without a renewal, which proves nothing of the first one: a limit, for
 * which the model switches the first one off at that moment (docs/FAILURES.md).
 *
 * Invariant one-machine-per-name: nobody joins under the name of a machine that has renewed its
 * lease without a break. Of another machine that is judged by up pages, so it is demanded where
 * nothing damages them.
 */
#include <stdio.h>
#include <string.h>

#include "sim/ghost.h"

#define STAY_MIN_US  (15 * SIM_S)
#define STAY_SPAN_US (50 * SIM_S)
#define FOREVER_US   (100000 * SIM_S)
/* Longer than any watch and the join after it. */
#define RENEWS_US (45 * SIM_S)

static struct machine *twin; /* NULL: not bought yet */

bool twin_shares_name(const struct machine *m)
{
    return twin && strcmp(twin->node_name, m->node_name) == 0;
}

static bool pages_are_sound(void)
{
    static const enum sim_fault kinds[] = {FAULT_FORGED_PAGE,  FAULT_BIT_ROT,   FAULT_LATE_LANDING,
                                           FAULT_DUPLICATE,    FAULT_TORN_READ, FAULT_TORN_WRITE,
                                           FAULT_PROCESS_KILL, FAULT_EIO};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (sim_weight(kinds[i]) > 0)
            return false;
    return true;
}

static void check_other(const struct machine *m, uint32_t host, struct machine *other)
{
    uint32_t others =
        sanlock_host_id(other); /* 0: it is out, perhaps with its last writes to come */
    uint64_t generation = sanlock_generation(other);
    bool clone = m->identity == other->identity;

    if (others && sanlock_renews_us(others, generation) > RENEWS_US && (clone || pages_are_sound()))
        sim_violation("one-machine-per-name",
                      "%s joins as '%s' (host %u), which is the name of %s, and that one lives",
                      m->name, m->node_name, host, other->name);
    if (clone)
        world_vanish(other, "its clone has taken its host id");
}

void twin_joins(struct machine *m, uint32_t host)
{
    for (uint32_t i = 1; i <= world_all_machines(); i++) {
        struct machine *other = machine_at(i);
        if (other != m && strcmp(other->node_name, m->node_name) == 0 &&
            other->state != MACHINE_OFF)
            check_other(m, host, other);
    }
}

static void switch_off(void *data)
{
    (void)data;
    if (twin->state != MACHINE_OFF)
        world_power_cycle(twin, FOREVER_US, "the second machine of its name goes");
}

void twin_comes(void)
{
    struct machine *m = machine_at(1 + (uint32_t)sim_fault_random(FAULT_TWIN, world_machines()));
    bool clone = sim_fault_random(FAULT_TWIN, 2);

    if (!sanlock_host_id(m) || world_machines() == SIM_NODES_MAX ||
        (twin && twin->state != MACHINE_OFF))
        return;
    sim_count_fault(FAULT_TWIN);
    if (!twin)
        twin = machine_new();
    else
        machine_on(twin);
    snprintf(twin->node_name, sizeof twin->node_name, "%s", m->node_name);
    twin->identity = clone ? m->identity : twin->index;
    sim_trace("%s comes as %s, %s", twin->name, m->name, clone ? "its clone" : "another machine");
    world_start_agent(twin);
    sim_at(sim_now_us() + STAY_MIN_US + sim_fault_random(FAULT_TWIN, STAY_SPAN_US), switch_off,
           NULL);
}

void twin_end(void)
{
    if (twin)
        switch_off(NULL);
}
