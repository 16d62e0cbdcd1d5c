/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue: from lvm's report to volumes.
 *
 * Happy path: every LV named like a layer and fully tagged becomes a candidate; each leaf pulls its
 * chain together by following the parent tags (SAFETY 16: the tags say the chain, nothing else
 * does); volumes are sorted by name. Failure modes: whatever does not add up is not guessed at: the
 * LV is listed as foreign with the reason and lunar never touches it. That holds for a tag that is
 * missing, doubled or malformed, a name that does not fit its volume's id, a second leaf, a parent
 * that is missing, a leaf itself or part of a ring, two volumes of one name, and layers nobody
 * uses.
 */
#include "coordinator/catalogue.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "coordinator/mem.h"
#include "coordinator/tags.h"

/* A layer as its LV tells it, before it has found its volume. */
struct candidate {
    const struct lvm_lv *lv;
    struct uuid volume;
    uint32_t index;
    uint32_t map_generation;
    bool leaf;
    const char *parent; /* LV name or "-" */
    const char *why;    /* it is foreign, if set */
    bool used;
};

struct builder {
    struct candidate *all; /* sorted by LV name */
    uint32_t n;
    struct catalogue *ret;
};

/* "v<16 hex>.<index>", the hex being the volume's short id. */
static bool parse_name(const char *name, const struct uuid *volume, uint32_t *ret_index)
{
    char want[32];
    unsigned long index;
    char *end;
    if (strlen(name) < 19 || strlen(name) > 28 || name[18] < '0' || name[18] > '9')
        return false;
    index = strtoul(name + 18, &end, 10);
    snprintf(want, sizeof want, "v%016" PRIx64 ".%lu", uuid_short(volume), index);
    *ret_index = (uint32_t)index;
    return *end == 0 && index <= UINT32_MAX && strcmp(name, want) == 0;
}

static const char *leaf_problem(const struct lvm_lv *lv)
{
    char name[VOLUME_NAME_MAX + 1];
    const char *escaped = tags_value(lv, "n"), *kind = tags_value(lv, "k");
    struct uuid request;
    uint64_t size;

    if (!escaped || tag_unescape(escaped, name, sizeof name) < 0 ||
        volume_name_check(name, NULL) < 0)
        return "its tag of the volume's name is missing or broken";
    if (!tags_number(lv, "s", &size) || volume_size_check(size, NULL) < 0)
        return "its tag of the volume's size is missing or broken";
    if (!kind || (strcmp(kind, "thin") != 0 && strcmp(kind, "thick") != 0))
        return "its tag of the volume's kind is missing or broken";
    if (strcmp(kind, "thick") == 0 && lv->size < size)
        return "it is smaller than the volume";
    if (!tags_uuid(lv, "q", &request))
        return "its tag of the request is missing or broken";
    return NULL;
}

static struct candidate classify(const struct lvm_lv *lv)
{
    struct candidate c = {.lv = lv, .parent = tags_value(lv, "p")};
    const char *role = tags_value(lv, "r");
    uint64_t generation;

    if (!tags_any(lv)) {
        c.why = "not lunar's";
    } else if (!tags_uuid(lv, "v", &c.volume)) {
        c.why = "its tag of the volume's id is missing or broken";
    } else if (!parse_name(lv->name, &c.volume, &c.index)) {
        c.why = "its name does not fit the volume's id";
    } else if (!lv->linear) {
        c.why = "it is not linear";
    } else if (!tags_number(lv, "g", &generation) || generation > UINT32_MAX) {
        c.why = "its tag of the map generation is missing or broken";
    } else if (!c.parent || !*c.parent) {
        c.why = "its tag of the parent is missing";
    } else if (!role || (strcmp(role, "leaf") != 0 && strcmp(role, "frozen") != 0 &&
                         strcmp(role, "snap") != 0)) {
        c.why = "its tag of the role is missing or broken";
    } else {
        c.map_generation = (uint32_t)generation;
        c.leaf = strcmp(role, "leaf") == 0;
        c.why = c.leaf ? leaf_problem(lv) : NULL;
    }
    return c;
}

static int by_lv_name(const void *a, const void *b)
{
    return strcmp(((const struct candidate *)a)->lv->name, ((const struct candidate *)b)->lv->name);
}

static struct candidate *find_candidate(const struct builder *b, const char *lv_name)
{
    const struct lvm_lv lv = {.name = (char *)(uintptr_t)lv_name};
    const struct candidate key = {.lv = &lv};
    return b->n ? bsearch(&key, b->all, b->n, sizeof key, by_lv_name) : NULL;
}

