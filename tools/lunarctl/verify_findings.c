/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must agree in a pool at rest: the catalogue, the grants in the coordinator's memory and on
 * the LUN, the nodes' reports, the maps and daemons that stand on the nodes. Pure.
 *
 * Happy path: nothing is found. Otherwise each disagreement is one finding, with what to do about
 * it. Failure modes: a table that cannot be read, or a node that cannot be asked, is a finding of
 * its own, and what would follow from it is left out, so that one trouble does not show as twenty.
 */
#include "verify.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "diskrpc/message.h"
#include "output.h"

static const char no_name[] = "";

static const char *name_of(const struct verify_host *h)
{
    return h && h->node ? h->node->name : no_name;
}

static const Lunar__Volume *volume_of(const struct verify_facts *f, const struct uuid *id)
{
    for (size_t i = 0; i < f->n_volumes; i++) {
        struct uuid other = uuid_from_pb(f->volumes[i]->volume_id);
        if (uuid_equal(&other, id))
            return f->volumes[i];
    }
    return NULL;
}

void verify_found(const struct verify_context *c, const char *kind, const struct verify_host *h,
                  const struct uuid *volume, const char *todo, const char *format, ...)
{
    const Lunar__Volume *v = volume ? volume_of(c->facts, volume) : NULL;
    json_t *o = json_object();
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    js_set(o, "kind", js_text(kind));
    if (h) {
        js_set(o, "host_id", js_u64(h->host_id));
        js_set(o, "node", js_text(name_of(h)));
    }
    if (volume) {
        js_set(o, "volume_id", js_uuid(volume));
        js_set(o, "volume", js_text(v ? v->name : no_name));
    }
    js_set(o, "text", js_text(text));
    js_set(o, "do", js_text(todo));
    js_append(c->findings, o);
}

/* --- lookups --- */

/* The table that counts; NULL: none, or nobody knows. */
static const struct table *grants_of(const struct verify_host *h)
{
    bool a = h->grants_rc[0] == 0, b = h->grants_rc[1] == 0;
    if (a && b)
        return table_newer(&h->grants[1], &h->grants[0]) ? &h->grants[1] : &h->grants[0];
    return a ? &h->grants[0] : b ? &h->grants[1] : NULL;
}

static const struct table *report_of(const struct verify_host *h)
{
    return h->report_rc == 0 ? &h->report : NULL;
}

static const struct table_entry *entry_of(const struct table *t, const struct uuid *attachment)
{
    for (uint32_t i = 0; t && i < t->n_entries; i++)
        if (uuid_equal(&t->entries[i].attachment_id, attachment))
            return &t->entries[i];
    return NULL;
}

static bool is_alive(const struct verify_host *h)
{
    return h->node && strcmp(h->node->state, "LIVE") == 0;
}

/* Proved dead, by the coordinator's word or by the mark on the LUN: what that life had open gives
 * nothing any more, and may be open elsewhere by right. */
static bool is_over(const struct verify_host *h, uint64_t generation)
{
    const struct table *grants = grants_of(h);
    return (h->node && generation <= h->node->over_generation) ||
           (grants && table_marks_dead(grants, generation));
}

/* A report of this very life: what an earlier one had is gone with it. */
static bool reports_now(const struct verify_host *h)
{
    return h->report_rc == 0 && h->report.writer.generation == h->generation &&
           !is_over(h, h->generation);
}

static bool in_memory(const Lunar__Volume *v, uint32_t host_id, const struct uuid *attachment)
{
    for (size_t i = 0; i < v->n_attachments; i++) {
        struct uuid id = uuid_from_pb(v->attachments[i]->attachment_id);
        if (v->attachments[i]->host_id == host_id && uuid_equal(&id, attachment))
            return true;
    }
    return false;
}

/* --- one host's tables --- */

static bool same_entries(const struct table *a, const struct table *b)
{
    for (uint32_t i = 0; i < a->n_entries; i++)
        if (!entry_of(b, &a->entries[i].attachment_id))
            return false;
    return a->n_entries == b->n_entries;
}

