/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults that are planned rather than drawn per operation: kills, stops, pauses, resets, lost
 * paths, drifting clocks, dying QSDs, forged pages, clean leaves.
 *
 * Once a virtual second each kind may strike, by its weight of this seed. Failure modes: none; what
 * a fault finds nobody to strike is not counted.
 */
#include <assert.h>
#include <stdlib.h>

#include "diskrpc/page.h"
#include "sim/ghost.h"

#define PERIOD_US SIM_S
/* Well below 8N, as `lunarctl node check` wants it. */
#define TRANSPORT_US (5 * SIM_S)

/* --- whom to strike --- */

static struct machine *some_machine(enum sim_fault kind)
{
    return machine_at(1 + (uint32_t)sim_fault_random(kind, world_machines()));
}

/* Not all at once: at least one machine stays as it is, or nothing would ever be completed. */
static uint32_t machines_struck(void)
{
    uint32_t n = 0;
    for (uint32_t i = 1; i <= world_machines(); i++) {
        const struct machine *m = machine_at(i);
        n += m->state != MACHINE_UP || m->path_lost;
    }
    return n;
}

bool chaos_may_strike(const struct machine *m)
{
    bool well = m->state == MACHINE_UP && !m->path_lost;
    return well && machines_struck() + 1 < world_machines();
}

static struct machine *victim(enum sim_fault kind)
{
    struct machine *m = some_machine(kind);
    return chaos_may_strike(m) ? m : NULL;
}

/* Half of all faults last a moment, the other half so long that sanlock may notice. */
static uint64_t some_time(enum sim_fault kind)
{
    bool brief = sim_fault_random(kind, 2) == 0;
    return brief ? 10 * SIM_MS + sim_fault_random(kind, 3 * SIM_S)
                 : 3 * SIM_S + sim_fault_random(kind, 45 * SIM_S);
}

/* --- processes --- */

static void kill_process(void)
{
    struct machine *m = some_machine(FAULT_PROCESS_KILL);
    enum process_kind kind =
        sim_fault_random(FAULT_PROCESS_KILL, 3) ? PROCESS_AGENT : PROCESS_COORDINATOR;
    struct process *p = machine_process(m, kind);
    if (!p || p->ending)
        return;
    sim_count_fault(FAULT_PROCESS_KILL);
    process_kill(p);
}

static struct machine *victim(enum sim_fault kind);

static void kill_if_alive(void *data)
{
    struct process *p = data;
    if (!p->ending && !p->gone)
        process_kill(p);
}

static void kill_guard(void)
{
    struct process *p = guard_model_process(some_machine(FAULT_GUARD_KILL));
    if (!p)
        return;
    sim_count_fault(FAULT_GUARD_KILL);
    process_kill(p);
}

static void term_guard(void)
{
    struct machine *m = some_machine(FAULT_GUARD_TERM);
    if (!guard_model_process(m))
        return;
    sim_count_fault(FAULT_GUARD_TERM);
    guard_model_term(m);
}

/* With nothing else wrong: sanlock renews, no watchdog is due. Half of them end before the guard
 * loses its patience. */
static void stick_write(void)
{
    struct machine *m = victim(FAULT_STUCK_WRITE);
    uint64_t us = sim_fault_random(FAULT_STUCK_WRITE, 40 * SIM_S);
    if (!m || !guard_model_process(m) || !stack_model_stick(m, sim_now_us() + us))
        return;
    sim_count_fault(FAULT_STUCK_WRITE);
    guard_model_term(m);
}

/* Just then a guard must know of it. */
void chaos_node_maps(struct machine *m)
{
    if (sim_fault(FAULT_GUARD_TERM, 40))
        guard_model_term(m);
}

/* Half-way through its work is when it matters. */
void chaos_guard_fences(struct process *guard)
{
    bool soon = sim_fault_random(FAULT_GUARD_KILL, 2);
    if (sim_fault(FAULT_GUARD_KILL, 300))
        process_at(guard,
                   sim_now_us() + sim_fault_random(FAULT_GUARD_KILL, (soon ? 20 : 200) * SIM_MS),
                   kill_if_alive, guard);
}

static void kill_sanlock(void)
{
    struct machine *m = victim(FAULT_SANLOCK_KILL);
    if (!m || !sanlock_host_id(m))
        return;
    sim_count_fault(FAULT_SANLOCK_KILL);
    sanlock_kill(m);
}

static void do_resign(void *data)
{
    struct process *p = data;
    if (process_coordinator(p))
        coordinator_resign(process_coordinator(p));
}

