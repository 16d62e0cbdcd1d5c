/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Growth: more extents for a layer that a node writes to and whose end is near.
 *
 * Happy path: the agent asks for an absolute size; its grant names attachment and layer; one
 * lvextend makes the layer larger; when that commit and its copy stand on the LUN, the answer is
 * the layer's whole map. Growing takes nothing from anybody, so it stands outside of the rule of
 * one operation per volume: a snapshot that is under way may wait for it. map_generation stays:
 * within one generation maps only get longer.
 *
 * Failure modes: the size is there already, be it that the answer was lost or that a former leader
 * did it: answered at once. The pool is full, or the commit failed: the growth is *parked*, its
 * writer waits in the kernel (SAFETY 20), and each fresh catalogue lets the parked ones try again,
 * the oldest first; it is answered when there is more. None takes more than a share of what is
 * free, so that the last space goes to many and not to one. The grant is gone: the growth is
 * dropped with an error. The leader dies: the agent asks the next one.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "coordinator/leader_internal.h"

/* What an agent asks for at least (agent/growth.h). */
#define SHARE_MIN (128u * MIB)
/* A commit that failed for another reason than space is tried again so much later. */
#define GROWTH_RETRY_MS 1000u

struct growth {
    TAILQ_ENTRY(growth) link;
    struct waiter waiter;
    struct uuid volume_id, attachment_id;
    uint64_t volume_short; /* with `index`: the layer */
    uint32_t index;
    uint64_t size; /* wanted */
    uint64_t asked_ms;
    uint64_t token;     /* of the commit that is out; 0: none */
    uint64_t to, adds;  /* the layer's size after it, and what it takes of the pool */
    uint64_t seqno;     /* of the catalogue that it was decided on */
    uint64_t full_at;   /* seqno under which lvm found no space; 0: it did not */
    uint64_t parked_ms; /* since when it makes no progress; 0: it does */
    uint64_t retry_ms;
    char why[160];
};

static void end(struct leader *l, struct growth *g)
{
    TAILQ_REMOVE(&l->growths, g, link);
    free(g);
}

static void fail(struct leader *l, struct growth *g, int code, const char *why)
{
    char id[UUID_TEXT_SIZE];
    log_warn("growth_refused volume=%s layer=%u node=%u code=%s text=\"%s\"",
             uuid_format(&g->volume_id, id), g->index, g->waiter.host_id, error_name(code), why);
    reply_error(l, &g->waiter, code, why);
    end(l, g);
}

/* --- may it? --- */

/* The asking node's life has a grant, of that attachment, that names the layer. */
static bool is_granted(struct leader *l, const struct growth *g)
{
    uint32_t host = g->waiter.host_id;
    struct node *n = &l->nodes[host];

    if (host == 0 || !n->has_grants || !n->seen)
        return false;
    const struct table_entry *e = table_find_attachment(&n->grants, &g->attachment_id);
    if (!e || !uuid_equal(&e->volume_id, &g->volume_id) || e->generation != n->self.generation ||
        life_is_over(l, host, e->generation))
        return false;
    for (uint32_t i = 0; i < e->n_layers; i++)
        if (e->layers[i].volume_short == g->volume_short && e->layers[i].index == g->index)
            return true;
    return false;
}

/* NULL: it may not grow; *ret_why says why. */
static const struct catalogue_layer *find_layer(struct leader *l, const struct growth *g,
                                                uint64_t *ret_max, const char **ret_why)
{
    const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &g->volume_id);

    *ret_why = !is_granted(l, g)                 ? "no grant of the node names that layer"
               : !v                              ? "the volume is not in the metadata"
               : v->thick                        ? "a thick volume has all of its space"
               : catalogue_volume_is_deleting(v) ? "the volume is being deleted"
                                                 : NULL;
    if (*ret_why)
        return NULL;
    *ret_max = catalogue_growth_max(v->size, l->catalogue->extent_size);
    for (uint32_t i = 0; i < v->n_layers; i++) {
        enum catalogue_role role = v->layers[i].role;
        bool written = role == CATALOGUE_LEAF || role == CATALOGUE_FREEZING;
        if (written && v->layers[i].volume_short == g->volume_short &&
            v->layers[i].index == g->index)
            return &v->layers[i];
    }
    *ret_why = "the volume has no such layer that is written";
    return NULL;
}

