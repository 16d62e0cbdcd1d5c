/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must agree about layers and snapshots in a pool at rest: nothing is half-made, what somebody
 * writes nobody else stands upon (SAFETY 15), and a grant names the very chain that the tags say
 * (SAFETY 16), or that they said before layers of it were merged: a volume keeps those that it was
 * attached with. Pure; a part of verify_findings.c.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/catalogue.h"
#include "diskrpc/message.h"
#include "verify.h"

static int by_lv_name(const void *a, const void *b)
{
    return strcmp((*(Lunar__TreeLayer *const *)a)->lv_name,
                  (*(Lunar__TreeLayer *const *)b)->lv_name);
}

/* The listing is sorted by LV name. */
static const Lunar__TreeLayer *layer_of(const struct verify_facts *f, const char *lv_name)
{
    Lunar__TreeLayer key = {.lv_name = (char *)(uintptr_t)lv_name}, *wanted = &key;
    Lunar__TreeLayer *const *found =
        f->n_layers ? bsearch(&wanted, f->layers, f->n_layers, sizeof *f->layers, by_lv_name)
                    : NULL;
    return found ? *found : NULL;
}

static const Lunar__TreeLayer *leaf_of(const struct verify_facts *f, const char *volume)
{
    for (size_t i = 0; i < f->n_layers; i++)
        if (strcmp(f->layers[i]->role, "leaf") == 0 && strcmp(f->layers[i]->volume, volume) == 0)
            return f->layers[i];
    return NULL;
}

static bool is_new(const Lunar__TreeLayer *layer)
{
    return strcmp(layer->state, "new") == 0;
}

static bool is_merged(const Lunar__TreeLayer *layer)
{
    return layer && strcmp(layer->state, "merged") == 0;
}

static void lv_name_of(const struct table_layer *layer, char ret[40])
{
    snprintf(ret, 40, "v%016" PRIx64 ".%" PRIu32, layer->volume_short, layer->index);
}

static bool table_names(const struct table *t, const char *lv_name)
{
    char name[40];

    for (uint32_t i = 0; i < t->n_entries; i++)
        for (uint32_t k = 0; k < t->entries[i].n_layers; k++) {
            lv_name_of(&t->entries[i].layers[k], name);
            if (strcmp(name, lv_name) == 0)
                return true;
        }
    return false;
}

/* Somebody has it, or stands on it; one that cannot be looked at may. */
static bool is_needed(const struct verify_facts *f, const Lunar__TreeLayer *layer)
{
    for (size_t i = 0; i < f->n_hosts; i++)
        for (int copy = 0; copy < 2; copy++)
            if ((f->hosts[i].grants_rc[copy] < 0 &&
                 f->hosts[i].grants_rc[copy] != LUNAR_E_NOT_FOUND) ||
                (f->hosts[i].grants_rc[copy] == 0 &&
                 table_names(&f->hosts[i].grants[copy], layer->lv_name)))
                return true;
    for (size_t i = 0; i < f->n_layers; i++)
        if (strcmp(f->layers[i]->parent, layer->lv_name) == 0)
            return true;
    return false;
}

static void check_state(const struct verify_context *c, const Lunar__TreeLayer *layer)
{
    if (is_new(layer))
        verify_found(c, "layer-half-made", NULL, NULL,
                     "the coordinator goes on within 10 s if a node can format it; see its log",
                     "layer %s is new: a volume, snapshot or rollback is half-made",
                     layer->lv_name);
    else if (strcmp(layer->state, "freezing") == 0)
        verify_found(c, "snapshot-half-made", NULL, NULL,
                     "see the log of the agent that has the volume; detaching it completes the "
                     "snapshot",
                     "layer %s is being frozen: its writer has not switched yet", layer->lv_name);
    else if (strcmp(layer->state, "deleting") == 0 ||
             (is_merged(layer) && !is_needed(c->facts, layer)))
        verify_found(c, "layer-left", NULL, NULL,
                     "it goes when no grant names it any more; see the coordinator's log",
                     "nobody needs layer %s, and it is still there", layer->lv_name);
}

/* Its own overlay, while that is new, is no user. */
static void check_parent(const struct verify_context *c, const Lunar__TreeLayer *layer)
{
    const Lunar__TreeLayer *parent = layer_of(c->facts, layer->parent);

    if (!*layer->parent)
        return;
    if (!parent)
        verify_found(c, "layer-without-parent", NULL, NULL,
                     "`lvs --foreign -o +tags`: what it stands upon is gone or foreign",
                     "layer %s stands on %s, which is not there", layer->lv_name, layer->parent);
    else if (strcmp(parent->role, "leaf") == 0 && !is_new(layer))
        verify_found(c, "written-below", NULL, NULL,
                     "detach the volumes that stand on it, and compare their data with a copy",
                     "layer %s stands on %s, which is a volume's leaf and may be written",
                     layer->lv_name, parent->lv_name);
}

void verify_layers(const struct verify_context *c)
{
    for (size_t i = 0; i < c->facts->n_layers; i++) {
        check_state(c, c->facts->layers[i]);
        check_parent(c, c->facts->layers[i]);
    }
}

bool verify_is_background(const struct verify_context *c, const struct table_entry *e)
{
    char upper[40], lower[40] = "";

    if (e->mode != TABLE_MODE_JOB || e->n_layers == 0)
        return false;
    lv_name_of(&e->layers[0], upper);
    const Lunar__TreeLayer *layer = layer_of(c->facts, upper);
    if (e->n_layers == 1)
        return layer && strcmp(layer->state, "measuring") == 0;
    lv_name_of(&e->layers[1], lower);
    return layer && strcmp(layer->state, "merging") == 0 && strcmp(layer->parent, lower) == 0;
}

/* Between two layers of the chain there may be merged ones, which show what the lower one shows. */
void verify_chain(const struct verify_context *c, const struct verify_host *h,
                  const struct table_entry *e, const Lunar__Volume *v)
{
    const Lunar__TreeLayer *layer = leaf_of(c->facts, v->name);
    char name[40];
    uint32_t i = 0;

    if (c->facts->n_layers == 0 || e->mode != TABLE_MODE_ATTACH)
        return;
    for (; layer && i < e->n_layers; i++) {
        lv_name_of(&e->layers[i], name);
        if (strcmp(name, layer->lv_name) == 0)
            layer = layer_of(c->facts, layer->parent);
        else if (i == 0 || !is_merged(layer_of(c->facts, name)))
            break;
    }
    if (layer || i < e->n_layers)
        verify_found(c, "grant-of-another-chain", h, &e->volume_id,
                     "detach the volume and attach it again",
                     "its grant does not name the layers that the volume has, from layer %" PRIu32
                     " of %u on",
                     i, (unsigned)e->n_layers);
}