static void change_coordinator(void)
{
    struct process *p = sanlock_leader();
    if (!p || p->ending)
        return;
    sim_count_fault(FAULT_COORDINATOR_CHANGE);
    if (sim_fault_random(FAULT_COORDINATOR_CHANGE, 2))
        process_kill(p);
    else
        process_at(p, sim_now_us(), do_resign, p);
}

static void do_continue(void *data)
{
    process_continue(data);
}

/* A leader that is stopped for good keeps its lease until a standby has it forced out. */
static void stop_process(void)
{
    struct process *p = sanlock_leader();
    bool for_ever = p && sim_fault_random(FAULT_PROCESS_STOP, 2);
    if (!p || sim_fault_random(FAULT_PROCESS_STOP, 4) == 0)
        p = machine_process(some_machine(FAULT_PROCESS_STOP), PROCESS_COORDINATOR);
    if (sim_fault_random(FAULT_PROCESS_STOP, 3) == 0)
        p = machine_process(some_machine(FAULT_PROCESS_STOP), PROCESS_AGENT);
    if (!p || p->ending || p->stopped)
        return;
    sim_count_fault(FAULT_PROCESS_STOP);
    process_stop(p);
    if (!for_ever || p != sanlock_leader())
        sim_at(sim_now_us() + some_time(FAULT_PROCESS_STOP), do_continue, p);
}

void chaos_end(void)
{
    twin_end();
    for (struct process *p = NULL; (p = process_next(p)) != NULL;)
        if (p != sanlock_leader())
            process_continue(p);
}

static void kill_leader(void *data)
{
    struct process *p = sanlock_leader();
    (void)data;
    if (p && !p->ending)
        process_kill(p);
}

/* The moment at which the node's report alone may tell a successor what is being opened. */
void chaos_node_opens(void)
{
    if (sim_fault(FAULT_COORDINATOR_CHANGE, 60))
        sim_at(sim_now_us() + sim_fault_random(FAULT_COORDINATOR_CHANGE, 40 * SIM_MS), kill_leader,
               NULL);
}

static void do_leave(void *data)
{
    struct process *p = data;
    if (process_agent(p))
        agent_leave(process_agent(p), 0, false);
}

/* Not a fault, but as rare: `lunarctl node leave`. */
static void leave(void)
{
    struct process *p = machine_process(some_machine(FAULT_NODE_RESET), PROCESS_AGENT);
    if (p && !p->ending)
        process_at(p, sim_now_us(), do_leave, p);
}

/* --- machines --- */

static void on_resume(void *data)
{
    struct machine *m = data;
    if (m->state == MACHINE_PAUSED)
        machine_resume(m);
}

static void pause_machine(void)
{
    struct machine *m = victim(FAULT_NODE_PAUSE);
    if (!m)
        return;
    sim_count_fault(FAULT_NODE_PAUSE);
    machine_pause(m, sim_fault_random(FAULT_NODE_PAUSE, 2) == 0);
    sim_at(sim_now_us() + some_time(FAULT_NODE_PAUSE), on_resume, m);
}

/* Mostly past the time at which others take it for dead. */
static void stop_clock(void)
{
    struct machine *m = victim(FAULT_CLOCK_STOP);
    if (!m)
        return;
    sim_count_fault(FAULT_CLOCK_STOP);
    machine_stop_clock(m);
    sim_at(sim_now_us() + 5 * SIM_S + sim_fault_random(FAULT_CLOCK_STOP, 45 * SIM_S), on_resume, m);
}

static void reset_machine(void)
{
    struct machine *m = victim(FAULT_NODE_RESET);
    if (!m)
        return;
    sim_count_fault(FAULT_NODE_RESET);
    world_power_cycle(m, some_time(FAULT_NODE_RESET), "power cut");
}

static void on_path_back(void *data)
{
    struct machine *m = data;
    m->path_lost = m->path_errors = false;
    sim_trace("%s has its path again", m->name);
}

static void on_transport_gives_up(void *data)
{
    struct machine *m = data;
    m->path_errors = m->path_lost;
}

/* It hangs, it fails, or it hangs until the transport gives up (iSCSI's replacement_timeout). */
static void lose_path(void)
{
    struct machine *m = victim(FAULT_PATH_LOSS);
    if (!m)
        return;
    sim_count_fault(FAULT_PATH_LOSS);
    m->path_lost = true;
    uint64_t how = sim_fault_random(FAULT_PATH_LOSS, 3);
    m->path_errors = how == 0;
    if (how == 1)
        sim_at(sim_now_us() + TRANSPORT_US, on_transport_gives_up, m);
    sim_trace("%s loses its path%s", m->name, m->path_errors ? ", I/O fails" : "");
    sim_at(sim_now_us() + some_time(FAULT_PATH_LOSS), on_path_back, m);
}

