/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What SAFETY 4 fears: a whole LVM commit of a leader that is no more, text and header of both
 * areas, lands under its successor.
 *
 * The leader's process dies, or its host loses power, when its lvm has submitted the commit and
 * nothing of it has arrived. It is kept until a later leader has been elected, or has just
 * committed itself, or has died in its turn so that the next takeover finds it. Failure modes:
 * none; how much of the metadata is damaged at a time is bounded as for all late writes
 * (lun_bound_late): the copy in the reserved area stays whole.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "sim/ghost.h"

#define COMMITS_MAX 64u
#define WRITES_MAX  4u
/* After the takeover: while the new leader looks, restores, stamps and begins to work. */
#define TAKEOVER_US (5 * SIM_S)
/* After a commit: before, while and after it is read back and copied. */
#define COMMIT_US (5 * SIM_MS)
/* The writes of one commit follow each other as they were queued. */
#define STEP_US 300u

enum when { AFTER_TAKEOVER, AFTER_COMMIT, BETWEEN_LEADERS, WHENS };

struct stale_commit {
    const struct process *of;
    uint64_t term;
    enum when when;
    uint32_t n;
    struct {
        uint64_t offset;
        uint32_t len;
        uint8_t *bytes;
    } writes[WRITES_MAX];
};

static struct stale_commit commits[COMMITS_MAX];
static uint32_t n_commits;

static uint64_t below(uint64_t n)
{
    return sim_fault_random(FAULT_STALE_COORDINATOR, n);
}

bool stale_strikes(const struct process *p)
{
    bool struck =
        p == ghost_leader() && n_commits < COMMITS_MAX && sim_fault(FAULT_STALE_COORDINATOR, 25);
    if (struck)
        commits[n_commits++] = (struct stale_commit){
            .of = p, .term = ghost_term_of(p), .when = (enum when)below(WHENS)};
    return struck;
}

void stale_keep(uint64_t offset, const void *bytes, uint32_t len)
{
    struct stale_commit *c = &commits[n_commits - 1];
    uint8_t *copy = malloc(len);
    assert(n_commits > 0 && c->n < WRITES_MAX);
    memcpy(copy, bytes, len);
    c->writes[c->n].offset = offset;
    c->writes[c->n].len = len;
    c->writes[c->n++].bytes = copy;
}

void stale_end(struct process *p)
{
    sim_trace("%s dies, its lvm's commit is kept for later", p->name);
    if (below(2) && chaos_may_strike(p->machine))
        world_power_cycle(p->machine, SIM_S + below(40 * SIM_S), "its leader's writes are stuck");
    process_kill(p);
    abort();
}

/* Both areas hold what is not the truth, or lvm has just built upon it: that is all that a design
 * with one copy survives, so nothing else befalls the metadata until a truth was stored again. */
static void on_landed(void *data)
{
    (void)data;
    lun_hold_late(WORLD_METADATA_GROUP, true);
}

void stale_repaired(void)
{
    lun_hold_late(WORLD_METADATA_GROUP, false);
}

/* Whose term is over for good. */
static void land(enum when when, uint64_t term, uint64_t within_us)
{
    for (uint32_t i = 0; i < n_commits && !sim_faults_ended(); i++) {
        struct stale_commit *c = &commits[i];
        if (c->when != when || c->term >= term)
            continue;
        uint64_t at = sim_now_us() + below(within_us);
        sim_trace("the commit of %s, term %llu, is to land", c->of->name,
                  (unsigned long long)c->term);
        for (uint32_t k = 0; k < c->n; k++, at += below(STEP_US)) {
            lun_land_late(at, c->writes[k].offset, c->writes[k].bytes, c->writes[k].len, c->of);
            free(c->writes[k].bytes);
        }
        sim_at(at, on_landed, NULL);
        commits[i--] = commits[--n_commits];
    }
}

void stale_elected(uint64_t term)
{
    land(AFTER_TAKEOVER, term, TAKEOVER_US);
}

void stale_committed(const struct process *p)
{
    if (p == ghost_leader() && below(3) == 0)
        land(AFTER_COMMIT, ghost_term_of(p), COMMIT_US);
}

void stale_leader_gone(const struct process *p)
{
    land(BETWEEN_LEADERS, ghost_term_of(p), SIM_S);
}