/* --- how much --- */

/* What is free and not promised to a commit that is out. */
static uint64_t free_now(const struct leader *l)
{
    uint64_t promised = 0;
    const struct growth *g;

    TAILQ_FOREACH (g, &l->growths, link)
        promised += g->token ? g->adds : 0;
    return l->catalogue->vg_free > promised ? l->catalogue->vg_free - promised : 0;
}

/* A sixteenth of what is free: what is asked for by a burst of writes, gigabytes at once, must not
 * leave others without. But the least that is ever asked for is given while there is twice as much,
 * half of the rest then, and an extent if there is one; in whole extents. */
static uint64_t share_now(const struct leader *l)
{
    uint64_t extent = l->catalogue->extent_size, left = free_now(l);
    uint64_t least = left / 2 < SHARE_MIN ? left / 2 : SHARE_MIN;
    uint64_t share = (left / 16 > least ? left / 16 : least) / extent * extent;

    return share ? share : left / extent * extent;
}

/* --- one try --- */

static void park(struct leader *l, struct growth *g, const char *why)
{
    char id[UUID_TEXT_SIZE];

    snprintf(g->why, sizeof g->why, "%s", why);
    if (g->parked_ms)
        return;
    g->parked_ms = l->now_ms;
    log_warn("growth_waits volume=%s layer=%u node=%u free=%" PRIu64 " reason=\"%s\"",
             uuid_format(&g->volume_id, id), g->index, g->waiter.host_id, l->catalogue->vg_free,
             why);
}

static void answer(struct leader *l, struct growth *g, const struct catalogue_layer *layer)
{
    char id[UUID_TEXT_SIZE];

    log_info("growth_done volume=%s layer=%u node=%u size=%" PRIu64 " added=%" PRIu64 " ms=%" PRIu64
             " parked_ms=%" PRIu64,
             uuid_format(&g->volume_id, id), g->index, g->waiter.host_id, layer->size, g->adds,
             l->now_ms - g->asked_ms, g->parked_ms ? l->now_ms - g->parked_ms : 0);
    reply_grown(l, &g->waiter, layer);
    end(l, g);
}

static void extend(struct leader *l, struct growth *g, const struct catalogue_layer *layer,
                   uint64_t by)
{
    struct catalogue_args args;
    char vg[POOL_NAME_SIZE + 6];

    pool_vg_name(l->sb->pool_name, vg);
    g->adds = by;
    g->to = layer->size + by;
    g->seqno = l->catalogue->seqno;
    catalogue_extend_args(vg, layer, g->to, &args);
    g->token = l->next_token++;
    l->io->commit(l->data, g->token, &args);
}

/* Decides (again) on the catalogue as it is now. Frees the growth where it comes to its end. */
static void advance(struct leader *l, struct growth *g)
{
    uint64_t max = 0, extent = l->catalogue->extent_size;
    const char *why;
    const struct catalogue_layer *layer = find_layer(l, g, &max, &why);

    if (!layer) {
        fail(l, g, LUNAR_E_NOT_FOUND, why);
        return;
    }
    if (layer->size >= g->size || (g->to && layer->size >= g->to)) {
        answer(l, g, layer);
        return;
    }
    uint64_t want = g->size < max ? (g->size + extent - 1) / extent * extent : max;
    if (layer->size >= want) {
        fail(l, g, LUNAR_E_INVALID, "the layer has twice the space that its volume can need");
        return;
    }
    uint64_t share = share_now(l);
    if (share == 0 || g->full_at == l->catalogue->seqno)
        park(l, g, "the pool is full");
    else
        extend(l, g, layer, want - layer->size < share ? want - layer->size : share);
}