/* Where somebody writes, a path that hangs matters most. */
void chaos_node_opened(struct machine *m)
{
    if (!chaos_may_strike(m) || !sim_fault(FAULT_PATH_LOSS, 25))
        return;
    m->path_lost = true;
    sim_trace("%s loses its path, which hangs", m->name);
    sim_at(sim_now_us() + 20 * SIM_S + sim_fault_random(FAULT_PATH_LOSS, 25 * SIM_S), on_path_back,
           m);
}

static void drift(void)
{
    struct machine *m = some_machine(FAULT_CLOCK_DRIFT);
    sim_count_fault(FAULT_CLOCK_DRIFT);
    m->drift_ppm = (int32_t)sim_fault_random(FAULT_CLOCK_DRIFT, 401) - 200;
}

static void exit_qsd(void)
{
    struct machine *m = some_machine(FAULT_QSD_EXIT);
    if (m->state == MACHINE_UP && stack_model_qsd_exit(m))
        sim_count_fault(FAULT_QSD_EXIT);
}

/* --- forged pages: none of them may ever be believed --- */

/* The last page of each of the last few incarnations that wrote a slot. */
#define OLD_PAGES 4u

struct old_pages {
    struct incarnation writers[OLD_PAGES]; /* newest first */
    uint8_t bytes[OLD_PAGES][PAGE_SIZE_BYTES];
};
static struct old_pages *old_pages[2][WORLD_MAX_NODES + 1];

void chaos_saw_page(bool up, uint32_t host, const struct incarnation *writer, const uint8_t *bytes)
{
    struct old_pages *o = old_pages[up][host];
    if (!o)
        o = old_pages[up][host] = calloc(1, sizeof *o);
    const struct incarnation *last = &o->writers[0];
    if (last->host_id != writer->host_id || last->generation != writer->generation ||
        last->run_or_term != writer->run_or_term) {
        memmove(o->writers + 1, o->writers, (OLD_PAGES - 1) * sizeof *o->writers);
        memmove(o->bytes[1], o->bytes[0], (OLD_PAGES - 1) * PAGE_SIZE_BYTES);
        o->writers[0] = *writer;
    }
    memcpy(o->bytes[0], bytes, PAGE_SIZE_BYTES);
}

/* A true page of an older incarnation, as a late write would leave it. */
static bool bring_back(bool up, uint32_t host, uint8_t *bytes)
{
    const struct old_pages *o = old_pages[up][host];
    uint32_t n = 0;
    while (o && n + 1 < OLD_PAGES && o->writers[n + 1].host_id)
        n++;
    if (n == 0)
        return false;
    memcpy(bytes, o->bytes[1 + sim_fault_random(FAULT_FORGED_PAGE, n)], PAGE_SIZE_BYTES);
    return true;
}

static void spoil(uint8_t *bytes, struct page *page, uint64_t how)
{
    switch (how) {
    case 0: /* of another pool */
        page->pool_id.b[3] ^= 1;
        break;
    case 1:
        /* Of the same run, by another host. Not of the same term: an agent that has just started
         * and knows of no coordinator cannot tell which of two is the one that sanlock chose. */
        if (page->kind == PAGE_DOWN)
            page->pool_id.b[5] ^= 1;
        page->writer.host_id = page->writer.host_id % WORLD_MAX_NODES + 1;
        page->page_seq += 1000;
        break;
    case 2:
        /* It acknowledges what was never sent. Without a higher number: a page of the very
         * incarnation, checksum and all, that its writer never wrote, is beyond what a LUN does. */
        page->ack_seq += 1u << 20;
        break;
    default: /* a bad checksum; no higher number, or half of the next write could make it good */
        break;
    }
    page_out(page, bytes);
    if (how == 3)
        bytes[sim_fault_random(FAULT_FORGED_PAGE, PAGE_SIZE_BYTES)] ^= 0x10;
}

static void forge_page(void)
{
    uint32_t host = 1 + (uint32_t)sim_fault_random(FAULT_FORGED_PAGE, WORLD_MAX_NODES);
    bool up = sim_fault_random(FAULT_FORGED_PAGE, 2);
    uint64_t at =
        up ? layout_up_page(&world_sb.layout, host) : layout_down_page(&world_sb.layout, host);
    uint8_t bytes[PAGE_SIZE_BYTES];
    struct page *page = calloc(1, sizeof *page);

    lun_peek(at, bytes, sizeof bytes);
    uint64_t how = sim_fault_random(FAULT_FORGED_PAGE, 5);
    bool done = false;
    if (how == 4) {
        done = bring_back(up, host, bytes);
    } else if (page_in(bytes, up ? PAGE_UP : PAGE_DOWN, host, &world_sb.pool_id, page, NULL) == 0) {
        spoil(bytes, page, how);
        done = true;
    }
    free(page);
    if (!done)
        return;
    sim_count_fault(FAULT_FORGED_PAGE);
    lun_poke(at, bytes, sizeof bytes);
    sim_trace("forged %s page of host %u, %d", up ? "up" : "down", host, (int)how);
}

