/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which layers are worth a look at where they end, and when: what op_trim.c does by itself.
 *
 * Happy path: every TRIM_SCAN_MS it is noted which layers nobody has, and since when. One that has
 * been at rest for long enough and is larger than it needs to be if it were empty is measured, one
 * at a time, with a pause after each, and then left alone until somebody has had it again. Failure
 * modes: the leader is lost: the next one begins its notes anew, so each layer is measured once
 * more. A measurement has failed: the layer is taken for one that was just left, and the pause
 * doubles with each failure.
 */
#include <stdlib.h>
#include <string.h>

#include "coordinator/leader_internal.h"

#define TRIM_SCAN_MS      (10u * 1000)
#define TRIM_PAUSE_MS     (5u * 1000)
#define TRIM_PAUSE_SHIFTS 6u
/* What is given back costs two commits and a node's look: it must be a chunk of growth, or a tenth
 * of the layer and no trifle. */
#define TRIM_WORTH_BYTES  CATALOGUE_THIN_START
#define TRIM_WORTH_LEAST  (16ull << 20)
#define TRIM_WORTH_TENTHS 10u

struct trim_idle {
    char lv_name[32];
    uint64_t size;
    uint64_t since_ms;
    bool done; /* it was measured, or needs not be */
};

bool trim_is_worth(uint64_t size, uint64_t to)
{
    uint64_t saved = size > to ? size - to : 0;
    return saved >= TRIM_WORTH_BYTES ||
           (saved >= TRIM_WORTH_LEAST && saved >= size / TRIM_WORTH_TENTHS);
}

/* --- which layers --- */

static uint64_t leaf_floor(const struct catalogue *c, const struct catalogue_volume *v)
{
    if (v->thick || catalogue_volume_is_changing(v) || catalogue_volume_is_deleting(v))
        return UINT64_MAX;
    return catalogue_initial_size(v->size, false, c->extent_size);
}

/* Of one that is no leaf. */
static uint64_t lower_floor(const struct catalogue *c, const struct catalogue_layer *layer)
{
    bool rests = layer->role == CATALOGUE_SNAPSHOT || layer->role == CATALOGUE_FROZEN;
    return rests && !layer->garbage && !layer->merged ? c->extent_size : UINT64_MAX;
}

static bool is_out(const struct catalogue_layer *layer)
{
    return layer->is_new || layer->deleting;
}

uint64_t trim_floor(struct leader *l, const struct catalogue_layer *layer)
{
    const struct catalogue *c = l->catalogue;

    if (is_out(layer) || c->broken)
        return UINT64_MAX;
    if (layer->role != CATALOGUE_LEAF)
        return lower_floor(c, layer);
    for (uint32_t i = 0; i < c->n_volumes; i++)
        if (strcmp(c->volumes[i].layers[0].lv_name, layer->lv_name) == 0)
            return leaf_floor(c, &c->volumes[i]);
    return UINT64_MAX;
}

/* The same of all layers at once; free(). */
static uint64_t *all_floors(struct leader *l)
{
    const struct catalogue *c = l->catalogue;
    uint64_t *floors = calloc(c->n_layers, sizeof *floors);

    if (!floors)
        abort();
    for (uint32_t i = 0; i < c->n_layers; i++)
        floors[i] = is_out(&c->layers[i]) ? UINT64_MAX : lower_floor(c, &c->layers[i]);
    for (uint32_t i = 0; i < c->n_volumes; i++) {
        const struct catalogue_layer *leaf =
            catalogue_layer_by_name(l->catalogue, c->volumes[i].layers[0].lv_name);
        if (leaf && leaf->role == CATALOGUE_LEAF && !is_out(leaf))
            floors[leaf - c->layers] = leaf_floor(c, &c->volumes[i]);
    }
    return floors;
}

/* --- who has them --- */

static bool merge_is_at(const struct leader *l, const struct op *op,
                        const struct catalogue_layer *layer)
{
    const struct catalogue *c = l->catalogue;
    const struct catalogue_layer *at = catalogue_layer_by_name(l->catalogue, op->name);

    while (at && at != layer)
        at = at->parent == CATALOGUE_NO_LAYER ? NULL : &c->layers[at->parent];
    return at != NULL;
}

