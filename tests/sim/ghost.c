/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariants: who leads, who may write where.
 *
 * The virtual sanlock says whom it gave which term. From then on that process *acts* as coordinator
 * (commits, grants, down pages, commands) until it dies or somebody else is given a higher term.
 * What it submitted before may land later; what it submits afterwards is a breach as soon as it
 * could know, which is when a look at the lease of its own, begun after the change, has ended, and
 * at the latest after it has run, with its LUN, for BLIND_MAX.
 */
#include "sim/ghost.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "diskrpc/claim.h"

#define PROCESSES_MAX 4096u
/* The heartbeat looks at the lease every second; a look may take a long-tailed I/O, which ends
 * within 8 s or so. */
#define BLIND_MAX_US (15 * SIM_S)
/* From the thread that has looked to the loop that ends the process. */
#define TOLD_US (2 * SIM_MS)

struct seat {
    uint64_t term;         /* 0: never elected */
    uint64_t taken_us;     /* when somebody else was elected; 0: not yet */
    uint64_t ran_at_taken; /* of its machine */
    uint64_t stood_at_taken;
    uint64_t knows_us; /* since when it knows that it was deposed; 0: not yet */
    uint64_t check_began_us, check_ended_us; /* of the last good look at the lease */
    uint64_t commit_began_us;
};

static struct seat seats[PROCESSES_MAX];
/* Lives that the leader's own daemon saw dead when it was elected; 0: none. */
static uint64_t dead_at_election[WORLD_MAX_NODES + 1];
static struct process *leader;
static uint64_t highest_term, elected_us;
static uint64_t ran_us[SIM_NODES_MAX + 1];       /* how long each machine was up with its LUN */
static uint64_t agent_ran_us[SIM_NODES_MAX + 1]; /* and its agent was not stopped */
static uint64_t last_event_us;
static const struct machine *host_of[WORLD_MAX_NODES + 1]; /* who holds the host id, or did last */

static struct seat *seat_of(const struct process *p)
{
    assert(p->number < PROCESSES_MAX);
    return &seats[p->number];
}

uint64_t ghost_term_of(const struct process *p)
{
    return seat_of(p)->term;
}

uint64_t ghost_term(void)
{
    return highest_term;
}

struct process *ghost_leader(void)
{
    return leader;
}

uint64_t ghost_agent_ran_us(const struct machine *m)
{
    return agent_ran_us[m->index];
}

/* --- terms --- */

static void note_the_dead(const struct machine *m)
{
    for (uint32_t h = 1; h <= WORLD_MAX_NODES; h++) {
        uint64_t generation;
        bool dead = sanlock_written_us(h, &generation) && sanlock_sees_dead(m, h);
        dead_at_election[h] = dead ? generation : 0;
    }
}

/* SAFETY 13: what such a host has under way, of a former leader's lvm above all, is ended first. */
static void check_preempted(const struct process *p)
{
    for (uint32_t h = 1; h <= WORLD_MAX_NODES; h++) {
        uint64_t generation, written_us = sanlock_written_us(h, &generation);
        bool same = dead_at_election[h] && generation == dead_at_election[h] && written_us &&
                    written_us < elected_us;
        if (same && h != sanlock_host_id(p->machine) && lun_has_key_of(h, generation))
            sim_violation("preempted-before-the-first-commit",
                          "%s commits, and the key of host %u generation %llu, dead since before "
                          "the election, is registered",
                          p->name, h, (unsigned long long)generation);
    }
}