static bool readable(int rc)
{
    return rc == 0 || rc == LUNAR_E_NOT_FOUND;
}

static void check_tables(const struct verify_context *c, const struct verify_host *h)
{
    for (int copy = 0; copy < 2; copy++)
        if (!readable(h->grants_rc[copy]))
            verify_found(
                c, "grants-damaged", h, NULL,
                "the coordinator writes it again within minutes; else look at the LUN's paths",
                "copy %c of its grants cannot be used: %s", copy ? 'B' : 'A',
                error_text(h->grants_rc[copy]));
    if (!readable(h->report_rc))
        verify_found(c, "report-damaged", h, NULL,
                     "its agent writes it again within 32 s; else look at its log",
                     "its report cannot be used: %s", error_text(h->report_rc));
    bool both = h->grants_rc[0] == 0 && h->grants_rc[1] == 0;
    if (both && !same_entries(&h->grants[0], &h->grants[1]))
        verify_found(c, "grant-copies-differ", h, NULL,
                     "the coordinator writes both again within minutes; attach or detach again",
                     "copies A and B of its grants name different attachments");
}

static void check_grant(const struct verify_context *c, const struct verify_host *h,
                        const struct table_entry *e)
{
    const Lunar__Volume *v = volume_of(c->facts, &e->volume_id);
    bool job = e->mode == TABLE_MODE_JOB;

    if (!v && !verify_is_background(c, e))
        verify_found(c, "grant-without-volume", h, &e->volume_id,
                     "the coordinator erases it once the node has confirmed; see its log",
                     "it is granted a volume that the catalogue does not have");
    if (v && !in_memory(v, h->host_id, &e->attachment_id))
        verify_found(c, "grant-not-in-memory", h, &e->volume_id,
                     "let the coordinator resign: its successor reads all grants anew",
                     "the LUN grants it what the coordinator does not know of");
    if (v && job && strcmp(v->state, "ready") == 0)
        verify_found(c, "leftover-job", h, &e->volume_id,
                     "the coordinator erases it within 10 s of the node's answer; see its log",
                     "a job's grant on a volume that is made");
    if (v)
        verify_chain(c, h, e, v);
    if (e->term == TABLE_TERM_LEFT_OVER)
        verify_found(c, "grant-left-over", h, &e->volume_id,
                     "detach it, or wait for the coordinator to",
                     "an older copy alone named this grant");
    if (e->generation != h->generation)
        verify_found(c, "grant-of-a-former-life", h, &e->volume_id,
                     "detach it; where the node is dead the coordinator takes it back by itself",
                     "granted to generation %llu, the node is at %llu",
                     (unsigned long long)e->generation, (unsigned long long)h->generation);
    else if (!job && is_alive(h) && reports_now(h) && !entry_of(&h->report, &e->attachment_id))
        verify_found(c, "granted-not-open", h, &e->volume_id,
                     "attach it there again, which goes on, or detach it",
                     "granted, but the node does not have it open");
}

static void check_report(const struct verify_context *c, const struct verify_host *h,
                         const struct table_entry *e)
{
    if (!entry_of(grants_of(h), &e->attachment_id) && readable(h->grants_rc[0]) &&
        readable(h->grants_rc[1]))
        verify_found(c, "report-without-grant", h, &e->volume_id,
                     "detach the volume; if it was used elsewhere meanwhile, check its data",
                     "the node has it open (or opening, closing) without a grant");
    if (e->state == TABLE_STATE_CLOSING)
        verify_found(c, "stuck", h, &e->volume_id,
                     "detach it again; the agent's log says what is in its way",
                     "half open on the node: it could be neither built nor taken down");
}

/* --- across hosts --- */

static const struct verify_host *host_by_id(const struct verify_facts *f, uint32_t host_id)
{
    for (size_t i = 0; i < f->n_hosts; i++)
        if (f->hosts[i].host_id == host_id)
            return &f->hosts[i];
    return NULL;
}

