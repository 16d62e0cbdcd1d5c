/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The machines' daemons and what their supervisor does: start, and start again after they are gone.
 *
 * What coordinator.c and agent.c do with a real device, folders and sockets is done here with the
 * virtual ones; from coordinator_begin and agent_begin on, the production code runs. Happy path:
 * every machine has an agent, the first few have a candidate too. Failure modes: a process that is
 * gone is followed by another after a while, a machine that was reset boots and starts both.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/io.h"
#include "diskrpc/mdcopy.h"
#include "sim/ghost.h"

#define IO_TIMEOUT_S 2u
#define WATCHDOG_S   10u
#define VANISHED_US  (15 * SIM_S)

/* Texts of the few volumes of a run are shorter. */
#define METADATA_COPY_IN_USE (MDCOPY_HEADER_SIZE + 32u * 1024)

struct superblock world_sb;

static uint32_t n_machines, n_candidates;
static struct hint_option hints; /* on in every other seed, for all: everything works without */
static struct process *newest[SIM_NODES_MAX + 1][2];
static uint64_t restart_at[SIM_NODES_MAX + 1][2]; /* 0: none is planned */

struct agent *process_agent(const struct process *p)
{
    return p->kind == PROCESS_AGENT ? p->data : NULL;
}

struct coordinator *process_coordinator(const struct process *p)
{
    return p->kind == PROCESS_COORDINATOR ? p->data : NULL;
}

struct process *machine_process(const struct machine *m, enum process_kind kind)
{
    struct process *p = newest[m->index][kind];
    return p && !p->gone ? p : NULL;
}

uint32_t world_machines(void)
{
    return n_machines;
}

/* --- starting one --- */

static int read_lun(int *ret_fd, struct superblock *ret, struct error *err)
{
    *ret_fd = io_open("/dev/lun", 1, err);
    int rc = *ret_fd < 0 ? *ret_fd : superblock_read(*ret_fd, ret, err);
    if (rc == 0 && ret->state != SUPERBLOCK_READY)
        rc = error_set(err, LUNAR_E_VERSION, "an interrupted format");
    return rc;
}

struct opening {
    int fd;
    struct superblock sb;
    int rc;
    struct error err;
};

static void open_run(void *data)
{
    struct opening *o = data;
    o->rc = read_lun(&o->fd, &o->sb, &o->err);
}

static void begin_agent(struct process *p, const struct opening *o)
{
    struct agent *a = calloc(1, sizeof *a);
    a->loop = &p->loop;
    a->sb = o->sb;
    a->fd = o->fd;
    a->lock_fd = -1;
    snprintf(a->device, sizeof a->device, "/dev/lun");
    snprintf(a->node_name, sizeof a->node_name, "%s", p->machine->node_name);
    snprintf(a->run_dir, sizeof a->run_dir, "/run");
    snprintf(a->root, sizeof a->root, "/run/attach-sim");
    snprintf(a->socket, sizeof a->socket, WORLD_AGENT_SOCKET);
    snprintf(a->coordinator_socket, sizeof a->coordinator_socket, WORLD_COORDINATOR_SOCKET);
    a->hint_option = hints;
    p->data = a;
    if (local_open(a->loop, a->socket, &agent_local_callbacks, a, &a->local, NULL) < 0)
        process_kill(p);
    agent_begin(a);
}

static void begin_coordinator(struct process *p, const struct opening *o)
{
    struct coordinator *c = calloc(1, sizeof *c);
    c->loop = &p->loop;
    c->sb = o->sb;
    c->fd = o->fd;
    c->device = "/dev/lun";
    snprintf(c->state_dir, sizeof c->state_dir, "/run/coordinator-sim");
    snprintf(c->socket, sizeof c->socket, WORLD_COORDINATOR_SOCKET);
    snprintf(c->agent_socket, sizeof c->agent_socket, WORLD_AGENT_SOCKET);
    LIST_INIT(&c->relays);
    c->hint_option = hints;
    p->data = c;
    if (local_open(c->loop, c->socket, &coordinator_local_callbacks, c, &c->local, NULL) < 0)
        process_kill(p);
    coordinator_begin(c);
}