static void on_elected(struct process *p, uint64_t term)
{
    if (term <= highest_term)
        sim_violation("terms-only-rise", "%s was given term %llu after term %llu", p->name,
                      (unsigned long long)term, (unsigned long long)highest_term);
    if (leader && leader != p) {
        struct seat *old = seat_of(leader);
        old->taken_us = sim_now_us();
        old->ran_at_taken = ran_us[leader->machine->index];
        old->stood_at_taken = process_stood_us(leader);
    }
    sim_trace("ghost: %s has term %llu", p->name, (unsigned long long)term);
    highest_term = term;
    elected_us = sim_now_us();
    note_the_dead(p->machine);
    leader = p;
    ghost_order_elected(term);
    stale_elected(term);
    *seat_of(p) = (struct seat){.term = term}; /* it may have had the lease before */
}

static void leadership_checked(struct process *p, uint64_t began_us, int rc)
{
    struct seat *s = seat_of(p);
    bool over = s->taken_us > 0 && began_us > s->taken_us;
    if (rc == 0 && over)
        sim_violation("one-coordinator-acts",
                      "%s looked at the lease and still believes in term "
                      "%llu",
                      p->name, (unsigned long long)s->term);
    if (rc == 0) {
        s->check_began_us = began_us;
        s->check_ended_us = sim_now_us();
    }
    if (rc == LUNAR_E_STALE && s->taken_us > 0 && s->knows_us == 0)
        s->knows_us = sim_now_us();
}

int __real_leadership_check(struct leadership *l, uint64_t term, struct error *err);
int __wrap_leadership_check(struct leadership *l, uint64_t term, struct error *err);
int __wrap_leadership_check(struct leadership *l, uint64_t term, struct error *err)
{
    struct process *p = process_current();
    uint64_t began_us = sim_now_us();
    int rc = __real_leadership_check(l, term, err);
    leadership_checked(p, began_us, rc);
    return rc;
}

void ghost_commit_begins(const struct process *p)
{
    seat_of(p)->commit_began_us = sim_now_us();
}

void ghost_acts(const struct process *p, const char *what)
{
    const struct seat *s = seat_of(p);
    if (s->term == 0)
        sim_violation("one-coordinator-acts", "%s %s and was never elected", p->name, what);
    if (s->taken_us == 0)
        return;
    uint64_t ran = ran_us[p->machine->index] - s->ran_at_taken;
    uint64_t stood = process_stood_us(p) - s->stood_at_taken; /* its machine, too, perhaps */
    uint64_t blind = ran > stood ? ran - stood : 0;
    bool knows = s->knows_us > 0 && sim_now_us() > s->knows_us + TOLD_US;
    if (knows || blind > BLIND_MAX_US)
        sim_violation("one-coordinator-acts",
                      "%s %s under term %llu, %llu ms after term %llu was given to %s", p->name,
                      what, (unsigned long long)s->term,
                      (unsigned long long)(sim_now_us() - s->taken_us) / 1000,
                      (unsigned long long)highest_term, leader->name);
}

/* lvm is about to write: the lease was looked at within this commit. */
void ghost_commits(const struct process *p)
{
    const struct seat *s = seat_of(p);
    ghost_acts(p, "commits");
    if (s->check_ended_us < s->commit_began_us || s->check_ended_us == 0)
        sim_violation("one-coordinator-acts",
                      "%s commits without a look at the lease since the commit began", p->name);
    if (p == leader)
        check_preempted(p);
}

/* --- who is forced out --- */

/* A silent leader is seen within 7 s of the faults' end, asked for, and killed within 5N; a second
 * request may follow after that; where the standby itself is being fenced, it has to join again
 * before. Whoever has led since then beats. */
#define LEFT_ALONE_US (80 * SIM_S)

static uint64_t faults_ended_us;

void ghost_faults_ended(void)
{
    faults_ended_us = sim_now_us();
}

static void on_forced_out(struct process *p)
{
    if (faults_ended_us && sim_now_us() > faults_ended_us + LEFT_ALONE_US)
        sim_violation("a-beating-leader-is-left-alone",
                      "%s is forced out, %llu ms after the last fault", p->name,
                      (unsigned long long)(sim_now_us() - faults_ended_us) / 1000);
}

/* --- who writes where --- */

