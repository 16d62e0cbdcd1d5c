/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariants of what layers show (SAFETY 15, 16): bytes stay where they are read from.
 *
 * What was written to a layer is a part, one for each time that the layer was formatted. A layer
 * holds its own part and, once a merge has ended, those of the layer above, in front; while one is
 * under way, or after it was cut short, it holds them perhaps. A chain shows the parts of its
 * layers, the upper ones first, each once; one that is there perhaps does no harm behind itself.
 *
 * So what a ready snapshot shows never changes, whatever layer it is; nor what is below a leaf; and
 * a layer that is marked as merged shows what the one below shows alone.
 */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "sim/ghost.h"

#define LAYERS_MAX 2048u
#define SHOWN_MAX  4096u
#define PARTS_MAX  256u

struct parts {
    uint32_t n;
    uint16_t id[PARTS_MAX];
    bool perhaps[PARTS_MAX];
};

static struct content {
    uint64_t volume_short;
    uint32_t index;
    struct parts parts;
} contents[LAYERS_MAX];
static uint32_t n_contents;
static uint16_t n_parts;

/* What was seen first: of a snapshot, by its id, or below a leaf, by its LV. */
static struct shown {
    char what[48];
    struct parts parts;
} all_shown[SHOWN_MAX];
static uint32_t n_shown;

static struct parts *parts_of(uint64_t volume_short, uint32_t index)
{
    for (uint32_t i = 0; i < n_contents; i++)
        if (contents[i].volume_short == volume_short && contents[i].index == index)
            return &contents[i].parts;
    assert(n_contents < LAYERS_MAX);
    contents[n_contents] = (struct content){.volume_short = volume_short, .index = index};
    return &contents[n_contents++].parts;
}

static void append(struct parts *to, uint16_t id, bool perhaps)
{
    for (uint32_t i = 0; i < to->n; i++)
        if (to->id[i] == id && (perhaps || !to->perhaps[i]))
            return;
    assert(to->n < PARTS_MAX);
    to->id[to->n] = id;
    to->perhaps[to->n++] = perhaps;
}

void ghost_content_formatted(const struct stack_layer *layer)
{
    struct parts *parts = parts_of(layer->volume_short, layer->index);

    parts->n = 0;
    append(parts, ++n_parts, false);
}

static bool holds(const struct parts *parts, uint16_t id)
{
    for (uint32_t i = 0; i < parts->n; i++)
        if (parts->id[i] == id && !parts->perhaps[i])
            return true;
    return false;
}

/* The upper one's in front of the lower one's. */
static void pour(const struct stack_spec *spec, bool perhaps)
{
    const struct stack_layer *upper = &spec->layers[0], *lower = &spec->layers[1];
    const struct parts *from = parts_of(upper->volume_short, upper->index);
    struct parts *into = parts_of(lower->volume_short, lower->index);
    const struct parts before = *into;

    into->n = 0;
    for (uint32_t i = 0; i < from->n; i++)
        if (!holds(&before, from->id[i]))
            append(into, from->id[i], perhaps || from->perhaps[i]);
    for (uint32_t i = 0; i < before.n; i++)
        if (perhaps || !before.perhaps[i] || !holds(from, before.id[i]))
            append(into, before.id[i], before.perhaps[i]);
}

void ghost_content_merging(const struct stack_spec *spec)
{
    pour(spec, true);
}

void ghost_content_merged(const struct stack_spec *spec)
{
    pour(spec, false);
}

/* --- what is shown --- */

static struct parts shows(const struct catalogue *c, uint32_t layer)
{
    struct parts ret = {.n = 0};

    for (; layer != CATALOGUE_NO_LAYER; layer = c->layers[layer].parent) {
        const struct parts *own = parts_of(c->layers[layer].volume_short, c->layers[layer].index);
        for (uint32_t i = 0; i < own->n; i++)
            append(&ret, own->id[i], own->perhaps[i]);
    }
    return ret;
}

static bool same(const struct parts *a, const struct parts *b)
{
    return a->n == b->n && memcmp(a->id, b->id, a->n * sizeof *a->id) == 0 &&
           memcmp(a->perhaps, b->perhaps, a->n * sizeof *a->perhaps) == 0;
}

static void describe(const struct parts *parts, char *ret, size_t size)
{
    size_t used = 0;

    *ret = 0;
    for (uint32_t i = 0; i < parts->n && used + 10 < size; i++)
        used += (size_t)snprintf(ret + used, size - used, " %u%s", parts->id[i],
                                 parts->perhaps[i] ? "?" : "");
}

static void check(const char *what, const struct parts *was, const struct parts *is)
{
    char before[200], now[200];

    if (same(was, is))
        return;
    describe(was, before, sizeof before);
    describe(is, now, sizeof now);
    sim_violation("what-is-shown-stays", "%s showed the parts%s, and now%s", what, before, now);
}

static void look(const char *what, const struct catalogue *c, uint32_t layer)
{
    const struct parts now = shows(c, layer);

    for (uint32_t i = 0; i < n_shown; i++) {
        if (strcmp(all_shown[i].what, what) != 0)
            continue;
        check(what, &all_shown[i].parts, &now);
        return;
    }
    assert(n_shown < SHOWN_MAX);
    snprintf(all_shown[n_shown].what, sizeof all_shown[n_shown].what, "%s", what);
    all_shown[n_shown++].parts = now;
}

void ghost_content_check(const struct catalogue *c)
{
    char what[48], id[UUID_TEXT_SIZE];

    for (uint32_t i = 0; i < c->n_snapshots; i++) {
        if (!c->snapshots[i].ready)
            continue;
        snprintf(what, sizeof what, "snapshot %s", uuid_format(&c->snapshots[i].id, id));
        look(what, c, c->snapshots[i].layer);
    }
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const struct catalogue_layer *layer = &c->layers[i];
        if (layer->merged) {
            const struct parts through = shows(c, i), alone = shows(c, layer->parent);
            check(layer->lv_name, &through, &alone);
        }
        if (layer->role != CATALOGUE_LEAF || layer->is_new || layer->parent == CATALOGUE_NO_LAYER)
            continue;
        snprintf(what, sizeof what, "below %s", layer->lv_name);
        look(what, c, layer->parent);
    }
}
