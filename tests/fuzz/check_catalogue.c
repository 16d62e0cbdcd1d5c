/* SPDX-License-Identifier: Apache-2.0 */
/* The catalogue's invariants; see check_catalogue.h. */
#include "fuzz/check_catalogue.h"

#include "coordinator/catalogue.h"
#include "fuzz/fuzz.h"

static const struct lvm_lv *find_lv(const struct lvm_report *report, const char *name)
{
    for (uint32_t i = 0; i < report->n_lvs; i++)
        if (strcmp(report->lvs[i].name, name) == 0)
            return &report->lvs[i];
    return NULL;
}

static void check_args(const struct catalogue *c, const struct catalogue_volume *v,
                       uint64_t extent_size)
{
    struct catalogue_args args;
    const char *vg = "lunar-test";
    struct catalogue_leaf leaf = {.volume_id = &v->id,
                                  .index = v->next_index,
                                  .name = v->name,
                                  .size = v->size,
                                  .thick = v->thick,
                                  .request_id = &v->request_id,
                                  .parent = v->layers[0].lv_name,
                                  .source_id = &v->source_id,
                                  .source_is_volume = v->source_is_volume,
                                  .below = &v->below};

    catalogue_made_args(vg, &v->layers[0], &args);
    catalogue_deleting_args(vg, v, &args);
    catalogue_create_args(vg, &leaf, extent_size, &args);
    leaf.below = NULL;
    leaf.replaces = leaf.parent;
    leaf.rollback_id = &v->id;
    catalogue_create_args(vg, &leaf, extent_size, &args);
    if (v->former)
        catalogue_frozen_args(vg, v, &args);
    for (uint32_t i = 0; i < c->n_snapshots; i++)
        catalogue_unsnap_args(vg, &c->layers[c->snapshots[i].layer], &c->snapshots[i], &args);
    for (uint32_t i = 0; i < c->n_snapshots; i++)
        catalogue_snap_args(vg, &c->layers[c->snapshots[i].layer], &c->snapshots[i], &args);
}

/* Its leaf, the next one, the one before. */
static void check_leaf(struct catalogue *c, const struct catalogue_volume *v)
{
    const struct catalogue_layer *leaf = catalogue_layer_by_name(c, v->layers[0].lv_name);
    char next[32];

    MUST(leaf && leaf->role == CATALOGUE_LEAF && !leaf->garbage, "a leaf is needed");
    MUST(leaf->users == (v->overlay && !v->overlay->replaces), "and only its overlay is above it");
    MUST(!leaf->is_new || (!v->overlay && !v->former), "one that is new has no history");
    MUST(!v->overlay || v->overlay->layer.is_new, "the next leaf is new until it is the leaf");
    if (v->former) {
        const struct catalogue_layer *former = catalogue_layer_by_name(c, v->former->layer.lv_name);
        bool below = v->n_layers > 1 && strcmp(v->layers[1].lv_name, former->lv_name) == 0;
        MUST(former->role == (below ? CATALOGUE_FREEZING : CATALOGUE_REPLACED), "its role");
        MUST(former->users == below, "nobody builds upon what may be written (SAFETY 15)");
        MUST(former->garbage == (!below && !c->broken), "it is needed if the leaf stands on it");
    }
    snprintf(next, sizeof next, "%.18s%u", v->layers[0].lv_name, v->next_index);
    MUST(!catalogue_layer_by_name(c, next), "its next layer's name is free");
}

