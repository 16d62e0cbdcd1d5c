/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lives of nodes that are over, and what becomes of their grants (SAFETY 7, 8).
 *
 * A life is (host id, generation). It is over when sanlock says DEAD and that may be believed, when
 * its lease is free, when the same host id has a newer generation, when an operator swears it, or
 * when its reservation keys were preempted. That is latched: a later LIVE of the same generation
 * changes nothing. Happy path: the node's down page is told, operations that waited for that life
 * end or go elsewhere, and its grant table is written, both copies, without its entries and with a
 * mark; only when that has succeeded do the entries leave memory, and until then they stand in
 * everybody's way. The mark outlives this leader: the next one ignores what copies or report still
 * say of that life (grants.c).
 *
 * Where the pool has reservations, DEAD, an operator's word and, if the older life has grants, a
 * newer life take effect only when the keys have been preempted; a clean leave needs no preempt,
 * for nothing of that life is left to write.
 *
 * Failure modes: the write fails: the entries stand, and it is tried again at the tick, as is a
 * preempt that failed. Entries of a newer life of the same node stay where they are.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "coordinator/leader_internal.h"

bool life_is_over(const struct leader *l, uint32_t host_id, uint64_t generation)
{
    return generation <= l->nodes[host_id].over.generation;
}

uint64_t leader_over(const struct leader *leader, uint32_t host_id)
{
    return leader->nodes[host_id].over.generation;
}

bool leader_has_grants(const struct leader *leader, uint32_t host_id)
{
    const struct node *n = &leader->nodes[host_id];

    for (uint32_t i = 0; n->has_grants && i < n->grants.n_entries; i++)
        if (!life_is_over(leader, host_id, n->grants.entries[i].generation))
            return true;
    return false;
}

/* --- operations that waited for it --- */

bool op_life_is_over(const struct leader *l, const struct op *op)
{
    const struct table *t = &l->nodes[op->host_id].grants;

    for (uint32_t i = 0; i < t->n_entries; i++) {
        const struct table_entry *e = &t->entries[i];
        if (uuid_equal(&e->attachment_id, &op->attachment_id) &&
            uuid_equal(&e->volume_id, &op->volume_id))
            return life_is_over(l, op->host_id, e->generation);
    }
    return true; /* only a mark takes it away while the op is under way */
}

/* Detached is what has no grant; a job goes to another node; an attach that was going on has
 * failed, whatever it came to. */
void op_life_ended(struct leader *l, struct op *op)
{
    if (op->kind == OP_ATTACH) {
        op_fail(op, LUNAR_E_NOT_JOINED,
                "node '%s' (host id %u) was proved dead while it attached the volume; attach it "
                "again, there or elsewhere",
                node_name(l, op->host_id), op->host_id);
        op_finish(l, op);
        return;
    }
    if (op->state == OP_STATE_OVERLAY || op->state == OP_STATE_SUSPEND) {
        snapshot_life_ended(l, op);
        return;
    }
    if (op->state == OP_STATE_RESIZE) {
        expand_life_ended(l, op);
        return;
    }
    if (op->state == OP_STATE_RELINK) {
        op_finish(l, op); /* its next attach has the chain of then */
        return;
    }
    op->elsewhere = op->kind != OP_DETACH;
    grant_drop(l, op);
    op_write_grants(l, op, OP_STATE_UNGRANT);
}

static void end_operations(struct leader *l, uint32_t host_id)
{
    struct op *op, *next;
    for (op = TAILQ_FIRST(&l->ops); op; op = next) {
        next = TAILQ_NEXT(op, link);
        if (op_is_at_node(op) && op->host_id == host_id && op_life_is_over(l, op))
            op_life_ended(l, op);
    }
}

void reply_taking(struct leader *l, const struct waiter *w, uint32_t host,
                  const struct table_entry *e)
{
    char text[PAGE_NAME_SIZE + 128];
    snprintf(text, sizeof text,
             "the volume is being taken from the dead node '%s' (host id %u, generation %llu); try "
             "again",
             node_name(l, host), host, (unsigned long long)e->generation);
    reply_error(l, w, LUNAR_E_BUSY, text);
}

/* --- the table --- */

static void drop_entries(struct table *t, uint64_t up_to)
{
    for (uint32_t i = t->n_entries; i-- > 0;)
        if (t->entries[i].generation <= up_to)
            table_remove(t, i);
}

static uint32_t entries_over(const struct node *n)
{
    uint32_t count = 0;
    for (uint32_t i = 0; n->has_grants && i < n->grants.n_entries; i++)
        count += n->grants.entries[i].generation <= n->over.generation;
    return count;
}

void over_write_table(struct leader *l, uint32_t host_id, uint64_t token)
{
    struct node *n = &l->nodes[host_id];
    struct table out = {0};

    n->grants.writer = l->self;
    n->grants.term = l->self.run_or_term;
    n->grants.seq++;
    n->grants.node_dead = n->over.generation > 0;
    n->grants.dead_generation = n->over.generation;
    n->grant_writes++;
    if (entries_over(n) == 0) {
        l->io->write_grants(l->data, token, &n->grants);
        return;
    }
    table_copy(&out, &n->grants);
    drop_entries(&out, n->over.generation);
    l->io->write_grants(l->data, token, &out);
    table_free(&out);
}

static bool is_to_be_marked(const struct node *n)
{
    const struct death *o = &n->over;
    bool wanted = o->wanted > o->marked && o->generation > o->marked;
    return wanted || entries_over(n) > 0;
}

