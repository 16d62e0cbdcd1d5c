/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariants of grants and of what is open (SAFETY 2, 3, 17, 18).
 *
 * No byte of the LUN is mapped writable on two machines, but for one that was frozen until it was
 * proved dead. Whoever maps has its grant: in a table of
 * the leader of that moment. A grant leaves the leader's tables only when the node has nothing of
 * it mapped, or when that life of the node is proved dead; nothing else is ever marked as dead.
 * What was formatted and is in use is never formatted again. A detach that was answered is for
 * ever.
 */
#include <assert.h>
#include <stdlib.h>

#include "sim/ghost.h"

#define GRANTED_MAX   4096u
#define FORMATTED_MAX 2048u

struct granted {
    uint32_t host;
    struct uuid volume, attachment;
    uint64_t generation;
    uint64_t given_us, erased_us; /* the latter 0: it stands */
};

static struct granted granted[GRANTED_MAX];
static uint32_t n_granted;
static struct {
    uint64_t volume_short;
    uint32_t index;
    bool opened;
} formatted[FORMATTED_MAX];
static uint32_t n_formatted;

static uint32_t formatted_index(uint64_t volume_short, uint32_t index)
{
    uint32_t i = 0;
    while (i < n_formatted &&
           (formatted[i].volume_short != volume_short || formatted[i].index != index))
        i++;
    return i;
}

bool ghost_is_formatted(uint64_t volume_short, uint32_t index)
{
    return formatted_index(volume_short, index) < n_formatted;
}

void ghost_formatted(const struct stack_spec *spec)
{
    const struct stack_layer *leaf = &spec->layers[0];
    if (ghost_is_formatted(leaf->volume_short, leaf->index))
        return;
    assert(n_formatted < FORMATTED_MAX);
    formatted[n_formatted].volume_short = leaf->volume_short;
    formatted[n_formatted++].index = leaf->index;
}

/* --- mapping --- */

/* One that was erased stays until the next leader's first table, for an erasure may fail. */
static struct granted *known(uint32_t host, const struct uuid *attachment)
{
    for (uint32_t i = 0; i < n_granted; i++)
        if (granted[i].host == host && uuid_equal(&granted[i].attachment, attachment))
            return &granted[i];
    return NULL;
}

static struct granted *find(uint32_t host, const struct uuid *attachment)
{
    struct granted *g = known(host, attachment);
    return g && g->erased_us == 0 ? g : NULL;
}

bool ghost_is_granted(uint32_t host, uint64_t generation, const struct uuid *attachment)
{
    const struct granted *g = find(host, attachment);
    return g && g->generation == generation;
}

void ghost_mapping(const struct machine *m, const struct stack_spec *spec, enum ghost_use use)
{
    bool job = use != GHOST_ATTACH;
    uint32_t host = sanlock_host_id(m);
    const struct granted *g = find(host, &spec->attachment_id);
    enum ghost_volume state = ghost_volume_state(&spec->volume_id);
    uint32_t f = formatted_index(spec->layers[0].volume_short, spec->layers[0].index);
    char id[UUID_TEXT_SIZE];

    if (ghost_is_excused(m, host, sanlock_generation(m)) || !lun_lets_write(m, sim_now_us()))
        return;
    uuid_format(&spec->volume_id, id);
    if (!g || g->generation != sanlock_generation(m))
        sim_violation("opens-under-a-grant", "%s (host %u) maps volume %s without a grant", m->name,
                      host, id);
    ghost_order_mapping(m, host, &spec->attachment_id);
    /* Where the report or the newer copy of the grants went back before a takeover, nothing tells
     * the entry from one that stands by right; of the older copy alone it is left over. */
    if (!job && ghost_detach_answered(&spec->attachment_id) &&
        !ghost_order_was_named(host, &spec->attachment_id))
        sim_violation("a-detach-is-for-ever",
                      "%s maps volume %s under an attachment whose detach was answered", m->name,
                      id);
    if (use == GHOST_FORMAT && f < n_formatted && formatted[f].opened)
        sim_violation("formatted-before-ready", "%s formats volume %s, which is in use", m->name,
                      id);
    if (!job && state != GHOST_VOLUME_READY)
        sim_violation("formatted-before-ready", "%s attaches volume %s, which is not ready",
                      m->name, id);
    if (!job && f < n_formatted)
        formatted[f].opened = true;
}