/* --- spills: the one before comes back while the next one is read --- */

void chaos_spill_again(const struct process *p, bool up, uint32_t host, const uint8_t *bytes,
                       uint32_t len)
{
    uint64_t at =
        up ? layout_up_spill(&world_sb.layout, host) : layout_down_spill(&world_sb.layout, host);
    if (sim_fault(FAULT_DUPLICATE, 200))
        lun_land_late(sim_now_us() + sim_fault_random(FAULT_DUPLICATE, 2 * SIM_MS), at, bytes, len,
                      p);
}

/* --- late grants: both copies go back to an older table while nobody leads --- */

#define OLD_GRANTS 4u

struct old_grants {
    uint8_t *bytes[OLD_GRANTS]; /* newest first */
    uint32_t len[OLD_GRANTS];
};
static struct old_grants old_grants[WORLD_MAX_NODES + 1];

void chaos_saw_grants(uint32_t host, const uint8_t *bytes, uint32_t len)
{
    struct old_grants *o = &old_grants[host];
    free(o->bytes[OLD_GRANTS - 1]);
    memmove(o->bytes + 1, o->bytes, (OLD_GRANTS - 1) * sizeof *o->bytes);
    memmove(o->len + 1, o->len, (OLD_GRANTS - 1) * sizeof *o->len);
    o->bytes[0] = malloc(len);
    o->len[0] = len;
    memcpy(o->bytes[0], bytes, len);
}

/* The heartbeat of a leader writes them again within a second; without one they stay so until the
 * next takeover reads them. */
void chaos_leader_gone(const struct process *p)
{
    for (uint32_t host = 1; host <= WORLD_MAX_NODES; host++) {
        struct old_grants *o = &old_grants[host];
        if (!o->bytes[1] || !sim_fault(FAULT_STALE_COORDINATOR, 250))
            continue;
        uint64_t n = 1 + sim_fault_random(FAULT_STALE_COORDINATOR, OLD_GRANTS - 1);
        while (!o->bytes[n])
            n--;
        for (int copy = 0; copy < 2; copy++)
            lun_land_late(sim_now_us() + sim_fault_random(FAULT_STALE_COORDINATOR, SIM_S),
                          layout_grants(&world_sb.layout, host, copy), o->bytes[n], o->len[n], p);
    }
}

/* --- the schedule --- */

static const struct {
    enum sim_fault kind;
    uint32_t per_mille; /* and second, at full weight */
    void (*strike)(void);
} strikes[] = {
    {FAULT_PROCESS_KILL, 120, kill_process},
    {FAULT_GUARD_KILL, 30, kill_guard},
    {FAULT_COORDINATOR_CHANGE, 60, change_coordinator},
    {FAULT_NODE_PAUSE, 60, pause_machine},
    {FAULT_GUARD_TERM, 5, term_guard},
    {FAULT_CLOCK_STOP, 20, stop_clock},
    {FAULT_SANLOCK_KILL, 8, kill_sanlock},
    {FAULT_NODE_RESET, 30, reset_machine},
    {FAULT_PATH_LOSS, 50, lose_path},
    {FAULT_CLOCK_DRIFT, 100, drift},
    {FAULT_QSD_EXIT, 150, exit_qsd},
    {FAULT_FORGED_PAGE, 400, forge_page},
    {FAULT_PROCESS_STOP, 60, stop_process},
    {FAULT_OPERATOR, 30, operator_fences},
    {FAULT_STUCK_WRITE, 20, stick_write},
    {FAULT_TWIN, 30, twin_comes},
};

static uint64_t chaos_end_us;

static void on_second(void *data)
{
    (void)data;
    if (sim_faults_ended() || sim_now_us() >= chaos_end_us)
        return;
    for (size_t i = 0; i < sizeof strikes / sizeof *strikes; i++) {
        uint64_t limit = (uint64_t)(sim_weight(strikes[i].kind) * strikes[i].per_mille);
        if (sim_fault_random(strikes[i].kind, 1000) < limit)
            strikes[i].strike();
    }
    if (sim_random(STREAM_WORLD, 60) == 0)
        leave();
    sim_at(sim_now_us() + PERIOD_US, on_second, NULL);
}

void chaos_start(uint64_t chaos_us)
{
    chaos_end_us = sim_now_us() + chaos_us;
    sim_at(sim_now_us() + PERIOD_US, on_second, NULL);
}
