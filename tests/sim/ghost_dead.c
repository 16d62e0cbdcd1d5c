/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariants of the lives that are over (SAFETY 8), judged by what has stood on the LUN.
 *
 *   preempted-is-silent    who is told that a life was preempted can rely on it: nothing of its
 * writes lands any more (SAFETY 13) the-dead-stay-dead     once both copies of a node's grants have
 * borne the mark of a life, nobody gives anything to that life, as long as a witness of the mark is
 * left moved-after-the-mark nobody is given a volume that, by what this leader itself has brought
 * to the LUN, somebody else still has: erased or marked first, in both copies
 *
 * A copy is what its newest table says, whatever older one a late write brought back.
 */
#include <stdlib.h>

#include "sim/ghost.h"

enum { COPIES = 2 };

static struct table newest[WORLD_MAX_NODES + 1][COPIES]; /* slot 0: none yet */

void ghost_dead_landed(uint32_t host, int copy, const struct table *t)
{
    struct table *n = &newest[host][copy];
    if (n->slot != 0 && !table_newer(t, n))
        return;
    table_free(n);
    table_copy(n, t);
}

static uint64_t mark_of(const struct table *t)
{
    return t->slot != 0 && t->node_dead ? t->dead_generation : 0;
}

/* The highest mark that anything on the LUN bears now. */
static uint64_t witnessed(uint32_t host)
{
    static uint8_t bytes[LAYOUT_TABLE_SIZE];
    struct page *page = calloc(1, sizeof *page);
    uint64_t mark = 0;

    lun_peek(layout_down_page(&world_sb.layout, host), bytes, PAGE_SIZE_BYTES);
    if (page_in(bytes, PAGE_DOWN, host, &world_sb.pool_id, page, NULL) == 0)
        mark = page->dead_generation;
    free(page);
    for (int copy = 0; copy < COPIES; copy++) {
        struct table t = {0};
        if (!ghost_order_read(host, copy, &t))
            continue;
        mark = mark_of(&t) > mark ? mark_of(&t) : mark;
        table_free(&t);
    }
    return mark;
}

void ghost_dead_grants(const struct process *p, uint32_t host, const struct table *t, bool first)
{
    uint64_t a = mark_of(&newest[host][0]), b = mark_of(&newest[host][1]);
    uint64_t mark = a < b ? a : b;
    bool own = newest[host][0].term == t->term && newest[host][1].term == t->term;

    if (mark > 0 && !own && first && witnessed(host) < mark)
        return; /* late writes and rot have taken all that told of it */
    for (uint32_t i = 0; i < t->n_entries; i++)
        if (t->entries[i].generation <= mark)
            sim_violation("the-dead-stay-dead",
                          "%s grants something to host %u generation %llu, which is marked dead",
                          p->name, host, (unsigned long long)t->entries[i].generation);
}

/* What an older copy alone knew at the takeover is no news: it gives nobody anything. Nor is a job
 * that a node's next life gets after its former one: a layer that two nodes were to format before a
 * takeover stays new until both their grants are erased (op_create.c). */
static bool is_news(uint32_t to, const struct table_entry *e)
{
    if (e->term == TABLE_TERM_LEFT_OVER)
        return false;
    for (int copy = 0; copy < COPIES; copy++)
        if (newest[to][copy].slot != 0 && e->mode == TABLE_MODE_JOB &&
            table_find_volume(&newest[to][copy], &e->volume_id))
            return false;
    return true;
}

void __real_leader_preempted(struct leader *l, uint32_t host_id, uint64_t generation, int rc,
                             const struct error *err, uint64_t now_ms);
void __wrap_leader_preempted(struct leader *l, uint32_t host_id, uint64_t generation, int rc,
                             const struct error *err, uint64_t now_ms);
void __wrap_leader_preempted(struct leader *l, uint32_t host_id, uint64_t generation, int rc,
                             const struct error *err, uint64_t now_ms)
{
    if (rc == 0 && !lun_has_silenced(host_id, generation))
        sim_violation("preempted-is-silent",
                      "%s takes host %u generation %llu for preempted, and the LUN has not ended "
                      "all of its writes yet",
                      process_current()->name, host_id, (unsigned long long)generation);
    __real_leader_preempted(l, host_id, generation, rc, err, now_ms);
}

void ghost_dead_moved(const struct process *p, uint32_t to, const struct table_entry *e,
                      uint64_t term, uint64_t since_us)
{
    for (uint32_t h = 1; h <= WORLD_MAX_NODES && is_news(to, e); h++)
        for (int copy = 0; h != to && copy < COPIES; copy++) {
            const struct table *t = &newest[h][copy];
            for (uint32_t i = 0; t->slot != 0 && t->term == term && i < t->n_entries; i++)
                /* One that is left over was confirmed gone, and gives nobody anything. A job on the
                 * next layer of a volume is beside its attachment. */
                if (!(e->mode == TABLE_MODE_JOB && t->entries[i].mode == TABLE_MODE_ATTACH) &&
                    uuid_equal(&t->entries[i].volume_id, &e->volume_id) &&
                    t->entries[i].term != TABLE_TERM_LEFT_OVER &&
                    t->entries[i].generation > mark_of(t) &&
                    ghost_given_us(h, &t->entries[i].attachment_id) >= since_us)
                    sim_violation("moved-after-the-mark",
                                  "%s gives host %u volume %016llx, which copy %c of host %u's "
                                  "grants, of its own term, still names",
                                  p->name, to, (unsigned long long)uuid_short(&e->volume_id),
                                  'A' + copy, h);
        }
}