bool over_is_settled(const struct leader *l, uint32_t host_id)
{
    const struct node *n = &l->nodes[host_id];
    return n->over.token == 0 && !is_to_be_marked(n);
}

static void mark(struct leader *l, uint32_t host_id)
{
    struct node *n = &l->nodes[host_id];

    if (n->over.token != 0 || !is_to_be_marked(n))
        return;
    if (!n->has_grants)
        table_init(&n->grants, TABLE_GRANTS, host_id, &l->sb->pool_id);
    n->has_grants = true;
    n->over.token = l->next_token++;
    n->over.token_mark = n->over.generation;
    over_write_table(l, host_id, n->over.token);
}

void over_marked(struct leader *l, uint32_t host_id, uint64_t mark)
{
    struct node *n = &l->nodes[host_id];

    if (mark == 0)
        return;
    uint32_t before = n->grants.n_entries;
    drop_entries(&n->grants, mark);
    if (n->grants.n_entries < before)
        log_info("grants_taken node=%u name=%s generation=%llu entries=%u", host_id,
                 node_name(l, host_id), (unsigned long long)mark, before - n->grants.n_entries);
    if (mark > n->over.marked)
        n->over.marked = mark;
    fence_marked(l, host_id);
}

bool over_write_done(struct leader *l, uint64_t token, int rc)
{
    uint32_t h = 1, max = l->sb->layout.max_nodes;

    while (h <= max && l->nodes[h].over.token != token)
        h++;
    if (h > max)
        return false;
    struct node *n = &l->nodes[h];
    n->over.token = 0;
    assert(n->grant_writes > 0);
    n->grant_writes--;
    n->grants_unsure = rc < 0;
    if (rc == 0)
        over_marked(l, h, n->over.token_mark); /* else the tick tries again */
    return true;
}

/* --- proof --- */

static void latch(struct leader *l, uint32_t host_id, uint64_t generation, const char *why)
{
    struct node *n = &l->nodes[host_id];

    if (generation <= n->over.generation)
        return;
    n->over.generation = generation;
    uint32_t entries = entries_over(n);
    if (entries > 0 || n->over.wanted >= generation)
        log_info("life_over node=%u name=%s generation=%llu why=\"%s\" entries=%u", host_id,
                 node_name(l, host_id), (unsigned long long)generation, why, entries);
    if (l->io->declare_dead)
        l->io->declare_dead(l->data, host_id, generation);
    end_operations(l, host_id);
    mark(l, host_id);
}

/* Also what a failed preempt, or one of an older life, has left to do. */
static void preempt(struct leader *l, uint32_t host_id)
{
    struct death *over = &l->nodes[host_id].over;

    if (over->dead <= over->generation || over->preempting != 0)
        return;
    over->preempting = over->dead;
    l->io->preempt(l->data, host_id, over->dead);
}

/* DEAD, an operator's word, a newer life: the machine may yet have writes on their way, or be
 * thawed. */
static void take_for_dead(struct leader *l, uint32_t host_id, uint64_t generation, const char *why)
{
    struct death *over = &l->nodes[host_id].over;

    if (generation <= over->generation)
        return;
    if (generation > over->dead)
        over->dead = generation;
    if (generation > over->wanted)
        over->wanted = generation;
    if (l->io->preempt)
        preempt(l, host_id);
    else
        latch(l, host_id, generation, why);
}

void over_fenced(struct leader *l, uint32_t host_id, uint64_t generation)
{
    take_for_dead(l, host_id, generation, "fenced by an operator");
}

void leader_preempted(struct leader *leader, uint32_t host_id, uint64_t generation, int rc,
                      const struct error *err, uint64_t now_ms)
{
    struct death *over = &leader->nodes[host_id].over;

    leader->now_ms = now_ms;
    over->preempting = 0;
    if (rc == 0) {
        if (generation > over->wanted)
            over->wanted = generation;
        latch(leader, host_id, generation, "preempted");
        return;
    }
    log_error("preempt_failed node=%u generation=%llu code=%s text=\"%s\"", host_id,
              (unsigned long long)generation, error_name(rc), err->text);
    fence_failed(leader, host_id, err);
}

/*
 * A newer life is proof only from the same machine (SAFETY 7), and a twin of it may have the same
 * identity. Where the LUN can be made to refuse the old life's writes, it is, before anything of it
 * is given on.
 */
static void supersede(struct leader *l, uint32_t host_id, uint64_t generation)
{
    const struct node *n = &l->nodes[host_id];
    bool holds = false;

    for (uint32_t i = 0; n->has_grants && i < n->grants.n_entries; i++)
        holds |= n->grants.entries[i].generation <= generation;
    if (l->io->preempt && holds)
        take_for_dead(l, host_id, generation, "superseded");
    else
        latch(l, host_id, generation, "superseded");
}

void over_judge(struct leader *l, const struct host_status *host, bool awake)
{
    if (host->generation > 1)
        supersede(l, host->host_id, host->generation - 1);
    if (host->state == HOST_STATE_FREE && host->look == HOST_LOOK_UNMOVED)
        latch(l, host->host_id, host->generation, "left the pool");
    else if (host->state == HOST_STATE_DEAD && host->look == HOST_LOOK_UNMOVED && awake)
        take_for_dead(l, host->host_id, host->generation, "sanlock says DEAD");
}

/* --- this leader's beginning, and its ticks --- */

void over_start(struct leader *l)
{
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++)
        if (l->nodes[h].over.generation > 0 && l->io->declare_dead)
            l->io->declare_dead(l->data, h, l->nodes[h].over.generation);
}

void over_tick(struct leader *l)
{
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        preempt(l, h);
        mark(l, h);
    }
}
