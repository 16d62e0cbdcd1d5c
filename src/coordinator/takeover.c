/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a new leader reads and writes before it answers anybody, in this order, after its acquire:
 *
 *   1. the LVM metadata against its stored copy (committer_open: adopt or restore, SAFETY 4);
 *   2. the catalogue (truth.c);
 *   3. both grant copies and the report of every host id that was ever used, united (SAFETY 2),
 * less what a mark in a copy or in the node's down page says is over (SAFETY 8);
 *   4. both grant copies rewritten under the new term and read back (SAFETY 3).
 *
 * An agent that opens a volume under the old term wrote its report before it looked at the term:
 * either the report is read in step 3, or the agent's look comes after our acquire and it gives up.
 * Failure modes: any step fails: the takeover fails, the process ends and another candidate
 * leads. A damaged table is skipped, since two more sources remain, and named in the log.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/log.h"
#include "base/parallel.h"
#include "coordinator/coordinator_internal.h"
#include "fencing/leases.h"

/* What reading the sources of one node showed. */
struct sources {
    unsigned told;    /* sound, or never written: it says what it says */
    unsigned damaged; /* says nothing */
    int rc;           /* an error of the LUN */
};

/* Reads one table; NULL if it was never written or is damaged. */
static struct table *read_copy(struct coordinator *c, enum table_kind kind, uint32_t host, int copy,
                               struct sources *sources, struct error *err)
{
    struct table *t = calloc(1, sizeof *t);
    if (!t)
        abort();
    int rc = copy < 0 ? table_read_newest(c->fd, &c->sb.layout, kind, host, &c->sb.pool_id, t, err)
                      : table_read(c->fd, &c->sb.layout, kind, host, copy, &c->sb.pool_id, t, err);
    sources->told += rc == 0 || rc == LUNAR_E_NOT_FOUND;
    /* Damage may hit the magic, too, which is looked at before the checksum. */
    bool damaged = rc == LUNAR_E_CORRUPT || rc == LUNAR_E_FOREIGN;
    sources->damaged += damaged;
    if (rc == 0)
        return t;
    free(t);
    if (damaged)
        log_error("table_damaged kind=%d host=%u copy=%d text=\"%s\"", (int)kind, host, copy,
                  err->text);
    else if (rc != LUNAR_E_NOT_FOUND)
        sources->rc = rc;
    return NULL;
}

static void drop(struct table *t)
{
    if (t)
        table_free(t);
    free(t);
}