static void check_writer(const struct process *p, const struct incarnation *writer, uint64_t want,
                         const char *what)
{
    if (writer->run_or_term != want)
        sim_violation("pages-have-one-writer", "%s writes %s as %llu, but is %llu", p->name, what,
                      (unsigned long long)writer->run_or_term, (unsigned long long)want);
}

static void check_agent_write(const struct process *p, uint32_t host, const char *what)
{
    if (p->kind != PROCESS_AGENT)
        sim_violation("pages-have-one-writer", "%s writes %s of host %u", p->name, what, host);
    for (uint32_t i = 1; i <= world_all_machines(); i++)
        if (sanlock_host_id(machine_at(i)) == host)
            host_of[host] = machine_at(i);
    /* A join whose first write hung until its lockspace was given up: nobody has had the slot
     * since. */
    const struct agent *agent = process_agent(p);
    if (!host_of[host] && agent && agent->join.self.host_id == host)
        host_of[host] = p->machine;
    if (host_of[host] != p->machine || machine_process(p->machine, PROCESS_AGENT) != p)
        sim_violation("pages-have-one-writer", "%s writes %s of host %u, which is %s's", p->name,
                      what, host, host_of[host] ? host_of[host]->name : "nobody");
}

static void check_coordinator_write(struct process *p, const char *what)
{
    if (p->kind != PROCESS_COORDINATOR)
        sim_violation("pages-have-one-writer", "%s writes %s", p->name, what);
    ghost_acts(p, what);
}

static bool in_region(uint64_t offset, uint64_t start, uint64_t size, uint64_t slot_size,
                      uint32_t *ret_host)
{
    if (offset < start || offset >= start + size)
        return false;
    *ret_host = (uint32_t)((offset - start) / slot_size) + 1;
    return true;
}

/* A join claims a host id by a nonce in its up page, and takes what is left of it away later: no
 * page, whoever owns the slot by now. */
static bool is_claim(const struct process *p, uint32_t host, const uint8_t *bytes)
{
    static const uint8_t cleared[PAGE_SIZE_BYTES];
    struct claim claim;
    const struct agent *a = process_agent(p);
    bool joining = a && a->state != AGENT_STATE_JOINED;
    return joining && (memcmp(bytes, cleared, sizeof cleared) == 0 ||
                       claim_in(bytes, host, &world_sb.pool_id, &claim, NULL) == 0);
}

static void up_page_submitted(struct process *p, uint32_t host, const uint8_t *bytes)
{
    struct page *page = calloc(1, sizeof *page);
    const struct agent *a = process_agent(p);

    if (is_claim(p, host, bytes)) {
        free(page);
        return;
    }
    check_agent_write(p, host, "the up page");
    if (page_in(bytes, PAGE_UP, host, &world_sb.pool_id, page, NULL) < 0)
        sim_violation("pages-have-one-writer", "%s writes a page that is none", p->name);
    check_writer(p, &page->writer, a->join.self.run_or_term, "the up page");
    ghost_spill_named(p, true, page);
    chaos_saw_page(true, host, &page->writer, bytes);
    free(page);
}

static void down_page_submitted(struct process *p, uint32_t host, const uint8_t *bytes)
{
    struct page *page = calloc(1, sizeof *page);

    check_coordinator_write(p, "writes a down page");
    if (page_in(bytes, PAGE_DOWN, host, &world_sb.pool_id, page, NULL) < 0)
        sim_violation("pages-have-one-writer", "%s writes a page that is none", p->name);
    check_writer(p, &page->writer, ghost_term_of(p), "a down page");
    ghost_spill_named(p, false, page);
    chaos_saw_page(false, host, &page->writer, bytes);
    free(page);
}