static void check_volume(const struct verify_context *c, const Lunar__Volume *v)
{
    struct uuid id = uuid_from_pb(v->volume_id);

    if (v->n_attachments > 1)
        verify_found(c, "two-grants", NULL, &id, "detach all but one by `volume detach`",
                     "it is granted %zu times", v->n_attachments);
    for (size_t i = 0; i < v->n_attachments; i++) {
        struct uuid attachment = uuid_from_pb(v->attachments[i]->attachment_id);
        const struct verify_host *h = host_by_id(c->facts, v->attachments[i]->host_id);
        if (!h || (!entry_of(grants_of(h), &attachment) && readable(h->grants_rc[0]) &&
                   readable(h->grants_rc[1])))
            verify_found(c, "grant-not-on-the-lun", h, &id,
                         "the coordinator writes it within minutes; else let it resign",
                         "the coordinator has granted it to '%s', the LUN does not say so",
                         v->attachments[i]->node);
    }
}

/* Two living nodes that have one volume open: the worst there is. */
static void check_two_nodes(const struct verify_context *c, const struct verify_host *h,
                            const struct table_entry *e)
{
    for (size_t i = 0; i < c->facts->n_hosts; i++) {
        const struct verify_host *other = &c->facts->hosts[i];
        if (other->host_id <= h->host_id || !reports_now(other))
            continue;
        for (uint32_t k = 0; k < other->report.n_entries; k++)
            if (uuid_equal(&other->report.entries[k].volume_id, &e->volume_id))
                verify_found(c, "two-nodes", h, &e->volume_id,
                             "stop its consumers on both nodes at once; detach; check its data",
                             "node '%s' reports the same volume", name_of(other));
    }
}

/* --- what stands on a node --- */

static const Lunar__InspectedMap *map_of(const Lunar__Inspection *in, const struct uuid *attachment,
                                         const char *kind)
{
    for (size_t i = 0; i < in->n_maps; i++) {
        struct uuid id = uuid_from_pb(in->maps[i]->attachment_id);
        if (strcmp(in->maps[i]->kind, kind) == 0 && uuid_equal(&id, attachment))
            return in->maps[i];
    }
    return NULL;
}

static size_t daemons_of(const Lunar__Inspection *in, const struct uuid *attachment)
{
    size_t n = 0;
    for (size_t i = 0; i < in->n_qsds; i++) {
        struct uuid id = uuid_from_pb(in->qsds[i]->attachment_id);
        n += uuid_equal(&id, attachment);
    }
    return n;
}

static void check_open(const struct verify_context *c, const struct verify_host *h,
                       const struct table_entry *e)
{
    static const char *const kinds[] = {"L", "P", "H"};
    const Lunar__Volume *v = volume_of(c->facts, &e->volume_id);

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const Lunar__InspectedMap *m = map_of(h->inspection, &e->attachment_id, kinds[i]);
        if (!m)
            verify_found(c, "open-without-map", h, &e->volume_id, "detach it and attach it again",
                         "reported open, but its %s map does not stand", kinds[i]);
        else if (!m->linear)
            verify_found(c, "error-map", h, &e->volume_id, "detach it and attach it again",
                         "its %s map answers errors", kinds[i]);
        else if (m->suspended)
            verify_found(c, "suspended-map", h, &e->volume_id, "see the agent's log; detach it",
                         "its %s map is suspended: I/O waits", kinds[i]);
    }
    size_t daemons = daemons_of(h->inspection, &e->attachment_id);
    if (v && daemons != !v->thick)
        verify_found(c, "daemons", h, &e->volume_id,
                     "see the agent's log; the agent starts one where none is",
                     "%zu storage daemons run for it", daemons);
}