static void check_volume(const struct lvm_report *report, struct catalogue *c, uint32_t i)
{
    const struct catalogue_volume *v = &c->volumes[i];

    MUST(i == 0 || strcmp(c->volumes[i - 1].name, v->name) < 0, "sorted, and names are unique");
    MUST(volume_name_check(v->name, NULL) == 0 && volume_size_check(v->size, NULL) == 0,
         "name and size are sound");
    MUST(catalogue_by_name(c, v->name) == v && catalogue_by_id(c, &v->id) == v, "it is found");
    MUST(v->n_layers >= 1 && v->n_layers <= CATALOGUE_LAYERS_MAX, "a chain within bounds");
    MUST(v->layers[0].volume_short == uuid_short(&v->id), "the leaf is its own");
    MUST(!v->thick || v->layers[0].size >= v->size, "a thick volume has all its bytes");
    for (uint32_t k = 1; k < v->n_layers; k++)
        MUST(v->layers[k].role == CATALOGUE_SNAPSHOT || v->layers[k].role == CATALOGUE_FROZEN ||
                 (k == 1 && v->layers[k].role == CATALOGUE_FREEZING),
             "below a leaf is nothing that anybody writes");
    MUST(catalogue_volume_allocated(v) >= v->layers[0].size, "it has its leaf");
    (void)catalogue_volume_is_new(v);
    (void)catalogue_volume_is_deleting(v);
    check_leaf(c, v);
    check_args(c, v, report->extent_size);
}

static void check_layers(const struct lvm_report *report, const struct catalogue *c)
{
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const struct catalogue_layer *layer = &c->layers[i];
        const struct lvm_lv *lv = find_lv(report, layer->lv_name);
        MUST(i == 0 || strcmp(c->layers[i - 1].lv_name, layer->lv_name) < 0, "sorted");
        MUST(lv && lv->linear && lv->size == layer->size, "a layer is an LV of the report");
        MUST(lv->n_segments == layer->n_segments, "with its map");
        MUST(
            !layer->garbage || (!c->broken && (layer->role == CATALOGUE_FROZEN ||
                                               layer->role == CATALOGUE_REPLACED)),
            "only what is neither leaf nor snapshot is garbage, and nothing beside what is broken");
        if (layer->parent == CATALOGUE_NO_LAYER) {
            MUST(layer->depth == 1, "the bottom");
            continue;
        }
        const struct catalogue_layer *parent = &c->layers[layer->parent];
        MUST(parent->depth + 1 == layer->depth && layer->depth <= CATALOGUE_LAYERS_MAX, "depth");
        MUST(parent->users > 0 && (!parent->garbage || layer->garbage),
             "what something needed stands upon is needed");
    }
}

static void check_snapshots(struct catalogue *c)
{
    for (uint32_t i = 0; i < c->n_snapshots; i++) {
        struct catalogue_snapshot *s = &c->snapshots[i];
        enum catalogue_role role = c->layers[s->layer].role;
        MUST(i == 0 || strcmp(c->snapshots[i - 1].name, s->name) < 0, "sorted, names are unique");
        MUST(catalogue_snapshot_by_name(c, s->name) == s &&
                 catalogue_snapshot_by_id(c, &s->id) == s,
             "it is found");
        MUST(s->ready == (role == CATALOGUE_SNAPSHOT), "ready is what nobody writes");
        MUST(!c->layers[s->layer].garbage, "it is needed");
    }
}

static bool is_foreign(const struct catalogue *c, const char *name)
{
    size_t len = strlen(name);
    for (uint32_t i = 0; i < c->n_foreign; i++)
        if (strncmp(c->foreign[i], name, len) == 0 && strncmp(c->foreign[i] + len, " (", 2) == 0)
            return true;
    return false;
}

void check_catalogue(const struct lvm_report *report)
{
    struct catalogue c;

    int rc = catalogue_build(report, &c, NULL);
    MUST(rc == 0, "a report has a catalogue");
    for (uint32_t i = 0; i < c.n_volumes; i++)
        check_volume(report, &c, i);
    for (uint32_t i = 0; i < report->n_lvs; i++) {
        const struct catalogue_layer *layer = catalogue_layer_by_name(&c, report->lvs[i].name);
        bool foreign = is_foreign(&c, report->lvs[i].name);
        MUST(layer || foreign, "an LV is a layer or foreign");
        MUST(!layer || !foreign || c.broken, "or a snapshot that is broken");
    }
    check_layers(report, &c);
    check_snapshots(&c);
    catalogue_free(&c);
}