/* Names of one volume's layers begin alike, so its leaves are near each other in the sorted list.
 */
static void refuse_double_leaves(struct builder *b)
{
    for (uint32_t i = 0; i < b->n; i++) {
        struct candidate *x = &b->all[i];
        for (uint32_t k = i + 1; k < b->n && strncmp(x->lv->name, b->all[k].lv->name, 18) == 0; k++)
            if (x->leaf && b->all[k].leaf)
                x->why = b->all[k].why = "its volume has two leaves";
    }
}

/* Fills chain[] leaf first; returns its length, or 0 with *ret_why. */
static uint32_t follow_chain(const struct builder *b, struct candidate *leaf,
                             struct candidate *chain[CATALOGUE_LAYERS_MAX], const char **ret_why)
{
    uint32_t n = 0;
    struct candidate *c = leaf;
    for (;;) {
        if (n == CATALOGUE_LAYERS_MAX) {
            *ret_why = "its chain of layers is too long or a ring";
            return 0;
        }
        chain[n++] = c;
        if (strcmp(c->parent, "-") == 0)
            return n;
        c = find_candidate(b, c->parent);
        if (!c || c->why || c->leaf) {
            *ret_why = !c        ? "a layer below it is missing"
                       : c->leaf ? "a layer below it is a leaf itself"
                                 : "a layer below it is broken";
            return 0;
        }
    }
}

static void fill_layer(const struct candidate *c, struct catalogue_layer *ret)
{
    const struct lvm_lv *lv = c->lv;
    *ret = (struct catalogue_layer){.volume_short = uuid_short(&c->volume),
                                    .index = c->index,
                                    .map_generation = c->map_generation,
                                    .size = lv->size,
                                    .is_new = tags_has(lv, "lunar.new"),
                                    .deleting = tags_has(lv, "lunar.del"),
                                    .n_segments = lv->n_segments};
    snprintf(ret->lv_name, sizeof ret->lv_name, "%s", lv->name);
    ret->segments = mem_array(lv->n_segments, sizeof *ret->segments);
    if (lv->n_segments)
        memcpy(ret->segments, lv->segments, lv->n_segments * sizeof *ret->segments);
}

static void fill_volume(struct candidate *const *chain, uint32_t n, struct catalogue_volume *ret)
{
    const struct lvm_lv *leaf = chain[0]->lv;
    /* leaf_problem has found all of these sound. */
    *ret = (struct catalogue_volume){.id = chain[0]->volume, .n_layers = n};
    tag_unescape(tags_value(leaf, "n"), ret->name, sizeof ret->name);
    tags_number(leaf, "s", &ret->size);
    ret->thick = strcmp(tags_value(leaf, "k"), "thick") == 0;
    tags_uuid(leaf, "q", &ret->request_id);
    ret->layers = mem_array(n, sizeof *ret->layers);
    for (uint32_t i = 0; i < n; i++)
        fill_layer(chain[i], &ret->layers[i]);
}

static void free_volume(struct catalogue_volume *v)
{
    for (uint32_t i = 0; i < v->n_layers; i++)
        free(v->layers[i].segments);
    free(v->layers);
}

static void build_volumes(struct builder *b)
{
    struct candidate *chain[CATALOGUE_LAYERS_MAX];
    struct catalogue *c = b->ret;
    for (uint32_t i = 0; i < b->n; i++) {
        if (b->all[i].why || !b->all[i].leaf)
            continue;
        uint32_t n = follow_chain(b, &b->all[i], chain, &b->all[i].why);
        if (n > 0) {
            c->volumes = mem_grow(c->volumes, c->n_volumes, sizeof *c->volumes);
            fill_volume(chain, n, &c->volumes[c->n_volumes++]);
        }
    }
}

static int by_volume_name(const void *a, const void *b)
{
    return strcmp(((const struct catalogue_volume *)a)->name,
                  ((const struct catalogue_volume *)b)->name);
}

/* Sorts, and drops every volume whose name another one has too. */
static void refuse_double_names(struct builder *b)
{
    struct catalogue *c = b->ret;
    uint32_t kept = 0;
    if (c->n_volumes == 0)
        return;
    qsort(c->volumes, c->n_volumes, sizeof *c->volumes, by_volume_name);
    for (uint32_t i = 0, next; i < c->n_volumes; i = next) {
        for (next = i + 1; next < c->n_volumes; next++)
            if (by_volume_name(&c->volumes[i], &c->volumes[next]) != 0)
                break;
        if (next == i + 1) {
            c->volumes[kept++] = c->volumes[i];
            continue;
        }
        for (uint32_t k = i; k < next; k++) {
            find_candidate(b, c->volumes[k].layers[0].lv_name)->why = "two volumes have its name";
            free_volume(&c->volumes[k]);
        }
    }
    c->n_volumes = kept;
}