/* --- events --- */

static struct growth *find(struct leader *l, const struct growth *like)
{
    struct growth *g;
    TAILQ_FOREACH (g, &l->growths, link)
        if (uuid_equal(&g->attachment_id, &like->attachment_id) &&
            uuid_equal(&g->volume_id, &like->volume_id) && g->volume_short == like->volume_short &&
            g->index == like->index)
            return g;
    return NULL;
}

void grow_request(struct leader *l, const struct waiter *w, const Lunar__LayerGrow *m)
{
    struct growth asked = {.waiter = *w,
                           .volume_id = uuid_from_pb(m->volume_id),
                           .attachment_id = uuid_from_pb(m->attachment_id),
                           .volume_short = m->volume_short,
                           .index = m->index,
                           .size = m->size,
                           .asked_ms = l->now_ms};
    struct growth *g = find(l, &asked);

    if (g) { /* sent again, or by the agent's successor: the newest road back counts */
        g->waiter = *w;
        g->size = m->size;
        return;
    }
    g = malloc(sizeof *g);
    if (!g)
        abort();
    *g = asked;
    TAILQ_INSERT_TAIL(&l->growths, g, link);
    advance(l, g);
}

/* The fresh catalogue is in place. It alone says whether the layer has grown: a commit may have
 * failed and taken effect, and is settled by now. */
bool grow_commit_done(struct leader *l, uint64_t token, int rc, const struct error *err)
{
    struct growth *g;

    TAILQ_FOREACH (g, &l->growths, link)
        if (g->token == token)
            break;
    if (!g)
        return false;
    g->token = 0;
    if (rc == LUNAR_E_NO_SPACE && g->seqno == l->catalogue->seqno)
        g->full_at = g->seqno; /* whatever the numbers say: not before something has changed */
    if (rc < 0 && rc != LUNAR_E_NO_SPACE) {
        g->retry_ms = l->now_ms + GROWTH_RETRY_MS;
        park(l, g, err->text);
    } else {
        advance(l, g);
    }
    return true;
}

void grow_resume(struct leader *l)
{
    struct growth *g, *next;

    for (g = TAILQ_FIRST(&l->growths); g; g = next) {
        next = TAILQ_NEXT(g, link);
        if (g->token == 0 && l->now_ms >= g->retry_ms)
            advance(l, g);
    }
}

void grow_free_all(struct leader *l)
{
    while (!TAILQ_EMPTY(&l->growths))
        end(l, TAILQ_FIRST(&l->growths));
}

bool grow_is_awaited(const struct leader *l, const struct uuid *attachment_id)
{
    const struct growth *g;

    TAILQ_FOREACH (g, &l->growths, link)
        if (uuid_equal(&g->attachment_id, attachment_id))
            return true;
    return false;
}

void grow_waiting(const struct leader *l, struct growth_wait *ret)
{
    const struct growth *g;

    *ret = (struct growth_wait){.n = 0};
    TAILQ_FOREACH (g, &l->growths, link) {
        if (g->parked_ms && (ret->n == 0 || g->parked_ms < ret->since_ms)) {
            const struct catalogue_volume *v = catalogue_by_id(l->catalogue, &g->volume_id);
            ret->since_ms = g->parked_ms;
            ret->host_id = g->waiter.host_id;
            ret->volume = v ? v->name : "";
            ret->why = g->why;
        }
        ret->n += g->parked_ms != 0;
    }
}

void grow_condition(const struct leader *l, const struct uuid *volume_id, char *ret, size_t size)
{
    const struct growth *g;

    ret[0] = 0;
    TAILQ_FOREACH (g, &l->growths, link)
        if (g->parked_ms && uuid_equal(&g->volume_id, volume_id))
            snprintf(ret, size, "its writers wait for space since %" PRIu64 " s: %s",
                     (l->now_ms - g->parked_ms) / 1000, g->why);
}