static void open_done(void *data)
{
    struct opening *o = data;
    struct process *p = process_current();

    if (o->rc < 0)
        sim_trace("%s cannot start: %s", p->name, o->err.text);
    if (o->rc < 0)
        process_kill(p);
    if (p->kind == PROCESS_AGENT)
        begin_agent(p, o);
    else
        begin_coordinator(p, o);
    free(o);
}

static void start_process(struct machine *m, enum process_kind kind)
{
    struct process *p = process_start(kind, m);
    newest[m->index][kind] = p;
    fiber_start(p, "open", open_run, open_done, calloc(1, sizeof(struct opening)));
}

/* --- the supervisor --- */

struct restart {
    struct machine *machine;
    enum process_kind kind;
    uint32_t boot;
};

static void on_restart(void *data)
{
    struct restart r = *(struct restart *)data;
    free(data);
    restart_at[r.machine->index][r.kind] = 0;
    if (r.machine->state == MACHINE_OFF || r.machine->boot != r.boot)
        return;
    if (!machine_process(r.machine, r.kind))
        start_process(r.machine, r.kind);
}

static void plan_start(struct machine *m, enum process_kind kind, uint64_t delay_us)
{
    if (kind == PROCESS_COORDINATOR && m->index > n_candidates)
        return;
    struct restart *r = malloc(sizeof *r);
    *r = (struct restart){m, kind, m->boot};
    restart_at[m->index][kind] = sim_now_us() + delay_us;
    sim_at(restart_at[m->index][kind], on_restart, r);
}

/* SAFETY 5: a successor waits for the lock, that is until its predecessor is gone. */
static void on_process_gone(struct process *p)
{
    local_model_process_ended(p);
    guard_model_process_gone(p);
    if (p->kind == PROCESS_GUARD)
        return; /* the agent starts another one */
    if (p == ghost_leader()) {
        chaos_leader_gone(p);
        stale_leader_gone(p);
    }
    if (p->machine->state != MACHINE_OFF)
        plan_start(p->machine, p->kind, 100 * SIM_MS + sim_random(STREAM_WORLD, 2 * SIM_S));
}

static void on_boot(void *data)
{
    struct machine *m = data;
    if (m->state != MACHINE_OFF || (m->index > n_machines && sim_faults_ended()))
        return;
    machine_on(m);
    plan_start(m, PROCESS_AGENT, sim_random(STREAM_WORLD, 2 * SIM_S));
    plan_start(m, PROCESS_COORDINATOR, sim_random(STREAM_WORLD, 3 * SIM_S));
}

void world_power_cycle(struct machine *m, uint64_t off_us, const char *why)
{
    if (m->state == MACHINE_OFF)
        return;
    sim_trace("%s reset: %s", m->name, why);
    stack_model_machine_off(m);
    guard_model_machine_off(m);
    sim_at(sim_now_us() + off_us, on_boot, m);
    machine_off(m); /* does not return into one of its own processes */
}

static void path_back(void *data)
{
    ((struct machine *)data)->path_lost = false;
}

void world_vanish(struct machine *m, const char *why)
{
    if (!m->path_lost)
        sim_at(sim_now_us() + SIM_MS, path_back, m);
    m->path_lost = true;
    world_power_cycle(m, VANISHED_US, why);
}

uint32_t world_all_machines(void)
{
    return machine_at(n_machines + 1) ? n_machines + 1 : n_machines;
}

void world_start_agent(struct machine *m)
{
    plan_start(m, PROCESS_AGENT, SIM_MS);
}

static void on_watchdog(struct machine *m)
{
    guard_model_reset(m);
    world_power_cycle(m, 5 * SIM_S + sim_random(STREAM_WORLD, 10 * SIM_S), "watchdog");
}

/* --- is all well? --- */

static bool agent_is_well(const struct machine *m, char *why, size_t size)
{
    struct process *p = machine_process(m, PROCESS_AGENT);
    const struct agent *a = p ? process_agent(p) : NULL;
    if (!a || a->state != AGENT_STATE_JOINED) {
        snprintf(why, size, "the agent of %s has not joined: %s", m->name,
                 a ? a->trouble : "it does not run");
        return false;
    }
    return true;
}

bool world_is_whole(char *why, size_t size)
{
    uint32_t leaders = 0;
    for (uint32_t i = 1; i <= n_machines; i++) {
        const struct machine *m = machine_at(i);
        if (!agent_is_well(m, why, size))
            return false;
        struct process *p = machine_process(m, PROCESS_COORDINATOR);
        const struct coordinator *c = p ? process_coordinator(p) : NULL;
        leaders += c && c->state == COORDINATOR_STATE_LEADING;
    }
    if (leaders != 1)
        snprintf(why, size, "%u coordinators lead", leaders);
    return leaders == 1;
}