void ghost_detached(const struct machine *m, const struct stack_spec *spec, uint64_t mapped_us)
{
    char id[UUID_TEXT_SIZE];
    if (!ghost_detach_wanted(&spec->attachment_id, mapped_us))
        sim_violation("no-request-takes-effect-twice",
                      "%s detaches volume %s, which nobody asked for since it was attached",
                      m->name, uuid_format(&spec->volume_id, id));
}

struct pair {
    const struct mapped_view *one;
};

static bool share_extents(const struct stack_layer *a, const struct stack_layer *b)
{
    for (uint32_t s = 0; s < a->n_segments; s++)
        for (uint32_t t = 0; t < b->n_segments; t++) {
            const struct stack_segment *x = &a->segments[s], *y = &b->segments[t];
            if (x->lun_offset < y->lun_offset + y->length &&
                y->lun_offset < x->lun_offset + x->length)
                return true;
        }
    return false;
}

/* What a writes, b has mapped, be it to read (SAFETY 15). */
static bool overlap(const struct stack_spec *a, const struct stack_spec *b)
{
    for (uint32_t k = 0; k < b->n_layers; k++)
        if (share_extents(&a->layers[0], &b->layers[k]))
            return true;
    return false;
}

/* A merge writes its second layer, and whoever else has that one reads it through the first; no
 * other merge is at it. */
static bool merges_under(const struct mapped_view *merge, const struct mapped_view *v)
{
    const struct stack_layer *upper = &merge->spec->layers[0], *lower = &merge->spec->layers[1];
    bool above = false;

    if (v->merges && share_extents(lower, &v->spec->layers[1]))
        return true;
    for (uint32_t k = 0; k < v->spec->n_layers; k++) {
        if (!above && share_extents(lower, &v->spec->layers[k]))
            return true;
        above = above || share_extents(upper, &v->spec->layers[k]);
    }
    return false;
}

static bool conflicts(const struct mapped_view *one, const struct mapped_view *two)
{
    /* What it measures is of use to nobody then, which ghost_space.c sees to. */
    if (one->measures || two->measures)
        return false;
    if (one->merges)
        return merges_under(one, two);
    return overlap(one->spec, two->spec);
}

/* What a machine that woke up dead has mapped is judged by what it writes (ghost_writers.c). */
static bool may_write(const struct mapped_view *v)
{
    if (lun_has_reservations())
        return v->writes && lun_lets_write(v->machine, sim_now_us());
    return v->writes && !ghost_is_excused(v->machine, v->host, v->generation);
}

static void compare(void *data, const struct mapped_view *two)
{
    const struct mapped_view *one = ((struct pair *)data)->one;
    if (one->spec == two->spec || !conflicts(one, two))
        return;
    if (!may_write(one) || !may_write(two))
        return;
    sim_violation("one-writer-per-byte", "volume '%s' on %s and volume '%s' on %s share extents",
                  one->spec->name, one->machine->name, two->spec->name, two->machine->name);
}

static void compare_with_all(void *data, const struct mapped_view *v)
{
    struct pair pair = {v};
    (void)data;
    stack_model_each(compare, &pair);
}

static void look_for_layers(void *data, const struct mapped_view *v)
{
    for (uint32_t i = 0; i < v->spec->n_layers; i++) {
        const struct stack_layer *layer = &v->spec->layers[i];
        if (!catalogue_layer_by_id(data, layer->volume_short, layer->index) && may_write(v))
            sim_violation("no-space-is-freed-under-a-map",
                          "layer %016llx.%u of volume '%s' is mapped on %s and has no LV",
                          (unsigned long long)layer->volume_short, layer->index, v->spec->name,
                          v->machine->name);
    }
}

void ghost_layers_are_there(const struct catalogue *c)
{
    stack_model_each(look_for_layers, (void *)(uintptr_t)c);
}

void ghost_mapped(void)
{
    stack_model_each(compare_with_all, NULL);
    ghost_metadata_mapped();
}

/* --- grants --- */

struct search {
    uint32_t host;
    const struct uuid *attachment;
    bool found;
};

static void search(void *data, const struct mapped_view *v)
{
    struct search *s = data;
    if (v->host == s->host && uuid_equal(&v->spec->attachment_id, s->attachment))
        s->found = true;
}

