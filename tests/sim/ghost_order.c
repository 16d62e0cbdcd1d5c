/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariants of the order of writes that SAFETY 2 and 3 demand, judged by what has stood on the
 * LUN.
 *
 *   granted-before-told      a command that maps goes out after both grant copies have named it
 *   reported-before-mapped   a node maps after its report has named the attachment
 *   looked-after-reporting   nobody maps under a term that was over before that report stood
 *   takeover-loses-nothing   a new leader's first table has what copies and report said, but for
 *                            a life that is proved dead and marked so
 *
 * They watch the means and not the end: with two copies and a report, it takes several faults at
 * one moment until a missing step gives two nodes one volume, and a run would seldom show it. What
 * stood once counts, whatever a late write or rot makes of it afterwards.
 */
#include <assert.h>
#include <stdlib.h>

#include "sim/ghost.h"

#define STOOD_MAX 16384u
#define TERMS_MAX 4096u

enum { COPIES = 2 };

/* An entry that has stood on the LUN, with the moment when it first did. */
struct stood {
    enum table_kind kind;
    uint32_t host;
    int copy;
    struct uuid attachment;
    uint64_t table_term, generation, term;
    uint64_t since_us;
};

static struct stood stood[STOOD_MAX];
static uint32_t n_stood;
static uint64_t given_us[TERMS_MAX]; /* when the term was given */

static bool read_copy(enum table_kind kind, uint32_t host, int copy, struct table *ret)
{
    static uint8_t bytes[LAYOUT_TABLE_SIZE];
    const struct layout *l = &world_sb.layout;
    uint64_t at =
        kind == TABLE_GRANTS ? layout_grants(l, host, copy) : layout_reports(l, host, copy);

    lun_peek(at, bytes, LAYOUT_PAGE_SIZE);
    uint32_t len = table_wanted(bytes);
    lun_peek(at, bytes, len);
    return table_in(bytes, len, kind, host, &world_sb.pool_id, ret, NULL) == 0;
}

bool ghost_order_read(uint32_t host, int copy, struct table *ret)
{
    return read_copy(TABLE_GRANTS, host, copy, ret);
}

static void note(const struct stood *s)
{
    for (uint32_t i = 0; i < n_stood; i++)
        if (stood[i].kind == s->kind && stood[i].host == s->host && stood[i].copy == s->copy &&
            stood[i].table_term == s->table_term && stood[i].term == s->term &&
            stood[i].generation == s->generation &&
            uuid_equal(&stood[i].attachment, &s->attachment))
            return;
    assert(n_stood < STOOD_MAX);
    stood[n_stood++] = *s;
}

static void landed(enum table_kind kind, uint32_t host, int copy)
{
    struct table t = {0};
    if (!read_copy(kind, host, copy, &t))
        return;
    if (kind == TABLE_GRANTS)
        ghost_dead_landed(host, copy, &t);
    for (uint32_t i = 0; i < t.n_entries; i++) {
        const struct table_entry *e = &t.entries[i];
        note(&(struct stood){kind, host, copy, e->attachment_id, t.term, e->generation, e->term,
                             sim_now_us()});
    }
    table_free(&t);
}

void ghost_order_landed(uint64_t offset)
{
    const struct layout *l = &world_sb.layout;
    const uint64_t starts[][COPIES] = {[TABLE_GRANTS] = {l->grants_a, l->grants_b},
                                       [TABLE_REPORTS] = {l->reports_a, l->reports_b}};

    for (int kind = TABLE_GRANTS; kind <= TABLE_REPORTS; kind++)
        for (int copy = 0; copy < COPIES; copy++) {
            uint64_t start = starts[kind][copy];
            if (offset >= start && offset < start + (uint64_t)l->max_nodes * LAYOUT_TABLE_SIZE)
                landed((enum table_kind)kind, (uint32_t)((offset - start) / LAYOUT_TABLE_SIZE) + 1,
                       copy);
        }
}

/* --- a command goes out --- */

static bool granted_in(uint32_t host, int copy, uint64_t term, const struct uuid *attachment)
{
    for (uint32_t i = 0; i < n_stood; i++)
        if (stood[i].kind == TABLE_GRANTS && stood[i].host == host && stood[i].copy == copy &&
            stood[i].table_term == term && uuid_equal(&stood[i].attachment, attachment))
            return true;
    return false;
}

void ghost_order_command(const struct process *p, uint32_t host, uint64_t term,
                         const Lunar__Command *c)
{
    struct uuid attachment;

    if (c->op_case == LUNAR__COMMAND__OP_ATTACH)
        attachment = uuid_from_pb(c->attach->attachment_id);
    else if (c->op_case == LUNAR__COMMAND__OP_FORMAT_JOB)
        attachment = uuid_from_pb(c->format_job->attachment_id);
    else
        return;
    for (int copy = 0; copy < COPIES; copy++)
        if (!granted_in(host, copy, term, &attachment))
            sim_violation("granted-before-told",
                          "%s tells host %u to open what copy %c of its grants has not named in "
                          "term %llu",
                          p->name, host, 'A' + copy, (unsigned long long)term);
}