/* --- the beginning --- */

static void format_lun(void)
{
    uint8_t buffer[SUPERBLOCK_SIZE] = {0};
    struct error err = ERROR_INIT;

    lun_open(WORLD_LUN_SIZE);
    world_sb = (struct superblock){.state = SUPERBLOCK_READY,
                                   .write_count = 1,
                                   .pool_name = "sim",
                                   .io_timeout_s = IO_TIMEOUT_S,
                                   .watchdog_fire_timeout_s = WATCHDOG_S,
                                   .extent_size = 32u << 20};
    world_sb.pool_id = uuid_random();
    world_sb.flags = sim_options()->reservations == 1 ? SUPERBLOCK_FLAG_PR : 0;
    int rc = layout_compute(WORLD_MAX_NODES, 512, &world_sb.layout, &err);
    assert(rc == 0);
    superblock_out(&world_sb, buffer);
    lun_poke(world_sb.layout.area_start, buffer, sizeof buffer);
    lun_poke(world_sb.layout.area_start + LAYOUT_SUPERBLOCK_B_OFFSET, buffer, sizeof buffer);
    lvm_model_format();
    sanlock_start(&world_sb);
}

/* Where bits may rot. Copies of one thing form a group, of which one is damaged at a time: two at
 * once are beyond what is promised. */
static void name_rot_regions(void)
{
    const struct layout *l = &world_sb.layout;
    uint32_t group = 1;

    lun_rot_region(group, l->area_start, SUPERBLOCK_SIZE);
    lun_rot_region(group++, l->area_start + LAYOUT_SUPERBLOCK_B_OFFSET, SUPERBLOCK_SIZE);
    lun_rot_region(0, beat_offset(l), BEAT_SIZE);
    assert(group == WORLD_METADATA_GROUP);
    lvm_model_rot_regions(group);
    /* Two areas and two slots of the copy, one of them older: two may be lost at once. */
    lun_bound_late(group, 2);
    lun_rot_region(group, l->metadata_a, METADATA_COPY_IN_USE);
    lun_rot_region(group++, l->metadata_b, METADATA_COPY_IN_USE);
    for (uint32_t h = 1; h <= WORLD_MAX_NODES; h++) {
        /* What a node may have open stands in four places, too. */
        lun_bound_late(group, 2);
        for (int copy = 0; copy < 2; copy++) {
            lun_rot_region(group, layout_grants(l, h, copy), LAYOUT_PAGE_SIZE);
            lun_rot_region(group, layout_reports(l, h, copy), LAYOUT_PAGE_SIZE);
        }
        group++;
        lun_rot_region(0, layout_up_page(l, h), LAYOUT_PAGE_SIZE);
        lun_rot_region(0, layout_down_page(l, h), LAYOUT_PAGE_SIZE);
        lun_rot_region(0, layout_up_spill(l, h), 2 * LAYOUT_PAGE_SIZE);
        lun_rot_region(0, layout_down_spill(l, h), 2 * LAYOUT_PAGE_SIZE);
    }
}

void world_start(uint32_t machines, uint32_t candidates)
{
    n_machines = machines;
    n_candidates = candidates < machines ? candidates : machines;
    sim_hooks.process_gone = on_process_gone;
    sim_hooks.watchdog = on_watchdog;
    sim_hooks.killpath = guard_model_killpath;
    sim_hooks.sanlock_gone = guard_model_sanlock_gone;
    sim_hooks.cleared = guard_model_cleared;
    sim_hooks.thawed = ghost_machine_thawed;
    sim_hooks.joins = twin_joins;
    hints.on = sim_random(STREAM_HINTS, 2) == 0;
    for (uint32_t i = 0; i < machines; i++)
        machine_new();
    format_lun();
    name_rot_regions();
    for (uint32_t i = 1; i <= machines; i++) {
        plan_start(machine_at(i), PROCESS_AGENT, sim_random(STREAM_WORLD, SIM_S));
        plan_start(machine_at(i), PROCESS_COORDINATOR, sim_random(STREAM_WORLD, 3 * SIM_S));
    }
}