static void erase(const struct process *p, struct granted *g)
{
    struct search s = {g->host, &g->attachment, false};
    char id[UUID_TEXT_SIZE];

    sim_trace("ghost: host %u is no more granted %016llx", g->host,
              (unsigned long long)uuid_short(&g->volume));
    g->erased_us = sim_now_us();
    stack_model_each(search, &s);
    if (s.found && !sanlock_proved_dead(g->host, g->generation))
        sim_violation("a-grant-moves-after-proof",
                      "%s erases the grant of volume %s on host %u, which has it mapped", p->name,
                      uuid_format(&g->volume, id), g->host);
}

static void add(uint32_t host, const struct table_entry *e)
{
    struct granted *g = known(host, &e->attachment_id);
    uint64_t given_us = g ? g->given_us : sim_now_us();
    if (!g) {
        assert(n_granted < GRANTED_MAX);
        g = &granted[n_granted++];
    }
    if (given_us == sim_now_us() || g->erased_us)
        sim_trace("ghost: host %u is granted %016llx, %s", host,
                  (unsigned long long)uuid_short(&e->volume_id),
                  e->mode == TABLE_MODE_JOB ? "job" : "attach");
    *g = (struct granted){host, e->volume_id, e->attachment_id, e->generation, given_us, 0};
}

/* Since when nobody else may have been given what this entry gives: an entry whose erasure failed
 * stands again, and others may stand beside it since the takeover, but none that came since it was
 * erased. A leader gives no attachment twice otherwise, for each has a number of its own. */
static uint64_t alone_since(uint32_t host, const struct table_entry *e)
{
    const struct granted *g = known(host, &e->attachment_id);
    return g ? g->erased_us : 0;
}

uint64_t ghost_given_us(uint32_t host, const struct uuid *attachment)
{
    const struct granted *g = known(host, attachment);
    return g ? g->given_us : 0;
}

static void forget_erased(uint32_t host)
{
    for (uint32_t i = 0; i < n_granted; i++)
        if (granted[i].host == host && granted[i].erased_us)
            granted[i--] = granted[--n_granted];
}

static void compare_tables(const struct process *p, uint32_t host, struct table *t, bool first)
{
    if (first)
        forget_erased(host);
    for (uint32_t i = 0; i < n_granted; i++)
        if (granted[i].host == host && granted[i].erased_us == 0 &&
            !table_find_attachment(t, &granted[i].attachment))
            erase(p, &granted[i]);
    for (uint32_t i = 0; i < t->n_entries; i++) {
        const struct table_entry *e = &t->entries[i];
        if (!first && !find(host, &e->attachment_id))
            ghost_dead_moved(p, host, e, t->term, alone_since(host, e));
        add(host, e);
    }
}

/* Who had nothing may keep its key: it has nothing to write to. */
static void check_preempted(const struct process *p, uint32_t host, uint64_t mark)
{
    for (uint32_t i = 0; i < n_granted; i++) {
        const struct granted *g = &granted[i];
        if (g->host == host && g->erased_us == 0 && g->generation <= mark &&
            lun_has_key_of(host, g->generation) && !sanlock_is_free(host, g->generation))
            sim_violation("preempted-before-the-grant-moves",
                          "%s takes what host %u generation %llu has, whose key is registered",
                          p->name, host, (unsigned long long)g->generation);
    }
}

void ghost_grants_submitted(struct process *p, uint32_t host, const uint8_t *bytes, uint32_t len)
{
    struct table t = {0};

    if (table_in(bytes, len, TABLE_GRANTS, host, &world_sb.pool_id, &t, NULL) < 0)
        sim_violation("pages-have-one-writer", "%s writes grants that are none", p->name);
    if (t.term != ghost_term_of(p))
        sim_violation("pages-have-one-writer", "%s writes grants of another term", p->name);
    if (t.node_dead && !sanlock_proved_dead(host, t.dead_generation))
        sim_violation("a-grant-moves-after-proof", "%s marks host %u generation %llu, which lives",
                      p->name, host, (unsigned long long)t.dead_generation);
    if (t.node_dead)
        check_preempted(p, host, t.dead_generation);
    if (p == ghost_leader()) {
        bool first = ghost_order_grants(p, host, &t);
        ghost_dead_grants(p, host, &t, first);
        compare_tables(p, host, &t, first);
    }
    table_free(&t);
}

bool ghost_nothing_granted(char *why, size_t size)
{
    char id[UUID_TEXT_SIZE];
    for (uint32_t i = 0; i < n_granted; i++)
        if (granted[i].erased_us == 0) {
            snprintf(why, size, "volume %s is still granted to host %u",
                     uuid_format(&granted[i].volume, id), granted[i].host);
            return false;
        }
    return true;
}
