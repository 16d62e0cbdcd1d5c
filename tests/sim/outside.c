/* SPDX-License-Identifier: Apache-2.0 */
/* What agent.c and agent_end.c do with processes and sockets of a real system. */
#include <stdlib.h>

#include "agent/inspect.h"
#include "agent/probe.h"
#include "base/helper.h"
#include "sim/ghost.h"

#define RESIGN_WAIT_S 8u /* agent_end.c's */

_Noreturn void agent_exit(void)
{
    process_kill(process_current());
    abort(); /* not reached */
}

bool agent_was_last(void)
{
    return true;
}

/* The agent's sync before it leaves with its volumes: what is in flight is the consumers' affair.
 */
int helper_call(int (*call)(const char *path), const char *path, int deadline_ms, struct error *err)
{
    (void)call;
    (void)path;
    (void)deadline_ms;
    (void)err;
    fiber_sleep(sim_random(STREAM_WORLD, SIM_S));
    return 0;
}

/* No request of the workload leads to it: `lunarctl verify` compares what the ghost sees directly.
 */
void inspect_command(void *data, const struct uuid *command_id)
{
    (void)data;
    (void)command_id;
    sim_violation("nobody-inspects", "an agent is told to look at what stands on its node");
}

/* Nor to this one: the model's LUN does not grow. */
void probe_command(void *data, const struct uuid *command_id, const Lunar__ProbePv *m)
{
    (void)data;
    (void)command_id;
    (void)m;
    sim_violation("nobody-probes", "an agent is asked about a LUN of the pool");
}

static void resign(void *data)
{
    struct coordinator *c = process_coordinator(data);
    if (c)
        coordinator_resign(c);
}

void agent_resign_coordinator(const char *path)
{
    struct process *p = machine_process(process_current()->machine, PROCESS_COORDINATOR);
    (void)path;
    if (!p || p->ending)
        return;
    process_at(p, sim_now_us(), resign, p);
    for (uint32_t i = 0; i < RESIGN_WAIT_S * 10 && !p->gone; i++)
        fiber_sleep(100 * SIM_MS);
}

_Noreturn void coordinator_die(const char *why, const char *text)
{
    sim_trace("%s ends: %s: %s", process_current()->name, why, text);
    process_kill(process_current());
    abort();
}

_Noreturn void coordinator_exit(void)
{
    process_kill(process_current());
    abort();
}

/* An external effect of a coordinator: the ghost learns of commits, and here a coordinator change
 * is most interesting. */
void effect_point(const char *name)
{
    struct process *p = process_current();
    if (strncmp(name, "commit ", 7) == 0 && strstr(name, " begin"))
        ghost_commit_begins(p);
    if (!sim_fault(FAULT_COORDINATOR_CHANGE, 10))
        return;
    sim_trace("%s dies at \"%s\"", p->name, name);
    process_kill(p);
}