static int rewrite(struct coordinator *c, struct table *t, struct error *err)
{
    t->writer = c->self;
    t->term = c->self.run_or_term;
    t->seq = 1;
    for (int copy = 0; copy < 2; copy++) {
        effect_point("takeover-grants");
        int rc = table_write(c->fd, &c->sb.layout, t, copy, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* All that stands between two writers: nothing may be guessed here. */
static int check_sources(const struct sources *s, uint32_t host, struct error *err)
{
    if (s->rc < 0)
        return error_prefix(err, "reading the grants of host %u", host);
    if (s->told == 0)
        return error_set(
            err, LUNAR_E_CORRUPT,
            "both grant copies and the report of host %u are damaged, so nobody knows what that "
            "node has open: look with `lunarctl lun dump`; after a restart of the node's agent, "
            "which "
            "writes its report anew, the takeover goes through",
            host);
    return 0;
}

/*
 * The mark of the dead in the node's down page: a third witness of it. What a late write brings
 * back of the grants has neither the mark nor the want of the entries that were taken on its
 * strength, and a report of that life names them all. A page that is damaged, or that a leader
 * wrote before the mark, says nothing.
 */
static uint64_t read_page_mark(struct coordinator *c, uint32_t host, struct sources *sources,
                               struct error *err)
{
    struct page *page = calloc(1, sizeof *page);
    uint8_t *buffer = io_alloc(PAGE_SIZE_BYTES);
    uint64_t mark = 0;

    if (!page)
        abort();
    int rc = io_read(c->fd, buffer, PAGE_SIZE_BYTES, layout_down_page(&c->sb.layout, host), err);
    if (rc < 0)
        sources->rc = rc;
    else if (page_in(buffer, PAGE_DOWN, host, &c->sb.pool_id, page, NULL) == 0)
        mark = page->dead_generation;
    free(buffer);
    free(page);
    return mark;
}

/* Puts the mark into a copy, so that the merge minds it. */
static void add_mark(struct table **copy, uint32_t host, const struct uuid *pool_id, uint64_t mark)
{
    if (!*copy) {
        *copy = calloc(1, sizeof **copy);
        if (!*copy)
            abort();
        table_init(*copy, TABLE_GRANTS, host, pool_id);
    }
    if ((*copy)->node_dead && (*copy)->dead_generation >= mark)
        return;
    (*copy)->node_dead = true;
    (*copy)->dead_generation = mark;
}

static int take_node(struct coordinator *c, uint32_t host, struct table **ret, struct error *err)
{
    struct sources sources = {0};
    struct table *a = read_copy(c, TABLE_GRANTS, host, 0, &sources, err);
    struct table *b = read_copy(c, TABLE_GRANTS, host, 1, &sources, err);
    struct table *report = read_copy(c, TABLE_REPORTS, host, -1, &sources, err);
    uint64_t mark = read_page_mark(c, host, &sources, err);

    *ret = calloc(1, sizeof **ret);
    if (!*ret)
        abort();
    int rc = check_sources(&sources, host, err);
    /* A table of a higher term than ours: somebody was elected after us. */
    if (rc == 0 && ((a && a->term > c->self.run_or_term) || (b && b->term > c->self.run_or_term)))
        rc = error_set(err, LUNAR_E_STALE, "the grants of host %u are of a later term", host);
    if (mark > 0)
        add_mark(&a, host, &c->sb.pool_id, mark);
    if (rc == 0)
        rc = grants_merge(a, b, report, host, &c->sb.pool_id, *ret, err);
    drop(a);
    drop(b);
    drop(report);
    return rc < 0 ? rc : rewrite(c, *ret, err);
}

/* --- all nodes: several at a time, each node by one thread --- */

/*
 * A node takes nine small I/Os, one after the other: at 0.5 ms each, 2000 nodes would take 9 s. No
 * two threads touch one node, so there is still one write in flight per table (SAFETY 3), and a
 * process that is killed keeps its lease until the last of these writes has ended (SAFETY 1), as
 * with one thread.
 */
#define TAKEOVER_THREADS PARALLEL_MAX

struct taking {
    struct coordinator *c;
    struct takeover *takeover;
    const struct delta_lease *leases;
    atomic_uint next;   /* host id to be taken next */
    atomic_bool failed; /* the others stop */
    int rc[TAKEOVER_THREADS];
    struct error errors[TAKEOVER_THREADS];
};

static void take_some(void *data, int thread)
{
    struct taking *taking = data;
    uint32_t h;

    while ((h = atomic_fetch_add(&taking->next, 1)) <= taking->takeover->n &&
           !atomic_load(&taking->failed)) {
        if (taking->leases[h - 1].generation == 0)
            continue;
        taking->rc[thread] =
            take_node(taking->c, h, &taking->takeover->grants[h], &taking->errors[thread]);
        if (taking->rc[thread] < 0)
            atomic_store(&taking->failed, true);
    }
}

/* One error is as good as another: nobody leads. */
static int take_all(struct taking *taking, struct error *err)
{
    atomic_init(&taking->next, 1);
    parallel_run(TAKEOVER_THREADS, take_some, taking);
    for (int i = 0; i < TAKEOVER_THREADS; i++)
        if (taking->rc[i] < 0)
            return error_set(err, taking->rc[i], "%s", taking->errors[i].text);
    return 0;
}

static int take_grants(struct coordinator *c, struct takeover *t, struct error *err)
{
    char space[48];
    uint32_t n = c->sb.layout.max_nodes;
    struct delta_lease *leases = calloc(n, sizeof *leases);

    if (!leases)
        abort();
    pool_lockspace(&c->sb.pool_id, space);
    int rc = leases_read(c->fd, &c->sb.layout, space, leases, err);
    t->n = n;
    t->grants = calloc(n + 1, sizeof *t->grants);
    struct taking *taking = calloc(1, sizeof *taking);
    if (!t->grants || !taking)
        abort();
    taking->c = c;
    taking->takeover = t;
    taking->leases = leases;
    if (rc == 0)
        rc = take_all(taking, err);
    free(taking);
    free(leases);
    return rc;
}

static void undo(struct takeover *t)
{
    for (uint32_t h = 1; t->grants && h <= t->n; h++)
        drop(t->grants[h]);
    free(t->grants);
    if (t->catalogue)
        catalogue_free(t->catalogue);
    free(t->catalogue);
    if (t->committer)
        committer_close(t->committer);
    if (t->lvm)
        lvm_close(t->lvm);
    memset(t, 0, sizeof *t);
}

int takeover_run(struct coordinator *c, struct takeover *ret, struct error *err)
{
    struct lvm_config lvm = {.device = c->device,
                             .state_dir = c->state_dir,
                             .superblock = &c->sb,
                             .inherit_fd = leadership_fd(c->leadership)};
    memset(ret, 0, sizeof *ret);
    int rc = preempt_before_first_commit(c, err);
    if (rc == 0)
        rc = lvm_open(&lvm, &ret->lvm, err);
    if (rc == 0) {
        struct committer_config committer = {.fd = c->fd,
                                             .superblock = &c->sb,
                                             .lvm = ret->lvm,
                                             .leadership = c->leadership,
                                             .term = c->self.run_or_term};
        rc = committer_open(&committer, &ret->committer, err);
    }
    if (rc == 0) {
        ret->catalogue = truth_read(ret->lvm, ret->committer, err);
        rc = ret->catalogue ? 0 : err->code;
    }
    if (rc == 0)
        rc = take_grants(c, ret, err);
    if (rc == 0)
        /* May fail right after the node joined; then the next heartbeat brings it. */
        ret->n_hosts = proof_hosts(c, &ret->hosts, NULL);
    if (rc < 0)
        undo(ret);
    return rc;
}