static void check_maps(const struct verify_context *c, const struct verify_host *h)
{
    for (size_t i = 0; i < h->inspection->n_maps; i++) {
        const Lunar__InspectedMap *m = h->inspection->maps[i];
        struct uuid id = uuid_from_pb(m->attachment_id);
        if (!entry_of(&h->report, &id))
            verify_found(c, *m->kind == 'J' ? "leftover-job-map" : "map-without-report", h, NULL,
                         m->linear
                             ? "restart the node's agent, which takes down what it does not know"
                             : "restart the node's agent; the map reaches nothing",
                         "%s stands, and the node's report does not know of it", m->name);
    }
    for (size_t i = 0; i < h->inspection->n_qsds; i++) {
        struct uuid id = uuid_from_pb(h->inspection->qsds[i]->attachment_id);
        if (!entry_of(&h->report, &id))
            verify_found(
                c, "daemon-without-report", h, NULL,
                "restart the node's agent, which takes down what it does not know",
                "storage daemon %u runs, and the node's report does not know of its attachment",
                h->inspection->qsds[i]->pid);
    }
}

/* The reason may be another one at the second look: it is not compared. */
static void not_inspected(const struct verify_context *c, const struct verify_host *h)
{
    verify_found(c, "not-inspected", h, NULL, "make the node answer, then verify again",
                 "what stands there could not be seen");
    json_t *last = json_array_get(c->findings, json_array_size(c->findings) - 1);
    js_set(last, "why", js_text(h->why_not));
}

static void check_node(const struct verify_context *c, const struct verify_host *h)
{
    bool gone = !h->node || strcmp(h->node->state, "LEFT") == 0 ||
                strcmp(h->node->state, "FREE") == 0 || strcmp(h->node->state, "DEAD") == 0;
    if (!h->inspection && !gone)
        not_inspected(c, h);
    if (!h->inspection || !reports_now(h))
        return;
    if (h->inspection->cut)
        verify_found(c, "not-inspected", h, NULL, "look there: dmsetup ls, ps",
                     "more stands there than a message takes");
    check_maps(c, h);
    for (uint32_t i = 0; i < h->report.n_entries; i++)
        if (h->report.entries[i].state == TABLE_STATE_OPEN &&
            h->report.entries[i].mode == TABLE_MODE_ATTACH)
            check_open(c, h, &h->report.entries[i]);
}

/* --- all of it --- */

json_t *verify_find(const struct verify_facts *facts)
{
    struct verify_context c = {facts, json_array()};

    /* That the pool fills up is no disagreement. */
    if (facts->status && *facts->status->condition &&
        strcmp(facts->status->condition, facts->status->space) != 0)
        verify_found(&c, "condition", NULL, NULL, "`lunarctl node list`, `lvs --foreign -o +tags`",
                     "%s", facts->status->condition);
    for (size_t i = 0; i < facts->n_volumes; i++)
        check_volume(&c, facts->volumes[i]);
    verify_layers(&c);
    for (size_t i = 0; i < facts->n_hosts; i++) {
        const struct verify_host *h = &facts->hosts[i];
        const struct table *grants = grants_of(h), *report = report_of(h);
        check_tables(&c, h);
        for (uint32_t k = 0; grants && k < grants->n_entries; k++)
            check_grant(&c, h, &grants->entries[k]);
        for (uint32_t k = 0; report && reports_now(h) && k < report->n_entries; k++) {
            check_report(&c, h, &report->entries[k]);
            check_two_nodes(&c, h, &report->entries[k]);
        }
        check_node(&c, h);
    }
    return c.findings;
}

static bool same_finding(const json_t *a, const json_t *b)
{
    static const char *const keys[] = {"kind", "host_id", "volume_id", "text"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *x = json_object_get(a, keys[i]), *y = json_object_get(b, keys[i]);
        if ((x || y) && !json_equal(x, y))
            return false;
    }
    return true;
}

json_t *verify_persisting(const json_t *before, const json_t *now)
{
    json_t *both = json_array();
    for (size_t i = 0; i < json_array_size(now); i++)
        for (size_t k = 0; k < json_array_size(before); k++)
            if (same_finding(json_array_get(now, i), json_array_get(before, k))) {
                json_array_append(both, json_array_get(now, i));
                break;
            }
    return both;
}