/* --- a node maps --- */

void ghost_order_mapping(const struct machine *m, uint32_t host, const struct uuid *attachment)
{
    const struct stood *last = NULL;
    uint64_t generation = sanlock_generation(m);

    for (uint32_t i = 0; i < n_stood; i++) {
        const struct stood *s = &stood[i];
        bool names = s->kind == TABLE_REPORTS && s->host == host && s->generation == generation &&
                     uuid_equal(&s->attachment, attachment);
        if (names && (!last || s->term > last->term ||
                      (s->term == last->term && s->since_us < last->since_us)))
            last = s;
    }
    if (!last)
        sim_violation("reported-before-mapped", "%s maps what its report has not named", m->name);
    for (uint64_t term = last->term + 1; term < TERMS_MAX; term++)
        if (given_us[term] > 0 && given_us[term] < last->since_us)
            sim_violation("looked-after-reporting",
                          "%s maps under term %llu; term %llu was given %llu us before its report "
                          "stood",
                          m->name, (unsigned long long)last->term, (unsigned long long)term,
                          (unsigned long long)(last->since_us - given_us[term]));
}

/* --- a leader takes over --- */

struct source {
    struct table copies[COPIES], report;
    bool has[COPIES], has_report, checked;
};
static struct source at_election[WORLD_MAX_NODES + 1], as_read[WORLD_MAX_NODES + 1];

static bool newest_report(uint32_t host, struct table *ret)
{
    struct table other = {0};
    bool a = read_copy(TABLE_REPORTS, host, 0, ret), b = read_copy(TABLE_REPORTS, host, 1, &other);

    if (b && (!a || table_newer(&other, ret))) {
        struct table swap = *ret;
        *ret = other;
        other = swap;
    }
    if (a && b)
        table_free(&other);
    return a || b;
}

static void take_snapshot(uint32_t host, struct source *s)
{
    for (int copy = 0; copy < COPIES; copy++)
        s->has[copy] = read_copy(TABLE_GRANTS, host, copy, &s->copies[copy]);
    s->has_report = newest_report(host, &s->report);
}

static void drop_snapshot(struct source *s)
{
    for (int copy = 0; copy < COPIES; copy++)
        if (s->has[copy])
            table_free(&s->copies[copy]);
    if (s->has_report)
        table_free(&s->report);
    *s = (struct source){0};
}

void ghost_order_elected(uint64_t term)
{
    assert(term < TERMS_MAX);
    given_us[term] = sim_now_us();
    for (uint32_t h = 1; h <= WORLD_MAX_NODES; h++) {
        drop_snapshot(&at_election[h]);
        drop_snapshot(&as_read[h]);
        take_snapshot(h, &at_election[h]);
    }
}

static bool names(struct source *s, const struct uuid *attachment)
{
    bool b_is_newer = s->has[1] && (!s->has[0] || table_newer(&s->copies[1], &s->copies[0]));
    int newer = b_is_newer ? 1 : 0;
    return (s->has_report && table_find_attachment(&s->report, attachment)) ||
           (s->has[newer] && table_find_attachment(&s->copies[newer], attachment));
}

bool ghost_order_was_named(uint32_t host, const struct uuid *attachment)
{
    return names(&at_election[host], attachment) || names(&as_read[host], attachment);
}

/* What a source said at the election and still says must be in the leader's first table. */
static void check_source(const struct process *p, uint32_t host, struct table *then,
                         struct table *now, struct table *first, const char *what)
{
    for (uint32_t i = 0; i < then->n_entries; i++) {
        const struct uuid *id = &then->entries[i].attachment_id;
        uint64_t generation = then->entries[i].generation;
        if (first->node_dead && generation <= first->dead_generation &&
            sanlock_proved_dead(host, generation))
            continue;
        if (table_find_attachment(now, id) && !table_find_attachment(first, id))
            sim_violation("takeover-loses-nothing",
                          "%s takes over and leaves out what %s of host "
                          "%u names",
                          p->name, what, host);
    }
}

bool ghost_order_grants(const struct process *p, uint32_t host, struct table *first)
{
    static const char *const copies[] = {"grant copy A", "grant copy B"};
    struct source *then = &at_election[host], *now = &as_read[host];

    if (then->checked)
        return false;
    take_snapshot(host, now);
    for (int copy = 0; copy < COPIES; copy++)
        if (then->has[copy] && now->has[copy])
            check_source(p, host, &then->copies[copy], &now->copies[copy], first, copies[copy]);
    if (then->has_report && now->has_report)
        check_source(p, host, &then->report, &now->report, first, "the report");
    then->checked = true;
    return true;
}
