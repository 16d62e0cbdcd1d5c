/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The heartbeat's re-check of the grants on the LUN: a write of a former leader may land late and
 * hit a table that is ours now (SAFETY 3).
 *
 * Happy path: with each heartbeat the next few nodes in turn, both copies, one read each: what lies
 * there is byte for byte what we wrote. Nodes with entries come first; one of any kind follows, so
 * that tables without entries get their turn too. Failure modes: other bytes, or none that can be
 * read: written again and told; a table of a higher term: deposed, the process ends.
 */
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "coordinator/coordinator_internal.h"

struct recheck {
    struct coordinator *c;
    uint32_t n;
    struct table tables[COORDINATOR_RECHECK_NODES];
    bool deposed;
};

/* True if that copy holds exactly the bytes of `want`: one read, of their length. */
static bool is_intact(const struct coordinator *c, const struct table *want, int copy)
{
    uint32_t len = table_size(want);
    uint8_t *wanted = io_alloc(LAYOUT_TABLE_SIZE), *found = io_alloc(LAYOUT_TABLE_SIZE);
    bool same =
        table_out(want, wanted, len, NULL) == 0 &&
        io_read(c->fd, found, len, layout_grants(&c->sb.layout, want->slot, copy), NULL) == 0 &&
        memcmp(wanted, found, len) == 0;

    free(wanted);
    free(found);
    return same;
}

static void heal(struct recheck *r, const struct table *want, int copy)
{
    struct coordinator *c = r->c;
    struct table found = {0};
    struct error err = ERROR_INIT;

    if (table_read(c->fd, &c->sb.layout, TABLE_GRANTS, want->slot, copy, &c->sb.pool_id, &found,
                   NULL) == 0) {
        r->deposed = found.term > want->term;
        table_free(&found);
    }
    if (r->deposed)
        return;
    log_error("grants_overwritten host=%u copy=%d text=\"a late write hit them; written again\"",
              want->slot, copy);
    if (table_write(c->fd, &c->sb.layout, want, copy, &err) < 0)
        log_error("grants_write_failed host=%u text=\"%s\"", want->slot, err.text);
}

static void recheck_run(struct worker_job *job)
{
    struct recheck *r = job->data;
    for (uint32_t i = 0; i < r->n; i++)
        for (int copy = 0; copy < 2 && !r->deposed; copy++)
            if (!is_intact(r->c, &r->tables[i], copy))
                heal(r, &r->tables[i], copy);
}

static void recheck_done(struct worker_job *job)
{
    struct recheck *r = job->data;
    if (r->deposed)
        coordinator_die("deposed", "grants of a later term are on the LUN");
    for (uint32_t i = 0; i < r->n; i++)
        table_free(&r->tables[i]);
    r->c->recheck_busy = false;
    free(r);
}

static bool is_taken(const struct recheck *r, uint32_t host_id)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (r->tables[i].slot == host_id)
            return true;
    return false;
}

/* Takes nodes in turn from behind *cursor, until `limit` are together or all were looked at. */
static void take(struct recheck *r, uint32_t *cursor, bool with_entries, uint32_t limit)
{
    struct coordinator *c = r->c;
    uint32_t max = c->sb.layout.max_nodes;

    for (uint32_t looked = 0; looked < max && r->n < limit; looked++) {
        *cursor = *cursor % max + 1;
        const struct table *t = leader_grants(c->leader, *cursor);
        if (t && (!with_entries || t->n_entries > 0) && leader_grants_settled(c->leader, *cursor) &&
            t->term == c->self.run_or_term && !is_taken(r, *cursor))
            table_copy(&r->tables[r->n++], t);
    }
}

/* Runs in the grants thread, so that it never races with a write of the same tables. */
void recheck_start(struct coordinator *c)
{
    struct recheck *r = calloc(1, sizeof *r);

    if (!r)
        abort();
    r->c = c;
    take(r, &c->recheck_used_at, true, COORDINATOR_RECHECK_NODES - 1);
    take(r, &c->recheck_any_at, false, r->n + 1);
    c->recheck_busy = true;
    c->recheck_job = (struct worker_job){.run = recheck_run, .done = recheck_done, .data = r};
    worker_submit(c->grants_worker, &c->recheck_job);
}