static void beat_submitted(struct process *p, const uint8_t *bytes)
{
    struct beat beat;

    check_coordinator_write(p, "writes a beat");
    if (beat_in(bytes, &world_sb.pool_id, &beat, NULL) < 0)
        sim_violation("pages-have-one-writer", "%s writes a beat that is none", p->name);
    check_writer(p, &beat.writer, ghost_term_of(p), "a beat");
}

static void on_submitted(struct process *p, uint64_t offset, const uint8_t *bytes, uint32_t len)
{
    const struct layout *l = &world_sb.layout;
    uint64_t n = l->max_nodes, tables = n * LAYOUT_TABLE_SIZE, spills = n * LAYOUT_SPILL_SIZE;
    uint32_t host;

    if (!p || (offset >= l->lockspace && offset < l->up_pages))
        return; /* the world's own, and sanlock's */
    if (in_region(offset, l->up_pages, n * LAYOUT_PAGE_SIZE, LAYOUT_PAGE_SIZE, &host))
        up_page_submitted(p, host, bytes);
    else if (in_region(offset, l->down_pages, n * LAYOUT_PAGE_SIZE, LAYOUT_PAGE_SIZE, &host))
        down_page_submitted(p, host, bytes);
    else if (in_region(offset, l->up_spill, spills, LAYOUT_SPILL_SIZE, &host)) {
        check_agent_write(p, host, "the up spill");
        ghost_spill_submitted(p, true, host, bytes, len);
    } else if (in_region(offset, l->down_spill, spills, LAYOUT_SPILL_SIZE, &host)) {
        check_coordinator_write(p, "writes a down spill");
        ghost_spill_submitted(p, false, host, bytes, len);
    } else if (in_region(offset, l->reports_a, tables, LAYOUT_TABLE_SIZE, &host) ||
               in_region(offset, l->reports_b, tables, LAYOUT_TABLE_SIZE, &host))
        check_agent_write(p, host, "the report");
    else if (in_region(offset, l->grants_a, tables, LAYOUT_TABLE_SIZE, &host) ||
             in_region(offset, l->grants_b, tables, LAYOUT_TABLE_SIZE, &host)) {
        check_coordinator_write(p, "writes grants");
        ghost_grants_submitted(p, host, bytes, len);
        if (offset < l->grants_b)
            chaos_saw_grants(host, bytes, len);
    } else if (offset == beat_offset(l))
        beat_submitted(p, bytes);
    else if (offset >= l->metadata_a && offset < l->metadata_b + LAYOUT_METADATA_COPY_SIZE)
        check_coordinator_write(p, "stores a metadata copy");
    else if (lvm_model_owns(offset))
        check_coordinator_write(p, "writes LVM metadata");
    else
        sim_violation("pages-have-one-writer", "%s writes at %llu, which is nobody's", p->name,
                      (unsigned long long)offset);
}

static void on_landed(const struct process *p, uint64_t offset, const uint8_t *bytes, uint32_t len,
                      bool late)
{
    (void)bytes;
    ghost_order_landed(offset);
    if (!late)
        ghost_spill_landed(p, offset, len);
}

/* --- after each event --- */

static void count_running(void)
{
    uint64_t passed = sim_now_us() - last_event_us;
    if (passed == 0)
        return;
    last_event_us = sim_now_us();
    for (uint32_t i = 1; i <= world_all_machines(); i++) {
        const struct machine *m = machine_at(i);
        if (m->state != MACHINE_UP || m->path_lost)
            continue;
        const struct process *agent = machine_process(m, PROCESS_AGENT);
        ran_us[i] += passed;
        agent_ran_us[i] += agent && !agent->stopped ? passed : 0;
    }
}

static void after_event(void)
{
    count_running();
    ghost_messages_check();
}

void ghost_start(void)
{
    sim_hooks.after_event = after_event;
    sim_hooks.lun_submitted = on_submitted;
    sim_hooks.lun_landed = on_landed;
    sim_hooks.elected = on_elected;
    sim_hooks.forced_out = on_forced_out;
    faults_ended_us = 0;
}
