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

static void check_args(const struct catalogue_volume *v, uint64_t extent_size)
{
    struct catalogue_args args;
    const char *vg = "lunar-test";

    catalogue_made_args(vg, &v->layers[0], &args);
    catalogue_deleting_args(vg, v, &args);
    catalogue_remove_args(vg, v, &args);
    for (unsigned i = 3; i < args.n; i++)
        MUST(strncmp(args.argv[i], "lunar-test/v", 12) == 0, "only LVs are removed");
    MUST(args.n > 3, "there is something to be removed");
    catalogue_create_args(vg, &v->id, v->name, v->size, v->thick, &v->request_id, extent_size,
                          &args);
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
    for (uint32_t k = 0; k < v->n_layers; k++) {
        const struct lvm_lv *lv = find_lv(report, v->layers[k].lv_name);
        MUST(lv && lv->linear && lv->size == v->layers[k].size, "a layer is an LV of the report");
        MUST(lv->n_segments == v->layers[k].n_segments, "with its map");
    }
    (void)catalogue_volume_is_new(v);
    (void)catalogue_volume_is_deleting(v);
    check_args(v, report->extent_size);
}

static bool is_layer(const struct catalogue *c, const char *name)
{
    for (uint32_t i = 0; i < c->n_volumes; i++)
        for (uint32_t k = 0; k < c->volumes[i].n_layers; k++)
            if (strcmp(c->volumes[i].layers[k].lv_name, name) == 0)
                return true;
    return false;
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
    uint32_t layers = 0;

    int rc = catalogue_build(report, &c, NULL);
    MUST(rc == 0, "a report has a catalogue");
    for (uint32_t i = 0; i < c.n_volumes; i++)
        check_volume(report, &c, i);
    for (uint32_t i = 0; i < report->n_lvs; i++) {
        bool layer = is_layer(&c, report->lvs[i].name);
        MUST(layer != is_foreign(&c, report->lvs[i].name), "an LV is a layer or foreign");
        layers += layer;
    }
    MUST(layers + c.n_foreign == report->n_lvs, "each is counted once");
    catalogue_free(&c);
}