struct catalogue_index {
    struct uuid id;
    uint32_t volume;
};

static int by_index_id(const void *a, const void *b)
{
    const struct catalogue_index *one = a, *two = b;
    return memcmp(one->id.b, two->id.b, sizeof one->id.b);
}

static void make_index(struct catalogue *c)
{
    c->by_id = mem_array(c->n_volumes, sizeof *c->by_id);
    for (uint32_t i = 0; i < c->n_volumes; i++)
        c->by_id[i] = (struct catalogue_index){c->volumes[i].id, i};
    if (c->n_volumes > 0)
        qsort(c->by_id, c->n_volumes, sizeof *c->by_id, by_index_id);
}

static void list_foreign(struct builder *b)
{
    struct catalogue *c = b->ret;
    for (uint32_t i = 0; i < c->n_volumes; i++)
        for (uint32_t k = 0; k < c->volumes[i].n_layers; k++)
            find_candidate(b, c->volumes[i].layers[k].lv_name)->used = true;
    for (uint32_t i = 0; i < b->n; i++) {
        const struct candidate *x = &b->all[i];
        if (x->used)
            continue;
        c->foreign = mem_grow(c->foreign, c->n_foreign, sizeof *c->foreign);
        if (asprintf(&c->foreign[c->n_foreign++], "%s (%s)", x->lv->name,
                     x->why ? x->why : "no volume uses this layer") < 0)
            abort();
    }
}

int catalogue_build(const struct lvm_report *report, struct catalogue *ret, struct error *err)
{
    struct builder b = {.n = report->n_lvs, .ret = ret};

    (void)err;
    *ret = (struct catalogue){.vg_size = report->vg_size,
                              .vg_free = report->vg_free,
                              .extent_size = report->extent_size,
                              .seqno = report->seqno};
    b.all = mem_array(b.n, sizeof *b.all);
    for (uint32_t i = 0; i < b.n; i++)
        b.all[i] = classify(&report->lvs[i]);
    qsort(b.all, b.n, sizeof *b.all, by_lv_name);
    refuse_double_leaves(&b);
    build_volumes(&b);
    refuse_double_names(&b);
    make_index(ret);
    list_foreign(&b);
    free(b.all);
    return 0;
}

void catalogue_free(struct catalogue *catalogue)
{
    for (uint32_t i = 0; i < catalogue->n_volumes; i++)
        free_volume(&catalogue->volumes[i]);
    for (uint32_t i = 0; i < catalogue->n_foreign; i++)
        free(catalogue->foreign[i]);
    free(catalogue->volumes);
    free(catalogue->by_id);
    free(catalogue->foreign);
    memset(catalogue, 0, sizeof *catalogue);
}

struct catalogue_volume *catalogue_by_name(struct catalogue *c, const char *name)
{
    struct catalogue_volume key;
    if (c->n_volumes == 0 || strlen(name) > VOLUME_NAME_MAX)
        return NULL;
    strcpy(key.name, name);
    return bsearch(&key, c->volumes, c->n_volumes, sizeof key, by_volume_name);
}

struct catalogue_volume *catalogue_by_id(struct catalogue *c, const struct uuid *id)
{
    struct catalogue_index key = {.id = *id};
    const struct catalogue_index *found =
        c->n_volumes ? bsearch(&key, c->by_id, c->n_volumes, sizeof key, by_index_id) : NULL;
    return found ? &c->volumes[found->volume] : NULL;
}

bool catalogue_volume_is_new(const struct catalogue_volume *v)
{
    return v->layers[0].is_new;
}

bool catalogue_volume_is_deleting(const struct catalogue_volume *v)
{
    for (uint32_t i = 0; i < v->n_layers; i++)
        if (v->layers[i].deleting && v->layers[i].volume_short == uuid_short(&v->id))
            return true;
    return false;
}

int volume_size_check(uint64_t size, struct error *err)
{
    if (size < VOLUME_SIZE_MIN || size > VOLUME_SIZE_MAX)
        return error_set(err, LUNAR_E_INVALID,
                         "a volume has 1 MiB to 64 TiB, not %" PRIu64 " bytes", size);
    if (size % VOLUME_SIZE_STEP)
        return error_set(err, LUNAR_E_INVALID,
                         "a volume's size is a multiple of %u bytes, not %" PRIu64,
                         VOLUME_SIZE_STEP, size);
    return 0;
}