bool trim_is_idle(struct leader *l, const struct catalogue_layer *layer, const struct op *asks)
{
    const struct op *op;

    TAILQ_FOREACH (op, &l->ops, link) {
        /* An erasure that fails leaves it where it was. */
        if (op->dropped && grant_names(op->dropped, layer))
            return false;
        if (op->kind == OP_MERGE && merge_is_at(l, op, layer))
            return false;
    }
    return !trim_frees_layer(l, asks, layer) && !grant_any_names(l, layer);
}

static void mark(struct leader *l, const struct table_entry *e, bool *used)
{
    for (uint32_t i = 0; i < e->n_layers; i++) {
        const struct catalogue_layer *layer =
            catalogue_layer_by_id(l->catalogue, e->layers[i].volume_short, e->layers[i].index);
        if (layer)
            used[layer - l->catalogue->layers] = true;
    }
}

/* Those that a grant names; free(). What operations are about comes out when one is chosen. */
static bool *all_used(struct leader *l)
{
    bool *used = calloc(l->catalogue->n_layers, sizeof *used);

    if (!used)
        abort();
    for (uint32_t h = 1; h <= l->sb->layout.max_nodes; h++) {
        const struct node *n = &l->nodes[h];
        for (uint32_t i = 0; n->has_grants && i < n->grants.n_entries; i++)
            mark(l, &n->grants.entries[i], used);
    }
    return used;
}

/* --- the notes --- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct trim_idle *)a)->lv_name, ((const struct trim_idle *)b)->lv_name);
}

static struct trim_idle *find(const struct leader *l, const struct catalogue_layer *layer)
{
    struct trim_idle key;

    strcpy(key.lv_name, layer->lv_name);
    return l->n_idle ? bsearch(&key, l->idle, l->n_idle, sizeof key, by_name) : NULL;
}

void trim_idle_reset(struct leader *l, const struct catalogue_layer *layer)
{
    struct trim_idle *idle = find(l, layer);

    if (!idle)
        return;
    idle->since_ms = l->now_ms;
    idle->done = false;
}

void trim_idle_done(struct leader *l, const struct catalogue_layer *layer)
{
    struct trim_idle *idle = find(l, layer);

    if (!idle)
        return;
    idle->size = layer->size;
    idle->done = true;
}

/* What is known of it, if it is the same still: a merge makes layers larger. */
static struct trim_idle note(const struct leader *l, const struct catalogue_layer *layer)
{
    const struct trim_idle *known = find(l, layer);
    struct trim_idle ret = {.size = layer->size, .since_ms = l->now_ms};

    if (known && known->size == layer->size)
        ret = *known;
    strcpy(ret.lv_name, layer->lv_name);
    return ret;
}

/* In the order of the catalogue, which is that of the names. */
static void scan(struct leader *l)
{
    const struct catalogue *c = l->catalogue;
    struct trim_idle *idle = calloc(c->n_layers + 1, sizeof *idle);
    uint64_t *floors = all_floors(l);
    bool *used = all_used(l);
    uint32_t n = 0;

    if (!idle)
        abort();
    for (uint32_t i = 0; i < c->n_layers; i++)
        if (!used[i] && trim_is_worth(c->layers[i].size, floors[i]))
            idle[n++] = note(l, &c->layers[i]);
    free(floors);
    free(used);
    free(l->idle);
    l->idle = idle;
    l->n_idle = n;
}

static void pause_trims(struct leader *l)
{
    uint32_t shifts = l->trim_failures < TRIM_PAUSE_SHIFTS ? l->trim_failures : TRIM_PAUSE_SHIFTS;
    l->trim_not_before_ms = l->now_ms + ((uint64_t)TRIM_PAUSE_MS << shifts);
}

void trim_layers(struct leader *l)
{
    if (l->trim_rest_ms == 0 || l->catalogue->broken || l->catalogue->n_layers == 0)
        return;
    if (l->now_ms >= l->trim_looked_ms + TRIM_SCAN_MS) {
        l->trim_looked_ms = l->now_ms;
        scan(l);
    }
    if (op_by_kind(l, OP_TRIM)) {
        pause_trims(l); /* from its end on */
        return;
    }
    if (l->now_ms < l->trim_not_before_ms)
        return;
    for (uint32_t i = 0; i < l->n_idle; i++) {
        const struct trim_idle *idle = &l->idle[i];
        const struct catalogue_layer *layer = catalogue_layer_by_name(l->catalogue, idle->lv_name);
        if (idle->done || l->now_ms < idle->since_ms + l->trim_rest_ms || !layer ||
            !trim_is_idle(l, layer, NULL))
            continue;
        trim_begin(l, layer);
        pause_trims(l);
        return;
    }
}
